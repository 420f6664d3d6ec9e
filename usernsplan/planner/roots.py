"""Root's lines as LXD and Incus read them: from some of them they take ids for their instances. Pure.

Incus lays all of root's lines of 65536 ids or more end to end, from container id 0; LXD 5.0 takes
the first of them. Both skip smaller lines, and newuidmap joins adjacent ones. Run with Incus 6.0.4
and LXD 5.0.2; see getFromShadow and FilterPOSIX in the source of Incus.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan.claims.pool import pool_of
from usernsplan.claims.sources import claims_of
from usernsplan.engines import ENGINES
from usernsplan.engines.base import allocate_again
from usernsplan.errors import RefusedError, UsernsplanError
from usernsplan.escape import file_line, in_words, shell
from usernsplan.formats.limits import INCUS_LEAST
from usernsplan.formats.subid import PATHS, Grant
from usernsplan.holdings import granted, has_lines
from usernsplan.layout import LXD_SNAPS, SUBGID, SUBUID
from usernsplan.mapping import KINDS
from usernsplan.model import INCUS, LXD, ROOT
from usernsplan.planner.taken import holders, is_taken, take
from usernsplan.reserved import INSTANCES
from usernsplan.strategies import SLOT, Need, PerContainer
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from usernsplan.claims.index import Claims
    from usernsplan.formats.subid import Line, SubidFile
    from usernsplan.model import Allocation, HostState

TAKE_ROOTS = tuple(name for name, it in ENGINES.items() if it.takes_roots)
# The names of these engines in HostState.unlisted.
_PROGRAMS = {"incus": INCUS, "lxd": LXD}
_ALL = (INSTANCES.start, INSTANCES.stop)
# A line without anything that sed would take for more than itself.
_PLAIN = r"[A-Za-z0-9]+:[0-9]+:[0-9]+"
# A line that is shorter by at most so many ids was meant to have them: root:100000:65535.
_FEW = 100
# Root's uid, which a line may have instead of the name.
_NUMBER = "0"
# The claims that a line of root for all instances would be in conflict with.
_OWNED = frozenset(
    {"subid", "account", "group", "allocation", "filler", "reservation", "quarantine"}
)


class Large(NamedTuple):
    """A line of root with 65536 ids or more: its number, its ids (half-open) and its bytes."""

    number: int
    start: int
    stop: int
    raw: bytes

    @property
    def ids(self) -> tuple[int, int]:
        """The ids, as (start, stop)."""
        return self.start, self.stop


class Trouble(NamedTuple):
    """Why instances of LXD or Incus do not start: the file, the line in it, the fact, the remedy."""

    path: str
    number: int
    fact: str
    remedy: str


def takers(state: HostState, engines: Collection[str] = ()) -> tuple[str, ...]:
    """The engines, on the host or among these, that take ids for instances from root's lines.

    The snap of LXD does not read them. Without newuidmap the others do not either, but they begin to
    as soon as it is installed.
    """
    snap = {one.program for one in state.unlisted if one.path in LXD_SNAPS}
    return tuple(
        name
        for name in TAKE_ROOTS
        if (name in state.engines or name in engines) and _PROGRAMS[name] not in snap
    )


def needing(state: HostState, engines: Collection[str] = ()) -> tuple[str, ...]:
    """Those of ``takers`` whose instances have no ids without a line of root's.

    Without newuidmap, subuid or subgid they use other ids.
    """
    others = {one.program for one in state.unlisted if (one.start, one.stop) == _ALL}
    return tuple(name for name in takers(state, engines) if _PROGRAMS[name] not in others)


def large(file: SubidFile) -> list[Large]:
    """The lines that LXD and Incus can take for instances, in the order of the file."""
    return _large(_named(file, ROOT) or _named(file, _NUMBER))


def too_small(file: SubidFile) -> bool:
    """Tell whether root's one line, but for single ids, is a few short of those that instances need."""
    sizes = [line.stop - line.start for line in _named(file, ROOT)]
    several = [size for size in sizes if size > 1]
    return len(several) == 1 and INCUS_LEAST - _FEW <= several[0] < INCUS_LEAST


def hidden(file: SubidFile) -> list[Large]:
    """The lines of root's uid that LXD and Incus skip, because root has a line by its name."""
    return _large(_named(file, _NUMBER)) if _named(file, ROOT) else []


def _large(lines: Iterable[Large]) -> list[Large]:
    return [line for line in lines if line.stop - line.start >= INCUS_LEAST]


def _named(file: SubidFile, owner: str) -> list[Large]:
    """The lines that Incus reads as this owner's, of any size."""
    return [
        one
        for line in file.lines
        # Nearly always the line of somebody else, of up to 100,000.
        if not isinstance(line, Grant) or line.owner.casefold() == owner
        for one in _of_line(line, owner)
    ]


def _of_line(line: Line, owner: str) -> Iterator[Large]:
    if isinstance(line, Grant):
        if line.owner.casefold() == owner:
            yield Large(line.number, line.start, line.stop, line.raw)
    elif any(one.casefold() == owner for one in line.owners):
        # Imported here because it is slow to load, and few files have odd lines.
        from usernsplan.formats import readers  # noqa: PLC0415

        for reading in readers.of_line(line.raw):
            for name, start, count in reading.takes if reading.reader == "incus" else ():
                if name.casefold() == owner:
                    yield Large(line.number, start, start + count, line.raw)


def is_large(allocation: Allocation) -> bool:
    """Tell whether lines of root for this allocation are such that LXD and Incus take them."""
    is_roots = has_lines(allocation) and ROOT in {allocation.owner, *allocation.extra_owners}
    return is_roots and any(
        ids.count >= INCUS_LEAST for kind in KINDS for ids in granted(allocation, kind, ROOT)
    )


