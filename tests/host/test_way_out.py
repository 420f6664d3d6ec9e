"""The output of every command, in every form, on a host with deceptive names and lines."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.command import here, needs_root, usernsplan

EVIL = "a\n::error::x\r\x1b[31m\x7f\x9b2J\u202e\udcff##[error]"
# A line of a file without its end.
LINE = EVIL.replace("\n", "").replace("#", "").encode("utf-8", "surrogateescape").replace(b":", b"")


def check_text(shown: str) -> None:
    """No byte acts on a terminal, and no line begins with text from a name."""
    assert all(character.isprintable() or character in "\n\t" for character in shown), shown
    assert not [line for line in shown.split("\n") if line.lstrip().startswith("::error::")], shown


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / EVIL
    (made / "etc").mkdir(parents=True)
    for name in ("subuid", "subgid"):
        (made / "etc" / name).write_bytes(
            b"alice:100000:65536\n" + LINE + b":300000:65536\n" + LINE + b"\n"
        )
    (made / "etc/passwd").write_bytes(
        b"root:x:0:0::/:\n" + LINE + b":x:1000:1000::/home/" + LINE + b":\n"
    )
    (made / "etc/group").write_bytes(LINE + b":x:1000:" + LINE + b"\n")
    return made


def test_every_command_in_every_form(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / EVIL.replace("/", "")).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / EVIL)
    Path("usernsplan.yaml").write_text(
        "strategy: per-container\nengines: [podman]\ncontainers: [web]\n"
    )
    plan = Path("usernsplan.yaml").absolute()
    for words in (
        ("plan",),
        ("allocate", "--dry-run"),
        ("plan", "--out", Path(EVIL).absolute()),
        ("apply", "--yes"),
        ("apply", plan, "--yes"),
        ("allocate", "--strategy", "per-container", "db", "--engine", "podman"),
        ("list",),
        ("show", "web"),
        ("map",),
        ("map", "--svg", "-"),
        ("map", "--html", "-"),
        ("capacity",),
        ("export",),
        ("render", "oci", "web"),
        ("render", "podman", "web", "--out", tmp_path / EVIL / EVIL),
        ("check",),
        ("check", "--format", "github"),
        ("check", "--fix", "--dry-run"),
        ("check", "--fix", "--dry-run", "--format", "github"),
        ("whois", "300000", "1000", "589824"),
        ("whois", "--file", root / "etc"),
        ("find-owned", "web", root),
        ("release", "db"),
        ("release", "--forget", "db"),
        ("history",),
        ("history", "--prune-runs", "--older-than", "1d"),
        ("undo", "nothing"),
    ):
        for more in ((), ("--json",)):
            if more and ({"--format", "-", "undo"} & set(words)):
                continue
            out, err = here(*words, *more, "--root", root, status=None)
            check_text(out)
            check_text(err)
            assert "Traceback" not in err
            if more and out:
                assert out.isascii()
                json.loads(out)
            if "github" in words:
                assert all(line.startswith("::") for line in out.splitlines())
    told, _ = here("history", "--root", root)
    assert told.count("+ usernsplan-web:589824:65536") == 2


def test_json_has_the_very_names(root: Path) -> None:
    here("allocate", "--strategy", "per-container", "web", "--root", root, "--engine", "podman")
    entries = json.loads(here("history", "--json", "--root", root)[0])["entries"]
    assert any(
        changed.startswith(str(root).encode("utf-8", "backslashreplace").decode())
        for changed in entries[0]["lines"]
    )


@needs_root
@pytest.mark.usefixtures("volume_step")
def test_a_volume_with_such_names(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    here("allocate", "--strategy", "per-container", "web", "--root", root, "--engine", "podman")
    volume = root / "srv" / EVIL
    volume.mkdir(parents=True)
    (volume / EVIL).touch()
    (volume / "other").symlink_to(EVIL)
    os.chown(volume / EVIL, 4_000_000, 0)
    for words in (
        ("fix-volume", volume, "--container", "web", "--mode", "shift"),
        ("fix-volume", volume, "--container", "web", "--dry-run"),
        ("fix-volume", volume, "--container", "web"),
        ("fix-volume", volume, "--container", "web", "--json"),
        ("fix-volume", volume / EVIL, "--container", "web"),
        ("list",),
        ("list", "--json"),
        ("show", "web"),
        ("check", "--volumes"),
        ("find-owned", "web", root / "srv"),
        ("find-owned", "web", root / "srv", "--json"),
        ("find-owned", "web", root / "srv", "--count"),
        ("whois", "--file", volume / EVIL),
        ("export",),
        ("export", "--json"),
        ("history",),
        ("history", "--json"),
    ):
        out, err = here(*words, "--root", root, status=None)
        check_text(out)
        check_text(err)
        if "--json" in words:
            assert out.isascii()
            json.loads(out)
    found = usernsplan("find-owned", "web", root / "srv", "--null", "--root", root).stdout
    # The helper reads in text mode, where a CR ends a line.
    assert EVIL.replace("\r", "\n") + "\0" in found
    entries = json.loads(here("history", "--json", "--root", root)[0])["entries"]
    assert all(entry["command"].isprintable() for entry in entries)
    assert any('fix-volume "`printf' in entry["command"] for entry in entries)
