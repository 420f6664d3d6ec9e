"""Help, and usage errors."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import pytest
import typer

from tests.command import usernsplan
from usernsplan.cli.app import app_of
from usernsplan.cli.commands import COMMANDS, JOBS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NARROW = {"COLUMNS": "80"}


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name."""
    for name, command in typer.main.get_group(app_of(COMMANDS)).commands.items():
        yield name, command
        for inner, one in getattr(command, "commands", {}).items():
            yield f"{name} {inner}", one


def test_help_lists_each_command_once_and_whole_below_its_job() -> None:
    shown = usernsplan("--help", env=NARROW).stdout
    assert max(map(len, shown.splitlines())) <= 80
    found = re.findall(r"^(?:([A-Z][a-z ]+):|  ([a-z][a-z-]*) +([A-Z].*))$", shown, re.MULTILINE)
    assert [job for job, *_ in found if job] == ["Options", *JOBS]
    listed = {name: summary for _, name, summary in found if name}
    summaries = {
        name: (command.help or "").splitlines()[0]
        for name, command in commands()
        if " " not in name
    }
    assert listed == summaries
    assert list(listed) == list(COMMANDS)


def test_the_help_of_a_group_lists_its_commands_whole() -> None:
    shown = usernsplan("ledger", "--help", env=NARROW).stdout
    inner = [(name, one.help or "") for name, one in commands() if name.startswith("ledger ")]
    assert len(inner) == 5
    for name, told in inner:
        assert f"  {name.split()[1]:7}  {told.splitlines()[0]}\n" in shown


def test_a_default_is_told_in_one_way() -> None:
    told = 0
    for _, command in commands():
        for param in command.params:
            context = typer.Context(command, help_option_names=["--help"])
            _, text = param.get_help_record(context) or ("", "")
            assert "[default" not in text
            assert "Not said" not in text
            assert not re.search(r"\((?:[0-9]|usernsplan-)", text), text
            told += "Default: " in text
    assert told >= 20


@pytest.mark.parametrize(
    ("words", "fact", "remedy"),
    [
        ("allocte web", "allocte: no such command", "did you mean allocate?"),
        (
            "nothing-like-it",
            "nothing-like-it: no such command",
            "'usernsplan --help' lists all commands",
        ),
        ("ledger rebuidl", "rebuidl: no such command", "did you mean rebuild?"),
        # What may have a password is not repeated.
        (
            "ledger leave postgresql://u:geheim@h/d",
            "unexpected argument\n",
            "'usernsplan ledger leave --help'",
        ),
        ("check --fromat json", "--fromat: no such option", "did you mean --format?"),
        ("list --jsn", "--jsn: no such option", "did you mean --json?"),
        ("--versoin", "--versoin: no such option", "did you mean --version?"),
        (
            "list -x",
            "-x: no such option",
            "usage: usernsplan list [OPTIONS]; see 'usernsplan list --help'",
        ),
        ("show", "NAME is missing", "'usernsplan show --help'"),
        ("release", "NAME is missing", "'usernsplan release --help'"),
        ("show a b", "unexpected argument 'b'", "'usernsplan show --help'"),
        ("ledger rebuild now", "unexpected argument 'now'", "'usernsplan ledger rebuild --help'"),
        (
            "allocate web --size big",
            "--size: 'big' is not a whole number",
            "'usernsplan allocate --help'",
        ),
        ("allocate web --size", "--size: its value is missing", "'usernsplan allocate --help'"),
        ("map --width 0", "--width: 0 is not in the range", "'usernsplan map --help'"),
        ("list --json=yes", "--json: this option takes no value", "'usernsplan list --help'"),
    ],
)
def test_wrong_words_are_named_with_what_helps(words: str, fact: str, remedy: str) -> None:
    done = usernsplan(*words.split(), status=2)
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert f"{first}\n".startswith(f"usernsplan: {fact}")
    assert second.startswith("  ")
    assert remedy in second


def test_what_is_spelled_almost_right_is_named(tmp_path: Path) -> None:
    root = tmp_path / "host"
    usernsplan("allocate", "--strategy", "per-container", "web", "db", "old", "--root", root)
    usernsplan("release", "old", "--root", root)
    (root / "vol").mkdir()
    for words, meant, status in (
        ("allocate --strategy per-contaner new", "per-container", 2),
        ("allocate new --engine podmn", "podman", 2),
        ("render podmn web", "podman", 2),
        ("render podman wbe", "web", 1),
        ("show wbe", "web", 1),
        ("release wbe", "web", 1),
        ("release --forget odl", "old", 1),
        ("find-owned wbe /", "web", 1),
        ("fix-volume /vol --container wbe", "web", 2),
        ("fix-volume /vol --from wbe --container db", "web", 2),
        ("fix-volume /vol --mode shfit", "shift", 2),
        ("fix-volume --discover podmn web", "podman", 2),
        ("check --format tabel", "table", 2),
        ("check --select UNS001", "USN001", 2),
        ("check --explain uns001", "USN001", 2),
        ("whois --container wbe 33", "web", 1),
    ):
        done = usernsplan(*words.split(), "--root", root, status=status)
        assert f"\n  did you mean {meant}?" in done.stderr, (words, done.stderr)


def test_without_words_there_is_help_and_it_is_an_error() -> None:
    assert "Give ids:" in usernsplan(status=2).stderr
    assert "rebuild" in usernsplan("ledger", status=2).stderr


def test_a_word_that_would_move_the_cursor_is_shown_as_text() -> None:
    err = usernsplan("list", "\x1b[2J", status=2).stderr
    assert "\x1b" not in err
    assert len(err.splitlines()) == 2


def test_a_command_is_named_by_one_name_however_it_was_started() -> None:
    assert usernsplan("list", "--help", env=dict(os.environ)).stdout.startswith(
        "Usage: usernsplan list "
    )
