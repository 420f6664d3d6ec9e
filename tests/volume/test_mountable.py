"""Whether a volume can have an idmapped mount, and which method auto takes: asked of the kernel."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.command import PROGRAM
from tests.volume import grounds
from tests.volume.tree import Host, mounted, simple
from usernsplan.host import standing

if TYPE_CHECKING:
    from tests.volume.grounds import Ground

START = 589824
CONTAINER = ("--container", "web")


@pytest.fixture
def web(host: Host) -> Host:
    """A host with an allocation, and a folder beside the volume with files of its own."""
    assert host.allocate("web") == [START]
    simple(host.outside, 7, 7)
    return host


def fixed_and_undone(web: Host, *words: str) -> dict[str, Any]:
    report = web.fix(*CONTAINER, *words)
    web.undo(report["run"])
    return report


@pytest.mark.parametrize(
    "ground",
    [
        grounds.plain,
        pytest.param(grounds.xfs, marks=pytest.mark.slow),
        pytest.param(grounds.btrfs, marks=pytest.mark.slow),
        grounds.read_only,
    ],
)
def test_auto_mounts_where_kernel_and_file_system_can(web: Host, ground: Ground) -> None:
    with ground(web.volume):
        report = fixed_and_undone(web, "--method", "auto", "--mode", "shift")
    [mount] = report["mounts"]
    assert mount["source"]["path"] == str(web.volume)
    assert (
        "--method auto mounts: the kernel and the file system can, and it is safe"
        in report["notes"]
    )


@pytest.mark.parametrize(
    ("ground", "why"),
    [
        (grounds.fuse, "its file system (fuse) is a program that does not permit it"),
        (grounds.overlay, "a merged overlay cannot, its layers can: {srv}/lower, {srv}/upper"),
    ],
)
def test_where_it_cannot_be_mounted_auto_changes_the_disk(
    web: Host, ground: Ground, why: str
) -> None:
    why = why.format(srv=web.volume.parent)
    refused = f"a mount of {web.volume} is refused: {why}"
    with ground(web.volume):
        told = web.refusal(*CONTAINER, "--method", "idmap", status=9)
        assert f"{web.volume} cannot have an idmap: {why}" in told
        told = web.refusal(*CONTAINER, "--method", "auto", "--at", "/srv/x", status=9)
        assert f"--at needs a mount, and there can be none: {refused}" in told
        report = web.fix(*CONTAINER, "--method", "auto", "--dry-run")
    assert report["mounts"] == []
    assert f"--method auto changes the disk: {refused}" in report["notes"]


def test_where_others_could_run_what_the_container_makes_auto_changes_the_disk(web: Host) -> None:
    words = (*CONTAINER, "--mode", "shift", "--dry-run")
    told = "could make files with the power of root (uid 0)"
    with grounds.reachable(web.volume):
        assert told in web.refusal(*words, "--method", "idmap", status=9)
        report = web.fix(*words, "--method", "auto")
        assert report["mounts"] == []
        [note] = [one for one in report["notes"] if "--method auto" in one]
        assert f"changes the disk: a mount of {web.volume} is refused: through the mount, " in note
        assert told in note
        # Through a mount that is read-only, the container makes nothing.
        assert web.fix(*words, "--read-only", "--method", "auto")["mounts"]


def test_where_an_option_changes_the_disk_auto_says_so(web: Host) -> None:
    simple(web.volume, START, START)
    report = web.fix(*CONTAINER, "--method", "auto", "--reverse", "--dry-run", "--take")
    assert "--method auto changes the disk: another option says so" in report["notes"]
    assert report["counts"]["changed"] == 4


def test_with_the_mounts_in_it_the_one_that_cannot_is_named(web: Host) -> None:
    inner = web.volume / "inner"
    inner.mkdir()
    with grounds.fuse(inner, web.outside):
        words = (*CONTAINER, "--method", "idmap", "--mode", "shift")
        told = web.refusal(*words, "--cross-mounts", status=9)
        assert f"what is mounted in it cannot: {inner} (fuse)" in told
        report = web.fix(*words)
        web.undo(report["run"])


def test_an_unbindable_mount_is_named_with_its_remedy(web: Host) -> None:
    with mounted("--bind", web.volume, web.volume):
        subprocess.run(["mount", "--make-unbindable", web.volume], check=True)
        told = web.refusal(*CONTAINER, "--method", "idmap", status=9)
        assert f"mount --make-private {web.volume}" in told
        subprocess.run(["mount", "--make-private", web.volume], check=True)
        fixed_and_undone(web, "--method", "idmap")


@pytest.mark.parametrize("answer", [errno.ENOSYS, errno.EPERM])
def test_a_filter_of_system_calls_is_named(web: Host, answer: int) -> None:
    words = ("fix-volume", web.volume, *CONTAINER, "--root", web.root, "--method")
    for method, status in (("idmap", 9), ("auto", 0)):
        done = subprocess.run(
            [*PROGRAM, *map(str, words), method, "--dry-run"],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=grounds.filtering(grounds.MOUNT_SETATTR, answer),
        )
        assert (done.returncode, "a filter of system calls (seccomp)" in done.stderr) == (
            status,
            True,
        ), done.stderr


def test_nothing_stands_and_no_file_changes_where_it_is_tried(web: Host) -> None:
    before = os.stat(web.volume).st_ctime_ns, set(standing.standing())
    web.fix(*CONTAINER, "--method", "idmap", "--dry-run")
    assert before == (os.stat(web.volume).st_ctime_ns, set(standing.standing()))


# Options on the command line: what the table of tests/unit/test_mount_options.py cannot see.


def mounted_at(report: dict[str, Any]) -> str:
    [mount] = report["mounts"]
    return str(mount["path"])


@pytest.mark.parametrize("words", ["/mnt/x", "/mnt/x/", "{root}/mnt/x", "//mnt//x", "x"])
def test_a_mount_point_may_be_typed_in_any_way(
    web: Host, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    (web.root / "mnt").mkdir()
    monkeypatch.chdir(web.root / "mnt")
    report = fixed_and_undone(web, "--method", "idmap", "--at", words.format(root=web.root))
    assert mounted_at(report) == f"{web.root}/mnt/x"


@pytest.mark.parametrize("words", ["/srv/vol:/data", "/srv/vol:/data:U", "/srv/vol:/data:ro,Z"])
def test_a_volume_may_be_typed_as_engines_write_it(web: Host, words: str) -> None:
    report = web.fix(*CONTAINER, "--method", "idmap", path=words)
    web.undo(report["run"])
    assert mounted_at(report).endswith("/volumes/web/srv-vol")


def test_two_spellings_are_one_path_and_two_paths_are_not(web: Host) -> None:
    (web.root / "mnt").mkdir()
    words = (*CONTAINER, "--method", "idmap", "--at", "/mnt/x")
    report = web.fix(*words, f"{web.volume}/")
    web.undo(report["run"])
    told = web.refusal(*words, web.outside, status=2)
    assert "--at: it goes with one PATH" in told
    assert not (web.root / "mnt/x").exists()


@pytest.mark.parametrize(
    ("more", "path"),
    [
        (("--mode", "shift"), "/srv/vol"),
        (("--user", "33:33"), "/srv/vol"),
        (("--read-only",), "/srv/vol"),
        (("--cross-mounts",), "/srv/vol"),
        ((), "/srv/outside"),
        (("--container", "db", "--take"), "/srv/vol"),
    ],
)
def test_another_mount_at_the_same_point_is_refused_with_the_command_that_takes_it_away(
    web: Host, more: tuple[str, ...], path: str
) -> None:
    web.allocate("db")
    (web.root / "mnt").mkdir()
    words = ("--method", "idmap", "--at", "/mnt/x")
    run = web.fix(*CONTAINER, *words)["run"]
    told = web.refusal(*CONTAINER, *words, *more, status=9, path=path)
    how = ", without --cross-mounts" if "--cross-mounts" in more else ""
    assert f"{web.root}/mnt/x shows {web.volume} for web (own 0:0{how}) already" in told
    assert f"usernsplan undo {run} --root {web.root}" in told
    again = web.fix(*CONTAINER, *words)
    assert (again["changed"], again["run"]) == (False, None)
    web.undo(run)
    # It is gone: nothing is in the way.
    web.undo(web.fix(*CONTAINER, *words, *more, path=path)["run"])


def test_files_that_have_the_containers_ids_are_not_shifted_by_a_mount(web: Host) -> None:
    run = web.fix(*CONTAINER, "--mode", "shift")["run"]
    told = web.refusal(*CONTAINER, "--method", "idmap", "--mode", "shift", status=9)
    assert "was given to 'web' by a change of owners" in told
    assert f"--reverse --root {web.root}" in told
    report = web.fix(*CONTAINER, "--method", "auto", "--mode", "shift")
    assert (report["mounts"], report["changed"]) == ([], False)
    web.undo(run)
    fixed_and_undone(web, "--method", "idmap", "--mode", "shift")
