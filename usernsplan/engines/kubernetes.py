"""Kubernetes: the securityContext of a pod, and the line from which the kubelet gives pods ranges.

https://kubernetes.io/docs/concepts/workloads/pods/user-namespaces/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines import engine_of_pool, hardened
from usernsplan.engines.base import (
    EXACTLY,
    LABEL,
    Engine,
    File,
    Hardening,
    RenderContext,
    Rendered,
    Verdict,
    nearly,
    no,
    quoted,
    subid_files,
)
from usernsplan.errors import InvalidValueError
from usernsplan.strategies import SLOT, PerContainer, SingleUid
from usernsplan.values import replace

if TYPE_CHECKING:
    from usernsplan.harden.effective import Effective
    from usernsplan.model import Allocation

# Below it the kubelet looks for profiles that a pod names.
_PROFILES = "/var/lib/kubelet/seccomp"
# What the Pod Security level "restricted" lets a container add, and what "baseline" does:
# https://kubernetes.io/docs/concepts/security/pod-security-standards/
RESTRICTED = frozenset({"net_bind_service"})
_BASELINE = RESTRICTED | {
    "audit_write", "chown", "dac_override", "fowner", "fsetid", "kill", "mknod", "setfcap",
    "setgid", "setpcap", "setuid", "sys_chroot",
}  # fmt: skip
_BASELINE_TYPES = frozenset(
    {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
)


class Kubernetes(Engine):
    """A pod with a user namespace, or one that runs as one id; for the kubelet's pool, its line."""

    takes = frozenset({"volume", "image"})
    idmap = "itself"
    elsewhere = True

    def verdict(self, allocation: Allocation) -> Verdict:
        """The kubelet chooses the ids of a pod; only single-uid works without a user namespace."""
        if engine_of_pool(allocation) == "kubernetes":
            return _kubelets(allocation)
        if not LABEL.fullmatch(allocation.name):
            return no(
                "a pod's name has only small letters, digits and '-', and at most 63 characters"
            )
        if allocation.passes:
            return no("the kubelet chooses the ids of a pod, and passes none of the host's through")
        if allocation.strategy == PerContainer.name:
            return nearly("the kubelet gives the pod a range from its own line, not this range")
        if allocation.strategy == SingleUid.name:
            return nearly(
                "the pod runs as these host ids, without a user namespace, and sees the host ids"
            )
        return no("a pod can have a range of its own or one id, and nothing else")

    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """YAML of a pod, or the kubelet's line of subuid and subgid."""
        if engine_of_pool(allocation) == "kubernetes":
            if context.mounts or context.image:
                raise InvalidValueError(
                    "--volume and --image are for a pod, but this is the kubelet's own line"
                )
            return _line(allocation)

        lines = [
            "apiVersion: v1",
            "kind: Pod",
            "metadata:",
            f"  name: {quoted(allocation.name)}",
            "spec:",
        ]
        grants = context.layout.command("allocate --strategy per-container --engine kubernetes")
        notes = [f"the kubelet needs its line: {grants}"]
        if allocation.strategy == PerContainer.name:
            lines.append("  hostUsers: false")
        else:
            uid, gid = allocation.mapping.uids[0].host, allocation.mapping.gids[0].host
            lines += [
                "  securityContext:",
                "    runAsNonRoot: true",
                f"    runAsUser: {uid}",
                f"    runAsGroup: {gid}",
                f"    fsGroup: {gid}",
            ]
            notes = []

        lines += ["  containers:", f"    - name: {quoted(allocation.name)}"]
        lines += [f"      image: {quoted(context.image)}"] if context.image else []
        its = Hardening({}, ("        allowPrivilegeEscalation: false",))
        if context.policy:
            its = self.hardening(context.policy, allocation, context)
        lines += ["      securityContext:", *its.words]

        if context.mounts:
            lines.append("      volumeMounts:")
            for number, mount in enumerate(context.mounts, 1):
                lines += [
                    f"        - name: volume-{number}",
                    f"          mountPath: {quoted(mount.destination)}",
                ]
                lines += ["          readOnly: true"] if mount.read_only else []
            lines.append("  volumes:")
            for number, mount in enumerate(context.mounts, 1):
                lines += [
                    f"    - name: volume-{number}",
                    "      hostPath:",
                    f"        path: {quoted(mount.source)}",
                ]
                lines += ["        type: Directory"] if mount.is_folder else []

        if not context.image:
            notes.append("without --image this is a patch for a pod that has an image")
        return Rendered("\n".join(lines), its.files, (*notes, *its.notes))

    def hardening(
        self, policy: Effective, allocation: Allocation, context: RenderContext
    ) -> Hardening:
        """Lines of the container's securityContext. The filter is a file of each node."""
        found = hardening(policy, allocation, context)
        level = _level(policy, allocation, context)
        notes = [f'the pod fits the Pod Security level "{level}"', *found.notes]
        if allocation.strategy != SingleUid.name:
            notes += hardened.as_another_user(
                policy,
                "add runAsUser to the pod's securityContext, or a USER that is a number to the image; "
                "the kubelet does not start it otherwise",
                ambient=True,
            )
        return replace(found, notes=tuple(notes))


