"""What stands on a host and has ids of its own, each as the allocation that describes it. Pure.

Lines of subuid and subgid are one map of their owner. A container's configuration has its map; the
ids are granted by lines that are exactly the map, or by larger ones: it is a slice of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.claims.meant import DAEMONS_OF_ROOT
from usernsplan.claims.sources import OF_CONTAINERS, Granted
from usernsplan.engines import pool_named
from usernsplan.errors import (
    InvalidValueError,
    RefusedError,
)
from usernsplan.escape import file_line, shell, utf8
from usernsplan.formats import quadlet_file
from usernsplan.formats.subid import PATHS, Grant, by_start, end_to_end
from usernsplan.holdings import own_ids
from usernsplan.ids import IdRange, IdSet
from usernsplan.layout import NSSWITCH, PROXMOX_NODES
from usernsplan.mapping import KINDS, Extent, IdMap, Mapping, Pass, joined
from usernsplan.model import (
    DEFAULT_NAME,
    DEFAULT_OWNER,
    INCUS,
    LXC,
    LXD,
    OWN_PREFIX,
    PODMAN,
    PROXMOX_VE,
    ROOT,
    Allocation,
)
from usernsplan.planner import outer
from usernsplan.planner.daemon import remapped_to
from usernsplan.planner.grants import Grants
from usernsplan.planner.names import check_name, check_owner, owner_of
from usernsplan.planner.publish import is_published
from usernsplan.strategies import PerContainer
from usernsplan.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from usernsplan.formats.subid import Line
    from usernsplan.mapping import Kind
    from usernsplan.model import (
        HostState,
        Quadlet,
        Unlisted,
    )

# What a container's name begins with if its own name is taken.
PREFIXES = {LXC: "lxc", PROXMOX_VE: "proxmox", INCUS: "incus", LXD: "lxd", PODMAN: "podman"}
# The ids of system accounts, on every distribution.
_SYSTEM = 1000
# More ids in a row than a host has accounts without a gap, so that a directory is asked few times.
_MOST_ACCOUNTS = 16


@dataclass(frozen=True, slots=True)
class Found:
    """Something on the host that has ids, and the allocation that describes it.

    ``what`` says what it is, and ``place`` is the file below the root with the line. ``owner`` is
    that of the lines which it is; "" for a container. If it is not understood, ``allocation`` is None
    and ``why`` says so, with a ``hint``. ``known`` is its name in the ledger, if the ledger has it.
    ``others`` are those that have some of its ids, too: only one can have them. ``told`` is a remark.
    ``account`` is whose container it is; "" if root's: an account writes into its own what it likes.
    """

    name: str
    what: str
    place: str = ""
    owner: str = ""
    allocation: Allocation | None = None
    why: str = ""
    hint: str = ""
    known: str = ""
    others: tuple[str, ...] = ()
    told: str = ""
    program: str = ""
    account: str = ""

    @property
    def is_new(self) -> bool:
        """Tell whether it can be adopted."""
        return self.allocation is not None and not self.known


def drafts(state: HostState) -> Iterator[Found]:
    """Everything on the host that has ids: lines, root's containers, those of accounts.

    Their names may clash. It finds what the state has: see host.read.with_configs.
    """
    lines = Grants(state)
    yield from _of_lines(state, lines)
    containers = [*_of_configs(state, lines), *_of_quadlets(state, lines)]
    yield from sorted(containers, key=lambda one: bool(one.account))


def of_map(state: HostState, name: str, grantee: str, mapping: Mapping) -> Found:
    """A container with this map, which lines of ``grantee`` have to grant; nothing else tells of it."""
    draft = Found(name, f"the map of '{name}' in the plan file")
    return _as_container(state, Grants(state), Granted(state), draft, grantee, mapping)


# Lines of subuid and subgid.


def _of_lines(state: HostState, lines: Grants) -> Iterator[Found]:
    names = {str(user.uid): user.name for user in reversed(state.accounts.users)}
    theirs: dict[str, dict[Kind, list[Line]]] = {}
    for kind in KINDS:
        for owner, several in state.subid(kind).by_owner().items():
            of = theirs.setdefault(names.get(owner, owner), {})
            of[kind] = sorted({*of.get(kind, ()), *several}, key=lambda line: line.number)
    docker = remapped_to(state)
    for owner, both in theirs.items():
        if owner:
            yield _of_owner(state, lines, owner, both, docker)


def _of_owner(
    state: HostState,
    lines: Grants,
    owner: str,
    both: dict[Kind, list[Line]],
    docker: str | None,
) -> Found:
    is_dockers = owner in {docker, DEFAULT_OWNER} if docker else owner == DEFAULT_OWNER
    name = DEFAULT_NAME if owner == (docker or DEFAULT_OWNER) else owner.removeprefix(OWN_PREFIX)
    first = next(kind for kind in KINDS if kind in both)
    draft = Found(name, f"the lines of {owner}", f"{PATHS[first]}:{both[first][0].number}", owner)
    if name == DEFAULT_NAME:
        draft = replace(draft, what=f"the lines of {owner}, Docker's remap user")
    elif engine := pool_named(owner):
        draft = replace(draft, what=f"the lines of {owner}, the pool of {engine}")

    if problem := _problem(state, owner, both):
        place, why, hint = problem
        return replace(draft, place=place or draft.place, why=why, hint=hint)
    try:
        check_owner(owner)
        if name != DEFAULT_NAME and not pool_named(name):
            check_name(name)
        is_ours = owner.startswith(OWN_PREFIX)
        in_order = is_dockers or is_ours
        maps = [_laid(state, kind, both.get(kind, []), in_file_order=in_order) for kind in KINDS]
        if is_ours:
            _refuse_sorted(state, name, maps)
        made = _allocation(state, name, owner, _mapping(*maps))
    except InvalidValueError as error:
        return replace(draft, why=str(error), hint=error.hint)
    return _as_lines(state, lines, draft, made)


def _problem(
    state: HostState, owner: str, both: dict[Kind, list[Line]]
) -> tuple[str, str, str] | None:
    """Why the lines of an owner are no map: the place (if not the first line), the reason, and a hint."""
    if owner == ROOT:
        why = (
            "root's lines are not one map: they grant ids to containers, which are found by their "
            "configurations"
        )
        return "", why, ""
    if owner in DAEMONS_OF_ROOT:
        return "", "this daemon runs as root, and takes the ids of root's lines", ""
    if why := _bypassed(state):
        return "", why, ""
    for kind, several in both.items():
        for line in several:
            place = f"{PATHS[kind]}:{line.number}"
            if not isinstance(line, Grant):
                return place, f"'{file_line(line.raw)}': {line.problem}", "correct the line"
            if line.start == line.stop:
                return place, "the line grants no id", "remove the line"
    return None


def _as_lines(state: HostState, lines: Grants, draft: Found, made: Allocation) -> Found:
    """The draft of lines that are exactly the map of ``made``."""
    if made.owner.startswith(OWN_PREFIX):
        # An engine may have needed the same lines for root.
        for split in ((), (ROOT,)):
            also = replace(made, extra_owners=(ROOT,), split_owners=split)
            if standing := lines.standing(also):
                made = standing
                break
    standing = lines.standing(made)
    if standing is None:
        return replace(
            draft, why=f"the lines of {made.owner} are not read alike", hint="write each once"
        )
    return replace(draft, allocation=replace(standing, published=is_published(state, standing)))


def _laid(state: HostState, kind: Kind, lines: list[Line], *, in_file_order: bool) -> IdMap:
    """The map of an owner's lines: end to end from container id 0, an extent each."""
    grants = [line for line in lines if isinstance(line, Grant)]
    if not grants:
        other = "subuid" if kind == "gid" else "subgid"
        raise InvalidValueError(
            f"{state.layout.path(PATHS[kind])} has no line of this owner, as {other} has",
            hint="add the line, or remove the other",
        )
    return IdMap(end_to_end(grants if in_file_order else by_start(grants)))


