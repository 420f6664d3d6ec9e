"""check on a throw-away host: situations that the host's own programs make, and what these programs say of them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.engines import recipes
from tests.engines.throwaway import CommandFailed, require

if TYPE_CHECKING:
    import subprocess

    from tests.engines.throwaway import ThrowawayHost

# Real engines and browsers take their time; what they are given is tested without them.
pytestmark = pytest.mark.slow


USERNSPLAN = (sys.executable, "-m", "usernsplan")
# Kills itself as soon as it has exchanged /etc/subuid, its locks in its hands.
STRUCK = (
    "import os, usernsplan.host.files\n"
    "rename = os.rename\n"
    "def struck(a, b, **at):\n    rename(a, b, **at)\n    if f'/{b}'.endswith('/subuid'): os.kill(os.getpid(), 9)\n"
    "os.rename = struck\n"
    "from usernsplan.cli import main; main()"
)


def run(host: ThrowawayHost, *words: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    return host.run(*USERNSPLAN, *words, check=check)


def found(host: ThrowawayHost, *words: str) -> list[dict[str, Any]]:
    done = run(host, "check", "--json", *words)
    assert "Traceback" not in done.stderr, done.stderr
    listed: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    assert done.returncode == any(finding["severity"] == "error" for finding in listed)
    # What a daemon.json without no-new-privileges means has nothing to do with ids.
    return [finding for finding in listed if finding["code"] != "USN185"]


def codes(host: ThrowawayHost, *words: str) -> set[str]:
    return {finding["code"] for finding in found(host, *words)}


def people(host: ThrowawayHost, *names: str) -> None:
    require("useradd")
    for name in names:
        host.run("useradd", name)


def test_a_fresh_host_with_people_and_containers_has_no_findings(host: ThrowawayHost) -> None:
    people(host, "alice", "bob")
    run(host, "allocate", "--strategy", "per-container", "web", "--engine", "podman", check=True)
    assert found(host) == []


def test_a_renamed_account_leaves_its_lines_for_the_next_of_its_name(host: ThrowawayHost) -> None:
    require("getsubids")
    people(host, "carla")
    host.run("usermod", "--login", "carl", "carla")
    assert b"carla:" in host.read("/etc/subuid")
    [finding] = found(host)
    assert (finding["code"], finding["place"]) == ("USN020", "/etc/subuid:1")
    host.run("groupmod", "--new-name", "carl", "carla")
    host.run("useradd", "carla")
    assert "USN020" not in codes(host)
    assert "carla 100000 65536" in host.run("getsubids", "carla").stdout


def test_a_line_by_number_outlives_its_account(host: ThrowawayHost) -> None:
    people(host, "dave")
    uid = host.run("id", "-u", "dave").stdout.strip()
    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, f"{uid}:100000:65536\n")
    assert found(host) == []
    host.run("userdel", "dave")
    assert codes(host) == {"USN021"}


def test_usermod_makes_overlaps_and_they_are_found(host: ThrowawayHost) -> None:
    people(host, "alice", "bob")
    host.run("usermod", "--add-subuids", "150000-150009", "bob")
    host.run("usermod", "--add-subuids", "4294967000-4294967295", "--add-subgids", "0-9", "bob")
    assert {"USN001", "USN006", "USN014", "USN023"} <= codes(host)
    [clash] = found(host, "--select", "USN001")
    assert "alice's 100000-165535" in clash["message"]


def test_an_account_and_a_group_that_are_made_inside_of_a_range_are_found(
    host: ThrowawayHost,
) -> None:
    people(host, "alice")
    lines = host.read("/etc/subuid") + b"containers:589824:65536\n"
    host.write("/etc/subuid", lines)
    host.write("/etc/subgid", lines)
    assert found(host) == []
    host.run("useradd", "--uid", "589836", "--no-user-group", "bob")
    host.run("groupadd", "--gid", "589936", "staffers")
    assert codes(host) == {"USN004", "USN005"}
    host.run("usermod", "--uid", "2000", "bob")
    host.run("groupmod", "--gid", "2001", "staffers")
    assert found(host) == []


def test_a_sorted_filler_map_is_found_and_repaired_and_dockerd_has_the_right_map_again(
    host: ThrowawayHost,
) -> None:
    require("useradd", "dockerd", "docker")
    run(host, "allocate", "--strategy", "shared", "--engine", "docker", check=True)
    assert codes(host) == {"USN046"}
    planned = recipes.lines(run(host, "render", "uid_map", "default").stdout)
    right = {path: host.read(path) for path in ("/etc/subuid", "/etc/subgid")}
    host.run("useradd", "alice")
    assert codes(host) == {"USN051"}
    with recipes.dockerd(host) as docker:
        wrong = recipes.lines(
            docker.run(["cat", "/proc/self/uid_map"], flags=["--tmpfs", "/dev/pts"])
        )
    assert wrong != planned
    run(host, "check", "--fix", "--yes", check=True)
    assert codes(host) == {"USN046"}
    with recipes.dockerd(host) as docker:
        assert recipes.lines(docker.run(["cat", "/proc/self/uid_map"])) == planned
    for path, content in right.items():
        assert sorted(host.read(path).splitlines()) == sorted(
            [*content.splitlines(), b"alice:100000:65536"]
        )


def test_userdel_takes_dockers_lines_and_they_are_put_back(host: ThrowawayHost) -> None:
    require("useradd", "userdel")
    run(host, "allocate", "--strategy", "per-container", "--engine", "docker", check=True)
    before = host.read("/etc/subuid")
    host.run("userdel", "dockremap")
    assert host.read("/etc/subuid") == b""
    assert {"USN041", "USN043", "USN050"} <= codes(host)
    run(host, "check", "--fix", "--yes")
    assert host.read("/etc/subuid") == before
    assert codes(host) == {"USN041"}


def test_the_locks_of_a_killed_run_are_found_removed_and_the_run_is_mended(
    host: ThrowawayHost,
) -> None:
    words = ("allocate", "--strategy", "per-container", "web", "--engine", "podman")
    assert host.run(sys.executable, "-c", STRUCK, *words, check=False).returncode != 0
    for path in ("/etc/subuid.lock", "/etc/subgid.lock"):
        assert host.exists(path)
    listed = found(host)
    assert [(finding["code"], finding["place"]) for finding in listed] == [
        ("USN054", "/var/lib/usernsplan/ledger.sqlite3"),
        ("USN064", "/etc/subuid.lock"),
        ("USN064", "/etc/subgid.lock"),
    ]
    shown = run(host, "check", "--fix", "--dry-run").stdout
    assert "would remove /etc/subuid.lock" in shown
    assert host.exists("/etc/subuid.lock")
    run(host, "check", "--fix", "--yes", check=True)
    assert found(host) == []
    assert not host.exists("/etc/subuid.lock")
    assert not host.exists("/etc/subgid.lock")


def test_a_stale_lock_alone_is_removed_and_a_living_one_is_left(host: ThrowawayHost) -> None:
    script = "printf %s $$ >/etc/passwd.lock; printf %s $$ >/etc/subuid.lock; exec sleep 60"
    holder = host.popen("sh", "-c", script)
    host.run("sh", "-c", "until test -s /etc/subuid.lock; do sleep .05; done")
    assert found(host) == []
    holder.kill()
    holder.wait()
    assert codes(host) == {"USN064"}
    host.write("/etc/subgid.lock", "1\n")
    assert codes(host) == {"USN064", "USN065"}
    run(host, "check", "--fix", "--yes")
    assert not host.exists("/etc/passwd.lock")
    assert not host.exists("/etc/subuid.lock")
    assert host.exists("/etc/subgid.lock")


def test_a_lock_that_holds_no_pid_really_blocks_usermod(host: ThrowawayHost) -> None:
    people(host, "alice")
    host.write("/etc/subuid.lock", "")
    assert codes(host) == {"USN065"}
    blocked = host.run(
        "usermod", "--add-subuids", "765536-765545", "alice", check=False, timeout=60
    )
    assert blocked.returncode != 0
    assert "lock" in blocked.stderr


@pytest.mark.parametrize(
    ("lines", "expected"),
    [("alice:0:1\n", {"USN006", "USN024"}), ("alice:100000:65536\n", set())],
    ids=["root", "own range"],
)
def test_who_can_become_root_by_a_line_really_can(
    host: ThrowawayHost, lines: str, expected: set[str]
) -> None:
    people(host, "alice")
    host.write("/etc/subuid", lines)
    host.write("/etc/subgid", lines)
    assert codes(host) == expected
    if expected:
        assert recipes.lines(
            recipes.newuidmap(host, "alice", [(0, 0, 1)], [(0, 0, 1)]).uid_map
        ) == [(0, 0, 1)]
    else:
        with pytest.raises(CommandFailed):
            recipes.newuidmap(host, "alice", [(0, 0, 1)], [(0, 0, 1)])


def test_an_own_id_in_the_own_range_really_is_refused_by_the_kernel(host: ThrowawayHost) -> None:
    people(host, "alice")
    host.run("usermod", "--uid", "100500", "alice")
    assert codes(host) == {"USN008"}
    with pytest.raises(CommandFailed):
        recipes.newuidmap(host, "alice", [(0, 100500, 1), (1, 100000, 65536)], [(0, 100000, 65536)])
    recipes.newuidmap(host, "alice", [(0, 100000, 65536)], [(0, 100000, 65536)])


def test_a_symlink_really_stops_newuidmap(host: ThrowawayHost) -> None:
    people(host, "alice")
    host.run("sh", "-c", "mv /etc/subuid /etc/elsewhere; ln -s elsewhere /etc/subuid")
    assert codes(host) == {"USN033"}
    with pytest.raises(CommandFailed):
        recipes.newuidmap(host, "alice", [(0, 100000, 65536)], [(0, 100000, 65536)])


def test_useradd_runs_out_when_it_is_said_to(host: ThrowawayHost) -> None:
    people(host, "first")
    # Three ranges and a bit, of which first has one; another line leaves room for one and nearly a second.
    defs = host.read("/etc/login.defs").decode()
    lines = [line for line in defs.splitlines() if not line.startswith(("SUB_UID_M", "SUB_GID_M"))]
    for key in ("SUB_UID", "SUB_GID"):
        lines += [f"{key}_MIN 100000", f"{key}_MAX {100000 + 4 * 65536 + 5}"]
    host.write("/etc/login.defs", "\n".join((*lines, "")))
    [finding] = found(host, "--select", "USN060,USN061")[:1]
    assert finding["code"] == "USN060"
    assert "useradd has only 3 more ranges" in finding["message"]
    for name in ("second", "third", "fourth"):
        assert "USN061" not in codes(host)
        host.run("useradd", name)
    assert "USN061" in codes(host)
    refused = host.run("useradd", "fifth", check=False)
    assert refused.returncode == 16
    assert "unique subordinate" in refused.stderr


def test_a_namespace_that_runs_across_somebodys_range_is_found(host: ThrowawayHost) -> None:
    require("newuidmap")
    people(host, "alice")
    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, "root:90000:65536\n")
    script = "unshare -U sleep 60 & p=$!; sleep .2; newuidmap $p 0 90000 65536; newgidmap $p 0 90000 65536; wait"
    running = host.popen("sh", "-c", script)
    host.run("sh", "-c", "until grep -q 90000 /proc/[0-9]*/gid_map; do sleep .05; done")
    assert "USN012" not in codes(host)
    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, "alice:100000:65536\n")
    [finding] = [finding for finding in found(host) if finding["code"] == "USN012"]
    assert finding["place"] == "/etc/subuid:1"
    assert "alice's 100000-165535" in finding["message"]
    running.kill()


def test_a_rootless_namespace_in_its_owners_own_range_is_none(host: ThrowawayHost) -> None:
    require("newuidmap", "setpriv")
    people(host, "alice")
    entry = host.run("getent", "passwd", "alice").stdout.split(":")
    script = (
        "unshare -U sleep 60 & p=$!; sleep .2; "
        f"newuidmap $p 0 {entry[2]} 1 1 100000 65536; newgidmap $p 0 {entry[3]} 1 1 100000 65536; wait"
    )
    running = host.popen(
        "setpriv", "--reuid", entry[2], "--regid", entry[3], "--clear-groups", "sh", "-c", script
    )
    host.run("sh", "-c", "until grep -q 100000 /proc/[0-9]*/gid_map; do sleep .05; done")
    assert found(host) == []
    running.kill()


NAMED = '{"userns-remap": "%s"}'


@pytest.mark.parametrize(
    ("config", "subuid", "subgid", "code"),
    [
        (NAMED % "nobodyhere", "", "", "USN041"),
        (
            NAMED % "dockremap:nogroup-here",
            "dockremap:589824:65536\n",
            "dockremap:589824:65536\n",
            "USN042",
        ),
        (NAMED % "dockremap", "", "dockremap:589824:65536\n", "USN043"),
        (NAMED % "dockremap", "dockremap:589824:65536\n", "", "USN043"),
        (
            '{"userns-remap": "dockremap",}',
            "dockremap:589824:65536\n",
            "dockremap:589824:65536\n",
            "USN040",
        ),
    ],
    ids=["user", "group", "uids", "gids", "comma"],
)
def test_what_is_an_error_of_dockers_really_keeps_dockerd_from_starting(
    host: ThrowawayHost, config: str, subuid: str, subgid: str, code: str
) -> None:
    recipes.add_user(host, "dockremap")
    host.write("/etc/docker/daemon.json", config)
    host.write("/etc/subuid", subuid)
    host.write("/etc/subgid", subgid)
    assert code in codes(host, "--select", "USN04")
    with pytest.raises(recipes.DaemonFailed), recipes.dockerd(host):
        pass


@pytest.mark.parametrize("value", ["dockremap", "dockremap:dockremap", "default"])
def test_what_is_no_error_of_dockers_lets_dockerd_start(host: ThrowawayHost, value: str) -> None:
    recipes.add_user(host, "dockremap")
    host.write("/etc/docker/daemon.json", NAMED % value)
    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, "dockremap:589824:65536\n")
    assert found(host) == []
    with recipes.dockerd(host):
        pass


def test_a_uid_alone_means_the_group_of_that_number_to_dockerd(host: ThrowawayHost) -> None:
    recipes.add_user(host, "dockremap", uid=990)
    host.run("groupmod", "--gid", "891", "dockremap")
    host.write("/etc/docker/daemon.json", NAMED % "990")
    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, "dockremap:589824:65536\n")
    assert "USN042" in codes(host, "--select", "USN04")
    with pytest.raises(recipes.DaemonFailed), recipes.dockerd(host):
        pass
    host.run("groupadd", "--gid", "990", "other")
    assert codes(host, "--select", "USN04") == set()
    with recipes.dockerd(host):
        pass
