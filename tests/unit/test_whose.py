"""Whose an id is, on hosts that are values; every expectation is worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.states import PASSWD, per_container, shared, state
from usernsplan import IdMap, IdRange, Mapping
from usernsplan.formats import accounts
from usernsplan.ids import read_id
from usernsplan.model import (
    Actor,
    Allocation,
    HistoryEntry,
    LedgerState,
    Namespace,
    Quarantined,
    Reservation,
)
from usernsplan.report.whose import fields, line, line_of, paragraph, short
from usernsplan.whose import ids as whose
from usernsplan.whose.ids import Answer, Holder, IdContext

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Actor(0, 1000, None)
IMAGE = accounts.Accounts(
    (
        accounts.User("www-data", 33, 33),
        accounts.User("second", 33, 33),
        accounts.User("alone", 40, 77),
    ),
    (accounts.Group("www", 33), accounts.Group("staff", 50)),
)


def facts(
    subuid: bytes = b"",
    subgid: bytes = b"",
    *,
    ledger: LedgerState = LedgerState(),  # noqa: B008 - frozen
    passwd: bytes = PASSWD,
    namespaces: tuple[Namespace, ...] = (),
    history: tuple[HistoryEntry, ...] = (),
    root: str = "/",
) -> IdContext:
    host = state(subuid, subgid, passwd=passwd, root=root)
    return IdContext(
        host.layout,
        ledger,
        host.subuid,
        host.subgid,
        host.accounts,
        namespaces,
        history=history,
        image=IMAGE,
    )


def ask(number: int, known: IdContext) -> Answer:
    return whose.answers([number], known)[number]


def told(holders: Iterable[Holder]) -> list[tuple[str, object, int | None]]:
    """Each holder's kind, name and container id."""
    return [(one.kind, one.claim.holder, one.container_id) for one in holders]


def kinds(holders: Iterable[Holder]) -> list[str]:
    return [one.kind for one in holders]


def deed(at: str, *changed: str, number: int = 1) -> HistoryEntry:
    return HistoryEntry(at, ROOT, "usernsplan allocate", changed, number)


def test_an_allocation_tells_the_container_id_its_name_and_who_gave_it() -> None:
    web = replace(per_container("web", 1310720), since="T", event=1)
    entry = deed("T", "/etc/subuid: + usernsplan-web:1310720:65536")
    lines = b"usernsplan-web:1310720:65536\n"
    answer = ask(1310753, facts(lines, lines, ledger=LedgerState((web,)), history=(entry,)))
    for holders, name in ((answer.uid, "www-data"), (answer.gid, "www")):
        [found] = holders
        assert found.claim.allocation == web
        assert found.claim[:2] == (1310720, 1376256)
        assert found[1:] == (33, name, entry)
    assert not answer.is_free


def test_the_ids_beside_a_range_are_nobodys() -> None:
    web = per_container("web", 1310720)
    known = facts(ledger=LedgerState((web,)))
    assert [ask(n, known).is_free for n in (1310719, 1310720, 1376255, 1376256)] == [
        True,
        False,
        False,
        True,
    ]


def test_a_block_that_is_kept_has_no_container_id_but_for_the_one_that_is_mapped() -> None:
    ids = IdMap.of((33, 1000000000, 1))
    app = Allocation(
        "app", "usernsplan-app", "single-uid", Mapping(ids, ids), IdRange(1000000000, 10000)
    )
    known = facts(ledger=LedgerState((app,)))
    [mapped] = ask(1000000000, known).uid
    assert (mapped.claim[:2], mapped[1:]) == ((1000000000, 1000000001), (33, "www-data", None))
    [kept] = ask(1000009999, known).uid
    assert kept.claim.allocation == app
    assert (kept.claim[:2], kept[1:]) == ((1000000000, 1000010000), (None, None, None))
    assert ask(1000010000, known).is_free