def _refuse_sorted(state: HostState, name: str, maps: Sequence[IdMap]) -> None:
    """Raise InvalidValueError if a useradd may have sorted our lines around ids that pass.

    They are written in the order of the map. An id of the host is seldom that of container root.
    """
    for one in maps:
        if one[1:] and one[0].host < OF_CONTAINERS:
            allocate = state.layout.inline(f"allocate {shell(name)} --start FIRST --pass …")
            raise InvalidValueError(
                "its lines begin with an id of the host: a useradd may have sorted them, so they do "
                "not show which container ids they map",
                hint=f"remove them, and run {allocate} as it was made",
            )


def _bypassed(state: HostState) -> str:
    """Why lines of the files say nothing on this host; "" if programs read them."""
    if state.subid_source.reads_files:
        return ""
    services, place = " ".join(state.subid_source.services), state.layout.path(NSSWITCH)
    return f"{place}: 'subid: {services}': programs do not read these lines"


# Containers of LXC, Proxmox VE, Incus and LXD.


def _of_configs(state: HostState, lines: Grants) -> Iterator[Found]:
    of: dict[tuple[str, str, str], list[Unlisted]] = {}
    for one in state.unlisted:
        if one.program in PREFIXES and one.container and (one.inside is not None or one.odd):
            of.setdefault((one.program, one.grantee, one.what), []).append(one)
    granted = Granted(state)
    for (program, grantee, what), several in of.items():
        first = several[0]
        place = f"{first.path}:{first.number}" if first.path else ""
        whose = "" if grantee == ROOT else f" of {grantee}"
        draft = Found(
            first.container,
            f"{program}'s {what}{whose}",
            place,
            program=program,
            account="" if grantee == ROOT else grantee,
        )
        if first.path.startswith(f"{PROXMOX_NODES}/"):
            yield replace(draft, why="it is a container of another node")
            continue
        if odd := next((one for one in several if one.odd), None):
            yield replace(
                draft,
                place=f"{odd.path}:{odd.number}",
                why=f"'{utf8(odd.odd)}': {program} refuses this line",
                hint="correct the line",
            )
            continue
        try:
            # Incus says three times what an instance has, and LXC's own rule is the kernel's.
            repeats = program in {INCUS, LXD}
            maps = [_map_of(several, kind, program, repeats=repeats) for kind in KINDS]
            mapping = _mapping(*maps)
            for kind in KINDS if program not in {INCUS, LXD} else ():
                if mapping[kind].to_host(0) is None:
                    raise InvalidValueError(
                        f"no line maps container root, {kind} 0: {program} does not start it"
                    )
        except InvalidValueError as error:
            yield replace(draft, why=str(error), hint=error.hint)
            continue
        yield _as_container(state, lines, granted, draft, grantee, mapping)


