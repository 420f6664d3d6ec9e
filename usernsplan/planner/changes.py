"""What an event does to allocations, as lines of the history; and what such lines know. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.escape import shell, shown_path
from usernsplan.formats import passes
from usernsplan.harden.policy import flags
from usernsplan.mapping import KINDS
from usernsplan.patterns import pattern

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.formats.accounts import Accounts
    from usernsplan.mapping import IdMap, Kind
    from usernsplan.model import Allocation, HistoryEntry, LedgerChange, LedgerState

# What ``lines`` writes, and nothing else: names of containers have no blanks.
_PASSES = pattern(
    r"\+ (\S+) passes (uid|gid) ([0-9]{1,10})(?: as [0-9]{1,10})? \(((?:account|group) [^()]+)\)"
)
_RENAMED = pattern(r"renamed (\S+) to (\S+)")
# An allocation may pass hundreds of ids.
_MOST = 20


def is_told(change: LedgerChange) -> bool:
    """Tell whether an event does something that only ``lines`` tells: most do not."""
    added = any(a.passes or a.within or a.policy for a in change.add)
    return bool(change.rename or change.update or added)


def lines(change: LedgerChange, before: LedgerState, accounts: Accounts) -> Iterator[str]:
    """New names, new maps, and host ids that pass through from now on or no longer.

    ``accounts`` name these ids, as they are at this moment.
    """
    new_names = dict(change.rename)
    for old, new in change.rename:
        yield f"renamed {old} to {new}"
    was = {new_names.get(a.name, a.name): a for a in before.allocations}
    removed = {*change.remove}
    for a in change.add:
        if a.within:
            yield f"{a.name} is a slice of the lines of {a.within}"
        before_it = was.get(a.name) if a.name in removed else None
        yield from _map_lines(before_it, a)
        yield from _pass_lines(before_it, a, accounts)
        yield from _policy_lines(before_it, a)
    # The last of several is the one that counts.
    for a in {one.name: one for one in change.update}.values():
        yield from _map_lines(was.get(a.name), a)
        yield from _pass_lines(was.get(a.name), a, accounts)
        yield from _policy_lines(was.get(a.name), a)
        yield from _local_lines(was.get(a.name), a)


def of_volumes(change: LedgerChange) -> Iterator[str]:
    """Whose volumes are, and which mounts of them stand."""
    for v in change.volumes:
        path = shown_path(v.path)
        yield (
            f"volume {path} is to get the new ids of {v.name}"
            if v.former
            else f"volume {path} now belongs to {v.name} ({v.mode})"
        )
    for m in change.mounts:
        yield f"volume {shown_path(m.source)} is mounted at {shown_path(m.at)} for {m.name} ({m.mode})"
    for at in change.no_mounts:
        yield f"the mount at {shown_path(at)} was taken away"
    for path in change.no_volumes:
        yield f"volume {shown_path(path)} no longer belongs to a container"


def _policy_lines(was: Allocation | None, now: Allocation) -> Iterator[str]:
    """What a container may do from now on, where that changes."""
    if now.policy != (was.policy if was else None):
        yield f"policy of {now.name}: {shell(*flags(now.policy)) if now.policy else 'none'}"


def _local_lines(was: Allocation | None, now: Allocation) -> Iterator[str]:
    """Whether other hosts of the fleet may have these ids under other names, where that changes."""
    if was and was.local != now.local:
        whose = "this host's alone" if now.local else "the same on all hosts"
        yield f"the ids of {now.name} are {whose}"


def _map_lines(was: Allocation | None, now: Allocation) -> Iterator[str]:
    """The old and the new map of an allocation, where they differ."""
    if was is None or was.mapping == now.mapping:
        return
    for kind in KINDS:
        if was.mapping[kind] != now.mapping[kind]:
            yield f"- {now.name} {kind}s {_ids(was.mapping[kind])}"
            yield f"+ {now.name} {kind}s {_ids(now.mapping[kind])}"


def _ids(ids: IdMap) -> str:
    shown = [f"{e.container_range} -> {e.host_range}" for e in ids[:_MOST]]
    more = [f"and {len(ids) - _MOST} more"] if ids[_MOST:] else []
    return ", ".join([*shown, *more])


def _pass_lines(was: Allocation | None, now: Allocation, accounts: Accounts) -> Iterator[str]:
    before = was.passes if was else ()
    gone = [one for one in before if one not in now.passes]
    come = [one for one in now.passes if one not in before]
    for sign, several in (("-", gone), ("+", come)):
        for one in several[:_MOST]:
            yield f"{sign} {now.name} passes {passes.told(one, accounts)}"
        if several[_MOST:]:
            yield f"{sign} {now.name} passes {len(several) - _MOST} more"


def passed_before(entries: Iterable[HistoryEntry]) -> dict[tuple[str, Kind, int], str]:
    """What ``lines`` told of single ids that pass: "group render", by container, kind and host id.

    The last word counts, under the name that the container has now.
    """
    found: dict[tuple[str, Kind, int], str] = {}
    for entry in entries:
        for line in entry.changed:
            if renamed := _RENAMED.fullmatch(line):
                old, new = renamed.groups()
                for key in [key for key in found if key[0] == old]:
                    found[new, key[1], key[2]] = found.pop(key)
            elif told := _PASSES.fullmatch(line):
                name, word, number, whose = told.groups()
                kind: Kind = "uid" if word == "uid" else "gid"
                found[name, kind, int(number)] = whose
    return found
