"""The values that walk through the house: what the host is, what is asked, what is decided. Frozen; they do nothing.

HostState x AllocateRequest -> Plan -> Intent (the part of a plan that the ledger remembers until it is carried out).
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

# The name under which the allocation is kept that Docker's daemon.json points to, and its owner: what dockerd itself
# calls the user of "userns-remap": "default".
DEFAULT_NAME = "default"
DEFAULT_OWNER = "dockremap"
# What the owner of a container's lines begins with where none is named: nobody's account.
OWN_PREFIX = "usernsplan-"
# Whose lines newuidmap takes when root starts an LXC container: the one owner who may hold several allocations.
ROOT = "root"

# So many entries of a recorded volume are looked at before it is called right.
MOST_SEEN = 1000

# What is said of a LedgerState that is ``interrupted``, by whoever only reads it.
INTERRUPTED = "a run is under way, or was interrupted: then the next allocate or release mends it"

Severity = Literal["error", "warning", "info"]
# What a volume's owners become: one owner for everything, or each keeps its container id.
Mode = Literal["own", "shift"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)


@dataclass(frozen=True, slots=True)
class Allocation:
    """Who has which ids: container ``name``, the ``owner`` of its lines in subuid and subgid, its mapping.

    ``reserved_range`` is what nobody else may have while this allocation stands (the same for uids and gids); None where the
    mapping takes nothing from the pool. ``since`` (UTC, ISO 8601) and ``event`` (the number of the event that made it) are
    set once the ledger has it. ``extra_owners`` are further owners who have the same lines, because an engine asks for
    them: root, for LXC. ``found`` are (path, line) pairs: the lines of it that stood before and were adopted, which are
    not ours to take out.
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
    """A range that was released and that files may still carry: not given out again until it is forgotten.

    ``was`` is the allocation that had it, to which it comes back; None where an older ledger did not note it.
    ``event`` is the number of the event that released it.
    """

    name: str
    reserved_range: IdRange
    since: str
    was: Allocation | None = None
    event: int = 0


@dataclass(frozen=True, slots=True)
class Reservation:
    """Ids, as uids and gids, that are never to be given out here, and why: somebody outside of this host has them."""

    ids: IdRange
    why: str
    since: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One file of the host: its path below the root, and its bytes before (None: it was not there) and after."""

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
    """Something that the user should know, and what they can do about it.

    ``place`` is the file below the root, with a line where there is one (path:line). ``table`` has
    rows of reader, what it takes and a remark, where a line is not understood alike. ``overlaps``
    are all who have ids of the range that it is about, of whom the message names a few; so many
    more as ``overlaps_left_out`` there are where they would be too many to list.
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
    """A tree that was fixed for a container: where it lies (below the root), the container's name, and how.

    ``mode`` is what the ledger says, see ``known_mode``. ``user`` is UID:GID of the container to whom --mode own gave
    it; "" with --mode shift, and where nobody noted it. ``event`` is the number of the event that recorded it.
    """

    path: str
    name: str
    mode: str
    since: str = ""
    user: str = ""
    event: int = 0

    @property
    def known_mode(self) -> Mode | None:
        """Its mode; None for one that this version does not know: then nothing tells whose its files are."""
        return next((mode for mode in MODES if mode == self.mode), None)


