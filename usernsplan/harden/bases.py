"""Profiles of engines as values: what refuses system calls where no policy does. Pure.

They are read in the OCI's form, which crun and runc take, and in the wider one of Docker and Podman,
whose rules have conditions.
"""

from __future__ import annotations

import errno as errnos
import json
import operator
from typing import TYPE_CHECKING, Any, Final

from usernsplan.errors import InvalidFileError, InvalidValueError, did_you_mean
from usernsplan.harden.names import kernel_names
from usernsplan.patterns import pattern
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

EPERM: Final = 1
ALLOW, ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
# With these a call may go on: it is logged, or another process decides.
PASSING: Final = frozenset({ALLOW, "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY"})
# These are harder than an errno, and stay.
HARDER: Final = frozenset(
    {"SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP"}
)
ACTIONS: Final = PASSING | HARDER | {ERRNO}
_NUMBERED: Final = frozenset({ERRNO, "SCMP_ACT_TRACE"})
_COMPARED: Final[dict[str, Callable[[int, int], bool]]] = {
    "SCMP_CMP_NE": operator.ne,
    "SCMP_CMP_LT": operator.lt,
    "SCMP_CMP_LE": operator.le,
    "SCMP_CMP_EQ": operator.eq,
    "SCMP_CMP_GE": operator.ge,
    "SCMP_CMP_GT": operator.gt,
}
EQUAL, UNLIKE, MASKED = "SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_MASKED_EQ"
_ARGUMENTS, _WORD = 6, 1 << 64
_HANDED_ON: Final = ("flags", "listenerPath", "listenerMetadata")
_TOP: Final = frozenset({
    "defaultAction", "defaultErrnoRet", "defaultErrno", "architectures", "archMap", "syscalls",
    *_HANDED_ON,
})  # fmt: skip
_ARCHMAP: Final = frozenset({"architecture", "subArchitectures"})
_RULE: Final = frozenset(
    {"name", "names", "action", "errnoRet", "errno", "args", "comment", "includes", "excludes"}
)
_ARGUMENT: Final = frozenset({"index", "value", "valueTwo", "op"})
_CONDITIONS: Final = frozenset({"caps", "arches", "minKernel"})


class Machine(NamedTuple):
    """Names of an architecture: in conditions of profiles, to libseccomp, and what else it runs."""

    go: str
    own: str
    others: tuple[str, ...] = ()


