"""What a worker does with one folder: look at it (and note it in the journal), and carry a note out, or back.

``Looker`` changes nothing. ``Carrier`` does only what a Folder of the journal and a Turn say, and leaves alone whatever
is not as noted. Both stand in the folder while they work: names are looked up there and nowhere else.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.errors import InvalidValueError
from usernsplan.host import procfs
from usernsplan.ids import OVERFLOW_ID, IdSet
from usernsplan.volume import power, renew, special, syscalls, walk
from usernsplan.volume.folder import (
    BY_NAME,
    IMMUTABLE,
    StepOptions,
    has_attributes,
    reason,
    step,
)
from usernsplan.volume.journal import Folder
from usernsplan.volume.metadata import capability_rootid, named
from usernsplan.volume.special import (
    Care,
    Change,
    HalfDoneError,
    IgnoredError,
    MeanwhileError,
    Special,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from usernsplan.host.mounts import MountPoint
    from usernsplan.volume.journal import Links
    from usernsplan.volume.renew import Proof
    from usernsplan.volume.targets import Form, Owner, Pass
    from usernsplan.volume.walk import OpenVolume

_SETID = stat.S_ISUID | stat.S_ISGID
# More problems than anybody will read: the first of them refuses the run.
MOST_PLACES = 10_000
# Names of one folder that are noted in one line of the journal.
_LINE = 4096
# So many entries of a folder are tried, to see whether its file system takes owners.
_TRIES = 100
# What failed where a folder could not be read: all that is in it.
_CONTENT = "."
_MOUNT = "it is a mount point; --cross-mounts enters it"
# Told by the table of ids, not entry by entry, where nothing is changed yet.
_UNMAPPED = "its ACL has an id that the map lacks"
_TWICE = "it is a mount point, and what it shows is met under another name"
_READ_ONLY = "it is a mount point, and read-only"
_IDMAPPED = "it is a mount point, and idmapped: fix the folder that is mounted there"

Place = tuple[str, str]


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

    ``parts`` and ``name`` say where it lies in which tree, ``inode`` what it is now (``entry``: what it was before the
    run); ``changed``: its change is yet to be counted.
    """

    tree: int
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
    refusals: list[Place] = field(default_factory=list)
    skipped: list[Place] = field(default_factory=list)
    failed: list[Place] = field(default_factory=list)
    unseen: list[Place] = field(default_factory=list)
    lacking: list[Lacking] = field(default_factory=list)
    special: bool = False
    # Whose the tops of the volumes are.
    tops: list[Owner] = field(default_factory=list)
    copies: int = 0
    copied_bytes: int = 0


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
    skipped: list[Place] = field(default_factory=list)
    failed: list[Place] = field(default_factory=list)
    named: list[Place] = field(default_factory=list)
    unseen: list[Place] = field(default_factory=list)
    tops: list[Folder] = field(default_factory=list)
    lacking: list[Lacking] = field(default_factory=list)
    half: bool = False
    lost: bool = False
    carried: set[str] = field(default_factory=set)
    ignored: str = ""


def _no_place(owner: Owner) -> str:
    return f"its owner {owner[0]}:{owner[1]} has no place in the map"


def kinds_of(entry: Special) -> tuple[str, ...]:
    """What the change of an entry is counted as, beside being a change."""
    mode, form = entry.mode, entry.form
    facts = {
        "setuid": bool(mode & _SETID) and not stat.S_ISDIR(mode) and not stat.S_ISLNK(mode),
        "capability": form.capability is not None,
        "acl": form.acl is not None or form.default_acl is not None,
        "device": stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
        "hard_link": entry.linked,
    }
    return tuple(kind for kind, holds in facts.items() if holds)


def unmounted(
    volume: OpenVolume, parts: tuple[str, ...], names: list[str]
) -> tuple[list[str], list[Place]]:
    """The names of the current folder without those mount points that are left alone, and why.

    Changing such a name would change what is mounted there, which lies outside.
    """
    mounted = volume.mounts.names.get(parts)
    if not mounted:
        return names, []
    # What serves a mount may be dead, and then every call on it fails or hangs: one that is not entered is not asked.
    left = {
        name: why
        for name in mounted.intersection(names)
        if (why := _left_alone(volume, parts, name) if volume.cross_mounts else _MOUNT)
    }
    return [name for name in names if name not in left], [
        (volume.shown(parts, name), left[name]) for name in left
    ]


