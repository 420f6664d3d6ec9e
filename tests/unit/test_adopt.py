"""What stands on a host, and what it becomes when it is adopted: hosts as values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.each import each
from tests.examples import examples
from tests.unit.desired import PER_CONTAINER, again, applied, decided
from tests.unit.states import (
    GROUP,
    PASSWD,
    REMAPPED,
    Directory,
    asked,
    carried_out,
    files,
    per_container,
    same_lines,
    shared,
    state,
)
from usernsplan import (
    IdRange,
    InvalidValueError,
    RefusedError,
    ReleaseRequest,
    UnknownNameError,
    make_plan,
    make_release,
)
from usernsplan.audit import check
from usernsplan.audit.base import Facts
from usernsplan.formats.accounts import Group, User
from usernsplan.formats.passes import map_lines, written
from usernsplan.holdings import own_ids
from usernsplan.mapping import KINDS
from usernsplan.model import AdoptRequest, Allocation, Quadlet, Quarantined, Unlisted
from usernsplan.planner.adopt import found, make_adopt

if TYPE_CHECKING:
    from usernsplan import HostState
    from usernsplan.planner.standing import Found

CORE = b"core:100000:1000000\n"
TWO = b"alice:100000:65536\nalice:165536:65536\n"
GAP = b"alice:100000:65536\nalice:300000:65536\n"
TURNED = b"alice:300000:65536\nalice:100000:65536\n"
DOCKERS = b"dockremap:300000:65536\ndockremap:100000:65536\n"
# Rules about lines and allocations that do not agree.
DRIFT = {"USN001", "USN002", "USN003", "USN050", "USN051", "USN052", "USN053"}


def adopted(host: HostState, *names: str) -> HostState:
    """The host after adopting: the bytes of no file change."""
    plan = make_adopt(host, AdoptRequest(names))
    assert {plan.changes, plan.account_commands, plan.records, plan.accounts_gone} == {()}
    after = carried_out(host, plan)
    assert files(after) == files(host)
    return after


def ours(host: HostState) -> dict[str, Allocation]:
    return {a.name: a for a in host.ledger.allocations}


def there(host: HostState, name: str) -> Found:
    [one] = [one for one in found(host) if one.name == name]
    return one


def mapped(program: str, name: str, *texts: str, grantee: str = "root") -> list[Unlisted]:
    """The lines of a container's map, written as lxc.idmap."""
    lines = []
    for number, text in enumerate(texts, 1):
        letter, *numbers = text.split()
        inside, start, count = map(int, numbers)
        for kind in KINDS if letter == "b" else [one for one in KINDS if one[0] == letter]:
            ids = (kind, start, start + count)
            path = f"/{name}/config"
            what = f"container {name}"
            lines.append(Unlisted(program, what, *ids, name, path, number, grantee, inside))
    return lines


# Lines of an owner.


