"""Make a lost ledger again from the lines in subuid and subgid and the journals of runs. Pure.

It guesses nothing. Whatever can be read in two ways, or is nowhere else, is left out and named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.claims.sources import OF_CONTAINERS
from usernsplan.errors import InvalidValueError
from usernsplan.escape import shell
from usernsplan.formats.subid import Grant
from usernsplan.holdings import granted, holdings
from usernsplan.ids import IdRange, IdSet
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.mapping import KINDS, Extent, Pass, joined
from usernsplan.model import (
    DEFAULT_NAME,
    OWN_PREFIX,
    ROOT,
    Allocation,
    LedgerChange,
    LedgerState,
    Volume,
    VolumeMount,
)
from usernsplan.planner.names import check_name
from usernsplan.planner.publish import is_published
from usernsplan.strategies import PerContainer, Shared
from usernsplan.values import NamedTuple, dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usernsplan.formats.subid import SubidFile
    from usernsplan.mapping import Mapping
    from usernsplan.model import HostState, Mode
    from usernsplan.strategies import Strategy

# How many owners a message names.
_SHOWN = 5

Ranges = tuple[IdRange, ...]


class Given(NamedTuple):
    """What the journal of a run shows: the container that its volumes were given to, and the map.

    ``paths`` are the volumes, by their names below the root. ``owner`` is the host's (uid, gid)
    that everything got; None if owners were kept apart. ``is_done``: the run was not interrupted.
    ``is_reverse``: it gave the volumes back to the host. ``mounts`` are those that it made instead
    of changing files; with ``is_undone`` they are gone.
    """

    run: str
    container: str
    mapping: Mapping
    mode: Mode
    owner: tuple[int, int] | None
    paths: tuple[str, ...]
    is_done: bool = True
    is_reverse: bool = False
    mounts: tuple[VolumeMount, ...] = ()
    is_undone: bool = False


class LeftOut(NamedTuple):
    """What cannot be known, why, and what the user can do about it."""

    what: str
    why: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The proposed ledger, as its first change, and what it lacks."""

    change: LedgerChange
    left_out: tuple[LeftOut, ...]


def make_rebuilt(
    state: HostState, given: Sequence[Given], unread: Iterable[LeftOut] = ()
) -> Rebuilt:
    """Decide what a new ledger holds.

    ``given`` is oldest first. ``unread`` are the runs whose journals cannot be read.
    """
    lines = _Lines(state)
    made: dict[str, Allocation] = {}
    quarantined: list[tuple[str, IdRange]] = []
    left = list(unread)

    # usernsplan chose the names of these owners, so their lines are ours.
    ours = dict.fromkeys(owner for owner in lines.owners() if owner.startswith(OWN_PREFIX))
    for owner in ours:
        found = _of_lines(owner.removeprefix(OWN_PREFIX), owner, lines)
        if isinstance(found, Allocation):
            made[found.name] = found
        else:
            left.append(found)

    given = _with_new_names(given, made, lines)
    # The last run of a container has its latest map.
    last = {one.container: one for one in given if not (one.is_reverse or one.is_undone)}
    for name, one in last.items():
        if f"{OWN_PREFIX}{name}" not in ours:
            match _of_run(one, lines):
                case Allocation() as found:
                    made[name] = found
                case IdRange() as ids:
                    quarantined.append((name, ids))
                case LeftOut() as why:
                    left.append(why)

    left += _without_overlaps(made)
    left += _others(lines, {a.owner for a in made.values()} | {one.what for one in left})
    left += _shared_with_root(made.values(), lines)
    quarantined += _still_quarantined(state, made.values(), quarantined)
    made = {name: replace(a, published=is_published(state, a)) for name, a in made.items()}
    volumes = _volumes(made, {name for name, _ in quarantined}, given, left)
    find = state.layout.command("find-owned FIRST-LAST DIR")
    adopt = state.layout.inline("adopt")
    nowhere_else = "no other file has them for certain"
    if state.ledger != LedgerState():
        nowhere_else += "; the new ledger keeps what the damaged one still shows"
    left.append(
        LeftOut(
            "quarantined ranges, reservations, slices, allocations without lines, new names, policies "
            "and the history",
            nowhere_else,
            f"{adopt} lists those whose map a configuration of LXC, Incus or Podman has; allocate "
            "other slices again, with --within and --start; reserve in a plan file the ids that "
            "other programs use; say again with harden what containers may do; before you use a new "
            f"range, look for files that carry its ids: {find}",
        )
    )

    change = LedgerChange(
        add=tuple(made.values()),
        quarantine=tuple(quarantined),
        volumes=volumes,
        mounts=_mounts(made, given, left),
        reserve=state.ledger.reservations,
    )
    return Rebuilt(change, tuple(dict.fromkeys(left)))


