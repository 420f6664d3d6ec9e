"""Ranges of ids that belong to somebody else by convention, each with its source.

Two kinds: what is never handed out, and the wide ranges in which container tools share the room by looking first.
"""

from __future__ import annotations

from dataclasses import dataclass

from usernsplan.ids import ID_LIMIT, IdRange, IdSet


@dataclass(frozen=True, slots=True)
class Reserved:
    """A range, whose it is, and where that is written. ``exclusive``: nothing of ours may lie in it."""

    ids: IdRange
    whose: str
    source: str
    exclusive: bool = True


_SYSTEMD = "https://systemd.io/UIDS-GIDS/"


def _between(first: int, last: int, whose: str, source: str, *, exclusive: bool = True) -> Reserved:
    return Reserved(IdRange(first, last - first + 1), whose, source, exclusive)


TABLE: tuple[Reserved, ...] = (
    _between(0, 999, "system accounts", "UID_MIN in login.defs(5)"),
    _between(1000, 60000, "people", "UID_MIN and UID_MAX in login.defs(5)"),
    _between(60001, 60513, "systemd-homed", _SYSTEMD),
    _between(60514, 60577, "host users mapped into containers by systemd", _SYSTEMD),
    _between(60578, 60705, "greeters", _SYSTEMD),
    _between(60706, 61183, "unassigned below 65536, kept for the system", _SYSTEMD),
    _between(61184, 65519, "systemd's DynamicUser=", _SYSTEMD),
    _between(65520, 65535, "nobody (65534) and the 16-bit -1 (65535)", _SYSTEMD),
    _between(524288, 1879048191, "container ranges of systemd-nspawn and nsresourced", _SYSTEMD, exclusive=False),
    _between(1000000000, 1999999999, "OpenShift projects", "openshift.io/sa.scc.uid-range", exclusive=False),
    _between(2147352576, 2147418111, "systemd's foreign images", _SYSTEMD),
    # Readers that keep ids in a signed 32-bit number see these as negative (runc, moby); FreeIPA's subids live here.
    _between(2147483648, ID_LIMIT - 1, "FreeIPA's subids, and ids that are negative as signed numbers", "ipa-subid(8)"),
)

# Never to be handed out, whatever --pool says.
EXCLUSIVE = IdSet(entry.ids for entry in TABLE if entry.exclusive)
