"""Which idmapped mounts a request means, what refuses them, and what the ledger has of them."""

from __future__ import annotations

import os
import posixpath
from contextlib import ExitStack
from typing import TYPE_CHECKING

from usernsplan.errors import (
    InvalidValueError,
    RefusedError,
    UnknownNameError,
    concerning,
    did_you_mean,
    of_place,
)
from usernsplan.escape import operand, shown_path
from usernsplan.fixing import FixRequest, Obstacle
from usernsplan.host import accounts
from usernsplan.host.mounts import all_mounts, mount_of
from usernsplan.ledger import open_ledger
from usernsplan.model import VolumeMount
from usernsplan.planner import mounts as planned
from usernsplan.values import replace
from usernsplan.volume import journal, judge, options, records, spots, walk
from usernsplan.volume.recording import record_mounts
from usernsplan.volume.state import DONE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from usernsplan.layout import Layout
    from usernsplan.mapping import Mapping
    from usernsplan.model import Allocation, Mode
    from usernsplan.volume.decide import Meant
    from usernsplan.volume.job import Job
    from usernsplan.volume.state import RunState
    from usernsplan.volume.targets import OwnershipRule
    from usernsplan.volume.walk import OpenVolume


# What looks at mounts is imported where one is meant: most requests change the disk.

# What only a change of the disk does, and what only such a change needs to be permitted.
_CHANGES = ("discover", "reverse", "from", "from-map", "uid-map", "gid-map")
_PERMITS = ("unmapped", "outside-links", "drop-power", "keep-power", "again", "copy-up", "jobs")
# What only a mount has.
_OF_MOUNTS = ("at", "persist", "read-only", "protect")


def settled(request: FixRequest) -> FixRequest:
    """The request with the method that its options leave: a --reverse is none of a mount. Pure.

    Raises InvalidValueError for an option of another method.
    """
    given = _given(request)
    if request.method == "idmap":
        _refuse(given, (*_CHANGES, *_PERMITS), "it is about a change of the disk", "--method chown")
    changes = [one for one in _CHANGES if one in given]
    if request.method == "chown":
        _refuse(given, _OF_MOUNTS, "it is about a mount", "--method idmap")
    elif request.method == "auto" and changes:
        _refuse(given, _OF_MOUNTS, f"it is about a mount, and --{changes[0]} changes the disk", "")
        return replace(request, method="chown")
    return request


def _refuse(given: Collection[str], options: Iterable[str], fact: str, other: str) -> None:
    for option in options:
        if option in given:
            hint = f"leave it out, or use {other}" if other else "leave out one of them"
            raise InvalidValueError(fact, hint=hint, option=option)


def _given(request: FixRequest) -> frozenset[str]:
    """The options of a request that belong to one method only."""
    said = {
        "discover": request.discover,
        "reverse": request.reverse,
        "from": request.source,
        "from-map": request.from_map,
        "uid-map": request.uid_map,
        "gid-map": request.gid_map,
        "unmapped": request.keep_unmapped,
        "outside-links": request.skip_outside_links,
        "drop-power": request.drop_power,
        "keep-power": request.keep_power,
        "again": request.again,
        "copy-up": request.copy_up,
        "jobs": request.jobs,
        "at": request.at,
        "persist": request.persist,
        "read-only": request.read_only,
        "protect": request.protect,
    }
    return frozenset(option for option, value in said.items() if value not in {None, False, ()})


