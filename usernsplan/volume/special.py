"""Entries that need care: what chown(2) destroys or leaves stale is read first and restored after.

chown clears setuid, setgid and the capability of everything but folders, even for root and even
if the owner stays the same. ACL entries and a capability's root are ids too. So pin the inode,
compare it with the journal, then set owner, ACLs, mode and capability in this order: setting an
ACL changes the mode.

``looked`` and ``carried`` do that for many entries at once, compiled where there is a compiler.
"""

from __future__ import annotations

import errno
import os
import stat
from array import array
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from usernsplan.values import NamedTuple, dataclass, field
from usernsplan.volume import compiled, power, syscalls
from usernsplan.volume.descriptors import attribute, held
from usernsplan.volume.entries import Group, Special
from usernsplan.volume.metadata import ACL_ACCESS, ACL_DEFAULT, CAPABILITY
from usernsplan.volume.passes import Form

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from usernsplan.volume.targets import Owner

# FUSE, CIFS and similar file systems.
OWN_OWNERS = "this file system sets its own owners; see its uid= and gid= mount options"
_ATTRIBUTES = (ACL_ACCESS, ACL_DEFAULT, CAPABILITY)
# So many entries go through one call: a signal waits no longer than that.
_BATCH = 1000
# What ``carried`` says of an entry. _step.c has the same numbers.
RIGHT, CHANGED, OTHER = 0, -1, -2


class MeanwhileError(Exception):
    """The inode is not what the journal says, so it is left alone. The message says why."""


class IgnoredError(Exception):
    """The file system accepted the new owner but kept its own. Nothing was changed."""


