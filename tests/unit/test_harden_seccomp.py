"""One policy as each engine's filter: what is read, what is written, and what real readers make of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import bpf
from tests.command import missing
from tests.each import each
from usernsplan.errors import InvalidFileError, InvalidValueError
from usernsplan.harden import names, seccomp
from usernsplan.harden.bases import NO_FILTER, Argument, Base, Rule, base_of
from usernsplan.harden.effective import Effective, effective
from usernsplan.harden.policy import policy_of
from usernsplan.harden.seccomp import laid_over

if TYPE_CHECKING:
    from collections.abc import Iterable

PODMAN = Path("/usr/share/containers/seccomp.json")
LXC = Path("/usr/share/lxc/config/common.seccomp")
# No call fails with it but those that a test's filter refuses.
PROOF = 71


def given(profile: str = "default", **said: Any) -> Effective:
    return effective(policy_of({"profile": profile, **said}))


def read(said: object, **how: Any) -> Base:
    how = {"capabilities": (), "machine": "x86_64", "kernel": "6.1.0-18-amd64"} | how
    return base_of(json.dumps(said).encode(), "/p.json", **how)


def podman(*capabilities: str) -> Base:
    if not PODMAN.exists():
        missing("podman")
    return base_of(
        PODMAN.read_bytes(),
        str(PODMAN),
        capabilities=capabilities,
        machine="x86_64",
        kernel="6.1.0",
    )


def over(policy: Effective, base: Base, machine: str = "x86_64") -> bpf.Program:
    return bpf.program(laid_over(policy, base, machine=machine, errno=PROOF), machine)


def answer(code: bpf.Program, call: str, *args: int, arch: str = "x86_64") -> int:
    return bpf.run(code, arch, names.system_calls()[call][arch], args)


def on_x86_64(calls: Iterable[str]) -> list[str]:
    """Those that a 64-bit program can make."""
    return sorted(call for call in calls if "x86_64" in names.system_calls()[call])


REFUSED = bpf.ERRNO | PROOF


def test_a_profile_of_the_oci_is_read_as_it_is() -> None:
    base = read(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [
                {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
                {
                    "name": "personality",
                    "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}],
                },
                {"names": ["kcmp"], "action": "SCMP_ACT_ERRNO"},
                {"names": ["ptrace"], "action": "SCMP_ACT_TRACE", "errnoRet": 7},
            ],
        }
    )
    assert base == Base(
        "SCMP_ACT_ERRNO",
        38,
        (
            Rule(("read", "write")),
            Rule(("personality",), args=(Argument(0, 8, 0, "SCMP_CMP_EQ"),)),
            Rule(("kcmp",), "SCMP_ACT_ERRNO", 1),
            Rule(("ptrace",), "SCMP_ACT_TRACE", 7),
        ),
        ("SCMP_ARCH_X86_64",),
        (("flags", ["SECCOMP_FILTER_FLAG_LOG"]),),
    )
    assert laid_over(given(), base, machine="x86_64")["flags"] == ["SECCOMP_FILTER_FLAG_LOG"]


def wide(**conditions: Any) -> dict[str, Any]:
    rule = {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "args": None, "comment": "", **conditions}
    return {"defaultAction": "SCMP_ACT_ERRNO", "archMap": None, "syscalls": [rule]}


CAPS = ["CAP_BPF", "CAP_SYS_ADMIN"]


@each(
    ("conditions", "how", "applies"),
    [
        ({}, {}, True),
        ({"includes": {}, "excludes": None}, {}, True),
        ({"includes": {"caps": CAPS}}, {}, False),
        ({"includes": {"caps": CAPS}}, {"capabilities": ["bpf"]}, False),
        ({"includes": {"caps": CAPS}}, {"capabilities": ["bpf", "sys_admin"]}, True),
        ({"excludes": {"caps": CAPS}}, {}, True),
        ({"excludes": {"caps": CAPS}}, {"capabilities": ["bpf"]}, False),
        ({"includes": {"arches": ["amd64", "x32"]}}, {}, True),
        ({"includes": {"arches": ["arm64"]}}, {}, False),
        ({"includes": {"arches": ["arm64"]}}, {"machine": "aarch64"}, True),
        ({"excludes": {"arches": ["arm64"]}}, {"machine": "aarch64"}, False),
        ({"includes": {"minKernel": "4.8"}}, {}, True),
        ({"includes": {"minKernel": "4.8"}}, {"kernel": "4.7.9"}, False),
        ({"includes": {"minKernel": "6.1"}}, {}, True),
        ({"includes": {"minKernel": "6.10"}}, {}, False),
        ({"excludes": {"minKernel": "6.1"}}, {}, False),
        ({"excludes": {"minKernel": "6.2"}}, {}, True),
    ],
)
def test_conditions_are_resolved_for_the_container(
    conditions: dict[str, Any], how: dict[str, Any], applies: bool
) -> None:
    assert bool(read(wide(**conditions), **how).rules) == applies


def test_architectures_are_those_of_the_machine() -> None:
    said = wide() | {
        "archMap": [
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        ]
    }
    assert read(said).architectures == ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86")
    assert read(said, machine="aarch64").architectures == ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM")
    # libseccomp then filters the machine's own, and kills for all others.
    assert read(said, machine="riscv64").architectures == ()
    native = laid_over(given(arch="native"), read(said), machine="x86_64")
    assert native["architectures"] == ["SCMP_ARCH_X86_64"]


def test_podmans_word_for_an_errno_counts() -> None:
    said = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrno": "ENOSYS",
        "defaultErrnoRet": 1,
        "syscalls": [{"names": ["kcmp"], "action": "SCMP_ACT_ERRNO", "errno": "EINVAL"}],
    }
    base = read(said)
    assert (base.errno, base.rules[0].errno) == (38, 22)


def test_two_conditions_on_one_argument_are_two_rules_as_engines_read_them() -> None:
    args = [{"index": 0, "value": n, "op": "SCMP_CMP_NE"} for n in (1, 2)]
    base = read(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": args}],
        }
    )
    assert [rule.args for rule in base.rules] == [
        (Argument(0, 1, 0, "SCMP_CMP_NE"),),
        (Argument(0, 2, 0, "SCMP_CMP_NE"),),
    ]


ONE = {"names": ["read"], "action": "SCMP_ACT_ALLOW"}
GOOD = {"defaultAction": "SCMP_ACT_ERRNO"}


@each(
    ("said", "fact"),
    [
        ([], "the profile is no object"),
        ({}, "defaultAction is no action of seccomp"),
        ({"defaultAction": "ALLOW"}, "defaultAction is no action of seccomp"),
        ({"defaultAction": ["SCMP_ACT_ALLOW"]}, "defaultAction is no action of seccomp"),
        ({"defaultAction": {}}, "defaultAction is no action of seccomp"),
        (GOOD | {"sysclls": []}, "the profile has a key 'sysclls', which is unknown here"),
        (GOOD | {"syscalls": {}}, "syscalls is no list"),
        (GOOD | {"syscalls": ["read"]}, "rule 1 is no object"),
        (GOOD | {"syscalls": [ONE, ONE | {"when": 1}]}, "rule 2 has a key 'when'"),
        (GOOD | {"syscalls": [ONE | {"action": "KILL"}]}, "rule 1: action is no action of seccomp"),
        (GOOD | {"syscalls": [ONE | {"names": "read"}]}, "names is no list"),
        (GOOD | {"syscalls": [ONE | {"names": [1]}]}, "names is no list of words"),
        (GOOD | {"syscalls": [ONE | {"name": "read"}]}, "rule 1: has both name and names"),
        (GOOD | {"syscalls": [ONE | {"args": [{}]}]}, "rule 1: args is no list of conditions"),
        (
            GOOD | {"syscalls": [ONE | {"args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}]},
            "rule 1: args is no list of conditions",
        ),
        (
            GOOD | {"syscalls": [ONE | {"args": [{"value": -1, "op": "SCMP_CMP_EQ"}]}]},
            "rule 1: args is no list of conditions",
        ),
        (
            GOOD | {"syscalls": [ONE | {"args": [{"value": 1 << 64, "op": "SCMP_CMP_EQ"}]}]},
            "rule 1: args is no list of conditions",
        ),
        (
            GOOD | {"syscalls": [ONE | {"args": [{"op": "EQ"}]}]},
            "rule 1: args is no list of conditions",
        ),
        (GOOD | {"syscalls": [ONE | {"includes": {"cap": []}}]}, "rule 1 has a key 'cap'"),
        (
            GOOD | {"syscalls": [ONE | {"includes": {"minKernel": "new"}}]},
            "rule 1: minKernel is no version of a kernel",
        ),
        (
            GOOD | {"syscalls": [ONE | {"includes": {"minKernel": 4.8}}]},
            "rule 1: minKernel is no version of a kernel",
        ),
        (GOOD | {"defaultErrnoRet": "1"}, "defaultErrnoRet is no errno"),
        (GOOD | {"defaultErrno": "ENOTHING"}, "defaultErrnoRet is no errno"),
        (GOOD | {"architectures": ["A"], "archMap": [{}]}, "has both architectures and archMap"),
    ],
)
def test_what_is_no_profile_is_refused_by_its_place(said: object, fact: str) -> None:
    with pytest.raises(InvalidFileError, match=re.escape(fact)) as caught:
        read(said)
    assert str(caught.value).startswith("/p.json: ")
    assert caught.value.hint


@each("raw", [b"", b"{", b"\xff", b"2\ndenylist\n", b"[" * 200000])
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidFileError, match=r"/p\.json: is not JSON"):
        base_of(raw, "/p.json", capabilities=(), machine="x86_64", kernel="6.1")


def test_a_machine_that_we_do_not_know_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="no filter of system calls can be made for 'vax'"):
        laid_over(given(), NO_FILTER, machine="vax")


def test_a_default_that_allows_would_be_weaker_than_podmans_own() -> None:
    """Why a policy is laid over a base: the list of the documents alone gives back what Podman refuses."""
    naive = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": sorted(given("seed").deny), "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
        ],
    }
    weak = bpf.program(naive)
    theirs = bpf.program(laid_over(given(), podman(), machine="x86_64"))
    ours = over(given("seed"), podman())
    for call in ("bpf", "quotactl", "settimeofday", "acct", "add_key", "userfaultfd"):
        assert bpf.passes(answer(weak, call)), call
        assert not bpf.passes(answer(theirs, call)), call
        assert not bpf.passes(answer(ours, call)), call


def test_without_a_word_about_calls_podmans_own_stays_as_it_is() -> None:
    """As Podman resolves its profile: all calls, with the numbers that a container uses most."""
    ours = laid_over(given(), podman("audit_write"), machine="x86_64")
    said = json.loads(PODMAN.read_text())
    assert ours["defaultErrnoRet"] == said["defaultErrnoRet"]
    assert ours["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    first = next(rule for rule in said["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW")
    assert {"names": first["names"], "action": "SCMP_ACT_ALLOW"} in ours["syscalls"]


@each("base", [NO_FILTER, "podman"])
def test_seed_refuses_its_calls_and_families(base: Base | str) -> None:
    code = over(given("seed"), podman() if base == "podman" else NO_FILTER)
    for call in on_x86_64(given("seed").deny):
        assert answer(code, call) == REFUSED, call
    for family in range(50):
        allowed = family in {0, 1, 2, 10, 16}
        found = answer(code, "socket", family, 1)
        assert bpf.passes(found) if allowed else found == REFUSED, family
    # Another architecture: SIGSYS.
    assert answer(code, "read", arch="i386") == bpf.KILL_THREAD


@each("base", [NO_FILTER, "podman"])
@each("high", [1 << 32, 1 << 63, (1 << 64) - (1 << 32)])
def test_a_bit_above_an_int_does_not_pass_a_family_by(base: Base | str, high: int) -> None:
    """socket(2) takes an int, and the kernel cuts off what is above it; a filter sees all 64 bits."""
    code = over(given("seed"), podman() if base == "podman" else NO_FILTER)
    for family in range(50):
        allowed = family in {0, 1, 2, 10, 16}
        assert bpf.passes(answer(code, "socket", high | family, 1)) == allowed, family


def test_podmans_refusal_of_the_audit_socket_stays_beside_families() -> None:
    without, having = over(given("seed"), podman()), over(given("seed"), podman("audit_write"))
    assert answer(without, "socket", 16, 3, 9) == bpf.ERRNO | 22
    assert bpf.passes(answer(without, "socket", 16, 3, 0))
    assert bpf.passes(answer(having, "socket", 16, 3, 9))


def test_a_call_that_is_allowed_by_name_comes_back() -> None:
    base = podman()
    assert answer(over(given(), base), "bpf") == bpf.ERRNO | 1
    assert bpf.passes(answer(over(given(allow_syscalls=["bpf"]), base), "bpf"))
    # Podman allows five values of its argument.
    assert not bpf.passes(answer(over(given(), base), "personality", 5))
    assert bpf.passes(answer(over(given(allow_syscalls=["personality"]), base), "personality", 5))


@each("base", [NO_FILTER, "podman"])
def test_all_denied_leaves_only_what_is_allowed(base: Base | str) -> None:
    policy = given(deny_syscalls=["all"], allow_syscalls=["read", "bpf"])
    code = over(policy, podman() if base == "podman" else NO_FILTER)
    passed = {call for call in names.system_calls() if passes_somewhere(code, call)}
    assert passed == {"read", "bpf"}


def passes_somewhere(code: bpf.Program, call: str) -> bool:
    return any(
        bpf.passes(answer(code, call, arch=arch))
        for arch in ("x86_64", "i386")
        if arch in names.system_calls()[call]
    )


@each(
    ("action", "left"),
    [
        ("SCMP_ACT_ALLOW", False),
        ("SCMP_ACT_LOG", False),
        ("SCMP_ACT_TRACE", False),
        ("SCMP_ACT_NOTIFY", False),
        ("SCMP_ACT_ERRNO", False),
        ("SCMP_ACT_TRAP", True),
        ("SCMP_ACT_KILL", True),
        ("SCMP_ACT_KILL_PROCESS", True),
    ],
)
def test_a_denied_call_fails_unless_the_base_is_harder(action: str, left: bool) -> None:
    base = read(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["kcmp", "read"], "action": action}],
        }
    )
    code = over(given(deny_syscalls=["kcmp"]), base)
    assert (answer(code, "kcmp") == REFUSED) != left
    assert not bpf.passes(answer(code, "kcmp"))
    assert answer(code, "read") == answer(over(given(), base), "read")


@each("action", ["SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY", "SCMP_ACT_ALLOW"])
def test_a_default_that_lets_calls_pass_refuses_what_is_denied(action: str) -> None:
    base = read({"defaultAction": action, "syscalls": []})
    code = over(given(deny_syscalls=["kcmp"], deny_families=["AX25"]), base)
    assert answer(code, "kcmp") == REFUSED
    assert answer(code, "socket", 3) == REFUSED
    assert bpf.passes(answer(code, "socket", 2))
    assert bpf.passes(answer(code, "read"))


@each("default", ["SCMP_ACT_LOG", "SCMP_ACT_ALLOW"])
@each("action", ["SCMP_ACT_LOG", "SCMP_ACT_ALLOW"])
def test_a_base_that_only_logs_can_be_loaded_beside_families(default: str, action: str) -> None:
    """On i386, libseccomp makes no filter of a rule that refuses socket(2) and one that allows it."""
    base = read(
        {
            "defaultAction": default,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [{"names": ["read", "socket"], "action": action}],
        }
    )
    code = over(given(deny_families=["AX25"]), base)
    assert answer(code, "socket", 3) == REFUSED
    assert bpf.passes(answer(code, "socket", 2))


@each(
    ("op", "value", "two", "passed"),
    [
        ("SCMP_CMP_EQ", 2, 0, [2]),
        ("SCMP_CMP_EQ", 3, 0, []),
        ("SCMP_CMP_NE", 2, 0, [0, 1, 10, 16]),
        ("SCMP_CMP_LT", 10, 0, [0, 1, 2]),
        ("SCMP_CMP_LE", 10, 0, [0, 1, 2, 10]),
        ("SCMP_CMP_GT", 2, 0, [10, 16]),
        ("SCMP_CMP_GE", 2, 0, [2, 10, 16]),
        ("SCMP_CMP_MASKED_EQ", 2, 2, [2, 10]),
    ],
)
def test_a_condition_of_the_base_on_a_family_stays(
    op: str, value: int, two: int, passed: list[int]
) -> None:
    base = read(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {
                    "names": ["socket"],
                    "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": value, "valueTwo": two, "op": op}],
                }
            ],
        }
    )
    theirs, ours = over(given(), base), over(given("seed"), base)
    assert [n for n in range(50) if bpf.passes(answer(ours, "socket", n))] == passed
    for n in (*range(50), 65535):
        for high in (0, 1 << 32):
            if bpf.passes(answer(ours, "socket", high | n)):
                assert bpf.passes(answer(theirs, "socket", high | n)), (high, n)


@each("base", [NO_FILTER, "podman"])
@each(
    ("call", "door", "number"),
    [
        ("connect", "socketcall", 3),
        ("recvmmsg", "socketcall", 19),
        ("shmget", "ipc", 23),
    ],
)
def test_a_denied_call_has_no_second_door_on_i386(
    base: Base | str, call: str, door: str, number: int
) -> None:
    code = over(given(deny_syscalls=[call]), podman() if base == "podman" else NO_FILTER)
    assert answer(code, call) == REFUSED
    at_door = {n: answer(code, door, n, arch="i386") for n in range(1, 25)}
    assert at_door.pop(number) == REFUSED
    assert bpf.passes(at_door[2])
    assert bpf.passes(at_door[4])


@each("base", [NO_FILTER, "podman"])
@each("version", [1, 0xFFFF])
def test_ipc_of_another_version_is_the_same_call(base: Base | str, version: int) -> None:
    """The kernel looks for the call in the lower 16 bits of ipc(2)'s first argument."""
    code = over(given(deny_syscalls=["shmget"]), podman() if base == "podman" else NO_FILTER)
    assert not bpf.passes(answer(code, "ipc", version << 16 | 23, arch="i386"))


