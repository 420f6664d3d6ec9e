"""/proc/PID/status, beside what capsh (libcap's own) makes of the same bits."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.command import missing
from tests.each import each
from usernsplan.errors import InvalidValueError
from usernsplan.formats import proc_status
from usernsplan.formats.proc_status import Capabilities, Ids
from usernsplan.harden.names import CAPABILITIES

# A rootless container's process as Linux 6.18 tells of it, shortened; the tabs are the kernel's.
TEXT = """\
Name:\tsleep\\n\\\\x
Umask:\t0022
State:\tS (sleeping)
Tgid:\t4711
Pid:\t4711
Uid:\t1000\t1001\t1002\t1003
Gid:\t2000\t2001\t2002\t2003
Groups:\t4 24 100033\x20
Kthread:\t0
VmSize:\t    2540 kB
CapInh:\t0000000000000001
CapPrm:\t00000000a80425fb
CapEff:\t0000000000000000
CapBnd:\t000001ffffffffff
CapAmb:\t0000020000000000
NoNewPrivs:\t1
Seccomp:\t2
Seccomp_filters:\t3
"""


def test_every_field_is_read() -> None:
    status = proc_status.parse(TEXT)
    assert status.name == "sleep\n\\x"
    assert status.state == "S"
    assert status.uids == Ids(1000, 1001, 1002, 1003)
    assert status.gids == Ids(2000, 2001, 2002, 2003)
    assert status.groups == (4, 24, 100033)
    assert status.no_new_privs is True
    assert (status.seccomp, status.filters) == (2, 3)
    assert not status.kernel_thread
    have = status.capabilities
    assert have.inheritable == ("chown",)
    # What Docker gives by default is a80425fb: docker run, CapBnd.
    assert have.permitted == (
        *(
            "chown",
            "dac_override",
            "fowner",
            "fsetid",
            "kill",
            "setgid",
            "setuid",
            "setpcap",
            "net_bind_service",
        ),
        *("net_raw", "sys_chroot", "mknod", "audit_write", "setfcap"),
    )
    assert have.effective == ()
    assert have.bounding == CAPABILITIES
    # Bit 41 has no name yet.
    assert have.ambient == ("41",)


def test_what_an_old_kernel_does_not_tell_is_unknown() -> None:
    lines = [
        line
        for line in TEXT.split("\n")
        if not line.startswith(("NoNew", "Seccomp", "CapAmb", "Kthread"))
    ]
    status = proc_status.parse("\n".join(lines))
    assert status.no_new_privs is None
    assert status.seccomp is None
    assert status.filters is None
    assert status.capabilities.ambient == ()
    assert not status.kernel_thread


def test_a_process_without_memory_is_a_kernel_thread() -> None:
    old = "\n".join(line for line in TEXT.split("\n") if not line.startswith(("Kthread", "VmSize")))
    assert proc_status.parse(old).kernel_thread
    assert proc_status.parse(TEXT.replace("Kthread:\t0", "Kthread:\t1")).kernel_thread


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Name:\tx\n",
        TEXT.replace("Uid:\t1000", "Uid:\tx"),
        TEXT.replace("a80425fb", "zz"),
        TEXT.replace("\t1003", ""),
    ],
)
def test_other_text_is_an_error(text: str) -> None:
    with pytest.raises(InvalidValueError):
        proc_status.parse(text)


def test_no_set_is_no_name() -> None:
    assert proc_status.names(0) == ()
    assert Capabilities().bounding == ()


@each("bit", range(len(CAPABILITIES)))
def test_the_names_are_those_of_libcap(bit: int) -> None:
    capsh = shutil.which("capsh", path="/usr/sbin:/sbin:/usr/bin") or missing("capsh")
    said = subprocess.run(
        [capsh, f"--decode={1 << bit:x}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert said == f"0x{1 << bit:016x}=cap_{CAPABILITIES[bit]}"


def test_the_kernel_knows_no_more_than_we_do_and_our_own_status_is_read() -> None:
    assert int(Path("/proc/sys/kernel/cap_last_cap").read_text()) <= len(CAPABILITIES) - 1
    status = proc_status.parse(Path("/proc/self/status").read_text())
    assert status.uids.all() == (*os.getresuid(), os.geteuid())
    assert set(status.groups) == set(os.getgroups())
