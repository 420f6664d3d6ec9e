"""Slices of lines, in containers of the real engines: the maps they get, and what her own containers still do."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import pytest

from tests.engines import recipes, recipes_rootless
from tests.engines.recipes_incus import incus
from tests.engines.throwaway import CommandFailed, require

if TYPE_CHECKING:
    from tests.engines.throwaway import ThrowawayHost

UID = 4242
# Two lines of uids with a gap between them, and one line of gids elsewhere.
SUBUID = "alice:100000:65536\nalice:300000:2000\n"
SUBGID = "alice:200000:65536\n"


def usernsplan(host: ThrowawayHost, *words: str) -> str:
    return host.run(sys.executable, "-m", "usernsplan", *words).stdout


@pytest.fixture
def alice(host: ThrowawayHost) -> ThrowawayHost:
    """A host on which alice may log in, with lines that useradd gave her, and two folders for everybody."""
    require("podman", "crun", "newuidmap", "newgidmap")
    recipes_rootless.login_user(host, "alice", UID)
    host.write("/etc/subuid", SUBUID)
    host.write("/etc/subgid", SUBGID)
    host.run("install", "-d", "-m", "777", "/tmp/web", "/tmp/db")
    return host


def flags_of(host: ThrowawayHost, *words: str) -> list[str]:
    return shlex.split(usernsplan(host, "render", "podman", "--rootless", *words))


# Real engines and browsers take their time; what they are given is tested without them.
@pytest.mark.slow
def test_slices_are_containers_of_alice_and_her_other_containers_stay(alice: ThrowawayHost) -> None:
    usernsplan(
        alice,
        *("allocate", "--strategy", "per-container", "web", "db"),
        *("--within", "alice", "--size", "1000"),
    )
    assert alice.read("/etc/subuid").decode() == SUBUID
    assert alice.read("/etc/subgid").decode() == SUBGID

    # The last ids of her lines that are free: the uids of the second line, the gids of the only one.
    first = {"web": (301000, 264536), "db": (300000, 263536)}
    script = (
        "for n in 0 33 999; do touch /vol/$n; chown $n:$n /vol/$n; done; cat /proc/self/uid_map"
    )
    for name, (uid, gid) in first.items():
        usernsplan(alice, "fix-volume", f"/tmp/{name}", "--container", name)
        flags = flags_of(alice, name, "--volume", f"/tmp/{name}:/vol")
        words = ["-d", "--name", name, *flags]
        recipes_rootless.podman_rootless(alice, "alice", ["--pid=private"], ["true"])
        recipes_rootless.as_user(
            alice, "alice", "podman", "run", *words, recipes.IMAGE, "sleep", "60"
        )
        inner = recipes_rootless.as_user(
            alice, "alice", "podman", "exec", name, "sh", "-euc", script
        )
        # In her own namespace, her first line is 1-65536, and her second one follows.
        assert recipes.lines(inner) == [(0, 1 + 65536 + uid - 300000, 1000)]
        assert [alice.owner(f"/tmp/{name}/{n}") for n in (0, 33, 999)] == [
            (uid + n, gid + n) for n in (0, 33, 999)
        ]

    # Both run. A container without a map has all of her ids, and one with keep-id, too.
    everything = [(0, UID, 1), (1, 100000, 65536), (65537, 300000, 2000)]
    script = "cat /proc/self/uid_map"
    for words, expected in (
        ([], everything),
        (
            ["--userns=keep-id"],
            [(0, 1, UID), (UID, 0, 1), (UID + 1, UID + 1, 65536 - UID), (65537, 65537, 2000)],
        ),
    ):
        inner = recipes_rootless.podman_rootless(alice, "alice", words, ["sh", "-c", script])
        assert recipes.lines(inner) == expected

    # Podman takes ids for auto from the first id on, and none of those that its containers have.
    taken = set()
    for name in ("one", "two"):
        words = ["-d", "--name", name, "--userns=auto:size=1024"]
        recipes_rootless.as_user(
            alice, "alice", "podman", "run", *words, recipes.IMAGE, "sleep", "60"
        )
        [extent] = recipes.lines(
            recipes_rootless.as_user(alice, "alice", "podman", "exec", name, "sh", "-c", script)
        )
        taken.add(extent)
    assert taken == {(0, 1, 1024), (0, 1025, 1024)}


def test_newuidmap_grants_a_slice_only_while_her_lines_have_it(alice: ThrowawayHost) -> None:
    require("lxc-usernsexec")
    alice.write("/etc/subuid", "alice:100000:65536\nalice:165536:65536\n")
    alice.write("/etc/subgid", "alice:100000:65536\nalice:165536:65536\n")
    # It spans both lines: newuidmap joins lines that follow each other.
    usernsplan(
        alice,
        *("allocate", "--strategy", "per-container", "web"),
        *("--within", "alice", "--size", "100000"),
    )
    lines = usernsplan(alice, "render", "lxc", "web").splitlines()
    assert lines == ["lxc.idmap = u 0 131072 100000", "lxc.idmap = g 0 131072 100000"]

    maps = [words for line in lines for words in ("-m", ":".join(line.split()[2:]))]
    show = ["lxc-usernsexec", *maps, "--", "cat", "/proc/self/uid_map"]
    assert recipes.lines(recipes_rootless.as_user(alice, "alice", *show)) == [(0, 131072, 100000)]

    # Podman's own namespace has an extent for each line, and no map of a container may span two.
    assert flags_of(alice, "web")[:4] == [
        *("--uidmap", "0:31073:34464"),
        *("--uidmap", "34464:65537:65536"),
    ]

    for path in ("/etc/subuid", "/etc/subgid"):
        alice.write(path, "alice:100000:65536\nalice:165536:65535\n")
    with pytest.raises(CommandFailed):
        recipes_rootless.as_user(alice, "alice", *show)


def test_a_slice_of_roots_lines_runs_under_lxc(host: ThrowawayHost) -> None:
    require("lxc-usernsexec")
    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, "root:1000000:1000000000\n")
    usernsplan(host, "allocate", "--strategy", "per-container", "web", "--within", "root")
    lines = usernsplan(host, "render", "lxc", "web").splitlines()
    maps = [words for line in lines for words in ("-m", ":".join(line.split()[2:]))]
    show = ["lxc-usernsexec", *maps, "--", "cat", "/proc/self/uid_map"]
    assert recipes.lines(host.run(*show).stdout) == [(0, 1000934464, 65536)]
    assert host.read("/etc/subuid") == b"root:1000000:1000000000\n"

    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, "root:1000000:999999999\n")
    assert host.run(*show, check=False).returncode != 0


@pytest.mark.slow
def test_incus_runs_a_slice_of_roots_line_beside_plain_and_isolated_instances(
    host: ThrowawayHost,
) -> None:
    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, "root:1000000:1000000000\n")
    usernsplan(host, "allocate", "--strategy", "per-container", "web", "--within", "root")
    with incus(host) as daemon:
        configs = {
            "ours": usernsplan(host, "render", "incus", "web"),
            "plain": "",
            "isolated": 'config:\n  security.idmap.isolated: "true"\n',
        }
        maps = {}
        for name, config in configs.items():
            uids, gids = map(recipes.lines, daemon.start(daemon.create(config)))
            assert uids == gids
            [maps[name]] = uids
    # Incus gives the isolated one the first ids behind those of plain instances.
    assert maps == {
        "ours": (0, 1000934464, 65536),
        "plain": (0, 1000000, 1000000000),
        "isolated": (0, 1065536, 65536),
    }


@pytest.mark.slow
def test_her_own_id_passes_without_a_line(alice: ThrowawayHost) -> None:
    usernsplan(
        alice,
        *("allocate", "--strategy", "per-container", "web", "--within", "alice"),
        *("--size", "1900", "--pass", f"b:{UID}:1000"),
    )
    assert alice.read("/etc/subuid").decode() == SUBUID
    flags = flags_of(alice, "web", "--volume", "/tmp/web:/vol")
    script = "touch /vol/1000 /vol/1001; chown 1000:1000 /vol/1000; chown 1001:1001 /vol/1001"
    recipes_rootless.podman_rootless(alice, "alice", flags, ["sh", "-euc", script])
    assert alice.owner("/tmp/web/1000") == (UID, UID)
    # 300100 is the first uid of the slice, and 263636 its first gid.
    assert alice.owner("/tmp/web/1001") == (300100 + 1001, 263636 + 1001)


@pytest.mark.slow
def test_podman_refuses_an_account_whose_lines_have_its_own_id(alice: ThrowawayHost) -> None:
    """So a pass of the account's own id gets no line: see planner.passes.refuse_own_id."""
    for path, line in (("/etc/subuid", SUBUID), ("/etc/subgid", SUBGID)):
        alice.write(path, f"{line}alice:{UID}:1\n")
        with pytest.raises(CommandFailed, match=f"includes the user {path[-3:].upper()}"):
            recipes_rootless.podman_rootless(alice, "alice", [], ["true"])
        alice.write(path, line)
    recipes_rootless.podman_rootless(alice, "alice", [], ["true"])


