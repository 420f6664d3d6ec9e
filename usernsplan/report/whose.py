"""Answers to whose an id is, as text and as JSON."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from usernsplan.escape import line as escaped
from usernsplan.escape import shell, shown_path, utf8
from usernsplan.ids import OVERFLOW_ID
from usernsplan.report.json_ import deed_fields, document, path_fields, range_fields
from usernsplan.report.result import Result
from usernsplan.report.text import who
from usernsplan.whose.ids import (
    OfAccount,
    OfAllocation,
    OfGroup,
    OfLine,
    OfNamespace,
    OfQuarantine,
    OfReservation,
    OfReserved,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from usernsplan.ids import IdRange
    from usernsplan.layout import Layout
    from usernsplan.volume.owned import InodeIds
    from usernsplan.whose.ids import Answer, Holder, IdContext, Inside, Span

# A map that many containers share would bury the rest; --json has all.
_SHOWN = 8
_PIDS_SHOWN = 5
_LONG = 200
UNMAPPED = f"an id that a container's map lacks is shown as {OVERFLOW_ID} in it"


def result(
    asked: Sequence[int],
    carried: Sequence[tuple[str, str, InodeIds]],
    found: Mapping[int, Answer],
    pool: IdRange | None,
    facts: IdContext,
) -> Result:
    """Whose these ids are, and those that files carry: each path, the kind of what lies there, and its ids."""
    return Result(
        partial(_text, asked, carried, found, pool if facts.complete else None, facts.layout),
        lambda: document(
            "whois",
            answers=[
                _answer_fields(number, found[number], pool, complete=facts.complete)
                for number in dict.fromkeys(asked)
            ],
            files=[_file_fields(path, kind, one, found) for path, kind, one in carried],
        ),
    )


def in_container(name: str, found: Sequence[Inside]) -> Result:
    """What the host calls a container's users or ids; null in the document where the map lacks it."""
    return Result(
        lambda: (inside(one, name) for one in found),
        lambda: document(
            "whois-container",
            container=name,
            answers=[{**one._asdict(), "asked": utf8(one.asked)} for one in found],
        ),
    )


def _text(
    asked: Sequence[int],
    carried: Sequence[tuple[str, str, InodeIds]],
    found: Mapping[int, Answer],
    pool: IdRange | None,
    layout: Layout,
) -> Iterator[str]:
    for path, kind, one in carried:
        yield file(path, kind, one, found, pool)
    if len(asked) == 1:
        yield paragraph(asked[0], found[asked[0]], layout, pool)
    else:
        lines = {number: line(number, found[number], pool) for number in set(asked)}
        yield from (lines[number] for number in asked)


def paragraph(number: int, answer: Answer, layout: Layout, pool: IdRange | None) -> str:
    """Everything that is known of one id."""
    lines = [str(number)]
    uid, gid = (
        [line for one in some for line in _told(one, layout)] for some in (answer.uid, answer.gid)
    )
    for what, told in (
        (("as a uid and as a gid", uid),) if uid == gid else (("as a uid", uid), ("as a gid", gid))
    ):
        lines.append(f"  {what}:")
        lines += [f"    {line}" for line in told or [_free(pool, number)]]
    if number == OVERFLOW_ID:
        lines.append(f"  {UNMAPPED}")
    return "\n".join(lines)


def line(number: int, answer: Answer, pool: IdRange | None) -> str:
    """The same on one line, with what is needed to look further."""
    uid, gid = (short(some, number, pool) for some in (answer.uid, answer.gid))
    return f"{number:<10}  {uid}" if uid == gid else f"{number:<10}  uid: {uid}; gid: {gid}"


def short(holders: Sequence[Holder], number: int, pool: IdRange | None) -> str:
    """Who has an id, in a few words."""
    if any(isinstance(one, OfAccount | OfGroup) for one in holders):
        # That an account lies where accounts lie is no news.
        holders = [one for one in holders if not isinstance(one, OfReserved)]
    told = [_short(one) for one in holders[:_SHOWN]] or [_free(pool, number)]
    return ", ".join(told) + (
        f", and {len(holders) - _SHOWN} more" if len(holders) > _SHOWN else ""
    )


