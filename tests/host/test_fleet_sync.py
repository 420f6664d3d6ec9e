"""sync: a host does what the ledger of its fleet says of it, by its own rules; and its timer."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.command import files_of, here, needs_root, slow
from tests.documents import document_in
from tests.examples import examples
from tests.postgres import free_port
from usernsplan import syncing, timing
from usernsplan.claims.sources import OF_CONTAINERS
from usernsplan.errors import LedgerUnreachableError, RefusedError
from usernsplan.formats.accounts import Accounts, Group, User
from usernsplan.host import booted, units
from usernsplan.host.files import layout_at
from usernsplan.ids import IdRange
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.ledger import codec, open_ledger, received
from usernsplan.ledger.fleet import FleetLedger
from usernsplan.mapping import KINDS
from usernsplan.model import Change, Intent, LedgerChange

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import FleetOfRoots

LEDGER = "var/lib/usernsplan/ledger.sqlite3"
MAKE = ("allocate", "--strategy", "per-container", "--engine", "podman")
# The pool of the first host begins here, and each range has 65536 ids.
WEB, DB, APP = 589824, 655360, 720896
TABLES = ("host", "claim", "hold", "event", "intent", "content", "wish", "own", "lease")


def run(root: Path, *words: str, status: int | None = 0) -> tuple[str, str]:
    return here(*words, "--root", root, status=status)


def synced(root: Path, *words: str, status: int = 0) -> dict[str, Any]:
    return document_in(run(root, "sync", "--json", *words, status=status)[0])


def names(root: Path) -> dict[str, int]:
    """The names of a host, each with its first id."""
    found = document_in(run(root, "list", "--json")[0])["allocations"]
    return {one["name"]: one["reserved_range"]["start"] for one in found}


def wish(  # noqa: PLR0917 - its columns
    fleet: FleetOfRoots,
    name: str,
    strategy: str = "per-container",
    start: int | None = None,
    options: str = "{}",
    host: str = "a",
) -> None:
    fleet.query(
        "INSERT INTO usernsplan.wish (host, name, strategy, start, options) "
        "SELECT number, %s, %s, %s, %s FROM usernsplan.host WHERE name = %s",
        name,
        strategy,
        start,
        options,
        host,
    )


def server(fleet: FleetOfRoots) -> list[tuple[Any, ...]]:
    """All that the server has, with the transaction that wrote each row."""
    each = (f"SELECT '{one}', xmin::text, t::text FROM usernsplan.{one} t" for one in TABLES)  # noqa: S608
    return sorted(fleet.query(" UNION ALL ".join(each)))


def lines(root: Path) -> list[str]:
    return (root / "etc/subuid").read_text().splitlines()


# What sync does.


@needs_root
def test_a_host_does_what_is_asked_once(fleet: FleetOfRoots) -> None:
    root = fleet.host("a")
    run(root, *MAKE, "old")
    wish(fleet, "web", start=DB)
    wish(fleet, "gone", "")
    wish(fleet, "old", "")
    before = files_of(root), server(fleet)

    for word in ("--check", "--dry-run"):
        said = synced(root, word, status=4 if word == "--check" else 0)
        assert [one["name"] for one in said["done"]] == ["web", "gone", "old"]
        assert (files_of(root), server(fleet)) == before, word

    said = synced(root)
    assert {(one["name"], one["ask"], str(one["reserved_range"])) for one in said["done"]} == {
        ("web", "allocate", str({"start": DB, "count": 65536})),
        ("gone", "release", "None"),
        ("old", "release", "None"),
    }
    assert (said["changed"], said["refused"]) == (True, [])
    assert names(root) == {"web": DB}
    assert lines(root) == [f"usernsplan-web:{DB}:65536"]
    assert ("web", "uid", DB, DB + 65536, "a", "held") in fleet.holds()
    assert ("old", "uid", WEB, WEB + 65536, "a", "quarantined") in fleet.holds()

    after = files_of(root), server(fleet)
    assert synced(root, "--check")["changed"] is False
    wish(fleet, "web", "")
    assert run(root, "sync")[0] == "released web\n"
    after = files_of(root), server(fleet)
    assert run(root, "sync")[0] == "This host is what the ledger of the fleet says of it.\n"
    assert (files_of(root), server(fleet)) == after


@needs_root
def test_what_is_refused_is_told_once_and_stops_nothing_else(fleet: FleetOfRoots) -> None:
    root = fleet.host("a")
    (root / "etc/passwd").write_text(
        f"root:x:0:0::/root:/bin/sh\nalice:x:{DB + 5}:100::/:/bin/sh\n"
    )
    wish(fleet, "alices", start=DB)
    wish(fleet, "web", start=WEB)
    out, _ = run(root, "sync", status=3)
    assert names(root) == {"web": WEB}
    assert "refused to allocate alices, which owner asked at " in out
    [[why]] = fleet.query("SELECT refused FROM usernsplan.wish")
    assert f"{DB}-{DB + 65535} is not free: {DB + 5}" in why

    before = server(fleet)
    [one] = synced(root, status=3)["refused"]
    assert (one["name"], one["why"]) == ("alices", why)
    assert server(fleet) == before
    # The reason is another one: the account is gone, and somebody has a line.
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (root / "etc/subuid").write_text(f"bob:{DB}:10\n" + (root / "etc/subuid").read_text())
    synced(root, status=3)
    [[other]] = fleet.query("SELECT refused FROM usernsplan.wish")
    assert f"{DB}-{DB + 9} is granted by a line" in other
    (root / "etc/subuid").write_text(f"usernsplan-web:{WEB}:65536\n")
    synced(root)
    assert names(root) == {"web": WEB, "alices": DB}


@needs_root
@pytest.mark.slow
def test_a_wish_gets_its_ids_or_nothing(fleet: FleetOfRoots) -> None:
    roots = {name: fleet.host(name) for name in "ab"}
    run(roots["a"], *MAKE, "web")
    # The fleet has other ids for this name; these ids are another name's; this host has the name with others.
    run(roots["b"], *MAKE, "mine", "--start", str(APP))
    for name, start in (("web", DB), ("other", WEB), ("mine", DB)):
        wish(fleet, name, start=start, host="b")
    wish(fleet, "two", start=DB, host="b")
    said = synced(roots["b"], status=3)
    assert {one["name"] for one in said["refused"]} == {"web", "other", "mine"}
    assert names(roots["b"]) == {"mine": APP, "two": DB}


@needs_root
def test_lines_come_back_and_what_people_have_to_mend_is_told(fleet: FleetOfRoots) -> None:
    root = fleet.host("a")
    run(root, *MAKE, "web", "db")
    (root / "etc/subuid").write_text(f"usernsplan-db:{DB}:65536\n")
    assert synced(root, "--check", status=4)["restored"] == ["web"]
    assert synced(root)["restored"] == ["web"]
    assert set(lines(root)) == {f"usernsplan-web:{WEB}:65536", f"usernsplan-db:{DB}:65536"}

    with (root / "etc/subuid").open("a") as file:
        file.write("usernsplan-web:900000:5\nusernsplan-nobody:901000:5\n")
    (root / "etc/docker").mkdir()
    (root / "etc/docker/daemon.json").write_text('{"userns-remap": "ghost"}')
    before = (root / "etc/subuid").read_bytes()
    for _ in range(2):
        said = synced(root)
        assert {"USN052", "USN053", "USN041"} <= {one["code"] for one in said["findings"]}
        assert said["changed"] is False
    assert (root / "etc/subuid").read_bytes() == before


@needs_root
def test_a_run_that_was_interrupted_here_is_mended(fleet: FleetOfRoots) -> None:
    root = fleet.host("a")
    run(root, *MAKE, "web")
    layout = layout_at(str(root))
    ledger = open_ledger(layout)
    after = f"usernsplan-web:{WEB}:65536\n".encode()
    ledger.begin(
        Intent(
            "usernsplan release web",
            codec.entry(_event_of(fleet)).actor,
            LedgerChange(remove=("web",), quarantine=(("web", IdRange(WEB, 65536)),)),
            tuple(Change(path, after, b"") for path in (SUBUID, SUBGID)),
        )
    )
    (root / "etc/subuid").write_bytes(b"")
    assert synced(root, "--check", status=4)["agreed"] is True
    said = synced(root)
    assert [one["code"] for one in said["findings"]] == ["USN114"]
    assert (names(root), lines(root), (root / "etc/subgid").read_text()) == ({}, [], "")
    assert fleet.query("SELECT * FROM usernsplan.intent") == []


@needs_root
def test_what_the_server_did_not_hear_it_is_told(fleet: FleetOfRoots) -> None:
    root = fleet.host("a")
    with mock.patch.object(FleetLedger, "_tell", side_effect=LedgerUnreachableError("cut")):
        run(root, *MAKE, "web", status=10)
    assert [one[-1] for one in fleet.holds()] == ["intended"] * 2
    assert lines(root) == [f"usernsplan-web:{WEB}:65536"]
    before = files_of(root), server(fleet)
    assert synced(root, "--check", status=4)["agreed"] is True
    assert (files_of(root), server(fleet)) == before
    assert synced(root)["agreed"] is True
    assert [one[-1] for one in fleet.holds()] == ["held"] * 2
    assert fleet.query("SELECT * FROM usernsplan.intent") == []
    assert synced(root)["changed"] is False


@needs_root
def test_a_release_that_a_user_would_not_get_is_refused(fleet: FleetOfRoots) -> None:
    root = fleet.host("a")
    run(root, *MAKE, "web", "db")
    (root / "etc/docker").mkdir()
    remap = '{"userns-remap": "usernsplan-web"}'
    (root / "etc/docker/daemon.json").write_text(remap)
    wish(fleet, "web", "")
    wish(fleet, "db", "")
    said = synced(root, status=3)
    [one] = said["refused"]
    assert (one["name"], one["ask"]) == ("web", "release")
    assert "without its lines Docker does not start" in one["why"]
    assert names(root) == {"web": WEB}
    assert (root / "etc/docker/daemon.json").read_text() == remap


@needs_root
@pytest.mark.slow
def test_what_is_asked_meanwhile_is_not_lost(fleet: FleetOfRoots) -> None:
    root = fleet.host("a")
    wish(fleet, "web")
    granted = syncing._granted

    def later(*words: Any, **options: Any) -> Any:  # noqa: ANN401 - those of the function
        plan = granted(*words, **options)
        fleet.query("UPDATE usernsplan.wish SET strategy = '', at = now()")
        return plan

    with mock.patch.object(syncing, "_granted", later):
        synced(root)
    assert names(root) == {"web": WEB}
    synced(root)
    assert names(root) == {}


def _event_of(fleet: FleetOfRoots) -> tuple[Any, ...]:
    [row] = fleet.query(
        "SELECT number, at, actor, command, changed FROM usernsplan.event ORDER BY number LIMIT 1"
    )
    return row


@needs_root
def test_a_host_of_its_own_and_one_without_the_server_change_nothing(fleet: FleetOfRoots) -> None:
    alone = fleet.root("alone", "")
    _, err = run(alone, "sync", status=9)
    assert f"usernsplan ledger join URL --root {alone}" in err
    _, err = run(alone, "sync", "--install-timer", status=9)
    assert "in no fleet" in err

    root = fleet.host("a")
    wish(fleet, "web")
    config = root / "etc/usernsplan/config.yaml"
    config.write_text(
        config.read_text().replace(f"port={fleet.server.port}", f"port={free_port()}")
    )
    before = files_of(root), server(fleet)
    for words in ((), ("--check",), ("--json",)):
        run(root, "sync", *words, status=10)
    assert (files_of(root), server(fleet)) == before


@needs_root
@pytest.mark.parametrize("lost", ["damaged", *slow("missing", "older")])
def test_a_host_that_lost_its_file_has_all_again(fleet: FleetOfRoots, lost: str) -> None:
    root = fleet.host("a")
    run(root, *MAKE, "web", "db")
    old = (root / LEDGER).read_bytes()
    (root / "srv").mkdir()
    (root / "srv/vol").mkdir()
    run(root, "fix-volume", str(root / "srv/vol"), "--container", "web", "--mode", "shift")
    run(root, "release", "db")
    whole = [run(root, *words)[0] for words in (("list",), ("show", "web"), ("history",))]
    if lost == "missing":
        (root / LEDGER).unlink()
    else:
        (root / LEDGER).write_bytes(b"damaged" if lost == "damaged" else old)
    before = server(fleet)
    assert synced(root, "--check", status=4)["agreed"] is True
    assert server(fleet) == before
    assert synced(root)["agreed"] is True
    assert [run(root, *words)[0] for words in (("list",), ("show", "web"), ("history",))] == whole
    assert synced(root)["changed"] is False


@needs_root
@pytest.mark.slow
def test_what_is_asked_on_another_host_is_done_here(fleet: FleetOfRoots) -> None:
    a, b = fleet.host("a"), fleet.host("b")
    fleet.query(f"GRANT usernsplan_operator TO h_a_{fleet.database}")
    (b / "etc/subuid").write_text(f"alice:{WEB}:65536\n")
    run(b, "sync")  # b says what it has of its own
    run(a, *MAKE[:3], "web", "--on", "a,b")
    assert names(a) == {"web": DB}
    assert synced(b)["done"][0]["reserved_range"] == {"start": DB, "count": 65536}
    assert names(b) == {"web": DB}
    run(a, "release", "web", "--everywhere")
    assert [one["ask"] for one in synced(b)["done"]] == ["release"]
    assert (names(a), names(b)) == ({}, {})
    assert lines(b) == [f"alice:{WEB}:65536"]
    assert synced(b, "--check")["changed"] is False


# What a database may say, and no host does.

BAD_WISHES: list[tuple[str, str, int | None, str]] = [
    *((name, "per-container", None, "{}") for name in (
        "../up", "a\nb", "\x1b[2Jx", "", "x" * 300, "-x", "a:b", "default", "ü",
    )),
    *(("bad", strategy, None, "{}") for strategy in ("shared", "nope", "a\nb")),
    *(("bad", "per-container", start, "{}") for start in (
        0, 1, 1000, 65535, -1, -(2**63), 2**63 - 1, 2**32 - 2, 2**31, 524288, 4294901760, DB + 1,
    )),
    *(("bad", "per-container", None, options) for options in (
        "", "nope", "[]", "null", '"size"', "NaN", '{"size": NaN}', '{"size": 1e400}', '{"size": true}',
        '{"size": "65536"}', '{"size": -1}', '{"size": 0}', '{"size": 99999999999999999999}',
        '{"size": 4294967295}', '{"passes": 0}', '{"passes": [["uid", [0, 0, 1]]]}', '{"align": 0}',
        '{"block": 1}', '{"size\\u0000": 1}', '{"\\ud800": 1}', "[" * 100_000, "{}" + " " * 20_000,
        '{"size": ' + "9" * 9000 + "}", '{"dockerroot": 0}', '{"identity": 1}',
    )),
    ("bad", "single-uid", None, '{"container-id": 4294967295}'),
    ("bad", "single-uid", 0, "{}"),
    ("bad", "shared", 0, '{"identity": 1}'),
]  # fmt: skip


@needs_root
@pytest.mark.parametrize("step", [5, *slow(1)])
def test_no_wish_makes_a_database_root_of_a_host(fleet: FleetOfRoots, step: int) -> None:
    root = fleet.host("a")
    fleet.query("ALTER TABLE usernsplan.wish DROP CONSTRAINT wish_pkey")
    wishes = BAD_WISHES[-1::-step]
    for name, strategy, start, options in wishes:
        wish(fleet, name, strategy, start, options)
    fleet.query("UPDATE usernsplan.wish SET at = 'infinity' WHERE start = 0")
    fleet.query("UPDATE usernsplan.wish SET at = '4713-01-01 BC' WHERE start = 1")
    wish(fleet, "web", start=DB)
    said = synced(root, status=3)
    assert [one["name"] for one in said["done"]] == ["web"]
    assert len(said["refused"]) == len(wishes)
    assert all(one["why"] for one in said["refused"])
    assert lines(root) == [f"usernsplan-web:{DB}:65536"]
    out, _ = run(root, "sync", status=3)
    assert "\x1b" not in out
    assert all(one.startswith(("refused", "  ")) for one in out.splitlines())


@needs_root
@pytest.mark.slow
def test_no_claim_makes_a_database_root_of_a_host(fleet: FleetOfRoots) -> None:
    a, _ = fleet.host("a"), fleet.host("b")
    for name, start, stop in (
        ("low", 0, 65536),
        ("people", 66000, 66001),
        ("snaps", 524288, 589824),
    ):
        for kind in KINDS:
            fleet.query(
                "WITH c AS (INSERT INTO usernsplan.claim (name, hosts, kind, ids) "
                "VALUES (%s, int4range(NULL, NULL), %s, int8range(%s, %s)) RETURNING id) "
                "INSERT INTO usernsplan.hold SELECT id, 2, 'held' FROM c",
                name,
                kind,
                start,
                stop,
            )
    (a / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nalice:x:66000:66000::/:/bin/sh\n")
    for name, size, why in (
        ("low", 65536, "below 65536"),
        ("people", 1, "66000 is an account"),
        ("snaps", 65536, "reserved for snapd"),
    ):
        wish(fleet, name, options=f'{{"size": {size}}}')
        _, err = run(a, *MAKE, name, "--size", str(size), status=9)
        assert why in err
    wish(fleet, "web")
    said = synced(a, status=3)
    assert ([one["name"] for one in said["done"]], len(said["refused"])) == (["web"], 3)
    assert [line.split(":")[0] for line in lines(a)] == ["usernsplan-web"]

    # Everything is taken, says the server: then this host gets nothing, and goes on.
    fleet.query("UPDATE usernsplan.taken_block SET ids = '{(,)}'")
    wish(fleet, "db")
    assert "db" in {one["name"] for one in synced(a, status=3)["refused"]}


def evil(after: bytes) -> str:
    """The files of a run that would write these lines over what stands there."""
    return codec.intent_row(
        Intent("x", _ROOT, LedgerChange(), tuple(Change(p, after, b"x:0:65536\n") for p in FILES))
    )[3]


FILES = (SUBUID, SUBGID)
_ROOT = codec._actor('{"uid": 0, "sudo_uid": null, "login_uid": null}')


@needs_root
@pytest.mark.parametrize("which", [0, *slow(1, 2, 3)])
def test_a_run_that_only_the_server_knows_changes_nothing(fleet: FleetOfRoots, which: int) -> None:
    root = fleet.host("a")
    run(root, *MAKE, "web")
    there = f"usernsplan-web:{WEB}:65536\n".encode()
    [[number, change]] = fleet.query("SELECT number, change FROM usernsplan.event")
    evils = [Change(path, b"root:0:65536\n" if path == SUBUID else b"", there) for path in FILES]
    rows = (
        codec.intent_row(Intent("x", _ROOT, LedgerChange(), tuple(evils)))[3],
        evil(there),
        "nope",
        '[["/etc/shadow", null, "eJwDAAAAAAE="]]',
    )
    release = codec.change_text(LedgerChange(remove=("web",)))
    files, text = rows[which], (change, release, "nope", release)[which]
    fleet.query(
        "INSERT INTO usernsplan.intent VALUES (1, %s, 'x', 'nope', %s, %s)", number + 1, text, files
    )
    assert synced(root, "--check", status=4)["agreed"] is True
    said = synced(root)
    assert [one["code"] for one in said["findings"]] == ["USN114"]
    assert fleet.query("SELECT * FROM usernsplan.intent") == []
    assert {(root / f"etc/{name}").read_bytes() for name in ("subuid", "subgid")} == {there}
    assert names(root) == {"web": WEB}


@needs_root
@pytest.mark.slow
def test_a_run_comes_back_with_the_file_if_it_is_one_of_this_host(fleet: FleetOfRoots) -> None:
    root = fleet.host("a")
    run(root, *MAKE, "web")
    run(root, *MAKE, "db")
    there = (root / "etc/subuid").read_bytes()
    before = f"usernsplan-web:{WEB}:65536\n".encode()
    release = LedgerChange(remove=("db",), quarantine=(("db", IdRange(DB, 65536)),))
    good = tuple(Change(path, there, before) for path in FILES)
    bad = (
        (release, (*good, Change("/etc/docker/daemon.json", None, b"{}"))),
        (release, tuple(Change(path, there, b"") for path in FILES)),
        (release, tuple(Change(path, there, before + b"x:0:65536\n") for path in FILES)),
        (
            release,
            tuple(Change(path, there, before + b"usernsplan-db:0:65536\n") for path in FILES),
        ),
        (release, tuple(Change(path, there, before + b"x\n") for path in FILES)),
        (LedgerChange(), good),
    )
    for change, changes in (*bad, (release, good)):
        (root / LEDGER).write_bytes(b"damaged")
        fleet.query(
            "INSERT INTO usernsplan.intent VALUES (1, 3, %s, %s, %s, %s)",
            *codec.intent_row(Intent("x", _ROOT, change, changes)),
        )
        # The kill was between its files.
        (root / "etc/subgid").write_bytes(
            before if changes is good and change is release else there
        )
        said = synced(root)
        assert {one["code"] for one in said["findings"]} == {"USN114"}
        assert fleet.query("SELECT * FROM usernsplan.intent") == []
        if change is release and changes is good:
            assert names(root) == {"web": WEB}
            assert (
                (root / "etc/subuid").read_bytes() == (root / "etc/subgid").read_bytes() == before
            )
        else:
            assert any("is not taken from there" in one["message"] for one in said["findings"])
            assert names(root) == {"web": WEB, "db": DB}
            assert (root / "etc/subuid").read_bytes() == there


def _at(row: str, *changes: tuple[int, object]) -> str:
    """A row of content with other values in some columns."""
    values = json.loads(row)
    for column, value in changes:
        values[column] = value
    return json.dumps(values)


_NO_MAP = "[[0, 0, 65536]]"
_HIGH = "[[0, 4294901759, 65536]]"
# Columns of codec.allocation_row, and what no host takes from a server.
BAD_ALLOCATIONS: list[tuple[tuple[int, object], ...]] = [
    ((3, _NO_MAP), (4, _NO_MAP)),
    *(((0, name),) for name in ("../x", "a/b", "a\nb", "", "x\0", "\ud800", 5, None, "x" * 300)),
    *(((1, owner),) for owner in ("../../root/x", "a:0:1\nb", "", "\0", "/etc/x", 7)),
    *(((2, strategy),) for strategy in ("shared", "nope", "")),
    ((3, _NO_MAP),),
    ((4, _NO_MAP),),
    ((3, "[[0, 589824, 65535], [65535, 0, 1]]"),),
    ((3, "[[0, 70000, 65536]]"),),
    ((3, _HIGH), (4, _HIGH)),
    ((3, "[[0, 524288, 65536]]"),),
    *(((3, text),) for text in ("nope", "[]", "[[0]]", '[["a", 1, 1]]', "[[0, 1e9, 1]]", "[" * 5000)),
    ((3, f"[[0, {10**30}, 1]]"),),
    ((5, 0),),
    ((5, 1000), (6, 1)),
    ((5, 10**30),),
    ((5, -1),),
    ((5, "589824"),),
    ((7, "\x1b[2J"),),
    ((8, 99),),
    ((8, -1),),
    ((8, 10**30),),
    ((9, '["../x"]'),),
    ((9, "nope"),),
    ((10, '[["/etc/shadow", "x"]]'),),
    ((13, "etc"),),
    ((14, '[["uid", 0, 589824, 65536]]'),),
    ((15, "../x"),),
    ((17, "nope"),),
]  # fmt: skip


class Lost:
    """A host that lost its file, and what the server has of it."""

    def __init__(self, fleet: FleetOfRoots) -> None:
        self.fleet, self.root = fleet, fleet.host("a")
        people = "root:x:0:0::/:/bin/sh\nalice:x:70001:70001::/:/bin/sh\n"
        (self.root / "etc/passwd").write_text(people)
        run(self.root, *MAKE, "web", "db")
        run(self.root, "release", "db")
        volume = self.root / "srv/vol"
        volume.mkdir(parents=True)
        run(self.root, "fix-volume", str(volume), "--container", "web", "--mode", "shift")
        (self.root / LEDGER).write_bytes(b"damaged")
        rows = fleet.query("SELECT what, value FROM usernsplan.content")
        self.good: dict[str, str] = dict(rows)
        self.files = self.now()

    def now(self) -> dict[str, Any]:
        """The files of the host, but for the moment of the last agreement."""
        return {name: it for name, it in files_of(self.root).items() if "fleet.json" not in name}

    def refuses(self, why: object) -> None:
        """Nothing comes back, and nothing is written, here or there."""
        before = server(self.fleet)
        _, err = run(self.root, "sync", status=9)
        assert "nothing comes back" in err, why
        assert "\n  " in err, why
        assert "ledger rebuild" in err, why
        assert (server(self.fleet), self.now()) == (before, self.files), why

    def refuses_row(self, what: str, value: str) -> None:
        set_to = "UPDATE usernsplan.content SET value = %s WHERE what = %s"
        self.fleet.query(set_to, value, what)
        self.refuses((what, value))
        self.fleet.query(set_to, self.good[what], what)

    def refuses_in(self, what: str, *changes: tuple[int, object]) -> None:
        self.refuses_row(what, _at(self.good[what], *changes))

    def comes_back(self) -> None:
        assert synced(self.root)["agreed"] is True
        assert names(self.root) == {"web": WEB}


@needs_root
def test_no_row_makes_a_database_root_of_a_host(fleet: FleetOfRoots) -> None:
    lost = Lost(fleet)
    lost.refuses_in("allocation", *BAD_ALLOCATIONS[0])
    [[change]] = fleet.query("SELECT change FROM usernsplan.event WHERE number = 1")
    fleet.query(
        "UPDATE usernsplan.event SET change = %s WHERE number = 1", change.replace(str(WEB), "0")
    )
    lost.refuses("an event")
    fleet.query("UPDATE usernsplan.event SET change = %s WHERE number = 1", change)
    lost.comes_back()


@needs_root
@pytest.mark.slow
def test_no_column_of_a_row_makes_a_database_root_of_a_host(fleet: FleetOfRoots) -> None:
    lost = Lost(fleet)
    for changes in BAD_ALLOCATIONS:
        lost.refuses_in("allocation", *changes)
    for bad in ((0, "../x"), (1, 0), (1, 1000), (2, 10**12), (3, "\x1b"), (4, 10**30), (5, "x")):
        lost.refuses_in("quarantine", bad)
    was = json.loads(json.loads(lost.good["quarantine"])[5])
    lost.refuses_in("quarantine", (5, json.dumps([*was[:3], _NO_MAP, *was[4:]])))
    path = {"hex": b"/a/../etc".hex()}
    former = f"[{_NO_MAP}, {_NO_MAP}]"
    for one in ((0, "x"), (0, {"hex": "00"}), (0, path), (1, "../x"), (6, former)):
        lost.refuses_in("volume", one)
    for text in ("nope", "{}", "null", "[]", "[" * 100_000, '[{"hex": 1}]', '[{"x": 1}]'):
        lost.refuses_row("allocation", text)

    insert = "INSERT INTO usernsplan.content VALUES (1, %s, 'x', %s)"
    # A table that is none; the same name twice; two names with the same ids.
    for what, text in (
        *((what, "[]") for what in ("nope", "event", "sqlite_master")),
        ("allocation", lost.good["allocation"]),
        ("allocation", _at(lost.good["allocation"], (0, "web2"))),
    ):
        fleet.query(insert, what, text)
        lost.refuses((what, text))
        fleet.query("DELETE FROM usernsplan.content WHERE key = 'x'")
    lost.comes_back()


@needs_root
@pytest.mark.slow
def test_no_event_makes_a_database_root_of_a_host(fleet: FleetOfRoots) -> None:
    lost = Lost(fleet)
    [row] = fleet.query(
        "SELECT at, actor, changed, change, number FROM usernsplan.event WHERE number = 1"
    )
    columns = ("at", "actor", "changed", "change", "number")
    for column, bad in (
        ("at", "../../../etc/x"),
        ("at", ""),
        ("actor", "nope"),
        ("actor", '{"uid": "x"}'),
        ("changed", "nope"),
        ("change", "nope"),
        ("change", "{}"),
        ("change", row[3].replace(str(WEB), "0")),
        ("number", 7),
        ("number", -1),
    ):
        change = f"UPDATE usernsplan.event SET {column} = %s WHERE number = %s"  # noqa: S608
        fleet.query(change, bad, 1)
        lost.refuses((column, bad))
        now = bad if column == "number" else 1
        fleet.query(change, row[columns.index(column)], now)
    [[event]] = fleet.query("SELECT event FROM usernsplan.host")
    for number in (2**63 - 1, 1):
        fleet.query("UPDATE usernsplan.host SET event = %s", number)
        lost.refuses(number)
        fleet.query("UPDATE usernsplan.host SET event = %s", event)
    lost.comes_back()


@needs_root
@pytest.mark.slow
def test_a_mount_is_not_taken_from_a_server(fleet: FleetOfRoots) -> None:
    root = fleet.host("a")
    run(root, *MAKE, "web")
    (root / LEDGER).write_bytes(b"damaged")
    maps = f"[[0, {WEB}, 65536]]"
    at, source = ({"hex": path.hex()} for path in (b"/srv/web", b"/etc"))
    row = [at, source, "web", "shift", "", maps, maps, "[]", 0, "mount", "", "x", "", 1]
    fleet.query("INSERT INTO usernsplan.content VALUES (1, 'mount', 'x', %s)", json.dumps(row))
    said = synced(root)
    assert any("/etc at /srv/web is not taken" in one["message"] for one in said["findings"])
    assert open_ledger(layout_at(str(root))).state().mounts == ()
    assert fleet.query("SELECT * FROM usernsplan.content WHERE what = 'mount'") == []
    assert synced(root)["changed"] is False


@needs_root
@pytest.mark.slow
def test_other_types_are_refused_too(fleet: FleetOfRoots) -> None:
    root = fleet.host("a")
    run(root, *MAKE, "web")
    for column in ("event", "stamp"):
        fleet.query(f"ALTER TABLE usernsplan.host ALTER COLUMN {column} DROP NOT NULL")
    [[event, stamp]] = fleet.query("SELECT event, stamp FROM usernsplan.host")
    before = files_of(root)
    for bad, text in ((None, stamp), (-1, stamp), (event, None)):
        fleet.query("UPDATE usernsplan.host SET event = %s, stamp = %s", bad, text)
        _, err = run(root, "sync", status=9)
        assert "what it has of this host" in err
    # The events of another machine, says the server.
    fleet.query("UPDATE usernsplan.host SET event = %s, stamp = 'x'", event)
    _, err = run(root, "sync", status=1)
    assert "another machine uses its name" in err
    fleet.query("UPDATE usernsplan.host SET stamp = %s", stamp)

    for column in ("name", "strategy", "options", "role", "at", "refused"):
        fleet.query(
            "ALTER TABLE usernsplan.wish DROP CONSTRAINT IF EXISTS wish_pkey, "
            f"ALTER COLUMN {column} DROP NOT NULL"
        )
        wish(fleet, "bad", start=0)
        fleet.query(f"UPDATE usernsplan.wish SET {column} = NULL WHERE {column} IS NOT NULL")  # noqa: S608
        synced(root, status=3)
        fleet.query("DELETE FROM usernsplan.wish")
    fleet.query("ALTER TABLE usernsplan.wish ALTER COLUMN start TYPE numeric")
    wish(fleet, "bad")
    fleet.query("UPDATE usernsplan.wish SET start = 655360.5")
    [one] = synced(root, status=3)["refused"]
    assert "is not an id" in one["why"]
    assert files_of(root) == before


# The pure part.

_odd = st.one_of(
    st.none(),
    st.integers(),
    st.text(max_size=20),
    st.sampled_from(
        ["web", "per-container", "{}", "[]", '{"size": 1}', "shared", "", "single-uid"]
    ),
)


@given(st.tuples(*[_odd] * 8))
@settings(max_examples=examples(200))
def test_any_wish_is_one_or_has_a_fault(row: tuple[Any, ...]) -> None:
    found = received.wish(row)
    if not found.fault:
        assert found.strategy in {"", "per-container", "single-uid"}
        assert found.start is None or found.start >= OF_CONTAINERS
        assert all(type(value) is int for _, value in found.options)


_ACCOUNTS = Accounts(users=(User("alice", 70001, 100),), groups=(Group("staff", 80000),))
_GOOD = [
    "web", "usernsplan-web", "per-container", "[[0, 589824, 65536]]", "[[0, 589824, 65536]]", 589824, 65536,
    "2026-01-01T00:00:00Z", 0, "[]", "[]", "[]", 1, "userdb", "[]", "", 0, "", 0,
]  # fmt: skip
_numbers = st.one_of(
    st.integers(-5, 2**33),
    st.sampled_from([0, 1, 65535, 65536, 70001, 80000, 524288, 2**31, 2**32 - 1]),
)
_maps = st.lists(
    st.tuples(st.integers(0, 10), _numbers, st.integers(1, 70000)), min_size=1, max_size=3
).map(json.dumps)


@given(
    st.dictionaries(
        st.integers(0, len(_GOOD) - 1), st.one_of(_odd, _numbers, _maps, _maps), max_size=4
    )
)
@settings(max_examples=examples(300))
def test_what_comes_back_has_no_id_of_the_host(changes: dict[int, Any]) -> None:
    row = json.dumps([changes.get(at, value) for at, value in enumerate(_GOOD)])
    with suppress(RefusedError):
        found = received.ledger([("allocation", "web", row)], [], 0, _ACCOUNTS, "there")
        [a] = found.state.allocations
        spans = [*a.mapping.uids.host_ranges(), *a.mapping.gids.host_ranges()]
        spans += [a.reserved_range] if a.reserved_range else []
        for ids in spans:
            assert ids.start >= 65536
            assert 70001 not in ids
            assert 80000 not in ids
            assert not ids.overlaps(IdRange(524288, 65536))
        assert "/" not in a.name + a.owner


def test_the_row_that_is_changed_above_comes_back() -> None:
    found = received.ledger([("allocation", "web", json.dumps(_GOOD))], [], 0, _ACCOUNTS, "there")
    assert [a.name for a in found.state.allocations] == ["web"]


# The timer.

UNITS = ("usernsplan-sync.service", "usernsplan-sync.timer")


@needs_root
def test_the_timer_is_installed_once_and_removed(fleet: FleetOfRoots) -> None:
    root = fleet.host("a")
    folder = root / "etc/systemd/system"
    before = files_of(root)
    assert document_in(run(root, "sync", "--install-timer", "--dry-run", "--json")[0])["changed"]
    run(root, "sync", "--install-timer", "--check", status=4)
    assert files_of(root) == before
    out, _ = run(root, "sync", "--install-timer")
    assert out == f"installed: {folder}/{UNITS[0]}, {folder}/{UNITS[1]}\n"
    assert (
        os.readlink(folder / "timers.target.wants" / UNITS[1]) == f"/etc/systemd/system/{UNITS[1]}"
    )
    assert not (folder / "timers.target.wants" / UNITS[0]).exists()
    service = (folder / UNITS[0]).read_text()
    assert f'ExecStart="{booted.interpreter()}" -I -m usernsplan sync\n' in service
    assert all((folder / name).stat().st_mode & 0o777 == 0o644 for name in UNITS)

    before = files_of(root)
    assert run(root, "sync", "--install-timer")[0] == "The timer is installed already.\n"
    run(root, "sync", "--install-timer", "--check")
    assert files_of(root) == before
    (folder / "timers.target.wants" / UNITS[1]).unlink()
    run(root, "sync", "--install-timer", "--check", status=4)
    assert run(root, "sync", "--install-timer")[0].startswith("installed")

    run(root, "sync", "--remove-timer")
    assert not [*folder.rglob("*usernsplan*")]
    assert run(root, "sync", "--remove-timer")[0] == "The timer is not installed.\n"
    run(root, "sync", "--install-timer", "--remove-timer", status=2)


@needs_root
@pytest.mark.slow
def test_a_unit_that_somebody_changed_stays(fleet: FleetOfRoots) -> None:
    root = fleet.host("a")
    run(root, "sync", "--install-timer")
    timer = root / "etc/systemd/system" / UNITS[1]
    timer.write_text(timer.read_text().replace("0/10", "0/1"))
    before = files_of(root)
    for word in ("--install-timer", "--remove-timer"):
        _, err = run(root, "sync", word, status=9)
        assert f"{timer} was changed" in err
        assert f"mv {timer} {timer}.old" in err
    assert files_of(root) == before


@needs_root
def test_systemd_reads_the_units(fleet: FleetOfRoots) -> None:
    if not os.path.exists("/usr/bin/systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    root = fleet.host("a")
    run(root, "sync", "--install-timer")
    done = subprocess.run(
        ["systemd-analyze", "verify", *(root / "etc/systemd/system" / name for name in UNITS)],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [text for text in done.stderr.splitlines() if "usernsplan-sync" in text]
    assert (done.returncode, said) == (0, []), done.stderr


@pytest.mark.slow
def test_all_that_the_timer_runs_is_looked_at() -> None:
    import psycopg  # noqa: PLC0415 - may be missing

    looked: list[str] = []

    def look(path: str) -> str:
        looked.append(path)
        return ""

    with mock.patch.object(booted, "_doubt", look):
        booted.refuse_unsafe(timing._MODULES, timing._PACKAGES)
    assert {booted.interpreter(), psycopg.__file__} <= {*looked}
    for name in ("cli/sync.py", "syncing.py", "ledger/fleet.py", "volume/__init__.py"):
        assert any(path.endswith(f"/usernsplan/{name}") for path in looked), name
    assert any("/yaml/" in path for path in looked)


@needs_root
@pytest.mark.parametrize("part", ["interpreter", *slow("folder")])
def test_the_timer_runs_nothing_that_others_can_change(
    fleet: FleetOfRoots, tmp_path: Path, part: str
) -> None:
    root = fleet.host("a")
    run(root, "sync", "--remove-timer")
    program = tmp_path / "home/bin/python"
    program.parent.mkdir(parents=True)
    # It names what it would read, as Python does.
    program.write_text(f'#!/bin/sh\nprintf %s "{program}"\n')
    program.chmod(0o755)
    os.chown(program if part == "interpreter" else program.parent, 1234, 1234)
    before = files_of(root)
    layout = layout_at(str(root))
    with (
        mock.patch.object(booted, "interpreter", return_value=str(program)),
        mock.patch.object(type(layout), "is_host", property(lambda _: True)),
        mock.patch.object(units, "has_systemd", return_value=True),
        pytest.raises(RefusedError, match="others can change it") as refused,
    ):
        timing.install(layout)
    assert str(program) in str(refused.value)
    assert "/opt/usernsplan" in refused.value.hint
    assert files_of(root) == before


def test_who_finds_a_damaged_file_is_told_what_brings_it_back(fleet: FleetOfRoots) -> None:
    root = fleet.host("a")
    here("allocate", "web", "--strategy", "per-container", "--root", root)
    (root / "var/lib/usernsplan/ledger.sqlite3").write_bytes(b"damaged")
    assert "sync" in here("list", "--root", root, status=1)[1].splitlines()[-1]
    here("sync", "--root", root)
    assert "web" in here("list", "--root", root)[0]
