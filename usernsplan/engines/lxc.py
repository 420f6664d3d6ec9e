"""LXC: lxc.idmap lines, and root's own lines in subuid and subgid. lxc.container.conf(5).

LXC calls newuidmap even as root, and newuidmap needs a line. LXC does not read
``lxc.idmap = b …``, so u and g have their own lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines import hardened
from usernsplan.engines.base import (
    EXACTLY,
    Engine,
    File,
    Hardening,
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
from usernsplan.values import replace

if TYPE_CHECKING:
    from usernsplan.harden.effective import Effective
    from usernsplan.mapping import IdMap
    from usernsplan.model import Allocation, Mount

# The first release that is sure to map the ids of a single mount: lxc.mount.entry with idmap=.
IDMAPS = "5.0"
_COMMON = "/usr/share/lxc/config/common.seccomp"


class Lxc(Engine):
    """Lines for the config of a container."""

    takes = frozenset({"volume"})
    idmap = "yes"
    own_filters = (_COMMON,)

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
        lines += map(_entry, context.mounts)
        its = Hardening({})
        if context.policy:
            its = self.hardening(context.policy, allocation, context)
        text = "\n".join([*lines, *its.words])
        if allocation.within not in {"", ROOT}:
            return Rendered(text, its.files, (_of_login(allocation), *its.notes))
        path = f"/var/lib/lxc/{allocation.name}/usernsplan.conf"
        notes = [f"include it in the container's config with: lxc.include = {path}"]
        notes += roots_lines(allocation, context)
        if any(mount.owners == "idmap" for mount in context.mounts):
            notes.append(f"idmap needs LXC {IDMAPS} or newer")
        files = (File(path, text + "\n"), *its.files, *roots_files(allocation))
        return Rendered(text, files, (*notes, *its.notes))

    def hardening(
        self, policy: Effective, allocation: Allocation, context: RenderContext
    ) -> Hardening:
        """Lines of the config. The filter is a file, laid over LXC's own."""
        unknown = f"LXC's own profile was not found, {_COMMON}; --base FILE gives it"
        found = hardening(policy, allocation, context, unknown=unknown)
        last = (
            "these lines have to come after each lxc.include of the container's config: userns.conf, "
            "which templates include, gives all capabilities back"
        )
        return replace(found, notes=(last, *found.notes))


def hardening(
    policy: Effective,
    allocation: Allocation,
    context: RenderContext,
    *,
    unknown: str,
    user: str = "set lxc.init.uid and lxc.init.gid",
) -> Hardening:
    """What LXC is told to enforce, also by Proxmox VE. ``unknown`` is why it has no filter of its own.

    ``user`` says what gives the container another user than root.

    LXC refuses a list of capabilities to keep beside one of those to drop; an empty line clears a
    list.
    """
    from usernsplan.harden import seccomp  # noqa: PLC0415 - many hosts have no policy

    lines = ["lxc.cap.drop =", "lxc.cap.keep ="]
    lines.append(f"lxc.cap.keep = {' '.join(sorted(policy.capabilities)) or 'none'}")
    if not policy.new_privileges:
        lines.append("lxc.no_new_privs = 1")

    files = []
    others = hardened.of_whole_label(policy)
    own = context.own_filter
    if own is None and policy.deny_all:
        # Who refuses every call that is not named does not weaken a filter that is unknown.
        own = b"2\ndenylist\n"
    if policy.filters and own is None:
        others |= hardened.unfiltered(unknown)
    elif policy.filters and own is not None:
        # A name that is not ASCII is no system call, and LXC ignores it.
        base, place = own.decode("ascii", "replace"), context.own_filter_place
        text, _ = seccomp.lxc(policy, base, place=place)
        others |= hardened.lost(
            policy,
            lambda part: seccomp.lxc(part, base, place=place)[1],
            cannot={"architectures"},
            names=hardened.unheard(context),
        )
        files.append(File(hardened.filter_path(allocation, "lxc"), text))
        lines.append(f"lxc.seccomp.profile = {files[0].path}")
    if label := hardened.whole_label(policy):
        lines.append(f"lxc.selinux.context = {label}")

    notes = (*hardened.as_another_user(policy, user), *hardened.booted(policy))
    return Hardening(hardened.verdicts(policy, others), tuple(lines), tuple(files), notes)


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
