"""Kubernetes: the securityContext of a pod, and the line from which the kubelet gives pods ranges.

https://kubernetes.io/docs/concepts/workloads/pods/user-namespaces/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines import engine_of_pool
from usernsplan.engines.base import (
    EXACTLY,
    LABEL,
    Engine,
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


class Kubernetes(Engine):
    """A pod with a user namespace, or one that runs as one id; for the kubelet's pool, its line."""

    takes = frozenset({"volume", "image"})
    idmap = "itself"

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
        lines += ["      securityContext:", "        allowPrivilegeEscalation: false"]

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
        return Rendered("\n".join(lines), (), tuple(notes))


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
