"""Frozen values for a fast start: ``dataclass`` with its functions, and ``NamedTuple``.

They mean what they mean in dataclasses and typing, and type checkers see those. But dataclasses
compiles up to ten methods of each class that is imported, and typing compiles each annotation:
together a third of a short command. Here all classes share their methods, and the one that makes a
value is compiled for the first value of its class.
"""

from __future__ import annotations

from collections import _tuplegetter  # type: ignore[attr-defined]  # as namedtuple takes it
from operator import attrgetter
from types import MemberDescriptorType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import asdict, dataclass, field, fields, replace
    from typing import Any, NamedTuple

__all__ = ["NamedTuple", "asdict", "dataclass", "field", "fields", "replace"]

_NONE: Any = object()


class _Field:
    """What a class says of one field. ``default`` and ``factory`` are _NONE where it has none."""

    __slots__ = ("compare", "default", "factory", "init", "name", "repr")

    def __init__(
        self,
        *,
        default: Any = _NONE,
        default_factory: Any = _NONE,
        init: bool = True,
        repr: bool = True,  # noqa: A002 - the word of dataclasses.field
        compare: bool = True,
    ) -> None:
        self.name = ""
        self.default, self.factory = default, default_factory
        self.init, self.repr, self.compare = init, repr, compare


def _dataclass(
    *, frozen: bool = False, eq: bool = True, order: bool = False, slots: bool = False
) -> Any:
    """Make a class of values out of one that annotates its fields."""

    def made(cls: Any) -> Any:
        body = dict(cls.__dict__)
        every: dict[str, _Field] = {}
        for base in cls.__mro__[:0:-1]:
            every |= base.__dict__.get("__our_fields__", {})
        own = []
        for name, kind in body.get("__annotations__", {}).items():
            if not kind.startswith("ClassVar"):
                one = body.pop(name, _NONE)
                every[name] = one if isinstance(one, _Field) else _Field(default=one)
                every[name].name = name
                own.append(name)

        body = _methods(every, frozen=frozen, eq=eq, order=order) | body
        for name in ("__dict__", "__weakref__"):
            body.pop(name, None)
        if slots:
            body["__slots__"] = tuple(own)
        new = type(cls)(cls.__name__, cls.__bases__, body)
        new.__qualname__ = cls.__qualname__
        new.__init__ = _first_init(new)
        return new

    return made


def _methods(every: dict[str, _Field], *, frozen: bool, eq: bool, order: bool) -> dict[str, Any]:
    """The attributes of a class with these fields."""
    compared = [name for name, one in every.items() if one.compare]
    key: Any = attrgetter(*compared) if compared else lambda _: ()

    def equal(self: Any, other: Any) -> Any:
        return key(self) == key(other) if other.__class__ is self.__class__ else NotImplemented

    def less(self: Any, other: Any) -> Any:
        return key(self) < key(other) if other.__class__ is self.__class__ else NotImplemented

    def less_or_equal(self: Any, other: Any) -> Any:
        return key(self) <= key(other) if other.__class__ is self.__class__ else NotImplemented

    found: dict[str, Any] = {
        "__repr__": _text,
        "__getstate__": _state,
        "__setstate__": _set_state,
        "__match_args__": tuple(name for name, one in every.items() if one.init),
        "__dataclass_fields__": _Standard(),
        "__our_fields__": every,
    }
    if eq:
        found |= {"__eq__": equal, "__hash__": (lambda self: hash(key(self))) if frozen else None}
    if order:
        # Python turns > and >= around.
        found |= {"__lt__": less, "__le__": less_or_equal}
    if frozen:
        found |= {"__setattr__": _refuse, "__delattr__": _refuse}
    return found


def _first_init(cls: Any) -> Any:
    """The ``__init__`` of a class that has no value yet."""

    def __init__(self: Any, *values: Any, **named: Any) -> None:  # noqa: N807
        cls.__init__ = _init(cls)
        cls.__init__(self, *values, **named)

    return __init__


def _init(cls: Any) -> Any:
    """``__init__`` of a class, out of its fields."""
    scope: dict[str, Any] = {"_set": object.__setattr__, "_none": _NONE}
    words, steps = ["self"], []
    for name, one in cls.__our_fields__.items():
        word, value = name, name
        if not one.init:
            continue
        if one.factory is not _NONE:
            scope[f"_new_{name}"] = one.factory
            word, value = f"{name}=_none", f"_new_{name}() if {name} is _none else {name}"
        elif one.default is not _NONE:
            scope[f"_default_{name}"] = one.default
            word = f"{name}=_default_{name}"
        words.append(word)
        slot = getattr(cls, name, None)
        if isinstance(slot, MemberDescriptorType):
            # Half the time of object.__setattr__, which looks for the slot in the class.
            scope[f"_set_{name}"] = slot.__set__
            steps.append(f" _set_{name}(self, {value})\n")
        else:
            steps.append(f" _set(self, {name!r}, {value})\n")
    if hasattr(cls, "__post_init__"):
        steps.append(" self.__post_init__()\n")
    # The names of fields are identifiers: nothing here is text of others.
    exec(f"def __init__({', '.join(words)}):\n{''.join(steps)} return", scope)  # noqa: S102
    scope["__init__"].__qualname__ = f"{cls.__qualname__}.__init__"
    return scope["__init__"]


