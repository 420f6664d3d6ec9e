"""Findings as a person, GitHub's runner and a program read them; codes that are chosen; the stories."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import usernsplan
from tests.each import each
from tests.unit.states import state
from usernsplan import Layout
from usernsplan.audit import ADVICE, RULES, Facts, check, chosen, story
from usernsplan.errors import InvalidValueError
from usernsplan.model import Finding, UnfinishedRun
from usernsplan.planner.runs import findings
from usernsplan.planner.stories import advise
from usernsplan.report import audit as report
from usernsplan.report.colour import Paint

if TYPE_CHECKING:
    from collections.abc import Sequence

PLAIN = Paint()
FOUND = (
    Finding("USN001", "error", "bob's overlaps", "move it", "/etc/subuid:7"),
    Finding("USN040", "error", "no comma", "", "/etc/docker/daemon.json:3:1"),
    Finding("USN020", "warning", "no carla", "rename", "/etc/subgid:2"),
    Finding(
        "USN030",
        "warning",
        "differ",
        "write it",
        "/etc/subuid:9",
        (("shadow", "a:1:2", ""), ("podman", "-", "fails")),
    ),
    Finding("USN015", "info", "outside", "", "./a b/etc/subuid:1"),
)


def github(found: Sequence[Finding]) -> str:
    return "\n".join(report.github(found))


def document_of(found: Sequence[Finding]) -> str:
    return "\n".join(map(str, report.result(found, Layout(), PLAIN).document()))


def test_the_table_is_grouped_and_ends_with_how_many() -> None:
    assert report.table(FOUND, PLAIN).splitlines() == [
        "errors",
        "  USN001 /etc/subuid:7: bob's overlaps",
        "         move it",
        "  USN040 /etc/docker/daemon.json:3:1: no comma",
        "",
        "warnings",
        "  USN020 /etc/subgid:2: no carla",
        "         rename",
        "  USN030 /etc/subuid:9: differ",
        "         shadow  a:1:2",
        "         podman  -  fails",
        "         write it",
        "",
        "info",
        "  USN015 ./a b/etc/subuid:1: outside",
        "",
        "2 errors, 2 warnings, 1 info; 'usernsplan check --explain USN001' explains the first.",
    ]
    assert report.table((), PLAIN) == "No problems found."
    assert report.table(FOUND[:1], PLAIN).splitlines()[-1].startswith("1 error; ")


def test_colours_are_for_terminals_only() -> None:
    painted = report.table(FOUND, Paint(on=True))
    assert "\x1b[31mUSN001\x1b[0m" in painted
    assert re.sub(r"\x1b\[\d+m", "", painted) == report.table(FOUND, PLAIN)


def test_what_others_wrote_cannot_speak_to_the_terminal() -> None:
    evil = Finding(
        "USN001",
        "error",
        "a\x1b[2Jb\nc\udcff",
        "x\ry",
        "/tmp/\x07/etc/subuid:1",
        (("shadow", "\x1b]0;", ""),),
    )
    shown = report.table((evil,), PLAIN)
    assert shown.replace("\n", "").isprintable()
    assert shown.splitlines()[1] == r"  USN001 /tmp/\x07/etc/subuid:1: a\x1b[2Jb\nc\udcff"
    assert github((evil,)).isprintable()


def test_github_gets_a_command_for_each_with_file_line_and_column() -> None:
    assert github(FOUND).splitlines() == [
        "::error file=/etc/subuid,line=7,title=USN001::bob's overlaps%0Amove it",
        "::error file=/etc/docker/daemon.json,line=3,col=1,title=USN040::no comma",
        "::warning file=/etc/subgid,line=2,title=USN020::no carla%0Arename",
        "::warning file=/etc/subuid,line=9,title=USN030::differ%0Ashadow: a:1:2%0Apodman: -: fails%0Awrite it",
        "::notice file=./a b/etc/subuid,line=1,title=USN015::outside",
    ]
    assert github(()) == ""


def unescaped(line: str) -> tuple[dict[str, str], str]:
    """A command as GitHub's runner reads it: ActionCommand.cs, which undoes %25 last."""
    match = re.fullmatch(r"::(\w+) ([^:]*)::(.*)", line)
    assert match

    def undone(text: str, *more: tuple[str, str]) -> str:
        for escaped, plain in (*more, ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
            text = text.replace(escaped, plain)
        return text

    pairs = (pair.split("=", 1) for pair in match[2].split(","))
    return {key: undone(value, ("%3A", ":"), ("%2C", ",")) for key, value in pairs}, undone(
        match[3]
    )


@pytest.mark.parametrize(
    "root", ["/tmp/a:b", "/tmp/a,b=c", "/tmp/100%", "/tmp/%3A", "/tmp/::error ::", "/tmp/a:7:8"]
)
def test_the_runner_reads_back_what_was_found(root: str) -> None:
    finding = Finding(
        "USN001", "error", "50% of it, e.g. ::stop-commands::x %0A", "a: b", f"{root}/etc/subuid:12"
    )
    properties, message = unescaped(github((finding,)))
    assert properties == {"file": f"{root}/etc/subuid", "line": "12", "title": "USN001"}
    assert message == f"{finding.message}\n{finding.hint}"


def test_a_place_without_a_line_and_none_at_all() -> None:
    found = (Finding("USN061", "error", "x", "", "/etc/subuid"), Finding("USN061", "error", "x"))
    assert github(found).splitlines() == [
        "::error file=/etc/subuid,title=USN061::x",
        "::error title=USN061::x",
    ]


def test_json_has_every_field_and_the_table_where_there_is_one() -> None:
    document = json.loads(document_of(FOUND))
    assert (document["format_version"], document["kind"]) == (2, "check")
    assert document["counts"] == {"error": 2, "warning": 2, "info": 1}
    assert document["findings"][0] == {
        "code": "USN001",
        "severity": "error",
        "title": "Lines of two owners grant the same ids",
        "place": "/etc/subuid:7",
        "message": "bob's overlaps",
        "hint": "move it",
        "table": [],
        "overlaps": [],
        "overlaps_left_out": 0,
    }
    assert document["findings"][3]["table"] == [
        {"reader": "shadow", "takes": "a:1:2", "remark": ""},
        {"reader": "podman", "takes": "-", "remark": "fails"},
    ]


def test_codes_are_chosen_by_their_beginnings() -> None:
    assert chosen() == set(RULES)
    assert chosen(["USN001,USN002"], ["usn002"]) == {"USN001"}
    assert chosen(["USN00", "USN01"]) == {code for code in RULES if "USN001" <= code <= "USN019"}
    assert chosen([], ["USN"]) == frozenset()


@pytest.mark.parametrize("word", ["USN9", "", "USN001,", "001", "USN101", "USN0011"])
def test_a_code_that_is_none_is_wrong_and_all_are_named(word: str) -> None:
    nothing: list[str] = []
    for options in (([word], nothing), (nothing, [word])):
        with pytest.raises(InvalidValueError, match="unknown code") as caught:
            chosen(*options)
        assert "USN001, USN002, USN003" in caught.value.hint


def test_only_what_was_chosen_is_looked_for() -> None:
    facts = Facts(state(b"alice:100000:9\nalice:100000:9\n", b""))
    assert {finding.code for finding in check(facts, chosen(["USN003"]))} == {"USN003"}
    assert {finding.code for finding in check(facts, chosen([], ["USN003"]))} == {
        "USN022",
        "USN024",
    }


SOURCES = list(Path(usernsplan.__file__).parent.rglob("*.py"))


def test_every_code_in_the_source_has_a_story() -> None:
    named = {code for path in SOURCES for code in re.findall(r"USN[0-9]{3}", path.read_text())}
    assert named == set(RULES) | set(ADVICE)
    assert set(RULES).isdisjoint(ADVICE)
    noted = [
        code
        for path in SOURCES
        for code in re.findall(r'^@rule\("(USN[0-9]{3})"', path.read_text(), re.MULTILINE)
    ]
    assert sorted(noted) == sorted(RULES)


def test_a_severity_stands_in_one_place() -> None:
    """Only a rule, the table of stories and what both tell of a run make findings; all others name a code."""
    makers = {
        path.name
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        if isinstance(node.func, ast.Name)
        if node.func.id == "Finding"
    }
    assert makers == {"base.py", "stories.py", "runs.py"}
    for code in ADVICE:
        assert advise(code, "a").severity == story(code).severity
    for run in (UnfinishedRun("1", problem="p"), UnfinishedRun("2")):
        [finding] = findings([run], Layout())
        assert finding.severity == story(finding.code).severity


@each("code", sorted({**RULES, **ADVICE}))
def test_a_story_has_its_parts_and_fits_a_terminal(code: str) -> None:
    found = story(code)
    assert found.code == code
    assert found.title
    assert found.title[-1] not in ".:"
    assert len(found.story.split("\n\n")) >= 2
    assert all(len(line) <= 100 and line == line.rstrip() for line in found.story.splitlines())
    shown = report.explained(code, PLAIN)
    assert str(shown.text()).startswith(f"{code} ({found.severity}): {found.title}\n\n")
    assert json.loads(str(shown.document()))["story"] == found.story


@each("code", sorted(RULES))
def test_the_story_of_a_rule_says_why_and_what_to_do(code: str) -> None:
    # Why it matters, and the remedy, are paragraphs of their own.
    paragraphs = RULES[code].story.split("\n\n")
    assert len(paragraphs) >= 3 or code == "USN057"
    assert not paragraphs[-1].startswith("    ")


def test_a_story_that_is_not_there_is_wrong_usage() -> None:
    with pytest.raises(InvalidValueError, match="USN999") as caught:
        story("USN999")
    assert "USN126" in caught.value.hint
    assert story("usn001") is RULES["USN001"]
