"""What is rendered for systemd-nspawn, run by it: flags, and the .nspawn file that --out writes."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from tests.engines.planned import (
    MAPS,
    PER_CONTAINER,
    SHARED,
    SINGLE_UID,
    check,
    check_closed,
    check_mounts_inside,
    check_odd_path,
    check_refused,
    render,
    shown,
    usernsplan,
)
from tests.engines.planned import allocate as allocate_for
from tests.engines.recipes_nspawn import SETTINGS_FOLDER, nspawn_run

if TYPE_CHECKING:
    from tests.engines.planned import Run
    from tests.engines.throwaway import ThrowawayHost

IDMAP = ":idmap"
FILE = f"{SETTINGS_FOLDER}/web.nspawn"


def by_flags(host: ThrowawayHost) -> Run:
    return lambda rendered, script: nspawn_run(
        host, shlex.split(rendered), ["/bin/sh", "-c", script]
    )


def by_file(host: ThrowawayHost) -> Run:
    """Run what --out wrote beforehand, whatever is printed."""
    return lambda _, script: nspawn_run(
        host, [], ["/bin/sh", "-c", script], settings=host.read(FILE).decode()
    )


def allocate(host: ThrowawayHost, *words: str) -> None:
    allocate_for(host, "nspawn", *words)


# Not shared: nspawn knows one range, and that strategy has two. It is refused, below.
@pytest.mark.parametrize(
    ("out", "words", "container", "expected"),
    [(False, *PER_CONTAINER), (False, *SINGLE_UID), (True, *PER_CONTAINER)],
    ids=["flags-per-container", "flags-single-uid", "file-per-container"],
)
def test_the_maps_and_the_owners_in_volumes_are_those_planned(
    host: ThrowawayHost, out: bool, words: tuple[str, ...], container: int, expected: int
) -> None:
    allocate(host, *words)
    run = by_file(host) if out else by_flags(host)
    check(host, "nspawn", run, container, expected, idmap="", out=out)


def test_an_identity_map_is_one(host: ThrowawayHost) -> None:
    allocate(host, "--strategy", "shared", "--identity")
    assert shown(by_flags(host)(render(host, "nspawn").stdout, MAPS)) == ([(0, 0, 65535)],) * 2


def test_a_volume_that_is_mapped_at_the_mount_is_kept_from_others_as_the_note_says(
    host: ThrowawayHost,
) -> None:
    allocate(host, "--strategy", "per-container")
    check_closed(host, "nspawn", by_flags(host))


def test_a_volume_in_which_something_is_mounted_is_seen_with_that(host: ThrowawayHost) -> None:
    allocate(host, "--strategy", "per-container")
    check_mounts_inside(host, "nspawn", by_flags(host))


def test_a_path_of_all_characters_that_are_let_through(host: ThrowawayHost) -> None:
    allocate(host, "--strategy", "per-container")
    check_odd_path(host, "nspawn", by_flags(host))


def test_the_file_gives_no_new_privileges_and_its_own_root_files_to_the_container(
    host: ThrowawayHost,
) -> None:
    allocate(host, "--strategy", "per-container")
    usernsplan(host, "render", "nspawn", "web", "--out", "/")
    said = by_file(host)(
        "",
        f"{MAPS}stat -c '%u:%g' /bin/busybox; touch /made; stat -c '%u:%g' /made; cat /proc/self/status",
    )
    assert shown(said) == ([(0, 589824, 65536)],) * 2
    _, _, rest = said.split("\n\n", 2)
    assert rest.split()[:2] == ["0:0", "0:0"]
    assert "NoNewPrivs:\t1\n" in rest


def test_a_file_that_says_something_else_is_replaced_only_with_yes(host: ThrowawayHost) -> None:
    allocate(host, "--strategy", "per-container")
    words = ("render", "nspawn", "web", "--out", "/")
    usernsplan(host, *words)
    written = host.read(FILE)
    assert "Already up to date" in usernsplan(host, *words).stdout
    host.write(FILE, "[Exec]\nBoot=yes\n")
    refused = usernsplan(host, *words, status=9)
    assert refused.stdout == ""
    assert FILE in refused.stderr
    assert host.read(FILE) == b"[Exec]\nBoot=yes\n"
    usernsplan(host, *words, "--replace-files")
    assert host.read(FILE) == written


@pytest.mark.parametrize(
    "words",
    [SHARED[0], ("--strategy", "single-uid", "--container-id", "33")],
    ids=["shared", "without-root"],
)
def test_what_is_not_one_range_from_0_is_refused(
    host: ThrowawayHost, words: tuple[str, ...]
) -> None:
    allocate(host, *words)
    check_refused(host, "nspawn", "it takes one range, from container id 0")


def test_the_note_names_no_machine_that_cannot_be_one(host: ThrowawayHost) -> None:
    # nspawn: "Invalid machine name: web_1". The flags do not need it.
    usernsplan(host, "allocate", "--strategy", "per-container", "web_1", "--engine", "nspawn")
    assert "-M web_1 " not in usernsplan(host, "render", "nspawn", "web_1").stderr
