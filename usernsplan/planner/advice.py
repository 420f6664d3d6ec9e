"""What the user should know about a plan: findings on the host and the strategy, and what to do next."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan import engines
from usernsplan.errors import InvalidFileError, PoolExhaustedError
from usernsplan.escape import shell
from usernsplan.formats import login_defs
from usernsplan.formats.subid import PATHS
from usernsplan.ids import OVERFLOW_ID
from usernsplan.layout import LOGIN_DEFS
from usernsplan.model import DEFAULT_NAME, DEFAULT_OWNER, ROOT, Finding
from usernsplan.planner.dockerroot import claims_of_others, dockerroot_of, first_free
from usernsplan.planner.names import owner_of
from usernsplan.planner.stories import advise
from usernsplan.strategies import PerContainer, Shared, in_subid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from usernsplan.model import Allocation, HostState
    from usernsplan.planner.resolve import Resolved


def findings(state: HostState, allocations: Sequence[Allocation]) -> tuple[Finding, ...]:
    """Everything worth saying about these allocations on this host."""
    found = [*_odd_lines(state), *_directory_service(state), *_login_defs(state)]
    for root in dict.fromkeys(map(dockerroot_of, allocations)):
        found += _dockerroot(state, root) if root else ()
    for allocation in allocations:
        found += _on_allocation(state, allocation)
    return tuple(dict.fromkeys(found))


def next_steps(state: HostState, resolved: Resolved, new: Iterable[Allocation]) -> tuple[str, ...]:
    """Commands that use what was just allocated; Docker's own allocation needs none but the daemon's restart."""
    made = [allocation for allocation in new if allocation.name != DEFAULT_NAME]
    pools = [(engine, a.name) for a in made if (engine := engines.engine_of_pool(a))]
    steps = [state.layout.command(f"render {engine} {shell(name)}") for engine, name in pools]
    first = next((a for a in made if not engines.engine_of_pool(a)), None)
    if first is not None:
        named = [
            e
            for e in resolved.named
            if not engines.ENGINES[e].pool and engines.verdict(e, first).can
        ]
        # The lines of an account are for its own rootless engines; root is one for LXC.
        is_login = state.accounts.user(first.owner) and engines.verdict("rootless", first).can
        usual = "lxc" if first.owner == ROOT else "rootless" if is_login else "podman"
        step = state.layout.command(f"render {named[0] if named else usual} {shell(first.name)}")
        steps.insert(0, f"{step}  # 'usernsplan render --list' shows the other engines")
    return tuple(steps)


def _odd_lines(state: HostState) -> Iterator[Finding]:
    for kind, path in PATHS.items():
        odd = state.subid(kind).odd_lines()
        if odd:
            more = f", and {len(odd) - 1} more such lines" if odd[1:] else ""
            yield advise(
                "USN108",
                f"{state.layout.path(path)}:{odd[0].number}: {odd[0].problem}{more}",
                "it is kept as it is and its ids count as taken; Podman, Incus or an older Docker may refuse the file",
            )


def _directory_service(state: HostState) -> Iterator[Finding]:
    service = directory_service(state)
    if service:
        yield advise(
            "USN105",
            f"accounts come from {service} too, and not all of its ids can be seen from here (SSSD maps Active "
            "Directory to 200000-2000200000 by default)",
            "compare with its id range, and keep out of it with --pool FIRST-LAST",
        )


def directory_service(state: HostState) -> str | None:
    """The service, if there is one, from which accounts come that cannot all be listed from here."""
    return next(
        (name for name in state.passwd_source.services if name in {"sss", "winbind", "ldap"}), None
    )


def lacks_nobody(allocation: Allocation) -> bool:
    """Tell whether an allocation is one of a container's own range, and too small for nobody's id."""
    return (
        allocation.strategy == PerContainer.name
        and allocation.mapping.uids.to_host(OVERFLOW_ID) is None
    )


def _login_defs(state: HostState) -> Iterator[Finding]:
    try:
        login_defs.parse(state.login_defs, state.layout.path(LOGIN_DEFS))
    except InvalidFileError as error:
        yield advise("USN112", str(error), "useradd stumbles over it too")


def _dockerroot(state: HostState, root: int) -> Iterator[Finding]:
    whose = who_is(state, root)
    whose += [
        f"in a range that {state.layout.path(claim.path)} gives to {claim.holder}"
        for claim in claims_of_others(state).over(root, root + 1)
        if claim.source == "subid"
    ]
    if whose:
        yield advise(
            "USN101",
            f"DOCKERROOT {root} is {' and '.join(whose)} on this host: container root can do all it can",
            f"'--dockerroot auto' takes the first id that nobody has{_free(state)}, '--dockerroot N' any other",
        )


def who_is(state: HostState, number: int) -> list[str]:
    """The account and the group that have this id, in words."""
    user, group = state.accounts.user_of(number), state.accounts.group_of(number)
    found = [f"the account '{user.name}'"] if user else []
    return [*found, f"the group '{group.name}'"] if group else found


def _free(state: HostState) -> str:
    with suppress(PoolExhaustedError):
        return f" (here {first_free(state)})"
    return ""


def _on_allocation(state: HostState, allocation: Allocation) -> Iterator[Finding]:
    shared, written = (
        allocation.strategy == Shared.name,
        in_subid(allocation.strategy, allocation.mapping),
    )
    is_own = allocation.owner in {DEFAULT_OWNER, owner_of(allocation.name)}
    if allocation.mapping.uids.to_host(0) == 0:
        yield advise(
            "USN102",
            f"'{allocation.name}' is an identity map: its root is the host's root wherever capabilities do not matter "
            f"(files, sockets); a process run as {allocation.owner} could become any user, root included",
            "use it to try user namespaces out; --dockerroot N keeps container root away from root",
        )
    elif shared and allocation.owner != DEFAULT_OWNER and state.accounts.user(allocation.owner):
        yield advise(
            "USN102",
            f"{allocation.owner} is an account: whoever runs as it can become every user of this host above "
            f"{allocation.mapping.uids.to_host(0)}",
            "grant it to an owner that is nobody's login",
        )
    if ROOT in {allocation.owner, *allocation.extra_owners}:
        yield advise(
            "USN119",
            "root's lines are what LXC needs; LXD and Incus, where one of them runs here, take ids for containers from "
            "them too",
            "where one of them runs, root's first line has to be a range of its own",
        )
    elif (
        not is_own
        and not engines.engine_of_pool(allocation)
        and not state.accounts.user(allocation.owner)
    ):
        yield advise(
            "USN118",
            f"{allocation.owner}, who owns the lines of '{allocation.name}', is no account: the next one of that name "
            "inherits the range",
            "release it, or make the account now",
        )
    if shared and allocation.reserved_range and written:
        yield advise(
            "USN103",
            f"{allocation.owner}'s lines make Docker's map by their order, "
            f"the filler {allocation.reserved_range} in the middle; "
            "the next useradd that hands out a range sorts the file and breaks it",
            "run this command again after a useradd: it puts them back in order",
        )
    if shared and not written:
        yield advise(
            "USN113",
            f"'{allocation.name}' is kept in the ledger only: a map past 65535 in subuid would stop every useradd",
            "'usernsplan render podman' and 'render oci' print it",
        )
    if lacks_nobody(allocation):
        yield advise(
            "USN104",
            f"'{allocation.name}' maps {allocation.mapping.uids[0].count} ids: nobody ({OVERFLOW_ID}) is not among "
            "them, and images that own files by it cannot be unpacked",
            "the default --size 65536 has it",
        )
