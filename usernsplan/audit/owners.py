"""Rules about owners: without an account, with lines that do not match, with too few ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, listed, rule
from usernsplan.claims.meant import is_meant
from usernsplan.claims.sources import OF_CONTAINERS
from usernsplan.engines import ENGINES, engine_of_pool
from usernsplan.escape import shell
from usernsplan.formats.subid import PATHS, Grant
from usernsplan.layout import LEDGER, NSSWITCH
from usernsplan.mapping import KINDS
from usernsplan.model import DEFAULT_OWNER, OWN_PREFIX, ROOT
from usernsplan.planner import advice, roots
from usernsplan.strategies import SLOT, PerContainer, SingleUid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.claims.index import Claim
    from usernsplan.mapping import Kind
    from usernsplan.model import Allocation

# Owners that need no account, or get it when an engine starts: the pools of Podman and of the
# kubelet, and Docker's user.
_POOLS = frozenset(it.pool.owner for it in ENGINES.values() if it.pool)
_NEED_NONE = _POOLS | {ROOT}
_KNOWN = _NEED_NONE | {DEFAULT_OWNER}


@rule("USN020", "warning")
def orphan(facts: Facts) -> Iterator[Seen]:
    """A line's owner is a name that no account has.

    The next account with that name inherits the range, and with it every file that containers
    left there.

    usermod --login does not rename the owner in subuid and subgid. A line written by hand may
    have a typing error. userdel removes only lines with exactly the account's name.

        carla:165536:65536      carla was renamed to carl; the next carla gets carl's containers

    If the owner has a new name, change it in the line. If nobody has these ids any more,
    remove the line.
    """
    for owner, span in _of_nobody(facts):
        if owner.isdigit() or owner in _KNOWN or owner.startswith(OWN_PREFIX):
            continue
        ours = facts.owners.get(owner)
        hint = "correct the owner in the line, or remove the line"
        if ours:
            release = facts.state.layout.inline(f"release {shell(ours.name)}")
            hint = f"create the account now, or {release} and allocate it without --owner"
        yield Seen(
            facts.place_of(span),
            f"no account has the name {owner}: the next one with it inherits {span.ids}",
            hint,
        )


@rule("USN021", "warning")
def orphan_number(facts: Facts) -> Iterator[Seen]:
    """A line's owner is a uid that no account has.

    The owner of a line may be a uid instead of a name. The next account that gets this uid
    inherits the range, and useradd may choose the uid on its own.

        1005:165536:65536       no account has uid 1005

    Remove the line, or create the account.
    """
    for owner, span in _of_nobody(facts):
        if owner.isdigit():
            yield Seen(
                facts.place_of(span),
                f"no account has the uid {owner}: the next one with it inherits {span.ids}",
                "remove the line, or create the account",
            )


def _of_nobody(facts: Facts) -> list[tuple[str, Claim]]:
    """The owners that certainly are no accounts, with their first lines."""
    if facts.state.accounts.unknown:
        return []
    return [one for one in facts.first_lines.items() if one[0] not in facts.users]


@rule("USN094", "info")
def owner_unknowable(facts: Facts) -> Iterator[Seen]:
    """Whether owners of lines are accounts cannot be known (--root).

    The root is the tree of another host, and its nsswitch.conf also takes accounts from a
    directory service. Only that host can ask the service. Owners that are not in the tree's
    passwd may be accounts of the service, or nobody (USN020). So rules about accounts are
    silent about them.

        passwd: files sss               in nsswitch.conf of the tree
        carla:165536:65536              in its subuid; its passwd has no carla

    Run 'usernsplan check' on that host when it runs.
    """
    service = facts.state.accounts.unknown
    owners = [
        owner
        for owner in facts.first_lines
        if owner not in facts.users and owner not in _KNOWN and not owner.startswith(OWN_PREFIX)
    ]
    if service and owners:
        yield Seen(
            facts.place(NSSWITCH, facts.state.passwd_source.number),
            f"accounts also come from {service}, so whether these owners of lines are accounts "
            f"cannot be known here: {listed(owners)}",
            "run 'usernsplan check' on that host",
        )


@rule("USN022", "error")
def in_one_file(facts: Facts) -> Iterator[Seen]:
    """An owner has uids and no gids, or gids and no uids.

    A user namespace needs both maps. dockerd does not start ("no subgid ranges found"), and
    rootless Podman maps nothing but the account itself.

    Only one of the two files was changed: usermod has two separate options, --add-subuids and
    --add-subgids.

        alice:100000:65536      in subuid; subgid has no line of alice

    Add the same range to the other file, if it is free there.
    """
    others: dict[Kind, Kind] = {"uid": "gid", "gid": "uid"}
    for kind, other in others.items():
        for owner, several in _in_use(facts, kind):
            if owner in facts.by_owner[other]:
                continue
            # Single ids of the host, which root passes through, are of one kind.
            spans = [span for span in several if not is_meant(span)]
            if spans:
                place = facts.place(PATHS[other])
                message = f"{owner} has {spans[0].ids} here, but nothing in {place}"
                command = f"usermod --add-sub{other}s {spans[0].for_usermod} {shell(owner)}"
                yield Seen(
                    facts.place_of(spans[0]), message, f"{command}, if nobody has these ids there"
                )


@rule("USN023", "warning")
def not_alike(facts: Facts) -> Iterator[Seen]:
    """An owner's lines differ between subuid and subgid.

    The uid map and the gid map then have different host ids or sizes. A container's uid 33 and
    gid 33 are two different numbers on the host, and Docker's data folder is named <uid>.<gid>
    after both. A file that you give to 589857:589857 belongs to two containers.

    Docker's own allocator causes it, usermod with only one of the two options, or a range that
    is taken in one file only.

        alice:100000:65536      in subuid
        alice:165536:65536      in subgid

    If you know about it, you do not have to do anything. To make both alike, choose a range
    that is free in both files, and shift the files with 'usernsplan fix-volume --mode shift'.
    """
    for owner, spans in _in_use(facts, "uid"):
        theirs = facts.by_owner["gid"].get(owner)
        if not theirs or owner == ROOT:
            continue
        if _without_passes(spans) != _without_passes(theirs):
            uids, gids = (listed(span.ids for span in some) for some in (spans, theirs))
            yield Seen(
                facts.place_of(spans[0]),
                f"{owner} has the uids {uids} but the gids {gids}",
                "use one range that is free in both files",
            )


def _without_passes(spans: Iterable[Claim]) -> list[tuple[int, int]]:
    """The ranges of an owner without single ids of the host, which may pass in one file only."""
    return [span[:2] for span in spans if span.stop - span.start > 1 or span.start >= OF_CONTAINERS]


@rule("USN024", "warning")
def too_small(facts: Facts) -> Iterator[Seen]:
    """A map of fewer than 65536 ids has no nobody (65534).

    Images contain files of nobody and nogroup, and package managers switch to these users.
    Unpacking fails ("potentially insufficient UIDs or GIDs"). In the container, files of
    unmapped ids belong to 65534 anyway. systemd-nspawn and Incus refuse smaller maps
    altogether.

        alice:100000:10000

    Give the owner 65536 ids: usermod --add-subuids FIRST-LAST, and --add-subgids. A container
    that needs only a few ids may keep its small range.
    """
    for a in facts.state.ledger.allocations:
        if advice.lacks_nobody(a):
            message = f"'{a.name}' maps {advice.how_many(a)}, without nobody (65534)"
            yield Seen(facts.place(LEDGER), message, _larger(facts, a))
    for kind, path in PATHS.items():
        for owner, spans in _in_use(facts, kind):
            size = sum([span.stop - span.start for span in spans])
            if size < SLOT and owner not in _NEED_NONE:
                message = f"{owner} has {size} ids, without nobody (65534)"
                hint = "add the missing ids: images need 65536"
                yield Seen(facts.place_of(spans[0]), message, hint)
        for line in facts.state.subid(kind).lines:
            if isinstance(line, Grant) and line.start == line.stop:
                message = f"{line.owner} gets no ids from this line: its count is 0"
                hint = "correct the count, or remove the line"
                yield Seen(facts.place(path, line.number), message, hint)


def _larger(facts: Facts, allocation: Allocation) -> str:
    """How an allocation, or another in its place, gets all ids that images need."""
    layout = facts.state.layout
    whole = PerContainer(passes=allocation.passes)
    from usernsplan.planner.remap import command_for  # noqa: PLC0415 - seldom

    if command := command_for(layout, allocation, whole, None):
        return f"to change it, with its volumes: {command}"
    again = (
        f"allocate NEW --within {shell(allocation.within)}" if allocation.within else "allocate NEW"
    )
    move = layout.inline(f"fix-volume PATH --container NEW --from {shell(allocation.name)}")
    return (
        f"{layout.inline(f'{again} --size 65536')} makes another one; {move} gives it the volumes"
    )


def _in_use(facts: Facts, kind: Kind) -> list[tuple[str, list[Claim]]]:
    """The owners that have an account or need none, with their ranges, but for our allocations.

    Other rules report our allocations, and owners without an account.
    """
    may_be_any = bool(facts.state.accounts.unknown)
    return [
        (owner, spans)
        for owner, spans in facts.by_owner[kind].items()
        if (may_be_any or owner in facts.users or owner in _KNOWN)
        and not (owner in facts.owners or owner.startswith(OWN_PREFIX))
    ]


@rule("USN028", "warning")
def roots_line_is_a_containers(facts: Facts) -> Iterator[Seen]:
    """LXD or Incus gives a container's range to its instances.

    LXD and Incus take ids for their instances from root's lines of 65536 ids or more. If such a
    line is there because LXC needs it for one container, the instances and that container share
    all of these ids.

        root:589824:65536       an older version granted it to a container of LXC;
                                Incus came later, and root has no other such line

    Run the command that is shown: it grants root the same ids in smaller lines, which newuidmap
    joins and LXD and Incus skip. Then restart the daemon.
    """
    for taker in roots.takers(facts.state):
        for path, line, allocation in roots.given_away(facts.state, taker):
            yield Seen(
                facts.place(path, line.number),
                f"{taker} gives the ids of '{allocation.name}' to its instances, because root has "
                "them in one line",
                roots.in_pieces(facts.state, allocation, taker),
            )


@rule("USN087", "error")
def root_has_several_large_lines(facts: Facts) -> Iterator[Seen]:
    """Root has a second large line: no plain instance of Incus starts.

    Incus lays all of root's lines of 65536 ids or more end to end, and maps each of them to
    container id 0. The kernel refuses such a map (EINVAL, 'newuidmap: write to uid_map failed:
    Invalid argument'), also if one line is inside the other. LXD takes the first line and starts.
    Without newuidmap Incus reads no lines, and stops as soon as newuidmap is installed.

        root:1000000:1000000000         from Debian's package
        root:1001000000:1000000000      added later: now nothing starts

    Keep one line of this size in each file, and restart Incus. For a container that has its own
    range, 'usernsplan allocate NAME --engine incus' grants root smaller lines, which Incus skips.
    """
    if "incus" in roots.takers(facts.state):
        ours = {
            (ids.start, ids.stop): a
            for a in facts.state.ledger.allocations
            for kind in KINDS
            for ids in a.mapping[kind].host_ranges()
        }
        for one, lines in roots.several_large(facts.state):
            a = next((ours[line.ids] for line in lines if line.ids in ours), None)
            remedy = roots.in_pieces(facts.state, a, "incus") if a else one.remedy
            yield Seen(facts.place(one.path, one.number), one.fact, remedy)


@rule("USN088", "warning")
def line_of_roots_uid_is_hidden(facts: Facts) -> Iterator[Seen]:
    """LXD and Incus do not read a line of owner 0.

    The owner of a line may be root's uid instead of its name. LXD and Incus read such lines only
    while root has no line by its name, of any size.

        0:1000000:1000000000
        root:589824:32768       with it, Incus no longer sees the line above

    Rename the owner to root with the command that is shown. If root then has two lines of 65536
    ids or more, remove one of them: see USN087.
    """
    for taker in roots.takers(facts.state)[:1]:
        for kind, path in PATHS.items():
            for line in roots.hidden(facts.state.subid(kind)):
                yield Seen(
                    facts.place(path, line.number),
                    f"{taker} does not read this line of 0, because root has lines by its name",
                    f"rename the owner: {roots.renaming(facts.state)}; then restart {taker}",
                )


@rule("USN089", "error")
def root_has_no_large_line(facts: Facts) -> Iterator[Seen]:
    """LXD or Incus starts no unprivileged instance: root has no line that it takes.

    Once both files and newuidmap exist, LXD and Incus take ids for instances only from root's
    lines of 65536 ids or more. Without such a line, Incus refuses each instance ("System doesn't
    have a functional idmap setup"), and newuidmap refuses those of LXD. That includes instances
    with a range of ours. This rule looks only where root has lines for a container, a line that is a
    few ids short (root:100000:65535), or lines of its uid that are hidden (USN088): elsewhere, nobody
    may want instances.

        root:589824:32768       root's only lines, for one container
        root:622592:32768

    Give root a range with the command that is shown, and restart the daemon.
    """
    needing = roots.needing(facts.state)
    if not needing:
        return
    both = [facts.state.subid(kind) for kind in KINDS]
    ours = any(ROOT in {a.owner, *a.extra_owners} for a in facts.state.ledger.allocations)
    wanted = ours or any(roots.hidden(file) or roots.too_small(file) for file in both)
    if all(file.exists for file in both) and wanted:
        for taker in needing:
            for one in roots.none_large(facts.state, taker):
                yield Seen(facts.place(one.path, one.number), one.fact, one.remedy)


@rule("USN025", "error")
def image_does_not_fit(facts: Facts) -> Iterator[Seen]:
    """A map is too small for the largest id of an image (--passwd).

    A file of the image whose owner is not mapped cannot be unpacked (lchown: invalid
    argument), and a process cannot become such a user.

        _apt:x:100000:65534::…          in the image's passwd
        usernsplan-web:589824:65536     maps 0-65535

    Release the container and allocate it again with a --size above that id. Containers of the
    strategy single-uid always run as one id, so this rule skips them.
    """
    if facts.image is None:
        return
    largest: dict[Kind, tuple[int, str] | None] = {
        "uid": max(((user.uid, user.name) for user in facts.image.users), default=None),
        "gid": max(
            [(group.gid, group.name) for group in facts.image.groups]
            + [(user.gid, f"of {user.name}") for user in facts.image.users],
            default=None,
        ),
    }
    for kind, found in largest.items():
        if found is None:
            continue
        number, name = found
        fact = f"the image's largest {kind} is {number} ({name})"
        for a in facts.state.ledger.allocations:
            lacks = a.mapping[kind].to_host(number) is None
            if a.strategy != SingleUid.name and not engine_of_pool(a) and lacks:
                release = facts.state.layout.inline(f"release {shell(a.name)}")
                hint = f"{release}, and allocate it with a larger --size"
                yield Seen(facts.place(LEDGER), f"{fact}, but '{a.name}' does not map it", hint)
        for owner, spans in _in_use(facts, kind):
            # A rootless engine maps the account itself to container id 0, and its range above it.
            size = sum(span.stop - span.start for span in spans) + (
                facts.rootless(owner) is not None
            )
            if number >= size and owner not in _POOLS | {ROOT}:
                hint = "add the missing ids to both files"
                yield Seen(facts.place_of(spans[0]), f"{fact}, but {owner} has {size} ids", hint)
