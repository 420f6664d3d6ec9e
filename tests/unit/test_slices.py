"""Slices of lines that somebody has already: which ids they get, when they are refused, what a plan says of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.each import each
from tests.unit.desired import again, decided
from tests.unit.states import (
    GROUP,
    PASSWD,
    asked,
    carried_out,
    in_one,
    per_container,
    same_lines,
    state,
)
from usernsplan import IdMap, IdRange, Mapping, PerContainer, ReleaseRequest, make_plan
from usernsplan.audit import Facts, check
from usernsplan.engines import ENGINES, render, verdict
from usernsplan.engines.base import RenderContext
from usernsplan.errors import (
    InvalidValueError,
    PoolExhaustedError,
    RefusedError,
    UsernsplanError,
)
from usernsplan.holdings import own_ids
from usernsplan.ids import IdSet
from usernsplan.mapping import Extent, Pass
from usernsplan.model import Allocation, LedgerChange, Quarantined, Reservation, Unlisted
from usernsplan.planner.recovery import as_changed
from usernsplan.planner.release import make_release

if TYPE_CHECKING:
    from usernsplan import HostState

ALICE = b"alice:100000:65536\n"
HERS = same_lines(ALICE)
ROOTS = b"root:1000000:1000000000\n"


def slices(
    host: HostState, *names: str, size: int = 1000, within: str = "alice", **words: Any
) -> dict[str, Allocation]:
    """The slices that a plan makes. It changes no file, and makes no account."""
    plan = make_plan(host, asked(*names, strategy=PerContainer(size), within=within, **words))
    assert (plan.changes, plan.account_commands, plan.records) == ((), (), ())
    return {a.name: a for a in plan.ledger.add}


def ranges(host: HostState, *names: str, **words: Any) -> list[tuple[str, str]]:
    """The host uids and gids of each slice."""
    found = slices(host, *names, **words).values()
    return [(str(own_ids(a, "uid")), str(own_ids(a, "gid"))) for a in found]


def a_slice(name: str, start: int, size: int = 1000, within: str = "alice") -> Allocation:
    """What the ledger holds of a slice."""
    return replace(
        per_container(name, start, size, within), published="none", in_files=False, within=within
    )


def codes(host: HostState, *names: str, **words: Any) -> list[str]:
    plan = make_plan(host, asked(*names, **words))
    return [one.code for one in plan.findings]


# The last ids that are free: the same uids and gids if there is such a piece.
@each(
    ("subuid", "subgid", "size", "expected"),
    [
        ("alice:100000:65536\n", "alice:100000:65536\n", 1000, ("164536-165535",) * 2),
        ("alice:100000:65536\n", "alice:100000:65536\n", 65536, ("100000-165535",) * 2),
        ("alice:100000:65536\n", "alice:100000:65536\n", 1, ("165535",) * 2),
        # Her uid counts as her name does.
        ("1000:100000:65536\n", "alice:100000:65536\n", 1000, ("164536-165535",) * 2),
        # They have 130000-165535 in common, and that is where a slice of both begins.
        ("alice:100000:65536\n", "alice:130000:65536\n", 35536, ("130000-165535",) * 2),
        ("alice:100000:65536\n", "alice:130000:65536\n", 35537, ("129999-165535", "159999-195535")),
        ("alice:100000:10\n", "alice:200000:20\n", 10, ("100000-100009", "200010-200019")),
        # Lines that follow each other are one for newuidmap; others are not.
        ("alice:100000:10\nalice:100010:10\n", "alice:100000:20\n", 20, ("100000-100019",) * 2),
        ("alice:100010:10\nalice:100000:10\n", "alice:100000:20\n", 15, ("100005-100019",) * 2),
        ("alice:100000:10\nalice:100011:9\n", "alice:100000:20\n", 10, ("100000-100009",) * 2),
        # Single ids of the host, which her lines pass through, are not for slices.
        (
            "alice:1000:1\nalice:100000:5\n",
            "alice:104:1\nalice:100000:5\n",
            5,
            ("100000-100004",) * 2,
        ),
        ("# hers\n\nalice:100000:5\n", "alice:100000:5\nbob:1:0\n", 5, ("100000-100004",) * 2),
    ],
)
def test_a_slice_gets_the_last_ids_of_the_lines(
    subuid: str, subgid: str, size: int, expected: tuple[str, str]
) -> None:
    host = state(subuid.encode(), subgid.encode())
    assert ranges(host, "web", size=size) == [expected]


def test_what_the_ledger_has_of_a_slice() -> None:
    [web] = slices(state(**HERS), "web").values()
    ids = IdMap.of((0, 164536, 1000))
    assert web == Allocation(
        "web",
        "alice",
        "per-container",
        Mapping(ids, ids),
        IdRange(164536, 1000),
        in_files=False,
        within="alice",
    )
    [web] = slices(state(ALICE, b"alice:200000:65536\n"), "web").values()
    assert web.reserved_range is None
    assert web.mapping == Mapping(ids, IdMap.of((0, 264536, 1000)))


TAKEN = {
    "a slice": {"allocations": [a_slice("db", 165000, 10)]},
    "a former slice": {
        "quarantined": [
            Quarantined("db", IdRange(165000, 10), "", a_slice("db", 165000, 10), event=1)
        ]
    },
    "an account": {"passwd": PASSWD + b"carl:x:165009:1000::/:/bin/sh\n"},
    "a group": {"group": GROUP + b"carl:x:165009:\n"},
    "a container of hers": {
        "unlisted": [
            Unlisted("LXC", "container c", k, 165000, 165010, "c", "/home/alice/c", 1, "alice")
            for k in ("uid", "gid")
        ]
    },
    "what runs": {"namespaces": IdSet((IdRange(165000, 10),))},
}


@each("what", TAKEN)
def test_ids_that_somebody_has_are_left_out(what: str) -> None:
    # Of 165000-165535 the last ones are free, and fewer than 600.
    host = state(**HERS, **TAKEN[what])  # type: ignore[arg-type]
    assert ranges(host, "web", size=526) == [("165010-165535",) * 2]
    is_account = what in {"an account", "a group"}
    last = 165008 if is_account else 164999
    assert ranges(host, "web", size=600) == [(f"{last - 599}-{last}",) * 2]


def test_a_reservation_is_left_out_and_ids_that_do_not_exist_here() -> None:
    host = state(**HERS)
    reserved = LedgerChange(reserve=(Reservation(IdRange(165000, 10), "others"),))
    assert ranges(as_changed(host, {}, reserved), "web", size=600) == [("164400-164999",) * 2]
    here = IdSet((IdRange(0, 165000),))
    assert ranges(replace(host, exists=(here, here)), "web", size=600) == [("164400-164999",) * 2]


def test_a_container_of_hers_of_that_name_may_run_there_already() -> None:
    mine = [
        Unlisted("LXC", "container web", kind, 165000, 165010, "web", "/home/alice/c", 1, "alice")
        for kind in ("uid", "gid")
    ]
    host = state(**HERS, unlisted=mine)
    assert ranges(host, "web", size=10, start=165000) == [("165000-165009",) * 2]
    with pytest.raises(RefusedError, match="165000-165009 is not free: it is used by LXC"):
        slices(host, "db", size=10, start=165000)


def test_running_namespaces_and_conventions_give_way_where_there_is_nothing_else() -> None:
    # Podman's own namespace has all of her ids while any container of hers runs.
    host = state(**HERS, namespaces=IdSet((IdRange(100000, 65536),)))
    assert ranges(host, "web") == [("164536-165535",) * 2]
    assert "USN168" in codes(host, "web", within="alice")
    assert "USN168" not in codes(state(**HERS), "web", within="alice")
    # 524288-589823 is snapd's, and useradd gives it out all the same.
    host = state(**same_lines(b"alice:558752:65536\n"))
    assert ranges(host, "web", size=34464) == [("589824-624287",) * 2]
    assert ranges(host, "web", size=34465) == [("589823-624287",) * 2]


def test_several_slices_are_packed_and_each_name_has_the_same_again() -> None:
    host = state(**HERS)
    words = {"size": 30000}
    assert ranges(host, "web", "db", **words) == [
        ("135536-165535",) * 2,
        ("105536-135535",) * 2,
    ]
    done = carried_out(
        host, make_plan(host, asked("web", strategy=PerContainer(9), within="alice"))
    )
    same = make_plan(done, asked("web", strategy=PerContainer(9), within="alice"))
    assert not same.changed
    assert [a.name for a in same.allocations] == ["web"]


@each(
    ("names", "words", "message", "fits"),
    [
        (
            ("web",),
            {"size": 65537},
            "no room for 'web' of 65537 ids",
            "web --within alice --size 65536",
        ),
        (
            ("web", "db"),
            {"size": 65536},
            "no room for the 2 slices of 65536 ids each: the largest free piece has 65536",
            "web db --within alice --size 32768",
        ),
        (
            ("a1", "b1", "c1"),
            {"size": 30000},
            "the 3 slices",
            "a1 b1 c1 --within alice --size 21845",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_what_does(
    names: tuple[str, ...], words: dict[str, Any], message: str, fits: str
) -> None:
    host = state(**HERS)
    with pytest.raises(PoolExhaustedError, match=message) as error:
        slices(host, *names, **words)
    command = f"usernsplan allocate --strategy per-container {fits}"
    assert error.value.hint == f"this fits: {command}"
    size = int(fits.rsplit(maxsplit=1)[-1])
    assert len(slices(host, *names, size=size)) == len(names)
    with pytest.raises(PoolExhaustedError):
        slices(host, *names, size=size + 1)


def test_full_lines_have_no_size_that_fits() -> None:
    full = state(**HERS, allocations=[a_slice("db", 100000, 65536)])
    with pytest.raises(PoolExhaustedError, match="the largest free piece has 0") as error:
        slices(full, "web", size=1)
    assert "usermod --add-subuids FIRST-LAST" in error.value.hint


@each(
    ("lines", "within", "error", "message"),
    [
        (
            same_lines(b""),
            "alice",
            RefusedError,
            "alice has no line in /etc/subuid and /etc/subgid",
        ),
        (HERS, "bob", RefusedError, "bob has no line"),
        (in_one("subuid", ALICE), "alice", RefusedError, "alice has no line in /etc/subgid$"),
        (in_one("subgid", ALICE), "alice", RefusedError, "alice has no line in /etc/subuid$"),
        (same_lines(b"alice:1000:1\n"), "alice", RefusedError, "alice has no line"),
        (
            same_lines(b"alice:0x186a0:9\n"),
            "alice",
            RefusedError,
            "/etc/subuid:1: readers do not agree",
        ),
        (
            same_lines(ALICE + b" alice:5:9\n"),
            "alice",
            RefusedError,
            "/etc/subuid:2: readers do not",
        ),
        (
            same_lines(ALICE + b"alice:165535:9\n"),
            "alice",
            RefusedError,
            "two lines of alice grant 165535",
        ),
        (
            same_lines(ALICE + b"bob:165535:9\n"),
            "alice",
            RefusedError,
            "/etc/subuid:2: bob has 165535",
        ),
        (same_lines(b"alice:4294967000:999\n"), "alice", RefusedError, "an id that cannot exist"),
        (
            same_lines(b"kubelet:100000:65536\n"),
            "kubelet",
            RefusedError,
            "the kubelet gives its pods",
        ),
        (HERS, "1000", InvalidValueError, "would be read as a uid"),
        (HERS, "al:ice", InvalidValueError, "cannot be the owner of a line"),
    ],
)
def test_lines_on_which_no_slice_can_stand(
    lines: dict[str, bytes], within: str, error: type[UsernsplanError], message: str
) -> None:
    with pytest.raises(error, match=message) as told:
        slices(state(**lines), "web", within=within)  # type: ignore[arg-type]
    assert told.value.hint
    assert (told.value.allocation, told.value.option) == ("web", "within")


def test_the_lines_of_a_service_are_not_in_the_files() -> None:
    host = state(**HERS, nsswitch=b"subid: sss\n", plugin="/usr/lib/libsubid_sss.so")
    with pytest.raises(RefusedError, match="that service has the subordinate ids of alice"):
        slices(host, "web")


def test_remedies_are_commands() -> None:
    with pytest.raises(RefusedError) as error:
        slices(state(**HERS), "web", within="alicia")
    assert error.value.hint == "did you mean alice?"
    with pytest.raises(RefusedError) as error:
        slices(state(), "web")
    assert "'usernsplan allocate --strategy per-container alice --owner alice'" in error.value.hint
    made = make_plan(state(), asked("alice", owner="alice"))
    assert slices(carried_out(state(), made), "web")
    with pytest.raises(RefusedError) as error:
        slices(state(**in_one("subuid", ALICE)), "web")
    assert "usermod --add-subgids 100000-165535 alice" in error.value.hint


@each(
    ("words", "message"),
    [
        ({"owner": "bob"}, "a slice has no owner of its own"),
        ({"pool": IdRange(1 << 20, 1 << 20)}, "not from a pool"),
        ({"daemon": "web"}, "Docker takes all lines of its user"),
        ({"names": ()}, "--within needs a name"),
    ],
)
def test_options_that_contradict_it(words: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        make_plan(state(**HERS), replace(asked("web", within="alice"), **words))  # type: ignore[arg-type]


def test_only_per_container_has_slices() -> None:
    from usernsplan import Shared, SingleUid  # noqa: PLC0415

    for strategy in (SingleUid(), Shared()):
        with pytest.raises(InvalidValueError, match="a slice is a range of one container"):
            make_plan(state(**HERS), asked("web", strategy=strategy, within="alice"))


# The owner of the lines may have an allocation, whose lines they are: slices lie in it on purpose.
def test_slices_lie_in_an_adopted_allocation() -> None:
    hers = replace(per_container("alice", 100000, owner="alice"), published="none")
    host = state(**HERS, allocations=[hers])
    assert ranges(host, "web") == [("164536-165535",) * 2]
    # Her own container has another name, and root's containers never are all of root's lines.
    host = state(**HERS, allocations=[replace(hers, name="box")])
    assert ranges(host, "web") == [("164536-165535",) * 2]
    plan = make_plan(host, asked("web", strategy=PerContainer(9), within="alice"))
    assert "'box' still have all their ids" in next(
        one.message for one in plan.findings if one.code == "USN167"
    )


def test_lines_that_the_same_plan_grants_count() -> None:
    text = (
        "version: 1\nstrategy: per-container\nengines: []\ncontainers:\n"
        "- {name: alice, owner: alice, start: 655360}\n- {name: web, within: alice, size: 9}\n"
    )
    desired = decided(state(), text)
    found = {a.name: a.reserved_range for a in desired.allocate.ledger.add}
    assert found == {"alice": IdRange(655360, 65536), "web": IdRange(720887, 9)}


def test_root_has_lines_for_many() -> None:
    # Those of root's containers are theirs; lxd has the same range as root.
    box = replace(per_container("box", 589824), extra_owners=("root",), split_owners=("root",))
    lines = (
        b"usernsplan-box:589824:65536\nroot:589824:32768\nroot:622592:32768\n"
        b"root:1000:1\nlxd:1000000:1000000000\n"
    )
    host = state(**same_lines(ROOTS + lines), allocations=[box])
    assert ranges(host, "web", size=65536, within="root") == [("1000934464-1000999999",) * 2]
    assert [one.code for one in check(Facts(host)) if one.severity == "error"] == []
    only = state(**same_lines(lines), allocations=[box])
    with pytest.raises(PoolExhaustedError, match="the largest free piece has 0"):
        slices(only, "web", size=1, within="root")
    # A plain instance of Incus has all of root's ids, and uses the first ones.
    plain = [
        Unlisted("Incus", "instance c", k, 1000000, 1001000000, "c", "", 0, "root")
        for k in ("uid", "gid")
    ]
    one = plain[0]._replace(start=1000990000, stop=1000999999, container="d")
    host = state(**same_lines(ROOTS), unlisted=[*plain, one])
    assert ranges(host, "web", size=65536, within="root") == [("1000924464-1000989999",) * 2]


def test_pools_of_others() -> None:
    host = state(**same_lines(b"containers:1000000000:1000000\npool:2000000:100\n"))
    assert ranges(host, "web", within="containers") == [("1000999000-1000999999",) * 2]
    assert ranges(host, "web", size=100, within="pool") == [("2000000-2000099",) * 2]
    assert "USN169" in codes(host, "web", strategy=PerContainer(100), within="containers")
    assert {"USN167"} <= set(codes(host, "web", strategy=PerContainer(100), within="pool"))


def test_no_pool_of_an_engine_comes_with_a_slice() -> None:
    host = replace(state(**HERS), engines=frozenset({"podman", "kubernetes", "lxc"}))
    assert list(slices(host, "web")) == ["web"]


@each(
    ("words", "message"),
    [
        ({"start": 165000}, None),
        ({"start": 99999}, "99999 is in no line of alice in /etc/subuid"),
        ({"start": 164537}, "165536 is in no line of alice"),
        ({"start": 100000}, "100500-100999 is not free: it is allocated in"),
        ({"start": 150000}, "150000 is not free: it is an account or a group"),
    ],
)
def test_a_start_that_is_asked_for(words: dict[str, Any], message: str | None) -> None:
    host = state(
        **HERS,
        allocations=[a_slice("db", 100500, 1000)],
        group=GROUP + b"carl:x:150000:\n",
    )
    if message is None:
        assert ranges(host, "web", size=10, **words) == [("165000-165009",) * 2]
        return
    with pytest.raises(RefusedError, match=message) as error:
        slices(host, "web", **words)
    assert error.value.option == "start"


# What is there is what the request describes, or the request is refused.
@each(
    ("words", "option"),
    [
        ({}, ""),
        ({"start": 164536}, ""),
        ({"start": 164535}, "start"),
        ({"size": 999}, "size"),
        ({"within": ""}, "within"),
        ({"within": "bob"}, "within"),
    ],
)
def test_an_existing_slice_is_not_changed(words: dict[str, object], option: str) -> None:
    lines = same_lines(ALICE + b"bob:300000:65536\n")
    host = state(**lines, allocations=[a_slice("web", 164536)])
    size, more = int(words.get("size", 1000)), {k: v for k, v in words.items() if k != "size"}  # type: ignore[call-overload]
    request = replace(asked("web", strategy=PerContainer(size), within="alice"), **more)  # type: ignore[arg-type]
    if not option:
        assert not make_plan(host, request).changed
        return
    with pytest.raises(RefusedError, match="'web' is allocated already") as error:
        make_plan(host, request)
    assert error.value.option == option


def test_an_allocation_of_its_own_does_not_become_a_slice() -> None:
    host = carried_out(state(**HERS), make_plan(state(**HERS), asked("web")))
    with pytest.raises(RefusedError, match="'web' is allocated already, with lines"):
        slices(host, "web")


# A release quarantines the ids, which stay in her lines, and the same name gets them again.
@each("subgid", [ALICE, b"alice:200000:65536\n"])
def test_a_released_slice_comes_back(subgid: bytes) -> None:
    host = state(ALICE, subgid)
    plan = make_plan(host, asked("web", "db", strategy=PerContainer(1000), within="alice"))
    done = carried_out(host, plan)
    release = make_release(done, ReleaseRequest(("web",)))
    assert release.changes == ()
    gone = carried_out(done, release)
    before = next(a for a in done.ledger.allocations if a.name == "web")
    had = {q.reserved_range for q in gone.ledger.quarantined}
    assert had == {e.host_range for kind in ("uid", "gid") for e in before.mapping[kind]}
    assert not [one for one in check(Facts(gone)) if one.code == "USN010"]

    # Another name gets other ids, another size too; and the name its own.
    assert ranges(gone, "app")[0][0] == "162536-163535"
    assert ranges(gone, "web", size=999)[0][0] == "162537-163535"
    back = make_plan(gone, asked("web", strategy=PerContainer(1000), within="alice"))
    after = carried_out(gone, back)
    assert next(a for a in after.ledger.allocations if a.name == "web") == before
    assert after.ledger.quarantined == ()
    assert [one.code for one in back.findings if one.code in {"USN131", "USN132"}] == ["USN131"]
    # So it is with the start that it had; and no other name may have that.
    start = 164536
    if subgid == ALICE:
        again = make_plan(
            gone, asked("web", strategy=PerContainer(1000), within="alice", start=start)
        )
        assert again.ledger.unkeep == back.ledger.unkeep
        with pytest.raises(RefusedError, match="quarantined"):
            slices(gone, "app", start=start)


def test_a_former_slice_is_not_the_range_of_a_line() -> None:
    was = Quarantined("web", IdRange(164536, 1000), "", a_slice("web", 164536), event=1)
    plan = make_plan(
        state(quarantined=[was]), asked("web", strategy=PerContainer(1000), owner="alice")
    )
    assert plan.ledger.unkeep == ()
    [missed] = [one for one in plan.findings if one.code == "USN132"]
    assert "its ids were a slice within alice" in missed.message
    # And the other way.
    was = replace(was, was=replace(per_container("web", 164536, 1000, "alice"), published="none"))
    plan = make_plan(
        state(**HERS, quarantined=[was]), asked("web", strategy=PerContainer(1000), within="alice")
    )
    assert plan.ledger.unkeep == ()
    assert "its ids were no slice" in next(f.message for f in plan.findings if f.code == "USN132")


def test_lines_stay_while_slices_stand_on_them() -> None:
    hers = replace(per_container("alice", 100000, owner="alice"), published="none")
    found = tuple((path, "alice:100000:65536") for path in ("/etc/subuid", "/etc/subgid"))
    adopted = replace(hers, found=found)
    for one, words in ((hers, {}), (adopted, {"with_lines": True})):
        host = state(**HERS, allocations=[one, a_slice("web", 164536)])
        with pytest.raises(RefusedError, match="the lines of 'alice' carry slices: web") as error:
            make_release(host, ReleaseRequest(("alice",), **words))  # type: ignore[arg-type]
        assert error.value.hint == "release these first: 'usernsplan release web'"
        gone = make_release(host, ReleaseRequest(("alice", "web"), **words))  # type: ignore[arg-type]
        assert [change.after for change in gone.changes] == [b"", b""]
        assert dict(gone.ledger.quarantine) == {
            "alice": IdRange(100000, 65536),
            "web": IdRange(164536, 1000),
        }
    # Lines that were there before stay, and carry the slices.
    host = state(**HERS, allocations=[adopted, a_slice("web", 164536)])
    assert make_release(host, ReleaseRequest(("alice",))).changes == ()


# What is written of it: the same again on this host, and on another with the same lines.
@each("subgid", [ALICE, b"alice:200000:65536\n", b"alice:120000:65536\n"])
def test_what_export_writes_makes_the_same_slices(subgid: bytes) -> None:
    host = state(ALICE, subgid)
    plan = make_plan(host, asked("web", "db", strategy=PerContainer(30000), within="alice"))
    done = carried_out(host, plan)
    spec = again(done)
    from usernsplan.formats import spec_writer  # noqa: PLC0415

    text = spec_writer.text(spec)
    assert not decided(done, text).pending
    other = decided(host, text)
    assert other.allocate.ledger.add == plan.ledger.add or {
        (a.name, a.mapping) for a in other.allocate.ledger.add
    } == {(a.name, a.mapping) for a in plan.ledger.add}
    assert [step.text.partition(", ")[2] for step in other.steps] == ["within alice"] * 2
    with pytest.raises(RefusedError, match="is in no line of alice"):
        decided(state(**same_lines(b"alice:300000:65536\n")), text)


@each(
    ("keys", "message"),
    [
        ("map: ['b 0 100000 1000']", "within"),
        ("within: alice, owner: bob", "leave out the owner"),
        ("within: alice, map: ['b 0 99999 10']", "leave the start out"),
        ("within: alice, start: 5", "leave the start out"),
    ],
)
def test_a_plan_file_that_cannot_be(keys: str, message: str) -> None:
    text = f"version: 1\nstrategy: per-container\ncontainers:\n- {{name: web, {keys}}}\n"
    with pytest.raises(UsernsplanError) as error:
        decided(state(**HERS), text)
    assert message in error.value.hint
    assert "4: containers[0]" in str(error.value)


def test_a_map_is_kept_as_it_is_written() -> None:
    text = (
        "version: 1\nstrategy: per-container\nengines: []\ncontainers:\n"
        "- {name: web, within: alice, map: ['u 0 100000 10', 'u 20 100010 10', 'g 0 100500 30']}\n"
    )
    host = state(**HERS)
    desired = decided(host, text)
    [web] = desired.allocate.ledger.add
    assert web.mapping == Mapping(
        IdMap.of((0, 100000, 10), (20, 100010, 10)), IdMap.of((0, 100500, 30))
    )
    done = carried_out(host, desired.allocate)
    assert not decided(done, text).pending
    with pytest.raises(RefusedError, match="with another map"):
        decided(done, text.replace("100500 30", "100500 31"))


# Her own id needs no line, and is 0 in her namespace; other ids need one.
def test_passes_of_a_slice() -> None:
    shown = (Pass("uid", Extent(1000, 1000, 1)), Pass("gid", Extent(1000, 1000, 1)))
    host = state(**HERS)
    plan = make_plan(host, asked("web", strategy=PerContainer(2000, passes=shown), within="alice"))
    [web] = plan.ledger.add
    assert web.passes == shown
    assert web.mapping.uids.triples() == [(0, 163536, 1000), (1000, 1000, 1), (1001, 164537, 999)]
    text = render("podman", web, RenderContext(state=host, rootless=True)).text
    assert text.split()[:6] == [
        *("--uidmap", "0:63537:1000"),
        *("--uidmap", "1000:0:1"),
        *("--uidmap", "1001:64538:999"),
    ]

    render_group = (Pass("gid", Extent(107, 104, 1)),)
    request = asked("web", strategy=PerContainer(2000, passes=render_group), within="alice")
    with pytest.raises(RefusedError, match="gid 104 of 'web' cannot pass") as error:
        make_plan(host, request)
    assert error.value.hint == "this grants it: usermod --add-subgids 104-104 alice"
    granted = state(ALICE, ALICE + b"alice:104:1\n")
    [web] = make_plan(granted, request).ledger.add
    # Her lines, sorted: gid 104 is 1 now, and the others follow.
    text = render("podman", web, RenderContext(state=granted, rootless=True)).text
    assert text.split()[2:] == [
        *("--gidmap", "0:63538:107"),
        *("--gidmap", "107:1:1"),
        *("--gidmap", "108:63646:1892"),
    ]


@each(
    ("within", "can"),
    [
        ("alice", {"uid_map", "gid_map", "podman", "quadlet", "oci", "lxc", "rootless"}),
        ("root", {"uid_map", "gid_map", "podman", "quadlet", "oci", "lxc", "incus", "lxd"}),
        ("containers", {"uid_map", "gid_map", "podman", "quadlet", "oci"}),
        ("usernsplan-pool", {"uid_map", "gid_map", "podman", "quadlet", "oci"}),
    ],
)
def test_engines_that_can(within: str, can: set[str]) -> None:
    one = a_slice("web", 100000, within=within)
    asked_for = {
        *("uid_map", "gid_map", "podman", "quadlet", "oci", "lxc", "incus", "lxd", "rootless"),
        *("docker", "docker-instance", "compose", "podman-auto"),
    }
    assert {name for name in ENGINES if name in asked_for and verdict(name, one).can} == can


def test_the_command_that_made_a_slice_makes_it_again() -> None:
    from usernsplan import Layout  # noqa: PLC0415
    from usernsplan.engines.base import allocate_again  # noqa: PLC0415

    words = allocate_again(a_slice("web", 164536), Layout())
    expected = "usernsplan allocate --strategy per-container --size 1000 --within alice web"
    assert words == expected


def test_check_tells_what_is_left() -> None:
    host = state(**HERS, allocations=[a_slice("web", 164536)])
    [one] = [one for one in check(Facts(host)) if one.code == "USN059"]
    assert "64536 of the 65536 ids are in no slice" in one.message
    assert "100000-164535" in one.message
    large = state(**same_lines(b"alice:100000:66536\n"), allocations=[a_slice("web", 165536)])
    assert not [one for one in check(Facts(large)) if one.code == "USN059"]
