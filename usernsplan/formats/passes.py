"""Passes and maps as text. Pure.

A pass is ``u:HOST[:CONTAINER]``; an extent of a map is ``u CONTAINER HOST COUNT``, as in lxc.idmap.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from usernsplan import escape
from usernsplan.errors import InvalidValueError
from usernsplan.ids import IdRange
from usernsplan.mapping import CALLED, KINDS, Extent, IdMap, Mapping
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.formats.accounts import Accounts
    from usernsplan.mapping import Kind, Pass

# The letters of LXC's idmap, and b for both.
LETTERS: Final[dict[str, tuple[Kind, ...]]] = {"u": ("uid",), "g": ("gid",), "b": KINDS}
_LETTER: Final[dict[tuple[Kind, ...], str]] = {kinds: letter for letter, kinds in LETTERS.items()}
# Compiled when the first one is read: most commands read none.
_ONE = r"(?P<kind>[^:]*):(?P<host>[^:]+)(?::(?P<container>[^:]+))?"
# Some programs read a leading zero as octal, so a number has none.
_ID = "(?:0|[1-9][0-9]{0,9})"
_IDS = f"{_ID}(?:-{_ID})?"
_EXTENT = r"([ugb]) ([0-9]{1,10}) ([0-9]{1,10}) ([0-9]{1,10})"
# At most so many accounts or groups of one pass are named.
_NAMED = 3
_FORM = "write u:HOST for a uid, g:HOST for a gid or b:HOST for both; for example g:104:107"


class Asked(NamedTuple):
    """A pass as the user names it.

    ``host`` are ids, or the name of an account or a group. ``container`` is the first container id;
    None: the same as the host's.
    """

    kinds: tuple[Kind, ...]
    host: IdRange | str
    container: int | None


def parse(text: str) -> Asked:
    """Read one --pass. Raises InvalidValueError for other text.

    >>> parse("g:render:107")
    Asked(kinds=('gid',), host='render', container=107)
    """
    found = re.fullmatch(_ONE, text)
    if "," in text:
        raise InvalidValueError(
            f"{text!r} is more than one pass",
            hint="use --pass once for each",
            in_file="write one item of the list for each",
        )
    if not found or found["kind"] not in LETTERS:
        raise InvalidValueError(f"{text!r} is no pass", hint=_FORM)

    host: IdRange | str = found["host"]
    if re.fullmatch(_IDS, found["host"]):
        first, _, last = found["host"].partition("-")
        if int(last or first) < int(first):
            raise InvalidValueError(f"{text!r}: {last} comes before {first}", hint=_FORM)
        host = IdRange(int(first), int(last or first) - int(first) + 1)

    container = found["container"]
    if container is not None and re.fullmatch(_IDS, container) is None:
        raise InvalidValueError(
            f"{text!r}: the container id {container!r} is no number", hint=_FORM
        )
    count = host.count if isinstance(host, IdRange) else 1
    first_id = None
    if container is not None:
        first, _, last = container.partition("-")
        first_id = int(first)
        if last and int(last) - first_id + 1 != count:
            raise InvalidValueError(f"{text!r}: {container} are not {count} ids", hint=_FORM)
    return Asked(LETTERS[found["kind"]], host, first_id)


def written(passes: Iterable[Pass]) -> tuple[str, ...]:
    """The texts that ask for these passes, in numbers; a pass of both kinds is one text."""
    found: dict[Extent, list[Kind]] = {}
    for kind, extent in passes:
        found.setdefault(extent, []).append(kind)
    return tuple(
        ":".join(
            [
                _LETTER[tuple(kinds)],
                str(extent.host_range),
                *([] if extent.container == extent.host else [str(extent.container)]),
            ]
        )
        for extent, kinds in found.items()
    )


def shown(passes: Iterable[Pass]) -> str:
    """The passes in one line for a person: "u 1000, g 104->107"."""
    found = (text.partition(":") for text in written(passes))
    parts = ((kind, ids.partition(":")) for kind, _, ids in found)
    return ", ".join(
        f"{kind} {host}->{container}" if container else f"{kind} {host}"
        for kind, (host, _, container) in parts
    )


def map_lines(mapping: Mapping) -> tuple[str, ...]:
    """The extents of both maps, a line each, as lxc.idmap has them; b where the maps are equal."""
    if mapping.uids == mapping.gids:
        return tuple(f"b {extent}" for extent in mapping.uids)
    return tuple(f"{kind[0]} {extent}" for kind in KINDS for extent in mapping[kind])


def parse_extent(line: str) -> tuple[tuple[Kind, ...], Extent]:
    """Read the kinds and the extent of one line. Raises InvalidValueError for other text."""
    found = re.fullmatch(_EXTENT, line)
    if not found:
        raise InvalidValueError(
            f"{line!r} is no extent",
            hint="write u, g or b, the container id, the host id and the count: u 0 100000 65536",
        )
    letter, *numbers = found.groups()
    return LETTERS[letter], Extent(*map(int, numbers))


def parse_map(lines: Iterable[str]) -> Mapping:
    """The reverse of ``map_lines``. Raises InvalidValueError, also for an impossible map."""
    found: dict[Kind, list[Extent]] = {kind: [] for kind in KINDS}
    for line in lines:
        kinds, extent = parse_extent(line)
        for kind in kinds:
            found[kind].append(extent)
    uids, gids = IdMap(found["uid"]), IdMap(found["gid"])
    return Mapping(uids, uids if uids == gids else gids)


def words(extent: Extent) -> str:
    """The host ids of a pass, and the container ids where these differ.

    >>> words(Extent(107, 104, 1)), words(Extent(1000, 1000, 6))
    ('104 as 107', '1000-1005')
    """
    if extent.container == extent.host:
        return str(extent.host_range)
    return f"{extent.host_range} as {extent.container_range}"


def told(one: Pass, accounts: Accounts | None) -> str:
    """A pass with the accounts or groups of its host ids: "gid 104 as 107 (group render)"."""
    plural = "s" if one.extent.count > 1 else ""
    whose = opened(one, accounts)
    return f"{one.kind}{plural} {words(one.extent)}" + (f" ({whose})" if whose else "")


def opened(one: Pass, accounts: Accounts | None) -> str:
    """The accounts or groups whose ids pass, in words; "" for none that is listed."""
    ids = one.extent.host_range
    names = [
        (f"{number} " if ids.count > 1 else "") + escape.line(name)
        for number, name in names_in(one.kind, ids, accounts)
    ]
    if not names:
        return ""
    what = CALLED[one.kind]
    more = f" and {len(names) - _NAMED} more" if names[_NAMED:] else ""
    return f"{what}{'s' if names[1:] else ''} {', '.join(names[:_NAMED])}{more}"


def names_in(kind: Kind, ids: IdRange, accounts: Accounts | None) -> Iterator[tuple[int, str]]:
    """The listed accounts (for uids) or groups (for gids) with these ids, by id, each id once.

    Nobody is known without ``accounts``.
    """
    if accounts is None:
        return
    numbered = [(user.uid, user.name) for user in accounts.users]
    if kind == "gid":
        numbered = [(group.gid, group.name) for group in accounts.groups]
    first = dict(reversed(numbered))
    yield from ((number, first[number]) for number in sorted(first) if number in ids)
