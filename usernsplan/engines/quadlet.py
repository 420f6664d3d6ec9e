"""Quadlet: a .container file, from which Podman makes a service. podman-systemd.unit(5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines import hardened, podman
from usernsplan.engines.base import (
    EXACTLY,
    File,
    Hardening,
    RenderContext,
    Rendered,
    Verdict,
    login_of,
)

if TYPE_CHECKING:
    from usernsplan.harden.effective import Effective
    from usernsplan.model import Allocation


class Quadlet(podman.OfPodman):
    """The whole file if the image is given, else a drop-in for a file that names the image."""

    takes = frozenset({"volume", "U", "rootless", "image"})
    idmap = "yes"

    def verdict(self, allocation: Allocation) -> Verdict:
        """Any map, as for podman run."""
        del allocation
        return EXACTLY

    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """[Container] with its maps."""
        uids, gids = podman.maps(allocation, context)
        lines = ["[Container]"]
        if context.image:
            lines += [f"ContainerName={allocation.name}", f"Image={context.image}"]
        lines += [f"UIDMap={text}" for text in uids] + [f"GIDMap={text}" for text in gids]
        its = Hardening({}, ("NoNewPrivileges=true",))
        if context.policy:
            its = self.hardening(context.policy, allocation, context)
        lines += [
            *its.words,
            *(f"Volume={podman.volume(mount)}" for mount in context.mounts),
        ]
        text = "\n".join(lines)

        # The numbers of a rootless map are right for one account only.
        users = f"/users/{login_of(allocation, context).uid}" if context.rootless else ""
        unit = f"/etc/containers/systemd{users}/{allocation.name}.container"
        path = unit if context.image else f"{unit}.d/10-usernsplan.conf"

        reload = f"systemctl {'--user ' if context.rootless else ''}daemon-reload"
        found = [
            (
                f"this is {path}, for Podman {'4.8' if context.image else '5.0'} or newer; "
                f"then run: {reload}"
            )
        ]
        if not context.image:
            found.append(
                "without --image this is a drop-in; the .container file itself needs Image="
            )
        return Rendered(
            text,
            (File(path, text + "\n"), *its.files),
            (*found, *podman.notes(allocation, context), *its.notes),
        )

    def hardening(
        self, policy: Effective, allocation: Allocation, context: RenderContext
    ) -> Hardening:
        """Keys of [Container]. The filter is that of podman run."""
        filter_, others = hardened.filter_file(
            policy, allocation, context, unknown=podman.NO_FILTER
        )
        lines = ["DropCapability=all"]
        lines += [f"AddCapability={name}" for name in sorted(policy.capabilities)]
        lines += [] if policy.new_privileges else ["NoNewPrivileges=true"]
        for key, value in (
            ("SeccompProfile", filter_.path if filter_ else ""),
            ("SecurityLabelType", policy.selinux_type),
            ("SecurityLabelLevel", policy.selinux_level),
        ):
            lines += [f"{key}={value}"] if value else []
        return Hardening(
            hardened.verdicts(policy, others),
            tuple(lines),
            (filter_,) if filter_ else (),
            hardened.as_another_user(
                policy, "add User= to [Container], or USER to the image", ambient=True
            ),
        )


ENGINES = {"quadlet": Quadlet()}
