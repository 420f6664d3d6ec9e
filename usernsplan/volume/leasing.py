"""A run asks the fleet for its volumes, before it changes anything. A host without a fleet asks nobody.

Every run passes here, whatever its command and its method: see lifecycle. Only volumes that hosts may
share need a lease.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from usernsplan.errors import RefusedError, UsernsplanError
from usernsplan.escape import shown_path
from usernsplan.ledger import member
from usernsplan.values import NamedTuple
from usernsplan.volume.state import CHOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from usernsplan.host.identity import Identity
    from usernsplan.layout import Layout
    from usernsplan.ledger.leases import Asked, Leases
    from usernsplan.volume.state import RunState
    from usernsplan.volume.walk import OpenVolume


class Held(NamedTuple):
    """The lease of a run; ``leases`` is None if no other host can reach its volumes."""

    leases: Leases | None = None
    token: int = 0
    asked: Asked | None = None

    def check(self) -> None:
        """Before something changes. Raises RefusedError if the lease was ended, or LedgerUnreachableError."""
        if self.leases:
            self.leases.check(self.token)

    def end(self, state: RunState) -> str:
        """End it if the run has come to its end. Returns why the fleet does not know that yet, or ""."""
        if self.leases:
            from usernsplan.ledger.leases import outcome_of  # noqa: PLC0415 - only in a fleet

            outcome = outcome_of(state.state, whole=state.whole)
            try:
                if outcome is not None:
                    self.leases.end(self.token, outcome)
            except UsernsplanError as error:
                return (
                    f"the fleet does not know yet that run {state.run} has ended: {error}; the next"
                    " command that changes something here tells it"
                )
        return ""

    def moved_by(self, state: RunState) -> str:
        """Which host moved the ids of a run already, where they would move twice; "" if none did.

        Raises RefusedError if it did so in part.
        """
        if not (self.leases and self.asked and state.method == CHOWN and state.rule.overlaps()):
            return ""
        other = self.leases.moved_by(self.asked)
        if other is None:
            return ""
        done = (
            f"run {other.run} of the host {other.host} moved these ids in {shown_path(other.path)}"
        )
        if other.outcome != "done":
            raise RefusedError(
                f"{done}, but not all of them ({other.outcome})",
                hint="the map overlaps itself, so the others would move twice: repeat the command"
                f" on {other.host}; if you want to move them twice, use --again",
            )
        return (
            f"{done} already; its map overlaps itself, so repeating it would move ids twice;"
            " --again repeats it anyway"
        )


FREE = Held()


def settled(layout: Layout) -> Leases | None:
    """The leases of this host in its fleet, which then knows which of its runs have ended.

    None on a host without a fleet. Raises LedgerUnreachableError.
    """
    who = member.read(layout)
    if who is None:
        return None
    from usernsplan.ledger.leases import Leases  # noqa: PLC0415 - only in a fleet
    from usernsplan.ledger.postgres import Server  # noqa: PLC0415

    leases = Leases(layout, Server(who.url), who.host)
    leases.settle()
    return leases


def take(
    leases: Leases | None, layout: Layout, state: RunState, volumes: Sequence[OpenVolume]
) -> Held:
    """Keep the other hosts of the fleet from the volumes of a run, until it has come to its end.

    ``volumes`` are those that are open, or none at all: to undo a mount needs none of them.
    Raises RefusedError if another host is at work there, and LedgerUnreachableError.
    """
    if leases is None:
        return FREE
    from usernsplan.ledger.leases import Asked  # noqa: PLC0415 - only in a fleet

    shared = tuple(_shared(layout, state, volumes))
    if not shared:
        return FREE
    asked = Asked(
        state.run,
        state.container or "",
        state.method,
        _work(state),
        shared,
    )
    return Held(leases, leases.take(asked), asked)


def _shared(
    layout: Layout, state: RunState, volumes: Sequence[OpenVolume]
) -> Iterator[tuple[str, Identity]]:
    """The volumes of a run that hosts may share: their names, and what other hosts know them by."""
    from usernsplan.host import identity  # noqa: PLC0415 - only in a fleet

    for number, noted in enumerate(state.volumes):
        place = volumes[number].named if volumes else layout.place(noted.path)
        is_there = volumes[number].top >= 0 if volumes else os.path.lexists(place)
        if is_there:
            for one in identity.shared(place, cross_mounts=state.cross_mounts):
                yield noted.path, one


def _work(state: RunState) -> str:
    """What tells the ids that a run moves from those that others move: see RunState.same_ids."""
    import hashlib  # noqa: PLC0415 - only in a fleet
    import json  # noqa: PLC0415

    rule = state.rule
    parts = (rule.uids.source.triples(), rule.gids.source.triples(), rule.mode, rule.owner)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
