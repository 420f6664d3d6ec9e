"""What the user should know about a plan: findings on the host and its strategy, and next steps."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from usernsplan import engines, escape
from usernsplan.claims import computed
from usernsplan.claims.sources import OF_CONTAINERS
from usernsplan.errors import InvalidFileError, PoolExhaustedError
from usernsplan.escape import shell
from usernsplan.formats import login_defs
from usernsplan.formats.subid import PATHS
from usernsplan.holdings import has_lines
from usernsplan.ids import OVERFLOW_ID, IdSet
from usernsplan.layout import LOGIN_DEFS, NSSWITCH
from usernsplan.model import DEFAULT_NAME, DEFAULT_OWNER, PODMAN, ROOT, Finding
from usernsplan.planner import passes, slices
from usernsplan.planner.dockerroot import claims_of_others, dockerroot_of, first_free
from usernsplan.planner.names import has_default_owner
from usernsplan.planner.stories import advise
from usernsplan.strategies import PerContainer, Shared

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from usernsplan.formats.nsswitch import Source
    from usernsplan.model import Allocation, HostState, Unlisted
    from usernsplan.planner.resolve import Resolved


def findings(
    state: HostState, allocations: Sequence[Allocation], docker: str | None = None
) -> tuple[Finding, ...]:
    """The findings about these allocations on this host, each once.

    ``docker`` is the name of the allocation that becomes that of Docker's daemon.
    """
    found = [
        *_odd_lines(state),
        *_without_plugin(state),
        *_directory_service(state),
        *_login_defs(state),
    ]
    for root in dict.fromkeys(map(dockerroot_of, allocations)):
        found += _dockerroot(state, root) if root else ()
    found += _computed(state, allocations)
    for allocation in allocations:
        found += _on_slice(allocation) if allocation.within else _on_allocation(state, allocation)
        found += passes.findings(state, allocation)
        if has_lines(allocation) and passes.is_of_docker(allocation, docker):
            found.append(passes.order(allocation))
    found += _other_maps(state, allocations)
    found += slices.findings(state, allocations)
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
        engine = named[0] if named else usual
        needs = engines.ENGINES[engine].needs
        words = f"render {engine} {shell(first.name)}" + (f" {needs}" if needs else "")
        if first.within and is_login and not named:
            words = f"render podman --rootless {shell(first.name)}"
        step = state.layout.command(words)
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


def _without_plugin(state: HostState) -> Iterator[Finding]:
    if state.subid_source.lacks_plugin:
        place = f"{state.layout.path(NSSWITCH)}:{state.subid_source.number}"
        fact, hint = without_plugin(state.subid_source)
        yield advise("USN144", f"{place}: {fact}", hint)


def without_plugin(source: Source) -> tuple[str, str]:
    """The fact and the hint if the service of subordinate ids is not installed."""
    fact = (
        f"'subid: {' '.join(source.services)}': {source.library} is not installed, so the files are "
        "read; once it is, newuidmap and Podman do not read them"
    )
    return fact, "write 'subid: files' there, or grant ranges in that service"


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


def _computed(state: HostState, allocations: Sequence[Allocation]) -> Iterator[Finding]:
    """Ranges among those that useradd computes for uids without an account. USN090 has the others."""
    used = {user.uid for user in state.accounts.users}
    areas = computed.read(state.login_defs)
    for a in allocations:
        held = a.reserved_range
        found = (
            (uid, one.number)
            for one in areas
            for uid in (one.uids(held.start, held.stop) if held else ())
            if uid not in used
        )
        for uid, number in islice(found, 1):
            yield advise(
                "USN142",
                f"{held} of '{a.name}' overlaps with what useradd computes from uids "
                f"({state.layout.path(LOGIN_DEFS)}:{number}): the next account with uid {uid} gets "
                "the same ids",
                "leave --pool and --start out: the default pool begins behind these ranges",
            )


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


def _no_account(state: HostState, allocation: Allocation) -> Finding:
    """The finding on an owner that is not known to be an account."""
    if doubt := state.accounts.doubt(allocation.owner):
        hint = "if it is none on that host, the next account of that name gets the range"
        return advise("USN146", doubt, hint)
    return advise(
        "USN118",
        f"{allocation.owner}, the owner of the lines of '{allocation.name}', is not an account: "
        "the next account of that name gets the range",
        "create the account now, or release the allocation",
    )


def _on_slice(allocation: Allocation) -> Iterator[Finding]:
    """What its lines are, and who owns them, is not for a slice to say."""
    if lacks_nobody(allocation):
        hint = f"where the lines of {allocation.within} have room, --size 65536 includes nobody"
        yield _no_nobody(allocation, hint)


def _on_allocation(state: HostState, allocation: Allocation) -> Iterator[Finding]:
    shared = allocation.strategy == Shared.name
    written = has_lines(allocation)
    is_own = allocation.owner == DEFAULT_OWNER or has_default_owner(allocation)
    if shared and allocation.mapping.uids.to_host(0) == 0:
        yield advise(
            "USN102",
            f"'{allocation.name}' is an identity map: its root is the host's root wherever "
            "capabilities do not matter (files, sockets), and a process that runs as "
            f"{allocation.owner} can become any user, also root",
            "use it only to try user namespaces; with --dockerroot N container root is another id",
        )
    elif (
        shared
        and written
        and allocation.owner != DEFAULT_OWNER
        and state.accounts.user(allocation.owner)
    ):
        yield advise(
            "USN102",
            f"{allocation.owner} is an account: its processes can become every user of this host "
            f"above {allocation.mapping.uids.to_host(0)}",
            "choose an owner that is not an account",
        )
    if ROOT in allocation.split_owners:
        yield advise(
            "USN119",
            f"newuidmap needs root's lines for '{allocation.name}': they are smaller than 65536 ids "
            "each, so that LXD and Incus do not take them for their instances",
            "if LXD or Incus runs here, root needs one line of 65536 ids or more for them",
        )
    elif (
        ROOT not in {allocation.owner, *allocation.extra_owners}
        and not is_own
        and not engines.engine_of_pool(allocation)
        and not state.accounts.user(allocation.owner)
    ):
        yield _no_account(state, allocation)
    if shared and allocation.reserved_range and written:
        yield advise(
            "USN103",
            f"Docker's map depends on the order of {allocation.owner}'s lines, with the filler "
            f"{allocation.reserved_range} in the middle; the next useradd that grants a range sorts "
            "the file and breaks the map",
            "run this command again after a useradd: it restores the order",
        )
    if not allocation.in_files:
        shown = state.layout.inline(f"render --list {shell(allocation.name)}")
        yield advise(
            "USN145",
            f"'{allocation.name}' is only in the ledger: useradd and other programs that read "
            "subuid and subgid do not see its ids",
            f"{shown} shows the engines that need no line",
        )
    elif shared and not written:
        yield advise(
            "USN113",
            f"'{allocation.name}' is only in the ledger: a map past 65535 in subuid would make every "
            "useradd fail",
            "'usernsplan render podman' and 'usernsplan render oci' print it",
        )
    if lacks_nobody(allocation):
        yield _no_nobody(allocation, "leave --size out: the default, 65536, includes nobody")


def _no_nobody(allocation: Allocation, hint: str) -> Finding:
    return advise(
        "USN104",
        f"'{allocation.name}' maps {how_many(allocation)}, without nobody "
        f"({OVERFLOW_ID}): images with files of nobody cannot be unpacked",
        hint,
    )


def how_many(allocation: Allocation) -> str:
    """How many uids it maps, in words."""
    count = sum(extent.count for extent in allocation.mapping.uids)
    return "1 id" if count == 1 else f"{count} ids"


def _other_maps(state: HostState, allocations: Iterable[Allocation]) -> Iterator[Finding]:
    """Tell of each container of LXC's, or unit of Podman's, with other ids than the allocation of its name."""
    named: dict[str, list[Unlisted]] = {}
    for one in state.unlisted:
        if one.container and (one.grantee == ROOT or one.program == PODMAN) and one.number:
            named.setdefault(one.container, []).append(one)

    for a in allocations:
        is_for_lxc = ROOT in {a.owner, *a.extra_owners}
        others = (
            one
            for one in named.get(a.name, ())
            if (is_for_lxc or one.program == PODMAN) and _is_outside(one, a)
        )
        if other := next(others, None):
            place = escape.line(f"{state.layout.path(other.path)}:{other.number}")
            engine, what = ("quadlet", "ids") if other.program == PODMAN else ("lxc", "lxc.idmap")
            render = state.layout.inline(f"render {engine} {shell(a.name)}")
            yield advise(
                "USN138",
                f"{place}: the container '{a.name}' maps {other.start}-{other.stop - 1}, not the ids "
                "of the allocation",
                f"replace its {what} lines with those of {render}",
            )


def _is_outside(one: Unlisted, a: Allocation) -> bool:
    """Tell whether ids of containers are mapped that the allocation lacks."""
    start = max(one.start, OF_CONTAINERS)
    ours = IdSet(e.host_range for e in a.mapping[one.kind])
    return start < one.stop and bool(IdSet.clipped([(start, one.stop)]) - ours)
