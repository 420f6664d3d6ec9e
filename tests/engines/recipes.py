"""How each container engine is run in a throw-away host, with the id map that a test wants to see at work.

Every recipe asks for the programs it needs itself, so a test that uses it is skipped where they are missing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import tempfile
import time
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

from tests.engines.throwaway import ThrowawayHost, require

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping, Sequence

# A line of uid_map(5): container id, host id, how many.
Line = tuple[int, int, int]

IMAGE = "busybox"
APPLETS = (
    "cat",
    "chmod",
    "chown",
    "echo",
    "id",
    "ls",
    "mkdir",
    "sh",
    "sleep",
    "stat",
    "touch",
    "true",
)
ROOTFS = "/var/lib/throwaway/rootfs"
ROOTFS_TAR = "/var/lib/throwaway/rootfs.tar"

# The unprivileged half waits in its new user namespace until both maps are written, and then shows what the kernel
# gives. Two fifos instead of a sleep: the first says that the namespace exists, the second that the maps do.
# Arguments: uid lines, the word "gids", gid lines; each list is what newuidmap takes after the pid.
NEWUIDMAP = """
folder=$(mktemp -d)
mkfifo "$folder/ready" "$folder/mapped"
unshare --user sh -c '
    echo >"$1/ready"
    read -r mapped <"$1/mapped"
    [ "$mapped" = yes ] || exit 1
    cat /proc/self/uid_map; echo gids; cat /proc/self/gid_map
' sh "$folder" &
child=$!
read -r ready <"$folder/ready"
uids=
while [ "$1" != gids ]; do uids="$uids $1"; shift; done
shift
mapped=no
if newuidmap "$child" $uids && newgidmap "$child" "$@"; then mapped=yes; fi
echo "$mapped" >"$folder/mapped"
wait "$child"
"""

CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
cgroups = "disabled"
netns = "none"
no_hosts = true
[engine]
runtime = "crun"
cgroup_manager = "cgroupfs"
events_logger = "none"
"""

STORAGE_CONF = """
[storage]
driver = "vfs"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
"""

PODMAN_ENVIRONMENT = {
    "CONTAINERS_CONF": "/etc/throwaway/containers.conf",
    "CONTAINERS_STORAGE_CONF": "/etc/throwaway/storage.conf",
}

DOCKER_SOCKET = "/run/docker.sock"
DOCKERD_FLAGS = ("--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs")

# What a container's root usually has, as far as it matters for ids.
CAPABILITIES = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
]

_numbers = itertools.count(1)


class DaemonFailed(RuntimeError):  # noqa: N818 - it says what is the case, as the package's own exceptions do
    """A daemon did not come up; the message is its log."""


class Maps(NamedTuple):
    """What a process reads in its own /proc/self/uid_map and /proc/self/gid_map."""

    uid_map: str
    gid_map: str


def lines(map_text: str) -> list[Line]:
    """Read the text of a uid_map or gid_map."""
    found = []
    for line in map_text.splitlines():
        container, host, count = line.split()
        found.append((int(container), int(host), int(count)))
    return found


def add_user(host: ThrowawayHost, name: str, uid: int | None = None) -> None:
    """Add a user and a group of the same name; a system user, because useradd gives those no subordinate ids."""
    number = [] if uid is None else ["--uid", str(uid)]
    host.run("useradd", "--system", "--user-group", "--no-create-home", *number, name)


def newuidmap(
    host: ThrowawayHost, owner: str | int, uid_lines: Sequence[Line], gid_lines: Sequence[Line]
) -> Maps:
    """Let an unprivileged user (of /etc/passwd) map a new user namespace with newuidmap and newgidmap."""
    require("newuidmap", "newgidmap", "setpriv", "unshare")
    entry = host.run("getent", "passwd", str(owner)).stdout.split(":")
    become = ["setpriv", "--reuid", entry[2], "--regid", entry[3], "--clear-groups"]
    uids, gids = (
        [str(number) for line in table for number in line] for table in (uid_lines, gid_lines)
    )
    output = host.run(*become, "sh", "-euc", NEWUIDMAP, "sh", *uids, "gids", *gids).stdout
    uid_map, _, gid_map = output.partition("gids\n")
    return Maps(uid_map, gid_map)


def busybox_rootfs(host: ThrowawayHost, path: str) -> None:
    """Make a root file system that belongs to host root and that every id can read, from a static busybox.

    The empty /usr is for systemd-nspawn, which refuses a tree without it.
    """
    require("busybox")
    script = """
        umask 022
        mkdir -p "$1/bin" "$1/dev" "$1/etc" "$1/proc" "$1/sys" "$1/tmp" "$1/usr"
        cp "$(command -v busybox)" "$1/bin/busybox"
        echo root:x:0:0::/:/bin/sh >"$1/etc/passwd"
        echo root:x:0: >"$1/etc/group"
        cd "$1/bin"
        shift
        for applet in "$@"; do ln -s busybox "$applet"; done
    """
    host.run("sh", "-euc", script, "sh", path, *APPLETS)


def _rootfs(host: ThrowawayHost) -> str:
    if not host.exists(ROOTFS):
        busybox_rootfs(host, ROOTFS)
    return ROOTFS


