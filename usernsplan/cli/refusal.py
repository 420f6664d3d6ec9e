"""The flag that a failed ``render`` prints instead of flags.

A shell may put the output of a failed render into podman's command line. Without any flag, the
container's root would be the host's root. With this one, the engine refuses to start.
"""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

from usernsplan.errors import BY_SIGNAL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Podman has no such user namespace; ctr and systemd-nspawn have no such option.
REFUSING = "--userns=usernsplan-failed"
# The options of render that take a value; a test compares them with the command.
TAKE_A_WORD = frozenset({"--volume", "--image", "--bundle", "--vmid", "--base", "--out", "--root"})
SWITCHES = frozenset(
    {
        "--rootless",
        "--no-harden",
        "--list",
        "--dry-run",
        "--replace-files",
        "--yes",
        "--json",
        "--help",
        "-h",
    }
)
# With one of these, standard output does not carry flags.
_ELSEWHERE = frozenset({"--json", "--out"})


@contextmanager
def instead_of_flags(argv: Sequence[str]) -> Iterator[None]:
    """Print the flag if the body fails in any way and ``argv`` asks for flags.

    SIGTERM and SIGHUP are failures too. After SIGKILL only the exit status tells.
    """
    before = _stops_politely() if argv[:1] == ["render"] else {}
    try:
        yield
    except BaseException as error:
        if not (isinstance(error, SystemExit) and error.code in {None, 0}) and is_due(argv):
            with suppress(OSError, ValueError):  # nobody reads it
                print(REFUSING, flush=True)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_due(argv: Sequence[str]) -> bool:
    """Tell whether a failure of this command line prints the flag. Pure.

    It does, unless the user surely wants other output. An unknown command, engine or option may
    be a mistyped one that prints flags.
    """
    from usernsplan.cli.commands import COMMANDS  # noqa: PLC0415 - only after a failure
    from usernsplan.engines import ENGINES  # noqa: PLC0415

    flags = {name for name, known in ENGINES.items() if known.flags}
    if argv[:1] != ["render"]:
        is_unknown = bool(argv) and argv[0] not in COMMANDS and "--json" not in argv
        return is_unknown and not flags.isdisjoint(argv)
    engine, options, doubtful = "", set(), False
    rest = iter(argv[1:])
    for word in rest:
        if word == "--":
            engine = engine or next(rest, "")
            break
        if not word.startswith("-") or word == "-":
            engine = engine or word
            continue
        option, equals, _ = word.partition("=")
        if word in SWITCHES or (option in TAKE_A_WORD and (equals or next(rest, None) is not None)):
            options.add(option)
        else:
            doubtful = True  # the next word may be its value or the engine
    if options & _ELSEWHERE or ("--list" in options and engine not in flags):
        return False
    return doubtful or engine in flags or engine not in ENGINES


def _stops_politely() -> dict[int, Any]:
    before: dict[int, Any] = {}
    with suppress(ValueError):  # not in a thread
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, _stop)
    return before


def _stop(number: int, _: object) -> NoReturn:
    sys.exit(BY_SIGNAL + number)
