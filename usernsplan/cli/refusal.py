"""What a failed ``render`` prints in place of flags: without them, a container's root would be the host's."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

from usernsplan.errors import BY_SIGNAL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Podman knows no such user namespace; ctr and systemd-nspawn know no such option.
REFUSING = "--userns=usernsplan-failed"
# Options of render that take the next word; a test compares them with the command's own.
TAKE_A_WORD = frozenset({"--volume", "--image", "--bundle", "--out", "--root"})
SWITCHES = frozenset(
    {"--rootless", "--list", "--dry-run", "--replace-files", "--yes", "--json", "--help", "-h"}
)
# Who says one of these does not want flags on standard output.
_ELSEWHERE = frozenset({"--json", "--out"})


@contextmanager
def instead_of_flags(words: Sequence[str]) -> Iterator[None]:
    """Print the flag where what is done here ends in any failure, and these words asked for flags.

    A polite request to stop is a failure, too. After SIGKILL nothing is printed, and the exit status alone tells.
    """
    before = _stops_politely() if words[:1] == ["render"] else {}
    try:
        yield
    except BaseException as error:
        if not (isinstance(error, SystemExit) and error.code in {None, 0}) and is_due(words):
            with suppress(OSError, ValueError):  # nobody reads it
                print(REFUSING, flush=True)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_due(words: Sequence[str]) -> bool:
    """Tell whether a failure of these words is to print the flag: not where surely something else was wanted.

    Pure. Mistyped words are the point: a command, engine or option that there is not may stand for one that prints
    flags.
    """
    from usernsplan.cli.app import COMMANDS  # noqa: PLC0415 - what follows, only after a failure
    from usernsplan.engines import ENGINES  # noqa: PLC0415

    flags = {name for name, known in ENGINES.items() if known.flags}
    if words[:1] != ["render"]:
        is_unknown = bool(words) and words[0] not in COMMANDS and "--json" not in words
        return is_unknown and not flags.isdisjoint(words)
    engine, options, doubtful = "", set(), False
    rest = iter(words[1:])
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
            doubtful = True  # which word is the engine, nobody can tell any more
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
