"""The typer application: which command lives in which module."""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from usernsplan import escape
from usernsplan.errors import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

# Command -> (module, function). Only the module of the command that was typed is imported: start-up is part of the day.
COMMANDS = {
    "allocate": ("allocate", "allocate"),
    "release": ("release", "release"),
    "list": ("show", "list_"),
    "show": ("show", "show"),
    "history": ("show", "history"),
    "map": ("map_", "map_"),
    "capacity": ("capacity", "capacity"),
    "render": ("render", "render"),
    "check": ("check", "check"),
    "whois": ("whois", "whois"),
    "inspect": ("inspect", "inspect"),
    "find-owned": ("find_owned", "find_owned"),
    "fix-volume": ("fix_volume", "fix_volume"),
    "undo": ("fix_volume", "undo"),
    "plan": ("plan", "plan"),
    "apply": ("plan", "apply"),
    "export": ("plan", "export"),
    "ledger": ("ledger", "ledger"),
}


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
            app.command(name)(found)
    return app


class _Commands(TyperGroup):
    """Typer's; what it complains of is shown on one line, whatever words it was given."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as they are
        with _on_one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - the same
        with _on_one_line():
            return super().invoke(ctx)


@contextmanager
def _on_one_line() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Which class it is depends on whether this typer brings its own click.
        if hasattr(error, "format_message") and hasattr(error, "message"):
            error.message = escape.line(str(error.message))
        raise


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
