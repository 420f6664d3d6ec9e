"""What happens in a throw-away host stays in it, and each recipe shows the id map that the kernel gives."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from tests.command import slow
from tests.engines import recipes, throwaway
from tests.engines.throwaway import CommandFailed, ThrowawayHost, require

if TYPE_CHECKING:
    from tests.engines.recipes import Line

# Real engines and browsers take their time; what they are given is tested without them.
pytestmark = pytest.mark.slow


PER_CONTAINER: list[Line] = [(0, 589824, 65536)]
SHARED: list[Line] = [(0, 2, 1), (3, 3, 65533)]
SINGLE: list[Line] = [(0, 1000000000, 1)]

MAPS = pytest.mark.parametrize(
    "id_map", [PER_CONTAINER, SHARED, SINGLE], ids=["per-container", "shared", "single"]
)

# Docker counts container ids up from 0 in file order, so ids 1 and 2 need a filler.
SHARED_FOR_DOCKER = "dockremap:2:1\ndockremap:589824:2\ndockremap:3:65533\n"

SHOW_MAP_AND_TOUCH = ["sh", "-c", "cat /proc/self/uid_map; touch /vol/made"]


def fingerprint(folder: Path) -> str:
    """Digest names, contents, owners, modes and times of everything below a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        digest.update(
            repr(
                (str(path), status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
            ).encode()
        )
        if stat.S_ISREG(status.st_mode):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def processes_in(pid_namespace: str) -> list[int]:
    """Find the processes of a pid namespace, as named by readlink of /proc/PID/ns/pid."""
    return [
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if pid_namespace_of(entry) == pid_namespace
    ]


def pid_namespace_of(process: Path) -> str:
    """Read the name of a process's pid namespace; it may end meanwhile, or be one that even root may not look at."""
    try:
        return str((process / "ns/pid").readlink())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""


def groups_named(name: str) -> list[str]:
    """Find control groups by name, through whatever hierarchies this machine has mounted."""
    return [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if Path(folder).name == name]


def write_subids(host: ThrowawayHost, text: str) -> None:
    """Write the same lines to both files."""
    host.write("/etc/subuid", text)
    host.write("/etc/subgid", text)


def volume(host: ThrowawayHost) -> str:
    """Make a folder in which every id may write."""
    host.run("mkdir", "--mode=0777", "/srv/volume")
    return "/srv/volume"


def oci_fragment(id_map: list[Line]) -> dict[str, Any]:
    """Write an id map as config.json has it, for uids and gids alike."""
    mappings = [{"containerID": line[0], "hostID": line[1], "size": line[2]} for line in id_map]
    return {
        "linux": {
            "namespaces": [{"type": "user"}],
            "uidMappings": mappings,
            "gidMappings": mappings,
        }
    }


def podman_flags(id_map: list[Line]) -> list[str]:
    """Write an id map as podman's options have it."""
    words = [":".join(map(str, line)) for line in id_map]
    return [f"--{kind}={word}" for kind in ("uidmap", "gidmap") for word in words]


def test_nothing_remains_of_a_host() -> None:
    require()
    etc, mounts = fingerprint(Path("/etc")), Path("/proc/self/mountinfo").read_bytes()
    with ThrowawayHost() as host:
        namespace = host.run("readlink", "/proc/self/ns/pid").stdout.strip()
        host.run("useradd", "--create-home", "somebody")
        host.run("sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &")
        host.run("mkdir", "-p", "/sys/fs/cgroup/left/behind")
        host.run("mount", "-t", "tmpfs", "tmpfs", "/mnt")
        host.popen("sleep", "1000")
        assert len(processes_in(namespace)) >= 3
    assert processes_in(namespace) == []
    assert groups_named(host.group) == []
    assert Path("/proc/self/mountinfo").read_bytes() == mounts
    assert fingerprint(Path("/etc")) == etc
    assert not Path("/home/somebody").exists()


def test_nothing_remains_when_the_test_process_is_killed() -> None:
    require()
    script = """if True:
        import time
        from tests.engines.throwaway import ThrowawayHost
        with ThrowawayHost() as host:
            host.run("sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &")
            print(host.group, host.run("readlink", "/proc/self/ns/pid").stdout, flush=True)
            time.sleep(1000)
    """
    argv = [sys.executable, "-c", script]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, text=True, cwd=throwaway.REPOSITORY
    ) as other:
        assert other.stdout is not None
        try:
            group, namespace = other.stdout.readline().split()
            assert len(processes_in(namespace)) >= 2
        finally:
            other.kill()
    end = time.monotonic() + 60
    while (processes_in(namespace) or groups_named(group)) and time.monotonic() < end:
        time.sleep(0.01)
    assert (processes_in(namespace), groups_named(group)) == ([], [])


