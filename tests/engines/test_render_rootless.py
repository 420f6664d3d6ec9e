"""What render prints for an account's own containers, done by that account: rootlesskit, podman unshare, podman run.

Everything runs in a throw-away host, on the host's own /etc, without --root.
"""

from __future__ import annotations

import re
import shlex
import sys
from typing import TYPE_CHECKING

import pytest

from tests.engines import recipes, recipes_rootless
from tests.engines.throwaway import CommandFailed, require

if TYPE_CHECKING:
    from tests.engines.throwaway import ThrowawayHost

# Real engines and browsers take their time; what they are given is tested without them.
pytestmark = pytest.mark.slow


UID = 4242
BASE = 589824  # where per-container begins to give ranges out
SLOT = 65536


def usernsplan(host: ThrowawayHost, *words: str) -> str:
    return host.run(sys.executable, "-m", "usernsplan", *words).stdout


@pytest.fixture
def alice(host: ThrowawayHost) -> ThrowawayHost:
    """A host on which alice may log in, with a folder in which everybody may make files."""
    require("podman", "crun", "newuidmap", "newgidmap", "rootlesskit")
    recipes_rootless.login_user(host, "alice", UID)
    host.run("install", "-d", "-m", "777", "/tmp/vol")
    return host


def allocate(host: ThrowawayHost, *words: str) -> str:
    return usernsplan(
        host, "allocate", "--strategy", *(words or ("per-container",)), "web", "--owner", "alice"
    )


def append(host: ThrowawayHost, subuid: str, subgid: str) -> None:
    """Let somebody write more lines after ours."""
    for path, more in (("/etc/subuid", subuid), ("/etc/subgid", subgid)):
        host.write(path, host.read(path).decode() + more)


def script_said(host: ThrowawayHost, name: str = "web") -> list[recipes.Line]:
    """What the script shows that alice is told to run."""
    recipes_rootless._configure_podman(host, "alice")
    return recipes.lines(
        recipes_rootless.as_user(
            host, "alice", "sh", "-c", usernsplan(host, "render", "rootless", name)
        )
    )


def on_host(flag: str, flags: list[str], own: list[recipes.Line]) -> list[recipes.Line]:
    """The map that --uidmap or --gidmap makes, its middle numbers taken through the map of podman unshare."""
    found = []
    values = [flags[n + 1] for n, word in enumerate(flags) if word == flag]
    for container, middle, count in (map(int, value.split(":")) for value in values):
        for first, start, length in own:
            low, high = max(middle, first), min(middle + count, first + length)
            if low < high:
                found.append((container + low - middle, start + low - first, high - low))
    return joined(found)


def joined(extents: list[recipes.Line]) -> list[recipes.Line]:
    """Extents that follow on from each other, on both sides, as one."""
    found: list[recipes.Line] = []
    for container, start, count in sorted(extents):
        if found and (sum(found[-1][::2]), sum(found[-1][1:])) == (container, start):
            found[-1] = (*found[-1][:2], found[-1][2] + count)
        else:
            found.append((container, start, count))
    return found


@pytest.mark.parametrize("lower", [0, 1000], ids=["one line", "a lower line came later"])
def test_alice_runs_the_script_and_then_containers_whose_files_have_the_planned_owners(
    alice: ThrowawayHost, lower: int
) -> None:
    allocate(alice)
    more = f"alice:100000:{lower}\n" if lower else ""
    append(alice, more, more)
    own = [(0, UID, 1)]
    own += [(1, 100000, lower), (1 + lower, BASE, SLOT)] if lower else [(1, BASE, SLOT)]
    assert script_said(alice) == own
    assert (
        recipes.lines(
            recipes_rootless.podman_unshare(alice, "alice", ["cat", "/proc/self/gid_map"])
        )
        == own
    )
    # Rootlesskit takes the lines as they stand in the file.
    seen = recipes.lines(
        recipes_rootless.rootlesskit(alice, "alice", ["cat", "/proc/self/uid_map"])
    )
    assert {(start, count) for _, start, count in seen} == {
        (start, count) for _, start, count in own
    }

    usernsplan(alice, "fix-volume", "/tmp/vol", "--container", "web")
    flags = shlex.split(
        usernsplan(alice, "render", "podman", "web", "--rootless", "--volume", "/tmp/vol:/vol")
    )
    script = (
        "".join(f"touch /vol/{n}; chown {n}:{n} /vol/{n};" for n in (0, 33, 65535))
        + "cat /proc/self/uid_map"
    )
    inner = recipes_rootless.podman_rootless(alice, "alice", flags, ["sh", "-euc", script])
    assert recipes.lines(inner) == [(0, 1 + lower, SLOT)]
    assert [alice.owner(f"/tmp/vol/{n}") for n in (0, 33, 65535)] == [
        (BASE + n,) * 2 for n in (0, 33, 65535)
    ]


