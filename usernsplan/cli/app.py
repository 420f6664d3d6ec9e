"""The typer application: each command and its module."""

from __future__ import annotations

from importlib import import_module
from inspect import getdoc

import typer

from usernsplan.cli.usage import Command, Group
from usernsplan.errors import ExitStatus

# Job -> command -> (module, function). For a fast start, only the module of the typed command is
# imported.
JOBS = {
    "Give ids": {
        "allocate": ("allocate", "allocate"),
        "adopt": ("adopt", "adopt"),
        "release": ("release", "release"),
        "rename": ("rename", "rename"),
        "remap": ("remap", "remap"),
    },
    "Render": {
        "render": ("render", "render"),
    },
    "Volumes": {
        "fix-volume": ("fix_volume", "fix_volume"),
        "mount-volume": ("fix_volume", "mount_volume"),
        "volumes": ("volumes", "volumes"),
        "undo": ("fix_volume", "undo"),
    },
    "Look": {
        "list": ("show", "list_"),
        "show": ("show", "show"),
        "history": ("show", "history"),
        "map": ("map_", "map_"),
        "capacity": ("capacity", "capacity"),
        "whois": ("whois", "whois"),
        "inspect": ("inspect", "inspect"),
        "find-owned": ("find_owned", "find_owned"),
        "check": ("check", "check"),
    },
    "Plan": {
        "plan": ("plan", "plan"),
        "apply": ("plan", "apply"),
        "export": ("plan", "export"),
    },
    "Ledger": {
        "ledger": ("ledger", "ledger"),
    },
}
COMMANDS = {name: place for commands in JOBS.values() for name, place in commands.items()}


def app_for(argv: list[str]) -> typer.Typer:
    """The application with the command in ``argv``, or with every command if it has none."""
    app = typer.Typer(
        cls=_Commands,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    statuses = ", ".join(f"{status:d} {status.meaning}" for status in ExitStatus)
    app.callback(help=f"{getdoc(usernsplan)}\n\nExit status: {statuses}.")(usernsplan)
    for name in argv[:1] if argv[:1] and argv[0] in COMMANDS else COMMANDS:
        module, function = COMMANDS[name]
        found = getattr(import_module(f"usernsplan.cli.{module}"), function)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name, cls=Command)(found)
    return app


class _Commands(Group):
    jobs = JOBS


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - slow, and only here

        from usernsplan.volume import compiled  # noqa: PLC0415

        print(f"usernsplan {version('usernsplan')} ({compiled.WHICH})")
        raise typer.Exit


def usernsplan(
    version: bool = typer.Option(
        False,  # noqa: FBT003
        "--version",
        callback=_version,
        is_eager=True,
        help="Print the version, and whether the volume fixer is compiled.",
    ),
) -> None:
    """Plan host ids for containers, and write them where the engines read them.

    A container in a user namespace gets a range of host ids of its own. usernsplan finds free
    ranges, keeps them apart, and gives volumes to the container that uses them.

    \b
    Examples:
      usernsplan allocate --strategy per-container web
      usernsplan fix-volume /srv/web --container web
      usernsplan render podman web --volume /srv/web:/data
      usernsplan COMMAND --help
    """
