"""Rules about ranges: ids that two have, or that belong to somebody else altogether."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from usernsplan.audit.base import FILES, Facts, Index, Seen, Span, is_meant, listed, rule
from usernsplan.errors import InvalidFileError
from usernsplan.formats import daemon_json, login_defs
from usernsplan.formats.subid import Grant
from usernsplan.ids import ID_LIMIT, IdSet
from usernsplan.layout import GROUP, LEDGER, LOGIN_DEFS, NSSWITCH, PASSWD, SUBGID, SUBUID
from usernsplan.model import ROOT
from usernsplan.planner import advice
from usernsplan.planner.daemon import remap_user
from usernsplan.planner.meant import DAEMONS_OF_ROOT
from usernsplan.reserved import TABLE
from usernsplan.strategies import SLOT, SingleUid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.ids import IdRange
    from usernsplan.mapping import Extent
    from usernsplan.model import Namespace

# SSSD's ldap_idmap_range_min and ldap_idmap_range_max, of sssd-ldap(5).
_SSSD = range(200000, 2000200000)
# From here on ids are negative to whoever keeps them in a signed number of 32 bits.
_SIGNED = 2**31
_ANOTHER = "give one of them another range, and shift the files of its containers"


@rule("USN001", "error")
def owners_overlap(facts: Facts) -> Iterator[Seen]:
    """Lines of two owners give the same ids.

    A process in a container of one owner can then read, change and signal what belongs to a container of the other, as
    if the two were one. No reader of the files and no kernel objects: the ids are simply the same.

    usermod --add-subuids takes any range without looking; so does an editor, and a file that was copied from another
    host. useradd itself looks at the lines, but at nothing else.

        alice:100000:65536
        bob:150000:65536        150000-165535 are alice's too

    Take the line of one of them out, give him a free range (usermod --del-subuids, then --add-subuids, or 'usernsplan
    allocate'), and shift the owners of his containers' files with 'usernsplan fix-volume --mode shift'.
    """
    for path in FILES:
        roots = {(span.start, span.stop) for span in facts.by_owner[path].get(ROOT, ())}
        daemons = {(s.start, s.stop) for owner in DAEMONS_OF_ROOT for s in facts.by_owner[path].get(owner, ())}
        others = [
            span
            for span in facts.spans[path]
            if not (span.allocation or span.owner in facts.owners)
            # Of a range that both have, root's line is the one that counts.
            and not (span.owner in DAEMONS_OF_ROOT and (span.start, span.stop) in roots)
            and not (is_meant(span) and (span.start, span.stop) not in daemons)
        ]
        for span, other in sorted(overlaps(others), key=lambda pair: pair[0].number):
            message = f"{span.owner}'s {span.ids} overlaps with {other.owner}'s {other.ids} in line {other.number}"
            yield Seen(facts.place(path, span.number), message, _ANOTHER)


def overlaps(spans: Iterable[Span]) -> Iterator[tuple[Span, Span]]:
    """Each span that has ids of another owner's span before it (by start), with one such; in n log n steps."""
    # The one that reaches furthest, and of the other owners' the one that does: nobody else can matter.
    first = second = None
    for span in sorted(spans, key=lambda span: (span.start, span.number)):
        for other in (first, second):
            if other and other.owner != span.owner and other.stop > span.start:
                yield span, other
                break
        if first is None or span.stop > first.stop:
            if first and first.owner != span.owner:
                second = first
            first = span
        elif span.owner != first.owner and (second is None or span.stop > second.stop):
            second = span


@rule("USN002", "error")
def allocations_overlap(facts: Facts) -> Iterator[Seen]:
    """Ids that usernsplan gave to a container are somebody else's too.

    The ledger holds the range for one container, and a line gives it, or a part of it, to another owner: his containers
    reach the files and processes of ours.

    It happens when somebody writes a line without asking (usermod --add-subuids looks at nothing), or when our lines
    were taken out and useradd then found the range free.

        usernsplan-web:524288:65536     'usernsplan allocate web'
        alice:524288:65536              written by hand

    Take the other line out. Where that owner has files already, release ours instead ('usernsplan release web'),
    allocate it anew and shift its files.
    """
    for after, before in overlaps(one._replace(owner=one.allocation) for one in facts.held):
        release = facts.state.layout.command(f"release {after.allocation}")
        message = f"the ledger gives '{after.allocation}' {after.ids} and '{before.allocation}' {before.ids}"
        yield Seen(facts.place(LEDGER), message, f"'{release}', and allocate it anew")
    held = Index(facts.held)
    for path in FILES:
        for span in facts.spans[path]:
            theirs = (one for one in held.over(span.start, span.stop) if one.owner != span.owner)
            if not (span.allocation or is_meant(span)) and (one := next(theirs, None)):
                message = f"{span.owner}'s {span.ids} overlaps with {one.ids}, which '{one.allocation}' has"
                yield Seen(facts.place(path, span.number), message, "take this line out: usernsplan did not give it")


@rule("USN003", "error")
def own_lines_overlap(facts: Facts) -> Iterator[Seen]:
    """Two lines of one owner give the same ids.

    Engines lay all lines of an owner into one map, and the kernel refuses a map in which an id appears twice: the
    container does not start, with nothing but "invalid argument" (EINVAL). Docker starts, and then no container does.

    Somebody added a range that was partly there already, or put a line in twice.

        alice:100000:65536
        alice:100000:65536      twice: EINVAL

    Take one of the two out, or move it: usermod --del-subuids FIRST-LAST, --add-subuids FIRST-LAST.
    """
    for path in FILES:
        for owner, spans in facts.by_owner[path].items():
            # Nobody joins root's lines: newuidmap takes any of them. Of ours, drift tells.
            if owner == ROOT or owner in facts.owners:
                continue
            furthest: Span | None = None
            for span in sorted(spans):
                if furthest and span.start < furthest.stop and span.number != furthest.number:
                    message = f"{owner}'s {span.ids} overlaps with his {furthest.ids} in line {furthest.number}"
                    yield Seen(facts.place(path, span.number), message, "the kernel takes no such map: take one out")
                if furthest is None or span.stop > furthest.stop:
                    furthest = span


@rule("USN004", "error")
def over_an_account(facts: Facts) -> Iterator[Seen]:
    """A range lies over the uid of an account.

    Whoever is that id in a container is that account on the host as soon as a file or a process is concerned: he reads
    its home and signals its processes.

    useradd gives a new account the next free uid without looking at subuid, and directory services number people
    without knowing of the file at all. usermod -u and lines written by hand do it too.

        containers:100000:65536         in subuid
        bob:x:100500:100500:…           in passwd

    Give the range up or the account another uid: usermod -u NEW bob, then chown what it owns. To let containers share
    the host's ids on purpose, see the strategy 'shared'.
    """
    yield from _over(facts, SUBUID, [(user.uid, user.name) for user in facts.users.values()], "account")


@rule("USN005", "error")
def over_a_group(facts: Facts) -> Iterator[Seen]:
    """A range lies over the gid of a group.

    Processes of a container that have this id as their group are members of the host's group: they read whatever it
    may read, docker's socket or the disks included where the group is 'docker' or 'disk'.

    groupadd takes the next free gid without looking at subgid.

        containers:100000:65536         in subgid
        staff:x:100100:bob              in group

    Give the range up, or the group another gid: groupmod -g NEW staff, then chgrp what it owns.
    """
    yield from _over(facts, SUBGID, [(group.gid, group.name) for group in facts.state.accounts.groups], "group")


def _over(facts: Facts, path: str, ids: list[tuple[int, str]], kind: str) -> Iterator[Seen]:
    """The ranges, intended ones aside, in which accounts or groups lie. What a login may become is told apart."""
    ids = sorted(dict.fromkeys(ids))
    for span in facts.given[path]:
        if span.intended or _may_become(facts, span):
            continue
        # Of an account's own id in its own line another rule tells.
        user = facts.users.get(span.owner) if span.number else None
        own = user and (user.uid if path == SUBUID else user.gid)
        names = [f"{name} ({number})" for number, name in _between(ids, span) if number != own]
        if names:
            of = f"'{span.allocation}'" if span.allocation else span.owner
            message = f"the {kind} {listed(names)} lies in {span.ids} of {of}"
            hint = f"give the {kind} another number, or {of} another range, and shift the files"
            yield Seen(facts.place(span.path, span.number), message, hint)


def _between(ids: list[tuple[int, str]], span: Span | IdRange) -> list[tuple[int, str]]:
    return ids[bisect_left(ids, (span.start, "")) : bisect_left(ids, (span.stop, ""))]


def _may_become(facts: Facts, span: Span) -> bool:
    """Tell whether an account could become others by a line: a login, or a service with host root in its range."""
    user = facts.users.get(span.owner)
    login = facts.person(span.owner) is not None
    return login or (user is not None and user.name != ROOT and span.start == 0 and not span.intended)


@rule("USN006", "error")
def becomes_others(facts: Facts) -> Iterator[Seen]:
    """An account may become others: root, the system, or somebody else.

    newuidmap lets an account map every id that its lines give it. Whoever is logged in as it makes a user namespace,
    becomes that id inside, and is that id on the host as well: with 0 that is root, and no password was asked.

    Such lines come from usermod --add-subuids 0-65535, from recipes that give a service "all ids", and from accounts
    that were made later, inside a range that stood already.

        alice:0:65536           alice becomes root, and everybody
        bob:100000:65536        and carl has uid 100500: bob becomes carl

    Take the line out and give the account a range of its own: usermod --del-subuids FIRST-LAST, --add-subuids. To let
    a container share the host's ids on purpose, use an owner that is nobody's login ('usernsplan allocate --strategy
    shared').
    """
    kinds = {
        SUBUID: ("account", sorted((user.uid, user.name) for user in facts.users.values())),
        SUBGID: ("group", sorted((group.gid, group.name) for group in set(facts.state.accounts.groups))),
    }
    for path, (kind, ids) in kinds.items():
        for span in facts.spans[path]:
            if not _may_become(facts, span):
                continue
            user = facts.users[span.owner]
            found = [(n, name) for n, name in _between(ids, span) if n != (user.uid if path == SUBUID else user.gid)]
            system = [name for number, name in found if 0 < number < 1000]  # noqa: PLR2004 - UID_MIN
            whom = [kind + " root (0)"] if span.start == 0 else []
            whom += [f"{len(system)} of the system's {kind}s"] if system else []
            whom += [f"{kind} {name} ({number})" for number, name in found if number >= 1000]  # noqa: PLR2004
            if whom:
                message = f"whoever runs as {span.owner} can become {listed(whom)} by {span.ids}"
                yield Seen(facts.place(path, span.number), message, "take the line out, and give a range of its own")


@rule("USN007", "warning")
def host_root(facts: Facts) -> Iterator[Seen]:
    """A range holds host id 0: a container's id is the host's root.

    Files and sockets do not ask for capabilities: a process that is host id 0 in a container owns what root owns,
    wherever it can reach it. The user namespace still keeps it from mounting, from the network and from devices.

    'usernsplan allocate --strategy shared --identity' makes such a map on purpose, to try user namespaces out. Written
    by hand, it is mostly a start of 0 that should have been another number.

        dockremap:0:65536

    Use it for a trial only; --dockerroot N makes container root some other id.
    """
    for path in FILES:
        for span in facts.spans[path]:
            if span.start == 0 and span.owner != ROOT and not _may_become(facts, span):
                message = f"{span.owner}'s {span.ids} holds the host's root"
                yield Seen(facts.place(path, span.number), message, "a start of 1 or more keeps container root apart")


@rule("USN008", "error")
def own_id(facts: Facts) -> Iterator[Seen]:
    """An account's own id lies in its own range.

    Rootless engines map the account itself to container root and its range to the ids above; where the range holds
    the account's own id, that id appears twice in the map, and the kernel refuses it (EINVAL): nothing starts.

    A line written by hand, or an account whose uid was changed or that came from a directory service with high numbers.

        alice:x:100500:100500:…         in passwd
        alice:100000:65536              in subuid

    Give the account another range: usermod --del-subuids 100000-165535 --add-subuids FIRST-LAST alice.
    """
    for path in FILES:
        for owner, spans in facts.by_owner[path].items():
            user = facts.person(owner)
            if user is None:
                continue
            own, kind = (user.uid, "uid") if path == SUBUID else (user.gid, "gid")
            for span in spans:
                if span.start <= own < span.stop:
                    message = f"{owner}'s own {kind} {own} lies in his range {span.ids}"
                    yield Seen(facts.place(path, span.number), message, "rootless engines do not start: move the range")


@rule("USN009", "warning")
def over_reserved(facts: Facts) -> Iterator[Seen]:
    """A range lies over ids that are kept for somebody else.

    The numbers below 65536, and a few above, belong to somebody by convention: the system, people, systemd-homed,
    DynamicUser=, nobody, systemd's foreign images. Others give them out without reading subuid. What the ledger has
    reserved is somebody's outside of this host.

    Lines written by hand do it; useradd does where SUB_UID_MIN is low.

        web:61184:4336          DynamicUser= takes its ids from here

    Move the range to 524288 or above. Ids below 65536 are shared on purpose by the strategy 'shared' alone, and of
    its lines nothing is said.
    """
    conventions = [(entry.ids, f"{entry.whose} ({entry.ids})") for entry in TABLE if entry.ids.start < _SIGNED]
    reserved = [(r.ids, f"'{r.why}' ({r.ids}), as the ledger has it") for r in facts.state.ledger.reservations]
    for path in FILES:
        for span in facts.given[path]:
            if span.intended:
                continue
            # Of a login's line over the system and people it is told whom it may become; root is the system.
            known = len(conventions) if span.owner == ROOT else 2 if _may_become(facts, span) else 0
            kept = (*conventions[known:], *reserved)
            whose = [words for ids, words in kept if span.start < ids.stop and ids.start < span.stop]
            if whose:
                message = f"{span.owner}'s {span.ids} lies over what is kept for {listed(whose)}"
                yield Seen(facts.place(path, span.number), message, "move it: free ranges begin at 524288")


@rule("USN010", "warning")
def over_released(facts: Facts) -> Iterator[Seen]:
    """A range that was released is somebody's again, and files may still carry its ids.

    'usernsplan release' keeps a range back because the container's files still have its ids. Its lines are gone from
    subuid and subgid, so useradd, which sees nothing else, may give the ids to a new account: whose containers then own
    those files.

        usernsplan release web          524288-589823 is kept back
        useradd bob                     and SUB_UID_MIN is 524288: bob:524288:65536
        useradd --uid 524321 eve        and she owns what container uid 33 left

    See what carries the ids ('usernsplan check --scan DIR', 'usernsplan find-owned'), give it away or remove it, and
    then 'usernsplan release --forget NAME'; or move the other line.
    """
    hint = f"files may still carry these ids: '{facts.state.layout.command('check --scan DIR')}' looks"
    accounts = {
        SUBUID: (PASSWD, "account", sorted({(user.uid, user.name) for user in facts.users.values()})),
        SUBGID: (GROUP, "group", sorted({(group.gid, group.name) for group in facts.state.accounts.groups})),
    }
    for path, (where, kind, ids) in accounts.items():
        given = Index(span for span in facts.given[path] if not span.intended)
        for q in facts.state.ledger.quarantined:
            for span in given.over(q.held.start, q.held.stop):
                message = f"{span.owner}'s {span.ids} overlaps with {q.held}, released by '{q.name}'"
                yield Seen(facts.place(span.path, span.number), message, hint)
            names = [f"{name} ({number})" for number, name in _between(ids, q.held)]
            if names:
                message = f"the {kind} {listed(names)} lies in {q.held}, released by '{q.name}'"
                yield Seen(facts.place(where), message, hint)


@rule("USN011", "warning")
def over_directory(facts: Facts) -> Iterator[Seen]:
    """Ranges lie where a directory service numbers its people.

    SSSD maps the accounts of an Active Directory to 200000-2000200000 unless it is told otherwise, in slices of
    200000; winbind and LDAP have ranges of their own. Not all of these accounts can be listed from here, so a person
    may have, or may get, an id that a container has.

        passwd: files sss               in nsswitch.conf
        containers:524288:65536         in subuid, and somebody of the domain is 524900

    Compare with ldap_idmap_range_min and _max in sssd.conf (or the idmap config of smb.conf), and take ranges from
    elsewhere: 'usernsplan allocate --pool FIRST-LAST'.
    """
    service = advice.directory_service(facts.state)
    lines = [s for path in FILES for s in facts.spans[path] if not s.intended]
    found = [s for s in lines if s.start < _SSSD.stop and _SSSD.start < s.stop]
    if service and found:
        first = facts.place(found[0].path, found[0].number)
        message = f"accounts come from {service} too, and {len(found)} lines ({first} is one) lie in its default range"
        hint = f"compare with the ids that {service} gives out here, by default {_SSSD.start}-{_SSSD.stop}"
        yield Seen(facts.place(NSSWITCH, facts.state.passwd_source.number), message, hint)


@rule("USN012", "error")
def somebody_runs_there(facts: Facts) -> Iterator[Seen]:
    """A user namespace runs with ids that are somebody else's.

    Processes are at work, now, that have ids which a line or the ledger gives to another owner: they and his containers
    own each other's files.

    It happens where root starts a container with numbers of its own (systemd-nspawn -U picks a range by itself, LXC
    and podman --uidmap take any), or where a range was given away while containers still ran in it.

        usernsplan-web:524288:65536
        systemd-nspawn --private-users=500000:65536 …      524288-565535 is in both

    Stop these processes, or give the container ids that are nobody's. 'usernsplan inspect PID' shows whose each is.
    """
    for namespace in facts.namespaces:
        if namespace.mapping is None:
            continue
        for path, ids in ((SUBUID, namespace.mapping.uids), (SUBGID, namespace.mapping.gids)):
            clash = next((span for extent in ids if (span := _clash(facts, path, namespace, extent))), None)
            if clash:
                pid = namespace.pids[0] if namespace.pids else 0
                who = f"process {pid}" if pid else "no process"
                message = f"{clash.owner}'s {clash.ids} is in use by the user namespace {namespace.inode} ({who})"
                hint = f"it is not {clash.owner}'s: 'usernsplan inspect {pid}' shows its maps" if pid else ""
                yield Seen(facts.place(clash.path, clash.number), message, hint)
                break


def _clash(facts: Facts, path: str, namespace: Namespace, extent: Extent) -> Span | None:
    """Whose ids an extent has that is not his; None where it is nobody's, or fits one who may have made it."""
    if extent.container == extent.host or (extent.count == 1 and extent.host == namespace.owner):
        return None
    start, stop = extent.host, extent.host + extent.count
    found = list(facts.taken[path].over(start, stop))
    for owner in dict.fromkeys(span.owner for span in found):
        his = IdSet.clipped((span.start, span.stop) for span in found if span.owner == owner)
        user = facts.users.get(owner)
        if not his.gaps(extent.host_range) and (
            namespace.owner in {None, 0, user.uid if user else None} or namespace.owner in _ids_of(facts, owner)
        ):
            return None
    # A line says more than the ledger's file.
    return min(found, key=lambda span: span.number == 0, default=None)


def _ids_of(facts: Facts, owner: str) -> IdSet:
    """The uids that an owner's lines give him: what is made inside of his containers is made by one of these."""
    return IdSet.clipped((span.start, span.stop) for span in facts.by_owner[SUBUID].get(owner, ()))


@rule("USN016", "warning")
def root_runs_there(facts: Facts) -> Iterator[Seen]:
    """Root runs a user namespace with ids that a line gives to an account.

    What the account's own engines make is made as that account. What root makes there is another container, of
    systemd-nspawn -U, LXC or podman --uidmap: it and the account's containers own each other's files. It may be meant
    (podman --subuidname); then nothing has to be done.

        systemd-nspawn --private-users=700000:65536 …      runs, by root
        useradd dina                                       dina:700000:65536: useradd does not look at what runs

    Stop it, or give it ids that are nobody's ('usernsplan allocate').
    """
    remap = remap_user(facts.state, facts.daemon.get(daemon_json.REMAP) or "") if facts.daemon else None
    for namespace in facts.namespaces:
        if namespace.mapping is None or namespace.owner != 0:
            continue
        for path, ids in ((SUBUID, namespace.mapping.uids), (SUBGID, namespace.mapping.gids)):
            spans = (s for e in ids if e.container != e.host for s in facts.taken[path].over(e.host, e.host + e.count))
            his = [s for s in spans if s.number and facts.person(s.owner) and s.owner not in {remap, *facts.owners}]
            if his:
                pid = namespace.pids[0] if namespace.pids else 0
                message = f"{his[0].owner}'s {his[0].ids} is in use by a user namespace of root's, {namespace.inode}"
                yield Seen(facts.place(path, his[0].number), message, f"'usernsplan inspect {pid}' shows its maps")
                break


@rule("USN013", "warning")
def past_signed(facts: Facts) -> Iterator[Seen]:
    """A range reaches past 2147483647.

    The kernel takes these ids, but some programs keep an id in a signed number of 32 bits and see them as negative:
    runc and Docker among them. FreeIPA gives out its subordinate ids from 2147483648 on, too.

        containers:2147450880:65536     half of it is negative to Docker

    Move the range below 2147483648.
    """
    for span in _plain(facts):
        if _SIGNED < span.stop <= ID_LIMIT:
            message = f"{span.owner}'s {span.ids} reaches past {_SIGNED - 1}"
            yield Seen(
                facts.place(span.path, span.number), message, "runc and Docker see such ids as negative: move it"
            )


@rule("USN014", "error")
def past_all_ids(facts: Facts) -> Iterator[Seen]:
    """A range reaches past 4294967294, the last id that there is.

    The kernel refuses every map with such an id (EINVAL), so no container of this owner starts; usermod and dockerd
    do not object before.

        bob:4294901760:65536            one id too many

    Give the owner a range that lies below.
    """
    for span in _plain(facts):
        if span.stop > ID_LIMIT:
            message = f"{span.owner}'s {span.ids} reaches past {ID_LIMIT - 1}, the last id"
            yield Seen(facts.place(span.path, span.number), message, "the kernel refuses such a map: move the range")


def _plain(facts: Facts, *paths: str) -> Iterator[Span]:
    """What lines give that every reader understands alike; of the others it is told elsewhere."""
    for path in paths or FILES:
        plain = {line.number for line in facts.lines(path) if isinstance(line, Grant)}
        yield from (span for span in facts.spans[path] if span.number in plain)


@rule("USN015", "info")
def outside_the_pool(facts: Facts) -> Iterator[Seen]:
    """A range lies outside what login.defs sets apart for subordinate ids.

    SUB_UID_MIN and SUB_UID_MAX say where useradd looks for ranges, and where other tools may expect them. A range
    outside works; but nobody who plans ids by login.defs (a directory service, another tool) knows of it.

        SUB_UID_MAX 600100000           in login.defs
        bob:700000000:65536             in subuid

    Nothing has to be done. To bring both together, raise SUB_UID_MAX or move the range.
    """
    try:
        defs = login_defs.parse(facts.state.login_defs, facts.place(LOGIN_DEFS))
    except InvalidFileError:
        return
    single = {a.name for a in facts.state.ledger.allocations if a.strategy == SingleUid.name}
    for path, (_, low, high, _) in zip(FILES, defs.areas, strict=True):
        outside = [
            span
            for span in _plain(facts, path)
            if (span.start < low or span.stop - 1 > high)
            # What lies below 65536 or past 2^31 is told by rules of its own.
            and not (span.intended or span.allocation in single or span.start < SLOT or span.stop > _SIGNED)
        ]
        if outside:
            whose = listed([f"{span.owner}'s {span.ids}" for span in outside], 1)
            message = f"{whose} outside {low}-{high} of {facts.place(LOGIN_DEFS)}"
            yield Seen(facts.place(path, outside[0].number), message, "raise the bound there, or leave it so")
