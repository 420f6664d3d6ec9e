"""A process and its user namespace, and all namespaces of a machine, as text and as JSON."""

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
# The list of many small extents would hide the rest; --json has all.
_SHOWN = 12
_FEW = 3
_OF_ONE_ID = {"account", "group"}


def result(process: Process, meaning: Sequence[Sentence]) -> Result:
    """Everything that is known about a process, and what it means."""
    return Result(partial(_text_of, process, meaning), partial(_document_of, process, meaning))


def all_namespaces(
    found: Sequence[Namespace], names: Mapping[int, str], facts: IdContext, *, complete: bool
) -> Result:
    """Every user namespace, below the one around it. ``complete``: all of them could be seen."""
    return Result(
        partial(_all_text, found, names, facts, complete=complete),
        partial(_all_document, found, names, facts, complete=complete),
    )


def _text_of(process: Process, meaning: Sequence[Sentence]) -> str:
    pid, status, line, facts, whose, initial = process
    parts = [f"process {pid} ({shown_path(status.name)}), state {status.state}"]
    if line == () and not initial:
        parts.append("no user namespace of its own: it has the one in which usernsplan runs")
    else:
        parts += _namespaces(line, Ranges(facts), whose)
    namespace = process.namespace
    mapping = namespace.mapping if namespace else None

    ids: list[tuple[str, int, Kind]] = [(f"{role}uid", n, "uid") for role, n in _four(status.uids)]
    ids += [(f"{role}gid", n, "gid") for role, n in _four(status.gids)]
    ids += [("" if at else "groups", n, "gid") for at, n in enumerate(status.groups[:_SHOWN])]
    rows = []
    for role, number, kind in ids:
        inside = ""
        if namespace:
            container = mapping[kind].to_container(number) if mapping else None
            inside = "not mapped" if container is None else str(container)
        rows.append((role, str(number), inside, _whose(whose[number][kind], number)))
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

    bullets = (f"  {'!' if one.unusual else '-'} {one.text}" for one in meaning)
    parts.append("\n".join(("What this means:", *bullets)))
    return "\n\n".join(parts)


def _document_of(process: Process, meaning: Sequence[Sentence]) -> str:
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
        meaning=[one._asdict() for one in meaning],
    )


def _all_text(
    found: Sequence[Namespace], names: Mapping[int, str], facts: IdContext, *, complete: bool
) -> str:
    if not found:
        return (
            f"Only the host's user namespace {'exists' if complete else 'can be seen from here'}."
        )
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
    """Each namespace, after the one around it, with its depth."""
    known = {namespace.inode for namespace in found}
    below: dict[int, list[Namespace]] = {}
    for namespace in found:
        parent = namespace.parent if namespace.parent in known else None
        below.setdefault(parent or 0, []).append(namespace)
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
    """The holders of a namespace's ids, in a few words."""
    if namespace.mapping is None:
        return ""
    extents = _words(namespace.mapping.uids, ranges, "uid")
    holders = list(dict.fromkeys(word for words in extents for word in words))
    more = f", and {len(holders) - _FEW} more" if len(holders) > _FEW else ""
    return ", ".join(holders[:_FEW]) + more


def _words(ids: IdMap, ranges: Ranges, kind: Kind) -> Iterator[list[str]]:
    """The holders of each extent's host ids, as text."""
    nobody = "nobody's" if ranges.complete else "nobody's, as far as can be seen"
    for extent, parts, free in ranges.shares(ids, kind):
        wide = [part for part in parts if part.holder.kind not in _OF_ONE_ID]
        single = [part for part in parts if part.holder.kind in _OF_ONE_ID]
        is_identity = extent.container == extent.host and extent.count > 1
        words = ["each id is the host's own"] if is_identity else []
        words += [_share(extent, part) for part in wide[:_SHOWN]]
        if len(wide) > _SHOWN:
            words.append(f"and {len(wide) - _SHOWN} more")
        if len(single) > _FEW:
            words.append(f"{len(single)} {'accounts' if kind == 'uid' else 'groups'} of the host")
        else:
            words += [_share(extent, part) for part in single]
        if free and not words:
            words.append(nobody)
        elif wide and (gaps := list(map(str, free))):
            more = f" and {len(gaps) - _FEW} more" if len(gaps) > _FEW else ""
            words.append(f"{', '.join(gaps[:_FEW])}{more}: {nobody}")
        yield words


