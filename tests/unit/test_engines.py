"""What each engine reads for each strategy: texts written by hand from the engines' own documentation."""

from __future__ import annotations

import json

import pytest

from tests.each import each
from tests.unit.states import asked, per_container, shared, state
from usernsplan import Allocation, IdMap, IdRange, Mapping, Shared, make_plan, render
from usernsplan.engines import ENGINES, engine
from usernsplan.engines.base import RenderContext
from usernsplan.errors import InvalidFileError, InvalidValueError, RefusedError

PER_CONTAINER = per_container("web", 524288)
SINGLE_UID = Allocation(
    "app",
    "usernsplan-app",
    "single-uid",
    Mapping(*[IdMap.of((0, 1000000000, 1))] * 2),
    IdRange(1000000000, 10000),
)
SHARED = shared("web", (0, 2, 1), (3, 3, 65533))
FILLED = shared(
    "default",
    (0, 2, 1),
    (1, 524288, 2),
    (3, 3, 65533),
    owner="dockremap",
    reserved_range=IdRange(524288, 2),
)
WIDE = shared("web", (0, 2, 1), (3, 3, 4294967292))
IDENTITY = shared("web", (0, 0, 65535))
# Nothing that we make has uids and gids that differ, but an engine must not mix them up.
APART = Allocation(
    "web",
    "bob",
    "per-container",
    Mapping(IdMap.of((0, 100000, 5)), IdMap.of((0, 200000, 3), (3, 7, 1))),
    None,
)


@each(
    ("allocation", "text"),
    [
        (PER_CONTAINER, "0 524288 65536"),
        (SINGLE_UID, "0 1000000000 1"),
        (SHARED, "0 2 1\n3 3 65533"),
        (FILLED, "0 2 1\n1 524288 2\n3 3 65533"),
        (WIDE, "0 2 1\n3 3 4294967292"),
        (IDENTITY, "0 0 65535"),
    ],
)
@each("name", ["uid_map", "gid_map"])
def test_the_kernel_reads_container_host_count(
    name: str, allocation: Allocation, text: str
) -> None:
    assert render(name, allocation, RenderContext(state())).text == text


@pytest.mark.parametrize(
    ("allocation", "text"),
    [
        (PER_CONTAINER, "--uidmap 0:524288:65536 --gidmap 0:524288:65536"),
        (SINGLE_UID, "--uidmap 0:1000000000:1 --gidmap 0:1000000000:1"),
        (SHARED, "--uidmap 0:2:1 --uidmap 3:3:65533 --gidmap 0:2:1 --gidmap 3:3:65533"),
        (
            FILLED,
            (
                "--uidmap 0:2:1 --uidmap 1:524288:2 --uidmap 3:3:65533 "
                "--gidmap 0:2:1 --gidmap 1:524288:2 --gidmap 3:3:65533"
            ),
        ),
        (WIDE, "--uidmap 0:2:1 --uidmap 3:3:4294967292 --gidmap 0:2:1 --gidmap 3:3:4294967292"),
        (APART, "--uidmap 0:100000:5 --gidmap 0:200000:3 --gidmap 3:7:1"),
    ],
    ids=[
        "per-container",
        "single-uid",
        "shared",
        "shared for Docker",
        "shared to the end",
        "uids and gids apart",
    ],
)
def test_podman_reads_one_flag_for_each_extent(allocation: Allocation, text: str) -> None:
    assert render("podman", allocation, RenderContext(state())).text == text


OCI_PER_CONTAINER = """\
{
  "linux": {
    "namespaces": [
      {
        "type": "user"
      }
    ],
    "uidMappings": [
      {
        "containerID": 0,
        "hostID": 524288,
        "size": 65536
      }
    ],
    "gidMappings": [
      {
        "containerID": 0,
        "hostID": 524288,
        "size": 65536
      }
    ]
  }
}"""


def test_an_oci_runtime_reads_a_fragment_of_config_json() -> None:
    assert render("oci", PER_CONTAINER, RenderContext(state())).text == OCI_PER_CONTAINER


@pytest.mark.parametrize(
    ("allocation", "uids", "gids"),
    [
        (SINGLE_UID, [(0, 1000000000, 1)], [(0, 1000000000, 1)]),
        (SHARED, [(0, 2, 1), (3, 3, 65533)], [(0, 2, 1), (3, 3, 65533)]),
        (WIDE, [(0, 2, 1), (3, 3, 4294967292)], [(0, 2, 1), (3, 3, 4294967292)]),
        (APART, [(0, 100000, 5)], [(0, 200000, 3), (3, 7, 1)]),
    ],
    ids=["single-uid", "shared", "shared to the end", "uids and gids apart"],
)
def test_an_oci_fragment_has_the_user_namespace_and_every_extent(
    allocation: Allocation, uids: list[tuple[int, int, int]], gids: list[tuple[int, int, int]]
) -> None:
    names = ("containerID", "hostID", "size")
    assert json.loads(render("oci", allocation, RenderContext(state())).text) == {
        "linux": {
            "namespaces": [{"type": "user"}],
            "uidMappings": [dict(zip(names, extent, strict=True)) for extent in uids],
            "gidMappings": [dict(zip(names, extent, strict=True)) for extent in gids],
        }
    }