def inside(found: Inside, name: str) -> str:
    """What the host calls a container's user or id, on one line."""
    numbers = (("uid", found.container_uid, found.uid), ("gid", found.container_gid, found.gid))
    told = [
        f"{kind} {container} -> "
        + (f"host {kind} {host}" if host is not None else "not mapped: it has none")
        for kind, container, host in numbers
        if container is not None
    ]
    return f"{name} {shown_path(found.asked)}: {', '.join(told)}"


def _answer_fields(
    number: int, answer: Answer, pool: IdRange | None, *, complete: bool
) -> dict[str, Any]:
    """One answer as an object of the document; whether an id is free is null where not all could be read."""
    return {
        "id": number,
        "uid": [fields(one) for one in answer.uid],
        "gid": [fields(one) for one in answer.gid],
        "free": None if answer.is_free and not complete else answer.is_free,
        "in_pool": None if pool is None else number in pool,
        "remarks": [UNMAPPED] if number == OVERFLOW_ID else [],
    }


def fields(holder: Holder) -> dict[str, Any]:  # noqa: PLR0911 - a case for each
    """Somebody who has an id, as an object."""
    match holder:
        case OfAllocation(allocation, span, container_id, container_name, by):
            return {
                "kind": "allocation",
                "name": allocation.name,
                "owner": allocation.owner,
                "strategy": allocation.strategy,
                "pool": holder.pool,
                "container_id": container_id,
                "container_name": container_name,
                "range": _range(span),
                "since": allocation.since,
                "by": deed_fields(by) if by else None,
            }
        case OfLine(file, found, span):
            told = {
                "file": file,
                "line": found.number,
                "owner": utf8(holder.owner),
                "range": _range(span),
            }
            return {
                "kind": "subid",
                **told,
                "account": utf8(holder.account) or None,
                "problem": holder.problem or None,
            }
        case OfAccount(name):
            return {"kind": "account", "name": utf8(name)}
        case OfGroup(name):
            return {"kind": "group", "name": utf8(name)}
        case OfNamespace(namespace, container_id):
            pids = list(namespace.pids)
            return {
                "kind": "namespace",
                "inode": namespace.inode,
                "pids": pids,
                "container_id": container_id,
            }
        case OfReserved(entry):
            ids = range_fields(entry.ids)
            return {"kind": "reserved", "whose": entry.whose, "source": entry.source, "range": ids}
        case OfReservation(entry):
            return {"kind": "reservation", "why": entry.why, "range": range_fields(entry.ids)}
        case OfQuarantine(entry):
            ids = range_fields(entry.reserved_range)
            return {"kind": "quarantine", "name": entry.name, "since": entry.since, "range": ids}


def file(
    path: str, kind: str, one: InodeIds, found: Mapping[int, Answer], pool: IdRange | None
) -> str:
    """Whose a file is, each of its ids on a line."""
    lines = [f"{shown_path(path)} ({kind})"]
    for what, number, holders in _roles(one, found):
        lines.append(f"  {what} {number}: {short(holders, number, pool)}")
    return "\n".join(lines)


def _file_fields(
    path: str, kind: str, one: InodeIds, found: Mapping[int, Answer]
) -> dict[str, Any]:
    return {
        **path_fields(path),
        "type": kind,
        "ids": [
            {"role": what, "id": number, "claims": [fields(holder) for holder in holders]}
            for what, number, holders in _roles(one, found)
        ],
    }


def _roles(
    one: InodeIds, found: Mapping[int, Answer]
) -> Iterator[tuple[str, int, tuple[Holder, ...]]]:
    """Each id of an inode: what it is to it, and who has it."""
    yield "owner", one.uid, found[one.uid].uid
    yield "group", one.gid, found[one.gid].gid
    for what, entries in (("ACL", one.acl), ("default ACL", one.default_acl)):
        for entry in entries:
            holders = found[entry.id].uid if entry.kind == "user" else found[entry.id].gid
            yield f"{what} {entry.kind}", entry.id, holders
    if one.rootid is not None:
        yield "capability for the root of", one.rootid, found[one.rootid].uid