@each(
    ("subuid", "subgid", "name", "lines", "held"),
    [
        (CORE, CORE, "core", ("b 0 100000 1000000",), IdRange(100000, 1000000)),
        (
            TWO,
            TWO,
            "alice",
            ("b 0 100000 65536", "b 65536 165536 65536"),
            IdRange(100000, 131072),
        ),
        (GAP, GAP, "alice", ("b 0 100000 65536", "b 65536 300000 65536"), None),
        # As Podman sorts them, each file for itself.
        (TURNED, GAP, "alice", ("b 0 100000 65536", "b 65536 300000 65536"), None),
        (
            b"alice:100000:65536\n",
            b"alice:200000:1000\n",
            "alice",
            ("u 0 100000 65536", "g 0 200000 1000"),
            None,
        ),
        # What many guides name, where other accounts are.
        *(
            (line, line, "alice", (f"b 0 {start} {count}",), IdRange(start, count))
            for start, count in ((10000, 65536), (1001, 1000000))
            for line in [f"alice:{start}:{count}\n".encode()]
        ),
        # usermod can write the uid of alice.
        (b"1000:100000:9\n", b"alice:100000:9\n", "alice", ("b 0 100000 9",), IdRange(100000, 9)),
        (
            b"1000:300000:9\nalice:100000:9\n",
            b"alice:100000:9\nalice:300000:9\n",
            "alice",
            ("b 0 100000 9", "b 9 300000 9"),
            None,
        ),
        # As Docker lays them: in the order of the file.
        (DOCKERS, DOCKERS, "default", ("b 0 300000 65536", "b 65536 100000 65536"), None),
        *(
            (line, line, line.partition(b":")[0].decode(), (f"b 0 {start} {count}",), held)
            for start, count in ((2147483647, 2147), (655361, 7208961))
            for line in (
                b"containers:%d:%d\n" % (start, count),
                b"kubelet:%d:%d\n" % (start, count),
            )
            for held in [IdRange(start, count)]
        ),
        (
            b"usernsplan-web:5000000:7\n",
            b"usernsplan-web:5000000:7\n",
            "web",
            ("b 0 5000000 7",),
            IdRange(5000000, 7),
        ),
    ],
)
def test_the_lines_of_an_owner_are_one_map(
    subuid: bytes, subgid: bytes, name: str, lines: tuple[str, ...], held: IdRange | None
) -> None:
    host = adopted(state(subuid, subgid), name)
    [made] = host.ledger.allocations
    assert (made.name, map_lines(made.mapping)) == (name, lines)
    assert (made.reserved_range, made.in_files, made.within) == (held, True, "")
    assert (made.strategy, made.published, made.passes) == ("per-container", "none", ())
    assert {one.code for one in check(Facts(host), DRIFT)} == set()
    # It is known now, and nothing is left to do.
    assert not make_adopt(host, AdoptRequest((name,))).changed
    assert there(host, name).known == name
    # What stood before stays when it is released.
    assert make_release(host, ReleaseRequest((name,))).changes == ()


@each(
    ("value", "owner"),
    [
        (None, "dockremap"),
        (b'{"userns-remap": "default"}', "dockremap"),
        (b'{"userns-remap": "dockremap"}', "dockremap"),
        (b'{"userns-remap": "997"}', "dockremap"),
        (b'{"userns-remap": "997:996"}', "dockremap"),
        (b'{"userns-remap": "alice:alice"}', "alice"),
        (b'{"userns-remap": "1000"}', "alice"),
    ],
)
def test_the_lines_of_dockers_remap_user_are_dockers_allocation(
    value: bytes | None, owner: str
) -> None:
    lines = DOCKERS.replace(b"dockremap", owner.encode())
    host = state(**same_lines(lines), **REMAPPED, daemon_json=value)
    made = ours(adopted(host, "default"))["default"]
    assert made.owner == owner
    assert made.mapping.uids.triples() == [(0, 300000, 65536), (65536, 100000, 65536)]


def test_dockers_lines_in_another_order_are_another_map_and_an_accounts_are_not() -> None:
    for lines, name, codes in ((DOCKERS, "default", {"USN051"}), (GAP, "alice", set[str]())):
        host = adopted(state(**same_lines(lines)), name)
        turned = b"".join(reversed(lines.splitlines(keepends=True)))
        after = replace(state(**same_lines(turned)), ledger=host.ledger)
        assert {one.code for one in check(Facts(after), DRIFT)} == codes


