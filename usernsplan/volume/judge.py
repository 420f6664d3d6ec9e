"""Whether a ``fix-volume`` is safe: its request and what was seen, before any change. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines.mounts import given
from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.escape import shell, shown_path
from usernsplan.fixing import FixRequest, Obstacle, Place
from usernsplan.holdings import all_own_ids, own_ids
from usernsplan.ids import IdSet
from usernsplan.layout import lies_in, meet
from usernsplan.mapping import KINDS
from usernsplan.planner import mounts
from usernsplan.values import dataclass, replace
from usernsplan.volume import power
from usernsplan.volume.decide import Meant, is_its_own, volumes_of
from usernsplan.volume.options import former_map

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usernsplan.layout import Layout
    from usernsplan.mapping import Kind
    from usernsplan.model import LedgerState
    from usernsplan.volume.seen import Lacking, Seen
    from usernsplan.volume.targets import OwnershipRule

# So many places fit on a screen. The JSON report has all.
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Judgement:
    """The linked inodes that stay unchanged, with their names."""

    outside: frozenset[tuple[int, int]] = frozenset()
    skipped: tuple[Place, ...] = ()


def losing(lacking: Iterable[Lacking], rule: OwnershipRule) -> tuple[Lacking, ...]:
    """The names whose files lose power by a rule, now that the images are known."""
    found = []
    for one in lacking:
        left = power.lawful(one.entry.form, one.whole, rule.same, own=rule.is_own)
        if left != one.whole:
            found.append(one._replace(left=left))
    return tuple(found)


def refuse_power(meant: Meant, losing: Sequence[tuple[str, Lacking]], rule: OwnershipRule) -> None:
    """Raise RefusedError if files (by path) would let a user become another id after the run."""
    request = meant.request
    if not losing or rule.is_own or request.drop_power or request.keep_power:
        return
    rows = []
    for path, one in losing:
        before, after = power.lost(one.entry.form, one.left), power.lost(one.whole, one.left)
        rows.append((path, f"{before} would become {after}"))
    raise RefusedError(
        "these files would let users become an id that they could not become before:\n"
        + _listed(rows),
        hint="nothing was changed; remove that power, or keep it for files whose content is proved"
        f" unchanged since the run that moved them in:\n  {once_more(meant, drop_power=True)}"
        f"\n  {once_more(meant, keep_power=True)}",
    )


def refuse_others(meant: Meant) -> None:
    """Raise RefusedError if a volume is another container's, or contains or lies in one."""
    request, name = meant.request, meant.container
    for path, volume in {} if request.take else given(meant.ledger).items():
        near = next((spot for spot in meant.names if meet(path, spot)), None)
        if near is None or volume.name in {name, request.source}:
            continue

        how = "lies in" if lies_in(near, path) else "contains"
        where = "" if near == path else f" {how} {shown_path(path)}, which"
        inner = replace(meant, names=(max(near, path, key=len),))
        words = f"{_words(inner)} --from {shell(volume.name)}"
        move = f"move its ids: {meant.command(words)}\n  or " if name is not None else ""
        raise RefusedError(
            f"the volume {shown_path(near)}{where} belongs to '{volume.name}'",
            hint=f"{move}take it anyway: {once_more(meant, take=True)}",
        )


def refuse_mounted(ledger: LedgerState, names: Iterable[str], layout: Layout) -> None:
    """Raise RefusedError for a change of owners on disk beneath a mount that shows them."""
    for name in names:
        mount = mounts.around(ledger, name)
        if mount is None:
            continue
        how = "lies in" if lies_in(name, mount.source) else "contains"
        path, source = (shown_path(layout.path(one)) for one in (name, mount.source))
        where = "" if name == mount.source else f" {how} {source}, which"
        raise RefusedError(
            f"{path}{where} is mounted for '{mount.name}' at"
            f" {shown_path(layout.path(mount.at))}, where the ids on disk appear as the container's:"
            " other ids on disk would be nobody's there",
            hint=f"nothing was changed; take the mount away first: {mounts.undoing(mount, layout)}",
        )


def given_to(meant: Meant) -> list[Obstacle]:
    """Why these volumes cannot be mounted: their files have host ids of a container on disk.

    With one owner for all, its own can be mounted, and what another container has, with --take.
    """
    found = []
    for path, volume in given(meant.ledger).items():
        near = next((spot for spot in meant.names if meet(path, spot)), None)
        is_shared = meant.request.mode == "own"
        # One owner is shown as another one, so it does not matter whose ids these are.
        if near is None or (is_shared and (meant.request.take or volume.name == meant.container)):
            continue
        how = "lies in" if lies_in(near, path) else "contains"
        where = "" if near == path else f" {how} {shown_path(path)}, which"
        back = meant.command(
            f"fix-volume {shell(path, '--container', volume.name, '--mode', 'shift', '--reverse')}"
        )
        share = f"; or let both use it: {once_more(meant, take=True)}" if is_shared else ""
        fact = (
            f"{shown_path(near)}{where} was given to '{volume.name}' by a change of owners, so its"
            " files have host ids on disk, and a mount shows container ids as host ids"
        )
        found.append(
            Obstacle(fact, f"'{volume.name}' can use it as it is; or give it back: {back}{share}")
        )
    return found


