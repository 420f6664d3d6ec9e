"""allocate: which range a name gets, who may own it, and what is refused.

The slots of the default pool, worked out by hand: 589824, 655360, 720896, 786432, 851968 (steps of 65536).
"""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.each import each
from tests.unit.states import (
    PASSWD,
    REMAPPED,
    asked,
    carried_out,
    in_one,
    per_container,
    same_lines,
    shared,
    state,
)
from usernsplan import (
    AllocateRequest,
    HostState,
    IdRange,
    IdSet,
    Layout,
    PerContainer,
    Plan,
    ReleaseRequest,
    Shared,
    SingleUid,
    make_plan,
    make_release,
)
from usernsplan.errors import InvalidFileError, InvalidValueError, PoolExhaustedError, RefusedError
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.model import DOCKER, MOUNT, Quarantined, Unlisted, Volume

if TYPE_CHECKING:
    from collections.abc import Callable

    from usernsplan.mapping import Kind

PLUGIN = "/usr/lib/libsubid_sss.so"
FIRST, SECOND, THIRD, FOURTH = 589824, 655360, 720896, 786432
WIDE_POOL = IdRange.parse("589824-1879048191")


def machine(name: str, base: int, kind: Kind = "uid") -> Unlisted:
    """A machine of systemd-nspawn, by the owner of its tree."""
    ids = (kind, base, base + 65536)
    return Unlisted("systemd-nspawn", f"machine {name}", *ids, name, f"/var/lib/machines/{name}")


def bases(plan: Plan) -> list[int]:
    """The host id of each allocation's first extent, uids and gids being the same."""
    for allocation in plan.allocations:
        assert allocation.mapping.uids == allocation.mapping.gids
    return [allocation.mapping.uids[0].host for allocation in plan.allocations]


def added(plan: Plan, path: str) -> bytes:
    """What a plan puts at the end of a file of which it keeps the rest."""
    [change] = [change for change in plan.changes if change.path == path]
    before = change.before or b""
    assert change.after.startswith(before)
    return change.after[len(before) :]


def codes(plan: Plan) -> set[str]:
    return {finding.code for finding in plan.findings}


# What the plan is, as a whole


def test_an_empty_host_gets_one_line_in_each_file_and_an_entry_in_the_ledger() -> None:
    plan = make_plan(state(), asked("web", "db"))
    assert plan.kind == "allocate"
    assert [(a.name, a.owner, a.strategy) for a in plan.allocations] == [
        ("web", "usernsplan-web", "per-container"),
        ("db", "usernsplan-db", "per-container"),
    ]
    assert [a.mapping.uids.triples() for a in plan.allocations] == [
        [(0, FIRST, 65536)],
        [(0, SECOND, 65536)],
    ]
    assert [a.mapping.gids.triples() for a in plan.allocations] == [
        [(0, FIRST, 65536)],
        [(0, SECOND, 65536)],
    ]
    lines = b"usernsplan-web:589824:65536\nusernsplan-db:655360:65536\n"
    assert [(c.path, c.before, c.after) for c in plan.changes] == [
        (SUBUID, b"", lines),
        (SUBGID, b"", lines),
    ]
    assert plan.ledger.add == plan.allocations
    assert (plan.ledger.remove, plan.ledger.quarantine, plan.ledger.forget) == ((), (), ())
    assert [a.reserved_range for a in plan.allocations] == [
        IdRange(FIRST, 65536),
        IdRange(SECOND, 65536),
    ]
    assert (plan.changed, plan.unfinished, plan.account_commands, plan.findings) == (
        True,
        False,
        (),
        (),
    )


def test_a_host_without_the_two_files_gets_them() -> None:
    plan = make_plan(state(None, None), asked("web"))
    assert [(c.path, c.before) for c in plan.changes] == [(SUBUID, None), (SUBGID, None)]
    assert {c.after for c in plan.changes} == {b"usernsplan-web:589824:65536\n"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"bob:100000:65536\n", b"bob:100000:65536\nusernsplan-web:589824:65536\n"),
        (b"bob:100000:65536", b"bob:100000:65536\nusernsplan-web:589824:65536\n"),
        (
            b"\n# mine\r\nbob:1\r\n\xff\xfe:1:1\n\n",
            b"\n# mine\r\nbob:1\r\n\xff\xfe:1:1\n\nusernsplan-web:589824:65536\n",
        ),
        (b"zed:9:1\nabe:1:1\n", b"zed:9:1\nabe:1:1\nusernsplan-web:589824:65536\n"),
    ],
    ids=["a line", "no final newline", "junk", "not sorted"],
)
def test_what_others_wrote_stays_byte_for_byte_and_ours_comes_last(
    before: bytes, after: bytes
) -> None:
    plan = make_plan(state(**same_lines(before)), asked("web"))
    assert [(c.before, c.after) for c in plan.changes] == [(before, after)] * 2


def test_each_file_keeps_its_own_lines() -> None:
    plan = make_plan(state(b"bob:1:1\n", b"eve:2:2\n"), asked("web"))
    assert {c.path: c.after for c in plan.changes} == {
        SUBUID: b"bob:1:1\nusernsplan-web:589824:65536\n",
        SUBGID: b"eve:2:2\nusernsplan-web:589824:65536\n",
    }


# Where the range lies


@each(
    ("lines", "base"),
    [
        (b"bob:615536:1\n", SECOND),
        (b"bob:589824:1\n", SECOND),
        (b"bob:655359:1\n", SECOND),
        (b"bob:589823:1\n", FIRST),
        (b"bob:655360:65536\n", FIRST),
        (b"bob:589824:196608\neve:665536:10\n", FOURTH),
        (b"eve:665536:10\nbob:589824:196608\n", FOURTH),
        (b"bob:589824:196608\neve:665536:120897\n", 851968),
        (b"bob:720896:65536\nbob:589824:65536\n", SECOND),
        (b"bob:589824:65536\nbob:720895:65537\n", FOURTH),
        (b"bob:589824:65537\nbob:720896:65536\n", FOURTH),
        (b"bob:615536:0\n", FIRST),
        (b"bob:4294900000:65536000\n", FIRST),
        (b"bob:589824:1\neve:665536:9999999999999999999\n", None),
        (b"bob:99999999999999999999:1\n", FIRST),
        (b"bob:0x90000:0x10000\n", SECOND),
        (b"bob:0X96470:1\n", SECOND),
        (b"bob:02200000:1\n", SECOND),
        (b"bob:02200001:1\n", SECOND),
        (b"bob:589824:65536\neve:02500000:1\n", THIRD),
        (b"bob:589816:010\n", SECOND),
        (b"bob:589817:010\n", SECOND),
        (b"bob:589814:010\n", FIRST),
        (b"bob:615536\n", FIRST),
        (b"bob:615536:many\n", FIRST),
        (b"bob:few:65536\n", FIRST),
        (b"bob:-615536:5\n", FIRST),
        (b"\xff\xfe\x00\n", FIRST),
        (b"#bob:615536:5\n", FIRST),
        (b"\n  \n", FIRST),
        (b"bob:615536:5 # old\n", SECOND),
        (b" bob: 615536 : 5\n", SECOND),
        (b"bob:615536:5\r\n", SECOND),
        (b"bob:615536:5", SECOND),
        (b"bob:615536:5:x\n", SECOND),
        (b":615536:5\n", SECOND),
        (b"b\xf6b:615536:5\n", SECOND),
        (b"+bob:615536:5\n", SECOND),
        (b"b" * 1024 + b":615536:5\n", SECOND),
    ],
)
@each("file", ["subuid", "subgid"])
def test_the_first_slot_is_taken_that_no_reader_gives_to_somebody(
    file: str, lines: bytes, base: int | None
) -> None:
    host = state(**in_one(file, lines))
    if base is None:
        with pytest.raises(
            PoolExhaustedError, match=r"no room for 1 of 1 .* largest gap left holds 75711 ids"
        ):
            make_plan(host, asked("web"))
    else:
        assert bases(make_plan(host, asked("web"))) == [base]


