"""What the server of a fleet sent, decoded and held to this host's own rules. Pure.

Anybody with write access to the database can have written any of it, so every row that a host accepts
comes through here. Nothing that is taken makes anybody root of this host: no id below 65536, none of
an account or of a group, none that is reserved for others, no map that shows the host's own ids.
"""

from __future__ import annotations

import json
import posixpath
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from usernsplan.claims.sources import OF_CONTAINERS
from usernsplan.errors import InvalidValueError, RefusedError, UsernsplanError
from usernsplan.escape import line
from usernsplan.formats import subid, userdb
from usernsplan.holdings import all_own_ids
from usernsplan.ids import ID_LIMIT, IdRange, IdSet
from usernsplan.layout import DAEMON_JSON
from usernsplan.ledger import codec, schema
from usernsplan.mapping import KINDS
from usernsplan.model import Known, LedgerState, Wish
from usernsplan.patterns import pattern
from usernsplan.planner.names import check_name
from usernsplan.reserved import TABLE
from usernsplan.strategies import NAMES, Shared, named
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from usernsplan.formats.accounts import Accounts
    from usernsplan.mapping import Kind, Mapping
    from usernsplan.model import Allocation, Intent, LedgerChange

# What a wish may set. A strategy has other fields, which no command line sets.
_OPTIONS = {"per-container": {"size"}, "single-uid": {"block", "container-id"}}
_AT = pattern(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_NAME = pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
_LONGEST = 10_000
# What the codec raises for what it did not write: see there. UsernsplanError: an impossible range.
_WRONG = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    OverflowError,
    UsernsplanError,
)


class Received(NamedTuple):
    """The ledger of this host as the server has it, and the rows of its events.

    ``left_out`` says what is not taken from there: only this host's root makes mounts.
    """

    state: LedgerState
    events: tuple[tuple[Any, ...], ...]
    left_out: tuple[str, ...]


def view(rows: Iterable[Sequence[Any]], place: str) -> tuple[Any, ...]:
    """The one row of what the server has of this host: see fleet._View. Raises RefusedError."""
    try:
        [row] = codec.typed(map(tuple, rows), int, int, str, codec.MaybeInt, int, str)
        if row[1] < 0:
            raise ValueError(f"{row[1]} events")
    except _WRONG as error:
        raise _refused(place, "what it has of this host", error) from error
    return row


def taken(rows: Iterable[Sequence[Any]]) -> tuple[tuple[Kind, IdSet], ...]:
    """What others have, by kind. It only ever takes ids away from this host."""
    return tuple(
        (
            kind,
            IdSet.clipped(
                (r.lower or 0, ID_LIMIT if r.upper is None else r.upper)
                for r in ids
                if r is not None
            ),
        )
        for kind, ids in rows
        if kind in KINDS
    )


def known(rows: Iterable[Sequence[Any]], place: str) -> tuple[Known, ...]:
    """The ids that names have in the fleet. Raises RefusedError for ids that no host gives out."""
    found = []
    for name, kind, start, stop, held, quarantined in rows:
        try:
            refuse(IdRange(start, stop - start))
        except _WRONG as error:
            raise _refused(place, f"'{line(name)}' there", error) from error
        found.append(Known(name, kind, start, stop, tuple(held), tuple(quarantined)))
    return tuple(found)


def wish(row: Sequence[Any]) -> Wish:
    """A wish. Its ``fault`` says why it is none that any host would grant."""
    name, strategy, options, start, role, at, refused, exactly = row
    told = (_text(strategy), (), start, *map(_text, (role, at, refused, exactly)))
    plain = Wish(_text(name), *told)
    try:
        check_name(name)
        given = _options(strategy, options)
        if start is not None:
            if type(start) is not int:
                raise TypeError(f"{start!r:.40} is not an id")
            refuse(IdRange(start, 1))
    except _WRONG as error:
        return plain._replace(fault=str(error) or type(error).__name__)
    return plain._replace(options=given)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _options(strategy: str, text: str) -> tuple[tuple[str, int], ...]:
    if strategy == "":
        return ()
    if strategy == Shared.name:
        raise RefusedError(
            "a shared map has ids of the host itself, and no other host gives it those",
            hint="on that host: usernsplan allocate NAME --strategy shared",
        )
    if len(text) > _LONGEST:
        raise ValueError(f"the options have more than {_LONGEST} characters")
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError(f"{text:.40} are not options")
    for option, value in found.items():
        if option not in _OPTIONS.get(strategy, ()) or type(value) is not int:
            raise InvalidValueError(f"{option:.40} is not an option of the strategy {strategy:.40}")
    named(strategy, found)
    return tuple(sorted(found.items()))


