r"""Podman's .container and .pod files, podman-systemd.unit(5): what they say about ids. Pure.

The grammar is systemd's: sections, KEY=VALUE, a backslash that continues a line, and an empty value
that drops the earlier ones of its key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.errors import InvalidValueError
from usernsplan.ids import IdRange
from usernsplan.mapping import Extent
from usernsplan.patterns import pattern
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.mapping import Kind

_SECTIONS = frozenset({"Container", "Pod"})
_NAME, _UIDS, _GIDS, _USERNS = "ContainerName", "UIDMap", "GIDMap", "UserNS"
_WHOSE = ("SubUIDMap", "SubGIDMap")
_LISTS = frozenset({_UIDS, _GIDS})
_KEYS = frozenset({_NAME, _UIDS, _GIDS, _USERNS, *_WHOSE})
# What Podman 4.4 called them; "manual" says that the maps follow.
_OLD = {"RemapUid": _UIDS, "RemapGid": _GIDS, "RemapUsers": _USERNS, "PodName": _NAME}
_MANUAL = "manual"
# Options of podman run, which a unit may have as words.
_WORDS = "PodmanArgs"
_OPTIONS = {
    "--uidmap": _UIDS,
    "--gidmap": _GIDS,
    "--userns": _USERNS,
    "--subuidname": _WHOSE[0],
    "--subgidname": _WHOSE[1],
}
# container:host:count, where @ marks a host id for rootless Podman, and 1 is the usual count.
_MAP = pattern(r"([0-9]{1,10}):(@?)([0-9]{1,10})(?::([0-9]{1,10}))?")
# Below are ids of the host itself, which claims.sources has likewise.
_OF_CONTAINERS = 65536
# In front of it: + adds to the usual map, and u or g is for one kind alone.
_FLAGS = pattern(r"[+ug]*")


class Setting(NamedTuple):
    """One value in the section [Container] or [Pod], with its file and line."""

    key: str
    value: str
    path: str
    number: int


class Ids(NamedTuple):
    """What a container's files say together. ``place`` is the first setting about ids, if any."""

    name: str
    uids: tuple[str, ...]
    gids: tuple[str, ...]
    userns: str
    whose_ids: str
    place: Setting | None


def settings(raw: bytes, path: str) -> tuple[Setting, ...]:
    r"""The settings of one file that matter here, in order. Raises nothing.

    >>> [s[:2] for s in settings(b"[Container]\nImage=x\nUIDMap=0:100000:65536\n", "/a.container")]
    [('UIDMap', '0:100000:65536')]
    """
    found, section, begun, first = list[Setting](), "", "", 0
    for number, text in enumerate(raw.decode("utf-8", "surrogateescape").split("\n"), 1):
        stripped = text.strip()
        if stripped.startswith(("#", ";")) or not (stripped or begun):
            continue
        first, whole = (first, f"{begun} {stripped}") if begun else (number, stripped)
        begun = ""
        if whole.endswith("\\"):
            begun = whole[:-1].rstrip()
        elif whole.startswith("[") and whole.endswith("]"):
            section = whole[1:-1]
        else:
            key, equals, value = (part.strip() for part in whole.partition("="))
            if equals and section in _SECTIONS:
                said = _said(_OLD.get(key, key), value)
                found += [Setting(*one, path, first) for one in said]
    return tuple(found)


def _said(key: str, value: str) -> Iterator[tuple[str, str]]:
    """What one line says, as keys and values of today."""
    if key == _WORDS:
        words = value.split()
        for word, following in zip(words, [*words[1:], ""], strict=True):
            option, equals, text = word.partition("=")
            if option in _OPTIONS:
                yield _OPTIONS[option], (text if equals else following).strip("\"'")
    elif key in _KEYS and not (key == _USERNS and value == _MANUAL):
        yield key, value


def together(found: Iterable[Setting]) -> Ids:
    """What the settings of a file and its drop-ins say; they are in the order of systemd."""
    values: dict[str, list[Setting]] = {}
    for one in found:
        if not one.value:
            values.pop(one.key, None)
        elif one.key in _LISTS:
            values.setdefault(one.key, []).append(one)
        else:
            values[one.key] = [one]

    def of(key: str) -> tuple[str, ...]:
        return tuple(one.value for one in values.get(key, ()))

    about = (values[key][0] for key in (_UIDS, _GIDS, _USERNS, *_WHOSE) if key in values)
    whose = [value for key in _WHOSE for value in of(key)]
    return Ids(
        name="".join(of(_NAME)),
        uids=of(_UIDS),
        gids=of(_GIDS),
        userns="".join(of(_USERNS)),
        whose_ids=(whose or [""])[0],
        place=next(about, None),
    )


def extent(text: str) -> tuple[Extent, bool]:
    """One value of UIDMap=: its extent, and whether its middle number is a host id in any case.

    Podman's other forms (a leading + or u, g) depend on the rest of the map. Raises
    InvalidValueError for them and for what is no map.

    >>> extent("0:@100000:65536")
    (Extent(container=0, host=100000, count=65536), True)
    """
    found = _MAP.fullmatch(text)
    if not found:
        raise InvalidValueError(
            f"'{text}' is not CONTAINER:HOST:COUNT", hint="write it in plain numbers"
        )
    return Extent(int(found[1]), int(found[3]), int(found[4] or 1)), bool(found[2])


def host_ids(text: str, kind: Kind) -> tuple[IdRange, ...]:
    """The host ids that one value of UIDMap= or GIDMap= takes for a container of root's.

    () if Podman refuses it, or if the host's own ids pass through: those below 65536, and those
    that the container has under their own numbers.

    >>> host_ids("+u0:100000:65536", "uid"), host_ids("u0:100000:65536", "gid")
    ((IdRange(start=100000, count=65536),), ())
    """
    flags = _FLAGS.match(text)
    said = flags[0] if flags else ""
    if {"u", "g"} & {*said} and kind[0] not in said:
        return ()
    try:
        found, _ = extent(text.removeprefix(said))
    except InvalidValueError:
        return ()
    start, stop = max(found.host, _OF_CONTAINERS), found.host + found.count
    if found.host == found.container or start >= stop:
        return ()
    return (IdRange(start, stop - start),)
