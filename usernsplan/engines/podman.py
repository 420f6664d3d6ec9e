"""Podman as root: --uidmap and --gidmap, container:host:count. Rootless, the middle number means something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from usernsplan.engines.base import Rendered, Verdict
from usernsplan.model import DEFAULT_OWNER, ROOT

if TYPE_CHECKING:
    from usernsplan.mapping import IdMap
    from usernsplan.model import Allocation, HostState


class Podman:
    """Flags for podman run, create and build."""

    reads_host: ClassVar[bool] = False

    def verdict(self, allocation: Allocation) -> Verdict:
        """Any map: root's Podman hands it to the runtime as it is."""
        del allocation
        return Verdict(can=True)

    def render(self, allocation: Allocation, state: HostState | None) -> Rendered:
        """The flags, on one line, to stand right after ``podman run``."""
        del state
        flags = (*_flags("--uidmap", allocation.mapping.uids), *_flags("--gidmap", allocation.mapping.gids))
        own = allocation.owner.startswith("usernsplan-") or allocation.owner in {DEFAULT_OWNER, ROOT}
        note = (
            f"these flags are for root's Podman; run by {allocation.owner}, it reads the lines itself and wants no "
            "flags, after 'podman system migrate'"
        )
        return Rendered(" ".join(flags), () if own else (note,))


def _flags(flag: str, ids: IdMap) -> list[str]:
    return [f"{flag} {container}:{host}:{count}" for container, host, count in ids.triples()]


ENGINES = {"podman": Podman()}
