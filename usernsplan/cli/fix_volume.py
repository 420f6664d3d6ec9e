"""The commands fix-volume and undo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from usernsplan import volume
from usernsplan.cli.emit import emit
from usernsplan.cli.options import DryRun, Json, Root, Yes, note, one_of, typed
from usernsplan.cli.progress import watching
from usernsplan.errors import ExitStatus, InvalidValueError, UnknownNameError
from usernsplan.host import runs
from usernsplan.host.files import layout_at
from usernsplan.model import FixRequest
from usernsplan.planner.runs import last_to_undo
from usernsplan.report import results

if TYPE_CHECKING:
    from usernsplan.model import FixReport

Jobs = Annotated[
    Optional[int],
    typer.Option("--jobs", metavar="N", help="Worker processes. Default: one for each core."),
]


def fix_volume(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Folders or files; /SRC:/DEST:U means /SRC."),
    ],
    discover: Annotated[
        Optional[str],
        typer.Option(
            metavar="podman|docker", help="PATH... are containers: fix what is mounted in them."
        ),
    ] = None,
    container: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME",
            help="Whose ids. Default: the container that has the volume, or the only one.",
        ),
    ] = None,
    mode: Annotated[
        Optional[str],
        typer.Option(
            metavar="own|shift",
            help="own: one owner for all. shift: owners stay apart. Default: as before, or own.",
        ),
    ] = None,
    user: Annotated[
        Optional[str],
        typer.Option(
            metavar="U[:G]",
            help="own: this user of the container, and G or their group. Default: 0:0.",
        ),
    ] = None,
    passwd: Annotated[
        Optional[str],
        typer.Option(
            metavar="FILE", help="The image's passwd, for --user; 'group' lies beside it."
        ),
    ] = None,
    reverse: Annotated[
        bool, typer.Option("--reverse", help="shift: back to the ids of the host.")
    ] = False,
    from_: Annotated[
        Optional[str],
        typer.Option(
            "--from",
            metavar="NAME",
            help="shift: out of this container's range, a released one too.",
        ),
    ] = None,
    uid_map: Annotated[
        Optional[list[str]],
        typer.Option(metavar="C:H:N", help="shift by this map; own with --user (repeatable)."),
    ] = None,
    gid_map: Annotated[
        Optional[list[str]], typer.Option(metavar="C:H:N", help="The same for groups.")
    ] = None,
    unmapped: Annotated[
        str,
        typer.Option(
            metavar="refuse|keep",
            help="Ids that the map lacks. Default: refuse.",
            show_default=False,
        ),
    ] = "refuse",
    outside_links: Annotated[
        str,
        typer.Option(
            metavar="refuse|skip",
            help="Files with hard links outside of the volume. Default: refuse.",
            show_default=False,
        ),
    ] = "refuse",
    cross_mounts: Annotated[
        bool, typer.Option("--cross-mounts", help="Enter what is mounted inside.")
    ] = False,
    drop_power: Annotated[
        bool,
        typer.Option(
            "--drop-power",
            help="Take setuid, setgid and capabilities that would become another id's.",
        ),
    ] = False,
    keep_power: Annotated[
        bool,
        typer.Option(
            "--keep-power", help="Keep those whose content is proved unchanged; drop the others."
        ),
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Move ids once more by a map that overlaps itself.")
    ] = False,
    take: Annotated[
        bool, typer.Option("--take", help="Take a volume that is another container's.")
    ] = False,
    protected: Annotated[
        bool,
        typer.Option(
            "--protected", help="Let a home, a system folder or an engine's storage be changed."
        ),
    ] = False,
    copy_up: Annotated[
        bool, typer.Option("--copy-up", help="Let an overlay copy files up to change them.")
    ] = False,
    jobs: Jobs = None,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
    yes: Yes = False,
) -> None:
    """Give a volume to a container, so that undo can take it back.

    Changes owners, groups, ACLs and capabilities, after looking at everything. If the run is killed
    in the middle, the same command finishes it. Running it once more changes nothing.
    'usernsplan undo RUN' takes it back.

    \b
    Examples:
      usernsplan fix-volume /var/lib/content
      usernsplan fix-volume /srv/db:/var/lib/postgresql:U --container db --user 999:999
      usernsplan fix-volume /srv/rootfs --container web --mode shift --dry-run
      usernsplan fix-volume --discover podman web
    """
    del yes  # nothing is asked here
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
        typer.Argument(
            metavar="[RUN]", help="What fix-volume called it; 'history --runs' lists them."
        ),
    ] = None,
    last: Annotated[
        bool, typer.Option("--last", help="The last run that can be taken back.")
    ] = False,
    jobs: Jobs = None,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
    also_changed: Annotated[
        bool,
        typer.Option(
            "--also-changed",
            help="Take back also what was moved or changed since; it gets no power.",
        ),
    ] = False,
    yes: Yes = False,
) -> None:
    """Take a run of fix-volume back: all as it was before.

    What has changed since then is left as it is, and named. Without RUN, list the runs that can be taken back, do
    nothing, and exit 2.

    \b
    Examples:
      usernsplan undo 20261122-053048
      usernsplan undo --last --dry-run
    """
    del yes  # nothing is asked here
    if run is None:
        run = _last(root) if last else _refuse_none(root, as_json=json)
    elif last:
        raise InvalidValueError("RUN with --last", hint="say one of the two")
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


def _refuse_none(root: str, *, as_json: bool) -> str:
    """Nobody said which run: list them. Always raises."""
    layout = layout_at(root, exists=True)
    found = [one for one in runs.every(layout) if one.can_undo or one.problem]
    emit(results.runs(found, layout), as_json=as_json)
    hint = (
        f"name it, or take back the last: {layout.command('undo --last')}"
        if found
        else "there is none"
    )
    raise InvalidValueError("which run is to be undone?", hint=hint)


def _last(root: str) -> str:
    """The last run that can be undone, which is said."""
    layout = layout_at(root, exists=True)
    found = last_to_undo(runs.every(layout))
    if found is None:
        hint = f"'{layout.command('history --runs')}' lists what there is"
        raise UnknownNameError("there is no run that can be undone", hint=hint)
    from usernsplan.escape import shown_path  # noqa: PLC0415 - only for --last

    note([f"the last run is {found.run}, on {', '.join(map(shown_path, found.paths))}"])
    return found.run


def _print(report: FixReport, root: str, *, as_json: bool) -> None:
    emit(results.fixed(report, layout_at(root)), as_json=as_json)
    if report.failed:
        raise typer.Exit(ExitStatus.DONE_IN_PART)
