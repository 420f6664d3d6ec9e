"""The lines in subuid and subgid while a plan is made: what each owner has, what comes and what goes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
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
    """A draft of both files. Its methods note what is to change; ``changes`` gives the bytes."""

    def __init__(self, state: HostState) -> None:
        self._state = state
        self._files = {SUBUID: state.subuid, SUBGID: state.subgid}
        self._index = {path: file.by_owner() for path, file in self._files.items()}
        self._roots: dict[str, dict[bytes, Line]] = {}
        self._counts: dict[str, Counter[bytes]] = {}
        self._come: set[tuple[str, bytes]] = set()
        self._gone: set[tuple[str, bytes]] = set()
        self._uids = {user.name: str(user.uid) for user in reversed(state.accounts.users)}
        self._out: dict[str, list[bytes]] = {SUBUID: [], SUBGID: []}
        self._in: dict[str, list[bytes]] = {SUBUID: [], SUBGID: []}
        self._others: Claims | None = None
        self._written: frozenset[tuple[str, bytes]] | None = None
        self.findings: list[Finding] = []
        # The names of allocations whose lines are put back.
        self.restored: dict[str, None] = {}

    def of(self, allocation: Allocation) -> Iterator[tuple[Holding, list[Line]]]:
        """What each owner of an allocation is to have in each file, and what lines he has there, in file order."""
        for one in holdings(allocation):
            yield one, self._of(one)

    def stands(self, allocation: Allocation) -> bool:
        """Tell whether the lines of an allocation are in both files, and its owner has no others."""
        return all(
            _raw(self._of(one)) == one.wanted
            for one in holdings(allocation)
            if one.owner == allocation.owner
        )

    def without(self, claims: Claims, *allocations: Allocation) -> Claims:
        """The claims less the lines of the owners of these allocations: what everybody else has."""
        ours = {
            (one.path, line.number)
            for allocation in allocations
            for one in holdings(allocation)
            for line in self._of(one)
        }
        return claims.where(lambda claim: (claim.path, claim.number) not in ours)

    def refuse_other_lines(self, allocation: Allocation) -> None:
        """Raise RefusedError where the owner of a new allocation has lines already: readers would join them to ours.

        Lines that are those of this very allocation, as after the ledger was lost, are no others.
        """
        for one in holdings(allocation):
            have = self._of(one)
            if have and _raw(have) != one.wanted and one.owner != ROOT:
                start = self._only_start(allocation)
                adopt = "" if start is None else f"'--start {start}' adopts it as it is; or "
                raise RefusedError(
                    f"{self._state.layout.path(one.path)}:{have[0].number}: {one.owner} has "
                    f"'{file_line(have[0].raw)}', which usernsplan did not give; readers would join it to the new range",
                    hint=f"{adopt}take that line out, or name another --owner",
                    in_file=f"{adopt.replace('--start', 'start:')}take that line out, or name another owner",
                )

    def _only_start(self, allocation: Allocation) -> int | None:
        """The first id of an owner who has one plain line, the same in both files, of the size that is asked for."""
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
        return (
            start
            if allocation.reserved_range and allocation.reserved_range.count == stop - start
            else None
        )

    def add(self, allocation: Allocation) -> Allocation:
        """Grant a new allocation, and say which of its lines stand already. See refuse_other_lines."""
        self.refuse_other_lines(allocation)
        for one in holdings(allocation):
            if one.owner == ROOT:
                self._grant_root(one)
            elif not self._of(one):
                self._in[one.path] += one.wanted
        return replace(allocation, found=tuple(self._found(holdings(allocation))))

    def widen(self, allocation: Allocation, owner: str) -> tuple[tuple[str, str], ...]:
        """Grant an allocation that stands to a further owner, and say which of these lines stand already."""
        for one in holdings(allocation, owner):
            self._grant_root(one) if owner == ROOT else self._in[one.path].extend(one.wanted)
        return tuple(self._found(holdings(allocation, owner)))

    def _found(self, wanted: Iterable[Holding]) -> Iterator[tuple[str, str]]:
        """The lines, by file, that stand before we grant them: somebody else's, unless another allocation wrote them.

        Only root may have a line for several allocations.
        """
        for one in wanted:
            for raw in _raw(self._of(one)):
                if raw in one.wanted and not (
                    one.owner == ROOT and (one.path, raw) in self._roots_of_ours()
                ):
                    yield one.path, noted_line(raw)

    def _roots_of_ours(self) -> frozenset[tuple[str, bytes]]:
        """Lines of root's that we wrote."""
        if self._written is None:
            ours = self._state.ledger.allocations
            found = {(path, line) for a in ours for path, line in a.found}
            needed = needed_of_root(a for a in ours if ROOT in {a.owner, *a.extra_owners})
            self._written = frozenset(
                one for one in needed if (one[0], noted_line(one[1])) not in found
            )
        return self._written

    def _grant_root(self, one: Holding) -> None:
        """Add what root lacks: a line that several shared maps need stands once."""
        have = _raw(self._of(one))
        new = [
            (one.path, raw)
            for raw in one.wanted
            if raw not in have and (one.path, raw) not in self._come
        ]
        self._in[one.path] += [raw for _, raw in new]
        self._come.update(new)

    def restore(self, allocation: Allocation) -> None:
        """Put back lines that somebody took out or sorted into another order; where they stand, nothing is done.

        Raises RefusedError, and then nothing of this allocation is put back, where an owner has other lines too or
        somebody else has the range now.
        """
        broken = [
            (one, raw) for one, have in self.of(allocation) if (raw := _raw(have)) != one.wanted
        ]
        for one, have in broken:
            if Counter(have) - Counter(one.wanted):
                raise RefusedError(
                    f"{self._state.layout.path(one.path)}: {one.owner} has other lines than those of "
                    f"'{allocation.name}'",
                    hint=f"its own are {' and '.join(map(file_line, one.wanted))}: take the others out",
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
            message = (
                f"{self._state.layout.path(one.path)}: the lines of '{allocation.name}' are {what}"
            )
            self.findings.append(
                advise("USN109", message, "they are put back as they were granted")
            )

    def remove(
        self,
        allocation: Allocation,
        kept: Container[tuple[str, bytes]],
        *,
        with_found: bool = False,
    ) -> tuple[Line, ...]:
        """Take the lines of an allocation out that we wrote, and tell which stay; nothing else is touched.

        ``kept`` are lines of root's, by file, that others need: see ``needed_of_root``. ``with_found`` takes adopted
        lines out too.
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
                # As often as it stands there.
                out *= max((self._raws(one.path)[raw] for raw in out), default=0)
            else:
                out = [raw for raw in _raw(have) if raw in one.wanted and raw not in found]
            self._out[one.path] += out
            if len(have) < len(one.wanted):
                self.findings.append(
                    advise(
                        "USN110",
                        f"{place}: lines of '{allocation.name}' were gone already",
                    )
                )
            for line in have:
                if subid.ended(line.raw) not in one.wanted:
                    message = f"{place}:{line.number}: '{file_line(line.raw)}' stays: usernsplan did not write it"
                    self.findings.append(advise("USN111", message))
        return tuple(staying)

    def _stays(self, one: Holding, line: Line) -> Finding:
        """What is said of a line that was adopted, and outlives its allocation."""
        place, shown = self._state.layout.path(one.path), file_line(line.raw)
        message = (
            f"{place}:{line.number}: '{shown}' stays: usernsplan did not write it, it stood before"
        )
        hint = "only '--with-lines' takes such a line out with its allocation"
        if isinstance(line, Grant) and self._state.accounts.user(one.owner):
            usermod = self._state.layout.account_command(
                ("usermod", f"--del-sub{one.kind}s", f"{line.start}-{line.stop - 1}", one.owner)
            )
            hint += f"; where nobody needs it any more: {shell(*usermod)}"
        return advise("USN111", message, hint)

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

    def _of(self, one: Holding) -> list[Line]:
        """The lines of an owner: by name, or by the uid of the account of that name.

        Root may have many: newuidmap, for LXC, takes any of them, and nobody joins them. Of root's only ours count.
        """
        if one.owner == ROOT:
            if one.path not in self._roots:
                self._roots[one.path] = {
                    subid.ended(line.raw): line for line in self._named(one.path, ROOT)
                }
            return [
                self._roots[one.path][raw] for raw in one.wanted if raw in self._roots[one.path]
            ]
        return self._named(one.path, one.owner)

    def _raws(self, path: str) -> Counter[bytes]:
        """How often each line stands in a file."""
        if path not in self._counts:
            self._counts[path] = subid.counted(self._files[path].raw)
        return self._counts[path]

    def _named(self, path: str, owner: str) -> list[Line]:
        names = (owner, self._uids[owner]) if owner in self._uids else (owner,)
        return sorted(
            (line for name in names for line in self._index[path].get(name, ())),
            key=lambda x: x.number,
        )

    def _refuse_lost_range(self, allocation: Allocation) -> None:
        if self._others is None:
            others = claims_of(self._state).where(is_of_others)
            self._others = self.without(others, *self._state.ledger.allocations)
        release = self._state.layout.inline(f"release {shell(allocation.name)}")
        for whose, overlap in (
            holders(allocation.reserved_range, self._others, self._state.layout)
            if allocation.reserved_range
            else ()
        ):
            raise RefusedError(
                f"'{allocation.name}' has lost its lines, and {overlap} of its range is now {whose}",
                hint=f"undo that, or {release} and allocate it anew",
            )


def needed_of_root(allocations: Iterable[Allocation]) -> frozenset[tuple[str, bytes]]:
    """The lines, by file, that root needs for these allocations."""
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
    """Tell whether its owner keeps all lines when it is released, because they stood before."""
    lines = [line for one in holdings(allocation, allocation.owner) for line in one.noted()]
    return bool(lines) and all(line in allocation.found for line in lines)
