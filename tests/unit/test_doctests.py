"""The examples in the docstrings of the lowest rooms run."""

import doctest
from types import ModuleType

import pytest

from usernsplan import escape, ids, mapping


@pytest.mark.parametrize("module", [escape, ids, mapping], ids=lambda module: module.__name__)
def test_the_examples_are_true(module: ModuleType) -> None:
    done = doctest.testmod(module)
    assert done.attempted > 2
    assert done.failed == 0
