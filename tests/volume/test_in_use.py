"""A volume that a running container uses: that is said before anything is changed."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.command import needs_root, usernsplan
from tests.volume.tree import Host, simple
from usernsplan.host import mounts
from usernsplan.host.mounts import MountPoint, Seen
from usernsplan.volume import spots

START = 589824
SHIFT = ("--container", "web", "--mode", "shift")

# On the host: a disk for "/", another for /data, a bind mount of a part of it.
ROOT = MountPoint("8:1", "/", "/", "ext4")
DATA = MountPoint("8:2", "/", "/data", "xfs")
HOST = (ROOT, DATA, MountPoint("8:2", "/web", "/srv/web", "xfs"))
OVERLAY = MountPoint("0:70", "/", "/", "overlay")


def told(monkeypatch: pytest.MonkeyPatch, path: str, *others: tuple[MountPoint, ...]) -> list[int]:
    """The processes that are named, of those that have these mounts: 1 the first."""
    monkeypatch.setattr(spots, "all_mounts", lambda: list(HOST))
    seen = [Seen(number, f"app-{number}", found) for number, found in enumerate(others, 1)]
    texts = spots.users_of(path, seen)
    return [
        one.pid
        for one in seen
        if any(f"process {one.pid} ({one.command})" in text for text in texts)
    ]


@pytest.mark.parametrize(
    ("path", "mount", "is_used"),
    [
        # The folder, by whichever of its names it was mounted; a part of it; what it is a part of.
        ("/srv/vol", MountPoint("8:1", "/srv/vol", "/data", "ext4"), True),
        ("/srv/vol", MountPoint("8:1", "/srv/vol", "/srv/vol", "ext4"), True),
        ("/srv/vol", MountPoint("8:1", "/srv/vol/part", "/x", "ext4"), True),
        ("/srv/vol", MountPoint("8:1", "/srv", "/x", "ext4"), True),
        ("/srv/web", MountPoint("8:2", "/web", "/x", "xfs"), True),
        ("/data/web", MountPoint("8:2", "/web", "/x", "xfs"), True),
        ("/data", MountPoint("8:2", "/", "/x", "xfs"), True),
        ("/data", MountPoint("8:2", "/other", "/x", "xfs"), True),
        # Another folder, another file system, a name that only begins like it.
        ("/srv/vol", MountPoint("8:1", "/srv/vol2", "/x", "ext4"), False),
        ("/srv/vol", MountPoint("8:1", "/srv/vo", "/x", "ext4"), False),
        ("/srv/vol", MountPoint("8:2", "/srv/vol", "/x", "xfs"), False),
        ("/data/web", MountPoint("8:2", "/other", "/x", "xfs"), False),
        # Who watches a machine has all of its root.
        ("/srv/vol", MountPoint("8:1", "/", "/host", "ext4"), False),
    ],
)
def test_a_container_that_has_it_mounted_is_named(
    monkeypatch: pytest.MonkeyPatch, path: str, mount: MountPoint, is_used: bool
) -> None:
    assert told(monkeypatch, path, (OVERLAY, mount)) == [1] * is_used


def test_a_service_has_the_hosts_mounts_and_is_no_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    private = (*HOST, MountPoint("8:1", "/tmp/private", "/tmp", "ext4"))
    bound = (*HOST, MountPoint("8:1", "/srv/vol", "/run/service", "ext4"))
    for path in ("/data", "/data/web", "/srv/web", "/srv/vol/below"):
        assert told(monkeypatch, path, private) == []
    assert told(monkeypatch, "/srv/vol", private, bound) == [2]


@needs_root
def test_each_mount_namespace_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand processes of one container cost a thousand readlinks, and one read."""
    reads: list[int | str] = []

    def once(pid: int | str = "self") -> list[MountPoint]:
        reads.append(pid)
        return [OVERLAY]

    monkeypatch.setattr(mounts, "all_mounts", once)
    script = "echo ready; read _"
    words = ["unshare", "--mount", "sh", "-c", f"({script}) & ({script}) & {script}"]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == ["ready\n"] * 3
        namespace = os.readlink(f"/proc/{process.pid}/ns/mnt")
        found = mounts.of_others()
        inside = [one.pid for one in found if os.readlink(f"/proc/{one.pid}/ns/mnt") == namespace]
        process.communicate("\n" * 3)
    assert inside == [process.pid]
    assert len(reads) == len(found)
    assert os.getpid() not in reads


@contextmanager
def container(host: Host, source: Path) -> Iterator[int]:
    """A process with a root of its own and a folder of the host in it; its pid."""
    root = host.root / "srv/container"
    for name in ("data", "old", "proc"):
        (root / name).mkdir(parents=True)
    script = (
        f"mount -t tmpfs tmpfs {root} && mkdir {root}/data {root}/old && mount --bind {source} {root}/data"
        f" && cd {root} && pivot_root . old && echo ready && read _"
    )
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process.pid
        finally:
            process.communicate("\n")


@pytest.mark.parametrize("part", ["", "below"])
def test_a_running_container_is_told_of_before_the_change_and_at_undo(
    volumes: Host, part: str
) -> None:
    volumes.allocate("web")
    simple(volumes.volume, 7, 7)
    simple(volumes.volume / "below", 7, 7)
    words = ("fix-volume", volumes.volume, *SHIFT, "--root", volumes.root)
    with container(volumes, volumes.volume / part) as pid:
        expected = f"{volumes.volume} is in use: process {pid} (sh) has it mounted at /data"
        dry = usernsplan(*words, "--dry-run", "--json")
        assert [note for note in json.loads(dry.stdout)["notes"] if expected in note]
        done = usernsplan(*words, "--json")
        assert f"warning: {expected}" in done.stderr
        document = json.loads(done.stdout)
        assert [note for note in document["notes"] if expected in note]
        assert (volumes.volume / "file-0").lstat().st_uid == START + 7
        assert expected in usernsplan("undo", document["run"], "--root", volumes.root).stderr
    assert "in use" not in usernsplan(*words).stderr


def test_a_look_at_every_process_is_quick() -> None:
    began = time.process_time()
    mounts.of_others()
    assert time.process_time() - began < 2


def test_a_mount_changes_no_owner_and_so_warns_of_nobody(volumes: Host) -> None:
    volumes.allocate("web")
    words = ("mount-volume", volumes.volume, "--container", "web", "--root", volumes.root)
    os.chown(volumes.volume, 4321, 4321)
    with container(volumes, volumes.volume):
        done = usernsplan(*words, "--json")
        report = json.loads(done.stdout)
        usernsplan("undo", report["run"], "--root", volumes.root)
    assert report["mounts"]
    assert "owners change" not in done.stdout + done.stderr
