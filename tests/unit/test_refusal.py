"""The flag that a failed render prints: for which words."""

from __future__ import annotations

import ast
import re
from itertools import chain
from pathlib import Path

import typer

from tests.each import each
from usernsplan.cli.app import app_of
from usernsplan.cli.commands import COMMANDS
from usernsplan.cli.refusal import SWITCHES, TAKE_A_WORD, is_due
from usernsplan.engines import ENGINES

REPOSITORY = Path(__file__).parents[2]
FLAGS = ("podman", "podman-auto", "containerd", "nspawn", "rootless")


@each("engine", ENGINES)
def test_it_is_for_engines_that_are_given_flags(engine: str) -> None:
    assert is_due(["render", engine, "web"]) is (engine in FLAGS)


@each(
    "words",
    [
        "render",
        "render podman",
        "render podmn web",
        "render --root /mnt nspawn web",
        "render --volme /a:/b podman web",
        # Without a word of its own, or with one too many, an option does not say what it says.
        "render podman web --out",
        "render podman web --json=yes",
        "render --volume --json podman web",
        "render --volume lxc podman web",
        "render podman lxc",
        "render -- podman --json",
        "render podman web --list",
        "render --jsn lxc web",
        "rendr podman web",
        "--root /mnt render podman web",
    ],
)
def test_what_may_have_been_meant_for_a_command_line_has_it(words: str) -> None:
    assert is_due(words.split())


@each(
    "words",
    [
        "",
        "bogus",
        "list podman",
        "allocate podman",
        "render podman web --json",
        "render --json",
        "render podman web --out /x",
        "render podman web --out=/x",
        "render lxc podman",
        "render --list podmn",
        "render --volume /podman:/x lxc web",
    ],
)
def test_what_was_meant_for_something_else_has_not(words: str) -> None:
    assert not is_due(words.split())


def test_the_options_of_render_are_those_that_it_knows() -> None:
    command = typer.main.get_group(app_of(["render"])).commands["render"]
    options = [one for one in command.params if one.param_type_name == "option"]
    takes = {name for one in options if not getattr(one, "is_flag", False) for name in one.opts}
    assert takes == TAKE_A_WORD
    switches = {name for one in options if getattr(one, "is_flag", False) for name in one.opts}
    assert switches | {"--help", "-h"} == SWITCHES


# A value of its own may stand in quotes or not; what is given to a program may not be the output of another.
_SUBSTITUTION = re.compile(r"""(?<![\w]=)(?<![\w]=")\$\(""")


def shown() -> dict[str, str]:
    """What people read and paste: documents, examples, help, and every string of the source."""
    found = {
        str(path): path.read_text()
        for path in [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("examples/*")]
    }
    for path in REPOSITORY.glob("usernsplan/**/*.py"):
        strings = [
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant)
        ]
        found[str(path)] = "\n".join(text for text in strings if isinstance(text, str))
    for name in COMMANDS:
        help_ = typer.main.get_group(app_of([name])).commands[name].help or ""
        found[f"--help of {name}"] = help_
    return found


def test_nothing_that_can_be_pasted_gives_a_program_the_output_of_one_that_may_fail() -> None:
    for wrong in (
        "podman run $(usernsplan render podman web) x",
        'cp "$(command -v busybox)" x',
        "a=b c $(d)",
    ):
        assert _SUBSTITUTION.search(wrong)
    for right in ("flags=$(usernsplan render podman web) && podman run $flags", 'flags="$(x)"'):
        assert not _SUBSTITUTION.search(right)
    texts = shown()
    assert any("flags=$(usernsplan render podman web" in text for text in texts.values())
    wrong_ones = chain.from_iterable(
        (f"{place}: {line}" for line in text.splitlines() if _SUBSTITUTION.search(line))
        for place, text in texts.items()
    )
    assert list(wrong_ones) == []
