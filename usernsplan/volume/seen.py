"""The results of workers: what they saw in folders, and what they changed. No I/O."""

from __future__ import annotations

import stat
from array import array
from collections import Counter
from functools import lru_cache
from itertools import chain, compress
from operator import ne
from typing import TYPE_CHECKING

from usernsplan.values import NamedTuple, dataclass, field
from usernsplan.volume.power import SETID

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from usernsplan.volume.entries import Special
    from usernsplan.volume.logs import Folder
    from usernsplan.volume.parts import Parts
    from usernsplan.volume.passes import Form
    from usernsplan.volume.targets import Owner

# A path, and what to report about it.
PathReason = tuple[str, str]


@dataclass(slots=True)
class Linked:
    """The names of inodes with several names, in packed arrays: a volume may have a million.

    ``names`` has, by device, link count and kinds of change (see kinds_of; None for no change), the
    inode and the ctime that each name showed.
    """

    names: dict[tuple[int, int, tuple[str, ...] | None], tuple[array[int], array[int]]] = field(
        default_factory=dict
    )

    def add(
        self,
        key: tuple[int, int, tuple[str, ...] | None],
        inodes: array[int],
        changed_ns: array[int],
    ) -> None:
        """Add names with this key."""
        to = self.names.setdefault(key, (array("Q"), array("q")))
        to[0].extend(inodes)
        to[1].extend(changed_ns)

    def outside(self) -> frozenset[tuple[int, int]]:
        """The inodes (device, inode) of which a name was not found, or was moved.

        A rename changes the ctime. If one moves a name from a folder that was not seen yet into one
        that was, the same name can be met twice; then its inode shows two ctimes.
        """
        found: set[tuple[int, int]] = set()
        for device in {device for device, _, _ in self.names}:
            parts = [
                (links, *arrays) for (one, links, _), arrays in self.names.items() if one == device
            ]
            met = Counter(chain.from_iterable(inodes for _, inodes, _ in parts))
            for links, inodes, _ in parts:
                found.update((device, inode) for inode in inodes if met[inode] < links)
            del met  # there may be a million of them: one table at a time

            times: dict[int, int] = {}
            for _, inodes, changed_ns in parts:
                times.update(zip(inodes, changed_ns, strict=True))
            for _, inodes, changed_ns in parts:
                is_moved = map(ne, map(times.__getitem__, inodes), changed_ns)
                found.update((device, inode) for inode in compress(inodes, is_moved))
        return frozenset(found)

    def changing_names(self) -> int:
        """How many names have an inode that changes."""
        return sum(
            len(names[0]) for (_, _, kinds), names in self.names.items() if kinds is not None
        )

    def changes(self, outside: Collection[tuple[int, int]]) -> bool:
        """Tell whether an inode changes that is not ``outside``."""
        return any(
            (device, inode) not in outside
            for (device, _, kinds), (inodes, _) in self.names.items()
            if kinds is not None
            for inode in inodes
        )

    def changing(self, outside: Collection[tuple[int, int]]) -> Counter[tuple[str, ...]]:
        """How many inodes change that are not ``outside``, by their kinds."""
        found: dict[tuple[int, tuple[str, ...]], set[int]] = {}
        for (device, _, kinds), (inodes, _) in self.names.items():
            if kinds is not None:
                found.setdefault((device, kinds), set()).update(inodes)
        counts: Counter[tuple[str, ...]] = Counter()
        for (device, kinds), several in found.items():
            counts[kinds] += len(several - {inode for one, inode in outside if one == device})
        return counts


class Lacking(NamedTuple):
    """A name whose file loses power: ``whole`` is the file's form with it, ``left`` without it.

    ``volume``, ``parts`` and ``name`` locate it. ``entry`` is the entry as it was before the run,
    ``inode`` the number of its inode now. ``changed``: its change is not counted yet.
    """

    volume: int
    parts: Parts
    name: str
    entry: Special
    whole: Form
    left: Form
    inode: int
    changed: bool = False


