"""The recorded mounts as they are now, for the commands that show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from usernsplan.layout import Layout
    from usernsplan.model import LedgerState, VolumeMount


class MountLooks(NamedTuple):
    """A recorded mount, and what is wrong with it: facts with their remedies.

    ``is_told``: the kernel tells its map, so that it was compared.
    """

    mount: VolumeMount
    wrong: tuple[tuple[str, str], ...] = ()
    is_told: bool = False


def mounts(
    layout: Layout, ledger: LedgerState, name: str | None = None, *, by_all_ways: bool = False
) -> list[MountLooks]:
    """The recorded mounts (of one container) as they look now.

    ``by_all_ways``: who reaches their sources is asked of all processes and mount namespaces, and
    not of the path of the source alone.
    """
    wanted = [mount for mount in ledger.mounts if name in {None, mount.name}]
    if not wanted:
        return []
    from usernsplan.host import standing  # noqa: PLC0415 - most hosts have no mounts
    from usernsplan.planner.mount_doubts import doubts  # noqa: PLC0415

    looks = standing.look(layout, wanted)
    if by_all_ways:
        from usernsplan.host import accounts  # noqa: PLC0415 - see above
        from usernsplan.reached import reached  # noqa: PLC0415

        looks = reached(layout, ledger, looks, accounts.read(layout))
    seen = {one.at: one for one in looks}
    wrong: dict[str, list[tuple[str, str]]] = {}
    for doubt in doubts(ledger, seen.values(), layout):
        wrong.setdefault(doubt.mount.at, []).append((doubt.fact, doubt.remedy))
    return [
        MountLooks(one, tuple(wrong.get(one.at, ())), seen[one.at].mapping is not None)
        for one in wanted
    ]
