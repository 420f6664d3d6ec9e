"""What systemd runs as root: which program that is, and whether it is root's alone.

A unit that starts a Python from somebody's home gives that person root at the next boot.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from usernsplan.errors import RefusedError, of_place, reason_of
from usernsplan.escape import indented, line
from usernsplan.host import programs, trust

if TYPE_CHECKING:
    from collections.abc import Sequence

# Prints what the interpreter reads for a command of ours: where it looks, what lies there (a .pth
# file runs code), what it loads, and this package. With -I it looks at no variable of the
# environment and not into the current folder.
_LIST = """
import importlib, os, sys
ours = "cli.app", *sys.argv[1].split()
# What our modules import only when it is needed.
later = "dataclasses datetime hashlib selectors shlex shutil subprocess tempfile textwrap traceback"
for name in (*(f"usernsplan.{one}" for one in ours), *later.split(), *sys.argv[2].split()):
    importlib.import_module(name)
folders = [path for path in sys.path if path]
found = {sys.executable, os.path.join(sys.prefix, "pyvenv.cfg"), *folders}
for folder in filter(os.path.isdir, folders):
    found |= {os.path.join(folder, name) for name in os.listdir(folder)}
for module in sys.modules.values():
    file = getattr(module, "__file__", None)
    if file:
        found |= {file, os.path.join(os.path.dirname(file), "__pycache__")}
        found |= {getattr(module, "__cached__", None) or file}
import usernsplan
whole = [usernsplan, *(sys.modules[name] for name in sys.argv[2].split())]
for place in (place for package in whole for place in package.__path__):
    for folder, _, names in os.walk(place):
        found |= {folder, *(os.path.join(folder, name) for name in names)}
sys.stdout.write("\\0".join(sorted(found)))
"""
_ROOT_ONLY = frozenset({0})
_INSTALL = (
    "install usernsplan for root: python3 -m venv /opt/usernsplan &&"
    " /opt/usernsplan/bin/pip install usernsplan; then use /opt/usernsplan/bin/usernsplan"
)


def interpreter() -> str:
    """The Python that runs us, and that a unit starts."""
    return sys.executable


def refuse_unsafe(
    modules: Sequence[str] = ("cli.volumes", "volume.returning"), packages: Sequence[str] = ()
) -> None:
    """Raise RefusedError if others can write what root would run at boot, or if it cannot run.

    ``modules`` are ours that the command imports, and ``packages`` those of others.
    """
    words = (interpreter(), "-I", "-c", _LIST, " ".join(modules), " ".join(packages))
    with of_place(interpreter()):
        status, said, why = programs.output(words)
    if status:
        last = (why.strip().splitlines() or [f"exit status {status}"])[-1]
        raise RefusedError(
            f"root cannot run usernsplan at boot: {line(interpreter())} -I fails: {indented(last)}",
            hint=_INSTALL,
        )
    for path in said.split("\0"):
        if doubt := _doubt(path):
            doubt = doubt if doubt.startswith("the ") else f"it {doubt}"
            raise RefusedError(
                f"root would run {line(path)} at boot, and others can change it: {line(doubt)}",
                hint=_INSTALL,
            )


def _doubt(path: str) -> str:
    """Why somebody besides root may have written a path, or could put something there."""
    try:
        return trust.place("/", os.path.normpath(path), _ROOT_ONLY).doubt
    except (FileNotFoundError, NotADirectoryError):
        # Anybody who can write to the folder above could make it.
        return _doubt(os.path.dirname(path))
    except OSError as error:
        return f"{path}: {reason_of(error)}"
