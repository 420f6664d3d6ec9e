"""How engines enforce a policy: what several of them share. Pure.

A policy has parts; an engine has a verdict for each, and words of its own. What it cannot enforce is
said, never left out in silence.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from usernsplan.engines.base import EXACTLY, PARTS, File, Hardening, Verdict, no

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.engines.base import RenderContext
    from usernsplan.harden.effective import Effective
    from usernsplan.model import Allocation

_FILTERS = "/etc/usernsplan/seccomp"


def asked(policy: Effective) -> tuple[str, ...]:
    """The PARTS about which a policy says anything."""
    said = {
        "capabilities": True,
        "no_new_privs": not policy.new_privileges,
        "system calls": bool(policy.deny or policy.deny_all or policy.allow),
        "families": bool(policy.families),
        "architectures": policy.native,
        "label": bool(policy.selinux_type or policy.selinux_level),
    }
    return tuple(part for part in PARTS if said[part])


def verdicts(policy: Effective, others: dict[str, Verdict]) -> dict[str, Verdict]:
    """A verdict for each part that is asked for: "exactly", but for these ``others``."""
    return {part: others.get(part, EXACTLY) for part in asked(policy)}


def notes(engine: str, hardening: Hardening) -> Iterator[str]:
    """What an engine does not enforce, or not exactly."""
    for part, verdict in hardening.verdicts.items():
        if verdict.fit == "no":
            yield f"{part}: {engine} does not enforce this part of the policy: {verdict.why}"
        elif verdict.fit == "approximately":
            yield f"{part}: {engine} enforces this part only nearly: {verdict.why}"


def filter_path(allocation: Allocation) -> str:
    """Where the filter of an allocation is, for engines that read a file."""
    return f"{_FILTERS}/{allocation.name}.json"


def filter_file(
    policy: Effective, allocation: Allocation, context: RenderContext, *, unknown: str
) -> tuple[File | None, dict[str, Verdict]]:
    """The filter that is laid over the engine's own, in the form of OCI; and what stands in its way.

    Without need for one, there is none. ``unknown`` is why the engine's own filter is unknown.
    """
    if not policy.filters:
        return None, {}
    if context.own_filter is None:
        return None, dict.fromkeys(("system calls", "families", "architectures"), no(unknown))
    from usernsplan.harden import seccomp  # noqa: PLC0415 - few render with a policy

    base = seccomp.base_of(
        context.own_filter,
        context.own_filter_place,
        capabilities=policy.capabilities,
        machine=context.machine,
    )
    content = json.dumps(seccomp.laid_over(policy, base), indent=2) + "\n"
    return File(filter_path(allocation), content), {}


def capability_flags(policy: Effective) -> list[str]:
    """--cap-drop and --cap-add, as Docker and Podman read them."""
    return ["--cap-drop=all", *(f"--cap-add={name}" for name in sorted(policy.capabilities))]


def security_opts(policy: Effective, filter_: File | None) -> list[str]:
    """The values of --security-opt, as Docker and Podman read them."""
    found = [] if policy.new_privileges else ["no-new-privileges"]
    if filter_:
        found.append(f"seccomp={filter_.path}")
    if policy.selinux_type:
        found.append(f"label=type:{policy.selinux_type}")
    if policy.selinux_level:
        found.append(f"label=level:{policy.selinux_level}")
    return found
