"""HostState x request -> Plan: every decision of allocate and release. Pure.

``make_plan`` and ``make_release`` are the entry points. ``recovery.mend`` decides how an interrupted
command ends.
"""

from usernsplan.planner.allocate import make_plan
from usernsplan.planner.release import make_release

__all__ = ["make_plan", "make_release"]
