"""A host that is itself a container, with the real kernel and newuidmap: what exists in it, and what does not.

The container is a user namespace in the throw-away host. It has the host's files, and those that it writes are its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engines.throwaway import require
from usernsplan.host import procfs
from usernsplan.ids import EVERY_ID

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from tests.engines.throwaway import ThrowawayHost

# Arguments: the map (lines separated by commas), then a command, which runs as root of a namespace with this map.
ENTER = """
import ctypes, os, sys
maps, *words = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
made, mapped = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    assert libc.unshare(0x10000000) == 0, ctypes.get_errno()
    os.write(made[1], b"x")
    os.read(mapped[0], 1)
    os.setgroups([])
    os.setgid(0)
    os.setuid(0)
    os.execvp(words[0], words)
os.read(made[0], 1)
for name in ("uid_map", "gid_map"):
    with open(f"/proc/{child}/{name}", "w") as file:
        file.write(maps.replace(",", "\\n") + "\\n")
os.write(mapped[1], b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
# What a process of the container maps for a new namespace in it, as the kernel takes it.
MAP = """
unshare -U sleep 60 & pid=$!
while [ "$(readlink /proc/$pid/ns/user)" = "$(readlink /proc/self/ns/user)" ]; do sleep 0.05; done
newuidmap $pid 0 $1 $2 && newgidmap $pid 0 $1 $2 && cat /proc/$pid/uid_map; status=$?
kill $pid
exit $status
"""
OWN = (
    *("/etc", "/etc/subuid", "/etc/subgid", "/etc/.pwd.lock", "/var/lib"),
    *("/usr/bin/newuidmap", "/usr/bin/newgidmap"),
)
SMALL, LARGE = "0 100000 65536", "0 1000000 1000000"


class Container:
    """A container of the host: a user namespace with this map, whose root owns what it writes."""

    def __init__(self, host: ThrowawayHost, maps: str) -> None:
        self.host, self.maps = host, maps
        root = maps.split()[1]
        host.run("touch", "/etc/.pwd.lock")
        host.run("chown", f"{root}:{root}", *OWN)
        host.run("chmod", "u+s", "/usr/bin/newuidmap", "/usr/bin/newgidmap")
        # The interpreter may lie in the home of the machine's root.
        host.run("chmod", "a+x", *map(str, Path(sys.base_prefix).parents), check=False)

    def run(self, *words: str, check: bool = True) -> CompletedProcess[str]:
        return self.host.run(sys.executable, "-c", ENTER, self.maps, *words, check=check)

    def usernsplan(self, *words: str, check: bool = True) -> CompletedProcess[str]:
        return self.run(sys.executable, "-m", "usernsplan", *words, check=check)

    def mapped(self, first: int, count: int, *become: str) -> CompletedProcess[str]:
        """Map ids of the container with newuidmap, as root or after the command ``become``."""
        return self.run(*become, "sh", "-c", MAP, "sh", str(first), str(count), check=False)


def lines(host: ThrowawayHost, text: str) -> None:
    host.write("/etc/subuid", text)
    host.write("/etc/subgid", text)


BOB = ("setpriv", "--reuid", "1001", "--regid", "1001", "--clear-groups")


@pytest.fixture
def bobs(host: ThrowawayHost) -> ThrowawayHost:
    """A host with the account bob and the lines that useradd gives him."""
    require("newuidmap", "setpriv", "useradd")
    host.run("useradd", "--uid", "1001", "--user-group", "bob")
    # These folders of a container are its own. Here they are the machine's, and closed to others.
    host.run("sh", "-c", "chmod go+rx /var/lib/machines /var/lib/lxc /var/lib/docker || :")
    assert host.read("/etc/subuid") == b"bob:100000:65536\n"
    return host


def test_in_65536_ids_there_is_no_room_and_newuidmap_agrees(bobs: ThrowawayHost) -> None:
    small = Container(bobs, SMALL)
    refused = small.usernsplan("allocate", "--strategy", "per-container", "web", check=False)
    assert refused.returncode == 7
    assert "its map has only 0-65535" in refused.stderr
    assert "65536 more ids, container ids 589824-655359" in refused.stderr
    assert bobs.read("/etc/subuid") == b"bob:100000:65536\n"

    # The line that useradd wrote: newuidmap allows it, and the kernel does not.
    failed = small.mapped(100000, 65536, *BOB)
    assert failed.returncode != 0
    assert "Operation not permitted" in failed.stderr
    told = json.loads(small.usernsplan("check", "--json", check=False).stdout)["findings"]
    assert [one["place"] for one in told if one["code"] == "USN095"] == [
        "/etc/subuid:1",
        "/etc/subgid:1",
    ]

    # Ids that exist do work, with the same programs.
    lines(bobs, "bob:20000:1000\n")
    assert small.mapped(20000, 1000, *BOB).stdout.split() == ["0", "20000", "1000"]
    told = json.loads(small.usernsplan("check", "--json", check=False).stdout)["findings"]
    assert not [one for one in told if one["code"] == "USN095"]


@pytest.mark.parametrize("is_added", [True, False])
def test_the_map_that_the_error_asks_for_is_enough(bobs: ThrowawayHost, is_added: bool) -> None:
    lines(bobs, "")
    maps = f"{SMALL},589824 700000 65536"
    if not is_added:
        words = ("allocate", "--strategy", "per-container", "outer", "--size", "655360")
        bobs.run(sys.executable, "-m", "usernsplan", *words)
        maps = bobs.run(sys.executable, "-m", "usernsplan", "render", "uid_map", "outer").stdout
        assert maps.split() == ["0", "589824", "655360"]
        # The container has files of its own.
        lines(bobs, "")
        bobs.run("rm", "-r", "/var/lib/usernsplan")
    larger = Container(bobs, maps.strip())
    larger.usernsplan("allocate", "--strategy", "per-container", "web", "--engine", "lxc")
    assert b"usernsplan-web:589824:65536\n" in bobs.read("/etc/subuid")
    done = larger.mapped(589824, 65536)
    assert done.stdout.split() == ["0", "589824", "65536"], done.stderr
    refused = larger.usernsplan("allocate", "db", check=False)
    assert refused.returncode == 7
    assert "container ids 655360-720895" in refused.stderr


def test_without_proc_every_id_is_assumed_to_exist(host: ThrowawayHost) -> None:
    assert host.inside(lambda: Path("/proc/self").exists()) is False
    assert host.inside(procfs.own_ids) == (EVERY_ID, EVERY_ID)


def test_in_a_large_map_the_pool_is_what_exists_of_it(bobs: ThrowawayHost) -> None:
    lines(bobs, "")
    large = Container(bobs, LARGE)
    names = [f"c{number}" for number in range(6)]
    large.usernsplan("allocate", "--strategy", "per-container", *names, "--engine", "lxc")
    last = 589824 + 5 * 65536
    assert f"usernsplan-c5:{last}:65536\n".encode() in bobs.read("/etc/subuid")
    done = large.mapped(last, 65536)
    assert done.stdout.split() == ["0", str(last), "65536"], done.stderr
    seen = json.loads(large.usernsplan("capacity", "--json").stdout)
    assert seen["more"] == 0
    refused = large.usernsplan("allocate", "c6", check=False)
    assert refused.returncode == 7
    assert "container ids 1000000-1048575" in refused.stderr
    assert "1000000" in large.usernsplan("whois", "1000000").stdout
