"""Host ids that pass through a private range, as the programs make it of what is rendered.

The container sees the host's uid 1000, and the host's group 104 as gid 107. A device of that group
opens for a member of 107, and a file that is made belongs to 1000 and 104. Beside it runs the same
without the pass, which shows that each test can fail.
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import pytest

from tests.engines import recipes, recipes_rootless
from tests.engines.planned import maps, usernsplan
from tests.engines.recipes_containerd import containerd
from tests.engines.recipes_incus import incus
from tests.engines.recipes_lxc import lxc_execute
from tests.engines.recipes_lxd import lxd
from tests.engines.throwaway import CommandFailed, require
from usernsplan import Allocation, IdMap, IdRange, Mapping
from usernsplan import render as rendered

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engines.recipes import Line
    from tests.engines.throwaway import ThrowawayHost

    # What runs a script in a container of this name, as its user 1000 with its group 107.
    Runner = Callable[[ThrowawayHost, str, str], str]

DEVICE, OUT = "/tmp/devices/gpu", "/tmp/out"
SCRIPT = """
(echo x >/gpu) 2>/dev/null && echo opened || echo denied
touch /out/$0
cat /proc/self/uid_map; echo; cat /proc/self/gid_map
"""
UIDS = [(0, 589824, 1000), (1000, 1000, 1), (1001, 590825, 64535)]
GIDS = [(0, 589824, 107), (107, 104, 1), (108, 589932, 65428)]
# As it is: an idmapped mount would have container ids on the disk.
MOUNT = f"lxc.mount.entry = {OUT} out none bind,create=dir 0 0"
PASSES = ("--pass", "u:1000", "--pass", "g:104:107")


@pytest.fixture
def devices(host: ThrowawayHost) -> ThrowawayHost:
    """A host with web, which has the passes, db, which has none, a device and an open folder."""
    host.run("sed", "-i", "s/^[^:]*:\\([^:]*\\):104:.*/render:x:104:/", "/etc/group")
    host.run("mkdir", "-p", "/tmp/devices", "-m", "755")
    host.run("mount", "-t", "tmpfs", "-o", "dev,mode=755", "tmpfs", "/tmp/devices")
    host.run("mknod", "-m", "660", DEVICE, "c", "1", "3")
    host.run("chown", "0:104", DEVICE)
    host.run("install", "-d", "-m", "777", OUT)
    return host


def allocate(host: ThrowawayHost, engine: str) -> None:
    words = ("--strategy", "per-container", "--engine", engine)
    usernsplan(host, "allocate", "web", *PASSES, *words)
    usernsplan(host, "allocate", "db", *words)


def flags_of(host: ThrowawayHost, engine: str, name: str, *more: str) -> str:
    return usernsplan(host, "render", engine, name, *more).stdout


def podman(host: ThrowawayHost, name: str, script: str) -> str:
    flags = shlex.split(flags_of(host, "podman", name))
    flags += ["--user", "1000:107", "-v", f"{DEVICE}:/gpu", "-v", f"{OUT}:/out"]
    return recipes.podman_run(host, flags, ["sh", "-c", script, name])


def crun(host: ThrowawayHost, name: str, script: str) -> str:
    fragment = json.loads(flags_of(host, "oci", name))
    fragment["process"] = {"user": {"uid": 1000, "gid": 107}}
    rootfs = recipes._rootfs(host)
    host.run("mkdir", "-p", f"{rootfs}/out")
    host.run("touch", f"{rootfs}/gpu")
    fragment["mounts"] = [
        {"destination": there, "source": here, "type": "bind", "options": ["bind", "rw"]}
        for there, here in (("/gpu", DEVICE), ("/out", OUT))
    ]
    return recipes.oci_run(host, "crun", fragment, ["sh", "-c", script, name])


def lxc(host: ThrowawayHost, name: str, script: str) -> str:
    return in_lxc(host, flags_of(host, "lxc", name) + MOUNT, name, script)


def in_lxc(host: ThrowawayHost, config: str, name: str, script: str) -> str:
    config += f"""
lxc.init.uid = 1000
lxc.init.gid = 107
lxc.mount.entry = {DEVICE} gpu none bind,create=file 0 0
"""
    return lxc_execute(host, config, ["sh", "-c", script, name])


def proxmox(host: ThrowawayHost, name: str, script: str) -> str:
    """LXC, with the lines that Proxmox VE would give to it."""
    text = flags_of(host, "proxmox", name, "--vmid", "101")
    first, *lines = text.splitlines()
    assert first == "unprivileged: 1"
    assert all(line.startswith("lxc.idmap: ") for line in lines)
    config = "\n".join(line.replace(": ", " = ", 1) for line in lines)
    return in_lxc(host, f"{config}\n{MOUNT}", name, script)


def usernsexec(host: ThrowawayHost, name: str, script: str) -> str:
    """lxc-usernsexec, which calls newuidmap and newgidmap as root: the files are the host's own."""
    require("lxc-usernsexec", "setpriv")
    words = []
    for kind, lines in zip("ug", maps(host, name), strict=True):
        for line in lines:
            words += ["-m", ":".join(map(str, (kind, *line)))]
    script = script.replace("/gpu", DEVICE).replace("/out/", f"{OUT}/")
    become = ["setpriv", "--reuid", "1000", "--regid", "107", "--clear-groups"]
    return host.run("lxc-usernsexec", *words, "--", *become, "sh", "-c", script, name).stdout


