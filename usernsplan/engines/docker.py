"""Docker: one mapping for the whole daemon, made of a user's lines in subuid and subgid laid end to end.

https://docs.docker.com/engine/security/userns-remap/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from usernsplan.engines.base import Rendered, Verdict
from usernsplan.errors import InvalidValueError
from usernsplan.formats import daemon_json
from usernsplan.layout import DAEMON_JSON
from usernsplan.strategies import in_subid

if TYPE_CHECKING:
    from usernsplan.model import Allocation, HostState


class Docker:
    """daemon.json with userns-remap, merged with the host's own."""

    reads_host: ClassVar[bool] = True

    def verdict(self, allocation: Allocation) -> Verdict:
        """Only what lies in subuid, and only without a gap from container id 0."""
        if not in_subid(allocation.strategy, allocation.mapping):
            return Verdict(can=False, why="it takes its map from subuid, and this one is not written there")
        if not (allocation.mapping.uids.is_end_to_end() and allocation.mapping.gids.is_end_to_end()):
            return Verdict(can=False, why="it lays ranges end to end from container id 0 and cannot skip ids")
        return Verdict(can=True)

    def render(self, allocation: Allocation, state: HostState | None) -> Rendered:
        """The host's daemon.json with userns-remap set to the owner."""
        if state is None:
            raise InvalidValueError("Docker's daemon.json depends on the host, and none was read")
        config = daemon_json.parse(state.daemon_json or b"", state.layout.path(DAEMON_JSON))
        text = daemon_json.with_remap(config, allocation.owner).decode().removesuffix("\n")
        if state.accounts.user(allocation.owner) and state.accounts.group(allocation.owner):
            return Rendered(text)
        note = (
            f"Docker starts only where {allocation.owner} is an account with a group of its name: "
            f"'allocate --strategy {allocation.strategy} {allocation.name} --daemon {allocation.name}' makes both"
        )
        return Rendered(text, (note,))


ENGINES = {"docker": Docker()}
