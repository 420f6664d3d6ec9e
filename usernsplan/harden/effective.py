"""What a container may do: a policy and its profile as one answer. Pure.

The profiles are files beside this one: YAML, a line for each thing, and its reason in a comment.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from usernsplan.harden import names
from usernsplan.harden.names import ALL, CAPABILITIES
from usernsplan.harden.policy import policy_of
from usernsplan.ids import IdRange, IdSet
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.harden.policy import Policy

_NONE = IdSet()


class Effective(NamedTuple):
    """What a policy and its profile give a container.

    ``capabilities`` are those that it keeps, of the ones that its engine would give it and of those
    asked for: no other is ever in one of its sets. ``deny`` are the system calls that are refused
    beyond those of the engine's own profile; with ``deny_all``, all but ``allow``. ``allow`` are
    those that are let through though the engine's own profile refuses them. ``families`` are the
    address families that socket(2) refuses. With ``native``, system calls of other architectures
    are refused. ``as_root``: the container may run as its own uid 0. "" for ``selinux_type`` and
    ``selinux_level`` is what the engine chooses.
    """

    profile: str
    capabilities: frozenset[str] = frozenset()
    new_privileges: bool = False
    deny: frozenset[str] = frozenset()
    deny_all: bool = False
    allow: frozenset[str] = frozenset()
    families: IdSet = _NONE
    native: bool = False
    as_root: bool = True
    selinux_type: str = ""
    selinux_level: str = ""

    @property
    def filters(self) -> bool:
        """Tell whether it needs a filter of its own, beyond that of the engine."""
        return bool(self.deny or self.deny_all or self.allow or self.families or self.native)


def effective(policy: Policy) -> Effective:
    """What a policy gives a container. What it allows by name its profile does not deny.

    A call that is denied is denied by its other names, too.
    """
    base = _profile(policy.profile)
    kept = base.capabilities - {*policy.cap_drop}
    if ALL in policy.cap_drop:
        kept = frozenset()
    added = {*(CAPABILITIES if ALL in policy.cap_add else policy.cap_add)}
    allowed = frozenset(policy.allow_syscalls)
    denied = (base.deny | {*policy.deny_syscalls} - {ALL}) - allowed
    denied = denied.union(*map(names.other_names, denied)) - allowed
    return Effective(
        policy.profile,
        kept | added,
        base.new_privileges or policy.new_privileges,
        denied,
        ALL in policy.deny_syscalls,
        allowed,
        (base.families | _families(policy.deny_families)) - _families(policy.allow_families),
        policy.arch == "native" or (base.native and policy.arch == ""),
        base.as_root,
        policy.selinux_type,
        policy.selinux_level,
    )


def _families(numbers: Iterable[int]) -> IdSet:
    return IdSet(IdRange(number, 1) for number in numbers)


@cache
def _profile(name: str) -> Effective:
    """The profile of this name, one of PROFILES."""
    # Most commands read no profile.
    from importlib.resources import files  # noqa: PLC0415

    import yaml  # noqa: PLC0415

    text = files("usernsplan.harden").joinpath(f"profiles/{name}.yaml").read_text("utf-8")
    said: dict[str, Any] = yaml.safe_load(text)
    # The words of a profile are checked as those that people type.
    checked = {
        "profile": name,
        "cap_add": said["capabilities"],
        "deny_syscalls": said["deny-syscalls"],
        "deny_families": said["deny-families"],
    }
    policy = policy_of(checked)
    return Effective(
        name,
        frozenset(policy.cap_add),
        not said["no-new-privileges"],
        frozenset(policy.deny_syscalls),
        families=_families(policy.deny_families) | _above(said.get("deny-families-above")),
        native=said["architectures"] == "native",
        as_root=said["as-root"],
    )


def _above(name: str | None) -> IdSet:
    """All address families after this one, also those that a newer kernel has."""
    if name is None:
        return _NONE
    first = names.family(name) + 1
    return IdSet([IdRange(first, names.MOST_FAMILIES - first)])
