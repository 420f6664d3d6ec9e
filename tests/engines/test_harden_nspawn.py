"""A policy in systemd-nspawn's words, run by it, as flags and as a .nspawn file."""

from __future__ import annotations

import errno
import re
import shlex
from typing import TYPE_CHECKING

import pytest

from tests.engines import probe
from tests.engines.planned import allocate, render, usernsplan
from tests.engines.recipes_nspawn import (
    NSPAWN,
    NSPAWN_ENVIRONMENT,
    SETTINGS_FOLDER,
    nspawn_run,
)
from tests.engines.recipes_systemd import MAKE_TREE, SHOWN, UNITS
from tests.engines.throwaway import CommandFailed
from usernsplan.harden.policy import PROFILES

if TYPE_CHECKING:
    from tests.engines.throwaway import ThrowawayHost

FILE = f"{SETTINGS_FOLDER}/web.nspawn"
# It makes a file of its own and starts a program.
WORK = "echo done >/tmp/made; cat /tmp/made"
# nspawn's own: what its filter refuses does not exist, or is not permitted.
REFUSED = {errno.ENOSYS, errno.EPERM}


@pytest.mark.parametrize("is_file", [False, True], ids=["flags", "file"])
@pytest.mark.parametrize("kept", [(), ("chown", "bpf")], ids=["none", "two"])
def test_a_process_has_what_the_policy_gives(
    host: ThrowawayHost, kept: tuple[str, ...], is_file: bool
) -> None:
    allocate(host, "nspawn", "--strategy", "per-container")
    words = ["--deny-syscall", "getcwd", "--allow-syscall", "keyctl"]
    words += ["--cap-add", ",".join(kept)] if kept else []
    usernsplan(host, "harden", "web", "--profile", "default", *words)
    usernsplan(host, "render", "nspawn", "web", "--out", "/")
    flags = [] if is_file else shlex.split(render(host, "nspawn").stdout)
    settings = host.read(FILE).decode() if is_file else None

    path = probe.install(host)
    calls = [probe.call("getcwd"), probe.call("keyctl"), probe.call("getpid")]
    script = f"cat /proc/self/status; echo; /probe {' '.join(calls)}"
    said, _, errnos = nspawn_run(
        host, [*flags, f"--bind-ro={path}:/probe"], ["/bin/sh", "-c", script], settings
    ).partition("\n\n")

    mask = probe.mask(kept)
    assert probe.status(said) == (mask, mask, mask, 0, 1, 2)
    getcwd, keyctl, getpid = map(int, errnos.split())
    # Of a buffer without room, getcwd(2) says ERANGE.
    assert getcwd in REFUSED
    # nspawn's own list refuses it.
    assert keyctl not in REFUSED
    assert getpid == 0


def test_without_a_policy_the_same_calls_end_the_other_way(host: ThrowawayHost) -> None:
    allocate(host, "nspawn", "--strategy", "per-container")
    path = probe.install(host)
    flags = [*shlex.split(render(host, "nspawn").stdout), f"--bind-ro={path}:/probe"]
    argv = ["/probe", probe.call("getcwd"), probe.call("keyctl")]
    getcwd, keyctl = map(int, nspawn_run(host, flags, argv).split())
    assert getcwd == errno.ERANGE
    assert keyctl in REFUSED


def test_it_keeps_net_bind_service_only_with_a_network_of_its_own(host: ThrowawayHost) -> None:
    allocate(host, "nspawn", "--strategy", "per-container")
    kept = ("chown", "net_bind_service")
    usernsplan(host, "harden", "web", "--profile", "default", "--cap-add", ",".join(kept))
    rendered = render(host, "nspawn")
    assert "it takes net_bind_service away, unless --private-network" in rendered.stderr
    flags, argv = shlex.split(rendered.stdout), ["cat", "/proc/self/status"]
    shared = probe.status(nspawn_run(host, flags, argv))
    assert shared.bnd == probe.mask(["chown"])
    mask = probe.mask(kept)
    own = nspawn_run(host, [*flags, "--private-network"], argv)
    assert probe.status(own) == (mask, mask, mask, 0, 1, 2)
    usernsplan(host, "render", "nspawn", "web", "--out", "/")
    file = f"{host.read(FILE).decode()}\n[Network]\nPrivate=yes\n"
    assert probe.status(nspawn_run(host, [], argv, file)) == (mask, mask, mask, 0, 1, 2)


def test_a_program_does_its_work_under_each_profile(host: ThrowawayHost) -> None:
    allocate(host, "nspawn", "--strategy", "per-container")
    for profile in PROFILES:
        usernsplan(host, "harden", "web", "--profile", profile)
        flags = shlex.split(render(host, "nspawn").stdout)
        assert nspawn_run(host, flags, ["/bin/sh", "-c", WORK]) == "done\n"


# Its status is that of the machine, and what failed before it is named.
BOOTED = """\
[Unit]
After=basic.target
SuccessAction=exit-force
FailureAction=exit-force

[Service]
Type=oneshot
StandardOutput=truncate:/stdout
ExecStart=systemctl list-units --failed --no-legend --plain
"""
# What a web server does first.
LISTEN = ["/bin/busybox", "httpd", "-p", "127.0.0.1:80"]


@pytest.mark.slow
def test_a_system_boots_with_what_the_note_names(host: ThrowawayHost) -> None:
    allocate(host, "nspawn", "--strategy", "per-container")
    tree = "/tmp/tree"
    host.run("sh", "-euc", MAKE_TREE, "sh", tree)
    host.write(f"{tree}{UNITS}/job.service", BOOTED)

    def booted(*words: str) -> tuple[bool, str]:
        """Whether it came up, with the flags for such a policy; and the notes."""
        usernsplan(host, "harden", "web", "--profile", "seed", *words)
        rendered = render(host, "nspawn")
        done = host.run(
            *NSPAWN,
            "--settings=no",
            f"--directory={tree}",
            *shlex.split(rendered.stdout),
            *(f"--bind-ro={path}" for path in SHOWN),
            *("--boot", "--", "--unit=job.service", "--show-status=no"),
            check=False,
            env=NSPAWN_ENVIRONMENT,
        )
        return done.returncode == 0, rendered.stderr

    up, notes = booted()
    assert not up
    assert not host.exists(f"{tree}/stdout")
    # What its services need, too: systemd takes setpcap to give each of them less.
    up, _ = booted("--cap-add", "sys_admin,kill")
    assert host.read(f"{tree}/stdout") != b""
    [needed] = re.findall(r"a whole system needs .* --cap-add (\S+)", notes)
    up, notes = booted("--cap-add", f"{needed},kill")
    assert up
    assert host.read(f"{tree}/stdout") == b""
    assert "a whole system needs" not in notes


def test_a_capability_over_the_network_needs_a_network_of_the_containers_own(
    host: ThrowawayHost,
) -> None:
    allocate(host, "nspawn", "--strategy", "per-container")
    usernsplan(host, "harden", "web", "--profile", "seed", "--cap-add", "net_bind_service")
    rendered = render(host, "nspawn")
    flags = shlex.split(rendered.stdout)
    with pytest.raises(CommandFailed, match="Permission denied"):
        nspawn_run(host, flags, LISTEN)
    [option] = re.findall(r"but the container's own: add (\S+) or", rendered.stderr)
    nspawn_run(host, [*flags, option], LISTEN)