def rootfs_tar(host: ThrowawayHost) -> str:
    if not host.exists(ROOTFS_TAR):
        host.run("tar", "-C", _rootfs(host), "-cf", ROOTFS_TAR, ".")
    return ROOTFS_TAR


def oci_run(
    host: ThrowawayHost,
    runtime: Literal["crun", "runc"],
    oci_fragment: Mapping[str, Any],
    argv: Sequence[str],
    mounts: Sequence[tuple[str, str]] = (),
) -> str:
    """Run a command with an OCI runtime. ``oci_fragment`` goes into config.json; ``mounts`` are (host, container)."""
    require(runtime)
    rootfs = _rootfs(host)
    # Made by host root beforehand: the container's root may not write to a root file system that is not its own.
    for _, target in mounts:
        host.run("mkdir", "-p", f"{rootfs}{target}")
    config = merged(_oci_base(rootfs, argv, mounts), oci_fragment)
    name = f"throwaway{next(_numbers)}"
    bundle = f"/var/lib/throwaway/{name}"
    host.write(f"{bundle}/config.json", json.dumps(config))
    return host.run(runtime, "run", "--bundle", bundle, name).stdout


def _oci_base(
    rootfs: str, argv: Sequence[str], mounts: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """No id but 0 appears here (a devpts with gid=5, say): no other need be in the map."""
    binds = [
        {"destination": there, "source": here, "options": ["rbind", "rw"]} for here, there in mounts
    ]
    namespaces = ("user", "mount", "pid", "ipc", "uts", "network")
    return {
        "ociVersion": "1.0.2",
        "root": {"path": rootfs},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": list(argv),
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "mode=755"],
            },
            *binds,
        ],
        "linux": {"namespaces": [{"type": name} for name in namespaces]},
    }


def merged(base: Mapping[str, Any], fragment: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a fragment of config.json into a whole one: objects by key, lists end to end without repetition."""
    result = dict(base)
    for key, value in fragment.items():
        there = result.get(key)
        if isinstance(there, dict) and isinstance(value, dict):
            result[key] = merged(there, value)
        elif isinstance(there, list) and isinstance(value, list):
            result[key] = there + [item for item in value if item not in there]
        else:
            result[key] = value
    return result


def podman_run(
    host: ThrowawayHost, flags: Sequence[str], argv: Sequence[str], volumes: Sequence[str] = ()
) -> str:
    """Run a command with rootful podman; ``volumes`` are written as for its -v option."""
    require("podman", "crun")
    if not host.exists(PODMAN_ENVIRONMENT["CONTAINERS_CONF"]):
        host.write(PODMAN_ENVIRONMENT["CONTAINERS_STORAGE_CONF"], STORAGE_CONF)
        host.write(PODMAN_ENVIRONMENT["CONTAINERS_CONF"], CONTAINERS_CONF)
        host.run("podman", "import", "-q", rootfs_tar(host), IMAGE, env=PODMAN_ENVIRONMENT)
    command = ["podman", "run", "--rm", *flags, *_volume_flags(volumes), IMAGE, *argv]
    return host.run(*command, env=PODMAN_ENVIRONMENT).stdout


def _volume_flags(volumes: Sequence[str]) -> list[str]:
    return [word for volume in volumes for word in ("-v", volume)]


class Docker(NamedTuple):
    """A running dockerd."""

    host: ThrowawayHost
    log: IO[bytes]

    def run(
        self, argv: Sequence[str], volumes: Sequence[str] = (), flags: Sequence[str] = ()
    ) -> str:
        """Run a command in a container; ``volumes`` are written as for docker's -v option."""
        command = [
            "docker",
            "run",
            "--rm",
            "--network=none",
            *flags,
            *_volume_flags(volumes),
            IMAGE,
            *argv,
        ]
        return self.host.run(*command).stdout

    def read_log(self) -> str:
        """Return what the daemon said so far."""
        # pread, because a seek would move the place at which the daemon writes: it shares the open file.
        size = os.fstat(self.log.fileno()).st_size
        return os.pread(self.log.fileno(), size, 0).decode(errors="replace")


@contextlib.contextmanager
def dockerd(
    host: ThrowawayHost, flags: Sequence[str] = (), timeout: float = 30
) -> Iterator[Docker]:
    """Run dockerd with the host's own /etc/docker/daemon.json, from start to orderly stop; one at a time in a host."""
    require("dockerd", "docker", "containerd", "runc")
    with tempfile.TemporaryFile() as log:
        daemon = host.popen("dockerd", *DOCKERD_FLAGS, *flags, stdout=log, stderr=log)
        docker = Docker(host, log)
        try:
            _wait_until_up(docker, daemon, timeout)
            host.run("docker", "import", rootfs_tar(host), IMAGE)
            yield docker
        finally:
            daemon.terminate()
            daemon.wait(timeout=timeout)


def _wait_until_up(docker: Docker, daemon: subprocess.Popen[str], timeout: float) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end and daemon.poll() is None:
        # The socket is there before anybody answers on it; but asking costs a start of the client.
        if (
            docker.host.exists(DOCKER_SOCKET)
            and docker.host.run("docker", "version", check=False).returncode == 0
        ):
            return
        time.sleep(0.02)
    raise DaemonFailed(docker.read_log())
