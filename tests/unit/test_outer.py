"""A host that is a container itself: only the ids of its own map exist in it. Worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.documents import document_in
from tests.unit.states import asked, per_container, same_lines, state
from usernsplan import HostState, IdRange, IdSet, Shared, SingleUid, make_plan
from usernsplan.errors import PoolExhaustedError
from usernsplan.layout import Layout
from usernsplan.model import LedgerState
from usernsplan.report import map_json, whose
from usernsplan.report.scale import clashes, figures
from usernsplan.space import capacity, space
from usernsplan.whose.ids import IdContext, answers

BOBS = b"bob:100000:65536\n"
SMALL = IdSet([IdRange(0, 65536)])
LARGE = IdSet([IdRange(0, 1000000)])


def inside(exists: IdSet, gids: IdSet | None = None, **words: object) -> HostState:
    return replace(state(**words), exists=(exists, gids or exists))  # type: ignore[arg-type]


def refused(host: HostState, **words: object) -> PoolExhaustedError:
    names = words.pop("names", ("web",))
    with pytest.raises(PoolExhaustedError) as caught:
        make_plan(host, asked(*names, **words))  # type: ignore[misc, arg-type]
    return caught.value


def test_a_container_of_65536_ids_has_no_room_and_hears_what_its_map_needs() -> None:
    error = refused(inside(SMALL, **same_lines(BOBS)))
    assert error.exit_status == 7
    assert "no room for 1 range of 65536 ids" in str(error)
    assert "has only 0-65535 (/proc/self/uid_map)" in str(error)
    for words in (
        "65536 more ids, container ids 589824-655359",
        # 589824 + 65536: a map that begins at container id 0.
        "'usernsplan allocate --strategy per-container NAME --size 655360'",
        "'lxc.idmap = u 589824 HOST 65536'",
        "'uid HOST-LAST 589824-655359'",
        "'--uidmap 589824:HOST:65536'",
    ):
        assert words in error.hint


@pytest.mark.parametrize(
    ("words", "needs"),
    [
        ({"names": ("web", "db", "cache")}, "196608 more ids, container ids 589824-786431"),
        ({"pool": IdRange(1048576, 131072)}, "65536 more ids, container ids 1048576-1114111"),
        ({"strategy": SingleUid()}, "10000 more ids, container ids 1000000000-1000009999"),
        ({"start": 655360}, "65536 more ids, container ids 655360-720895"),
    ],
)
def test_what_the_map_needs_follows_from_what_was_asked(
    words: dict[str, object], needs: str
) -> None:
    assert needs in refused(inside(SMALL), **words).hint


def test_ids_that_no_host_has_room_for_are_not_promised_as_a_command() -> None:
    # A map from 0 to 1000009999 does not fit below SUB_UID_MAX 600100000.
    assert "--size" not in refused(inside(SMALL), strategy=SingleUid()).hint


def test_the_pool_is_the_part_of_it_that_exists() -> None:
    # 589824 + 6 x 65536 = 983040; the seventh would need 983040-1048575.
    names = ("c1", "c2", "c3", "c4", "c5", "c6")
    plan = make_plan(inside(LARGE), asked(*names))
    assert [a.mapping.uids[0].host for a in plan.allocations] == [
        589824 + 65536 * n for n in range(6)
    ]
    error = refused(inside(LARGE), names=(*names, "c7"))
    assert "48576 more ids, container ids 1000000-1048575" in error.hint
    figures_ = capacity(inside(LARGE))
    assert (figures_.more, str(figures_.pool)) == (6, "589824-999999")


def test_an_id_has_to_exist_as_a_uid_and_as_a_gid() -> None:
    gids = IdSet([IdRange(0, 65536), IdRange(655360, 65536)])
    plan = make_plan(inside(LARGE, gids), asked("web"))
    assert plan.allocations[0].mapping.uids[0].host == 655360


def test_an_ordinary_lack_of_room_is_not_the_container_s_fault() -> None:
    lines = same_lines(b"bob:589824:410176\n")
    error = refused(inside(LARGE, **lines), pool=IdRange(589824, 65536))
    assert "container" not in str(error)
    # None of this pool exists, and it would be full anyway.
    lines = same_lines(b"bob:1048576:65536\n")
    error = refused(inside(LARGE, **lines), pool=IdRange(1048576, 65536))
    assert "in the pool 1048576-1114111" in str(error)


def test_a_shared_map_needs_its_ids_too() -> None:
    make_plan(inside(SMALL), asked("web", strategy=Shared()))
    error = refused(inside(IdSet([IdRange(0, 1000)])), strategy=Shared())
    assert "it needs 1000-65535" in str(error)


def test_lines_that_exist_elsewhere_are_not_adopted() -> None:
    host = inside(SMALL, **same_lines(BOBS))
    error = refused(host, names=("bob",), owner="bob", start=100000)
    assert "it needs 100000-165535" in str(error)


def test_a_host_that_is_no_container_is_as_before() -> None:
    assert capacity(state()).exists is None
    assert not [s for s in space(state()).segments if s.origin == "absent"]


def test_map_and_capacity_show_the_end_of_the_space() -> None:
    found = space(inside(LARGE, **same_lines(b"bob:999990:20\n")))
    [end] = [s for s in found.segments if s.origin == "absent"]
    assert (str(end.ids), end.kinds) == ("1000000-4294967294", ("uid", "gid"))
    [clash] = found.conflicts
    assert str(clash.ids) == "1000000-1000009"
    [exists] = document_in(map_json.space(found))["capacity"]["exists"]
    assert (exists["start"], exists["count"]) == (0, 1000000)
    assert found.capacity
    rows = dict(figures(found.capacity))
    assert "has only the ids 0-999999 (/proc/self/uid_map)" in rows["this container"]
    assert [*clashes(found)] == [
        "1000000-1000009 as uids and gids: other line 'bob' and ids that this container lacks"
    ]


def test_capacity_of_a_pool_that_does_not_exist_says_so() -> None:
    with pytest.raises(PoolExhaustedError, match="nothing of the pool 589824-600100000 exists"):
        capacity(inside(SMALL))
    found = space(inside(SMALL))
    assert found.capacity is None
    assert "nothing of the pool" in found.problem


def test_whois_says_that_an_id_does_not_exist() -> None:
    host = inside(SMALL)
    facts = IdContext(
        Layout(), LedgerState(), host.subuid, host.subgid, host.accounts, exists=host.exists
    )
    found = answers([70000, 1000], facts)
    assert not found[70000].is_free
    assert [h.kind for h in found[70000].uid] == ["absent"]
    assert whose.fields(found[70000].uid[0])["file"] == "/proc/self/uid_map"
    assert "absent" not in {h.kind for h in found[1000].uid}


def test_what_the_ledger_has_from_before_stays() -> None:
    web = per_container("web", 589824)
    lines = same_lines(b"usernsplan-web:589824:65536\n")
    plan = make_plan(inside(SMALL, allocations=[web], **lines), asked("web"))
    assert not plan.changed
