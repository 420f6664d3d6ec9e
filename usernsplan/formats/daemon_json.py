"""Docker's daemon.json: find and change one key, and keep every other byte.

dockerd's parser lets the last of two equal keys win, and fails on comments, trailing commas and a
byte order mark. We refuse all of these, with line and column, instead of guessing.
"""

from __future__ import annotations

import json
from typing import NoReturn

from usernsplan.errors import InvalidFileError
from usernsplan.values import NamedTuple, dataclass

REMAP = "userns-remap"
NO_NEW_PRIVILEGES = "no-new-privileges"
DATA_ROOT = "data-root"
# The blanks of JSON (RFC 8259, section 2); str.strip removes more.
_BLANKS = " \t\r\n"


class Member(NamedTuple):
    """One ``"key": value`` of the top-level object, with its position.

    ``key_at``, ``value_at`` and ``end`` (of the value) are indexes into the text.
    """

    key: str
    value: object
    key_at: int
    value_at: int
    end: int


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """The text of a daemon.json and its top-level members, in order.

    ``open_at`` is the index of the object's brace, or -1 for an empty file, which newer daemons
    read as {}.
    """

    text: str = ""
    members: tuple[Member, ...] = ()
    open_at: int = -1

    def has(self, key: str) -> bool:
        """Tell whether the file sets a key."""
        return any(member.key == key for member in self.members)

    def get(self, key: str) -> str | None:
        """The value of a key that holds a string; None if the key is missing."""
        return next((str(member.value) for member in self.members if member.key == key), None)


