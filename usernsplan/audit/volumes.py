"""Rules about volumes: runs of fix-volume that were interrupted, and recorded volumes that do not look right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, listed, rule
from usernsplan.escape import shown_path
from usernsplan.layout import RUNS
from usernsplan.planner import runs
from usernsplan.planner.volumes import doubts, give_again

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.planner.volumes import Doubt


@rule("USN070", runs.SEVERITY)
def fix_interrupted(facts: Facts) -> Iterator[Seen]:
    """A run of fix-volume or undo was interrupted.

    Some files of its volume have their new owners, and others still their old ones: the container cannot use them, and
    with a map that overlaps itself some wait with ids that nobody has.

    A kill, a full disk or a power cut in the middle of it. The journal has what it takes to finish.

        usernsplan fix-volume /srv/web      killed

    The same command finishes it, and 'usernsplan undo RUN' takes it back. A run that is at work is no finding.
    """
    for run in facts.state.runs:
        if not run.problem:
            yield Seen(facts.place(f"{RUNS}/{run.run}"), *runs.told(run, facts.state.layout))


@rule("USN071", runs.SEVERITY)
def fix_unknown(facts: Facts) -> Iterator[Seen]:
    """What became of a run of fix-volume cannot be told.

    Its journal is damaged, or was made by a newer usernsplan. Whether it was finished, and on which volume, is not
    known: every fix-volume and undo refuses to work, for it could move ids twice.

    A damaged disk, a backup that was put back in part, or a downgrade.

        /var/lib/usernsplan/runs/20261122-053048/run.json       "format": 3

    Put the file back, use the newer usernsplan, or move the run's folder away once its volume was looked at.
    """
    for run in facts.state.runs:
        if run.problem:
            place = facts.place(f"{RUNS}/{run.run}/run.json")
            yield Seen(place, run.problem.removeprefix(f"{place} "), run.hint)


@rule("USN072", "error")
def volume_not_as_recorded(facts: Facts) -> Iterator[Seen]:
    """A volume does not look as it was recorded.

    fix-volume gave it to a container, and now its top, or what lies in it, has owners that the container's map lacks.
    The container sees nobody there, and cannot write. Its top and one level below were looked at; --volumes looks at
    every file.

    A backup that was put back with the ids of the host, another folder in its place, something mounted over it, or a
    chown by hand.

        usernsplan fix-volume /srv/web
        tar -xf backup.tar --same-owner -C /srv/web

    The same 'usernsplan fix-volume' mends it, and so does 'usernsplan apply --fix-volumes'.
    """
    for path, doubt in _doubted(facts, is_missing=False):
        message = f"the volume is recorded as {doubt.volume.name}'s, but {doubt.fact}"
        yield Seen(facts.place(path), message, doubt.remedy)


@rule("USN073", "warning")
def volume_missing(facts: Facts) -> Iterator[Seen]:
    """A recorded volume is not there.

    fix-volume gave it to a container, and there is nothing at its path any more. An engine that makes the folder makes
    it the host root's, and the container cannot write there.

    It was removed or renamed, or what it lies on is not mounted.

        umount /srv

    Put it back, or mount it. The record goes with the container: 'usernsplan release NAME', then release --forget, with
    --unseen where it was removed for good.
    """
    for path, doubt in _doubted(facts, is_missing=True):
        message = f"the volume is recorded as {doubt.volume.name}'s, but {doubt.fact}"
        yield Seen(facts.place(path), message, doubt.remedy)


@rule("USN074", "error")
def files_out_of_place(facts: Facts) -> Iterator[Seen]:
    """Files in a recorded volume belong to ids that its container does not have (--volumes).

    The container sees nobody as their owner, and cannot change them.

    They came in later with the ids of the host, fix-volume was told to leave them (--unmapped keep), or could not
    change them.

        cp -a /root/site /srv/web/

    The same 'usernsplan fix-volume' changes them.
    """
    for one in facts.misfits:
        few = listed([shown_path(path) for path in one.examples])
        files = "1 file belongs" if one.entries == 1 else f"{one.entries} files belong"
        message = f"{files} to ids that '{one.name}' does not have ({listed(one.ids)}): {few}"
        volume = next(v for v in facts.state.ledger.volumes if v.path == one.path)
        yield Seen(facts.place(one.path), message, give_again(volume, facts.state.layout))


def _doubted(facts: Facts, *, is_missing: bool) -> Iterator[tuple[str, Doubt]]:
    found = doubts(facts.state.ledger, facts.state.volumes, facts.state.layout)
    yield from ((path, doubt) for path, doubt in found.items() if doubt.is_missing is is_missing)
