"""Who has an id, as text and as JSON."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from usernsplan.escape import line as escaped
from usernsplan.escape import shell, shown_path, utf8
from usernsplan.formats.subid import Grant, Odd
from usernsplan.ids import OVERFLOW_ID
from usernsplan.model import Namespace, Quarantined, Reservation
from usernsplan.report.json_ import deed_fields, document, path_fields
from usernsplan.report.result import Result
from usernsplan.report.text import who
from usernsplan.reserved import Reserved

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from usernsplan.claims.index import Claim
    from usernsplan.ids import IdRange
    from usernsplan.layout import Layout
    from usernsplan.model import Allocation
    from usernsplan.volume.owned import InodeIds
    from usernsplan.whose.ids import Answer, Holder, IdContext, Inside

# Many containers may share a map, and their list would hide the rest; --json has all.
_SHOWN = 8
_PIDS_SHOWN = 5
# What text calls a kind of holder, if not by the kind's name.
_CALLED = {
    "allocation": "container",
    "reserved": "reserved for",
    "reservation": "reserved:",
    "quarantine": "quarantined:",
}
_LONG = 200
UNMAPPED = f"a container shows every id that its map lacks as {OVERFLOW_ID}"


def result(
    asked: Sequence[int],
    carried: Sequence[tuple[str, str, InodeIds]],
    found: Mapping[int, Answer],
    pool: IdRange | None,
    facts: IdContext,
) -> Result:
    """The holders of these ids, and of the ids that files carry (path, type, ids)."""
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
    """The host ids of a container's users or ids; null in the document for what is not mapped."""
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
    """Everything that is known about one id."""
    lines = [str(number)]
    uid, gid = (
        [line for one in some for line in _described(one, layout)] or [_free(pool, number)]
        for some in (answer.uid, answer.gid)
    )
    both = {"as a uid and as a gid": uid} if uid == gid else {"as a uid": uid, "as a gid": gid}
    for what, described in both.items():
        lines += [f"  {what}:", *(f"    {line}" for line in described)]
    if number == OVERFLOW_ID:
        lines.append(f"  {UNMAPPED}")
    return "\n".join(lines)


def line(number: int, answer: Answer, pool: IdRange | None) -> str:
    """The holders of one id, on one line."""
    uid, gid = (short(some, number, pool) for some in (answer.uid, answer.gid))
    return f"{number:<10}  {uid}" if uid == gid else f"{number:<10}  uid: {uid}; gid: {gid}"


def short(holders: Sequence[Holder], number: int, pool: IdRange | None) -> str:
    """The holders of an id, in a few words."""
    if any(one.kind in {"account", "group"} for one in holders):
        # The convention that accounts have such ids adds nothing to the account's name.
        holders = [one for one in holders if one.kind != "reserved"]
    names = [_short(one) for one in holders[:_SHOWN]] or [_free(pool, number)]
    more = f", and {len(holders) - _SHOWN} more" if len(holders) > _SHOWN else ""
    return ", ".join(names) + more


def inside(found: Inside, name: str) -> str:
    """The host ids of a container's user or id, on one line."""
    numbers = (("uid", found.container_uid, found.uid), ("gid", found.container_gid, found.gid))
    pairs = [
        f"{kind} {container} -> " + ("not mapped" if host is None else f"host {kind} {host}")
        for kind, container, host in numbers
        if container is not None
    ]
    return f"{name} {shown_path(found.asked)}: {', '.join(pairs)}"


def _answer_fields(
    number: int, answer: Answer, pool: IdRange | None, *, complete: bool
) -> dict[str, Any]:
    """One answer as JSON. ``free`` is null if the ledger could not be read."""
    return {
        "id": number,
        "uid": [fields(one) for one in answer.uid],
        "gid": [fields(one) for one in answer.gid],
        "free": None if answer.is_free and not complete else answer.is_free,
        "in_pool": None if pool is None else number in pool,
        "remarks": [UNMAPPED] if number == OVERFLOW_ID else [],
    }


def fields(holder: Holder) -> dict[str, Any]:
    """A holder of an id, as JSON."""
    claim, a = holder.claim, holder.claim.allocation
    # A line may reach past the last id that an IdRange can have.
    ids = {"start": claim.start, "count": claim.stop - claim.start}
    match claim.value:
        case _ if a:
            more: dict[str, Any] = {
                "name": a.name,
                "owner": a.owner,
                "strategy": a.strategy,
                "pool": holder.pool,
                "container_id": holder.container_id,
                "container_name": holder.container_name,
                "range": ids,
                "since": a.since,
                "by": deed_fields(holder.by) if holder.by else None,
            }
        case Grant() | Odd():
            owner, account, problem = _line(claim)
            more = {
                "file": claim.path,
                "line": claim.number,
                "owner": utf8(owner),
                "range": ids,
                "account": utf8(account) or None,
                "problem": problem or None,
            }
        case Namespace(inode=inode, pids=pids):
            more = {"inode": inode, "pids": list(pids), "container_id": holder.container_id}
        case Reserved(source=source):
            more = {"whose": claim.holder, "source": source, "range": ids}
        case Quarantined(since=since):
            more = {"name": claim.holder, "since": since, "range": ids}
        case Reservation():
            more = {"why": claim.holder, "range": ids}
        case _:
            more = {"name": utf8(claim.holder)}
    return {"kind": holder.kind, **more}


