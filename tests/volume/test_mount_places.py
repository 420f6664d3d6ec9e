"""Where a mount may stand, what it keeps of the source's mount, who sees it, and who keeps it from going."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.command import here
from tests.documents import document_in
from tests.volume.bystanders import (
    bind,
    open_ground,
    own_mounts,
    receiving,
    standing_by,
)
from usernsplan.errors import ExitStatus
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger

START = 589824


class Stage:
    """A host with a container and a volume that only root gets to."""

    def __init__(self, place: Path) -> None:
        self.root = place / "host"
        self.volume = self.root / "srv/shut/web"
        (self.root / "etc").mkdir(parents=True)
        (self.volume / "data").mkdir(parents=True)
        self.volume.parent.chmod(0o700)
        (self.root / "mnt").mkdir()
        self.private = self.root / "private"
        self.private.mkdir(mode=0o700)
        (self.root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n", encoding="ascii")
        here("allocate", "--strategy", "per-container", "web", "db", "--root", self.root)

    def run(self, *words: str | Path, status: int = 0) -> tuple[str, str]:
        return here(*words, "--root", self.root, status=status)

    def words(self, *more: str | Path, path: str = "/srv/shut/web") -> tuple[str | Path, ...]:
        return ("mount-volume", path, "--container", "web", "--mode", "shift", *more)

    def mount(self, *more: str | Path, path: str = "/srv/shut/web") -> dict[str, Any]:
        document = document_in(self.run(*self.words(*more, path=path), "--json")[0])
        return {**document, "at": Path(document["mounts"][0]["path"])}

    def refusal(
        self, *more: str | Path, path: str = "/srv/shut/web", status: int = ExitStatus.REFUSED
    ) -> str:
        before = mounts()
        said = self.run(*self.words(*more, path=path), status=status)[1]
        assert mounts() == before
        return said

    def undo(self, run: str, status: int = 0) -> dict[str, Any]:
        return document_in(self.run("undo", run, "--json", status=status)[0])

    def listed(self) -> list[str]:
        """The mount points that the ledger has."""
        return [m.at for m in open_ledger(layout_at(str(self.root))).state().mounts]


@pytest.fixture
def stage(private_mounts: None) -> Iterator[Stage]:
    assert private_mounts is None
    with open_ground() as ground:
        yield Stage(ground)


def mounts() -> dict[str, str]:
    """The options of each mount point; of several on one point those on top."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return {fields[4]: fields[5] for fields in map(str.split, lines)}


# Where it may stand.


def test_the_default_place_lets_in_root_and_the_container_alone(stage: Stage) -> None:
    at = stage.mount()["at"]
    assert at == stage.root / "run/usernsplan/volumes/web/srv-shut-web"
    seen = at.parent.stat()
    assert (seen.st_uid, seen.st_gid, seen.st_mode & 0o7777) == (0, START, 0o710)


@pytest.mark.parametrize(
    ("mode", "group", "is_strict"),
    [
        (0o755, 0, False),
        (0o711, 0, False),
        (0o710, 0, False),
        (0o710, START + 1, False),
        (0o710, START, True),
        (0o770, START, True),
        (0o700, 0, True),
    ],
)
def test_a_place_of_ones_own_is_as_strict_as_the_source(
    stage: Stage, mode: int, group: int, is_strict: bool
) -> None:
    above = stage.root / "mnt/above"
    (above / "between").mkdir(parents=True)
    os.chown(above, 0, group)
    above.chmod(mode)
    if is_strict:
        assert stage.mount("--at", "/mnt/above/between/web")["at"] == above / "between/web"
    else:
        said = stage.refusal("--at", "/mnt/above/between/web")
        assert f"--at: {above}/between/web is open to others than root" in said
        assert "leave out --at" in said


def test_a_source_that_is_open_to_all_may_stand_anywhere(stage: Stage) -> None:
    stage.volume.parent.chmod(0o755)
    assert stage.mount("--protect", "nosuid", "--at", "/mnt/web")["at"] == stage.root / "mnt/web"


