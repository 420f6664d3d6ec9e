"""Policies as people type them, as the ledger keeps them, and what they give a container."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.each import each
from usernsplan.errors import InvalidValueError
from usernsplan.harden.effective import Effective, effective
from usernsplan.harden.names import CAPABILITIES
from usernsplan.harden.policy import Policy, flags, policy_of, translated, written
from usernsplan.ids import IdRange, IdSet

# The calls of the documents, by name, and kexec_file_load, which does the same as kexec_load.
SEED = {
    "kexec_load", "open_by_handle_at", "init_module", "finit_module", "delete_module", "iopl", "ioperm", "swapon",
    "swapoff", "sysfs", "_sysctl", "adjtimex", "clock_adjtime", "lookup_dcookie", "perf_event_open", "fanotify_init",
    "kcmp", "kexec_file_load",
}  # fmt: skip


def of(profile: str = "default", **said: Any) -> Policy:
    return policy_of({"profile": profile, **said})


def given(profile: str = "default", **said: Any) -> Effective:
    return effective(of(profile, **said))


def test_words_become_one_sorted_name_each() -> None:
    policy = of(
        cap_add=["CAP_NET_RAW, chown", "net_raw"],
        deny_syscalls=["sysctl,kcmp"],
        deny_families=["X25", "3"],
        allow_families=["AF_ALG"],
    )
    assert policy == Policy(
        "default", ("chown", "net_raw"), (), (), ("_sysctl", "kcmp"), (38,), (3, 9)
    )


def test_all_says_everything_else() -> None:
    assert of(cap_drop=["net_raw", "ALL"]).cap_drop == ("all",)
    assert of(deny_syscalls=["kcmp", "all"]).deny_syscalls == ("all",)


@each(
    ("said", "fact"),
    [
        ({"cap_add": ["chown"], "cap_drop": ["CAP_CHOWN"]}, "the capability chown is both"),
        ({"allow_syscalls": ["kcmp"], "deny_syscalls": ["kcmp"]}, "the system call kcmp is both"),
        ({"allow_families": ["3"], "deny_families": ["ax25"]}, "the address family 3 is both"),
        ({"profile": "sed"}, "no profile 'sed'"),
        ({"allow_syscalls": ["all"]}, "there is no system call 'all'"),
        ({"arch": "x86"}, "--arch 'x86' is not native or all"),
        ({"selinux_type": "Type t"}, "--selinux-type 'Type t' is not as in container_t"),
        ({"selinux_level": "c1"}, "--selinux-level 'c1' is not as in s0:c1,c2"),
    ],
)
def test_what_cannot_be_meant_is_refused(said: dict[str, Any], fact: str) -> None:
    with pytest.raises(InvalidValueError, match=re.escape(fact)):
        of(**said)


def test_a_misspelt_profile_is_named() -> None:
    with pytest.raises(InvalidValueError) as caught:
        of("sed")
    assert "seed" in caught.value.hint


@each(
    "policy",
    [
        of(),
        of("seed"),
        of(
            "seed",
            cap_add=["net_raw"],
            cap_drop=["chown"],
            allow_syscalls=["kcmp"],
            deny_syscalls=["getcwd"],
            allow_families=["alg"],
            deny_families=["inet6"],
            new_privileges=True,
            arch="all",
            selinux_type="container_t",
            selinux_level="s0:c1,c2",
        ),
        of("strict", deny_syscalls=["all"], allow_syscalls=["read"]),
    ],
)
def test_what_is_written_says_the_same_policy(policy: Policy) -> None:
    assert of(**written(policy)) == policy


def test_only_what_differs_from_the_profile_is_written() -> None:
    assert written(of("seed")) == {"profile": "seed"}
    assert flags(of("seed", deny_syscalls=["getcwd"], new_privileges=True)) == [
        *("--profile", "seed"),
        *("--deny-syscall", "getcwd"),
        "--allow-new-privileges",
    ]


def test_the_documents_words_are_fields_of_a_policy() -> None:
    assert translated("seccomp:allow:clock_adjtime") == {"allow_syscalls": ["clock_adjtime"]}
    assert translated("seccomp:deny:getcwd") == {"deny_syscalls": ["getcwd"]}
    assert translated("seccomp:deny:all") == {"deny_syscalls": ["all"]}
    several: dict[str, Any] = translated("seccomp:deny:all seccomp:allow:read,seccomp:allow:write")
    assert several == {"deny_syscalls": ["all"], "allow_syscalls": ["read", "write"]}
    assert given(**several).deny_all
    assert translated("") == {}


@each(
    "word",
    ["seccomp:refuse:getcwd", "seccomp:deny:", "getcwd", "seccomp:deny:a:b", "SECCOMP:deny:a"],
)
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(InvalidValueError, match="is not seccomp:allow:NAME or seccomp:deny:NAME"):
        translated(word)


def test_seed_is_what_the_documents_list() -> None:
    seed = given("seed")
    # What the documents name, and what the 32-bit clock_adjtime with 64-bit times is called.
    assert seed.deny == SEED | {"clock_adjtime64"}
    # Old networks, and all after Netlink; what is left is what containers use.
    assert [n for n in range(70000) if not any(n in each for each in seed.families)] == [
        *(0, 1, 2, 10, 16),
        *range(65536, 70000),
    ]
    assert seed.native
    assert not seed.new_privileges
    assert not seed.capabilities
    assert seed.filters


@each("profile", ["default", "strict"])
def test_the_other_profiles_leave_the_engines_filter_as_it_is(profile: str) -> None:
    found = given(profile)
    assert not found.filters
    assert not found.new_privileges
    assert not found.capabilities
    assert found.as_root == (profile == "default")


def test_a_policy_differs_from_its_profile() -> None:
    found = given(
        "seed",
        cap_add=["net_raw"],
        allow_syscalls=["kcmp"],
        deny_syscalls=["getcwd"],
        allow_families=["alg"],
        deny_families=["inet6"],
        arch="all",
        new_privileges=True,
    )
    assert found.capabilities == {"net_raw"}
    assert found.deny == SEED - {"kcmp"} | {"getcwd", "clock_adjtime64"}
    assert found.allow == {"kcmp"}
    assert found.families & IdSet([IdRange(0, 40)]) == IdSet(
        [IdRange(3, 7), IdRange(10, 6), IdRange(17, 21), IdRange(39, 1)]
    )
    assert not found.native
    assert found.new_privileges


def test_all_capabilities_are_all_that_the_kernel_has() -> None:
    assert given(cap_add=["all"]).capabilities == set(CAPABILITIES)
    assert given(cap_add=["net_raw"], cap_drop=["all"]).capabilities == {"net_raw"}


def test_all_denied_are_all_but_what_is_allowed() -> None:
    found = given("seed", deny_syscalls=["all"], allow_syscalls=["read", "kcmp"])
    assert found.deny_all
    assert found.allow == {"read", "kcmp"}


@each(
    ("denied", "allowed", "all_of_them"),
    [
        (["chown"], [], {"chown", "chown32"}),
        (["futex"], [], {"futex", "futex_time64"}),
        (["stat"], [], {"stat", "stat64", "oldstat"}),
        (["mmap", "newfstatat"], [], {"mmap", "mmap2", "newfstatat", "fstatat64"}),
        # It has a name of its own on every architecture.
        (["getdents"], [], {"getdents", "readdir"}),
        (["chown32"], [], {"chown32"}),
        (["chown"], ["chown32"], {"chown"}),
        (["getcwd"], [], {"getcwd"}),
    ],
)
def test_a_call_that_is_denied_is_denied_by_its_other_names_too(
    denied: list[str], allowed: list[str], all_of_them: set[str]
) -> None:
    assert given(deny_syscalls=denied, allow_syscalls=allowed).deny == all_of_them


def test_what_a_profile_denies_and_somebody_allows_takes_its_other_names_along() -> None:
    assert given("seed", allow_syscalls=["clock_adjtime"]).deny == SEED - {"clock_adjtime"}
