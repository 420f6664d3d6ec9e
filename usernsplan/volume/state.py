"""What a run is and how far it has come: a frozen value, and how run.json keeps it. No I/O."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from usernsplan.host.runs import STATES
from usernsplan.mapping import IdMap
from usernsplan.volume.logs import integer
from usernsplan.volume.passes import Leg, Pass
from usernsplan.volume.targets import OwnershipRule

if TYPE_CHECKING:
    from usernsplan.layout import Layout
    from usernsplan.model import Mode

# How far a run is. Only "looking" has changed nothing; "done" and "undone" are finished.
LOOKING, CHANGING, DONE, UNDOING, UNDONE = STATES
# How volumes were given before run.json had a word for it, and are given where nobody says otherwise.
CHOWN = "chown"
# What run.json calls the mode: "reverse" shifts as well, back to the host's ids.
_MODES: dict[str, tuple[Mode, bool]] = {
    "own": ("own", False),
    "shift": ("shift", False),
    "reverse": ("shift", True),
}
# run.json keeps these under the names that they had first.
_KEYS = {"volumes": "trees", "rule": "targets", "leg": "stage"}


@dataclass(frozen=True, slots=True)
class NotedVolume:
    """A volume as a run notes it: its name below the root, and the inode of its top."""

    path: str
    device: int
    inode: int

    def contains(self, other: NotedVolume) -> bool:
        """Tell whether the other is this volume, by whatever name, or lies in it."""
        same = (self.device, self.inode) == (other.device, other.inode)
        return same or f"{other.path}/".startswith(self.path.rstrip("/") + "/")

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> NotedVolume:
        """Read what ``asdict`` made of it. Raises ValueError, TypeError or LookupError for anything else."""
        path = content["path"]
        if not isinstance(path, str) or not path.startswith("/"):
            raise ValueError(f"{path!r:.40} is no path")
        return cls(path, integer(content["device"]), integer(content["inode"]))


@dataclass(frozen=True, slots=True)
class RunState:
    """What run.json says. All paths are names below the root, which may have been moved since.

    ``method`` is how the volumes are given, ``leg`` the pass at which the run is. ``is_reverse``: they are given back
    to the host. ``finish`` is the command that finishes the run, as it may be shown. ``outside`` are linked inodes
    (device, inode) that are left alone; ``formerly`` is whose each volume was, and its mode. Times in ns since the
    epoch: ``seen`` before the first look, ``end`` after the last change; ``whole``: by then everything was right, and
    ``tops`` is when the inode of each top had changed last; ``failed`` are the paths of all entries of the journal
    that failed, ``retried`` those of them that are tried again; ``told``: the command that made the run came to its
    end; ``entries`` is how many the look met; ``special``: the journal has entries that need care; ``keep_power``:
    files that lose power get it back where their content is proved unchanged; ``sums`` are the size and the CRC-32 of
    each log of the look, which nothing may change after it.
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
    finish: str = field(default="", compare=False)

    def places(self, layout: Layout) -> tuple[str, ...]:
        """Where the volumes lie now."""
        return tuple(layout.place(volume.path) for volume in self.volumes)

    def pass_of(self, leg: Leg) -> Pass:
        """The pass over the volumes that goes this leg of the way."""
        return Pass(self.rule, leg, self.staging)

    def same_work(self, other: RunState) -> bool:
        """Tell whether both do the same to the same volumes."""
        # Not the device: after a reboot it may have another number.
        mine, others = ({(one.path, one.inode) for one in run.volumes} for run in (self, other))
        same = (self.method, self.cross_mounts, mine) == (other.method, other.cross_mounts, others)
        return same and self.rule.same_work(other.rule)

    def same_ids(self, other: RunState) -> bool:
        """Tell whether both move the same ids, whatever they do with others."""
        mine, theirs = (
            (run.rule.uids.source, run.rule.gids.source, run.rule.mode, run.rule.owner)
            for run in (self, other)
        )
        return mine == theirs

    def overlaps(self, other: RunState) -> bool:
        """Tell whether a volume of this run is, contains, or lies in one of the other's."""
        return any(
            mine.contains(theirs) or theirs.contains(mine)
            for mine in self.volumes
            for theirs in other.volumes
        )

    def to_json(self) -> dict[str, Any]:
        """What run.json keeps. What finishes the run is not kept: a reader makes it of what can be checked."""
        rest = asdict(replace(self, rule=None, staging=None))  # type: ignore[arg-type]
        del rest["finish"], rest["is_reverse"]
        return {
            **{_KEYS.get(name, name): value for name, value in rest.items()},
            "targets": self.rule.to_json(),
            "mode": "reverse" if self.is_reverse else self.rule.mode,
            "staging": [ids.triples() for ids in self.staging] if self.staging else None,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any], name: str) -> RunState:
        """Read the run.json of a run of this name; a newer version of the same format may have added fields.

        Raises ValueError, LookupError, TypeError, AttributeError or OverflowError for what no run writes down so.
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
            "staging": (IdMap.of(*staging[0]), IdMap.of(*staging[1])) if staging else None,
        }
        known = {one.name: content[one.name] for one in fields(cls) if one.name in content}
        state = cls(**(known | read))
        _refuse_strange(state, name)
        return state


# What the fields of run.json hold that need no reading; None is allowed where it is their usual value.
_PLAIN: dict[str, type] = {
    **dict.fromkeys(("command", "container", "method"), str),
    **dict.fromkeys(("seen", "end", "undone", "entries"), int),
    **dict.fromkeys(("cross_mounts", "whole", "special", "keep_power", "told"), bool),
}
_MAY_LACK = {"container", "end", "undone"}


def _listed(found: Any) -> tuple[Any, ...]:  # noqa: ANN401 - what the JSON says
    if not isinstance(found, list):
        raise TypeError(f"{found!r:.40} is no list")
    return tuple(found)


def _refuse_strange(state: RunState, name: str) -> None:
    """Raise TypeError or ValueError for a run that no run writes down so."""
    for one, kind in _PLAIN.items():
        value = getattr(state, one)
        if type(value) is not kind and not (value is None and one in _MAY_LACK):
            raise TypeError(f"{one} is {value!r:.40}")
    if state.run != name or state.leg == Leg.BACK:
        raise ValueError("another run's, or none's")

    texts = [*state.failed, *(state.retried or ()), *state.sums]
    texts += [word for path, words in state.formerly.items() for word in (path, *words)]
    numbers = [
        *state.tops,
        *(number for pair in (*state.outside, *state.sums.values()) for number in pair),
    ]
    if not all(isinstance(text, str) for text in texts) or not state.volumes:
        raise TypeError("not a text")
    for number in numbers:
        integer(number)
    if not all(isinstance(words, list) for words in state.formerly.values()):
        raise TypeError("not a list")
