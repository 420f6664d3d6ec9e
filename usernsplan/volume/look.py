"""Look at one folder and note, in the journal's form, what a run would change in it.

Nothing is changed here. ``Looker`` works before a run changes anything, ``Foreseeing`` for a
preview, ``LateLooker`` during a run. Each works with the folder as its current directory, so that
names are resolved in it alone.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from functools import lru_cache, partial
from itertools import chain
from typing import TYPE_CHECKING

from usernsplan.errors import InvalidValueError
from usernsplan.host import procfs
from usernsplan.ids import OVERFLOW_ID
from usernsplan.values import NamedTuple
from usernsplan.volume import mounted, power, renew, special, syscalls, walk
from usernsplan.volume.descriptors import held
from usernsplan.volume.folder import IMMUTABLE, StepOptions, has_attributes, reason, step
from usernsplan.volume.logs import Folder
from usernsplan.volume.metadata import Named, capability_rootid, named
from usernsplan.volume.parts import TOP
from usernsplan.volume.passes import MOST_OWNERS, Leg, Pass
from usernsplan.volume.seen import Lacking, Seen, kinds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from usernsplan.volume.entries import Group, Special
    from usernsplan.volume.parts import Parts
    from usernsplan.volume.targets import Owner, OwnershipRule

# How many problems are kept: more than anybody reads, and the first already refuses the run.
MOST_PLACES = 10_000
# How many names of one folder are noted in one line of the journal.
_LINE = 4096
# Before a run, the table of unmapped ids shows this problem, not a line for each entry.
_UNMAPPED = "its ACL has an id that the map lacks"


# How many sets of attributes are kept with what becomes of them. Most volumes have fewer.
_MOVED = 4096


class _Moved(NamedTuple):
    """What a pass makes of ACLs and a capability: whether they change, and what prevents it.

    The map lacks these ids of the ACLs.
    """

    changes: bool
    problems: tuple[str, ...]
    lacking_uids: tuple[int, ...]
    lacking_gids: tuple[int, ...]


def _shown(volume: walk.OpenVolume, note: Folder, name: str) -> str:
    return volume.shown(note.parts, "" if name == "." else name)


def _unmapped_owner(owner: Owner) -> str:
    return f"the map lacks its owner {owner[0]}:{owner[1]}"


def _move(
    rule: OwnershipRule, acl: bytes | None, default_acl: bytes | None, capability: bytes | None
) -> _Moved:
    """What the pass makes of these attributes."""
    changes, problems, lacking = False, [], list[Named]()
    for raw in filter(None, (acl, default_acl)):
        try:
            moved = rule.acl(raw)
        except InvalidValueError as error:
            problems.append(str(error))
            continue
        lacking += named(raw)
        if moved.unmapped_uids or moved.unmapped_gids:
            problems.append(_UNMAPPED)
        problems += [
            f"its ACL would have two entries for {duplicate}" for duplicate in moved.duplicates
        ]
        changes |= moved.raw != raw

    if capability is not None:
        changes |= _capability_changes(rule, capability, problems)
    # Entries of an ACL whose id the map lacks are counted, whether they stay or not.
    uids, gids = (
        tuple(one.id for one in lacking if one.kind == kind and moves.lacks(one.id))
        if not rule.is_own
        else ()
        for kind, moves in (("user", rule.uids), ("group", rule.gids))
    )
    return _Moved(changes, tuple(problems), uids, gids)


def _capability_changes(rule: OwnershipRule, raw: bytes, problems: list[str]) -> bool:
    try:
        new = rule.capability(raw)
    except InvalidValueError as error:
        problems.append(str(error))
        return False
    if new is None:
        root = capability_rootid(raw)
        problems.append(
            f"its capability is for root {root}, which the map lacks; --unmapped keep leaves it so"
        )
    return new is not None and new != raw


class Looker:
    """Look at folders before a run changes anything."""

    # Whether to note what proves the content of files with power; see _proof.
    _proves = True

    def __init__(self, volumes: Sequence[walk.OpenVolume], pass_: Pass, threads: int = 1) -> None:
        self.found = Seen()
        # The sub-folders of the last folder, and their seen_before. Where there may be very many,
        # some names each are one, with "/" between them: a million such names need ten megabytes.
        self.below: tuple[list[str], int] = [], 0
        self._threads = threads
        self._volumes = volumes
        self._walker = walk.Walker()
        self._pass = pass_
        self._rule = pass_.rule
        # The owner that replaces this one in the pass, or None; see Pass.
        self.wanted = lru_cache(MOST_OWNERS)(pass_.wanted)
        # The owner before the run.
        self._first = lru_cache(MOST_OWNERS)(lambda owner: pass_.first(owner) or owner)
        # The proofs of inodes with many names, so that the content is read once.
        self._proofs: dict[tuple[int, int, int, int], renew.Proof | None] = {}
        moves = (self._rule.uids, self._rule.gids)
        # Whether ids that the map lacks may stay as they are; they are counted, too.
        self._may_lack = any(move.keep or move.others for move in moves)
        self._moved = lru_cache(maxsize=_MOVED)(partial(_move, pass_.rule))
        self._read_only: dict[int, bool] = {}

    def folder(self, number: int, parts: Parts) -> int:
        """Pin a folder of a volume; see Walker.folder."""
        return self._walker.folder(self._volumes[number], parts)

    def look(
        self, number: int, parts: Parts, seen_before: int = 0, *, first: bool = True
    ) -> Iterator[Folder]:
        """Look at one folder: yield its note in one or more pieces, then set ``below`` for good.

        ``number`` is the volume's, ``parts`` the place of the folder. ``first``: count the folder, which
        no look has counted yet. See step for ``seen_before``; it becomes 0 below a folder that
        changed after that time, because the folder may have been moved here with its content, and
        the times of the content do not show that.
        """
        self.below = [], 0
        volume = self._volumes[number]
        try:
            pinned = self.folder(number, parts)
        except OSError as error:
            if error.errno == errno.EXDEV:
                self.found.skipped.append((volume.shown(parts), mounted.MOUNT))
            elif error.errno not in walk.GONE:
                self._unseen(volume.shown(parts), reason(error))
            return
        try:
            seen = os.fstat(pinned)
            seen_before = seen_before if seen.st_ctime_ns < seen_before else 0
            note = Folder(number, parts, seen.st_dev, seen.st_ino)
            options = StepOptions(seen_before=seen_before, threads=self._threads)
            self.below = [], seen_before
            yield from self._look(volume, note, pinned, seen, options)
        except OSError as error:
            # The folder opens but cannot be read: its content stays as it is, the rest is carried.
            self.below = [], 0
            self._unseen(volume.shown(parts), reason(error))
            return
        finally:
            os.close(pinned)
        self.found.entries += first and not volume.only

    def _look(
        self,
        volume: walk.OpenVolume,
        note: Folder,
        pinned: int,
        seen: os.stat_result,
        options: StepOptions,
    ) -> Iterator[Folder]:
        os.fchdir(pinned)
        notes = [note]
        if not volume.only:
            if not note.parts:
                self.found.tops.append((seen.st_uid, seen.st_gid))
            self._itself(volume, note, seen)

        # Any number of entries of a very large folder may differ. So its note has all names that
        # change, in pieces that need no room together. The folder itself is last, as in a pass.
        is_big = seen.st_size >= walk.BIG
        for batch in walk.names(pinned, seen.st_size, volume.only):
            if is_big:
                notes = [note.piece()]
            names, left = mounted.without(volume, note.parts, batch)
            self.found.skipped += left
            if left:
                mounts = set(batch) - set(names)
                self._room(notes, len(mounts)).left.extend(mounts)

            found = step(pinned, names, options)
            # A folder may have taken the name of a single file. Nobody named it, so skip it.
            if found.folders and not volume.only:
                self.below[0].extend(["/".join(found.folders)] if is_big else found.folders)
            self.found.entries += sum(map(len, found.plain.values())) + len(found.care)
            self._plain(volume, notes, found.plain, has_common=not is_big)
            self._specials(volume, notes, found.care)
            for name, why in found.reasons():
                self._leave(volume, notes, name, why, unseen=True)
            if is_big:
                yield from notes
        yield from [note] if is_big else notes

    def _owner_changes(self, owner: Owner, entries: int) -> bool:
        """Count the owner of these entries; tell whether the pass changes it."""
        self.found.owners[owner] += entries
        wanted = self.wanted(owner)
        if not self._rule.is_own and (wanted is None or self._may_lack):
            self._unmapped(owner, entries)
        return wanted is not None and wanted != owner

    def _unmapped(self, owner: Owner, entries: int) -> None:
        first = self._pass.first(owner)
        if first is None or self._rule.uids.lacks(first[0]):
            self.found.unmapped_uids[owner[0]] += entries
        if first is None or self._rule.gids.lacks(first[1]):
            self.found.unmapped_gids[owner[1]] += entries

    def _plain(
        self,
        volume: walk.OpenVolume,
        notes: list[Folder],
        plain: dict[Owner, list[str]],
        *,
        has_common: bool,
    ) -> None:
        """Note the plain entries of a folder: most of them by ``Folder.common``, or all by name."""
        changing = {
            owner: changeable
            for owner, names in plain.items()
            if self._owner_changes(owner, len(names))
            and (changeable := self._changeable(volume, notes, names, owner))
        }
        if volume.overlays:
            self._count_copies(volume, notes[0], chain.from_iterable(changing.values()))
        if not changing:
            return

        self.found.changes += sum(map(len, changing.values()))
        if has_common:
            common = max(changing, key=lambda owner: len(changing[owner]))
            notes[0].common = self._first(common)

        for owner, names in plain.items():
            first = self._first(owner)
            if owner in changing and first == notes[0].common:
                continue
            for start in range(0, len(names), _LINE):
                piece = names[start : start + _LINE]
                room = self._room(notes, len(piece))
                if owner in changing:
                    room.others.append((first, piece))
                elif has_common:
                    # These were right before the run: undo must not take them for its work.
                    room.left += piece

    def _changeable(
        self,
        volume: walk.OpenVolume,
        notes: list[Folder],
        names: list[str],
        owner: Owner,  # noqa: ARG002 - Foreseeing asks it
    ) -> list[str]:
        """The names of this owner that the system lets us change; the others are reported."""
        return [] if self._is_read_only(volume, notes[0]) else names

    def _count_copies(self, volume: walk.OpenVolume, note: Folder, names: Iterable[str]) -> None:
        for size in mounted.copied(volume, note.parts, note.device, names):
            self.found.copies += 1
            self.found.copied_bytes += size

    def _is_read_only(self, volume: walk.OpenVolume, note: Folder) -> bool:
        """Tell whether the file system of the current folder is read-only; report it only once.

        The system is asked once for each file system, not once for each folder.
        """
        if note.device not in self._read_only:
            self._read_only[note.device] = syscalls.is_read_only(volume.only or ".")
            if self._read_only[note.device]:
                self._fail(self._top_of_device(volume, note), "it is read-only")
        return self._read_only[note.device]

    def _top_of_device(self, volume: walk.OpenVolume, note: Folder) -> str:
        """The path of the outermost folder on the file system of a noted one: above it, or itself."""
        place = TOP
        for name in note.parts:
            try:
                above = self.folder(note.volume, place)
            except OSError:
                pass
            else:
                try:
                    if os.fstat(above).st_dev == note.device:
                        break
                finally:
                    os.close(above)
            place = place.below(name)
        return volume.shown(place)

    def _room(self, notes: list[Folder], names: int = 1) -> Folder:
        """The piece of the note to add so many names to: a new one if the last is full."""
        last = notes[-1]
        if last.noted >= _LINE:
            last = last.piece()
            notes.append(last)
        last.noted += names
        return last

    def _itself(self, volume: walk.OpenVolume, note: Folder, seen: os.stat_result) -> None:
        try:
            if has_attributes("."):
                self._specials(volume, [note], ["."])
                return
        except OSError as error:
            self._leave(volume, [note], ".", reason(error, "."), unseen=True)
            return
        owner = (seen.st_uid, seen.st_gid)
        if self._owner_changes(owner, 1) and self._changeable(volume, [note], ["."], owner):
            note.own = self._first(owner)
            self.found.changes += 1

    def _leave(
        self,
        volume: walk.OpenVolume,
        notes: list[Folder],
        name: str,
        why: str,
        *,
        unseen: bool = False,
    ) -> None:
        """Report an entry that cannot be carried, and note that no pass changes it."""
        (self._unseen if unseen else self._fail)(_shown(volume, notes[0], name), why)
        self._room(notes).left.append(name)

    def _fail(self, place: str, why: str) -> None:
        self.found.failed.append((place, why))

    def _unseen(self, place: str, why: str) -> None:
        """Report a place that could not be looked at, whose owner nobody knows."""
        self._fail(place, why)
        self.found.unseen.append((place, why))

    def _specials(self, volume: walk.OpenVolume, notes: list[Folder], names: Sequence[str]) -> None:
        groups, failures = special.looked(names, volume.pinning)
        for name, code in failures:
            why = reason(OSError(code, os.strerror(code)), name)
            self._leave(volume, notes, name, why, unseen=True)

        for group in groups:
            count = len(group.names)
            changes = self._owner_changes(group.form.owner, count)
            problems: tuple[str, ...] = ()
            # If the map overlaps itself, only the owner shows whether an inode was moved already.
            leg = self._pass.leg
            if (changes or leg == Leg.STRAIGHT) and leg != Leg.TO_STAGING:
                form = group.form
                moved = self._moved(form.acl, form.default_acl, form.capability)
                changes |= moved.changes
                problems = moved.problems
                self._count_lacking(moved, count)
            self._meet(volume, notes, group, problems, changes=changes)

    def _count_lacking(self, moved: _Moved, count: int) -> None:
        for uid in moved.lacking_uids:
            self.found.unmapped_uids[uid] += count
        for gid in moved.lacking_gids:
            self.found.unmapped_gids[gid] += count

    def _meet(
        self,
        volume: walk.OpenVolume,
        notes: list[Folder],
        group: Group,
        problems: tuple[str, ...],
        *,
        changes: bool,
    ) -> None:
        """Count entries that need care, report their problems, note them if the pass changes them."""
        if changes:
            kept = self._changeable(volume, notes, group.names, group.form.owner)
            if len(kept) < len(group.names):
                some = {*kept}
                group = group.chosen(name in some for name in group.names)
            if volume.overlays and not group.is_folder:
                self._count_copies(volume, notes[0], group.names)

        for problem in problems:
            room = MOST_PLACES - len(self.found.refusals)
            if problem != _UNMAPPED:
                self.found.refusals += [
                    (_shown(volume, notes[0], name), problem) for name in group.names[:room]
                ]
        self._count(group, changes=changes)
        if changes:
            self._note(volume, notes, group)
            return
        for piece in group.pieces(_LINE):
            self._room(notes, len(piece.names)).left += piece.names

    def _count(self, group: Group, *, changes: bool) -> None:
        kinds = kinds_of(group.form, linked=group.linked)
        if group.linked:
            key = (group.device, group.links, kinds if changes else None)
            self.found.linked.add(key, group.inodes, group.changed_ns)
        elif changes:
            self.found.changes += len(group.names)
            for kind in kinds:
                self.found.kinds[kind] += len(group.names)

    def _note(self, volume: walk.OpenVolume, notes: list[Folder], group: Group) -> None:
        """Note entries that the pass changes, with proofs of their content if they have power."""
        self.found.special |= bool(group.names)
        first = group.with_owner(self._first(group.form.owner))
        is_powerful = power.has_power(group.form)
        if is_powerful and self._proves:
            first.proofs = [self._proof(entry, volume.pin) for entry in group.entries()]
        if is_powerful or group.form.capability is not None:
            self._note_lacking(notes[0], first)
        for piece in first.pieces(_LINE):
            self._room(notes, len(piece.names)).groups.append(piece)

    def _note_lacking(self, note: Folder, first: Group) -> None:
        whole = self._pass.whole(first.form)
        left = power.lawful(first.form, whole, own=self._rule.is_own)
        if left != whole:
            self.found.lacking += [
                Lacking(note.volume, note.parts, entry.name, entry, whole, left, entry.inode)
                for entry in first.entries()
            ]

    def _proof(self, entry: Special, pin: Callable[[str], int]) -> renew.Proof | None:
        """What proves the content of an entry of the current folder that has power; None if nothing.

        It is the content that this inode had while it had the power, because the kernel removes
        setuid, setgid and the capability when a file is written to.
        """
        state = (entry.device, entry.inode, entry.mode, entry.changed_ns)
        if state in self._proofs:
            return self._proofs[state]
        proof = None
        with suppress(OSError), held(pin(entry.name)) as pinned:
            now = os.fstat(pinned)
            if (now.st_dev, now.st_ino, now.st_mode, now.st_ctime_ns) == state:
                proof = renew.proof_of(pinned, now, entry.form.capability)
        if entry.linked:
            self._proofs[state] = proof
        return proof


class Foreseeing(Looker):
    """Look for a preview: no pass follows, so the look also finds what could not be changed."""

    _proves = False

    def __init__(self, volumes: Sequence[walk.OpenVolume], pass_: Pass, threads: int = 1) -> None:
        super().__init__(volumes, pass_, threads)
        self._namespace = procfs.own_ids()

    def _changeable(
        self, volume: walk.OpenVolume, notes: list[Folder], names: list[str], owner: Owner
    ) -> list[str]:
        names = super()._changeable(volume, notes, names, owner)
        why = self._not_ours(owner) if names else ""
        stuck = {name: why or IMMUTABLE for name in names if why or syscalls.is_immutable(name)}
        for name, reason_why in stuck.items():
            self._leave(volume, notes, name, reason_why)
        return [name for name in names if name not in stuck] if stuck else names

    def _not_ours(self, owner: Owner) -> str:
        """Why root of this user namespace cannot replace this owner; "" if it can."""
        new = self.wanted(owner) or owner
        for kind, ids, old, wanted in zip(("uid", "gid"), self._namespace, owner, new, strict=True):
            if wanted not in ids:
                return f"this user namespace has no {kind} {wanted}"
            # The kernel shows this id for every id that the namespace does not map.
            if old == OVERFLOW_ID and old not in ids:
                return f"its {kind} has no id in this user namespace"
        return ""


class LateLooker(Looker):
    """Look during a run: report what cannot be carried, instead of counting it.

    ``outside`` are linked inodes (device, inode) that were reported before.
    """

    def __init__(
        self,
        volumes: Sequence[walk.OpenVolume],
        pass_: Pass,
        outside: frozenset[tuple[int, int]],
        threads: int = 1,
    ) -> None:
        super().__init__(volumes, pass_, threads)
        self._outside = outside

    def _plain(
        self,
        volume: walk.OpenVolume,
        notes: list[Folder],
        plain: dict[Owner, list[str]],
        *,
        has_common: bool,
    ) -> None:
        for owner, names in plain.items():
            if self.wanted(owner) is None:
                for name in names:
                    self._fail(volume.shown(notes[0].parts, name), _unmapped_owner(owner))
        super()._plain(volume, notes, plain, has_common=has_common)

    def _meet(
        self,
        volume: walk.OpenVolume,
        notes: list[Folder],
        group: Group,
        problems: tuple[str, ...],
        *,
        changes: bool,
    ) -> None:
        if self._outside:
            group = group.chosen((group.device, one) not in self._outside for one in group.inodes)
        if problems := problems + self._problems(group, changes=changes):
            for name in group.names:
                self._leave(volume, notes, name, problems[0])
        else:
            super()._meet(volume, notes, group, problems, changes=changes)

    def _problems(self, group: Group, *, changes: bool) -> tuple[str, ...]:
        if self.wanted(group.form.owner) is None:
            return (_unmapped_owner(group.form.owner),)
        # Its other names may lie outside the volume: only a look at the whole volume shows that.
        if group.linked and changes:
            return ("it appeared during the run and has several links; run the command again",)
        return ()


class Naming(Looker):
    """Look once more, for the names of some linked inodes (device, inode).

    Few runs need them, and to keep the names of all would take too much room.
    """

    _proves = False

    def __init__(
        self,
        volumes: Sequence[walk.OpenVolume],
        pass_: Pass,
        outside: frozenset[tuple[int, int]],
    ) -> None:
        super().__init__(volumes, pass_)
        self._outside = outside

    def _meet(
        self,
        volume: walk.OpenVolume,
        notes: list[Folder],
        group: Group,
        problems: tuple[str, ...],  # noqa: ARG002 - the first look has reported them
        *,
        changes: bool,  # noqa: ARG002
    ) -> None:
        if group.linked:
            self.found.outside += [
                _shown(volume, notes[0], name)
                for name, inode in zip(group.names, group.inodes, strict=True)
                if (group.device, inode) in self._outside
            ]
