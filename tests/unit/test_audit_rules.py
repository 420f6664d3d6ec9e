"""Every rule of the audit: hosts on which it fires, worked out by hand, and close ones on which it does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.unit.passing import lines, passing, slice_of
from tests.unit.states import (
    GROUP,
    PASSWD,
    REMAPPED,
    Directory,
    Known,
    per_container,
    published,
    shared,
    state,
)
from usernsplan import Allocation, HostState, IdMap, IdRange, IdSet, Mapping
from usernsplan.audit import RULES, Facts, check
from usernsplan.audit.base import Attributes, FilesCarrying, Lock, Misfits, Unread
from usernsplan.fleetwide import (
    FleetSeen,
    HostSeen,
    NameSeen,
    Overlapping,
    OwnSeen,
    Unbacked,
    WishSeen,
)
from usernsplan.formats.accounts import Accounts, Group, User
from usernsplan.formats.proc_status import Capabilities, Ids, Status
from usernsplan.harden.effective import effective
from usernsplan.harden.names import CAPABILITIES
from usernsplan.harden.policy import policy_of
from usernsplan.harden.seccomp import NO_FILTER, base_of, laid_over
from usernsplan.layout import DAEMON_JSON, LEDGER, NSSWITCH, SUBGID, SUBUID
from usernsplan.layout import PASSWD as PASSWD_FILE
from usernsplan.mapping import KINDS
from usernsplan.model import (
    DOCKER as DOCKER_PROGRAM,
)
from usernsplan.model import (
    MOUNT,
    SNAPD,
    Actor,
    HistoryEntry,
    Intent,
    Kubelet,
    LedgerChange,
    MountSeen,
    Namespace,
    Quadlet,
    Quarantined,
    Reservation,
    UnfinishedRun,
    Unlisted,
    Userdb,
    Volume,
    VolumeMount,
    VolumeSeen,
)
from usernsplan.planner.directory import with_owners
from usernsplan.strategies import SingleUid

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from usernsplan.mapping import Kind
    from usernsplan.model import Finding

ALICE = b"alice:100000:65536\n"
WEB = b"usernsplan-web:589824:65536\n"
BOB = b"bob:x:1001:1001::/home/bob:/bin/sh\n"
BOBS = b"bob:x:1001:\n"
# useradd computes ranges; with the usual numbers.
COMPUTED = b"SUB_UID_DETERMINISTIC yes\nSUB_GID_DETERMINISTIC yes\n" + b"".join(
    b"SUB_%s_MIN 100000\nSUB_%s_MAX 600100000\n" % (kind, kind) for kind in (b"UID", b"GID")
)
REMAP = b'{"userns-remap": "dockremap"}\n'
# The shared strategy as Docker gets it: root is 2, ids 1 and 2 are a filler, the rest is itself.
FILLED = shared(
    "default",
    (0, 2, 1),
    (1, 589824, 2),
    (3, 3, 65533),
    owner="dockremap",
    reserved_range=IdRange(589824, 2),
)
FILLED_LINES = b"dockremap:2:1\ndockremap:589824:2\ndockremap:3:65533\n"
SORTED_LINES = b"dockremap:2:1\ndockremap:3:65533\ndockremap:589824:2\n"


def host(subuid: bytes = b"", subgid: bytes | None = None, **words: object) -> Facts:
    """Facts of a host whose two files are alike unless subgid is given."""
    return Facts(state(subuid, subuid if subgid is None else subgid, **words))  # type: ignore[arg-type]


def unit(account: str = "alice", **said: Any) -> Quadlet:
    return Quadlet("web", account, "/home/alice/web.container", 2, **said)


INSTANCES = b"root:1000000:1000000000\n"


def instance(*extents: tuple[Kind, int, int, int]) -> tuple[Unlisted, ...]:
    """What an instance of Incus gets at its next start: (kind, container id, host id, count)."""
    return tuple(
        Unlisted(
            "Incus",
            "instance media",
            kind,
            first,
            first + count,
            "media",
            grantee="root",
            inside=inside,
            is_next=True,
        )
        for kind, inside, first, count in extents
    )


def maps(
    container: str,
    *extents: tuple[int, int],
    kinds: tuple[Kind, ...] = KINDS,
    program: str = "LXC",
    grantee: str = "root",
    path: str = "/var/lib/lxc/{}/config",
) -> tuple[Unlisted, ...]:
    """What a container of LXC maps: (host id, count) of each line of its config."""
    lines = [(kind, start, count) for kind in kinds for start, count in extents]
    return tuple(
        Unlisted(
            program,
            f"container {container}",
            kind,
            start,
            start + count,
            container,
            path.format(container),
            number,
            grantee,
        )
        for number, (kind, start, count) in enumerate(lines, 1)
    )


def idmap(
    container: str, *texts: str, program: str = "LXC", grantee: str = "root", odd: str = ""
) -> tuple[Unlisted, ...]:
    """A container of LXC with these lines: "u 0 100000 65536"; ``odd`` is one that LXC cannot read."""
    path = (
        f"/var/lib/lxc/{container}/config" if program == "LXC" else f"/etc/pve/lxc/{container}.conf"
    )
    made = Unlisted(program, f"container {container}", "uid", 0, 0, container, path, 0, grantee)
    found = []
    for number, text in enumerate(texts, 1):
        letter, *numbers = text.split()
        inside, start, count = map(int, numbers)
        kind: Kind = "uid" if letter == "u" else "gid"
        ids = {"kind": kind, "start": start, "stop": start + count, "inside": inside}
        found.append(made._replace(number=number, **ids))  # type: ignore[arg-type]
    found += [made._replace(number=len(texts) + 1, odd=odd)] if odd else []
    return tuple(found)


def with_bob(uid: int = 1001, gid: int = 1001) -> dict[str, bytes]:
    return {
        "passwd": PASSWD + b"bob:x:%d:%d::/home/bob:/bin/sh\n" % (uid, gid),
        "group": GROUP + b"bob:x:%d:\n" % gid,
    }


def but(facts: Facts, **changed: object) -> Facts:
    """The same facts with others in their place; those of the host's state too."""
    of_state = {
        key: value for key, value in changed.items() if key in HostState.__dataclass_fields__
    }
    of_facts = {key: value for key, value in changed.items() if key in Facts.__dataclass_fields__}
    return replace(facts, state=replace(facts.state, **of_state), **of_facts)  # type: ignore[arg-type]


def knowing(facts: Facts, *owners: str) -> Facts:
    """The facts of a host that asks a directory service, which knows carla, for these owners."""
    carla = User("carla", 1005, 1005)
    accounts = replace(facts.state.accounts, directory=Directory(carla))
    return replace(facts, state=with_owners(replace(facts.state, accounts=accounts), owners))


def ledger(facts: Facts, **changed: object) -> Facts:
    return but(facts, ledger=replace(facts.state.ledger, **changed))  # type: ignore[arg-type]


def seen(*volumes: VolumeSeen, event: int = 3) -> Facts:
    """A host on which /srv/web was fixed for web, whose ids are 589824-655359, and what is seen of it now."""
    allocations = [
        replace(per_container("web", 589824), event=2),
        per_container("db", 655360),
    ]
    facts = host(WEB + b"usernsplan-db:655360:65536\n", allocations=allocations)
    return but(
        ledger(facts, volumes=(Volume("/srv/web", "web", "own", "", "0:0", event),)),
        volumes=volumes,
    )


MOUNT_AT = "/run/usernsplan/volumes/web/srv-web"


def mounted(**shown: Any) -> Facts:
    """A host where a volume of web is recorded as mounted, and what is seen there."""
    web = per_container("web", 589824)
    mount = VolumeMount(MOUNT_AT, "/srv/web", "web", "shift", web.mapping)
    facts = ledger(host(WEB, allocations=[web]), mounts=(mount,))
    now = MountSeen(MOUNT_AT, is_standing=True, mapping=web.mapping, options=("rw", "idmapped"))
    return but(facts, mounts=(now._replace(**shown),))


def unmoved(*volumes: VolumeSeen) -> Facts:
    """The same, but web had another range before: /srv/web still has those ids."""
    former = per_container("web", 1589824).mapping
    volume = Volume("/srv/web", "web", "own", "", "0:0", 3, former)
    return ledger(seen(*volumes), volumes=(volume,))


def single(name: str, base: int) -> Allocation:
    ids = IdMap.of((0, base, 1))
    return Allocation(
        name, f"usernsplan-{name}", SingleUid.name, Mapping(ids, ids), IdRange(base, 10000)
    )


def running(
    *extents: tuple[int, int, int], owner: int | None = 0, pids: tuple[int, ...] = (4711,)
) -> Namespace:
    ids = IdMap.of(*extents)
    return Namespace(4026532000, owner, 4026531837, pids, Mapping(ids, ids))


def regular(
    path: str = SUBUID, mode: int = 0o644, uid: int = 0, gid: int = 0, kind: str = "regular"
) -> Attributes:
    return Attributes(path, kind, mode, uid, gid)


def tree(name: str, base: int) -> tuple[Unlisted, ...]:
    """A machine of systemd-nspawn that is not running, by the owner of its tree."""
    path = f"/var/lib/machines/{name}"
    what = f"machine {name}"
    return tuple(
        Unlisted("systemd-nspawn", what, kind, base, base + 65536, name, path) for kind in KINDS
    )


def settings(name: str, base: int, count: int) -> Unlisted:
    path = f"/etc/systemd/nspawn/{name}.nspawn"
    ids = (base, base + count)
    return Unlisted("systemd-nspawn", f"machine {name}", "uid", *ids, name, path, 2)


def data_root(base: int) -> Unlisted:
    path = f"/var/lib/docker/{base}.{base}"
    return Unlisted(DOCKER_PROGRAM, f"data root {path}", "uid", base, base + 65536, path=path)


def mount(first: int, count: int) -> Unlisted:
    return Unlisted(MOUNT, "/mnt", "uid", first, first + count, path="/mnt")


def snapd() -> tuple[Unlisted, ...]:
    ids = (524288, 589824)
    return tuple(Unlisted(SNAPD, "users", kind, *ids, path="/usr/bin/snap") for kind in KINDS)


RENDERED = passing("web", 589824, "g:104:107")
OF_ALICE = replace(passing("web", 589824, "u:1000", "g:104:107"), owner="alice")
ALICES_OWN = replace(passing("web", 589824, "b:1000"), owner="alice")
DOCKERS = GROUP + b"docker:x:999:\n"
# A usual map of LXC's uids, and of its gids.
WHOLE = "u 0 100000 65536"
ROOTED = ("g 0 100000 65536",)


def told(*lines: str) -> tuple[HistoryEntry, ...]:
    """A history with one entry of these lines."""
    return (HistoryEntry("2026-01-01T00:00:00Z", Actor(0), "x", lines, 1),)


class Case(NamedTuple):
    """Facts, and what a rule has to see in them: the place, and words of the message."""

    facts: Facts
    seen: tuple[tuple[str, tuple[str, ...]], ...]


def fires(facts: Facts, *seen: tuple[str, tuple[str, ...]]) -> Case:
    return Case(facts, seen)


PER_CONTAINER = host(WEB, allocations=[per_container("web", 589824)])
WEB_AND_DB = host(
    WEB + b"usernsplan-db:655360:65536\n",
    allocations=[per_container("web", 589824), per_container("db", 655360)],
)
ROOTS = replace(per_container("web", 589824), extra_owners=("root",))
SMALL = b"root:589824:32768\nroot:622592:32768\n"
ROOT_TWICE = b"root:1000000:1000000000\nroot:1001000000:1000000000\n"
INSTANCES_OF_INCUS = tuple(
    Unlisted("Incus", "all instances", kind, 1000000, 1001000000, path="/usr/bin/incusd")
    for kind in KINDS
)
PLAIN_INSTANCE = tuple(
    Unlisted("Incus", "instance c1", kind, 1000000, 1001000000, "c1", grantee="root")
    for kind in KINDS
)
INSTANCES_OF_SNAP = tuple(
    one._replace(program="LXD", path="/snap/bin/lxd") for one in INSTANCES_OF_INCUS
)
DOCKER = host(b"dockremap:589824:65536\n", **REMAPPED, daemon_json=REMAP)
DEFAULT = per_container("default", 589824, owner="dockremap")
THREE = {ord("a"): 589824, ord("b"): 655360, ord("c"): 720896}
# Docker's remap user with its own uid and gid in its range: Docker does not map the account itself.
DOCKERS_OWN = host(
    b"dockremap:501000:65536\n",
    passwd=PASSWD + b"dockremap:x:501000:501000::/nonexistent:/usr/sbin/nologin\n",
    group=GROUP + b"dockremap:x:501000:\n",
    daemon_json=b'{"userns-remap": "default"}',
)
KUBELETS = Known(
    passwd=PASSWD + b"kubelet:x:995:995::/nonexistent:/usr/sbin/nologin\n",
    group=GROUP + b"kubelet:x:995:\n",
)
KUBELETS_LINE = b"kubelet:1048576:8388608\n"


def with_kubelet(facts: Facts, **said: object) -> Facts:
    """The same host with a kubelet that is installed, and what is known of it."""
    kubelet = Kubelet()._replace(**said)  # type: ignore[arg-type]
    return but(facts, engines=frozenset({"kubernetes"}), kubelet=kubelet)


def in_directory(facts: Facts, user: User) -> Facts:
    """The same host with an account that a directory service knows and does not list."""
    return but(facts, accounts=replace(facts.state.accounts, directory=Directory(user)))


def container(facts: Facts, *exists: tuple[int, int]) -> Facts:
    """The same host as a container whose map has these ids: first and count."""
    ids = IdSet(IdRange(*one) for one in exists)
    return but(facts, exists=(ids, ids))


KUBELET = "the kubelet refuses its line"
CLEAN = but(
    host(
        ALICE + WEB + b"dockremap:655360:65536\ncontainers:720896:6553600\n",
        **REMAPPED,
        daemon_json=b'{"userns-remap": "dockremap", "no-new-privileges": true}\n',
        allocations=[
            per_container("web", 589824),
            per_container("default", 655360, owner="dockremap"),
            per_container("containers", 720896, 6553600, owner="containers"),
        ],
        nsswitch=b"passwd: files systemd\nsubid: files\n",
        login_defs=b"SUB_UID_MIN 100000\nSUB_UID_MAX 600100000\n",
    ),
    engines=frozenset({"docker", "podman"}),
    attributes=(regular(SUBUID), regular(SUBGID)),
    locks=(Lock("/etc/subuid.lock", 1, alive=True),),
    # Docker's, a rootless one of alice's with one of hers inside, and a sandbox that maps nobody else.
    namespaces=(
        running((0, 655360, 65536)),
        running((0, 1000, 1), (1, 100000, 65536), owner=1000),
        running((0, 100000, 1000), owner=100000),
        running((0, 0, 4294967295)),
        replace(running((0, 1, 1)), mapping=None),
    ),
)


