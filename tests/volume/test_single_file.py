"""A single file as PATH: carried as a folder is, and nothing beside it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.command import here
from tests.volume.tree import (
    ACL,
    Host,
    acl_of,
    capability_v2,
    capability_v3,
    finish,
    flagged,
    maps,
    mounted,
    over,
    parsed_acl,
    simple,
    write,
)
from usernsplan.errors import InvalidValueError
from usernsplan.fixing import FixRequest
from usernsplan.formats import inspect
from usernsplan.host import files
from usernsplan.model import LedgerState
from usernsplan.volume import decide, discover

START = 589824
SHIFT = ("--container", "web", "--mode", "shift")


@pytest.fixture
def web(volumes: Host) -> Host:
    """A host with an allocation, and files in a folder of other people's."""
    assert volumes.allocate("web") == [START]
    simple(volumes.volume, 7, 7)
    return volumes


def ids(path: Path) -> tuple[int, int]:
    seen = path.lstat()
    return seen.st_uid, seen.st_gid


def beside(web: Host, *but: Path) -> dict[Path, tuple[int, int, int]]:
    """Owners and ctimes of everything but these: the folder itself too."""
    found = {path: path.lstat() for path in (web.volume, *web.volume.iterdir()) if path not in but}
    return {path: (seen.st_uid, seen.st_gid, seen.st_ctime_ns) for path, seen in found.items()}


def test_a_file_is_carried_and_taken_back_and_nothing_else_is_touched(web: Host) -> None:
    path = web.volume / "file-1"
    acl = acl_of(0o755, {33: 6}, {100: 4}, mask=5)
    finish(os.fsencode(path), 33, 42, 0o4755, acl=acl, capability=capability_v2())
    others = beside(web, path)
    foretold = web.fix(*SHIFT, "--dry-run", path=path)
    assert ids(path) == (33, 42)
    done = web.fix(*SHIFT, path=path)
    assert (foretold["counts"], foretold["volumes"]) == (done["counts"], done["volumes"])
    assert (done["counts"]["entries"], done["counts"]["changed"]) == (1, 1)
    assert [volume["path"] for volume in done["volumes"]] == [str(path)]
    assert ids(path) == (START + 33, START + 42)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o4755
    moved = tuple(
        (tag, perm, START + number if number < 1000 else number)
        for tag, perm, number in sorted(acl)
    )
    assert parsed_acl(os.getxattr(path, ACL)) == moved
    assert os.getxattr(path, "security.capability") == capability_v3(START)
    assert beside(web, path) == others
    again = web.fix(*SHIFT, path=path)
    assert (again["counts"]["changed"], again["counts"]["right"], again["run"]) == (0, 1, None)
    web.undo(done["run"])
    assert ids(path) == (33, 42)
    assert parsed_acl(os.getxattr(path, ACL)) == tuple(sorted(acl))
    assert stat.S_IMODE(path.lstat().st_mode) == 0o4755
    # A new inode with its power took its place, so the folder has another ctime, and nothing else.
    others.pop(web.volume)
    assert beside(web, path, web.volume) == others


def test_a_plain_file_and_a_folder_in_one_command(web: Host) -> None:
    simple(web.outside, 1, 1)
    path = web.volume / "file-1"
    others = beside(web, path)
    report = json.loads(
        here("fix-volume", path, web.outside, *SHIFT, "--json", "--root", web.root)[0]
    )
    assert report["counts"]["changed"] == 1 + 4
    assert ids(path) == (START + 7, START + 7)
    assert ids(web.outside) == ids(web.outside / "file-0") == (START + 1, START + 1)
    assert beside(web, path) == others
    web.undo(report["run"])
    assert (ids(path), ids(web.outside)) == ((7, 7), (1, 1))


def test_an_overlapping_map_moves_a_file_once_and_back(web: Host) -> None:
    path = web.volume / "file-1"
    words = maps(over(0, 5, 100))
    done = web.fix(*words, path=path)
    assert ids(path) == (12, 12)
    web.undo(done["run"])
    assert ids(path) == (7, 7)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))


def _socket(path: Path) -> None:
    # The address that bind(2) takes may have 107 bytes.
    os.mknod(path, stat.S_IFSOCK | 0o600)


@pytest.mark.parametrize("make", [_fifo, _device, _socket])
def test_what_is_no_file_is_carried_without_being_opened(
    web: Host, make: Callable[[Path], None]
) -> None:
    path = web.volume / "odd"
    make(path)
    os.chown(path, 5, 6)
    others = beside(web, path)
    run = web.fix(*SHIFT, path=path)["run"]
    assert ids(path) == (START + 5, START + 6)
    web.undo(run)
    assert ids(path) == (5, 6)
    assert beside(web, path) == others


def test_a_symlink_is_refused_as_ever(web: Host) -> None:
    (web.volume / "link").symlink_to("file-1")
    assert "is a symlink" in web.refusal(*SHIFT, status=9, path=web.volume / "link")


def test_the_other_name_of_a_file_is_refused_as_in_a_folder(web: Host) -> None:
    path = web.volume / "file-1"
    os.link(path, web.outside / "again")
    assert "links outside" in web.refusal(*SHIFT, status=9, path=path)
    assert ids(path) == (7, 7)
    report = web.fix(*SHIFT, "--outside-links", "skip", path=path)
    assert [place["path"] for place in report["skipped"]] == [str(path)]
    assert ids(path) == (7, 7)
    report = json.loads(
        here("fix-volume", path, web.outside / "again", *SHIFT, "--json", "--root", web.root)[0]
    )
    assert ids(path) == (START + 7, START + 7)
    assert (report["counts"]["changed"], report["counts"]["entries"]) == (1, 2)


