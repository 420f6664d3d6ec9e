"""Which volume is whose: what the ledger notes after a tree was fixed for a container. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.engines.mounts import standing
from usernsplan.escape import shell
from usernsplan.mapping import KINDS
from usernsplan.model import MOST_SEEN, LedgerChange, Plan
from usernsplan.strategies import Shared

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from usernsplan.layout import Layout
    from usernsplan.mapping import Kind, Mapping
    from usernsplan.model import HostState, LedgerState, Volume, VolumeSeen

# Of ids that do not belong in a volume, as many as fit on a line.
_SHOWN = 3


class Doubt(NamedTuple):
    """A recorded volume that does not look as the ledger has it: what is wrong, and what mends it."""

    volume: Volume
    fact: str
    remedy: str
    is_missing: bool = False


def record(state: HostState, volumes: Iterable[Volume], removed: Iterable[str] = ()) -> Plan:
    """Note these volumes, and that those at ``removed`` are no container's; nothing where it is noted already.

    A container that was released meanwhile gets none.
    """
    names, noted = (
        {a.name for a in state.ledger.allocations},
        {v.path for v in state.ledger.volumes},
    )
    new = tuple(v for v in not_noted(state.ledger, volumes) if v.name in names)
    gone = tuple(path for path in removed if path in noted)
    return Plan("volume", ledger=LedgerChange(volumes=new, no_volumes=gone))


def not_noted(
    ledger: LedgerState, volumes: Iterable[Volume], doubted: Container[str] = ()
) -> tuple[Volume, ...]:
    """Those that the ledger does not have just so, fixed for the range that their container has now.

    And those at ``doubted``, by path, which do not look as the ledger has them.
    """
    now = standing(ledger)
    return tuple(
        v
        for v in volumes
        if v.path not in now
        or v.path in doubted
        or replace(now[v.path], since=v.since, event=v.event) != v
    )


def doubts(ledger: LedgerState, seen: Iterable[VolumeSeen], layout: Layout) -> dict[str, Doubt]:
    """By path, the recorded volumes that were looked at and do not look right.

    A volume is right where every owner in sight has a place in its container's map: within that, the container may
    give its files to whom it likes.
    """
    now, maps = standing(ledger), {a.name: a.mapping for a in ledger.allocations}
    found = {}
    for one in seen:
        volume = now.get(one.path)
        fact = one.why or (_unlike(one, volume, maps[volume.name], ledger) if volume else "")
        if volume and fact:
            found[one.path] = Doubt(volume, fact, _mending(volume, one, layout), one.is_missing)
    return found


def looks(
    ledger: LedgerState, seen: Iterable[VolumeSeen], layout: Layout
) -> list[tuple[Volume, str, str]]:
    """The recorded volumes that stand, each with what is wrong and the remedy; "" where it looks right."""
    found = doubts(ledger, seen, layout)
    return [
        (v, found[p].fact, found[p].remedy) if p in found else (v, "", "")
        for p, v in standing(ledger).items()
    ]


def _unlike(one: VolumeSeen, volume: Volume, mapping: Mapping, ledger: LedgerState) -> str:
    """What of a volume is not as the ledger has it; "" where all is."""
    if volume.known_mode is None:
        return (
            f"the ledger has it with the mode {volume.mode!r}, which this usernsplan does not know"
        )
    return _strange(one, mapping, volume.name, ledger)


def _strange(one: VolumeSeen, mapping: Mapping, name: str, ledger: LedgerState) -> str:
    """Which owners in sight have no place in the map, in words; "" where all have."""

    def lacking(uid: int, gid: int) -> str:
        """What of an owner has no place, and whose it is."""
        return " and ".join(
            _id(kind, number, name, ledger)
            for kind, number in zip(KINDS, (uid, gid), strict=True)
            if mapping[kind].to_container(number) is None
        )

    owners = [(lacking(uid, gid), entries) for uid, gid, entries in one.owners]
    top = lacking(*one.top) if one.top else ""
    if one.keeps and not (top and all(strange for strange, _ in owners)):
        return ""
    inside: Counter[str] = Counter()
    for strange, entries in owners:
        if strange:
            inside[strange] += entries
    parts = [f"its top belongs to {top}"] if top else []
    total = f"the first {MOST_SEEN}" if one.is_cut else f"{sum(entries for _, entries in owners)}"
    parts += [
        f"{entries} of {total} entries in it belong to {strange}"
        for strange, entries in inside.most_common(_SHOWN)
    ]
    if len(inside) > _SHOWN:
        parts.append(f"and others to {len(inside) - _SHOWN} more owners")
    if parts and one.is_mount:
        parts.append("and something is mounted there")
    return ", ".join(parts)


def _id(kind: Kind, number: int, name: str, ledger: LedgerState) -> str:
    """An id, and whose it is as far as the ledger knows."""
    for a in ledger.allocations:
        if a.name != name and (
            (a.reserved_range and number in a.reserved_range)
            or a.mapping[kind].to_container(number) is not None
        ):
            return f"{kind} {number} ({a.name}'s)"
    released = next((q.name for q in ledger.quarantined if number in q.reserved_range), None)
    return f"{kind} {number} (of {released}'s former range)" if released else f"{kind} {number}"


def give_again(volume: Volume, layout: Layout) -> str:
    """The command that fixes a recorded volume as it was recorded."""
    # An unknown mode is left out: fix-volume asks for one then.
    how = ("--mode", volume.mode) if volume.known_mode else ()
    # Whoever owns another root wrote its ledger.
    whom = ("--user", volume.user) if volume.user else ()
    words = (volume.path, "--container", volume.name, *how, *whom)
    return layout.command(f"fix-volume {shell(*words)}")


def _mending(volume: Volume, seen: VolumeSeen, layout: Layout) -> str:
    command = give_again(volume, layout)
    if seen.is_missing:
        return f"put it back or mount it, then: {command}"
    if seen.is_mount:
        return (
            f"unmount what is mounted there if it hides the volume; if it is the volume: {command}"
        )
    return f"give it to the container again: {command}"


def has_moved(ledger: LedgerState, volume: Volume) -> bool:
    """Tell whether a volume still carries the ids that its container had before it was released and allocated anew."""
    found = next(
        (v for v in ledger.volumes if v.path == volume.path and v.name == volume.name), None
    )
    own = any(a.name == volume.name and a.strategy != Shared.name for a in ledger.allocations)
    if own and all(q.name != volume.name for q in ledger.quarantined):
        return False  # its range came back to it, or what it had before is forgotten
    return found is not None and found.mode == "shift" and found.path not in standing(ledger)
