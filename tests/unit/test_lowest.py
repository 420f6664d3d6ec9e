"""The lowest versions that CI tries are those that pyproject.toml allows, and the lock is within its ranges."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = (ROOT / "pyproject.toml").read_text()
[DEPENDENCIES] = re.findall(r"^dependencies = \[\n(.*?)^\]", PROJECT, re.MULTILINE | re.DOTALL)
FLOORS = dict(re.findall(r'^  "([\w-]+)>=([\d.]+)', DEPENDENCIES, re.MULTILINE))
CEILINGS = dict(re.findall(r'^  "([\w-]+)>=[\d.]+,<([\d.]+)"', DEPENDENCIES, re.MULTILINE))


def pins(name: str) -> dict[str, str]:
    return dict(
        re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "tests" / name).read_text(), re.MULTILINE)
    )


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def test_the_lowest_versions_are_those_of_pyproject() -> None:
    assert set(FLOORS) == {"typer", "tabulate", "pyyaml", "rich"}
    assert {name: pin for name, pin in pins("lowest.txt").items() if name != "click"} == FLOORS


def test_the_lock_has_every_dependency_within_its_range() -> None:
    locked = pins("constraints.txt")
    assert FLOORS.keys() <= locked.keys()
    for name, floor in FLOORS.items():
        assert version(floor) <= version(locked[name])
    for name, ceiling in CEILINGS.items():
        assert version(locked[name]) < version(ceiling)


def test_nothing_but_ranges_is_asked_of_whoever_installs_the_package() -> None:
    assert "==" not in DEPENDENCIES