def test_a_file_in_a_volume_that_is_named_too_is_one_too_many(web: Host) -> None:
    told = here(
        "fix-volume", web.volume, web.volume / "file-1", *SHIFT, "--root", web.root, status=2
    )[1]
    assert "lies in" in told


def test_a_file_that_is_mounted_on_another_is_the_one_that_was_named(web: Host) -> None:
    path, other = web.volume / "file-1", web.outside / "other"
    finish(write(os.fsencode(other)), 9, 9)
    with mounted("--bind", other, path):
        run = web.fix(*SHIFT, path=path)["run"]
        assert ids(path) == ids(other) == (START + 9, START + 9)
        web.undo(run)
        assert ids(other) == (9, 9)
    assert ids(path) == (7, 7)


def test_an_immutable_file_is_named_and_tried_again(ext4_host: Host) -> None:
    ext4_host.allocate("web")
    simple(ext4_host.volume, 7, 7)
    path = ext4_host.volume / "file-1"
    with flagged("i", path):
        for words in ((*SHIFT, "--dry-run"), SHIFT):
            report = ext4_host.fix(*words, status=3, path=path)
            assert [place["path"] for place in report["failed"]] == [str(path)]
    ext4_host.fix(*SHIFT, path=path)
    assert ids(path) == (START + 7, START + 7)


@pytest.mark.parametrize("name", ["etc/passwd", "root/.bashrc", "usr/share/x"])
def test_a_file_is_as_dangerous_as_what_it_lies_in(web: Host, name: str) -> None:
    path = web.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    (web.root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    assert "add --protected" in web.refusal(*SHIFT, status=9, path=path)


def test_another_file_of_the_name_is_not_taken_back(web: Host) -> None:
    path = web.volume / "file-1"
    run = web.fix(*SHIFT, path=path)["run"]
    path.rename(web.volume / "kept")
    finish(write(os.fsencode(path)), START + 7, START + 7)
    report = web.undo(run, status=3)
    assert [place["path"] for place in report["failed"]] == [str(path)]
    assert "not the file that run" in report["failed"][0]["reason"]
    assert ids(path) == (START + 7, START + 7)
    path.unlink()
    report = web.undo(run, status=3)
    assert "no such file" in report["failed"][0]["reason"]


def test_a_recorded_file_is_a_volume_as_any(web: Host) -> None:
    path = web.volume / "file-1"
    web.fix(*SHIFT, path=path)
    assert "/srv/vol/file-1" in here("history", "--root", web.root)[0]
    flags = here(
        "render", "podman", "web", "--volume", f"{path}:/etc/app.conf", "--root", web.root
    )[0]
    assert f"{path}:/etc/app.conf" in flags


@pytest.mark.parametrize(
    ("engine", "of_a_file", "of_a_folder"),
    [("lxc", "create=file", "create=dir"), ("kubernetes", None, "type: Directory")],
)
def test_engines_are_told_a_file_from_a_folder(
    web: Host, engine: str, of_a_file: str | None, of_a_folder: str
) -> None:
    for path, there, absent in (
        (web.volume / "file-1", of_a_file, of_a_folder),
        (web.volume, of_a_folder, of_a_file),
    ):
        printed = here(
            "render", engine, "web", "--volume", f"{path}:/data", "--root", web.root, status=None
        )[0]
        assert str(path) in printed
        assert there is None or there in printed
        assert absent is None or absent not in printed


PLAN = "strategy: per-container\nengines: []\ncontainers: [{{name: web, volumes: [{{path: {path}, mode: shift}}]}}]\n"


def test_a_plan_file_names_a_file(web: Host, tmp_path: Path) -> None:
    path = web.volume / "file-1"
    others = beside(web, path)
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN.format(path=path))
    here("apply", plan, "--fix-volumes", "--yes", "--root", web.root)
    assert ids(path) == (START + 7, START + 7)
    assert beside(web, path) == others


# --discover: what an engine mounts into a container.


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., discover.Discovered]:
    """Ask a podman that has one container with these mounts, whose ids are those of an allocation."""

    def answer(*sources: Path | str) -> discover.Discovered:
        one = SimpleNamespace(name="web", sources=tuple(map(str, sources)), pid=0, is_hosts=True)
        monkeypatch.setattr(discover, "_ask", lambda _: "")
        monkeypatch.setattr(inspect, "parse", lambda *_: [one])
        monkeypatch.setattr(decide, "whose", lambda *_: SimpleNamespace(name="web"))
        return discover.discover(
            files.layout_at("/"), FixRequest(("web",), discover="podman"), LedgerState()
        )

    return answer


def test_a_mounted_file_is_discovered_and_sockets_and_the_systems_files_are_left(
    tmp_path: Path, ask: Callable[..., discover.Discovered]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/inner").touch()
    os.mkfifo(tmp_path / "pipe")
    found = ask(
        tmp_path / "file",
        tmp_path / "folder",
        tmp_path / "folder/inner",
        tmp_path / "pipe",
        "/etc/hosts",
    )
    assert found.request.paths == (str(tmp_path / "file"), str(tmp_path / "folder"))
    assert found.notes == (
        f"{tmp_path / 'pipe'} is not a folder or file: left as it is",
        "/etc/hosts is a file of the system: left as it is",
    )


def test_nothing_to_discover_says_why(ask: Callable[..., discover.Discovered]) -> None:
    with pytest.raises(InvalidValueError, match="no folder or file of the host") as raised:
        ask("/etc/hosts", "/nowhere/at all")
    assert "/nowhere/at all cannot be looked at (no such file or directory)" in str(raised.value)
