"""OpenShift: annotations of a project (namespace) that set the ids and the MCS label of its pods.

https://docs.openshift.com/container-platform/latest/authentication/managing-security-context-constraints.html
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from usernsplan.engines.base import (
    LABEL,
    Engine,
    RenderContext,
    Rendered,
    Verdict,
    nearly,
    no,
    quoted,
)
from usernsplan.strategies import OPENSHIFT_BLOCK, OPENSHIFT_IDS, SingleUid

if TYPE_CHECKING:
    from usernsplan.model import Allocation

# OpenShift gives each project five labels, which are pairs of 1024 categories.
_LABELS = 5


class OpenShift(Engine):
    """Annotations: a block of ids, start/size, for users and for supplemental groups."""

    def verdict(self, allocation: Allocation) -> Verdict:
        """A block on OpenShift's grid."""
        held = allocation.reserved_range
        if allocation.strategy != SingleUid.name or held is None:
            return no(
                "a project has one block of ids, and its pods run as the first of them; "
                "use --strategy single-uid"
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
        """YAML of the namespace."""
        del context
        start = allocation.reserved_range.start if allocation.reserved_range else 0
        block = f"{start}/{OPENSHIFT_BLOCK}"
        first, second = _pair(_LABELS * ((start - OPENSHIFT_IDS.start) // OPENSHIFT_BLOCK))
        text = f"""\
apiVersion: v1
kind: Namespace
metadata:
  name: {quoted(allocation.name)}
  annotations:
    openshift.io/sa.scc.uid-range: "{block}"
    openshift.io/sa.scc.supplemental-groups: "{block}"
    openshift.io/sa.scc.mcs: "s0:c{first},c{second}\""""
        return Rendered(
            text,
            (),
            ("use it when you make the project: running pods keep the ids that they started with",),
        )


def _pair(index: int) -> tuple[int, int]:
    """The pair of categories at this place in the list of all pairs: 1,0 2,0 2,1 3,0 and so on."""
    first = (1 + math.isqrt(1 + 8 * index)) // 2
    return first, index - first * (first - 1) // 2


ENGINES = {"openshift": OpenShift()}