@pytest.mark.parametrize(
    ("subuid", "subgid"),
    [
        ("alice:765536:5\n", "alice:765536:5\n"),
        ("alice:588824:1000\nalice:655360:5\n", "alice:100000:10\nalice:200000:7\n"),
        ("# alice:100000:5\n\nalicia:100000:5\nALICE:200000:6\n", ""),
        (f"{UID}:100000:1000\n", f"{UID}:100000:1000\n"),
        (f"{UID}:0x186a0:10\n", f"{UID}:0x186a0:10\n"),
        ("alice:0x186a0:10\n", "alice:0x186a0:10\n"),
        ("alice:100000:10 # old\n", ""),
        ("", "alice:100000:10\r\n"),
        ("alice:100000:10:\n", ""),
    ],
    ids=[
        "higher",
        "apart",
        "others",
        "by uid",
        "by uid, hex",
        "hex",
        "remark",
        "carriage return",
        "four fields",
    ],
)
def test_whatever_lines_come_later_the_numbers_are_right_or_refused(
    alice: ThrowawayHost, subuid: str, subgid: str
) -> None:
    allocate(alice)
    append(alice, subuid, subgid)
    done = alice.run(
        sys.executable, "-m", "usernsplan", "render", "podman", "web", "--rootless", check=False
    )
    if done.returncode:
        assert done.returncode == 9
        assert "alice" in done.stderr
        return
    flags = shlex.split(done.stdout)
    script = ["sh", "-c", "cat /proc/self/uid_map; echo gids; cat /proc/self/gid_map"]
    uid_map, _, gid_map = recipes_rootless.podman_unshare(alice, "alice", script).partition(
        "gids\n"
    )
    for flag, own in (("--uidmap", uid_map), ("--gidmap", gid_map)):
        assert on_host(flag, flags, recipes.lines(own)) == [(0, BASE, SLOT)]


def test_the_line_that_useradd_gave_alice_is_taken_over(alice: ThrowawayHost) -> None:
    append(alice, "alice:100000:65536\n", "alice:100000:65536\n")
    words = (
        "allocate",
        "--strategy",
        "per-container",
        "web",
        "--owner",
        "alice",
        "--engine",
        "rootless",
    )
    refused = alice.run(sys.executable, "-m", "usernsplan", *words, check=False)
    assert refused.returncode == 9
    [adopt] = re.findall(r"'usernsplan (adopt \w+)'", refused.stderr)
    usernsplan(alice, *adopt.split())
    assert alice.read("/etc/subuid") == alice.read("/etc/subgid") == b"alice:100000:65536\n"
    assert script_said(alice, "alice") == [(0, UID, 1), (1, 100000, SLOT)]
    flags = shlex.split(usernsplan(alice, "render", "podman", "alice", "--rootless"))
    assert on_host("--uidmap", flags, script_said(alice, "alice")) == [(0, 100000, SLOT)]


def test_one_id_of_its_own_is_enough_for_a_container_of_alices(alice: ThrowawayHost) -> None:
    allocate(alice, "single-uid")
    assert script_said(alice) == [(0, UID, 1), (1, 1000000000, 1)]
    usernsplan(alice, "fix-volume", "/tmp/vol", "--container", "web")
    flags = shlex.split(
        usernsplan(alice, "render", "podman", "web", "--rootless", "--volume", "/tmp/vol:/vol")
    )
    recipes_rootless.podman_rootless(alice, "alice", flags, ["touch", "/vol/made"])
    assert alice.owner("/tmp/vol/made") == (1000000000, 1000000000)


def test_a_shared_map_is_for_an_account_whose_uid_is_not_in_it(host: ThrowawayHost) -> None:
    require("podman", "crun", "newuidmap", "newgidmap")
    recipes_rootless.login_user(host, "alice", 70001)
    host.run("groupmod", "--gid", "70001", "alice")
    host.run("install", "-d", "-m", "777", "/tmp/vol")
    allocate(host, "shared", "--dockerroot", "7")
    assert joined(script_said(host)) == [(0, 70001, 1), (1, 7, 65529)]
    usernsplan(host, "fix-volume", "/tmp/vol", "--container", "web")
    flags = shlex.split(
        usernsplan(host, "render", "podman", "web", "--rootless", "--volume", "/tmp/vol:/vol")
    )
    script = "touch /vol/root; touch /vol/33; chown 33:33 /vol/33"
    recipes_rootless.podman_rootless(host, "alice", flags, ["sh", "-euc", script])
    assert [host.owner(f"/tmp/vol/{name}") for name in ("root", "33")] == [(7, 7), (33, 33)]


def test_a_map_with_alices_own_uid_in_it_is_refused_because_the_kernel_would(
    alice: ThrowawayHost,
) -> None:
    allocate(alice, "shared", "--dockerroot", "7")
    recipes_rootless._configure_podman(alice, "alice")
    with pytest.raises(CommandFailed, match=r"includes the user UID|Invalid argument"):
        recipes_rootless.podman_unshare(alice, "alice", ["true"])
    for engine in (["rootless", "web"], ["podman", "web", "--rootless"]):
        done = alice.run(sys.executable, "-m", "usernsplan", "render", *engine, check=False)
        assert done.returncode == 9
        assert str(UID) in done.stderr


