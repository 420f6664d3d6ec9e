"""Our values are those of dataclasses and typing, but for how they are made."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
import typing
from typing import Any, ClassVar

import pytest

from usernsplan import model, patterns, values


def classes(made: Any, field: Any, named: Any) -> tuple[Any, Any, Any]:  # noqa: ANN401 - either module's
    @made(frozen=True, slots=True, order=True)
    class Pair:
        kind: ClassVar[str] = "pair"
        one: int
        two: tuple[int, ...] = ()
        rest: dict[str, int] = field(default_factory=dict, compare=False)
        quiet: str = field(default="q", repr=False)
        size: int = field(init=False, repr=False, compare=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "size", len(self.two))

    @made(slots=True)
    class Open:
        seen: list[int] = field(default_factory=list)
        state: str = ""

    class Row(named):  # type: ignore[misc]  # either base
        """A row."""

        name: str
        number: int = 0

        def text(self) -> str:
            return f"{self.name}:{self.number}"

    return Pair, Open, Row


OURS = classes(values.dataclass, values.field, values.NamedTuple)
THEIRS = classes(dataclasses.dataclass, dataclasses.field, typing.NamedTuple)
BOTH = pytest.mark.parametrize(("Pair", "Open", "Row"), [OURS, THEIRS])


@BOTH
def test_a_value(Pair: Any, Open: Any, Row: Any) -> None:  # noqa: N803, ARG001, ANN401 - classes
    one = Pair(1, (2, 3))
    assert repr(one).endswith("Pair(one=1, two=(2, 3), rest={})")
    assert (one.kind, one.size, one.quiet) == ("pair", 2, "q")
    assert one == Pair(two=(2, 3), one=1, rest={"other": 1})
    assert one != Pair(1, (2, 3), quiet="other")
    assert one != (1, (2, 3))
    assert len({one, Pair(1, (2, 3)), Pair(2)}) == 2
    assert sorted([Pair(2), one, Pair(1)]) == [Pair(1), one, Pair(2)]
    assert Pair(2) > one >= Pair(1, (2, 3))
    assert Pair(2).rest is not Pair(2).rest
    match one:
        case Pair(number, (*_, last)):
            assert (number, last) == (1, 3)
    with pytest.raises(TypeError):
        one < 1  # noqa: B015
    with pytest.raises(TypeError, match="__init__"):
        Pair()
    with pytest.raises(TypeError, match="__init__"):
        Pair(1, (), {}, "", 5)
    with pytest.raises(TypeError, match="other"):
        Pair(1, other=1)


@BOTH
def test_a_frozen_value_does_not_change(Pair: Any, Open: Any, Row: Any) -> None:  # noqa: N803, ANN401
    one = Pair(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.one = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.one
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
        one.other = 2
    with pytest.raises(AttributeError):
        Row("a").name = "b"
    free = Open()
    free.state = "done"
    free.seen.append(1)
    assert (free, Open().seen) == (Open([1], "done"), [])
    with pytest.raises(AttributeError):
        free.other = 1
    with pytest.raises(TypeError):
        hash(free)


@BOTH
@pytest.mark.parametrize("functions", [values, dataclasses])
def test_functions_of_values(functions: Any, Pair: Any, Open: Any, Row: Any) -> None:  # noqa: N803, ANN401
    if functions is values and Pair is THEIRS[0]:
        return
    one = Pair(1, (2,))
    assert functions.replace(one, one=5) == Pair(5, (2,))
    with pytest.raises(TypeError):
        functions.replace(one, other=5)
    assert [field.name for field in functions.fields(Pair)] == [
        "one", "two", "rest", "quiet", "size"
    ]  # fmt: skip
    nested = Open([one, Row("a")], {"key": [one]})
    plain = {"one": 1, "two": (2,), "rest": {}, "quiet": "q", "size": 1}
    assert functions.asdict(nested) == {"seen": [plain, Row("a")], "state": {"key": [plain]}}
    assert dataclasses.is_dataclass(one)


@BOTH
def test_a_named_tuple(Pair: Any, Open: Any, Row: Any) -> None:  # noqa: N803, ARG001, ANN401
    row = Row("a", number=2)
    assert row == ("a", 2)
    assert (row.name, row.number, row.text(), row.__doc__) == ("a", 2, "a:2", "A row.")
    assert repr(row) == "Row(name='a', number=2)"
    assert Row("b") == ("b", 0)
    assert row._replace(number=3) == Row("a", 3)
    assert row._asdict() == {"name": "a", "number": 2}
    assert Row._make(["c", 4]) == Row("c", 4)
    assert Row._fields == ("name", "number")
    with pytest.raises(TypeError):
        Row._make(["c"])
    with pytest.raises((TypeError, ValueError)):
        row._replace(other=1)
    with pytest.raises(TypeError, match="__new__"):
        Row()
    match row:
        case Row(name, number):
            assert (name, number) == row


@pytest.mark.parametrize(
    "value", [model.Change("/a", None, b""), model.Actor(0, 1), model.LedgerState(number=3)]
)
def test_a_value_can_be_sent_and_copied(value: Any) -> None:  # noqa: ANN401 - any value
    for same in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):  # noqa: S301
        assert same == value
        assert type(same) is type(value)


def test_a_pattern_is_that_of_re() -> None:
    found = patterns.pattern("(a)|B", re.IGNORECASE)
    for _ in range(2):
        match = found.fullmatch("b")
        assert match
        assert match[0] == "b"
    assert found.sub("x", "abc") == "xxc"
    assert found.pattern == "(a)|B"
