"""The lines of subuid and subgid during a plan: what each owner has, what comes and what goes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from usernsplan.claims.sources import claims_of
from usernsplan.errors import RefusedError
from usernsplan.escape import file_line, shell
from usernsplan.formats import subid
from usernsplan.formats.subid import Grant
from usernsplan.holdings import holdings, noted_line
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.model import ROOT, Change, Finding
from usernsplan.planner.stories import advise
from usernsplan.planner.taken import holders, is_of_others

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from usernsplan.claims.index import Claims
    from usernsplan.formats.subid import Line, SubidFile
    from usernsplan.holdings import Holding
    from usernsplan.model import Allocation, HostState


class Grants:
    """A draft of both files. Its methods note the changes; ``changes`` returns the new bytes."""

    def __init__(self, state: HostState) -> None:
        self._state = state
        self._files = {SUBUID: state.subuid, SUBGID: state.subgid}
        self._index = {path: file.by_owner() for path, file in self._files.items()}
        self._come: set[tuple[str, bytes]] = set()
        self._gone: set[tuple[str, bytes]] = set()
        self._uids = {user.name: str(user.uid) for user in reversed(state.accounts.users)}
        self._out: dict[str, list[bytes]] = {SUBUID: [], SUBGID: []}
        self._in: dict[str, list[bytes]] = {SUBUID: [], SUBGID: []}
        self.findings: list[Finding] = []
        # The names of allocations whose lines are restored.
        self.restored: dict[str, None] = {}

    def of(self, allocation: Allocation) -> Iterator[tuple[Holding, list[Line]]]:
        """The lines that each owner of an allocation needs in each file, and those it has there.

        The latter are in the order of the file.
        """
        for one in holdings(allocation):
            yield one, self._of(one)

    def has_exactly(self, allocation: Allocation) -> bool:
        """Tell whether the owner has exactly the lines of the allocation, in both files."""
        return all(
            _raw(self._of(one)) == one.wanted
            for one in holdings(allocation)
            if one.owner == allocation.owner
        )

    def without(self, claims: Claims, *allocations: Allocation) -> Claims:
        """The claims without the lines of the owners of these allocations."""
        ours = {
            (one.path, line.number)
            for allocation in allocations
            for one in holdings(allocation)
            for line in self._of(one)
        }
        return claims.where(lambda claim: (claim.path, claim.number) not in ours)

    def refuse_other_lines(self, allocation: Allocation) -> None:
        """Raise RefusedError if the owner of a new allocation has other lines already.

        Readers would join them to the new ones. The very lines of the allocation, as after a lost
        ledger, are not others.
        """
        for one in holdings(allocation):
            have = self._of(one)
            if have and _raw(have) != one.wanted and one.owner != ROOT:
                start = self._only_start(allocation)
                adopt = "" if start is None else f"adopt it with '--start {start}', "
                raise RefusedError(
                    f"{self._state.layout.path(one.path)}:{have[0].number}: {one.owner} has "
                    f"'{file_line(have[0].raw)}', which usernsplan did not write; readers would join "
                    "it to the new range",
                    hint=f"{adopt}remove that line, or choose another --owner",
                    in_file=f"{adopt.replace('--start', 'start:')}remove that line, or choose "
                    "another owner",
                )

    def _only_start(self, allocation: Allocation) -> int | None:
        """The first id of the one plain line that the owner has; None if it has no such line.

        The line must be the same in both files and have the size of the allocation.
        """
        found = [self._of(one) for one in holdings(allocation) if one.owner == allocation.owner]
        plain = [
            x
            for lines in found
            for x in lines
            if isinstance(x, Grant) and x.owner == allocation.owner
        ]
        spans = {(line.start, line.stop) for line in plain}
        if [len(lines) for lines in found] != [1, 1] or len(plain) != len(found) or len(spans) != 1:
            return None
        [(start, stop)] = spans
        held = allocation.reserved_range
        return start if held and held.count == stop - start else None

    def add(self, allocation: Allocation) -> Allocation:
        """Grant a new allocation and return it, with its existing lines as ``found``.

        Raises what refuse_other_lines raises.
        """
        self.refuse_other_lines(allocation)
        for one in holdings(allocation):
            if one.owner == ROOT:
                self._grant_root(one)
            elif not self._of(one):
                self._in[one.path] += one.wanted
        return replace(allocation, found=tuple(self._found(holdings(allocation))))

    def widen(self, allocation: Allocation, owner: str) -> tuple[tuple[str, str], ...]:
        """Grant an existing allocation to a further owner, and return the lines that exist already."""
        for one in holdings(allocation, owner):
            if owner == ROOT:
                self._grant_root(one)
            else:
                self._in[one.path] += one.wanted
        return tuple(self._found(holdings(allocation, owner)))

    def _found(self, wanted: Iterable[Holding]) -> Iterator[tuple[str, str]]:
        """The wanted lines that exist already and that usernsplan did not write, with their file.

        Only root may have one line for several allocations.
        """
        for one in wanted:
            for raw in _raw(self._of(one)):
                is_ours = one.owner == ROOT and (one.path, raw) in self._roots_of_ours
                if raw in one.wanted and not is_ours:
                    yield one.path, noted_line(raw)

    @cached_property
    def _roots_of_ours(self) -> frozenset[tuple[str, bytes]]:
        """The lines of root that usernsplan wrote, with their file."""
        ours = self._state.ledger.allocations
        found = {(path, line) for a in ours for path, line in a.found}
        needed = needed_of_root(a for a in ours if ROOT in {a.owner, *a.extra_owners})
        return frozenset(
            (path, raw) for path, raw in needed if (path, noted_line(raw)) not in found
        )

    def _grant_root(self, one: Holding) -> None:
        """Add the lines that root lacks, each once, even if several shared maps need it."""
        have = _raw(self._of(one))
        new = [
            (one.path, raw)
            for raw in one.wanted
            if raw not in have and (one.path, raw) not in self._come
        ]
        self._in[one.path] += [raw for _, raw in new]
        self._come.update(new)

    def restore(self, allocation: Allocation) -> None:
        """Restore lines that are missing or in another order; do nothing if all are right.

        Raises RefusedError, and changes nothing for this allocation, if an owner also has other
        lines or somebody else has the range now.
        """
        broken = [
            (one, raw) for one, have in self.of(allocation) if (raw := _raw(have)) != one.wanted
        ]
        for one, have in broken:
            if Counter(have) - Counter(one.wanted):
                lines = " and ".join(map(file_line, one.wanted))
                raise RefusedError(
                    f"{self._state.layout.path(one.path)}: {one.owner} has other lines than those "
                    f"of '{allocation.name}'",
                    hint=f"keep {lines}, and remove the others",
                )

        if broken:
            self._refuse_lost_range(allocation)
            self.restored[allocation.name] = None
        for one, have in broken:
            if one.owner == ROOT:
                self._grant_root(one)
            else:
                self._out[one.path] += have
                self._in[one.path] += one.wanted
            what = (
                "in another order, which changes Docker's map"
                if len(have) == len(one.wanted)
                else "missing"
            )
            place = self._state.layout.path(one.path)
            message = f"{place}: the lines of '{allocation.name}' are {what}"
            self.findings.append(advise("USN109", message, "they are restored"))

    def remove(
        self,
        allocation: Allocation,
        kept: Container[tuple[str, bytes]],
        *,
        with_found: bool = False,
    ) -> tuple[Line, ...]:
        """Remove the lines of an allocation that usernsplan wrote, and return those that stay.

        ``kept`` are lines of root, by file, that other allocations need: see ``needed_of_root``.
        ``with_found`` also removes adopted lines.
        """
        staying: list[Line] = []
        for one in holdings(allocation):
            have = self._of(one)
            place = self._state.layout.path(one.path)
            found = {
                raw
                for raw in one.wanted
                if not with_found and (one.path, noted_line(raw)) in allocation.found
            }
            left = [line for line in have if subid.ended(line.raw) in found]
            staying += left
            self.findings += [self._stays(one, line) for line in left]

            if one.owner == ROOT:
                mine = [raw for raw in one.wanted if raw not in found]
                out = [
                    raw
                    for raw in mine
                    if (one.path, raw) not in kept and (one.path, raw) not in self._gone
                ]
                self._gone.update((one.path, raw) for raw in out)
                # Root may have the same line several times.
                out *= max((self._counts[one.path][raw] for raw in out), default=0)
            else:
                out = [raw for raw in _raw(have) if raw in one.wanted and raw not in found]
            self._out[one.path] += out

            if len(have) < len(one.wanted):
                message = f"{place}: some lines of '{allocation.name}' were missing already"
                self.findings.append(advise("USN110", message))
            for line in have:
                if subid.ended(line.raw) not in one.wanted:
                    message = (
                        f"{place}:{line.number}: '{file_line(line.raw)}' stays: usernsplan did not "
                        "write it"
                    )
                    self.findings.append(advise("USN111", message))
        return tuple(staying)

    def _stays(self, one: Holding, line: Line) -> Finding:
        """The finding on an adopted line, which stays when its allocation is released."""
        place, shown = self._state.layout.path(one.path), file_line(line.raw)
        message = f"{place}:{line.number}: '{shown}' stays: it existed before it was adopted"
        hint = "use --with-lines to remove such a line with its allocation"
        if isinstance(line, Grant) and self._state.accounts.user(one.owner):
            usermod = self._state.layout.account_command(
                ("usermod", f"--del-sub{one.kind}s", f"{line.start}-{line.stop - 1}", one.owner)
            )
            hint += f"; to remove it later: {shell(*usermod)}"
        return advise("USN111", message, hint)

    def changes(self) -> tuple[Change, ...]:
        """The changed files. The lines of others keep their place, and new lines are at the end."""
        return tuple(
            Change(path, file.raw if file.exists else None, after)
            for path, file in self._files.items()
            if (after := self._after(path, file)) != file.raw
        )

    def _after(self, path: str, file: SubidFile) -> bytes:
        kept = subid.without_lines(file.raw, self._out[path]) if self._out[path] else file.raw
        return subid.with_lines(kept, self._in[path])

    def _of(self, one: Holding) -> list[Line]:
        """The lines of an owner, which may be under its name or under the uid of its account.

        Of root's lines only the wanted ones count. Root may have many others: newuidmap, for LXC,
        takes any of them, and no reader joins them.
        """
        if one.owner == ROOT:
            lines = self._roots[one.path]
            return [lines[raw] for raw in one.wanted if raw in lines]
        return self._named(one.path, one.owner)

    @cached_property
    def _roots(self) -> dict[str, dict[bytes, Line]]:
        """The lines of root in each file, by their bytes."""
        return {
            path: {subid.ended(line.raw): line for line in self._named(path, ROOT)}
            for path in self._files
        }

    @cached_property
    def _counts(self) -> dict[str, Counter[bytes]]:
        """How many times each line is in each file."""
        return {path: subid.counted(file.raw) for path, file in self._files.items()}

    @cached_property
    def _others(self) -> Claims:
        """The claims of the host's files, without the lines of the allocations."""
        others = claims_of(self._state).where(is_of_others)
        return self.without(others, *self._state.ledger.allocations)

    def _named(self, path: str, owner: str) -> list[Line]:
        names = (owner, self._uids[owner]) if owner in self._uids else (owner,)
        return sorted(
            (line for name in names for line in self._index[path].get(name, ())),
            key=lambda x: x.number,
        )

    def _refuse_lost_range(self, allocation: Allocation) -> None:
        held, layout = allocation.reserved_range, self._state.layout
        for whose, overlap in holders(held, self._others, layout) if held else ():
            release = layout.inline(f"release {shell(allocation.name)}")
            raise RefusedError(
                f"'{allocation.name}' has lost its lines, and {overlap} of its range is now {whose}",
                hint=f"free these ids, or run {release} and allocate it again",
            )


def needed_of_root(allocations: Iterable[Allocation]) -> frozenset[tuple[str, bytes]]:
    """The lines, with their file, that root needs for these allocations."""
    return frozenset(
        (one.path, raw)
        for a in allocations
        for one in holdings(a)
        if one.owner == ROOT
        for raw in one.wanted
    )


def _raw(lines: Iterable[Line]) -> list[bytes]:
    return [subid.ended(line.raw) for line in lines]


def keeps_lines(allocation: Allocation) -> bool:
    """Tell whether a release leaves all lines of its owner, because all were adopted."""
    lines = [line for one in holdings(allocation, allocation.owner) for line in one.noted()]
    return bool(lines) and all(line in allocation.found for line in lines)
