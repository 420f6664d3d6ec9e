"""Text that others wrote, as each way out shows it."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
import syslog
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.command import here
from usernsplan import escape
from usernsplan.cli import progress, say
from usernsplan.host import log
from usernsplan.layout import Layout
from usernsplan.model import Actor, Change, Finding, HistoryEntry
from usernsplan.report import audit, json_, map_html, map_svg, text
from usernsplan.report.colour import Paint
from usernsplan.report.diff import unified
from usernsplan.space import space

from .states import state

if TYPE_CHECKING:
    from collections.abc import Callable

# Line ends, colours, a window's title, C1's CSI, what turns letters round, what is no UTF-8, commands of GitHub's.
EVIL = "a\n::error::x\r\x1b[31m\x1b]0;t\x07\x7f\x9b2J\u202e\u2066\u2028\u200b\udcff\ufffe##[error]</script><b>&"


def is_plain(shown: str) -> bool:
    return all(character.isprintable() or character in "\n\t" for character in shown)


@given(st.text(st.one_of(st.characters(), st.sampled_from(EVIL))))
def test_nothing_gets_through(some: str) -> None:
    assert escape.line(some).isprintable()
    for shown in (escape.lines(some), escape.told(some), escape.no_result(some)):
        assert is_plain(shown)
        shown.encode()
    assert escape.lines(some).count("\n") == escape.no_result(some).count("\n") == some.count("\n")
    assert not [
        one for one in escape.no_result(some).split("\n") if one.lstrip(" \t").startswith("::")
    ]
    assert "##[" not in escape.no_result(some)
    assert all(one.startswith("  ") for one in escape.told(some).split("\n")[1:])


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp", "Co", "Cn"])))
def test_what_can_be_printed_stays(some: str) -> None:
    plain = "".join(one for one in some if one.isprintable())
    assert escape.line(plain) == escape.lines(plain) == escape.told(plain) == plain
    assert escape.shell(plain) == shlex.quote(plain)


def test_colours_of_ours_pass_and_no_others() -> None:
    painted = Paint(on=True)(f"red {escape.line(EVIL)}", "red")
    assert escape.lines(painted, colours=True) == painted
    assert escape.lines("\x1b[31m", colours=False) == r"\x1b[31m"
    for other in ("\x1b[2J", "\x1b[38;5;1m", "\x1b]0;", "\x1b[5m", "\x1b[31", "\x1b[8m", "\x9b31m"):
        assert "\x1b" not in escape.lines(other, colours=True)


@pytest.mark.parametrize("word", [EVIL, "plain", "", "a b", "a'\\\n1", "\udcff7", "-\t\t"])
def test_a_shell_reads_the_word(word: str) -> None:
    shown = escape.shell(word)
    assert shown.isprintable()
    done = subprocess.run(["sh", "-c", f"printf %s {shown}"], capture_output=True, check=True)
    assert done.stdout == word.encode("utf-8", "surrogateescape")
    assert escape.shell(*["echo", word]) == f"echo {shown}"
    assert (
        Layout(word or "/x").command("list")
        == f"usernsplan list --root {escape.shell(word or '/x')}"
    )


def test_a_line_of_the_system_log_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr(syslog, "syslog", lambda _, line: logged.append(line))
    log.changed(
        Layout("/", "/"), ["x\nsshd[1]: Accepted password for root\0", EVIL, "+ alice:100000:65536"]
    )
    assert len(logged) == 3
    assert all(line.isprintable() for line in logged)
    assert logged[0] == r"x\nsshd[1]: Accepted password for root\x00"
    assert logged[2] == "+ alice:100000:65536"


def test_history_and_findings_are_text_in_a_terminal() -> None:
    entry = HistoryEntry("now", Actor(0, None, None), EVIL, (EVIL, "+ x"))
    shown = text.history([entry])
    assert is_plain(shown)
    # A head, its rule, the command, and two lines.
    assert len(shown.split("\n")) == 5
    finding = Finding("USN1", "warning", EVIL, EVIL)
    shown = text.findings([finding])
    assert is_plain(shown)
    assert [one[:2] for one in shown.split("\n")] == ["wa", "  "]


def test_a_diff_is_for_a_terminal_in_text_and_exact_in_json() -> None:
    line = EVIL.replace("\n", "").encode("utf-8", "surrogateescape")
    change = Change("/etc/subuid", line + b"\n", line + b"\nx\n")
    diff = unified(change, f"/r{EVIL}/etc/subuid")
    assert [one[:1] for one in diff.split("\n")] == ["-", "+", "@", " ", "+"]
    assert is_plain(escape.lines(diff))
    shown = json_.document("x", name=EVIL, diff=diff)
    assert shown.isascii()
    assert "\x7f" not in shown
    assert is_plain(shown)
    assert json.loads(shown)["name"] == EVIL


def test_one_command_for_each_finding_to_github() -> None:
    finding = Finding("USN001", "error", EVIL, EVIL, place=f"{EVIL}:1", table=((EVIL, EVIL, EVIL),))
    shown = "\n".join(audit.github([finding, finding]))
    assert is_plain(shown)
    lines = shown.split("\n")
    assert len(lines) == 2
    assert all(line.startswith("::error file=") for line in lines)
    assert lines[0].count("::") - lines[0].split("::", 2)[2].count("::") == 2


@pytest.mark.parametrize("colours", [True, False])
def test_a_table_of_findings_is_text(colours: bool) -> None:
    shown = audit.table([Finding("USN001", "error", EVIL, EVIL, place=EVIL)], Paint(colours))
    assert is_plain(shown.replace("\x1b[31m", "").replace("\x1b[1m", "").replace("\x1b[0m", ""))


class _Page(HTMLParser):
    """The elements of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:  # noqa: ANN401 - the parser's
        del attrs
        self.tags.append(tag)