def hardened(name: str, start: int, **said: Any) -> Allocation:
    """An allocation with a policy: the profile seed, and what is ``said``."""
    return replace(per_container(name, start), policy=policy_of({"profile": "seed", **said}))


# Another user of that container.
OTHER = Ids(590824, 590824, 590824, 590824)


def runs(bounding: Collection[str], allocation: Allocation | None = None, **said: Any) -> Facts:
    """Facts of a host whose 'web' runs as process 4711, with this bounding set."""
    ids, root = allocation or per_container("web", 589824), Ids(589824, 589824, 589824, 589824)
    status = Status(
        "init",
        "S",
        said.pop("uids", root),
        root,
        (),
        Capabilities(bounding=tuple(bounding)),
        **{"no_new_privs": False, "seccomp": 2, **said},
    )
    return replace(
        host(WEB, allocations=[ids]),
        namespaces=(running((0, 589824, 65536)),),
        statuses={4711: status},
    )


def powerful(*said: str) -> Facts:
    return runs(CAPABILITIES, hardened("web", 589824, cap_add=said))


PLACE = "/etc/usernsplan/seccomp/web.json"


def filtered(raw: bytes, **said: Any) -> Facts:
    """Facts of a host on which this is the filter of 'web'."""
    return replace(
        host(WEB, allocations=[hardened("web", 589824, **said)]),
        filters={PLACE: raw},
    )


SEED = effective(policy_of({"profile": "seed"}))
FILTER = json.dumps(laid_over(SEED, NO_FILTER, machine="x86_64")).encode()
WEB_USER = "usernsplan-web.user"
BOB_RECORD = b'{"userName": "usernsplan-web", "uid": 7}'
OUR_ACCOUNT = (
    b"usernsplan-web:x:589824:589824:container ids (usernsplan):/nonexistent:/usr/sbin/nologin\n"
)
OTHER_IDS = b'{"realName": "container ids (usernsplan)"}'
RECORDED = PER_CONTAINER


def recorded(others: dict[str, bytes | str] | None = None, gone: str = "") -> Userdb:
    """The records of web in order, but for this."""
    names = published([per_container("web", 589824)]).names
    others = others or {}
    return Userdb(frozenset({*names, *others} - {gone}), others)


WEB_ON_A = NameSeen(per_container("web", 589824), ("a",))
EVE = OwnSeen("uid", 589824, 589825, "account", "eve", ("a",))


def of_fleet(**seen: Any) -> Facts:
    return Facts(host().state, fleet=FleetSeen("here", **seen))


