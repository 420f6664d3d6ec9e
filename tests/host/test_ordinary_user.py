"""What an ordinary user sees of a host, folders of which only root may read: much, and nothing that is free for certain."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.command import json_of, missing, needs_root, usernsplan
from tests.documents import document_in
from tests.prefork import Ended, Prefork
from usernsplan.errors import NotPermittedError, UsernsplanError
from usernsplan.host import unread
from usernsplan.host.unlisted import incus
from usernsplan.layout import Layout

FOLDERS = [
    "var/lib/machines",
    "etc/systemd/nspawn",
    "var/lib/lxc",
    "var/lib/lxc/web",
    "etc/lxc",
    "etc/pve",
    "var/lib/docker",
    "etc/userdb",
    "run/userdb",
]
ALLOCATE = ("allocate", "--strategy", "per-container", "web")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with a home that is closed, as Debian makes them."""
    root = tmp_path / "host"
    for name in (*FOLDERS, "home/alice"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"
    )
    (root / "etc/group").write_text("root:x:0:\nalice:x:1000:\n")
    for name in ("subuid", "subgid"):
        (root / f"etc/{name}").write_text("alice:100000:65536\n")
    closed(root / "home/alice")
    return root


def closed(path: Path) -> None:
    """Another's folder that only they may enter."""
    path.chmod(0o700)
    os.chown(path, 1, 1)


@functools.cache
def without_power() -> Prefork:
    setpriv = shutil.which("setpriv") or missing("setpriv")
    server = Prefork(setpriv, "--bounding-set=-all", "--inh-caps=-all")
    atexit.register(server.close)
    return server


def by_user(*words: str | Path, status: int = 0) -> Ended:
    """Run it without any capability: as root's uid, because another user cannot read our interpreter."""
    done = without_power().start(*words, cwd=Path("/")).wait()
    assert "Traceback" not in done.err, done.err
    assert done.status == status, (words, done)
    return done


def document(*words: str | Path) -> dict[str, Any]:
    return document_in(by_user(*words, "--json").out)


@pytest.mark.spread(3)
@needs_root
@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_is_closed_hides_nothing_else_and_nothing_is_called_free(
    root: Path, name: str
) -> None:
    closed(root / name)
    figures = document("capacity", "--root", root)
    assert [figures[key] for key in ("free", "gaps", "more", "largest_gap")] == [None] * 4
    assert figures["pool"] == {"start": 589824, "count": 599510177}
    checked = document("check", "--root", root)
    assert checked["findings"] == []
    preview = document(*ALLOCATE, "--dry-run", "--root", root)
    assert preview["allocations"][0]["reserved_range"]["start"] == 589824
    for found in (figures, checked, preview):
        assert any(f"{root}/{name}" in one for one in found["unseen"]), found["unseen"]

    [answer] = document("whois", "700000", "--root", root)["answers"]
    assert answer["free"] is None
    assert f"{root}/{name}" in by_user(*ALLOCATE, "--root", root, status=8).err
    assert (root / "etc/subuid").read_text() == "alice:100000:65536\n"


@needs_root
def test_each_command_says_what_it_could_not_see(root: Path) -> None:
    closed(root / "var/lib/machines")
    picture = root.parent / "ids.html"
    for words in (
        ("map",),
        ("map", "--html", str(picture)),
        ("capacity",),
        ("check",),
        ("whois", "700000"),
        ("whois", "700000", "700001"),
        (*ALLOCATE, "--dry-run"),
    ):
        done = by_user(*words, "--root", root)
        assert f"note: {root}/var/lib/machines: permission denied" in done.err, words
        assert "free in the pool" not in done.out
    page = picture.read_text()
    assert "% free" not in page.partition("<script>")[0]
    assert '<div id="view" data-unseen="yes"' in page
    assert "at most 9,147 more of 65,536 ids" in page
    assert f"{root}/var/lib/machines: permission denied" in page
    for name in ("capacity", "map"):
        shown = by_user(name, "--root", root).out
        assert "at most 599,510,177 ids" in shown, name
        assert "at least 0 ids" in shown, name

    assert "alice may map" in by_user("whois", "100000", "--root", root).out
    assert "Nothing is allocated" in by_user("list", "--root", root).out
    found = document("map", "--root", root)
    assert found["capacity"]["free"] is None
    assert any("var/lib/machines" in one for one in found["unseen"])
    # Root reads everything, and so has nothing to add.
    assert json_of(*ALLOCATE, "--dry-run", "--root", root)["unseen"] == []
    assert usernsplan("capacity", "--root", root).stderr == ""


