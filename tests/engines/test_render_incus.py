"""Root's lines beside the real Incus: its own instances still start, and so do those with ids of ours."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.engines import recipes
from tests.engines.planned import ODDER, STRATEGIES, check, check_note_on_volume, render, usernsplan
from tests.engines.planned import allocate as allocate_for
from tests.engines.recipes_incus import incus
from tests.engines.recipes_lxc import lxc_execute
from tests.engines.recipes_lxd import StartFailed, lxd

if TYPE_CHECKING:
    from tests.engines.planned import Run
    from tests.engines.recipes_incus import Incus
    from tests.engines.recipes_lxd import Lxd
    from tests.engines.throwaway import ThrowawayHost

# Real engines and browsers take their time; what they are given is tested without them.
pytestmark = pytest.mark.slow

FILES = ("/etc/subuid", "/etc/subgid")
# What Debian's package gives to root.
OF_INSTANCES = "root:1000000:1000000000\n"
ALL = [(0, 1000000, 1000000000)]


def put(host: ThrowawayHost, lines: str) -> None:
    for path in FILES:
        host.write(path, lines)


def runner(daemon: Incus | Lxd) -> Run:
    def run(rendered: str, script: str) -> str:
        name = daemon.create(rendered)
        daemon.start(name)
        return daemon.execute(name, ["sh", "-c", script])

    return run


def started(daemon: Incus | Lxd, config: str = "") -> list[recipes.Line]:
    """The map of a new instance, the same for uids and gids; without a config, of a plain one."""
    uids, gids = map(recipes.lines, daemon.start(daemon.create(config)))
    assert uids == gids
    return uids


def findings(host: ThrowawayHost) -> list[dict[str, str]]:
    said = host.run(sys.executable, "-m", "usernsplan", "check", "--json", check=False).stdout
    found: list[dict[str, str]] = json.loads(said)["findings"]
    return found


def codes(host: ThrowawayHost) -> set[str]:
    return {one["code"] for one in findings(host)}


@STRATEGIES
def test_the_maps_and_the_owners_in_volumes_are_those_planned(
    host: ThrowawayHost, words: tuple[str, ...], container: int, expected: int
) -> None:
    # Debian's line would have the ids that the strategy gives out first.
    put(host, "root:100000:65536\n")
    allocate_for(host, "incus", *words)
    with incus(host) as daemon:
        check(host, "incus", runner(daemon), container, expected)
    usernsplan(host, "release", "web")
    assert {host.read(path).decode() for path in FILES} == {"root:100000:65536\n"}


def test_with_the_lines_that_were_granted_and_the_command_of_the_note_a_volume_is_the_instances(
    host: ThrowawayHost,
) -> None:
    put(host, OF_INSTANCES)
    allocate_for(host, "incus", "--strategy", "per-container")
    with incus(host) as daemon:
        check_note_on_volume(host, "incus", runner(daemon), ODDER)


@pytest.mark.parametrize("size", ["65536", "200000"])
def test_beside_ours_a_plain_instance_starts_in_incus_and_lxd_and_ours_in_lxc_too(
    host: ThrowawayHost, size: str
) -> None:
    put(host, OF_INSTANCES)
    allocate_for(host, "incus", "--strategy", "per-container", "--size", size)
    ours = [(0, 589824, int(size))]
    rendered = render(host, "incus").stdout
    with incus(host) as daemon:
        assert started(daemon) == ALL
        assert started(daemon, rendered) == ours
        # The machine's own accounts and files aside, nothing is wrong.
        wrong = [one for one in findings(host) if one["severity"] == "error"]
        assert not wrong
        # The daemon names its instances.
        assert "Incus (instance throwaway" in usernsplan(host, "whois", "1000000").stdout
    with lxd(host) as other:
        assert started(other) == ALL
        assert started(other, rendered) == ours
    config = usernsplan(host, "render", "lxc", "web").stdout
    maps = lxc_execute(host, config, ["cat", "/proc/self/uid_map", "/proc/self/gid_map"])
    assert recipes.lines(maps) == ours * 2


def test_a_large_line_from_before_incus_stops_plain_instances_until_it_is_granted_again(
    host: ThrowawayHost,
) -> None:
    host.run("sh", "-c", "mv /usr/libexec/incus /usr/libexec/away; mv /usr/bin/lxd /usr/bin/away")
    put(host, OF_INSTANCES)
    usernsplan(host, "allocate", "--strategy", "per-container", "web", "--engine", "lxc")
    # As earlier versions granted it.
    small = "root:589824:32768\nroot:622592:32768\n"
    assert host.read(FILES[0]).decode().endswith(small)
    put(host, host.read(FILES[0]).decode().replace(small, "root:589824:65536\n"))
    host.run(
        "python3",
        "-c",
        "import sqlite3; c = sqlite3.connect('/var/lib/usernsplan/ledger.sqlite3'); "
        "c.execute(\"UPDATE allocation SET split_owners = '[]'\"); c.commit()",
    )
    host.run("sh", "-c", "mv /usr/libexec/away /usr/libexec/incus; mv /usr/bin/away /usr/bin/lxd")
    assert "USN087" in codes(host)
    with incus(host) as daemon, pytest.raises(StartFailed, match="Invalid argument"):
        started(daemon)
    usernsplan(host, "allocate", "web", "--engine", "incus")
    assert not codes(host).intersection({"USN028", "USN087"})
    with incus(host) as daemon:
        assert started(daemon) == ALL
        assert started(daemon, render(host, "incus").stdout) == [(0, 589824, 65536)]


@pytest.mark.parametrize("missing", [FILES, FILES[1:]], ids=["both", "subgid"])
def test_where_no_files_are_the_ids_of_instances_stay_theirs_and_they_start(
    host: ThrowawayHost, missing: tuple[str, ...]
) -> None:
    put(host, "")
    host.run("rm", *missing)
    assert "Incus (all instances)" in usernsplan(host, "whois", "1000000").stdout
    usernsplan(host, "allocate", "--strategy", "per-container", "web", "--engine", "incus")
    assert {host.read(path).decode().splitlines()[0] for path in FILES} == {OF_INSTANCES.strip()}
    with incus(host) as daemon:
        assert started(daemon) == ALL
        assert started(daemon, render(host, "incus").stdout) == [(0, 589824, 65536)]


def test_a_second_large_line_is_an_error_of_check_and_its_remedy_helps(host: ThrowawayHost) -> None:
    put(host, OF_INSTANCES + "root:1001000000:1000000000\n")
    [found, _] = [one for one in findings(host) if one["code"] == "USN087"]
    assert found["severity"] == "error"
    with incus(host) as daemon, pytest.raises(StartFailed):
        started(daemon)
    command = found["hint"].split(": ")[1].split(";")[0]
    assert command.startswith("sed -i ")
    host.run("sh", "-c", command)
    assert "USN087" not in codes(host)
    with incus(host) as daemon:
        assert started(daemon) == ALL


def test_a_line_of_owner_0_is_renamed_and_then_everything_starts(host: ThrowawayHost) -> None:
    put(host, OF_INSTANCES.replace("root", "0"))
    words = ("allocate", "--strategy", "per-container", "web", "--engine", "lxc")
    refused = usernsplan(host, *words, status=9)
    assert "rename the owner first" in refused.stderr
    assert host.read(FILES[0]).decode() == OF_INSTANCES.replace("root", "0")
    host.run("sh", "-c", refused.stderr[refused.stderr.index("sed -i") :].splitlines()[0])
    usernsplan(host, *words)
    with incus(host) as daemon:
        assert started(daemon) == ALL
        assert started(daemon, render(host, "incus").stdout) == [(0, 589824, 65536)]


def test_without_a_line_for_instances_the_remedy_of_check_helps(host: ThrowawayHost) -> None:
    put(host, "alice:1065536:65536\n")
    allocate_for(host, "incus", "--strategy", "per-container")
    found = next(one for one in findings(host) if one["code"] == "USN089")
    host.run("sh", "-c", found["hint"].split(";")[0])
    assert "USN089" not in codes(host)
    with incus(host) as daemon:
        assert started(daemon) == [(0, 655360, 65536)]
        assert started(daemon, render(host, "incus").stdout) == [(0, 589824, 65536)]
