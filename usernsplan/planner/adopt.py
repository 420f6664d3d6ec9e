"""adopt: what stands on the host becomes allocations of the ledger; no file changes. Pure."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from usernsplan.claims.index import Claim, Claims
from usernsplan.claims.sources import claims_of
from usernsplan.engines import pool_named
from usernsplan.errors import (
    InvalidValueError,
    RefusedError,
    UnknownNameError,
    UsernsplanError,
    concerning,
    did_you_mean,
)
from usernsplan.escape import shell, utf8
from usernsplan.formats import passes as pass_texts
from usernsplan.holdings import all_own_ids, has_lines, own_ids
from usernsplan.ids import IdSet
from usernsplan.mapping import KINDS
from usernsplan.model import (
    DEFAULT_NAME,
    ROOT,
    Allocation,
    LedgerChange,
    Plan,
)
from usernsplan.planner import passes
from usernsplan.planner.names import check_name, owner_of
from usernsplan.planner.standing import PREFIXES, Found, drafts, of_map, same, whole
from usernsplan.planner.stories import advise
from usernsplan.planner.taken import is_of_others
from usernsplan.strategies import PerContainer
from usernsplan.values import NamedTuple, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from usernsplan.model import (
        AdoptRequest,
        AllocateRequest,
        ContainerOptions,
        Finding,
        HostState,
    )

# At most this many names are in one message.
_FEW = 5


def make_adopt(state: HostState, request: AdoptRequest) -> Plan:
    """Decide one ``adopt``: all the names or none.

    What the ledger has already stays as it is. Raises UnknownNameError for a name under which
    nothing stands, and RefusedError for what cannot be adopted.
    """
    refuse_other_strategy(state)
    everything = found(state)
    chosen = [_named(state, everything, name) for name in dict.fromkeys(request.names)]
    if not request.pass_privileged:
        _refuse_privileged(state, chosen)
    if request.everything:
        chosen += [
            one
            for one in everything
            if one.is_new
            and not one.others
            and (request.pass_privileged or not _privileged(state, one))
        ]
    chosen = list(dict.fromkeys(chosen))
    new = [one for one in chosen if one.is_new]
    _refuse_clash(new)

    existing = {a.name: a for a in state.ledger.allocations}
    taken = (existing[one.known] if one.known else one.allocation for one in chosen)
    left = [one for one in everything if not one.known and one not in new]
    return Plan(
        kind="adopt",
        allocations=tuple(filter(None, taken)),
        ledger=change_of(state, new),
        findings=(
            *chain.from_iterable(remarks(state, one) for one in new),
            *(_left_out(state, left) if request.everything else ()),
        ),
        adopted=tuple(one.allocation.name for one in new if one.allocation),
    )


def change_of(state: HostState, new: Iterable[Found]) -> LedgerChange:
    """What the ledger gains: the allocations, with ranges of the same names out of quarantine."""
    made = [one.allocation for one in new if one.allocation]
    own = {a.name: all_own_ids(a) for a in made}
    return LedgerChange(
        add=tuple(made),
        unkeep=tuple(
            (q.name, q.reserved_range)
            for q in state.ledger.quarantined
            if q.name in own and own[q.name].meets(q.reserved_range.start, q.reserved_range.stop)
        ),
    )


def refuse_other_strategy(state: HostState) -> None:
    """Raise RefusedError on a host with another strategy: what stands are ranges of containers."""
    others = [a.name for a in state.ledger.allocations if a.strategy != PerContainer.name]
    if others:
        theirs = state.ledger.allocations[0].strategy
        raise RefusedError(
            f"this host's strategy is {theirs}, and a host has only one strategy; what stands "
            f"here could only be adopted with {PerContainer.name}",
            hint=f"leave it as it is: no new range takes its ids; or release "
            f"{', '.join(others[:_FEW])} first",
        )


def found(state: HostState) -> tuple[Found, ...]:
    """Everything on the host that has ids of its own, each with the name that it would get.

    Lines come first, then the containers of LXC, Proxmox VE, Incus, LXD and Podman. It finds what
    the state has: see host.read.with_configs.
    """
    several = _with_names(state, _known(state, _once(drafts(state))))
    return tuple(_compared(state, several))


def commands(state: HostState) -> dict[str, str]:
    """The arguments of the command that adopts the lines of each owner, if it can be done."""
    try:
        refuse_other_strategy(state)
        return {
            one.owner: f"adopt {shell(one.name)}"
            for one in found(state)
            if one.owner and one.is_new
        }
    except UsernsplanError:
        return {}


def how_to(state: HostState, owner: str) -> tuple[str, str]:
    """The command that adopts the lines of an owner, and what a plan file says; "" if none can.

    They are the start of a hint, so they end with "; or ".
    """
    words = commands(state).get(owner)
    if not words:
        return "", ""
    name = words.partition(" ")[2]
    command = state.layout.inline(words)
    in_file = (
        f"add the container {{name: {name}, adopt: true}} to adopt what stands"
        if pool_named(name)
        else "write 'adopt: true' to adopt what stands"
    )
    return f"{command} takes over what stands, unchanged; or ", f"{in_file}; or "


# Names, and who else has the ids.


def _once(drafts: Iterable[Found]) -> Iterator[Found]:
    """Each thing once: lines and configurations may say the same of one container."""
    seen: dict[str, list[Found]] = {}
    for one in drafts:
        others = seen.setdefault(one.name, [])
        a = one.allocation
        if a and any(b.allocation and same(a.mapping, b.allocation.mapping) for b in others):
            continue
        others.append(one)
        yield one


def _known(state: HostState, several: Iterable[Found]) -> list[Found]:
    """Each, with its name in the ledger if that has it: lines by their owner, a container by its map.

    Where several containers have that map, it is the one of that name.
    """
    every = list(several)
    of_map: dict[object, list[int]] = {}
    for at, one in enumerate(every):
        if one.allocation and one.program:
            of_map.setdefault(whole(one.allocation.mapping), []).append(at)
    owners = {a.owner: a.name for a in state.ledger.allocations if has_lines(a) and a.owner != ROOT}

    known = {at: owners[one.owner] for at, one in enumerate(every) if one.owner in owners}
    for a in state.ledger.allocations:
        like = of_map.get(whole(a.mapping), [])
        named = [at for at in like if a.name in _names(every[at])]
        known |= dict.fromkeys(named or like, a.name)
    return [
        replace(one, name=known[at], known=known[at], why="", hint="") if at in known else one
        for at, one in enumerate(every)
    ]


def _names(one: Found) -> tuple[str, str]:
    """The names for it, the better one first."""
    return one.name, f"{one.account or PREFIXES.get(one.program, one.owner)}-{one.name}"


def _with_names(state: HostState, several: Iterable[Found]) -> Iterator[Found]:
    """Each with the name that it would get: its own, or one with its program in front.

    What an account made has the account in front: no account chooses a name that means another
    container to root, today's or the next one.
    """
    taken = {a.name for a in state.ledger.allocations}
    for one in several:
        if one.known or not one.allocation:
            if not one.account:
                taken.add(one.name)
            yield one
            continue
        a = one.allocation
        names = _names(one)[1:] if one.account else _names(one)
        name = next((x for x in names if x not in taken and _is_name(x, one)), None)
        if name is None:
            shown = " nor ".join(repr(utf8(name)) for name in names)
            yield replace(
                one,
                allocation=None,
                why=f"neither {shown} is a free name for it"
                if names[1:]
                else f"{shown} is no free name for it",
                hint="release or rename what has the name, or give the container another one",
            )
            continue
        taken.add(name)
        told = "" if name == names[0] else f"'{one.name}' is another allocation"
        if told and not _is_name(one.name, one):
            told = f"'{utf8(one.name)}' is not a name for an allocation"
        owner = owner_of(name) if a.owner == owner_of(a.name) and not one.owner else a.owner
        yield replace(one, name=name, allocation=replace(a, name=name, owner=owner), told=told)


def _is_name(name: str, one: Found) -> bool:
    if one.owner and (name == DEFAULT_NAME or pool_named(name)):
        return True
    try:
        check_name(name)
    except InvalidValueError:
        return False
    return pool_named(name) is None


def _claims(several: Iterable[Allocation]) -> Claims:
    return Claims(
        Claim(ids.start, ids.stop, kind, "allocation", a.name, allocation=a)
        for a in several
        for kind in KINDS
        for ids in own_ids(a, kind)
    )


def _may_share(one: Allocation, other: Allocation) -> bool:
    """Tell whether one is a slice of the other's lines."""
    return any(
        a.within and not b.within and a.within == b.owner != ROOT
        for a, b in ((one, other), (other, one))
    )


