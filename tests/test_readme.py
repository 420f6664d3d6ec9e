"""README's blocks, run as they stand: what it shows is what happens."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import PROGRAM, needs_root, usernsplan
from usernsplan.cli.commands import COMMANDS

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SHELL = [block for kind, block in BLOCKS if kind == "sh"]
TEXT = [block for kind, block in BLOCKS if kind == "text"]
PYTHON = [block for kind, block in BLOCKS if kind == "python"]
YAML = [block for kind, block in BLOCKS if kind == "yaml"]
[FIXED] = [block for block in TEXT if block.startswith("/var/lib/content for web")]
[PLAN_FILE] = [block for block in YAML if "reservations:" in block]
[CONFIG] = [block for block in YAML if "publish: none" in block]
[PLAN] = [block for block in SHELL if "usernsplan plan" in block]


# What the commands of a block print, by a word of theirs.
PRINTED = {
    "render lxc box": "lxc.idmap = u 0 589824 65536\nlxc.idmap = g 0 589824 65536\n",
    "render lxc media": "lxc.idmap = g 107 104 1\n",
    "usernsplan adopt": "100000",
    "render podman --rootless": "--uidmap 0:55537:10000",
    "usernsplan remap web": "0 655360 131072",
    "render nspawn": "--private-users=589824:65536 --private-users-ownership=map --bind=/srv/web:/data\n",
    "podman run": "podman run --uidmap 0:589824:65536 --gidmap 0:589824:65536 docker.io",
    "usernsplan check": "No problems found.\nUSN001 (error): Lines of two owners grant the same ids",
    "whois 589857": "container web, container id 33",
    "usernsplan map": "pool",
    "usernsplan harden": "--cap-drop=all --cap-add=net_bind_service --security-opt no-new-privileges",
}


# What a host has before the commands of a block, by words of theirs.
ALICE = "alice:100000:65536\n"
LOGIN = {
    "etc/passwd": "alice:x:1000:1000::/home/alice:/bin/sh\n",
    "etc/subuid": ALICE,
    "etc/subgid": ALICE,
}
FILES = {
    "--pass": {"etc/group": "video:x:44:\nrender:x:104:\n"},
    "usernsplan adopt": LOGIN,
    "--within alice": LOGIN,
}
ALLOCATED = {"usernsplan rename": ("db", "web"), "usernsplan harden": ("web",)}


@pytest.fixture
def program(tmp_path: Path) -> dict[str, str]:
    """An environment in which ``usernsplan`` is this checkout, as it would be when installed."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "usernsplan").write_text(f'#!/bin/sh\nexec {" ".join(PROGRAM)} "$@"\n')
    (folder / "usernsplan").chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}


