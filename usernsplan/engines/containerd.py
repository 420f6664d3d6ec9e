"""containerd: flags of ctr run.

From containerd 2.1 on, --uidmap and --gidmap can be repeated; before, only the last flag of a kind
counts (https://github.com/containerd/containerd/pull/10307 and 10722). The CRI plugin of containerd
has no key for maps: the kubelet chooses them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines import ENGINES as _ALL
from usernsplan.engines import hardened, verdict
from usernsplan.engines.base import (
    EXACTLY,
    TTY,
    Engine,
    Hardening,
    RenderContext,
    Rendered,
    Verdict,
    nearly,
    no,
    plain,
)
from usernsplan.errors import RefusedError
from usernsplan.escape import shell
from usernsplan.harden.names import kernel_names
from usernsplan.mapping import KINDS
from usernsplan.patterns import pattern

if TYPE_CHECKING:
    from usernsplan.harden.effective import Effective
    from usernsplan.model import Allocation

# The release whose ctr takes --uidmap and --gidmap more than once.
_NEEDED = (2, 1)
_REPEATS = ".".join(map(str, _NEEDED))
# What ctr run gives a container: containerd's oci/spec.go, defaultUnixCaps.
_CAPABILITIES = frozenset({
    "chown", "dac_override", "fsetid", "fowner", "mknod", "net_raw", "setgid", "setuid", "setfcap",
    "setpcap", "net_bind_service", "sys_chroot", "kill", "audit_write",
})  # fmt: skip
# What ctr --version says: "ctr github.com/containerd/containerd/v2 v2.1.4", "… 1.6.20~ds1".
_VERSION = pattern(r"(?<= )v?([0-9]+)\.([0-9]+)\S*")


class Containerd(Engine):
    """Flags for ctr run."""

    asks = "ctr"
    takes = frozenset({"volume"})

    def verdict(self, allocation: Allocation) -> Verdict:
        """A map with the group tty, for which ctr mounts /dev/pts. An older ctr takes one extent."""
        if allocation.mapping.gids.to_host(TTY) is None:
            return no(f"ctr mounts /dev/pts for gid {TTY}, which is not mapped")
        if _is_repeated(allocation):
            return nearly(
                f"ctr needs containerd {_REPEATS} or newer; an older one takes one extent"
            )
        return EXACTLY

    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """The flags on one line, to follow ``ctr run``. With --rootfs ctr would ignore the map."""
        flags = [
            f"--{kind}map {container}:{host}:{count}"
            for kind in KINDS
            for container, host, count in allocation.mapping[kind].triples()
        ]
        flags += [
            f"--mount type=bind,src={_plain(mount.source)},dst={_plain(mount.destination)},"
            f"options=rbind:{'ro' if mount.read_only else 'rw'}"
            for mount in context.mounts
        ]
        notes = (
            *_repeated(allocation, context),
            "run ctr with an image and --snapshotter native: with --rootfs it ignores the map",
            *_of_pods(allocation, context),
        )
        if context.policy is None:
            return Rendered(" ".join(flags), (), notes)
        its = self.hardening(context.policy, allocation, context)
        return Rendered(" ".join([*flags, *its.words]), its.files, (*notes, *its.notes))

    def hardening(
        self, policy: Effective, allocation: Allocation, context: RenderContext
    ) -> Hardening:
        """Flags of ctr run, which sets no_new_privs itself and knows no word for all capabilities."""
        filter_, others = hardened.filter_file(policy, allocation, context)
        others["label"] = no("ctr has no option for it")
        kept = policy.capabilities
        dropped, added = sorted(_CAPABILITIES - kept), sorted(kept - _CAPABILITIES)
        words = [f"--cap-drop {name}" for name in kernel_names(dropped)]
        words += [f"--cap-add {name}" for name in kernel_names(added)]
        words += ["--allow-new-privs"] if policy.new_privileges else []
        words += [f"--seccomp --seccomp-profile {filter_.path}"] if filter_ else []
        notes = hardened.as_another_user(
            policy, "add USER to the image; newer versions of ctr run also take --user UID:GID"
        )
        if filter_ and context.own_filter is None:
            notes += (
                "ctr has no filter of its own here, so all else is allowed; --base FILE has one",
            )
        return Hardening(
            hardened.verdicts(policy, others), tuple(words), (filter_,) if filter_ else (), notes
        )


def _is_repeated(allocation: Allocation) -> bool:
    return any(len(allocation.mapping[kind]) > 1 for kind in KINDS)


def _repeated(allocation: Allocation, context: RenderContext) -> tuple[str, ...]:
    """What repeated flags need. Raises RefusedError if the host's ctr is too old for them."""
    if not _is_repeated(allocation):
        return ()
    fact = f"repeated --uidmap and --gidmap need containerd {_REPEATS} or newer"
    found = _VERSION.search(context.version)
    if found and (int(found[1]), int(found[2])) < _NEEDED:
        others = [name for name in _ALL if name != "containerd" and verdict(name, allocation).can]
        raise RefusedError(
            f"containerd cannot express the allocation '{allocation.name}': ctr {found[0]} of this "
            f"host takes only one extent for uids and one for gids; {fact}",
            hint=f"{', '.join(others)} can",
        )
    return (f"{fact}; of an older ctr only the last flag of each kind counts",)


def _of_pods(allocation: Allocation, context: RenderContext) -> tuple[str, ...]:
    fact = "containerd's CRI plugin has no key for maps; the kubelet chooses the maps of pods"
    if not verdict("kubernetes", allocation).can:
        return (fact,)
    return (f"{fact}: " + context.layout.command(f"render kubernetes {shell(allocation.name)}"),)


def _plain(path: str) -> str:
    # Versions of ctr read a second '=' differently.
    if "=" in path:
        raise RefusedError(
            f"{path!r} has a '=', which means something else to ctr",
            hint="use a path without '='; a bind mount can give the folder one",
        )
    return plain(path)


ENGINES = {"containerd": Containerd()}
