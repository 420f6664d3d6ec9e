"""What a ``fix-volume`` means: whose its volumes are, and which ids they have. Pure."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from usernsplan.engines import engine_of_pool, verdict
from usernsplan.engines.mounts import given, standing, unmoved
from usernsplan.errors import InvalidValueError, RefusedError, did_you_mean
from usernsplan.escape import shell, shown_path
from usernsplan.formats.passes import map_lines, parse_extent, parse_map
from usernsplan.holdings import all_own_ids, own_ids
from usernsplan.ids import IdSet
from usernsplan.layout import lies_in
from usernsplan.mapping import KINDS
from usernsplan.mapping import Mapping as Mapping_
from usernsplan.patterns import pattern
from usernsplan.strategies import Shared
from usernsplan.values import dataclass, replace
from usernsplan.volume import power, targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from usernsplan.fixing import FixRequest
    from usernsplan.formats.inspect import Inspected
    from usernsplan.model import Allocation, LedgerState, Volume

# A mount in the notation of engines: /SRC:/DEST, and options such as U.
_MOUNT = pattern(
    r"(?P<source>.+?):(?P<destination>/[^:]*)(?::(?P<options>[A-Za-z0-9_=,.;@#-]*))?", re.DOTALL
)
# --mode own without --user gives everything to container root.
_OWN = ("own", "0:0")


@dataclass(frozen=True, slots=True)
class HostIds:
    """The ids of the host's accounts and groups, and of each owner of subuid and subgid lines."""

    accounts: IdSet
    owners: tuple[IdSet, ...] = ()


@dataclass(frozen=True, slots=True)
class Meant:
    """A resolved request: its container, and its volumes by their names in the ledger.

    ``allocation`` is None with explicit maps. ``command`` turns arguments into a command to
    paste. ``former`` is the map whose ids the files have, if it is not the container's present one.
    """

    request: FixRequest
    ledger: LedgerState
    allocation: Allocation | None
    names: tuple[str, ...]
    command: Callable[[str], str]
    former: Mapping_ | None = None

    @property
    def container(self) -> str | None:
        """The name of the container."""
        return self.allocation.name if self.allocation else None


def source_of(words: str, *, exists: bool) -> str:
    """The path meant: /SRC:/DEST:U means /SRC, unless that whole name ``exists`` as a folder.

    Raises InvalidValueError for a mount with idmap: the engine maps the ids, so nothing is to
    change.
    """
    spelt = _MOUNT.fullmatch(words)
    if exists or spelt is None:
        return words
    if any(option.partition("=")[0] == "idmap" for option in (spelt["options"] or "").split(",")):
        raise InvalidValueError(
            f"{words}: with idmap the engine maps the ids of the mount",
            hint="leave the volume as it is",
        )
    return spelt["source"]


def container_of(
    request: FixRequest,
    ledger: LedgerState,
    names: Sequence[str],
    command: Callable[[str], str],
) -> Allocation | None:
    """The allocation to fix the volumes for (``names`` as in the ledger); None with explicit maps.

    ``command`` makes a command for the root of the ledger: a remedy must not change another host.

    Raises InvalidValueError if none is meant, or several could be.
    """
    if request.uid_map or request.gid_map:
        return None
    # An engine divides its pool between containers, so a pool does not belong to one of them.
    by_name = {a.name: a for a in ledger.allocations if not engine_of_pool(a)}
    if request.container is not None and by_name:
        return named(by_name, request.container, "--container")

    recorded = {v.path: v.name for v in ledger.volumes if v.name in by_name}
    only = next(iter(by_name)) if len(by_name) == 1 else None
    found = {recorded.get(name, only) for name in names}
    if len(found) == 1 and (name := next(iter(found))) is not None:
        return by_name[name]

    if not by_name:
        name = "NAME" if request.container is None else shell(request.container)
        by_map = "; or use --uid-map C:H:N --gid-map C:H:N" if request.method != "idmap" else ""
        raise InvalidValueError(
            "no container has ids yet",
            hint=f"allocate ids first: {command(f'allocate {name}')}{by_map}",
        )
    raise InvalidValueError(
        "several containers exist"
        if found == {None}
        else "these volumes do not all belong to the same container",
        hint=f"choose one with --container: {', '.join(sorted(by_name))}",
    )


def whose(one: Inspected, wanted: str | None, ledger: LedgerState) -> Allocation:
    """The allocation of an engine's container: by its map, or else by the daemon that starts it.

    ``wanted`` is --container. Raises RefusedError if the container has host ids, or if no
    allocation or several fit.
    """
    if one.is_hosts or not (one.mapping or one.root):
        raise RefusedError(
            f"{one.name} has no user namespace: its ids are the host's",
            hint="start it with a user namespace first",
        )

    if one.mapping is not None:
        fitting = [a for a in ledger.allocations if a.mapping == one.mapping]
        what = f"{one.name} has the map {', '.join(map(str, one.mapping.uids))}"
    else:
        # A daemon with userns-remap keeps everything in a folder <uid>.<gid> of the container root.
        folder = posixpath.basename(one.root)
        remaps = [a for a in ledger.allocations if verdict("docker", a).can]
        fitting = [
            a
            for a in remaps
            if folder == f"{a.mapping.uids.to_host(0)}.{a.mapping.gids.to_host(0)}"
        ]
        what = f"{one.name} does not run, and its daemon keeps it in {one.root}"

    # Many containers share one map; the name, or --container, tells which allocation is meant.
    chosen = [a for a in fitting if a.name == (wanted or one.name)] or ([] if wanted else fitting)
    if len(chosen) != 1:
        fact = f"does not belong to '{wanted}'" if wanted else "belongs to no single allocation"
        raise RefusedError(f"{what}: it {fact}", hint="'usernsplan list' shows all allocations")
    return chosen[0]


