"""Rules about the maps of LXC's and Proxmox VE's containers, and of Incus's and LXD's instances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit import slips
from usernsplan.audit.base import Facts, Seen, listed, rule
from usernsplan.claims.index import Claims
from usernsplan.claims.sources import Granted
from usernsplan.engines.base import allocate_again
from usernsplan.escape import line as shown
from usernsplan.escape import shell
from usernsplan.formats.subid import PATHS, usermod
from usernsplan.holdings import pieces
from usernsplan.ids import IdSet
from usernsplan.layout import PROXMOX_NODES
from usernsplan.mapping import KINDS
from usernsplan.model import LXC, OF_LXC, ROOT, Unlisted
from usernsplan.planner import roots
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.claims.index import Claim
    from usernsplan.mapping import Kind
    from usernsplan.model import Allocation

_FORM = "write u or g, the container id, the host id and the count"


class _Lack(NamedTuple):
    """The ids that an account's lines do not grant, although its containers map them."""

    grantee: str
    uids: IdSet
    gids: IdSet


@rule("USN084", "error")
def container_is_not_granted(facts: Facts) -> Iterator[Seen]:
    """The map of an LXC container is not granted by lines.

    LXC starts a container through newuidmap, which writes a map only if the lines of the user
    who starts it grant every id: those of root for /var/lib/lxc and Proxmox VE, those of the
    account for a container in its home. Otherwise the container does not start: "newuidmap: uid
    range … not allowed". (Where newuidmap is not installed, root's containers start without a
    line. Then nothing keeps useradd from giving their ids to an account.)

    It happens if a container was copied from another host, if an id of the host is passed
    through, or if only one of the two files has the line.

        lxc.idmap = u 0 100000 65536        /var/lib/lxc/web/config
        lxc.idmap = u 65536 1000 1          needs the line root:1000:1, too

    Run the command that is shown, or correct the map if the hint says that a line looks like a slip:
    with the wrong count or number it asks for ids that nobody meant. If a remap has given the
    allocation of this name other ids, the config still has the old ones: render it anew. If the ids
    are somebody else's, give the container others: 'usernsplan allocate NAME --engine lxc', then
    'usernsplan render lxc NAME', and shift its files.
    """
    if not facts.state.subid_source.reads_files:
        return
    granted = Granted(facts.state)
    lacking: dict[_Lack, list[Unlisted]] = {}
    meant: dict[_Lack, str] = {}
    for (grantee, _), lines in _maps(facts).items():
        # LXC writes a map with host root itself.
        has_root = any(one.kind == "uid" and one.start <= 0 < one.stop for one in lines)
        lack = _Lack(grantee, *(_lacking(granted, kind, grantee, lines) for kind in KINDS))
        if not has_root and (lack.uids or lack.gids):
            lacking.setdefault(lack, []).append(_first_of(lack, lines))
            meant.setdefault(lack, _meant(granted, lack, lines))

    for lack, several in lacking.items():
        names = listed(f"{one.program}'s {one.what}" for one in several)
        message = f"newuidmap does not write the map of {names}: {_missing(lack)}"
        hint = _remedy(facts, lack, several)
        if meant[lack]:
            hint = f"if the map is a slip, write {meant[lack]}; if it is meant, {hint}"
        yield Seen(facts.place(several[0].path, several[0].number), message, hint)


def _meant(granted: Granted, lack: _Lack, lines: list[Unlisted]) -> str:
    """The lines that were probably meant where ids of a map are not granted; "" if unknown."""
    for kind, ids in zip(KINDS, lack[1:], strict=True):
        rows, has = _rows(lines, kind), granted.to(lack.grantee, kind)
        if not ids or not rows or slips.refused(rows, kind):
            continue
        for found in slips.slips(rows, kind, has):
            one = lines[found.at]
            if found.meant and ids.meets(one.start, one.stop):
                return found.meant
        if turned := slips.swapped(rows, kind, has):
            return turned
    return ""


def _first_of(lack: _Lack, lines: list[Unlisted]) -> Unlisted:
    """The first line with ids that are not granted."""
    ids: dict[Kind, IdSet] = {"uid": lack.uids, "gid": lack.gids}
    return next((one for one in lines if ids[one.kind].meets(one.start, one.stop)), lines[0])


def _maps(facts: Facts) -> dict[tuple[str, str], list[Unlisted]]:
    """The lines of each map by grantee and container, without those that LXC cannot read.

    The containers of other nodes of Proxmox VE need the lines there.
    """
    found: dict[tuple[str, str], list[Unlisted]] = {}
    for one in _lines(facts):
        if not one.odd:
            found.setdefault((one.grantee, one.container), []).append(one)
    return found