@pytest.mark.parametrize(
    "host",
    [
        state(subgid=b"bob:589824:1\n"),
        state(passwd=b"bob:x:589824:1000::/:\n"),
        state(passwd=b"bob:x:1001:655359::/:\n"),
        state(group=b"bob:x:589824:\n"),
        state(namespaces=IdSet((IdRange(615536, 1),))),
        state(quarantined=(Quarantined("old", IdRange(FIRST, 65536), ""),)),
        state(quarantined=(Quarantined("old", IdRange(655359, 1), ""),)),
        state(allocations=(per_container("lost", FIRST),)),
        state(unlisted=(machine("deb", FIRST, "gid"),)),
    ],
    ids=[
        "granted as gids only",
        "an account",
        "an account's group",
        "a group",
        "a running namespace",
        "released",
        "a bit of it released",
        "allocated, though its lines are gone",
        "a machine's, without a line",
    ],
)
def test_a_slot_that_somebody_has_in_another_way_is_not_given_out(host: HostState) -> None:
    assert bases(make_plan(host, asked("web"))) == [SECOND]


def test_the_uids_of_one_and_the_gids_of_another_together_leave_the_third_slot() -> None:
    host = state(subuid=b"bob:589824:65536\n", subgid=b"bob:665536:1\n")
    assert bases(make_plan(host, asked("web"))) == [THIRD]


@pytest.mark.parametrize(
    ("pool", "base"),
    [
        ("0-200000", 65536),
        ("65535-200000", 65536),
        ("65537-200000", 131072),
        ("2147352576-2147483647", 2147418112),
        ("2147352575-4294967294", 2147418112),
    ],
    ids=[
        "people and system",
        "from -1 on",
        "aligned up",
        "foreign images",
        "up to the signed limit",
    ],
)
def test_reserved_ids_are_not_given_out_whatever_the_pool(pool: str, base: int) -> None:
    assert bases(make_plan(state(), asked("web", pool=IdRange.parse(pool)))) == [base]


@pytest.mark.parametrize(
    "pool", ["0-65535", "1000-131070", "2147352576-2147418111", "2147483648-4294967294"]
)
def test_a_pool_of_reserved_ids_has_no_room(pool: str) -> None:
    with pytest.raises(PoolExhaustedError):
        make_plan(state(), asked("web", pool=IdRange.parse(pool)))


def test_ten_thousand_names_follow_each_other() -> None:
    names = [f"c{n}" for n in range(10_000)]
    plan = make_plan(state(), asked(*names, pool=WIDE_POOL))
    assert [a.name for a in plan.allocations] == names
    assert bases(plan) == [FIRST + 65536 * n for n in range(10_000)]
    expected = b"".join(
        b"usernsplan-c%d:%d:65536\n" % (n, FIRST + 65536 * n) for n in range(10_000)
    )
    assert {c.after for c in plan.changes} == {expected}


def test_holes_among_ten_thousand_lines_are_filled_lowest_first() -> None:
    lines = b"".join(
        b"u%d:%d:65536\n" % (n, FIRST + 65536 * n) for n in range(10_000) if n not in {17, 4711}
    )
    plan = make_plan(state(**same_lines(lines)), asked("a1", "b2", "c3", pool=WIDE_POOL))
    assert bases(plan) == [FIRST + 65536 * 17, FIRST + 65536 * 4711, FIRST + 65536 * 10_000]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, [FIRST, SECOND, THIRD]),
        (65535, [FIRST, SECOND, THIRD]),
        (65536, [FIRST, SECOND, THIRD]),
        (65537, [FIRST, THIRD, 851968]),
        (131072, [FIRST, THIRD, 851968]),
    ],
)
def test_every_base_is_a_multiple_of_65536_whatever_the_size(
    size: int, expected: list[int]
) -> None:
    plan = make_plan(state(), asked("a1", "b2", "c3", strategy=PerContainer(size=size)))
    assert bases(plan) == expected
    assert [a.mapping.uids[0].count for a in plan.allocations] == [size] * 3
    assert all(line.endswith(b":%d" % size) for line in added(plan, SUBUID).splitlines())


@pytest.mark.parametrize(
    ("size", "warned"), [(65534, True), (65535, False), (65536, False), (1, True)]
)
def test_a_range_without_nobody_is_warned_of(size: int, warned: bool) -> None:
    assert (
        "USN104" in codes(make_plan(state(), asked("web", strategy=PerContainer(size=size))))
    ) is warned


# single-uid


@pytest.mark.parametrize(
    ("strategy", "lines", "expected"),
    [
        (SingleUid(), b"", [1000000000, 1000010000]),
        (SingleUid(), b"bob:1000005000:1\n", [1000010000, 1000020000]),
        (SingleUid(), b"bob:1000009999:2\n", [1000020000, 1000030000]),
        (SingleUid(block=1), b"", [1000000000, 1000000001]),
        (SingleUid(block=1), b"bob:1000000001:1\n", [1000000000, 1000000002]),
        (SingleUid(block=3), b"", [1000000002, 1000000005]),
        (SingleUid(container_id=1001), b"", [1000000000, 1000010000]),
    ],
    ids=[
        "blocks",
        "a block in use",
        "two blocks touched",
        "packed",
        "packed around one",
        "multiples of 3",
        "another id",
    ],
)
def test_single_uid_gives_each_name_one_id_of_a_block_of_its_own(
    strategy: SingleUid, lines: bytes, expected: list[int]
) -> None:
    plan = make_plan(state(**same_lines(lines)), asked("a1", "b2", strategy=strategy))
    assert bases(plan) == expected
    assert [a.mapping.uids.triples() for a in plan.allocations] == [
        [(strategy.container_id, b, 1)] for b in expected
    ]
    assert [a.reserved_range for a in plan.allocations] == [
        IdRange(b, strategy.block) for b in expected
    ]
    assert added(plan, SUBUID) == b"usernsplan-a1:%d:1\nusernsplan-b2:%d:1\n" % tuple(expected)


def test_the_rest_of_a_block_is_kept_back_for_its_name() -> None:
    host = carried_out(state(), make_plan(state(), asked("a1", strategy=SingleUid())))
    plan = make_plan(host, asked("b2", strategy=SingleUid(block=1)))
    assert bases(plan) == [1000010000]


