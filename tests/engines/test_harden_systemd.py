"""A policy in systemd's words: a drop-in, judged by systemd, with which a service then runs."""

from __future__ import annotations

import errno
import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.engines import probe
from tests.engines.planned import allocate, render, usernsplan
from tests.engines.recipes_systemd import UNITS, service_run, verify
from tests.engines.throwaway import require
from usernsplan.harden.policy import PROFILES

if TYPE_CHECKING:
    from tests.engines.throwaway import ThrowawayHost

UNIT = "web.service"
DROP_IN = f"{UNITS}/{UNIT}.d/10-usernsplan.conf"
SERVICE = {f"{UNITS}/{UNIT}": "[Service]\nExecStart=/bin/true\n"}
# systemd joins the lists of a unit and of its drop-ins.
GENEROUS = {
    f"{UNITS}/{UNIT}": """\
[Service]
ExecStart=/bin/true
CapabilityBoundingSet=CAP_NET_RAW
AmbientCapabilities=CAP_NET_RAW
SystemCallFilter=@system-service kcmp
"""
}
# It makes a file of its own and starts a program.
WORK = "echo done >/tmp/made; cat /tmp/made"
AX25, INET, PACKET = 3, 2, 17


@pytest.mark.parametrize("kept", [(), ("chown", "net_bind_service")], ids=["none", "two"])
def test_a_service_has_what_the_policy_gives(host: ThrowawayHost, kept: tuple[str, ...]) -> None:
    allocate(host, "systemd", "--strategy", "single-uid")
    words = ("--cap-add", ",".join(kept)) if kept else ()
    usernsplan(host, "harden", "web", "--profile", "seed", *words)
    _make_account(host)
    rendered = render(host, "systemd")
    verify(host, {**SERVICE, DROP_IN: rendered.stdout}, UNIT)

    # EPROTO is 71.
    drop_in = rendered.stdout.replace(":EPERM", f":{errno.errorcode[probe.OURS]}")
    calls = [
        probe.call("kcmp"),
        probe.call("adjtimex"),
        probe.call("getcwd"),
        probe.socket(AX25),
        probe.socket(PACKET),
        probe.socket(INET),
    ]
    foreign = probe.call("getpid", arch="i386")
    script = f"""
        cat /proc/self/status
        echo
        /probe {" ".join(calls)} {foreign}
    """
    path = probe.install(host)
    host.run("sh", "-c", f"install -D {path} /tmp/probe")
    said, _, rest = service_run(
        host,
        {**GENEROUS, DROP_IN: drop_in},
        UNIT,
        script.replace("/probe", "/tmp/probe"),
        ["/tmp/probe"],
    ).partition("\n\n")

    mask = probe.mask(kept)
    assert probe.status(said) == (mask, mask, mask, mask, 1, 2)
    assert probe.inheritable(said) == mask
    *ended, killed = map(int, rest.split())
    assert ended[:2] == [probe.OURS] * 2
    assert ended[2] == errno.ERANGE
    assert ended[3:] == [errno.EAFNOSUPPORT, errno.EAFNOSUPPORT, 0]
    assert killed == -signal.SIGSYS


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kept", [(), ("chown", "sys_ptrace")], ids=["none", "two"])
@pytest.mark.parametrize("gains", [False, True], ids=["no_new_privs", "new privileges"])
def test_under_each_profile_it_has_what_the_policy_gives_and_no_more(
    host: ThrowawayHost, profile: str, kept: tuple[str, ...], gains: bool
) -> None:
    allocate(host, "systemd", "--strategy", "single-uid")
    words = ["--cap-add", ",".join(kept)] if kept else []
    words += ["--allow-new-privileges"] if gains else []
    usernsplan(host, "harden", "web", "--profile", profile, *words)
    _make_account(host)
    rendered = render(host, "systemd")
    [(path, unit)] = GENEROUS.items()
    capable = unit.partition("SystemCallFilter=")[0]
    files = {path: capable, DROP_IN: rendered.stdout}
    said = service_run(host, files, UNIT, "cat /proc/self/status")

    mask = probe.mask(kept)
    assert probe.status(said)[:4] == (mask, mask, mask, mask)
    assert probe.inheritable(said) == mask
    # systemd 252 sets it with a filter of system calls, for a user that is not root; the note says so.
    told = "systemd 252 and older set no_new_privs" in rendered.stderr
    assert told == (gains and profile == "seed")
    if not told:
        assert probe.status(said).no_new_privs == (not gains)


def test_a_service_does_its_work_under_each_profile(host: ThrowawayHost) -> None:
    allocate(host, "systemd", "--strategy", "single-uid")
    _make_account(host)
    for profile in PROFILES:
        usernsplan(host, "harden", "web", "--profile", profile)
        files = {**SERVICE, DROP_IN: render(host, "systemd").stdout}
        verify(host, files, UNIT)
        assert service_run(host, files, UNIT, WORK) == "done\n"


def test_systemd_finds_a_service_with_the_policy_less_exposed(host: ThrowawayHost) -> None:
    require("systemd-analyze")
    allocate(host, "systemd", "--strategy", "single-uid")
    without = render(host, "systemd").stdout
    usernsplan(host, "harden", "web", "--profile", "seed")
    exposed = [
        _exposure(host, drop_in) for drop_in in ("", without, render(host, "systemd").stdout)
    ]
    assert exposed == sorted(exposed, reverse=True)
    assert len(set(exposed)) == len(exposed)


def _make_account(host: ThrowawayHost) -> None:
    """Do what the note says."""
    notes = render(host, "systemd").stderr
    [commands] = re.findall(r"the id has to belong to an account; to make one: (.+)", notes)
    host.run("sh", "-euc", commands)


def _exposure(host: ThrowawayHost, drop_in: str) -> float:
    """How exposed systemd finds the service: from 0 to 10."""
    for path, text in {**SERVICE, DROP_IN: drop_in}.items():
        host.write(path, text)
    said = host.run(
        "systemd-analyze", "security", "--offline=yes", "--no-pager", f"{UNITS}/{UNIT}", check=False
    ).stdout
    [found] = re.findall(r"Overall exposure level for .*: ([0-9.]+) ", said)
    return float(found)
