"""The values that modules pass to each other: the host, the request, the decision.

All are frozen and hold no logic. HostState x AllocateRequest -> Plan -> Intent (the part of a plan
that the ledger holds until it is carried out).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, get_args

from usernsplan.ids import EVERY_ID
from usernsplan.values import NamedTuple, dataclass, field

if TYPE_CHECKING:
    from collections.abc import Mapping as Dict

    from usernsplan.formats.accounts import Accounts
    from usernsplan.formats.nsswitch import Source
    from usernsplan.formats.subid import SubidFile
    from usernsplan.formats.userdb import Entry
    from usernsplan.harden.policy import Policy
    from usernsplan.ids import IdRange, IdSet
    from usernsplan.layout import Layout
    from usernsplan.mapping import Kind, Mapping, Pass
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
# Who has the pools that engines give their containers ranges from: the engines look for these names.
POOL_OWNERS = frozenset({"containers", "kubelet"})

# At most this many entries of a recorded volume are looked at before it counts as right.
MOST_SEEN = 1000

# The note of a command that only reads, for a LedgerState that is ``interrupted``.
INTERRUPTED = (
    "another command is running or was interrupted; if it was interrupted, the next allocate or "
    "release repairs it"
)

# Where a range is published: as records of systemd in /etc/userdb, as an account in passwd, or
# nowhere.
Published = Literal["none", "userdb", "passwd"]
PUBLISHED: Final[tuple[Published, ...]] = get_args(Published)

Severity = Literal["error", "warning", "info"]
# The owners of a volume: one for everything, or each keeps its container id.
Mode = Literal["own", "shift"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
# How an idmapped mount returns at boot: not at all, by a unit of mount(8), or by one that runs us.
LASTING: Final = ("", "mount", "service")
# What keeps others from the files that a container makes in the source of its mount: nothing of
# ours, a mount with nosuid over the source, or mode 0700 of the folder above it.
PROTECT: Final = ("", "nosuid", "parent")


@dataclass(frozen=True, slots=True)
class Allocation:
    """The ids of the container ``name``, and the ``owner`` of its lines in subuid and subgid.

    ``reserved_range`` is the range that is reserved for this allocation (the same for uids and
    gids); None if the mapping takes nothing from the pool. ``since`` (UTC, ISO 8601) and ``event``
    (the number of the event that made it) are set once the ledger has it. ``extra_owners`` have the
    same lines, because an engine needs them: root, for LXC. ``found`` are (path, line) pairs: its
    lines that existed before and were adopted; release does not remove these. The lines of
    ``split_owners`` are in pieces of fewer than 65536 ids, which Incus does not take for itself.
    ``in_files`` is False if it has no lines of its own: only the ledger has it. ``published`` is
    where other programs can see the range as an account: see PUBLISHED. ``passes`` are the extents
    of the map whose host ids pass through, by kind and container id; all other ids of the map are
    the allocation's own (see holdings.own_ids). ``within`` is the owner whose lines grant the ids:
    the allocation is a slice of them, and has no lines of its own; "" for any other allocation.
    ``unpublished``: somebody asked not to publish it, so only who asks for a place publishes it.
    ``policy`` is what the container may do besides; None: what its engine gives it. ``local``: in a
    fleet, other hosts may give its ids to other names.
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
    split_owners: tuple[str, ...] = ()
    in_files: bool = True
    published: Published = "none"
    passes: tuple[Pass, ...] = ()
    within: str = ""
    unpublished: bool = False
    policy: Policy | None = None
    local: bool = False


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
    of the event that recorded it. ``former`` is the map whose ids its files still have: the
    container was remapped, and the volume is not moved yet; None if they have those of its map.
    """

    path: str
    name: str
    mode: str
    since: str = ""
    user: str = ""
    event: int = 0
    former: Mapping | None = None

    @property
    def known_mode(self) -> Mode | None:
        """The mode; None if this version does not know it (its owners are then unknown)."""
        return next((mode for mode in MODES if mode == self.mode), None)


@dataclass(frozen=True, slots=True)
class VolumeMount:
    """An idmapped mount that shows a volume with the ids of a container.

    ``at`` and ``source`` are the mount point and the volume, both below the root. ``mode`` is that
    of a Volume; with "own", ``user`` is the container's UID:GID as which the owner on disk appears.
    ``mapping`` maps ids on disk to host ids: disk ids take the place of container ids. ``options``
    are those of the mount besides its map, such as "ro", sorted. ``crosses``: it shows the mounts in
    the volume too. ``lasting`` is how it returns at boot, one of LASTING. ``protect`` is what keeps
    others from the files that the container makes in the source, one of PROTECT. ``run`` is the run
    that made it, and ``event`` the number of the event that recorded it.
    """

    at: str
    source: str
    name: str
    mode: Mode
    mapping: Mapping
    user: str = ""
    options: tuple[str, ...] = ()
    crosses: bool = False
    lasting: str = ""
    protect: str = ""
    run: str = ""
    since: str = ""
    event: int = 0


class Way(NamedTuple):
    """A path at which a mount shows a volume, or a part of it, with the ids that the disk has.

    ``pid`` and ``command`` are a process that has this path in a mount namespace of its own; 0 and
    "" for our own namespace. ``folder`` is the nearest folder above the volume that only root can
    enter; "" if there is none. ``above`` is the device and inode number of the folder right above.
    ``follows``: what is mounted over the volume in our namespace appears here too.
    """

    path: str
    nosuid: bool = False
    folder: str = ""
    above: tuple[int, int] = (0, 0)
    follows: bool = False
    pid: int = 0
    command: str = ""


class Holder(NamedTuple):
    """A process that has something open: ``what`` ("its current folder", …), at this ``path``."""

    pid: int
    command: str
    uid: int
    what: str
    path: str


class Reach(NamedTuple):
    """By which ways a volume can be reached with the ids on disk, and who is in it already.

    ``holders`` are processes other than root's that got past what keeps others from the ways.
    ``unknown`` are the places that could not be looked at.
    """

    ways: tuple[Way, ...] = ()
    holders: tuple[Holder, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LedgerChange:
    """What the ledger gains and loses when a plan is carried out.

    ``rename`` are (old name, new name) pairs, which come first: everything else has the new names.
    ``update`` are existing allocations as they will be; they keep their time and their event. A
    remap has the former allocation there, and after it the new one, so that it can be undone.
    ``extra_owners`` are (name, owner) pairs: an existing allocation, and a further owner of its
    lines. ``found`` are (name, path, line): such a line that existed before. ``unkeep`` are single
    ranges that leave the quarantine, forgotten or given back to their name; ``forget`` are the
    names whose quarantined ranges are all forgotten.
    """

    rename: tuple[tuple[str, str], ...] = ()
    add: tuple[Allocation, ...] = ()
    update: tuple[Allocation, ...] = ()
    extra_owners: tuple[tuple[str, str], ...] = ()
    found: tuple[tuple[str, str, str], ...] = ()
    remove: tuple[str, ...] = ()
    quarantine: tuple[tuple[str, IdRange], ...] = ()
    forget: tuple[str, ...] = ()
    unkeep: tuple[tuple[str, IdRange], ...] = ()
    volumes: tuple[Volume, ...] = ()
    no_volumes: tuple[str, ...] = ()
    mounts: tuple[VolumeMount, ...] = ()
    no_mounts: tuple[str, ...] = ()
    reserve: tuple[Reservation, ...] = ()
    unreserve: tuple[IdRange, ...] = ()


class Actor(NamedTuple):
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


class Event(NamedTuple):
    """One event as the ledger's state is made from it: its number, its moment (as HistoryEntry.at), its change."""

    number: int
    at: str
    change: LedgerChange


