"""ledger init, join, leave and status, with roles as somebody who runs a database makes them."""

from __future__ import annotations

import os
import re
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.command import files_of, here, needs_root
from tests.documents import document_in
from tests.each import each
from tests.host.fleet_state import killed
from tests.postgres import PASSWORD, FleetOfRoots, Postgres
from usernsplan import joining
from usernsplan.errors import InvalidFileError, LedgerError
from usernsplan.formats import config
from usernsplan.host import files
from usernsplan.host.files import layout_at
from usernsplan.ledger import postgres as server_of_fleet
from usernsplan.ledger.durable import Durability, doubts
from usernsplan.ledger.postgres import Server
from usernsplan.ledger.sqlite import SqliteLedger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_root
LEDGER = "var/lib/usernsplan/ledger.sqlite3"
NOTE = "var/lib/usernsplan/fleet.json"
CONFIG = "etc/usernsplan/config.yaml"


def run(root: Path, *words: str, status: int | None = 0) -> tuple[str, str]:
    return here(*words, "--root", root, status=status)


def told(root: Path, *words: str, status: int = 0) -> dict[str, Any]:
    return document_in(run(root, *words, "--json", status=status)[0])


def alone(fleet: FleetOfRoots, name: str, *containers: str) -> tuple[Path, str]:
    """A host with containers that has not joined, and the url of its role."""
    root = fleet.root(name, "")
    if containers:
        run(root, "allocate", "--strategy", "per-container", *containers)
    return root, fleet.role(f"h_{name}")


def listed(root: Path) -> list[Any]:
    return [one["name"] for one in told(root, "list")["allocations"]]


def holds_of(fleet: FleetOfRoots, host: str) -> set[tuple[str, int]]:
    return {(name, start) for name, _, start, _, whose, _ in fleet.holds() if whose == host}


# A ledger is made.


def test_an_owner_who_may_not_create_roles_is_told_what_a_superuser_has_to_do() -> None:
    server = Postgres()
    try:
        server.query(f"CREATE ROLE dba LOGIN PASSWORD '{PASSWORD}'")
        for name in ("one", "two"):
            server.query(f"CREATE DATABASE {name} OWNER dba")
        url = server.url_of("dba", "one")
        _, err = here("ledger", "init", url, status=8)
        assert "the role dba may not create roles" in err
        found = re.search(r"psql -c '([^']+)'", err)
        assert found
        server.query(found[1])

        # Two of them at once.
        done: list[Any] = []
        both = [
            threading.Thread(target=lambda: done.append(joining.init(url).before)) for _ in range(2)
        ]
        for one in both:
            one.start()
        for one in both:
            one.join()
        assert {*done} == {None, 1}
        assert len(done) == 2
        assert joining.init(server.url_of("dba", "two")).before is None
        document = document_in(here("ledger", "init", url, "--json")[0])
        assert (document["changed"], document["former_version"]) == (False, 1)

        # A role that owns nothing makes nothing.
        server.query(f"CREATE ROLE somebody LOGIN PASSWORD '{PASSWORD}'")
        server.query("CREATE DATABASE three")
        _, err = here("ledger", "init", server.url_of("somebody", "three"), status=8)
        assert "use the role that owns the database" in err
    finally:
        server.remove()


