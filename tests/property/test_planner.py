"""Random hosts and random requests, against a model that knows only Python's sets of numbers.

The model learns what a line means from the one who wrote it (the strategies below), not from our parser.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.unit.states import GROUP, PASSWD, asked, carried_out, files, state, with_accounts
from usernsplan import (
    AllocateRequest,
    HostState,
    IdRange,
    IdSet,
    PerContainer,
    Plan,
    ReleaseRequest,
    Shared,
    SingleUid,
    make_release,
)
from usernsplan import make_plan as decide
from usernsplan.errors import PoolExhaustedError, UsernsplanError
from usernsplan.layout import DAEMON_JSON, SUBGID, SUBUID
from usernsplan.model import Quarantined

if TYPE_CHECKING:
    from collections.abc import Iterable

# A pool small enough to count through: outside all that is reserved, and below what useradd hands out.
LOW, HIGH = 70_000, 70_079
POOL = IdRange(LOW, HIGH - LOW + 1)
# A pool of eight slots, behind that of snapd, for what has to begin at multiples of 65536.
SLOT, SLOTS = 65536, range(9, 17)
SLOT_POOL = IdRange(SLOTS.start * SLOT, len(SLOTS) * SLOT)


@dataclass(frozen=True)
class Written:
    """A line as somebody wrote it, and the ids (first, how many) that some reader takes it to grant."""

    raw: bytes
    grants: tuple[tuple[int, int], ...] = ()


def octal(number: int) -> bytes:
    return b"0%o" % number


def as_written(start: int, count: int, spelling: str) -> Written:
    owner, s, c = b"bob", b"%d" % start, b"%d" % count
    plain = ((start, count),)
    return {
        "plain": Written(b"%s:%s:%s\n" % (owner, s, c), plain),
        "uid": Written(b"1000:%s:%s\n" % (s, c), plain),
        "hex": Written(b"bob:0x%x:0X%X\n" % (start, count), plain),
        "octal": Written(b"bob:%s:%s\n" % (octal(start), c), (*plain, (int(octal(start)), count))),
        "crlf": Written(b"bob:%s:%s\r\n" % (s, c), plain),
        "blanks": Written(b" bob :\t%s: %s \n" % (s, c), plain),
        "inline": Written(b"bob:%s:%s # old\n" % (s, c), plain),
        "four": Written(b"bob:%s:%s:x\n" % (s, c), plain),
        "latin1": Written(b"b\xf6b:%s:%s\n" % (s, c), plain),
        "comment": Written(b"#bob:%s:%s\n" % (s, c)),
        "short": Written(b"bob:%s\n" % s),
        "word": Written(b"bob:%s:many\n" % s),
        "endless": Written(b"bob:%s:4294967296\n" % s, ((start, 4294967296),)),
        "beyond": Written(b"bob:5000000000:%s\n" % c),
    }[spelling]


SPELLINGS = (
    *(
        "plain",
        "plain",
        "plain",
        "uid",
        "hex",
        "octal",
        "crlf",
        "blanks",
        "inline",
        "four",
        "latin1",
    ),
    *("comment", "short", "word", "beyond"),
)
JUNK = st.sampled_from(
    [
        b"\n",
        b"# a comment\n",
        b"\xff\xfe\x00\n",
        b":\n",
        b"::\n",
        b"bob\n",
        b"  \n",
        b"bob::\n",
        b"\r\n",
    ]
)


def lines(
    first: int, last: int, longest: int, spellings: tuple[str, ...] = SPELLINGS
) -> st.SearchStrategy[list[Written]]:
    """Up to a dozen lines that start around [first, last], and junk among them."""
    line = st.builds(
        as_written,
        st.integers(max(first - longest, 0), last + 3),
        st.integers(0, longest),
        st.sampled_from(spellings),
    )
    return st.lists(st.one_of(line, line, line, JUNK.map(Written)), max_size=12)


@dataclass(frozen=True)
class World:
    """A host, and the ids that are taken on it as whoever made it knows."""

    host: HostState
    taken: frozenset[tuple[int, int]]

    def free(self, first: int, last: int) -> set[int]:
        """The ids of [first, last] that nobody has, one by one."""
        left = set(range(first, last + 1))
        for start, count in self.taken:
            left -= set(range(max(start, first), min(start + count, last + 1)))
        return left


@st.composite
def worlds(draw: st.DrawFn, first: int = LOW, last: int = HIGH, longest: int = 12) -> World:
    subuid, subgid = draw(lines(first, last, longest)), draw(lines(first, last, longest))
    cut = b"\n" if draw(st.booleans()) else b""
    raw = [b"".join(line.raw for line in written).removesuffix(cut) for written in (subuid, subgid)]
    ids = st.lists(st.integers(first - 2, last + 2), max_size=3)
    spans = st.lists(
        st.builds(IdRange, st.integers(first - 5, last), st.integers(1, longest)), max_size=2
    )
    uids, gids, running, released = draw(ids), draw(ids), draw(spans), draw(spans)
    host = state(
        raw[0],
        raw[1],
        passwd=PASSWD + b"".join(b"u%d:x:%d:100::/:\n" % (n, n) for n in uids),
        group=GROUP + b"".join(b"g%d:x:%d:\n" % (n, n) for n in gids),
        namespaces=IdSet(running),
        quarantined=[Quarantined(f"q{n}", ids, "") for n, ids in enumerate(released)],
        daemon_json=draw(
            st.sampled_from(
                [None, b'{\n  "debug": true\n}\n', b'{"a": {"userns-remap": "x"}, "b": [1]}']
            )
        ),
    )
    taken = [span for line in (*subuid, *subgid) for span in line.grants]
    taken += [(n, 1) for n in (*uids, *gids)] + [(r.start, r.count) for r in (*running, *released)]
    return World(host, frozenset(taken))


def lowest_fits(free: set[int], count: int, align: int, wanted: int) -> list[int]:
    """First fit, the slow way: for each name, the lowest aligned base whose ids are all free."""
    left, found = set(free), []
    for _ in range(wanted):
        base = next(
            (n for n in sorted(left) if n % align == 0 and left.issuperset(range(n, n + count))),
            None,
        )
        if base is None:
            break
        left -= set(range(base, base + count))
        found.append(base)
    return found


def longest_run(free: set[int]) -> int:
    best = run = 0
    for number in range(min(free, default=0), max(free, default=0) + 1):
        run = run + 1 if number in free else 0
        best = max(best, run)
    return best


def ended(raw: bytes) -> bytes:
    return raw + b"\n" if raw and not raw.endswith(b"\n") else raw


def appended(before: bytes, new: bytes) -> bytes:
    return ended(before) + new


NAMES = st.lists(
    st.sampled_from(["a1", "b2", "c3", "d4", "e5"]), min_size=1, max_size=5, unique=True
)


@settings(max_examples=examples(250), deadline=None)
@given(world=worlds(), names=NAMES, block=st.integers(1, 20))
def test_the_lowest_free_blocks_are_given_out_or_none_and_the_shortfall_is_counted(
    world: World, names: list[str], block: int
) -> None:
    free = world.free(LOW, HIGH)
    expected = lowest_fits(free, block, block, len(names))
    request = asked(*names, strategy=SingleUid(block=block), pool=POOL)
    if len(expected) < len(names):
        for base in expected:
            free -= set(range(base, base + block))
        with pytest.raises(PoolExhaustedError) as caught:
            decide(world.host, request)
        assert (
            f"no room for {len(names) - len(expected)} of {len(names)} ranges of {block} ids"
            in str(caught.value)
        )
        assert f"largest gap left holds {longest_run(free)} ids" in str(caught.value)
        return
    plan = decide(world.host, request)
    assert [
        (a.name, a.mapping.uids.triples(), a.mapping.gids.triples(), a.reserved_range)
        for a in plan.allocations
    ] == [
        (name, [(0, base, 1)], [(0, base, 1)], IdRange(base, block))
        for name, base in zip(names, expected, strict=True)
    ]
    new = b"".join(
        b"usernsplan-%s:%d:1\n" % (n.encode(), base)
        for n, base in zip(names, expected, strict=True)
    )
    before = files(world.host)
    assert {c.path: c.after for c in plan.changes} == {
        path: appended(before[path] or b"", new) for path in (SUBUID, SUBGID)
    }


@settings(max_examples=examples(100), deadline=None)
@given(world=worlds(), dockerroot=st.integers(1, 30))
def test_the_filler_is_the_lowest_run_that_is_long_enough(world: World, dockerroot: int) -> None:
    request = asked(strategy=Shared(dockerroot=dockerroot), pool=POOL)
    expected = lowest_fits(world.free(LOW, HIGH), dockerroot, 1, 1)
    if not expected:
        with pytest.raises(PoolExhaustedError, match="no room for 1 of 1"):
            decide(world.host, request)
        return
    [allocation] = decide(world.host, request).allocations
    assert allocation.mapping.uids.triples() == [
        (0, dockerroot, 1),
        (1, expected[0], dockerroot),
        (dockerroot + 1, dockerroot + 1, 65535 - dockerroot),
    ]


@settings(max_examples=examples(150), deadline=None)
@given(
    world=worlds(SLOT_POOL.start, SLOT_POOL.last, 2 * SLOT),
    names=NAMES,
    size=st.sampled_from([1, 1000, SLOT - 1, SLOT, SLOT + 1, 2 * SLOT, 3 * SLOT]),
)
def test_slots_are_given_out_lowest_first_and_nothing_taken_lies_in_them(
    world: World, names: list[str], size: int
) -> None:
    taken, expected = set(world.taken), []
    for _ in names:
        for base in (SLOT * n for n in SLOTS):
            inside = base + size <= SLOT_POOL.stop
            if inside and not any(
                count and base < start + count and start < base + size for start, count in taken
            ):
                expected.append(base)
                taken.add((base, size))
                break
    request = asked(*names, strategy=PerContainer(size=size), pool=SLOT_POOL)
    if len(expected) < len(names):
        with pytest.raises(
            PoolExhaustedError, match=f"no room for {len(names) - len(expected)} of {len(names)} "
        ):
            decide(world.host, request)
        return
    assert [a.mapping.uids.triples() for a in decide(world.host, request).allocations] == [
        [(0, base, size)] for base in expected
    ]


@settings(max_examples=examples(60), deadline=None)
@given(world=worlds(), start=st.integers(LOW - 2, HIGH), block=st.integers(1, 5))
def test_a_start_is_given_exactly_where_it_is_free(world: World, start: int, block: int) -> None:
    start -= start % block
    request = asked("a1", strategy=SingleUid(block=block), pool=POOL, start=start)
    wanted = set(range(start, start + block))
    if wanted <= world.free(LOW, HIGH):
        assert [a.reserved_range for a in decide(world.host, request).allocations] == [
            IdRange(start, block)
        ]
    else:
        with pytest.raises(UsernsplanError) as caught:
            decide(world.host, request)
        assert caught.value.option == "start"
        assert caught.value.exit_status in {2, 9}


ASKED: st.SearchStrategy[SingleUid | Shared] = st.one_of(
    st.builds(SingleUid, block=st.sampled_from([1, 4]), container_id=st.sampled_from([0, 0, 33])),
    st.sampled_from(
        [Shared(), Shared(dockerroot=5, max=65000), Shared(identity=True), Shared(max=4294967294)]
    ),
)


@st.composite
def requests(draw: st.DrawFn) -> AllocateRequest:
    """Any way to ask for one to five names, or for Docker's own allocation."""
    strategy = draw(ASKED)
    names = tuple(draw(NAMES)) if draw(st.booleans()) else ()
    for_docker = not (
        (isinstance(strategy, SingleUid) and strategy.container_id)
        or (isinstance(strategy, Shared) and strategy.max > SLOT)
    )
    if not for_docker:
        names = names or ("a1",)
    daemon = draw(st.sampled_from(names)) if names and for_docker and draw(st.booleans()) else None
    owner = draw(st.sampled_from([None, "svc", "alice-x"])) if len(names) == 1 else None
    return asked(
        *names,
        strategy=strategy,
        pool=POOL,
        daemon=daemon,
        owner=owner,
        replace_remap=draw(st.booleans()),
    )