def parse(raw: bytes, place: str) -> DaemonConfig:
    """Read the bytes of daemon.json; ``place`` is its path, for messages.

    Raises InvalidFileError (path:line:column) for anything except one JSON object without
    duplicate keys, and if userns-remap or data-root is not a string.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        good = raw[: error.start].decode()
        raise InvalidFileError(_place(place, good, len(good)), "not UTF-8") from error
    if not text.strip(_BLANKS):
        return DaemonConfig(text)
    try:
        return _Reader(text, place).config()
    except RecursionError as error:
        raise InvalidFileError(place, "nested too deeply to be a daemon's configuration") from error


def with_remap(config: DaemonConfig, value: str) -> bytes:
    """The file with userns-remap set to ``value``."""
    return with_value(config, REMAP, value)


def with_value(
    config: DaemonConfig,
    key: str,
    value: str | bool,  # noqa: FBT001 - a value of JSON
) -> bytes:
    """The file with a key set to ``value``: in its old place, or as the last key if it is new."""
    text, quoted = config.text, json.dumps(value)

    present = next((member for member in config.members if member.key == key), None)
    if present:
        return (text[: present.value_at] + quoted + text[present.end :]).encode()

    if config.members:
        first, last = config.members[0], config.members[-1]
        # Copy the blanks around the first key and its colon, so that the new key looks the same.
        lead = text[config.open_at + 1 : first.key_at] or (" " if "\n" not in text.strip() else "")
        colon = ": "
        if _plain(config, first):
            colon = text[first.key_at : first.value_at][len(json.dumps(first.key)) :]
        return (text[: last.end] + f',{lead}"{key}"{colon}{quoted}' + text[last.end :]).encode()

    end = "\r\n" if "\r\n" in text else "\n"
    fresh = f'{{{end}  "{key}": {quoted}{end}}}'
    if config.open_at < 0:
        return (fresh + end).encode()
    close = text.rindex("}")
    return (text[: config.open_at] + fresh + text[close + 1 :]).encode()


def without_remap(config: DaemonConfig) -> bytes:
    """The file without userns-remap and without the comma and the blanks that belonged to it."""
    text = config.text
    keys = [member.key for member in config.members]
    if REMAP not in keys:
        return text.encode()
    at = keys.index(REMAP)
    member = config.members[at]
    if at > 0:
        start, stop = config.members[at - 1].end, member.end
    elif len(keys) > 1:
        start, stop = member.key_at, config.members[1].key_at
    else:
        start, stop = config.open_at + 1, text.rindex("}")
    return (text[:start] + text[stop:]).encode()


def _place(path: str, text: str, at: int) -> str:
    """path:line:column of an index into the text; both count from 1, the column in characters."""
    line = text.count("\n", 0, at) + 1
    return f"{path}:{line}:{at - text.rfind(chr(10), 0, at)}"


def _plain(config: DaemonConfig, member: Member) -> bool:
    """Tell whether a key is written without escapes, so that its length in the text is known."""
    return config.text.startswith(json.dumps(member.key), member.key_at)


class _Reader:
    """A JSON reader that knows its position; the standard library reads the scalars."""

    def __init__(self, text: str, place: str) -> None:
        self.text, self.place = text, place
        self.scalars = json.JSONDecoder(parse_constant=self._no_constant)

    def config(self) -> DaemonConfig:
        start = self._blanks(0)
        if not self.text.startswith("{", start):
            self._fail(start, "expected an object: the daemon's configuration is { … }")
        members, end = self._object(start)
        rest = self._blanks(end)
        if rest < len(self.text):
            self._fail(rest, "unexpected text after the closing brace")
        for member in members:
            if member.key in {REMAP, DATA_ROOT} and not isinstance(member.value, str):
                self._fail(member.value_at, f'"{member.key}" must be a string')
        return DaemonConfig(self.text, tuple(members), start)

    def _object(self, at: int) -> tuple[list[Member], int]:
        members: list[Member] = []
        seen: set[str] = set()
        at = self._blanks(at + 1)
        if self.text.startswith("}", at):
            return members, at + 1
        while True:
            key_at = at
            if not self.text.startswith('"', at):
                self._fail(at, "expected a key in double quotes (no comment, no trailing comma)")
            key, at = self._scalar(at)
            if key in seen:
                self._fail(
                    key_at,
                    f'duplicate key "{key}": the daemon would use this second value',
                )
            seen.add(str(key))
            at = self._blanks(at)
            if not self.text.startswith(":", at):
                self._fail(at, "expected ':' after a key")
            value_at = self._blanks(at + 1)
            value, at = self._value(value_at)
            members.append(Member(str(key), value, key_at, value_at, at))
            at, done = self._next(at, "}")
            if done:
                return members, at

    def _array(self, at: int) -> int:
        at = self._blanks(at + 1)
        if self.text.startswith("]", at):
            return at + 1
        while True:
            _, at = self._value(at)
            at, done = self._next(at, "]")
            if done:
                return at

    def _next(self, at: int, closing: str) -> tuple[int, bool]:
        """Step over a comma (to what follows it) or the closing bracket."""
        at = self._blanks(at)
        if self.text.startswith(closing, at):
            return at + 1, True
        if not self.text.startswith(",", at):
            self._fail(at, f"expected ',' or '{closing}'")
        return self._blanks(at + 1), False

    def _value(self, at: int) -> tuple[object, int]:
        if self.text.startswith("{", at):
            return dict, self._object(at)[1]
        if self.text.startswith("[", at):
            return list, self._array(at)
        return self._scalar(at)

    def _scalar(self, at: int) -> tuple[object, int]:
        try:
            value, end = self.scalars.raw_decode(self.text, at)
        except json.JSONDecodeError as error:
            self._fail(error.pos, "not JSON: " + error.msg[0].lower() + error.msg[1:])
        except ValueError:
            self._fail(at, "not a JSON number")
        return value, end

    @staticmethod
    def _no_constant(name: str) -> NoReturn:
        raise ValueError(name)

    def _blanks(self, at: int) -> int:
        while at < len(self.text) and self.text[at] in _BLANKS:
            at += 1
        return at

    def _fail(self, at: int, fact: str) -> NoReturn:
        if at >= len(self.text):
            fact += " (the file ends here)"
        raise InvalidFileError(
            _place(self.place, self.text, at), fact, hint="correct the file, then run again"
        )
