"""Ranges of ids that others use by convention, each with its source. No pool ever gives them out.

The wide ranges that systemd and OpenShift reserve for containers are not in the table: every
program that takes ids from them checks first that they are free, and so do we.
"""

from __future__ import annotations

from usernsplan.ids import ID_LIMIT, IdRange
from usernsplan.values import dataclass

# LXD from a snap, and LXD and Incus where they find no lines of root's, give these ids to instances.
INSTANCES = IdRange(1000000, 1000000000)


@dataclass(frozen=True, slots=True)
class Reserved:
    """A range, its user, and the source for this."""

    ids: IdRange
    whose: str
    source: str


_SYSTEMD = "https://systemd.io/UIDS-GIDS/"


def _between(first: int, last: int, whose: str, source: str) -> Reserved:
    return Reserved(IdRange(first, last - first + 1), whose, source)


# The fixed ids 584788-584792 and the base user 524288 are made when a snap asks for them, and never
# change. Until 2026 this tool gave ids of this range out, and useradd still does: these stay, and
# no new range comes from here.
FOR_SNAPD = _between(
    524288,
    589823,
    "snapd, whose fixed users are 584788-584792",
    "https://snapcraft.io/docs/system-usernames",
)

TABLE: tuple[Reserved, ...] = (
    _between(0, 999, "system accounts", "UID_MIN in login.defs(5)"),
    _between(1000, 60000, "people", "UID_MIN and UID_MAX in login.defs(5)"),
    _between(60001, 60513, "systemd-homed", _SYSTEMD),
    _between(60514, 60577, "host users mapped into containers by systemd", _SYSTEMD),
    _between(60578, 60705, "greeters", _SYSTEMD),
    _between(60706, 61183, "unassigned below 65536, kept for the system", _SYSTEMD),
    _between(61184, 65519, "systemd's DynamicUser=", _SYSTEMD),
    _between(65520, 65535, "nobody (65534) and the 16-bit -1 (65535)", _SYSTEMD),
    FOR_SNAPD,
    _between(2147352576, 2147418111, "systemd's foreign images", _SYSTEMD),
    # Programs that keep ids in signed 32-bit numbers (runc, moby) see these as negative. FreeIPA
    # gives its subids from here.
    _between(
        2147483648,
        ID_LIMIT - 1,
        "FreeIPA's subids, and ids that are negative as signed numbers",
        "ipa-subid(8)",
    ),
)