def test_a_schema_is_brought_up_to_date_whole_or_not_at_all(
    fleet: FleetOfRoots, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fleet.host("a")
    version = "SELECT version FROM usernsplan.meta"
    assert fleet.query(version) == [(1,)]

    monkeypatch.setattr(server_of_fleet, "VERSION", 3)
    _, err = run(root, "allocate", "--strategy", "per-container", "web", status=1)
    assert "has version 1, and this usernsplan knows 3" in err
    assert "usernsplan ledger init URL" in err

    more = "ALTER TABLE usernsplan.host ADD site text"
    monkeypatch.setattr(joining, "STEPS", {2: more, 3: "SELECT usernsplan.nothing()"})
    with pytest.raises(LedgerError):
        joining.init(fleet.url)
    assert fleet.query(version) == [(1,)]
    monkeypatch.setattr(joining, "STEPS", {2: more, 3: more.replace("site", "site2")})
    assert joining.init(fleet.url)[1:] == (1, 3)
    assert fleet.query("SELECT site, site2 FROM usernsplan.host") == [(None, None)]
    run(root, "allocate", "--strategy", "per-container", "web")

    monkeypatch.setattr(server_of_fleet, "VERSION", 2)
    for words in (("allocate", "db"), ("ledger", "status"), ("ledger", "leave")):
        _, err = run(root, *words, status=1)
        assert "has version 3, and this usernsplan knows 2" in err
        assert "install the newer usernsplan" in err
    with pytest.raises(LedgerError, match="version 3"):
        joining.init(fleet.url)
    assert fleet.query(version) == [(3,)]
    assert listed(root) == ["web"]


# Roles.


def test_each_role_does_what_is_its_own(fleet: FleetOfRoots) -> None:
    a, url_of_a = alone(fleet, "a", "web")
    run(a, "ledger", "join", url_of_a)
    b, url_of_b = alone(fleet, "b")
    operator = fleet.role("boss", "usernsplan_operator")
    stranger = fleet.role("anybody", "pg_read_all_stats")

    before = fleet.holds()
    servers = {url: Server(url) for url in (url_of_a, url_of_b, operator)}
    for url in (url_of_b, operator):
        # In the name of another host.
        for statement in (
            "SELECT usernsplan.leave('a')",
            "SELECT usernsplan.drop_run('a', 2)",
            "SELECT usernsplan.pending('a')",
            "SELECT usernsplan.look('a')",
        ):
            with pytest.raises(Exception, match="belongs to the role h_a"):
                servers[url].rows(statement)
        _, err = run(b, "ledger", "join", url, "--name", "a", status=9)
        assert "another machine has joined as a" in err
    for url in (url_of_a, url_of_b, operator):
        for table in ("host", "claim", "hold", "event", "content", "own", "wish", "lease", "meta"):
            for statement in (
                f"DELETE FROM usernsplan.{table}",  # noqa: S608 - names of tables
                f"TRUNCATE usernsplan.{table}",
                f"INSERT INTO usernsplan.{table} DEFAULT VALUES",
            ):
                with pytest.raises(Exception, match="permission denied"):
                    servers[url].rows(statement)
        # An error, not "UPDATE 0".
        with pytest.raises(Exception, match="permission denied"):
            servers[url].rows("UPDATE usernsplan.host SET seen = now()")
        with pytest.raises(Exception, match="permission denied"):
            servers[url].rows("UPDATE usernsplan.event SET actor = ''")
        with pytest.raises(Exception, match="permission denied"):
            servers[url].rows("SELECT files FROM usernsplan.intent")
    _, err = run(b, "ledger", "join", stranger, status=8)
    assert "usernsplan_host" in err
    assert fleet.holds() == before
    assert fleet.query("SELECT name FROM usernsplan.host") == [("a",)]


def test_two_machines_with_one_name_are_refused(fleet: FleetOfRoots) -> None:
    a, url = alone(fleet, "a", "web")
    run(a, "ledger", "join", url)
    b, _ = alone(fleet, "b", "db")
    before = files_of(b)
    _, err = run(b, "ledger", "join", url, "--name", "a", status=9)
    assert "another machine has joined as a" in err
    assert "--name" in err
    assert files_of(b) == before
    # One role may have several hosts.
    (b / "etc/subuid").write_text("")
    assert "other" in run(b, "ledger", "join", url, "--name", "b", status=9)[1]

    # The machine-id stays on the machine: everybody in the fleet sees the table.
    [(machine,)] = fleet.query("SELECT machine FROM usernsplan.host")
    assert re.fullmatch("[0-9a-f]{32}", machine)
    assert machine != (a / "etc/machine-id").read_text().strip()
    for wrong in ("", "uninitialized\n", "0\n"):
        (b / "etc/machine-id").write_text(wrong)
        _, err = run(b, "ledger", "join", url, status=1)
        assert "systemd-machine-id-setup --root=" in err


@each(
    ("name", "wanted"),
    [("localhost", 2), ("", 2), ("web 1", 2), ("a,b", 2), ("*", 2), ("-a", 2), ("x" * 254, 2)],
)
def test_a_name_that_is_none_is_refused_before_anything_connects(
    tmp_path_factory: pytest.TempPathFactory, name: str, wanted: int
) -> None:
    root = tmp_path_factory.mktemp("root")
    (root / "etc").mkdir()
    (root / "etc/hostname").write_text(f"{name}\n")
    (root / "etc/machine-id").write_text("0" * 32)
    _, err = run(root, "ledger", "join", "host=/nowhere", status=wanted)
    assert "--name" in err


# A host joins.


def test_a_host_joins_once_and_again(fleet: FleetOfRoots) -> None:
    root, url = alone(fleet, "a", "web", "old")
    run(root, "release", "old")
    (root / "etc/usernsplan").mkdir(exist_ok=True)
    (root / CONFIG).write_text("# ours\npublish: none # for now")
    before = files_of(root)
    shown = told(root, "ledger", "join", url, "--dry-run")
    assert (shown["changed"], shown["dry_run"], shown["names"]) == (True, True, ["web"])
    assert files_of(root) == before
    assert fleet.query("SELECT * FROM usernsplan.host") == []

    done = told(root, "ledger", "join", url)
    assert (done["changed"], done["host"], done["quarantined"]) == (True, "a", ["old"])
    assert (root / CONFIG).read_text() == f'# ours\npublish: none # for now\nledger: "{url}"\n'
    assert {(name, state) for name, *_, state in fleet.holds()} == {
        ("web", "held"),
        ("old", "quarantined"),
    }
    number = fleet.query("SELECT number, event FROM usernsplan.host")

    before = files_of(root)
    for words in ((url,), (), ("--name", "a")):
        assert told(root, "ledger", "join", *words)["changed"] is False
    after = files_of(root)
    # Only the time of the note is another: both agreed again.
    assert {name for name in before if before[name] != after[name]} <= {NOTE}
    assert fleet.query("SELECT number, event FROM usernsplan.host") == number
    assert "has joined as 'a'" in run(root, "ledger", "join", "--name", "b", status=9)[1]
    assert "another ledger" in run(root, "ledger", "join", "service=other", status=9)[1]
    status = told(root, "ledger", "status")
    assert (status["host"], status["names"], status["standing"]) == ("a", 1, "agrees")
    assert [(h["name"], h["names"], h["event"]) for h in status["hosts"]] == [("a", 1, 2)]


def test_every_clash_is_listed_and_nothing_changes(fleet: FleetOfRoots) -> None:
    a, url_of_a = alone(fleet, "a", "web", "db", "log")
    run(a, "ledger", "join", url_of_a)
    # web has the same ids on both; the others clash, by their ids or by their name.
    b, url_of_b = alone(fleet, "b", "web", "cache", "more", "log")
    before, holds = files_of(b), fleet.holds()
    for words in ((url_of_b,), (url_of_b, "--local", "cache"), (url_of_b, "--dry-run")):
        error = told(b, "ledger", "join", *words, status=9)["error"]
        [_, *found] = error["message"].splitlines()
        assert [one.strip() for one in found] == [
            "uids and gids 655360-720895 of 'cache' here are those of 'db' on a",
            "'log' has the uids and gids 720896-786431 on a, and other ids here",
            "uids and gids 720896-786431 of 'more' here are those of 'log' on a",
        ]
        assert "remap NAME --start" in error["hint"]
        assert files_of(b) == before
        assert fleet.holds() == holds
        assert fleet.query("SELECT name FROM usernsplan.host") == [("a",)]
    _, err = run(b, "ledger", "join", url_of_b, "--local", "cahce", status=1)
    assert "did you mean cache?" in err
    assert files_of(b) == before

    # What a name has on one host alone stands in nobody's way there.
    assert told(a, "ledger", "join", "--local", "db", "--local", "log")["local"] == ["db", "log"]
    names = ["--local", "cache", "--local", "more", "--local", "log"]
    assert told(b, "ledger", "join", url_of_b, *names)["local"] == ["cache", "log", "more"]
    assert holds_of(fleet, "b") == {
        ("web", 589824),
        ("cache", 655360),
        ("more", 720896),
        ("log", 786432),
    }
    assert told(b, "ledger", "join", *names)["changed"] is False
    assert "the ids of cache are this host's alone" in run(b, "history")[0]
    for root in (a, b):
        assert told(root, "ledger", "status")["standing"] == "agrees"
        run(root, "allocate", "new")
    assert {start for name, start in holds_of(fleet, "a") if name == "new"} == {
        start for name, start in holds_of(fleet, "b") if name == "new"
    }


def test_a_quarantined_range_elsewhere_is_no_clash_of_names(fleet: FleetOfRoots) -> None:
    a, url_of_a = alone(fleet, "a", "xx", "web")
    run(a, "ledger", "join", url_of_a)
    b, url_of_b = alone(fleet, "b", "xx", "yy", "web")
    run(b, "release", "web", "yy")
    run(b, "release", "--forget", "yy")
    run(b, "ledger", "join", url_of_b)
    assert holds_of(fleet, "b") == {("xx", 589824), ("web", 720896)}


def test_an_interrupted_run_is_repaired_before_a_host_joins(
    fleet: FleetOfRoots, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, url = alone(fleet, "a", "web")
    with monkeypatch.context() as patch:
        patch.setattr(SqliteLedger, "complete", interrupted)
        with suppress(KeyboardInterrupt):
            run(root, "allocate", "db", status=None)
    done = told(root, "ledger", "join", url)
    assert done["names"] == ["db", "web"]
    assert [one["code"] for one in done["findings"]] == ["USN114"]


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_host_that_lost_its_files_joins_with_what_the_fleet_has(fleet: FleetOfRoots) -> None:
    root, url = alone(fleet, "a", "web", "db")
    run(root, "ledger", "join", url)
    run(root, "release", "db")
    whole = listed(root), run(root, "history")
    for lost in (
        (LEDGER, NOTE, CONFIG),
        (LEDGER, NOTE),
        (LEDGER,),
        (NOTE,),
        (CONFIG,),
    ):
        for name in lost:
            (root / name).unlink()
        run(root, "ledger", "join", url)
        assert (listed(root), run(root, "history")) == whole, lost
        assert told(root, "ledger", "status")["standing"] == "agrees"

    # Another history under the same name is not this host's.
    (root / NOTE).unlink()
    (root / LEDGER).unlink()
    (root / CONFIG).unlink()
    run(
        root, "allocate", "--strategy", "per-container", "other", "--start", "3014656", "--no-lines"
    )
    fleet.query("UPDATE usernsplan.event SET at = '2020-01-01T00:00:00Z'")
    _, err = run(root, "ledger", "join", url, status=1)
    assert "another machine uses its name" in err


def test_a_server_that_was_made_anew_gets_all_again(fleet: FleetOfRoots) -> None:
    root, url = alone(fleet, "a", "web")
    run(root, "ledger", "join", url)
    held = fleet.holds()
    fleet.query("DROP SCHEMA usernsplan CASCADE")
    _, err = run(root, "allocate", "db", status=1)
    assert "usernsplan ledger init" in err
    joining.init(fleet.url)
    _, err = run(root, "allocate", "db", status=1)
    assert "ledger join" in err
    assert told(root, "ledger", "join")["changed"] is True
    assert fleet.holds() == held
    run(root, "allocate", "db")


def test_a_damaged_ledger_comes_back_from_the_fleet(fleet: FleetOfRoots) -> None:
    root, url = alone(fleet, "a", "web")
    run(root, "ledger", "join", url)
    (root / LEDGER).write_bytes(b"damaged")
    assert told(root, "ledger", "status")["standing"] == "damaged"
    for words in (("ledger", "rebuild", "--yes"), ("ledger", "rebuild", "--dry-run")):
        _, err = run(root, *words, status=1)
        assert "in a fleet, whose ledger has the state" in err
        assert "sync" in err
    run(root, "allocate", "db")
    assert listed(root) == ["db", "web"]
    kept = [path for path in (root / LEDGER).parent.iterdir() if ".damaged-" in path.name]
    assert [path.read_bytes() for path in kept] == [b"damaged"]
    assert told(root, "ledger", "status")["standing"] == "agrees"


# Passwords.

SECRET = "geheim"  # noqa: S105 - of nobody
PLACES = [
    f"postgresql://u:{SECRET}@h/d",
    f"postgresql://u:{SECRET}@h/d?bogus=1",
    f"postgresql://u:{SECRET}@h/d%zz",
    f"postgres://u:a{SECRET}@b@h/d",
    f"postgresql://h/d?user=u&password={SECRET}",
    f"postgresql://h/d?user=u&pass%77ord={SECRET}",
    f"postgresql://h/d?sslpassword={SECRET}",
    f"host=h password={SECRET}",
    f"host=h password = '{SECRET} x'",
    f"host=h password= x {SECRET}",
    f"host=h PASSWORD={SECRET}",
    f"u:{SECRET}@h",
]


@each("place", PLACES)
def test_a_password_is_refused_before_anything_connects_and_is_in_no_message(
    tmp_path_factory: pytest.TempPathFactory, place: str
) -> None:
    import psycopg  # noqa: PLC0415 - may be missing

    root = tmp_path_factory.mktemp("root")
    (root / "etc/usernsplan").mkdir(parents=True)
    (root / "etc/machine-id").write_text("0" * 32)
    (root / "etc/hostname").write_text("a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg, "connect", interrupted)
        shown = [
            *run(root, "ledger", "join", place, status=2),
            *run(root, "ledger", "join", place, "--json", status=2),
            *run(root, "ledger", "join", place, "more", status=2),
            *run(root, "ledger", "leave", place, status=2),
            *here("ledger", "init", place, status=2),
        ]
        assert sorted(os.listdir(root)) == ["etc"]
        (root / CONFIG).write_text(f'ledger: "{place}"\n')
        for words in (("ledger", "join"), ("ledger", "leave"), ("ledger", "join", "service=x")):
            shown += run(root, *words, status=None)
        (root / "var/lib/usernsplan").mkdir(parents=True)
        (root / NOTE).write_text('{"host": "a", "number": 1}')
        for line in ("list", "allocate web", "ledger status", "ledger rebuild"):
            shown += run(root, *line.split(), status=None)
    assert SECRET not in "".join(shown)
    assert "password" in shown[1]


def test_the_password_of_the_environment_is_libpqs_business(
    fleet: FleetOfRoots, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, url = alone(fleet, "a", "web")
    url = re.sub(r" passfile=\S+", "", url)
    assert run(root, "ledger", "join", url, status=10)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    shown = [*run(root, "ledger", "join", url), *run(root, "history"), (root / CONFIG).read_text()]
    assert PASSWORD not in "".join(shown)


# The key in config.yaml.

URL = "postgresql://ledger.example/d"
KEY = f'ledger: "{URL}"\n'


@each(
    ("before", "after"),
    [
        ("", KEY),
        ("# a comment alone\n", f"# a comment alone\n{KEY}"),
        ("pool: 1048576-4194303", f"pool: 1048576-4194303\n{KEY}"),
        ("---\npublish: none  # why\n", f"---\npublish: none  # why\n{KEY}"),
        ("engines:\n- lxc\n", f"engines:\n- lxc\n{KEY}"),
        ("publish: none\r\n", f"publish: none\r\n{KEY}"),
    ],
)
def test_the_key_is_added_and_taken_away_and_nothing_else_changes(before: str, after: str) -> None:
    made = config.with_ledger(before.encode(), "config.yaml", URL)
    assert made == after.encode()
    assert config.parse(made, "").ledger == URL
    gone = config.without_ledger(made, "config.yaml")
    assert gone == ("" if not before else before.rstrip("\n") + "\n").encode()


@each("text", ["{publish: none}\n", "publish: none\n...\n", "{}\n"])
def test_a_file_that_a_line_does_not_fit_into_is_refused(text: str) -> None:
    with pytest.raises(InvalidFileError) as found:
        config.with_ledger(text.encode(), "config.yaml", URL)
    assert URL in found.value.hint


def test_the_key_is_taken_from_between_others() -> None:
    text = f"# one\npublish: none\nledger: {URL} # ours\n# two\npool: 1048576-4194303\n"
    rest = b"# one\npublish: none\n# two\npool: 1048576-4194303\n"
    assert config.without_ledger(text.encode(), "config.yaml") == rest
    with pytest.raises(InvalidFileError):
        config.without_ledger(f"{{publish: none, ledger: '{URL}'}}\n".encode(), "config.yaml")


def test_a_config_behind_a_symlink_is_read_as_before(tmp_path: Path) -> None:
    (tmp_path / "etc/usernsplan").mkdir(parents=True)
    (tmp_path / "etc/real.yaml").write_text("strategy: per-container\n")
    (tmp_path / CONFIG).symlink_to("../real.yaml")
    run(tmp_path, "allocate", "web")


# A host leaves.


def test_a_host_leaves_with_all_that_it_has(fleet: FleetOfRoots) -> None:
    a, b = fleet.host("a"), fleet.host("b")
    (a / CONFIG).write_text("# kept\n" + (a / CONFIG).read_text() + "publish: none\n")
    for root in (a, b):
        run(root, "allocate", "--strategy", "per-container", "web")
    run(a, "allocate", "db")
    before, holds = files_of(a), fleet.holds()
    shown = told(a, "ledger", "leave", "--dry-run")
    assert (shown["host"], shown["changed"]) == ("a", True)
    assert (files_of(a), fleet.holds()) == (before, holds)

    whole = listed(a), run(a, "history")
    done = told(a, "ledger", "leave")
    assert (done["host"], done["changed"], done["forgotten"]) == ("a", True, False)
    assert (listed(a), run(a, "history")) == whole
    assert (a / CONFIG).read_text() == "# kept\npublish: none\n"
    assert not (a / NOTE).exists()
    # What b has too, it keeps. Of what a had, files that others see may carry the ids.
    others = {one for one in holds if one[4] == "b"}
    left = {(*one[:4], "a, left 1", "quarantined") for one in holds if one[4] == "a"}
    assert fleet.holds() == others | left
    assert [one["code"] for one in done["findings"]] == ["USN196"]
    assert told(a, "ledger", "leave")["changed"] is False
    assert told(a, "ledger", "status")["place"] is None
    assert [one["name"] for one in told(b, "ledger", "status")["hosts"]] == ["b"]
    run(a, "allocate", "alone")


def test_a_host_that_is_at_work_does_not_leave(fleet: FleetOfRoots) -> None:
    root = fleet.host("a")
    run(root, "allocate", "--strategy", "per-container", "web")
    fleet.query(
        "INSERT INTO usernsplan.lease "
        "(token, host, system, inside, inode, path, container, run, method, work, changing) "
        "SELECT 1, number, 's', '/web', '', '/srv/web', 'web', '1', 'chown', '', true "
        "FROM usernsplan.host"
    )
    before, holds = files_of(root), fleet.holds()
    for words in ((), ("--dry-run",)):
        _, err = run(root, "ledger", "leave", *words, status=9)
        assert "a works on the volume /srv/web" in err
    after = files_of(root)
    assert {name for name in before if before[name] != after[name]} <= {NOTE}
    assert fleet.holds() == holds
    fleet.query("UPDATE usernsplan.lease SET ended = now()")
    # A run that only the server knows of; the host has no event of it.
    fleet.query(
        "INSERT INTO usernsplan.intent SELECT number, event + 5, '', '', '', '' FROM usernsplan.host"
    )
    server = Server(fleet.server.url_of(f"h_a_{fleet.database}", fleet.database))
    with pytest.raises(Exception, match="a run of a is pending"):
        server.rows("SELECT usernsplan.leave('a')")
    fleet.query("DELETE FROM usernsplan.intent")
    run(root, "ledger", "leave")


def test_a_server_that_is_gone_is_left_only_with_its_own_flag(
    fleet: FleetOfRoots, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fleet.host("a")
    run(root, "allocate", "--strategy", "per-container", "web")
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")
    (root / CONFIG).write_text("ledger: host=127.0.0.1 port=1 dbname=x\n")
    before = files_of(root)
    run(root, "ledger", "leave", status=10)
    run(root, "ledger", "leave", "--yes", status=10)
    _, err = run(root, "ledger", "leave", "--forget", status=2)
    assert "--yes" in err
    run(root, "ledger", "leave", "--forget", "--dry-run")
    assert files_of(root) == before
    assert told(root, "ledger", "leave", "--forget", "--yes")["forgotten"] is True
    assert not (root / CONFIG).exists()
    run(root, "allocate", "db")
    # A key that was lost does not keep a host from it, and a damaged note neither.
    (root / NOTE).write_text("nonsense")
    run(root, "list", status=1)
    run(root, "ledger", "leave", "--forget", "--yes")
    assert listed(root) == ["db", "web"]


# A kill.

# Each of these is a step: a kill happens before one of them.
STEPS = [
    (files, "write"),
    (files, "remove"),
    (Server, "rows"),
    (SqliteLedger, "begin"),
    (SqliteLedger, "complete"),
]


def after_kills(fleet: FleetOfRoots, every: int) -> None:
    """Kill join and leave at every so many steps; the same command mends it."""
    root, url = alone(fleet, "a", "web", "db")
    whole = listed(root)
    lines = {name: (root / name).read_bytes() for name in ("etc/subuid", "etc/subgid")}
    for words, joins in ((("join", url, "--local", "db"), True), (("leave",), False)):
        for at in range(0, 100, every):
            if not joins:
                run(root, "ledger", "join", url)
            died = killed(STEPS, root, at, "ledger", *words)
            # In between, a host decides with the fleet, or as one of its own, or not at all.
            run(root, "ledger", "status", status=None)
            done = told(root, "ledger", *words)
            assert done["host"] in {"a", None}
            assert listed(root) == whole
            assert {name: (root / name).read_bytes() for name in lines} == lines
            if joins:
                assert holds_of(fleet, "a") == {("web", 589824), ("db", 655360)}
                assert told(root, "ledger", "status")["standing"] == "agrees"
                run(root, "ledger", "leave")
            assert {(name, state) for name, *_, state in fleet.holds()} == {("web", "quarantined")}
            assert fleet.query("SELECT name FROM usernsplan.host WHERE role <> ''") == []
            assert not (root / NOTE).exists()
            assert not (root / CONFIG).exists()
            if not died:
                break
        else:
            pytest.fail("it never ends")


def test_a_kill_is_mended_by_the_same_command(fleet: FleetOfRoots) -> None:
    after_kills(fleet, every=5)


@pytest.mark.slow
def test_a_kill_at_any_step_is_mended_by_the_same_command(fleet: FleetOfRoots) -> None:
    after_kills(fleet, every=1)


def test_a_failure_before_the_server_has_all_changes_nothing(
    fleet: FleetOfRoots, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, url = alone(fleet, "a", "web")
    before = files_of(root)
    monkeypatch.setattr("usernsplan.ledger.fleet.FleetLedger.join", broken)
    run(root, "ledger", "join", url, status=1)
    assert {k: v[2] for k, v in files_of(root).items()} == {k: v[2] for k, v in before.items()}
    assert fleet.query("SELECT * FROM usernsplan.host") == []


def broken(*_: object) -> None:
    raise LedgerError("broken")


# Status.


def test_without_the_server_a_host_tells_what_it_knows(fleet: FleetOfRoots) -> None:
    root = fleet.host("a")
    run(root, "allocate", "--strategy", "per-container", "web")
    (root / CONFIG).write_text("ledger: host=127.0.0.1 port=1 dbname=x\n")
    os.utime(root / NOTE, (0, 0))
    out, err = run(root, "ledger", "status", status=10)
    assert "a, 1 names" in out
    assert "days ago" in out
    assert "127.0.0.1" in err
    document = told(root, "ledger", "status", status=10)
    assert (document["names"], document["standing"], document["hosts"]) == (1, None, [])
    assert document["error"]["exit_status"] == 10
    assert document["agreed_seconds_ago"] > 1_000_000_000


def test_status_tells_of_wishes_and_of_differences(fleet: FleetOfRoots) -> None:
    root = fleet.host("a")
    run(root, "allocate", "--strategy", "per-container", "web")
    for name, refused in (("x", ""), ("y", "no room"), ("z", "no room")):
        fleet.query(
            "INSERT INTO usernsplan.wish (host, name, strategy, refused) "
            "SELECT number, %s, 'per-container', %s FROM usernsplan.host",
            name,
            refused,
        )
    status = told(root, "ledger", "status")
    [host] = status["hosts"]
    assert (host["wishes"], host["refused"], host["role"]) == (1, 2, f"h_a_{fleet.database}")
    assert any("a refused 2" in one["fact"] for one in status["warnings"])
    fleet.query("UPDATE usernsplan.host SET event = 0, stamp = ''")
    status = told(root, "ledger", "status")
    assert (status["standing"], status["events_on_server"], status["event"]) == ("ahead", 0, 1)
    assert any("sync" in one["remedy"] for one in status["warnings"])


def facts(root: Path) -> str:
    return " ".join(one["fact"] for one in told(root, "ledger", "status")["warnings"])


def test_a_server_that_loses_what_it_acknowledged_is_named(fleet: FleetOfRoots) -> None:
    root = fleet.host("a")
    assert "synchronous_commit" not in facts(root)
    fleet.query(f"ALTER ROLE h_a_{fleet.database} SET synchronous_commit = off")
    assert "synchronous_commit is off" in facts(root)


@each(
    ("found", "replication", "fact"),
    [
        (Durability("on", True, "", ()), "none", ""),
        (Durability("on", True, "s1", ("sync",)), "synchronous", ""),
        (Durability("on", True, "ANY 1 (a,b)", ("quorum", "quorum")), "synchronous", ""),
        (Durability("remote_apply", True, "s1", ("async", "sync")), "synchronous", ""),
        (Durability("local", True, "s1", ("sync",)), "synchronous", "local"),
        (Durability("on", True, "", ("async",)), "asynchronous", "is asynchronous"),
        (Durability("on", True, "", (None,)), "asynchronous", "is asynchronous"),
        (Durability("on", True, "s1", (None,)), "unknown", "may not see"),
        (Durability("on", True, "s1", ()), "asynchronous", "no synchronous standby"),
        (Durability("on", True, "s1", ("async",)), "asynchronous", "no synchronous"),
        (Durability("on", False, "", ()), "none", "fsync"),
        (Durability("on", True, "", (), is_standby=True), "none", "is a standby"),
    ],
)
def test_what_is_said_of_a_server(found: Durability, replication: str, fact: str) -> None:
    assert found.replication == replication
    told_of = [one for one, _ in doubts(found)]
    assert len(told_of) == bool(fact)
    assert fact in "".join(told_of)


@pytest.mark.slow
def test_what_an_ordinary_role_sees_of_a_standby(tmp_path: Path) -> None:
    server = Postgres(durable=True)
    try:
        server.query("ALTER SYSTEM SET wal_level = replica")
        fleet = FleetOfRoots(server, tmp_path)
        root, url = alone(fleet, "a", "web")
        run(root, "ledger", "join", url)
        assert told(root, "ledger", "status")["durability"]["replication"] == "none"
        with standby_of(server):
            status = told(root, "ledger", "status")["durability"]
            assert status == {
                "replication": "asynchronous",
                "synchronous_commit": "on",
                "standbys": 1,
            }
            server.query("ALTER SYSTEM SET synchronous_standby_names = 'r2'")
            server.query("SELECT pg_reload_conf()")
            eventually(server, "SELECT sync_state FROM pg_stat_replication", [("sync",)])
            assert told(root, "ledger", "status")["durability"]["replication"] == "unknown"
            assert "may not see" in facts(root)
            server.query(f"GRANT pg_read_all_stats TO h_a_{fleet.database}")
            assert told(root, "ledger", "status")["durability"]["replication"] == "synchronous"
            assert facts(root) == ""
    finally:
        server.remove()


@contextmanager
def standby_of(server: Postgres) -> Iterator[None]:
    from tests.postgres import BIN, free_port  # noqa: PLC0415

    data, port = server.folder / "standby", free_port()
    # pg_basebackup runs as postgres, which cannot read the password file of root.
    url = re.sub(r"passfile=\S+", "", server.url_of("owner", "postgres", socket=True))
    url += f" password={PASSWORD} application_name=r2"
    server._run(BIN / "pg_basebackup", "-d", url, "-D", data, "-R", "-c", "fast")
    with (data / "postgresql.conf").open("a") as file:
        file.write(f"port = {port}\n")
    control = [BIN / "pg_ctl", "-w", "-s", "-D", data]
    server._run(*control, "-l", server.folder / "log2", "start")
    try:
        eventually(server, "SELECT state FROM pg_stat_replication", [("streaming",)])
        yield
    finally:
        server._run(*control, "-m", "immediate", "stop")


def eventually(server: Postgres, statement: str, wanted: list[tuple[Any, ...]]) -> None:
    while server.query(statement) != wanted:
        server.query("SELECT pg_sleep(0.02)")


def test_the_layout_of_a_host_in_no_fleet_says_so(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    assert joining.status(layout_at(str(tmp_path))).place is None
