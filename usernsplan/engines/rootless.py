"""What an account needs to run containers itself: lines of its own, newuidmap, and a Podman that looks again.

subuid(5), rootlesskit and podman-system-migrate(1)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from usernsplan.engines.base import (
    EXACTLY,
    RenderContext,
    Rendered,
    Verdict,
    login_of,
    no,
    subid_files,
)
from usernsplan.escape import shell
from usernsplan.model import DEFAULT_OWNER, OWN_PREFIX, ROOT
from usernsplan.strategies import SLOT, in_subid

if TYPE_CHECKING:
    from usernsplan.model import Allocation


class Rootless:
    """Commands for the account's own shell: what there has to be, and what it then gets."""

    reads_host: ClassVar[bool] = True
    takes: ClassVar[frozenset[str]] = frozenset()
    idmap: ClassVar[Literal["no"]] = "no"

    def verdict(self, allocation: Allocation) -> Verdict:
        """What is in subuid, for an owner that is not one of ours."""
        if not in_subid(allocation.strategy, allocation.mapping):
            return no("newuidmap grants only what is in subuid, and this one is not written there")
        if allocation.owner in {ROOT, DEFAULT_OWNER, f"{OWN_PREFIX}{allocation.name}"}:
            return no(
                f"its lines are {allocation.owner}'s, and nobody logs in as that: allocate it with --owner LOGIN"
            )
        return EXACTLY

    def render(self, allocation: Allocation, asked: RenderContext) -> Rendered:
        """A script of checks: it stops at the first that fails, and shows the map that a container gets."""
        login = login_of(allocation, asked).name
        [subuid, subgid] = [file.content.split() for file in subid_files(allocation)]
        lines = [
            f"# As {login}, in a login shell of its own (not by su: that leaves XDG_RUNTIME_DIR unset).",
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
        flags = asked.layout.inline(f"render podman {shell(allocation.name)} --rootless")
        notes = [
            f"container root is {login} itself there; {flags} prints the flags for the map of '{allocation.name}'",
            "'podman system migrate' stops the account's running containers; without it Podman keeps to the old lines",
        ]
        if sum(extent.count for extent in allocation.mapping.uids) < SLOT:
            notes.append(f"images that own files by nobody (65534) want {SLOT} ids")
        return Rendered("\n".join(lines), subid_files(allocation), tuple(notes))


def _may(program: str, capability: str) -> tuple[str, ...]:
    """Checks that a program may write a map: distributions give it the setuid bit, or just the capability."""
    # Apart: a failure on the left of && would not stop the script.
    return f"f=$(command -v {program})", f'test -u "$f" || getcap "$f" | grep -q cap_{capability}'


ENGINES = {"rootless": Rootless()}
