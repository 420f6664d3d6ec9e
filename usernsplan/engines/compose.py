"""Compose, for Docker: a fragment of compose.yaml. It cannot have a map; the daemon has it.

https://docs.docker.com/reference/compose-file/services/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines.base import Engine, File, RenderContext, Rendered, Verdict, nearly, quoted
from usernsplan.engines.docker import can_lay
from usernsplan.escape import shell

if TYPE_CHECKING:
    from usernsplan.model import Allocation, Mount


class Compose(Engine):
    """What compose can express: the daemon's remap stays, no new privileges, and volumes."""

    takes = frozenset({"volume"})

    def verdict(self, allocation: Allocation) -> Verdict:
        """The verdict on Docker, but compose cannot choose the map."""
        dockers = can_lay(allocation)
        return (
            nearly(f"the daemon has the map; its userns-remap has to be {allocation.owner}")
            if dockers.can
            else dockers
        )

    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """A service of the allocation's name.

        Volumes have the long syntax, because the short one is split at colons.
        """
        lines = [
            "services:",
            f"  {quoted(allocation.name)}:",
            '    # "" is the daemon\'s own map; compose can only take it away, with "host".',
            '    userns_mode: ""',
            "    security_opt:",
            "      - no-new-privileges:true",
        ]
        if context.mounts:
            lines.append("    volumes:")
        for mount in context.mounts:
            lines += _volume(mount)
        text = "\n".join(lines)
        daemons = context.layout.command(f"render docker {shell(allocation.name)}")
        return Rendered(
            text,
            (File("/compose.override.yaml", text + "\n"),),
            (f"{self.verdict(allocation).why}: {daemons}",),
        )


def _volume(mount: Mount) -> list[str]:
    # Compose replaces $NAME everywhere; $$ is a dollar.
    source, target = (quoted(path.replace("$", "$$")) for path in (mount.source, mount.destination))
    lines = ["      - type: bind", f"        source: {source}", f"        target: {target}"]
    return [*lines, "        read_only: true"] if mount.read_only else lines


ENGINES = {"compose": Compose()}