def test_single_uid_takes_from_another_pool_where_one_is_given() -> None:
    plan = make_plan(
        state(), asked("a1", strategy=SingleUid(block=10), pool=IdRange.parse("100001-100040"))
    )
    assert bases(plan) == [100010]


# shared


def test_shared_maps_root_to_dockerroot_and_the_rest_to_itself_for_every_name() -> None:
    plan = make_plan(state(), asked("web", "db", strategy=Shared()))
    assert [a.mapping.uids.triples() for a in plan.allocations] == [[(0, 2, 1), (3, 3, 65533)]] * 2
    assert [a.reserved_range for a in plan.allocations] == [None, None]
    assert added(plan, SUBGID) == (
        b"usernsplan-web:2:1\nusernsplan-web:3:65533\nusernsplan-db:2:1\nusernsplan-db:3:65533\n"
    )


@pytest.mark.parametrize(
    ("dockerroot", "words"),
    [
        (2, "DOCKERROOT 2 is the account 'bin' and the group 'bin'"),
        (1000, "DOCKERROOT 1000 is the account 'alice' and the group 'alice'"),
        (400, None),
    ],
)
def test_a_dockerroot_that_is_somebody_is_named(dockerroot: int, words: str | None) -> None:
    plan = make_plan(state(), asked("web", strategy=Shared(dockerroot=dockerroot)))
    said = [f.message for f in plan.findings if f.code == "USN101"]
    assert [message.partition(" on this host")[0] for message in said] == ([words] if words else [])


@pytest.mark.parametrize("maximum", [65535, 65536, 4294967294])
def test_a_shared_map_past_65535_is_kept_in_the_ledger_only(maximum: int) -> None:
    plan = make_plan(state(), asked("web", strategy=Shared(max=maximum)))
    written = maximum == 65535
    assert bool(plan.changes) is written
    assert ("USN113" in codes(plan)) is not written
    assert plan.ledger.add == plan.allocations
    [allocation] = plan.allocations
    assert allocation.mapping.uids.triples() == [(0, 2, 1), (3, 3, maximum - 2)]


def test_identity_maps_everything_to_itself_and_warns() -> None:
    plan = make_plan(state(), asked("web", strategy=Shared(identity=True, max=65000)))
    assert plan.allocations[0].mapping.uids.triples() == [(0, 0, 65000)]
    assert added(plan, SUBUID) == b"usernsplan-web:0:65000\n"
    assert "USN102" in codes(plan)


@pytest.mark.parametrize(
    "strategy", [Shared(), Shared(identity=True)], ids=["dockerroot", "identity"]
)
def test_a_start_for_what_takes_no_range_is_refused(strategy: Shared) -> None:
    with pytest.raises(InvalidValueError, match="takes no range of its own") as caught:
        make_plan(state(), asked("web", strategy=strategy, start=FIRST))
    assert caught.value.option == "start"


# No room: all or nothing


@pytest.mark.parametrize(
    ("pool", "lines", "names", "missing", "gap"),
    [
        ("589824-655358", b"", 1, 1, 65535),
        ("589824-720895", b"", 3, 1, 0),
        ("589824-720896", b"", 4, 2, 1),
        ("589825-720895", b"", 2, 1, 65535),
        ("589824-786431", b"bob:665536:1\n", 3, 1, 55359),
    ],
    ids=["one id short", "exactly two", "two and one id", "not aligned", "broken in the middle"],
)
def test_a_shortfall_says_how_many_are_missing_and_the_largest_gap(
    pool: str, lines: bytes, names: int, missing: int, gap: int
) -> None:
    request = asked(*(f"c{n}" for n in range(names)), pool=IdRange.parse(pool))
    with pytest.raises(PoolExhaustedError) as caught:
        make_plan(state(**same_lines(lines)), request)
    assert f"no room for {missing} of {names} ranges of 65536 ids at a multiple of 65536" in str(
        caught.value
    )
    assert f"the largest gap left holds {gap} ids" in str(caught.value)
    assert caught.value.exit_status == 7


def test_the_default_pool_holds_9147_slots() -> None:
    # 589824 to 600100000: 599510177 ids, 9147 times 65536 and 52385 more.
    with pytest.raises(PoolExhaustedError, match=r"no room for 853 of 10000 .* holds 52385 ids"):
        make_plan(state(), asked(*(f"c{n}" for n in range(10_000))))
    assert (
        bases(make_plan(state(), asked(*(f"c{n}" for n in range(9_147)))))[-1]
        == FIRST + 65536 * 9146
    )


@pytest.mark.parametrize("size", [599510177, 599575714])
def test_a_range_may_be_as_large_as_the_pool(size: int) -> None:
    request = asked("web", strategy=PerContainer(size=size))
    if size == 599510177:
        assert bases(make_plan(state(), request)) == [FIRST]
    else:
        with pytest.raises(PoolExhaustedError, match="holds 599510177 ids"):
            make_plan(state(), request)


# login.defs


@pytest.mark.parametrize(
    ("login_defs", "slots"),
    [
        (b"SUB_UID_MAX 720895\n", 2),
        (b"SUB_UID_MAX\t\t720895\n", 2),
        (b"  SUB_UID_MAX   720895  \n", 2),
        (b"SUB_UID_MAX 720894\n", 1),
        (b"SUB_UID_MAX 720895", 2),
        (b"SUB_UID_MAX 0xaffff\n", 2),
        (b"SUB_UID_MAX 02577777\n", 2),
        (b"SUB_GID_MAX 720895\n", 2),
        (b"SUB_UID_MAX 720895\nSUB_GID_MAX 655359\n", 1),
        (b"SUB_UID_MAX 655359\nSUB_UID_MAX 720895\n", 2),
        (b"#SUB_UID_MAX 655359\nSUB_UID_MAX 720895\n", 2),
        (b"UID_MAX 60000\nSUB_UID_MAX 720895\n", 2),
        (b"SUB_UID_MAX 720895\nSUB_UID_COUNT 0\nSUB_GID_COUNT 0\n", 2),
        (b"SUB_UID_MAX 720895\nSUB_UID_MIN 665536\n", 2),
    ],
    ids=[
        "a blank",
        "tabs",
        "blanks around",
        "one id short",
        "no final newline",
        "hexadecimal",
        "octal",
        "gids bound it",
        "the smaller of both",
        "the last line counts",
        "commented out",
        "UID_MAX is another",
        "COUNT 0 is useradd's",
        "MIN is useradd's",
    ],
)
def test_the_pool_ends_where_login_defs_says(login_defs: bytes, slots: int) -> None:
    host = state(login_defs=login_defs)
    assert len(make_plan(host, asked(*(f"c{n}" for n in range(slots)))).allocations) == slots
    with pytest.raises(PoolExhaustedError, match=f"no room for 1 of {slots + 1}"):
        make_plan(host, asked(*(f"c{n}" for n in range(slots + 1))))