def test_a_picture_and_a_page_hold_text() -> None:
    name = "".join(one for one in EVIL if one not in "\n:#\r\u2028")
    raw = f"{name}:100000:65536\n".encode("utf-8", "surrogateescape")
    found = space(state(subuid=raw, subgid=raw))
    svg, html = map_svg.document(found, EVIL), map_html.document(found, EVIL)
    for shown in (svg, html):
        assert is_plain(shown)
        assert "</script><b>" not in shown
        assert "&lt;/script&gt;&lt;b&gt;&amp;" in shown
        shown.encode()
    ET.fromstring(svg)  # noqa: S314 - ours
    page = _Page()
    page.feed(html)
    assert page.tags.count("script") == 1
    assert "b" not in page.tags


def test_progress_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "_AFTER", -1)
    monkeypatch.setattr(progress, "_EVERY", -1)
    what = EVIL + "[/x][bold]"
    watches: list[Callable[[], Any]] = [progress._Bar, progress._Lines]
    for watch in watches:
        made = watch()
        made.begin(what, 10)
        made.tick(3)
        made.warn(what)
        made.begin(what, None)
        made.tick(4)
        made.end()
    assert is_plain(screen.getvalue().replace("\r", ""))
    assert not [line for line in screen.getvalue().split("\n") if line.lstrip().startswith("::")]


def test_standard_error_says_no_commands(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL)
    told = capsys.readouterr().err
    assert is_plain(told)
    assert "\n::" not in told
    assert "##[" not in told


@pytest.mark.parametrize(
    "words",
    [
        ("show", EVIL),
        ("list", EVIL),
        (f"--{EVIL}",),
        (EVIL,),
        ("allocate", "--size", EVIL),
        ("plan", EVIL),
        ("list", "--root", f"/nowhere{EVIL}"),
        ("check", "--passwd", f"{EVIL}\n  remedy: rm"),
        ("render", "oci", "web", "--bundle", EVIL),
        ("release", EVIL),
        ("whois", EVIL),
        ("find-owned", EVIL, "/tmp"),
        ("fix-volume", EVIL, "--container", EVIL),
    ],
)
def test_errors_are_text_and_every_line_is_ours(words: tuple[str, ...], tmp_path: Any) -> None:  # noqa: ANN401
    root = () if "--root" in words else ("--root", tmp_path)
    out, err = here(*words, *root, status=None)
    assert is_plain(out + err)
    assert err
    assert "\n::" not in err
    assert "\n  remedy" not in err


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/a b/ü", "/a b/ü"),
        ("/a\nb", "'/a\\nb'"),
        ("/a\x1b[2J", "'/a\\x1b[2J'"),
        ("/\udcff", "'/\\udcff'"),
        ("/\u202e", "'/\\u202e'"),
    ],
)
def test_a_path_is_shown_on_one_line_whatever_it_is(path: str, shown: str) -> None:
    assert escape.shown_path(path) == shown
