"""Maps with holes, where host ids pass through: shift, own, back, and from one map into another."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.command import here
from tests.examples import examples
from tests.volume.holes import Passed, remap, seen_through
from tests.volume.tree import Host, acl_of, clocks, finish, snapshot, write
from usernsplan.layout import Layout
from usernsplan.ledger import open_ledger

if TYPE_CHECKING:
    from usernsplan.model import Volume

# The host's render group, which is the container's 107; and the host's 1000, which is its own.
RENDER: tuple[Passed, ...] = (("gid", 107, 104, 1), ("uid", 1000, 1000, 1))
NUMBERS = count()


def make(host: Host, owners: dict[str, tuple[int, int]]) -> None:
    for name, owner in owners.items():
        finish(write(os.fsencode(host.volume / name)), *owner)


def owners(host: Host) -> dict[str, tuple[int, int]]:
    return {os.fsdecode(path): (one.uid, one.gid) for path, one in snapshot(host.volume).items()}


def volumes(host: Host) -> tuple[Volume, ...]:
    return open_ledger(Layout(str(host.root))).state().volumes


def ctimes(host: Host) -> dict[bytes, int]:
    return {path: one.ctime_ns for path, one in clocks(host.volume).items()}


UNSHIFTED = {"root": (0, 0), "104": (0, 104), "107": (33, 107), "1000": (1000, 1000)}


def test_shift_follows_the_map_and_neither_again_nor_back_guesses(volumes: Host) -> None:
    host = volumes
    [start] = host.allocate("web")
    remap(host.root, "web", start, 65536, RENDER)
    make(host, UNSHIFTED)
    finish(
        write(os.fsencode(host.volume / "acl")),
        0,
        0,
        0o640,
        acl=acl_of(0o640, {1000: 6, 33: 4}, {107: 4, 104: 6}),
    )
    before = snapshot(host.volume)
    run = host.fix("--mode", "shift")["run"]
    wanted = {
        ".": (start, start),
        "root": (start, start),
        "104": (start, start + 104),
        "107": (start + 33, 104),
        "1000": (1000, start + 1000),
        "acl": (start, start),
    }
    assert owners(host) == wanted
    acl = snapshot(host.volume)[b"acl"].acl
    assert {(tag, number) for tag, _, number in acl if number != 0xFFFFFFFF} == {
        (2, 1000),
        (2, start + 33),
        (8, 104),
        (8, start + 104),
    }

    # Once more changes nothing. What was added since is moved, but 104 is container 107 here.
    times = ctimes(host)
    for words in ((), ("--mode", "shift"), ("--dry-run",)):
        assert host.fix(*words)["changed"] is False
    assert ctimes(host) == times
    make(host, {"new": (33, 33)})
    report = host.fix()
    assert report["counts"]["changed"] == 1
    assert "gid 104: that is 104 not moved yet, or 107 that was moved already" in str(report)
    assert owners(host) == {**wanted, "new": (start + 33, start + 33)}
    (host.volume / "new").unlink()

    # An id of the hole is nobody's.
    make(host, {"nobody": (start, start + 107)})
    assert f"gid {start + 107}" in host.refusal("--reverse", status=9)
    (host.volume / "nobody").unlink()
    back = host.fix("--reverse", "--drop-power")["run"]
    assert owners(host) == {
        name: (one.uid, one.gid) for name, one in ((os.fsdecode(p), i) for p, i in before.items())
    }
    # No ledger says any more that 104 is the container's.
    assert "the host's own files would change owner" in host.refusal("--reverse", status=9)
    host.undo(back)
    assert owners(host) == wanted
    host.undo(run, "--also-changed")
    assert owners(host)["107"] == (33, 107)


def test_a_tree_in_which_only_a_part_was_moved_is_refused_with_words(host: Host) -> None:
    [start] = host.allocate("web")
    remap(host.root, "web", start, 65536, RENDER)
    make(host, {**UNSHIFTED, "moved": (start, start)})
    said = host.refusal("--mode", "shift", status=9)
    assert f"some entries have uid {start}, a new id of this map" in said
    assert "gid 104: that is 104 not moved yet, or 107 that was moved already" in said
    # Where no id can be both, there is nothing to ask.
    (host.volume / "104").unlink()
    assert host.fix("--mode", "shift")["counts"]["changed"] == 4


def test_own_gives_the_ids_that_pass_and_a_search_leaves_them_to_the_host(host: Host) -> None:
    [start] = host.allocate("web")
    remap(host.root, "web", start, 65536, RENDER)
    make(host, UNSHIFTED)
    host.fix("--user", "1000:107")
    assert set(owners(host).values()) == {(1000, 104)}
    assert host.fix()["changed"] is False
    make(host, {"own": (start + 5, 104), "hole": (start + 1000, start + 107)})
    found = here("find-owned", "web", "/srv", "--root", host.root)[0]
    assert {line.rpartition("/")[2] for line in found.splitlines()} == {"own", "hole"}


def test_a_new_map_moves_only_what_differs_and_comes_back(volumes_of_web: Host) -> None:
    host, start = volumes_of_web, volumes_of_web.starts["web"]
    make(host, {"104": (0, 104), "105": (0, 105), "107": (33, 107), "108": (0, 108)})
    host.fix("--mode", "shift")
    times = ctimes(host)
    remap(host.root, "web", start, 65536, [("gid", 107, 104, 1)])
    assert volumes(host)[0].former is not None
    report = host.fix()
    assert report["counts"]["changed"] == 1
    assert report["counts"]["right"] == 4
    assert owners(host)["107"] == (start + 33, 104)
    # What has the right ids is not even touched.
    now = ctimes(host)
    assert {path for path in now if now[path] != times[path]} == {b"107"}
    assert [(v.mode, v.former) for v in volumes(host)] == [("shift", None)]
    assert host.fix()["changed"] is False

    # Two ids are exchanged: 104 is another container id's now.
    remap(host.root, "web", start, 65536, [("gid", 108, 104, 1)])
    before = snapshot(host.volume)
    assert host.fix("--dry-run")["counts"]["changed"] == 2
    assert "lies in" in host.refusal(path=host.volume / "104", status=9)
    assert "contains" in host.refusal(
        "--mode", "shift", "--protected", path=host.root / "srv", status=9
    )
    assert "leave out --from-map" in host.refusal("--from-map", "b 0 700000 9", status=9)
    old = (f"u 0 {start} 65536", f"g 0 {start} 107", "g 107 104 1", f"g 108 {start + 108} 65428")
    words = [word for line in old for word in ("--from-map", line)]
    run = host.fix(*words)["run"]
    assert owners(host)["107"] == (start + 33, start + 107)
    assert owners(host)["108"] == (start, 104)
    times = ctimes(host)
    for again in ((), words, ("--from-map", f"b 0 {start} 65536")):
        assert host.fix(*again)["changed"] is False
    # Without the journal, the ledger says that they were moved.
    shutil.copytree(host.runs, host.root / "runs")
    shutil.rmtree(host.runs)
    assert "another run would move ids twice" in host.refusal(*words, status=9)
    assert host.fix()["changed"] is False
    shutil.rmtree(host.runs, ignore_errors=True)
    shutil.move(host.root / "runs", host.runs)
    assert ctimes(host) == times
    host.undo(run)
    assert snapshot(host.volume).keys() == before.keys()
    assert owners(host)["107"] == (start + 33, 104)
    former = volumes(host)[0].former
    assert former is not None
    assert former.gids.to_host(107) == 104
    # And again, without a word of the map.
    assert host.fix()["counts"]["changed"] == 2


def test_own_volumes_and_volumes_in_volumes_move_with_one_call(volumes_of_web: Host) -> None:
    host, start = volumes_of_web, volumes_of_web.starts["web"]
    inner = host.volume / "inner"
    inner.mkdir()
    host.fix("--user", "33:33")
    host.fix("--mode", "shift", path=inner)
    # The container made one for another of its users.
    make(host, {"made": (start + 5, start + 5)})
    remap(host.root, "web", start + 65536, 70000)
    assert "lies in" in host.refusal(path=inner, status=9)
    host.fix()
    base = start + 65536
    assert owners(host) == {
        ".": (base + 33, base + 33),
        "inner": (base + 33, base + 33),
        "made": (base + 5, base + 5),
    }
    assert [(v.path, v.mode, v.user, v.former) for v in volumes(host)] == [
        ("/srv/vol", "own", "33:33", None),
        ("/srv/vol/inner", "shift", "", None),
    ]


def test_what_the_smaller_map_lacks_is_never_taken_for_another_ones(volumes_of_web: Host) -> None:
    host, start = volumes_of_web, volumes_of_web.starts["web"]
    make(host, {"70": (70, 0)})
    host.fix("--mode", "shift")
    # Container 70 has no id any more, and its host id is container 20's.
    remap(host.root, "web", start + 50, 50)
    for words in ((), ("--unmapped", "keep")):
        said = host.refusal(*words, status=9)
        assert "gives their host ids to other container ids" in said
        assert f"uid {start + 70}" in said
    assert owners(host)["70"] == (start + 70, start)


@pytest.fixture
def volumes_of_web(host: Host) -> Host:
    host.allocate("web")
    return host


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from-map", "b 0 1"), "is no extent"),
        (("--from-map", "u 0 700000 9"), "--from-map: the map has no gids"),
        (
            ("--from-map", "b 0 7000 9", "--from", "web"),
            "--from-map cannot be combined with --from",
        ),
        (("--from-map", "b 0 7000 9", "--reverse"), "--from-map cannot be combined"),
        (("--from-map", "b 0 7000 9", "--mode", "own"), "--mode own cannot be combined"),
        (("--from-map", "b 0 7000 9", "--user", "1"), "--user cannot be combined"),
        (
            ("--from-map", "b 0 7000 9", "--uid-map", "0:1:1", "--gid-map", "0:1:1"),
            "a map cannot be",
        ),
        (("--from-map", "b 70000 7000 9"), "no container ids in common"),
    ],
)
def test_words_that_contradict_from_map_are_told(
    volumes_of_web: Host, words: tuple[str, ...], said: str
) -> None:
    assert said in volumes_of_web.refusal(*words, status=2)


def test_a_program_gets_no_account_of_the_host_by_a_pass(volumes_of_web: Host) -> None:
    host, start = volumes_of_web, volumes_of_web.starts["web"]
    shutil.copy(shutil.which("id") or "", host.volume / "id")
    finish(os.fsencode(host.volume / "id"), 1000, 1000, 0o4755)
    host.fix("--mode", "shift", "--drop-power")

    def who() -> str:
        return subprocess.run(
            ["./id", "-u"],
            cwd=host.volume,
            user=65534,
            group=65534,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    # Container root can give its own user's program the bit; nobody of the host is meant by it.
    os.chmod(host.volume / "id", 0o4755)  # noqa: S103 - as a container may
    assert who() == str(start + 1000)
    remap(host.root, "web", start, 65536, [("uid", 1000, 1000, 1)])
    said = host.refusal(status=9)
    assert f"setuid {start + 1000} would become setuid 1000" in said
    host.fix("--drop-power")
    assert os.stat(host.volume / "id").st_uid == 1000
    assert who() == "65534"


# Random passes


KINDS = st.sampled_from(["uid", "gid"])
# Few ids, so that what passes meets what the tree has; 20 and up are beyond the map.
PASSES = st.lists(
    st.tuples(
        KINDS,
        st.integers(0, 14),
        st.one_of(st.integers(0, 14), st.just(3_000_000)),
        st.integers(1, 3),
    ),
    max_size=3,
)
OWNERS = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), min_size=1, max_size=8)


def fitting(passes: list[Passed]) -> list[Passed]:
    """Those that meet no earlier one on either side."""
    kept: list[Passed] = []
    for kind, container, host, size in passes:
        if all(
            k != kind
            or (
                (container + size <= c or c + n <= container)
                and (host + size <= h or h + n <= host)
            )
            for k, c, h, n in kept
        ):
            kept.append((kind, container, host, size))
    return kept


def model(kind: str, start: int, passes: list[Passed], size: int = 12) -> dict[int, int]:
    """For each container id its host id, one by one."""
    found = {number: start + number for number in range(size)}
    for k, container, host, n in passes:
        if k == kind:
            found |= {container + i: host + i for i in range(n)}
    return found


def triples(found: dict[int, int]) -> list[tuple[int, int, int]]:
    return [(container, host, 1) for container, host in found.items()]


@given(tree=OWNERS, first=PASSES, second=PASSES, far=st.booleans())
@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_the_kernel_shows_a_container_the_same_ids_whatever_passes(
    host: Host, tree: list[tuple[int, int]], first: list[Passed], second: list[Passed], far: bool
) -> None:
    first, second = fitting(first), fitting(second)
    one = Host(host.root / f"random-{next(NUMBERS)}", host.file_system)
    (one.root / "etc").mkdir(parents=True)
    one.volume.mkdir(parents=True)
    [start] = one.allocate("web", size=12)
    remap(one.root, "web", start, 12, first)
    make(one, {str(number): owner for number, owner in enumerate(tree)})
    inside = {"": (0, 0), **{str(number): owner for number, owner in enumerate(tree)}}
    top = (0, 0)
    finish(os.fsencode(one.volume), *top, 0o755)

    here(
        "fix-volume",
        one.volume,
        "--container",
        "web",
        "--mode",
        "shift",
        "--jobs",
        "1",
        "--root",
        one.root,
    )
    maps = [model(kind, start, first) for kind in ("uid", "gid")]
    assert owners(one) == {
        name or ".": (maps[0][uid], maps[1][gid]) for name, (uid, gid) in inside.items()
    }
    assert seen_through(triples(maps[0]), triples(maps[1]), one.volume) == inside

    base = start + (4 if far else 0)
    remap(one.root, "web", base, 12, second)
    new = [model(kind, base, second) for kind in ("uid", "gid")]
    printed, said = here(
        "fix-volume",
        one.volume,
        "--jobs",
        "1",
        "--json",
        "--again",
        "--root",
        one.root,
        status=None,
    )
    assert printed, said
    assert json.loads(printed)["failed"] == []
    assert seen_through(triples(new[0]), triples(new[1]), one.volume) == inside
    times = ctimes(one)
    here("fix-volume", one.volume, "--jobs", "1", "--root", one.root)
    assert ctimes(one) == times
    event(str(Counter(kind for kind, *_ in (*first, *second))))
    shutil.rmtree(one.root)
