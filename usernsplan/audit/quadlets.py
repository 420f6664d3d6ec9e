"""The rule about the maps of Podman's .container files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, rule
from usernsplan.claims.sources import Granted
from usernsplan.errors import InvalidValueError
from usernsplan.escape import shell, utf8
from usernsplan.formats import quadlet_file
from usernsplan.formats.subid import PATHS
from usernsplan.ids import IdSet
from usernsplan.mapping import KINDS, IdMap
from usernsplan.planner.standing import namespace_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.mapping import Extent, Kind
    from usernsplan.model import Quadlet


@rule("USN047", "error")
def unit_is_not_granted(facts: Facts) -> Iterator[Seen]:
    """A .container file of an account maps ids that the account does not have.

    Podman runs all containers of an account in one user namespace: there, 0 is the account itself,
    and the ids of its lines follow from 1 on, in the order of their first ids. UIDMap= and GIDMap=
    count in these numbers (with @ before it, a number is the host's). A container whose map has
    others does not start: "newuidmap: write to uid_map failed: Operation not permitted", or
    crun's "Invalid argument".

    It happens if the map is that of root's Podman, in host ids; if the lines are smaller than
    those of the host from which the file was copied; or if the account got other lines.

        alice:100000:65536                  alice has 0-65536 in her namespace
        UIDMap=0:100000:65536               in a .container file of hers: these are host ids

    Write the numbers of the account's namespace: 'usernsplan allocate NAME --within alice', then
    'usernsplan render quadlet --rootless NAME', prints such lines.
    """
    if not facts.state.subid_source.reads_files:
        return
    granted = Granted(facts.state)
    for unit in facts.state.quadlets:
        if not (unit.account and (unit.uids or unit.gids)):
            continue
        for kind, texts in zip(
            KINDS, (unit.uids or unit.gids, unit.gids or unit.uids), strict=True
        ):
            try:
                read = [quadlet_file.extent(text) for text in texts]
                space = namespace_of(facts.state, unit.account, kind)
            except InvalidValueError:
                # Podman has more forms, and other rules tell of lines.
                break
            if fact := _lacking(unit, kind, read, space, granted):
                place = facts.place(unit.path, unit.number)
                yield Seen(place, f"{_named(unit)} does not start: {fact}", _hint(facts, unit))
                break


def _named(unit: Quadlet) -> str:
    return f"Podman's container {utf8(unit.name)} of {unit.account}"


def _lacking(
    unit: Quadlet, kind: Kind, read: list[tuple[Extent, bool]], space: IdMap, granted: Granted
) -> str:
    """What the account lacks of a map; "" if it has all of it."""
    here = IdSet(e.container_range for e in space)
    own = space[0].host
    for extent, is_host in read:
        if is_host:
            wanted = IdSet((extent.host_range,)) - granted.to(unit.account, kind)
            if wanted and (extent.host, extent.count) != (own, 1):
                file = PATHS[kind].rpartition("/")[2]
                return f"{file} grants {unit.account} no {wanted}"
            continue
        if wanted := IdSet((extent.host_range,)) - here:
            return f"its {kind}s {wanted} are none of {here}, which {unit.account} has in its namespace"
    return ""


def _hint(facts: Facts, unit: Quadlet) -> str:
    words = f"allocate {shell(unit.name)} --within {shell(unit.account)}"
    render = facts.state.layout.inline(f"render quadlet --rootless {shell(unit.name)}")
    return f"{facts.state.layout.inline(words)}, and then {render} prints lines that fit"
