"""The commands that look, with --host and --fleet, and what they say where the server is away."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from tests.command import here, needs_root
from tests.documents import document_in
from tests.each import each
from tests.postgres import FleetOfRoots, Postgres
from usernsplan.layout import FLEET
from usernsplan.ledger import reachable, views
from usernsplan.ledger.postgres import Server
from usernsplan.ledger.reachable import Place, places

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = needs_root

MAKE = ("allocate", "--strategy", "per-container", "--engine", "podman")
# The pool begins here, and each range has 65536 ids.
WEB, DB, BIG = 589824, 655360, 720896


def made(fleet: FleetOfRoots) -> dict[str, Path]:
    """web on a and b, db on a, big on c and released there; an account of b lies in db."""
    roots = {name: fleet.host(name) for name in "abc"}
    here(*MAKE, "web", "db", "--root", roots["a"])
    here(*MAKE, "web", "--root", roots["b"])
    here(*MAKE, "big", "--start", str(BIG), "--root", roots["c"])
    here("release", "big", "--root", roots["c"])
    fleet.query(
        "INSERT INTO usernsplan.own SELECT number, 'uid', int8range(655370, 655371), 'account', 'eve' "
        "FROM usernsplan.host WHERE name = 'b'"
    )
    return roots


@pytest.fixture
def hosts(fleet: FleetOfRoots) -> dict[str, Path]:
    """A fleet that the test may change."""
    return made(fleet)


@pytest.fixture(scope="module")
def still(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A fleet that no test changes."""
    return made(FleetOfRoots(postgres, tmp_path_factory.mktemp("still")))


def lines(*words: str, root: Path) -> list[str]:
    return here(*words, "--root", root)[0].splitlines()


def document(*words: str, root: Path, status: int | None = 0) -> dict[str, Any]:
    return document_in(here(*words, "--root", root, "--json", status=status)[0])


def ids(start: int, count: int = 65536) -> dict[str, int]:
    return {"start": start, "count": count}


def wish(fleet: FleetOfRoots, host: str, name: str, refused: str = "") -> None:
    fleet.query(
        "INSERT INTO usernsplan.wish (host, name, strategy, refused) "
        "SELECT number, %s, 'per-container', %s FROM usernsplan.host WHERE name = %s",
        name,
        refused,
        host,
    )


# list and show


def test_a_name_is_one_row_where_hosts_agree(still: dict[str, Path]) -> None:
    found = document("list", "--fleet", root=still["c"])
    assert [(a["name"], a["hosts"], a["reserved_range"]) for a in found["allocations"]] == [
        ("db", ["a"], ids(DB)),
        ("web", ["a", "b"], ids(WEB)),
    ]
    assert [(q["name"], q["hosts"], q["range"]) for q in found["quarantined"]] == [
        ("big", ["c"], ids(BIG))
    ]
    assert [one["name"] for one in found["hosts"]] == ["a", "b", "c"]


@pytest.mark.slow
def test_a_host_that_differs_gets_a_row_of_its_own(
    fleet: FleetOfRoots, hosts: dict[str, Path]
) -> None:
    fleet.query(
        "UPDATE usernsplan.content SET value = replace(value, 'userdb', 'none') "
        "WHERE key = 'web' AND host = 2"
    )
    rows = [line.split() for line in lines("list", "--fleet", root=hosts["c"])]
    assert ["web", "589824-655359", "per-container", "a"] in rows
    assert ["web", "589824-655359", "per-container", "b"] in rows


def test_one_host_of_the_fleet_is_listed_as_it_lists_itself(still: dict[str, Path]) -> None:
    itself = document("list", root=still["a"])["allocations"]
    seen = document("list", "--host", "a", root=still["b"])["allocations"]
    assert [{**a, "hosts": ["a"], "local": False} for a in itself] == [
        {key: a[key] for key in (*itself[0], "hosts", "local")} for a in seen
    ]
    assert len(seen) == 2


@pytest.mark.slow
def test_what_hosts_have_to_do_is_said(fleet: FleetOfRoots, hosts: dict[str, Path]) -> None:
    for host, name, refused in (("b", "x", ""), ("b", "y", ""), ("c", "z", "no room")):
        wish(fleet, host, name, refused)
    shown = lines("list", "--fleet", root=hosts["a"])
    assert shown[-2:] == [
        "b: 2 things to do: usernsplan sync",
        "c: 1 thing refused: usernsplan check --host c",
    ]
    assert lines("list", "--host", "b", root=hosts["a"])[-1] == shown[-2]
    # The server is not asked for what is on this host.
    assert not any("to do" in line for line in lines("list", root=hosts["b"]))


