"""What allocate grants besides, because an engine wants it: root's lines for LXC, pools, and Docker daemons' users.

Most of it needs no engine and works below a root of its own; shadow's tools judge the kubelet's line.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.command import files_of, here, missing, needs_root
from tests.engines.throwaway import require
from tests.examples import examples
from tests.host import struck as crash
from tests.unit.states import asked, carried_out, files, state
from usernsplan import (
    AllocateRequest,
    HostState,
    PerContainer,
    ReleaseRequest,
    Shared,
    SingleUid,
    make_plan,
    make_release,
)
from usernsplan.engines import ENGINES
from usernsplan.errors import UsernsplanError
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.model import PoolOptions

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engines.throwaway import ThrowawayHost
    from usernsplan import Allocation, IdRange

PER_CONTAINER = ("allocate", "--strategy", "per-container")
OTHERS = "# people\nalice:100000:65536\nroot:200000:65536\nbroken"


def put(root: Path, name: str, text: str = "") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def ours(root: Path) -> list[str]:
    """The lines of subuid, which subgid has too; those of others aside."""
    found = [(root / f"etc/{name}").read_text().splitlines() for name in ("subuid", "subgid")]
    assert found[0] == found[1]
    return [line for line in found[0] if line not in OTHERS.splitlines()]


def told(root: Path, *words: str) -> dict[str, dict[str, Any]]:
    """Allocate or list, and every allocation that is told of, by its name."""
    document = json.loads(here(*words, "--json", "--root", root)[0])
    return {entry["name"]: entry for entry in document["allocations"]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host on which others have lines, and on which no account has to be made for Docker or the kubelet."""
    accounts = ("dockremap", "kubelet")
    put(tmp_path, "etc/subuid", OTHERS)
    put(tmp_path, "etc/subgid", OTHERS)
    passwd = "".join(
        f"{name}:x:{n}:{n}::/:/usr/sbin/nologin\n" for n, name in enumerate(accounts, 900)
    )
    put(tmp_path, "etc/passwd", f"root:x:0:0::/root:/bin/sh\n{passwd}")
    put(
        tmp_path,
        "etc/group",
        "root:x:0:\n" + "".join(f"{name}:x:{n}:\n" for n, name in enumerate(accounts, 900)),
    )
    return tmp_path


# Root's lines.


def test_lxc_has_root_granted_the_lines_of_new_containers(root: Path) -> None:
    found = told(root, *PER_CONTAINER, "box", "jar", "--engine", "lxc")
    assert Counter(ours(root)) == Counter(
        [
            *("usernsplan-box:589824:65536", "root:589824:32768", "root:622592:32768"),
            *("usernsplan-jar:655360:65536", "root:655360:32768", "root:688128:32768"),
        ]
    )
    assert [found[name]["extra_owners"] for name in ("box", "jar")] == [["root"], ["root"]]
    assert [entry["owner"] for entry in told(root, "list").values()] == [
        "usernsplan-box",
        "usernsplan-jar",
    ]
    assert "usernsplan-box, and root" in here("show", "box", "--root", root)[0]


def test_lxc_has_root_granted_the_lines_of_a_container_that_stands_and_only_once(
    root: Path,
) -> None:
    here(*PER_CONTAINER, "box", "jar", "--root", root)
    before = ours(root)
    assert told(root, "list")["box"]["extra_owners"] == []
    assert told(root, *PER_CONTAINER, "box", "--engine", "lxc")["box"]["extra_owners"] == ["root"]
    assert ours(root) == [*before, "root:589824:32768", "root:622592:32768"]
    touched = files_of(root)
    for more in (
        ["--engine", "lxc"],
        ["--engine", "lxc", "--engine", "lxc"],
        ["--engine", "podman"],
        [],
    ):
        out, _ = here(*PER_CONTAINER, "box", *more, "--json", "--root", root)
        assert json.loads(out)["changed"] is False
        assert json.loads(out)["allocations"][0]["extra_owners"] == ["root"]
        assert files_of(root) == touched
    assert told(root, "list")["jar"]["extra_owners"] == []


