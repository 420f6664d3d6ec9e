"""The command render."""

from __future__ import annotations

from typing import Annotated, Optional

from usernsplan import rendering
from usernsplan.cli.emit import emit
from usernsplan.cli.options import DryRun, Json, Root, Yes
from usernsplan.cli.words import Argument, Option
from usernsplan.errors import InvalidValueError
from usernsplan.host.files import layout_at
from usernsplan.model import RenderRequest
from usernsplan.report import results


def render(
    engine: Annotated[
        str, Argument(metavar="ENGINE", help="Engine to write for; --list shows all.")
    ] = "",
    name: Annotated[str, Argument(metavar="NAME", help="Name that 'usernsplan list' shows.")] = "",
    volume: Annotated[
        Optional[list[str]],
        Option(
            metavar="SRC:DEST[:OPT]",
            help="Mount a volume (repeatable). OPT: ro, U, idmap.",
        ),
    ] = None,
    rootless: Annotated[
        bool,
        Option("--rootless", help="podman, quadlet: for the owner of the lines instead of root."),
    ] = False,
    image: Annotated[
        Optional[str],
        Option(metavar="IMAGE", help="quadlet, kubernetes, openshift: image to include."),
    ] = None,
    bundle: Annotated[
        Optional[str],
        Option(metavar="DIR", help="oci: change config.json in this bundle."),
    ] = None,
    vmid: Annotated[
        Optional[int], Option(metavar="N", help="proxmox: the number of the container.")
    ] = None,
    base: Annotated[
        Optional[str],
        Option(
            metavar="FILE",
            help="The engine's own profile of system calls, where it cannot be read on the host.",
        ),
    ] = None,
    no_harden: Annotated[
        bool, Option("--no-harden", help="Leave the policy of NAME out; see harden.")
    ] = False,
    out: Annotated[
        Optional[str],
        Option(metavar="DIR", help="Write the files to their places below DIR."),
    ] = None,
    list_: Annotated[
        bool,
        Option("--list", help="Show which engines support NAME, or each strategy."),
    ] = False,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
    replace_files: Annotated[
        bool, Option("--replace-files", help="--out: replace files that have other content.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Print the flags or files that an engine needs.

    Notes on standard error list what else the engine needs. If the engine does not support the
    allocation, the error names engines that do.

    On any error, render prints --userns=usernsplan-failed instead of flags. Every engine refuses
    it. Without any flags, container root would be the host's root.

    \b
    Examples:
      flags=$(usernsplan render podman web) && podman run $flags IMAGE
      usernsplan render nspawn web --out /
      usernsplan render proxmox web --vmid 101 --volume /srv/web:/data
      usernsplan render --list web
    """
    del yes  # this command never asks
    if out is not None and bundle is not None:
        raise InvalidValueError("--out does not go with --bundle", hint="leave out one of them")
    if list_:
        others = (
            name,
            volume,
            rootless,
            image,
            dry_run,
            replace_files,
            bundle,
            out,
            vmid is not None,
            base,
            no_harden,
        )
        if any(others):
            raise InvalidValueError(
                "--list takes one NAME and no other option",
                hint="use: usernsplan render --list NAME",
            )
        _list(engine, root, as_json=json)
        return
    if not name:
        raise InvalidValueError(
            "ENGINE and NAME are missing" if not engine else "NAME is missing",
            hint="'usernsplan render --list' shows the engines, 'usernsplan list' the names",
        )

    request = RenderRequest(
        engine, name, tuple(volume or ()), image, rootless, bundle, vmid, base, no_harden
    )
    if out is None and bundle is None:
        if dry_run or replace_files:
            raise InvalidValueError(
                "--dry-run and --replace-files need --out or --bundle",
                hint="leave them out: without --out or --bundle, nothing is written",
            )
        rendered, changes, where = rendering.rendering(request, root), None, layout_at("/")
    else:
        rendered, changes = rendering.delivered(
            request, root, out=out, replace_files=replace_files, preview=dry_run
        )
        where = layout_at(out or bundle or "/", "--out")
    emit(results.rendered(request, rendered, changes, where, done=not dry_run), as_json=json)


def _list(name: str, root: str, *, as_json: bool) -> None:
    emit(results.engines(rendering.table(root, name)), as_json=as_json)
