"""Ledgers from older versions: reading leaves them unchanged, the next write upgrades them."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.each import each
from tests.ledgers import NOTED, VERSIONS, put_old
from tests.unit import states
from usernsplan.engines.mounts import standing
from usernsplan.errors import LedgerError
from usernsplan.host.files import layout_at
from usernsplan.ids import IdRange
from usernsplan.layout import LEDGER, SUBGID, SUBUID, Layout
from usernsplan.ledger import open_ledger
from usernsplan.ledger.fold import fold
from usernsplan.model import (
    Actor,
    Allocation,
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
from usernsplan.whose.ids import giver

ROOT = Actor(0, 1000, None)


def per_container(name: str, base: int, size: int = 65536, owner: str = "") -> Allocation:
    """An allocation of an older version, which published none."""
    return replace(states.per_container(name, base, size, owner), published="none")


NOW = "2026-02-01T00:00:00Z"


def entry(*changed: str) -> HistoryEntry:
    return HistoryEntry(NOW, ROOT, "usernsplan allocate", changed)


def done(layout: Layout, change: LedgerChange) -> None:
    open_ledger(layout).begin(Intent("", ROOT, change, ()))
    open_ledger(layout).complete(entry())


SECOND = "2026-01-01T00:00:0{}Z".format
# The events of the commands in tests/ledgers/make.py, in this order, each with its first version.
COMMANDS = (
    *((1, "allocate", 1), (1, "release old", 2), (2, "web", 3), (2, "db", 3)),
    *((1, "release db", 4), (1, "allocate db", 4), (2, "new", 4)),
    *((3, "box", 5), (4, "apply", 6), (5, "alice", 7)),
)


def numbers(version: int) -> dict[str, int]:
    words = [words for since, words, _ in COMMANDS if since <= version]
    return {word: number for number, word in enumerate(words, 1)}


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture(params=[True, False], ids=["in the file", "below a root"])
def old(request: pytest.FixtureRequest, version: int, tmp_path: Path) -> Layout:
    put_old(version, tmp_path)
    return Layout("/", str(tmp_path)) if request.param else layout_at(str(tmp_path))


def expected(version: int) -> LedgerState:
    """The state after the commands of tests/ledgers/make.py, derived by hand."""
    at = numbers(version)
    # Versions before 5 did not note adopted lines; the history proves these.
    web = replace(per_container("web", 524288), since=SECOND(1), event=at["allocate"])
    base = 655360 + 65536
    db = replace(per_container("db", base, 1000), since=SECOND(4), event=at["allocate db"])
    allocations = [db, web]
    first = base + 65536
    if version >= 3:
        box = replace(per_container("box", first), extra_owners=("root",))
        allocations.insert(0, replace(box, since=SECOND(5), event=at["box"]))
    if version >= 5:
        lines = tuple((path, "alice:100000:65536") for path in (SUBGID, SUBUID))
        alice = replace(per_container("alice", 100000, owner="alice"), found=lines)
        allocations.insert(0, replace(alice, since=SECOND(7), event=at["alice"]))

    def was(name: str, start: int) -> Allocation | None:
        one = replace(per_container(name, start), since=SECOND(1), event=at["allocate"])
        return one if version >= 5 else None

    # Since version 6 an event has a number. Before, the last event of a second counts.
    is_exact = version >= 6
    last = at.get("new", at["allocate db"])
    released = at["release db"] if is_exact else last
    volumes = (
        Volume("/srv/db", "db", "own", SECOND(3), "0:0" if version > 3 else "", at.get("db", 0)),
        Volume("/srv/new", "db", "own", SECOND(4), "0:0" if version > 3 else "", last),
        Volume("/srv/web", "web", "shift", SECOND(3), "", at.get("web" if is_exact else "db", 0)),
    )
    return LedgerState(
        tuple(allocations),
        (
            Quarantined("db", IdRange(589824, 65536), SECOND(4), was("db", 589824), released),
            Quarantined(
                "old", IdRange(655360, 65536), SECOND(2), was("old", 655360), at["release old"]
            ),
        ),
        interrupted=True,
        volumes=volumes if version >= 2 else (),
        reservations=(Reservation(IdRange(2_000_000, 10), "the NAS", SECOND(6)),)
        if version >= 4
        else (),
        number=len(at),
    )


def noted(version: int) -> list[int]:
    """The numbers of the events whose change is in the ledger."""
    return list(range(1, len(COMMANDS) + 1)) if version >= 6 else []


def folded(layout: Layout) -> LedgerState:
    found = LedgerState()
    for event in open_ledger(layout).events():
        found = fold(found, event)
    return replace(found, interrupted=open_ledger(layout).pending() is not None)


@each("version", NOTED)
def test_what_a_version_noted_of_its_events_adds_up_to_its_state(
    version: int, tmp_path: Path
) -> None:
    put_old(version, tmp_path / str(version))
    layout = layout_at(str(tmp_path / str(version)))
    state = open_ledger(layout).state()
    assert folded(layout) == state
    assert state.interrupted
    assert len(state.allocations) == {6: 4, 7: 5, 8: 6, 9: 6, 10: 6}[version]

    open_ledger(layout).put_back(entry("interrupted, and put back"))
    mount = VolumeMount(
        "/run/web", "/srv/web", "web", "own", states.per_container("web", 9).mapping
    )
    done(layout, LedgerChange(mounts=(mount,)))
    after = open_ledger(layout).state()
    assert folded(layout) == after
    assert after.allocations == state.allocations
    assert [(m.at, m.since, m.event) for m in after.mounts] == [("/run/web", NOW, after.number)]


def test_an_old_ledger_is_read_as_it_is_and_not_written_for_it(old: Layout, version: int) -> None:
    path = Path(f"{old.real}{LEDGER}")
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    ledger = open_ledger(old)
    assert ledger.state() == expected(version)
    assert [(one.number, one.at) for one in ledger.history()] == [
        (number, SECOND(second))
        for number, (_, _, second) in enumerate((c for c in COMMANDS if c[0] <= version), 1)
    ]
    assert [event.number for event in ledger.events()] == noted(version)
    late = 655360 + 65536 * (2 + (version >= 3))
    pending = ledger.pending()
    assert pending is not None
    assert pending.ledger == LedgerChange(add=(per_container("late", late),))
    assert [change.path for change in pending.changes] == [SUBUID, SUBGID]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, stamp)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("completed", [True, False])
def test_the_next_write_upgrades_an_old_ledger_and_loses_nothing(
    old: Layout, version: int, completed: bool
) -> None:
    history = open_ledger(old).history()
    before, change = expected(version), LedgerChange()
    pending = open_ledger(old).pending()
    assert pending is not None
    if completed:
        change = pending.ledger
        open_ledger(old).complete(entry())
    else:
        open_ledger(old).put_back(entry())
    event = Event(len(history) + 1, NOW, change)
    assert open_ledger(old).events()[-1:] == (event,)
    assert len(open_ledger(old).events()) == len(noted(version)) + 1
    assert open_ledger(old).state() == replace(fold(before, event), interrupted=False)
    assert open_ledger(old).history() == (*history, replace(entry(), number=event.number))
    done(old, LedgerChange(forget=("old",)))
    assert [q.name for q in open_ledger(old).state().quarantined] == ["db"]


def test_an_upgrade_that_fails_leaves_the_old_ledger(old: Layout, version: int) -> None:
    path = Path(f"{old.real}{LEDGER}")
    before = open_ledger(old).state()
    # A run is pending, so the upgraded ledger refuses another one in the same transaction.
    with pytest.raises(LedgerError):
        open_ledger(old).begin(Intent("", ROOT, LedgerChange(), ()))

    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchall() == [(version,)]
    db.close()
    assert open_ledger(old).state() == before


def test_a_ledger_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    done(layout_at(str(tmp_path)), LedgerChange(add=(per_container("web", 524288),)))
    path = Path(f"{tmp_path}{LEDGER}")

    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    before = path.read_bytes()
    for layout in (layout_at(str(tmp_path)), Layout("/", str(tmp_path))):
        with pytest.raises(LedgerError, match="version 99"):
            open_ledger(layout).state()
        with pytest.raises(LedgerError, match="version 99"):
            open_ledger(layout).begin(Intent("", ROOT, LedgerChange(), ()))
    assert path.read_bytes() == before


# Older versions noted these by the second.


def now_of(tmp_path: Path, *statements: str) -> tuple[LedgerState, tuple[HistoryEntry, ...]]:
    """Today's reading of a version 5 ledger that these statements changed."""
    path = put_old(5, tmp_path)
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(statement)
    ledger = open_ledger(layout_at(str(tmp_path)))
    return ledger.state(), ledger.history()


