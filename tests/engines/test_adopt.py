"""Real containers on ids that people gave out by hand: the map that is adopted is the one that the engine made."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.command import slow
from tests.engines import recipes, recipes_incus, recipes_podman_auto, recipes_rootless
from tests.engines.planned import MAPS, shown
from tests.engines.recipes_lxc import LXC_CONF, _lxc_rootfs
from tests.engines.throwaway import CommandFailed, require

if TYPE_CHECKING:
    from typing import Any

    from tests.engines.throwaway import ThrowawayHost

USERNSPLAN = (sys.executable, "-m", "usernsplan")
FILES = ("/etc/subuid", "/etc/subgid", "/etc/passwd", "/etc/group")


def lines(host: ThrowawayHost, uids: str, gids: str | None = None) -> None:
    host.write("/etc/subuid", uids)
    host.write("/etc/subgid", uids if gids is None else gids)


def adopt(host: ThrowawayHost, name: str, *more: str) -> dict[str, Any]:
    """Adopt it: no file changes, and check has no error about it. Return the allocation."""
    paths = (*FILES, *more)
    before = [host.read(path) for path in paths]
    done = host.run(*USERNSPLAN, "adopt", name, "--json")
    assert [host.read(path) for path in paths] == before
    checked = host.run(*USERNSPLAN, "check", "--json", check=False)
    errors = [
        one["code"] for one in json.loads(checked.stdout)["findings"] if one["severity"] == "error"
    ]
    assert set(errors) & {"USN001", "USN002", "USN050", "USN051", "USN052", "USN084"} == set()
    [made] = json.loads(done.stdout)["allocations"]
    found: dict[str, Any] = made
    return found


def triples(made: dict[str, Any], kind: str) -> list[tuple[int, int, int]]:
    return [(e["container"], e["host"], e["count"]) for e in made[f"{kind}_map"]]


def joined(extents: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The extents as one where they continue each other."""
    found: list[tuple[int, int, int]] = []
    for container, host, count in sorted(extents):
        last = found[-1] if found else (0, 0, 0)
        if found and (last[0] + last[2], last[1] + last[2]) == (container, host):
            found[-1] = (last[0], last[1], last[2] + count)
        else:
            found.append((container, host, count))
    return found


def test_a_container_of_lxc_is_adopted_with_its_holes_while_it_runs(host: ThrowawayHost) -> None:
    require("lxc-execute", "newuidmap")
    host.write("/etc/group", host.read("/etc/group") + b"gpu:x:4242:\n")
    lines(host, "root:100000:65536\n", "root:100000:65536\nroot:4242:1\n")
    idmap = (
        "lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 107\nlxc.idmap = g 107 4242 1\n"
        "lxc.idmap = g 108 100108 65428\n"
    )
    config = "/var/lib/lxc/gpu/config"
    _lxc_rootfs(host)
    host.write(config, f"{LXC_CONF}lxc.uts.name = gpu\n{idmap}")
    start = ("lxc-execute", "--name", "gpu", "--", "sh", "-c")
    running = host.popen(*start, f"{MAPS} touch /up; sleep 1000")
    try:
        end = time.monotonic() + 20
        while not host.exists("/tmp/lxc-root/up") and time.monotonic() < end:
            time.sleep(0.05)
        assert host.exists("/tmp/lxc-root/up")
        made = adopt(host, "gpu", config)
    finally:
        host.run("lxc-stop", "--name", "gpu", "--kill", check=False)
        running.wait(timeout=20)

    expected = [(0, 100000, 107), (107, 4242, 1), (108, 100108, 65428)]
    assert (triples(made, "uid"), triples(made, "gid")) == ([(0, 100000, 65536)], expected)
    assert shown(host.run(*start, MAPS).stdout) == ([(0, 100000, 65536)], expected)
    # Its ids are not given out, and neither are those of the hole.
    done = host.run(*USERNSPLAN, "allocate", "web", "--pool", "65536-2000000", "--json")
    assert json.loads(done.stdout)["allocations"][0]["reserved_range"]["start"] >= 165536


@pytest.mark.parametrize(
    "content",
    [
        "alice:300000:65536\nalice:165536:65536\n",
        *slow("alice:100000:1000\nalice:200000:70000\n"),
    ],
)
def test_an_accounts_lines_are_the_map_that_podman_makes(host: ThrowawayHost, content: str) -> None:
    recipes_rootless.login_user(host, "alice", 4711)
    lines(host, content)
    made = adopt(host, "alice")
    maps = recipes_rootless.podman_unshare(host, "alice", ["cat", "/proc/self/uid_map"])
    # Podman's own namespace: the account is 0, and its ids follow from 1 on.
    [account, *rest] = recipes.lines(maps)
    assert account == (0, 4711, 1)
    assert joined([(c - 1, h, n) for c, h, n in rest]) == joined(triples(made, "uid"))


