"""Text of unit files of systemd: names and words as it escapes them, and our mark on our own.

The mark is a digest of what follows it. A unit that somebody changed no longer has its digest, so
it is theirs: systemd.unit(5) invites people to edit what lies in /etc/systemd/system.
"""

from __future__ import annotations

import re

from usernsplan.patterns import pattern

# systemd.unit(5), "String escaping for inclusion in unit names".
_IN_NAMES = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.")
# The longest name of a file, and so of a unit.
_LONGEST = 255
_MARK = "# Digest of what follows, as usernsplan wrote it: "
# A value without quotes: systemd strips blanks at its end, and a backslash there joins lines.
_PLAIN = pattern(r"[A-Za-z0-9/._:@+=~,-]+")


def escaped(path: str) -> str:
    r"""The part of a unit's name that stands for an absolute path.

    >>> escaped("/srv/my-web")
    'srv-my\\x2dweb'
    >>> escaped("/")
    '-'
    """
    parts = "/".join(part for part in path.split("/") if part)
    if not parts:
        return "-"
    # A path is bytes; not all of them are UTF-8.
    raw = parts.encode(errors="surrogateescape")
    return "".join(_in_name(byte, is_first=not at) for at, byte in enumerate(raw))


def _in_name(byte: int, *, is_first: bool) -> str:
    it = chr(byte)
    if it == "/":
        return "-"
    # A name that begins with a dot is not a unit.
    return it if it in _IN_NAMES and not (is_first and it == ".") else f"\\x{byte:02x}"


def named(stem: str, kind: str) -> str:
    """A unit's name; the digest of a stem that is too long for a name stands for it."""
    name = f"{stem}.{kind}"
    if len(name) <= _LONGEST:
        return name
    return f"{stem[:64].rstrip(chr(92))}-{_digest(stem)}.{kind}"


def name_of(at: str, lasting: str) -> str:
    """The name of the unit for a mount point; ``lasting`` is one of model.LASTING."""
    if lasting == "mount":
        # systemd.mount(5): the name has to be that of the mount point.
        return f"{escaped(at)}.mount"
    return named(f"usernsplan-volume-{escaped(at)}", "service")


def fits(name: str) -> bool:
    """Tell whether a unit can have this name."""
    return len(name) <= _LONGEST


def is_text(path: str) -> bool:
    """Tell whether a unit can name a path at all: UTF-8, on one line."""
    return path.isprintable()


def is_plain(value: str) -> bool:
    """Tell whether a value needs no escape anywhere in a unit."""
    return bool(_PLAIN.fullmatch(value))


def word(text: str) -> str:
    r"""One word of a list of paths: systemd.syntax(7).

    >>> print(word('/srv/50% of "it"'))
    "/srv/50%% of \"it\""
    """
    return '"' + re.sub(r'(["\\])', r"\\\1", text).replace("%", "%%") + '"'


def argument(text: str) -> str:
    """One argument of a command: systemd.service(5) also expands variables there."""
    return word(text).replace("$", "$$")


def signed(head: str, body: str) -> str:
    """The text of a unit of ours; ``head`` is for people, lines without their mark."""
    notes = "".join(f"# {one}\n" for one in head.splitlines())
    return f"{notes}{_MARK}{_digest(body)}\n\n{body}"


def body_of(text: str) -> str | None:
    """What systemd reads of a unit of ours; None if somebody else wrote or changed it."""
    notes, mark, rest = text.partition(_MARK)
    digest, _, body = rest.partition("\n\n")
    is_whole = all(one.startswith("#") for one in notes.splitlines())
    return body if mark and is_whole and digest == _digest(body) else None


def _digest(body: str) -> str:
    import hashlib  # noqa: PLC0415 - slow, and seldom needed

    return hashlib.sha256(body.encode()).hexdigest()
