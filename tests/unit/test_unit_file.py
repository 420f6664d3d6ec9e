"""Names and words of systemd's unit files, and the mark on those of ours."""

from __future__ import annotations

import shutil
import subprocess

from hypothesis import given
from hypothesis import strategies as st

from tests.command import missing
from tests.each import each
from usernsplan.formats.unit_file import (
    argument,
    body_of,
    escaped,
    fits,
    is_plain,
    is_text,
    named,
    signed,
    word,
)

# Of each what systemd-escape(1) has a rule for.
PATHS = (
    "/",
    "/srv/web",
    "//srv//web/",
    "/srv/my-web",
    "/.hid/.den",
    "/a b",
    "/50%",
    "/ü",
    "/a\\b",
    "/\udcff",
)


@each(
    ("path", "name"),
    [
        ("/", "-"),
        ("/srv/web", "srv-web"),
        ("/srv//web/", "srv-web"),
        ("/srv/my-web", r"srv-my\x2dweb"),
        ("/.hid/.den", r"\x2ehid-.den"),
        ("/a b", r"a\x20b"),
        # The byte 0xff.
        ("/a\udcff", r"a\xff"),
    ],
)
def test_a_path_in_the_name_of_a_unit(path: str, name: str) -> None:
    assert escaped(path) == name


def test_systemd_escapes_paths_alike() -> None:
    if shutil.which("systemd-escape") is None:
        missing("systemd-escape")
    said = subprocess.run(
        ["systemd-escape", "--path", "--", *PATHS], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == [escaped(path) for path in PATHS]


def test_a_name_that_would_be_too_long_is_shortened_and_stays_its_own() -> None:
    one, other = (named("usernsplan-" + "x" * 300 + last, "service") for last in "ab")
    assert len(one) < 256
    assert one != other
    assert one.endswith(".service")
    assert named("web", "service") == "web.service"
    assert not fits("x" * 250 + ".mount")
    assert fits("x" * 249 + ".mount")


@each(
    ("text", "in_list", "in_command"),
    [
        ("/srv/web", '"/srv/web"', '"/srv/web"'),
        ("/a b", '"/a b"', '"/a b"'),
        ("/50%", '"/50%%"', '"/50%%"'),
        ("/$HOME", '"/$HOME"', '"/$$HOME"'),
        ('/"it"', r'"/\"it\""', r'"/\"it\""'),
        ("/a\\b", r'"/a\\b"', r'"/a\\b"'),
    ],
)
def test_a_word_of_a_unit(text: str, in_list: str, in_command: str) -> None:
    assert (word(text), argument(text)) == (in_list, in_command)


@each(
    ("path", "plain", "text"),
    [
        ("/srv/web-1.2@x", True, True),
        ("/srv/a b", False, True),
        ("/srv/a%", False, True),
        ("/srv/ü", False, True),
        ("/srv/a\nb", False, False),
        ("/srv/\udcff", False, False),
    ],
)
def test_which_paths_a_unit_can_name(path: str, plain: bool, text: bool) -> None:
    assert (is_plain(path), is_text(path)) == (plain, text)


@given(head=st.text(max_size=40), body=st.text(max_size=200))
def test_a_unit_of_ours_is_known_again(head: str, body: str) -> None:
    assert body_of(signed(head, body)) == body
    # People may add a note above the mark; systemd does not read it.
    assert body_of("# mine\n" + signed(head, body)) == body


@each("change", ["{}x", "{}\n", "[Unit]\n{}", "{} "])
def test_a_unit_that_somebody_changed_is_theirs(change: str) -> None:
    text = signed("ours", "[Unit]\nDescription=web\n")
    assert body_of(text) is not None
    assert body_of(change.format(text)) is None


@each("text", ["", "[Unit]\n", "# Digest of what follows, as usernsplan wrote it: \n\n"])
def test_a_unit_of_somebody_else_is_not_ours(text: str) -> None:
    assert body_of(text) is None
