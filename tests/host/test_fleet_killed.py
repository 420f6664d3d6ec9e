"""A host of a fleet is killed at each step of a command: each statement, and each change of a file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.command import needs_root
from tests.host.fleet_state import ALLOCATE, is_well, killed, ranges, run
from usernsplan.ledger.postgres import Server
from usernsplan.ledger.sqlite import SqliteLedger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.postgres import FleetOfRoots

pytestmark = needs_root
# What changes something, on the server or on the disk.
STEPS = [
    (Server, "rows"),
    (SqliteLedger, "begin"),
    (SqliteLedger, "complete"),
    (SqliteLedger, "put_back"),
    (os, "rename"),
    (os, "unlink"),
    (os, "fsync"),
]
MOST = 200


def kills(root: Path, every: int, *words: str) -> Iterator[int]:
    """Kill a command at every so many of its steps; the caller mends it, and undoes it."""
    for at in range(0, MOST, every):
        died = killed(STEPS, root, at, *words)
        yield at
        if not died:
            assert at
            return
    pytest.fail("it never ends")


EVERY = pytest.mark.parametrize("every", [17, pytest.param(1, marks=pytest.mark.slow)])


@EVERY
def test_allocate(fleet: FleetOfRoots, every: int) -> None:
    a, b = fleet.host("a"), fleet.host("b")
    run(b, *ALLOCATE, "db")
    for at in kills(a, every, *ALLOCATE, "web"):
        run(a, "sync")
        is_well(fleet, (a, b))
        run(a, *ALLOCATE, "web")
        is_well(fleet, (a, b))
        assert "web" in ranges(a), at
        run(a, "release", "web")
        run(a, "release", "--forget", "web")


@EVERY
def test_release(fleet: FleetOfRoots, every: int) -> None:
    a, b = fleet.host("a"), fleet.host("b")
    for root in (a, b):
        run(root, *ALLOCATE, "web")
    for _ in kills(a, every, "release", "web"):
        # The next command mends it, whichever that is.
        run(a, *ALLOCATE, "other")
        is_well(fleet, (a, b))
        assert "web" in ranges(b)
        run(a, "release", "other")
        run(a, "release", "--forget", "other")
        run(a, *ALLOCATE, "web")
        assert ranges(a) == ranges(b)


@EVERY
def test_sync(fleet: FleetOfRoots, every: int) -> None:
    a, b = fleet.host("a", "usernsplan_operator"), fleet.host("b")
    run(b, *ALLOCATE, "old")
    run(a, *ALLOCATE, "web", "--on", "b")
    for _ in kills(b, every, "sync"):
        run(b, "sync")
        is_well(fleet, (a, b))
        assert sorted(ranges(b)) == ["old", "web"]
        assert fleet.query("SELECT * FROM usernsplan.wish") == []
        run(a, "release", "web", "--on", "b")
        run(b, "sync")
        assert sorted(ranges(b)) == ["old"]
        run(b, "release", "--forget", "web")
        run(a, *ALLOCATE, "web", "--on", "b")
