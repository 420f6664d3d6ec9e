"""Every system call and every address family, made under a policy: what the policy and the engine refuse, and no other.

The filters have an errno that nothing else gives, so what ends with it was refused by the filter.
"""

from __future__ import annotations

import errno
import json
import platform
import re
import shlex
from typing import TYPE_CHECKING

import pytest

from tests.command import slow
from tests.engines import probe, recipes, sweep
from tests.engines.planned import allocate, render, usernsplan
from tests.engines.recipes_incus import incus
from tests.engines.recipes_lxc import lxc_execute
from tests.engines.recipes_nspawn import nspawn_run
from tests.engines.recipes_systemd import UNITS, service_run
from tests.engines.throwaway import require

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.engines.sweep import Asked, Call
    from tests.engines.throwaway import ThrowawayHost

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the numbers are those of x86-64"
)

# LXC makes no rule for what i386 has by ipc(2), too: the verdict says so.
BEHIND_A_DOOR = {"shmget", "msgget"}
FILTER = "/etc/usernsplan/seccomp/web"
BASE = "/tmp/base.json"
BUNDLE = "/tmp/bundle"
ALLOW = """
{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]}
"""
AX25 = 3
EVERY = pytest.mark.parametrize("name", sweep.POLICIES)


def harden(host: ThrowawayHost, engine: str, asked: Asked, *words: str) -> None:
    allocate(host, engine, *(words or ("--strategy", "per-container")))
    usernsplan(host, "harden", "web", *asked.words)


def lost_in_lxc(asked: Asked) -> set[Call]:
    """What a 32-bit program reaches under LXC though the policy refuses it."""
    return {sweep.Call(name, arch=sweep.FOREIGN) for name in asked.deny & BEHIND_A_DOOR}


def placed(host: ThrowawayHost, engine: str, *words: str) -> str:
    """Bring the files to their places, with that errno; return what render prints and says."""
    usernsplan(host, "render", engine, "web", *words, "--out", "/", "--replace-files")
    done = usernsplan(host, "render", engine, "web", *words)
    filter_ = json.loads(host.read(f"{FILTER}.json"))
    probe.set_errno(filter_)
    host.write(f"{FILTER}.json", json.dumps(filter_))
    return f"{done.stdout}\n{done.stderr}"


def bundle(host: ThrowawayHost, asked: Asked, calls: Iterable[Call], base: str | None) -> list[int]:
    """What the calls end with in a bundle that crun runs, over this base or over none."""
    require("crun")
    harden(host, "oci", asked)
    rootfs = recipes._rootfs(host)
    host.run("cp", probe.install(host), f"{rootfs}/probe")
    config = recipes._oci_base(rootfs, ["/probe", *sweep.words(calls)], ())
    path = f"{BUNDLE}/config.json"
    host.write(path, json.dumps(config))
    if base is not None:
        host.write(BASE, base)
    words = [] if base is None else ["--base", BASE]
    usernsplan(host, "render", "oci", "web", "--bundle", BUNDLE, *words)
    config = json.loads(host.read(path))
    probe.set_errno(config["linux"]["seccomp"])
    host.write(path, json.dumps(config))
    return list(map(int, host.run("crun", "run", "--bundle", BUNDLE, "web").stdout.split()))


@pytest.mark.parametrize(
    ("name", "has_base"),
    [
        # Podman's list refuses most of it already; over nothing, all is the policy's own.
        ("seed", True),
        ("some", False),
        *slow(("seed", False), ("seed for all", True), ("seed for all", False), ("some", True)),
    ],
)
def test_in_a_bundle(host: ThrowawayHost, name: str, has_base: bool) -> None:
    asked = sweep.POLICIES[name]
    calls = [*sweep.own(asked), *sweep.foreign(asked)]
    base = sweep.podmans() if has_base else None
    ended = bundle(host, asked, calls, base)
    model = sweep.nothing if base is None else sweep.of_docker(base)
    assert sweep.mistakes(asked, calls, ended, model) == {}


@pytest.mark.slow
@EVERY
def test_under_podman(host: ThrowawayHost, name: str) -> None:
    require("podman", "crun")
    asked = sweep.POLICIES[name]
    harden(host, "podman", asked)
    flags, *_ = placed(host, "podman").splitlines()
    calls = [*sweep.own(asked), *sweep.foreign(asked)]
    said = recipes.podman_run(
        host, shlex.split(flags), ["/probe", *sweep.words(calls)], [f"{probe.install(host)}:/probe"]
    )
    model = sweep.of_docker(sweep.podmans())
    assert sweep.mistakes(asked, calls, map(int, said.split()), model) == {}


