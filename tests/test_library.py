"""The package as a library."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


def test_threads_of_one_program_allocate_one_after_another(tmp_path: Path) -> None:
    def allocate(number: int) -> int:
        request = usernsplan.AllocateRequest(names=(f"c{number:02}",), strategy=usernsplan.PerContainer())
        return usernsplan.allocate(request, root=str(tmp_path)).allocations[0].mapping.uids[0].host

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(allocate, range(12))) == [524288 + 65536 * n for n in range(12)]
    assert (tmp_path / "etc/subuid").read_text().count("\n") == 12
