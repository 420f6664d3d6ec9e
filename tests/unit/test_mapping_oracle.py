"""IdMap and the kernel agree: each candidate is written to the uid_map of a fresh user namespace."""

from __future__ import annotations

import subprocess

import pytest

from tests.each import each
from tests.unit.maps import Triple, can_be_made, exactly
from tests.unit.oracle import fresh_namespace, kernel_takes, needs
from usernsplan.errors import InvalidValueError
from usernsplan.mapping import IdMap

pytestmark = needs("nsenter")

CANDIDATES: list[list[Triple]] = [
    [],
    [(0, 0, 1)],
    [(0, 100000, 65536)],
    [(0, 0, 4294967295)],
    [(0, 0, 4294967296)],
    [(0, 0, 4294967294)],
    [(0, 1, 4294967294)],
    [(1, 0, 4294967294)],
    [(0, 1, 4294967295)],
    [(1, 0, 4294967295)],
    [(0, 0, 0)],
    [(5, 5, 0)],
    [(0, 0, -1)],
    [(-1, 0, 1)],
    [(0, -1, 1)],
    [(4294967294, 0, 1)],
    [(0, 4294967294, 1)],
    [(4294967295, 0, 1)],
    [(0, 4294967295, 1)],
    [(4294967294, 0, 2)],
    [(0, 4294967294, 2)],
    [(0, 2, 1), (3, 3, 4294967292)],
    [(0, 2, 1), (3, 3, 4294967293)],
    [(0, 2, 1), (1, 589824, 2), (3, 3, 65533)],
    [(0, 100, 10), (10, 110, 10)],
    [(10, 110, 10), (0, 100, 10)],
    [(0, 100, 10), (9, 200, 1)],
    [(9, 200, 1), (0, 100, 10)],
    [(0, 100, 10), (10, 109, 1)],
    [(10, 109, 1), (0, 100, 10)],
    [(0, 100, 10), (3, 300, 2)],
    [(0, 100, 10), (0, 100, 10)],
    [(0, 100, 1), (1, 100, 1)],
    [(0, 100, 1), (0, 101, 1)],
    [(0, 0, 1), (1, 1, 0)],
    [(i, i, 1) for i in range(5)],
    [(i, i, 1) for i in range(6)],
    [(i, i, 1) for i in range(340)],
    [(i, i, 1) for i in range(341)],
    [*((i, i, 1) for i in range(339)), (5, 400, 1)],
    [*((i, i, 1) for i in range(339)), (400, 5, 1)],
    [(i, 4000000000 - i, 1) for i in range(230)],
    [(i, 4000000000 - i, 1) for i in range(250)],
    exactly(4095),
    exactly(4096),
    exactly(4097),
]


@each("extents", CANDIDATES)
def test_a_map_can_be_made_exactly_when_the_kernel_takes_it(extents: list[Triple]) -> None:
    text = "".join(f"{container} {host} {count}\n" for container, host, count in extents)
    # A write of no bytes never reaches the kernel's parser; a line end alone is the emptiest map that does.
    assert kernel_takes(text or "\n") is can_be_made(extents)


@pytest.mark.parametrize("extent", [(4294967296, 0, 1), (0, 4294967296, 1), (0, 0, 4294967297)])
def test_a_number_past_32_bits_is_refused_though_the_kernel_takes_it_for_a_small_one(
    extent: Triple,
) -> None:
    assert kernel_takes("{} {} {}\n".format(*extent))
    assert not can_be_made([extent])


@pytest.mark.parametrize("text", ["0 0x10 1\n", "0 0 1 1\n", "0 0\n", "0 0 1\n\n1 1 1\n", "\n"])
def test_a_text_that_the_kernel_refuses_is_no_map_to_us(text: str) -> None:
    assert not kernel_takes(text)
    with pytest.raises(InvalidValueError):
        IdMap.parse(text)


def test_what_proc_shows_of_a_map_is_read_back_as_that_map() -> None:
    ids = IdMap.of((0, 2, 1), (1, 589824, 2), (3, 3, 65533))
    with fresh_namespace() as pid:
        with open(f"/proc/{pid}/uid_map", "w", encoding="ascii") as file:
            file.write(ids.text())
        with open(f"/proc/{pid}/uid_map", encoding="ascii") as file:
            assert IdMap.parse(file.read()) == ids


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ([(0, 0, 1000)], [(0, 100000, 65536)]),
        ([(0, 5, 10), (10, 0, 5), (40, 65530, 6)], [(0, 100000, 65536)]),
        ([(0, 0, 1), (7, 3, 20), (1, 100, 2)], [(0, 2, 1), (3, 3, 65533)]),
        ([(100, 0, 2), (0, 50, 3)], [(50, 765536, 50), (0, 665536, 50)]),
    ],
)
def test_nested_namespaces_map_as_the_composition_of_their_maps(
    inner: list[Triple], outer: list[Triple]
) -> None:
    # The kernel wants each inner extent within one of the outer ones; compose() could also split it.
    under, over = IdMap.of(*inner), IdMap.of(*outer)
    with fresh_namespace() as first:
        for kind in ("uid", "gid"):
            with open(f"/proc/{first}/{kind}_map", "w", encoding="ascii") as file:
                file.write(over.text())
        enter = ("nsenter", "--user", "--target", str(first))
        with fresh_namespace(*enter) as second:
            write = [*enter, "sh", "-c", f"cat > /proc/{second}/uid_map"]
            subprocess.run(write, input=under.text().encode(), check=True)
            with open(f"/proc/{second}/uid_map", encoding="ascii") as file:
                assert IdMap.parse(file.read()) == under.compose(over)
