"""A line whose owner is a uid is the account's, as usermod writes it with SUB_UID_STORE_BY_UID."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.each import each
from tests.unit.states import asked, carried_out, files, per_container, same_lines, state
from usernsplan import (
    Allocation,
    HostState,
    IdRange,
    ReleaseRequest,
    RenderContext,
    make_plan,
    make_release,
    render,
)
from usernsplan.audit import Facts, check
from usernsplan.errors import RefusedError
from usernsplan.formats.passes import parse_map
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.planner.rebuild import make_rebuilt
from usernsplan.planner.repair import make_repair

UID_LINE = b"1000:655360:65536\n"
NAME_LINE = b"alice:655360:65536\n"
MINE = per_container("web", 655360, owner="alice")


def adopted(subuid: bytes, subgid: bytes) -> HostState:
    host = state(subuid, subgid)
    plan = make_plan(host, asked("web", owner="alice", start=655360))
    assert not plan.changes
    return carried_out(host, plan)


@each(("subuid", "subgid"), [(UID_LINE, UID_LINE), (UID_LINE, NAME_LINE), (NAME_LINE, UID_LINE)])
def test_such_a_line_is_adopted_and_in_order_afterwards(subuid: bytes, subgid: bytes) -> None:
    host = adopted(subuid, subgid)
    assert {len(a.found) for a in host.ledger.allocations} == {2}
    assert not make_plan(host, asked("web", owner="alice", start=655360)).changed
    assert not make_repair(host).changed
    assert {one.severity for one in check(Facts(host))} <= {"info"}


@each("with_lines", [False, True])
def test_release_leaves_an_adopted_line_and_removes_it_when_asked(with_lines: bool) -> None:
    host = adopted(UID_LINE, UID_LINE)
    plan = make_release(host, ReleaseRequest(("web",), with_lines=with_lines))
    after = files(carried_out(host, plan))
    assert after[SUBUID] == after[SUBGID] == (b"" if with_lines else UID_LINE)
    if not with_lines:
        assert {one.code for one in plan.findings} >= {"USN111"}


def test_release_removes_a_line_of_ours_that_another_tool_has_rewritten() -> None:
    host = state(**same_lines(b"bob:100000:65536\n" + UID_LINE), allocations=[MINE])
    after = files(carried_out(host, make_release(host, ReleaseRequest(("web",)))))
    assert after[SUBUID] == b"bob:100000:65536\n"


def test_a_missing_line_is_restored_beside_one_by_uid() -> None:
    host = state(UID_LINE, b"", allocations=[MINE])
    plan = make_repair(host)
    assert [(change.path, change.after) for change in plan.changes] == [(SUBGID, NAME_LINE)]


def test_the_same_range_twice_under_both_names_is_a_finding() -> None:
    host = state(**same_lines(NAME_LINE + UID_LINE), allocations=[MINE])
    found = [one.place for one in check(Facts(host), {"USN052"})]
    assert found == ["/etc/subuid:2", "/etc/subgid:2"]


def test_another_line_by_uid_stands_in_the_way_of_a_new_range() -> None:
    host = state(**same_lines(UID_LINE))
    with pytest.raises(RefusedError, match="alice has '1000:655360:65536'") as caught:
        make_plan(host, asked("web", owner="alice"))
    assert caught.value.hint.startswith("'usernsplan adopt alice' takes over what stands")


def test_a_pool_that_an_engine_has_by_its_uid_is_left_alone_or_adopted() -> None:
    passwd = b"kubelet:x:1234:1234::/:/usr/sbin/nologin\n"
    theirs = b"1234:65536:7208960\n"
    host = replace(state(theirs, theirs, passwd=passwd), engines=frozenset({"kubernetes"}))
    plan = make_plan(host, asked("web"))
    assert [a.name for a in plan.allocations] == ["web"]
    assert not plan.findings
    plan = make_plan(host, asked(engines=("kubernetes",), start=65536))
    assert not plan.changes
    assert [a.reserved_range for a in plan.ledger.add] == [IdRange(65536, 7208960)]


def test_a_lost_ledger_finds_them_under_the_name() -> None:
    passwd = b"usernsplan-web:x:1234:1234::/:/usr/sbin/nologin\n"
    lines = b"1234:655360:65536\n"
    [made] = make_rebuilt(state(lines, lines, passwd=passwd), ()).change.add
    assert (made.name, made.owner) == ("web", "usernsplan-web")
    assert made.reserved_range == IdRange(655360, 65536)


@each("line", [b"alice:100000:65536\n", b"1000:100000:65536\n"])
def test_podmans_own_map_of_the_account_is_told_from_lines_by_name_and_by_uid(line: bytes) -> None:
    host = state(**same_lines(line))
    hole = make_plan(host, asked("web", within="alice", passes=("b:1000",))).allocations[0]
    assert "keep-id:uid=1000,gid=1000 makes another map" in notes(host, hole)
    # keep-id leaves no hole: the ids of the line follow on from each other around alice's own.
    extents = ("b 0 100000 1000", "b 1000 1000 1", "b 1001 101000 64536")
    closed = replace(hole, mapping=parse_map(extents))
    assert "keep-id:uid=1000,gid=1000 makes the same map" in notes(host, closed)


def notes(host: HostState, allocation: Allocation) -> str:
    return "\n".join(render("podman", allocation, RenderContext(host, rootless=True)).notes)
