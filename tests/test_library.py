"""The package as a library."""

from __future__ import annotations

import inspect

import pytest

import usernsplan


def test_every_name_that_is_offered_can_be_had_and_says_what_it_is() -> None:
    for name in usernsplan.__all__:
        assert inspect.getdoc(getattr(usernsplan, name)), name


def test_a_name_that_is_not_offered_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        usernsplan.nothing  # noqa: B018


def test_every_error_is_offered() -> None:
    from usernsplan import errors  # noqa: PLC0415

    assert {name for name in vars(errors) if name.endswith("Error")} <= set(usernsplan.__all__)