@pytest.mark.parametrize(
    ("login_defs", "error", "words"),
    [
        (
            b"SUB_UID_MIN 765536\nSUB_UID_MAX 665536\n",
            InvalidFileError,
            "SUB_UID_MIN 765536 is above SUB_UID_MAX",
        ),
        (
            b"SUB_GID_MIN 765536\nSUB_GID_MAX 665536\n",
            InvalidFileError,
            "SUB_GID_MIN 765536 is above SUB_GID_MAX",
        ),
        (
            b"SUB_UID_MAX 589823\n",
            InvalidValueError,
            "589823, below the start of the default pool, 589824",
        ),
        (b"# x\nSUB_UID_MAX lots\n", InvalidFileError, "login.defs:2: SUB_UID_MAX is 'lots'"),
        (b"SUB_UID_MAX -1\n", InvalidFileError, "login.defs:1: SUB_UID_MAX is '-1'"),
    ],
    ids=["MIN above MAX", "MIN above MAX, gids", "no pool left", "a word", "negative"],
)
def test_login_defs_that_leave_no_pool_are_an_error_that_a_pool_of_ones_own_avoids(
    login_defs: bytes, error: type[Exception], words: str
) -> None:
    host = state(login_defs=login_defs)
    with pytest.raises(error, match=re.escape(words)):
        make_plan(host, asked("web"))
    assert bases(make_plan(host, asked("web", pool=IdRange.parse("1000000-2000000")))) == [
        16 * 65536
    ]
    assert bases(make_plan(host, asked("web", strategy=SingleUid()))) == [1000000000]


def test_a_number_that_no_reader_takes_is_warned_of_where_the_pool_is_given() -> None:
    plan = make_plan(state(login_defs=b"SUB_UID_COUNT many\n"), asked("web", pool=WIDE_POOL))
    assert "USN112" in codes(plan)


def test_a_pool_past_the_last_id_that_exists_is_a_trouble_of_login_defs() -> None:
    host = state(login_defs=b"SUB_UID_MAX 4294967295\nSUB_GID_MAX 4294967295\n")
    try:
        plan = make_plan(host, asked("web"))
    except InvalidValueError as error:
        assert "login.defs" in str(error)  # noqa: PT017 - either answer is good, a bare range is not
    else:
        assert bases(plan) == [FIRST]


@pytest.mark.parametrize(
    "host",
    [
        pytest.param(lambda digits: state(subuid=b"bob:%s:1\n" % digits), id="subuid"),
        pytest.param(lambda digits: state(subgid=b"bob:1:%s # x\n" % digits), id="subgid"),
        pytest.param(lambda digits: state(passwd=b"bob:x:%s:1::/:\n" % digits), id="passwd"),
        pytest.param(lambda digits: state(group=b"bob:x:%s:\n" % digits), id="group"),
    ],
)
def test_a_number_of_five_thousand_digits_in_somebodys_line_stops_nothing(
    host: Callable[[bytes], HostState],
) -> None:
    assert bases(make_plan(host(b"9" * 5000), asked("web"))) == [FIRST]


def test_a_number_of_five_thousand_digits_in_login_defs_is_an_error_of_that_file() -> None:
    with pytest.raises((InvalidFileError, InvalidValueError), match=r"login\.defs"):
        make_plan(
            state(login_defs=b"SUB_UID_MAX %s\nSUB_GID_MAX %s\n" % (b"9" * 5000, b"9" * 5000)),
            asked("web"),
        )


# Where subordinate ids come from


@pytest.mark.parametrize(
    ("nsswitch", "words"),
    [
        (b"subid: sss\n", "nsswitch.conf:1: 'subid: sss'"),
        (b"passwd: files sss\nsubid:\tsss\n", "nsswitch.conf:2: 'subid: sss'"),
    ],
)
def test_a_host_that_does_not_read_the_files_is_refused(nsswitch: bytes, words: str) -> None:
    with pytest.raises(RefusedError, match=re.escape(words)):
        make_plan(state(nsswitch=nsswitch, plugin=PLUGIN), asked("web"))


def test_a_service_that_is_not_installed_is_named_and_the_files_are_used() -> None:
    plan = make_plan(state(nsswitch=b"\nsubid: sss\n"), asked("web"))
    [finding] = [f for f in plan.findings if f.code == "USN144"]
    assert finding.message.startswith("/etc/nsswitch.conf:2: 'subid: sss': libsubid_sss.so")
    assert plan.changes
    assert "USN144" not in codes(make_plan(state(nsswitch=b"subid: files sss\n"), asked("web")))


@pytest.mark.parametrize(
    ("nsswitch", "warned"),
    [
        (b"subid: files\n", False),
        (b"#subid: sss\n", False),
        (b"passwd: files sss\n", True),
        (b"", False),
    ],
    ids=["files", "commented out", "accounts from SSSD", "no line"],
)
def test_a_host_that_reads_the_files_is_served(nsswitch: bytes, warned: bool) -> None:
    plan = make_plan(state(nsswitch=nsswitch), asked("web"))
    assert bases(plan) == [FIRST]
    assert ("USN105" in codes(plan)) is warned


def test_odd_lines_are_kept_and_the_first_is_named() -> None:
    plan = make_plan(state(subuid=b"bob:1:1\nbob:0x1:1\nbob:x\n"), asked("web"))
    [finding] = [f for f in plan.findings if f.code == "USN108"]
    assert finding.message.startswith("/etc/subuid:2: ")
    assert finding.message.endswith(", and 1 more such lines")


# Names and owners


@pytest.mark.parametrize(
    "name", ["web", "a1", "A.b-c_d", "0x", "10", "web-1.example.org", "a" * 255]
)
def test_a_name_that_docker_takes_is_taken(name: str) -> None:
    plan = make_plan(state(), asked(name))
    assert plan.allocations[0].owner == f"usernsplan-{name}"
    assert added(plan, SUBUID) == f"usernsplan-{name}:589824:65536\n".encode()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a",
        "-a",
        ".a",
        "_a",
        "a b",
        "a:b",
        "a#b",
        "a/b",
        "web\n",
        "\nweb",
        "wéb",
        "a" * 256,
        "web:1:1\nroot",
        "a\0b",
    ],
)
def test_a_name_that_docker_does_not_take_is_refused(name: str) -> None:
    with pytest.raises(InvalidValueError, match="is not a container name"):
        make_plan(state(), asked("good", name))


def test_default_is_not_a_name_that_can_be_given() -> None:
    with pytest.raises(InvalidValueError, match="'default' is the name of Docker's own allocation"):
        make_plan(state(), asked("default"))


@pytest.mark.parametrize(
    "owner", ["bob", "Bob.x", "b$", "svc@example.org", "ünal", "b-+", "o" * 255, "1a", "0x10"]
)
def test_an_owner_whom_every_reader_takes_for_a_name_is_taken(owner: str) -> None:
    plan = make_plan(state(), asked("web", owner=owner))
    assert plan.allocations[0].owner == owner
    assert added(plan, SUBUID) == f"{owner}:589824:65536\n".encode()


