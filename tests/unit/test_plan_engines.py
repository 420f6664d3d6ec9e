"""What allocate grants for engines besides, and what it says where one of them stands in another's way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.states import asked, carried_out, files, state, with_files
from usernsplan import (
    AllocateRequest,
    HostState,
    Plan,
    ReleaseRequest,
    Shared,
    make_plan,
    make_release,
)
from usernsplan.errors import RefusedError
from usernsplan.model import LedgerState

WEB_OF_ROOT = b"usernsplan-web:589824:65536\nroot:589824:32768\nroot:622592:32768\n"
LXD = asked("web", engines=("lxd",))


def codes(plan: Plan) -> set[str]:
    return {finding.code for finding in plan.findings}


def with_engines(host: HostState, *engines: str) -> HostState:
    return replace(host, engines=frozenset(engines))


@pytest.mark.parametrize(
    ("before", "warned"),
    [
        (b"", True),
        (b"root:100000:65536\n", False),
        # LXD overlooks lines that are too small for it.
        (b"root:100000:65535\n", True),
        (b"bob:100000:65536\n", True),
        (b"root:1000000:1000000000\n", False),
    ],
)
def test_a_range_of_roots_own_is_asked_for_where_lxd_would_find_none_for_its_instances(
    before: bytes, warned: bool
) -> None:
    host = carried_out(state(before, before), make_plan(state(before, before), LXD))
    assert ("USN123" in codes(make_plan(host, LXD))) == warned
    # Said again without naming the engine, on a host that has it.
    again = make_plan(with_engines(host, "lxd"), asked("web"))
    assert ("USN123" in codes(again)) == warned
    assert not again.changed
    assert "USN121" not in codes(again)


def test_lxc_is_not_served_by_the_way_where_lxd_is() -> None:
    plan = make_plan(with_engines(state(), "lxc", "lxd"), asked("web"))
    assert plan.changes[0].after == b"usernsplan-web:589824:65536\n"
    assert "USN121" in codes(plan)
    # A slice has no lines anyway.
    host = with_engines(state(*2 * [b"alice:100000:65536\n"]), "lxd")
    assert "USN121" not in codes(make_plan(host, asked("web", within="alice")))
    for engine in ("lxc", "proxmox"):
        plan = make_plan(with_engines(state(), engine), asked("web"))
        assert plan.changes[0].after == WEB_OF_ROOT


def test_after_the_ledger_was_lost_an_allocation_with_roots_lines_can_be_adopted() -> None:
    words = asked("web", engines=("lxc",))
    host = replace(carried_out(state(), make_plan(state(), words)), ledger=LedgerState())
    with pytest.raises(RefusedError, match="which usernsplan did not write") as caught:
        make_plan(host, words)
    assert caught.value.hint.startswith("'usernsplan adopt web' takes over what stands")
    plan = make_plan(host, replace(words, start=589824))
    assert not plan.changes
    assert plan.ledger.add[0].extra_owners == ("root",)


def test_lines_of_roots_that_two_shared_containers_need_stand_once_until_the_last_goes() -> None:
    host = carried_out(
        state(), make_plan(state(), asked("a1", "b1", strategy=Shared(), engines=("lxc",)))
    )
    root = [line for line in host.subuid.raw.splitlines() if line.startswith(b"root")]
    assert root == [b"root:2:1", b"root:3:65533"]
    host = carried_out(host, make_release(host, ReleaseRequest(("a1",))))
    assert [line for line in host.subuid.raw.splitlines() if line.startswith(b"root")] == root
    host = carried_out(host, make_release(host, ReleaseRequest(("b1",))))
    assert host.subuid.raw == b""


def test_the_pool_of_userns_auto_is_no_logins() -> None:
    host = state(passwd=b"containers:x:1001:1001::/home/c:/bin/bash\n")
    with pytest.raises(RefusedError, match="'containers' is an account"):
        make_plan(host, asked(engines=("podman-auto",)))


def test_an_engine_for_named_containers_says_so_where_none_is_named() -> None:
    plan = make_plan(state(), asked(engines=("docker", "lxc")))
    assert any(
        "lxc runs only containers with a name" in finding.message for finding in plan.findings
    )
    assert b"root" not in plan.changes[0].after


def test_an_account_that_two_engines_want_is_left_to_do_once() -> None:
    host = replace(state(), can_add_accounts=False)
    plan = make_plan(host, asked("web", engines=("docker-instance", "docker"), daemon="web"))
    assert plan.unfinished
    assert len([step for step in plan.next_steps if step.startswith("useradd")]) == 1


def test_the_next_step_is_one_that_works() -> None:
    host = state(
        passwd=b"usernsplan-web:x:990:990::/:/usr/sbin/nologin\n", group=b"usernsplan-web:x:990:\n"
    )
    plan = make_plan(host, asked("web", owner="usernsplan-web"))
    assert plan.next_steps[0].startswith("usernsplan render podman web")
    plan = make_plan(state(), asked("web", engines=("proxmox",)))
    assert plan.next_steps[0].startswith("usernsplan render proxmox web --vmid VMID")


def test_release_tells_of_the_account_that_was_made_for_a_daemon() -> None:
    host = carried_out(
        state(), make_plan(state(), asked("web", "db", engines=("docker-instance",)))
    )
    plan = make_release(host, ReleaseRequest(("web",)))
    assert [f.message for f in plan.findings] == [
        "the account usernsplan-web stays, but a Docker daemon that is remapped to it no longer starts"
    ]


@pytest.mark.parametrize("words", [asked("web", owner="root"), asked("web", engines=("lxc",))])
def test_a_line_of_roots_that_stands_twice_goes_twice(words: AllocateRequest) -> None:
    host = carried_out(state(), make_plan(state(), words))
    twice = host.subuid.raw + b"root:589824:32768\nroot:600000000:65536\n"
    host = with_files(host, files(host) | {"/etc/subuid": twice})
    assert (
        make_release(host, ReleaseRequest(("web",))).changes[0].after == b"root:600000000:65536\n"
    )
