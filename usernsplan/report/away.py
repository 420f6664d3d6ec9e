"""The words that the ledger of a fleet gives no answer: what is shown is this host's own file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from usernsplan.escape import line, utf8

if TYPE_CHECKING:
    from usernsplan.fleetwide import Away

# Up to so many seconds, an age is told in this unit.
_UNITS = ((120, 1, "s"), (2 * 3600, 60, "min"), (48 * 3600, 3600, "h"))


def age(seconds: float) -> str:
    """How long ago something was, in the unit that people would use."""
    for limit, unit, name in _UNITS:
        if seconds < limit:
            return f"{int(seconds // unit)} {name}"
    return f"{int(seconds // 86400)} days"


def words(away: Away) -> str:
    """What is to be said to people."""
    return (
        f"the ledger of the fleet, {away.place}, is not reachable ({line(away.why)}): "
        f"this is this host's copy, {age(away.seconds)} old"
    )


def fields(away: Away) -> dict[str, Any]:
    """The field ``fleet`` of a document."""
    return {
        "place": utf8(away.place),
        "reachable": False,
        "why": utf8(away.why),
        "age_seconds": int(away.seconds),
    }