_MACHINES: Final = {
    # Without x32, whose programs are killed then: no distribution's kernel runs them, and with it
    # libseccomp 2.5 forgets to read the number of a call if a rule names one of i386 alone.
    "x86_64": Machine("amd64", "SCMP_ARCH_X86_64", ("SCMP_ARCH_X86",)),
    "aarch64": Machine("arm64", "SCMP_ARCH_AARCH64", ("SCMP_ARCH_ARM",)),
    "ppc64le": Machine("ppc64le", "SCMP_ARCH_PPC64LE"),
    "riscv64": Machine("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": Machine("s390x", "SCMP_ARCH_S390X", ("SCMP_ARCH_S390",)),
}


def machine_of(name: str) -> Machine:
    """The machine that uname(2) names so. Raises InvalidValueError for one that is unknown here."""
    if name not in _MACHINES:
        hint = f"known are {', '.join(_MACHINES)}"
        raise InvalidValueError(f"no filter of system calls can be made for '{name}'", hint=hint)
    return _MACHINES[name]


class Argument(NamedTuple):
    """A condition on one of the six arguments of a call, as in the OCI: a mask is in ``value``."""

    at: int
    value: int
    value_two: int
    op: str

    def holds(self, word: int) -> bool:
        """Tell whether the condition holds for these 64 bits."""
        if self.op == MASKED:
            return word & self.value == self.value_two
        return _COMPARED[self.op](word, self.value)


class Rule(NamedTuple):
    """What happens to calls of these names for which all conditions hold.

    ``errno`` is None for actions without a number. No two conditions are on one argument. Where two
    rules are at odds, for libseccomp mostly the first counts, so the order of all is kept.
    """

    names: tuple[str, ...]
    action: str = ALLOW
    errno: int | None = None
    args: tuple[Argument, ...] = ()

    def without(self, gone: Collection[str]) -> Rule:
        """The rule for its other names."""
        return self._replace(names=tuple(name for name in self.names if name not in gone))


class Base(NamedTuple):
    """A profile of an engine: what it does with a call that no rule is for, and its rules.

    ``architectures`` None is any that the machine runs; () is its own alone. ``others`` are keys
    that we hand on as they are.
    """

    action: str = ALLOW
    errno: int | None = None
    rules: tuple[Rule, ...] = ()
    architectures: tuple[str, ...] | None = None
    others: tuple[tuple[str, Any], ...] = ()


# The base of an engine without a filter of its own.
NO_FILTER: Final = Base()


def base_of(
    raw: bytes, place: str, *, capabilities: Collection[str], machine: str, kernel: str
) -> Base:
    """Read a profile in the OCI's form, or in the wider one of Docker and Podman.

    Conditions are resolved for a container that keeps these ``capabilities`` (lower case, without
    CAP_), and for a ``machine`` and ``kernel`` as uname(2) names them. ``place`` is the path, for
    messages. Raises InvalidFileError for what is not a profile, and for a key that we do not know:
    it might be what makes a rule strict.
    """
    reader = _Reader(place, frozenset(capabilities), machine_of(machine), _version(kernel))
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise reader.wrong(f"is not JSON: {error}") from None
    return reader.base(said)


def _version(text: str) -> tuple[int, int]:
    found = pattern(r"([0-9]{1,9})\.([0-9]{1,9})").match(text)
    if not found:
        raise InvalidValueError(f"'{text}' is no version of a kernel")
    return int(found[1]), int(found[2])


class _Reader(NamedTuple):
    """Reads a profile, for one container on one machine."""

    place: str
    capabilities: frozenset[str]
    machine: Machine
    kernel: tuple[int, int]

    def wrong(self, fact: str) -> InvalidFileError:
        hint = "give a profile in the form of Docker, Podman or the OCI"
        return InvalidFileError(self.place, fact, hint=hint)

    def base(self, said: object) -> Base:
        top = self.members(said, _TOP, "the profile")
        action, errno = self.action(top, "defaultAction", "defaultErrnoRet", "defaultErrno", "")
        if top.get("architectures") and top.get("archMap"):
            raise self.wrong("has both architectures and archMap")
        rules = [
            rule
            for number, one in enumerate(self.list_of(top, "syscalls"), 1)
            for rule in self.rules(one, f"rule {number}")
        ]
        here = self.archmap(top) if top.get("archMap") else self.words(top, "architectures")
        others = tuple((key, top[key]) for key in _HANDED_ON if key in top)
        return Base(action, errno, tuple(rules), here, others)

    def archmap(self, top: Mapping[str, Any]) -> tuple[str, ...]:
        for one in self.list_of(top, "archMap"):
            each = self.members(one, _ARCHMAP, "archMap")
            if each.get("architecture") == self.machine.own:
                return (self.machine.own, *self.words(each, "subArchitectures"))
        return ()

    def rules(self, said: object, where: str) -> list[Rule]:
        """The rules that one entry makes here: none, if its conditions do not hold."""
        one = self.members(said, _RULE, where)
        action, errno = self.action(one, "action", "errnoRet", "errno", f"{where}: ")
        calls = self.words(one, "names")
        if name := one.get("name"):
            if calls or not isinstance(name, str):
                raise self.wrong(f"{where}: has both name and names")
            calls = (name,)
        args = tuple(self.argument(arg, where) for arg in self.list_of(one, "args"))
        if not self.applies(one, where):
            return []
        rule = Rule(calls, action, errno, args)
        if len({arg.at for arg in args}) < len(args):
            # As crun and runc read it: each condition is a rule of its own.
            return [rule._replace(args=(arg,)) for arg in args]
        return [rule]

    def applies(self, one: Mapping[str, Any], where: str) -> bool:
        includes, excludes = (
            self.members({} if one.get(key) is None else one[key], _CONDITIONS, where)
            for key in ("includes", "excludes")
        )
        kept = {*kernel_names(self.capabilities)}
        arches = self.words(includes, "arches")
        return (
            kept.issuperset(self.words(includes, "caps"))
            and kept.isdisjoint(self.words(excludes, "caps"))
            and (not arches or self.machine.go in arches)
            and self.machine.go not in self.words(excludes, "arches")
            and self.kernel >= self.least(includes, where, (0, 0))
            and self.kernel < self.least(excludes, where, (1 << 32, 0))
        )

    def least(
        self, said: Mapping[str, Any], where: str, default: tuple[int, int]
    ) -> tuple[int, int]:
        text = said.get("minKernel") or ""
        try:
            return _version(text) if text else default
        except (InvalidValueError, TypeError):
            raise self.wrong(f"{where}: minKernel is no version of a kernel") from None

    def action(
        self, said: Mapping[str, Any], key: str, number: str, name: str, where: str
    ) -> tuple[str, int | None]:
        action = said.get(key)
        if not isinstance(action, str) or action not in ACTIONS:
            raise self.wrong(f"{where}{key} is no action of seccomp")
        if action not in _NUMBERED:
            return action, None
        errno = said.get(number)
        # Podman's word for the same; where it has both, this one counts.
        if word := said.get(name):
            errno = getattr(errnos, str(word), "")
        errno = EPERM if errno is None else errno
        if not _is_number(errno, 1 << 16):
            raise self.wrong(f"{where}{number} is no errno")
        return action, errno

    def argument(self, said: object, where: str) -> Argument:
        one = self.members(said, _ARGUMENT, where)
        found = Argument(
            one.get("index", 0), one.get("value", 0), one.get("valueTwo", 0), str(one.get("op"))
        )
        if not (
            _is_number(found.at, _ARGUMENTS)
            and _is_number(found.value, _WORD)
            and _is_number(found.value_two, _WORD)
            and (found.op in _COMPARED or found.op == MASKED)
        ):
            raise self.wrong(f"{where}: args is no list of conditions")
        return found

    def members(self, said: object, known: Collection[str], where: str) -> Mapping[str, Any]:
        if not isinstance(said, dict):
            raise self.wrong(f"{where} is no object")
        for key in said.keys() - known:
            raise InvalidFileError(
                self.place,
                f"{where} has a key '{key}', which is unknown here",
                hint=did_you_mean(
                    key, known, "it may change what a rule means, so it is not left out"
                ),
            )
        return said

    def list_of(self, said: Mapping[str, Any], key: str) -> list[Any]:
        found = [] if said.get(key) is None else said[key]
        if not isinstance(found, list):
            raise self.wrong(f"{key} is no list")
        return found

    def words(self, said: Mapping[str, Any], key: str) -> tuple[str, ...]:
        found = self.list_of(said, key)
        if not all(isinstance(word, str) for word in found):
            raise self.wrong(f"{key} is no list of words")
        return tuple(found)


def _is_number(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit
