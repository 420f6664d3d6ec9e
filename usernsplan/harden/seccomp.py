"""A policy as filters of system calls, laid over what an engine refuses already. Pure.

A profile that is given to Docker or Podman replaces their own, which lists what is allowed. So ours
is always their list with less in it: nothing that it refuses comes back, but what ``allow`` names.
"""

from __future__ import annotations

import errno as errnos
import json
import operator
from typing import TYPE_CHECKING, Any, Final

from usernsplan.errors import InvalidFileError, InvalidValueError, did_you_mean
from usernsplan.harden import names
from usernsplan.ids import IdRange, IdSet
from usernsplan.patterns import pattern
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from usernsplan.harden.effective import Effective

EPERM: Final = 1
_ALLOW, _ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
# With these a call may go on: it is logged, or another process decides.
_PASSING: Final = frozenset({_ALLOW, "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY"})
# These are harder than an errno, and stay.
_HARDER: Final = frozenset(
    {"SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP"}
)
_ACTIONS: Final = _PASSING | _HARDER | {_ERRNO}
_NUMBERED: Final = frozenset({_ERRNO, "SCMP_ACT_TRACE"})
_COMPARED: Final[dict[str, Callable[[int, int], bool]]] = {
    "SCMP_CMP_NE": operator.ne,
    "SCMP_CMP_LT": operator.lt,
    "SCMP_CMP_LE": operator.le,
    "SCMP_CMP_EQ": operator.eq,
    "SCMP_CMP_GE": operator.ge,
    "SCMP_CMP_GT": operator.gt,
}
_EQUAL, _UNLIKE, _MASKED = "SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_MASKED_EQ"
_ARGUMENTS, _WORD = 6, 1 << 64
# On i386 these calls also have one door together, whose first argument says which is meant. What
# lets the door through lets them all through. From linux/net.h and linux/ipc.h.
_SOCKETCALL: Final = {
    "socket": 1, "bind": 2, "connect": 3, "listen": 4, "accept": 5, "getsockname": 6,
    "getpeername": 7, "socketpair": 8, "send": 9, "recv": 10, "sendto": 11, "recvfrom": 12,
    "shutdown": 13, "setsockopt": 14, "getsockopt": 15, "sendmsg": 16, "recvmsg": 17, "accept4": 18,
    "recvmmsg": 19, "sendmmsg": 20,
}  # fmt: skip
_IPC: Final = {
    "semop": 1, "semget": 2, "semctl": 3, "semtimedop": 4, "msgsnd": 11, "msgrcv": 12, "msgget": 13,
    "msgctl": 14, "shmat": 21, "shmdt": 22, "shmget": 23, "shmctl": 24,
}  # fmt: skip
_DOORS: Final = {"socketcall": _SOCKETCALL, "ipc": _IPC}
_WITH_SOCKETCALL: Final = frozenset({"SCMP_ARCH_X86", "SCMP_ARCH_S390", "SCMP_ARCH_S390X"})
# socket(2) takes an int: the kernel looks at these bits of its first argument only.
_INT, _WHOLE = (1 << 32) - 1, _WORD - 1
# What Incus and LXD refuse on their own, with ENOSYS (deny_default).
_OF_INCUS: Final = frozenset(
    {"kexec_load", "open_by_handle_at", "init_module", "finit_module", "delete_module"}
)
_BITS_32_OPEN: Final = (
    "a 32-bit program reaches every address family by socketcall(2); --arch native keeps it out"
)
_BITS_32_SHUT: Final = "a 32-bit program gets no socket at all by socketcall(2), of any family"


class _Machine(NamedTuple):
    """Names of an architecture: in conditions of profiles, to libseccomp, and what else it runs."""

    go: str
    own: str
    others: tuple[str, ...] = ()


