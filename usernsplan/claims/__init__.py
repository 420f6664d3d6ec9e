"""Who has which ids of a host: one index of claims, which every other room only filters. Pure.

``sources`` has one small function for each source of claims, and ``index`` answers questions about
them. ``meant`` says which of them lie over others on purpose; ``pool`` and ``useradd`` say where
new ranges come from.
"""
