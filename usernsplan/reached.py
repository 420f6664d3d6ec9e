"""Who reaches the sources of recorded mounts: one look at the processes, however many mounts."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from usernsplan.errors import UsernsplanError
from usernsplan.host import files
from usernsplan.planner import shelter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.formats.accounts import Accounts
    from usernsplan.layout import Layout
    from usernsplan.model import LedgerState, MountSeen, VolumeMount


def reached(
    layout: Layout, ledger: LedgerState, seen: tuple[MountSeen, ...], accounts: Accounts
) -> tuple[MountSeen, ...]:
    """The recorded mounts with the ways by which others get to their sources."""
    known = {mount.at: mount for mount in ledger.mounts}
    powerful = [
        mount
        for one in seen
        if shelter.powers(mount := known[one.at], accounts, ledger.allocations)
    ]
    if not powerful:
        return seen
    from usernsplan.host import reach  # noqa: PLC0415 - most hosts have no mounts

    sources = [reach.Source(partial(_opened, layout, mount), mount.crosses) for mount in powerful]
    ways: dict[str, tuple[str, ...]] = {}
    # Without /proc nothing is known.
    with suppress(UsernsplanError, OSError):
        ways = {
            mount.at: shelter.problems(shelter.open_ways(found), found)
            for mount, found in zip(powerful, reach.of_all(sources), strict=True)
        }
    return tuple(one._replace(reached=ways.get(one.at, ())) for one in seen)


@contextmanager
def _opened(layout: Layout, mount: VolumeMount) -> Iterator[int | None]:
    """A descriptor of the source of a mount; None if it is gone, which another rule tells."""
    source = None
    with suppress(UsernsplanError, OSError), files.pinned(layout, mount.source) as place:
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        source = os.open(place.name, flags, dir_fd=place.folder)
    try:
        yield source
    finally:
        if source is not None:
            os.close(source)
