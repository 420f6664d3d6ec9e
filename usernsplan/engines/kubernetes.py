"""Kubernetes: a pod's securityContext; and the kubelet's one line, out of which it gives every pod its range.

https://kubernetes.io/docs/concepts/workloads/pods/user-namespaces/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from usernsplan.engines import engine_of_pool
from usernsplan.engines.base import (
    EXACTLY,
    LABEL,
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

if TYPE_CHECKING:
    from usernsplan.model import Allocation


class Kubernetes:
    """For a container a pod that wants a user namespace, or runs as one id; for the kubelet's pool its line."""

    reads_host: ClassVar[bool] = False
    takes: ClassVar[frozenset[str]] = frozenset({"volume", "image"})
    idmap: ClassVar[Literal["itself"]] = "itself"

    def verdict(self, allocation: Allocation) -> Verdict:
        """A pod has no say in which ids it gets; only single-uid can be had without a namespace."""
        if engine_of_pool(allocation) == "kubernetes":
            return _kubelets(allocation)
        if not LABEL.fullmatch(allocation.name):
            return no(
                "its name is none for a pod, which has small letters, digits and '-' only, and at most 63"
            )
        if allocation.strategy == PerContainer.name:
            return nearly("the kubelet gives the pod a range out of its own line, not this one")
        if allocation.strategy == SingleUid.name:
            return nearly(
                "the pod runs as these host ids without a user namespace, and sees them as they are"
            )
        return no("a pod can have a range of its own or one id, nothing between")

    def render(self, allocation: Allocation, asked: RenderContext) -> Rendered:
        """YAML of a pod, or the kubelet's line of subuid and subgid."""
        if engine_of_pool(allocation) == "kubernetes":
            if asked.mounts or asked.image:
                raise InvalidValueError(
                    "--volume and --image are about a pod, and this is the kubelet's own line"
                )
            return _line(allocation)
        lines = [
            "apiVersion: v1",
            "kind: Pod",
            "metadata:",
            f"  name: {quoted(allocation.name)}",
            "spec:",
        ]
        grants = asked.layout.command("allocate --strategy per-container --engine kubernetes")
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
            ]
            lines += [f"    fsGroup: {gid}"]
            notes = []
        lines += ["  containers:", f"    - name: {quoted(allocation.name)}"]
        lines += [f"      image: {quoted(asked.image)}"] if asked.image else []
        lines += ["      securityContext:", "        allowPrivilegeEscalation: false"]
        if asked.mounts:
            lines.append("      volumeMounts:")
            for number, mount in enumerate(asked.mounts, 1):
                lines += [
                    f"        - name: volume-{number}",
                    f"          mountPath: {quoted(mount.destination)}",
                ]
                lines += ["          readOnly: true"] if mount.read_only else []
            lines.append("  volumes:")
            for number, mount in enumerate(asked.mounts, 1):
                lines += [
                    f"    - name: volume-{number}",
                    "      hostPath:",
                    f"        path: {quoted(mount.source)}",
                ]
                lines += ["        type: Directory"] if mount.is_folder else []
        if not asked.image:
            notes.append("without --image it is a patch for a pod that says its image")
        return Rendered("\n".join(lines), (), tuple(notes))


def _kubelets(allocation: Allocation) -> Verdict:
    """What the kubelet asks of its line, or it does not start: whole blocks of 65536, none of them the host's."""
    held = allocation.reserved_range
    if held is None or held.start % SLOT or held.count % SLOT or held.start < SLOT:
        return no(
            "the kubelet wants start and count to be multiples of 65536, and the start no less than that"
        )
    return EXACTLY


def _line(allocation: Allocation) -> Rendered:
    files = subid_files(allocation)
    pods = allocation.reserved_range.count // SLOT if allocation.reserved_range else 0
    return Rendered(
        files[0].content.removesuffix("\n"),
        files,
        (
            f"the same in subuid and subgid, for {pods} pods: the kubelet's maxPods has to be no more",
            "the kubelet reads it through getsubids, for the user kubelet, when it starts",
        ),
    )


ENGINES = {"kubernetes": Kubernetes()}
