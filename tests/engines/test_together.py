"""What changes an allocation, one after the other, and after each change the container that is started anew."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.engines import recipes
from tests.engines.planned import usernsplan
from tests.engines.recipes_docker_instance import dockerd_instance
from tests.engines.recipes_lxc import lxc_execute
from tests.engines.throwaway import require

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engines.throwaway import ThrowawayHost

    # What runs a script in a container of this name, with the volume at /vol.
    Runner = Callable[[ThrowawayHost, str, str], str]

VOLUME = "/tmp/vol"
PASSES = ("--pass", "u:1000", "--pass", "g:104:107")
# It shows what the container has: ids of its own, of its range, and those of the host.
SCRIPT = """
cat /proc/self/uid_map
stat -c '%u:%g' /vol /vol/root /vol/www /vol/shown
cat /vol/shown
echo {0} >>/vol/shown
touch /vol/{0}
chown 33:107 /vol/{0}
"""
SEEN = ["0:0", "0:0", "33:33", "1000:107"]


def lxc(host: ThrowawayHost, name: str, script: str) -> str:
    config = usernsplan(host, "render", "lxc", name).stdout
    config += f"lxc.mount.entry = {VOLUME} vol none bind,create=dir 0 0\n"
    return lxc_execute(host, config, ["sh", "-euc", script])


def podman(host: ThrowawayHost, name: str, script: str) -> str:
    flags = shlex.split(usernsplan(host, "render", "podman", name).stdout)
    flags += ["-v", f"{VOLUME}:/vol"]
    return recipes.podman_run(host, flags, ["sh", "-euc", script])


def filled(host: ThrowawayHost) -> None:
    """A volume with files of container root, of another id of the range, and of ids that pass."""
    host.run("mkdir", VOLUME)
    for name, owner in (("root", "0:0"), ("www", "33:33"), ("shown", "1000:107")):
        host.write(f"{VOLUME}/{name}", "")
        host.run("chown", owner, f"{VOLUME}/{name}")


# Each change has quick tests of its own.
@pytest.mark.slow
@pytest.mark.parametrize("run", [lxc, podman])
@pytest.mark.usefixtures("volume_step")
def test_a_container_reads_its_data_after_each_change_of_its_allocation(
    host: ThrowawayHost, run: Runner
) -> None:
    filled(host)
    told: list[str] = []

    def started(name: str, base: int, last: int) -> None:
        """Start it with what is rendered now: it has its data, and adds to them."""
        word = f"run{len(told)}"
        found = run(host, name, SCRIPT.format(word)).splitlines()
        assert recipes.lines("\n".join(found[:3])) == [
            (0, base, 1000),
            (1000, 1000, 1),
            (1001, base + 1001, last - 1000),
        ]
        assert found[3:] == [*SEEN, *told]
        told.append(word)
        assert host.owner(f"{VOLUME}/{word}") == (base + 33, 104)
        assert host.owner(f"{VOLUME}/shown") == (1000, 104)

    words = ("--strategy", "per-container", "--engine", "lxc")
    usernsplan(host, "allocate", "web", *PASSES, *words)
    usernsplan(host, "fix-volume", VOLUME, "--container", "web", "--mode", "shift")
    started("web", 589824, 65535)

    # The ids behind it are free: it grows where it is, and no file changes.
    usernsplan(host, "remap", "web", "--size", "131072")
    started("web", 589824, 131071)

    # Now they are not: it moves, with the volume.
    usernsplan(host, "allocate", "db")
    usernsplan(host, "remap", "web", "--size", "262144", "--yes")
    started("web", 786432, 262143)
    usernsplan(host, "rename", "web", "shop")
    started("shop", 786432, 262143)

    # Back to where it was, under the name that it has now.
    usernsplan(host, "remap", "shop", "--undo", "--yes")
    started("shop", 589824, 131071)

    # The command that release prints gives it everything back: its lines, its range, its volume.
    said = usernsplan(host, "release", "shop", "--yes").stderr
    [again] = [line for line in said.splitlines() if "this gives it back" in line]
    host.run(
        "sh",
        "-euc",
        again.partition(": ")[2].replace("usernsplan", "exec $0 -m usernsplan", 1),
        sys.executable,
    )
    started("shop", 589824, 131071)


def test_a_container_that_runs_is_adopted_and_released_and_starts_as_before(
    host: ThrowawayHost,
) -> None:
    require("lxc-execute")
    filled(host)
    host.run("chown", "100000:104", VOLUME)
    config = """\
