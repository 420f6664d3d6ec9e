"""The command line: parse, call, print, exit. ``main`` is the way in, ``app`` knows which module has which command."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command that was typed, and exit with its status."""
    # Collecting while modules are imported takes a twentieth of a short command's time and frees nothing.
    gc.set_threshold(50_000)
    from usernsplan.cli.app import app_for  # noqa: PLC0415 - after the line above
    from usernsplan.errors import UsernsplanError  # noqa: PLC0415

    try:
        app_for(sys.argv[1:])()
    except UsernsplanError as error:
        sys.stdout.flush()
        for note in error.notes:
            print(f"warning: {note}", file=sys.stderr)
        print(f"usernsplan: {error}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        sys.exit(error.exit_status)
    finally:
        # The interpreter would search all that was imported for garbage once more before it goes: a tenth of the time.
        gc.freeze()
