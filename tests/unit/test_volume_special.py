"""Entries that need care: what chown takes is given back, and on the way back nobody gets power in place."""

from __future__ import annotations

import errno
import os
import stat
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.command import missing, needs_root
from tests.unit.xattrs import USER, acl, v2, v3
from usernsplan.volume import compiled, syscalls
from usernsplan.volume.entries import Group
from usernsplan.volume.metadata import ACL_ACCESS, ACL_DEFAULT, CAPABILITY
from usernsplan.volume.passes import Form
from usernsplan.volume.special import (
    CHANGED,
    RIGHT,
    Care,
    Change,
    HalfDoneError,
    MeanwhileError,
    SpecialResult,
    carried,
    carry,
    foretell,
    half_done,
    look,
    looked,
)
from usernsplan.volume.special import OTHER as LEFT

if TYPE_CHECKING:
    from usernsplan.volume.entries import Special

FIRST, LAST, OTHER = (4711, 4712), (104711, 104712), (5, 5)


def acl_for(uid: int, mode: int = 0o755) -> bytes:
    """As it is in a file of this mode, whose middle digit is the mask."""
    digits = [mode >> 6 & 7, mode >> 3 & 7, mode & 7]
    nobody = 0xFFFFFFFF
    return acl(
        (1, digits[0], nobody),
        (USER, 4, uid),
        (4, 5, nobody),
        (0x10, digits[1], nobody),
        (0x20, digits[2], nobody),
    )


def pin(name: str) -> int:
    return os.open(name, os.O_PATH | os.O_NOFOLLOW)


