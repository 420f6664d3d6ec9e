"""Look at volumes for a person who chooses a method. Changes nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from usernsplan.errors import UsernsplanError, of_place
from usernsplan.fixing import FixRequest, Obstacle
from usernsplan.host import accounts
from usernsplan.host.mounts import all_mounts, mount_of, of_others
from usernsplan.ledger import open_ledger
from usernsplan.values import replace
from usernsplan.volume import census, decide, judge, mounting, options, spots, walk
from usernsplan.volume.discover import discover
from usernsplan.volume.explained import Facts, explained, fitting
from usernsplan.volume.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from usernsplan.fixing import Explained
    from usernsplan.host.mounts import Seen
    from usernsplan.layout import Layout
    from usernsplan.model import LedgerState


def explain(request: FixRequest, root: str = "/") -> tuple[Explained, ...]:
    """What either method would mean for each volume of a request.

    Raises InvalidValueError, RefusedError or NotPermittedError for what is no volume, or for
    options that contradict each other.
    """
    layout = Job.at(root, None, None, "").layout
    ledger = open_ledger(layout).state()
    request, _ = discover(layout, request, ledger)
    others = of_others()
    return tuple(
        _one(layout, request, ledger, place, others) for place in spots.find(layout, request)
    )


def _one(
    layout: Layout, asked: FixRequest, ledger: LedgerState, place: str, others: list[Seen]
) -> Explained:
    names = [spots.name_of(layout, place)]
    meant = decide.understood(asked, ledger, names, layout.command)
    with of_place(place):
        opened = walk.volume(place, cross_mounts=asked.cross_mounts)
    try:
        found = census.take(opened)
    finally:
        os.close(opened.top)
    mode, why = fitting(asked, mounting.as_mounted(meant, default=None), found)
    meant = mounting.as_mounted(meant, default=mode)
    passwd = accounts.of_image(asked.passwd)
    rule = options.targets_of(
        meant.request, ledger, meant.allocation, passwd, names, former=meant.former
    )
    mounts = all_mounts()
    allocation = meant.allocation
    with of_place(place):
        seen = os.lstat(place)
    facts = Facts(
        asked,
        meant,
        why,
        rule,
        mount_of(place, mounts),
        found,
        None if allocation is None else mounting.shown_ids(rule, allocation, seen),
        tuple(_refusals(layout, meant, place)),
        tuple(_against_mounts(layout, asked, meant, place)),
        tuple(_refusal(lambda: judge.refuse_mounted(ledger, names, layout))),
        not walk.is_doubted(opened, mounts),
        tuple(spots.users_of(place, others)),
    )
    return explained(place, facts)


def _refusals(layout: Layout, meant: decide.Meant, place: str) -> Iterator[Obstacle]:
    """Why a run of either method would be refused."""
    yield from _refusal(lambda: spots.refuse_dangerous(layout, meant.request, [place]))
    yield from _refusal(lambda: spots.refuse_idmapped(place))
    yield from _refusal(lambda: judge.refuse_others(meant))
    yield from _refusal(lambda: judge.refuse_never_given(meant))


def _against_mounts(
    layout: Layout, asked: FixRequest, meant: decide.Meant, place: str
) -> Iterator[Obstacle]:
    if mounting.settled(replace(asked, method="auto")).method == "chown":
        yield Obstacle("these options are about a change of the disk")
        return
    yield from mounting.against_mounts(meant)
    if why := mounting.against(layout, meant, place):
        yield why


def _refusal(refuse: Callable[[], None]) -> Iterator[Obstacle]:
    try:
        refuse()
    except UsernsplanError as error:
        yield Obstacle(str(error), error.hint)
