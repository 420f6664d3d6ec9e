"""Published ranges, seen by the real programs: systemd-nspawn keeps away, NSS names the ids."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engines.planned import usernsplan
from tests.engines.recipes import busybox_rootfs
from tests.engines.recipes_nspawn import NSPAWN, NSPAWN_ENVIRONMENT
from tests.engines.throwaway import ThrowawayHost, require
from usernsplan.formats import userdb
from usernsplan.model import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

SLOT = 65536
TREE = "/tmp/published-tree"
SWITCH = "passwd: files systemd\ngroup: files systemd\n"
PLAN = "/root/usernsplan.yaml"
PLANNED = """\
strategy: per-container
engines: [nspawn]
pool: 589824-1879048191
publish: {publish}
containers:
"""


def picks(host: ThrowawayHost, names: Iterable[str]) -> dict[str, int]:
    """What systemd-nspawn picks for a machine of each name. It looks first where the name's hash says."""
    # The overlay makes a machine's changes, also the owner of its tree, disappear with it.
    script = " ".join(
        (
            f"for name in {' '.join(names)}; do",
            f"{' '.join(NSPAWN)} --pipe --settings=no --volatile=no --private-users=pick",
            "--private-users-ownership=off",
            f"--directory={TREE} --machine=$name /bin/cat /proc/self/uid_map </dev/null; done",
        )
    )
    lines = host.run("sh", "-c", script, env=NSPAWN_ENVIRONMENT, timeout=300).stdout.splitlines()
    return {name: int(line.split()[1]) for name, line in zip(names, lines, strict=True)}


def allocated(host: ThrowawayHost, bases: Iterable[int], publish: str) -> None:
    """Each base gets a name; all at once, because a command for each of 200 takes minutes."""
    names = (f"  - {{name: m{base}, start: {base}}}\n" for base in sorted(set(bases)))
    host.write(PLAN, PLANNED.format(publish=publish) + "".join(names))
    usernsplan(host, "apply", PLAN, "--yes")


@pytest.fixture
def host_of_nspawn(host: ThrowawayHost) -> ThrowawayHost:
    require("systemd-nspawn", "getent")
    host.write("/etc/nsswitch.conf", SWITCH)
    busybox_rootfs(host, TREE)
    return host


@pytest.mark.parametrize("tries", [8, pytest.param(60, marks=pytest.mark.slow)])
def test_pick_never_lands_in_a_published_range_and_does_where_nothing_is_published(
    host_of_nspawn: ThrowawayHost, tries: int
) -> None:
    host, names = host_of_nspawn, [f"machine{number}" for number in range(tries)]
    first = picks(host, names)
    assert all(base % SLOT == 0 for base in first.values())

    # The same names look at the same bases first. Lines in subuid alone keep nobody away.
    allocated(host, first.values(), "none")
    assert picks(host, names) == first

    allocated(host, first.values(), "userdb")
    assert set(picks(host, names).values()).isdisjoint(first.values())


def test_programs_name_the_ids_of_a_published_range(host_of_nspawn: ThrowawayHost) -> None:
    host = host_of_nspawn
    usernsplan(host, "allocate", "--strategy", "per-container", "web", "--size", "131072")
    user = (
        "usernsplan-web:x:589824:589824:container ids (usernsplan):/nonexistent:/usr/sbin/nologin"
    )
    for key in ("usernsplan-web", "589824"):
        assert host.run("getent", "passwd", key).stdout.strip() == user
    assert host.run("getent", "group", "655360").stdout.startswith("usernsplan-web--1:x:655360:")
    host.run("sh", "-c", "touch /tmp/file && chown 589824:589824 /tmp/file")
    assert " usernsplan-web usernsplan-web " in host.run("ls", "-l", "/tmp/file").stdout
    # Nobody logs in: shadow shows a locked password.
    assert "!" in host.run("getent", "shadow", "usernsplan-web").stdout.split(":")[1]

    # Our own rules do not take it for an account, and the same command changes nothing.
    found = usernsplan(host, "check", "--json").stdout
    assert not {code for code in ("USN004", "USN005", "USN006", "USN008") if code in found}
    again = usernsplan(host, "allocate", "web", "--size", "131072").stdout
    assert "Already up to date." in again

    usernsplan(host, "release", "web")
    assert host.run("getent", "passwd", "589824", check=False).returncode == 2
    assert host.run("ls", "/etc/userdb").stdout == ""


