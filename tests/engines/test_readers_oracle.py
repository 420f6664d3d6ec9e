"""The real readers of /etc/subuid, asked what the model of them says: shadow, Docker 20.10, Podman, Buildah and LXD.

Buildah stands for Podman without libsubid, whose parser it has; LXD for Incus, its descendant. Few have to come up: the
others show what they took as soon as they have read the file.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.command import missing
from tests.engines.recipes_rootless import _require_rootless, as_user, login_user
from tests.engines.throwaway import SEARCH_PATH, ThrowawayHost, require
from tests.unit.oracle import getsubids, needs
from tests.unit.subid_lines import LAID, LINES, short
from usernsplan.formats import readers, subid
from usernsplan.formats.limits import INCUS_LEAST

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from _pytest.mark import ParameterSet

    from usernsplan.formats.readers import Reading

WEB_UID = 1234
HIGH_UID = 3000000000
CASES = [raw for raw, _ in LINES]


def sampled(cases: list[bytes]) -> list[ParameterSet]:
    """By default every fourth line, which has some of each kind: an engine is started for each."""
    return [
        pytest.param(raw, marks=pytest.mark.slow if number % 4 else (), id=short(raw))
        for number, raw in enumerate(cases)
    ]


# Says what it is asked for and refuses: what an engine read is then in its arguments, and nothing stays behind.
NEWIDMAP = '#!/bin/sh\necho "$(basename "$0")" "$@" >>/tmp/asked\nexit 1\n'
HUGE = re.compile(rb":-|[0-9]{10}")
FAILURE = re.compile(r"Format not correct|string to int conversion failed", re.IGNORECASE)


def model(raw: bytes, *names: str) -> dict[str, Reading]:
    """What each reader takes a line for, of those with one of these names; those of web unless it is said."""
    names = names or ("web", str(WEB_UID))
    return {
        reading.reader: replace(
            reading, takes=tuple(take for take in reading.takes if take[0] in names)
        )
        for reading in readers.of_line(raw)
    }


def ranges(reading: Reading) -> list[tuple[int, int]]:
    return [(start, count) for _, start, count in reading.takes]


@pytest.fixture(scope="module")
def machine() -> Iterator[ThrowawayHost]:
    """Give all tests of this file one host with a user 'web'; each writes the files that it wants to be read."""
    require()
    with ThrowawayHost() as host:
        login_user(host, "web", WEB_UID)
        login_user(host, "high", HIGH_UID)
        for name in ("newuidmap", "newgidmap"):
            host.write(f"/tmp/bin/{name}", NEWIDMAP, mode=0o755)
        yield host


@needs("getsubids")
@pytest.mark.parametrize("raw", CASES, ids=short)
def test_shadow(tmp_path: Path, raw: bytes) -> None:
    answer = [(start, stop - start) for start, stop in getsubids(tmp_path, raw)]
    assert answer == ranges(model(raw)["shadow"])


def need(program: str) -> str:
    found = shutil.which(program, path=SEARCH_PATH)
    return found or missing(program)


@pytest.mark.parametrize("raw", sampled(CASES))
def test_docker_20_10_makes_container_root_what_the_model_says(
    machine: ThrowawayHost, raw: bytes
) -> None:
    need("dockerd")
    version = machine.run("dockerd", "--version").stdout
    if "version 20.10" not in version:
        pytest.skip(f"the model's remarks are on 20.10, not on {version}")
    reading = model(raw)["docker"]
    # Of another's line it asks no more than that it has three fields.
    if not reading.takes or "20.10 does not start" in reading.remark:
        expected = []
    else:
        [(_, start, count)] = reading.takes
        # The daemon itself goes on with 64 bits, and finds no root in a range that is empty or negative.
        expected = [start if count and b":-7" not in raw else LAID]
    found = [int(name.partition(".")[0]) % 2**32 for name in container_root(machine, raw)]
    assert found == expected


def container_root(host: ThrowawayHost, raw: bytes) -> list[str]:
    """Start dockerd until it has made the folder that it names after container root, or has given up."""
    host.write("/etc/subuid", raw)
    host.write("/etc/subgid", "web:100000:65536\n")
    host.run("rm", "-rf", "/tmp/docker")
    paths = (
        "--data-root=/tmp/docker/root",
        "--exec-root=/tmp/docker/exec",
        "--pidfile=/tmp/docker/pid",
    )
    # Nobody answers there: the daemon waits for containerd, long after it has read its maps.
    nobody = (
        "--containerd=/tmp/docker/nobody",
        "--host=unix:///tmp/docker/socket",
        "--bridge=none",
    )
    daemon = host.popen("dockerd", "--userns-remap=web", "--iptables=false", *paths, *nobody)
    while daemon.poll() is None:
        if found := host.inside(lambda: _names("/tmp/docker/root")):
            _stop(daemon)
            return found
        time.sleep(0.005)
    return host.inside(lambda: _names("/tmp/docker/root"))


def _names(path: str) -> list[str]:
    return os.listdir(path) if Path(path).is_dir() else []


def _stop(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def asked(
    host: ThrowawayHost, program: str, raw: bytes, user: str = "web"
) -> tuple[list[tuple[int, int]], str]:
    """What an engine without privileges asks newuidmap for beside the user's own id, and what it says."""
    need(program)
    _require_rootless(program)
    host.write("/etc/subuid", raw)
    host.write("/etc/subgid", f"{user}:100000:65536\n")
    host.write("/tmp/asked", "", mode=0o666)
    said = as_user(
        host, user, "sh", "-c", f"PATH=/tmp/bin:$PATH {program} unshare true 2>&1 || true"
    )
    maps = [
        line.split()[2:]
        for line in host.read("/tmp/asked").decode().splitlines()
        if line.startswith("newuidmap")
    ]
    numbers = [int(word) for words in maps for word in words]
    triples = list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))
    return [(start, count) for container, start, count in triples if container > 0], said


