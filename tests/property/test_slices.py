"""Slices against a naive model that looks at every id, for uids and gids of lines that lie anyhow."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.unit.states import asked, carried_out, per_container, state
from usernsplan import PerContainer, ReleaseRequest, make_plan
from usernsplan.audit import Facts, check
from usernsplan.errors import PoolExhaustedError
from usernsplan.formats import accounts
from usernsplan.holdings import own_ids
from usernsplan.mapping import KINDS
from usernsplan.planner.desired import make_desired
from usernsplan.planner.exported import exported
from usernsplan.planner.release import make_release

if TYPE_CHECKING:
    from usernsplan import Allocation, HostState
    from usernsplan.mapping import Kind

LOW, HIGH = 100000, 100040


@st.composite
def lines(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Ranges that do not overlap, in any order; some follow each other."""
    edges = sorted(draw(st.sets(st.integers(LOW, HIGH), min_size=2, max_size=6)))
    found = [(a, b - a) for a, b in pairwise(edges) if draw(st.booleans())]
    return draw(st.permutations(found or [(edges[0], edges[1] - edges[0])]))


@st.composite
def hosts(draw: st.DrawFn) -> HostState:
    """A host with lines of alice's, a few accounts and groups in them, and slices that she has."""
    uids, gids = draw(lines()), draw(lines()) if draw(st.booleans()) else None
    gids = uids if gids is None else gids
    subuid, subgid = (
        "".join(f"alice:{start}:{count}\n" for start, count in one).encode() for one in (uids, gids)
    )
    ids = st.sets(st.integers(LOW, HIGH), max_size=2)
    host = state(subuid, subgid)
    users = [accounts.User(f"u{n}", n, 1000) for n in draw(ids)]
    groups = [accounts.Group(f"g{n}", n) for n in draw(ids)]
    return replace(
        host,
        accounts=replace(
            host.accounts,
            users=(*host.accounts.users, *users),
            groups=(*host.accounts.groups, *groups),
        ),
    )


def free(host: HostState) -> dict[Kind, set[int]]:
    """The ids of her lines that nobody has."""
    found: dict[Kind, set[int]] = {}
    for kind in KINDS:
        raw = (host.subuid if kind == "uid" else host.subgid).raw.decode().split()
        ids = {
            n
            for line in raw
            for _, a, c in [line.split(":")]
            for n in range(int(a), int(a) + int(c))
        }
        people = (
            {user.uid for user in host.accounts.users}
            if kind == "uid"
            else {one.gid for one in host.accounts.groups}
        )
        ids -= people
        for a in host.ledger.allocations:
            ids -= {n for part in own_ids(a, kind) for n in range(part.start, part.stop)}
        # A quarantined range is one of uids and of gids.
        for q in host.ledger.quarantined:
            ids -= set(range(q.reserved_range.start, q.reserved_range.stop))
        found[kind] = ids
    return found


def last(ids: set[int], size: int) -> int | None:
    """The last first id of so many ids that follow each other."""
    return max((n for n in ids if {*range(n, n + size)} <= ids), default=None)


def naive(host: HostState, sizes: list[int], *, same: bool) -> list[tuple[int, int]] | None:
    left, found = free(host), []
    for size in sizes:
        both = last(left["uid"] & left["gid"], size) if same else None
        at = {kind: last(left[kind], size) if both is None else both for kind in KINDS}
        if at["uid"] is None or at["gid"] is None:
            return None
        for kind in KINDS:
            left[kind] -= {*range(at[kind] or 0, (at[kind] or 0) + size)}
        found.append((at["uid"], at["gid"]))
    return found


def begins(a: Allocation) -> tuple[int, int]:
    return a.mapping.uids[0].host, a.mapping.gids[0].host


@settings(max_examples=examples(100), deadline=None)
@given(hosts(), st.integers(1, 12), st.integers(1, 3), st.integers(1, 8))
def test_slices_are_where_the_model_has_them_and_come_back(
    host: HostState, size: int, several: int, before: int
) -> None:
    if last(free(host)["uid"] & free(host)["gid"], before) is not None:
        words = asked("old", strategy=PerContainer(before), within="alice")
        host = carried_out(host, make_plan(host, words))

    names = ["s1", "s2", "s3"][:several]
    request = asked(*names, strategy=PerContainer(size), within="alice")
    sizes = [size] * several
    expected = naive(host, sizes, same=True) or naive(host, sizes, same=False)
    if expected is None:
        with pytest.raises(PoolExhaustedError) as error:
            make_plan(host, request)
        if "--size" in error.value.hint:
            fits = int(error.value.hint.split("--size ")[1])
            assert fits < size
            assert (
                len(make_plan(host, replace(request, strategy=PerContainer(fits))).allocations)
                == several
            )
        else:
            assert naive(host, [1] * several, same=False) is None
        return

    plan = make_plan(host, request)
    assert [begins(a) for a in plan.allocations] == expected
    done = carried_out(host, plan)
    assert not make_plan(done, request).changed
    assert not make_desired(done, exported(done)).pending
    bad = {"USN001", "USN002", "USN010"}
    assert not bad & {one.code for one in check(Facts(done))}

    gone = carried_out(done, make_release(done, ReleaseRequest(tuple(names))))
    # A quarantined range is one of uids and of gids, so an account may be in that of the gids.
    assert not (bad - {"USN010"}) & {one.code for one in check(Facts(gone))}
    again = make_plan(gone, request)
    assert [begins(a) for a in again.allocations] == expected
    assert carried_out(gone, again).ledger.allocations == done.ledger.allocations


@settings(max_examples=examples(20), deadline=None)
@given(st.sampled_from([1, 9, 4096]), st.integers(1, 200))
def test_many_slices_lie_side_by_side(size: int, several: int) -> None:
    host = state(*[b"alice:2000000:1000000\n"] * 2, allocations=[per_container("web", 589824)])
    names = [f"s{n}" for n in range(several)]
    plan = make_plan(host, asked(*names, strategy=PerContainer(size), within="alice"))
    assert [begins(a)[0] for a in plan.allocations] == [
        3000000 - size * n for n in range(1, several + 1)
    ]
