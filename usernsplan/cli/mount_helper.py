"""The helper of mount(8): ``mount -t usernsplan SOURCE DEST -o container=NAME``.

mount(8) looks for it as /sbin/mount.usernsplan. So fstab, systemd and Ansible mount a volume as
they mount anything else.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from usernsplan import escape
from usernsplan.cli import say
from usernsplan.cli.options import one_of
from usernsplan.errors import InvalidValueError, NotPermittedError, UsernsplanError, of_system
from usernsplan.escape import shell
from usernsplan.fixing import FixRequest
from usernsplan.formats import mount_words
from usernsplan.host import booted
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger
from usernsplan.report import text
from usernsplan.values import replace
from usernsplan.volume import fix, returning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.fixing import FixReport
    from usernsplan.formats.mount_words import MountWords
    from usernsplan.model import VolumeMount

# Exit statuses of mount(8).
_DONE, _USAGE, _FAILED = 0, 1, 32


def main() -> None:
    """Mount what the words of mount(8) say, and exit with its status."""
    sys.exit(_run(sys.argv[1:], shell("mount.usernsplan", *sys.argv[1:])))


def _run(argv: Sequence[str], command: str) -> int:
    try:
        words = mount_words.parse(argv)
        report = _mounted(words, command)
    except OSError as error:
        return _told(of_system(error))
    except UsernsplanError as error:
        return _told(error)
    for note in report.notes:
        say(escape.told(f"note: {note}"))
    if words.is_loud:
        say(text.fixed(report, layout_at("/")))
    for place in report.failed:
        say(escape.told(f"mount.usernsplan: {place.path}: {place.reason}"))
    return _FAILED if report.failed else _DONE


def _told(error: UsernsplanError) -> int:
    say(escape.told(f"mount.usernsplan: {error}"))
    if error.hint:
        say(escape.told(f"  {error.hint}"))
    return _USAGE if isinstance(error, InvalidValueError | NotPermittedError) else _FAILED


def _mounted(words: MountWords, command: str) -> FixReport:
    """Make the mount again if it is recorded with the same meaning; else as a new run."""
    # fstab calls us at boot, as root.
    booted.refuse_unsafe()
    request = _request(words)
    meant = fix.fix_volume(request, dry_run=True, command=command)
    if words.is_fake:
        return meant
    recorded = open_ledger(layout_at("/")).state().mounts
    [mount] = meant.mounts
    if any(_plain(mount) == _plain(one) for one in recorded):
        return returning.restore([mount.at], command=command)
    return fix.fix_volume(request, command=command)


def _request(words: MountWords) -> FixRequest:
    said = words.options
    if "container" not in said:
        raise InvalidValueError("the option container is missing", hint="add -o container=NAME")
    return FixRequest(
        (words.source,),
        said["container"],
        one_of("mode", said.get("mode"), "own", "shift"),  # type: ignore[arg-type]
        said.get("container-user"),
        cross_mounts="cross-mounts" in said,
        protected="protected" in said,
        take="take" in said,
        method="idmap",
        at=os.path.abspath(words.at),
        protect=one_of("protect", said.get("protect"), "nosuid", "parent"),  # type: ignore[arg-type]
        options=words.attributes,
    )


def _plain(mount: VolumeMount) -> VolumeMount:
    """What a mount means, without how it came about and returns."""
    return replace(mount, run="", since="", event=0, lasting="")
