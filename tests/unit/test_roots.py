"""Root's lines, where LXD and Incus take ids for their instances from the large ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.states import (
    asked,
    carried_out,
    files,
    per_container,
    same_lines,
    state,
    with_files,
)
from usernsplan import (
    IdRange,
    IdSet,
    PerContainer,
    ReleaseRequest,
    Shared,
    SingleUid,
    make_plan,
    make_release,
)
from usernsplan.errors import RefusedError
from usernsplan.formats import subid
from usernsplan.holdings import holdings
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.mapping import KINDS
from usernsplan.model import Unlisted
from usernsplan.planner.repair import make_repair

if TYPE_CHECKING:
    from usernsplan import HostState, Plan
    from usernsplan.strategies import Strategy

OF_INSTANCES = b"root:1000000:1000000000\n"
WEB = b"usernsplan-web:589824:65536\n"
SMALL = b"root:589824:32768\nroot:622592:32768\n"
# How an earlier version granted it to root.
LARGE = b"root:589824:65536\n"
WEB_AND_ROOT = replace(per_container("web", 589824), extra_owners=("root",))
OF_INCUS = asked("web", engines=("incus",))


def incus_on(lines: bytes | None, **words: object) -> HostState:
    found = state(lines, lines, **words)  # type: ignore[arg-type]
    return replace(found, engines=frozenset({"incus"}))


def without_lines(
    host: HostState, program: str = "Incus", path: str = "/usr/bin/incusd"
) -> HostState:
    """The same host, where this program takes its ids without a line."""
    taken = tuple(
        Unlisted(program, "all instances", kind, 1000000, 1001000000, path=path) for kind in KINDS
    )
    return replace(host, unlisted=taken)


def codes(plan: Plan) -> list[str]:
    return [finding.code for finding in plan.findings]


@pytest.mark.parametrize("engine", ["lxc", "lxd", "incus", "proxmox"])
@pytest.mark.parametrize("owner", [None, "root"])
def test_root_gets_lines_that_incus_does_not_take(engine: str, owner: str | None) -> None:
    host = state(OF_INSTANCES, OF_INSTANCES)
    plan = make_plan(host, asked("web", engines=(engine,), owner=owner))
    mine = b"" if owner else WEB
    assert [change.after for change in plan.changes] == [OF_INSTANCES + mine + SMALL] * 2
    assert plan.ledger.add[0].split_owners == ("root",)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (PerContainer(65535), [(589824, 65535)]),
        (PerContainer(65537), [(589824, 32768), (622592, 32768), (655360, 1)]),
        (
            PerContainer(200000),
            [*((589824 + n * 32768, 32768) for n in range(6)), (589824 + 196608, 3392)],
        ),
        (SingleUid(), [(1000000000, 1)]),
    ],
)
def test_every_size_is_granted_whole_in_lines_of_fewer_than_65536_ids(
    strategy: Strategy, expected: list[tuple[int, int]]
) -> None:
    plan = make_plan(state(), asked("web", strategy=strategy, engines=("lxc",)))
    [made] = plan.ledger.add
    root = [line for line in subid.parse(plan.changes[0].after).lines if line.owner == "root"]  # type: ignore[union-attr]
    spans = [(line.start, line.stop - line.start) for line in root]  # type: ignore[union-attr]
    assert spans == expected
    assert IdSet(IdRange(*span) for span in spans) == IdSet(made.mapping.uids.host_ranges())


def test_a_line_from_before_incus_is_replaced_by_small_ones_once() -> None:
    host = incus_on(OF_INSTANCES + WEB + LARGE, allocations=[WEB_AND_ROOT])
    plan = make_plan(host, OF_INCUS)
    assert [change.after for change in plan.changes] == [OF_INSTANCES + WEB + SMALL] * 2
    assert "USN140" in codes(plan)
    assert "USN123" not in codes(plan)
    assert not plan.restored
    after = carried_out(host, plan)
    assert after.ledger.allocations == (replace(WEB_AND_ROOT, split_owners=("root",)),)
    assert not make_plan(after, OF_INCUS).changed
    # Without the engine's name, too: Incus is installed.
    assert make_plan(host, asked("web")).changes == plan.changes


def test_without_lxd_and_incus_a_large_line_stays_as_it_is() -> None:
    host = state(WEB + LARGE, WEB + LARGE, allocations=[WEB_AND_ROOT])
    assert not make_plan(host, asked("web", engines=("lxc",))).changed


def test_a_lost_large_line_comes_back_in_small_ones_where_incus_is() -> None:
    host = incus_on(OF_INSTANCES + WEB, allocations=[WEB_AND_ROOT])
    plan = make_plan(host, OF_INCUS)
    assert [change.after for change in plan.changes] == [OF_INSTANCES + WEB + SMALL] * 2
    assert plan.restored == ("web",)


def test_a_large_line_that_is_lost_in_one_file_is_small_in_both() -> None:
    host = incus_on(OF_INSTANCES + WEB + LARGE, allocations=[WEB_AND_ROOT])
    host = replace(host, subgid=subid.parse(OF_INSTANCES + WEB))
    plan = make_plan(host, OF_INCUS)
    assert [change.after for change in plan.changes] == [OF_INSTANCES + WEB + SMALL] * 2
    assert not make_plan(carried_out(host, plan), OF_INCUS).changed


def test_a_large_line_that_another_allocation_needs_stays_until_both_are_split() -> None:
    words = asked("a1", "b1", strategy=Shared(identity=True, max=65536), engines=("lxc",))
    pieces = b"root:0:32768\nroot:32768:32768\n"
    host = carried_out(state(), make_plan(state(), words))
    assert host.subuid.raw.count(b"root:") == 2
    # As an earlier version granted it.
    old = tuple(replace(a, split_owners=()) for a in host.ledger.allocations)
    lines = host.subuid.raw.replace(pieces, b"root:0:65536\n")
    host = incus_on(OF_INSTANCES + lines, allocations=old)
    shape = Shared(identity=True, max=65536)
    both = carried_out(host, make_plan(host, asked("a1", "b1", strategy=shape)))
    assert b"root:0:65536" not in both.subuid.raw
    one = carried_out(host, make_plan(host, asked("a1", strategy=shape)))
    assert b"root:0:65536\n" in one.subuid.raw
    assert (
        b"root:0:65536\n"
        not in carried_out(one, make_plan(one, asked("b1", strategy=shape))).subuid.raw
    )


def test_a_large_line_that_was_adopted_stays_after_a_release_in_small_ones() -> None:
    found = tuple((path, "root:589824:65536") for path in (SUBGID, SUBUID))
    host = incus_on(OF_INSTANCES + WEB + LARGE, allocations=[replace(WEB_AND_ROOT, found=found)])
    host = carried_out(host, make_plan(host, OF_INCUS))
    [web] = host.ledger.allocations
    assert {*web.found} == {
        (path, line.decode()) for path in (SUBUID, SUBGID) for line in SMALL.splitlines()
    }
    host = carried_out(host, make_release(host, ReleaseRequest(("web",))))
    assert host.subuid.raw == OF_INSTANCES + SMALL


def test_a_large_line_is_adopted_as_it_is_and_split_where_incus_is() -> None:
    words = asked("web", engines=("lxc",), start=589824)
    lines = same_lines(OF_INSTANCES + WEB + LARGE)
    plan = make_plan(state(**lines), words)
    assert not plan.changes
    assert plan.ledger.add[0].split_owners == ()
    plan = make_plan(incus_on(OF_INSTANCES + WEB + LARGE), words)
    assert [change.after for change in plan.changes] == [OF_INSTANCES + WEB + SMALL] * 2
    assert plan.ledger.add[0].split_owners == ("root",)


def test_small_lines_are_adopted_as_they_are() -> None:
    words = asked("web", engines=("lxc",), start=589824)
    plan = make_plan(incus_on(OF_INSTANCES + WEB + SMALL), words)
    assert not plan.changes
    assert plan.ledger.add[0].split_owners == ("root",)


def test_an_existing_allocation_is_granted_to_root_in_small_lines() -> None:
    host = incus_on(OF_INSTANCES + WEB, allocations=[per_container("web", 589824)])
    plan = make_plan(host, OF_INCUS)
    assert [change.after for change in plan.changes] == [OF_INSTANCES + WEB + SMALL] * 2
    after = carried_out(host, plan)
    assert after.ledger.allocations == (replace(WEB_AND_ROOT, split_owners=("root",)),)
    released = carried_out(after, make_release(after, ReleaseRequest(("web",))))
    assert released.subuid.raw == OF_INSTANCES


def test_small_lines_are_restored_one_by_one() -> None:
    host = carried_out(state(), make_plan(state(), OF_INCUS))
    lacking = WEB + SMALL.splitlines(keepends=True)[1]
    host = with_files(host, files(host) | {SUBUID: lacking, SUBGID: None})
    plan = make_repair(host)
    assert plan.restored == ("web",)
    fixed = carried_out(host, plan)
    assert sorted(fixed.subuid.raw.splitlines()) == sorted((WEB + SMALL).splitlines())
    assert fixed.subgid.raw == WEB + SMALL
    for one in holdings(fixed.ledger.allocations[0]):
        assert all(raw in fixed.subuid.raw for raw in one.wanted)


def test_a_second_large_line_of_others_is_said_with_the_command_that_removes_it() -> None:
    host = incus_on(OF_INSTANCES + b"root:1001000000:1000000000\n")
    [found] = [f for f in make_plan(host, OF_INCUS).findings if f.code == "USN123"]
    assert "/etc/subuid:2: 'root:1001000000:1000000000'" in found.message
    assert "sed -i '/^root:1001000000:1000000000$/d' /etc/subuid /etc/subgid" in found.hint


def test_a_second_large_line_that_sed_would_misread_is_only_named() -> None:
    host = incus_on(
        OF_INSTANCES + b"root:2000000000:65536 # not\\n.*/d\nroot:2000000000:65536#/d\n"
    )
    [found] = [f for f in make_plan(host, OF_INCUS).findings if f.code == "USN123"]
    assert "sed" not in found.hint
    assert "remove 'root:2000000000:65536#/d'" in found.hint


@pytest.mark.parametrize("engine", ["lxc", "incus", "lxd", "proxmox"])
def test_a_line_of_roots_uid_is_not_hidden_from_incus(engine: str) -> None:
    host = incus_on(b"0:1000000:1000000000\n")
    with pytest.raises(
        RefusedError, match="LXD and Incus read the lines of 0 only while"
    ) as caught:
        make_plan(host, asked("web", engines=(engine,)))
    assert (
        caught.value.hint == "rename the owner first: sed -i 's/^0:/root:/' /etc/subuid /etc/subgid"
    )
    # A container without lines of root is no matter.
    assert make_plan(host, asked("web")).changes
    renamed = incus_on(OF_INSTANCES)
    assert make_plan(renamed, asked("web", engines=(engine,))).changes
    # The same before Incus reads the files, because one of them is new.
    half = replace(without_lines(host), subgid=subid.parse(None))
    with pytest.raises(RefusedError, match="LXD and Incus read the lines of 0 only while"):
        make_plan(half, asked("web", engines=(engine,)))
    # Without LXD and Incus, newuidmap reads both.
    if engine == "lxc":
        assert make_plan(replace(host, engines=frozenset()), asked("web", engines=("lxc",))).changes


def test_where_incus_reads_no_files_yet_root_keeps_the_ids_of_its_instances() -> None:
    host = without_lines(incus_on(None))
    plan = make_plan(host, OF_INCUS)
    assert [change.after for change in plan.changes] == [OF_INSTANCES + WEB + SMALL] * 2
    assert "USN139" in codes(plan)
    assert "USN123" not in codes(plan)
    plain = make_plan(host, asked("web"))
    assert [change.after for change in plain.changes] == [OF_INSTANCES + WEB] * 2


def test_only_the_file_without_a_line_for_instances_gets_one() -> None:
    host = replace(without_lines(incus_on(OF_INSTANCES)), subgid=subid.parse(None))
    plan = make_plan(host, OF_INCUS)
    assert [change.after for change in plan.changes] == [OF_INSTANCES + WEB + SMALL] * 2


def test_it_is_refused_where_somebody_has_ids_of_the_instances() -> None:
    alice = b"alice:1065536:65536\n"
    host = replace(without_lines(incus_on(alice)), subgid=subid.parse(None))
    with pytest.raises(
        RefusedError, match="1065536-1131071 is granted by a line of /etc/subuid"
    ) as it:
        make_plan(host, OF_INCUS)
    assert "usermod --add-subuids 655360-720895" not in it.value.hint
    assert "usermod --add-subuids 589824-655359 --add-subgids 589824-655359 root" in it.value.hint


@pytest.mark.parametrize(
    "host",
    [
        # It never reads the files of the host.
        without_lines(incus_on(None), "LXD", "/snap/bin/lxd"),
        # Both files are there: newuidmap is what it lacks.
        without_lines(incus_on(b"")),
        replace(state(None, None), engines=frozenset({"lxc"})),
    ],
    ids=["snap", "files", "none"],
)
def test_elsewhere_root_gets_no_line_for_instances(host: HostState) -> None:
    plan = make_plan(host, asked("web"))
    assert OF_INSTANCES not in plan.changes[0].after
    assert "USN139" not in codes(plan)


def test_a_repair_that_creates_the_files_keeps_the_ids_of_instances_too() -> None:
    host = without_lines(incus_on(None, allocations=[per_container("web", 589824)]))
    assert [change.after for change in make_repair(host).changes] == [OF_INSTANCES + WEB] * 2
    taken = [per_container("web", 589824), per_container("db", 1048576)]
    host = without_lines(incus_on(None, allocations=taken))
    plan = make_repair(host)
    assert not plan.changes
    assert codes(plan) == ["USN126"]


@pytest.mark.parametrize(
    "host",
    [
        without_lines(state(), "LXD", "/snap/bin/lxd"),
        without_lines(incus_on(b"")),
        incus_on(OF_INSTANCES),
    ],
    ids=["snap", "incus-without-newuidmap", "root's-line"],
)
def test_the_pool_goes_on_behind_the_ids_of_instances(host: HostState) -> None:
    plan = make_plan(host, asked(*(f"c{n}" for n in range(9))))
    starts = [a.reserved_range.start for a in plan.allocations if a.reserved_range]
    assert starts == [*range(589824, 983041, 65536)][:6] + [
        1001062400 + n * 65536 for n in range(3)
    ]
