"""Hosts with Incus or LXD, from their files: what is granted, what check says, and whose an id is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.command import here, json_of

if TYPE_CHECKING:
    from pathlib import Path

ALLOCATE = ("allocate", "--strategy", "per-container")
OF_INSTANCES = "root:1000000:1000000000\n"
WEB = "usernsplan-web:589824:65536\n"
SMALL = "root:589824:32768\nroot:622592:32768\n"
ACCOUNTS = (
    "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"
    "nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with newuidmap, root, alice and nobody."""
    put(tmp_path, "etc/passwd", ACCOUNTS)
    put(tmp_path, "etc/group", "root:x:0:\nalice:x:1000:\nnogroup:x:65534:\n")
    for program in ("newuidmap", "newgidmap"):
        put(tmp_path, f"usr/bin/{program}")
    return tmp_path


def put(root: Path, name: str, text: str = "") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def lines(root: Path, text: str) -> None:
    for name in ("subuid", "subgid"):
        put(root, f"etc/{name}", text)


def granted(root: Path) -> str:
    texts = {(root / f"etc/{name}").read_text() for name in ("subuid", "subgid")}
    assert len(texts) == 1
    return texts.pop()


def codes(root: Path) -> dict[str, str]:
    """The findings of check that are not information, with their severity."""
    document = json.loads(here("check", "--json", "--root", root, status=None)[0])
    return {
        one["code"]: one["severity"] for one in document["findings"] if one["severity"] != "info"
    }


def test_beside_incus_root_gets_lines_that_leave_its_instances_alone(root: Path) -> None:
    put(root, "usr/bin/incusd")
    lines(root, OF_INSTANCES)
    _, said = here(*ALLOCATE, "web", "--engine", "incus", "--root", root)
    assert granted(root) == OF_INSTANCES + WEB + SMALL
    assert json_of("list", "--root", root)["allocations"][0]["split_owners"] == ["root"]
    assert "USN119" in said
    assert "USN123" not in said
    assert codes(root) == {}
    assert not json_of("allocate", "web", "--engine", "incus", "--root", root)["changed"]
    here("release", "web", "--yes", "--root", root)
    assert granted(root) == OF_INSTANCES


def test_two_large_lines_of_roots_are_an_error_where_incus_is(root: Path) -> None:
    put(root, "usr/bin/incusd")
    lines(root, f"{OF_INSTANCES}root:1001000000:1000000000\n")
    assert codes(root)["USN087"] == "error"


def test_lines_of_owner_0_are_renamed_first(root: Path) -> None:
    put(root, "usr/bin/incusd")
    lines(root, "0:1000000:1000000000\n")
    _, said = here(*ALLOCATE, "web", "--engine", "lxc", "--root", root, status=9)
    assert "rename the owner first: sed -i 's/^0:/root:/'" in said
    assert f"{root}/etc/subuid" in said
    assert granted(root) == "0:1000000:1000000000\n"
    assert codes(root) == {}


def test_nine_names_beside_the_snap_of_lxd(root: Path) -> None:
    put(root, "snap/bin/lxd")
    lines(root, "alice:100000:65536\n")
    made = json_of(*ALLOCATE, *(f"c{n}" for n in range(1, 10)), "--root", root)["allocations"]
    starts = [one["reserved_range"]["start"] for one in made]
    assert not [start for start in starts if 1000000 - 65536 < start < 1001000000]
    assert starts[6] == 1001062400
    said, _ = here("whois", "1000000", "--root", root)
    assert "LXD (all instances)" in said
    assert f"{root}/snap/bin/lxd" in said
    assert codes(root) == {}
    assert json_of("capacity", "--root", root)


def test_in_files_that_are_new_root_keeps_the_ids_of_incus(root: Path) -> None:
    put(root, "usr/bin/incusd")
    _, said = here(*ALLOCATE, "web", "--engine", "incus", "--root", root)
    assert granted(root) == OF_INSTANCES + WEB + SMALL
    assert "USN139" in said
    assert codes(root) == {}
    here("release", "web", "--yes", "--root", root)
    assert granted(root) == OF_INSTANCES


@pytest.mark.parametrize(
    ("program", "text"),
    [
        # As Debian's packages leave them.
        ("usr/libexec/incus/incusd", OF_INSTANCES),
        ("usr/bin/lxd", "_lxd:100000:10000001\nroot:100000:10000001\n"),
        ("snap/bin/lxd", "alice:100000:65536\n"),
        # LXD's own documentation proposes the line, also for the snap.
        ("snap/bin/lxd", OF_INSTANCES),
        ("usr/libexec/incus/incusd", None),
    ],
    ids=["incus", "lxd", "snap", "snap-and-root", "no-files"],
)
def test_a_fresh_host_with_one_of_them_has_no_finding(
    root: Path, program: str, text: str | None
) -> None:
    put(root, program)
    put(root, "etc/passwd", f"{ACCOUNTS}_lxd:x:100:100::/:/bin/false\n")
    if text is not None:
        lines(root, text)
    assert codes(root) == {}
