"""plan, apply and export below --root, in this process and as processes, also with interference."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shlex
import shutil
import signal
import stat
import struct
import subprocess
import termios
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.command import PROGRAM, here, missing, needs_root, open_to_others, usernsplan
from tests.documents import document_in
from tests.each import each
from tests.host import struck as crash

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).parents[2]
PER_CONTAINER = "strategy: per-container\n"
PLAIN = PER_CONTAINER + "engines: [podman]\ncontainers:\n- web\n- {name: db, size: 131072}\n"
LINES = "usernsplan-web:589824:65536\nusernsplan-db:655360:131072\n"
OTHERS = "alice:100000:65536\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: it has no plan file yet."""
    made = tmp_path / "here"
    made.mkdir()
    monkeypatch.chdir(made)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.delenv("SUDO_UID", raising=False)
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host on which alice has a line, and Docker needs no new account."""
    made = tmp_path / "root"
    (made / "etc/docker").mkdir(parents=True)
    for name in ("subuid", "subgid"):
        (made / "etc" / name).write_text(OTHERS)
    (made / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\ndockremap:x:900:900::/:/bin/sh\n")
    (made / "etc/group").write_text("root:x:0:\ndockremap:x:900:\n")
    return made


def write(text: str, name: str = "usernsplan.yaml") -> str:
    Path(name).write_text(text)
    return name


def lines(root: Path) -> str:
    """The lines of subuid without alice's; subgid has the same."""
    found = {(root / "etc" / name).read_text() for name in ("subuid", "subgid")}
    assert len(found) == 1
    return found.pop().replace(OTHERS, "")


def tree(root: Path) -> dict[str, tuple[Any, ...]]:
    """All entries below a folder with their change times, to see whether anything was touched."""
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        it = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(it.st_mode) else b""
        found[str(path)] = (
            it.st_ino,
            it.st_mode,
            it.st_uid,
            it.st_gid,
            it.st_mtime_ns,
            it.st_ctime_ns,
            content,
        )
    return found


def told(*words: str | Path, status: int = 0) -> dict[str, Any]:
    return document_in(here(*words, "--json", status=status)[0])


def owners(folder: Path) -> set[tuple[int, int]]:
    return {(path.lstat().st_uid, path.lstat().st_gid) for path in (folder, *folder.rglob("*"))}


def make_volume(root: Path, name: str) -> Path:
    made = root / name.lstrip("/")
    made.mkdir(parents=True)
    (made / "file").write_text("content")
    return made


# The usual day.


def test_plan_apply_and_again(root: Path) -> None:
    write(PLAIN)
    before = tree(root)
    out, _ = here("plan", "--root", root)
    assert tree(root) == before
    assert "  + container web  0-65535 -> 589824-655359, owner usernsplan-web\n" in out
    assert "  + container db   0-131071 -> 655360-786431, owner usernsplan-db\n" in out
    assert f"+++ {root}/etc/subuid\n" in out
    assert "+usernsplan-web:589824:65536\n" in out
    assert out.splitlines()[-1] == "Plan: 2 to add, 0 to change, 0 to remove, 0 volumes to fix."
    here("plan", "--check", "--root", root, status=4)
    assert tree(root) == before
    shown, _ = here("apply", "--yes", "--root", root)
    assert shown.startswith(out)
    assert lines(root) == LINES
    done = tree(root)
    for words in (
        ("plan",),
        ("plan", "--check"),
        ("plan", "--prune", "--check"),
        ("apply",),
        ("apply", "--prune", "--yes"),
    ):
        again, _ = here(*words, "--root", root)
        assert again == "Already up to date: the host matches usernsplan.yaml.\n"
        assert tree(root) == done
    here("list", "--root", root)
    assert "apply --yes" in here("history", "--root", root)[0]


def test_what_the_file_does_not_name_stays_unless_it_is_pruned(root: Path) -> None:
    write(PLAIN + "reservations: [{ids: 865536, for: NFS}]\n")
    here("apply", "--yes", "--root", root)
    write(PER_CONTAINER + "engines: [podman]\ncontainers: [{name: db, size: 131072}]\n")
    out, _ = here("plan", "--root", root)
    assert (
        "Not in usernsplan.yaml, and kept (--prune releases them): web, reservation 865536\n" in out
    )
    here("apply", "--root", root)
    assert lines(root) == LINES
    out, _ = here("plan", "--prune", "--root", root)
    assert "  - container web" in out
    assert "  - reservation 865536" in out
    assert "-usernsplan-web:589824:65536\n" in out
    here("apply", "--prune", "--yes", "--root", root)
    assert lines(root) == "usernsplan-db:655360:131072\n"
    # Quarantined, so that the next container does not get it.
    write(PER_CONTAINER + "engines: [podman]\ncontainers: [{name: db, size: 131072}, new]\n")
    here("apply", "--yes", "--root", root)
    assert lines(root) == "usernsplan-db:655360:131072\nusernsplan-new:786432:65536\n"


@pytest.mark.parametrize(
    ("edit", "key"),
    [
        ("size: 65536", ".size"),
        # They omit the size, which then differs; the file does not show that.
        ("start: 1048576", ""),
        ("owner: other", ""),
        ("size: 131072, start: 589824", ".start"),
        ("size: 131072, owner: other", ".owner"),
    ],
)
def test_an_edit_renumbers_nothing(root: Path, edit: str, key: str) -> None:
    write(PLAIN)
    here("apply", "--yes", "--root", root)
    write(PER_CONTAINER + f"containers:\n- web\n- new\n- {{name: db, {edit}}}\n")
    before = tree(root)
    for words in (("plan",), ("apply", "--yes"), ("apply", "--prune", "--yes"), ("allocate",)):
        out, err = here(*words, "--root", root, status=9)
        assert out == ""
        where = f"usernsplan.yaml:5: containers[2]{key}"
        assert f"usernsplan: {where}: 'db' is allocated already" in err
        assert tree(root) == before


