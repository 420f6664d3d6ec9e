"""The disk is the truth: recorded volumes are looked at, and interrupted runs are shown, wherever it counts."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.command import here
from usernsplan.host.files import layout_at
from usernsplan.host.runs import FORMAT
from usernsplan.host.volumes import recorded
from usernsplan.ledger import open_ledger
from usernsplan.volume import journal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.volume.tree import Host

PLAN = (
    "strategy: per-container\nengines: [podman]\ncontainers: [{{name: web, volumes: [{volume}]}}]\n"
)


def fixed(host: Host, mode: str = "own", count: int = 4) -> int:
    """A host that is as its plan file says: the first id of the container that has the volume."""
    [start] = host.allocate("web")
    for number in range(count):
        (host.volume / f"file-{number}").touch()
    (host.volume / "sub").mkdir()
    (host.volume / "sub/deep").touch()
    host.fix("--container", "web", "--mode", mode)
    volume = "/srv/vol" if mode == "own" else "{path: /srv/vol, mode: shift}"
    (host.root / "etc/usernsplan.yaml").write_text(PLAN.format(volume=volume))
    return start


def ran(host: Host, *words: str, status: int = 0) -> tuple[str, str]:
    return here(*words, "--root", host.root, status=status)


def told(host: Host, *words: str, status: int = 0) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(ran(host, *words, "--json", status=status)[0])
    return document


def codes(host: Host, *words: str, status: int) -> list[str]:
    found = told(host, "check", "--select", "USN07", *words, status=status)["findings"]
    return [finding["code"] for finding in found]


def all_is_well(host: Host) -> None:
    ran(host, "plan", "--check")
    assert codes(host, "--volumes", status=0) == []
    [volume] = told(host, "list")["volumes"]
    assert (volume["path"], volume["name"], volume["right"], volume["wrong"]) == (
        "/srv/vol",
        "web",
        True,
        None,
    )
    assert "looks right" in ran(host, "show", "web")[0]
    assert "file" not in ran(host, "list")[0]
    assert "fix-volume" not in ran(host, "render", "podman", "web", "--volume", "/srv/vol:/data")[1]


def nothing_calls_it_right(host: Host, fact: str, code: str = "USN072", status: int = 1) -> None:
    out, _ = ran(host, "plan", "--check", status=4)
    if "symlink" not in fact:
        # Where one leads elsewhere, the plan has that name.
        assert "~ volume /srv/vol" in out
        assert fact in out
    [finding] = told(host, "check", "--select", "USN07", status=status)["findings"]
    assert (finding["code"], finding["place"]) == (code, f"{host.root}/srv/vol")
    assert fact in finding["message"]
    assert f"--root {host.root}" in finding["hint"]
    assert "usernsplan fix-volume /srv/vol --container web --mode" in finding["hint"]
    for words in (("list",), ("show", "web")):
        assert fact in ran(host, *words)[0]
        [volume] = told(host, *words)["volumes"]
        assert (volume["path"], volume["mode"], volume["right"]) == ("/srv/vol", "own", False)
        assert fact in volume["wrong"]
    for engine in ("podman", "quadlet", "nspawn", "lxc"):
        _, said = ran(host, "render", engine, "web", "--volume", "/srv/vol:/data")
        assert "/srv/vol is recorded as web's, but" in said
        assert fact in said
        assert "usernsplan fix-volume /srv/vol --container web" in said


def chowned(host: Host, uid: int, *paths: str) -> None:
    for path in paths:
        os.chown(host.volume / path, uid, uid, follow_symlinks=False)


def restored(host: Host) -> None:
    chowned(host, 0, "", "file-0", "file-1", "file-2", "file-3", "sub", "sub/deep")


def in_part(host: Host) -> None:
    chowned(host, 0, "file-1", "file-2")


def replaced(host: Host) -> None:
    host.volume.rename(host.root / "srv/old")
    host.volume.mkdir()


def by_a_symlink(host: Host) -> None:
    host.volume.rename(host.root / "srv/old")
    host.volume.symlink_to("old")


def through_a_symlink(host: Host) -> None:
    (host.root / "srv").rename(host.root / "other")
    (host.root / "srv").symlink_to("other")


def by_a_pipe(host: Host) -> None:
    shutil.rmtree(host.volume)
    os.mkfifo(host.volume)


def hidden(host: Host) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", host.volume], check=True)


@pytest.mark.spread(4)
@pytest.mark.parametrize(
    ("happens", "fact"),
    [
        (
            restored,
            "its top belongs to uid 0 and gid 0, 5 of 5 entries in it belong to uid 0 and gid 0",
        ),
        (in_part, "2 of 5 entries in it belong to uid 0 and gid 0"),
        (replaced, "its top belongs to uid 0 and gid 0"),
        (by_a_symlink, "a symlink leads to it"),
        (through_a_symlink, "a symlink leads to it"),
        (by_a_pipe, "its top belongs to uid 0 and gid 0"),
        (hidden, "its top belongs to uid 0 and gid 0"),
    ],
)
def test_a_volume_that_is_another_one_now_is_called_right_nowhere(
    volumes: Host, happens: Callable[[Host], None], fact: str
) -> None:
    fixed(volumes)
    all_is_well(volumes)
    happens(volumes)
    try:
        nothing_calls_it_right(volumes, fact)
        if happens is hidden:
            assert "and something is mounted there" in ran(volumes, "plan")[0]
            hint = told(volumes, "check", "--select", "USN072", status=1)["findings"][0]["hint"]
            assert hint.startswith("if the mount hides the volume, unmount it")
    finally:
        if happens is hidden:
            subprocess.run(["umount", volumes.volume], check=True)
    if happens is hidden:
        all_is_well(volumes)


@pytest.mark.parametrize("mode", ["own", "shift"])
@pytest.mark.parametrize("happens", [restored, in_part, replaced])
def test_apply_fixes_it_again(host: Host, happens: Callable[[Host], None], mode: str) -> None:
    start = fixed(host, mode)
    happens(host)
    ran(host, "plan", "--check", status=4)
    ran(host, "apply", "--yes", "--fix-volumes")
    assert {path.lstat().st_uid for path in (host.volume, *host.volume.rglob("*"))} == {start}
    all_is_well(host)


def test_the_command_of_check_mends_it(host: Host) -> None:
    start = fixed(host, "shift")
    chowned(host, 5, "", "sub")
    [finding] = told(host, "check", "--select", "USN072", status=1)["findings"]
    words = shlex.split(finding["hint"].partition("usernsplan ")[2])
    here(*words)
    assert (host.volume / "sub").stat().st_uid == start + 5
    all_is_well(host)


def test_a_volume_that_is_gone_is_a_warning(host: Host) -> None:
    fixed(host)
    shutil.rmtree(host.volume)
    nothing_calls_it_right(host, "there is nothing at this path", "USN073", status=0)


def test_what_the_container_gives_to_others_of_its_own_is_right(host: Host) -> None:
    start = fixed(host)
    chowned(host, start + 65535, "", "file-0", "sub")
    all_is_well(host)
    chowned(host, start + 65536, "file-0")
    nothing_calls_it_right(
        host, f"1 of 5 entries in it belong to uid {start + 65536} and gid {start + 65536}"
    )


def test_ids_of_others_are_told_by_their_names(host: Host) -> None:
    fixed(host)
    [db, old] = host.allocate("db", "old")
    ran(host, "release", "old")
    chowned(host, db, "file-0")
    chowned(host, old + 5, "file-1")
    out, _ = ran(host, "list")
    assert f"1 of 5 entries in it belong to uid {db} (db's) and gid {db} (db's)" in out
    assert f"uid {old + 5} (of old's former range)" in out


def test_what_is_mounted_in_it_is_not_the_volume_s(host: Host) -> None:
    fixed(host)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", host.volume / "sub"], check=True)
    try:
        all_is_well(host)
    finally:
        subprocess.run(["umount", host.volume / "sub"], check=True)


def test_what_a_run_was_told_to_leave_is_right_as_long_as_something_is_the_container_s(
    host: Host,
) -> None:
    host.allocate("web")
    for number, owner in enumerate((0, 70000)):
        (host.volume / f"file-{number}").touch()
        os.chown(host.volume / f"file-{number}", owner, owner)
    host.fix("--mode", "shift", "--unmapped", "keep")
    assert told(host, "list")["volumes"][0]["right"] is True
    assert codes(host, status=0) == []
    # All files are looked at only when that is asked for, and then these are told.
    assert codes(host, "--volumes", status=1) == ["USN074"]
    chowned(host, 0, "", "file-0")
    assert codes(host, status=1) == ["USN072"]


def test_a_file_that_was_left_for_its_links_elsewhere_is_no_trouble(host: Host) -> None:
    host.allocate("web")
    (host.volume / "file").touch()
    os.link(host.volume / "file", host.outside / "file")
    host.fix("--outside-links", "skip")
    assert (host.volume / "file").stat().st_uid == 0
    assert told(host, "list")["volumes"][0]["right"] is True


def test_what_lies_deeper_is_found_with_volumes(host: Host) -> None:
    start = fixed(host)
    (host.volume / "sub/odd\n").touch()
    chowned(host, start, "sub/odd\n")
    os.chown(host.volume / "sub/deep", 0, start)
    os.chown(host.volume / "sub/odd\n", start, 33)
    assert codes(host, status=0) == []
    [finding] = told(host, "check", "--select", "USN07", "--volumes", status=1)["findings"]
    assert finding["message"].startswith("2 files have ids that 'web' lacks (")
    for word in ("uid 0", "gid 33", f"{host.volume}/sub/deep", "odd\\n'"):
        assert word in finding["message"]
    assert (
        finding["hint"]
        == f"usernsplan fix-volume /srv/vol --container web --mode own --user 0:0 --root {host.root}"
    )
    here(*shlex.split(finding["hint"])[1:])
    assert codes(host, "--volumes", status=0) == []


def test_looking_changes_nothing_and_stops_at_a_thousand(host: Host) -> None:
    fixed(host, count=1200)
    before = {
        path: (path.lstat().st_atime_ns, path.lstat().st_ctime_ns)
        for path in (host.volume, *host.volume.iterdir())
    }
    layout = layout_at(str(host.root))
    [seen] = recorded(layout, open_ledger(layout).state()).volumes
    assert seen.is_cut
    assert sum(entries for _, _, entries in seen.owners) == 1000
    assert {path: (path.lstat().st_atime_ns, path.lstat().st_ctime_ns) for path in before} == before


def test_a_thousand_volumes_are_looked_at_quickly(host: Host) -> None:
    fixed(host)
    layout = layout_at(str(host.root))
    ledger = open_ledger(layout).state()
    [one] = ledger.volumes
    many = []
    for number in range(1000):
        (host.root / f"srv/{number}").mkdir()
        many.append(replace(one, path=f"/srv/{number}"))
    began = time.process_time()
    found = recorded(layout, replace(ledger, volumes=tuple(many)))
    # Far more than it takes, and far less than once through all of them for each.
    assert time.process_time() - began < 5
    assert len(found.volumes) == 1000


# Interrupted runs


def interrupted(
    host: Host, state: str = "changing", command: str = "usernsplan fix-volume /srv/vol"
) -> str:
    """A run that did something and was killed; what it is called."""
    [start] = host.allocate("web")
    (host.volume / "file").touch()
    run: str = host.fix("--container", "web")["run"]
    place = host.runs / run / "run.json"
    content = {**json.loads(place.read_text()), "state": state, "command": command, "end": None}
    place.write_text(json.dumps(content))
    assert start
    return run


EVERYWHERE = (("plan", "--check"), ("list",), ("show", "web"))


@pytest.mark.parametrize("state", ["changing", "undoing"])
def test_an_interrupted_run_is_told_everywhere_with_both_commands(host: Host, state: str) -> None:
    run = interrupted(host, state)
    (host.root / "etc/usernsplan.yaml").write_text(PLAN.format(volume="/srv/vol"))
    undo = f"usernsplan undo {run} --root {host.root}"
    finish = f"finish it: usernsplan fix-volume {host.volume} --container web --root {host.root}; or undo it: "
    remedies = [undo] if state == "undoing" else [finish, undo]
    [finding] = told(host, "check", "--select", "USN07", status=1)["findings"]
    assert (finding["code"], finding["severity"]) == ("USN070", "error")
    assert str(host.volume) in finding["message"]
    for words in EVERYWHERE:
        document = told(host, *words)
        shown = document["unfinished_runs"] if words[0] != "plan" else document["findings"]
        assert [one["message"] for one in shown] == [finding["message"]]
        _, said = ran(host, *words)
        assert run in said
        for remedy in remedies:
            assert remedy in finding["hint"]
            assert remedy in shown[0]["hint"]
            assert remedy in said
    for path in ("/srv/vol", "/srv", "/srv/vol/below"):
        out, said = ran(host, "render", "podman", "web", "--volume", f"{path}:/data", status=9)
        assert "--uidmap" not in out
        for remedy in (f"run {run} on", *remedies):
            assert remedy in said
    ran(host, "render", "podman", "web", "--volume", "/srv/volume:/data")
    ran(host, "render", "podman", "web")


def test_a_run_at_work_or_one_that_is_over_is_no_finding(host: Host) -> None:
    run = interrupted(host)
    layout = layout_at(str(host.root))
    at_work = journal.resume(layout, journal.run(layout, run))
    try:
        assert codes(host, status=0) == []
        assert told(host, "list")["unfinished_runs"] == []
        ran(host, "render", "podman", "web", "--volume", "/srv/vol:/data")
        at_work.set(state="done", end=1)
    finally:
        at_work.close()
    assert codes(host, status=0) == []


def test_both_commands_do_what_they_say(host: Host) -> None:
    run = interrupted(host, command="")
    assert "call fix_volume again as before" in ran(host, "list")[1]
    host.undo(run)
    assert codes(host, status=0) == []
    assert told(host, "list")["unfinished_runs"] == []


@pytest.mark.parametrize(
    ("raw", "fact"), [("{", "is damaged"), (f'{{"format": {FORMAT + 1}}}', "a newer usernsplan")]
)
def test_a_run_of_which_nobody_can_tell_is_named_everywhere(
    host: Host, raw: str, fact: str
) -> None:
    run = interrupted(host)
    (host.root / "etc/usernsplan.yaml").write_text(PLAN.format(volume="/srv/vol"))
    place = host.runs / run / "run.json"
    place.write_text(raw)
    [finding] = told(host, "check", "--select", "USN07", status=1)["findings"]
    assert (finding["code"], finding["place"]) == ("USN071", str(place))
    assert fact in finding["message"]
    for words in (*EVERYWHERE, ("render", "podman", "web", "--volume", "/srv/vol:/data")):
        _, said = ran(host, *words)
        assert fact in said
        assert str(place) in said


def test_without_any_run_or_volume_nothing_is_said_and_nothing_made(tmp_path: Path) -> None:
    assert here("list", "--root", tmp_path)[1] == ""
    document = json.loads(here("list", "--json", "--root", tmp_path)[0])
    assert (document["volumes"], document["unfinished_runs"]) == ([], [])
    assert list(tmp_path.iterdir()) == []
