"""The claims on the ids of a host: one index, which every other package only filters. Pure.

``sources`` has one small function for each source of claims, and ``index`` answers questions about
them. ``meant`` recognizes claims that overlap others on purpose. ``pool`` and ``useradd`` define
where new ranges come from.
"""
