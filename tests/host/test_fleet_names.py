"""A name means the same ids on every host of a fleet, and what stands in the way of that is said before anything changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.command import files_of, here, needs_root, slow, usernsplan
from tests.documents import document_in

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import FleetOfRoots

pytestmark = needs_root
ALLOCATE = ("allocate", "--strategy", "per-container")
REFUSED, CHANGED = 9, 6


@pytest.fixture
def hosts(fleet: FleetOfRoots) -> tuple[Path, Path]:
    return fleet.host("a"), fleet.host("b")


def run(root: Path, *words: str, status: int = 0) -> tuple[str, str]:
    return here(*words, "--root", root, status=status)


def put(root: Path, name: str, text: str) -> None:
    """Write a file below /etc, or one beside it."""
    (root / "etc" / name).write_text(text)


def ranges(root: Path) -> dict[str, int]:
    """The ranges of a host's ledger, by name."""
    found: dict[str, Any] = document_in(run(root, "list", "--json")[0])
    return {one["name"]: one["uid_map"][0]["host"] for one in found["allocations"]}


def lines(root: Path) -> dict[str, str]:
    text = (root / "etc/subuid").read_text()
    return dict(line.split(":", 1) for line in text.splitlines())


def refused(fleet: FleetOfRoots, root: Path, *words: str) -> str:
    """What a command says that is refused, before it changes anything here or on the server."""
    before = files_of(root), fleet.holds()
    _, err = run(root, *words, status=REFUSED)
    assert (files_of(root), fleet.holds()) == before
    return err


def test_each_host_gets_the_ids_that_the_name_has_and_says_who_has_them(
    fleet: FleetOfRoots, hosts: tuple[Path, Path]
) -> None:
    a, b = hosts
    run(a, *ALLOCATE, "web", "db")
    run(b, *ALLOCATE, "web")
    assert ranges(b) == {"web": ranges(a)["web"]}
    # Of this host's own choice it takes other ids.
    run(b, *ALLOCATE, "db", "--local")
    assert ranges(b)["db"] != ranges(a)["db"]
    assert {(name, host) for name, *_, host, _ in fleet.holds()} == {
        *(("web", "a"), ("web", "b"), ("db", "a"), ("db", "b"))
    }


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        ("subuid", "alice:{start}:5\n", "a line of"),
        *slow(
            ("subgid", "alice:{start}:5\n", "a line of"),
            ("passwd", "carl:x:{start}:100::/:/bin/sh\n", "an account or a group"),
            ("group", "club:x:{start}:\n", "an account or a group"),
        ),
    ],
)
def test_what_the_host_itself_has_of_these_ids_stands_in_the_way_and_is_named(
    fleet: FleetOfRoots, hosts: tuple[Path, Path], file: str, text: str, named: str
) -> None:
    a, b = hosts
    run(a, *ALLOCATE, "web")
    put(b, file, (b / "etc" / file).read_text() + text.format(start=ranges(a)["web"]))
    err = refused(fleet, b, *ALLOCATE, "web")
    assert "is not free" in err
    assert named in err
    assert "other hosts of the fleet have these ids under this name" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        (
            "var/lib/lxc/c1/config",
            "lxc.rootfs.path = dir:/var/lib/lxc/c1/rootfs\nlxc.idmap = u 0 {start} 65536\n",
            "used by",
        ),
        (
            "etc/userdb/club.group",
            '{{"groupName":"club","gid":{start},"service":"io.systemd.DropIn"}}\n',
            "an account or a group",
        ),
    ],
)
def test_what_other_programs_of_the_host_have_of_these_ids_stands_in_the_way(
    fleet: FleetOfRoots, hosts: tuple[Path, Path], file: str, text: str, named: str
) -> None:
    a, b = hosts
    run(a, *ALLOCATE, "web")
    start = ranges(a)["web"]
    (b / file).parent.mkdir(parents=True, exist_ok=True)
    (b / file).write_text(text.format(start=start))
    err = refused(fleet, b, *ALLOCATE, "web")
    assert "is not free" in err
    assert named in err
    # Other names get other ids, and --local too.
    run(b, *ALLOCATE, "web", "--local")
    assert ranges(b)["web"] != start