@each(
    ("subuid", "subgid", "name", "why"),
    [
        (b"bob:0x186a0:65536\n", b"bob:100000:65536\n", "bob", "readers disagree"),
        (b"alice:100000:65536\n", b"", "alice", "/etc/subgid has no line"),
        (b"", b"alice:100000:65536\n", "alice", "/etc/subuid has no line"),
        (b"alice:100000:9\nalice:100008:9\n",) * 2 + ("alice", "overlap in their host ids"),
        (b"alice:100000:9\nalice:100000:9\n",) * 2 + ("alice", "overlap in their host ids"),
        (b"alice:100000:0\n",) * 2 + ("alice", "grants no id"),
        (b"alice:4294967290:9\n",) * 2 + ("alice", "4294967"),
        (b"root:100000:65536\n",) * 2 + ("root", "not one map"),
        (b"lxd:100000:65536\n",) * 2 + ("lxd", "runs as root"),
        (b"4711:100000:65536\n",) * 2 + ("4711", "read as a uid"),
        (b"x:100000:65536\n",) * 2 + ("x", "not a container name"),
        (b"alice:0:65536\n",) * 2 + ("alice", "all its uids are the host's own"),
        (b"alice:500:70000\n",) * 2 + ("alice", "the host's own in part"),
        (b"".join(b"alice:%d:1\n" % n for n in range(100000, 100800, 2)),) * 2
        + ("alice", "400 extents"),
    ],
)
def test_what_is_no_map_is_not_adopted_and_the_place_and_the_reason_are_told(
    subuid: bytes, subgid: bytes, name: str, why: str
) -> None:
    host = state(subuid, subgid)
    one = there(host, name)
    assert (one.allocation, why in one.why, one.place.startswith("/etc/sub")) == (None, True, True)
    with pytest.raises(RefusedError, match="cannot be adopted: /etc/sub"):
        make_adopt(host, AdoptRequest((name,)))
    assert make_adopt(host, AdoptRequest(everything=True)).ledger.add == ()


def test_lines_that_no_program_reads_are_not_adopted() -> None:
    host = state(CORE, CORE, nsswitch=b"subid: sss\n", plugin="/lib/libsubid_sss.so")
    assert "do not read these lines" in there(host, "core").why


def test_a_host_of_another_strategy_adopts_nothing() -> None:
    host = state(CORE, CORE, allocations=[shared("web", (0, 2, 1), (3, 3, 65533))])
    with pytest.raises(RefusedError, match="strategy is shared"):
        make_adopt(host, AdoptRequest(("core",)))


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 4)), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 4)), min_size=1, max_size=6),
    st.sampled_from(["alice", "dockremap"]),
)
def test_any_lines_become_what_a_naive_model_lays(
    uids: list[tuple[int, int]], gids: list[tuple[int, int]], owner: str
) -> None:
    def lines(spans: list[tuple[int, int]]) -> bytes:
        return b"".join(f"{owner}:{100000 + a}:{n}\n".encode() for a, n in spans)

    def laid(spans: list[tuple[int, int]]) -> list[int]:
        order = spans if owner == "dockremap" else sorted(spans)
        return [100000 + a + step for a, n in order for step in range(n)]

    host = state(lines(uids), lines(gids))
    name = "default" if owner == "dockremap" else owner
    wanted = laid(uids), laid(gids)
    if any(len({*ids}) < len(ids) for ids in wanted):
        assert there(host, name).allocation is None
        return
    after = adopted(host, name)
    made = ours(after)[name]
    for kind, ids in zip(KINDS, wanted, strict=True):
        have = made.mapping[kind]
        assert [have.to_host(number) for number in range(len(ids) + 1)] == [*ids, None]
        assert {n for part in own_ids(made, kind) for n in range(part.start, part.stop)} == {*ids}
    assert {one.code for one in check(Facts(after), DRIFT)} == set()
    # A plan file of it changes nothing, here and on a host that has the same lines.
    spec = again(after)
    for one in (after, replace(host)):
        desired = decided(one, _text(spec))
        assert files(applied(one, desired)) == files(host)
    assert not decided(after, _text(spec)).pending


def _text(spec: object) -> str:
    from usernsplan.formats.spec_writer import text  # noqa: PLC0415 - beside its only use

    return text(spec)  # type: ignore[arg-type]


# Containers with a map of their own.