def given_away(state: HostState, engine: str) -> Iterator[tuple[str, Large, Allocation]]:
    """The lines of root for an allocation whose ids an engine gives to instances, with the file."""
    ours = {
        (ids.start, ids.stop): a
        for a in state.ledger.allocations
        if is_large(a)
        for kind in KINDS
        for ids in granted(a, kind, ROOT)
    }
    for kind, path in PATHS.items() if ours else ():
        lines = large(state.subid(kind))
        # LXD takes the first line, which is the lowest once useradd has sorted the file. With
        # several lines, no plain instance of Incus starts.
        used = {*lines[:1], *sorted(lines, key=lambda line: line.start)[:1]}
        for line in lines:
            if line.ids in ours and (len(lines) == 1 if engine == "incus" else line in used):
                yield path, line, ours[line.ids]


def in_pieces(state: HostState, allocation: Allocation, engine: str) -> str:
    """The command that grants an allocation to root in smaller lines, for a sentence."""
    again = allocate_again(allocation, state.layout, "--engine", engine)
    return f"{in_words(again)} grants them in smaller lines; then restart {engine}"


def none_large(state: HostState, engine: str) -> Iterator[Trouble]:
    """One for each file without a line that an engine can take for instances."""
    for kind, path in PATHS.items():
        file = state.subid(kind)
        if not large(file):
            fact = (
                f"root has no line of {SLOT} ids or more: {engine} starts no unprivileged instance"
            )
            remedy = renaming(state) if hidden(file) else granting(state)
            yield Trouble(path, 0, fact, f"{remedy}; then restart {engine}")


def several_large(
    state: HostState, but: Collection[tuple[int, int]] = ()
) -> Iterator[tuple[Trouble, list[Large]]]:
    """One for each file with several lines that Incus takes for instances, and these lines.

    ``but`` are ids of lines that go away.
    """
    for kind, path in PATHS.items():
        lines = [line for line in large(state.subid(kind)) if line.ids not in but]
        if len(lines) > 1:
            fact = (
                f"'{file_line(lines[1].raw)}' is a second line of root with {SLOT} ids or more, "
                f"after line {lines[0].number}: no plain instance of incus starts"
            )
            remedy = (
                f"keep the line of the instances; {_removing(state, lines[1])}; then restart incus"
            )
            yield Trouble(path, lines[1].number, fact, remedy), lines


def _removing(state: HostState, line: Large) -> str:
    """How to remove a line from both files: usermod takes none from root while root has processes."""
    text = line.raw.decode("utf-8", "surrogateescape").rstrip("\n")
    if not re.fullmatch(_PLAIN, text):
        return f"remove '{file_line(line.raw)}'"
    return f"remove the other: {shell('sed', '-i', f'/^{text}$/d', *_places(state))}"


def refuse_hiding(state: HostState, path: str) -> None:
    """Raise RefusedError if the first line of root in a file would hide a line of its uid."""
    file = state.subuid if path == SUBUID else state.subgid
    if _named(file, ROOT) or not (lines := large(file)):
        return
    raise RefusedError(
        f"{state.layout.path(path)}:{lines[0].number}: '{file_line(lines[0].raw)}': LXD and Incus "
        f"read the lines of {_NUMBER} only while {ROOT} has none, so a line of {ROOT} would take "
        "these ids from their instances",
        hint=f"rename the owner first: {renaming(state)}",
    )


def renaming(state: HostState) -> str:
    """The command that gives the lines of root's uid to its name, in both files."""
    return shell("sed", "-i", f"s/^{_NUMBER}:/{ROOT}:/", *_places(state))


def _places(state: HostState) -> list[str]:
    return [state.layout.path(path) for path in PATHS.values()]


def without_files(state: HostState) -> str:
    """The LXD or Incus that takes INSTANCES only until both files exist; "" if there is none.

    The snap of LXD never reads them.
    """
    found = (one for one in state.unlisted if (one.start, one.stop) == _ALL)
    return next((one.program for one in found if "/snap" not in one.path), "")


def refuse_taken(state: HostState, program: str) -> None:
    """Raise RefusedError if somebody has ids of INSTANCES, so that root cannot get them."""
    for whose, overlap in holders(INSTANCES, _owned(state), state.layout):
        raise RefusedError(
            f"{program} uses {INSTANCES} until {state.layout.path(SUBUID)} and "
            f"{state.layout.path(SUBGID)} exist, and then only root's lines; but {overlap} is {whose}",
            hint=f"give root another range first: {granting(state)}",
        )


def granting(state: HostState) -> str:
    """The command that gives root a range for instances. FIRST-LAST stands for it if none is free."""
    ids = "FIRST-LAST"
    if not _owned(state).over(*_ALL, most=1):
        ids = f"{INSTANCES.start}-{INSTANCES.last}"
    else:
        with suppress(UsernsplanError):
            [start] = take(
                pool_of(state, PerContainer(), None),
                claims_of(state).where(is_taken).ids,
                Need(SLOT, SLOT),
                1,
            )
            ids = f"{start}-{start + SLOT - 1}"
    command = ("usermod", "--add-subuids", ids, "--add-subgids", ids, ROOT)
    return shell(*state.layout.account_command(command))


def _owned(state: HostState) -> Claims:
    """What others than root have by the files of the host, or we have given out."""
    return claims_of(state).where(
        lambda claim: claim.source in _OWNED and (claim.source != "subid" or claim.holder != ROOT)
    )