def test_a_family_fails_as_podmans_other_calls_if_32_bit_programs_run() -> None:
    code = over(given("seed", arch="all"), podman())
    for family in range(50):
        found = answer(code, "socket", family, 1)
        assert bpf.passes(found) if family in {0, 1, 2, 10, 16} else found == bpf.ERRNO | 38


def test_what_becomes_of_32_bit_programs_beside_families_is_said() -> None:
    foreign = given("seed", arch="all")
    (text,) = seccomp.lost_over(foreign, podman(), machine="x86_64")
    assert "reaches every address family" in text
    assert bpf.passes(answer(over(foreign, podman()), "socketcall", 1, arch="i386"))
    (text,) = seccomp.lost_over(foreign, NO_FILTER, machine="x86_64")
    assert "gets no socket at all" in text
    assert answer(over(foreign, NO_FILTER), "socketcall", 1, arch="i386") == REFUSED

    assert seccomp.lost_over(given("seed"), podman(), machine="x86_64") == ()
    assert seccomp.lost_over(given(), podman(), machine="x86_64") == ()
    assert seccomp.lost_over(foreign, NO_FILTER, machine="aarch64") == ()


def test_what_32_bit_programs_reach_of_refused_calls_is_said() -> None:
    refused = given(deny_syscalls=["semop", "getcwd"])
    (text,) = seccomp.lost_over(refused, NO_FILTER, machine="x86_64")
    assert "socketcall(2) and ipc(2)" in text
    assert seccomp.lost_over(refused, podman(), machine="x86_64") == ()
    assert seccomp.lost_over(given(deny_syscalls=["getcwd"]), NO_FILTER, machine="x86_64") == ()
    native = given(deny_syscalls=["semop"], arch="native")
    assert seccomp.lost_over(native, NO_FILTER, machine="x86_64") == ()