def refuse_owner(meant: Meant, name: str, owner: tuple[int, int]) -> None:
    """Raise RefusedError for a mount of a volume whose owner on disk is an id of a container.

    The ledger may not know who gave it to that container.
    """
    request = meant.request
    for a in meant.ledger.allocations:
        kind = next((k for k, i in zip(KINDS, owner, strict=True) if i in own_ids(a, k)), None)
        is_own = request.mode == "own"
        if kind is None or (is_own and (a.name == meant.container or request.take)):
            continue
        number = owner[KINDS.index(kind)]
        fact = f"{shown_path(name)} belongs to {kind} {number} on disk, an id of '{a.name}'"
        if is_own:
            raise RefusedError(
                f"{fact}: through this mount '{meant.container}' would own files of that container",
                hint=f"nothing was changed; share it anyway: {once_more(meant, take=True)}",
            )
        back = shell(name, "--container", a.name, "--mode", "shift", "--reverse")
        raise RefusedError(
            f"{fact}: such a mount shows ids 0-65535 of the disk, and this one as nobody",
            hint="nothing was changed; give the files back to the host first:"
            f" {meant.command(f'fix-volume {back}')}",
        )


def refuse_never_given(meant: Meant) -> None:
    """Raise RefusedError if --reverse could take the host's own ids for the container's.

    A shared map contains ids of the host. Only the ledger tells whether a volume was given to
    the container: then host id 2 may be its root. Otherwise host id 2 is the host's bin.
    """
    allocation = meant.allocation
    if not meant.request.reverse or meant.request.take or allocation is None:
        return
    if meant.former is not None or is_its_own(meant.ledger, allocation, meant.names):
        return

    def is_hosts(kind: Kind) -> bool:
        moved = IdSet(e.host_range for e in allocation.mapping[kind] if e.container != e.host)
        return bool(moved - own_ids(allocation, kind))

    if not any(map(is_hosts, KINDS)):
        return
    raise RefusedError(
        f"the ledger does not show that '{allocation.name}' has"
        f" {', '.join(map(shown_path, meant.names))}, and its map contains ids of the host: the"
        " host's own files would change owner",
        hint=f"nothing was changed; if '{allocation.name}' has it: {once_more(meant, take=True)}",
    )


def _words(meant: Meant, container: str | None = None) -> str:
    """The arguments of a fix-volume of these volumes, for this container or another one."""
    name = container or meant.container
    whose = f" --container {shell(name)}" if name is not None else ""
    return f"fix-volume {shell(*meant.names)}{whose}"


def once_more(meant: Meant, **more: bool) -> str:
    """The same command, with more options; the one that moves the volumes (``FixRequest.command``)."""
    request = replace(meant.request, **more)  # type: ignore[arg-type]
    # Only a fix-volume takes a volume, or moves it again.
    others = () if request.take or request.again else request.command
    options = {
        "--mode": None if others else request.mode,
        "--user": request.user,
        "--passwd": request.passwd,
        "--from": request.source,
        "--jobs": request.jobs,
        "--method": None if request.method == "chown" else request.method,
        "--at": request.at,
        "--protect": request.protect,
    }
    flags = {
        "--reverse": request.reverse,
        "--unmapped keep": request.keep_unmapped,
        "--outside-links skip": request.skip_outside_links,
        "--cross-mounts": request.cross_mounts,
        "--drop-power": request.drop_power,
        "--keep-power": request.keep_power,
        "--again": request.again,
        "--take": request.take,
        "--copy-up": request.copy_up,
        "--protected": request.protected,
        "--persist": request.persist,
        "--read-only": request.read_only,
    }
    words = [
        shell(*others) if others else _words(meant),
        *(
            f"{option} {shell(str(value))}"
            for option, value in options.items()
            if value is not None
        ),
        *(f"--from-map {shell(text)}" for text in request.from_map),
        *(f"--uid-map {shell(text)}" for text in request.uid_map),
        *(f"--gid-map {shell(text)}" for text in request.gid_map),
        *(flag for flag, said in flags.items() if said),
    ]
    return meant.command(" ".join(words))


