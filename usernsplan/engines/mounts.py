"""Volumes of a rendering: how each one gets the owners that the container needs. Pure."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from usernsplan.engines import engine, engine_of_pool
from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.escape import shell
from usernsplan.mapping import KINDS
from usernsplan.model import Mount
from usernsplan.strategies import SingleUid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from usernsplan.layout import Layout
    from usernsplan.model import Allocation, LedgerState, Volume

_WORDS = re.compile(r"(?P<source>/.*?):(?P<destination>/[^:]*)(?::(?P<options>[^:/]*))?", re.DOTALL)
_OPTIONS = ("ro", "rw", "U", "idmap")
_BY_THE_RUNTIME = "the runtime maps the ids of a pod's volumes at the mount"
_MADE_BY_ROOT = (
    "files that container root makes there belong to the host's root, setuid files too; keep "
    "others out with mode 700"
)
_NOT_ITS_OWN = "give it to the container with"


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """A volume of the command line: SRC:DEST, and options."""

    source: str
    destination: str
    options: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, words: str) -> VolumeRequest:
        """Read ``/SRC:/DEST[:ro,U,idmap]``. Raises InvalidValueError for anything else."""
        spelt = _WORDS.fullmatch(words)
        if not spelt or not words.isprintable():
            raise InvalidValueError(
                f"--volume {words!r}: expected /SRC:/DEST[:OPTIONS], both absolute",
                hint=f"options: {', '.join(_OPTIONS)}",
            )

        options = frozenset(filter(None, (spelt["options"] or "").split(",")))
        strange = options.difference(_OPTIONS)
        if strange or {"ro", "rw"} <= options or {"U", "idmap"} <= options:
            what = (
                f"there is no option '{min(strange)}'"
                if strange
                else "these options contradict each other"
            )
            raise InvalidValueError(
                f"--volume {words}: {what}", hint=f"options: {', '.join(_OPTIONS)}"
            )

        for path in (spelt["source"], spelt["destination"]):
            if posixpath.normpath(path) != path.rstrip("/") or path.startswith("//"):
                raise InvalidValueError(
                    f"--volume {words}: '{path}' is not a plain path",
                    hint="use an absolute path without '.', '..' and '//'",
                )
        return cls(spelt["source"].rstrip("/"), spelt["destination"].rstrip("/"), options)


def _unknown(path: str) -> None:
    del path


def _folder(path: str) -> bool:
    del path
    return True


@dataclass(frozen=True, slots=True)
class MountContext:
    """What a decision on volumes needs to know of the host.

    ``name_of`` gives the name of a path in the ledger, with symlinks resolved; ``owner_of`` the
    host uid of what is there, or None; ``is_folder`` tells a folder from a single file;
    ``why_no_idmap`` is "" for a path that can be mounted with an idmap. ``rootless`` means the
    Podman of an account, which cannot map the ids of a mount. ``doubts`` has the recorded volumes
    that do not look as recorded, by path, and what is wrong with each.
    """

    ledger: LedgerState
    layout: Layout
    why_no_idmap: Callable[[str], str]
    name_of: Callable[[str], str] = str
    owner_of: Callable[[str], int | None] = _unknown
    is_folder: Callable[[str], bool] = _folder
    rootless: bool = False
    doubts: Mapping[str, str] = field(default_factory=dict)


def decide(
    name: str, allocation: Allocation, wishes: Sequence[VolumeRequest], on: MountContext
) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
    """How the engine mounts these volumes for an allocation, and notes on them.

    A volume that was fixed for the container has its host ids and is mounted as it is. The ids of
    any other volume are mapped at the mount, if the engine can do so and nothing is against it; if
    not, fix-volume is needed. Raises RefusedError where idmap was asked for and is not possible,
    InvalidValueError for two volumes with one destination.
    """
    destinations = [wish.destination for wish in wishes]
    if twice := [path for path in destinations if destinations.count(path) > 1]:
        raise InvalidValueError(f"--volume: two volumes have the destination {twice[0]}")
    decided = [_one(name, allocation, wish, on) for wish in wishes]
    return tuple(mount for mount, _ in decided), tuple(note for _, note in decided if note)


def _one(
    name: str, allocation: Allocation, wish: VolumeRequest, on: MountContext
) -> tuple[Mount, str]:
    source, can = wish.source, _idmap_of(name, allocation, on)
    owner = on.owner_of(source)
    # The two names differ where a symlink has replaced the volume.
    doubt = _doubt(on.name_of(source), on) or _doubt(source, on)
    whose = _whose(on.name_of(source), owner, on.ledger, is_doubted=bool(doubt))
    fix = _fix(allocation, wish, whose, on)
    is_right = _is_identity(allocation) or (
        not doubt and _is_right(allocation, whose, owner, on.ledger)
    )
    why = f"its files carry the host ids of {', '.join(whose)}" if whose and not doubt else doubt

    if can == "itself":
        note = f"{doubt}; {_BY_THE_RUNTIME}" if doubt else _BY_THE_RUNTIME
        if whose:
            note = f"{why}, and the runtime would map them again; {_fix_back(wish, whose, on)}"
        mount = Mount(
            source, wish.destination, "ro" in wish.options, is_folder=on.is_folder(source)
        )
        return mount, f"{source}: {note}"

    owners: Literal["plain", "idmap", "U"] = "plain"
    if "idmap" in wish.options:
        why = (
            f"{name} cannot map the ids of a mount"
            if can == "no"
            else why or on.why_no_idmap(source)
        )
        if why:
            raise RefusedError(
                f"--volume {source} cannot have an idmap: {why}",
                hint=f"leave out idmap, and {_NOT_ITS_OWN}: {fix}",
            )
        owners = "idmap"
    elif "U" in wish.options and "U" in engine(name).takes:
        owners = "U"
    elif can == "yes" and "U" not in wish.options and not is_right:
        if not why and (reason := on.why_no_idmap(source)):
            why = f"no idmap: {reason}"
        owners = "plain" if why else "idmap"

    note = doubt
    if owners == "idmap":
        note = _MADE_BY_ROOT
    elif owners == "plain" and not is_right:
        note = f"{why}; {_NOT_ITS_OWN}: {fix}" if why else f"{_NOT_ITS_OWN}: {fix}"

    mount = Mount(source, wish.destination, "ro" in wish.options, owners, on.is_folder(source))
    return mount, f"{source}: {note}" if note else ""


def _is_right(
    allocation: Allocation, whose: tuple[str, ...], owner: int | None, ledger: LedgerState
) -> bool:
    """Whether the files of a folder have the owners that the container needs.

    Shared containers have the same map, so a volume of one is right for the other. Containers of a
    pool get other ids each time. A single-uid container uses only one id of its block.
    """
    maps = {a.name: a.mapping for a in ledger.allocations} | {allocation.name: allocation.mapping}
    if (
        engine_of_pool(allocation)
        or not whose
        or {maps.get(name) for name in whose} != {allocation.mapping}
    ):
        return False
    strange = (
        owner is not None
        and allocation.reserved_range is not None
        and owner in allocation.reserved_range
    )
    return not strange or allocation.mapping.uids.to_container(owner or 0) is not None


def _idmap_of(name: str, allocation: Allocation, on: MountContext) -> str:
    """What the engine can do for this allocation: a pod of one id has no user namespace to map."""
    can = engine(name).idmap
    return (
        "no" if on.rootless or (can == "itself" and allocation.strategy == SingleUid.name) else can
    )


def _doubt(path: str, on: MountContext) -> str:
    """What is wrong with the recorded volume that a folder is, or is in; "" if nothing is."""
    inside = f"{path.rstrip('/')}/"
    above = [
        volume
        for volume in standing(on.ledger).values()
        if inside.startswith(f"{volume.path.rstrip('/')}/")
    ]
    volume = max(above, key=lambda volume: len(volume.path), default=None)
    if volume is None or volume.path not in on.doubts:
        return ""
    return f"{volume.path} is recorded as {volume.name}'s, but {on.doubts[volume.path]}"


def _whose(
    path: str, owner: int | None, ledger: LedgerState, *, is_doubted: bool = False
) -> tuple[str, ...]:
    """The containers whose host ids the files of a folder have.

    The range that the folder's owner is in counts first. If there is none, the ledger counts: the
    folder is in a fixed volume, or has some in it. A doubted record does not count. What was fixed
    for a name before its release has the ids of its former range.
    """
    held = [
        a.name
        for a in ledger.allocations
        if owner is not None and a.reserved_range and owner in a.reserved_range
    ]
    if held:
        return tuple(held)
    if is_doubted:
        return ()

    now = standing(ledger)
    names = {
        v.path: v.name if v.path in now else f"{v.name}'s former range" for v in ledger.volumes
    }
    inside = f"{path.rstrip('/')}/"
    above = [path for path in names if inside.startswith(f"{path.rstrip('/')}/")]
    if above:
        return (names[max(above, key=len)],)
    # Everything else in the folder still belongs to the host.
    below = sorted({names[path] for path in names if path.startswith(inside)})
    return (*below, "the host") if below else ()


def standing(ledger: LedgerState) -> dict[str, Volume]:
    """By path, the volumes that were fixed after their name was allocated, not for a former one."""
    made = {a.name: a.event for a in ledger.allocations}
    released: dict[str, int] = {}
    for q in ledger.quarantined:
        released[q.name] = max(q.event, released.get(q.name, q.event))
    return {
        v.path: v
        for v in ledger.volumes
        if v.name in made
        and made[v.name] <= v.event
        and (v.name not in released or released[v.name] < v.event)
    }


def _is_identity(allocation: Allocation) -> bool:
    return all(e.container == e.host for kind in KINDS for e in allocation.mapping[kind])


def _fix(
    allocation: Allocation, wish: VolumeRequest, whose: tuple[str, ...], on: MountContext
) -> str:
    """The command that gives a volume to the container."""
    if engine_of_pool(allocation):
        return "its option :U, because the range is known only when the container runs"
    others = {a.name for a in on.ledger.allocations} - {allocation.name}
    former = f" --from {shell(whose[0])}" if len(whose) == 1 and whose[0] in others else ""
    return on.layout.command(
        f"fix-volume {shell(wish.source)} --container {shell(allocation.name)}{former}"
    )


def _fix_back(wish: VolumeRequest, whose: tuple[str, ...], on: MountContext) -> str:
    """How a volume gets the ids of the host back."""
    if len(whose) > 1 or whose[0] not in {a.name for a in on.ledger.allocations}:
        return "its files need the owners of the host"
    command = f"fix-volume {shell(wish.source)} --container {shell(whose[0])} --reverse"
    return f"undo that with: {on.layout.command(command)}"
