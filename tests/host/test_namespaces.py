"""The user namespaces of this machine, compared with lsns and the kernel's files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.command import needs_root
from tests.host.nested import nested
from usernsplan.host import namespaces
from usernsplan.ids import IdRange

if TYPE_CHECKING:
    from usernsplan.model import Namespace

pytestmark = needs_root


def of(pid: int) -> Namespace:
    inode = os.stat(f"/proc/{pid}/ns/user").st_ino
    [found] = [one for one in namespaces.running() if one.inode == inode]
    return found


def test_a_namespace_and_a_nested_one_are_told_with_owner_parent_and_the_hosts_ids() -> None:
    with nested() as (outer_pid, inner_pid):
        outer, inner = of(outer_pid), of(inner_pid)
        assert outer.pids == (outer_pid,)
        assert inner.pids == (inner_pid,)
        assert outer.owner == 0
        assert outer.parent == os.stat("/proc/self/ns/user").st_ino
        assert inner.parent == outer.inode
        assert inner.owner == 3000000
        assert outer.mapping
        assert inner.mapping
        assert outer.mapping.uids.triples() == outer.mapping.gids.triples() == [(0, 3000000, 1000)]
        # In the namespace the map reads "5 0 1"; read from here, it shows host ids.
        assert inner.mapping.uids.triples() == [(5, 3000000, 1)]
        assert IdRange(3000000, 1000) in set(namespaces.host_ids())


def test_our_own_namespace_is_none_of_them_and_lsns_knows_the_same() -> None:
    own = os.stat("/proc/self/ns/user").st_ino
    with nested() as pids:
        ours = {
            one.inode: len(one.pids) for one in namespaces.running() if set(one.pids) & set(pids)
        }
        words = ["lsns", "--type", "user", "--noheadings", "--output", "NS,NPROCS"]
        # It fails where a process of anybody's ends while it looks.
        for _ in range(20):
            said = subprocess.run(words, capture_output=True, text=True, check=False)
            if said.returncode == 0:
                break
        theirs = {int(line.split()[0]): int(line.split()[1]) for line in said.stdout.splitlines()}
        assert own not in ours
        assert ours == {inode: theirs[inode] for inode in ours}
        assert len(ours) == 2


def test_a_parent_that_every_process_has_left_is_found_all_the_same() -> None:
    with nested("orphan") as (outer_pid, inner_pid):
        deadline = time.monotonic() + 30
        while (
            Path(f"/proc/{outer_pid}/task").exists()
            and "Z" not in Path(f"/proc/{outer_pid}/stat").read_text()
        ):
            assert time.monotonic() < deadline
        os.waitpid(outer_pid, 0)
        inner = of(inner_pid)
        [outer] = [one for one in namespaces.running() if one.inode == inner.parent]
        assert outer.pids == ()
        assert outer.mapping is None
        assert outer.owner == 0


def test_a_namespace_without_maps_is_told_without_a_mapping() -> None:
    with subprocess.Popen(
        ["unshare", "--user", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"x\n")
        process.stdin.flush()
        process.stdout.readline()
        assert of(process.pid).mapping is None
        process.stdin.close()


def test_processes_that_come_and_go_meanwhile_disturb_nothing() -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do unshare -U true; done"
    with subprocess.Popen(["sh", "-c", f"{script} & {script}; wait"]) as storm:
        while storm.poll() is None:
            namespaces.running()
            namespaces.host_ids()


@pytest.mark.skipif(not Path("/usr/bin/setpriv").exists(), reason="setpriv is not installed")
def test_whoever_is_not_root_sees_his_own_and_is_told_so() -> None:
    code = "from usernsplan.host import namespaces as n; print(n.sees_all(), n.running(), 3000000 in n.host_ids())"
    with nested():
        done = subprocess.run(
            [
                "setpriv",
                "--reuid=12345",
                "--regid=12345",
                "--clear-groups",
                sys.executable,
                "-c",
                code,
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(Path(namespaces.__file__).parents[2])},
        )
    assert done.stdout == "False () True\n", done.stderr
