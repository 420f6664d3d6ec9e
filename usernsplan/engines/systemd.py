"""A systemd service: a drop-in. systemd.exec(5) has no key for a map, only for one user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines.base import (
    Engine,
    File,
    RenderContext,
    Rendered,
    Verdict,
    nearly,
    no,
    plain,
)
from usernsplan.escape import shell
from usernsplan.strategies import SingleUid

if TYPE_CHECKING:
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
        lines = [
            "[Service]",
            f"User={uid}",
            f"Group={gid}",
            "PrivateUsers=yes",
            "NoNewPrivileges=yes",
            "CapabilityBoundingSet=",
        ]
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
            ),
        )


ENGINES = {"systemd": Systemd()}