def _with_new_names(
    given: Sequence[Given], made: dict[str, Allocation], lines: _Lines
) -> list[Given]:
    """The runs by the latest names of containers, and ``made`` likewise.

    The lines of a renamed container have the owner of its first name, and only a run of later shows
    the new one.
    """
    called: dict[str, str] = {}
    for one in given:
        fitting = [
            a
            for a in made.values()
            if a.mapping == one.mapping and lines.of(a.owner)[0] == a.mapping.uids.host_ranges()
        ]
        is_given = not (one.is_reverse or one.is_undone)
        if len(fitting) == 1 and one.container not in made and is_given:
            called[fitting[0].name] = one.container
    for old, new in called.items():
        if list(called.values()).count(new) == 1:
            made[new] = replace(made.pop(old), name=new)
    return [
        one._replace(container=called.get(one.container, one.container))
        if called.get(one.container, one.container) in made
        else one
        for one in given
    ]


class _Lines:
    """The ranges of each owner in both files, in order."""

    def __init__(self, state: HostState) -> None:
        self.layout = state.layout
        files = (state.subuid, state.subgid)
        names = {str(user.uid): user.name for user in reversed(state.accounts.users)}
        self._uids, self._gids = (_grants(file, names) for file in files)
        # Some program may read an odd line as one of these owners.
        self.odd = {owner for file in files for line in file.odd_lines() for owner in line.owners}
        self.claimed = IdSet.union(file.claimed() for file in files)
        self.place = f"{self.layout.path(SUBUID)} and {self.layout.path(SUBGID)}"

    def owners(self) -> list[str]:
        return [*dict.fromkeys([*self._uids, *self._gids])]

    def of(self, owner: str) -> tuple[Ranges, Ranges]:
        return self._uids.get(owner, ()), self._gids.get(owner, ())


def _grants(file: SubidFile, names: dict[str, str]) -> dict[str, Ranges]:
    """The ranges of each owner; ``names`` are those of uids, which a line may have instead."""
    found: dict[str, Ranges] = {}
    for line in file.lines:
        if isinstance(line, Grant):
            try:
                ranges: Ranges = (IdRange(line.start, line.stop - line.start),)
            except InvalidValueError:
                ranges = ()
            owner = names.get(line.owner, line.owner)
            found[owner] = found.get(owner, ()) + ranges
    return found


def _of_lines(name: str, owner: str, lines: _Lines) -> Allocation | LeftOut:
    """The allocation that the lines of an owner show."""
    try:
        if name != DEFAULT_NAME:
            check_name(name)
    except InvalidValueError as error:
        return LeftOut(owner, f"{error}")

    uids, gids = lines.of(owner)
    strategy, base = _strategy(uids) if uids and uids == gids else (None, None)
    if strategy is None or strategy.mapping(base).uids.host_ranges() != uids:
        strategy, base = _with_passes(uids, gids) or (strategy, base)
    if owner in lines.odd or (uids != gids and strategy is None) or not uids:
        why = f"its lines in {lines.place} differ, or not every program reads them alike"
        check = lines.layout.command("check")
        remedy = f"make the lines in both files equal, or remove them: {check}"
        if owner not in lines.odd and len(uids) + len(gids) > len(KINDS):
            why += "; or ids pass through, and the lines are not in the order of the map"
            allocate = lines.layout.inline(f"allocate {shell(name)} --start FIRST --pass …")
            remedy += f"; for passes, remove them and run {allocate} as it was made"
        return LeftOut(owner, why, remedy)

    adopt = lines.layout.inline(
        f"allocate {shell(name, '--owner', owner, '--start', str(uids[0].start))}"
    )
    remedy = f"run {adopt} with the options that it was made with; this adopts the lines"
    if strategy is None:
        return LeftOut(owner, "its lines do not show which container ids they map", remedy)
    ids = IdRange(base, strategy.need.count) if strategy.need and base is not None else None
    passes = strategy.passes if isinstance(strategy, PerContainer) else ()
    made = Allocation(name, owner, strategy.name, strategy.mapping(base), ids, passes=passes)
    if (made.mapping.uids.host_ranges(), made.mapping.gids.host_ranges()) != (uids, gids):
        return LeftOut(owner, "no strategy makes such lines", remedy)

    if owner.startswith(OWN_PREFIX):
        return made
    # Nothing proves that we wrote them, so release leaves them.
    return replace(made, found=tuple(line for one in holdings(made) for line in one.noted()))


