"""What the kernel calls capabilities, address families and system calls, and what people type for it."""

from __future__ import annotations

import socket

import pytest

from tests import bpf
from tests.each import each
from usernsplan.errors import InvalidValueError
from usernsplan.harden import names


@each(
    ("text", "name"),
    [
        ("net_raw", "net_raw"), ("NET_RAW", "net_raw"), ("CAP_NET_RAW", "net_raw"), ("cap_net_raw", "net_raw"),
        ("ALL", "all"), ("all", "all"),
    ],
)  # fmt: skip
def test_a_capability_may_be_written_as_any_program_does(text: str, name: str) -> None:
    assert names.capability(text) == name


@each(
    ("text", "number"),
    [
        ("AX25", 3), ("ax25", 3), ("AF_AX25", 3), ("PF_AX25", 3), ("af_ax25", 3), ("3", 3), ("AF_DECnet", 12),
        ("local", 1), ("AF_ROUTE", 16), ("0", 0), ("65535", 65535),
    ],
)  # fmt: skip
def test_a_family_may_be_a_name_or_a_number(text: str, number: int) -> None:
    assert names.family(text) == number


@each(
    "number", [number for number, name in names.FAMILIES.items() if hasattr(socket, f"AF_{name}")]
)
def test_families_have_the_numbers_that_python_was_built_with(number: int) -> None:
    assert getattr(socket, f"AF_{names.FAMILIES[number]}") == number


@each(
    ("check", "text", "fact", "remedy"),
    [
        (names.capability, "net_row", "there is no capability 'net_row'", "did you mean net_raw?"),
        (names.capability, "", "there is no capability ''", "capabilities(7)"),
        (names.family, "AF_AX26", "there is no address family 'AF_AX26'", "did you mean AX25?"),
        (names.family, "65536", "there is no address family '65536'", "a number will do"),
        (names.family, "-1", "there is no address family '-1'", ""),
        (names.family, "٣", "there is no address family '٣'", ""),
        (names.system_call, "kexec_lod", "there is no system call 'kexec_lod'", "did you mean kexec_load?"),
        (names.system_call, "open by", "there is no system call 'open by'", ""),
    ],
)  # fmt: skip
def test_a_name_that_does_not_exist_is_refused(
    check: object, text: str, fact: str, remedy: str
) -> None:
    assert callable(check)
    with pytest.raises(InvalidValueError) as caught:
        check(text)
    assert str(caught.value) == fact
    assert remedy in caught.value.hint


def test_a_call_is_named_as_libseccomp_names_it() -> None:
    assert names.system_call("sysctl") == names.system_call("_sysctl") == "_sysctl"
    assert names.system_call("KCMP") == "kcmp"


def test_a_call_of_one_architecture_alone_is_no_error() -> None:
    assert names.system_calls()[names.system_call("sysfs")] == {"x86_64": 139, "i386": 135}
    assert "aarch64" not in names.system_calls()["iopl"]


@each("arch", names.ARCHITECTURES)
def test_numbers_are_those_of_libseccomp(arch: str) -> None:
    """Where it knows the call at all: it may be older than the table."""
    compared = 0
    for name, numbers in names.system_calls().items():
        theirs = bpf.number(name, arch)
        if theirs >= 0:
            assert numbers.get(arch) == theirs, name
            compared += 1
    assert compared > 250
