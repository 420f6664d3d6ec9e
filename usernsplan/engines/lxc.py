"""LXC: lxc.idmap lines, and root's own lines in subuid and subgid. lxc.container.conf(5).

LXC calls newuidmap even as root, and newuidmap needs a line. LXC does not read
``lxc.idmap = b …``, so u and g have their own lines.
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
    allocate_again,
    is_login,
    no,
    plain,
    subid_files,
    ungranted,
)
from usernsplan.model import DEFAULT_NAME, ROOT

if TYPE_CHECKING:
    from usernsplan.mapping import IdMap
    from usernsplan.model import Allocation, Mount

# The first release that is sure to map the ids of a single mount: lxc.mount.entry with idmap=.
IDMAPS = "5.0"


class Lxc(Engine):
    """Lines for the config of a container."""

    takes = frozenset({"volume"})
    idmap = "yes"

    def verdict(self, allocation: Allocation) -> Verdict:
        """Any map that is in subuid for newuidmap, or has host root: LXC writes that one itself."""
        if None in {allocation.mapping.uids.to_host(0), allocation.mapping.gids.to_host(0)}:
            return no("it starts containers as container root, but container id 0 is not mapped")
        if not maps_root(allocation) and (why := ungranted(allocation)):
            return no(f"newuidmap grants only what is in subuid, but {why}")
        if allocation.within not in {"", ROOT} and not is_login(allocation.within):
            return no(
                f"newuidmap grants these ids to {allocation.within} alone, and nobody logs in as that"
            )
        return EXACTLY

    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """The lines (container, host, count), which the container's config has or includes."""
        lines = [*_idmap("u", allocation.mapping.uids), *_idmap("g", allocation.mapping.gids)]
        text = "\n".join([*lines, *map(_entry, context.mounts)])
        if allocation.within not in {"", ROOT}:
            return Rendered(text, (), (_of_login(allocation),))
        path = f"/var/lib/lxc/{allocation.name}/usernsplan.conf"
        notes = [f"include it in the container's config with: lxc.include = {path}"]
        notes += roots_lines(allocation, context)
        if any(mount.owners == "idmap" for mount in context.mounts):
            notes.append(f"idmap needs LXC {IDMAPS} or newer")
        return Rendered(text, (File(path, text + "\n"), *roots_files(allocation)), tuple(notes))


def _of_login(allocation: Allocation) -> str:
    """Who starts a container with a slice of an account's lines."""
    return (
        f"this is for the LXC of {allocation.within}, whose lines grant the ids; put it into "
        f"~{allocation.within}/.local/share/lxc/{allocation.name}/config, in place of its lxc.idmap"
    )


def maps_root(allocation: Allocation) -> bool:
    """Whether host root is in the map: then LXC needs neither newuidmap nor lines."""
    return allocation.mapping.uids.to_container(0) is not None


def roots_lines(
    allocation: Allocation, context: RenderContext, engine: str = "lxc"
) -> tuple[str, ...]:
    """How root gets the lines that newuidmap needs, if it does not have them yet."""
    if ROOT in {allocation.owner, *allocation.extra_owners} or maps_root(allocation):
        return ()
    if allocation.name == DEFAULT_NAME:
        named = context.layout.command(f"allocate NAME --engine {engine}")
        return (
            (
                "newuidmap needs these lines for root too, but they are Docker's; allocate others: "
                f"{named}"
            ),
        )
    again = allocate_again(allocation, context.layout, "--engine", engine)
    return (f"newuidmap needs these lines for root too; this grants them: {again}",)


def roots_files(allocation: Allocation) -> tuple[File, ...]:
    """Root's lines, if they were granted: release would leave any others behind."""
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
    """A line as in fstab(5), but the target has no leading slash."""
    # rbind: LXC cannot bind a folder without what is mounted in it.
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