def test_export_is_the_file_that_leaves_everything_as_it_is(root: Path, folder: Path) -> None:
    write(
        PER_CONTAINER
        + "engines: [lxc, {name: podman-auto, containers: 3}]\ndaemon: default\ncontainers:\n- default\n"
        "- {name: db, owner: 'some@body', size: 5, start: 1048576}\nreservations: [{ids: 5-6, for: 'yes'}]\n"
    )
    here("apply", "--yes", "--root", root)
    before = tree(root)
    out, err = here("export", "--root", root)
    assert err == ""
    write(out)
    for words in (("plan", "--check"), ("plan", "--prune", "--check"), ("apply", "--prune")):
        assert (
            here(*words, "--root", root)[0]
            == "Already up to date: the host matches usernsplan.yaml.\n"
        )
    assert tree(root) == before
    document = told("export", "--root", root)
    assert document["spec"] == yaml.safe_load(out)
    assert document["spec"]["reservations"] == [{"ids": "5-6", "for": "yes"}]
    # On an empty host the result is the same.
    other = folder / "other"
    (other / "etc").mkdir(parents=True)
    for name in ("passwd", "group"):
        shutil.copy(root / "etc" / name, other / "etc")
    here("apply", "--yes", "--root", other)
    assert here("export", "--root", other)[0] == out


def test_export_of_a_host_without_anything(root: Path) -> None:
    before = tree(root)
    out, err = here("export", "--root", root)
    assert yaml.safe_load(out) == {
        "version": 1,
        "strategy": "per-container",
        "engines": [],
        "containers": [],
    }
    assert "nothing is allocated here" in err
    assert tree(root) == before
    write(out)
    here("plan", "--check", "--root", root)


def test_the_documents_have_the_promised_form(root: Path) -> None:
    write(PLAIN + "reservations: [{ids: 865536, for: NFS}]\n")
    fields = {
        *(
            "format_version",
            "kind",
            "file",
            "pending",
            "counts",
            "steps",
            "allocations",
            "changes",
            "records",
            "kept",
        ),
        *("findings", "next_steps", "unseen"),
    }
    plan = told("plan", "--root", root)
    assert plan.keys() == fields
    assert (plan["kind"], plan["file"], plan["pending"]) == ("plan", "usernsplan.yaml", True)
    assert plan["counts"] == {"add": 3, "change": 0, "remove": 0, "volumes": 0}
    assert plan["steps"][0] == {
        "action": "add",
        "kind": "container",
        "name": "web",
        "text": "0-65535 -> 589824-655359, owner usernsplan-web",
    }
    assert [(s["action"], s["kind"], s["name"]) for s in plan["steps"][1:]] == [
        ("add", "container", "db"),
        ("add", "reservation", "865536"),
    ]
    assert [a["name"] for a in plan["allocations"]] == ["web", "db"]
    assert [change["path"] for change in plan["changes"]] == [
        f"{root}/etc/subuid",
        f"{root}/etc/subgid",
    ]
    assert told("plan", "--check", "--root", root, status=4) == plan
    applied = told("apply", "--yes", "--root", root)
    assert applied.keys() == fields | {"changed", "volumes"}
    assert (applied["kind"], applied["changed"], applied["volumes"]) == ("apply", True, [])
    assert {key: applied[key] for key in fields - {"kind"}} == {
        key: plan[key] for key in fields - {"kind"}
    }
    again = told("apply", "--yes", "--root", root)
    assert (again["changed"], again["pending"], again["steps"], again["changes"]) == (
        False,
        False,
        [],
        [],
    )
    export = told("export", "--root", root)
    assert export.keys() == {"format_version", "kind", "spec", "notes"}
    assert (export["kind"], export["notes"]) == ("export", [])


# Which file.


def test_the_file_of_this_folder_comes_before_that_of_etc(root: Path) -> None:
    (root / "etc/usernsplan.yaml").write_text(PER_CONTAINER + "containers: [etc]\n")
    assert told("plan", "--root", root)["file"] == f"{root}/etc/usernsplan.yaml"
    write(PER_CONTAINER + "containers: [here]\n")
    document = told("plan", "--root", root)
    assert (document["file"], document["allocations"][0]["name"]) == ("usernsplan.yaml", "here")
    write(PER_CONTAINER + "containers: [named]\n", "named.yaml")
    assert told("plan", "named.yaml", "--root", root)["allocations"][0]["name"] == "named"


@pytest.mark.parametrize(
    "target", ["/srv/u.yaml", "../srv/u.yaml", "../../../../../../srv/u.yaml", "/up/u.yaml"]
)
def test_the_file_of_etc_is_found_as_that_root_would_find_it(root: Path, target: str) -> None:
    (root / "srv").mkdir()
    (root / "up").symlink_to("/srv")
    (root / "srv/u.yaml").write_text(PER_CONTAINER + "containers: [linked]\n")
    (root / "etc/usernsplan.yaml").symlink_to(target)
    assert told("plan", "--root", root)["allocations"][0]["name"] == "linked"


def test_a_file_outside_of_the_root_is_not_found(root: Path, folder: Path) -> None:
    write(PLAIN, "outside.yaml")
    (root / "etc/usernsplan.yaml").symlink_to(folder / "outside.yaml")
    assert "no plan file" in here("plan", "--root", root, status=2)[1]
    (root / "etc/usernsplan.yaml").unlink()
    (root / "etc/usernsplan.yaml").symlink_to("usernsplan.yaml")
    assert here("plan", "--root", root, status=9)[1]


def test_no_file_at_all(root: Path) -> None:
    for command in ("plan", "apply"):
        _, err = here(command, "--root", root, status=2)
        assert f"no plan file: neither ./usernsplan.yaml nor {root}/etc/usernsplan.yaml" in err
        assert f"export --root {root} > usernsplan.yaml" in err


@pytest.mark.parametrize("command", ["plan", "apply"])
def test_a_file_that_cannot_be_read(root: Path, folder: Path, command: str) -> None:
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    for name in ("missing.yaml", "folder", "loop", "missing/file"):
        _, err = here(command, name, "--root", root, status=2)
        assert err.startswith(f"usernsplan: {name}: "), err