def file(
    path: str, kind: str, one: InodeIds, found: Mapping[int, Answer], pool: IdRange | None
) -> str:
    """The holders of a file's ids, each id on a line."""
    ids = (
        f"  {what} {number}: {short(holders, number, pool)}"
        for what, number, holders in _roles(one, found)
    )
    return "\n".join((f"{shown_path(path)} ({kind})", *ids))


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
    """Each id of an inode: its role, the id, and its holders."""
    yield "owner", one.uid, found[one.uid].uid
    yield "group", one.gid, found[one.gid].gid
    for what, entries in (("ACL", one.acl), ("default ACL", one.default_acl)):
        for entry in entries:
            holders = found[entry.id].uid if entry.kind == "user" else found[entry.id].gid
            yield f"{what} {entry.kind}", entry.id, holders
    if one.rootid is not None:
        yield "capability for the root of", one.rootid, found[one.rootid].uid


def _described(holder: Holder, layout: Layout) -> list[str]:
    """A holder of an id, on one line or a few."""
    claim = holder.claim
    called = f"{_CALLED.get(holder.kind, holder.kind)} {shown_path(claim.holder)}"
    place = f"{escaped(claim.path)}:{claim.number}"
    match claim.value:
        case _ if claim.allocation:
            return _allocation(holder, claim.allocation)
        case Grant():
            return [f"{place}: {_line_owner(claim)} may map {claim.ids}"]
        case Odd(problem=problem):
            return [f"{place}: may be read as {claim.ids} of {_line_owner(claim)}", f"  {problem}"]
        case Quarantined(since=since):
            forget = layout.inline(f"release --forget {shell(claim.holder)}")
            return [
                f"{called} had {claim.ids} until {since}, and files may still carry these ids",
                f"  {forget} returns them to the pool",
            ]
        case Namespace(pids=pids):
            some = ", ".join(map(str, pids[:_PIDS_SHOWN]))
            more = f" and {len(pids) - _PIDS_SHOWN} more" if len(pids) > _PIDS_SHOWN else ""
            called = f"user {called}, container id {holder.container_id}: process {some}{more}"
        case Reserved(source=source):
            called += f": {claim.ids} ({source})"
        case Reservation():
            called += f": {claim.ids} in the ledger"
    return [called]


def _allocation(holder: Holder, a: Allocation) -> list[str]:
    what = f"container {a.name}: reserved for it, not mapped"
    if holder.pool:
        what = f"the pool {a.name}: {holder.pool} divides it among its containers"
    elif holder.container_id is not None:
        what = f"container {a.name}, container id {_container_id(holder)}"
    owners = ", and ".join((a.owner, *a.extra_owners))
    lines = [
        what,
        f"  range {holder.claim.ids} of {owners}, strategy {a.strategy}, since {a.since}",
    ]
    if by := holder.by:
        lines.append(f"  by {who(by.actor)}: {_cut(shown_path(by.command))}")
    return lines


def _container_id(holder: Holder) -> str:
    name = f" ({shown_path(holder.container_name)})" if holder.container_name else ""
    return f"{holder.container_id}{name}"


def _short(holder: Holder) -> str:
    number = "" if holder.container_id is None else f": {_container_id(holder)}"
    return f"{line_of(holder)}{number}"


def line_of(holder: Holder) -> str:
    """A holder in a few words, without the id that it has."""
    claim, kind = holder.claim, holder.kind
    if holder.pool:
        return f"the pool {claim.holder} of {holder.pool}"
    if kind == "subid":
        perhaps = "perhaps " if isinstance(claim.value, Odd) else ""
        return f"{perhaps}{_line_owner(claim)} ({escaped(claim.path)}:{claim.number})"
    lacks = ", not mapped" if kind == "allocation" and holder.container_id is None else ""
    return f"{_CALLED.get(kind, kind)} {shown_path(claim.holder)}{lacks}"


def _line(claim: Claim) -> tuple[str, str, str]:
    """A line's owner (which may be a uid), the account of that uid, and why readers differ."""
    line = claim.value
    owner, problem = claim.holder, ""
    if isinstance(line, Grant):
        owner = line.owner
    elif isinstance(line, Odd):
        owner, problem = "".join(line.owners[-1:]), line.problem
    return owner, "" if claim.holder == owner else claim.holder, problem


def _line_owner(claim: Claim) -> str:
    owner, account, _ = _line(claim)
    return shown_path(owner) + (f" ({shown_path(account)})" if account else "")


def _cut(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"


def _free(pool: IdRange | None, number: int) -> str:
    if pool is None:
        return "nobody's, as far as can be seen"
    if number in pool:
        return f"nobody's: free in the pool ({pool})"
    return f"nobody's, and outside the pool ({pool})"
