"""A run is killed at any point, other programs edit the files, and then it is mended.

All of its lines are there or none, and no line of another owner is lost.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.unit.states import (
    DOCKREMAP_GROUP,
    DOCKREMAP_USER,
    GROUP,
    PASSWD,
    asked,
    carried_out,
    files,
    state,
    with_files,
)
from usernsplan import (
    AllocateRequest,
    HostState,
    PerContainer,
    Plan,
    ReleaseRequest,
    Shared,
    SingleUid,
    make_release,
)
from usernsplan import make_plan as decide
from usernsplan.layout import DAEMON_JSON, SUBGID, SUBUID
from usernsplan.model import Actor, Intent
from usernsplan.planner.recovery import Mended, mend

if TYPE_CHECKING:
    from collections.abc import Callable

Files = dict[str, bytes | None]

OTHERS = (
    b"",
    b"bob:100000:65536\n",
    b"eve:300000:65536\nbob:100000:65536\n",
    b"bob:100000:65536\nbob:100000:65536\n# a comment\r\n\nbroken\n",
    b"bob:100000:65536\n\xff:0x1:1\neve:300000:65536",
)
CONFIGS = (
    None,
    b"{}",
    b'{\n  "debug": true\n}\n',
    b'{"userns-remap": "eve", "ip": "::1"}',
    b'{"userns-remap":"dockremap"}\n',
)
REQUESTS = (
    *(asked("web"), asked("web", "db"), asked("web", strategy=PerContainer(size=5))),
    *(asked("web", "db", strategy=SingleUid()), asked("web", "db", strategy=Shared())),
    *(
        asked(replace_remap=True),
        asked(strategy=Shared(), replace_remap=True),
        asked(strategy=Shared(identity=True), replace_remap=True),
    ),
    *(
        asked("web", "db", daemon="web", replace_remap=True),
        asked("web", strategy=Shared(max=4294967294)),
    ),
)


def lines(raw: bytes | None) -> list[bytes]:
    """The lines, each with its line end."""
    return (
        [bytes(line) + b"\n" for line in (raw or b"").removesuffix(b"\n").split(b"\n")]
        if raw
        else []
    )


def by_start(raw: bytes) -> bytes:
    """The file as useradd leaves it: valid lines sorted by start, after all other lines."""

    def start(line: bytes) -> int:
        fields = line.split(b":")
        return int(fields[1]) if len(fields) == 3 and fields[1].isdigit() else -1

    found = lines(raw)
    found.sort(key=start)
    return b"".join(found)


def other_key(raw: bytes) -> bytes:
    config: dict[str, Any] = json.loads(raw or b"{}")
    return json.dumps({"log-level": "warn", **config, "live-restore": True}, indent=4).encode()


def other_user(raw: bytes) -> bytes:
    return json.dumps({**json.loads(raw or b"{}"), "userns-remap": "mallory"}).encode()


SUBID_EDITS: dict[str, Callable[[bytes], bytes]] = {
    "append": lambda raw: (
        raw + (b"" if raw.endswith(b"\n") or not raw else b"\n") + b"new:765536:65536\n"
    ),
    "prepend": lambda raw: b"new:765536:65536\n" + raw,
    "sort": by_start,
    "drop a line": lambda raw: b"".join(lines(raw)[1:]),
    "lose the last line end": lambda raw: raw.removesuffix(b"\n"),
}
DAEMON_EDITS: dict[str, Callable[[bytes], bytes]] = {
    "another key": other_key,
    "another user": other_user,
}


@st.composite
def hosts(draw: st.DrawFn) -> HostState:
    known = draw(st.booleans())
    return state(
        draw(st.sampled_from((*OTHERS, None))),
        draw(st.sampled_from((*OTHERS, None))),
        passwd=PASSWD + (DOCKREMAP_USER if known else b""),
        group=GROUP + (DOCKREMAP_GROUP if known else b""),
        daemon_json=draw(st.sampled_from(CONFIGS)),
    )


@st.composite
def plans(draw: st.DrawFn) -> tuple[HostState, Plan]:
    """A host and a plan: an allocation, another, one with lost or sorted lines, or a release."""
    host = draw(hosts())
    request: AllocateRequest = draw(st.sampled_from(REQUESTS))
    first = decide(host, request)
    what = draw(st.sampled_from(["allocate", "allocate", "again", "release", "release"]))
    if what == "allocate":
        return host, first
    host = carried_out(host, first)
    edited = files(host)
    for path in draw(st.sampled_from([(), (SUBUID,), (SUBUID, SUBGID)])):
        raw = edited[path] or b""
        ours = [line for line in lines(raw) if _is_ours(line)]
        raw = draw(
            st.sampled_from(
                [by_start(raw), b"".join(line for line in lines(raw) if line not in ours[:1])]
            )
        )
        edited[path] = raw
    host = with_files(host, edited)
    if what == "again":
        return host, decide(host, request)
    names = [a.name for a in host.ledger.allocations]
    some = tuple(draw(st.lists(st.sampled_from(names), min_size=1, unique=True)))
    return host, make_release(host, ReleaseRequest(some, unset_remap=True))


def _is_ours(line: bytes) -> bool:
    return line.startswith((b"usernsplan-", b"dockremap:"))


@st.composite
def kills(draw: st.DrawFn) -> tuple[HostState, Plan, Files, list[str]]:
    """A plan, its files after some of its changes, and the files after others edited them."""
    host, plan = draw(plans())
    now = files(host)
    for change in plan.changes:
        if draw(st.booleans()):
            now[change.path] = change.after
    edits = []
    for path in draw(st.lists(st.sampled_from([SUBUID, SUBGID, DAEMON_JSON]), max_size=3)):
        kinds = DAEMON_EDITS if path == DAEMON_JSON else SUBID_EDITS
        kind = draw(st.sampled_from(sorted(kinds)))
        if now[path] is not None or kind in {"append", "another key"}:
            now[path] = kinds[kind](now[path] or b"")
            edits.append(f"{path}: {kind}")
    return host, plan, now, edits


def intent_of(plan: Plan) -> Intent:
    return Intent("usernsplan", Actor(0), plan.ledger, plan.changes)


def after_mending(now: Files, done: Mended) -> Files:
    left = dict(now)
    for change in done.changes:
        assert left[change.path] == change.before
        left[change.path] = change.after
    for path in done.removals:
        left[path] = None
    return left


def touched(plan: Plan) -> dict[str, tuple[Counter[bytes], Counter[bytes]]]:
    """For each subid file of the plan, the lines that it adds and the lines that it removes."""
    found = {}
    for change in plan.changes:
        if change.path != DAEMON_JSON:
            before, after = Counter(lines(change.before)), Counter(lines(change.after))
            found[change.path] = (after - before, before - after)
    return found


@settings(max_examples=examples(400), deadline=None)
@given(killed=kills())
def test_the_lines_of_a_killed_run_are_all_there_or_all_gone_and_others_keep_theirs(
    killed: tuple[HostState, Plan, Files, list[str]],
) -> None:
    _, plan, now, _ = killed
    done = mend(intent_of(plan), now)
    left = after_mending(now, done)
    for path, (put_in, taken_out) in touched(plan).items():
        had, has = Counter(lines(now[path])), Counter(lines(left[path]))
        assert not has - had, "a line was added that was not there"
        gone = had - has
        assert not gone - (put_in + taken_out), "a line of others was lost"
        if done.completed:
            assert not taken_out & has, "a line that was released is still there"
            assert not put_in - has, "a line that was given is missing"
        else:
            assert not put_in & has, "a line that was put back is still there"
    for path in set(now) - {change.path for change in plan.changes}:
        assert left[path] == now[path]


@settings(max_examples=examples(300), deadline=None)
@given(killed=kills())
def test_the_other_lines_stay_in_the_order_in_which_they_are(
    killed: tuple[HostState, Plan, Files, list[str]],
) -> None:
    _, plan, now, edits = killed
    left = after_mending(now, mend(intent_of(plan), now))
    for path in touched(plan):
        if any(edit.startswith(path) for edit in edits):
            assert [x for x in lines(left[path]) if not _is_ours(x)] == [
                x for x in lines(now[path]) if not _is_ours(x)
            ]


@settings(max_examples=examples(300), deadline=None)
@given(host_and_plan=plans(), written=st.sets(st.integers(0, 2)))
def test_where_nobody_else_was_there_the_files_are_wholly_as_before_or_wholly_as_planned(
    host_and_plan: tuple[HostState, Plan], written: set[int]
) -> None:
    host, plan = host_and_plan
    before, planned = files(host), files(carried_out(host, plan))
    now = {**before, **{c.path: c.after for n, c in enumerate(plan.changes) if n in written}}
    done = mend(intent_of(plan), now)
    assert after_mending(now, done) == (planned if done.completed else before)
    releasing, finished = bool(plan.ledger.remove), now == planned
    assert done.completed is (finished or (releasing and now != before))


@settings(max_examples=examples(300), deadline=None)
@given(killed=kills())
def test_docker_does_not_point_to_an_owner_whose_lines_the_mending_took(
    killed: tuple[HostState, Plan, Files, list[str]],
) -> None:
    _, plan, now, _ = killed
    done = mend(intent_of(plan), now)
    left = after_mending(now, done)
    config = next((c for c in plan.changes if c.path == DAEMON_JSON), None)
    if config is None or left[DAEMON_JSON] is None:
        return
    before, planned, remap = (
        json.loads(raw or b"{}").get("userns-remap")
        for raw in (config.before, config.after, left[DAEMON_JSON])
    )
    assert before != planned
    if plan.ledger.remove and done.completed:
        assert remap != before, "the lines of the one before are gone"
    elif plan.ledger.remove:
        assert remap != planned or remap == json.loads(now[DAEMON_JSON] or b"{}").get(
            "userns-remap"
        )
    elif done.completed:
        assert remap == planned
    else:
        assert remap != planned, "the lines of the one that was planned are gone"
    # All other edits are still there.
    for key, value in json.loads(now[DAEMON_JSON] or b"{}").items():
        if key != "userns-remap":
            assert json.loads(left[DAEMON_JSON] or b"")[key] == value
    assert remap in {before, planned, "mallory"}


@settings(max_examples=examples(200), deadline=None)
@given(killed=kills())
def test_mending_twice_is_mending_once(killed: tuple[HostState, Plan, Files, list[str]]) -> None:
    _, plan, now, _ = killed
    left = after_mending(now, mend(intent_of(plan), now))
    again = mend(intent_of(plan), left)
    assert after_mending(left, again) == left
