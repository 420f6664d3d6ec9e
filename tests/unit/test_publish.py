"""Which ranges are published, under which names, and what becomes of accounts that are ours."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.each import each
from tests.unit.states import (
    GROUP,
    PASSWD,
    asked,
    carried_out,
    per_container,
    published,
    same_lines,
    state,
)
from usernsplan import PerContainer, RefusedError, make_plan, make_release
from usernsplan.formats import userdb
from usernsplan.formats.accounts import ABOUT, accounts, groups, users
from usernsplan.formats.accounts import published as published_in
from usernsplan.holdings import records
from usernsplan.model import Record, ReleaseRequest, Userdb
from usernsplan.planner.repair import make_repair
from usernsplan.strategies import Shared, SingleUid

OURS = b"usernsplan-web:x:589824:589824:container ids (usernsplan):/nonexistent:/usr/sbin/nologin\n"
LINE = b"usernsplan-web:589824:65536\n"


def codes(plan: object) -> list[str]:
    return [finding.code for finding in plan.findings]  # type: ignore[attr-defined]


def signs(plan: object) -> list[tuple[str, str, int]]:
    return [(c.sign, *c.record) for c in plan.records]  # type: ignore[attr-defined]


def test_a_record_is_what_systemd_documents() -> None:
    found = userdb.entries(Record("usernsplan-web", 589824))
    assert list(found) == [
        "usernsplan-web.user",
        "usernsplan-web.group",
        "589824.user",
        "589824.group",
    ]
    # Fields and values: systemd.io/USER_RECORD and /GROUP_RECORD.
    user = json.loads(found["usernsplan-web.user"])
    assert (user["userName"], user["uid"], user["gid"]) == ("usernsplan-web", 589824, 589824)
    assert (user["disposition"], user["locked"]) == ("container", True)
    assert (user["homeDirectory"], user["shell"]) == ("/nonexistent", "/usr/sbin/nologin")
    assert "privileged" not in user
    group = json.loads(found["usernsplan-web.group"])
    assert (group["groupName"], group["gid"]) == ("usernsplan-web", 589824)
    assert found["589824.user"] == "usernsplan-web.user"
    assert found["589824.group"] == "usernsplan-web.group"


def test_each_65536_ids_have_a_record() -> None:
    assert list(records(per_container("web", 589824, 65536 * 2 + 1))) == [
        ("usernsplan-web", 589824),
        ("usernsplan-web--1", 655360),
        ("usernsplan-web--2", 720896),
    ]
    # systemd looks at multiples of 65536, so the one inside an odd range counts.
    assert list(records(per_container("web", 165536))) == [
        ("usernsplan-web", 165536),
        ("usernsplan-web--1", 196608),
    ]


@each("size", [65536, 65537, 200000])
def test_systemd_nsresourced_finds_an_account_and_a_group_wherever_it_could_begin(
    size: int,
) -> None:
    # nsresourcework.c: allocate_now takes 65536 ids from a multiple of 65536 on, and uid_is_available asks only for
    # the account and the group of this base.
    plan = make_plan(state(), asked("web", "db", strategy=PerContainer(size)))
    there = {name for change in plan.records for name in userdb.entries(change.record)}
    taken = [e.host_range for a in plan.allocations for e in a.mapping.uids]
    bases = {base for ids in taken for base in range(ids.start, ids.stop, 65536)}
    assert len(bases) == 2 * -(-size // 65536)
    assert not any(base % 65536 for base in bases)
    assert {f"{base}.{what}" for base in bases for what in ("user", "group")} <= there


def test_a_container_is_published_and_its_release_takes_the_record_away() -> None:
    plan = make_plan(state(), asked("web"))
    assert signs(plan) == [("+", "usernsplan-web", 589824)]
    assert [a.published for a in plan.ledger.add] == ["userdb"]
    host = carried_out(state(), plan)
    assert not make_plan(host, asked("web")).changed
    gone = make_release(host, ReleaseRequest(("web",)))
    assert signs(gone) == [("-", "usernsplan-web", 589824)]


@each(
    "request_",
    [
        asked("web", publish="none"),
        asked("web", strategy=PerContainer(65535)),
        asked("web", strategy=SingleUid()),
        asked("web", strategy=Shared()),
        asked("web", strategy=Shared(identity=True)),
        # Owners that are, or become, accounts.
        asked("web", owner="alice"),
        asked("web", owner="root"),
        asked("web", daemon="web"),
        asked("web", engines=("docker-instance",)),
        asked(),
    ],
)
def test_these_are_not_published(request_: object) -> None:
    plan = make_plan(state(), request_)  # type: ignore[arg-type]
    assert plan.records == ()
    assert {a.published for a in plan.ledger.add} == {"none"}


def user(name: str, uid: int) -> bytes:
    return PASSWD + b"%s:x:%d:%d::/home/x:/bin/sh\n" % (name.encode(), uid, 7)


@each(
    "host",
    [
        state(passwd=user("usernsplan-web--1", 7)),
        state(group=GROUP + b"usernsplan-web--1:x:7:\n"),
        state(group=GROUP + b"usernsplan-web:x:7:\n"),
        replace(state(), userdb=Userdb(frozenset({"589824.user"}), {"589824.user": "bob.user"})),
        replace(
            state(),
            userdb=Userdb(
                frozenset({"usernsplan-web.user"}), {"usernsplan-web.user": b'{"uid": 5}'}
            ),
        ),
        # Another allocation's record stands under that name.
        state(allocations=[per_container("web--1", 786432)]),
    ],
)
def test_what_is_taken_is_not_published_and_told(host: object) -> None:
    plan = make_plan(host, asked("web", strategy=PerContainer(131072)))  # type: ignore[arg-type]
    assert [one for one in signs(plan) if one[0] == "+"] == []
    assert "USN151" in codes(plan)
    assert [a.published for a in plan.ledger.add] == ["none"]


@each("owner", ["a@b", "1web", "web.", "x" * 250])
def test_an_owner_that_no_account_can_have(owner: str) -> None:
    plan = make_plan(state(), asked("web", owner=owner))
    can_be = owner == "web."
    assert bool(plan.records) == can_be
    assert ("USN151" in codes(plan)) != can_be


def test_a_symlink_is_refused_unless_nothing_is_published() -> None:
    host = replace(state(), userdb=Userdb(is_folder=False))
    with pytest.raises(RefusedError, match="symlink"):
        make_plan(host, asked("web"))
    assert make_plan(host, asked("web", publish="none")).ledger.add


def test_an_older_allocation_is_published_by_the_same_command() -> None:
    old = replace(per_container("web", 589824), published="none")
    host = state(**same_lines(LINE), allocations=[old])
    plan = make_plan(host, asked("web"))
    assert [a.published for a in plan.ledger.update] == ["userdb"]
    assert signs(plan) == [("+", "usernsplan-web", 589824)]
    assert plan.changes == ()
    back = make_plan(carried_out(host, plan), asked("web", publish="none"))
    assert signs(back) == [("-", "usernsplan-web", 589824)]
    assert [a.published for a in back.ledger.update] == ["none"]


def test_a_lost_record_comes_back_and_a_foreign_one_stays() -> None:
    web = per_container("web", 589824)
    host = state(**same_lines(LINE), allocations=[web])
    lost = replace(host, userdb=Userdb(host.userdb.names - {"589824.group"}))
    again = [("+", "usernsplan-web", 589824)]
    assert signs(make_plan(lost, asked("web"))) == again
    assert signs(make_repair(lost)) == again
    assert make_plan(lost, asked("web")).ledger == make_plan(host, asked("web")).ledger

    foreign = {"usernsplan-web.user": b'{"userName": "usernsplan-web", "uid": 7}'}
    taken = replace(host, userdb=Userdb(host.userdb.names, foreign))
    assert make_repair(taken).records == ()
    assert codes(make_repair(taken)) == ["USN126"]


def test_an_account_of_ours_is_no_account() -> None:
    made = accounts(
        users(PASSWD + OURS), groups(GROUP + b"usernsplan-web:x:589824:\n"), published_in(OURS)
    )
    assert made.user("usernsplan-web") is None
    assert made.group("usernsplan-web") is None
    assert made.published == (("usernsplan-web", 589824, 589824),)
    # It adopts the range of its own line.
    host = state(**same_lines(LINE), passwd=PASSWD + OURS, group=GROUP)
    plan = make_plan(host, asked("web", start=589824))
    assert [a.mapping.uids.to_host(0) for a in plan.ledger.add] == [589824]


@each(
    "line",
    [
        OURS.replace(b"/usr/sbin/nologin", b"/bin/bash"),
        OURS.replace(b"/nonexistent", b"/home/web"),
        OURS.replace(b"usernsplan)", b"someone)"),
    ],
)
def test_an_account_that_only_looks_like_ours_is_an_account(line: bytes) -> None:
    assert list(published_in(line)) == []


def test_passwd_makes_a_group_and_an_account_and_takes_both_away() -> None:
    plan = make_plan(state(), asked("web", publish="passwd"))
    nowhere = ["--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
    assert plan.account_commands == (
        ("groupadd", "--system", "--gid", "589824", "usernsplan-web"),
        (
            "useradd",
            "--system",
            *nowhere,
            "--comment",
            "container ids (usernsplan)",
            "--uid",
            "589824",
            "--gid",
            "589824",
            "usernsplan-web",
        ),
    )
    assert plan.records == ()
    web = replace(per_container("web", 589824), published="passwd")
    host = state(**same_lines(LINE), passwd=PASSWD + OURS, allocations=[web])
    assert not make_plan(host, asked("web")).changed
    assert make_release(host, ReleaseRequest(("web",))).accounts_gone == (
        ("usernsplan-web", 589824),
    )
    # Somebody made a real account of it: it stays.
    theirs = state(**same_lines(LINE), passwd=user("usernsplan-web", 589824), allocations=[web])
    assert make_release(theirs, ReleaseRequest(("web",))).accounts_gone == ()
    with pytest.raises(RefusedError, match="not moved to userdb"):
        make_plan(host, asked("web", publish="userdb"))


def test_where_nss_systemd_is_missing_it_is_told() -> None:
    assert "USN152" in codes(make_plan(state(nsswitch=b"passwd: files\n"), asked("web")))
    for seen in (b"passwd: files systemd\n", b""):
        assert "USN152" not in codes(make_plan(state(nsswitch=seen), asked("web")))


@each(
    "raw",
    [
        b"",
        b"[",
        b"[" * 100_000,
        b'{"userName": 5, "uid": 5}',
        b'{"userName": "x", "uid": "5"}',
        b'{"userName": "x", "uid": true}',
        b'{"userName": "x", "uid": 4294967296}',
        b'{"userName": "x", "uid": ' + b"9" * 5000 + b"}",
        b"\xff\xfe",
        b"null",
    ],
)
def test_what_is_no_record_is_nobody(raw: bytes) -> None:
    assert userdb.user(raw) is None
    assert userdb.group(raw) is None


@each("value", [{}, [], [ABOUT], 5, None])
def test_a_record_whose_description_is_no_text_is_not_ours(value: object) -> None:
    for key in ("realName", "description"):
        assert not userdb.is_ours(json.dumps({"groupName": "bob", "gid": 7, key: value}).encode())
    assert userdb.is_ours(json.dumps({"realName": value, "description": ABOUT}).encode())


def test_a_record_without_a_group_has_the_group_of_its_number() -> None:
    assert userdb.user(b'{"userName": "bob", "uid": 70000}') == ("bob", 70000, 70000)
    assert userdb.user(b'{"userName": "bob", "uid": 7, "gid": 8, "x": [1]}') == ("bob", 7, 8)
    assert userdb.group(b'{"groupName": "bob", "gid": 70000}') == ("bob", 70000)


def test_published_is_what_the_test_helper_says() -> None:
    assert published([per_container("web", 589824)]).names == {
        *userdb.entries(Record("usernsplan-web", 589824))
    }
