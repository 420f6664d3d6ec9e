"""What a policy makes of a process in a container of Podman, Docker, crun, runc and ctr: the kernel says it.

The filter of these tests has an errno that nothing else gives, so what fails with it was refused by the filter.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from typing import TYPE_CHECKING, Literal

import pytest
import yaml

from tests.command import slow
from tests.engines import probe, recipes, recipes_docker_instance, recipes_rootless
from tests.engines.planned import usernsplan
from tests.engines.recipes_containerd import containerd
from tests.engines.throwaway import require
from usernsplan.harden.names import system_calls
from usernsplan.host.libseccomp import unknown

if TYPE_CHECKING:
    from tests.engines.throwaway import ThrowawayHost

FILTER = "/etc/usernsplan/seccomp/web.json"
# Bits 0 and 10 of linux/capability.h; no engine gives a container these two alone.
KEPT = ("--cap-add", "chown,net_bind_service")
MASK = "0000000000000401"
NONE = "0000000000000000"
# AF_INET is among the families that every engine lets through.
REFUSED = ("--deny-syscall", "mkdir,mkdirat", "--deny-family", "inet")
# A filter of an engine that allows all: what is refused is refused by the policy.
BASE = "/tmp/base.json"
BUNDLE = "/tmp/bundle"
# strerror(3) of probe.OURS.
FROM_FILTER = "Protocol error"
ASK = """
busybox grep -E '^(Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/self/status
echo more
mkdir /tmp/made 2>&1
busybox ifconfig lo 2>&1
cat /proc/self/comm
busybox ip link show lo | busybox grep -o lo:
"""


def allocate(host: ThrowawayHost, *words: str) -> None:
    usernsplan(host, "allocate", "web", "--strategy", "per-container", *words)
    usernsplan(host, "harden", "web", "--profile", "default", *KEPT, *REFUSED)


def place(host: ThrowawayHost, engine: str, *words: str) -> str:
    """Bring the files to their places, with the errno of these tests; return the text and the notes."""
    usernsplan(host, "render", engine, "web", *words, "--out", "/")
    done = usernsplan(host, "render", engine, "web", *words)
    assert FILTER not in done.stderr or "does not exist" not in done.stderr
    filter_ = json.loads(host.read(FILTER))
    probe.set_errno(filter_)
    host.write(FILTER, json.dumps(filter_))
    return f"{done.stdout}\n{done.stderr}"


def check(said: str) -> None:
    """What ASK has to say under the policy of ``allocate``."""
    status, _, tried = said.partition("more\n")
    assert dict(line.split(":\t") for line in status.splitlines()) == {
        "CapPrm": MASK,
        "CapEff": MASK,
        "CapBnd": MASK,
        "CapAmb": NONE,
        "NoNewPrivs": "1",
        "Seccomp": "2",
    }
    made, family, *allowed = tried.splitlines()
    assert made.endswith(FROM_FILTER)
    assert family.endswith(FROM_FILTER)
    assert allowed == ["cat", "lo:"]


def options(note: str) -> list[str]:
    """The options of docker run that a note names."""
    [words] = re.findall(r"the policy is options of each container: docker .*?run (.*) …", note)
    return shlex.split(words)


def test_podman_run_enforces_what_render_prints(host: ThrowawayHost) -> None:
    require("podman", "crun")
    allocate(host)
    flags, *_ = place(host, "podman").splitlines()
    check(recipes.podman_run(host, shlex.split(flags), ["sh", "-c", ASK]))


def test_an_accounts_own_podman_enforces_it_too(host: ThrowawayHost) -> None:
    recipes_rootless.login_user(host, "alice", 4242)
    allocate(host, "--owner", "alice")
    flags, *_ = place(host, "podman", "--rootless").splitlines()
    ask = ["sh", "-c", ASK]
    check(recipes_rootless.podman_rootless(host, "alice", shlex.split(flags), ask))


@pytest.mark.slow
def test_an_accounts_own_profile_is_what_its_filter_is_laid_over(host: ThrowawayHost) -> None:
    recipes_rootless.login_user(host, "alice", 4242)
    usernsplan(host, "allocate", "web", "--strategy", "per-container", "--owner", "alice")
    usernsplan(host, "harden", "web", "--profile", "default", "--deny-syscall", "kcmp")
    own = json.loads(host.read("/usr/share/containers/seccomp.json"))
    for rule in own["syscalls"]:
        rule["names"] = [name for name in rule["names"] if not name.startswith("mkdir")]
    folder = "/home/alice/.config/containers"
    host.write("/home/alice/own.json", json.dumps(own))
    # Only the last of the drop-ins has it.
    path = f"{folder}/containers.conf.d/99-own.conf"
    host.write(path, '[containers]\nseccomp_profile = "/home/alice/own.json"\n')
    usernsplan(host, "render", "podman", "web", "--rootless", "--out", "/")
    flags = shlex.split(usernsplan(host, "render", "podman", "web", "--rootless").stdout)
    ask = ["sh", "-c", "mkdir /tmp/made 2>/dev/null && echo made || echo refused"]

    # What Podman does by itself, and what it does with the policy.
    for words in ([], flags):
        assert recipes_rootless.podman_rootless(host, "alice", words, ask) == "refused\n"
    host.run("rm", path)
    assert recipes_rootless.podman_rootless(host, "alice", [], ask) == "made\n"


def test_docker_run_enforces_what_the_note_names_and_what_compose_says(host: ThrowawayHost) -> None:
    require("dockerd", "docker")
    allocate(host, "--daemon", "web")
    host.write(BASE, '{"defaultAction": "SCMP_ACT_ALLOW"}')
    note = place(host, "docker", "--base", BASE)
    text = usernsplan(host, "render", "compose", "web", "--base", BASE).stdout
    service = yaml.safe_load(text)["services"]["web"]
    keys = {"cap_drop": "--cap-drop", "cap_add": "--cap-add", "security_opt": "--security-opt"}
    flags = [f"{flag}={word}" for key, flag in keys.items() for word in service[key]]
    with recipes.dockerd(host) as docker:
        check(docker.run(["sh", "-c", ASK], flags=options(note)))
        check(docker.run(["sh", "-c", ASK], flags=flags))


def test_a_daemon_of_its_own_has_the_filter_for_all_its_containers(host: ThrowawayHost) -> None:
    allocate(host, "--engine", "docker-instance")
    host.write(BASE, '{"defaultAction": "SCMP_ACT_ALLOW"}')
    note = place(host, "docker-instance", "--base", BASE)
    flags = options(note)
    assert not [word for word in flags if "seccomp" in word or "new-priv" in word]
    with recipes_docker_instance.dockerd_instance(host, "/etc/docker/docker-web.json") as daemon:
        check(daemon.run(["sh", "-c", ASK], flags=["--network=none", *flags]))


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_bundle_that_is_patched_has_it_for_each_runtime(
    host: ThrowawayHost, runtime: Literal["crun", "runc"]
) -> None:
    require(runtime)
    allocate(host)
    config = recipes._oci_base(recipes._rootfs(host), ["sh", "-c", ASK], ())
    # What the process may not keep, and what it has not got.
    config["process"]["capabilities"] |= {"inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]}
    path = f"{BUNDLE}/config.json"
    host.write(path, json.dumps(config))
    usernsplan(host, "render", "oci", "web", "--bundle", BUNDLE)
    config = json.loads(host.read(path))
    probe.set_errno(config["linux"]["seccomp"])
    host.write(path, json.dumps(config))
    check(host.run(runtime, "run", "--bundle", BUNDLE, "web").stdout)


@pytest.mark.parametrize("runtime", ["crun", *slow("runc")])
def test_a_call_that_the_hosts_library_does_not_know_passes_and_render_says_so(
    host: ThrowawayHost, runtime: str
) -> None:
    require(runtime)
    newer = sorted(unknown(system_calls()))
    newer = [call for call in newer if os.uname().machine in system_calls()[call]]
    if not newer:
        pytest.skip("this libseccomp knows all calls of the table")
    usernsplan(host, "allocate", "web", "--strategy", "per-container")
    usernsplan(
        host, "harden", "web", "--profile", "default", "--deny-syscall", f"{newer[-1]},getcwd"
    )
    path = probe.install(host)
    argv = ["/probe", *(probe.call(name) for name in (newer[-1], "getcwd"))]
    rootfs = recipes._rootfs(host)
    host.run("cp", path, f"{rootfs}/probe")
    file = f"{BUNDLE}/config.json"
    host.write(file, json.dumps(recipes._oci_base(rootfs, argv, ())))
    told = usernsplan(host, "render", "oci", "web", "--bundle", BUNDLE).stderr
    assert f"nothing refuses {newer[-1]}: the libseccomp of this host" in told
    config = json.loads(host.read(file))
    probe.set_errno(config["linux"]["seccomp"])
    host.write(file, json.dumps(config))
    passed, refused = host.run(runtime, "run", "--bundle", BUNDLE, "web").stdout.split()
    assert passed != f"{probe.OURS}"
    assert refused == f"{probe.OURS}"

    # A list of what is allowed does not need to know it.
    config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}],
    }
    host.write(file, json.dumps(config))
    told = usernsplan(host, "render", "oci", "web", "--bundle", BUNDLE).stderr
    assert "nothing refuses" not in told


def test_ctr_run_enforces_what_render_prints(host: ThrowawayHost) -> None:
    require("containerd", "ctr")
    allocate(host)
    flags, *_ = place(host, "containerd").splitlines()
    with containerd(host) as daemon:
        check(daemon.run(shlex.split(flags), ["sh", "-c", ASK]))


def test_who_is_not_root_keeps_no_bounding_set_and_gains_nothing_by_setuid(
    host: ThrowawayHost,
) -> None:
    require("crun", "ldd")
    usernsplan(host, "allocate", "web", "--strategy", "per-container")
    rootfs = recipes._rootfs(host)
    # busybox gives setuid away by itself; cat does not.
    script = """
        cp /bin/cat "$1/raise"
        for file in $(ldd /bin/cat | grep -o '/[^ ]*'); do cp --parents -L "$file" "$1"; done
        chown "$2:$2" "$1/raise"
        chmod 4755 "$1/raise"
    """
    root = usernsplan(host, "render", "uid_map", "web").stdout.split()[1]
    host.run("sh", "-euc", script, "sh", rootfs, root)
    ask = "busybox grep -E '^Cap(Eff|Bnd):' /proc/self/status; /raise /proc/self/status"
    config = recipes._oci_base(rootfs, ["sh", "-c", ask], ())
    config["process"]["user"] = {"uid": 3267, "gid": 3267}

    def run() -> tuple[list[str], list[str]]:
        """CapEff and CapBnd of the process, and the uids of the setuid program that it runs."""
        host.write(f"{BUNDLE}/config.json", json.dumps(config))
        usernsplan(host, "render", "oci", "web", "--bundle", BUNDLE)
        said = host.run("crun", "run", "--bundle", BUNDLE, "web").stdout
        sets = re.findall(r"^Cap\w+:\t(\w+)$", said, re.MULTILINE)[:2]
        [uids] = re.findall(r"^Uid:\t(.*)$", said, re.MULTILINE)
        return sets, uids.split()

    # Bits 0, 1, 3, 4, 5, 6, 7: those of the recipe.
    assert run() == ([NONE, "00000000000000fb"], ["3267", "0", "0", "0"])
    usernsplan(host, "harden", "web", "--profile", "default")
    assert run() == ([NONE, NONE], ["3267"] * 4)
