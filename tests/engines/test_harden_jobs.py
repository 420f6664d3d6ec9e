"""A container does its work under each profile: it keeps files in its volume, and serves them over TCP.

The work is that of most containers: a server reads and writes a folder that it was given, and answers on a port. It runs
as the container's root and as another user, started with what render printed and nothing else. A profile that leaves
something out which every server needs fails here.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

import pytest
import yaml

from tests.command import PROGRAM, slow
from tests.engines import (
    probe,
    recipes,
    recipes_docker_instance,
    recipes_podman_auto,
    recipes_rootless,
)
from tests.engines.planned import usernsplan
from tests.engines.recipes_containerd import containerd
from tests.engines.recipes_incus import incus
from tests.engines.recipes_lxc import lxc_execute
from tests.engines.recipes_lxd import lxd
from tests.engines.recipes_nspawn import nspawn_run
from tests.engines.recipes_systemd import UNITS, service_run
from tests.engines.throwaway import REPOSITORY, require
from usernsplan import engines
from usernsplan.engines.base import RenderContext
from usernsplan.engines.hardened import is_filter
from usernsplan.harden.effective import effective
from usernsplan.harden.policy import PROFILES, Policy
from usernsplan.ids import IdRange
from usernsplan.model import Allocation
from usernsplan.strategies import PerContainer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from tests.engines.recipes_incus import Incus
    from tests.engines.recipes_lxd import Lxd
    from tests.engines.throwaway import ThrowawayHost

SOURCE, DATA = "/tmp/data", "/data"
VOLUME = ("--volume", f"{SOURCE}:{DATA}")
# Docker's own profile is in the program. Podman's has the same form.
OWN = "/usr/share/containers/seccomp.json"
# Another id of the container than that of its root.
USER = 4000
# A server that is not up yet is asked again; one that never comes up ends the work.
WORK = f"""
set -e
umask 077
busybox echo made >{DATA}/page
cat {DATA}/page
busybox httpd -f -p 127.0.0.1:8080 -h {DATA} &
trap "kill $!" EXIT
asked=0
until busybox wget -q -O - http://127.0.0.1:8080/page 2>/dev/null; do
    asked=$((asked + 1))
    [ $asked -lt 100 ]
    sleep 0.05
done
busybox stat -c %u {DATA}/page
id -u
cat /proc/self/status
"""
SHELL = ("sh", "-c", WORK)
# A service runs as one user, which it sees as the host does.
OF_SERVICE = 1000000000
BUNDLE = "/tmp/bundle"
# systemd-nspawn asks this program of the container for its users.
GETENT = f"""#!/bin/sh
case $1 in
    passwd) echo worker:x:{USER}:{USER}::/:/bin/sh ;;
    initgroups) echo worker ;;
