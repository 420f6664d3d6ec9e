"""Filters of random policies, interpreted for every system call, beside what the policy means in plain words."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests import bpf
from tests.command import missing
from tests.examples import examples
from usernsplan.harden import names, seccomp
from usernsplan.harden.effective import Effective
from usernsplan.ids import IdRange, IdSet

PODMAN = Path("/usr/share/containers/seccomp.json")
LXC = Path("/usr/share/lxc/config/common.seccomp")
PROOF = 71
CALLS = sorted(names.system_calls())
# Calls with a second door on i386, with conditions in Podman's profile, and others that often matter.
OFTEN = [
    "socket",
    "connect",
    "accept4",
    "shmget",
    "semop",
    "socketcall",
    "ipc",
    "personality",
    "bpf",
    "kcmp",
    "read",
]
# Capabilities that Podman's profile asks for.
HELD = ["audit_write", "dac_read_search", "sys_admin", "sys_chroot", "sys_ptrace", "sys_time"]

some_calls = st.frozensets(st.sampled_from(OFTEN) | st.sampled_from(CALLS), max_size=8)
some_families = st.lists(
    st.tuples(st.integers(0, 50) | st.integers(0, 65535), st.integers(1, 40)), max_size=4
).map(lambda pairs: IdSet(IdRange(at, min(size, 65536 - at)) for at, size in pairs))


@st.composite
def policies(draw: st.DrawFn) -> Effective:
    allow = draw(some_calls)
    return Effective(
        "default",
        frozenset(draw(st.frozensets(st.sampled_from(HELD)))),
        deny=draw(some_calls) - allow,
        deny_all=draw(st.integers(0, 5)) == 0,
        allow=allow,
        families=draw(some_families),
        native=draw(st.booleans()),
    )


@cache
def podmans() -> dict[str, Any]:
    if not PODMAN.exists():
        missing("podman")
    found: dict[str, Any] = json.loads(PODMAN.read_text())
    return found


def holds(condition: dict[str, Any], word: int) -> bool:
    assert condition["op"] in {"SCMP_CMP_EQ", "SCMP_CMP_NE"}, "as in Podman's profile"
    return bool((word == condition["value"]) == (condition["op"] == "SCMP_CMP_EQ"))


@cache
def podmans_rules(held: frozenset[str], go: str) -> dict[str, list[dict[str, Any]]]:
    """Those that apply, by call."""
    found: dict[str, list[dict[str, Any]]] = {}
    caps = {f"CAP_{name.upper()}" for name in held}
    for rule in podmans()["syscalls"]:
        wants, spurns = rule["includes"], rule["excludes"]
        if (
            caps >= {*wants.get("caps", ())}
            and not caps & {*spurns.get("caps", ())}
            and go in wants.get("arches", [go])
        ):
            for name in rule["names"]:
                found.setdefault(name, []).append(rule)
    return found


def podman_passes(held: frozenset[str], go: str, call: str, args: list[int]) -> bool:
    """What Podman's profile means: of the rules that a call meets, the first counts. Else it is refused."""
    for rule in podmans_rules(held, go).get(call, ()):
        if all(holds(one, args[one["index"]]) for one in rule["args"] or ()):
            return bool(rule["action"] == "SCMP_ACT_ALLOW")
    return False


def meant(policy: Effective, base_passes: bool, call: str, args: list[int]) -> bool:
    """What a policy means for a call of an architecture that it does not refuse."""
    if call == "socket" and any(args[0] % (1 << 32) in some for some in policy.families):
        return False
    if call in policy.allow:
        return True
    return base_passes and not policy.deny_all and call not in policy.deny


def check(policy: Effective, base: seccomp.Base | None, machine: str, some: list[int]) -> None:
    """Every system call of each architecture, with arguments where they matter."""
    go = {"x86_64": "amd64", "aarch64": "arm64"}[machine]
    over = base or seccomp.NO_FILTER
    profile = seccomp.laid_over(policy, over, machine=machine, errno=PROOF)
    code = bpf.program(profile, machine)
    for arch in ("x86_64", "i386") if machine == "x86_64" else ("aarch64",):
        for call in CALLS:
            number = names.system_calls()[call].get(arch)
            # Of a call that is newer than itself, libseccomp knows nothing.
            if (
                number is None
                or bpf.number(call, arch) == bpf.UNKNOWN
                or call in {"socketcall", "ipc"}
            ):
                continue
            for first in some if call in {"socket", "personality"} else [0]:
                for third in (0, 9) if call == "socket" else [0]:
                    args = [first, 0, third, 0, 0, 0]
                    found = bpf.passes(bpf.run(code, arch, number, args))
                    if policy.native and arch != machine:
                        assert not found, (arch, call)
                        continue
                    passed = base is None or podman_passes(policy.capabilities, go, call, args)
                    assert found == meant(policy, passed, call, args), (arch, call, args)
    if machine == "x86_64" and not policy.native:
        check_doors(policy, code)


