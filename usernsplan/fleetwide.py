"""The values of the commands that look at a whole fleet. They are apart from ``model``, for a fast start.

A fleet may have a hundred hosts with ten thousand names each, so what grows with the names is an
iterator here, or says how much of it is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from usernsplan.ids import IdRange, IdSet
    from usernsplan.mapping import Kind
    from usernsplan.model import Allocation, HistoryEntry, Quarantined

# A host that has not run for so many seconds is said to be silent: a week.
SILENT = 7 * 24 * 3600


class Away(NamedTuple):
    """The ledger of the fleet gives no answer: its place, why, and the seconds since it agreed with ours."""

    place: str
    why: str
    seconds: float


class HostSeen(NamedTuple):
    """A host of a fleet: how many seconds ago the ledger heard of it, and what it is still to do.

    ``wishes`` are what operators ask of it, and ``refused`` what it refused to do.
    """

    number: int
    name: str
    seconds: float
    wishes: int = 0
    refused: int = 0


class NameSeen(NamedTuple):
    """An allocation, and the hosts that have it with exactly these words."""

    allocation: Allocation
    hosts: tuple[str, ...]


class ReleasedSeen(NamedTuple):
    """A quarantined range, and the hosts whose files may still carry it."""

    quarantined: Quarantined
    hosts: tuple[str, ...]


class WishSeen(NamedTuple):
    """What an operator asks of a host: to allocate a name, or to release it (``strategy`` is "").

    ``refused`` is why the host did not do it; "" if it has not looked at it yet.
    """

    host: str
    name: str
    strategy: str
    role: str
    at: str
    refused: str = ""


class ClaimSeen(NamedTuple):
    """Ids of one kind that hosts claim under a name. ``states`` has that of each of ``hosts``.

    ``local``: other hosts may have the same ids under other names. ``start`` and ``stop`` are
    numbers, half-open. ``allocation`` is that of one of the hosts; None for what is none.
    """

    kind: Kind
    start: int
    stop: int
    name: str
    local: bool
    hosts: tuple[str, ...]
    states: tuple[str, ...]
    allocation: Allocation | None = None


class OwnSeen(NamedTuple):
    """Ids of one kind that hosts have of their own, as they published it: an account, a line, a machine."""

    kind: Kind
    start: int
    stop: int
    source: str
    holder: str
    hosts: tuple[str, ...]


class IdSeen(NamedTuple):
    """Who has an id in a fleet, as a uid and as a gid."""

    number: int
    claims: tuple[ClaimSeen, ...] = ()
    own: tuple[OwnSeen, ...] = ()


class Stretch(NamedTuple):
    """Ids that the same hosts have in the same state: "held", "quarantined", "reserved" or "own".

    ``name`` is "" if there are too many names to show each of them.
    """

    kind: Kind
    ids: IdRange
    state: str
    name: str
    local: bool
    hosts: tuple[str, ...]


class Taken(NamedTuple):
    """The ids that a fleet has, as uids or as gids: all of them, and those only quarantined."""

    ids: IdSet
    quarantined: IdSet


class EventSeen(NamedTuple):
    """An event of a host's ledger."""

    host: str
    entry: HistoryEntry


class Unbacked(NamedTuple):
    """A host's claim without a row of its ledger that says so, or (``is_claim`` False) the reverse."""

    host: str
    name: str
    state: str
    is_claim: bool


class Overlapping(NamedTuple):
    """Ids that a host has of its own, and that ``name`` has in the fleet. ``is_its``: the host has that name too."""

    own: OwnSeen
    name: str
    start: int
    stop: int
    is_its: bool


class FleetSeen(NamedTuple):
    """What ``check --fleet`` looks at. ``left_out``: more was found than is listed."""

    place: str
    hosts: tuple[HostSeen, ...] = ()
    wishes: tuple[WishSeen, ...] = ()
    differing: tuple[tuple[NameSeen, ...], ...] = ()
    unbacked: tuple[Unbacked, ...] = ()
    overlapping: tuple[Overlapping, ...] = ()
    left_out: bool = False
