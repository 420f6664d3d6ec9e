"""Random hosts against sets of numbers; hosts of allocate alone; and repairs of what was damaged at random."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.unit.states import (
    REMAPPED,
    asked,
    carried_out,
    files,
    per_container,
    shared,
    state,
    with_files,
)
from usernsplan import (
    AllocateRequest,
    HostState,
    IdRange,
    PerContainer,
    ReleaseRequest,
    Shared,
    SingleUid,
    make_release,
)
from usernsplan import make_plan as decide
from usernsplan.audit import Facts, check
from usernsplan.errors import HostChangedError, UsernsplanError
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.planner.repair import make_repair
from usernsplan.planner.shown import exactly

if TYPE_CHECKING:
    from usernsplan import Plan
    from usernsplan.strategies import Strategy

LINES = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.integers(1, 12)), max_size=12
)


@given(LINES)
def test_every_pair_of_owners_that_have_an_id_is_told(lines: list[tuple[str, int, int]]) -> None:
    raw = b"".join(b"%s:%d:%d\n" % (o.encode(), 100000 + at, size) for o, at, size in lines)
    ids = [set(range(at, at + size)) for _, at, size in lines]
    expected = {
        frozenset((one + 1, other + 1))
        for one, other in combinations(range(len(lines)), 2)
        if lines[one][0] != lines[other][0] and ids[one] & ids[other]
    }
    found = check(Facts(state(b"", raw)), {"USN001"})
    told = [
        frozenset(int(place.rpartition(":")[2]) for place in (finding.place, other.place))
        for finding in found
        for other in finding.overlaps
    ]
    assert set(told) == expected
    assert len(told) == len(expected)


# One host has one strategy; Docker's own allocation may be among them.
STRATEGIES: tuple[tuple[Strategy, ...], ...] = (
    (PerContainer(), PerContainer(131072)),
    (SingleUid(), SingleUid(block=1), SingleUid(container_id=33)),
    (Shared(), Shared(dockerroot=7), Shared(max=4294967294)),
)


@st.composite
def requests(draw: st.DrawFn) -> list[AllocateRequest | ReleaseRequest]:
    strategies: tuple[Strategy, ...] = draw(st.sampled_from(STRATEGIES))
    names = st.lists(st.sampled_from(["a1", "b2", "c3", "d4"]), max_size=3, unique=True)
    engines = st.sampled_from(
        [None, ("podman",), ("lxc",), ("docker",), ("docker", "lxc"), ("docker-instance",)]
    )
    flags: st.SearchStrategy[bool] = st.booleans()
    found: list[AllocateRequest | ReleaseRequest] = []
    for _ in range(draw(st.integers(1, 4))):
        is_release: bool = draw(flags)
        if found and is_release:
            release = draw(names.filter(bool))
            found.append(ReleaseRequest(tuple(release), forget=draw(flags), unset_remap=True))
        else:
            words = asked(
                *draw(names), strategy=draw(st.sampled_from(strategies)), engines=draw(engines)
            )
            found.append(words)
    return found


def after(host: HostState, words: AllocateRequest | ReleaseRequest) -> HostState:
    """The host after these words, as it was where they are refused."""
    try:
        plan = (
            decide(host, words) if isinstance(words, AllocateRequest) else make_release(host, words)
        )
    except UsernsplanError:
        return host
    return carried_out(host, plan)


@settings(max_examples=examples(150), deadline=None)
@given(requests())
def test_a_host_made_by_allocate_and_release_alone_has_no_errors(
    said: list[AllocateRequest | ReleaseRequest],
) -> None:
    host = state(
        b"alice:100000:65536\n", b"alice:100000:65536\n", daemon_json=b'{\n  "debug": true\n}\n'
    )
    for words in said:
        host = after(host, words)
        found = [f for f in check(Facts(host)) if f.severity == "error"]
        assert found == []


OURS = [
    per_container("web", 589824),
    replace(per_container("db", 655360), extra_owners=("root",)),
    shared(
        "default",
        (0, 2, 1),
        (1, 720896, 2),
        (3, 3, 65533),
        owner="dockremap",
        reserved_range=IdRange(720896, 2),
    ),
    per_container("old", 786432, 1000),
]
OUR_LINES = [
    b"usernsplan-web:589824:65536\n",
    b"usernsplan-db:655360:65536\n",
    b"root:655360:65536\n",
    b"dockremap:2:1\n",
    b"dockremap:720896:2\n",
    b"dockremap:3:65533\n",
    b"usernsplan-old:786432:1000\n",
]
THEIRS = [
    b"alice:100000:65536\n",
    b"# a comment\n",
    b"\n",
    b"bob:0x186a0:5\n",
    b"root:100000:65536\n",
    b"carl:589824:10\n",
    b"usernsplan-web:965536:1\n",
    b"dockremap:3:65533\n",
    b"1000:1:1\n",
    b"carl:720897:1\n",
]


@st.composite
def damaged(draw: st.DrawFn) -> HostState:
    """A host on which our lines were lost, moved and mixed with those of others."""
    raw = []
    for _ in range(2):
        lines = [line for line in OUR_LINES if draw(st.integers(0, 3))]
        lines += draw(st.lists(st.sampled_from(THEIRS), max_size=4))
        raw.append(b"".join(draw(st.permutations(lines))))
    cut = draw(st.booleans())
    raw = [text.removesuffix(b"\n") if cut else text for text in raw]
    return state(*raw, allocations=OURS, **REMAPPED, daemon_json=b'{"userns-remap": "dockremap"}')


def repaired(host: HostState, plan: Plan) -> HostState:
    content = files(host)
    for change in plan.changes:
        assert content[change.path] == change.before
        content[change.path] = change.after
    return with_files(host, content)


@settings(max_examples=examples(300), deadline=None)
@given(damaged())
def test_a_repair_puts_ours_back_touches_nothing_else_and_is_done_once(host: HostState) -> None:
    plan = make_repair(host)
    mended = repaired(host, plan)
    assert plan.ledger == type(plan.ledger)()
    ours = set(OUR_LINES)
    for path in (SUBUID, SUBGID):
        before, now = (files(h)[path] or b"" for h in (host, mended))
        lines_before, lines_now = (
            [line + b"\n" for line in raw.removesuffix(b"\n").split(b"\n")] if raw else []
            for raw in (before, now)
        )
        # What others wrote stands as it stood, in its order; nothing that stood is gone.
        assert [x for x in lines_before if x not in ours] == [x for x in lines_now if x not in ours]
        assert not Counter(lines_before) - Counter(lines_now)
    left = {finding.message for finding in plan.findings if finding.code == "USN126"}
    if not left:
        assert check(Facts(mended), {"USN050", "USN051"}) == ()
    again = make_repair(mended)
    assert again.changes == ()
    assert {finding.code for finding in again.findings} <= {"USN126"}
    assert {finding.message for finding in again.findings} == left
    assert exactly(plan, make_repair)(host).changes == plan.changes
    if plan.changes:
        with pytest.raises(HostChangedError):
            exactly(plan, make_repair)(mended)