def _map_of(several: Sequence[Unlisted], kind: Kind, program: str, *, repeats: bool) -> IdMap:
    found = [
        Extent(one.inside or 0, one.start, one.stop - one.start)
        for one in several
        if one.kind == kind
    ]
    if not found:
        raise InvalidValueError(f"its map has no {kind}s: {program} does not start it")
    return IdMap(sorted(dict.fromkeys(found) if repeats else found))


def _as_container(  # noqa: PLR0913, PLR0917 - what it is, and what it is judged by
    state: HostState,
    lines: Grants,
    granted: Granted,
    draft: Found,
    grantee: str,
    mapping: Mapping,
) -> Found:
    """The draft of a container whose ids lines of ``grantee`` have to grant."""
    try:
        made = _allocation(state, draft.name, grantee, mapping, granted)
    except InvalidValueError as error:
        return replace(draft, why=str(error), hint=error.hint)
    if grantee == ROOT:
        for split in ((), (ROOT,)):
            if standing := lines.standing(replace(made, split_owners=split)):
                return replace(draft, allocation=standing)
    if lacking := _lacking(state, granted, grantee, mapping):
        place = lacking[0]
        return replace(
            draft,
            why=f"{place} grants {grantee} no {lacking[1]}",
            hint=f"{state.layout.inline('check')} shows the line that is missing (USN084)",
        )
    return replace(draft, allocation=replace(made, in_files=False, within=grantee))


def _lacking(
    state: HostState, granted: Granted, grantee: str, mapping: Mapping
) -> tuple[str, IdSet] | None:
    """The first file whose lines do not grant ids of a map, and these ids."""
    for kind in KINDS:
        spans = ((e.host, e.host + e.count) for e in mapping[kind])
        if lacking := granted.lacking(grantee, kind, spans):
            return state.layout.path(PATHS[kind]), lacking
    return None


# Podman's .container files.


def _of_quadlets(state: HostState, lines: Grants) -> Iterator[Found]:
    granted = Granted(state)
    for one in state.quadlets:
        whose = f" of {one.account}" if one.account else ""
        place = f"{one.path}:{one.number}"
        draft = Found(
            one.name,
            f"Podman's container {utf8(one.name)}{whose}",
            place,
            program=PODMAN,
            account=one.account,
        )
        if why := _without_map(one):
            yield replace(draft, why=why)
            continue
        try:
            mapping = _of_texts(state, one)
            if one.account:
                yield _as_container(state, lines, granted, draft, one.account, mapping)
                continue
            # Root's Podman needs no line.
            made = _allocation(state, one.name, owner_of(one.name), mapping)
            yield replace(draft, allocation=replace(made, in_files=False))
        except InvalidValueError as error:
            yield replace(draft, why=str(error), hint=error.hint)


