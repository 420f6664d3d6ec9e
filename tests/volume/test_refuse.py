"""What fix-volume refuses before it writes anything, and what it leaves alone and names."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from tests.command import PROGRAM, missing, usernsplan
from tests.each import each
from tests.volume.tree import (
    Host,
    Rule,
    acl_of,
    age,
    busy,
    capability_v3,
    differences,
    expected,
    finish,
    flagged,
    folder,
    maps,
    mounted,
    own,
    shift,
    simple,
    snapshot,
    write,
)
from usernsplan.cli import main

REFUSED = 9
NOBODY = 65534
# Moved twice, 5 is at 2005; moved once, at 1005, which is in the range that is moved.
TWICE = Rule(((0, 1000, 5000),), ((0, 1000, 5000),), 1000, source_wins=True)


@contextmanager
def nothing_changes(top: Path) -> Iterator[None]:
    """Not an owner, not a ctime."""
    before = snapshot(top)
    yield
    assert snapshot(top) == before


def refused(host: Host, *words: str | Path, path: str | Path | None = None) -> str:
    """Run it where it is to be refused; what it said. Nothing below the root changed, and no run was begun."""
    with nothing_changes(host.volume), nothing_changes(host.outside):
        said = host.refusal(*words, status=REFUSED, path=path)
    assert host.run_names() == []
    return said


def paths_of(found: list[dict[str, str]]) -> list[str]:
    """The last parts of the paths of a report, sorted; each has a reason."""
    assert all(entry["reason"] for entry in found)
    return sorted(Path(entry["path"]).name for entry in found)


@pytest.fixture
def web(host: Host) -> Host:
    """A host with one container, and a volume of one user."""
    host.allocate("web")
    simple(host.volume, 33, 33)
    return host


# Places.

NEVER = ["/", "/etc", "/usr", "/proc", "/sys", "/dev"]
PROTECTED = [
    *NEVER,
    "/bin",
    "/boot",
    "/home",
    "/lib",
    "/root",
    "/run",
    "/sbin",
    "/var",
    "/var/lib",
    # Below one of them.
    "/etc/ssl",
    "/usr/lib/python3",
    "/proc/self",
    "/sys/fs",
    # Storage of container engines, and what holds it.
    "/var/lib/containers",
    "/var/lib/containers/storage/overlay",
    "/var/lib/docker",
    # Our own.
    "/var/lib/usernsplan",
]


@pytest.mark.spread(6)
@pytest.mark.parametrize("path", PROTECTED)
def test_protected_paths_are_refused(web: Host, path: str) -> None:
    place = web.root / path.lstrip("/")
    place.mkdir(parents=True, exist_ok=True)
    (place / "file").write_text("a system's")
    ledger = web.root / "var/lib/usernsplan/ledger.sqlite3"
    with (
        nothing_changes(place)
        if "var" not in path and path != "/"
        else nothing_changes(web.root / "etc")
    ):
        said = refused(web, path=path)
        assert path in said
        refused(web, path=place)
    assert ledger.exists()


@pytest.mark.parametrize("path", [*NEVER, "/proc/self", "/sys/fs", "/dev/pts"])
def test_yes_does_not_open_what_a_system_is_made_of(web: Host, path: str) -> None:
    (web.root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
    refused(web, "--protected", path=path)
    refused(web, "--protected", "--mode", "shift", path=path)


def test_a_home_is_refused_and_opened_by_yes(web: Host) -> None:
    [start] = web.starts.values()
    (web.root / "etc/passwd").write_text("alice:x:1000:1000::/home/alice:/bin/sh\n")
    home = web.root / "home/alice"
    simple(home, 1000, 1000)
    with nothing_changes(home):
        said = refused(web, path=home)
    assert "/home/alice" in said
    assert "--protected" in said
    before = snapshot(home)
    web.fix("--mode", "shift", "--protected", path=home)
    assert differences(snapshot(home), expected(before, shift(start))) == []


def test_one_protected_path_refuses_the_whole_run(web: Host) -> None:
    with nothing_changes(web.root / "etc"):
        said = refused(web, "/etc")
    assert "/etc" in said


def test_a_path_that_is_a_symlink_is_refused_with_the_real_path(web: Host) -> None:
    (web.root / "link").symlink_to(web.volume)
    said = refused(web, path=web.root / "link")
    assert "symlink" in said or "symbolic" in said
    assert "/srv/vol" in said


def test_a_symlink_above_the_path_is_followed_and_the_real_path_reported(web: Host) -> None:
    (web.root / "above").symlink_to(web.volume.parent)
    report = web.fix("--dry-run", path=web.root / "above/vol")
    assert report["volumes"] == [{"path": str(web.volume)}]


def test_a_symlink_above_the_path_opens_nothing_that_is_protected(web: Host) -> None:
    (web.root / "etc/below").mkdir()
    (web.root / "above").symlink_to(web.root / "etc")
    with nothing_changes(web.root / "etc"):
        assert "/etc" in refused(web, path=web.root / "above/below")


@pytest.mark.parametrize("spelling", ["whole", "from the root"])
def test_a_symlink_above_the_path_does_not_lead_out_of_the_root(web: Host, spelling: str) -> None:
    stray = web.root.parent / f"{web.root.name}-stray"
    simple(stray / "below", 33, 33)
    (web.root / "out").symlink_to(stray)
    with nothing_changes(stray):
        done = web.attempt(
            "fix-volume", web.root / "out/below" if spelling == "whole" else "/out/below"
        )
    assert done.returncode in {1, 2, REFUSED}
    assert "out/below" in done.stderr or str(stray) in done.stderr


def test_a_symlink_to_a_protected_path_is_refused(web: Host) -> None:
    (web.volume / "link").symlink_to("/etc")
    with nothing_changes(web.root / "etc"):
        refused(web, "--protected", path=web.volume / "link")


@pytest.mark.parametrize(
    "path", ["/srv/../srv/vol", "/srv/vol/..", "/srv/outside/../vol", "/srv/vol/../../etc"]
)
def test_a_path_with_dots_is_refused_with_the_real_path(web: Host, path: str) -> None:
    said = refused(web, path=path)
    assert ".." in said
    assert os.path.normpath(path) in said


def test_a_relative_path_begins_where_one_stands(web: Host) -> None:
    [start] = web.starts.values()
    before = snapshot(web.volume)
    usernsplan("fix-volume", "vol", "--mode", "shift", "--root", web.root, cwd=web.root / "srv")
    assert differences(snapshot(web.volume), expected(before, shift(start))) == []


def test_a_relative_path_that_leads_out_of_the_root_is_an_error(web: Host) -> None:
    stray = web.root.parent / f"{web.root.name}-stray"
    simple(stray, 33, 33)
    with nothing_changes(stray):
        done = web.attempt("fix-volume", stray.name, cwd=stray.parent)
    assert done.returncode in {2, REFUSED}
    assert stray.name in done.stderr


def test_a_path_below_the_root_may_be_said_from_the_root_or_whole(web: Host) -> None:
    foretold = [
        web.fix("--dry-run", path=path)
        for path in ("/srv/vol", web.volume, f"{web.volume}/", "/srv//vol/")
    ]
    assert len({str(report["counts"]) for report in foretold}) == 1
    assert foretold[0]["counts"]["changed"] == 4


@pytest.mark.parametrize("path", ["/srv/none", "/srv/vol/file-0/below"])
def test_a_path_that_is_not_there_is_an_error(web: Host, path: str) -> None:
    done = web.attempt("fix-volume", path)
    assert done.returncode in {1, 2, REFUSED}
    assert path in done.stderr


# The proposal's spelling.


@pytest.mark.parametrize(
    ("spelling", "user"),
    [
        ("/srv/vol:/data:U", 0),
        ("/srv/vol:/data", 0),
        ("/srv/vol:/data:ro,U", 0),
        ("/srv/vol:/data:rw,U,z", 0),
    ],
)
def test_a_volume_may_be_written_as_for_podman(web: Host, spelling: str, user: int) -> None:
    [start] = web.starts.values()
    before = snapshot(web.volume)
    report = web.fix(path=spelling)
    assert report["mode"] == "own"
    assert [Path(volume["path"]).name for volume in report["volumes"]] == ["vol"]
    assert differences(snapshot(web.volume), expected(before, own(start, user, user))) == []


def test_a_volume_with_a_colon_in_its_name_is_a_volume(web: Host) -> None:
    [start] = web.starts.values()
    odd = web.root / "srv/a:b"
    simple(odd, 33, 33)
    before = snapshot(odd)
    web.fix("--mode", "shift", path=odd)
    assert differences(snapshot(odd), expected(before, shift(start))) == []


# Owners and ids that the map lacks.


def strangers(host: Host) -> None:
    """Four owners that no container id is mapped to."""
    top = os.fsencode(host.volume) + b"/stranger-%d"
    owners = [(70000, 0), (70000, 80000), (70001, 80000), (0, 80001), (90000, 5)]
    for number, (user, group) in enumerate(owners):
        finish(write(top % number), user, group, 0o4755)


def test_owners_that_the_map_lacks_are_refused_with_a_table(volumes: Host) -> None:
    volumes.allocate("web")
    simple(volumes.volume, 33, 33)
    strangers(volumes)
    said = refused(volumes, "--mode", "shift")
    lines = said.splitlines()
    for number, files in ((70000, 2), (70001, 1), (90000, 1), (80000, 2), (80001, 1)):
        assert any(
            str(number) in line and str(files) in line.replace(str(number), "") for line in lines
        ), number
    assert "--unmapped keep" in said
    # Who gives everything one owner does not mind.
    volumes.fix("--mode", "own")


def test_an_id_of_an_acl_that_the_map_lacks_is_refused_or_kept(volumes: Host) -> None:
    [start] = volumes.allocate("web")
    simple(volumes.volume, 33, 33)
    acl = acl_of(0o644, {70000: 7, 5: 6}, {80000: 5, 6: 4})
    finish(write(os.fsencode(volumes.volume) + b"/listed"), 33, 33, 0o4644, acl=acl)
    finish(folder(os.fsencode(volumes.volume) + b"/default"), 33, 33, 0o755, default_acl=acl)
    said = refused(volumes, "--mode", "shift")
    assert "70000" in said
    before = snapshot(volumes.volume)
    volumes.fix("--mode", "shift", "--unmapped", "keep")
    assert differences(snapshot(volumes.volume), expected(before, shift(start, keep=True))) == []


@pytest.mark.parametrize("mode", ["shift", "own"])
def test_the_root_of_a_capability_that_the_map_lacks_is_refused_or_kept(
    volumes: Host, mode: str
) -> None:
    [start] = volumes.allocate("web")
    simple(volumes.volume, 33, 33)
    capability = capability_v3(70000)
    finish(write(os.fsencode(volumes.volume) + b"/capable"), 33, 33, 0o755, capability=capability)
    assert "capable" in refused(volumes, "--mode", mode)
    report = volumes.fix("--mode", mode, "--unmapped", "keep")
    seen = snapshot(volumes.volume)[b"capable"]
    # Somebody else's file takes no capability along to one owner of all.
    kept = capability if mode == "shift" else b""
    assert (seen.capability, seen.uid) == (kept, start + (33 if mode == "shift" else 0))
    assert paths_of(report["dropped"]) == ([] if mode == "shift" else ["capable"])


def test_an_id_is_looked_for_in_the_map_of_its_kind(host: Host) -> None:
    rule = Rule(((0, 100000, 100),), ((0, 200000, 50),), 100000)
    simple(host.volume, 33, 33)
    finish(write(os.fsencode(host.volume) + b"/user"), 60, 7)
    before = snapshot(host.volume)
    host.fix(*maps(rule), "--dry-run")
    finish(write(os.fsencode(host.volume) + b"/group"), 7, 60)
    assert "60" in refused(host, *maps(rule))
    (host.volume / "group").unlink()
    host.fix(*maps(rule))
    wanted = expected(before, rule)
    assert {p: (i.uid, i.gid) for p, i in snapshot(host.volume).items()} == {
        p: (i.uid, i.gid) for p, i in wanted.items()
    }


@pytest.mark.parametrize("kind", ["users", "groups", "default"])
def test_an_acl_whose_ids_become_one_is_refused(web: Host, kind: str) -> None:
    [start] = web.starts.values()
    two = {5: 7, start + 5: 4}
    acl = acl_of(0o644, {} if kind == "groups" else two, two if kind == "groups" else {})
    path = os.fsencode(web.volume) + b"/twice"
    if kind == "default":
        finish(folder(path), 33, 33, 0o755, default_acl=acl)
    else:
        finish(write(path), 33, 33, 0o644, acl=acl)
    said = refused(web, "--mode", "shift")
    assert "twice" in said
    # own leaves ACLs as they are.
    before = snapshot(web.volume)
    web.fix("--mode", "own")
    assert differences(snapshot(web.volume), expected(before, own(start))) == []


def test_two_strange_ids_that_become_one_with_keep_are_refused_too(host: Host) -> None:
    rule = Rule(((0, 100, 10),), ((0, 100, 10),), 100)
    simple(host.volume, 3, 3)
    finish(write(os.fsencode(host.volume) + b"/twice"), 3, 3, acl=acl_of(0o644, {5: 7, 105: 4}, {}))
    assert "twice" in refused(host, *maps(rule), "--unmapped", "keep")


# Links to outside.


def linked_outside(host: Host) -> None:
    """A volume with two files that are also outside of it."""
    simple(host.volume, 33, 33)
    simple(host.outside, 0, 0)
    os.link(host.outside / "file-0", host.volume / "linked")
    os.link(host.outside / "file-0", host.volume / "linked-again")
    (host.volume / "below").mkdir()
    os.link(host.outside / "file-1", host.volume / "below/linked-too")


@pytest.mark.parametrize("words", [(), ("--mode", "shift"), ("--outside-links", "refuse")])
def test_a_link_to_something_outside_is_refused(volumes: Host, words: tuple[str, ...]) -> None:
    volumes.allocate("web")
    linked_outside(volumes)
    said = refused(volumes, *words)
    assert "linked" in said
    assert "--outside-links skip" in said


@pytest.mark.parametrize("as_of", [age, busy])
@pytest.mark.parametrize("mode", ["shift", "own"])
def test_a_link_to_something_outside_is_left_and_named_where_one_says_so(
    volumes: Host, mode: str, as_of: Callable[[Path], None]
) -> None:
    [start] = volumes.allocate("web")
    linked_outside(volumes)
    as_of(volumes.volume)
    before = snapshot(volumes.volume)
    with nothing_changes(volumes.outside):
        report = volumes.fix("--outside-links", "skip", "--mode", mode)
    assert set(paths_of(report["skipped"])) >= {"linked-too"}
    assert set(paths_of(report["skipped"])) & {"linked", "linked-again"}
    wanted = expected(before, shift(start) if mode == "shift" else own(start))
    outside = {path: before[path] for path in (b"linked", b"linked-again", b"below/linked-too")}
    assert differences(snapshot(volumes.volume), {**wanted, **outside}) == []
    # And once more.
    with nothing_changes(volumes.volume):
        assert volumes.fix("--outside-links", "skip", "--mode", mode)["changed"] is False


def test_a_link_to_something_outside_that_is_right_already_is_no_harm(host: Host) -> None:
    [start] = host.allocate("web")
    simple(host.volume, start, start)
    simple(host.outside, start, start)
    os.link(host.outside / "file-0", host.volume / "linked")
    with nothing_changes(host.volume):
        # It is not written to, so nothing outside changes; a run may refuse it all the same, but never write.
        done = host.attempt("fix-volume", host.volume, "--mode", "shift")
    assert done.returncode in {0, REFUSED}


# Mounts inside.


@pytest.fixture
def mounts(volumes: Host) -> Iterator[Host]:
    """A volume in which something else is mounted: a tmpfs, a folder of the same file system, a file of it."""
    volumes.allocate("web")
    simple(volumes.volume, 33, 33)
    simple(volumes.outside, 44, 44)
    finish(os.fsencode(volumes.outside / "file-0"), 44, 44, 0o4755)
    for name in ("tmpfs", "bind", "last"):
        simple(volumes.volume / name, 33, 33)
    on_file = volumes.volume / "last/file-0"
    with (
        mounted("-t", "tmpfs", "tmpfs", volumes.volume / "tmpfs"),
        mounted("--bind", volumes.outside, volumes.volume / "bind"),
        mounted("--bind", volumes.outside / "file-0", on_file),
    ):
        simple(volumes.volume / "tmpfs", 55, 55)
        yield volumes


MOUNTED = (b"tmpfs", b"bind", b"last/file-0")


def inside_a_mount(path: bytes) -> bool:
    return any(path == mount or path.startswith(mount + b"/") for mount in MOUNTED)


@pytest.mark.parametrize("words", [("--mode", "shift"), ("--mode", "own")])
def test_mounts_inside_are_not_entered_and_named(mounts: Host, words: tuple[str, ...]) -> None:
    [start] = mounts.starts.values()
    before = snapshot(mounts.volume)
    foretold = mounts.fix(*words, "--dry-run")
    with nothing_changes(mounts.outside):
        report = mounts.fix(*words)
    assert paths_of(report["skipped"]) == ["bind", "file-0", "tmpfs"]
    assert foretold["skipped"] == report["skipped"]
    assert foretold["counts"] == report["counts"]
    rule = shift(start) if "shift" in words else own(start)
    wanted = expected(before, rule)
    mine = {path: inode if inside_a_mount(path) else wanted[path] for path, inode in before.items()}
    after = snapshot(mounts.volume)
    assert differences(after, mine) == []
    assert all(after[path] == before[path] for path in before if inside_a_mount(path))


def test_mounts_inside_are_entered_where_one_says_so(mounts: Host) -> None:
    [start] = mounts.starts.values()
    before = snapshot(mounts.volume)
    report = mounts.fix("--mode", "shift", "--cross-mounts")
    assert {place["reason"].partition(", ")[2] for place in report["skipped"]} <= {
        "and its content is met under another name"
    }
    assert differences(snapshot(mounts.volume), expected(before, shift(start))) == []
    undone = mounts.undo(report["run"], status=3)
    # A new file in its place would leave the old one to the mount.
    assert paths_of(undone["failed"]) == ["file-0"]
    assert "mounted at" in undone["failed"][0]["reason"]
    left = {path: replace(before[path], mode=0o755) for path in (b"bind/file-0", b"last/file-0")}
    assert differences(snapshot(mounts.volume), {**before, **left}) == []


def test_what_is_mounted_twice_is_moved_once(volumes: Host) -> None:
    simple(volumes.volume, 5, 5)
    for name in ("one", "two", "three"):
        simple(volumes.volume / name, 5, 5)
    with (
        mounted("--bind", volumes.volume / "one", volumes.volume / "two"),
        mounted("--bind", volumes.volume / "one/file-0", volumes.volume / "three/file-1"),
    ):
        before = snapshot(volumes.volume)
        volumes.fix(*maps(TWICE), "--cross-mounts")
        assert differences(snapshot(volumes.volume), expected(before, TWICE)) == []


@pytest.mark.parametrize("words", [(), ("--cross-mounts",)])
def test_read_only_mounts_inside_are_never_entered(volumes: Host, words: tuple[str, ...]) -> None:
    [start] = volumes.allocate("web")
    simple(volumes.volume, 33, 33)
    simple(volumes.outside, 33, 33)
    (volumes.volume / "mount").mkdir()
    place = volumes.volume / "mount"
    with mounted("--bind", volumes.outside, place):
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        with nothing_changes(volumes.outside):
            report = volumes.fix("--mode", "shift", *words)
        assert paths_of(report["skipped"]) == ["mount"]
        assert report["failed"] == []
    assert (volumes.volume / "file-0").stat().st_uid == start + 33


@pytest.mark.parametrize("path", ["etc", "usr", "var/lib/usernsplan", "."])
def test_a_mount_leads_into_nothing_that_is_protected(web: Host, path: str) -> None:
    (web.root / "usr").mkdir()
    (web.volume / "mount").mkdir()
    with mounted("--bind", web.root / path, web.volume / "mount"):
        done = web.attempt("fix-volume", web.volume, "--cross-mounts", "--mode", "shift")
    assert done.returncode == REFUSED
    assert (web.root / path).stat().st_uid == 0
    assert (web.volume / "file-0").stat().st_uid == 33


# What the system does not let us change.


@pytest.mark.parametrize("kind", ["shift", "overlapping"])
@pytest.mark.parametrize("flag", ["i", "a"])
def test_immutable_and_append_only_files_are_named_and_the_rest_is_done(
    ext4_host: Host, flag: str, kind: str
) -> None:
    host = ext4_host
    [start] = host.allocate("web")
    rule = shift(start) if kind == "shift" else TWICE
    words = ("--mode", "shift") if kind == "shift" else (*maps(TWICE), "--drop-power")
    simple(host.volume, 33, 33)
    simple(host.volume / "folder", 33, 33)
    finish(write(os.fsencode(host.volume) + b"/setuid"), 33, 33, 0o4755)
    before = snapshot(host.volume)
    stuck = [host.volume / "file-1", host.volume / "folder", host.volume / "setuid"]
    with flagged(flag, stuck[0]), flagged(flag, stuck[1]), flagged(flag, stuck[2]):
        report = host.fix(*words, status=3)
        assert paths_of(report["failed"]) == ["file-1", "folder", "setuid"]
        seen = snapshot(host.volume)
        said = host.told(*words, status=3)
        assert "file-1" in said
    wanted = expected(before, rule)
    left = {path: before[path] for path in (b"file-1", b"folder", b"setuid")}
    # The volume's root is changed last; whether it is where something failed is not promised.
    left[b"."] = seen[b"."]
    assert differences(seen, {**wanted, **left}) == []
    # Once they can be changed, the same words finish it.
    report = host.fix(*words)
    assert report["failed"] == []
    assert differences(snapshot(host.volume), wanted) == []


@pytest.mark.parametrize("error", ["EIO", "EACCES"])
def test_a_folder_that_cannot_be_listed_is_named_and_the_rest_is_done(
    web: Host, error: str
) -> None:
    [start] = web.starts.values()
    for name in ("one", "sick", "two"):
        simple(web.volume / name, 33, 33)
    if shutil.which("strace") is None:
        missing("strace")
    blow = (
        "-P",
        web.volume / "sick",
        "-e",
        "trace=getdents64",
        "-e",
        f"inject=getdents64:error={error}",
    )
    words = ("fix-volume", web.volume, "--mode", "shift", "--root", web.root)
    run = [
        "strace",
        "-f",
        "-qq",
        "-o",
        f"{web.root}.trace",
        *map(str, blow),
        *PROGRAM,
        *map(str, words),
    ]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert f"failed: {web.volume}/sick" in done.stdout
    owners = {
        path: inode.uid - start
        for path, inode in snapshot(web.volume).items()
        if path.startswith((b"one", b"two"))
    }
    assert set(owners.values()) == {33}


def as_nobody(*words: str | Path) -> tuple[int, str]:
    """Run it within a copy of this process that is nobody's: its status, and what it said on standard error."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        ended = 70
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            error = io.StringIO()
            with (
                mock.patch.object(sys, "argv", ["usernsplan", *map(str, words)]),
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(error),
            ):
                try:
                    main()
                except SystemExit as request:
                    ended = int(request.code or 0)
            os.write(tell, error.getvalue().encode())
        finally:
            os._exit(ended)
    os.close(tell)
    with os.fdopen(told) as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


