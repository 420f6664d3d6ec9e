"""The typer application: for help, for wrong usage, and for all that words.read leaves to it."""

from __future__ import annotations

from functools import cache
from inspect import Parameter, Signature, getdoc
from typing import TYPE_CHECKING, Annotated, Any

import typer

from usernsplan.cli.commands import COMMANDS, JOBS, function_of, print_version, summary_of
from usernsplan.cli.usage import Command, Group
from usernsplan.cli.words import REQUIRED, Argument, parameters
from usernsplan.errors import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


def app_for(argv: Sequence[str]) -> typer.Typer:
    """The application with the command in ``argv``; if it has none, all with their summaries."""
    if argv[:1] and argv[0] in COMMANDS:
        return app_of(argv[:1])
    return app_of(COMMANDS) if COMMANDS.keys() & {*argv} else _overview()


def app_of(names: Iterable[str]) -> typer.Typer:
    """The application with these commands."""
    app = _without_commands()
    for name in names:
        found = function_of(name)
        if commands := getattr(found, "commands", None):
            group = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None)
            group.callback()(found)
            for inner, one in commands.items():
                group.command(inner, cls=Command)(for_typer(one))
            app.add_typer(group, name=name)
        else:
            app.command(name, cls=Command)(for_typer(found))
    return app


def _overview() -> typer.Typer:
    """The application for words without a command: what is shown of commands is their summaries."""
    app = _without_commands()
    for name in COMMANDS:
        app.command(name, help=summary_of(name))(_overview)
    return app


def _without_commands() -> typer.Typer:
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
    return app


@cache
def for_typer(function: Any) -> Callable[..., None]:  # noqa: ANN401 - of any parameters
    """The function with what it declares in the form that typer reads."""

    def command(**arguments: Any) -> None:
        function(**arguments)

    found = []
    for one in parameters(function):
        make = typer.Argument if isinstance(one.declared, Argument) else typer.Option
        info = make(*one.declared.names, **one.declared.more)
        found.append(
            Parameter(
                one.name,
                Parameter.KEYWORD_ONLY,
                default=Parameter.empty if one.default is REQUIRED else one.default,
                annotation=Annotated[one.kind, info],
            )
        )
    command.__doc__ = function.__doc__
    command.__signature__ = Signature(found)  # type: ignore[attr-defined]
    return command


class _Commands(Group):
    jobs = JOBS


def _version(wanted: bool) -> None:
    if wanted:
        print_version()
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