def understood(job: Job, meant: Meant, places: Sequence[str]) -> Meant:
    """The request with the method that it gets: auto is idmap where every volume can be mounted so.

    A volume that has a mount for this container keeps its mode and user, unless others are named.
    Raises InvalidValueError or RefusedError for what the method cannot do.
    """
    request = meant.request
    if request.method == "chown":
        return meant
    if request.at is not None and len(places) > 1:
        raise InvalidValueError(
            "it goes with one PATH", hint="mount each volume on its own", option="at"
        )
    mounted = as_mounted(meant)
    recorded = against_mounts(mounted)
    if request.method == "idmap":
        for fact, remedy in recorded:
            raise RefusedError(fact, hint=remedy)
        return mounted

    why = next(iter(recorded or _against_any(job.layout, mounted, places)), None)
    if why is None:
        job.outcome.notes.append(
            "--method auto mounts: the kernel and the file system can, and it is safe"
        )
        return replace(mounted, request=replace(mounted.request, method="idmap"))
    of_mounts = _given(request).intersection(_OF_MOUNTS)
    if of_mounts:
        raise RefusedError(
            f"--{min(of_mounts)} needs a mount, and there can be none: {why.fact}", hint=why.remedy
        )
    job.outcome.notes.append(f"--method auto changes the disk: {why.fact}")
    return replace(meant, request=replace(request, method="chown"))


def as_mounted(meant: Meant, *, default: Mode | None = "own") -> Meant:
    """The request with the mode and the user that a mount gets. Pure."""
    request, allocation = meant.request, meant.allocation
    if allocation is None:
        return meant
    mode, user = request.mode, request.user
    before = planned.recorded(meant.ledger, allocation.name, meant.names[0])
    if mode is None and user is None and before:
        mode, user = before[-1].mode, before[-1].user or None
    return replace(meant, request=replace(request, mode=mode or default, user=user))


def against_mounts(meant: Meant) -> list[Obstacle]:
    """What the request and the ledger have against mounts, whatever the kernel can. Pure."""
    return judge.given_to(meant)[:1]


def against(layout: Layout, meant: Meant, place: str) -> Obstacle | None:
    """What the kernel or safety has against a mount of the volume at this real path.

    It is tried as it would be made, with its own map and what is to protect it.
    """
    from usernsplan.host import trial  # noqa: PLC0415 - see above
    from usernsplan.planner.mountable import why_not  # noqa: PLC0415
    from usernsplan.volume import sheltering  # noqa: PLC0415

    if meant.allocation is None:
        return None
    passwd = accounts.of_image(meant.request.passwd)
    rule = options.targets_of(meant.request, meant.ledger, meant.allocation, passwd, meant.names)
    with ExitStack() as stack:
        with of_place(place):
            volume = walk.volume(place)
        stack.callback(os.close, volume.top)
        source = stack.enter_context(sheltering.opened(volume))
        try:
            mount = _mount_of(layout, meant, rule, volume, meant.allocation)
            refuse_others(layout, meant, [mount])
            failed = trial.failed(source, place, mount.mapping, crosses=mount.crosses)
            if failed:
                return why_not(failed)
            permits = planned.permits(meant.request)
            sheltering.refuse_open(layout, mount, source, foreseen=True, permits=permits)
        except RefusedError as error:
            shown = shown_path(layout.path(spots.name_of(layout, place)))
            return Obstacle(str(error).removeprefix(f"{shown}: "), error.hint)
    return None


def _against_any(layout: Layout, meant: Meant, places: Sequence[str]) -> Iterator[Obstacle]:
    for place in places:
        if why := against(layout, meant, place):
            fact = why.fact.splitlines()[0]
            yield why._replace(fact=f"a mount of {shown_path(place)} is refused: {fact}")


def shown_ids(rule: OwnershipRule, allocation: Allocation, seen: os.stat_result) -> Mapping:
    """The map of a mount: ids on disk to host ids. ``seen`` is the top of the volume. Pure."""
    if rule.owner is None:
        return allocation.mapping
    return planned.owned(rule.owner, (seen.st_uid, seen.st_gid))


def asked(job: Job, meant: Meant, rule: OwnershipRule) -> tuple[VolumeMount, ...]:
    """The mounts that a request means, one for each open volume of the job; none with chown."""
    request, allocation = meant.request, meant.allocation
    if request.method != "idmap" or allocation is None:
        return ()
    found: list[VolumeMount] = []
    for one in job.volumes:
        # Each is chosen beside those before it: two volumes may have one name in a folder of ours.
        mounts = (*meant.ledger.mounts, *found)
        beside = replace(meant, ledger=replace(meant.ledger, mounts=mounts))
        found.append(_lasting(job, beside, rule, one, allocation))
    return tuple(found)


