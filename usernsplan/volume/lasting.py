"""Mounts that return at boot: which unit makes one, and whether it is as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.escape import operand, shell, shown_path
from usernsplan.formats import mount_words, unit_file
from usernsplan.host import booted, files, units
from usernsplan.ledger import open_ledger
from usernsplan.planner import units as planned

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.layout import Layout
    from usernsplan.model import VolumeMount
    from usernsplan.volume.job import Outcome


def how(layout: Layout, mount: VolumeMount, outcome: Outcome, *, is_file: bool) -> str:
    """How a mount can return at boot: one of LASTING. Raises RefusedError if it cannot."""
    for path in (mount.source, mount.at):
        if not unit_file.is_text(path):
            raise InvalidValueError(
                f"{shown_path(path)} cannot be named in a unit of systemd", hint="rename it"
            )
    if not layout.is_host:
        # Programs of another root are not run, and what is installed there is its maker's to say.
        if not files.exists(layout, booted.interpreter()):
            outcome.notes.append(
                f"the mount returns at boot once usernsplan is installed below {layout.root}, with"
                f" the Python {booted.interpreter()}"
            )
        return planned.how(mount, is_file=is_file, honours=False)
    if not units.has_systemd(layout):
        raise RefusedError(
            "this host has no systemd, so nothing mounts a volume at boot",
            hint=f"add a line to /etc/fstab: {mount_words.fstab_line(mount)}",
        )
    chosen = planned.how(mount, is_file=is_file, honours=units.honours_idmap())
    if chosen == "service":
        booted.refuse_unsafe()
    return chosen


def refuse_foreign(layout: Layout, mount: VolumeMount) -> None:
    """Raise RefusedError if a unit of this name is somebody else's, or was changed."""
    name = planned.name_of(mount)
    if mount.lasting and units.is_foreign(layout, name):
        path = layout.path(units.path_of(name))
        raise RefusedError(
            f"{shown_path(path)} was changed, or somebody else wrote it",
            hint=f"keep a copy and remove it: mv {operand(path)} {operand(path)}.old",
        )


def is_right(layout: Layout, mount: VolumeMount) -> bool:
    """Tell whether nothing is missing that makes a mount return at boot."""
    if not mount.lasting:
        return True
    unit = planned.unit(mount, booted.interpreter(), mount.run)
    return not units.problem(layout, unit.name) and units.body(layout, unit.name) == unit.body


def make(layout: Layout, mount: VolumeMount, run: str) -> None:
    """Write and enable the unit of a lasting mount. Raises RefusedError for somebody else's."""
    if not mount.lasting or is_right(layout, mount):
        return
    refuse_foreign(layout, mount)
    unit = planned.unit(mount, booted.interpreter(), run)
    units.write(layout, unit.name, unit_file.signed(unit.head, unit.body))


def rename(layout: Layout, names: Iterable[str]) -> None:
    """Write the units of containers with new names again: they say the name, and order by it.

    One that somebody changed stays; check tells of it.
    """
    wanted = {*names}
    for mount in open_ledger(layout).state().mounts if wanted else ():
        if mount.name in wanted and not units.is_foreign(layout, planned.name_of(mount)):
            make(layout, mount, mount.run)


def remove(layout: Layout, mount: VolumeMount, outcome: Outcome) -> None:
    """Remove the unit of a lasting mount; one that somebody changed is reported and kept."""
    name = planned.name_of(mount)
    if not mount.lasting:
        return
    if units.is_foreign(layout, name):
        path = layout.path(units.path_of(name))
        outcome.skip([(path, "somebody changed this unit, so it stays")])
        of_root = () if layout.is_host else (f"--root={layout.root}",)
        outcome.notes.append(
            f"{shown_path(path)} was changed and stays; to remove it:"
            f" {shell('systemctl', *of_root, 'disable', name)}; rm {operand(path)}"
        )
        return
    units.remove(layout, name)


def forget(layout: Layout, mount: VolumeMount) -> None:
    """Let systemd forget the unit, once the mount is gone."""
    if mount.lasting:
        units.forget(layout, planned.name_of(mount))
