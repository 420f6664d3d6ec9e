"""A policy in the words of LXC, Proxmox VE, Incus, LXD, nspawn and systemd, and what each says that it cannot do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.each import each
from tests.unit.states import per_container
from usernsplan import Allocation, IdMap, IdRange, Mapping, RenderContext
from usernsplan.engines import engine, render
from usernsplan.engines.base import PARTS
from usernsplan.engines.hardened import asked
from usernsplan.errors import InvalidFileError
from usernsplan.harden.effective import effective
from usernsplan.harden.names import CAPABILITIES
from usernsplan.harden.policy import policy_of

if TYPE_CHECKING:
    from usernsplan.engines.base import Rendered
    from usernsplan.harden.effective import Effective

WEB = per_container("web", 589824)
SINGLE = Allocation(
    "web",
    "usernsplan-web",
    "single-uid",
    Mapping(*[IdMap.of((0, 1000820000, 1))] * 2),
    IdRange(1000820000, 10000),
)
# In the form of LXC's own.
OWN = b"2\ndenylist\nreject_force_umount  # a comment\n[all]\nkexec_load errno 1\npersonality errno 1\n"
FILTER = "/etc/usernsplan/seccomp/web.lxc"
ENGINES = ("lxc", "proxmox", "incus", "lxd", "nspawn", "systemd")
FILTERED = ("system calls", "families", "architectures")


def policy(profile: str = "default", **said: Any) -> Effective:
    return effective(policy_of({"profile": profile, **said}))


def context(asked_for: Effective, own: bytes | None = OWN) -> RenderContext:
    return RenderContext(policy=asked_for, own_filter=own, own_filter_place="/own")


def allocation(name: str) -> Allocation:
    return SINGLE if name == "systemd" else WEB


def rendered(name: str, asked_for: Effective, own: bytes | None = OWN) -> Rendered:
    vmid = 101 if name == "proxmox" else None
    return render(name, allocation(name), replace(context(asked_for, own), vmid=vmid))


def fits(name: str, asked_for: Effective, own: bytes | None = OWN) -> dict[str, str]:
    found = engine(name).hardening(asked_for, allocation(name), context(asked_for, own))
    return {part: verdict.fit for part, verdict in found.verdicts.items()}


def files(found: Rendered) -> dict[str, str]:
    return {file.path: file.content for file in found.files}


@each("name", ENGINES)
@each(
    "asked_for",
    [
        policy(),
        policy("seed"),
        policy("strict", new_privileges=True),
        policy("seed", cap_add=["all"], arch="all", selinux_type="container_t"),
        policy(deny_syscalls=["all"], allow_syscalls=["read"], selinux_level="s0:c1,c2"),
        policy(deny_syscalls=["all"]),
        policy(allow_syscalls=["kexec_load"], deny_families=["3"]),
    ],
)
@each("own", [OWN, None])
def test_each_part_that_is_asked_for_has_a_verdict_and_a_note_unless_it_is_exact(
    name: str, asked_for: Effective, own: bytes | None
) -> None:
    found = fits(name, asked_for, own)
    assert tuple(found) == asked(asked_for)
    said = "\n".join(rendered(name, asked_for, own).notes)
    for part, fit in found.items():
        assert (f"{part}: " in said or f"{part}, " in said) or fit == "exactly"


def test_the_parts_are_known() -> None:
    assert set(FILTERED) < set(PARTS)


def test_lxc_keeps_what_the_policy_keeps_and_clears_both_lists_first() -> None:
    lines = rendered("lxc", policy(cap_add=["kill", "chown"])).text.splitlines()
    assert lines[2:] == [
        "lxc.cap.drop =",
        "lxc.cap.keep =",
        "lxc.cap.keep = chown kill",
        "lxc.no_new_privs = 1",
    ]
    assert rendered("lxc", policy()).text.splitlines()[4] == "lxc.cap.keep = none"
    assert "no_new_privs" not in rendered("lxc", policy(new_privileges=True)).text


def test_lxcs_filter_is_a_file_with_its_own_rules_in_it() -> None:
    asked_for = policy(deny_syscalls=["kcmp", "kexec_load"], deny_families=["AX25"])
    found = rendered("lxc", asked_for)
    assert f"lxc.seccomp.profile = {FILTER}" in found.text.splitlines()
    assert files(found)["/var/lib/lxc/web/usernsplan.conf"] == f"{found.text}\n"
    lines = files(found)[FILTER].splitlines()
    assert lines[:4] == ["2", "denylist", "reject_force_umount  # a comment", "[all]"]
    assert {"personality errno 1", "kcmp errno 1", "kexec_load errno 1"} < set(lines)
    # Twice would be an error.
    assert lines.count("kexec_load errno 1") == 1
    expected = {"capabilities": "exactly", "no_new_privs": "exactly", "system calls": "exactly"}
    assert fits("lxc", asked_for) == {**expected, "families": "approximately"}


@each("name", ["lxc", "proxmox"])
def test_without_the_engines_own_filter_there_is_none(name: str) -> None:
    found = rendered(name, policy("seed"), None)
    assert "seccomp" not in found.text
    assert FILTER not in files(found)
    expected = {"capabilities": "exactly", "no_new_privs": "exactly"}
    assert fits(name, policy("seed"), None) == {**expected, **dict.fromkeys(FILTERED, "no")}


@each("name", ["lxc", "proxmox"])
def test_who_refuses_all_needs_no_filter_of_the_engine(name: str) -> None:
    found = rendered(name, policy(deny_syscalls=["all"], allow_syscalls=["read", "execve"]), None)
    assert files(found)[FILTER].splitlines() == [
        "2",
        "allowlist errno 1",
        "[all]",
        "execve allow",
        "read allow",
    ]


def test_a_base_that_is_not_lxcs_is_refused() -> None:
    with pytest.raises(InvalidFileError, match="/own"):
        rendered("lxc", policy("seed"), b'{"defaultAction": "SCMP_ACT_ALLOW"}')


def test_the_lxc_of_an_account_needs_the_file_too() -> None:
    slice_ = replace(WEB, within="alice", owner="alice")
    found = render("lxc", slice_, context(policy("seed")))
    assert list(files(found)) == [FILTER]


@each(
    ("said", "label", "fit"),
    [
        (
            {"selinux_type": "web_t", "selinux_level": "s0:c1,c2"},
            "system_u:system_r:web_t:s0:c1,c2",
            "exactly",
        ),
        (
            {"selinux_level": "s0:c1,c2"},
            "system_u:system_r:container_t:s0:c1,c2",
            "approximately",
        ),
        ({"selinux_type": "web_t"}, "system_u:system_r:web_t:s0", "approximately"),
    ],
)
@each(
    ("name", "word"),
    [
        ("lxc", "lxc.selinux.context = "),
        ("incus", "lxc.selinux.context = "),
        ("nspawn", "--selinux-context="),
        ("systemd", "SELinuxContext="),
    ],
)
def test_a_label_is_whole_and_what_was_filled_in_is_said(
    said: dict[str, str], label: str, fit: str, name: str, word: str
) -> None:
    asked_for = policy(**said)
    found = rendered(name, asked_for)
    assert f"{word}{label}" in found.text.replace(" --", "\n--").replace("    ", "").splitlines()
    assert fits(name, asked_for)["label"] == fit


def test_where_selinux_is_off_nspawn_is_given_no_label() -> None:
    # It would not start: "setexeccon(…) failed".
    asked_for = policy(selinux_type="web_t", selinux_level="s0:c1,c2")
    off = render("nspawn", WEB, replace(context(asked_for), selinux="off"))
    assert "--selinux-context" not in off.text
    assert "label: nspawn does not enforce this part" in "\n".join(off.notes)


def test_proxmox_reads_lxcs_lines_from_a_file_and_keeps_what_it_refuses_itself() -> None:
    found = rendered("proxmox", policy("seed", allow_families=["ALG"]), OWN + b"keyctl errno 38\n")
    path = "/etc/usernsplan/lxc/web.conf"
    # pct.conf(5) has no key lxc.no_new_privs.
    assert [line for line in found.text.splitlines() if line.startswith("lxc.")][2:] == [
        f"lxc.include: {path}"
    ]
    assert {"lxc.no_new_privs = 1", f"lxc.seccomp.profile = {FILTER}"} < set(
        files(found)[path].splitlines()
    )
    its_own = {
        "keyctl errno 38",
        "ioctl errno 1 [1,0x9400,SCMP_CMP_MASKED_EQ,0xff00]",
        "socket errno 97 [0,38,SCMP_CMP_EQ]",
    }
    assert its_own < set(files(found)[FILTER].splitlines())
    # All families after Netlink are refused anyway.
    every = files(rendered("proxmox", policy("seed")))[FILTER]
    assert "errno 97" not in every


@each("name", ["incus", "lxd"])
def test_instances_have_their_own_list_and_lxcs_lines(name: str) -> None:
    asked_for = policy("seed", cap_add=["chown"])
    config = yaml.safe_load(rendered(name, asked_for).text)["config"]
    assert config["raw.lxc"].splitlines() == [
        "lxc.cap.drop =",
        "lxc.cap.keep =",
        "lxc.cap.keep = chown",
        "lxc.no_new_privs = 1",
    ]
    denied = {line.split()[0] for line in config["security.syscalls.deny"].splitlines()}
    # What the daemon refuses itself is not there twice.
    assert {"kcmp", "swapon", "socket"} < denied
    assert "kexec_load" not in denied
    assert fits(name, asked_for) == {
        "capabilities": "exactly",
        "no_new_privs": "exactly",
        "system calls": "exactly",
        "families": "approximately",
        "architectures": "no",
    }


def test_an_instance_cannot_refuse_every_call() -> None:
    assert fits("incus", policy(deny_syscalls=["all"]))["system calls"] == "no"
    some = policy(deny_syscalls=["all"], allow_syscalls=["read"])
    assert fits("incus", some)["system calls"] == "approximately"


def test_nspawns_flags_and_its_file_say_the_same() -> None:
    asked_for = policy("seed", cap_add=["chown", "bpf"], allow_syscalls=["keyctl"])
    found = rendered("nspawn", asked_for)
    flags: dict[str, list[str]] = {}
    for word in found.text.split():
        flag, _, value = word.partition("=")
        flags.setdefault(flag, []).append(value)
    [text] = files(found).values()
    keys = [line.partition("=")[::2] for line in text.splitlines() if "=" in line]

    [given], [dropped] = flags["--capability"], flags["--drop-capability"]
    assert given == "CAP_CHOWN,CAP_BPF"
    assert len(dropped.split(",")) == len(CAPABILITIES) - 2
    assert not {*given.split(",")} & {*dropped.split(",")}
    assert dict(keys)["Capability"].split() == given.split(",")
    assert dict(keys)["DropCapability"].split() == dropped.split(",")
    assert flags["--no-new-privileges"] == ["yes"]
    assert dict(keys)["NoNewPrivileges"] == "yes"
    in_file = [value for key, value in keys if key == "SystemCallFilter"]
    assert in_file[0] == "keyctl"
    assert flags["--system-call-filter"] == [
        "keyctl",
        *[f"~{name}" for name in in_file[1].removeprefix("~").split()],
    ]
    assert fits("nspawn", asked_for) == {
        "capabilities": "exactly",
        "no_new_privs": "exactly",
        "system calls": "exactly",
        "families": "no",
        "architectures": "no",
    }


def test_nspawn_drops_all_where_nothing_is_kept_and_none_where_all_is() -> None:
    assert " --drop-capability=all " in rendered("nspawn", policy()).text
    everything = rendered("nspawn", policy(cap_add=["all"], new_privileges=True)).text
    assert "--drop-capability" not in everything
    assert "no-new-privileges" not in everything


def test_a_service_keeps_its_capabilities_as_a_user_that_is_not_root() -> None:
    asked_for = policy("seed", cap_add=["net_bind_service", "chown"])
    lines = rendered("systemd", asked_for).text.splitlines()
    kept = "CAP_CHOWN CAP_NET_BIND_SERVICE"
    # An empty list clears that of the unit itself.
    assert lines[4:9] == [
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        f"CapabilityBoundingSet={kept}",
        "AmbientCapabilities=",
        f"AmbientCapabilities={kept}",
    ]
    assert "SystemCallArchitectures=native" in lines
    [calls] = [line for line in lines if line.startswith("SystemCallFilter=")]
    assert {"kcmp:EPERM", "swapon:EPERM"} < set(calls.removeprefix("SystemCallFilter=~").split())
    assert "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK" in lines
    assert fits("systemd", asked_for) == {
        "capabilities": "exactly",
        "no_new_privs": "exactly",
        "system calls": "exactly",
        "families": "approximately",
        "architectures": "exactly",
    }


def test_systemd_says_that_a_32_bit_program_reaches_every_family_unless_it_is_kept_out() -> None:
    def why(**said: str) -> str:
        asked_for = policy("seed", **said)
        found = engine("systemd").hardening(asked_for, SINGLE, context(asked_for))
        return found.verdicts["families"].why

    assert "32-bit" in why(arch="all")
    assert "32-bit" not in why()


def test_a_service_without_a_policy_has_none_of_its_lines() -> None:
    assert render("systemd", SINGLE).text.splitlines()[4:] == [
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
    ]
