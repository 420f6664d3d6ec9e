"""release --forget: refuse to free a range while a known file still carries its ids.

It looks at all volumes in the ledger and at the folders of --scan. A place that it cannot look
at may carry the ids too.
"""

from __future__ import annotations

import os
import stat
from functools import partial
from typing import TYPE_CHECKING

from usernsplan import apply
from usernsplan.errors import RefusedError, UsernsplanError, reason_of
from usernsplan.escape import shell, shown_path
from usernsplan.fixing import Place
from usernsplan.host.files import layout_at
from usernsplan.ids import IdSet
from usernsplan.ledger import open_ledger
from usernsplan.model import MOUNT
from usernsplan.planner.release import make_release
from usernsplan.planner.shown import changed
from usernsplan.planner.stories import advise
from usernsplan.values import dataclass, field, replace
from usernsplan.volume import owned, search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from usernsplan.layout import Layout
    from usernsplan.model import Finding, HostState, Plan, Quarantined, ReleaseRequest

# The output names so many files per place, and so many places.
_EXAMPLES, _PLACES = 3, 10
_UNSEEN = "if none of it can carry these ids any more, use --unseen"


def release(
    request: ReleaseRequest, root: str = "/", command: str = "", scan: Sequence[str] = ()
) -> Plan:
    """Release allocations, or forget quarantined ranges, below ``root``. See apply.carry_out.

    ``scan`` are folders to search, in addition to the volumes, for files that carry the ids.
    """
    layout = layout_at(root)
    decide = (
        looked(request, root, scan) if request.forget else partial(make_release, request=request)
    )
    ledger = open_ledger(layout, asked=request.names if request.forget else ())
    return apply.carry_out(layout, ledger, decide, command)


def looked(request: ReleaseRequest, root: str, scan: Sequence[str]) -> Callable[[HostState], Plan]:
    """The decision to forget. It searches the files on its first call, before the locks are taken.

    The decision raises RefusedError while a file carries the ids, or if something could not be
    looked at, unless --unseen is given. It raises HostChangedError if the ranges differ on its
    second call.
    """
    layout = layout_at(root)
    seen: list[tuple[Plan, tuple[Finding, ...]]] = []

    def decide(state: HostState) -> Plan:
        plan = make_release(state, request)
        if not seen:
            seen.append((plan, tuple(_notes(layout, state, plan, scan, unseen=request.unseen))))
        shown, notes = seen[0]
        if plan.freed != shown.freed:
            raise changed()
        return replace(plan, findings=(*plan.findings, *notes))

    return decide


def _notes(
    layout: Layout, state: HostState, plan: Plan, scan: Sequence[str], *, unseen: bool
) -> Iterator[Finding]:
    """Search, and report what was not looked at. Raises what ``looked`` says."""
    found = _Found()
    for top in _tops(layout, state, scan, found):
        _look(top, plan.freed, found)
    found.unseen += [*_running(state, plan.freed), *_shown(state, plan.freed)]

    if found.carrying:
        raise RefusedError(
            _listed("files still carry the ids", found.carrying),
            hint="change their owner or remove them; these commands list them:"
            f" {'; '.join(_commands(layout, plan, found))}",
        )
    if found.unseen and not unseen:
        raise RefusedError(
            _listed("some places could not be looked at", found.unseen), hint=_UNSEEN
        )
    for place in found.unseen:
        yield advise("USN134", f"not looked at: {shown_path(place.path)}: {place.reason}")


@dataclass(slots=True)
class _Found:
    """The places that carry ids, the ranges and places for a command, and the unseen places."""

    carrying: list[Place] = field(default_factory=list)
    where: list[tuple[Quarantined, str]] = field(default_factory=list)
    unseen: list[Place] = field(default_factory=list)