@each(
    "owner",
    [
        *(
            "",
            ":",
            "a:b",
            "#a",
            "a#b",
            "a b",
            " a",
            "a ",
            "a\tb",
            "a\n",
            "\n",
            "a\rb",
            "a\0b",
            "a\x1bb",
            "a\u00a0b",
        ),
        *("a\u2028b", "+a", "-a", "o" * 256, "ü" * 128, "0", "1000", "4294967295", "٣", "a\udcff"),
    ],
)
def test_an_owner_who_would_break_a_line_or_is_a_number_is_refused(owner: str) -> None:
    with pytest.raises(InvalidValueError):
        make_plan(state(), asked("web", owner=owner))


def test_the_owner_that_we_would_choose_must_not_be_an_account() -> None:
    host = state(passwd=PASSWD + b"usernsplan-web:x:1001:1001::/:/bin/sh\n")
    with pytest.raises(RefusedError, match="'usernsplan-web' is an account"):
        make_plan(host, asked("web"))
    assert (
        make_plan(host, asked("web", owner="usernsplan-web")).allocations[0].owner
        == "usernsplan-web"
    )
    assert make_plan(host, asked("web", owner="somebody")).allocations[0].owner == "somebody"


def test_an_account_that_is_named_as_owner_gets_the_line() -> None:
    plan = make_plan(state(), asked("web", owner="alice"))
    assert added(plan, SUBUID) == b"alice:589824:65536\n"


@pytest.mark.parametrize(
    "lines",
    [
        b"alice:100000:65536\n",
        b"1000:100000:65536\n",
        b"bob:1:1\n1000:100000:0\n",
        b" alice:100000:65536\n",
        b"alice:0x186a0:65536\n",
        b"alice:broken\n",
        b"alice:589824:65536\n",
    ],
    ids=[
        "by name",
        "by uid",
        "by uid, empty",
        "by name, blank",
        "hexadecimal",
        "broken",
        "the same line",
    ],
)
@pytest.mark.parametrize("file", ["subuid", "subgid"])
def test_an_owner_who_has_lines_already_is_refused_because_readers_would_join_them(
    file: str, lines: bytes
) -> None:
    with pytest.raises(RefusedError, match=f"/etc/{file}:[12]: alice has"):
        make_plan(state(**in_one(file, lines)), asked("web", owner="alice"))


def test_the_uid_of_somebody_else_is_not_the_owners() -> None:
    plan = make_plan(state(**same_lines(b"1001:100000:65536\n")), asked("web", owner="alice"))
    assert added(plan, SUBUID) == b"alice:589824:65536\n"


def test_two_allocations_cannot_have_one_owner() -> None:
    host = state(
        **same_lines(b"bob:589824:65536\n"), allocations=[per_container("web", FIRST, owner="bob")]
    )
    with pytest.raises(RefusedError, match="the owner bob has the allocation 'web'"):
        make_plan(host, asked("db", owner="bob"))


@pytest.mark.parametrize(
    "request_", [asked("web", owner="bob"), asked("web", start=FIRST)], ids=["--owner", "--start"]
)
def test_what_is_about_one_name_cannot_be_said_of_two(request_: AllocateRequest) -> None:
    with pytest.raises(InvalidValueError, match="and there are several"):
        make_plan(state(), replace(request_, names=("web", "db")))
    assert len(make_plan(state(), replace(request_, names=("web", "web"))).allocations) == 1


# --start


def test_a_start_that_is_free_is_taken_though_a_lower_one_is_free_too() -> None:
    assert bases(make_plan(state(), asked("web", start=THIRD))) == [THIRD]


@pytest.mark.parametrize(
    ("strategy", "start", "words"),
    [
        (PerContainer(), FIRST + 1, "589825 is not a multiple of 65536"),
        (PerContainer(), 65536, "is outside the pool 589824-600100000"),
        (PerContainer(), 600047616, "is outside the pool 589824-600100000"),
        (PerContainer(size=117922), 599982080, "599982080-600100001 is outside the pool"),
        (SingleUid(), 1000000001, "1000000001 is not a multiple of 10000"),
        (SingleUid(), 2000000000, "is outside the pool 1000000000-1999999999"),
        (PerContainer(), -65536, "no such range of ids"),
        (PerContainer(), 4294967296, "no such range of ids"),
    ],
)
def test_a_start_that_no_allocation_could_have_is_refused(
    strategy: PerContainer | SingleUid, start: int, words: str
) -> None:
    with pytest.raises(InvalidValueError, match=re.escape(words)):
        make_plan(state(), asked("web", strategy=strategy, start=start))


def test_a_start_may_be_the_last_that_fits_into_the_pool() -> None:
    plan = make_plan(state(), asked("web", strategy=PerContainer(size=117921), start=599982080))
    assert plan.allocations[0].reserved_range == IdRange.parse("599982080-600100000")


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (state(subuid=b"bob:615536:3\n"), "615536-615538 is granted by a line of /etc/subuid"),
        (state(subgid=b"bob:655359:3\n"), "655359 is granted by a line of /etc/subgid"),
        (
            state(passwd=b"bob:x:589824:1::/:\n"),
            "589824 is an account or a group ('usernsplan whois ID' names it)",
        ),
        (
            state(namespaces=IdSet((IdRange(589823, 2),))),
            "589824 is mapped by a running user namespace",
        ),
        (state(allocations=[per_container("db", FIRST)]), "589824-655359 is allocated in"),
        (state(quarantined=[Quarantined("db", IdRange(FIRST, 1), "")]), "589824 is quarantined"),
    ],
    ids=["subuid", "subgid", "account", "namespace", "ledger", "quarantine"],
)
def test_a_start_that_is_not_free_is_refused_and_the_holder_named(
    host: HostState, words: str
) -> None:
    with pytest.raises(RefusedError, match=re.escape(words)):
        make_plan(host, asked("web", start=FIRST))


@pytest.mark.parametrize("name", ["web", "deb"])
def test_a_machines_range_is_for_the_container_of_its_name_alone(name: str) -> None:
    host = state(unlisted=(machine("deb", FIRST), machine("deb", FIRST, "gid")))
    if name == "deb":
        assert bases(make_plan(host, asked(name, start=FIRST))) == [FIRST]
        return
    whose = r"used by systemd-nspawn \(machine deb\), see /var/lib/machines/deb"
    with pytest.raises(RefusedError, match=whose):
        make_plan(host, asked(name, start=FIRST))


MACHINES = {
    "of its name": (machine("web", FIRST), (), True),
    "a recorded volume": (
        machine("deb", FIRST),
        (Volume("/var/lib/machines/deb", "web", ""),),
        True,
    ),
    "another's volume": (
        machine("deb", FIRST),
        (Volume("/var/lib/machines/deb", "db", ""),),
        False,
    ),
    "a stranger": (machine("deb", FIRST), (), False),
    "a mount": (Unlisted(MOUNT, "/mnt", "uid", FIRST, FIRST + 9, path="/mnt"), (), True),
    "a data root": (Unlisted(DOCKER, "it", "uid", FIRST, SECOND, path="/docker"), (), True),
}


