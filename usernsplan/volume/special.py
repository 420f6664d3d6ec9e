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
from typing import TYPE_CHECKING

from usernsplan.volume import syscalls
from usernsplan.volume.metadata import ACL_ACCESS, ACL_DEFAULT, CAPABILITY
from usernsplan.volume.targets import Form

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.volume.targets import Owner

_PINNED = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTRIBUTES = (ACL_ACCESS, ACL_DEFAULT, CAPABILITY)


class MeanwhileError(Exception):
    """The inode is not what the journal says, so it is left alone; the message tells why."""


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

    def with_owner(self, owner: Owner) -> Special:
        """The same, had it had this owner."""
        return replace(self, form=replace(self.form, owner=owner))


def look(name: str) -> Special:
    """Read an entry of the current folder. Nothing but the inode is opened: no device, no fifo, no symlink's target."""
    with _pin(name) as pinned:
        seen = os.fstat(pinned)
        attributes = [] if stat.S_ISLNK(seen.st_mode) else [_attribute(pinned, attribute) for attribute in _ATTRIBUTES]
        form = Form((seen.st_uid, seen.st_gid), *attributes)
        return Special(name, seen.st_dev, seen.st_ino, seen.st_mode, seen.st_nlink, seen.st_ctime_ns, form)


def carry(  # noqa: PLR0913 - one inode, all that is known of it
    special: Special, olds: tuple[Owner, ...], old: Form, new: Form, *, end: int | None = None, really: bool = True
) -> bool:
    """Give an entry of the current folder its new form (``really``); tell whether anything was to be changed.

    What is found has to be the old form, the new one, or something that a kill between the two leaves. ``end`` (ns):
    what was changed later gets no setuid bit and no capability, because it may have been filled with anything. Raises
    MeanwhileError where it is left alone, HalfDoneError where it is stuck between the two, OSError where nothing was
    changed.
    """
    with _pin(special.name) as pinned:
        now = os.fstat(pinned)
        is_link = stat.S_ISLNK(now.st_mode)
        found = [None] * 3 if is_link else [_attribute(pinned, attribute) for attribute in _ATTRIBUTES]
        form = Form((now.st_uid, now.st_gid), *found)
        _same(special, now, form, (olds, old, new))
        wanted = stat.S_IMODE(special.mode)
        if form == new and stat.S_IMODE(now.st_mode) == wanted:
            return False
        if end is not None and now.st_ctime_ns > end and (after_chown(special.mode) != wanted or new.capability):
            raise MeanwhileError("it was changed since; only --yes gives it back its setuid bit or capability")
        if really:
            _change(pinned, now, form, new, wanted)
        return True


def _change(pinned: int, now: os.stat_result, form: Form, new: Form, wanted: int) -> None:
    """Owner, ACLs, mode, capability, each only where it differs. See carry for what is raised."""
    path = f"/proc/self/fd/{pinned}"
    touched = form.owner != new.owner
    if touched:
        syscalls.chown_pinned(pinned, *new.owner)
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


def _same(special: Special, now: os.stat_result, form: Form, forms: tuple[tuple[Owner, ...], Form, Form]) -> None:
    """Make sure that this is the inode of the journal, in one of the states that a run brings it into."""
    olds, old, new = forms
    if (now.st_ino, stat.S_IFMT(now.st_mode)) != (special.inode, stat.S_IFMT(special.mode)):
        raise MeanwhileError("another file has its name now")
    if now.st_nlink > special.links and not stat.S_ISDIR(now.st_mode):
        raise MeanwhileError("it has got one more link")
    if form.owner not in {*olds, new.owner}:
        raise MeanwhileError(f"its owner is {form.owner[0]}:{form.owner[1]} now")
    mode, was = stat.S_IMODE(now.st_mode), stat.S_IMODE(special.mode)
    if mode not in {was, after_chown(special.mode)}:
        raise MeanwhileError(f"its mode is {mode:04o} now")
    if form.acl not in {old.acl, new.acl} or form.default_acl not in {old.default_acl, new.default_acl}:
        raise MeanwhileError("its ACL was changed")
    # A kill just after the chown leaves none.
    lost = {None} if {*olds} != {new.owner} else set()
    if form.capability not in {old.capability, new.capability} | lost:
        raise MeanwhileError("its capability was changed")


def after_chown(mode: int) -> int:
    """The permission bits that chown(2) leaves of a mode: no setuid, and no setgid where the group may execute."""
    if stat.S_ISDIR(mode):
        return stat.S_IMODE(mode)
    cleared = stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0)
    return stat.S_IMODE(mode) & ~cleared


@contextmanager
def _pin(name: str) -> Iterator[int]:
    pinned = os.open(name, _PINNED)
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
