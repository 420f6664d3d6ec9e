"""Carry out a remap: the map, the lines and the ledger at once, then each volume.

planner.remap decides. Before anything is written, each volume is looked at as if the map had
changed, so that a volume that cannot move stops everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan import apply
from usernsplan.engines.mounts import unmoved
from usernsplan.errors import RefusedError, StoppedError, UsernsplanError, of_system
from usernsplan.escape import shown_path
from usernsplan.fixing import FixRequest
from usernsplan.host import files, read, runs
from usernsplan.ledger import open_ledger
from usernsplan.ledger.fold import fold
from usernsplan.model import Event
from usernsplan.planner.remap import make_remap
from usernsplan.planner.shown import exactly
from usernsplan.values import dataclass, replace
from usernsplan.volume import remounting
from usernsplan.volume.moving import move

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from usernsplan.fixing import FixReport
    from usernsplan.layout import Layout
    from usernsplan.ledger import Ledger
    from usernsplan.model import HostState, LedgerState, Plan, RemapRequest, Volume, VolumeMount
    from usernsplan.planner.remap import Remap
    from usernsplan.volume.job import Watch


@dataclass(frozen=True, slots=True)
class Shown:
    """A remap as it would be carried out, what the look at each volume found, and what is permitted.

    ``notes`` name who keeps the former map of a mount.
    """

    remap: Remap
    looked: tuple[tuple[Volume, FixReport], ...]
    allowed: FixRequest
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Moved:
    """What a remap did: its plan, and each volume with its report, or why it did not move.

    ``mounts`` are those that got the new map, each with a note, or why it has the former one.
    """

    plan: Plan
    volumes: tuple[tuple[Volume, FixReport | UsernsplanError], ...]
    mounts: tuple[tuple[VolumeMount, str | UsernsplanError], ...] = ()

    @property
    def failed(self) -> bool:
        """Tell whether some file or volume is not moved, or some mount has the former map."""
        return any(
            isinstance(one, UsernsplanError) or one.failed for _, one in self.volumes
        ) or any(isinstance(one, UsernsplanError) for _, one in self.mounts)


def remap(  # noqa: PLR0913 - the options of the command
    request: RemapRequest,
    root: str = "/",
    *,
    yes: bool = False,
    allowed: FixRequest | None = None,
    command: str = "",
    watch: Watch | None = None,
) -> Moved:
    """Give an allocation below ``root`` another map, and move its volumes.

    ``allowed`` has what the moves are permitted to do, as ``drop_power``; nothing else of it counts.
    Raises RefusedError if the plan has consequences, unless ``yes``; and what ``preview`` and
    apply.carry_out raise.
    """
    layout = files.layout_at(root)
    ledger = open_ledger(layout, asked=(request.name,))
    shown = preview(layout, ledger, request, allowed, watch)
    return carry_out(layout, ledger, request, shown, command, yes=yes, watch=watch)


def preview(
    layout: Layout,
    ledger: Ledger,
    request: RemapRequest,
    allowed: FixRequest | None = None,
    watch: Watch | None = None,
) -> Shown:
    """What a remap would do now, with what the moves are ``allowed``. Writes nothing.

    Raises what planner.remap raises, and RefusedError for a volume that cannot be moved.
    """

    def decide(state: HostState) -> tuple[HostState, Remap]:
        return state, _decided(
            state, request, lambda: (*ledger.events(), *apply.foreseen_event(state, ledger))
        )

    (state, decided), notes, unseen = apply.foreseen(layout, ledger, decide)
    apply.refuse_clashes(layout, ledger, decided.plan.ledger)
    plan = replace(decided.plan, findings=(*notes, *decided.plan.findings), unseen=unseen)
    event = Event(state.ledger.number + 1, "", plan.ledger)
    after = fold(state.ledger, event) if plan.changed else state.ledger
    kept = runs.look(layout).kept if decided.moves else frozenset[str]()
    asked = replace(allowed or FixRequest(()), command=_words(request))
    looked = tuple(
        (one, _looked(layout, one, _permitted(asked, one, kept), after, watch))
        for one in decided.moves
        if not any(one.path.startswith(f"{o.path.rstrip('/')}/") for o in decided.moves if o != one)
    )
    for mount in decided.mounts:
        remounting.refuse_impossible(layout, mount)
    copies = tuple(remounting.copies(layout, decided.mounts))
    return Shown(replace(decided, plan=plan), looked, asked, copies)


def _decided(
    state: HostState, request: RemapRequest, events: Callable[[], Sequence[Event]]
) -> Remap:
    """The decision, with all configurations that may have the old map."""
    return make_remap(read.with_configs(state)[0], request, events)


def carry_out(  # noqa: PLR0913 - what was shown, and how it is done
    layout: Layout,
    ledger: Ledger,
    request: RemapRequest,
    shown: Shown,
    command: str,
    *,
    yes: bool,
    watch: Watch | None = None,
) -> Moved:
    """Do what was shown: first the map, then the volumes. An error of one does not stop the others.

    Raises HostChangedError if the host has changed since it was shown.
    """
    plan = apply.carry_out(
        layout,
        ledger,
        exactly(shown.remap.plan, lambda state: _decided(state, request, ledger.events).plan),
        command,
        agreed=yes,
    )
    kept = runs.look(layout).kept if shown.remap.moves else frozenset[str]()

    def moved(one: Volume) -> FixReport | UsernsplanError:
        try:
            allowed = _permitted(shown.allowed, one, kept)
            return move(one, layout.root, request=allowed, command=command, watch=watch)
        except StoppedError:
            raise
        except UsernsplanError as error:
            return error
        except OSError as error:
            return of_system(error, "" if error.filename else one.path)

    # An outer volume takes those inside along.
    done = tuple(
        (one, moved(one)) for one in shown.remap.moves if one.path in unmoved(ledger.state())
    )
    return Moved(plan, done, _remounted(layout, plan, shown.remap.mounts))


def _remounted(
    layout: Layout, plan: Plan, mounts: Iterable[VolumeMount]
) -> tuple[tuple[VolumeMount, str | UsernsplanError], ...]:
    """Give mounts that stand the new map. An error of one does not stop the others."""
    [allocation] = plan.allocations

    def remounted(mount: VolumeMount) -> str | UsernsplanError:
        try:
            seen = remounting.remount(layout, mount, allocation)
            return "\n".join(filter(None, (seen, *remounting.left(layout, mount))))
        except UsernsplanError as error:
            return error

    return tuple((mount, remounted(mount)) for mount in mounts)


def _looked(
    layout: Layout,
    one: Volume,
    allowed: FixRequest,
    after: LedgerState,
    watch: Watch | None,
) -> FixReport:
    """The look at a volume, with the ledger as it will be. Raises RefusedError unless it can move."""
    shown = shown_path(one.path)
    try:
        report = move(one, layout.root, dry_run=True, ledger=after, request=allowed, watch=watch)
    except UsernsplanError as error:
        error.notes = (*error.notes, f"the volume {shown} cannot move, so nothing was changed")
        raise
    if report.failed:
        first = report.failed[0]
        raise RefusedError(
            f"the volume {shown} cannot move: {shown_path(first.path)}: {first.reason}; nothing was "
            "changed",
            hint="solve this, and run the command again",
        )
    return report


def _permitted(allowed: FixRequest, one: Volume, kept: Collection[str]) -> FixRequest:
    """What a move is permitted: ids that the map lacks also stay where the last run left them."""
    return replace(allowed, keep_unmapped=allowed.keep_unmapped or one.path in kept)


def _words(request: RemapRequest) -> tuple[str, ...]:
    """The words of the command that makes this request."""
    given = {"--size": request.size, "--start": request.start, "--pool": request.pool}
    words = ["remap", request.name]
    words += [word for o, value in given.items() if value is not None for word in (o, str(value))]
    words += [word for text in request.passes or () for word in ("--pass", text)]
    words += ["--no-pass"] if request.passes == () else []
    words += ["--pass-privileged"] if request.pass_privileged else []
    words += ["--with-lines"] if request.with_lines else []
    return (*words, *(["--undo"] if request.undo else []))