@each("case", list(MACHINES))
def test_its_own_machine_keeps_no_container_from_its_range(case: str) -> None:
    taken, volumes, is_own = MACHINES[case]
    web = per_container("web", FIRST)
    released = state(
        unlisted=[taken], quarantined=[Quarantined("web", IdRange(FIRST, 65536), "", web)]
    )
    released = replace(released, ledger=replace(released.ledger, volumes=volumes))
    if case == "a mount":
        # It may be the container's or a stranger's.
        with pytest.raises(RefusedError, match="589824-589832 is used by idmapped mount"):
            make_plan(released, asked("web"))
    else:
        assert bases(make_plan(released, asked("web"))) == [FIRST if is_own else SECOND]

    lines = same_lines(b"usernsplan-web:589824:65536\n")
    adopted = state(unlisted=[taken], **lines)
    adopted = replace(adopted, ledger=replace(adopted.ledger, volumes=volumes))
    if is_own:
        assert bases(make_plan(adopted, asked("web", start=FIRST))) == [FIRST]
    else:
        with pytest.raises(RefusedError, match="systemd-nspawn"):
            make_plan(adopted, asked("web", start=FIRST))


@each(("name", "why"), [("web", "the request is for other ids"), ("deb", "machine deb")])
def test_its_own_machine_is_no_reason_why_a_range_does_not_come_back(name: str, why: str) -> None:
    web = per_container("web", FIRST)
    released = state(
        unlisted=[machine(name, FIRST)],
        quarantined=[Quarantined("web", IdRange(FIRST, 65536), "", web)],
    )
    plan = make_plan(released, asked("web", start=THIRD))
    [missed] = [finding for finding in plan.findings if finding.code == "USN132"]
    assert why in missed.message


def test_a_range_that_only_a_mount_or_a_data_root_shows_is_not_free_for_a_new_container() -> None:
    for program in (MOUNT, DOCKER):
        taken = [Unlisted(program, "it", "uid", FIRST, FIRST + 1, path="/it")]
        assert bases(make_plan(state(unlisted=taken), asked("web"))) == [SECOND]
        with pytest.raises(RefusedError, match=program):
            make_plan(state(unlisted=taken), asked("web", start=FIRST))


def test_a_start_in_a_reserved_range_is_refused_even_with_a_pool_around_it() -> None:
    request = asked("web", start=2147352576, pool=IdRange.parse("2147352576-2147483647"))
    with pytest.raises(RefusedError, match="is reserved for systemd"):
        make_plan(state(), request)


@pytest.mark.parametrize(
    ("subuid", "subgid", "changed"),
    [
        (
            b"bob:1:1\nusernsplan-web:589824:65536\n",
            b"usernsplan-web:589824:65536\nbob:1:1\n",
            set(),
        ),
        (b"usernsplan-web:589824:65536\n", b"", {SUBGID}),
    ],
    ids=["in both files", "in one of them"],
)
def test_lines_that_are_those_of_the_allocation_are_adopted_when_start_names_them(
    subuid: bytes, subgid: bytes, changed: set[str]
) -> None:
    plan = make_plan(state(subuid, subgid), asked("web", start=FIRST))
    assert bases(plan) == [FIRST]
    assert {c.path for c in plan.changes} == changed
    assert plan.ledger.add == plan.allocations


@pytest.mark.parametrize(
    "lines",
    [
        b"usernsplan-web:589824:65537\n",
        b"usernsplan-web:589824:65536\nusernsplan-web:589824:65536\n",
        b"usernsplan-web:589824:65536\nusernsplan-web:765536:1\n",
        b"usernsplan-web:0x90000:65536\n",
    ],
    ids=["another count", "twice", "with one more", "hexadecimal"],
)
def test_lines_that_are_not_exactly_those_of_the_allocation_are_not_adopted(lines: bytes) -> None:
    with pytest.raises(RefusedError, match="usernsplan-web has"):
        make_plan(state(**same_lines(lines)), asked("web", start=FIRST))


def test_a_line_without_its_line_end_is_adopted_too() -> None:
    plan = make_plan(state(**same_lines(b"usernsplan-web:589824:65536")), asked("web", start=FIRST))
    assert bases(plan) == [FIRST]


# Said again


REQUESTS = [
    pytest.param(asked("web", "db"), id="per-container"),
    pytest.param(asked("web", strategy=PerContainer(size=1000)), id="a size"),
    pytest.param(asked("web", owner="alice"), id="an owner"),
    pytest.param(asked("web", start=THIRD), id="a start"),
    pytest.param(asked("web", pool=IdRange.parse("1000000-2000000")), id="a pool"),
    pytest.param(asked("web", strategy=SingleUid()), id="single-uid"),
    pytest.param(
        asked("web", strategy=SingleUid(block=1, container_id=33)), id="single-uid, packed"
    ),
    pytest.param(asked("web", "db", strategy=Shared()), id="shared"),
    pytest.param(asked("web", strategy=Shared(max=4294967294)), id="shared, ledger only"),
    pytest.param(asked("web", strategy=Shared(identity=True)), id="identity"),
    pytest.param(asked(), id="Docker"),
    pytest.param(asked(strategy=Shared()), id="Docker, shared"),
    pytest.param(asked(strategy=Shared(identity=True)), id="Docker, identity"),
    pytest.param(asked(strategy=SingleUid()), id="Docker, single-uid"),
    pytest.param(asked(owner="remapper"), id="Docker, an owner"),
    pytest.param(asked("web", "db", daemon="db"), id="Docker by name"),
    pytest.param(asked("web", "db", daemon="db", strategy=Shared()), id="Docker by name, shared"),
    pytest.param(asked(daemon_config=False), id="Docker, its file left alone"),
]


@pytest.mark.parametrize("request_", REQUESTS)
def test_the_same_words_again_change_nothing(request_: AllocateRequest) -> None:
    host = state(**same_lines(b"bob:100000:65536\n"), daemon_json=b'{"debug": true}\n')
    first = make_plan(host, request_)
    assert first.changed
    again = make_plan(carried_out(host, first), request_)
    assert not again.changed
    assert (again.changes, again.account_commands, again.unfinished) == ((), (), False)
    assert again.allocations == tuple(replace(a, event=1) for a in first.allocations)


@pytest.mark.parametrize("request_", REQUESTS)
def test_once_the_accounts_are_made_the_plan_is_still_the_one_that_was_shown(
    request_: AllocateRequest,
) -> None:
    host = state(daemon_json=b'{"debug": true}\n')
    shown = make_plan(host, request_)
    done = make_plan(_with_accounts_made(host, shown), request_)
    assert (done.changes, done.ledger, done.account_commands) == (shown.changes, shown.ledger, ())


def _with_accounts_made(host: HostState, plan: Plan) -> HostState:
    return replace(host, accounts=carried_out(host, plan).accounts)


def test_a_new_name_beside_a_known_one_adds_only_the_new() -> None:
    host = carried_out(state(), make_plan(state(), asked("web")))
    plan = make_plan(host, asked("db", "web"))
    assert [a.name for a in plan.allocations] == ["db", "web"]
    assert bases(plan) == [SECOND, FIRST]
    assert [a.name for a in plan.ledger.add] == ["db"]
    assert added(plan, SUBUID) == b"usernsplan-db:655360:65536\n"


