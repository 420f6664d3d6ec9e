"""Each command and its module, and how the words typed become a call of its function."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from usernsplan.cli.words import Call, read
from usernsplan.errors import ExitStatus, placed

if TYPE_CHECKING:
    from collections.abc import Sequence

# Job -> command -> (module, function). For a fast start, only the module of the typed command is
# imported.
JOBS = {
    "Give ids": {
        "allocate": ("allocate", "allocate"),
        "adopt": ("adopt", "adopt"),
        "release": ("release", "release"),
        "rename": ("rename", "rename"),
        "remap": ("remap", "remap"),
        "harden": ("harden", "harden"),
    },
    "Render": {
        "render": ("render", "render"),
    },
    "Volumes": {
        "fix-volume": ("fix_volume", "fix_volume"),
        "mount-volume": ("fix_volume", "mount_volume"),
        "volumes": ("volumes", "volumes"),
        "undo": ("fix_volume", "undo"),
    },
    "Look": {
        "list": ("show", "list_"),
        "show": ("show", "show"),
        "history": ("show", "history"),
        "map": ("map_", "map_"),
        "capacity": ("capacity", "capacity"),
        "whois": ("whois", "whois"),
        "inspect": ("inspect", "inspect"),
        "find-owned": ("find_owned", "find_owned"),
        "check": ("check", "check"),
    },
    "Plan": {
        "plan": ("plan", "plan"),
        "apply": ("plan", "apply"),
        "export": ("plan", "export"),
    },
    "Ledger": {
        "ledger": ("ledger", "ledger"),
        "sync": ("sync", "sync"),
    },
}
COMMANDS = {name: place for commands in JOBS.values() for name, place in commands.items()}

# With this variable, a shell asks typer for completions.
_COMPLETE = "_USERNSPLAN_COMPLETE"


def function_of(name: str) -> Any:  # noqa: ANN401 - of any parameters
    """The function of a command. A group has ``commands``, the functions of its commands."""
    module, function = COMMANDS[name]
    return getattr(import_module(f"usernsplan.cli.{module}"), function)


def summary_of(name: str) -> str:
    """The first line of a command's docstring, read without what its module imports."""
    from importlib.util import find_spec  # noqa: PLC0415 - only for help and wrong usage

    module, function = COMMANDS[name]
    spec = find_spec(f"usernsplan.cli.{module}")
    code: Any = spec.loader.get_code(spec.name)  # type: ignore[union-attr]
    [found] = (one for one in code.co_consts if getattr(one, "co_name", "") == function)
    # Where -OO leaves docstrings out, the first constant is something else.
    return str(found.co_consts[0]).partition("\n")[0] if sys.flags.optimize <= 1 else ""


def print_version() -> None:
    """Print the version of the installed package, and which step the volume fixer takes."""
    from importlib.metadata import version  # noqa: PLC0415 - slow, and only here

    from usernsplan.volume import compiled  # noqa: PLC0415

    print(f"usernsplan {version('usernsplan')} ({compiled.WHICH})")


def run(argv: Sequence[str]) -> None:
    """Run the command that was typed. Raises SystemExit at its end, and UsernsplanError."""
    if argv == ["--version"]:
        print_version()
        sys.exit(ExitStatus.DONE)
    call = None if _COMPLETE in os.environ else _plain(argv)
    if call is None:
        from usernsplan.cli.app import app_for  # noqa: PLC0415 - imports typer

        app_for(argv)(prog_name="usernsplan")
        return
    try:
        with placed(call.typed):
            call.function(**call.arguments)
    except KeyboardInterrupt:
        sys.exit(ExitStatus.INTERRUPTED)
    except BrokenPipeError:
        sys.exit(ExitStatus.FAILED)  # as typer ends it: its reader wants no more
    sys.exit(ExitStatus.DONE)


def _plain(argv: Sequence[str]) -> Call | None:
    """The call that plain words mean; None if typer has to read them."""
    if argv[:1] and argv[0] in COMMANDS:
        function = function_of(argv[0])
        inner = getattr(function, "commands", {})
        if not inner:
            return read(function, argv[1:])
        if argv[1:2] and argv[1] in inner:
            return read(inner[argv[1]], argv[2:])
    return None