def _strategy(ranges: Ranges) -> tuple[Strategy | None, int | None]:
    """The only strategy that makes such lines, with its base; (None, None) if none or several do.

    A single id may be any id of its container, and does not show the size of its block.
    """
    first, last = ranges[0], ranges[-1].last
    try:
        if len(ranges) == 1 and first.count > 1:
            if first.start == 0:
                return Shared(identity=True, max=first.count), None
            return PerContainer(size=first.count), first.start
        if first.count == 1 and first.start > 0 and len(ranges) in {2, 3}:
            fills = len(ranges) == 3  # noqa: PLR2004 - root, the filler, the rest
            shared = Shared(dockerroot=first.start, max=last, filler=fills)
            return shared, ranges[1].start if fills else None
    except InvalidValueError:
        pass
    return None, None


def _with_passes(uids: Ranges, gids: Ranges) -> tuple[PerContainer, int] | None:
    """The private map that lines show which lie end to end around ids of the host, and its base.

    None if they show no such map. usernsplan writes the lines in the order of the map; after a
    useradd has sorted them, nothing shows which line stands for which container ids. A pass at the
    end, or behind a gap, could be part of the range.
    """
    if not (uids and gids):
        return None
    size = sum(ids.count for ids in uids)
    base = uids[-1].stop - size
    if base < OF_CONTAINERS or base != gids[-1].stop - sum(ids.count for ids in gids):
        return None

    found = []
    for kind, ranges in zip(KINDS, (uids, gids), strict=True):
        container = 0
        for ids in ranges:
            if ids.start != base + container:
                if ids.stop > OF_CONTAINERS:
                    return None
                found.append(Pass(kind, Extent(container, ids.start, ids.count)))
            container += ids.count
        if container != size:
            return None
    shape = PerContainer(size, passes=joined(found))
    try:
        shape.mapping(base)
    except InvalidValueError:
        return None
    return (shape, base) if found else None


def _of_run(one: Given, lines: _Lines) -> Allocation | IdRange | LeftOut:
    """The allocation that a run used; if no owner has its lines, its range, for quarantine."""
    uids, gids = one.mapping.uids.host_ranges(), one.mapping.gids.host_ranges()
    owners = [o for o in lines.owners() if o != ROOT and lines.of(o) == (uids, gids)]
    if len(owners) == 1:
        found = _of_lines(one.container, owners[0], lines)
        if isinstance(found, Allocation) and found.mapping != one.mapping:
            why = f"run {one.run} gave volumes to '{one.container}' with another map"
            return LeftOut(owners[0], why)
        return found

    ids = uids[0]
    is_one_range = uids == gids == (ids,) and ids.count > 1 and ids.start > 0
    if shown := _with_passes(uids, gids):
        strategy, base = shown
        ids, is_one_range = IdRange(base, strategy.size), strategy.size > 1
    if not owners and is_one_range and not lines.claimed.meets(ids.start, ids.stop):
        # It was released, or lost its lines. Files carry these ids, so no other container may
        # have them.
        return ids
    why = (
        f"run {one.run} gave volumes to it, and the lines in {lines.place} "
        "do not show which owner has its ids now"
    )
    return LeftOut(one.container, why, "allocate it again with the options that it was made with")


def _without_overlaps(made: dict[str, Allocation]) -> Iterable[LeftOut]:
    """Drop allocations that overlap: usernsplan never makes two such, so neither is certain."""
    widest: tuple[IdRange, str] | None = None
    held = sorted((a.reserved_range, name) for name, a in made.items() if a.reserved_range)
    for ids, name in held:
        if widest and ids.start < widest[0].stop:
            why = f"the lines of {widest[1]} and {name} overlap"
            yield from (LeftOut(made.pop(n).owner, why) for n in (widest[1], name) if n in made)
        if not widest or ids.stop > widest[0].stop:
            widest = (ids, name)


