"""release: remove an allocation's lines and quarantine its range; or forget a quarantined range."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from usernsplan.engines.base import allocate_again
from usernsplan.errors import (
    InvalidFileError,
    InvalidValueError,
    RefusedError,
    UnknownNameError,
    did_you_mean,
)
from usernsplan.escape import shell, shown_path
from usernsplan.formats import daemon_json
from usernsplan.formats.subid import Grant
from usernsplan.holdings import has_lines
from usernsplan.ids import IdRange, IdSet
from usernsplan.layout import DAEMON_JSON
from usernsplan.model import DEFAULT_NAME, OWN_PREFIX, ROOT, Change, Finding, LedgerChange, Plan
from usernsplan.planner import daemon, mounts, slices
from usernsplan.planner.directory import with_owners
from usernsplan.planner.grants import Grants, keeps_lines, needed_of_root
from usernsplan.planner.names import has_default_owner
from usernsplan.planner.publish import accounts_gone, changes
from usernsplan.planner.stories import advise

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

    from usernsplan.formats.subid import Line
    from usernsplan.model import Allocation, HostState, Quarantined, ReleaseRequest, VolumeMount


# At most this many names or volumes are in one proposed command.
_NAMED = 20
# At most this many names have a proposed command of their own.
_FEW = 5


def make_release(state: HostState, request: ReleaseRequest) -> Plan:
    """Decide one ``release``: all the names or none.

    Raises UnknownNameError for an unknown name, InvalidValueError if a name has several quarantined
    ranges and the request does not choose one, and RefusedError if Docker still uses the allocation.
    """
    names = tuple(dict.fromkeys(request.names))
    return (
        _forget(state, names, request.range) if request.forget else _release(state, names, request)
    )


def _release(state: HostState, names: tuple[str, ...], request: ReleaseRequest) -> Plan:
    known = {allocation.name: allocation for allocation in state.ledger.allocations}
    for name in names:
        if name not in known:
            raise UnknownNameError(
                f"nothing is allocated under the name '{name}'; nothing was released",
                hint=did_you_mean(name, known, UnknownNameError.hint),
            )

    released = frozenset(names)
    mounts.refuse_standing(state, mounts.of_names(state, released), "released")
    left = tuple(m for m in state.ledger.mounts if m.name in released)
    if any(volume.former is not None for volume in state.ledger.volumes):
        from usernsplan.planner.remap import refuse_unfinished  # noqa: PLC0415 - seldom

        refuse_unfinished(state, names)
    gone = tuple(known[name] for name in names)
    state = with_owners(state, (a.owner for a in gone if not a.owner.startswith(OWN_PREFIX)))
    grants = Grants(state)
    kept = needed_of_root(a for a in state.ledger.allocations if a.name not in released)
    staying = {a.name: _ranges(grants.remove(a, kept, with_found=request.with_lines)) for a in gone}
    losing = tuple(a for a in gone if has_lines(a) and (request.with_lines or not keeps_lines(a)))
    slices.refuse_without_ground(state, losing, released)
    docker = _unpoint(state, losing, unset=request.unset_remap)

    # A range whose line stays still belongs to its owner: nobody else gets it, and it needs no
    # quarantine.
    reserved = tuple(
        (a.name, ids)
        for a in gone
        for ids in slices.quarantined(a)
        if not staying[a.name].meets(ids.start, ids.stop)
    )
    return Plan(
        kind="release",
        allocations=gone,
        changes=grants.changes() + docker.changes,
        ledger=LedgerChange(remove=names, quarantine=reserved, no_mounts=tuple(m.at for m in left)),
        findings=(
            *grants.findings,
            *docker.findings,
            *_accounts(state, losing),
            *_volumes(state, gone, dict(reserved)),
            *_mounts(state, left),
        ),
        next_steps=(*docker.next_steps, *_later(state, reserved)),
        records=changes(state.userdb, gone, ()),
        # userdel would also remove the lines that stay.
        accounts_gone=accounts_gone(state, [a for a in gone if not staying[a.name]]),
    )


def _volumes(
    state: HostState, gone: Iterable[Allocation], kept: Container[str]
) -> Iterator[Finding]:
    """A finding for each allocation with volumes: these stay as they are."""
    for allocation in gone:
        if paths := _paths(state, allocation.name):
            few = ", ".join(shown_path(p) for p in paths[:_FEW])
            more = f" and {len(paths) - _FEW} more" if paths[_FEW:] else ""
            message = (
                f"the volumes of '{allocation.name}' stay as they are, with its ids: {few}{more}"
            )
            for_lxc = ("--engine", "lxc") if ROOT in allocation.extra_owners else ()
            command = allocate_again(allocation, state.layout, *for_lxc)
            again = f"this gives it back its range and its volumes: {command}"
            hint = again if allocation.name in kept else ""
            yield advise("USN133", message, hint)


def _mounts(state: HostState, left: Iterable[VolumeMount]) -> Iterator[Finding]:
    """A finding for each mount that the ledger forgets: it does not stand any more."""
    for mount in left:
        source, at = (shown_path(state.layout.path(path)) for path in (mount.source, mount.at))
        yield advise(
            "USN180",
            f"{source} is not mounted at {at} any more, so the mount is forgotten with '{mount.name}'",
            "the files have the ids on disk that they had before",
        )


def _later(state: HostState, held: Sequence[tuple[str, IdRange]]) -> Iterator[str]:
    """Commands for quarantined ranges: find the files that carry their ids, then forget them."""
    command = state.layout.command
    # A slice may have one range of uids and another one of gids.
    several = list(dict.fromkeys(name for name, _ in held))
    for name in several[:_FEW]:
        dirs = " ".join(map(shell, ("/", *_paths(state, name)[:_NAMED])))
        yield f"{command(f'find-owned {shell(name)} {dirs}')}  # lists the files that carry its ids"
    if several[_FEW:]:
        yield f"{command('check --scan /')}  # lists all ranges that files still carry"
    times = Counter(name for name, _ in held)
    apart = [(name, ids) for name, ids in held if times[name] > 1]
    alone = [name for name in several if name not in dict(apart)]
    if alone:
        more = " …" if alone[_NAMED:] else ""
        words = f"release --forget {shell(*alone[:_NAMED])}{more}"
        yield f"{command(words)}  # once no file carries these ids"
    for name, ids in apart[:_FEW]:
        words = f"release --forget {shell(name)} --range {ids.start}-{ids.last}"
        yield f"{command(words)}  # once no file carries these ids"


def _paths(state: HostState, name: str) -> list[str]:
    return [volume.path for volume in state.ledger.volumes if volume.name == name]


def _ranges(lines: Iterable[Line]) -> IdSet:
    return IdSet(
        IdRange(line.start, line.stop - line.start) for line in lines if isinstance(line, Grant)
    )


def _accounts(state: HostState, gone: Iterable[Allocation]) -> Iterator[Finding]:
    """A finding for each account that was created for a Docker instance of a container."""
    for allocation in gone:
        is_ours = allocation.name != DEFAULT_NAME and has_default_owner(allocation)
        if is_ours and state.accounts.user(allocation.owner):
            message = (
                f"the account {allocation.owner} stays, but a Docker daemon that is remapped to it "
                "no longer starts"
            )
            userdel = shell(*state.layout.account_command(("userdel", allocation.owner)))
            hint = f"stop docker-{allocation.name} if it runs, then: {userdel}"
            yield advise("USN125", message, hint)


def _forget(state: HostState, names: tuple[str, ...], wanted: IdRange | None) -> Plan:
    if wanted is not None and len(names) > 1:
        raise InvalidValueError(
            "--range is for one name, and there are several", hint="forget them one at a time"
        )

    kept: dict[str, list[Quarantined]] = {name: [] for name in names}
    for one in state.ledger.quarantined:
        if one.name in kept:
            kept[one.name].append(one)
    freed = {name: _one_of(state, name, ranges, wanted) for name, ranges in kept.items()}
    ids = IdSet(one.reserved_range for one in freed.values())
    mounts.refuse_standing(state, mounts.of_ids(state, ids), "forgotten")
    whole = tuple(name for name in names if kept[name] == [freed[name]])
    in_part = [name for name in names if kept[name] != [freed[name]]]
    single = tuple((name, freed[name].reserved_range) for name in in_part)
    return Plan(
        kind="forget",
        ledger=LedgerChange(forget=whole, unkeep=single),
        freed=tuple(freed.values()),
        findings=tuple(_elsewhere(state, freed.values())),
    )


def _elsewhere(state: HostState, freed: Iterable[Quarantined]) -> Iterator[Finding]:
    """A finding for each range that other hosts of the fleet still have: it is not given out yet."""
    fleet = state.ledger.fleet
    if fleet is None:
        return
    for one in freed:
        ids = one.reserved_range
        known = [
            k for k in fleet.known if (k.name, k.start, k.stop) == (one.name, ids.start, ids.stop)
        ]
        held = {host for k in known for host in k.held}
        kept = {host for k in known for host in k.quarantined} - held - {fleet.host}
        others = [*(f"{host} has it" for host in sorted(held - {fleet.host}))]
        others += [f"{host} quarantines it" for host in sorted(kept)]
        if others:
            command = state.layout.command(f"release --forget {shell(one.name)}")
            yield advise(
                "USN195",
                f"{ids} is no longer quarantined here, and the fleet does not give it out yet:"
                f" {', '.join(others)}",
                f"once no file there carries these ids, on each of them: {command}",
            )


def _one_of(
    state: HostState, name: str, ranges: Sequence[Quarantined], wanted: IdRange | None
) -> Quarantined:
    """The one quarantined range of a name that the request means.

    Raises UnknownNameError if there is none, and InvalidValueError if there are several.
    """
    if not ranges:
        raise UnknownNameError(
            f"'{name}' has no quarantined range; nothing was forgotten",
            hint=did_you_mean(
                name,
                (one.name for one in state.ledger.quarantined),
                "'usernsplan list' shows the quarantined ranges",
            ),
        )

    meant = [one for one in ranges if wanted in {None, one.reserved_range}]
    if len(meant) == 1:
        return meant[0]
    these = ", ".join(
        f"{one.reserved_range} (released {one.since})" if one.since else str(one.reserved_range)
        for one in ranges
    )
    if not meant:
        raise UnknownNameError(
            f"'{name}' has no quarantined range {wanted}, but {these}; nothing was forgotten",
            hint="'usernsplan list' shows the quarantined ranges",
        )
    which = f"{meant[0].reserved_range.start}-{meant[0].reserved_range.last}"
    command = state.layout.command(f"release --forget {shell(name)} --range {which}")
    raise InvalidValueError(
        f"'{name}' has {len(meant)} quarantined ranges: {these}; nothing was forgotten",
        hint=f"choose one: {command}",
    )


def _unpoint(state: HostState, gone: tuple[Allocation, ...], *, unset: bool) -> daemon.Pointed:
    """Remove userns-remap if its user loses its lines: dockerd does not start without them.

    Raises RefusedError unless ``unset`` permits it.
    """
    owners = {allocation.owner for allocation in gone}
    place = state.layout.path(DAEMON_JSON)
    try:
        config = daemon_json.parse(state.daemon_json or b"", place)
    except InvalidFileError as error:
        if daemon_json.REMAP.encode() in (state.daemon_json or b""):
            raise
        # No daemon starts with this file, so none depends on these lines.
        hint = "correct it; Docker does not start with it"
        return daemon.Pointed(findings=(advise("USN117", str(error), hint),))

    current = config.get(daemon_json.REMAP)
    if current is None or daemon.remap_user(state, current) not in owners:
        return daemon.Pointed()
    if not unset:
        raise RefusedError(
            f'{place}: "userns-remap" is "{current}": without its lines Docker does not start',
            hint="use --unset-remap to remove userns-remap, too; containers then run as the host's root",
        )
    daemon.refuse_symlink(state)
    change = Change(DAEMON_JSON, state.daemon_json, daemon_json.without_remap(config))
    return daemon.Pointed(changes=(change,), next_steps=(daemon.RESTART,))
