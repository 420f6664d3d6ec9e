"""Host ids that pass through to a container: what a request means, what is refused, what each opens. Pure."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from usernsplan import privileged
from usernsplan.claims.sources import OF_CONTAINERS, claims_of
from usernsplan.errors import (
    InvalidValueError,
    PoolExhaustedError,
    RefusedError,
    did_you_mean,
)
from usernsplan.escape import shell
from usernsplan.formats import passes as texts
from usernsplan.ids import OVERFLOW_ID, IdRange, IdSet
from usernsplan.mapping import CALLED, KINDS, Extent, Pass
from usernsplan.model import DEFAULT_NAME, DEFAULT_OWNER, ROOT, Finding, Unlisted
from usernsplan.planner import outer
from usernsplan.planner.daemon import remapped_to
from usernsplan.planner.stories import advise
from usernsplan.planner.taken import holders
from usernsplan.strategies import SLOT, PerContainer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.claims.index import Claim, Claims
    from usernsplan.mapping import Kind
    from usernsplan.model import Allocation, HostState
    from usernsplan.strategies import Strategy

# How many accounts, or ids, a message names.
_SHOWN = 4
# Ids that belong to nobody in particular: everything without an owner is 65534's, and 65535 is -1
# where ids have 16 bits.
_NOBODYS = IdRange(OVERFLOW_ID, 2)
# Holders of these do not share their ids, even if accounts have the same ones.
_ALWAYS = frozenset({"allocation", "filler", "quarantine"})
# These have ids of containers, or keep ids; an account's or a group's own id is its own even so.
_SOFT = frozenset({"subid", "namespace", "unlisted", "reserved"})


class Passes:
    """What requests for passes mean on a host. Each is answered once: thousands of names may share it."""

    def __init__(self, state: HostState) -> None:
        self._state = state
        self._known: dict[tuple[str, ...], tuple[Pass, ...]] = {}
        self._allowed: set[tuple[tuple[Pass, ...], bool]] = set()

    def of(self, asked: tuple[str, ...]) -> tuple[Pass, ...]:
        """The passes that these texts ask for, in the order of ``mapping.joined``.

        Raises InvalidValueError for a wrong text, an unknown name, and passes that no map can have.
        """
        if asked not in self._known:
            every = [one for text in asked for one in self._one(text)]
            self._known[asked] = _united(every)
        return self._known[asked]

    def _one(self, text: str) -> Iterator[Pass]:
        asked = texts.parse(text)
        for kind in asked.kinds:
            host = asked.host
            if isinstance(host, str):
                host = IdRange(self._number(kind, host, text), 1)
            container = host.start if asked.container is None else asked.container
            yield Pass(kind, Extent(container, host.start, host.count))

    def _number(self, kind: Kind, name: str, text: str) -> int:
        """The number of an account or a group of this name."""
        accounts = self._state.accounts
        if kind == "uid" and (user := accounts.user(name)):
            return user.uid
        if kind == "gid" and (group := accounts.group(name)):
            return group.gid
        if accounts.unknown:
            raise InvalidValueError(
                f"{text}: whether '{name}' is {_a(kind)} can only be asked on the host itself: "
                f"accounts also come from {accounts.unknown}",
                hint=f"name the number: {kind[0]}:1000",
            )
        if name[0].isdecimal() and not name.strip("0123456789-"):
            raise InvalidValueError(
                f"{text}: '{name}' is no id, and no {CALLED[kind]} has this name",
                hint="ids are decimal numbers from 0 to 4294967294, without a zero in front",
            )
        known = [one.name for one in (accounts.users if kind == "uid" else accounts.groups)]
        other = accounts.group(name) if kind == "uid" else accounts.user(name)
        if other and text.startswith("b:"):
            letter = "g" if kind == "uid" else "u"
            hint = f"to pass only the other one, write {letter}{text.removeprefix('b')}"
        else:
            otherwise = f"create it first, or name the number: {kind[0]}:1000"
            hint = did_you_mean(name, known, otherwise)
        raise InvalidValueError(f"{text}: there is no {CALLED[kind]} '{name}'", hint=hint)

    def refuse(self, passes: tuple[Pass, ...], *, permitted: bool) -> None:
        """Raise an error for a new map with passes that would take what is not the host's to share.

        ``permitted``: the user permits ids that make the container a superuser of the host. Raises
        RefusedError, PoolExhaustedError for ids that do not exist here, and InvalidValueError.
        """
        if (passes, permitted) in self._allowed:
            return
        for one in passes:
            self._refuse_nobodys(one)
            self._refuse_absent(one)
            self._refuse_of_others(one)
        if not permitted:
            self._refuse_privileged(passes)
        self._allowed.add((passes, permitted))

    @staticmethod
    def _refuse_nobodys(one: Pass) -> None:
        ids = one.extent.host_range
        if ids.overlaps(_NOBODYS):
            raise RefusedError(
                f"host {one.kind} {_common(ids, _NOBODYS)} belongs to nobody: {OVERFLOW_ID} stands "
                f"for every id without an owner, and {_NOBODYS.last} for 'no id'",
                hint=f"make {_a(one.kind)} of its own for what the container shares, and pass that",
            )

    def _refuse_absent(self, one: Pass) -> None:
        exists = self._state.exists[KINDS.index(one.kind)]
        if lacking := IdSet((one.extent.host_range,)) - exists:
            raise PoolExhaustedError(
                f"host {one.kind} {outer.shown(lacking)} does not exist here: "
                f"{outer.fact(self._state)}",
                hint="on the host around this container, pass it through to this one first",
            )

    @cached_property
    def _claims(self) -> Claims:
        return claims_of(self._state).where(
            lambda claim: claim.source in _ALWAYS | _SOFT | {"reservation", "account", "group"}
        )

    def _refuse_of_others(self, one: Pass) -> None:
        """Raise RefusedError if a container has one of the ids, or it is kept for somebody."""
        ids, layout = one.extent.host_range, self._state.layout
        claims = self._claims.where(
            lambda claim: claim.kind == one.kind and not _passes_it_already(claim, one)
        )
        theirs = IdSet((ids,)) - self._owned(one)
        high = theirs & IdSet.clipped([(OF_CONTAINERS, 1 << 32)])
        for sources, where in (
            (_ALWAYS, IdSet((ids,))),
            (frozenset({"reservation"}), theirs),
            (_SOFT, high),
        ):
            others = claims.where(lambda claim, these=sources: claim.source in these)  # type: ignore[misc]
            for part in where:
                for whose, overlap in holders(part, others, layout):
                    raise RefusedError(
                        f"host {one.kind} {overlap} is not the host's to share: it is {whose}",
                        hint="pass the id of an account or a group of this host; "
                        f"{layout.inline(f'whois {overlap.start}')} shows whose it is",
                    )

    def _owned(self, one: Pass) -> IdSet:
        """Which of the host ids are those of accounts, or of groups."""
        return IdSet(IdRange(number, 1) for number, _ in owners(self._state, one))

    def _refuse_privileged(self, passes: Iterable[Pass]) -> None:
        found = powers_of(self._state, passes)
        if found:
            more = f", and {len(found) - _SHOWN} more" if found[_SHOWN:] else ""
            raise RefusedError(
                "; ".join(found[:_SHOWN]) + more,
                hint="use --pass-privileged if the container may do that to this host",
                in_file="write 'pass-privileged: true' for this one if it may do that to this host",
            )


def refuse_own_id(state: HostState, name: str, owner: str, shape: Strategy) -> None:
    """Raise RefusedError for a new map, if lines of an account would grant it its own id.

    Podman refuses every command of an account with such a line: it maps the account itself, too
    (run with 4.3: "includes the user UID"). A slice of its lines can pass the id without a line.
    """
    # Before any account is looked up: nearly every map passes nothing, and there may be 10,000.
    if not (isinstance(shape, PerContainer) and shape.passes):
        return
    user = state.accounts.user(owner)
    if user is None or owner in {ROOT, DEFAULT_OWNER, remapped_to(state)}:
        return
    for kind, extent in shape.passes:
        own = user.uid if kind == "uid" else user.gid
        if own in extent.host_range:
            raise RefusedError(
                f"{kind} {own} is {owner}'s own: with a line that grants it, Podman would refuse all "
                f"commands of {owner}",
                hint="in a slice of its lines, it passes without a line: "
                f"{_as_slice(state, name, owner, shape)}",
                in_file=f"in a slice of its lines, it passes without a line: write 'within: {owner}' "
                f"instead of the owner, and give the lines to a container of its own, as 'name: "
                f"{owner}-lines' with 'owner: {owner}'",
                option="pass",
            )


def _as_slice(state: HostState, name: str, owner: str, shape: PerContainer) -> str:
    """The commands that make the container a slice of the owner's lines, which may not be there yet."""
    size = ["--size", str(shape.size)] if shape.size != SLOT else []
    strategy = [] if state.ledger.allocations else ["--strategy", PerContainer.name]
    passes = [word for text in texts.written(shape.passes) for word in ("--pass", text)]
    taken = {a.name for a in state.ledger.allocations}
    name = "NEW" if name in taken else name
    words = [[*strategy, name, "--within", owner, *size, *passes]]
    user = state.accounts.user(owner)
    known = {owner, str(user.uid) if user else owner}
    if not any(known.intersection(state.subid(kind).by_owner()) for kind in KINDS):
        lines = next(x for x in (owner, f"{owner}-lines") if x not in {name, *taken})
        words.insert(0, [*strategy, lines, "--owner", owner, *size])
        words[1] = words[1][len(strategy) :]
    return " && ".join(state.layout.command(f"allocate {shell(*one)}") for one in words)


