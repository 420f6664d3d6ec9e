"""What a request leaves open is answered once, before ids are chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.states import DOCKREMAP_USER, PASSWD, asked, per_container, shared, state
from usernsplan import AllocateRequest, IdRange, PerContainer, Shared, SingleUid, make_plan
from usernsplan.cli.allocate import options_of_pools
from usernsplan.engines import ENGINES, EngineInfo, Pool
from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.formats.spec import parse
from usernsplan.model import ContainerOptions, PoolOptions
from usernsplan.planner.desired import make_desired
from usernsplan.planner.resolve import Wanted, resolve

NO_ROOM = b"SUB_UID_MAX 589824\nSUB_GID_MAX 589824\n"


def test_each_name_has_its_own_answers() -> None:
    of_db = ContainerOptions(PerContainer(1000), "alice", 1 << 20, ("lxc",))
    pool = IdRange(1 << 20, 1 << 20)
    found = resolve(state(), asked("web", "db", each={"db": of_db}, pool=pool))
    assert found.containers == (
        Wanted("web", "usernsplan-web", PerContainer(), pool=pool),
        Wanted("db", "alice", PerContainer(1000), 1 << 20, pool, ("root",)),
    )
    assert (found.pools, found.docker, found.findings) == ((), None, ())


def test_ids_are_not_looked_for_yet() -> None:
    # There is no room at all: that is another step's.
    assert resolve(state(login_defs=NO_ROOM), asked("web")).containers[0].name == "web"


@pytest.mark.parametrize(
    ("words", "docker", "filler"),
    [
        ({}, "default", {"default": True}),
        ({"names": ("web", "db")}, None, {"web": False, "db": False}),
        ({"names": ("web", "db"), "daemon": "db"}, "db", {"web": False, "db": True}),
        # Docker's own allocation is made for it, though nobody points it there now.
        ({"daemon_config": False}, None, {"default": True}),
        (
            {"names": ("default", "web"), "from_file": True},
            "default",
            {"default": True, "web": False},
        ),
        ({"names": ("web",), "from_file": True}, None, {"web": False}),
        (
            {"names": ("web",), "from_file": True, "daemon": "web", "engines": ("podman",)},
            "web",
            {"web": True},
        ),
        (
            {"names": ("default",), "from_file": True, "engines": ("podman",)},
            None,
            {"default": True},
        ),
    ],
)
def test_whether_docker_uses_it(
    words: dict[str, Any], docker: str | None, filler: dict[str, bool]
) -> None:
    found = resolve(state(), replace(AllocateRequest((), Shared()), **words))
    assert found.docker == docker
    assert {one.name: one.strategy.filler for one in found.containers} == filler  # type: ignore[attr-defined]


def test_an_allocation_that_stands_has_its_owner_and_its_dockerroot() -> None:
    known = shared("web", (0, 7, 1), (8, 8, 65528), owner="alice")
    host = state(b"alice:7:1\n", b"alice:7:1\n", allocations=[known])
    auto = Shared(auto=True)
    web, db = resolve(host, asked("web", "db", strategy=auto)).containers
    assert (web.owner, web.known, web.strategy) == ("alice", known, Shared(dockerroot=7))
    # One DOCKERROOT is enough for a host.
    assert (db.owner, db.known, db.strategy) == ("usernsplan-db", None, Shared(dockerroot=7))


def test_further_owners_are_those_that_it_has_not_got() -> None:
    known = replace(per_container("web", 589824), extra_owners=("root",))
    host = state(allocations=[known, per_container("db", 720896)])
    found = resolve(host, asked("web", "db", engines=("lxc",)))
    assert [one.extra_owners for one in found.containers] == [(), ("root",)]


def test_without_a_strategy_it_is_the_hosts_and_takes_its_options() -> None:
    host = state(allocations=[replace(per_container("web", 589824), strategy="single-uid")])
    options: dict[str, int | str] = {"block": 1}
    [one] = resolve(host, AllocateRequest(("db",), options=options)).containers
    assert one.strategy == SingleUid(block=1)
    with pytest.raises(
        InvalidValueError, match="not an option of the strategy single-uid"
    ) as caught:
        resolve(host, AllocateRequest(("db",), options={"size": 1}))
    assert caught.value.option == "size"
    assert "this host's strategy is single-uid" in caught.value.hint
    with pytest.raises(InvalidValueError, match="the strategy is missing") as caught:
        resolve(state(), AllocateRequest(("a", "b", "c", "d")))
    assert caught.value.hint.endswith("usernsplan allocate --strategy per-container a b c")


def test_what_only_one_strategy_has_needs_no_strategy() -> None:
    for request in (
        AllocateRequest(("web",), passes=("u:1000",)),
        AllocateRequest(("web",), within="alice", options={"size": 9}),
    ):
        [one] = resolve(state(), request).containers
        assert one.strategy.name == "per-container"
    host = state(allocations=[replace(per_container("db", 589824), strategy="single-uid")])
    with pytest.raises(InvalidValueError, match="with the strategy single-uid"):
        resolve(host, AllocateRequest(("web",), passes=("u:1000",)))


@pytest.mark.parametrize("engine", ["docker", "lxc"])
@pytest.mark.parametrize("options", [PoolOptions(3), PoolOptions(start=1 << 20), PoolOptions()])
def test_an_engine_without_a_pool_takes_no_options_of_one(
    engine: str, options: PoolOptions
) -> None:
    with pytest.raises(InvalidValueError, match=f"{engine} has no pool of its own"):
        resolve(state(), asked("web", engines=(engine,), pools={engine: options}))


def test_the_place_of_a_pool_counts_in_a_file_without_containers() -> None:
    text = "version: 1\nstrategy: per-container\nengines: [{name: kubernetes, start: 1048576}]\n"
    desired = make_desired(state(), parse(text.encode(), "p.yaml"))
    [pool] = desired.allocate.ledger.add
    assert pool.reserved_range == IdRange(1 << 20, 110 * 65536)


def test_an_engine_that_needs_logins_makes_any_account_an_owner() -> None:
    host = state(passwd=PASSWD + DOCKREMAP_USER.replace(b"dockremap", b"usernsplan-web"))
    with pytest.raises(RefusedError, match="'usernsplan-web' is an account"):
        resolve(host, asked("web"))
    assert resolve(host, asked("web", engines=("docker-instance",))).containers


def test_an_engine_with_a_pool_is_one_row_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    row = EngineInfo("podman_auto", pool=Pool("slices", 7, "--slices", "so many slices"))
    monkeypatch.setitem(ENGINES, "a-slicer", row)

    options = options_of_pools()
    assert [*options] == ["podman_auto", "kubernetes", "kubernetes_each", "a_slicer"]
    option = options["a_slicer"]
    assert option.names == ("--slices",)
    assert option.more["help"] == "a-slicer: so many slices. Default: 7."

    for said, size in ((None, 7), (2, 2)):
        pools = {} if said is None else {"a-slicer": PoolOptions(said)}
        plan = make_plan(state(), asked(engines=("a-slicer",), pools=pools))
        assert plan.changes[0].after == b"slices:589824:%d\n" % (size * 65536)
    with pytest.raises(InvalidValueError, match="--slices needs its engine"):
        make_plan(state(), asked("web", pools={"a-slicer": PoolOptions(2)}))
    with pytest.raises(InvalidValueError, match="'slices' is the name of the pool of a-slicer"):
        make_plan(state(), asked("slices"))
