"""OCI runtimes (crun, runc): a fragment of config.json.

https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#user-namespace-mappings
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar

from usernsplan.engines.base import Rendered, Verdict

if TYPE_CHECKING:
    from usernsplan.mapping import IdMap
    from usernsplan.model import Allocation, HostState


class Oci:
    """The part of config.json that makes the user namespace and its maps."""

    reads_host: ClassVar[bool] = False

    def verdict(self, allocation: Allocation) -> Verdict:
        """Any map: the runtime writes it to the kernel as it is."""
        del allocation
        return Verdict(can=True)

    def render(self, allocation: Allocation, state: HostState | None) -> Rendered:
        """A JSON object to merge into config.json; "namespaces" is to be joined with the ones that stand there."""
        del state
        linux = {
            "namespaces": [{"type": "user"}],
            "uidMappings": _mappings(allocation.mapping.uids),
            "gidMappings": _mappings(allocation.mapping.gids),
        }
        return Rendered(json.dumps({"linux": linux}, indent=2))


def _mappings(ids: IdMap) -> list[dict[str, int]]:
    return [{"containerID": container, "hostID": host, "size": count} for container, host, count in ids.triples()]


ENGINES = {"oci": Oci()}
