"""The values that modules pass to each other: the host, the request, the decision.

All are frozen and hold no logic. HostState x AllocateRequest -> Plan -> Intent (the part of a plan
that the ledger holds until it is carried out).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from usernsplan.formats.accounts import Accounts
    from usernsplan.formats.nsswitch import Source
    from usernsplan.formats.subid import SubidFile
    from usernsplan.ids import IdRange, IdSet
    from usernsplan.layout import Layout
    from usernsplan.mapping import Kind, Mapping
    from usernsplan.strategies import Strategy

# The name and owner of the allocation to which Docker's daemon.json points. The owner is the user
# that dockerd itself uses for "userns-remap": "default".
DEFAULT_NAME = "default"
DEFAULT_OWNER = "dockremap"
# The prefix of the owner of a container's lines if the user names none; no account has this name.
OWN_PREFIX = "usernsplan-"
# newuidmap takes root's lines if root starts an LXC container. Only this owner may hold several
# allocations.
ROOT = "root"

# At most this many entries of a recorded volume are looked at before it counts as right.
MOST_SEEN = 1000

# The note of a command that only reads, for a LedgerState that is ``interrupted``.
INTERRUPTED = (
    "another command is running or was interrupted; if it was interrupted, the next allocate or "
    "release repairs it"
)

Severity = Literal["error", "warning", "info"]
# The owners of a volume: one for everything, or each keeps its container id.
Mode = Literal["own", "shift"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)


@dataclass(frozen=True, slots=True)
class Allocation:
    """The ids of the container ``name``, and the ``owner`` of its lines in subuid and subgid.

    ``reserved_range`` is the range that is reserved for this allocation (the same for uids and
    gids); None if the mapping takes nothing from the pool. ``since`` (UTC, ISO 8601) and ``event``
    (the number of the event that made it) are set once the ledger has it. ``extra_owners`` have the
    same lines, because an engine needs them: root, for LXC. ``found`` are (path, line) pairs: its
    lines that existed before and were adopted; release does not remove these.
    """

    name: str
    owner: str
    strategy: str
    mapping: Mapping
    reserved_range: IdRange | None = None
    since: str = ""
    extra_owners: tuple[str, ...] = ()
    found: tuple[tuple[str, str], ...] = ()
    event: int = 0


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A released range that files may still carry. It is not given out until it is forgotten.

    ``was`` is the allocation that had it and gets it back; None if an older ledger did not note it.
    ``event`` is the number of the event that released it.
    """

    name: str
    reserved_range: IdRange
    since: str
    was: Allocation | None = None
    event: int = 0


@dataclass(frozen=True, slots=True)
class Reservation:
    """Ids, as uids and gids, that are never given out: others outside this host use them."""

    ids: IdRange
    why: str
    since: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One file of the host: its path below the root, its bytes before (None: missing) and after."""

    path: str
    before: bytes | None
    after: bytes


class Overlap(NamedTuple):
    """Who else has some ids of a range: the place that says so, the holder, and which ids these are.

    ``start`` and ``stop`` are numbers, half-open: a line may claim ids that cannot exist.
    """

    place: str
    holder: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Finding:
    """A fact that the user should know, and the remedy in ``hint``.

    ``place`` is a file below the root, or a line of it (path:line). ``table`` is for a line that
    readers understand differently: rows of the reader, what it takes, and a remark. ``overlaps`` are
    all holders of ids of the range in question; the message names a few of them.
    ``overlaps_left_out`` is how many more there are where they are too many to list.
    """

    code: str
    severity: Severity
    message: str
    hint: str = ""
    place: str = ""
    table: tuple[tuple[str, ...], ...] = ()
    overlaps: tuple[Overlap, ...] = ()
    overlaps_left_out: int = 0


@dataclass(frozen=True, slots=True)
class Volume:
    """A tree that was fixed for a container: its path below the root, the container, and the mode.

    ``mode`` is the one in the ledger; see ``known_mode``. ``user`` is the container's UID:GID that
    --mode own made the owner; "" with --mode shift, and if it was not noted. ``event`` is the number
    of the event that recorded it.
    """

    path: str
    name: str
    mode: str
    since: str = ""
    user: str = ""
    event: int = 0

    @property
    def known_mode(self) -> Mode | None:
        """The mode; None if this version does not know it (its owners are then unknown)."""
        return next((mode for mode in MODES if mode == self.mode), None)


@dataclass(frozen=True, slots=True)
class LedgerChange:
    """What the ledger gains and loses when a plan is carried out.

    ``extra_owners`` are (name, owner) pairs: an existing allocation, and a further owner of its
    lines. ``found`` are (name, path, line): such a line that existed before. ``unkeep`` are single
    ranges that leave the quarantine, forgotten or given back to their name; ``forget`` are the
    names whose quarantined ranges are all forgotten.
    """

    add: tuple[Allocation, ...] = ()
    extra_owners: tuple[tuple[str, str], ...] = ()
    found: tuple[tuple[str, str, str], ...] = ()
    remove: tuple[str, ...] = ()
    quarantine: tuple[tuple[str, IdRange], ...] = ()
    forget: tuple[str, ...] = ()
    unkeep: tuple[tuple[str, IdRange], ...] = ()
    volumes: tuple[Volume, ...] = ()
    no_volumes: tuple[str, ...] = ()
    reserve: tuple[Reservation, ...] = ()
    unreserve: tuple[IdRange, ...] = ()


@dataclass(frozen=True, slots=True)
class Actor:
    """Who ran a command: the effective uid, SUDO_UID if sudo set it, and the uid of the login.

    ``login_uid`` is /proc/self/loginuid: proc_pid_loginuid(5).
    """

    uid: int
    sudo_uid: int | None = None
    login_uid: int | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """A plan that is being carried out.

    It is written to the ledger before the first file changes, and removed after the last.
    """

    command: str
    actor: Actor
    ledger: LedgerChange
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One event for a person to read: time (UTC, ISO 8601), actor, command and changed lines.

    ``number`` counts the events of a ledger from 1; it is 0 until the ledger has the entry.
    """

    at: str
    actor: Actor
    command: str
    changed: tuple[str, ...]
    number: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """One event as the ledger's state is made from it: its number, its moment (as HistoryEntry.at), its change."""

    number: int
    at: str
    change: LedgerChange