def _compared(state: HostState, several: Iterable[Found]) -> Iterator[Found]:
    """Each with those that have some of its ids, too.

    Ids of another allocation, or quarantined for another name, cannot be adopted.
    """
    every = tuple(several)
    ours = _claims(state.ledger.allocations)
    theirs = _claims(one.allocation for one in every if one.is_new and one.allocation)
    kept = [(q, IdSet((q.reserved_range,))) for q in state.ledger.quarantined]
    for one in every:
        a = one.allocation
        if a is None or one.known:
            yield one
            continue
        if claim := next(_over(ours, a), None):
            yield replace(
                one,
                allocation=None,
                why=f"'{claim.holder}' has {claim.ids} in the ledger",
                hint="give it other ids, or release the other",
            )
            continue
        mine = all_own_ids(a)
        if held := next((q for q, ids in kept if q.name != a.name and mine & ids), None):
            forget = state.layout.inline(f"release --forget {shell(held.name)}")
            yield replace(
                one,
                allocation=None,
                why=f"{held.reserved_range} is quarantined for '{held.name}': files may carry it",
                hint=f"{forget} frees it, if no file does",
            )
            continue
        others = dict.fromkeys(
            claim.holder for claim in _over(theirs, a, most=_FEW * 4) if claim.allocation is not a
        )
        yield replace(one, others=tuple(others)[:_FEW])


