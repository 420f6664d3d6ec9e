"""Whether a ``fix-volume`` may be: what it means and what was seen, weighed before anything is written. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from usernsplan.engines.mounts import standing
from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.escape import shell, shown_path
from usernsplan.ids import IdSet
from usernsplan.model import FixRequest, Place
from usernsplan.volume import power
from usernsplan.volume.decide import Meant, former_map, is_its_own, lies_in, volumes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usernsplan.volume.seen import Lacking, Seen
    from usernsplan.volume.targets import OwnershipRule

# Of one kind of trouble, as many places as fit on a screen; the report's JSON has all.
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was seen, weighed: linked inodes that stay as they are, with their names."""

    outside: frozenset[tuple[int, int]] = frozenset()
    skipped: tuple[Place, ...] = ()


def losing(lacking: Iterable[Lacking], rule: OwnershipRule) -> tuple[Lacking, ...]:
    """The names whose files lose power by a rule, now that it is known which ids are images."""
    found = []
    for one in lacking:
        left = power.lawful(one.entry.form, one.whole, rule.same, own=rule.is_own)
        if left != one.whole:
            found.append(one._replace(left=left))
    return tuple(found)


def refuse_power(meant: Meant, losing: Sequence[tuple[str, Lacking]], rule: OwnershipRule) -> None:
    """Raise RefusedError where a map would let somebody become another id through files, by path."""
    request = meant.request
    if not losing or rule.is_own or request.drop_power or request.keep_power:
        return
    rows = [
        (
            path,
            f"{power.lost(one.entry.form, one.left)} would become {power.lost(one.whole, one.left)}",
        )
        for path, one in losing
    ]
    raise RefusedError(
        f"these files would let somebody become an id that he could not become before:\n{_listed(rows)}",
        hint="nothing was changed; take that from them, or keep it where the content is proved by the run that brought"
        f" them in:\n  {once_more(meant, drop_power=True)}\n  {once_more(meant, keep_power=True)}",
    )


def refuse_others(meant: Meant) -> None:
    """Raise RefusedError where a volume is another container's, holds one, or lies in one."""
    request, name = meant.request, meant.container
    for path, volume in {} if request.take else standing(meant.ledger).items():
        near = next(
            (spot for spot in meant.names if lies_in(path, spot) or lies_in(spot, path)), None
        )
        if near is None or volume.name in {name, request.source}:
            continue
        how = "lies in" if lies_in(near, path) else "holds"
        where = "" if near == path else f" {how} {shown_path(path)}, which"
        inner = replace(meant, names=(max(near, path, key=len),))
        words = f"{_words(inner)} --from {shell(volume.name)}"
        move = f"carry its ids: {meant.command(words)}\n  or " if name is not None else ""
        raise RefusedError(
            f"the volume {shown_path(near)}{where} is '{volume.name}'s",
            hint=f"{move}take it as it is: {once_more(meant, take=True)}",
        )


def refuse_never_given(meant: Meant) -> None:
    """Raise RefusedError where --reverse would take the host's own ids for the container's.

    A shared map has ids of the host in it. Only the ledger tells whether a volume was given to the container, so that
    host id 2 is its root's, or never was, so that it is bin's.
    """
    allocation = meant.allocation
    if not meant.request.reverse or meant.request.take or allocation is None:
        return
    if is_its_own(meant.ledger, allocation, meant.names):
        return
    held = IdSet(filter(None, (allocation.reserved_range,)))
    moved = [
        e
        for ids in (allocation.mapping.uids, allocation.mapping.gids)
        for e in ids
        if e.container != e.host
    ]
    if not IdSet(e.host_range for e in moved) - held:
        return
    raise RefusedError(
        f"nothing says that {', '.join(map(shown_path, meant.names))} was given to '{allocation.name}', whose map has"
        " ids of the host: its own files would change owner",
        hint=f"nothing was changed; if it was given to it: {once_more(meant, take=True)}",
    )


def _words(meant: Meant, container: str | None = None) -> str:
    """The words of a fix-volume of these volumes, for the container that is meant or another one."""
    name = container or meant.container
    whose = f" --container {shell(name)}" if name is not None else ""
    return f"fix-volume {shell(*meant.names)}{whose}"


def once_more(meant: Meant, **more: bool) -> str:
    """The command that means the same, and more."""
    request = replace(meant.request, **more)  # type: ignore[arg-type]
    options = {
        "--mode": request.mode,
        "--user": request.user,
        "--passwd": request.passwd,
        "--from": request.source,
        "--jobs": request.jobs,
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
    }
    words = [
        _words(meant),
        *(
            f"{option} {shell(str(value))}"
            for option, value in options.items()
            if value is not None
        ),
        *(f"--uid-map {shell(text)}" for text in request.uid_map),
        *(f"--gid-map {shell(text)}" for text in request.gid_map),
        *(flag for flag, said in flags.items() if said),
    ]
    return meant.command(" ".join(words))