def test_a_system_account_instead(host_of_nspawn: ThrowawayHost) -> None:
    host = host_of_nspawn
    require("useradd", "userdel", "groupadd")
    host.write("/etc/nsswitch.conf", "passwd: files\ngroup: files\n")
    words = ("--strategy", "per-container", "web", "--publish", "passwd")
    usernsplan(host, "allocate", *words)
    line = host.run("getent", "passwd", "usernsplan-web").stdout.strip()
    assert line == (
        "usernsplan-web:x:589824:589824:container ids (usernsplan):/nonexistent:/usr/sbin/nologin"
    )
    assert host.read("/etc/subuid") == b"usernsplan-web:589824:65536\n"
    assert "Already up to date." in usernsplan(host, "allocate", "web").stdout
    usernsplan(host, "check")

    usernsplan(host, "release", "web")
    assert host.run("getent", "passwd", "usernsplan-web", check=False).returncode == 2
    assert host.run("getent", "group", "usernsplan-web", check=False).returncode == 2


def test_who_lists_all_accounts_lists_ours_too(host_of_nspawn: ThrowawayHost) -> None:
    # getpwall(3) of a program that lists all accounts has ours, too.
    host = host_of_nspawn
    usernsplan(host, "allocate", "--strategy", "per-container", "web")
    listed = host.run(
        sys.executable, "-c", "import pwd; print([u.pw_name for u in pwd.getpwall()])"
    )
    assert "'usernsplan-web'" in listed.stdout


# CPU seconds, so that what else runs on the machine does not count.
TIME_NEWUIDMAP = """
import os, resource, subprocess, sys, time
child = subprocess.Popen(["unshare", "--user", "sleep", "60"])
while os.readlink(f"/proc/{child.pid}/ns/user") == os.readlink("/proc/self/ns/user"):
    time.sleep(0.01)
subprocess.run(["newuidmap", str(child.pid), "0", "589824", "65536"], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
child.kill()
print(used.ru_utime + used.ru_stime)
"""


def test_newuidmap_takes_no_longer_beside_10000_published_ranges_than_beside_accounts() -> None:
    require("newuidmap", "unshare")
    records = [Record(f"usernsplan-c{n}", 655360 + SLOT * n) for n in range(10_000)]
    text = "".join(f"{record.name}:{record.number}:{SLOT}\n" for record in records)
    accounts = "".join(f"{r.name}:x:{r.number}:{r.number}::/:/bin/false\n" for r in records)

    def publish() -> None:
        folder = Path("/etc/userdb")
        folder.mkdir()
        for record in records:
            for name, content in userdb.entries(record).items():
                if isinstance(content, str):
                    os.symlink(content, folder / name)
                else:
                    (folder / name).write_bytes(content)

    with ThrowawayHost() as published, ThrowawayHost() as with_accounts:
        published.inside(publish)
        passwd = with_accounts.read("/etc/passwd").decode()
        with_accounts.write("/etc/passwd", passwd + accounts)
        hosts = (published, with_accounts)
        # newuidmap looks for the name first, and then for whoever has the same uid.
        for owner in ("root", "0"):
            for host in hosts:
                host.write("/etc/nsswitch.conf", SWITCH)
                host.write("/etc/subuid", f"{text}{owner}:589824:{SLOT}\n")
            # In turns.
            turns = [
                [float(host.run(sys.executable, "-c", TIME_NEWUIDMAP).stdout) for host in hosts]
                for _ in range(7)
            ]
            beside, beside_accounts = map(min, zip(*turns, strict=True))
            assert beside < 1.5 * beside_accounts, (owner, turns)