def test_a_name_given_twice_is_one_allocation() -> None:
    plan = make_plan(state(), asked("web", "db", "web"))
    assert [a.name for a in plan.allocations] == ["web", "db"]


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (asked("web"), asked("web", strategy=PerContainer(size=1000))),
        (asked("web", strategy=PerContainer(size=1000)), asked("web")),
        (asked("web"), asked("web", owner="bob")),
        (asked("web"), asked("web", start=SECOND)),
        (asked("web", strategy=SingleUid()), asked("web", strategy=SingleUid(block=1))),
        (asked("web", strategy=SingleUid()), asked("web", strategy=SingleUid(container_id=1))),
        (asked("web", strategy=Shared()), asked("web", strategy=Shared(dockerroot=3))),
        (asked("web", strategy=Shared()), asked("web", strategy=Shared(max=65000))),
        (asked("web", strategy=Shared()), asked("web", strategy=Shared(identity=True))),
        (asked(strategy=Shared()), asked(strategy=Shared(dockerroot=3))),
        (asked(), asked(strategy=PerContainer(size=1000))),
        (asked("web", strategy=Shared()), asked("web", strategy=Shared(), start=FIRST)),
    ],
    ids=[
        *(
            "smaller",
            "larger",
            "owner",
            "start",
            "block",
            "container id",
            "dockerroot",
            "max",
            "identity",
        ),
        *("Docker's dockerroot", "Docker's size", "a start for what has none"),
    ],
)
def test_the_same_name_with_other_words_is_refused(
    first: AllocateRequest, then: AllocateRequest
) -> None:
    host = carried_out(state(), make_plan(state(), first))
    with pytest.raises(RefusedError, match="is allocated already") as caught:
        make_plan(host, then)
    # remap changes a range, its size and its passes; all else has to be released.
    is_remap = isinstance(then.strategy, PerContainer) and then.owner is None
    assert ("usernsplan remap" if is_remap else "release") in caught.value.hint


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (PerContainer(), SingleUid()),
        (SingleUid(), Shared()),
        (Shared(), PerContainer()),
        (Shared(), SingleUid()),
        (PerContainer(), Shared(identity=True)),
    ],
)
@pytest.mark.parametrize("name", ["web", "db"])
def test_one_host_has_one_strategy(
    first: PerContainer | SingleUid | Shared, then: PerContainer | SingleUid | Shared, name: str
) -> None:
    host = carried_out(state(), make_plan(state(), asked("web", strategy=first)))
    with pytest.raises(
        RefusedError,
        match=f"this host's strategy is {first.name}, and a host has only one strategy: web",
    ):
        make_plan(host, asked(name, strategy=then))


def test_another_strategy_can_be_chosen_once_all_is_released() -> None:
    host = carried_out(state(), make_plan(state(), asked("web")))
    host = carried_out(host, make_release(host, ReleaseRequest(("web",))))
    assert make_plan(host, asked("web", strategy=Shared())).changed


# Lines that went away, or into another order


@pytest.mark.parametrize(
    ("subuid", "subgid"),
    [
        (b"bob:1:1\n", b"bob:1:1\nusernsplan-web:589824:65536\n"),
        (b"usernsplan-web:589824:65536\nbob:1:1\n", b"bob:1:1\n"),
        (b"bob:1:1\n", b"bob:1:1\n"),
    ],
    ids=["from subuid", "from subgid", "from both"],
)
def test_lines_that_somebody_took_out_are_put_back(subuid: bytes, subgid: bytes) -> None:
    host = state(subuid, subgid, allocations=[per_container("web", FIRST)])
    plan = make_plan(host, asked("web"))
    missing = {p for p, raw in ((SUBUID, subuid), (SUBGID, subgid)) if b"web" not in raw}
    assert {c.path: c.after for c in plan.changes} == dict.fromkeys(
        missing, b"bob:1:1\nusernsplan-web:589824:65536\n"
    )
    assert "USN109" in codes(plan)
    assert not plan.ledger.add
    assert not make_plan(carried_out(host, plan), asked("web")).changed


def test_another_name_does_not_repair_what_was_not_named() -> None:
    host = state(allocations=[per_container("web", FIRST)])
    plan = make_plan(host, asked("db"))
    assert added(plan, SUBUID) == b"usernsplan-db:655360:65536\n"


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (
            state(b"bob:615536:5\n"),
            "615536-615540 of its range is now granted by a line of /etc/subuid",
        ),
        (
            state(subgid=b"bob:0x90000:5\n"),
            "589824-589828 of its range is now granted by a line of /etc/subgid",
        ),
        (state(passwd=b"bob:x:655359:1::/:\n"), "655359 of its range is now an account"),
    ],
    ids=["a line", "a hexadecimal line", "an account"],
)
def test_lines_that_somebody_took_out_are_not_put_back_over_somebody_else(
    host: HostState, words: str
) -> None:
    ledger = state(allocations=[per_container("web", FIRST)]).ledger
    with pytest.raises(RefusedError, match=re.escape(words)):
        make_plan(replace(host, ledger=ledger), asked("web"))


@pytest.mark.parametrize(
    "lines",
    [
        b"usernsplan-web:589824:65535\n",
        b"usernsplan-web:589824:65536\nusernsplan-web:765536:1\n",
        b"usernsplan-web:589824:65536\nusernsplan-web:589824:65536\n",
        b"usernsplan-web:0x90000:65536\n",
        b"usernsplan-web:broken\n",
    ],
    ids=["another count", "one more", "twice", "hexadecimal", "broken"],
)
def test_other_lines_of_our_owner_are_not_overwritten(lines: bytes) -> None:
    with pytest.raises(RefusedError, match="has other lines than those of 'web'"):
        make_plan(
            state(**same_lines(lines), allocations=[per_container("web", FIRST)]), asked("web")
        )


def test_a_line_of_ours_that_lost_only_its_line_end_is_still_ours() -> None:
    host = state(
        **same_lines(b"bob:1:1\nusernsplan-web:589824:65536"),
        allocations=[per_container("web", FIRST)],
    )
    plan = make_plan(host, asked("web"))
    assert plan.allocations == host.ledger.allocations
    assert all(c.after == b"bob:1:1\nusernsplan-web:589824:65536\n" for c in plan.changes)


def test_shared_lines_without_an_order_of_their_own_are_left_where_they_are() -> None:
    # Two lines of one owner that Docker does not read: 2 before 3 is also the order of a sorted file.
    lines = b"usernsplan-web:2:1\nusernsplan-web:3:65533\nbob:100000:65536\n"
    host = state(**same_lines(lines), allocations=[shared("web", (0, 2, 1), (3, 3, 65533))])
    assert not make_plan(host, asked("web", strategy=Shared())).changed


DOCKER_LINES = b"dockremap:2:1\ndockremap:589824:2\ndockremap:3:65533\n"
SORTED_LINES = b"dockremap:2:1\ndockremap:3:65533\nbob:100000:65536\ndockremap:589824:2\n"
DOCKER_SHARED = shared(
    "default",
    (0, 2, 1),
    (1, 589824, 2),
    (3, 3, 65533),
    owner="dockremap",
    reserved_range=IdRange(589824, 2),
)