def _over(claims: Claims, a: Allocation, most: int | None = None) -> Iterator[Claim]:
    """The claims of others on ids that an allocation would have for itself."""
    for kind in KINDS:
        for ids in own_ids(a, kind):
            for claim in claims.over(ids.start, ids.stop, kind, most=most):
                if claim.allocation is not a and not (
                    claim.allocation and _may_share(a, claim.allocation)
                ):
                    yield claim


# What a request takes.


def _named(state: HostState, everything: Sequence[Found], name: str) -> Found:
    """What has a name. Raises UnknownNameError, and RefusedError if it is not understood."""
    several = [one for one in everything if name in {one.name, one.known}]
    several.sort(key=lambda one: (not one.known, one.allocation is None))
    if several and (several[0].known or several[0].allocation):
        return several[0]
    if several:
        one = several[0]
        place = f"{state.layout.path(one.place)}: " if one.place else ""
        raise RefusedError(
            f"'{name}' cannot be adopted: {place}{one.what}: {one.why}", hint=one.hint
        )
    if existing := next((a for a in state.ledger.allocations if a.name == name), None):
        return Found(name, f"'{name}'", allocation=existing, known=name)
    names = [one.name for one in everything if one.is_new]
    lists = f"{state.layout.inline('adopt')} lists what stands here"
    longer = next((one for one in names if one.endswith(f"-{name}")), None)
    raise UnknownNameError(
        f"nothing stands here under the name '{name}'; nothing was adopted",
        hint=f"did you mean {longer}?" if longer else did_you_mean(name, names, lists),
    )


def _refuse_clash(new: Sequence[Found]) -> None:
    """Raise RefusedError if two that are to be adopted have the same ids."""
    claims = _claims(one.allocation for one in new if one.allocation)
    for one in new:
        if one.allocation and (claim := next(_over(claims, one.allocation), None)):
            raise RefusedError(
                f"'{one.name}' and '{claim.holder}' both have {claim.ids}: only one can be adopted",
                hint="adopt one, and give the other a range of its own",
            )


def remarks(state: HostState, one: Found) -> Iterator[Finding]:
    """Findings on one that is adopted: who else has its ids, and what lies in them."""
    a = one.allocation
    if a is None:
        return
    if one.others:
        message = f"{_shown(one.others)} {'has' if len(one.others) == 1 else 'have'} ids of '{a.name}', too"
        yield advise("USN163", message, "give each of them a range of its own")
    yield from passes.findings(state, a)
    people = claims_of(state).where(lambda claim: is_of_others(claim) and claim.source != "subid")
    for kind in KINDS:
        for ids in own_ids(a, kind):
            over = people.over(ids.start, ids.stop, kind, most=_FEW)
            if over:
                message = f"'{a.name}' has {ids}, and {over[0].ids} is the {over[0].source} {over[0].holder}"
                yield advise("USN163", message, "move the account, or the range")
                return


def _left_out(state: HostState, left: Iterable[Found]) -> Iterator[Finding]:
    """A finding on each that --all does not take."""
    for one in left:
        place = f"{state.layout.path(one.place)}: " if one.place else ""
        have = "has" if len(one.others) == 1 else "have"
        powers = _privileged(state, one)
        why = (
            one.why or (powers and powers[0]) or f"{_shown(one.others)} {have} some of its ids, too"
        )
        hint = one.hint
        if one.is_new:
            option = "--pass-privileged " if powers else ""
            hint = f"{state.layout.inline(f'adopt {option}{shell(one.name)}')} takes this one"
        yield advise("USN164", f"{place}left out: {one.what}: {why}", hint)


def _shown(names: Sequence[str]) -> str:
    more = " and others" if len(names) >= _FEW else ""
    return ", ".join(f"'{name}'" for name in names) + more


def _privileged(state: HostState, one: Found) -> tuple[str, ...]:
    """What its passes open of the host, a sentence for each id; () if nothing, or not new."""
    if one.allocation is None or one.known:
        return ()
    return passes.powers_of(state, one.allocation.passes)


def _refuse_privileged(state: HostState, several: Iterable[Found]) -> None:
    for one in several:
        if found := _privileged(state, one):
            raise RefusedError(
                f"'{one.name}': {'; '.join(found[:_FEW])}",
                hint="use --pass-privileged if the container may do that to this host",
                in_file="write 'pass-privileged: true' for this one if it may do that to this host",
            )


