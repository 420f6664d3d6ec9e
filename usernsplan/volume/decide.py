"""What a ``fix-volume`` means, and whether it may be: words, ledger and what was seen become a decision. Pure."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from usernsplan.engines import pool_of, verdict
from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.mapping import Extent, IdMap
from usernsplan.model import Place
from usernsplan.strategies import PerContainer, SingleUid
from usernsplan.volume import targets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from usernsplan.formats.accounts import Accounts
    from usernsplan.formats.inspect import Inspected
    from usernsplan.mapping import Mapping as Mapping_
    from usernsplan.model import Allocation, FixRequest, LedgerState
    from usernsplan.volume.carry import Found
    from usernsplan.volume.targets import Owner, Targets

# A mount as engines spell it: /SRC:/DEST, and options such as U.
_MOUNT = re.compile(r"(?P<source>.+?):(?P<destination>/[^:]*)(?::(?P<options>[A-Za-z0-9_=,.;@#-]*))?", re.DOTALL)
_NUMBERS = re.compile(r"\d{1,10}:\d{1,10}:\d{1,10}", re.ASCII)
_NUMBER = re.compile(r"\d{1,10}", re.ASCII)
# Of one kind of trouble, as many places as fit on a screen; the report's JSON has all.
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was seen, weighed: linked inodes that stay as they are, with their names."""

    outside: frozenset[tuple[int, int]] = frozenset()
    skipped: tuple[Place, ...] = ()


def source_of(words: str, *, exists: bool) -> str:
    """The path that is meant: /SRC:/DEST:U means /SRC, unless there is a folder of that whole name (``exists``).

    Raises InvalidValueError for a mount with idmap: then the engine maps the ids, and nothing is to be changed.
    """
    spelt = _MOUNT.fullmatch(words)
    if exists or spelt is None:
        return words
    if any(option.partition("=")[0] == "idmap" for option in (spelt["options"] or "").split(",")):
        raise InvalidValueError(
            f"{words}: with idmap the engine maps the ids of the mount", hint="leave the volume as it is"
        )
    return spelt["source"]


def container_of(request: FixRequest, ledger: LedgerState, names: Sequence[str]) -> Allocation | None:
    """The allocation to fix the volumes for (``names`` as the ledger would have them); None with explicit maps.

    Raises InvalidValueError where none is meant, or more than one could be.
    """
    if request.uid_map or request.gid_map:
        return None
    # A pool is divided by its engine: it is not one container's.
    by_name = {a.name: a for a in ledger.allocations if not pool_of(a)}
    if request.container is not None:
        return _named(by_name, request.container, "--container")
    recorded = {v.path: v.name for v in ledger.volumes if v.name in by_name}
    only = next(iter(by_name)) if len(by_name) == 1 else None
    found = {recorded.get(name, only) for name in names}
    if len(found) == 1 and (name := next(iter(found))) is not None:
        return by_name[name]
    if not by_name:
        raise InvalidValueError(
            "no container has ids yet",
            hint="'usernsplan allocate' gives them, or say --uid-map C:H:N --gid-map C:H:N",
        )
    raise InvalidValueError(
        "it does not go without saying which container is meant" if found == {None} else "these volumes are of several",
        hint=f"say --container with one of: {', '.join(sorted(by_name))}",
    )