def planned(host: HostState, request: AllocateRequest) -> Plan | None:
    """The plan, or None where the small pool has no room: then there is nothing to show."""
    try:
        return decide(host, request)
    except PoolExhaustedError:
        return None


@settings(max_examples=examples(200), deadline=None)
@given(world=worlds(), request_=requests())
def test_said_again_it_changes_nothing_and_released_the_files_are_as_before(
    world: World, request_: AllocateRequest
) -> None:
    plan = planned(world.host, request_)
    if plan is None:
        return
    host = carried_out(world.host, plan)
    again = decide(host, request_)
    assert not again.changed
    # Since it was carried out they have the number of their event, and its moment.
    assert tuple(replace(a, since="", event=0) for a in again.allocations) == plan.allocations

    names = tuple(a.name for a in plan.allocations)
    released = carried_out(host, make_release(host, ReleaseRequest(names, unset_remap=True)))
    before, after = files(world.host), files(released)
    for path in (SUBUID, SUBGID):
        # A last line without its end gets one when another line follows it, and keeps it.
        followed = any(change.path == path for change in plan.changes)
        was = before[path] or b""
        assert after[path] == (ended(was) if followed else was)
    if before[DAEMON_JSON] is not None:
        assert after[DAEMON_JSON] == before[DAEMON_JSON]
    else:
        assert json.loads(after[DAEMON_JSON] or b"{}") == {}
    assert {q.reserved_range for q in released.ledger.quarantined} >= {
        a.reserved_range for a in plan.allocations if a.reserved_range
    }


