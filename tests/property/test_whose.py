"""Whose an id is, beside asking every holder for every id; and the way into a container is the way out of it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from usernsplan import IdMap, IdRange, IdSet, Layout, Mapping
from usernsplan.formats import subid
from usernsplan.formats.accounts import Accounts, Group, User
from usernsplan.mapping import KINDS, Extent, Pass
from usernsplan.model import Allocation, LedgerState, Namespace, Quarantined, Reservation
from usernsplan.reserved import TABLE
from usernsplan.whose import ids as whose
from usernsplan.whose.ids import Holder, IdContext

# Between the reserved ranges below 65536 and nothing: small enough to ask for every id.
BASE, SPACE = 65526, 40
RANGES = st.builds(
    lambda at, size: IdRange(BASE + at, size), st.integers(0, SPACE - 10), st.integers(1, 9)
)


@st.composite
def maps(draw: st.DrawFn) -> IdMap:
    """Up to three extents that overlap on neither side."""
    hosts = sorted(draw(st.sets(st.integers(0, SPACE - 1), min_size=1, max_size=9)))
    extents: list[Extent] = []
    container = draw(st.integers(0, 5))
    for host in hosts[:3]:
        extents.append(Extent(container, BASE + host, 1))
        container += draw(st.integers(1, 4))
    return IdMap(draw(st.permutations(extents)))


PLAIN = st.builds(
    Allocation,
    st.sampled_from(["aa", "bb"]),
    st.sampled_from(["oa", "ob"]),
    st.just("per-container"),
    st.builds(Mapping, maps(), maps()),
    st.none() | RANGES,
)


@st.composite
def allocations(draw: st.DrawFn) -> Allocation:
    """An allocation; some ids of one without a range may be the host's, shown on purpose."""
    a = draw(PLAIN)
    if a.reserved_range:
        return a
    every = [Pass(kind, extent) for kind in KINDS for extent in a.mapping[kind]]
    return replace(a, passes=tuple(one for one in every if draw(st.booleans())))


ALLOCATIONS = allocations()
NAMES = st.sampled_from(["x", "y"])
NUMBERS = st.integers(BASE, BASE + SPACE)
LINES = st.builds(subid.line, st.sampled_from(["oa", "ob", "oc"]), RANGES)
FACTS = st.builds(
    IdContext,
    st.just(Layout()),
    st.builds(
        lambda a, q, r: LedgerState(tuple(a), tuple(q), reservations=tuple(r)),
        st.lists(ALLOCATIONS, max_size=3),
        st.lists(st.builds(Quarantined, NAMES, RANGES, st.just("T")), max_size=2),
        st.lists(st.builds(Reservation, RANGES, NAMES), max_size=2),
    ),
    st.lists(LINES, max_size=4).map(lambda lines: subid.parse(b"".join(lines))),
    st.lists(LINES, max_size=4).map(lambda lines: subid.parse(b"".join(lines))),
    st.builds(
        Accounts,
        st.lists(st.builds(User, NAMES, NUMBERS, NUMBERS), max_size=3).map(tuple),
        st.lists(st.builds(Group, NAMES, NUMBERS), max_size=3).map(tuple),
    ),
    st.lists(
        st.builds(
            Namespace,
            st.integers(1, 9),
            st.none(),
            st.none(),
            st.just((1,)),
            st.none() | st.builds(Mapping, maps(), maps()),
        ),
        max_size=2,
    ).map(tuple),
)


def brute(number: int, facts: IdContext, *, gids: bool) -> list[object]:
    """Every holder, asked whether it has this one id."""
    found: list[object] = []
    ours = set()
    for a in facts.ledger.allocations:
        ids = a.mapping.gids if gids else a.mapping.uids
        ours |= {(a.owner, e.host, e.host + e.count) for e in ids}
        container = ids.to_container(number)
        shown = IdSet(p.extent.host_range for p in a.passes if p.kind == ("gid" if gids else "uid"))
        if container is not None:
            found.append(("pass" if number in shown else "allocation", a, container))
        elif a.reserved_range and number in a.reserved_range:
            found.append(("allocation", a, None))
    for line in (facts.subgid if gids else facts.subuid).lines:
        assert isinstance(line, subid.Grant)
        if line.start <= number < line.stop and (line.owner, line.start, line.stop) not in ours:
            found.append(("line", line))
    if gids:
        found += [("group", g.name) for g in facts.accounts.groups if g.gid == number]
        if not any(g.gid == number for g in facts.accounts.groups):
            found += [("account", u.name) for u in facts.accounts.users if u.gid == number]
    else:
        found += [("account", u.name) for u in facts.accounts.users if u.uid == number]
    for n in facts.namespaces:
        container = (
            (n.mapping.gids if gids else n.mapping.uids).to_container(number) if n.mapping else None
        )
        if container is not None:
            found.append(("namespace", n, container))
    found += [("reservation", r) for r in facts.ledger.reservations if number in r.ids]
    found += [("quarantine", q) for q in facts.ledger.quarantined if number in q.reserved_range]
    found += [("reserved", r) for r in TABLE if number in r.ids]
    return found


def plain(holder: Holder) -> object:
    claim = holder.claim
    match holder.kind:
        case "allocation" | "pass":
            return (holder.kind, claim.allocation, holder.container_id)
        case "account" | "group":
            return (holder.kind, claim.holder)
        case "namespace":
            return ("namespace", claim.value, holder.container_id)
        case "subid":
            return ("line", claim.value)
    return (holder.kind, claim.value)


@given(FACTS)
def test_every_id_of_a_small_space_has_the_holders_that_say_so(facts: IdContext) -> None:
    space = range(BASE - 1, BASE + SPACE + 2)
    found = whose.answers(space, facts)
    for number in space:
        for holders, gids in ((found[number].uid, False), (found[number].gid, True)):
            assert sorted(map(repr, map(plain, holders))) == sorted(
                map(repr, brute(number, facts, gids=gids))
            )


@given(FACTS)
def test_the_way_into_a_container_is_the_way_out_of_it(facts: IdContext) -> None:
    for allocation in facts.ledger.allocations:
        for container in range(30):
            inside = whose.from_container(str(container), allocation, Accounts())
            assert inside
            for host, kind in ((inside.uid, "uid"), (inside.gid, "gid")):
                if host is not None:
                    holders = getattr(whose.answers([host], facts)[host], kind)
                    assert any(
                        one.claim.allocation == allocation and one.container_id == container
                        for one in holders
                    )


@given(FACTS, maps(), st.booleans())
def test_the_parts_of_an_extent_are_what_its_ids_say_one_by_one(
    facts: IdContext, ids: IdMap, gids: bool
) -> None:
    for extent, parts, free in whose.Ranges(facts).shares(ids, "gid" if gids else "uid"):
        for number in range(extent.host, extent.host + extent.count):
            answer = whose.answers([number], facts)[number]
            holders = [
                h
                for h in (answer.gid if gids else answer.uid)
                if h.kind not in {"namespace", "reserved"}
            ]
            assert sum(part.start <= number < part.stop for part in parts) == len(holders)
            assert (number in free) == (not holders)


@given(st.lists(RANGES, max_size=5), RANGES)
def test_a_set_meets_a_range_where_they_have_an_id_in_common(
    ranges: list[IdRange], asked: IdRange
) -> None:
    assert IdSet(ranges).meets(asked.start, asked.stop) == any(
        asked.overlaps(one) for one in ranges
    )
