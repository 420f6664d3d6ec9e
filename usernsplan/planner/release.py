"""release: take an allocation's lines out and keep its range from being given out again; or forget such a range."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from usernsplan.errors import InvalidFileError, RefusedError, UnknownNameError
from usernsplan.formats import daemon_json
from usernsplan.formats.subid import Grant
from usernsplan.ids import IdRange, IdSet
from usernsplan.layout import DAEMON_JSON
from usernsplan.model import DEFAULT_NAME, Change, Finding, LedgerChange, Plan
from usernsplan.planner import daemon
from usernsplan.planner.grants import Grants, keeps_lines, needed_of_root
from usernsplan.planner.names import owner_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.formats.subid import Line
    from usernsplan.model import Allocation, HostState, ReleaseRequest


# So many names stand in a proposal.
_NAMED = 20


def make_release(state: HostState, request: ReleaseRequest) -> Plan:
    """Decide one ``release``: all the names or none.

    Raises UnknownNameError for a name that nothing is known of, and RefusedError where Docker still uses it.
    """
    names = tuple(dict.fromkeys(request.names))
    return _forget(state, names) if request.forget else _release(state, names, request)


def _release(state: HostState, names: tuple[str, ...], request: ReleaseRequest) -> Plan:
    known = {allocation.name: allocation for allocation in state.ledger.allocations}
    for name in names:
        if name not in known:
            raise UnknownNameError(f"nothing is allocated under the name '{name}'; nothing was released")
    gone = tuple(known[name] for name in names)
    grants = Grants(state)
    kept = needed_of_root(a for a in state.ledger.allocations if a.name not in names)
    staying = {a.name: _ranges(grants.remove(a, kept, with_found=request.with_lines)) for a in gone}
    losing = tuple(a for a in gone if request.with_lines or not keeps_lines(a))
    docker = _unpoint(state, losing, yes=request.yes)
    # A range whose line stays is its owner's as it was before us: nobody else gets it, and nothing is to be forgotten.
    held = tuple((a.name, a.held) for a in gone if a.held and not staying[a.name].meets(a.held.start, a.held.stop))
    forget = " ".join(name for name, _ in held[:_NAMED]) + (" …" if held[_NAMED:] else "")
    later = f"{state.layout.command(f'release --forget {forget}')}  # once no file carries these ids any more"
    return Plan(
        kind="release",
        allocations=gone,
        changes=grants.changes() + docker.changes,
        ledger=LedgerChange(remove=names, quarantine=held),
        findings=(*grants.findings, *docker.findings, *_accounts(state, losing)),
        next_steps=docker.next_steps + ((later,) if held else ()),
    )


def _ranges(lines: Iterable[Line]) -> IdSet:
    return IdSet(IdRange(line.start, line.stop - line.start) for line in lines if isinstance(line, Grant))


def _accounts(state: HostState, gone: Iterable[Allocation]) -> Iterator[Finding]:
    """An account of a container's name was made for a Docker daemon of its own."""
    for allocation in gone:
        is_ours = allocation.name != DEFAULT_NAME and allocation.owner == owner_of(allocation.name)
        if is_ours and state.accounts.user(allocation.owner):
            message = f"the account {allocation.owner} stays, and a Docker daemon that is remapped to it does not start"
            userdel = shlex.join(state.layout.account_command(("userdel", allocation.owner)))
            hint = f"stop docker-{allocation.name} first where there is one, and then: {userdel}"
            yield Finding("USN125", "warning", message, hint)


def _forget(state: HostState, names: tuple[str, ...]) -> Plan:
    quarantined = {entry.name for entry in state.ledger.quarantined}
    for name in names:
        if name not in quarantined:
            raise UnknownNameError(
                f"no released range is kept under the name '{name}'; nothing was forgotten",
                hint="'usernsplan list' shows the ranges in quarantine",
            )
    return Plan(kind="forget", ledger=LedgerChange(forget=names))


def _unpoint(state: HostState, gone: tuple[Allocation, ...], *, yes: bool) -> daemon.Pointed:
    """Take userns-remap out where it names an owner that is about to lose its lines: dockerd would not start."""
    owners = {allocation.owner for allocation in gone}
    place = state.layout.path(DAEMON_JSON)
    try:
        config = daemon_json.parse(state.daemon_json or b"", place)
    except InvalidFileError as error:
        if daemon_json.REMAP.encode() in (state.daemon_json or b""):
            raise
        # No daemon starts from this file, so none depends on these lines.
        return daemon.Pointed(findings=(Finding("USN117", "warning", str(error), "Docker cannot start from it"),))
    current = config.get(daemon_json.REMAP)
    if current is None or daemon.remap_user(state, current) not in owners:
        return daemon.Pointed()
    if not yes:
        raise RefusedError(
            f'{place}: "userns-remap" is "{current}": without its lines Docker does not start',
            hint="say --yes to take userns-remap out as well: containers then run as the host's root again",
        )
    daemon.refuse_symlink(state)
    change = Change(DAEMON_JSON, state.daemon_json, daemon_json.without_remap(config))
    return daemon.Pointed(changes=(change,), next_steps=(daemon.RESTART,))