def refuse_moved(meant: Meant, found: Seen, rule: OwnershipRule) -> None:
    """Raise RefusedError if a map that overlaps itself may have moved these ids already.

    Signs are a ledger record, or owners that are all new ids of the map with the new root at the
    top. A map that does not move root, such as a swap of two users, gives no such sign.
    """
    request, allocation = meant.request, meant.allocation
    if request.again or not found.owners:
        return
    if not rule.overlaps():
        _refuse_unlike(meant, found, rule)
        return

    uids, gids = rule.uids.target(), rule.gids.target()
    inside = all(uid in uids and gid in gids for uid, gid in found.owners)
    # The old id of the new root: 0 if container ids become host ids and the map has a root.
    was = None if rule.root is None else rule.uids.was(rule.root)
    between = request.source is not None or meant.former is not None
    moves_root = was not in {None, rule.root} and (was == 0 or request.reverse or between)
    # A single file is the top itself.
    tops = found.tops or [*found.owners]

    # With --reverse or --from a record in the ledger is expected; it does not tell of a run before.
    its = (
        []
        if allocation is None or request.reverse or request.source is not None
        else volumes_of(meant.ledger, allocation)
    )
    have = [path for path in its if any(meet(path, name) for name in meant.names)]

    if have:
        fact = f"{', '.join(map(shown_path, have))} already belongs to '{meant.container}'"
    elif inside and moves_root and all(uid == rule.root for uid, _ in tops):
        fact = (
            f"all owners are new ids of this map, and the top belongs to {rule.root}, as after"
            " an earlier run"
        )
    # Which ids --reverse takes back, refuse_never_given has asked.
    elif not (request.reverse and allocation) and (
        unclear := _unclear(found, rule, (rule.uids.only_new(), rule.gids.only_new()))
    ):
        fact = unclear
    else:
        return
    raise RefusedError(
        f"{', '.join(map(shown_path, meant.names))}: {fact}; the map overlaps itself, so"
        " another run would move ids twice",
        hint=f"nothing was changed; if there was no run before: {once_more(meant, again=True)}",
    )


def _refuse_unlike(meant: Meant, found: Seen, rule: OwnershipRule) -> None:
    """Raise RefusedError if a volume that is recorded as moved looks as if it was not.

    See OwnershipRule.trusting.
    """
    fact = unclear_now(meant, found, rule)
    if fact and any(
        uid in rule.uids.only_old() or gid in rule.gids.only_old() for uid, gid in found.tops
    ):
        raise RefusedError(
            f"{', '.join(map(shown_path, meant.names))}: {fact}",
            hint="nothing was changed; if all of it was replaced by what has the old ids:"
            f" {once_more(meant, again=True)}",
        )


def unclear_now(meant: Meant, found: Seen, rule: OwnershipRule) -> str:
    """What a volume that is recorded as moved has besides its new ids; "" if nothing is unclear.

    Its ids on both sides stay, as new ones.
    """
    if rule.is_own or rule.overlaps():
        return ""
    old = (rule.uids.only_old(), rule.gids.only_old())
    unclear = _unclear(found, rule, old, "an old id")
    return f"the ledger says that its ids are those of '{meant.container}', but {unclear}" * bool(
        unclear
    )


def _unclear(
    found: Seen, rule: OwnershipRule, sign: tuple[IdSet, IdSet], what: str = "a new id"
) -> str:
    """Why it cannot be told which ids were moved already; "" if it can, or there are no such ids.

    ``sign`` are the uids and gids that only one side has: ``what`` they show. Then an id on both
    sides could be an old one, or the new id of another one.
    """
    for at, (kind, moves) in enumerate(zip(KINDS, (rule.uids, rule.gids), strict=True)):
        both, seen = moves.both(), {owner[at] for owner in found.owners}
        unclear = sorted(number for number in seen if number in both)
        if not unclear:
            continue
        for other, ids in enumerate(sign):
            new = sorted({owner[other] for owner in found.owners if owner[other] in ids})
            if new:
                before, after = unclear[0], moves.was(unclear[0])
                other_way = "" if after is None else f", or {after} that was moved already"
                return (
                    f"some entries have {KINDS[other]} {new[0]}, {what} of this map, and some"
                    f" have {kind} {before}: that is {before} not moved yet{other_way}"
                )
    return ""


def refuse_unseen(found: Seen, rule: OwnershipRule) -> None:
    """Raise RefusedError if the map overlaps itself and something could not be looked at.

    After such a run an id on both sides can be old or new, and only the journal knows which.
    """
    if found.unseen and rule.overlaps():
        raise RefusedError(
            "the map overlaps itself, and some entries could not be looked at:\n"
            + _listed(found.unseen),
            hint="nothing was changed; fix the cause and run the command again",
        )