def test_standard_input_is_a_file_too(root: Path) -> None:
    words = [*PROGRAM, "plan", "-", "--root", str(root)]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(words, input=PLAIN, capture_output=True, text=True, check=True, env=env)
    assert "Plan: 2 to add" in done.stdout
    done = subprocess.run(
        words, input="strategy: x\n", capture_output=True, text=True, check=False, env=env
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("usernsplan: standard input:1: strategy: 'x' is not one of")


def test_a_fifo_that_is_named_is_read(root: Path, folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    writer = threading.Thread(target=lambda: (folder / "fifo").write_text(PLAIN))
    writer.start()
    assert told("plan", "fifo", "--root", root)["counts"]["add"] == 2
    writer.join()


def test_a_fifo_that_lies_in_wait_is_refused(root: Path, folder: Path) -> None:
    os.mkfifo(folder / "usernsplan.yaml")
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [*PROGRAM, "plan", "--root", root], env=env, capture_output=True, check=False, timeout=60
    )
    assert done.returncode in {2, 9}


@needs_root
@pytest.mark.parametrize(
    ("uid", "mode", "is_refused"),
    [
        (0, 0o644, False),
        (0, 0o664, False),
        (0, 0o666, True),
        (0, 0o602, True),
        (12345, 0o644, True),
        (12345, 0o400, True),
    ],
)
@pytest.mark.parametrize("name", ["here", "etc"])
def test_a_file_that_others_may_have_written_is_not_taken_for_ours(  # noqa: PLR0917 - its cases
    root: Path, folder: Path, name: str, uid: int, mode: int, is_refused: bool
) -> None:
    path = folder / "usernsplan.yaml" if name == "here" else root / "etc/usernsplan.yaml"
    path.write_text(PLAIN)
    os.chown(path, uid, 0)
    path.chmod(mode)
    before = tree(root)
    for words in (("plan",), ("apply", "--yes"), ("allocate",)) if is_refused else (("plan",),):
        _, err = here(*words, "--root", root, status=9 if is_refused else 0)
        assert ("another user may have written or placed it" in err) == is_refused
        assert tree(root) == before
    # A file that the user names is trusted.
    here("plan", path, "--root", root)


def _acl(*entries: tuple[int, int, int]) -> bytes:
    """Tag, permissions, id; linux/posix_acl_xattr.h."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


_NOBODY = 0xFFFFFFFF
_LETS_12345 = ((1, 6, _NOBODY), (2, 6, 12345), (4, 4, _NOBODY), (16, 6, _NOBODY), (32, 4, _NOBODY))
_LETS_GROUP = ((1, 6, _NOBODY), (4, 4, _NOBODY), (8, 6, 12345), (16, 6, _NOBODY), (32, 4, _NOBODY))
_MASKED = ((1, 6, _NOBODY), (2, 6, 12345), (4, 4, _NOBODY), (16, 4, _NOBODY), (32, 4, _NOBODY))
_LETS_ROOT = ((1, 6, _NOBODY), (2, 6, 0), (4, 4, _NOBODY), (16, 6, _NOBODY), (32, 4, _NOBODY))
_LETS_OWNER_GROUP = (
    (1, 6, _NOBODY),
    (2, 4, 0),
    (4, 6, _NOBODY),
    (16, 6, _NOBODY),
    (32, 4, _NOBODY),
)


def _chown_group(path: Path) -> None:
    os.chown(path, 0, 12345)
    path.chmod(path.stat().st_mode | 0o020)


def _with_acl(*entries: tuple[int, int, int], group: int = 0) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        os.chown(path, 0, group)
        os.setxattr(path, "system.posix_acl_access", _acl(*entries))

    return change


def _in_the_way(target: str, uid: int) -> Callable[[Path], None]:
    """The file is elsewhere; a symlink leads to it."""

    def change(path: Path) -> None:
        (path.parent / "way").mkdir()
        path.rename(path.parent / "way/plan")
        path.symlink_to(target)
        os.chown(path, uid, uid, follow_symlinks=False)

    return change


def _open_way(path: Path) -> None:
    _in_the_way("way/plan", 0)(path)
    (path.parent / "way").chmod(0o777)


def _foreign_way(path: Path) -> None:
    (path.parent / "way").mkdir()
    path.rename(path.parent / "way/plan")
    (path.parent / "other").symlink_to("way")
    os.chown(path.parent / "other", 12345, 12345, follow_symlinks=False)
    path.symlink_to("other/plan")


@pytest.mark.spread(8)
@needs_root
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda path: os.chown(path, 0, 12345), ""),
        (_chown_group, "group 12345"),
        (_with_acl(*_LETS_12345), "uid 12345"),
        (_with_acl(*_LETS_GROUP), "group 12345"),
        (_with_acl(*_LETS_OWNER_GROUP, group=12345), "group 12345"),
        (_with_acl(*_MASKED), ""),
        (_with_acl(*_LETS_ROOT), ""),
        (_in_the_way("way/plan", 0), ""),
        (_in_the_way("way/plan", 12345), "symlink"),
        (_open_way, "folder"),
        (_foreign_way, "symlink"),
        (lambda path: path.parent.chmod(0o777), "folder"),
        (lambda path: path.parent.chmod(0o1777), "folder"),
        (lambda path: path.parent.chmod(0o2755), ""),
        (lambda path: os.chown(path.parent, 12345, 0), "folder"),
        (lambda path: _chown_group(path.parent), "group 12345"),
        (lambda path: _with_acl(*_LETS_12345)(path.parent), "uid 12345"),
        (lambda path: path.parent.parent.chmod(0o777), "folder"),
        (lambda path: path.parent.parent.chmod(0o1777), ""),
        (lambda path: os.chown(path.parent.parent, 12345, 0), "folder"),
        (lambda path: _chown_group(path.parent.parent), "group 12345"),
    ],
)
@pytest.mark.parametrize("name", ["here", "etc"])
def test_who_else_could_write_it_or_put_it_there(  # noqa: PLR0917 - its cases
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    change: Callable[[Path], None],
    why: str,
) -> None:
    """Each way in which another user controls the file is refused; the caller's own ways work."""
    (tmp_path / "above/here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "above/here")
    root = root.rename(tmp_path / "above/root")
    path = (
        tmp_path / "above/here/usernsplan.yaml" if name == "here" else root / "etc/usernsplan.yaml"
    )
    path.write_text(PLAIN)
    change(path)
    before = tree(root)
    for words in (("plan",), ("apply", "--yes"), ("allocate",)) if why else (("plan",),):
        out, err = here(*words, "--root", root, status=9 if why else 0)
        assert (not out, "another user may have written or placed it" in err, why in err) == (
            bool(why),
            bool(why),
            True,
        )
    assert tree(root) == before
    # A file that the user names is trusted.
    here("plan", path, "--root", root)


@needs_root
def test_a_folder_of_ours_in_a_sticky_one_of_somebody_elses_is_his(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "above/here").mkdir(parents=True)
    (tmp_path / "above").chmod(0o1777)
    os.chown(tmp_path / "above", 12345, 0)
    monkeypatch.chdir(tmp_path / "above/here")
    write(PLAIN)
    assert (
        f"the folder {tmp_path}/above belongs to uid 12345"
        in here("plan", "--root", root, status=9)[1]
    )


@needs_root
def test_the_file_of_whoever_called_sudo_is_his(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(write(PLAIN), 12345, 12345)
    here("plan", "--root", root, status=9)
    monkeypatch.setenv("SUDO_UID", "12345")
    here("plan", "--root", root)
    monkeypatch.setenv("SUDO_UID", "12346")
    here("plan", "--root", root, status=9)
    assert folder.is_dir()


@needs_root
def test_whoever_is_not_root_may_plan_and_is_told_what_he_may_not(
    root: Path, tmp_path: Path
) -> None:
    write(PLAIN, "open.yaml")
    write(PLAIN, "closed.yaml")
    Path("closed.yaml").chmod(0o600)
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}

    def nobody(*words: str) -> subprocess.CompletedProcess[str]:
        with open_to_others(tmp_path):
            return subprocess.run(
                [
                    "setpriv",
                    "--reuid=65534",
                    "--regid=65534",
                    "--clear-groups",
                    *PROGRAM,
                    *words,
                    "--root",
                    str(root),
                ],
                env=env,
                capture_output=True,
                text=True,
                check=False,
            )

    before = tree(root)
    seen = nobody("plan", "open.yaml")
    assert (seen.returncode, seen.stderr) == (0, "")
    closed = nobody("plan", "closed.yaml")
    assert (closed.returncode, closed.stdout) == (2, "")
    assert "permission denied" in closed.stderr
    failed = nobody("apply", "open.yaml", "--yes")
    assert failed.returncode == 8
    assert "Traceback" not in failed.stderr
    assert tree(root) == before


# Errors are reported, and nothing changes.


def test_errors_of_the_file_are_told_with_their_lines(root: Path) -> None:
    write("strategy: shared\nsize: 1000:10\ncontainers:\n- name: yes\n- name: aa\n  name: bb\n")
    before = tree(root)
    for words in (("plan",), ("apply", "--yes"), ("allocate",)):
        out, err = here(*words, "--root", root, status=1)
        assert out == ""
        told = [line.partition(": ")[0] for line in err.removeprefix("usernsplan: ").splitlines()]
        assert told == ["usernsplan.yaml:2", "usernsplan.yaml:4", "usernsplan.yaml:6"]
        assert tree(root) == before


def test_apply_asks_nobody_where_nobody_is(root: Path) -> None:
    write(PLAIN)
    before = tree(root)
    for more in ((), ("--json",), ("--prune",), ("--fix-volumes",)):
        _, err = here("apply", *more, "--root", root, status=2)
        assert "use --yes" in err
        assert tree(root) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("apply", "usernsplan.yaml", "--plan", "x"), "--plan does not go with FILE"),
        (("apply", "--prune", "--plan", "x"), "--plan does not go with FILE"),
        (("plan", "--root", ""), "--root is empty"),
    ],
)
def test_words_that_contradict_each_other(words: tuple[str, ...], said: str) -> None:
    write(PLAIN)
    assert said in here(*words, status=2)[1]


