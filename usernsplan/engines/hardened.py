"""How engines enforce a policy: what several of them share. Pure.

A policy has parts; an engine has a verdict for each, and words of its own. What it cannot enforce is
said, never left out in silence.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from usernsplan.engines.base import (
    EXACTLY,
    PARTS,
    File,
    Hardening,
    Verdict,
    nearly,
    no,
)
from usernsplan.ids import IdSet

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from usernsplan.engines.base import RenderContext
    from usernsplan.harden.effective import Effective
    from usernsplan.harden.seccomp import Base
    from usernsplan.model import Allocation

_FILTERS = "/etc/usernsplan/seccomp"
# The parts that need a filter of system calls.
_FILTERED = ("system calls", "families", "architectures")
# What engines that want a whole label of SELinux are given for a part that no policy names.
_USER, _TYPE, _LEVEL = "system_u:system_r", "container_t", "s0"
# capabilities(7): execve(2) of a user that is not root keeps ambient capabilities only.
NO_AMBIENT = (
    "a user that is not root has the policy's capabilities in its bounding set alone, where its "
    "program cannot use them"
)
PROCESS_LABEL = f"{_USER}:{_TYPE}:{_LEVEL}"
# What systemd 252 and what it starts use in a container. Without sys_admin, which mounts, it ends at
# once. The others make services another user's, end those, and give them a sandbox; net_admin sets up
# a network of the container's own, and its loopback.
_OF_A_SYSTEM = frozenset(
    {
        "dac_override",
        "kill",
        "net_admin",
        "setgid",
        "setpcap",
        "setuid",
        "sys_admin",
        "sys_chroot",
    }
)


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


def nothing(policy: Effective, why: str) -> Hardening:
    """What an engine does that enforces no part of a policy, for this reason."""
    return Hardening(dict.fromkeys(asked(policy), no(why)))


def notes(engine: str, verdicts: dict[str, Verdict]) -> Iterator[str]:
    """What an engine does not enforce, or not exactly; parts with the same reason in one note."""
    alike: dict[Verdict, list[str]] = {}
    for part, verdict in verdicts.items():
        alike.setdefault(verdict, []).append(part)

    for verdict, parts in alike.items():
        these = "this part" if len(parts) == 1 else "these parts"
        if verdict.fit == "no":
            yield (
                f"{', '.join(parts)}: {engine} does not enforce {these} of the policy: "
                f"{verdict.why}"
            )
        elif verdict.fit == "approximately":
            yield f"{', '.join(parts)}: {engine} enforces {these} only nearly: {verdict.why}"


def filter_path(allocation: Allocation, form: str = "json") -> str:
    """Where the filter of an allocation is, for engines that read a file of this form."""
    return f"{_FILTERS}/{allocation.name}.{form}"


def is_filter(path: str) -> bool:
    """Tell whether a file is the filter of an allocation."""
    return path.startswith(f"{_FILTERS}/")


def filter_file(
    policy: Effective, allocation: Allocation, context: RenderContext, *, unknown: str = ""
) -> tuple[File | None, dict[str, Verdict]]:
    """The filter that is laid over the engine's own, in the form of OCI; and what stands in its way.

    Without need for one, there is none. ``unknown`` is why the engine's own filter is unknown; ""
    if it has none.
    """
    if not policy.filters:
        return None, {}
    # Who refuses every call that is not named does not weaken a filter that is unknown.
    if context.own_filter is None and unknown and not policy.deny_all:
        return None, dict.fromkeys(_FILTERED, no(unknown))

    from usernsplan.harden import seccomp  # noqa: PLC0415 - many hosts have no policy

    base = seccomp.NO_FILTER
    if context.own_filter is not None:
        base = base_of(policy, context.own_filter, context.own_filter_place, context)
    filter_, others = laid_over(policy, base, context)
    return File(filter_path(allocation), json.dumps(filter_, indent=2) + "\n"), others


def base_of(policy: Effective, raw: bytes, place: str, context: RenderContext) -> Base:
    """The profile that an engine has for a container with this policy. Raises InvalidFileError."""
    from usernsplan.harden import seccomp  # noqa: PLC0415 - many hosts have no policy

    return seccomp.base_of(
        raw,
        place,
        capabilities=policy.capabilities,
        machine=context.machine,
        kernel=context.kernel,
    )


def laid_over(
    policy: Effective, base: Base, context: RenderContext
) -> tuple[dict[str, Any], dict[str, Verdict]]:
    """The filter over a base, in the form of OCI; and the verdicts on what it says at a price."""
    from usernsplan.harden import seccomp  # noqa: PLC0415 - many hosts have no policy

    found = seccomp.laid_over(policy, base, machine=context.machine)
    lost = {
        part: seccomp.lost_over(asked, base, machine=context.machine)
        for part, asked in (
            ("system calls", policy._replace(families=IdSet())),
            ("families", policy._replace(deny=frozenset())),
        )
    }
    # A list of what is allowed refuses a call by not naming it.
    if seccomp.passes(base) and not policy.deny_all:
        lost["system calls"] += unheard(context)
    return found, {part: nearly("; ".join(whys)) for part, whys in lost.items() if whys}


def unheard(context: RenderContext) -> tuple[str, ...]:
    """What is lost of a list of calls that are refused, where an engine's library lacks names."""
    if not context.unheard:
        return ()
    calls = ", ".join(sorted(context.unheard))
    return (f"nothing refuses {calls}: the libseccomp of this host does not know the name",)