def check_doors(policy: Effective, code: bpf.Program) -> None:
    """The calls of i386 that stand for several: both bases let them through."""
    for door in ("socketcall", "ipc"):
        if door in policy.allow:
            continue
        for call in CALLS:
            kind = bpf.number(call, "i386")
            if not (-121 < kind < -100 if door == "socketcall" else -225 < kind < -200):
                continue
            if call == "socket" and policy.families:
                continue  # what it costs is said, see lost_over
            number = names.system_calls()[door]["i386"]
            found = bpf.passes(bpf.run(code, "i386", number, [-kind % 100]))
            if call in {"accept", "semop", "semtimedop"}:
                continue  # i386 has only a door for these, and libseccomp 2.5 fails to find it
            wanted = call in policy.allow if policy.deny_all else not {door, call} & policy.deny
            assert found == wanted, (door, call)


numbers = st.lists(st.integers(0, 50) | st.integers(0, 65535) | st.just(16), min_size=1, max_size=6)


@settings(max_examples=examples(50))
@given(policies(), st.sampled_from(["x86_64", "aarch64"]), numbers)
def test_over_no_filter_a_call_passes_unless_the_policy_refuses_it(
    policy: Effective, machine: str, some: list[int]
) -> None:
    check(policy, None, machine, some)


@settings(max_examples=examples(50))
@given(policies(), st.sampled_from(["x86_64", "aarch64"]), numbers)
def test_over_podmans_a_call_passes_if_both_let_it(
    policy: Effective, machine: str, some: list[int]
) -> None:
    podmans()
    base = seccomp.base_of(
        PODMAN.read_bytes(),
        str(PODMAN),
        capabilities=policy.capabilities,
        machine=machine,
        kernel="6.1.0",
    )
    check(policy, base, machine, some)


ACTIONS = ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_LOG", "SCMP_ACT_KILL", "SCMP_ACT_TRAP"]
conditions = st.fixed_dictionaries(
    {
        "index": st.integers(0, 2),
        "value": st.integers(0, 20) | st.just(0xFFFFFFFF),
        "valueTwo": st.integers(0, 20),
        "op": st.sampled_from(sorted(bpf.COMPARED)),
    }
)


def doors_allowed(rule: dict[str, Any]) -> dict[str, Any]:
    """As in the profiles that there are: a door of i386 is let through, or refused by no word."""
    if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule:
        return rule
    return rule | {"names": [name for name in rule["names"] if name not in {"socketcall", "ipc"}]}


rules = st.fixed_dictionaries(
    {
        "names": st.lists(st.sampled_from(OFTEN), min_size=1, max_size=6, unique=True),
        "action": st.sampled_from(ACTIONS),
    },
    optional={"args": st.lists(conditions, max_size=2)},
).map(doors_allowed)


def without_contradictions(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A call that one rule is about without a condition has no other rule."""
    last = {
        name: rule for rule in reversed(rules) if not rule.get("args") for name in rule["names"]
    }
    return [
        rule | {"names": [name for name in rule["names"] if last.get(name, rule) is rule]}
        for rule in rules
    ]


bases = st.fixed_dictionaries(
    {
        "defaultAction": st.sampled_from(ACTIONS),
        "architectures": st.just(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]),
        "syscalls": st.lists(rules, max_size=5).map(without_contradictions),
    }
)


@settings(max_examples=examples(500))
@given(bases, policies(), numbers, st.integers(0, 2))
def test_nothing_that_any_base_refuses_comes_back(
    said: dict[str, Any], policy: Effective, some: list[int], third: int
) -> None:
    base = seccomp.base_of(
        json.dumps(said).encode(), "base", capabilities=(), machine="x86_64", kernel="6.1.0"
    )
    try:
        theirs = bpf.program(said)
    except AssertionError:
        # Rules that are at odds: libseccomp makes no filter of them.
        assume(False)
    ours = bpf.program(seccomp.laid_over(policy, base, machine="x86_64", errno=PROOF))
    for call in OFTEN:
        number = names.system_calls()[call].get("x86_64")
        if number is None:
            continue
        for first in (*some, (1 << 32) + some[0]):
            args = [first, 0, third]
            found = bpf.passes(bpf.run(ours, "x86_64", number, args))
            if call not in policy.allow:
                assert not found or bpf.passes(bpf.run(theirs, "x86_64", number, args)), (
                    call,
                    args,
                )
            if call in policy.deny or (policy.deny_all and call not in policy.allow):
                assert not found, (call, args)
            if call == "socket" and any(first % (1 << 32) in each for each in policy.families):
                assert not found, (call, args)


@settings(max_examples=examples(50))
@given(policies(), numbers)
def test_over_lxcs_a_call_passes_if_both_let_it(policy: Effective, some: list[int]) -> None:
    if not LXC.exists():
        missing("lxc")
    text, _ = seccomp.lxc(policy, LXC.read_text(), place=str(LXC), errno=PROOF)
    theirs = LXC.read_text().split()
    code = bpf.lxc_program(text)
    for call in CALLS:
        number = names.system_calls()[call].get("x86_64")
        if number is None or bpf.number(call, "x86_64") == bpf.UNKNOWN:
            continue
        for first in (*some, (1 << 32) + some[0]) if call == "socket" else [0]:
            args = [first, 0, 0, 0, 0, 0]
            found = bpf.passes(bpf.run(code, "x86_64", number, args))
            assert found == meant(policy, call not in theirs, call, args), (call, args)
