"""Real containers of LXC, root's and an account's: their maps are seen, and LXC agrees with what check says."""

from __future__ import annotations

import json
import re
import shlex
import sys
from typing import TYPE_CHECKING

import pytest

from tests.engines import recipes
from tests.engines.planned import MAPS, shown
from tests.engines.recipes_incus import incus
from tests.engines.recipes_lxc import LXC_CONF, _lxc_rootfs
from tests.engines.recipes_lxd import StartFailed
from tests.engines.throwaway import CommandFailed, require

if TYPE_CHECKING:
    from typing import Any

    from tests.engines.throwaway import ThrowawayHost

USERNSPLAN = (sys.executable, "-m", "usernsplan")
MAP = "lxc.idmap = u 0 700000 65536\nlxc.idmap = g 0 700000 65536\n"


def container(host: ThrowawayHost, name: str, idmap: str) -> None:
    _lxc_rootfs(host)
    host.write(f"/var/lib/lxc/{name}/config", f"{LXC_CONF}lxc.uts.name = {name}\n{idmap}")


def start(host: ThrowawayHost, name: str) -> str:
    return host.run("lxc-execute", "--name", name, "--", "sh", "-c", MAPS).stdout


def lines(host: ThrowawayHost, content: str) -> None:
    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, content)


def findings(host: ThrowawayHost) -> dict[str, dict[str, Any]]:
    done = host.run(*USERNSPLAN, "check", "--json", check=False)
    return {one["code"]: one for one in json.loads(done.stdout)["findings"]}


def allocate(host: ThrowawayHost, *words: str) -> dict[str, Any]:
    done = host.run(*USERNSPLAN, "allocate", "--strategy", "per-container", *words, "--json")
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def test_lxc_starts_a_container_where_check_has_no_finding_and_only_there(
    host: ThrowawayHost,
) -> None:
    require("lxc-execute", "newuidmap", "usermod")
    container(host, "web", MAP)
    lines(host, "root:100000:65536\n")
    with pytest.raises(CommandFailed, match=r"newuidmap: uid range .* not allowed"):
        start(host, "web")
    found = findings(host)["USN084"]
    assert found["place"] == "/var/lib/lxc/web/config:7"
    assert "no 700000-765535" in found["message"]

    # Adjacent lines are one for newuidmap.
    lines(host, "root:732768:32768\nroot:700000:32768\n")
    assert "USN084" not in findings(host)
    assert shown(start(host, "web")) == ([(0, 700000, 65536)],) * 2


UIDS = "lxc.idmap = u 0 100000 65536"
GIDS = "lxc.idmap = g 0 100000 65536"
# Each map, and the codes of what check says about it: a warning, or that LXC does not start it.
MAPS_BY_HAND = (
    (f"{UIDS}, g 0 100000 104, g 104 104 1, g 105 100105 65431", ""),
    # It starts, with ids that nobody meant.
    (f"{UIDS}, g 0 100000 104, g 104 104 1, g 105 100106 65430", "USN066"),
    (f"{GIDS}, u 0 100000 1604, u 1604 1604 3, u 1607 101607 63929", "USN084"),
    (f"{UIDS}, g 0 100000 104, g 104 104 1, g 105 100105 65536", "USN066 USN084"),
    (f"{UIDS}, {GIDS}, g 104 104 1", "USN083"),
    (f"{UIDS}, g 0 100000 104, g 104 104 1, g 105 104 1, g 106 100106 65430", "USN083"),
    (UIDS, "USN083"),
    (f"{GIDS}, u 100000 0 65536", "USN083"),
    (f"{UIDS}, g 1 100001 65535", "USN083"),
    ("b 0 100000 65536", "USN083"),
    (f"{UIDS}, {GIDS}, g 70000 104 0", "USN083"),
)
# These are errors: LXC does not start such a container.
REFUSED = {"USN083", "USN084"}


def test_lxc_refuses_a_map_by_hand_where_check_says_so_and_only_there(host: ThrowawayHost) -> None:
    require("lxc-execute", "newuidmap")
    for number, (idmap, _) in enumerate(MAPS_BY_HAND):
        lines_of = idmap.replace("lxc.idmap = ", "").split(", ")
        content = "".join(f"lxc.idmap = {line}\n" for line in lines_of)
        container(host, f"c{number}", content)
    host.write("/etc/subuid", "root:100000:65536\nroot:1606:1\n")
    host.write("/etc/subgid", "root:100000:65536\nroot:104:1\n")
    told = json.loads(host.run(*USERNSPLAN, "check", "--json", check=False).stdout)["findings"]

    for number, (idmap, expected) in enumerate(MAPS_BY_HAND):
        place = f"/var/lib/lxc/c{number}/config:"
        codes = {one["code"] for one in told if one["place"].startswith(place)}
        assert codes == set(expected.split()), idmap
        done = host.run("lxc-execute", "--name", f"c{number}", "--", "true", check=False)
        assert (done.returncode == 0) is codes.isdisjoint(REFUSED), (idmap, done.stderr)


def test_the_remedy_can_be_pasted(host: ThrowawayHost) -> None:
    require("lxc-execute", "newuidmap", "usermod")
    # An id of the host that is passed through needs its own line.
    idmap = "".join(
        f"lxc.idmap = {kind} 0 700000 1000\nlxc.idmap = {kind} 1000 1000 1\n" for kind in "ug"
    )
    container(host, "web", idmap)
    lines(host, "root:700000:1000\n")
    with pytest.raises(CommandFailed, match=r"newuidmap: uid range .* not allowed"):
        start(host, "web")
    command = re.fullmatch(r"grant them: (usermod .*)", findings(host)["USN084"]["hint"])
    assert command
    host.run("sh", "-c", command[1])
    assert "USN084" not in findings(host)
    assert shown(start(host, "web")) == ([(0, 700000, 1000), (1000, 1000, 1)],) * 2


