"""What workers tell of folders: what was seen there, and what was changed. No I/O."""

from __future__ import annotations

import stat
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.volume.power import SETID

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.volume.logs import Folder
    from usernsplan.volume.passes import Form
    from usernsplan.volume.special import Special
    from usernsplan.volume.targets import Owner

# A path, and what is to be said of it.
PathReason = tuple[str, str]


@dataclass(slots=True)
class Linked:
    """An inode with several names: how many it has, how many were found, what its change would be counted as.

    ``changed_ns`` is its ctime when it was first seen. A rename changes that: whoever renames a name from where we have
    not been to where we are makes one name look like two. ``places`` are the names, as long as some are missing.
    """

    links: int
    changed_ns: int
    found: int = 0
    kinds: tuple[str, ...] | None = None
    moved: bool = False
    places: list[str] = field(default_factory=list)

    def add(self, other: Linked) -> None:
        """Take in more names of the same inode."""
        self.found += other.found
        self.kinds = self.kinds if other.kinds is None else other.kinds
        self.moved |= other.moved or self.changed_ns != other.changed_ns
        if self.is_inside:
            self.places.clear()
        else:
            self.places += other.places

    @property
    def is_inside(self) -> bool:
        """Tell whether all its names were found in the volume, each where it stayed."""
        return self.found >= self.links and not self.moved


class Lacking(NamedTuple):
    """A name whose file loses power: ``whole`` is what the file would be with it, ``left`` what it is without.

    ``parts`` and ``name`` say where it lies in which volume, ``inode`` what it is now (``entry``: what it was before the
    run); ``changed``: its change is yet to be counted.
    """

    volume: int
    parts: tuple[str, ...]
    name: str
    entry: Special
    whole: Form
    left: Form
    inode: int
    changed: bool = False


@dataclass(slots=True)
class Seen:
    """What was seen. ``changes`` counts the entries that are not right, without linked inodes: ``linked`` has those.

    ``lacking`` are the names whose files would lose power. ``unseen`` are places that could not be looked at.
    ``copies``: so many entries, with so many bytes, would be copied up in an overlay.
    """

    entries: int = 0
    changes: int = 0
    owners: Counter[Owner] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    unmapped_uids: Counter[int] = field(default_factory=Counter)
    unmapped_gids: Counter[int] = field(default_factory=Counter)
    linked: dict[tuple[int, int], Linked] = field(default_factory=dict)
    refusals: list[PathReason] = field(default_factory=list)
    skipped: list[PathReason] = field(default_factory=list)
    failed: list[PathReason] = field(default_factory=list)
    unseen: list[PathReason] = field(default_factory=list)
    lacking: list[Lacking] = field(default_factory=list)
    special: bool = False
    # Whose the tops of the volumes are.
    tops: list[Owner] = field(default_factory=list)
    copies: int = 0
    copied_bytes: int = 0

    def meet(self, key: tuple[int, int], linked: Linked) -> None:
        """Note more names of a linked inode (device, inode)."""
        if key in self.linked:
            self.linked[key].add(linked)
        else:
            self.linked[key] = linked


@dataclass(slots=True)
class Done:
    """What was changed. ``linked`` are inodes with several names; ``half`` tells that the run has to be finished.

    ``failed`` are entries of the journal, all of them: these, and no others, are tried again. ``named`` are others that
    were left as they are; ``unseen`` are places that could not be looked at once more.

    ``lost``: a folder was not where it had been noted; ``carried`` are the paths that were tried again and are right;
    ``lacking`` are the names whose files have lost power; ``ignored``: a path whose file system took the change of
    owner and kept its own.
    """

    changed: int = 0
    stragglers: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    linked: dict[tuple[int, int], tuple[str, ...]] = field(default_factory=dict)
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


def kinds_of(entry: Special) -> tuple[str, ...]:
    """What the change of an entry is counted as, beside being a change."""
    mode, form = entry.mode, entry.form
    facts = {
        "setuid": bool(mode & SETID) and not stat.S_ISDIR(mode) and not stat.S_ISLNK(mode),
        "capability": form.capability is not None,
        "acl": form.acl is not None or form.default_acl is not None,
        "device": stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
        "hard_link": entry.linked,
    }
    return tuple(kind for kind, holds in facts.items() if holds)


def merged(parts: Iterable[Seen]) -> Seen:
    """What several workers saw, as one."""
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
        for key, linked in part.linked.items():
            whole.meet(key, linked)
    return whole