class Known(NamedTuple):
    """The ids of one kind that a name has in the whole fleet, from ``start`` up to, but without, ``stop``.

    ``held`` are the hosts that have it or shall have it, and ``quarantined`` those where files may
    still carry the ids.
    """

    name: str
    kind: Kind
    start: int
    stop: int
    held: tuple[str, ...]
    quarantined: tuple[str, ...]


class Wish(NamedTuple):
    """What an operator asks of this host: to allocate a name, or to release it (``strategy`` is "").

    ``options`` are those of the strategy, as AllocateRequest has them, and ``start`` is the first host
    id, which the fleet has given to the name; None if it takes no range. ``role`` is the database
    role that asked, ``at`` (UTC, ISO 8601) when. Anybody who may write to the database can have
    written this: a host decides about it as about a request of a user. ``refused`` is why the host
    refused it the last time, and ``fault`` why no host would grant it; "" if neither. ``exactly`` is
    ``at`` as the server has it: a later wish for the name is another one.
    """

    name: str
    strategy: str
    options: tuple[tuple[str, int], ...]
    start: int | None
    role: str
    at: str
    refused: str = ""
    exactly: str = ""
    fault: str = ""


class Clash(NamedTuple):
    """Ids of this host's ``name`` that ``other`` has on ``hosts``, or other ids that the same name has there.

    The ids are those from ``start`` up to, but without, ``stop``.
    """

    name: str
    kind: str
    start: int
    stop: int
    other: str
    hosts: str


