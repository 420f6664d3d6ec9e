"""The step that runs once for every inode: what is plain, what needs care, and whose an inode is afterwards.

Up to "The step in Python", the tests hold the contract: they know nothing of how it is met, and run for each of STEPS.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.command import missing, needs_root
from tests.unit.xattrs import PLAIN, USER, acl, v2
from usernsplan.ids import EVERY_ID, IdRange, IdSet
from usernsplan.volume import compiled, syscalls
from usernsplan.volume.folder import (
    BY_NAME,
    FolderListing,
    StepOptions,
    has_attributes,
    packed,
    reason,
    step_in_python,
)
from usernsplan.volume.metadata import ACL_ACCESS, ACL_DEFAULT, CAPABILITY

Owner = tuple[int, int]
Step = Callable[[int, Sequence[str], StepOptions], FolderListing]


def step_in_c(where: int, names: Sequence[str], options: StepOptions) -> FolderListing:
    if compiled.step is None:
        missing("the compiled step")
    return FolderListing(*compiled.step(where, names, options))


# All that keep the contract.
STEPS: tuple[Step, ...] = (step_in_python, step_in_c)
OPEN = 0
OPENAT2 = syscalls.BENEATH | syscalls.NO_SYMLINKS | syscalls.NO_MAGICLINKS | syscalls.NO_XDEV
# No kernel knows this rule: openat2(2) answers EINVAL.
NO_SUCH_RULE = 1 << 60

each_pinning = pytest.mark.parametrize(
    "pinning", [BY_NAME, OPEN, OPENAT2], ids=["by-name", "open", "openat2"]
)
LATER = 1 << 62
# With a mask, which is the mode's middle digit then.
ACL = acl(PLAIN[0], (USER, 4, 33), PLAIN[1], (0x10, 5, 0xFFFFFFFF), PLAIN[2])
FIRST, OTHER = (4711, 4712), (5000, 5001)
# The largest ids.
TOP = (4_294_967_294, 4_294_967_294)


@dataclass(frozen=True)
class Stepper:
    """One implementation, in the current folder."""

    step: Step

    def look(
        self, *names: str, seen_before: int = 0, search: bool = False, threads: int = 1
    ) -> FolderListing:
        every = packed(EVERY_ID)
        options = StepOptions(
            (), seen_before, search=search, uids=every, gids=every, threads=threads
        )
        return self.taken(names or sorted(os.listdir()), options)

    def give(
        self, names: Iterable[str], owners: dict[Owner, Owner], pinning: int = BY_NAME
    ) -> FolderListing:
        return self.taken([*names], StepOptions((*owners.items(),), pinning=pinning))

    def taken(self, names: Sequence[str], options: StepOptions) -> FolderListing:
        here = os.open(".", os.O_RDONLY)
        try:
            return self.step(here, names, options)
        finally:
            os.close(here)


@pytest.fixture(params=STEPS, ids=lambda one: str(one.__name__))
def one(request: pytest.FixtureRequest) -> Stepper:
    """Each implementation in turn."""
    return Stepper(request.param)


@pytest.fixture(autouse=True)
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


# Looking


def test_what_has_one_link_and_nothing_special_is_plain_whatever_kind_it_is(one: Stepper) -> None:
    Path("file").write_bytes(b"x")
    Path("executable").touch()
    Path("executable").chmod(0o1755)
    os.mkfifo("fifo")
    os.symlink("/nowhere", "dangling")
    os.symlink("folder", "to-folder")
    os.mkdir("folder")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    found = one.look()
    assert found.folders == ["folder"]
    assert {name for names in found.plain.values() for name in names} == {
        *("file", "executable", "fifo", "dangling", "to-folder", "socket")
    }
    assert list(found.plain) == [me()]
    assert (found.care, found.failures) == ([], [])


def test_hard_links_and_setuid_and_setgid_files_need_care(one: Stepper) -> None:
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
    found = one.look()
    assert found.care == [
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
    assert found.plain == {me(): ["sticky"]}


def test_folders_are_only_named_also_where_they_are_setgid(one: Stepper) -> None:
    os.mkdir("a")
    os.mkdir("b")
    Path("b").chmod(0o7777)
    found = one.look()
    assert found == FolderListing(folders=["a", "b"])


@needs_root
def test_devices_and_whiteouts_need_care(one: Stepper) -> None:
    os.mknod("null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod("whiteout", stat.S_IFCHR, os.makedev(0, 0))
    os.mknod("block", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    assert one.look().care == ["block", "null", "whiteout"]


@needs_root
@pytest.mark.parametrize(("attribute", "value"), [(ACL_ACCESS, ACL), (CAPABILITY, v2())])
def test_an_acl_or_a_capability_needs_care_and_other_attributes_do_not(
    one: Stepper, attribute: str, value: bytes
) -> None:
    make("has", "has-another", "has-both", "has-none")
    for name in ("has", "has-both"):
        os.setxattr(name, attribute, value)
    for name in ("has-another", "has-both"):
        os.setxattr(name, "user.usernsplan", b"x")
        os.setxattr(name, "trusted.usernsplan", b"x")
    found = one.look()
    assert found.care == ["has", "has-both"]
    assert found.plain == {me(): ["has-another", "has-none"]}
    assert [has_attributes(name) for name in ("has", "has-another", "has-both", "has-none")] == [
        *(True, False, True, False)
    ]


@needs_root
def test_a_default_acl_is_an_attribute_of_its_folder(one: Stepper) -> None:
    os.mkdir("below")
    assert has_attributes("below") is False
    os.setxattr("below", ACL_DEFAULT, ACL)
    assert has_attributes("below") is True
    os.chdir("below")
    assert has_attributes(".") is True
    # What is made there gets it as its own.
    make("child")
    assert one.look().care == ["child"]


@needs_root
def test_what_has_not_changed_since_it_was_seen_is_not_asked_for_attributes_again(
    one: Stepper,
) -> None:
    make("old")
    os.setxattr("old", ACL_ACCESS, ACL)
    Path("old").chmod(0o644)
    changed = os.lstat("old").st_ctime_ns
    assert one.look(seen_before=changed).care
    assert one.look(seen_before=changed - 1).care
    assert one.look(seen_before=changed + 1).plain == {me(): ["old"]}
    assert one.look(seen_before=LATER).care == []
    tick(changed)
    Path("old").chmod(0o600)
    assert one.look(seen_before=changed + 1).care


def test_a_setuid_bit_and_a_second_link_are_seen_however_long_they_have_been_there(
    one: Stepper,
) -> None:
    make("setuid", "linked")
    Path("setuid").chmod(0o4755)
    os.link("linked", "again")
    assert one.look(seen_before=LATER).care == ["again", "linked", "setuid"]


def test_what_is_gone_is_nobody_s_and_the_rest_is_done(one: Stepper) -> None:
    make("a", "b")
    assert one.look("a", "gone", "b") == FolderListing(plain={me(): ["a", "b"]})


def test_names_of_any_bytes_are_looked_at(one: Stepper) -> None:
    names = sorted(["a\nb", "\udcff", " ", "-", "ü", "n" * 255])
    make(*names)
    assert sorted(one.look().plain[me()]) == names


def test_an_entry_that_cannot_be_looked_at_is_named_with_the_error(one: Stepper) -> None:
    make("a", "b")
    too_long = "n" * 256
    found = one.look("a", too_long, "b")
    assert found == FolderListing(
        plain={me(): ["a", "b"]}, failures=[(too_long, errno.ENAMETOOLONG)]
    )
    assert found.reasons() == [(too_long, "file name too long")]


# Searching


@needs_root
def test_a_search_tells_every_owner_and_only_attributes_need_care(one: Stepper) -> None:
    make("file", "linked", "setuid", "acl", "capable", of=FIRST)
    os.link("linked", "again")
    Path("setuid").chmod(0o6755)
    os.mknod("device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod("whiteout", stat.S_IFCHR, os.makedev(0, 0))
    os.symlink("/nowhere", "symlink")
    for name in ("device", "whiteout", "symlink"):
        os.lchown(name, *OTHER)
    os.setxattr("acl", ACL_ACCESS, ACL)
    os.setxattr("capable", CAPABILITY, v2())
    before = {name: os.lstat(name) for name in os.listdir()}
    found = one.look(search=True)
    assert found == FolderListing(
        plain={
            FIRST: ["again", "file", "linked", "setuid"],
            OTHER: ["device", "symlink", "whiteout"],
        },
        care=["acl", "capable"],
    )
    assert {name: os.lstat(name) for name in before} == before


@needs_root
def test_a_search_looks_at_sub_folders_like_at_other_entries(one: Stepper) -> None:
    for name in ("a", "b", "default-acl"):
        os.mkdir(name)
        os.chown(name, *FIRST)
    Path("b").chmod(0o7777)
    os.setxattr("default-acl", ACL_DEFAULT, ACL)
    make("file", of=FIRST)
    assert one.look(search=True) == FolderListing(
        folders=["a", "b", "default-acl"],
        plain={FIRST: ["a", "b", "file"]},
        care=["default-acl"],
    )
    assert one.look() == FolderListing(folders=["a", "b", "default-acl"], plain={FIRST: ["file"]})


@needs_root
def test_a_search_names_only_what_has_an_id_that_is_searched_for(one: Stepper) -> None:
    owners = {"uid": (20, 1), "gid": (1, 49), "both": (10, 40), "neither": (40, 10)}
    edges = {"below": (9, 1), "first": (10, 1), "last": (12, 1), "above": (13, 1), "top": TOP}
    for name, of in (owners | edges).items():
        make(name, of=of)
    os.mkdir("folder")
    os.setxattr("neither", ACL_ACCESS, ACL)
    uids = IdSet((IdRange(10, 3), IdRange(20, 1), IdRange(TOP[0], 1)))

    options = StepOptions(search=True, uids=packed(uids), gids=packed(IdSet((IdRange(40, 10),))))
    assert one.taken(sorted(os.listdir()), options) == FolderListing(
        folders=["folder"],
        plain={TOP: ["top"]}
        | {(owners | edges)[n]: [n] for n in ("uid", "gid", "both", "first", "last")},
        care=["neither"],
    )
    assert one.taken(["uid", "folder"], StepOptions(search=True)) == FolderListing(
        folders=["folder"]
    )


# Standing


def test_the_process_goes_and_stands_in_the_folder_and_names_are_looked_up_in_it_alone(
    one: Stepper,
    here: Path,
) -> None:
    for name in ("one", "two"):
        (here / name).mkdir()
    make("one/a", "two/a", "two/b")
    descriptor = os.open("one", os.O_RDONLY)
    (here / "one").rename(here / "moved")
    (here / "two").rename(here / "one")
    found = one.step(descriptor, ["a", "b"], StepOptions())
    assert Path.cwd() == here / "moved"
    assert found.plain == {me(): ["a"]}
    os.close(descriptor)


def test_where_the_process_cannot_go_nothing_is_looked_at(one: Stepper) -> None:
    make("a")
    file = os.open("a", os.O_RDONLY)
    try:
        with pytest.raises(NotADirectoryError):
            one.step(file, ["a"], StepOptions())
    finally:
        os.close(file)


# Changing


@needs_root
@each_pinning
def test_each_plain_entry_of_a_known_owner_gets_its_new_one(
    one: Stepper, here: Path, pinning: int
) -> None:
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
    found = one.give(sorted(before), {FIRST: OTHER, OTHER: OTHER}, pinning)
    assert found.plain == {
        FIRST: ["first", "leads-out", "second", "symlink"],
        (FIRST[0], 1): ["group"],
        OTHER: ["right"],
    }
    assert (found.folders, found.care, found.failures) == (
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
    again = one.give(sorted(before), {FIRST: OTHER}, pinning)
    assert again.plain.keys() == {OTHER, (FIRST[0], 1)}


@each_pinning
def test_anybody_may_give_their_own_to_themselves_and_it_changes_nothing(
    one: Stepper, here: Path, pinning: int
) -> None:
    assert here.is_dir()
    make("mine")
    before = os.lstat("mine")
    assert one.give(["mine"], {me(): me()}, pinning).plain == {me(): ["mine"]}
    assert os.lstat("mine") == before
    assert os.lstat("mine").st_ctime_ns == before.st_ctime_ns


@needs_root
def test_each_owner_has_its_own_new_one_and_a_chain_is_followed_once(one: Stepper) -> None:
    make("a", of=(1, 1))
    make("b", of=(2, 2))
    make("c", of=(3, 3))
    one.give(["a", "b", "c"], {(1, 1): (2, 2), (2, 2): (3, 3), (3, 3): (1, 1)})
    assert [owner(name) for name in "abc"] == [(2, 2), (3, 3), (1, 1)]


@needs_root
@each_pinning
def test_ids_have_32_bits(one: Stepper, pinning: int) -> None:
    large = (4_294_967_294, 3_000_000_000)
    make("a", of=FIRST)
    assert one.give(["a"], {FIRST: large}, pinning).plain == {FIRST: ["a"]}
    assert owner("a") == large
    assert one.give(["a"], {large: FIRST}, pinning).plain == {large: ["a"]}
    assert owner("a") == FIRST


@needs_root
@each_pinning
def test_an_acl_or_a_capability_needs_care_also_of_a_pinned_inode(
    one: Stepper, pinning: int
) -> None:
    make("acl", "capable", "other", "none", of=FIRST)
    os.setxattr("acl", ACL_ACCESS, ACL)
    os.setxattr("capable", CAPABILITY, v2())
    # More than the step has room for at first.
    for number in range(40):
        os.setxattr("other", f"trusted.usernsplan-{number:020}", b"x")
    found = one.give(["acl", "capable", "none", "other"], {FIRST: OTHER}, pinning)
    assert found == FolderListing(plain={FIRST: ["none", "other"]}, care=["acl", "capable"])


@needs_root
@each_pinning
def test_what_changed_after_a_moment_needs_care_and_is_not_changed(
    one: Stepper, pinning: int
) -> None:
    make("settled", of=FIRST)
    moment = os.lstat("settled").st_ctime_ns
    tick(moment)
    make("later", "right", of=FIRST)
    os.chown("right", *OTHER)
    os.mkdir("folder")
    options = StepOptions(((FIRST, OTHER),), pinning=pinning, until=moment)
    assert one.taken(["later", "settled", "right", "folder"], options) == FolderListing(
        folders=["folder"], plain={FIRST: ["settled"]}, care=["later", "right"]
    )
    assert [owner(name) for name in ("later", "settled")] == [FIRST, OTHER]
    # A preview changes nothing, and finds the same.
    assert one.taken(["later"], StepOptions(until=moment)).care == ["later"]
    assert one.taken(["later"], StepOptions(until=os.lstat("later").st_ctime_ns)).care == []


@needs_root
def test_what_cannot_be_pinned_is_a_failure_and_the_rest_is_done(one: Stepper) -> None:
    make("a", "c", of=FIRST)
    found = one.give(["a", "gone", "c"], {FIRST: OTHER}, NO_SUCH_RULE)
    assert found == FolderListing(failures=[(name, errno.EINVAL) for name in ("a", "gone", "c")])
    assert [owner(name) for name in "ac"] == [FIRST, FIRST]


@needs_root
@each_pinning
def test_a_change_that_is_refused_is_named_and_the_rest_is_done(
    one: Stepper, here: Path, pinning: int
) -> None:
    (user, group), strange = FIRST, (OTHER[0], FIRST[1])
    make("a", "c", of=FIRST)
    make("b", of=strange)
    owners = {FIRST: (user, 77), strange: (strange[0], 77)}
    here.chmod(0o755)
    # A user may give what they own to a group of theirs, and nothing else.
    os.setegid(77)
    os.seteuid(user)
    try:
        found = one.give(["a", "b", "c"], owners, pinning)
    finally:
        os.seteuid(0)
        os.setegid(0)
    assert found == FolderListing(plain={(user, group): ["a", "c"]}, failures=[("b", errno.EPERM)])
    assert [owner(name) for name in "abc"] == [(user, 77), strange, (user, 77)]


@needs_root
@pytest.mark.parametrize("pinning", [OPEN, OPENAT2], ids=["open", "openat2"])
def test_whoever_exchanges_names_meanwhile_gets_nothing_of_others(
    one: Stepper, here: Path, pinning: int
) -> None:
    """Changed by name, the secret nearly always gets another owner in so many steps."""
    secret = str(here.parent / "secret")
    make("a", of=FIRST)
    make(secret, of=(1, 1))
    os.link(secret, "prepared")
    descriptors = os.listdir("/proc/self/fd")
    storm = (
        "from usernsplan.volume import syscalls\n"
        "print(flush=True)\n"
        "while True: syscalls.exchange(syscalls.HERE, 'a', 'prepared')"
    )
    exchanged = 0
    with subprocess.Popen([sys.executable, "-c", storm], stdout=subprocess.PIPE) as attacker:
        assert attacker.stdout
        attacker.stdout.readline()
        try:
            for _ in range(1000):
                found = one.give(["a"] * 100, {FIRST: OTHER, OTHER: FIRST}, pinning)
                exchanged += len(found.care)
                assert not found.failures
        finally:
            attacker.kill()
    assert exchanged
    assert owner(secret) == (1, 1)
    assert os.listdir("/proc/self/fd") == descriptors


@needs_root
@each_pinning
def test_threads_share_many_names_and_the_lists_keep_the_order(one: Stepper, pinning: int) -> None:
    names = [f"{number:04}" for number in range(3500)]
    folders, care, gone = names[3::7], names[5::7], names[6::7]
    for name in folders:
        os.mkdir(name)
    make(*care, of=FIRST)
    for name in care:
        os.chmod(name, 0o4700)
    plain = [name for name in names if not {name} & {*folders, *care, *gone}]
    make(*plain[::2], of=FIRST)
    make(*plain[1::2], of=OTHER)

    options = StepOptions(((FIRST, OTHER),), pinning=pinning, threads=3)
    found = one.taken(names, options)
    assert (found.folders, found.care, found.failures) == (folders, care, [])
    assert found.plain == {FIRST: plain[::2], OTHER: plain[1::2]}
    assert {owner(name) for name in plain} == {OTHER}
    assert {owner(name) for name in care} == {FIRST}


@pytest.mark.parametrize(("search", "threads"), [(False, 1), (True, 1), (False, 3)])
def test_a_signals_handler_may_stop_it(one: Stepper, search: bool, threads: int) -> None:
    make("a")

    class StoppedError(Exception):
        pass

    def stop(*_: object) -> None:
        raise StoppedError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.02)
    try:
        with pytest.raises(StoppedError):
            one.look(*["a"] * 1_000_000, search=search, threads=threads)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


# The step in Python


def test_a_file_system_without_attributes_has_none_and_another_error_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make("a")
    codes = [errno.ENOTSUP, errno.EIO]

    def failing(*_: object, **__: object) -> list[str]:
        code = codes.pop(0)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "listxattr", failing)
    assert Stepper(step_in_python).look().plain == {me(): ["a"]}
    assert Stepper(step_in_python).look().failures == [("a", errno.EIO)]


# Reasons


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.EROFS, "read-only file system"),
        (errno.EPERM, "operation not permitted"),
        (errno.EXDEV, "it is a mount point"),
        (errno.EOVERFLOW, "its owner has no id on this mount, which is idmapped"),
    ],
)
def test_a_reason_is_told_in_words(code: int, said: str) -> None:
    make("a")
    assert reason(OSError(code, os.strerror(code)), "a") == said
    assert reason(OSError(code, os.strerror(code))) == said
    assert reason(OSError("odd")) == "odd"
    assert FolderListing(failures=[("a", code)]).reasons() == [("a", said)]
