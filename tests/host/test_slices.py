"""Slices on the files of a host, from the command line: what is written, shown, exported and forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.command import files_of, here, json_of, needs_root

USERS = "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/bash\n"
GROUPS = "root:x:0:\nalice:x:1000:\nrender:x:104:\n"
LINES = "# hers\nalice:100000:65536\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host on which useradd gave alice a range that her podman uses."""
    (tmp_path / "etc").mkdir()
    for name, text in (("passwd", USERS), ("group", GROUPS), ("subuid", LINES), ("subgid", LINES)):
        (tmp_path / "etc" / name).write_text(text)
    return tmp_path


def etc(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """The files in etc, but for lock files."""
    return {name: found for name, found in files_of(root / "etc").items() if "lock" not in name}


def exported(root: Path) -> Path:
    file = root / "plan.yaml"
    file.write_text(here("export", "--root", root)[0])
    return file


@needs_root
def test_from_the_first_slice_to_the_last(root: Path) -> None:
    before = etc(root)
    words = ("allocate", "--strategy", "per-container", "web", "db", "--within", "alice")
    _, told = here(*words, "--root", root, status=7)
    assert f"usernsplan {' '.join(words)} --size 32768 --root {root}" in told
    assert etc(root) == before

    here(*words, "--size", "1000", "--root", root)
    assert "Already up to date" in here(*words, "--size", "1000", "--root", root)[0]
    assert here("render", "podman", "web", "--rootless", "--root", root)[0] == (
        "--uidmap 0:64537:1000 --gidmap 0:64537:1000\n"
    )
    assert here("render", "podman", "db", "--rootless", "--root", root)[0] == (
        "--uidmap 0:63537:1000 --gidmap 0:63537:1000\n"
    )
    quadlet = here("render", "quadlet", "web", "--rootless", "--root", root)[0]
    assert "UIDMap=0:64537:1000\nGIDMap=0:64537:1000\n" in quadlet

    # The checks of an account look for her lines as they stand.
    script = here("render", "rootless", "web", "--root", root)[0]
    assert "grep -qxF alice:100000:65536 /etc/subuid\n" in script

    volume = root / "srv" / "web"
    volume.mkdir(parents=True)
    here("fix-volume", volume, "--container", "web", "--mode", "shift", "--root", root)
    assert (volume.stat().st_uid, volume.stat().st_gid) == (164536, 164536)

    file = exported(root)
    spec = yaml.safe_load(file.read_text())
    web = next(one for one in spec["containers"] if one["name"] == "web")
    assert (web["within"], web["start"], web["size"]) == ("alice", 164536, 1000)
    assert "owner" not in web
    assert "the host matches" in here("plan", file, "--root", root)[0]
    codes = {one["code"] for one in json_of("check", "--root", root)["findings"]}
    assert not codes & {"USN001", "USN002", "USN020", "USN050", "USN053"}

    here("release", "web", "--root", root)
    assert etc(root) == before
    codes = {one["code"] for one in json_of("check", "--root", root)["findings"]}
    assert "USN010" not in codes
    here("apply", file, "--yes", "--root", root)
    assert (volume.stat().st_uid, volume.stat().st_gid) == (164536, 164536)
    assert "the host matches" in here("plan", file, "--root", root)[0]
    assert etc(root) == before


@needs_root
def test_the_plan_file_makes_the_same_slices_on_another_host(root: Path, tmp_path: Path) -> None:
    # Her uids and her gids begin at different ids, so a slice needs a map.
    (root / "etc" / "subgid").write_text("alice:200000:65536\n")
    words = ("allocate", "--strategy", "per-container", "web", "--within", "alice", "--size", "9")
    here(*words, "--root", root)
    file = exported(root)
    [web] = yaml.safe_load(file.read_text())["containers"]
    assert web == {
        "name": "web",
        "within": "alice",
        "size": 9,
        "map": ["u 0 165527 9", "g 0 265527 9"],
    }
    assert "the host matches" in here("plan", file, "--root", root)[0]

    other = tmp_path / "other"
    (other / "etc").mkdir(parents=True)
    for path in (root / "etc").iterdir():
        if path.is_file():
            (other / "etc" / path.name).write_bytes(path.read_bytes())
    before = etc(other)
    assert "within alice" in here("plan", file, "--root", other)[0]
    here("apply", file, "--yes", "--root", other)
    assert etc(other) == before
    assert exported(other).read_text() == file.read_text()

    # Both ranges are quarantined, each forgotten by the command that is shown.
    shown = here("release", "web", "--root", other)[0]
    for ids in ("165527-165535", "265527-265535"):
        assert f"usernsplan release --forget web --range {ids} --root {other}" in shown
        here("release", "--forget", "web", "--range", ids, "--root", other)
    assert json_of("list", "--root", other)["quarantined"] == []


@needs_root
def test_a_host_with_other_engines_gets_no_pool(root: Path) -> None:
    before = etc(root)
    here("allocate", "--strategy", "per-container", "web", "--within", "alice", "--root", root)
    assert etc(root) == before
    [web] = json_of("list", "--root", root)["allocations"]
    assert web["reserved_range"] == {"start": 100000, "count": 65536}
    assert web["lines"] is False