def _share(extent: Extent, part: Share) -> str:
    """The holder of a part of an extent; the ids, if the part is not the whole extent."""
    whole = part.start == extent.host and part.stop == extent.host + extent.count
    of = "" if part.holder.claim[:2] == part[:2] else "part of "
    only = "" if whole else f"{IdRange(part.start, part.stop - part.start)}: "
    return f"{only}{of}{line_of(part.holder)}"


def _namespaces(
    line: Sequence[Namespace] | None, ranges: Ranges, whose: Mapping[int, Answer]
) -> Iterator[str]:
    if line is None:
        yield "its user namespace cannot be seen, not even whether it has one of its own"
        return
    if not line:
        yield "no user namespace of its own: its ids are the host's"
    for depth, one in enumerate(line):
        around = line[depth + 1] if depth + 1 < len(line) else None
        who = ""
        if one.owner is not None:
            who = f", made by uid {one.owner}: {_whose(whose[one.owner].uid, one.owner)}"
        number = str(one.inode) if one.inode else "that cannot be read"
        head = f"{'in the' if depth else 'the'} user namespace {number}{who}"
        if one.mapping is None:
            yield f"{head}\n  it has no maps yet, or no process any more"
            continue
        rows = [
            (f"{kind}s", *row)
            for kind in KINDS
            for row in _extents(one.mapping[kind], around, ranges, kind)
        ]
        middle = ["in the one around it"] if around else []
        headers = ("", "container ids", *middle, "host ids", "whose")
        lacking = [f"\n  it has no {kind}_map yet" for kind in KINDS if not one.mapping[kind]]
        yield f"{head}\n{table(headers, rows)}{''.join(lacking)}"


def _extents(
    ids: IdMap, around: Namespace | None, ranges: Ranges, kind: Kind
) -> Iterator[tuple[str, ...]]:
    for number, (extent, words) in enumerate(zip(ids, _words(ids, ranges, kind), strict=True)):
        if number == _SHOWN:
            middle = [""] if around else []
            yield ("…", *middle, f"and {len(ids) - _SHOWN} more", "(--json has them)")
            return
        between = [_between(extent, around, kind)] if around else []
        yield (str(extent.container_range), *between, str(extent.host_range), "\n".join(words))


def _between(extent: Extent, around: Namespace, kind: Kind) -> str:
    """The ids of an extent in the namespace around it."""
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
    """The holder of a range, without the container id that only one id has."""
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


def _whose(holders: Sequence[Holder], number: int) -> str:
    """The holders of an id, without namespaces: the report is about one of them."""
    return short([one for one in holders if one.kind != "namespace"], number, None)


def _four(ids: Ids) -> list[tuple[str, int]]:
    """The four ids of a process by role; one without a role if they are the same."""
    if len(set(ids.all())) == 1:
        return [("", ids.real)]
    return [(f"{role.replace('_', ' ')} ", number) for role, number in _named(ids)]


def _named(ids: Ids) -> list[tuple[str, int]]:
    return [
        ("real", ids.real),
        ("effective", ids.effective),
        ("saved", ids.saved),
        ("file_system", ids.file_system),
    ]


def _seccomp(status: Status) -> str:
    if status.seccomp is None:
        return "unknown"
    mode = _SECCOMP.get(status.seccomp, str(status.seccomp))
    return f"{mode}, {status.filters} of them" if mode == "filter" and status.filters else mode
