"""How an event changes the state of a ledger."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.states import per_container
from usernsplan.ids import IdRange
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.ledger.fold import fold
from usernsplan.model import (
    Event,
    LedgerChange,
    LedgerState,
    Quarantined,
    Reservation,
    Volume,
)

WEB, DB = per_container("web", 589824), per_container("db", 655360)
RANGE = IdRange(589824, 65536)
LINE = (SUBUID, "usernsplan-web:589824:65536")


def after(state: LedgerState, *changes: LedgerChange) -> LedgerState:
    """The state after these changes; each is an event at T and its number."""
    for change in changes:
        state = fold(state, Event(state.number + 1, f"T{state.number + 1}", change))
    return state


def test_an_allocation_has_the_number_and_the_moment_of_its_event_and_names_are_in_order() -> None:
    found = after(LedgerState(), LedgerChange(reserve=()), LedgerChange(add=(WEB, DB)))
    assert found.number == 2
    assert found.allocations == (
        replace(DB, since="T2", event=2),
        replace(WEB, since="T2", event=2),
    )


def test_a_released_range_is_quarantined_with_what_it_was_until_it_is_forgotten() -> None:
    released = LedgerChange(remove=("web",), quarantine=(("web", RANGE),))
    found = after(LedgerState(), LedgerChange(add=(WEB,)), released)
    was = replace(WEB, since="T1", event=1)
    assert found == LedgerState(
        quarantined=(Quarantined("web", RANGE, "T2", was, 2),),
        number=2,
    )
    assert after(found, LedgerChange(forget=("web",))) == LedgerState(number=3)
    assert after(found, LedgerChange(forget=("db",))) == replace(found, number=3)
    assert after(found, LedgerChange(unkeep=(("web", IdRange(1, 1)),))).quarantined
    # It comes back unchanged, with the event that first made it.
    back = after(found, LedgerChange(add=(was,), unkeep=(("web", RANGE),)))
    assert back == LedgerState((was,), number=3)


def test_an_allocation_that_stands_gets_further_owners_and_adopted_lines_once() -> None:
    wider = LedgerChange(
        extra_owners=(("web", "root"), ("web", "alice"), ("web", "root"), ("gone", "root")),
        found=(("web", SUBGID, "b"), ("web", *LINE), ("web", *LINE)),
    )
    found = after(LedgerState(), LedgerChange(add=(WEB, DB)), wider)
    db, web = found.allocations
    assert db == replace(DB, since="T1", event=1)
    assert (web.since, web.event) == ("T1", 1)
    assert web.extra_owners == ("alice", "root")
    assert web.found == ((SUBGID, "b"), LINE)


def test_no_name_gets_a_second_allocation() -> None:
    found = after(LedgerState(), LedgerChange(add=(WEB,)))
    with pytest.raises(ValueError, match="'web'"):
        after(found, LedgerChange(add=(replace(WEB, owner="other"),)))
    assert after(found, LedgerChange(remove=("web",), add=(DB, WEB))).allocations[1].event == 2


def test_what_an_event_does_not_touch_stays_the_very_same_value() -> None:
    found = after(LedgerState(), LedgerChange(add=(WEB, DB), volumes=(Volume("/a", "web", "own"),)))
    later = after(found, LedgerChange(volumes=(Volume("/b", "db", "own"),), remove=("db",)))
    assert later.allocations[0] is found.allocations[1]
    assert later.volumes[0] is found.volumes[0]


def test_volumes_are_one_for_each_path_in_order_of_their_bytes() -> None:
    first = LedgerChange(
        volumes=(
            Volume("/\udc80", "web", "own"),
            Volume("/ü", "web", "own"),
            Volume("/b", "db", "shift", user="0:0"),
            Volume("/c", "web", "own"),
            Volume("/d", "gone", "own"),
        )
    )
    found = after(LedgerState(), LedgerChange(add=(WEB, DB)), first)
    assert [v.path for v in found.volumes] == ["/b", "/c", "/d", "/\udc80", "/ü"]
    assert {(v.since, v.event) for v in found.volumes} == {("T2", 2)}
    # web still has its ids: only an older range of it is forgotten.
    second = LedgerChange(
        volumes=(Volume("/b", "web", "own"),), no_volumes=("/c",), forget=("gone", "web")
    )
    assert [(v.path, v.name, v.event) for v in after(found, second).volumes] == [
        ("/b", "web", 3),
        ("/\udc80", "web", 2),
        ("/ü", "web", 2),
    ]
    assert after(found, LedgerChange(remove=("web",))).volumes == found.volumes


def test_a_range_is_reserved_once_and_the_last_one_stands_last() -> None:
    one, two = Reservation(IdRange(1, 5), "NAS"), Reservation(IdRange(9, 1), "DB")
    found = after(LedgerState(), LedgerChange(reserve=(one, two)))
    assert found.reservations == (replace(one, since="T1"), replace(two, since="T1"))
    again = replace(one, why="another NAS")
    found = after(found, LedgerChange(reserve=(again,)))
    assert found.reservations == (replace(two, since="T1"), replace(again, since="T2"))
    assert after(found, LedgerChange(unreserve=(two.ids,))).reservations == found.reservations[1:]
