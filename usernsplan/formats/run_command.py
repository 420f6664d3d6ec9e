"""Turn the command that began a run of fix-volume into the command that finishes the run. Pure."""

from __future__ import annotations

import shlex
from itertools import chain
from typing import TYPE_CHECKING

from usernsplan.escape import shell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.layout import Layout

# The commands that begin runs, with the options to repeat: those with a value, and flags.
_VALUED = {
    "fix-volume": {
        *("--container", "--mode", "--user", "--passwd", "--from", "--uid-map", "--gid-map"),
        *("--unmapped", "--outside-links", "--jobs"),
    },
    "apply": {"--plan"},
    "remap": {"--size", "--pass", "--start", "--pool", "--unmapped", "--outside-links"},
}
_FLAGS = {
    "fix-volume": {
        "--reverse",
        "--cross-mounts",
        "--drop-power",
        "--keep-power",
        "--again",
        "--take",
        "--copy-up",
        "--protected",
        "--yes",
    },
    "apply": {"--prune", "--fix-volumes", "--yes"},
    "remap": {
        *("--no-pass", "--undo", "--pass-privileged", "--yes"),
        *("--cross-mounts", "--drop-power", "--keep-power", "--copy-up", "--protected"),
    },
}
# The flags that answer a question or permit something.
_AGREED = (["--yes"], ["--protected"])
# escape.shell writes a word that is not plain text as "`printf …`", which shlex cannot read back.
_ODD = "`printf"
# Not repeated: options for the place, which is added again, and flags without use for finishing.
_VALUED_AND_LEFT_OUT, _LEFT_OUT = {"--root", "--discover"}, {"--json", "--dry-run"}


def finishing(command: str, container: str | None, places: Sequence[str], layout: Layout) -> str:
    """The command that finishes a run, from the ``command`` that began it; "" if it is not one.

    The paths and the root in ``command`` are not repeated: the journal may have been copied with
    its root, and the owner of that root may have written it. ``places`` are where the volumes of
    the run lie now, already checked; ``container`` is the run's --container.
    """
    try:
        program, what, *words = shlex.split(command)
    except ValueError:
        return ""
    if program != "usernsplan" or what not in _VALUED:
        return ""
    taken = _taken_apart(what, words)
    if taken is None:
        return ""
    named, how = taken
    # The owner of another root may have agreed to this; root of this machine has not.
    kept = [words for words in how if words not in _AGREED or layout.is_host]
    if any(_ODD in word for word in chain(*kept)):
        return ""
    if what == "fix-volume":
        kept += (
            [["--container", container]]
            if container and all(words[0] != "--container" for words in kept)
            else []
        )
        named = list(places)
    return layout.command(shell(what, *named, *chain(*kept)))


def _taken_apart(what: str, words: Sequence[str]) -> tuple[list[str], list[list[str]]] | None:
    """The names in the words of a command, and its options to repeat; None for unknown options."""
    named: list[str] = []
    how: list[list[str]] = []
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if word == "--":
            named += rest
        elif word == "-" or not word.startswith("-"):
            named.append(word)
        elif option in _VALUED[what] | _VALUED_AND_LEFT_OUT:
            value = value if equals else next(rest, "")
            how += [[option, value]] if option in _VALUED[what] else []
        elif word in _FLAGS[what]:
            how.append([word])
        elif word not in _LEFT_OUT:
            return None
    return named, how