def test_a_fleet_without_names_says_so(fleet: FleetOfRoots) -> None:
    root = fleet.host("a")
    assert lines("list", "--fleet", root=root) == ["Nothing is allocated."]
    assert lines("history", "--fleet", root=root) == ["The history is empty."]


@pytest.mark.slow
def test_a_name_is_shown_with_its_hosts(fleet: FleetOfRoots, hosts: dict[str, Path]) -> None:
    (hosts["b"] / "srv/vol").mkdir(parents=True)
    volume = hosts["b"] / "srv/vol"
    here("fix-volume", volume, "--container", "web", "--mode", "shift", "--root", hosts["b"])
    wish(fleet, "c", "web")
    found = document("show", "web", "--fleet", root=hosts["a"])
    assert [a["hosts"] for a in found["allocations"]] == [["a", "b"]]
    assert [(one["host"], one["refused"]) for one in found["wishes"]] == [("c", None)]
    assert found["volumes"] == []
    of_b = document("show", "web", "--host", "b", root=hosts["a"])
    assert [(v["path"], v["mode"]) for v in of_b["volumes"]] == [("/srv/vol", "shift")]
    text = here("show", "web", "--host", "b", "--root", hosts["a"])[0]
    assert text.startswith("on b:\n")
    assert "volume /srv/vol (shift)" in text
    _, err = here("show", "db", "--host", "b", "--root", hosts["a"], status=1)
    assert "nothing is allocated under the name 'db' on b" in err


# whois


@pytest.mark.slow
def test_an_id_is_asked_of_all_hosts(fleet: FleetOfRoots, hosts: dict[str, Path]) -> None:
    # A name of one host alone; others may give the same ids to others.
    fleet.query(
        "WITH c AS (INSERT INTO usernsplan.claim (name, hosts, kind, ids) "
        "VALUES ('mine', '[3,4)', 'uid', '[9000000,9000100)') RETURNING id) "
        "INSERT INTO usernsplan.hold SELECT id, 3, 'held' FROM c"
    )
    asked = ("655370", "589857", "720900", "9000001", "5")
    found = document("whois", *asked, "--fleet", root=hosts["c"])
    db, web, big, mine, nobody = found["answers"]
    assert [(one["kind"], one.get("name"), one["hosts"]) for one in db["uid"]] == [
        ("claim", "db", [{"host": "a", "state": "held"}]),
        ("own", None, [{"host": "b", "state": "own"}]),
    ]
    assert [one["name"] for one in db["gid"]] == ["db"]
    assert [(one["container_id"], len(one["hosts"])) for one in web["gid"]] == [(33, 2)]
    assert [one["state"] for one in big["uid"][0]["hosts"]] == ["quarantined"]
    assert [(one["name"], one["local"]) for one in mine["uid"]] == [("mine", True)]
    assert (mine["gid"], nobody["free"], db["free"]) == ([], True, False)

    shown = lines("whois", "655370", "--fleet", root=hosts["c"])
    assert shown[2] == "    db, container id 10: 655360-720895, held on a"
    assert shown[3] == "    eve (account): 655370, of b itself"


def test_ids_of_a_container_are_asked_of_a_host(still: dict[str, Path]) -> None:
    words = ("whois", "--container", "db", "33")
    assert lines(*words, "--host", "a", root=still["b"]) == lines(*words, root=still["a"])
    here(*words, "--host", "c", "--root", still["b"], status=1)


def test_an_id_is_that_of_a_name_on_hosts(still: dict[str, Path]) -> None:
    shown = lines("whois", "655370", "--fleet", root=still["c"])
    assert shown[2:4] == [
        "    db, container id 10: 655360-720895, held on a",
        "    eve (account): 655370, of b itself",
    ]


# map and capacity


