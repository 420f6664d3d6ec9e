"""Volumes of a fleet on shared storage: one host at a time works on one, and a range stays taken while any host has it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.command import here, missing, needs_root
from tests.documents import document_in
from tests.each import each
from usernsplan import joining
from usernsplan.errors import LedgerUnreachableError
from usernsplan.host import identity
from usernsplan.host.files import layout_at
from usernsplan.host.mounts import LOCAL, OVERLAYS
from usernsplan.ledger.leases import Leases
from usernsplan.volume.chown import Chown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.postgres import FleetOfRoots

pytestmark = needs_root

# The first slot of the default pool.
FIRST = 589824


class Two(NamedTuple):
    """Two hosts that have the same folder, at /srv on one and at /mnt/nas on the other; both have web."""

    fleet: FleetOfRoots
    a: Path
    b: Path
    shared: Path

    def on_a(self, words: str, status: int | None = 0) -> str:
        return "".join(here(*words.split(), "--root", self.a, status=status))

    def on_b(self, words: str, status: int | None = 0) -> str:
        return "".join(here(*words.split(), "--root", self.b, status=status))

    def owners(self) -> dict[str, int]:
        return {
            str(path.relative_to(self.shared)): path.lstat().st_uid
            for path in sorted(self.shared.rglob("*"))
        }

    def leases(self, root: Path | None = None) -> list[dict[str, Any]]:
        out, _ = here("volumes", "--fleet", "--json", "--root", root or self.a)
        found: list[dict[str, Any]] = document_in(out)["leases"]
        return found

    def open(self) -> list[tuple[str, str]]:
        return [(one["host"], one["path"]) for one in self.leases() if one["ended"] is None]


@contextmanager
def two_hosts(fleet: FleetOfRoots, shared: Path, *mount: str) -> Iterator[Two]:
    a, b = fleet.host("a"), fleet.host("b")
    for name in ("web/in", "other"):
        (shared / name).mkdir(parents=True)
        (shared / name / "file").write_text(name)
    points = [a / "srv", b / "mnt/nas"]
    for root, point in zip((a, b), points, strict=True):
        point.mkdir(parents=True)
        subprocess.run([*mount, shared, point], check=True)
        here("allocate", "web", "--strategy", "per-container", "--root", root)
    yield Two(fleet, a, b, shared)
    for point in points:
        subprocess.run(["umount", point], check=True)


@pytest.fixture
def two(fleet: FleetOfRoots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Two]:
    # The folder is on a file system of this machine, and stands for one on a server.
    monkeypatch.setattr(identity, "_OWN", frozenset())
    with two_hosts(fleet, tmp_path / "shared", "mount", "--bind") as found:
        yield found


@pytest.fixture
def served(fleet: FleetOfRoots, tmp_path: Path) -> Iterator[Two]:
    """The same with a folder that a program serves to both."""
    if not shutil.which("bindfs"):
        missing("bindfs")
    with two_hosts(fleet, tmp_path / "shared", "bindfs") as found:
        yield found


FIX_A = "fix-volume /srv/web --container web --mode shift"
FIX_B = "fix-volume /mnt/nas/web --container web --mode shift"


@pytest.mark.slow
def test_a_folder_that_a_server_has_is_the_same_on_each_host(
    served: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(served, monkeypatch)
    assert "the host a has been at work on /srv/web since" in served.on_b(FIX_B, 9)
    served.on_b("fix-volume /mnt/nas/other --container web --mode shift")
    served.on_a(FIX_A)
    served.on_b(FIX_B)
    assert {*served.owners().values()} == {FIRST}


def killed_in(step: str, two: Two, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """Run it on a in a process of its own that is killed where this step of Chown begins."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if not pid:
        try:
            monkeypatch.setattr(Chown, step, die)
            two.on_a(words, None)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


def killed(two: Two, monkeypatch: pytest.MonkeyPatch, words: str = FIX_A) -> None:
    """Run it on a in a process of its own that is killed when all is changed but the tops."""

    killed_in("_with_tops", two, monkeypatch, words)
    # Its workers hold the lock until they see that it is gone.
    for _ in range(1000):
        out = here("history", "--runs", "--json", "--root", two.a)[0]
        if not json.loads(out)["runs"][-1]["at_work"]:
            return
        time.sleep(0.01)
    raise AssertionError(out)


