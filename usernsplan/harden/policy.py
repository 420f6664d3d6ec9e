"""A policy as somebody asked for it: a profile, and what differs from it. Pure.

effective.py makes of it what a container may do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from usernsplan.errors import InvalidValueError, did_you_mean
from usernsplan.harden import names
from usernsplan.harden.names import ALL
from usernsplan.patterns import pattern
from usernsplan.values import dataclass, fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

# One readable file each, in profiles/.
PROFILES = ("default", "seed", "strict")
Arch = Literal["", "native", "all"]
_ARCHES = get_args(Arch)
# As SELinux reads them: container_t; s0, s0:c1,c2, s0-s0:c0.c1023.
_TYPE = pattern(r"[a-z][a-z0-9_]*")
_LEVEL = pattern(
    r"s[0-9]{1,2}(:c[0-9]{1,4}([.,]c[0-9]{1,4})*)?(-s[0-9]{1,2}(:c[0-9]{1,4}([.,]c[0-9]{1,4})*)?)?"
)

_OF_DOCUMENTS = pattern(r"seccomp:(allow|deny):([a-z0-9_]+)")


@dataclass(frozen=True, slots=True)
class Policy:
    """What somebody asked for: the ``profile``, and what differs from it.

    Capabilities are in lower case without CAP_; system calls are the names that libseccomp knows;
    address families are numbers. All are sorted, and each is there once. ``deny_syscalls``,
    ``cap_add`` and ``cap_drop`` may be ALL alone. ``arch`` "" is as in the profile; "native" refuses
    the system calls of other architectures. Values come from ``policy_of``, which checks them.
    """

    profile: str
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    allow_syscalls: tuple[str, ...] = ()
    deny_syscalls: tuple[str, ...] = ()
    allow_families: tuple[int, ...] = ()
    deny_families: tuple[int, ...] = ()
    new_privileges: bool = False
    arch: Arch = ""
    selinux_type: str = ""
    selinux_level: str = ""


def policy_of(said: Mapping[str, Any]) -> Policy:
    """A policy of words as people type them, by the names of its fields, ``profile`` among them.

    A word of a list may be several, separated by commas. Raises InvalidValueError for a name that
    does not exist, and for one that is both given and taken away.
    """
    profile = said["profile"]
    if profile not in PROFILES:
        hint = did_you_mean(profile, PROFILES, f"one of: {', '.join(PROFILES)}")
        raise InvalidValueError(f"no profile '{profile}'", hint=hint)
    arch = next((one for one in _ARCHES if one == said.get("arch", "")), None)
    if arch is None:
        raise InvalidValueError(f"--arch '{said['arch']}' is not native or all")
    for word, right, example in (("type", _TYPE, "container_t"), ("level", _LEVEL, "s0:c1,c2")):
        text = said.get(f"selinux_{word}", "")
        if text and not right.fullmatch(text):
            raise InvalidValueError(f"--selinux-{word} '{text}' is not as in {example}")

    def each(key: str, check: Callable[[str], str]) -> tuple[str, ...]:
        found = {check(word) for word in _words(said.get(key, ()))}
        return (ALL,) if ALL in found else tuple(sorted(found))

    def numbers(key: str) -> tuple[int, ...]:
        return tuple(sorted({names.family(word) for word in _words(said.get(key, ()))}))

    found = Policy(
        profile,
        each("cap_add", names.capability),
        each("cap_drop", names.capability),
        each("allow_syscalls", names.system_call),
        each("deny_syscalls", lambda word: word if word == ALL else names.system_call(word)),
        numbers("allow_families"),
        numbers("deny_families"),
        bool(said.get("new_privileges")),
        arch,
        said.get("selinux_type", ""),
        said.get("selinux_level", ""),
    )
    for what, one, other in (
        ("capability", found.cap_add, found.cap_drop),
        ("system call", found.allow_syscalls, found.deny_syscalls),
        ("address family", found.allow_families, found.deny_families),
    ):
        for both in {*one} & {*other}:
            raise InvalidValueError(
                f"the {what} {both} is both given and taken away", hint="leave out one of the two"
            )
    return found


def _words(texts: Iterable[str]) -> Iterable[str]:
    return (word for text in texts for part in str(text).split(",") if (word := part.strip()))


def translated(text: str) -> dict[str, list[str]]:
    """The fields of a policy that words such as ``seccomp:deny:getcwd`` mean, for ``policy_of``.

    Words are separated by spaces or commas. ``seccomp:deny:all`` refuses all calls but those that
    are allowed. Raises InvalidValueError for another word.

    >>> translated("seccomp:deny:all seccomp:allow:read")
    {'deny_syscalls': ['all'], 'allow_syscalls': ['read']}
    """
    found: dict[str, list[str]] = {}
    for word in text.replace(",", " ").split():
        match = _OF_DOCUMENTS.fullmatch(word)
        if not match:
            raise InvalidValueError(
                f"'{word}' is not seccomp:allow:NAME or seccomp:deny:NAME",
                hint="as in seccomp:deny:getcwd",
            )
        found.setdefault(f"{match[1]}_syscalls", []).append(match[2])
    return found


def written(policy: Policy) -> dict[str, Any]:
    """A policy as plain values, without what is as in the profile; for JSON and YAML."""
    return {
        one.name: list(value) if isinstance(value, tuple) else value
        for one in fields(policy)
        if (value := getattr(policy, one.name)) or one.name == "profile"
    }


def flags(policy: Policy) -> list[str]:
    """The options of ``harden`` that ask for a policy."""
    found: list[str] = []
    for key, value in keys(policy).items():
        found.append(f"--{key}")
        if value is not True:
            found.append(",".join(map(str, value)) if isinstance(value, list) else str(value))
    return found


def keys(policy: Policy) -> dict[str, Any]:
    """A policy as the keys of a plan file, which are those of the options."""
    return {KEYS[name]: value for name, value in written(policy).items()}


# The option of each field, which is its key in a plan file, too.
KEYS = {
    "profile": "profile",
    "cap_add": "cap-add",
    "cap_drop": "cap-drop",
    "allow_syscalls": "allow-syscall",
    "deny_syscalls": "deny-syscall",
    "allow_families": "allow-family",
    "deny_families": "deny-family",
    "new_privileges": "allow-new-privileges",
    "arch": "arch",
    "selinux_type": "selinux-type",
    "selinux_level": "selinux-level",
}