@needs_root
def test_records_that_are_closed_do_not_count_as_lost(root: Path) -> None:
    usernsplan(*ALLOCATE, "--root", root)
    closed(root / "etc/userdb")
    assert document("check", "--root", root)["findings"] == []


@needs_root
def test_a_plan_file_and_an_export_need_no_more_than_before(root: Path, tmp_path: Path) -> None:
    usernsplan(*ALLOCATE, "--publish", "none", "--root", root)
    closed(root / "var/lib/machines")
    spec = by_user("export", "--root", root).out
    (tmp_path / "plan.yaml").write_text(spec)
    done = by_user("plan", tmp_path / "plan.yaml", "--root", root)
    assert f"note: {root}/var/lib/machines" in done.err
    assert by_user("render", "lxc", "web", "--root", root).out
    assert "var/lib/machines" in by_user("release", "web", "--dry-run", "--root", root).err


@needs_root
def test_root_is_told_by_check_what_even_root_cannot_read(root: Path) -> None:
    """There is no permission that root lacks, so this is a fault of the host."""
    (root / "etc/systemd/nspawn/x.nspawn").mkdir()
    found = json_of("check", "--root", root, status=1)
    assert [one["code"] for one in found["findings"]] == ["USN035"]
    assert found["unseen"] == []
    usernsplan(*ALLOCATE, "--dry-run", "--root", root, status=9)
    # A command that only shows goes on, and says so.
    shown = usernsplan("capacity", "--root", root)
    assert "at most" in shown.stdout
    assert "x.nspawn" in shown.stderr


@pytest.mark.parametrize("where", ["socket", "folder"])
def test_a_daemon_that_may_not_be_asked_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    place = str(tmp_path / "unix.socket")
    monkeypatch.setattr(incus, "_DAEMONS", (incus._Daemon("incusd", place),))
    monkeypatch.setattr(incus, "_runs", lambda _: True)
    calls = {"socket": (socket.socket, "connect"), "folder": (os, "stat")}

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(place)
        if where == "socket":
            monkeypatch.setattr(incus, "_asked", refuse)
        else:
            monkeypatch.setattr(*calls[where], refuse)
            monkeypatch.setattr(incus, "_asked", refuse)
        errors: list[UsernsplanError] = []
        assert incus.instances(Layout(), lambda _, error: errors.append(error)) == ()
        monkeypatch.undo()
    assert isinstance(errors[0], NotPermittedError)
    assert place in str(errors[0])


def test_only_what_rights_keep_back_is_closed() -> None:
    assert not unread.is_closed(UsernsplanError("damaged"))
    # The tests run as root, from whom no mode keeps anything.
    assert unread.is_closed(NotPermittedError("closed")) is (os.geteuid() != 0)


@needs_root
def test_a_ledger_is_not_rebuilt_from_a_part_of_the_host(root: Path) -> None:
    (root / "var/lib/usernsplan").mkdir()
    (root / "var/lib/usernsplan/ledger.sqlite3").write_bytes(b"no ledger" * 1000)
    closed(root / "var/lib/machines")
    words = ("ledger", "rebuild", "--dry-run", "--root", root)
    assert "var/lib/machines" in by_user(*words, status=8).err
    usernsplan(*words)