def _still_quarantined(
    state: HostState, made: Iterable[Allocation], quarantined: Iterable[tuple[str, IdRange]]
) -> list[tuple[str, IdRange]]:
    """The ranges that the damaged ledger shows as quarantined. A wrong one only wastes its ids."""
    allocated = (a.reserved_range for a in made if a.reserved_range)
    taken = IdSet([*allocated, *(ids for _, ids in quarantined)])
    return [
        (q.name, q.reserved_range)
        for q in state.ledger.quarantined
        if not taken.meets(q.reserved_range.start, q.reserved_range.stop)
    ]


def _others(lines: _Lines, known: set[str]) -> Iterable[LeftOut]:
    """The owners whose names do not show whether usernsplan wrote their lines."""
    names = [
        owner
        for owner in lines.owners()
        if owner not in known and owner != ROOT and not owner.startswith(OWN_PREFIX)
    ]
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        adopt, listing = lines.layout.inline("adopt NAME"), lines.layout.inline("adopt")
        yield LeftOut(
            f"lines of {', '.join(names[:_SHOWN])}{more}",
            "the names do not show whether usernsplan wrote them; "
            "no other container gets their ids",
            f"if the ledger had some, {listing} lists them, and {adopt} takes one over as it stands",
        )


def _shared_with_root(made: Iterable[Allocation], lines: _Lines) -> Iterable[LeftOut]:
    """The allocations whose lines root has too, as LXC needs them."""
    of_root = dict(zip(KINDS, ({*ranges} for ranges in lines.of(ROOT)), strict=True))
    for a in made:
        whole = replace(a, extra_owners=(ROOT,))
        forms = (whole, replace(whole, split_owners=(ROOT,)))
        if any(
            all(of_root[kind].issuperset(granted(form, kind, ROOT)) for kind in KINDS)
            for form in forms
        ):
            lxc = lines.layout.inline(f"allocate {shell(a.name)} --engine lxc")
            yield LeftOut(
                f"root's lines for {a.name}",
                "nothing proves that usernsplan wrote them",
                f"if an engine such as LXC needs them, run {lxc} "
                "with the options that it was made with",
            )


def _volumes(
    made: dict[str, Allocation], quarantined: set[str], given: Iterable[Given], left: list[LeftOut]
) -> tuple[Volume, ...]:
    """The volumes that runs gave to these containers by their maps, and not away since then."""
    found: dict[str, Volume] = {}
    changed = (one for one in given if not one.mounts)
    for run, path in ((one, path) for one in changed for path in one.paths):
        found.pop(path, None)
        if run.is_reverse:
            continue
        has = made.get(run.container)
        mapping = has.mapping if has else run.mapping
        is_known = has is not None or run.container in quarantined

        if not run.is_done:
            why = (
                f"run {run.run} on it was interrupted; the ledger gets it when the run is finished"
            )
            left.append(LeftOut(path, why))
        elif is_known and mapping.uids.host_ranges() == run.mapping.uids.host_ranges():
            user = ""
            if run.owner is not None:
                uid, gid = run.owner
                user = f"{mapping.uids.to_container(uid)}:{mapping.gids.to_container(gid)}"
            found[path] = Volume(path, run.container, run.mode, user=user)
        else:
            why = (
                f"run {run.run} gave it to '{run.container}', whose ids are unknown or have changed"
            )
            remedy = "when the container is known, run fix-volume on it again"
            left.append(LeftOut(path, why, remedy))
    return tuple(sorted(found.values(), key=lambda volume: volume.path))


def _mounts(
    made: dict[str, Allocation], given: Iterable[Given], left: list[LeftOut]
) -> tuple[VolumeMount, ...]:
    """The mounts that runs made for these containers by their maps. The last run at a place counts."""
    last = {mount.at: (run, mount) for run in given for mount in run.mounts}
    found = []
    for run, mount in last.values():
        if run.is_undone:
            continue
        has = made.get(run.container)
        what = f"mount {mount.at}"
        if not run.is_done:
            why = f"run {run.run} was interrupted; the ledger gets it when the run is finished"
            left.append(LeftOut(what, why))
        elif has is not None and has.mapping == run.mapping:
            found.append(replace(mount, name=run.container, run=run.run))
        else:
            why = f"run {run.run} made it for '{run.container}', whose ids are unknown or have changed"
            remedy = "when the container is known, mount the volume again with mount-volume"
            left.append(LeftOut(what, why, remedy))
    return tuple(sorted(found, key=lambda mount: mount.at))