@dataclass(frozen=True, slots=True)
class LedgerChange:
    """What the ledger gains and loses when a plan is carried out.

    ``extra_owners`` are (name, owner) pairs: an allocation that stands, and whom its lines are granted to besides; ``found``
    (name, path, line): such a line that stood before. ``unkeep`` are ranges that leave the quarantine one by one:
    forgotten, or their name has them again; ``forget`` is about all that a name has there.
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
    """Who ran a command: the effective uid, SUDO_UID where sudo set one, and the uid that logged in (loginuid)."""

    uid: int
    sudo_uid: int | None = None
    login_uid: int | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """A plan on its way to the host: written to the ledger before the first file changes, taken out after the last."""

    command: str
    actor: Actor
    ledger: LedgerChange
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One event for a person to read: when (UTC, ISO 8601), who, by which words, and what changed, a line each.

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
    """All that the ledger holds after the event of this ``number``; 0: before the first one.

    ``allocations`` are ordered by name, ``quarantined`` by name and first id, ``volumes`` by path, ``reservations`` as
    they were made. ``interrupted``: a run was killed and is not yet mended.
    """

    allocations: tuple[Allocation, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    interrupted: bool = False
    volumes: tuple[Volume, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    number: int = 0


@dataclass(frozen=True, slots=True)
class Namespace:
    """A user namespace that runs: its inode number (readlink /proc/PID/ns/user), its creator's host uid, its processes.

    ``parent`` is the inode number of the one it was made in; None, as for ``owner``, where the kernel does not tell us.
    ``mapping`` has its container ids and this process's own ids, mapping.UNWRITTEN for one that is not written yet;
    None where neither is.
    """

    inode: int
    owner: int | None
    parent: int | None
    pids: tuple[int, ...]
    mapping: Mapping | None


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """A run of fix-volume (or, ``is_undoing``, of undo) that was interrupted: by which words, and at which volumes.

    ``paths`` are real paths of this machine. ``problem`` is why nobody can tell what became of the run, and ``hint``
    the remedy; "" where it was simply interrupted.
    """

    run: str
    command: str = ""
    paths: tuple[str, ...] = ()
    is_undoing: bool = False
    problem: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class RunSeen:
    """A run of fix-volume as its journal tells of it, for whoever looks for one.

    ``at`` is when it began (UTC, ISO 8601), "" where nobody knows; ``paths`` are where its volumes lie now; ``size`` is
    the journal's in bytes. ``can_undo``: something of it may be left to be taken back. ``problem`` and ``hint``: see
    UnfinishedRun.
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
    """What was seen of a recorded volume (``path`` is its name in the ledger): its top, and one level below.

    ``top`` is the owner of the top, None where it was not seen: ``why`` then says why not, and ``is_missing`` that
    there is nothing. ``owners`` are (uid, gid, entries) of what lies in the top, of at most MOST_SEEN entries
    (``is_cut``: there are more). ``is_mount``: something is mounted on the path. ``keeps``: the last run was told to
    leave ids that the map lacks.
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
    """What Docker keeps in one data folder, ``path`` below the root, in words: containers, images, volumes."""

    path: str
    what: str


@dataclass(frozen=True, slots=True)
class HostState:
    """Everything that a decision may depend on, read once.

    ``daemon_json`` is raw, None where there is no such file; it is read through a symlink, which is noted because a
    symlink is not replaced. ``namespaces`` are the host ids that running user
    namespaces map; ``can_add_accounts`` tells whether useradd can be run for this root. ``engines`` are the names of
    the engines whose programs are installed. ``volumes`` are the recorded volumes as they look, and ``runs`` the runs
    of fix-volume that were interrupted, both empty where nobody looked. ``docker`` is what Docker has, by data folder.
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
    """What is said of one allocation: None where nothing is. ``engines`` are to be served besides those of all."""

    strategy: Strategy
    owner: str | None = None
    start: int | None = None
    engines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """What is said of an engine's own pool: for how many containers, and its first host id."""

    containers: int | None = None
    start: int | None = None


@dataclass(frozen=True, slots=True)
class AllocateRequest:
    """The words of one ``allocate``: no names means the default allocation, Docker's.

    ``strategy`` None: the one that the host has, with these ``options`` (see strategies.named), and
    with the ``defaults`` that fit it. ``engines`` None: those that the host has. ``pools`` has what
    is said of engines' own pools, by the engine's name. ``each``: what is said of single names, in
    place of what is said of all. ``from_file``: of a plan file, which names the default allocation
    where it wants it. ``places``: where the defaults of the host stand, by the option's name.
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
    """The words of one ``release``; ``forget`` gives quarantined ranges back to the pool instead.

    ``with_lines`` takes out lines too that stood before they were adopted. ``range`` says which of several released
    ranges of the one name is to be forgotten.
    """

    names: tuple[str, ...]
    forget: bool = False
    unset_remap: bool = False
    unseen: bool = False
    with_lines: bool = False
    range: IdRange | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A decision, whole: nothing in it is still open. ``unfinished``: something is left for the user to do first.

    ``restored`` are the names of allocations that lost lines, which are put back; ``freed`` the released ranges that
    are forgotten; ``consequences`` what somebody has to agree to before it is carried out.
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
    """A volume as an engine is to mount it: ``source`` on the host, ``destination`` in the container.

    ``owners`` is how its owners come right: they already are, or fix-volume makes them so ("plain"); the mount maps
    them ("idmap"); the engine changes them when it starts ("U"). ``is_folder``: it is one, or is not there yet.
    """

    source: str
    destination: str
    read_only: bool = False
    owners: Literal["plain", "idmap", "U"] = "plain"
    is_folder: bool = True


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """The words of one ``render``: ``volumes`` are texts /SRC:/DEST:OPTIONS, ``bundle`` a folder with a config.json."""

    engine: str
    name: str
    volumes: tuple[str, ...] = ()
    image: str | None = None
    rootless: bool = False
    bundle: str | None = None


@dataclass(frozen=True, slots=True)
class FixRequest:
    """The words of one ``fix-volume``: ``source`` is --from; the maps are texts C:H:N; None means: not said.

    With ``discover``, an engine's name, ``paths`` are names of its containers. ``drop_power`` and ``keep_power`` say
    what becomes of setuid bits, setgid bits and capabilities that would become another id's; ``again`` allows
    moving ids that were moved already; ``take`` allows taking another container's volume; ``copy_up`` allows changes
    that make an overlay copy data up; ``protected`` allows homes, system folders and engines' storage.
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
    """A path, and what is to be said of it."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class FixReport:
    """What a ``fix-volume`` or an ``undo`` did, or would do. ``run`` is None where nothing was done.

    ``dropped`` are files that lost setuid bit, setgid bit or capability, each with what it lost.
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
