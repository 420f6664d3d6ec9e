"""Docker: one mapping for the whole daemon, made of a user's lines in subuid and subgid laid end to end.

https://docs.docker.com/engine/security/userns-remap/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from usernsplan.engines.base import (
    EXACTLY,
    TTY,
    File,
    RenderContext,
    Rendered,
    Verdict,
    nearly,
    no,
    plain,
    subid_files,
)
from usernsplan.errors import InvalidValueError
from usernsplan.formats import daemon_json
from usernsplan.layout import DAEMON_JSON
from usernsplan.model import DEFAULT_NAME
from usernsplan.strategies import in_subid

if TYPE_CHECKING:
    from usernsplan.model import Allocation, Mount


class Docker:
    """daemon.json with userns-remap and no-new-privileges, merged with the host's own."""

    reads_host: ClassVar[bool] = True
    takes: ClassVar[frozenset[str]] = frozenset({"volume"})
    idmap: ClassVar[Literal["no"]] = "no"

    def verdict(self, allocation: Allocation) -> Verdict:
        """Only what lies in subuid, and only without a gap from container id 0."""
        return can_lay(allocation)

    def render(self, allocation: Allocation, asked: RenderContext) -> Rendered:
        """The host's daemon.json with userns-remap set to the owner; what it says of no-new-privileges stays."""
        if asked.state is None:
            raise InvalidValueError("Docker's daemon.json depends on the host, and none was read")
        config = daemon_json.parse(
            asked.state.daemon_json or b"", asked.state.layout.path(DAEMON_JSON)
        )
        text = daemon_json.with_remap(config, allocation.owner)
        if not config.has(daemon_json.NO_NEW_PRIVILEGES):
            text = daemon_json.with_value(
                daemon_json.parse(text, ""), daemon_json.NO_NEW_PRIVILEGES, value=True
            )
        # The default allocation is made by naming none, and Docker is pointed at it then.
        option = (
            "--engine docker" if allocation.name == DEFAULT_NAME else f"--daemon {allocation.name}"
        )
        notes = needs(allocation, asked, option)
        if (replaced := config.get(daemon_json.REMAP)) not in {None, allocation.owner}:
            notes += (
                f'it replaces "userns-remap": "{replaced}": Docker hides the images and containers it has there',
            )
        return Rendered(
            text.decode().removesuffix("\n"),
            (File(DAEMON_JSON, text.decode()), *subid_files(allocation)),
            (*notes, *run_with("docker run", asked.mounts)),
        )


def can_lay(allocation: Allocation) -> Verdict:
    """Whether Docker's one way of making a map makes this one."""
    if not in_subid(allocation.strategy, allocation.mapping):
        return no("it takes its map from subuid, and this one is not written there")
    if not (allocation.mapping.uids.is_end_to_end() and allocation.mapping.gids.is_end_to_end()):
        return no("it lays ranges end to end from container id 0 and cannot skip ids")
    if allocation.owner in {"root", "default"}:
        return no(
            f'it takes "userns-remap": "{allocation.owner}" for something else than the user of that name'
        )
    if allocation.mapping.gids.to_host(TTY) is None:
        return nearly(
            f"containers start only with --tmpfs /dev/pts: it mounts that for gid {TTY}, which is not mapped"
        )
    return EXACTLY


def needs(allocation: Allocation, asked: RenderContext, option: str) -> tuple[str, ...]:
    """What has to be on the host before a daemon with this remap starts, as far as it is not.

    ``option``, added to the words that made the allocation, makes it so.
    """
    notes = []
    state = asked.state
    if state is None or not (
        state.accounts.user(allocation.owner) and state.accounts.group(allocation.owner)
    ):
        notes.append(
            f"Docker starts only where {allocation.owner} is an account with a group of its name: "
            f"the words that allocated it, with {option}, make both"
        )
    if allocation.mapping.gids.to_host(TTY) is None:
        notes.append(
            "Docker mounts /dev/pts for gid 5, which is not mapped: start containers with --tmpfs /dev/pts"
        )
    return tuple(notes)


def run_with(command: str, mounts: tuple[Mount, ...]) -> tuple[str, ...]:
    """What is to be said to each container, because the daemon's configuration has no volumes."""
    if not mounts:
        return ()
    words = [
        f"-v {plain(m.source)}:{plain(m.destination)}" + (":ro" if m.read_only else "")
        for m in mounts
    ]
    return (f"volumes are said to each container: {command} {' '.join(words)} …",)


ENGINES = {"docker": Docker()}