def test_the_map_has_what_hosts_have_on_one_axis(still: dict[str, Path]) -> None:
    found = document("map", "--fleet", root=still["b"])
    assert [
        (p["range"], p["uid"], p["gid"], p["state"], p["name"], p["hosts"]) for p in found["pieces"]
    ] == [
        (ids(WEB), True, True, "held", "web", ["a", "b"]),
        (ids(DB), True, True, "held", "db", ["a"]),
        (ids(BIG), True, True, "quarantined", "big", ["c"]),
        # Each has root.
        (ids(0, 1), True, True, "own", None, ["a", "b", "c"]),
        (ids(655370, 1), True, False, "own", None, ["b"]),
    ]
    assert found["complete"]
    assert [p["name"] for p in document("map", "--host", "b", root=still["a"])["pieces"]] == [
        "web",
        None,
        None,
    ]
    text = here("map", "--fleet", "--width", "100", "--root", still["a"])[0]
    assert "web on a, b" in text
    assert "big on c" in text
    assert "useradd" not in text


def test_the_map_of_many_names_has_a_piece_for_the_same_hosts(still: dict[str, Path]) -> None:
    with mock.patch.object(views, "PIECES", 3):
        found = document("map", "--fleet", root=still["a"])
    # web is on two hosts; each kind of ids is a piece.
    assert [(p["range"], p["name"], p["hosts"]) for p in found["pieces"]][:2] == [
        (ids(WEB), None, ["a", "b"]),
        (ids(DB, 65536), None, ["a"]),
    ]
    assert not found["complete"]


def test_the_pictures_show_a_fleet_too(still: dict[str, Path], tmp_path: Path) -> None:
    svg, html = tmp_path / "a.svg", tmp_path / "a.html"
    here("map", "--fleet", "--svg", svg, "--html", html, "--root", still["a"])
    assert "web on a, b" in svg.read_text()
    assert "web on a, b" in html.read_text()


def test_room_for_a_name_of_the_fleet_is_what_no_host_has(still: dict[str, Path]) -> None:
    words = ("capacity", "--pool", f"{WEB}-{WEB + 5 * 65536 - 1}")
    found = document(*words, "--fleet", root=still["c"])
    # Of five ranges three are taken, one of them only quarantined.
    assert (found["free"], found["more"], found["used"]) == (2 * 65536, 2, 3 * 65536)
    assert (found["quarantined"], found["more_after_forget"]) == (65536, 3)
    assert found["gaps"] == [ids(BIG + 65536, 2 * 65536)]
    small = document(*words, "--fleet", "--size", "1000", root=still["c"])
    assert small["size"] == 1000


# history


@pytest.mark.slow
def test_the_history_of_all_hosts_is_in_the_order_of_time(
    fleet: FleetOfRoots, hosts: dict[str, Path]
) -> None:
    found = document("history", "--fleet", root=hosts["a"])["entries"]
    assert sorted((e["host"], e["number"]) for e in found) == [
        ("a", 1),
        ("b", 1),
        ("c", 1),
        ("c", 2),
    ]
    # A clock that is a day behind.
    fleet.query("UPDATE usernsplan.event SET at = '2001-01-01T00:00:00Z' WHERE host = 2")
    for portion in (1, 2, 1000):
        with mock.patch.object(views, "EVENTS", portion):
            again = document("history", "--fleet", root=hosts["a"])["entries"]
        assert again[0]["host"] == "b"
        assert len(again) == 4
        assert all(one["at"] <= other["at"] for one, other in pairwise(again))
    for words in (("--host", "c"), ("--fleet", "--host", "c")):
        of_c = document("history", *words, root=hosts["a"])["entries"]
        assert [(e["host"], e["number"]) for e in of_c] == [("c", 1), ("c", 2)]
    mine = document("history", root=hosts["c"])["entries"]
    assert [{**e, "host": "c", "number": n} for n, e in enumerate(mine, 1)] == [
        {key: e[key] for key in (*mine[0], "host", "number")} for e in of_c
    ]


def test_each_event_has_its_host(still: dict[str, Path]) -> None:
    with mock.patch.object(views, "EVENTS", 1):
        found = document("history", "--fleet", root=still["a"])["entries"]
    assert sorted((e["host"], e["number"]) for e in found) == [
        ("a", 1),
        ("b", 1),
        ("c", 1),
        ("c", 2),
    ]


# check


def codes(*words: str, root: Path, status: int | None = 0) -> list[str]:
    found = document("check", *words, root=root, status=status)
    return [finding["code"] for finding in found["findings"]]


