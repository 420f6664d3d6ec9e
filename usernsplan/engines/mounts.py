"""Volumes of a rendering: how each one gets the owners that the container needs. Pure."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Literal

from usernsplan.engines import engine, engine_of_pool
from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.escape import shell
from usernsplan.holdings import own_ids
from usernsplan.layout import lies_in
from usernsplan.mapping import KINDS
from usernsplan.model import Mount
from usernsplan.patterns import pattern
from usernsplan.strategies import SingleUid
from usernsplan.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from usernsplan.layout import Layout
    from usernsplan.model import Allocation, LedgerState, Volume, VolumeMount

_WORDS = pattern(r"(?P<source>/.*?):(?P<destination>/[^:]*)(?::(?P<options>[^:/]*))?", re.DOTALL)
_OPTIONS = ("ro", "rw", "U", "idmap")
_BY_THE_RUNTIME = "the runtime maps the ids of a pod's volumes at the mount"
_MADE_BY_ROOT = (
    "files that container root makes there belong to the host's root, setuid files too; keep "
    "others out with mode 700"
)
_NOT_ITS_OWN = "give it to the container with"
# What is wrong with a volume of ``unmoved``.
NOT_MOVED = "its files still have the ids of its former map"


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


def _gone(mount: VolumeMount, rest: str) -> bool:
    del mount, rest
    return False


def _again(mount: VolumeMount) -> str:
    return f"mount-volume {shell(mount.source)} --container {shell(mount.name)}"


@dataclass(frozen=True, slots=True)
class MountContext:
    """What a decision on volumes needs to know of the host.

    ``name_of`` gives the name of a path in the ledger, with symlinks resolved; ``owner_of`` the
    host uid of what is there, or None; ``is_folder`` tells a folder from a single file;
    ``why_no_idmap`` is "" for a path that can be mounted with an idmap. ``rootless`` means the
    Podman of an account, which cannot map the ids of a mount. ``doubts`` has the recorded volumes
    that do not look as recorded, by path, and what is wrong with each. ``stands`` tells whether a
    recorded mount shows the path "" or "/…" of its source; ``mount_again`` makes the words of the
    command that makes it.
    """

    ledger: LedgerState
    layout: Layout
    why_no_idmap: Callable[[str], str]
    name_of: Callable[[str], str] = str
    owner_of: Callable[[str], int | None] = _unknown
    is_folder: Callable[[str], bool] = _folder
    rootless: bool = False
    doubts: Mapping[str, str] = field(default_factory=dict)
    stands: Callable[[VolumeMount, str], bool] = _gone
    mount_again: Callable[[VolumeMount], str] = _again


def decide(
    name: str, allocation: Allocation, requests: Sequence[VolumeRequest], context: MountContext
) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
    """How the engine mounts these volumes for an allocation, and notes on them.

    One that mount-volume shows with the container's ids is taken from there. A volume that was fixed
    for the container has its host ids and is mounted as it is. The ids of any other volume are
    mapped at the mount, if the engine can do so and nothing is against it; if not, fix-volume is
    needed. Raises RefusedError if idmap was requested and is not possible, InvalidValueError for
    two volumes with one destination.
    """
    destinations = [request.destination for request in requests]
    if twice := [path for path in destinations if destinations.count(path) > 1]:
        raise InvalidValueError(f"--volume: two volumes have the destination {twice[0]}")
    decided = [
        _shown(name, allocation, request, context) or _one(name, allocation, request, context)
        for request in requests
    ]
    return tuple(mount for mount, _ in decided), tuple(note for _, note in decided if note)


def _one(
    name: str, allocation: Allocation, request: VolumeRequest, context: MountContext
) -> tuple[Mount, str]:
    source, can = request.source, _idmap_of(name, allocation, context)
    owner = context.owner_of(source)
    # The two names differ where a symlink has replaced the volume.
    doubt = _doubt(context.name_of(source), context) or _doubt(source, context)
    whose = _whose(context.name_of(source), owner, context.ledger, is_doubted=bool(doubt))
    fix = _fix(allocation, request, whose, context)
    is_right = _is_identity(allocation) or (
        not doubt and _is_right(allocation, whose, owner, context.ledger)
    )
    why = f"its files carry the host ids of {', '.join(whose)}" if whose and not doubt else doubt

    if can == "itself":
        note = f"{doubt}; {_BY_THE_RUNTIME}" if doubt else _BY_THE_RUNTIME
        if whose:
            note = (
                f"{why}, and the runtime would map them again; {_fix_back(request, whose, context)}"
            )
        mount = Mount(
            source,
            request.destination,
            "ro" in request.options,
            is_folder=context.is_folder(source),
        )
        return mount, f"{source}: {note}"

    owners: Literal["plain", "idmap", "U"] = "plain"
    if "idmap" in request.options:
        why = (
            f"{name} cannot map the ids of a mount"
            if can == "no"
            else why or context.why_no_idmap(source)
        )
        if why:
            raise RefusedError(
                f"--volume {source} cannot have an idmap: {why}",
                hint=f"leave out idmap, and {_NOT_ITS_OWN}: {fix}",
            )
        owners = "idmap"
    elif "U" in request.options and "U" in engine(name).takes:
        owners = "U"
    elif can == "yes" and "U" not in request.options and not is_right:
        if not why and (reason := context.why_no_idmap(source)):
            why = f"no idmap: {reason}"
        owners = "plain" if why else "idmap"

    note = doubt
    if owners == "idmap":
        note = _MADE_BY_ROOT
    elif owners == "plain" and not is_right:
        note = f"{why}; {_NOT_ITS_OWN}: {fix}" if why else f"{_NOT_ITS_OWN}: {fix}"

    mount = Mount(
        source, request.destination, "ro" in request.options, owners, context.is_folder(source)
    )
    return mount, f"{source}: {note}" if note else ""


def _shown(
    name: str, allocation: Allocation, request: VolumeRequest, context: MountContext
) -> tuple[Mount, str] | None:
    """The volume as an idmapped mount for this container shows it; None if the ledger has none.

    None too where the engine maps the ids itself: the kernel maps no mount a second time. A
    mount has the right owners, so nothing changes them. One that is gone is named all the same:
    past it, the files have other ids.
    """
    if "idmap" in request.options or _idmap_of(name, allocation, context) == "itself":
        return None
    source = context.name_of(request.source)
    its = [
        (mount, source[len(mount.source) :])
        for mount in context.ledger.mounts
        if mount.name == allocation.name and lies_in(source, mount.source)
    ]
    standing = [one for one in its if context.stands(*one)]
    gone = [one for one in its if not one[1]]
    mount, rest = next(iter((*standing, *gone)), (None, ""))
    if mount is None:
        return None

    notes = []
    if not standing:
        again = context.layout.command(context.mount_again(mount))
        notes.append(f"{mount.at} is not mounted; before the container starts, run: {again}")
    if "U" in request.options:
        notes.append("without U: the mount has the right owners, and U would change the disk")
    shown = Mount(
        mount.at + rest,
        request.destination,
        "ro" in request.options or "ro" in mount.options,
        is_folder=context.is_folder(request.source),
    )
    return shown, "; ".join((f"{request.source}: {notes[0]}", *notes[1:])) if notes else ""


def _is_right(
    allocation: Allocation, whose: tuple[str, ...], owner: int | None, ledger: LedgerState
) -> bool:
    """Whether the files of a folder have the owners that the container needs.

    Shared containers have the same map, so a volume of one is right for the other. Containers of a
    pool get other ids each time. A single-uid container uses only one id of its block. Files of the
    host's owner that passes through are meant to be used as they are.
    """
    if not whose and any(
        kind == "uid" and owner is not None and owner in extent.host_range
        for kind, extent in allocation.passes
    ):
        return True
    maps = {a.name: a.mapping for a in ledger.allocations} | {allocation.name: allocation.mapping}
    if (
        engine_of_pool(allocation)
        or not whose
        or {maps.get(name) for name in whose} != {allocation.mapping}
    ):
        return False
    strange = owner is not None and owner in own_ids(allocation, "uid")
    return not strange or allocation.mapping.uids.to_container(owner or 0) is not None


def _idmap_of(name: str, allocation: Allocation, context: MountContext) -> str:
    """What the engine can do for this allocation: a pod of one id has no user namespace to map."""
    can = engine(name).idmap
    return (
        "no"
        if context.rootless or (can == "itself" and allocation.strategy == SingleUid.name)
        else can
    )


def _doubt(path: str, context: MountContext) -> str:
    """What is wrong with the recorded volume that a folder is, or is in; "" if nothing is."""
    inside = f"{path.rstrip('/')}/"
    above = [
        volume
        for volume in given(context.ledger).values()
        if inside.startswith(f"{volume.path.rstrip('/')}/")
    ]
    volume = max(above, key=lambda volume: len(volume.path), default=None)
    if volume is None:
        return ""
    fact = NOT_MOVED if volume.former is not None else context.doubts.get(volume.path, "")
    return f"{volume.path} is recorded as {volume.name}'s, but {fact}" if fact else ""


def _whose(
    path: str, owner: int | None, ledger: LedgerState, *, is_doubted: bool = False
) -> tuple[str, ...]:
    """The containers whose host ids the files of a folder have.

    The range that the folder's owner is in counts first. If there is none, the ledger counts: the
    folder is in a fixed volume, or has some in it. A doubted record does not count. What was fixed
    for a name before its release has the ids of its former range.
    """
    held = [a for a in ledger.allocations if owner is not None and owner in own_ids(a, "uid")]
    if held:
        # The range that a slice is cut from may be an allocation too.
        return tuple(a.name for a in held if a.within) or tuple(a.name for a in held)
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
    """By path, the volumes whose files have the ids of their container's map.

    They were fixed after their name was allocated, not for a former one, and have no former map.
    """
    return {path: v for path, v in given(ledger).items() if v.former is None}


def unmoved(ledger: LedgerState) -> dict[str, Volume]:
    """By path, the volumes whose files have the former map of their container."""
    return {path: v for path, v in given(ledger).items() if v.former is not None}


def given(ledger: LedgerState) -> dict[str, Volume]:
    """By path, the volumes that belong to an allocation: ``standing`` and ``unmoved``."""
    made = {a.name: a.event for a in ledger.allocations}
    released: dict[str, int] = {}
    for q in ledger.quarantined:
        # A remap quarantined it: the allocation goes on, and its volumes moved or wait.
        if q.was is not None and q.was.event == made.get(q.name):
            continue
        released[q.name] = max(q.event, released.get(q.name, q.event))
    return {
        v.path: v
        for v in ledger.volumes
        if v.name in made
        and made[v.name] <= v.event
        and (v.former is not None or v.name not in released or released[v.name] < v.event)
    }


def _is_identity(allocation: Allocation) -> bool:
    return all(e.container == e.host for kind in KINDS for e in allocation.mapping[kind])


def _fix(
    allocation: Allocation, request: VolumeRequest, whose: tuple[str, ...], context: MountContext
) -> str:
    """The command that gives a volume to the container."""
    if engine_of_pool(allocation):
        return "its option :U, because the range is known only when the container runs"
    others = {a.name for a in context.ledger.allocations} - {allocation.name}
    former = f" --from {shell(whose[0])}" if len(whose) == 1 and whose[0] in others else ""
    return context.layout.command(
        f"fix-volume {shell(request.source)} --container {shell(allocation.name)}{former}"
    )


def _fix_back(request: VolumeRequest, whose: tuple[str, ...], context: MountContext) -> str:
    """How a volume gets the ids of the host back."""
    if len(whose) > 1 or whose[0] not in {a.name for a in context.ledger.allocations}:
        return "its files need the owners of the host"
    command = f"fix-volume {shell(request.source)} --container {shell(whose[0])} --reverse"
    return f"undo that with: {context.layout.command(command)}"
