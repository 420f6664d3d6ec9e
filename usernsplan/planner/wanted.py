"""The idmapped mounts that a plan file wants, against those that the ledger has. Pure."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from posixpath import dirname
from typing import TYPE_CHECKING, Literal

from usernsplan.errors import RefusedError
from usernsplan.escape import shell, shown_path
from usernsplan.model import LedgerState, VolumeMount
from usernsplan.planner.mount_doubts import CHANGED
from usernsplan.planner.mounts import default_at, is_ours
from usernsplan.values import NamedTuple, dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from usernsplan.formats.spec import SpecVolume
    from usernsplan.layout import Layout
    from usernsplan.mapping import Mapping as Map
    from usernsplan.model import Mode
    from usernsplan.planner.mount_doubts import MountDoubt


@dataclass(frozen=True, slots=True)
class Wanted:
    """A mount of a volume (``source``) that a plan file names, as SpecVolume has it.

    With the method auto a volume is right with any mount, and the run decides whether it makes one.
    """

    source: str
    name: str
    mode: Mode
    user: str
    method: Literal["idmap", "auto"] = "idmap"
    at: str = ""
    persist: bool = False
    read_only: bool = False
    protect: Literal["", "nosuid", "parent"] = ""
    crosses: bool = False


class ToMount(NamedTuple):
    """A mount to make at ``at``, and why what is recorded is not right; ``why`` is "" for a new one.

    ``instead`` are the mounts to take away first.
    """

    wanted: Wanted
    at: str
    why: str = ""
    instead: tuple[VolumeMount, ...] = ()


def of_volume(name: str, volume: SpecVolume) -> Wanted | None:
    """The mount that a volume of a plan file asks for; None if its files are to be changed."""
    if volume.method not in {"idmap", "auto"}:
        return None
    return Wanted(
        volume.path,
        name,
        volume.mode,
        volume.user,
        "auto" if volume.method == "auto" else "idmap",
        volume.at,
        volume.persist,
        volume.read_only,
        volume.protect,
        volume.cross_mounts,
    )


def compare(
    ledger: LedgerState,
    wanted: Iterable[Wanted],
    maps: Mapping[str, Map],
    doubts: Iterable[MountDoubt],
) -> tuple[tuple[ToMount, ...], tuple[VolumeMount, ...]]:
    """What is to be mounted, and the recorded mounts that nothing here asks for.

    ``maps`` are those of the containers; ``doubts`` are about recorded mounts as they stand.
    """
    doubted = {doubt.mount.at: doubt for doubt in reversed([*doubts])}
    left = {m.at: m for m in ledger.mounts}
    of_volumes: dict[tuple[str, str], list[VolumeMount]] = defaultdict(list)
    for mount in ledger.mounts:
        of_volumes[mount.name, mount.source].append(mount)

    made, others = [], []
    for one in wanted:
        its = (m for m in of_volumes[one.name, one.source] if m.at in left)
        right = next((m for m in its if not _unlike(one, m, maps[one.name])), None)
        if right is None:
            others.append(one)
            continue
        del left[right.at]
        if doubt := doubted.get(right.at):
            # A mount that stands with another map or other options cannot be made over itself.
            instead = (right,) if doubt.code == CHANGED else ()
            made.append(ToMount(one, right.at, doubt.fact, instead))

    before = []
    for one in others:
        # One that stands where it is wanted has least to change.
        last = sorted(
            (m for m in of_volumes[one.name, one.source] if m.at in left),
            key=partial(_is_at, one),
        )
        before.append([left.pop(m.at) for m in last[-1:]])
    for one, gone in zip(others, before, strict=True):
        if one.at in left:
            gone.append(left.pop(one.at))
        why = next((_unlike(one, m, maps[one.name]) for m in gone), "")
        made.append(ToMount(one, one.at, why, tuple(gone)))
    return tuple(_placed(ledger, made, maps)), tuple(left.values())


def refuse_together(
    layout: Layout,
    mount: VolumeMount,
    recorded: Iterable[VolumeMount],
    going: Iterable[VolumeMount],
) -> None:
    """Raise RefusedError if undoing the run of a mount would take away one that stays."""
    place = layout.path(mount.at)
    if not mount.run:
        raise RefusedError(
            f"{shown_path(place)}: the ledger does not know the run that mounted it",
            hint=f"unmount it: umount {shell(place)}",
        )
    points = {m.at for m in going}
    others = [m.at for m in recorded if m.run == mount.run and m.at not in points]
    if others:
        undo = layout.command(f"undo {shell(mount.run)}")
        raise RefusedError(
            f"run {mount.run} mounted {shown_path(place)}, and "
            f"{', '.join(shown_path(layout.path(at)) for at in others)}, which stays",
            hint=f"undo that run and apply the file again: {undo}",
        )


def _placed(
    ledger: LedgerState, made: Iterable[ToMount], maps: Mapping[str, Map]
) -> Iterator[ToMount]:
    """The same, each with the mount point that it will have."""
    made = [*made]
    gone = {m.at for one in made for m in one.instead}
    there: dict[str, list[VolumeMount]] = defaultdict(list)
    for mount in ledger.mounts:
        if mount.at not in gone:
            there[dirname(mount.at)].append(mount)

    for one in made:
        wanted, at = one.wanted, one.at
        if not at:
            place = partial(default_at, name=wanted.name, source=wanted.source)
            # Only what lies in the same folder can be in the way; a ledger may have thousands.
            folder = dirname(place(LedgerState(), lasting=wanted.persist))
            at = place(LedgerState(mounts=tuple(there[folder])), lasting=wanted.persist)
        new = VolumeMount(at, wanted.source, wanted.name, wanted.mode, maps[wanted.name])
        there[dirname(at)].append(new)
        yield one._replace(at=at)


def _is_at(wanted: Wanted, mount: VolumeMount) -> bool:
    """Tell whether a mount stands where it is wanted: without a place, at any of ours."""
    return mount.at == wanted.at if wanted.at else is_ours(mount.at)


def _unlike(wanted: Wanted, mount: VolumeMount, mapping: Map) -> str:
    """How a recorded mount differs from the file; "" if it does not."""
    of_all = (
        (
            (mount.name, mount.source),
            (wanted.name, wanted.source),
            f"it shows {mount.source} for {mount.name}",
        ),
        ((mount.mode, mount.user), (wanted.mode, wanted.user), "it has another mode or user"),
        (_shows(wanted, mount, mapping), True, "it has another map"),
    )
    is_read_only, lasts = "ro" in mount.options, bool(mount.lasting)
    by = f"its source is protected by {mount.protect}"
    of_idmap = (
        (_is_at(wanted, mount), True, f"it is at {mount.at}"),
        (is_read_only, wanted.read_only, f"it is {'' if is_read_only else 'not '}read-only"),
        (lasts, wanted.persist, "it returns at boot" if lasts else "it does not return at boot"),
        (mount.protect, wanted.protect, by if mount.protect else "nothing protects its source"),
        (
            mount.crosses,
            wanted.crosses,
            f"it {'shows' if mount.crosses else 'lacks'} the mounts in the volume",
        ),
    )
    facts = (*of_all, *(of_idmap if wanted.method == "idmap" else ()))
    return next((fact for now, asked, fact in facts if now != asked), "")


def _shows(wanted: Wanted, mount: VolumeMount, mapping: Map) -> bool:
    """Tell whether a mount shows ids of this map: all of them, or with mode own the user's."""
    if wanted.mode == "shift":
        return mount.mapping == mapping
    uid, _, gid = wanted.user.partition(":")
    hosts = mapping.uids.to_host(int(uid)), mapping.gids.to_host(int(gid))
    return (mount.mapping.uids[0].host, mount.mapping.gids[0].host) == hosts