def test_a_line_of_ours_is_told_as_the_allocation_and_another_as_its_owners() -> None:
    web = per_container("web", 589824)
    lines = b"usernsplan-web:589824:65536\nalice:589824:65536\nusernsplan-web:589826:1\n"
    known = facts(lines, b"", ledger=LedgerState((web,)), root="/r")
    assert told(ask(589826, known).uid) == [
        ("allocation", "web", 2),
        ("subid", "alice", None),
        ("subid", "usernsplan-web", None),
    ]
    found = ask(589824, known).uid[1].claim
    assert (found.path, found.number, found[:2]) == ("/r/etc/subuid", 2, (589824, 655360))
    assert fields(ask(589824, known).uid[1])["problem"] is None
    assert kinds(ask(589826, known).gid) == ["allocation"]


def test_lines_that_roots_or_further_owners_have_for_an_allocation_are_ours() -> None:
    box = replace(per_container("box", 589824), extra_owners=("root",))
    lines = b"usernsplan-box:589824:65536\nroot:589824:65536\n"
    known = facts(lines, lines, ledger=LedgerState((box,)))
    assert kinds(ask(589824, known).uid) == ["allocation"]


def test_an_owner_may_be_written_as_a_number() -> None:
    web = per_container("web", 589824)
    passwd = PASSWD + b"usernsplan-web:x:4000:4000::/:/bin/sh\nbob:x:1001:1001::/:/bin/sh\n"
    known = facts(
        b"4000:589824:65536\n1001:231072:65536\n77777:231072:1\n",
        ledger=LedgerState((web,)),
        passwd=passwd,
    )
    # The number of the allocation's owner: the line is ours.
    assert kinds(ask(589824, known).uid) == ["allocation"]
    found = [fields(one) for one in ask(231072, known).uid]
    assert [(one["owner"], one["account"]) for one in found] == [("1001", "bob"), ("77777", None)]
    assert line_of(ask(231073, known).uid[0]) == "1001 (bob) (/etc/subuid:2)"


def test_which_container_of_a_pool_has_an_id_is_not_known() -> None:
    # As of "allocate --engine podman-auto": podman gives the second container 655360 on, and there 655393 is 33.
    ids = IdMap.of((0, 589824, 327680))
    pool = Allocation(
        "containers", "containers", "per-container", Mapping(ids, ids), IdRange(589824, 327680)
    )
    known = facts(ledger=LedgerState((pool,)))
    [found] = ask(655393, known).uid
    assert (found.pool, found.container_id, found.container_name) == ("podman-auto", None, None)
    assert "65569" not in paragraph(655393, ask(655393, known), known.layout, None)
    assert short([found], 655393, None) == "the pool containers of podman-auto"
    assert (fields(found)["pool"], fields(found)["container_id"]) == ("podman-auto", None)


def test_a_line_that_only_some_read_so_is_told_as_that_in_few_words_too() -> None:
    known = facts(b"bob:0x50000:10\n")
    assert line(0, ask(0, known), None).split("uid: ")[1].startswith("perhaps bob (/etc/subuid:1)")


def test_an_odd_line_is_told_with_what_it_could_mean() -> None:
    known = facts(b"# 100\nbob:0x64:10\ncarl:100\n")
    [odd] = [fields(one) for one in ask(105, known).uid if one.kind == "subid"]
    assert (odd["line"], odd["owner"]) == (2, "bob")
    assert odd["range"] == {"start": 100, "count": 10}
    assert "readers" in odd["problem"]
    # moby takes a number that it cannot read for 0.
    found = [one.claim[:2] for one in ask(5, known).uid if one.kind == "subid"]
    assert found == [(0, 10)]


def test_a_line_that_readers_take_for_overlapping_ranges_is_told_once() -> None:
    known = facts(b"bob:0x5:10\n")
    assert kinds(ask(7, known).uid).count("subid") == 1


def test_accounts_and_groups_have_their_side_only() -> None:
    passwd = PASSWD + b"ghost:x:70000:70001::/:/bin/sh\ntwin:x:70000:1000::/:/bin/sh\n"
    known = facts(passwd=passwd)
    found = ask(70000, known)
    assert told(found.uid) == [("account", "ghost", None), ("account", "twin", None)]
    assert found.gid == ()
    # No group has this gid: the account has it.
    assert ask(70001, known).uid == ()
    assert told(ask(70001, known).gid) == [("account", "ghost", None)]
    assert told(ask(1000, known).gid)[0] == ("group", "alice", None)


