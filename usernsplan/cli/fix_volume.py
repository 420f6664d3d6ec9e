"""The commands fix-volume, mount-volume and undo."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, Optional

from usernsplan.cli.emit import emit
from usernsplan.cli.options import DryRun, Json, Root, Yes, note, one_of, typed
from usernsplan.cli.permits import (
    CopyUp,
    CrossMounts,
    DropPower,
    KeepPower,
    OutsideLinks,
    Protected,
    Unmapped,
    permitted,
)
from usernsplan.cli.progress import watching
from usernsplan.cli.words import Argument, Option
from usernsplan.errors import ExitStatus, InvalidValueError, UnknownNameError
from usernsplan.escape import shown_path
from usernsplan.fixing import FixRequest
from usernsplan.host import runs
from usernsplan.host.config import load as load_config
from usernsplan.host.files import layout_at
from usernsplan.planner.runs import last_to_undo
from usernsplan.report import results
from usernsplan.values import replace
from usernsplan.volume import fix

if TYPE_CHECKING:
    from usernsplan.fixing import FixReport

Jobs = Annotated[
    Optional[int],
    Option("--jobs", metavar="N", help="Number of worker processes. Default: one per core."),
]

Container = Annotated[
    Optional[str],
    Option(
        metavar="NAME",
        help="Container that gets the volume. Default: its present one, or the only one.",
    ),
]
At = Annotated[
    Optional[str],
    Option("--at", metavar="DEST", help="idmap: where to mount it. Default: a folder of ours."),
]
Persist = Annotated[bool, Option("--persist", help="idmap: mount it again at each boot.")]
ReadOnly = Annotated[bool, Option("--read-only", help="idmap: mount it read-only.")]
Protect = Annotated[
    Optional[str],
    Option(
        "--protect",
        metavar="nosuid|parent",
        help="idmap: keep others from the files that the container makes in PATH.",
    ),
]
Explain = Annotated[
    bool,
    Option("--explain", help="Say what each method would mean here. Changes nothing."),
]


def fix_volume(
    paths: Annotated[
        list[str],
        Argument(metavar="PATH...", help="Folders or files; /SRC:/DEST:U stands for /SRC."),
    ],
    discover: Annotated[
        Optional[str],
        Option(
            metavar="podman|docker", help="PATH... are containers; fix the volumes mounted in them."
        ),
    ] = None,
    container: Container = None,
    mode: Annotated[
        Optional[str],
        Option(
            metavar="own|shift",
            help="own: one owner for all. shift: keep owners apart. Default: as before, or own.",
        ),
    ] = None,
    user: Annotated[
        Optional[str],
        Option(
            metavar="U[:G]",
            help="own: the user and group in the container. Default: 0:0.",
        ),
    ] = None,
    passwd: Annotated[
        Optional[str],
        Option(
            metavar="FILE", help="The image's passwd file, for names in --user; reads 'group' too."
        ),
    ] = None,
    reverse: Annotated[bool, Option("--reverse", help="shift: change back to host ids.")] = False,
    from_: Annotated[
        Optional[str],
        Option(
            "--from",
            metavar="NAME",
            help="shift: move from this container's range; it may be quarantined.",
        ),
    ] = None,
    from_map: Annotated[
        Optional[list[str]],
        Option(
            metavar="'u C H N'",
            help="shift: move from this map; g for gids, b for both (repeatable).",
        ),
    ] = None,
    uid_map: Annotated[
        Optional[list[str]],
        Option(metavar="C:H:N", help="Use this map instead of a container's (repeatable)."),
    ] = None,
    gid_map: Annotated[
        Optional[list[str]],
        Option(metavar="C:H:N", help="The same for gids; use both (repeatable)."),
    ] = None,
    unmapped: Unmapped = "refuse",
    outside_links: OutsideLinks = "refuse",
    cross_mounts: CrossMounts = False,
    drop_power: DropPower = False,
    keep_power: KeepPower = False,
    again: Annotated[
        bool, Option("--again", help="Move ids a second time by a map that overlaps itself.")
    ] = False,
    take: Annotated[
        bool, Option("--take", help="Take a volume that another container has.")
    ] = False,
    protected: Protected = False,
    copy_up: CopyUp = False,
    method: Annotated[
        Optional[str],
        Option(
            metavar="chown|idmap|auto",
            help="chown changes the disk; idmap mounts it with other ids. Default: chown.",
        ),
    ] = None,
    at: At = None,
    persist: Persist = False,
    read_only: ReadOnly = False,
    protect: Protect = None,
    explain: Explain = False,
    jobs: Jobs = None,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
    yes: Yes = False,
) -> None:
    """Give a volume's files to a container.

    Reads the whole volume first. Then changes owners, groups, ACLs and capabilities, so that the
    container can use its files. If a run is interrupted, the same command finishes it. Running it
    again after that changes nothing. 'usernsplan undo RUN' undoes a run.

    \b
    Examples:
      usernsplan fix-volume /var/lib/content
      usernsplan fix-volume /srv/db:/var/lib/db:U --container db --user 999:999
      usernsplan fix-volume /srv/rootfs --container web --mode shift --dry-run
      usernsplan fix-volume /srv/web --container web --explain
      usernsplan fix-volume --discover podman web
      usernsplan fix-volume /srv/db --container db --from-map 'b 0 589824 65536'
    """
    del yes  # this command never asks
    request = replace(
        permitted(
            unmapped=unmapped,
            outside_links=outside_links,
            cross_mounts=cross_mounts,
            drop_power=drop_power,
            keep_power=keep_power,
            protected=protected,
            copy_up=copy_up,
        ),
        paths=tuple(paths),
        container=container,
        mode=one_of("mode", mode, "own", "shift"),  # type: ignore[arg-type]
        user=user,
        passwd=passwd,
        reverse=reverse,
        source=from_,
        from_map=tuple(from_map or ()),
        uid_map=tuple(uid_map or ()),
        gid_map=tuple(gid_map or ()),
        jobs=jobs,
        discover=discover,
        again=again,
        take=take,
        method=_method(method, root),
        at=at,
        persist=persist,
        read_only=read_only,
        protect=one_of("protect", protect, "nosuid", "parent"),  # type: ignore[arg-type]
    )
    _give(request, root, explain=explain, dry_run=dry_run, as_json=json)


def _give(request: FixRequest, root: str, *, explain: bool, dry_run: bool, as_json: bool) -> None:
    """Give volumes to a container, or explain what that means, and print the result."""
    if explain:
        from usernsplan.volume.explain import explain as explained  # noqa: PLC0415 - only here

        emit(results.explained(explained(request, root)), as_json=as_json)
        return
    with watching() as watch:
        report = fix.fix_volume(request, root, dry_run=dry_run, command=typed(), watch=watch)
    _print(report, root, as_json=as_json)


def _method(said: str | None, root: str) -> Literal["chown", "idmap", "auto"]:
    """The method that the command line names, or the host's config.yaml; else chown."""
    chosen = one_of("method", said, "chown", "idmap", "auto")
    config = None if chosen else load_config(layout_at(root), None)
    return chosen or (config and config.method) or "chown"  # type: ignore[return-value]


