"""Give files that lost power in a run their power back, if their content is proved unchanged.

The file itself gets nothing: another process may have it open. A new inode replaces it, see
renew.
"""

from __future__ import annotations

import os
import stat
from contextlib import closing, suppress
from itertools import chain
from typing import TYPE_CHECKING

from usernsplan.errors import RefusedError
from usernsplan.host.mounts import MountPoint, all_mounts
from usernsplan.values import NamedTuple
from usernsplan.volume import journal, logs, power, renew
from usernsplan.volume.journal import Journal
from usernsplan.volume.state import DONE, RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from usernsplan.layout import Layout
    from usernsplan.volume.entries import Special
    from usernsplan.volume.seen import Lacking
    from usernsplan.volume.walk import OpenVolume

    Key = tuple[int, int]

_SWAPS = "swaps"


class Restored(NamedTuple):
    """The names whose files have their power again; the other names, each with the reason."""

    restored: tuple[Lacking, ...]
    rest: tuple[tuple[Lacking, str], ...]


def restore(
    volumes: Sequence[OpenVolume],
    lacking: Sequence[Lacking],
    proof: Callable[[Lacking], renew.Proof | None],
    log: Journal | None,
) -> Restored:
    """Give files the power that they lack if ``proof`` has a proof. Without ``log``, only check."""
    files: dict[Key, list[Lacking]] = {}
    for one in lacking:
        files.setdefault((one.entry.device, one.inode), []).append(one)
    swaps = renew.Swaps(log.path(_SWAPS, 0)) if log else None
    mounts = all_mounts() if files else []

    restored: list[Lacking] = []
    rest: list[tuple[Lacking, str]] = []
    # All names of an inode must be renewed together, or it would split into two files.
    for names in files.values():
        known = proof(names[0])

        try:
            if known is None:
                raise renew.NotRenewedError("no record proves its content")
            if where := _mounted(names, mounts):
                raise renew.NotRenewedError(
                    f"it is mounted at {where}, which would still show the old file"
                )
            wanted = _wanted(names, known)
            if swaps:
                renew.renew(volumes, wanted, swaps)
            else:
                renew.foretell(volumes, wanted)
        except renew.NotRenewedError as error:
            rest += [(one, str(error)) for one in names]
        else:
            restored += names
    return Restored(tuple(restored), tuple(rest))


def _mounted(names: Sequence[Lacking], mounts: Sequence[MountPoint]) -> str:
    """The mount point of the file itself; "" if there is none.

    A mount of a single file stays on the old inode when its name moves to a new one.
    """
    device, inode = names[0].entry.device, names[0].inode
    number = f"{os.major(device)}:{os.minor(device)}"
    for mount in mounts:
        if mount.device == number and any(mount.root.endswith(f"/{one.name}") for one in names):
            with suppress(OSError):
                seen = os.stat(mount.point)
                if stat.S_ISREG(seen.st_mode) and seen.st_ino == inode:
                    return mount.point
    return ""


def mend(volumes: Sequence[OpenVolume], log: Journal) -> None:
    """Finish or undo swaps that a kill interrupted."""
    renew.mend(volumes, log.logs(_SWAPS))


def _wanted(names: Sequence[Lacking], proof: renew.Proof) -> renew.Wanted:
    whole = names[0].whole
    return renew.Wanted(
        inode=names[0].inode,
        names=tuple(renew.Name(one.volume, one.parts, one.name) for one in names),
        owner=whole.owner,
        mode=stat.S_IMODE(whole.mode),
        capability=whole.capability,
        proof=proof,
        acl=whole.acl,
    )


def renewed(layout: Layout, state: RunState) -> dict[Key, int]:
    """The inodes that this run and later ones replaced: (device, old inode) to the new inode."""
    found: dict[Key, int] = {}
    swaps: list[renew.Swapped] = []
    for run in (state, *journal.later(layout, state)):
        with closing(Journal(layout, run)) as log:
            swaps += renew.swapped(log.logs(_SWAPS))

    # An earlier run may be undone after a later one, so sort by time and not by run.
    swaps.sort()
    for _, device, old, new in swaps:
        # An inode that replaced another one may have been replaced itself.
        found |= {key: new for key, inode in found.items() if (key[0], inode) == (device, old)}
        found[device, old] = new
    return found


def proofs(layout: Layout, state: RunState) -> Callable[[Lacking], renew.Proof | None]:
    """What earlier runs recorded of files that had exactly the power that they are to get."""
    known: dict[Key, list[Special]] = {}
    for run in journal.runs(layout, state):
        if run.run == state.run or run.state != DONE or not run.overlaps(state):
            continue

        places = renewed(layout, run)
        # The rest of a damaged log proves nothing; its files are reported as without power.
        with closing(Journal(layout, run)) as log, suppress(RefusedError):
            for note in chain.from_iterable(map(logs.read, log.logs("folders", "late"))):
                proved = (group.entries() for group in note.groups if group.proofs)
                for entry in chain.from_iterable(proved):
                    if entry.proof:
                        key = (entry.device, entry.inode)
                        known.setdefault((entry.device, places.get(key, entry.inode)), []).append(
                            entry
                        )

    def proof(one: Lacking) -> renew.Proof | None:
        entries = known.get((one.entry.device, one.entry.inode), ())
        return next(
            (e.proof for e in entries if power.lawful(e.form, one.whole) == one.whole), None
        )

    return proof


def told(one: Lacking, why: str, path: str) -> str:
    """The power that a file has lost, the reason, and the commands that give it back."""
    because = f" ({why})" if why else ""
    lost, commands = power.lost(one.whole, one.left), power.commands(one.whole, one.left, path)
    return f"{lost} removed{because}; to give it back: {commands}"
