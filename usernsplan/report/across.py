"""What a whole fleet has, as text and as documents. Long ones are made while they are printed."""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from usernsplan.escape import line, shell, shown_path, utf8
from usernsplan.layout import Layout
from usernsplan.mapping import KINDS
from usernsplan.report import map_json
from usernsplan.report.json_ import (
    allocation_fields,
    deed_fields,
    document,
    mount_fields,
    named_range_fields,
    range_fields,
    streamed,
    volume_fields,
)
from usernsplan.report.result import Result
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from usernsplan.fleetwide import (
        ClaimSeen,
        EventSeen,
        HostSeen,
        IdSeen,
        NameSeen,
        OwnSeen,
        ReleasedSeen,
        Stretch,
        WishSeen,
    )
    from usernsplan.mapping import Kind
    from usernsplan.model import Allocation, Volume, VolumeMount
    from usernsplan.space import Capacity, Kinds

# So many hosts are named; --json has all.
_HOSTS = 4
_LINES = 8
_RANGES = 3
# The widths of the columns: a table whose rows are not known beforehand.
_NAME, _IDS, _STRATEGY = 24, 23, 13


class Of(NamedTuple):
    """Whose the result is: the place of the fleet's ledger, and one host if only that is shown."""

    place: str
    host: str | None

    def fields(self) -> dict[str, Any]:
        """The fields that say so."""
        return {"place": utf8(self.place), "host": self.host}


def told(hosts: Sequence[str], every: int = 0) -> str:
    """Some hosts in words; ``every`` is how many there are."""
    if every and 1 < every == len(hosts):
        return f"all {every} hosts"
    more = len(hosts) - _HOSTS
    shown = ", ".join(map(line, hosts[:_HOSTS]))
    return f"{shown} and {more} more" if more > 0 else shown


def names(
    of: Of, hosts: Sequence[HostSeen], found: Iterable[NameSeen], released: Iterable[ReleasedSeen]
) -> Result:
    """What list shows of a fleet."""
    return Result(
        partial(_names_text, hosts, found, released),
        lambda: streamed(
            "fleet-list",
            **of.fields(),
            hosts=[_host_fields(one) for one in hosts],
            allocations=(_name_fields(one) for one in found),
            quarantined=(
                {
                    **named_range_fields(q.name, q.reserved_range),
                    "since": q.since,
                    "hosts": list(on),
                }
                for q, on in released
            ),
        ),
    )


def name(
    of: Of,
    found: Sequence[NameSeen],
    wishes: Sequence[WishSeen],
    volumes: Sequence[Volume] = (),
    mounts: Sequence[VolumeMount] = (),
) -> Result:
    """What show shows of a name. Volumes and mounts are those of one host, which alone can see them."""
    return Result(
        partial(_name_text, found, wishes, volumes, mounts),
        lambda: document(
            "fleet-show",
            **of.fields(),
            name=found[0].allocation.name,
            allocations=[_name_fields(one) for one in found],
            volumes=[volume_fields(one) for one in volumes],
            mounts=[mount_fields(one, Layout()) for one in mounts],
            wishes=[_wish_fields(one) for one in wishes],
        ),
    )


def whose(of: Of, asked: Sequence[int], found: dict[int, IdSeen]) -> Result:
    """Who has these ids."""
    return Result(
        lambda: (_id_text(found[number], of) for number in asked),
        lambda: streamed(
            "fleet-whois",
            **of.fields(),
            answers=(_id_fields(found[number]) for number in dict.fromkeys(asked)),
        ),
    )


def stretches(
    of: Of, found: Iterable[tuple[Stretch, Kinds]], figures: Capacity, *, whole: bool
) -> str:
    """The document of map."""
    return document(
        "fleet-map",
        **of.fields(),
        pieces=[
            {
                "range": range_fields(one.ids),
                **{kind: kind in kinds for kind in KINDS},
                "state": one.state,
                "name": one.name or None,
                "local": one.local,
                "hosts": list(one.hosts),
            }
            for one, kinds in found
        ],
        complete=whole,
        capacity=map_json.figures(figures),
    )


