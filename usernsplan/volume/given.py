"""The volumes that runs gave to containers, from their journals, to rebuild a lost ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.errors import RefusedError
from usernsplan.host import runs as read_runs
from usernsplan.mapping import Mapping
from usernsplan.planner.rebuild import Given, LeftOut
from usernsplan.volume import journal
from usernsplan.volume.lifecycle import METHODS
from usernsplan.volume.state import CHANGING, DONE, UNDOING, UNDONE

if TYPE_CHECKING:
    from usernsplan.layout import Layout


def given(layout: Layout) -> tuple[list[Given], list[LeftOut]]:
    """What each finished or unfinished run did, oldest first, and the runs that cannot be read.

    Raises NotPermittedError.
    """
    found, left = [], []
    for name in read_runs.names(layout):
        try:
            state = (
                journal.run(layout, name) if read_runs.content(layout, name) is not None else None
            )
        except RefusedError as error:
            left.append(LeftOut(f"run {name}", str(error), error.hint))
            continue
        # A mount that was taken away later hides what an earlier run made at the same place.
        states = {CHANGING, DONE, UNDOING, *((UNDONE,) if state and state.mounts else ())}
        if state is None or state.state not in states or not state.container:
            continue
        if state.method not in METHODS:
            why = f"its method {state.method!r:.40} is one that this usernsplan does not know"
            left.append(
                LeftOut(f"run {name}", why, "rebuild the ledger with the version that made it")
            )
            continue
        rule = state.rule
        found.append(
            Given(
                name,
                state.container,
                Mapping(rule.uids.source, rule.gids.source),
                rule.mode,
                rule.owner,
                tuple(one.path for one in state.volumes),
                is_done=state.state == DONE,
                is_reverse=state.is_reverse,
                mounts=state.mounts,
                is_undone=state.state == UNDONE,
            )
        )
    return found, left
