"""A policy in the words of the engines whose filter has the OCI's form, against texts written by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.each import each
from tests.unit.states import per_container, state
from usernsplan import Allocation, IdRange, render
from usernsplan.engines import engine
from usernsplan.engines.base import RenderContext, Rendered
from usernsplan.errors import InvalidFileError
from usernsplan.harden.effective import effective
from usernsplan.harden.policy import policy_of

WEB = per_container("web", 589824)
POOL = Allocation(
    "containers", "containers", "per-container", WEB.mapping, IdRange(589824, 6553600)
)
MAPS = "--uidmap 0:589824:65536 --gidmap 0:589824:65536"
FILTER = "/etc/usernsplan/seccomp/web.json"
# An engine's own profile, in short: it lists what is allowed.
OWN: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "syscalls": [{"names": ["read", "write", "swapon"], "action": "SCMP_ACT_ALLOW"}],
}
# All of a policy at once, and what is neither dropped nor filtered.
FULL = {
    "profile": "default",
    "cap_add": ["net_raw", "bpf"],
    "deny_syscalls": ["swapon"],
    "deny_families": ["x25"],
    "arch": "native",
    "selinux_type": "web_t",
    "selinux_level": "s0:c1,c2",
}
LOOSE = {"profile": "default", "new_privileges": True}
FILTERED = ("system calls", "families", "architectures")


def hardened(
    name: str,
    said: dict[str, Any],
    own: object = OWN,
    allocation: Allocation = WEB,
    **more: Any,
) -> Rendered:
    context = RenderContext(
        state=more.pop("state", state()),
        policy=effective(policy_of(said)),
        own_filter=None if own is None else json.dumps(own).encode(),
        own_filter_place="/own.json",
        **more,
    )
    return render(name, allocation, context)


def fits(name: str, said: dict[str, Any], own: object = OWN, **more: Any) -> dict[str, str]:
    """How an engine enforces each part that is asked for."""
    policy = effective(policy_of(said))
    raw = None if own is None else json.dumps(own).encode()
    context = RenderContext(state=state(**more), policy=policy, own_filter=raw)
    verdicts = engine(name).hardening(policy, WEB, context).verdicts
    assert all(it.why for it in verdicts.values() if it.fit != "exactly")
    return {part: it.fit for part, it in verdicts.items()}


@each(
    ("name", "said", "text"),
    [
        (
            "podman",
            FULL,
            (
                f"{MAPS} --cap-drop=all --cap-add=bpf --cap-add=net_raw --security-opt no-new-privileges"
                f" --security-opt seccomp={FILTER} --security-opt label=type:web_t"
                " --security-opt label=level:s0:c1,c2"
            ),
        ),
        ("podman", LOOSE, f"{MAPS} --cap-drop=all"),
        (
            "quadlet",
            FULL,
            (
                "[Container]\nUIDMap=0:589824:65536\nGIDMap=0:589824:65536\nDropCapability=all\n"
                "AddCapability=bpf\nAddCapability=net_raw\nNoNewPrivileges=true\n"
                f"SeccompProfile={FILTER}\nSecurityLabelType=web_t\nSecurityLabelLevel=s0:c1,c2"
            ),
        ),
        (
            "quadlet",
            LOOSE,
            "[Container]\nUIDMap=0:589824:65536\nGIDMap=0:589824:65536\nDropCapability=all",
        ),
        (
            "containerd",
            {**FULL, "cap_add": ["bpf", "kill", "mknod"]},
            (
                f"{MAPS} --cap-drop CAP_AUDIT_WRITE --cap-drop CAP_CHOWN --cap-drop CAP_DAC_OVERRIDE"
                " --cap-drop CAP_FOWNER --cap-drop CAP_FSETID --cap-drop CAP_NET_BIND_SERVICE"
                " --cap-drop CAP_NET_RAW --cap-drop CAP_SETFCAP --cap-drop CAP_SETGID"
                " --cap-drop CAP_SETPCAP --cap-drop CAP_SETUID --cap-drop CAP_SYS_CHROOT"
                f" --cap-add CAP_BPF --seccomp --seccomp-profile {FILTER}"
            ),
        ),
    ],
)
def test_the_words_of_a_policy_follow_the_map(name: str, said: dict[str, Any], text: str) -> None:
    rendered = hardened(name, said)
    assert rendered.text == text
    assert any(file.path == FILTER for file in rendered.files) == (FILTER in text)


def test_all_capabilities_of_ctr_are_dropped_or_asked_for() -> None:
    all_of_them = hardened("containerd", {**LOOSE, "cap_add": ["all"]}).text
    # 41 capabilities, of which ctr gives 14.
    assert all_of_them.count("--cap-add") == 41 - 14
    assert "--cap-drop" not in all_of_them
    assert all_of_them.endswith("--allow-new-privs")
    assert hardened("containerd", LOOSE).text.count("--cap-drop") == 14


def test_podmans_pool_has_the_flags_of_podman_run() -> None:
    text = hardened("podman-auto", LOOSE | {"cap_add": ["chown"]}, allocation=POOL).text
    assert text == "--userns=auto:size=65536 --cap-drop=all --cap-add=chown"


def test_docker_run_has_the_policy_and_daemon_json_has_what_it_had() -> None:
    rendered = hardened("docker", FULL)
    assert json.loads(rendered.text) == {"userns-remap": WEB.owner, "no-new-privileges": True}
    [note] = [note for note in rendered.notes if note.startswith("the policy is")]
    assert note == (
        "the policy is options of each container: docker run --cap-drop=all --cap-add=bpf"
        f" --cap-add=net_raw --security-opt no-new-privileges --security-opt seccomp={FILTER}"
        " --security-opt label=type:web_t --security-opt label=level:s0:c1,c2 …"
    )
    # Other containers of the daemon stay as they are.
    loose = hardened("docker", LOOSE)
    assert json.loads(loose.text)["no-new-privileges"]
    assert any("--security-opt no-new-privileges=false …" in note for note in loose.notes)


def test_a_daemon_of_its_own_has_the_filter_and_says_whether_it_labels() -> None:
    config = json.loads(hardened("docker-instance", FULL).text)
    assert config["seccomp-profile"] == FILTER
    assert config["selinux-enabled"]
    assert config["no-new-privileges"]
    rendered = hardened("docker-instance", LOOSE)
    config = json.loads(rendered.text)
    assert not config["no-new-privileges"]
    assert not {"seccomp-profile", "selinux-enabled"} & config.keys()
    assert any("run --cap-drop=all …" in note for note in rendered.notes)


def test_a_service_of_compose_has_the_keys() -> None:
    full = hardened("compose", FULL).text
    assert yaml.safe_load(full)["services"]["web"] == {
        "userns_mode": "",
        "cap_drop": ["ALL"],
        "cap_add": ["BPF", "NET_RAW"],
        "security_opt": [
            "no-new-privileges:true",
            f"seccomp={FILTER}",
            "label=type:web_t",
            "label=level:s0:c1,c2",
        ],
    }
    loose = hardened("compose", LOOSE).text
    assert yaml.safe_load(loose)["services"]["web"] == {
        "userns_mode": "",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:false"],
    }


@each("name", ["podman", "quadlet", "docker", "docker-instance", "compose", "containerd"])
def test_the_file_is_the_engines_own_profile_with_less_in_it(name: str) -> None:
    [file] = [file for file in hardened(name, FULL).files if file.path == FILTER]
    found = json.loads(file.content)
    assert found["defaultAction"] == "SCMP_ACT_ERRNO"
    assert found["architectures"] == ["SCMP_ARCH_X86_64"]
    assert {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"} in found["syscalls"]
    allowed = [rule for rule in found["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW"]
    assert not any("swapon" in rule["names"] for rule in allowed)


@each("name", ["podman", "quadlet", "docker", "docker-instance", "compose"])
def test_no_file_replaces_a_profile_that_is_unknown(name: str) -> None:
    rendered = hardened(name, FULL, None)
    assert FILTER not in rendered.text
    assert not [file for file in rendered.files if file.path == FILTER]
    found = fits(name, FULL, None)
    assert {part: found[part] for part in FILTERED} == dict.fromkeys(FILTERED, "no")
    assert found["capabilities"] == found["no_new_privs"] == "exactly"
    # It is told once, with the reason.
    assert [
        note.startswith(f"{', '.join(FILTERED)}: {name} does not") for note in rendered.notes
    ].count(True) == 1
    # Where nothing is asked of a filter, nothing is missing.
    assert set(fits(name, LOOSE, None).values()) == {"exactly"}


@each("name", ["podman", "docker"])
def test_a_filter_that_names_all_that_is_allowed_needs_no_other(name: str) -> None:
    said = {"profile": "default", "deny_syscalls": ["all"], "allow_syscalls": ["read"]}
    [file] = [file for file in hardened(name, said, None).files if file.path == FILTER]
    found = json.loads(file.content)
    assert found["defaultAction"] == "SCMP_ACT_ERRNO"
    assert found["syscalls"] == [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]
    assert fits(name, said, None)["system calls"] == "exactly"


def test_ctr_has_no_filter_of_its_own_and_that_is_told() -> None:
    rendered = hardened("containerd", FULL, None)
    [file] = rendered.files
    assert json.loads(file.content)["defaultAction"] == "SCMP_ACT_ALLOW"
    assert any("--base FILE" in note for note in rendered.notes)
    assert fits("containerd", FULL, None) == {
        "capabilities": "exactly",
        "no_new_privs": "exactly",
        "system calls": "exactly",
        "families": "exactly",
        "architectures": "exactly",
        "label": "no",
    }


@each(
    ("name", "daemon_json", "fit"),
    [
        ("docker", None, "no"),
        ("docker", b'{"selinux-enabled": false}', "no"),
        ("docker", b'{"selinux-enabled": true}', "exactly"),
        ("docker-instance", None, "exactly"),
        ("compose", None, "approximately"),
        ("podman", None, "exactly"),
    ],
)
def test_docker_labels_only_if_its_daemon_is_told_to(
    name: str, daemon_json: bytes | None, fit: str
) -> None:
    assert fits(name, FULL, daemon_json=daemon_json)["label"] == fit


@each(
    ("said", "fit"),
    [
        # No 32-bit program runs, so nothing is said of its door.
        (FULL, "exactly"),
        ({"profile": "default", "deny_families": ["x25"]}, "approximately"),
    ],
)
def test_what_a_filter_of_families_costs_32_bit_programs_is_said(
    said: dict[str, Any], fit: str
) -> None:
    both = {**OWN, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]}
    assert fits("podman", said, both)["families"] == fit
    told = any("32-bit" in note for note in hardened("podman", said, both).notes)
    assert told == (fit != "exactly")


@each("name", ["uid_map", "gid_map"])
def test_a_bare_map_enforces_nothing_and_says_so_once(name: str) -> None:
    rendered = hardened(name, FULL)
    assert rendered.text == "0 589824 65536"
    [note] = rendered.notes
    assert note.startswith(
        "capabilities, no_new_privs, system calls, families, architectures, label: "
    )
    [less] = hardened(name, LOOSE).notes
    assert less.startswith("capabilities: ")


def test_the_checks_of_an_account_name_the_flags_that_enforce() -> None:
    policy = effective(policy_of(LOOSE))
    verdicts = engine("rootless").hardening(policy, WEB, RenderContext()).verdicts
    assert [(part, it.fit) for part, it in verdicts.items()] == [("capabilities", "no")]
    assert "usernsplan render podman web --rootless" in verdicts["capabilities"].why


@each("name", ["podman", "quadlet", "docker", "docker-instance", "compose", "containerd"])
def test_who_may_not_be_root_is_told_what_gives_another_user(name: str) -> None:
    assert [note for note in hardened(name, {"profile": "strict"}).notes if "as its root" in note]
    assert not [note for note in hardened(name, LOOSE).notes if "as its root" in note]


def patched(said: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The config.json of a bundle, which has to stay as it is the second time."""
    place = "/bundle/config.json"
    once = hardened("oci", said, None, bundle=json.dumps(config), place=place).text
    assert hardened("oci", said, None, bundle=once, place=place).text == once
    found: dict[str, Any] = json.loads(once)
    return found