def test_a_saved_plan_that_cannot_be_read(root: Path, folder: Path) -> None:
    (folder / "folder").mkdir()
    for name in ("missing", "folder"):
        _, err = here("apply", "--plan", name, "--root", root, status=2)
        assert err.startswith(f"usernsplan: {name}: ")
        assert "not a plan" not in err


# Saved plans.


def save(root: Path, *words: str) -> str:
    here("plan", *words, "--out", "saved", "--root", root)
    return "saved"


def test_what_was_saved_is_what_is_done(root: Path) -> None:
    write(PLAIN)
    shown, err = here("plan", "--out", "saved", "--root", root)
    assert f"with: usernsplan apply --root {root} --plan saved" in err or f"--root {root}" in err
    # The file may change or disappear.
    write(PER_CONTAINER + "containers: [other]\n")
    out, _ = here("apply", "--plan", "saved", "--yes", "--root", root)
    assert out.startswith(shown)
    assert lines(root) == LINES
    # After it was applied, the saved plan no longer fits.
    here("apply", "--plan", "saved", "--yes", "--root", root, status=6)
    assert lines(root) == LINES


def test_what_was_saved_says_what_goes_too(root: Path) -> None:
    write(PLAIN)
    here("apply", "--yes", "--root", root)
    write(PER_CONTAINER + "engines: [podman]\ncontainers: [{name: db, size: 131072}, new]\n")
    save(root, "--prune")
    here("apply", "--plan", "saved", "--yes", "--root", root)
    assert lines(root) == "usernsplan-db:655360:131072\nusernsplan-new:786432:65536\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda root: here(
            "allocate", "--strategy", "per-container", "other", "--engine", "podman", "--root", root
        ),
        lambda root: (root / "etc/subuid").write_text(OTHERS + "bob:200000:65536\n"),
        lambda root: (root / "etc/subgid").write_text(""),
        lambda root: (root / "etc/subuid").unlink(),
        lambda root: (root / "etc/passwd").write_text("carol:x:589824:589824::/:/bin/sh\n"),
        lambda root: here("apply", "--yes", "--root", root),
    ],
)
def test_where_the_host_has_changed_nothing_is_done(
    root: Path, change: Callable[[Path], object]
) -> None:
    write(PLAIN)
    save(root)
    change(root)
    before = tree(root)
    for more in (("--yes",), ()):
        out, err = here("apply", "--plan", "saved", *more, "--root", root, status=6)
        assert out == ""
        assert "nothing was changed" in err
        assert tree(root) == before


def test_what_does_not_touch_the_plan_is_no_change(root: Path) -> None:
    write(PLAIN)
    save(root)
    (root / "etc/passwd").write_text(
        (root / "etc/passwd").read_text() + "bob:x:1001:1001::/:/bin/sh\n"
    )
    here("apply", "--plan", "saved", "--yes", "--root", root)
    assert lines(root) == LINES


