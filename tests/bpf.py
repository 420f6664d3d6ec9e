"""Filters of system calls: libseccomp makes one of a profile, as crun and runc do, and a small interpreter runs it."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import os
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from tests.command import missing

# linux/audit.h: an ELF machine, and whether it has 64 bits and the least significant byte first.
AUDIT: Final = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7}
# How libseccomp spells them; it takes the names of the OCI in lower case, without SCMP_ARCH_.
SCMP: Final = {"x86_64": "x86_64", "i386": "x86", "aarch64": "aarch64"}

# linux/seccomp.h.
KILL_PROCESS, KILL_THREAD, TRAP, ERRNO = 0x80000000, 0, 0x30000, 0x50000
NOTIFY, TRACE, LOG, ALLOW = 0x7FC00000, 0x7FF00000, 0x7FFC0000, 0x7FFF0000
ACTIONS: Final = {
    "SCMP_ACT_KILL": KILL_THREAD, "SCMP_ACT_KILL_THREAD": KILL_THREAD, "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": TRAP, "SCMP_ACT_ERRNO": ERRNO, "SCMP_ACT_NOTIFY": NOTIFY, "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_LOG": LOG, "SCMP_ACT_ALLOW": ALLOW,
}  # fmt: skip
PASSES: Final = (NOTIFY, TRACE, LOG, ALLOW)
# enum scmp_compare of seccomp.h.
COMPARED: Final = {
    f"SCMP_CMP_{name}": number
    for number, name in enumerate(("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"), 1)
}
NATIVE, UNKNOWN = 0, -1


class Condition(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64),
    )  # fmt: skip


class Instruction(NamedTuple):
    """struct sock_filter."""

    code: int
    if_true: int
    if_false: int
    k: int


Program = list[Instruction]


@functools.cache
def libseccomp() -> ctypes.CDLL:
    name = ctypes.util.find_library("seccomp")
    if name is None:
        missing("libseccomp")
    found = ctypes.CDLL(name)
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    for adds in (found.seccomp_rule_add_array, found.seccomp_rule_add_exact_array):
        adds.argtypes = (
            ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Condition),
        )  # fmt: skip
    return found


def number(call: str, arch: str) -> int:
    """What libseccomp takes for a call: negative, if this architecture has no such number."""
    token = libseccomp().seccomp_arch_resolve_name(SCMP[arch].encode())
    found: int = libseccomp().seccomp_syscall_resolve_name_arch(token, call.encode())
    return found


def program(profile: Mapping[str, Any], native: str = "x86_64") -> Program:
    """The filter of linux.seccomp, on a machine of this architecture, as crun and runc make it."""
    lib = libseccomp()
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    context = ctypes.c_void_p(lib.seccomp_init(default))
    try:
        here = [
            SCMP[native],
            *(name.removeprefix("SCMP_ARCH_").lower() for name in profile.get("architectures", ())),
        ]
        tokens = [lib.seccomp_arch_resolve_name(name.encode()) for name in here]
        assert all(tokens), here
        for token in tokens:
            _done(lib.seccomp_arch_add(context, ctypes.c_uint32(token)), (-17,))
        own = lib.seccomp_arch_native()
        if ctypes.c_uint32(own).value not in tokens:
            _done(lib.seccomp_arch_remove(context, ctypes.c_uint32(own)))
        for rule in profile["syscalls"]:
            _add(context, rule, default)
        return _exported(context)
    finally:
        lib.seccomp_release(context)


def lxc_program(text: str, arch: str = "x86_64") -> Program:
    """The filter of LXC's version 2, for one architecture of a machine of x86_64, as LXC makes it.

    Sections are not heeded, and a call that libseccomp has no number for here is left out.
    """
    version, kind, *lines = text.splitlines()
    assert version == "2"
    style, *default = kind.split()
    assert style in {"allowlist", "denylist"}
    deny = style == "denylist"
    action = _lxc_action(default) if default else ALLOW if deny else KILL_THREAD
    lib = libseccomp()
    context = ctypes.c_void_p(lib.seccomp_init(action))
    try:
        token = ctypes.c_uint32(lib.seccomp_arch_resolve_name(SCMP[arch].encode()))
        _done(lib.seccomp_arch_add(context, token), (-17,))
        if arch != "x86_64":
            _done(lib.seccomp_arch_remove(context, ctypes.c_uint32(lib.seccomp_arch_native())))
        for line in lines:
            if line.startswith(("[", "#")):
                continue
            name, _, rest = line.partition(" ")
            words, *groups = rest.split("#")[0].split("[")
            args = [_lxc_argument(group) for group in groups]
            does = _lxc_action(words.split()) if words.split() else KILL_THREAD if deny else ALLOW
            if name == "reject_force_umount":
                name, does, args = (
                    "umount2",
                    ERRNO | 13,
                    [Condition(1, COMPARED["SCMP_CMP_MASKED_EQ"], 1, 1)],
                )
            if number(name, arch) < 0:
                continue
            call = lib.seccomp_syscall_resolve_name(name.encode())
            array = (Condition * max(len(args), 1))(*args)
            result = lib.seccomp_rule_add_exact_array(context, does, call, len(args), array)
            assert result == 0, f"{line}: {os.strerror(-result)}"
        return _exported(context)
    finally:
        lib.seccomp_release(context)


def _lxc_action(words: list[str]) -> int:
    named = {"kill": KILL_THREAD, "trap": TRAP, "allow": ALLOW, "notify": NOTIFY}
    return ERRNO | int(words[1]) if words[0] == "errno" else named[words[0]]


def _lxc_argument(group: str) -> Condition:
    index, value, op, *mask = group.rstrip().rstrip("]").split(",")
    if op == "SCMP_CMP_MASKED_EQ":
        return Condition(int(index), COMPARED[op], int(mask[0]), int(value))
    return Condition(int(index), COMPARED[op], int(value), 0)


def _add(context: ctypes.c_void_p, rule: Mapping[str, Any], default: int) -> None:
    action = _action(rule["action"], rule.get("errnoRet"))
    if action == default:
        return
    args = [
        Condition(one["index"], COMPARED[one["op"]], one["value"], one.get("valueTwo", 0))
        for one in rule.get("args") or ()
    ]
    alone = len({one.arg for one in args}) < len(args)
    for name in rule["names"]:
        call = libseccomp().seccomp_syscall_resolve_name(name.encode())
        if call == UNKNOWN:
            continue
        for some in [[one] for one in args] if alone else [args]:
            array = (Condition * max(len(some), 1))(*some)
            result = libseccomp().seccomp_rule_add_array(context, action, call, len(some), array)
            assert result == 0, f"{rule}: {name}: {os.strerror(-result)}"


def _action(name: str, errno: int | None) -> int:
    if name in {"SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"}:
        return ACTIONS[name] | (1 if errno is None else errno)
    assert errno is None, "crun refuses an errno here"
    return ACTIONS[name]


def _done(result: int, but: Iterable[int] = ()) -> None:
    assert result == 0 or result in but, os.strerror(-result)


def _exported(context: ctypes.c_void_p) -> Program:
    place = os.memfd_create("filter")
    try:
        _done(libseccomp().seccomp_export_bpf(context, place))
        size = os.fstat(place).st_size
        return [
            Instruction(*each) for each in struct.iter_unpack("=HBBI", os.pread(place, size, 0))
        ]
    finally:
        os.close(place)


def run(code: Program, arch: str, call: int, args: Iterable[int] = ()) -> int:
    """What the filter answers for a call: classic BPF, as far as seccomp(2) lets a filter use it."""
    words = [*args, *[0] * 6][:6]
    data = struct.pack("=iIQ6Q", ctypes.c_int(call).value, AUDIT[arch], 0, *words)
    a = x = at = 0
    memory = [0] * 16
    while True:
        op, if_true, if_false, k = code[at]
        at += 1
        kind, operand = op & 7, x if op & 8 else k
        if op == 0x20:  # ld [k]
            (a,) = struct.unpack_from("=I", data, k)
        elif op in {0x60, 0x61}:  # ld M[k], ldx M[k]
            a, x = (memory[k], x) if op == 0x60 else (a, memory[k])
        elif kind in {2, 3}:  # st, stx
            memory[k] = a if kind == 2 else x
        elif op in {0x00, 0x01}:  # ld #k, ldx #k
            a, x = (k, x) if op == 0 else (a, k)
        elif kind == 4 and op & 0xF0 == 0x50:  # and
            a &= operand
        elif kind == 5:
            test = op & 0xF0
            at += (
                k if test == 0
                else if_true if (a == operand if test == 0x10 else a > operand if test == 0x20
                                 else a >= operand if test == 0x30 else bool(a & operand))
                else if_false
            )  # fmt: skip
        elif op in {0x07, 0x87}:  # tax, txa
            a, x = (a, a) if op == 0x07 else (x, x)
        elif op in {0x06, 0x16}:  # ret
            return k if op == 0x06 else a
        else:
            raise AssertionError(f"an instruction that no filter of libseccomp has: {op:#x}")


def passes(answer: int) -> bool:
    return answer & 0xFFFF0000 in PASSES