def test_a_call_of_i386_alone_leaves_the_other_rules_as_they_are() -> None:
    """With x32 listed too, libseccomp 2.5 compared the architecture with the number of socket(2)."""
    code = over(given(deny_syscalls=["_llseek"], deny_families=["AX25"]), NO_FILTER)
    assert answer(code, "socket", 3) == REFUSED
    assert bpf.passes(answer(code, "socket", 2))
    assert answer(code, "_llseek", arch="i386") == REFUSED


def test_an_engine_without_a_filter_still_runs_32_bit_programs() -> None:
    code = over(given(deny_syscalls=["kcmp"]), NO_FILTER)
    assert bpf.passes(answer(code, "read", arch="i386"))
    assert answer(code, "kcmp", arch="i386") == REFUSED


def common() -> str:
    if not LXC.exists():
        missing("lxc")
    return LXC.read_text()


def test_lxcs_own_list_stays_and_ours_is_added() -> None:
    text, lost = seccomp.lxc(given("seed"), common(), place=str(LXC), errno=PROOF)
    assert text.splitlines()[:2] == ["2", "denylist"]
    code = bpf.lxc_program(text)
    for call in on_x86_64(given("seed").deny):
        assert answer(code, call) == REFUSED, call
    for family in range(50):
        allowed = family in {0, 1, 2, 10, 16}
        assert bpf.passes(answer(code, "socket", family)) == allowed
        assert bpf.passes(answer(code, "socket", 1 << 32 | family)) == allowed
    # reject_force_umount, LXC's own.
    assert answer(code, "umount2", 0, 1) == bpf.ERRNO | 13
    assert lost == (
        "LXC has no word that refuses the system calls of other architectures",
        "a 32-bit program reaches what is refused of socket by socketcall(2)",
    )


