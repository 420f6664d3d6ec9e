"""What allocate wrote, judged by the programs that read it: shadow's tools, podman, crun, runc, dockerd.

Everything runs in a throw-away host, on the host's own /etc, without --root.
"""

from __future__ import annotations

import json
import shlex
import socket
import sys
import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import pytest

from tests.engines import recipes
from tests.engines.planned import STRATEGIES
from tests.engines.throwaway import require

if TYPE_CHECKING:
    from tests.engines.throwaway import ThrowawayHost


def usernsplan(host: ThrowawayHost, *words: str, check: bool = True) -> str:
    return host.run(sys.executable, "-m", "usernsplan", *words, check=check).stdout


def test_newuidmap_accepts_what_was_written_and_getsubids_agrees(host: ThrowawayHost) -> None:
    require("newuidmap", "getsubids")
    recipes.add_user(host, "runner")
    usernsplan(host, "allocate", "--strategy", "per-container", "web", "--owner", "runner")
    assert host.run("getsubids", "runner").stdout.split() == ["0:", "runner", "589824", "65536"]
    assert host.run("getsubids", "-g", "runner").stdout.split() == [
        "0:",
        "runner",
        "589824",
        "65536",
    ]
    maps = recipes.newuidmap(host, "runner", [(0, 589824, 65536)], [(0, 589824, 65536)])
    expected = recipes.lines(usernsplan(host, "render", "uid_map", "web"))
    assert recipes.lines(maps.uid_map) == expected == recipes.lines(maps.gid_map)


@STRATEGIES
@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_an_oci_runtime_runs_the_fragment_and_files_get_the_planned_ids(
    host: ThrowawayHost,
    runtime: Literal["crun", "runc"],
    words: tuple[str, ...],
    container: int,
    expected: int,
) -> None:
    require(runtime)
    usernsplan(host, "allocate", *words, "web")
    fragment = json.loads(usernsplan(host, "render", "oci", "web"))
    host.run("install", "-d", "-m", "777", "/tmp/vol")
    script = f"cat /proc/self/uid_map; touch /vol/made; chown {container}:{container} /vol/made"
    seen = recipes.oci_run(
        host, runtime, fragment, ["sh", "-c", script], mounts=[("/tmp/vol", "/vol")]
    )
    assert recipes.lines(seen) == recipes.lines(usernsplan(host, "render", "uid_map", "web"))
    assert host.owner("/tmp/vol/made") == (expected, expected)


@STRATEGIES
def test_podman_runs_with_the_flags_and_files_get_the_planned_ids(
    host: ThrowawayHost, words: tuple[str, ...], container: int, expected: int
) -> None:
    require("podman", "crun")
    usernsplan(host, "allocate", *words, "web")
    flags = shlex.split(usernsplan(host, "render", "podman", "web"))
    host.run("install", "-d", "-m", "777", "/tmp/vol")
    script = f"cat /proc/self/uid_map; touch /vol/made; chown {container}:{container} /vol/made"
    seen = recipes.podman_run(host, flags, ["sh", "-c", script], volumes=["/tmp/vol:/vol"])
    assert recipes.lines(seen) == recipes.lines(usernsplan(host, "render", "uid_map", "web"))
    assert host.owner("/tmp/vol/made") == (expected, expected)


@STRATEGIES
def test_dockerd_starts_with_the_daemon_json_and_its_containers_have_the_planned_map(
    host: ThrowawayHost, words: tuple[str, ...], container: int, expected: int
) -> None:
    require("dockerd", "docker")
    printed = usernsplan(host, "allocate", *words)
    assert "systemctl restart docker" in printed
    planned = recipes.lines(usernsplan(host, "render", "uid_map", "default"))
    assert json.loads(host.read("/etc/docker/daemon.json")) == {"userns-remap": "dockremap"}
    # Docker mounts /dev/pts for gid 5; where that is not mapped, a mount of one's own has to stand there.
    flags = ["--tmpfs", "/dev/pts"] if "single-uid" in words else []
    with recipes.dockerd(host) as docker:
        host.run("install", "-d", "-m", "777", "/tmp/vol")
        script = f"cat /proc/self/uid_map; touch /vol/made; chown {container}:{container} /vol/made"
        seen = docker.run(["sh", "-c", script], volumes=["/tmp/vol:/vol"], flags=flags)
        assert recipes.lines(seen) == planned
        assert host.owner("/tmp/vol/made") == (expected, expected)
        root = f"/var/lib/docker/{planned[0][1]}.{planned[0][1]}"
        assert host.exists(root)
    assert "Already up to date" in usernsplan(host, "allocate", *words)


def test_lxc_maps_what_root_was_granted_for_each_of_two_containers(host: ThrowawayHost) -> None:
    require("lxc-usernsexec", "newuidmap")
    host.write("/etc/subuid", "root:100000:65536\n")
    host.write("/etc/subgid", "root:100000:65536\n")
    for name, base in (("one", 589824), ("two", 655360)):
        usernsplan(host, "allocate", "--strategy", "per-container", name, "--owner", "root")
        [(container, start, count)] = recipes.lines(usernsplan(host, "render", "uid_map", name))
        assert start == base
        maps = ("-m", f"u:{container}:{start}:{count}", "-m", f"g:{container}:{start}:{count}")
        seen = host.run("lxc-usernsexec", *maps, "--", "cat", "/proc/self/uid_map").stdout
        assert recipes.lines(seen) == [(0, base, 65536)]
    usernsplan(host, "release", "one")
    assert host.read("/etc/subuid") == b"root:100000:65536\nroot:655360:32768\nroot:688128:32768\n"
    assert "Already up to date" in usernsplan(
        host, "allocate", "--strategy", "per-container", "two", "--owner", "root"
    )