@each(
    ("texts", "passed", "held"),
    [
        (("b 0 100000 65536",), (), IdRange(100000, 65536)),
        (
            ("u 0 100000 65536", "g 0 100000 107", "g 107 104 1", "g 108 100108 65428"),
            ("g:104:107",),
            IdRange(100000, 65536),
        ),
        # Whoever shares three ids of people with the container.
        (
            ("b 0 100000 1604", "b 1604 1604 3", "b 1607 101607 63929"),
            ("b:1604-1606",),
            IdRange(100000, 65536),
        ),
        # In another order, and with the ids of the hole skipped.
        (("b 1001 100000 100", "b 1000 1000 1", "b 0 120000 1000"), ("b:1000",), None),
        # An account of the host in another place.
        (("b 0 100000 1000", "b 1000 1005 1"), ("b:1005:1000",), IdRange(100000, 1001)),
        # A container that begins low, where there is no account.
        (("b 0 10000 10000",), (), IdRange(10000, 10000)),
        # An account that only the directory has; a line of its own for one that nobody knows.
        (("b 0 100000 1000", "b 1000 700001 1"), ("b:700001:1000",), IdRange(100000, 1001)),
        (("b 0 100000 1000", "b 1000 800001 1"), ("b:800001:1000",), IdRange(100000, 1001)),
        # Without either, a single id is the container's.
        (("b 0 165535 1", "b 1 100000 65535"), (), None),
    ],
)
def test_ids_of_the_host_in_a_map_stay_the_hosts(
    texts: tuple[str, ...], passed: tuple[str, ...], held: IdRange | None
) -> None:
    lines = b"root:100000:100000\nroot:10000:20000\nroot:44:1\nroot:104:1\nroot:1000:1000\n"
    lines += b"root:700001:1\nroot:800001:1\n"
    known = Directory(User("ad", 700001, 700001), groups=[Group("ad", 700001)])
    host = state(**same_lines(lines), unlisted=mapped("LXC", "box", *texts), directory=known)
    said = {one.code for one in make_adopt(host, AdoptRequest(("box",))).findings}
    assert ("USN154" in said) == bool(passed)
    after = adopted(host, "box")
    made = ours(after)["box"]
    assert (written(made.passes), made.reserved_range) == (passed, held)
    assert (made.owner, made.within, made.in_files, made.found) == ("root", "root", False, ())
    assert {one.code for one in check(Facts(after), DRIFT)} == set()


@each(
    ("texts", "why"),
    [
        (("u 0 100000 9",), "no gids"),
        (("b 0 0 65536",), "the host's own"),
        (("b 0 100000 9", "b 5 200000 9"), "overlap in their container ids"),
        (("b 0 100000 9", "b 9 100005 9"), "overlap in their host ids"),
        (("b 0 300000 9",), "/etc/subuid grants root no 300000-300008"),
        (("b 0 500 70000",), "in part"),
        (("b 0 4294967290 9",), "4294967"),
    ],
)
def test_a_container_whose_map_cannot_be_is_told(texts: tuple[str, ...], why: str) -> None:
    lines = b"root:100000:199999\nroot:0:70000\n"
    host = state(**same_lines(lines), unlisted=mapped("LXC", "box", *texts))
    assert why in there(host, "box").why


def test_a_line_that_lxc_refuses_is_told() -> None:
    odd = Unlisted("LXC", "container box", "uid", 0, 0, "box", "/c", 7, "root", odd="b 0 9 9")
    unlisted = [*mapped("LXC", "box", "b 0 100000 9"), odd]
    one = there(state(**same_lines(b"root:100000:9\n"), unlisted=unlisted), "box")
    assert (one.allocation, one.place, one.why) == (
        None,
        "/c:7",
        "'b 0 9 9': LXC refuses this line",
    )


def test_lines_of_root_that_are_exactly_a_map_are_its_lines() -> None:
    for lines in (b"root:700000:65536\n", b"root:700000:32768\nroot:732768:32768\n"):
        unlisted = mapped("LXC", "box", "b 0 700000 65536")
        host = adopted(state(**same_lines(lines), unlisted=unlisted), "box")
        made = ours(host)["box"]
        assert (made.owner, made.within, made.in_files) == ("root", "", True)
        assert len(made.found) == 2 * lines.count(b"\n")
        assert make_release(host, ReleaseRequest(("box",))).changes == ()
        gone = make_release(host, ReleaseRequest(("box",), with_lines=True))
        assert [change.after for change in gone.changes] == [b"", b""]


