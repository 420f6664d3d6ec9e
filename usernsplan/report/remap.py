"""What a remap changes, as text and JSON: the map, the lines, and each volume's move."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from usernsplan import escape
from usernsplan.engines import engine_of_pool
from usernsplan.errors import UsernsplanError
from usernsplan.escape import shell, shown_path
from usernsplan.report import json_, text
from usernsplan.report.result import Result
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from usernsplan.fixing import FixReport
    from usernsplan.layout import Layout
    from usernsplan.mapping import IdMap
    from usernsplan.model import Finding, Plan, Volume, VolumeMount
    from usernsplan.planner.remap import Remap


def shown(
    remap: Remap,
    looked: Sequence[tuple[Volume, FixReport | UsernsplanError]],
    layout: Layout,
    notes: Sequence[str] = (),
    *,
    dry_run: bool,
) -> Result:
    """A remap before it is carried out. ``looked`` are the volumes that would move."""
    plan = remap.plan
    return Result(
        lambda: "\n\n".join(_parts(remap, looked, layout, dry_run=dry_run)),
        partial(_document, plan, looked, layout, [(one, "") for one in remap.mounts], done=False),
        (*plan.consequences, *plan.findings),
        (*plan.unseen, *notes),
    )


def done(
    plan: Plan,
    moved: Sequence[tuple[Volume, FixReport | UsernsplanError]],
    layout: Layout,
    foreseen: Collection[Finding] = (),
    mounts: Sequence[tuple[VolumeMount, str | UsernsplanError]] = (),
) -> Result:
    """A remap once it is carried out. The text omits what was shown before."""
    return Result(
        lambda: "\n\n".join(_done(plan, moved, layout, mounts)),
        partial(_document, plan, moved, layout, mounts, done=True),
        [finding for finding in plan.findings if finding not in foreseen],
    )


def _parts(
    remap: Remap,
    looked: Sequence[tuple[Volume, FixReport | UsernsplanError]],
    layout: Layout,
    *,
    dry_run: bool,
) -> Iterator[str]:
    plan, former = remap.plan, remap.former
    [new] = plan.allocations
    if former is not None:
        yield text.table(
            (new.name, "the map now", "the new map"),
            [
                (kind, _extents(former.mapping[kind]), _extents(new.mapping[kind]))
                for kind in ("uid", "gid")
            ],
        )
    yield from text.plan_parts(plan, layout)
    moves = [
        f"{shown_path(volume.path)} moves ({volume.mode}): {one.counts['changed']} entries change, "
        f"{one.counts['right']} are right already"
        for volume, one in looked
        if not isinstance(one, UsernsplanError)
    ]
    moves += [_of_mount(mount, "gets the new map", layout) for mount in remap.mounts]
    if moves:
        yield "\n".join(moves)
    if not plan.changed and not looked and not remap.mounts:
        yield text.UP_TO_DATE
    elif dry_run:
        yield text.DRY_RUN


def _extents(ids: IdMap) -> str:
    return "\n".join(map(str, ids))


def _done(
    plan: Plan,
    moved: Sequence[tuple[Volume, FixReport | UsernsplanError]],
    layout: Layout,
    mounts: Sequence[tuple[VolumeMount, str | UsernsplanError]],
) -> Iterator[str]:
    [new] = plan.allocations
    # An undo notes only what it returns to.
    is_undo = len(plan.ledger.update) == 1
    yield "Done."
    left = False
    for volume, one in moved:
        if isinstance(one, UsernsplanError):
            left = True
            yield f"{shown_path(volume.path)}: not moved: {escape.told(str(one))}"
        else:
            left = left or bool(one.failed)
            # The volume alone would be undone by its run's number, but then the map stays.
            yield text.fixed(replace(one, run=None), layout)
    for mount, found in mounts:
        if isinstance(found, UsernsplanError):
            left = True
            yield "\n  ".join(filter(None, (escape.told(str(found)), found.hint)))
        else:
            yield _of_mount(mount, "has the new map", layout) + "".join(
                f"\n  {note}" for note in found.splitlines()
            )
    undo = layout.command(f"remap {shell(new.name)} --undo")
    if left:
        again = layout.command(f"remap {shell(new.name)}")
        yield f"Not everything moved. To finish it: {again}\nTo return to the map before: {undo}"
    elif not is_undo and not engine_of_pool(new):
        # A pool only grows.
        yield f"Undo: {undo}"
    if plan.next_steps:
        yield "\n".join(("Next:", *(f"  {step}" for step in plan.next_steps)))


def _document(
    plan: Plan,
    volumes: Sequence[tuple[Volume, FixReport | UsernsplanError]],
    layout: Layout,
    mounts: Sequence[tuple[VolumeMount, str | UsernsplanError]],
    *,
    done: bool,
) -> str:
    return json_.document(
        plan.kind,
        **json_.plan_fields(plan, layout, done=done),
        volumes=[
            {**json_.path_fields(volume.path), "error": json_.error_fields(one)}
            if isinstance(one, UsernsplanError)
            else {
                **json_.path_fields(volume.path),
                "error": None,
                **json_.fixed_fields(one, layout),
            }
            for volume, one in volumes
        ],
        mounts=[
            {
                **json_.mount_fields(mount, layout),
                "error": json_.error_fields(found) if isinstance(found, UsernsplanError) else None,
                "note": found if found and isinstance(found, str) else None,
            }
            for mount, found in mounts
        ],
    )


def _of_mount(mount: VolumeMount, what: str, layout: Layout) -> str:
    source, at = (shown_path(layout.path(path)) for path in (mount.source, mount.at))
    return f"{at} {what}: it shows {source} ({mount.mode})"
