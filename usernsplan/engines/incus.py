"""Incus and LXD: security.idmap.* and raw.idmap, as YAML for ``incus init IMAGE NAME < FILE``.

https://linuxcontainers.org/incus/docs/main/userns-idmap/ Checked with LXD 5.0.2: an isolated
instance has exactly base and size, from container id 0, and raw.idmap adds extents to them;
newuidmap needs root's lines at each start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from usernsplan.engines.base import EXACTLY, Engine, RenderContext, Rendered, Verdict, no, quoted
from usernsplan.engines.lxc import maps_root, roots_files, roots_lines
from usernsplan.mapping import KINDS
from usernsplan.strategies import SLOT, in_subid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.mapping import Extent
    from usernsplan.model import Allocation, Mount

_SHIFT = (
    "idmap needs a daemon that detects idmapped mounts: LXD 5.0 does not on newer kernels, and "
    "then the instance does not start"
)


@dataclass(frozen=True, slots=True)
class Incus(Engine):
    """The part of an instance's configuration that sets its ids."""

    takes = frozenset({"volume"})
    # LXD 5.0 detects no idmapped mounts on newer kernels, and then the instance does not start.
    idmap = "asked"
    program: str

    def verdict(self, allocation: Allocation) -> Verdict:
        """Any map whose first extent, from container id 0, is the same for uids and gids."""
        first = _first(allocation)
        if first is None:
            return no("its first range starts at container id 0 and is the same for uids and gids")
        if not maps_root(allocation) and not in_subid(allocation.strategy, allocation.mapping):
            return no("newuidmap grants only what is in subuid, but this map is not written there")
        return EXACTLY

    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """The keys, all values as strings, as in the API.

        Without security.idmap.isolated, base and size would be ignored.
        """
        first = _first(allocation)
        lines = ["config:", '  security.idmap.isolated: "true"']
        if first:
            lines += [
                f'  security.idmap.base: "{first.host}"',
                f'  security.idmap.size: "{first.count}"',
            ]
        if raw := _raw(allocation):
            lines += ["  raw.idmap: |-", *(f"    {line}" for line in raw)]
        if context.mounts:
            lines.append("devices:")
        for number, mount in enumerate(context.mounts, 1):
            lines += _device(number, mount)

        return Rendered(
            "\n".join(lines),
            roots_files(allocation),
            (
                f"use it with: {self.program} init IMAGE NAME < FILE",
                *[_SHIFT] * any(mount.owners == "idmap" for mount in context.mounts),
                *roots_lines(allocation, context),
                (
                    f"root's first line has to be another one, of {SLOT} ids or more: other "
                    "instances get all of it"
                ),
            ),
        )


def _first(allocation: Allocation) -> Extent | None:
    """The extent at container id 0, if it is the same for uids and gids."""
    firsts = [
        next((e for e in allocation.mapping[kind] if e.container == 0), None) for kind in KINDS
    ]
    return firsts[0] if firsts[0] == firsts[1] else None


def _raw(allocation: Allocation) -> list[str]:
    """The other extents. raw.idmap has the host first, and ranges with both ends included."""
    uids, gids = allocation.mapping.uids, allocation.mapping.gids
    return _lines("both", uids) if uids == gids else [*_lines("uid", uids), *_lines("gid", gids)]


def _lines(kind: str, ids: Iterable[Extent]) -> list[str]:
    return [
        f"{kind} {extent.host_range} {extent.container_range}" for extent in ids if extent.container
    ]


def _device(number: int, mount: Mount) -> list[str]:
    return [
        f"  volume{number}:",
        "    type: disk",
        f"    source: {quoted(mount.source)}",
        f"    path: {quoted(mount.destination)}",
        *['    readonly: "true"'] * mount.read_only,
        *['    shift: "true"'] * (mount.owners == "idmap"),
    ]


ENGINES = {"incus": Incus("incus"), "lxd": Incus("lxc")}