@pytest.mark.slow
def test_a_name_that_others_have_is_not_renamed_nor_is_another_one_given_it(
    fleet: FleetOfRoots, hosts: tuple[Path, Path]
) -> None:
    a, b = hosts
    run(a, *ALLOCATE, "web", "db")
    run(b, *ALLOCATE, "web")
    for words in (("rename", "web", "www"), ("rename", "web", "www", "--dry-run")):
        err = refused(fleet, b, *words)
        assert "of 'www' here are those of 'web' on a, b" in err
    err = refused(fleet, b, "rename", "web", "db")
    assert "'db' has the uids and gids" in err
    # What only this host has gets another name.
    run(a, "rename", "db", "store")
    assert {name for name, *_, host, _ in fleet.holds() if host == "a"} == {"web", "store"}
    # A plan file is no way around it.
    put(b, "../plan.yaml", "strategy: per-container\ncontainers: [{name: www, was: web}]\n")
    for command in (("plan",), ("apply", "--yes")):
        assert "of 'www' here are those of 'web'" in refused(
            fleet, b, *command, str(b / "plan.yaml")
        )


@pytest.mark.slow
def test_the_map_of_a_name_that_others_have_is_not_changed(
    fleet: FleetOfRoots, hosts: tuple[Path, Path]
) -> None:
    a, b = hosts
    run(a, *ALLOCATE, "web")
    run(b, *ALLOCATE, "web")
    for words in (("--size", "131072"), ("--start", "524288000"), ("--size", "1000")):
        err = refused(fleet, b, "remap", "web", *words, "--yes")
        assert "'web' has the uids and gids" in err
        assert "the new map" not in err
    # Where the others only keep the ids from being used again, it may have others.
    run(a, "release", "web")
    run(b, "remap", "web", "--start", "524288000", "--yes")
    assert ranges(b) == {"web": 524288000}


@pytest.mark.slow
def test_lines_that_stand_are_adopted_only_if_no_other_host_has_the_ids(
    fleet: FleetOfRoots, hosts: tuple[Path, Path]
) -> None:
    a, b = hosts
    run(a, *ALLOCATE, "web")
    start = ranges(a)["web"]
    for file in ("subuid", "subgid"):
        put(b, file, f"carl:{start}:65536\nweb:{start + 10 * 65536}:65536\n")
    assert "of 'carl' here are those of 'web' on a" in refused(fleet, b, "adopt", "carl")
    assert "'web' has the uids and gids" in refused(fleet, b, "adopt", "web")


def test_a_plan_file_gets_the_ids_of_the_fleet(hosts: tuple[Path, Path]) -> None:
    a, b = hosts
    run(a, *ALLOCATE, "web")
    put(b, "../plan.yaml", "strategy: per-container\ncontainers: [web, db]\n")
    run(b, "apply", str(b / "plan.yaml"), "--yes")
    assert ranges(b)["web"] == ranges(a)["web"]
    put(a, "usernsplan.yaml", "strategy: per-container\ncontainers: [web, db]\n")
    run(a, "allocate")
    assert ranges(a) == ranges(b)


@pytest.mark.slow
def test_the_pool_of_an_engine_is_the_hosts_own(
    fleet: FleetOfRoots, hosts: tuple[Path, Path]
) -> None:
    for root in hosts:
        run(root, *ALLOCATE, "--engine", "podman-auto", "--auto-containers", "10")
        assert lines(root)["containers"].endswith(":655360")
    assert len({start for name, _, start, *_ in fleet.holds() if name == "containers"}) == 2
    # So it is where a host had one before it joined.
    roots = []
    for name in ("c", "d"):
        root = fleet.root(name, "")
        run(root, *ALLOCATE, "--engine", "podman-auto")
        run(root, "ledger", "join", fleet.role(f"h_{name}"))
        roots.append(root)
    assert ranges(roots[0]) == ranges(roots[1])