def test_dockers_shared_lines_have_the_filler_in_the_middle() -> None:
    plan = make_plan(state(**same_lines(b"bob:100000:65536\n")), asked(strategy=Shared()))
    assert added(plan, SUBUID) == DOCKER_LINES
    assert added(plan, SUBGID) == DOCKER_LINES
    assert plan.allocations == (DOCKER_SHARED,)
    assert "USN103" in codes(plan)


@pytest.mark.parametrize(
    ("lines", "filler"),
    [(b"bob:589824:1\n", 589825), (b"bob:589825:1\n", 589826), (b"bob:589826:1\n", 589824)],
    ids=["the first is taken", "a hole one id short", "a hole that fits exactly"],
)
def test_the_filler_is_the_lowest_free_pair(lines: bytes, filler: int) -> None:
    plan = make_plan(state(subgid=lines), asked(strategy=Shared()))
    assert plan.allocations[0].reserved_range == IdRange(filler, 2)
    assert added(plan, SUBUID) == b"dockremap:2:1\ndockremap:%d:2\ndockremap:3:65533\n" % filler


@pytest.mark.parametrize(
    ("dockerroot", "lines"),
    [
        (1, b"dockremap:1:1\ndockremap:589824:1\ndockremap:2:65534\n"),
        (400, b"dockremap:400:1\ndockremap:589824:400\ndockremap:401:65135\n"),
        (65534, b"dockremap:65534:1\ndockremap:589824:65534\ndockremap:65535:1\n"),
    ],
)
def test_the_filler_is_as_long_as_dockerroot_is_high(dockerroot: int, lines: bytes) -> None:
    plan = make_plan(state(), asked(strategy=Shared(dockerroot=dockerroot)))
    assert added(plan, SUBUID) == lines
    assert plan.allocations[0].mapping.uids.is_end_to_end()


def test_lines_that_useradd_has_sorted_are_put_back_in_their_order() -> None:
    pointed = b'{"userns-remap": "dockremap"}'
    host = state(
        SORTED_LINES, DOCKER_LINES, allocations=[DOCKER_SHARED], daemon_json=pointed, **REMAPPED
    )
    plan = make_plan(host, asked(strategy=Shared()))
    assert [(c.path, c.before, c.after) for c in plan.changes] == [
        (SUBUID, SORTED_LINES, b"bob:100000:65536\n" + DOCKER_LINES)
    ]
    assert "USN109" in codes(plan)
    assert not make_plan(carried_out(host, plan), asked(strategy=Shared())).changed


def test_a_filler_that_went_away_is_put_back_in_the_middle() -> None:
    lines = b"dockremap:2:1\nbob:100000:65536\ndockremap:3:65533\n"
    host = state(**same_lines(lines), allocations=[DOCKER_SHARED])
    plan = make_plan(host, asked(strategy=Shared(), daemon_config=False))
    assert {c.after for c in plan.changes} == {b"bob:100000:65536\n" + DOCKER_LINES}


def test_a_map_past_65535_cannot_be_dockers() -> None:
    with pytest.raises(
        InvalidValueError, match="65536 is too large: Docker reads its map"
    ) as caught:
        make_plan(state(), asked(strategy=Shared(max=65536)))
    assert caught.value.option == "max"


def test_every_path_in_a_message_lies_under_the_root() -> None:
    host = state(b"bob:0x1:1\n", login_defs=b"SUB_UID_COUNT x\n", root="/srv/tree")
    with pytest.raises(InvalidFileError, match=r"^/srv/tree/etc/login\.defs:1: "):
        make_plan(host, asked("web"))
    plan = make_plan(host, asked("web", pool=WIDE_POOL))
    assert [c.path for c in plan.changes] == [SUBUID, SUBGID]
    assert all(f.message.startswith("/srv/tree/etc/") for f in plan.findings)
    assert {f.code for f in plan.findings} == {"USN108", "USN112"}


def test_a_command_that_is_left_to_do_can_be_pasted_whatever_the_root() -> None:
    host = replace(state(can_add_accounts=False), layout=Layout("/srv/my tree"))
    [command] = [step for step in make_plan(host, asked()).next_steps if step.startswith("useradd")]
    assert shlex.split(command)[:3] == ["useradd", "--prefix", "/srv/my tree"]


def _of_lxc(name: str, start: int, count: int = 65536, grantee: str = "root") -> Unlisted:
    place = f"/var/lib/lxc/{name}/config"
    return Unlisted(
        "LXC", f"container {name}", "uid", start, start + count, name, place, 7, grantee
    )


@each(
    ("unlisted", "told"),
    [
        (
            _of_lxc("web", 100000),
            "/var/lib/lxc/web/config:7: the container 'web' maps 100000-165535",
        ),
        # The first id of the range is the allocation's; the last one is not.
        (_of_lxc("web", 589824, 65537), "maps 589824-655360"),
        (_of_lxc("web", 589824), ""),
        (_of_lxc("web", 589830, 10), ""),
        (_of_lxc("web", 1000, 1), ""),
        (_of_lxc("db", 100000), ""),
        (_of_lxc("web", 100000, grantee="alice"), ""),
    ],
)
def test_a_container_of_lxc_that_has_another_map_is_named(unlisted: Unlisted, told: str) -> None:
    lines = b"usernsplan-web:589824:65536\nroot:589824:65536\n"
    web = replace(per_container("web", 589824), extra_owners=("root",))
    host = replace(state(allocations=[web], **same_lines(lines)), unlisted=(unlisted,))
    found = [
        f.message
        for f in make_plan(host, asked("web", engines=("lxc",))).findings
        if f.code == "USN138"
    ]
    assert [told in message for message in found] == [True] * bool(told)


def test_an_allocation_that_is_not_for_lxc_has_nothing_to_do_with_its_containers() -> None:
    host = replace(state(), unlisted=(_of_lxc("web", 100000),))
    plan = make_plan(host, asked("web", engines=("podman",)))
    assert "USN138" not in {finding.code for finding in plan.findings}


def test_a_range_that_a_container_of_another_name_maps_is_not_given_to_root() -> None:
    host = replace(state(), unlisted=(_of_lxc("web", 589824),))
    place = r"used by LXC \(container web\), see /var/lib/lxc/web/config:7"
    with pytest.raises(RefusedError, match=f"589824-655359 is not free: 589824-655359 is {place}"):
        make_plan(host, asked("db", engines=("lxc",), start=589824))
    # The container itself is no stranger.
    assert (
        make_plan(host, asked("web", engines=("lxc",), start=589824))
        .allocations[0]
        .mapping.uids.to_host(0)
        == 589824
    )


def test_a_line_of_an_account_is_adopted_whatever_its_own_containers_map() -> None:
    host = replace(
        state(**same_lines(b"alice:100000:65536\n")),
        unlisted=(_of_lxc("box", 100000, grantee="alice"),),
    )
    plan = make_plan(host, asked("mine", owner="alice", start=100000))
    assert plan.allocations[0].mapping.uids.to_host(0) == 100000
