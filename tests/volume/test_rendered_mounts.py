"""What render takes for a volume that mount-volume has mounted: where the mount stands, and where it does not."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.command import here
from tests.volume.tree import Host, mounted, simple

START = 589824
SHIFT = ("--method", "idmap", "--container", "web", "--mode", "shift")
AT = "/run/usernsplan/volumes/web/srv-vol"


@pytest.fixture
def web(host: Host) -> Host:
    """A host with a volume that is mounted for a container."""
    assert host.allocate("web") == [START]
    (host.root / "srv").chmod(0o700)
    simple(host.volume / "below", 33, 33)
    host.fix(*SHIFT)
    return host


def rendered(host: Host, source: str, engine: str = "podman") -> tuple[str, str]:
    """The source that the engine gets, and the notes."""
    flags, notes = here("render", engine, "web", "--volume", f"{source}:/data", "--root", host.root)
    words = shlex.split(flags)
    return words[words.index("-v") + 1].partition(":")[0], notes


@pytest.mark.parametrize("part", ["", "/below", "/below/file-0", "/later"])
def test_the_source_is_the_mount_and_nothing_is_left_to_be_said(web: Host, part: str) -> None:
    assert rendered(web, f"/srv/vol{part}") == (AT + part, "")


def test_a_symlink_to_the_volume_is_the_volume(web: Host) -> None:
    (web.root / "srv/link").symlink_to("/srv/vol")
    assert rendered(web, "/srv/link/below")[0] == f"{AT}/below"


def test_a_mount_of_another_container_is_none_of_its(web: Host) -> None:
    web.allocate("db")
    flags, _ = here("render", "podman", "db", "--volume", "/srv/vol:/data", "--root", web.root)
    assert " /srv/vol:/data" in flags


def test_what_the_mount_does_not_show_is_taken_from_the_disk(web: Host) -> None:
    # Mounted later, so that the mount shows the empty folder below it.
    with mounted("-t", "tmpfs", "tmpfs", web.volume / "below"):
        assert rendered(web, "/srv/vol/below")[0] == "/srv/vol/below"
        assert rendered(web, "/srv/vol")[0] == AT


@pytest.mark.parametrize("how", ["gone", "something over it", "another source"])
def test_a_mount_that_does_not_stand_is_named_with_the_command_that_makes_it(
    web: Host, how: str
) -> None:
    place = f"{web.root}{AT}"
    if how == "something over it":
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    elif how == "another source":
        web.volume.rename(web.root / "srv/old")
        web.volume.mkdir()
    else:
        subprocess.run(["umount", place], check=True)

    source, notes = rendered(web, "/srv/vol")
    assert source == AT
    command = notes.partition("before the container starts, run: usernsplan ")[2].strip()
    assert command == f"mount-volume /srv/vol --container web --mode shift --root {web.root}"
    if how == "gone":
        here(*shlex.split(command))
        assert rendered(web, "/srv/vol") == (AT, "")
        assert os.stat(f"{place}/below").st_uid == START + 33


def test_a_lasting_read_only_mount_elsewhere_is_made_again_as_it_was(web: Host) -> None:
    at = Path("/srv/at")
    (web.root / "srv/other").mkdir()
    words = ("--read-only", "--user", "33:34", "--at", str(at))
    web.fix("--method", "idmap", "--container", "web", *words, path="/srv/other")
    subprocess.run(["umount", f"{web.root}{at}"], check=True)
    _, notes = rendered(web, "/srv/other")
    command = notes.partition("run: usernsplan ")[2].strip()
    assert command.startswith(
        "mount-volume /srv/other --container web --mode own --user 33:34 --at /srv/at --read-only"
    )
    here(*shlex.split(command))
    assert os.statvfs(f"{web.root}{at}").f_flag & os.ST_RDONLY
    assert rendered(web, "/srv/other") == (str(at), "")
