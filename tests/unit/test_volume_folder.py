"""The step that runs once for every inode: what is plain, what needs care, and whose an inode is afterwards."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.command import needs_root
from tests.unit.xattrs import PLAIN, USER, acl, v2
from usernsplan.volume import folder, syscalls
from usernsplan.volume.folder import has_attributes, reason, step
from usernsplan.volume.metadata import ACL_ACCESS, ACL_DEFAULT, CAPABILITY

LATER = 1 << 62
# With a mask, which is the mode's middle digit then.
ACL = acl(PLAIN[0], (USER, 4, 33), PLAIN[1], (0x10, 5, 0xFFFFFFFF), PLAIN[2])
FIRST, OTHER = (4711, 4712), (5000, 5001)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """An empty folder, in which this process stands."""
    before = os.getcwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


def me() -> tuple[int, int]:
    seen = os.stat(".")
    return (seen.st_uid, os.getegid() if not seen.st_mode & stat.S_ISGID else seen.st_gid)


def owner(name: str) -> tuple[int, int]:
    seen = os.lstat(name)
    return (seen.st_uid, seen.st_gid)


def make(*names: str, of: tuple[int, int] | None = None) -> None:
    for name in names:
        Path(name).touch()
        if of:
            os.lchown(name, *of)


def tick(moment: int) -> None:
    """Wait until an inode that is changed gets another ctime: the kernel's clock has steps of milliseconds."""
    clock = Path("clock")
    clock.touch()
    while clock.lstat().st_ctime_ns <= moment:
        clock.touch()
    clock.unlink()


def look(*names: str, seen_before: int = 0) -> folder.FolderListing:
    return at_names(names or sorted(os.listdir()), {}, seen_before=seen_before)


def pinned(name: str) -> int:
    return os.open(name, os.O_PATH | os.O_NOFOLLOW)


def at_names(
    names: Iterable[str],
    owners: dict[tuple[int, int], tuple[int, int]],
    *,
    alone: bool = True,
    seen_before: int = 0,
) -> folder.FolderListing:
    """A step in the current folder: alone in it, or with others who may exchange names meanwhile."""
    here = os.open(".", os.O_RDONLY)
    try:
        return step(here, names, owners, seen_before, None if alone else pinned)
    finally:
        os.close(here)


# Looking


@pytest.mark.usefixtures("here")
def test_what_has_one_link_and_nothing_special_is_plain_whatever_kind_it_is() -> None:
    Path("file").write_bytes(b"x")
    Path("executable").touch()
    Path("executable").chmod(0o1755)
    os.mkfifo("fifo")
    os.symlink("/nowhere", "dangling")
    os.symlink("folder", "to-folder")
    os.mkdir("folder")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    found = look()
    assert found.folders == ["folder"]
    assert {name for names in found.plain.values() for name in names} == {
        *("file", "executable", "fifo", "dangling", "to-folder", "socket")
    }
    assert list(found.plain) == [me()]
    assert (found.care, found.failures) == ([], [])


@pytest.mark.usefixtures("here")
def test_hard_links_and_setuid_and_setgid_files_need_care_and_say_what_was_seen() -> None:
    make("setuid", "setgid", "setgid-not-executable", "linked", "sticky")
    os.link("linked", "again")
    for name, mode in (
        ("setuid", 0o4755),
        ("setgid", 0o2755),
        ("setgid-not-executable", 0o2644),
        ("sticky", 0o1644),
    ):
        Path(name).chmod(mode)
    os.symlink("x", "symlink")
    os.link("symlink", "symlink-again", follow_symlinks=False)
    found = look()
    assert [name for name, _ in found.care] == [
        *(
            "again",
            "linked",
            "setgid",
            "setgid-not-executable",
            "setuid",
            "symlink",
            "symlink-again",
        )
    ]
    assert all(seen == os.lstat(name) for name, seen in found.care)
    assert found.plain == {me(): ["sticky"]}


@pytest.mark.usefixtures("here")
def test_folders_are_only_named_also_where_they_are_setgid() -> None:
    os.mkdir("a")
    os.mkdir("b")
    Path("b").chmod(0o7777)
    found = look()
    assert found == folder.FolderListing(folders=["a", "b"])


