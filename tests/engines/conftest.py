"""A fresh throw-away host for each test of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engines.throwaway import ThrowawayHost, require

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def host() -> Iterator[ThrowawayHost]:
    """Give the test a host of its own, with empty /etc/subuid and /etc/subgid and no daemon.json."""
    require()
    with ThrowawayHost() as fresh:
        yield fresh