def _tops(layout: Layout, state: HostState, scan: Sequence[str], found: _Found) -> Iterator[str]:
    """The real paths of the folders and files to search, each once."""
    folders = [owned.top_of(layout, path) for path in scan]
    for volume in state.ledger.volumes:
        path = layout.real.rstrip("/") + volume.path
        try:
            mode = os.lstat(path).st_mode
            if os.path.realpath(path) != path:
                found.unseen.append(
                    Place(path, f"a symlink leads to the volume of '{volume.name}'")
                )
            elif stat.S_ISDIR(mode):
                folders.append(path)
            else:
                yield path
        except (FileNotFoundError, NotADirectoryError):
            found.unseen.append(
                Place(path, f"the volume of '{volume.name}' is not there: removed, or not mounted")
            )
        except OSError as error:
            found.unseen.append(Place(path, reason_of(error)))

    kept, mounts = owned.each_once(dict.fromkeys(folders), cross_mounts=False)
    found.unseen += [
        Place(point, f"something is mounted there: --scan {shell(point)}") for point in mounts
    ]
    yield from kept


def _look(top: str, ranges: Sequence[Quarantined], found: _Found) -> None:
    """Search one folder and everything in it, or one file."""
    ids = IdSet(one.reserved_range for one in ranges)
    wanted = owned.Wanted(ids, ids)
    entries, seen, examples = 0, set[int](), list[str]()
    try:
        for path, roles in _carrying(top, wanted, found):
            entries += 1
            seen.update(number for _, number in roles)
            examples += [path] if entries <= _EXAMPLES else []
    except (UsernsplanError, OSError) as error:
        reason = (
            reason_of(error) if isinstance(error, OSError) else str(error).removeprefix(f"{top}: ")
        )
        found.unseen.append(Place(top, reason))

    if entries:
        whose = [one for one in ranges if any(number in one.reserved_range for number in seen)]
        more = f" and {entries - _EXAMPLES} more" if entries > _EXAMPLES else ""
        names = ", ".join(f"'{one.name}' ({one.reserved_range})" for one in whose)
        found.carrying.append(Place(top, f"{names}: {', '.join(map(shown_path, examples))}{more}"))
        found.where += [(one, top) for one in whose]


def _carrying(
    top: str, wanted: owned.Wanted, found: _Found
) -> Iterator[tuple[str, Sequence[tuple[str, int]]]]:
    """The paths that carry some of the ids, and in which role."""
    if os.path.isdir(top) and not os.path.islink(top):
        for one in search.find(top, top, wanted, miss=found.unseen.append):
            for path in one.paths():
                yield path, one.roles
    elif roles := tuple(wanted.of(owned.carried(top))):
        yield top, roles


def _running(state: HostState, ranges: Sequence[Quarantined]) -> Iterator[Place]:
    for one in ranges:
        if state.namespaces.meets(one.reserved_range.start, one.reserved_range.stop):
            yield Place(
                str(one.reserved_range),
                f"a running user namespace maps ids of '{one.name}': it may make files with them",
            )


def _shown(state: HostState, ranges: Sequence[Quarantined]) -> Iterator[Place]:
    """Mounts that show ids of these ranges, in any mount namespace."""
    ids = IdSet(one.reserved_range for one in ranges)
    for what in dict.fromkeys(
        one.what
        for one in state.unlisted
        if one.program == MOUNT and ids.meets(one.start, one.stop)
    ):
        yield Place(what, "an idmapped mount shows these ids: it may make files that get them")


def _commands(layout: Layout, shown: Plan, found: _Found) -> Iterator[str]:
    """For each range that files carry, the command that lists them."""
    for one in shown.freed:
        if places := [shell(path) for whose, path in found.where if whose == one]:
            ids = f"{one.reserved_range.start}-{one.reserved_range.last}"
            yield layout.command(f"find-owned {ids} {' '.join(places[:_PLACES])}")


def _listed(fact: str, places: Sequence[Place]) -> str:
    more = f"\n  … and {len(places) - _PLACES} more" if len(places) > _PLACES else ""
    named = "".join(f"\n  {shown_path(place.path)}: {place.reason}" for place in places[:_PLACES])
    return f"{fact}; nothing was forgotten:{named}{more}"