@pytest.mark.slow
def test_podman_starts_a_map_of_a_container_file_where_check_has_no_finding_and_only_there(
    alice: ThrowawayHost,
) -> None:
    home = alice.run("getent", "passwd", "alice").stdout.split(":")[5]
    place = f"{home}/.config/containers/systemd/web.container"
    alice.run("install", "-d", "-o", "alice", f"{home}/.config/containers/systemd")
    for uids, gids, said in (
        ("0:1:65536", "0:1:65536", ""),
        ("0:0:1 1:2:9", "0:1:9", ""),
        # Podman splits an extent over the ids of two lines.
        ("0:65530:2007", "0:1:9", ""),
        # Host ids, as root's Podman takes them.
        ("0:100000:65536", "0:1:65536", "uids 100000-165535 are none of 0-67536"),
        ("0:1:9", "0:1:65537", "gids 65537 are none of 0-65536"),
    ):
        keys = [("UIDMap", text) for text in uids.split()] + [("GIDMap", gids)]
        alice.write(place, "[Container]\nImage=x\n" + "".join(f"{k}={v}\n" for k, v in keys))
        words = [word for k, v in keys for word in (f"--{k.lower()}", v)]
        found = alice.run(
            sys.executable, "-m", "usernsplan", "check", "--select", "USN047", check=False
        ).stdout
        assert (f"Podman's container web of alice does not start: its {said}" in found) == bool(
            said
        )
        if said:
            assert f"{place}:3" in found
            with pytest.raises(CommandFailed):
                recipes_rootless.podman_rootless(alice, "alice", words, ["true"])
        else:
            assert "USN047" not in found
            recipes_rootless.podman_rootless(alice, "alice", words, ["true"])
