"""Carry out the notes of the journal, folder by folder, forward or back.

A ``Carrier`` changes only what the journal notes, and only if it is still as noted. It works with
the noted folder as its current directory, so that names are resolved in that folder alone.
"""

from __future__ import annotations

import errno
import os
import stat
from array import array
from contextlib import nullcontext
from functools import lru_cache, partial
from itertools import chain, compress, islice
from typing import TYPE_CHECKING

from usernsplan.values import NamedTuple
from usernsplan.volume import mounted, power, special, syscalls, walk
from usernsplan.volume.folder import (
    BY_NAME,
    LATEST,
    FolderListing,
    StepOptions,
    has_attributes,
    reason,
    step,
)
from usernsplan.volume.passes import MOST_OWNERS, Form, Leg, Pass
from usernsplan.volume.seen import Done, Lacking
from usernsplan.volume.special import (
    CHANGED,
    OTHER,
    RIGHT,
    Care,
    Change,
    HalfDoneError,
    IgnoredError,
    MeanwhileError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from usernsplan.volume.entries import Group, Special
    from usernsplan.volume.logs import Folder, Links
    from usernsplan.volume.targets import Owner

# How many entries of a folder are tried at most, to see whether its file system keeps owners.
_TRIES = 100
# How many forms of entries are kept with their change. Most volumes have fewer.
_FORMS = 4096
# The results of special.carried after which nothing is left to do.
_DONE = frozenset({RIGHT, CHANGED})
# The name under which all entries of a folder fail if the folder cannot be read.
_CONTENT = "."


def _place(name: str) -> str:
    """The name of an entry for ``OpenVolume.shown``."""
    return "" if name == "." else name


class Rules(NamedTuple):
    """How to carry out notes; forward, or back if that is where the pass goes.

    ``pass_`` is the pass to make. ``outside`` are linked inodes (device, inode) to leave alone.
    ``devices`` maps the number that a device had when the notes were made to the number that it
    has now, because a reboot may change it. ``seen_before``: see step. ``renewed``: see Care.
    ``only`` restricts the pass to these paths. ``threads``: see step.

    The others are for undo, with times in ns since the epoch. ``end`` is when the run ended, if it
    did; what was made or changed later is reported and left alone. ``until`` is when the last of
    the later runs was undone: until then, changes may be theirs. ``also_changed``: undo also what
    was moved or changed after the run. ``preview``: count, and change nothing.
    """

    pass_: Pass
    seen_before: int = 0
    devices: Mapping[int, int] = {}
    outside: frozenset[tuple[int, int]] = frozenset()
    renewed: Mapping[tuple[int, int], int] = {}
    only: frozenset[str] | None = None
    threads: int = 1
    end: int | None = None
    until: int | None = None
    also_changed: bool = False
    preview: bool = False

    def carrier(self, volumes: Sequence[walk.OpenVolume], links: Links | None = None) -> Carrier:
        """The carrier that follows these rules."""
        if self.pass_.leg != Leg.BACK:
            return Forward(volumes, self, links)
        return Undo(volumes, self, links)


class _Group(NamedTuple):
    """Plain entries of a folder; ``first`` was their owner. ``listed``: the journal names them."""

    first: Owner
    names: list[str]
    listed: bool


def _options(rules: Rules, first: Owner, pinning: int) -> StepOptions:
    """The options of the step for entries that had this owner before the run."""
    olds, new = rules.pass_.owners(first)
    # Without staging, the same owner may be among the old ones twice.
    owners = () if rules.preview else tuple(dict.fromkeys(olds, new).items())
    return StepOptions(owners, rules.seen_before, pinning, threads=rules.threads)


class Carrier:
    """Carry out notes by the rules.

    ``links`` keeps two workers from changing the same inode, under two names, at the same time.
    """

    def __init__(
        self, volumes: Sequence[walk.OpenVolume], rules: Rules, links: Links | None = None
    ) -> None:
        self.done = Done()
        self._volumes = volumes
        self._walker = walk.Walker()
        self._rules = rules
        self._pass = rules.pass_
        # Every group of entries asks for these.
        self._owners = lru_cache(MOST_OWNERS)(rules.pass_.owners)
        self._options = lru_cache(MOST_OWNERS)(partial(_options, rules))
        self._change_of = lru_cache(maxsize=_FORMS)(partial(_change, rules.pass_))
        self._links = links

    def carry(self, note: Folder) -> bool:
        """Carry out the note of one folder; False if a part of it was not as noted.

        Such a folder needs another look.
        """
        volume = self._volumes[note.volume]
        if volume.top < 0:
            return True
        try:
            pinned = self._walker.folder(volume, note.parts)
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

    def itself(self, note: Folder, pinned: int) -> bool:
        """Change the folder itself, the current one. Its content comes first.

        False if the folder was not as noted.
        """
        volume = self._volumes[note.volume]
        for group in note.groups:
            if group.is_folder:
                return self._grouped(volume, note, [group], volume.pinning)
        if note.own is None or not self._is_selected(volume, note, "."):
            return True

        olds, new = self._owners(note.own)
        now = os.fstat(pinned)[4:6]
        if now not in {*olds, new}:
            self._not_as_noted(volume, note, "", f"its owner is {now[0]}:{now[1]} now")
            return False
        if now != new:
            try:
                if not self._rules.preview:
                    os.fchown(pinned, *new)
            except OSError as error:
                self._failed(volume, note, "", reason(error, "."))
                return True
            self.done.changed += 1
        self._right(volume, note, [""])
        return True

    def _not_as_noted(self, volume: walk.OpenVolume, note: Folder, name: str, why: str) -> None:
        """Handle an entry that was left alone because it is gone or not as noted.

        Forward nothing is reported, because another look follows.
        """

    def _changed(
        self,
        volume: walk.OpenVolume,  # noqa: ARG002 - undo names what it leaves
        note: Folder,  # noqa: ARG002
        pinned: int,
        group: _Group,
        pinning: int,
    ) -> FolderListing:
        """Change the plain entries of one owner; see step."""
        return step(pinned, group.names, self._options(group.first, pinning))

    def _carry(self, volume: walk.OpenVolume, note: Folder, pinned: int) -> bool:
        seen = os.fstat(pinned)
        device = self._rules.devices.get(note.device, seen.st_dev)
        if note.inode != seen.st_ino or seen.st_dev != device:
            return self._lost(volume, note, "another folder has its name now")

        os.fchdir(pinned)
        # If only root may rename entries and nothing is mounted, each name keeps its inode.
        alone = seen.st_uid == 0 and not seen.st_mode & 0o022 and not volume.mounts.names
        pinning = BY_NAME if alone else volume.pinning

        as_noted = True
        for group in self._groups(volume, note, pinned, seen):
            found = self._changed(volume, note, pinned, group, pinning)
            as_noted &= self._is_as_noted(volume, note, found, group.first)
        entries = [group for group in note.groups if not group.is_folder]
        as_noted &= self._grouped(volume, note, entries, pinning)

        if note.parts:
            return self.itself(note, pinned) and as_noted
        # The top tells that a volume is right, so it changes last, when all workers are done.
        if top := note.itself():
            self.done.tops.append(top)
        return as_noted

    def _lost(self, volume: walk.OpenVolume, note: Folder, why: str) -> bool:
        if note.changes():
            self._not_as_noted(volume, note, "", why)
        self.done.lost = True
        return False

    def _groups(
        self, volume: walk.OpenVolume, note: Folder, pinned: int, seen: os.stat_result
    ) -> Iterator[_Group]:
        """The plain entries by their owner before the run."""
        for first, names in note.others:
            yield _Group(first, self._selected(volume, note, names), listed=True)
        if note.common is None:
            return

        listed = note.named()
        for batch in walk.names(pinned, seen.st_size, volume.only):
            names, _ = mounted.without(volume, note.parts, batch)
            names = [name for name in names if name not in listed] if listed else names
            yield _Group(note.common, self._selected(volume, note, names), listed=False)

    def _is_as_noted(
        self,
        volume: walk.OpenVolume,
        note: Folder,
        found: FolderListing,
        first: Owner,
    ) -> bool:
        """Count the plain entries that changed; tell whether all were as noted."""
        olds, new = self._owners(first)
        as_noted = not found.care
        for owner, names in found.plain.items():
            if owner == new or owner in olds:
                self.done.changed += len(names) * (owner != new)
                self._right(volume, note, names)
            else:
                as_noted &= self._pass.wanted(owner) == owner
        for name, why in found.reasons():
            self._failed(volume, note, name, why)
        return as_noted

    def _grouped(
        self, volume: walk.OpenVolume, note: Folder, groups: Iterable[Group], pinning: int
    ) -> bool:
        """Change the entries of groups, in bulk where that is possible."""
        if self._rules.only is not None or self._rules.outside:
            groups = [self._meant(volume, note, group) for group in groups]
        work = [(group, self._change_of(group.form)) for group in groups]
        in_steps = any(group.linked and one.in_steps for group, one in work)
        with self._alone(linked=in_steps):
            results = special.carried(work, pinning, preview=self._rules.preview)
        if {*results} == {CHANGED} and self._rules.only is None:
            for group, _ in work:
                self.done.count(group.form, group.device, group.inodes, linked=group.linked)
            return True
        as_noted, at = True, 0
        for group, change in work:
            end = at + len(group.names)
            as_noted &= self._told(volume, note, group, change, results[at:end])
            at = end
        return as_noted

    def _told(
        self,
        volume: walk.OpenVolume,
        note: Folder,
        group: Group,
        change: Change,
        results: list[int],
    ) -> bool:
        """Count what was changed of a group in bulk, and change the rest one by one."""
        as_noted, met = True, {*results}
        if not met <= _DONE:
            for entry, result in zip(group.entries(), results, strict=True):
                if result == OTHER:
                    as_noted &= self._special(volume, note, entry, change)
                elif result > 0:
                    self._half_done(volume, note, entry, special.half_done(os.strerror(result)))

        if self._rules.only is not None:
            right = map(_DONE.__contains__, results)
            self._right(volume, note, map(_place, compress(group.names, right)))
        if CHANGED in met:
            inodes = group.inodes
            if len(met) > 1:
                inodes = array("Q", compress(inodes, map(CHANGED.__eq__, results)))
            self.done.count(group.form, group.device, inodes, linked=group.linked)
        return as_noted

    def _meant(self, volume: walk.OpenVolume, note: Folder, group: Group) -> Group:
        """The entries of a group that this pass includes."""
        outside = self._rules.outside
        if outside and group.linked:
            group = group.chosen((group.device, inode) not in outside for inode in group.inodes)
        if self._rules.only is None:
            return group
        return group.chosen(self._is_selected(volume, note, name) for name in group.names)

    def _alone(self, *, linked: bool) -> AbstractContextManager[None]:
        return self._links.alone() if linked and self._links else nullcontext()

    def _special(
        self, volume: walk.OpenVolume, note: Folder, entry: Special, change: Change
    ) -> bool:
        """Change one entry; tell whether it was as noted."""
        place = _place(entry.name)
        care = Care(volume.pin, self._rules.renewed)
        carry = special.foretell if self._rules.preview else special.carry
        try:
            with self._alone(linked=entry.linked):
                result = carry(entry, change, care)
        except (FileNotFoundError, MeanwhileError) as error:
            why = str(error) if isinstance(error, MeanwhileError) else "it is gone"
            self._not_as_noted(volume, note, place, why)
            return False
        except HalfDoneError as error:
            self._half_done(volume, note, entry, error)
            return True
        except IgnoredError as error:
            self.done.ignored = volume.shown(note.parts, place)
            self._failed(volume, note, place, str(error))
            return True
        except OSError as error:
            self._failed(volume, note, place, reason(error, entry.name))
            return True

        self._right(volume, note, [place])
        if result.lacks:
            lacking = (*change.power, result.inode, result.changed)
            self.done.lacking.append(Lacking(note.volume, note.parts, entry.name, entry, *lacking))
        if result.changed and not (result.lacks and change.back):
            inode = array("Q", [entry.inode])
            self.done.count(entry.form, entry.device, inode, linked=entry.linked)
        return True

    def _half_done(
        self, volume: walk.OpenVolume, note: Folder, entry: Special, error: HalfDoneError
    ) -> None:
        self.done.half = True
        self._failed(volume, note, _place(entry.name), str(error))

    def _selected(self, volume: walk.OpenVolume, note: Folder, names: list[str]) -> list[str]:
        if self._rules.only is None:
            return names
        return [name for name in names if self._is_selected(volume, note, name)]

    def _is_selected(self, volume: walk.OpenVolume, note: Folder, name: str) -> bool:
        """Tell whether this pass includes an entry: all, or ``only`` some."""
        only = self._rules.only
        names = (_place(name), _CONTENT)
        return only is None or any(volume.shown(note.parts, one) in only for one in names)

    def _right(self, volume: walk.OpenVolume, note: Folder, names: Iterable[str]) -> None:
        """Note that these entries are right now, if the pass is limited to some."""
        if self._rules.only is not None:
            self.done.carried |= {volume.shown(note.parts, name) for name in names}

    def _failed(self, volume: walk.OpenVolume, note: Folder, name: str, why: str) -> None:
        self.done.failed.append((volume.shown(note.parts, name), why))


def _change(pass_: Pass, first: Form) -> Change:
    """What a pass makes of an inode that had this form before the run."""
    olds, _ = pass_.owners(first.owner)
    old, new = pass_.forms(first)
    whole = new if pass_.leg == Leg.TO_STAGING else pass_.whole(first)
    return Change(olds, old, new, whole, back=pass_.leg == Leg.BACK)


class Forward(Carrier):
    """Carry out notes. What is not as noted waits for another look, which finds what is there."""

    def prove(self, note: Folder, *, own: bool) -> bool:
        """Change one entry of a folder, or with ``own`` the folder; tell whether its owner is new.

        If the file system ignored the change, ``done.ignored`` is the path. False without such a
        path: nothing could be changed.
        """
        volume = self._volumes[note.volume]
        try:
            pinned = self._walker.folder(volume, note.parts)
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
            return False  # a pass meets the folder again and reports the error
        finally:
            os.close(pinned)

    def _took(
        self, volume: walk.OpenVolume, note: Folder, pinned: int, seen: os.stat_result
    ) -> bool:
        plain = [(first, name) for first, names in note.others for name in names]
        if note.common is not None:
            listed = note.named()
            names, _ = mounted.without(
                volume, note.parts, next(walk.names(pinned, seen.st_size, volume.only), [])
            )
            plain += [(note.common, name) for name in names if name not in listed]

        for first, name in plain[:_TRIES]:
            olds, new = self._owners(first)
            found = step(pinned, [name], self._options(first, volume.pinning))
            if any(name in found.plain.get(old, ()) for old in {*olds} - {new}):
                self.done.changed += 1
                return self._is_now(volume, note, name, new)

        entries = (group.pieces(1) for group in note.groups if not group.is_folder)
        for one in islice(chain.from_iterable(entries), _TRIES):
            before = self.done.counted()
            self._grouped(volume, note, [one], volume.pinning)
            if self.done.ignored or self.done.counted() > before:
                return not self.done.ignored
        return False

    def _took_itself(self, note: Folder, pinned: int) -> bool:
        before = self.done.changed
        self.itself(note, pinned)
        if self.done.ignored or self.done.changed == before:
            return False
        return note.own is None or self._is_now(
            self._volumes[note.volume], note, ".", self._owners(note.own)[1]
        )

    def _is_now(self, volume: walk.OpenVolume, note: Folder, name: str, owner: Owner) -> bool:
        """Tell whether an entry of the current folder kept the owner that it was given."""
        if os.lstat(name)[4:6] == owner:
            return True
        self.done.ignored = volume.shown(note.parts, _place(name))
        self.done.changed -= 1
        return False


class Undo(Carrier):
    """Undo a run where entries still are as it left them; the others fail, each with its reason."""

    @property
    def _settled(self) -> int:
        """The time until which only this run can have changed an inode (ns)."""
        return min(filter(None, (self._rules.end, self._rules.until)), default=LATEST)

    def _changed(
        self, volume: walk.OpenVolume, note: Folder, pinned: int, group: _Group, pinning: int
    ) -> FolderListing:
        """Change what is as the run left it: what nobody changed since, and what proves harmless."""
        olds, new = self._owners(group.first)
        options = self._options(group.first, pinning)
        found = step(pinned, group.names, options._replace(until=self._settled))

        plain = {owner: found.plain[owner] for owner in {*olds, new} & found.plain.keys()}
        known = {*found.folders, *(name for name, _ in found.failures), *chain(*plain.values())}
        failures = found.failures
        if doubted := [name for name in group.names if name not in known]:
            kept = self._unchanged(volume, note, group._replace(names=doubted))
            again = step(pinned, kept, options)
            for owner, names in again.plain.items():
                plain[owner] = plain.get(owner, []) + names
            failures = failures + again.failures
        return FolderListing(plain=plain, failures=failures)

    def _unchanged(self, volume: walk.OpenVolume, note: Folder, group: _Group) -> list[str]:
        """The names whose inodes the run met and that still have the owner that it gave them."""
        (first, names, listed) = group
        olds, new = self._owners(first)
        until = self._rules.until or self._rules.end
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

            later = until is not None and now.st_ctime_ns > until
            why = self._why_left(name, now, olds, later=later, listed=listed)
            if not why:
                kept.append(name)
            # An entry that the run did not change is not reported.
            elif listed or later or self._rules.end is None:
                self._failed(volume, note, name, why)
        return kept

    def _why_left(
        self,
        name: str,
        now: os.stat_result,
        olds: tuple[Owner, ...],
        *,
        later: bool,
        listed: bool,
    ) -> str:
        """Why undo leaves a plain entry alone; "" if it is as the run left it.

        ``later``: its ctime is after the run.
        """
        if now[4:6] not in olds:
            return f"its owner is {now.st_uid}:{now.st_gid} now"
        end, until = self._rules.end, self._rules.until or self._rules.end or 0
        if end and now.st_ctime_ns > end and (syscalls.born_ns(name) or 0) > end:
            return "it was made after the run"

        if later and not listed and now.st_mtime_ns <= until and not self._rules.also_changed:
            # The ctime moved and the mtime did not: it was not written to. Its mode changed, or it
            # was renamed, perhaps from another owner's folder.
            return "it was moved or changed after the run; --also-changed undoes it"
        if (
            now.st_nlink > 1
            or now.st_mode & power.SETID
            or (not stat.S_ISLNK(now.st_mode) and has_attributes(name))
        ):
            return "it gained a link, a setuid bit, an ACL or a capability after the run"
        return ""

    def _not_as_noted(self, volume: walk.OpenVolume, note: Folder, name: str, why: str) -> None:
        self._failed(volume, note, name, why)
