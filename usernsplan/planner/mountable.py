"""Why something cannot be shown with other ids, in words. Pure.

The kernel is asked by trying (host.trial); names of file systems only explain its answer. It says
EINVAL for several reasons: mount_setattr(2).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from usernsplan.escape import shell, shown_path
from usernsplan.fixing import Obstacle
from usernsplan.patterns import pattern

if TYPE_CHECKING:
    from usernsplan.host.mounts import MountPoint
    from usernsplan.host.trial import Failed

FIRST = (5, 12)
# The Linux since which each file system can, from mount_setattr(2) and its history.
SINCE = {
    "ext4": FIRST,
    "vfat": FIRST,
    "xfs": FIRST,
    "btrfs": (5, 15),
    "ntfs3": (5, 15),
    "f2fs": (5, 18),
    "erofs": (5, 19),
    "squashfs": (6, 2),
    "tmpfs": (6, 3),
    "ceph": (6, 7),
    "hugetlbfs": (6, 9),
}
_OF_SERVER = pattern("9p|afs|cifs|glusterfs|lustre|nfs4?|smb3")
_ON_HOST = "run usernsplan on the host, outside of the container"
_CHOWN = "use fix-volume --method chown"


def why_not(failed: Failed) -> Obstacle:
    """The reason for which a trial failed, and the remedy."""
    number = failed.number
    if failed.step == "open":
        is_missing = number in {errno.ENOENT, errno.ENOTDIR}
        return Obstacle("it does not exist yet" if is_missing else _words(number))
    if not failed.kernel.is_root:
        return Obstacle("only root can try it", "run as root")
    if failed.step == "namespace":
        return _no_namespace(failed)
    if number in {errno.ENOSYS, errno.EPERM, errno.EACCES}:
        return _not_permitted(failed)
    if number == errno.EINVAL:
        return _not_copied(failed.mount) if failed.step == "copy" else _not_mapped(failed)
    return Obstacle(f"the kernel returns: {_words(number)}")


def _no_namespace(failed: Failed) -> Obstacle:
    number = failed.number
    if number == errno.EPERM and not failed.kernel.is_initial:
        return Obstacle("the user namespace of this process lacks ids of the map", _ON_HOST)
    if number == errno.ENOSPC:
        return Obstacle(
            "no more user namespaces can be created",
            "permit more: sysctl user.max_user_namespaces=65536",
        )
    if number == errno.EPERM:
        return Obstacle(
            "no user namespace can be created: this process is in a chroot, or a filter or a"
            " security module forbids it",
            _ON_HOST,
        )
    return Obstacle(f"no user namespace can be created with this map: {_words(number)}")


def _not_permitted(failed: Failed) -> Obstacle:
    number, kernel = failed.number, failed.kernel
    if number == errno.ENOSYS and kernel.version < FIRST:
        return Obstacle(f"Linux {_dotted(kernel.version)} is too old: it needs 5.12", _CHOWN)
    if number == errno.EPERM and failed.mount.is_idmapped:
        fact, remedy = "it is on an idmapped mount already", "name the folder that is mounted there"
    elif number == errno.EPERM and not kernel.is_initial:
        fact = "its file system was mounted in another user namespace than that of this process"
        remedy = _ON_HOST
    elif kernel.is_filtered:
        fact, remedy = "a filter of system calls (seccomp) forbids it", _ON_HOST
    elif number == errno.ENOSYS:
        fact, remedy = "the kernel does not know the call", _CHOWN
    else:
        fact, remedy = "a security module, or a capability that is missing, forbids it", _ON_HOST
    return Obstacle(fact, remedy)


def _not_copied(mount: MountPoint) -> Obstacle:
    return Obstacle(
        "its mount is unbindable, or belongs to another mount namespace",
        f"make it bindable: mount --make-private {shell(mount.point)}",
    )


def _not_mapped(failed: Failed) -> Obstacle:
    if failed.inner:
        names = ", ".join(f"{shown_path(one.point)} ({one.kind})" for one in failed.inner)
        return Obstacle(
            f"what is mounted in it cannot: {names}", "leave out --cross-mounts, or unmount that"
        )
    kind, version = failed.mount.kind, failed.kernel.version
    fact, remedy = f"its file system ({kind}) does not support it", _CHOWN
    if since := SINCE.get(kind):
        fact = f"this {kind} was mounted in another user namespace"
        if version < since:
            fact = f"{kind} can since Linux {_dotted(since)}, and this is {_dotted(version)}"
    elif kind == "overlay":
        fact = ": ".join(filter(None, ("a merged overlay cannot, its layers can", _merged(failed))))
        remedy = "use fix-volume --method chown, or mount the overlay over layers that are mapped"
    elif kind.startswith(("fuse", "virtiofs")):
        fact = f"its file system ({kind}) is a program that does not permit it"
        remedy = "mount the folder that the program shows, or use fix-volume --method chown"
    elif _OF_SERVER.fullmatch(kind):
        fact = f"its owners are those of a server ({kind})"
        remedy = "mount it on the server, or use fix-volume --method chown"
    return Obstacle(fact, remedy)


def _merged(failed: Failed) -> str:
    return ", ".join(map(shown_path, failed.mount.layers))


def _dotted(version: tuple[int, int]) -> str:
    return "{}.{}".format(*version)


def _words(number: int) -> str:
    return os.strerror(number).lower()