def test_two_containers_with_the_same_ids_are_told_and_only_one_is_adopted() -> None:
    lines = b"root:100000:65536\n"
    unlisted = [
        one for name in ("101", "102") for one in mapped("Proxmox VE", name, "b 0 100000 65536")
    ]
    host = state(**same_lines(lines), unlisted=unlisted)
    assert [(one.name, one.others) for one in found(host) if one.is_new] == [
        ("101", ("102",)),
        ("102", ("101",)),
    ]
    plan = make_adopt(host, AdoptRequest(everything=True))
    assert plan.ledger.add == ()
    assert [f.code for f in plan.findings] == ["USN164"] * 3
    with pytest.raises(RefusedError, match="'101' and '102' both have 100000-165535"):
        make_adopt(host, AdoptRequest(("101", "102")))
    assert [f.code for f in make_adopt(host, AdoptRequest(("101",))).findings] == ["USN163"]
    after = adopted(host, "101")
    assert "'101' has 100000-165535" in there(after, "102").why


def test_a_name_that_is_taken_gets_its_account_or_program_in_front() -> None:
    lines = b"root:100000:200000\nalice:300000:65536\n"
    unlisted = [
        *mapped("LXC", "web", "b 0 100000 9"),
        *mapped("Proxmox VE", "web", "b 0 100010 9"),
        *mapped("LXC", "web", "b 0 300000 9", grantee="alice"),
        *mapped("LXC", "x", "b 0 100020 9"),
        *mapped("LXC", "containers", "b 0 100030 9"),
    ]
    host = state(**same_lines(lines), unlisted=unlisted, allocations=[per_container("web", 589824)])
    names = [one.name for one in found(host) if one.is_new]
    assert names == ["alice", "lxc-web", "proxmox-web", "lxc-x", "lxc-containers", "alice-web"]
    assert ours(adopted(host, "alice-web"))["alice-web"].within == "alice"
    # A second look finds it under the name that it has got.
    assert there(adopted(host, "alice-web"), "alice-web").known == "alice-web"


def test_what_the_ledger_has_is_known_by_its_map_or_its_lines() -> None:
    mine = per_container("db", 589824)
    unlisted = mapped("LXC", "other", "b 0 589824 536", "b 536 590360 65000")
    host = state(
        **same_lines(b"usernsplan-db:589824:65536\nroot:589824:65536\n"),
        unlisted=unlisted,
        allocations=[mine],
    )
    assert [one.known for one in found(host)] == ["db", "", "db"]
    with pytest.raises(UnknownNameError, match="nothing stands here"):
        make_adopt(host, AdoptRequest(("others",)))


def test_lines_of_ours_that_the_ledger_lost_come_back_with_roots() -> None:
    words = asked("web", engines=("lxc",))
    host = carried_out(state(), make_plan(state(), words))
    lost = replace(state(), subuid=host.subuid, subgid=host.subgid)
    made = ours(adopted(lost, "web"))["web"]
    [was] = host.ledger.allocations
    assert (made.owner, made.extra_owners, made.split_owners) == (
        was.owner,
        was.extra_owners,
        was.split_owners,
    )
    assert made.mapping == was.mapping


def test_a_range_in_quarantine_comes_back_to_its_name_and_to_no_other() -> None:
    lines = {name: f"{name}:700000:9\n".encode() for name in ("alice", "carl")}
    quarantined = [Quarantined("alice", IdRange(700000, 9), "2026")]
    host = state(**same_lines(lines["alice"]), quarantined=quarantined)
    assert adopted(host, "alice").ledger.quarantined == ()
    host = state(**same_lines(lines["carl"]), quarantined=quarantined)
    assert "quarantined for 'alice'" in there(host, "carl").why