def test_half_of_what_was_saved_is_done_already(root: Path) -> None:
    write(PLAIN)
    here("apply", "--yes", "--root", root)
    write(PER_CONTAINER + "engines: [podman]\ncontainers: [{name: db, size: 131072}, new]\n")
    save(root, "--prune")
    # As if a kill came between the additions and the removals.
    here("apply", "--yes", "--root", root)
    before = tree(root)
    here("apply", "--plan", "saved", "--yes", "--root", root, status=6)
    assert tree(root) == before
    here("apply", "--prune", "--yes", "--root", root)
    assert lines(root) == "usernsplan-db:655360:131072\nusernsplan-new:786432:65536\n"


@needs_root
def test_volumes_that_were_not_shown_are_not_fixed(root: Path) -> None:
    volume = make_volume(root, "/srv/web")
    write(PER_CONTAINER + "engines: [podman]\ncontainers: [{name: web, volumes: [/srv/web]}]\n")
    here("apply", "--yes", "--fix-volumes", "--root", root)
    save(root)
    here("fix-volume", "/srv/web", "--container", "web", "--user", "5:5", "--root", root)
    before = owners(volume)
    here("apply", "--plan", "saved", "--yes", "--fix-volumes", "--root", root, status=6)
    assert owners(volume) == before


def test_what_was_saved_is_for_one_root(root: Path, tmp_path: Path) -> None:
    write(PLAIN)
    save(root)
    shutil.copytree(root, tmp_path / "twin")
    _, err = here("apply", "--plan", "saved", "--yes", "--root", tmp_path / "twin", status=2)
    assert f"saved was made for the root {root}" in err
    assert lines(tmp_path / "twin") == ""
    # Another path to the same file.
    (tmp_path / "link").symlink_to(root)
    here("apply", "--plan", "saved", "--yes", "--root", tmp_path / "link")
    assert lines(root) == LINES


def edited(**more: object) -> Callable[[dict[str, Any]], object]:
    return lambda saved: {**saved, **more}


@pytest.mark.parametrize(
    "edit",
    [
        lambda _: [],
        lambda _: None,
        lambda saved: {k: v for k, v in saved.items() if k != "text"},
        edited(kind="plan"),
        edited(format_version=2),
        lambda saved: {k: v for k, v in saved.items() if k != "fingerprint"},
        edited(text=5),
        edited(text="\ud800"),
    ],
)
def test_what_nobody_saved_is_refused(root: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    write(PLAIN)
    save(root)
    Path("saved").write_text(json.dumps(edit(json.loads(Path("saved").read_text()))))
    _, err = here("apply", "--plan", "saved", "--yes", "--root", root, status=1)
    assert "not a plan that 'usernsplan plan --out' saved" in err
    assert lines(root) == ""


@pytest.mark.parametrize(
    ("edit", "status"),
    [
        (edited(fingerprint="a"), 6),
        (edited(fingerprint=None), 6),
        (edited(text=PER_CONTAINER + "containers: [other]\n"), 6),
        (edited(prune=True), 0),
        (edited(text="strategy: x\n"), 1),
        (edited(root="/"), 2),
        (edited(root=5), 2),
        (edited(file=5), 0),
    ],
)
def test_what_was_saved_and_edited(
    root: Path, edit: Callable[[dict[str, Any]], object], status: int
) -> None:
    write(PLAIN)
    save(root)
    Path("saved").write_text(json.dumps(edit(json.loads(Path("saved").read_text()))))
    here("apply", "--plan", "saved", "--yes", "--root", root, status=status)
    assert (lines(root) == LINES) == (status == 0)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"\xff", b"[" * 100_000, b"strategy: shared\n", b"9" * 5000, b'"text"']
)
def test_what_is_no_json_is_refused(root: Path, raw: bytes) -> None:
    Path("saved").write_bytes(raw)
    _, err = here("apply", "--plan", "saved", "--yes", "--root", root, status=1)
    assert "not a plan that" in err


def test_saving_replaces_a_file_whole_and_nothing_else(root: Path, folder: Path) -> None:
    write(PLAIN)
    before = tree(root)
    (folder / "saved").write_text("old")
    save(root)
    assert json.loads((folder / "saved").read_text())["kind"] == "saved-plan"
    assert sorted(os.listdir(folder)) == ["saved", "usernsplan.yaml"]
    (folder / "link").symlink_to("elsewhere")
    here("plan", "--out", "link", "--root", root)
    assert (folder / "elsewhere").read_bytes() == (folder / "saved").read_bytes()
    here("plan", "--out", "/dev/null", "--root", root)
    for name in (".", "nowhere/saved"):
        here("plan", "--out", name, "--root", root, status=1)
    assert sorted(os.listdir(folder)) == ["elsewhere", "link", "saved", "usernsplan.yaml"]
    assert tree(root) == before


def test_nothing_to_do_is_saved_and_done_too(root: Path) -> None:
    write(PLAIN)
    here("apply", "--yes", "--root", root)
    save(root)
    done = tree(root)
    assert "Already up to date" in here("apply", "--plan", "saved", "--root", root)[0]
    assert tree(root) == done


# Questions.


def on_terminal() -> None:
    """Restore SIGINT, as a login shell does: tests started in the background may ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def answered(answer: bytes, *words: str, wait: bool = True) -> tuple[int, str, str]:
    """Run it on its own terminal and answer. Return status, output and the terminal's text."""
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            [*PROGRAM, *words],
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=slave,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "dumb"},
            start_new_session=True,
            preexec_fn=on_terminal,  # noqa: PLW1509 - the terminal sends Ctrl-C
        )
        os.close(slave)
        seen = b""
        while wait and b"[y/N]" not in seen:
            seen += os.read(master, 1000)
        os.write(master, answer)
        out, _ = process.communicate(timeout=60)
        while True:
            try:
                more = os.read(master, 1000)
            except OSError:
                break
            if not more:
                break
            seen += more
        return process.returncode, out.decode(), seen.decode(errors="replace")
    finally:
        os.close(master)


