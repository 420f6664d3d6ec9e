"""A systemd service: a drop-in. systemd.exec(5) has no key for a map, only for one user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines import hardened
from usernsplan.engines.base import (
    Engine,
    File,
    Hardening,
    RenderContext,
    Rendered,
    Verdict,
    nearly,
    no,
    plain,
)
from usernsplan.escape import shell
from usernsplan.harden.names import kernel_names
from usernsplan.strategies import SingleUid

if TYPE_CHECKING:
    from usernsplan.harden.effective import Effective
    from usernsplan.model import Allocation


class Systemd(Engine):
    """User= and Group= are the one host id, in a user namespace that maps only it and root."""

    takes = frozenset({"volume"})

    def verdict(self, allocation: Allocation) -> Verdict:
        """One id, which the service sees as the host does."""
        if allocation.strategy != SingleUid.name:
            return no("a service runs as one user; systemd has no key for a map")
        return nearly("the service runs as this host id and sees it, not container root")

    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """The drop-in. PrivateUsers=yes maps root and this user to themselves, others to nobody.

        systemd takes a number, but the service ends with 217/USER unless passwd has that uid.
        """
        uid, gid = allocation.mapping.uids[0].host, allocation.mapping.gids[0].host
        its = Hardening({}, ("NoNewPrivileges=yes", "CapabilityBoundingSet="))
        if context.policy:
            its = self.hardening(context.policy, allocation, context)
        lines = ["[Service]", f"User={uid}", f"Group={gid}", "PrivateUsers=yes", *its.words]
        lines += [
            f"Bind{'ReadOnly' if m.read_only else ''}Paths={plain(m.source)}:{plain(m.destination)}"
            for m in context.mounts
        ]
        text = "\n".join(lines)

        path = f"/etc/systemd/system/{allocation.name}.service.d/10-usernsplan.conf"
        group = shell(*context.layout.account_command(("groupadd", "--gid", f"{gid}", f"u{uid}")))
        nobody = (
            "useradd",
            "--uid",
            f"{uid}",
            "--gid",
            f"{gid}",
            "--no-create-home",
            "--shell",
            "/usr/sbin/nologin",
        )
        user = shell(*context.layout.account_command((*nobody, f"u{uid}")))
        return Rendered(
            text,
            (File(path, text + "\n"),),
            (
                f"this is {path}; then run: systemctl daemon-reload",
                f"the id has to belong to an account; to make one: {group} && {user}",
                *its.notes,
            ),
        )

    def hardening(
        self, policy: Effective, allocation: Allocation, context: RenderContext
    ) -> Hardening:
        """Keys of [Service]. Only ambient capabilities stay with a user that is not root."""
        from usernsplan.harden import seccomp  # noqa: PLC0415 - many hosts have no policy

        del allocation
        kept = " ".join(kernel_names(sorted(policy.capabilities)))
        lines = [
            *([] if policy.new_privileges else ["NoNewPrivileges=yes"]),
            # An empty list clears that of the unit itself, which systemd would join with this one.
            *(
                f"{key}={names}"
                for key in ("CapabilityBoundingSet", "AmbientCapabilities")
                for names in (["", kept] if kept else [""])
            ),
            *seccomp.systemd(policy)[0],
        ]
        notes = []
        if kept:
            notes.append(
                "with PrivateUsers=yes, capabilities count only over what the service's own user "
                "namespace owns, which the host's network and its mounts are not"
            )
        joined = [
            *["SystemCallFilter="] * policy.deny_all,
            *["RestrictAddressFamilies="] * bool(policy.families),
        ]
        if joined:
            notes.append(
                f"the unit itself must not have {' or '.join(joined)}: systemd joins what its list and "
                "this one let through"
            )
        if policy.new_privileges and policy.filters:
            notes.append(
                "systemd 252 and older set no_new_privs with a filter of system calls, for a user "
                "that is not root"
            )
        if label := hardened.whole_label(policy):
            lines.append(f"SELinuxContext={label}")

        others = hardened.of_whole_label(policy) | hardened.lost(
            policy, lambda part: seccomp.systemd(part)[1], names=hardened.unheard(context)
        )
        return Hardening(hardened.verdicts(policy, others), tuple(lines), notes=tuple(notes))


ENGINES = {"systemd": Systemd()}
