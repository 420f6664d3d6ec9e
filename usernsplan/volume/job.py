"""One command of the fixer: its root, its volumes, who watches it, and its results so far."""

from __future__ import annotations

import time
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from usernsplan.escape import utf8
from usernsplan.fixing import FixReport, Place
from usernsplan.host import files
from usernsplan.host.mounts import of_others
from usernsplan.values import dataclass, field, replace
from usernsplan.volume import leasing, spots
from usernsplan.volume.seen import Done, Lacking, PathReason, Seen, kinds_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usernsplan.layout import Layout
    from usernsplan.volume.walk import OpenVolume

# The kinds of changes that the report counts.
_KINDS = ("setuid", "capability", "acl", "device", "hard_link")


class Watch(Protocol):
    """Who watches the progress of a run."""

    def begin(self, what: str, total: int | None) -> None:
        """A part of the run begins. ``total`` is its number of entries, None if unknown."""

    def tick(self, entries: int) -> None:
        """So many entries are done. Called every tenth of a second."""

    def warn(self, text: str) -> None:
        """The user should know this before anything is changed."""


class Unwatched:
    """Nobody is watching."""

    def begin(self, what: str, total: int | None) -> None:
        """See Watch."""

    def tick(self, entries: int) -> None:
        """See Watch."""

    def warn(self, text: str) -> None:
        """See Watch."""


@dataclass(slots=True)
class Outcome:
    """The results of a command so far. ``failed`` and ``dropped`` are reasons by path."""

    started: float = field(default_factory=time.monotonic)
    found: Seen = field(default_factory=Seen)
    changed: int = 0
    stragglers: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    skipped: set[Place] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    run_name: str | None = None

    def fail(self, places: Iterable[PathReason]) -> None:
        """Record failures. The first reason for an entry counts."""
        for path, reason in places:
            self.failed.setdefault(path, reason)

    def skip(self, places: Iterable[PathReason]) -> None:
        """Record what was left unchanged."""
        self.skipped |= {Place(*place) for place in places}

    def add(self, done: Sequence[Done]) -> None:
        """Count the changes of the workers. An inode with several names counts once."""
        linked: dict[tuple[int, tuple[str, ...]], set[int]] = {}
        for part in done:
            self.changed += part.changed
            self.stragglers += part.stragglers
            self.kinds.update(part.kinds)
            self.fail(chain(part.failed, part.named))
            self.skip(part.skipped)
            for key, inodes in part.linked.items():
                linked.setdefault(key, set()).update(inodes)
        for (_, kinds), several in linked.items():
            self.changed += len(several)
            self.kinds.update(dict.fromkeys(kinds, len(several)))

    def add_powerful(self, lacking: Iterable[Lacking], restored: Iterable[Lacking]) -> None:
        """Count the changes to files that lacked power. Each file counts once."""
        changed = {
            (one.entry.device, one.entry.inode): kinds_of(one.entry.form, linked=one.entry.linked)
            for one in chain((one for one in lacking if one.changed), restored)
        }
        for kinds in changed.values():
            self.changed += 1
            self.kinds.update(kinds)

    def report(self, report: FixReport) -> FixReport:
        """The report, completed with these results."""
        found = self.found
        wrong = found.changes + found.linked.changing_names()
        several = len(found.owners) if report.mode == "own" and wrong else 0
        counts = {
            "entries": found.entries,
            "changed": self.changed,
            # In a resumed run, the look counts as right what the run changed before.
            "right": max(found.entries - max(wrong, self.changed), 0),
            **{kind: self.kinds[kind] for kind in _KINDS},
            "stragglers": self.stragglers,
        }

        return replace(
            report,
            counts=counts,
            run=self.run_name,
            flattened=several if several > 1 else 0,
            kept_uids=dict(sorted(found.unmapped_uids.items())),
            kept_gids=dict(sorted(found.unmapped_gids.items())),
            skipped=tuple(sorted(self.skipped)),
            failed=tuple(Place(*failed) for failed in sorted(self.failed.items())),
            dropped=tuple(Place(*dropped) for dropped in sorted(self.dropped.items())),
            notes=tuple(self.notes),
            seconds=time.monotonic() - self.started,
        )


@dataclass(slots=True)
class Job:
    """Where a command works: root, number of workers (None: one for each processor), volumes.

    ``lease`` keeps the other hosts of a fleet away while a run is at work.
    """

    layout: Layout
    jobs: int | None
    watch: Watch
    command: str
    volumes: list[OpenVolume] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)
    lease: leasing.Held = leasing.FREE

    @classmethod
    def at(cls, root: str, jobs: int | None, watch: Watch | None, command: str) -> Job:
        """A job below a root."""
        return cls(files.layout_at(root), jobs, watch or Unwatched(), utf8(command))

    def warn_of_users(self, paths: Sequence[str]) -> None:
        """Warn about running containers that use these paths."""
        others = of_others()
        for text in chain.from_iterable(spots.users_of(path, others) for path in paths):
            self.watch.warn(text)
            self.outcome.notes.append(text)

    def names(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Paths in volumes as the journal has them: below the root."""
        return tuple(sorted(self.layout.below(path) or path for path in paths))

    def shown(self, one: Lacking) -> str:
        """The path of a file that lacks power."""
        return self.volumes[one.volume].shown(one.parts, one.name)