@settings(max_examples=examples(150), deadline=None)
@given(world=worlds(), request_=requests())
def test_what_is_shown_is_what_is_done_once_the_accounts_are_made(
    world: World, request_: AllocateRequest
) -> None:
    plan = planned(world.host, request_)
    if plan is None:
        return
    done = decide(with_accounts(world.host, plan), request_)
    assert (done.changes, done.ledger, done.account_commands) == (plan.changes, plan.ledger, ())


@settings(max_examples=examples(100), deadline=None)
@given(
    world=worlds(),
    steps=st.lists(
        st.tuples(NAMES, st.sampled_from(["allocate", "release", "forget"])), max_size=6
    ),
)
def test_however_it_goes_on_no_two_ever_hold_the_same_id(
    world: World, steps: list[tuple[list[str], str]]
) -> None:
    host, followed = world.host, False
    came: list[str] = []
    for names, what in steps:
        standing = {a.name for a in host.ledger.allocations}
        kept = {q.name for q in host.ledger.quarantined}
        known = tuple(n for n in names if n in (kept if what == "forget" else standing))
        if what == "allocate":
            plan = planned(host, asked(*names, strategy=SingleUid(block=3), pool=POOL))
        else:
            plan = (
                make_release(host, ReleaseRequest(known, forget=what == "forget"))
                if known
                else None
            )
        if plan is None:
            continue
        followed = followed or bool(plan.changes)
        host = carried_out(host, plan)
        ours = [a.reserved_range for a in host.ledger.allocations if a.reserved_range]
        back = [q.reserved_range for q in host.ledger.quarantined if not q.name.startswith("q")]
        numbers = [n for ids in (*ours, *back) for n in range(ids.start, ids.stop)]
        assert len(numbers) == len(set(numbers))
        assert set(numbers) <= world.free(LOW, HIGH)
        # What others wrote, then the lines of what stands, in the order in which they came.
        now = {a.name: a for a in host.ledger.allocations}
        new = [a.name for a in plan.allocations if a.name not in came]
        came = [name for name in (*came, *new) if name in now]
        lines = b"".join(
            b"%s:%d:1\n" % (now[name].owner.encode(), ids.start)
            for name in came
            if (ids := now[name].reserved_range)
        )
        for path, raw in files(world.host).items():
            if path != DAEMON_JSON:
                assert files(host)[path] == (appended(raw or b"", lines) if followed else raw)