def test_a_fleet_in_order_has_no_finding_but_what_stands_in_the_way(
    still: dict[str, Path],
) -> None:
    # Only eve's id on b, where db is not.
    assert codes("--fleet", root=still["a"]) == ["USN207"]
    assert codes("--host", "a", root=still["b"]) == []


@pytest.mark.slow
def test_what_hosts_have_to_do_is_found(fleet: FleetOfRoots, hosts: dict[str, Path]) -> None:
    wish(fleet, "a", "x")
    wish(fleet, "c", "y", "no room")
    fleet.query(
        "UPDATE usernsplan.host SET (seen, published) = (now() - interval '8 days', NULL) WHERE name = 'c'"
    )
    assert codes("--fleet", root=hosts["a"]) == ["USN202", "USN204", "USN203", "USN207"]
    assert codes("--host", "c", root=hosts["a"]) == ["USN202", "USN204"]
    assert codes("--fleet", "--select", "USN204", root=hosts["a"]) == ["USN204"]


@pytest.mark.slow
def test_a_name_with_other_ids_on_another_host_is_an_error(
    fleet: FleetOfRoots, hosts: dict[str, Path]
) -> None:
    fleet.query(
        "UPDATE usernsplan.content SET value = replace(value, 'usernsplan-web', 'bob') "
        "WHERE key = 'web' AND host = 2"
    )
    assert codes("--fleet", root=hosts["a"]) == ["USN201", "USN207"]
    # How it is in the files of a host is its own affair.
    fleet.query(
        "UPDATE usernsplan.content SET value = "
        "replace(replace(value, 'bob', 'usernsplan-web'), 'userdb', 'none') WHERE key = 'web' AND host = 2"
    )
    assert codes("--fleet", root=hosts["a"]) == ["USN207"]
    fleet.query(
        "UPDATE usernsplan.content SET value = replace(value, '589824', '900000') "
        "WHERE key = 'web' AND host = 2"
    )
    for portion in (1, 200):
        with mock.patch.object(views, "NAMES", portion):
            assert codes("--fleet", "--select", "USN20", root=hosts["a"], status=1)[0] == "USN200"
    # Unless it is a name of that host alone.
    fleet.query(
        "UPDATE usernsplan.content SET value = regexp_replace(value, '0\\]$', '1]') "
        "WHERE key = 'web' AND host = 2"
    )
    assert "USN200" not in codes("--fleet", root=hosts["a"], status=None)


def test_a_claim_without_a_row_and_a_row_without_a_claim_are_errors(
    fleet: FleetOfRoots, hosts: dict[str, Path]
) -> None:
    fleet.query("DELETE FROM usernsplan.content WHERE key = 'db'")
    found = document("check", "--fleet", root=hosts["b"], status=1)["findings"]
    assert [(f["code"], "claims 'db' as held for a" in f["message"]) for f in found[:1]] == [
        ("USN205", True)
    ]
    fleet.query("DELETE FROM usernsplan.hold WHERE host = 3")
    found = document("check", "--host", "c", root=hosts["b"], status=1)["findings"]
    assert ["has 'big' as quarantined on c" in f["message"] for f in found] == [True]
    # A host that is at work is right only afterwards.
    fleet.query("INSERT INTO usernsplan.intent SELECT 3, 3, '', '', '', ''")
    assert codes("--host", "c", root=hosts["b"]) == []


@pytest.mark.slow
def test_ids_that_a_host_has_twice_are_found(fleet: FleetOfRoots, hosts: dict[str, Path]) -> None:
    fleet.query("UPDATE usernsplan.own SET ids = '[589824,589830)' WHERE holder = 'eve'")
    found = document("check", "--fleet", root=hosts["a"])["findings"]
    assert [f["code"] for f in found] == ["USN206"]
    assert "b has uids 589824-589829 twice: 'web' and eve" in found[0]["message"]


# Words


@each(
    "words",
    [
        ("history", "--fleet", "--runs"),
        ("history", "--host", "a", "--prune-runs", "--older-than", "1h"),
        ("check", "--fleet", "--fix"),
        ("check", "--host", "a", "--volumes"),
        ("check", "--fleet", "--scan", "/srv"),
        ("check", "--fleet", "--passwd", "/etc/passwd"),
        ("whois", "1", "--fleet", "--file", "/etc"),
    ],
)
def test_what_is_about_this_host_does_not_go_with_a_fleet(words: tuple[str, ...]) -> None:
    _, err = here(*words, status=2)
    assert "does not go with" in err