FIRING: dict[str, list[Case]] = {
    "USN200": [
        fires(
            of_fleet(differing=((WEB_ON_A, NameSeen(per_container("web", 655360), ("b",))),)),
            ("", ("'web' has other ids", "589824-655359 on a", "655360-720895 on b")),
        )
    ],
    "USN201": [
        fires(
            of_fleet(
                differing=(
                    (WEB_ON_A, NameSeen(replace(WEB_ON_A.allocation, owner="bob"), ("b", "c"))),
                )
            ),
            ("", ("'web' is not the same on a and on b, c",)),
        )
    ],
    "USN202": [
        fires(
            of_fleet(hosts=(HostSeen(1, "a", 8 * 86400.0), HostSeen(2, "b", 5.0))),
            ("", ("a was last seen 8 days ago",)),
        )
    ],
    "USN203": [
        fires(
            of_fleet(wishes=(WishSeen("a", "web", "per-container", "op", "now"),)),
            ("", ("a is to allocate 'web'", "op")),
        ),
        fires(
            of_fleet(wishes=(WishSeen("a", "web", "", "op", "now"),)), ("", ("to release 'web'",))
        ),
    ],
    "USN204": [
        fires(
            of_fleet(wishes=(WishSeen("a", "web", "shared", "op", "now", "no room"),)),
            ("", ("a refused to allocate 'web'", "no room")),
        )
    ],
    "USN205": [
        fires(
            of_fleet(
                unbacked=(
                    Unbacked("a", "web", "held", is_claim=True),
                    Unbacked("b", "db", "held", is_claim=False),
                )
            ),
            ("", ("claims 'web' as held for a",)),
            ("", ("has 'db' as held on b", "no claim")),
        )
    ],
    "USN206": [
        fires(
            of_fleet(overlapping=(Overlapping(EVE, "web", 589824, 589825, is_its=True),)),
            ("", ("a has uid 589824 twice: 'web' and eve (account)",)),
        )
    ],
    "USN207": [
        fires(
            of_fleet(overlapping=(Overlapping(EVE, "web", 589824, 589825, is_its=False),)),
            ("", ("a cannot get 'web': its uid 589824",)),
        )
    ],
    "USN187": [
        fires(
            filtered(b'{"defaultAction": "SCMP_ACT_ALLOW"}'),
            (PLACE, ("'web'", "lets other system calls through")),
        ),
        fires(filtered(FILTER, deny_syscalls=["getcwd"]), (PLACE, ())),
        fires(filtered(FILTER, allow_syscalls=["kcmp"]), (PLACE, ())),
        fires(filtered(b"{"), (PLACE, ("is not JSON",))),
    ],
    "USN183": [
        fires(runs(CAPABILITIES), ("", ("'web'", "4711", "full bounding set", "no_new_privs"))),
        # An older kernel has fewer.
        fires(runs(CAPABILITIES[:38]), ("", ("'web'",))),
    ],
    "USN184": [
        fires(
            runs(["chown", "kill"], hardened("web", 589824, cap_add=["kill"]), seccomp=0),
            ("", ("'web'", "4711", "bounding set has chown;", "no_new_privs", "no filter")),
        ),
        fires(runs([], hardened("web", 589824)), ("", ("gives it: no_new_privs is not set",))),
        fires(
            runs([], hardened("web", 589824, profile="strict"), no_new_privs=True),
            ("", ("gives it: it runs as the container's root",)),
        ),
    ],
    "USN185": [
        fires(host(daemon_json=REMAP), ("/etc/docker/daemon.json", ("no-new-privileges",))),
        fires(
            host(daemon_json=b'{"userns-remap": "x", "no-new-privileges": false}'),
            ("/etc/docker/daemon.json", ("no-new-privileges",)),
        ),
    ],
    "USN186": [
        fires(
            host(
                allocations=[
                    hardened("web", 589824, selinux_level="s0:c1,c2"),
                    hardened("db", 655360, selinux_level="s0:c1,c2"),
                    hardened("other", 720896, selinux_level="s0:c1,c3"),
                ]
            ),
            ("", ("web, db", "s0:c1,c2")),
        ),
    ],
    "USN001": [
        fires(
            host(ALICE + b"bob:165535:65536\n", b"", **with_bob()),
            ("/etc/subuid:2", ("bob's 165535-231070", "alice's 100000-165535", "line 1")),
        ),
        # By what one reader takes it for, and with a uid for an owner; each line once.
        fires(
            host(b"", b"5:100000:9\n" + ALICE + b"bob:0x186a0:5\n", **with_bob()),
            ("/etc/subgid:2", ("alice's", "5's 100000-100008")),
            ("/etc/subgid:3", ("bob's 100000-100004",)),
        ),
    ],
    "USN002": [
        fires(
            host(WEB + b"alice:655359:65536\n", b"", allocations=[per_container("web", 589824)]),
            ("/etc/subuid:2", ("alice's 655359-720894", "589824-655359", "'web'")),
        ),
        # The block of single-uid is the container's, though it maps one id of it.
        fires(
            host(b"", b"alice:1000000001:1\n", allocations=[single("web", 1000000000)]),
            ("/etc/subgid:1", ("1000000000-1000009999", "'web'")),
        ),
        fires(
            host(allocations=[per_container("web", 589824), per_container("db", 589824 + 65535)]),
            ("/var/lib/usernsplan/ledger.sqlite3", ("'db' 655359-720894", "'web' 589824-655359")),
        ),
    ],
    "USN003": [
        fires(host(ALICE + ALICE, b""), ("/etc/subuid:2", ("alice's 100000-165535", "in line 1"))),
        # By name and by uid it is the same owner.
        fires(host(b"", ALICE + b"1000:165535:2\n"), ("/etc/subgid:2", ("165535-165536",))),
    ],
    "USN004": [
        fires(
            host(b"containers:100000:65536\n", **with_bob(uid=165535)),
            ("/etc/subuid:1", ("account bob (165535)", "100000-165535 of containers")),
        ),
        fires(
            host(
                b"usernsplan-web:1000000000:1\n",
                allocations=[single("web", 1000000000)],
                **with_bob(1000009999),
            ),
            ("/var/lib/usernsplan/ledger.sqlite3", ("bob (1000009999)", "of 'web'")),
        ),
    ],
    "USN005": [
        # The one id that is mapped is told of the line alone.
        fires(
            host(
                b"usernsplan-web:1000000000:1\n",
                allocations=[single("web", 1000000000)],
                **with_bob(gid=1000000000),
            ),
            ("/etc/subgid:1", ("bob (1000000000) is in 1000000000 of 'web'",)),
        ),
        # The filler of a shared map is nobody's, unlike the rest of it.
        fires(
            host(b"", FILLED_LINES, allocations=[FILLED], **with_bob(gid=589825)),
            ("/etc/subgid:2", ("group bob (589825) is in 589824-589825 of 'default'",)),
        ),
        fires(
            host(b"containers:100000:65536\n", **with_bob(gid=100000)),
            ("/etc/subgid:1", ("group bob (100000)", "of containers")),
        ),
    ],
    "USN006": [
        fires(
            host(b"alice:0:65534\n", b"alice:100000:65536\n", **with_bob()),
            (
                "/etc/subuid:1",
                (
                    "alice can become account root (0), 1 of the system's accounts, account bob (1001) through 0-65533",
                ),
            ),
        ),
        fires(
            host(b"alice:100000:65536\n", b"", **with_bob(uid=100500)),
            ("/etc/subuid:1", ("bob (100500)",)),
        ),
        fires(host(b"", b"alice:2:1\n"), ("/etc/subgid:1", ("1 of the system's groups",))),
        fires(
            host(b"bob:1000:1\n", b"", **with_bob()),
            ("/etc/subuid:1", ("bob can become account alice (1000) through",)),
        ),
        # A service that logs nobody in can become root all the same.
        fires(
            host(b"dockremap:0:1\n", b"", **REMAPPED),
            ("/etc/subuid:1", ("dockremap can become account root (0)",)),
        ),
        # A shared map that an account owns.
        fires(
            host(b"alice:2:1\n", b"", allocations=[shared("web", (0, 2, 1), owner="alice")]),
            ("/etc/subuid:1", ("1 of the system's accounts",)),
        ),
    ],
    "USN007": [
        fires(
            host(b"usernsplan-web:0:65536\n", allocations=[shared("web", (0, 0, 65536))]),
            ("/etc/subuid:1", ("usernsplan-web's 0-65535",)),
            ("/etc/subgid:1", ("usernsplan-web's 0-65535",)),
        ),
        fires(host(b"containers:0:9\n", b""), ("/etc/subuid:1", ("containers's 0-8",))),
    ],
    "USN008": [
        fires(
            host(b"alice:1000:65536\n", b""),
            ("/etc/subuid:1", ("alice's own uid 1000", "1000-66535")),
        ),
        fires(host(b"", b"alice:65536:9\nalice:999:2\n"), ("/etc/subgid:2", ("own gid 1000",))),
        fires(
            host(
                b"alice:2:1\nalice:3:65533\n",
                b"",
                allocations=[shared("web", (0, 2, 1), (3, 3, 65533), owner="alice")],
            ),
            ("/etc/subuid:2", ("own uid 1000", "3-65535")),
        ),
    ],
    "USN009": [
        fires(
            host(b"containers:61183:2\n", b""),
            ("/etc/subuid:1", ("61183-61184", "reserved for unassigned", "DynamicUser")),
        ),
        fires(host(b"", b"containers:2147418111:1\n"), ("/etc/subgid:1", ("foreign images",))),
        fires(
            ledger(
                host(ALICE, b""), reservations=(Reservation(IdRange(165535, 9), "the NFS server"),)
            ),
            ("/etc/subuid:1", ("the NFS server", "165535-165543")),
        ),
    ],
    "USN010": [
        fires(
            host(ALICE, b"", quarantined=[Quarantined("old", IdRange(165535, 65536), "")]),
            ("/etc/subuid:1", ("alice's 100000-165535", "165535-231070", "'old'")),
        ),
        # An account made there owns what the container left.
        fires(
            host(
                passwd=PASSWD + b"eve:x:589857:1000::/:/bin/sh\n",
                quarantined=[Quarantined("old", IdRange(589824, 65536), "")],
            ),
            ("/etc/passwd", ("the account eve (589857)", "589824-655359", "'old'")),
        ),
    ],
    "USN011": [
        fires(
            host(ALICE + b"containers:589824:65536\n", b"", nsswitch=b"\npasswd: files sss\n"),
            ("/etc/nsswitch.conf:2", ("sss", "1 lines", "/etc/subuid:2")),
        ),
        fires(
            host(b"", b"containers:199999:2\n", nsswitch=b"passwd: winbind\n"),
            ("/etc/nsswitch.conf:1", ("winbind",)),
        ),
    ],
    "USN012": [
        # Not whole in one owner's ids.
        fires(
            but(PER_CONTAINER, namespaces=(running((0, 565536, 65536)),)),
            ("/etc/subuid:1", ("usernsplan-web's 589824-655359", "4026532000", "4711")),
        ),
        # Whole in alice's, and made by bob.
        fires(
            but(host(ALICE, b"", **with_bob()), namespaces=(running((0, 100000, 10), owner=1001),)),
            ("/etc/subuid:1", ("alice's",)),
        ),
        # As gids alone, and without a process that could be named.
        fires(
            but(host(b"", ALICE), namespaces=(running((0, 165535, 2), pids=()),)),
            ("/etc/subgid:1", ("no process",)),
        ),
        # Each of the three that it has ids of; the middle one whole, the last one in part.
        fires(
            but(
                host(
                    b"".join(b"usernsplan-%c:%d:65536\n" % line for line in THREE.items()),
                    allocations=[per_container(chr(name), base) for name, base in THREE.items()],
                ),
                namespaces=(running((0, 560000, 200000)),),
            ),
            (
                "/etc/subuid:1",
                (
                    "usernsplan-a's 589824-655359",
                    "usernsplan-b's 655360-720895",
                    "usernsplan-c's 720896-786431",
                ),
            ),
        ),
        # Of three blocks the lines have one id each, and the ledger has the rest.
        fires(
            but(
                host(
                    b"".join(b"usernsplan-%c:%d:1\n" % line for line in THREE.items()),
                    allocations=[single(chr(name), base) for name, base in THREE.items()],
                ),
                namespaces=(running((0, 560000, 200000)),),
            ),
            (
                "/etc/subuid:1",
                (
                    "usernsplan-a's 589824-599823",
                    "usernsplan-b's 655360-665359",
                    "usernsplan-c's 720896-730895",
                ),
            ),
        ),
        # What the ledger holds, though its line is gone.
        fires(
            but(
                host(allocations=[per_container("web", 589824)]),
                namespaces=(running((0, 589823, 2)),),
            ),
            ("/var/lib/usernsplan/ledger.sqlite3", ("589824-655359",)),
        ),
    ],
    "USN013": [
        fires(host(b"alice:2147418112:65537\n", b""), ("/etc/subuid:1", ("2147418112-2147483648",)))
    ],
    "USN014": [
        fires(
            host(b"alice:4294901760:65536\n", b""), ("/etc/subuid:1", ("4294901760-4294967295",))
        ),
        fires(host(b"", b"alice:4294967295:1\n"), ("/etc/subgid:1", ("4294967295",))),
    ],
    "USN015": [
        fires(
            host(b"alice:600034465:65537\n", b""),
            ("/etc/subuid:1", ("600034465-600100001", "100000-600100000")),
        ),
        fires(
            host(b"", b"bob:200000:9\n" + ALICE + ALICE, login_defs=b"SUB_GID_MIN 100001\n"),
            ("/etc/subgid:2", ("alice's 100000-165535 and 1 more outside 100001-600100000",)),
        ),
        # Not the default pool: somebody chose it.
        fires(
            host(
                b"usernsplan-web:700055552:65536\n",
                b"",
                allocations=[per_container("web", 700055552)],
            ),
            ("/etc/subuid:1", ("usernsplan-web's 700055552-700121087",)),
        ),
    ],
    "USN016": [
        fires(
            but(
                host(b"alice:765536:65536\n"),
                namespaces=(running((0, 765536, 65536)), running((0, 755536, 20000), pids=())),
            ),
            ("/etc/subuid:1", ("alice", "root's")),
            ("/etc/subuid:1", ("alice", "root's")),
        ),
    ],
    "USN018": [
        fires(
            host(
                allocations=[shared(name, (0, 1000, 1), (1001, 1001, 9)) for name in ("web", "db")]
            ),
            ("/etc/passwd", ("alice", "1000", "'web', 'db'")),
            ("/etc/group", ("alice", "1000", "'web', 'db'")),
        ),
        fires(
            host(
                allocations=[FILLED],
                passwd=PASSWD + b"late:x:2:9::/:\n",
                group=GROUP + b"daemon:x:2:\n",
            ),
            ("/etc/passwd", ("late", "2", "'default'")),
        ),
    ],
    "USN020": [
        fires(host(ALICE + b"carla:165536:65536\n"), ("/etc/subuid:2", ("carla", "165536-231071"))),
        fires(host(b"", b"carla:165536:65536\n"), ("/etc/subgid:1", ("carla",))),
        fires(
            host(b"carl:589824:65536\n", allocations=[per_container("web", 589824, owner="carl")]),
            ("/etc/subuid:1", ("carl",)),
        ),
    ],
    "USN021": [
        fires(host(b"1005:165536:65536\n"), ("/etc/subuid:1", ("1005", "165536-231071"))),
        # With a zero in front it is not alice's number to any reader.
        fires(host(b"01000:165536:65536\n"), ("/etc/subuid:1", ("01000", "165536-231071"))),
    ],
    "USN022": [
        fires(host(ALICE, b""), ("/etc/subuid:1", ("alice", "/etc/subgid"))),
        fires(
            host(b"alice:5:0\n", b"1000:100000:65536\n"),
            ("/etc/subgid:1", ("alice", "/etc/subuid")),
        ),
    ],
    "USN023": [
        fires(
            host(ALICE, b"alice:165536:65536\n"),
            ("/etc/subuid:1", ("uids 100000-165535", "gids 165536-231071")),
        ),
        # The same in another order is another map to Docker.
        fires(
            host(b"alice:100000:9\nalice:200000:9\n", b"alice:200000:9\nalice:100000:9\n"),
            ("/etc/subuid:1", ("alice",)),
        ),
    ],
    "USN024": [
        fires(
            host(b"alice:100000:0\n"),
            ("/etc/subuid:1", ("count is 0",)),
            ("/etc/subgid:1", ("count is 0",)),
        ),
        fires(host(b"alice:100000:65535\n", b""), ("/etc/subuid:1", ("alice has 65535 ids",))),
        fires(
            host(
                b"usernsplan-web:589824:65534\n", allocations=[per_container("web", 589824, 65534)]
            ),
            (
                "/var/lib/usernsplan/ledger.sqlite3",
                ("'web' maps 65534 ids",),
            ),
        ),
        fires(
            host(
                b"alice:100000:65536\n",
                allocations=[
                    replace(per_container("web", 100000, 1), owner="alice", within="alice")
                ],
            ),
            (
                "/var/lib/usernsplan/ledger.sqlite3",
                ("'web' maps 1 id,",),
            ),
        ),
    ],
    "USN025": [
        fires(
            but(PER_CONTAINER, image=Accounts((User("big", 65536, 7),), (Group("huge", 70000),))),
            ("/var/lib/usernsplan/ledger.sqlite3", ("largest uid is 65536 (big)", "'web'")),
            ("/var/lib/usernsplan/ledger.sqlite3", ("largest gid is 70000 (huge)", "'web'")),
        ),
        # Rootless, alice herself is 0: 9 ids more are 0-9. Docker has 0-8. The group that only passwd names counts.
        fires(
            but(
                host(b"alice:100000:9\n", b"dockremap:100000:9\n", **REMAPPED),
                image=Accounts((User("ten", 10, 9),), ()),
            ),
            ("/etc/subuid:1", ("largest uid is 10 (ten)", "alice has 10 ids")),
            ("/etc/subgid:1", ("largest gid is 9 (of ten)", "dockremap has 9 ids")),
        ),
    ],
    "USN026": [
        fires(
            host(b"kubelet:100000:7208960\n"), ("/etc/subuid:1", (KUBELET, "multiples of 65536"))
        ),
        fires(
            host(b"kubelet:131072:7208961\n"), ("/etc/subuid:1", (KUBELET, "multiples of 65536"))
        ),
        fires(host(b"kubelet:0:7208960\n"), ("/etc/subuid:1", (KUBELET, "65536 or more"))),
        fires(
            host(b"", b"kubelet:131072:7208960\n"),
            ("/etc/subgid:1", (KUBELET, "there are 0 and 1")),
        ),
        fires(
            host(b"kubelet:131072:7208960\nkubelet:13107200:65536\n"),
            ("/etc/subuid:1", (KUBELET, "there are 2 and 2")),
        ),
        fires(
            host(b"kubelet:131072:7208960\n", b"kubelet:196608:7208960\n"),
            ("/etc/subuid:1", (KUBELET, "differ")),
        ),
        fires(with_kubelet(host(**KUBELETS)), ("/etc/subuid", ("its account has no line",))),
        # 589824 is 4.5 times 131072.
        fires(
            with_kubelet(
                host(b"kubelet:589824:14417920\n"),
                ids_per_pod=131072,
                place="/var/lib/kubelet/config.yaml:5",
            ),
            ("/etc/subuid:1", ("multiples of 131072", "/var/lib/kubelet/config.yaml:5")),
        ),
        # The first block is the host's, whatever the size of a block.
        fires(
            with_kubelet(host(b"kubelet:0:14417920\n"), ids_per_pod=131072),
            ("/etc/subuid:1", ("131072 or more",)),
        ),
    ],
    "USN027": [
        fires(host(b"kubelet:589824:7143424\n"), ("/etc/subuid:1", ("109 pods", "110"))),
        # 110 times 65536 ids are 55 times 131072.
        fires(
            with_kubelet(host(b"kubelet:655360:7208960\n"), ids_per_pod=131072),
            ("/etc/subuid:1", ("55 pods of 131072 ids", "110")),
        ),
        fires(
            with_kubelet(host(b"kubelet:655360:7208960\n"), max_pods=250),
            ("/etc/subuid:1", ("110 pods", "250")),
        ),
    ],
    "USN095": [
        fires(
            container(host(b"bob:100000:65536\n"), (0, 65536)),
            ("/etc/subuid:1", ("bob's 100000-165535", "uids", "0-65535")),
            ("/etc/subgid:1", ("bob's 100000-165535", "gids", "0-65535")),
        ),
        # Only the end of the line is missing.
        fires(
            container(host(b"bob:100000:65536\n", b""), (0, 165000)),
            ("/etc/subuid:1", ("do not exist here, 165000-165535",)),
        ),
        fires(
            container(
                host(WEB, b"", allocations=[per_container("web", 589824)]), (0, 600000), (655360, 9)
            ),
            ("/etc/subuid:1", ("'web' (589824-655359)", "600000-655359")),
            (LEDGER, ("'web' (589824-655359)", "gids", "600000-655359")),
        ),
    ],
    "USN096": [
        fires(
            host(KUBELETS_LINE),
            ("/etc/subuid:1", ("no account has the name kubelet", "65536-4294967295")),
        ),
        fires(host(b"", KUBELETS_LINE), ("/etc/subgid:1", ("no account has the name kubelet",))),
    ],
    "USN097": [
        fires(
            but(host(KUBELETS_LINE, **KUBELETS), kubelet=Kubelet(has_getsubids=False)),
            ("/etc/passwd", ("getsubids", "does not start")),
        ),
        fires(
            with_kubelet(host(**KUBELETS), has_getsubids=False),
            ("/etc/passwd", ("getsubids", "does not start")),
        ),
    ],
    "USN098": [
        fires(
            with_kubelet(host(WEB, allocations=[per_container("web", 589824)])),
            (LEDGER, ("no line of its own", "65536-4294967295", "'web'")),
        ),
    ],
    "USN099": [
        fires(
            with_kubelet(host(), problem="/var/lib/kubelet/config.yaml:2: no"),
            ("/var/lib/kubelet/config.yaml", ("config.yaml:2: no",)),
        ),
    ],
    "USN028": [
        *(
            fires(
                but(host(WEB + before, allocations=[ROOTS]), engines=frozenset({engine})),
                (f"/etc/subuid:{number}", (f"{engine} gives the ids of 'web'",)),
                (f"/etc/subgid:{number}", (f"{engine} gives the ids of 'web'",)),
            )
            for engine, before, number in (
                ("lxd", b"root:589824:65536\n", 2),
                ("incus", b"root:589824:65536\n", 2),
                # The first line of the file, and the lowest once useradd has sorted it.
                ("lxd", b"root:589824:65536\nroot:100000:65536\n", 2),
                ("lxd", b"root:1000000:65536\nroot:589824:65536\n", 3),
            )
        ),
    ],
    "USN087": [
        fires(
            but(host(ROOT_TWICE), engines=frozenset({"incus"})),
            ("/etc/subuid:2", ("second line of root", "after line 1", "no plain instance")),
            ("/etc/subgid:2", ("second line of root",)),
        ),
        # Without newuidmap it reads no lines yet.
        fires(
            but(host(ROOT_TWICE), engines=frozenset({"incus"}), unlisted=INSTANCES_OF_INCUS),
            ("/etc/subuid:2", ("second line of root",)),
            ("/etc/subgid:2", ("second line of root",)),
        ),
        fires(
            but(
                host(b"root:1000000:1000000000\nroot:1100000:65536\n", b"root:1:65536\n"),
                engines=frozenset({"incus"}),
            ),
            ("/etc/subuid:2", ("root:1100000:65536",)),
        ),
        # Incus reads the name in any case, and a line with a comment not at all.
        fires(
            but(
                host(b"ROOT:1000000:65536\nroot:2000000:65536 # x\nroot:3000000:65536\n", b""),
                engines=frozenset({"incus"}),
            ),
            ("/etc/subuid:3", ("after line 1",)),
        ),
    ],
    "USN088": [
        fires(
            but(host(b"0:1000000:1000000000\nroot:1:1\n", b""), engines=frozenset({"incus"})),
            ("/etc/subuid:1", ("incus does not read this line of 0",)),
        ),
    ],
    "USN089": [
        *(
            fires(
                but(
                    host(
                        WEB + SMALL,
                        WEB + SMALL + b"root:1000000:1000000000\n",
                        allocations=[replace(ROOTS, split_owners=("root",))],
                    ),
                    engines=frozenset({engine}),
                ),
                ("/etc/subuid", ("no line of 65536", f"{engine} starts no unprivileged instance")),
            )
            for engine in ("lxd", "incus")
        ),
        fires(
            but(host(b"0:1000000:1000000000\nroot:1:1\n"), engines=frozenset({"incus"})),
            ("/etc/subuid", ("no line of 65536",)),
            ("/etc/subgid", ("no line of 65536",)),
        ),
    ],
    "USN030": [
        fires(host(b" alice:100000:65536\n", b""), ("/etc/subuid:1", ("readers disagree",))),
        fires(host(b"", ALICE + b"alice:0100000:65536\r\n"), ("/etc/subgid:2", ("",))),
    ],
    "USN031": [
        fires(host(ALICE + b"carl:5\n", b""), ("/etc/subuid:2", ("owner:start:count",))),
        fires(host(b"", b"alice:0x186a0:65536\n"), ("/etc/subgid:1", ("readers disagree",))),
    ],
    "USN032": [
        fires(
            host(ALICE + b"bob:165536:65536", b""), ("/etc/subuid:2", ("not end with a newline",))
        )
    ],
    "USN033": [
        fires(but(host(), attributes=(regular(kind="symlink"),)), ("/etc/subuid", ("symlink",))),
        fires(
            but(host(), attributes=(regular(SUBGID, kind="a folder"),)),
            ("/etc/subgid", ("a folder",)),
        ),
    ],
    "USN034": [
        fires(but(host(), attributes=(regular(mode=0o646),)), ("/etc/subuid", ("everyone",))),
        fires(
            but(host(), attributes=(regular(SUBGID, mode=0o664, gid=50),)),
            ("/etc/subgid", ("the group 50",)),
        ),
        fires(but(host(), attributes=(regular(uid=1000),)), ("/etc/subuid", ("the account 1000",))),
    ],
    "USN035": [
        fires(
            but(host(), unread=(Unread(PASSWD_FILE, "is a folder", "put it back"),)),
            ("/etc/passwd", ("is a folder",)),
        )
    ],
    "USN040": [
        fires(host(daemon_json=b'{"a": 1,}'), ("/etc/docker/daemon.json:1:9", ("expected a key",))),
        fires(
            but(host(), unread=(Unread(DAEMON_JSON, "is not a regular file", ""),)),
            ("/etc/docker/daemon.json", ("is not a regular file",)),
        ),
    ],
    "USN041": [
        fires(host(daemon_json=REMAP), ("/etc/docker/daemon.json", ("dockremap", "/etc/passwd"))),
        fires(
            host(daemon_json=b'{"userns-remap": "1005:1000"}'),
            ("/etc/docker/daemon.json", ("1005",)),
        ),
    ],
    "USN042": [
        fires(
            host(daemon_json=REMAP, passwd=REMAPPED["passwd"]),
            ("/etc/docker/daemon.json", ("no group dockremap",)),
        ),
        fires(
            host(daemon_json=b'{"userns-remap": "alice:staff"}'),
            ("/etc/docker/daemon.json", ("no group staff",)),
        ),
        # A number alone means the group of the same number.
        fires(
            host(daemon_json=b'{"userns-remap": "997"}', **REMAPPED),
            ("/etc/docker/daemon.json", ("no gid 997",)),
        ),
        fires(
            host(daemon_json=b'{"userns-remap": "default"}', passwd=REMAPPED["passwd"]),
            ("/etc/docker/daemon.json", ("no group dockremap",)),
        ),
    ],
    "USN043": [
        fires(
            host(daemon_json=REMAP, **REMAPPED),
            ("/etc/docker/daemon.json", ("/etc/subuid has no line of dockremap",)),
            ("/etc/docker/daemon.json", ("/etc/subgid has no line of dockremap",)),
        ),
        # The groups' file is asked for the user as well.
        fires(
            host(ALICE, b"bin:100000:65536\n", daemon_json=b'{"userns-remap": "alice:bin"}'),
            ("/etc/docker/daemon.json", ("/etc/subgid has no line of alice",)),
        ),
    ],
    "USN044": [
        fires(
            host(daemon_json=b'{"userns-remap": ""}', allocations=[DEFAULT]),
            ("/etc/docker/daemon.json", ('is ""',)),
        ),
        fires(
            host(daemon_json=b'{"userns-remap": "root"}', allocations=[DEFAULT]),
            ("/etc/docker/daemon.json", ('"root"', "dockremap")),
        ),
    ],
    "USN045": [
        fires(
            but(host(daemon_json=b"{}", allocations=[DEFAULT]), engines=frozenset({"docker"})),
            ("/etc/docker/daemon.json", ("no userns-remap",)),
        ),
        fires(
            but(
                host(daemon_json=b'{"userns-remap": "alice"}', allocations=[DEFAULT]),
                engines=frozenset({"docker"}),
            ),
            ("/etc/docker/daemon.json", ('"alice"',)),
        ),
    ],
    "USN046": [
        fires(
            host(FILLED_LINES, b"", daemon_json=REMAP, allocations=[FILLED], **REMAPPED),
            ("/etc/subuid:1", ("3 lines of dockremap",)),
        )
    ],
    "USN050": [
        fires(
            host(b"", WEB, allocations=[per_container("web", 589824)]),
            ("/etc/subuid", ("'web'", "usernsplan-web:589824:65536")),
        ),
        fires(
            host(FILLED_LINES, b"dockremap:2:1\ndockremap:3:65533\n", allocations=[FILLED]),
            ("/etc/subgid", ("'default'", "dockremap:589824:2")),
        ),
        # What LXC has of root.
        fires(
            host(WEB, allocations=[replace(per_container("web", 589824), extra_owners=("root",))]),
            ("/etc/subuid", ("root:589824:65536",)),
            ("/etc/subgid", ("root:589824:65536",)),
        ),
    ],
    "USN051": [
        fires(
            host(SORTED_LINES, FILLED_LINES, allocations=[FILLED]),
            ("/etc/subuid:1", ("3 lines", "'default'")),
        )
    ],
    "USN052": [
        fires(
            host(
                WEB + b"usernsplan-web:765536:9\n", WEB, allocations=[per_container("web", 589824)]
            ),
            ("/etc/subuid:2", ("'usernsplan-web:765536:9'", "'web' was granted")),
        ),
        fires(
            host(WEB, WEB + WEB, allocations=[per_container("web", 589824)]),
            ("/etc/subgid:2", ("twice",)),
        ),
        # Changed: one that is not ours, and ours is not there.
        fires(
            host(b"usernsplan-web:589824:65535\n", WEB, allocations=[per_container("web", 589824)]),
            (
                "/etc/subuid:1",
                ("'usernsplan-web:589824:65535'", "granted 'usernsplan-web:589824:65536'"),
            ),
        ),
    ],
    "USN053": [
        fires(
            host(b"usernsplan-old:655360:65536\n", b""),
            ("/etc/subuid:1", ("'old'", "655360-720895")),
        ),
    ],
    "USN054": [
        fires(
            but(
                ledger(host(), interrupted=True),
                intent=Intent("usernsplan allocate web", Actor(0), LedgerChange(), ()),
            ),
            ("/var/lib/usernsplan/ledger.sqlite3", ("usernsplan allocate web",)),
        )
    ],
    "USN055": [
        fires(
            but(host(), unread=(Unread(LEDGER, "file is not a database", ""),)),
            ("/var/lib/usernsplan/ledger.sqlite3", ("not a database",)),
        )
    ],
    "USN056": [
        fires(
            but(host(), scanned=(FilesCarrying("old", IdRange(589824, 65536), 3, "/srv/old/a"),)),
            ("/var/lib/usernsplan/ledger.sqlite3", ("3 files", "'old'", "/srv/old/a")),
        )
    ],
    "USN057": [
        fires(
            but(host(), scanned=(FilesCarrying("old", IdRange(589824, 65536), 0, ""),)),
            ("/var/lib/usernsplan/ledger.sqlite3", ("'old'", "589824-655359")),
        )
    ],
    # 100000 up to 755359 is ten times 65536; one is alice's, and two fit before bob's and six behind.
    "USN060": [
        fires(
            host(
                ALICE + b"bob:300000:1\n",
                b"",
                login_defs=b"SUB_UID_MAX 755359\nSUB_GID_MAX 1000000000\n",
            ),
            ("/etc/subuid", ("8 more ranges", "SUB_UID_MIN")),
        )
    ],
    "USN061": [
        fires(host(b"bob:100000:600034466\n", b""), ("/etc/subuid", ("no range", "SUB_UID_MAX"))),
        fires(host(b"", ALICE, login_defs=b"SUB_GID_MAX 231070\n"), ("/etc/subgid", ("SUB_GID",))),
    ],
    "USN062": [
        fires(
            host(nsswitch=b"passwd: files\nsubid: sss\n", plugin="/usr/lib64/libsubid_sss.so"),
            ("/etc/nsswitch.conf:2", ("subid: sss", "/usr/lib64/libsubid_sss.so")),
        )
    ],
    "USN094": [
        fires(
            host(
                ALICE + b"carla:165536:65536\n5:231072:9\n",
                nsswitch=b"group: files\npasswd: files sss\n",
                root="/srv/image",
            ),
            ("/srv/image/etc/nsswitch.conf:2", ("sss", "cannot be known", "carla, 5")),
        )
    ],
    "USN093": [
        fires(
            host(nsswitch=b"passwd: files\nsubid: sss\n"),
            ("/etc/nsswitch.conf:2", ("subid: sss", "libsubid_sss.so is not installed")),
        )
    ],
    "USN063": [
        fires(
            host(login_defs=b"\nSUB_UID_MAX many\n"),
            ("/etc/login.defs:2", ("SUB_UID_MAX is 'many'",)),
        ),
        fires(
            host(login_defs=b"SUB_GID_MIN 9\nSUB_GID_MAX 8\n"),
            ("/etc/login.defs", ("SUB_GID_MIN 9", "SUB_GID_MAX 8")),
        ),
    ],
    "USN064": [
        fires(
            but(host(), locks=(Lock("/etc/subuid.lock", 4711, alive=False),)),
            ("/etc/subuid.lock", ("4711", "gone")),
        ),
        fires(
            but(host(), locks=(Lock("/etc/subgid.lock", 4711, alive=None),)),
            ("/etc/subgid.lock", ("cannot be checked",)),
        ),
    ],
    "USN065": [
        fires(
            but(host(), locks=(Lock("/etc/passwd.lock", None, None),)),
            ("/etc/passwd.lock", ("no pid",)),
        )
    ],
    "USN070": [
        fires(
            but(
                host(),
                runs=(
                    UnfinishedRun(
                        "20261122-053048", "usernsplan fix-volume /srv/web", ("/srv/web", "/srv/\n")
                    ),
                    UnfinishedRun("20261122-053049", "", ("/srv/db",), is_undoing=True),
                ),
            ),
            ("/var/lib/usernsplan/runs/20261122-053048", ("/srv/web, '/srv/\\n' was interrupted",)),
            (
                "/var/lib/usernsplan/runs/20261122-053049",
                ("undoing run 20261122-053049 on /srv/db",),
            ),
        )
    ],
    "USN071": [
        fires(
            but(
                host(),
                runs=(
                    UnfinishedRun(
                        "a", problem="/var/lib/usernsplan/runs/a/run.json is damaged", hint="x"
                    ),
                ),
            ),
            ("/var/lib/usernsplan/runs/a/run.json", ("is damaged",)),
        )
    ],
    "USN067": [
        fires(
            unmoved(VolumeSeen("/srv/web", (1589824, 1589824))),
            ("/srv/web", ("volume of 'web' is not moved yet", "former map")),
        ),
        fires(unmoved(), ("/srv/web", ("volume of 'web' is not moved yet",))),
    ],
    "USN072": [
        fires(
            seen(
                VolumeSeen(
                    "/srv/web", (0, 0), ((0, 0, 12), (589824, 589824, 27), (589824, 655359, 1))
                )
            ),
            (
                "/srv/web",
                (
                    "web's",
                    "top belongs to uid 0 and gid 0",
                    "12 of 40 entries in it belong to uid 0 and gid 0",
                ),
            ),
        ),
        # The ids of another container; one past the end of our own.
        fires(
            seen(
                VolumeSeen(
                    "/srv/web",
                    (589824, 589824),
                    ((589824, 655360, 1), (589824, 589824, 999)),
                    is_cut=True,
                )
            ),
            ("/srv/web", ("1 of the first 1000 entries in it belong to gid 655360 (db's)",)),
        ),
        fires(
            seen(VolumeSeen("/srv/web", why="a symlink leads to it")),
            ("/srv/web", ("a symlink leads to it",)),
        ),
        # Told to keep what the map lacks, and nothing in it is the container's.
        fires(
            seen(VolumeSeen("/srv/web", (0, 0), ((5, 5, 1),), keeps=True)),
            ("/srv/web", ("uid 0", "uid 5")),
        ),
    ],
    "USN073": [
        fires(
            seen(VolumeSeen("/srv/web", is_missing=True, why="there is nothing at this path")),
            ("/srv/web", ("recorded as web's", "nothing at this path")),
        )
    ],
    "USN074": [
        fires(
            but(
                seen(),
                misfits=(
                    Misfits(
                        "/srv/web", "web", 7, ("uid 0", "gid 5"), ("/srv/web/a\n", "/srv/web/b")
                    ),
                ),
            ),
            (
                "/srv/web",
                (
                    "7 files have ids that 'web' lacks (uid 0, gid 5)",
                    "'/srv/web/a\\n', /srv/web/b",
                ),
            ),
        )
    ],
    "USN174": [
        fires(
            mounted(is_standing=False),
            (MOUNT_AT, ("mount of /srv/web for 'web'", "nothing is mounted there")),
        ),
    ],
    "USN175": [
        fires(
            mounted(is_standing=False, hidden_by="/run"), (MOUNT_AT, ("the mount at /run hides",))
        ),
    ],
    "USN176": [
        fires(mounted(mapping=per_container("db", 655360).mapping), (MOUNT_AT, ("another map",))),
    ],
    "USN177": [fires(mounted(forgotten="no unit"), (MOUNT_AT, ("at boot: no unit",)))],
    "USN178": [fires(mounted(reached=("/srv is open",)), (MOUNT_AT, ("/srv is open",)))],
    "USN179": [
        fires(
            but(mounted(), strays=("/run/usernsplan/volumes/a/b",)),
            ("/run/usernsplan/volumes/a/b", ("the ledger has none",)),
        ),
    ],
    "USN075": [
        fires(
            but(RECORDED, userdb=recorded({WEB_USER: BOB_RECORD})),
            ("/etc/userdb/usernsplan-web.user", ("somebody else", "'web'")),
        ),
        fires(
            but(RECORDED, userdb=recorded({"589824.group": "bob.group"})),
            ("/etc/userdb/589824.group", ("'web'",)),
        ),
    ],
    "USN076": [
        fires(
            but(RECORDED, userdb=recorded(gone="589824.user")),
            ("/etc/userdb", ("'web'", "usernsplan-web")),
        ),
        fires(
            but(RECORDED, userdb=recorded({WEB_USER: b""})),
            ("/etc/userdb", ("'web'", "usernsplan-web")),
        ),
        fires(
            host(WEB, allocations=[replace(per_container("web", 589824), published="passwd")]),
            ("/etc/passwd", ("'web'", "usernsplan-web")),
        ),
    ],
    "USN077": [
        fires(
            host(WEB, allocations=[replace(per_container("web", 589824), published="none")]),
            ("/var/lib/usernsplan/ledger.sqlite3", ("web",)),
        ),
    ],
    "USN078": [
        fires(
            host(passwd=PASSWD + OUR_ACCOUNT), ("/etc/passwd", ("usernsplan-web", "from 589824"))
        ),
        fires(
            but(
                host(passwd=PASSWD + OUR_ACCOUNT),
                userdb=Userdb(frozenset({WEB_USER}), {WEB_USER: b"{}"}),
            ),
            ("/etc/userdb/usernsplan-web.user", ("usernsplan-web",)),
        ),
    ],
    "USN079": [
        fires(
            host(WEB, allocations=[per_container("web", 589824)], nsswitch=b"passwd: files\n"),
            ("/etc/nsswitch.conf:1", ("web",)),
        ),
    ],
    "USN036": [
        # Nobody has the gid 104 any more, and of three uids alice has one.
        fires(
            host(**lines(RENDERED), allocations=[RENDERED]),
            (
                LEDGER,
                ("'web' shows the gid 104, and no group has it",),
            ),
        ),
        fires(
            host(allocations=[passing("web", 589824, "u:999-1001")]),
            (LEDGER, ("'web' shows the uids 999 and 1001", "no account has them")),
        ),
        # The history knows what it was: another group has the number now, or none.
        fires(
            but(
                host(allocations=[RENDERED], group=GROUP + b"lpadmin:x:104:\n"),
                history=told("+ web passes gid 104 as 107 (group render)"),
            ),
            (LEDGER, ("gid 104 as 107, which was the group render, and is the group lpadmin now",)),
        ),
        fires(
            but(
                host(allocations=[replace(RENDERED, name="db")]),
                history=told("+ web passes gid 104 as 107 (group render)", "renamed web to db"),
            ),
            (LEDGER, ("'db' shows the gid 104, which was the group render, and no group has it",)),
        ),
    ],
    "USN037": [
        # Another allocation, somebody's line, a quarantined range.
        fires(
            host(allocations=[per_container("db", 655360), passing("web", 589824, "u:655361")]),
            (LEDGER, ("'web' shows the uid 655361 of the host", "'db' (655360-720895)")),
        ),
        fires(
            host(b"", ALICE, allocations=[passing("web", 589824, "g:100005-100006:7")]),
            (LEDGER, ("the gid 100005-100006", "alice (100000-165535 in /etc/subgid:1)")),
        ),
        fires(
            ledger(
                host(allocations=[passing("web", 589824, "b:700000")]),
                quarantined=(Quarantined("old", IdRange(655360, 65536), ""),),
            ),
            (LEDGER, ("the uid 700000", "'old' (655360-720895, quarantined)")),
            (LEDGER, ("the gid 700000", "'old' (655360-720895, quarantined)")),
        ),
        # A container whose ids are not one range.
        fires(
            host(
                allocations=[
                    replace(slice_of("alice", "db", 200000, 10, gids=300000), within=""),
                    passing("web", 589824, "g:300009"),
                ]
            ),
            (LEDGER, ("the gid 300009", "'db' (300000-300009)")),
        ),
    ],
    "USN038": [
        fires(
            host(allocations=[passing("web", 589824, "u:0:1000", "g:999")], group=DOCKERS),
            (LEDGER, ("'web' shows the uid 0, root: whoever has it is the superuser",)),
            (LEDGER, ("'web' shows the gid 999, docker: whoever has it starts containers",)),
        ),
        # A range, and a number that the host does not name.
        fires(
            host(allocations=[passing("web", 589824, "g:40-42")]),
            (LEDGER, ("the gid 42, shadow",)),
        ),
        # The account that has the lines can become what passes, but for itself.
        fires(
            host(**lines(OF_ALICE), allocations=[OF_ALICE], group=GROUP + b"render:x:104:\n"),
            (LEDGER, ("alice owns the lines of 'web'", "that pass: gid 104 as 107")),
        ),
    ],
    "USN059": [
        fires(
            host(b"alice:200000:65536\n", allocations=[slice_of("alice", "db", 265000, 536)]),
            ("/etc/subuid:1", ("65000 of the 65536 ids are in no slice", "200000-264999")),
        ),
    ],
    "USN039": [
        # The line is gone, or too short, or the gids are elsewhere, or root's daemon has it alone.
        fires(
            host(allocations=[slice_of("alice", "db", 200000, 65536)]),
            (
                LEDGER,
                (
                    "'db' is a slice of the lines of alice",
                    "subuid grants alice no 200000-265535",
                    "subgid grants alice no 200000-265535",
                ),
            ),
        ),
        fires(
            host(
                b"alice:200000:1000\n",
                b"alice:300000:65536\n",
                allocations=[slice_of("alice", "db", 200000, 1001, gids=300000)],
            ),
            (LEDGER, ("but subuid grants alice no 201000",)),
        ),
        # The ids are another's now: no command can grant them.
        fires(
            host(
                b"bob:200000:65536\n",
                allocations=[slice_of("alice", "db", 200000, 10)],
                **with_bob(),
            ),
            (LEDGER, ("no 200000-200009",)),
        ),
        # An id that passes needs a line of the account, but for its own.
        fires(
            host(
                b"alice:200000:65536\n",
                allocations=[
                    replace(passing("db", 200000, "u:1000", "u:44"), owner="alice", within="alice")
                ],
            ),
            (LEDGER, ("but subuid grants alice no 44",)),
        ),
    ],
    "USN066": [
        # The example of the rule: the ids after the hole are one off.
        fires(
            but(
                host(b"root:100000:65536\n"),
                unlisted=idmap("web", WHOLE, "g 0 100000 104", "g 104 104 1", "g 105 100106 65430"),
            ),
            (
                "/var/lib/lxc/web/config:4",
                ("container gid 105 the host id 100106: 1 id above",),
            ),
        ),
        # Two containers that share the lines are one finding; Proxmox VE's copy for LXC is none.
        fires(
            but(
                host(),
                unlisted=(
                    *idmap("1", WHOLE, "g 0 100000 44", "g 45 100045 65491", program="Proxmox VE"),
                    *idmap("1", WHOLE, "g 0 100000 44", "g 45 100045 65491"),
                ),
            ),
            ("/etc/pve/lxc/1.conf:3", ("no line maps the container gid 44, between",)),
        ),
    ],
    "USN083": [
        # The range is not split around the hole; the map that was meant is shown.
        fires(
            but(host(), unlisted=idmap("web", WHOLE, "g 0 100000 65536", "g 107 104 1")),
            (
                "/var/lib/lxc/web/config:3",
                ("LXC's container web does not start: '0 100000 65536' and '107 104 1' overlap",),
            ),
        ),
        fires(
            but(host(), unlisted=idmap("web", odd="b 0 100000 65536")),
            ("/var/lib/lxc/web/config:1", ("cannot read the line 'b 0 100000 65536'", "u and g")),
        ),
        fires(
            but(host(), unlisted=idmap("web", WHOLE)),
            ("/var/lib/lxc/web/config:1", ("a map of uids and none of gids",)),
        ),
        fires(
            but(host(), unlisted=idmap("7", "u 100000 0 65536", *ROOTED, program="Proxmox VE")),
            ("/etc/pve/lxc/7.conf:1", ("has the host id first",)),
        ),
    ],
    "USN080": [
        # An instance in ids that root has no line for, in alice's; and what a snap takes anyway.
        fires(
            but(host(b"alice:1000000:65536\n"), unlisted=PLAIN_INSTANCE),
            ("", ("Incus (instance c1) uses 1000000-1000999999", "alice's 1000000-1065535")),
        ),
        fires(
            but(host(b"alice:1000000:65536\n"), unlisted=INSTANCES_OF_SNAP),
            ("/snap/bin/lxd", ("LXD (all instances) uses", "alice's 1000000-1065535")),
        ),
        # By its name another machine's, in the whole range; as uids and as gids it is one.
        fires(
            but(PER_CONTAINER, unlisted=tree("deb", 589824)),
            (
                "/var/lib/machines/deb",
                (
                    "systemd-nspawn (machine deb) uses 589824-655359",
                    "usernsplan-web's 589824-655359",
                ),
            ),
        ),
        # In a line of an account, as gids alone.
        fires(
            but(host(b"", ALICE), unlisted=tree("deb", 131072)),
            ("/var/lib/machines/deb", ("131072-196607", "alice's 100000-165535")),
        ),
        # Its own, and the next one's: a file says how many ids there are.
        fires(
            but(WEB_AND_DB, unlisted=(settings("web", 589824, 131072),)),
            ("/etc/systemd/nspawn/web.nspawn:2", ("usernsplan-db's 655360-720895",)),
        ),
        # Docker's data root begins in the middle of another's line.
        fires(
            but(host(ALICE), unlisted=(data_root(100001),)),
            ("/var/lib/docker/100001.100001", ("alice's 100000-165535",)),
        ),
        # A mount over the end of an allocation; of the ids behind it nobody is the owner.
        fires(
            but(PER_CONTAINER, unlisted=(mount(655359, 2),)),
            ("/mnt", ("idmapped mount (/mnt) uses 655359-655360", "usernsplan-web's")),
        ),
    ],
    "USN081": [
        fires(
            host(b"usernsplan-web:524288:65536\n", allocations=[per_container("web", 524288)]),
            (LEDGER, ("usernsplan-web's 524288-589823", "584788-584792")),
        ),
        # What useradd gave to its seventh account, where snapd is installed.
        fires(
            but(host(b"alice:493216:65536\n"), unlisted=snapd()),
            ("/etc/subuid:1", ("alice's 493216-558751",)),
        ),
    ],
    "USN082": [
        # Two machines that do not run: as uids and as gids it is one fact.
        fires(
            but(host(), unlisted=tree("deb", 655360) + tree("web", 655360)),
            (
                "/var/lib/machines/web",
                (
                    "systemd-nspawn (machine web) has 655360-720895",
                    "overlaps with 655360-720895 of systemd-nspawn (machine deb)",
                ),
            ),
        ),
        # A part is enough, of one kind.
        fires(
            but(host(), unlisted=(*tree("deb", 655360), settings("web", 720895, 10))),
            ("/etc/systemd/nspawn/web.nspawn:2", ("has 720895-720904", "machine deb")),
        ),
        # The first slot of systemd is snapd's.
        fires(
            but(host(), unlisted=snapd() + tree("deb", 524288)),
            ("/var/lib/machines/deb", ("machine deb", "snapd")),
        ),
        fires(
            but(host(), unlisted=(data_root(655360), *tree("deb", 655360))),
            ("/var/lib/machines/deb", ("machine deb", "Docker (data root /var/lib/docker/655360")),
        ),
        # Instances of two programs, and a container of LXC in ids that the snap of LXD takes.
        fires(
            but(host(), unlisted=INSTANCES_OF_SNAP + INSTANCES_OF_INCUS),
            ("/usr/bin/incusd", ("Incus (all instances)", "LXD (all instances)")),
        ),
        fires(
            but(host(), unlisted=INSTANCES_OF_SNAP + maps("web", (1000000, 65536))),
            ("/var/lib/lxc/web/config:1", ("LXC (container web)", "LXD (all instances)")),
        ),
        # A hundred copies of one: each is told, and not all the pairs.
        fires(
            but(host(), unlisted=sum((tree(f"c{n:02}", 655360) for n in range(100)), ())),
            *((f"/var/lib/machines/c{n:02}", ("655360-720895",)) for n in range(1, 100)),
        ),
    ],
    "USN047": [
        # These are host ids, as root's Podman takes them.
        fires(
            but(host(ALICE), quadlets=(unit(uids=("0:100000:65536",)),)),
            ("/home/alice/web.container:2", ("its uids 100000-165535", "none of 0-65536")),
        ),
        fires(
            but(host(ALICE), quadlets=(unit(uids=("0:1:9",), gids=("0:65536:2",)),)),
            ("/home/alice/web.container:2", ("its gids 65537",)),
        ),
        # With @ it is a host id.
        fires(
            but(host(ALICE), quadlets=(unit(gids=("0:@165535:2",)),)),
            ("/home/alice/web.container:2", ("subuid grants alice no 165536",)),
        ),
    ],
    "USN048": [
        # Raw.idmap lets a gid pass, and root's lines lack it.
        fires(
            but(
                host(INSTANCES, INSTANCES),
                unlisted=instance(("uid", 0, 1000000, 65536), ("gid", 0, 1000000, 107))
                + instance(("gid", 107, 104, 1)),
            ),
            ("/etc/subgid", ("Incus's instance media", "subgid grants root no 104")),
        ),
        fires(
            but(host(INSTANCES, b"root:1000000:9\n"), unlisted=instance(("gid", 0, 1000000, 10))),
            ("/etc/subgid", ("no 1000009",)),
        ),
    ],
    "USN084": [
        fires(
            but(host(), unlisted=maps("web", (100000, 65536))),
            ("/var/lib/lxc/web/config:1", ("LXC's container web", "root", "no 100000-165535")),
        ),
        # Only gids are lacking, and only a part of them.
        fires(
            but(
                host(b"root:100000:65536\n", b"root:100000:65000\n"),
                unlisted=maps("web", (100000, 65536)),
            ),
            ("/var/lib/lxc/web/config:2", ("subgid", "no 165000-165535")),
        ),
        # An id of the host that is passed through needs its line, too.
        fires(
            but(host(b"root:100000:65536\n"), unlisted=maps("web", (100000, 65536), (1000, 1))),
            ("/var/lib/lxc/web/config:2", ("subuid grants root no 1000", "subgid")),
        ),
        # Two containers lack the same, and a third one something else.
        fires(
            but(
                host(),
                unlisted=(
                    *maps("a", (200000, 10)),
                    *maps("b", (200000, 10)),
                    *maps("c", (300000, 10)),
                ),
            ),
            ("/var/lib/lxc/a/config:1", ("the map of LXC's container a, LXC's container b:",)),
            ("/var/lib/lxc/c/config:1", ("map of LXC's container c:",)),
        ),
        # An account's container needs the account's lines; root's do not help.
        fires(
            but(
                host(b"root:100000:65536\nalice:200000:65536\n"),
                unlisted=maps("box", (100000, 65536), grantee="alice", path="/home/alice/{}"),
            ),
            ("/home/alice/box:1", ("grants alice no 100000-165535",)),
        ),
        fires(
            but(
                host(),
                unlisted=maps(
                    "105", (100000, 65536), program="Proxmox VE", path="/etc/pve/lxc/{}.conf"
                )
                + maps("105", (100000, 65536)),
            ),
            ("/etc/pve/lxc/105.conf:1", ("Proxmox VE's container 105:",)),
        ),
    ],
    "USN085": [
        fires(
            but(
                host(WEB + b"root:589824:65536\n", allocations=[per_container("web", 589824)]),
                unlisted=maps("db", (589824, 65536)) + maps("web", (589824, 65536)),
            ),
            (
                "/var/lib/lxc/db/config:1",
                ("LXC (container db) maps 589824-655359", "'web'"),
            ),
        ),
        # A part is enough, of one kind.
        fires(
            but(
                host(WEB, allocations=[per_container("web", 589824)]),
                unlisted=maps("db", (655359, 10), kinds=("gid",)),
            ),
            ("/var/lib/lxc/db/config:1", ("maps 655359-655368",)),
        ),
    ],
    "USN086": [
        fires(
            but(host(), homes=(Unread("/home/alice", "stale file handle", "mount it again"),)),
            ("/home/alice", ("stale file handle",)),
        ),
    ],
    # alice, uid 1000, has 100000-165535 by her uid, and bob, uid 1001, what follows.
    "USN090": [
        fires(
            host(b"carla:165536:65536\n", b"", login_defs=COMPUTED, **with_bob()),
            ("/etc/subuid:1", ("carla's 165536-231071", "bob", "uid 1001")),
        ),
        fires(
            host(b"", b"carla:100000:65537\n", login_defs=COMPUTED, **with_bob()),
            ("/etc/subgid:1", ("alice", "bob")),
        ),
        fires(
            host(login_defs=COMPUTED, allocations=[per_container("web", 131072)]),
            *[("/var/lib/usernsplan/ledger.sqlite3", ("alice", "100000-165535"))] * 2,
        ),
    ],
    # 558752-624287 is uid 1007's, and 624288-689823 uid 1008's.
    "USN091": [
        fires(
            host(WEB, login_defs=COMPUTED, allocations=[per_container("web", 589824)]),
            ("/etc/subuid:1", ("589824-655359", "uid 1007", "1 more")),
            ("/etc/subgid:1", ("uid 1007",)),
        ),
        # One id more than alice's own range, as usermod --add-subids of shadow 4.20.2 writes it.
        fires(
            host(b"alice:100000:65537\n", b"", login_defs=COMPUTED),
            ("/etc/subuid:1", ("alice's 100000-165536", "uid 1001")),
        ),
        # 1000 is alice's, and 1003 the last uid that is left.
        fires(
            host(
                b"", b"carla:100000:900000\n", login_defs=COMPUTED + b"UID_MAX 1003\n", **with_bob()
            ),
            ("/etc/subgid:1", ("uid 1002", "1 more")),
        ),
    ],
    "USN092": [
        fires(
            but(
                host(ALICE + WEB + b"containers:655360:9\n1005:700000:9\n", b"web:5:7\n"),
                owners_need_accounts=True,
            ),
            ("/etc/subuid:2", ("usernsplan-web, containers, 1005",)),
            ("/etc/subgid:1", ("web",)),
        ),
    ],
}