def test_release_quarantines_each_id_that_was_its_own() -> None:
    host = adopted(state(b"alice:100000:9\nalice:300000:9\n", b"alice:200000:9\n"), "alice")
    plan = make_release(host, ReleaseRequest(("alice",), with_lines=True))
    assert [str(ids) for _, ids in plan.ledger.quarantine] == [
        "100000-100008",
        "200000-200008",
        "300000-300008",
    ]
    after = carried_out(host, plan)
    pool = IdRange(100000, 250000)
    taken = make_plan(after, asked("web", pool=pool, strategy=None, options={"size": 65536}))
    assert taken.allocations[0].reserved_range == IdRange(131072, 65536)
    # Slices have no lines to leave: files may carry their ids.
    unlisted = mapped("LXC", "box", "u 0 100000 9", "g 0 100020 9")
    host = adopted(state(**same_lines(b"root:100000:999\n"), unlisted=unlisted), "box")
    plan = make_release(host, ReleaseRequest(("box",)))
    assert [str(ids) for _, ids in plan.ledger.quarantine] == ["100000-100008", "100020-100028"]


# Podman's units.


def quadlet(name: str = "app", account: str = "", **said: object) -> Quadlet:
    return Quadlet(name, account, f"/{name}.container", 2, **said)  # type: ignore[arg-type]


@each(
    ("unit", "lines", "within"),
    [
        (quadlet(uids=("0:700000:9",)), ("b 0 700000 9",), ""),
        (
            quadlet(uids=("0:700000:9", "9:1000"), gids=("0:800000:9",)),
            ("u 0 700000 9", "u 9 1000 1", "g 0 800000 9"),
            "",
        ),
        # Intermediate ids: 0 is alice, and her lines follow from 1 on, sorted.
        (
            quadlet(account="alice", uids=("0:1:9", "1000:0:1")),
            ("b 0 100000 9", "b 1000 1000 1"),
            "alice",
        ),
        (
            quadlet(account="alice", gids=("0:65531:10",)),
            ("b 0 165530 6", "b 6 300000 4"),
            "alice",
        ),
        (quadlet(account="alice", uids=("0:@300000:9",)), ("b 0 300000 9",), "alice"),
    ],
)
def test_a_container_of_podman_with_a_map(
    unit: Quadlet, lines: tuple[str, ...], within: str
) -> None:
    host = replace(state(**same_lines(TURNED)), quadlets=(unit,))
    # Accounts choose names as they like.
    name = "alice-app" if unit.account else "app"
    after = adopted(host, name)
    made = ours(after)[name]
    assert (map_lines(made.mapping), made.within, made.in_files) == (lines, within, False)
    assert made.owner == (within or "usernsplan-app")
    assert not decided(after, _text(again(after))).pending
    assert decided(host, _text(again(after))).allocate.ledger.add == (
        replace(made, since="", event=0),
    )


@each(
    ("unit", "why"),
    [
        (quadlet(userns="auto:size=9"), "takes its ids from the lines of containers"),
        (quadlet(account="alice", userns="auto"), "takes its ids from the lines of alice"),
        (quadlet(userns="host"), "gives it no ids of its own"),
        (quadlet(account="alice", userns="keep-id:uid=9"), "all ids of the lines of alice"),
        (quadlet(whose_ids="alice"), "the whole map of the lines of alice"),
        (quadlet(uids=("+5:7:1",)), "is not CONTAINER:HOST:COUNT"),
        (quadlet(account="alice", uids=("0:131070:9",)), "none of those that alice has"),
        (quadlet(account="bob", uids=("0:1:9",)), "no account"),
        (quadlet(account="alice", uids=("0:@900000:9",)), "grants alice no 900000-900008"),
    ],
)
def test_a_container_of_podman_without_a_map_is_told(unit: Quadlet, why: str) -> None:
    host = replace(state(**same_lines(GAP)), quadlets=(unit,))
    assert why in there(host, "app").why


# Slices of what is adopted itself.