def test_a_map_with_host_root_needs_no_line(host: ThrowawayHost) -> None:
    require("lxc-execute", "newuidmap")
    container(host, "web", "lxc.idmap = u 0 0 70000\nlxc.idmap = g 0 0 70000\n")
    assert shown(start(host, "web")) == ([(0, 0, 70000)],) * 2
    assert "USN084" not in findings(host)


def test_a_range_that_a_stopped_container_has_is_not_given_out(host: ThrowawayHost) -> None:
    require("lxc-execute")
    container(host, "db", "lxc.idmap = u 0 600000 65536\nlxc.idmap = g 0 600000 65536\n")
    lines(host, "")
    made = allocate(host, "web", "--engine", "podman")
    assert made["allocations"][0]["reserved_range"]["start"] == 720896


def test_a_copied_container_shares_the_ids_of_ours(host: ThrowawayHost) -> None:
    require("lxc-execute", "lxc-copy", "newuidmap")
    lines(host, "")
    allocate(host, "web", "--engine", "lxc")
    host.run(*USERNSPLAN, "render", "lxc", "web", "--out", "/")
    container(host, "web", "lxc.include = /var/lib/lxc/web/usernsplan.conf\n")
    assert shown(start(host, "web")) == ([(0, 589824, 65536)],) * 2
    assert {"USN084", "USN085"}.isdisjoint(findings(host))

    host.run("cp", "-a", "/var/lib/lxc/web", "/var/lib/lxc/db")
    found = findings(host)["USN085"]
    # The include still names the file of web.
    assert found["place"] == "/var/lib/lxc/web/usernsplan.conf:1"
    assert "LXC (container db) maps 589824-655359" in found["message"]

    # The container itself is no obstacle: the name gets its range back.
    host.run("rm", "-r", "/var/lib/lxc/db")
    host.run(*USERNSPLAN, "release", "web", "--yes")
    again = allocate(host, "web", "--engine", "lxc")
    assert again["allocations"][0]["reserved_range"]["start"] == 589824


def test_an_accounts_container(host: ThrowawayHost) -> None:
    require("lxc-info", "lxc-usernsexec", "newuidmap", "useradd", "setpriv")
    host.run("useradd", "--create-home", "alice")
    lines(host, "alice:200000:65536\n")
    folder = "/home/alice/.local/share/lxc/box"
    host.write(f"{folder}/config", "lxc.idmap = u 0 200000 65536\nlxc.idmap = g 0 200000 65536\n")
    as_alice = (
        *("setpriv", "--reuid", "alice", "--regid", "alice", "--clear-groups"),
        *("env", "HOME=/home/alice"),
    )
    maps = ("-m", "u:0:200000:65536", "-m", "g:0:200000:65536")
    host.run(*as_alice, "lxc-usernsexec", *maps, "--", "true")
    assert "USN084" not in findings(host)
    told = host.run(*USERNSPLAN, "whois", "200001").stdout
    assert "LXC (container box)" in told

    # LXC itself looks in this folder.
    host.run("chown", "-R", "alice:", "/home/alice")
    read = host.run(*as_alice, "lxc-info", "--name", "box", "--config", "lxc.idmap").stdout
    assert "u 0 200000 65536" in read

    lines(host, "root:200000:65536\nalice:300000:65536\n")
    refused = host.run(*as_alice, "lxc-usernsexec", *maps, "--", "true", check=False)
    assert refused.returncode != 0
    assert findings(host)["USN084"]["place"] == f"{folder}/config:1"


def test_the_default_of_a_fresh_host_has_no_finding(host: ThrowawayHost) -> None:
    require("lxc-execute", "useradd")
    host.run("useradd", "--create-home", "alice")
    codes = set(findings(host))
    assert {code for code in codes if code.startswith("USN08")} == set()


def test_lxc_path_is_the_one_of_lxc_conf(host: ThrowawayHost) -> None:
    require("lxc-config")
    host.write(
        "/etc/lxc/lxc.conf", "#lxc.lxcpath = /a\n \tlxc.lxcpath=/srv/lxc/\nlxc.lxcpath = /b\n"
    )
    assert host.run("lxc-config", "lxc.lxcpath").stdout == "/srv/lxc\n"
    host.write("/srv/lxc/web/config", MAP)
    assert "LXC (container web)" in host.run(*USERNSPLAN, "whois", "700000").stdout


@pytest.mark.slow
def test_incus_starts_an_instance_with_raw_idmap_where_check_has_no_finding_and_only_there(
    host: ThrowawayHost,
) -> None:
    lines(host, "root:1000000:1000000000\n")
    with incus(host) as daemon:
        name = daemon.create('config:\n  raw.idmap: "gid 104 107"\n')
        found = findings(host)["USN048"]
        assert f"Incus's instance {name}: subgid grants root no 104" in found["message"]
        with pytest.raises(StartFailed, match=r"newgidmap: gid range \[107-108\) -> \[104-105\)"):
            daemon.start(name)
        # What it prints mends it.
        host.run(*shlex.split(found["hint"].removeprefix("grant them: ")))
        assert "USN048" not in findings(host)
        assert (107, 104, 1) in recipes.lines(daemon.start(name).gid_map)
