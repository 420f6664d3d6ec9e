"""What the tests may take from each other: helpers, which stand in modules of their own."""

from __future__ import annotations

import ast
import gc
from pathlib import Path

import pytest

from tests.command import PROGRAM, here
from tests.engines.throwaway import CommandFailed, ThrowawayHost, require
from tests.prefork import prefork

TESTS = Path(__file__).parents[1]


def imported(tree: ast.Module) -> set[str]:
    """Every module that an import names, and every name from one, as it may be a module too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_no_test_file_is_imported() -> None:
    """What such a file needs would be needed by others, and its tests could not move alone."""
    files = sorted(TESTS.rglob("*.py"))
    assert len(files) > 100
    for path in files:
        for name in imported(ast.parse(path.read_bytes())):
            tests = [part for part in name.split(".") if part.startswith("test_")]
            assert not (name.startswith("tests.") and tests), f"{path} imports {name}"


def test_what_a_run_in_this_process_leaves_can_be_collected(tmp_path: Path) -> None:
    """A command that ends freezes its garbage; after thousands of runs a worker would have gigabytes of it."""
    before = gc.get_freeze_count()
    here("list", "--root", tmp_path)
    assert gc.get_freeze_count() <= before


def test_a_forking_interpreter_is_used_again_unless_its_test_failed() -> None:
    with prefork() as first, prefork() as second:
        assert second is not first
    with prefork() as again:
        assert again in {first, second}
    try:
        with prefork() as broken:
            raise RuntimeError
    except RuntimeError:
        pass
    with prefork() as next_one:
        assert next_one is not broken


def test_a_run_that_is_forked_into_a_host_is_as_one_that_is_started_there() -> None:
    require()
    with ThrowawayHost() as host:
        host.write("/etc/subuid", "web:no:65536\n")
        # A process of the host, by the number that it has there.
        pid = host.run("sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!").stdout.strip()
        for words in (("check", "--json"), ("inspect", pid), ("whois", "1")):
            forked = host.run(*PROGRAM, *words, check=False)
            started = host.run("env", *PROGRAM, *words, check=False)
            assert forked.args == [*PROGRAM, *words]
            for result in (forked, started):
                result.args = words
            assert vars(forked) == vars(started)
        with pytest.raises(CommandFailed, match="subuid"):
            host.run(*PROGRAM, "check")
