"""Rules about owners: without an account, with lines that do not match, with too few ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, listed, rule
from usernsplan.engines import ENGINES, engine_of_pool
from usernsplan.escape import shell
from usernsplan.formats.subid import PATHS, Grant
from usernsplan.layout import LEDGER, SUBUID
from usernsplan.mapping import KINDS
from usernsplan.model import DEFAULT_OWNER, OWN_PREFIX, ROOT
from usernsplan.planner import advice, needs
from usernsplan.strategies import SLOT, SingleUid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.claims.index import Claim
    from usernsplan.mapping import Kind

# Owners that need no account, or get it when an engine starts: the pools of Podman and of the
# kubelet, and Docker's user.
_POOLS = frozenset(it.pool.owner for it in ENGINES.values() if it.pool)
_KNOWN = _POOLS | {ROOT, DEFAULT_OWNER}
_KUBELET = "kubelet"
_PODS = 110


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
    for owner, span in _first_lines(facts).items():
        if (
            owner.isdigit()
            or not facts.is_nobody(owner)
            or owner in _KNOWN
            or owner.startswith(OWN_PREFIX)
        ):
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
    for owner, span in _first_lines(facts).items():
        if owner.isdigit() and facts.is_nobody(owner):
            yield Seen(
                facts.place_of(span),
                f"no account has the uid {owner}: the next one with it inherits {span.ids}",
                "remove the line, or create the account",
            )


def _first_lines(facts: Facts) -> dict[str, Claim]:
    """Every owner, with the first of its lines."""
    uids, gids = ({o: spans[0] for o, spans in facts.by_owner[kind].items()} for kind in KINDS)
    # The order is that of subuid, then that of subgid.
    return uids | gids | uids


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
        for owner, spans in facts.by_owner[kind].items():
            if owner not in facts.by_owner[other] and _in_use(facts, owner):
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
    after both. A file that you give to 524321:524321 belongs to two containers.

    Docker's own allocator causes it, usermod with only one of the two options, or a range that
    is taken in one file only.

        alice:100000:65536      in subuid
        alice:165536:65536      in subgid

    If you know about it, you do not have to do anything. To make both alike, choose a range
    that is free in both files, and shift the files with 'usernsplan fix-volume --mode shift'.
    """
    for owner, spans in facts.by_owner["uid"].items():
        theirs = facts.by_owner["gid"].get(owner)
        if not theirs or owner == ROOT or not _in_use(facts, owner):
            continue
        if [span[:2] for span in spans] != [span[:2] for span in theirs]:
            uids, gids = (listed(span.ids for span in some) for some in (spans, theirs))
            yield Seen(
                facts.place_of(spans[0]),
                f"{owner} has the uids {uids} but the gids {gids}",
                "use one range that is free in both files",
            )


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
            release = facts.state.layout.inline(f"release {shell(a.name)}")
            message = f"'{a.name}' maps {a.mapping.uids[0].count} ids, without nobody (65534)"
            hint = f"{release}, and allocate it with --size 65536"
            yield Seen(facts.place(LEDGER), message, hint)
    for kind, path in PATHS.items():
        for owner, spans in facts.by_owner[kind].items():
            size = sum(span.stop - span.start for span in spans)
            if size < SLOT and owner not in _KNOWN - {DEFAULT_OWNER} and _in_use(facts, owner):
                message = f"{owner} has {size} ids, without nobody (65534)"
                hint = "add the missing ids: images need 65536"
                yield Seen(facts.place_of(spans[0]), message, hint)
        for line in facts.state.subid(kind).lines:
            if isinstance(line, Grant) and line.start == line.stop:
                message = f"{line.owner} gets no ids from this line: its count is 0"
                hint = "correct the count, or remove the line"
                yield Seen(facts.place(path, line.number), message, hint)


def _in_use(facts: Facts, owner: str) -> bool:
    """Tell whether an owner has an account or needs none, and is not one of our allocations.

    Other rules report our allocations, and owners without an account.
    """
    if owner in facts.owners or owner.startswith(OWN_PREFIX):
        return False
    return owner in _KNOWN or not facts.is_nobody(owner)


