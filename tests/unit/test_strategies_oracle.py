"""The lines that we would write into subuid let the real newuidmap make the map of each strategy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.oracle import fresh_namespace, needs, under_etc
from usernsplan.formats import subid
from usernsplan.mapping import IdMap
from usernsplan.strategies import PerContainer, Shared, SingleUid

if TYPE_CHECKING:
    from pathlib import Path

    from usernsplan.strategies import Strategy

pytestmark = needs("newuidmap")


@pytest.mark.parametrize(
    ("strategy", "base"),
    [
        (PerContainer(), 589824),
        (PerContainer(size=1), 589824),
        (SingleUid(), 1000000000),
        (SingleUid(container_id=1000), 1000010000),
        (Shared(), None),
        (Shared(dockerroot=1000, filler=True), 589824),
        (Shared(identity=True), None),
    ],
)
def test_newuidmap_makes_the_map_with_our_lines_and_not_without_the_last_one(
    tmp_path: Path, strategy: Strategy, base: int | None
) -> None:
    ids = strategy.mapping(base).uids
    lines = [subid.line("root", ids_of_one) for ids_of_one in ids.host_ranges()]
    # The caller may always map its own uid alone, so a map of one id that is not root's is still refused.
    for granted, made in ((lines[:-1], False), (lines, True)):
        with fresh_namespace() as pid:
            words = [str(number) for triple in ids.triples() for number in triple]
            answer = under_etc(
                tmp_path, {"subuid": b"".join(granted)}, "newuidmap", str(pid), *words
            )
            assert (answer.returncode == 0) is made, answer.stderr
            with open(f"/proc/{pid}/uid_map", encoding="ascii") as file:
                shown = file.read()
            assert (IdMap.parse(shown) == ids) if made else (shown == "")