@pytest.mark.slow
@EVERY
def test_under_docker(host: ThrowawayHost, name: str) -> None:
    asked = sweep.POLICIES[name]
    usernsplan(host, "allocate", "web", "--strategy", "per-container", "--daemon", "web")
    usernsplan(host, "harden", "web", *asked.words)
    calls = [*sweep.own(asked), *sweep.foreign(asked)]
    argv, volumes = ["/probe", *sweep.words(calls)], [f"{probe.install(host)}:/probe"]
    # Docker 20.10 heeds no errno of the default action, and runc has its own for calls newer than the list.
    bases = {ALLOW: (), sweep.podmans(): (errno.EPERM, errno.ENOSYS)}
    with recipes.dockerd(host) as docker:
        for base, others in bases.items():
            host.write(BASE, base)
            note = placed(host, "docker", "--base", BASE)
            [options] = re.findall(r"options of each container: docker .*?run (.*) …", note)
            ended = map(int, docker.run(argv, volumes, shlex.split(options)).split())
            model = sweep.of_docker(base)
            assert sweep.mistakes(asked, calls, ended, model, others) == {}


def in_lxc(host: ThrowawayHost, calls: Iterable[Call]) -> list[int]:
    """What the calls end with in LXC, with what render writes, but for the errno."""
    usernsplan(host, "render", "lxc", "web", "--out", "/", "--replace-files")
    text = host.read(f"{FILTER}.lxc").decode()
    host.write(f"{FILTER}.lxc", re.sub(r" errno \d+", f" errno {probe.OURS}", text))
    config = f"""
lxc.include = /usr/share/lxc/config/userns.conf
lxc.include = /var/lib/lxc/web/usernsplan.conf
lxc.mount.entry = {probe.install(host)} probe none bind,create=file
"""
    said = lxc_execute(host, config, ["/probe", *sweep.words(calls)])
    return list(map(int, said.split()))


@pytest.mark.slow
@EVERY
def test_under_lxc(host: ThrowawayHost, name: str) -> None:
    # LXC cannot refuse other architectures, and says so; what is refused by name is refused there, too.
    asked = sweep.POLICIES[name]._replace(native=False)
    harden(host, "lxc", asked)
    calls = [*sweep.own(asked), *sweep.foreign(asked)]
    ended = in_lxc(host, calls)
    model = sweep.of_lxc(sweep.LXCS.read_text())
    assert sweep.mistakes(asked, calls, ended, model).keys() == lost_in_lxc(asked)


@pytest.mark.slow
@EVERY
def test_of_a_service_of_systemd(host: ThrowawayHost, name: str) -> None:
    asked = sweep.POLICIES[name]
    harden(host, "systemd", asked, "--strategy", "single-uid")
    rendered = render(host, "systemd")
    [account] = re.findall(r"to make one: (.+)", rendered.stderr)
    host.run("sh", "-euc", account)
    drop_in = rendered.stdout.replace(":EPERM", f":{errno.errorcode[probe.OURS]}")
    calls = [*sweep.own(asked), *sweep.foreign(asked)]
    unit = "web.service"
    files = {
        f"{UNITS}/{unit}": "[Service]\nExecStart=/bin/true\n",
        f"{UNITS}/{unit}.d/10-usernsplan.conf": drop_in,
    }
    host.run("cp", probe.install(host), "/tmp/probe")
    script = f"/tmp/probe {' '.join(sweep.words(calls))}"
    ended = list(map(int, service_run(host, files, unit, script, ["/tmp/probe"]).split()))
    # What it refuses of families has an errno of its own, which the kernel has for those that it lacks, too.
    alone = {
        call: how
        for call, how in zip(calls, ended, strict=True)
        if call.name == "socket" and call.second
    }
    by_name = {call: how for call, how in zip(calls, ended, strict=True) if call not in alone}
    plain = asked._replace(families=frozenset())
    assert sweep.mistakes(plain, by_name, by_name.values(), sweep.nothing) == {}
    for call, how in alone.items():
        if call.first in asked.families:
            assert how == errno.EAFNOSUPPORT, call
        elif call.first in {1, 2, 10, 16}:
            assert how == 0, call


