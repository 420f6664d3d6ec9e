"""The command line: parse, call, print, exit. ``main`` is the way in, ``app`` knows which module has which command."""

from __future__ import annotations

import gc
import io
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from usernsplan import escape

if TYPE_CHECKING:
    from usernsplan.errors import UsernsplanError

# Set, it lets whoever mends usernsplan see where it broke.
_SHOW_ALL = "USERNSPLAN_TRACEBACK"
_BROKEN = "where its disk failed, 'dmesg' may say how; otherwise install usernsplan again"


def say(text: str) -> None:
    """Print what is not a result to standard error; where nobody can hear it, the exit status still tells."""
    if sys.stderr is not None:  # closed: print would then write among the results
        try:
            print(escape.no_result(text), file=sys.stderr, flush=True)
        except OSError:
            # Python would try once more when it exits, and end with a status of its own.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _told(error: Exception) -> UsernsplanError:
    """Whatever ended a command, as an error that says place, fact and remedy: nobody is shown a traceback."""
    from usernsplan.errors import UsernsplanError, of_system  # noqa: PLC0415 - see main

    match error:
        case UsernsplanError():
            return error
        case OSError():
            return of_system(error)
        case ImportError():
            return UsernsplanError(f"a part of the program cannot be read: {error}", hint=_BROKEN)
        case MemoryError() | RecursionError():
            what = (
                "there is no memory left"
                if isinstance(error, MemoryError)
                else "something is nested too deep"
            )
            hint = "what was read is too large, or damaged: 'usernsplan check' looks at each file"
            return UsernsplanError(what, hint=hint)
    return _fault(error)


def _fault(error: Exception) -> UsernsplanError:
    """What to say of what no file and no system should be able to bring about: in words too, and with its place."""
    from usernsplan.errors import UsernsplanError  # noqa: PLC0415 - see main

    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = (
        f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
        if trace
        else "nowhere"
    )
    # A worker's has its whole story in it; the last line is the fact.
    said = (str(error).strip().splitlines() or [""])[-1][:200]
    return UsernsplanError(
        f"a fault of usernsplan itself, at {place}: {type(error).__name__}: {said}",
        hint="'usernsplan check' and 'usernsplan history' tell what was done; please report it, with what "
        f"{_SHOW_ALL}=1 before the same words prints",
    )


def _end(error: UsernsplanError) -> NoReturn:
    for note in error.notes:
        say(escape.told(f"warning: {note}"))
    first, *more = error.lines or (str(error),)
    say("\n".join(map(escape.told, (f"usernsplan: {first}", *more))))
    if error.hint:
        say(escape.told(f"  {error.hint}"))
    from usernsplan.cli import emit  # noqa: PLC0415 - see main

    emit.failed(error, sys.argv[1:])
    sys.exit(error.exit_status)


def main() -> None:
    """Run the command that was typed, and exit with its status."""
    # Collecting while modules are imported, and while ten thousand lines are read, takes a twentieth
    # of a command's time and frees nothing.
    gc.set_threshold(200_000)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name or path that the terminal's encoding lacks is no reason to fail after the work is done.
            stream.reconfigure(errors="backslashreplace")
    try:
        from usernsplan.cli import emit  # noqa: PLC0415 - after the lines above
        from usernsplan.cli.refusal import instead_of_flags  # noqa: PLC0415
        from usernsplan.errors import ExitStatus, StoppedError, UsernsplanError  # noqa: PLC0415
        from usernsplan.host import waiting  # noqa: PLC0415
    except ImportError as error:
        say(escape.told(f"usernsplan: a part of the program cannot be read: {error}\n  {_BROKEN}"))
        sys.exit(1)  # ExitStatus.FAILED, which may be what cannot be read
    emit.begin()
    waiting.listen(lambda text: say(f"usernsplan: {text}"))

    try:
        with instead_of_flags(sys.argv[1:]):
            from usernsplan.cli.app import app_for  # noqa: PLC0415 - reading it may fail, or be interrupted

            app_for(sys.argv[1:])(prog_name="usernsplan")
    except AssertionError:
        raise  # of a test
    except Exception as error:
        if os.environ.get(_SHOW_ALL) and not isinstance(error, UsernsplanError):
            raise
        _end(_told(error))
    except KeyboardInterrupt:
        _end(StoppedError("interrupted"))
    except SystemExit as request:
        if request.code == ExitStatus.INTERRUPTED:
            _end(StoppedError("interrupted; 'usernsplan history' tells what was done"))
        emit.ended(request, sys.argv[1:])
        raise
    finally:
        # The interpreter would search all that was imported for garbage once more before it goes: a tenth of the time.
        gc.freeze()
