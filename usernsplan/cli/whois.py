"""The command whois."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Optional

from usernsplan import lookup
from usernsplan.cli.emit import emit
from usernsplan.cli.options import Host, Json, OfFleet, Root, note, note_interrupted
from usernsplan.cli.words import Argument, Option
from usernsplan.engines import engine_of_pool
from usernsplan.errors import ExitStatus, InvalidValueError
from usernsplan.host import accounts
from usernsplan.host.files import layout_at
from usernsplan.ids import read_id
from usernsplan.ledger import allocation_of, open_ledger
from usernsplan.report import whose
from usernsplan.values import replace
from usernsplan.whose.ids import answers, from_container

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from usernsplan.formats.accounts import Accounts
    from usernsplan.layout import Layout
    from usernsplan.ledger import Ledger
    from usernsplan.model import Allocation
    from usernsplan.volume.owned import InodeIds

_STDIN = "-"
# A limit in bytes, far above any real list of ids.
_MOST = 1 << 28
_HINT = "use a decimal number from 0 to 4294967294"


def whois(
    ids: Annotated[
        Optional[list[str]],
        Argument(metavar="[ID]...", help="uids or gids. Default: '-', standard input."),
    ] = None,
    container: Annotated[
        Optional[str],
        Option(metavar="NAME", help="Take IDs as this container's, and show the host's."),
    ] = None,
    file: Annotated[
        Optional[list[str]],
        Option(metavar="PATH", help="Show the ids of a file and its ACL (repeatable)."),
    ] = None,
    passwd: Annotated[
        Optional[str],
        Option(metavar="FILE", help="The image's passwd file, for names; reads 'group' too."),
    ] = None,
    host: Host = None,
    fleet: OfFleet = False,
    root: Root = "/",
    json: Json = False,
) -> None:
    """Show who has an id of this host, and why.

    Shows the container and its container id, the line or account that has the id, and anyone else
    who has it. An id that nobody has is free. Many ids get one line each.

    With --fleet, shows which names of which hosts have it, and which hosts have it of their own.

    With --container, exits 1 if the container's maps lack an id.

    \b
    Examples:
      usernsplan whois 1310753 --passwd /srv/web/rootfs/etc/passwd
      usernsplan whois --container web 33
      usernsplan whois 1310753 --fleet
      usernsplan whois --file /srv/web/index.html
      find /srv -printf '%U\\n' | sort -u | usernsplan whois
    """
    layout = layout_at(root, exists=True)
    image = accounts.of_image(passwd)
    if container is not None:
        if file:
            raise InvalidValueError(
                "--container does not go with --file",
                hint="leave out one of them: a file has host ids",
            )
        words = list(_words(ids or [_STDIN]))
        if host or fleet:
            from usernsplan.cli import across  # noqa: PLC0415 - only in a fleet

            views = across.views(layout, host)
            across.in_container(views, container, words, image, as_json=json)
            return
        store = open_ledger(layout)
        found_one = allocation_of(store.state(), container)
        inside(found_one, container, words, image, as_json=json, of=store)
        return
    if host or fleet:
        from usernsplan.cli import across  # noqa: PLC0415 - only in a fleet

        views = across.views(layout, host, file=file, passwd=passwd)
        across.whois(views, _read(ids or [_STDIN]), as_json=json)
        return

    asked = _read(ids or ([] if file else [_STDIN]))
    carried = list(_carried(layout, file or ()))
    wanted = {*asked, *(number for one in carried for number in _all_ids(one.ids))}
    store = open_ledger(layout)
    facts, notes = lookup.facts(layout, store, wanted)
    facts = replace(facts, image=image)
    found = answers(wanted, facts)
    is_asked = json or any(answer.is_free for answer in found.values())
    pool = lookup.pool(facts) if is_asked else None
    emit(whose.result(asked, carried, found, pool, facts), as_json=json, of=store)
    note(notes)
    note_interrupted(facts.ledger)


def inside(
    allocation: Allocation,
    name: str,
    words: Sequence[str],
    image: Accounts,
    *,
    as_json: bool,
    of: Ledger | None = None,
) -> None:
    """Show the host ids of a container's ids and user names. ``of``: see emit."""
    if engine := engine_of_pool(allocation):
        hint = "'usernsplan inspect PID' shows the maps of a running container"
        raise InvalidValueError(
            f"{name} is a pool: {engine} gives its containers parts of it", hint=hint
        )
    found = []
    for word in words:
        one = from_container(word, allocation, image)
        if one is None:
            raise InvalidValueError(
                f"{word!r} is not an id and not a user of the image",
                hint=f"{_HINT}; for names, add --passwd FILE",
            )
        found.append(one)
    emit(whose.in_container(name, found), as_json=as_json, of=of)
    if not all(one.is_mapped for one in found):
        sys.exit(ExitStatus.FAILED)


def _words(ids: Iterable[str]) -> Iterator[str]:
    """The typed words; for '-', the words of standard input."""
    for word in ids:
        if word == _STDIN:
            yield from _from_stdin().decode("utf-8", "backslashreplace").split()
        else:
            yield word


def _read(words: Sequence[str]) -> list[int]:
    """The typed ids, in order. Raises InvalidValueError for anything that is not an id."""
    found: list[int] = []
    for word in words:
        if word == _STDIN:
            found += _read_many(_from_stdin())
        else:
            number = read_id(word)
            if number is None:
                raise InvalidValueError(f"{word!r} is not an id", hint=_HINT)
            found.append(number)
    return found


def _read_many(raw: bytes) -> list[int]:
    """The ids of a text. Each distinct word is parsed once: a list may have millions."""
    words = raw.split()
    known = {word: read_id(word.decode("ascii", "backslashreplace")) for word in set(words)}
    if None in known.values():
        for number, line in enumerate(raw.split(b"\n"), 1):
            for word in line.split():
                if known[word] is None:
                    shown = word.decode("utf-8", "backslashreplace")
                    raise InvalidValueError(
                        f"standard input, line {number}: {shown!r} is not an id", hint=_HINT
                    )
    return [known[word] or 0 for word in words]


def _from_stdin() -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        raise InvalidValueError("ID is missing", hint="name ids, pipe them in, or use --file PATH")
    raw = sys.stdin.buffer.read(_MOST + 1)
    if len(raw) > _MOST:
        raise InvalidValueError(
            f"standard input is larger than {_MOST} bytes", hint="ask for fewer ids at a time"
        )
    return raw


def _carried(layout: Layout, paths: Sequence[str]) -> Iterator[whose.FileIds]:
    """The ids of files, with the paths as they were typed."""
    if not paths:
        return
    from usernsplan.volume import owned  # noqa: PLC0415 - only for files

    for path in paths:
        kind, one = owned.of_path(layout, path)
        yield whose.FileIds(path, kind, one, owned.idmapped_at(layout, path))


def _all_ids(one: InodeIds) -> Iterator[int]:
    yield from (one.uid, one.gid)
    yield from (entry.id for entry in (*one.acl, *one.default_acl))
    if one.rootid is not None:
        yield one.rootid