def test_a_bundle_gets_all_five_sets_and_nothing_that_it_has_not_asked_for() -> None:
    old = {
        "bounding": ["CAP_CHOWN", "CAP_KILL"],
        "inheritable": ["CAP_NET_RAW", "CAP_KILL"],
        "ambient": ["CAP_KILL", "CAP_NET_RAW"],
    }
    found = patched(FULL, {"process": {"args": ["sh"], "capabilities": old}})["process"]
    kept = ["CAP_BPF", "CAP_NET_RAW"]
    assert found["capabilities"] == {
        "bounding": kept,
        "effective": kept,
        "permitted": kept,
        # A program of another user than root has these from its bundle, and never more.
        "inheritable": ["CAP_NET_RAW"],
        "ambient": ["CAP_NET_RAW"],
    }
    assert found["noNewPrivileges"] is True
    assert found["args"] == ["sh"]
    nothing = patched(LOOSE, {"process": {"capabilities": old, "noNewPrivileges": True}})["process"]
    assert nothing["capabilities"] == {key: [] for key in found["capabilities"]}
    assert nothing["noNewPrivileges"] is False


def test_the_filter_of_a_bundle_is_laid_over_its_own() -> None:
    alone = patched(FULL, {})["linux"]["seccomp"]
    assert alone["defaultAction"] == "SCMP_ACT_ALLOW"
    over = patched(FULL, {"linux": {"seccomp": OWN}})["linux"]["seccomp"]
    assert over["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"} in over["syscalls"]
    # Who asks for no filter keeps what is there.
    assert patched(LOOSE, {"linux": {"seccomp": OWN}})["linux"]["seccomp"] == OWN
    assert "seccomp" not in patched(LOOSE, {})["linux"]


