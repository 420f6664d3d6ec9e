"""systemd-nspawn: --private-users=BASE:COUNT, and a .nspawn file.

systemd-nspawn(1), systemd.nspawn(5)
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
    nearly,
    no,
    only_extent,
    plain,
)
from usernsplan.harden.names import CAPABILITIES, kernel_names
from usernsplan.patterns import pattern
from usernsplan.strategies import SLOT

if TYPE_CHECKING:
    from usernsplan.harden.effective import Effective
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
        its, of_file = Hardening({}), ["NoNewPrivileges=yes"]
        if context.policy:
            its, of_file = (
                self.hardening(context.policy, allocation, context),
                _keys(context.policy),
            )
        flags += its.words
        lines = ["[Exec]", f"PrivateUsers={start}:{count}", *of_file]
        lines += ["", "[Files]", "PrivateUsersOwnership=map"]
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
        return Rendered(" ".join(flags), files, (*notes, *its.notes))

    def hardening(
        self, policy: Effective, allocation: Allocation, context: RenderContext
    ) -> Hardening:
        """Flags, which the file has as keys. The filter changes nspawn's own list."""
        del allocation
        flags = _flags(policy)
        notes = [*hardened.as_another_user(policy, "add --user=USER, or User= to [Exec]")]
        label, others = hardened.whole_label(policy), hardened.of_whole_label(policy)
        # nspawn does not start with a label where SELinux is off.
        if label and context.selinux != "off":
            flags.append(f"--selinux-context={label}")
            notes.append(f"a .nspawn file has no key for the label: --selinux-context={label}")
        notes += hardened.booted(policy)
        if any(name.startswith("net_") for name in policy.capabilities):
            notes.append(
                "capabilities count over no network but the container's own: add --private-network or "
                "--network-veth, or Private=yes to [Network]"
            )
        if "net_bind_service" in policy.capabilities:
            others["capabilities"] = nearly(
                "it takes net_bind_service away, unless --private-network or Private= gives the "
                "container a network of its own"
            )
        others |= hardened.lost(
            policy,
            lambda part: _filter(part)[1],
            cannot={"families", "architectures"},
        )
        return Hardening(hardened.verdicts(policy, others), tuple(flags), notes=tuple(notes))


def _keys(policy: Effective) -> list[str]:
    """The lines of [Exec]."""
    lists = zip(("Capability", "DropCapability"), _capabilities(policy), strict=True)
    lines = [f"{key}={' '.join(words)}" for key, words in lists if words]
    lines += [] if policy.new_privileges else ["NoNewPrivileges=yes"]
    return lines + _filter(policy)[0]


def _flags(policy: Effective) -> list[str]:
    """The same as flags without a space, which a shell would part."""
    lists = zip(("--capability", "--drop-capability"), _capabilities(policy), strict=True)
    flags = [f"{flag}={','.join(words)}" for flag, words in lists if words]
    flags += [] if policy.new_privileges else ["--no-new-privileges=yes"]
    for line in _filter(policy)[0]:
        _, _, value = line.partition("=")
        sign = "~" if value.startswith("~") else ""
        flags += [f"--system-call-filter={sign}{name}" for name in value.removeprefix("~").split()]
    return flags


def _filter(policy: Effective) -> tuple[list[str], tuple[str, ...]]:
    from usernsplan.harden import seccomp  # noqa: PLC0415 - many hosts have no policy

    return seccomp.nspawn(policy)


def _capabilities(policy: Effective) -> tuple[list[str], list[str]]:
    """Those to give and those to drop. What is dropped counts, also of those that nspawn gives."""
    kept = [name for name in CAPABILITIES if name in policy.capabilities]
    others = [name for name in CAPABILITIES if name not in policy.capabilities]
    return kernel_names(kept), kernel_names(others) if kept else ["all"]


def _bind(mount: Mount) -> str:
    return f"{plain(mount.source)}:{plain(mount.destination)}" + (
        ":idmap" if mount.owners == "idmap" else ""
    )


ENGINES = {"nspawn": Nspawn()}
