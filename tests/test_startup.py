"""The imports of each command: a library that it does not need would slow every start."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.command import needs_root

if TYPE_CHECKING:
    from pathlib import Path

CODE = (
    "import sys\nbefore = {*sys.modules}\nfrom usernsplan.cli import main\n"
    "try:\n    main()\nexcept SystemExit:\n    pass\n"
    "print(*sys.modules.keys() - before, file=sys.stderr)"
)
# What a command with plain words never needs: libraries, and slow modules of the standard library.
HEAVY = {
    *(
        "pydantic",
        "rich",
        "sqlalchemy",
        "yaml",
        "jsonschema",
        "typer",
        "click",
        "tabulate",
        "psycopg",
    ),
    *("usernsplan.ledger.fleet", "usernsplan.ledger.postgres", "usernsplan.ledger.received"),
    *("usernsplan.joining", "usernsplan.syncing"),
    *("dataclasses", "inspect", "subprocess", "threading", "hashlib", "urllib.parse"),
}
if sys.version_info >= (3, 11):  # before, a whole database is read and written as a file
    HEAVY.add("tempfile")
# The library for tables, and what it imports.
TABLE = {"tabulate", "dataclasses", "inspect"}
# useradd makes Docker's user; a page has the digests of its style and script.
NEEDED: dict[tuple[str, ...], set[str]] = {
    ("allocate", "--strategy", "per-container", "web"): TABLE,
    ("allocate", "--strategy", "per-container"): TABLE | {"subprocess", "threading"},
    ("capacity",): TABLE,
    ("map", "--html", "-"): {"hashlib", "inspect", "tempfile", "threading", "urllib.parse"},
}
VOLUMES = {"usernsplan.volume.fix", "usernsplan.volume.workers"}


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (("list",), VOLUMES),
        (("list", "--json"), set()),
        (("history", "--json"), set()),
        (
            ("allocate", "--strategy", "per-container", "web"),
            {"usernsplan.planfile", "usernsplan.formats.spec"} | VOLUMES,
        ),
        (
            ("allocate", "--strategy", "per-container"),
            {"usernsplan.planfile", "usernsplan.formats.spec"} | VOLUMES,
        ),
        (("allocate", "--strategy", "per-container", "web", "--json"), set()),
        (("map",), set()),
        (("map", "--json"), set()),
        (("map", "--html", "-"), set()),
        (("capacity",), set()),
        (("capacity", "--json"), set()),
        (("release", "nothing"), set()),
        (("check",), {"usernsplan.volume.owned"}),
        (("check", "--json"), {"usernsplan.apply"}),
        (("whois", "1310753"), {"ctypes"}),
        (("whois", "1310753", "--json"), {"ctypes"}),
        (("whois", "--container", "web", "33"), {"ctypes"}),
        (("find-owned", "nothing", "/"), set()),
        (("undo", "nothing"), set()),
        (("undo", "nothing", "--json"), set()),
    ],
)
def test_a_command_does_not_import_what_it_does_not_need(
    tmp_path: Path, words: tuple[str, ...], more: set[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words, "--root", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "usernsplan.cli.commands" in loaded
    assert loaded & (HEAVY - NEEDED.get(words, set()) | more) == set()


# What only some hosts or some commands need: the formats of programs that are not here, the requests
# of fix-volume, and what asks this machine alone.
OF_PROGRAMS = {
    "usernsplan.formats.kubelet_config",
    "usernsplan.formats.lxc",
    "usernsplan.formats.nspawn_file",
}


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (("list",), {"usernsplan.formats.accounts", "usernsplan.formats.userdb"}),
        (("whois", "1310753"), {"usernsplan.formats.daemon_json", "usernsplan.host.mounts"}),
        (("allocate", "--strategy", "per-container", "web", "--dry-run"), set()),
        (("release", "nothing"), set()),
        (("map",), set()),
    ],
)
def test_a_host_without_a_program_does_not_load_its_formats(
    tmp_path: Path, words: tuple[str, ...], more: set[str]
) -> None:
    (tmp_path / "etc").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words, "--root", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "usernsplan.model" in loaded
    assert (
        loaded & (OF_PROGRAMS | {"usernsplan.fixing", "usernsplan.host.statmount"} | more) == set()
    )


@pytest.mark.parametrize(
    ("path", "text", "module"),
    [
        ("var/lib/lxc/web/config", "lxc.idmap = u 0 100000 65536\n", "lxc"),
        ("etc/systemd/nspawn/web.nspawn", "[Exec]\nPrivateUsers=655360:65536\n", "nspawn_file"),
    ],
)
def test_a_host_with_a_program_loads_its_formats(
    tmp_path: Path, path: str, text: str, module: str
) -> None:
    for folder in (tmp_path / "etc", (tmp_path / path).parent):
        folder.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(text)
    loaded = imported_by("whois", "655360", "--root", tmp_path)
    assert f"usernsplan.formats.{module}" in loaded


@pytest.mark.parametrize("words", [("1",), ("--all",)])
def test_inspect_imports_no_library_but_for_its_table(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, "inspect", *words], capture_output=True, text=True, check=True
    )
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "usernsplan.cli.inspect" in loaded
    # Neither the planner nor the volume fixer. ctypes only while a mount somewhere has an id map,
    # which other tests make on this machine.
    unneeded = {"usernsplan.planner", "usernsplan.volume"} | HEAVY - TABLE
    assert loaded & unneeded == set()


PLAN = (
    "strategy: per-container\nengines: [podman]\ncontainers: [{name: web, volumes: [/srv/web]}]\n"
)


@pytest.mark.parametrize(
    "words", [("plan",), ("plan", "--json"), ("plan", "--check"), ("apply", "--yes"), ("allocate",)]
)
def test_a_plan_file_needs_yaml_and_no_other_library(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/usernsplan.yaml").write_text(PLAN)
    loaded = imported_by(*words, "--root", tmp_path)
    assert "yaml" in loaded
    needed = {"yaml"} | (TABLE if words == ("allocate",) else set())
    assert loaded & (HEAVY - needed) == set()


@pytest.mark.parametrize("words", [("export", "--json"), ("export",), ("plan", "--schema")])
def test_what_reads_no_plan_file_needs_no_other_library(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "etc").mkdir()
    assert imported_by(*words, "--root", tmp_path) & (HEAVY - {"yaml"}) == set()


def test_help_and_wrong_usage_import_typer_and_no_command() -> None:
    for words in (["--help"], ["lisst"], ["--version"]):
        done = subprocess.run(
            [sys.executable, "-c", CODE, *words], capture_output=True, text=True, check=True
        )
        loaded = set(done.stderr.splitlines()[-1].split())
        assert ("typer" in loaded) == (words != ["--version"])
        assert loaded & {"rich", "usernsplan.cli.show", "usernsplan.host.files"} == set()


MAPS = ("--uid-map", "0:100000:65536", "--gid-map", "0:100000:65536")


def imported_by(*words: str | Path) -> set[str]:
    """All modules that a successful command has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words], capture_output=True, text=True, check=True
    )
    assert done.stdout
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_preview_of_fix_volume_needs_no_libraries(tmp_path: Path, more: tuple[str, ...]) -> None:
    for name in ("etc", "srv/vol"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "srv/vol").chmod(0o755)
    (tmp_path / "srv/vol/file").touch()
    words = ("fix-volume", "/srv/vol", *MAPS, "--unmapped", "keep", "--dry-run", *more)
    loaded = imported_by(*words, "--root", tmp_path)
    assert "usernsplan.volume.workers" in loaded
    assert loaded & HEAVY == set()


@needs_root
def test_fix_volume_and_undo_need_no_libraries(tmp_path: Path) -> None:
    for name in ("etc", "srv/vol"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "srv/vol/file").touch()
    for _ in range(2):
        loaded = imported_by("fix-volume", "/srv/vol", *MAPS, "--root", tmp_path)
        assert "usernsplan.volume.workers" in loaded
        assert loaded & HEAVY == set()
    [run] = (name for name in os.listdir(tmp_path / "var/lib/usernsplan/runs") if name != "lock")
    loaded = imported_by("undo", run, "--root", tmp_path)
    assert loaded & HEAVY == set()
