"""Settings for every test."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# How long one example takes says more about the machine than about us.
settings.register_profile(
    "unhurried", deadline=None, max_examples=100 if os.environ.get("CI") == "true" else 50
)
settings.load_profile("unhurried")

HOW = "CI=true or --slow runs them"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow", action="store_true", help="run the tests marked slow, as CI=true does"
    )


def slow_ones_run(config: pytest.Config) -> bool:
    return bool(config.getoption("--slow")) or os.environ.get("CI") == "true"


def pytest_report_header(config: pytest.Config) -> str:
    return "slow tests: " + ("on" if slow_ones_run(config) else f"off ({HOW})")


# First: before a fixture mounts a file system or starts an engine for a test that does not run.
@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("slow") and not slow_ones_run(item.config):
        pytest.skip(f"slow: {HOW}")