def test_families_of_a_bundle_are_not_taken_away_twice() -> None:
    socket = {"names": ["read", "socket"], "action": "SCMP_ACT_ALLOW"}
    for own in ({}, {"linux": {"seccomp": {**OWN, "syscalls": [socket]}}}):
        patched({"profile": "seed"}, own)


@each(
    ("own", "said", "label", "mounts"),
    [
        (
            {},
            FULL,
            "system_u:system_r:web_t:s0:c1,c2",
            "system_u:object_r:container_file_t:s0:c1,c2",
        ),
        (
            {
                "process": {"selinuxLabel": "u:r:spc_t:s0:c7"},
                "linux": {"mountLabel": "u:r:my_t:s0"},
            },
            {**LOOSE, "selinux_level": "s0:c1,c2"},
            "u:r:spc_t:s0:c1,c2",
            "u:r:my_t:s0:c1,c2",
        ),
        (
            {"process": {"selinuxLabel": "u:r:spc_t:s0:c7"}},
            {**LOOSE, "selinux_type": "web_t"},
            "u:r:web_t:s0:c7",
            None,
        ),
        ({}, LOOSE, None, None),
    ],
)
def test_a_label_keeps_what_the_policy_does_not_name(
    own: dict[str, Any], said: dict[str, Any], label: str | None, mounts: str | None
) -> None:
    found = patched(said, own)
    assert found["process"].get("selinuxLabel") == label
    assert found["linux"].get("mountLabel") == mounts