def shuffled(raw: bytes, order: Iterable[int]) -> bytes:
    """The lines in another order, each with its end."""
    split = [line + b"\n" for line in raw.split(b"\n") if line]
    return b"".join(split[n] for n in order if n < len(split))


@settings(max_examples=examples(100), deadline=None)
@given(
    order=st.permutations(range(5)),
    file=st.sampled_from(["subuid", "subgid"]),
    dockerroot=st.integers(1, 9),
)
def test_from_any_order_dockers_lines_come_back_into_theirs(
    order: list[int], file: str, dockerroot: int
) -> None:
    request = asked(strategy=Shared(dockerroot=dockerroot), daemon_config=False)
    bare = state(b"bob:100000:65536\neve:0x30000:1\n", b"bob:100000:65536\neve:0x30000:1\n")
    host = carried_out(bare, decide(bare, request))
    raw = shuffled(host.subuid.raw, order)
    sorted_ = replace(host, **{file: state(raw).subuid})  # type: ignore[arg-type]
    plan = decide(sorted_, request)
    after = carried_out(sorted_, plan)
    root, last = (
        b"dockremap:%d:1\n" % dockerroot,
        b"dockremap:%d:%d\n" % (dockerroot + 1, 65535 - dockerroot),
    )
    expected = [root, b"dockremap:589824:%d\n" % dockerroot, last]
    for content in (after.subuid, after.subgid):
        assert [
            line.raw for line in content.lines if line.raw.startswith(b"dockremap:")
        ] == expected
        assert {line.raw for line in content.lines} >= {b"bob:100000:65536\n", b"eve:0x30000:1\n"}
    others = [line for line in raw.splitlines(keepends=True) if not line.startswith(b"dockremap:")]
    changed = getattr(after, file)
    assert [line.raw for line in changed.lines if not line.raw.startswith(b"dockremap:")] == others
    assert plan.ledger.add == ()
    assert not decide(after, request).changed


@settings(max_examples=examples(100), deadline=None)
@given(raw=st.binary(max_size=60), tail=st.binary(max_size=60))
def test_no_bytes_in_the_files_stop_a_plan_or_are_lost(raw: bytes, tail: bytes) -> None:
    content = raw + b"\nbob:70000:10\n" + tail
    plan = planned(state(content, content), asked("a1", strategy=SingleUid(block=1), pool=POOL))
    if plan is None:
        return
    [allocation] = plan.allocations
    assert allocation.reserved_range is not None
    assert allocation.reserved_range.start not in range(70_000, 70_010)
    line = b"usernsplan-a1:%d:1\n" % allocation.reserved_range.start
    assert {c.after for c in plan.changes} == {appended(content, line)}
