"""Plan files one after the other: nothing that stands is renumbered, and every host has a file that says what it is."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.unit.desired import PER_CONTAINER, again, applied, decided, ids
from tests.unit.states import DOCKREMAP_GROUP, DOCKREMAP_USER, GROUP, PASSWD, Known, files, state
from usernsplan.errors import UsernsplanError
from usernsplan.formats.spec import Spec, SpecContainer, SpecEngine, SpecReservation, SpecVolume
from usernsplan.ids import IdRange, IdSet
from usernsplan.planner.desired import fingerprint, make_desired, merged_changes
from usernsplan.planner.exported import exported

if TYPE_CHECKING:
    from usernsplan import Allocation, HostState

NAMES = ("aa", "bb", "cc", "dd", "default")
MODES: list[tuple[Literal["own", "shift"], str]] = [("own", "0:0"), ("own", "0:33"), ("shift", "")]
PATHS = ("/v1", "/v2", "/v3")
# Small ranges close to each other, so that they meet.
STARTS = {
    "per-container": [589824, 655360, 720896, 786432],
    "single-uid": [1000000000, 1000010000],
    "shared": [589824, 589826],
}
POOL_STARTS = [851968, 16777216, 33554432]
OPTIONS: dict[str, dict[str, list[int]]] = {
    "per-container": {"size": [1, 65536, 65537, 131072]},
    "single-uid": {"block": [1, 2, 10000], "container-id": [0, 33]},
    "shared": {
        "dockerroot": [2, 3, 400],
        "max": [65535, 1000, 4294967294],
        "identity": [True, False],
    },
}
ENGINES = {
    "per-container": ["docker", "podman", "lxc", "podman-auto", "kubernetes", "docker-instance"],
    "single-uid": ["docker", "podman", "lxc"],
    "shared": ["docker", "podman", "lxc"],
}


@st.composite
def hosts(draw: st.DrawFn) -> HostState:
    """A host of other people: some lines, some daemon.json."""
    lines = draw(
        st.sampled_from(
            [b"", b"bob:655360:65536\n", b"alice:100000:65536\nbob:589826:5\n", b"broken\n"]
        )
    )
    raw = draw(
        st.sampled_from(
            [
                None,
                b"{}",
                b'{"userns-remap": "alice"}',
                b'{"userns-remap": "usernsplan-aa"}',
                b"{broken",
            ]
        )
    )
    engines = draw(
        st.sampled_from([frozenset(), frozenset({"docker"}), frozenset({"lxc", "podman-auto"})])
    )
    # Whom Docker is pointed at has an account: it would not start.
    known = Known(
        passwd=PASSWD + DOCKREMAP_USER + b"usernsplan-aa:x:901:901::/:/bin/sh\n",
        group=GROUP + DOCKREMAP_GROUP + b"usernsplan-aa:x:901:\n",
    )
    if raw is None or b"usernsplan" not in raw:
        known = draw(st.sampled_from([known, Known(passwd=PASSWD, group=GROUP)]))
    host = state(lines, draw(st.sampled_from([lines, b""])), daemon_json=raw, **known)
    return replace(host, engines=engines)


@st.composite
def spec_engines(draw: st.DrawFn, name: str) -> SpecEngine:
    if name not in {"podman-auto", "kubernetes"}:
        return SpecEngine(name)
    size = draw(st.sampled_from([None, 1, 2]))
    start = draw(st.sampled_from(POOL_STARTS)) if draw(st.integers(0, 3)) else None
    return SpecEngine(name, size, start)


@st.composite
def mounts(draw: st.DrawFn, at: str) -> dict[str, Any]:
    """What a file says of how a volume is given."""
    method = draw(st.sampled_from([None, None, "chown", "auto", "idmap", "idmap", "idmap"]))
    if method != "idmap":
        return {"method": method}
    return {
        "method": method,
        "at": draw(st.sampled_from(["", at])),
        "persist": draw(st.booleans()),
        "read_only": draw(st.booleans()),
        "protect": draw(st.sampled_from(["", "nosuid", "parent"])),
        "cross_mounts": draw(st.booleans()),
    }


@st.composite
def specs(draw: st.DrawFn, strategy: str) -> Spec:
    def options() -> dict[str, int]:
        return {
            k: draw(st.sampled_from(v))
            for k, v in OPTIONS[strategy].items()
            if draw(st.integers(0, 7)) == 7
        }

    paths = iter(draw(st.permutations(PATHS)))
    containers = tuple(
        SpecContainer(
            name,
            number,
            f"containers[{number}]",
            owner=draw(
                st.sampled_from([*[None] * 9, "somebody", "alice", "root", "usernsplan-aa"])
            ),
            start=draw(st.sampled_from([*[None] * 6, *STARTS[strategy]])),
            options=options(),
            engines=draw(st.sampled_from([(), (), (), ("lxc",), ("podman",)])),
            volumes=tuple(
                SpecVolume(
                    next(paths),
                    *draw(st.sampled_from(MODES)),
                    0,
                    **draw(mounts(f"/m{number}")),
                )
                for _ in range(draw(st.sampled_from([0, 0, 1])))
            )
            if number < len(PATHS)
            else (),
        )
        for number, name in enumerate(
            draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
        )
    )
    some = st.lists(st.sampled_from(ENGINES[strategy]), max_size=3, unique=True).map(tuple)
    engines = draw(
        st.none() | (st.just(("podman-auto",)) if strategy == "per-container" else some) | some
    )
    ranges = [
        IdRange(589824, 65536),
        IdRange(665536, 1),
        IdRange(4000000, 5),
        IdRange(1000000000, 20000),
    ]
    return Spec(
        place="p.yaml",
        strategy=strategy,
        options=options(),
        pool=draw(st.sampled_from([*[None] * 4, IdRange(589824, 9 * 65536)]))
        if strategy == "per-container"
        else None,
        engines=None if engines is None else tuple(draw(spec_engines(name)) for name in engines),
        daemon=draw(st.sampled_from([*[None] * 5, False, *(c.name for c in containers)])),
        containers=containers,
        reservations=tuple(
            SpecReservation(
                one, draw(st.sampled_from(["NFS", "another host"])), 0, f"reservations[{number}]"
            )
            for number, one in enumerate(
                draw(st.lists(st.sampled_from(ranges), max_size=2, unique=True))
            )
        ),
        lines={"daemon": 1},
    )


@st.composite
def sequences(draw: st.DrawFn) -> tuple[HostState, list[tuple[Spec, bool]]]:
    strategy = draw(st.sampled_from(sorted(OPTIONS)))
    length = draw(st.integers(1, 4))
    return draw(hosts()), [(draw(specs(strategy)), draw(st.booleans())) for _ in range(length)]


def by_name(host: HostState) -> dict[str, Allocation]:
    return {a.name: a for a in host.ledger.allocations}


def apart(host: HostState) -> bool:
    """Whether everything that is held, kept back or reserved is so by one only; reservations may cover each other."""
    held = [a.reserved_range for a in host.ledger.allocations if a.reserved_range] + [
        q.reserved_range for q in host.ledger.quarantined
    ]
    return IdSet(held).total() == sum(one.count for one in held)


def lines_of_root(raw: bytes) -> set[tuple[int, int]]:
    fields = (line.split(b":") for line in raw.splitlines())
    return {(int(start), int(count)) for owner, start, count in fields if owner == b"root"}


def granted_to_root(host: HostState) -> set[tuple[int, int]]:
    # A shared map past 65535 has no lines of anybody.
    mine = (
        a
        for a in host.ledger.allocations
        if "root" in {a.owner, *a.extra_owners}
        and (a.strategy != "shared" or max(e.container_range.last for e in a.mapping.uids) <= 65535)
    )
    return {line for a in mine for e in a.mapping.uids for line in small(e.host, e.count)}


def small(start: int, count: int) -> list[tuple[int, int]]:
    """A range as root gets it: in lines that LXD and Incus do not take for themselves."""
    if count < 65536:
        return [(start, count)]
    return [(at, min(32768, start + count - at)) for at in range(start, start + count, 32768)]


@settings(max_examples=examples(250))
@given(found=sequences())
def test_files_one_after_the_other(found: tuple[HostState, list[tuple[Spec, bool]]]) -> None:
    host, sequence = found
    statuses = set()
    for spec, prune in sequence:
        before = by_name(host)
        try:
            desired = make_desired(host, spec, prune=prune)
        except UsernsplanError as error:
            statuses.add(error.exit_status)
            continue
        new = applied(host, desired)
        now = by_name(new)
        # What stands keeps its ids, its owner and whoever else has its lines; nothing goes unless that was asked for.
        for name in before.keys() & now.keys():
            assert now[name].mapping == before[name].mapping
            assert (now[name].reserved_range, now[name].owner) == (
                before[name].reserved_range,
                before[name].owner,
            )
            assert set(before[name].extra_owners) <= set(now[name].extra_owners)
        assert prune or before.keys() <= now.keys()
        # What goes is kept back, and none of it is given to somebody else.
        assert apart(new)
        for name in before.keys() - now.keys():
            assert before[name].reserved_range is None or before[name].reserved_range in [
                q.reserved_range for q in new.ledger.quarantined
            ]
        # All that the file names is there, as it says, and what is reserved by now is nobody's who came later.
        for one in spec.containers:
            assert one.start is None or now[one.name].reserved_range == IdRange(
                one.start, (now[one.name].reserved_range or IdRange(0, 1)).count
            )
            assert one.owner in {None, now[one.name].owner}
        for name in now.keys() - before.keys():
            assert all(
                not (h := now[name].reserved_range) or not h.overlaps(r.ids)
                for r in new.ledger.reservations
            )
        assert {r.ids for r in spec.reservations} <= {r.ids for r in new.ledger.reservations}
        # Lines of others stand.
        for old, raw in ((host.subuid.raw, new.subuid.raw), (host.subgid.raw, new.subgid.raw)):
            theirs = [
                line for line in old.splitlines() if line.split(b":")[0] in {b"bob", b"broken"}
            ]
            assert theirs == [
                line for line in raw.splitlines() if line.split(b":")[0] in {b"bob", b"broken"}
            ]
        # Said again it is done, and the steps are what was told: none without a change, no change without one.
        twice = make_desired(new, spec, prune=prune)
        assert not twice.pending, twice
        assert twice.steps == ()
        assert desired.pending == bool(desired.steps)
        assert bool(merged_changes(desired)) == (files(host) != files(new))
        host = new
    assert statuses <= {1, 2, 7, 9}


@settings(max_examples=examples(250))
@given(found=sequences())
def test_the_file_of_a_host_changes_nothing_there_and_makes_another_one_alike(
    found: tuple[HostState, list[tuple[Spec, bool]]],
) -> None:
    host, sequence = found
    for spec, prune in sequence:
        with suppress(UsernsplanError):
            host = applied(host, make_desired(host, spec, prune=prune))
    file = again(host)
    for prune in (False, True):
        desired = make_desired(host, file, prune=prune)
        assert not desired.pending, (desired.steps, file)
        assert (desired.steps, desired.kept) == ((), ())
    pools = by_name(host).keys() & {"containers", "kubelet"}
    assert {c.name for c in file.containers} | pools == by_name(host).keys()
    empty = replace(state(), engines=host.engines)
    new = applied(empty, make_desired(empty, file))
    # Of a shared map only Docker's has ids that were taken for it; what Docker had once, no file can say.
    alike = {
        a.name
        for a in host.ledger.allocations
        if not (
            a.strategy == "shared" and a.reserved_range and a.name not in {"default", file.daemon}
        )
    }
    assert {name: ids(new)[name] for name in alike} == {name: ids(host)[name] for name in alike}
    assert pools <= alike
    # Whom LXC wants them to be granted to has their lines there, and nobody else's.
    assert {n: a.extra_owners for n, a in by_name(new).items()} == {
        n: a.extra_owners for n, a in by_name(host).items()
    }
    for raw in (new.subuid.raw, new.subgid.raw):
        assert lines_of_root(raw) == granted_to_root(new)


@given(found=sequences())
def test_the_same_decision_has_the_same_fingerprint_and_another_has_another(
    found: tuple[HostState, list[tuple[Spec, bool]]],
) -> None:
    host, [(spec, prune), *_] = found
    try:
        desired = make_desired(host, spec, prune=prune)
    except UsernsplanError:
        return
    assert fingerprint(desired) == fingerprint(make_desired(host, spec, prune=prune))
    # Once it is carried out, what is left is another decision.
    left = make_desired(applied(host, desired), spec, prune=prune)
    assert desired.pending == (fingerprint(left) != fingerprint(desired))


def test_three_thousand_containers_with_their_starts() -> None:
    numbers = list(range(3000))
    random.Random(5).shuffle(numbers)  # noqa: S311
    containers = tuple(
        SpecContainer(
            f"c{n}",
            0,
            "",
            start=589824 + n * 65536,
            volumes=(SpecVolume(f"/v{n}", "own", "0:0", 0),),
        )
        for n in numbers
    )
    begun = time.monotonic()
    host = applied(
        state(),
        make_desired(state(), Spec("p.yaml", "per-container", engines=(), containers=containers)),
    )
    made = time.monotonic()
    assert len(host.ledger.allocations) == 3000
    desired = make_desired(host, exported(host), prune=True)
    print(
        f"3000 containers: made in {made - begun:.1f} s, exported and planned in {time.monotonic() - made:.1f} s"
    )
    assert not desired.pending


def test_a_host_whose_ranges_lie_outside_of_the_usual_pool_has_a_file_for_others_too() -> None:
    host = applied(
        state(), decided(state(), PER_CONTAINER + "pool: 1000000000-2000000000\ncontainers: [aa]\n")
    )
    assert ids(applied(state(), make_desired(state(), again(host)))) == ids(host)
