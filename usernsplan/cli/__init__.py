"""The command line: parse, call, print, exit. ``main`` runs it; ``app`` lists the commands."""

from __future__ import annotations

import gc
import io
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from usernsplan import escape

if TYPE_CHECKING:
    from usernsplan.errors import UsernsplanError

# If this variable is set, an unexpected error shows its traceback.
_SHOW_ALL = "USERNSPLAN_TRACEBACK"
_BROKEN = "reinstall usernsplan; if its disk failed, 'dmesg' may show how"
_TOO_LARGE = "a file is too large or damaged; 'usernsplan check' examines each one"


def say(text: str) -> None:
    """Print to standard error what is not a result. If that fails, the exit status still tells."""
    if sys.stderr is not None:  # closed: print would write to standard output
        try:
            print(escape.no_result(text), file=sys.stderr, flush=True)
        except OSError:
            # Python flushes again when it exits; a failure there replaces our exit status.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _as_error(error: Exception) -> UsernsplanError:
    """The exception as an error with a fact and a remedy: users never see a traceback."""
    from usernsplan.errors import UsernsplanError, of_system  # noqa: PLC0415 - see main

    match error:
        case UsernsplanError():
            return error
        case OSError():
            return of_system(error)
        case ImportError():
            return UsernsplanError(f"cannot load a part of usernsplan: {error}", hint=_BROKEN)
        case MemoryError():
            return UsernsplanError("out of memory", hint=_TOO_LARGE)
        case RecursionError():
            return UsernsplanError("the input is nested too deeply", hint=_TOO_LARGE)
    return _internal(error)


def _internal(error: Exception) -> UsernsplanError:
    """An exception that no file and no system should cause: our fault, with its place."""
    from traceback import walk_tb  # noqa: PLC0415 - seldom needed

    from usernsplan.errors import UsernsplanError  # noqa: PLC0415 - see main

    [*_, (frame, line)] = walk_tb(error.__traceback__)
    place = f"{os.path.basename(frame.f_code.co_filename)}:{line}"
    # An exception from a worker process carries its whole traceback; the last line is the fact.
    fact = (str(error).strip().splitlines() or [""])[-1][:200]
    again = escape.shell("usernsplan", *sys.argv[1:])
    return UsernsplanError(
        f"internal error at {place}: {type(error).__name__}: {fact}",
        hint="'usernsplan check' and 'usernsplan history' show what was done; please report this, "
        f"with the output of: {_SHOW_ALL}=1 {again}",
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
    """Run the command that the user typed, and exit with its status."""
    # Garbage collection frees nothing during imports and while we read ten thousand lines.
    # It would take a twentieth of a command's time.
    gc.set_threshold(200_000)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # The work is done by now: a name that the terminal cannot show must not fail it.
            stream.reconfigure(errors="backslashreplace")
    try:
        from usernsplan.cli import emit  # noqa: PLC0415 - after the lines above
        from usernsplan.cli.refusal import instead_of_flags  # noqa: PLC0415
        from usernsplan.errors import ExitStatus, StoppedError, UsernsplanError  # noqa: PLC0415
        from usernsplan.host import waiting  # noqa: PLC0415
    except ImportError as error:
        say(escape.told(f"usernsplan: cannot load a part of usernsplan: {error}\n  {_BROKEN}"))
        sys.exit(1)  # ExitStatus.FAILED, whose module may be the broken one
    emit.begin()
    waiting.listen(lambda text: say(f"usernsplan: {text}"))

    try:
        with instead_of_flags(sys.argv[1:]):
            from usernsplan.cli.commands import run  # noqa: PLC0415 - it may fail, or be interrupted

            run(sys.argv[1:])
    except AssertionError:
        raise  # a test's own
    except Exception as error:
        if os.environ.get(_SHOW_ALL) and not isinstance(error, UsernsplanError):
            raise
        _end(_as_error(error))
    except KeyboardInterrupt:
        _end(StoppedError("interrupted"))
    except SystemExit as request:
        if request.code == ExitStatus.INTERRUPTED:
            _end(StoppedError("interrupted; 'usernsplan history' shows what was done"))
        emit.ended(request, sys.argv[1:])
        raise
    finally:
        # At exit, the interpreter would collect garbage once more: a tenth of a command's time.
        gc.freeze()
