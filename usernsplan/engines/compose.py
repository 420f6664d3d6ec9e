"""Compose, for Docker: a fragment of compose.yaml. It cannot have a map; the daemon has it.

https://docs.docker.com/reference/compose-file/services/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines import hardened
from usernsplan.engines.base import (
    File,
    Hardening,
    RenderContext,
    Rendered,
    Verdict,
    nearly,
    quoted,
)
from usernsplan.engines.docker import NO_FILTER, SELINUX, OfDaemon, can_lay
from usernsplan.escape import shell

if TYPE_CHECKING:
    from usernsplan.harden.effective import Effective
    from usernsplan.model import Allocation, Mount


class Compose(OfDaemon):
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
        its = Hardening({}, ("    security_opt:", "      - no-new-privileges:true"))
        if context.policy:
            its = self.hardening(context.policy, allocation, context)
        lines = [
            "services:",
            f"  {quoted(allocation.name)}:",
            '    # "" is the daemon\'s own map; compose can only take it away, with "host".',
            '    userns_mode: ""',
            *its.words,
        ]
        if context.mounts:
            lines.append("    volumes:")
        for mount in context.mounts:
            lines += _volume(mount)
        text = "\n".join(lines)
        daemons = context.layout.command(f"render docker {shell(allocation.name)}")
        return Rendered(
            text,
            (File("/compose.override.yaml", text + "\n"), *its.files),
            (f"{self.verdict(allocation).why}: {daemons}", *its.notes),
        )

    def hardening(
        self, policy: Effective, allocation: Allocation, context: RenderContext
    ) -> Hardening:
        """Keys of the service, which are options of docker run."""
        filter_, others = hardened.filter_file(policy, allocation, context, unknown=NO_FILTER)
        others["label"] = nearly(f'the daemon labels nothing without "{SELINUX}": true')
        lists = {
            "cap_drop": ["ALL"],
            "cap_add": [name.upper() for name in sorted(policy.capabilities)],
            "security_opt": [
                # Without it, the daemon's own value would count.
                f"no-new-privileges:{'false' if policy.new_privileges else 'true'}",
                *hardened.filter_and_label(policy, filter_),
            ],
        }
        return Hardening(
            hardened.verdicts(policy, others),
            tuple(
                line
                for key, words in lists.items()
                if words
                for line in (f"    {key}:", *(f"      - {word}" for word in words))
            ),
            (filter_,) if filter_ else (),
            hardened.as_another_user(policy, "add user: to the service, or USER to the image"),
        )


def _volume(mount: Mount) -> list[str]:
    # Compose replaces $NAME everywhere; $$ is a dollar.
    source, target = (quoted(path.replace("$", "$$")) for path in (mount.source, mount.destination))
    lines = ["      - type: bind", f"        source: {source}", f"        target: {target}"]
    return [*lines, "        read_only: true"] if mount.read_only else lines


ENGINES = {"compose": Compose()}
