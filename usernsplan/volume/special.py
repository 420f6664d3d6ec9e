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
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.volume import syscalls
from usernsplan.volume.metadata import ACL_ACCESS, ACL_DEFAULT, CAPABILITY
from usernsplan.volume.targets import Form

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

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

    ``name`` is looked up in the current folder; '.' is that itself.
    """

    name: str
    device: int
    inode: int
    mode: int
    links: int
    changed_ns: int
    form: Form

    @property
    def linked(self) -> bool:
        """Tell whether it has other names."""
        return self.links > 1 and not stat.S_ISDIR(self.mode)

    @property
    def has_power(self) -> bool:
        """Tell whether it lets whoever runs it be more than he is."""
        return after_chown(self.mode) != stat.S_IMODE(self.mode) or self.form.capability is not None

    def with_owner(self, owner: Owner) -> Special:
        """The same, had it had this owner."""
        return replace(self, form=replace(self.form, owner=owner))


@dataclass(frozen=True, slots=True)
class Care:
    """How careful to be with what somebody may have changed since the journal was written.

    ``pin`` pins an entry of the current folder. ``back``: a run is taken back. ``settled``: the ctime (ns) that the run
    itself left on an inode, by (device, inode). ``trust``: whatever was changed since. ``really`` is False where
    everything is only to be counted.
    """

    pin: Callable[[str], int]
    settled: Mapping[tuple[int, int], int]
    back: bool = False
    trust: bool = False
    really: bool = True


class Carried(NamedTuple):
    """Whether anything was to be changed, and the ctime (ns) that our own change left, where nobody came between."""

    changed: bool
    settled: int | None = None


def look(name: str, pin: Callable[[str], int]) -> Special:
    """Read an entry of the current folder. Nothing but the inode is opened: no device, no fifo, no symlink's target."""
    with _pinned(name, pin) as pinned:
        seen = os.fstat(pinned)
        attributes = [] if stat.S_ISLNK(seen.st_mode) else [_attribute(pinned, attribute) for attribute in _ATTRIBUTES]
        form = Form((seen.st_uid, seen.st_gid), *attributes)
        return Special(name, seen.st_dev, seen.st_ino, seen.st_mode, seen.st_nlink, seen.st_ctime_ns, form)


def carry(special: Special, olds: tuple[Owner, ...], old: Form, new: Form, care: Care) -> Carried:
    """Give an entry of the current folder its new form.

    What is found has to be the old form, the new one, or something that a kill between the two leaves. Backwards, a
    setuid bit or a capability goes only to what nobody has changed since the run had it in its hands, because it may
    have been filled with anything. Raises MeanwhileError where the entry is left alone, HalfDoneError where it is stuck
    between the two forms, OSError and IgnoredError where nothing was changed.
    """
    with _pinned(special.name, care.pin) as pinned:
        now = os.fstat(pinned)
        is_link = stat.S_ISLNK(now.st_mode)
        found = [None] * 3 if is_link else [_attribute(pinned, attribute) for attribute in _ATTRIBUTES]
        form = Form((now.st_uid, now.st_gid), *found)
        _same(special, now, form, (olds, old, new), back=care.back)
        wanted = stat.S_IMODE(special.mode)
        if form == new and stat.S_IMODE(now.st_mode) == wanted:
            return Carried(changed=False)
        # Bits and capability that are there are rightly there: the kernel takes them from whatever is written to.
        ours = form.owner != new.owner or form == old
        if care.back:
            ours = care.settled.get((special.device, special.inode)) == now.st_ctime_ns
            if special.has_power and not (ours or care.trust):
                raise MeanwhileError(
                    "it may have been changed since; only --yes gives it back its setuid bit or capability"
                )
        if not care.really:
            return Carried(changed=True)
        _change(pinned, now, form, new, wanted)
        return Carried(changed=True, settled=os.fstat(pinned).st_ctime_ns if ours else None)