class HalfDoneError(Exception):
    """The owner was changed, but what that destroyed is not restored yet. Another run can do it."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one inode becomes: from ``old`` to ``new``.

    ``olds`` are the owners to replace. ``whole`` is the result of a run that removes no power.
    ``back``: the change belongs to an undo. ``in_bulk``: ``carried`` can make it. ``in_steps``: more
    than the owner has to be set, so that the inode changes in several steps. ``order`` is what
    ``carry`` of _step.c needs of it.
    """

    olds: tuple[Owner, ...]
    old: Form
    new: Form
    whole: Form
    back: bool = False
    in_bulk: bool = field(init=False, repr=False, compare=False)
    in_steps: bool = field(init=False, repr=False, compare=False)
    order: tuple[Any, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work out what is the same for all entries with this change."""
        old, new = self.old, self.new
        forms = (old, new, self.whole)
        has_bits = bool(old.mode & power.SETID) and not stat.S_ISDIR(old.mode)
        same = len({form.mode for form in forms}) == 1
        # What a file may get back depends on what it has lost since.
        in_bulk = same and not (has_bits and self.back)
        in_bulk &= all(form.capability is None for form in forms)
        acls = [(form.acl, form.default_acl) for form in (old, new)]
        # Pairs of an owner and its new one, as C has them.
        pairs = dict.fromkeys((*self.olds, new.owner), new.owner).items()
        owners = array("I", (number for pair in pairs for one in pair for number in one)).tobytes()
        object.__setattr__(self, "in_bulk", in_bulk)
        object.__setattr__(self, "in_steps", has_bits or acls[0] != acls[1])
        object.__setattr__(self, "order", (owners, new.mode, *acls))

    @property
    def power(self) -> tuple[Form, Form]:
        """The form with all power that the inode had, and the form that lacks some of it."""
        return (self.new, power.lawful(self.old, self.new)) if self.back else (self.whole, self.new)


@dataclass(frozen=True, slots=True)
class Care:
    """How to handle changes that others made since the journal was written.

    ``pin`` pins an entry of the current folder. ``renewed`` maps (device, inode) to the inode
    that has replaced it.
    """

    pin: Callable[[str], int]
    renewed: Mapping[tuple[int, int], int] = field(default_factory=dict)


# Device, link count, uid, gid, mode, both ACLs and capability: what a group of entries shares.
_Key = tuple[Any, ...]
# What ``care`` finds: by such a key the name, inode and ctime of each entry; and the failures.
_Cared = tuple[dict[_Key, list[tuple[str, int, int]]], list[tuple[str, int]]]


class SpecialResult(NamedTuple):
    """Whether the entry needed a change; whether it still lacks power it had; its inode now."""

    changed: bool
    lacks: bool = False
    inode: int = 0


def look(name: str, pin: Callable[[str], int]) -> Special:
    """Read an entry of the current folder. Opens no device, no fifo and no symlink's target."""
    with held(pin(name)) as pinned:
        seen = os.fstat(pinned)
        return Special(
            name, seen.st_dev, seen.st_ino, seen.st_nlink, seen.st_ctime_ns, _form(pinned, seen)
        )


def looked(names: Sequence[str], pinning: int) -> tuple[list[Group], list[tuple[str, int]]]:
    """Read entries of the current folder: groups with the same form, and failures with their errno.

    Each entry is pinned, as ``syscalls.pin`` does it, and nothing is opened. An entry that is gone
    is in neither list.
    """
    groups: dict[_Key, Group] = {}
    failures: list[tuple[str, int]] = []
    for start in range(0, len(names), _BATCH):
        found, failed = (compiled.care or care_in_python)([*names[start : start + _BATCH]], pinning)
        failures += failed
        for key, entries in found.items():
            more, inodes, changed_ns = zip(*entries, strict=True)
            if group := groups.get(key):
                group.names += more
                group.inodes.extend(inodes)
                group.changed_ns.extend(changed_ns)
            else:
                device, links, *form = key
                numbers, times = array("Q", inodes), array("q", changed_ns)
                groups[key] = Group(_form_of(*form), device, links, [*more], numbers, [], times)
    return [*groups.values()], failures


# A volume has few forms, even where no two entries of a folder have the same one.
@lru_cache(maxsize=4096)
def _form_of(uid: int, gid: int, mode: int, *raw: bytes | None) -> Form:
    return Form((uid, gid), mode, *raw)


def care_in_python(names: list[str], pinning: int) -> _Cared:
    """``care`` of _step.c in Python."""
    found: dict[_Key, list[tuple[str, int, int]]] = {}
    failures: list[tuple[str, int]] = []
    for name in names:
        try:
            seen = look(name, partial(syscalls.pin, resolve=pinning))
        except FileNotFoundError:
            continue
        except OSError as error:
            failures.append((name, error.errno or errno.EIO))
            continue
        form = seen.form
        raw = (form.acl, form.default_acl, form.capability)
        key = (seen.device, seen.links, *form.owner, form.mode, *raw)
        found.setdefault(key, []).append((name, seen.inode, seen.changed_ns))
    return found, failures


def carried(
    work: Iterable[tuple[Group, Change]], pinning: int, *, preview: bool = False
) -> list[int]:
    """Give the entries of groups their new form, in bulk. What became of each is a number.

    ``pinning`` may be BY_NAME, see step; what has setuid or setgid bits is pinned all the same.

    RIGHT: it has its new form already. CHANGED: it got it, or with ``preview`` would. OTHER: it is
    left to ``carry``, which says why. Above 0: the errno with which it was left changed in part.

    Only what has all its power before and after is done here. A capability is left to ``carry``,
    and so is a setuid bit that an undo meets, or that a kill left away. Without a compiler, all is.
    """
    found: list[int] = []
    names: list[str] = []
    inodes = array("Q")
    orders: list[tuple[Any, ...]] = []

    def carry_batch() -> None:
        if compiled.carry and names:
            found.extend(compiled.carry(names, inodes.tobytes(), orders, pinning, preview))
        names.clear()
        orders.clear()
        del inodes[:]

    for group, change in work:
        if compiled.carry is None or not change.in_bulk:
            carry_batch()
            found += [OTHER] * len(group.names)
            continue
        for piece in group.pieces(_BATCH):
            orders.append((len(piece.names), piece.links, *change.order))
            names += piece.names
            inodes.extend(piece.inodes)
            if len(names) >= _BATCH:
                carry_batch()
    carry_batch()
    return found


def half_done(why: str) -> HalfDoneError:
    """The error for an entry that is changed in part."""
    return HalfDoneError(f"its owner was changed, but not all its other attributes: {why}")


def carry(special: Special, change: Change, care: Care) -> SpecialResult:
    """Give an entry of the current folder its new form.

    The entry must have the old form, the new form, or a form that a kill leaves between them. An
    undo gives the file no power that it lacks now: others may have written to it, or have it
    open. Raises MeanwhileError if the entry is left alone, HalfDoneError if it is stuck between
    the two forms, OSError and IgnoredError if nothing was changed.
    """
    with held(care.pin(special.name)) as pinned:
        form, wanted, result = _weighed(pinned, special, change, care)
        if result.changed:
            _change(pinned, form, wanted)
        return result


def foretell(special: Special, change: Change, care: Care) -> SpecialResult:
    """What ``carry`` would do. Changes nothing; raises what ``carry`` raises before a change."""
    with held(care.pin(special.name)) as pinned:
        return _weighed(pinned, special, change, care)[2]


def _weighed(
    pinned: int, special: Special, change: Change, care: Care
) -> tuple[Form, Form, SpecialResult]:
    """The present form of a pinned entry, the wanted form, and the result for the caller."""
    now = os.fstat(pinned)
    form = _form(pinned, now)
    is_renewed = care.renewed.get((special.device, special.inode)) == now.st_ino
    _same(special, now, form, change, is_renewed=is_renewed)

    wanted = power.lawful(form, change.new) if change.back else change.new
    # A new inode keeps its power: its content is proved, and no other process had it open.
    if is_renewed and form == change.whole and not change.back:
        wanted = form
    lacks = wanted != (change.new if change.back else change.whole)
    return form, wanted, SpecialResult(form != wanted, lacks, now.st_ino)


def _change(pinned: int, form: Form, wanted: Form) -> None:
    """Set owner, ACLs, mode and capability where they differ. Raises what ``carry`` raises."""
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

        # chown and ACL may have changed the mode, so look again. Symlinks have none to set.
        mode = stat.S_IMODE(wanted.mode)
        if not stat.S_ISLNK(form.mode) and stat.S_IMODE(os.fstat(pinned).st_mode) != mode:
            os.chmod(path, mode)
            touched = True

        # The chown above has removed the old capability already.
        if wanted.capability is None and form.capability is not None and not chowned:
            os.removexattr(path, CAPABILITY)
        if wanted.capability is not None and (chowned or form.capability != wanted.capability):
            os.setxattr(path, CAPABILITY, wanted.capability)
    except OSError as error:
        if not touched:
            raise
        raise half_done(str(error.strerror)) from error


def _give(pinned: int, form: Form, owner: Owner) -> None:
    """Change the owner, and check that the file system keeps it. On an error, restore the inode.

    The kernel removes the capability before the file system refuses (EDQUOT for a full quota).
    File systems that set their own owners accept the call and keep theirs.
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
    """Restore owner, mode and capability after a failed chown."""
    path = f"/proc/self/fd/{pinned}"
    try:
        here = os.fstat(pinned)
        if here[4:6] != form.owner:
            syscalls.chown_pinned(pinned, *form.owner)
        if not stat.S_ISLNK(form.mode) and os.fstat(pinned).st_mode != form.mode:
            os.chmod(path, stat.S_IMODE(form.mode))
        if form.capability is not None and attribute(pinned, CAPABILITY) != form.capability:
            os.setxattr(path, CAPABILITY, form.capability)
    except OSError as error:
        lost = (
            f"its owner did not change, and it lost its setuid bit or capability: {error.strerror}"
        )
        raise OSError(error.errno, lost) from error


def _same(
    special: Special, now: os.stat_result, form: Form, change: Change, *, is_renewed: bool
) -> None:
    """Check that this is the journal's inode, in a state that a run leaves. Else MeanwhileError."""
    forms = (change.old, change.new, change.whole)
    is_it = now.st_ino == special.inode or is_renewed
    if not is_it or stat.S_IFMT(now.st_mode) != stat.S_IFMT(special.mode):
        raise MeanwhileError("another file has its name now")
    # A new hard link may lie outside the volume.
    if now.st_nlink > special.links and not stat.S_ISDIR(now.st_mode):
        raise MeanwhileError("it has another hard link")
    if form.owner not in {*change.olds, change.new.owner}:
        raise MeanwhileError(f"its owner is {form.owner[0]}:{form.owner[1]} now")
    # Bits and capability may be missing: a kill came right after our chown, or we removed power.
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
        raise MeanwhileError("its ACL has changed")
    gone = form.capability is None and (chowned or change.back)
    if form.capability not in {one.capability for one in forms} and not gone:
        raise MeanwhileError("its capability has changed")


def after_chown(mode: int) -> int:
    """The permission bits after chown(2): no setuid, and no setgid if the group may execute."""
    if stat.S_ISDIR(mode):
        return stat.S_IMODE(mode)
    cleared = stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0)
    return stat.S_IMODE(mode) & ~cleared


def _form(pinned: int, seen: os.stat_result) -> Form:
    found = (
        [None] * 3
        if stat.S_ISLNK(seen.st_mode)
        else [attribute(pinned, name) for name in _ATTRIBUTES]
    )
    return Form((seen.st_uid, seen.st_gid), seen.st_mode, *found)