def capacity(of: Of, figures: Capacity) -> str:
    """The document of capacity."""
    return document("fleet-capacity", **of.fields(), **(map_json.figures(figures) or {}))


def history(of: Of, found: Iterable[EventSeen]) -> Result:
    """The events of hosts, oldest first."""
    return Result(
        partial(_history_text, found),
        lambda: streamed(
            "fleet-history",
            **of.fields(),
            entries=(
                {
                    "host": host,
                    "number": e.number,
                    **deed_fields(e),
                    "lines": list(e.changed),
                }
                for host, e in found
            ),
        ),
    )


def to_do(host: HostSeen) -> list[str]:
    """What a host has still to do, in words."""
    found = []
    if host.wishes:
        things = "1 thing" if host.wishes == 1 else f"{host.wishes} things"
        found.append(f"{line(host.name)}: {things} to do: usernsplan sync")
    if host.refused:
        things = "1 thing" if host.refused == 1 else f"{host.refused} things"
        check = shell("usernsplan", "check", "--host", host.name)
        found.append(f"{line(host.name)}: {things} refused: {check}")
    return found


def _names_text(
    hosts: Sequence[HostSeen], found: Iterable[NameSeen], released: Iterable[ReleasedSeen]
) -> Iterator[str]:
    names = _headed(
        ("name", "host ids", "strategy", "hosts"),
        (
            _row(line(a.name), _ids(a), a.strategy, told(on, len(hosts)) + " (local)" * a.local)
            for a, on in found
        ),
    )
    first = next(names, "Nothing is allocated.")
    yield from chain((first,), names)
    yield from _headed(
        ("released", "quarantined ids", "since", "hosts"),
        (
            _row(line(q.name), str(q.reserved_range), q.since[:10], told(on, len(hosts)))
            for q, on in released
        ),
        first="",
    )
    if pending := [text for host in hosts for text in to_do(host)]:
        yield "\n".join(("", *pending))


def _headed(
    titles: tuple[str, str, str, str], rows: Iterable[str], *, first: str | None = None
) -> Iterator[str]:
    """Rows below their titles; nothing without a row."""
    for number, row in enumerate(rows):
        if not number:
            yield from () if first is None else (first,)
            yield _row(*titles)
        yield row


def _row(name: str, ids: str, what: str, hosts: str) -> str:
    return f"{name:<{_NAME}}  {ids:<{_IDS}}  {what:<{_STRATEGY}}  {hosts}".rstrip()


def _ids(a: Allocation) -> str:
    """The host ids of an allocation, in short."""
    if a.reserved_range:
        return str(a.reserved_range)
    uids, gids = (_few(map(str, a.mapping[kind].host_ranges())) for kind in KINDS)
    return uids if uids == gids else f"uids {uids}; gids {gids}"


def _few(words: Iterable[str]) -> str:
    several = list(words)
    more = len(several) - _RANGES
    return ", ".join(several[:_RANGES]) + (f" and {more} more" if more > 0 else "")


def _name_text(
    found: Sequence[NameSeen],
    wishes: Sequence[WishSeen],
    volumes: Sequence[Volume],
    mounts: Sequence[VolumeMount],
) -> str:
    from usernsplan.report import text  # noqa: PLC0415 - documents need none

    parts = [f"on {told(on)}:\n{text.allocation(a)}" for a, on in found]
    recorded = [
        f"volume {shown_path(v.path)} ({' '.join(filter(None, (v.mode, v.user)))}), as its host recorded it"
        for v in volumes
    ]
    recorded += [
        f"mount {shown_path(m.at)} of {shown_path(m.source)} ({m.mode}), as its host recorded it"
        for m in mounts
    ]
    asked = [_asked(one) for one in wishes]
    return "\n\n".join(filter(None, (*parts, "\n".join(recorded), "\n".join(asked))))


def _asked(one: WishSeen) -> str:
    what = "to be allocated" if one.strategy else "to be released"
    by = f"as {line(one.role)} asked {one.at}"
    why = f"; refused: {line(one.refused)}" if one.refused else ""
    return f"{what} on {line(one.host)}, {by}{why}"


