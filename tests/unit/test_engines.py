"""What each engine reads for each strategy: texts written by hand from the engines' own documentation."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from tests.each import each
from tests.unit.states import asked, per_container, shared, state
from usernsplan import Allocation, IdMap, IdRange, Mapping, Shared, make_plan, render
from usernsplan.engines import ENGINES, engine
from usernsplan.engines.base import RenderContext
from usernsplan.errors import InvalidFileError, InvalidValueError, RefusedError
from usernsplan.formats import lxc
from usernsplan.mapping import KINDS
from usernsplan.model import Mount

PER_CONTAINER = per_container("web", 589824)
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
    (1, 589824, 2),
    (3, 3, 65533),
    owner="dockremap",
    reserved_range=IdRange(589824, 2),
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
        (PER_CONTAINER, "0 589824 65536"),
        (SINGLE_UID, "0 1000000000 1"),
        (SHARED, "0 2 1\n3 3 65533"),
        (FILLED, "0 2 1\n1 589824 2\n3 3 65533"),
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
        (PER_CONTAINER, "--uidmap 0:589824:65536 --gidmap 0:589824:65536"),
        (SINGLE_UID, "--uidmap 0:1000000000:1 --gidmap 0:1000000000:1"),
        (SHARED, "--uidmap 0:2:1 --uidmap 3:3:65533 --gidmap 0:2:1 --gidmap 3:3:65533"),
        (
            FILLED,
            (
                "--uidmap 0:2:1 --uidmap 1:589824:2 --uidmap 3:3:65533 "
                "--gidmap 0:2:1 --gidmap 1:589824:2 --gidmap 3:3:65533"
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
        "hostID": 589824,
        "size": 65536
      }
    ],
    "gidMappings": [
      {
        "containerID": 0,
        "hostID": 589824,
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


def hole(uids: IdMap, gids: IdMap, held: IdRange | None = None) -> Allocation:
    return Allocation("web", "alice", "per-container", Mapping(uids, gids), held)


HELD = IdRange(589824, 65536)


@each(
    ("uids", "gids", "held", "expected"),
    [
        # Each was started with Incus 6.0.4 and LXD 5.0.2, which made the map.
        (
            [(0, 589824, 65536)],
            [(0, 589824, 44), (44, 44, 1), (45, 589869, 62), (107, 104, 1), (108, 589932, 65428)],
            HELD,
            (589824, 65536, ["gid 44 44", "gid 104 107"]),
        ),
        # One container id at the end of the base would be taken for one past it.
        (
            [(0, 589824, 65536)],
            [(0, 589824, 65535), (65535, 1000, 1)],
            HELD,
            (589824, 65535, ["gid 1000 65535", "uid 655359 65535"]),
        ),
        (
            [(0, 589824, 65530), (65530, 1000, 6)],
            [(0, 589824, 65530), (65530, 1000, 6)],
            HELD,
            (589824, 65530, ["both 1000-1005 65530-65535"]),
        ),
        (
            [(0, 589824, 65536), (70000, 1000, 1)],
            [(0, 589824, 65536), (70000, 1000, 1)],
            HELD,
            (589824, 65536, ["both 1000 70000"]),
        ),
        # A host id of the hole may stand elsewhere.
        (
            [(0, 589824, 1000), (1000, 1000, 1), (1001, 590825, 64535), (70000, 590824, 1)],
            [(0, 589824, 1000), (1000, 1000, 1), (1001, 590825, 64535), (70000, 590824, 1)],
            HELD,
            (589824, 65536, ["both 1000 1000", "both 590824 70000"]),
        ),
        # Written by hand, as guides do; the extents in another order.
        (
            [(1605, 1605, 3), (0, 100000, 1605), (1608, 101608, 63928)],
            [(1605, 1605, 3), (1608, 101608, 63928), (0, 100000, 1605)],
            None,
            (100000, 65536, ["both 1605-1607 1605-1607"]),
        ),
        (
            [(0, 100000, 5)],
            [(0, 200000, 9)],
            None,
            (100000, 5, ["gid 200000-200008 0-8"]),
        ),
    ],
)
def test_raw_idmap_stands_beside_base_and_size_which_incus_splits_around_it(
    uids: list[tuple[int, int, int]],
    gids: list[tuple[int, int, int]],
    held: IdRange | None,
    expected: tuple[int, int, list[str]],
) -> None:
    made = hole(IdMap.of(*uids), IdMap.of(*gids), held)
    config = yaml.safe_load(render("incus", made, RenderContext(state())).text)["config"]
    base, size, raw = expected
    assert config.pop("raw.idmap", "").split("\n") == raw
    assert config == {
        "security.idmap.isolated": "true",
        "security.idmap.base": str(base),
        "security.idmap.size": str(size),
    }


@each(
    ("uids", "gids", "why"),
    [
        ([(1, 100000, 5)], [(0, 100000, 5)], "container id 0"),
        ([(0, 100000, 5)], [(5, 100000, 5)], "container id 0"),
        # Incus fails with a base of one id that raw.idmap replaces.
        ([(0, 1000, 1)], [(0, 100, 1)], "raw.idmap makes no such map"),
    ],
)
def test_what_incus_cannot_make_is_refused(
    uids: list[tuple[int, int, int]], gids: list[tuple[int, int, int]], why: str
) -> None:
    with pytest.raises(RefusedError, match=why) as caught:
        render("incus", hole(IdMap.of(*uids), IdMap.of(*gids)), RenderContext(state()))
    assert "oci" in caught.value.hint


HOLED = hole(
    IdMap.of((0, 589824, 65536)), IdMap.of((0, 589824, 107), (107, 104, 1), (108, 589932, 65428))
)


@each(
    ("said", "is_refused"),
    [
        ("", False),
        ("ctr github.com/containerd/containerd 1.6.20~ds1\n", True),
        (
            "ctr github.com/containerd/containerd v1.7.28 b98a3aace656320842a23f4a392a33f46af97866\n",
            True,
        ),
        (
            "ctr github.com/containerd/containerd/v2 v2.0.5 fb4c30d4ede3531652d86197bf3fc9515e5276d9\n",
            True,
        ),
        (
            "ctr github.com/containerd/containerd/v2 v2.1.4 75cb2b7193e4e490e9fbdc236c0e811ccaba3376\n",
            False,
        ),
        ("ctr github.com/containerd/containerd/v2 2.2.0-1\n", False),
        ("ctr of our own making\n", False),
    ],
)
def test_flags_of_ctr_are_repeated_unless_the_hosts_ctr_is_known_to_be_too_old(
    said: str, is_refused: bool
) -> None:
    asked = RenderContext(state(), version=said)
    # One extent of each kind is for any version.
    assert render("containerd", PER_CONTAINER, asked).text.count("map ") == 2
    if is_refused:
        with pytest.raises(RefusedError, match="takes only one extent") as caught:
            render("containerd", HOLED, asked)
        assert "podman" in caught.value.hint
        assert "2.1" in str(caught.value)
        return
    found = render("containerd", HOLED, asked)
    assert found.text == (
        "--uidmap 0:589824:65536 --gidmap 0:589824:107 --gidmap 107:104:1 --gidmap 108:589932:65428"
    )
    assert "containerd 2.1 or newer" in found.notes[0]


@each(
    "extents",
    [
        [(0, 589824, 65536)],
        [(0, 589824, 107), (107, 104, 1), (108, 589932, 65428)],
        [(0, 589824, 65536), (70000, 1000, 1)],
    ],
)
def test_the_lines_for_proxmox_are_read_back_as_the_map(
    extents: list[tuple[int, int, int]],
) -> None:
    made = hole(IdMap.of((0, 589824, 65536)), IdMap.of(*extents))
    text = render("proxmox", made, RenderContext(state(), vmid=101)).text
    read = [line for line in lxc.proxmox(text.encode()) if isinstance(line, lxc.MapLine)]
    found = {
        kind: IdMap.of(*((it.container, it.host, it.size) for it in read if it.kind == kind))
        for kind in KINDS
    }
    assert Mapping(found["uid"], found["gid"]) == made.mapping


def test_proxmox_needs_a_number_and_a_map_without_host_root() -> None:
    for number in (-1, 0, 99, 1000000000):
        with pytest.raises(InvalidValueError, match="not the number of a container"):
            render("proxmox", PER_CONTAINER, RenderContext(state(), vmid=number))
    for number in (100, 999999999):
        assert render("proxmox", PER_CONTAINER, RenderContext(state(), vmid=number)).text
    with pytest.raises(InvalidValueError, match="--vmid is missing"):
        render("proxmox", PER_CONTAINER, RenderContext(state()))
    with pytest.raises(RefusedError, match="privileged"):
        render("proxmox", IDENTITY, RenderContext(state(), vmid=101))
    hers = replace(PER_CONTAINER, within="alice", in_files=False)
    with pytest.raises(RefusedError, match="to alice alone"):
        render("proxmox", hers, RenderContext(state(), vmid=101))
    for name in ("lxc", "podman"):
        with pytest.raises(InvalidValueError, match="--vmid is not an option"):
            render(name, PER_CONTAINER, RenderContext(state(), vmid=0))


def test_a_note_names_the_version_that_maps_the_ids_of_a_mount() -> None:
    mapped = (Mount("/srv/web", "/data", owners="idmap"),)
    for name, version in (
        ("lxc", "LXC 5.0"),
        ("proxmox", "Proxmox VE 9 of May 2026"),
        ("oci", "runc 1.2"),
    ):
        number = 101 if name == "proxmox" else None
        context = RenderContext(state(), mounts=mapped, vmid=number)
        assert any(version in note for note in render(name, PER_CONTAINER, context).notes)
        plain = RenderContext(state(), vmid=number)
        assert not any(version in note for note in render(name, PER_CONTAINER, plain).notes)
