"""What ``fix-volume`` and ``undo`` are asked for, and what they report.

Frozen values like those of model, apart from it because they would slow the start of all other commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from usernsplan.values import NamedTuple, dataclass, field

if TYPE_CHECKING:
    from usernsplan.model import Mode, VolumeMount


@dataclass(frozen=True, slots=True)
class FixRequest:
    """The options of one ``fix-volume``; None: not given.

    ``source`` is --from; the maps are texts C:H:N. ``from_map`` is the map whose ids the files
    have, an extent each as formats.passes reads them; only ids that differ in the new map are
    changed. With ``discover``, an engine's name, ``paths`` are names of its containers.
    ``drop_power`` and ``keep_power`` decide about setuid bits, setgid bits and capabilities that
    would become another id's. ``again`` permits moving ids that were moved already; ``take``
    another container's volume; ``copy_up`` changes that make an overlay copy data up;
    ``protected`` homes, system folders and engines' storage. ``command`` are the words of another
    command that moves these volumes, without what it permits: hints then print that one.

    ``method`` is how the volumes are given; "auto" is idmap where it works, and chown elsewhere. A
    mount stands ``at`` a path (None: one of ours), returns at boot with ``persist``, and
    ``protect`` keeps others from what the container makes in the source. ``options`` are further
    ones of the mount, such as "nosuid".
    """

    paths: tuple[str, ...]
    container: str | None = None
    mode: Mode | None = None
    user: str | None = None
    passwd: str | None = None
    reverse: bool = False
    source: str | None = None
    uid_map: tuple[str, ...] = ()
    gid_map: tuple[str, ...] = ()
    keep_unmapped: bool = False
    skip_outside_links: bool = False
    cross_mounts: bool = False
    jobs: int | None = None
    protected: bool = False
    discover: str | None = None
    drop_power: bool = False
    keep_power: bool = False
    again: bool = False
    take: bool = False
    copy_up: bool = False
    from_map: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    method: Literal["chown", "idmap", "auto"] = "chown"
    at: str | None = None
    persist: bool = False
    read_only: bool = False
    protect: Literal["nosuid", "parent"] | None = None
    options: tuple[str, ...] = ()


class Obstacle(NamedTuple):
    """Why something cannot be done, and the remedy ("" if there is none)."""

    fact: str
    remedy: str = ""


@dataclass(frozen=True, order=True, slots=True)
class Place:
    """A path, and what to report about it."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class FixReport:
    """What a ``fix-volume`` or an ``undo`` did, or would do. ``run`` is None if nothing was done.

    ``mounts`` are the mounts that show the volumes, with the method idmap. ``dropped`` are the
    files that lost a setuid bit, setgid bit or capability, each with what it lost.
    """

    kind: Literal["fix-volume", "undo", "restore"]
    volumes: tuple[str, ...]
    counts: dict[str, int]
    run: str | None = None
    dry_run: bool = False
    container: str | None = None
    mode: Mode | None = None
    flattened: int = 0
    kept_uids: dict[int, int] = field(default_factory=dict)
    kept_gids: dict[int, int] = field(default_factory=dict)
    skipped: tuple[Place, ...] = ()
    failed: tuple[Place, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    dropped: tuple[Place, ...] = ()
    mounts: tuple[VolumeMount, ...] = ()


@dataclass(frozen=True, slots=True)
class Census:
    """What a bounded look at a volume met, in so many ``seconds``.

    ``owners`` are (uid, gid, entries), most entries first. ``at_most``: the volume has no more
    entries than that, as far as its file system tells. ``outside`` are the files that have further
    hard links, which lie outside if the look was ``is_whole``. ``fixed`` are immutable or
    append-only. ``unread`` could not be looked at; ``mounts`` are the mount points in the volume.
    """

    entries: int
    is_whole: bool
    seconds: float
    owners: tuple[tuple[int, int, int], ...]
    at_most: int | None = None
    outside: int = 0
    fixed: int = 0
    unread: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One method for a volume: the command, what stands in its way, and what to know before it.

    ``seconds`` is how long a run would take, about; None if that is not known.
    """

    method: Literal["idmap", "chown"]
    command: str
    obstacles: tuple[Obstacle, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float | None = None

    @property
    def works(self) -> bool:
        """Tell whether nothing is known that stands in its way."""
        return not self.obstacles


class Effect(NamedTuple):
    """What either method means for something else."""

    about: str
    idmap: str
    chown: str


@dataclass(frozen=True, slots=True)
class Explained:
    """What is known about a volume before a method is chosen: ``fix-volume --explain``.

    ``kind`` is its file system. ``mode`` is None where the options say which ids move; ``why`` is
    why it fits. ``users`` tell who else has the volume, recorded or mounted.
    """

    path: str
    kind: str
    container: str | None
    mode: Mode | None
    why: str
    census: Census
    choices: tuple[Choice, ...]
    users: tuple[str, ...]
    effects: tuple[Effect, ...]
