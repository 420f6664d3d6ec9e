"""Every system call under a policy, and which of them its filter has to refuse.

What is expected comes from the policy's own words and the engine's own profile, by a model that is as plain as it can
be: it has nothing of the package but the names and numbers of the kernel.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from tests import bpf
from tests.engines import probe
from tests.engines.throwaway import REPOSITORY, require
from usernsplan.harden.names import system_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    # Whether an engine's own profile refuses a call with these two arguments; all others are 0.
    Refuses = Callable[[str, int, int], bool]

OWN, FOREIGN = "x86_64", "i386"
PODMANS = Path("/usr/share/containers/seccomp.json")
LXCS = Path("/usr/share/lxc/config/common.seccomp")
# With all arguments 0 these wait for ever. Where they are refused they are called like all others.
WAITS = {"pause", "select", "_newselect", "pselect6", "ppoll", "msgrcv", "sigsuspend"}
FAMILIES = range(46)
DATAGRAM = 2
# All that these tests say about 32-bit programs is about what a policy refuses, and these few.
FOREIGN_ALLOWED = ("getpid", "uname", "stat64", "mmap2")
SYS_SOCKET = 1


class Asked(NamedTuple):
    """A policy as its words have it, and what these words mean."""

    words: tuple[str, ...]
    deny: frozenset[str]
    families: frozenset[int] = frozenset()
    allow: frozenset[str] = frozenset()
    native: bool = False


_SEEDS = frozenset(
    yaml.safe_load((REPOSITORY / "usernsplan/harden/profiles/seed.yaml").read_text())[
        "deny-syscalls"
    ]
)
# AX25 to BRIDGE, ATMPVC and X25; ROSE to KEY; all above NETLINK. From linux/socket.h.
_OLD = frozenset({*range(3, 10), *range(11, 16), *range(17, 46)})
# Calls of each kind of use, some of them old ones beside new ones; none that a shell, a runtime or the probe makes.
_SOME = (
    "mkdir", "mkdirat", "mknodat", "symlink", "linkat", "inotify_init", "inotify_init1", "splice", "tee", "add_key",
    "keyctl", "shmget", "msgget", "timer_create", "pause", "reboot", "truncate", "utime", "sync",
)  # fmt: skip
_BACK = ("kcmp", "open_by_handle_at")
# INET, INET6 and PACKET, which every engine lets through, and the last that is known.
_NEW = (2, 10, 17, 45)

SEED = Asked(("--profile", "seed"), _SEEDS, _OLD, native=True)
SEED_ALL = Asked(("--profile", "seed", "--arch", "all"), _SEEDS, _OLD)
SOME = Asked(
    (
        *("--profile", "default", "--deny-syscall", ",".join(_SOME)),
        *("--allow-syscall", ",".join(_BACK), "--deny-family", ",".join(map(str, _NEW))),
    ),
    frozenset(_SOME),
    frozenset(_NEW),
    frozenset(_BACK),
)
POLICIES = {"seed": SEED, "seed for all": SEED_ALL, "some": SOME}


class Call(NamedTuple):
    """A system call with two arguments."""

    name: str
    first: int = 0
    second: int = 0
    arch: str = OWN

    @property
    def word(self) -> str:
        """What the probe reads."""
        arch = "" if self.arch == OWN else self.arch
        return probe.call(self.name, self.first, self.second, arch=arch)


def own(asked: Asked) -> list[Call]:
    """Every call of the machine, and every family."""
    every = [name for name, numbers in system_calls().items() if OWN in numbers]
    return [
        *(Call(name) for name in every if name in asked.deny or name not in WAITS),
        *(Call("socket", family, DATAGRAM) for family in FAMILIES),
    ]


def foreign(asked: Asked) -> list[Call]:
    """What is refused by name, as a 32-bit program has it, and a few others."""
    numbers = system_calls()
    names = [name for name in sorted(asked.deny) if FOREIGN in numbers[name]]
    return [Call(name, arch=FOREIGN) for name in (*names, *FOREIGN_ALLOWED)]


def socketcall(family: int) -> Call:
    """socket(2) for a family, by the door that 32-bit programs have for it."""
    return Call("socketcall", SYS_SOCKET, family, arch=FOREIGN)


def refuses(asked: Asked, base: Refuses, call: Call) -> bool:
    """Whether a call of this machine has to be refused."""
    if call.name in asked.deny:
        return True
    if call.name == "socket" and call.first in asked.families:
        return True
    return call.name not in asked.allow and base(call.name, call.first, call.second)


def mistakes(
    asked: Asked,
    calls: Iterable[Call],
    ended: Iterable[int],
    base: Refuses,
    others: Collection[int] = (),
) -> dict[Call, int]:
    """The calls that did not end as they have to, and how they did.

    ``others`` are what the engine has for a call that no rule names, if that cannot be set.
    """
    found = {}
    for call, how in zip(calls, ended, strict=True):
        if call.arch != OWN and asked.native:
            right = how == -signal.SIGSYS
        elif call.arch != OWN:
            right = (how == probe.OURS) == (call.name in asked.deny)
        elif refuses(asked, base, call):
            right = how == probe.OURS or (call.name not in asked.deny and how in others)
        else:
            right = how != probe.OURS
        if not right or how == probe.WAITED:
            found[call] = how
    return found


def podmans() -> str:
    """Podman's own profile, which also serves as one for other engines."""
    require("podman")
    return PODMANS.read_text()


def nothing(name: str, first: int, second: int) -> bool:
    """An engine without a profile of its own."""
    del name, first, second
    return False


def of_docker(text: str | bytes) -> Refuses:
    """A profile in the form of Docker and Podman, for a container without capabilities on x86-64."""
    profile = json.loads(text)
    default = profile["defaultAction"]

    def refuse(name: str, first: int, second: int) -> bool:
        # libseccomp leaves out what it has no number for.
        known = bpf.number(name, OWN) >= 0
        for rule in profile.get("syscalls", ()) if known else ():
            if name in rule["names"] and _applies(rule) and _holds(rule, (first, second)):
                return bool(rule["action"] != "SCMP_ACT_ALLOW")
        return bool(default != "SCMP_ACT_ALLOW")

    return refuse


def _applies(rule: Mapping[str, Any]) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    assert {*includes, *excludes} <= {"caps", "arches"}
    return (
        not includes.get("caps")
        and "amd64" in includes.get("arches", ["amd64"])
        and "amd64" not in excludes.get("arches", ())
    )


def _holds(rule: Mapping[str, Any], args: tuple[int, int]) -> bool:
    words = [*args, 0, 0, 0, 0]
    compared = {"SCMP_CMP_EQ": lambda a, b: a == b, "SCMP_CMP_NE": lambda a, b: a != b}
    return all(
        compared[one["op"]](words[one["index"]], one["value"]) for one in rule.get("args") or ()
    )


def of_lxc(text: str) -> Refuses:
    """LXC's own: names with an errno. The one line that looks at an argument refuses nothing here: it is 0."""
    names = {line.split()[0] for line in text.splitlines() if " errno " in line}

    def refuse(name: str, first: int, second: int) -> bool:
        del first, second
        return name in names

    return refuse


def words(calls: Iterable[Call]) -> Iterator[str]:
    """What the probe reads."""
    return (call.word for call in calls)
