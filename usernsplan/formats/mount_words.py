"""The words of mount.usernsplan: as mount(8) calls it, and as a line of fstab(5).

mount(8) calls a helper like this: mount.TYPE SOURCE DEST [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from usernsplan.errors import UsageError, did_you_mean
from usernsplan.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.model import VolumeMount

# Our own options; True: with a value. mount(8) takes user= for itself: it would let every user
# mount, and forbid setuid programs.
_OURS: Final = {
    "container": True,
    "mode": True,
    "container-user": True,
    "protect": True,
    "cross-mounts": False,
    "protected": False,
    "take": False,
}
# Attributes of the mount.
_ATTRIBUTES: Final = ("ro", "nosuid", "nodev", "noexec")
# What mount(8) and systemd act on, or what is so anyway.
_NOTHING: Final = frozenset(
    {
        *("rw", "suid", "dev", "exec", "defaults", "auto", "noauto", "nofail", "nouser"),
        *("_netdev", "relatime"),
    }
)
# A mount has these from the mount that its source is on.
_OF_SOURCE: Final = frozenset({"noatime", "nodiratime", "strictatime", "lazytime", "sync"})

# What would end a field of fstab(5), as getmntent(3) reads it.
_ESCAPED: Final = str.maketrans({one: f"\\{ord(one):03o}" for one in " \t\n\\"})


@dataclass(frozen=True, slots=True)
class MountWords:
    """What mount(8) asks for. ``options`` are ours; ``attributes`` are those of the mount.

    ``is_fake``: check, but mount nothing. ``is_loud``: say what was done.
    """

    source: str
    at: str
    options: dict[str, str] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()
    is_fake: bool = False
    is_loud: bool = False


def parse(argv: Sequence[str]) -> MountWords:
    """The words of a helper. Raises UsageError for words that mount(8) never gives, or options."""
    places, texts, flags = list[str](), list[str](), set[str]()
    words = iter(argv)
    for word in words:
        if word in {"-o", "-t", "-N"}:
            value = next(words, None)
            if value is None:
                raise UsageError(f"{word} has no value")
            if word == "-N":
                raise UsageError("-N: the mount would be another mount namespace's, not the host's")
            texts += [value] if word == "-o" else []
        elif word.startswith("-") and len(word) > 1:
            flags |= set(word[1:])
        else:
            places.append(word)
    if unknown := flags - set("sfnv"):
        raise UsageError(f"-{min(unknown)} is unknown")
    if len(places) != len(("SOURCE", "DEST")):
        raise UsageError("name SOURCE and DEST", hint="mount -t usernsplan SOURCE DEST -o OPTIONS")

    options, attributes = _options(",".join(texts), is_sloppy="s" in flags)
    source, at = places
    return MountWords(source, at, options, attributes, "f" in flags, "v" in flags)


def _options(text: str, *, is_sloppy: bool) -> tuple[dict[str, str], tuple[str, ...]]:
    options, attributes = dict[str, str](), set[str]()
    for one in filter(None, text.split(",")):
        key, has_value, value = one.partition("=")
        if _OURS.get(key) is bool(has_value):
            options[key] = value
        elif one in _ATTRIBUTES:
            attributes.add(one)
        elif one not in _NOTHING and not key.lower().startswith("x-") and not is_sloppy:
            raise UsageError(f"the option {one} is unknown", hint=_hint(key))
    return options, tuple(sorted(attributes))


def _hint(key: str) -> str:
    if key == "user":
        return "mount(8) takes user= for itself: use container-user=U[:G]"
    if key == "remount":
        return "to mount it with other options, umount DEST first"
    if key in _OF_SOURCE:
        return f"give {key} to the mount that SOURCE is on: this one then has it too"
    if key in _OURS:
        return f"write {key}=VALUE" if _OURS[key] else f"write {key} without a value"
    return did_you_mean(key, (*_OURS, *_ATTRIBUTES))


def fstab_line(mount: VolumeMount) -> str:
    """The line of fstab(5) that makes a mount at boot; a host that cannot make it boots all the same."""
    values = {
        "container": mount.name,
        "mode": mount.mode,
        "container-user": mount.user,
        "protect": mount.protect,
    }
    options = (
        *(f"{key}={value}" for key, value in values.items() if value),
        *(["cross-mounts"] if mount.crosses else []),
        *mount.options,
        "nofail",
    )
    source, at = (path.translate(_ESCAPED) for path in (mount.source, mount.at))
    return f"{source} {at} usernsplan {','.join(options)} 0 0"
