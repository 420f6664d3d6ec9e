"""The recorded mounts: whether each is still as it was asked for. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.escape import shell, shown_path
from usernsplan.planner.mounts import command
from usernsplan.values import NamedTuple, replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.layout import Layout
    from usernsplan.mapping import Mapping
    from usernsplan.model import LedgerState, MountSeen, VolumeMount

# The rules of check that report the doubts.
GONE, HIDDEN, CHANGED, FORGOTTEN, OPEN = "USN174", "USN175", "USN176", "USN177", "USN178"

_UNLIKE = "it has another map than the recorded one"


class MountDoubt(NamedTuple):
    """A recorded mount that is not as it was asked for: the rule, the fact, and the remedy."""

    mount: VolumeMount
    code: str
    fact: str
    remedy: str


def doubts(ledger: LedgerState, seen: Iterable[MountSeen], layout: Layout) -> list[MountDoubt]:
    """What is wrong with the recorded mounts that were looked at, by mount point.

    A mount can be wrong in several ways.
    """
    recorded = {mount.at: mount for mount in ledger.mounts}
    maps = {a.name: a.mapping for a in ledger.allocations}
    return [
        MountDoubt(mount, code, fact, remedy)
        for one in seen
        if (mount := recorded.get(one.at))
        for code, fact, remedy in _doubts(mount, one, maps.get(mount.name), layout)
    ]


def _instead(mount: VolumeMount, layout: Layout) -> str:
    return f"umount {shell(layout.place(mount.at))} && {_again(mount, layout)}"


def _protecting(mount: VolumeMount, layout: Layout) -> str:
    return _again(replace(mount, protect=mount.protect or "nosuid"), layout)


def _again(mount: VolumeMount, layout: Layout) -> str:
    return layout.command(command(mount))


def _doubts(
    mount: VolumeMount, seen: MountSeen, mapping: Mapping | None, layout: Layout
) -> Iterator[tuple[str, str, str]]:
    source = shown_path(layout.path(mount.source))
    if seen.why:
        yield GONE, f"whether it stands is unknown: {seen.why}", ""
    elif seen.hidden_by:
        fact = f"the mount at {shown_path(seen.hidden_by)} hides it"
        yield HIDDEN, fact, f"umount {shell(seen.hidden_by)}"
    elif seen.is_other:
        fact = f"what is mounted there does not show what is now at {source}"
        yield HIDDEN, fact, f"if the container is to have {source}: {_instead(mount, layout)}"
    elif not seen.is_standing and not seen.has_source:
        fact = f"nothing is mounted there, and {source} does not exist"
        yield GONE, fact, f"restore or mount {source}, then: {_again(mount, layout)}"
    elif not seen.is_standing:
        yield GONE, "nothing is mounted there", f"mount it again: {_again(mount, layout)}"
    elif seen.is_removed:
        fact = f"{source} was removed: only the mount still shows its files"
        yield HIDDEN, fact, f"copy what you need, restore {source}, then: {_instead(mount, layout)}"
    else:
        facts = list(_differences(mount, seen, mapping))
        # remap brings a mount to the map that is recorded.
        remap = f"give it that map: {layout.command(f'remap {shell(mount.name)}')}"
        again = f"mount it again: {_instead(mount, layout)}"
        yield from ((CHANGED, fact, remap if fact == _UNLIKE else again) for fact in facts)
    if seen.forgotten:
        yield (
            FORGOTTEN,
            f"it does not return at boot: {seen.forgotten}",
            f"set it up again: {_again(mount, layout)}",
        )
    if ways := "; ".join(seen.reached) or _own_way(mount, seen):
        fact = f"others can run what the container puts into {source}: {ways}"
        yield OPEN, fact, f"keep them out: {_protecting(mount, layout)}"


def _own_way(mount: VolumeMount, seen: MountSeen) -> str:
    """Why others get root's power by the path of the source; "" if they do not."""
    is_roots = any(extent.container == 0 for extent in mount.mapping.uids)
    if seen.is_open and is_roots and "ro" not in mount.options:
        return "no folder above it keeps others than root out, and setuid counts there"
    return ""


def _differences(mount: VolumeMount, seen: MountSeen, mapping: Mapping | None) -> Iterator[str]:
    """How a mount that stands differs from what was asked for."""
    if seen.mapping is not None and not seen.mapping.is_same_as(mount.mapping):
        yield _UNLIKE
    elif mount.mode == "shift" and mapping is not None and mapping != mount.mapping:
        yield f"it shows the ids of a former map of '{mount.name}'"
    if lacking := [option for option in mount.options if option not in seen.options]:
        yield f"it is mounted without {', '.join(lacking)}"
    # A mount keeps the options of the one that its source lies on.
    if "ro" in seen.options and "ro" not in (*mount.options, *seen.of_source):
        yield "it is read-only, which nobody asked for"
