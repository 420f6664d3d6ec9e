"""What is rendered for LXD, run by it: an instance's YAML, and root's lines in subuid and subgid.

Incus has the same keys and the same file, but is not to be had from every distribution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engines import recipes
from tests.engines.planned import (
    ODDER,
    STRATEGIES,
    UNFIXED,
    check,
    check_note_on_volume,
    check_refused,
    make_volume,
    render,
    usernsplan,
)
from tests.engines.planned import allocate as allocate_for
from tests.engines.recipes_lxd import StartFailed, lxd

if TYPE_CHECKING:
    from tests.engines.planned import Run
    from tests.engines.recipes_lxd import Lxd
    from tests.engines.throwaway import ThrowawayHost

# Real engines and browsers take their time; what they are given is tested without them.
pytestmark = pytest.mark.slow


def give_root_a_range(host: ThrowawayHost) -> None:
    """For those instances that have none of their own."""
    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, "root:100000:65536\n")


def allocate(host: ThrowawayHost, *words: str) -> None:
    give_root_a_range(host)
    allocate_for(host, "lxd", *words)


def runner(daemon: Lxd) -> Run:
    def run(rendered: str, script: str) -> str:
        name = daemon.create(rendered)
        daemon.start(name)
        return daemon.execute(name, ["sh", "-c", script])

    return run


@STRATEGIES
def test_the_maps_and_the_owners_in_volumes_are_those_planned(
    host: ThrowawayHost, words: tuple[str, ...], container: int, expected: int
) -> None:
    allocate(host, *words)
    with lxd(host) as daemon:
        check(host, "lxd", runner(daemon), container, expected)
    usernsplan(host, "release", "web")
    assert host.read("/etc/subuid") == host.read("/etc/subgid") == b"root:100000:65536\n"


def test_an_identity_map_past_subuid_is_one(host: ThrowawayHost) -> None:
    allocate(host, "--strategy", "shared", "--identity", "--max", "4294967295")
    with lxd(host) as daemon:
        name = daemon.create(render(host, "lxd").stdout)
        assert [recipes.lines(ids) for ids in daemon.start(name)] == [[(0, 0, 4294967295)]] * 2


def test_with_the_lines_that_were_granted_and_the_command_of_the_note_a_volume_is_the_instances(
    host: ThrowawayHost,
) -> None:
    give_root_a_range(host)
    allocate_for(host, "lxd", "--strategy", "per-container")
    with lxd(host) as daemon:
        check_note_on_volume(host, "lxd", runner(daemon), ODDER)


def test_a_volume_is_mapped_at_the_mount_where_it_was_asked_for(host: ThrowawayHost) -> None:
    allocate(host, "--strategy", "per-container")
    make_volume(host)
    rendered = render(host, "lxd", f"{UNFIXED}:/vol:idmap")
    # LXD 5.0 takes newer kernels for such as have no idmapped mounts, and the instance does not start.
    assert "idmap needs" in rendered.stderr
    with lxd(host) as daemon:
        try:
            said = runner(daemon)(rendered.stdout, "cat /vol/old; touch /vol/new")
        except StartFailed as failed:
            # It says so itself, whatever "lxc info" has for kernel features.
            if "idmapping abilities are required" not in str(failed):
                raise
            return
        assert said.split() == ["old"]
        assert host.owner(f"{UNFIXED}/new") == (0, 0)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--strategy", "single-uid", "--container-id", "33"), "starts at container id 0"),
        (
            ("--strategy", "shared", "--max", "4294967294"),
            "newuidmap grants only what is in subuid",
        ),
    ],
    ids=["without-root", "past-65535"],
)
def test_a_map_without_container_root_or_that_is_not_in_subuid_is_refused(
    host: ThrowawayHost, words: tuple[str, ...], why: str
) -> None:
    allocate(host, *words)
    check_refused(host, "lxd", why)


def test_the_note_names_no_instance_that_cannot_be_one(host: ThrowawayHost) -> None:
    # LXD: "Name can only contain alphanumeric and hyphen characters".
    usernsplan(host, "allocate", "--strategy", "per-container", "web_1", "--engine", "lxd")
    assert "lxc init IMAGE web_1 " not in usernsplan(host, "render", "lxd", "web_1").stderr
