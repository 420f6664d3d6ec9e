"""Printed commands, pasted into a shell: it passes exactly the intended arguments."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.command import here, needs_root, slow, usernsplan
from usernsplan.escape import in_words, operand, shell
from usernsplan.layout import Layout

ODD = [
    *(
        "a b",
        "a'b",
        'a"b',
        "$(touch made)",
        "`touch made`",
        "a\nb",
        "a;touch made",
        "-x",
        "a\\b",
        "a*",
        "~",
        "&touch made",
    ),
    *("a\x1b[31m", "a%sb\t", "a\n", "\n", "ü", "a\u202eb", os.fsdecode(b"a\xff%"), "#a", "a!b", ""),
]
# A word as a shell reads it, from its start.
WORD = r"""(?:'[^']*'|"(?:`[^`]*`|[^"`])*"|\\.|[^\s'"\\();&|])+"""
PATH_OF_SHELLS = os.environ["PATH"]


@pytest.fixture
def pasted(tmp_path: Path) -> Paste:
    return Paste(tmp_path / "paste")


class Paste:
    """A folder with programs that log their arguments, and shells to paste into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        (folder / "work").mkdir()
        for name in (
            "usernsplan",
            "chattr",
            "chmod",
            "chown",
            "mv",
            "useradd",
            "usermod",
            "groupadd",
            "setcap",
        ):
            (folder / "bin" / name).write_text(
                f"#!/bin/sh\nexec >>{folder}/words\nprintf 'word %s\\0' \"${{0##*/}}\" \"$@\"\nprintf 'end\\0'\n"
            )
            (folder / "bin" / name).chmod(0o755)

    def __call__(self, command: str, shell_: str = "sh") -> list[list[str]]:
        """Paste a text. Return the arguments of each program that it started."""
        (self.folder / "words").unlink(missing_ok=True)
        done = subprocess.run(
            [shell_, "-c", os.fsencode(command)],
            cwd=self.folder / "work",
            env={"PATH": f"{self.folder / 'bin'}:{PATH_OF_SHELLS}"},
            capture_output=True,
            check=False,
        )
        assert list((self.folder / "work").iterdir()) == [], "something in it was obeyed"
        assert done.returncode == 0, (command, done.stderr)
        raw = os.fsdecode((self.folder / "words").read_bytes()).removesuffix("\0").split("\0")
        return [
            [word.removeprefix("word ") for word in words]
            for is_word, words in itertools.groupby(raw, lambda word: word != "end")
            if is_word
        ]


@pytest.mark.parametrize("shell_", ["sh", "bash", "dash", "zsh", "ksh"])
def test_words_come_back_as_they_were(pasted: Paste, shell_: str) -> None:
    if shutil.which(shell_) is None:
        pytest.skip(f"{shell_} is not installed")
    assert pasted(shell("usernsplan", *ODD), shell_) == [["usernsplan", *ODD]]


@pytest.mark.parametrize("word", ODD)
def test_a_word_is_one_line_that_a_terminal_does_not_obey(pasted: Paste, word: str) -> None:
    assert shell(word).rstrip("\n'").isprintable()
    assert pasted(Layout(root=word).command("list")) == [["usernsplan", "list", "--root", word]]
    # A user who also pastes the sentence around it does no harm.
    said = Layout(root=word).inline("list")
    assert said in {in_words(f"usernsplan list --root {word}"), Layout(root=word).command("list")}
    assert not (said.startswith("'") and "'" in said[1:-1])
    [[_, path]] = pasted(f"chattr {operand(word)}")
    assert os.path.normpath(path) == os.path.normpath(word)
    assert not path.startswith("-")


def commands(said: str, root: str) -> list[str]:
    """The commands in the output, up to their --root."""
    found = re.findall(rf"usernsplan [a-z-]+(?: {WORD})*? --root {WORD}", said)
    assert said.count("--root ") == len(found), said
    assert root
    return found


ROOTS = pytest.mark.parametrize(
    "name",
    [
        "a b",
        "$(touch made)",
        *slow("a'b", "`touch made`", "a\nb", "a;touch made", "a\x1b[31m", 'a"b', "a\\b"),
    ],
)


@ROOTS
def test_what_every_command_prints_for_an_odd_root_is_for_that_root(
    pasted: Paste, tmp_path: Path, name: str
) -> None:
    root = str(tmp_path / name)
    words = ("--strategy", "per-container", "--root", root)
    said = [here("allocate", "web", "db", *words)[0]]
    said += here("release", "db", "--root", root)
    said += here("allocate", "web", "--size", "131072", *words, status=9)
    said += here("allocate", "xyz", "--strategy", "single-uid", "--root", root, status=9)
    said += here("list", "--root", root)
    said += here("whois", "665536", "--root", root)
    (tmp_path / "plan.yaml").write_text(
        "strategy: per-container\ncontainers: [{name: web, volumes: [/srv/none]}]\n"
    )
    said += here(
        "plan", tmp_path / "plan.yaml", "--out", tmp_path / "a saved\nplan", "--root", root
    )
    said += here("apply", tmp_path / "plan.yaml", "--yes", "--root", root)
    said += here("plan", "--root", root, status=2)
    said += here("render", "oci", "web", "--volume", "/srv/x y:/data", "--root", root)
    said += here("render", "rootless", "web", "--root", root, status=9)
    (Path(root) / "etc/subuid").write_text("usernsplan-old:965536:65536\n")
    said += here("check", "--root", root, status=1)
    found = [command for text in said for command in commands(text, root)]
    assert len(found) >= 10
    for command in found:
        [argv] = pasted(command)
        assert argv[0] == "usernsplan"
        assert argv[-2:] == ["--root", root], command
    assert any("a saved\nplan" in word for command in found for word in pasted(command)[0])


@needs_root
@ROOTS
def test_what_fix_volume_prints_for_an_odd_path_is_for_that_path(
    pasted: Paste, tmp_path: Path, name: str
) -> None:
    root = tmp_path / name
    volume = root / "srv" / name
    volume.mkdir(parents=True)
    (volume / "file").touch()
    (root / "etc").mkdir()
    usernsplan("allocate", "web", "db", "--strategy", "per-container", "--root", root)
    path = str(Path("/srv") / name)
    done = usernsplan("fix-volume", path, "--container", "web", "--root", root)
    assert [pasted(one)[0][:2] for one in commands(done.stdout, str(root))] == [
        ["usernsplan", "undo"]
    ]
    refused = usernsplan("fix-volume", path, "--container", "db", "--root", root, status=9)
    found = [pasted(one)[0] for one in commands(refused.stderr, str(root))]
    assert len(found) == 2
    for argv in found:
        assert argv[:3] == ["usernsplan", "fix-volume", path]
        assert argv[-2:] == ["--root", str(root)]


@needs_root
@ROOTS
def test_chattr_is_for_the_file_that_is_immutable(pasted: Paste, tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    usernsplan("allocate", "web", "--strategy", "per-container", "--root", root)
    file = root / "etc/subuid"
    if subprocess.run(["chattr", "+i", file], capture_output=True, check=False).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        refused = usernsplan(
            "allocate", "db", "--strategy", "per-container", "--root", root, status=8
        )
    finally:
        subprocess.run(["chattr", "-i", file], check=True)
    [command] = re.findall(rf"chattr(?: {WORD})+", refused.stderr)
    assert pasted(command) == [["chattr", "-i", "-a", str(file)]]


def test_names_out_of_files_of_others_are_quoted_too(pasted: Paste, tmp_path: Path) -> None:
    (tmp_path / "etc/docker").mkdir(parents=True)
    usernsplan("allocate", "web", "--strategy", "per-container", "--root", tmp_path)
    (tmp_path / "etc/docker/daemon.json").write_text('{"userns-remap": "x;touch made"}')
    with (tmp_path / "etc/subuid").open("a") as file:
        file.write("b$(touch made):965536:65536\n")
    (tmp_path / "etc/passwd").write_text("b$(touch made):x:1000:1000::/:/bin/sh\n")
    said = usernsplan("check", "--root", tmp_path, status=1).stdout
    found = re.findall(rf"(?:useradd|groupadd|usermod)(?: {WORD})+", said.replace(", ", " ; "))
    assert found
    named = [word for command in found for words in pasted(command) for word in words]
    assert "x;touch made" in named
    assert "b$(touch made)" in named


def test_nothing_else_quotes_for_a_shell() -> None:
    sources = (Path(__file__).parents[2] / "usernsplan").glob("**/*.py")
    assert [
        path.name for path in sources if re.search(r"shlex\.(quote|join)", path.read_text())
    ] == ["escape.py"]