SILENT: dict[str, list[Facts]] = {
    **{f"USN20{number}": [host(), of_fleet()] for number in range(8)},
    "USN187": [
        filtered(FILTER),
        # A policy that asks for less: what it refuses is refused.
        filtered(FILTER, cap_add=["kill"]),
        replace(host(WEB, allocations=[per_container("web", 589824)]), filters={PLACE: b"{"}),
        replace(filtered(b"{"), filters={}),
    ],
    "USN183": [
        runs(CAPABILITIES, no_new_privs=True),
        runs(CAPABILITIES[:14]),
        # The rule for its policy says it.
        powerful(),
        but(runs(CAPABILITIES), namespaces=(running((0, 600000, 9)),)),
        but(runs(CAPABILITIES), statuses={}),
    ],
    "USN184": [
        runs(["kill"], hardened("web", 589824, cap_add=["kill"]), no_new_privs=True),
        runs([], hardened("web", 589824, new_privileges=True)),
        runs([], hardened("web", 589824, profile="strict"), no_new_privs=True, uids=OTHER),
        # Nothing is known of a kernel without filters.
        runs([], hardened("web", 589824), no_new_privs=True, seccomp=None),
        runs(CAPABILITIES),
    ],
    "USN185": [
        host(),
        host(daemon_json=b"{}"),
        host(daemon_json=b'{"userns-remap": "x", "no-new-privileges": true}'),
        host(daemon_json=b"{"),
    ],
    "USN186": [
        host(
            allocations=[
                hardened("web", 589824, selinux_level="s0:c1,c2"),
                hardened("db", 655360, selinux_level="s0:c1,c3"),
                hardened("other", 720896),
                hardened("another", 786432),
            ]
        ),
    ],
    # End to end, in two files, and a container of shared lines with another.
    "USN001": [
        host(ALICE + b"bob:165536:65536\n", **with_bob()),
        host(ALICE, b"bob:100000:65536\n", **with_bob()),
        host(b"alice:5:0\nbob:0:10\n"),
        host(
            b"usernsplan-a:2:1\nusernsplan-a:3:65533\nusernsplan-b:2:1\nusernsplan-b:3:65533\nalice:1000:1\n",
            allocations=[shared(name, (0, 2, 1), (3, 3, 65533)) for name in "ab"],
        ),
        host(b"1000:100000:9\n" + ALICE),
        # It is told that the owner has a line that is not his.
        host(
            WEB + b"usernsplan-web:765536:9\nalice:765536:9\n",
            allocations=[per_container("web", 589824)],
        ),
        # As LXD's package writes it.
        host(b"_lxd:100000:10000001\nroot:100000:10000001\n"),
        host(
            WEB + b"root:589824:65536\n",
            allocations=[replace(per_container("web", 589824), extra_owners=("root",))],
        ),
    ],
    "USN002": [
        host(WEB + b"alice:655360:65536\n", allocations=[per_container("web", 589824)]),
        host(WEB + WEB, allocations=[per_container("web", 589824)]),
        host(b"alice:3:9\n", allocations=[shared("web", (0, 2, 1), (3, 3, 65533))]),
        host(allocations=[single("a", 1000000000), single("b", 1000010000)]),
    ],
    "USN003": [
        host(ALICE + b"alice:165536:65536\n"),
        host(b"root:1:10\nroot:1:10\n"),
        host(b"alice:0x186a0:65536\n"),
        host(WEB + WEB, allocations=[per_container("web", 589824)]),
    ],
    "USN004": [
        # What LXD asks of root for a shared home, and LXC for an identity map.
        host(b"root:1000:1\n"),
        host(b"root:0:65536\n"),
        host(b"containers:100000:65536\n", **with_bob(uid=165536)),
        host(b"", b"containers:100000:65536\n", **with_bob(uid=100500)),
        host(ALICE, **with_bob(uid=100500)),
        host(b"usernsplan-web:3:65533\n", allocations=[shared("web", (3, 3, 65533))]),
    ],
    "USN005": [
        host(b"containers:100000:65536\n", b"", **with_bob(gid=100000)),
        host(b"containers:100000:65536\n", **with_bob(gid=99999)),
    ],
    "USN006": [
        host(ALICE, **with_bob()),
        host(b"alice:1000:1\n"),
        host(b"bob:1001:1\n", b"bob:1002:1\n", **with_bob(gid=1002)),
        host(b"root:0:65536\n"),
        host(b"containers:0:65536\n"),
        host(FILLED_LINES, allocations=[FILLED], **REMAPPED),
    ],
    "USN007": [
        host(b"containers:1:9\n"),
        host(b"root:0:9\n"),
        host(b"alice:0:9\n"),
        host(b"containers:0:0\n"),
    ],
    "USN008": [
        DOCKERS_OWN,
        host(b"alice:1000:65536\n", daemon_json=b'{"userns-remap": "alice"}'),
        host(b"alice:1001:9\nalice:0:1000\n"),
        host(FILLED_LINES, allocations=[FILLED], **REMAPPED),
    ],
    "USN009": [
        host(b"containers:65536:2147287040\n"),
        host(FILLED_LINES, allocations=[FILLED], **REMAPPED),
        host(b"root:1:9\n"),
        ledger(host(ALICE), reservations=(Reservation(IdRange(165536, 9), "the NFS server"),)),
    ],
    "USN010": [host(ALICE, quarantined=[Quarantined("old", IdRange(165536, 65536), "")])],
    "USN011": [
        host(b"containers:589824:65536\n", nsswitch=b"passwd: files systemd\n"),
        host(ALICE, nsswitch=b"passwd: files sss\n"),
        host(FILLED_LINES.replace(b"589824", b"100000"), allocations=[], nsswitch=b"passwd: sss\n"),
    ],
    "USN012": [
        but(PER_CONTAINER, namespaces=(running((0, 589824, 65536)), running((0, 655360, 65536)))),
        # Her own id is hers, whoever's range it lies in.
        but(
            host(b"containers:900:200\n" + ALICE),
            namespaces=(running((0, 1000, 1), (1, 100000, 65536), owner=1000),),
        ),
        # Two lines of hers, end to end.
        but(
            host(ALICE + b"alice:165536:9\n"),
            namespaces=(running((0, 1000, 1), (1, 165530, 10), owner=1000),),
        ),
        but(host(ALICE), namespaces=(running((100000, 100000, 9)),)),
    ],
    "USN013": [host(b"alice:2147418112:65536\n"), host(b"alice:4294901760:65536\n")],
    "USN014": [host(b"alice:4294901760:65535\n"), host(b"alice:-1:1\n")],
    "USN015": [
        host(b"alice:100000:600000001\n"),
        host(b"usernsplan-web:1000000000:1\n", allocations=[single("web", 1000000000)]),
        host(FILLED_LINES, allocations=[FILLED]),
        host(b"alice:5:9\nalice:2147483648:9\n"),
        # The line of Incus's package, and the default pool behind it.
        host(
            b"root:1000000:1000000000\nusernsplan-web:1001062400:65536\n",
            allocations=[per_container("web", 1001062400)],
        ),
        host(b"alice:700000000:9\n", login_defs=b"SUB_UID_MAX x\n"),
    ],
    "USN016": [
        # By herself, in her own container, by root in what is nobody's login, and by Docker, whom she was lent to.
        but(
            host(ALICE),
            namespaces=(
                running((0, 100000, 65536), owner=1000),
                running((0, 100000, 9), owner=100000),
            ),
        ),
        but(PER_CONTAINER, namespaces=(running((0, 589824, 65536)),)),
        but(
            host(ALICE, daemon_json=b'{"userns-remap": "alice"}'),
            namespaces=(running((0, 100000, 65536)),),
        ),
        but(host(ALICE), namespaces=(running((0, 0, 4294967295)),)),
    ],
    "USN018": [
        host(allocations=[shared("web", (0, 400, 1), (401, 401, 65135))]),
        host(allocations=[FILLED]),
        host(allocations=[shared("web", (0, 0, 65536))]),
        host(allocations=[per_container("web", 589824)], **with_bob(589824)),
    ],
    "USN020": [
        host(
            ALICE
            + b"root:1:1\ncontainers:200000:9\nkubelet:300000:9\ndockremap:400000:9\n1005:5:5\n"
            + WEB
        ),
        knowing(host(b"carla:165536:65536\n"), "carla"),
        host(b"carla:165536:65536\n", nsswitch=b"passwd: sss\n", root="/srv/image"),
    ],
    "USN021": [
        host(b"1000:165536:65536\n0:5:5\n"),
        knowing(host(b"1005:5:5\n"), "1005"),
        host(b"1005:5:5\n", nsswitch=b"passwd: sss\n", root="/srv/image"),
    ],
    "USN022": [
        host(ALICE, b"1000:165536:9\n"),
        host(b"carla:1:9\n", b""),
        host(WEB, b"", allocations=[per_container("web", 589824)]),
        host(
            b"alice:589824:65536\n", b"", allocations=[per_container("web", 589824, owner="alice")]
        ),
        host(b"alice:5:0\n", b""),
    ],
    "USN028": [
        host(b"usernsplan-web:589824:65536\nroot:589824:65536\n", allocations=[ROOTS]),
        but(
            host(b"root:100000:65536\n" + WEB + b"root:589824:65536\n", allocations=[ROOTS]),
            engines=frozenset({"lxd"}),
        ),
        but(PER_CONTAINER, engines=frozenset({"lxd"})),
        but(
            host(
                WEB + b"root:589824:32768\nroot:622592:32768\n",
                allocations=[replace(ROOTS, split_owners=("root",))],
            ),
            engines=frozenset({"lxd", "incus"}),
        ),
    ],
    "USN087": [
        host(ROOT_TWICE),
        but(host(ROOT_TWICE), engines=frozenset({"lxd"})),
        but(host(b"root:1000000:1000000000\nroot:1:65535\n"), engines=frozenset({"incus"})),
    ],
    "USN088": [
        but(host(b"0:1000000:1000000000\n"), engines=frozenset({"incus"})),
        but(host(b"0:1000000:65535\nroot:1:1\n"), engines=frozenset({"incus"})),
        host(b"0:1000000:1000000000\nroot:1:1\n"),
    ],
    "USN089": [
        # Nobody may want instances.
        but(host(ALICE), engines=frozenset({"incus", "lxd"})),
        host(WEB + SMALL, allocations=[replace(ROOTS, split_owners=("root",))]),
        but(host(b"root:1000000:1000000000\n"), engines=frozenset({"incus", "lxd"})),
        but(host(b"0:1000000:1000000000\n"), engines=frozenset({"incus", "lxd"})),
        but(host(ALICE), engines=frozenset({"lxd"}), unlisted=INSTANCES_OF_SNAP),
        Facts(replace(state(None, None), engines=frozenset({"incus"}))),
    ],
    "USN023": [
        host(ALICE),
        host(ALICE, b""),
        host(b"root:1:1\n", b"root:2:2\n"),
        host(b"carla:1:9\n", b"carla:2:9\n"),
    ],
    "USN024": [
        host(b"alice:100000:65535\nalice:200000:1\n"),
        host(b"usernsplan-web:1000000000:1\n", allocations=[single("web", 1000000000)]),
        host(b"containers:1:9\nkubelet:20:9\nroot:40:9\ncarla:50:9\n"),
        PER_CONTAINER,
    ],
    "USN025": [
        but(
            PER_CONTAINER, image=Accounts((User("nobody", 65534, 65534),), (Group("last", 65535),))
        ),
        but(host(b"alice:100000:9\n"), image=Accounts((User("nine", 9, 9),), ())),
        but(
            host(b"x:1:1\n", allocations=[single("web", 1000000000)]),
            image=Accounts((User("nine", 9, 9),), ()),
        ),
        but(PER_CONTAINER, image=Accounts()),
        PER_CONTAINER,
    ],
    "USN026": [
        host(b"kubelet:65536:65536\n"),
        host(ALICE),
        host(**KUBELETS),
        with_kubelet(host()),
        with_kubelet(host(b"kubelet:131072:14417920\n"), ids_per_pod=131072),
    ],
    "USN027": [
        host(b"kubelet:589824:7208960\n"),
        host(b"kubelet:589824:9\n"),
        host(ALICE),
        with_kubelet(host(b"kubelet:131072:14417920\n"), ids_per_pod=131072),
        with_kubelet(host(b"kubelet:589824:655360\n"), max_pods=10),
    ],
    "USN095": [
        host(b"bob:100000:65536\n"),
        container(host(b"bob:2000:1000\n"), (0, 65536)),
        container(PER_CONTAINER, (0, 65536), (589824, 65536)),
        # As the kernel shows the host's own namespace.
        container(host(b"bob:100000:65536\n"), (0, 4294967295)),
    ],
    "USN096": [
        host(KUBELETS_LINE, **KUBELETS),
        host(ALICE),
        in_directory(host(KUBELETS_LINE), User("kubelet", 995, 995)),
        but(host(KUBELETS_LINE), accounts=Accounts(unknown="sss")),
    ],
    "USN097": [
        host(KUBELETS_LINE, **KUBELETS),
        but(host(KUBELETS_LINE), kubelet=Kubelet(has_getsubids=False)),
        but(host(**KUBELETS), kubelet=Kubelet(has_getsubids=False)),
        with_kubelet(host(), has_getsubids=False),
    ],
    "USN098": [
        PER_CONTAINER,
        with_kubelet(host()),
        with_kubelet(
            host(WEB + KUBELETS_LINE, allocations=[per_container("web", 589824)], **KUBELETS)
        ),
        # Then it does not start at all: USN026.
        with_kubelet(host(WEB, allocations=[per_container("web", 589824)], **KUBELETS)),
    ],
    "USN099": [host(), with_kubelet(host(KUBELETS_LINE, **KUBELETS), ids_per_pod=131072)],
    "USN030": [host(b"# alice\n\n" + ALICE), host(b"carl:5\n")],
    "USN031": [host(b"# alice\n\n" + ALICE), host(b" alice:100000:65536\n")],
    "USN032": [host(ALICE), host(b"")],
    "USN033": [but(host(), attributes=(regular(),))],
    "USN034": [
        but(host(), attributes=(regular(mode=0o664), regular(SUBGID, mode=0o600))),
        but(host(root="/tmp/tree"), attributes=(regular(uid=1000),)),
        but(host(), attributes=(regular(kind="symlink", mode=0o777),)),
    ],
    "USN035": [
        but(
            host(),
            unread=(Unread(LEDGER, "", ""), Unread(DAEMON_JSON, "", ""), Unread(SUBUID, "", "")),
        )
    ],
    "USN040": [host(daemon_json=b""), host(daemon_json=b'{"debug": true}'), host()],
    "USN041": [
        DOCKER,
        host(daemon_json=b'{"userns-remap": "default"}'),
        host(daemon_json=b'{"userns-remap": "1000"}'),
        host(daemon_json=b'{"userns-remap": ""}'),
        knowing(host(daemon_json=b'{"userns-remap": "carla"}'), "carla"),
    ],
    "USN042": [
        DOCKER,
        host(daemon_json=b'{"userns-remap": "1000"}'),
        host(daemon_json=b'{"userns-remap": "dockremap:alice"}', passwd=REMAPPED["passwd"]),
        host(daemon_json=b'{"userns-remap": "1000:2"}'),
        host(daemon_json=REMAP),
    ],
    "USN043": [
        DOCKER,
        host(b"1000:100000:9\n", daemon_json=b'{"userns-remap": "alice"}'),
        host(daemon_json=b"{"),
    ],
    "USN044": [
        host(daemon_json=b'{"userns-remap": ""}'),
        host(daemon_json=REMAP, allocations=[DEFAULT]),
        host(daemon_json=b"{}", allocations=[DEFAULT]),
    ],
    "USN045": [
        but(
            host(daemon_json=REMAP, allocations=[DEFAULT], **REMAPPED),
            engines=frozenset({"docker"}),
        ),
        host(allocations=[DEFAULT]),
        but(host(daemon_json=b"{", allocations=[DEFAULT]), engines=frozenset({"docker"})),
        but(
            host(daemon_json=b"{}", allocations=[per_container("web", 589824)]),
            engines=frozenset({"docker"}),
        ),
    ],
    "USN046": [
        DOCKER,
        host(b"dockremap:1:1\ndockremap:5:9\n", daemon_json=REMAP, **REMAPPED),
        host(b"alice:200000:9\ndockremap:100000:9\nalice:5:9\n", daemon_json=REMAP, **REMAPPED),
        host(FILLED_LINES, allocations=[FILLED], **REMAPPED),
    ],
    "USN050": [
        PER_CONTAINER,
        host(SORTED_LINES, allocations=[FILLED]),
        host(b"usernsplan-web:589824:65535\n", allocations=[per_container("web", 589824)]),
        host(allocations=[shared("web", (0, 2, 1), (3, 3, 4294967290))]),
        ledger(host(allocations=[per_container("web", 589824)]), interrupted=True),
    ],
    "USN051": [
        host(FILLED_LINES + ALICE, allocations=[FILLED]),
        host(b"dockremap:2:1\n", allocations=[FILLED]),
    ],
    "USN052": [PER_CONTAINER, host(allocations=[FILLED]), host(SORTED_LINES, allocations=[FILLED])],
    "USN053": [
        PER_CONTAINER,
        host(ALICE),
        ledger(host(WEB), interrupted=True),
        but(host(WEB), unread=(Unread(LEDGER, "file is not a database", ""),)),
    ],
    "USN054": [PER_CONTAINER],
    "USN055": [but(host(), unread=(Unread(NSSWITCH, "", ""),))],
    "USN056": [but(host(), scanned=(FilesCarrying("old", IdRange(589824, 65536), 0, ""),)), host()],
    "USN057": [
        but(
            host(),
            scanned=(
                FilesCarrying("old", IdRange(589824, 65536), 0, ""),
                FilesCarrying("old", IdRange(655360, 65536), 1, "/a"),
            ),
        ),
        host(),
    ],
    "USN060": [
        host(b"", login_defs=b"SUB_UID_MAX 755359\nSUB_GID_MAX 755359\n"),
        host(b"bob:100000:600034466\n"),
        host(ALICE, login_defs=b"SUB_UID_COUNT 0\nSUB_UID_MAX 100001\nSUB_GID_COUNT 0\n"),
        Facts(state(None, None, login_defs=b"SUB_UID_MAX 165535\nSUB_GID_MAX 165535\n")),
    ],
    "USN061": [
        # Hundreds of digits, or a blank between them, are no range to useradd, whatever others make of it.
        host(b"alice:" + b"9" * 500 + b":9\nalice:10 0:600100001\n"),
        host(ALICE, login_defs=b"SUB_UID_MAX 231071\nSUB_GID_MAX 231071\n"),
        host(login_defs=b"SUB_UID_MAX x\n"),
    ],
    "USN062": [
        host(nsswitch=b"subid: files\n"),
        host(nsswitch=b"subid: files sss\n"),
        host(nsswitch=b"subid: sss\n"),
        host(),
    ],
    "USN094": [
        host(b"carla:165536:65536\n", root="/srv/image"),
        host(b"carla:165536:65536\n", nsswitch=b"passwd: sss\n"),
        host(ALICE + WEB, nsswitch=b"passwd: files sss\n", root="/srv/image"),
    ],
    "USN093": [
        host(nsswitch=b"subid: files\n"),
        host(nsswitch=b"subid: files sss\n"),
        host(nsswitch=b"subid: sss\n", plugin="/usr/lib64/libsubid_sss.so"),
        host(),
    ],
    "USN063": [host(login_defs=b"SUB_UID_MAX 0x7fffffff\nSUB_GID_MIN 9\nSUB_GID_MAX 9\n"), host()],
    "USN064": [
        but(
            host(),
            locks=(Lock("/etc/subuid.lock", 1, alive=True), Lock("/etc/subgid.lock", None, None)),
        )
    ],
    "USN065": [
        but(
            host(),
            locks=(
                Lock("/etc/subuid.lock", 1, alive=True),
                Lock("/etc/subgid.lock", 2, alive=False),
            ),
        )
    ],
    "USN070": [but(host(), runs=(UnfinishedRun("a", problem="damaged"),))],
    "USN071": [
        but(host(), runs=(UnfinishedRun("a", "usernsplan fix-volume /srv/web", ("/srv/web",)),))
    ],
    "USN067": [seen(VolumeSeen("/srv/web", (0, 0))), seen()],
    "USN072": [
        unmoved(VolumeSeen("/srv/web", (1589824, 1589824))),
        # Any id of the map, the first and the last.
        seen(VolumeSeen("/srv/web", (589824, 655359), ((655359, 589824, 3),))),
        seen(VolumeSeen("/srv/web", (589824, 589824))),
        seen(VolumeSeen("/srv/web", (0, 0), ((0, 0, 9), (589836, 589836, 1)), keeps=True)),
        seen(VolumeSeen("/srv/web", is_missing=True, why="there is nothing at this path")),
        # What was fixed before its container was released and allocated anew is no longer its.
        seen(VolumeSeen("/srv/web", (0, 0)), event=1),
        seen(VolumeSeen("/srv/other", (0, 0))),
        seen(),
    ],
    "USN073": [seen(VolumeSeen("/srv/web", (0, 0), ((0, 0, 1),)))],
    "USN074": [seen()],
    "USN174": [mounted(), mounted(is_standing=False, is_other=True), host()],
    "USN175": [mounted(), mounted(is_standing=False)],
    "USN176": [mounted(), mounted(mapping=None), mounted(is_standing=False)],
    "USN177": [mounted()],
    "USN178": [mounted()],
    "USN179": [mounted()],
    "USN075": [
        RECORDED,
        # Empty, as after a power cut, or ours with other ids: usernsplan may replace it.
        but(RECORDED, userdb=recorded({WEB_USER: b""})),
        but(RECORDED, userdb=recorded({WEB_USER: OTHER_IDS})),
        # Beside ours.
        but(RECORDED, userdb=recorded({"bob.user": BOB_RECORD})),
        ledger(but(RECORDED, userdb=recorded({WEB_USER: BOB_RECORD})), interrupted=True),
    ],
    "USN076": [
        RECORDED,
        but(RECORDED, userdb=recorded({WEB_USER: BOB_RECORD})),
        ledger(but(RECORDED, userdb=Userdb()), interrupted=True),
        host(
            WEB,
            passwd=PASSWD + OUR_ACCOUNT,
            allocations=[replace(per_container("web", 589824), published="passwd")],
        ),
    ],
    "USN077": [
        RECORDED,
        host(allocations=[replace(per_container("web", 589824, 65535), published="none")]),
        host(allocations=[single("web", 1000000000)]),
        # Its owner is an account.
        host(allocations=[per_container("web", 589824, owner="alice")]),
    ],
    "USN078": [
        RECORDED,
        # The owner of a pool, as the remedy of USN150 makes it.
        host(
            passwd=PASSWD
            + OUR_ACCOUNT.replace(b"usernsplan-web:x:589824:589824", b"containers:x:997:996"),
            allocations=[per_container("containers", 589824, 6553600, owner="containers")],
        ),
        host(
            WEB,
            passwd=PASSWD + OUR_ACCOUNT,
            allocations=[replace(per_container("web", 589824), published="passwd")],
        ),
        # An account that can log in is not one of ours, whatever it says.
        host(passwd=PASSWD + OUR_ACCOUNT.replace(b"nologin", b"bash")),
    ],
    "USN079": [
        RECORDED,
        host(WEB, allocations=[per_container("web", 589824)], nsswitch=b"passwd: files systemd\n"),
        host(nsswitch=b"passwd: files\n"),
    ],
    "USN036": [
        host(allocations=[passing("web", 589824, "b:1000", "u:0")]),
        # The same group has another number in the container, and a renamed container is the same.
        but(
            host(allocations=[RENDERED], group=GROUP + b"render:x:104:\n"),
            history=told("+ web passes gid 104 as 107 (group render)"),
        ),
        # What a directory service knows is not known here.
        Facts(state(nsswitch=b"passwd: files sss\n", root="/x", allocations=[RENDERED])),
    ],
    "USN037": [
        host(
            **lines(passing("web", 589824, "u:1000", "g:104:107", owners=["root"])),
            allocations=[passing("web", 589824, "u:1000", "g:104:107", owners=["root"])],
        ),
        # Two containers show the same id on purpose, and root grants it by hand.
        host(
            b"root:1000:1\nroot:104:1\n",
            allocations=[passing("a", 589824, "b:1000"), passing("b", 655360, "b:1000")],
        ),
        # Another kind of id.
        host(b"", ALICE, allocations=[passing("web", 589824, "u:100005")]),
    ],
    "USN038": [
        host(allocations=[passing("web", 589824, "u:1000", "g:104:107")]),
        # The group has another number here.
        host(allocations=[passing("web", 589824, "g:42")], group=GROUP + b"shadow:x:15:\n"),
        host(**lines(ALICES_OWN), allocations=[ALICES_OWN]),
        # A slice has no lines of its own.
        host(b"alice:200000:65536\n", allocations=[replace(OF_ALICE, in_files=False)]),
    ],
    "USN059": [
        host(b"alice:200000:65536\n"),
        # A piece of 65536 is left; and nothing can be said of lines that are gone.
        host(b"alice:200000:65546\n", allocations=[slice_of("alice", "db", 265536, 10)]),
        host(allocations=[slice_of("alice", "db", 200000, 10)]),
    ],
    "USN039": [
        host(b"alice:200000:65536\n", allocations=[slice_of("alice", "db", 200000, 65536)]),
        # Two adjacent lines, one of them by the uid; the own id needs none.
        host(
            b"alice:200000:10\n1000:200010:65526\n",
            allocations=[replace(passing("db", 200000, "b:1000"), owner="alice", within="alice")],
        ),
        host(b"root:1000000:1000000000\n", allocations=[slice_of("root", "db", 1000000, 65536)]),
        # Lines that come from a directory service are not known.
        host(
            nsswitch=b"subid: sss\n", plugin="x", allocations=[slice_of("alice", "db", 200000, 9)]
        ),
    ],
    "USN066": [
        but(host(), unlisted=idmap("web", WHOLE, *ROOTED)),
        # Only one kind has a hole.
        but(
            host(),
            unlisted=idmap("web", WHOLE, "g 0 100000 104", "g 104 104 1", "g 105 100105 65431"),
        ),
        # What does not start at all is USN083's.
        but(host(), unlisted=idmap("web", WHOLE, "g 0 100000 44", "g 45 100046 65536", odd="b")),
        # Another node's, and a map whose container ids are unknown.
        but(host(), unlisted=maps("web", (100000, 1000), (101001, 1000))),
    ],
    "USN083": [
        but(host(), unlisted=idmap("web", WHOLE, *ROOTED)),
        # Container root may be a login, and even host root.
        but(host(), unlisted=idmap("web", "u 0 1000 1", "u 1 100000 65536", *ROOTED)),
        but(host(), unlisted=idmap("web", "u 0 0 1", "u 1 100000 65536", *ROOTED)),
        # A map whose container ids are unknown.
        but(host(), unlisted=maps("web", (100000, 10), kinds=("uid",))),
    ],
    "USN080": [
        # Plain instances, and one with ids of ours.
        but(host(b"root:1000000:1000000000\n"), unlisted=PLAIN_INSTANCE),
        but(host(b"_incus:1000000:1000000000\nroot:1000000:1000000000\n"), unlisted=PLAIN_INSTANCE),
        but(
            host(
                WEB + b"root:589824:32768\nroot:622592:32768\n",
                allocations=[replace(ROOTS, split_owners=("root",))],
            ),
            unlisted=tuple(one._replace(start=589824, stop=655360) for one in PLAIN_INSTANCE),
        ),
        but(host(b"root:1000000:1000000000\n"), unlisted=INSTANCES_OF_SNAP),
        # The machine of the allocation's name, however many ids it has.
        but(PER_CONTAINER, unlisted=tree("web", 589824)),
        but(host(allocations=[single("web", 589824)]), unlisted=tree("web", 589824)),
        but(PER_CONTAINER, unlisted=(settings("web", 589824, 65536),)),
        # A tree that fix-volume gave to it.
        but(
            ledger(PER_CONTAINER, volumes=(Volume("/var/lib/machines/deb", "web", "shift"),)),
            unlisted=tree("deb", 589824),
        ),
        # Ids that nobody has.
        but(WEB_AND_DB, unlisted=tree("deb", 720896)),
        # Docker's own, by the line of its remap user, by a former one's, and in the ledger.
        but(DOCKER, unlisted=(data_root(589824),)),
        but(
            host(b"alice:100000:1000\nbob:101000:65536\n", **with_bob()),
            unlisted=(data_root(100000),),
        ),
        but(host(allocations=[DEFAULT]), unlisted=(data_root(589824),)),
        # A mount of a container, in ids of an allocation, of an account, and of both.
        but(PER_CONTAINER, unlisted=(mount(589824, 65536),)),
        but(host(ALICE), unlisted=(mount(100000, 10),)),
        but(
            host(b"root:100000:10000001\n" + WEB, allocations=[ROOTS]), unlisted=(mount(589830, 1),)
        ),
        # LXC's: its config is no line, and what it needs of lines is USN084.
        but(host(b"root:100000:65536\n" + ALICE), unlisted=maps("c", (100000, 65536))),
        but(host(b"root:100000:65536\n"), unlisted=maps("c", (100000, 65536))),
        but(
            host(b"root:589824:65536\n" + WEB, allocations=[ROOTS]),
            unlisted=maps("c", (589824, 65536)),
        ),
        # Where snapd is, its slot; that is USN081.
        but(host(b"alice:524288:65536\n"), unlisted=snapd()),
    ],
    "USN081": [
        # What useradd gives to its seventh account, where there is no snapd.
        host(b"alice:493216:65536\n"),
        # LXD's line of everything, of root and of its account.
        but(host(b"root:100000:10000001\nlxd:100000:10000001\n"), unlisted=snapd()),
        but(host(b"alice:458752:65536\nbob:589824:65536\n", **with_bob()), unlisted=snapd()),
    ],
    "USN082": [
        but(host(), unlisted=tree("deb", 655360) + tree("web", 720896)),
        # The tree and the settings of one machine, two names of one tree, and a copy for one run.
        but(host(), unlisted=(*tree("deb", 655360), settings("deb", 655360, 65536))),
        but(
            host(),
            unlisted=tree("deb", 655360)
            + tuple(one._replace(container="link") for one in tree("deb", 655360)),
        ),
        but(host(), unlisted=tree("deb", 655360) + tree(".#machine.deb1a2b", 655360)),
        # What containers of LXC share as a rule, also in the files of Proxmox VE; and instances.
        but(
            host(b"root:100000:65536\n"),
            unlisted=maps("web", (100000, 65536))
            + maps("db", (100000, 65536))
            + maps("101", (100000, 65536), program="Proxmox VE"),
        ),
        but(
            host(b"root:1000000:1000000000\n"),
            unlisted=PLAIN_INSTANCE + tuple(one._replace(container="c2") for one in PLAIN_INSTANCE),
        ),
        but(host(), unlisted=INSTANCES_OF_INCUS + PLAIN_INSTANCE),
        # Two that run the container of one allocation; a mount of a machine's own ids.
        but(
            ledger(PER_CONTAINER, volumes=(Volume("/var/lib/machines/deb", "web", "shift"),)),
            unlisted=tree("deb", 589824) + maps("web", (589824, 65536)),
        ),
        but(host(), unlisted=(*tree("deb", 655360), mount(655360, 65536))),
    ],
    "USN047": [
        but(host(ALICE), quadlets=(unit(uids=("0:1:65536",)),)),
        # The account itself, and a host id of its line.
        but(host(ALICE), quadlets=(unit(uids=("1000:0:1", "0:@100000:1000")),)),
        but(host(ALICE), quadlets=(unit(uids=("0:@1000:1",)),)),
        # Root's Podman needs no line; and forms that are not known here.
        but(host(), quadlets=(unit("", uids=("0:700000:9",)),)),
        but(host(ALICE), quadlets=(unit(uids=("+5:7:1",)), unit(userns="auto"))),
    ],
    "USN048": [
        but(
            host(INSTANCES, INSTANCES + b"root:104:1\n"),
            unlisted=instance(("uid", 0, 1000000, 65536), ("gid", 107, 104, 1)),
        ),
        # It had these ids before, or is on another machine.
        but(
            host(INSTANCES),
            unlisted=tuple(one._replace(is_next=False) for one in instance(("uid", 0, 7, 1))),
        ),
        # Without newuidmap no line is asked for.
        but(
            host(b""),
            unlisted=(
                Unlisted(
                    "Incus", "all instances", "uid", 1000000, 1001000000, path="/usr/bin/incusd"
                ),
                *instance(("uid", 0, 1000000, 65536)),
            ),
        ),
        # LXC writes a map with host root itself.
        but(host(INSTANCES), unlisted=instance(("uid", 0, 0, 65536))),
    ],
    "USN084": [
        but(host(b"root:100000:65536\n"), unlisted=maps("web", (100000, 65536))),
        # Lines that usernsplan gave root.
        but(
            host(
                WEB + b"root:589824:65536\n",
                allocations=[replace(per_container("web", 589824), extra_owners=("root",))],
            ),
            unlisted=maps("web", (589824, 65536)),
        ),
        # newuidmap joins adjacent lines.
        but(
            host(b"root:100000:32768\nroot:132768:32768\n"),
            unlisted=maps("web", (100000, 65536)),
        ),
        # The account's line may name its uid, and everybody may map their own id.
        but(
            host(b"1000:200000:65536\n"),
            unlisted=maps("box", (200000, 65536), (1000, 1), grantee="alice"),
        ),
        # LXC writes a map with host root itself.
        but(host(), unlisted=maps("web", (0, 65536))),
        # What another node's container needs are the lines there.
        but(
            host(),
            unlisted=maps(
                "7", (100000, 9), program="Proxmox VE", path="/etc/pve/nodes/b/lxc/{}.conf"
            ),
        ),
        # A program that needs no line.
        but(host(), unlisted=maps("deb", (100000, 9), program="systemd-nspawn", grantee="")),
        # Lines that come from a directory service are not known.
        but(
            host(nsswitch=b"subid: sss\n", plugin="/usr/lib64/libsubid_sss.so"),
            unlisted=maps("web", (100000, 65536)),
        ),
    ],
    "USN085": [
        # Two containers of others that share a map: that is LXC's default.
        but(
            host(b"root:100000:65536\n"),
            unlisted=maps("a", (100000, 65536)) + maps("b", (100000, 65536)),
        ),
        but(
            host(WEB, allocations=[per_container("web", 589824)]),
            unlisted=maps("web", (589824, 65536)) + maps("db", (655360, 65536)),
        ),
        # An account's own container in the account's own range.
        but(
            host(b"alice:589824:65536\n", allocations=[per_container("a", 589824, owner="alice")]),
            unlisted=maps("box", (589824, 65536), grantee="alice"),
        ),
        # Ids of the host that a shared map has, and that another container passes through.
        but(
            host(FILLED_LINES, allocations=[FILLED], **REMAPPED),
            unlisted=maps("db", (1000, 1)),
        ),
        # What an account wrote but has no line for is nobody's.
        but(
            host(WEB, allocations=[per_container("web", 589824)]),
            unlisted=maps("box", (589824, 65536), grantee="alice"),
        ),
    ],
    "USN086": [host()],
    "USN090": [
        host(b"carla:165536:65536\n", login_defs=COMPUTED),
        host(ALICE, login_defs=COMPUTED),
        host(b"1000:100000:65536\n", login_defs=COMPUTED),
        host(b"alice:600000:65536\n", login_defs=COMPUTED),
        host(b"carla:165536:65536\n", **with_bob()),
        host(b"", b"carla:100000:9\n", login_defs=COMPUTED.replace(b"GID_DET", b"GID_IND")),
    ],
    "USN091": [
        host(WEB, allocations=[per_container("web", 589824)]),
        host(ALICE, login_defs=COMPUTED),
        host(WEB, login_defs=COMPUTED + b"UID_MAX 1006\n"),
        host(b"carla:600113152:65536\ndora:99999:1\n", login_defs=COMPUTED),
        # Only accounts that exist: USN090.
        host(b"carla:165536:65536\n", login_defs=COMPUTED, **with_bob()),
    ],
    "USN092": [
        host(WEB),
        but(host(ALICE + b"1000:9:9\n01000:99:9\n +1000:5:5\n"), owners_need_accounts=True),
        # Published, as an account or as a record that nss-systemd shows.
        but(host(WEB, passwd=PASSWD + OUR_ACCOUNT), owners_need_accounts=True),
        but(
            host(
                WEB,
                allocations=[per_container("web", 589824)],
                nsswitch=b"passwd: files systemd\n",
            ),
            owners_need_accounts=True,
        ),
        but(knowing(host(b"carla:589824:65536\n"), "carla"), owners_need_accounts=True),
    ],
}