lxc.idmap = u 0 100000 65536
lxc.idmap = g 0 100000 107
lxc.idmap = g 107 104 1
lxc.idmap = g 108 100108 65428
"""
    host.write("/var/lib/lxc/gpu/config", f"lxc.uts.name = gpu\n{config}")
    host.write("/etc/subuid", "root:100000:65536\n")
    host.write("/etc/subgid", "root:100000:65536\nroot:104:1\n")
    mount = f"lxc.mount.entry = {VOLUME} vol none bind,create=dir 0 0\n"
    before = [host.read(path) for path in ("/etc/subuid", "/etc/subgid")]
    script = "touch /vol/$0; chown 5:107 /vol/$0"

    lxc_execute(host, config + mount, ["sh", "-euc", script, "one"])
    usernsplan(host, "adopt", "gpu")
    assert usernsplan(host, "render", "lxc", "gpu").stdout == config
    lxc_execute(host, config + mount, ["sh", "-euc", script, "two"])
    usernsplan(host, "release", "gpu", "--yes")
    assert [host.read(path) for path in ("/etc/subuid", "/etc/subgid")] == before
    lxc_execute(host, config + mount, ["sh", "-euc", script, "three"])
    for name in ("one", "two", "three"):
        assert host.owner(f"{VOLUME}/{name}") == (100005, 104)


@pytest.mark.slow
def test_a_second_daemon_of_docker_has_a_map_with_holes_and_its_remap_too(
    host: ThrowawayHost,
) -> None:
    filled(host)
    usernsplan(host, "allocate", "web", "--strategy", "per-container", *PASSES)
    usernsplan(host, "fix-volume", VOLUME, "--container", "web", "--mode", "shift")
    usernsplan(host, "allocate", "db")
    for base, last in ((589824, 65535), (720896, 131071)):
        usernsplan(host, "render", "docker-instance", "web", "--out", "/", "--replace-files")
        with dockerd_instance(host, "/etc/docker/docker-web.json") as daemon:
            found = daemon.run(
                ["sh", "-euc", SCRIPT.format(f"run{base}")], volumes=[f"{VOLUME}:/vol"]
            ).splitlines()
        assert recipes.lines("\n".join(found[:3])) == [
            (0, base, 1000),
            (1000, 1000, 1),
            (1001, base + 1001, last - 1000),
        ]
        assert found[3:7] == SEEN
        assert host.owner(f"{VOLUME}/run{base}") == (base + 33, 104)
        if base == 589824:
            usernsplan(host, "remap", "web", "--size", "131072", "--yes")


def test_of_two_commands_at_once_each_is_done_or_refused_whole(host: ThrowawayHost) -> None:
    usernsplan(host, "allocate", "web", "--strategy", "per-container")
    commands = [
        ("remap", "web", "--size", "131072", "--yes"),
        ("rename", "web", "shop"),
        ("allocate", "db", *PASSES),
        ("adopt", "--all"),
    ]
    started = [
        host.popen(
            sys.executable,
            "-m",
            "usernsplan",
            *words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for words in commands
    ]
    for words, one in zip(commands, started, strict=True):
        _, said = one.communicate(timeout=60)
        # The name may be gone already; no other error is due to the order.
        gone = words[0] == "remap" and "nothing is allocated under the name 'web'" in said
        assert one.returncode == 0 or gone, (words, said)
        assert "Traceback" not in said
    rows = [line.split()[0] for line in usernsplan(host, "list").stdout.splitlines()]
    assert {"shop", "db"} <= set(rows)
    assert "web" not in rows
    # Root's lines are for engines that may be installed here.
    found = host.run(sys.executable, "-m", "usernsplan", "check", check=False).stdout
    assert "USN0" not in found.replace("USN089", ""), found
