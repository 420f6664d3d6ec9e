"""A policy in LXC's words, run by LXC: what its process may do is what the policy says."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from tests.engines import probe
from tests.engines.planned import allocate, usernsplan
from tests.engines.recipes_lxc import lxc_execute
from usernsplan.harden.policy import PROFILES

if TYPE_CHECKING:
    from tests.engines.throwaway import ThrowawayHost

# LXC's own configuration for containers with a user namespace gives all capabilities back.
USERNS = "lxc.include = /usr/share/lxc/config/userns.conf"
FILE = "/var/lib/lxc/web/usernsplan.conf"
FILTER = "/etc/usernsplan/seccomp/web.lxc"
AX25, INET, VSOCK = 3, 2, 40
# It makes a file of its own and starts a program.
WORK = "echo done >/made; cat /made"
# socket(2) as socketcall(2) has it.
SYS_SOCKET = 1


@pytest.mark.parametrize("kept", [(), ("chown", "kill")], ids=["none", "two"])
def test_a_process_has_what_the_policy_gives(host: ThrowawayHost, kept: tuple[str, ...]) -> None:
    allocate(host, "lxc", "--strategy", "per-container")
    words = ("--cap-add", ",".join(kept)) if kept else ()
    usernsplan(host, "harden", "web", "--profile", "seed", *words)
    usernsplan(host, "render", "lxc", "web", "--out", "/")
    of_filter = host.read(FILTER).decode()
    # LXC's own list is still there.
    assert "reject_force_umount" in of_filter
    host.write(FILTER, of_filter.replace(" errno 1", f" errno {probe.OURS}"))

    path = probe.install(host)
    config = f"{USERNS}\nlxc.include = {FILE}\nlxc.mount.entry = {path} probe none bind,create=file"
    calls = [
        probe.call("kcmp"),
        probe.call("swapoff"),
        probe.call("open_by_handle_at"),
        probe.call("kcmp", arch="i386"),
        probe.socket(AX25),
        probe.socket(VSOCK),
        probe.socket(INET),
        probe.call("getcwd"),
        probe.call("socketcall", SYS_SOCKET, AX25, arch="i386"),
    ]
    script = f"cat /proc/self/status; echo; /probe {' '.join(calls)}"
    said, _, errnos = lxc_execute(host, config, ["sh", "-c", script]).partition("\n\n")

    mask = probe.mask(kept)
    assert probe.status(said) == (mask, mask, mask, 0, 1, 2)
    *denied, inet, getcwd, by_socketcall = map(int, errnos.split())
    assert denied == [probe.OURS] * 6
    assert inet == 0
    assert getcwd not in {0, probe.OURS}
    # The price that the verdict states: a 32-bit program has another way to the same.
    assert by_socketcall != probe.OURS


def test_the_lines_for_proxmox_are_lxcs_with_what_proxmox_refuses_itself(
    host: ThrowawayHost,
) -> None:
    allocate(host, "proxmox", "--strategy", "per-container")
    usernsplan(host, "harden", "web", "--profile", "seed", "--allow-family", "ALG")
    # How pve-container makes its own: a line after LXC's.
    common = host.read("/usr/share/lxc/config/common.seccomp").decode()
    host.write("/usr/share/lxc/config/pve-userns.seccomp", f"{common}keyctl errno 38\n")
    rendered = usernsplan(host, "render", "proxmox", "web", "--vmid", "101", "--out", "/")
    assert "/etc/usernsplan/lxc/web.conf" in rendered.stderr
    printed = usernsplan(host, "render", "proxmox", "web", "--vmid", "101").stdout
    host.write(FILTER, host.read(FILTER).decode().replace(" errno 1", f" errno {probe.OURS}"))

    path = probe.install(host)
    config = [line.replace(": ", " = ") for line in printed.splitlines() if line.startswith("lxc.")]
    config += [f"lxc.mount.entry = {path} probe none bind,create=file"]
    calls = [
        probe.call("kcmp"),
        # Of btrfs: a descriptor that is not open, and 0x94 as the kind of request.
        probe.call("ioctl", 99, 0x9401),
        probe.call("keyctl"),
        probe.socket(VSOCK),
        probe.socket(INET),
    ]
    script = f"cat /proc/self/status; echo; /probe {' '.join(calls)}"
    argv = ["sh", "-c", script]
    said, _, errnos = lxc_execute(host, "\n".join([USERNS, *config]), argv).partition("\n\n")
    assert probe.status(said) == (0, 0, 0, 0, 1, 2)
    ours = [probe.OURS] * 2
    assert list(map(int, errnos.split())) == [*ours, errno.ENOSYS, probe.OURS, 0]


def test_a_program_does_its_work_under_each_profile(host: ThrowawayHost) -> None:
    allocate(host, "lxc", "--strategy", "per-container")
    for profile in PROFILES:
        usernsplan(host, "harden", "web", "--profile", profile)
        usernsplan(host, "render", "lxc", "web", "--out", "/", "--replace-files")
        argv = ["sh", "-c", WORK]
        assert lxc_execute(host, f"{USERNS}\nlxc.include = {FILE}", argv) == "done\n"