def _told(holder: Holder, layout: Layout) -> list[str]:  # noqa: PLR0911 - a case for each
    """Somebody who has an id, in one line or a few."""
    match holder:
        case OfAllocation(allocation, span, _, _, by):
            deed = [f"  by {who(by.actor)}: {_cut(shown_path(by.command))}"] if by else []
            owner = ", and ".join((allocation.owner, *allocation.extra_owners))
            return [
                _inside_of(holder),
                f"  range {_shown(span)} of {owner}, strategy {allocation.strategy}, since {allocation.since}",
                *deed,
            ]
        case OfLine(file, found, span):
            ids, owner = _shown(span), _owner(holder)
            if holder.problem:
                return [
                    f"{escaped(file)}:{found.number}: may be read as {ids} of {owner}",
                    f"  {holder.problem}",
                ]
            return [f"{escaped(file)}:{found.number}: {owner} may map {ids}"]
        case OfAccount(name):
            return [f"the account {shown_path(name)}"]
        case OfGroup(name):
            return [f"the group {shown_path(name)}"]
        case OfNamespace(namespace, container_id):
            more = len(namespace.pids) - _PIDS_SHOWN
            pids = ", ".join(map(str, namespace.pids[:_PIDS_SHOWN])) + (
                f" and {more} more" if more > 0 else ""
            )
            return [
                f"user namespace {namespace.inode}, container id {container_id}: process {pids}"
            ]
        case OfReserved(entry):
            return [f"kept for {entry.whose}: {entry.ids} ({entry.source})"]
        case OfReservation(entry):
            return [f"reserved here: {entry.ids}: {shown_path(entry.why)}"]
        case OfQuarantine(entry):
            forget = layout.inline(f"release --forget {shell(entry.name)}")
            return [
                f"released: {entry.name} had {entry.reserved_range} until {entry.since}, and files may still carry it",
                f"  {forget} gives it back to the pool",
            ]


def _inside_of(holder: OfAllocation) -> str:
    allocation, _, container_id, container_name, _ = holder
    if holder.pool:
        return f"the pool {allocation.name}: {holder.pool} gives parts of it to its containers, and knows which"
    name = f" ({shown_path(container_name)})" if container_name else ""
    what = (
        "kept for it, not mapped" if container_id is None else f"container id {container_id}{name}"
    )
    return f"container {allocation.name}, {what}"


def _short(holder: Holder) -> str:
    if isinstance(holder, OfAllocation) and holder.container_id is not None:
        name = f" ({shown_path(holder.container_name)})" if holder.container_name else ""
        return f"{line_of(holder)}: {holder.container_id}{name}"
    if isinstance(holder, OfNamespace):
        return f"{line_of(holder)}: {holder.container_id}"
    return line_of(holder)


def line_of(holder: Holder) -> str:  # noqa: PLR0911 - a case for each
    """Who somebody is, in a few words, whatever id it is about."""
    match holder:
        case OfAllocation(allocation, _, container_id, _, _):
            if holder.pool:
                return f"the pool {allocation.name} of {holder.pool}"
            return f"container {allocation.name}" + (
                ", kept and not mapped" if container_id is None else ""
            )
        case OfLine(file, found, _):
            return f"{'perhaps ' if holder.problem else ''}{_owner(holder)} ({escaped(file)}:{found.number})"
        case OfAccount(name):
            return f"account {shown_path(name)}"
        case OfGroup(name):
            return f"group {shown_path(name)}"
        case OfNamespace(namespace, _):
            return f"namespace {namespace.inode}"
        case OfReserved(entry):
            return f"kept for {entry.whose}"
        case OfReservation(entry):
            return f"reserved: {shown_path(entry.why)}"
        case OfQuarantine(entry):
            return f"released: {entry.name}"


def _owner(holder: OfLine) -> str:
    account = f" ({shown_path(holder.account)})" if holder.account else ""
    return shown_path(holder.owner) + account


def _cut(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"


def _free(pool: IdRange | None, number: int) -> str:
    if pool is None:
        return "nobody's, as far as can be seen"
    return (
        f"nobody's: free in the pool ({pool})"
        if number in pool
        else f"nobody's, and outside of the pool ({pool})"
    )


def _shown(span: Span) -> str:
    start, stop = span
    return f"{start}-{stop - 1}" if stop - start > 1 else str(start)


def _range(span: Span) -> dict[str, int]:
    # A line may reach past what an IdRange can be.
    start, stop = span
    return {"start": start, "count": stop - start}