def test_lxc_makes_no_rule_for_a_call_that_i386_has_behind_a_door_and_it_is_said() -> None:
    # accept(2) has no number there.
    policy = given(deny_syscalls=["ipc,shmget,socketcall,accept,kcmp"], deny_families=["AX25"])
    text, lost = seccomp.lxc(policy, common(), place=str(LXC), errno=PROOF)
    code = bpf.lxc_program(text, "i386")
    for call, first in (("shmget", 0), ("socket", 3)):
        assert bpf.passes(bpf.run(code, "i386", names.system_calls()[call]["i386"], [first])), call
    for call in ("ipc", "socketcall", "kcmp"):
        assert answer(code, call, arch="i386") == REFUSED, call
    assert lost == tuple(
        f"a 32-bit program reaches what is refused of {call} by a number of i386, for which LXC makes "
        "no rule"
        for call in ("socket", "shmget")
    )


def test_lxcs_list_without_a_call_that_is_allowed() -> None:
    text, lost = seccomp.lxc(given(allow_syscalls=["kexec_load"]), common(), place=str(LXC))
    assert bpf.passes(answer(bpf.lxc_program(text), "kexec_load"))
    assert not bpf.passes(answer(bpf.lxc_program(text), "finit_module"))
    assert lost == ()


def test_lxcs_list_of_what_is_allowed() -> None:
    policy = given(deny_syscalls=["all"], allow_syscalls=["read", "socket"], deny_families=["AX25"])
    text, lost = seccomp.lxc(policy, common(), place=str(LXC), errno=PROOF)
    code = bpf.lxc_program(text)
    assert {n for n in range(8) if bpf.passes(answer(code, "socket", n))} == {0, 1, 2, 4, 5, 6, 7}
    assert answer(code, "write") == REFUSED
    assert bpf.passes(answer(code, "read"))
    assert not bpf.passes(answer(bpf.lxc_program(text, "i386"), "socketcall", 1, arch="i386"))
    assert lost == ()