@pytest.mark.parametrize("answer", [b"y\n", b"YES\n", b" Yes \n"])
def test_who_says_yes(root: Path, answer: bytes) -> None:
    write(PLAIN)
    status, out, seen = answered(answer, "apply", "--root", str(root))
    assert (status, lines(root)) == (0, LINES)
    assert "Plan: 2 to add" in out
    assert "Apply this? [y/N]" in seen


@pytest.mark.parametrize(
    ("answer", "status"),
    [(b"n\n", 1), (b"\n", 1), (b"yep\n", 1), (b"\x04", 1), (b"\x03", 130), (b"\xff\n", 1)],
)
def test_who_does_not(root: Path, answer: bytes, status: int) -> None:
    write(PLAIN)
    before = tree(root)
    ended, out, seen = answered(answer, "apply", "--root", str(root))
    assert "Traceback" not in seen
    assert (ended, tree(root)) == (status, before)
    assert "Plan: 2 to add" in out


def test_where_nothing_is_to_be_done_nobody_is_asked(root: Path) -> None:
    write(PLAIN)
    here("apply", "--yes", "--root", root)
    status, out, seen = answered(b"", "apply", "--root", str(root), wait=False)
    assert (status, seen) == (0, "")
    assert "Already up to date" in out


def test_nobody_is_asked_about_what_he_was_not_shown(root: Path) -> None:
    write(PLAIN)
    status, out, seen = answered(b"y\n", "apply", "--json", "--root", str(root), wait=False)
    assert (status, lines(root)) == (2, "")
    assert json.loads(out)["error"]["hint"] == "use --yes"
    assert "[y/N]" not in seen


