"""Output files that the user names: written whole, and never through another user's symlink."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.command import PROGRAM, files_of, here, needs_root, slow, usernsplan
from usernsplan.errors import HostChangedError
from usernsplan.host import output

if TYPE_CHECKING:
    from collections.abc import Callable

OTHER = 1234
PLAN = "strategy: per-container\ncontainers: [web]\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "host"
    usernsplan(
        "allocate", "web", "--strategy", "per-container", "--engine", "podman", "--root", root
    )
    (tmp_path / "plan.yaml").write_text(PLAN)
    return root


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder like /tmp, in which everybody may create files."""
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(0o1777)
    return place


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file that only root may write, and that another user wants to be overwritten."""
    outside = tmp_path / "outside"
    (outside / "etc").mkdir(parents=True)
    (outside / "file").write_text("precious")
    return outside


def link(path: Path, target: Path | str, owner: int = OTHER) -> None:
    path.symlink_to(target)
    os.lchown(path, owner, owner)


def words(kind: str, target: Path, root: Path) -> list[str | Path]:
    """Each command that writes to a file, or to a folder (render)."""
    plan = root.parent / "plan.yaml"
    given: dict[str, list[str | Path]] = {
        "svg": ["map", "--svg", target],
        "html": ["map", "--html", target],
        "plan": ["plan", plan, "--out", target],
        "render": ["render", "nspawn", "web", "--out", target],
        "bundle": ["render", "oci", "web", "--bundle", target],
    }
    return [*given[kind], "--root", root]


FILES = pytest.mark.parametrize("kind", ["svg", "plan", *slow("html")])


@needs_root
@FILES
@pytest.mark.parametrize("target", ["file", "new", *slow("no/where")])
def test_a_symlink_of_somebody_else_is_refused(
    root: Path, place: Path, outside: Path, kind: str, target: str
) -> None:
    link(place / "ids", outside / target)
    before = files_of(outside)
    done = usernsplan(*words(kind, place / "ids", root), status=9)
    assert f"{place}/ids is a symlink of uid {OTHER}" in done.stderr
    assert files_of(outside) == before
    assert os.listdir(place) == ["ids"]


@needs_root
@pytest.mark.parametrize("kind", ["plan", "render", "bundle", *slow("svg", "html")])
def test_so_is_a_folder_on_the_way(root: Path, place: Path, outside: Path, kind: str) -> None:
    (outside / "config.json").write_text("{}")
    link(place / "way", outside)
    before = files_of(outside), sorted(os.listdir(outside))
    ends = {"render": ("", "new"), "bundle": ("",)}.get(kind, ("ids", "etc/ids", "../ids"))
    for end in ends:
        done = usernsplan(*words(kind, place / "way" / end, root), status=9)
        assert f"{place}/way is a symlink of uid {OTHER}" in done.stderr
    assert (files_of(outside), sorted(os.listdir(outside))) == before


@needs_root
@pytest.mark.parametrize(
    "inside", ["etc", "etc/systemd", *slow("etc/systemd/nspawn", "etc/systemd/nspawn/web.nspawn")]
)
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_so_is_one_below_the_folder_of_a_rendering(
    root: Path, place: Path, inside: str, more: tuple[str, ...]
) -> None:
    (place / inside).parent.mkdir(parents=True, exist_ok=True)
    (place / "elsewhere").mkdir()
    link(place / inside, "/elsewhere")
    before = sorted(place.rglob("*"))
    done = usernsplan(*words("render", place, root), *more, status=9)
    assert f"{place}/{inside} is a symlink of uid {OTHER}" in done.stderr
    assert [path for path in sorted(place.rglob("*")) if path.name != ".pwd.lock"] == before


@needs_root
def test_a_bundle_is_not_patched_through_one(root: Path, place: Path, outside: Path) -> None:
    (outside / "file").write_text("{}")
    link(place / "config.json", outside / "file")
    usernsplan(*words("bundle", place, root), status=9)
    assert (outside / "file").read_text() == "{}"


@needs_root
@FILES
def test_one_that_is_reached_by_our_own_is_refused_too(
    root: Path, place: Path, outside: Path, kind: str
) -> None:
    link(place / "theirs", outside)
    link(place / "ours", "theirs/file", 0)
    usernsplan(*words(kind, place / "ours", root), status=9)
    assert (outside / "file").read_text() == "precious"


@pytest.mark.parametrize("kind", ["svg", "plan", "render"])
def test_our_own_symlinks_are_followed_as_everywhere(
    root: Path, place: Path, outside: Path, kind: str
) -> None:
    for name, target in (("a", outside), ("b", "a/etc/.."), ("c", "b")):
        (place / name).symlink_to(target)
    if kind == "render":
        usernsplan(*words(kind, place / "c", root))
        assert (outside / "etc/systemd/nspawn/web.nspawn").exists()
        return
    (place / "d").symlink_to("c/file")
    usernsplan(*words(kind, place / "d", root))
    assert (place / "d").is_symlink()
    assert (outside / "file").read_text() != "precious"
    assert sorted(os.listdir(outside)) == ["etc", "file"]


@needs_root
def test_a_pipe_of_somebody_else_is_refused_and_a_file_that_he_may_write_is_not_his_afterwards(
    root: Path, place: Path
) -> None:
    os.mkfifo(place / "pipe")
    os.chown(place / "pipe", OTHER, OTHER)
    assert "is a pipe of uid" in usernsplan(*words("svg", place / "pipe", root), status=9).stderr
    (place / "saved").touch()
    os.chown(place / "saved", OTHER, OTHER)
    (place / "saved").chmod(0o4666)
    usernsplan(*words("plan", place / "saved", root))
    seen = (place / "saved").stat()
    assert (seen.st_uid, stat.S_IMODE(seen.st_mode)) == (0, 0o644)
    assert json.loads((place / "saved").read_text())["kind"] == "saved-plan"


def test_what_is_open_can_be_written_to_by_its_name(root: Path, tmp_path: Path) -> None:
    command = [*PROGRAM, *map(str, words("svg", Path("/dev/stdout"), root))]
    piped = subprocess.run(command, capture_output=True, text=True, check=True)
    assert piped.stdout.startswith("<svg")
    with (tmp_path / "x.svg").open("w") as file:
        subprocess.run(command, stdout=file, stderr=subprocess.PIPE, check=True)
    assert (tmp_path / "x.svg").read_text() == piped.stdout
    read, write = os.pipe()
    command = [*PROGRAM, *map(str, words("svg", Path(f"/dev/fd/{write}"), root))]
    with subprocess.Popen(command, pass_fds=[write], stderr=subprocess.PIPE):
        os.close(write)
        with open(read) as pipe:
            assert pipe.read() == piped.stdout
    named = tmp_path / "pipe"
    os.mkfifo(named)
    with subprocess.Popen(["cat", named], stdout=subprocess.PIPE, text=True) as reader:
        usernsplan(*words("svg", named, root))
        assert reader.stdout
        assert reader.stdout.read() == piped.stdout


@pytest.mark.parametrize(
    ("path", "fact"),
    [
        ("loop", "too many levels of symbolic links"),
        ("file/x", "not a directory"),
        ("file/", "not a directory"),
        ("none/x", "no such file or directory"),
        ("", "is a directory"),
        ("..", "is a directory"),
        ("dir/", "is a directory"),
        ("n" * 256, "file name too long"),
    ],
)
def test_what_cannot_be_written_is_an_error_with_its_name(
    root: Path, place: Path, path: str, fact: str
) -> None:
    (place / "loop").symlink_to("loop")
    (place / "file").touch()
    (place / "dir").mkdir()
    before = files_of(place)
    _, said = here("map", "--svg", f"{place}/{path}", "--root", root, status=1)
    assert f"{place}/{path}: {fact}" in said
    assert files_of(place) == before


def swapped_folder(place: Path, outside: Path) -> None:
    (place / "folder").rename(place / "moved")
    (place / "folder").symlink_to(outside)


def swapped_file(place: Path, outside: Path) -> None:
    (place / "folder/file").unlink()
    (place / "folder/file").symlink_to(outside / "file")


@pytest.mark.parametrize("swap", [swapped_folder, swapped_file])
def test_what_is_swapped_after_the_look_does_not_lead_elsewhere(
    place: Path, outside: Path, swap: Callable[[Path, Path], None]
) -> None:
    (place / "folder").mkdir()
    (place / "folder/file").write_text("old")
    with output.spot(f"{place}/folder/file") as spot:
        swap(place, outside)
        output._replace(spot, b"new")
    assert (outside / "file").read_text() == "precious"
    assert os.listdir(outside / "etc") == []
    moved = place / ("moved" if swap is swapped_folder else "folder")
    assert (moved / "file").read_text() == "new"
    assert os.listdir(moved) == ["file"]


def test_a_pipe_that_is_swapped_for_a_file_is_not_written_to(place: Path) -> None:
    os.mkfifo(place / "pipe")
    with output.spot(f"{place}/pipe") as spot:
        assert spot.seen
        (place / "pipe").unlink()
        (place / "pipe").write_text("precious")
        with pytest.raises(HostChangedError):
            output._write_to("pipe", spot, spot.seen, b"new")
    assert (place / "pipe").read_text() == "precious"


def test_a_folder_that_is_a_boundary_is_not_left(place: Path, outside: Path) -> None:
    (place / "up").symlink_to("../../..")
    (place / "away").symlink_to(outside)
    top = os.open(place, os.O_RDONLY)
    try:
        for path in ("/up/../x", "/../../x", "up/x"):
            with output.spot(path, top, "ROOT") as spot:
                assert os.path.samestat(os.fstat(spot.folder), place.stat())
        with pytest.raises(FileNotFoundError), output.spot("away/file", top, "ROOT"):
            pass
    finally:
        os.close(top)


def test_nothing_stays_open(place: Path) -> None:
    before = os.listdir("/proc/self/fd")
    (place / "file").write_text("old")
    output.write(f"{place}/file", b"new")
    with pytest.raises(Exception, match="no such file"):
        output.write(f"{place}/a/b", b"new")
    assert len(os.listdir("/proc/self/fd")) == len(before)