def test_lxc_keeps_what_kills() -> None:
    base = "2\ndenylist\n[all]\nkcmp\nreboot kill # never\nswapon errno 1\n"
    policy = given(deny_syscalls=["kcmp,reboot,swapon"])
    text, _ = seccomp.lxc(policy, base, place="x", errno=PROOF)
    assert text == "2\ndenylist\n[all]\nkcmp\nreboot kill # never\n[all]\nswapon errno 71\n"


@each("base", ["", "1\nallowlist\n3\n", "2\nallowlist\nread\n", "2\n", '{"defaultAction": 1}'])
def test_what_is_no_list_of_lxc_is_refused(base: str) -> None:
    with pytest.raises(InvalidFileError, match="/p: is not a denylist of version 2"):
        seccomp.lxc(given(), base, place="/p")


# As Incus 6 writes it before what an instance says.
OF_INCUS = """\
2
denylist
[all]
reject_force_umount  # comment this to allow umount -f;  not recommended
[all]
kexec_load errno 38
open_by_handle_at errno 38
init_module errno 38
finit_module errno 38
delete_module errno 38
"""


def test_incus_refuses_its_own_and_ours() -> None:
    found, lost = seccomp.incus(given("seed"), errno=PROOF)
    assert found.keys() == {"security.syscalls.deny", "security.syscalls.deny_compat"}
    code = bpf.lxc_program(OF_INCUS + found["security.syscalls.deny"])
    own = {"kexec_load", "open_by_handle_at", "init_module", "finit_module", "delete_module"}
    for call in on_x86_64(given("seed").deny):
        assert answer(code, call) == (bpf.ERRNO | 38 if call in own else REFUSED), call
    assert answer(code, "socket", 38) == REFUSED
    assert bpf.passes(answer(code, "socket", 2))
    assert "LXC has no word that refuses the system calls of other architectures" in lost