@dataclass(frozen=True, slots=True)
class LedgerState:
    """The whole content of the ledger after the event of this ``number``; 0 before the first one.

    ``allocations`` are ordered by name, ``quarantined`` by name and first id, ``volumes`` by path,
    ``reservations`` as they were made. ``interrupted``: an Intent is left and not yet repaired.
    """

    allocations: tuple[Allocation, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    interrupted: bool = False
    volumes: tuple[Volume, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    number: int = 0


@dataclass(frozen=True, slots=True)
class Namespace:
    """A running user namespace: its inode number (readlink /proc/PID/ns/user) and its processes.

    ``owner`` is the uid of its creator and ``parent`` the inode number of the namespace around it;
    None if the kernel does not show them to us. ``mapping`` maps its container ids to ids of this
    process's namespace, with mapping.UNWRITTEN for a map that is not written yet; None if neither
    is written.
    """

    inode: int
    owner: int | None
    parent: int | None
    pids: tuple[int, ...]
    mapping: Mapping | None


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """An interrupted run of fix-volume (or, with ``is_undoing``, of undo).

    ``command`` finishes it. ``paths`` are the real paths of its volumes on this machine.
    ``problem`` is why the state of the run is unknown, and ``hint`` the remedy; both are "" if it
    was simply interrupted.
    """

    run: str
    command: str = ""
    paths: tuple[str, ...] = ()
    is_undoing: bool = False
    problem: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class RunSeen:
    """A run of fix-volume, from its journal.

    ``at`` is when it began (UTC, ISO 8601), or "" if unknown. ``paths`` are where its volumes lie
    now. ``size`` is the size of the journal in bytes. ``can_undo``: the run still has something to
    undo, perhaps. ``problem`` and ``hint``: see UnfinishedRun.
    """

    run: str
    at: str = ""
    state: str = ""
    is_at_work: bool = False
    container: str | None = None
    mode: str | None = None
    paths: tuple[str, ...] = ()
    size: int = 0
    can_undo: bool = False
    problem: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class VolumeSeen:
    """A recorded volume as it is on disk: its top, and the entries in it.

    ``path`` is its name in the ledger. ``top`` is (uid, gid) of the top, or None if it was not
    seen: ``why`` is the reason, and ``is_missing`` says that the path does not exist. ``owners``
    are (uid, gid, number of entries) of at most MOST_SEEN entries in the top (``is_cut``: it has
    more). ``is_mount``: something is mounted on the path. ``keeps``: the last run had
    ``--unmapped keep``, so ids that the map lacks are no error.
    """

    path: str
    top: tuple[int, int] | None = None
    owners: tuple[tuple[int, int, int], ...] = ()
    is_cut: bool = False
    is_mount: bool = False
    keeps: bool = False
    is_missing: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class DockerData:
    """What Docker keeps in one data folder (``path``, below the root): "1 container, 2 images"."""

    path: str
    what: str


@dataclass(frozen=True, slots=True)
class HostState:
    """Everything that a decision may depend on, read once.

    ``daemon_json`` is raw, None if the file does not exist. It is read through a symlink, which is
    noted because a symlink is not replaced. ``namespaces`` are the host ids that running user
    namespaces map. ``can_add_accounts``: useradd can run for this root. ``engines`` are the names
    of the engines whose programs are installed. ``volumes`` are the recorded volumes as they are on
    disk, and ``runs`` the interrupted runs of fix-volume; both are empty unless they were looked
    at. ``docker`` is what Docker keeps, by data folder.
    """

    layout: Layout
    subuid: SubidFile
    subgid: SubidFile
    daemon_json: bytes | None
    daemon_json_is_symlink: bool
    login_defs: bytes
    subid_source: Source
    passwd_source: Source
    accounts: Accounts
    ledger: LedgerState
    namespaces: IdSet
    can_add_accounts: bool
    engines: frozenset[str] = frozenset()
    volumes: tuple[VolumeSeen, ...] = ()
    runs: tuple[UnfinishedRun, ...] = ()
    docker: tuple[DockerData, ...] = ()

    def subid(self, kind: Kind) -> SubidFile:
        """The file that grants ids of this kind."""
        return self.subuid if kind == "uid" else self.subgid


@dataclass(frozen=True, slots=True)
class ContainerOptions:
    """The options of one allocation; None: not given. ``engines`` are served in addition to all."""

    strategy: Strategy
    owner: str | None = None
    start: int | None = None
    engines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """The options of an engine's own pool: its number of containers, and its first host id."""

    containers: int | None = None
    start: int | None = None


@dataclass(frozen=True, slots=True)
class AllocateRequest:
    """The options of one ``allocate``. No names means the default allocation, Docker's.

    ``strategy`` None: the one that the host has, with these ``options`` (see strategies.named), and
    with the ``defaults`` that fit it. ``engines`` None: those that are installed. ``pools`` are the
    options of engines' own pools, by the name of the engine. ``each`` are options of single names,
    which replace those of all. ``from_file``: the request comes from a plan file, which has to name
    the default allocation. ``places`` are where the defaults of the host stand, by option name.
    """

    names: tuple[str, ...]
    strategy: Strategy | None = None
    options: dict[str, int | str] = field(default_factory=dict)
    defaults: dict[str, int] = field(default_factory=dict)
    owner: str | None = None
    start: int | None = None
    pool: IdRange | None = None
    daemon: str | None = None
    daemon_config: bool = True
    replace_remap: bool = False
    yes: bool = False
    engines: tuple[str, ...] | None = None
    pools: dict[str, PoolOptions] = field(default_factory=dict)
    each: dict[str, ContainerOptions] = field(default_factory=dict)
    from_file: bool = False
    places: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """The options of one ``release``; ``forget`` gives quarantined ranges back to the pool instead.

    ``with_lines`` also removes lines that existed before they were adopted. ``range`` chooses one
    of several quarantined ranges of the one name.
    """

    names: tuple[str, ...]
    forget: bool = False
    unset_remap: bool = False
    unseen: bool = False
    with_lines: bool = False
    range: IdRange | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A complete decision. ``unfinished``: the user has to do something else first.

    ``restored`` are the names of allocations whose missing lines are added again; ``freed`` the
    quarantined ranges that are forgotten; ``consequences`` what the user has to agree to first.
    """

    kind: str
    allocations: tuple[Allocation, ...] = ()
    changes: tuple[Change, ...] = ()
    restored: tuple[str, ...] = ()
    ledger: LedgerChange = field(default_factory=LedgerChange)
    account_commands: tuple[tuple[str, ...], ...] = ()
    findings: tuple[Finding, ...] = ()
    next_steps: tuple[str, ...] = ()
    unfinished: bool = False
    freed: tuple[Quarantined, ...] = ()
    consequences: tuple[Finding, ...] = ()

    @property
    def changed(self) -> bool:
        """Tell whether carrying it out would change anything."""
        return bool(self.changes or self.account_commands) or self.ledger != LedgerChange()


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume that an engine mounts: ``source`` on the host, ``destination`` in the container.

    ``owners`` is how its owners become right: they are, or fix-volume changes them ("plain"); the
    mount maps them ("idmap"); the engine changes them at start ("U"). ``is_folder``: the source is
    a folder or does not exist yet.
    """

    source: str
    destination: str
    read_only: bool = False
    owners: Literal["plain", "idmap", "U"] = "plain"
    is_folder: bool = True


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """The options of one ``render``.

    ``volumes`` are texts /SRC:/DEST:OPTIONS; ``bundle`` is a folder with a config.json.
    """

    engine: str
    name: str
    volumes: tuple[str, ...] = ()
    image: str | None = None
    rootless: bool = False
    bundle: str | None = None


@dataclass(frozen=True, slots=True)
class FixRequest:
    """The options of one ``fix-volume``; None: not given.

    ``source`` is --from; the maps are texts C:H:N. With ``discover``, an engine's name, ``paths``
    are names of its containers. ``drop_power`` and ``keep_power`` decide about setuid bits, setgid
    bits and capabilities that would become another id's. ``again`` permits moving ids that were
    moved already; ``take`` another container's volume; ``copy_up`` changes that make an overlay
    copy data up; ``protected`` homes, system folders and engines' storage.
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


@dataclass(frozen=True, order=True, slots=True)
class Place:
    """A path, and what to report about it."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class FixReport:
    """What a ``fix-volume`` or an ``undo`` did, or would do. ``run`` is None if nothing was done.

    ``dropped`` are the files that lost a setuid bit, setgid bit or capability, each with what it
    lost.
    """

    kind: Literal["fix-volume", "undo"]
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
