"""The machine: small functions named after what they touch. They decide nothing.

``read`` turns a host into values; ``files``, ``locks`` and ``accounts`` change it. Every path comes
from a Layout and is opened below its root.
"""
