"""The command line: parse, call, print, exit. ``main`` is the way in, ``app`` knows which module has which command."""

from __future__ import annotations

import gc
import io
import os
import sys

from usernsplan import escape

_INTERRUPTED = 130


def say(text: str) -> None:
    """Print what is not a result to standard error; where nobody can hear it, the exit status still tells."""
    if sys.stderr is not None:  # closed: print would then write among the results
        try:
            print(escape.no_result(text), file=sys.stderr, flush=True)
        except OSError:
            # Python would try once more when it exits, and end with a status of its own.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def main() -> None:
    """Run the command that was typed, and exit with its status."""
    # Collecting while modules are imported takes a twentieth of a short command's time and frees nothing.
    gc.set_threshold(50_000)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name or path that the terminal's encoding lacks is no reason to fail after the work is done.
            stream.reconfigure(errors="backslashreplace")
    from usernsplan.cli.refusal import instead_of_flags  # noqa: PLC0415 - after the lines above
    from usernsplan.errors import UsernsplanError  # noqa: PLC0415
    from usernsplan.host import waiting  # noqa: PLC0415

    waiting.listen(lambda text: say(f"usernsplan: {text}"))

    try:
        with instead_of_flags(sys.argv[1:]):
            from usernsplan.cli.app import app_for  # noqa: PLC0415 - reading it may fail, or be interrupted

            app_for(sys.argv[1:])()
    except UsernsplanError as error:
        for note in error.notes:
            say(escape.told(f"warning: {note}"))
        first, *more = error.lines or (str(error),)
        say("\n".join(map(escape.told, (f"usernsplan: {first}", *more))))
        if error.hint:
            say(escape.told(f"  {error.hint}"))
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        say("usernsplan: interrupted")
        sys.exit(_INTERRUPTED)
    except SystemExit as request:
        if request.code == _INTERRUPTED:
            say("usernsplan: interrupted; 'usernsplan history' tells what was done")
        raise
    finally:
        # The interpreter would search all that was imported for garbage once more before it goes: a tenth of the time.
        gc.freeze()
