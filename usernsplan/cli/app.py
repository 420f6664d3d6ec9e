"""The typer application: which command lives in which module."""

from __future__ import annotations

from importlib import import_module

import typer

from usernsplan.cli.usage import Command, Group
from usernsplan.errors import ExitStatus

# Job -> command -> (module, function). Only the module of the command that was typed is imported: start-up is part of
# the day.
JOBS = {
    "Give ids": {
        "allocate": ("allocate", "allocate"),
        "release": ("release", "release"),
    },
    "Render": {
        "render": ("render", "render"),
    },
    "Volumes": {
        "fix-volume": ("fix_volume", "fix_volume"),
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


def app_for(words: list[str]) -> typer.Typer:
    """The application, with the command that was typed, or with all where none was."""
    app = typer.Typer(
        cls=_Commands,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    statuses = ", ".join(f"{status:d} {status.meaning}" for status in ExitStatus)
    app.callback(help=f"{usernsplan.__doc__}\n\nExit status: {statuses}.")(usernsplan)
    for name in words[:1] if words[:1] and words[0] in COMMANDS else COMMANDS:
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

        print(f"usernsplan {version('usernsplan')}")
        raise typer.Exit


def usernsplan(
    version: bool = typer.Option(
        False,  # noqa: FBT003
        "--version",
        callback=_version,
        is_eager=True,
        help="Print the version.",
    ),
) -> None:
    """Plan which host ids containers get, and write them where the engines read them."""