@dataclass(slots=True)
class Seen:
    """What was seen.

    ``changes`` counts the entries that the pass changes, except linked inodes, which are in
    ``linked``. ``lacking`` are the names whose files would lose power. ``unseen`` are places that
    could not be looked at. ``outside`` are the names of linked inodes that were asked for, see
    Naming. ``copies`` is how many entries an overlay would copy up,
    ``copied_bytes`` their size. ``tops`` are the owners of the tops of the volumes.
    """

    entries: int = 0
    changes: int = 0
    owners: Counter[Owner] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    unmapped_uids: Counter[int] = field(default_factory=Counter)
    unmapped_gids: Counter[int] = field(default_factory=Counter)
    linked: Linked = field(default_factory=Linked)
    outside: list[str] = field(default_factory=list)
    refusals: list[PathReason] = field(default_factory=list)
    skipped: list[PathReason] = field(default_factory=list)
    failed: list[PathReason] = field(default_factory=list)
    unseen: list[PathReason] = field(default_factory=list)
    lacking: list[Lacking] = field(default_factory=list)
    special: bool = False
    tops: list[Owner] = field(default_factory=list)
    copies: int = 0
    copied_bytes: int = 0


@dataclass(slots=True)
class Done:
    """What was changed. ``linked`` are inodes with several names, by device and kinds of change.

    ``failed`` are entries of the journal; a later run tries exactly these again. ``named`` are
    other entries that were left alone; ``unseen`` are places that the second look could not see.
    ``half``: an entry is changed in part, so the run has to be finished. ``lost``: a folder was not
    where it was noted. ``carried`` are the paths that were tried again and are right now.
    ``lacking`` are the names whose files lost power. ``ignored`` is a path whose file system
    accepted the change of owner but did not store it. ``tops`` are the notes of the tops, which
    change last.
    """

    changed: int = 0
    stragglers: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    linked: dict[tuple[int, tuple[str, ...]], array[int]] = field(default_factory=dict)
    skipped: list[PathReason] = field(default_factory=list)
    failed: list[PathReason] = field(default_factory=list)
    named: list[PathReason] = field(default_factory=list)
    unseen: list[PathReason] = field(default_factory=list)
    tops: list[Folder] = field(default_factory=list)
    lacking: list[Lacking] = field(default_factory=list)
    half: bool = False
    lost: bool = False
    carried: set[str] = field(default_factory=set)
    ignored: str = ""

    def count(self, form: Form, device: int, inodes: array[int], *, linked: bool) -> None:
        """Count inodes of a form that were changed."""
        kinds = kinds_of(form, linked=linked)
        if linked:
            self.linked.setdefault((device, kinds), array("Q")).extend(inodes)
        else:
            self.changed += len(inodes)
            for kind in kinds:
                self.kinds[kind] += len(inodes)

    def counted(self) -> int:
        """How many changes were counted."""
        return self.changed + sum(map(len, self.linked.values()))


def kinds_of(form: Form, *, linked: bool) -> tuple[str, ...]:
    """The kinds of change that the change of an entry counts as, such as "acl"."""
    has_acl = form.acl is not None or form.default_acl is not None
    return _kinds(form.mode, form.capability is not None, has_acl, linked)


@lru_cache(maxsize=4096)
def _kinds(mode: int, capable: bool, has_acl: bool, linked: bool) -> tuple[str, ...]:  # noqa: FBT001 - a key
    facts = {
        "setuid": bool(mode & SETID) and not stat.S_ISDIR(mode) and not stat.S_ISLNK(mode),
        "capability": capable,
        "acl": has_acl,
        "device": stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
        "hard_link": linked,
    }
    return tuple(kind for kind, holds in facts.items() if holds)


def merged(parts: Iterable[Seen]) -> Seen:
    """The sum of what several workers saw."""
    whole = Seen()
    for part in parts:
        whole.entries += part.entries
        whole.changes += part.changes
        whole.owners.update(part.owners)
        whole.kinds.update(part.kinds)
        whole.unmapped_uids.update(part.unmapped_uids)
        whole.unmapped_gids.update(part.unmapped_gids)
        whole.refusals += part.refusals
        whole.skipped += part.skipped
        whole.failed += part.failed
        whole.unseen += part.unseen
        whole.lacking += part.lacking
        whole.special |= part.special
        whole.tops += part.tops
        whole.copies += part.copies
        whole.copied_bytes += part.copied_bytes
        whole.outside += part.outside
        for key, arrays in part.linked.names.items():
            whole.linked.add(key, *arrays)
    return whole