def mount_volume(
    paths: Annotated[list[str], Argument(metavar="PATH...", help="Folders or files.")],
    container: Container = None,
    mode: Annotated[
        Optional[str],
        Option(
            metavar="own|shift",
            help="own: the owner of PATH appears as one user. shift: ids 0-65535 appear as its own.",
        ),
    ] = None,
    user: Annotated[
        Optional[str],
        Option(metavar="U[:G]", help="own: that user in the container. Default: 0:0."),
    ] = None,
    at: At = None,
    persist: Persist = False,
    read_only: ReadOnly = False,
    protect: Protect = None,
    explain: Explain = False,
    cross_mounts: Annotated[
        bool, Option("--cross-mounts", help="Also show file systems mounted in the volume.")
    ] = False,
    protected: Annotated[
        bool, Option("--protected", help="Mount a home or a system folder, or over one.")
    ] = False,
    take: Annotated[
        bool, Option("--take", help="Mount a volume that another container has.")
    ] = False,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
    yes: Yes = False,
) -> None:
    """Mount a volume with a container's ids; no file changes.

    The same as fix-volume --method idmap. It takes as long for a million files as for one.
    'usernsplan undo RUN' takes the mount away.

    \b
    Examples:
      usernsplan mount-volume /srv/web --container web --mode shift
      usernsplan mount-volume /srv/db --container db --user 999:999 --at /mnt/db
    """
    del yes  # this command never asks
    request = FixRequest(
        tuple(paths),
        container,
        one_of("mode", mode, "own", "shift"),  # type: ignore[arg-type]
        user,
        cross_mounts=cross_mounts,
        protected=protected,
        take=take,
        method="idmap",
        at=at,
        persist=persist,
        read_only=read_only,
        protect=one_of("protect", protect, "nosuid", "parent"),  # type: ignore[arg-type]
    )
    _give(request, root, explain=explain, dry_run=dry_run, as_json=json)