@pytest.mark.parametrize("name", ["uid_map", "gid_map"])
def test_uid_map_and_gid_map_are_not_mixed_up(name: str) -> None:
    assert (
        render(name, APART, RenderContext(state())).text
        == {"uid_map": "0 100000 5", "gid_map": "0 200000 3\n3 7 1"}[name]
    )


@each(
    ("allocation", "owner"),
    [(PER_CONTAINER, "usernsplan-web"), (SINGLE_UID, "usernsplan-app"), (FILLED, "dockremap")],
)
@each(
    ("raw", "text"),
    [
        (None, '{\n  "userns-remap": "OWNER",\n  "no-new-privileges": true\n}'),
        (
            b'{\n    "debug": true\n}\n',
            '{\n    "debug": true,\n    "userns-remap": "OWNER",\n    "no-new-privileges": true\n}',
        ),
        (
            b'{\n    "no-new-privileges": false\n}\n',
            '{\n    "no-new-privileges": false,\n    "userns-remap": "OWNER"\n}',
        ),
        (
            b'{\n  "userns-remap": "default",\n  "debug": true\n}\n',
            '{\n  "userns-remap": "OWNER",\n  "debug": true,\n  "no-new-privileges": true\n}',
        ),
    ],
)
def test_docker_reads_the_owner_of_the_lines(
    allocation: Allocation, owner: str, raw: bytes | None, text: str
) -> None:
    assert render("docker", allocation, RenderContext(state(daemon_json=raw))).text == text.replace(
        "OWNER", owner
    )


@pytest.mark.parametrize(
    ("allocation", "why"),
    [
        (SHARED, "cannot skip ids"),
        (WIDE, "takes its map from subuid"),
        (shared("web", (0, 0, 65537)), "takes its map from subuid"),
        (
            Allocation("app", "bob", "single-uid", Mapping(*[IdMap.of((33, 1000000000, 1))] * 2)),
            "cannot skip ids",
        ),
        (
            APART.__class__(
                "web", "bob", "per-container", Mapping(APART.mapping.uids, IdMap.of((1, 7, 1)))
            ),
            "cannot skip",
        ),
    ],
    ids=["a gap", "past 65535", "identity past 65535", "not from 0", "gids not from 0"],
)
def test_docker_refuses_what_it_cannot_make_and_names_who_can(
    allocation: Allocation, why: str
) -> None:
    with pytest.raises(RefusedError, match=why) as caught:
        render("docker", allocation, RenderContext(state()))
    assert caught.value.hint.startswith("uid_map, gid_map, podman, quadlet, oci")
    assert "docker" not in caught.value.hint


def test_docker_takes_an_identity_map_that_subuid_carries() -> None:
    assert engine("docker").verdict(IDENTITY).can
    assert engine("docker").verdict(shared("web", (0, 0, 65536))).can


def test_docker_refuses_to_print_a_merge_with_a_file_that_is_not_json() -> None:
    with pytest.raises(InvalidFileError, match=r"/etc/docker/daemon\.json:1:2"):
        render("docker", PER_CONTAINER, RenderContext(state(daemon_json=b"{,}")))


@pytest.mark.parametrize(
    ("name", "meant"), [("", ""), ("kernel", ""), ("Docker", "docker"), ("uid_map\n", "uid_map")]
)
def test_an_unknown_engine_is_an_error_that_tells_the_known(name: str, meant: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        render(name, PER_CONTAINER, RenderContext(state()))
    known = f"one of: {', '.join(ENGINES)}"
    assert caught.value.hint == (f"did you mean {meant}?" if meant else known)


def test_what_docker_makes_of_the_lines_is_what_uid_map_says() -> None:
    # moby lays the owner's lines end to end from container id 0, in file order.
    plan = make_plan(state(), asked(strategy=Shared(dockerroot=7)))
    lines = [line.split(b":") for line in plan.changes[0].after.splitlines()]
    expected, container = [], 0
    for _, start, count in lines:
        expected.append(f"{container} {int(start)} {int(count)}")
        container += int(count)
    assert (
        render("uid_map", plan.allocations[0], RenderContext(state())).text.split("\n") == expected
    )


@pytest.mark.parametrize(
    ("passwd", "group", "notes"),
    [
        (b"", b"", 1),
        (b"usernsplan-web:x:990:990::/:/bin/false\n", b"", 1),
        (b"usernsplan-web:x:990:990::/:/bin/false\n", b"usernsplan-web:x:990:\n", 0),
    ],
    ids=["nobody", "no group", "both"],
)
def test_docker_needs_an_account_and_a_group_of_the_owners_name_and_that_is_noted(
    passwd: bytes, group: bytes, notes: int
) -> None:
    assert (
        len(render("docker", PER_CONTAINER, RenderContext(state(passwd=passwd, group=group))).notes)
        == notes
    )