def test_useradd_still_works_afterwards_and_we_after_it(host: ThrowawayHost) -> None:
    require("useradd")
    usernsplan(host, "allocate", "--strategy", "shared")
    usernsplan(host, "allocate", "--strategy", "shared", "web", "--max", "4294967294")
    host.run("useradd", "alice")
    assert "alice:100000:65536" in host.read("/etc/subuid").decode().splitlines()
    # useradd sorted the file, and Docker would read another map from it: said, and put right.
    lines = host.read("/etc/subuid").decode().splitlines()
    assert [line for line in lines if line.startswith("dockremap")] != [
        "dockremap:2:1",
        "dockremap:589824:2",
        "dockremap:3:65533",
    ]
    again = host.run(sys.executable, "-m", "usernsplan", "allocate", "--strategy", "shared")
    assert "another order" in again.stderr
    lines = host.read("/etc/subuid").decode().splitlines()
    assert [line for line in lines if line.startswith("dockremap")] == [
        "dockremap:2:1",
        "dockremap:589824:2",
        "dockremap:3:65533",
    ]
    assert "alice:100000:65536" in lines


def test_twenty_of_us_and_twenty_useradd_at_once_lose_nothing_and_never_overlap(
    host: ThrowawayHost,
) -> None:
    require("useradd")
    # Which engines the machine has is no matter here.
    words = (
        sys.executable,
        "-m",
        "usernsplan",
        "allocate",
        "--strategy",
        "per-container",
        "--engine",
        "podman",
    )
    runs = []
    for number in range(20):
        runs.append(host.popen("useradd", f"user{number:02}"))
        runs.append(host.popen(*words, f"box{number:02}"))
    assert [run.wait(120) for run in runs] == [0] * 40
    for path in ("/etc/subuid", "/etc/subgid"):
        rows = [line.split(":") for line in host.read(path).decode().splitlines()]
        assert sorted(row[0] for row in rows) == sorted(
            [f"user{n:02}" for n in range(20)] + [f"usernsplan-box{n:02}" for n in range(20)]
        )
        spans = sorted((int(start), int(start) + int(count)) for _, start, count in rows)
        assert all(stop <= following for (_, stop), (following, _) in pairwise(spans))
    assert host.read("/etc/subuid").count(b"\n") == 40
    assert len(json.loads(usernsplan(host, "list", "--json"))["allocations"]) == 20


def test_the_range_of_a_running_user_namespace_is_not_given_out(host: ThrowawayHost) -> None:
    require("newuidmap")
    host.write("/etc/subuid", "root:589824:65536\n")
    host.write("/etc/subgid", "root:589824:65536\n")
    script = "unshare -U sleep 30 & p=$!; sleep .2; newuidmap $p 0 589824 65536; newgidmap $p 0 589824 65536; wait"
    running = host.popen("sh", "-c", script)
    host.run("sh", "-c", "until grep -q 589824 /proc/[0-9]*/gid_map; do sleep .05; done")
    host.write("/etc/subuid", "")
    host.write("/etc/subgid", "")
    usernsplan(host, "allocate", "--strategy", "per-container", "web", "--engine", "podman")
    assert host.read("/etc/subuid") == b"usernsplan-web:655360:65536\n"
    running.kill()


def test_each_change_is_a_line_in_the_system_log(host: ThrowawayHost) -> None:
    received: list[bytes] = []

    def listen() -> socket.socket:
        log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        log.bind("/dev/log")
        return log

    log = host.inside(listen)
    log.settimeout(10)

    def collect() -> None:
        while b"/etc/subgid: +" not in b"".join(received):
            received.append(log.recv(4096))

    reader = threading.Thread(target=collect)
    reader.start()
    usernsplan(host, "allocate", "--strategy", "per-container", "web")
    reader.join(15)
    log.close()
    text = b"\n".join(received).decode()
    assert "/etc/subuid: + usernsplan-web:589824:65536" in text
    # AUTHPRIV is facility 10, info severity 6: 10 * 8 + 6.
    assert all(line.startswith("<86>") for line in text.splitlines())


def test_a_dockerd_that_had_its_own_remap_keeps_it_until_yes_is_said(host: ThrowawayHost) -> None:
    recipes.add_user(host, "alice")
    host.write("/etc/docker/daemon.json", '{"userns-remap": "alice"}')
    refused = host.run(
        sys.executable, "-m", "usernsplan", "allocate", "--strategy", "per-container", check=False
    )
    assert refused.returncode == 9
    assert not host.exists("/var/lib/usernsplan")
    usernsplan(host, "allocate", "--strategy", "per-container", "--replace-remap")
    assert json.loads(host.read("/etc/docker/daemon.json")) == {"userns-remap": "dockremap"}