def undo(
    run: Annotated[
        Optional[str],
        Argument(
            metavar="[RUN]",
            help="Number of the run ('history --runs' lists all), or a mount point that it made.",
        ),
    ] = None,
    last: Annotated[bool, Option("--last", help="Undo the last run that can be undone.")] = False,
    jobs: Jobs = None,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
    also_changed: Annotated[
        bool,
        Option(
            "--also-changed",
            help="Also undo files that changed or moved since; drop their setuid and capabilities.",
        ),
    ] = False,
    yes: Yes = False,
) -> None:
    """Undo a run of fix-volume or mount-volume.

    Restores owners, groups, ACLs and capabilities. Files that changed since the run stay as they
    are; the command lists them. A mount is taken away, unless something uses it. Without RUN, it
    lists the runs that can be undone and exits 2.

    \b
    Examples:
      usernsplan undo 20261122-053048
      usernsplan undo /run/usernsplan/volumes/web/srv-web
      usernsplan undo --last --dry-run
    """
    del yes  # this command never asks
    if run is None:
        run = _last(root) if last else _list_and_refuse(root, as_json=json)
    elif last:
        raise InvalidValueError("--last does not go with RUN", hint="leave out one of them")
    with watching() as watch:
        report = fix.undo(
            run,
            root,
            jobs=jobs,
            dry_run=dry_run,
            also_changed=also_changed,
            command=typed(),
            watch=watch,
        )
    _print(report, root, as_json=json)


def _list_and_refuse(root: str, *, as_json: bool) -> NoReturn:
    """List the runs that can be undone, and raise InvalidValueError."""
    layout = layout_at(root, exists=True)
    found = [one for one in runs.every(layout) if one.can_undo or one.problem]
    emit(results.runs(found, layout), as_json=as_json)
    hint = (
        f"name a run, or undo the last one: {layout.command('undo --last')}"
        if found
        else "no run can be undone"
    )
    raise InvalidValueError("RUN is missing", hint=hint)


def _last(root: str) -> str:
    """The last run that can be undone, named in a note. Raises UnknownNameError."""
    layout = layout_at(root, exists=True)
    found = last_to_undo(runs.every(layout))
    if found is None:
        hint = f"{layout.inline('history --runs')} lists all runs"
        raise UnknownNameError("no run can be undone", hint=hint)
    note([f"the last run is {found.run}, on {', '.join(map(shown_path, found.paths))}"])
    return found.run


def _print(report: FixReport, root: str, *, as_json: bool) -> None:
    emit(results.fixed(report, layout_at(root)), as_json=as_json)
    if report.failed:
        sys.exit(ExitStatus.DONE_IN_PART)