def test_a_label_that_would_keep_runc_from_starting_is_left_out() -> None:
    place = "/bundle/config.json"
    off = hardened("oci", FULL, None, bundle="{}", place=place, selinux="off")
    assert "selinuxLabel" not in off.text
    assert "mountLabel" not in off.text
    assert (
        "label: oci does not enforce this part of the policy: SELinux is off on this host"
        in off.notes
    )
    permissive = hardened("oci", FULL, None, bundle="{}", place=place, selinux="permissive")
    assert "selinuxLabel" in permissive.text
    assert any("SELinux is permissive" in note for note in permissive.notes)
    config = json.loads(hardened("docker-instance", FULL, selinux="off").text)
    assert "selinux-enabled" not in config


def test_a_fragment_has_only_what_takes_the_place_of_one_value() -> None:
    rendered = hardened("oci", FULL, None)
    found = json.loads(rendered.text)
    assert found["process"] == {
        "noNewPrivileges": True,
        "selinuxLabel": "system_u:system_r:web_t:s0:c1,c2",
    }
    assert "seccomp" not in found["linux"]
    assert fits("oci", FULL) == {
        "capabilities": "no",
        "no_new_privs": "exactly",
        "system calls": "no",
        "families": "no",
        "architectures": "no",
        "label": "exactly",
    }
    assert any("--bundle DIR" in note for note in rendered.notes)


