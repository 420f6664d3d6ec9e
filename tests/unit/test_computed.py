"""The ranges that useradd computes from uids; the numbers are those that shadow 4.20.2 wrote when it ran."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.each import each
from tests.unit.states import PASSWD, asked, per_container, state
from usernsplan import IdRange, make_plan
from usernsplan.audit import Facts, check
from usernsplan.claims import computed
from usernsplan.claims.pool import BEHIND_INSTANCES, default_pool
from usernsplan.claims.sources import claims_of
from usernsplan.claims.useradd import useradd
from usernsplan.errors import InvalidValueError, PoolExhaustedError, RefusedError
from usernsplan.formats import login_defs
from usernsplan.ids import IdSet
from usernsplan.model import Unlisted
from usernsplan.reserved import INSTANCES
from usernsplan.space import space

BOTH = b"SUB_UID_DETERMINISTIC yes\nSUB_GID_DETERMINISTIC yes\n"
# The values that every distribution's login.defs has.
USUAL = (
    BOTH + b"SUB_UID_MIN 100000\nSUB_UID_MAX 600100000\nSUB_GID_MIN 100000\nSUB_GID_MAX 600100000\n"
)
WRAP = b"UNSAFE_SUB_UID_DETERMINISTIC_WRAP yes\n"
BEHIND = 600113152
# Three users, at 100000, 165536 and 231072: the pool stays where it is.
FEW = USUAL + b"UID_MAX 1002\n"
# 1000-1009, whose last range is 689824-755359.
TEN = USUAL + b"UID_MAX 1009\n"


def start_of(raw: bytes, uid: int) -> list[int | None]:
    return [one.start_of(uid) for one in computed.read(raw)]


@each(
    ("raw", "uid", "starts"),
    [
        (b"", 1000, []),
        (BOTH, 1000, [65536, 65536]),
        (BOTH, 1003, [262144, 262144]),
        (BOTH, 999, [None, None]),
        (USUAL, 1007, [558752, 558752]),
        (b"SUB_UID_DETERMINISTIC YeS\n", 1003, [262144]),
        (b'SUB_UID_DETERMINISTIC "yes"\n', 1003, [262144]),
        (b"SUB_GID_DETERMINISTIC yes\nSUB_GID_MIN 100000\n", 1001, [165536]),
        (b"UID_MIN 500\n" + USUAL, 501, [165536, 165536]),
        (USUAL + b"SUB_UID_COUNT 1000\n", 1002, [102000, 231072]),
        # Two ranges fit in 100000-231072, and a third does not.
        (b"SUB_UID_DETERMINISTIC yes\nSUB_UID_MIN 100000\nSUB_UID_MAX 231072\n", 1001, [165536]),
        (b"SUB_UID_DETERMINISTIC yes\nSUB_UID_MIN 100000\nSUB_UID_MAX 231072\n", 1002, [None]),
        (
            b"SUB_UID_DETERMINISTIC yes\nSUB_UID_MIN 100000\nSUB_UID_MAX 231072\n%s" % WRAP,
            1003,
            [165536],
        ),
        # No uid gets any, and useradd fails.
        (b"SUB_UID_DETERMINISTIC yes\nSUB_UID_MIN 9\nSUB_UID_MAX 8\n", 1000, []),
        (b"SUB_UID_DETERMINISTIC yes\nSUB_UID_MIN 1\nSUB_UID_MAX 65535\n", 1000, []),
        (b"SUB_UID_DETERMINISTIC yes\nSUB_UID_COUNT 0\n", 1000, []),
        # Not on.
        (b"SUB_UID_DETERMINISTIC no\n", 1000, []),
        (b"SUB_UID_DETERMINISTIC yes # c\n", 1000, []),
        (b"SUB_UID_DETERMINISTIC 1\n", 1000, []),
        (b"SUB_UID_DETERMINISTIC yes\nSUB_UID_DETERMINISTIC no\n", 1000, []),
        (b"#SUB_UID_DETERMINISTIC yes\n", 1000, []),
        # A number that it cannot read is the default.
        (b"SUB_UID_DETERMINISTIC yes\nSUB_UID_MIN 0x\n", 1003, [262144]),
    ],
)
def test_the_range_of_a_uid_is_the_one_that_useradd_wrote(
    raw: bytes, uid: int, starts: list[int | None]
) -> None:
    assert start_of(raw, uid) == starts


SMALL = st.integers(0, 12)


@given(SMALL, SMALL, SMALL, st.integers(0, 60), st.integers(1, 9), st.booleans(), SMALL, SMALL)
def test_the_ranges_of_uids_by_the_rule_of_shadow_one_by_one(  # noqa: PLR0917 - eight numbers
    uid_min: int, uid_max: int, low: int, last: int, size: int, wraps: bool, start: int, count: int
) -> None:
    defs = login_defs.LoginDefs(
        low, last, size, uid_min=uid_min, uid_max=uid_max, computed=(1, 0), wraps=(wraps, False)
    )
    ranges = {
        uid: range(first, first + size)
        for uid in range(uid_min, uid_max + 1)
        if (first := low + (uid - uid_min) * size) + size - 1 <= last
    }
    found = computed.of_login_defs(defs)
    if not ranges:
        assert found == ()
        return
    [one] = found
    assert {uid: one.start_of(uid) for uid in ranges} == {u: r.start for u, r in ranges.items()}
    assert {*range(one.first, one.stop)} == {number for ids in ranges.values() for number in ids}
    asked = range(start * 5, start * 5 + count + 1)
    assert {*one.uids(asked.start, asked.stop)} == {
        uid for uid, ids in ranges.items() if {*ids} & {*asked}
    }
    # Past the last range, it begins again or there is none.
    beyond = one.start_of(uid_min + one.slots)
    assert beyond == (low if wraps else None)
    assert one.is_enough is (wraps or len(ranges) == uid_max - uid_min + 1)


def test_the_line_of_the_setting_is_known() -> None:
    areas = login_defs.parse(b"# c\n\n" + BOTH, "f").areas
    assert [area.computed for area in areas] == [3, 4]


@each(
    ("raw", "start"),
    [
        (USUAL, BEHIND),
        # One kind is enough: a range has the same uids and gids.
        (USUAL.replace(b"SUB_UID_DETERMINISTIC yes", b""), BEHIND),
        (FEW, 589824),
        (TEN, 786432),
    ],
)
def test_the_default_pool_begins_behind_what_useradd_computes(raw: bytes, start: int) -> None:
    assert default_pool(raw, "f") == IdSet((IdRange(start, 1879048192 - start),))


def test_where_lxd_has_its_range_the_pool_goes_on_behind_it() -> None:
    instances = [
        Unlisted("LXD", "instances", kind, INSTANCES.start, INSTANCES.stop)
        for kind in ("uid", "gid")
    ]
    pool = default_pool(USUAL, "f", instances)
    assert next((pool - IdSet((INSTANCES,))).fits(65536, 65536)).start == BEHIND_INSTANCES.start


def test_no_pool_is_left_where_the_ranges_reach_past_all_containers() -> None:
    # shadow's own defaults: 59001 ranges from 65536 on.
    with pytest.raises(InvalidValueError, match=r"^f:1: useradd computes .* 3866755071") as caught:
        default_pool(BOTH, "f")
    assert "UID_MAX" in caught.value.hint


def test_a_new_range_lies_behind_the_computed_ones() -> None:
    [made] = make_plan(state(login_defs=USUAL), asked("web")).allocations
    assert made.reserved_range == IdRange(BEHIND, 65536)


# alice, uid 1000, has 100000-165535 by this.
def test_the_range_of_an_account_is_refused_to_others_with_its_place() -> None:
    host = state(login_defs=USUAL)
    with pytest.raises(RefusedError, match=r"131072-165535 .* useradd .*alice.*/etc/login\.defs:1"):
        make_plan(host, asked("web", start=131072, pool=IdRange(65536, 196608)))
    with pytest.raises(PoolExhaustedError):
        make_plan(host, asked("web", pool=IdRange(65536, 131072)))


def test_what_no_account_has_yet_can_be_asked_for_with_a_warning() -> None:
    plan = make_plan(
        state(login_defs=USUAL), asked("web", start=589824, pool=IdRange(589824, 65536))
    )
    # 100000 + 7 * 65536 = 558752 is uid 1007's, and 624288 is uid 1008's.
    [finding] = [one for one in plan.findings if one.code == "USN142"]
    assert "uid 1007" in finding.message
    assert "/etc/login.defs:1" in finding.message
    plan = make_plan(state(login_defs=FEW), asked("web"))
    assert "USN142" not in {one.code for one in plan.findings}


@each("line", [b"alice:100000:65536\n", b"1000:100000:65536\n"])
def test_an_account_that_has_its_range_by_a_line_claims_it_once(line: bytes) -> None:
    host = state(line, line, login_defs=USUAL)
    over = claims_of(host).over(100000, 165536, "uid")
    assert {one.source for one in over} == {"subid", "useradd"}
    assert not space(host).conflicts


def test_of_a_range_that_an_account_has_in_part_the_rest_is_claimed() -> None:
    host = state(b"alice:100000:10\n", b"", login_defs=USUAL)
    found = [c for c in claims_of(host) if c.source == "unlisted"]
    assert [(c.kind, c.start, c.stop, c.number) for c in found] == [
        ("uid", 100010, 165536, 1),
        ("gid", 100000, 165536, 2),
    ]


def test_neither_system_accounts_nor_nobody_have_a_range() -> None:
    found = [c.holder for c in claims_of(state(login_defs=USUAL)) if c.source == "unlisted"]
    assert len(found) == 2
    assert all("alice" in holder for holder in found)


def test_an_allocation_of_the_account_in_its_own_range_is_its_own() -> None:
    mine = per_container("web", 100000, owner="alice")
    host = state(login_defs=USUAL, allocations=[mine])
    assert not [c for c in claims_of(host) if c.source == "unlisted"]


def test_the_map_shows_the_area_with_its_place() -> None:
    [area] = [s for s in space(state(login_defs=b"# c\n" + TEN)).segments if s.origin == "useradd"]
    assert area.ids == IdRange(100000, 655360)
    assert area.kinds == ("uid", "gid")
    assert area.details == ("/etc/login.defs:2: SUB_UID_DETERMINISTIC",)


def test_an_area_of_one_kind_is_shown_for_that_kind() -> None:
    raw = TEN.replace(b"SUB_GID_DETERMINISTIC yes", b"")
    found = [s for s in space(state(login_defs=raw)).segments if s.origin == "useradd"]
    assert {(s.kinds, s.ids.stop) for s in found} == {
        (("uid",), 755360),
        (("gid",), 600100001),
    }


def users(*uids: int) -> bytes:
    return PASSWD + b"".join(b"u%d:x:%d:1::/:/bin/sh\n" % (uid, uid) for uid in uids)


@each(
    ("defs", "uids", "left"),
    [
        # alice has 1000
        (TEN, (), 9),
        (TEN, (1001, 1004), 7),
        (TEN, (1009,), 8),
        # Three ranges for ten uids: 1001 and 1002 get theirs, and useradd fails with 1003.
        (TEN + b"SUB_UID_MAX 296607\n", (), 2),
        (TEN + b"SUB_UID_MAX 296607\n", (1004,), 0),
        # It takes free uids below once the last one is in use.
        (TEN + b"SUB_UID_MAX 296607\n", (1009,), 2),
        (TEN + b"SUB_UID_MAX 296607\n" + WRAP, (), 9),
        (TEN + b"SUB_UID_MAX 9\n", (), 0),
        # nobody is the highest, 65534, and the next uid has no range; and no loop over all uids.
        (USUAL + b"UID_MAX 4294967295\n", (), 0),
        (USUAL + b"UID_MIN 9\nUID_MAX 8\n", (), 0),
    ],
)
def test_how_many_more_users_get_a_range(defs: bytes, uids: tuple[int, ...], left: int) -> None:
    found = useradd(state(login_defs=defs, passwd=users(*uids)))
    assert found is not None
    assert found.uids == left


def test_lines_of_others_make_no_difference_to_a_useradd_that_computes() -> None:
    lines = b"bob:0:4294967295\n"
    found = useradd(state(lines, None, login_defs=TEN))
    assert found is not None
    assert (found.uids, found.gids) == (9, None)


def test_no_ids_are_claimed_where_nothing_is_computed() -> None:
    host = state(b"alice:100000:65536\n")
    sources = {c.source for c in claims_of(host)}
    assert sources.isdisjoint({"useradd", "unlisted"})
    assert claims_of(replace(host, login_defs=b"UID_MAX 70000\n")).ids == claims_of(host).ids


def test_nothing_runs_short_where_every_uid_has_a_range() -> None:
    some = TEN + b"SUB_UID_MAX 296607\nSUB_GID_MAX 296607\n"
    told = [
        [one.place for one in check(Facts(state(login_defs=raw)), {"USN060", "USN061"})]
        for raw in (TEN, some)
    ]
    assert told == [[], ["/etc/subuid", "/etc/subgid"]]


def test_a_range_behind_the_computed_ones_is_not_outside_of_anything() -> None:
    lines = b"bob:700000000:65536\n"
    kinds = [
        {one.code for one in check(Facts(state(lines, lines, login_defs=raw)), {"USN015"})}
        for raw in (USUAL, b"")
    ]
    assert kinds == [set(), {"USN015"}]