def _text(self: Any) -> str:
    shown = (name for name, one in self.__our_fields__.items() if one.repr)
    inner = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
    return f"{type(self).__qualname__}({inner})"


def _refuse(self: object, name: str, *_: object) -> None:
    from dataclasses import FrozenInstanceError  # noqa: PLC0415 - only after a mistake

    raise FrozenInstanceError(f"cannot change field '{name}' of a {type(self).__name__}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, name) for name in self.__our_fields__]


def _set_state(self: Any, state: list[Any]) -> None:
    for name, value in zip(self.__our_fields__, state, strict=True):
        object.__setattr__(self, name, value)


class _Standard:
    """``__dataclass_fields__``, for those who use the functions of dataclasses with our values."""

    def __get__(self, _: object, cls: Any) -> Any:
        import dataclasses  # noqa: PLC0415 - our own functions do not need it

        made = []
        for name, one in cls.__our_fields__.items():
            how = {word: getattr(one, word) for word in ("init", "repr", "compare")}
            if one.default is not _NONE:
                how["default"] = one.default
            if one.factory is not _NONE:
                how["default_factory"] = one.factory
            made.append((name, "typing.Any", dataclasses.field(**how)))
        return dataclasses.make_dataclass(cls.__name__, made).__dict__["__dataclass_fields__"]


def _replace(value: Any, /, **changes: Any) -> Any:
    """A value like another, with these fields changed."""
    kept = [
        changes.pop(name) if name in changes else getattr(value, name)
        for name in value.__match_args__
    ]
    # What is left over is no field, which the class says.
    return type(value)(*kept, **changes)


def _asdict(value: Any) -> Any:
    """A value, and those in it, as dicts."""
    if hasattr(value, "__our_fields__"):
        return {name: _asdict(getattr(value, name)) for name in value.__our_fields__}
    if isinstance(value, dict):
        return type(value)((_asdict(key), _asdict(one)) for key, one in value.items())
    if isinstance(value, list | tuple):
        items = map(_asdict, value)
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def _fields(value: Any) -> tuple[_Field, ...]:
    """The fields of a value, or of its class."""
    return tuple(value.__our_fields__.values())


class _Tuples(type):
    """Makes a class of named tuples out of one that annotates its items."""

    def __new__(cls, name: str, bases: tuple[Any, ...], body: dict[str, Any]) -> Any:
        if not bases:
            return super().__new__(cls, name, bases, body)
        names = tuple(body.get("__annotations__", ()))
        defaults = {word: body.pop(word) for word in names if word in body}

        body |= {word: _tuplegetter(number, None) for number, word in enumerate(names)}
        body |= {
            "__slots__": (),
            "__repr__": _tuple_text,
            "__getnewargs__": _tuple_items,
            "__match_args__": names,
            "_fields": names,
            "_field_defaults": defaults,
            "_make": classmethod(_tuple_of),
            "_replace": _tuple_replace,
            "_asdict": _tuple_asdict,
        }
        made: Any = type(name, (tuple,), body)
        made.__new__ = _first_new(made)
        return made


class _NamedTuple(metaclass=_Tuples):
    """The base of named tuples."""


def _first_new(made: Any) -> Any:
    """The ``__new__`` of a class of named tuples that has no value yet."""

    def __new__(cls: Any, *values: Any, **named: Any) -> Any:  # noqa: N807
        made.__new__ = _tuple_new(made)
        return made.__new__(cls, *values, **named)

    return __new__


def _tuple_new(cls: Any) -> Any:
    """``__new__`` of a class of named tuples."""
    scope: dict[str, Any] = {"_new": tuple.__new__}
    words = ["_cls", *cls._fields]
    for number, name in enumerate(cls._fields, 1):
        if name in cls._field_defaults:
            scope[f"_default_{name}"] = cls._field_defaults[name]
            words[number] = f"{name}=_default_{name}"
    items = "".join(f"{name}, " for name in cls._fields)
    # As above: identifiers.
    exec(f"def __new__({', '.join(words)}):\n return _new(_cls, ({items}))", scope)  # noqa: S102
    scope["__new__"].__qualname__ = f"{cls.__qualname__}.__new__"
    return scope["__new__"]


def _tuple_text(self: Any) -> str:
    inner = ", ".join(f"{name}={one!r}" for name, one in zip(self._fields, self, strict=True))
    return f"{type(self).__name__}({inner})"


def _tuple_items(self: Any) -> tuple[Any, ...]:
    return tuple(self)


def _tuple_of(cls: Any, items: Any) -> Any:
    made = tuple.__new__(cls, items)
    if len(made) != len(cls._fields):
        raise TypeError(f"expected {len(cls._fields)} items, got {len(made)}")
    return made


def _tuple_replace(self: Any, /, **changes: Any) -> Any:
    made = self._make(map(changes.pop, self._fields, self))
    if changes:
        raise ValueError(f"no such fields: {list(changes)}")
    return made


def _tuple_asdict(self: Any) -> dict[str, Any]:
    return dict(zip(self._fields, self, strict=True))


if not TYPE_CHECKING:
    asdict, dataclass, field, fields, replace = _asdict, _dataclass, _Field, _fields, _replace
    NamedTuple = _NamedTuple