def found(facts: Facts, code: str) -> list[Finding]:
    return list(check(facts, {code}))


def numbered(cases: dict[str, list[Case]] | dict[str, list[Facts]]) -> Iterable[object]:
    return [
        pytest.param(code, case, id=f"{code}-{n}")
        for code, listed in cases.items()
        for n, case in enumerate(listed)
    ]


@pytest.mark.parametrize(("code", "case"), numbered(FIRING))
def test_a_rule_fires_and_says_where_and_what(code: str, case: Case) -> None:
    findings = found(case.facts, code)
    assert [finding.place for finding in findings] == [place for place, _ in case.seen]
    for finding, (_, words) in zip(findings, case.seen, strict=True):
        assert (finding.code, finding.severity) == (code, RULES[code].severity)
        assert [word for word in words if word not in finding.message] == [], finding.message


@pytest.mark.parametrize(("code", "facts"), numbered(SILENT))
def test_a_rule_is_silent_where_it_has_to_be(code: str, facts: Facts) -> None:
    assert found(facts, code) == []


@pytest.mark.parametrize(
    ("code", "number", "hint"),
    [
        ("USN024", 2, "with its volumes: usernsplan remap web --size 65536"),
        ("USN024", 3, "with its volumes: usernsplan remap web --size 65536"),
        ("USN036", 0, "'usernsplan remap web' with other --pass changes its map"),
        ("USN039", 0, "usermod --add-subuids 200000-265535 --add-subgids 200000-265535 alice"),
        ("USN039", 2, "200000-265535 is bob's: 'usernsplan release db'"),
        ("USN066", 0, "if it is a slip, write g 105 100105 65431"),
        ("USN083", 0, "write g 0 100000 107, g 107 104 1, g 108 100108 65428"),
        ("USN083", 3, "write u 0 100000 65536"),
    ],
)
def test_the_remedy_of_a_pass_a_slice_and_a_map(code: str, number: int, hint: str) -> None:
    assert hint in found(FIRING[code][number].facts, code)[0].hint