def _id_text(seen: IdSeen, of: Of) -> str:
    lines = [str(seen.number)]
    nobody = f"nobody's on {line(of.host)}" if of.host else "nobody's in the fleet"
    uid, gid = ([*_holders(seen, kind)] or [nobody] for kind in KINDS)
    both = {"as a uid and as a gid": uid} if uid == gid else {"as a uid": uid, "as a gid": gid}
    for what, described in both.items():
        lines += [f"  {what}:", *(f"    {one}" for one in described)]
    return "\n".join(lines)


def _holders(seen: IdSeen, kind: Kind) -> Iterator[str]:
    for claim in seen.claims:
        if claim.kind == kind:
            container = _container_id(claim, seen.number)
            inside = "" if container is None else f", container id {container}"
            local = ", a name of that host alone" if claim.local else ""
            on = "; ".join(f"{state} on {told(hosts)}" for state, hosts in _by_state(claim).items())
            yield f"{line(claim.name)}{inside}: {_range(claim)}, {on}{local}"
    for own in seen.own:
        if own.kind == kind:
            yield f"{line(own.holder)} ({line(own.source)}): {_range(own)}, of {told(own.hosts)} itself"


def _by_state(claim: ClaimSeen) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for host, state in zip(claim.hosts, claim.states, strict=True):
        found.setdefault(state, []).append(host)
    return found


def _range(one: ClaimSeen | OwnSeen) -> str:
    return f"{one.start}-{one.stop - 1}" if one.stop - one.start > 1 else str(one.start)


def _container_id(claim: ClaimSeen, number: int) -> int | None:
    return claim.allocation.mapping[claim.kind].to_container(number) if claim.allocation else None


def _history_text(found: Iterable[EventSeen]) -> Iterator[str]:
    from usernsplan.report.text import who  # noqa: PLC0415 - documents need none

    is_empty = True
    for host, e in found:
        is_empty = False
        more = len(e.changed) - _LINES
        changed = [
            *e.changed[:_LINES],
            *([f"… and {more} more (--json has them)"] if more > 0 else []),
        ]
        first = f"{e.at}  {line(host)}  {who(e.actor)}  {line(e.command)}"
        yield "\n".join((first, *(f"    {line(one)}" for one in changed)))
    if is_empty:
        yield "The history is empty."


def _host_fields(one: HostSeen) -> dict[str, Any]:
    return {
        "name": one.name,
        "seen_seconds_ago": int(one.seconds),
        "to_do": one.wishes,
        "refused": one.refused,
    }


def _name_fields(one: NameSeen) -> dict[str, Any]:
    return {
        **allocation_fields(one.allocation),
        "hosts": list(one.hosts),
    }


def _wish_fields(one: WishSeen) -> dict[str, Any]:
    return {
        "host": one.host,
        "strategy": one.strategy or None,
        "by": one.role,
        "at": one.at,
        "refused": one.refused or None,
    }


def _id_fields(seen: IdSeen) -> dict[str, Any]:
    return {
        "id": seen.number,
        **{
            kind: [
                *(_claim_fields(one, seen.number) for one in seen.claims if one.kind == kind),
                *(_own_fields(one) for one in seen.own if one.kind == kind),
            ]
            for kind in KINDS
        },
        "free": not (seen.claims or seen.own),
    }


def _claim_fields(one: ClaimSeen, number: int) -> dict[str, Any]:
    return {
        "kind": "claim",
        "name": one.name,
        "local": one.local,
        "range": {"start": one.start, "count": one.stop - one.start},
        "container_id": _container_id(one, number),
        "hosts": [
            {"host": host, "state": state}
            for host, state in zip(one.hosts, one.states, strict=True)
        ],
    }


def _own_fields(one: OwnSeen) -> dict[str, Any]:
    return {
        "kind": "own",
        "source": one.source,
        "holder": utf8(one.holder),
        "range": {"start": one.start, "count": one.stop - one.start},
        "hosts": [{"host": host, "state": "own"} for host in one.hosts],
    }
