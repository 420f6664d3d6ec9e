"""Services of nsswitch.conf with the real programs: subordinate ids from a library, accounts that nobody lists."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.command import slow
from tests.engines import services
from tests.engines.throwaway import require

if TYPE_CHECKING:
    from tests.engines.throwaway import ThrowawayHost

USERNSPLAN = (sys.executable, "-m", "usernsplan")
SWITCH = "/etc/nsswitch.conf"
LINES = "web:100000:65536\n"


def run(host: ThrowawayHost, *words: str, status: int = 0) -> str:
    done = host.run(*USERNSPLAN, *words, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def document(host: ThrowawayHost, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.run(*USERNSPLAN, *words, "--json", check=False).stdout)
    return found


def codes(host: ThrowawayHost) -> set[str]:
    return {one["code"] for one in document(host, "check")["findings"]}


@pytest.mark.parametrize("folder", ["/usr/lib", *slow("/usr/local/lib", "/opt/own")])
def test_the_files_are_bypassed_exactly_where_shadow_can_load_the_library(
    host: ThrowawayHost, folder: str
) -> None:
    require("getsubids")
    host.write("/etc/subuid", LINES)
    host.write("/etc/subgid", LINES)
    host.write(SWITCH, "passwd: files\ngroup: files\nsubid: own\n")
    host.run("useradd", "--no-log-init", "--user-group", "web")

    # Without the library, getsubids reads the files.
    asked = host.run("getsubids", "web")
    assert "100000 65536" in asked.stdout
    assert "libsubid_own.so" in asked.stderr
    assert "USN144" in run(host, "allocate", "--strategy", "per-container", "one")
    # nsswitch.conf names no service that sees records (USN079).
    assert codes(host) == {"USN093", "USN079"}

    host.run("mkdir", "-p", folder)
    services.install(host, f"{folder}/libsubid_own.so", services.SUBID)
    if folder != "/usr/lib":
        host.write("/etc/ld.so.conf.d/own.conf", f"{folder}\n")
        host.run("ldconfig")
    assert host.run("getsubids", "web").stdout == "0: web 800000 65536\n"
    assert f"{folder}/libsubid_own.so" in run(host, "allocate", "two", status=9)
    assert "USN062" in codes(host)
    assert "USN093" not in codes(host)


def test_root_runs_a_container_without_lines_where_the_files_are_bypassed(
    host: ThrowawayHost,
) -> None:
    services.install(host, "/usr/lib/libsubid_own.so", services.SUBID)
    host.write(SWITCH, "passwd: files\ngroup: files\nsubid: own\n")
    refused = run(host, "allocate", "--strategy", "per-container", "box", status=9)
    assert "--no-lines" in refused
    run(host, "allocate", "--strategy", "per-container", "box", "--no-lines")
    assert host.read("/etc/subuid") == b""
    # newuidmap asks the service, which has never heard of it; root writes the map itself.
    uid_map = run(host, "render", "uid_map", "box").strip()
    script = (
        "unshare --user sleep 5 & p=$!; sleep 0.2; "
        f"newuidmap $p {uid_map} && exit 1; "
        f"echo '{uid_map}' >/proc/$p/uid_map; cat /proc/$p/uid_map; kill $p"
    )
    assert host.run("sh", "-c", script).stdout.split() == ["0", "589824", "65536"]


def test_accounts_that_are_not_listed_count_as_any_other(host: ThrowawayHost) -> None:
    services.install(host, "/usr/lib/libnss_own.so.2", services.ACCOUNTS)
    host.write(SWITCH, "passwd: files own\ngroup: files own\n")
    assert "carl" not in host.run("getent", "passwd").stdout
    assert "70001" in host.run("getent", "passwd", "carl").stdout

    # 655360 is dora's.
    made = document(host, "allocate", "--strategy", "per-container", "one", "two")
    assert [a["uid_map"][0]["host"] for a in made["allocations"]] == [589824, 720896]
    assert "dora" in run(host, "whois", "655360")

    # carl's line, by name and by number, and one in which carl is.
    assert codes(host) == {"USN079"}
    for path in ("/etc/subuid", "/etc/subgid"):
        host.write(path, host.read(path) + b"carl:65537:65536\n")
    assert "USN008" in codes(host)
    run(host, "allocate", "three", "--owner", "carl", status=9)
    run(host, "allocate", "four", "--owner", "dora")
    assert "podman unshare" in run(host, "render", "rootless", "four")
    assert "USN020" not in codes(host)


def test_another_root_is_not_asked_about_accounts_of_this_machine(host: ThrowawayHost) -> None:
    services.install(host, "/usr/lib/libnss_own.so.2", services.ACCOUNTS)
    host.write(SWITCH, "passwd: files own\n")
    host.run("mkdir", "-p", "/srv/image/etc")
    host.write("/srv/image/etc/nsswitch.conf", "passwd: files own\n")
    host.write("/srv/image/etc/subuid", "carl:65537:65536\n")
    host.write("/srv/image/etc/subgid", "carl:65537:65536\n")
    found = {one["code"] for one in document(host, "check", "--root", "/srv/image")["findings"]}
    assert "USN094" in found
    # The service of this machine is another one: its carl has an id in that range.
    assert found.isdisjoint({"USN006", "USN008", "USN020"})
    [answer] = document(host, "whois", "70001", "--root", "/srv/image")["answers"]
    assert (answer["free"], [one["kind"] for one in answer["uid"]]) == (False, ["subid"])
    [answer] = document(host, "whois", "655360", "--root", "/srv/image")["answers"]
    assert answer["free"] is None
