"""The command render."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from usernsplan import rendering
from usernsplan.cli.emit import emit
from usernsplan.cli.options import DryRun, Json, Root, Yes
from usernsplan.errors import InvalidValueError
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger
from usernsplan.model import RenderRequest
from usernsplan.report import results


def render(
    engine: Annotated[
        str, typer.Argument(metavar="ENGINE", help="The engine that reads it; --list shows all.")
    ] = "",
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A name that 'usernsplan list' shows.")
    ] = "",
    volume: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="SRC:DEST[:OPT]",
            help="Mount a volume. OPT: ro, U, idmap. May be repeated.",
        ),
    ] = None,
    rootless: Annotated[
        bool,
        typer.Option(
            "--rootless", help="podman, quadlet: for the owner of the lines, not for root."
        ),
    ] = False,
    image: Annotated[
        Optional[str], typer.Option(metavar="IMAGE", help="quadlet, kubernetes: include the image.")
    ] = None,
    bundle: Annotated[
        Optional[str],
        typer.Option(metavar="DIR", help="oci: patch the config.json of this bundle."),
    ] = None,
    out: Annotated[
        Optional[str],
        typer.Option(metavar="DIR", help="Write the files where they belong below DIR."),
    ] = None,
    list_: Annotated[
        bool,
        typer.Option("--list", help="Show which engines can express NAME, or each strategy."),
    ] = False,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
    replace_files: Annotated[
        bool, typer.Option("--replace-files", help="--out: replace files that have other content.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Print what an engine reads for an allocation.

    Notes on standard error say what else the engine needs. If the engine cannot express the
    allocation, the error names engines that can. On any error, render prints a flag that no engine
    takes (--userns=usernsplan-failed) instead of flags: without any, container root would be the
    host's root.

    \b
    Examples:
      flags=$(usernsplan render podman web --volume /srv/web:/data) && podman run $flags IMAGE
      usernsplan render nspawn web --out /
      usernsplan render --list web
    """
    del yes  # nothing is asked here
    if out is not None and bundle is not None:
        raise InvalidValueError("--out and --bundle exclude each other", hint="use one of them")
    if list_:
        if (
            name
            or volume
            or rootless
            or image
            or dry_run
            or replace_files
            or {bundle, out} != {None}
        ):
            raise InvalidValueError(
                "--list takes one NAME and no other option",
                hint="without NAME it shows the strategies",
            )
        _list(engine, root, as_json=json)
        return
    if not name:
        raise InvalidValueError(
            "ENGINE and NAME are missing", hint="'usernsplan render --list' shows the engines"
        )
    request = RenderRequest(engine, name, tuple(volume or ()), image, rootless, bundle)
    if out is None and bundle is None:
        if dry_run or replace_files:
            raise InvalidValueError(
                "--dry-run and --replace-files need --out or --bundle",
                hint="without those the text is printed and nothing is written",
            )
        rendered, changes, where = rendering.rendering(request, root), None, layout_at("/")
    else:
        rendered, changes = rendering.delivered(
            request, root, out=out, replace_files=replace_files, preview=dry_run
        )
        where = layout_at(out or bundle or "/", "--out")
    emit(results.rendered(request, rendered, changes, where, done=not dry_run), as_json=json)


def _list(name: str, root: str, *, as_json: bool) -> None:
    found = rendering.table(open_ledger(layout_at(root)).state(), name)
    emit(results.engines(found), as_json=as_json)