def test_lines_and_slices_of_them_can_both_be_adopted_but_no_two_slices_of_the_same_ids() -> None:
    unlisted = [
        *mapped("LXC", "c1", "b 0 100000 9", grantee="alice"),
        *mapped("LXC", "c2", "b 0 100005 9", grantee="alice"),
    ]
    host = state(**same_lines(GAP), unlisted=unlisted)
    assert [one.others for one in found(host)] == [(), ("alice-c2",), ("alice-c1",)]
    after = adopted(host, "alice", "alice-c1")
    assert "'alice-c1' has 100000-100008" in there(after, "alice-c2").why
    assert [*ours(adopted(adopted(host, "alice-c1"), "alice"))] == ["alice", "alice-c1"]


# Plan files.


def test_a_plan_file_adopts_and_then_changes_nothing() -> None:
    said = f"{PER_CONTAINER}containers: [{{name: core, adopt: true}}, web]\n"
    host = state(CORE, CORE)
    desired = decided(host, said)
    assert [(step.sign, step.name, "adopted" in step.text) for step in desired.steps] == [
        ("+", "core", True),
        ("+", "web", False),
    ]
    after = applied(host, desired)
    assert files(after)["/etc/subuid"] == CORE + b"usernsplan-web:1114112:65536\n"
    assert not decided(after, said).pending
    assert not decided(after, _text(again(after))).pending


@each(
    ("keys", "error", "words"),
    [
        ("map: [b 0 100000 9]", InvalidValueError, "made out of size, start and pass"),
        ("adopt: true, map: [b 0 100000 9]", RefusedError, "b 0 100000 1000000, and not b 0 1"),
        ("adopt: true, size: 9", InvalidValueError, "would change it"),
        ("adopt: true, pass: ['u:1000']", InvalidValueError, "would change it"),
        ("adopt: true, lines: false", InvalidValueError, "would change it"),
        ("adopt: true, start: 5", RefusedError, "5 is not what stands here: 100000"),
        ("adopt: true, within: alice", RefusedError, "alice is not what stands here"),
    ],
)
def test_a_plan_file_that_says_something_else_than_stands_is_refused(
    keys: str, error: type[Exception], words: str
) -> None:
    said = f"{PER_CONTAINER}containers: [{{name: core, {keys}}}]\n"
    host = state(CORE, CORE)
    for one in (host, adopted(host, "core")):
        with pytest.raises(error, match=words) as caught:
            decided(one, said)
        assert "p.yaml:2" in str(caught.value)


def test_a_plan_file_may_give_an_owners_lines_another_name() -> None:
    said = f"{PER_CONTAINER}containers: [{{name: web, owner: core, adopt: true}}]\n"
    host = state(CORE, CORE)
    after = applied(host, decided(host, said))
    assert (ours(after)["web"].owner, files(after)) == ("core", files(host))
    assert not decided(after, said).pending
    with pytest.raises(UnknownNameError):
        decided(host, f"{PER_CONTAINER}containers: [{{name: web, adopt: true}}]\n")


def test_export_writes_pools_of_any_size() -> None:
    for line in (b"containers:100000:1000000\n", b"kubelet:655360:7208960\n"):
        host = adopted(state(line, line), line.partition(b":")[0].decode())
        assert not decided(host, _text(again(host))).pending
        # An installed engine does not stumble over it.
        engine = "podman-auto" if b"containers" in line else "kubernetes"
        here = replace(host, engines=frozenset({engine}))
        assert "USN124" not in {f.code for f in make_plan(here, asked("web")).findings}


def test_the_accounts_of_the_host_that_lie_in_a_range_are_told() -> None:
    passwd = PASSWD + b"eve:x:100007:100007::/:/bin/sh\n"
    host = state(CORE, CORE, passwd=passwd, group=GROUP)
    [finding] = make_adopt(host, AdoptRequest(("core",))).findings
    assert (finding.code, "100007 is the account eve" in finding.message) == ("USN163", True)