# What a plan file says.


class Wanted(NamedTuple):
    """What a plan file adopts: the rest of its request, and what it takes over, new or not."""

    request: AllocateRequest
    new: tuple[Found, ...] = ()
    known: tuple[Allocation, ...] = ()

    @property
    def allocations(self) -> tuple[Allocation, ...]:
        """All of them."""
        return (*(one.allocation for one in self.new if one.allocation), *self.known)


def of_request(
    state: HostState,
    request: AllocateRequest,
    look: Callable[[HostState], HostState] = lambda state: state,
) -> Wanted:
    """Take the containers with ``adopt`` out of a plan file's request.

    ``look`` adds the configurations of containers to the state. Raises InvalidValueError for keys
    that contradict ``adopt``, and RefusedError if something else stands.
    """
    names = [name for name in request.names if request.each[name].adopt]
    if not names:
        return Wanted(request)
    refuse_other_strategy(state)
    seen = look(state)
    everything = found(seen)
    existing = {a.name: a for a in state.ledger.allocations}
    new, known = [], []
    for name in names:
        options = request.each[name]
        with concerning(name, "adopt"):
            _refuse_other_keys(options, request)
            if a := existing.get(name):
                _refuse_difference(a, options)
                known.append(a)
                continue
            one = _asked(seen, everything, name, options)
            if one.allocation:
                _refuse_difference(one.allocation, options)
            if not options.pass_privileged:
                _refuse_privileged(state, [one])
            new.append(one)
    _refuse_clash(new)
    rest = replace(
        request,
        names=tuple(name for name in request.names if name not in names),
        each={name: one for name, one in request.each.items() if name not in names},
    )
    return Wanted(rest, tuple(new), tuple(known))


def _refuse_other_keys(options: ContainerOptions, request: AllocateRequest) -> None:
    """Raise InvalidValueError for a key that would change what stands."""
    usual = request.strategy
    given = {
        "pass": options.passes,
        "was": options.was,
        "engines": options.engines,
        "lines": options.in_files is False,
        "size": usual is not None and options.strategy != usual,
    }
    for option, value in given.items():
        if value:
            raise InvalidValueError(
                "it is adopted as it stands, and this would change it",
                hint="leave out this key, or 'adopt'",
                option=option,
            )


def _refuse_difference(a: Allocation, options: ContainerOptions) -> None:
    """Raise RefusedError if what stands differs from what a plan file says about it."""
    held = a.reserved_range.start if a.reserved_range else None
    said: tuple[tuple[str, object, object], ...] = (
        ("owner", options.owner or a.owner, a.owner),
        ("within", options.within or a.within, a.within),
        ("start", held if options.start is None else options.start, held),
    )
    for option, wanted, has in said:
        if wanted != has:
            raise RefusedError(
                f"{wanted} is not what stands here: {has or 'none'}",
                hint="write what stands here, or leave the key out",
                option=option,
            )
    if options.map and not same(pass_texts.parse_map(options.map), a.mapping):
        stands, wanted_map = "; ".join(pass_texts.map_lines(a.mapping)), "; ".join(options.map)
        raise RefusedError(
            f"what stands here has the map {stands}, and not {wanted_map}",
            hint="write what stands here, or leave the key out",
            option="map",
        )


def _asked(
    state: HostState, everything: Sequence[Found], name: str, options: ContainerOptions
) -> Found:
    """What a container of a plan file adopts: by its owner's lines, by its name, or by its map."""
    of_lines = [
        one
        for one in everything
        if options.owner and one.owner == options.owner and options.owner != ROOT
    ]
    one = next(iter(of_lines), None) or next((x for x in everything if x.name == name), None)
    if options.map and (one is None or one.allocation is None or one.name != name):
        one = _by_map(state, name, options) or one
    if one is None:
        return _named(state, everything, name)
    if one.known or one.allocation is None:
        return _refused(state, name, one)
    if one.name != name:
        one = replace(one, name=name, allocation=replace(one.allocation, name=name))
    return one


def _refused(state: HostState, name: str, one: Found) -> Found:
    if one.known:
        raise RefusedError(
            f"the ledger has {one.what} as '{one.known}'", hint=f"name it '{one.known}'"
        )
    return _named(state, [replace(one, name=name)], name)


def _by_map(state: HostState, name: str, options: ContainerOptions) -> Found | None:
    """The container whose map a plan file has, if lines here grant it; its configuration may be elsewhere."""
    mapping = pass_texts.parse_map(options.map)
    grantee = options.within or options.owner or ""
    if not grantee:
        return None
    one = of_map(state, name, grantee, mapping)
    return next(iter(_compared(state, [one])))