def started(facts: Facts) -> Iterator[tuple[str, str, list[Unlisted]]]:
    """The grantee, the container and the lines of each map that LXC and the kernel take."""
    for (grantee, container), lines in _written(facts).items():
        if not _refused(lines):
            yield grantee, container, [one for one in lines if not one.odd]


def _written(facts: Facts) -> dict[tuple[str, str], list[Unlisted]]:
    """All lines of each map by grantee and container, in their order, as somebody wrote them.

    Proxmox VE writes the config of LXC anew each time it starts a container.
    """
    lines = list(_lines(facts))
    of_proxmox = {one.container for one in lines if one.program != LXC}
    found: dict[tuple[str, str], list[Unlisted]] = {}
    for one in lines:
        is_copy = one.program == LXC and one.grantee == ROOT and one.container in of_proxmox
        if not is_copy:
            found.setdefault((one.grantee, one.container), []).append(one)
    return found


def _lines(facts: Facts) -> Iterator[Unlisted]:
    for one in facts.state.unlisted:
        if one.program in OF_LXC and not one.path.startswith(f"{PROXMOX_NODES}/"):
            yield one


def _lacking(granted: Granted, kind: Kind, grantee: str, lines: Iterable[Unlisted]) -> IdSet:
    """The ids of a map that no line grants."""
    spans = ((one.start, one.stop) for one in lines if one.kind == kind)
    return granted.lacking(grantee, kind, spans)


def _remedy(facts: Facts, lack: _Lack, several: Iterable[Unlisted]) -> str:
    """The command that grants the ids, unless somebody else has them."""
    layout = facts.state.layout
    parts = [(kind, part) for kind, ids in zip(KINDS, lack[1:], strict=True) for part in ids]
    others = [
        claim
        for kind, part in parts
        for claim in facts.taken.over(part.start, part.stop, kind)
        if lack.grantee not in {claim.holder, claim.owner}
    ]
    if stale := _remapped(facts, lack, several):
        return stale
    ours = next((claim.allocation for claim in others if claim.allocation), None)
    if ours and lack.grantee == ROOT and {one.container for one in several} == {ours.name}:
        return f"grant them: {allocate_again(ours, layout, '--engine', 'lxc')}"
    if others:
        allocate = layout.inline("allocate NAME --engine lxc")
        return f"{others[0].ids} is {others[0].owner}'s: give it other ids, {allocate}"
    # LXD and Incus would take a large line of root's for their own instances.
    in_pieces = lack.grantee == ROOT and roots.takers(facts.state)
    lines = [
        (kind, line) for kind, part in parts for line in (pieces(part) if in_pieces else [part])
    ]
    return f"grant them: {shell(*layout.account_command(usermod(lack.grantee, lines)))}"


def _remapped(facts: Facts, lack: _Lack, several: Iterable[Unlisted]) -> str:
    """The remedy if the container's allocation has other ids, as after a remap; "" otherwise."""
    for a in facts.state.ledger.allocations:
        ids = (IdSet(a.mapping[kind].host_ranges()) for kind in KINDS)
        is_elsewhere = not any(has & wants for has, wants in zip(ids, lack[1:], strict=True))
        if is_elsewhere and all(one.program == LXC and one.container == a.name for one in several):
            render = facts.state.layout.inline(f"render lxc {shell(a.name)}")
            return f"'{a.name}' has other ids: replace its lxc.idmap lines with those of {render}"
    return ""


@rule("USN048", "error")
def instance_is_not_granted(facts: Facts) -> Iterator[Seen]:
    """The map of an instance of Incus or LXD is not granted by root's lines.

    Incus and LXD start an instance through newuidmap, which writes its map only if root's lines
    grant every id. Otherwise the instance does not start: "newuidmap: uid range [1000-1001) ->
    [1000-1001) not allowed".

    The usual cause is raw.idmap, which makes ids of the host pass through: Incus takes the ids of
    instances out of root's large lines, but those of raw.idmap need lines of their own. Or root's
    lines were changed after the instance was made.

        root:1000000:1000000000                             in subuid and subgid
        incus config set media raw.idmap "both 1000 1000"   needs root:1000:1 in both, too

    Run the command that is shown, and restart the daemon, or take the ids out of raw.idmap.
    Instances of a daemon that does not run are not looked at.
    """
    if not facts.state.subid_source.reads_files:
        return
    # Without newuidmap, or in a snap, no line is asked for.
    free = {one.program for one in facts.state.unlisted if one.path and not one.grantee}
    instances: dict[tuple[str, str], list[Unlisted]] = {}
    for one in facts.state.unlisted:
        if one.is_next and one.program not in free:
            instances.setdefault((one.program, one.what), []).append(one)

    granted = Granted(facts.state)
    lacking: dict[_Lack, list[Unlisted]] = {}
    for lines in instances.values():
        lack = _Lack(ROOT, *(_lacking(granted, kind, ROOT, lines) for kind in KINDS))
        # LXC writes a map with host root itself.
        has_root = any(one.kind == "uid" and one.start <= 0 < one.stop for one in lines)
        if not has_root and (lack.uids or lack.gids):
            lacking.setdefault(lack, []).append(_first_of(lack, lines))
    for lack, several in lacking.items():
        names = listed(f"{one.program}'s {one.what}" for one in several)
        path = PATHS["uid" if lack.uids else "gid"]
        message = f"newuidmap does not write the map of {names}: {_missing(lack)}"
        yield Seen(facts.place(path), message, _remedy(facts, lack, several))


