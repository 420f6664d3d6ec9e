"""The place of a folder: the same as a list of names, and as quick at any depth."""

from __future__ import annotations

import io
import os
import pickle
import socket
import subprocess
import threading
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.each import each
from usernsplan import IdMap, Mapping
from usernsplan.volume import targets, walk
from usernsplan.volume.forked import Board, Line, _Pickler, receive, send
from usernsplan.volume.parts import TOP, Parts
from usernsplan.volume.passes import Pass
from usernsplan.volume.workers import Look, _look

NAMES = st.lists(st.sampled_from("ab"), max_size=5)
DEEP = 30_000


@given(one=NAMES, other=NAMES, depth=st.integers(0, 6))
def test_a_place_is_its_names(one: list[str], other: list[str], depth: int) -> None:
    place, second = Parts.of(one), Parts.of(other)
    assert [*place] == one
    assert (len(place), place.depth, bool(place)) == (len(one), len(one), bool(one))
    assert place.since(depth) == one[depth:]
    assert [*place.upto(depth)] == one[:depth]
    assert (place == second) is (one == other)
    assert one != other or hash(place) == hash(second)
    shared = place.shared(second)
    assert shared == second.shared(place)
    assert one[:shared] == other[:shared]
    assert one[shared : shared + 1] != other[shared : shared + 1] or shared == len(one) == len(
        other
    )
    assert second.branch(shared, place.since(shared)) == place


def test_there_is_one_top() -> None:
    assert Parts.of([]) is TOP
    assert TOP.above is TOP
    assert deepcopy(TOP) is TOP
    assert Parts.of("ab").above.above is TOP
    assert Parts.of("a") != ("a",)


@each("depth", [3, -1])
def test_a_branch_begins_at_a_place_that_exists(depth: int) -> None:
    with pytest.raises(ValueError, match=f"no {depth} names"):
        Parts.of("ab").branch(depth, ["c"])


def sent(message: object) -> tuple[object, int]:
    """What arrives at the other end, and how many bytes it took."""
    raw = io.BytesIO()
    _Pickler(raw, pickle.HIGHEST_PROTOCOL).dump(message)
    return pickle.loads(raw.getvalue()), raw.tell()  # noqa: S301 - our own


@given(places=st.lists(NAMES.map(Parts.of), max_size=8))
def test_places_arrive_as_they_were_sent(places: list[Parts]) -> None:
    assert sent(places)[0] == places
    assert pickle.loads(pickle.dumps(places)) == places  # noqa: S301 - our own


def test_no_place_is_too_deep_to_be_sent_copied_compared_or_forgotten() -> None:
    deep = Parts.of("d" * DEEP)
    # A comb: each place has one beside the chain. Each takes as many bytes as it adds names.
    comb = [deep]
    for _ in range(DEEP // 10):
        comb.append(comb[-1].above)
    comb = [place.below("s") for place in comb]
    arrived, size = sent(comb)
    assert isinstance(arrived, list)
    assert arrived[-1] == comb[-1]
    assert size < 50 * DEEP
    assert all(one.above.above is other.above for one, other in pairwise(arrived))
    assert deepcopy(deep) == deep == Parts.of(deep)
    assert deep != Parts.of("e" + "d" * (DEEP - 1))


class _AlwaysAsked(Board):
    def asked(self, worker: int) -> bool:
        return worker == 0


def test_a_deep_chain_does_not_go_to_and_fro_between_workers(tmp_path: Path) -> None:
    """To send a place takes as long as it is deep, so a worker without work gets some only now and then."""
    top, depth = (tmp_path / "vol").resolve(), 200
    here = top
    for _ in range(depth):
        here /= "d"
        os.makedirs(here.parent / "s")
    before = os.getcwd()
    volume = walk.volume(str(top))
    ids = IdMap.of((0, 100000, 65536))
    order = Look(Pass(targets.shift(Mapping(ids, ids))), 0, None)
    ours, theirs = socket.socketpair()
    seen: list[int] = []
    worker = threading.Thread(
        target=lambda: seen.append(_look(Line(theirs, 0, _AlwaysAsked()), [volume], order).entries)
    )
    try:
        worker.start()
        waiting: list[list[walk.Waiting]] = [[(0, TOP, [""], 0)]]
        given = 0
        while waiting:
            send(ours, waiting.pop())
            while (message := receive(ours)[1]) is not None:
                waiting.append(message)
                given += 1
        send(ours, None)
        worker.join(60)
        assert seen == [2 * depth]
        assert 1 < given < 40
    finally:
        os.chdir(before)
        os.close(volume.top)
        ours.close()
        theirs.close()
        subprocess.run(["rm", "-rf", top], check=True)
