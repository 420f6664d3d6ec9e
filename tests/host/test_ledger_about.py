"""Ledger.about returns the part of Ledger.state that concerns some ids."""

from __future__ import annotations

import gc
from pathlib import Path
from threading import Thread

import pytest

from tests.command import usernsplan
from usernsplan.errors import LedgerError
from usernsplan.host.files import layout_at
from usernsplan.ids import IdRange, IdSet
from usernsplan.ledger import Ledger, open_ledger
from usernsplan.model import Actor, HistoryEntry, Intent, LedgerChange, LedgerState, Reservation


def ids(*numbers: int) -> IdSet:
    return IdSet(IdRange(number, 1) for number in numbers)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Ranges of a, b and c from 589824 on, with c released; the ids from 2000000 on reserved."""
    root = tmp_path / "host"
    usernsplan("allocate", "--strategy", "per-container", "aa", "bb", "cc", "--root", root)
    usernsplan("release", "cc", "--root", root)
    found = open_ledger(layout_at(str(root)))
    change = LedgerChange(reserve=(Reservation(IdRange(2_000_000, 10), "the NAS"),))
    found.begin(Intent("reserve", Actor(0), change, ()))
    found.complete(HistoryEntry("2026-01-01T00:00:00Z", Actor(0), "reserve", ()))
    return found


def names(state: LedgerState) -> tuple[list[str], list[str], list[str]]:
    return (
        [a.name for a in state.allocations],
        [q.name for q in state.quarantined],
        [r.why for r in state.reservations],
    )


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (ids(589823), ([], [], [])),
        (ids(589824), (["aa"], [], [])),
        (ids(655359), (["aa"], [], [])),
        (ids(655360), (["bb"], [], [])),
        (ids(655359, 655360), (["aa", "bb"], [], [])),
        (ids(720896, 786431), ([], ["cc"], [])),
        (ids(786432, 1_999_999, 2_000_010), ([], [], [])),
        (ids(2_000_009), ([], [], ["the NAS"])),
        (IdSet((IdRange(0, 4294967295),)), (["aa", "bb"], ["cc"], ["the NAS"])),
        (IdSet(), ([], [], [])),
    ],
)
def test_only_what_concerns_the_ids_is_told(
    ledger: Ledger, asked: IdSet, expected: tuple[list[str], list[str], list[str]]
) -> None:
    assert names(ledger.about(asked)) == expected


def test_what_is_told_is_what_state_tells(ledger: Ledger) -> None:
    everything, asked = ledger.state(), ledger.about(IdSet((IdRange(0, 4294967295),)))
    assert asked.allocations == everything.allocations
    assert asked.quarantined == everything.quarantined
    assert asked.reservations == everything.reservations


def test_maps_that_share_ids_or_hold_none_are_told_always(tmp_path: Path) -> None:
    root = tmp_path / "host"
    usernsplan("allocate", "--strategy", "shared", "web", "--dockerroot", "400", "--root", root)
    ledger = open_ledger(layout_at(str(root)))
    assert names(ledger.about(ids(3_000_000))) == (["web"], [], [])


def test_the_history_of_some_events(ledger: Ledger) -> None:
    assert [entry.command for entry in ledger.history({3})] == ["reserve"]
    assert ledger.history({4}) == ()
    assert len(ledger.history()) == 3


def test_no_ledger_knows_nothing_and_a_damaged_one_says_so(tmp_path: Path, ledger: Ledger) -> None:
    assert open_ledger(layout_at(str(tmp_path / "none"))).about(ids(5)) == LedgerState()
    path = tmp_path / "host/var/lib/usernsplan/ledger.sqlite3"
    path.write_bytes(path.read_bytes()[:4096] + b"damage" * 5000)
    with pytest.raises(LedgerError):
        ledger.about(ids(589824))


def test_a_ledger_that_a_thread_has_read_may_be_dropped_by_another(
    tmp_path: Path, ledger: Ledger
) -> None:
    root = str(tmp_path / "host")
    read: list[Ledger] = []

    def look() -> None:
        read.append(open_ledger(layout_at(root)))
        assert read[0].state() == ledger.state()

    thread = Thread(target=look)
    thread.start()
    thread.join()
    # What fails while an object is dropped is a warning, which pytest makes an error.
    read.pop()
    gc.collect()
