"""Whether a server keeps what it acknowledges, as far as it lets an ordinary role see. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEE = "the server's owner lets it see that: GRANT pg_read_all_stats TO ROLE"


class Durability(NamedTuple):
    """What a server says about itself. ``standbys``: for each that is connected, its sync_state.

    Only roles with pg_read_all_stats see the states of standbys; they are None for any other.
    """

    synchronous_commit: str
    fsync: bool
    names: str
    standbys: tuple[str | None, ...]
    is_standby: bool = False

    @property
    def replication(self) -> str:
        """``none``, ``synchronous``, ``asynchronous``, or ``unknown`` where the role does not see it."""
        if not self.names:
            return "asynchronous" if self.standbys else "none"
        if {"sync", "quorum"} & {*self.standbys}:
            return "synchronous"
        return "unknown" if None in self.standbys else "asynchronous"


def doubts(found: Durability) -> Iterator[tuple[str, str]]:
    """What can lose an acknowledged change, each with its remedy."""
    if found.is_standby:
        yield "this server is a standby: no host can change anything there", "name the primary"
    if not found.fsync:
        yield "fsync is off: a crash of the server's system loses changes", "set fsync = on there"
    if found.synchronous_commit == "off":
        yield (
            "synchronous_commit is off: a crash of the server loses changes that it acknowledged",
            "set synchronous_commit = on there",
        )
    if found.names and found.synchronous_commit == "local":
        yield (
            "synchronous_commit is local: no change waits for a standby",
            "set synchronous_commit = on there",
        )
    if found.replication == "asynchronous" and not found.names:
        yield (
            "the standby is asynchronous: a failover loses changes that were acknowledged",
            "name it in synchronous_standby_names there",
        )
    if found.replication == "asynchronous" and found.names:
        yield (
            "no synchronous standby is connected: each change waits for one",
            "start it, or mend synchronous_standby_names",
        )
    if found.replication == "unknown":
        yield "this role may not see whether the standby is synchronous", _SEE