def images_of(
    request: FixRequest,
    ledger: LedgerState,
    rule: targets.OwnershipRule,
    host: HostIds,
    to: Allocation | None,
) -> power.Images:
    """The ids of a rule's target that are only images of the old ids, see power.

    An allocation has its own ids alone, and so has an owner of subuid lines; ids that pass are the
    host's. Ids from another container that still exists, or back to the host, have no images.
    """
    present = {a.name for a in ledger.allocations}
    if (
        rule.is_own
        or request.reverse
        or (request.source in present and request.source != request.container)
    ):
        return power.NONE

    targets_of_both = (rule.uids.target(), rule.gids.target())
    shown = _passed(ledger)
    if to is None:
        # An explicit map: its target may be the range of any allocation or owner of subuid lines.
        held = [all_own_ids(a) for a in ledger.allocations]
        return power.images(targets_of_both, host.accounts, [*held, *host.owners], shown)

    others = [a for a in ledger.allocations if a.name != to.name and a.strategy != Shared.name]
    if request.from_map and any(
        _old(moves) & own_ids(a, kind)
        for kind, moves in zip(KINDS, (rule.uids, rule.gids), strict=True)
        for a in others
    ):
        return power.NONE
    own = []
    for kind, target in zip(KINDS, targets_of_both, strict=True):
        its = target & own_ids(to, kind)
        # Of the range that a slice is cut from, all ids can be its owner's.
        shared = [
            a for a in others if any(its.meets(e.host, e.host + e.count) for e in a.mapping[kind])
        ]
        own.append(its - IdSet.union(own_ids(a, kind) for a in shared))
    return power.images((own[0], own[1]), host.accounts, [], shown)


def _passed(ledger: LedgerState) -> tuple[IdSet, IdSet]:
    """The host ids that some container shows: nobody has these alone."""
    passes = [p for a in ledger.allocations for p in a.passes]
    uids, gids = (IdSet(p.extent.host_range for p in passes if p.kind == kind) for kind in KINDS)
    return uids, gids


def _old(moves: targets.Moves) -> IdSet:
    return IdSet(e.container_range for e in moves.source)


def named(by_name: Mapping[str, Allocation], name: str, option: str) -> Allocation:
    """The allocation that an option names. Raises InvalidValueError for a name that nobody has."""
    if name not in by_name:
        hint = (
            f"one of: {', '.join(sorted(by_name))}"
            if by_name
            else "create one with 'usernsplan allocate'"
        )
        hint = did_you_mean(name, by_name, hint)
        raise InvalidValueError(f"{option} {name}: nothing is allocated under this name", hint=hint)
    return by_name[name]


def understood(
    request: FixRequest, ledger: LedgerState, names: Iterable[str], command: Callable[[str], str]
) -> Meant:
    """A request resolved on this host. Raises what ``container_of`` and ``as_recorded`` raise."""
    names = tuple(names)
    allocation = container_of(request, ledger, names, command)
    meant = Meant(request, ledger, allocation, names, command)
    meant = replace(meant, former=_former(meant))
    return replace(meant, request=as_recorded(meant))


def _former(meant: Meant) -> Mapping_ | None:
    """The map whose ids the files have, if it is not the container's present one.

    Raises RefusedError where the ledger says otherwise: such ids would be taken for others.
    """
    request, names = meant.request, meant.names
    typed = _typed_map(request)
    if meant.allocation is None:
        return typed

    whose = request.source or meant.allocation.name
    waiting = [v for v in unmoved(meant.ledger).values() if v.name == whose]
    # All in a volume moves with it.
    its = {name: next(iter(around(name, waiting)), None) for name in names}
    _refuse_part(meant, its)
    maps = {None if v is None else v.former for v in its.values()}
    if len(maps) > 1:
        raise RefusedError(
            f"the files in {', '.join(map(shown_path, names))} have ids of different maps",
            hint="fix one path",
        )

    noted = next(iter(maps), None)
    if noted is not None and typed not in {None, noted} and not request.again:
        raise RefusedError(
            f"{', '.join(map(shown_path, names))}: the ledger says that its files have the map"
            f" {', '.join(map_lines(noted))}",
            hint="leave out --from-map: it is used by itself; if the ledger is wrong, add --again",
        )
    return typed or noted


