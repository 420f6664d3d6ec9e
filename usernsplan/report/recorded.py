"""What the ledger has of volumes, with what is wrong: what several reports show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from usernsplan.model import Volume, VolumeMount

    # What is wrong with something: facts, each with its remedy.
    Facts: TypeAlias = tuple[tuple[str, str], ...]


class Recorded(NamedTuple):
    """Volumes, mounts, and interrupted runs.

    ``volumes`` come with what is wrong ("" if it is right) and the remedy, ``mounts`` with all that
    is wrong, ``runs`` with the fact and the remedy.
    """

    volumes: Sequence[tuple[Volume, str, str]] = ()
    runs: Sequence[tuple[str, str, str]] = ()
    mounts: Sequence[tuple[VolumeMount, Facts]] = ()