@pytest.mark.parametrize("raw", sampled(CASES))
def test_buildah_which_reads_as_podman_without_libsubid(machine: ThrowawayHost, raw: bytes) -> None:
    if links_libsubid(need("buildah")):
        pytest.skip("this buildah is built with libsubid")
    reading = model(raw)["podman"]
    found, said = asked(machine, "buildah", raw)
    # Like Docker it cuts to 32 bits what it lays.
    assert found == [(start % 2**32, count % 2**32) for start, count in ranges(reading)]
    is_own = raw.strip().startswith(b"web")
    fails = "for any owner" in reading.remark or (
        is_own and "fails for this owner" in reading.remark
    )
    assert bool(FAILURE.search(said)) is fails


def test_podman_reads_all_lines_of_shadow_where_it_has_libsubid(machine: ThrowawayHost) -> None:
    # Podman refuses a range with the user's own uid in it, and takes one that wraps around for such a one.
    if not links_libsubid(need("podman")):
        pytest.skip("this podman is built without libsubid")
    lines = [
        subid.ended(raw).replace(b"web", b"high")
        for raw in CASES
        if b"\0" not in raw and not HUGE.search(raw)
    ]
    expected = [one for raw in lines for one in ranges(model(raw, "high", str(HIGH_UID))["shadow"])]
    found, said = asked(machine, "podman", b"".join(lines), "high")
    assert len(expected) > 10
    assert sorted(found) == sorted(expected), said


def links_libsubid(program: str) -> bool:
    return b"libsubid.so" in Path(program).read_bytes()


SENTINEL = b"root:2000000:65536\n"


def test_lxd_skips_all_lines_that_the_model_of_incus_skips(machine: ThrowawayHost) -> None:
    skipped = [
        as_root(raw)
        for raw in CASES
        if not lxd_takes(as_root(raw)) and not model(as_root(raw))["incus"].fails
    ]
    assert len(skipped) > 30
    assert lxd_map(machine, b"".join(map(subid.ended, skipped)) + SENTINEL) == (2000000, 65536)


@pytest.mark.parametrize("raw", sampled([raw for raw in CASES if b"w" * 100 not in raw]))
def test_lxd_takes_what_the_model_of_incus_takes_and_fails_where_it_fails(
    machine: ThrowawayHost, raw: bytes
) -> None:
    raw = as_root(raw)
    takes = lxd_takes(raw)
    if takes or model(raw)["incus"].fails:
        assert lxd_map(machine, subid.ended(raw) + SENTINEL) == (takes[0] if takes else None)


def as_root(raw: bytes) -> bytes:
    """LXD reads the lines of root."""
    return raw.replace(b"web", b"root").replace(b"Web", b"Root").replace(b"WEB", b"ROOT")


def lxd_takes(raw: bytes) -> list[tuple[int, int]]:
    """What LXD takes of what Incus takes: a range of this name, whatever its case, that is not too small."""
    found = ranges(model(raw, "root", "Root", "ROOT")["incus"])
    return [(start, count) for start, count in found if count >= INCUS_LEAST]


def lxd_map(host: ThrowawayHost, raw: bytes) -> tuple[int, int] | None:
    """Start LXD until it has told its map of uids; None where it has none."""
    need("lxd")
    host.write("/etc/subuid", raw)
    host.write("/etc/subgid", "root:100000:65536\n")
    # Of the daemon before, which may have come as far as its own mounts.
    host.run("sh", "-c", "umount -l /tmp/lxd/* 2>/dev/null; rm -rf /tmp/lxd; mkdir /tmp/lxd")
    with tempfile.TemporaryFile() as log:
        daemon = host.popen(
            "lxd",
            "--group",
            "root",
            "--verbose",
            env={"LXD_DIR": "/tmp/lxd"},
            stdout=log,
            stderr=log,
        )
        said = ""
        while daemon.poll() is None and "Kernel features" not in said:
            time.sleep(0.005)
            said = os.pread(log.fileno(), 1 << 20, 0).decode(errors="replace")
        _stop(daemon)
    _, configured, maps = said.partition("Configured LXD uid/gid map")
    if not configured:
        assert "Unexpected values" in said
        return None
    match = re.search(r" - u 0 (\d+) (\d+)", maps)
    assert match
    return int(match[1]), int(match[2])
