"""Rules about volumes: interrupted runs of fix-volume, volumes that differ from their record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, listed, rule
from usernsplan.engines.mounts import NOT_MOVED, unmoved
from usernsplan.escape import shown_path
from usernsplan.layout import RUNS
from usernsplan.planner import runs
from usernsplan.planner.volumes import doubts, finishing, give_again

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule("USN070", runs.SEVERITY)
def fix_interrupted(facts: Facts) -> Iterator[Seen]:
    """A run of fix-volume or undo was interrupted.

    Some files of its volume have their new owners, others still have their old ones, and the
    container cannot use them. If the map overlaps itself, some files wait with staging ids,
    which nobody has.

    A kill, a full disk or a power cut interrupted the run. Its journal has everything that is
    needed to finish it.

        usernsplan fix-volume /srv/web      killed

    Run the same command again to finish it, or 'usernsplan undo RUN' to undo it. This rule
    does not report a run that is still at work.
    """
    for run in facts.state.runs:
        if not run.problem:
            yield Seen(facts.place(f"{RUNS}/{run.run}"), *runs.told(run, facts.state.layout))


@rule("USN071", runs.SEVERITY)
def fix_unknown(facts: Facts) -> Iterator[Seen]:
    """The state of a run of fix-volume is unknown.

    Its journal is damaged, or a newer usernsplan wrote it. Whether the run was finished, and
    on which volume, is unknown. Every fix-volume and undo refuses to work, because it could
    move ids twice.

    A disk is damaged, a backup was restored in part, or usernsplan was downgraded.

        /var/lib/usernsplan/runs/20261122-053048/run.json       "format": 9

    Restore the file, or use the newer usernsplan. Or look at the volume, and then move the
    run's folder away.
    """
    for run in facts.state.runs:
        if run.problem:
            place = facts.place(f"{RUNS}/{run.run}/run.json")
            yield Seen(place, run.problem.removeprefix(f"{place} "), run.hint)


@rule("USN067", "error")
def not_moved(facts: Facts) -> Iterator[Seen]:
    """A volume is not moved yet to the new map of its container.

    remap gave the container another map. The files of this volume still have the ids of the map
    before it, and the container sees them as somebody else's.

    The command was killed, or it could not change some file.

        usernsplan remap web --size 131072      killed

    'usernsplan remap NAME' moves what is left; 'usernsplan remap NAME --undo' returns to the map
    before.
    """
    layout = facts.state.layout
    for volume in unmoved(facts.state.ledger).values():
        message = f"the volume of '{volume.name}' is not moved yet: {NOT_MOVED}"
        yield Seen(facts.place(volume.path), message, f"finish it: {finishing(volume, layout)}")


@rule("USN072", "error")
def volume_not_as_recorded(facts: Facts) -> Iterator[Seen]:
    """A volume differs from its record.

    fix-volume gave the volume to a container. Now its top folder or an entry in it has an
    owner that the container's map lacks. The container sees such an entry as nobody's and
    cannot write to it. This check looked at the top folder and one level below; --volumes
    looks at every file.

    A backup was restored with the host's ids, another folder replaced the volume, something is
    mounted over it, or its files were changed with chown.

        usernsplan fix-volume /srv/web
        tar -xf backup.tar --same-owner -C /srv/web

    Run the same 'usernsplan fix-volume' again, or 'usernsplan apply --fix-volumes'.
    """
    yield from _doubted(facts, is_missing=False)


@rule("USN073", "warning")
def volume_missing(facts: Facts) -> Iterator[Seen]:
    """A recorded volume is missing.

    fix-volume gave the volume to a container, and nothing is at its path any more. If an
    engine creates the folder, it belongs to the host's root, and the container cannot write
    there.

    The volume was deleted or renamed, or its file system is not mounted.

        umount /srv

    Restore it or mount it. The record is removed with the container:
    'usernsplan release NAME', then release --forget, with --unseen if the volume was deleted
    for good.
    """
    yield from _doubted(facts, is_missing=True)


@rule("USN074", "error")
def files_out_of_place(facts: Facts) -> Iterator[Seen]:
    """Files in a recorded volume have ids that its container lacks (--volumes).

    The container sees nobody as their owner and cannot change them.

    They were added later with the host's ids, fix-volume left them on request (--unmapped
    keep), or it could not change them.

        cp -a /root/site /srv/web/

    Run the same 'usernsplan fix-volume' again: it changes them.
    """
    for one in facts.misfits:
        few = listed(map(shown_path, one.examples))
        files = "1 file has" if one.entries == 1 else f"{one.entries} files have"
        message = f"{files} ids that '{one.name}' lacks ({listed(one.ids)}): {few}"
        volume = next(v for v in facts.state.ledger.volumes if v.path == one.path)
        yield Seen(facts.place(one.path), message, give_again(volume, facts.state.layout))


def _doubted(facts: Facts, *, is_missing: bool) -> Iterator[Seen]:
    found = doubts(facts.state.ledger, facts.state.volumes, facts.state.layout)
    for path, doubt in found.items():
        if doubt.is_missing is is_missing and (is_missing or doubt.volume.former is None):
            yield Seen(
                facts.place(path),
                f"the volume is recorded as {doubt.volume.name}'s, but {doubt.fact}",
                doubt.remedy,
            )