def test_a_host_starts_with_empty_subid_files(host: ThrowawayHost) -> None:
    assert host.read("/etc/subuid") == host.read("/etc/subgid") == b""
    assert not host.exists("/etc/docker/daemon.json")
    host.run("test", "!", "-L", "/etc/subuid")


def test_useradd_hands_out_subordinate_ids(host: ThrowawayHost) -> None:
    host.run("useradd", "somebody")
    owner, _, count = host.read("/etc/subuid").decode().strip().split(":")
    assert (owner, count) == ("somebody", "65536")
    host.run("getent", "passwd", "somebody")


def test_dev_log_may_be_made(host: ThrowawayHost) -> None:
    real = Path("/dev/log").exists()
    host.run("ln", "-sf", "/run/log.socket", "/dev/log")
    host.run("test", "-L", "/dev/log")
    assert Path("/dev/log").exists() == real


def test_commands_see_the_hosts_own_world(host: ThrowawayHost) -> None:
    assert host.run("pwd").stdout == "/\n"
    assert host.run("cat", "/proc/1/comm").stdout == "cat\n"
    for fresh in map(Path, ("/dev", "/run", "/tmp")):
        assert host.inside(fresh.stat).st_dev != fresh.stat().st_dev
    assert host.run("cat", "/proc/self/cgroup").stdout.splitlines()[-1] == "0::/init"
    assert [line.split()[1] for line in host.run("ip", "-brief", "link").stdout.splitlines()] == [
        "UNKNOWN"
    ]


def test_the_checkout_and_the_interpreter_are_visible(host: ThrowawayHost) -> None:
    said = host.run(
        sys.executable, "-c", "import pytest, tests.engines as here; print(here.__file__)"
    ).stdout
    assert said.strip() == str(throwaway.REPOSITORY / "tests/engines/__init__.py")


def test_run_reports_what_went_wrong(host: ThrowawayHost) -> None:
    with pytest.raises(CommandFailed, match=r"(?s)exit status 3.*stdout:\nout.*stderr:\nerr"):
        host.run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert host.run("false", check=False).returncode == 1
    with pytest.raises(CommandFailed, match="no-such-program"):
        host.run("no-such-program")
    with pytest.raises(CommandFailed, match=r"(?s)still running.*stdout:\nearly"):
        host.run("sh", "-c", "echo early; sleep 1000", timeout=0.2)


def test_run_passes_input_and_environment(host: ThrowawayHost) -> None:
    assert (
        host.run("sh", "-c", 'cat; echo "$WORD"', input="in\n", env={"WORD": "word"}).stdout
        == "in\nword\n"
    )


def test_popen_is_the_process_itself(host: ThrowawayHost) -> None:
    process = host.popen("sleep", "1000")
    process.terminate()
    assert process.wait(timeout=60) == -signal.SIGTERM


def test_files_are_the_hosts_even_through_absolute_symlinks(host: ThrowawayHost) -> None:
    host.write("/var/run/deep/er/file", b"bytes\0", mode=0o600)  # /var/run is a symlink to /run
    assert host.read("/run/deep/er/file") == b"bytes\0"
    assert host.run("stat", "-c", "%a", "/run/deep/er/file").stdout == "600\n"
    assert host.exists("/run/deep/er")
    assert not Path("/run/deep").exists()
    assert host.inside(lambda: [entry.name for entry in Path("/run/deep").iterdir()]) == ["er"]
    with pytest.raises(FileNotFoundError):
        host.read("/no/such/file")


def test_orphans_are_reaped(host: ThrowawayHost) -> None:
    host.run("sh", "-c", "(setsid true &); sleep .1")
    assert " Z" not in host.run("ps", "-e", "-o", "pid,stat").stdout


def test_a_missing_program_skips_but_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    require("sh", "useradd")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program"):
        require("sh", "no-such-program")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program"):
        require("sh", "no-such-program")


def test_an_ordinary_user_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(pytest.skip.Exception, match="needs root"):
        require()