def _without_map(one: Quadlet) -> str:
    """Why a .container file has no map of its own; "" if it has one."""
    if one.uids or one.gids:
        return ""
    if one.whose_ids:
        return f"it has the whole map of the lines of {one.whose_ids}: adopt these"
    owner = one.account or "containers"
    shown = f"'UserNS={utf8(one.userns)}'"
    if one.userns.startswith("auto"):
        return f"{shown}: Podman takes its ids from the lines of {owner} at each start"
    if one.userns.startswith("keep-id") and one.account:
        return f"{shown} gives it all ids of the lines of {owner}: adopt these"
    return f"{shown} gives it no ids of its own"


def _of_texts(state: HostState, one: Quadlet) -> Mapping:
    """The map of a .container file in host ids. Podman takes the one map for the other, too."""
    maps = []
    for kind, texts in zip(KINDS, (one.uids or one.gids, one.gids or one.uids), strict=True):
        read = [quadlet_file.extent(text) for text in texts]
        inner = sorted(e for e, is_host in read if not is_host or not one.account)
        outer_ = [e for e, is_host in read if is_host and one.account]
        if one.account and inner:
            space = namespace_of(state, one.account, kind)
            whole = IdMap(inner)
            shown = whole.compose(space)
            if sum(e.count for e in shown) != sum(e.count for e in whole):
                raise InvalidValueError(
                    f"some of its {kind}s are none of those that {one.account} has",
                    hint="Podman counts the ids of an account from 1 on, and 0 is the account",
                )
            outer_ += shown
        maps.append(IdMap(sorted(outer_ or inner)))
    return _mapping(*maps)


def namespace_of(state: HostState, account: str, kind: Kind) -> IdMap:
    """The ids of the user namespace in which an account's Podman runs, and the host's."""
    user = state.accounts.user(account)
    if user is None:
        raise InvalidValueError(f"{account} is no account of this host")
    by_owner = state.subid(kind).by_owner()
    lines = [line for name in user.owner_names for line in by_owner.get(name, ())]
    if any(not isinstance(line, Grant) for line in lines):
        raise InvalidValueError(f"the lines of {account} are not read alike")
    ids = [x for x in lines if isinstance(x, Grant) and x.start < x.stop]
    return IdMap([Extent(0, user.number(kind), 1), *end_to_end(by_start(ids), 1)])


# From a map to an allocation.


def _mapping(uids: IdMap, gids: IdMap) -> Mapping:
    return Mapping(uids, uids if uids == gids else gids)


def _allocation(
    state: HostState, name: str, owner: str, mapping: Mapping, granted: Granted | None = None
) -> Allocation:
    """The allocation of a map. Raises InvalidValueError if nothing of it is the container's own."""
    passes = passes_of(state, owner, mapping, granted)
    held = reserved_by(mapping, passes)
    if held and _has_holes_of_others(state, owner, mapping, held):
        held = None
    elif granted is not None and held and owner != ROOT and not _grants(granted, owner, held):
        # The author of a map chooses where its holes would be.
        held = None
    made = Allocation(name, owner, PerContainer.name, mapping, held, passes=passes)
    for kind in KINDS:
        if not own_ids(made, kind):
            raise InvalidValueError(
                f"all its {kind}s are the host's own",
                hint="there is nothing to keep for it",
            )
    try:
        outer.refuse_absent(state, made)
    except RefusedError as error:
        raise InvalidValueError(str(error), hint=error.hint) from error
    return made


def _has_holes_of_others(state: HostState, owner: str, mapping: Mapping, held: IdRange) -> bool:
    """Tell whether ids of a range that the map leaves out are another owner's.

    They are too where the map begins with ids that pass, and no line of this owner grants the ids
    before the first one of its own: useradd gives ranges out one after the other, so the id before
    a line is mostly the last one of another account.
    """
    of_account = state.accounts.user(owner)
    names = {owner, str(of_account.uid)} if of_account else {owner}
    for kind in KINDS:
        holes = IdSet([held]) - IdSet(extent.host_range for extent in mapping[kind])
        if not holes:
            continue
        lines = [line for line in state.subid(kind).lines if isinstance(line, Grant)]
        theirs, others = (
            IdSet.clipped((x.start, x.stop) for x in lines if (x.owner in names) is own)
            for own in (True, False)
        )
        first = IdSet(part for part in holes if part.start == held.start)
        ours = owner.startswith(OWN_PREFIX) and theirs
        if holes & others or (first - theirs and not ours):
            return True
    return False


