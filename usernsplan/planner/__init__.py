"""HostState x request -> Plan: every decision of allocate and release, and none of the doing. Pure.

``make_plan`` and ``make_release`` are the ways in; ``recovery.mend`` decides what becomes of a run that was killed.
"""

from usernsplan.planner.allocate import make_plan
from usernsplan.planner.release import make_release

__all__ = ["make_plan", "make_release"]
