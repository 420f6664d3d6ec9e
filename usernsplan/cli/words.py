"""The words of a command line: what commands declare, and reading it where that is simple.

typer takes longer to import than most commands to run. So commands declare their parameters here, in
typer's words, and ``read`` understands command lines of plain words. For any other, ``cli/app.py``
tells typer the same: help, wrong usage and all that is unusual is typer's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_TEXTS = (str, Optional[str])
_NUMBERS = (int, Optional[int])
_SEVERAL = (list[str], Optional[list[str]])
# A whole number that Python and typer read in the same way has at most these digits and a sign.
_DIGITS = 18


class Declared:
    """The declaration of a parameter: its names on the command line, and typer's other options."""

    def __init__(self, *names: str, **more: Any) -> None:
        self.names = names
        self.more = more


class Option(Declared):
    """An option. Without a name here, it has that of its parameter."""


class Argument(Declared):
    """A word without an option."""


class Parameter(NamedTuple):
    """A parameter of a command's function. ``default`` is REQUIRED if it has none."""

    name: str
    kind: Any
    declared: Declared
    default: Any

    @property
    def is_option(self) -> bool:
        """Tell an option from an argument."""
        return isinstance(self.declared, Option)

    @property
    def words(self) -> tuple[str, ...]:
        """The names of the option as they are typed."""
        return self.declared.names or (f"--{self.name.replace('_', '-')}",)


REQUIRED: Any = object()


class Call(NamedTuple):
    """A function with its arguments, and the option as it was typed for each of them."""

    function: Callable[..., None]
    arguments: dict[str, Any]
    typed: dict[str, str]


def parameters(function: Any) -> Iterator[Parameter]:  # noqa: ANN401 - of any parameters
    """The parameters of a command in their order.

    ``function.more`` are those of its ``**named``: the parameter that they follow, and each with what
    it declares.
    """
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    values = function.__defaults__ or ()
    defaults = dict(zip(names[len(names) - len(values) :], values, strict=True))
    after, more = getattr(function, "more", ("", {}))
    for name in names:
        # As inspect does it; we have written these texts.
        said = eval(function.__annotations__[name], function.__globals__)  # noqa: S307
        [declared] = said.__metadata__
        yield Parameter(name, said.__origin__, declared, defaults.get(name, REQUIRED))
        if name == after:
            for also, it in more.items():
                yield Parameter(also, Optional[int], it, None)


def read(function: Callable[..., None], words: Sequence[str]) -> Call | None:
    """What plain words mean for a command; None if typer has to read them. Pure."""
    every = list(parameters(function))
    options = {word: one for one in every if one.is_option for word in one.words}
    call = Call(function, {}, {})
    loose = []
    rest = iter(words)
    for word in rest:
        if word[:1] != "-" or word == "-":
            loose.append(word)
            continue
        name, equals, value = word.partition("=")
        one = options.get(name)
        if one is None or (equals and one.kind is bool):
            return None
        if one.kind is bool:
            call.arguments[one.name] = True
        elif not _put(call, one, value if equals else next(rest, "")):
            return None
        call.typed[one.name] = call.typed[one.words[0].lstrip("-")] = one.words[0]

    return call if _place(call, [one for one in every if not one.is_option], loose) else None


def _place(call: Call, arguments: Sequence[Parameter], loose: list[str]) -> bool:
    """Give the arguments their words, in their order; False if these are too few or too many."""
    for one in arguments:
        taken = len(loose) if one.kind in _SEVERAL else 1
        if not all(_put(call, one, word) for word in loose[:taken]):
            return False
        loose = loose[taken:]
        if one.name not in call.arguments and one.default is REQUIRED:
            return False
    return not loose


def _put(call: Call, one: Parameter, word: str) -> bool:
    """Give a parameter a value; False if the word is not a plain one, or it has a value already."""
    if not word or (word[0] == "-" and word != "-"):
        return False
    if one.kind in _SEVERAL:
        call.arguments.setdefault(one.name, []).append(word)
        return True
    if one.name in call.arguments:
        return False
    if one.kind in _NUMBERS:
        if not (word.isascii() and word.isdigit() and len(word) <= _DIGITS):
            return False
        least, most = (one.declared.more.get(end) for end in ("min", "max"))
        call.arguments[one.name] = number = int(word)
        return (least is None or least <= number) and (most is None or number <= most)
    call.arguments[one.name] = word
    return one.kind in _TEXTS
