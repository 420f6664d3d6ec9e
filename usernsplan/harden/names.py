"""What the kernel calls capabilities, address families and system calls. Pure.

People may write a name as any program does: CAP_NET_RAW or net_raw, AF_AX25, ax25 or 3.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from usernsplan.errors import InvalidValueError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

# By number, from 0: linux/capability.h of Linux 5.9 and later.
CAPABILITIES: Final = (
    *(
        "chown",
        "dac_override",
        "dac_read_search",
        "fowner",
        "fsetid",
        "kill",
        "setgid",
        "setuid",
        "setpcap",
    ),
    *(
        "linux_immutable",
        "net_bind_service",
        "net_broadcast",
        "net_admin",
        "net_raw",
        "ipc_lock",
        "ipc_owner",
    ),
    *(
        "sys_module",
        "sys_rawio",
        "sys_chroot",
        "sys_ptrace",
        "sys_pacct",
        "sys_admin",
        "sys_boot",
        "sys_nice",
    ),
    *(
        "sys_resource",
        "sys_time",
        "sys_tty_config",
        "mknod",
        "lease",
        "audit_write",
        "audit_control",
        "setfcap",
    ),
    *(
        "mac_override",
        "mac_admin",
        "syslog",
        "wake_alarm",
        "block_suspend",
        "audit_read",
        "perfmon",
        "bpf",
    ),
    "checkpoint_restore",
)

# Where system calls have numbers of their own. The first is that of the host, for most.
ARCHITECTURES: Final = ("x86_64", "i386", "aarch64")
# All capabilities, or all system calls.
ALL: Final = "all"
# Linux's socket.h, by number; the others have no name that a program would use.
FAMILIES: Final = {
    0: "UNSPEC", 1: "UNIX", 2: "INET", 3: "AX25", 4: "IPX", 5: "APPLETALK", 6: "NETROM",
    7: "BRIDGE", 8: "ATMPVC", 9: "X25", 10: "INET6", 11: "ROSE", 12: "DECNET", 13: "NETBEUI",
    14: "SECURITY", 15: "KEY", 16: "NETLINK", 17: "PACKET", 18: "ASH", 19: "ECONET", 20: "ATMSVC",
    21: "RDS", 22: "SNA", 23: "IRDA", 24: "PPPOX", 25: "WANPIPE", 26: "LLC", 27: "IB", 28: "MPLS",
    29: "CAN", 30: "TIPC", 31: "BLUETOOTH", 32: "IUCV", 33: "RXRPC", 34: "ISDN", 35: "PHONET",
    36: "IEEE802154", 37: "CAIF", 38: "ALG", 39: "NFC", 40: "VSOCK", 41: "KCM", 42: "QIPCRTR",
    43: "SMC", 44: "XDP", 45: "MCTP",
}  # fmt: skip
# How 32-bit architectures name a call that was widened: clock_adjtime64, futex_time64, chown32.
_WIDENED: Final = ("64", "_time64", "32")
# Those that have it otherwise.
_OLDER_OR_NEWER: Final = {
    "fadvise64": ("fadvise64_64",), "fstat": ("oldfstat",), "getdents": ("readdir",),
    "getrlimit": ("ugetrlimit",), "lseek": ("_llseek",), "lstat": ("oldlstat",), "mmap": ("mmap2",),
    "newfstatat": ("fstatat64",), "rt_sigaction": ("sigaction", "signal"),
    "rt_sigpending": ("sigpending",), "rt_sigprocmask": ("sigprocmask",),
    "rt_sigreturn": ("sigreturn",), "rt_sigsuspend": ("sigsuspend",), "select": ("_newselect",),
    "settimeofday": ("stime",), "stat": ("oldstat",), "umount2": ("umount",),
    "uname": ("olduname", "oldolduname"), "wait4": ("waitpid",),
}  # fmt: skip
# The kernel refuses a number above that of the last family; a newer one has more.
_OTHER_FAMILIES: Final = {"LOCAL": 1, "ROUTE": 16}
MOST_FAMILIES: Final = 65536


def capability(text: str) -> str:
    """A capability in lower case without CAP_, or ALL. Raises InvalidValueError."""
    name = text.lower().removeprefix("cap_")
    if name != ALL and name not in CAPABILITIES:
        hint = did_you_mean(name, CAPABILITIES, "capabilities(7) lists them")
        raise InvalidValueError(f"there is no capability '{text}'", hint=hint)
    return name


def kernel_names(capabilities: Iterable[str]) -> list[str]:
    """Capabilities as the kernel's headers spell them, in the order given."""
    return [f"CAP_{name.upper()}" for name in capabilities]


def family(text: str) -> int:
    """The number of an address family. Raises InvalidValueError."""
    name = text.upper().removeprefix("AF_").removeprefix("PF_")
    if name.isascii() and name.isdecimal() and int(name) < MOST_FAMILIES:
        return int(name)
    known = {name: number for number, name in FAMILIES.items()} | _OTHER_FAMILIES
    if name not in known:
        hint = did_you_mean(name, known, "address_families(7) lists them; a number will do, too")
        raise InvalidValueError(f"there is no address family '{text}'", hint=hint)
    return known[name]


def family_name(number: int) -> str:
    """The name of an address family, or its number if it has none."""
    return FAMILIES.get(number, str(number))


def system_call(text: str) -> str:
    """A system call that one of ARCHITECTURES has. Raises InvalidValueError."""
    name = text.lower()
    # To libseccomp, and so to every profile, this one has an underscore.
    name = "_sysctl" if name == "sysctl" else name
    if name not in system_calls():
        hint = did_you_mean(name, system_calls(), "syscalls(2) lists them")
        raise InvalidValueError(f"there is no system call '{text}'", hint=hint)
    return name


def other_names(call: str) -> frozenset[str]:
    """What a 32-bit architecture also calls a system call: as with 64-bit times, files or 32-bit ids.

    A program there may use either, so who refuses the one has to refuse the other.
    """
    widened = {f"{call}{suffix}" for suffix in _WIDENED}
    found = {*_OLDER_OR_NEWER.get(call, ()), *(widened & system_calls().keys())}
    # getdents64 is another call, which a 64-bit architecture has beside the one that it replaces.
    return frozenset(name for name in found if "x86_64" not in system_calls()[name])


@cache
def system_calls() -> dict[str, dict[str, int]]:
    """The number of each system call by architecture; an architecture that lacks it is not there."""
    from importlib.resources import files  # noqa: PLC0415 - most commands name none

    text = files("usernsplan.harden").joinpath("syscalls.txt").read_text("ascii")
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, *numbers = line.split()
            pairs = zip(ARCHITECTURES, numbers, strict=True)
            found[name] = {arch: int(number) for arch, number in pairs if number != "-"}
    return found
