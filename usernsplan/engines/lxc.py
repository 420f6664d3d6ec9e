"""LXC: lxc.idmap lines, and root's own lines in subuid and subgid. lxc.container.conf(5).

LXC asks newuidmap, also as root, and newuidmap asks for a line. ``lxc.idmap = b …`` is not taken: u and g apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from usernsplan.engines.base import (
    EXACTLY,
    File,
    RenderContext,
    Rendered,
    Verdict,
    no,
    plain,
    subid_files,
)
from usernsplan.model import DEFAULT_NAME, ROOT
from usernsplan.strategies import in_subid

if TYPE_CHECKING:
    from usernsplan.mapping import IdMap
    from usernsplan.model import Allocation, Mount


class Lxc:
    """Lines for a container's config."""

    reads_host: ClassVar[bool] = False
    takes: ClassVar[frozenset[str]] = frozenset({"volume"})
    idmap: ClassVar[Literal["yes"]] = "yes"

    def verdict(self, allocation: Allocation) -> Verdict:
        """Any map that lies in subuid, where newuidmap looks for it; one that has host root LXC writes itself."""
        if None in {allocation.mapping.uids.to_host(0), allocation.mapping.gids.to_host(0)}:
            return no("it starts containers as their root, and container id 0 is not mapped")
        if not maps_root(allocation) and not in_subid(allocation.strategy, allocation.mapping):
            return no("newuidmap grants only what is in subuid, and this one is not written there")
        return EXACTLY

    def render(self, allocation: Allocation, asked: RenderContext) -> Rendered:
        """The lines, container host count, to be put into the container's config or included by it."""
        lines = [*_idmap("u", allocation.mapping.uids), *_idmap("g", allocation.mapping.gids)]
        text = "\n".join([*lines, *map(_entry, asked.mounts)])
        path = f"/var/lib/lxc/{allocation.name}/usernsplan.conf"
        notes = [f"the container's config takes it in with: lxc.include = {path}"]
        notes += roots_lines(allocation)
        return Rendered(text, (File(path, text + "\n"), *roots_files(allocation)), tuple(notes))


def maps_root(allocation: Allocation) -> bool:
    """Tell whether host root is in the map: LXC then does without newuidmap, and so without lines."""
    return allocation.mapping.uids.to_container(0) is not None


def roots_lines(allocation: Allocation) -> tuple[str, ...]:
    """What makes newuidmap grant the map to root, where nothing did yet."""
    if ROOT in {allocation.owner, *allocation.extra_owners} or maps_root(allocation):
        return ()
    if allocation.name == DEFAULT_NAME:
        return (
            "newuidmap wants the lines to be root's too; this is Docker's: allocate one by name, with --engine lxc",
        )
    again = f"the words that allocated '{allocation.name}', with --engine lxc"
    return (f"newuidmap wants the lines to be root's too: {again}, grant them",)


def roots_files(allocation: Allocation) -> tuple[File, ...]:
    """Root's lines, where they were granted: others would stay when the allocation is released."""
    return (
        subid_files(allocation, ROOT)
        if ROOT in {allocation.owner, *allocation.extra_owners}
        else ()
    )


def _idmap(kind: str, ids: IdMap) -> list[str]:
    return [
        f"lxc.idmap = {kind} {container} {host} {count}" for container, host, count in ids.triples()
    ]


def _entry(mount: Mount) -> str:
    """A line as in fstab(5), whose target is without the leading slash."""
    # rbind: LXC cannot bind a folder alone in which something is mounted.
    create = "create=dir" if mount.is_folder else "create=file"
    options = [
        "rbind",
        create,
        *["ro"] * mount.read_only,
        *["idmap=container"] * (mount.owners == "idmap"),
    ]
    target = plain(mount.destination).lstrip("/")
    return f"lxc.mount.entry = {plain(mount.source)} {target} none {','.join(options)} 0 0"


ENGINES = {"lxc": Lxc()}