def test_the_first_command_works_in_a_fresh_clone_and_prints_what_is_shown(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    ignored = (".git", ".venv", "build", "demo-host", ".*_cache", "__pycache__", "*.egg-info")
    copy = [
        "tar",
        "-C",
        str(REPOSITORY),
        *(f"--exclude=./{name}" for name in ignored),
        "-cf",
        "-",
        ".",
    ]
    clone.mkdir()
    packed = subprocess.run(copy, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-C", clone, "-xf", "-"], input=packed, check=True)
    done = subprocess.run(
        ["bash", "-c", SHELL[0]],
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        # What is installed runs once.
        env={**os.environ, "PIP_NO_COMPILE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == TEXT[0]
    assert (
        clone / "demo-host/etc/subuid"
    ).read_text() == "usernsplan-web:589824:65536\nusernsplan-db:655360:65536\n"


def test_the_second_command_is_the_one_that_ci_runs() -> None:
    assert SHELL[1].endswith("-m pytest\n")
    found = subprocess.run(
        ["grep", "-m1", "-E", "^python3 .*-m pytest$", REPOSITORY / "README.md"],
        capture_output=True,
        check=True,
    )
    assert found.stdout.decode() == SHELL[1]


@pytest.mark.parametrize(
    "block",
    [block for block in SHELL[2:] if block != PLAN],
    ids=lambda block: block.splitlines()[0],
)
def test_each_command_for_real_use_works_on_another_root(
    block: str, program: dict[str, str], tmp_path: Path
) -> None:
    """The same lines with --root added; starting engines is left to tests/engines."""
    root = tmp_path / "host"
    volume = root / "var/lib/content"
    for name in ("etc", "srv"):
        (root / name).mkdir(parents=True)
    if "-volume" in block:
        if os.geteuid():
            pytest.skip("only root can give files away")
        volume.mkdir(parents=True)
        (volume / "index.html").write_text("hello")
        shutil.copy("/bin/true", volume / "tool")
        (volume / "tool").chmod(0o4755)
        usernsplan("allocate", "--strategy", "per-container", "web", "--root", root)
    prepared(root, block)
    script = 'podman() { echo podman "$@"; }\nsystemctl() { echo systemctl "$@"; }\n' + below(
        root, block
    )
    done = subprocess.run(
        run_by(script, root),
        env=program,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    # Whoever is not root cannot add Docker's user: that is left to do, and said.
    assert done.returncode == (3 if os.geteuid() and "restart docker" in block else 0), done.stderr
    if "mount-volume" in block:
        # The disk is as it was.
        assert {path.stat().st_uid for path in (volume, *volume.iterdir())} == {0}
        shown = " ".join(next(block for block in TEXT if "idmap     shift" in block).split())
        assert " ".join(done.stdout.replace(str(root), "").split()).count(shown.rpartition("- ")[2])
        return
    if "fix-volume" in block:
        owner = 0 if "--reverse" in block else 589824
        assert {path.stat().st_uid for path in (volume, *volume.iterdir())} == {owner}
        assert (volume / "tool").stat().st_mode & 0o7777 == 0o4755
        if "--reverse" not in block:
            assert told(done.stdout) == told(FIXED)
        return
    assert all(text in done.stdout for word, text in PRINTED.items() if word in block)
    if "render lxc box" in block:
        assert (
            root / "etc/subuid"
        ).read_text() == "usernsplan-box:589824:65536\nroot:589824:32768\nroot:622592:32768\n"
    elif "nspawn" in block:
        written = (tmp_path / "config/etc/containers/systemd/web.container").read_text()
        assert "Image=docker.io/library/nginx\nUIDMap=0:589824:65536\n" in written
    elif "restart docker" in block:
        assert (root / "etc/docker/daemon.json").exists() == (os.geteuid() == 0)


def run_by(script: str, root: Path) -> list[str]:
    """The command that runs a script. Nobody else sees its mounts, and it leaves none behind."""
    words = ["bash", "-euc", script]
    if "mount-volume" in script:
        words = ["unshare", "-m", *words[:-1], f"{script}\n! grep -F {root} /proc/self/mountinfo"]
    return words


def prepared(root: Path, block: str) -> None:
    """Give the host what the commands of a block find there."""
    for words, files in FILES.items():
        for name, text in files.items() if words in block else ():
            (root / name).write_text(text)
    for words, names in ALLOCATED.items():
        if words in block:
            usernsplan("allocate", "--strategy", "per-container", *names, "--root", root)


def below(root: Path, block: str) -> str:
    """The same commands with --root added."""
    return "\n".join(
        re.sub(r"(usernsplan [\w-]+)", rf"\1 --root {root}", line) for line in block.splitlines()
    )


@needs_root
def test_the_plan_file_becomes_what_the_host_has(program: dict[str, str], tmp_path: Path) -> None:
    root, file = tmp_path / "host", PLAN_FILE
    (tmp_path / "usernsplan.yaml").write_text(file)
    for name in ("etc", "srv/web", "srv/db", "srv/rootfs"):
        (root / name).mkdir(parents=True)
    # Who pastes it is asked; here nobody is.
    script = below(root, PLAN.replace("--fix-volumes", "--fix-volumes --yes"))
    words = ["bash", "-euc", script]
    done = subprocess.run(
        words, env=program, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Already up to date: the host matches usernsplan.yaml.\n")
    # web, db and cache in that order, past what is reserved; db is 131072 wide.
    assert {
        line
        for line in (root / "etc/subuid").read_text().splitlines()
        if not line.startswith("root:")
    } == {
        *(
            "usernsplan-web:589824:65536",
            "usernsplan-db:851968:131072",
            "usernsplan-cache:655360:65536",
        ),
    }
    assert '"userns-remap": "usernsplan-web"' in (root / "etc/docker/daemon.json").read_text()
    assert (root / "srv/web").stat().st_uid == 589824
    usernsplan("plan", "--check", "--root", root, cwd=tmp_path, env=program)
    usernsplan("allocate", "--check", "--root", root, cwd=tmp_path, env=program)
    exported = usernsplan("export", "--root", root).stdout
    (tmp_path / "usernsplan.yaml").write_text(exported)
    usernsplan("plan", "--check", "--prune", "--root", root, cwd=tmp_path, env=program)


@needs_root
def test_the_defaults_of_a_host_are_used(tmp_path: Path) -> None:
    config = tmp_path / "etc/usernsplan/config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(CONFIG)
    usernsplan("allocate", "web", "--strategy", "per-container", "--root", tmp_path)
    lines = (tmp_path / "etc/subuid").read_text().splitlines()
    assert "usernsplan-web:1048576:131072" in lines
    assert any(line.startswith("containers:") for line in lines)


def told(report: str) -> list[str]:
    """A report of fix-volume as README shows it, without where, when and how long."""
    lines = report[report.index("/var/lib/content for") :].splitlines()
    return [re.sub(r"[\d.]+ s$|undo .*", "", line) for line in lines]


def test_the_library_example_prints_the_host_id_of_www_data(tmp_path: Path) -> None:
    [code] = PYTHON
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout == f"{589824 + 33}\n"


def test_the_provisioning_example_can_be_run_twice(program: dict[str, str], tmp_path: Path) -> None:
    script = REPOSITORY / "examples/provision.sh"
    words, env = (
        [str(script), "web=nginx", "db=postgres"],
        {**program, "ROOT": str(tmp_path / "image")},
    )
    first = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout
    assert "+usernsplan-db:655360:65536" in first
    again = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout
    assert "Already up to date" in again


def test_every_command_has_help_with_an_example() -> None:
    for command in COMMANDS:
        assert "Example" in usernsplan(command, "--help").stdout, command
