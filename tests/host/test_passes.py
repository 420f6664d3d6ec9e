"""Ids that pass through, on the command line and in plan files: from the words to the files and back."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.command import files_of, here

if TYPE_CHECKING:
    from pathlib import Path

ALLOCATE = ("allocate", "--strategy", "per-container", "web")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    etc = tmp_path / "host/etc"
    etc.mkdir(parents=True)
    (etc / "passwd").write_text("root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n")
    (etc / "group").write_text(
        "root:x:0:\nalice:x:1000:\nrender:x:104:\ndocker:x:998:\nsudo:x:27:alice\n"
    )
    for name in ("subuid", "subgid"):
        (etc / name).write_text("alice:100000:65536\n")
    return tmp_path / "host"


def etc(root: Path, name: str) -> str:
    return (root / "etc" / name).read_text()


def test_from_the_words_to_the_files_and_back(root: Path) -> None:
    words = ("--pass", "u:1000", "--pass", "g:render:107", "--engine", "lxc", "--root", root)
    _, told = here(*ALLOCATE, *words)
    assert (
        "uid 1000 (account alice, a member of sudo); gid 104 (group render) as container gid 107"
        in told
    )
    assert etc(root, "subuid") == (
        "alice:100000:65536\n"
        "usernsplan-web:589824:1000\nusernsplan-web:1000:1\nusernsplan-web:590825:64535\n"
        "root:589824:1000\nroot:1000:1\nroot:590825:64535\n"
    )
    assert etc(root, "subgid") == (
        "alice:100000:65536\n"
        "usernsplan-web:589824:107\nusernsplan-web:104:1\nusernsplan-web:589932:65428\n"
        "root:589824:107\nroot:104:1\nroot:589932:65428\n"
    )
    before = files_of(root / "etc")
    out, _ = here(*("allocate", "web", "--pass", "g:104:107", "--pass", "u:alice", "--root", root))
    assert "Already up to date" in out
    assert files_of(root / "etc") == before

    out, _ = here("export", "--root", root)
    assert "  pass:\n  - 'u:1000'\n  - 'g:104:107'\n" in out
    (root / "plan.yaml").write_text(out)
    assert "Already up to date" in here("plan", root / "plan.yaml", "--root", root)[0]

    _, told = here("allocate", "web", "--root", root, status=9)
    assert "'web' is allocated already, with other passes: u:1000, g:104:107" in told
    here("release", "web", "--root", root)
    for name in ("subuid", "subgid"):
        assert etc(root, name) == "alice:100000:65536\n"


def test_a_mighty_group_needs_its_own_flag_and_a_script_does_not_get_it_by_yes(root: Path) -> None:
    before = files_of(root)
    words = (*ALLOCATE, "--pass", "g:docker", "--root", root)
    _, told = here(*words, "--yes", status=9)
    assert "--pass: host gid 998 is docker, which starts containers as the host's root" in told
    assert "use --pass-privileged" in told
    assert files_of(root) == before
    _, told = here(*words, "--pass-privileged")
    assert "[USN157]" in told
    # It stands now, and the same command does not ask again.
    assert "Already up to date" in here(*words)[0]


def test_a_plan_file_says_it_itself(root: Path) -> None:
    plan = root / "plan.yaml"
    said = "strategy: per-container\ncontainers:\n- name: web\n  pass: ['g:docker:5']\n"
    plan.write_text(said)
    _, told = here("apply", plan, "--yes", "--root", root, status=9)
    assert f"{plan}:4: containers[0].pass: host gid 998 is docker" in told
    assert "write 'pass-privileged: true' for this one" in told
    plan.write_text(f"{said}  pass-privileged: true\n")
    out, _ = here("apply", plan, "--yes", "--root", root)
    assert "passes g 998->5" in out
    assert "usernsplan-web:998:1\n" in etc(root, "subgid")
    # An option does not change what a file says.
    (root / "etc/usernsplan.yaml").write_text(said)
    _, told = here("allocate", "--pass-privileged", "--root", root, status=2)
    assert "sets what is allocated" in told


def test_wrong_passes_change_nothing(root: Path) -> None:
    before = files_of(root)
    for shown, status, said in (
        ("u:alcie", 2, "did you mean alice?"),
        ("render", 2, "'render' is no pass"),
        ("u:100005", 9, "granted by a line of"),
        ("b:render", 2, "write g:render"),
    ):
        _, told = here(*ALLOCATE, "--pass", shown, "--root", root, status=status)
        assert said in told
    assert files_of(root) == before


def add_bob(root: Path) -> None:
    for name, line in (("passwd", "bob:x:1001:1002::/home/bob:/bin/sh"), ("group", "bob:x:1002:")):
        with (root / "etc" / name).open("a") as file:
            file.write(f"{line}\n")


def test_a_logins_own_id_gets_no_line_and_the_remedy_works_when_it_is_pasted(root: Path) -> None:
    """Podman refuses every command of an account whose lines have its own id; newuidmap needs none."""
    add_bob(root)
    before = files_of(root)
    for shown, said in (
        ("u:1001", "uid 1001 is bob's own"),
        ("b:1000-1005", "uid 1001 is bob's own"),
        ("g:bob:5", "gid 1002 is bob's own"),
    ):
        words = ("--owner", "bob", "--pass", shown, "--root", root)
        _, told = here(*ALLOCATE, *words, status=9)
        assert said in told
        assert files_of(root) == before
    _, told = here(*ALLOCATE, "--owner", "bob", "--pass", "u:1001:7", "--root", root, status=9)
    commands = told.partition("it passes without a line: ")[2].splitlines()[0].split(" && ")
    for command in commands:
        here(*command.split()[1:])
    lines = "alice:100000:65536\nbob:589824:65536\n"
    assert (etc(root, "subuid"), etc(root, "subgid")) == (lines, lines)
    shown_map, _ = here("render", "podman", "--rootless", "web", "--root", root)
    assert "--uidmap 7:0:1" in shown_map

    # What is not her own, and what is Docker's, gets lines as ever.
    here("allocate", "other", "--owner", "carl", "--pass", "u:1001", "--root", root)
    assert "carl:1001:1\n" in etc(root, "subuid")


def test_a_remap_refuses_a_logins_own_id_too(root: Path) -> None:
    add_bob(root)
    here(*ALLOCATE, "--owner", "bob", "--root", root)
    _, told = here("remap", "web", "--pass", "u:1001", "--yes", "--root", root, status=9)
    assert "uid 1001 is bob's own" in told
    command = told.partition("it passes without a line: ")[2].splitlines()[0]
    here(*command.replace("NEW", "web2").split()[1:])
    assert etc(root, "subuid") == "alice:100000:65536\nbob:589824:65536\n"


def test_a_pass_and_a_slice_need_no_strategy_because_only_one_has_them(root: Path) -> None:
    other = root.with_name("other")
    shutil.copytree(root, other)
    here("allocate", "web", "--pass", "u:1000", "--root", root)
    here("allocate", "db", "--within", "alice", "--size", "9", "--root", other)
    for host in (root, other):
        assert "per-container" in here("list", "--root", host)[0]
    _, told = here("allocate", "db", "--block", "9", "--pass", "u:1", "--root", root, status=2)
    assert "not an option of the strategy per-container" in told