def powers_of(state: HostState, passes: Iterable[Pass]) -> tuple[str, ...]:
    """What passes open of the host that makes a container its superuser, a sentence for each id."""
    return tuple(
        f"host {one.kind} {number} is {name}, which {opens}"
        for one in passes
        for number, name, opens in privileged.powers(
            one.kind, one.extent.host_range, state.accounts
        )
    )


def owners(state: HostState, one: Pass) -> list[tuple[int, str]]:
    """The host ids of a pass that an account or a group has, each with the names."""
    ids, accounts = one.extent.host_range, state.accounts
    names: dict[int, dict[str, None]] = {}
    if one.kind == "uid":
        for user in accounts.users:
            if user.uid in ids:
                names.setdefault(user.uid, {})[user.name] = None
    else:
        for group in accounts.groups:
            if group.gid in ids:
                names.setdefault(group.gid, {})[group.name] = None
    if accounts.directory and ids.count <= privileged.ASKED:
        for number in range(ids.start, ids.stop):
            ask = accounts.user_of if one.kind == "uid" else accounts.group_of
            if number not in names and (known := ask(number)):
                names[number] = {known.name: None}
    return [
        (
            number,
            ", ".join(_with_powers(name, state) if one.kind == "uid" else name for name in found),
        )
        for number, found in sorted(names.items())
    ]


