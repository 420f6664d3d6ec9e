"""Power: what a regular file lets others become, by its setuid bit, setgid bit or capability. Pure.

The rule: after a run, nobody can become an id through a file that they could not become before.
Host root counts as every id. If a container alone has the ids that old ids move to, an old id
and its image count as one.
"""

from __future__ import annotations

import stat
import struct
from typing import TYPE_CHECKING

from usernsplan.errors import InvalidValueError
from usernsplan.escape import operand
from usernsplan.harden.names import CAPABILITIES
from usernsplan.ids import IdRange, IdSet
from usernsplan.values import dataclass, field, replace
from usernsplan.volume import metadata

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.volume.passes import Form

SETID = stat.S_ISUID | stat.S_ISGID
# On systemd and all distributions, ids below this belong to the system or to people, used or not.
_OF_THE_HOST = IdRange(0, 65536)


@dataclass(frozen=True, slots=True)
class Images:
    """Ids that are only images of old ids: one container's alone, and no host account's."""

    uids: IdSet = field(default_factory=IdSet)
    gids: IdSet = field(default_factory=IdSet)

    def to_json(self) -> list[list[list[int]]]:
        """The two sets as the journal keeps them."""
        return [[[ids.start, ids.count] for ids in kind] for kind in (self.uids, self.gids)]

    @classmethod
    def from_json(cls, content: list[list[list[int]]]) -> Images:
        """Read what to_json wrote."""
        return cls(*(IdSet(IdRange(*ids) for ids in kind) for kind in content))


NONE = Images()


def images(
    targets: tuple[IdSet, IdSet],
    accounts: IdSet,
    holders: Iterable[IdSet],
    passed: tuple[IdSet, IdSet] = (IdSet(), IdSet()),
) -> Images:
    """The images in a map's ``targets`` (uids and gids on the host), if nobody else has those ids.

    ``accounts`` are the ids of the host's accounts and groups, ``passed`` the uids and the gids
    that pass through to a container. If several ``holders`` (allocations, owners of lines in subuid
    and subgid) have ids in the targets, the container could be any of theirs; then none of their
    ids is an image.
    """
    theirs = [ids for ids in holders if any(ids & target for target in targets)]
    clashing = IdSet.union(theirs) if len(theirs) > 1 else IdSet()
    strange = IdSet([_OF_THE_HOST]) | accounts | clashing
    return Images(
        *(target - strange - shown for target, shown in zip(targets, passed, strict=True))
    )


def is_setuid(mode: int) -> bool:
    """Tell whether a file runs as its owner."""
    return stat.S_ISREG(mode) and bool(mode & stat.S_ISUID)


def is_setgid(mode: int) -> bool:
    """Tell whether a file runs as its group.

    Without group execute the bit once meant mandatory locking; it has no effect on execution.
    """
    return stat.S_ISREG(mode) and bool(mode & stat.S_ISGID and mode & stat.S_IXGRP)


def has_power(form: Form) -> bool:
    """Tell whether a file lets others become something."""
    if form.capability is None and not form.mode & SETID:
        return False
    return (
        is_setuid(form.mode)
        or is_setgid(form.mode)
        or (stat.S_ISREG(form.mode) and form.capability is not None)
    )


def lawful(old: Form, new: Form, same: Images = NONE, *, own: bool = False) -> Form:
    """``new`` without the power to become an id that nobody could become through ``old``.

    ``own``: everything gets one owner. Then a capability stays only if the file was root's or
    the new owner's before: the content of any other file is not to be trusted.
    """
    mode, capability = new.mode, new.capability
    (old_uid, old_gid), (uid, gid) = old.owner, new.owner

    if is_setuid(mode) and not (is_setuid(old.mode) and (old_uid in {0, uid} or uid in same.uids)):
        mode &= ~stat.S_ISUID
    if is_setgid(mode) and not (
        is_setgid(old.mode) and (old_gid == gid or old.owner == (0, 0) or gid in same.gids)
    ):
        mode &= ~stat.S_ISGID
    if capability is not None and not (
        old.capability is not None
        and _is_no_more(old.capability, capability, same)
        and (not own or old_uid in {0, uid})
    ):
        capability = None
    return replace(new, mode=mode, capability=capability)


def _is_no_more(old: bytes, new: bytes, same: Images) -> bool:
    """Tell whether the new capability gives nobody more than the old one."""
    try:
        before, after = metadata.capability_rootid(old), metadata.capability_rootid(new)
    except InvalidValueError:
        return old == new
    # Compare the capabilities without their roots.
    if metadata.capability_for(old, 0) != metadata.capability_for(new, 0):
        return False
    return before in {0, after} or after in same.uids


def without(form: Form) -> Form:
    """The same form without any power."""
    setgid = stat.S_ISGID if is_setgid(form.mode) else 0
    mode = form.mode & ~(stat.S_ISUID | setgid) if stat.S_ISREG(form.mode) else form.mode
    return replace(form, mode=mode, capability=None)


def lost(whole: Form, left: Form) -> str:
    """The power that a file has lost, as a list for people; "" if none."""
    uid, gid = whole.owner
    words = []
    if is_setuid(whole.mode) and not is_setuid(left.mode):
        words.append(f"setuid {uid}")
    if is_setgid(whole.mode) and not is_setgid(left.mode):
        words.append(f"setgid {gid}")
    if whole.capability is not None and left.capability is None:
        words.append("capability")
    return ", ".join(words)


def commands(whole: Form, left: Form, path: str) -> str:
    """The commands, ready to paste, that give a file its lost power back."""
    shown = operand(path)
    found = []
    if stat.S_IMODE(whole.mode) != stat.S_IMODE(left.mode):
        found.append(f"chmod {stat.S_IMODE(whole.mode):04o} {shown}")
    if whole.capability is not None and left.capability is None:
        found.append(f"setcap {_setcap(whole.capability)} {shown}")
    return " && ".join(found)


def _setcap(raw: bytes) -> str:
    """The arguments of setcap(8): ``-n ROOTID`` for a container's root, then the clauses."""
    root = metadata.capability_rootid(raw)
    magic, *words = struct.unpack_from("<5I", raw)
    permitted, inheritable = (words[at] | words[at + 2] << 32 for at in (0, 1))

    # One clause for all capabilities with the same letters.
    flags: dict[str, list[str]] = {}
    for number in range((permitted | inheritable).bit_length()):
        letters = ("e" if magic & 1 else "") + "".join(
            letter for letter, mask in (("i", inheritable), ("p", permitted)) if mask >> number & 1
        )
        if (permitted | inheritable) >> number & 1:
            flags.setdefault(letters, []).append(_name(number))
    clauses = " ".join(f"{','.join(names)}={letters}" for letters, names in flags.items()) or "="
    return (f"-n {root} " if root else "") + (f"'{clauses}'" if " " in clauses else clauses)


def _name(number: int) -> str:
    return f"cap_{CAPABILITIES[number]}" if number < len(CAPABILITIES) else str(number)
