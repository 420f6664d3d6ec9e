"""Rules about readers of subuid and subgid: lines read differently, files that they refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, rule
from usernsplan.escape import operand, shell
from usernsplan.formats import readers
from usernsplan.formats.subid import PATHS
from usernsplan.layout import LEDGER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.formats.readers import Reading
    from usernsplan.formats.subid import Odd

_PLAIN = "write it as owner:start:count in decimal, without blanks or a comment"


@rule("USN030", "warning")
def readers_differ(facts: Facts) -> Iterator[Seen]:
    """Readers take different ranges from a line.

    shadow, Docker, Podman and Incus each parse these files in their own way. One reads a line
    as a range, another skips it, and a third reads other ids. The container of one engine then
    has ids that another engine considers free.

    The line has blanks, a comment, CR LF from an editor on another system, or numbers with a
    leading 0. It was written by hand or by a template: the tools that maintain the two files
    never write such lines.

        alice:0100000:65536     shadow: 32768 (octal); Docker: 100000

    Write the line as owner:start:count, in decimal, and nothing else.
    """
    for place, line, found in _odd(facts):
        if not _dangerous(found):
            yield Seen(place, _fact(line), _PLAIN, _rows(found))


@rule("USN031", "error")
def reader_gives_up(facts: Facts) -> Iterator[Seen]:
    """Because of one line, a reader rejects the whole file or maps the host's root.

    Podman and Incus stop reading the file at a line with fewer than three fields, whatever its
    owner. Older dockerd releases do not start. Current Docker reads a number that it does not
    understand as 0, and a range that starts at 0 makes container root the host's root.

        bob:100000              Podman: the whole file fails
        carl:0x186a0:65536      shadow: 100000; Docker: 0, the host's root

    Write the line as owner:start:count, in decimal, or remove it.
    """
    for place, line, found in _odd(facts):
        if _dangerous(found):
            yield Seen(place, _fact(line), _PLAIN, _rows(found))


def _odd(facts: Facts) -> Iterator[tuple[str, Odd, tuple[Reading, ...]]]:
    for kind, path in PATHS.items():
        for line in facts.state.subid(kind).odd_lines():
            readings = readers.of_line(line.raw, facts.has_account)
            yield facts.place(path, line.number), line, readings


def _fact(line: Odd) -> str:
    """What is odd about a line, without the remedy that allocate adds."""
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
    """The last line of a file does not end with a newline.

    shadow up to 4.18 accepts such a file. Newer releases consider it truncated and read
    nothing from it: neither newuidmap nor useradd works.

        printf 'alice:100000:65536' >>/etc/subuid

    Add the newline: echo >>/etc/subuid.
    """
    for kind, path in PATHS.items():
        file = facts.state.subid(kind)
        if file.raw and not file.raw.endswith(b"\n"):
            place = facts.place(path)
            last = facts.place(path, len(file.lines))
            yield Seen(last, "the last line does not end with a newline", f"echo >>{shell(place)}")


@rule("USN033", "error")
def not_a_file(facts: Facts) -> Iterator[Seen]:
    """One of the two files is a symlink, or not a regular file.

    shadow opens the files without following symlinks: newuidmap grants nothing, and useradd
    and usermod fail. Docker and Podman follow symlinks, so the host's tools disagree about the
    content. usernsplan refuses to write through a symlink.

        /etc/subuid -> /srv/config/subuid

    Replace it with a regular file that has the same content.
    """
    for found in facts.attributes:
        if found.kind != "regular":
            what = f"is {found.kind}, not a regular file"
            if found.kind == "symlink":
                what = "is a symlink, and shadow does not follow it"
            yield Seen(
                facts.place(found.path),
                what,
                "replace it with a regular file that has the same content",
            )


@rule("USN034", "error")
def others_may_write(facts: Facts) -> Iterator[Seen]:
    """Users other than root can write subuid or subgid.

    Anyone who can write these files can grant themselves every id of the host, root's
    included: newuidmap checks nothing else.

        -rw-rw-r-- 1 root staff … /etc/subuid

    Run chown root:root and chmod 644 on the file.
    """
    for found in facts.attributes:
        if found.kind != "regular":
            continue
        who = ["everyone"] if found.mode & 0o002 else []
        who += [f"the group {found.gid}"] if found.mode & 0o020 and found.gid else []
        # Below another root, the tree usually belongs to the user who made it.
        who += [f"the account {found.uid}"] if found.uid and facts.state.layout.is_host else []
        if who:
            place, path = facts.place(found.path), operand(facts.state.layout.path(found.path))
            yield Seen(
                place,
                f"{' and '.join(who)} can write it, and so become root",
                f"chown root:root {path}; chmod 644 {path}",
            )


@rule("USN035", "error")
def unreadable(facts: Facts) -> Iterator[Seen]:
    """A file that other rules need cannot be read.

    usernsplan skipped the content of the file, so other rules may have missed something. If it
    is a file of accounts, useradd and every lookup fail too.

    Usually it is not a regular file: an engine made a folder for a bind mount of a missing
    file. Or it is a symlink that leads back to itself. What only root may read, such as
    /var/lib/machines, is no finding for another user: a note names it.

    Restore the file. Other rules report subuid, subgid, the ledger and Docker's configuration.
    """
    known = {*PATHS.values(), LEDGER}
    for found in facts.unread:
        if found.path not in known and not found.path.endswith("daemon.json"):
            yield Seen(facts.place(found.path), found.fact, found.hint)