def hardening(policy: Effective, allocation: Allocation, context: RenderContext) -> Hardening:
    """What a securityContext says, also OpenShift's."""
    unknown = "the runtime's own profile is compiled into it; --base FILE gives it"
    filter_, others = hardened.filter_file(policy, allocation, context, unknown=unknown)
    notes = []
    if filter_:
        path = f"usernsplan/{allocation.name}.json"
        filter_ = File(f"{_PROFILES}/{path}", filter_.content)
        profile = ["  type: Localhost", f"  localhostProfile: {quoted(path)}"]
        notes.append(
            f"--out DIR writes {filter_.path}, which each node needs on which the pod may run; it is "
            f"for nodes of the architecture {context.machine}"
        )
    else:
        # Without this line the kubelet gives a container no filter, unless it has seccompDefault.
        profile = ["  type: RuntimeDefault"]

    if "sys_admin" in policy.capabilities:
        others["no_new_privs"] = nearly(
            "Kubernetes says of a container with SYS_ADMIN that it may raise its privileges in any case"
        )
    if policy.capabilities and (allocation.strategy == SingleUid.name or not policy.as_root):
        notes.append(
            "Kubernetes gives no ambient capabilities: a user that is not root has them in its "
            "bounding set alone"
        )

    lines = [f"allowPrivilegeEscalation: {'true' if policy.new_privileges else 'false'}"]
    lines += [] if policy.as_root else ["runAsNonRoot: true"]
    lines += ["capabilities:", "  drop:", "    - ALL"]
    added = [f"    - {name.upper()}" for name in sorted(policy.capabilities)]
    lines += ["  add:", *added] if added else []
    lines += ["seccompProfile:", *profile]
    label = {"type": policy.selinux_type, "level": policy.selinux_level}
    options = [f"  {key}: {quoted(value)}" for key, value in label.items() if value]
    lines += ["seLinuxOptions:", *options] if options else []
    return Hardening(
        hardened.verdicts(policy, others),
        tuple(f"        {line}" for line in lines),
        (filter_,) if filter_ else (),
        tuple(notes),
    )


def _level(policy: Effective, allocation: Allocation, context: RenderContext) -> str:
    """The Pod Security level that a pod fits. A volume is a folder of the node: "privileged"."""
    if (
        context.mounts
        or not policy.capabilities <= _BASELINE
        or policy.selinux_type not in _BASELINE_TYPES
    ):
        return "privileged"
    is_restricted = policy.capabilities <= RESTRICTED and not policy.new_privileges
    no_root = allocation.strategy == SingleUid.name or not policy.as_root
    return "restricted" if is_restricted and no_root else "baseline"


def _kubelets(allocation: Allocation) -> Verdict:
    """Whether the kubelet starts with this line: it wants whole blocks of 65536, not the first."""
    held = allocation.reserved_range
    if held is None or held.start % SLOT or held.count % SLOT or held.start < SLOT:
        return no(
            "the kubelet wants multiples of 65536 as start and count, and a start of at least 65536"
        )
    return EXACTLY


def _line(allocation: Allocation) -> Rendered:
    files = subid_files(allocation)
    pods = allocation.reserved_range.count // SLOT if allocation.reserved_range else 0
    return Rendered(
        files[0].content.removesuffix("\n"),
        files,
        (
            (
                f"the line is the same in subuid and subgid, for {pods} pods of {SLOT} ids; set the "
                f"kubelet's maxPods to {pods} or less, and lower if its idsPerPod is larger"
            ),
            "the kubelet reads it with getsubids, for the user kubelet, when it starts",
        ),
    )


ENGINES = {"kubernetes": Kubernetes()}