def _lasting(
    job: Job, meant: Meant, rule: OwnershipRule, volume: OpenVolume, allocation: Allocation
) -> VolumeMount:
    """The mount that a request means for a volume, and how it returns at boot."""
    mount = _mount_of(job.layout, meant, rule, volume, allocation)
    if not meant.request.persist:
        before = next((m.lasting for m in meant.ledger.mounts if m.at == mount.at), "")
        return replace(mount, lasting=before)
    from usernsplan.volume import lasting  # noqa: PLC0415 - see above

    how = lasting.how(job.layout, mount, job.outcome, is_file=bool(volume.only))
    return replace(mount, lasting=how)


def _mount_of(
    layout: Layout, meant: Meant, rule: OwnershipRule, volume: OpenVolume, allocation: Allocation
) -> VolumeMount:
    request, name = meant.request, spots.name_of(layout, volume.named)
    with of_place(volume.named):
        seen = volume.seen()
    judge.refuse_owner(meant, name, (seen.st_uid, seen.st_gid))
    at = (
        planned.default_at(meant.ledger, allocation.name, name, lasting=request.persist)
        if request.at is None
        else _named(layout, meant, request.at)
    )
    mount = VolumeMount(
        at,
        name,
        allocation.name,
        rule.mode,
        shown_ids(rule, allocation, seen),
        records.user_of(rule, allocation),
        tuple(sorted({*request.options, *(("ro",) if request.read_only else ())})),
        request.cross_mounts,
    )
    from usernsplan.volume import sheltering  # noqa: PLC0415 - see above

    with sheltering.opened(volume) as source:
        protect = sheltering.owned(layout, meant.ledger, mount, source, request.protect)
    return replace(mount, protect=protect)


def _named(layout: Layout, meant: Meant, at: str) -> str:
    """The name below the root of a mount point that was typed.

    Raises RefusedError for one that would lead elsewhere, or that belongs to somebody else.
    """
    name = spots.point_of(layout, at)
    with concerning(option="at"):
        place = layout.place(name)
        why = planned.why_not_at(name, meant.container or "", meant.names, meant.ledger)
        if why:
            hint = "leave out --at, or name another folder"
            raise RefusedError(f"{shown_path(place)}: {why}", hint=hint)
        if not planned.is_ours(name):
            spots.refuse_dangerous_point(layout, place, permitted=meant.request.protected)
    return name


def refuse_others(layout: Layout, meant: Meant, mounts: Iterable[VolumeMount]) -> None:
    """Raise RefusedError if another mount of ours stands where one of these is to be."""
    recorded = {m.at: m for m in meant.ledger.mounts}
    if not recorded:
        return
    from usernsplan.host import standing  # noqa: PLC0415 - see above

    now = standing.standing()
    for mount in mounts:
        before = recorded.get(mount.at)
        if before is None or layout.place(mount.at) not in now or _is_same(before, mount):
            continue
        source = shown_path(layout.path(before.source))
        raise RefusedError(
            f"{shown_path(layout.path(mount.at))} shows {source} for"
            f" {before.name} ({_how(before, mount)}) already",
            hint="choose another --at, or take that mount away first:"
            f" {planned.undoing(before, layout)}",
        )


def _how(before: VolumeMount, mount: VolumeMount) -> str:
    """How a mount shows its source, with all that another one would do in another way. Pure."""
    words = [f"{before.mode} {before.user}".strip(), *before.options]
    if before.crosses != mount.crosses:
        words.append(f"with{'' if before.crosses else 'out'} --cross-mounts")
    is_alike = (before.source, before.name, before.mode, before.user) == (
        mount.source,
        mount.name,
        mount.mode,
        mount.user,
    )
    if is_alike and before.mapping != mount.mapping:
        # In own mode the owner of PATH is a part of the map, and somebody may have changed it.
        words.append("with another map")
    return ", ".join(words)


