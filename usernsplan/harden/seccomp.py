"""A policy as filters of system calls, laid over what an engine refuses already. Pure.

A profile that is given to Docker or Podman replaces their own, which lists what is allowed. So ours
is always their list with less in it: nothing that it refuses comes back, but what ``allow`` names.
"""

from __future__ import annotations

import errno as errnos
from typing import TYPE_CHECKING, Any, Final

from usernsplan.errors import InvalidFileError
from usernsplan.harden import names
from usernsplan.harden.bases import (
    ACTIONS,
    ALLOW,
    EPERM,
    EQUAL,
    ERRNO,
    HARDER,
    MASKED,
    NO_FILTER,
    PASSING,
    UNLIKE,
    Argument,
    Base,
    Rule,
    base_of,
    machine_of,
)
from usernsplan.ids import IdRange, IdSet

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from usernsplan.harden.effective import Effective

__all__ = [
    "NO_FILTER", "Base", "base_of", "incus", "laid_over", "lost_over", "lxc", "nspawn", "passes",
    "systemd",
]  # fmt: skip

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
# The bits of the first argument that say which call is meant: the rest of ipc(2)'s is a version.
_LOOKED_AT: Final = {"socketcall": (1 << 32) - 1, "ipc": (1 << 16) - 1}
_WITH_SOCKETCALL: Final = frozenset({"SCMP_ARCH_X86", "SCMP_ARCH_S390", "SCMP_ARCH_S390X"})
# socket(2) takes an int: the kernel looks at these bits of its first argument only.
_INT, _WHOLE = (1 << 32) - 1, (1 << 64) - 1
# With these a call goes on, and nobody else decides.
_FREE: Final = frozenset({ALLOW, "SCMP_ACT_LOG"})
# What Incus and LXD refuse on their own, with ENOSYS (deny_default).
_OF_INCUS: Final = frozenset(
    {"kexec_load", "open_by_handle_at", "init_module", "finit_module", "delete_module"}
)
_FOREIGN: Final = "LXC has no word that refuses the system calls of other architectures"
_BITS_32_OPEN: Final = (
    "a 32-bit program reaches every address family by socketcall(2); --arch native keeps it out"
)
_BITS_32_DOORS: Final = (
    "a 32-bit program reaches what is refused of sockets and of System V's calls by socketcall(2) and"
    " ipc(2); --arch native keeps it out"
)
_BITS_32_SHUT: Final = "a 32-bit program gets no socket at all by socketcall(2), of any family"


def laid_over(policy: Effective, base: Base, *, machine: str, errno: int = EPERM) -> dict[str, Any]:
    """The policy over a base: the OCI's linux.seccomp, which Docker and Podman read as a file too.

    It refuses whatever the base refuses, except for calls that ``policy.allow`` names. What the
    policy refuses fails with ``errno``, unless the base kills for it; a family with what the base
    has for other calls, if 32-bit programs run. What becomes of these, ``lost_over`` says.
    """
    if policy.deny_all:
        base = base._replace(action=ERRNO, errno=errno, rules=())
    # Engines leave out a rule that says what holds anyway, and libseccomp would refuse it.
    default = (base.action, base.errno)
    base = base._replace(rules=tuple(r for r in base.rules if (r.action, r.errno) != default))
    here = _architectures(policy, base, machine)
    over = _over(policy, base, here, errno)
    rules = [part for rule in over for part in _kept(rule, policy.families)]
    return {
        "defaultAction": base.action,
        **({} if base.errno is None else {"defaultErrnoRet": base.errno}),
        **({"architectures": list(here)} if here else {}),
        **dict(base.others),
        "syscalls": [
            _written(rule) for rule in rules if rule.names and (rule.action, rule.errno) != default
        ],
    }


def passes(base: Base) -> bool:
    """Whether a call that no rule names is let through."""
    return base.action in PASSING


def lost_over(policy: Effective, base: Base, *, machine: str) -> tuple[str, ...]:
    """What ``laid_over`` cannot say, or says at a price."""
    passes = base.action in PASSING and not policy.deny_all
    if not _WITH_SOCKETCALL.intersection(_architectures(policy, base, machine)):
        return ()
    lost = []
    if policy.families:
        lost.append(_BITS_32_SHUT if passes else _BITS_32_OPEN)
    # libseccomp 2.5 makes no working rule for some of these over what allows by default.
    if passes and policy.deny & {*_SOCKETCALL, *_IPC}:
        lost.append(_BITS_32_DOORS)
    return tuple(lost)


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