def _change(pinned: int, now: os.stat_result, form: Form, new: Form, wanted: int) -> None:
    """Owner, ACLs, mode, capability, each only where it differs. See carry for what is raised."""
    path = f"/proc/self/fd/{pinned}"
    touched = form.owner != new.owner
    if touched:
        _give(pinned, now, form, new.owner)
    try:
        for attribute, value, here in (
            (ACL_ACCESS, new.acl, form.acl),
            (ACL_DEFAULT, new.default_acl, form.default_acl),
        ):
            if value is not None and value != here:
                os.setxattr(path, attribute, value)
                touched = True
        if not stat.S_ISLNK(now.st_mode) and stat.S_IMODE(os.fstat(pinned).st_mode) != wanted:
            os.chmod(path, wanted)
            touched = True
        if new.capability is not None and (form.owner != new.owner or form.capability != new.capability):
            os.setxattr(path, CAPABILITY, new.capability)
    except OSError as error:
        if not touched:
            raise
        raise HalfDoneError(f"its owner was changed, but not all that belongs to it: {error.strerror}") from error


def _give(pinned: int, now: os.stat_result, form: Form, owner: Owner) -> None:
    """Change the owner, and make sure that the file system took it; where it did not, the inode is as it was.

    The kernel takes the capability away before the file system says no (a quota that is full, EDQUOT), and file systems
    that set their own owners say yes and keep theirs.
    """
    try:
        syscalls.chown_pinned(pinned, *owner)
    except OSError:
        _put_back(pinned, now, form)
        raise
    if os.fstat(pinned)[4:6] != owner:
        _put_back(pinned, now, form)
        raise IgnoredError(OWN_OWNERS)


def _put_back(pinned: int, now: os.stat_result, form: Form) -> None:
    """Give an inode back what a chown that failed took from it: owner, mode, capability."""
    path = f"/proc/self/fd/{pinned}"
    try:
        here = os.fstat(pinned)
        if here[4:6] != form.owner:
            syscalls.chown_pinned(pinned, *form.owner)
        if not stat.S_ISLNK(now.st_mode) and os.fstat(pinned).st_mode != now.st_mode:
            os.chmod(path, stat.S_IMODE(now.st_mode))
        if form.capability is not None and _attribute(pinned, CAPABILITY) != form.capability:
            os.setxattr(path, CAPABILITY, form.capability)
    except OSError as error:
        lost = f"its owner could not be changed, and it lost setuid bit or capability: {error.strerror}"
        raise OSError(error.errno, lost) from error


def _same(
    special: Special, now: os.stat_result, form: Form, forms: tuple[tuple[Owner, ...], Form, Form], *, back: bool
) -> None:
    """Make sure that this is the inode of the journal, in one of the states that a run brings it into."""
    olds, old, new = forms
    if (now.st_ino, stat.S_IFMT(now.st_mode)) != (special.inode, stat.S_IFMT(special.mode)):
        raise MeanwhileError("another file has its name now")
    if now.st_nlink > special.links and not stat.S_ISDIR(now.st_mode):
        raise MeanwhileError("it has got one more link")
    if form.owner not in {*olds, new.owner}:
        raise MeanwhileError(f"its owner is {form.owner[0]}:{form.owner[1]} now")
    # Only our own chown, and a kill right after it, may have taken bits and capability away.
    chowned = (back or form.owner == new.owner) and {*olds} != {new.owner}
    mode, was = stat.S_IMODE(now.st_mode), stat.S_IMODE(special.mode)
    if mode != was and not (chowned and mode == after_chown(special.mode)):
        raise MeanwhileError(f"its mode is {mode:04o} now")
    if form.acl not in {old.acl, new.acl} or form.default_acl not in {old.default_acl, new.default_acl}:
        raise MeanwhileError("its ACL was changed")
    if form.capability not in {old.capability, new.capability} and not (chowned and form.capability is None):
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


def _attribute(pinned: int, attribute: str) -> bytes | None:
    try:
        return os.getxattr(f"/proc/self/fd/{pinned}", attribute)
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.ENOTSUP}:
            return None
        raise