@pytest.mark.parametrize("start", [1000, *slow(0, 60000, 524288, 2147352576)])
def test_the_fleet_cannot_make_a_host_give_out_ids_that_no_container_may_have(
    fleet: FleetOfRoots, hosts: tuple[Path, Path], start: int
) -> None:
    _, b = hosts
    fleet.query(
        "WITH c AS (INSERT INTO usernsplan.claim (name, hosts, kind, ids) "
        "SELECT 'web', '(,)', kind, int8range(%s, %s) FROM unnest(ARRAY['uid', 'gid']) kind RETURNING id) "
        "INSERT INTO usernsplan.hold (claim, host, state) SELECT id, 1, 'held' FROM c",
        start,
        start + 1000,
    )
    err = refused(fleet, b, *ALLOCATE, "web", "--size", "1000")
    assert "this host does not take it" in err


@pytest.mark.slow
def test_what_others_take_meanwhile_is_chosen_again(
    fleet: FleetOfRoots, hosts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from usernsplan.ledger.fleet import FleetLedger  # noqa: PLC0415 - needs psycopg

    a, b = hosts
    # Both begin to look at the same place.
    monkeypatch.setattr("usernsplan.planner.choose.first_of_host", lambda *_: 0)
    begin = FleetLedger.begin

    def late(ledger: FleetLedger, intent: Any) -> None:  # noqa: ANN401 - as it is
        if not ranges(a):
            usernsplan(*ALLOCATE, "web", "--root", a)
        begin(ledger, intent)

    monkeypatch.setattr(FleetLedger, "begin", late)
    run(b, *ALLOCATE, "db")
    assert ranges(a) == {"web": 589824}
    assert ranges(b) == {"db": 655360}
    assert {start for _, _, start, *_ in fleet.holds()} == {589824, 655360}


@pytest.mark.slow
def test_a_name_that_another_host_takes_meanwhile_gets_its_ids(
    fleet: FleetOfRoots, hosts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from usernsplan.ledger.fleet import FleetLedger  # noqa: PLC0415 - needs psycopg

    a, b = hosts
    begin = FleetLedger.begin

    def late(ledger: FleetLedger, intent: Any) -> None:  # noqa: ANN401 - as it is
        if not ranges(a):
            usernsplan(*ALLOCATE, "web", "--root", a)
        begin(ledger, intent)

    monkeypatch.setattr(FleetLedger, "begin", late)
    run(b, *ALLOCATE, "web")
    assert ranges(a) == ranges(b)
    assert {host for *_, host, _ in fleet.holds()} == {"a", "b"}


# Other hosts are asked.


@pytest.fixture
def three(fleet: FleetOfRoots) -> tuple[Path, Path, Path]:
    """a has an operator's role, b and c have a host's."""
    return fleet.host("a", "usernsplan_operator"), fleet.host("b"), fleet.host("c")


def asked(root: Path, *words: str) -> set[tuple[str, str]]:
    found = document_in(run(root, *words, "--json")[0])
    return {(one["host"], one["name"]) for one in found["asked"]}


def test_an_operator_asks_other_hosts_and_each_does_it_at_its_sync(
    fleet: FleetOfRoots, three: tuple[Path, Path, Path]
) -> None:
    a, b, c = three
    words = (*ALLOCATE, "web", "db", "--on", "a,b")
    assert asked(a, *words, "--dry-run") == {("b", "web"), ("b", "db")}
    assert ranges(a) == {}
    assert fleet.holds() == set()
    assert asked(a, *words) == {("b", "web"), ("b", "db")}
    assert asked(a, *words) == set()
    # Nobody else gets the ids meanwhile, and b gives them to no other name.
    assert ranges(b) == {}
    run(b, *ALLOCATE, "other")
    assert ranges(b)["other"] not in ranges(a).values()
    run(b, "sync")
    assert {name: ranges(b)[name] for name in ("web", "db")} == ranges(a)
    assert "matches" in run(b, "sync")[0] or "This host is what" in run(b, "sync")[0]
    assert ranges(c) == {}

    # Where this host is none of them, it keeps nothing.
    assert asked(a, *ALLOCATE, "mail", "--on", "c") == {("c", "mail")}
    run(c, "sync")
    assert "mail" in ranges(c)
    assert "mail" not in ranges(a)

    assert asked(a, *ALLOCATE, "web", "--everywhere") == {("c", "web")}
    run(c, "sync")
    assert ranges(c)["web"] == ranges(a)["web"]
    assert asked(a, "release", "web", "--everywhere") == {("b", "web"), ("c", "web")}
    for root in (b, c):
        run(root, "sync")
    assert {name for root in three for name in ranges(root)} == {"db", "other", "mail"}


@pytest.mark.slow
def test_what_was_asked_is_taken_back_before_it_is_done(
    fleet: FleetOfRoots, three: tuple[Path, Path, Path]
) -> None:
    a, b, _ = three
    run(a, *ALLOCATE, "web", "--on", "b")
    assert {state for *_, state in fleet.holds()} == {"wanted"}
    run(a, "release", "web", "--on", "b")
    assert fleet.holds() == set()
    run(b, "sync")
    assert ranges(b) == {}
    # And so is a release.
    run(b, *ALLOCATE, "web")
    assert asked(a, "release", "web", "--on", "b") == {("b", "web")}
    assert asked(a, *ALLOCATE, "web", "--on", "b") == {("b", "web")}
    assert asked(a, *ALLOCATE, "web", "--on", "b") == set()
    run(b, "sync")
    assert "web" in ranges(b)


@pytest.mark.slow
def test_what_hosts_have_of_their_own_is_avoided_or_named(
    fleet: FleetOfRoots, three: tuple[Path, Path, Path]
) -> None:
    a, b, _ = three
    put(b, "subuid", "alice:589824:65536\n")
    put(b, "passwd", (b / "etc/passwd").read_text() + "carl:x:655360:100::/:/bin/sh\n")
    # It says so whenever it runs, and only if that changed.
    run(b, *ALLOCATE, "other")
    own = fleet.query(
        "SELECT o.kind, lower(o.ids), upper(o.ids), o.source, o.holder FROM usernsplan.own o "
        "JOIN usernsplan.host h ON h.number = o.host WHERE h.name = 'b' AND lower(o.ids) > 1000"
    )
    assert sorted(own) == [
        ("uid", 589824, 655360, "subid", "alice"),
        ("uid", 655360, 655361, "account", "carl"),
    ]
    said = fleet.query("SELECT published FROM usernsplan.host WHERE name = 'b'")
    run(b, *ALLOCATE, "more")
    assert fleet.query("SELECT published FROM usernsplan.host WHERE name = 'b'") == said

    run(a, *ALLOCATE, "web", "--on", "a,b")
    assert ranges(a) == {"web": 720896}
    # A name that has its ids already is not moved.
    run(a, *ALLOCATE, "early", "--start", "589824")
    err = refused(fleet, a, *ALLOCATE, "early", "--on", "a,b")
    assert "b has uid 589824-655359 of its own (subid alice), where 'early' would be" in err


@pytest.mark.parametrize(
    "words", [(*ALLOCATE, "web", "--on", "a"), *slow((("release", "other", "--everywhere"),))]
)
def test_only_an_operator_asks(
    fleet: FleetOfRoots, three: tuple[Path, Path, Path], words: tuple[str, ...]
) -> None:
    _, b, _ = three
    run(b, *ALLOCATE, "other")
    before = files_of(b), fleet.holds()
    _, err = run(b, *words, status=8)
    assert "may not ask things of other hosts" in err
    assert (files_of(b), fleet.holds()) == before


@pytest.mark.slow
def test_a_host_needs_no_operator_for_itself(
    fleet: FleetOfRoots, three: tuple[Path, Path, Path]
) -> None:
    _, b, _ = three
    assert asked(b, *ALLOCATE, "web", "--on", "b") == set()
    assert {host for *_, host, _ in fleet.holds()} == {"b"}
    assert asked(b, "release", "web", "--on", "b") == set()
    assert ranges(b) == {}


@pytest.mark.slow
def test_what_cannot_be_asked_is_said(three: tuple[Path, Path, Path], tmp_path: Path) -> None:
    a, *_ = three
    for words in (("web", "--owner", "x"), ("web", "--local"), ("web", "--engine", "lxc")):
        run(a, *ALLOCATE, *words, "--on", "b", status=2)
    assert "did you mean" in run(a, *ALLOCATE, "web", "--on", "bb", status=2)[1]
    run(a, "release", "--forget", "web", "--on", "b", status=2)
    _, err = run(a, "release", "nowhere", "--everywhere", status=1)
    assert "no host has anything under the name 'nowhere'" in err
    # What all hosts have released already is no mistake.
    run(a, *ALLOCATE, "web")
    run(a, "release", "web", "--everywhere")
    assert asked(a, "release", "web", "--everywhere") == set()
    alone = tmp_path / "alone"
    (alone / "etc").mkdir(parents=True)
    assert "no fleet" in run(alone, *ALLOCATE, "web", "--everywhere", status=REFUSED)[1]


@pytest.mark.slow
def test_a_host_that_has_the_name_with_other_ids_is_not_asked(
    fleet: FleetOfRoots, three: tuple[Path, Path, Path]
) -> None:
    a, b, c = three
    run(b, *ALLOCATE, "web", "--local")
    run(c, *ALLOCATE, "mail", "--strategy", "shared")
    for name, host in (("web", "b"), ("mail", "c")):
        err = refused(fleet, a, *ALLOCATE, name, "--on", "a,b,c")
        assert f"{host} has '{name}' already, and not with these ids" in err
    # A host that has the same ids is asked nothing.
    assert asked(a, *ALLOCATE, "web", "--on", "a,c") == {("c", "web")}


@pytest.mark.slow
def test_a_name_that_others_take_while_an_operator_asks_has_no_second_ids(
    fleet: FleetOfRoots, three: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from usernsplan.ledger import asks  # noqa: PLC0415 - needs psycopg

    a, b, c = three
    ask = asks.ask

    def late(*values: Any) -> Any:  # noqa: ANN401 - as it is
        if not ranges(c):
            usernsplan(*ALLOCATE, "web", "--start", "524288000", "--root", c)
        return ask(*values)

    monkeypatch.setattr(asks, "ask", late)
    _, err = run(a, *ALLOCATE, "web", "--on", "b", status=REFUSED)
    assert "'web' has the uids 524288000-524353535, on c" in err
    assert {(start, host) for _, _, start, _, host, _ in fleet.holds()} == {(524288000, "c")}
    monkeypatch.undo()
    assert asked(a, *ALLOCATE, "web", "--on", "b") == {("b", "web")}
    run(b, "sync")
    assert ranges(b) == ranges(c)


@pytest.mark.slow
def test_a_host_that_joins_says_what_it_has_of_its_own(fleet: FleetOfRoots) -> None:
    a = fleet.host("a", "usernsplan_operator")
    b = fleet.root("b", "")
    put(b, "subuid", "alice:589824:65536\n")
    run(b, "ledger", "join", fleet.role("h_b"))
    run(a, *ALLOCATE, "web", "--on", "a,b")
    assert ranges(a) == {"web": 655360}


def test_list_and_show_say_which_names_are_local(hosts: tuple[Path, Path]) -> None:
    a, _ = hosts
    run(a, *ALLOCATE, "web", "--local")
    run(a, *ALLOCATE, "db")
    found = document_in(run(a, "list", "--json")[0])["allocations"]
    assert {one["name"]: one["local"] for one in found} == {"web": True, "db": False}
    [shown] = document_in(run(a, "show", "web", "--json")[0])["allocations"]
    assert shown["local"] is True
    assert "this host's alone" in run(a, "show", "web")[0]
    assert "this host's alone" not in run(a, "show", "db")[0]


FOR_HOSTS = """\
strategy: per-container
hosts:
  b: [db]
  '*': [web]
containers: [web, {name: db, size: 131072}, mine]
"""


def test_a_plan_file_is_applied_once_for_several_hosts(
    fleet: FleetOfRoots, three: tuple[Path, Path, Path]
) -> None:
    a, b, c = three
    put(a, "../plan.yaml", FOR_HOSTS)
    file = str(a / "plan.yaml")
    everything = [("b", "db"), ("b", "web"), ("c", "web")]

    def told(*words: str, status: int = 0) -> list[tuple[str, str]]:
        found = document_in(run(a, *words, file, "--json", status=status)[0])
        return sorted((one["host"], one["name"]) for one in found["asked"])

    assert told("plan", "--check", status=4) == everything
    assert fleet.holds() == set()
    assert told("apply", "--yes") == everything
    assert told("plan", "--check") == told("apply", "--yes") == []
    assert sorted(ranges(a)) == ["mine", "web"]
    for root in (b, c):
        run(root, "sync")
    assert sorted(ranges(b)) == ["db", "web"]
    assert ranges(c) == {"web": ranges(a)["web"]}
    assert lines(b)["usernsplan-db"].endswith(":131072")
    assert told("plan", "--check") == []


@pytest.mark.slow
def test_what_a_plan_file_cannot_have_for_other_hosts_is_said(
    three: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    a, b, _ = three
    put(a, "../plan.yaml", FOR_HOSTS)
    # Not by a host's role.
    run(b, "apply", "--yes", str(a / "plan.yaml"), status=8)
    assert ranges(b) == {}
    for old, new, fact, status in (
        ("[db]", "[dp]", "hosts: this file has no container 'dp'", 1),
        ("  b:", "  bb:", "the fleet has no host 'bb'", 2),
        ("size: 131072", "volumes: [/srv]", "but not for volumes", 1),
    ):
        put(a, "../plan.yaml", FOR_HOSTS.replace(old, new))
        _, err = run(a, "plan", str(a / "plan.yaml"), status=status)
        assert fact in err
    alone = tmp_path / "alone"
    (alone / "etc").mkdir(parents=True)
    put(alone, "plan.yaml", FOR_HOSTS)
    assert "in no fleet" in run(alone, "plan", str(alone / "etc/plan.yaml"), status=1)[1]
    put(alone, "plan.yaml", FOR_HOSTS.replace("  b: [db]\n", ""))
    run(alone, "apply", "--yes", str(alone / "etc/plan.yaml"))
    assert sorted(ranges(alone)) == ["db", "mine", "web"]


def test_a_plan_file_has_names_that_are_local(three: tuple[Path, Path, Path]) -> None:
    a, b, _ = three
    run(a, *ALLOCATE, "web")
    put(b, "../plan.yaml", "strategy: per-container\ncontainers: [{name: web, local: true}]\n")
    run(b, "apply", "--yes", str(b / "plan.yaml"))
    assert ranges(b)["web"] != ranges(a)["web"]
    assert "local: true" in run(b, "export")[0]
    put(b, "../plan.yaml", run(b, "export")[0])
    run(b, "plan", "--check", str(b / "plan.yaml"))
