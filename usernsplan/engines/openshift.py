"""OpenShift: a project's annotations, which set the ids and the MCS label of its pods; or a pod.

The pod is one for restricted-v3, a security context constraint (SCC) of OpenShift 4.20 with
"userNamespaceLevel: RequirePodLevel": the pod has a user namespace of its own, and in it any uid
and gid from 1000 to 65534.

https://docs.openshift.com/container-platform/latest/authentication/managing-security-context-constraints.html
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from usernsplan.engines import engine_of_pool, hardened, kubernetes
from usernsplan.engines.base import (
    LABEL,
    Engine,
    Hardening,
    RenderContext,
    Rendered,
    Verdict,
    nearly,
    no,
    quoted,
)
from usernsplan.errors import InvalidValueError
from usernsplan.strategies import OPENSHIFT_BLOCK, OPENSHIFT_IDS, PerContainer, SingleUid
from usernsplan.values import replace

if TYPE_CHECKING:
    from usernsplan.harden.effective import Effective
    from usernsplan.model import Allocation

# OpenShift gives each project five labels, which are pairs of 1024 categories.
_LABELS = 5
# The first of the ids that restricted-v3 takes.
_FIRST = 1000
_SINCE = "4.20"
_DROPS = (
    "        allowPrivilegeEscalation: false",
    "        capabilities:",
    "          drop:",
    "            - ALL",
)


class OpenShift(Engine):
    """Annotations: a block of ids, start/size, for users and for supplemental groups. Or a pod."""

    takes = frozenset({"image"})
    elsewhere = True

    def verdict(self, allocation: Allocation) -> Verdict:
        """A block on OpenShift's grid, or a range of which OpenShift itself chooses the ids."""
        if allocation.strategy == PerContainer.name and not engine_of_pool(allocation):
            return _of_pod(allocation)
        held = allocation.reserved_range
        if allocation.strategy != SingleUid.name or held is None:
            return no(
                "a project has one block of ids, and its pods run as the first of them; "
                "use --strategy single-uid, or per-container for pods with a user namespace"
            )
        if (
            held.count != OPENSHIFT_BLOCK
            or held.start % OPENSHIFT_BLOCK
            or held.start not in OPENSHIFT_IDS
        ):
            return no(
                f"its blocks have {OPENSHIFT_BLOCK} ids within {OPENSHIFT_IDS}; "
                "allocate without --block and --pool"
            )
        if not LABEL.fullmatch(allocation.name):
            return no(
                "a project's name has only small letters, digits and '-', and at most 63 characters"
            )
        return nearly("pods run as these host ids, without a user namespace, and see the host ids")

    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """YAML of the namespace, or of a pod."""
        its = Hardening({})
        if context.policy:
            its = self.hardening(context.policy, allocation, context)
        if allocation.strategy == PerContainer.name:
            return _pod(allocation, context, its)
        if context.image:
            raise InvalidValueError("--image is for a pod, but this is a project")

        start = allocation.reserved_range.start if allocation.reserved_range else 0
        block = f"{start}/{OPENSHIFT_BLOCK}"
        first, second = _pair(_LABELS * ((start - OPENSHIFT_IDS.start) // OPENSHIFT_BLOCK))
        level = f"s0:c{first},c{second}"
        if context.policy and context.policy.selinux_level:
            level = context.policy.selinux_level
        text = f"""\
apiVersion: v1
kind: Namespace
metadata:
  name: {quoted(allocation.name)}
  annotations:
    openshift.io/sa.scc.uid-range: "{block}"
    openshift.io/sa.scc.supplemental-groups: "{block}"
    openshift.io/sa.scc.mcs: "{level}\""""
        return Rendered(
            "\n".join([text, *its.words]),
            its.files,
            (
                "use it when you make the project: running pods keep the ids that they started with",
                (
                    f"from OpenShift {_SINCE} on, pods can have user namespaces: for an allocation of "
                    "--strategy per-container, this prints a pod"
                ),
                *its.notes,
            ),
        )

    def hardening(
        self, policy: Effective, allocation: Allocation, context: RenderContext
    ) -> Hardening:
        """Lines of a pod's securityContext; for a project, the Pod Security level of its pods."""
        if allocation.strategy != PerContainer.name:
            return _of_project(policy)
        # The pod is never root. Its level is that of its project, unless it has an SCC of its own.
        its_own = policy.selinux_level if policy.selinux_type else ""
        found = kubernetes.hardening(
            policy._replace(as_root=False, selinux_level=its_own), allocation, context
        )
        if policy.selinux_level == its_own:
            return found
        why = "OpenShift gives a pod the level of its project, which all pods of the project have"
        return replace(found, verdicts={**found.verdicts, "label": nearly(why)})


def _of_project(policy: Effective) -> Hardening:
    """What a project demands of its pods. Each pod still has words of its own."""
    others = hardened.unfiltered("each pod names its own profile, with seccompProfile")
    if policy.selinux_type:
        why = "a project sets the level alone; the type is that of the SCC"
        others["label"] = nearly(why) if policy.selinux_level else no(why)
    if policy.new_privileges or not policy.capabilities <= kubernetes.RESTRICTED:
        why = "its pods have what their SCC gives; a project can only demand none but NET_BIND_SERVICE"
        others |= dict.fromkeys(("capabilities", "no_new_privs"), no(why))
        return Hardening(hardened.verdicts(policy, others))

    if not policy.capabilities:
        others["capabilities"] = nearly("a pod may add NET_BIND_SERVICE")
    lines = ("  labels:", "    pod-security.kubernetes.io/enforce: restricted")
    notes = (
        (
            'the project refuses pods that are not of the Pod Security level "restricted", which is '
            "what the SCC restricted-v2 makes of them"
        ),
    )
    return Hardening(hardened.verdicts(policy, others), lines, notes=notes)


def _of_pod(allocation: Allocation) -> Verdict:
    """Whether a pod can have the range: it has one in any case, which OpenShift chooses."""
    if allocation.passes:
        return no("OpenShift chooses the ids of a pod, and passes none of the host's through")
    if not LABEL.fullmatch(allocation.name):
        return no("a pod's name has only small letters, digits and '-', and at most 63 characters")
    return nearly(
        f"OpenShift {_SINCE} gives the pod a range from the kubelet's line, not this range"
    )


def _pod(allocation: Allocation, context: RenderContext, its: Hardening) -> Rendered:
    """A pod that restricted-v3 admits: it drops what the SCC wants dropped, and is not root.

    What a policy has besides needs an SCC of its own.
    """
    more = _beyond(context.policy, its) if context.policy else []
    scc = f"usernsplan-{allocation.name}" if more else "restricted-v3"
    lines = [
        "apiVersion: v1",
        "kind: Pod",
        "metadata:",
        f"  name: {quoted(allocation.name)}",
        "  annotations:",
        f"    openshift.io/required-scc: {scc}",
        "spec:",
        "  hostUsers: false",
        "  securityContext:",
        "    runAsNonRoot: true",
        f"    runAsUser: {_FIRST}",
        f"    runAsGroup: {_FIRST}",
        f"    fsGroup: {_FIRST}",
        "    seccompProfile:",
        "      type: RuntimeDefault",
        "  containers:",
        f"    - name: {quoted(allocation.name)}",
        *([f"      image: {quoted(context.image)}"] if context.image else []),
        "      securityContext:",
        *(its.words or _DROPS),
    ]
    notes = [
        (
            f"this needs OpenShift {_SINCE} or newer, whose restricted-v3 has "
            '"userNamespaceLevel: RequirePodLevel"'
        ),
        (
            f"in the pod, the user and the group may be any from {_FIRST} to 65534; OpenShift chooses "
            "the host ids"
        ),
        (
            "the pod's service account needs leave to use the SCC: oc adm policy add-scc-to-user "
            f"{scc} -z default"
        ),
    ]
    if more:
        notes.append(
            f"restricted-v3 does not admit this pod: make an SCC {scc} like it that also has "
            f"{'; '.join(more)}"
        )
    if not context.image:
        notes.append("without --image this is a patch for a pod that has an image")
    return Rendered("\n".join(lines), its.files, (*notes, *its.notes))


def _beyond(policy: Effective, its: Hardening) -> list[str]:
    """What a pod has that restricted-v3 does not admit, in the words of an SCC."""
    found = []
    if not policy.capabilities <= kubernetes.RESTRICTED:
        names = ", ".join(sorted(policy.capabilities)).upper()
        found.append(f"allowedCapabilities: [{names}]")
    if policy.new_privileges:
        found.append("allowPrivilegeEscalation: true")
    if its.files:
        found.append(f"seccompProfiles: [localhost/{its.files[0].path.partition('/seccomp/')[2]}]")
    if policy.selinux_type:
        found.append("seLinuxContext: {type: RunAsAny}")
    return found


def _pair(index: int) -> tuple[int, int]:
    """The pair of categories at this place in the list of all pairs: 1,0 2,0 2,1 3,0 and so on."""
    first = (1 + math.isqrt(1 + 8 * index)) // 2
    return first, index - first * (first - 1) // 2


ENGINES = {"openshift": OpenShift()}