LOOKING = ["list", "show web", "whois 1", "map", "capacity", "check", "history"]


@pytest.mark.parametrize("option", ["--fleet", "--host=a"])
def test_a_host_in_no_fleet_says_so(option: str, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for command in LOOKING:
        _, err = here(*command.split(), option, "--root", tmp_path, status=2)
        assert f"{option.partition('=')[0]}: this host is in no fleet" in err, command


def test_a_host_that_the_fleet_does_not_have_is_wrong_usage(still: dict[str, Path]) -> None:
    _, err = here("list", "--host", "aa", "--root", still["a"], status=2)
    assert "the fleet has no host 'aa'" in err


# Where the server is away


def away(root: Path) -> None:
    """Let the host look for the ledger where nobody listens, two hours after they agreed."""
    (root / "etc/usernsplan/config.yaml").write_text(
        f'ledger: "host={root}/nowhere dbname=x user=y"\n'
    )
    before = time.time() - 2 * 3600
    os.utime(f"{root}{FLEET}", (before, before))


def test_without_the_server_a_host_shows_its_copy_and_says_how_old_it_is(
    still: dict[str, Path], tmp_path: Path
) -> None:
    root = shutil.copytree(still["a"], tmp_path / "a", symlinks=True)
    there = {command: here(*command.split(), "--root", root) for command in LOOKING}
    away(root)
    for command in LOOKING:
        out, err = here(*command.split(), "--root", root)
        assert out == there[command][0]
        assert "is not reachable (no such file or directory)" in err
        assert "this is this host's copy, 2 h old" in err
        said = document(*command.split(), root=root)["fleet"]
        assert (said["reachable"], said["age_seconds"] // 60) == (False, 120)
    assert all("reachable" not in err for _, err in there.values())


def test_what_needs_the_server_is_unreachable_without_it(
    still: dict[str, Path], tmp_path: Path
) -> None:
    root = shutil.copytree(still["a"], tmp_path / "a", symlinks=True)
    away(root)
    for command in LOOKING:
        for option in ("--fleet", "--host=b"):
            _, err = here(*command.split(), option, "--root", root, status=10)
            assert "without --fleet and --host, the command shows this host" in err


def test_while_the_server_answers_nothing_is_said(still: dict[str, Path]) -> None:
    for command in LOOKING:
        assert "fleet" not in document(*command.split(), root=still["a"])


def test_what_listens_and_is_no_server_or_is_silent_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"host=127.0.0.1 port={silent.getsockname()[1]}"
        monkeypatch.setattr(reachable, "PATIENCE", 0.05)
        assert reachable.why_not(url) == "no answer in 0 s"
    with socket.create_server(("127.0.0.1", 0)) as other:
        url = f"host=127.0.0.1 port={other.getsockname()[1]}"
        monkeypatch.setattr(reachable, "PATIENCE", 10.0)

        def answer() -> None:
            one, _ = other.accept()
            with one:
                one.recv(8)
                one.sendall(b"HTTP")

        thread = threading.Thread(target=answer)
        thread.start()
        assert "no server of PostgreSQL" in reachable.why_not(url)
        thread.join()


def test_a_server_is_found_on_its_socket_on_tcp_and_by_libpq(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = tmp_path / "services"
    service.write_text(f"[ours]\nhost={postgres.folder}\nport={postgres.port}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    for url in (
        postgres.url_of("nobody", "nothing"),
        postgres.url_of("nobody", "nothing", socket=True),
        f"postgresql://nobody@127.0.0.1:{postgres.port}/nothing",
        f"postgresql://127.0.0.1:1,127.0.0.1:{postgres.port}/nothing",
        "service=ours",
    ):
        assert reachable.why_not(url) == "", url
    service.write_text("[ours]\nhost=/nowhere\n")
    assert reachable.why_not("service=ours") == "no answer"


@each(
    ("url", "found"),
    [
        ("host=a", [("a", 5432)]),
        ("host=a port=1", [("a", 1)]),
        ("host=a,b port=1,2", [("a", 1), ("b", 2)]),
        ("host = a,b port = 7", [("a", 7), ("b", 7)]),
        ("host=a hostaddr=10.0.0.1", [("10.0.0.1", 5432)]),
        (r"host='a\' b' port='3'", [("a' b", 3)]),
        ("dbname=x", [("/var/run/postgresql", 5432)]),
        ("postgresql://u@h:5/db", [("h", 5)]),
        ("postgres://h1,h2:6/db?sslmode=require", [("h1", 5432), ("h2", 6)]),
        ("postgresql:///db?host=/run/x&port=9", [("/run/x", 9)]),
        ("postgresql://", [("/var/run/postgresql", 5432)]),
        # Only libpq can tell.
        ("service=x", None),
        ("postgresql://h/db?service=x", None),
        ("postgresql://[::1]/db", None),
        ("postgresql://h%20/db", None),
        ("host=a port=x", None),
        ("host=a,b,c port=1,2", None),
        ("host='a", None),
        ("nonsense", None),
    ],
)
def test_where_servers_listen(url: str, found: list[tuple[str, int]] | None) -> None:
    assert places(url, {}) == (None if found is None else [Place(*one) for one in found])


def test_the_environment_is_libpq_s() -> None:
    assert places("dbname=x", {"PGHOST": "h", "PGPORT": "7"}) == [Place("h", 7)]
    assert places("host=a", {"PGSERVICE": "x"}) is None
    assert Place("/run/x", 7).path == "/run/x/.s.PGSQL.7"


# Large fleets


def asked(root: Path, *words: str) -> int:
    """The most rows that one answer has."""
    most = 0
    ask = Server.rows

    def counted(self: Server, statement: str, *values: object) -> list[tuple[Any, ...]]:
        nonlocal most
        rows = ask(self, statement, *values)
        most = max(most, len(rows))
        return rows

    with mock.patch.object(Server, "rows", counted):
        here(*words, "--root", root)
    return most


def grown(fleet: FleetOfRoots, names: int) -> None:
    """More names on all hosts, each with a claim, a row and an event."""
    fleet.query(
        "WITH n AS (SELECT i, 800000 + i::bigint * 100 AS first FROM generate_series(1, %s) i), "
        "c AS (INSERT INTO usernsplan.claim (name, hosts, kind, ids) SELECT 'n' || n.i, '(,)', k, "
        "int8range(n.first, n.first + 100) FROM n, unnest(array['uid', 'gid']) k RETURNING id), "
        "h AS (INSERT INTO usernsplan.hold SELECT c.id, o.number, 'held' FROM c, usernsplan.host o), "
        "e AS (INSERT INTO usernsplan.event SELECT o.number, 100 + n.i, '2030-01-01T00:00:00Z', "
        "'{\"uid\": 0, \"sudo_uid\": null, \"login_uid\": null}', 'x', '[]', '' FROM n, usernsplan.host o) "
        "INSERT INTO usernsplan.content SELECT o.number, 'allocation', 'n' || n.i, jsonb_build_array('n' || n.i, "
        "'u' || n.i, 'per-container', format('[[0, %%s, 100]]', n.first), format('[[0, %%s, 100]]', n.first), "
        "n.first, 100, '2030-01-01T00:00:00Z', o.number, '[]', '[]', '[]', 1, 'none', '[]', '', 0, '', 0)::text "
        "FROM n, usernsplan.host o",
        names,
    )


def test_no_answer_grows_with_the_number_of_names(
    fleet: FleetOfRoots, hosts: dict[str, Path]
) -> None:
    grown(fleet, 300)
    with (
        mock.patch.object(views, "NAMES", 10),
        mock.patch.object(views, "EVENTS", 10),
        mock.patch.object(views, "PIECES", 10),
    ):
        for words in (
            ("list", "--fleet"),
            ("list", "--host", "a"),
            ("history", "--fleet"),
            ("map", "--fleet"),
            ("capacity", "--fleet"),
            ("check", "--fleet"),
            ("whois", "800150", "--fleet"),
        ):
            # The portion, and for a map one more; of check, the hosts.
            assert asked(hosts["a"], *words) <= 11, words
        found = document("list", "--fleet", root=hosts["a"])
        assert len(found["allocations"]) == 302
        assert all(one["hosts"] == ["a", "b", "c"] for one in found["allocations"][1:-1])
        assert len(document("history", "--fleet", root=hosts["a"])["entries"]) == 904
