"""Real file systems for real volumes, in mounts of the test process's own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NoReturn

import pytest

from tests.volume.tree import Host, unshare_mounts

NUMBERS = count(1)


@pytest.fixture(autouse=True)
def over_both_steps(volume_step: str) -> None:
    """Every test of this folder runs over both."""
    assert volume_step


def _lacking(what: str) -> NoReturn:
    """As tests.command.missing: where everything is to be there, that is a failure."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(what)


@pytest.fixture(scope="session")
def private_mounts() -> None:
    """Mounts that nobody else sees, and that end with the tests."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount, and give files away")
    unshare_mounts()


@pytest.fixture(scope="session")
def tmpfs_mount(private_mounts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tmpfs that notes every time that something is read."""
    assert private_mounts is None
    place = tmp_path_factory.mktemp("tmpfs")
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "strictatime,mode=755", "tmpfs", place], check=True
    )
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture(scope="session")
def ext4_mount(tmpfs_mount: Path) -> Iterator[Path]:
    """An ext4 in a file of the tmpfs, where no test waits for a disk."""
    if shutil.which("mkfs.ext4") is None:
        _lacking("mkfs.ext4 is not installed")
    image, place = tmpfs_mount / "ext4.image", tmpfs_mount / "ext4"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(512 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-N", "131072", image], check=True)
    mounted = subprocess.run(
        ["mount", "-o", "loop,strictatime", image, place],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        _lacking(f"an image cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)
    image.unlink()


@pytest.fixture
def tmpfs(tmpfs_mount: Path) -> Path:
    """A fresh folder on tmpfs."""
    return _fresh(tmpfs_mount)


@pytest.fixture
def ext4(ext4_mount: Path) -> Path:
    """A fresh folder on ext4."""
    return _fresh(ext4_mount)


def _fresh(place: Path) -> Path:
    made = place / f"test-{next(NUMBERS)}"
    made.mkdir()
    return made


def _host(place: Path, file_system: str) -> Host:
    root = place / f"host-{next(NUMBERS)}"
    for folder in ("etc", "srv/vol", "srv/outside"):
        (root / folder).mkdir(parents=True)
    return Host(root, file_system)


@pytest.fixture(params=["tmpfs", "ext4"])
def volumes(request: pytest.FixtureRequest) -> Host:
    """A fresh host on each kind of file system."""
    place: Path = request.getfixturevalue(request.param)
    return _host(place, request.param)


@pytest.fixture
def host(tmpfs: Path) -> Host:
    """A fresh host on tmpfs, for what does not depend on the file system."""
    return _host(tmpfs, "tmpfs")


@pytest.fixture
def ext4_host(ext4: Path) -> Host:
    """A fresh host on ext4, for what tmpfs has only on new kernels."""
    return _host(ext4, "ext4")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """By default every case runs on tmpfs, and the first one of each test on ext4 too."""
    seen = set()
    for item in items:
        if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
            continue
        if item.callspec.params.get("volumes") == "ext4":
            test = (item.function, item.callspec.params["volume_step"])
            if test in seen:
                item.add_marker(pytest.mark.slow)
            seen.add(test)