@pytest.fixture(autouse=True, params=["Python", "C"])
def step(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which code does it."""
    if compiled.care is None:
        missing("the compiled step")
    if request.param == "Python":
        monkeypatch.setattr(compiled, "care", None)
        monkeypatch.setattr(compiled, "carry", None)
    return str(request.param)


@pytest.fixture(autouse=True)
def here(tmp_path: Path) -> Iterator[Path]:
    """An empty folder, in which this process stands."""
    before = os.getcwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


def made(
    mode: int = 0o755, *, capability: bytes | None = None, acl: bytes | None = None
) -> Special:
    """A file of FIRST, as it is noted before a run."""
    Path("a").write_bytes(b"content")
    os.chown("a", *FIRST)
    if acl:
        os.setxattr("a", ACL_ACCESS, acl)
    Path("a").chmod(mode)
    if capability:
        os.setxattr("a", CAPABILITY, capability)
    return look("a", pin)


def last(entry: Special) -> Form:
    """What a run makes of it: its ids go up by 100000."""
    form = entry.form
    return Form(
        LAST,
        form.mode,
        form.acl and acl_for(100033, entry.mode),
        form.default_acl,
        form.capability and v3(100000),
    )


def going(entry: Special, new: Form | None = None) -> Change:
    """The change of a run; where it takes power, ``new`` is what it leaves."""
    return Change((FIRST,), entry.form, new or last(entry), last(entry))


def group(*entries: Special) -> Group:
    """Entries with one form, as a journal has them."""
    one = entries[0]
    inodes = array("Q", [entry.inode for entry in entries])
    return Group(one.form, one.device, one.links, [entry.name for entry in entries], inodes)


def changed(
    entry: Special, change: Change, renewed: dict[tuple[int, int], int] | None = None
) -> SpecialResult:
    """As a run does it: in bulk, and one by one what that leaves."""
    [result] = carried([(group(entry), change)], 0)
    if result > 0:
        raise half_done(os.strerror(result))
    if result != LEFT:
        return SpecialResult(result == CHANGED, inode=entry.inode)
    return carry(entry, change, Care(pin, renewed or {}))


def there(entry: Special) -> SpecialResult:
    return changed(entry, going(entry))._replace(inode=0)


def back(entry: Special, renewed: dict[tuple[int, int], int] | None = None) -> SpecialResult:
    change = Change((LAST,), last(entry), entry.form, last(entry), back=True)
    return changed(entry, change, renewed)._replace(inode=0)


def seen() -> tuple[tuple[int, int], int, bytes | None, bytes | None]:
    now = look("a", pin)
    return now.form.owner, stat.S_IMODE(now.mode), now.form.acl, now.form.capability


def ctime() -> int:
    return os.lstat("a").st_ctime_ns


POWERS = pytest.mark.parametrize(
    ("mode", "capability"), [(0o4755, None), (0o2755, None), (0o755, v2()), (0o6755, v2())]
)


# Looking


def test_an_entry_is_read_without_being_opened() -> None:
    os.mkfifo("fifo")
    os.symlink("fifo", "link")
    os.link("fifo", "again")
    fifo, link = look("fifo", pin), look("link", pin)
    assert stat.S_ISFIFO(fifo.mode)
    assert stat.S_ISLNK(link.mode)
    expected = os.lstat("fifo")
    assert (fifo.device, fifo.inode, fifo.links, fifo.changed_ns) == (
        *(expected.st_dev, expected.st_ino, 2, expected.st_ctime_ns),
    )
    assert (fifo.linked, link.linked) == (True, False)
    assert link.form == Form(
        (os.lstat("link").st_uid, os.lstat("link").st_gid), stat.S_IFLNK | 0o777
    )
    with pytest.raises(FileNotFoundError):
        look("x", pin)


@needs_root
def test_all_that_a_file_has_is_read() -> None:
    entry = made(0o4750, capability=v2(), acl=acl_for(33))
    assert entry.form == Form(FIRST, stat.S_IFREG | 0o4750, acl_for(33, 0o750), None, v2())


# There


@needs_root
@POWERS
def test_what_chown_takes_is_given_back(mode: int, capability: bytes | None) -> None:
    entry = made(mode, capability=capability, acl=acl_for(33))
    assert there(entry) == SpecialResult(changed=True)
    expected = (LAST, mode, acl_for(100033), capability and v3(100000))
    assert seen() == expected
    before = ctime()
    assert there(entry) == SpecialResult(changed=False)
    assert (seen(), ctime()) == (expected, before)


@needs_root
def test_where_it_is_only_counted_nothing_is_changed() -> None:
    entry = made(0o4755, capability=v2())
    before = ctime()
    assert foretell(entry, going(entry), Care(pin)) == SpecialResult(
        changed=True, inode=entry.inode
    )
    assert (look("a", pin), ctime()) == (entry, before)


@needs_root
@POWERS
def test_what_a_kill_after_the_chown_left_is_finished(mode: int, capability: bytes | None) -> None:
    entry = made(mode, capability=capability)
    os.chown("a", *LAST)
    assert there(entry) == SpecialResult(changed=True)
    assert seen() == (LAST, mode, None, capability and v3(100000))


@needs_root
def test_a_capability_that_the_kernel_took_from_what_was_written_to_is_not_put_back() -> None:
    entry = made(capability=v2())
    Path("a").write_bytes(b"something else")
    assert CAPABILITY not in os.listxattr("a")
    with pytest.raises(MeanwhileError, match="capability"):
        there(entry)
    assert seen() == (FIRST, 0o755, None, None)


@needs_root
def test_a_capability_is_not_put_back_where_the_run_changes_no_owner() -> None:
    entry = made(capability=v2())
    new = replace(entry.form, capability=v3(100000))
    Path("a").write_bytes(b"something else")
    with pytest.raises(MeanwhileError, match="capability"):
        changed(entry, Change((FIRST,), entry.form, new, new))
    assert (
        changed(entry, Change((FIRST,), new, entry.form, new, back=True))[:2]
        == SpecialResult(False, lacks=True)[:2]
    )
    assert seen() == (FIRST, 0o755, None, None)


@needs_root
def test_a_setuid_bit_that_was_taken_before_the_run_came_is_not_put_back() -> None:
    entry = made(0o4755)
    Path("a").chmod(0o755)
    with pytest.raises(MeanwhileError, match="mode is 0755"):
        there(entry)
    assert seen() == (FIRST, 0o755, None, None)


@needs_root
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("inode", "another file"),
        ("kind", "another file"),
        ("link", "another hard link"),
        ("owner", "owner is 5:5"),
        ("mode", "mode is 4700"),
        ("acl", "ACL"),
        ("capability", "capability"),
    ],
)
@pytest.mark.parametrize("going_back", [False, True])
def test_what_is_not_as_noted_is_left_alone(what: str, said: str, going_back: bool) -> None:
    entry = made(0o4755, capability=v2(), acl=acl_for(33))
    if going_back:
        there(entry)
    match what:
        case "inode":
            Path("b").write_bytes(b"")
            Path("b").replace("a")
        case "kind":
            Path("a").unlink()
            os.mkfifo("a")
        case "link":
            os.link("a", "b")
        case "owner":
            os.chown("a", *OTHER)
        case "mode":
            Path("a").chmod(0o4700)
        case "acl":
            os.setxattr("a", ACL_ACCESS, acl_for(7))
            Path("a").chmod(0o4755)
        case "capability":
            os.setxattr("a", CAPABILITY, v3(7))
    before = look("a", pin)
    with pytest.raises(MeanwhileError, match=said):
        back(entry) if going_back else there(entry)
    assert look("a", pin) == before


@needs_root
def test_one_name_less_is_no_reason_to_leave_it_alone() -> None:
    made(0o4755)
    os.link("a", "b")
    entry = look("a", pin)
    Path("b").unlink()
    assert there(entry).changed
    assert seen()[:2] == (LAST, 0o4755)


# In bulk


@needs_root
def test_entries_with_one_form_are_one_group_and_what_they_have_is_what_a_look_at_each_shows() -> (
    None
):
    made(0o640, acl=acl_for(33))
    for name in ("b", "c", "d", "e", "\udcff", "f" * 255):
        Path(name).write_bytes(b"")
    os.link("b", "again")
    os.mkfifo("fifo")
    os.mknod("device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.symlink("nowhere", "link")
    os.link("link", "link again", follow_symlinks=False)
    Path("d").chmod(0o4755)
    os.setxattr("e", CAPABILITY, v2())
    Path("below").mkdir()
    os.setxattr("below", ACL_DEFAULT, acl_for(33))
    names = [".", *sorted(os.listdir())]

    groups, failures = looked([*names, "gone", "e/x"], 0)
    assert failures == [("e/x", errno.ENOTDIR)]
    assert sorted(one.names for one in groups if len(one.names) > 1) == [
        ["again", "b"],
        ["c", "f" * 255, "\udcff"],
        ["link", "link again"],
    ]
    found = [entry for one in groups for entry in one.entries()]
    assert sorted(found, key=lambda entry: names.index(entry.name)) == [
        look(name, pin) for name in names
    ]


def test_many_names_are_looked_at_in_the_order_in_which_they_are_given() -> None:
    names = [f"{number:04}" for number in range(2500)]
    Path(names[0]).write_bytes(b"")
    for name in names[1:]:
        os.link(names[0], name)
    [one], failures = looked(names[::-1], 0)
    assert (one.names, failures) == (names[::-1], [])
    assert {*one.inodes} == {os.stat(names[0]).st_ino}
    assert one.links == len(names)


@needs_root
def test_what_has_no_power_is_changed_in_bulk_also_where_a_kill_left_it(step: str) -> None:
    first = made(0o640, acl=acl_for(33, 0o640))
    change = going(first)
    for name in ("right", "killed", "other"):
        Path(name).write_bytes(b"")
        os.chown(name, *(FIRST if name == "other" else LAST))
        owner_of_acl = 100033 if name == "right" else 33
        os.setxattr(name, ACL_ACCESS, acl_for(owner_of_acl, 0o640))
        Path(name).chmod(0o644 if name == "other" else 0o640)
    entries = [replace(look(name, pin), form=first.form) for name in ("a", "right", "killed")]
    entries += [replace(look("other", pin), form=first.form), replace(first, name="gone")]
    before = {name: os.lstat(name).st_ctime_ns for name in ("right", "other")}

    if step == "Python":
        assert carried([(group(*entries), change)], 0) == [LEFT] * 5
        return
    results = [CHANGED, RIGHT, CHANGED, LEFT, LEFT]
    assert carried([(group(*entries), change)], 0, preview=True) == results
    assert look("a", pin) == first
    assert carried([(group(*entries), change)], 0) == results
    assert {look(name, pin).form for name in ("a", "right", "killed")} == {last(first)}
    assert {name: os.lstat(name).st_ctime_ns for name in before} == before
    assert carried([(group(*entries), change)], 0) == [RIGHT, RIGHT, RIGHT, LEFT, LEFT]


@needs_root
def test_an_acl_that_the_system_refuses_leaves_the_entry_half_done() -> None:
    entry = made(0o640, acl=acl_for(33, 0o640))
    new = replace(last(entry), acl=b"no ACL")
    # Where the owner stays, nothing was changed, and the error is that of the one call.
    stays = replace(new, owner=FIRST)
    with pytest.raises(OSError, match="not supported"):
        changed(entry, Change((FIRST,), entry.form, stays, stays))
    assert look("a", pin) == entry
    with pytest.raises(HalfDoneError, match="not supported"):
        changed(entry, Change((FIRST,), entry.form, new, new))
    assert seen() == (LAST, 0o640, entry.form.acl, None)


@needs_root
@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6711, 0o2644])
def test_bits_that_a_run_keeps_are_put_back_in_bulk(mode: int, step: str) -> None:
    entry = made(mode, acl=acl_for(33))
    change = going(entry)
    results = [LEFT] if step == "Python" else [CHANGED]
    assert carried([(group(entry), change)], 0, preview=True) == results
    assert look("a", pin) == entry
    assert carried([(group(entry), change)], 0) == results
    if step == "C":
        assert seen() == (LAST, mode, acl_for(100033, mode), None)
        assert carried([(group(entry), change)], 0) == [RIGHT]


@needs_root
def test_what_a_run_may_not_keep_or_not_give_back_is_not_changed_in_bulk() -> None:
    capable = made(0o4755, capability=v2())
    assert carried([(group(capable), going(capable))], 0) == [LEFT]
    assert look("a", pin) == capable

    os.removexattr("a", CAPABILITY)
    entry = look("a", pin)
    less = replace(last(entry), mode=stat.S_IFREG | 0o755)
    undone = Change((FIRST,), entry.form, last(entry), entry.form, back=True)
    for change in (going(entry, less), undone):
        assert carried([(group(entry), change)], 0) == [LEFT]
        assert look("a", pin) == entry

    # A kill came right after the chown.
    os.chown("a", *LAST)
    assert carried([(group(entry), going(entry))], 0) == [LEFT]
    assert seen() == (LAST, 0o755, None, None)


@needs_root
def test_groups_of_several_forms_are_changed_together(step: str) -> None:
    names = [f"{number}" for number in range(2500)]
    for at, name in enumerate(names):
        Path(name).write_bytes(b"")
        os.chown(name, *FIRST)
        if at % 2:
            os.setxattr(name, ACL_ACCESS, acl_for(33, 0o640))
        Path(name).chmod((0o640, 0o640, 0o2640, 0o640, 0o604)[at % 5])
    groups, _ = looked(names, 0)
    work = []
    for one in groups:
        moved = one.form.acl and one.form.acl.replace(b"\x21\0\0\0", b"\x22\0\0\0")
        new = replace(one.form, owner=LAST, acl=moved)
        work.append((one, Change((FIRST,), one.form, new, new)))
    assert len(work) == 6
    expected = LEFT if step == "Python" else CHANGED
    assert carried(work, 0) == [expected] * len(names)
    if step == "C":
        again, _ = looked(names, 0)
        assert {one.form for one in again} == {change.new for _, change in work}


@needs_root
def test_what_got_power_meanwhile_is_not_changed_in_bulk() -> None:
    entry = made(0o755)
    for mode, capability in ((0o4755, None), (0o755, v2())):
        Path("a").chmod(mode)
        if capability:
            os.setxattr("a", CAPABILITY, capability)
        now = look("a", pin)
        assert carried([(group(entry), going(entry))], 0) == [LEFT]
        assert look("a", pin) == now


# Errors


@needs_root
def test_what_fails_after_the_chown_is_half_done_and_the_next_run_finishes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = made(0o4755, capability=v2())

    def failing(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "setxattr", failing)
        with pytest.raises(HalfDoneError, match="No space left"):
            there(entry)
    assert seen() == (LAST, 0o4755, None, None)
    assert there(entry).changed
    assert seen() == (LAST, 0o4755, None, v3(100000))


@needs_root
@pytest.mark.parametrize("call", ["chown_pinned", "setxattr"])
def test_where_nothing_was_changed_yet_an_error_is_itself(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "carry", None)
    entry = made(0o644, acl=acl_for(33))
    new = last(entry) if call == "chown_pinned" else replace(last(entry), owner=FIRST)

    def failing(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(syscalls if call == "chown_pinned" else os, call, failing)
    with pytest.raises(PermissionError):
        changed(entry, Change((FIRST,), entry.form, new, new))
    assert look("a", pin) == entry


@needs_root
def test_no_descriptor_is_left_open() -> None:
    entry = made(0o4755)
    before = os.listdir("/proc/self/fd")
    there(entry)
    os.chown("a", *OTHER)
    with pytest.raises(MeanwhileError):
        there(entry)
    with pytest.raises(FileNotFoundError):
        look("x", pin)
    assert os.listdir("/proc/self/fd") == before


# Power that a run takes


@needs_root
@pytest.mark.parametrize("killed", [False, True])
def test_power_that_a_run_takes_is_lacking_however_often_it_is_run(killed: bool) -> None:
    entry = made(0o6755, capability=v2(), acl=acl_for(33))
    less = replace(last(entry), mode=stat.S_IFREG | 0o2755, capability=None)
    if killed:
        os.chown("a", *LAST)
    assert changed(entry, going(entry, less))[:2] == SpecialResult(changed=True, lacks=True)[:2]
    assert seen() == (LAST, 0o2755, acl_for(100033), None)
    before = ctime()
    assert changed(entry, going(entry, less))[:2] == SpecialResult(changed=False, lacks=True)[:2]
    assert ctime() == before


@needs_root
def test_power_is_taken_also_where_the_owner_stays() -> None:
    entry = made(0o4755, capability=v2())
    less = replace(entry.form, mode=stat.S_IFREG | 0o755, capability=None)
    change = Change((FIRST,), entry.form, less, entry.form)
    assert changed(entry, change)[:2] == SpecialResult(changed=True, lacks=True)[:2]
    assert seen() == (FIRST, 0o755, None, None)
    assert changed(entry, change)[:2] == SpecialResult(changed=False, lacks=True)[:2]


@needs_root
def test_what_took_its_place_and_has_its_power_is_right() -> None:
    entry = made(0o4755)
    less = replace(last(entry), mode=stat.S_IFREG | 0o755)
    Path("b").write_bytes(b"content")
    os.chown("b", *LAST)
    Path("b").chmod(0o4755)
    Path("b").replace("a")
    renewed = {(entry.device, entry.inode): os.lstat("a").st_ino}
    assert changed(entry, going(entry, less), renewed)[:2] == SpecialResult(changed=False)[:2]
    with pytest.raises(MeanwhileError, match="another file"):
        changed(entry, going(entry, less))
    assert seen() == (LAST, 0o4755, None, None)


# Back


@needs_root
@POWERS
def test_on_the_way_back_all_but_power_is_put_back(mode: int, capability: bytes | None) -> None:
    entry = made(mode, capability=capability, acl=acl_for(33))
    there(entry)
    assert back(entry) == SpecialResult(changed=True, lacks=True)
    assert seen() == (FIRST, 0o755, acl_for(33), None)
    before = ctime()
    assert back(entry) == SpecialResult(changed=False, lacks=True)
    assert ctime() == before


@needs_root
def test_power_that_is_no_more_than_what_there_is_goes_back_in_place() -> None:
    """From the host's root to anybody: who can become root can become everybody."""
    entry = made(0o4755, capability=v3(100000))
    os.chown("a", 0, 0)
    Path("a").chmod(0o4755)
    os.setxattr("a", CAPABILITY, v2())
    now = look("a", pin).form
    assert (
        changed(entry, Change(((0, 0),), now, entry.form, now, back=True))[:2]
        == SpecialResult(changed=True)[:2]
    )
    assert seen() == (FIRST, 0o4755, None, v3(100000))


@needs_root
def test_what_has_no_power_goes_back_whatever_was_written_to_it() -> None:
    entry = made(0o640, acl=acl_for(33))
    there(entry)
    Path("a").write_bytes(b"something else")
    assert back(entry) == SpecialResult(changed=True)
    assert seen()[0] == FIRST
    assert seen()[2:] == (acl_for(33, 0o640), None)


@needs_root
def test_a_way_back_that_was_killed_after_its_chown_still_lacks_power() -> None:
    entry = made(0o4755, capability=v2())
    there(entry)
    os.chown("a", *FIRST)
    assert back(entry) == SpecialResult(changed=False, lacks=True)
    assert seen() == (FIRST, 0o755, None, None)


@needs_root
def test_what_has_its_power_back_in_another_inode_is_right() -> None:
    entry = made(0o4755, capability=v2())
    there(entry)
    Path("b").write_bytes(b"content")
    os.chown("b", *FIRST)
    Path("b").chmod(0o4755)
    os.setxattr("b", CAPABILITY, v2())
    Path("b").replace("a")
    renewed = {(entry.device, entry.inode): os.lstat("a").st_ino}
    assert back(entry, renewed) == SpecialResult(changed=False)
    with pytest.raises(MeanwhileError, match="another file"):
        back(entry)
