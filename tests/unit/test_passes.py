"""Passes and maps as text, and the map that passes make."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.each import each
from usernsplan.errors import InvalidValueError
from usernsplan.formats import passes
from usernsplan.formats.passes import Asked
from usernsplan.ids import IdRange
from usernsplan.mapping import KINDS, Extent, IdMap, Kind, Mapping, Pass, around, joined
from usernsplan.strategies import PerContainer


@each(
    ("text", "asked"),
    [
        ("u:1000", Asked(("uid",), IdRange(1000, 1), None)),
        ("g:104:107", Asked(("gid",), IdRange(104, 1), 107)),
        ("b:1000-1005", Asked(KINDS, IdRange(1000, 6), None)),
        ("b:1000-1005:0", Asked(KINDS, IdRange(1000, 6), 0)),
        ("b:1000-1005:10-15", Asked(KINDS, IdRange(1000, 6), 10)),
        ("g:render:107", Asked(("gid",), "render", 107)),
        ("u:alice", Asked(("uid",), "alice", None)),
        ("u:007", Asked(("uid",), "007", None)),
        ("u:0", Asked(("uid",), IdRange(0, 1), None)),
        ("g:0-9:0", Asked(("gid",), IdRange(0, 10), 0)),
    ],
)
def test_a_pass_is_read(text: str, asked: Asked) -> None:
    assert passes.parse(text) == asked


@each(
    "text",
    [
        "",
        "u",
        "u:",
        "x:1",
        "1000",
        "u:1:",
        "u:1:x",
        "u:5-4",
        "u:4294967295",
        "b:1-3:5-6",
        "u:1:2:3",
        "u:5:007",
        "u:1000,g:104",
        "b 1000 1000",
        "uid:1000",
    ],
)
def test_what_is_no_pass_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        passes.parse(text)


def test_the_map_splits_around_a_pass() -> None:
    shape = PerContainer(passes=(Pass("gid", Extent(107, 104, 1)),))
    made = shape.mapping(589824)
    assert made.uids.triples() == [(0, 589824, 65536)]
    assert made.gids.triples() == [(0, 589824, 107), (107, 104, 1), (108, 589932, 65428)]


def test_neighbours_join() -> None:
    found = joined(
        [
            Pass("gid", Extent(5, 5, 1)),
            Pass("uid", Extent(1001, 1001, 2)),
            Pass("uid", Extent(1000, 1000, 1)),
        ]
    )
    assert found == (Pass("uid", Extent(1000, 1000, 3)), Pass("gid", Extent(5, 5, 1)))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9), st.integers(1, 3)), max_size=4))
def test_a_map_with_passes_is_what_a_naive_model_says(shown: list[tuple[int, int, int]]) -> None:
    base, count = 100, 20
    naive = {number: base + number for number in range(count)}
    hosts, containers = [], []
    for container, host, size in shown:
        for step in range(size):
            naive[container + step] = host + step
            hosts.append(host + step)
            containers.append(container + step)
    extents = [Extent(*one) for one in shown]
    if len({*hosts}) < len(hosts) or len({*containers}) < len(containers):
        with pytest.raises(InvalidValueError):
            around(base, count, extents)
        return
    made = around(base, count, extents)
    assert {number: made.to_host(number) for number in range(60)} == {
        number: naive.get(number) for number in range(60)
    }


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 9), st.integers(0, 9)), max_size=5)
)
def test_the_text_of_passes_asks_for_them(shown: list[tuple[Kind, int, int]]) -> None:
    made = joined({Pass(kind, Extent(container, host, 1)) for kind, container, host in shown})
    asked = map(passes.parse, passes.written(made))
    again = {
        Pass(
            kind,
            Extent(
                one.host.start if one.container is None else one.container,
                one.host.start,
                one.host.count,
            ),
        )
        for one in asked
        for kind in one.kinds
        if isinstance(one.host, IdRange)
    }
    assert again == {*made}


def test_a_map_is_written_and_read() -> None:
    uids = IdMap.of((0, 100000, 1000), (1000, 1000, 1))
    for mapping in (Mapping(uids, uids), Mapping(uids, IdMap.of((0, 200000, 65536)))):
        assert passes.parse_map(passes.map_lines(mapping)) == mapping
    assert passes.map_lines(Mapping(uids, uids)) == ("b 0 100000 1000", "b 1000 1000 1")