def test_of_the_second_of_a_release_no_volume_is_right_for_what_had_the_name_before(
    tmp_path: Path,
) -> None:
    state, _ = now_of(tmp_path)
    # /srv/db had the former range. /srv/new changed in the second of the release.
    assert [*standing(state)] == ["/srv/web"]


def test_of_the_second_of_an_allocation_a_volume_is_right_for_it(tmp_path: Path) -> None:
    state, _ = now_of(tmp_path, "DELETE FROM quarantine WHERE name = 'db'")
    assert [*standing(state)] == ["/srv/new", "/srv/web"]


IN_ONE_SECOND = (
    "UPDATE allocation SET since = 'T'",
    "UPDATE quarantine SET since = 'T'",
    "UPDATE volume SET since = 'T'",
    "UPDATE history SET at = 'T'",
    "UPDATE quarantine SET made = 'T'",
)


def test_of_several_events_of_one_second_the_one_that_names_an_allocation_made_it(
    tmp_path: Path,
) -> None:
    state, history = now_of(
        tmp_path,
        *IN_ONE_SECOND,
        # Runs that were put back made nothing, and this one did not either.
        "INSERT INTO history SELECT at, actor, command, '[\"failed, and put back\"]' FROM history",
    )
    made = {a.name: giver(a, history) for a in state.allocations}
    # Their lines show it. The line of alice existed before; her command shows it.
    assert {name: one.number for name, one in made.items() if one} == {
        "web": 1,
        "db": 6,
        "box": 8,
        "alice": 10,
    }


def test_where_no_event_of_a_second_names_an_allocation_nobody_is_named_as_its_maker(
    tmp_path: Path,
) -> None:
    state, history = now_of(
        tmp_path,
        *IN_ONE_SECOND,
        "UPDATE history SET changed = '[]', command = 'usernsplan apply'",
        "DELETE FROM quarantine",
    )
    assert [giver(a, history) for a in state.allocations] == [None] * 4
    # A volume that changed in this second belongs to it, as before.
    assert [*standing(state)] == ["/srv/db", "/srv/new", "/srv/web"]


def test_what_refers_to_a_moment_of_which_nothing_is_noted_is_not_taken_for_right(
    tmp_path: Path,
) -> None:
    state, history = now_of(
        tmp_path,
        "UPDATE allocation SET since = 'never' WHERE name = 'web'",
        "UPDATE volume SET since = 'never' WHERE path = x'2f7372762f6e6577'",
        "DELETE FROM quarantine",
    )
    assert [giver(a, history) for a in state.allocations if a.name == "web"] == [None]
    assert [*standing(state)] == []