def test_a_volume_that_nobody_fixed_is_mounted_as_it_is_with_a_word_on_it(
    alice: ThrowawayHost,
) -> None:
    allocate(alice)
    # Rootless podman has no idmap, and nobody asked for one.
    words = ["render", "podman", "web", "--rootless", "--volume", "/tmp/vol:/vol"]
    done = alice.run(sys.executable, "-m", "usernsplan", *words)
    assert done.stdout.split()[-2:] == ["-v", "/tmp/vol:/vol"]
    [fix] = re.findall(r"usernsplan (fix-volume [^'\n]*)", done.stderr)
    usernsplan(alice, *shlex.split(fix))
    assert usernsplan(alice, *words) == done.stdout
    refused = alice.run(
        sys.executable, "-m", "usernsplan", *words[:-1], "/tmp/vol:/vol:idmap", check=False
    )
    assert refused.returncode == 9
    assert "idmap" in refused.stderr


def test_podman_gives_a_volume_with_the_letter_u_to_the_container(alice: ThrowawayHost) -> None:
    allocate(alice)
    alice.run("sh", "-c", "mkdir /tmp/own; touch /tmp/own/old; chown -R alice: /tmp/own")
    flags = shlex.split(
        usernsplan(alice, "render", "podman", "web", "--rootless", "--volume", "/tmp/own:/vol:U")
    )
    recipes_rootless.podman_rootless(
        alice, "alice", flags, ["sh", "-c", "echo >>/vol/old; touch /vol/new"]
    )
    assert [alice.owner(f"/tmp/own{name}") for name in ("", "/old", "/new")] == [(BASE, BASE)] * 3


def test_the_script_stops_at_what_is_missing(alice: ThrowawayHost) -> None:
    allocate(alice)
    script = usernsplan(alice, "render", "rootless", "web")
    recipes_rootless._configure_podman(alice, "alice")

    def status() -> int:
        try:
            recipes_rootless.as_user(alice, "alice", "sh", "-c", script)
        except CommandFailed as failed:
            return int(failed.result.returncode)
        return 0

    for path in ("/etc/subuid", "/etc/subgid"):
        before = alice.read(path)
        alice.write(path, before.replace(b"alice", b"alicia"))
        assert status() != 0
        alice.write(path, before)
    for program, capability in (("newuidmap", "setuid"), ("newgidmap", "setgid")):
        path = alice.run("which", program).stdout.strip()
        alice.run("chmod", "u-s", path)
        assert status() != 0
        alice.run("setcap", f"cap_{capability}+ep", path)
    assert status() == 0


def test_nobodys_lines_are_no_rootless_ones(host: ThrowawayHost) -> None:
    usernsplan(host, "allocate", "--strategy", "per-container", "web")
    for words in (
        ["rootless", "web"],
        ["podman", "web", "--rootless"],
        ["quadlet", "web", "--rootless"],
    ):
        done = host.run(sys.executable, "-m", "usernsplan", "render", *words, check=False)
        assert done.returncode == 9
        assert "--owner LOGIN" in done.stderr


def test_quadlets_file_is_where_alices_generator_looks_and_nobody_elses(
    alice: ThrowawayHost,
) -> None:
    allocate(alice)
    words = ["render", "quadlet", "web", "--rootless", "--image", recipes.IMAGE, "--out", "/"]
    usernsplan(alice, *words)
    # podman-systemd.unit(5): what is in users/ itself is for every user, and these numbers are right for one.
    path = f"/etc/containers/systemd/users/{UID}/web.container"
    assert alice.exists(path)
    section = alice.read(path).decode().splitlines()
    assert f"UIDMap=0:1:{SLOT}" in section
    assert f"GIDMap=0:1:{SLOT}" in section


@pytest.mark.parametrize("at", ["", "/tmp/at"])
def test_a_mount_is_of_use_where_alice_can_enter_and_a_note_says_where_she_cannot(
    alice: ThrowawayHost, at: str
) -> None:
    allocate(alice)
    # Nosuid keeps others from what the container makes there.
    alice.run("mount", "-t", "tmpfs", "-o", "nosuid,mode=755", "tmpfs", "/tmp/vol")
    alice.write("/tmp/vol/old", "old\n", mode=0o600)
    words = ["--container", "web", "--mode", "shift", *(["--at", at] if at else [])]
    usernsplan(alice, "mount-volume", "/tmp/vol", *words)
    words = ["render", "podman", "web", "--rootless", "--volume", "/tmp/vol:/vol"]
    told = alice.run(sys.executable, "-m", "usernsplan", *words)
    flags, script = shlex.split(told.stdout), ["sh", "-c", "cat /vol/old; touch /vol/made"]
    closed = "/run/usernsplan/volumes/web/tmp-vol: alice cannot enter this folder"
    assert (closed in told.stderr) == (not at)
    if not at:
        with pytest.raises(CommandFailed, match="permission denied"):
            recipes_rootless.podman_rootless(alice, "alice", flags, script)
        return
    assert recipes_rootless.podman_rootless(alice, "alice", flags, script) == "old\n"
    assert alice.owner("/tmp/vol/made") == (0, 0)