def whose(one: Inspected, wanted: str | None, ledger: LedgerState) -> Allocation:
    """Whose ids an engine's container has: told by its map where there is one, else by the daemon that would start it.

    ``wanted`` is --container. Raises RefusedError where it has the host's, or those of no or of several allocations.
    """
    if one.is_hosts or not (one.mapping or one.root):
        raise RefusedError(
            f"{one.name} has no user namespace: its ids are the host's", hint="give it one, then its volumes"
        )
    if one.mapping is not None:
        fitting = [a for a in ledger.allocations if a.mapping == one.mapping]
        what = f"{one.name} has the map {', '.join(map(str, one.mapping.uids))}"
    else:
        # A remapped daemon keeps everything in a folder <uid>.<gid> of its containers' root.
        folder = posixpath.basename(one.root)
        remaps = [a for a in ledger.allocations if verdict("docker", a).can]
        fitting = [a for a in remaps if folder == f"{a.mapping.uids.to_host(0)}.{a.mapping.gids.to_host(0)}"]
        what = f"{one.name} does not run, and its daemon keeps it in {one.root}"
    # A shared map is many containers'; the one of this name is meant, or the one that was said.
    chosen = [a for a in fitting if a.name == (wanted or one.name)] or ([] if wanted else fitting)
    if len(chosen) != 1:
        which = f"'{wanted}'" if wanted else "one allocation" if fitting else "any allocation"
        raise RefusedError(f"{what}: not that of {which}", hint="'usernsplan list' shows what is allocated")
    return chosen[0]


def lies_in(path: str, folder: str) -> bool:
    """Tell whether a path is a folder, or lies in it."""
    return f"{path}/".startswith(folder.rstrip("/") + "/")


def _named(by_name: Mapping[str, Allocation], name: str, option: str) -> Allocation:
    if name not in by_name:
        hint = f"one of: {', '.join(sorted(by_name))}" if by_name else "'usernsplan allocate' makes one"
        raise InvalidValueError(f"{option} {name}: nothing is allocated under this name", hint=hint)
    return by_name[name]


def targets_of(request: FixRequest, ledger: LedgerState, allocation: Allocation | None, passwd: Accounts) -> Targets:
    """The rule that the words mean. Raises InvalidValueError for words that do not go together."""
    keep = request.keep_unmapped
    explicit = bool(request.uid_map or request.gid_map)
    shifts = request.mode == "shift" or explicit or request.reverse or request.source is not None
    strange = {
        "--mode own with --reverse, --from or a map": request.mode == "own" and shifts,
        "--user with --mode shift, --reverse, --from or a map": request.user is not None and shifts,
        "--reverse with --from": request.reverse and request.source is not None,
        "a map with --container or --from": explicit and (request.container or request.source) is not None,
        "--passwd without --user": request.passwd is not None and request.user is None,
        "--uid-map without --gid-map, or the other way round": bool(request.uid_map) != bool(request.gid_map),
    }
    for words, said in strange.items():
        if said:
            raise InvalidValueError(f"{words}: that says two different things", hint="'usernsplan fix-volume --help'")
    if allocation is None:
        uids, gids = _map("--uid-map", request.uid_map), _map("--gid-map", request.gid_map)
        return targets.explicit(uids, gids, reverse=request.reverse, keep=keep)
    if request.source is not None:
        return targets.move(_former(request.source, ledger, allocation), allocation.mapping, keep=keep)
    if shifts:
        return targets.shift(allocation.mapping, reverse=request.reverse, keep=keep)
    return targets.own(allocation.mapping, _user(request.user, passwd), keep=keep)


def _former(name: str, ledger: LedgerState, allocation: Allocation) -> Mapping_:
    """The mapping that files are to be moved out of: another allocation's, or that of a released range of this name.

    Of a released one the ledger has the range; what was mapped there follows from the host's one strategy.
    """
    released = [q.held for q in ledger.quarantined if q.name == name]
    if name == allocation.name and not released:
        raise InvalidValueError("--from and --container with the same name", hint="name the former container")
    if name != allocation.name and (not released or any(a.name == name for a in ledger.allocations)):
        return _named({a.name: a for a in ledger.allocations}, name, "--from").mapping
    if len(released) > 1:
        ranges = ", ".join(map(str, released))
        raise InvalidValueError(
            f"--from {name}: several ranges of this name were released: {ranges}",
            hint="say which with --uid-map and --gid-map, out of it with --reverse and then into the new one",
        )
    if allocation.strategy == PerContainer.name:
        return PerContainer(released[0].count).mapping(released[0].start)
    if allocation.strategy == SingleUid.name:
        return SingleUid(container_id=allocation.mapping.uids[0].container).mapping(released[0].start)
    raise InvalidValueError(f"--from {name}: what a shared map had there is not known any more", hint="use --uid-map")


