"""release: take an allocation's lines out and keep its range from being given out again; or forget such a range."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from usernsplan.ids import IdRange, IdSet
from usernsplan.layout import DAEMON_JSON
from usernsplan.model import DEFAULT_NAME, Change, Finding, LedgerChange, Plan
from usernsplan.planner import daemon
from usernsplan.planner.grants import Grants, keeps_lines, needed_of_root
from usernsplan.planner.names import owner_of
from usernsplan.planner.stories import advise

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

    from usernsplan.formats.subid import Line
    from usernsplan.model import Allocation, HostState, Quarantined, ReleaseRequest


# So many names or volumes stand in a proposal, and so many have a line of their own.
_NAMED = 20
_FEW = 5


def make_release(state: HostState, request: ReleaseRequest) -> Plan:
    """Decide one ``release``: all the names or none.

    Raises UnknownNameError for a name that nothing is known of, InvalidValueError for one of whose released ranges it
    does not say which, and RefusedError where Docker still uses it.
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
    gone = tuple(known[name] for name in names)
    grants = Grants(state)
    kept = needed_of_root(a for a in state.ledger.allocations if a.name not in names)
    staying = {a.name: _ranges(grants.remove(a, kept, with_found=request.with_lines)) for a in gone}
    losing = tuple(a for a in gone if request.with_lines or not keeps_lines(a))
    docker = _unpoint(state, losing, unset=request.unset_remap)
    # A range whose line stays is its owner's as it was before us: nobody else gets it, and nothing is to be forgotten.
    reserved = tuple(
        (a.name, a.reserved_range)
        for a in gone
        if a.reserved_range
        and not staying[a.name].meets(a.reserved_range.start, a.reserved_range.stop)
    )
    return Plan(
        kind="release",
        allocations=gone,
        changes=grants.changes() + docker.changes,
        ledger=LedgerChange(remove=names, quarantine=reserved),
        findings=(
            *grants.findings,
            *docker.findings,
            *_accounts(state, losing),
            *_volumes(state, gone, dict(reserved)),
        ),
        next_steps=(*docker.next_steps, *_later(state, reserved)),
    )


def _volumes(
    state: HostState, gone: Iterable[Allocation], kept: Container[str]
) -> Iterator[Finding]:
    """What becomes of the volumes: nothing."""
    for allocation in gone:
        if paths := _paths(state, allocation.name):
            few = ", ".join(shown_path(p) for p in paths[:_FEW])
            more = f" and {len(paths) - _FEW} more" if paths[_FEW:] else ""
            message = (
                f"the volumes of '{allocation.name}' stay as they are, with its ids: {few}{more}"
            )
            hint = (
                "allocated again by the same words, it has its range and its volumes again"
                if allocation.name in kept
                else ""
            )
            yield advise("USN133", message, hint)


def _later(state: HostState, held: Sequence[tuple[str, IdRange]]) -> Iterator[str]:
    """What to do with ranges that are kept back: see what carries their ids, and forget them in the end."""
    command = state.layout.command
    for name, _ in held[:_FEW]:
        dirs = " ".join(map(shell, ("/", *_paths(state, name)[:_NAMED])))
        yield f"{command(f'find-owned {shell(name)} {dirs}')}  # lists the files that carry its ids"
    if held[_FEW:]:
        yield f"{command('check --scan /')}  # tells of all of them which still are carried"
    if held:
        forget = " ".join(shell(name) for name, _ in held[:_NAMED]) + (
            " …" if held[_NAMED:] else ""
        )
        yield f"{command(f'release --forget {forget}')}  # once no file carries these ids any more"


def _paths(state: HostState, name: str) -> list[str]:
    return [volume.path for volume in state.ledger.volumes if volume.name == name]


def _ranges(lines: Iterable[Line]) -> IdSet:
    return IdSet(
        IdRange(line.start, line.stop - line.start) for line in lines if isinstance(line, Grant)
    )


def _accounts(state: HostState, gone: Iterable[Allocation]) -> Iterator[Finding]:
    """An account of a container's name was made for a Docker daemon of its own."""
    for allocation in gone:
        is_ours = allocation.name != DEFAULT_NAME and allocation.owner == owner_of(allocation.name)
        if is_ours and state.accounts.user(allocation.owner):
            message = f"the account {allocation.owner} stays, and a Docker daemon that is remapped to it does not start"
            userdel = shell(*state.layout.account_command(("userdel", allocation.owner)))
            hint = f"stop docker-{allocation.name} first where there is one, and then: {userdel}"
            yield advise("USN125", message, hint)


def _forget(state: HostState, names: tuple[str, ...], wanted: IdRange | None) -> Plan:
    if wanted is not None and len(names) > 1:
        raise InvalidValueError(
            "--range is about one name, and several are given", hint="forget them one at a time"
        )
    kept = {name: [one for one in state.ledger.quarantined if one.name == name] for name in names}
    freed = {name: _one_of(state, name, ranges, wanted) for name, ranges in kept.items()}
    whole = tuple(name for name in names if kept[name] == [freed[name]])
    single = tuple((name, one.reserved_range) for name, one in freed.items() if name not in whole)
    return Plan(
        kind="forget", ledger=LedgerChange(forget=whole, unkeep=single), freed=tuple(freed.values())
    )


def _one_of(
    state: HostState, name: str, ranges: Sequence[Quarantined], wanted: IdRange | None
) -> Quarantined:
    """The range of a name that is meant: one, and never every range that it ever had."""
    if not ranges:
        raise UnknownNameError(
            f"no released range is kept under the name '{name}'; nothing was forgotten",
            hint=did_you_mean(
                name,
                (one.name for one in state.ledger.quarantined),
                "'usernsplan list' shows the ranges in quarantine",
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
        hint = "'usernsplan list' shows the ranges in quarantine"
        raise UnknownNameError(
            f"'{name}' has no released range {wanted}, but {these}; nothing was forgotten",
            hint=hint,
        )
    which = f"{meant[0].reserved_range.start}-{meant[0].reserved_range.last}"
    one_of_them = state.layout.command(f"release --forget {shell(name)} --range {which}")
    raise InvalidValueError(
        f"'{name}' has {len(meant)} released ranges: {these}; nothing was forgotten",
        hint=f"say which: {one_of_them}",
    )


def _unpoint(state: HostState, gone: tuple[Allocation, ...], *, unset: bool) -> daemon.Pointed:
    """Take userns-remap out where it names an owner that is about to lose its lines: dockerd would not start."""
    owners = {allocation.owner for allocation in gone}
    place = state.layout.path(DAEMON_JSON)
    try:
        config = daemon_json.parse(state.daemon_json or b"", place)
    except InvalidFileError as error:
        if daemon_json.REMAP.encode() in (state.daemon_json or b""):
            raise
        # No daemon starts from this file, so none depends on these lines.
        return daemon.Pointed(
            findings=(advise("USN117", str(error), "Docker cannot start from it"),)
        )
    current = config.get(daemon_json.REMAP)
    if current is None or daemon.remap_user(state, current) not in owners:
        return daemon.Pointed()
    if not unset:
        raise RefusedError(
            f'{place}: "userns-remap" is "{current}": without its lines Docker does not start',
            hint="say --unset-remap to take userns-remap out as well: containers then run as the host's root again",
        )
    daemon.refuse_symlink(state)
    change = Change(DAEMON_JSON, state.daemon_json, daemon_json.without_remap(config))
    return daemon.Pointed(changes=(change,), next_steps=(daemon.RESTART,))