def _is_same(before: VolumeMount, mount: VolumeMount) -> bool:
    """Tell whether two mounts show the same; how they return and are protected can change. Pure."""
    ways = [
        (m.source, m.name, m.mode, m.user, m.mapping, m.options, m.crosses) for m in (before, mount)
    ]
    return ways[0] == ways[1]


def note(job: Job, meant: Meant, mounts: Sequence[VolumeMount]) -> None:
    """Record in the ledger which mounts stand, and which run made each."""
    if job.outcome.failed:
        return
    run = job.outcome.run_name or ""
    before = {m.at: m.run for m in meant.ledger.mounts}
    noted = [replace(m, run=run or _made_by(job, m) or before.get(m.at, "")) for m in mounts]
    record_mounts(job, noted, (), meant.ledger.number)
    there = {m.at for m in open_ledger(job.layout).state().mounts}
    for mount in noted:
        if mount.at not in there:
            # Nothing would stop another container from getting the ids that it shows.
            take_away = planned.undoing(mount, job.layout)
            why = f"'{mount.name}' was released in the meantime; take the mount away: {take_away}"
            job.outcome.fail([(job.layout.place(mount.at), why)])


def _made_by(job: Job, mount: VolumeMount) -> str:
    """The last run that made a mount; it may have been killed before it noted that."""
    runs = [run for run in journal.runs(job.layout) if run.state == DONE]
    mine = [run.run for run in runs if any(m.at == mount.at for m in run.mounts)]
    return mine[-1] if mine else ""


def refuse_needed(job: Job, state: RunState, mounts: Sequence[VolumeMount]) -> None:
    """Raise RefusedError for an undo that takes away what protects the source of another mount."""
    if not mounts:
        return
    from usernsplan.volume import sheltering  # noqa: PLC0415 - see above

    ledger = open_ledger(job.layout).state()
    for other in sheltering.dependants(ledger, mounts):
        place, source = (shown_path(job.layout.path(one)) for one in (other.at, other.source))
        raise RefusedError(
            f"the mount of {source} at {place} needs the protection of run {state.run}",
            hint=f"undo that first: {planned.undoing(other, job.layout)}",
        )


def run_at(job: Job, words: str) -> str:
    """The run that made the mount at a mount point.

    Raises UnknownNameError if none is recorded there, and RefusedError if the run made more of them.
    """
    layout = job.layout
    ledger = open_ledger(layout).state()
    at = layout.below(posixpath.normpath(spots.placed_at(layout, words)))
    found = next((m for m in ledger.mounts if m.at == at), None)
    if found is None:
        raise UnknownNameError(
            f"no mount of a volume is recorded at {shown_path(words)}",
            hint=did_you_mean(
                words,
                (layout.path(m.at) for m in ledger.mounts),
                f"{layout.inline('volumes')} lists the mounts",
            ),
        )
    others = [
        shown_path(layout.path(m.at)) for m in ledger.mounts if m.run == found.run and m.at != at
    ]
    if not found.run or others:
        what = (
            f"the run {found.run} also made {', '.join(others)}"
            if others and found.run
            else "no run is known that made it"
        )
        umount = f"umount {operand(layout.place(found.at))}"
        again = layout.inline("check")
        raise RefusedError(
            f"{shown_path(words)} cannot be undone alone: {what}",
            hint=f"undo the run: {planned.undoing(found, layout)}"
            if found.run
            else f"unmount it: {umount}; {again} then tells what is left",
        )
    return found.run


def refuse_shown(job: Job, meant: Meant, place: str) -> None:
    """Raise RefusedError for a path on one of our own mounts: what it shows is another path."""
    layout, point = job.layout, mount_of(place, all_mounts()).point
    mount = next((m for m in meant.ledger.mounts if layout.place(m.at) == point), None)
    if mount is None:
        return
    raise RefusedError(
        f"{shown_path(place)} is on the mount of {shown_path(layout.path(mount.source))} for"
        f" '{mount.name}', which shows other ids than the disk has",
        hint=f"name the volume itself, {shown_path(layout.path(mount.source))}; this takes the mount"
        f" away: {planned.undoing(mount, layout)}",
    )