def docker(host: ThrowawayHost, name: str, script: str) -> str:
    """Docker has one map for all containers, so each name has a daemon for a while."""
    passes = PASSES if name == "web" else ()
    usernsplan(host, "allocate", name, *passes, "--daemon", name, "--replace-remap", "--yes")
    with recipes.dockerd(host) as daemon:
        flags = ["--user", "1000:107", "-v", f"{DEVICE}:/gpu", "-v", f"{OUT}:/out"]
        return daemon.run(["sh", "-c", script, name], flags=flags)


def test_a_device_of_the_group_opens_and_a_file_is_the_hosts_users(devices: ThrowawayHost) -> None:
    allocate(devices, "lxc")
    check(devices, lxc)
    for run in (podman, crun, usernsexec, proxmox):
        check_web(devices, run)


@pytest.mark.slow
def test_docker_lays_the_three_lines_in_their_order(devices: ThrowawayHost) -> None:
    allocate(devices, "docker")
    check(devices, docker)


def check_web(host: ThrowawayHost, run: Runner) -> None:
    opened, seen = told(run(host, "web", SCRIPT))
    assert (opened, seen) == ("opened", (UIDS, GIDS))
    assert host.owner(f"{OUT}/web") == (1000, 104)
    host.run("rm", f"{OUT}/web")


def check(host: ThrowawayHost, run: Runner) -> None:
    check_web(host, run)
    # The container next to it has neither.
    opened, seen = told(run(host, "db", SCRIPT))
    assert (opened, seen) == ("denied", ([(0, 655360, 65536)],) * 2)
    assert host.owner(f"{OUT}/db") == (655360 + 1000, 655360 + 107)
    host.run("rm", f"{OUT}/db")


def told(said: str) -> tuple[str, tuple[list[Line], list[Line]]]:
    opened, _, rest = said.partition("\n")
    uids, gids = rest.split("\n\n")
    return opened, (sorted(recipes.lines(uids)), sorted(recipes.lines(gids)))


def test_without_roots_line_for_the_group_lxc_does_not_start(devices: ThrowawayHost) -> None:
    allocate(devices, "lxc")
    before = devices.read("/etc/subgid").decode()
    assert "root:104:1\n" in before
    assert "root:104" not in devices.read("/etc/subuid").decode()
    devices.write("/etc/subgid", before.replace("root:104:1\n", ""))
    with pytest.raises(CommandFailed, match=r"newgidmap: gid range .*104.* not allowed"):
        lxc(devices, "web", SCRIPT)
    # The same words put the line back.
    allocate(devices, "lxc")
    assert sorted(devices.read("/etc/subgid").decode().split()) == sorted(before.split())
    usernsplan(devices, "release", "web")
    assert "root:104" not in devices.read("/etc/subgid").decode()


@pytest.mark.slow
def test_an_accounts_own_podman_opens_the_device_too(devices: ThrowawayHost) -> None:
    recipes_rootless.login_user(devices, "carol", 4242)
    words = ("--strategy", "per-container", "--owner", "carol", "--pass", "g:104:107")
    usernsplan(devices, "allocate", "web", *words)
    flags = shlex.split(flags_of(devices, "podman", "web", "--rootless"))
    flags += ["--user", "1000:107", "-v", f"{DEVICE}:/gpu", "-v", f"{OUT}:/out"]
    said = recipes_rootless.podman_rootless(
        devices, "carol", flags, ["sh", "-c", SCRIPT.splitlines()[1] + "; touch /out/web"]
    )
    assert said == "opened\n"
    assert devices.owner(f"{OUT}/web") == (589824 + 1000, 104)


@pytest.mark.slow
def test_an_idmapped_volume_keeps_container_ids_on_the_disk(devices: ThrowawayHost) -> None:
    allocate(devices, "lxc")
    devices.run("install", "-d", "-m", "777", "/tmp/mapped")
    text = flags_of(devices, "lxc", "web", "--volume", "/tmp/mapped:/out")
    assert "idmap=container" in text
    in_lxc(devices, text, "web", "touch /out/made")
    assert devices.owner("/tmp/mapped/made") == (1000, 107)


@pytest.mark.slow
def test_a_folder_of_the_user_that_passes_is_mounted_as_it_is(devices: ThrowawayHost) -> None:
    allocate(devices, "lxc")
    devices.run("install", "-d", "-m", "700", "-o", "1000", "-g", "1000", "/tmp/media")
    devices.run("sh", "-c", "echo film >/tmp/media/film; chown 1000:1000 /tmp/media/film")
    text = flags_of(devices, "lxc", "web", "--volume", "/tmp/media:/media")
    assert "idmap=container" not in text
    assert in_lxc(devices, text, "web", "cat /media/film") == "film\n"


