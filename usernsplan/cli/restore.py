"""The part of the command volumes that mounts: --restore, which a unit runs at boot."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from usernsplan.cli.emit import emit
from usernsplan.cli.options import typed
from usernsplan.cli.progress import watching
from usernsplan.errors import ExitStatus
from usernsplan.host.files import layout_at
from usernsplan.report import results
from usernsplan.volume import returning

if TYPE_CHECKING:
    from collections.abc import Sequence


def restore(names: Sequence[str], root: str, *, as_json: bool) -> None:
    """Make the recorded mounts that are missing, and print them."""
    layout = layout_at(root, exists=True)
    with watching() as watch:
        report = returning.restore(names, root, command=typed(), watch=watch)
    emit(results.fixed(report, layout), as_json=as_json)
    if report.failed:
        sys.exit(ExitStatus.DONE_IN_PART)