class Refused(NamedTuple):
    """A wish that this host does not grant, and why; ``hint`` is the remedy."""

    wish: Wish
    why: str
    hint: str


@dataclass(frozen=True, slots=True)
class Synced:
    """What ``sync`` did on a host, or would do.

    ``done`` are the plans of the wishes that it granted, in order, and ``refused`` are the others.
    ``repair`` restores what the ledger has and the files have not. ``agreed``: the two ledgers
    differed, or a command was interrupted.
    """

    done: tuple[tuple[Wish, Plan], ...]
    refused: tuple[Refused, ...]
    repair: Plan
    agreed: bool
    findings: tuple[Finding, ...] = ()

    @property
    def changed(self) -> bool:
        """Tell whether something was not as it should be."""
        return bool(self.done or self.agreed or self.repair.changed)


class Timer(NamedTuple):
    """The timer of ``sync``: whether it is installed now, the paths of its units, and what is missing yet."""

    installed: bool
    changed: bool
    paths: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fleet:
    """What a host of a fleet sees of the others: its own name and number, and the place of the ledger.

    ``taken`` are the ids that others have, by kind, without those of ``known``: the names that a
    request is about. ``wishes`` are not yet done.
    """

    host: str
    number: int
    place: str = ""
    taken: tuple[tuple[Kind, IdSet], ...] = ()
    known: tuple[Known, ...] = ()
    wishes: tuple[Wish, ...] = ()


class Asked(NamedTuple):
    """What hosts of a fleet were asked: to ``ask`` ("allocate" or "release") these names.

    ``hosts`` are the others that were asked, and ``new`` what each of them, (host, name), has to do
    at its next sync. ``allocations`` show the ids. ``plan`` is what this host did itself; None if it
    is none of the hosts.
    """

    ask: str
    names: tuple[str, ...]
    hosts: tuple[str, ...]
    new: tuple[tuple[str, str], ...]
    allocations: tuple[Allocation, ...]
    plan: Plan | None

    @property
    def changed(self) -> bool:
        """Tell whether anything is to be done, here or elsewhere."""
        return bool(self.new or (self.plan and self.plan.changed))