def refuse_moved(meant: Meant, found: Seen, rule: OwnershipRule) -> None:
    """Raise RefusedError where a map that overlaps itself may have moved these ids already.

    The ledger may have noted it, or the owners tell it: all are ones that the map gives, and the top is the root's. A
    map that leaves root where it is, as one that swaps two users, gives no such sign.
    """
    request, allocation = meant.request, meant.allocation
    if request.again or not rule.overlaps() or not found.owners:
        return
    uids, gids = rule.uids.target(), rule.gids.target()
    inside = all(uid in uids and gid in gids for uid, gid in found.owners)
    # Which id the new root's was before: 0 where container ids become host ids, unless the map has no container root.
    was = None if rule.root is None else rule.uids.source.to_container(rule.root)
    moves_root = was not in {None, rule.root} and (
        was == 0 or request.reverse or request.source is not None
    )
    # A single file is the top itself.
    tops = found.tops or [*found.owners]
    its = (
        []
        if allocation is None or request.reverse or request.source is not None
        else volumes_of(meant.ledger, allocation)
    )
    have = [
        path
        for path in its
        if any(lies_in(path, name) or lies_in(name, path) for name in meant.names)
    ]
    if have:
        fact = f"{', '.join(map(shown_path, have))} is '{meant.container}'s already"
    elif inside and moves_root and all(uid == rule.root for uid, _ in tops):
        fact = f"all owners are ones that this map gives, and the top is {rule.root}'s, as if it was done already"
    else:
        return
    raise RefusedError(
        f"{', '.join(map(shown_path, meant.names))}: {fact}; the map overlaps itself, so that doing it again would move"
        " ids twice",
        hint=f"nothing was changed; if it was not done: {once_more(meant, again=True)}",
    )


def refuse_unseen(found: Seen, rule: OwnershipRule) -> None:
    """Raise RefusedError where something could not be looked at and the map overlaps itself.

    After such a run an id on both sides is an old one or a new one, and only the journal knows which.
    """
    if found.unseen and rule.overlaps():
        raise RefusedError(
            f"the map overlaps itself, and something could not be looked at:\n{_listed(found.unseen)}",
            hint="nothing was changed; mend that, and run again",
        )


def former(meant: Meant, found: Seen) -> tuple[str, ...]:
    """The commands that carry the owners which have no place in the map, where it is known whose ids they are."""
    request, ledger, allocation = meant.request, meant.ledger, meant.allocation
    if allocation is None or request.source is not None:
        return ()
    held = [(a.name, a.reserved_range) for a in ledger.allocations] + [
        (q.name, q.reserved_range) for q in ledger.quarantined
    ]
    strange = IdSet.clipped((id_, id_ + 1) for id_ in (*found.unmapped_uids, *found.unmapped_gids))
    commands = []
    for name in dict.fromkeys(name for name, ids in held if ids and IdSet([ids]) & strange):
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


def weigh(found: Seen, request: FixRequest, remedies: Sequence[str] = ()) -> Judgement:
    """Weigh what was seen, before anything is written. Raises RefusedError for what would not end well.

    ``remedies`` are commands for the owners that have no place in the map.
    """
    if found.refusals:
        raise RefusedError(
            f"{_entries(len(found.refusals))} cannot be carried:\n{_listed(found.refusals)}",
            hint="nothing was changed; mend these entries, or take another map",
        )
    if (found.unmapped_uids or found.unmapped_gids) and not request.keep_unmapped:
        rows = [
            f"  {kind} {unmapped:<10} {_entries(entries)}"
            for kind, ids in (("uid", found.unmapped_uids), ("gid", found.unmapped_gids))
            for unmapped, entries in sorted(ids.items())
        ]
        more = [f"  … and {len(rows) - 2 * _SHOWN} more ids"] if len(rows) > 2 * _SHOWN else []
        raise RefusedError(
            "some owners have no place in the map:\n" + "\n".join(rows[: 2 * _SHOWN] + more),
            hint="nothing was changed; "
            + "".join(f"carry those of another range: {remedy}\n  or " for remedy in remedies)
            + "--unmapped keep leaves these ids as they are",
        )
    outside = {key: linked for key, linked in found.linked.items() if not linked.is_inside}
    places = [(place, "") for linked in outside.values() for place in linked.places]
    if outside and not request.skip_outside_links:
        raise RefusedError(
            f"links outside of the volume would change with these files:\n{_listed(places)}",
            hint="nothing was changed; where the other names lie in another folder that is to be given to the same"
            " container, name both folders in one command; --outside-links skip leaves these files as they are",
        )
    why = "it has links outside of the volume"
    return Judgement(frozenset(outside), tuple(Place(place, why) for place, _ in sorted(places)))


def refuse_copies(meant: Meant, found: Seen, lowers: Sequence[str]) -> None:
    """Raise RefusedError where an overlay would make new files out of those of its lower folders (``lowers``)."""
    if not found.copies or meant.request.copy_up:
        return
    folders = (
        ", ".join(map(shown_path, [path for path in lowers if path != "/"][:3]))
        or "its lower folders"
    )
    raise RefusedError(
        f"on an overlay, {_entries(found.copies)} of {found.copied_bytes} bytes would be copied up, which splits hard"
        " links and cannot be undone",
        hint=f"nothing was changed; unmount the overlay and fix {folders}, or mount these with an idmap below it;"
        f" or copy all the same: {once_more(meant, copy_up=True)}",
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
