"""sync: a host does what the ledger of its fleet says of it, by its own rules; and its timer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.command import files_of, here, needs_root
from tests.documents import document_in
from tests.postgres import free_port
from usernsplan.host.files import layout_at
from usernsplan.ids import IdRange
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.ledger import codec, open_ledger
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


def server(fleet: FleetOfRoots) -> dict[str, Any]:
    """All that the server has, with the transaction that wrote each row."""
    return {
        table: sorted(map(str, fleet.query(f"SELECT xmin::text, t.* FROM usernsplan.{table} t")))  # noqa: S608
        for table in TABLES
    }


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
    [web] = ledger.state().allocations
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
    assert web.name == "web"


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
@pytest.mark.parametrize("lost", ["damaged", "missing", "older"])
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


# What a database may say, and no host does.

BAD_WISHES: list[tuple[str, str, int | None, str]] = [
    *((name, "per-container", None, "{}") for name in (
        "../up", "a\nb", "\x1b[2Jx", "", "x" * 300, "-x", "a:b", "default", "incus", "ü",
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
def test_no_wish_makes_a_database_root_of_a_host(fleet: FleetOfRoots) -> None:
    root = fleet.host("a")
    fleet.query("ALTER TABLE usernsplan.wish DROP CONSTRAINT wish_pkey")
    for name, strategy, start, options in BAD_WISHES:
        wish(fleet, name, strategy, start, options)
    fleet.query("UPDATE usernsplan.wish SET at = 'infinity' WHERE start = 0")
    fleet.query("UPDATE usernsplan.wish SET at = '4713-01-01 BC' WHERE start = 1")
    wish(fleet, "web", start=DB)
    said = synced(root, status=3)
    assert [one["name"] for one in said["done"]] == ["web"]
    assert len(said["refused"]) == len(BAD_WISHES)
    assert all(one["why"] for one in said["refused"])
    assert lines(root) == [f"usernsplan-web:{DB}:65536"]
    out, _ = run(root, "sync", status=3)
    assert "\x1b" not in out
    assert all(one.startswith(("refused", "  ")) for one in out.splitlines())


@needs_root
def test_no_claim_makes_a_database_root_of_a_host(fleet: FleetOfRoots) -> None:
    a, _ = fleet.host("a"), fleet.host("b")
    for name, start, stop in (
        ("low", 0, 65536),
        ("people", 1000, 66536),
        ("snaps", 524288, 589824),
    ):
        for kind in KINDS:
            fleet.query(
                "WITH c AS (INSERT INTO usernsplan.claim (name, hosts, kind, ids) "
                "VALUES (%s, int4range(NULL, NULL), %s, int8range(%s, %s)) RETURNING id) "
                "INSERT INTO usernsplan.hold SELECT id, 2, 'held' FROM c",
                name,
                kind,
                start if name != "people" else 66000,
                stop if name != "people" else 66001,
            )
    (a / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nalice:x:66000:66000::/:/bin/sh\n")
    for name in ("low", "people", "snaps"):
        wish(fleet, name, options='{"size": 1}' if name == "people" else "{}")
        _, err = run(a, *MAKE, name, *(("--size", "1") if name == "people" else ()), status=9)
        assert name in err
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
def test_a_run_that_only_the_server_knows_changes_nothing(fleet: FleetOfRoots) -> None:
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
    for files in rows:
        for text in (change, "nope", codec.change_text(LedgerChange(remove=("web",)))):
            fleet.query(
                "INSERT INTO usernsplan.intent VALUES (1, %s, 'x', 'nope', %s, %s)",
                number + 1,
                text,
                files,
            )
            assert synced(root, "--check", status=4)["agreed"] is True
            said = synced(root)
            assert [one["code"] for one in said["findings"]] == ["USN114"]
            assert fleet.query("SELECT * FROM usernsplan.intent") == []
            assert [(root / f"etc/{name}").read_bytes() for name in ("subuid", "subgid")] == [
                there
            ] * 2
            assert names(root) == {"web": WEB}


@needs_root
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