@each("name", ["compat_sys_ioctl", "compat_sys_kexec_load", "stub_x32_execve"])
def test_incus_deny_compat_names_calls_that_libseccomp_does_not_know(name: str) -> None:
    """So it refuses nothing, and what it stands for is said to be lost."""
    assert {bpf.number(name, arch) for arch in ("x86_64", "i386")} == {bpf.UNKNOWN}


def test_incus_list_of_what_is_allowed() -> None:
    found, lost = seccomp.incus(given(deny_syscalls=["all"], allow_syscalls=["read", "write"]))
    assert found == {"security.syscalls.allow": "read allow\nwrite allow"}
    code = bpf.lxc_program("2\nallowlist\n[all]\n" + found["security.syscalls.allow"])
    assert bpf.passes(answer(code, "write"))
    assert answer(code, "kcmp") == bpf.KILL_THREAD
    assert lost == ("Incus kills a process that makes another call; there is no errno",)


def test_incus_says_what_it_cannot() -> None:
    found, lost = seccomp.incus(given(deny_syscalls=["all"]))
    assert found == {}
    assert lost == ("Incus cannot refuse every call: its list of allowed ones must not be empty",)
    found, lost = seccomp.incus(given(allow_syscalls=["kexec_load", "bpf"]))
    assert found == {}
    assert lost == (
        "Incus refuses kexec_load itself, unless security.syscalls.deny_default is false",
    )


