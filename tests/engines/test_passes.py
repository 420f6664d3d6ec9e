"""Ids that pass through, as the kernel and newuidmap see them: the lines that allocate writes grant the map, and no more."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.engines import recipes
from tests.engines.throwaway import CommandFailed, require

if TYPE_CHECKING:
    from tests.engines.recipes import Line
    from tests.engines.throwaway import ThrowawayHost

PROGRAM = (sys.executable, "-m", "usernsplan")
PASSES = ("--pass", "u:1000", "--pass", "g:104:107", "--pass", "b:1001-1005:0")
# By hand: five ids of both kinds from container id 0 on, uid 1000, and gid 104 as 107.
UIDS = [(0, 1001, 5), (5, 589829, 995), (1000, 1000, 1), (1001, 590825, 64535)]
GIDS = [(0, 1001, 5), (5, 589829, 102), (107, 104, 1), (108, 589932, 65428)]

AROUND = [(0, 589824, 107), (107, 104, 1), (108, 589932, 65428)]


def rows(text: str) -> list[Line]:
    return recipes.lines(text)


def allocate(host: ThrowawayHost, *words: str) -> None:
    host.run(*PROGRAM, "allocate", "--strategy", "per-container", "web", *PASSES, *words)


def usernsexec(host: ThrowawayHost, uids: list[Line], gids: list[Line]) -> str:
    """The maps of a process that root starts through newuidmap and newgidmap, as LXC does."""
    maps = [
        f"-m{kind}:{':'.join(map(str, line))}"
        for kind, ids in (("u", uids), ("g", gids))
        for line in ids
    ]
    return host.run(
        "lxc-usernsexec", *maps, "--", "cat", "/proc/self/uid_map", "/proc/self/gid_map"
    ).stdout


def test_newuidmap_grants_the_map_to_the_owner_and_nothing_beside_it(host: ThrowawayHost) -> None:
    require("newuidmap", "newgidmap", "useradd")
    host.run("useradd", "--uid", "4242", "carla")
    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, "")
    allocate(host, "--owner", "carla")
    maps = recipes.newuidmap(host, "carla", UIDS, GIDS)
    assert (rows(maps.uid_map), rows(maps.gid_map)) == (UIDS, GIDS)
    # The hole of container uid 1000, gid 1000, and the gid as a uid.
    for uids, gids in (
        ([(0, 590824, 1)], GIDS),
        (UIDS, [(0, 1000, 1)]),
        ([(0, 104, 1)], GIDS),
        ([(0, 589828, 2)], GIDS),
    ):
        with pytest.raises(CommandFailed, match=r"new.idmap: .id range .* not allowed"):
            recipes.newuidmap(host, "carla", uids, gids)


def test_root_gets_the_same_map_for_lxc_and_loses_it_with_the_line(host: ThrowawayHost) -> None:
    require("lxc-usernsexec", "newuidmap", "newgidmap")
    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, "")
    allocate(host, "--engine", "lxc")
    assert rows(usernsexec(host, UIDS, GIDS)) == [*UIDS, *GIDS]

    lines = host.read("/etc/subgid").decode()
    assert lines.count("root:104:1\n") == 1
    assert b"104:1\n" not in host.read("/etc/subuid")
    host.write("/etc/subgid", lines.replace("root:104:1\n", ""))
    with pytest.raises(
        CommandFailed, match=r"newgidmap: gid range \[107-108\) -> \[104-105\) not allowed"
    ):
        usernsexec(host, UIDS, GIDS)


@pytest.mark.slow
def test_docker_makes_the_map_by_the_order_of_the_lines_and_again_after_a_useradd(
    host: ThrowawayHost,
) -> None:
    require("dockerd", "docker", "useradd")
    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, "")
    words = ("allocate", "--strategy", "per-container", "--docker", "--pass", "g:104:107")
    host.run(*PROGRAM, *words)
    with recipes.dockerd(host) as docker:
        assert rows(docker.run(["cat", "/proc/self/uid_map"])) == [(0, 589824, 65536)]
        assert rows(docker.run(["cat", "/proc/self/gid_map"])) == AROUND

    host.run("useradd", "bob")
    assert host.read("/etc/subgid").startswith(b"dockremap:104:1\n")
    host.run(*PROGRAM, *words)
    with recipes.dockerd(host) as docker:
        assert rows(docker.run(["cat", "/proc/self/gid_map"])) == AROUND
