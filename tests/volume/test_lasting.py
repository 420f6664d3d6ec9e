"""Mounts that return at boot: their units, and what makes them again."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.command import PROGRAM, json_of, slow, usernsplan
from tests.prefork import prefork
from tests.volume.struck import CALLS, Place, places, sample, share_out, strike, was_killed
from tests.volume.tree import Host
from usernsplan.formats import unit_file
from usernsplan.host.mounts import all_mounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.prefork import Prefork

UNITS = "etc/systemd/system"
POINT = "var/lib/usernsplan/volumes/web/srv-vol"
UNIT = rf"{UNITS}/usernsplan-volume-var-lib-usernsplan-volumes-web-srv\x2dvol.service"
LINK = UNIT.replace(UNITS, f"{UNITS}/multi-user.target.wants")
PERSIST = ("mount-volume", "/srv/vol", "--mode", "shift", "--persist")


@pytest.fixture
def web(host: Host) -> Iterator[Host]:
    """A host with an allocation, a file of its user 33, and a lasting mount."""
    host.allocate("web")
    (host.volume / "page").write_text("hello\n")
    os.chown(host.volume / "page", 33, 33)
    usernsplan(*PERSIST, "--root", host.root)
    yield host
    usernsplan("undo", "--last", "--root", host.root, status=None)


def stands(root: Path) -> bool:
    return any(m.point == str(root / POINT) and m.is_idmapped for m in all_mounts())


def recorded(root: Path) -> list[str]:
    return [mount["lasting"] for mount in json_of("volumes", "--restore", "--root", root)["mounts"]]


def test_a_lasting_mount_has_a_unit_that_is_enabled(web: Host) -> None:
    assert stands(web.root)
    text = (web.root / UNIT).read_text()
    body = unit_file.body_of(text)
    assert body is not None
    assert '--restore "/var/lib/usernsplan/volumes/web/srv-vol"\n' in body
    assert f"usernsplan undo {web.run_names()[0]}\n" in text.replace(body, "")
    assert (web.root / LINK).readlink() == Path("/") / UNIT
    # Nobody but root may change what root runs.
    assert (web.root / UNIT).stat().st_mode & 0o777 == 0o644


def test_the_same_command_changes_nothing_and_undo_takes_all_away(web: Host) -> None:
    before = (web.root / UNIT).stat().st_mtime_ns
    assert "nothing had to be changed" in usernsplan(*PERSIST, "--root", web.root).stdout
    assert (web.root / UNIT).stat().st_mtime_ns == before
    usernsplan("undo", *web.run_names(), "--root", web.root)
    assert not stands(web.root)
    for name in (UNIT, LINK, POINT):
        assert not os.path.lexists(web.root / name)
    assert recorded(web.root) == []


def test_a_unit_that_is_missing_comes_back_with_the_same_command(web: Host) -> None:
    (web.root / UNIT).unlink()
    usernsplan(*PERSIST, "--root", web.root)
    assert (web.root / UNIT).exists()
    (web.root / LINK).unlink()
    usernsplan(*PERSIST, "--root", web.root)
    assert (web.root / LINK).is_symlink()
    assert stands(web.root)


def test_a_unit_that_is_gone_or_changed_is_reported(web: Host) -> None:
    def told() -> list[str]:
        [mount] = json_of("volumes", "--root", web.root)["volumes"]
        assert stands(web.root)
        found = [f"{wrong['message']} | {wrong['hint']}" for wrong in mount["wrong"]]
        return [one for one in found if "boot" in one]

    unit, link = web.root / UNIT, web.root / LINK
    assert told() == []
    text = unit.read_text()
    unit.write_text(f"{text}Nice=1\n")
    [changed] = told()
    unit.write_text(text)
    link.unlink()
    [disabled] = told()
    unit.unlink()
    [missing] = told()
    for one, why in (
        (changed, "was changed, or somebody else wrote it"),
        (disabled, "is not enabled"),
        (missing, "is missing"),
    ):
        assert one.startswith(f"it does not return at boot: {unit} {why} | ")
        assert one.partition("|")[2].count("--persist") == 1


def test_a_mount_in_use_stays_lasting(web: Host) -> None:
    with subprocess.Popen(["sleep", "60"], cwd=web.root / POINT) as user:
        undone = usernsplan("undo", "--last", "--root", web.root, status=3)
        user.kill()
    assert f"process {user.pid} (sleep)" in undone.stdout
    assert "\n  nothing was changed" in undone.stdout
    assert (web.root / UNIT).exists()
    assert json_of("check", "--select", "USN070,USN177", "--root", web.root)["findings"] == []
    assert "nothing had to be changed" in usernsplan(*PERSIST, "--root", web.root).stdout


@pytest.mark.parametrize("how", ["rename", "plan file"])
def test_a_new_name_is_in_the_unit_too(web: Host, how: str) -> None:
    if how == "rename":
        usernsplan("rename", "web", "shop", "--root", web.root)
    else:
        file = web.root / "plan.yaml"
        file.write_text("strategy: per-container\ncontainers: [{name: shop, was: web}]\n")
        usernsplan("apply", "--yes", file, "--root", web.root)
    text = (web.root / UNIT).read_text()
    assert "Description=Volume of the container shop\n" in text
    assert "systemd-nspawn@shop.service" in text
    assert "container web" not in text
    assert "nothing had to be changed" in usernsplan(*PERSIST, "--root", web.root).stdout


def test_without_persist_a_mount_stays_lasting(web: Host) -> None:
    usernsplan(*PERSIST[:-1], "--at", f"/{POINT}", "--root", web.root)
    assert recorded(web.root) == ["service"]
    assert (web.root / UNIT).exists()


def test_a_mount_becomes_lasting_later(host: Host) -> None:
    host.allocate("web")
    words = ("mount-volume", "/srv/vol", "--at", "/mnt-web", "--root", host.root)
    usernsplan(*words)
    assert recorded(host.root) == [None]
    assert not (host.root / UNITS).exists()
    usernsplan(*words, "--persist")
    assert recorded(host.root) == ["service"]
    assert (host.root / UNITS / r"usernsplan-volume-mnt\x2dweb.service").exists()
    usernsplan("undo", "--last", "--root", host.root)


def test_a_unit_that_somebody_changed_is_kept_and_named(web: Host) -> None:
    with (web.root / UNIT).open("a") as file:
        file.write("Environment=MINE=1\n")
    refused = usernsplan(*PERSIST, "--root", web.root, status=9).stderr
    assert UNIT in refused.replace("\\\\", "\\")
    said = usernsplan("undo", "--last", "--root", web.root)
    assert f"systemctl --root={web.root} disable" in said.stderr
    assert (web.root / UNIT).read_text().endswith("MINE=1\n")
    assert not stands(web.root)


def test_a_unit_of_somebody_else_is_never_replaced(host: Host) -> None:
    host.allocate("web")
    unit = host.root / UNIT
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    refused = usernsplan(*PERSIST, "--root", host.root, status=9).stderr
    assert "somebody else wrote it" in refused
    assert unit.read_text() == "[Service]\nExecStart=/bin/true\n"
    assert not stands(host.root)
    assert not host.run_names()


def test_restore_makes_what_is_missing_as_it_was_and_no_run(web: Host) -> None:
    runs = web.run_names()
    page = web.root / POINT / "page"
    assert page.stat().st_uid == web.starts["web"] + 33
    subprocess.run(["umount", web.root / POINT], check=True)
    assert json_of("volumes", "--restore", "web", "--root", web.root)["changed"] is True
    assert page.stat().st_uid == web.starts["web"] + 33
    again = json_of("volumes", "--restore", f"/{POINT}", "--root", web.root)
    assert again["changed"] is False
    assert web.run_names() == runs


def test_restore_does_what_it_can_and_names_the_rest(web: Host) -> None:
    other = web.root / "srv/other"
    other.mkdir()
    usernsplan("mount-volume", "/srv/other", "--container", "web", "--root", web.root)
    at = web.root / "run/usernsplan/volumes/web/srv-other"
    for point in (web.root / POINT, at):
        subprocess.run(["umount", point], check=True)
    other.rmdir()
    said = usernsplan("volumes", "--restore", "--root", web.root, status=3)
    assert f"failed: {at}: " in said.stdout
    assert stands(web.root)
    # What is mounted there now is somebody else's.
    subprocess.run(["umount", web.root / POINT], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", web.root / POINT], check=True)
    said = usernsplan("volumes", "--restore", f"/{POINT}", "--root", web.root, status=3)
    assert "something else is mounted there" in said.stdout
    subprocess.run(["umount", web.root / POINT], check=True)


def options(point: Path) -> set[str]:
    found = [m for m in all_mounts() if m.point == str(point)]
    return set(found[-1].options.split(",")) if found else set()


def test_restore_protects_the_source_as_it_was(host: Host) -> None:
    host.allocate("web")
    (host.root / "srv").chmod(0o755)
    usernsplan(*PERSIST, "--protect", "nosuid", "--root", host.root)
    assert "nosuid" in options(host.volume)
    for point in (host.root / POINT, host.volume):
        subprocess.run(["umount", point], check=True)
    assert json_of("volumes", "--restore", "--root", host.root)["changed"] is True
    assert "nosuid" in options(host.volume)
    assert "idmapped" in options(host.root / POINT)
    assert "nosuid" not in options(host.root / POINT)
    assert json_of("volumes", "--restore", "--root", host.root)["changed"] is False
    usernsplan("undo", "--last", "--root", host.root)
    assert not options(host.volume)


def test_a_source_that_others_reach_by_now_is_not_mounted_again(web: Host) -> None:
    subprocess.run(["umount", web.root / POINT], check=True)
    web.volume.chmod(0o700)
    shut = {
        folder: mode
        for folder in (web.volume, *web.volume.parents)
        if not (mode := folder.stat().st_mode & 0o7777) & 0o001
    }
    for folder, mode in shut.items():
        folder.chmod(mode | 0o011)
    try:
        said = usernsplan("volumes", "--restore", "--root", web.root, status=3)
        refused = usernsplan(*PERSIST, "--root", web.root, status=9)
    finally:
        for folder, mode in shut.items():
            folder.chmod(mode)
    assert f"failed: {web.root / POINT}: " in said.stdout
    assert "others could run them" in said.stdout
    assert "others could run them" in refused.stderr
    assert not stands(web.root)
    # Once the way is shut again it returns; until then nobody writes to its place.
    assert (web.root / UNIT).exists()
    assert (web.root / POINT).stat().st_mode & 0o7777 == 0
    usernsplan("volumes", "--restore", "--root", web.root)
    assert stands(web.root)


def test_many_that_restore_at_once_make_one_mount(web: Host) -> None:
    subprocess.run(["umount", web.root / POINT], check=True)
    words = (*PROGRAM, "volumes", "--restore", "--root", str(web.root))
    every = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [one.communicate()[0] for one in every]
    assert [one.returncode for one in every] == [0] * 4
    assert sum("nothing had to be changed" in one for one in said) == 3
    assert [m.point for m in all_mounts()].count(str(web.root / POINT)) == 1


def test_restore_waits_for_nobody_who_undoes_its_run(web: Host) -> None:
    subprocess.run(["umount", web.root / POINT], check=True)
    with (web.runs / web.run_names()[0] / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = usernsplan("volumes", "--restore", "--root", web.root, status=3)
    assert f"run {web.run_names()[0]} is at work on this volume" in said.stdout
    assert not stands(web.root)


def test_below_another_root_usernsplan_has_to_be_installed(web: Host) -> None:
    said = usernsplan(*PERSIST, "--root", web.root).stderr
    assert f"once usernsplan is installed below {web.root}" in said
    python = Path(f"{web.root}{sys.executable}")
    python.parent.mkdir(parents=True)
    python.touch()
    assert "installed" not in usernsplan(*PERSIST, "--root", web.root).stderr


def test_restore_knows_only_what_is_recorded(web: Host) -> None:
    for word in ("wbe", "/mnt"):
        said = usernsplan("volumes", "--restore", word, "--root", web.root, status=1).stderr
        assert f"no mount of {word} is recorded" in said
    assert (
        "did you mean web?"
        in usernsplan(*("volumes", "--restore", "wbe", "--root", web.root), status=1).stderr
    )


def as_container(root: Path, start: int, script: str) -> int:
    """Run a shell script as container root; its exit status."""
    words = ["setpriv", "--reuid", str(start), "--regid", str(start), "--clear-groups"]
    return subprocess.run([*words, "sh", "-c", script], check=False, cwd=root).returncode


def test_nobody_writes_where_nothing_is_mounted_yet(web: Host) -> None:
    start, point = web.starts["web"], web.root / POINT
    write = f"touch {POINT}/new 2>/dev/null"
    os.chown(web.volume, 0, 0)
    assert as_container(web.root, start, write) == 0
    assert (web.volume / "new").stat().st_uid == 0
    subprocess.run(["umount", point], check=True)
    assert as_container(web.root, start, write) != 0
    # Nor does an engine, which is root and makes the folders that it misses.
    with pytest.raises(PermissionError):
        (point / "made").mkdir()
    assert list(point.iterdir()) == []
    # A boot is the same once more: what was restored can be written again.
    usernsplan("volumes", "--restore", "--root", web.root)
    assert as_container(web.root, start, f"touch {POINT}/newer") == 0


def test_a_folder_that_somebody_made_stays_theirs(host: Host) -> None:
    host.allocate("web")
    theirs = host.root / "mnt-web"
    theirs.mkdir(mode=0o755)
    usernsplan("mount-volume", "/srv/vol", "--at", "/mnt-web", "--root", host.root)
    usernsplan("undo", "--last", "--root", host.root)
    assert theirs.is_dir()
    (theirs / "new").touch()


@pytest.mark.parametrize("path", ["a\nb", "caf\udce9"])
def test_a_path_that_no_unit_can_name_is_refused(host: Host, path: str) -> None:
    host.allocate("web")
    (host.root / "srv" / path).mkdir()
    refused = usernsplan(
        *("mount-volume", f"/srv/{path}", "--persist", "--root", host.root), status=2
    ).stderr
    assert "cannot be named in a unit of systemd" in refused
    assert not host.run_names()


def persisted(server: Prefork, root: Path) -> None:
    """Mount it. What another lane has just removed, a process of it may still have open: that ends."""
    for _ in range(5):
        ended = server.run(*PERSIST, "--root", str(root), status=None)
        if "let these processes end" not in ended.err:
            break
    assert ended.status == 0, ended


# What a lasting mount is made of, besides what is written: the system calls of mounts.
MOUNTING = (*CALLS, "open_tree", "mount_setattr", "move_mount", "umount2", "ioctl")


def finished(server: Prefork, host: Host) -> None:
    persisted(server, host.root)
    assert stands(host.root)
    assert (host.root / LINK).readlink() == Path("/") / UNIT
    assert unit_file.body_of((host.root / UNIT).read_text()) is not None
    again = server.run("volumes", "--restore", "web", "--root", str(host.root))
    assert "nothing had to be changed" in again.out


def undone(server: Prefork, host: Host) -> None:
    for run in host.runs.glob("*/run.json"):
        assert server.run("undo", run.parent.name, "--root", str(host.root)).status == 0
        for name in (UNIT, LINK, POINT):
            assert not os.path.lexists(host.root / name)
    assert not stands(host.root)


@pytest.mark.parametrize("most", [1, *slow(40)])
def test_after_a_kill_anywhere_the_same_words_or_undo_put_all_right(tmpfs: Path, most: int) -> None:
    base = tmpfs / f"lasting-{most}"
    ledger = Host(base / "ledger", "tmpfs")
    (ledger.root / "etc").mkdir(parents=True)
    ledger.volume.mkdir(parents=True)
    ledger.allocate("web")

    def ground(name: str) -> tuple[Host, tuple[str, ...]]:
        host = Host(base / name, "tmpfs")
        shutil.copytree(ledger.root, host.root)
        return host, (*PERSIST, "--root", str(host.root))

    with prefork() as server:
        whole, words = ground("whole")
        every = sample(places(server, words, MOUNTING), most)
        undone(server, whole)
        again, _ = ground("undone")
        finished(server, again)
        [run] = again.run_names()
        undo = ("undo", run, "--root", str(again.root))
        backwards = sample(places(server, undo, MOUNTING), most)

    killed: list[Place] = []

    def check(server: Prefork, number: int, place: Place) -> None:
        host, words = ground(f"{place}-{number}")
        if number >= len(every):
            finished(server, host)
            words = ("undo", *host.run_names(), "--root", str(host.root))
        if was_killed(strike(server, words, place, "signal=KILL")):
            killed.append(place)
        if number % 2 and number < len(every):
            finished(server, host)
        undone(server, host)
        shutil.rmtree(host.root)

    share_out([*every, *backwards], check)
    assert {place.call for place in killed} >= {"move_mount", "umount2"}
    assert len(killed) > 0.6 * len([*every, *backwards])