def passes_of(
    state: HostState, owner: str, mapping: Mapping, granted: Granted | None = None
) -> tuple[Pass, ...]:
    """The extents of a map that show ids of the host: accounts, groups, and what is below 65536.

    Ids below 65536 are the host's: container ranges begin above. Only a range of many ids which
    hold no account, or one that goes on above, may be a container's there: SUB_UID_MIN can be that
    low, and people have lines such as alice:10000:65536. Above, the ids
    of accounts of a directory pass, and, if the map is not that of the lines themselves (``granted``),
    what has a line of its own beside a range of the container: a single id (root:10001234:1), or ids
    with the same number in the container. Raises InvalidValueError for an extent of both kinds.
    """
    found = []
    for kind in KINDS:
        largest = max(
            (e.count for e in mapping[kind] if e.host != e.container and e.host >= OF_CONTAINERS),
            default=0,
        )
        for extent in mapping[kind]:
            is_across = extent.host < OF_CONTAINERS < extent.host + extent.count
            if is_across and (extent.host < _SYSTEM or extent.container == extent.host):
                raise InvalidValueError(
                    f"{kind}s {extent.host_range} are the host's own in part",
                    hint=f"begin at {_SYSTEM} or above, and better at {OF_CONTAINERS}",
                )
            if _passes(state, owner, kind, extent, granted, largest):
                found.append(Pass(kind, extent))
    return tuple(sorted(found, key=lambda one: (KINDS.index(one.kind), one.extent)))


def _passes(  # noqa: PLR0913, PLR0917 - an extent, and all that it is judged by
    state: HostState, owner: str, kind: Kind, extent: Extent, granted: Granted | None, largest: int
) -> bool:
    if extent.host + extent.count <= OF_CONTAINERS:
        return extent.count == 1 or _shows_host(state, kind, extent)
    if extent.count <= _MOST_ACCOUNTS and all(
        _has_account(state, kind, number)
        for number in range(extent.host, extent.host + extent.count)
    ):
        return True
    return (
        granted is not None
        and (extent.count == 1 or extent.host == extent.container)
        and largest > 1
        and (extent.host, extent.host + extent.count) in granted.spans(owner, kind)
    )


def _shows_host(state: HostState, kind: Kind, extent: Extent) -> bool:
    """Tell whether low ids are those of the host: itself, its system's, or its accounts'."""
    if extent.container == extent.host or extent.host < _SYSTEM:
        return True
    have = (
        (user.uid for user in state.accounts.users)
        if kind == "uid"
        else (group.gid for group in state.accounts.groups)
    )
    return any(extent.host <= number < extent.host + extent.count for number in have)


def _has_account(state: HostState, kind: Kind, number: int) -> bool:
    known = state.accounts.user_of if kind == "uid" else state.accounts.group_of
    return known(number) is not None


def _grants(granted: Granted, owner: str, ids: IdRange) -> bool:
    return all(not IdSet((ids,)) - granted.to(owner, kind) for kind in KINDS)


def reserved_by(mapping: Mapping, passes: Sequence[Pass]) -> IdRange | None:
    """The range that a map is made of, the same for uids and gids; None if there is no such one.

    The ids of its holes belong to it, as --pass makes them.
    """
    own = {kind: [e for e in mapping[kind] if Pass(kind, e) not in passes] for kind in KINDS}
    first = next(iter(own["uid"]), None)
    if first is None or first.host < first.container:
        return None
    base = first.host - first.container
    # A pass past the range is an extent of its own, and one at its end is in it.
    ends = (
        max(e.container + e.count for kind in KINDS for e in some[kind]) for some in (mapping, own)
    )
    return next(
        (IdRange(base, size) for size in ends if _is_made(mapping, passes, base, size)), None
    )


def _is_made(mapping: Mapping, passes: Sequence[Pass], base: int, size: int) -> bool:
    """Tell whether a range with these passes has exactly this map."""
    try:
        return same(PerContainer(size, passes=joined(passes)).mapping(base), mapping)
    except InvalidValueError:
        return False


def same(one: Mapping, other: Mapping) -> bool:
    """Tell whether two maps show the same ids, however their extents are cut."""
    return whole(one) == whole(other)


def whole(mapping: Mapping) -> tuple[tuple[tuple[int, int, int], ...], ...]:
    """The extents of both maps by container id; those that continue each other are one."""
    return tuple(tuple(_whole(mapping[kind])) for kind in KINDS)


def _whole(ids: IdMap) -> list[tuple[int, int, int]]:
    found: list[tuple[int, int, int]] = []
    for container, host, count in sorted(ids.triples()):
        before = found[-1] if found else (0, 0, 0)
        if found and (before[0] + before[2], before[1] + before[2]) == (container, host):
            found[-1] = (before[0], before[1], before[2] + count)
        else:
            found.append((container, host, count))
    return found
