"""What the ledger records of volumes once a run has changed them, and once it is undone. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines.mounts import given, unmoved
from usernsplan.formats.passes import map_lines, parse_map
from usernsplan.layout import lies_in
from usernsplan.model import Volume
from usernsplan.volume.decide import around

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from usernsplan.model import Allocation, LedgerState
    from usernsplan.volume import targets
    from usernsplan.volume.decide import Meant


def noted(meant: Meant, rule: targets.OwnershipRule) -> tuple[Volume, ...]:
    """The volumes to record, once this rule was applied; none in reverse.

    A volume that moves from its former map stays recorded as it was, and so do those in it.
    """
    allocation = meant.allocation
    if allocation is None or meant.request.reverse:
        return ()
    user = user_of(rule, allocation)
    new = {name: Volume(name, allocation.name, rule.mode, user=user) for name in meant.names}
    if meant.former is not None and not rule.is_own:
        new |= {
            v.path: Volume(v.path, v.name, v.mode, user=v.user)
            for v in _within(meant)
            if v.name == allocation.name and v.path in given(meant.ledger)
        }
    return tuple(new.values())


def user_of(rule: targets.OwnershipRule, allocation: Allocation) -> str:
    """The container's UID:GID that gets everything; "" if the rule keeps owners apart."""
    if rule.owner is None:
        return ""
    uid, gid = rule.owner
    return (
        f"{allocation.mapping.uids.to_container(uid)}:{allocation.mapping.gids.to_container(gid)}"
    )


def no_longer(meant: Meant, new: Iterable[Volume]) -> tuple[str, ...]:
    """The volumes at and below these paths that the ledger forgets: ``new`` ones cover them."""
    ways = {(v.name, v.mode, v.user) for v in new}
    outdated = (
        v for v in _within(meant) if (v.name, v.mode, v.user) not in ways or v.former is not None
    )
    return tuple(v.path for v in outdated if v.path not in {one.path for one in new})


def formerly(meant: Meant) -> dict[str, list[str]]:
    """Whose these volumes, and present volumes in them, are before the run; an undo restores it.

    Each has name, mode, user, and the lines of the map that its files have if that is not the
    container's.
    """
    now = given(meant.ledger)
    was = {
        v.path: [v.name, v.mode, v.user, *(map_lines(v.former) if v.former else ())]
        for v in _within(meant)
        if v.path in now or v.path in meant.names
    }
    return {name: ["", "", ""] for name in meant.names} | was


def restored(formerly: Mapping[str, list[str]], ledger: LedgerState) -> tuple[Volume, ...]:
    """The volumes of ``formerly``. If one waits to be moved now, its files have that map.

    Raises InvalidValueError for words that no run writes.
    """
    waiting = unmoved(ledger)
    found = []
    for path, (name, mode, *more) in formerly.items():
        # Older versions did not record the user of a volume.
        user, *lines = more or [""]
        over = around(path, [v for v in waiting.values() if v.name == name])
        now = over[-1] if over else None
        former = parse_map(lines) if lines else now.former if now else None
        if name:
            found.append(Volume(path, name, mode, user=user, former=former))
    return tuple(found)


def _within(meant: Meant) -> list[Volume]:
    return [v for v in meant.ledger.volumes if any(lies_in(v.path, name) for name in meant.names)]
