"""Which volume a path leads to, so that two hosts that share it say the same of it.

Neither the path nor the device number would do: each host mounts where it likes. Which file system it
is comes from its name on the server, or from the file system itself; where in it, from the kernel,
through bind mounts too.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan.errors import of_place
from usernsplan.host.mounts import LOCAL, OVERLAYS, MountPoint, all_mounts, mount_of
from usernsplan.layout import lies_in
from usernsplan.patterns import pattern
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

# What a machine has for itself. On cloned machines these look alike, and are not the same.
_OWN = LOCAL | OVERLAYS
# File systems of a server, which all hosts know by the name of the server and a path there.
# ocfs2, gfs2 and what nobody knows tell their own number.
_OF_SERVER = pattern(
    "9p|afs|beegfs|ceph|cifs|coda|fuse[.].*|glusterfs|lustre|ncpfs|nfs4?|orangefs|pvfs2|smb3|smbfs|"
    "virtiofs"
)
# Names of one protocol.
_ALIKE = {"nfs4": "nfs", "smb3": "cifs", "smbfs": "cifs", "fuse.glusterfs": "glusterfs"}
# SERVER:/PATH, //SERVER/PATH and CEPH=/PATH.
_PLACE = pattern(r"(?:(?P<host>.*[:=])|//(?P<share>[^/]+))(?P<path>/.*)")
# linux/fs.h since Linux 6.9: struct fsuuid2 with its length, and 16 bytes.
_GETFSUUID, _UUID = 0x80111500, 17
_BY_UUID = "/dev/disk/by-uuid"


class Identity(NamedTuple):
    """A folder or file of a file system: which ``system``, and the path ``inside`` it, "" for its top.

    ``inode`` tells what is there from what was there before under the same path; "" where the
    server's numbers do not tell that.
    """

    system: str
    inside: str
    inode: str = ""


def shared(path: str, *, cross_mounts: bool) -> tuple[Identity, ...]:
    """What other hosts may share of a real path; with ``cross_mounts``, of all that is mounted below it too.

    A path on a server may have two readings; then both are here. Raises UsernsplanError.
    """
    mounts = all_mounts()
    inner = {m.point for m in mounts if lies_in(m.point, path)} if cross_mounts else ()
    found: list[Identity] = []
    for one in dict.fromkeys((path, *inner)):
        with of_place(one):
            mount = mount_of(one, mounts)
            if mount.kind not in _OWN:
                found += _of(one, mount)
    return tuple(dict.fromkeys(found))


def _of(path: str, mount: MountPoint) -> Iterator[Identity]:
    below = path[len(mount.point.rstrip("/")) :]
    if _OF_SERVER.fullmatch(mount.kind):
        system, top = of_server(mount)
        for inside in dict.fromkeys(_inside(top, mount.root, below)):
            yield Identity(_text(system), _text(inside))
        return
    inside = (mount.root.rstrip("/") + below).rstrip("/")
    seen, number = os.lstat(path), os.statvfs(path).f_fsid
    if number in {0, _as_number(seen.st_dev)}:
        # It says nothing, or the number of the device, which is another one on each host.
        name = _uuid(path, seen.st_mode) or _uuid_of(seen.st_dev) or mount.source
    else:
        name = f"{number:x}"
    yield Identity(_text(f"{mount.kind} {name}"), _text(inside), f"{name}.{seen.st_ino:x}")


def of_server(mount: MountPoint) -> tuple[str, str]:
    """The server of a mount with what it serves, and the path there that was mounted. Pure."""
    kind = _ALIKE.get(mount.kind, mount.kind)
    found = _PLACE.fullmatch(mount.source)
    if found is None:
        # The tag of a virtual machine's folder, or a name that only the kind of it knows.
        return f"{kind} {mount.source}", ""
    path = found["path"].rstrip("/")
    # Hosts may know the server by several names; its address is one.
    host = mount.fs_option("addr") or found["share"] or found["host"].rstrip(":=").split("@")[-1]
    host = ",".join(sorted(host.split(",")))
    if kind in {"glusterfs", "lustre"}:
        # Any server of the cluster may be named; the first part of the path says which volume it is.
        _, volume, *rest = path.split("/")
        return f"{kind} {volume}", "".join(f"/{part}" for part in rest)
    if kind == "cifs":
        # The server does not tell upper from lower case.
        return f"{kind} {host.casefold()}", path.casefold()
    return f"{kind} {host}", path


def _inside(top: str, root: str, below: str) -> Iterator[str]:
    """The paths on the server. Linux may show what was mounted of NFS 4 as ``root`` once more."""
    root = root.rstrip("/")
    yield (top + root + below).rstrip("/")
    if root and top.endswith(root):
        yield (top + below).rstrip("/")


def _as_number(device: int) -> int:
    """A device number as statfs(2) shows it: huge_encode_dev of linux/kdev_t.h."""
    major, minor = os.major(device), os.minor(device)
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def _uuid(path: str, mode: int) -> str:
    """The UUID of the file system, as it tells it; "" if it does not."""
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        return ""
    with suppress(OSError):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags)
        try:
            told = fcntl.ioctl(descriptor, _GETFSUUID, bytes(_UUID))
        finally:
            os.close(descriptor)
        if any(told[1:]):
            return _with_dashes(told[1 : 1 + told[0]].hex())
    return ""


def _uuid_of(device: int) -> str:
    """The UUID by which udev names a device; "" if it does not."""
    with suppress(OSError):
        for name in os.listdir(_BY_UUID):
            with suppress(OSError):
                if os.stat(f"{_BY_UUID}/{name}").st_rdev == device:
                    return name
    return ""


def _with_dashes(digits: str) -> str:
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return "-".join(parts)


def _text(path: str) -> str:
    """A path as text that a database can hold: bytes that are not UTF-8 as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
