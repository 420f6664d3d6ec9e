"""Nobody becomes through a file whom he could not become before, whichever way a volume goes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.command import here
from tests.volume.tree import (
    Host,
    capability_v2,
    capability_v3,
    differences,
    finish,
    maps,
    shift,
    snapshot,
    write,
)

STRANGER, ACCOUNT = 1000, 70000
CONTENT = b"#!/bin/sh\nid\n"


def made(  # noqa: PLR0917 - a file in one line
    host: Host, name: str, uid: int, gid: int, mode: int, capability: bytes = b""
) -> Path:
    path = os.fsencode(host.volume) + b"/" + name.encode()
    finish(write(path, CONTENT), uid, gid, mode, capability=capability)
    return host.volume / name


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(places: list[dict[str, str]]) -> list[str]:
    return sorted(Path(place["path"]).name for place in places)


def test_a_strangers_setuid_file_is_never_container_roots_nor_then_host_roots(
    volumes: Host,
) -> None:
    volumes.allocate("web")
    theirs = made(volumes, "stranger", STRANGER, STRANGER, 0o6755, capability_v2())
    ours = made(volumes, "root", 0, 0, 0o6755, capability_v2())
    group = made(volumes, "group", 0, 5, 0o6755)
    report = volumes.fix()
    assert (mode(theirs), mode(ours), mode(group)) == (0o755, 0o6755, 0o4755)
    assert names(report["dropped"]) == ["group", "stranger"]
    reasons = {Path(place["path"]).name: place["reason"] for place in report["dropped"]}
    [start] = volumes.starts.values()
    assert (
        f"chmod 6755 {theirs} && setcap -n {start} cap_net_raw=ep {theirs}" in reasons["stranger"]
    )
    assert f"chmod 6755 {group}" in reasons["group"]

    refused = volumes.refusal("--reverse", status=9)
    assert str(ours) in refused
    assert str(theirs) not in refused
    volumes.fix("--reverse", "--drop-power")
    for path in (theirs, ours, group):
        found = path.stat()
        assert (found.st_uid, found.st_mode & 0o6000) == (0, 0)
        assert "security.capability" not in os.listxattr(path)


@pytest.mark.parametrize("yes", [(), ("--yes",)])
def test_a_map_that_gives_power_is_refused_with_the_list_before_anything_is_written(
    volumes: Host, yes: tuple[str, ...]
) -> None:
    made(volumes, "to-root", STRANGER, 7, 0o4755)
    made(volumes, "quiet", STRANGER, 7, 0o755)
    before = snapshot(volumes.volume)
    refused = volumes.refusal(
        "--uid-map", "1000:0:1", "--gid-map", "7:7:1", "--unmapped", "keep", *yes, status=9
    )
    assert "to-root: setuid 1000 would become setuid 0" in refused
    assert "quiet" not in refused
    assert "--drop-power" in refused
    assert snapshot(volumes.volume) == before
    assert volumes.run_names() == []


def test_a_map_onto_an_account_of_the_host_gives_no_power_and_onto_nobody_does_no_harm(
    host: Host,
) -> None:
    (host.root / "etc/passwd").write_text(
        f"root:x:0:0::/:\nalice:x:{ACCOUNT}:{ACCOUNT}::/home/alice:\n"
    )
    made(host, "man", 6, 12, 0o6755)
    assert "setuid 6 would become setuid 70000" in host.refusal(
        "--uid-map", f"6:{ACCOUNT}:1", "--gid-map", "12:300000:1", "--unmapped", "keep", status=9
    )
    host.fix(*maps(shift(300000)))
    assert mode(host.volume / "man") == 0o6755


def test_the_programs_of_a_shifted_root_file_system_keep_what_they_are(volumes: Host) -> None:
    [start] = volumes.allocate("web")
    wanted = {
        "su": (0, 0, 0o4755),
        "chage": (0, 42, 0o2755),
        "man": (6, 12, 0o4755),
        "write": (0, 5, 0o2755),
    }
    for name, (uid, gid, bits) in wanted.items():
        made(volumes, name, uid, gid, bits)
    made(volumes, "ping", 0, 0, 0o755, capability_v2())
    assert volumes.fix("--mode", "shift")["dropped"] == []
    for name, (uid, gid, bits) in wanted.items():
        found = (volumes.volume / name).stat()
        assert (found.st_uid, found.st_gid, mode(volumes.volume / name)) == (
            start + uid,
            start + gid,
            bits,
        )
    assert os.getxattr(volumes.volume / "ping", "security.capability") == capability_v3(start)


def test_out_of_a_container_that_stands_no_power_comes_and_out_of_a_released_one_it_does(
    host: Host,
) -> None:
    host.allocate("old", "new")
    made(host, "setuid", STRANGER, 7, 0o4755)
    host.fix("--container", "old", "--mode", "shift")
    assert "setuid" in host.refusal("--container", "new", "--from", "old", status=9)
    here("release", "old", "--root", host.root)
    host.fix("--container", "new", "--from", "old")
    assert mode(host.volume / "setuid") == 0o4755


@pytest.mark.parametrize("words", [("--mode", "shift"), (), ("--user", "33:33")])
def test_undo_gives_power_back_to_what_is_proved_and_names_the_rest(
    volumes: Host, words: tuple[str, ...]
) -> None:
    volumes.allocate("web")
    made(volumes, "same", 0, 0, 0o6755, capability_v2())
    made(volumes, "stranger", STRANGER, STRANGER, 0o4711)
    linked = made(volumes, "linked", 0, 0, 0o4755)
    (volumes.volume / "folder").mkdir()
    os.link(linked, volumes.volume / "folder/too")
    written = made(volumes, "written", 0, 0, 0o4755)
    mapped = made(volumes, "mapped", 0, 0, 0o4755)
    before = snapshot(volumes.volume)
    run = volumes.fix(*words)["run"]
    for path, bits in ((written, 0o4755), (mapped, 0o4755)):
        inode = path.stat().st_ino
        path.write_bytes(CONTENT.replace(b"id", b"sh"))
        path.chmod(bits)
        assert path.stat().st_ino == inode

    report = volumes.undo(run, status=3)
    assert names(report["failed"]) == ["mapped", "written"]
    assert all("content has changed" in place["reason"] for place in report["failed"])
    assert f"chmod 4755 {written}" in "".join(place["reason"] for place in report["failed"])
    after = snapshot(volumes.volume)
    for name in (b"written", b"mapped"):
        assert (after[name].uid, after[name].mode) == (0, 0o755)
        del after[name], before[name]
    assert differences(after, before) == []
    # And once more nothing changes: what is named is named again.
    assert names(volumes.undo(run, status=3)["failed"]) == ["mapped", "written"]
    assert volumes.undo(run, "--also-changed", status=3)["changed"] is False


def test_undo_of_what_dropped_power_gives_it_back_where_it_is_proved(volumes: Host) -> None:
    volumes.allocate("web")
    made(volumes, "stranger", STRANGER, STRANGER, 0o6755, capability_v2())
    before = snapshot(volumes.volume)
    report = volumes.fix()
    assert names(report["dropped"]) == ["stranger"]
    volumes.undo(report["run"])
    assert differences(snapshot(volumes.volume), before) == []


def test_keep_power_keeps_what_the_run_proves_that_brought_it_in(volumes: Host) -> None:
    volumes.allocate("web")
    made(volumes, "same", 0, 0, 0o4755, capability_v2())
    written = made(volumes, "written", 0, 0, 0o4755)
    before = snapshot(volumes.volume)
    volumes.fix("--mode", "shift")
    written.write_bytes(b"other")
    written.chmod(0o4755)
    # Of the container's own making: no run brought it in.
    [start] = volumes.starts.values()
    made(volumes, "new", start, start, 0o4755)

    foretold = volumes.fix("--reverse", "--keep-power", "--dry-run")
    report = volumes.fix("--reverse", "--keep-power")
    assert foretold["dropped"] == report["dropped"]
    assert names(report["dropped"]) == ["new", "written"]
    after = snapshot(volumes.volume)
    assert differences({b"same": after[b"same"]}, {b"same": before[b"same"]}) == []
    assert [after[name].mode for name in (b"new", b"written")] == [0o755, 0o755]
    # A run that gave a file a new inode can be taken back too.
    volumes.undo(report["run"], status=0)
    again = snapshot(volumes.volume)
    assert (again[b"same"].uid, again[b"same"].mode) == (start, 0o4755)
    assert again[b"same"].capability == capability_v3(start)
    assert [again[name].mode for name in (b"new", b"written")] == [0o4755, 0o4755]


def test_without_a_journal_nothing_is_proved(host: Host) -> None:
    [start] = host.allocate("web")
    made(host, "setuid", start, start, 0o4755)
    report = host.fix("--reverse", "--keep-power")
    assert names(report["dropped"]) == ["setuid"]
    assert "no record proves its content" in report["dropped"][0]["reason"]
    assert mode(host.volume / "setuid") == 0o755


def test_runs_that_gave_new_inodes_are_undone_one_after_the_other(volumes: Host) -> None:
    volumes.allocate("web", "db")
    made(volumes, "setuid", 0, 0, 0o6755, capability_v2())
    first = snapshot(volumes.volume)
    one = volumes.fix("--container", "web", "--mode", "shift")["run"]
    second = snapshot(volumes.volume)
    two = volumes.fix("--container", "db", "--from", "web", "--keep-power")["run"]
    third = snapshot(volumes.volume)
    three = volumes.fix("--container", "db", "--reverse", "--keep-power")["run"]
    assert differences(snapshot(volumes.volume), first) == []
    volumes.undo(three)
    assert differences(snapshot(volumes.volume), third) == []
    volumes.undo(two)
    assert differences(snapshot(volumes.volume), second) == []
    volumes.undo(one)
    assert differences(snapshot(volumes.volume), first) == []


def test_setgid_on_folders_and_without_group_execute_is_no_power(host: Host) -> None:
    host.allocate("web")
    folder = host.volume / "folder"
    folder.mkdir()
    finish(os.fsencode(folder), STRANGER, 7, 0o6775)
    made(host, "locking", STRANGER, 7, 0o2745)
    assert host.fix()["dropped"] == []
    assert (mode(folder), mode(host.volume / "locking")) == (0o6775, 0o2745)
    host.fix("--reverse")
    assert (mode(folder), mode(host.volume / "locking")) == (0o6775, 0o2745)


def test_what_appears_meanwhile_gets_no_power_either(host: Host) -> None:
    """A dry look cannot know it, so the run itself takes it."""
    host.allocate("web")
    made(host, "stranger", STRANGER, STRANGER, 0o4755)
    preview = host.fix("--dry-run")
    done = host.fix()
    assert preview["dropped"] == done["dropped"] != []