def user_of(rule: Targets, allocation: Allocation) -> str:
    """The container's UID:GID to whom a rule gives everything; "" where it keeps owners apart."""
    if rule.owner is None:
        return ""
    uid, gid = rule.owner
    return f"{allocation.mapping.uids.to_container(uid)}:{allocation.mapping.gids.to_container(gid)}"


def _map(option: str, texts: Iterable[str]) -> IdMap:
    extents = []
    for text in texts:
        if not _NUMBERS.fullmatch(text):
            raise InvalidValueError(f"{option} {text}: expected CONTAINER:HOST:COUNT, as in 0:100000:65536")
        try:
            extents.append(Extent(*map(int, text.split(":"))))
        except InvalidValueError as error:
            raise InvalidValueError(f"{option} {text}: {error}", hint=error.hint) from error
    return IdMap(extents)


def _user(text: str | None, passwd: Accounts) -> Owner:
    """Container ids of U or U:G; without G the user's own group where passwd tells it, else 0, as engines do."""
    if text is None:
        return (0, 0)
    name, colon, group_name = text.partition(":")
    number = int(name) if _NUMBER.fullmatch(name) else None
    user = passwd.user(name) if number is None else passwd.user_of(number)
    uid = user.uid if user else number
    if uid is None:
        raise InvalidValueError(f"--user {text}: no such user", hint="give a number, or --passwd FILE of the image")
    if not colon:
        return (uid, user.gid if user else 0)
    if _NUMBER.fullmatch(group_name):
        return (uid, int(group_name))
    group = passwd.group(group_name)
    if group is None:
        raise InvalidValueError(
            f"--user {text}: no such group", hint="give a number, or --passwd FILE with a file 'group' beside it"
        )
    return (uid, group.gid)


def judge(found: Found, request: FixRequest) -> Judgement:
    """Weigh what was seen, before anything is written. Raises RefusedError for what would not end well."""
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
            hint="nothing was changed; --unmapped keep leaves these ids as they are",
        )
    outside = {key: linked for key, linked in found.linked.items() if not linked.is_inside}
    places = [(place, "") for linked in outside.values() for place in linked.places]
    if outside and not request.skip_outside_links:
        raise RefusedError(
            f"links outside of the volume would change with these files:\n{_listed(places)}",
            hint="nothing was changed; --outside-links skip leaves these files as they are",
        )
    why = "it has links outside of the volume"
    return Judgement(frozenset(outside), tuple(Place(place, why) for place, _ in sorted(places)))


def refuse_copies(found: Found, request: FixRequest, lowers: Sequence[str]) -> None:
    """Raise RefusedError where an overlay would make new files out of those of its lower folders (``lowers``)."""
    if not found.copies or request.copy_up:
        return
    folders = ", ".join(map(printable, lowers[:3])) or "its lower folders"
    raise RefusedError(
        f"on an overlay, {_entries(found.copies)} of {found.copied_bytes} bytes would be copied up, which splits hard"
        " links and cannot be undone",
        hint=f"nothing was changed; unmount the overlay and fix {folders}, or mount these with an idmap below it;"
        " --copy-up copies all the same",
    )


def _entries(number: int) -> str:
    return "1 entry" if number == 1 else f"{number} entries"


def _listed(places: Sequence[tuple[str, str]]) -> str:
    lines = [f"  {printable(place)}" + (f": {why}" if why else "") for place, why in sorted(places)[:_SHOWN]]
    return "\n".join([*lines, *([f"  … and {len(places) - _SHOWN} more"] if len(places) > _SHOWN else [])])


def printable(path: str) -> str:
    """A path on one line of a terminal, whatever bytes it has; quoted where they are not all plain."""
    return path if path.isprintable() else repr(path)