def test_every_rule_has_a_host_on_which_it_fires_and_one_on_which_it_does_not() -> None:
    assert set(FIRING) == set(SILENT) == set(RULES)
    assert all(FIRING.values())
    assert all(SILENT.values())


def test_a_host_in_order_has_no_finding_at_all() -> None:
    assert check(CLEAN) == ()


def test_docker_s_remap_user_may_have_its_own_id_in_its_range() -> None:
    assert [finding for finding in check(DOCKERS_OWN) if finding.severity == "error"] == []


def test_errors_come_first_and_then_the_codes_in_order() -> None:
    findings = check(
        host(b"carla:61183:2\nalice:4294901760:65536\n", b"", login_defs=b"SUB_UID_MAX x\n")
    )
    told = [(finding.severity, finding.code) for finding in findings]
    ranks = {"error": 0, "warning": 1, "info": 2}
    assert told == sorted(told, key=lambda one: (ranks[one[0]], one[1]))
    assert {severity for severity, _ in told} == {"error", "warning"}


def test_what_each_reader_makes_of_a_line_is_a_table() -> None:
    [finding] = found(host(b"alice:0x186a0:65536\n", b""), "USN031")
    rows = {row[0]: row[1] for row in finding.table}
    # hexadecimal: C reads it, Go makes 0 of it or fails, and Incus wants decimal digits.
    assert rows == {
        "shadow": "alice:100000:65536",
        "shadow 4.20": "alice:100000:65536",
        "docker": "alice:0:65536",
        "podman": "-",
        "incus": "-",
    }


