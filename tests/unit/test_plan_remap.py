"""remap as a decision: where the range goes, what is refused, and what an undo returns to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.each import each
from tests.unit.states import PASSWD, Directory, carried_out, per_container, same_lines, state
from usernsplan import (
    HostState,
    IdMap,
    IdRange,
    IdSet,
    Mapping,
    PerContainer,
    ReleaseRequest,
)
from usernsplan.errors import (
    InvalidValueError,
    PoolExhaustedError,
    RefusedError,
    UsernsplanError,
)
from usernsplan.formats.accounts import User
from usernsplan.holdings import own_ids
from usernsplan.ids import EVERY_ID
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.mapping import KINDS, Extent, Kind, Pass
from usernsplan.model import (
    MOUNT,
    Allocation,
    Event,
    LedgerChange,
    Quarantined,
    RemapRequest,
    Reservation,
    Unlisted,
    Volume,
)
from usernsplan.planner.release import make_release
from usernsplan.planner.remap import Remap, extends, make_remap
from usernsplan.planner.repair import make_repair

FIRST, SECOND, THIRD = 589824, 655360, 720896
WEB = replace(per_container("web", FIRST), event=1)
LINES = b"usernsplan-web:589824:65536\n"


def web(**more: object) -> HostState:
    """A host with the one allocation web, at the first slot of the pool."""
    host = state(**same_lines(LINES), allocations=[WEB])
    return replace(host, **more)  # type: ignore[arg-type]


def remap(host: HostState, events: list[Event] | None = None, **words: object) -> Remap:
    return make_remap(host, RemapRequest("web", **words), lambda: events or [])  # type: ignore[arg-type]


def range_of(found: Remap) -> tuple[int, int]:
    held = found.plan.allocations[0].reserved_range
    assert held is not None
    return held.start, held.count


def with_ledger(host: HostState, **words: object) -> HostState:
    return replace(host, ledger=replace(host.ledger, **words))  # type: ignore[arg-type]


BEHIND = IdRange(SECOND + 9, 1)
OF_OTHERS = [
    ("a line", state(**same_lines(LINES + b"bob:655369:1\n"), allocations=[WEB])),
    ("an account", web(accounts=state(passwd=PASSWD + b"x:x:655369:1::/:/bin/sh\n").accounts)),
    ("a namespace", web(namespaces=IdSet((BEHIND,)))),
    ("a reservation", with_ledger(web(), reservations=(Reservation(BEHIND, "NAS"),))),
    ("another's quarantine", with_ledger(web(), quarantined=(Quarantined("db", BEHIND, ""),))),
    (
        "a range that it had elsewhere",
        with_ledger(
            web(),
            quarantined=(Quarantined("web", BEHIND, "", per_container("web", SECOND)),),
        ),
    ),
    (
        "a machine",
        web(unlisted=(Unlisted("systemd-nspawn", "machine m", "uid", SECOND + 9, SECOND + 10),)),
    ),
]


@each(("whose", "host"), OF_OTHERS)
def test_it_does_not_grow_over_what_somebody_has(whose: str, host: HostState) -> None:
    assert range_of(remap(web(), size=131072)) == (FIRST, 131072), whose
    assert range_of(remap(host, size=131072)) == (THIRD, 131072)
    with pytest.raises(RefusedError, match="is not free"):
        remap(host, size=131072, start=FIRST)


def test_what_a_container_lost_at_the_same_place_is_its_own() -> None:
    small = replace(per_container("web", FIRST, 1000), event=1, published="none")
    cut = Quarantined("web", IdRange(FIRST + 1000, 64536), "", WEB)
    host = with_ledger(
        state(**same_lines(b"usernsplan-web:589824:1000\n"), allocations=[small]),
        quarantined=(cut,),
    )
    found = remap(host, size=65536)
    assert range_of(found) == (FIRST, 65536)
    assert found.plan.ledger.unkeep == (("web", cut.reserved_range),)


def test_nobody_may_use_the_ids_while_the_map_changes() -> None:
    ids = IdRange(FIRST + 5, 1)
    mount = Unlisted(MOUNT, "/mnt", "uid", FIRST, FIRST + 1)
    for host in (web(namespaces=IdSet((ids,))), web(unlisted=(mount,))):
        for words in ({"start": THIRD}, {"size": 1000}, {"passes": ("g:2:107",)}):
            with pytest.raises(RefusedError, match="ids of the old map"):
                remap(host, **words)
        # With more ids at its end, what runs has the same ids as before.
        assert range_of(remap(host, size=131072)) == (FIRST, 131072)


def test_a_host_id_in_use_is_no_use_of_the_container_s_own() -> None:
    maps = PerContainer(passes=(Pass("gid", Extent(107, 2, 1)),))
    shown = replace(WEB, mapping=maps.mapping(FIRST), passes=maps.passes)
    gids = b"".join(b"usernsplan-web:%d:%d\n" % (e.host, e.count) for e in shown.mapping.gids)
    host = state(subuid=LINES, subgid=gids, allocations=[shown], namespaces=IdSet((IdRange(2, 1),)))
    assert remap(host, size=1000).plan.changed


def test_accounts_of_a_directory_and_ids_that_do_not_exist_are_kept_clear_of() -> None:
    directory = Directory(User("far", THIRD, THIRD))
    host = state(**same_lines(LINES + b"bob:655369:1\n"), allocations=[WEB], directory=directory)
    assert range_of(remap(host, size=131072)) == (THIRD + 65536, 131072)
    exists = EVERY_ID - IdSet((IdRange(SECOND, 2**32 - 1 - SECOND),))
    with pytest.raises(PoolExhaustedError):
        remap(web(exists=(exists, exists)), size=131072)


def test_the_volumes_are_noted_with_the_map_whose_ids_they_have() -> None:
    volumes = (Volume("/a", "web", "shift", event=2), Volume("/b", "db", "shift", event=2))
    host = with_ledger(web(), volumes=volumes)
    found = remap(host, start=THIRD)
    assert found.moves == (replace(volumes[0], former=WEB.mapping),)
    assert found.plan.ledger == LedgerChange(
        update=(WEB, found.plan.allocations[0]),
        quarantine=(("web", IdRange(FIRST, 65536)),),
        volumes=found.moves,
    )
    # One of a former life of the name is not its any more.
    old = with_ledger(web(), volumes=(replace(volumes[0], event=0),))
    assert remap(old, start=THIRD).moves == ()


REQUESTS = st.builds(
    lambda size, slot, gid: RemapRequest(
        "web",
        size=size,
        start=None if slot is None else FIRST + 65536 * slot,
        passes=None if gid is None else (f"g:2:{gid}",) if gid else (),
    ),
    st.none() | st.sampled_from([1000, 65536, 70000, 131072, 200000]),
    st.none() | st.integers(0, 5),
    st.none() | st.integers(0, 60000),
)


@given(requests=st.lists(REQUESTS, max_size=5), crowded=st.booleans())
def test_whatever_was_done_can_be_undone_to_the_very_host(
    requests: list[RemapRequest], *, crowded: bool
) -> None:
    lines = LINES + (b"bob:720896:65536\n" if crowded else b"")
    host = state(**same_lines(lines), allocations=[WEB])
    events: list[Event] = []

    def step(host: HostState, request: RemapRequest) -> HostState:
        found = make_remap(host, request, lambda: events)
        if not found.plan.changed:
            return host
        after = carried_out(host, found.plan)
        events.append(Event(after.ledger.number, "", found.plan.ledger))
        return after

    stack = [host]
    for request in requests:
        try:
            after = step(stack[-1], request)
        except RefusedError:
            continue
        held = {a.name: a.reserved_range for a in after.ledger.allocations}["web"]
        kept = IdSet(q.reserved_range for q in after.ledger.quarantined)
        assert held is not None
        # No id is both given and kept back, and none that it ever had is free.
        assert not kept.meets(held.start, held.stop)
        assert (kept | IdSet((held,))).holds(IdRange(FIRST, 1))
        # The files are as granted: nothing is left to restore.
        assert not make_repair(after).changed
        if after is not stack[-1]:
            stack.append(after)

    now = stack[-1]
    for before in reversed(stack[:-1]):
        now = step(now, RemapRequest("web", undo=True))
        assert [replace(a, event=1) for a in now.ledger.allocations] == [
            replace(a, event=1) for a in before.ledger.allocations
        ]
        assert sorted(now.subuid.raw.split()) == sorted(before.subuid.raw.split())
        assert sorted(now.subgid.raw.split()) == sorted(before.subgid.raw.split())
        assert now.userdb.names == before.userdb.names
    # What was left behind on the way stays quarantined: all that was ever had is had or kept back.
    ever = IdSet(
        a.reserved_range for one in stack for a in one.ledger.allocations if a.reserved_range
    )
    have = IdSet((*(q.reserved_range for q in now.ledger.quarantined), IdRange(FIRST, 65536)))
    assert not ever - have


def test_a_map_extends_another_if_each_id_stays_what_it_is() -> None:
    longer, other = per_container("web", FIRST, 70000), per_container("web", SECOND, 70000)
    assert extends(WEB, longer)
    assert extends(WEB, WEB)
    assert not extends(longer, WEB)
    assert not extends(WEB, other)


# Slices: ids within the lines of alice, who has uid and gid 1000.
HERS = b"alice:100000:65536\n"


def a_slice(start: int, size: int, gid: int | None = None) -> Allocation:
    """What the ledger holds of the slice web; its gids may begin at another id."""
    gids = IdMap.of((0, start if gid is None else gid, size))
    one = per_container("web", start, size, "alice")
    return replace(
        one,
        mapping=Mapping(one.mapping.uids, gids),
        reserved_range=one.reserved_range if gid is None else None,
        published="none",
        in_files=False,
        within="alice",
        event=1,
    )


def both(*extents: tuple[int, int, int]) -> Mapping:
    """The same map of uids and of gids."""
    return Mapping(IdMap.of(*extents), IdMap.of(*extents))


def hers(one: Allocation, *others: Allocation, **more: object) -> HostState:
    host = state(**same_lines(HERS), allocations=[one, *others])
    return replace(host, **more)  # type: ignore[arg-type]


def at(found: Remap) -> tuple[int, int, int]:
    """The first host uid and gid of a slice, and its size."""
    [a] = found.plan.allocations
    [uids], [gids] = a.mapping.uids, a.mapping.gids
    assert (uids.container, gids.container, uids.count) == (0, 0, gids.count)
    assert a.reserved_range == (IdRange(uids.host, uids.count) if uids.host == gids.host else None)
    # No line changes: they are those of alice.
    assert (found.plan.changes, found.plan.records, a.in_files) == ((), (), False)
    return uids.host, gids.host, uids.count


DB = replace(a_slice(155000, 536), name="db")
MIDDLE = a_slice(130000, 1000)
LAST = a_slice(155536, 10000)


@each(
    ("one", "words", "expected"),
    [
        # Behind it, ids are free: it stays where it is.
        (MIDDLE, {"size": 2000}, (130000, 130000, 2000)),
        (MIDDLE, {"size": 500}, (130000, 130000, 500)),
        # At the end of the lines none are: the last ones that are free and not its own.
        (LAST, {"size": 20000}, (134999, 134999, 20000)),
        (LAST, {"size": 30000, "start": 100000}, (100000, 100000, 30000)),
        # Whoever says so may have ids of its own under other numbers.
        (LAST, {"start": 155537, "size": 9999}, (155537, 155537, 9999)),
        (a_slice(110000, 1000, 120000), {"size": 3000}, (110000, 120000, 3000)),
        (a_slice(155536, 1000, 120000), {"size": 10000}, (155536, 120000, 10000)),
        # Not where it had a gid as uid, nor the other way round.
        (a_slice(155536, 10000, 120000), {"size": 11000}, (143999, 143999, 11000)),
        (a_slice(155536, 10000, 120000), {"start": 101000}, (101000, 101000, 10000)),
        # Nor may it lose as gids what it keeps as uids: quarantine is for both.
        (a_slice(119500, 1000, 119000), {"size": 500}, (165036, 165036, 500)),
    ],
)
def test_a_slice_gets_another_place_in_the_same_lines(
    one: Allocation, words: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    others = (
        ()
        if one is MIDDLE
        else (replace(DB, mapping=both((0, 154999, 537)), reserved_range=IdRange(154999, 537)),)
    )
    found = remap(hers(one, *others), **words)
    assert at(found) == expected
    had = IdSet.union(own_ids(one, kind) for kind in KINDS)
    has = IdSet.union(own_ids(found.plan.allocations[0], kind) for kind in KINDS)
    assert IdSet(ids for _, ids in found.plan.ledger.quarantine) == had - has


@each(
    ("words", "said"),
    [
        ({"start": 99999, "size": 10}, "is in no line of alice"),
        ({"start": 160000}, "165536-169999 is in no line"),
        ({"start": 150000}, "is not free"),
        ({"passes": ("g:2:107",)}, "cannot pass"),
    ],
)
def test_what_the_lines_do_not_give_a_slice(words: dict[str, Any], said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        remap(hers(LAST, DB), **words)


def test_what_is_a_uid_stays_no_gid() -> None:
    apart = a_slice(119500, 1000, 119000)
    for words in ({"start": 119500}, {"start": 119000}, {"start": 118500}):
        with pytest.raises(RefusedError, match="would change its kind"):
            remap(hers(apart), **words)  # type: ignore[arg-type]
    # An undo from elsewhere comes back to the very ids.
    found = remap(hers(apart), start=130000)
    after = carried_out(hers(apart), found.plan)
    back = remap(after, [Event(after.ledger.number, "", found.plan.ledger)], undo=True)
    assert back.plan.allocations == (apart,)


def test_a_slice_that_does_not_fit_says_what_does() -> None:
    with pytest.raises(PoolExhaustedError, match="largest free piece has 55000") as caught:
        remap(hers(LAST, DB), size=60000)
    assert "usernsplan remap web --size 55000" in caught.value.hint
    assert at(remap(hers(LAST, DB), size=55000)) == (100000, 100000, 55000)
    with pytest.raises(InvalidValueError, match="not from a pool"):
        remap(hers(LAST), pool=IdRange(100000, 65536))


def test_a_slice_may_not_run_while_it_moves_but_while_it_grows() -> None:
    inside = IdSet((IdRange(130500, 1),))
    requests: list[dict[str, Any]] = [{"start": 140000}, {"size": 100}]
    for words in requests:
        with pytest.raises(RefusedError, match="ids of the old map") as caught:
            remap(hers(MIDDLE, namespaces=inside), **words)
        assert "'podman system migrate', as alice" in caught.value.hint
    assert at(remap(hers(MIDDLE, namespaces=inside), size=2000)) == (130000, 130000, 2000)
    # Who runs in the ids that it gets is told: all containers of alice have all ids of her lines.
    found = remap(hers(MIDDLE, namespaces=IdSet((IdRange(131500, 1),))), size=2000)
    assert "USN168" in {one.code for one in found.plan.findings}


SLICED = st.builds(
    lambda size, start, gid: RemapRequest(
        "web",
        size=size,
        start=start,
        passes=None if gid is None else (f"g:1000:{gid}",) if gid else (),
    ),
    st.none() | st.sampled_from([500, 1000, 3000, 9000, 20000]),
    st.none() | st.sampled_from([100000, 100500, 110000, 150000]),
    st.none() | st.integers(0, 400),
)


@given(
    requests=st.lists(SLICED, max_size=5),
    gid=st.none() | st.sampled_from([110000, 119000]),
    crowded=st.booleans(),
)
def test_a_slice_keeps_to_its_lines_and_each_remap_of_it_can_be_undone(
    requests: list[RemapRequest], gid: int | None, *, crowded: bool
) -> None:
    first = a_slice(119500, 1000, gid)
    # Or else the ids behind it and before it are free.
    others = [replace(DB, mapping=both((0, 121000, 9000)), reserved_range=IdRange(121000, 9000))]
    host = hers(first, *others * crowded)
    events: list[Event] = []

    def step(host: HostState, request: RemapRequest) -> HostState:
        found = make_remap(host, request, lambda: events)
        assert found.plan.changes == ()
        if not found.plan.changed:
            return host
        after = carried_out(host, found.plan)
        events.append(Event(after.ledger.number, "", found.plan.ledger))
        return after

    def allocation(host: HostState) -> Allocation:
        return {a.name: a for a in host.ledger.allocations}["web"]

    def own(host: HostState, kind: Kind) -> IdSet:
        return own_ids(allocation(host), kind)

    stack = [host]
    for request in requests:
        try:
            after = step(stack[-1], request)
        except UsernsplanError:
            continue
        kept = IdSet(q.reserved_range for q in after.ledger.quarantined)
        for kind in KINDS:
            has = own(after, kind)
            assert not has & kept
            assert not has - IdSet((IdRange(100000, 65536),))
            assert not crowded or not has.meets(121000, 130000)
            # What its files had is still its, or kept back.
            assert not own(stack[-1], kind) - has - kept
        if after is not stack[-1]:
            stack.append(after)

    now = stack[-1]
    for before in reversed(stack[:-1]):
        now = step(now, RemapRequest("web", undo=True))
        assert allocation(now) == allocation(before)


# What others made, and was adopted.
ADOPTED = replace(
    per_container("web", 100000, 65536, "alice"),
    found=((SUBGID, HERS.decode().strip()), (SUBUID, HERS.decode().strip())),
    event=1,
)


def adopted(lines: bytes = HERS, **more: object) -> HostState:
    host = state(**same_lines(lines), allocations=[ADOPTED])
    return replace(host, **more)  # type: ignore[arg-type]


def test_adopted_lines_are_replaced_only_with_their_own_flag() -> None:
    with pytest.raises(RefusedError, match="stood there before 'web' was adopted") as caught:
        remap(adopted(), size=131072)
    assert "--with-lines" in caught.value.hint

    host = adopted()
    found = remap(host, size=131072, with_lines=True)
    # It grows where it is, below the default pool, and is ours from then on.
    [now] = found.plan.allocations
    assert (range_of(found), now.found, now.published) == ((100000, 131072), (), "none")
    after = carried_out(host, found.plan)
    assert after.subuid.raw == after.subgid.raw == b"alice:100000:131072\n"
    assert not make_repair(after).changed
    [gone] = [
        c.after for c in make_release(after, ReleaseRequest(("web",))).changes if c.path == SUBUID
    ]
    assert gone == b""

    # An undo makes it what it was: a line that stood there before.
    events = [Event(after.ledger.number, "", found.plan.ledger)]
    back = carried_out(after, remap(after, events, undo=True).plan)
    assert back.subuid.raw == HERS
    assert back.ledger.allocations == (ADOPTED,)
    # Where only gids change, the line of the uids stays what it was.
    shown = remap(adopted(), passes=("g:2:7",), with_lines=True).plan.allocations[0]
    assert shown.found == ((SUBUID, "alice:100000:65536"),)


def test_adopted_lines_move_if_somebody_has_the_ids_behind_them() -> None:
    found = remap(adopted(HERS + b"bob:165536:1\n"), size=131072, with_lines=True)
    assert range_of(found) == (FIRST, 131072)
    assert found.plan.ledger.quarantine == (("web", IdRange(100000, 65536)),)
    # useradd computes ranges of uids there (SUB_UID_DETERMINISTIC): then they are not free.
    computed = state(
        **same_lines(HERS),
        allocations=[ADOPTED],
        login_defs=b"SUB_UID_DETERMINISTIC yes\nUID_MAX 2000\n",
    )
    assert range_of(remap(computed, size=131072, with_lines=True))[0] > FIRST


def test_several_adopted_lines_become_one_range_whose_size_is_named() -> None:
    lines = b"alice:100000:65536\nalice:300000:10000\n"
    ids = IdMap.of((0, 100000, 65536), (65536, 300000, 10000))
    one = replace(
        ADOPTED,
        mapping=Mapping(ids, ids),
        reserved_range=None,
        found=tuple((path, line) for path in (SUBGID, SUBUID) for line in lines.decode().split()),
    )
    host = state(**same_lines(lines), allocations=[one])
    with pytest.raises(InvalidValueError, match="not one range") as caught:
        remap(host, start=FIRST, with_lines=True)
    assert "--size 75536" in caught.value.hint
    found = remap(host, size=75536, with_lines=True)
    assert range_of(found) == (FIRST, 75536)
    assert [ids for _, ids in found.plan.ledger.quarantine] == [
        IdRange(100000, 65536),
        IdRange(300000, 10000),
    ]
    after = carried_out(host, found.plan)
    assert after.subuid.raw == b"alice:589824:75536\n"
    # In the other order they are the same map, as Podman reads them.
    turned = state(**same_lines(b"alice:300000:10000\nalice:100000:65536\n"), allocations=[one])
    assert (
        carried_out(turned, remap(turned, size=75536, with_lines=True).plan).subuid == after.subuid
    )
    events = [Event(after.ledger.number, "", found.plan.ledger)]
    back = carried_out(after, remap(after, events, undo=True).plan)
    assert (back.subuid.raw, back.ledger.allocations) == (lines, (one,))


def test_lines_do_not_leave_the_slices_that_stand_on_them() -> None:
    slice_ = replace(a_slice(160000, 1000), name="db")
    host = state(**same_lines(HERS), allocations=[ADOPTED, slice_])
    requests: list[dict[str, Any]] = [{"start": FIRST}, {"size": 60000}]
    for words in requests:
        with pytest.raises(RefusedError, match=r"carry slices.*: db") as caught:
            remap(host, with_lines=True, **words)
        assert "release db" in caught.value.hint
    # Its slices are no strangers: it grows where it is.
    assert range_of(remap(host, size=131072, with_lines=True)) == (100000, 131072)


def test_a_pool_only_grows_where_it_is() -> None:
    pool = replace(per_container("containers", FIRST, 131072, "containers"), event=1)
    lines = b"containers:589824:131072\n"

    def grown(lines: bytes, size: int, **words: object) -> Remap:
        host = state(**same_lines(lines), allocations=[pool])
        return make_remap(host, RemapRequest("containers", size=size, **words), list)  # type: ignore[arg-type]

    assert range_of(grown(lines, 196608)) == (FIRST, 196608)
    for found, size in ((lines, 65536), (lines + b"bob:720896:1\n", 196608)):
        with pytest.raises(RefusedError, match="only grow where it is") as caught:
            grown(found, size)
        assert "allocate --engine podman-auto --auto-containers N" in caught.value.hint
    with pytest.raises(InvalidValueError, match="not a multiple"):
        grown(lines, 196609)
    with pytest.raises(InvalidValueError, match="ids pass through to one"):
        grown(lines, 196608, passes=("g:2:7",))
