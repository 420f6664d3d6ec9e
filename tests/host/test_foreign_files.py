"""Files of others (images, bundles, plan files) and engine output cannot block or mislead us."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.command import files_of, here
from usernsplan.errors import InvalidFileError, RefusedError
from usernsplan.formats import inspect
from usernsplan.host import files, programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USERS = "root:x:0:0::/:\nwww:x:33:33::/:\n"


def _socket(path: Path) -> None:
    # bind(2) takes an address of at most 107 bytes.
    os.mknod(path, stat.S_IFSOCK | 0o600)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(files.LARGEST + 1)


KINDS: dict[str, Callable[[Path], None]] = {
    "fifo": os.mkfifo,
    "socket": _socket,
    "folder": Path.mkdir,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "huge": _huge,
}


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """A refusal comes at once."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    (made / "etc").mkdir(parents=True)
    for name in ("subuid", "subgid"):
        (made / "etc" / name).touch()
    here("allocate", "--strategy", "per-container", "web", "--engine", "oci", "--root", made)
    return made


@pytest.fixture
def image(tmp_path: Path) -> Path:
    made = tmp_path / "image"
    (made / "etc").mkdir(parents=True)
    (made / "etc/passwd").write_text(USERS)
    (made / "etc/group").write_text("www:x:44:\n")
    return made


@pytest.mark.spread(5)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["passwd", "group"])
@pytest.mark.parametrize("place", ["etc", "elsewhere"])
def test_an_image_has_regular_files(
    root: Path, image: Path, place: str, name: str, kind: str
) -> None:
    (image / "etc").rename(image / place)
    (image / place / name).unlink()
    KINDS[kind](image / place / name)
    before = files_of(root)
    (root / "srv/web").mkdir(parents=True)
    for words in (
        ("whois", "--container", "web", "www"),
        ("check",),
        ("fix-volume", root / "srv/web", "--container", "web", "--user", "www", "--dry-run"),
    ):
        # Below etc, /dev/zero belongs to the image, which has none.
        is_none = (kind, place) == ("endless", "etc")
        refused = (
            None if is_none and name == "group" else 9 if kind == "endless" and not is_none else 2
        )
        _, err = here(*words, "--passwd", image / place / "passwd", "--root", root, status=refused)
        assert is_none or f"{image}/{place}/{name}" in err
    assert files_of(root) == before


def test_a_symlink_of_an_image_leads_where_it_leads_in_the_image(
    root: Path, image: Path, tmp_path: Path
) -> None:
    (tmp_path / "passwd").write_text("www:x:1000:1000::/:\n")
    (image / "usr").mkdir()
    (image / "etc/passwd").rename(image / "usr/passwd")
    words = ("whois", "--container", "web", "www", "--root", root, "--passwd")
    for target in ("/usr/passwd", "../usr/passwd", "../../../../usr/passwd"):
        (image / "etc/passwd").unlink(missing_ok=True)
        (image / "etc/passwd").symlink_to(target)
        assert "uid 33 -> host uid 589857" in here(*words, image / "etc/passwd")[0]
    # A file that exists only outside does not exist for the image.
    for target in (str(tmp_path / "passwd"), "../../passwd"):
        (image / "etc/passwd").unlink()
        (image / "etc/passwd").symlink_to(target)
        out, err = here(*words, image / "etc/passwd", status=2)
        assert (out, "no such file" in err) == ("", True)
    # Without a tree around it, the root of the image is unknown.
    (tmp_path / "link").symlink_to("passwd")
    assert "is a symlink" in here(*words, tmp_path / "link", status=9)[1]
    (tmp_path / "group").symlink_to("/etc/group")
    assert "group is a symlink" in here(*words, tmp_path / "passwd", status=9)[1]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", [*KINDS, "symlink", "outside"])
def test_a_bundle_has_a_regular_file(root: Path, tmp_path: Path, kind: str) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (tmp_path / "config.json").write_text(
        json.dumps({"ociVersion": "1.0.2", "root": {"path": "rootfs"}})
    )
    links = {"symlink": "../config.json", "outside": str(tmp_path / "config.json")}
    if kind in KINDS:
        KINDS[kind](bundle / "config.json")
    else:
        (bundle / "config.json").symlink_to(links[kind])
    before = files_of(tmp_path)
    for more in ((), ("--dry-run",), ("--json",)):
        out, err = here("render", "oci", "web", "--bundle", bundle, *more, "--root", root, status=9)
        assert f"{bundle}/config.json" in err
        # With --json, the error is a document; without, it is nothing that an engine would accept.
        assert bool(out) == ("--json" in more)
    assert {name: one[2] for name, one in files_of(tmp_path).items()} == {
        n: one[2] for n, one in before.items()
    }


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_file_is_a_regular_file(root: Path, tmp_path: Path, kind: str) -> None:
    KINDS[kind](tmp_path / "plan.yaml")
    before = files_of(root)
    for words in (("plan",), ("apply", "--yes"), ("apply", "--yes", "--plan")):
        _, err = here(*words, tmp_path / "plan.yaml", "--root", root, status=2)
        assert f"{tmp_path}/plan.yaml" in err
    assert files_of(root) == before


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", sorted({*KINDS} - {"huge"}))
@pytest.mark.parametrize("name", ["passwd", "login.defs", "nsswitch.conf"])
def test_a_file_of_a_root_that_is_none_is_no_wait(root: Path, name: str, kind: str) -> None:
    KINDS[kind](root / "etc" / name)
    here("plan", "/dev/null", "--root", root, status=None)
    here("map", "--root", root, status=None)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", ["fifo", "socket", "folder"])
def test_a_lock_of_a_root_that_is_none_is_no_wait(root: Path, kind: str) -> None:
    (root / "etc/.pwd.lock").unlink()
    KINDS[kind](root / "etc/.pwd.lock")
    before = files_of(root)
    _, err = here("allocate", "--strategy", "per-container", "db", "--root", root, status=None)
    assert ".pwd.lock" in err
    assert files_of(root) == before


def test_a_pipe_whose_writer_is_silent_is_no_wait(root: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = os.open(tmp_path / "pipe", os.O_RDWR)
    for said in (b"", b"strategy: shared\n"):
        os.write(writer, said)
        assert "no process writes" in here("plan", tmp_path / "pipe", "--root", root, status=2)[1]
    os.close(writer)


def test_what_an_engine_prints_ends() -> None:
    assert programs.output(("sh", "-c", "echo out; echo err >&2; exit 3")) == (3, "out\n", "err\n")
    for words in ("cat /dev/zero", "cat /dev/zero >&2", "trap '' TERM; yes"):
        with pytest.raises(RefusedError, match="more than"):
            programs.output(("sh", "-c", words))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "[" * 100_000,
            '{"a":' * 100_000,
            "[1e999]",
            "[null]",
            "{}x",
            "",
            "\0",
            "[[]]",
            '[{"Name": 1, "Mounts": 1}]',
        ),
        '[{"Name": "a", "State": {"Pid": 1e999}}]',
        '[{"Name": "a", "State": {"Pid": "x"}}]',
        '[{"Name": "a", "Mounts": [{"Type": "bind", "Source": "etc"}]}]',
        '[{"Name": "a", "HostConfig": {"IDMappings": {"UidMap": ["0:0"], "GidMap": ["1:2:3"]}}}]',
    ],
)
def test_what_no_engine_prints_is_said(text: str) -> None:
    with pytest.raises(InvalidFileError):
        inspect.parse(text, "podman")