def _missing(lack: _Lack) -> str:
    return " and ".join(
        f"{PATHS[kind].rpartition('/')[2]} grants {lack.grantee} no {ids}"
        for kind, ids in zip(KINDS, lack[1:], strict=True)
        if ids
    )


@rule("USN083", "error")
def map_is_refused(facts: Facts) -> Iterator[Seen]:
    """LXC does not start a container with this map.

    The kernel takes a map only whole, and refuses it (EINVAL, "newuidmap: write to uid_map failed:
    Invalid argument") if an id appears twice, inside or outside the container, if a count is 0,
    or if there are too many lines. LXC itself refuses a config with a line that it cannot read,
    and a map without container root ("No uid mapping for container root"), of uids or of gids.

    Usual causes: a host id was passed through, and the range was not split around it; lxc.include
    brings the same lines once more; the container id and the host id are in the wrong order; the
    kind is b, which is no kind for LXC; only the uids or only the gids have lines; a comment
    follows the numbers; the key is lxc.id_map, its name before LXC 3.0.

        lxc.idmap = g 0 100000 65536
        lxc.idmap = g 107 104 1             container gid 107 is in the first line, too

    Write the lines that are shown, or let usernsplan make the map:
    'usernsplan allocate NAME --pass g:104:107 --engine lxc', then 'usernsplan render lxc NAME'.
    """
    seen: dict[str, tuple[Unlisted, slips.Found, list[str]]] = {}
    for lines in _written(facts).values():
        found = _refused(lines)
        if found:
            one = lines[found.at]
            key = f"{one.path}:{one.number} {found.fact}"
            seen.setdefault(key, (one, found, []))[2].append(f"{one.program}'s {one.what}")
    for one, found, names in seen.values():
        message = f"{listed(names)} does not start: {found.fact}"
        meant = f"write {found.meant}" if found.meant else "correct the lxc.idmap lines"
        hint = found.remedy or meant
        yield Seen(facts.place(one.path, one.number), message, hint)


def _refused(lines: list[Unlisted]) -> slips.Found | None:
    for at, one in enumerate(lines):
        if one.odd and not _is_left_out(one):
            return _unread(at, one)
    if any(one.inside is None and not one.odd for one in lines):
        return None
    for kind in KINDS:
        rows = _rows(lines, kind)
        if not rows:
            others = _rows(lines, KINDS[kind == "uid"])
            return slips.lacks(kind, others) if others else None
        if found := slips.refused(rows, kind):
            return found
    return None


def _is_left_out(one: Unlisted) -> bool:
    """Tell whether Proxmox VE does not read a line at all: no sign follows its key."""
    return one.program != LXC and one.odd.startswith("lxc.idmap")


def _unread(at: int, one: Unlisted) -> slips.Found:
    """The finding on a line that LXC refuses."""
    fact = f"LXC cannot read the line '{shown(one.odd)}'"
    if one.odd.startswith("lxc."):
        sign = "=" if one.program == LXC else ":"
        meant = f"lxc.idmap {sign} " if sign == "=" else "lxc.idmap: "
        meant += shown(_value(one.odd))
        if one.odd.startswith("lxc.id_map"):
            return slips.Found(at, f"LXC calls lxc.id_map lxc.idmap since 3.0, and {fact}", meant)
        return slips.Found(at, f"{fact} (no {sign} follows the key)", meant)
    if one.odd[:1] == "b":
        why = "LXC knows u and g, not b; write both"
    elif "#" in one.odd or "//" in one.odd:
        why = "a comment needs a line of its own, and begins with #"
    else:
        why = _FORM
    return slips.Found(at, f"{fact} ({why})")


def _value(line: str) -> str:
    """What follows the key of a line, and the sign if there is one."""
    key = "lxc.id_map" if line.startswith("lxc.id_map") else "lxc.idmap"
    return line[len(key) :].strip(" \t=:")


def _rows(lines: list[Unlisted], kind: Kind) -> list[slips.Row]:
    return [
        slips.Row(one.inside, one.start, one.stop - one.start, at)
        for at, one in enumerate(lines)
        if one.kind == kind and one.inside is not None and not one.odd
    ]


