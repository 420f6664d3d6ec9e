"""snapd: where it is installed, the ids that are kept for its users have a holder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.host import programs
from usernsplan.mapping import KINDS
from usernsplan.model import SNAPD, Unlisted
from usernsplan.reserved import FOR_SNAPD

if TYPE_CHECKING:
    from usernsplan.layout import Layout

# The command, and the daemon of Debian and of Fedora.
_PROGRAMS = ("/usr/bin/snap", "/usr/lib/snapd/snapd", "/usr/libexec/snapd/snapd")


def users(layout: Layout) -> tuple[Unlisted, ...]:
    """The ids of FOR_SNAPD, with the program that takes them; () where snapd is not installed."""
    path = next((path for path in _PROGRAMS if programs.exists(layout, path)), None)
    if path is None:
        return ()
    ids = FOR_SNAPD.ids
    return tuple(
        Unlisted(SNAPD, "the users of snaps", kind, ids.start, ids.stop, path=path)
        for kind in KINDS
    )