def test_a_place_that_is_no_place(stage: Stage) -> None:
    private = stage.private
    (private / "link").symlink_to(private)
    (private / "full").mkdir()
    (private / "full/file").touch()
    (private / "file").touch()
    (private / "pipe").unlink(missing_ok=True)
    os.mkfifo(private / "pipe")
    (stage.root / "srv/own").mkdir()
    stage.run("fix-volume", "/srv/own", "--container", "db")
    for at, says in {
        "/private/link": "is a symlink",
        "/private/full": "it is not empty",
        "/private/file": "it is not a folder, as the volume is",
        "/private/pipe": "it is not a folder, as the volume is",
        "/private/none/web": f"does not exist\n  make it first: mkdir -p {private}/none\n",
        "/srv/shut/web": "it lies in the volume itself",
        "/srv/shut/web/data": "it lies in the volume itself",
        "/srv/own/web": "it lies in the volume /srv/own",
        "/etc": "/etc belongs to the system",
        "/etc/web": "/etc belongs to the system",
        "/mnt": "shared by many programs",
        "/var/lib/usernsplan/volumes/db/x": "is for the mounts of usernsplan itself",
        "/run/usernsplan/volumes/x": "is for the mounts of usernsplan itself",
        "/var/lib/usernsplan/runs": "/var/lib/usernsplan belongs to the system",
    }.items():
        assert says in stage.refusal("--at", at), at
    for at in ("/private/x/../y", "../../../elsewhere", ""):
        assert "is not a folder's name" in stage.refusal("--at", at, status=2)
    assert stage.listed() == []


def test_volumes_of_one_command_get_places_of_their_own(stage: Stage) -> None:
    paths = ["/srv/shut/a-b", "/srv/shut/a/b", "/srv/shut/a-b-2"]
    for path in paths:
        (stage.root / path[1:]).mkdir(parents=True)
    words = ("mount-volume", *paths, "--container", "web", "--mode", "shift")
    report = document_in(stage.run(*words, "--json")[0])
    assert len({one["path"] for one in report["mounts"]}) == len(paths)
    assert document_in(stage.run(*words, "--json")[0])["changed"] is False
    assert stage.undo(report["run"])["failed"] == []
    assert stage.listed() == []


@pytest.mark.parametrize("name", ["x" * 200, "é" * 120, os.fsdecode(b"\xff" * 200)])
def test_a_path_longer_than_a_name_gets_a_place(stage: Stage, name: str) -> None:
    (stage.volume.parent / name / name).mkdir(parents=True)
    runs = []
    for path in (f"/srv/shut/{name}/{name}", f"/srv/shut/{name}"):
        # A unit of systemd has no place for what is no UTF-8.
        for more in ((), *([("--persist",)] if name.isprintable() else [])):
            words = ("mount-volume", path, "--container", "web", "--mode", "shift", *more)
            report = document_in(stage.run(*words, "--json")[0])
            assert report["changed"]
            runs.append(report["run"])
    assert len(set(stage.listed())) == len(runs)
    for run in reversed(runs):
        assert stage.undo(run)["failed"] == []


def test_a_folder_that_is_missing_is_named_before_anything_is_made(stage: Stage) -> None:
    stage.volume.parent.chmod(0o755)
    missing = stage.root / "new/deep"
    words = ("--at", "/new/deep/web", "--protect", "nosuid", "--persist")
    said = stage.refusal(*words)
    assert stage.run("history", "--runs")[0] == "There is no run of fix-volume.\n"
    assert not missing.parent.exists()
    assert not (stage.root / "etc/systemd").exists()
    remedy = said.splitlines()[-1].partition(": ")[2]
    subprocess.run(remedy, shell=True, check=True)  # noqa: S602 - as a person pastes it
    assert stage.mount(*words[:4])["at"] == missing / "web"


