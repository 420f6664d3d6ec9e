"""Every rule of the audit: hosts on which it fires, worked out by hand, and close ones on which it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.unit.states import GROUP, PASSWD, REMAPPED, per_container, shared, state
from usernsplan import Allocation, HostState, IdMap, IdRange, Mapping
from usernsplan.audit import RULES, Facts, check
from usernsplan.audit.base import Attributes, FilesCarrying, Lock, Misfits, Unread
from usernsplan.formats.accounts import Accounts, Group, User
from usernsplan.layout import DAEMON_JSON, LEDGER, NSSWITCH, SUBGID, SUBUID
from usernsplan.layout import PASSWD as PASSWD_FILE
from usernsplan.model import (
    Actor,
    Intent,
    LedgerChange,
    Namespace,
    Quarantined,
    Reservation,
    UnfinishedRun,
    Volume,
    VolumeSeen,
)
from usernsplan.strategies import SingleUid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.model import Finding

ALICE = b"alice:100000:65536\n"
WEB = b"usernsplan-web:524288:65536\n"
BOB = b"bob:x:1001:1001::/home/bob:/bin/sh\n"
BOBS = b"bob:x:1001:\n"
REMAP = b'{"userns-remap": "dockremap"}\n'
# The shared strategy as Docker gets it: root is 2, ids 1 and 2 are a filler, the rest is itself.
FILLED = shared(
    "default",
    (0, 2, 1),
    (1, 524288, 2),
    (3, 3, 65533),
    owner="dockremap",
    reserved_range=IdRange(524288, 2),
)
FILLED_LINES = b"dockremap:2:1\ndockremap:524288:2\ndockremap:3:65533\n"
SORTED_LINES = b"dockremap:2:1\ndockremap:3:65533\ndockremap:524288:2\n"


def host(subuid: bytes = b"", subgid: bytes | None = None, **words: object) -> Facts:
    """Facts of a host whose two files are alike unless subgid is given."""
    return Facts(state(subuid, subuid if subgid is None else subgid, **words))  # type: ignore[arg-type]


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


def ledger(facts: Facts, **changed: object) -> Facts:
    return but(facts, ledger=replace(facts.state.ledger, **changed))  # type: ignore[arg-type]


def seen(*volumes: VolumeSeen, event: int = 3) -> Facts:
    """A host on which /srv/web was fixed for web, whose ids are 524288-589823, and what is seen of it now."""
    allocations = [
        replace(per_container("web", 524288), event=2),
        per_container("db", 589824),
    ]
    facts = host(WEB + b"usernsplan-db:589824:65536\n", allocations=allocations)
    return but(
        ledger(facts, volumes=(Volume("/srv/web", "web", "own", "", "0:0", event),)),
        volumes=volumes,
    )


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


class Case(NamedTuple):
    """Facts, and what a rule has to see in them: the place, and words of the message."""

    facts: Facts
    seen: tuple[tuple[str, tuple[str, ...]], ...]


def fires(facts: Facts, *seen: tuple[str, tuple[str, ...]]) -> Case:
    return Case(facts, seen)


PER_CONTAINER = host(WEB, allocations=[per_container("web", 524288)])
ROOTS = replace(per_container("web", 524288), extra_owners=("root",))
DOCKER = host(b"dockremap:524288:65536\n", **REMAPPED, daemon_json=REMAP)
DEFAULT = per_container("default", 524288, owner="dockremap")
KUBELET = "the kubelet refuses its line"
CLEAN = but(
    host(
        ALICE + WEB + b"dockremap:589824:65536\ncontainers:655360:6553600\n",
        **REMAPPED,
        daemon_json=REMAP,
        allocations=[
            per_container("web", 524288),
            per_container("default", 589824, owner="dockremap"),
            per_container("containers", 655360, 6553600, owner="containers"),
        ],
        nsswitch=b"passwd: files systemd\nsubid: files\n",
        login_defs=b"SUB_UID_MIN 100000\nSUB_UID_MAX 600100000\n",
    ),
    engines=frozenset({"docker", "podman"}),
    attributes=(regular(SUBUID), regular(SUBGID)),
    locks=(Lock("/etc/subuid.lock", 1, alive=True),),
    # Docker's, a rootless one of alice's with one of hers inside, and a sandbox that maps nobody else.
    namespaces=(
        running((0, 589824, 65536)),
        running((0, 1000, 1), (1, 100000, 65536), owner=1000),
        running((0, 100000, 1000), owner=100000),
        running((0, 0, 4294967295)),
        replace(running((0, 1, 1)), mapping=None),
    ),
)

FIRING: dict[str, list[Case]] = {
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
            host(WEB + b"alice:589823:65536\n", b"", allocations=[per_container("web", 524288)]),
            ("/etc/subuid:2", ("alice's 589823-655358", "524288-589823", "'web'")),
        ),
        # The block of single-uid is the container's, though it maps one id of it.
        fires(
            host(b"", b"alice:1000000001:1\n", allocations=[single("web", 1000000000)]),
            ("/etc/subgid:1", ("1000000000-1000009999", "'web'")),
        ),
        fires(
            host(allocations=[per_container("web", 524288), per_container("db", 524288 + 65535)]),
            ("/var/lib/usernsplan/ledger.sqlite3", ("'db' 589823-655358", "'web' 524288-589823")),
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
            host(b"", FILLED_LINES, allocations=[FILLED], **with_bob(gid=524289)),
            ("/etc/subgid:2", ("group bob (524289) is in 524288-524289 of 'default'",)),
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
                passwd=PASSWD + b"eve:x:524321:1000::/:/bin/sh\n",
                quarantined=[Quarantined("old", IdRange(524288, 65536), "")],
            ),
            ("/etc/passwd", ("the account eve (524321)", "524288-589823", "'old'")),
        ),
    ],
    "USN011": [
        fires(
            host(ALICE + b"containers:524288:65536\n", b"", nsswitch=b"\npasswd: files sss\n"),
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
            but(PER_CONTAINER, namespaces=(running((0, 500000, 65536)),)),
            ("/etc/subuid:1", ("usernsplan-web's 524288-589823", "4026532000", "4711")),
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
        # What the ledger holds, though its line is gone.
        fires(
            but(
                host(allocations=[per_container("web", 524288)]),
                namespaces=(running((0, 524287, 2)),),
            ),
            ("/var/lib/usernsplan/ledger.sqlite3", ("524288-589823",)),
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
    ],
    "USN016": [
        fires(
            but(
                host(b"alice:700000:65536\n"),
                namespaces=(running((0, 700000, 65536)), running((0, 690000, 20000), pids=())),
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
            host(b"carl:524288:65536\n", allocations=[per_container("web", 524288, owner="carl")]),
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
                b"usernsplan-web:524288:65534\n", allocations=[per_container("web", 524288, 65534)]
            ),
            ("/var/lib/usernsplan/ledger.sqlite3", ("'web' maps 65534 ids",)),
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
    ],
    "USN027": [fires(host(b"kubelet:524288:7143424\n"), ("/etc/subuid:1", ("109 pods", "110")))],
    "USN028": [
        fires(
            but(
                host(b"usernsplan-web:524288:65536\nroot:524288:65536\n", allocations=[ROOTS]),
                engines=frozenset({"lxd"}),
            ),
            ("/etc/subuid", ("root has no range of its own", "lxd")),
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
            host(b"", WEB, allocations=[per_container("web", 524288)]),
            ("/etc/subuid", ("'web'", "usernsplan-web:524288:65536")),
        ),
        fires(
            host(FILLED_LINES, b"dockremap:2:1\ndockremap:3:65533\n", allocations=[FILLED]),
            ("/etc/subgid", ("'default'", "dockremap:524288:2")),
        ),
        # What LXC has of root.
        fires(
            host(WEB, allocations=[replace(per_container("web", 524288), extra_owners=("root",))]),
            ("/etc/subuid", ("root:524288:65536",)),
            ("/etc/subgid", ("root:524288:65536",)),
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
                WEB + b"usernsplan-web:700000:9\n", WEB, allocations=[per_container("web", 524288)]
            ),
            ("/etc/subuid:2", ("'usernsplan-web:700000:9'", "'web' was granted")),
        ),
        fires(
            host(WEB, WEB + WEB, allocations=[per_container("web", 524288)]),
            ("/etc/subgid:2", ("twice",)),
        ),
        # Changed: one that is not ours, and ours is not there.
        fires(
            host(b"usernsplan-web:524288:65535\n", WEB, allocations=[per_container("web", 524288)]),
            (
                "/etc/subuid:1",
                ("'usernsplan-web:524288:65535'", "granted 'usernsplan-web:524288:65536'"),
            ),
        ),
    ],
    "USN053": [
        fires(
            host(b"usernsplan-old:589824:65536\n", b""),
            ("/etc/subuid:1", ("'old'", "589824-655359")),
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
            but(host(), scanned=(FilesCarrying("old", IdRange(524288, 65536), 3, "/srv/old/a"),)),
            ("/var/lib/usernsplan/ledger.sqlite3", ("3 files", "'old'", "/srv/old/a")),
        )
    ],
    "USN057": [
        fires(
            but(host(), scanned=(FilesCarrying("old", IdRange(524288, 65536), 0, ""),)),
            ("/var/lib/usernsplan/ledger.sqlite3", ("'old'", "524288-589823")),
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
            host(nsswitch=b"passwd: files\nsubid: sss\n"), ("/etc/nsswitch.conf:2", ("subid: sss",))
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
    "USN072": [
        fires(
            seen(
                VolumeSeen(
                    "/srv/web", (0, 0), ((0, 0, 12), (524288, 524288, 27), (524288, 589823, 1))
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
                    (524288, 524288),
                    ((524288, 589824, 1), (524288, 524288, 999)),
                    is_cut=True,
                )
            ),
            ("/srv/web", ("1 of the first 1000 entries in it belong to gid 589824 (db's)",)),
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
}

SILENT: dict[str, list[Facts]] = {
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
            WEB + b"usernsplan-web:700000:9\nalice:700000:9\n",
            allocations=[per_container("web", 524288)],
        ),
        # As LXD's package writes it.
        host(b"_lxd:100000:10000001\nroot:100000:10000001\n"),
        host(
            WEB + b"root:524288:65536\n",
            allocations=[replace(per_container("web", 524288), extra_owners=("root",))],
        ),
    ],
    "USN002": [
        host(WEB + b"alice:589824:65536\n", allocations=[per_container("web", 524288)]),
        host(WEB + WEB, allocations=[per_container("web", 524288)]),
        host(b"alice:3:9\n", allocations=[shared("web", (0, 2, 1), (3, 3, 65533))]),
        host(allocations=[single("a", 1000000000), single("b", 1000010000)]),
    ],
    "USN003": [
        host(ALICE + b"alice:165536:65536\n"),
        host(b"root:1:10\nroot:1:10\n"),
        host(b"alice:0x186a0:65536\n"),
        host(WEB + WEB, allocations=[per_container("web", 524288)]),
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
        host(b"containers:524288:65536\n", nsswitch=b"passwd: files systemd\n"),
        host(ALICE, nsswitch=b"passwd: files sss\n"),
        host(FILLED_LINES.replace(b"524288", b"100000"), allocations=[], nsswitch=b"passwd: sss\n"),
    ],
    "USN012": [
        but(PER_CONTAINER, namespaces=(running((0, 524288, 65536)), running((0, 589824, 65536)))),
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
        but(PER_CONTAINER, namespaces=(running((0, 524288, 65536)),)),
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
        host(allocations=[per_container("web", 524288)], **with_bob(524288)),
    ],
    "USN020": [
        host(
            ALICE
            + b"root:1:1\ncontainers:200000:9\nkubelet:300000:9\ndockremap:400000:9\n1005:5:5\n"
            + WEB
        ),
        but(host(b"carla:165536:65536\n"), elsewhere=frozenset({"carla"})),
    ],
    "USN021": [
        host(b"1000:165536:65536\n0:5:5\n"),
        but(host(b"1005:5:5\n"), elsewhere=frozenset({"1005"})),
    ],
    "USN022": [
        host(ALICE, b"1000:165536:9\n"),
        host(b"carla:1:9\n", b""),
        host(WEB, b"", allocations=[per_container("web", 524288)]),
        host(
            b"alice:524288:65536\n", b"", allocations=[per_container("web", 524288, owner="alice")]
        ),
        host(b"alice:5:0\n", b""),
    ],
    "USN028": [
        host(b"usernsplan-web:524288:65536\nroot:524288:65536\n", allocations=[ROOTS]),
        but(
            host(b"root:100000:65536\n" + WEB + b"root:524288:65536\n", allocations=[ROOTS]),
            engines=frozenset({"lxd"}),
        ),
        but(PER_CONTAINER, engines=frozenset({"lxd"})),
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
    "USN026": [host(b"kubelet:65536:65536\n"), host(ALICE)],
    "USN027": [host(b"kubelet:524288:7208960\n"), host(b"kubelet:524288:9\n"), host(ALICE)],
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
        but(host(daemon_json=b'{"userns-remap": "carla"}'), elsewhere=frozenset({"carla"})),
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
            host(daemon_json=b"{}", allocations=[per_container("web", 524288)]),
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
        host(b"usernsplan-web:524288:65535\n", allocations=[per_container("web", 524288)]),
        host(allocations=[shared("web", (0, 2, 1), (3, 3, 4294967290))]),
        ledger(host(allocations=[per_container("web", 524288)]), interrupted=True),
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
    "USN056": [but(host(), scanned=(FilesCarrying("old", IdRange(524288, 65536), 0, ""),)), host()],
    "USN057": [
        but(
            host(),
            scanned=(
                FilesCarrying("old", IdRange(524288, 65536), 0, ""),
                FilesCarrying("old", IdRange(589824, 65536), 1, "/a"),
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
    "USN062": [host(nsswitch=b"subid: files\n"), host(nsswitch=b"subid: files sss\n"), host()],
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
    "USN072": [
        # Any id of the map, the first and the last.
        seen(VolumeSeen("/srv/web", (524288, 589823), ((589823, 524288, 3),))),
        seen(VolumeSeen("/srv/web", (524288, 524288))),
        seen(VolumeSeen("/srv/web", (0, 0), ((0, 0, 9), (524300, 524300, 1)), keeps=True)),
        seen(VolumeSeen("/srv/web", is_missing=True, why="there is nothing at this path")),
        # What was fixed before its container was released and allocated anew is no longer its.
        seen(VolumeSeen("/srv/web", (0, 0)), event=1),
        seen(VolumeSeen("/srv/other", (0, 0))),
        seen(),
    ],
    "USN073": [seen(VolumeSeen("/srv/web", (0, 0), ((0, 0, 1),)))],
    "USN074": [seen()],
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


def test_every_rule_has_a_host_on_which_it_fires_and_one_on_which_it_does_not() -> None:
    assert set(FIRING) == set(SILENT) == set(RULES)
    assert all(FIRING.values())
    assert all(SILENT.values())


def test_a_host_in_order_has_no_finding_at_all() -> None:
    assert check(CLEAN) == ()


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
        "docker": "alice:0:65536",
        "podman": "-",
        "incus": "-",
    }


def test_places_are_shown_below_the_root() -> None:
    [finding] = found(host(b"bob:0x1:5\n", b"", root="./tree"), "USN031")
    assert finding.place == "./tree/etc/subuid:1"
