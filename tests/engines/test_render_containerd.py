"""What is rendered for containerd, run by it: flags of ctr run."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from tests.engines.planned import (
    MAPS,
    ODD,
    PER_CONTAINER,
    SHARED,
    SINGLE_UID,
    check,
    check_no_idmap,
    check_note_on_volume,
    check_refused,
    render,
    shown,
)
from tests.engines.planned import allocate as allocate_for
from tests.engines.recipes_containerd import containerd

if TYPE_CHECKING:
    from tests.engines.planned import Run
    from tests.engines.recipes import Line
    from tests.engines.recipes_containerd import Containerd
    from tests.engines.throwaway import ThrowawayHost


def runner(daemon: Containerd) -> Run:
    return lambda rendered, script: daemon.run(shlex.split(rendered), ["sh", "-c", script])


def allocate(host: ThrowawayHost, *words: str) -> None:
    allocate_for(host, "containerd", *words)


# The other two strategies cannot be had: ctr has to find gid 5. They are refused, below. What has more than one extent,
# test_holes has.
def test_the_maps_and_the_owners_in_volumes_are_those_planned(host: ThrowawayHost) -> None:
    words, container, expected = PER_CONTAINER
    allocate(host, *words)
    with containerd(host) as daemon:
        check(host, "containerd", runner(daemon), container, expected)
        check_note_on_volume(host, "containerd", runner(daemon), ODD.replace("=", ""))


@pytest.mark.parametrize(
    ("words", "planned"),
    [
        (("--strategy", "per-container", "--size", "6"), (0, 589824, 6)),
        (("--strategy", "shared", "--identity"), (0, 0, 65535)),
    ],
    ids=["with-gid-5-the-last", "identity"],
)
def test_one_extent_is_enough_that_has_gid_5(
    host: ThrowawayHost, words: tuple[str, ...], planned: Line
) -> None:
    allocate(host, *words)
    rendered = render(host, "containerd").stdout
    with containerd(host) as daemon:
        assert shown(runner(daemon)(rendered, MAPS)) == ([planned], [planned])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (SHARED[0], "ctr mounts /dev/pts for gid 5, which is not mapped"),
        (SINGLE_UID[0], "ctr mounts /dev/pts for gid 5, which is not mapped"),
    ],
    ids=["shared", "single-uid"],
)
def test_a_map_without_gid_5_is_refused(
    host: ThrowawayHost, words: tuple[str, ...], why: str
) -> None:
    allocate(host, *words)
    check_refused(host, "containerd", why)


def test_an_idmap_is_refused(host: ThrowawayHost) -> None:
    allocate(host, "--strategy", "per-container")
    check_no_idmap(host, "containerd")
