"""The seam between a run and the way in which it gives volumes to a container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from usernsplan.volume.decide import Meant
    from usernsplan.volume.journal import Journal
    from usernsplan.volume.state import RunState


class Method(Protocol):
    """One way of giving the volumes of a run. ``run`` calls it and keeps the journal; one object serves one command.

    What the journal notes before ``apply`` has to be enough to apply it once more after a kill, and to undo it. A method
    may change inodes (chown), or none of them and only what a mount shows.
    """

    def decide(self, meant: Meant, log: Journal) -> dict[str, Any] | None:
        """Look at the volumes and judge, and change nothing: what the journal is to note; None: all is right already.

        Raises RefusedError for what would not end well.
        """

    def describe(self, meant: Meant, state: RunState) -> None:
        """Count in the outcome what a run would do. Nothing is written. Raises what ``decide`` raises."""

    def apply(self, log: Journal) -> bool:
        """Do what the journal says, from where it is on; False where it cannot be finished now.

        The outcome counts what was changed, a mount too: a run that has changed nothing is forgotten.
        Raises NotTakenError where the volumes turn out not to take it, before more than a trial was changed.
        """

    def verify(self, log: Journal) -> dict[str, Any] | None:
        """Make sure that what was applied holds: what the end of the run notes; None where it is not finished."""

    def undo(self, log: Journal, *, also_changed: bool = False) -> bool:
        """Take back what was applied; False where that is not finished.

        What has changed since is named and left, but for plain files with ``also_changed``.
        """

    def describe_undo(self, log: Journal, *, also_changed: bool) -> None:
        """Count in the outcome what ``undo`` would do. Nothing is written."""


class NotTakenError(Exception):
    """The volumes do not take what a method does; the message says which, and why. ``changed``: a trial has to go back."""

    def __init__(self, message: str, *, changed: bool) -> None:
        super().__init__(message)
        self.changed = changed