def test_what_differs_from_the_mount_that_stands_is_said(stage: Stage) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", stage.volume / "data"], check=True)
    run = stage.mount("--cross-mounts")["run"]
    assert "for web (shift, with --cross-mounts) already" in stage.refusal()
    stage.undo(run)
    run = stage.mount()["run"]
    assert "for web (shift, without --cross-mounts) already" in stage.refusal("--cross-mounts")
    stage.undo(run)
    own = ("mount-volume", "/srv/shut/web", "--container", "web")
    stage.run(*own)
    os.chown(stage.volume, 4321, 4321)
    assert "for web (own 0:0, with another map) already" in stage.run(*own, status=9)[1]
    stage.run("undo", "--last")
    stage.run(*own)
    stage.run("undo", "--last")


def test_remedies_are_of_this_root_and_this_command(stage: Stage) -> None:
    listed = f"'usernsplan volumes --root {stage.root}' lists the mounts"
    assert listed in stage.run("undo", "/mnt/none", status=1)[1]
    stage.run("release", "web", "db", "--yes")
    for command in ("mount-volume", "fix-volume"):
        said = stage.run(command, "/srv/shut/web", "--container", "web", status=2)[1]
        assert f"allocate ids first: usernsplan allocate web --root {stage.root}" in said
        assert ("--uid-map" in said) is (command == "fix-volume")


def test_a_link_on_the_way_out_of_the_root_is_no_place(stage: Stage) -> None:
    outside = stage.root.parent / "outside"
    outside.mkdir(mode=0o700)
    (stage.private / "way").symlink_to(outside)
    assert "is not below --root" in stage.refusal("--at", "/private/way/web")
    assert not list(outside.iterdir())


def test_a_single_file_stands_on_a_file(stage: Stage) -> None:
    (stage.volume / "file").write_text("content", encoding="ascii")
    (stage.private / "folder").mkdir()
    said = stage.refusal("--at", "/private/folder", path="/srv/shut/web/file")
    assert "it is not a file, as the volume is" in said
    at = stage.mount("--at", "/private/file", path="/srv/shut/web/file")["at"]
    assert (at.read_text(encoding="ascii"), at.stat().st_uid) == ("content", START)


