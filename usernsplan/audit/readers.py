"""Rules about the two files as their readers see them: lines on which they differ, files that they refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, rule
from usernsplan.escape import operand
from usernsplan.formats import readers
from usernsplan.formats.subid import PATHS
from usernsplan.layout import LEDGER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.formats.readers import Reading
    from usernsplan.formats.subid import Odd

_PLAIN = "write owner:start:count in decimal, without blanks or a comment"


@rule("USN030", "warning")
def readers_differ(facts: Facts) -> Iterator[Seen]:
    """Readers take a line for different things.

    shadow, Docker, Podman and Incus each have a reader of their own. What one takes for a range, another skips, and a
    third reads as other ids: the container of one engine has ids that another engine thinks are free.

    Blanks, a comment behind the line, CR LF from an editor of another system, numbers with a leading 0: written by
    hand or by a template, for the two files' own tools write none of this.

        alice:0100000:65536     shadow: 32768 (octal); Docker: 100000

    Write the line as owner:start:count, in decimal, and nothing else.
    """
    for place, line, found in _odd(facts):
        if not _dangerous(found):
            yield Seen(place, _fact(line), _PLAIN, _rows(found))


@rule("USN031", "error")
def reader_gives_up(facts: Facts) -> Iterator[Seen]:
    """A reader gives the whole file up because of a line, or takes the host's root out of it.

    Podman and Incus read nothing more from a file in which one line, whosever it is, has fewer than three fields. An
    older dockerd does not start. Docker of today reads a number that it does not understand as 0, and a range from 0
    makes container root the host's root.

        # two lines that somebody wrote
        bob:100000              Podman: the whole file fails
        carl:0x186a0:65536      shadow: 100000; Docker: 0, the host's root

    Write the line as owner:start:count, in decimal, or take it out.
    """
    for place, line, found in _odd(facts):
        if _dangerous(found):
            yield Seen(place, _fact(line), _PLAIN, _rows(found))


def _odd(facts: Facts) -> Iterator[tuple[str, Odd, tuple[Reading, ...]]]:
    for kind, path in PATHS.items():
        for line in facts.state.subid(kind).odd_lines():
            yield facts.place(path, line.number), line, readers.of_line(line.raw)


def _fact(line: Odd) -> str:
    """What is odd about a line, without the remedy that allocate says with it."""
    return line.problem.partition(": write ")[0]


def _dangerous(found: tuple[Reading, ...]) -> bool:
    takes = {(start, count) for reading in found for _, start, count in reading.takes if count > 0}
    from_root = {start == 0 for start, _ in takes}
    return any(reading.fails for reading in found) or from_root == {True, False}


def _rows(found: tuple[Reading, ...]) -> tuple[tuple[str, str, str], ...]:
    return tuple(
        (
            reading.reader,
            ", ".join(f"{o}:{start}:{count}" for o, start, count in reading.takes) or "-",
            reading.remark,
        )
        for reading in found
    )


@rule("USN032", "warning")
def no_last_newline(facts: Facts) -> Iterator[Seen]:
    """The last line of a file has no line end.

    shadow up to 4.13 does not mind. Newer releases take such a file for one that was cut off and read nothing of it:
    no newuidmap, and no useradd.

        printf 'alice:100000:65536' >>/etc/subuid

    Add a line end: echo >>/etc/subuid.
    """
    for kind, path in PATHS.items():
        file = facts.state.subid(kind)
        if file.raw and not file.raw.endswith(b"\n"):
            place = facts.place(path)
            yield Seen(
                facts.place(path, len(file.lines)),
                "the last line has no line end",
                f"echo >>{place}",
            )


@rule("USN033", "error")
def not_a_file(facts: Facts) -> Iterator[Seen]:
    """One of the two files is a symlink, or no file at all.

    shadow opens the files without following symlinks: newuidmap grants nothing, useradd and usermod fail. Docker and
    Podman follow them, so the host's tools disagree on what is there. usernsplan refuses to write through one.

        /etc/subuid -> /srv/config/subuid

    Put a regular file in its place, with the same content.
    """
    for found in facts.attributes:
        if found.kind != "regular":
            what = (
                "is a symlink: shadow does not follow it"
                if found.kind == "symlink"
                else f"is {found.kind}, no file"
            )
            yield Seen(
                facts.place(found.path),
                what,
                "put a regular file with the same content in its place",
            )


@rule("USN034", "error")
def others_may_write(facts: Facts) -> Iterator[Seen]:
    """Others than root may write subuid or subgid.

    Whoever writes these files grants himself every id of the host, root's included: newuidmap asks nothing else.

        -rw-rw-r-- 1 root staff … /etc/subuid

    chown root:root and chmod 644 the file.
    """
    for found in facts.attributes:
        if found.kind != "regular":
            continue
        who = ["everybody"] if found.mode & 0o002 else []
        who += [f"the group {found.gid}"] if found.mode & 0o020 and found.gid else []
        # In a tree of somebody's own everything is his.
        who += [f"the account {found.uid}"] if found.uid and facts.state.layout.is_host else []
        if who:
            place, path = facts.place(found.path), operand(facts.state.layout.path(found.path))
            message = f"{' and '.join(who)} may write it, and so become root"
            yield Seen(place, message, f"chown root:root {path}; chmod 644 {path}")


@rule("USN035", "error")
def unreadable(facts: Facts) -> Iterator[Seen]:
    """A file on which the rest depends cannot be read.

    What the file holds was left out: other rules may have missed something. A file of accounts that cannot be read
    keeps useradd and every lookup from working, too.

    Mostly it is no regular file (a folder that an engine made for a bind mount of a file that was not there), or a
    symlink into a loop.

    Put the file back. Of subuid, subgid, the ledger and Docker's configuration it is told elsewhere.
    """
    known = {*PATHS.values(), LEDGER}
    for found in facts.unread:
        if found.path not in known and not found.path.endswith("daemon.json"):
            yield Seen(facts.place(found.path), found.fact, found.hint)