esac
"""
# What a key of [Container] stands for: podman-systemd.unit(5).
QUADLET = {
    "UIDMap": "--uidmap={}",
    "GIDMap": "--gidmap={}",
    "Volume": "--volume={}",
    "DropCapability": "--cap-drop={}",
    "AddCapability": "--cap-add={}",
    "NoNewPrivileges": "--security-opt=no-new-privileges",
    "SeccompProfile": "--security-opt=seccomp={}",
    "SecurityLabelLevel": "--security-opt=label=level:{}",
}


def rendered(host: ThrowawayHost, engine: str, *words: str) -> tuple[str, str]:
    """What render prints once all that it writes is in its place, and its notes."""
    asked = ("render", engine, "web", *VOLUME, *words)
    written = host.run(*PROGRAM, *asked, "--out", "/", "--replace-files", check=False)
    assert written.returncode == 0 or "has no file to write" in written.stderr
    done = usernsplan(host, *asked)
    assert "does not exist" not in done.stderr
    return done.stdout, done.stderr


def as_user(user: int) -> list[str]:
    """What most engines want to hear where the container is not to run as its root."""
    return [f"--user={user}:{user}"] if user else []


def of_docker(notes: str) -> list[str]:
    """The options of docker run that notes name: for volumes, and for the policy."""
    found = re.findall(r"(?:is|are) options of each container: docker .*?run (.*) …", notes)
    assert len(found) == 1 + ("policy" in notes)
    return shlex.split(" ".join(found))


def by_podman(host: ThrowawayHost, user: int) -> str:
    flags, _ = rendered(host, "podman")
    return recipes.podman_run(host, [*shlex.split(flags), *as_user(user)], SHELL)


def by_rootless_podman(host: ThrowawayHost, user: int) -> str:
    flags, _ = rendered(host, "podman", "--rootless")
    words = [*shlex.split(flags), *as_user(user)]
    return recipes_rootless.podman_rootless(host, "alice", words, SHELL)


def by_quadlet(host: ThrowawayHost, user: int) -> str:
    text, _ = rendered(host, "quadlet")
    keys = [line.split("=", 1) for line in text.splitlines() if "=" in line]
    flags = [QUADLET[key].format(value) for key, value in keys]
    return recipes.podman_run(host, [*flags, *as_user(user)], SHELL)


def by_docker(host: ThrowawayHost, user: int) -> str:
    _, notes = rendered(host, "docker", "--base", OWN)
    with recipes.dockerd(host) as docker:
        return docker.run(SHELL, flags=[*of_docker(notes), *as_user(user)])


def by_docker_instance(host: ThrowawayHost, user: int) -> str:
    _, notes = rendered(host, "docker-instance", "--base", OWN)
    flags = ["--network=none", *of_docker(notes), *as_user(user)]
    with recipes_docker_instance.dockerd_instance(host, "/etc/docker/docker-web.json") as daemon:
        return daemon.run(SHELL, flags=flags)


def by_compose(host: ThrowawayHost, user: int) -> str:
    text, _ = rendered(host, "compose", "--base", OWN)
    service = yaml.safe_load(text)["services"]["web"]
    keys = {"cap_drop": "--cap-drop", "cap_add": "--cap-add", "security_opt": "--security-opt"}
    flags = [f"{flag}={word}" for key, flag in keys.items() for word in service.get(key, ())]
    flags += [f"--volume={one['source']}:{one['target']}" for one in service["volumes"]]
    with recipes.dockerd(host) as docker:
        return docker.run(SHELL, flags=[*flags, *as_user(user)])


def by_runtime(host: ThrowawayHost, user: int, runtime: str) -> str:
    rootfs = recipes._rootfs(host)
    host.run("mkdir", "-p", f"{rootfs}{DATA}")
    config = recipes._oci_base(rootfs, SHELL, ())
    config["process"]["user"] = {"uid": user, "gid": user}
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    host.write(f"{BUNDLE}/config.json", json.dumps(config))
    usernsplan(host, "render", "oci", "web", *VOLUME, "--bundle", BUNDLE)
    return host.run(runtime, "run", "--bundle", BUNDLE, "web").stdout


def by_crun(host: ThrowawayHost, user: int) -> str:
    return by_runtime(host, user, "crun")


def by_runc(host: ThrowawayHost, user: int) -> str:
    return by_runtime(host, user, "runc")


def by_ctr(host: ThrowawayHost, user: int) -> str:
    flags, _ = rendered(host, "containerd")
    with containerd(host, user=f"{user}:{user}") as daemon:
        return daemon.run(shlex.split(flags), SHELL)


def by_lxc(host: ThrowawayHost, user: int) -> str:
    rendered(host, "lxc")
    lines = [
        "lxc.include = /usr/share/lxc/config/userns.conf",
        "lxc.include = /var/lib/lxc/web/usernsplan.conf",
        # Brings the loopback up, too.
        "lxc.net.0.flags = up",
        *[f"lxc.init.{kind} = {user}" for kind in ("uid", "gid") if user],
    ]
    return lxc_execute(host, "\n".join(lines), SHELL)


def by_incus(host: ThrowawayHost, user: int) -> str:
    return by_daemon(host, user, "incus", incus)


def by_lxd(host: ThrowawayHost, user: int) -> str:
    return by_daemon(host, user, "lxd", lxd)


def by_daemon(
    host: ThrowawayHost,
    user: int,
    engine: str,
    daemon: Callable[[ThrowawayHost], AbstractContextManager[Incus | Lxd]],
) -> str:
    text, _ = rendered(host, engine)
    with daemon(host) as running:
        name = running.create(text)
        running.start(name)
        # As its init would.
        running.execute(name, ("sh", "-c", "busybox ip link set lo up && echo up"))
        words = [f"--{kind}={user}" for kind in ("user", "group") if user]
        return running.execute(name, SHELL, words)


def by_nspawn(host: ThrowawayHost, user: int) -> str:
    flags, _ = rendered(host, "nspawn")
    words = []
    if user:
        host.write("/tmp/getent", GETENT, 0o755)
        words = ["--bind-ro=/tmp/getent:/bin/getent", "--user=worker"]
    return nspawn_run(host, [*shlex.split(flags), *words], ["/bin/sh", "-c", WORK])


def by_systemd(host: ThrowawayHost, user: int) -> str:
    text, notes = rendered(host, "systemd")
    assert f"User={user}" in text
    [commands] = re.findall(r"the id has to belong to an account; to make one: (.+)", notes)
    host.run("sh", "-euc", commands)
    unit = "web.service"
    files = {
        f"{UNITS}/{unit}": "[Service]\nExecStart=/bin/true\n",
        f"{UNITS}/{unit}.d/10-usernsplan.conf": text,
    }
    return service_run(host, files, unit, WORK, [SOURCE])


class Engine(NamedTuple):
    """How an engine does the work; the words of an allocation for it, and what it needs of a policy."""

    run: Callable[[ThrowawayHost, int], str]
    words: Sequence[str] = ()
    needs: Sequence[str] = ()


# What Debian's packages give to root.
OF_INSTANCES = "root:1000000:1000000000\n"
# What those tell who set up their own network: render's notes name it.
NETWORK = ("--cap-add", "net_admin")
ENGINES = {
    "crun": Engine(by_crun),
    "runc": Engine(by_runc),
    "podman": Engine(by_podman),
    "rootless": Engine(by_rootless_podman, ("--owner", "alice")),
    "quadlet": Engine(by_quadlet),
    "docker": Engine(by_docker, ("--daemon", "web")),
    "docker-instance": Engine(by_docker_instance, ("--engine", "docker-instance")),
    "compose": Engine(by_compose, ("--daemon", "web")),
    "containerd": Engine(by_ctr),
    "lxc": Engine(by_lxc, ("--engine", "lxc")),
    "incus": Engine(by_incus, ("--engine", "incus"), NETWORK),
    "lxd": Engine(by_lxd, ("--engine", "lxd"), NETWORK),
    "nspawn": Engine(by_nspawn, ("--engine", "nspawn")),
    "systemd": Engine(by_systemd, ("--engine", "systemd")),
}


FAST = ("crun", "seed")
CASES = [(engine, profile) for engine in ENGINES for profile in PROFILES]


@pytest.mark.parametrize(
    ("engine", "profile"), [FAST, *slow(*(case for case in CASES if case != FAST))]
)
def test_a_server_keeps_its_files_and_answers(
    host: ThrowawayHost, engine: str, profile: str
) -> None:
    run, words, needs = ENGINES[engine]
    if engine == "rootless":
        recipes_rootless.login_user(host, "alice", 4242)
    if engine in {"incus", "lxd"}:
        for path in ("/etc/subuid", "/etc/subgid"):
            host.write(path, OF_INSTANCES)
    strategy = "single-uid" if engine == "systemd" else "per-container"
    usernsplan(host, "allocate", "web", "--strategy", strategy, *words)
    usernsplan(host, "harden", "web", "--profile", profile, *needs)

    users = [USER] if profile == "strict" else [0, USER]
    for user in [OF_SERVICE] if engine == "systemd" else users:
        host.run("rm", "-rf", SOURCE)
        host.run("install", "-d", SOURCE)
        inside = 0 if engine == "systemd" else user
        usernsplan(host, "fix-volume", SOURCE, "--container", "web", "--user", f"{inside}:{inside}")
        *did, owner, own, status = run(host, user).split("\n", 4)
        assert did == ["made", "made"]
        assert owner == own == f"{user}"
        # The policy was in force meanwhile.
        its = probe.status(status)
        assert (its.bnd, its.no_new_privs) == (probe.mask(needs[1:]), 1)
        assert its.seccomp or profile != "seed"


@pytest.mark.parametrize("profile", [PROFILES[0], *slow(*PROFILES[1:])])
def test_a_container_out_of_podmans_pool_does_so_too(host: ThrowawayHost, profile: str) -> None:
    """Pools have no policy, so only the library renders these flags."""
    words = ("--strategy", "per-container", "--engine", "podman-auto", "--auto-containers", "2")
    usernsplan(host, "allocate", "web", *words)
    host.write(recipes_podman_auto.STORAGE_CONF, recipes.STORAGE_CONF)
    usernsplan(host, "render", "podman-auto", "containers", "--out", "/")
    context = RenderContext(
        policy=effective(Policy(profile)),
        own_filter=host.read(OWN),
        own_filter_place=OWN,
        selinux="off",
    )
    pool = PerContainer(2 * 65536)
    allocation = Allocation(
        "containers", "containers", pool.name, pool.mapping(589824), IdRange(589824, 2 * 65536)
    )
    made = engines.render("podman-auto", allocation, context)
    for file in made.files:
        if is_filter(file.path):
            host.write(file.path, file.content)
    host.run("install", "-d", SOURCE)
    flags = [*shlex.split(made.text), *as_user(USER)]
    said = recipes_podman_auto.podman_configured(host, flags, SHELL, [f"{SOURCE}:{DATA}:U"])
    assert said.split()[:4] == ["made", "made", f"{USER}", f"{USER}"]


@pytest.mark.parametrize(
    ("capabilities", "work"),
    [
        ("net_bind_service", "busybox httpd -p 127.0.0.1:80"),
        ("chown", f"busybox chown {USER} /dev/file"),
        ("setuid,setgid", "busybox su worker -c true"),
    ],
)
def test_what_readme_names_comes_back_with_its_capability(
    host: ThrowawayHost, capabilities: str, work: str
) -> None:
    require("crun")
    usernsplan(host, "allocate", "web", "--strategy", "per-container")
    rootfs = recipes._rootfs(host)
    host.write(f"{rootfs}/etc/passwd", f"root::0:0::/:/bin/sh\nworker::{USER}:{USER}::/:/bin/sh\n")
    argv = ["sh", "-c", f"busybox touch /dev/file; {work}"]
    done = []
    for given in ("none", capabilities):
        words = [] if given == "none" else ["--cap-add", given]
        usernsplan(host, "harden", "web", "--profile", "seed", *words)
        host.write(f"{BUNDLE}/config.json", json.dumps(recipes._oci_base(rootfs, argv, ())))
        usernsplan(host, "render", "oci", "web", "--bundle", BUNDLE)
        ended = host.run("crun", "run", "--bundle", BUNDLE, "web", check=False)
        done.append(ended.returncode == 0)
    assert done == [False, True]
    # Its table of what programs need.
    readme = (REPOSITORY / "README.md").read_text()
    assert f"`{capabilities}`" in readme


@pytest.mark.parametrize("engine", ["crun", *slow("podman", "docker", "lxc")])
def test_render_says_where_another_user_cannot_use_a_capability(
    host: ThrowawayHost, engine: str
) -> None:
    run, words, _ = ENGINES[engine]
    usernsplan(host, "allocate", "web", "--strategy", "per-container", *words)
    usernsplan(host, "harden", "web", "--profile", "strict", "--cap-add", "kill")
    host.run("install", "-d", SOURCE)
    usernsplan(host, "fix-volume", SOURCE, "--container", "web", "--user", f"{USER}:{USER}")
    status = probe.status(run(host, USER))
    kept = probe.mask(["kill"])
    assert status.bnd == kept
    if engine == "crun":
        notes = usernsplan(host, "render", "oci", "web", "--bundle", BUNDLE).stderr
    else:
        notes = usernsplan(host, "render", engine, "web").stderr
    assert (status.eff == 0) == ("program cannot use them" in notes)
    assert (status.eff == kept) == (engine == "podman")
