"""The loop that stands for many test ids runs every case, and names those that fail."""

from __future__ import annotations

import inspect

import pytest

from tests.each import each


def test_every_case_runs_and_each_that_fails_is_named() -> None:
    seen = []

    @each("letter", "ab")
    @each(("number", "odd"), [(1, True), (2, True), (3, False)])
    def judge(letter: str, number: int, odd: bool) -> None:
        seen.append((letter, number))
        assert (number % 2 == 1) == odd

    with pytest.raises(AssertionError) as caught:
        judge()
    assert seen == [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2), ("b", 3)]
    said = str(caught.value)
    assert said.startswith("2 of 2 cases failed\n{'letter': 'a'}: AssertionError: 2 of 3 cases")
    assert "{'number': 2, 'odd': True}" in said
    assert "{'number': 3, 'odd': False}" in said
    assert "{'number': 1, 'odd': True}" not in said


def test_an_exception_that_was_expected_and_did_not_come_is_a_failure_too() -> None:
    @each("number", [1])
    def judge(number: int) -> None:
        with pytest.raises(ValueError, match="x"):
            int(number)

    with pytest.raises(AssertionError, match="1 of 1 cases failed"):
        judge()


def test_fixtures_stay_and_no_case_is_an_error() -> None:
    @each("number", [1, 2])
    def judge(tmp_path: str, number: int) -> None:
        del tmp_path, number

    assert list(inspect.signature(judge).parameters) == ["tmp_path"]
    with pytest.raises(AssertionError, match="without a case"):
        each("number", [])
