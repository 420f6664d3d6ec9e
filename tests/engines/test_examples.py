"""What lies in examples/, run as it stands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.command import PROGRAM, missing
from tests.engines import recipes
from tests.engines.throwaway import SEARCH_PATH, require

if TYPE_CHECKING:
    from tests.engines.throwaway import ThrowawayHost

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def installed(host: ThrowawayHost) -> None:
    """``usernsplan`` as a program of the host."""
    host.write(
        "/usr/local/bin/usernsplan",
        f'#!/bin/sh\nexec {sys.executable} -m usernsplan "$@"\n',
        mode=0o755,
    )


# The container's root, its map and the owner of the file that it makes, by the strategy's definition.
@pytest.mark.parametrize(
    ("strategy", "lines", "owner"),
    [
        ("per-container", [(0, 589824, 65536)], "589824:589824"),
        ("single-uid", [(0, 1000000000, 1)], "1000000000:1000000000"),
        ("shared", [(0, 2, 1), (3, 3, 65533)], "2:2"),
    ],
)
def test_the_demo_of_each_strategy(
    host: ThrowawayHost, strategy: str, lines: list[tuple[int, int, int]], owner: str
) -> None:
    require("crun", "busybox")
    installed(host)
    before = host.run("ls", "/tmp", "/etc").stdout
    said = host.run(str(EXAMPLES / "demo.sh"), strategy).stdout
    inside, outside = said.split("--- in the container: its uid and its map\n")[1].split(
        "--- on the host: the owner of its file\n"
    )
    assert inside.splitlines()[0] == "0"
    assert recipes.lines(inside.partition("\n")[2]) == lines
    assert outside.strip() == owner
    assert host.run("ls", "/tmp", "/etc").stdout == before


def test_the_cloud_config_does_what_it_says_and_may_run_again(host: ThrowawayHost) -> None:
    installed(host)
    host.write(
        "/usr/bin/systemctl", "#!/bin/sh\necho systemctl $@ >>/tmp/systemctl.log\n", mode=0o755
    )
    raw = (EXAMPLES / "cloud-init.yaml").read_text()
    assert raw.startswith("#cloud-config\n")
    commands: list[list[str]] = yaml.safe_load(raw)["runcmd"]
    for command in commands:
        host.run(*command)
    assert host.owner("/srv/web") == (589824, 589824)
    assert host.owner("/srv/db") == (655360 + 999, 655360 + 999)
    written = host.read("/etc/containers/systemd/db.container").decode()
    assert "UIDMap=0:655360:65536\n" in written
    assert "Image=docker.io/library/postgres\n" in written
    # A volume that is the container's already needs no idmap and no :U.
    assert "Volume=/srv/db:/var/lib/postgresql/data\n" in written
    assert host.read("/tmp/systemctl.log") == b"systemctl daemon-reload\nsystemctl start web db\n"
    for command in commands[:-1]:
        again = host.run(*command).stdout
        assert (
            command[0] != "usernsplan" or "Already up to date" in again or "changed 0" in again
        ), command


def test_the_plan_file_is_what_the_host_has_then(host: ThrowawayHost) -> None:
    installed(host)
    file = str(EXAMPLES / "usernsplan.yaml")
    for name in ("web", "db", "db-rootfs"):
        host.run("install", "-d", f"/srv/{name}")
        host.write(f"/srv/{name}/file", name)
    # The kernel does not map the ids of an overlay.
    host.run("install", "-d", "/srv/cache")
    host.run("mount", "-t", "tmpfs", "tmpfs", "/srv/cache")
    host.write("/srv/cache/file", "cache")
    host.run("usernsplan", "apply", file, "--yes", "--fix-volumes")
    # web and cache first, being of one size; db past what is reserved.
    assert host.read("/etc/subuid").decode().splitlines() == [
        *(
            "usernsplan-web:589824:65536",
            "usernsplan-db:851968:131072",
            "usernsplan-cache:655360:65536",
        ),
    ]
    assert [host.owner(f"/srv/{name}/file")[0] for name in ("web", "db", "db-rootfs")] == [
        *(589824, 851968 + 999, 851968),
    ]
    at = "/run/usernsplan/volumes/cache/srv-cache"
    assert [host.owner(f"{place}/file")[0] for place in (at, "/srv/cache")] == [655360, 0]
    assert not host.exists("/etc/docker/daemon.json")
    host.run("usernsplan", "plan", file, "--check", "--prune")
    exported = host.run("usernsplan", "export").stdout
    host.run("usernsplan", "plan", "-", "--check", "--prune", input=exported)


def test_the_playbook_reports_what_it_changed_and_nothing_the_second_time(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give files away")
    program = shutil.which("ansible-playbook", path=f"{SEARCH_PATH}:{os.environ['PATH']}")
    if program is None:
        missing("ansible-playbook")
    (tmp_path / "usernsplan").write_text(
        f'#!/bin/sh\ncd {EXAMPLES.parent} && exec {" ".join(PROGRAM)} "$@"\n'
    )
    (tmp_path / "usernsplan").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{SEARCH_PATH}", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    root = tmp_path / "host"
    root.mkdir()

    def play() -> dict[str, int]:
        words = [program, "-i", "localhost,", str(EXAMPLES / "ansible.yaml"), "-e", f"root={root}"]
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        [recap] = [line for line in done.stdout.splitlines() if line.startswith("localhost ")]
        return {
            key: int(value)
            for key, _, value in (word.partition("=") for word in recap.split())
            if value
        }

    assert (play()["changed"], play()["changed"]) == (4, 0)
    assert (root / "srv/db").stat().st_uid == 655360
    assert "UIDMap=0:589824:65536\n" in (root / "etc/containers/systemd/web.container").read_text()