@pytest.mark.slow
@EVERY
def test_in_an_instance_of_incus(host: ThrowawayHost, name: str) -> None:
    asked = sweep.POLICIES[name]._replace(native=False)
    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, "root:1000000:1000000000\n")
    harden(host, "incus", asked)
    host.run("install", "-D", probe.install(host), "/tmp/volume/probe")
    rendered = usernsplan(host, "render", "incus", "web", "--volume", "/tmp/volume:/volume").stdout
    config = rendered.replace(" errno 1", f" errno {probe.OURS}")
    calls = [*sweep.own(asked), *sweep.foreign(asked)]
    with incus(host) as running:
        instance = running.create(config)
        running.start(instance)
        said = running.execute(instance, ["/volume/probe", *sweep.words(calls)])
    # Five it refuses itself, with an errno of its own.
    its = {"kexec_load", "open_by_handle_at", "init_module", "finit_module", "delete_module"}
    ended = dict(zip(calls, map(int, said.split()), strict=True))
    own = {call: how for call, how in ended.items() if call.name in its}
    assert {*own.values()} == {errno.ENOSYS}
    others = {call: how for call, how in ended.items() if call not in own}
    found = sweep.mistakes(asked, others, others.values(), sweep.nothing)
    assert found.keys() == lost_in_lxc(asked)


@pytest.mark.slow
@EVERY
def test_under_nspawn_it_is_the_same_calls_and_no_other_that_end_differently(
    host: ThrowawayHost, name: str
) -> None:
    asked = sweep.POLICIES[name]
    harden(host, "nspawn", asked)
    with_policy = shlex.split(render(host, "nspawn").stdout)
    usernsplan(host, "harden", "web", "--profile", "default")
    without = shlex.split(render(host, "nspawn").stdout)
    calls = [*sweep.own(asked._replace(deny=frozenset())), *sweep.foreign(asked)]
    bind = f"--bind-ro={probe.install(host)}:/probe"
    before, after = (
        list(map(int, nspawn_run(host, [*flags, bind], ["/probe", *sweep.words(calls)]).split()))
        for flags in (without, with_policy)
    )
    # It has no errno to choose, and no filter of families.
    for call, was, how in zip(calls, before, after, strict=True):
        if call.name in asked.deny:
            assert how in {errno.EPERM, errno.ENOSYS}, call
        elif call.name not in asked.allow:
            assert how == was, call


@pytest.mark.slow
@pytest.mark.parametrize("has_base", [True, False])
@pytest.mark.parametrize("name", ["seed for all", "some"])
def test_a_32_bit_program_gets_a_family_by_socketcall_or_no_socket_at_all(
    host: ThrowawayHost, name: str, has_base: bool
) -> None:
    asked = sweep.POLICIES[name]
    direct = [
        sweep.Call("socket", number, sweep.DATAGRAM, sweep.FOREIGN) for number in sweep.FAMILIES
    ]
    by_door = [sweep.socketcall(number) for number in sweep.FAMILIES]
    base = sweep.podmans() if has_base else None
    ended = bundle(host, asked, [*direct, *by_door], base)
    refused = [how == probe.OURS for how in ended]
    own, foreign = refused[: len(direct)], refused[len(direct) :]
    assert {number for number in sweep.FAMILIES if own[number]} == asked.families
    # What the verdict says of each: no filter looks into the door, so it is open or shut.
    assert {*foreign} == {not has_base}
    usernsplan(host, "harden", "web", *asked.words)
    price = "reaches every address family" if has_base else "gets no socket at all"
    words = ["--bundle", BUNDLE, "--dry-run", *(["--base", BASE] if has_base else [])]
    assert (
        f"a 32-bit program {price} by socketcall(2)"
        in usernsplan(host, "render", "oci", "web", *words).stderr
    )


@pytest.mark.slow
def test_under_lxc_it_gets_every_family_and_that_is_said(host: ThrowawayHost) -> None:
    harden(host, "lxc", sweep.SEED_ALL)
    calls = [sweep.Call("socket", AX25, sweep.DATAGRAM, sweep.FOREIGN), sweep.socketcall(AX25)]
    for words in ((), ("--deny-syscall", "socketcall")):
        usernsplan(host, "harden", "web", *sweep.SEED_ALL.words, *words)
        own, by_door = in_lxc(host, calls)
        # Who shuts the door leaves a number of its own open.
        assert own != probe.OURS
        assert (by_door == probe.OURS) == bool(words)
        said = render(host, "lxc").stderr
        assert "a 32-bit program reaches what is refused of socket" in said