@pytest.mark.slow
def test_ctr_of_debian_12_takes_one_extent_so_a_hole_is_refused_here(
    devices: ThrowawayHost,
) -> None:
    allocate(devices, "containerd")
    with containerd(devices) as daemon:
        version = devices.run("ctr", "--version").stdout
        if " 1." not in version and "v1." not in version:
            pytest.skip(f"this is a newer one: {version}")
        refused = usernsplan(devices, "render", "containerd", "web", status=9)
        assert refused.stdout == "--userns=usernsplan-failed\n"
        assert "takes only one extent" in refused.stderr
        assert "podman" in refused.stderr
        # Of repeated flags, it would take the last of each kind: container root is in neither.
        ids = Mapping(IdMap.of(*UIDS), IdMap.of(*GIDS))
        web = Allocation("web", "usernsplan-web", "per-container", ids, IdRange(589824, 65536))
        with pytest.raises(CommandFailed):
            daemon.run(shlex.split(rendered("containerd", web).text), ["true"])
        plain = flags_of(devices, "containerd", "db")
        assert "655360" in daemon.run(shlex.split(plain), ["cat", "/proc/self/uid_map"])


# What Incus and LXD make of base, size and raw.idmap, worked out from what they made of it by hand.
MAPS_BY_RAW: list[tuple[list[Line], list[Line]]] = [
    (UIDS, GIDS),
    ([(0, 589824, 65536)], GIDS),
    ([(0, 589824, 65536)], [(0, 589824, 65535), (65535, 1000, 1)]),
    ([(0, 589824, 65530), (65530, 1000, 6)], [(0, 589824, 65530), (65530, 1000, 6)]),
    ([(0, 1000, 1), (1, 589825, 65535)], [(0, 589824, 65536), (70000, 1000, 1)]),
    ([(0, 100000, 5)], [(0, 200000, 9)]),
    ([(0, 100000, 65536), (65536, 231072, 65536)], [(0, 100000, 65536), (65536, 231072, 65536)]),
    ([(0, 100000, 65536)], [(0, 200000, 65536)]),
    ([(0, 2, 1), (1, 589824, 2), (3, 3, 65533)], [(0, 2, 1), (1, 589824, 2), (3, 3, 65533)]),
    (
        [(0, 589824, 1000), (1000, 1000, 3), (1003, 2000, 1), (1004, 590828, 64532)],
        [(0, 589824, 44), (44, 44, 1), (45, 589869, 62), (107, 104, 1), (108, 589932, 65428)],
    ),
    (
        [(0, 589824, 1000), (1000, 1000, 1), (1001, 590825, 64535), (70000, 590824, 1)],
        [(0, 589824, 65536)],
    ),
]


def joined(extents: list[Line]) -> list[Line]:
    """Extents that follow on from each other, on both sides, as one."""
    found: list[Line] = []
    for container, start, count in sorted(extents):
        if found and (sum(found[-1][::2]), sum(found[-1][1:])) == (container, start):
            found[-1] = (*found[-1][:2], found[-1][2] + count)
        else:
            found.append((container, start, count))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("program", ["incus", "lxd"])
def test_incus_and_lxd_make_the_map_of_base_size_and_raw_idmap(
    host: ThrowawayHost, program: str
) -> None:
    lines = ["root:1000000:1000000000"]
    # Root has each id that a map has, in pieces that the daemon does not take for its own instances.
    starts = (2, 32770, *range(65538, 655360, 32768))
    lines += [f"root:{start}:32768" for start in starts]
    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, "\n".join(lines) + "\n")
    with (incus if program == "incus" else lxd)(host) as daemon:
        for uids, gids in MAPS_BY_RAW:
            mapping = Mapping(IdMap.of(*uids), IdMap.of(*gids))
            made = Allocation("web", "root", "per-container", mapping, None)
            seen = daemon.start(daemon.create(rendered(program, made).text))
            assert [joined(recipes.lines(text)) for text in seen] == [uids, gids]


@pytest.mark.slow
def test_an_instance_of_incus_opens_the_device_with_the_lines_that_were_granted(
    devices: ThrowawayHost,
) -> None:
    for path in ("/etc/subuid", "/etc/subgid"):
        devices.write(path, "root:1000000:1000000000\n")
    allocate(devices, "incus")
    with incus(devices) as daemon:

        def run(host: ThrowawayHost, name: str, script: str) -> str:
            config = flags_of(host, "incus", name)
            config += f"""devices:
  out: {{type: disk, source: {OUT}, path: /out}}
  gpu: {{type: disk, source: {DEVICE}, path: /gpu}}
"""
            instance = daemon.create(config)
            daemon.start(instance)
            as_user = ["incus", "exec", instance, "--user", "1000", "--group", "107", "--"]
            return host.run(*as_user, "sh", "-c", script, name).stdout

        check(devices, run)
