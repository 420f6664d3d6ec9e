"""The life of a mount on a host's own ledger, where the kernel shows who uses which ids."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import pytest

from tests.engines.throwaway import CommandFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engines.throwaway import ThrowawayHost

VOLUME = "/tmp/kept/content"
AT = "/run/usernsplan/volumes/web/tmp-kept-content"
FIRST, SECOND = 589824, 655360


def usernsplan(host: ThrowawayHost, words: str) -> str:
    done = host.run(sys.executable, "-m", "usernsplan", *words.split())
    return done.stdout + done.stderr


def refused(host: ThrowawayHost, words: str) -> str:
    with pytest.raises(CommandFailed) as failed:
        usernsplan(host, words)
    return str(failed.value.result.stderr)


def owner(host: ThrowawayHost, path: str = AT) -> int:
    return int(host.run("stat", "-c", "%u", path).stdout)


@contextlib.contextmanager
def held(host: ThrowawayHost, *words: str) -> Iterator[None]:
    """A process that says when it is there, and stays."""
    process = host.popen(*words, stdout=-1)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_remap_takes_its_own_mount_along_and_nobody_else_s(host: ThrowawayHost) -> None:
    host.run("sh", "-euc", f"mkdir -p {VOLUME}; chmod 700 /tmp/kept")
    usernsplan(host, "allocate --strategy per-container web")
    usernsplan(host, f"mount-volume {VOLUME} --container web --mode shift")
    assert owner(host) == FIRST
    assert "nothing was released" in refused(host, "release web")
    # Its own mount is no other program that has the ids.
    for words in (f"whois {FIRST + 33}", f"whois --file {AT}", "map"):
        assert "idmapped mount (" not in usernsplan(host, words), words

    # A process with the ids may write with them.
    with held(
        host, "unshare", "--user", "sh", "-c", "echo $$ >/tmp/pid; echo ready; exec sleep 60"
    ):
        mapped = f'for kind in u g; do echo "0 {FIRST} 65536" >/proc/$(cat /tmp/pid)/${{kind}}id_map; done'
        host.run("sh", "-euc", mapped)
        assert "nothing was changed" in refused(host, f"remap web --start {SECOND} --yes")
        assert owner(host) == FIRST

    # A service that has its own copy keeps it, and is named.
    copy = f"mount --make-rprivate / && mount --bind {AT} /mnt && echo ready && exec sleep 60"
    with held(host, "unshare", "--mount", "sh", "-c", copy):
        said = usernsplan(host, f"remap web --start {SECOND} --yes")
        for point in ("/mnt", AT):
            assert f"(sleep) has {VOLUME} mounted at {point}: it keeps the former map" in said
        assert owner(host) == SECOND
        forget = refused(host, "release --forget web")
        assert "an idmapped mount shows these ids" in forget
        assert "of process" in forget
    usernsplan(host, "release --forget web")
    usernsplan(host, "undo --last")
    usernsplan(host, "release web")


def test_a_namespace_that_receives_mounts_gets_the_new_one(host: ThrowawayHost) -> None:
    host.run("sh", "-euc", f"mkdir -p {VOLUME} /run/usernsplan; chmod 700 /tmp/kept")
    host.run("mount", "-t", "tmpfs", "tmpfs", "/run/usernsplan")
    host.run("mount", "--make-shared", "/run/usernsplan")
    usernsplan(host, "allocate --strategy per-container web")
    look = f"echo ready; until [ -e /tmp/go ]; do sleep 0.05; done; stat -c %u {AT} >/tmp/seen"
    with held(host, "unshare", "--mount", "--propagation", "slave", "sh", "-c", look):
        usernsplan(host, f"mount-volume {VOLUME} --container web --mode shift")
        said = usernsplan(host, f"remap web --start {SECOND} --yes")
        assert "it keeps the former map" not in said
        host.run("touch", "/tmp/go")
        host.run("sh", "-c", "until [ -s /tmp/seen ]; do sleep 0.05; done")
    assert host.read("/tmp/seen") == f"{SECOND}\n".encode()
