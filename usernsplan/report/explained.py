"""What fix-volume --explain says of volumes: a screen each, and a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from usernsplan.escape import line, shown_path
from usernsplan.report import json_

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from usernsplan.fixing import Census, Choice, Effect, Explained

_WIDTH, _NAME, _CELL = 80, 17, 31
_OWNERS = 4


def text(found: Sequence[Explained]) -> Iterator[str]:
    """The lines of each volume, and what the methods mean for others."""
    for number, one in enumerate(found):
        yield from [""] * bool(number)
        whose = f" for {one.container}" if one.container else ""
        yield f"{shown_path(one.path)}{whose}"
        yield from _row("file system", one.kind)
        yield from _row("entries", _entries(one.census))
        yield from _row("owners", _owners(one.census))
        if one.mode:
            yield from _row("mode that fits", f"{one.mode}: {one.why}")
        for choice in one.choices:
            yield from _choice(choice)
        for user in one.users:
            yield from _row("in use", user)
        yield ""
        yield from _effects(one.effects)


def _row(name: str, value: str) -> Iterator[str]:
    first, *others = _wrapped(value, _WIDTH - _NAME)
    yield f"{name:<{_NAME}}{first}"
    yield from (f"{'':<{_NAME}}{other}" for other in others)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of text; a path that is longer stays whole."""
    import textwrap  # noqa: PLC0415 - slow, and only here

    found = textwrap.wrap(line(text), width, break_on_hyphens=False, break_long_words=False)
    return found or [""]


def _entries(census: Census) -> str:
    took = f"counted in {census.seconds:.1f} s"
    if census.is_whole:
        return f"{census.entries}, {took}"
    most = f", at most {census.at_most} (its file system)" if census.at_most else ""
    return f"more than {census.entries}, {took}{most}"


def _owners(census: Census) -> str:
    some = ", ".join(f"{uid}:{gid} ({n})" for uid, gid, n in census.owners[:_OWNERS])
    more = len(census.owners) - _OWNERS
    return some + (f" and {more} more" if more > 0 else "")


def _choice(choice: Choice) -> Iterator[str]:
    # What is to be pasted stays on one line.
    pasted = f"{'':<{_NAME}}{{}}".format
    if choice.works:
        yield from _row(choice.method, f"works: {_time(choice)}")
        yield from (row for note in choice.notes for row in _row("", note))
        yield pasted(choice.command)
    for number, one in enumerate(choice.obstacles):
        fact, *more = one.fact.splitlines()
        yield from _row("" if number else choice.method, f"does not work: {fact}")
        yield from map(pasted, map(line, (*more, *one.remedy.splitlines())))


def _time(choice: Choice) -> str:
    if choice.method == "idmap":
        return "tried on a mount that nobody sees; others get no power by it"
    if choice.seconds is None:
        return "how long it takes is not known"
    return f"about {_duration(choice.seconds)}, by the time of the count"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "a second"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"  # noqa: PLR2004


def _effects(effects: Sequence[Effect]) -> Iterator[str]:
    yield from _three("then", "with idmap", "with chown")
    for effect in effects:
        yield from _three(*effect)


def _three(*cells: str) -> Iterator[str]:
    about, *methods = cells
    columns = [_wrapped(one, _CELL) for one in methods]
    for number in range(max(map(len, columns))):
        name = "" if number else about
        row = [column[number] if number < len(column) else "" for column in columns]
        yield f"{name:<{_NAME}}{row[0]:<{_CELL + 1}}{row[1]}".rstrip()


def document(found: Sequence[Explained]) -> str:
    """The document of fix-volume --explain."""
    return json_.document("explained", volumes=[_fields(one) for one in found])


def _fields(one: Explained) -> dict[str, Any]:
    census = one.census
    return {
        **json_.path_fields(one.path),
        "container": one.container,
        "file_system": one.kind,
        "mode": one.mode,
        "mode_reason": one.why or None,
        "entries": census.entries,
        "whole": census.is_whole,
        "at_most": census.at_most,
        "seconds": round(census.seconds, 3),
        "owners": [{"uid": uid, "gid": gid, "entries": n} for uid, gid, n in census.owners],
        "outside_links": census.outside if census.is_whole else None,
        "fixed": census.fixed,
        "unread": [json_.path_fields(path) for path in census.unread],
        "mounts": [json_.path_fields(path) for path in census.mounts],
        "methods": [_choice_fields(choice) for choice in one.choices],
        "users": list(one.users),
        "effects": [effect._asdict() for effect in one.effects],
    }


def _choice_fields(choice: Choice) -> dict[str, Any]:
    return {
        "method": choice.method,
        "works": choice.works,
        "command": choice.command,
        "obstacles": [
            {"message": one.fact, "hint": one.remedy or None} for one in choice.obstacles
        ],
        "notes": list(choice.notes),
        "seconds": None if choice.seconds is None else round(choice.seconds, 3),
    }