def refuse(ids: IdRange, owned: IdSet | None = None) -> None:
    """Raise RefusedError for ids that no server gives to this host; ``owned`` are its accounts'."""
    if ids.start < OF_CONTAINERS:
        raise RefusedError(f"{ids} begins below {OF_CONTAINERS}: these are ids of the host itself")
    for one in TABLE:
        if one.ids.overlaps(ids):
            raise RefusedError(f"{ids} meets {one.ids}, which is reserved for {one.whose}")
    for of_account in owned.within(ids) if owned else ():
        raise RefusedError(f"{ids} has {of_account}, which is an account or a group of this host")


# What a host had, which comes back.


def ledger(
    content: Iterable[Sequence[Any]],
    events: Iterable[Sequence[Any]],
    number: int,
    accounts: Accounts,
    place: str,
) -> Received:
    """The ledger of a host of ``number`` events, as rows of tables and of events.

    Raises RefusedError that lists every row that this host does not take; then nothing comes back.
    """
    owned = _owned(accounts)
    wrong: list[str] = []
    values: dict[str, list[Any]] = {table.name: [] for table in schema.TABLES}
    for what, key, text in content:
        try:
            value = _READ[what](unpacked(text))
            _CHECK[what](value, owned)
            if not 0 <= getattr(value, "event", 0) <= number:
                raise ValueError(f"the event {value.event} of {number}")
            for part in _TABLES[what].row(value):
                str(part).encode()
            values[what].append(value)
        except _WRONG as error:  # noqa: PERF203 - every wrong row is reported
            wrong.append(_row(f"{what} {key}", error))
    wrong += _doubles(values)

    rows = []
    for row in events:
        try:
            rows.append(_event(row, owned))
        except _WRONG as error:  # noqa: PERF203 - every wrong row is reported
            wrong.append(_row(f"event {row[0]}", error))
    # The number may be anything.
    if not wrong and (
        len(rows) != number or any(row[0] != at for at, row in enumerate(rows, start=1))
    ):
        wrong.append(f"  the events are not 1 to {number}")
    if wrong:
        refused = RefusedError(
            f"{place} has for this host what it does not take from there; nothing comes back",
            hint="if that is right: 'usernsplan ledger leave --forget', and 'usernsplan ledger rebuild' "
            "makes the ledger out of the files of this host",
        )
        refused.lines = (str(refused), *wrong)
        raise refused

    mounts = values.pop("mount")
    state = LedgerState(
        allocations=tuple(sorted(values["allocation"], key=lambda a: a.name)),
        quarantined=tuple(values["quarantine"]),
        volumes=tuple(values["volume"]),
        reservations=tuple(sorted(values["reservation"], key=lambda r: (r.since, r.ids))),
        number=number,
    )
    return Received(state, tuple(rows), tuple(f"the mount of {m.source} at {m.at}" for m in mounts))


def intent(row: Sequence[Any], accounts: Accounts, before: LedgerState) -> Intent:
    """A run that the host had begun. Raises RefusedError for one that it cannot have begun.

    Its files may differ by lines of its allocations alone, whatever else they would bring with them.
    """
    try:
        found = codec.intent(row)
        _change(found.ledger, _owned(accounts))
        gone = {*found.ledger.remove}
        about = (*found.ledger.add, *found.ledger.update)
        about += tuple(a for a in before.allocations if a.name in gone)
        for change in found.changes:
            if change.path == DAEMON_JSON:
                raise RefusedError(f"it changes {DAEMON_JSON}")
            was = change.before or b""
            lines = (
                *subid.added_lines(was, change.after),
                *subid.added_lines(change.after, was),
            )
            for raw in lines:
                _refuse_line(raw, about)
    except _WRONG as error:
        raise RefusedError(str(error)) from error
    return found


def _refuse_line(raw: bytes, about: Iterable[Allocation]) -> None:
    owner, _, ids = raw.decode().rstrip("\n").partition(":")
    start, count = map(int, ids.split(":"))
    lines = IdRange(start, count)
    for a in about:
        of_map = IdSet.union(IdSet(a.mapping[kind].host_ranges()) for kind in KINDS)
        if owner in {a.owner, *a.extra_owners} and (all_own_ids(a) | of_map).holds(lines):
            return
    raise RefusedError(f"'{line(raw.decode())}' is a line of none of its names")


def _owned(accounts: Accounts) -> IdSet:
    """The ids of accounts and groups. One number is often both, so the kinds are not told apart."""
    numbers = {u.uid for u in accounts.users} | {g.gid for g in accounts.groups}
    return IdSet.clipped((one, one + 1) for one in numbers)


def unpacked(text: str) -> list[Any]:
    """A row that is packed as JSON; bytes, which are paths, are objects with their hex digits."""
    found = json.loads(text)
    if not isinstance(found, list):
        raise TypeError(f"{text:.40} is not a row")
    return [bytes.fromhex(v["hex"]) if isinstance(v, dict) else v for v in found]


