"""Settings for every test."""

from __future__ import annotations

import compileall
import contextlib
import gc
import importlib
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.postgres import FleetOfRoots, Postgres

# Compiled once, even where the environment forbids to keep it: each interpreter that a test or a throw-away host starts
# would compile the package anew, and each run of pytest all tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Where nobody says where to: in memory, where no test waits for a disk. Not where a mount forbids what tests do.
MEMORY = "/dev/shm"
FORBIDS = os.ST_NOEXEC | os.ST_NOSUID | os.ST_NODEV


def has_room_in_memory() -> bool:
    try:
        found = os.statvfs(MEMORY)
    except OSError:
        return False
    return not found.f_flag & FORBIDS and found.f_bavail * found.f_frsize >= 4 << 30


if not {"TMPDIR", "PYTEST_DEBUG_TEMPROOT"} & os.environ.keys() and has_room_in_memory():
    os.environ["PYTEST_DEBUG_TEMPROOT"] = MEMORY

REPOSITORY = Path(__file__).resolve().parents[1]

# How long one example takes says more about the machine than about us.
settings.register_profile(
    "unhurried", deadline=None, max_examples=100 if os.environ.get("CI") == "true" else 20
)
settings.load_profile("unhurried")

# A shadow of 4.20 or newer has to be built by hand: see CONTRIBUTING.
collect_ignore = [] if os.environ.get("NEW_SHADOW") else ["unit/test_new_shadow_oracle.py"]

HOW = "CI=true or --slow runs them"

# The two implementations of ``folder.step``. A test that changes or searches volumes takes the fixture ``volume_step``:
# all of tests/volume does, elsewhere @pytest.mark.usefixtures("volume_step").
STEPS = ("c", "python")
STEP_SOURCE = REPOSITORY / "usernsplan/volume/_step.c"
BUILT_STEP = STEP_SOURCE.with_suffix(".abi3.so")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow", action="store_true", help="run the tests marked slow, as CI=true does"
    )
    parser.addoption(
        "--step",
        choices=(*STEPS, "both"),
        help="run tests of volumes over this step, instead of each over one (by default) or both (slow)",
    )


def slow_ones_run(config: pytest.Config) -> bool:
    return bool(config.getoption("--slow")) or os.environ.get("CI") == "true"


def steps_asked_for(config: pytest.Config) -> str:
    """One of STEPS, "both", or "one": each case runs over one of them."""
    return str(config.getoption("--step") or ("both" if slow_ones_run(config) else "one"))


def by_id(case: str) -> str:
    """The step that a case runs over if it does not run over both: half of the cases of a file run over each."""
    return STEPS[zlib.crc32(case.encode()) % 2] if BUILT_STEP.exists() else "python"


def params_of(item: pytest.Item) -> dict[str, object]:
    return dict(item.callspec.params) if hasattr(item, "callspec") else {}


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Iterator[None]:
    yield
    choose_steps(items, steps_asked_for(config))
    choose_spread(items)


def choose_steps(items: list[pytest.Item], asked_for: str) -> None:
    """Of a case that is there for each step, mark one slow or to be skipped, if one is to run."""
    for item in items:
        if not (step := params_of(item).get("volume_step")):
            continue
        if asked_for == "one":
            if step != by_id(item.nodeid.replace(f"in-{step}", "")):
                item.add_marker(pytest.mark.slow)
        elif asked_for not in {"both", step}:
            item.add_marker(pytest.mark.skip(reason=f"--step={asked_for}"))


def choose_spread(items: list[pytest.Item]) -> None:
    """Of a test marked ``spread(n)``, mark all but n cases slow: the first, the last, and others between them."""
    tests: dict[object, list[pytest.Function]] = {}
    for item in items:
        if isinstance(item, pytest.Function) and not item.get_closest_marker("slow"):
            # A file system that only the first case runs on keeps that case.
            system = params_of(item).get("volumes")
            tests.setdefault((item.parent, item.originalname, system), []).append(item)
    for cases in tests.values():
        if mark := cases[0].get_closest_marker("spread"):
            kept = {round(at * (len(cases) - 1) / (mark.args[0] - 1)) for at in range(mark.args[0])}
            for number, case in enumerate(cases):
                if number not in kept:
                    case.add_marker(pytest.mark.slow)


@pytest.fixture(params=STEPS, ids=lambda which: f"in-{which}")
def volume_step(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each implementation of the step in turn, for runs in this process and for those that it starts."""
    which: str = request.param
    if which == "c" and not BUILT_STEP.exists():
        fail = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        fail("the step is not compiled: pip install -e . with a C compiler")
    if which == "c" and BUILT_STEP.stat().st_mtime < STEP_SOURCE.stat().st_mtime:
        pytest.fail("the compiled step is older than its source: pip install -e .")

    from usernsplan.volume import compiled  # noqa: PLC0415 - a test of this file alone has no package

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(compiled.PURE, "1" if which == "python" else "0")
        importlib.reload(compiled)
        yield which
    importlib.reload(compiled)


def pytest_report_header(config: pytest.Config) -> list[str]:
    compiled = "" if BUILT_STEP.exists() else "; none is compiled, so each test runs over Python's"
    return [
        "slow tests: " + ("on" if slow_ones_run(config) else f"off ({HOW})"),
        f"steps of volumes: {steps_asked_for(config)} for each test{compiled}",
    ]


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(REPOSITORY / "usernsplan", quiet=2)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Share the work of compiling the test files: each worker begins at another place, and finds the rest compiled."""
    worker = getattr(session.config, "workerinput", None)
    if worker is None or session.config.args_source != pytest.Config.ArgsSource.TESTPATHS:
        return
    files = sorted((REPOSITORY / "tests").rglob("test_*.py"))
    first = len(files) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    for file in files[first:] + files[:first]:
        # What is wrong with a file, or skips it, pytest says when it collects it.
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(".".join(file.relative_to(REPOSITORY).with_suffix("").parts))


def pytest_collection_finish() -> None:
    """What was collected stays until the end: no collection of garbage needs to look at it."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How long all tests took together: on two cores, a run by default has to stay below 600 seconds of it."""
    reports = [one for kind in terminalreporter.stats.values() for one in kind]
    took = sum(getattr(one, "duration", 0) for one in reports)
    terminalreporter.write_line(f"all tests together: {took:.0f} s")


# First: before a fixture mounts a file system or starts an engine for a test that does not run.
@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("slow") and not slow_ones_run(item.config):
        pytest.skip(f"slow: {HOW}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server for all tests of this process that do not stop it."""
    from tests.postgres import Postgres  # noqa: PLC0415 - a test copies this file alone

    server = Postgres()
    yield server
    server.remove()


@pytest.fixture
def fleet(postgres: Postgres, tmp_path: Path) -> Iterator[FleetOfRoots]:
    """A fleet without hosts, in a database of its own."""
    from tests.postgres import FleetOfRoots  # noqa: PLC0415 - see above

    yield FleetOfRoots(postgres, tmp_path)
    # A command in this process leaves its connection to the collector; a server has only so many.
    gc.collect()