def test_what_others_mounted_there_stays(stage: Stage) -> None:
    (stage.private / "web").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", stage.private / "web"], check=True)
    assert "something else is mounted there" in stage.refusal("--at", "/private/web")
    run = stage.mount()["run"]
    at = stage.root / "run/usernsplan/volumes/web/srv-shut-web"
    subprocess.run(["umount", at], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", at], check=True)
    report = stage.undo(run, status=ExitStatus.DONE_IN_PART)
    [failed] = report["failed"]
    assert failed["path"] == str(at)
    assert failed["reason"].startswith("something else is mounted there")
    assert str(at) in mounts()
    subprocess.run(["umount", at], check=True)
    assert stage.undo(run)["failed"] == []
    assert stage.listed() == []


def test_an_unmounted_place_takes_no_files(stage: Stage) -> None:
    run = stage.mount()["run"]
    at = stage.root / "run/usernsplan/volumes/web/srv-shut-web"
    subprocess.run(["umount", at], check=True)
    assert at.stat().st_mode & 0o7777 == 0
    stage.undo(run)
    assert not at.exists()


# The options of the source.


@pytest.mark.parametrize("options", ["nosuid", "nodev", "noexec", "nosuid,nodev,noexec"])
@pytest.mark.parametrize("protect", [(), ("--protect", "nosuid")])
def test_the_options_of_the_source_are_kept(
    stage: Stage, options: str, protect: tuple[str, ...]
) -> None:
    bind(stage.volume, stage.volume, *options.split(","))
    mount = stage.mount(*protect)
    assert set(options.split(",")) <= set(mounts()[str(mount["at"])].split(","))
    # What is there already is not ours: undo leaves it.
    is_ours = bool(protect) and "nosuid" not in options
    assert mount["mounts"][0]["protect"] == ("nosuid" if is_ours else None)
    stage.undo(mount["run"])
    assert set(options.split(",")) <= set(mounts()[str(stage.volume)].split(","))


def test_a_read_only_source_stays_read_only(stage: Stage) -> None:
    bind(stage.volume, stage.volume, "ro")
    at = stage.mount()["at"]
    assert "ro" in mounts()[str(at)].split(",")


def test_our_nosuid_is_not_inherited_at_any_time(stage: Stage) -> None:
    first = stage.mount("--protect", "nosuid")
    over = mounts()[str(stage.volume)]
    assert "nosuid" in over.split(",")
    assert "nosuid" not in mounts()[str(first["at"])].split(",")
    # The mount is gone and made again from below the one that protects, and for another container.
    subprocess.run(["umount", first["at"]], check=True)
    again = stage.mount()
    assert again["changed"] is True
    assert "nosuid" not in mounts()[str(again["at"])].split(",")
    words = ("mount-volume", "/srv/shut/web", "--container", "db", "--mode", "shift", "--take")
    other = document_in(stage.run(*words, "--json")[0])
    assert "nosuid" not in mounts()[other["mounts"][0]["path"]].split(",")
    # What protects both goes with the last one.
    said = stage.run("undo", again["run"], status=ExitStatus.REFUSED)[1]
    assert f"undo that first: usernsplan undo {other['run']}" in said
    stage.undo(other["run"])
    assert mounts()[str(stage.volume)] == over
    stage.undo(again["run"])
    assert str(stage.volume) not in mounts()


def test_mounts_inside_are_protected_too_and_come_back(stage: Stage) -> None:
    inner = stage.volume / "data"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", inner], check=True)
    (inner / "file").touch()
    before = mounts()
    stage.volume.parent.chmod(0o755)
    assert f"{inner} is open to others" in stage.refusal("--cross-mounts")
    report = stage.mount("--cross-mounts", "--protect", "nosuid")
    assert "nosuid" in mounts()[str(inner)].split(",")
    for path in (report["at"], report["at"] / "data"):
        assert "nosuid" not in mounts()[str(path)].split(",")
    assert (report["at"] / "data/file").stat().st_uid == START
    stage.undo(report["run"])
    assert mounts() == before


# What protects is part of the run.


def test_protection_is_shown_made_once_and_taken_back(stage: Stage) -> None:
    shut = stage.volume.parent
    shut.chmod(0o751)
    for protect, says in {
        "nosuid": (f"mount with nosuid would be made over {stage.volume}", "taken away"),
        "parent": (f"the mode of {shut} would be set to 0700", "set back to 0751"),
    }.items():
        before = mounts()
        printed = stage.run(*stage.words("--protect", protect, "--dry-run"))
        assert says[0] in "".join(printed)
        assert (mounts(), shut.stat().st_mode & 0o7777) == (before, 0o751)

        report = stage.mount("--protect", protect)
        assert report["mounts"][0]["protect"] == protect
        assert (shut.stat().st_mode & 0o7777 == 0o700) == (protect == "parent")
        for more in ((), ("--protect", protect)):
            assert stage.mount(*more)["changed"] is False
        other = {"nosuid": "parent", "parent": "nosuid"}[protect]
        said = stage.refusal("--protect", other)
        assert f"is protected by {protect}" in said
        assert f"usernsplan undo {report['run']}" in said

        assert f"would be {says[1]}" in "".join(stage.run("undo", report["run"], "--dry-run"))
        assert any(f"was {says[1]}" in note for note in stage.undo(report["run"])["notes"])
        assert (mounts(), shut.stat().st_mode & 0o7777) == (before, 0o751)
        assert stage.listed() == []


def test_a_mount_that_is_made_again_opens_its_folder_at_its_undo(stage: Stage) -> None:
    shut = stage.volume.parent
    shut.chmod(0o751)
    at = stage.mount("--protect", "parent")["at"]
    for _ in range(2):
        subprocess.run(["umount", at], check=True)
        assert stage.mount()["changed"]
    assert f"the mode of {shut} was set back to 0751" in stage.run("undo", at)[1]
    assert shut.stat().st_mode & 0o7777 == 0o751


def test_a_folder_that_protects_two_volumes_is_told_of_once(stage: Stage) -> None:
    shut = stage.volume.parent
    shut.chmod(0o755)
    (shut / "other").mkdir()
    words = ("mount-volume", "/srv/shut/web", "/srv/shut/other", "--container", "web")
    printed, notes = stage.run(*words, "--mode", "shift", "--protect", "parent")
    assert notes.count(f"the mode of {shut} was set to 0700") == 1
    stage.run("undo", "--last")
    assert shut.stat().st_mode & 0o7777 == 0o755
    assert printed.count(" mounted for web ") == 2


def test_a_mode_that_somebody_else_gave_since_stays(stage: Stage) -> None:
    shut = stage.volume.parent
    shut.chmod(0o755)
    run = stage.mount("--protect", "parent")["run"]
    shut.chmod(0o750)
    stage.undo(run)
    assert shut.stat().st_mode & 0o7777 == 0o750


@pytest.mark.parametrize("owner", [0, 1000])
def test_a_folder_that_others_need_or_own_is_not_shut(stage: Stage, owner: int) -> None:
    (stage.root / "srv/web").mkdir()
    path = "/srv/web"
    if owner:
        stage.volume.parent.chmod(0o755)
        os.chown(stage.volume.parent, owner, owner)
        path = "/srv/shut/web"
    said = stage.refusal("--protect", "parent", path=path)
    assert "cannot be shut to everybody but root" in said
    assert ("it belongs to uid 1000" if owner else "/srv is shared by many programs") in said


def test_what_protects_a_volume_in_it_stays(stage: Stage) -> None:
    stage.volume.parent.chmod(0o755)
    (stage.volume.parent / "other").mkdir()
    first = stage.mount("--protect", "parent")["run"]
    second = stage.mount(path="/srv/shut/other")["run"]
    said = stage.run("undo", first, status=ExitStatus.REFUSED)[1]
    assert f"usernsplan undo {second}" in said
    stage.undo(second)
    stage.undo(first)
    assert stage.volume.parent.stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("protect", ["nosuid", "parent"])
@pytest.mark.parametrize("first", [0, 1])
def test_a_protection_that_was_made_again_goes_with_the_last_mount(
    stage: Stage, protect: str, first: int
) -> None:
    shut = stage.volume.parent
    shut.chmod(0o755)
    before = mounts()
    runs = [stage.mount("--protect", protect, "--at", "/mnt/web")["run"]]
    if protect == "parent":
        shut.chmod(0o755)
    else:
        subprocess.run(["umount", stage.volume], check=True)
    runs.append(stage.mount("--protect", protect)["run"])

    def is_open() -> bool:
        return shut.stat().st_mode & 0o77 != 0 and str(stage.volume) not in mounts()

    assert not is_open()
    later = "would be taken away" if protect == "nosuid" else "would be set back"
    assert later not in "".join(stage.run("undo", runs[first], "--dry-run"))
    notes = stage.undo(runs[first])["notes"]
    assert any("stays protected, for the mount at" in note for note in notes)
    assert not is_open()
    assert later in "".join(stage.run("undo", runs[1 - first], "--dry-run"))
    stage.undo(runs[1 - first])
    assert is_open()
    assert mounts() == before


def test_an_undo_of_what_is_gone_does_not_claim_it(stage: Stage) -> None:
    report = stage.mount()
    subprocess.run(["umount", report["at"]], check=True)
    printed, notes = stage.run("undo", report["run"])
    assert printed == "Nothing had to be unmounted.\n"
    assert f"{report['at']} was not mounted any more" in notes


def test_a_user_and_shift_are_refused_by_their_names_alone(stage: Stage) -> None:
    said = stage.refusal("--user", "33", status=2)
    assert said == (
        "usernsplan: --user cannot be combined with --mode shift\n  leave out one of them\n"
    )


def test_what_is_in_the_way_is_named_with_the_command_that_takes_it_away(stage: Stage) -> None:
    report = stage.mount()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", report["at"]], check=True)
    said = stage.refusal()
    assert "something else is mounted there" in said
    subprocess.run(said.rpartition("first: ")[2].split(), check=True)
    assert stage.mount()["changed"] is False


def test_the_remedy_permits_what_was_permitted(stage: Stage) -> None:
    stage.volume.parent.chmod(0o755)
    os.chown(stage.volume, START + 65536, START + 65536)
    passwd = stage.root / "etc/passwd"
    account = f"db:x:{START + 65536}:{START + 65536}::/:/bin/sh\n"
    passwd.write_text(passwd.read_text(encoding="ascii") + account, encoding="ascii")
    words = ["mount-volume", "/srv/shut/web", "--container", "web"]
    for fact in ("would own files of that container", "with the power of"):
        said = stage.run(*words, status=ExitStatus.REFUSED)[1]
        assert fact in said
        line = next(one for one in said.splitlines() if ": usernsplan" in one)
        words = line.partition(": usernsplan ")[2].partition(" --root")[0].split()
    stage.run(*words)
    stage.run("undo", "--last")


# Who holds it, and who sees it.


@pytest.mark.parametrize("how", ["current folder", "root", "open file", "mount"])
def test_a_busy_mount_names_who_holds_it(stage: Stage, how: str) -> None:
    report = stage.mount()
    at, run = report["at"], report["run"]
    steps: dict[str, Callable[[], object]] = {
        "current folder": partial(os.chdir, at / "data"),
        "root": partial(os.chroot, at / "data"),
        "open file": partial(os.open, at / "data", os.O_RDONLY),
    }
    if how == "mount":
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", at / "data"], check=True)
        reason = stage.undo(run, status=ExitStatus.DONE_IN_PART)["failed"][0]["reason"]
        assert reason == f"it is in use; {at}/data is mounted in it"
        subprocess.run(["umount", at / "data"], check=True)
    else:
        with standing_by(steps[how], uid=None) as pid:
            printed = stage.run("undo", run, status=ExitStatus.DONE_IN_PART)[0]
            assert printed.endswith(
                f"Then run it again: usernsplan undo {run} --root {stage.root}\n"
            )
            assert "nothing had to be changed" not in printed
            reason = stage.undo(run, status=ExitStatus.DONE_IN_PART)["failed"][0]["reason"]
            assert reason.startswith(f"it is in use; process {pid} (")
            assert f"of uid 0 has {at}/data as " in reason
            assert how in reason
            assert stage.listed() == ["/run/usernsplan/volumes/web/srv-shut-web"]
    # The same command finishes it.
    assert str(at) in mounts()
    assert stage.undo(run)["failed"] == []
    assert str(at) not in mounts()
    assert stage.listed() == []


def test_a_container_that_still_sees_it_is_named_and_the_source_stays_protected(
    stage: Stage,
) -> None:
    stage.volume.parent.chmod(0o755)
    plain = stage.mount("--protect", "nosuid")
    with standing_by(own_mounts) as pid:
        report = stage.undo(plain["run"], status=ExitStatus.DONE_IN_PART)
        assert any(f"process {pid} (" in one["reason"] for one in report["failed"])
        assert "nosuid" in mounts()[str(stage.volume)].split(",")
        assert str(plain["at"]) not in mounts()
    assert stage.undo(plain["run"])["failed"] == []
    assert str(stage.volume) not in mounts()


def test_who_started_before_sees_it_or_is_named(stage: Stage) -> None:
    subprocess.run(["mount", "--make-shared", stage.root.parent], check=True)
    with standing_by(own_mounts) as blind, standing_by(receiving) as seeing:
        report = stage.mount()
        at = str(report["at"])
        named = [note for note in report["notes"] if "does not see the mount" in note]
        assert [f"process {blind} (" in note for note in named] == [True]
        seen = {
            pid: Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8")
            for pid in (blind, seeing)
        }
        assert (at in seen[blind], at in seen[seeing]) == (False, True)
        with standing_by(own_mounts) as later:
            assert at in Path(f"/proc/{later}/mountinfo").read_text(encoding="utf-8")
