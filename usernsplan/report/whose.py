"""Who has an id, as text and as JSON."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from usernsplan.escape import line as escaped
from usernsplan.escape import shell, shown_path, utf8
from usernsplan.formats.subid import Grant, Odd
from usernsplan.ids import OVERFLOW_ID
from usernsplan.model import Namespace, Quarantined, Reservation, Unlisted
from usernsplan.report.json_ import deed_fields, document, path_fields
from usernsplan.report.result import Result
from usernsplan.report.text import who
from usernsplan.reserved import Reserved
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from usernsplan.claims.index import Claim
    from usernsplan.host.standing import Standing
    from usernsplan.ids import IdSet
    from usernsplan.layout import Layout
    from usernsplan.mapping import Kind
    from usernsplan.model import Allocation
    from usernsplan.volume.owned import InodeIds
    from usernsplan.whose.ids import Answer, Holder, IdContext, Inside

# Many containers may share a map, and their list would hide the rest; --json has all.
_SHOWN = 8
_PIDS_SHOWN = 5
# What text calls a kind of holder, if not by the kind's name.
_CALLED = {
    "allocation": "container",
    "pass": "passes through to container",
    "reserved": "reserved for",
    "unlisted": "used by",
    "absent": "nobody here:",
    "useradd": "kept for",
    "reservation": "reserved:",
    "quarantine": "quarantined:",
}
# Nobody else names the place of these.
_WITH_PLACE = frozenset({"unlisted", "useradd", "absent"})
_LONG = 200
UNMAPPED = f"a container shows every id that its map lacks as {OVERFLOW_ID}"


class FileIds(NamedTuple):
    """The ids that a file shows: its path as typed, its kind, its ids, and the mount if it has a map."""

    path: str
    kind: str
    ids: InodeIds
    through: Standing | None = None

    def on_disk(self, kind: Kind, number: int) -> int | None:
        """The id on disk that is shown as this one; None if it is unknown."""
        mapping = self.through.mapping if self.through else None
        return mapping[kind].to_container(number) if mapping else None


def result(
    asked: Sequence[int],
    carried: Sequence[FileIds],
    found: Mapping[int, Answer],
    pool: IdSet | None,
    facts: IdContext,
) -> Result:
    """The holders of these ids, and of the ids that files carry."""
    return Result(
        partial(_text, asked, carried, found, pool if facts.complete else None, facts.layout),
        lambda: document(
            "whois",
            answers=[
                _answer_fields(number, found[number], pool, complete=facts.complete)
                for number in dict.fromkeys(asked)
            ],
            files=[_file_fields(one, found) for one in carried],
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
    carried: Sequence[FileIds],
    found: Mapping[int, Answer],
    pool: IdSet | None,
    layout: Layout,
) -> Iterator[str]:
    for one in carried:
        yield file(one, found, pool)
    if len(asked) == 1:
        yield paragraph(asked[0], found[asked[0]], layout, pool)
    else:
        lines = {number: line(number, found[number], pool) for number in set(asked)}
        yield from (lines[number] for number in asked)


def paragraph(number: int, answer: Answer, layout: Layout, pool: IdSet | None) -> str:
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


def line(number: int, answer: Answer, pool: IdSet | None) -> str:
    """The holders of one id, on one line."""
    uid, gid = (short(some, number, pool) for some in (answer.uid, answer.gid))
    return f"{number:<10}  {uid}" if uid == gid else f"{number:<10}  uid: {uid}; gid: {gid}"


def short(holders: Sequence[Holder], number: int, pool: IdSet | None) -> str:
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
    number: int, answer: Answer, pool: IdSet | None, *, complete: bool
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
        case Unlisted(program=program, what=what):
            place = {"file": utf8(claim.path) or None, "line": claim.number or None}
            more = {"program": program, "what": utf8(what), **place, "range": ids}
        case _ if claim.source == "absent":
            more = {"file": claim.path, "range": ids}
        case Quarantined(since=since):
            more = {"name": claim.holder, "since": since, "range": ids}
        case Reservation():
            more = {"why": claim.holder, "range": ids}
        case _:
            more = {"name": utf8(claim.holder)}
    return {"kind": holder.kind, **more}


def file(one: FileIds, found: Mapping[int, Answer], pool: IdSet | None) -> str:
    """The holders of a file's ids, each id on a line, with the id on disk if it is another."""
    lines = [f"{shown_path(one.path)} ({one.kind})"]
    if one.through:
        lines[0] += f", shown by the idmapped mount at {shown_path(one.through.mount.point)}"
        if one.through.mapping is None:
            lines.append(
                "  the ids on disk are other ones, which the kernel tells from Linux 6.15 on"
            )
    for what, kind, number, holders in _roles(one.ids, found):
        disk = one.on_disk(kind, number)
        on_disk = "" if disk is None else f" ({disk} on disk)"
        if one.through and one.through.mapping and disk is None:
            on_disk = " (the mount's map lacks the id on disk)"
        lines.append(f"  {what} {number}{on_disk}: {short(holders, number, pool)}")
    return "\n".join(lines)