@pytest.mark.parametrize(
    "words", [("--mode", "own"), ("--uid-map", "0:1000:99", "--gid-map", "0:1000:99")]
)
def test_who_is_not_root_is_told_so(web: Host, words: tuple[str, ...]) -> None:
    # As root once, so that all is imported that nobody may not read.
    web.fix(*words)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "etc").mkdir()
        simple(root / "srv/vol", NOBODY, NOBODY)
        Host(root, "").allocate("web")
        for path in (root, root / "srv", root / "var/lib/usernsplan"):
            path.chmod(0o755)
        with nothing_changes(root / "srv"):
            status, said = as_nobody("fix-volume", "/srv/vol", *words, "--root", root)
    assert status == 8, said
    assert "root" in said


# Words.


@each(
    "words",
    [
        ["--mode", "sideways"],
        ["--user", ""],
        ["--user", "1:2:3"],
        ["--user", "-1"],
        ["--user", "4294967295"],
        ["--user", "33:"],
        ["--user", "nobody-of-that-name"],
        ["--user", "33", "--mode", "shift"],
        ["--user", "70000"],
        ["--uid-map", "0:100000:65536"],
        ["--gid-map", "0:100000:65536"],
        ["--uid-map", "0:100000", "--gid-map", "0:100000:1"],
        ["--uid-map", "a:b:c", "--gid-map", "0:100000:1"],
        ["--uid-map", "0:100000:0", "--gid-map", "0:100000:1"],
        ["--uid-map", "0:4294967295:1", "--gid-map", "0:100000:1"],
        ["--uid-map", "0:1000:10", "--uid-map", "5:2000:10", "--gid-map", "0:100000:1"],
        ["--uid-map", "0:1000:10", "--gid-map", "0:1000:10", "--container", "web"],
        ["--uid-map", "0:1000:10", "--gid-map", "0:1000:10", "--mode", "own"],
        ["--reverse", "--from", "web"],
        ["--reverse", "--mode", "own"],
        ["--unmapped", "drop"],
        ["--outside-links", "follow"],
        ["--jobs", "0"],
        ["--jobs", "many"],
        ["--no-such-option"],
    ],
)
def test_wrong_words_are_wrong_usage(web: Host, words: list[str]) -> None:
    with nothing_changes(web.volume):
        assert web.refusal(*words, status=2)
    assert web.run_names() == []


def test_no_path_is_wrong_usage(web: Host) -> None:
    usernsplan("fix-volume", "--root", web.root, status=2)


@pytest.mark.parametrize("option", ["--container", "--from"])
def test_a_container_that_is_not_there_is_an_error(web: Host, option: str) -> None:
    with nothing_changes(web.volume):
        done = web.attempt("fix-volume", web.volume, option, "nope")
    assert done.returncode in {1, 2}
    assert "nope" in done.stderr
    assert "web" in done.stderr


def test_the_help_has_an_example() -> None:
    for command in ("fix-volume", "undo"):
        assert f"usernsplan {command} " in usernsplan(command, "--help").stdout
