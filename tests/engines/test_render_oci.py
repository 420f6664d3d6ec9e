"""What is rendered for OCI runtimes, run by crun and runc: a patched bundle, and mounts whose ids are mapped.

That the fragment of a config.json gives the planned maps to both, test_allocate shows.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Literal

import pytest

from tests.command import slow
from tests.engines import recipes
from tests.engines.planned import (
    MAPS,
    ODDER,
    PER_CONTAINER,
    SHARED,
    SINGLE_UID,
    STRATEGIES,
    UNFIXED,
    check,
    check_closed,
    check_note_on_volume,
    check_refused,
    make_volume,
    maps,
    render,
    shown,
    usernsplan,
)
from tests.engines.planned import allocate as allocate_for
from tests.engines.throwaway import CommandFailed, require

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.engines.planned import Run
    from tests.engines.throwaway import ThrowawayHost

BUNDLE = "/tmp/bundle"
CONFIG = f"{BUNDLE}/config.json"
ROOTFS = f"{BUNDLE}/rootfs"


def allocate(host: ThrowawayHost, *words: str) -> None:
    allocate_for(host, "oci", *words)


def runner(host: ThrowawayHost) -> Run:
    """Run a fragment with crun; the folders for its mounts are made by host root, whose the root file system is."""

    def run(rendered: str, script: str) -> str:
        fragment = json.loads(rendered)
        make_mount_points(
            host, recipes.ROOTFS, (mount["destination"] for mount in fragment["mounts"])
        )
        return recipes.oci_run(host, "crun", fragment, ["sh", "-c", script])

    return run


def make_mount_points(host: ThrowawayHost, rootfs: str, destinations: Iterable[str]) -> None:
    if not host.exists(rootfs):
        recipes.busybox_rootfs(host, rootfs)
    host.run("mkdir", "-p", *(rootfs + destination for destination in destinations))


def make_bundle(host: ThrowawayHost, runtime: str, script: str) -> None:
    """Make what 'crun spec' and 'runc spec' do, for a script that may write to its root and give files away."""
    require(runtime)
    make_mount_points(host, ROOTFS, ["/vol"])
    host.run("sh", "-euc", f"cd {BUNDLE}; {runtime} spec")
    config = json.loads(host.read(CONFIG))
    capabilities = dict.fromkeys(("bounding", "effective", "permitted"), recipes.CAPABILITIES)
    config["process"] |= {
        "terminal": False,
        "args": ["/bin/sh", "-c", script],
        "capabilities": capabilities,
    }
    config["root"]["readonly"] = False
    # crun raises a limit to load a program for the devices, and a container that runs this test may not be let.
    del config["linux"]["resources"]
    host.write(CONFIG, json.dumps(config))


def patch(host: ThrowawayHost, *volumes: str) -> str:
    """Let the bundle be patched, and return the notes."""
    words = [word for volume in volumes for word in ("--volume", volume)]
    return usernsplan(host, "render", "oci", "web", "--bundle", BUNDLE, *words).stderr


def without_gid(config: dict[str, Any], gid: str) -> dict[str, Any]:
    mounts = [
        {**mount, "options": [option for option in mount.get("options", []) if option != gid]}
        for mount in config["mounts"]
    ]
    return {**config, "mounts": mounts}


@pytest.mark.parametrize(
    ("runtime", "words", "container", "expected"),
    [*slow(("crun", *PER_CONTAINER), ("crun", *SINGLE_UID)), ("crun", *SHARED), ("runc", *SHARED)],
    ids=["crun-per-container", "crun-single-uid", "crun-shared", "runc-shared"],
)
def test_a_patched_bundle_has_the_planned_maps_and_its_root_and_volumes_the_planned_owners(
    host: ThrowawayHost,
    runtime: Literal["crun", "runc"],
    words: tuple[str, ...],
    container: int,
    expected: int,
) -> None:
    allocate(host, *words)
    script = f"stat -c '%u:%g' / /vol/old; touch /made /vol/made; chown {container}:{container} /made /vol/made"
    make_bundle(host, runtime, MAPS + script)
    make_volume(host)
    before = json.loads(host.read(CONFIG))
    notes = patch(host, f"{UNFIXED}:/vol")

    # What the notes say is what is left to do: nothing works without, and everything with.
    with pytest.raises(CommandFailed):
        host.run(runtime, "run", "--bundle", BUNDLE, "before")
    assert f"usernsplan fix-volume {UNFIXED} --container web\n" in notes
    usernsplan(host, "fix-volume", UNFIXED, "--container", "web")
    assert re.search(r"usernsplan fix-volume \S+/rootfs --container web --mode shift\n", notes)
    usernsplan(host, "fix-volume", ROOTFS, "--mode", "shift")
    planned = maps(host)
    root = planned[0][0][1]
    if "/dev/pts is mounted with gid=5, which is not mapped; remove that option" in notes:
        patched = json.dumps(without_gid(json.loads(host.read(CONFIG)), "gid=5"))
        host.write(CONFIG, patched)
        # However it is indented: it says all this already.
        assert "not mapped" not in patch(host, f"{UNFIXED}:/vol")
        assert host.read(CONFIG).decode() == patched
    else:
        assert "per-container" in words
    said = host.run(runtime, "run", "--bundle", BUNDLE, "after").stdout
    assert shown(said) == planned
    assert said.split("\n\n", 2)[2].split() == ["0:0", "0:0"]
    assert host.owner(f"{ROOTFS}/made") == host.owner(f"{UNFIXED}/made") == (expected, expected)
    assert host.owner(ROOTFS) == host.owner(f"{UNFIXED}/old") == (root, root)

    # Nothing but that has changed.
    after = json.loads(host.read(CONFIG))
    assert after["mounts"].pop()["destination"] == "/vol"
    assert after["linux"]["namespaces"].pop() == {"type": "user"}
    assert {
        after["linux"].pop("uidMappings")[0]["hostID"],
        after["linux"].pop("gidMappings")[0]["hostID"],
    } == {root}
    assert without_gid(after, "gid=5") == without_gid(before, "gid=5")


@STRATEGIES
def test_crun_maps_the_ids_of_a_mount_where_it_was_asked_for(
    host: ThrowawayHost, words: tuple[str, ...], container: int, expected: int
) -> None:
    allocate(host, *words)
    check(host, "oci", runner(host), container, expected, idmap="idmap")


def test_a_volume_that_is_mapped_at_the_mount_is_kept_from_others_as_the_note_says(
    host: ThrowawayHost,
) -> None:
    allocate(host, "--strategy", "per-container")
    check_closed(host, "oci", runner(host), option=":idmap")


def test_a_volume_is_given_to_the_container_by_the_command_of_the_note(host: ThrowawayHost) -> None:
    allocate(host, "--strategy", "per-container")
    check_note_on_volume(host, "oci", runner(host), ODDER)


def test_a_runtime_that_leaves_the_idmap_out_is_what_the_note_warns_of(host: ThrowawayHost) -> None:
    require("runc")
    allocate(host, "--strategy", "per-container")
    make_volume(host)
    rendered = render(host, "oci", f"{UNFIXED}:/vol:idmap")
    assert "idmap needs crun, or runc 1.2 or newer" in rendered.stderr
    make_mount_points(host, recipes.ROOTFS, ["/vol"])
    said = recipes.oci_run(
        host, "runc", json.loads(rendered.stdout), ["stat", "-c", "%u", "/vol/old"]
    )
    _, _, version = host.run("runc", "--version").stdout.splitlines()[0].partition("version ")
    older = tuple(map(int, version.split(".")[:2])) < (1, 2)
    assert said.strip() == ("65534" if older else "0")


def test_a_bundle_that_joins_a_user_namespace_is_refused(host: ThrowawayHost) -> None:
    allocate(host, "--strategy", "per-container")
    config = {
        "ociVersion": "1.0.2",
        "linux": {"namespaces": [{"type": "user", "path": "/proc/1/ns/user"}]},
    }
    host.write(CONFIG, json.dumps(config))
    refused = usernsplan(host, "render", "oci", "web", "--bundle", BUNDLE, status=9)
    assert refused.stdout == ""
    assert json.loads(host.read(CONFIG)) == config


def test_an_engine_that_cannot_names_those_that_the_table_has(host: ThrowawayHost) -> None:
    allocate(host, *SHARED[0])
    able = check_refused(host, "nspawn", "one range")
    table = json.loads(usernsplan(host, "render", "--list", "web", "--json").stdout)["engines"]
    assert able == [row["engine"] for row in table if row["fit"] != "no"]
