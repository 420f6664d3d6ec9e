"""Whether a ``fix-volume`` is safe: its request and what was seen, before any change. Pure."""

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
    for path, volume in {} if request.take else standing(meant.ledger).items():
        near = next(
            (spot for spot in meant.names if lies_in(path, spot) or lies_in(spot, path)), None
        )
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


def refuse_never_given(meant: Meant) -> None:
    """Raise RefusedError if --reverse could take the host's own ids for the container's.

    A shared map contains ids of the host. Only the ledger tells whether a volume was given to
    the container: then host id 2 may be its root. Otherwise host id 2 is the host's bin.
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
    """The same command, with more options."""
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
    """Raise RefusedError if a map that overlaps itself may have moved these ids already.

    Signs are a ledger record, or owners that are all new ids of the map with the new root at the
    top. A map that does not move root, such as a swap of two users, gives no such sign.
    """
    request, allocation = meant.request, meant.allocation
    if request.again or not rule.overlaps() or not found.owners:
        return

    uids, gids = rule.uids.target(), rule.gids.target()
    inside = all(uid in uids and gid in gids for uid, gid in found.owners)
    # The old id of the new root: 0 if container ids become host ids and the map has a root.
    was = None if rule.root is None else rule.uids.source.to_container(rule.root)
    moves_root = was not in {None, rule.root} and (
        was == 0 or request.reverse or request.source is not None
    )
    # A single file is the top itself.
    tops = found.tops or [*found.owners]

    # With --reverse or --from a record in the ledger is expected; it does not tell of a run before.
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
        fact = f"{', '.join(map(shown_path, have))} already belongs to '{meant.container}'"
    elif inside and moves_root and all(uid == rule.root for uid, _ in tops):
        fact = (
            f"all owners are new ids of this map, and the top belongs to {rule.root}, as after"
            " an earlier run"
        )
    else:
        return
    raise RefusedError(
        f"{', '.join(map(shown_path, meant.names))}: {fact}; the map overlaps itself, so"
        " another run would move ids twice",
        hint=f"nothing was changed; if there was no run before: {once_more(meant, again=True)}",
    )


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
    """Judge what was seen, before any change. Raises RefusedError for what would not end well.

    ``remedies`` are commands for the owners that the map lacks.
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

    outside = {key: linked for key, linked in found.linked.items() if not linked.is_inside}
    places = [(place, "") for linked in outside.values() for place in linked.places]
    if outside and not request.skip_outside_links:
        raise RefusedError(
            "these files have hard links outside the volume, which would change too:\n"
            + _listed(places),
            hint="nothing was changed; if the links are in another folder for the same container,"
            " name both folders in one command; --outside-links skip leaves these files unchanged",
        )
    why = "it has hard links outside the volume"
    return Judgement(frozenset(outside), tuple(Place(place, why) for place, _ in sorted(places)))


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
