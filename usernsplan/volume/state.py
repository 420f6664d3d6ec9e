"""The state of a run: a frozen value, and its form in run.json. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from usernsplan.host.runs import STATES
from usernsplan.layout import is_name
from usernsplan.ledger import codec
from usernsplan.values import asdict, dataclass, field, fields, replace
from usernsplan.volume.logs import integer
from usernsplan.volume.passes import Leg, Pass
from usernsplan.volume.targets import OwnershipRule, read_map

if TYPE_CHECKING:
    from usernsplan.layout import Layout
    from usernsplan.mapping import IdMap
    from usernsplan.model import Mode, VolumeMount

# How far a run is. In "looking" it has changed nothing yet; "done" and "undone" are the end.
LOOKING, CHANGING, DONE, UNDOING, UNDONE = STATES
# The default method, and the only one before run.json had a field for it.
CHOWN = "chown"
# A mount shows other ids; nothing on the disk changes.
IDMAP = "idmap"
# The modes of run.json: "reverse" is a shift back to the host's ids.
_MODES: dict[str, tuple[Mode, bool]] = {
    "own": ("own", False),
    "shift": ("shift", False),
    "reverse": ("shift", True),
}
# The keys of run.json that differ from the field, because the field was renamed.
_KEYS = {"volumes": "trees", "rule": "targets", "leg": "stage"}


@dataclass(frozen=True, slots=True)
class NotedVolume:
    """A volume in the journal: its path below the root, and the inode of its top."""

    path: str
    device: int
    inode: int

    def contains(self, other: NotedVolume) -> bool:
        """Tell whether the other is this volume, under any name, or lies in it."""
        same = (self.device, self.inode) == (other.device, other.inode)
        return same or f"{other.path}/".startswith(self.path.rstrip("/") + "/")

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> NotedVolume:
        """Reverse ``asdict``. Raises ValueError, TypeError or LookupError for any other content."""
        path = content["path"]
        if not isinstance(path, str) or not path.startswith("/"):
            raise ValueError(f"{path!r:.40} is not an absolute path")
        return cls(path, integer(content["device"]), integer(content["inode"]))


@dataclass(frozen=True, slots=True)
class RunState:
    """The content of run.json. Paths are below the root, which may have moved since the run.

    Times are in ns since the epoch. ``seen`` is before the first look, ``end`` after the last
    change, ``undone`` the end of the undo.

    The work: ``method`` is how the volumes are given, ``leg`` the pass that the run is in.
    ``is_reverse``: the volumes go back to the host. ``outside`` are linked inodes (device, inode)
    to leave alone. ``keep_power``: files that lose power get it back if their content is proved
    unchanged. ``formerly`` has the former container and mode of each volume. ``finish`` is the
    command that finishes the run, ready to be shown.

    ``mounts`` are those that the method idmap makes, one for each volume, without their run.
    ``shut`` are the folders that it shuts to everybody but root, each with its former mode.

    The result: ``whole``: everything was right at the end; then ``tops`` has the ctime of each top.
    ``failed`` are the paths of all journal entries that failed, ``retried`` those that are tried
    again. ``event`` is the number of the last event of the ledger when the run began: names of
    containers are those of that time. ``told``: the command that made the run came to its end.
    ``entries`` is how many entries the look met. ``special``: the journal has entries that need
    care. ``sums`` has the size and the CRC-32 of each log of the look, which never change after it.
    """

    run: str
    state: str
    command: str
    volumes: tuple[NotedVolume, ...]
    rule: OwnershipRule
    seen: int
    method: str = CHOWN
    leg: Leg = Leg.STRAIGHT
    end: int | None = None
    staging: tuple[IdMap, IdMap] | None = None
    cross_mounts: bool = False
    container: str | None = None
    is_reverse: bool = False
    outside: tuple[tuple[int, int], ...] = ()
    formerly: dict[str, list[str]] = field(default_factory=dict)
    whole: bool = False
    tops: tuple[int, ...] = ()
    undone: int | None = None
    failed: tuple[str, ...] = ()
    retried: tuple[str, ...] | None = None
    special: bool = False
    keep_power: bool = False
    told: bool = False
    entries: int = 0
    sums: dict[str, list[int]] = field(default_factory=dict)
    event: int = 0
    mounts: tuple[VolumeMount, ...] = ()
    shut: dict[str, int] = field(default_factory=dict)
    finish: str = field(default="", compare=False)

    def places(self, layout: Layout) -> tuple[str, ...]:
        """The paths of the volumes on this machine."""
        return tuple(layout.place(volume.path) for volume in self.volumes)

    def pass_of(self, leg: Leg) -> Pass:
        """The pass of this leg over the volumes."""
        return Pass(self.rule, leg, self.staging)

    def same_work(self, other: RunState) -> bool:
        """Tell whether both do the same work on the same volumes."""
        # A device may have another number after a reboot, so only the inodes are compared.
        mine, others = ({(one.path, one.inode) for one in run.volumes} for run in (self, other))
        same = (self.method, self.cross_mounts, mine, self.mounts) == (
            other.method,
            other.cross_mounts,
            others,
            other.mounts,
        )
        return same and self.rule.same_work(other.rule)

    def same_ids(self, other: RunState) -> bool:
        """Tell whether both move the same ids; how they treat other ids does not matter."""
        mine, theirs = (
            (run.rule.uids.source, run.rule.gids.source, run.rule.mode, run.rule.owner)
            for run in (self, other)
        )
        return mine == theirs

    def overlaps(self, other: RunState) -> bool:
        """Tell whether a volume of this run is, contains, or lies in one of the other's.

        Two runs with the same mount point overlap too.
        """
        return bool({m.at for m in self.mounts} & {m.at for m in other.mounts}) or any(
            mine.contains(theirs) or theirs.contains(mine)
            for mine in self.volumes
            for theirs in other.volumes
        )

    def to_json(self) -> dict[str, Any]:
        """The content of run.json, without ``finish``: readers build that from checked fields."""
        rest = asdict(replace(self, rule=None, staging=None, mounts=()))  # type: ignore[arg-type]
        del rest["finish"], rest["is_reverse"]
        return {
            **{_KEYS.get(name, name): value for name, value in rest.items()},
            "targets": self.rule.to_json(),
            "mounts": [codec.mount_words(mount) for mount in self.mounts],
            "mode": "reverse" if self.is_reverse else self.rule.mode,
            "staging": [ids.triples() for ids in self.staging] if self.staging else None,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any], name: str) -> RunState:
        """Read the run.json of the run ``name``; ignore fields that a newer version added.

        Raises ValueError, LookupError, TypeError, AttributeError or OverflowError for content that
        no run writes.
        """
        mode, is_reverse = _MODES[content["mode"]]
        staging, retried = content["staging"], content["retried"]
        read = {
            "volumes": tuple(map(NotedVolume.from_json, content["trees"])),
            "rule": OwnershipRule.from_json(content["targets"], mode),
            "leg": Leg(integer(content["stage"])),
            "is_reverse": is_reverse,
            "tops": _listed(content["tops"]),
            "failed": _listed(content["failed"]),
            "retried": None if retried is None else _listed(retried),
            "outside": tuple((device, inode) for device, inode in _listed(content["outside"])),
            # Older versions made no mounts.
            "mounts": tuple(map(codec.mount_of, _listed(content.get("mounts", [])))),
            "staging": (read_map(staging[0]), read_map(staging[1])) if staging else None,
        }
        known = {one.name: content[one.name] for one in fields(cls) if one.name in content}
        state = cls(**(known | read))
        _refuse_strange(state, name)
        return state


# The types of the fields that are taken as they are. Those in _MAY_LACK may be None instead.
_PLAIN: dict[str, type] = {
    **dict.fromkeys(("command", "container", "method"), str),
    **dict.fromkeys(("seen", "end", "undone", "entries", "event"), int),
    **dict.fromkeys(("cross_mounts", "whole", "special", "keep_power", "told"), bool),
}
_MAY_LACK = {"container", "end", "undone"}


def _listed(found: Any) -> tuple[Any, ...]:  # noqa: ANN401 - what the JSON says
    if not isinstance(found, list):
        raise TypeError(f"{found!r:.40} is not a list")
    return tuple(found)


def _refuse_strange(state: RunState, name: str) -> None:
    """Raise TypeError or ValueError for a state that no run writes."""
    for one, kind in _PLAIN.items():
        value = getattr(state, one)
        if type(value) is not kind and not (value is None and one in _MAY_LACK):
            raise TypeError(f"{one} is {value!r:.40}")
    if state.method == IDMAP and len(state.mounts) != len(state.volumes):
        raise ValueError("not a mount for each volume")
    if not all(map(is_name, state.shut)):
        raise ValueError("not a folder below the root")
    if state.run != name or state.leg == Leg.BACK:
        raise ValueError("the state of another run, or of none")

    texts = [*state.failed, *(state.retried or ()), *state.sums, *state.shut]
    texts += [word for path, words in state.formerly.items() for word in (path, *words)]
    numbers = [
        *state.tops,
        *(number for pair in (*state.outside, *state.sums.values()) for number in pair),
    ]
    if not all(isinstance(text, str) for text in texts) or not state.volumes:
        raise TypeError("not a text")
    for number in (*numbers, *state.shut.values()):
        integer(number)
    if not all(isinstance(words, list) for words in state.formerly.values()):
        raise TypeError("not a list")
