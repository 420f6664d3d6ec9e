"""Slices: allocations out of lines that somebody has already, which stay as they are. Pure.

A slice is of ``within``, the owner of the lines. Its ids are the last free ones of these lines: the
owner's own engines take theirs from the first id on (``podman run``, ``--userns=auto``, isolated
instances of Incus), and none of them reads the ledger.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from usernsplan.claims.meant import DAEMONS_OF_ROOT, is_meant
from usernsplan.claims.sources import OF_CONTAINERS
from usernsplan.engines import engine_of_pool
from usernsplan.errors import (
    InvalidValueError,
    PoolExhaustedError,
    RefusedError,
    concerning,
    did_you_mean,
)
from usernsplan.escape import shell
from usernsplan.formats import passes as texts
from usernsplan.formats.subid import PATHS, Grant, owners, usermod
from usernsplan.holdings import all_own_ids, granted, has_lines, own_ids
from usernsplan.ids import ID_LIMIT, IdRange, IdSet
from usernsplan.layout import NSSWITCH
from usernsplan.mapping import KINDS, Mapping
from usernsplan.model import (
    DEFAULT_NAME,
    DOCKER,
    INCUS,
    LXD,
    MOUNT,
    ROOT,
    Allocation,
    Unlisted,
)
from usernsplan.planner.names import check_owner
from usernsplan.planner.returning import since_then
from usernsplan.planner.stories import advise
from usernsplan.planner.taken import holders
from usernsplan.reserved import Reserved
from usernsplan.strategies import SLOT, PerContainer
from usernsplan.values import NamedTuple, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from usernsplan.claims.index import Claim, Claims
    from usernsplan.formats.subid import Line
    from usernsplan.mapping import IdMap, Kind, Pass
    from usernsplan.model import (
        AllocateRequest,
        ContainerOptions,
        Finding,
        HostState,
        Quarantined,
    )
    from usernsplan.planner.resolve import Wanted

_KUBELET = "kubelet"
_AUTO = "containers"
_SHOWN = 5
# Whom a slice keeps clear of, if there is room: also of conventions and of instances that map all
# ids of the lines; of those who run there now; or only of those who have the ids.
_NOBODY, _RUNNING, _EVERYBODY = range(3)
_NONE = IdSet()


class Placed(NamedTuple):
    """The new slices with their ids, and what leaves the quarantine because it is theirs again."""

    new: dict[str, Allocation]
    unkeep: tuple[tuple[str, IdRange], ...] = ()
    notes: tuple[Finding, ...] = ()


class _At(NamedTuple):
    """The first host id of a slice: of its uids and of its gids."""

    uid: int
    gid: int


def refuse_contradictions(request: AllocateRequest, name: str, options: ContainerOptions) -> None:
    """Raise InvalidValueError for options that do not go with ``within``."""
    if not options.within:
        if options.map and not options.adopt:
            raise InvalidValueError(
                "a map is made out of size, start and pass",
                hint="use these; or write 'adopt: true' for a map that stands on the host, or "
                "'within: OWNER' for a slice of an owner's lines",
                option="map",
            )
        return

    check_owner(options.within)
    if name in {DEFAULT_NAME, request.daemon}:
        raise InvalidValueError(
            "Docker takes all lines of its user, so its allocation cannot be a slice of them",
            hint="name a container, and leave out --daemon",
            in_file="leave it out for the container of Docker",
        )
    if not isinstance(options.strategy, PerContainer):
        raise InvalidValueError(
            f"a slice is a range of one container, but the strategy is {options.strategy.name}",
            hint="leave it out: only per-container has slices",
        )
    if options.owner not in {None, options.within}:
        raise InvalidValueError(
            f"the lines are those of {options.within}, and a slice has no owner of its own",
            hint="leave out --owner or --within",
            in_file="leave out the owner",
        )
    if request.pool and "pool" not in request.places and not request.from_file:
        raise InvalidValueError(
            f"a slice is taken from the lines of {options.within}, not from a pool",
            hint="leave out --pool or --within",
        )


def map_of(options: ContainerOptions) -> Mapping | None:
    """The map that a plan file gives a slice; None if usernsplan chooses it."""
    return texts.parse_map(options.map) if options.within and options.map else None


def refuse_other(
    state: HostState, one: Wanted, existing: Allocation, remap: str | None = None
) -> None:
    """Raise RefusedError unless the request describes the existing allocation, one being a slice.

    ``remap`` is the command that makes what is requested of a slice; None if there is none.
    """
    option, what = _differing(one, existing)
    if not option:
        return
    release = state.layout.inline(f"release {shell(one.name)}")
    hint = f"to change it, run {release} and allocate it again; then fix its volumes"
    if remap and option in {"size", "start", "pass"}:
        hint = f"to change it, with its volumes: {remap}"
    raise RefusedError(f"'{one.name}' is allocated already, {what}", hint=hint, option=option)


def _differing(one: Wanted, existing: Allocation) -> tuple[str, str]:
    """The first option in which a request differs from an existing slice, and what that one has."""
    ids = ", ".join(map(str, existing.mapping.uids.host_ranges()))
    if one.within != existing.within:
        had = f"as a slice of the lines of {existing.within}" if existing.within else "with lines"
        return "within", f"{had}, as host uids {ids}"
    if one.map is not None:
        return ("", "") if one.map == existing.mapping else ("map", f"with another map: {ids}")
    if not isinstance(one.strategy, PerContainer):
        return "strategy", f"with the strategy {existing.strategy}"
    if existing.passes != one.strategy.passes:
        return "pass", f"with other passes, as host uids {ids}"
    at = _bases(existing)
    is_other = at is None or _map_at(one.strategy, at) != existing.mapping
    is_elsewhere = one.start is not None and at != (one.start, one.start)
    option = "size" if is_other else "start" if is_elsewhere else ""
    return option, f"with another {option}, as host uids {ids}"


def place(
    state: HostState,
    taken: Claims,
    wanted: Iterable[Wanted],
    before: Collection[Allocation] = (),
) -> Placed:
    """Choose the ids of new slices: those asked for, the former ones, or the last that are free.

    ``taken`` are the claims that make ids unavailable, and ``before`` the allocations of the same
    plan that have theirs. The same id begins the uids and the gids wherever that fits. Raises
    RefusedError, InvalidValueError, or PoolExhaustedError with a size that fits.
    """
    wanted = [one for one in wanted if one.within and one.known is None]
    drafts: dict[str, _Draft] = {}
    for one in wanted:
        if one.within not in drafts:
            with concerning(one.name, "within"):
                drafts[one.within] = _Draft(state, taken, one.within, before)
    new: dict[str, Allocation] = {}

    # What is asked for comes first, and then what comes back: a new one might take these ids.
    for one in wanted:
        if one.start is not None or one.map is not None:
            with concerning(one.name, "map" if one.map else "start"):
                made = drafts[one.within].exactly(one)
                new[one.name] = drafts[one.within].give(made, _former_of(state, made))
    for one in wanted:
        if one.name not in new:
            with concerning(one.name, "within"):
                again = drafts[one.within].again(one)
                if again:
                    new[one.name] = drafts[one.within].give(*again)
    for owner, draft in drafts.items():
        left = [one for one in wanted if one.within == owner and one.name not in new]
        new |= {made.name: draft.give(made) for made in draft.fitting(left)}

    return Placed(
        {one.name: new[one.name] for one in wanted},
        tuple(found for draft in drafts.values() for found in draft.unkeep),
        tuple(found for draft in drafts.values() for found in draft.notes),
    )


class _Draft:
    """The lines of one owner, what of them is free for slices, and the slices that get it."""

    def __init__(
        self, state: HostState, taken: Claims, owner: str, before: Iterable[Allocation]
    ) -> None:
        self._state, self._owner = state, owner
        self._before = tuple(before)
        self._names = state.accounts.owner_names(owner)
        with concerning(option="within"):
            self.granted = self._granted(taken)
        self._taken = taken
        self._claims = [claim for claim in taken if self._is_others(claim)]
        self._mine: dict[Kind, IdSet] = {kind: IdSet() for kind in KINDS}
        self._unused: dict[tuple[str, int], dict[Kind, IdSet]] = {}
        self.unkeep: list[tuple[str, IdRange]] = []
        self.notes: list[Finding] = []
        for one in self._before:
            if not self._is_of_lines(one):
                self.take(one)

    def _granted(self, taken: Claims) -> dict[Kind, IdSet]:
        """What the lines grant, by kind. Raises RefusedError for lines on which slices cannot stand."""
        state, owner = self._state, self._owner
        if owner == _KUBELET:
            raise RefusedError(
                "the kubelet gives its pods all ids of its lines, and does not know of slices",
                hint="name another owner",
            )
        if not state.subid_source.reads_files:
            services = " ".join(state.subid_source.services)
            raise RefusedError(
                f"{state.layout.path(NSSWITCH)}:{state.subid_source.number}: 'subid: {services}': "
                f"that service has the subordinate ids of {owner}, and cannot list them",
                hint="grant ranges in the files, and write 'subid: files' there",
            )
        found = {kind: self._of_kind(kind) for kind in KINDS}
        self._refuse_none(found)
        if owner != ROOT:
            self._refuse_shared(taken, found)
        return found

    def _of_kind(self, kind: Kind) -> IdSet:
        """The ids of containers that the lines of one file grant."""
        place, by_owner = self._state.layout.path(PATHS[kind]), self._state.subid(kind).by_owner()
        lines = [line for name in self._names for line in by_owner.get(name, ())]
        spans = [
            (ids.start, ids.stop)
            for a in self._before
            if self._is_of_lines(a)
            for ids in granted(a, kind, self._owner)
            if not any(_is_of(line, ids) for line in lines)
        ]
        for line in lines:
            if not isinstance(line, Grant):
                if line.problem:
                    raise RefusedError(
                        f"{place}:{line.number}: readers do not agree on this line of "
                        f"{self._owner}: {line.problem}",
                        hint="write it as OWNER:START:COUNT in decimal, or remove it",
                    )
            elif line.stop > ID_LIMIT:
                raise RefusedError(
                    f"{place}:{line.number}: the line of {self._owner} ends at {line.stop - 1}, "
                    "an id that cannot exist",
                    hint="make it shorter",
                )
            elif line.start < line.stop:
                spans.append((line.start, line.stop))
        if self._owner != ROOT:
            for (_, stop), (start, _) in pairwise(sorted(spans)):
                if start < stop:
                    raise RefusedError(
                        f"{place}: two lines of {self._owner} grant {start}: the kernel refuses "
                        "the map that its engines make of them",
                        hint="remove one of the two lines",
                    )
        return IdSet.clipped(spans)

    def _refuse_none(self, found: dict[Kind, IdSet]) -> None:
        """Raise RefusedError if a file has no line of the owner."""
        state, owner = self._state, self._owner
        lacking = [PATHS[kind] for kind in KINDS if not found[kind] - _HOSTS]
        if not lacking:
            return
        paths = " and ".join(map(state.layout.path, lacking))
        is_account = state.accounts.user(owner) is not None
        strategy = "" if state.ledger.allocations else f"--strategy {PerContainer.name} "
        give = state.layout.inline(f"allocate {strategy}{shell(owner)} --owner {shell(owner)}")
        hint = f"{give} gives {owner} a range, from which slices can then be taken"
        if len(lacking) == 1:
            kind: Kind = "gid" if lacking == [PATHS["uid"]] else "uid"
            other: Kind = "uid" if kind == "gid" else "gid"
            ids = next(iter(found[kind] - _HOSTS))
            command = shell(*state.layout.account_command(usermod(owner, [(other, ids)])))
            hint = f"grant the same {other}s, if nobody has them: {command}"
        elif not is_account:
            hint = did_you_mean(owner, owners(state.subuid, state.subgid), hint)
        raise RefusedError(f"{owner} has no line in {paths}", hint=hint)

    def _refuse_shared(self, taken: Claims, found: dict[Kind, IdSet]) -> None:
        """Raise RefusedError if somebody else has a line over the same ids."""
        others = taken.where(
            lambda c: c.source == "subid" and c.holder != self._owner and not is_meant(c)
        )
        for kind in KINDS:
            for ids in found[kind] - _HOSTS:
                for claim in others.over(ids.start, ids.stop, kind):
                    place = self._state.layout.path(claim.path)
                    raise RefusedError(
                        f"{place}:{claim.number}: {claim.holder} has {claim.ids}, too, which "
                        f"overlaps with {ids} of {self._owner}: their containers own each other's files",
                        hint="'usernsplan check' names all lines that overlap; give one of the "
                        "owners another range first",
                    )

    def _is_of_lines(self, a: Allocation | None) -> bool:
        """Tell whether the owner's lines are those of an allocation: slices lie in it on purpose.

        Root may have lines for many containers, and these are theirs.
        """
        if a is None or a.within or not has_lines(a) or a.owner != self._owner:
            return False
        return self._owner != ROOT or a.name == ROOT

    def _is_others(self, claim: Claim) -> bool:
        """Tell whether a claim is on ids that a slice cannot have."""
        if claim.source == "subid" and (
            claim.holder == self._owner
            or is_meant(claim)
            or (self._owner == ROOT and claim.holder in DAEMONS_OF_ROOT)
        ):
            return claim.allocation is not None and not self._is_of_lines(claim.allocation)
        return not self._is_of_lines(claim.allocation)

    def _softness(self, claim: Claim) -> int:
        """Whether a claim always keeps slices away (_NOBODY may be there), or only if it can.

        The owner's engines map all of its ids into containers that run, and so do plain instances of
        LXD and Incus. Conventions about ids that the owner was granted all the same are others'.
        """
        one = claim.value
        if isinstance(one, Unlisted):
            if one.program in {INCUS, LXD}:
                whole = IdSet.clipped([claim[:2]])
                is_all = all(whole.holds(ids) for ids in self.granted[claim.kind] - _HOSTS)
                return _EVERYBODY if is_all else _NOBODY
            return _RUNNING if one.program in {MOUNT, DOCKER} else _NOBODY
        if claim.source == "namespace":
            return _RUNNING
        return _EVERYBODY if isinstance(one, Reserved) else _NOBODY

    def _free(self, name: str, kept: int = 0) -> dict[Kind, IdSet]:
        """The free ids, by kind, for a slice of this name.

        ``kept`` says of whom it keeps clear besides: of _EVERYBODY, of those who are _RUNNING there, or
        of _NOBODY.
        """
        key = (name if name in self._containers else "", kept)
        if key not in self._unused:
            self._unused[key] = {kind: self._left(kind, *key) for kind in KINDS}
        return {kind: ids - self._mine[kind] for kind, ids in self._unused[key].items()}

    def _left(self, kind: Kind, name: str, kept: int) -> IdSet:
        """What others leave of the lines. A container of this name may run there already."""
        spans = (
            claim[:2]
            for claim in self._claims
            if claim.kind == kind
            and self._softness(claim) <= kept
            and not (name and isinstance(claim.value, Unlisted) and claim.value.container == name)
        )
        exists = self._state.exists[KINDS.index(kind)]
        return (self.granted[kind] - _HOSTS - IdSet.clipped(spans)) & exists

    def give(self, made: Allocation, former: Sequence[Quarantined] = ()) -> Allocation:
        """Note a new slice, and the ranges that come back to it from quarantine."""
        self.take(made)
        self.unkeep += [(one.name, one.reserved_range) for one in former]
        if former:
            ids = " and ".join(str(one.reserved_range) for one in former)
            message = f"'{made.name}' has {ids} again, as before the release"
            self.notes.append(advise("USN131", message))
        if found := self.shared(made):
            self.notes.append(found)
        return since_then(made, former[0] if former else None)

    def take(self, made: Allocation) -> None:
        """Note the ids of a slice: no other slice gets them."""
        for kind in KINDS:
            self._mine[kind] |= own_ids(made, kind)

    def exactly(self, one: Wanted) -> Allocation:
        """The slice at the ids that are asked for. Raises RefusedError or InvalidValueError."""
        start = one.start or 0
        made = _with_map(one, one.map) if one.map is not None else _made(one, _At(start, start))
        self.refuse_taken(made, IdSet(q.reserved_range for q in _former_of(self._state, made)))
        return made

    def refuse_taken(self, made: Allocation, back: IdSet = _NONE) -> None:
        """Raise RefusedError unless the lines grant a slice, and its ids are free or come ``back``."""
        for kind in KINDS:
            for ids in own_ids(made, kind) - self.granted[kind]:
                raise RefusedError(
                    f"{ids} is in no line of {self._owner} in "
                    f"{self._state.layout.path(PATHS[kind])}, which grants {self.granted[kind]}",
                    hint="leave the start out, and usernsplan finds ids that are free",
                )
        self._refuse_passes(made)
        for kind in KINDS:
            for ids in self._lacking(made, kind, back):
                raise RefusedError(
                    f"{ids} is not free: it is {self._holder(ids)}",
                    hint="leave the start out, and usernsplan finds ids that are free",
                )

    def _lacking(self, made: Allocation, kind: Kind, back: IdSet = _NONE) -> IdSet:
        """The ids that a slice would need and that are not free."""
        return own_ids(made, kind) - self._free(made.name)[kind] - (back - self._mine[kind])

    def fits(self, made: Allocation) -> bool:
        """Tell whether all ids of a slice are free."""
        return not any(self._lacking(made, kind) for kind in KINDS)

    def other_place(self, old: Allocation, strategy: PerContainer) -> Allocation:
        """A slice with another map, at the last free ids of which ``old`` has none.

        Raises PoolExhaustedError if it does not fit.
        """
        had = own_ids(old, "uid") | own_ids(old, "gid")

        def free(kept: int) -> dict[Kind, IdSet]:
            return {kind: ids - had for kind, ids in self._free(old.name, kept).items()}

        for fit in (_together, _apart):
            for kept in (_EVERYBODY, _RUNNING, _NOBODY):
                if at := fit(free(kept), strategy.size):
                    made = with_shape(old, strategy, *at)
                    self._refuse_passes(made)
                    return made
        most, layout = _most(free(_NOBODY), 1), self._state.layout
        words = ("usermod", "--add-subuids", "FIRST-LAST", "--add-subgids", "FIRST-LAST")
        more = shell(*layout.account_command((*words, self._owner)))
        remap = layout.command(f"remap {shell(old.name)} --size {most}")
        raise PoolExhaustedError(
            f"the lines of {self._owner} have no room for '{old.name}' with {strategy.size} ids: "
            f"beside its own, the largest free piece has {most}; nothing was changed",
            hint=(f"this fits: {remap}; or " if most else "")
            + f"release a slice and forget its ids, or grant {self._owner} more: {more}",
        )

    def again(self, one: Wanted) -> tuple[Allocation, tuple[Quarantined, ...]] | None:
        """The slice as it was before its release, the latest first; None if nothing comes back."""
        free = self._free(one.name)
        released = _released(self._state, one.name, one.within)
        for event in sorted(released, reverse=True):
            former = released[event]
            was = former[0].was
            at = _bases(was) if was else None
            if was is None or at is None:
                continue
            made = _made(one, at)
            own = IdSet(q.reserved_range for q in former)
            if _is_like(made, was) and all(
                not own_ids(made, kind)
                - (free[kind] | (own & self.granted[kind] - self._mine[kind]))
                for kind in KINDS
            ):
                self._refuse_passes(made)
                return made, tuple(former)
        return None

    def fitting(self, group: Sequence[Wanted]) -> list[Allocation]:
        """The slices at the last ids that are free.

        The uids and the gids of one begin at the same id, if all of them fit so. Raises
        PoolExhaustedError if they do not fit at all.
        """
        found, lacking = self._fitted(group, _last_fit)
        if lacking:
            found, lacking = self._fitted(group, _apart)
        if lacking:
            with concerning(lacking.name, "within"):
                raise self._no_room(lacking, group, found)
        return found

    def _fitted(
        self, group: Sequence[Wanted], fit: Callable[[dict[Kind, IdSet], int], _At | None]
    ) -> tuple[list[Allocation], Wanted | None]:
        """The slices of a group, up to the first that does not fit, and that one."""
        before, found = dict(self._mine), list[Allocation]()
        for one in group:
            size = _shape(one).size
            # The last ones that nobody is near, or else the last ones.
            ats = (
                fit(self._free(one.name, kept), size) for kept in (_EVERYBODY, _RUNNING, _NOBODY)
            )
            at = next(filter(None, ats), None)
            if at is None:
                self._mine = before
                return found, one
            with concerning(one.name):
                made = _made(one, at)
                self._refuse_passes(made)
            self.take(made)
            found.append(made)
        self._mine = before
        return found, None

    def _no_room(
        self, one: Wanted, group: Sequence[Wanted], given: Sequence[Allocation]
    ) -> PoolExhaustedError:
        """The error of a slice that does not fit, with the size of which all do that want the same.

        ``given`` are slices of the group that would have got ids, of these or of another size.
        """
        size, owner = _shape(one).size, self._owner
        mine = [it for it in group if it.strategy == one.strategy]
        others = {it.name for it in group} - {it.name for it in mine}
        free = {
            kind: ids - IdSet.union(own_ids(a, kind) for a in given if a.name in others)
            for kind, ids in self._free(one.name).items()
        }
        several = f"the {len(mine)} slices" if len(mine) > 1 else f"'{one.name}'"
        fits = _most(free, len(mine))
        message = (
            f"the lines of {owner} have no room for {several} of {size} ids"
            f"{' each' if len(mine) > 1 else ''}: the largest free piece has "
            f"{min(room.largest() for room in free.values())}; nothing was allocated"
        )
        if not fits:
            more = f"usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST {shell(owner)}"
            hint = f"release a slice and forget its ids, or grant {owner} more: {more}"
            return PoolExhaustedError(message, hint=hint)
        words = ["allocate"]
        if not self._state.ledger.allocations:
            words += ["--strategy", PerContainer.name]
        words += [shell(it.name) for it in mine]
        words += ["--within", shell(owner), "--size", str(fits)]
        words += [f"--pass {shell(text)}" for text in texts.written(_shape(one).passes)]
        return PoolExhaustedError(
            message,
            hint=f"this fits: {self._state.layout.command(' '.join(words))}",
            in_file=f"'size: {fits}' fits",
        )

    def _refuse_passes(self, made: Allocation) -> None:
        """Raise RefusedError for ids to pass that newuidmap does not give the owner.

        It gives an account its own id, and what its lines grant. Root needs a line, too.
        """
        user = self._state.accounts.user(self._owner)
        if user is None:
            return
        for kind, extent in made.passes:
            ids = extent.host_range
            is_own = self._owner != ROOT and user.is_itself(kind, ids.start, ids.count)
            if is_own or self.granted[kind].holds(ids):
                continue
            words = usermod(self._owner, [(kind, ids)])
            command = shell(*self._state.layout.account_command(words))
            raise RefusedError(
                f"{kind} {ids} of '{made.name}' cannot pass: newuidmap gives {self._owner} only "
                "its own ids and those of its lines",
                hint=f"this grants it: {command}",
                option="pass",
            )

    def shared(self, made: Allocation) -> Finding | None:
        """The finding that somebody may use ids of a slice now; None if nobody does."""
        own = {kind: own_ids(made, kind) for kind in KINDS}
        for claim in self._soft:
            is_itself = isinstance(claim.value, Unlisted) and claim.value.container == made.name
            if own[claim.kind].meets(*claim[:2]) and not is_itself:
                ids = next(iter(IdSet.clipped([claim[:2]]) & own[claim.kind]))
                whose = next(who for who, _ in holders(ids, self._only(claim), self._state.layout))
                inspect = self._state.layout.inline("inspect --all")
                hint = (
                    f"a container that maps these ids can reach the files of '{made.name}'; "
                    f"{inspect} shows what runs"
                )
                if isinstance(claim.value, Reserved):
                    hint = f"take the slice from other lines, or grant {self._owner} other ids"
                return advise("USN168", f"{ids} of '{made.name}' is {whose}", hint)
        return None

    @cached_property
    def _soft(self) -> tuple[Claim, ...]:
        return tuple(filter(self._softness, self._claims))

    def _only(self, claim: Claim) -> Claims:
        return self._taken.where(lambda one: one is claim)

    def _holder(self, ids: IdRange) -> str:
        """Who has an id, as text; it may be a slice of the same plan."""
        for whose, _ in holders(ids, self._index, self._state.layout):
            return whose
        return "given to another container of this plan"

    @cached_property
    def _containers(self) -> frozenset[str]:
        """The names of the containers that programs have ids for without a line."""
        values = (claim.value for claim in self._claims)
        return frozenset(one.container for one in values if isinstance(one, Unlisted))

    @cached_property
    def _index(self) -> Claims:
        return self._taken.where(lambda one: self._is_others(one) and not self._softness(one))


def remapped(
    state: HostState,
    claims: Callable[[Allocation | None], Claims],
    old: Allocation,
    strategy: PerContainer,
    start: int | None,
) -> Allocation:
    """A slice with another map: at ``start``; else where it is, if it fits; else at other ids.

    ``claims`` gives those of others, of whom the slice at this place has what it lost there. Raises
    RefusedError, or PoolExhaustedError.
    """
    if start is not None:
        with concerning(old.name, "start"):
            made = with_shape(old, strategy, start, start)
            _Draft(state, claims(made), old.within, ()).refuse_taken(made)
        return made
    with concerning(old.name, "within"):
        if (at := begins(old)) and is_possible(strategy, *at):
            made = with_shape(old, strategy, *at)
            draft = _Draft(state, claims(made), old.within, ())
            if draft.fits(made) and not crossing(old, made):
                draft.refuse_taken(made)
                return made
        return _Draft(state, claims(None), old.within, ()).other_place(old, strategy)


def refuse_taken(state: HostState, claims: Claims, made: Allocation) -> None:
    """Raise RefusedError unless the lines grant a slice and its ids are free."""
    _Draft(state, claims, made.within, ()).refuse_taken(made)


def told(state: HostState, claims: Claims, made: Allocation) -> tuple[Finding, ...]:
    """The finding that somebody may use ids of a slice now, if somebody does."""
    found = _Draft(state, claims, made.within, ()).shared(made)
    return (found,) if found else ()


def with_shape(old: Allocation, strategy: PerContainer, uid: int, gid: int) -> Allocation:
    """A slice with the map of a strategy, whose uids and gids begin at these host ids."""
    held, _ = IdRange(uid, strategy.size), IdRange(gid, strategy.size)
    return replace(
        old,
        mapping=mapping_at(strategy, uid, gid),
        reserved_range=held if uid == gid else None,
        passes=strategy.passes,
    )


def crossing(old: Allocation, new: Allocation) -> IdSet:
    """The ids that one of two maps has as uids only, or as gids only, and the other one as others.

    Quarantine is for both kinds, so it cannot hold them: neither those that the old map loses, nor,
    if this is undone, those of the new one.
    """
    found = IdSet()
    for kind, other in (KINDS, KINDS[::-1]):
        for one, instead in ((old, new), (new, old)):
            lost = own_ids(one, kind) - own_ids(instead, kind)
            found |= lost & own_ids(instead, other)
    return found


def is_possible(strategy: PerContainer, *bases: int) -> bool:
    """Tell whether ranges that begin at these host ids end before the last id that can exist."""
    return all(base + strategy.size <= ID_LIMIT for base in bases)


# The ids of the host itself. Lines over them pass them through, and no slice is made of them.
_HOSTS = IdSet((IdRange(0, OF_CONTAINERS),))


def _former_of(state: HostState, made: Allocation) -> tuple[Quarantined, ...]:
    """The quarantined ranges that are those of a new slice: it had them before its release."""
    released = _released(state, made.name, made.within)
    for event in sorted(released, reverse=True):
        was = released[event][0].was
        if was and _is_like(made, was):
            return tuple(released[event])
    return ()


def _released(state: HostState, name: str, owner: str) -> dict[int, list[Quarantined]]:
    """The quarantined ranges of a name that were slices of these lines, by their release."""
    found: dict[int, list[Quarantined]] = {}
    for q in state.ledger.quarantined:
        if q.name == name and q.was and q.was.within == owner:
            found.setdefault(q.event, []).append(q)
    return found


def _is_like(made: Allocation, was: Allocation) -> bool:
    """Tell whether two slices have the same ids for themselves, and begin at the same."""
    return _bases(made) == _bases(was) and all(
        own_ids(made, kind) == own_ids(was, kind) for kind in KINDS
    )


def is_cut(state: HostState, a: Allocation) -> bool:
    """Tell whether an allocation is a slice that a request makes anew from the same lines.

    A map of another shape was adopted, and so was one of a container that has its ids already.
    """
    at = _bases(a)
    if not a.within or at is None:
        return False
    size = max(e.container + e.count for e in a.mapping.uids if ("uid", e) not in a.passes)
    stands = any(
        one.container and own_ids(a, one.kind).meets(one.start, one.stop) for one in state.unlisted
    ) or any(a.name in {one.name, f"{one.account}-{one.name}"} for one in state.quadlets)
    return not stands and _map_at(PerContainer(size, passes=a.passes), at) == a.mapping


def quarantined(a: Allocation) -> tuple[IdRange, ...]:
    """The ranges that a release quarantines: the reserved one, or else the ids of both maps."""
    if a.reserved_range:
        return (a.reserved_range,)
    return tuple(all_own_ids(a))


def begins(a: Allocation) -> tuple[int, int] | None:
    """The host ids of container id 0, uid and gid, if all own ids follow from them; else None."""
    found: list[int] = []
    for kind in KINDS:
        bases = {e.host - e.container for e in a.mapping[kind] if (kind, e) not in a.passes}
        if len(bases) != 1 or min(bases) < 0:
            return None
        found += bases
    return found[0], found[1]


def shape_of(a: Allocation) -> PerContainer | None:
    """The size and the passes that make a map, wherever its uids and its gids begin; else None."""
    at = begins(a)
    if at is None:
        return None
    size = max(
        e.container + e.count
        for kind in KINDS
        for e in a.mapping[kind]
        if (kind, e) not in a.passes
    )
    shape = PerContainer(a.reserved_range.count if a.reserved_range else size, passes=a.passes)
    return shape if mapping_at(shape, *at) == a.mapping else None


def in_lines_of(state: HostState, a: Allocation) -> tuple[Allocation, ...]:
    """The slices that stand on the lines of an allocation."""
    return tuple(
        one
        for one in state.ledger.allocations
        if one.within in {a.owner, *a.extra_owners}
        and has_lines(a)
        and any(own_ids(one, kind) & IdSet(granted(a, kind, one.within)) for kind in KINDS)
    )


def refuse_without_ground(
    state: HostState, losing: Iterable[Allocation], gone: Collection[str]
) -> None:
    """Raise RefusedError if slices stand on lines that would go away; ``gone`` are released, too."""
    owners = {one.within for one in state.ledger.allocations if one.within}
    for a in losing:
        if owners.isdisjoint((a.owner, *a.extra_owners)):
            continue
        standing = [one.name for one in in_lines_of(state, a) if one.name not in gone]
        if standing:
            few = ", ".join(standing[:_SHOWN])
            more = f" and {len(standing) - _SHOWN} more" if standing[_SHOWN:] else ""
            first = state.layout.inline(f"release {shell(*standing)}")
            raise RefusedError(
                f"the lines of '{a.name}' carry slices: {few}{more}; nothing was released",
                hint=f"release these first: {first}",
            )


def findings(state: HostState, allocations: Iterable[Allocation]) -> Iterator[Finding]:
    """What is left to the owners of the lines of these slices, and who does not know of them."""
    asked: dict[str, list[str]] = {}
    for a in allocations:
        if a.within:
            asked.setdefault(a.within, []).append(a.name)
    for owner, names in asked.items():
        left = left_of(state, owner, but=names, more=allocations)
        message = f"{who_else(state, owner)}; {left.text()}"
        hint = left.remedy()
        yield advise("USN169" if owner == _AUTO else "USN167", message, hint)


class Left(NamedTuple):
    """What the slices of an owner leave of its lines: of uids and gids both."""

    total: int
    left: int
    pieces: IdSet

    def text(self) -> str:
        """The number of ids, and the largest piece, as text."""
        largest = max(self.pieces, key=lambda ids: (ids.count, -ids.start), default=None)
        if largest is None:
            return f"all {self.total} ids of the lines are in slices"
        return (
            f"{self.left} of the {self.total} ids are in no slice, the largest piece is {largest} "
            f"({largest.count} ids)"
        )

    def remedy(self) -> str:
        """What to do about it."""
        apart = "a container that must not reach the files of a slice needs a slice of its own"
        if self.pieces.largest() >= SLOT:
            return apart
        return f"{apart}; no piece is left for one of {SLOT} ids, which images with nobody need"


def left_of(
    state: HostState,
    owner: str,
    *,
    but: Collection[str] = (),
    more: Iterable[Allocation] = (),
) -> Left:
    """What is left of the lines of an owner beside its slices, those of this plan included."""
    names = state.accounts.owner_names(owner)
    known = [a for a in state.ledger.allocations if a.name not in but]
    slices = [a for a in (*known, *more) if a.within == owner]
    here = []
    for kind in KINDS:
        lines = state.subid(kind).lines
        spans = [(x.start, x.stop) for x in lines if isinstance(x, Grant) and x.owner in names]
        grants = [
            (ids.start, ids.stop)
            for a in more
            if owner in {a.owner, *a.extra_owners}
            for ids in (granted(a, kind, owner) if has_lines(a) else ())
        ]
        here.append(IdSet.clipped([*spans, *grants]) - _HOSTS)
    whole = here[0] & here[1] or here[0]
    pieces = whole - IdSet.union(map(all_own_ids, slices))
    return Left(whole.total(), pieces.total(), pieces)


def who_else(state: HostState, owner: str) -> str:
    """Who takes ids of an owner's lines without a look at the ledger."""
    if owner == ROOT:
        return "LXC, LXD and Incus take ids of root's lines, and do not know of slices"
    if owner == _AUTO:
        return "'podman run --userns=auto' takes ids from here, the first ones first, and does not know of slices"
    standing = next(
        (a for a in state.ledger.allocations if a.owner == owner and has_lines(a)), None
    )
    who = []
    if state.accounts.user(owner):
        who.append(f"containers of {owner} without a map of their own")
    if standing and not engine_of_pool(standing):
        who.append(f"'{standing.name}'")
    return f"{' and '.join(who) or f'whoever uses the lines of {owner}'} still have all their ids"


