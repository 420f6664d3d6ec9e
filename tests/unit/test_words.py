"""Plain command lines mean the same without typer as with it."""

from __future__ import annotations

from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import typer.main

from usernsplan.cli import app, usage
from usernsplan.cli.commands import COMMANDS, function_of
from usernsplan.cli.words import REQUIRED, Parameter, parameters, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.cli.words import Call

# What is a value for some parameter, and what only typer understands, or nobody.
VALUES = ("web", "1", "007", "-", "/a=b", "u:1000", "caf\udce9")
ODD = (
    "",
    "--",
    "-1",
    "-x",
    "--nope",
    "--root",
    "--json=yes",
    "--help",
    "1_0",
    "٣",
    "9" * 30,
    "a b",
)


class Stand:
    """Stands for a command's function, and notes how it is called."""

    def __init__(self, function: Any) -> None:  # noqa: ANN401 - of any parameters
        for name in ("__code__", "__defaults__", "__annotations__", "__globals__", "__doc__"):
            setattr(self, name, getattr(function, name))
        self.more: Any = getattr(function, "more", ("", {}))
        self.called: dict[str, Any] = {}

    def __call__(self, **arguments: Any) -> None:
        self.called = arguments


def lines(function: Any, random: Random) -> Iterator[list[str]]:  # noqa: ANN401 - of any parameters
    """Command lines: each option by itself, and any words together."""

    def typed(one: Parameter, value: str) -> list[str]:
        if not one.is_option:
            return [value]
        word = random.choice(one.words)
        if one.kind is bool:
            return [word]
        return [f"{word}={value}"] if random.random() < 0.3 else [word, value]

    every = list(parameters(function))
    needed = [one for one in every if one.default is REQUIRED and not one.is_option]
    least = [word for one in needed for word in typed(one, "web")]
    yield least
    for one in every:
        yield [*least, *typed(one, "1")]
    for _ in range(30):
        pieces = [typed(one, random.choice(VALUES)) for one in random.choices(every, k=3)]
        pieces += [least] * random.choice((0, 1, 1, 1))
        pieces += [[random.choice(ODD)]] * random.choice((0, 0, 1))
        random.shuffle(pieces)
        yield [word for piece in pieces for word in piece]


FUNCTIONS = {
    f"{name} {inner}".strip(): function
    for name in COMMANDS
    for inner, function in getattr(function_of(name), "commands", {"": function_of(name)}).items()
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_read_without_typer_is_what_typer_reads(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Stand(FUNCTIONS[name])
    command = typer.main.get_command(typer_app_of(stand))
    places: list[Any] = []

    @contextmanager
    def placed(typed: Any) -> Iterator[None]:  # noqa: ANN401 - see errors.placed
        places.append(typed)
        yield

    monkeypatch.setattr(usage, "placed", placed)
    usual = {one.name: one.default for one in parameters(stand) if one.default is not REQUIRED}

    plain = 0
    for words in lines(FUNCTIONS[name], Random(name)):  # noqa: S311 - the same words each time
        call: Call | None = read(stand, words)
        if call is None:
            continue
        plain += 1
        with command.make_context(name, list(words)) as context:
            command.invoke(context)
        assert {**usual, **call.arguments} == stand.called, words
        assert call.typed == places.pop(), words
    # Each line without an odd word is plain, unless it gives one option twice.
    assert plain >= min(8, 2 * len(usual))


def typer_app_of(stand: Stand) -> typer.Typer:
    made = typer.Typer(add_completion=False)
    made.command(cls=usage.Command)(app.for_typer(stand))
    return made
