"""The recorded volumes: what the ledger notes after fix-volume, and whether it is still true. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from usernsplan.engines.mounts import NOT_MOVED, given, standing
from usernsplan.escape import shell
from usernsplan.mapping import KINDS
from usernsplan.model import MOST_SEEN, LedgerChange
from usernsplan.strategies import Shared
from usernsplan.values import NamedTuple, replace

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from usernsplan.layout import Layout
    from usernsplan.mapping import Kind, Mapping
    from usernsplan.model import LedgerState, Volume, VolumeSeen

# At most this many foreign ids of a volume are named, so that they fit on a line.
_SHOWN = 3


class Doubt(NamedTuple):
    """A recorded volume that differs from the ledger: the fact, and the remedy."""

    volume: Volume
    fact: str
    remedy: str
    is_missing: bool = False


def record(
    ledger: LedgerState, volumes: Iterable[Volume], removed: Iterable[str] = ()
) -> LedgerChange:
    """What the ledger gains by these volumes, and loses: no container has those at ``removed``.

    It changes nothing that is recorded already. A container that was released since then gets none.
    """
    maps = {a.name: a.mapping for a in ledger.allocations}
    noted = {v.path for v in ledger.volumes}
    # A remap that was undone may have brought back the very map whose ids the files have.
    right = (replace(v, former=None) if v.former == maps.get(v.name) else v for v in volumes)
    new = tuple(v for v in not_noted(ledger, right) if v.name in maps)
    gone = tuple(path for path in removed if path in noted)
    return LedgerChange(volumes=new, no_volumes=gone)


def not_noted(
    ledger: LedgerState, volumes: Iterable[Volume], doubted: Container[str] = ()
) -> tuple[Volume, ...]:
    """The volumes that the ledger does not have exactly so for the present range of their container.

    Also those at the paths ``doubted``, which differ from the ledger on disk.
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
    """By path, the recorded volumes that were looked at and are wrong.

    A volume is right if its container's map has every owner that was seen: a container may choose
    the owners of its files among its own ids.
    """
    now, maps = given(ledger), {a.name: a.mapping for a in ledger.allocations}
    found = {}
    for one in seen:
        volume = now.get(one.path)
        fact = one.why or (_unlike(one, volume, maps[volume.name], ledger) if volume else "")
        if volume and volume.former is not None and not one.is_missing:
            found[one.path] = Doubt(volume, NOT_MOVED, f"finish it: {finishing(volume, layout)}")
        elif volume and fact:
            found[one.path] = Doubt(volume, fact, _mending(volume, one, layout), one.is_missing)
    return found


def finishing(volume: Volume, layout: Layout) -> str:
    """The command that moves what a remap has not moved yet."""
    return layout.command(f"remap {shell(volume.name)}")


def looks(
    ledger: LedgerState, seen: Iterable[VolumeSeen], layout: Layout
) -> list[tuple[Volume, str, str]]:
    """The recorded volumes, each with the fact and the remedy; both are "" if it is right."""
    found = doubts(ledger, seen, layout)
    return [
        (v, found[p].fact, found[p].remedy) if p in found else (v, "", "")
        for p, v in given(ledger).items()
    ]


def _unlike(one: VolumeSeen, volume: Volume, mapping: Mapping, ledger: LedgerState) -> str:
    """How a volume differs from the ledger; "" if it does not."""
    if volume.known_mode is None:
        return f"the ledger has the mode {volume.mode!r}, which this usernsplan does not know"
    return _strange(one, mapping, volume.name, ledger)


def _strange(one: VolumeSeen, mapping: Mapping, name: str, ledger: LedgerState) -> str:
    """The owners that the map lacks, as text; "" if it has all that were seen."""

    def lacking(uid: int, gid: int) -> str:
        """The ids of an owner that the map lacks, with their holders."""
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
    """An id, with its holder if the ledger knows one."""
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
    # Without a mode fix-volume asks for one.
    how = ("--mode", volume.mode) if volume.known_mode else ()
    user = ("--user", volume.user) if volume.user else ()
    # shell: somebody else may have written the ledger of another root.
    words = (volume.path, "--container", volume.name, *how, *user)
    return layout.command(f"fix-volume {shell(*words)}")


def _mending(volume: Volume, seen: VolumeSeen, layout: Layout) -> str:
    command = give_again(volume, layout)
    if seen.is_missing:
        return f"restore or mount it, then: {command}"
    if seen.is_mount:
        return f"if the mount hides the volume, unmount it; if it is the volume: {command}"
    return f"fix it again: {command}"


def has_moved(ledger: LedgerState, volume: Volume) -> bool:
    """Tell whether a volume still carries the ids of its container before its last release."""
    found = next(
        (v for v in ledger.volumes if v.path == volume.path and v.name == volume.name), None
    )
    own = any(a.name == volume.name and a.strategy != Shared.name for a in ledger.allocations)
    if own and all(q.name != volume.name for q in ledger.quarantined):
        return False  # it got its former range back, or that range is forgotten
    # What a remap has not moved yet is moved from the map that the ledger notes.
    return found is not None and found.mode == "shift" and found.path not in given(ledger)