def _file_fields(one: FileIds, found: Mapping[int, Answer]) -> dict[str, Any]:
    return {
        **path_fields(one.path),
        "type": one.kind,
        "ids": [
            {
                "role": what,
                "id": number,
                "on_disk": one.on_disk(kind, number) if one.through else number,
                "claims": [fields(holder) for holder in holders],
            }
            for what, kind, number, holders in _roles(one.ids, found)
        ],
        "mount": path_fields(one.through.mount.point) if one.through else None,
    }


def _roles(
    one: InodeIds, found: Mapping[int, Answer]
) -> Iterator[tuple[str, Kind, int, tuple[Holder, ...]]]:
    """Each id of an inode: its role, its kind, the id, and its holders."""
    yield "owner", "uid", one.uid, found[one.uid].uid
    yield "group", "gid", one.gid, found[one.gid].gid
    for what, entries in (("ACL", one.acl), ("default ACL", one.default_acl)):
        for entry in entries:
            kind: Kind = "uid" if entry.kind == "user" else "gid"
            answer = found[entry.id]
            holders = answer.uid if kind == "uid" else answer.gid
            yield f"{what} {entry.kind}", kind, entry.id, holders
    if one.rootid is not None:
        yield "capability for the root of", "uid", one.rootid, found[one.rootid].uid


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
        case _ if claim.source == "absent":
            return [f"does not exist in this container: {claim.path} lacks {claim.ids}"]
        case Unlisted():
            called += f": {claim.ids}" + (f" ({_place(claim)})" if claim.path else "")
    return [called]


def _allocation(holder: Holder, a: Allocation) -> list[str]:
    what = f"container {a.name}: reserved for it, not mapped"
    if holder.pool:
        what = f"the pool {a.name}: {holder.pool} divides it among its containers"
    elif holder.kind == "pass":
        what = f"passes through to container {a.name}, container id {_container_id(holder)}"
    elif holder.container_id is not None:
        what = f"container {a.name}, container id {_container_id(holder)}"
    owners = f"of {', and '.join((a.owner, *a.extra_owners))}"
    if a.within:
        owners = f"within the lines of {a.within}"
    lines = [
        what,
        f"  range {holder.claim.ids} {owners}, strategy {a.strategy}, since {a.since}",
    ]
    if holder.kind == "pass":
        lines[1:] = [
            f"  on purpose: the ids stay the host's; strategy {a.strategy}, since {a.since}"
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
    place = f" ({_place(claim)})" if kind in _WITH_PLACE and claim.path else ""
    return f"{_CALLED.get(kind, kind)} {shown_path(claim.holder)}{lacks}{place}"


def _place(claim: Claim) -> str:
    return escaped(claim.path) + (f":{claim.number}" if claim.number else "")


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


def _free(pool: IdSet | None, number: int) -> str:
    if pool is None:
        return "nobody's, as far as can be seen"
    if number in pool:
        return f"nobody's: free in the pool ({pool})"
    return f"nobody's, and outside the pool ({pool})"
