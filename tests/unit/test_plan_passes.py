"""Host ids that pass through: what a request means, what is refused, which lines are granted, and what each opens.

The host of these tests has the groups render (104) and docker (998), and media as uid 2000 and gid 2001.
The range of the first name is 589824-655359, worked out in test_plan_allocate.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.each import each
from tests.unit.desired import again, applied, decided
from tests.unit.states import (
    GROUP,
    PASSWD,
    Directory,
    asked,
    carried_out,
    per_container,
    same_lines,
    state,
)
from usernsplan import (
    HostState,
    IdRange,
    IdSet,
    PerContainer,
    Plan,
    ReleaseRequest,
    Shared,
    SingleUid,
    make_plan,
    make_release,
)
from usernsplan.engines.base import allocate_again
from usernsplan.errors import (
    InvalidFileError,
    InvalidValueError,
    PoolExhaustedError,
    RefusedError,
    UsernsplanError,
)
from usernsplan.formats import accounts, passes, subid
from usernsplan.holdings import own_ids
from usernsplan.layout import Layout
from usernsplan.mapping import KINDS, Extent, Kind, Pass
from usernsplan.model import LedgerState, Quarantined, Reservation, Unlisted
from usernsplan.planner.desired import make_desired
from usernsplan.planner.rebuild import Given, LeftOut, make_rebuilt

USERS = PASSWD + b"media:x:2000:2001::/:/bin/sh\nbob:x:1001:1001::/:/bin/sh\n"
GROUPS = GROUP + b"render:x:104:\ndocker:x:998:\nmedia:x:2001:\nbob:x:1001:\n"


def host(lines: bytes = b"", **words: Any) -> HostState:
    return state(**same_lines(lines), passwd=USERS, group=GROUPS, **words)


def planned(on: HostState, *shown: str, name: str = "web", **words: Any) -> Plan:
    return make_plan(on, asked(name, passes=shown, **words))


def codes(plan: Plan) -> Counter[str]:
    return Counter(finding.code for finding in plan.findings)


def lines(on: HostState) -> tuple[str, str]:
    return on.subuid.raw.decode(), on.subgid.raw.decode()


# What a request means


def test_the_map_splits_around_a_pass_and_the_lines_are_those_of_the_map() -> None:
    plan = planned(host(), "g:104:107")
    [web] = plan.allocations
    assert web.mapping.uids.triples() == [(0, 589824, 65536)]
    assert web.mapping.gids.triples() == [(0, 589824, 107), (107, 104, 1), (108, 589932, 65428)]
    assert web.reserved_range == IdRange(589824, 65536)
    assert web.passes == (Pass("gid", Extent(107, 104, 1)),)
    assert lines(carried_out(host(), plan)) == (
        "usernsplan-web:589824:65536\n",
        "usernsplan-web:589824:107\nusernsplan-web:104:1\nusernsplan-web:589932:65428\n",
    )


# Each row says the same in several ways; the first is in the form of written().
SAME = (
    [("g:104:107",), ("g:render:107",), ("g:104:107", "g:render:107")],
    [("b:1000",), ("u:1000", "g:1000"), ("g:1000", "u:1000"), ("b:alice",), ("u:alice", "g:alice")],
    [
        ("b:1000-1005",),
        ("b:1000-1002", "b:1003-1005"),
        ("b:1002-1005", "b:1000-1003"),
        ("u:1000-1005", "g:1003-1005", "g:1000-1002:1000-1002"),
        ("b:1000-1005:1000",),
    ],
    [("u:2000", "g:2001"), ("b:media",), ("g:media", "u:media")],
    [("u:2000:7", "g:2001:7"), ("b:media:7",)],
)


@each("spellings", SAME)
def test_what_says_the_same_is_the_same(spellings: list[tuple[str, ...]]) -> None:
    first, *others = spellings
    made = carried_out(host(), planned(host(), *first))
    [web] = made.ledger.allocations
    assert passes.written(web.passes) == first
    for other in others:
        assert planned(host(), *other).allocations == planned(host(), *first).allocations
        assert not planned(made, *other).changed


@each(
    "others",
    [(), ("g:104",), ("u:104:107",), ("g:104:107", "u:1000"), ("g:104:106",)],
)
def test_other_passes_are_another_request(others: tuple[str, ...]) -> None:
    made = carried_out(host(), planned(host(), "g:104:107"))
    with pytest.raises(RefusedError, match="with other passes: g:104:107") as refused:
        planned(made, *others)
    assert refused.value.option == "pass"


def test_passes_on_a_name_that_has_none_are_another_request() -> None:
    made = carried_out(host(), planned(host()))
    with pytest.raises(RefusedError, match="with other passes: none"):
        planned(made, "u:1000")


def test_a_group_that_was_renumbered_is_another_request() -> None:
    made = carried_out(host(), planned(host(), "g:render:107"))
    moved = GROUPS.replace(b"render:x:104:", b"render:x:105:")
    there = replace(made, accounts=state(passwd=USERS, group=moved).accounts)
    with pytest.raises(RefusedError, match="with other passes"):
        planned(there, "g:render:107")


def test_the_command_that_made_it_makes_it_again() -> None:
    made = carried_out(host(), planned(host(), "b:media:7", "g:render:107"))
    command = allocate_again(made.ledger.allocations[0], Layout())
    assert command == (
        "usernsplan allocate --strategy per-container --pass u:2000:7 --pass g:2001:7 "
        "--pass g:104:107 web"
    )


def test_several_names_share_the_passes() -> None:
    plan = make_plan(host(), asked("web", "db", passes=("u:1000",)))
    assert [a.mapping.uids.to_host(1000) for a in plan.allocations] == [1000, 1000]
    assert [a.reserved_range for a in plan.allocations] == [
        IdRange(589824, 65536),
        IdRange(655360, 65536),
    ]


@each(
    ("shown", "size", "uids"),
    [
        ("u:1000:0", 65536, [(0, 1000, 1), (1, 589825, 65535)]),
        ("u:1000:65535", 65536, [(0, 589824, 65535), (65535, 1000, 1)]),
        ("u:1000", 1000, [(0, 589824, 1000), (1000, 1000, 1)]),
        ("u:1000", 500, [(0, 589824, 500), (1000, 1000, 1)]),
        ("u:1000:0", 1, [(0, 1000, 1)]),
        ("u:1000-1009:5", 10, [(0, 589824, 5), (5, 1000, 10)]),
    ],
)
def test_a_pass_at_the_edges_of_the_range_and_past_it(
    shown: str, size: int, uids: list[tuple[int, int, int]]
) -> None:
    [web] = planned(host(), shown, strategy=PerContainer(size=size)).allocations
    assert web.mapping.uids.triples() == uids
    assert web.mapping.gids.triples() == [(0, 589824, size)]
    assert web.reserved_range == IdRange(589824, size)


def test_an_account_of_a_directory_passes_by_name_and_by_number() -> None:
    known = Directory(
        accounts.User("carla", 200001105, 200000513),
        groups=[accounts.Group("staff of it", 200000513)],
    )
    on = host(nsswitch=b"passwd: files sss\n", directory=known)
    by_name = planned(on, "u:carla", "g:staff of it:50")
    assert by_name.allocations == planned(on, "u:200001105", "g:200000513:50").allocations
    assert "USN155" not in codes(by_name)
    assert codes(planned(on, "u:200001100"))["USN155"] == 1
    # Nobody asks a directory for a thousand accounts, and so nothing is known about them.
    assert "USN155" not in codes(planned(on, "u:300000000-300000999"))
    assert by_name.allocations[0].mapping.uids.to_host(200001105) == 200001105


# What is refused


@each(
    ("shown", "said", "hint"),
    [
        ("u:alcie", "u:alcie: there is no account 'alcie'", "did you mean alice?"),
        ("g:redner:5", "there is no group 'redner'", "did you mean render?"),
        ("b:render", "there is no account 'render'", "write g:render"),
        ("b:render:107", "there is no account 'render'", "write g:render:107"),
        ("u:4294967296000", "'4294967296000' is no id", "from 0 to 4294967294"),
        ("g:0104", "'0104' is no id", "without a zero in front"),
        ("b:1005-1003", "1003 comes before 1005", "write u:HOST"),
        ("b:nothere", "there is no account 'nothere'", "name the number: u:1000"),
        ("u:1000:5 u:1001:5", "container uid 5 would be host uids 1000 and 1001", "leave out"),
        ("b:1000-1005 u:2000:1003", "container uid 1003 would be host uids 1003 and 2000", ""),
        ("g:104:5 g:render:6", "host gid 104 would be container gids 5 and 6", "maps an id of"),
        ("u:4294967295", "no such range of ids", ""),
        ("u:1000:4294967295", "not an extent that the kernel accepts", ""),
    ],
)
def test_a_wrong_pass_is_wrong_usage(shown: str, said: str, hint: str) -> None:
    with pytest.raises(InvalidValueError, match=re.escape(said)) as refused:
        planned(host(), *shown.split())
    assert (refused.value.option, refused.value.allocation) == ("pass", "web")
    assert hint in refused.value.hint


def test_a_name_cannot_be_looked_up_below_another_root_with_a_directory() -> None:
    on = host(nsswitch=b"passwd: files sss\n", root="/srv/tree")
    with pytest.raises(InvalidValueError, match="can only be asked on the host itself"):
        planned(on, "u:carla")
    assert planned(on, "u:alice").allocations[0].mapping.uids.to_host(1000) == 1000


@each(
    ("shown", "said"),
    [
        ("u:65534", "host uid 65534 belongs to nobody"),
        ("g:65535:5", "host gid 65535 belongs to nobody"),
        ("b:65000-65600:0", "host uid 65534-65535 belongs to nobody"),
        ("u:100005", "host uid 100005 is not the host's to share: it is granted by a line"),
        ("g:165535:7", "host gid 165535 is not the host's to share"),
        ("b:99999-100000:5", "host uid 100000 is not the host's to share"),
        ("u:655361:5", "host uid 655361 is not the host's to share: it is allocated"),
        ("u:720901:5", "host uid 720901 is not the host's to share: it is quarantined"),
        ("u:1010", "host uid 1010 is not the host's to share: it is reserved"),
        ("u:800000:5", "host uid 800000 is not the host's to share: it is mapped by a running"),
        ("u:900000:5", "host uid 900000 is not the host's to share: it is used by systemd-nspawn"),
        ("u:524290:5", "host uid 524290 is not the host's to share: it is reserved for snapd"),
    ],
)
def test_what_is_not_the_hosts_is_refused(shown: str, said: str) -> None:
    machine = Unlisted("systemd-nspawn", "machine deb", "uid", 900000, 965536)
    on = host(
        b"alice:100000:65536\n",
        allocations=[per_container("db", 655360)],
        quarantined=[Quarantined("old", IdRange(720896, 65536), "")],
        namespaces=IdSet([IdRange(800000, 10)]),
        unlisted=[machine],
    )
    reserved = Reservation(IdRange(1010, 5), "the NFS server")
    on = replace(on, ledger=replace(on.ledger, reservations=(reserved,)))
    with pytest.raises(RefusedError, match=re.escape(said)) as refused:
        planned(on, shown)
    assert refused.value.option == "pass"


@each(
    ("shown", "on"),
    [
        # The account's own id, although a line of somebody else has it, too.
        ("u:1000", host(b"bob:1000:1\nroot:1000:1\n")),
        ("u:150000:5", state(**same_lines(b"x:100000:65536\n"), passwd=b"old:x:150000:9::/:\n")),
        # Every container may have it.
        ("g:104:107", host(namespaces=IdSet([IdRange(104, 1)]))),
        ("u:1000", host(namespaces=IdSet([IdRange(0, 65536)]))),
    ],
)
def test_what_is_the_hosts_may_pass_although_others_have_it(shown: str, on: HostState) -> None:
    assert planned(on, shown).changed


def test_two_containers_may_show_the_same_id() -> None:
    on = carried_out(host(), planned(host(), "g:104:107"))
    assert planned(on, "g:104:107", name="db").changed


def test_what_stands_is_not_judged_again() -> None:
    """What a host has is its own business: a group that went away does not stop a plan file."""
    made = carried_out(host(), planned(host(), "g:docker:5", "u:1010", pass_privileged=True))
    assert not planned(made, "g:998:5", "u:1010").changed


@each(
    ("shown", "said"),
    [
        ("u:0:5", "host uid 0 is root, which is the superuser"),
        ("u:root:5", "host uid 0 is root"),
        ("g:0:5", "host gid 0 is root"),
        ("g:docker", "host gid 998 is docker, which starts containers as the host's root"),
        ("g:990-999:5", "host gid 998 is docker"),
        ("b:0-9:100", "host uid 0 is root, which is the superuser of the host; host gid 0"),
        ("g:6:5", "host gid 6 is disk"),
        ("g:42:5", "host gid 42 is shadow"),
        ("g:kvm:5", "host gid 993 is kvm"),
    ],
)
def test_what_can_become_root_needs_a_flag_of_its_own(shown: str, said: str) -> None:
    on = state(passwd=USERS, group=GROUPS + b"kvm:x:993:\n")
    for yes in (False, True):
        with pytest.raises(RefusedError, match=re.escape(said)) as refused:
            planned(on, shown, yes=yes)
        assert "--pass-privileged" in refused.value.hint
        assert "pass-privileged: true" in refused.value.in_file
    permitted = planned(on, shown, pass_privileged=True)
    assert codes(permitted)["USN157"] >= 1


@each(
    "name",
    [
        "root",
        "disk",
        "docker",
        "lxd",
        "incus",
        "incus-admin",
        "shadow",
        "kvm",
        "kmem",
        "sudo",
        "wheel",
    ],
)
def test_a_mighty_group_is_known_by_its_name_whatever_its_number(name: str) -> None:
    on = state(group=f"{name}:x:777:\n".encode())
    with pytest.raises(RefusedError, match=f"host gid 777 is {name}"):
        planned(on, "g:777:5")


def test_a_mighty_group_of_a_directory_is_known_too() -> None:
    known = Directory(groups=[accounts.Group("docker", 30000)])
    on = host(nsswitch=b"passwd: files sss\n", directory=known)
    for shown in ("g:30000:5", "g:29990-30000:5"):
        with pytest.raises(RefusedError, match="host gid 30000 is docker"):
            planned(on, shown)


def test_host_root_as_container_root_is_not_called_an_identity_map() -> None:
    plan = planned(host(), "b:0", pass_privileged=True)
    assert codes(plan) == {"USN154": 1, "USN156": 2, "USN157": 2}
    assert plan.allocations[0].mapping.uids.triples() == [(0, 0, 1), (1, 589825, 65535)]


@each("shown", ["g:render:107", "g:video", "g:audio", "u:1000", "b:media", "g:6:5", "g:42:5"])
def test_what_has_no_power_passes_without_a_flag(shown: str) -> None:
    # Here disk and shadow have other numbers than elsewhere.
    more = b"video:x:44:\naudio:x:29:\ndisk:x:600:\nshadow:x:601:\n"
    assert "USN157" not in codes(planned(state(passwd=USERS, group=GROUPS + more), shown))


@each(
    ("strategy", "said"),
    [
        (Shared(), "with the strategy shared every id of the host passes through already"),
        (SingleUid(), "with the strategy single-uid a container is one id of its own"),
    ],
)
def test_another_strategy_has_no_passes(strategy: Shared | SingleUid, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said) as refused:
        planned(host(), "u:1000", strategy=strategy)
    assert refused.value.option == "pass"


def test_the_pool_of_an_engine_has_no_passes() -> None:
    with pytest.raises(InvalidValueError, match="the pool of kubernetes is for many containers"):
        make_plan(host(), asked(passes=("u:1000",), engines=("kubernetes",)))


def test_more_extents_than_the_kernel_takes_are_refused() -> None:
    every_second = [f"u:{number}" for number in range(1000, 1400, 2)]
    with pytest.raises(InvalidValueError, match="the kernel accepts") as refused:
        planned(host(), *every_second)
    assert refused.value.option == "pass"
    assert "pass fewer ids" in refused.value.hint
    # As one range they are one extent.
    assert planned(host(), "u:1000-1399").changed


def test_ids_that_this_container_lacks_are_refused() -> None:
    uids, gids = IdSet([IdRange(0, 700000)]), IdSet([IdRange(0, 104), IdRange(105, 699895)])
    on = replace(host(), exists=(uids, gids))
    with pytest.raises(PoolExhaustedError, match="host gid 104 does not exist here"):
        planned(on, "g:104:107")
    # The uid of that number exists.
    assert planned(on, "u:104:107").changed


# No range has an id that passes through


def test_a_range_keeps_clear_of_what_passes_through() -> None:
    on = host()
    plan = planned(on, "u:589900:5")
    assert [a.reserved_range for a in plan.allocations] == [IdRange(655360, 65536)]
    on = carried_out(on, plan)
    assert planned(on, name="db").allocations[0].reserved_range == IdRange(720896, 65536)


def test_two_names_of_one_request_keep_clear_of_each_others_passes() -> None:
    desired = decided(
        host(),
        "strategy: per-container\n"
        "containers: [{name: aa}, {name: bb, pass: ['u:589900:5']}, {name: cc, start: 720896}]\n",
    )
    assert [a.reserved_range for a in desired.allocate.allocations] == [
        IdRange(655360, 65536),
        IdRange(786432, 65536),
        IdRange(720896, 65536),
    ]
    said = "strategy: per-container\ncontainers: [{name: aa, start: 589824}, {name: bb, pass: ['u:589900:5']}]\n"
    with pytest.raises(
        RefusedError, match=r"p.yaml:2: containers.0..start: 589824-655359 has 589900"
    ):
        decided(host(), said)


def test_a_start_whose_range_has_the_pass_is_refused() -> None:
    with pytest.raises(RefusedError, match="720896-786431 has 720900, which passes") as refused:
        planned(host(), "u:720900", start=720896)
    assert refused.value.option == "start"


def test_the_ids_of_the_holes_stay_reserved() -> None:
    on = carried_out(host(), planned(host(), "g:104:107"))
    for asked_for in ({"start": 589931}, {"pool": IdRange(589824, 65536)}):
        with pytest.raises(UsernsplanError):
            make_plan(on, asked("db", strategy=PerContainer(size=1), **asked_for))
    with pytest.raises(RefusedError, match="host gid 589931 is not the host's to share"):
        planned(on, "g:589931:5", name="db")


def test_own_ids_are_the_whole_range_and_no_pass() -> None:
    [web] = planned(host(), "b:1000", "g:104:107").allocations
    assert [own_ids(web, kind) for kind in KINDS] == [IdSet([IdRange(589824, 65536)])] * 2


# What each opens


def test_what_an_id_opens_is_named() -> None:
    plan = planned(host(), "b:1000-1005", "g:104:107")
    [told] = [f for f in plan.findings if f.code == "USN154"]
    assert told.message == (
        "'web' shows ids of the host: uid 1000-1005 (account 1000 alice, 1001 bob); "
        "gid 104 (group render) as container gid 107; gid 1000-1005 (group 1000 alice, 1001 bob)"
    )


def test_an_admin_is_named_as_one() -> None:
    on = host()
    members = tuple(accounts.members(b"sudo:x:27:alice,carl\nusers:x:100:bob\n"))
    on = replace(on, accounts=replace(on.accounts, members=members))
    [told] = [f for f in planned(on, "u:1000").findings if f.code == "USN154"]
    assert "uid 1000 (account alice, a member of sudo)" in told.message


@each(
    ("shown", "code"),
    [
        ("u:1234", "USN155"),
        ("g:1234-1240", "USN155"),
        ("b:1000:0", "USN156"),
    ],
)
def test_what_may_be_a_mistake_is_warned_of(shown: str, code: str) -> None:
    assert codes(planned(host(), shown))[code] == (2 if shown.startswith("b:") else 1)


@each("shown", ["u:1000", "g:104:107", "b:1000-1005", "g:media"])
def test_an_ordinary_pass_is_no_warning(shown: str) -> None:
    assert codes(planned(host(), shown)) == {"USN154": 1}


def test_an_account_that_owns_the_lines_can_take_the_ids() -> None:
    told = planned(host(), "u:1001", "u:1002", owner="alice").findings
    [warning] = [f for f in told if f.code == "USN158"]
    assert "can take uid 1001-1002 of the host" in warning.message


# Docker


def test_docker_lays_the_three_lines_end_to_end() -> None:
    plan = make_plan(host(), asked(passes=("g:104:107",), daemon_config=False))
    on = carried_out(host(), plan)
    assert lines(on) == (
        "dockremap:589824:65536\n",
        "dockremap:589824:107\ndockremap:104:1\ndockremap:589932:65428\n",
    )
    assert codes(plan)["USN103"] == 1
    # useradd sorts the file, and the same command restores the order.
    rows = sorted(lines(on)[1].splitlines(keepends=True), key=lambda row: int(row.split(":")[1]))
    on_sorted = replace(on, subgid=subid.parse("".join(rows).encode()))
    mended = make_plan(on_sorted, asked(passes=("g:104:107",), daemon_config=False))
    assert "USN109" in codes(mended)
    assert lines(carried_out(on_sorted, mended)) == lines(on)


def test_docker_cannot_skip_ids_to_a_pass() -> None:
    with pytest.raises(RefusedError, match="it cannot skip ids") as refused:
        make_plan(host(), asked(passes=("u:1000:100000",)))
    assert "within its size" in refused.value.hint


# Lines of root


OF_WEB = "usernsplan-web:589824:107\nusernsplan-web:104:1\nusernsplan-web:589932:65428\n"
# Incus takes lines of 65536 ids or more, and the last one has fewer.
OF_ROOT = "root:589824:107\nroot:104:1\nroot:589932:65428\n"
ROOTS = (
    "usernsplan-web:589824:65536\nroot:589824:32768\nroot:622592:32768\n",
    f"{OF_WEB}{OF_ROOT}",
)


def for_lxc(on: HostState, *shown: str, name: str = "web") -> HostState:
    return carried_out(on, planned(on, *shown, name=name, engines=("lxc",)))


def released(on: HostState, *names: str) -> HostState:
    return carried_out(on, make_release(on, ReleaseRequest(names)))


def test_root_gets_the_lines_of_the_map_in_pieces() -> None:
    on = for_lxc(host(), "g:104:107")
    assert lines(on) == ROOTS
    assert not planned(on, "g:104:107", engines=("lxc",)).changed
    assert lines(released(on, "web")) == ("", "")


@each("before", ["", "root:104:1\n"])
def test_root_gets_the_lines_of_an_allocation_that_stands(before: str) -> None:
    on = replace(host(), subgid=subid.parse(before.encode()))
    on = for_lxc(carried_out(on, planned(on, "g:104:107")), "g:104:107")
    assert lines(on)[0] == ROOTS[0]
    assert sorted(lines(on)[1].splitlines()) == sorted(ROOTS[1].splitlines())
    assert lines(released(on, "web")) == ("", before)


def test_a_line_of_root_goes_with_the_last_that_needs_it() -> None:
    on = for_lxc(for_lxc(host(), "g:104:107"), "g:104:5", name="db")
    assert lines(on)[1].count("root:104:1\n") == 1
    assert "root:104:1\n" not in lines(on)[0]
    for first, last in (("web", "db"), ("db", "web")):
        one = released(on, first)
        assert lines(one)[1].count("root:104:1\n") == 1
        assert lines(released(one, last)) == ("", "")


@each(
    ("before", "while_granted"),
    [
        ("root:104:1\n", 1),
        ("root:104:1\nroot:104:1\n", 2),
        # newuidmap takes this one too, but an exact line needs no thought.
        ("root:100:10\n", 1),
    ],
)
def test_a_line_of_root_that_stood_before_stays(before: str, while_granted: int) -> None:
    first = replace(host(), subgid=subid.parse(before.encode()))
    for names in (("web",), ("web", "db"), ("db", "web")):
        on = first
        for name in sorted(names, reverse=True):
            on = for_lxc(on, "g:104:107", name=name)
        assert lines(on)[1].count("root:104:1\n") == while_granted
        for name in names:
            on = released(on, name)
        assert lines(on) == ("", before)


def test_a_small_line_of_root_does_not_keep_the_others_whole() -> None:
    """Incus gives the ids of a large line to its instances."""
    on = replace(host(), subgid=subid.parse(b"root:104:1\n"))
    on = for_lxc(on, "g:104:107")
    assert lines(on)[0] == ROOTS[0]


def test_passes_of_root_go_into_subgid_alone_if_the_uids_are_whole() -> None:
    [uids, gids] = lines(for_lxc(host(), "g:104:107"))
    assert "104:1\n" not in uids
    assert gids.count("104:1\n") == 2


# After a release


def test_a_released_name_gets_its_range_back_with_the_passes_of_the_request() -> None:
    on = carried_out(host(), planned(host(), "g:104:107"))
    first = on.ledger.allocations[0]
    gone = released(on, "web")
    same = planned(gone, "g:104:107")
    assert (same.allocations[0].mapping, same.allocations[0].event) == (first.mapping, first.event)
    other = planned(gone, "u:1000")
    assert other.allocations[0].reserved_range == first.reserved_range
    assert other.allocations[0].event == 0
    assert other.ledger.unkeep == (("web", IdRange(589824, 65536)),)


# Plan files


def test_a_plan_file_has_passes_and_the_permission() -> None:
    said = "strategy: per-container\ncontainers:\n- name: web\n  pass: ['g:docker:5', 'b:alice']\n"
    with pytest.raises(
        RefusedError, match=r"p.yaml:4: containers.0..pass: host gid 998"
    ) as refused:
        decided(host(), said)
    assert refused.value.hint == (
        "write 'pass-privileged: true' for this one if it may do that to this host"
    )
    desired = decided(host(), said + "  pass-privileged: true\n")
    on = applied(host(), desired)
    assert not decided(on, said).pending
    assert [step.text for step in desired.steps] == [
        "0-65535 -> 589824-655359, passes b 1000, g 998->5, owner usernsplan-web"
    ]


@each(
    ("said", "error"),
    [
        ("pass: ['u:alcie']", "p.yaml:4: containers.0..pass: u:alcie: there is no account"),
        ("pass: [x:5]", "p.yaml:4: containers.0..pass.0.: 'x:5' is no pass"),
        ("pass: 5", "p.yaml:4: containers.0..pass"),
        ("pass-privileged: 5", "p.yaml:4: containers.0..pass-privileged"),
    ],
)
def test_a_wrong_pass_in_a_plan_file_has_its_place(said: str, error: str) -> None:
    with pytest.raises((InvalidFileError, InvalidValueError), match=error):
        decided(host(), f"strategy: per-container\ncontainers:\n- name: web\n  {said}\n")


KIND = st.sampled_from(KINDS)
SHOWN = st.lists(
    st.tuples(KIND, st.integers(0, 60), st.integers(900, 960), st.integers(1, 4)), max_size=6
)


@given(SHOWN, st.integers(1, 80))
def test_lines_map_and_plan_file_are_what_a_naive_model_says(
    shown: list[tuple[Kind, int, int, int]], size: int
) -> None:
    base = 589824
    naive: dict[Kind, dict[int, int]] = {k: {n: base + n for n in range(size)} for k in KINDS}
    pairs = {(k, c + step, h + step) for k, c, h, count in shown for step in range(count)}
    words = [f"{k[0]}:{h}-{h + count - 1}:{c}" for k, c, h, count in shown]
    is_twice = any(
        len({(k, c) for k, c, _ in pairs if k == kind}) < len([1 for k, _, _ in pairs if k == kind])
        or len({(k, h) for k, _, h in pairs if k == kind})
        < len([1 for k, _, _ in pairs if k == kind])
        for kind in KINDS
    )
    ask: dict[str, Any] = {"strategy": PerContainer(size=size)}
    if is_twice:
        with pytest.raises(InvalidValueError, match="would be"):
            planned(host(), *words, **ask)
        return
    for kind, container, number in pairs:
        naive[kind][container] = number

    on = carried_out(host(), planned(host(), *words, **ask))
    [web] = on.ledger.allocations
    for kind in KINDS:
        mapped = {c: web.mapping[kind].to_host(c) for c in range(140)}
        assert mapped == {c: naive[kind].get(c) for c in range(140)}
        granted = [(x.start, x.stop) for x in on.subid(kind).lines if isinstance(x, subid.Grant)]
        assert sorted(n for start, stop in granted for n in range(start, stop)) == sorted(
            naive[kind].values()
        )
    assert not make_desired(on, again(on)).pending
    assert not planned(on, *reversed(words), **ask).changed
    # The same file makes the same on a host that has nothing.
    fresh = carried_out(host(), make_desired(host(), again(on)).allocate)
    assert [replace(a, since="", event=0) for a in fresh.ledger.allocations] == [
        replace(web, since="", event=0)
    ]
    assert lines(released(on, "web")) == ("", "")


# A lost ledger


def rebuilt(on: HostState) -> tuple[list[object], list[LeftOut]]:
    found = make_rebuilt(replace(on, ledger=LedgerState()), ())
    return [*found.change.add], [one for one in found.left_out if one.what.startswith("usernsplan")]


@each(
    "shown",
    [
        ("g:104:107",),
        ("b:1000",),
        ("b:1000:0",),
        ("u:1000", "g:104:107", "g:1000-1005"),
        ("u:1000:5", "u:1001:6", "u:2000:8"),
    ],
)
def test_a_lost_ledger_is_made_again_from_the_lines_around_passes(shown: tuple[str, ...]) -> None:
    on = carried_out(host(), planned(host(), *shown))
    [web] = on.ledger.allocations
    # The host of this test has no records.
    assert rebuilt(on) == ([replace(web, since="", event=0, published="none")], [])


def test_lines_that_show_no_one_map_are_left_out_with_words() -> None:
    for shown, size in (("g:104:65535", 65536), ("u:1000", 500)):
        on = carried_out(host(), planned(host(), shown, strategy=PerContainer(size=size)))
        made, [left] = rebuilt(on)
        assert (made, left.what) == ([], "usernsplan-web")
    # useradd sorted the file.
    on = carried_out(host(), planned(host(), "g:104:107"))
    rows = sorted(lines(on)[1].splitlines(keepends=True), key=lambda row: int(row.split(":")[1]))
    made, [left] = rebuilt(replace(on, subgid=subid.parse("".join(rows).encode())))
    assert (made, left.what) == ([], "usernsplan-web")
    assert "not in the order of the map" in left.why


def test_the_range_of_a_lost_map_with_passes_is_quarantined() -> None:
    [web] = planned(host(), "g:104:107").allocations
    run = Given("r1", "web", web.mapping, "shift", None, ("/srv/web",))
    found = make_rebuilt(host(), [run])
    assert found.change.quarantine == (("web", IdRange(589824, 65536)),)
