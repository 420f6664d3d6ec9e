"""Incus and LXD: the ids of their instances, as the daemon says, and those that no line grants.

Both read root's lines of subuid and subgid. Where newuidmap, newgidmap or one of the files is
missing, and always in the snap of LXD, they take 1000000-1000999999 instead (NewSetFromSystem and
getIdmapset in the source of Incus; run with Incus 6.0 and LXD 5.0).
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan.errors import InvalidFileError, UsernsplanError, of_system
from usernsplan.host import files, programs
from usernsplan.host.unread import fail, missing
from usernsplan.layout import LXD_SNAPS, SUBGID, SUBUID
from usernsplan.mapping import KINDS
from usernsplan.model import INCUS, LXD, ROOT, Unlisted
from usernsplan.reserved import INSTANCES
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.host.unread import Miss
    from usernsplan.layout import Layout
    from usernsplan.mapping import Kind

# The programs that newuidmap's package has, and the daemons by the name of their process.
_SHADOW = ("newuidmap", "newgidmap")
_NAMES = {"incusd": INCUS, "lxd": LXD}
SNAP = LXD_SNAPS[0]


class _Daemon(NamedTuple):
    process: str
    socket: str


SOCKET = "/var/lib/incus/unix.socket"
_DAEMONS = (
    _Daemon("incusd", SOCKET),
    _Daemon("lxd", "/var/lib/lxd/unix.socket"),
    _Daemon("lxd", "/var/snap/lxd/common/lxd/unix.socket"),
)
# HTTP 1.0: the answer has no chunks, and its end is the end of the connection.
_ASK = b"GET /1.0/instances?recursion=1&all-projects=true HTTP/1.0\r\nHost: daemon\r\n\r\n"
# In all, so that a daemon that hangs or answers byte by byte does not stop us.
_SECONDS = 5.0
_MOST = 64 << 20
_PIECE = 1 << 16
_OK = b"200"
# What an instance gets at its next start (also raw.idmap), what it has, and what its files have.
_NEXT = "volatile.idmap.next"
_MAPS = (_NEXT, "volatile.idmap.current", "volatile.last_state.idmap")


def without_lines(layout: Layout) -> tuple[Unlisted, ...]:
    """The ids of the instances of a LXD or an Incus that does not read root's lines."""
    found = [(LXD, path) for path in LXD_SNAPS if programs.exists(layout, path)][:1]

    paths = programs.installed(layout, *_NAMES, *_SHADOW)
    here = {os.path.basename(path) for path in paths}
    reads = here.issuperset(_SHADOW) and all(files.exists(layout, f) for f in (SUBUID, SUBGID))
    if not reads:
        found += [
            (name, path)
            for path in sorted(paths)
            if path != SNAP and (name := _NAMES.get(os.path.basename(path)))
        ]
    return tuple(
        Unlisted(program, "all instances", kind, INSTANCES.start, INSTANCES.stop, path=path)
        for program, path in dict(found).items()
        for kind in KINDS
    )


def instances(layout: Layout, miss: Miss = fail) -> tuple[Unlisted, ...]:
    """The ids of each instance of the daemons that run on this machine.

    A daemon that does not run is not started, and its instances are unknown: their ids are those
    of root's lines, or ``without_lines``. Raises UsernsplanError if a daemon does not answer in
    time, or with something else than its instances, and NotPermittedError.
    """
    if not layout.is_host:
        return ()
    found: list[Unlisted] = []
    for daemon in _DAEMONS:
        with missing(daemon.socket, miss):
            found += _of_daemon(daemon)
    return tuple(found)


def _of_daemon(daemon: _Daemon) -> tuple[Unlisted, ...]:
    # systemd may listen for a daemon that is stopped: to connect would start it.
    if not _is_there(daemon.socket) or not _runs(daemon.process):
        return ()
    try:
        answer = _asked(daemon)
    except PermissionError as error:
        raise of_system(error, daemon.socket) from error
    except OSError:
        # It ended meanwhile: root's lines still say which ids it takes.
        return ()
    try:
        return tuple(dict.fromkeys(_parsed(_NAMES[daemon.process], answer)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        fact = f"{daemon.process} answers with something else than its instances"
        raise InvalidFileError(daemon.socket, fact, hint=f"restart {daemon.process}") from error


def _is_there(socket: str) -> bool:
    """Tell whether there is a socket, or whether there may be one in a folder that is closed to us."""
    try:
        os.stat(socket)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _runs(name: str) -> bool:
    for process in filter(str.isdigit, os.listdir("/proc")):
        # Bytes, because a process can give itself any name.
        with suppress(OSError), open(f"/proc/{process}/comm", "rb") as comm:
            if comm.read() == f"{name}\n".encode():
                return True
    return False


def _asked(daemon: _Daemon) -> bytes:
    """The body of the daemon's answer. Raises OSError, and UsernsplanError after _SECONDS."""
    import socket  # noqa: PLC0415 - slow, and seldom needed

    end, answer = time.monotonic() + _SECONDS, bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(_SECONDS)
            connection.connect(daemon.socket)
            connection.sendall(_ASK)
            while piece := connection.recv(_PIECE):
                answer += piece
                if len(answer) > _MOST:
                    raise InvalidFileError(daemon.socket, f"an answer of more than {_MOST} bytes")
                # 0 would mean: do not wait at all.
                connection.settimeout(max(end - time.monotonic(), 0.001))
        except (TimeoutError, BlockingIOError) as error:
            raise UsernsplanError(
                f"{daemon.socket}: {daemon.process} does not answer within {_SECONDS:g} seconds, so "
                "the ids of its instances are unknown",
                hint=f"try again later, or restart {daemon.process}",
            ) from error

    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    if head.split()[1:2] != [_OK]:
        raise InvalidFileError(daemon.socket, f"{daemon.process} refuses to name its instances")
    return body


def _parsed(program: str, body: bytes) -> Iterator[Unlisted]:
    for instance in json.loads(body)["metadata"]:
        name, project, node = (
            str(instance.get(key, "")) for key in ("name", "project", "location")
        )
        what = f"instance {name}"
        what += f" of project {project}" if project not in {"", "default"} else ""
        what += f" on {node}" if node not in {"", "none"} else ""
        is_here = node in {"", "none"}
        seen = set()
        for key in _MAPS:
            for extent in _extents(instance["config"].get(key)):
                if extent not in seen:
                    seen.add(extent)
                    kind, inside, start, count = extent
                    ids = Unlisted(program, what, kind, start, start + count, name, grantee=ROOT)
                    yield ids._replace(inside=inside, is_next=is_here and key == _NEXT)


def _extents(text: str | None) -> Iterator[tuple[Kind, int, int, int]]:
    """The ids in a map, as its kind, first container id, first host id and count."""
    for entry in json.loads(text or "[]"):
        inside, start, count = numbers = entry["Nsid"], entry["Hostid"], entry["Maprange"]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError(f"{entry!r:.60} are no ids")
        for kind, is_it in (("uid", entry["Isuid"]), ("gid", entry["Isgid"])):
            if is_it:
                yield ("uid" if kind == "uid" else "gid"), inside, start, count
