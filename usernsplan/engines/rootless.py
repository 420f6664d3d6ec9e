"""What an account needs to run containers: its own lines, newuidmap, and a Podman that reads them.

subuid(5), rootlesskit and podman-system-migrate(1)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines import hardened
from usernsplan.engines.base import (
    EXACTLY,
    Engine,
    Hardening,
    RenderContext,
    Rendered,
    Verdict,
    is_login,
    login_of,
    no,
    subid_files,
    ungranted,
)
from usernsplan.escape import shell
from usernsplan.formats.subid import Grant
from usernsplan.holdings import own_ids
from usernsplan.mapping import KINDS
from usernsplan.model import DEFAULT_OWNER, OWN_PREFIX, ROOT
from usernsplan.strategies import SLOT

if TYPE_CHECKING:
    from usernsplan.harden.effective import Effective
    from usernsplan.mapping import Kind
    from usernsplan.model import Allocation


class Rootless(Engine):
    """Commands for the account's shell that check what it needs and show the map that it gets."""

    reads_host = True

    def verdict(self, allocation: Allocation) -> Verdict:
        """A map in subuid, whose owner is not one that usernsplan made."""
        if why := ungranted(allocation):
            return no(f"newuidmap grants only what is in subuid, but {why}")
        is_nobodys = allocation.owner in {ROOT, DEFAULT_OWNER, f"{OWN_PREFIX}{allocation.name}"}
        if is_nobodys or (allocation.within and not is_login(allocation.within)):
            return no(
                f"its lines belong to {allocation.owner}, which nobody logs in as; allocate with "
                f"{'--within' if allocation.within else '--owner'} LOGIN"
            )
        return EXACTLY

    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """A script of checks. It stops at the first that fails, and shows the container's map."""
        login = login_of(allocation, context).name
        [subuid, subgid] = (
            [_around(allocation, kind, context) for kind in KINDS]
            if allocation.within
            else [file.content.split() for file in subid_files(allocation)]
        )
        lines = [
            f"# Run this as {login}, in a login shell (su does not set XDG_RUNTIME_DIR).",
            "set -e",
        ]
        lines += [f"grep -qxF {shell(line)} /etc/subuid" for line in subuid]
        lines += [f"grep -qxF {shell(line)} /etc/subgid" for line in subgid]
        lines += [
            *_may("newuidmap", "setuid"),
            *_may("newgidmap", "setgid"),
            "most=$(cat /proc/sys/user/max_user_namespaces)",
            'test "$most" -gt 0',
            "podman system migrate",
            "podman unshare cat /proc/self/uid_map",
        ]

        flags = context.layout.inline(f"render podman {shell(allocation.name)} --rootless")
        notes = [
            (
                f"container root is {login} in this map; {flags} prints the flags for the map of "
                f"'{allocation.name}'"
            ),
            (
                "'podman system migrate' stops the account's running containers; without it Podman "
                "keeps the old lines"
            ),
        ]
        if sum(extent.count for extent in allocation.mapping.uids) < SLOT:
            notes.append(f"images with files of nobody (65534) need {SLOT} ids")
        return Rendered("\n".join(lines), subid_files(allocation), tuple(notes))

    def hardening(
        self, policy: Effective, allocation: Allocation, context: RenderContext
    ) -> Hardening:
        """These are checks. The flags of the account's Podman enforce a policy."""
        flags = context.layout.inline(f"render podman {shell(allocation.name)} --rootless")
        return hardened.nothing(policy, f"it only checks; the flags of {flags} do")


def _around(allocation: Allocation, kind: Kind, context: RenderContext) -> list[str]:
    """The lines of an account that grant the ids of a slice, as they stand."""
    if context.state is None:
        return []
    user = login_of(allocation, context)
    ids = own_ids(allocation, kind)
    return [
        line.raw.decode().rstrip("\n")
        for line in context.state.subid(kind).lines
        if isinstance(line, Grant)
        and line.owner in user.owner_names
        and ids.meets(line.start, line.stop)
    ]


def _may(program: str, capability: str) -> tuple[str, ...]:
    """Checks that a program may write a map: it has the setuid bit, or only the capability."""
    # Two commands: a failure on the left of && would not stop the script.
    return f"f=$(command -v {program})", f'test -u "$f" || getcap "$f" | grep -q cap_{capability}'


ENGINES = {"rootless": Rootless()}
