"""The command line: parse, call, print, exit. ``main`` is the way in, ``app`` knows which module has which command."""

from __future__ import annotations

import gc
import io
import os
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from usernsplan.errors import UsernsplanError

_INTERRUPTED = 130
_BROKEN = "where its disk failed, 'dmesg' may say how; otherwise install usernsplan again"


def say(text: str) -> None:
    """Print what is not a result to standard error; where nobody can hear it, the exit status still tells."""
    if sys.stderr is not None:  # closed: print would then write among the results
        try:
            print(text, file=sys.stderr, flush=True)
        except OSError:
            # Python would try once more when it exits, and end with a status of its own.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _end(error: UsernsplanError) -> NoReturn:
    for note in error.notes:
        say(f"warning: {note}")
    say(f"usernsplan: {error}" + (f"\n  {error.hint}" if error.hint else ""))
    sys.exit(error.exit_status)


def main() -> None:
    """Run the command that was typed, and exit with its status."""
    # Collecting while modules are imported takes a twentieth of a short command's time and frees nothing.
    gc.set_threshold(50_000)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name or path that the terminal's encoding lacks is no reason to fail after the work is done.
            stream.reconfigure(errors="backslashreplace")
    try:
        from usernsplan.cli.app import app_for  # noqa: PLC0415 - after the lines above
        from usernsplan.errors import UsernsplanError, of_system  # noqa: PLC0415
    except ImportError as error:
        say(f"usernsplan: a part of the program cannot be read: {error}\n  {_BROKEN}")
        sys.exit(1)
    try:
        app_for(sys.argv[1:])()
    except UsernsplanError as error:
        _end(error)
    except OSError as error:
        # What nobody foresaw is told all the same, as far as the system says where it was.
        _end(of_system(error))
    except ImportError as error:
        _end(UsernsplanError(f"a part of the program cannot be read: {error}", hint=_BROKEN))
    except (MemoryError, RecursionError) as error:
        what = "there is no memory left" if isinstance(error, MemoryError) else "something is nested too deep"
        _end(
            UsernsplanError(what, hint="what was read is too large, or damaged: 'usernsplan check' looks at each file")
        )
    except SystemExit as request:
        if request.code == _INTERRUPTED:
            say("usernsplan: interrupted; 'usernsplan history' tells what was done")
        raise
    finally:
        # The interpreter would search all that was imported for garbage once more before it goes: a tenth of the time.
        gc.freeze()
