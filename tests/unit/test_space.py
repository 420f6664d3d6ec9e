"""What is told of the ids of a host, and which claims are in each other's way. Worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.states import GROUP, PASSWD, in_one, per_container, same_lines, shared, state
from usernsplan import IdMap, IdRange, IdSet, Mapping, PerContainer, SingleUid
from usernsplan.errors import InvalidFileError
from usernsplan.model import Allocation, HostState, LedgerState, Quarantined, Reservation
from usernsplan.report.scale import counted, items
from usernsplan.space import BACKGROUND, Kinds, Space, capacity, space, usual

WEB = per_container("web", 589824)
WEB_LINES = same_lines(b"usernsplan-web:589824:65536\n")


def as_one(kinds: Kinds) -> str:
    return "both" if kinds == ("uid", "gid") else "".join(kinds)


def told(found: Space) -> list[tuple[str, str, str, str]]:
    """Everything but areas and the accounts that every host has, in short."""
    return [
        (s.origin, s.label, as_one(s.kinds), str(s.ids))
        for s in found.segments
        if s.origin not in BACKGROUND
        and s.label not in {"root", "bin", "alice", "nobody", "nogroup"}
    ]


def clashing(found: Space) -> list[tuple[str, str, str, str]]:
    return [
        (found.segments[c.first].label, found.segments[c.second].label, as_one(c.kinds), str(c.ids))
        for c in found.conflicts
    ]


def test_an_allocation_is_told_once_its_lines_are_it() -> None:
    found = space(state(allocations=[WEB], **WEB_LINES))
    assert told(found) == [("allocation", "web", "both", "589824-655359")]
    assert found.conflicts == ()


def test_a_line_of_the_owner_that_is_not_the_allocation_s_is_told() -> None:
    lines = b"usernsplan-web:589824:65536\nusernsplan-web:665536:10\n"
    found = space(state(allocations=[WEB], **same_lines(lines)))
    assert told(found)[1:] == [("subid", "usernsplan-web", "both", "665536-665545")]
    assert found.segments[-1].origin == "reserved"


def test_lines_are_one_where_both_files_agree_and_two_where_not() -> None:
    both, uid = b"carol:100000:10\n", b"carol:200000:10\n"
    found = space(state(both + uid, both + b"carol:200000:11\n"))
    assert told(found) == [
        ("subid", "carol", "both", "100000-100009"),
        ("subid", "carol", "gid", "200000-200010"),
        ("subid", "carol", "uid", "200000-200009"),
    ]
    assert found.segments[[s.label for s in found.segments].index("carol")].details == (
        "/etc/subuid:1, /etc/subgid:1",
    )
    assert found.conflicts == ()


def test_an_account_and_the_group_of_its_name_and_number_are_one() -> None:
    found = space(state())
    accounts = [
        (s.origin, s.label, as_one(s.kinds))
        for s in found.segments
        if s.origin in {"account", "group"}
    ]
    assert accounts == [
        ("account", "root", "both"),
        ("account", "bin", "both"),
        ("account", "alice", "both"),
        ("account", "nobody", "uid"),
        ("group", "nogroup", "gid"),
    ]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        # another's line over an allocation, in one file
        (
            state(
                b"usernsplan-web:589824:65536\nmallory:654536:2000\n",
                WEB_LINES["subgid"],
                allocations=[WEB],
            ),
            [("web", "mallory", "uid", "654536-655359")],
        ),
        # two lines of different owners
        (state(**same_lines(b"a:100000:10\nb:100005:10\n")), [("a", "b", "both", "100005-100009")]),
        # an account in a range: his uid in the uids, his group's number in the gids
        (
            state(
                **in_one("subuid", b"a:100000:10\n"),
                passwd=PASSWD + b"x:x:100003:1000::/:/bin/sh\n",
            ),
            [("a", "x", "uid", "100003")],
        ),
        (
            state(**in_one("subgid", b"a:100000:10\n"), group=GROUP + b"x:x:100003:\n"),
            [("a", "x", "gid", "100003")],
        ),
        (
            state(passwd=PASSWD + b"x:x:589826:1000::/:/bin/sh\n", allocations=[WEB]),
            [("web", "x", "uid", "589826")],
        ),
        # what is kept back was given to somebody
        (
            state(b"a:765536:10\n", quarantined=[Quarantined("old", IdRange(765541, 10), "")]),
            [("a", "old", "uid", "765541-765545")],
        ),
        # a line over what belongs to others by convention: once for the area, once for the account in it
        (
            state(b"a:995:10\n", b"a:995:10\n"),
            [
                ("system accounts", "a", "both", "995-999"),
                ("a", "people", "both", "1000-1004"),
                ("a", "alice", "both", "1000"),
            ],
        ),
    ],
)
def test_different_claims_on_the_same_ids_are_in_conflict(
    host: HostState, expected: list[tuple[str, str, str, str]]
) -> None:
    assert clashing(space(host)) == expected


LXC = Allocation(
    "box",
    "usernsplan-box",
    "per-container",
    WEB.mapping,
    WEB.reserved_range,
    extra_owners=("root",),
)
IDENTITY = shared("all", (0, 0, 65535))


@pytest.mark.parametrize(
    "host",
    [
        state(b"a:100000:10\n", b"b:100000:10\n"),  # one as uids, one as gids
        state(**same_lines(b"a:100000:10\na:100005:10\n")),  # one owner
        state(**same_lines(b"alice:100000:10\n1000:100005:10\n")),  # one owner, once by his uid
        state(**same_lines(b"usernsplan-box:589824:65536\nroot:589824:65536\n"), allocations=[LXC]),
        state(
            **same_lines(b"usernsplan-box:589824:65536\nroot:565536:1000000\n"), allocations=[LXC]
        ),
        state(**same_lines(b"root:1000:1\n")),  # LXD's raw.idmap
        state(**same_lines(b"_lxd:100000:10000000\nroot:100000:10000000\n")),  # Debian's lxd
        state(
            **same_lines(b"usernsplan-all:0:65535\n"), allocations=[IDENTITY]
        ),  # over everybody's ids, by design
        state(
            allocations=[WEB],
            namespaces=IdSet([IdRange(589824, 65536), IdRange(965536, 10)]),
            **WEB_LINES,
        ),
        state(
            **same_lines(b"alice:100000:65536\n"),
            namespaces=IdSet([IdRange(100000, 65536), IdRange(1000, 1)]),
        ),
        state(**same_lines(b"a:0:0\nb:0:0\n")),  # lines that grant nothing
    ],
)
def test_what_is_together_by_design_is_no_conflict(host: HostState) -> None:
    assert space(host).conflicts == ()


def test_root_s_line_over_an_allocation_that_is_not_root_s_is_one() -> None:
    host = state(
        **same_lines(b"usernsplan-web:589824:65536\nroot:565536:1000000\n"), allocations=[WEB]
    )
    assert clashing(space(host)) == [("root", "web", "both", "589824-655359")]


def test_a_shared_map_is_shown_and_its_filler_is_its_own() -> None:
    made = shared(
        "default",
        (0, 2, 1),
        (1, 589824, 2),
        (3, 3, 65533),
        owner="dockremap",
        reserved_range=IdRange(589824, 2),
    )
    lines = same_lines(b"dockremap:2:1\ndockremap:589824:2\ndockremap:3:65533\n")
    found = space(state(allocations=[made], **lines))
    assert (
        counted(i for i in items(found) if i.segment.origin == "shared")
        == "2 ranges of shared maps"
    )
    assert counted(i for i in items(found) if i.segment.origin == "reserved").endswith(
        " reserved by convention"
    )
    assert told(found) == [
        ("shared", "default", "both", "2"),
        ("shared", "default", "both", "3-65535"),
        ("filler", "default", "both", "589824-589825"),
    ]


def test_a_single_uid_s_block_is_told_whole_and_its_one_id_in_words() -> None:
    ids = IdMap.of((33, 1000000000, 1))
    made = Allocation(
        "app", "usernsplan-app", "single-uid", Mapping(ids, ids), IdRange(1000000000, 10000)
    )
    host = state(**same_lines(b"usernsplan-app:1000000000:1\n"), allocations=[made])
    [block] = [s for s in space(host).segments if s.origin == "allocation"]
    assert str(block.ids) == "1000000000-1000009999"
    assert block.details[0] == "container id 33 is host id 1000000000"


def test_namespaces_are_shown_where_no_allocation_has_their_ids() -> None:
    running = IdSet([IdRange(589824, 65536 + 5), IdRange(765536, 3)])
    found = space(state(allocations=[WEB], namespaces=running, **WEB_LINES))
    assert [str(s.ids) for s in found.segments if s.origin == "namespace"] == [
        "655360-655364",
        "765536-765538",
    ]
    # How many run there the host does not say: those side by side are joined.
    assert (
        counted(i for i in items(found) if i.segment.origin == "namespace")
        == "2 ranges of running namespaces"
    )
    [web] = [s for s in found.segments if s.origin == "allocation"]
    assert "a user namespace runs in it" in web.details


def test_a_reservation_is_told_and_nobody_may_have_its_ids() -> None:
    host = state(b"a:765536:10\n", passwd=PASSWD + b"x:x:765556:1000::/:/bin/sh\n")
    kept = LedgerState(
        reservations=(Reservation(IdRange(765541, 20), "NFS of the lab", "2026-01-01"),)
    )
    found = space(replace(host, ledger=kept))
    assert ("reservation", "NFS of the lab", "both", "765541-765560") in told(found)
    assert clashing(found) == [("a", "NFS of the lab", "uid", "765541-765545")]


def test_a_line_past_the_last_id_is_cut_off_and_an_odd_one_is_told_with_what_is_odd() -> None:
    found = space(state(b"a:4294967290:65536\nb:0x186a0:10\n"))
    assert told(found) == [
        ("subid", "b", "uid", "0-9"),
        ("subid", "b", "uid", "100000-100009"),
        ("subid", "a", "uid", "4294967290-4294967294"),
    ]
    [odd] = [s for s in found.segments if s.label == "b" and s.ids.start]
    assert "readers disagree" in odd.details[1]


def test_without_a_pool_the_picture_is_there_and_says_why() -> None:
    found = space(state(b"a:100000:10\n", login_defs=b"SUB_UID_MIN 5\nSUB_UID_MAX 4\n"))
    assert found.capacity is None
    assert "SUB_UID_MIN 5 is above SUB_UID_MAX 4" in found.problem
    assert ("subid", "a", "uid", "100000-100009") in told(found)
    with pytest.raises(InvalidFileError):
        capacity(state(login_defs=b"SUB_UID_MIN many\n"))
    assert space(state(login_defs=b"SUB_UID_MIN many\n")).useradd is None


def test_the_figures_of_a_pool() -> None:
    # Three slots of 65536, of which web has the first and what was released has the second.
    pool = IdRange(589824, 3 * 65536)
    host = state(
        allocations=[WEB], quarantined=[Quarantined("old", IdRange(655360, 65536), "")], **WEB_LINES
    )
    figures = capacity(host, pool=pool)
    assert (figures.used, figures.free.total(), figures.free.largest()) == (2 * 65536, 65536, 65536)
    assert (figures.more, figures.quarantined, figures.more_after_forget) == (1, 65536, 2)
    assert capacity(host, PerContainer(65537), pool).more == 0
    assert capacity(host, PerContainer(1), pool).more == 1


def test_what_is_kept_back_comes_back_only_where_nobody_else_has_it() -> None:
    host = state(b"a:655360:65530\n", quarantined=[Quarantined("old", IdRange(655360, 65536), "")])
    assert capacity(host, pool=IdRange(589824, 131072)).quarantined == 6


def test_what_the_next_container_would_be_given() -> None:
    ids = IdMap.of((0, 1000000000, 1))
    blocks = [
        Allocation(
            f"app{n}",
            f"usernsplan-app{n}",
            "single-uid",
            Mapping(ids, ids),
            IdRange(1000000000, size),
        )
        for n, size in enumerate((10000, 1))
    ]
    assert usual(state()) == PerContainer() == usual(state(allocations=[IDENTITY]))
    assert usual(state(), 5) == PerContainer(5)
    assert usual(state(allocations=blocks[:1])) == SingleUid()
    assert usual(state(allocations=blocks)) == SingleUid(1)
    assert usual(state(allocations=blocks), 7) == SingleUid(7)


def test_every_pair_of_lines_over_each_other_is_told() -> None:
    lines = b"".join(b"o%d:%d:%d\n" % (n, 100000 + n, 500 - n) for n in range(200))
    found = space(state(lines))
    assert found.is_complete
    assert len({(c.first, c.second) for c in found.conflicts}) == 200 * 199 // 2


def test_thousands_of_lines_over_each_other_are_told_of_a_few_each_and_of_all_their_ids() -> None:
    lines = b"".join(b"o%d:%d:%d\n" % (n, 100000 + n, 5000 - n) for n in range(2000))
    found = space(state(lines))
    assert not found.is_complete
    assert 100_000 <= len(found.conflicts) <= 100_000 + 20 * 2000
    assert len(found.in_conflict()) == 2000
    assert {str(ids) for ids in IdSet(c.ids for c in found.conflicts)} == {"100001-104999"}