_MACHINES: Final = {
    "x86_64": _Machine("amd64", "SCMP_ARCH_X86_64", ("SCMP_ARCH_X86", "SCMP_ARCH_X32")),
    "aarch64": _Machine("arm64", "SCMP_ARCH_AARCH64", ("SCMP_ARCH_ARM",)),
    "ppc64le": _Machine("ppc64le", "SCMP_ARCH_PPC64LE"),
    "riscv64": _Machine("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": _Machine("s390x", "SCMP_ARCH_S390X", ("SCMP_ARCH_S390",)),
}


class Argument(NamedTuple):
    """A condition on one of the six arguments of a call, as in the OCI: a mask is in ``value``."""

    at: int
    value: int
    value_two: int
    op: str

    def holds(self, word: int) -> bool:
        """Tell whether the condition holds for these 64 bits."""
        if self.op == _MASKED:
            return word & self.value == self.value_two
        return _COMPARED[self.op](word, self.value)


class Rule(NamedTuple):
    """What happens to calls of these names for which all conditions hold.

    ``errno`` is None for actions without a number. No two conditions are on one argument. Where two
    rules are at odds, for libseccomp mostly the first counts, so the order of all is kept.
    """

    names: tuple[str, ...]
    action: str = _ALLOW
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

    action: str = _ALLOW
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
    reader = _Reader(place, frozenset(capabilities), _machine(machine), _version(kernel))
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise reader.wrong(f"is not JSON: {error}") from None
    return reader.base(said)


def laid_over(policy: Effective, base: Base, *, machine: str, errno: int = EPERM) -> dict[str, Any]:
    """The policy over a base: the OCI's linux.seccomp, which Docker and Podman read as a file too.

    It refuses whatever the base refuses, except for calls that ``policy.allow`` names. What the
    policy refuses fails with ``errno``, unless the base kills for it. Of address families, see
    ``lost_over``.
    """
    if policy.deny_all:
        base = base._replace(action=_ERRNO, errno=errno, rules=())
    # Engines leave out a rule that says what holds anyway, and libseccomp would refuse it.
    default = (base.action, base.errno)
    base = base._replace(rules=tuple(r for r in base.rules if (r.action, r.errno) != default))
    refused, harder = _refused(base.rules, _ACTIONS - _PASSING), _refused(base.rules, _HARDER)
    denied = policy.deny - (harder - policy.allow)
    rules = [Rule(tuple(sorted(denied)), _ERRNO, errno), Rule(tuple(sorted(policy.allow)))]
    if base.action in _PASSING and "socket" not in denied | (refused - policy.allow):
        rules += _each(Rule(("socket",), _ERRNO, errno), policy.families, _INT)
    for rule in base.rules:
        rules += _parted(rule.without(denied | policy.allow), denied)
    rules = [part for rule in rules for part in _kept(rule, policy.families)]

    here = _architectures(policy, base, machine)
    return {
        "defaultAction": base.action,
        **({} if base.errno is None else {"defaultErrnoRet": base.errno}),
        **({"architectures": list(here)} if here else {}),
        **dict(base.others),
        "syscalls": [
            _written(rule) for rule in rules if rule.names and (rule.action, rule.errno) != default
        ],
    }


def lost_over(policy: Effective, base: Base, *, machine: str) -> tuple[str, ...]:
    """What ``laid_over`` cannot say, or says at a price."""
    here = _architectures(policy, base, machine)
    if not policy.families or not _WITH_SOCKETCALL.intersection(here):
        return ()
    passes = base.action in _PASSING and not policy.deny_all
    return (_BITS_32_SHUT if passes else _BITS_32_OPEN,)


def lxc(
    policy: Effective, base: str, *, place: str, errno: int = EPERM
) -> tuple[str, tuple[str, ...]]:
    """The file of lxc.seccomp.profile, laid over the text of LXC's own; and what it cannot say.

    LXC heeds no section for one architecture: each rule is for all of them. Raises InvalidFileError
    unless ``base``, which was read from ``place``, is a denylist of version 2.
    """
    head, *lines = base.rstrip("\n").split("\n")
    if head.strip() != "2" or not lines or not lines[0].startswith(("denylist", "blacklist")):
        hint = "give the profile that comes with LXC: /usr/share/lxc/config/common.seccomp"
        raise InvalidFileError(place, "is not a denylist of version 2", hint=hint)

    if policy.deny_all:
        lines = [f"allowlist errno {errno}", "[all]"]
        lines += _allowances(policy)
        return "\n".join([head, *lines, ""]), _lost_in_lxc(policy)

    harder = {name for name, words in _calls(lines) if _kills(words)} & policy.deny
    gone = (policy.deny | policy.allow) - harder
    kept = [line for line in lines if (line.split() or [""])[0] not in gone]
    kept += ["[all]", *_denials(policy, policy.deny - harder, errno)]
    return "\n".join([head, *kept, ""]), _lost_in_lxc(policy)


def incus(policy: Effective, *, errno: int = EPERM) -> tuple[dict[str, str], tuple[str, ...]]:
    """Keys of an instance of Incus or LXD, over what they refuse themselves; what they cannot say."""
    found, lost = {}, []
    if policy.native:
        # Its list has names that no system call has, such as compat_sys_ioctl.
        found["security.syscalls.deny_compat"] = "true"
    if policy.deny_all:
        if policy.allow:
            found["security.syscalls.allow"] = "\n".join(_allowances(policy))
            lost.append("Incus kills a process that makes another call; there is no errno")
        else:
            lost.append(
                "Incus cannot refuse every call: its list of allowed ones must not be empty"
            )
    else:
        # A second rule for a call, with another errno, would keep the container from starting.
        found["security.syscalls.deny"] = "\n".join(
            _denials(policy, policy.deny - _OF_INCUS, errno)
        )
        lost += [
            f"Incus refuses {name} itself, unless security.syscalls.deny_default is false"
            for name in sorted(policy.allow & _OF_INCUS)
        ]
    return {key: value for key, value in found.items() if value}, (*lost, *_lost_in_lxc(policy))


def systemd(policy: Effective, *, errno: int = EPERM) -> tuple[list[str], tuple[str, ...]]:
    """Lines of a unit's [Service] section, and what they cannot say.

    systemd refuses nothing by itself, so there is nothing to let through: a line that allows
    something would refuse everything else.
    """
    found, lost = [], []
    number = errnos.errorcode[errno]
    if policy.deny_all:
        found = [
            f"SystemCallFilter={' '.join(['@default', *sorted(policy.allow)])}",
            f"SystemCallErrorNumber={number}",
        ]
        lost.append("systemd lets the calls of its group @default through, whatever a list says")
    elif policy.deny:
        calls = " ".join(f"{name}:{number}" for name in sorted(policy.deny))
        found.append(f"SystemCallFilter=~{calls}")
    if policy.native:
        found.append("SystemCallArchitectures=native")
    if policy.families:
        found.append(f"RestrictAddressFamilies={_for_systemd(policy.families)}")
        lost.append(
            "what systemd refuses of families fails with EAFNOSUPPORT, as if there were none"
        )
        if not policy.native:
            lost.append(_BITS_32_OPEN)
    return found, tuple(lost)


def nspawn(policy: Effective) -> tuple[list[str], tuple[str, ...]]:
    """Lines of the [Exec] section of a .nspawn file, over nspawn's own list; what they cannot say."""
    denied = policy.deny
    lost = []
    if policy.deny_all:
        denied = frozenset(names.system_calls()) - policy.allow
        lost.append("a system call that is newer than this usernsplan is as nspawn has it")
    denied |= {door for door, calls in _DOORS.items() if calls.keys() & denied} - policy.allow
    if policy.families:
        lost.append("nspawn has no filter of address families")
    if policy.native:
        lost.append("nspawn allows the system calls of other architectures, with the same list")
    lines = [("", policy.allow), ("~", denied)]
    return [
        f"SystemCallFilter={sign}{' '.join(sorted(calls))}" for sign, calls in lines if calls
    ], tuple(lost)


def _refused(rules: Iterable[Rule], actions: Collection[str]) -> set[str]:
    """Calls for which rules have one of these actions whatever the arguments are."""
    passing = {name for rule in rules if rule.action in _PASSING for name in rule.names}
    outright = [rule for rule in rules if rule.action in actions and not rule.args]
    return {name for rule in outright for name in rule.names} - passing


def _architectures(policy: Effective, base: Base, machine: str) -> tuple[str, ...]:
    here = _machine(machine)
    if policy.native:
        return (here.own,)
    return (here.own, *here.others) if base.architectures is None else base.architectures


def _machine(name: str) -> _Machine:
    if name not in _MACHINES:
        hint = f"known are {', '.join(_MACHINES)}"
        raise InvalidValueError(f"no filter of system calls can be made for '{name}'", hint=hint)
    return _MACHINES[name]


def _left(denied: IdSet) -> IdSet:
    return denied.gaps(IdRange(0, names.MOST_FAMILIES))


def _kept(rule: Rule, denied: IdSet) -> Iterator[Rule]:
    """A rule, with socket(2) in parts that let no denied family through."""
    if not denied or "socket" not in rule.names or rule.action not in _PASSING:
        yield rule
        return

    yield rule.without({"socket"})
    rule = rule._replace(names=("socket",))
    first = next((one for one in rule.args if one.at == 0), None)
    left = _left(denied)
    if first is None:
        yield from _each(rule, left, _INT)
    elif first.op == _EQUAL:
        if any(first.value in each for each in left):
            yield rule
    else:
        # Engines join two conditions on one argument by "or", so there is one for both.
        rule = rule._replace(args=tuple(one for one in rule.args if one.at))
        both = IdSet(IdRange(n, 1) for each in left for n in _all(each) if first.holds(n))
        # Where the base looks at the bits above an int's, so does this: but for "!=", which they meet.
        of_int = first.op == _UNLIKE or (first.op == _MASKED and first.value <= _INT)
        yield from _each(rule, both, _INT if of_int else _WHOLE)


def _parted(rule: Rule, denied: Collection[str]) -> Iterator[Rule]:
    """A rule whose doors let through, one by one, the calls that are not denied."""
    doors = [door for door in _DOORS if rule.action in _PASSING and door in rule.names]
    shut = [door for door in doors if _DOORS[door].keys() & denied]
    for door in shut:
        for call, number in _DOORS[door].items():
            if call not in denied and not rule.args:
                first = Argument(0, number, 0, _EQUAL)
                yield rule._replace(names=(door,), args=(first,))
    yield rule.without(shut)


def _all(ids: IdRange) -> range:
    return range(ids.start, ids.stop)


def _each(rule: Rule, families: IdSet, mask: int) -> Iterator[Rule]:
    """A rule of socket(2) for these families alone."""
    for start, count in _blocks(families):
        first = Argument(0, mask & -count, start, _MASKED)
        yield rule._replace(args=(first, *rule.args))


def _blocks(families: IdSet) -> Iterator[tuple[int, int]]:
    """The set in parts that one mask finds: start and count, a power of 2 that start is aligned to."""
    for each in families:
        start = each.start
        while start < each.stop:
            count = start & -start or names.MOST_FAMILIES
            while start + count > each.stop:
                count //= 2
            yield start, count
            start += count


def _written(rule: Rule) -> dict[str, Any]:
    args = [
        {"index": one.at, "value": one.value, "valueTwo": one.value_two, "op": one.op}
        for one in rule.args
    ]
    return {
        "names": list(rule.names),
        "action": rule.action,
        **({} if rule.errno is None else {"errnoRet": rule.errno}),
        **({"args": args} if args else {}),
    }


def _calls(lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Of the lines of LXC that are rules: the name and the words after it, without a comment."""
    for line in lines:
        words = line.split("#")[0].split()
        if words:
            yield words[0], words[1:]


def _kills(words: list[str]) -> bool:
    return not words or (words[0] in {"kill", "trap"} and len(words) == 1)


def _denials(policy: Effective, calls: Iterable[str], errno: int) -> list[str]:
    found = [f"{name} errno {errno}" for name in sorted(calls)]
    if "socket" not in policy.deny:
        found += _of_families(policy.families, f"errno {errno}")
    return found


def _allowances(policy: Effective) -> list[str]:
    by_family = {"socket"} & policy.allow if policy.families else set()
    found = [f"{name} allow" for name in sorted(policy.allow - by_family)]
    return found + (_of_families(_left(policy.families), "allow") if by_family else [])


def _of_families(families: IdSet, action: str) -> list[str]:
    return [
        f"socket {action} [0,{start},{_MASKED},{_INT & -count}]"
        for start, count in _blocks(families)
    ]


def _lost_in_lxc(policy: Effective) -> tuple[str, ...]:
    lost = []
    if policy.native:
        lost.append("LXC cannot refuse the system calls of other architectures")
    for door, calls in _DOORS.items():
        refused = calls.keys() - policy.allow if policy.deny_all else calls.keys() & policy.deny
        if policy.families and "socket" in calls:
            refused |= {"socket"}
        is_open = door in policy.allow if policy.deny_all else door not in policy.deny
        if refused and is_open:
            shown = ", ".join(sorted(refused))
            lost.append(f"a 32-bit program reaches what is refused of {shown} by {door}(2)")
    return tuple(lost)


def _for_systemd(denied: IdSet) -> str:
    # A list of those that stay, because "~" with those that are denied is passed by with a bit set
    # above an int's; of what is left of a list systemd also refuses all that is greater. It has no
    # name for 0, which is no family.
    named = IdSet(IdRange(number, 1) for number in names.FAMILIES if number)
    words = [
        # As socket.h spells it.
        f"AF_{names.FAMILIES[number]}".replace("DECNET", "DECnet")
        for each in named - denied
        for number in _all(each)
    ]
    return " ".join(words) or "none"


def _version(text: str) -> tuple[int, int]:
    found = pattern(r"([0-9]{1,9})\.([0-9]{1,9})").match(text)
    if not found:
        raise InvalidValueError(f"'{text}' is no version of a kernel")
    return int(found[1]), int(found[2])


class _Reader(NamedTuple):
    """Reads a profile, for one container on one machine."""

    place: str
    capabilities: frozenset[str]
    machine: _Machine
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
        kept = {f"CAP_{name.upper()}" for name in self.capabilities}
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
        if not isinstance(action, str) or action not in _ACTIONS:
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
            and (found.op in _COMPARED or found.op == _MASKED)
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


def _is_number(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit
