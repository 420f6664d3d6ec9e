"""The interface between a run and the method that gives volumes to a container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from usernsplan.volume.decide import Meant
    from usernsplan.volume.journal import Journal
    from usernsplan.volume.state import RunState


class Method(Protocol):
    """One way of giving the volumes of a run. One object serves one command, see lifecycle.

    What the journal records before ``apply`` must be enough to apply it again after a kill, and
    to undo it. A method may change inodes (chown), or change only what a mount shows.
    """

    def decide(self, meant: Meant, log: Journal) -> dict[str, Any] | None:
        """Look at the volumes and judge. Return what the journal records; None if all is right.

        Changes nothing. Raises RefusedError for what would not end well.
        """

    def describe(self, meant: Meant, state: RunState) -> None:
        """Count in the outcome what a run would do. Writes nothing; raises like ``decide``."""

    def mend(self, log: Journal) -> None:
        """Finish or take back what a kill interrupted between two system calls."""

    def apply(self, log: Journal) -> bool:
        """Apply the journal from where it stands. False if that cannot be finished now.

        The outcome counts every change, a mount too: a run that changed nothing is forgotten.
        Raises NotTakenError, before more than a trial has changed, if the volumes do not accept
        the method.
        """

    def verify(self, log: Journal) -> dict[str, Any] | None:
        """Check what was applied. Return what the end of the run records; None if unfinished."""

    def undo(self, log: Journal, *, also_changed: bool = False) -> bool:
        """Undo what was applied. False if that is not finished.

        Later changes are reported and kept; with ``also_changed``, plain files are restored
        anyway.
        """

    def describe_undo(self, log: Journal, *, also_changed: bool) -> None:
        """Count in the outcome what ``undo`` would do. Writes nothing."""


class NotTakenError(Exception):
    """The volumes do not accept the method; the message says which, and why.

    ``changed``: a trial has changed something and must be undone. ``hint`` is the remedy.
    """

    def __init__(self, message: str, *, changed: bool, hint: str = "nothing was changed") -> None:
        super().__init__(message)
        self.changed, self.hint = changed, hint
