"""Podman's --userns=auto, as root: the ids come from a pool, the lines of the owner ``containers``.

podman-run(1), containers-storage.conf(5), containers.conf(5)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines import engine_of_pool
from usernsplan.engines.base import (
    EXACTLY,
    File,
    Hardening,
    RenderContext,
    Rendered,
    Verdict,
    no,
    subid_files,
)
from usernsplan.engines.podman import OfPodman, flags_of, of_idmap, volume
from usernsplan.strategies import SLOT

if TYPE_CHECKING:
    from usernsplan.harden.effective import Effective
    from usernsplan.model import Allocation

# Podman 4.3 ignores a size in containers.conf. It has to be in storage.conf, as a number.
_STORAGE_CONF = f"""\
root-auto-userns-user = "{{owner}}"
auto-userns-min-size = {SLOT}
auto-userns-max-size = {SLOT}
"""


class PodmanAuto(OfPodman):
    """Flags for podman run, and the configuration that makes --userns=auto the default."""

    takes = frozenset({"volume", "U"})
    idmap = "yes"

    def verdict(self, allocation: Allocation) -> Verdict:
        """A pool: Podman chooses which part of it a container gets."""
        if engine_of_pool(allocation) == "podman-auto":
            return EXACTLY
        return no(
            "it takes a part of its own pool for each container; make the pool with "
            "'usernsplan allocate --engine podman-auto'"
        )

    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """Flags with a size: without one Podman guesses it from the image, often too small."""
        flags = [f"--userns=auto:size={SLOT}", *(f"-v {volume(mount)}" for mount in context.mounts)]
        its = Hardening({})
        if context.policy:
            its = self.hardening(context.policy, allocation, context)
        conf = '[containers]\nuserns = "auto"\n'
        storage = _STORAGE_CONF.format(owner=allocation.owner)
        fits = allocation.reserved_range.count // SLOT if allocation.reserved_range else 0
        return Rendered(
            " ".join([*flags, *its.words]),
            (
                File("/etc/containers/containers.conf.d/10-usernsplan.conf", conf),
                File("/etc/containers/storage.conf", storage, "options"),
                *subid_files(allocation),
                *its.files,
            ),
            (
                (
                    f"the pool has room for {fits} containers of {SLOT} ids; a container keeps its "
                    "part until it is removed"
                ),
                *of_idmap(context),
                (
                    "--out DIR makes this the default of every container: containers.conf, and "
                    "[storage.options] of storage.conf " + ", ".join(storage.splitlines())
                ),
                *its.notes,
            ),
        )

    def hardening(
        self, policy: Effective, allocation: Allocation, context: RenderContext
    ) -> Hardening:
        """The flags of podman run, which has no other way to get them."""
        return flags_of(policy, allocation, context)


ENGINES = {"podman-auto": PodmanAuto()}