def _with_powers(name: str, state: HostState) -> str:
    """An account, with the groups that let it become root: its files decide who does."""
    groups = privileged.groups_of(name, state.accounts)
    return f"{name}, a member of {' and '.join(groups)}" if groups else name


def findings(state: HostState, allocation: Allocation) -> Iterator[Finding]:
    """What the passes of an allocation open, and what may be a mistake."""
    if not allocation.passes:
        return
    name = allocation.name
    opened = "; ".join(_opened(state, one) for one in allocation.passes)
    yield advise(
        "USN154",
        f"'{name}' shows ids of the host: {opened}",
        "files and sockets of these ids are the container's, too",
    )
    for one in allocation.passes:
        yield from _of_nobody(state, name, one)
        yield from _of_root(state, name, one)
    yield from _powers(state, allocation)
    yield from _to_login(state, allocation)


def order(allocation: Allocation) -> Finding:
    """The finding that Docker's map depends on the order of the lines around a pass."""
    return advise(
        "USN103",
        f"Docker's map depends on the order of {allocation.owner}'s lines, with those of the passes "
        "in the middle; the next useradd that grants a range sorts the file and breaks the map",
        "run this command again after a useradd: it restores the order",
    )


def is_of_docker(allocation: Allocation, docker: str | None) -> bool:
    """Tell whether Docker's daemon makes this map; ``docker`` is the name that it is pointed at."""
    return bool(allocation.passes) and allocation.name in {DEFAULT_NAME, docker}


def _opened(state: HostState, one: Pass) -> str:
    ids, container = one.extent.host_range, one.extent.container_range
    known = owners(state, one)
    named = [f"{number} {who}" if ids.count > 1 else who for number, who in known[:_SHOWN]]
    more = f" and {len(known) - _SHOWN} more" if known[_SHOWN:] else ""
    who = f" ({CALLED[one.kind]} {', '.join(named)}{more})" if named else ""
    at = "" if container == ids else f" as container {one.kind} {container}"
    return f"{one.kind} {ids}{who}{at}"