def _left_alone(volume: OpenVolume, parts: tuple[str, ...], name: str) -> str:
    """Why a mount point in the current folder is not entered, although mounts are; "" where it is."""
    if volume.shown(parts, name) in volume.twice:
        return _TWICE
    if volume.shown(parts, name) in volume.idmapped:
        return _IDMAPPED
    try:
        os.lstat(name)
        return _READ_ONLY if os.statvfs(name).f_flag & os.ST_RDONLY else ""
    except OSError as error:
        return f"it is a mount point, and cannot be looked at: {reason(error)}"


def _is_in_upper(overlay: MountPoint, shown: str, name: str) -> bool:
    """Tell whether an entry of the current folder is in the upper folder of its overlay already.

    Its handle says so of what was made there. What was copied up is looked for in that folder; where this cannot be
    found by the path that it had when it was mounted, nothing counts as copied up.
    """
    if syscalls.is_only_in_upper(name):
        return True
    upper = overlay.fs_option("upperdir")
    if not upper.startswith("/"):
        return False
    inside = overlay.root.rstrip("/") + shown[len(overlay.point.rstrip("/")) :]
    try:
        return stat.S_IFMT(os.lstat(upper + inside).st_mode) == stat.S_IFMT(os.lstat(name).st_mode)
    except OSError:
        return False


def _top_of_device(volume: OpenVolume, note: Folder) -> str:
    """The path of the outermost folder above a noted one, or itself, that lies on the same file system."""
    for length in range(len(note.parts)):
        try:
            above = walk.folder(volume, note.parts[:length])
        except OSError:
            continue
        try:
            if os.fstat(above).st_dev == note.device:
                return volume.shown(note.parts[:length])
        finally:
            os.close(above)
    return volume.shown(note.parts)


