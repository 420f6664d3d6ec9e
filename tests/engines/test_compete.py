"""With the real programs nobody holds an id twice: nobody takes what we gave out, and we never give out what is taken.

``USERNSPLAN_COMPETE_SEED=SEED`` makes the same choices again; a failure names the seed.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from tests.command import slow
from tests.engines.compete import World, nobody_can_help, overlaps, world

if TYPE_CHECKING:
    from tests.engines.throwaway import ThrowawayHost

SEED = os.environ.get("USERNSPLAN_COMPETE_SEED") or str(random.SystemRandom().randrange(10**6))

# 80 rounds together; LXD and Incus would hand out the same line of root's, and so take turns.
WORLDS, ROUNDS = 4, 20
CLIENTS = ("lxc", "incus")


class Overlapped(AssertionError):  # noqa: N818 - it says what is the case, as the package's own exceptions do
    """Somebody holds ids of somebody else's that they, or we, could have left alone."""


def compete(everybody: World, rounds: int) -> None:
    """Let them compete; after each step, look at what everybody holds."""
    for _ in range(rounds):
        for step, undo in everybody.round():
            found = overlaps(everybody.held())
            if not all(map(nobody_can_help, found)):
                told = (*map(str, found), "what had happened:", *everybody.log)
                raise Overlapped("\n".join((f"seed {everybody.seed}, after {step}:", *told)))
            if found and everybody.aware:
                everybody.explains(found)
            if found:
                undo()


def test_for_a_few_rounds_nobody_holds_an_id_twice(host: ThrowawayHost) -> None:
    with world(host, f"{SEED}/few", "lxc") as everybody:
        compete(everybody, 2)
    assert everybody.done["usernsplan pool"] or everybody.done["usernsplan allocate"]


@pytest.mark.parametrize(
    ("number", "client"), slow(*((number, CLIENTS[number % 2]) for number in range(WORLDS)))
)
def test_nobody_holds_an_id_twice(host: ThrowawayHost, number: int, client: str) -> None:
    with world(host, f"{SEED}/{number}", client) as everybody:
        compete(everybody, ROUNDS)
    # Nobody was spared an overlap by never coming to anything; chance may leave out one of them.
    done = {what for what, times in everybody.done.items() if times}
    wanted = {
        "usernsplan pool",
        "usernsplan allocate",
        "usernsplan release",
        "useradd",
        "usermod --add-subuids",
        "nspawn tree as hashed",
        "podman run",
        f"{client} start",
    }
    assert len(wanted - done) <= 1, wanted - done


@pytest.mark.parametrize(
    ("number", "client"),
    [(0, "lxc"), *slow(*((number, CLIENTS[number % 2]) for number in range(1, WORLDS)))],
)
def test_without_what_we_see_and_show_some_do(
    host: ThrowawayHost, number: int, client: str
) -> None:
    with (
        world(host, f"{SEED}/{number}", client, aware=False) as everybody,
        pytest.raises(Overlapped, match=r"usernsplan-|containers"),
    ):
        compete(everybody, ROUNDS)