@rule("USN066", "warning")
def map_has_a_slip(facts: Facts) -> Iterator[Seen]:
    """The map of an LXC container looks like a slip.

    LXC takes the map, and the container may start, but its ids are not those that were probably
    meant. After a host id that passes through, the ids are one off the rest of the map: the files
    of the container get other owners, and an id of the range has two uses. Or container ids between
    two lines have no host id, or the last line does not end at container id 65535. Or Proxmox VE
    leaves a line out, because no ":" follows its key.

    Such maps are written by hand, and each line has to be computed anew for each id that passes.

        lxc.idmap = g 0 100000 104
        lxc.idmap = g 104 104 1
        lxc.idmap = g 105 100106 65430      100105 65431 was meant

    Write the line that is shown, if it was a slip: before the container has made files. Otherwise
    shift its files with 'usernsplan fix-volume'. If the map is meant so, you do not have to do
    anything. The lines of uids and of gids may differ, as only one kind may have such an id.
    """
    granted = Granted(facts.state)
    seen: dict[str, tuple[Unlisted, slips.Found, list[str]]] = {}
    for (grantee, _), lines in _written(facts).items():
        if _refused(lines):
            continue
        has = {kind: granted.to(grantee, kind) for kind in KINDS}
        found = [
            slips.Found(
                at,
                f"Proxmox VE leaves out the line '{shown(one.odd)}', as no : follows its key",
                f"lxc.idmap: {shown(_value(one.odd))}",
            )
            for at, one in enumerate(lines)
            if one.odd and _is_left_out(one)
        ]
        found += [one for kind in KINDS for one in slips.slips(_rows(lines, kind), kind, has[kind])]
        if not found and (pair := slips.unlike(_rows(lines, "uid"), _rows(lines, "gid"), has)):
            found = [pair]
        for slip in found:
            one = lines[slip.at]
            key = f"{one.path}:{one.number} {slip.fact}"
            seen.setdefault(key, (one, slip, []))[2].append(f"{one.program}'s {one.what}")
    for one, slip, names in seen.values():
        hint = f"if it is a slip, write {slip.meant}" if slip.meant else "if it is a slip, add them"
        yield Seen(
            facts.place(one.path, one.number), f"the map of {listed(names)}: {slip.fact}", hint
        )


@rule("USN085", "warning")
def another_container_maps_ours(facts: Facts) -> Iterator[Seen]:
    """A container of LXC has ids that are allocated to another name.

    The config of an LXC or Proxmox VE container maps ids of an allocation, and the container
    has another name. If both run, each can change the other's files and stop its processes.

        usernsplan allocate --strategy per-container web --engine lxc
        lxc-copy -n web -N db               db's config has web's map, too

    If it is the container that the allocation is for, give both the same name. Otherwise give
    the other container ids of its own: 'usernsplan allocate', 'usernsplan render lxc', and then
    shift its files with 'usernsplan fix-volume --mode shift'.
    """
    theirs = Claims(
        claim
        for claim in facts.of_programs
        if isinstance(claim.value, Unlisted) and claim.value.program in OF_LXC
    )
    found: dict[str, list[Claim]] = {}
    for ours in facts.reserved_ranges if theirs.ids else ():
        for claim in theirs.over(ours.start, ours.stop, ours.kind):
            if ours.allocation and not _is_own(claim.value, ours.allocation):
                found.setdefault(ours.holder, []).append(claim)

    for name, several in found.items():
        who = listed(dict.fromkeys(claim.holder for claim in several))
        ids = listed(dict.fromkeys(claim.ids for claim in several))
        allocate = facts.state.layout.inline("allocate NAME --engine lxc")
        yield Seen(
            facts.place_of(several[0]),
            f"{who} maps {ids}, which overlaps the range of '{name}'",
            f"give each container ids of its own: {allocate}",
            overlaps=facts.overlaps(several),
        )


def _is_own(one: object, a: Allocation) -> bool:
    """Tell whether the allocation is for this container, or for the account that runs it."""
    return isinstance(one, Unlisted) and (
        one.container == a.name
        or (one.grantee != ROOT and one.grantee in {a.owner, *a.extra_owners})
    )


@rule("USN086", "warning")
def home_is_unread(facts: Facts) -> Iterator[Seen]:
    """The containers in the home of an account could not be looked at.

    'check' reads the configs of LXC, and Podman's .container files, in the homes of accounts. A
    home could not be read, or something there is no config: a pipe, a loop of includes, more than
    a config can hold. Homes on a file system of the network (NFS, CIFS, FUSE, autofs …) are not
    looked at, because that would hang if the server is gone. So USN047, USN084 and USN085 may have
    missed a container of this account.

    An account has only the ids of its lines, whatever its files say. Ranges are therefore given
    out as usual.

        /home/alice: stale file handle          the file server is gone

    Correct the file that is named, or look at the home yourself.
    """
    for home in facts.homes:
        yield Seen(facts.place(home.path), home.fact, home.hint)