def test_newuidmap_grants_what_the_files_grant(host: ThrowawayHost) -> None:
    recipes.add_user(host, "somebody", 4242)
    write_subids(host, "somebody:589824:65536\n")
    maps = recipes.newuidmap(host, "somebody", PER_CONTAINER, PER_CONTAINER)
    assert recipes.lines(maps.uid_map) == recipes.lines(maps.gid_map) == PER_CONTAINER
    with pytest.raises(CommandFailed, match=r"uid range .* not allowed"):
        recipes.newuidmap(host, 4242, [(0, 589823, 65536)], PER_CONTAINER)


def test_newuidmap_with_shared_and_single_ids(host: ThrowawayHost) -> None:
    recipes.add_user(host, "somebody", 4242)
    write_subids(host, "somebody:2:1\nsomebody:3:65533\n4242:1000000000:1\n")
    for id_map in (SHARED, SINGLE):
        maps = recipes.newuidmap(host, 4242, id_map, id_map)
        assert recipes.lines(maps.uid_map) == recipes.lines(maps.gid_map) == id_map


@MAPS
@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_oci_runtimes(
    host: ThrowawayHost, runtime: Literal["crun", "runc"], id_map: list[Line]
) -> None:
    mounts = [(volume(host), "/vol")]
    said = recipes.oci_run(host, runtime, oci_fragment(id_map), SHOW_MAP_AND_TOUCH, mounts)
    assert recipes.lines(said) == id_map
    assert host.owner("/srv/volume/made") == (id_map[0][1], id_map[0][1])


@MAPS
def test_podman(host: ThrowawayHost, id_map: list[Line]) -> None:
    volumes = [f"{volume(host)}:/vol"]
    said = recipes.podman_run(host, podman_flags(id_map), SHOW_MAP_AND_TOUCH, volumes)
    assert recipes.lines(said) == id_map
    assert host.owner("/srv/volume/made") == (id_map[0][1], id_map[0][1])


def test_podman_auto_takes_from_the_files(host: ThrowawayHost) -> None:
    write_subids(host, "containers:589824:65536\n")
    said = recipes.podman_run(host, ["--userns=auto:size=4096"], ["cat", "/proc/self/uid_map"])
    assert recipes.lines(said) == [(0, 589824, 4096)]


def docker_setup(host: ThrowawayHost, subuid: str, subgid: str) -> list[str]:
    """Prepare dockerd with a remap, and return what to mount."""
    recipes.add_user(host, "dockremap")
    host.write("/etc/subuid", subuid)
    host.write("/etc/subgid", subgid)
    host.write("/etc/docker/daemon.json", json.dumps({"userns-remap": "dockremap"}))
    return [f"{volume(host)}:/vol"]


@pytest.mark.parametrize(
    ("subuid", "subgid", "id_map"),
    [
        *slow(("dockremap:589824:65536\n", "dockremap:589824:65536\n", PER_CONTAINER)),
        (SHARED_FOR_DOCKER, SHARED_FOR_DOCKER, [(0, 2, 1), (1, 589824, 2), (3, 3, 65533)]),
        *slow(("dockremap:1000000000:1\n", "dockremap:1000000000:6\n", SINGLE)),
    ],
    ids=["per-container", "shared", "single"],
)
def test_docker(host: ThrowawayHost, subuid: str, subgid: str, id_map: list[Line]) -> None:
    volumes = docker_setup(host, subuid, subgid)
    with recipes.dockerd(host) as docker:
        said = docker.run(SHOW_MAP_AND_TOUCH, volumes)
    assert recipes.lines(said) == id_map
    assert host.owner("/srv/volume/made") == (id_map[0][1], id_map[0][1])


def test_docker_needs_container_gid_5_for_its_devpts(host: ThrowawayHost) -> None:
    docker_setup(host, "dockremap:1000000000:1\n", "dockremap:1000000000:5\n")
    with (
        recipes.dockerd(host) as docker,
        pytest.raises(CommandFailed, match=r"(?s)devpts.*gid=5: invalid argument"),
    ):
        docker.run(["true"])


def test_docker_without_its_lines_says_so(host: ThrowawayHost) -> None:
    docker_setup(host, "", "")
    message = 'no subuid ranges found for user "dockremap"'
    with pytest.raises(recipes.DaemonFailed, match=message), recipes.dockerd(host):
        pass