@each(
    "config",
    [
        {"process": [7]},
        {"process": {"capabilities": ["CAP_KILL"]}},
        {"process": {"capabilities": {"ambient": 7}}},
        {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "unheard": 1}}},
        {"linux": {"seccomp": 7}},
    ],
)
def test_a_bundle_that_cannot_be_read_is_not_changed(config: dict[str, Any]) -> None:
    with pytest.raises(InvalidFileError, match=r"/bundle/config\.json"):
        patched(FULL, config)


def test_a_bundle_whose_process_is_root_is_told_so() -> None:
    for user, told in (({"uid": 0}, True), ({"uid": 7}, False)):
        bundle = json.dumps({"process": {"user": user}})
        rendered = hardened(
            "oci", {"profile": "strict"}, None, bundle=bundle, place="/b/config.json"
        )
        assert any("process.user.uid" in note for note in rendered.notes) == told


PASSING = b'{"defaultAction": "SCMP_ACT_ALLOW"}'
REFUSING = b'{"defaultAction": "SCMP_ACT_ERRNO"}'


@each(
    ("name", "own", "denied", "fit"),
    [
        ("podman", PASSING, ["mseal", "kcmp"], "approximately"),
        ("docker", PASSING, ["mseal"], "approximately"),
        ("containerd", None, ["mseal"], "approximately"),
        ("lxc", b"2\ndenylist\n", ["mseal"], "approximately"),
        ("incus", None, ["mseal"], "approximately"),
        ("systemd", None, ["mseal"], "approximately"),
        # Their lists say what is allowed.
        ("podman", REFUSING, ["mseal"], "exactly"),
        ("nspawn", None, ["mseal"], "exactly"),
        ("podman", PASSING, ["all"], "exactly"),
        ("lxc", b"2\ndenylist\n", ["all"], "exactly"),
    ],
)
def test_a_call_that_the_library_does_not_know_is_refused_by_a_list_of_what_is_allowed_alone(
    name: str, own: bytes | None, denied: list[str], fit: str
) -> None:
    policy = effective(policy_of({"profile": "default", "deny_syscalls": denied, "arch": "native"}))
    for unheard, expected in (({"mseal"}, fit), ((), "exactly")):
        context = RenderContext(policy=policy, own_filter=own, unheard=frozenset(unheard))
        found = engine(name).hardening(policy, WEB, context).verdicts["system calls"]
        assert found.fit == expected
        assert ("nothing refuses mseal:" in found.why) == (expected != "exactly")
