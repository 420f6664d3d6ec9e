"""What is rendered for LXC, run by LXC: lines of a container's config, and root's own in subuid and subgid."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.engines.planned import (
    MAPS,
    STRATEGIES,
    check,
    check_closed,
    check_mounts_inside,
    check_odd_path,
    check_owned,
    check_reallocated,
    check_refused,
    make_volume,
    maps,
    render,
    shown,
    usernsplan,
)
from tests.engines.planned import allocate as allocate_for
from tests.engines.recipes_lxc import lxc_execute
from tests.engines.throwaway import CommandFailed

if TYPE_CHECKING:
    from tests.engines.planned import Run
    from tests.engines.throwaway import ThrowawayHost

PLANNED = ([(0, 589824, 65536)], [(0, 589824, 65536)])
FILE = "/var/lib/lxc/web/usernsplan.conf"


def runner(host: ThrowawayHost) -> Run:
    return lambda rendered, script: lxc_execute(host, rendered, ["sh", "-c", script])


def allocate(host: ThrowawayHost, *words: str) -> None:
    allocate_for(host, "lxc", *words)


@STRATEGIES
def test_the_maps_and_the_owners_in_volumes_are_those_planned(
    host: ThrowawayHost, words: tuple[str, ...], container: int, expected: int
) -> None:
    allocate(host, *words)
    check(host, "lxc", runner(host), container, expected, idmap="")


def test_an_identity_map_is_one_also_past_subuid(host: ThrowawayHost) -> None:
    # LXC writes a map that has host root itself, without newuidmap.
    allocate(host, "--strategy", "shared", "--identity", "--max", "4294967295")
    assert shown(runner(host)(render(host, "lxc").stdout, MAPS)) == ([(0, 0, 4294967295)],) * 2


def test_a_volume_that_is_mapped_at_the_mount_is_kept_from_others_as_the_note_says(
    host: ThrowawayHost,
) -> None:
    allocate(host, "--strategy", "per-container")
    check_closed(host, "lxc", runner(host))


def test_a_volume_in_which_something_is_mounted_is_seen_with_that(host: ThrowawayHost) -> None:
    allocate(host, "--strategy", "per-container")
    check_mounts_inside(host, "lxc", runner(host))


def test_a_volume_that_has_the_planned_owner_is_mounted_as_it_is(host: ThrowawayHost) -> None:
    allocate(host, "--strategy", "per-container")
    check_owned(host, "lxc", runner(host))


def test_a_volume_of_a_container_that_was_released_is_said_to_need_another_owner(
    host: ThrowawayHost,
) -> None:
    allocate(host, "--strategy", "per-container")
    check_reallocated(host, "lxc", runner(host))


def test_a_path_of_all_characters_that_are_let_through(host: ThrowawayHost) -> None:
    allocate(host, "--strategy", "per-container")
    check_odd_path(host, "lxc", runner(host))


def test_roots_lines_stand_and_without_them_the_container_does_not_start(
    host: ThrowawayHost,
) -> None:
    allocate(host, "--strategy", "per-container")
    for path in ("/etc/subuid", "/etc/subgid"):
        assert "root:589824:32768\nroot:622592:32768\n" in host.read(path).decode()
    rendered = render(host, "lxc").stdout
    assert shown(runner(host)(rendered, MAPS)) == PLANNED
    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, "usernsplan-web:589824:65536\n")
    with pytest.raises(CommandFailed, match=r"newuidmap: uid range .* not allowed"):
        lxc_execute(host, rendered, ["true"])
    # Said again, the same words put the lines back.
    allocate(host, "--strategy", "per-container")
    assert shown(runner(host)(rendered, MAPS)) == PLANNED


@pytest.mark.parametrize(
    "words",
    [
        ("--strategy", "per-container"),
        ("--strategy", "per-container", "--size", "1000"),
        ("--strategy", "shared", "--dockerroot", "7"),
    ],
    ids=["per-container", "of-another-size", "shared"],
)
def test_where_root_has_no_lines_a_note_has_the_command_that_grants_them(
    host: ThrowawayHost, words: tuple[str, ...]
) -> None:
    allocate_for(host, "podman", *words)
    rendered = render(host, "lxc")
    with pytest.raises(CommandFailed, match=r"newuidmap: uid range .* not allowed"):
        lxc_execute(host, rendered.stdout, ["true"])
    pasted = re.search(r"this grants them: usernsplan (.*)", rendered.stderr)
    assert pasted
    assert pasted[1].split() == ["allocate", *words, "web", "--engine", "lxc"]
    usernsplan(host, *pasted[1].split())
    assert shown(runner(host)(rendered.stdout, MAPS)) == maps(host)
    assert "newuidmap" not in render(host, "lxc").stderr


def test_release_takes_roots_lines_of_this_container_and_no_others(host: ThrowawayHost) -> None:
    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, "root:100000:65536\n")
    for name in ("web", "db"):
        usernsplan(host, "allocate", "--strategy", "per-container", name, "--engine", "lxc")
    run = partial(lxc_execute, host, argv=["sh", "-c", MAPS])
    web, db = (usernsplan(host, "render", "lxc", name).stdout for name in ("web", "db"))
    assert shown(run(web)) == ([(0, 589824, 65536)],) * 2
    assert shown(run(db)) == ([(0, 655360, 65536)],) * 2
    usernsplan(host, "release", "web")
    for path in ("/etc/subuid", "/etc/subgid"):
        of_db = ["root:655360:32768", "root:688128:32768", "usernsplan-db:655360:65536"]
        rest = ["root:100000:65536", *of_db]
        assert sorted(host.read(path).decode().splitlines()) == rest
    assert shown(run(db)) == ([(0, 655360, 65536)],) * 2
    with pytest.raises(CommandFailed, match=r"newuidmap: uid range .* not allowed"):
        run(web)


@pytest.mark.parametrize("owner", [(), ("--owner", "root")], ids=["two-owners", "both-roots"])
def test_release_leaves_the_lines_of_root_that_another_container_has_too(
    host: ThrowawayHost, owner: tuple[str, ...]
) -> None:
    for name in ("web", "db"):
        words = ("--strategy", "shared", "--dockerroot", "7", name, *owner, "--engine", "lxc")
        said = usernsplan(host, "allocate", *words).stderr
    usernsplan(host, "release", "web")
    db = usernsplan(host, "render", "lxc", "db").stdout
    assert shown(runner(host)(db, MAPS)) == ([(0, 7, 1), (8, 8, 65528)],) * 2
    # When db came, the lines were ours: nobody else has that id.
    assert "gives to root" not in said


def test_the_file_that_out_writes_is_included_and_roots_lines_are_there(
    host: ThrowawayHost,
) -> None:
    allocate(host, "--strategy", "shared", "--dockerroot", "7")
    before = host.read("/etc/subuid"), host.read("/etc/subgid")
    volume = make_volume(host)
    words = ("render", "lxc", "web", "--volume", f"{volume}:/vol", "--out", "/")
    assert f"lxc.include = {FILE}\n" in usernsplan(host, *words).stderr
    said = runner(host)(f"lxc.include = {FILE}", f"{MAPS}cat /vol/old")
    assert shown(said) == maps(host)
    assert said.endswith("\n\nold\n")
    assert host.read(FILE).decode() == render(host, "lxc", f"{volume}:/vol").stdout
    assert (host.read("/etc/subuid"), host.read("/etc/subgid")) == before
    assert "Already up to date" in usernsplan(host, *words).stdout


def test_out_grants_root_nothing_that_release_would_leave_behind(host: ThrowawayHost) -> None:
    allocate_for(host, "podman", "--strategy", "per-container")
    usernsplan(host, "render", "lxc", "web", "--out", "/")
    assert b"root" not in host.read("/etc/subuid")
    allocate_for(host, "lxc", "--strategy", "per-container")
    assert shown(runner(host)(f"lxc.include = {FILE}", MAPS)) == PLANNED
    usernsplan(host, "release", "web")
    assert host.read("/etc/subuid") == host.read("/etc/subgid") == b""


def test_a_map_that_is_not_in_subuid_is_refused(host: ThrowawayHost) -> None:
    allocate(host, "--strategy", "shared", "--max", "4294967294")
    check_refused(host, "lxc", "newuidmap grants only what is in subuid")


def test_a_map_without_container_root_is_refused(host: ThrowawayHost) -> None:
    # LXC: "No uid mapping for container root".
    allocate(host, "--strategy", "single-uid", "--container-id", "33")
    check_refused(host, "lxc", "container")
