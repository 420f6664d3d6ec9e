"""Ids that an idmapped mount shows: files get them as owners, even if no process runs with them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan.ids import ID_LIMIT
from usernsplan.mapping import KINDS
from usernsplan.model import MOUNT, Unlisted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.layout import Layout
    from usernsplan.mapping import Kind


def idmapped(layout: Layout) -> tuple[Unlisted, ...]:
    """The host ids of each idmapped mount of this machine, each range once.

    As in ``namespaces.host_ids``, ids that are mapped to themselves are left out: they are the
    host's own. Nothing is known of other mount namespaces that we may not look at, nor before
    Linux 6.15.
    """
    if not layout.is_host:
        return ()
    from usernsplan.host import mounts  # noqa: PLC0415 - other roots have none

    found: dict[tuple[Kind, int, int], Unlisted] = {}
    seen: set[str] = set()
    for pid, namespace in mounts.processes():
        if namespace not in seen:
            # Processes end at any time, and an older kernel does not know the calls.
            with suppress(OSError):
                for one in _of(pid):
                    found.setdefault((one.kind, one.start, one.stop), one)
                seen.add(namespace)
    return tuple(found.values())


def _of(pid: int | str) -> Iterator[Unlisted]:
    from usernsplan.host import mounts  # noqa: PLC0415 - see idmapped

    if b"idmapped" not in mounts.raw(pid):
        return
    from usernsplan.host import statmount  # noqa: PLC0415 - ctypes is slow to import

    for one in statmount.idmapped(pid):
        point = one.point
        what, path = (point, point) if pid == "self" else (f"{point} of process {pid}", "")
        for kind, lines in zip(KINDS, (one.uids, one.gids), strict=True):
            for on_disk, host, count in lines:
                # A host id that our own namespace does not have is shown as ID_LIMIT.
                if on_disk != host < ID_LIMIT:
                    yield Unlisted(MOUNT, what, kind, host, host + count, path=path)