def _allocation(row: Sequence[Any]) -> Allocation:
    [found] = codec.allocations([row])
    return found


def _refuse_allocation(a: Allocation, owned: IdSet) -> None:
    _refuse_name(a.name)
    if a.strategy not in NAMES or a.strategy == Shared.name:
        raise RefusedError(f"the map of the strategy {a.strategy:.40} has ids of the host itself")
    if a.passes:
        raise RefusedError("its map shows ids of the host itself")
    for owner in (a.owner, *a.extra_owners, *filter(None, (a.within,))):
        if "/" in owner or (a.published != "none" and not userdb.is_name(a.owner)):
            raise RefusedError(f"{owner:.40} is not an owner")
    _refuse_map(a.mapping, owned)
    if a.reserved_range:
        refuse(a.reserved_range, owned)
    _refuse_texts((a.since,))


def _refuse_map(mapping: Mapping, owned: IdSet) -> None:
    for kind in KINDS:
        for ids in mapping[kind].host_ranges():
            refuse(ids, owned)


def _refuse_quarantined(q: Any, owned: IdSet) -> None:  # noqa: ANN401 - one of _READ
    _refuse_name(q.name)
    refuse(q.reserved_range, owned)
    _refuse_texts((q.since,))
    if q.was:
        _refuse_allocation(q.was, owned)


def _refuse_volume(v: Any, owned: IdSet) -> None:  # noqa: ANN401 - one of _READ
    _refuse_name(v.name)
    if posixpath.normpath(v.path) != v.path:
        raise ValueError("its path is not a plain one")
    if v.former:
        _refuse_map(v.former, owned)
    _refuse_texts((v.since, v.mode, v.user))


def _refuse_nothing(_: object, __: IdSet) -> None:
    """A reservation only takes ids away from this host; a mount is not taken at all."""


def _refuse_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidValueError(f"'{name:.40}' is not a name")


def _refuse_texts(texts: Iterable[str]) -> None:
    """Raise ValueError for what no file can hold."""
    for text in texts:
        if not text.isprintable():
            raise ValueError(f"{text!r:.40} is not a text of ours")


_READ: dict[str, Callable[[Sequence[Any]], Any]] = {
    "allocation": _allocation,
    "quarantine": codec.quarantined,
    "volume": codec.volume,
    "mount": codec.mount,
    "reservation": codec.reservation,
}
_CHECK: dict[str, Callable[[Any, IdSet], None]] = {
    "allocation": _refuse_allocation,
    "quarantine": _refuse_quarantined,
    "volume": _refuse_volume,
    "mount": _refuse_nothing,
    "reservation": _refuse_nothing,
}

_TABLES = {table.name: table for table in schema.TABLES}


def _event(row: Sequence[Any], owned: IdSet) -> tuple[Any, ...]:
    """The row of an event, unchanged: its maps are what a remap may take for those of before."""
    number, at, actor, command, changed, change = row
    # It becomes a part of the name of a file.
    if not _AT.fullmatch(at):
        raise ValueError(f"{at!r:.40} is not a moment")
    codec.entry((number, at, actor, command, changed))
    if change:
        _change(codec.event((number, at, change)).change, owned)
    for text in (actor, command, changed, change):
        text.encode()
    return tuple(row)


def _change(change: LedgerChange, owned: IdSet) -> None:
    """Raise an error for an event that has what no server gives to this host."""
    for a in (*change.add, *change.update):
        _refuse_allocation(a, owned)
    for v in change.volumes:
        _refuse_volume(v, owned)


def _doubles(values: dict[str, list[Any]]) -> Iterator[str]:
    """A line for each key that two rows have, and for each two names with the same ids."""
    for table in schema.TABLES:
        keys = [table.row(value)[: table.key] for value in values[table.name]]
        yield from (f"  {table.name}: {key!r:.80} is there twice" for key in _twice(keys))
    spans = sorted(
        (ids.start, ids.stop, a.name)
        for a in values["allocation"]
        if not a.within
        for ids in all_own_ids(a)
    )
    for (_, stop, name), (start, _, other) in pairwise(spans):
        if start < stop:
            yield f"  '{line(name)}' and '{line(other)}' have the same ids"


def _twice(keys: Iterable[Any]) -> Iterator[Any]:
    seen = set()
    for key in keys:
        if key in seen:
            yield key
        seen.add(key)


def _row(what: str, error: BaseException) -> str:
    return f"  {line(what):.100}: {line(str(error) or type(error).__name__)}"


def _refused(place: str, what: str, error: BaseException) -> RefusedError:
    return RefusedError(
        f"{place}: {what}: {line(str(error) or type(error).__name__)}",
        hint="the administrator of the database has to correct it; this host does not take it",
    )