def former(meant: Meant, found: Seen) -> tuple[str, ...]:
    """The commands that move owners which the map lacks, if it is known whose ids they are."""
    request, ledger, allocation = meant.request, meant.ledger, meant.allocation
    if allocation is None or request.source is not None or meant.former is not None:
        return ()

    held = [
        *((a.name, all_own_ids(a)) for a in ledger.allocations),
        *((q.name, IdSet([q.reserved_range])) for q in ledger.quarantined),
    ]
    strange = IdSet.clipped((id_, id_ + 1) for id_ in (*found.unmapped_uids, *found.unmapped_gids))
    commands = []
    for name in dict.fromkeys(name for name, ids in held if ids & strange):
        try:
            ids = former_map(name, ledger, allocation)
        except InvalidValueError:
            continue
        there = IdSet(ids.uids.host_ranges()) | IdSet(ids.gids.host_ranges())
        if not there & strange:
            continue
        if not request.reverse:
            commands.append(meant.command(f"{_words(meant)} --from {shell(name)}"))
        elif any(a.name == name for a in ledger.allocations):
            commands.append(meant.command(f"{_words(meant, name)} --reverse"))
    return tuple(commands)


def refuse_lost(found: Seen, rule: OwnershipRule) -> None:
    """Raise RefusedError for ids that the new map lacks and gives to another container id.

    Not even --unmapped keep can leave them: files would have another owner in the container.
    """
    rows = [
        f"  {kind} {number:<10} {_entries(entries)}"
        for kind, moves, ids in (
            ("uid", rule.uids, found.unmapped_uids),
            ("gid", rule.gids, found.unmapped_gids),
        )
        for number, entries in sorted(ids.items())
        if number in moves.lost
    ]
    if rows:
        raise RefusedError(
            "the new map lacks the container ids of some owners, and gives their host ids to other"
            " container ids:\n" + "\n".join(rows[:_SHOWN]),
            hint="nothing was changed; give these files another owner first, or use another map",
        )


def weigh(
    found: Seen,
    outside: frozenset[tuple[int, int]],
    request: FixRequest,
    remedies: Sequence[str] = (),
) -> Judgement:
    """Judge what was seen, before any change. Raises RefusedError for what would not end well.

    ``outside`` are the inodes of ``found.linked`` that are not wholly in the volume. ``remedies``
    are commands for the owners that the map lacks.
    """
    if found.refusals:
        raise RefusedError(
            f"{_entries(len(found.refusals))} cannot be changed:\n{_listed(found.refusals)}",
            hint="nothing was changed; fix these entries, or use another map",
        )

    if (found.unmapped_uids or found.unmapped_gids) and not request.keep_unmapped:
        rows = [
            f"  {kind} {unmapped:<10} {_entries(entries)}"
            for kind, ids in (("uid", found.unmapped_uids), ("gid", found.unmapped_gids))
            for unmapped, entries in sorted(ids.items())
        ]
        more = [f"  … and {len(rows) - 2 * _SHOWN} more ids"] if len(rows) > 2 * _SHOWN else []
        raise RefusedError(
            "the map lacks some owners:\n" + "\n".join(rows[: 2 * _SHOWN] + more),
            hint="nothing was changed; "
            + "".join(f"move the ids of another range: {remedy}\n  or " for remedy in remedies)
            + "--unmapped keep leaves these ids unchanged",
        )

    places = [(place, "") for place in found.outside]
    if outside and not request.skip_outside_links:
        raise RefusedError(
            "these files have hard links outside the volume, which would change too:\n"
            + _listed(places),
            hint="nothing was changed; if the links are in another folder for the same container,"
            " name both folders in one command; --outside-links skip leaves these files unchanged",
        )
    why = "it has hard links outside the volume"
    return Judgement(outside, tuple(Place(place, why) for place in sorted(found.outside)))


def refuse_copies(meant: Meant, found: Seen, lowers: Sequence[str]) -> None:
    """Raise RefusedError if an overlay would copy files up from its lower folders (``lowers``)."""
    if not found.copies or meant.request.copy_up:
        return
    folders = (
        ", ".join(map(shown_path, [path for path in lowers if path != "/"][:3]))
        or "its lower folders"
    )
    raise RefusedError(
        f"on an overlay, {_entries(found.copies)} of {found.copied_bytes} bytes would be copied up;"
        " that splits hard links and cannot be undone",
        hint=f"nothing was changed; unmount the overlay and fix {folders}, or mount these with an"
        f" idmap below it; or copy anyway: {once_more(meant, copy_up=True)}",
    )


def _entries(number: int) -> str:
    return "1 entry" if number == 1 else f"{number} entries"


def _listed(places: Sequence[tuple[str, str]]) -> str:
    lines = [
        f"  {shown_path(place)}" + (f": {why}" if why else "")
        for place, why in sorted(places)[:_SHOWN]
    ]
    return "\n".join(
        [*lines, *([f"  … and {len(places) - _SHOWN} more"] if len(places) > _SHOWN else [])]
    )