def test_what_changes_while_somebody_thinks_about_it_is_not_done(root: Path) -> None:
    write(PLAIN)
    master, slave = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    words = [*PROGRAM, "apply", "--root", str(root)]
    process = subprocess.Popen(
        words, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith("Plan: "):
        pass
    (root / "etc/subuid").write_text(OTHERS + "bob:589824:65536\n")
    os.write(master, b"y\n")
    _, err = process.communicate(timeout=60)
    os.close(master)
    os.close(slave)
    assert process.returncode == 6
    assert "nothing was changed" in err
    assert (root / "etc/subuid").read_text() == OTHERS + "bob:589824:65536\n"
    assert (root / "etc/subgid").read_text() == OTHERS


# Concurrent writers, and power failures.


@needs_root
def test_several_at_once_and_useradd_between_them(root: Path) -> None:
    if shutil.which("useradd") is None:
        missing("useradd")
    write(PLAIN)
    (root / "etc/login.defs").write_text(
        "SUB_UID_MIN 100000\nSUB_UID_MAX 600100000\nSUB_UID_COUNT 65536\n"
    )
    (root / "etc/shadow").touch()
    (root / "etc/gshadow").touch()
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    words = [*PROGRAM, "apply", "--yes", "--root", str(root)]
    runs = [
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        for _ in range(3)
    ]
    users = []
    for number in range(4):
        time.sleep(0.1)
        done = subprocess.run(
            ["useradd", "--prefix", root, f"u{number}"], capture_output=True, check=False
        )
        users += [f"u{number}"] * (done.returncode == 0)
    for run in runs:
        _, err = run.communicate(timeout=60)
        assert "Traceback" not in err
        assert run.returncode in {0, 5, 6}, err
    here("apply", "--yes", "--root", root)
    here("plan", "--check", "--root", root)
    for name in ("subuid", "subgid"):
        found = (root / "etc" / name).read_text().splitlines()
        assert Counter(line.split(":")[0] for line in found) == Counter(
            ["alice", "usernsplan-web", "usernsplan-db", *users]
        )
        assert set(LINES.splitlines()) <= set(found)


def test_killed_at_any_point_it_is_never_half_and_said_again_it_is_done(
    root: Path, tmp_path: Path
) -> None:
    """Additions and removals are two steps; each happens completely or not at all."""
    if shutil.which("strace") is None:
        missing("strace")
    here("allocate", "--strategy", "per-container", "old", "--engine", "podman", "--root", root)
    file = str(Path(write(PER_CONTAINER + "engines: [podman]\ncontainers: [web]\n")).absolute())
    case = crash.Case((), ("apply", file, "--prune", "--yes"))
    sides = [lines(root)]
    shutil.copytree(root, tmp_path / "whole")
    here("apply", file, "--yes", "--root", tmp_path / "whole")
    sides.append(lines(tmp_path / "whole"))
    here("apply", file, "--prune", "--yes", "--root", tmp_path / "whole")
    sides.append(lines(tmp_path / "whole"))
    assert sides == [
        "usernsplan-old:589824:65536\n",
        "usernsplan-old:589824:65536\nusernsplan-web:655360:65536\n",
        "usernsplan-web:655360:65536\n",
    ]
    shutil.rmtree(tmp_path / "whole")
    seen = set()
    places = crash.places(root, case)
    kept = [
        place for number, place in enumerate(places) if place[0] == "renameat" or number % 30 == 0
    ]
    for call, number in kept:
        struck = tmp_path / f"{call}{number}"
        shutil.copytree(root, struck)
        status, said = crash.traced(
            struck, case, call, "-e", f"inject={call}:signal=KILL:when={number}"
        )
        assert status in {-9, 137}, said
        here("plan", file, "--prune", "--root", struck)
        for name in ("subuid", "subgid"):
            assert (struck / "etc" / name).read_text().replace(OTHERS, "") in sides, (call, number)
        # Another command finishes or undoes it: the state is the old or the new one.
        here("release", "--forget", "nothing", "--root", struck, status=1)
        seen.add(lines(struck))
        assert lines(struck) in sides
        here("apply", file, "--prune", "--yes", "--root", struck)
        assert lines(struck) == sides[2]
        here("plan", file, "--prune", "--check", "--root", struck)
        shutil.rmtree(struck)
    assert seen == set(sides)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_is_told_to_stop_leaves_all_or_nothing(root: Path, stop: signal.Signals) -> None:
    write(PLAIN)
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    for wait in (0.1, 0.2, 0.3):
        process = subprocess.Popen(
            [*PROGRAM, "apply", "--yes", "--root", str(root)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=env,
        )
        time.sleep(wait)
        process.send_signal(stop)
        process.communicate(timeout=60)
    found = lines(root)
    assert found in {"", LINES}
    here("apply", "--yes", "--root", root)
    assert lines(root) == LINES


# Volumes.


VOLUMES = (
    PER_CONTAINER
    + """\
engines: [podman]
containers:
- name: web
  volumes: [/srv/web]
- name: db
  user: '999:998'
  volumes:
  - /srv/db
  - {path: /srv/rootfs, mode: shift}
"""
)


@needs_root
@pytest.mark.usefixtures("volume_step")
def test_volumes_are_given_to_their_containers(root: Path) -> None:
    write(VOLUMES)
    web, db, rootfs = (make_volume(root, f"/srv/{name}") for name in ("web", "db", "rootfs"))
    os.chown(rootfs / "file", 33, 44)
    out, _ = here("plan", "--root", root)
    assert "  ~ volume /srv/db      fix for db (own 999:998)\n" in out
    assert out.endswith("Plan: 2 to add, 0 to change, 0 to remove, 3 volumes to fix.\n")
    out, _ = here("apply", "--yes", "--root", root)
    assert "The volumes are not fixed yet" in out
    assert owners(root / "srv") == {(0, 0), (33, 44)}
    here("plan", "--check", "--root", root, status=4)
    document = told("apply", "--yes", "--fix-volumes", "--root", root)
    assert document["changed"] is True
    assert [(v["path"], v["error"]) for v in document["volumes"]] == [
        *(("/srv/web", None), ("/srv/db", None), ("/srv/rootfs", None)),
    ]
    assert owners(web) == {(589824, 589824)}
    assert owners(db) == {(655360 + 999, 655360 + 998)}
    assert owners(rootfs) == {(655360, 655360), (655360 + 33, 655360 + 44)}
    # Repeating the command changes nothing.
    done = tree(root)
    here("plan", "--check", "--root", root)
    assert "Already up to date" in here("apply", "--fix-volumes", "--root", root)[0]
    assert tree(root) == done
    write(here("export", "--root", root)[0])
    here("plan", "--check", "--root", root)
    here("apply", "--fix-volumes", "--root", root)
    assert tree(root) == done


@needs_root
@pytest.mark.usefixtures("volume_step")
def test_what_the_file_says_of_a_volume_may_change(root: Path) -> None:
    write(VOLUMES)
    web, db, rootfs = (make_volume(root, f"/srv/{name}") for name in ("web", "db", "rootfs"))
    here("apply", "--yes", "--fix-volumes", "--root", root)
    write(VOLUMES.replace("999:998", "5:6").replace("/srv/web]", "{path: /srv/web, mode: shift}]"))
    assert [s["name"] for s in told("plan", "--root", root)["steps"]] == ["/srv/web", "/srv/db"]
    here("apply", "--yes", "--fix-volumes", "--root", root)
    assert owners(web) == {(589824, 589824)}
    assert owners(db) == {(655360 + 5, 655360 + 6)}
    assert owners(rootfs) == {(655360, 655360)}
    here("plan", "--check", "--root", root)
    # The check sees a new file of the host's root one level below the top, and no deeper.
    (db / "new").touch()
    here("plan", "--check", "--root", root, status=4)
    here("apply", "--yes", "--fix-volumes", "--root", root)
    assert owners(db) == {(655360 + 5, 655360 + 6)}
    here("plan", "--check", "--root", root)


@needs_root
@pytest.mark.parametrize("forget", [True, False])
@pytest.mark.parametrize("is_same_second", [True, False])
@pytest.mark.usefixtures("volume_step")
def test_a_container_that_gets_another_range_gets_its_volume_again(
    root: Path, forget: bool, is_same_second: bool
) -> None:
    file = write(
        PER_CONTAINER + "engines: [podman]\ncontainers: [{name: web, volumes: [/srv/web]}]\n"
    )
    web = make_volume(root, "/srv/web")
    time.sleep(1 - time.time() % 1)
    here("apply", file, "--yes", "--fix-volumes", "--root", root)
    here("release", "web", "--root", root)
    if forget:
        for path in (web, web / "file"):
            os.chown(path, 0, 0)
        here("release", "--forget", "web", "--root", root)
    (root / "etc/subuid").write_text(OTHERS + "bob:589824:65536\n")
    (root / "etc/subgid").write_text(OTHERS + "bob:589824:65536\n")
    if not is_same_second:
        time.sleep(1 - time.time() % 1)
    here("apply", file, "--yes", "--root", root)
    assert [s["name"] for s in told("plan", "--root", root)["steps"]] == ["/srv/web"]
    here("apply", file, "--yes", "--fix-volumes", "--root", root, status=None)
    assert owners(web) == {(655360, 655360)}
    here("plan", "--check", "--root", root)


@needs_root
def test_a_volume_that_cannot_be_fixed_keeps_none_from_it(root: Path) -> None:
    write(VOLUMES)
    make_volume(root, "/srv/rootfs")
    db = make_volume(root, "/srv/db")
    out, _ = here("apply", "--yes", "--fix-volumes", "--root", root, status=3)
    assert "/srv/web: not fixed: " in out
    assert owners(db) == {(655360 + 999, 655360 + 998)}
    assert lines(root) == LINES.replace("131072", "65536")
    document = told("apply", "--yes", "--fix-volumes", "--root", root, status=3)
    [volume] = document["volumes"]
    assert volume["path"] == "/srv/web"
    assert volume["error"]
    assert document["pending"] is True
    here("plan", "--check", "--root", root, status=4)
    make_volume(root, "/srv/web")
    here("apply", "--yes", "--fix-volumes", "--root", root)
    here("plan", "--check", "--root", root)


@needs_root
def test_the_name_of_a_volume_is_where_it_lies(root: Path, folder: Path) -> None:
    web = make_volume(root, "/data/web")
    (root / "srv").symlink_to("/data")
    for path in ("/srv/web", "/srv/web/", "//srv//web", f"{root}/srv/web"):
        write(
            PER_CONTAINER + f"engines: [podman]\ncontainers: [{{name: web, volumes: ['{path}']}}]\n"
        )
        here("apply", "--yes", "--fix-volumes", "--root", root)
        assert owners(web) == {(589824, 589824)}
        assert [
            v["path"] for v in told("export", "--root", root)["spec"]["containers"][0]["volumes"]
        ] == ["/data/web"]
        here("plan", "--check", "--root", root)
    assert folder.is_dir()


@needs_root
def test_a_dot_in_the_name_of_a_volume_is_no_folder(root: Path) -> None:
    make_volume(root, "/srv/web")
    write(PER_CONTAINER + "engines: [podman]\ncontainers: [{name: web, volumes: [/srv/./web]}]\n")
    here("apply", "--yes", "--fix-volumes", "--root", root)
    here("plan", "--check", "--root", root)


def test_one_volume_by_two_names_is_told_as_what_it_is(root: Path) -> None:
    write(PER_CONTAINER + "containers:\n- name: web\n  volumes:\n  - /srv/web\n  - /srv/web/\n")
    _, err = here("plan", "--root", root, status=1)
    assert err.startswith("usernsplan: usernsplan.yaml:6: ")
    assert "another container's" not in err


@needs_root
def test_a_name_that_cannot_be_printed_is_shown_as_it_can(root: Path) -> None:
    make_volume(root, "/srv/a\x1b[31m\nb")
    write(
        PER_CONTAINER
        + 'engines: [podman]\ncontainers: [{name: web, volumes: ["/srv/a\\e[31m\\nb"]}]\n'
    )
    for words in (("plan",), ("plan", "--json"), ("apply", "--yes", "--fix-volumes")):
        out, err = here(*words, "--root", root)
        assert "\x1b" not in out + err
        assert "31m\nb" not in out + err
    here("plan", "--check", "--root", root)
    out, _ = here("export", "--root", root)
    write(out)
    here("plan", "--check", "--root", root)


def test_volumes_that_are_left_are_told_of(root: Path) -> None:
    write(VOLUMES)
    here("apply", "--yes", "--root", root)
    out, _ = here("apply", "--yes", "--root", root)
    assert (
        out.rstrip().splitlines()[-1]
        == "Plan: 0 to add, 0 to change, 0 to remove, 3 volumes to fix."
    )
    document = told("apply", "--yes", "--root", root)
    assert (document["changed"], document["pending"]) == (False, True)


# allocate without a name.


def test_allocate_without_a_name_does_what_the_file_says(root: Path) -> None:
    write(PLAIN + "reservations: [{ids: 589824, for: NFS}]\n")
    before = tree(root)
    _, err = here("allocate", "--dry-run", "--root", root)
    assert "usernsplan.yaml sets what is allocated" in err
    here("allocate", "--check", "--root", root, status=4)
    assert tree(root) == before
    assert [a["name"] for a in told("allocate", "--root", root)["allocations"]] == ["web", "db"]
    assert lines(root) == "usernsplan-web:655360:65536\nusernsplan-db:720896:131072\n"
    here("allocate", "--check", "--root", root)
    here("plan", "--check", "--root", root)
    # With a strategy, it ignores the plan file of this folder: Docker's own allocation.
    here("allocate", "--check", "--strategy", "per-container", "--root", root, status=4)
    assert not (root / "etc/docker/daemon.json").exists()


@each(
    "words",
    [
        ("--size", "5"),
        ("--block", "5"),
        ("--dockerroot", "5"),
        ("--identity",),
        ("--max", "5"),
        ("--container-id", "0"),
        ("--start", "0"),
        ("--pool", "5-6"),
        ("--owner", ""),
        ("--daemon", "web"),
        ("--no-daemon-config",),
        ("--engine", "lxc"),
        ("--auto-containers", "0"),
        ("--pods", "5"),
    ],
)
def test_options_that_say_what_the_file_is_to_say_are_refused(
    root: Path, words: tuple[str, ...]
) -> None:
    write(PLAIN)
    before = tree(root)
    _, err = here("allocate", *words, "--root", root, status=2)
    assert "usernsplan.yaml sets" in err
    assert tree(root) == before


def test_allocate_with_a_name_does_not_look_at_the_file(root: Path) -> None:
    write("strategy: [broken")
    here("allocate", "--strategy", "per-container", "web", "--root", root)
    assert lines(root) == "usernsplan-web:589824:65536\n"
    here("allocate", "--root", root, status=1)


def test_allocate_tells_of_volumes_that_are_left(root: Path) -> None:
    write(VOLUMES)
    out, _ = here("allocate", "--root", root)
    assert (
        f"apply --root {root} --fix-volumes" in out or f"apply --fix-volumes --root {root}" in out
    )


# As a process, from start to end.


def test_as_a_process(root: Path) -> None:
    write(PLAIN)
    env = {"PYTHONPATH": str(REPOSITORY)}
    assert "Plan: 2 to add" in usernsplan("plan", "--root", root, env=env).stdout
    usernsplan("plan", "--check", "--json", "--root", root, env=env, status=4)
    usernsplan("apply", "--root", root, env=env, status=2)
    usernsplan("apply", "--yes", "--root", root, env=env)
    out = usernsplan("export", "--root", root, env=env).stdout
    write(out)
    usernsplan("plan", "--check", "--root", root, env=env)
    assert lines(root) == LINES


@pytest.mark.parametrize(
    "words", [("plan",), ("export",), ("plan", "--schema"), ("apply", "--yes")]
)
def test_a_reader_who_left_is_no_failure(root: Path, words: tuple[str, ...]) -> None:
    write(PLAIN)
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*PROGRAM, *words, "--root", str(root)],
        env=env,
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert b"Broken" not in done.stderr


@pytest.mark.parametrize("words", ["plan - <&-", "plan >&-", "apply - --yes <&-"])
def test_a_stream_that_is_closed_is_no_traceback(root: Path, words: str) -> None:
    write(PLAIN)
    script = f"exec {shlex.join(PROGRAM)} {words} --root {shlex.quote(str(root))}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert lines(root) == ""


def test_a_remap_to_somebody_else_is_refused_in_the_words_of_the_file(root: Path) -> None:
    (root / "etc/docker").mkdir(exist_ok=True)
    (root / "etc/docker/daemon.json").write_text('{"userns-remap": "bob"}')
    file = write("strategy: per-container\nengines: [docker]\ncontainers: [default]\n")
    _, err = here("apply", file, "--yes", "--root", root, status=9)
    assert "write 'daemon: NAME' to change it, or 'daemon: false' to keep it" in err
    assert (root / "etc/docker/daemon.json").read_text() == '{"userns-remap": "bob"}'
