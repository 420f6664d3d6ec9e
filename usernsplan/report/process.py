"""A process and its user namespace, and all of a machine's, as text and as JSON."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from usernsplan.escape import shown_path, utf8
from usernsplan.ids import IdRange
from usernsplan.mapping import KINDS
from usernsplan.report.json_ import document, range_fields
from usernsplan.report.result import Result
from usernsplan.report.text import table
from usernsplan.report.whose import fields, line_of, short
from usernsplan.whose.ids import Ranges
from usernsplan.whose.privileges import listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from usernsplan.formats.proc_status import Ids, Status
    from usernsplan.mapping import Extent, IdMap, Kind
    from usernsplan.model import Namespace
    from usernsplan.whose.ids import Answer, Holder, IdContext, Share
    from usernsplan.whose.privileges import Process, Sentence

_SETS = ("effective", "permitted", "bounding", "inheritable", "ambient")
_SECCOMP = {0: "none", 1: "strict", 2: "filter"}
# A namespace of many small extents would bury the rest; --json has all.
_SHOWN = 12
_FEW = 3
_OF_ONE_ID = {"account", "group"}


def result(process: Process, said: Sequence[Sentence]) -> Result:
    """Everything that is known of a process, and what it means."""
    return Result(partial(_text_of, process, said), partial(_document_of, process, said))


def all_namespaces(
    found: Sequence[Namespace], names: Mapping[int, str], facts: IdContext, *, complete: bool
) -> Result:
    """Every user namespace, nested ones below their parent; ``complete`` tells whether all could be seen."""
    return Result(
        partial(_all_text, found, names, facts, complete=complete),
        partial(_all_document, found, names, facts, complete=complete),
    )


def _text_of(process: Process, said: Sequence[Sentence]) -> str:
    pid, status, line, facts, whose, initial = process
    parts = [f"process {pid} ({shown_path(status.name)}), state {status.state}"]
    if line == () and not initial:
        parts.append("no user namespace of its own, but the one that this was looked at from")
    else:
        parts += _namespaces(line, Ranges(facts), whose)
    namespace = process.namespace
    mapping = namespace.mapping if namespace else None
    rows = []
    for kind, ids in zip(KINDS, (status.uids, status.gids), strict=True):
        one = mapping[kind] if mapping else None
        rows += [
            (f"{what}{kind}", *_seen(number, one, namespace, whose, kind))
            for what, number in _four(ids)
        ]
    groups = mapping.gids if mapping else None
    rows += [
        ("" if at else "groups", *_seen(number, groups, namespace, whose, "gid"))
        for at, number in enumerate(status.groups[:_SHOWN])
    ]
    if len(status.groups) > _SHOWN:
        rows.append(("", f"and {len(status.groups) - _SHOWN} more", "", ""))
    headers = ("", "host id", "container id", "whose") if namespace else ("", "id", "", "whose")
    parts.append(table(headers, rows))
    sets = [(f"{name} capabilities", listed(getattr(status.capabilities, name))) for name in _SETS]
    sets.append(
        ("no_new_privs", {None: "unknown", False: "not set", True: "set"}[status.no_new_privs])
    )
    sets.append(("seccomp", _seccomp(status)))
    parts.append(table((), sets))
    parts.append(
        "\n".join(
            ("What that means:", *(f"  {'!' if one.unusual else '-'} {one.text}" for one in said))
        )
    )
    return "\n\n".join(parts)


def _document_of(process: Process, said: Sequence[Sentence]) -> str:
    pid, status, line, facts, whose, initial = process
    ranges = Ranges(facts)
    mapping = process.namespace.mapping if process.namespace else None
    uids, gids = (mapping.uids, mapping.gids) if mapping else (None, None)
    return document(
        "inspect",
        pid=pid,
        name=utf8(status.name),
        state=status.state,
        initial=initial,
        namespaces=None
        if line is None
        else [
            _namespace_fields(namespace, ranges, around)
            for namespace, around in zip(line, [*line[1:], None], strict=False)
        ],
        uids={
            what: _id_fields(number, uids, line, whose[number].uid)
            for what, number in _named(status.uids)
        },
        gids={
            what: _id_fields(number, gids, line, whose[number].gid)
            for what, number in _named(status.gids)
        },
        groups=[_id_fields(number, gids, line, whose[number].gid) for number in status.groups],
        capabilities={name: list(getattr(status.capabilities, name)) for name in _SETS},
        no_new_privs=status.no_new_privs,
        seccomp=status.seccomp,
        seccomp_filters=status.filters,
        meaning=[one._asdict() for one in said],
    )


def _all_text(
    found: Sequence[Namespace], names: Mapping[int, str], facts: IdContext, *, complete: bool
) -> str:
    if not found:
        where = "runs here" if complete else "can be seen from here"
        return f"No user namespace {where} but the host's."
    accounts = {user.uid: user.name for user in reversed(facts.accounts.users)}
    ranges, rows = Ranges(facts), []
    for depth, one in _nested(found):
        owner = "" if one.owner is None else str(one.owner)
        who = f" ({shown_path(accounts[one.owner])})" if one.owner in accounts else ""
        first = f"{one.pids[0]} ({shown_path(names.get(one.inode, ''))})" if one.pids else ""
        rows.append(
            (
                f"└{'──' * depth} {one.inode}" if depth else str(one.inode),
                owner + who,
                str(len(one.pids)),
                first,
                _hosts(one),
                _belongs(one, ranges),
            )
        )
    return table(("namespace", "made by uid", "processes", "first", "host uids", "whose"), rows)


def _all_document(
    found: Sequence[Namespace], names: Mapping[int, str], facts: IdContext, *, complete: bool
) -> str:
    accounts = {user.uid: utf8(user.name) for user in reversed(facts.accounts.users)}
    ranges = Ranges(facts)
    by_inode = {namespace.inode: namespace for namespace in found}
    return document(
        "namespaces",
        complete=complete,
        namespaces=[
            {
                **_namespace_fields(one, ranges, by_inode.get(one.parent or 0)),
                "owner_name": accounts.get(one.owner) if one.owner is not None else None,
                "depth": depth,
                "name": utf8(names[one.inode]) if one.inode in names else None,
            }
            for depth, one in _nested(found)
        ],
    )


def _nested(found: Sequence[Namespace]) -> Iterator[tuple[int, Namespace]]:
    """Each namespace after the one around it, and how deep it lies."""
    known = {namespace.inode for namespace in found}
    below: dict[int, list[Namespace]] = {}
    for namespace in found:
        below.setdefault(
            namespace.parent if namespace.parent in known and namespace.parent else 0, []
        ).append(namespace)
    waiting = [(0, namespace) for namespace in reversed(below.get(0, []))]
    while waiting:
        depth, namespace = waiting.pop()
        yield depth, namespace
        waiting += [(depth + 1, inner) for inner in reversed(below.get(namespace.inode, []))]


def _hosts(namespace: Namespace) -> str:
    if namespace.mapping is None or not namespace.mapping.uids:
        return "no map" if namespace.pids else ""
    ranges = namespace.mapping.uids.host_ranges()
    more = f", and {len(ranges) - _FEW} more" if len(ranges) > _FEW else ""
    return ", ".join(map(str, ranges[:_FEW])) + more


def _belongs(namespace: Namespace, ranges: Ranges) -> str:
    """Whose the ids of a namespace are, in a few words."""
    if namespace.mapping is None:
        return ""
    told = dict.fromkeys(
        word for words in _words(namespace.mapping.uids, ranges, "uid") for word in words
    )
    few = list(told)[:_FEW]
    return ", ".join(few) + (f", and {len(told) - _FEW} more" if len(told) > _FEW else "")


def _words(ids: IdMap, ranges: Ranges, kind: Kind) -> Iterator[list[str]]:
    """Whose the host ids of each extent are."""
    nobody = "given to nobody" if ranges.complete else "given to nobody, as far as can be seen"
    for extent, parts, free in ranges.shares(ids, kind):
        wide = [part for part in parts if part.holder.kind not in _OF_ONE_ID]
        single = [part for part in parts if part.holder.kind in _OF_ONE_ID]
        words = (
            ["each id is the host's own"]
            if extent.container == extent.host and extent.count > 1
            else []
        )
        words += [_share(extent, part) for part in wide[:_SHOWN]]
        if len(wide) > _SHOWN:
            words.append(f"and {len(wide) - _SHOWN} more")
        if len(single) > _FEW:
            words.append(f"{len(single)} {'accounts' if kind == 'uid' else 'groups'} of the host")
        else:
            words += [_share(extent, part) for part in single]
        if free and not words:
            words.append(nobody)
        elif free and wide:
            more = f" and {len(list(free)) - _FEW} more" if len(list(free)) > _FEW else ""
            words.append(f"{', '.join(map(str, list(free)[:_FEW]))}{more}: {nobody}")
        yield words


def _share(extent: Extent, part: Share) -> str:
    """Whose a part of an extent is, and whether it is all of it."""
    whole = part.start == extent.host and part.stop == extent.host + extent.count
    of = "" if part.holder.claim[:2] == part[:2] else "a part of "
    only = "" if whole else f"{IdRange(part.start, part.stop - part.start)}: "
    return f"{only}{of}{line_of(part.holder)}"


def _namespaces(
    line: Sequence[Namespace] | None, ranges: Ranges, whose: Mapping[int, Answer]
) -> Iterator[str]:
    if line is None:
        yield "its user namespace cannot be seen, nor whether it has one of its own"
        return
    if not line:
        yield "no user namespace of its own: its ids are the host's"
    for depth, one in enumerate(line):
        around = line[depth + 1] if depth + 1 < len(line) else None
        who = (
            ""
            if one.owner is None
            else f", made by uid {one.owner}: {_whose(whose[one.owner].uid, one.owner)}"
        )
        number = str(one.inode) if one.inode else "that cannot be looked at"
        head = f"{'in the' if depth else 'the'} user namespace {number}{who}"
        if one.mapping is None:
            yield f"{head}\n  its maps are not written, or no process is left in it"
            continue
        rows = [
            (f"{kind}s", *row)
            for kind in KINDS
            for row in _extents(one.mapping[kind], around, ranges, kind)
        ]
        headers = (
            "",
            "container ids",
            *(["in the one around it"] if around else []),
            "host ids",
            "whose",
        )
        lacking = [f"\n  its {kind}_map is not written" for kind in KINDS if not one.mapping[kind]]
        yield f"{head}\n{table(headers, rows)}{''.join(lacking)}"


def _extents(
    ids: IdMap, around: Namespace | None, ranges: Ranges, kind: Kind
) -> Iterator[tuple[str, ...]]:
    for number, (extent, words) in enumerate(zip(ids, _words(ids, ranges, kind), strict=True)):
        if number == _SHOWN:
            yield (
                "…",
                *([""] if around else []),
                f"and {len(ids) - _SHOWN} more",
                "(--json has them)",
            )
            return
        between = [_between(extent, around, kind)] if around else []
        yield (str(extent.container_range), *between, str(extent.host_range), "\n".join(words))


def _between(extent: Extent, around: Namespace, kind: Kind) -> str:
    """What the namespace around calls the ids of an extent."""
    if around.mapping is None:
        return "unknown"
    parent = around.mapping[kind].to_container(extent.host)
    if parent is None:
        return "not mapped"
    return f"{parent}-{parent + extent.count - 1}" if extent.count > 1 else str(parent)


def _namespace_fields(one: Namespace, ranges: Ranges, around: Namespace | None) -> dict[str, Any]:
    maps: dict[str, Any] = {"uid_map": None, "gid_map": None}
    if one.mapping:
        maps = {
            f"{kind}_map": list(_extent_fields(one.mapping[kind], around, ranges, kind)) or None
            for kind in KINDS
        }
    return {
        "inode": one.inode or None,
        "owner": one.owner,
        "parent": one.parent,
        "pids": list(one.pids),
        **maps,
    }


def _extent_fields(
    ids: IdMap, around: Namespace | None, ranges: Ranges, kind: Kind
) -> Iterator[dict[str, Any]]:
    outer = around.mapping if around else None
    for extent, parts, free in ranges.shares(ids, kind):
        yield {
            "container": extent.container,
            "parent": outer[kind].to_container(extent.host) if outer else None,
            "host": extent.host,
            "count": extent.count,
            "belongs": [
                {
                    "ids": {"start": p.start, "count": p.stop - p.start},
                    "holder": _without_ids(fields(p.holder)),
                }
                for p in parts
            ],
            "free": [range_fields(one) for one in free],
        }


def _without_ids(holder: dict[str, Any]) -> dict[str, Any]:
    """A claim on a range: which container id it is, is no question here."""
    return {
        name: value
        for name, value in holder.items()
        if name not in {"container_id", "container_name"}
    }


def _id_fields(
    number: int, ids: IdMap | None, line: Sequence[Namespace] | None, holders: Iterable[Holder]
) -> dict[str, Any]:
    inside = number if line == () else ids.to_container(number) if ids else None
    return {"id": number, "container_id": inside, "claims": [fields(one) for one in holders]}


def _seen(
    number: int,
    ids: IdMap | None,
    namespace: Namespace | None,
    whose: Mapping[int, Answer],
    kind: Kind,
) -> tuple[str, str, str]:
    inside = ""
    if namespace is not None:
        container = ids.to_container(number) if ids else None
        inside = "not mapped" if container is None else str(container)
    return (
        str(number),
        inside,
        _whose(whose[number][kind], number),
    )


def _whose(holders: Sequence[Holder], number: int) -> str:
    """Who has an id, running namespaces aside: this is about one of them."""
    return short([one for one in holders if one.kind != "namespace"], number, None)


def _four(ids: Ids) -> Iterator[tuple[str, int]]:
    """The four ids of a process; one line where they are the same."""
    if len(set(ids.all())) == 1:
        yield "", ids.real
    else:
        for what, number in _named(ids):
            yield f"{what.replace('_', ' ')} ", number


def _named(ids: Ids) -> Iterator[tuple[str, int]]:
    yield from (
        ("real", ids.real),
        ("effective", ids.effective),
        ("saved", ids.saved),
        ("file_system", ids.file_system),
    )


def _seccomp(status: Status) -> str:
    if status.seccomp is None:
        return "unknown"
    many = (
        f", {status.filters} of them" if status.seccomp == 2 and status.filters is not None else ""  # noqa: PLR2004
    )
    return _SECCOMP.get(status.seccomp, str(status.seccomp)) + many