def mapping_at(strategy: PerContainer, uid: int, gid: int) -> Mapping:
    """The map of a strategy whose uids and gids begin at different host ids."""
    uids, gids = strategy.mapping(uid).uids, strategy.mapping(gid).gids
    return Mapping(uids, uids if uids == gids else gids)


def _map_at(strategy: PerContainer, at: _At) -> Mapping:
    return mapping_at(strategy, at.uid, at.gid)


def _shape(one: Wanted) -> PerContainer:
    """The strategy, which refuse_contradictions made sure of."""
    if not isinstance(one.strategy, PerContainer):
        raise TypeError(one.strategy)
    return one.strategy


def _made(one: Wanted, at: _At) -> Allocation:
    """The slice that begins at these host ids."""
    shape = _shape(one)
    held, _ = IdRange(at.uid, shape.size), IdRange(at.gid, shape.size)
    return Allocation(
        one.name,
        one.within,
        shape.name,
        _map_at(shape, at),
        held if at.uid == at.gid else None,
        in_files=False,
        passes=shape.passes,
        within=one.within,
    )


def _with_map(one: Wanted, mapping: Mapping) -> Allocation:
    """The slice with exactly this map."""
    passes = _shape(one).passes
    for kind, extent in passes:
        if extent not in mapping[kind]:
            raise InvalidValueError(
                f"the map has no line '{kind[0]} {extent}', which shall pass", option="pass"
            )
    made = Allocation(
        one.name,
        one.within,
        one.strategy.name,
        mapping,
        in_files=False,
        passes=passes,
        within=one.within,
    )
    return replace(made, reserved_range=_range_of(made))