def test_systemds_lines() -> None:
    policy = given(deny_syscalls=["kcmp,reboot"], deny_families=["AX25"], arch="native")
    found, lost = seccomp.systemd(policy, errno=PROOF)
    assert found[:2] == [
        "SystemCallFilter=~kcmp:EPROTO reboot:EPROTO",
        "SystemCallArchitectures=native",
    ]
    families = found[2].removeprefix("RestrictAddressFamilies=").split()
    assert "AF_INET" in families
    assert "AF_AX25" not in families
    assert len(lost) == 1
    assert seccomp.systemd(given(allow_syscalls=["kcmp"])) == ([], ())
    every = given(deny_syscalls=["all"], allow_syscalls=["read"], deny_families=["2"])
    assert seccomp.systemd(every)[0][:2] == [
        "SystemCallFilter=@default read",
        "SystemCallErrorNumber=EPERM",
    ]


@each(
    "policy",
    [
        given("seed"),
        given(deny_syscalls=["all"], allow_syscalls=["read", "execve"]),
        given(deny_families=["alg"]),
        given(deny_families=[*map(str, range(1, 46))]),
    ],
)
def test_systemd_reads_its_lines(policy: Effective, tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        missing("systemd-analyze")
    lines, _ = seccomp.systemd(policy)
    unit = tmp_path / "web.service"
    unit.write_text("\n".join(["[Service]", "ExecStart=/bin/true", *lines, ""]))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert "web.service" not in done.stderr
    assert done.returncode == 0, done.stderr


def test_nspawns_lines() -> None:
    found, lost = seccomp.nspawn(given("seed", allow_syscalls=["kcmp"]))
    assert found[0] == "SystemCallFilter=kcmp"
    denied = found[1].removeprefix("SystemCallFilter=~").split()
    assert set(denied) == given("seed").deny - {"kcmp"}
    assert lost == (
        "nspawn has no filter of address families",
        "nspawn allows the system calls of other architectures, with the same list",
    )
    assert seccomp.nspawn(given()) == ([], ())
    # What its list names also lets through what is denied.
    (line,), _ = seccomp.nspawn(given(deny_syscalls=["connect"]))
    assert line == "SystemCallFilter=~connect socketcall"


def test_nspawn_refuses_all_by_name() -> None:
    (allow, deny), lost = seccomp.nspawn(given(deny_syscalls=["all"], allow_syscalls=["read"]))
    assert allow == "SystemCallFilter=read"
    denied = deny.removeprefix("SystemCallFilter=~").split()
    assert set(denied) == set(names.system_calls()) - {"read"}
    assert lost == ("a system call that is newer than this usernsplan is as nspawn has it",)


def test_a_32_bit_program_does_not_set_the_clock_by_the_newer_name_of_the_call() -> None:
    code = over(given("seed", arch="all"), podman("sys_time"))
    assert answer(code, "clock_adjtime", arch="i386") == REFUSED
    assert answer(code, "clock_adjtime64", arch="i386") == REFUSED
    # Podman's own profile lets both through.
    code = over(given("default", deny_syscalls=["getcwd"], arch="all"), podman("sys_time"))
    assert bpf.passes(answer(code, "clock_adjtime64", arch="i386"))
