"""Entries that need care: what chown(2) destroys or leaves stale is read before, and put back after.

chown clears setuid, setgid and the capability of anything but a folder, for root too, even when nothing changes; ACL
entries and a capability's root are ids of their own. So: pin the inode, compare it with what the journal says, then
owner, ACLs, mode, capability, in this order, because setting an ACL touches the mode.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.volume import power, syscalls
from usernsplan.volume.metadata import ACL_ACCESS, ACL_DEFAULT, CAPABILITY
from usernsplan.volume.passes import Form

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from usernsplan.volume.renew import Proof
    from usernsplan.volume.targets import Owner

# Of FUSE, CIFS and their like.
OWN_OWNERS = "this file system sets its own owners; see its uid= and gid= mount options"
_ATTRIBUTES = (ACL_ACCESS, ACL_DEFAULT, CAPABILITY)


class MeanwhileError(Exception):
    """The inode is not what the journal says, so it is left alone; the message tells why."""


class IgnoredError(Exception):
    """The file system took the change of owner and kept its own; nothing was changed."""


class HalfDoneError(Exception):
    """The owner was changed, and what that destroyed could not be put back yet: only a further run can."""


@dataclass(frozen=True, slots=True)
class Special:
    """One inode that needs care, as it was before the run. ``changed_ns`` is its ctime.

    ``name`` is looked up in the current folder; '.' is that itself. ``proof`` tells what the content of a file with
    power was.
    """

    name: str
    device: int
    inode: int
    links: int
    changed_ns: int
    form: Form
    proof: Proof | None = None

    @property
    def mode(self) -> int:
        """Its st_mode."""
        return self.form.mode

    @property
    def linked(self) -> bool:
        """Tell whether it has other names."""
        return self.links > 1 and not stat.S_ISDIR(self.mode)

    def with_owner(self, owner: Owner) -> Special:
        """The same, had it had this owner."""
        return replace(self, form=replace(self.form, owner=owner))


@dataclass(frozen=True, slots=True)
class Change:
    """What one inode is to become: the ``olds`` are the owners to be replaced, ``old`` and ``new`` all that it has.

    ``whole`` is what a run leaves of it where nobody takes power from it. ``back``: a run is taken back.
    """

    olds: tuple[Owner, ...]
    old: Form
    new: Form
    whole: Form
    back: bool = False

    @property
    def power(self) -> tuple[Form, Form]:
        """What the inode would be with all power that it had, and what it is where it lacks some of that."""
        return (self.new, power.lawful(self.old, self.new)) if self.back else (self.whole, self.new)


@dataclass(frozen=True, slots=True)
class Care:
    """How careful to be with what somebody may have changed since the journal was written.

    ``pin`` pins an entry of the current folder. ``renewed`` are the inodes that have taken the place of others, by
    (device, inode) of those.
    """

    pin: Callable[[str], int]
    renewed: Mapping[tuple[int, int], int] = field(default_factory=dict)


class SpecialResult(NamedTuple):
    """Whether anything was to be changed, and whether the entry still lacks power that it once had; its inode now."""

    changed: bool
    lacks: bool = False
    inode: int = 0


def look(name: str, pin: Callable[[str], int]) -> Special:
    """Read an entry of the current folder. Nothing but the inode is opened: no device, no fifo, no symlink's target."""
    with _pinned(name, pin) as pinned:
        seen = os.fstat(pinned)
        return Special(
            name, seen.st_dev, seen.st_ino, seen.st_nlink, seen.st_ctime_ns, _form(pinned, seen)
        )


def carry(special: Special, change: Change, care: Care) -> SpecialResult:
    """Give an entry of the current folder its new form.

    What is found has to be the old form, the new one, or something that a kill between the two leaves. Backwards, no
    power is given here that the file does not have already: somebody may have written to it, or hold it open. Raises
    MeanwhileError where the entry is left alone, HalfDoneError where it is stuck between the two forms, OSError and
    IgnoredError where nothing was changed.
    """
    with _pinned(special.name, care.pin) as pinned:
        form, wanted, result = _weighed(pinned, special, change, care)
        if result.changed:
            _change(pinned, form, wanted)
        return result


def foretell(special: Special, change: Change, care: Care) -> SpecialResult:
    """Tell what ``carry`` would do, and change nothing. Raises what it raises before it changes anything."""
    with _pinned(special.name, care.pin) as pinned:
        return _weighed(pinned, special, change, care)[2]


def _weighed(
    pinned: int, special: Special, change: Change, care: Care
) -> tuple[Form, Form, SpecialResult]:
    """What a pinned entry has, what it is to have, and what is to be said of that."""
    now = os.fstat(pinned)
    form = _form(pinned, now)
    is_renewed = care.renewed.get((special.device, special.inode)) == now.st_ino
    _same(special, now, form, change, is_renewed=is_renewed)

    wanted = power.lawful(form, change.new) if change.back else change.new
    if is_renewed and form == change.whole and not change.back:
        wanted = form
    lacks = wanted != (change.new if change.back else change.whole)
    return form, wanted, SpecialResult(form != wanted, lacks, now.st_ino)


