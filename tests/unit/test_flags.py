"""What is refused for safety has a flag of its own, and --yes is none: CONTRIBUTING's table is what commands have."""

from __future__ import annotations

import re
from pathlib import Path

from tests.command import here
from tests.each import each

ROOT = Path(__file__).parents[2]
ROWS = [
    (command, flag)
    for commands, flag in re.findall(
        r"^\| [^|]+ \| ([\w, -]+) \| `(--[\w-]+)` \|",
        (ROOT / "CONTRIBUTING.md").read_text(),
        re.MULTILINE,
    )
    for command in commands.split(", ")
]
# Here a command asks.
ASKING = {
    "cli/options.py",
    "cli/plan.py",
    "cli/check.py",
    "cli/ledger.py",
    "cli/remap.py",
    "cli/leases.py",
}


@each(("command", "flag"), ROWS)
def test_each_flag_of_the_table_is_an_option(command: str, flag: str) -> None:
    assert re.search(rf"^ +{flag}\b", here(*command.split(), "--help")[0], re.MULTILINE)


def test_the_table_is_there() -> None:
    assert len(ROWS) > 25


def test_no_story_of_a_rule_gives_yes_for_a_permission() -> None:
    paths = [
        *(ROOT / "usernsplan/audit").glob("*.py"),
        ROOT / "usernsplan/planner/stories.py",
    ]
    texts = [path.read_text() for path in paths]
    # What allocate asks, a script answers; nothing else is answered so.
    assert (
        sum(text.count("--yes") for text in texts)
        == sum(text.count("a script answers with --yes") for text in texts)
        == 1
    )


def test_no_remedy_says_yes_but_where_something_is_asked() -> None:
    found = {
        str(path.relative_to(ROOT / "usernsplan"))
        for path in (ROOT / "usernsplan").rglob("*.py")
        if re.search(r"\b(?:say|use|or) --yes", path.read_text())
    }
    assert found <= ASKING, found