def _over(
    policy: Effective, base: Base, architectures: Collection[str], errno: int
) -> Iterator[Rule]:
    """What the policy says, and then what it leaves of the base."""
    passes = base.action in PASSING
    # On i386 all families share the door: a rule that refuses some is at odds with one that allows.
    shared = bool(policy.families) and bool(_WITH_SOCKETCALL.intersection(architectures))
    # What passes anyway needs no rule then.
    idle = {"socket"} if passes and shared else set()

    harder = _refused(base.rules, HARDER) - policy.allow
    denied = policy.deny - harder
    yield Rule(tuple(sorted(denied)), ERRNO, errno)
    yield Rule(tuple(sorted(policy.allow - idle)))

    if passes:
        # libseccomp shuts most of these, but compares bits that the kernel cuts off.
        for door, calls in _DOORS.items():
            for call in sorted(calls.keys() & denied):
                first = Argument(0, _LOOKED_AT[door], calls[call], MASKED)
                yield Rule((door,), ERRNO, errno, (first,))

    refused = denied | (_refused(base.rules, ACTIONS - PASSING) - policy.allow)
    if "socket" not in refused and (passes or not shared):
        yield from _each(Rule(("socket",), ERRNO, errno), policy.families, _INT)

    shut = {door for door, calls in _DOORS.items() if calls.keys() & denied} - policy.allow
    if not passes:
        yield from _at_doors(base.rules, shut, denied | policy.allow)
    for rule in base.rules:
        gone = shut if rule.action in PASSING else set()
        gone |= idle if rule.action in _FREE else set()
        yield rule.without(denied | policy.allow | gone)


def _refused(rules: Iterable[Rule], actions: Collection[str]) -> set[str]:
    """Calls for which rules have one of these actions whatever the arguments are."""
    passing = {name for rule in rules if rule.action in PASSING for name in rule.names}
    outright = [rule for rule in rules if rule.action in actions and not rule.args]
    return {name for rule in outright for name in rule.names} - passing


def _architectures(policy: Effective, base: Base, machine: str) -> tuple[str, ...]:
    here = machine_of(machine)
    if policy.native:
        return (here.own,)
    return (here.own, *here.others) if base.architectures is None else base.architectures


def _left(denied: IdSet) -> IdSet:
    return denied.gaps(IdRange(0, names.MOST_FAMILIES))


def _kept(rule: Rule, denied: IdSet) -> Iterator[Rule]:
    """A rule, with socket(2) in parts that let no denied family through."""
    if not denied or "socket" not in rule.names or rule.action not in PASSING:
        yield rule
        return

    yield rule.without({"socket"})
    rule = rule._replace(names=("socket",))
    first = next((one for one in rule.args if one.at == 0), None)
    left = _left(denied)
    if first is None:
        yield from _each(rule, left, _INT)
    elif first.op == EQUAL:
        if any(first.value in each for each in left):
            yield rule
    else:
        # Engines join two conditions on one argument by "or", so there is one for both.
        rule = rule._replace(args=tuple(one for one in rule.args if one.at))
        both = IdSet(IdRange(n, 1) for each in left for n in _all(each) if first.holds(n))
        # Where the base looks at the bits above an int's, so does this: but for "!=", which they meet.
        of_int = first.op == UNLIKE or (first.op == MASKED and first.value <= _INT)
        yield from _each(rule, both, _INT if of_int else _WHOLE)


def _at_doors(
    rules: Iterable[Rule], shut: Collection[str], said: Collection[str]
) -> Iterator[Rule]:
    """Instead of doors that the base lets through: rules for what is not ``said`` of each call.

    To libseccomp a rule for a call is one for its door, too. Where a base has several for one call,
    ours has to be the first.
    """
    outright = {name for rule in rules if not rule.args for name in rule.names}
    for rule in rules:
        for door in shut if rule.action in PASSING and not rule.args else ():
            for call, number in _DOORS[door].items():
                if door in rule.names and call not in said and call not in outright:
                    first = Argument(0, number, 0, EQUAL)
                    yield rule._replace(names=(door,), args=(first,))


def _all(ids: IdRange) -> range:
    return range(ids.start, ids.stop)


def _each(rule: Rule, families: IdSet, mask: int) -> Iterator[Rule]:
    """A rule of socket(2) for these families alone."""
    for start, count in _blocks(families):
        first = Argument(0, mask & -count, start, MASKED)
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
        f"socket {action} [0,{start},{MASKED},{_INT & -count}]"
        for start, count in _blocks(families)
    ]


def _lost_in_lxc(policy: Effective) -> tuple[str, ...]:
    lost = [_FOREIGN] if policy.native else []
    for door, calls in _DOORS.items():
        refused = calls.keys() - policy.allow if policy.deny_all else calls.keys() & policy.deny
        if policy.families and "socket" in calls:
            refused |= {"socket"}
        if door in policy.allow if policy.deny_all else door not in policy.deny:
            way = f"{door}(2)"
        else:
            # Who lists what is allowed refuses these, too.
            refused = {call for call in refused if _on_i386(call) and not policy.deny_all}
            way = "a number of i386, for which LXC makes no rule"
        if refused:
            shown = ", ".join(sorted(refused))
            lost.append(f"a 32-bit program reaches what is refused of {shown} by {way}")
    return tuple(lost)


def _on_i386(call: str) -> bool:
    """Tell whether i386 has a call that has a door there by a number of its own, too."""
    return "i386" in names.system_calls().get(call, {})


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
