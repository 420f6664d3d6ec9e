"""The commands fix-volume and undo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NoReturn, Optional

import typer

from usernsplan import volume
from usernsplan.cli.emit import emit
from usernsplan.cli.options import DryRun, Json, Root, Yes, note, one_of, typed
from usernsplan.cli.progress import watching
from usernsplan.errors import ExitStatus, InvalidValueError, UnknownNameError
from usernsplan.escape import shown_path
from usernsplan.host import runs
from usernsplan.host.files import layout_at
from usernsplan.model import FixRequest
from usernsplan.planner.runs import last_to_undo
from usernsplan.report import results

if TYPE_CHECKING:
    from usernsplan.model import FixReport

Jobs = Annotated[
    Optional[int],
    typer.Option("--jobs", metavar="N", help="Number of worker processes. Default: one per core."),
]


def fix_volume(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Folders or files; /SRC:/DEST:U stands for /SRC."),
    ],
    discover: Annotated[
        Optional[str],
        typer.Option(
            metavar="podman|docker", help="PATH... are containers; fix the volumes mounted in them."
        ),
    ] = None,
    container: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME",
            help="Container that gets the volume. Default: its present one, or the only one.",
        ),
    ] = None,
    mode: Annotated[
        Optional[str],
        typer.Option(
            metavar="own|shift",
            help="own: one owner for all. shift: keep owners apart. Default: as before, or own.",
        ),
    ] = None,
    user: Annotated[
        Optional[str],
        typer.Option(
            metavar="U[:G]",
            help="own: the user and group in the container. Default: 0:0.",
        ),
    ] = None,
    passwd: Annotated[
        Optional[str],
        typer.Option(
            metavar="FILE", help="The image's passwd file, for names in --user; reads 'group' too."
        ),
    ] = None,
    reverse: Annotated[
        bool, typer.Option("--reverse", help="shift: change back to host ids.")
    ] = False,
    from_: Annotated[
        Optional[str],
        typer.Option(
            "--from",
            metavar="NAME",
            help="shift: move from this container's range; it may be quarantined.",
        ),
    ] = None,
    uid_map: Annotated[
        Optional[list[str]],
        typer.Option(metavar="C:H:N", help="Use this map instead of a container's (repeatable)."),
    ] = None,
    gid_map: Annotated[
        Optional[list[str]],
        typer.Option(metavar="C:H:N", help="The same for gids; use both (repeatable)."),
    ] = None,
    unmapped: Annotated[
        str,
        typer.Option(
            metavar="refuse|keep",
            help="What to do with ids that the map lacks. Default: refuse.",
            show_default=False,
        ),
    ] = "refuse",
    outside_links: Annotated[
        str,
        typer.Option(
            metavar="refuse|skip",
            help="What to do with files that have hard links elsewhere. Default: refuse.",
            show_default=False,
        ),
    ] = "refuse",
    cross_mounts: Annotated[
        bool, typer.Option("--cross-mounts", help="Also change file systems mounted in the volume.")
    ] = False,
    drop_power: Annotated[
        bool,
        typer.Option(
            "--drop-power",
            help="Drop setuid, setgid and capabilities that would pass to another id.",
        ),
    ] = False,
    keep_power: Annotated[
        bool,
        typer.Option("--keep-power", help="Keep those on files proved unchanged; drop the others."),
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Move ids a second time by a map that overlaps itself.")
    ] = False,
    take: Annotated[
        bool, typer.Option("--take", help="Take a volume that another container has.")
    ] = False,
    protected: Annotated[
        bool,
        typer.Option("--protected", help="Change a home, a system folder or an engine's storage."),
    ] = False,
    copy_up: Annotated[
        bool, typer.Option("--copy-up", help="Let an overlay copy up the files that change.")
    ] = False,
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
      usernsplan fix-volume /srv/db:/var/lib/postgresql:U --container db --user 999:999
      usernsplan fix-volume /srv/rootfs --container web --mode shift --dry-run
      usernsplan fix-volume --discover podman web
    """
    del yes  # this command never asks
    request = FixRequest(
        paths=tuple(paths),
        container=container,
        mode=one_of("mode", mode, "own", "shift"),  # type: ignore[arg-type]
        user=user,
        passwd=passwd,
        reverse=reverse,
        source=from_,
        uid_map=tuple(uid_map or ()),
        gid_map=tuple(gid_map or ()),
        keep_unmapped=one_of("unmapped", unmapped, "refuse", "keep") == "keep",
        skip_outside_links=one_of("outside-links", outside_links, "refuse", "skip") == "skip",
        cross_mounts=cross_mounts,
        jobs=jobs,
        protected=protected,
        discover=discover,
        drop_power=drop_power,
        keep_power=keep_power,
        again=again,
        take=take,
        copy_up=copy_up,
    )
    with watching() as watch:
        report = volume.fix_volume(request, root, dry_run=dry_run, command=typed(), watch=watch)
    _print(report, root, as_json=json)


def undo(
    run: Annotated[
        Optional[str],
        typer.Argument(metavar="[RUN]", help="Number of the run; 'history --runs' lists all."),
    ] = None,
    last: Annotated[
        bool, typer.Option("--last", help="Undo the last run that can be undone.")
    ] = False,
    jobs: Jobs = None,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
    also_changed: Annotated[
        bool,
        typer.Option(
            "--also-changed",
            help="Also undo files that changed or moved since; drop their setuid and capabilities.",
        ),
    ] = False,
    yes: Yes = False,
) -> None:
    """Undo a run of fix-volume.

    Restores owners, groups, ACLs and capabilities. Files that changed since the run stay as they
    are; the command lists them. Without RUN, it lists the runs that can be undone and exits 2.

    \b
    Examples:
      usernsplan undo 20261122-053048
      usernsplan undo --last --dry-run
    """
    del yes  # this command never asks
    if run is None:
        run = _last(root) if last else _list_and_refuse(root, as_json=json)
    elif last:
        raise InvalidValueError("--last does not go with RUN", hint="leave out one of them")
    with watching() as watch:
        report = volume.undo(
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
        raise typer.Exit(ExitStatus.DONE_IN_PART)
