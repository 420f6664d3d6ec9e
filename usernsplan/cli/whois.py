"""The command whois."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from usernsplan import lookup
from usernsplan.cli.emit import emit
from usernsplan.cli.options import Json, Root, note, note_interrupted
from usernsplan.engines import engine_of_pool
from usernsplan.errors import ExitStatus, InvalidValueError
from usernsplan.host import accounts
from usernsplan.host.files import layout_at
from usernsplan.ledger import allocation_of, open_ledger
from usernsplan.report import whose
from usernsplan.whose.ids import answers, from_container, read_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from usernsplan.formats.accounts import Accounts
    from usernsplan.layout import Layout
    from usernsplan.volume.owned import InodeIds

_STDIN = "-"
# More bytes would be more ids than there are processes, files or patience for.
_MOST = 1 << 28
_HINT = "an id is a decimal number from 0 to 4294967294"


def whois(
    ids: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="[ID]...", help="uids, gids. None or '-': from standard input."),
    ] = None,
    container: Annotated[
        Optional[str],
        typer.Option(metavar="NAME", help="IDs are this container's: tell the host's."),
    ] = None,
    file: Annotated[
        Optional[list[str]],
        typer.Option(metavar="PATH", help="Tell whose a file is, ACL and all (repeatable)."),
    ] = None,
    passwd: Annotated[
        Optional[str],
        typer.Option(metavar="FILE", help="The image's passwd, for names; 'group' lies beside it."),
    ] = None,
    root: Root = "/",
    json: Json = False,
) -> None:
    """Tell whose an id of this host is, and why.

    Shows which container has it, and which id it is in there; and who else may have it.

    An id may be several's; one that nobody has is told as free. Many ids get one line each. With --container, exit 1
    where the container's maps lack one.

    \b
    Examples:
      usernsplan whois 1310753 --passwd /srv/web/rootfs/etc/passwd
      usernsplan whois --container web 33
      usernsplan whois --file /srv/web/index.html
      find /srv -printf '%U\\n' | sort -u | usernsplan whois
    """
    layout = layout_at(root, exists=True)
    image = accounts.of_image(passwd)
    if container is not None:
        if file:
            raise InvalidValueError(
                "--container with --file", hint="a file has ids of the host: say one of the two"
            )
        _inside(layout, container, list(_words(ids or [_STDIN])), image, as_json=json)
        return
    asked = _read(ids or ([] if file else [_STDIN]))
    carried = list(_carried(layout, file or ()))
    wanted = {*asked, *(number for _, _, one in carried for number in _all_ids(one))}
    facts, notes = lookup.facts(layout, open_ledger(layout), wanted)
    facts = replace(facts, image=image)
    found = answers(wanted, facts)
    pool = lookup.pool(layout) if any(answer.is_free for answer in found.values()) or json else None
    emit(whose.result(asked, carried, found, pool, facts), as_json=json)
    note(notes)
    note_interrupted(facts.ledger)


def _inside(
    layout: Layout, name: str, words: Sequence[str], image: Accounts, *, as_json: bool
) -> None:
    """Follow a container's maps to the host."""
    allocation = allocation_of(open_ledger(layout).state(), name)
    if engine := engine_of_pool(allocation):
        hint = "'usernsplan inspect PID' shows the maps of one that runs"
        raise InvalidValueError(
            f"{name} is a pool: {engine} gives parts of it to its containers", hint=hint
        )
    found = []
    for word in words:
        one = from_container(word, allocation, image)
        if one is None:
            raise InvalidValueError(
                f"{word!r} is no id, and no user of the image",
                hint=f"{_HINT}; --passwd FILE tells the image's names",
            )
        found.append(one)
    emit(whose.in_container(name, found), as_json=as_json)
    if not all(one.is_mapped for one in found):
        raise typer.Exit(ExitStatus.FAILED)


def _words(ids: Iterable[str]) -> Iterator[str]:
    """The words that were typed; for '-', those of standard input."""
    for word in ids:
        if word == _STDIN:
            yield from _from_stdin().decode("utf-8", "backslashreplace").split()
        else:
            yield word


def _read(words: Sequence[str]) -> list[int]:
    """The ids that are asked for, in order. Raises InvalidValueError for what is none."""
    found: list[int] = []
    for word in words:
        if word == _STDIN:
            found += _read_many(_from_stdin())
        else:
            number = read_id(word)
            if number is None:
                raise InvalidValueError(f"{word!r} is no id", hint=_HINT)
            found.append(number)
    return found


def _read_many(raw: bytes) -> list[int]:
    """The ids of a text of many; each is understood once."""
    words = raw.split()
    known = {word: read_id(word.decode("ascii", "backslashreplace")) for word in set(words)}
    if None in known.values():
        for number, line in enumerate(raw.split(b"\n"), 1):
            for word in line.split():
                if known[word] is None:
                    shown = word.decode("utf-8", "backslashreplace")
                    raise InvalidValueError(
                        f"standard input, line {number}: {shown!r} is no id", hint=_HINT
                    )
    return [known[word] or 0 for word in words]


def _from_stdin() -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        raise InvalidValueError(
            "which id?", hint="name one or more, pipe them in, or say --file PATH"
        )
    raw = sys.stdin.buffer.read(_MOST + 1)
    if len(raw) > _MOST:
        raise InvalidValueError(
            f"standard input has more than {_MOST} bytes", hint="ask for fewer ids at a time"
        )
    return raw


def _carried(layout: Layout, paths: Sequence[str]) -> Iterator[tuple[str, str, InodeIds]]:
    """What carries which ids: each path as it was typed, the kind of what lies there, its ids."""
    if not paths:
        return
    from usernsplan.volume import owned  # noqa: PLC0415 - only for files

    for path in paths:
        kind, one = owned.of_path(layout, path)
        yield path, kind, one


def _all_ids(one: InodeIds) -> Iterator[int]:
    yield from (one.uid, one.gid)
    yield from (entry.id for entry in (*one.acl, *one.default_acl))
    if one.rootid is not None:
        yield one.rootid
