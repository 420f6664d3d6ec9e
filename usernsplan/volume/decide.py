"""What a ``fix-volume`` means: options and ledger become a rule for these volumes. Pure."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from usernsplan.engines import engine_of_pool, verdict
from usernsplan.engines.mounts import standing
from usernsplan.errors import InvalidValueError, RefusedError, did_you_mean
from usernsplan.escape import shown_path
from usernsplan.ids import IdSet
from usernsplan.mapping import Extent, IdMap
from usernsplan.mapping import Mapping as Mapping_
from usernsplan.model import Allocation, FixRequest, LedgerState, Volume
from usernsplan.strategies import PerContainer, Shared, SingleUid
from usernsplan.volume import power, targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from usernsplan.formats.accounts import Accounts
    from usernsplan.formats.inspect import Inspected

# A mount in the notation of engines: /SRC:/DEST, and options such as U.
_MOUNT = re.compile(
    r"(?P<source>.+?):(?P<destination>/[^:]*)(?::(?P<options>[A-Za-z0-9_=,.;@#-]*))?", re.DOTALL
)
_NUMBERS = re.compile(r"\d{1,10}:\d{1,10}:\d{1,10}", re.ASCII)
_NUMBER = re.compile(r"\d{1,10}", re.ASCII)
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
    paste.
    """

    request: FixRequest
    ledger: LedgerState
    allocation: Allocation | None
    names: tuple[str, ...]
    command: Callable[[str], str]

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
    if request.container is not None:
        return _named(by_name, request.container, "--container")

    recorded = {v.path: v.name for v in ledger.volumes if v.name in by_name}
    only = next(iter(by_name)) if len(by_name) == 1 else None
    found = {recorded.get(name, only) for name in names}
    if len(found) == 1 and (name := next(iter(found))) is not None:
        return by_name[name]

    if not by_name:
        raise InvalidValueError(
            "no container has ids yet",
            hint=f"allocate ids first: {command('allocate NAME')}; "
            "or use --uid-map C:H:N --gid-map C:H:N",
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

    An allocation has its range alone, and so has an owner of subuid lines. Ids from another
    container that still exists, or back to the host, have no images.
    """
    standing = {a.name for a in ledger.allocations}
    if (
        rule.is_own
        or request.reverse
        or (request.source in standing and request.source != request.container)
    ):
        return power.NONE

    held = [IdSet([a.reserved_range]) for a in ledger.allocations if a.reserved_range]
    both = (rule.uids.target(), rule.gids.target())
    if to is None:
        # An explicit map: its target may be the range of any allocation or owner of subuid lines.
        return power.images(both, host.accounts, [*held, *host.owners])

    own = IdSet([to.reserved_range]) if to.reserved_range else IdSet()
    return power.images((both[0] & own, both[1] & own), host.accounts, [own])


def lies_in(path: str, folder: str) -> bool:
    """Tell whether a path is a folder, or below it."""
    return f"{path}/".startswith(folder.rstrip("/") + "/")


def _named(by_name: Mapping[str, Allocation], name: str, option: str) -> Allocation:
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
    request = as_recorded(request, ledger, allocation, names)
    return Meant(request, ledger, allocation, names, command)


def as_recorded(
    request: FixRequest, ledger: LedgerState, allocation: Allocation | None, names: Sequence[str]
) -> FixRequest:
    """The request, completed with the mode and user that the ledger has for these volumes.

    A shifted volume is flattened only if --mode says so. Raises InvalidValueError if the volumes
    were fixed in different ways, RefusedError if they contain a shifted volume, or if the ledger
    has an unknown mode.
    """
    said = (
        request.mode or request.reverse or request.source is not None or request.passwd is not None
    )
    if allocation is None or said or not names:
        return request

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
    over = max(
        (v for v in volumes if lies_in(name, v.path)), key=lambda v: len(v.path), default=None
    )
    if over is None:
        return _OWN
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


def volumes_of(ledger: LedgerState, allocation: Allocation) -> list[str]:
    """The paths of the volumes that carry the present ids of a container."""
    return [v.path for v in standing(ledger).values() if v.name == allocation.name]


def noted(meant: Meant, rule: targets.OwnershipRule) -> tuple[Volume, ...]:
    """The volumes to record, once this rule was applied; none in reverse."""
    allocation = meant.allocation
    if allocation is None or meant.request.reverse:
        return ()
    user = user_of(rule, allocation)
    return tuple(Volume(name, allocation.name, rule.mode, user=user) for name in meant.names)


def no_longer(meant: Meant, new: Iterable[Volume]) -> tuple[str, ...]:
    """The volumes at and below these paths that the ledger forgets: ``new`` ones cover them."""
    ways = {(v.name, v.mode, v.user) for v in new}
    outdated = (v for v in _within(meant) if (v.name, v.mode, v.user) not in ways)
    return tuple(v.path for v in outdated if v.path not in {one.path for one in new})


def formerly(meant: Meant) -> dict[str, list[str]]:
    """Whose these volumes, and present volumes in them, are before the run; an undo restores it."""
    now = standing(meant.ledger)
    was = {
        v.path: [v.name, v.mode, v.user]
        for v in _within(meant)
        if v.path in now or v.path in meant.names
    }
    return {name: ["", "", ""] for name in meant.names} | was


def _within(meant: Meant) -> list[Volume]:
    return [v for v in meant.ledger.volumes if any(lies_in(v.path, name) for name in meant.names)]


def targets_of(
    request: FixRequest,
    ledger: LedgerState,
    allocation: Allocation | None,
    passwd: Accounts,
    names: Sequence[str] = (),
) -> targets.OwnershipRule:
    """The rule that the options mean for volumes of these ``names`` in the ledger.

    Raises InvalidValueError for options that contradict each other.
    """
    keep = request.keep_unmapped
    explicit = bool(request.uid_map or request.gid_map)
    moves = request.mode == "shift" or request.reverse or request.source is not None
    shifts = moves or (explicit and request.user is None)

    wrong = {
        "--mode own cannot be combined with --reverse, --from or a map without --user": (
            request.mode == "own" and shifts
        ),
        "--user cannot be combined with --mode shift, --reverse or --from": (
            request.user is not None and moves
        ),
        "--reverse cannot be combined with --from": request.reverse and request.source is not None,
        "a map cannot be combined with --container or --from": (
            explicit and (request.container or request.source) is not None
        ),
        "--passwd needs --user": request.passwd is not None and request.user is None,
        "--uid-map and --gid-map need each other": bool(request.uid_map) != bool(request.gid_map),
    }
    for fact, is_wrong in wrong.items():
        if is_wrong:
            raise InvalidValueError(fact, hint="see 'usernsplan fix-volume --help'")
    if allocation is None:
        uids, gids = _map("--uid-map", request.uid_map), _map("--gid-map", request.gid_map)
        if request.user is not None:
            return targets.own(Mapping_(uids, gids), _user(request.user, passwd), keep=keep)
        return targets.explicit(uids, gids, reverse=request.reverse, keep=keep)

    # The host ids of a shared map are the host's too, except those reserved for it from the pool.
    alone = allocation.strategy != Shared.name or is_its_own(ledger, allocation, names)
    exclusive = None if alone else IdSet(filter(None, (allocation.reserved_range,)))
    if request.source is not None:
        old = former_map(request.source, ledger, allocation)
        return targets.move(old, allocation.mapping, keep=keep, exclusive=exclusive)
    if shifts:
        return targets.shift(
            allocation.mapping, reverse=request.reverse, keep=keep, exclusive=exclusive
        )
    return targets.own(allocation.mapping, _user(request.user, passwd), keep=keep)


def former_map(name: str, ledger: LedgerState, allocation: Allocation) -> Mapping_:
    """The mapping that files move out of: another allocation's, or a quarantined range's.

    The ledger has only the range of a quarantined one. Its mapping follows from the host's
    strategy.
    """
    released = [q.reserved_range for q in ledger.quarantined if q.name == name]
    if name == allocation.name and not released:
        raise InvalidValueError(
            "--from and --container have the same name", hint="give --from the former container"
        )
    if name != allocation.name and (
        not released or any(a.name == name for a in ledger.allocations)
    ):
        return _named({a.name: a for a in ledger.allocations}, name, "--from").mapping

    if len(released) > 1:
        ranges = ", ".join(map(str, released))
        raise InvalidValueError(
            f"--from {name}: several ranges of this name are quarantined: {ranges}",
            hint="move the files out of one with --uid-map, --gid-map and --reverse first",
        )
    if allocation.strategy == PerContainer.name:
        return PerContainer(released[0].count).mapping(released[0].start)
    if allocation.strategy == SingleUid.name:
        return SingleUid(container_id=allocation.mapping.uids[0].container).mapping(
            released[0].start
        )
    raise InvalidValueError(
        f"--from {name}: the ledger does not have the shared map of a released container",
        hint="use --uid-map and --gid-map",
    )


def user_of(rule: targets.OwnershipRule, allocation: Allocation) -> str:
    """The container's UID:GID that gets everything; "" if the rule keeps owners apart."""
    if rule.owner is None:
        return ""
    uid, gid = rule.owner
    return (
        f"{allocation.mapping.uids.to_container(uid)}:{allocation.mapping.gids.to_container(gid)}"
    )


def _map(option: str, texts: Iterable[str]) -> IdMap:
    extents = []
    for text in texts:
        if not _NUMBERS.fullmatch(text):
            raise InvalidValueError(
                f"{option} {text}: expected CONTAINER:HOST:COUNT, as in 0:100000:65536"
            )
        try:
            extents.append(Extent(*map(int, text.split(":"))))
        except InvalidValueError as error:
            raise InvalidValueError(f"{option} {text}: {error}", hint=error.hint) from error
    return IdMap(extents)


def _user(text: str | None, passwd: Accounts) -> targets.Owner:
    """The container ids of U or U:G. The default of G is the user's group in passwd, else 0."""
    if text is None:
        return (0, 0)

    name, colon, group_name = text.partition(":")
    number = int(name) if _NUMBER.fullmatch(name) else None
    user = passwd.user(name) if number is None else passwd.user_of(number)
    uid = user.uid if user else number
    if uid is None:
        raise InvalidValueError(
            f"--user {text}: no such user", hint="use a number, or the image's --passwd FILE"
        )

    if not colon:
        return (uid, user.gid if user else 0)
    if _NUMBER.fullmatch(group_name):
        return (uid, int(group_name))
    group = passwd.group(group_name)
    if group is None:
        raise InvalidValueError(
            f"--user {text}: no such group",
            hint="use a number, or --passwd FILE with the image's 'group' file in the same folder",
        )
    return (uid, group.gid)
