"""The real programs and the real kernel, asked without touching the real /etc."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_ETC = {
    "passwd": b"root:x:0:0::/root:/bin/sh\nweb:x:1234:1234::/:/bin/sh\n",
    "group": b"root:x:0:\nweb:x:1234:\n",
    "shadow": b"",
    "gshadow": b"",
    "login.defs": b"",
    "nsswitch.conf": b"passwd: files\ngroup: files\n",
    "subuid": b"",
    "subgid": b"",
}
# Private to the program: a folder of ours over /etc, and an empty one over the logs that useradd writes to.
_INSTEAD = 'mount --bind "$0" /etc && mount -t tmpfs none /var/log && exec "$@"'


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where one of the programs is missing, or where we may not make namespaces; where CI is to have all, fail."""
    if os.geteuid() != 0 or not _namespaces():
        return pytest.mark.skipif(
            True, reason="only root may mount over /etc and write any uid_map"
        )
    missing = [program for program in ("unshare", *programs) if shutil.which(program) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{', '.join(missing)} not installed")
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


def _namespaces() -> bool:
    """Some containers let not even root make a namespace or mount in it."""
    command = [
        "unshare",
        "--mount",
        "--user",
        "--map-root-user",
        "mount",
        "-t",
        "tmpfs",
        "none",
        "/tmp",
    ]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def under_etc(
    folder: Path, files: Mapping[str, bytes], *command: str, timeout: float = 30
) -> subprocess.CompletedProcess[bytes]:
    """Run a command that sees ``folder`` as its /etc, which holds two accounts and what ``files`` adds."""
    for name, content in {**_ETC, **files}.items():
        (folder / name).write_bytes(content)
    wrapped = ["unshare", "--mount", "sh", "-c", _INSTEAD, str(folder), *command]
    return subprocess.run(wrapped, capture_output=True, check=False, timeout=timeout)


@contextmanager
def fresh_namespace(*through: str) -> Iterator[int]:
    """Start a process in a user namespace that has no maps yet, by way of a command that leads there; give its pid."""
    command = [*through, "unshare", "--user", "sh", "-c", "echo ready; read _"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        try:
            yield child.pid
        finally:
            child.kill()


def kernel_takes(text: str) -> bool:
    """Write a map in one go, as the kernel wants it, and see whether it says EINVAL."""
    with fresh_namespace() as pid:
        file = os.open(f"/proc/{pid}/uid_map", os.O_WRONLY)
        try:
            return os.write(file, text.encode()) == len(text)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
        finally:
            os.close(file)


_RANGE = re.compile(rb"^\d+: \S+ (\d+) (\d+)$", re.MULTILINE)


def getsubids(folder: Path, raw: bytes, owner: str = "web") -> list[tuple[int, int]]:
    """Ask for the (start, stop) of every range that ``owner`` has in a subuid file of these bytes."""
    answer = under_etc(folder, {"subuid": raw}, "getsubids", owner)
    return [(int(start), int(start) + int(count)) for start, count in _RANGE.findall(answer.stdout)]