@dataclass(frozen=True, slots=True)
class LedgerState:
    """The whole content of the ledger after the event of this ``number``; 0 before the first one.

    ``allocations`` are ordered by name, ``quarantined`` by name and first id, ``volumes`` by path,
    ``mounts`` by mount point, ``reservations`` as they were made. ``interrupted``: an Intent is left and not yet repaired.
    ``fleet`` is None for a host of its own, and for a command that only shows this host.
    """

    allocations: tuple[Allocation, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    interrupted: bool = False
    volumes: tuple[Volume, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    number: int = 0
    mounts: tuple[VolumeMount, ...] = ()
    fleet: Fleet | None = None


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


class UnfinishedRun(NamedTuple):
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


class RunSeen(NamedTuple):
    """A run of fix-volume, from its journal.

    ``at`` is when it began (UTC, ISO 8601), or "" if unknown. ``paths`` are where its volumes lie
    now, and ``method`` is how they were given. ``size`` is the size of the journal in bytes.
    ``can_undo``: the run still has something to undo, perhaps. ``problem`` and ``hint``: see
    UnfinishedRun. ``event`` is the number of the last event of the ledger when the run began:
    ``container`` is a name of that time.
    """

    run: str
    at: str = ""
    state: str = ""
    is_at_work: bool = False
    container: str | None = None
    mode: str | None = None
    paths: tuple[str, ...] = ()
    size: int = 0
    method: str | None = None
    can_undo: bool = False
    problem: str = ""
    hint: str = ""
    event: int = 0


class VolumeSeen(NamedTuple):
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


class MountSeen(NamedTuple):
    """A recorded mount as the kernel shows it.

    ``at`` is its mount point in the ledger. ``is_standing``: a mount with an id map stands there and
    is seen, and it shows the source. Then ``mapping`` is its map, None before Linux 6.15, which does
    not tell it; ``options`` are those of the mount, and ``of_source`` those of the mount on which the
    source lies; ``is_removed``: the source was removed, and only the mount still shows it. Otherwise
    ``hidden_by`` is the point of the mount that hides it, on this machine, or ""; ``is_other``:
    something else is mounted there; ``has_source``: the source exists. ``is_open``: no folder above
    the source keeps others than root out, and setuid counts there. ``why`` is the reason if nothing
    is known about it. ``forgotten`` is why it does not return at boot though that was asked for.
    ``reached`` are the ways by which others get to the source, if they were looked for.
    """

    at: str
    is_standing: bool = False
    mapping: Mapping | None = None
    options: tuple[str, ...] = ()
    of_source: tuple[str, ...] = ()
    is_removed: bool = False
    hidden_by: str = ""
    is_other: bool = False
    has_source: bool = True
    why: str = ""
    forgotten: str = ""
    is_open: bool = False
    reached: tuple[str, ...] = ()


class DockerData(NamedTuple):
    """What Docker keeps in one data folder (``path``, below the root): "1 container, 2 images"."""

    path: str
    what: str


# Programs with rules of their own in claims.uses. The first has a line for its ids, but a folder
# outlives the line. The second is the kernel: a mount does not say whose ids it shows. The ids of
# the third were given out to others until usernsplan knew of it.
DOCKER, MOUNT, SNAPD = "Docker", "idmapped mount", "snapd"
# Root runs these two, and they take ids from root's lines.
INCUS, LXD = "Incus", "LXD"
LXC, PROXMOX_VE = "LXC", "Proxmox VE"
# Proxmox VE runs its containers with LXC.
OF_LXC = frozenset({LXC, PROXMOX_VE})
# Root's Podman takes the ids of a unit's own map without a line.
PODMAN = "Podman"


class Unlisted(NamedTuple):
    """Ids that a program has, or that are kept for it, although no line of subuid says so.

    ``start`` and ``stop`` are numbers, half-open: a file of the program may name ids that cannot
    exist. ``program`` is its name ("systemd-nspawn") and ``what`` has the ids there ("machine
    deb"). ``container`` is the name of that machine or container; "" if there is none. ``path`` is
    the file or folder below the root that says so, and ``number`` the line in it; "" and 0 if only
    the running program or the kernel does. ``grantee`` is the account whose lines have to grant
    the ids to the program, as root's lines do for LXC; "" if the program reads no lines. ``inside``
    is the container id of the first one, where a map says so; None if it is unknown. ``odd`` is a
    line of a map that the program refuses; it has no ids. ``is_next``: a program on this machine
    says that the container starts with these ids the next time.
    """

    program: str
    what: str
    kind: Kind
    start: int
    stop: int
    container: str = ""
    path: str = ""
    number: int = 0
    grantee: str = ""
    inside: int | None = None
    odd: str = ""
    is_next: bool = False


class Quadlet(NamedTuple):
    """A .container file of Podman that asks for a user namespace, with its drop-ins.

    ``account`` is the login whose Podman runs it; "" for root's. ``path`` is the file below the
    root that has the first of its keys about ids, and ``number`` the line. ``uids`` and ``gids``
    are the values of UIDMap= and GIDMap=, and ``userns`` is that of UserNS=. ``whose_ids`` is the
    owner of lines that SubUIDMap= or SubGIDMap= names. All are "" or () if the file does not say
    it.
    """

    name: str
    account: str
    path: str
    number: int
    uids: tuple[str, ...] = ()
    gids: tuple[str, ...] = ()
    userns: str = ""
    whose_ids: str = ""


class Unseen(NamedTuple):
    """A file or folder of other programs that was not read: its name below the root, and a note."""

    path: str
    note: str


class Kubelet(NamedTuple):
    """What the host's kubelet needs to give pods ids, as far as its configuration can be read.

    It gives each of at most ``max_pods`` pods ``ids_per_pod`` ids; ``place`` is the path and line
    that sets this number, "" for the kubelet's default. Without the program getsubids it does not
    find its line. ``problem`` is why the configuration is unknown, with a ``hint``; "" if it is
    known.
    """

    ids_per_pod: int = 65536
    max_pods: int = 110
    place: str = ""
    has_getsubids: bool = True
    problem: str = ""
    hint: str = ""


class Userdb(NamedTuple):
    """The folder of systemd's records, /etc/userdb.

    ``names`` are all names in it. ``others`` is what is there under names that no record of the
    ledger has, or what differs from it if the records were compared. ``is_folder`` is False if a
    symlink or a file is in its place.
    """

    names: frozenset[str] = frozenset()
    others: Dict[str, Entry] = MappingProxyType({})
    is_folder: bool = True


class Record(NamedTuple):
    """A locked account and its group that hold one number, as uid and as gid."""

    name: str
    number: int


class RecordChange(NamedTuple):
    """A record of systemd that comes ("+") or goes ("-")."""

    sign: Literal["+", "-"]
    record: Record


@dataclass(frozen=True, slots=True)
class HostState:
    """Everything that a decision may depend on, read once.

    ``daemon_json`` is raw, None if the file does not exist. It is read through a symlink, which is
    noted because a symlink is not replaced. ``namespaces`` are the host ids that running user
    namespaces map. ``can_add_accounts``: useradd can run for this root. ``engines`` are the names
    of the engines whose programs are installed. ``volumes`` are the recorded volumes as they are on
    disk, and ``runs`` the interrupted runs of fix-volume; both are empty unless they were looked
    at. ``docker`` is what Docker keeps, by data folder. ``unlisted`` are the ids that programs have
    without a line. ``userdb`` is where ranges are published. ``owners_need_accounts``: the
    installed shadow is one from 4.20 on, which skips lines whose owner has no account. ``exists``
    are the uids and the gids that exist here: in a container, the kernel knows only those of the
    user namespace around it. ``kubelet`` is what its configuration says. ``unseen`` is what only a
    command that shows or previews may do without: a free id may be used there. ``quadlets`` are
    empty unless they were looked for. ``mounts`` are the recorded mounts as the kernel shows them.
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
    unlisted: tuple[Unlisted, ...] = ()
    userdb: Userdb = field(default_factory=Userdb)
    owners_need_accounts: bool = False
    exists: tuple[IdSet, IdSet] = (EVERY_ID, EVERY_ID)
    kubelet: Kubelet = field(default_factory=Kubelet)
    unseen: tuple[Unseen, ...] = ()
    quadlets: tuple[Quadlet, ...] = ()
    mounts: tuple[MountSeen, ...] = ()

    def subid(self, kind: Kind) -> SubidFile:
        """The file that grants ids of this kind."""
        return self.subuid if kind == "uid" else self.subgid


@dataclass(frozen=True, slots=True)
class ContainerOptions:
    """The options of one allocation; None: not given. ``engines`` are served in addition to all.

    ``in_files`` False keeps it in the ledger alone, without lines. ``publish`` is for it instead of
    that of the request. ``passes`` are texts as --pass takes them, ``within`` the owner of whose
    lines it is a slice, ``was`` its former name. With ``adopt`` it is what stands on the host under
    this name; ``map`` are the extents that it then has to have, as formats.passes writes them.
    ``pass_privileged`` and ``local`` are as in AllocateRequest.
    """

    strategy: Strategy
    owner: str | None = None
    start: int | None = None
    engines: tuple[str, ...] = ()
    in_files: bool | None = None
    publish: Published | None = None
    passes: tuple[str, ...] = ()
    within: str = ""
    was: str = ""
    adopt: bool = False
    map: tuple[str, ...] = ()
    pass_privileged: bool = False
    local: bool = False


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """The options of an engine's own pool: its number of containers, and its first host id.

    ``ids_each`` is the number of ids of each container, for an engine that lets it be chosen.
    ``publish`` is for it instead of that of the request.
    """

    containers: int | None = None
    start: int | None = None
    ids_each: int | None = None
    publish: Published | None = None


@dataclass(frozen=True, slots=True)
class AllocateRequest:
    """The options of one ``allocate``. No names means the default allocation, Docker's.

    ``strategy`` None: the one that the host has, with these ``options`` (see strategies.named), and
    with the ``defaults`` that fit it. ``engines`` None: those that are installed. ``pools`` are the
    options of engines' own pools, by the name of the engine. ``each`` are options of single names,
    which replace those of all. ``from_file``: the request comes from a plan file, which has to name
    the default allocation. ``publish`` None: where the range is published already, else in userdb.
    ``places`` are where the defaults of the host stand, by option name. ``in_files``, ``passes``
    and ``within`` are as in ContainerOptions. ``pass_privileged`` permits passes that make the
    container a superuser of the host. ``local``: in a fleet, the ids are this host's alone.
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
    publish: Published | None = None
    places: dict[str, str] = field(default_factory=dict)
    in_files: bool | None = None
    passes: tuple[str, ...] = ()
    within: str = ""
    pass_privileged: bool = False
    local: bool = False


class AdoptRequest(NamedTuple):
    """The options of one ``adopt``: listed ``names``, or ``everything`` that is certain.

    ``pass_privileged`` is as in AllocateRequest.
    """

    names: tuple[str, ...] = ()
    everything: bool = False
    pass_privileged: bool = False


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


class RemapRequest(NamedTuple):
    """The options of one ``remap``. None keeps what is there; if all are None, finish a begun one.

    ``passes`` are texts as --pass takes them, all that the new map has; () for none. A new range
    comes from the ``pool``. ``undo`` returns to the map before the last remap.
    ``pass_privileged`` permits passes that make the container a superuser of the host.
    ``with_lines`` permits to replace lines that existed before they were adopted.
    """

    name: str
    size: int | None = None
    start: int | None = None
    pool: IdRange | None = None
    passes: tuple[str, ...] | None = None
    pass_privileged: bool = False
    undo: bool = False
    with_lines: bool = False

    @property
    def is_bare(self) -> bool:
        """Tell whether it names no option that changes the map."""
        return not self.undo and (self.size, self.start, self.pool, self.passes) == (None,) * 4


@dataclass(frozen=True, slots=True)
class Plan:
    """A complete decision. ``unfinished``: the user has to do something else first.

    ``restored`` are the names of allocations whose missing lines are added again; ``freed`` the
    quarantined ranges that are forgotten; ``consequences`` what the user has to agree to first.
    ``records`` are those of systemd that come or go; ``accounts_gone`` the accounts that published
    a range and are removed last. ``unseen`` are notes of a preview, which root's run may contradict.
    ``adopted`` are the names of new allocations that stood on the host before.
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
    records: tuple[RecordChange, ...] = ()
    accounts_gone: tuple[Record, ...] = ()
    unseen: tuple[str, ...] = ()
    adopted: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Tell whether carrying it out would change anything."""
        done = self.changes or self.account_commands or self.records or self.accounts_gone
        return bool(done) or self.ledger != LedgerChange()


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


Selinux = Literal["enforcing", "permissive", "off"]


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """The options of one ``render``.

    ``volumes`` are texts /SRC:/DEST:OPTIONS; ``bundle`` is a folder with a config.json. ``vmid`` is
    Proxmox VE's number of the container. ``base`` is a file with the engine's own profile of system
    calls. ``no_harden`` leaves the policy out.
    """

    engine: str
    name: str
    volumes: tuple[str, ...] = ()
    image: str | None = None
    rootless: bool = False
    bundle: str | None = None
    vmid: int | None = None
    base: str | None = None
    no_harden: bool = False
