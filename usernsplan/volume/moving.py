"""Move the volumes of a container whose map is another one now: their files have the former ids.

The ledger notes the former map for each volume (``Volume.former``). ``fix_volume`` moves from that
map by itself, and records the volume without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.fixing import FixReport, FixRequest
from usernsplan.volume.fix import fix_volume

if TYPE_CHECKING:
    from usernsplan.model import LedgerState, Volume
    from usernsplan.volume.job import Watch


def move(  # noqa: PLR0913 - the options of the command
    volume: Volume,
    root: str = "/",
    *,
    dry_run: bool = False,
    ledger: LedgerState | None = None,
    request: FixRequest | None = None,
    command: str = "",
    watch: Watch | None = None,
) -> FixReport:
    """Move a recorded volume, and all in it, from the former map to the container's map.

    Every file keeps its container id, whatever the mode of the volume; what has the right host id
    is not touched. ``request`` has what is permitted, such as drop_power; its paths and container
    do not matter. With ``dry_run``, ``ledger`` may be a state that is not written yet: the new map,
    and the volume with its ``former``. Raises what ``fix_volume`` raises; then nothing was changed.

    The volume is recorded as moved only if everything was. If something failed (see the report),
    or after a kill, the same call goes on.
    """
    asked = request or FixRequest(())
    asked = FixRequest(
        (volume.path,),
        volume.name,
        keep_unmapped=asked.keep_unmapped,
        skip_outside_links=asked.skip_outside_links,
        cross_mounts=asked.cross_mounts,
        jobs=asked.jobs,
        protected=asked.protected,
        drop_power=asked.drop_power,
        keep_power=asked.keep_power,
        copy_up=asked.copy_up,
        command=asked.command,
    )
    return fix_volume(asked, root, dry_run=dry_run, ledger=ledger, command=command, watch=watch)
