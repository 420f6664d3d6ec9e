"""What an installation has: with a C compiler and without, for each Python that we support."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.command import missing, slow

REPOSITORY = Path(__file__).resolve().parents[1]
COMPILED = "usernsplan/volume/_step.abi3.so"
# A compiler that fails, and none that could be found.
WITHOUT = {"CC": "false", "PATH": "/nonexistent"}
STEP = """
import os, sys
from usernsplan.volume import compiled
from usernsplan.volume.folder import FolderListing, StepOptions, step
os.mkdir("folder"), open("file", "w").close()
found = step(os.open(".", os.O_RDONLY), ["folder", "file", "gone"], StepOptions())
seen = os.stat("file")
assert found == FolderListing(["folder"], {(seen.st_uid, seen.st_gid): ["file"]}), found
print(compiled.WHICH, sys.version_info[:2])
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy: setuptools leaves folders where it builds."""
    # What README says installs it fetches a setuptools of its own; without a network it has to be here.
    code = "import setuptools, sys; sys.exit(int(setuptools.__version__.split('.')[0]) < 77)"
    if subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode:
        pytest.skip("setuptools 77 is not installed")
    copied = tmp_path / "copy"
    copied.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, copied)
    kept_out = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(REPOSITORY / "usernsplan", copied / "usernsplan", ignore=kept_out)
    return copied


def build(source: Path, environment: dict[str, str]) -> Path:
    """Build a wheel and unpack it; the folder is what PYTHONPATH needs."""
    place = source.parent / "installed"
    words = ["-q", "--no-deps", "--no-build-isolation", "-w", str(source.parent), str(source)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done
    # Whoever installs it is not frightened.
    assert "usernsplan" not in done.stderr, done.stderr
    [wheel] = source.parent.glob("*.whl")
    assert "-cp310-abi3-linux_" in wheel.name
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(place)  # noqa: S202 - it is our own
    return place


def run(place: Path, *words: str, python: str = sys.executable, pure: str = "") -> str:
    """Run Python with what was installed, in a folder of its own; what it printed."""
    folder = place.parent / f"ran-{len(list(place.parent.iterdir()))}"
    folder.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment = {**kept, "PYTHONPATH": str(place), "USERNSPLAN_PURE": pure}
    done = subprocess.run(
        [python, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done
    return done.stdout


def pythons() -> list[str]:
    """Those of 3.10 and newer that are installed here."""
    names = [shutil.which(f"python3.{minor}") for minor in range(10, 20)]
    roots = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    names += [str(found) for found in Path(roots).glob("versions/3.1[0-9].*/bin/python3")]
    works = [
        name
        for name in names
        if name
        and not subprocess.run([name, "-c", ""], capture_output=True, check=False).returncode
    ]
    return [*works, sys.executable]


@pytest.mark.parametrize("compiler", [True, *slow(False)])
def test_it_is_installed_with_a_compiler_and_without(source: Path, compiler: bool) -> None:
    if compiler and shutil.which("cc") is None:
        missing("cc")
    place = build(source, {} if compiler else WITHOUT)
    assert (place / COMPILED).exists() == compiler
    for name in ("spec", "config"):
        assert (place / f"usernsplan/formats/{name}.schema.json").exists()

    said = run(place, "-m", "usernsplan", "--version")
    in_python = "step in Python, which is slower: its installation lacked a C compiler or Python.h"
    assert said.startswith("usernsplan ")
    assert said.endswith(f" ({'compiled step' if compiler else in_python})\n")
    said = run(place, "-m", "usernsplan", "--version", pure="1")
    assert said.endswith(" (step in Python, because of USERNSPLAN_PURE=1)\n")

    for python in pythons() if compiler else [sys.executable]:
        said = run(place, "-c", STEP, python=python)
        assert said.startswith("compiled step (3, " if compiler else in_python), python


@pytest.mark.slow
def test_the_source_distribution_can_be_compiled(source: Path) -> None:
    code = "import setuptools.build_meta as one; one.build_sdist('.')"
    subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, check=True)
    [packed] = source.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        assert any(name.endswith("/usernsplan/volume/_step.c") for name in archive.getnames())