def test_a_unit_of_an_account_has_the_ids_that_podman_gives_its_container(
    host: ThrowawayHost,
) -> None:
    recipes_rootless.login_user(host, "alice", 4711)
    lines(host, "alice:300000:1000\nalice:165536:1000\n")
    unit = "/home/alice/.config/containers/systemd/app.container"
    values = ["0:901:200", "1000:0:1"]
    text = "".join(f"UIDMap={value}\nGIDMap={value}\n" for value in values)
    host.write(unit, f"[Container]\nImage=x\n{text}")
    made = adopt(host, "alice-app", unit)
    expected = [(0, 166436, 100), (100, 300000, 100), (1000, 4711, 1)]
    assert triples(made, "uid") == triples(made, "gid") == expected

    # The same flags; what the container's root and others make is the host's proof.
    host.run("install", "-d", "-m", "1777", "/tmp/vol")
    flags = [word for value in values for word in ("--uidmap", value, "--gidmap", value)]
    script = "for id in 0 99 100 199 1000; do touch /vol/$id && chown $id:$id /vol/$id; done"
    recipes_rootless.podman_rootless(host, "alice", flags, ["sh", "-c", script], ["/tmp/vol:/vol"])
    owners = {name: host.owner(f"/tmp/vol/{name}")[0] for name in (0, 99, 100, 199, 1000)}
    assert owners == {0: 166436, 99: 166535, 100: 300000, 199: 300099, 1000: 4711}


def test_the_pool_of_podman_of_any_size_is_adopted_and_used(host: ThrowawayHost) -> None:
    lines(host, "containers:300001:3000\ncontainers:400001:70000\n")
    with recipes_podman_auto.podman_container(host, ["--userns=auto:size=2000"]) as running:
        made = adopt(host, "containers")
        before = recipes.lines(running.run(["cat", "/proc/self/uid_map"]))
    assert (made["owner"], triples(made, "uid")) == (
        "containers",
        [(0, 300001, 3000), (3000, 400001, 70000)],
    )
    [(_, start, count)] = joined(before)
    assert any(h <= start < start + count <= h + n for _, h, n in triples(made, "uid"))
    # Podman takes from it as it did, and allocate without a word about it leaves it alone.
    content = host.read("/etc/subuid")
    host.run(*USERNSPLAN, "allocate", "web")
    assert host.read("/etc/subuid").startswith(content)
    flags = ["--userns=auto:size=2000"]
    with recipes_podman_auto.podman_container(host, flags) as running:
        assert joined(recipes.lines(running.run(["cat", "/proc/self/uid_map"]))) == joined(before)


def test_dockers_range_is_adopted_while_the_daemon_runs(host: ThrowawayHost) -> None:
    host.run("groupadd", "--gid", "4343", "dockremap")
    host.run("useradd", "--uid", "4242", "--gid", "4343", "--no-create-home", "dockremap")
    # Not where useradd or we would put it, out of order, and for the gids elsewhere.
    lines(
        host,
        "dockremap:500000:65536\ndockremap:300000:9\n",
        "alice:1:1\ndockremap:600000:70000\n",
    )
    daemon = "/etc/docker/daemon.json"
    host.write(daemon, json.dumps({"userns-remap": "4242:4343"}))
    script = ["sh", "-c", MAPS]
    with recipes.dockerd(host) as docker:
        refused = host.run(
            *(*USERNSPLAN, "allocate", "--docker", "--strategy", "per-container"), check=False
        )
        assert refused.returncode == 9
        [command] = re.findall(r"'(usernsplan adopt [^']*)'", refused.stderr)
        assert shlex.split(command) == ["usernsplan", "adopt", "default"]
        made = adopt(host, "default", daemon)
        uids, gids = shown(docker.run(script))
    assert (made["owner"], uids, gids) == ("dockremap", triples(made, "uid"), triples(made, "gid"))
    assert uids == [(0, 500000, 65536), (65536, 300000, 9)]
    # In a plan file it stays as it is.
    plan = host.run(*USERNSPLAN, "export").stdout
    host.write("/root/plan.yaml", plan)
    assert "Already up to date" in host.run(*USERNSPLAN, "plan", "/root/plan.yaml").stdout


def test_an_instance_of_incus_is_a_slice_of_roots_line(host: ThrowawayHost) -> None:
    lines(host, "root:1000000:1000000\n")
    with recipes_incus.incus(host) as daemon:
        plain = daemon.create()
        config = 'config: {security.idmap.isolated: "true", security.idmap.size: "20000"}'
        own = daemon.create(config)
        started = [daemon.start(name) for name in (plain, own)]
        listed = json.loads(host.run(*USERNSPLAN, "adopt", "--json").stdout)["found"]
        # All plain instances have all of root's ids, so these two share some.
        assert {one["name"]: one["others"] for one in listed if one["allocation"]} == {
            plain: [own],
            own: [plain],
        }
        made = adopt(host, own)
        assert triples(made, "uid") == recipes.lines(started[1].uid_map)
        assert triples(made, "gid") == recipes.lines(started[1].gid_map)
        [one] = [
            one
            for one in json.loads(host.run(*USERNSPLAN, "list", "--json").stdout)["allocations"]
            if one["name"] == own
        ]
        assert one["lines"] is False
        with pytest.raises(CommandFailed, match="in the ledger"):
            host.run(*USERNSPLAN, "adopt", plain)
