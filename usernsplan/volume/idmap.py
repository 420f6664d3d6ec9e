"""The method ``idmap``: nothing on the disk changes, a mount shows other ids.

The journal has each mount as it is to be, and the mode of each folder that is to be shut, before
anything is mounted. Applying it again after a kill makes what is missing; undoing it takes away
what is there.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from usernsplan.errors import HostChangedError, RefusedError, UsernsplanError, reason_of
from usernsplan.escape import operand, shell, shown_path
from usernsplan.host import busy, idmap, mountpoints, spaces, standing, trial
from usernsplan.ledger import open_ledger
from usernsplan.planner import mounts as planned
from usernsplan.planner.mountable import why_not
from usernsplan.planner.shelter import holder_words
from usernsplan.values import NamedTuple
from usernsplan.volume import lasting, sheltering
from usernsplan.volume.method import NotTakenError
from usernsplan.volume.recording import record_undone
from usernsplan.volume.state import UNDOING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from usernsplan.model import LedgerState, VolumeMount
    from usernsplan.volume.decide import Meant
    from usernsplan.volume.job import Job
    from usernsplan.volume.journal import Journal
    from usernsplan.volume.state import RunState
    from usernsplan.volume.walk import OpenVolume

# So many places fit on a screen.
_SHOWN = 5


class _Work(Protocol):
    """The mounts to make, for a run or without one."""

    @property
    def run(self) -> str:
        """The run that makes, or made, them."""

    @property
    def mounts(self) -> Sequence[VolumeMount]:
        """One for each volume of the job."""

    @property
    def shut(self) -> Mapping[str, int]:
        """The folders that are shut, each with its former mode."""


class _Recorded(NamedTuple):
    """Mounts that the ledger has. See _Work."""

    run: str
    mounts: Sequence[VolumeMount]
    shut: Mapping[str, int]


@contextmanager
def at_work(job: Job) -> Iterator[Idmap]:
    """The method. It needs no workers."""
    with closing(idmap.UserNamespaces()) as namespaces:
        yield Idmap(job, namespaces)


class Idmap:
    """See Method."""

    def __init__(self, job: Job, namespaces: idmap.UserNamespaces) -> None:
        self._job = job
        # What was tried with a user namespace is then mounted with the same one.
        self._namespaces = namespaces
        self._outcome = job.outcome
        self._is_resumed = False
        self._found = UNDOING
        # What takes back each thing that this command made; it returns why that failed.
        self._made: list[Callable[[], str]] = []

    def decide(self, meant: Meant, log: Journal) -> dict[str, Any] | None:
        """Try each map on a detached mount. None if every mount stands as it is to be."""
        self._outcome.notes += self._look(log.state, meant, dry_run=False)
        if not self._outcome.changed:
            return None
        self._outcome.changed = 0
        return {"shut": sheltering.modes(self._job.layout, log.state.mounts)}

    def describe(self, meant: Meant, state: RunState) -> None:
        """Count the mounts that are missing. Raises RefusedError for one that cannot be made."""
        self._outcome.notes += self._look(state, meant, dry_run=True)

    def _look(self, state: RunState, meant: Meant, *, dry_run: bool) -> list[str]:
        """Count what is missing, and say how a mount will be protected."""
        layout, notes = self._job.layout, []
        permits = planned.permits(meant.request)
        now = standing.standing()
        for volume, mount in zip(self._job.volumes, state.mounts, strict=True):
            with sheltering.opened(volume) as source:
                if not self._stands(volume, mount, now):
                    self._refuse_impossible(volume, source, mount)
                    self._refuse_point(volume, mount, meant.ledger)
                    self._note_inside(volume, mount, now)
                    self._outcome.changed += 1
                if is_unprotected := sheltering.is_missing(layout, mount, source):
                    if mount.protect == sheltering.PARENT:
                        sheltering.refuse_parent(layout, mount)
                    self._outcome.changed += 1
                    said = sheltering.words(layout, mount, dry_run=dry_run)
                    # Two volumes may be protected by one folder.
                    notes += [said] if said not in notes else []
                sheltering.refuse_open(
                    layout, mount, source, foreseen=is_unprotected, permits=permits
                )
            lasting.refuse_foreign(layout, mount)
            self._outcome.changed += not lasting.is_right(layout, mount)
        self._outcome.found.entries = len(state.mounts)
        return notes

    def mend(self, log: Journal) -> None:
        """Nothing is half-made: a mount appears whole or not at all."""
        self._is_resumed, self._found = True, log.state.state

    def apply(self, log: Journal) -> bool:
        """Make each mount that is missing, and what makes it again at boot."""
        self._make(log.state)
        layout = self._job.layout
        for mount in log.state.mounts:
            self._outcome.changed += not lasting.is_right(layout, mount)
            # After the mount: a unit then never stands for what was not made.
            lasting.make(layout, mount, log.state.run)
        self._note_blind(log.state)
        return True

    def restore(self, mounts: Sequence[VolumeMount]) -> None:
        """Make each recorded mount of the job's volumes that is missing, without a run.

        Raises NotTakenError, and what it raises for a mount that nobody may use any more.
        """
        run = next((mount.run for mount in mounts), "")
        self._make(_Recorded(run, mounts, sheltering.modes(self._job.layout, mounts)))

    def _make(self, work: _Work) -> None:
        """Make each mount that is missing, and what protects its source before it."""
        try:
            self._protect(work)
            if self._made or self._is_resumed:
                # Nothing is mounted before others are kept out, as far as we can see.
                self._refuse_open(work)
            self._mount_all(work)
            self._refuse_open(work)
            self._refuse_replaced(work)
        except (NotTakenError, RefusedError, HostChangedError) as error:
            self._take_back(work)
            raise NotTakenError(str(error), changed=False, hint=error.hint) from error

    def _protect(self, state: _Work) -> None:
        layout = self._job.layout
        for volume, mount in zip(self._job.volumes, state.mounts, strict=True):
            with sheltering.opened(volume) as source:
                if sheltering.is_missing(layout, mount, source):
                    self._made.append(partial(self._open_again, volume, mount, state))
                    with _not_taken(f"{shown_path(volume.named)} cannot be protected"):
                        sheltering.protect(layout, mount, source)
                    self._outcome.changed += 1

    def _open_again(self, volume: OpenVolume, mount: VolumeMount, state: _Work) -> str:
        """Take back what protects a source, wherever that is now."""
        with sheltering.opened(volume) as source:
            place = sheltering.path_of(source)
        return sheltering.unprotect(self._job.layout, mount, state.shut, place)

    def _mount_all(self, state: _Work) -> None:
        now = standing.standing()
        for volume, mount in zip(self._job.volumes, state.mounts, strict=True):
            if not self._stands(volume, mount, now):
                with sheltering.opened(volume) as source:
                    self._mount(volume, source, mount)
                self._made.append(partial(self._take_away, mount))
                self._outcome.changed += 1

    def _refuse_open(self, state: _Work) -> None:
        for volume, mount in zip(self._job.volumes, state.mounts, strict=True):
            with sheltering.opened(volume) as source:
                sheltering.refuse_open(self._job.layout, mount, source)

    def _refuse_replaced(self, state: _Work) -> None:
        for volume, mount in zip(self._job.volumes, state.mounts, strict=True):
            place = self._job.layout.place(mount.source)
            if not standing.is_same(place, volume.seen()):
                raise HostChangedError(
                    f"{shown_path(place)} was exchanged for something else in the meantime"
                )

    def _take_back(self, state: _Work) -> None:
        """Take back what this command made, or the whole run: nobody may use such a mount.

        Raises UsernsplanError if that fails; the run then stays unfinished.
        """
        undone = self._made[::-1]
        if self._is_resumed:
            undone = [partial(self._take_away, mount) for mount in reversed(state.mounts)]
        reasons = [reason for undo in undone if (reason := undo())]
        self._outcome.changed = 0
        if reasons:
            command = self._job.layout.command(f"undo {shell(state.run)}")
            raise UsernsplanError(
                f"run {state.run} could not be taken back: {'; '.join(reasons)}",
                hint=f"undo the run: {command}",
            )

    def _note_blind(self, state: RunState) -> None:
        for mount in state.mounts:
            blind = busy.blind(self._place(mount))
            for one in blind[:_SHOWN]:
                self._outcome.notes.append(
                    f"process {one.pid} ({shown_path(one.command)}) does not see the mount at"
                    f" {shown_path(self._place(mount))}: its mounts receive none of ours; it sees it"
                    " when it is started again"
                )

    def verify(self, log: Journal) -> dict[str, Any] | None:
        """Look whether each mount stands, and shows the source with its map."""
        now = standing.standing()
        for volume, mount in zip(self._job.volumes, log.state.mounts, strict=True):
            if not self._stands(volume, mount, now):
                self._outcome.fail([(self._place(mount), "it is not mounted as it should be")])
        return None if self._outcome.failed else {"whole": True}

    def undo(self, log: Journal, *, also_changed: bool = False) -> bool:
        """Unmount each mount, never lazily, and remove its mount point; then what protected it."""
        del also_changed
        gone = self._undo(log.state, dry_run=False)
        # Before the run is known as undone: nothing else would take the record away after a kill.
        record_undone(self._job, log.state)
        for mount in gone:
            if mount.protect and not self._outcome.failed:
                self._unprotect(mount, log.state)
        if self._outcome.failed and not self._outcome.changed:
            # A holder goes on using the mount, so this run is not one that waits to be finished.
            log.set(state=self._found)
        return not self._outcome.failed

    def describe_undo(self, log: Journal, *, also_changed: bool) -> None:
        """Count the mounts that stand."""
        del also_changed
        mounts = self._undo(log.state, dry_run=True)
        ledger = open_ledger(self._job.layout).state()
        for mount in mounts:
            if mount.protect and sheltering.sharing(ledger, mount, [m.at for m in mounts]):
                continue
            said = sheltering.undone_words(self._job.layout, mount, log.state.shut, dry_run=True)
            self._outcome.notes += said

    def _undo(self, state: RunState, *, dry_run: bool) -> list[VolumeMount]:
        """Undo each mount that still is of this run, the last one first; return them."""
        ledger = open_ledger(self._job.layout).state()
        made = planned.present(ledger, state.mounts, state.run)
        gone = []
        for volume, (mount, taken) in reversed([*zip(state.volumes, made, strict=True)]):
            if taken:
                undo = self._job.layout.inline(f"undo {shell(taken)}")
                self._outcome.notes.append(
                    f"{shown_path(self._place(mount))} is a mount of the later run {taken} now, and"
                    f" stays: {undo} takes it away"
                )
                continue
            gone.append(mount)
            is_there = self._is_there(mount, volume.inode)
            if not dry_run and self._place(mount) not in self._outcome.failed:
                self._undo_mount(mount, is_there=is_there)
            elif is_there:
                self._outcome.changed += 1
        return gone

    def _place(self, mount: VolumeMount) -> str:
        return self._job.layout.place(mount.at)

    def _stands(
        self, volume: OpenVolume, mount: VolumeMount, now: Mapping[str, standing.Standing]
    ) -> bool:
        """Tell whether the mount stands. Raises RefusedError if something else is mounted there."""
        place = self._place(mount)
        found = now.get(place)
        if found is None:
            return False
        if found.shows(mount.mapping) and standing.is_same(place, volume.seen()):
            return True
        raise RefusedError(
            f"{shown_path(place)}: something else is mounted there",
            hint=f"choose another --at, or unmount that first: umount {operand(place)}",
        )

    def _refuse_impossible(self, volume: OpenVolume, source: int, mount: VolumeMount) -> None:
        failed = trial.failed(
            source,
            volume.named,
            mount.mapping,
            crosses=mount.crosses,
            namespaces=self._namespaces,
        )
        if failed:
            fact, remedy = why_not(failed)
            raise RefusedError(
                f"{shown_path(volume.named)} cannot have an idmap: {fact}", hint=remedy
            )

    def _note_inside(
        self, volume: OpenVolume, mount: VolumeMount, now: Mapping[str, standing.Standing]
    ) -> None:
        inside = trial.inside(volume.named, (one.mount for one in now.values()))
        if inside and not mount.crosses:
            self._outcome.notes.append(
                "without --cross-mounts, the mount shows empty folders in place of"
                f" {', '.join(shown_path(one.point) for one in inside)}"
            )

    def _refuse_point(self, volume: OpenVolume, mount: VolumeMount, ledger: LedgerState) -> None:
        """Raise RefusedError for a mount point that is no place for this volume."""
        sheltering.refuse_wide(self._job.layout, mount, _group(mount, ledger))
        place = self._place(mount)
        try:
            seen = os.lstat(place)
            is_folder = stat.S_ISDIR(seen.st_mode)
            if is_folder == bool(volume.only) or not (is_folder or stat.S_ISREG(seen.st_mode)):
                kind = "a file" if volume.only else "a folder"
                why = f"it is not {kind}, as the volume is"
            elif os.listdir(place) if is_folder else seen.st_size:
                why = "it is not empty, and the mount would hide what is in it"
            else:
                return
        except FileNotFoundError:
            if planned.is_ours(mount.at) or os.path.isdir(os.path.dirname(place)):
                return
            above = os.path.dirname(place)
            raise RefusedError(
                f"{shown_path(place)}: the folder above it does not exist",
                option="at",
                hint=f"make it first: mkdir -p {operand(above)}",
            ) from None
        except OSError as error:
            why = reason_of(error)
        raise RefusedError(
            f"{shown_path(place)}: {why}", option="at", hint="leave out --at, or name another place"
        )

    def _mount(self, volume: OpenVolume, source: int, mount: VolumeMount) -> None:
        layout = self._job.layout
        ledger = open_ledger(layout).state()
        if planned.is_ours(mount.at):
            group = _group(mount, ledger)
            mountpoints.make_folder(layout, posixpath.dirname(mount.at), group)
        with ExitStack() as stack:
            point = stack.enter_context(
                mountpoints.opened(
                    layout,
                    mount.at,
                    is_folder=not volume.only,
                    is_ours=planned.is_ours(mount.at),
                )
            )
            place = shown_path(self._place(mount))
            stack.enter_context(
                _not_taken(f"{shown_path(volume.named)} cannot be mounted at {place}")
            )
            namespace = self._namespaces.of(mount.mapping)
            source = stack.enter_context(sheltering.with_inner_mounts(layout, mount, source))
            tree = idmap.detached(
                source,
                namespace,
                crosses=mount.crosses,
                options=mount.options,
                without=sheltering.not_inherited(layout, ledger, mount, source),
            )
            stack.callback(os.close, tree)
            idmap.attach(tree, point)

    def _is_there(self, mount: VolumeMount, inode: int) -> bool:
        """Tell whether a mount stands; one of somebody else at its point is a failure."""
        place = self._place(mount)
        found = standing.standing().get(place)
        if found is None:
            self._outcome.notes.append(f"{shown_path(place)} was not mounted any more")
        elif not (found.shows(mount.mapping) and standing.is_inode(place, inode)):
            above = f"something else is mounted there; unmount that first: umount {operand(place)}"
            self._outcome.fail([(place, above)])
        else:
            return True
        return False

    def _undo_mount(self, mount: VolumeMount, *, is_there: bool) -> None:
        layout = self._job.layout
        if is_there:
            if why := self._unmount(mount):
                self._outcome.fail([(self._place(mount), why)])
                return
            self._outcome.changed += 1
        # After the mount, because one that is in use stays lasting; but before its entry in the
        # ledger is gone, which the unit would miss at a boot.
        lasting.remove(layout, mount, self._outcome)
        lasting.forget(layout, mount)
        seen = sheltering.seen_elsewhere(layout, mount)
        if not seen:
            # With the mount point, the kernel would unmount lazily what others have mounted on it.
            mountpoints.removed(layout, mount.at)
            if planned.is_ours(mount.at):
                mountpoints.folder_removed(layout, posixpath.dirname(mount.at))
        for one in seen[:_SHOWN]:
            self._outcome.notes.append(f"{one} still sees the volume, until it ends")

    def _take_away(self, mount: VolumeMount) -> str:
        """Take back a mount that nobody uses yet. Return why that failed; "" if it did not.

        One that was recorded before keeps its point, where nobody can write.
        """
        why = self._unmount(mount)
        noted = open_ledger(self._job.layout).state().mounts
        if not why and mount.at not in {one.at for one in noted}:
            mountpoints.removed(self._job.layout, mount.at)
        return why

    def _unmount(self, mount: VolumeMount) -> str:
        """Unmount a mount if it stands, with its mounts inside. Return why that failed, or ""."""
        place = self._place(mount)
        own = spaces.own()
        top = own.tree.on_top(place)
        if top is None:
            return ""
        ours = [n for n in own.mounts_below(top.mount_id) if n.is_idmapped]
        points = (*(m.point for m in reversed(ours)), place)
        return next(filter(None, map(_why_mounted, points)), "")

    def _unprotect(self, mount: VolumeMount, state: RunState) -> None:
        layout = self._job.layout
        place = layout.place(mount.source)
        # The undo of that one opens the source again, with what its own run wrote down.
        if other := sheltering.sharing(open_ledger(layout).state(), mount, ()):
            self._outcome.notes.append(
                f"{shown_path(place)} stays protected, for the mount at"
                f" {shown_path(layout.path(other.at))}"
            )
            return
        said = sheltering.undone_words(layout, mount, state.shut, dry_run=False)
        if seen := sheltering.seen_elsewhere(layout, mount):
            why = f"it stays protected while its mount is seen by {', '.join(seen[:_SHOWN])}"
        else:
            why = sheltering.unprotect(layout, mount, state.shut)
        if why:
            self._outcome.fail([(place, why)])
        else:
            self._outcome.notes += said


def _group(mount: VolumeMount, ledger: LedgerState) -> int:
    """The host gid of container root, which may enter the folder of its mounts."""
    its = next((a for a in ledger.allocations if a.name == mount.name), None)
    return planned.folder_group(its) if its else 0


@contextmanager
def _not_taken(what: str) -> Iterator[None]:
    """Turn an OSError of the kernel into a refusal of the method."""
    try:
        yield
    except OSError as error:
        raise NotTakenError(f"{what}: {reason_of(error)}", changed=False) from error


def _why_mounted(point: str) -> str:
    """Unmount what is at a point. Return why that failed; "" if it did not."""
    try:
        idmap.unmount(point)
    except OSError as error:
        return _who_keeps(point) if error.errno == errno.EBUSY else reason_of(error)
    return ""


def _who_keeps(place: str) -> str:
    """Why a mount is busy, with who holds it."""
    who = [holder_words(one) for one in busy.holders(place)]
    who += [f"{shown_path(point)} is mounted in it" for point in busy.mounts_in(place)]
    return "; ".join(["it is in use", *who[:_SHOWN]])