@needs_root
@pytest.mark.usefixtures("here")
def test_devices_and_whiteouts_need_care() -> None:
    os.mknod("null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod("whiteout", stat.S_IFCHR, os.makedev(0, 0))
    os.mknod("block", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    assert [name for name, _ in look().care] == ["block", "null", "whiteout"]


@needs_root
@pytest.mark.parametrize(("attribute", "value"), [(ACL_ACCESS, ACL), (CAPABILITY, v2())])
@pytest.mark.usefixtures("here")
def test_an_acl_or_a_capability_needs_care_and_other_attributes_do_not(
    attribute: str, value: bytes
) -> None:
    make("has", "has-another", "has-both", "has-none")
    for name in ("has", "has-both"):
        os.setxattr(name, attribute, value)
    for name in ("has-another", "has-both"):
        os.setxattr(name, "user.usernsplan", b"x")
        os.setxattr(name, "trusted.usernsplan", b"x")
    found = look()
    assert [name for name, _ in found.care] == ["has", "has-both"]
    assert found.plain == {me(): ["has-another", "has-none"]}
    assert [has_attributes(name) for name in ("has", "has-another", "has-both", "has-none")] == [
        *(True, False, True, False)
    ]


@needs_root
@pytest.mark.usefixtures("here")
def test_a_default_acl_is_an_attribute_of_its_folder() -> None:
    os.mkdir("below")
    assert has_attributes("below") is False
    os.setxattr("below", ACL_DEFAULT, ACL)
    assert has_attributes("below") is True
    os.chdir("below")
    assert has_attributes(".") is True
    # What is made there gets it as its own.
    make("child")
    assert [name for name, _ in look().care] == ["child"]


@needs_root
@pytest.mark.usefixtures("here")
def test_what_has_not_changed_since_it_was_seen_is_not_asked_for_attributes_again() -> None:
    make("old")
    os.setxattr("old", ACL_ACCESS, ACL)
    Path("old").chmod(0o644)
    changed = os.lstat("old").st_ctime_ns
    assert look(seen_before=changed).care
    assert look(seen_before=changed - 1).care
    assert look(seen_before=changed + 1).plain == {me(): ["old"]}
    assert look(seen_before=LATER).care == []
    tick(changed)
    Path("old").chmod(0o600)
    assert look(seen_before=changed + 1).care


@pytest.mark.usefixtures("here")
def test_a_setuid_bit_and_a_second_link_are_seen_however_long_they_have_been_there() -> None:
    make("setuid", "linked")
    Path("setuid").chmod(0o4755)
    os.link("linked", "again")
    assert [name for name, _ in look(seen_before=LATER).care] == ["again", "linked", "setuid"]


@pytest.mark.usefixtures("here")
def test_what_is_gone_is_nobody_s_and_the_rest_is_done() -> None:
    make("a", "b")
    assert look("a", "gone", "b") == folder.FolderListing(plain={me(): ["a", "b"]})


@pytest.mark.usefixtures("here")
def test_an_entry_that_cannot_be_looked_at_is_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make("bad", "good", "worse")
    real = os.lstat

    def failing(name: str) -> os.stat_result:
        if name in {"bad", "worse"}:
            code = errno.EIO if name == "bad" else errno.EOVERFLOW
            raise OSError(code, os.strerror(code))
        return real(name)

    monkeypatch.setattr(os, "lstat", failing)
    found = look()
    assert found.plain == {me(): ["good"]}
    assert found.failures == [
        ("bad", "input/output error"),
        ("worse", "its owner has no id on this mount, which is idmapped"),
    ]


@pytest.mark.usefixtures("here")
def test_a_file_system_without_attributes_has_none_and_another_error_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make("a")
    codes = [errno.ENOTSUP, errno.EIO]

    def failing(*_: object, **__: object) -> list[str]:
        code = codes.pop(0)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "listxattr", failing)
    assert look().plain == {me(): ["a"]}
    assert look().failures == [("a", "input/output error")]


@pytest.mark.usefixtures("here")
def test_names_of_any_bytes_are_looked_at() -> None:
    names = sorted(["a\nb", "\udcff", " ", "-", "ü", "n" * 255])
    make(*names)
    assert sorted(look().plain[me()]) == names


# Standing


def test_the_process_goes_and_stands_in_the_folder_and_names_are_looked_up_in_it_alone(
    here: Path,
) -> None:
    for name in ("one", "two"):
        (here / name).mkdir()
    make("one/a", "two/a", "two/b")
    descriptor = os.open("one", os.O_RDONLY)
    (here / "one").rename(here / "moved")
    (here / "two").rename(here / "one")
    found = step(descriptor, ["a", "b"], {}, 0)
    assert Path.cwd() == here / "moved"
    assert found.plain == {me(): ["a"]}
    os.close(descriptor)


@needs_root
@pytest.mark.usefixtures("here")
def test_what_cannot_be_pinned_is_a_failure_with_the_reason() -> None:
    make("a", "mounted", "z", of=FIRST)

    def pin(name: str) -> int:
        if name == "mounted":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return pinned(name)

    here = os.open(".", os.O_RDONLY)
    found = step(here, ["a", "mounted", "z"], {FIRST: OTHER}, 0, pin)
    os.close(here)
    assert found == folder.FolderListing(
        plain={FIRST: ["a", "z"]}, failures=[("mounted", "it is a mount point")]
    )
    assert [owner(name) for name in ("a", "mounted", "z")] == [OTHER, FIRST, OTHER]


# Changing


@needs_root
@pytest.mark.parametrize("alone", [True, False])
def test_each_plain_entry_of_a_known_owner_gets_its_new_one(here: Path, alone: bool) -> None:
    make("first", "second", of=FIRST)
    make("group", of=(FIRST[0], 1))
    make("right", of=OTHER)
    os.symlink("outside", "symlink")
    os.lchown("symlink", *FIRST)
    make(str(here.parent / "untouched"), of=FIRST)
    os.symlink(here.parent / "untouched", "leads-out")
    os.lchown("leads-out", *FIRST)
    os.mkdir("folder")
    os.chown("folder", *FIRST)
    make("setuid", of=FIRST)
    Path("setuid").chmod(0o4755)
    before = {name: os.lstat(name) for name in os.listdir()}
    found = at_names(sorted(before), {FIRST: OTHER, OTHER: OTHER}, alone=alone)
    assert found.plain == {
        FIRST: ["first", "leads-out", "second", "symlink"],
        (FIRST[0], 1): ["group"],
        OTHER: ["right"],
    }
    assert (found.folders, [name for name, _ in found.care], found.failures) == (
        ["folder"],
        ["setuid"],
        [],
    )
    assert {name: owner(name) for name in before} == {
        **dict.fromkeys(("first", "second", "symlink", "leads-out", "right"), OTHER),
        "group": (FIRST[0], 1),
        **dict.fromkeys(("folder", "setuid"), FIRST),
    }
    assert owner(str(here.parent / "untouched")) == FIRST
    # An owner that is right already is not written once more.
    assert all(os.lstat(name) == before[name] for name in ("right", "group", "folder", "setuid"))
    again = at_names(sorted(before), {FIRST: OTHER}, alone=alone)
    assert again.plain.keys() == {OTHER, (FIRST[0], 1)}


@pytest.mark.parametrize("alone", [True, False])
def test_anybody_may_give_his_own_to_himself_and_it_changes_nothing(
    here: Path, alone: bool
) -> None:
    assert here.is_dir()
    make("mine")
    before = os.lstat("mine")
    assert at_names(["mine"], {me(): me()}, alone=alone).plain == {me(): ["mine"]}
    assert os.lstat("mine") == before
    assert os.lstat("mine").st_ctime_ns == before.st_ctime_ns


@needs_root
@pytest.mark.usefixtures("here")
def test_each_owner_has_its_own_new_one_and_a_chain_is_followed_once() -> None:
    make("a", of=(1, 1))
    make("b", of=(2, 2))
    make("c", of=(3, 3))
    at_names(["a", "b", "c"], {(1, 1): (2, 2), (2, 2): (3, 3), (3, 3): (1, 1)})
    assert [owner(name) for name in "abc"] == [(2, 2), (3, 3), (1, 1)]


def exchanged_meanwhile(monkeypatch: pytest.MonkeyPatch, exchange: dict[str, str]) -> None:
    """Between the look and the change, each name gets what lay at another."""
    real = folder._give_pinned

    def give(
        pin: Callable[[str], int], name: str, seen: os.stat_result, new: tuple[int, int]
    ) -> bool:
        if name in exchange:
            os.replace(exchange[name], name)
        return real(pin, name, seen, new)

    monkeypatch.setattr(folder, "_give_pinned", give)


@needs_root
def test_an_inode_that_got_the_name_meanwhile_is_left_alone(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = str(here.parent / "secret")
    make("a", "link", "twin", "whole", of=FIRST)
    make(secret, "same-owner", of=FIRST)
    os.link(secret, "prepared")
    os.symlink(secret, "prepared-link")
    os.lchown("prepared-link", *FIRST)
    exchanged_meanwhile(
        monkeypatch, {"a": "prepared", "link": "prepared-link", "twin": "same-owner"}
    )
    found = at_names(["a", "link", "twin", "whole"], {FIRST: OTHER}, alone=False)
    assert [name for name, _ in found.care] == ["a", "link", "twin"]
    assert found.plain == {FIRST: ["whole"]}
    assert [owner(name) for name in ("a", "link", "twin", "whole", secret)] == [
        FIRST,
        FIRST,
        FIRST,
        OTHER,
        FIRST,
    ]


@needs_root
@pytest.mark.parametrize("what", ["mode", "link", "owner", "capability", "content"])
@pytest.mark.usefixtures("here")
def test_the_same_inode_is_left_alone_where_it_changed_meanwhile(what: str) -> None:
    make("a", of=FIRST)
    seen = os.lstat("a")
    tick(seen.st_ctime_ns)
    match what:
        case "mode":
            Path("a").chmod(0o4755)
        case "link":
            os.link("a", "b")
        case "owner":
            os.chown("a", 1, 1)
        case "capability":
            os.setxattr("a", CAPABILITY, v2())
        case "content":
            Path("a").write_bytes(b"x")
    before = os.lstat("a")
    assert folder._give_pinned(pinned, "a", seen, OTHER) is False
    assert os.lstat("a") == before
    assert os.lstat("a").st_ctime_ns == before.st_ctime_ns


@needs_root
@pytest.mark.usefixtures("here")
def test_what_is_gone_before_it_can_be_changed_is_no_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make("a", "b", of=FIRST)
    real = folder._give_pinned

    def give(
        pin: Callable[[str], int], name: str, seen: os.stat_result, new: tuple[int, int]
    ) -> bool:
        if name == "a":
            os.unlink(name)
        return real(pin, name, seen, new)

    monkeypatch.setattr(folder, "_give_pinned", give)
    assert at_names(["a", "b"], {FIRST: OTHER}, alone=False) == folder.FolderListing(
        plain={FIRST: ["b"]}
    )
    assert owner("b") == OTHER


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.usefixtures("here")
def test_a_change_that_is_refused_is_named_and_the_rest_is_done(
    alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("a", "b", "c")
    given: list[object] = []

    def refusing(thing: object, *_: object) -> None:
        given.append(thing)
        if len(given) == 2:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "lchown", refusing)
    monkeypatch.setattr(syscalls, "chown_pinned", refusing)
    found = at_names(["a", "b", "c"], {me(): OTHER}, alone=alone)
    assert found.plain == {me(): ["a", "c"]}
    assert found.failures == [("b", "read-only file system")]
    assert len(given) == 3


@needs_root
@pytest.mark.usefixtures("here")
def test_pinning_leaks_no_descriptor() -> None:
    make("a", "b", of=FIRST)
    before = os.listdir("/proc/self/fd")
    at_names(["a", "b", "gone"], {FIRST: OTHER}, alone=False)
    assert folder._give_pinned(pinned, "a", os.lstat("b"), FIRST) is False
    assert os.listdir("/proc/self/fd") == before


# Reasons


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.EROFS, "read-only file system"),
        (errno.EPERM, "operation not permitted"),
        (errno.EOVERFLOW, "its owner has no id on this mount, which is idmapped"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_reason_is_told_in_words(code: int, said: str) -> None:
    make("a")
    assert reason(OSError(code, os.strerror(code)), "a") == said
    assert reason(OSError(code, os.strerror(code))) == said
    assert reason(OSError("odd")) == "odd"
