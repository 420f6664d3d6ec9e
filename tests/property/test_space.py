"""The id space against sets of numbers: every id of a small stretch is asked who has it, and who must not."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.unit.passing import passing, slice_of
from tests.unit.states import GROUP, PASSWD, asked, carried_out, per_container, state
from usernsplan import IdRange, IdSet, PerContainer, SingleUid
from usernsplan import make_plan as decide
from usernsplan.claims.useradd import useradd
from usernsplan.errors import PoolExhaustedError
from usernsplan.formats import passes
from usernsplan.mapping import KINDS
from usernsplan.model import HostState, Quarantined, Reservation, Unlisted
from usernsplan.space import BACKGROUND, Kinds, Segment, capacity, clash, space

LOW, HIGH = 70_000, 70_039
IDS = range(LOW, HIGH + 1)
# Who is in whose way, where their labels (and so their owners) differ; of two quarantines or reservations nobody is.
AGAINST = {
    frozenset(pair)
    for pair in (
        ("allocation",),
        ("subid",),
        ("allocation", "subid"),
        *(("allocation", other) for other in ("account", "group", "quarantine", "reservation")),
        *(("subid", other) for other in ("account", "group", "quarantine", "reservation")),
        ("allocation", "unlisted"),
        ("subid", "unlisted"),
        ("quarantine", "account"),
        ("quarantine", "group"),
        ("allocation", "pass"),
        ("subid", "pass"),
    )
}
# A slice lies in the lines of its owner on purpose.
MEANT = frozenset({("allocation", "slice"), ("subid", "carol")})
Claimed = tuple[str, str]


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, int]:
    start = draw(st.integers(LOW, HIGH))
    return start, draw(st.integers(1, HIGH + 1 - start))


@st.composite
def accounts(draw: st.DrawFn) -> tuple[bytes, bytes, list[tuple[int, Claimed, str]]]:
    """Both files, and which id is whose; an account may have a group of its name and number."""
    passwd, group = PASSWD, GROUP
    known: list[tuple[int, Claimed, str]] = []
    for name, number in draw(
        st.dictionaries(st.sampled_from(("eve", "frank")), st.integers(LOW, HIGH))
    ).items():
        passwd += b"%s:x:%d:1000::/:/bin/sh\n" % (name.encode(), number)
        known.append((number, ("account", name), "uid"))
        if draw(st.booleans()):
            group += b"%s:x:%d:\n" % (name.encode(), number)
            known.append((number, ("account", name), "gid"))
    for name, number in draw(
        st.dictionaries(st.sampled_from(("staff", "lab")), st.integers(LOW, HIGH))
    ).items():
        group += b"%s:x:%d:\n" % (name.encode(), number)
        known.append((number, ("group", name), "gid"))
    return passwd, group, known


@st.composite
def unlisted(draw: st.DrawFn) -> Unlisted:
    """What a file of another program says; its container is none of ours."""
    kind, (start, count) = draw(st.sampled_from(KINDS)), draw(ranges())
    return Unlisted("LXC", "container x", kind, start, start + count, "x", "/x", 1)


@st.composite
def hosts(  # noqa: C901 - a paragraph for each source
    draw: st.DrawFn,
) -> tuple[HostState, dict[tuple[int, str], set[Claimed]]]:
    """A host, and who has each id as a uid and as a gid: noted while it is made, not read off it."""
    has: dict[tuple[int, str], set[Claimed]] = {
        (n, sort): set() for n in IDS for sort in ("uid", "gid")
    }

    def note(start: int, count: int, who: Claimed, *sorts: str) -> None:
        for number in range(start, start + count):
            for sort in sorts:
                has[number, sort].add(who)

    lines = {"uid": b"", "gid": b""}
    allocations = []
    for name, (start, count) in draw(
        st.dictionaries(st.sampled_from(("web", "db")), ranges())
    ).items():
        allocations.append(per_container(name, start, count))
        note(start, count, ("allocation", name), "uid", "gid")
        for sort in draw(st.sets(st.sampled_from(("uid", "gid")))):
            lines[sort] += b"usernsplan-%s:%d:%d\n" % (name.encode(), start, count)
    for sort, owner, (start, count) in draw(
        st.lists(
            st.tuples(
                st.sampled_from(("uid", "gid")), st.sampled_from(("carol", "dave")), ranges()
            ),
            max_size=5,
        )
    ):
        lines[sort] += b"%s:%d:%d\n" % (owner.encode(), start, count)
        note(start, count, ("subid", owner), sort)
    for start, count in draw(st.lists(ranges(), max_size=1)):
        allocations.append(slice_of("carol", "slice", start, count))
        note(start, count, ("allocation", "slice"), "uid", "gid")
    for letter, (start, count) in draw(
        st.lists(st.tuples(st.sampled_from("ugb"), ranges()), max_size=1)
    ):
        # Its own ids are far away.
        allocations.append(passing("shows", 589824, f"{letter}:{start}-{start + count - 1}:0"))
        note(start, count, ("pass", "shows"), *passes.LETTERS[letter])
    passwd, group, known = draw(accounts())
    for number, who, sort in known:
        note(number, 1, who, sort)
    kept, reserved = [], []
    for start, count in draw(st.lists(ranges(), max_size=1)):
        kept.append(Quarantined("old", IdRange(start, count), ""))
        note(start, count, ("quarantine", "old"), "uid", "gid")
    for start, count in draw(st.lists(ranges(), max_size=1)):
        reserved.append(Reservation(IdRange(start, count), "lab's"))
        note(start, count, ("reservation", "lab's"), "uid", "gid")
    taken = draw(st.lists(unlisted(), max_size=2))
    for one in taken:
        note(one.start, one.stop - one.start, ("unlisted", "LXC (container x)"), one.kind)
    host = state(
        lines["uid"],
        lines["gid"],
        unlisted=taken,
        passwd=passwd,
        group=group,
        allocations=allocations,
        quarantined=kept,
    )
    return replace(host, ledger=replace(host.ledger, reservations=tuple(reserved))), has


def ids_of(ids: IdRange, kinds: Kinds) -> set[tuple[int, str]]:
    return {(number, one) for number in range(ids.start, ids.stop) for one in kinds}


def seen(segments: tuple[Segment, ...]) -> list[Segment]:
    return [s for s in segments if s.origin not in BACKGROUND and LOW <= s.ids.start <= HIGH]


@given(hosts())
def test_every_id_is_told_of_those_who_have_it_and_of_nobody_else(
    made: tuple[HostState, dict[tuple[int, str], set[Claimed]]],
) -> None:
    host, has = made
    found: dict[tuple[int, str], set[Claimed]] = {one: set() for one in has}
    for segment in seen(space(host).segments):
        for one in ids_of(segment.ids, segment.kinds):
            found[one].add((segment.origin, segment.label))
    assert found == has


@given(hosts())
def test_an_id_is_in_conflict_where_two_have_it_against_each_other(
    made: tuple[HostState, dict[tuple[int, str], set[Claimed]]],
) -> None:
    host, has = made
    expected = {
        one
        for one, who in has.items()
        for a, b in combinations(who, 2)
        if frozenset((a[0], b[0])) in AGAINST and a[1] != b[1] and {a, b} != MEANT
    }
    found = space(host)
    marked = set().union(*(ids_of(c.ids, c.kinds) for c in found.conflicts))
    assert marked == expected
    for a, b in combinations(found.segments, 2):
        assert clash(a, b) == clash(b, a)
    for number, several in found.in_conflict().items():
        for conflict in several:
            assert number in {conflict.first, conflict.second}
            for one in (found.segments[conflict.first], found.segments[conflict.second]):
                assert ids_of(conflict.ids, conflict.kinds) <= ids_of(one.ids, one.kinds)


@given(hosts())
def test_what_is_free_and_what_is_used_make_the_pool(
    made: tuple[HostState, dict[tuple[int, str], set[Claimed]]],
) -> None:
    host, has = made
    figures = capacity(host, SingleUid(1), IdRange(LOW, len(IDS)))
    free = {number for number in IDS if not has[number, "uid"] and not has[number, "gid"]}
    assert {number for gap in figures.free for number in range(gap.start, gap.stop)} == free
    assert figures.used + figures.free.total() == len(IDS)
    back = {n for n in IDS if has[n, "uid"] == has[n, "gid"] == {("quarantine", "old")}}
    assert figures.quarantined == len(back)


@settings(max_examples=examples(30))
@given(hosts(), st.one_of(st.none(), st.integers(1, 20)))
def test_there_is_room_for_as_many_as_the_planner_gives(
    made: tuple[HostState, dict[tuple[int, str], set[Claimed]]], block: int | None
) -> None:
    host = replace(made[0], ledger=replace(made[0].ledger, allocations=()))
    strategy = PerContainer(30000) if block is None else SingleUid(block)
    pool = IdRange(LOW, len(IDS)) if block else IdRange(65536, 4 * 65536)
    said = capacity(host, strategy, pool).more
    for number in range(said):
        host = carried_out(host, decide(host, asked(f"n{number}", strategy=strategy, pool=pool)))
    with pytest.raises(PoolExhaustedError):
        decide(host, asked("last", strategy=strategy, pool=pool))


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20))),
    st.integers(1, 20),
    st.integers(1, 8),
)
def test_how_many_is_how_many_fits_yields(
    spans: list[tuple[int, int]], count: int, align: int
) -> None:
    ids = IdSet(IdRange(start, size) for start, size in spans)
    assert ids.how_many(count, align) == len(list(ids.fits(count, align)))


@given(
    st.lists(st.tuples(st.integers(0, 130), st.integers(0, 30)), max_size=6),
    st.integers(1, 60),
    st.integers(0, 120),
    st.integers(1, 15),
)
def test_useradd_runs_out_as_one_that_takes_the_lowest_hole_each_time(
    lines: list[tuple[int, int]], low: int, more: int, count: int
) -> None:
    last = low + more
    text = b"".join(b"a:%d:%d\n" % line for line in lines)
    defs = b"SUB_UID_MIN %d\nSUB_UID_MAX %d\nSUB_UID_COUNT %d\n" % (low, last, count)
    said = useradd(state(text, None, login_defs=defs))
    taken = {number for start, size in lines for number in range(start, start + size)}
    cuts = {start for start, size in lines if size == 0}
    users = 0
    while count < last and (
        fit := next(
            (
                n
                for n in range(low, last - count + 2)
                if not taken & set(range(n, n + count)) and not cuts & set(range(n + 1, n + count))
            ),
            None,
        )
    ):
        taken |= set(range(fit, fit + count))
        users += 1
    assert said is not None
    assert said.users == users
