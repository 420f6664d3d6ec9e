"""What a command imports: libraries that it does not need would be felt at every start."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

CODE = (
    "import sys\nfrom usernsplan.cli import main\n"
    "try:\n    main()\nexcept SystemExit:\n    pass\nprint(*sys.modules, file=sys.stderr)"
)
HEAVY = {"pydantic", "rich", "sqlalchemy", "yaml", "jsonschema"}


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (("list",), {"tabulate"}),
        (("list", "--json"), {"tabulate"}),
        (("history", "--json"), {"tabulate"}),
        (("allocate", "--strategy", "per-container", "web"), set()),
        (("allocate", "--strategy", "per-container", "web", "--json"), {"tabulate"}),
        (("release", "nothing"), {"tabulate"}),
    ],
)
def test_a_command_does_not_import_what_it_does_not_need(
    tmp_path: Path, words: tuple[str, ...], more: set[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words, "--root", tmp_path], capture_output=True, text=True, check=True
    )
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "usernsplan.cli.app" in loaded
    assert loaded & (HEAVY | more) == set()
