"""Published ranges on their own roots: what is on disk, after each command that may change it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.command import here, json_of, needs_root
from tests.each import each

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LEDGER = "var/lib/usernsplan/ledger.sqlite3"
WEB = ("allocate", "--strategy", "per-container", "web", "--size", "131072")
NAMES = ("usernsplan-web", "589824", "usernsplan-web--1", "655360")
FILES = sorted(f"{name}.{kind}" for name in NAMES for kind in ("user", "group"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with one container of two records."""
    root = tmp_path / "host"
    (root / "etc").mkdir(parents=True)
    here(*WEB, "--root", root)
    assert recorded(root) == FILES
    return root


def recorded(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "etc/userdb").iterdir())


def published(root: Path) -> list[str]:
    return [a["published"] for a in json_of("list", "--root", root)["allocations"]]


@each("name", ["usernsplan-web.user", "usernsplan-web--1.group"])
def test_what_a_power_cut_emptied_is_written_again(root: Path, name: str) -> None:
    file = root / "etc/userdb" / name
    whole = file.read_bytes()
    file.write_bytes(b"")
    fixed = json_of("check", "--fix", "--yes", "--root", root)
    assert fixed["findings"] == []
    assert file.read_bytes() == whole


def test_a_rebuilt_ledger_knows_what_is_published_and_release_takes_it_away(root: Path) -> None:
    here("allocate", "db", "--publish", "none", "--root", root)
    (root / LEDGER).unlink()
    # One file is enough to know it, and the others come back.
    (root / "etc/userdb/usernsplan-web.user").unlink()
    here("ledger", "rebuild", "--yes", "--root", root)
    assert published(root) == ["none", "userdb"]
    here("check", "--fix", "--yes", "--root", root)
    assert recorded(root) == FILES

    here("release", "web", "--root", root)
    assert recorded(root) == []


def test_an_account_of_a_record_is_named_with_its_file(root: Path) -> None:
    file = root / "etc/userdb/usernsplan-db.user"
    file.write_text('{"userName": "usernsplan-db", "uid": 700}')
    _, said = here("allocate", "db", "--root", root, status=9)
    assert f"{file}: 'usernsplan-db' is an account" in said


def test_the_remedy_for_an_unpublished_range_works_whatever_the_config_says(root: Path) -> None:
    config = root / "etc/usernsplan/config.yaml"
    config.parent.mkdir()
    config.write_text("publish: none\n")
    here(*WEB, "--root", root)
    assert published(root) == ["none"]
    [found] = json_of("check", "--root", root)["findings"]
    [command] = re.findall("'usernsplan (.*?)'", found["hint"])
    here(*shlex.split(command))
    assert published(root) == ["userdb"]


def a_file(folder: Path) -> None:
    folder.write_text("")


def a_pipe(folder: Path) -> None:
    os.mkfifo(folder)


def a_symlink(folder: Path) -> None:
    folder.symlink_to("elsewhere")


def a_symlink_to_a_folder(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    folder.symlink_to("elsewhere")


@pytest.mark.parametrize("put", [a_file, a_pipe, a_symlink, a_symlink_to_a_folder])
def test_what_is_no_folder_stops_publishing_and_nothing_else(
    root: Path, put: Callable[[Path], None]
) -> None:
    folder = root / "etc/userdb"
    folder.rename(root / "etc/moved")
    put(folder)
    _, said = here("allocate", "db", "--root", root, status=9)
    assert f"{folder} is a symlink or not a folder" in said
    assert "interrupted" not in here("check", "--root", root, status=None)[0]
    here("allocate", "db", "--publish", "none", "--root", root)
    # A release has no record to remove there.
    here("release", "web", "db", "--root", root)
    assert (root / "etc/subuid").read_text() == ""
    assert not any((root / "etc").glob("elsewhere/*"))


def killed_after(made: Callable[..., None]) -> Callable[..., None]:
    """Kill the process once a record has its name, and its file still has the other one, too."""

    def link(source: str, *more: object, **words: object) -> None:
        made(source, *more, **words)
        if source.endswith("-new"):
            os._exit(9)

    return link


@pytest.mark.parametrize("words", [("check", "--fix", "--yes"), WEB])
def test_nothing_is_left_of_a_repair_that_was_killed(
    root: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (root / "etc/userdb").iterdir():
        path.unlink()

    if (child := os.fork()) == 0:
        monkeypatch.setattr(os, "link", killed_after(os.link))
        here(*words, "--root", root, status=None)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert any(name.endswith("-new") for name in recorded(root))

    here("check", "--fix", "--yes", "--root", root)
    assert recorded(root) == FILES


@needs_root
def test_an_account_that_goes_takes_no_line_with_it(tmp_path: Path) -> None:
    root = tmp_path / "host"
    (root / "etc").mkdir(parents=True)
    here(*WEB, "--publish", "passwd", "--root", root)
    lines = (root / "etc/subuid").read_text()
    assert "usernsplan-web--1:" in (root / "etc/passwd").read_text()

    here(*WEB, "--publish", "none", "--root", root)
    assert (root / "etc/passwd").read_text() == (root / "etc/group").read_text() == ""
    assert (root / "etc/subuid").read_text() == (root / "etc/subgid").read_text() == lines


@needs_root
@pytest.mark.parametrize("name", ["passwd", "group"])
def test_an_account_of_which_half_was_lost_comes_back(tmp_path: Path, name: str) -> None:
    root = tmp_path / "host"
    (root / "etc").mkdir(parents=True)
    here(*WEB, "--publish", "passwd", "--root", root)
    file = root / "etc" / name
    file.write_text(
        "".join(line for line in file.read_text().splitlines(keepends=True) if "--1" not in line)
    )

    findings = json_of("check", "--root", root, status=int(name == "passwd"))["findings"]
    assert ("USN076" in {one["code"] for one in findings}) == (name == "passwd")
    here(*WEB, "--root", root)
    assert published(root) == ["passwd"]
    assert json_of("check", "--root", root)["findings"] == []
    here("release", "web", "--root", root)
    assert (root / "etc/passwd").read_text() == (root / "etc/group").read_text() == ""


@needs_root
def test_the_remedy_for_an_account_that_is_left_keeps_the_lines(tmp_path: Path) -> None:
    root = tmp_path / "host"
    (root / "etc").mkdir(parents=True)
    here("allocate", "--strategy", "per-container", "web", "--publish", "passwd", "--root", root)
    lines = (root / "etc/subuid").read_text()
    (root / LEDGER).unlink()
    [left] = [
        one for one in json_of("check", "--root", root)["findings"] if one["code"] == "USN078"
    ]
    subprocess.run(["sh", "-ec", left["hint"].removeprefix("remove it: ")], check=True)
    assert (root / "etc/passwd").read_text() == (root / "etc/group").read_text() == ""
    assert (root / "etc/subuid").read_text() == lines
