"""What the user should know about a plan: findings on the host and its strategy, and next steps."""

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
    """The findings about these allocations on this host, each once."""
    found = [*_odd_lines(state), *_directory_service(state), *_login_defs(state)]
    for root in dict.fromkeys(map(dockerroot_of, allocations)):
        found += _dockerroot(state, root) if root else ()
    for allocation in allocations:
        found += _on_allocation(state, allocation)
    return tuple(dict.fromkeys(found))


def next_steps(state: HostState, resolved: Resolved, new: Iterable[Allocation]) -> tuple[str, ...]:
    """Commands that use the new allocations.

    Docker's own allocation only needs a restart of the daemon, which planner.daemon adds.
    """
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
        # An account's lines serve its own rootless engines; root's lines serve LXC.
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
                "the line stays as it is, and its ids count as taken; Podman, Incus or an older "
                "Docker may refuse the file",
            )


def _directory_service(state: HostState) -> Iterator[Finding]:
    service = directory_service(state)
    if service:
        yield advise(
            "USN105",
            f"accounts also come from {service}, which does not list all of its ids (SSSD maps "
            "Active Directory to 200000-2000200000 by default)",
            "look up its id range, and use another one with --pool FIRST-LAST",
        )


def directory_service(state: HostState) -> str | None:
    """The service whose accounts this host cannot all list; None if there is none."""
    return next(
        (name for name in state.passwd_source.services if name in {"sss", "winbind", "ldap"}), None
    )


def lacks_nobody(allocation: Allocation) -> bool:
    """Tell whether a per-container allocation is too small for the id of nobody, 65534."""
    return (
        allocation.strategy == PerContainer.name
        and allocation.mapping.uids.to_host(OVERFLOW_ID) is None
    )


def _login_defs(state: HostState) -> Iterator[Finding]:
    try:
        login_defs.parse(state.login_defs, state.layout.path(LOGIN_DEFS))
    except InvalidFileError as error:
        yield advise("USN112", str(error), "correct it; useradd fails with it, too")


def _dockerroot(state: HostState, root: int) -> Iterator[Finding]:
    whose = who_is(state, root)
    whose += [
        f"in a range that {state.layout.path(claim.path)} grants to {claim.holder}"
        for claim in claims_of_others(state).over(root, root + 1)
        if claim.source == "subid"
    ]
    if whose:
        yield advise(
            "USN101",
            f"DOCKERROOT {root} is {' and '.join(whose)} on this host: "
            "container root has all the rights of that id",
            f"--dockerroot auto takes the first unused id{_free(state)}, --dockerroot N any other",
        )


def who_is(state: HostState, number: int) -> list[str]:
    """The account and the group that have this id, as text for a message."""
    user, group = state.accounts.user_of(number), state.accounts.group_of(number)
    found = [f"the account '{user.name}'"] if user else []
    return [*found, f"the group '{group.name}'"] if group else found


def _free(state: HostState) -> str:
    with suppress(PoolExhaustedError):
        return f" (here {first_free(state)})"
    return ""


def _on_allocation(state: HostState, allocation: Allocation) -> Iterator[Finding]:
    shared = allocation.strategy == Shared.name
    written = in_subid(allocation.strategy, allocation.mapping)
    is_own = allocation.owner in {DEFAULT_OWNER, owner_of(allocation.name)}
    if allocation.mapping.uids.to_host(0) == 0:
        yield advise(
            "USN102",
            f"'{allocation.name}' is an identity map: its root is the host's root wherever "
            "capabilities do not matter (files, sockets), and a process that runs as "
            f"{allocation.owner} can become any user, also root",
            "use it only to try user namespaces; with --dockerroot N container root is another id",
        )
    elif shared and allocation.owner != DEFAULT_OWNER and state.accounts.user(allocation.owner):
        yield advise(
            "USN102",
            f"{allocation.owner} is an account: its processes can become every user of this host "
            f"above {allocation.mapping.uids.to_host(0)}",
            "choose an owner that is not an account",
        )
    if ROOT in {allocation.owner, *allocation.extra_owners}:
        yield advise(
            "USN119",
            "LXC needs root's lines, but LXD and Incus also take ids for their containers from them",
            "if LXD or Incus runs here, give root a first line with a range of its own",
        )
    elif (
        not is_own
        and not engines.engine_of_pool(allocation)
        and not state.accounts.user(allocation.owner)
    ):
        yield advise(
            "USN118",
            f"{allocation.owner}, the owner of the lines of '{allocation.name}', is not an account: "
            "the next account of that name gets the range",
            "create the account now, or release the allocation",
        )
    if shared and allocation.reserved_range and written:
        yield advise(
            "USN103",
            f"Docker's map depends on the order of {allocation.owner}'s lines, with the filler "
            f"{allocation.reserved_range} in the middle; the next useradd that grants a range sorts "
            "the file and breaks the map",
            "run this command again after a useradd: it restores the order",
        )
    if shared and not written:
        yield advise(
            "USN113",
            f"'{allocation.name}' is only in the ledger: a map past 65535 in subuid would make every "
            "useradd fail",
            "'usernsplan render podman' and 'usernsplan render oci' print it",
        )
    if lacks_nobody(allocation):
        yield advise(
            "USN104",
            f"'{allocation.name}' maps {allocation.mapping.uids[0].count} ids, without nobody "
            f"({OVERFLOW_ID}): images with files of nobody cannot be unpacked",
            "leave --size out: the default, 65536, includes nobody",
        )
