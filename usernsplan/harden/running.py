"""What a running process has beyond its policy, from /proc/PID/status. Pure.

Which system calls a filter refuses cannot be seen there: only whether there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.formats.proc_status import Status
    from usernsplan.harden.effective import Effective


class Beyond(NamedTuple):
    """One thing that a process has and its policy takes away; ``code`` never changes."""

    code: str
    text: str
    capabilities: tuple[str, ...] = ()


def beyond(status: Status, policy: Effective, root: int | None) -> Iterator[Beyond]:
    """What a process has beyond its policy; ``root`` is the host id of its container's root."""
    if not policy.as_root and root in status.uids.all():
        yield Beyond("policy-root", "it runs as the container's root")
    have = status.capabilities
    sets = {
        "bounding": have.bounding,
        "permitted": have.permitted,
        "inheritable": have.inheritable,
        "ambient": have.ambient,
    }
    for name, its in sets.items():
        if more := tuple(one for one in its if one not in policy.capabilities):
            yield Beyond("policy-capabilities", f"its {name} set has {_few(more)}", more)
    if not (policy.new_privileges or status.no_new_privs):
        yield Beyond("policy-new-privileges", "no_new_privs is not set")
    if policy.filters and status.seccomp == 0:
        yield Beyond("policy-seccomp", "no filter limits its system calls")


def _few(names: tuple[str, ...], shown: int = 6) -> str:
    more = f" and {len(names) - shown} more" if names[shown:] else ""
    return ", ".join(names[:shown]) + more