def test_what_was_granted_together_is_released_together(root: Path) -> None:
    here(*PER_CONTAINER, "jar", "--root", root)
    here(*PER_CONTAINER, "box", "jar", "--engine", "lxc", "--root", root)
    here("release", "box", "--root", root)
    assert Counter(ours(root)) == Counter(
        ["usernsplan-jar:589824:65536", "root:589824:32768", "root:622592:32768"]
    )
    here("release", "jar", "--root", root)
    for name in ("subuid", "subgid"):
        # A last line without its end got one.
        assert (root / "etc" / name).read_text() == f"{OTHERS}\n"
    # Allocated anew it is nobody else's.
    here("release", "--forget", "box", "jar", "--root", root)
    assert told(root, *PER_CONTAINER, "box", "--engine", "podman")["box"]["extra_owners"] == []


def test_a_line_of_roots_that_was_lost_is_put_back(root: Path) -> None:
    here(*PER_CONTAINER, "box", "--engine", "lxc", "--root", root)
    whole = ours(root)
    put(
        root,
        "etc/subuid",
        (root / "etc/subuid").read_text().replace("root:589824:32768\nroot:622592:32768\n", ""),
    )
    _, said = here(*PER_CONTAINER, "box", "--root", root)
    assert "USN109" in said
    assert Counter(ours(root)) == Counter(whole)


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (("shared",), ["2:1", "3:65533"]),
        (("shared", "--dockerroot", "7", "--max", "1000"), ["7:1", "8:993"]),
        (("shared", "--identity"), ["0:65535"]),
        (("single-uid",), ["1000000000:1"]),
        (("single-uid", "--block", "1", "--container-id", "33"), ["1000000000:1"]),
    ],
    ids=["shared", "shared and smaller", "identity", "single-uid", "single-uid, another id"],
)
def test_lxc_wants_the_lines_of_every_strategy(
    root: Path, words: tuple[str, ...], lines: list[str]
) -> None:
    command = ("allocate", "--strategy", *words, "box", "--engine", "lxc")
    here(*command, "--root", root)
    assert ours(root) == [
        f"{owner}:{line}" for owner in ("usernsplan-box", "root") for line in lines
    ]
    touched = files_of(root)
    here(*command, "--root", root)
    assert files_of(root) == touched
    here("release", "box", "--root", root)
    assert ours(root) == []


def test_a_map_that_subuid_does_not_carry_is_not_granted_to_root_either(root: Path) -> None:
    words = (
        "allocate",
        "--strategy",
        "shared",
        "--max",
        "4294967294",
        "box",
        "--engine",
        "lxc",
        "--root",
        root,
    )
    _, said = here(*words)
    assert "USN120" in said
    assert ours(root) == []


def test_root_keeps_lines_that_two_shared_containers_have_until_both_are_gone(root: Path) -> None:
    words = ("allocate", "--strategy", "shared", "--engine", "lxc", "--root", root)
    roots = ["root:2:1", "root:3:65533"]
    here(*words, "box")
    here(*words, "jar", "jug")
    assert set(roots) <= set(ours(root))
    touched = files_of(root)
    here(*words, "box", "jar", "jug")
    assert files_of(root) == touched
    here("release", "box", "--root", root)
    assert set(roots) <= set(ours(root))
    here("release", "jug", "--root", root)
    assert set(roots) <= set(ours(root))
    here("release", "jar", "--root", root)
    assert ours(root) == []


# Pools.