def around(name: str, volumes: Iterable[Volume]) -> list[Volume]:
    """Those of the volumes that a path is, or lies in, the outermost first."""
    return sorted((v for v in volumes if lies_in(name, v.path)), key=lambda v: len(v.path))


def _refuse_part(meant: Meant, its: Mapping[str, Volume | None]) -> None:
    """Raise RefusedError for a part of a volume that is not moved yet, or for more than it.

    Afterwards nothing would tell which files have which ids.
    """
    if meant.request.again:
        return
    for name, volume in its.items():
        former = volume.former if volume else None
        within = [v for v in given(meant.ledger).values() if v.path != name]
        strange = next((v for v in within if lies_in(v.path, name) and v.former != former), None)
        if volume is not None and volume.path != name:
            other, how = volume, "lies in"
        elif strange is not None:
            other, how = strange, "contains"
        else:
            continue
        what = "the ids of its former map" if other.former else "ids of another map"
        command = meant.command(f"fix-volume {shell(other.path, '--container', other.name)}")
        raise RefusedError(
            f"{shown_path(name)} {how} {shown_path(other.path)}, whose files have {what}",
            hint=f"nothing was changed; fix that first: {command}"
            if other.former
            else "nothing was changed; if the ledger is wrong, add --again",
        )


def _typed_map(request: FixRequest) -> Mapping_ | None:
    """The map of --from-map."""
    if not request.from_map:
        return None
    try:
        kinds = {kind for line in request.from_map for kind in parse_extent(line)[0]}
        for kind in KINDS:
            if kind not in kinds:
                raise InvalidValueError(
                    f"the map has no {kind}s",
                    hint=f"add its extents: '{kind[0]} CONTAINER HOST COUNT'; b is for both kinds",
                )
        return parse_map(request.from_map)
    except InvalidValueError as error:
        raise InvalidValueError(str(error), hint=error.hint, option="from-map") from error


def as_recorded(meant: Meant) -> FixRequest:
    """The request, completed with the mode and user that the ledger has for these volumes.

    A shifted volume is flattened only if --mode says so. Raises InvalidValueError if the volumes
    were fixed in different ways, RefusedError if they contain a shifted volume, or if the ledger
    has an unknown mode.
    """
    request, ledger, names, allocation = meant.request, meant.ledger, meant.names, meant.allocation
    said = (
        request.mode or request.reverse or request.source is not None or request.passwd is not None
    )
    if allocation is None or said or not names:
        return request
    if meant.former is not None and request.user is None:
        # Whatever the mode, each file keeps its container id: then it has the owner it should have.
        return replace(request, mode="shift")

    mine = [volume for volume in ledger.volumes if volume.name == allocation.name]
    ways = {name: _OWN if request.user is not None else _way(name, mine) for name in names}
    mode, user = next(iter(ways.values()))
    if len(set(ways.values())) > 1:
        shown = ", ".join(
            f"{shown_path(name)} ({' '.join(filter(None, way))})" for name, way in ways.items()
        )
        raise InvalidValueError(
            f"these volumes were fixed in different ways: {shown}",
            hint="use --mode, or fix one path",
        )
    if mode == "shift":
        return replace(request, mode="shift")

    for volume in mine:
        outer = next(
            (name for name in names if volume.path != name and lies_in(volume.path, name)), None
        )
        if volume.mode != "own" and outer:
            raise RefusedError(
                f"{shown_path(volume.path)} in {shown_path(outer)} was fixed with --mode"
                f" {volume.mode}: its owners would be lost",
                hint="use --mode shift, or --mode own to give everything one owner",
            )
    return (
        request
        if request.user is not None or user == _OWN[1]
        else replace(request, mode="own", user=user)
    )


def _way(name: str, volumes: Iterable[Volume]) -> tuple[str, str]:
    """How a path was fixed: as recorded for it, or for the innermost volume that contains it."""
    found = around(name, volumes)
    if not found:
        return _OWN
    over = found[-1]
    if over.known_mode is None:
        raise RefusedError(
            f"{shown_path(over.path)} was fixed with the mode {over.mode!r}, which this usernsplan"
            " does not know",
            hint="choose --mode shift to keep owners apart, or --mode own for one owner",
        )
    return ("shift", "") if over.mode == "shift" else ("own", over.user or _OWN[1])


def is_its_own(ledger: LedgerState, allocation: Allocation, names: Sequence[str]) -> bool:
    """Tell whether the ledger gives all these volumes to the container with its present ids."""
    its = volumes_of(ledger, allocation)
    return bool(names) and all(any(lies_in(name, path) for path in its) for name in names)


def is_settled(meant: Meant) -> bool:
    """Tell whether the ledger says that these files have the ids that they are to get."""
    request, allocation = meant.request, meant.allocation
    return (
        allocation is not None
        and request.mode == "shift"
        and request.source is None
        and meant.former is None
        and not (request.reverse or request.again)
        and is_its_own(meant.ledger, allocation, meant.names)
    )


def volumes_of(ledger: LedgerState, allocation: Allocation) -> list[str]:
    """The paths of the volumes that carry the present ids of a container."""
    return [v.path for v in standing(ledger).values() if v.name == allocation.name]