class Looker:
    """Looks at folders, and changes nothing.

    ``late``: the run is under way, so what cannot be carried is named instead of counted; ``outside`` are linked inodes
    that were named before. ``dry``: nothing will be changed after it, so what could not be changed is to be found now.
    """

    def __init__(
        self,
        volumes: Sequence[OpenVolume],
        turn: Pass,
        *,
        late: bool = False,
        dry: bool = False,
        outside: frozenset[tuple[int, int]] = frozenset(),
    ) -> None:
        self.found = Seen()
        self._volumes = volumes
        self._turn = turn
        self._late = late
        self._dry = dry
        self._outside = outside
        self._wanted: dict[Owner, Owner | None] = {}
        # Of an inode with many names, the content is read once.
        self._proofs: dict[tuple[int, int, int, int], Proof | None] = {}
        moves = (turn.targets.uids, turn.targets.gids)
        # Whether an id that the map lacks may stay, so that it has to be counted all the same.
        self._may_lack = any(move.keep or move.others for move in moves)
        self._read_only: dict[int, bool] = {}
        self._namespace = procfs.own_ids() if dry else (IdSet(), IdSet())

    def look(
        self, tree: int, parts: tuple[str, ...], seen_before: int = 0, *, first: bool = True
    ) -> tuple[list[Folder], list[str], int]:
        """Look at one folder: what is to be noted of it, in one or several pieces; its sub-folders; their seen_before.

        See step for ``seen_before``. A folder that was changed since then may have been moved here with all that is in
        it, whose own times tell nothing of that.
        """
        volume = self._volumes[tree]
        try:
            pinned = walk.folder(volume, parts)
        except OSError as error:
            if error.errno == errno.EXDEV:
                self.found.skipped.append((volume.shown(parts), _MOUNT))
            elif error.errno not in walk.GONE:
                self._unseen(volume.shown(parts), reason(error))
            return [], [], 0
        try:
            seen = os.fstat(pinned)
            seen_before = seen_before if seen.st_ctime_ns < seen_before else 0
            notes, folders = self._look(
                volume, Folder(tree, parts, seen.st_dev, seen.st_ino), pinned, seen_before
            )
        except OSError as error:
            # It opens and cannot be read: nothing in it is carried, and the rest is.
            self._unseen(volume.shown(parts), reason(error))
            return [], [], 0
        finally:
            os.close(pinned)
        self.found.entries += first and not volume.only
        return notes, folders, seen_before

    def _look(
        self, volume: OpenVolume, note: Folder, pinned: int, seen_before: int
    ) -> tuple[list[Folder], list[str]]:
        os.fchdir(pinned)
        seen = os.fstat(pinned)
        notes, folders = [note], []
        if not note.parts and not volume.only:
            self.found.tops.append((seen.st_uid, seen.st_gid))
        if not volume.only:
            self._itself(volume, note, seen)
        for batch in walk.names(pinned, seen.st_size, volume.only):
            names, mounted = unmounted(volume, note.parts, batch)
            self.found.skipped += mounted
            if mounted:
                self._room(notes).left.extend(set(batch) - set(names))
            found = step(pinned, names, StepOptions(seen_before=seen_before))
            # In place of a single file there may be a folder by now, which nobody named.
            folders += [] if volume.only else found.folders
            self.found.entries += sum(map(len, found.plain.values())) + len(found.care)
            if self._late:
                self._name_unmapped(volume, note.parts, found.plain)
            self._plain(volume, notes, found.plain, several=seen.st_size >= walk.BIG)
            for name in found.care:
                self._special(volume, notes, name)
            for name, why in found.reasons():
                self._leave(volume, notes, name, why, unseen=True)
        return notes, folders

    def wanted(self, owner: Owner) -> Owner | None:
        """What this owner becomes in this passage; see Turn."""
        if owner not in self._wanted:
            self._wanted[owner] = self._turn.wanted(owner)
        return self._wanted[owner]

    def _owner_changes(self, owner: Owner, entries: int) -> bool:
        """Count these entries' owner; tell whether it is to be changed."""
        self.found.owners[owner] += entries
        wanted = self.wanted(owner)
        targets = self._turn.targets
        if targets.owner is None and (wanted is None or self._may_lack):
            self._unmapped(owner, entries)
        return wanted is not None and wanted != owner

    def _unmapped(self, owner: Owner, entries: int) -> None:
        targets = self._turn.targets
        first = self._turn.first(owner)
        if first is None or targets.uids.lacks(first[0]):
            self.found.unmapped_uids[owner[0]] += entries
        if first is None or targets.gids.lacks(first[1]):
            self.found.unmapped_gids[owner[1]] += entries

    def _name_unmapped(
        self, volume: OpenVolume, parts: tuple[str, ...], plain: dict[Owner, list[str]]
    ) -> None:
        for owner, names in plain.items():
            if self.wanted(owner) is None:
                for name in names:
                    self._fail(volume.shown(parts, name), _no_place(owner))

    def _first(self, owner: Owner) -> Owner:
        return self._turn.first(owner) or owner

    def _plain(
        self,
        volume: OpenVolume,
        notes: list[Folder],
        plain: dict[Owner, list[str]],
        *,
        several: bool,
    ) -> None:
        """Note the plain entries of a folder, or of one of several batches of its names."""
        changing = {
            owner: names for owner, names in plain.items() if self._owner_changes(owner, len(names))
        }
        may = {
            owner: self._changeable(volume, notes, names, owner)
            for owner, names in changing.items()
        }
        changing = {owner: names for owner, names in may.items() if names}
        if volume.overlays:
            self._copies(volume, notes[0], chain.from_iterable(changing.values()))
        if not changing and not several:
            return
        self.found.changes += sum(map(len, changing.values()))
        if len(notes) == 1 and notes[0].common is None and changing:
            common = max(changing, key=lambda owner: len(changing[owner]))
            notes[0].common = self._first(common)
        for owner, names in plain.items():
            first = self._first(owner)
            if owner in changing and first == notes[0].common:
                continue
            for start in range(0, len(names), _LINE):
                room = self._room(notes)
                if owner in changing:
                    room.others.append((first, names[start : start + _LINE]))
                else:
                    # Backwards, what was right all along must not be taken for what the run has made so.
                    room.left += names[start : start + _LINE]

    def _changeable(
        self, volume: OpenVolume, notes: list[Folder], names: list[str], owner: Owner
    ) -> list[str]:
        """The names of this owner without those that the system would not let us change, which are named."""
        if self._is_read_only(volume, notes[0]):
            return []
        if not self._dry:
            return names
        why = self._not_ours(owner)
        stuck = {name: why or IMMUTABLE for name in names if why or syscalls.is_immutable(name)}
        for name, reason_why in stuck.items():
            self._leave(volume, notes, name, reason_why)
        return [name for name in names if name not in stuck] if stuck else names

    def _copies(self, volume: OpenVolume, note: Folder, names: Iterable[str]) -> None:
        """Count which of these entries a change of owner would copy up: those that the upper folder does not have."""
        # Of a file that is mounted by itself, the folder says nothing.
        met = [one for one in volume.overlays if volume.only or one.number == note.device]
        lying = [
            one
            for one in met
            if f"{volume.shown(note.parts)}/".startswith(one.point.rstrip("/") + "/")
        ]
        if not lying:
            return
        overlay = max(lying, key=lambda one: len(one.point))
        for name in names:
            try:
                if _is_in_upper(overlay, volume.shown(note.parts, name), name):
                    continue
                seen = os.lstat(name)
            except OSError:
                continue  # what goes away meanwhile is not copied
            self.found.copies += 1
            # With metacopy the content stays where it is; links are split all the same.
            has_content = stat.S_ISREG(seen.st_mode) and overlay.fs_option("metacopy") != "on"
            self.found.copied_bytes += seen.st_size if has_content else 0

    def _is_read_only(self, volume: OpenVolume, note: Folder) -> bool:
        """Tell whether nothing can be changed where the current folder lies; that is named once for all that is there.

        Asked once for each file system, and where it is not one system call more for every folder.
        """
        if note.device not in self._read_only:
            self._read_only[note.device] = syscalls.is_read_only(volume.only or ".")
            if self._read_only[note.device]:
                self._fail(_top_of_device(volume, note), "it is read-only")
        return self._read_only[note.device]

    def _not_ours(self, owner: Owner) -> str:
        """Why this user namespace does not let its root give what this owner has to its new one, or ""."""
        new = self.wanted(owner) or owner
        for kind, ids, old, wanted in zip(("uid", "gid"), self._namespace, owner, new, strict=True):
            if wanted not in ids:
                return f"this user namespace has no {kind} {wanted}"
            # What has no id here is shown as this one.
            if old == OVERFLOW_ID and old not in ids:
                return f"its {kind} has no id in this user namespace"
        return ""

    def _room(self, notes: list[Folder]) -> Folder:
        """The piece of the note to add to: a new one where the last is full."""
        last = notes[-1]
        if (
            len(last.special) + len(last.left) + sum(len(names) for _, names in last.others)
            >= _LINE
        ):
            notes.append(Folder(last.tree, last.parts, last.device, last.inode))
        return notes[-1]

    def _itself(self, volume: OpenVolume, note: Folder, seen: os.stat_result) -> None:
        try:
            if has_attributes("."):
                self._special(volume, [note], ".")
                return
        except OSError as error:
            self._leave(volume, [note], ".", reason(error, "."), unseen=True)
            return
        owner = (seen.st_uid, seen.st_gid)
        if self._owner_changes(owner, 1) and self._changeable(volume, [note], ["."], owner):
            note.own = self._first(owner)
            self.found.changes += 1

    def _leave(
        self, volume: OpenVolume, notes: list[Folder], name: str, why: str, *, unseen: bool = False
    ) -> None:
        """Name an entry that cannot be carried, and keep it out of what will be."""
        (self._unseen if unseen else self._fail)(
            volume.shown(notes[0].parts, "" if name == "." else name), why
        )
        self._room(notes).left.append(name)

    def _fail(self, place: str, why: str) -> None:
        self.found.failed.append((place, why))

    def _unseen(self, place: str, why: str) -> None:
        """Name what could not be looked at: nobody knows whose it is."""
        self._fail(place, why)
        self.found.unseen.append((place, why))

    def _special(self, volume: OpenVolume, notes: list[Folder], name: str) -> None:
        try:
            entry = special.look(name, volume.pin)
        except FileNotFoundError:
            return
        except OSError as error:
            self._leave(volume, notes, name, reason(error, name), unseen=True)
            return
        changes = self._owner_changes(entry.form.owner, 1)
        problems: list[str] = []
        # Of an overlapping map, only the owner tells whether an inode has been moved: staged or not.
        if (changes or self._turn.stage == 0) and self._turn.stage != 1:
            changes |= self._acl_changes(entry, problems)
            changes |= self._capability_changes(entry, problems)
        if self._late and (entry.device, entry.inode) in self._outside:
            return
        if self._late and (problems := problems + self._late_problems(entry, changes=changes)):
            self._leave(volume, notes, name, problems[0])
            return
        if changes and not self._changeable(volume, notes, [name], entry.form.owner):
            return
        if changes and volume.overlays and name != ".":
            self._copies(volume, notes[0], [name])
        place = volume.shown(notes[0].parts, "" if name == "." else name)
        if len(self.found.refusals) < MOST_PLACES:
            self.found.refusals += [
                (place, problem) for problem in problems if problem != _UNMAPPED
            ]
        self._count(entry, place, changes=changes)
        if changes:
            self._note(volume, notes, entry)
        else:
            self._room(notes).left.append(name)

    def _note(self, volume: OpenVolume, notes: list[Folder], entry: Special) -> None:
        """Note an entry that is to be changed, with what proves its content where it has power."""
        self.found.special = True
        entry = replace(entry, proof=self._proof(entry, volume.pin))
        first = entry.with_owner(self._first(entry.form.owner))
        self._room(notes).special.append(first)
        whole = self._turn.whole(first.form)
        left = power.lawful(first.form, whole, own=self._turn.targets.owner is not None)
        if left != whole:
            note = notes[0]
            self.found.lacking.append(
                Lacking(note.tree, note.parts, entry.name, first, whole, left, entry.inode)
            )

    def _proof(self, entry: Special, pin: Callable[[str], int]) -> Proof | None:
        """What proves the content of an entry of the current folder, where it has power.

        That is what the very inode held while it had it: the kernel takes power from whatever is written to.
        """
        if self._dry or not power.has_power(entry.form):
            return None
        state = (entry.device, entry.inode, entry.mode, entry.changed_ns)
        if state not in self._proofs:
            pinned = pin(entry.name)
            try:
                now = os.fstat(pinned)
                same = (now.st_dev, now.st_ino, now.st_mode, now.st_ctime_ns) == state
                self._proofs[state] = renew.proof_of(pinned) if same else None
            except OSError:
                self._proofs[state] = None
            finally:
                os.close(pinned)
        return self._proofs[state]

    def _count(self, entry: Special, place: str, *, changes: bool) -> None:
        kinds = kinds_of(entry)
        if entry.linked:
            seen = Linked(
                entry.links, entry.changed_ns, 1, kinds if changes else None, places=[place]
            )
            self._linked((entry.device, entry.inode), seen)
        elif changes:
            self.found.changes += 1
            self.found.kinds.update(kinds)

    def _linked(self, key: tuple[int, int], seen: Linked) -> None:
        known = self.found.linked.get(key)
        if known:
            known.add(seen)
        else:
            self.found.linked[key] = seen

    def _late_problems(self, entry: Special, *, changes: bool) -> list[str]:
        if self.wanted(entry.form.owner) is None:
            return [_no_place(entry.form.owner)]
        # Its other names may lie outside: only a look at the whole tree can tell.
        return (
            ["it appeared meanwhile and has several links; run again"]
            if entry.linked and changes
            else []
        )

    def _acl_changes(self, entry: Special, problems: list[str]) -> bool:
        changes = False
        for raw in filter(None, (entry.form.acl, entry.form.default_acl)):
            try:
                moved = self._turn.targets.acl(raw)
            except InvalidValueError as error:
                problems.append(str(error))
                continue
            self._count_lacking(raw)
            if moved.unmapped_uids or moved.unmapped_gids:
                problems.append(_UNMAPPED)
            problems += [
                f"its ACL would have two entries for {duplicate}" for duplicate in moved.duplicates
            ]
            changes |= moved.raw != raw
        return changes

    def _count_lacking(self, raw: bytes) -> None:
        """Count the entries of an ACL that name an id which the map lacks, kept or not."""
        targets = self._turn.targets
        if targets.owner is not None:
            return
        for entry in named(raw):
            if entry.kind == "user" and targets.uids.lacks(entry.id):
                self.found.unmapped_uids[entry.id] += 1
            if entry.kind == "group" and targets.gids.lacks(entry.id):
                self.found.unmapped_gids[entry.id] += 1

    def _capability_changes(self, entry: Special, problems: list[str]) -> bool:
        raw = entry.form.capability
        if raw is None:
            return False
        try:
            new = self._turn.targets.capability(raw)
        except InvalidValueError as error:
            problems.append(str(error))
            return False
        if new is None:
            root = capability_rootid(raw)
            problems.append(
                f"its capability is for root {root}, which the map lacks; --unmapped keep leaves it so"
            )
        return new is not None and new != raw


