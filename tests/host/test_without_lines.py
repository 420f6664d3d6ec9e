"""allocate --no-lines: what the commands show of an allocation that only the ledger has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.command import extents, json_of, usernsplan

if TYPE_CHECKING:
    from pathlib import Path

ALLOCATE = ("allocate", "--strategy", "per-container", "web", "--no-lines", "--root")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "host/etc").mkdir(parents=True)
    (tmp_path / "host/etc/subuid").write_text("alice:100000:65536\n")
    (tmp_path / "host/etc/subgid").write_text("alice:100000:65536\n")
    (tmp_path / "host/etc/passwd").write_text("alice:x:1000:1000::/:/bin/sh\n")
    (tmp_path / "host/etc/group").write_text("alice:x:1000:\n")
    return tmp_path / "host"


def test_the_files_stay_as_they_are_and_every_command_knows_it(root: Path) -> None:
    before = [(root / f"etc/sub{kind}").read_bytes() for kind in ("uid", "gid")]
    made = json_of(*ALLOCATE, root)
    assert (made["changed"], made["changes"]) == (True, [])
    assert made["allocations"][0]["lines"] is False
    assert [(root / f"etc/sub{kind}").read_bytes() for kind in ("uid", "gid")] == before

    assert "(no lines)" in usernsplan("list", "--root", root).stdout
    assert "(no lines)" in usernsplan("show", "web", "--root", root).stdout
    assert json_of("show", "web", "--root", root)["allocations"][0]["lines"] is False
    [holder] = json_of("whois", "589857", "--root", root)["answers"][0]["uid"][:1]
    assert (holder["name"], holder["container_id"]) == ("web", 33)
    [entry] = json_of("history", "--root", root)["entries"]
    assert entry["lines"] == [
        f"{root}/etc/userdb: + usernsplan-web",
        "allocated web without lines: uids 589824-655359, gids 589824-655359",
    ]
    assert json_of("check", "--root", root)["findings"] == []
    usernsplan("check", "--fix", "--root", root)
    assert [(root / f"etc/sub{kind}").read_bytes() for kind in ("uid", "gid")] == before

    assert "lines: false" in usernsplan("export", "--root", root).stdout
    flags = usernsplan("render", "podman", "web", "--root", root).stdout
    assert "--uidmap 0:589824:65536" in flags
    assert (
        "only the ledger has it"
        in usernsplan("render", "lxc", "web", "--root", root, status=9).stderr
    )


def test_a_line_of_its_owner_is_reported(root: Path) -> None:
    usernsplan(*ALLOCATE, root)
    with (root / "etc/subuid").open("a") as file:
        file.write("usernsplan-web:720896:65536\n")
    found = json_of("check", "--select", "USN053", "--root", root)["findings"]
    assert ["without lines" in one["message"] for one in found] == [True]


def test_with_lines_again_it_has_the_same_range(root: Path) -> None:
    usernsplan(*ALLOCATE, root)
    gone = usernsplan("release", "web", "--root", root)
    assert "Quarantined until forgotten: 589824-655359 (web)" in gone.stdout
    made = json_of("allocate", "--strategy", "per-container", "web", "--root", root)
    assert made["allocations"][0]["uid_map"] == extents((0, 589824, 65536))
    assert "usernsplan-web:589824:65536\n" in (root / "etc/subuid").read_text()


def test_a_plan_file_of_the_host_makes_the_same_one(root: Path) -> None:
    usernsplan(*ALLOCATE, root)
    (root / "etc/usernsplan.yaml").write_text(usernsplan("export", "--root", root).stdout)
    usernsplan("plan", "--check", "--root", root)
    usernsplan("release", "web", "--root", root)
    usernsplan("apply", "--yes", "--root", root)
    [found] = json_of("list", "--root", root)["allocations"]
    assert (found["lines"], found["uid_map"]) == (False, extents((0, 589824, 65536)))


def test_a_rebuilt_ledger_lacks_it_and_says_so(root: Path) -> None:
    usernsplan(*ALLOCATE, root)
    ledger = root / "var/lib/usernsplan/ledger.sqlite3"
    ledger.write_bytes(b"damaged")
    shown = json_of("ledger", "rebuild", "--yes", "--root", root)
    assert shown["allocations"] == []
    assert any("allocations without lines" in one["what"] for one in shown["left_out"])
