"""lxc.container.conf(5), lxc.conf(5), and Proxmox VE's configs of containers: the maps in them.

LXC's rules are those of src/lxc/confile.c and confile_utils.c. Proxmox VE's are those of
parse_pct_config and parse_id_maps in pve-container. An extent that LXC would not read holds no ids,
because it does not start a container whose config it cannot read. Whatever else it would not read
is left out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from usernsplan.patterns import pattern
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.mapping import Kind

_KINDS: dict[bytes, Kind] = {b"u": "uid", b"g": "gid"}
# LXC before 3.0 called it lxc.id_map; later versions refuse that name (run with 5.0). What such a
# container had is still its own.
_OLD_MAP = b"lxc.id_map"
_MAPS = (b"lxc.idmap", _OLD_MAP)
_STRAY = pattern(rb"lxc\.id_?map(?![a-z0-9_.-])")
# LXC reads numbers with strtoul(3) and base 0: hexadecimal and octal too.
_NUMBER = rb"\+?(0[xX][0-9a-fA-F]{1,16}|0[0-7]{0,22}|[1-9][0-9]{0,19})"
_MAP = pattern(rb"[ \t]*([ug])[ \t]+" + rb"[ \t]+".join([_NUMBER] * 3) + rb"[ \t]*")
_ULONG = 2**64
# A longer line is no mistake that anybody reads.
_LONGEST = 200
# Proxmox VE: a key that LXC knows, with ":" or "=", and the container's own keys.
_OF_LXC = pattern(rb"(lxc\.[a-z0-9_.-]+)(?::|\s*=)\s*(.*?)\s*")
_OF_PROXMOX = pattern(rb"([a-z][a-z_]*[0-9]*):\s*(.+?)\s*")
# A snapshot, or changes that wait for the next start.
_SECTION = pattern(rb"\[[a-z][a-z0-9_:-]*\]\s*", re.IGNORECASE)
_TRUE = frozenset({b"1", b"on", b"yes", b"true"})
# What Proxmox VE gives to every unprivileged container without a map of its own.
_OF_UNPRIVILEGED = (0, 100000, 65536)


class MapLine(NamedTuple):
    """One extent, and the number of its line. Its ids may be past those that can exist."""

    number: int
    kind: Kind
    container: int
    host: int
    size: int


class Cleared(NamedTuple):
    """An empty lxc.idmap: it drops every extent before it."""

    number: int


class Refused(NamedTuple):
    """An extent that LXC does not read: it does not start a container with such a config.

    ``text`` is the value; the whole line if its key is an old one, or if no sign follows the key.
    Proxmox VE leaves out a line without the sign.
    """

    number: int
    text: str


class Include(NamedTuple):
    """lxc.include: the file, or the folder, to read here."""

    number: int
    path: str


Line = MapLine | Cleared | Include | Refused


def config(raw: bytes) -> tuple[Line, ...]:
    r"""What a container's config says about its map, in order. Raises nothing.

    >>> config(b"lxc.idmap = u 0 100000 65536\n")
    (MapLine(number=1, kind='uid', container=0, host=100000, size=65536),)
    """
    return tuple(_lines(raw))


def proxmox(raw: bytes) -> tuple[Line, ...]:
    """The same of a config of Proxmox VE, which gives 100000-165535 to a container without a map."""
    found, unprivileged = list[Line](), 0
    for number, text in enumerate(raw.split(b"\n"), 1):
        if _SECTION.fullmatch(text):
            break
        if of_lxc := _OF_LXC.fullmatch(text):
            found += _line(number, of_lxc[1], of_lxc[2])
        elif (own := _OF_PROXMOX.fullmatch(text)) and own[1] == b"unprivileged":
            unprivileged = number if own[2].lower() in _TRUE else 0
        elif _STRAY.match(text.strip()):
            found.append(Refused(number, _shown(text.strip())))
    if unprivileged and not any(isinstance(line, MapLine) for line in found):
        found += [MapLine(unprivileged, kind, *_OF_UNPRIVILEGED) for kind in _KINDS.values()]
    return tuple(found)


def setting(raw: bytes, key: str) -> str | None:
    r"""The value of a key in lxc.conf(5); None if it is not set.

    >>> setting(b"lxc.lxcpath = /srv/lxc\n", "lxc.lxcpath")
    '/srv/lxc'
    """
    found = re.search(
        rb"^[ \t]*" + re.escape(key.encode()) + rb"[ \t]*=[ \t]*([^\n]+)", raw, re.MULTILINE
    )
    return found[1].split(b"\0")[0].decode("utf-8", "surrogateescape") if found else None


def _lines(raw: bytes) -> Iterator[Line]:
    # LXC reads the file as a C string, and both LF and CR end a line.
    for number, text in enumerate(raw.split(b"\0", 1)[0].split(b"\n"), 1):
        for piece in text.split(b"\r"):
            key, equals, value = piece.partition(b"=")
            if equals:
                yield from _line(number, key.strip(b" \t"), value.strip(b" \t"))
            elif _STRAY.match(piece.strip(b" \t")):
                yield Refused(number, _shown(piece.strip(b" \t")))


def _line(number: int, key: bytes, value: bytes) -> Iterator[Line]:
    if value[:1] in {b"'", b'"'} and value[1:] and value[-1:] == value[:1]:
        value = value[1:-1]
    if key in _MAPS:
        yield _extent(number, value) if value else Cleared(number)
        if key == _OLD_MAP:
            yield Refused(number, _shown(key + b" = " + value))
    elif key == b"lxc.include" and value:
        yield Include(number, value.decode("utf-8", "surrogateescape"))


def _extent(number: int, value: bytes) -> MapLine | Refused:
    if found := _MAP.fullmatch(value):
        container, host, count = map(_number, found.groups()[1:])
        if max(container, host, count) < _ULONG:
            return MapLine(number, _KINDS[found[1]], container, host, count)
    return Refused(number, _shown(value))


def _shown(text: bytes) -> str:
    return text[:_LONGEST].decode("utf-8", "surrogateescape")


def _number(text: bytes) -> int:
    """A number as strtoul(3) reads it with base 0."""
    digits = text.lstrip(b"+")
    return int(digits, 16 if digits[:2] in {b"0x", b"0X"} else 8 if digits[:1] == b"0" else 10)
