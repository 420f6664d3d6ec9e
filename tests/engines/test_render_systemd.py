"""What is rendered for a systemd service: a drop-in, judged by systemd, and with which the service then runs.

Only single-uid can be tried: a service runs as one user, and systemd has no key for a map. The others are refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.engines.planned import (
    MAPS,
    ODD,
    OPEN,
    PER_CONTAINER,
    SHARED,
    UNFIXED,
    check_no_idmap,
    check_refused,
    make_volume,
    maps,
    render,
    shown,
    usernsplan,
)
from tests.engines.planned import allocate as allocate_for
from tests.engines.recipes_systemd import UNITS, service_run, understood, verify
from tests.engines.throwaway import CommandFailed

if TYPE_CHECKING:
    from tests.engines.throwaway import ThrowawayHost

# Real engines and browsers take their time; what they are given is tested without them.
pytestmark = pytest.mark.slow


UNIT = "web.service"
DROP_IN = f"{UNITS}/{UNIT}.d/10-usernsplan.conf"
SERVICE = {f"{UNITS}/{UNIT}": "[Service]\nExecStart=/bin/true\n"}
SINGLE_UID = ("--strategy", "single-uid")
ID = 1000000000


def allocate(host: ThrowawayHost, *words: str) -> None:
    allocate_for(host, "systemd", *words)


def files(rendered: str) -> dict[str, str]:
    return {**SERVICE, DROP_IN: rendered}


def make_account(host: ThrowawayHost, notes: str) -> None:
    """Do what the note says."""
    [commands] = re.findall(r"the id has to belong to an account; to make one: (.+)", notes)
    host.run("sh", "-euc", commands)


def test_the_service_runs_as_the_planned_id_and_keeps_to_its_volumes(host: ThrowawayHost) -> None:
    allocate(host, *SINGLE_UID)
    usernsplan(host, "fix-volume", make_volume(host, ODD))
    host.run("install", "-d", "-m", "777", OPEN)
    rendered = render(host, "systemd", f"{OPEN}:/open", f"{ODD}:{ODD}", f"{ODD}:/ro:ro")
    make_account(host, rendered.stderr)
    verify(host, files(rendered.stdout), UNIT)
    script = f"""
        {MAPS}id -u; id -g
        grep -E '^(NoNewPrivs|CapBnd)' /proc/self/status
        touch /open/made
        cat '{ODD}/old'
        echo more >>'{ODD}/more'
        cat /ro/old
        touch /ro/new 2>/dev/null || echo no
    """
    said = service_run(host, files(rendered.stdout), UNIT, script, [OPEN, ODD])
    # The service sees its id as it is, and nobody else but root.
    assert shown(said) == ([(0, 0, 1), (ID, ID, 1)],) * 2
    seen = said.split("\n\n", 2)[2].split()
    assert seen == [str(ID), str(ID), "CapBnd:", "0" * 16, "NoNewPrivs:", "1", "old", "old", "no"]
    assert maps(host) == ([(0, ID, 1)],) * 2
    assert host.owner(f"{OPEN}/made") == host.owner(f"{ODD}/more") == (ID, ID)


def test_the_file_that_out_writes_is_the_drop_in_and_systemd_understands_it(
    host: ThrowawayHost,
) -> None:
    allocate(host, *SINGLE_UID)
    volume = make_volume(host)
    words = ("render", "systemd", "web", "--volume", f"{volume}:/vol:ro", "--out", "/")
    usernsplan(host, *words)
    assert "Already up to date" in usernsplan(host, *words).stdout
    rendered = render(host, "systemd", f"{volume}:/vol:ro").stdout
    assert host.read(DROP_IN).decode() == rendered
    verify(host, SERVICE, UNIT)
    expected = {
        "User": [str(ID)],
        "Group": [str(ID)],
        "PrivateUsers": ["yes"],
        "BindReadOnlyPaths": [f"{volume}:/vol:rbind"],
    }
    assert {key: understood(host, SERVICE, UNIT, key) for key in expected} == expected


def test_two_services_have_two_ids_and_cannot_read_each_others_volumes(host: ThrowawayHost) -> None:
    for name in ("web", "db"):
        usernsplan(host, "allocate", *SINGLE_UID, name, "--engine", "systemd")
    usernsplan(host, "fix-volume", make_volume(host), "--container", "db")
    rendered = render(host, "systemd", f"{UNFIXED}:/vol")
    assert f"usernsplan fix-volume {UNFIXED} --container web --from db\n" in rendered.stderr
    make_account(host, rendered.stderr)
    script = "id -u; cat /vol/old 2>/dev/null || echo no; touch /vol/new 2>/dev/null || echo no"
    assert service_run(host, files(rendered.stdout), UNIT, script, [UNFIXED]).split() == [
        str(ID),
        "no",
        "no",
    ]
    assert host.owner(f"{UNFIXED}/old") == (ID + 10000, ID + 10000)


def test_without_the_account_it_does_not_start_and_with_it_nothing_else_changes(
    host: ThrowawayHost,
) -> None:
    allocate(host, *SINGLE_UID)
    rendered = render(host, "systemd")
    with pytest.raises(CommandFailed, match=r"exit status 217(.|\n)*Failed at step USER"):
        service_run(host, files(rendered.stdout), UNIT, "id -u")
    before = host.read("/etc/subuid"), host.read("/etc/subgid")
    make_account(host, rendered.stderr)
    assert (host.read("/etc/subuid"), host.read("/etc/subgid")) == before
    assert host.run("id", f"u{ID}").stdout.split()[:2] == [f"uid={ID}(u{ID})", f"gid={ID}(u{ID})"]
    assert service_run(host, files(rendered.stdout), UNIT, "id -u").split() == [str(ID)]
    # An account in the range is this container's own: the allocation stands.
    assert (
        "Already up to date"
        in usernsplan(host, "allocate", *SINGLE_UID, "web", "--engine", "systemd").stdout
    )


@pytest.mark.parametrize("owner", ["root", "longer-than-the-name-of-an-account-may-be"])
def test_the_account_of_the_note_can_be_made_whoever_owns_the_lines(
    host: ThrowawayHost, owner: str
) -> None:
    allocate(host, *SINGLE_UID, "--owner", owner)
    rendered = render(host, "systemd")
    make_account(host, rendered.stderr)
    assert service_run(host, files(rendered.stdout), UNIT, "id -u").split() == [str(ID)]


@pytest.mark.parametrize("words", [PER_CONTAINER[0], SHARED[0]], ids=["per-container", "shared"])
def test_a_map_of_more_ids_is_refused(host: ThrowawayHost, words: tuple[str, ...]) -> None:
    allocate(host, *words)
    check_refused(host, "systemd", "systemd has no key for a map")


def test_an_idmap_is_refused(host: ThrowawayHost) -> None:
    allocate(host, *SINGLE_UID)
    check_no_idmap(host, "systemd")
