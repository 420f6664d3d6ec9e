"""check --fix as a decision: what is put back, what is left, and when Docker has to be restarted."""

from __future__ import annotations

from tests.unit.states import REMAPPED, per_container, same_lines, shared, state
from usernsplan import HostState, IdRange
from usernsplan.audit import Facts, check, repair_of
from usernsplan.audit.base import Lock, Unread
from usernsplan.layout import LEDGER, SUBGID, SUBUID
from usernsplan.model import Actor, Change, Intent, LedgerChange
from usernsplan.planner.daemon import RESTART
from usernsplan.planner.repair import after_mending, make_repair

WEB, NEW = b"usernsplan-web:589824:65536\n", b"usernsplan-new:720896:65536\n"
OURS = per_container("web", 589824)
DOCKERS = shared(
    "default",
    (0, 2, 1),
    (1, 655360, 2),
    (3, 3, 65533),
    owner="dockremap",
    reserved_range=IdRange(655360, 2),
)
LINES = b"dockremap:2:1\ndockremap:655360:2\ndockremap:3:65533\n"
SORTED = b"dockremap:2:1\ndockremap:3:65533\ndockremap:655360:2\n"


def host(lines: bytes, config: bytes = b'{"userns-remap": "dockremap"}') -> HostState:
    return state(**same_lines(lines), **REMAPPED, allocations=[OURS, DOCKERS], daemon_json=config)


def test_what_is_lost_goes_to_the_end_and_what_is_sorted_is_laid_anew() -> None:
    plan = make_repair(host(SORTED + b"bob:5:5\n"))
    after = b"bob:5:5\n" + LINES + WEB
    assert [(c.path, c.after) for c in plan.changes] == [(SUBUID, after), (SUBGID, after)]
    assert {finding.code for finding in plan.findings} == {"USN109"}
    assert plan.kind == "repair"


def test_docker_is_restarted_for_its_own_lines_alone() -> None:
    assert make_repair(host(SORTED + WEB)).next_steps == (RESTART,)
    assert make_repair(host(LINES)).next_steps == ()
    assert make_repair(host(LINES)).changes
    for config in (b"{}", b"{", b'{"userns-remap": "alice"}', b'{"userns-remap": ""}'):
        assert make_repair(host(SORTED + WEB, config)).next_steps == ()


def test_in_order_nothing_is_to_be_done() -> None:
    plan = make_repair(host(LINES + WEB))
    assert (plan.changes, plan.findings, plan.next_steps, plan.changed) == ((), (), (), False)


def test_what_was_lost_in_one_file_and_cannot_be_put_back_in_the_other_is_left_whole() -> None:
    lost = state(b"", WEB + b"usernsplan-web:9:9\n", allocations=[OURS])
    plan = make_repair(lost)
    assert plan.changes == ()
    [finding] = plan.findings
    assert finding.code == "USN126"
    assert "/etc/subgid" in finding.message


def test_the_mending_of_a_run_is_a_part_of_what_is_shown() -> None:
    # Killed after its first file: its line comes out again, and a line that was lost comes back.
    intent = Intent(
        "allocate new",
        Actor(0),
        LedgerChange(),
        (Change(SUBUID, b"", NEW), Change(SUBGID, WEB, WEB + NEW)),
    )
    plan, changes = after_mending(state(NEW, WEB, allocations=[OURS]), intent)
    assert changes == (Change(SUBUID, NEW, WEB),)
    assert [change.path for change in plan.changes] == [SUBUID]


def test_a_file_that_an_interrupted_run_made_is_shown_to_go() -> None:
    intent = Intent(
        "", Actor(0), LedgerChange(), (Change(SUBUID, None, NEW), Change(SUBGID, None, NEW))
    )
    _, changes = after_mending(state(NEW, None), intent)
    assert changes == (Change(SUBUID, NEW, b""),)


def test_only_what_was_found_is_repaired() -> None:
    facts = Facts(
        host(b""),
        locks=(Lock("/etc/subuid.lock", 7, alive=False), Lock("/etc/subgid.lock", 1, alive=True)),
    )
    every = repair_of(facts, check(facts))
    assert every.locks == ("/etc/subuid.lock",)
    assert [change.path for change in every.changes] == [SUBUID, SUBGID]
    assert every.needed
    locks_alone = repair_of(facts, check(facts, {"USN064"}))
    assert (locks_alone.plan, locks_alone.changes, locks_alone.locks) == (
        None,
        (),
        ("/etc/subuid.lock",),
    )
    assert not repair_of(facts, check(facts, {"USN043"})).needed


def test_nothing_is_put_back_behind_a_symlink_or_without_the_ledger() -> None:
    for path in (SUBUID, SUBGID, LEDGER):
        facts = Facts(host(b""), unread=(Unread(path, "is a symlink", ""),))
        found = repair_of(facts, check(facts))
        assert (found.plan, found.needed, found.hindered_by) == (None, False, path)
