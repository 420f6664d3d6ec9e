"""What typer reads of a command's function, read once: in a process that runs hundreds, it is a third of each."""

from __future__ import annotations

import functools

import typer.main

from usernsplan.cli.app import app_of
from usernsplan.cli.commands import COMMANDS


def remember() -> None:
    """Let typer read each function only once in this process, and in those that it forks."""
    module = vars(typer.main)
    read = module["get_params_from_function"]
    if not hasattr(read, "cache_info"):
        module["get_params_from_function"] = functools.cache(read)


def read_all() -> None:
    """Read those of every command, before the first fork."""
    remember()
    typer.main.get_command(app_of(COMMANDS))
