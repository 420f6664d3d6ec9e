"""rename: an allocation gets another name. Its ids, lines, records and volumes stay. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines import engine_of_pool, pool_named
from usernsplan.errors import InvalidValueError, RefusedError, UnknownNameError, did_you_mean
from usernsplan.escape import shell, shown_path
from usernsplan.model import DEFAULT_NAME, Finding, LedgerChange, Plan
from usernsplan.planner.mounts import undoing
from usernsplan.planner.names import check_name
from usernsplan.planner.stories import advise
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.layout import Layout
    from usernsplan.model import Allocation, Event, HostState, LedgerState, RunSeen

_FEW = 3


def make_rename(
    state: HostState, old: str, new: str, runs: Iterable[RunSeen], renames: Iterable[Event]
) -> Plan:
    """Decide one ``rename``. No file changes: the owner of the lines keeps its name.

    ``runs`` are those of fix-volume, and ``renames`` the events of the ledger that renamed
    something. If this very rename was done before, nothing changes. Raises UnknownNameError for an
    old name that nobody has, InvalidValueError for a name that is impossible, and RefusedError if
    the new name is taken.
    """
    known = {a.name: a for a in state.ledger.allocations}
    if old not in known and new in known and any((old, new) in e.change.rename for e in renames):
        return Plan("rename", allocations=(known[new],))
    if old not in known:
        raise UnknownNameError(
            f"nothing is allocated under the name '{old}'; nothing was renamed",
            hint=did_you_mean(old, known, UnknownNameError.hint),
        )

    check_new(state.ledger, state.layout, known[old], new)
    refuse_unfinished(state.layout, old, runs)
    now = replace(known[old], name=new)
    return Plan(
        "rename",
        allocations=(now,),
        ledger=LedgerChange(rename=((old, new),)),
        findings=tuple(findings(state, known[old], new)),
        next_steps=(state.layout.command(f"render --list {shell(new)}"),),
    )


def check_new(ledger: LedgerState, layout: Layout, old: Allocation, new: str) -> None:
    """Raise InvalidValueError or RefusedError unless an allocation can get this new name."""
    if old.name == DEFAULT_NAME:
        raise InvalidValueError(
            f"'{DEFAULT_NAME}' is Docker's own allocation, which has no other name",
            hint="Docker can use a container's allocation instead: "
            f"{layout.inline('allocate NAME --daemon NAME')}",
        )
    if engine := engine_of_pool(old):
        raise InvalidValueError(
            f"'{old.name}' is the pool of {engine}, which finds it by this name",
            hint="name a container's allocation",
        )
    check_name(new)
    if engine := pool_named(new):
        raise InvalidValueError(
            f"'{new}' is the name of the pool of {engine}", hint="choose another name"
        )
    if old.name == new:
        raise InvalidValueError(
            f"'{old.name}' has this name already", hint="name the old and the new name"
        )

    if any(a.name == new for a in ledger.allocations):
        raise RefusedError(
            f"'{new}' is allocated already; nothing was renamed",
            hint=f"choose another name, or run {layout.inline(f'release {shell(new)}')} first",
        )
    # A later 'allocate' of the new name would get back a range that has another container's files.
    if former := [q.reserved_range for q in ledger.quarantined if q.name == new]:
        raise RefusedError(
            f"'{new}' had {', '.join(map(str, former))}, which is quarantined: files may still carry "
            "the ids of that container; nothing was renamed",
            hint=f"choose another name, or run {layout.inline(f'release --forget {shell(new)}')} first",
        )
    if left := [v.path for v in ledger.volumes if v.name == new]:
        few = ", ".join(map(shown_path, left[:_FEW]))
        raise RefusedError(
            f"{few}{' and others' if left[_FEW:] else ''} are recorded as volumes of an earlier "
            f"'{new}'; nothing was renamed",
            hint="choose another name, or give these volumes to another container with fix-volume",
        )


def refuse_unfinished(layout: Layout, old: str, runs: Iterable[RunSeen]) -> None:
    """Raise RefusedError while a run of fix-volume works on this container's volumes.

    It ends by recording them under the name that it began with.
    """
    for run in runs:
        if run.problem:
            raise RefusedError(
                f"it is unknown whose volumes a run changes: {run.problem}", hint=run.hint
            )
        if run.container != old or not (run.is_at_work or run.state in {"changing", "undoing"}):
            continue
        paths = ", ".join(map(shown_path, run.paths))
        how = "is at work" if run.is_at_work else "was interrupted"
        wait = "wait for it" if run.is_at_work else "finish or undo it"
        raise RefusedError(
            f"run {run.run} on {paths} of '{old}' {how}; nothing was renamed",
            hint=f"{wait} first: {layout.command('history --runs')} shows it",
        )


def findings(state: HostState, old: Allocation, new: str) -> Iterator[Finding]:
    """What still has the old name: the owner of the lines, and what engines were given."""
    yield advise(
        "USN170",
        f"what engines were given still has the name '{old.name}', and the owner of the lines stays "
        f"{old.owner}",
        f"render '{new}' again where an engine names its container after the allocation",
    )
    if mine := [mount for mount in state.ledger.mounts if mount.name == old.name]:
        few = ", ".join(shown_path(state.layout.path(mount.at)) for mount in mine[:_FEW])
        more = f" and {len(mine) - _FEW} more" if mine[_FEW:] else ""
        yield advise(
            "USN170",
            f"the mounts of its volumes stay where they are: {few}{more}",
            f"to have one elsewhere: {undoing(mine[0], state.layout)}, and mount it again",
        )
    for one in state.unlisted:
        if one.container == old.name and one.path:
            place = state.layout.path(one.path)
            yield advise(
                "USN170",
                f"{shown_path(place)}: the container '{old.name}' of {one.program} keeps its name, so "
                f"'check' takes it for a stranger in the ids of '{new}'",
                f"rename the container of {one.program}, too",
            )
            return