def _of_nobody(state: HostState, name: str, one: Pass) -> Iterator[Finding]:
    is_unasked = state.accounts.directory and one.extent.count > privileged.ASKED
    if not owners(state, one) and not is_unasked:
        what = "it is of no" if one.extent.count == 1 else "they are of no"
        unknown = state.accounts.unknown
        ask = f"; {unknown} may know it on the host itself" if unknown else ""
        yield advise(
            "USN155",
            f"'{name}' shows host {one.kind} {one.extent.host_range}, and {what} {CALLED[one.kind]} "
            f"here{ask}",
            f"if it is not a mistake, reserve it with {_a(one.kind)}: the next one made may get "
            "this id, and the container then has its files",
        )


def _of_root(state: HostState, name: str, one: Pass) -> Iterator[Finding]:
    """Container root is an id of the host: every process that starts as root has its rights."""
    if one.extent.container == 0:
        number = one.extent.host
        who = dict(owners(state, one)).get(number)
        whose = f" ({CALLED[one.kind]} {who})" if who else ""
        yield advise(
            "USN156",
            f"root of '{name}' is the host's {one.kind} {number}{whose}: whatever runs as root in "
            "the container has all rights of that id on the host",
            f"pass it to another container id, as in {one.kind[0]}:{number}:1000, and let the "
            "program in the container run as that",
        )


def _powers(state: HostState, allocation: Allocation) -> Iterator[Finding]:
    for one in allocation.passes:
        for number, who, opens in privileged.powers(
            one.kind, one.extent.host_range, state.accounts
        ):
            yield advise(
                "USN157",
                f"'{allocation.name}' shows host {one.kind} {number}, {who}: whoever has it {opens}",
                "treat root of this container as root of the host",
            )


def _to_login(state: HostState, allocation: Allocation) -> Iterator[Finding]:
    """An account that owns the lines may take the ids itself, without any container."""
    user = state.accounts.user(allocation.owner) if allocation.in_files else None
    if user is None or user.name == ROOT:
        return
    others = [
        f"{one.kind} {one.extent.host_range}"
        for one in allocation.passes
        if not user.is_itself(one.kind, one.extent.host, one.extent.count)
    ]
    if others:
        yield advise(
            "USN158",
            f"{user.name} is an account: its processes can take {', '.join(others)} of the host "
            "with newuidmap and newgidmap, in any container and without one",
            "leave the owner out: then only root can start the container",
        )


def _passes_it_already(claim: Claim, one: Pass) -> bool:
    """Tell whether a claim is the line that grants root this very pass, or a container's that has it.

    Root's larger lines, and other ids of containers, are theirs.
    """
    at = one.extent
    if (claim.start, claim.stop) != (at.host, at.host + at.count):
        return False
    if claim.source == "subid":
        return claim.holder == ROOT and (at.count == 1 or at.container == at.host)
    return isinstance(claim.value, Unlisted) and claim.value.inside == at.container == at.host


def _united(passes: Iterable[Pass]) -> tuple[Pass, ...]:
    """The passes by kind and container id; what is asked for twice, or continues, is one.

    Raises InvalidValueError if an id would be two.
    """
    found: list[Pass] = []
    for kind in KINDS:
        shifts: dict[int, list[IdRange]] = {}
        for one in (p.extent for p in passes if p.kind == kind):
            shifts.setdefault(one.host - one.container, []).append(one.container_range)
        extents = sorted(
            Extent(ids.start, ids.start + shift, ids.count)
            for shift, ranges in shifts.items()
            for ids in IdSet(ranges)
        )
        for one, other in pairwise(extents):
            if one.container_range.overlaps(other.container_range):
                number = other.container
                hosts = f"{one.host + number - one.container} and {other.host}"
                raise InvalidValueError(
                    f"container {kind} {number} would be host {kind}s {hosts}",
                    hint="a container id is one id of the host: leave out one of the two",
                )
        for one, other in pairwise(sorted(extents, key=lambda e: e.host)):
            if one.host_range.overlaps(other.host_range):
                number = other.host
                containers = f"{one.container + number - one.host} and {other.container}"
                raise InvalidValueError(
                    f"host {kind} {number} would be container {kind}s {containers}",
                    hint="the kernel maps an id of the host once: leave out one of the two",
                )
        found += (Pass(kind, extent) for extent in extents)
    return tuple(found)


def _common(ids: IdRange, other: IdRange) -> IdRange:
    start = max(ids.start, other.start)
    return IdRange(start, min(ids.stop, other.stop) - start)


def _a(kind: Kind) -> str:
    return "an account" if kind == "uid" else "a group"
