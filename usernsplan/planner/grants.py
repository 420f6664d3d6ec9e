"""The lines of subuid and subgid during a plan: what each owner has, what comes and what goes."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING

from usernsplan.claims.sources import claims_of
from usernsplan.errors import RefusedError
from usernsplan.escape import file_line, shell
from usernsplan.formats import subid
from usernsplan.formats.limits import INCUS_LEAST
from usernsplan.formats.subid import Grant
from usernsplan.holdings import has_lines, holdings, noted_line, pieces
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.mapping import KINDS
from usernsplan.model import DEFAULT_OWNER, OWN_PREFIX, ROOT, Change, Finding
from usernsplan.planner import roots
from usernsplan.planner.daemon import remapped_to
from usernsplan.planner.stories import advise
from usernsplan.planner.taken import holders, is_of_others
from usernsplan.reserved import INSTANCES
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from usernsplan.claims.index import Claims
    from usernsplan.formats.subid import Line, SubidFile
    from usernsplan.holdings import Holding
    from usernsplan.model import Allocation, HostState


class Grants:
    """A draft of both files. Its methods note the changes; ``changes`` returns the new bytes.

    ``engines`` are those that the request names.
    """

    def __init__(self, state: HostState, engines: Collection[str] = ()) -> None:
        self._state = state
        # LXD and Incus, where they are: they take ids for instances from root's large lines.
        self._takers = roots.takers(state, engines)
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
        # The files in which root's lines of an allocation are split, with its name.
        self._split: set[tuple[str, str]] = set()

    def of(self, allocation: Allocation) -> Iterator[tuple[Holding, list[Line]]]:
        """The lines that each owner of an allocation needs in each file, and those it has there.

        The latter are in the order of the file.
        """
        for one in holdings(allocation):
            yield one, self._of(one)

    def named(self, one: Holding, lines: Iterable[Line]) -> list[bytes]:
        """These lines of an owner as they are with its name: a line may have its uid instead.

        usermod writes uids with SUB_UID_STORE_BY_UID. Root's lines are left as they are, because
        LXD and Incus do not read those of 0 beside those of root.
        """
        raw, uid = _raw(lines), self._uids.get(one.owner)
        if uid is None or one.owner == ROOT:
            return raw
        number, name = f"{uid}:".encode(), f"{one.owner}:".encode()
        return [
            name + text.removeprefix(number) if text.startswith(number) else text for text in raw
        ]

    def has_exactly(self, allocation: Allocation) -> bool:
        """Tell whether the owner has exactly the lines of the allocation, in both files."""
        return all(
            not self.differs(allocation, one, self._of(one))
            for one in holdings(allocation)
            if one.owner == allocation.owner
        )

    def standing(self, allocation: Allocation) -> Allocation | None:
        """A new allocation, with its lines as ``found``, if its owners have exactly these.

        None otherwise. Of root's lines only the wanted ones count. The order is that of the map where it matters.
        """
        found: list[tuple[str, str]] = []
        for one in holdings(allocation):
            if self.differs(allocation, one, self._of(one)):
                return None
            found += one.noted()
        ours = {(path, noted_line(raw)) for path, raw in self._roots_of_ours}
        return replace(allocation, found=tuple(sorted({*found} - ours)))

    def differs(self, allocation: Allocation, one: Holding, have: list[Line]) -> bool:
        """Tell whether the lines of an owner are not those that were granted.

        Podman sorts the lines of an account. So in a map whose host ids ascend their order in the
        file makes no difference, unless Docker lays them.
        """
        raw = self.named(one, have)
        if raw == one.wanted:
            return False
        hosts = [extent.host for extent in allocation.mapping[one.kind]]
        is_laid = one.owner in {DEFAULT_OWNER, self._docker} or one.owner.startswith(OWN_PREFIX)
        return is_laid or hosts != sorted(hosts) or Counter(raw) != Counter(one.wanted)

    @cached_property
    def _docker(self) -> str | None:
        """The user to whom Docker is remapped."""
        return remapped_to(self._state)

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
        self._refuse_others(allocation, self.of(allocation))

    def _refuse_others(
        self, allocation: Allocation, lines: Iterable[tuple[Holding, list[Line]]]
    ) -> None:
        for one, have in lines:
            if have and one.owner != ROOT and self.differs(allocation, one, have):
                from usernsplan.planner import adopt  # noqa: PLC0415 - it reads lines, too

                adopts, in_file = adopt.how_to(self._state, one.owner)
                raise RefusedError(
                    f"{self._state.layout.path(one.path)}:{have[0].number}: {one.owner} has "
                    f"'{file_line(have[0].raw)}', which usernsplan did not write; readers would join "
                    "it to the new range",
                    hint=f"{adopts}remove that line, or choose another --owner",
                    in_file=f"{in_file}remove that line, or choose another owner",
                )

    def in_pieces(self, allocation: Allocation) -> Allocation:
        """A new allocation, or one that is new to root, with root's lines in pieces.

        If root has a line for a whole range already, as from an earlier version, they stay whole.
        """
        if ROOT not in {allocation.owner, *allocation.extra_owners} or not has_lines(allocation):
            return allocation
        whole = (
            line
            for one in holdings(allocation, ROOT)
            for line in self._of(one)
            if isinstance(line, Grant) and line.stop - line.start >= INCUS_LEAST
        )
        if any(whole):
            return allocation
        return replace(allocation, split_owners=(ROOT,))

    def split(self, allocation: Allocation, names: AbstractSet[str]) -> Allocation:
        """Replace large lines of root by pieces where LXD or Incus would give away their ids.

        Such lines are from before LXD or Incus, or were adopted; then a release leaves the pieces.
        ``names`` are the allocations of the plan, whose lines are split, too.
        """
        if not (self._takers and roots.is_large(allocation)):
            return allocation
        found = {*allocation.found}
        for kind in KINDS:
            path = subid.PATHS[kind]
            for ids in allocation.mapping[kind].host_ranges():
                raw = subid.line(ROOT, ids)
                new = [subid.line(ROOT, piece) for piece in pieces(ids)]
                if new == [raw]:
                    continue
                if (path, raw) in self._come:
                    self._in[path].remove(raw)
                elif raw not in self._roots[path]:
                    continue
                elif self._needers.get((path, raw), names) <= names:
                    self._out[path] += [raw] * self._counts[path][raw]
                self._grant_root(path, new)
                if (path, noted_line(raw)) in found:
                    found.remove((path, noted_line(raw)))
                    found.update((path, noted_line(piece)) for piece in new)
                self._split.add((path, allocation.name))
        if any((path, allocation.name) in self._split for path in self._files):
            message = (
                f"root's lines of '{allocation.name}' are granted in smaller lines, because "
                f"{self._takers[0]} gives the ids of large ones to its instances"
            )
            self.findings.append(advise("USN140", message, f"restart {self._takers[0]}"))
        return replace(allocation, split_owners=(ROOT,), found=tuple(sorted(found)))

    def add(self, allocation: Allocation) -> Allocation:
        """Grant a new allocation and return it, with its existing lines as ``found``.

        Raises what refuse_other_lines raises.
        """
        lines = (*self.of(allocation),)
        self._refuse_others(allocation, lines)
        for one, have in lines:
            if one.owner == ROOT:
                self._grant_root(one.path, one.wanted)
            elif not have:
                self._in[one.path] += one.wanted
        found = tuple(dict.fromkeys(self._found(lines)))
        return replace(allocation, found=found) if found != allocation.found else allocation

    def widen(self, allocation: Allocation, owner: str) -> Allocation:
        """Grant an existing allocation to a further owner, and return it as it will be.

        Lines of the owner that exist already are ``found``.
        """
        now = replace(allocation, extra_owners=(*allocation.extra_owners, owner))
        if owner == ROOT:
            now = self.in_pieces(now)
        for one in holdings(now, owner):
            if owner == ROOT:
                self._grant_root(one.path, one.wanted)
            else:
                self._in[one.path] += one.wanted
        lines = ((one, self._of(one)) for one in holdings(now, owner))
        found = (*now.found, *self._found(lines))
        return replace(now, found=tuple(dict.fromkeys(found)))

    def _found(self, lines: Iterable[tuple[Holding, list[Line]]]) -> Iterator[tuple[str, str]]:
        """The wanted lines that exist already and that usernsplan did not write, with their file.

        Only root may have one line for several allocations.
        """
        for one, have in lines:
            for raw in self.named(one, have) if have else ():
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

    @cached_property
    def _needers(self) -> dict[tuple[str, bytes], set[str]]:
        """The lines that root needs for existing allocations, with their file, and whose they are."""
        found: dict[tuple[str, bytes], set[str]] = {}
        for a in self._state.ledger.allocations:
            for line in needed_of_root([a]):
                found.setdefault(line, set()).add(a.name)
        return found

    def _grant_root(self, path: str, wanted: Iterable[bytes]) -> None:
        """Add the lines that root lacks, each once, even if several shared maps need it.

        Raises what _refuse_hiding raises.
        """
        have = self._roots[path]
        new = [(path, raw) for raw in wanted if raw not in have and (path, raw) not in self._come]
        if new:
            self._refuse_hiding(path)
        self._in[path] += [raw for _, raw in new]
        self._come.update(new)

    def _refuse_hiding(self, path: str) -> None:
        """Raise RefusedError if LXD or Incus would no longer read the lines of root's uid."""
        if self._takers or roots.without_files(self._state):
            roots.refuse_hiding(self._state, path)

    def keep_instances(self) -> None:
        """Give root the ids that LXD or Incus takes while a file is missing, if it is now created.

        Once both files exist, it takes only those of root's lines. Raises RefusedError if somebody
        else has them.
        """
        is_new = any(self._in[path] and not file.exists for path, file in self._files.items())
        program = roots.without_files(self._state)
        if not (is_new and program):
            return
        lacking = [path for path, file in self._files.items() if not roots.large(file)]
        if not lacking:
            return
        roots.refuse_taken(self._state, program)
        raw = subid.line(ROOT, INSTANCES)
        for path in lacking:
            self._in[path].insert(0, raw)
        message = (
            f"root gets {INSTANCES}, too: until now, {program} gives these ids to its instances, "
            "but once both files exist, it takes only those of root's lines"
        )
        self.findings.append(advise("USN139", message, f"restart {program}"))

    def restore(self, allocation: Allocation) -> None:
        """Restore lines that are missing or in another order; do nothing if all are right.

        Raises RefusedError, and changes nothing for this allocation, if an owner also has other
        lines or somebody else has the range now.
        """
        broken = [
            (one, have)
            for one, have in self.of(allocation)
            if self.differs(allocation, one, have)
            and not (one.owner == ROOT and (one.path, allocation.name) in self._split)
        ]
        for one, have in broken:
            if Counter(self.named(one, have)) - Counter(one.wanted):
                lines = " and ".join(map(file_line, one.wanted))
                raise RefusedError(
                    f"{self._state.layout.path(one.path)}: {one.owner} has other lines than those "
                    f"of '{allocation.name}'",
                    hint=f"keep {lines}, and remove the others",
                )

        for one, _ in broken:
            if one.owner == ROOT:
                self._refuse_hiding(one.path)
        if broken:
            self._refuse_lost_range(allocation)
            self.restored[allocation.name] = None
        for one, have in broken:
            if one.owner == ROOT:
                self._grant_root(one.path, one.wanted)
            else:
                self._out[one.path] += _raw(have)
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
            named = list(zip(have, self.named(one, have), strict=True))
            left = [line for line, raw in named if raw in found]
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
                ours = (line for line, raw in named if raw in one.wanted and raw not in found)
                out = _raw(ours)
            self._out[one.path] += out

            if len(have) < len(one.wanted):
                message = f"{place}: some lines of '{allocation.name}' were missing already"
                self.findings.append(advise("USN110", message))
            for line, raw in named:
                if raw not in one.wanted:
                    message = (
                        f"{place}:{line.number}: '{file_line(line.raw)}' stays: usernsplan did not "
                        "write it"
                    )
                    self.findings.append(advise("USN111", message))
        return tuple(staying)

    def exchange(
        self,
        old: Allocation,
        new: Allocation,
        kept: Container[tuple[str, bytes]],
        *,
        with_found: bool = False,
    ) -> None:
        """Replace the lines of an allocation by those of its new map.

        ``kept`` are lines of root that others need, as for ``remove``. Lines that are in both stay,
        and without ``with_found`` so do those of root that existed before. Raises RefusedError
        unless the lines of the old map are as they were granted.
        """
        wanted = {(one.path, one.owner): one.wanted for one in holdings(new)}
        for one, have in self.of(old):
            after = wanted[one.path, one.owner]
            if self.differs(old, one, have):
                raise RefusedError(
                    f"{self._state.layout.path(one.path)}: the lines of '{old.name}' are not as they "
                    "were granted; nothing was changed",
                    hint=f"{self._state.layout.inline('check')} shows them, and "
                    f"{self._state.layout.inline('check --fix')} restores what is missing",
                )
            if one.owner == ROOT:
                out = [
                    raw
                    for raw in one.wanted
                    if raw not in after
                    and (one.path, raw) not in kept
                    and (with_found or (one.path, noted_line(raw)) not in old.found)
                ]
                # Root may have the same line several times.
                self._out[one.path] += [
                    r for raw in out for r in [raw] * self._counts[one.path][raw]
                ]
                self._grant_root(one.path, after)
            elif after != one.wanted:
                self._out[one.path] += _raw(have)
                self._in[one.path] += after

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
        """The lines that begin with an owner's name or with the uid of its account, in file order."""
        found, uid = self._index[path].get(owner, []), self._uids.get(owner)
        if uid is None:
            return found
        return sorted([*found, *self._index[path].get(uid, ())], key=itemgetter(0))

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
