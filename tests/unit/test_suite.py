"""What the tests may take from each other: helpers, which stand in modules of their own."""

from __future__ import annotations

import ast
from pathlib import Path

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
