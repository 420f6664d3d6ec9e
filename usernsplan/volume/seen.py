"""The results of workers: what they saw in folders, and what they changed. No I/O."""

from __future__ import annotations

import stat
from collections import Counter
from typing import TYPE_CHECKING

from usernsplan.values import NamedTuple, dataclass, field
from usernsplan.volume.power import SETID

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.volume.logs import Folder
    from usernsplan.volume.parts import Parts
    from usernsplan.volume.passes import Form
    from usernsplan.volume.special import Special
    from usernsplan.volume.targets import Owner

# A path, and what to report about it.
PathReason = tuple[str, str]


@dataclass(slots=True)
class Linked:
    """An inode with several names.

    ``links`` is its link count, ``found`` how many names were met, ``kinds`` what its change counts
    as (see kinds_of), None if it does not change. ``places`` are the names, while some are missing.
    ``changed_ns`` is its ctime when it was first seen. A rename changes the ctime; if one moves a
    name from a folder that we have not seen yet into one that we have, the same name can be met
    twice, and ``moved`` says so.
    """

    links: int
    changed_ns: int
    found: int = 0
    kinds: tuple[str, ...] | None = None
    moved: bool = False
    places: list[str] = field(default_factory=list)

    def add(self, other: Linked) -> None:
        """Add more names of the same inode."""
        self.found += other.found
        self.kinds = self.kinds if other.kinds is None else other.kinds
        self.moved |= other.moved or self.changed_ns != other.changed_ns
        if self.is_inside:
            self.places.clear()
        else:
            self.places += other.places

    @property
    def is_inside(self) -> bool:
        """Tell whether all its names were found in the volume and none was moved."""
        return self.found >= self.links and not self.moved


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
    could not be looked at. ``copies`` is how many entries an overlay would copy up,
    ``copied_bytes`` their size. ``tops`` are the owners of the tops of the volumes.
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
    """What was changed. ``linked`` are inodes with several names.

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
    """The kinds of change that the change of an entry counts as, such as "acl"."""
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
        for key, linked in part.linked.items():
            whole.meet(key, linked)
    return whole
