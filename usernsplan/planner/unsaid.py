"""What the words of one ``allocate`` leave to us: the host's strategy, and the first DOCKERROOT that nobody has."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from usernsplan.claims.meant import is_meant_by_root
from usernsplan.errors import InvalidValueError, PoolExhaustedError, about
from usernsplan.formats.subid import Grant
from usernsplan.ids import IdSet
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.model import DEFAULT_NAME
from usernsplan.strategies import SHARED_SUBID_LAST, PerContainer, Shared, named

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from usernsplan.model import AllocateRequest, Allocation, HostState
    from usernsplan.strategies import Strategy

# Which to choose, and for whom: README's words in short.
_WHICH = """\
per-container  each container has a range of its own: the strongest separation, and the one to take in doubt
  single-uid     each container is one uid and one gid: programs that run as one user, numbered as OpenShift does
  shared         container root is one id, every other id is the host's own: volumes shared with people of this host
  So, for example: """


def strategy_of(
    state: HostState, said: str, options: Mapping[str, int | str], names: Sequence[str]
) -> Strategy:
    """The strategy that was said, or the one that this host has.

    Raises InvalidValueError where nothing is said and nothing allocated, and what strategies.named raises.
    """
    if said:
        return named(said, options)
    if not state.ledger.allocations:
        words = " ".join(names[:3]) or "--docker"
        command = state.layout.command(f"allocate --strategy {PerContainer.name} {words}")
        raise InvalidValueError(
            "--strategy is missing: nothing is allocated here that tells it", hint=_WHICH + command
        )
    strategy = state.ledger.allocations[0].strategy
    try:
        return named(strategy, options)
    except InvalidValueError as error:
        error.hint = (
            error.hint or f"this host's strategy is {strategy}, and one host has one strategy"
        )
        raise


def settled(state: HostState, request: AllocateRequest) -> AllocateRequest:
    """The same request with a number for each DOCKERROOT that was left to us. An allocation that stands keeps its own.

    Raises PoolExhaustedError where somebody has every id.
    """
    names = request.names or (DEFAULT_NAME,)
    each = {name: request.words(name) for name in names if _is_auto(request.words(name).strategy)}
    if not each and not _is_auto(request.strategy):
        return request
    known = {a.name: root for a in state.ledger.allocations if (root := dockerroot_of(a))}
    with about(option="dockerroot"):
        first = _first(state, known.values())
        for name, words in each.items():
            each[name] = replace(words, strategy=_with(words.strategy, known.get(name, first)))
        return replace(
            request, strategy=_with(request.strategy, first), each={**request.each, **each}
        )


def dockerroot_of(allocation: Allocation) -> int | None:
    """The host id of container root in a shared map that keeps it apart from root; None for any other map."""
    return (
        allocation.mapping.uids.to_host(0) or None if allocation.strategy == Shared.name else None
    )


def first_free(state: HostState) -> int:
    """The DOCKERROOT that ``auto`` takes. Raises PoolExhaustedError where somebody has every id."""
    return _first(state, [root for a in state.ledger.allocations if (root := dockerroot_of(a))])


def _is_auto(strategy: Strategy) -> bool:
    return isinstance(strategy, Shared) and strategy.auto


def _with(strategy: Strategy, root: int) -> Strategy:
    return (
        replace(strategy, dockerroot=root, auto=False)
        if isinstance(strategy, Shared) and strategy.auto
        else strategy
    )


def _first(state: HostState, ours: Iterable[int]) -> int:
    """Container root is one id on the whole host: that of an allocation which stands, while it is nobody else's."""
    owners = {owner for a in state.ledger.allocations for owner in (a.owner, *a.extra_owners)}
    lines = (line for file in (state.subuid, state.subgid) for line in file.lines)
    others = IdSet.clipped(
        (x.start, x.stop)
        for x in lines
        if isinstance(x, Grant)
        and x.owner not in owners
        and not is_meant_by_root(x.owner, x.start, x.stop - x.start)
    )
    reserved = IdSet(r.ids for r in state.ledger.reservations)
    taken = IdSet.union((state.accounts.ids(), others, reserved))
    usual = Shared().dockerroot
    for root in chain(ours, range(usual, SHARED_SUBID_LAST)):
        if root not in taken:
            return root
    where = " and ".join(state.layout.path(path) for path in (SUBUID, SUBGID))
    raise PoolExhaustedError(
        f"--dockerroot auto: somebody has every id from {usual} to {SHARED_SUBID_LAST - 1}",
        hint=f"accounts, groups, and lines of {where} have them; name one with --dockerroot N",
    )