@pytest.mark.parametrize(
    ("engine", "owner", "size"),
    [
        (("podman-auto",), "containers", 100),
        (("podman-auto", "--auto-containers", "3"), "containers", 3),
        (("kubernetes",), "kubelet", 110),
        (("kubernetes", "--pods", "1"), "kubelet", 1),
    ],
)
def test_a_pool_is_one_line_of_whole_blocks(
    root: Path, engine: tuple[str, ...], owner: str, size: int
) -> None:
    words = (*PER_CONTAINER, "--engine", *engine)
    found = told(root, *words)
    assert set(found) == {owner}
    assert ours(root) == [f"{owner}:589824:{size * 65536}"]
    assert not (root / "etc/docker").exists()
    touched = files_of(root)
    for again in (words, (*PER_CONTAINER, "--engine", engine[0])):
        assert told(root, *again) == {
            owner: {**found[owner], "since": told(root, "list")[owner]["since"]}
        }
        assert files_of(root) == touched
    here("release", owner, "--root", root)
    assert ours(root) == []


def test_both_pools_and_containers_are_had_at_once_and_root_gets_the_containers_alone(
    root: Path,
) -> None:
    engines = [word for name in ("lxc", "kubernetes", "podman-auto") for word in ("--engine", name)]
    here(*PER_CONTAINER, "box", *engines, "--pods", "2", "--auto-containers", "3", "--root", root)
    spans: dict[str, list[tuple[int, int]]] = {}
    for owner, start, count in (line.split(":") for line in ours(root)):
        spans.setdefault(owner, []).append((int(start), int(count)))
    assert {owner: [count for _, count in found] for owner, found in spans.items()} == {
        "usernsplan-box": [65536],
        "root": [32768, 32768],
        "kubelet": [2 * 65536],
        "containers": [3 * 65536],
    }
    box = spans["usernsplan-box"][0][0]
    assert [start for start, _ in spans.pop("root")] == [box, box + 32768]
    ranges = sorted((start, start + count) for [(start, count)] in spans.values())
    assert all(stop <= following for (_, stop), (following, _) in pairwise(ranges))
    assert all(start % 65536 == 0 for start, _ in ranges)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (
            (*PER_CONTAINER, "--engine", "podman-auto", "--auto-containers", "4"),
            9,
            "remap containers --size 262144",
        ),
        (
            (*PER_CONTAINER, "web", "--engine", "podman-auto", "--auto-containers", "2"),
            9,
            "release containers",
        ),
        ((*PER_CONTAINER, "web", "--auto-containers", "3"), 2, "--engine podman-auto"),
        ((*PER_CONTAINER, "web", "--engine", "lxc", "--pods", "3"), 2, "--engine kubernetes"),
        (
            (*PER_CONTAINER, "--engine", "kubernetes", "--pods", "0"),
            2,
            "a pool for 0 containers of kubernetes is impossible",
        ),
        (
            (*PER_CONTAINER, "--engine", "kubernetes", "--pods", "-1"),
            2,
            "a pool for -1 containers of kubernetes is impossible",
        ),
        (
            (*PER_CONTAINER, "--engine", "kubernetes", "--pods", "99999"),
            2,
            "a pool for 99999 containers of kubernetes is impossible",
        ),
        ((*PER_CONTAINER, "web", "--engine", "LXC"), 2, "no engine 'LXC'"),
        ((*PER_CONTAINER, "web", "--engine", ""), 2, "no engine ''"),
        ((*PER_CONTAINER, "--engine", "lxc"), 2, "without a name"),
        (
            (*PER_CONTAINER, "containers", "--engine", "podman"),
            2,
            "the name of the pool of podman-auto",
        ),
        (
            (*PER_CONTAINER, "--engine", "podman-auto", "--owner", "bob"),
            2,
            "--owner needs a name",
        ),
    ],
)
def test_words_that_do_not_fit_change_nothing(
    root: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    here(*PER_CONTAINER, "--engine", "podman-auto", "--auto-containers", "3", "--root", root)
    before = files_of(root)
    _, error = here(*words, "--root", root, status=status)
    assert said in error
    assert files_of(root) == before


@pytest.mark.parametrize(
    ("name", "engine"), [("containers", "podman-auto"), ("kubelet", "kubernetes")]
)
def test_no_container_has_the_name_of_a_pool(root: Path, name: str, engine: str) -> None:
    for engines in (("--engine", "podman"), ("--engine", engine), ()):
        _, said = here(*PER_CONTAINER, "web", name, *engines, "--root", root, status=2)
        assert f"'{name}' is the name of the pool of {engine}" in said
    assert not (root / "var").exists()


@pytest.mark.parametrize("engine", ["podman-auto", "kubernetes"])
@pytest.mark.parametrize("strategy", ["shared", "single-uid"])
def test_a_pool_needs_the_strategy_of_ranges(root: Path, strategy: str, engine: str) -> None:
    before = files_of(root)
    _, said = here(
        "allocate", "--strategy", strategy, "web", "--engine", engine, "--root", root, status=9
    )
    assert "use the strategy per-container" in said
    assert files_of(root) == before
    # One that is only installed does not stand in the way.
    put(root, "usr/bin/kubelet")
    here("allocate", "--strategy", strategy, "web", "--root", root)
    assert {line.split(":")[0] for line in ours(root)} == {"usernsplan-web"}


def test_the_kubelets_line_is_what_getsubids_says_for_an_account_that_was_made(
    host: ThrowawayHost,
) -> None:
    require("getsubids", "useradd")
    words = (sys.executable, "-m", "usernsplan", *PER_CONTAINER, "--engine", "kubernetes")
    host.run(*words, "--pods", "5")
    for kind in ([], ["-g"]):
        said = host.run("getsubids", *kind, "kubelet").stdout
        assert said.split() == ["0:", "kubelet", "589824", str(5 * 65536)]
    assert host.run("id", "-gn", "kubelet").stdout == "kubelet\n"
    assert host.run("getent", "passwd", "kubelet").stdout.strip().endswith("/usr/sbin/nologin")
    assert "Already up to date" in host.run(*words).stdout


KUBELETS_OWN = f"kubelet:65536:{110 * 65536}\n"


def test_a_kubelet_that_has_its_line_already_stands_in_no_containers_way(root: Path) -> None:
    put(root, "usr/bin/kubelet")
    for name in ("subuid", "subgid"):
        # What the Kubernetes documentation has one write.
        put(root, f"etc/{name}", KUBELETS_OWN)
    here(*PER_CONTAINER, "web", "--root", root)
    start = 65536 * 111
    assert ours(root) == [KUBELETS_OWN.strip(), f"usernsplan-web:{start}:65536"]


def test_what_is_said_of_a_line_that_the_kubelet_has_already_helps(root: Path) -> None:
    for name in ("subuid", "subgid"):
        put(root, f"etc/{name}", KUBELETS_OWN)
    words = (*PER_CONTAINER, "--engine", "kubernetes", "--root", root)
    out, said = here(*words, status=None)
    if not out:
        # Whatever words it recommends are to be understood.
        more = re.findall(r"'(--\S+ \S+)'", said)
        assert more == [] or here(*words, *more[0].split())[0]
    assert ours(root) == [KUBELETS_OWN.strip()]


@pytest.mark.parametrize("pool", ["containers", "kubelet"])
def test_a_pool_is_never_granted_to_root_too(root: Path, pool: str) -> None:
    engine = {
        "containers": ("podman-auto", "--auto-containers"),
        "kubelet": ("kubernetes", "--pods"),
    }[pool]
    here(*PER_CONTAINER, "--engine", *engine, "1", "--engine", "lxc", "--root", root)
    here(*PER_CONTAINER, pool, "--owner", pool, "--engine", "lxc", "--root", root, status=None)
    assert ours(root) == [f"{pool}:589824:65536"]


# Docker daemons of their own.


@pytest.mark.parametrize(
    "words",
    [("shared",), ("single-uid", "--container-id", "33"), ("shared", "--max", "4294967294")],
    ids=["a gap", "not from 0", "not in subuid"],
)
def test_what_docker_cannot_map_gets_no_account_that_could(
    root: Path, words: tuple[str, ...]
) -> None:
    before = (root / "etc/passwd").read_text()
    command = ("allocate", "--strategy", *words, "web", "--engine", "docker-instance", "--dry-run")
    out, said = here(*command, "--root", root, status=None)
    assert "USN120" in said or not out
    # An account with these lines may become whoever they map.
    assert "would run" not in out
    assert "useradd --" not in out + said
    assert (root / "etc/passwd").read_text() == before


def test_a_name_that_useradd_would_not_take_is_refused_before_it_is_asked(root: Path) -> None:
    name = "a-name-of-more-than-21-characters"
    words = (*PER_CONTAINER, name, "--engine", "docker-instance", "--root", root)
    for more in (["--dry-run"], []):
        _, said = here(*words, *more, status=2)
        assert "choose a shorter owner" in said
    assert not (root / "var").exists()
    here(*words, "--owner", "kubelet")


@needs_root
def test_each_docker_instance_has_an_account_and_said_twice_nothing_changes(
    host: ThrowawayHost,
) -> None:
    words = (*PER_CONTAINER, "--engine", "docker-instance")

    def made(*names: str) -> list[str]:
        """The accounts that a run says it made."""
        document = json.loads(
            host.run(sys.executable, "-m", "usernsplan", *words, *names, "--json").stdout
        )
        assert document["account_commands"] == []
        return [f["message"].split()[-1] for f in document["findings"] if f["code"] == "USN115"]

    assert made("one") == ["usernsplan-one"]
    assert made("one", "two") == ["usernsplan-two"]
    before = [host.read(f"/etc/{name}") for name in ("subuid", "subgid", "passwd", "group")]
    assert made("one", "two") == []
    assert [host.read(f"/etc/{name}") for name in ("subuid", "subgid", "passwd", "group")] == before
    # One whose account is gone gets another.
    host.run("userdel", "usernsplan-one")
    assert made("one", "two") == ["usernsplan-one"]
    assert host.run("id", "-gn", "usernsplan-one").stdout == "usernsplan-one\n"


# Which engines a host has.


def test_lxc_is_found_by_its_program_and_root_gets_the_lines(root: Path) -> None:
    put(root, "usr/bin/lxc-start")
    assert told(root, *PER_CONTAINER, "box")["box"]["extra_owners"] == ["root"]
    assert Counter(ours(root)) == Counter(
        ["usernsplan-box:589824:65536", "root:589824:32768", "root:622592:32768"]
    )


def test_an_engine_that_came_later_is_served_by_the_same_words(root: Path) -> None:
    assert told(root, *PER_CONTAINER, "box")["box"]["extra_owners"] == []
    put(root, "usr/sbin/lxc-start")
    assert told(root, *PER_CONTAINER, "box")["box"]["extra_owners"] == ["root"]


@pytest.mark.parametrize("place", ["usr/bin/lxd", "snap/bin/lxd", "usr/local/sbin/incusd"])
def test_where_lxd_or_incus_gives_roots_ids_out_nothing_is_granted_unless_it_is_named(
    root: Path, place: str
) -> None:
    put(root, "usr/bin/lxc-start")
    put(root, place)
    _, said = here(*PER_CONTAINER, "box", "--root", root)
    assert "USN121" in said
    assert "--engine lxc" in said
    assert ours(root) == ["usernsplan-box:589824:65536"]
    _, said = here(*PER_CONTAINER, "box", "--engine", "lxc", "--root", root)
    assert "USN121" not in said
    assert ours(root) == ["usernsplan-box:589824:65536", "root:589824:32768", "root:622592:32768"]


def test_without_docker_its_file_is_left_alone_unless_it_is_named(root: Path) -> None:
    put(root, "usr/bin/podman")
    _, said = here(*PER_CONTAINER, "--root", root)
    assert "USN122" in said
    assert "podman" in said
    assert not (root / "etc/docker").exists()
    here(*PER_CONTAINER, "--engine", "docker", "--root", root)
    assert json.loads((root / "etc/docker/daemon.json").read_text()) == {
        "userns-remap": "dockremap"
    }


@pytest.mark.parametrize("programs", [[], ["usr/bin/dockerd", "usr/bin/podman"], ["bin/dockerd"]])
def test_docker_is_served_where_it_is_and_where_nothing_is(root: Path, programs: list[str]) -> None:
    (root / "usr/sbin").mkdir(parents=True)
    (root / "bin").symlink_to("usr/sbin")
    for program in programs:
        put(root, program)
    _, said = here(*PER_CONTAINER, "--root", root)
    assert "USN122" not in said
    assert json.loads((root / "etc/docker/daemon.json").read_text()) == {
        "userns-remap": "dockremap"
    }


def test_a_kubelet_that_is_installed_gets_its_pool(root: Path) -> None:
    put(root, "usr/bin/kubelet")
    here(*PER_CONTAINER, "box", "--root", root)
    assert f"kubelet:655360:{110 * 65536}" in ours(root)


# A kill.


class Seen(NamedTuple):
    """What a host says of one allocation, and of the files."""

    subuid: str
    subgid: str
    extra_owners: list[str]


LXC = crash.Case((*PER_CONTAINER, "web"), (*PER_CONTAINER, "web", "--engine", "lxc"))


def seen(root: Path) -> Seen:
    entry = json.loads(here("show", "web", "--json", "--root", root)[0])["allocations"][0]
    return Seen(
        (root / "etc/subuid").read_text(), (root / "etc/subgid").read_text(), entry["extra_owners"]
    )


@pytest.mark.slow
def test_after_a_kill_anywhere_root_has_the_lines_and_the_ledger_says_so_or_neither(
    tmp_path: Path,
) -> None:
    if shutil.which("strace") is None:
        missing("strace")
    crash.host(tmp_path / "before", LXC)
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    here(*LXC.command, "--root", tmp_path / "after")
    before, after = seen(tmp_path / "before"), seen(tmp_path / "after")
    assert (before.extra_owners, after.extra_owners) == ([], ["root"])
    kills, outcomes = 0, set()
    for struck in crash.struck_everywhere(
        tmp_path / "kills", tmp_path / "before", LXC, "signal=KILL"
    ):
        kills += 1
        assert struck.status in {-9, 137}, struck
        assert (struck.root / "etc/subuid").read_text() in {before.subuid, after.subuid}, (
            struck.place
        )
        assert (struck.root / "etc/subgid").read_text() in {before.subgid, after.subgid}, (
            struck.place
        )
        # The next run wants something that cannot be; it mends all the same.
        here("release", "--forget", "nothing", "--root", struck.root, status=1)
        now = seen(struck.root)
        assert now in (before, after), struck.place
        outcomes.add("done" if now == after else "not done")
        here(*LXC.command, "--root", struck.root)
        assert seen(struck.root) == after, struck.place
        here("release", "web", "--root", struck.root)
        assert (struck.root / "etc/subuid").read_text() == f"{crash.OTHERS}\n", struck.place
    assert kills > 20
    assert outcomes == {"done", "not done"}


# Whatever is asked.

NAMES = ("a1", "b2", "c3")


@st.composite
def steps(draw: st.DrawFn) -> tuple[str, tuple[str, ...], AllocateRequest]:
    """What to do, the names to release, and the words to allocate with."""
    engines = draw(
        st.none() | st.lists(st.sampled_from(list(ENGINES)), min_size=1, max_size=4).map(tuple)
    )
    pools = {
        name: PoolOptions(draw(st.integers(1, 3)))
        for name in ("podman-auto", "kubernetes")
        if name in (engines or ())
    }
    names = tuple(draw(st.lists(st.sampled_from(NAMES), max_size=3, unique=True)))
    owner = (
        draw(st.sampled_from([None, None, "root", "svc", "a1", "kubelet"]))
        if len(names) == 1
        else None
    )
    request = asked(
        *names, engines=engines, pools=pools, owner=owner, daemon_config=draw(st.booleans())
    )
    return draw(st.sampled_from(["allocate", "allocate", "release"])), names, request


def lines_of(allocations: tuple[Allocation, ...]) -> Counter[str]:
    return Counter(
        f"{owner}:{start}:{count}"
        for a in allocations
        for owner in (a.owner, *a.extra_owners)
        for ids in a.mapping.uids.host_ranges()
        for start, count in (small(ids) if owner == "root" else [(ids.start, ids.count)])
    )


def small(ids: IdRange) -> list[tuple[int, int]]:
    """A range as root gets it: in lines that LXD and Incus do not take for themselves."""
    if ids.count < 65536:
        return [(ids.start, ids.count)]
    starts = range(ids.start, ids.stop, 32768)
    return [(start, min(32768, ids.stop - start)) for start in starts]


@settings(max_examples=examples(200), deadline=None)
@given(
    strategy=st.sampled_from(
        [PerContainer(), PerContainer(1000), SingleUid(), SingleUid(block=1), Shared(dockerroot=7)]
    ),
    installed=st.frozensets(st.sampled_from(list(ENGINES)), max_size=3),
    wanted=st.lists(steps(), min_size=1, max_size=7),
    theirs=st.sampled_from(
        [b"", b"root:589824:65536\n", b"# x\nbob:655360:1\nroot:1000000000:1", b"kubelet:5:5\n"]
    ),
)
def test_no_two_overlap_every_line_is_an_allocations_and_all_released_the_files_are_as_before(
    strategy: PerContainer | SingleUid | Shared,
    installed: frozenset[str],
    wanted: list[tuple[str, tuple[str, ...], AllocateRequest]],
    theirs: bytes,
) -> None:
    start = host = replace(state(theirs, theirs), engines=installed)
    for what, names, words in wanted:
        standing = {a.name for a in host.ledger.allocations}
        if what == "release":
            gone = tuple(name for name in names if name in standing)
            if gone:
                host = carried_out(host, make_release(host, ReleaseRequest(gone, unset_remap=True)))
        else:
            request = replace(words, strategy=strategy)
            try:
                plan = make_plan(host, request)
            except UsernsplanError:
                # A name or owner that is taken, an engine without a name, a pool under another strategy.
                continue
            host = carried_out(host, plan)
            again = make_plan(host, request)
            assert not again.changed
            assert {a.name: set(a.extra_owners) for a in again.allocations} == {
                a.name: set(a.extra_owners) for a in plan.allocations
            }
        assert_sound(host, theirs)
    everything = tuple(a.name for a in host.ledger.allocations)
    if everything:
        host = carried_out(host, make_release(host, ReleaseRequest(everything, unset_remap=True)))
    for path in (SUBUID, SUBGID):
        was, now = files(start)[path] or b"", files(host)[path] or b""
        # A last line without its end may have got one.
        assert now in {was, was + b"\n" if was and not was.endswith(b"\n") else was}


def assert_sound(host: HostState, theirs: bytes) -> None:
    held = sorted(
        (a.reserved_range.start, a.reserved_range.stop)
        for a in host.ledger.allocations
        if a.reserved_range
    )
    assert all(stop <= following for (_, stop), (following, _) in pairwise(held))
    for path in (SUBUID, SUBGID):
        lines = Counter((files(host)[path] or b"").decode().splitlines())
        lines -= Counter(theirs.decode().splitlines())
        expected = lines_of(host.ledger.allocations)
        # Shared containers have the same lines, and once is enough for root.
        assert set(lines) == set(expected)
        assert all(lines[line] == 1 for line in expected if not line.startswith("root:"))
