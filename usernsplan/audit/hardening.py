"""Rules about what running containers may do, and about their policies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from usernsplan.audit.base import Facts, Seen, rule
from usernsplan.engines.hardened import filter_path
from usernsplan.errors import UsernsplanError
from usernsplan.escape import shell
from usernsplan.formats import daemon_json
from usernsplan.harden import seccomp
from usernsplan.harden.bases import PASSING
from usernsplan.harden.effective import effective
from usernsplan.harden.names import CAPABILITIES
from usernsplan.harden.running import beyond
from usernsplan.holdings import runs_as
from usernsplan.layout import DAEMON_JSON

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.formats.proc_status import Status
    from usernsplan.harden.bases import Base
    from usernsplan.harden.effective import Effective
    from usernsplan.model import Allocation, Namespace

# Newer kernels may have more capabilities, older ones fewer; a container that was given some has few.
_NEARLY_ALL = 38


@rule("USN183", "info")
def runs_with_every_power(facts: Facts) -> Iterator[Seen]:
    """A container runs with every capability in reach, and nothing that keeps it from them.

    The bounding set of its first process has every capability, and no_new_privs is not set: a
    setuid program in the container gives them to any process that runs it. In a user namespace
    they count only over what the namespace has, but they open much code of the kernel.

        grep -E 'CapBnd|NoNewPrivs' /proc/4711/status

    Give it a policy: 'usernsplan harden NAME --profile seed', render it again for its engine, and
    start it again.
    """
    for namespace, allocation, status in _running(facts):
        have = status.capabilities.bounding
        if status.no_new_privs or len(have) < min(_NEARLY_ALL, len(CAPABILITIES)):
            continue
        if allocation.policy is None:
            harden = facts.state.layout.inline(f"harden {shell(allocation.name)} --profile seed")
            yield Seen(
                "",
                f"'{allocation.name}' runs (process {namespace.pids[0]}) with a full bounding set and "
                "without no_new_privs",
                f"{harden}, render it again, and start it again",
            )


@rule("USN184", "warning")
def runs_beyond_its_policy(facts: Facts) -> Iterator[Seen]:
    """A container runs with more than its policy gives it.

    The policy is in the ledger, but the process was started without it: before the policy, by hand,
    or with a rendering that leaves it out.

        usernsplan harden web --profile seed
        podman start web        it was created before

    Render it again for its engine and start it again. 'usernsplan inspect PID' shows all of the
    difference.
    """
    for namespace, allocation, status in _running(facts):
        if allocation.policy is None:
            continue
        root = allocation.mapping.uids.to_host(0)
        found = [one.text for one in beyond(status, effective(allocation.policy), root)]
        if found:
            pid = namespace.pids[0]
            inspect = facts.state.layout.inline(f"inspect {pid}")
            yield Seen(
                "",
                f"'{allocation.name}' runs (process {pid}) with more than its policy gives it: "
                f"{'; '.join(found)}",
                f"{inspect} shows it; render it again for its engine, and start it again",
            )


@rule("USN185", "info")
def docker_lets_privileges_rise(facts: Facts) -> Iterator[Seen]:
    """Docker's containers may raise their privileges: daemon.json has no no-new-privileges.

    Docker gives a container no_new_privs only if the container or the daemon asks for it. Without,
    a setuid program in a container raises the privileges of any process that runs it.

        {"userns-remap": "dockremap"}

    Add "no-new-privileges": true, and restart Docker: 'usernsplan render docker' prints such a file.
    Containers that exist keep what they were made with.
    """
    config = facts.daemon
    if config is not None and config.get(daemon_json.REMAP) is not None:
        if config.get(daemon_json.NO_NEW_PRIVILEGES) == str(True):
            return
        yield Seen(
            facts.place(DAEMON_JSON),
            'it has "userns-remap", but not "no-new-privileges": true',
            'add "no-new-privileges": true, and restart Docker',
        )


@rule("USN186", "warning")
def two_have_one_level(facts: Facts) -> Iterator[Seen]:
    """Two containers have one SELinux level.

    SELinux keeps containers apart by the pair of categories in their level: with one level, each may
    read and change what the other has, as far as its ids let it.

        usernsplan harden web --profile seed --selinux-level s0:c1,c2
        usernsplan harden db --profile seed --selinux-level s0:c1,c2

    Give one of them another pair, unless they are to share files.
    """
    levels: dict[str, list[str]] = {}
    for a in facts.state.ledger.allocations:
        if a.policy and a.policy.selinux_level:
            levels.setdefault(a.policy.selinux_level, []).append(a.name)
    for level, names in levels.items():
        if names[1:]:
            yield Seen(
                "",
                f"{', '.join(names)} have one SELinux level, {level}",
                "give each a pair of categories of its own, unless they are to share files",
            )


@rule("USN187", "warning")
def filter_lets_more_through(facts: Facts) -> Iterator[Seen]:
    """A filter of system calls on this host is not that of the policy.

    render wrote it for a container, and an engine reads it when the container starts. It lets
    something through that the policy refuses now, or refuses what the policy allows by name: the
    policy was changed after that, or somebody changed the file.

        usernsplan render podman web --out /
        usernsplan harden web --profile seed --deny-syscall getcwd

    Render it again for its engine, with --replace-files, and start the container again.

    What a filter refuses beyond the policy is not found: the profile of the engine, over which it
    is laid, refuses much itself, and the file does not say which that was. 'usernsplan render
    ENGINE NAME' knows it, and says whether the file is that of the policy. Nor is the filter of a
    running container looked at: the kernel shows one only to a debugger that stops the process.
    """
    for allocation in facts.state.ledger.allocations:
        path = filter_path(allocation)
        if allocation.policy is None or path not in facts.filters:
            continue
        if wrong := _difference(facts.filters[path], effective(allocation.policy), facts.machine):
            name = shell(allocation.name)
            again = facts.state.layout.command(f"render ENGINE {name} --out / --replace-files")
            yield Seen(
                facts.place(path),
                f"the filter of '{allocation.name}' is not that of its policy: {wrong}",
                f"render it again for its engine, and start it again: {again}",
            )


def _difference(raw: bytes, policy: Effective, machine: str) -> str:
    """What is wrong with a filter: one that the policy is laid over already stays as it is."""
    try:
        base = seccomp.base_of(
            raw, "", capabilities=policy.capabilities, machine=machine, kernel="99.0"
        )
    except UsernsplanError as error:
        return str(error).removeprefix(": ")
    said = json.loads(raw)
    return "" if _keeps(policy, base, said, machine) else "it lets other system calls through"


def _keeps(policy: Effective, base: Base, said: dict[str, Any], machine: str) -> bool:
    """Whether a filter refuses what a policy refuses, and lets through what it allows by name."""
    passes = base.action in PASSING
    through = {name for rule in base.rules if rule.action in PASSING for name in rule.names}
    refused = {
        name
        for rule in base.rules
        if rule.action not in PASSING and not rule.args
        for name in rule.names
    }
    if policy.deny_all:
        return not passes and through == policy.allow
    shut = policy.deny <= refused if passes else not policy.deny & through
    open_ = not policy.allow & refused if passes else policy.allow <= through

    # A filter over which the policy is laid already has these as they are.
    again = seccomp.laid_over(policy, base, machine=machine)
    return shut and open_ and _sockets(again) == _sockets(said)


def _sockets(filter_: dict[str, Any]) -> tuple[object, ...]:
    """For which architectures a filter is, and what it does with socket(2)."""
    rules = (rule for rule in filter_.get("syscalls", ()) if "socket" in rule["names"])
    found = {json.dumps({**rule, "names": []}, sort_keys=True) for rule in rules}
    return filter_.get("architectures"), frozenset(found)


def _running(facts: Facts) -> Iterator[tuple[Namespace, Allocation, Status]]:
    """The running namespaces of allocations, and the state of the first process of each."""
    for namespace in facts.namespaces:
        status = facts.statuses.get(namespace.pids[0]) if namespace.pids else None
        its = runs_as(facts.state.ledger.allocations, namespace.mapping)
        if status is not None and its is not None:
            yield namespace, its, status
