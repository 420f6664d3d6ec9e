"""The command of a run of fix-volume, taken apart and put together again as the command that finishes the run. Pure."""

from __future__ import annotations

import shlex
from itertools import chain
from typing import TYPE_CHECKING

from usernsplan.escape import shell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.layout import Layout

# The commands that begin runs, and their options that tell how: those with a value, and those without.
_VALUED = {
    "fix-volume": {
        *("--container", "--mode", "--user", "--passwd", "--from", "--uid-map", "--gid-map"),
        *("--unmapped", "--outside-links", "--jobs"),
    },
    "apply": {"--plan"},
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
}
# What whoever began a run agreed to.
_AGREED = (["--yes"], ["--protected"])
# How escape.shell begins a word that cannot be read back.
_ODD = "`printf"
# These tell where, which is said anew, or what nobody needs who finishes a run.
_VALUED_AND_LEFT_OUT, _LEFT_OUT = {"--root", "--discover"}, {"--json", "--dry-run"}


def finishing(command: str, container: str | None, places: Sequence[str], layout: Layout) -> str:
    """The command that finishes a run, made of the words that began it; "" where these are no such words.

    A journal may have been copied with its root, or written by whoever owns that: what it tells of paths and roots is
    not repeated. ``places`` are where the run's volumes lie now, checked; ``container`` is whose they were to be.
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
    # What the owner of another root agreed to, root of this machine did not.
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
    """What the words of a command name, and each option that tells how; None for words that it does not have."""
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