@dataclass(frozen=True, slots=True)
class Rules:
    """How to carry notes out. ``turn`` says which passage this is; ``outside`` are linked inodes that are left alone.

    ``devices``: the number that a device had when the notes were made, and has now; a reboot may change it. ``end``
    (ns), where a run that ended is taken back: what was made or changed after it is named and left; ``until`` (ns):
    later runs, taken back since, have changed it as well. ``trust``: take back also what was moved or changed since.
    ``renewed``, ``really``: see Care. ``only``: nothing but these paths.
    """

    turn: Pass
    seen_before: int = 0
    devices: Mapping[int, int] = field(default_factory=dict)
    outside: frozenset[tuple[int, int]] = frozenset()
    end: int | None = None
    until: int | None = None
    renewed: Mapping[tuple[int, int], int] = field(default_factory=dict)
    trust: bool = False
    really: bool = True
    only: frozenset[str] | None = None


class Carrier:
    """Carries notes out, by the rules; ``links`` keeps workers from changing an inode with several names at once."""

    def __init__(
        self, volumes: Sequence[OpenVolume], rules: Rules, links: Links | None = None
    ) -> None:
        self.done = Done()
        self._volumes = volumes
        self._rules = rules
        self._turn = rules.turn
        self._back = rules.turn.stage < 0
        self._links = links

    def carry(self, note: Folder) -> bool:
        """Carry one folder's note out; False where something in it was not as noted and is to be looked at again."""
        volume = self._volumes[note.tree]
        if volume.top < 0:
            return True
        try:
            pinned = walk.folder(volume, note.parts)
        except OSError as error:
            if error.errno not in walk.GONE | {errno.EXDEV}:
                self._failed(volume, note, _CONTENT, reason(error))
                return True
            return self._lost(volume, note, "it is gone")
        try:
            as_noted = self._carry(volume, note, pinned)
            self._right(volume, note, [_CONTENT])
        except OSError as error:
            self._failed(volume, note, _CONTENT, reason(error))
            return True
        else:
            return as_noted
        finally:
            os.close(pinned)

    def prove(self, note: Folder, *, own: bool) -> bool:
        """Change one entry of a folder, or with ``own`` the folder itself, and tell whether it has its new owner.

        ``done.ignored`` names it where it was changed and has not; else nothing was met that could be changed.
        """
        volume = self._volumes[note.tree]
        try:
            pinned = walk.folder(volume, note.parts)
        except OSError:
            return False
        try:
            seen = os.fstat(pinned)
            if note.inode != seen.st_ino:
                return False
            os.fchdir(pinned)
            return (
                self._took_itself(note, pinned) if own else self._took(volume, note, pinned, seen)
            )
        except OSError:
            return False  # the passages meet it again, and name it
        finally:
            os.close(pinned)

    def _took(self, volume: OpenVolume, note: Folder, pinned: int, seen: os.stat_result) -> bool:
        plain = [(first, name) for first, names in note.others for name in names]
        if note.common is not None:
            listed = (
                {name for _, name in plain}
                | {entry.name for entry in note.special}
                | set(note.left)
            )
            names, _ = unmounted(
                volume, note.parts, next(walk.names(pinned, seen.st_size, volume.only), [])
            )
            plain += [(note.common, name) for name in names if name not in listed]
        for first, name in plain[:_TRIES]:
            olds, new = self._turn.owners(first)
            owners = tuple((old, new) for old in olds)
            found = step(
                pinned, [name], StepOptions(owners, self._rules.seen_before, volume.pinning)
            )
            if any(name in found.plain.get(old, ()) for old in {*olds} - {new}):
                self.done.changed += 1
                return self._is_now(volume, note, name, new)
        for entry in note.special[:_TRIES]:
            before = self.done.changed + len(self.done.linked)
            if entry.name != ".":
                self._special(volume, note, entry)
            if self.done.ignored or self.done.changed + len(self.done.linked) > before:
                return not self.done.ignored
        return False

    def _took_itself(self, note: Folder, pinned: int) -> bool:
        before = self.done.changed
        self.itself(note, pinned)
        if self.done.ignored or self.done.changed == before:
            return False
        return note.own is None or self._is_now(
            self._volumes[note.tree], note, ".", self._turn.owners(note.own)[1]
        )

    def _is_now(self, volume: OpenVolume, note: Folder, name: str, owner: Owner) -> bool:
        """Tell whether an entry of the current folder has this owner, which it was given."""
        if os.lstat(name)[4:6] == owner:
            return True
        self.done.ignored = volume.shown(note.parts, "" if name == "." else name)
        self.done.changed -= 1
        return False

    def _carry(self, volume: OpenVolume, note: Folder, pinned: int) -> bool:
        seen = os.fstat(pinned)
        if note.inode != seen.st_ino or seen.st_dev != self._rules.devices.get(
            note.device, seen.st_dev
        ):
            return self._lost(volume, note, "another folder has its name now")
        os.fchdir(pinned)
        # Where nobody but root may rename, and nothing is mounted, a name stays that of the inode that was looked at.
        alone = seen.st_uid == 0 and not seen.st_mode & 0o022 and not volume.mounts.names
        as_noted = self._plain(volume, note, pinned, seen, alone=alone)
        for entry in note.special:
            as_noted &= entry.name == "." or self._special(volume, note, entry)
        if note.parts:
            return self.itself(note, pinned) and as_noted
        self.done.tops.append(note)
        return as_noted

    def _lost(self, volume: OpenVolume, note: Folder, why: str) -> bool:
        if self._back and note.changes():
            self._failed(volume, note, "", why)
        self.done.lost = True
        return False

    def itself(self, note: Folder, pinned: int) -> bool:
        """Change the folder itself, in which this process stands: after what is in it."""
        volume = self._volumes[note.tree]
        for entry in note.special:
            if entry.name == ".":
                return self._special(volume, note, entry)
        if note.own is None or not self._is_meant(volume, note, "."):
            return True
        olds, new = self._turn.owners(note.own)
        now = os.fstat(pinned)[4:6]
        if now not in {*olds, new}:
            if self._back:
                self._failed(volume, note, "", f"its owner is {now[0]}:{now[1]} now")
            return False
        if now != new:
            try:
                if self._rules.really:
                    os.fchown(pinned, *new)
            except OSError as error:
                self._failed(volume, note, "", reason(error, "."))
                return True
            self.done.changed += 1
        self._right(volume, note, [""])
        return True

    def _plain(
        self, volume: OpenVolume, note: Folder, pinned: int, seen: os.stat_result, *, alone: bool
    ) -> bool:
        as_noted = True
        for first, names in note.others:
            as_noted &= self._group(volume, note, names, first, pinned, alone=alone, listed=True)
        if note.common is None:
            return as_noted
        listed = {name for _, names in note.others for name in names} | {
            entry.name for entry in note.special
        }
        listed.update(note.left)
        for batch in walk.names(pinned, seen.st_size, volume.only):
            names, _ = unmounted(volume, note.parts, batch)
            names = [name for name in names if name not in listed] if listed else names
            as_noted &= self._group(
                volume, note, names, note.common, pinned, alone=alone, listed=False
            )
        return as_noted

    def _group(  # noqa: PLR0913 - one folder, one owner
        self,
        volume: OpenVolume,
        note: Folder,
        names: list[str],
        first: Owner,
        pinned: int,
        *,
        alone: bool,
        listed: bool,
    ) -> bool:
        """Give entries that once all had this owner their new one. ``listed``: the journal names them."""
        olds, new = self._turn.owners(first)
        if self._rules.only is not None:
            names = [name for name in names if self._is_meant(volume, note, name)]
        if self._back:
            names = self._unchanged(volume, note, names, olds, new, listed=listed)
        owners = tuple((old, new) for old in olds) if self._rules.really else ()
        pinning = BY_NAME if alone else volume.pinning
        found = step(pinned, names, StepOptions(owners, self._rules.seen_before, pinning))
        for old in {*olds, new}:
            self._right(volume, note, found.plain.get(old, ()))
        self.done.changed += sum(len(found.plain.get(old, ())) for old in {*olds} - {new})
        for name, why in found.reasons():
            self._failed(volume, note, name, why)
        if self._back:
            return True
        strange = any(
            self._turn.wanted(owner) != owner for owner in found.plain if owner not in {*olds, new}
        )
        return not strange and not found.care

    def _unchanged(  # noqa: PLR0913 - one decision
        self,
        volume: OpenVolume,
        note: Folder,
        names: list[str],
        olds: tuple[Owner, ...],
        new: Owner,
        *,
        listed: bool,
    ) -> list[str]:
        """Going back: the names whose inodes are those of the run, and still have the owner that it gave them."""
        kept = []
        for name in names:
            try:
                now = os.lstat(name)
            except FileNotFoundError:
                if listed:
                    self._failed(volume, note, name, "it is gone")
                continue
            if stat.S_ISDIR(now.st_mode) or now[4:6] == new:
                continue
            end, until = self._rules.end, self._rules.until or self._rules.end
            later = until is not None and now.st_ctime_ns > until
            if now[4:6] not in olds:
                why = f"its owner is {now.st_uid}:{now.st_gid} now"
            elif end and now.st_ctime_ns > end and (syscalls.born_ns(name) or 0) > end:
                why = "it was made since"
            elif later and not listed and now.st_mtime_ns <= (until or 0) and not self._rules.trust:
                # Not written to: then it was renamed, perhaps from another owner's folder, or its mode changed.
                why = "it was moved or changed since; only --also-changed takes it back"
            elif (
                now.st_nlink > 1
                or now.st_mode & _SETID
                or (not stat.S_ISLNK(now.st_mode) and has_attributes(name))
            ):
                why = "it has got a link, a setuid bit, an ACL or a capability since"
            else:
                kept.append(name)
                continue
            # What was no concern of the run is none now.
            if listed or later or end is None:
                self._failed(volume, note, name, why)
        return kept

    def _special(self, volume: OpenVolume, note: Folder, entry: Special) -> bool:
        place = "" if entry.name == "." else entry.name
        key = (entry.device, entry.inode)
        if (key in self._rules.outside and entry.linked) or not self._is_meant(
            volume, note, entry.name
        ):
            return True
        olds, _ = self._turn.owners(entry.form.owner)
        old, new = self._turn.forms(entry.form)
        whole = self._turn.whole(entry.form) if self._turn.stage != 1 else new
        change = Change(olds, old, new, whole, back=self._back)
        care = Care(volume.pin, self._rules.renewed, self._rules.really)
        try:
            with self._links.alone() if entry.linked and self._links else nullcontext():
                changed, lacks, inode = special.carry(entry, change, care)
        except (FileNotFoundError, MeanwhileError) as error:
            if self._back:
                self._failed(
                    volume,
                    note,
                    place,
                    str(error) if isinstance(error, MeanwhileError) else "it is gone",
                )
            return False
        except HalfDoneError as error:
            self.done.half = True
            self._failed(volume, note, place, str(error))
            return True
        except IgnoredError as error:
            self.done.ignored = volume.shown(note.parts, place)
            self._failed(volume, note, place, str(error))
            return True
        except OSError as error:
            self._failed(volume, note, place, reason(error, entry.name))
            return True
        self._right(volume, note, [place])
        if lacks:
            whole, left = (new, power.lawful(old, new)) if self._back else (whole, new)
            self.done.lacking.append(
                Lacking(note.tree, note.parts, entry.name, entry, whole, left, inode, changed)
            )
        if changed and not (lacks and self._back):
            self._count(entry)
        return True

    def _count(self, entry: Special) -> None:
        if entry.linked:
            self.done.linked[entry.device, entry.inode] = kinds_of(entry)
        else:
            self.done.changed += 1
            self.done.kinds.update(kinds_of(entry))

    def _is_meant(self, volume: OpenVolume, note: Folder, name: str) -> bool:
        """Tell whether an entry is among those that are to be tried again, where only some are."""
        only = self._rules.only
        names = ("" if name == "." else name, _CONTENT)
        return only is None or any(volume.shown(note.parts, one) in only for one in names)

    def _right(self, volume: OpenVolume, note: Folder, names: Iterable[str]) -> None:
        if self._rules.only is not None:
            self.done.carried |= {volume.shown(note.parts, name) for name in names}

    def _failed(self, volume: OpenVolume, note: Folder, name: str, why: str) -> None:
        self.done.failed.append((volume.shown(note.parts, name), why))


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
            if key in whole.linked:
                whole.linked[key].add(linked)
            else:
                whole.linked[key] = linked
    return whole
