"""Help that is grouped by job, and usage errors in our own style.

Some versions of typer bring their own click, others use the installed one. So the classes of
click's errors differ, and we recognise them by name.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup

from usernsplan.errors import UsageError, did_you_mean, placed
from usernsplan.ledger.postgres import may_have_password

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Command(TyperCommand):
    """Typer's command, whose usage errors are ours."""

    # Click would list all unexpected arguments in one sentence; parse_args names the first.
    allow_extra_args = True

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - of either click
        """Parse the arguments. Raises UsageError."""
        with _as_usage_errors(ctx):
            left_over = super().parse_args(ctx, args)
        if left_over:
            raise UsageError(f"unexpected argument{_shown(left_over[0])}", hint=_usage(ctx))
        return left_over

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - of either click
        """Run the command. An error about an option names it as the user typed it."""
        typed = {
            str(name): param.opts[0]
            for param in self.params
            if param.opts[0].startswith("-")
            and getattr(ctx.get_parameter_source(param.name), "name", "") == "COMMANDLINE"
            for name in (param.name, param.opts[0].lstrip("-"))
        }
        with placed(typed):
            return super().invoke(ctx)


class Group(TyperGroup):
    """Typer's group with our usage errors; help lists each command below its job."""

    jobs: Mapping[str, Mapping[str, object]] = {}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - of either click
        """Parse the arguments before the command. Raises UsageError."""
        with _as_usage_errors(ctx):
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - the same
        """Find the command. Raises UsageError if it does not exist."""
        if args[0] not in self.commands:
            hint = did_you_mean(
                args[0], self.commands, f"'{ctx.command_path} --help' lists all commands"
            )
            raise UsageError(f"{args[0]}: no such command", hint=hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, _: Any, formatter: Any) -> None:  # noqa: ANN401 - the same
        """Write the list of commands; click would cut summaries at the terminal's width."""
        for job, names in (self.jobs or {"Commands": self.commands}).items():
            with formatter.section(job):
                formatter.write_dl([(name, self._summary(name)) for name in names])

    def _summary(self, name: str) -> str:
        return (self.commands[name].help or "").partition("\n")[0]


@contextmanager
def _as_usage_errors(ctx: Any) -> Iterator[None]:  # noqa: ANN401 - of either click
    try:
        yield
    except Exception as error:
        if not hasattr(error, "format_message") or type(error).__name__ == "NoArgsIsHelpError":
            raise
        raise _as_ours(error, ctx) from error


def _as_ours(error: Any, ctx: Any) -> UsageError:  # noqa: ANN401 - of either click
    """One of click's usage errors as ours, with fact and remedy."""
    options = [
        name for param in ctx.command.params for name in (*param.opts, *param.secondary_opts)
    ]
    match type(error).__name__:
        case "NoSuchOption":
            word = error.option_name
            near = did_you_mean(word, [name for name in options if name[:1] == "-"], _usage(ctx))
            return UsageError(f"{word}: no such option", hint=near)
        case "MissingParameter":
            return UsageError(
                f"{error.param.human_readable_name.strip('[].')} is missing", hint=_usage(ctx)
            )
        case "BadOptionUsage":
            is_bare = "requires" in error.message
            fact = "its value is missing" if is_bare else "this option takes no value"
            return UsageError(f"{error.option_name}: {fact}", hint=_usage(ctx))
        case "BadParameter":
            # "'x' is not a valid int", or "integer": the text depends on the version.
            value, is_no, _ = error.message.partition(" is not a valid ")
            fact = f"{value} is not a whole number" if is_no else error.message.rstrip(".")
            return UsageError(f"{error.param.opts[-1]}: {fact}", hint=_usage(ctx))
    return UsageError(error.format_message(), hint=_usage(ctx))


def _shown(word: str) -> str:
    """A word for a message, unless it is a place of a ledger that may have a password in it."""
    is_place = "@" in word or "=" in word
    return "" if is_place and may_have_password(word) else f" '{word}'"


def _usage(ctx: Any) -> str:  # noqa: ANN401 - of either click
    words = " ".join(ctx.command.collect_usage_pieces(ctx))
    return f"usage: {ctx.command_path} {words}; see '{ctx.command_path} --help'"
