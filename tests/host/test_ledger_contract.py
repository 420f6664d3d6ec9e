"""What every implementation of a ledger must do."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.ledgers import MemoryLedger
from tests.unit.states import per_container, shared
from usernsplan.errors import DamagedLedgerError, LedgerError
from usernsplan.host.files import layout_at
from usernsplan.ids import IdRange, IdSet
from usernsplan.layout import SUBGID, SUBUID, Layout
from usernsplan.ledger import name_now, open_ledger
from usernsplan.ledger.fold import fold
from usernsplan.model import (
    Actor,
    Allocation,
    Change,
    Event,
    HistoryEntry,
    Intent,
    LedgerChange,
    LedgerState,
    Quarantined,
    Reservation,
    Volume,
    VolumeMount,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from usernsplan.ledger import Ledger

    Open = Callable[[], Ledger]

ROOT = Actor(0, 1000, None)
NOW = "2026-01-01T00:00:00Z"
# Every kind of value, with odd contents.
WEB = replace(per_container("web", 589824), found=((SUBUID, "usernsplan-web:589824:65536"),))
DB = replace(per_container("db", 655360), extra_owners=("root",))
APP = shared("app", (0, 400, 1), (1, 1, 399))
MUCH = LedgerChange(
    add=(WEB, DB, APP),
    volumes=(Volume("/srv/\udcff\n'ü", "web", "own", user="33:34"), Volume("/b", "db", "shift")),
    reserve=(Reservation(IdRange(2_000_000, 1), "the NAS"),),
)
MORE = LedgerChange(
    extra_owners=(("web", "root"),),
    found=(("web", SUBGID, "usernsplan-web:589824:65536"),),
    remove=("db",),
    quarantine=(("db", IdRange(655360, 65536)),),
    no_volumes=("/b",),
    unreserve=(IdRange(2_000_000, 1),),
)
FILES = (
    Change(SUBUID, None, b"a:1:1\n"),
    Change(SUBGID, b"\xff\0", b""),
)


def _in_file(tmp_path: Path) -> Open:
    (tmp_path / "host/etc").mkdir(parents=True)
    return partial(open_ledger, Layout("/", str(tmp_path / "host")))


def _below_a_root(tmp_path: Path) -> Open:
    (tmp_path / "host/etc").mkdir(parents=True)
    return lambda: open_ledger(layout_at(str(tmp_path / "host")))


def _elsewhere(tmp_path: Path) -> Open:
    (tmp_path / "host/etc").mkdir(parents=True)
    return lambda: open_ledger(layout_at(str(tmp_path / "host")), "/srv/one/ledger")


def _in_memory(tmp_path: Path) -> Open:
    del tmp_path
    ledger = MemoryLedger()
    return lambda: ledger


def _in_fleet(tmp_path: Path) -> Open:
    """The fixture has a server for it."""
    raise NotImplementedError(tmp_path)


# Each returns a function that opens the same ledger again, like another process.
BACKENDS = {
    "SQLite in the file": _in_file,
    "SQLite in memory, below another root": _below_a_root,
    "at another place": _elsewhere,
    "a list": _in_memory,
    "PostgreSQL, in a fleet": _in_fleet,
}
# In a fleet, the server has what a host has lost: see test_fleet.py.
ALONE = [name for name in BACKENDS if BACKENDS[name] is not _in_fleet]


@pytest.fixture(params=[*BACKENDS.values()], ids=[*BACKENDS])
def again(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    if request.param is _in_fleet:
        root = request.getfixturevalue("fleet").host("host")
        return lambda: open_ledger(layout_at(str(root)))
    made: Open = request.param(tmp_path)
    return made


def entry(*changed: str, at: str = NOW) -> HistoryEntry:
    return HistoryEntry(at, ROOT, "usernsplan allocate", changed)


def done(ledger: Ledger, change: LedgerChange, at: str = NOW) -> None:
    ledger.begin(Intent("usernsplan allocate", ROOT, change, FILES))
    ledger.complete(entry("+", at=at))


def added_up(ledger: Ledger) -> LedgerState:
    """The fold of all events of a ledger."""
    state = LedgerState()
    for event in ledger.events():
        state = fold(state, event)
    return state


def test_a_ledger_that_is_not_there_is_empty_and_reading_makes_none(again: Open) -> None:
    ledger = again()
    assert not ledger.exists()
    assert (ledger.state(), ledger.about(IdSet((IdRange(0, 9),)))) == (LedgerState(),) * 2
    assert (ledger.history(), ledger.events(), ledger.pending()) == ((), (), None)
    assert not again().exists()


def test_a_run_is_pending_as_it_was_begun_until_it_is_complete(again: Open) -> None:
    intent = Intent("usernsplan \N{SNOWMAN}", ROOT, MUCH, FILES)
    again().begin(intent)
    assert again().exists()
    assert again().pending() == intent
    assert again().state() == LedgerState(interrupted=True)
    assert again().history() == ()
    with pytest.raises(LedgerError):
        again().begin(intent)
    again().complete(entry("one", "two"))
    assert again().pending() is None
    assert again().history() == (replace(entry("one", "two"), number=1),)
    assert again().events() == (Event(1, NOW, MUCH),)
    # Derived by hand from MUCH.
    made = {"since": NOW, "event": 1}
    assert again().state() == LedgerState(
        tuple(replace(a, **made) for a in (APP, DB, WEB)),  # type: ignore[arg-type]
        volumes=tuple(replace(v, **made) for v in reversed(MUCH.volumes)),  # type: ignore[arg-type]
        reservations=(Reservation(IdRange(2_000_000, 1), "the NAS", NOW),),
        number=1,
    )


def test_events_are_numbered_though_they_are_of_one_second(again: Open) -> None:
    ledger = again()
    done(ledger, MUCH)
    done(ledger, MORE)
    assert [one.number for one in ledger.history()] == [1, 2]
    found = again().state()
    web = found.allocations[1]
    assert (web.event, web.extra_owners) == (1, ("root",))
    assert web.found == (
        (SUBGID, "usernsplan-web:589824:65536"),
        (SUBUID, "usernsplan-web:589824:65536"),
    )
    was = replace(DB, since=NOW, event=1)
    assert found.quarantined == (Quarantined("db", IdRange(655360, 65536), NOW, was, 2),)
    assert [v.event for v in found.volumes] == [1]
    assert found.reservations == ()
    assert ledger.state() == found


def test_some_events_of_the_history(again: Open) -> None:
    for number in range(1, 5):
        done(again(), LedgerChange(), at=f"T{number}")
    assert [one.at for one in again().history({3, 1, 9})] == ["T1", "T3"]
    assert again().history(set()) == ()


def test_new_names_are_told_apart_from_all_other_events(again: Open) -> None:
    done(again(), replace(MUCH, reserve=(Reservation(IdRange(5, 1), '"rename": [],'),)))
    assert again().renames() == ()
    first, second = LedgerChange(rename=(("db", "db2"),)), LedgerChange(rename=(("web", "db"),))
    done(again(), first)
    done(again(), replace(MORE, remove=(), quarantine=()))
    done(again(), second)
    assert again().renames() == (Event(2, NOW, first), Event(4, NOW, second))
    assert [a.name for a in again().state().allocations] == ["app", "db", "db2"]
    # A name counts as of the event after which it was noted.
    names = again().renames()
    assert [name_now("db", names, event) for event in range(5)] == ["db2", "db2", "db", "db", "db"]
    assert [name_now("web", names, event) for event in (0, 3, 4)] == ["db", "db", "web"]


def test_a_run_that_is_put_back_changes_nothing_and_is_an_event(again: Open) -> None:
    done(again(), MUCH)
    before = again().state()
    again().begin(Intent("", ROOT, MORE, ()))
    assert again().state() == replace(before, interrupted=True)
    again().put_back(entry("failed, and put back"))
    assert again().state() == replace(before, number=2)
    assert again().pending() is None
    assert again().events() == (Event(1, NOW, MUCH), Event(2, NOW, LedgerChange()))


def test_one_who_has_read_sees_what_another_has_done_since(again: Open) -> None:
    reader = again()
    reader.state()
    done(again(), MUCH)
    assert reader.state() == again().state()
    done(reader, MORE)
    assert again().state() == reader.state()


def test_what_concerns_some_ids(again: Open) -> None:
    done(again(), MUCH)
    done(again(), MORE)

    def told(*ids: int) -> list[str]:
        found = again().about(IdSet(IdRange(one, 1) for one in ids))
        assert found.volumes == ()
        assert found.number == 3
        return [a.name for a in found.allocations] + [q.name for q in found.quarantined]

    its = VolumeMount("/m", "/b", "web", "shift", WEB.mapping)
    done(again(), LedgerChange(mounts=(its, replace(its, at="/n", name="app"))))
    found = again().about(IdSet((IdRange(589824, 1),)))
    assert [(m.at, m.name) for m in found.mounts] == [("/m", "web"), ("/n", "app")]
    assert [m.at for m in again().about(IdSet((IdRange(655360, 1),))).mounts] == ["/n"]

    # app shares its ids, so it may map any.
    assert told(589823) == ["app"]
    assert told(589824) == ["app", "web"]
    assert told(655360) == ["app", "db"]


def test_the_records_that_publish_ranges(again: Open) -> None:
    big = replace(DB, reserved_range=IdRange(655360, 131072), published="userdb")
    pool = replace(per_container("pool", 1048576), owner="containers")
    add = (replace(WEB, published="passwd"), big, replace(pool, published="userdb"), APP)
    assert again().published() == ()
    done(again(), LedgerChange(add=add))
    assert sorted(again().published()) == [
        ("containers--0", 1048576),
        ("usernsplan-db", 655360),
        ("usernsplan-db--1", 720896),
    ]


def test_a_name_that_stands_is_not_allocated_again(again: Open) -> None:
    done(again(), MUCH)
    before = again().state()
    # One that has to ask others refuses it before anything is pending.
    with pytest.raises(DamagedLedgerError):
        done(again(), LedgerChange(add=(replace(WEB, owner="other"),)))
    assert replace(again().state(), interrupted=False) == before
    assert len(again().history()) == 1


@pytest.mark.parametrize("again", [BACKENDS[name] for name in ALONE], ids=ALONE, indirect=True)
def test_a_ledger_is_rebuilt_with_one_event(again: Open) -> None:
    assert again().rebuild(LedgerChange(add=(WEB,)), entry()) is None
    rebuilt = LedgerState((replace(WEB, since=NOW, event=1),), number=1)
    assert again().state() == rebuilt
    done(again(), LedgerChange(add=(DB,)))
    kept = again().rebuild(LedgerChange(add=(WEB,)), entry())
    assert kept
    assert kept.startswith(again().place)
    assert again().state() == added_up(again()) == rebuilt


NAMES = ("aa", "bb", "cc")
RANGES = {name: IdRange(589824 + 65536 * n, 65536) for n, name in enumerate(NAMES)}


@st.composite
def _changes(draw: st.DrawFn) -> list[LedgerChange]:
    """Changes as plans make them: they allocate only free names and release only allocated ones."""
    some, found = st.sets(st.sampled_from(NAMES)), []
    standing: set[str] = set()
    for _ in range(draw(st.integers(1, 5))):
        remove, new = draw(some) & standing, draw(some)
        add = new - (standing - remove)
        standing = (standing - remove) | add
        path = st.sampled_from(["/a", "/b", "/\udc80", "/ü"])
        reservation = st.sampled_from([IdRange(1, 1), IdRange(5, 9)])
        found.append(
            LedgerChange(
                add=tuple(_allocated(name, draw(st.booleans())) for name in sorted(add)),
                extra_owners=tuple((name, "root") for name in draw(some)),
                found=tuple((name, SUBUID, f"{name}:1:1") for name in draw(some)),
                remove=tuple(remove),
                quarantine=tuple((name, RANGES[name]) for name in remove & draw(some)),
                forget=tuple(draw(some)),
                unkeep=tuple((name, RANGES[name]) for name in draw(some)),
                volumes=tuple(
                    {
                        one: Volume(one, draw(st.sampled_from(NAMES)), "own")
                        for one in draw(st.sets(path))
                    }.values()
                ),
                no_volumes=tuple(draw(st.sets(path))),
                reserve=tuple(Reservation(ids, "why") for ids in draw(st.sets(reservation))),
                unreserve=tuple(draw(st.sets(reservation))),
            )
        )
    return found


def _allocated(name: str, is_back: bool) -> Allocation:
    """A new allocation, or one that comes back with its first moment and number."""
    one = per_container(name, RANGES[name].start)
    return replace(one, since="then", event=1) if is_back else one


@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(changes=_changes())
def test_the_tables_are_what_the_events_add_up_to(
    tmp_path_factory: pytest.TempPathFactory, changes: list[LedgerChange]
) -> None:
    tmp_path = tmp_path_factory.mktemp("ledger")
    (tmp_path / "etc").mkdir()
    one = open_ledger(layout_at(str(tmp_path)))
    for number, change in enumerate(changes, 1):
        # By a process that has read it, and by one that has not.
        done(one if number % 2 else open_ledger(layout_at(str(tmp_path))), change, f"T{number}")
        fresh = open_ledger(layout_at(str(tmp_path)))
        assert fresh.state() == added_up(fresh) == one.state()
