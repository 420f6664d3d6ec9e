"""The lines in subuid and subgid while a plan is made: what each owner has, what comes and what goes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from usernsplan.errors import RefusedError
from usernsplan.formats import subid
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.model import Change, Finding
from usernsplan.planner.taken import Claim, claims_of_others, holders
from usernsplan.strategies import in_subid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.formats.subid import Line, SubidFile
    from usernsplan.model import Allocation, HostState


class Grants:
    """A draft of both files. Its methods note what is to change; ``changes`` gives the bytes."""

    def __init__(self, state: HostState) -> None:
        self._state = state
        self._files = {SUBUID: state.subuid, SUBGID: state.subgid}
        self._index = {path: file.by_owner() for path, file in self._files.items()}
        self._uids = {user.name: str(user.uid) for user in reversed(state.accounts.users)}
        self._out: dict[str, list[bytes]] = {SUBUID: [], SUBGID: []}
        self._in: dict[str, list[bytes]] = {SUBUID: [], SUBGID: []}
        self._others: tuple[Claim, ...] | None = None
        self.findings: list[Finding] = []

    def stands(self, allocation: Allocation) -> bool:
        """Tell whether the lines of an allocation are in both files, and its owner has no others."""
        return all(self._have(path, allocation.owner) == wanted for path, wanted in _lines(allocation))

    def without(self, *owners: str) -> tuple[SubidFile, SubidFile]:
        """Both files less what these owners have in them: what everybody else holds."""
        return self._rest(SUBUID, owners), self._rest(SUBGID, owners)

    def _rest(self, path: str, owners: Iterable[str]) -> SubidFile:
        theirs = {line.number for owner in owners for line in self._of(path, owner)}
        file = self._files[path]
        return replace(file, lines=tuple(line for line in file.lines if line.number not in theirs))

    def add(self, allocation: Allocation) -> None:
        """Grant a new allocation. An owner who has lines already is refused: every reader would join them to ours.

        Lines that are those of this very allocation, as after the ledger was lost, become ours.
        """
        for path, wanted in _lines(allocation):
            have = self._of(path, allocation.owner)
            if not have:
                self._in[path] += wanted
            elif self._have(path, allocation.owner) != wanted:
                raise RefusedError(
                    f"{self._state.layout.path(path)}:{have[0].number}: {allocation.owner} has "
                    f"'{_shown(have[0].raw)}', which usernsplan did not give; readers would join it to the new range",
                    hint="take that line out, or name another --owner; a line of both files that has just this size is "
                    "adopted when --start names its first id",
                )

    def restore(self, allocation: Allocation) -> None:
        """Put back lines that somebody took out or sorted into another order; where they stand, nothing is done."""
        for path, wanted in _lines(allocation):
            have = self._have(path, allocation.owner)
            if have == wanted:
                continue
            place = self._state.layout.path(path)
            if Counter(have) - Counter(wanted):
                raise RefusedError(
                    f"{place}: {allocation.owner} has other lines than those of '{allocation.name}'",
                    hint=f"its own are {' and '.join(map(_shown, wanted))}: take the others out",
                )
            self._refuse_lost_range(allocation)
            self._out[path] += have
            self._in[path] += wanted
            what = "in another order, which changes Docker's map" if len(have) == len(wanted) else "missing"
            message = f"{place}: the lines of '{allocation.name}' are {what}"
            self.findings.append(Finding("USN109", "warning", message, "they are put back as they were granted"))

    def remove(self, allocation: Allocation) -> None:
        """Take the lines of an allocation out; nothing but these very lines is touched."""
        for path, wanted in _lines(allocation):
            have = self._of(path, allocation.owner)
            place = self._state.layout.path(path)
            self._out[path] += [subid.ended(line.raw) for line in have if subid.ended(line.raw) in wanted]
            if len(have) < len(wanted):
                self.findings.append(
                    Finding("USN110", "warning", f"{place}: lines of '{allocation.name}' were gone already")
                )
            for line in have:
                if subid.ended(line.raw) not in wanted:
                    message = f"{place}:{line.number}: '{_shown(line.raw)}' stays: usernsplan did not write it"
                    self.findings.append(Finding("USN111", "warning", message))

    def changes(self) -> tuple[Change, ...]:
        """The files that are to change: others' lines as they are and where they are, ours at the end."""
        return tuple(
            Change(path, file.raw if file.exists else None, after)
            for path, file in self._files.items()
            if (after := self._after(path, file)) != file.raw
        )

    def _after(self, path: str, file: SubidFile) -> bytes:
        kept = subid.without_lines(file.raw, self._out[path]) if self._out[path] else file.raw
        return subid.with_lines(kept, self._in[path])

    def _have(self, path: str, owner: str) -> list[bytes]:
        return [subid.ended(line.raw) for line in self._of(path, owner)]

    def _of(self, path: str, owner: str) -> list[Line]:
        """The lines of an owner: by name, or by the uid of the account of that name."""
        names = (owner, self._uids[owner]) if owner in self._uids else (owner,)
        return sorted((line for name in names for line in self._index[path].get(name, ())), key=lambda x: x.number)

    def _refuse_lost_range(self, allocation: Allocation) -> None:
        if self._others is None:
            ours = (known.owner for known in self._state.ledger.allocations)
            self._others = claims_of_others(self._state, *self.without(*ours))
        for whose, overlap in holders(allocation.held, self._others) if allocation.held else ():
            raise RefusedError(
                f"'{allocation.name}' has lost its lines, and {overlap} of its range is now {whose}",
                hint=f"undo that, or '{self._state.layout.command(f'release {allocation.name}')}' and allocate it anew",
            )


def _lines(allocation: Allocation) -> Iterator[tuple[str, list[bytes]]]:
    """For each file, the lines that carry an allocation, in the order that Docker depends on."""
    if in_subid(allocation.strategy, allocation.mapping):
        for path, ids in ((SUBUID, allocation.mapping.uids), (SUBGID, allocation.mapping.gids)):
            yield path, [subid.line(allocation.owner, host) for host in ids.host_ranges()]


def _shown(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace").strip()