@rule("USN028", "warning")
def roots_first_is_a_containers(facts: Facts) -> Iterator[Seen]:
    """LXD or Incus gives a container's range to its instances.

    LXD and Incus take ids for their instances from root's lines. Instances without isolation
    use all of the first line that has 65536 ids. If that line is there because LXC needs it
    for one container, the instances and that container share all of these ids.

        root:524288:65536       from 'usernsplan allocate box --engine lxc';
                                LXD then starts with no line of its own

    In both files, add a line of their own before it and at a lower start, because useradd sorts
    the file: root:100000:65536.
    """
    takers = needs.takers_of_roots(facts.state)
    granted = any(ROOT in {a.owner, *a.extra_owners} for a in facts.state.ledger.allocations)
    if takers and granted and not needs.has_own_range(facts.state):
        yield Seen(facts.place(SUBUID), *needs.no_own_range(facts.state, takers[0]))


@rule("USN025", "error")
def image_does_not_fit(facts: Facts) -> Iterator[Seen]:
    """A map is too small for the largest id of an image (--passwd).

    A file of the image whose owner is not mapped cannot be unpacked (lchown: invalid
    argument), and a process cannot become such a user.

        _apt:x:100000:65534::…          in the image's passwd
        usernsplan-web:524288:65536     maps 0-65535

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
        for owner, spans in facts.by_owner[kind].items():
            # A rootless engine maps the account itself to container id 0, and its range above it.
            size = sum(span.stop - span.start for span in spans) + (facts.person(owner) is not None)
            if number >= size and owner not in _POOLS | {ROOT} and _in_use(facts, owner):
                hint = "add the missing ids to both files"
                yield Seen(facts.place_of(spans[0]), f"{fact}, but {owner} has {size} ids", hint)


@rule("USN026", "error")
def kubelet_refuses(facts: Facts) -> Iterator[Seen]:
    """The kubelet does not start with its lines.

    The kubelet asks getsubids for its user's lines. It requires exactly one line, the same in
    both files. Start and count have to be multiples of 65536, and at least 65536: every pod
    gets 65536 ids, and no pod may get the host's.

        kubelet:100000:65536            100000 is not a multiple of 65536

    Remove the line. Then run
    'usernsplan allocate --strategy per-container --engine kubernetes --pods 110', which makes
    a line that the kubelet accepts.
    """
    given = {kind: facts.grants_of(_KUBELET, kind) for kind in KINDS}
    if not any(given.values()):
        return
    fact = ""
    if any(len(lines) != 1 for lines in given.values()):
        uids, gids = (len(given[kind]) for kind in KINDS)
        fact = f"it requires one line in each file, and there are {uids} and {gids}"
    elif len({(line.start, line.stop) for [line] in given.values()}) > 1:
        fact = "its lines in subuid and in subgid differ"
    else:
        [line] = given["uid"]
        if line.start % SLOT or (line.stop - line.start) % SLOT:
            count = line.stop - line.start
            fact = f"start {line.start} and count {count} have to be multiples of {SLOT}"
        elif line.start < SLOT or line.stop - line.start < SLOT:
            fact = f"start and count have to be {SLOT} or more"
    if fact:
        kind = next(kind for kind in KINDS if given[kind])
        allocate = "allocate --strategy per-container --engine kubernetes"
        yield Seen(
            facts.place(PATHS[kind], given[kind][0].number),
            f"the kubelet refuses its line: {fact}",
            f"remove it; {facts.state.layout.inline(allocate)} makes one",
        )


@rule("USN027", "warning")
def kubelet_is_short(facts: Facts) -> Iterator[Seen]:
    """The kubelet's line is too short for its default number of pods.

    By default, a kubelet runs up to 110 pods. It does not start if its line has fewer than
    65536 ids for each of them.

        kubelet:524288:655360           10 pods

    In the kubelet's configuration, set maxPods to the number for which the line has room. Or
    give it a longer line.
    """
    for line in facts.grants_of(_KUBELET, "uid")[:1]:
        pods = (line.stop - line.start) // SLOT
        if 0 < pods < _PODS:
            yield Seen(
                facts.place(SUBUID, line.number),
                f"the kubelet's line has room for {pods} pods, but its default is {_PODS}",
                f"set its maxPods to {pods} or less",
            )
