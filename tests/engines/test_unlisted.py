"""Ids that real programs take without a line: where they leave them, and that we keep away."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.engines.recipes import busybox_rootfs, dockerd
from tests.engines.recipes_nspawn import NSPAWN, NSPAWN_ENVIRONMENT, SETTINGS_FOLDER
from tests.engines.throwaway import require
from usernsplan.formats.nspawn_file import private_users

if TYPE_CHECKING:
    from tests.engines.throwaway import ThrowawayHost

SLOT = 65536
DEB = "/var/lib/machines/deb"
# Mounts $1 on $2 with the map $3: mount(8) can do it since util-linux 2.39.
IDMAPPED = """
import ctypes, os, sys
source, target, lines = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *words):
    words = [ctypes.c_long(w) if isinstance(w, int) else w for w in words]
    found = libc.syscall(ctypes.c_long(number), *words)
    assert found >= 0, os.strerror(ctypes.get_errno())
    return found
ready, go = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    libc.unshare(0x10000000)
    os.write(ready[1], b"1")
    os.close(go[1])
    os.read(go[0], 1)
    os._exit(0)
os.read(ready[0], 1)
for kind in ("uid", "gid"):
    with open(f"/proc/{child}/{kind}_map", "w") as file:
        file.write(lines)
namespace = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
tree = call(428, -100, os.fsencode(source), 1)
call(442, tree, b"", 0x1000, ctypes.byref((ctypes.c_uint64 * 4)(0x100000, 0, 0, namespace)), 32)
call(429, tree, b"", -100, os.fsencode(target), 4)
os.close(go[1])
os.waitpid(child, 0)
"""


def of(host: ThrowawayHost, *words: str, status: int = 0) -> dict[str, Any]:
    done = host.run(sys.executable, "-m", "usernsplan", *words, "--json", check=False)
    assert done.returncode == status, done.stderr + done.stdout
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def allocated(host: ThrowawayHost, *words: str) -> list[int]:
    made = of(host, "allocate", "--strategy", "per-container", *words)["allocations"]
    return [one["reserved_range"]["start"] for one in made]


def findings(host: ThrowawayHost, status: int = 0) -> list[tuple[str, str]]:
    found = of(host, "check", status=status)["findings"]
    return [(one["code"], one["message"]) for one in found]


def nspawn(host: ThrowawayHost, *flags: str) -> str:
    """Run a machine to its end and return its map of uids."""
    command = (*NSPAWN, "--pipe", f"--directory={DEB}", "--machine=deb", *flags)
    # nspawn cannot map the overlay that / is.
    words = (*command, "--private-users-ownership=chown", "/bin/cat", "/proc/self/uid_map")
    return host.run(*words, env=NSPAWN_ENVIRONMENT, check=False).stdout


def test_the_range_that_nspawn_picked_stays_its_own_when_it_is_stopped(
    host: ThrowawayHost,
) -> None:
    require("systemd-nspawn")
    busybox_rootfs(host, DEB)
    assert allocated(host, "first") == [589824]
    _, picked, count = map(int, nspawn(host, "--private-users=pick", "--settings=no").split())
    assert (picked % SLOT, count) == (0, SLOT)
    assert host.owner(DEB) == (picked, picked)

    pool = f"{picked}-{picked + 3 * SLOT - 1}"
    assert allocated(host, "web", "db", "--pool", pool) == [picked + SLOT, picked + 2 * SLOT]
    shown = host.run(sys.executable, "-m", "usernsplan", "whois", str(picked)).stdout
    assert f"systemd-nspawn (machine deb): {picked}-{picked + SLOT - 1} ({DEB})" in shown
    # This pool is past SUB_UID_MAX, which another rule says.
    assert {code for code, _ in findings(host)} <= {"USN015"}
    # It starts again with the same range, and the next start does not move it.
    assert nspawn(host, "--private-users=pick", "--settings=no").split()[1] == str(picked)


def test_a_tree_of_655360_keeps_its_range(host: ThrowawayHost) -> None:
    host.run("mkdir", "-p", DEB)
    host.run("chown", "655360:655360", DEB)
    assert allocated(host, "web", "db", "cache") == [589824, 720896, 786432]


def test_a_released_range_does_not_come_back_while_a_machine_runs_in_it(
    host: ThrowawayHost,
) -> None:
    require("systemd-nspawn")
    words = ("--strategy", "per-container", "web")
    of(host, "allocate", *words)
    of(host, "release", "web")
    # On a tmpfs the kernel maps the ids, so only the running machine tells of them.
    busybox_rootfs(host, "/tmp/tree")
    machine = host.popen(
        *NSPAWN, "--pipe", "--settings=no", "--private-users=589824", "--directory=/tmp/tree",
        "sh", "-c", "echo runs; exec sleep 1000", env=NSPAWN_ENVIRONMENT, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert machine.stdout
    assert machine.stdout.readline() == "runs\n"
    error = of(host, "allocate", *words, status=9)["error"]
    assert "589824-655359 is mapped by a running user namespace" in error["message"]
    assert host.read("/etc/subuid") == b""
    # Another name is out of its way, and who knows better insists.
    assert allocated(host, "db") == [655360]
    told = of(host, "allocate", *words, "--start", "589824", "--dry-run")["findings"]
    assert "USN135" in {one["code"] for one in told}

    machine.terminate()
    machine.wait(timeout=30)
    assert allocated(host, "web") == [589824]


# A value and whether a machine gets it: with "no" systemd warns and goes on with its own choice.
VALUES = (
    "655360",
    "655360:0x20000",
    "655360:0400000",
    "655360: 10",
    "0655360",
    "655360:0",
    "65535",
)


@pytest.mark.slow
@pytest.mark.parametrize("value", VALUES)
def test_a_file_gives_the_range_that_we_read(host: ThrowawayHost, value: str) -> None:
    require("systemd-nspawn")
    busybox_rootfs(host, DEB)
    text = f"[Exec]\nPrivateUsers={value}\n"
    host.write(f"{SETTINGS_FOLDER}/deb.nspawn", text)
    # The file counts more than the option; without it there is no namespace.
    said = nspawn(host, "--private-users=no", "--settings=override").split()
    fixed = private_users(text.encode())
    expected = (
        ["0", str(fixed.ids.start), str(fixed.ids.count)] if fixed else ["0", "0", "4294967295"]
    )
    assert said == expected


def test_a_mount_alone_keeps_its_range(host: ThrowawayHost) -> None:
    for folder in ("/tmp/disk", "/tmp/shown"):
        host.run("mkdir", folder)
    lines = "0 655360 65536\n70000 70000 5"
    host.run(sys.executable, "-c", IDMAPPED, "/tmp/disk", "/tmp/shown", lines)
    host.run("touch", "/tmp/disk/file")
    assert host.owner("/tmp/shown/file") == (655360, 655360)
    assert allocated(host, "web", "db") == [589824, 720896]
    whois = (sys.executable, "-m", "usernsplan", "whois")
    place = "idmapped mount (/tmp/shown): 655360-720895 (/tmp/shown)"
    assert place in host.run(*whois, "655361").stdout
    assert "idmapped mount" not in host.run(*whois, "70001").stdout
    assert findings(host) == []


def test_a_mount_of_our_own_container_is_its_own(host: ThrowawayHost) -> None:
    assert allocated(host, "web") == [589824]
    for folder in ("/tmp/disk", "/tmp/shown"):
        host.run("mkdir", folder)
    host.run(sys.executable, "-c", IDMAPPED, "/tmp/disk", "/tmp/shown", "0 589824 65536")
    assert findings(host) == []
    # After a release nobody can tell whose it is, but who made it.
    host.run(sys.executable, "-m", "usernsplan", "release", "web")
    error = of(host, "allocate", "--strategy", "per-container", "web", status=9)["error"]
    assert "(/tmp/shown)" in error["message"]
    assert allocated(host, "web", "--start", "589824") == [589824]
    assert findings(host) == []
    host.run("umount", "/tmp/shown")
    host.run(sys.executable, "-c", IDMAPPED, "/tmp/disk", "/tmp/shown", "0 589000 65536")
    [(code, message)] = findings(host, status=1)
    assert code == "USN080"
    assert "589000-654535, which overlaps with usernsplan-web's 589824-655359" in message


def test_a_mount_in_another_mount_namespace_is_found(host: ThrowawayHost) -> None:
    script = (
        f"mkdir /tmp/a /tmp/b; {sys.executable} -c \"$1\" /tmp/a /tmp/b '0 589824 65536'; echo; cat"
    )
    there = host.popen(
        *("unshare", "--mount", "sh", "-euc", script, "sh", IDMAPPED),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert there.stdout is not None
    assert there.stdout.readline() == "\n"
    assert allocated(host, "web") == [655360]
    assert "of process" in host.run(sys.executable, "-m", "usernsplan", "whois", "589824").stdout


@pytest.mark.slow
def test_dockers_data_root_outlives_its_line(host: ThrowawayHost) -> None:
    require("dockerd", "useradd")
    host.write("/etc/docker/daemon.json", '{"userns-remap": "default"}')
    with dockerd(host):
        pass
    [line] = host.read("/etc/subuid").decode().splitlines()
    first = int(line.split(":")[1])
    assert host.exists(f"/var/lib/docker/{first}.{first}")
    before = [code for code, _ in findings(host)]
    assert not {"USN080", "USN081"} & set(before)
    for name in ("subuid", "subgid"):
        host.write(f"/etc/{name}", "")
    pool = f"{first}-{first + 2 * SLOT - 1}"
    made = of(host, "allocate", "--strategy", "single-uid", "web", "--pool", pool)["allocations"]
    # The first block of 10000 behind it.
    assert made[0]["reserved_range"]["start"] == -(-(first + SLOT) // 10000) * 10000