def _range_of(a: Allocation) -> IdRange | None:
    """The one range of a map that start, size and passes describe; None for any other map."""
    at = _bases(a)
    if at is None or at.uid != at.gid:
        return None
    size = max(
        e.container + e.count
        for kind in KINDS
        for e in a.mapping[kind]
        if (kind, e) not in a.passes
    )
    described = PerContainer(size, passes=a.passes).mapping(at.uid)
    return IdRange(at.uid, size) if described == a.mapping else None


def _bases(a: Allocation) -> _At | None:
    """The host ids that container id 0 has, or would have if it did not pass; None if there are none."""
    found = [_base(a.mapping[kind], a.passes, kind) for kind in KINDS]
    if found[0] is None or found[1] is None:
        return None
    return _At(found[0], found[1])


def _base(ids: IdMap, passes: Sequence[Pass], kind: Kind) -> int | None:
    return next((e.host - e.container for e in ids if (kind, e) not in passes), None)


def _last_fit(free: dict[Kind, IdSet], size: int) -> _At | None:
    """Where a slice begins: at the same id in both kinds if there is one."""
    return _together(free, size) or _apart(free, size)


def _together(free: dict[Kind, IdSet], size: int) -> _At | None:
    """Where a slice begins whose uids and gids are the same ids."""
    both = _last(free["uid"] & free["gid"], size)
    return None if both is None else _At(both, both)


def _apart(free: dict[Kind, IdSet], size: int) -> _At | None:
    """Where a slice begins if each kind is for itself."""
    uid, gid = _last(free["uid"], size), _last(free["gid"], size)
    return None if uid is None or gid is None else _At(uid, gid)


def _last(room: IdSet, size: int) -> int | None:
    return next((ids.stop - size for ids in reversed([*room]) if ids.count >= size), None)


def _most(free: dict[Kind, IdSet], several: int) -> int:
    """The largest size of which ``several`` slices fit; 0 if none does."""
    same = _largest([free["uid"] & free["gid"]], several)
    return max(same, _largest([free["uid"], free["gid"]], several))


def _largest(rooms: Sequence[IdSet], several: int) -> int:
    low, high = 0, min(room.largest() for room in rooms)
    while low < high:
        middle = (low + high + 1) // 2
        if all(room.how_many(middle) >= several for room in rooms):
            low = middle
        else:
            high = middle - 1
    return low


def _is_of(line: Line, ids: IdRange) -> bool:
    return isinstance(line, Grant) and (line.start, line.stop) == (ids.start, ids.stop)
