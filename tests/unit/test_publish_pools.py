"""The pools of engines are published, but no record has the name that an engine looks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.states import asked, carried_out, state
from usernsplan import ReleaseRequest, make_plan, make_release
from usernsplan.engines import ENGINES
from usernsplan.model import POOL_OWNERS, PoolOptions

if TYPE_CHECKING:
    from usernsplan import HostState

PASSWD = b"root:x:0:0::/root:/bin/sh\nkubelet:x:999:999::/nonexistent:/usr/sbin/nologin\n"
GROUP = b"root:x:0:\nkubelet:x:999:\n"


def test_the_owners_of_pools_are_those_of_the_engines() -> None:
    assert {it.pool.owner for it in ENGINES.values() if it.pool} == POOL_OWNERS


def host() -> HostState:
    return state(passwd=PASSWD, group=GROUP)


@pytest.mark.parametrize(
    ("engine", "owner"), [("podman-auto", "containers"), ("kubernetes", "kubelet")]
)
def test_each_65536_ids_of_a_pool_have_a_record_whether_or_not_the_owner_is_an_account(
    engine: str, owner: str
) -> None:
    words = asked(engines=(engine,), pools={engine: PoolOptions(3)})
    plan = make_plan(host(), words)
    records = [(one.sign, *one.record) for one in plan.records]
    assert records == [
        ("+", f"{owner}--0", 589824),
        ("+", f"{owner}--1", 655360),
        ("+", f"{owner}--2", 720896),
    ]
    gone = make_release(carried_out(host(), plan), ReleaseRequest((owner,)))
    assert [(one.sign, *one.record) for one in gone.records] == [
        ("-", name, first) for _, name, first in records
    ]


def test_a_pool_that_is_not_to_be_published_has_no_record() -> None:
    words = asked(engines=("podman-auto",), pools={"podman-auto": PoolOptions(1)}, publish="none")
    assert make_plan(host(), words).records == ()


def test_what_is_said_of_the_owner_of_a_pool_makes_no_account_with_ids_of_the_pool() -> None:
    words = asked(engines=("podman-auto",), pools={"podman-auto": PoolOptions(1)})
    [found] = [one for one in make_plan(host(), words).findings if one.code == "USN150"]
    assert found.hint.endswith(
        "useradd --system --user-group --no-create-home --home-dir /nonexistent "
        "--shell /usr/sbin/nologin --comment 'container ids (usernsplan)' containers"
    )
