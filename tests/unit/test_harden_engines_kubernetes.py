"""A policy as Kubernetes and OpenShift are to read it, judged by the schemas that Kubernetes publishes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args

import kubernetes_validate  # type: ignore[import-untyped]
import yaml

from tests.each import each
from tests.unit.states import per_container
from usernsplan import Allocation, IdMap, IdRange, Mapping, Mount, RenderContext
from usernsplan.engines import engine, parts, render
from usernsplan.engines.hardened import asked
from usernsplan.harden.effective import effective
from usernsplan.harden.policy import policy_of
from usernsplan.model import Selinux

if TYPE_CHECKING:
    from usernsplan.engines.base import Rendered
    from usernsplan.harden.effective import Effective

VERSIONS = ("1.30", kubernetes_validate.latest_version())
POD = per_container("web", 589824)
# For OpenShift it is a project.
SINGLE = Allocation(
    "web",
    "usernsplan-web",
    "single-uid",
    Mapping(*[IdMap.of((0, 1000820000, 1))] * 2),
    IdRange(1000820000, 10000),
)
POD_OF_ONE = Allocation(
    "web", "usernsplan-web", "single-uid", Mapping(*[IdMap.of((0, 1000000000, 1))] * 2)
)
OWN = json.dumps(
    {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["read", "kcmp"], "action": "SCMP_ACT_ALLOW"}],
    }
).encode()
PATH = "/var/lib/kubelet/seccomp/usernsplan/web.json"
LEVELS = ("restricted", "baseline", "privileged")


def policy(profile: str = "default", **said: Any) -> Effective:
    return effective(policy_of({"profile": profile, **said}))


POLICIES = [
    policy(),
    policy("seed"),
    policy("strict"),
    policy("strict", cap_add=["net_bind_service"]),
    policy("seed", cap_add=["sys_admin"], selinux_type="web_t", selinux_level="s0:c1,c2"),
    policy(new_privileges=True, selinux_level="s0:c1,c2"),
]


def rendered(
    name: str,
    asked_for: Effective,
    allocation: Allocation = POD,
    own: bytes | None = None,
    **more: Any,
) -> Rendered:
    context = RenderContext(policy=asked_for, own_filter=own, own_filter_place="/own", **more)
    return render(name, allocation, context)


def container(found: Rendered) -> dict[str, Any]:
    """The securityContext of the container."""
    return yaml.safe_load(found.text)["spec"]["containers"][0]["securityContext"]  # type: ignore[no-any-return]


def fits(
    name: str, asked_for: Effective, allocation: Allocation = POD, own: bytes | None = None
) -> dict[str, str]:
    context = RenderContext(policy=asked_for, own_filter=own, own_filter_place="/own")
    found = engine(name).hardening(asked_for, allocation, context)
    assert tuple(found.verdicts) == asked(asked_for)
    return {part: verdict.fit for part, verdict in found.verdicts.items()}


@each("version", VERSIONS)
@each("name", ["kubernetes", "openshift"])
@each("allocation", [POD, SINGLE])
@each("asked_for", POLICIES)
@each("own", [None, OWN])
def test_kubernetes_takes_it(
    version: str, name: str, allocation: Allocation, asked_for: Effective, own: bytes | None
) -> None:
    found = yaml.safe_load(rendered(name, asked_for, allocation, own).text)
    kubernetes_validate.validate(found, version, strict=True)
    assert fits(name, asked_for, allocation, own)


@each("name", ["kubernetes", "openshift"])
def test_a_container_has_no_capability_but_those_of_the_policy(name: str) -> None:
    found = container(rendered(name, policy(cap_add=["chown", "net_raw"])))
    assert found["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN", "NET_RAW"]}
    assert found["allowPrivilegeEscalation"] is False
    none = container(rendered(name, policy(new_privileges=True)))
    assert none["capabilities"] == {"drop": ["ALL"]}
    assert none["allowPrivilegeEscalation"] is True


@each("name", ["kubernetes", "openshift"])
def test_the_filter_is_a_file_of_the_node_over_the_runtimes_own(name: str) -> None:
    found = rendered(name, policy("seed"), own=OWN)
    assert container(found)["seccompProfile"] == {
        "type": "Localhost",
        "localhostProfile": "usernsplan/web.json",
    }
    [file] = found.files
    assert file.path == PATH
    allowed = {
        call
        for rule in json.loads(file.content)["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW"
        for call in rule["names"]
    }
    assert allowed == {"read"}
    assert fits(name, policy("seed"), own=OWN)["system calls"] == "exactly"


@each("name", ["kubernetes", "openshift"])
@each("asked_for", [policy(), policy("seed")])
def test_without_it_the_runtimes_own_filter_is_asked_for(name: str, asked_for: Effective) -> None:
    found = rendered(name, asked_for)
    # The kubelet gives none by default, which is weaker.
    assert container(found)["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not found.files
    verdicts = fits(name, asked_for)
    assert {verdicts.get(part, "no") for part in ("system calls", "families", "architectures")} == {
        "no"
    }


def test_who_may_not_be_root_is_not() -> None:
    assert container(rendered("kubernetes", policy("strict")))["runAsNonRoot"] is True
    assert "runAsNonRoot" not in container(rendered("kubernetes", policy("seed")))


def test_sys_admin_and_what_kubernetes_says_of_it() -> None:
    assert fits("kubernetes", policy(cap_add=["sys_admin"]))["no_new_privs"] == "approximately"
    assert fits("kubernetes", policy(cap_add=["chown"]))["no_new_privs"] == "exactly"


# https://kubernetes.io/docs/concepts/security/pod-security-standards/
@each(
    ("asked_for", "allocation", "level"),
    [
        (policy("strict"), POD, "restricted"),
        (policy("strict", cap_add=["net_bind_service"]), POD, "restricted"),
        # It may run as its root.
        (policy("seed"), POD, "baseline"),
        (policy("seed"), SINGLE, "restricted"),
        (policy("strict", cap_add=["chown"]), POD, "baseline"),
        (policy("strict", new_privileges=True), POD, "baseline"),
        (policy("strict", selinux_type="container_init_t"), POD, "restricted"),
        (policy("strict", selinux_type="web_t"), POD, "privileged"),
        (policy("strict", cap_add=["net_raw"]), POD, "privileged"),
    ],
)
def test_the_level_of_pod_security_that_it_fits(
    asked_for: Effective, allocation: Allocation, level: str
) -> None:
    notes = "\n".join(rendered("kubernetes", asked_for, allocation).notes)
    assert [one for one in LEVELS if f'Pod Security level "{one}"' in notes] == [level]


def test_a_folder_of_the_node_fits_no_level_but_privileged() -> None:
    found = rendered("kubernetes", policy("strict"), mounts=(Mount("/srv/a", "/data"),))
    assert 'the pod fits the Pod Security level "privileged"' in found.notes


@each(
    ("asked_for", "own", "beyond"),
    [
        (policy("strict", cap_add=["net_bind_service"]), None, ""),
        (policy("seed"), OWN, "seccompProfiles: [localhost/usernsplan/web.json]"),
        (policy(cap_add=["chown", "kill"]), None, "allowedCapabilities: [CHOWN, KILL]"),
        (policy(new_privileges=True), None, "allowPrivilegeEscalation: true"),
        (policy(selinux_type="web_t"), None, "seLinuxContext: {type: RunAsAny}"),
        # A level is the project's.
        (policy(selinux_level="s0:c1,c2"), None, ""),
    ],
)
def test_what_restricted_v3_does_not_admit_has_an_scc_of_its_own(
    asked_for: Effective, own: bytes | None, beyond: str
) -> None:
    found = rendered("openshift", asked_for, own=own)
    scc = "usernsplan-web" if beyond else "restricted-v3"
    annotations = yaml.safe_load(found.text)["metadata"]["annotations"]
    assert annotations == {"openshift.io/required-scc": scc}
    notes = "\n".join(found.notes)
    assert f"add-scc-to-user {scc} " in notes
    assert (f"that also has {beyond}" in notes) == bool(beyond)


@each(
    ("asked_for", "is_restricted", "fit"),
    [
        (policy(), True, "approximately"),
        (policy(cap_add=["net_bind_service"]), True, "exactly"),
        (policy(cap_add=["chown"]), False, "no"),
        (policy(new_privileges=True), False, "no"),
    ],
)
def test_a_project_demands_the_level_restricted_or_nothing(
    asked_for: Effective, is_restricted: bool, fit: str
) -> None:
    labels = yaml.safe_load(rendered("openshift", asked_for, SINGLE).text)["metadata"].get("labels")
    expected = {"pod-security.kubernetes.io/enforce": "restricted"}
    assert labels == (expected if is_restricted else None)
    assert fits("openshift", asked_for, SINGLE)["capabilities"] == fit


def test_a_pod_has_the_level_of_the_policy_in_openshift_only_beside_a_type() -> None:
    level = policy(selinux_level="s0:c1,c2")
    both = policy(selinux_level="s0:c1,c2", selinux_type="web_t")
    options = [
        container(rendered(name, asked_for)).get("seLinuxOptions")
        for name in ("kubernetes", "openshift")
        for asked_for in (level, both)
    ]
    whole = {"level": "s0:c1,c2", "type": "web_t"}
    assert options == [{"level": "s0:c1,c2"}, whole, None, whole]
    found = [fits("openshift", asked_for)["label"] for asked_for in (level, both)]
    assert found == ["approximately", "exactly"]


def test_a_project_has_the_level_of_the_policy() -> None:
    def level(asked_for: Effective) -> str:
        found = yaml.safe_load(rendered("openshift", asked_for, SINGLE).text)
        return found["metadata"]["annotations"]["openshift.io/sa.scc.mcs"]  # type: ignore[no-any-return]

    both = policy(selinux_level="s0:c1,c2", selinux_type="web_t")
    assert level(both) == "s0:c1,c2"
    assert fits("openshift", both, SINGLE)["label"] == "approximately"
    assert fits("openshift", policy(selinux_level="s0:c1,c2"), SINGLE)["label"] == "exactly"
    assert fits("openshift", policy(selinux_type="web_t"), SINGLE)["label"] == "no"
    # OpenShift's own pair for this block of ids.
    assert (
        level(policy())
        == yaml.safe_load(render("openshift", SINGLE).text)["metadata"]["annotations"][
            "openshift.io/sa.scc.mcs"
        ]
    )


@each(
    ("name", "allocation", "asked_for", "fit"),
    [
        ("kubernetes", POD, policy(selinux_level="s0:c1,c2"), "exactly"),
        ("openshift", POD, policy(selinux_level="s0:c1,c2", selinux_type="web_t"), "exactly"),
        ("openshift", SINGLE, policy(selinux_level="s0:c1,c2"), "exactly"),
        ("openshift", SINGLE, policy(selinux_type="web_t"), "no"),
    ],
)
def test_what_this_host_does_with_labels_says_nothing_of_the_nodes(
    name: str, allocation: Allocation, asked_for: Effective, fit: str
) -> None:
    for mode in get_args(Selinux):
        context = RenderContext(policy=asked_for, selinux=mode)
        assert parts(name, asked_for, allocation, context)["label"].fit == fit
        told = render(name, allocation, context)
        assert not any("on this host" in note for note in told.notes)
        told_of_nodes = any("nodes on which SELinux" in note for note in told.notes)
        assert told_of_nodes == (fit != "no")


def test_a_filter_is_for_nodes_of_one_architecture_which_is_said() -> None:
    context = RenderContext(policy=policy("seed"), own_filter=OWN, machine="aarch64")
    notes = render("kubernetes", POD, context).notes
    assert any("for nodes of the architecture aarch64" in note for note in notes)


@each(
    ("name", "profile", "allocation", "is_told"),
    [
        ("kubernetes", "strict", POD, True),
        ("kubernetes", "seed", POD, False),
        # These two have runAsUser.
        ("kubernetes", "strict", POD_OF_ONE, False),
        ("openshift", "strict", POD, False),
    ],
)
def test_a_pod_that_may_not_be_root_needs_a_number(
    name: str, profile: str, allocation: Allocation, is_told: bool
) -> None:
    """Without, the kubelet does not start it: an image may have no USER, or one by name."""
    found = rendered(name, policy(profile), allocation)
    assert any("add runAsUser" in note for note in found.notes) == is_told
    if name == "kubernetes" and profile == "strict" and not is_told:
        assert "runAsUser: 1000000000" in found.text