def test_the_table_knows_which_owners_have_an_account() -> None:
    [finding] = found(host(b"carla:0x186a0:65536\n", b""), "USN031")
    rows = {row[0]: row[1:] for row in finding.table}
    assert rows["shadow"][0] == "carla:100000:65536"
    assert rows["shadow 4.20"] == ("-", "ignored: no account has the owner as its name or uid")


def test_places_are_shown_below_the_root() -> None:
    [finding] = found(host(b"bob:0x1:5\n", b"", root="./tree"), "USN031")
    assert finding.place == "./tree/etc/subuid:1"


def test_root_gets_the_ids_of_a_container_in_lines_that_incus_leaves_alone() -> None:
    lacking = but(host(), unlisted=maps("web", (200000, 65536)))
    for engines, first in ((frozenset({"incus"}), "200000-232767"), (frozenset(), "200000-265535")):
        [one] = found(but(lacking, engines=engines), "USN084")
        words = one.hint.split()
        assert words[words.index("--add-subuids") + 1] == first


OWN = Path("/usr/share/containers/seccomp.json")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize(
    "said",
    [
        {"profile": "seed"},
        {"profile": "seed", "arch": "all", "allow_families": ["vsock"], "allow_syscalls": ["kcmp"]},
        {"profile": "strict", "deny_syscalls": ["getcwd", "socket"], "cap_add": ["sys_admin"]},
        {"profile": "default", "deny_syscalls": ["all"], "allow_syscalls": ["read", "socket"]},
        {"profile": "default", "deny_syscalls": ["semop", "connect"], "deny_families": ["3"]},
    ],
    ids=str,
)
def test_what_was_rendered_is_the_filter_of_its_policy(said: dict[str, Any], machine: str) -> None:
    policy = effective(policy_of(said))
    bases = [NO_FILTER]
    if OWN.exists():
        bases.append(
            base_of(
                OWN.read_bytes(),
                str(OWN),
                capabilities=policy.capabilities,
                machine=machine,
                kernel="6.18",
            )
        )
    for base in bases:
        raw = json.dumps(laid_over(policy, base, machine=machine)).encode()
        web = replace(per_container("web", 589824), policy=policy_of(said))
        facts = replace(host(WEB, allocations=[web]), filters={PLACE: raw}, machine=machine)
        assert found(facts, "USN187") == []