def capability_flags(policy: Effective) -> tuple[str, ...]:
    """--cap-drop and --cap-add, as Docker and Podman read them."""
    return ("--cap-drop=all", *(f"--cap-add={name}" for name in sorted(policy.capabilities)))


def filter_and_label(policy: Effective, filter_: File | None) -> list[str]:
    """Values of --security-opt, as Docker and Podman read them."""
    found = []
    if filter_:
        found.append(f"seccomp={filter_.path}")
    if policy.selinux_type:
        found.append(f"label=type:{policy.selinux_type}")
    if policy.selinux_level:
        found.append(f"label=level:{policy.selinux_level}")
    return found


def as_flags(opts: Iterable[str]) -> tuple[str, ...]:
    """Each as --security-opt."""
    return tuple(f"--security-opt {opt}" for opt in opts)


def as_another_user(
    policy: Effective,
    how: str = "add --user UID:GID, or USER to the image",
    *,
    ambient: bool = False,
) -> tuple[str, ...]:
    """Notes for a policy whose container may not run as its root; ``how`` says what gives a user.

    With ``ambient``, the engine hands the capabilities on to such a user.
    """
    if policy.as_root:
        return ()
    found = f"the profile {policy.profile} does not let the container run as its root: {how}"
    if ambient or not policy.capabilities:
        return (found,)
    return found, NO_AMBIENT


def booted(policy: Effective) -> tuple[str, ...]:
    """A note for a container in which a whole system boots, if the policy takes away what it needs."""
    if policy.capabilities >= _OF_A_SYSTEM:
        return ()
    why = (
        "a container that boots a whole system needs sys_admin for it, and the other capabilities for "
        "its network and its usual services"
    )
    remedy = f"start its program alone, or give it --cap-add {','.join(sorted(_OF_A_SYSTEM))}"
    return (f"{why}: {remedy}",)


def unfiltered(why: str) -> dict[str, Verdict]:
    """The verdicts on the parts that need a filter, where there can be none for this reason."""
    return dict.fromkeys(_FILTERED, no(why))


def lost(
    policy: Effective,
    said: Callable[[Effective], Collection[str]],
    cannot: Collection[str] = (),
    names: Collection[str] = (),
) -> dict[str, Verdict]:
    """The verdicts on a filter of which something is lost, by part.

    ``said`` tells what an engine's form loses of a policy. Of one part that is what it loses of a
    policy that asks for nothing else. Parts that ``cannot`` be had are lost as a whole. ``names``
    is what ``unheard`` says, for an engine that refuses only what it names.
    """
    native = policy._replace(deny=frozenset(), deny_all=False, allow=frozenset(), families=IdSet())
    alone = {
        "system calls": policy._replace(native=False, families=IdSet()),
        # Whether other architectures are refused changes what is lost of families.
        "families": native._replace(families=policy.families),
        "architectures": native,
    }
    found = {}
    for part in _FILTERED:
        others = said(native) if part == "families" else ()
        whys = [why for why in said(alone[part]) if why not in others]
        whys += names if part == "system calls" and not policy.deny_all else ()
        if whys:
            found[part] = (no if part in cannot else nearly)("; ".join(whys))
    return found


def whole_label(policy: Effective) -> str:
    """The label of SELinux, for engines that want all of it; "" if the policy has none."""
    if not (policy.selinux_type or policy.selinux_level):
        return ""
    return f"{_USER}:{policy.selinux_type or _TYPE}:{policy.selinux_level or _LEVEL}"


def of_whole_label(policy: Effective) -> dict[str, Verdict]:
    """The verdict on a label, where a part that the policy does not name is filled in."""
    if policy.selinux_type and policy.selinux_level:
        return {}
    chosen = f"type {_TYPE}" if policy.selinux_level else f"level {_LEVEL}, which many have"
    why = f"it wants a whole label, and the policy has only a part of it: the rest is the {chosen}"
    return {"label": nearly(why)}
