"""Who can get to a volume past its mount: by every path, in every mount namespace, and from within."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.volume.bystanders import bind, open_ground, own_mounts, receiving, standing_by
from tests.volume.tree import acl_of, finish
from usernsplan.host import idmap, reach
from usernsplan.host.mounts import all_mounts
from usernsplan.mapping import IdMap, Mapping

if TYPE_CHECKING:
    from usernsplan.model import Reach

SHIFT = Mapping(IdMap.of((0, 589824, 65536)), IdMap.of((0, 589824, 65536)))


@pytest.fixture
def place(private_mounts: None) -> Iterator[Path]:
    """A folder that everybody can enter, with a volume in it."""
    assert private_mounts is None
    with open_ground() as ground:
        (ground / "above/web/data").mkdir(parents=True)
        (ground / "above/web/file").touch()
        yield ground


def look(volume: Path, *, crosses: bool = False) -> Reach:
    descriptor = os.open(volume, os.O_PATH)
    try:
        return reach.of(descriptor, crosses=crosses)
    finally:
        os.close(descriptor)


def shown(found: Reach) -> dict[str, tuple[bool, str]]:
    """Each of our own ways: whether it is nosuid, and the folder that shuts it."""
    assert found.unknown == ()
    return {way.path: (way.nosuid, way.folder) for way in found.ways if not way.pid}


def test_the_path_itself_is_a_way(place: Path) -> None:
    volume = place / "above/web"
    assert shown(look(volume)) == {str(volume): (False, "")}
    assert shown(look(volume / "file")) == {str(volume / "file"): (False, "")}


@pytest.mark.parametrize(
    ("mode", "owner", "acl", "shuts"),
    [
        (0o700, 0, False, True),
        (0o000, 0, False, True),
        (0o710, 0, False, False),
        (0o701, 0, False, False),
        (0o700, 1000, False, False),
        (0o700, 0, True, False),
    ],
)
def test_a_folder_above_shuts_if_only_root_enters(
    place: Path, mode: int, owner: int, acl: bool, shuts: bool
) -> None:
    above = place / "above"
    finish(os.fsencode(above), owner, 0, mode, acl=acl_of(mode, {1000: 7}, {}, 0) if acl else ())
    # What protects must lie above the volume: its own mode is in the container's hands.
    (above / "web").chmod(0o700)
    volume, file = above / "web", above / "web/file"
    assert shown(look(volume)) == {str(volume): (False, str(above) if shuts else "")}
    assert shown(look(file)) == {str(file): (False, str(volume))}


def test_every_mount_that_shows_it_or_a_part_of_it_is_a_way(place: Path) -> None:
    above, volume = place / "above", place / "above/web"
    above.chmod(0o700)
    bind(volume, place / "same")
    bind(above, place / "more", "nosuid")
    bind(volume / "data", place / "part")
    (place / "single").touch()
    subprocess.run(["mount", "--bind", volume / "file", place / "single"], check=True)
    (above / "other").mkdir()
    bind(above / "other", place / "other")
    assert shown(look(volume)) == {
        str(volume): (False, str(above)),
        str(place / "same"): (False, ""),
        # It is in a folder with mode 0700 there too: in the root of that mount.
        str(place / "more/web"): (True, str(place / "more")),
        str(place / "part"): (False, ""),
        str(place / "single"): (False, ""),
    }


def test_what_a_mount_covers_is_no_way(place: Path) -> None:
    volume = place / "above/web"
    bind(volume, volume, "nosuid")
    assert shown(look(volume)) == {str(volume): (True, "")}
    descriptor = os.open(volume, os.O_PATH)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place / "above"], check=True)
    assert shown(reach.of(descriptor)) == {}
    os.close(descriptor)


def test_a_mount_with_a_map_is_no_way(place: Path) -> None:
    volume, point = place / "above/web", place / "mapped"
    point.mkdir()
    source, at = os.open(volume, os.O_PATH), os.open(point, os.O_PATH)
    namespace = idmap.user_namespace(SHIFT)
    tree = idmap.detached(source, namespace)
    idmap.attach(tree, at)
    for descriptor in (source, at, namespace, tree):
        os.close(descriptor)
    assert shown(look(volume)) == {str(volume): (False, "")}
    with standing_by(partial(os.chdir, point)), standing_by(partial(os.open, point / "file", 0)):
        assert look(volume).holders == ()


def test_mounts_inside_count_if_they_are_shown_too(place: Path) -> None:
    volume, inner = place / "above/web", place / "above/web/data"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", inner], check=True)
    bind(inner, place / "elsewhere")
    assert shown(look(volume)) == {str(volume): (False, "")}
    assert shown(look(volume, crosses=True)) == {
        str(volume): (False, ""),
        str(inner): (False, ""),
        str(place / "elsewhere"): (False, ""),
    }


def test_ways_in_another_mount_namespace(place: Path) -> None:
    volume = place / "above/web"
    (place / "above").chmod(0o700)
    (place / "bound").mkdir()
    with standing_by(own_mounts, partial(bind, volume, place / "bound")) as pid:
        found = look(volume)
        theirs = {way.path: way for way in found.ways if way.pid == pid}
        assert set(theirs) == {str(volume), str(place / "bound")}
        assert theirs[str(volume)].folder == str(place / "above")
        assert theirs[str(place / "bound")].folder == ""
    assert all(way.pid != pid for way in look(volume).ways)


@pytest.mark.parametrize(("step", "follows"), [(own_mounts, False), (receiving, True)])
def test_which_namespaces_receive_a_mount_over_it(
    place: Path, step: Callable[[], None], follows: bool
) -> None:
    volume = place / "above/web"
    subprocess.run(["mount", "--make-shared", place], check=True)
    bind(volume / "data", place / "part")
    with standing_by(step) as pid:
        ways = {(way.path, way.pid): way for way in look(volume).ways}
        assert ways[str(volume), 0].follows
        assert ways[str(volume), pid].follows == follows
        assert not ways[str(place / "part"), 0].follows
        assert not ways[str(place / "part"), pid].follows
        # And so it is.
        bind(volume, volume)
        assert (str(volume) in {mount.point for mount in all_mounts(pid)}) == follows


HELD: dict[str, Callable[[Path], Callable[[], object]]] = {
    "its current folder": lambda path: partial(os.chdir, path),
    "an open file": lambda path: partial(os.open, path, os.O_RDONLY),
    "its root": lambda path: partial(os.chroot, path),
}


@pytest.mark.parametrize("what", HELD)
@pytest.mark.parametrize("inside", ["", "data"])
def test_who_has_a_folder_of_it_open_is_named(place: Path, what: str, inside: str) -> None:
    volume = place / "above/web"
    (place / "above").chmod(0o700)
    step = HELD[what](volume / inside)
    with standing_by(step) as pid, standing_by(step, uid=None):
        [holder] = look(volume).holders
        assert (holder.pid, holder.uid, holder.what) == (pid, 1000, what)
        assert holder.path == str(volume / inside)


def test_who_has_a_file_of_it_open_is_named_even_if_it_was_removed(place: Path) -> None:
    file = place / "above/web/file"
    with standing_by(partial(os.open, file, os.O_RDONLY)) as pid:
        assert [holder.pid for holder in look(place / "above/web").holders] == [pid]
        file.unlink()
        assert [holder.pid for holder in look(place / "above/web").holders] == [pid]


def test_who_was_below_the_shut_folder_is_named(place: Path) -> None:
    volume = place / "above/between/web"
    volume.mkdir(parents=True)
    (place / "above").chmod(0o700)
    between = volume.parent
    (between / "side").mkdir()
    (place / "above/aside").mkdir()
    for folder, leads in ((between, True), (between / "side", True), (place / "above", False)):
        with standing_by(partial(os.chdir, folder)) as pid:
            holders = [holder.pid for holder in look(volume).holders]
            assert holders == ([pid] if leads else []), folder
    with standing_by(partial(os.chdir, place / "above/aside")):
        assert look(volume).holders == ()


def test_who_is_in_it_through_nosuid_is_not_named(place: Path) -> None:
    volume = place / "above/web"
    bind(volume, place / "tame", "nosuid")
    with standing_by(partial(os.chdir, place / "tame/data")):
        assert look(volume).holders == ()
    with standing_by(partial(os.chdir, volume)) as pid:
        bind(volume, volume, "nosuid")
        # Who was there before the mount is below it.
        assert [holder.pid for holder in look(volume).holders] == [pid]


def test_who_came_in_through_another_namespace_is_not_named(place: Path) -> None:
    volume = place / "above/web"
    descriptor = os.open(volume, os.O_RDONLY)
    with standing_by(own_mounts):
        # It inherited the descriptor: a mount of our namespace, which counts as nosuid there.
        assert look(volume).holders == ()
    os.close(descriptor)


def test_a_process_that_may_not_be_looked_at_is_unknown(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with standing_by() as pid:
        real = os.readlink

        def refuse(path: str) -> str:
            if path.startswith(f"/proc/{pid}/task") and path.endswith("cwd"):
                raise PermissionError(13, "Permission denied", path)
            return real(path)

        monkeypatch.setattr(os, "readlink", refuse)
        assert any(f"process {pid} " in one for one in look(place / "above/web").unknown)


def test_processes_that_end_while_we_look_are_not_unknown(place: Path) -> None:
    words = ["bash", "-c", "while :; do unshare -Um true; done"]
    several = [subprocess.Popen(words, stderr=subprocess.DEVNULL) for _ in range(4)]
    try:
        assert [look(place / "above/web").unknown for _ in range(60)] == [()] * 60
    finally:
        for one in several:
            one.kill()
            one.wait()