def test_a_running_namespace_tells_the_id_in_it() -> None:
    uids, gids = IdMap.of((0, 765536, 1000)), IdMap.of((5, 865536, 10))
    one = Namespace(1, 0, None, (10, 11), Mapping(uids, gids))
    empty = Namespace(2, 0, None, (12,), None)
    known = facts(namespaces=(one, empty))
    assert (told(ask(765569, known).uid), ask(765569, known).gid) == ([("namespace", "1", 33)], ())
    assert (ask(865545, known).uid, told(ask(865545, known).gid)) == ((), [("namespace", "1", 14)])


def test_what_is_reserved_released_or_kept_by_convention_is_told_last() -> None:
    ledger = LedgerState(
        (),
        (Quarantined("old", IdRange(665536, 10), "T"),),
        reservations=(Reservation(IdRange(665541, 10), "the NAS"),),
    )
    answer = ask(665543, facts(ledger=ledger))
    assert kinds(answer.uid) == ["reservation", "quarantine"]
    assert told(answer.uid) == told(answer.gid)
    [kept] = ask(61184, facts()).uid
    assert kept.kind == "reserved"
    assert "DynamicUser" in kept.claim.holder


def test_a_shared_map_is_told_where_it_maps_the_id_to_itself() -> None:
    web = shared("web", (0, 2, 1), (3, 3, 65533))
    known = facts(ledger=LedgerState((web,)), passwd=b"")
    found = {
        n: [one.container_id for one in ask(n, known).uid if one.kind == "allocation"]
        for n in (1, 2, 3, 65535)
    }
    assert found == {1: [], 2: [0], 3: [3], 65535: [65535]}


def test_the_deed_is_the_event_that_made_the_allocation() -> None:
    web = replace(per_container("web", 589824), since="T", event=2)
    mine = deed("T", number=2)
    assert whose.giver(web, (deed("T"), mine, deed("T", number=3))) == mine
    assert whose.giver(web, (deed("T"),)) is None
    # An upgraded ledger may not know the event: its number then only gives the order.
    assert whose.giver(web, (deed("S", number=2), deed("T", number=3))) is None
    assert whose.giver(per_container("web", 589824), (mine,)) is None


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("33", (33, 33, 589857, 589857)),
        ("65536", (65536, 65536, None, None)),
        ("www-data", (33, 33, 589857, 589857)),
        ("alone", (40, 77, 589864, 589901)),
        ("staff", (None, 50, None, 589874)),
    ],
)
def test_the_other_way(asked: str, expected: tuple[int | None, ...]) -> None:
    found = whose.from_container(asked, per_container("web", 589824), IMAGE)
    assert found
    assert found == (asked, *expected)


@pytest.mark.parametrize("asked", ["nobody-knows", "4294967295", "-1", "0x21", "033", "", "\uff13"])
def test_no_id_and_no_name_is_none(asked: str) -> None:
    assert whose.from_container(asked, per_container("web", 589824), IMAGE) is None
    assert read_id(asked) is None


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("4294967294", 4294967294), ("65534", 65534)]
)
def test_an_id_is_decimal(text: str, number: int) -> None:
    assert read_id(text) == number


def test_an_extent_tells_each_part_of_it_and_what_is_nobodys() -> None:
    web = per_container("web", 589824)
    known = facts(b"alice:565536:20000\n", b"", ledger=LedgerState((web,)))
    [(extent, parts, free)] = whose.Ranges(known).shares(IdMap.of((0, 575536, 20000)), "uid")
    assert extent.host == 575536
    found = [(part.start, part.stop, part.holder.kind) for part in parts]
    assert found == [(589824, 595536, "allocation"), (575536, 585536, "subid")]
    assert list(free) == [IdRange(585536, 4288)]
    [(_, parts, _)] = whose.Ranges(known).shares(IdMap.of((0, 575536, 20000)), "gid")
    assert kinds(part.holder for part in parts) == ["allocation"]
