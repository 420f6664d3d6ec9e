"""The hint that names what was meant."""

from __future__ import annotations

import pytest

from usernsplan.errors import did_you_mean


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("wbe", ["db", "web"], "did you mean web?"),
        ("WEB", ["db", "web"], "did you mean web?"),
        ("usn12", ["USN120", "USN007"], "did you mean USN120?"),
        ("--fromat", ["--root", "--format"], "did you mean --format?"),
        # The dashes do not make it look like another option.
        ("--fromat", ["--root", "--max"], "see --help"),
        ("web", [], "see --help"),
        ("", ["web"], "see --help"),
    ],
)
def test_what_is_spelled_alike_is_named(word: str, known: list[str], hint: str) -> None:
    assert did_you_mean(word, known, "see --help") == hint
