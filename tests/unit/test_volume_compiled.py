"""Whatever Python hands to the compiled step, the answer is an exception, never a crash.

What it does with right arguments is tested with the step in Python: test_volume_folder.py, property/test_volume_step.py.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command import missing
from tests.each import each
from usernsplan.volume import compiled
from usernsplan.volume.folder import StepOptions

Step = Callable[..., tuple[Any, ...]]
PLAIN = StepOptions()
ME = (os.geteuid(), os.getegid())


def plain_but(**fields: object) -> tuple[object, ...]:
    """Options of which some fields are others, whatever they are."""
    return (*{**PLAIN._asdict(), **fields}.values(),)


@pytest.fixture(scope="module")
def step() -> Step:
    if compiled.step is None:
        missing("the compiled step")
    return compiled.step


@pytest.fixture(autouse=True)
def here(tmp_path: Path) -> Iterator[Path]:
    """A folder with one file, in which this process stands."""
    before = os.getcwd()
    os.chdir(tmp_path)
    Path("a").touch()
    yield tmp_path
    os.chdir(before)


@pytest.fixture
def where(here: Path) -> Iterator[int]:
    opened = os.open(here, os.O_RDONLY)
    yield opened
    os.close(opened)


@each(
    ("names", "error"),
    [
        (None, TypeError),
        (5, TypeError),
        ([b"a"], TypeError),
        ([None], TypeError),
        (["a", 5], TypeError),
        # Cut at the NUL, it would be the name of another entry.
        (["a\0b"], ValueError),
        (["\ud800"], UnicodeEncodeError),
    ],
)
def test_names_are_a_list_of_names(
    step: Step, where: int, names: object, error: type[Exception]
) -> None:
    with pytest.raises(error):
        step(where, names, PLAIN)


@each(
    ("options", "error"),
    [
        (None, TypeError),
        ([], TypeError),
        ((), TypeError),
        ((*PLAIN, 1), TypeError),
        (plain_but(owners=[]), TypeError),
        (plain_but(owners=((ME,),)), TypeError),
        (plain_but(owners=((ME, (1, 2, 3)),)), TypeError),
        (plain_but(owners=(("ab", "cd"),)), TypeError),
        (plain_but(owners=((ME, (1.5, 1)),)), TypeError),
        (plain_but(owners=(7,)), SystemError),
        # Cut to 32 bits, each would be another id; and chown(2) takes the highest for "leave it".
        (plain_but(owners=((ME, (1 << 32, 0)),)), OverflowError),
        (plain_but(owners=((ME, (0, -1)),)), OverflowError),
        (plain_but(owners=((ME, (0, (1 << 32) - 1)),)), OverflowError),
        (plain_but(owners=(((1 << 64, 0), ME),)), OverflowError),
        (plain_but(seen_before=1 << 63), OverflowError),
        (plain_but(seen_before="now"), TypeError),
        (plain_but(pinning=-(1 << 63) - 1), OverflowError),
        (plain_but(threads=1 << 31), OverflowError),
        (plain_but(threads="all"), TypeError),
    ],
)
def test_options_are_those_of_the_contract(
    step: Step, where: int, options: object, error: type[Exception]
) -> None:
    before = os.lstat("a")
    with pytest.raises(error):
        step(where, ["a"], options)
    assert os.lstat("a") == before


def test_what_is_missing_or_too_much_is_an_error(step: Step, where: int) -> None:
    few: list[tuple[object, ...]] = [(), (where,), (where, []), (where, [], PLAIN, 1)]
    for arguments in few:
        with pytest.raises(TypeError):
            step(*arguments)


@each(
    ("folder", "error"),
    [(-1, OSError), (-100, OSError), (1 << 31, OverflowError), ("/", TypeError), (None, TypeError)],
)
def test_a_folder_is_an_open_descriptor(step: Step, folder: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        step(folder, ["a"], PLAIN)


def test_a_closed_descriptor_is_an_error(step: Step, here: Path) -> None:
    closed = os.open(here, os.O_RDONLY)
    os.close(closed)
    with pytest.raises(OSError, match="Bad file descriptor"):
        step(closed, ["a"], PLAIN)


def test_very_many_names_and_very_many_owners(step: Step, where: int) -> None:
    folders, plain, care, failures = step(where, ["gone", "a"] * 50_000, PLAIN)
    assert (folders, plain, care, failures) == ([], {ME: ["a"] * 50_000}, [], [])
    owners = tuple(((number, number), (number, number)) for number in range(100_000, 200_000))
    assert step(where, ["a"], plain_but(owners=owners))[1] == {ME: ["a"]}


def test_another_thread_may_change_the_list_meanwhile(step: Step, where: int) -> None:
    names = ["a"] * 10_000
    ended = threading.Event()

    def change() -> None:
        while not ended.is_set():
            names.clear()
            names.extend(f"gone{number}" for number in range(100))
            names.extend(["a"] * 10_000)

    other = threading.Thread(target=change)
    other.start()
    try:
        for _ in range(20):
            folders, plain, care, failures = step(where, names, PLAIN)
            assert (folders, care, failures) == ([], [], [])
            assert set(plain.get(ME, [])) <= {"a"}
    finally:
        ended.set()
        other.join()


def test_two_threads_at_once_do_no_harm_to_each_other_s_memory(step: Step, here: Path) -> None:
    """They share the current folder, so each may look at the other's entries: one process steps in one thread."""
    wrong: list[object] = []

    def work(name: str) -> None:
        place = here / name
        place.mkdir()
        names = [f"{name}{number}" for number in range(2000)]
        for one in names[::2]:
            (place / one).touch()
        opened = os.open(place, os.O_RDONLY)
        for _ in range(10):
            folders, plain, care, failures = step(opened, names, PLAIN)
            if folders or care or failures or not set(plain.get(ME, [])) <= set(names[::2]):
                wrong.append((folders, plain, care, failures))
        os.close(opened)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
