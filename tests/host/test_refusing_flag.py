"""A failed render starts no container, with the documented shell pattern and without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import files_of, json_of, slow, usernsplan

REFUSING = "--userns=usernsplan-failed"
# How each engine is called: first the rendered flags, then what to run.
CALLS = {
    "podman": "podman run {} image",
    "containerd": "ctr run {} image id",
    "nspawn": "systemd-nspawn {} -D /tree",
}
PROGRAMS = {"podman": "podman", "containerd": "ctr", "nspawn": "systemd-nspawn"}
ENGINES = pytest.mark.parametrize("engine", ["podman", *slow("containerd", "nspawn")])
# usernsplan, which gets a signal after its start.
STRUCK = """
import os, signal, sys
from usernsplan import rendering
from usernsplan.cli import main
# A shell starts what runs in the background with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
rendering.rendering = lambda *_: os.kill(os.getpid(), int(os.environ["STRUCK"])) or sys.stdin.read()
main()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "host"
    usernsplan(
        "allocate", "web", "--strategy", "per-container", "--root", root, "--engine", "podman"
    )
    return root


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A PATH of engines that log their arguments, and refuse what the real ones refuse."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for program in PROGRAMS.values():
        (folder / program).write_text(
            f'#!/bin/sh\necho "$0 $*" >>{tmp_path}/started\ncase " $* " in *" {REFUSING} "*) exit 125;; esac\n'
        )
        (folder / program).chmod(0o755)
    return folder


def shell(script: str, path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", script],
        env={"PATH": str(path), "PYTHONPATH": str(Path(__file__).parents[2]), **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def started(path: Path) -> list[list[str]]:
    """The arguments with which engines were started."""
    file = path.parent / "started"
    return [line.split()[1:] for line in file.read_text().splitlines()] if file.exists() else []


def install(path: Path, *words: str) -> None:
    (path / "usernsplan").write_text(f"#!/bin/sh\nexec {sys.executable} {' '.join(words)}\n")
    (path / "usernsplan").chmod(0o755)


def documented(engine: str, rendering: str) -> str:
    return f"flags=$({rendering}) && {CALLS[engine].format('$flags')}"


def unsafe(engine: str, rendering: str) -> str:
    return CALLS[engine].format(f"$({rendering})")


@ENGINES
def test_the_documented_pattern_starts_an_engine_only_with_flags(
    root: Path, path: Path, engine: str
) -> None:
    install(path, "-m", "usernsplan", '"$@"')
    words = f"usernsplan render {engine} NAME --root {root}"
    assert shell(documented(engine, words.replace("NAME", "wbe")), path).returncode == 1
    assert started(path) == []
    assert shell(documented(engine, words.replace("NAME", "web")), path).returncode == 0
    [given] = started(path)
    assert any("589824" in word for word in given)


@ENGINES
def test_a_program_that_is_missing_starts_nothing(root: Path, path: Path, engine: str) -> None:
    assert (
        shell(documented(engine, f"usernsplan render {engine} web --root {root}"), path).returncode
        == 127
    )
    assert started(path) == []


@ENGINES
@pytest.mark.parametrize("signal", [9, *slow(15, 2)])
def test_a_kill_starts_nothing(root: Path, path: Path, engine: str, signal: int) -> None:
    (path / "struck.py").write_text(STRUCK)
    install(path, str(path / "struck.py"), '"$@"')
    done = shell(
        documented(engine, f"usernsplan render {engine} web --root {root}"),
        path,
        STRUCK=str(signal),
    )
    assert done.returncode == {9: 137, 15: 143, 2: 130}[signal], done.stderr
    assert started(path) == []


@ENGINES
@pytest.mark.parametrize(
    "words",
    [
        "render ENGINE wbe",
        *slow(
            "render ENGINE",
            "render ENGINEE web",
            "render ENGINE web --volume",
            "rendr ENGINE web",
            "render",
        ),
    ],
)
def test_without_the_pattern_an_error_gives_the_engine_a_flag_that_it_refuses(
    root: Path, path: Path, engine: str, words: str
) -> None:
    install(path, "-m", "usernsplan", '"$@"')
    done = shell(
        unsafe(engine, f"usernsplan {words.replace('ENGINE', engine)} --root {root}"), path
    )
    assert done.returncode == 125, done.stderr
    [given] = started(path)
    assert REFUSING in given
    assert not any("589824" in word for word in given)
    assert done.stderr != ""


@pytest.mark.parametrize("signal", [15, *slow(2, 1)])
def test_without_the_pattern_a_request_to_stop_does_so_too(
    root: Path, path: Path, signal: int
) -> None:
    (path / "struck.py").write_text(STRUCK)
    install(path, str(path / "struck.py"), '"$@"')
    shell(unsafe("podman", f"usernsplan render podman web --root {root}"), path, STRUCK=str(signal))
    assert started(path) == [["run", REFUSING, "image"]]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("podman", "wbe"), 1),
        (("podman-auto", "web"), 9),
        (("nspawn", "web", "--rootless"), 2),
        (("containerd", "web", "--image", "x y"), 2),
        (("podman", "web", "--volume", "x"), 2),
        (("podman", "web", "--bundle", "/"), 2),
        (("podman", "web", "--volum", "x"), 2),
        (("podman", "web", "--replace-files"), 2),
        (("podman", "web", "more"), 2),
        (("rootless", "web"), 9),
    ],
)
def test_every_error_prints_one_flag_and_nothing_else(
    root: Path, words: tuple[str, ...], status: int
) -> None:
    before = files_of(root)
    done = usernsplan("render", *words, "--root", root, status=status)
    assert done.stdout == f"{REFUSING}\n"
    assert done.stderr != ""
    assert files_of(root) == before


def test_a_damaged_ledger_does_so_too(root: Path) -> None:
    (root / "var/lib/usernsplan/ledger.sqlite3").write_bytes(b"no database" * 1000)
    assert usernsplan("render", "podman", "web", "--root", root, status=1).stdout == f"{REFUSING}\n"


def test_json_out_and_what_is_no_flags_have_none(root: Path, tmp_path: Path) -> None:
    failed = usernsplan("render", "podman", "wbe", "--json", "--root", root, status=1)
    assert json.loads(failed.stdout)["error"]["code"] == "unknown-name"
    for words in (
        ("nspawn", "wbe", "--out", tmp_path / "out"),
        ("lxc", "wbe"),
    ):
        assert usernsplan("render", *words, "--root", root, status=1).stdout == ""
    assert not (tmp_path / "out").exists()
    assert REFUSING not in usernsplan("render", "podman", "web", "--root", root).stdout
    assert json_of("render", "podman", "web", "--root", root)["text"].startswith("--uidmap")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_result_that_cannot_be_printed_is_an_error(root: Path, path: Path) -> None:
    install(path, "-m", "usernsplan", '"$@"')
    assert shell(f"usernsplan render podman web --root {root} >/dev/full", path).returncode == 1