def test_a_run_that_was_killed_keeps_other_hosts_away_until_its_host_finishes_it(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(two, monkeypatch)
    assert two.owners()["web"] == 0
    half = two.owners()
    assert half["web/in"] == FIRST

    said = two.on_b(FIX_B, 9)
    assert "the host a has been at work on /srv/web since" in said
    assert "volumes --end-lease a/" in said
    # What lies in it, and what it lies in.
    two.on_b("fix-volume /mnt/nas/web/in --container web --mode shift", 9)
    two.on_b("fix-volume /mnt/nas --container web --mode shift", 9)
    assert two.owners() == half
    assert not (two.b / "var/lib/usernsplan/runs").exists() or not [
        one for one in (two.b / "var/lib/usernsplan/runs").iterdir() if one.is_dir()
    ]
    # What lies beside it is free, and no host's reading is held up.
    two.on_b("fix-volume /mnt/nas/other --container web --mode shift")
    two.on_b(f"{FIX_B} --dry-run")

    assert two.open() == [("a", "/srv/web")]
    # Only the server knows whether the run still has its lease.
    config, good = without_server(two)
    two.on_a(FIX_A, 10)
    two.on_a("undo --last", 10)
    assert two.owners() == half | {"other": FIRST, "other/file": FIRST}
    config.write_text(good)
    two.on_a(FIX_A)
    assert two.open() == []
    assert {*two.owners().values()} == {FIRST}
    assert "already right 3" in two.on_b(FIX_B)


@pytest.mark.slow
def test_what_one_machine_has_for_itself_is_asked_of_nobody(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(two, monkeypatch)
    monkeypatch.setattr(identity, "_OWN", LOCAL | OVERLAYS)
    # A cloned machine has another folder under the same names and numbers.
    two.on_b(FIX_B)
    two.on_b("fix-volume /mnt/nas/other --container web --mode shift")
    assert [(one["host"], one["path"]) for one in two.leases()] == [("a", "/srv/web")]


@pytest.mark.slow
def test_it_keeps_them_away_until_its_host_has_undone_it(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = two.owners()
    killed(two, monkeypatch)
    two.on_b(FIX_B, 9)
    two.on_a("undo --last")
    assert two.owners() == before
    assert [(o["host"], o["outcome"]) for o in two.leases()] == [("a", "undone")]
    two.on_b(FIX_B)
    assert two.owners()["web"] == FIRST


@pytest.mark.slow
def test_a_moved_folder_is_the_same_volume(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(two, monkeypatch)
    (two.shared / "web").rename(two.shared / "moved")
    two.on_b("fix-volume /mnt/nas/moved --container web --mode shift", 9)
    # Something new at the place is another one.
    (two.shared / "web").mkdir()
    two.on_b(FIX_B)


@pytest.mark.slow
def test_which_host_fixed_which_volume_by_which_run_stays_known(two: Two) -> None:
    two.on_a(FIX_A)
    two.on_b("fix-volume /mnt/nas/other --container web --mode shift")
    found = two.leases(two.b)
    assert [(o["host"], o["path"], o["container"], o["method"], o["outcome"]) for o in found] == [
        ("b", "/mnt/nas/other", "web", "chown", "done"),
        ("a", "/srv/web", "web", "chown", "done"),
    ]
    runs = json.loads(here("history", "--runs", "--json", "--root", two.a)[0])["runs"]
    assert found[1]["run"] == runs[0]["run"]
    text = here("volumes", "--fleet", "--root", two.b)[0]
    assert "/mnt/nas/other" in text
    # A run without anything to do is none; a new one replaces the one before.
    two.on_a(FIX_A)
    assert two.leases() == found
    os.chown(two.shared / "web/in/file", 0, 0)
    two.on_a(FIX_A)
    again = two.leases()
    assert (len(again), again[1]["run"] != found[1]["run"]) == (2, True)


def without_server(two: Two) -> tuple[Path, str]:
    """Let a's config.yaml name a place where nobody answers; returns it, with what it said."""
    config = two.a / "etc/usernsplan/config.yaml"
    good = config.read_text()
    config.write_text('ledger: "host=127.0.0.1 port=1 dbname=nowhere"\n')
    return config, good


@pytest.mark.slow
def test_without_the_server_nothing_is_changed_and_what_only_reads_goes_on(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    two.on_a(FIX_A)
    two.on_a("fix-volume /srv/other --container web --mode shift")
    (two.shared / "new").mkdir()
    before = two.owners()

    def kept() -> dict[str, bytes]:
        state = two.a / "var/lib/usernsplan"
        return {str(p): p.read_bytes() for p in state.rglob("*.json")}

    files = kept()
    config, good = without_server(two)
    for words in (
        "fix-volume /srv/web --container web --mode own",
        "mount-volume /srv/new --container web --mode shift",
        "undo --last",
        "history --prune-runs --older-than 0h",
        "remap web --start 786432 --yes",
    ):
        two.on_a(words, 10)
        assert kept() == files, words
    for words in (
        "volumes",
        f"{FIX_A} --dry-run",
        "undo --last --dry-run",
        "history --runs",
        "history --prune-runs --older-than 0h --dry-run",
    ):
        two.on_a(words)
    # What it has for itself, it would have to record.
    monkeypatch.setattr(identity, "_OWN", LOCAL | OVERLAYS)
    two.on_a("fix-volume /srv/new --container web --mode shift", 10)
    assert two.owners() == before
    config.write_text(good)
    two.on_a("undo --last")
    two.on_a("history --prune-runs --older-than 0h")


def test_a_run_whose_lease_was_ended_stops_before_it_changes_more(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Chown._with_tops

    def taken_away(self: Chown, *rest: Any) -> Any:  # noqa: ANN401 - passed on
        two.fleet.query(
            "UPDATE usernsplan.lease SET ended = now(), outcome = 'given up', role = 'olga'"
        )
        return real(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Chown, "_with_tops", taken_away)
        assert "was ended; it stops where it is" in two.on_a(FIX_A, 9)
    assert two.owners()["web"] == 0
    # Others may have changed the volume since, so its journal is worth nothing.
    half = two.owners()
    for words in (FIX_A, "undo --last"):
        said = two.on_a(words, 9)
        assert "olga gave up the run" in said
        assert "mv " in said
    assert two.owners() == half
    two.on_b(FIX_B)
    assert two.owners()["web"] == FIRST


@pytest.mark.slow
def test_a_run_that_loses_its_connection_stops_and_keeps_its_lease(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Chown._with_tops

    def cut(self: Chown, *rest: Any) -> Any:  # noqa: ANN401 - passed on
        two.fleet.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s",
            f"h_a_{two.fleet.database}",
        )
        return real(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Chown, "_with_tops", cut)
        two.on_a(FIX_A, 10)
    assert (two.owners()["web"], two.owners()["web/in"]) == (0, FIRST)
    assert two.open() == [("a", "/srv/web")]
    two.on_b(FIX_B, 9)
    two.on_a(FIX_A)
    assert two.open() == []
    assert two.owners()["web"] == FIRST


@pytest.mark.slow
def test_an_end_that_could_not_be_told_is_told_by_the_next_command(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise LedgerUnreachableError("the line is cut")

    with monkeypatch.context() as patch:
        patch.setattr(Leases, "end", lost)
        # What it did is in the ledger only when the server answers: the same lines tell it.
        said = two.on_a(FIX_A, None)
    assert two.owners()["web"] == FIRST
    assert "does not know yet" in said or "the line is cut" in said
    assert two.open() == [("a", "/srv/web")]
    two.on_b(FIX_B, 9)
    two.on_a("allocate more --strategy per-container")
    assert two.open() == []
    two.on_b(FIX_B)


@pytest.mark.slow
def test_a_run_that_was_killed_while_it_looked_keeps_nobody_away_for_long(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_in("decide", two, monkeypatch, FIX_A)
    assert two.open() == [("a", "/srv/web")]
    for _ in range(1000):
        two.on_a("fix-volume /srv/other --container web --mode shift")
        if not two.open():
            break
        time.sleep(0.01)
    two.on_b(FIX_B)


OVERLAP = "--uid-map 0:100:1000 --gid-map 0:100:1000 --mode shift"


@pytest.mark.slow
def test_ids_that_one_host_moved_by_a_map_that_overlaps_itself_are_not_moved_by_another(
    two: Two,
) -> None:
    two.on_a(f"fix-volume /srv/web {OVERLAP}")
    assert {two.owners()[name] for name in ("web", "web/in/file")} == {100}
    said = two.on_b(f"fix-volume /mnt/nas/web {OVERLAP}")
    assert "of the host a moved these ids in /srv/web already" in said
    assert two.owners()["web"] == 100
    two.on_b(f"fix-volume /mnt/nas/web {OVERLAP} --again")
    assert two.owners()["web"] == 200
    # Now b was the last.
    assert "already did this" in two.on_b(f"fix-volume /mnt/nas/web {OVERLAP}")


@pytest.mark.slow
def test_an_operator_ends_the_lease_of_a_host_that_is_gone(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(two, monkeypatch)
    [run] = [one["run"] for one in two.leases()]
    assert "is no operator" in two.on_b(f"volumes --end-lease a/{run} --yes", 8)
    assert "use --yes" in two.on_b(f"volumes --end-lease a/{run}", 2)
    operator = two.fleet.root("c", url := two.fleet.role("olga", "usernsplan_operator"))
    joining.join(layout_at(str(operator)), url, "c")
    here("volumes", "--end-lease", "a/nothing", "--yes", "--root", operator, status=1)
    out, _ = here("volumes", "--end-lease", f"a/{run}", "--yes", "--json", "--root", operator)
    [left] = json.loads(out)["leases"]
    assert (left["outcome"], left["role"].startswith("olga")) == ("given up", True)
    two.on_b(FIX_B)
    assert {two.owners()[name] for name in ("web", "web/in", "web/in/file")} == {FIRST}


@pytest.mark.slow
def test_a_host_changes_no_lease_but_its_own(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg  # noqa: PLC0415 - may be missing

    killed(two, monkeypatch)
    [[token]] = two.fleet.query("SELECT DISTINCT token FROM usernsplan.lease")
    role = f"h_b_{two.fleet.database}"
    with psycopg.connect(two.fleet.server.url_of(role, two.fleet.database), autocommit=True) as db:
        for statement in (
            "UPDATE usernsplan.lease SET ended = now()",
            "DELETE FROM usernsplan.lease",
            f"SELECT usernsplan.end_lease('a', {token}, 'done')",
            f"SELECT usernsplan.check_lease('a', {token})",
            "SELECT usernsplan.take_lease('a', 'r', '', 'chown', '', '{}', '{}', '{}', '{}')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(statement)
        db.execute("SELECT usernsplan.end_lease('b', %s, 'done')", (token,))
    assert two.open() == [("a", "/srv/web")]


@pytest.mark.slow
def test_a_mount_keeps_others_away_while_it_is_made(two: Two) -> None:
    two.shared.chmod(0o700)
    for folder in (two.a / "srv", two.shared):
        folder.chmod(0o700)
    done = two.on_a("mount-volume /srv/web --container web --mode shift --protect parent", None)
    if "cannot have an idmap" in done:
        pytest.skip(done)
    [one] = two.leases()
    assert (one["method"], one["outcome"]) == ("idmap", "done"), done
    two.on_a("undo --last")
    assert [o["outcome"] for o in two.leases()] == ["undone"]


@each(
    ("one", "other", "expected"),
    [
        (("s", "/a", "1"), ("s", "/a", "1"), True),
        (("s", "/a", "1"), ("t", "/a", "1"), False),
        (("s", "/a", "1"), ("s", "/a/b", "2"), True),
        (("s", "/a", "1"), ("s", "/ab", "2"), False),
        (("s", "", "1"), ("s", "/ab", "2"), True),
        (("s", "/a_", ""), ("s", "/ab/c", ""), False),
        (("s", "/a", ""), ("s", "/a", ""), True),
        # Copies of one disk; a folder that was moved.
        (("s", "/a", "1"), ("s", "/a", "2"), False),
        (("s", "/a", "1"), ("s", "/b", "1"), True),
    ],
)
def test_when_two_volumes_meet(
    fleet: FleetOfRoots, one: tuple[str, ...], other: tuple[str, ...], expected: bool
) -> None:
    for pair in ((one, other), (other, one)):
        found = fleet.query(
            "SELECT usernsplan.volumes_meet(%s, %s, %s, %s, %s, %s)", *pair[0], *pair[1]
        )
        assert found == [(expected,)]


def taken_on(root: Path, name: str = "new") -> bool:
    """Whether a host cannot get the first range of the pool."""
    words = f"allocate {name} --strategy per-container --start {FIRST} --dry-run"
    try:
        here(*words.split(), "--root", root)
    except AssertionError:
        return True
    return False


def test_a_range_is_given_out_again_when_each_host_that_had_it_has_forgotten_it(two: Two) -> None:
    c = two.fleet.host("c")
    two.on_a("release web")
    assert "b has it" in two.on_a("release --forget web --dry-run")
    assert "b has it" in two.on_a("release --forget web")
    assert all(map(taken_on, (two.a, c)))
    two.on_b("release web")
    assert all(map(taken_on, (two.a, c)))
    (two.shared / "web/in/file").touch()
    os.chown(two.shared / "web/in/file", FIRST, FIRST)
    assert "files still carry the ids" in two.on_b("release --forget web --scan /mnt/nas", 9)
    assert taken_on(c)
    os.chown(two.shared / "web/in/file", 0, 0)
    assert "quarantine" not in two.on_b("release --forget web --scan /mnt/nas").split("\n", 1)[1]
    assert two.fleet.holds() == set()
    assert not taken_on(c)


@pytest.mark.slow
def test_two_that_only_quarantine_it(two: Two) -> None:
    two.on_a("release web")
    two.on_b("release web")
    assert "b quarantines it" in two.on_a("release --forget web")
    assert taken_on(two.a)
    # The same name gets it meanwhile, from the one that still has it.
    two.on_a("allocate web --strategy per-container")
    assert (two.a / "etc/subuid").read_text() == f"usernsplan-web:{FIRST}:65536\n"


@pytest.mark.slow
def test_what_a_host_had_that_left_is_not_given_out(two: Two) -> None:
    two.on_b("release web")
    two.on_a("release web")
    two.on_a("release --forget web")
    [[number]] = two.fleet.query("SELECT number FROM usernsplan.host WHERE name = 'b'")
    b = f"h_b_{two.fleet.database}"
    leave = "SELECT usernsplan.leave('b')"
    two.fleet.server.query(leave, database=two.fleet.database, role=b)
    left = f"b, left {number}"
    assert {(name, host, state) for name, *_, host, state in two.fleet.holds()} == {
        ("web", left, "quarantined")
    }
    assert taken_on(two.a)

    # The machine joins again, and says what it has.
    (two.b / "var/lib/usernsplan/fleet.json").unlink()
    url = two.fleet.server.url_of(b, two.fleet.database)
    joining.join(layout_at(str(two.b)), url, "b2")
    assert {host for *_, host, _ in two.fleet.holds()} == {"b2"}
    two.on_b("release --forget web")
    assert not taken_on(two.a)


@pytest.mark.slow
def test_an_operator_says_that_no_file_of_a_host_that_left_carries_ids(two: Two) -> None:
    two.on_a("release web")
    two.on_a("release --forget web")
    [[number]] = two.fleet.query("SELECT number FROM usernsplan.host WHERE name = 'b'")
    b = f"h_b_{two.fleet.database}"
    two.fleet.server.query("SELECT usernsplan.leave('b')", database=two.fleet.database, role=b)
    # Its ids were in use, and may be in files.
    assert taken_on(two.a)
    left = f"b, left {number}"
    words = ("release", "--forget", "web", "--of", left, "--yes")
    here(*words, "--root", two.a, status=8)
    operator = two.fleet.root("c", url := two.fleet.role("olga", "usernsplan_operator"))
    joining.join(layout_at(str(operator)), url, "c")
    here(*words[:-2], "a", "--yes", "--root", operator, status=1)
    here(*words, "--root", operator)
    assert not taken_on(two.a)


@pytest.mark.slow
def test_no_host_leaves_in_the_middle_of_a_run(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg  # noqa: PLC0415 - may be missing

    killed(two, monkeypatch)
    role = f"h_a_{two.fleet.database}"
    with pytest.raises(psycopg.Error, match="a works on the volume /srv/web"):
        two.fleet.server.query(
            "SELECT usernsplan.leave('a')", database=two.fleet.database, role=role
        )
