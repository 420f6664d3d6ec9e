"""systemd-nspawn: --private-users=BASE:COUNT, and a .nspawn file.

systemd-nspawn(1), systemd.nspawn(5)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines.base import (
    EXACTLY,
    Engine,
    File,
    RenderContext,
    Rendered,
    Verdict,
    no,
    only_extent,
    plain,
)
from usernsplan.patterns import pattern
from usernsplan.strategies import SLOT

if TYPE_CHECKING:
    from usernsplan.model import Allocation, Mount

# Machine names of systemd: labels of a host name, at most 64 characters.
_MACHINE = pattern(
    r"(?=.{1,64}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)


class Nspawn(Engine):
    """Flags, and the .nspawn file that machinectl and systemd-nspawn@.service read."""

    takes = frozenset({"volume"})
    idmap = "yes"

    def verdict(self, allocation: Allocation) -> Verdict:
        """One range from container id 0, the same for uids and gids."""
        if allocation.mapping.uids != allocation.mapping.gids or not only_extent(
            allocation.mapping.uids
        ):
            return no("it takes one range, from container id 0, the same for uids and gids")
        return EXACTLY

    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """Base and count. The root file system keeps its owners: it is mapped at the mount."""
        start, count = only_extent(allocation.mapping.uids) or (0, 0)
        flags = [f"--private-users={start}:{count}", "--private-users-ownership=map"]
        flags += [f"--bind{'-ro' if m.read_only else ''}={_bind(m)}" for m in context.mounts]
        lines = [
            "[Exec]",
            f"PrivateUsers={start}:{count}",
            "NoNewPrivileges=yes",
            "",
            "[Files]",
            "PrivateUsersOwnership=map",
        ]
        lines += [f"Bind{'ReadOnly' if m.read_only else ''}={_bind(m)}" for m in context.mounts]

        path = f"/etc/systemd/nspawn/{allocation.name}.nspawn"
        files: tuple[File, ...] = (File(path, "\n".join(lines) + "\n"),)
        notes = [
            (
                f"--out DIR writes {path}, for machinectl and "
                f"'systemd-nspawn -M {allocation.name} --settings=override'"
            )
        ]
        if not _MACHINE.fullmatch(allocation.name):
            files, notes = (
                (),
                [f"there is no .nspawn file: '{allocation.name}' cannot be the name of a machine"],
            )

        if count != SLOT or start % SLOT:
            notes.append(
                "--private-users-ownership=chown needs a count of 65536 and a base that is a "
                "multiple of it; map does not"
            )
        return Rendered(" ".join(flags), files, tuple(notes))


def _bind(mount: Mount) -> str:
    return f"{plain(mount.source)}:{plain(mount.destination)}" + (
        ":idmap" if mount.owners == "idmap" else ""
    )


ENGINES = {"nspawn": Nspawn()}
