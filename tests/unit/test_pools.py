"""Pools that engines divide themselves: granted like a container's range, and taken for none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.states import asked, carried_out, files, in_one, state, with_files
from usernsplan import FixRequest, IdRange, SingleUid, make_plan
from usernsplan.engines import engine_of_pool, verdict
from usernsplan.errors import InvalidValueError, PoolExhaustedError, RefusedError
from usernsplan.layout import Layout
from usernsplan.model import PoolOptions
from usernsplan.volume.decide import container_of

WORDS: dict[str, Any] = {
    "engines": ("podman-auto", "kubernetes"),
    "pools": {"podman-auto": PoolOptions(3), "kubernetes": PoolOptions(2)},
}


def test_each_pool_is_one_line_of_whole_blocks_after_the_containers() -> None:
    plan = make_plan(state(), asked("web", **WORDS))
    # 589824 is the pool's start, and every block has 65536 ids.
    assert plan.changes[0].after == (
        b"usernsplan-web:589824:65536\ncontainers:655360:196608\nkubelet:851968:131072\n"
    )
    assert plan.changes[0].after == plan.changes[1].after
    assert [engine_of_pool(a) for a in plan.allocations] == [None, "podman-auto", "kubernetes"]
    # The kubelet asks getsubids, which wants an account; Podman does not.
    assert [command[-1] for command in plan.account_commands] == ["kubelet"]
    host = carried_out(state(), plan)
    assert not make_plan(host, asked("web", **WORDS)).changed


def test_a_pool_stays_as_large_as_it_is_unless_another_size_is_said() -> None:
    host = carried_out(state(), make_plan(state(), asked(**WORDS)))
    assert not make_plan(host, asked(engines=("podman-auto",))).changed
    with pytest.raises(RefusedError, match="'containers' is allocated already, with other options"):
        make_plan(host, asked(engines=("podman-auto",), pools={"podman-auto": PoolOptions(4)}))


def test_a_pool_is_no_containers_range() -> None:
    host = carried_out(state(), make_plan(state(), asked("web", **WORDS)))
    [containers] = [a for a in host.ledger.allocations if a.name == "containers"]
    assert verdict("podman-auto", containers).fit == "exactly"
    assert verdict("podman", containers).fit == verdict("uid_map", containers).fit == "no"
    found = container_of(FixRequest(("/srv/a",)), host.ledger, ["/srv/a"], Layout().command)
    assert found is not None
    assert found.name == "web"
    with pytest.raises(InvalidValueError, match="--container containers"):
        container_of(
            FixRequest(("/srv/a",), container="containers"),
            host.ledger,
            ["/srv/a"],
            Layout().command,
        )
    with pytest.raises(InvalidValueError, match="the pool of podman-auto"):
        make_plan(host, asked("web", daemon="containers", engines=("docker",)))


def test_a_pool_is_for_per_container_hosts() -> None:
    with pytest.raises(RefusedError, match="podman-auto gives each container a range of its own"):
        make_plan(state(), asked("web", strategy=SingleUid(), **WORDS))
    # An engine that is merely installed stands in nobody's way.
    host = state()
    assert make_plan(host, asked("web", strategy=SingleUid())).changed


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            {"engines": ("podman",), "pools": {"podman-auto": PoolOptions(3)}},
            "--auto-containers needs its engine",
        ),
        (
            {"engines": ("podman-auto",), "pools": {"podman-auto": PoolOptions(0)}},
            "a pool for 0 containers of podman-auto is impossible",
        ),
        ({"engines": ("podman-auto",), "pools": {"podman-auto": PoolOptions(99999)}}, "ids"),
        ({"engines": ("nonesuch",)}, "no engine 'nonesuch'"),
    ],
)
def test_words_that_cannot_be(words: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidValueError, match=why):
        make_plan(state(), asked("web", **words))


def test_an_engine_that_is_merely_installed_stands_in_nobodys_way() -> None:
    host = replace(
        state(login_defs=b"SUB_UID_MAX 765536\nSUB_GID_MAX 765536\n"),
        engines=frozenset({"kubernetes"}),
    )
    plan = make_plan(host, asked("web"))
    assert [a.name for a in plan.allocations] == ["web"]
    assert plan.changes[0].after == b"usernsplan-web:589824:65536\n"
    assert [f.code for f in plan.findings if "kubelet" in f.message] == ["USN124"]
    with pytest.raises(PoolExhaustedError):
        make_plan(host, asked("web", engines=("kubernetes",)))


def test_a_line_that_the_kubelet_has_already_is_left_alone_or_adopted() -> None:
    theirs = b"kubelet:65536:7208960\n"
    host = replace(state(theirs, theirs), engines=frozenset({"kubernetes"}))
    assert [a.name for a in make_plan(host, asked("web")).allocations] == ["web"]
    with pytest.raises(RefusedError, match="kubelet has 'kubelet:65536:7208960'") as caught:
        make_plan(host, asked(engines=("kubernetes",)))
    assert caught.value.hint.startswith("'usernsplan adopt kubelet' takes over what stands")
    plan = make_plan(host, asked(engines=("kubernetes",), start=65536))
    assert not plan.changes
    assert [(a.name, a.reserved_range) for a in plan.ledger.add] == [
        ("kubelet", IdRange(65536, 7208960))
    ]


def test_what_is_tried_for_an_engine_that_is_merely_installed_leaves_nothing_half_done() -> None:
    host = carried_out(state(), make_plan(state(), asked("web", engines=("kubernetes",))))
    # Lost in one file, another in the other one.
    host = with_files(
        host,
        files(host)
        | {
            "/etc/subuid": b"usernsplan-web:589824:65536\n",
            "/etc/subgid": b"usernsplan-web:589824:65536\nkubelet:900000000:65536\n",
        },
    )
    plan = make_plan(replace(host, engines=frozenset({"kubernetes"})), asked("db"))
    assert not any(
        b"kubelet:7" in change.after or b"kubelet:5" in change.after for change in plan.changes
    )
    assert [f.code for f in plan.findings] == ["USN124"]
    with pytest.raises(RefusedError, match="kubelet has other lines"):
        make_plan(host, asked("db", engines=("kubernetes",)))


@pytest.mark.parametrize("file", ["subuid", "subgid"])
def test_a_line_of_the_kubelets_in_one_file_is_somebody_elses_arrangement_too(file: str) -> None:
    host = replace(
        state(**in_one(file, b"kubelet:765536:65536\n")), engines=frozenset({"kubernetes"})
    )
    plan = make_plan(host, asked("web"))
    assert [a.name for a in plan.allocations] == ["web"]
    assert not plan.findings
