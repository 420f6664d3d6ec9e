"""A whole systemd, booted in a container under a policy: its first process and a service have what the policy gives."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from tests.command import slow
from tests.engines import probe
from tests.engines.planned import allocate, maps, render, usernsplan
from tests.engines.recipes_incus import incus
from tests.engines.recipes_lxc import lxc_boot
from tests.engines.recipes_nspawn import SETTINGS_FOLDER
from tests.engines.recipes_systemd import Machine
from tests.engines.throwaway import CommandFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.engines.throwaway import ThrowawayHost

PROFILES = pytest.mark.parametrize("profile", ["default", "seed"])
ENGINES = pytest.mark.parametrize("engine", ["nspawn", "lxc"])
# What the note says: the first lets systemd mount, the others let it care for the network, for services of other users,
# and for those with a sandbox of their own.
ALONE = ("sys_admin",)
WHOLE = (
    "dac_override",
    "kill",
    "net_admin",
    "setgid",
    "setpcap",
    "setuid",
    "sys_admin",
    "sys_chroot",
)
STATUS = "cat /proc/1/status; echo; cat /proc/self/status"
# The first becomes another user, the second has a sandbox; then systemd may end both.
USUAL = "dbus.service systemd-logind.service"
SERVICES = f"""
systemctl start {USUAL}
systemctl is-active {USUAL}
systemctl show --value --property=MainPID dbus.service | while read -r pid; do cat /proc/$pid/status; done
systemctl stop dbus.socket {USUAL}
"""


def _boot(host: ThrowawayHost, engine: str, profile: str, kept: Sequence[str], script: str) -> str:
    """What a script prints in a service of a container that this engine boots; "" if it does not boot."""
    allocate(host, engine, "--strategy", "per-container")
    words = ["--cap-add", ",".join(kept)] if kept else []
    usernsplan(host, "harden", "web", "--profile", profile, *words)
    machine = Machine(host)
    if engine == "lxc":
        config = render(host, engine).stdout
        usernsplan(host, "render", engine, "web", "--out", "/")
        return lxc_boot(host, config, machine, maps(host)[0][0][1], script)
    flags = shlex.split(render(host, engine).stdout)
    if "sys_admin" in kept:
        return machine.boot(script, flags=flags)
    with pytest.raises(CommandFailed, match="Failed to mount") as failed:
        machine.boot(script, flags=flags)
    return failed.value.result.stdout


@pytest.mark.parametrize(
    ("engine", "profile"),
    [("nspawn", "seed"), *slow(("nspawn", "default"), ("lxc", "seed"), ("lxc", "default"))],
)
def test_the_first_process_and_a_service_have_what_the_policy_gives(
    host: ThrowawayHost, engine: str, profile: str
) -> None:
    mask = probe.mask(ALONE)
    first, service = _boot(host, engine, profile, ALONE, STATUS).split("\n\n")
    assert "Name:\tsystemd\n" in first
    assert probe.status(first) == probe.status(service) == (mask, mask, mask, 0, 1, 2)
    # nspawn gives it the same, LXC nothing.
    assert {probe.inheritable(said) & ~mask for said in (first, service)} == {0}
    assert f"--cap-add {','.join(WHOLE)}" in render(host, engine).stderr


@pytest.mark.slow
@ENGINES
@PROFILES
def test_without_sys_admin_it_does_not_boot_and_a_note_says_so(
    host: ThrowawayHost, engine: str, profile: str
) -> None:
    every = [name for name in WHOLE if name not in ALONE]
    assert _boot(host, engine, profile, every, "echo booted") == ""
    assert f"--cap-add {','.join(WHOLE)}" in render(host, engine).stderr


@pytest.mark.slow
@ENGINES
@PROFILES
def test_with_what_the_note_names_the_usual_services_run(
    host: ThrowawayHost, engine: str, profile: str
) -> None:
    mask = probe.mask(WHOLE)
    said = _boot(host, engine, profile, WHOLE, SERVICES)
    assert said.splitlines()[:2] == ["active", "active"]
    # It became another user, and so has nothing; but its bounding set is the policy's.
    assert probe.status(said) == (0, 0, mask, 0, 1, 2)
    assert "a whole system needs" not in render(host, engine).stderr


@pytest.mark.slow
@PROFILES
def test_the_file_of_nspawn_gives_the_same_as_its_flags(host: ThrowawayHost, profile: str) -> None:
    allocate(host, "nspawn", "--strategy", "per-container")
    usernsplan(host, "harden", "web", "--profile", profile, "--cap-add", ",".join(ALONE))
    usernsplan(host, "render", "nspawn", "web", "--out", "/")
    machine = Machine(host)
    host.run("mv", f"{SETTINGS_FOLDER}/web.nspawn", f"{SETTINGS_FOLDER}/{machine.name}.nspawn")
    first, service = machine.boot(STATUS, flags=["-U", "--settings=override"]).split("\n\n")
    mask = probe.mask(ALONE)
    assert probe.status(first) == probe.status(service) == (mask, mask, mask, 0, 1, 2)


@pytest.mark.slow
@PROFILES
def test_so_have_those_of_an_instance_of_incus(host: ThrowawayHost, profile: str) -> None:
    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, "root:1000000:1000000000\n")
    allocate(host, "incus", "--strategy", "per-container")
    usernsplan(host, "harden", "web", "--profile", profile, "--cap-add", ",".join(ALONE))
    # The host's programs, where the image has busybox alone.
    parts = {"/usr": "/usr", "/usr/lib": "/lib", "/usr/lib64": "/lib64"}
    volumes = [word for pair in parts.items() for word in ("--volume", f"{':'.join(pair)}:ro")]
    config = usernsplan(host, "render", "incus", "web", *volumes).stdout
    assert "raw.lxc: |-\n" in config
    init = "    lxc.init.cmd = /usr/lib/systemd/systemd\n"
    config = config.replace("raw.lxc: |-\n", f"raw.lxc: |-\n{init}")
    script = """
        until systemctl is-active systemd-journald >/dev/null; do sleep 0.1; done
        cat /proc/1/status
        echo
        cat /proc/$(systemctl show --value --property=MainPID systemd-journald)/status
    """
    with incus(host) as daemon:
        name = daemon.create(config)
        daemon.start(name)
        first, service = daemon.execute(name, ["/usr/bin/sh", "-c", script]).split("\n\n")
    assert "Name:\tsystemd\n" in first
    mask = probe.mask(ALONE)
    assert probe.status(first) == (mask, mask, mask, 0, 1, 2)
    *sets, no_new_privs, filtered = probe.status(service)
    # Its unit may ask for less.
    assert [one & ~mask for one in sets] == [0] * 4
    assert (no_new_privs, filtered) == (1, 2)