def _change(pinned: int, form: Form, wanted: Form) -> None:
    """Owner, ACLs, mode, capability, each only where it differs. See carry for what is raised."""
    path = f"/proc/self/fd/{pinned}"
    chowned = touched = form.owner != wanted.owner
    if chowned:
        _give(pinned, form, wanted.owner)
    try:
        for attribute, value, here in (
            (ACL_ACCESS, wanted.acl, form.acl),
            (ACL_DEFAULT, wanted.default_acl, form.default_acl),
        ):
            if value is not None and value != here:
                os.setxattr(path, attribute, value)
                touched = True
        mode = stat.S_IMODE(wanted.mode)
        if not stat.S_ISLNK(form.mode) and stat.S_IMODE(os.fstat(pinned).st_mode) != mode:
            os.chmod(path, mode)
            touched = True
        if wanted.capability is None and form.capability is not None and not chowned:
            os.removexattr(path, CAPABILITY)
        if wanted.capability is not None and (chowned or form.capability != wanted.capability):
            os.setxattr(path, CAPABILITY, wanted.capability)
    except OSError as error:
        if not touched:
            raise
        raise HalfDoneError(
            f"its owner was changed, but not all that belongs to it: {error.strerror}"
        ) from error


def _give(pinned: int, form: Form, owner: Owner) -> None:
    """Change the owner, and make sure that the file system took it; where it did not, the inode is as it was.

    The kernel takes the capability away before the file system says no (a quota that is full, EDQUOT), and file systems
    that set their own owners say yes and keep theirs.
    """
    try:
        syscalls.chown_pinned(pinned, *owner)
    except OSError:
        _put_back(pinned, form)
        raise
    if os.fstat(pinned)[4:6] != owner:
        _put_back(pinned, form)
        raise IgnoredError(OWN_OWNERS)


def _put_back(pinned: int, form: Form) -> None:
    """Give an inode back what a chown that failed took from it: owner, mode, capability."""
    path = f"/proc/self/fd/{pinned}"
    try:
        here = os.fstat(pinned)
        if here[4:6] != form.owner:
            syscalls.chown_pinned(pinned, *form.owner)
        if not stat.S_ISLNK(form.mode) and os.fstat(pinned).st_mode != form.mode:
            os.chmod(path, stat.S_IMODE(form.mode))
        if form.capability is not None and _attribute(pinned, CAPABILITY) != form.capability:
            os.setxattr(path, CAPABILITY, form.capability)
    except OSError as error:
        lost = f"its owner could not be changed, and it lost setuid bit or capability: {error.strerror}"
        raise OSError(error.errno, lost) from error


def _same(
    special: Special, now: os.stat_result, form: Form, change: Change, *, is_renewed: bool
) -> None:
    """Make sure that this is the inode of the journal, in one of the states that a run brings it into."""
    forms = (change.old, change.new, change.whole)
    is_it = now.st_ino == special.inode or is_renewed
    if not is_it or stat.S_IFMT(now.st_mode) != stat.S_IFMT(special.mode):
        raise MeanwhileError("another file has its name now")
    if now.st_nlink > special.links and not stat.S_ISDIR(now.st_mode):
        raise MeanwhileError("it has got one more link")
    if form.owner not in {*change.olds, change.new.owner}:
        raise MeanwhileError(f"its owner is {form.owner[0]}:{form.owner[1]} now")
    # Only our own chown, and a kill right after it, may have taken bits and capability away; or our taking of power.
    chowned = (change.back or form.owner == change.new.owner) and {*change.olds} != {
        change.new.owner
    }
    modes = {stat.S_IMODE(one.mode) for one in forms}
    if chowned:
        modes |= {after_chown(one.mode) for one in forms}
    if change.back:
        modes |= {stat.S_IMODE(power.without(one).mode) for one in forms}
    mode = stat.S_IMODE(now.st_mode)
    if mode not in modes:
        raise MeanwhileError(f"its mode is {mode:04o} now")
    if form.acl not in {one.acl for one in forms} or form.default_acl not in {
        one.default_acl for one in forms
    }:
        raise MeanwhileError("its ACL was changed")
    gone = form.capability is None and (chowned or change.back)
    if form.capability not in {one.capability for one in forms} and not gone:
        raise MeanwhileError("its capability was changed")


def after_chown(mode: int) -> int:
    """The permission bits that chown(2) leaves of a mode: no setuid, and no setgid where the group may execute."""
    if stat.S_ISDIR(mode):
        return stat.S_IMODE(mode)
    cleared = stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0)
    return stat.S_IMODE(mode) & ~cleared


@contextmanager
def _pinned(name: str, pin: Callable[[str], int]) -> Iterator[int]:
    pinned = pin(name)
    try:
        yield pinned
    finally:
        os.close(pinned)


def _form(pinned: int, seen: os.stat_result) -> Form:
    found = (
        [None] * 3
        if stat.S_ISLNK(seen.st_mode)
        else [_attribute(pinned, attribute) for attribute in _ATTRIBUTES]
    )
    return Form((seen.st_uid, seen.st_gid), seen.st_mode, *found)


def _attribute(pinned: int, attribute: str) -> bytes | None:
    try:
        return os.getxattr(f"/proc/self/fd/{pinned}", attribute)
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.ENOTSUP}:
            return None
        raise
