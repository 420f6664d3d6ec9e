"""Why something cannot be shown with other ids: one text for each answer of the kernel."""

from __future__ import annotations

import errno

from tests.each import each
from usernsplan.host.mounts import MountPoint
from usernsplan.host.trial import Failed, Kernel
from usernsplan.planner.mountable import why_not

NEW = Kernel((6, 18))
EXT4 = MountPoint("8:1", "/", "/srv", "ext4")
MAPPED = EXT4._replace(options="rw,relatime,idmapped")
MERGED = MountPoint(
    "0:5", "/", "/srv", "overlay", "rw", "rw,lowerdir=/l\\040x:/m,upperdir=/u,workdir=/w"
)


def of(kind: str) -> MountPoint:
    return MountPoint("0:7", "/", "/srv", kind)


@each(
    ("failed", "fact", "remedy"),
    [
        (Failed("open", errno.ENOENT, EXT4, NEW), "it does not exist yet", ""),
        (Failed("open", errno.ENOTCONN, EXT4, NEW), "not connected", ""),
        (Failed("namespace", errno.ENOSPC, EXT4, NEW), "no more user", "max_user_namespaces"),
        (Failed("namespace", errno.EPERM, EXT4, NEW), "chroot", "on the host"),
        (
            Failed("namespace", errno.EPERM, EXT4, Kernel((6, 18), is_initial=False)),
            "lacks ids of the map",
            "on the host",
        ),
        (Failed("namespace", errno.EINVAL, EXT4, NEW), "with this map: invalid", ""),
        (Failed("copy", errno.ENOSYS, EXT4, Kernel((5, 4))), "Linux 5.4 is too old", "chown"),
        (Failed("map", errno.ENOSYS, EXT4, Kernel((5, 11))), "Linux 5.11 is too old", "chown"),
        (Failed("map", errno.ENOSYS, EXT4, NEW), "does not know the call", "chown"),
        (Failed("map", errno.ENOSYS, EXT4, Kernel((6, 18), is_filtered=True)), "seccomp", "host"),
        (Failed("copy", errno.EPERM, EXT4, Kernel((6, 18), is_filtered=True)), "seccomp", "host"),
        (Failed("map", errno.EACCES, EXT4, NEW), "a security module", "on the host"),
        (Failed("map", errno.EPERM, MAPPED, NEW), "idmapped mount already", "name the folder"),
        (
            Failed("map", errno.EPERM, EXT4, Kernel((6, 18), is_initial=False)),
            "another user namespace",
            "on the host",
        ),
        (Failed("copy", errno.EINVAL, EXT4, NEW), "unbindable", "--make-private /srv"),
        (Failed("map", errno.EINVAL, MERGED, NEW), "layers can: /l x, /m, /u", "chown"),
        (Failed("map", errno.EINVAL, of("overlay"), NEW), "its layers can", "chown"),
        (Failed("map", errno.EINVAL, of("fuse.sshfs"), NEW), "(fuse.sshfs) is a program", "shows"),
        (Failed("map", errno.EINVAL, of("nfs4"), NEW), "of a server (nfs4)", "on the server"),
        (Failed("map", errno.EINVAL, of("9p"), NEW), "of a server (9p)", "on the server"),
        (Failed("map", errno.EINVAL, of("cifs"), NEW), "of a server (cifs)", "on the server"),
        (Failed("map", errno.EINVAL, of("ext2"), NEW), "its file system (ext2) does not", "chown"),
        (Failed("map", errno.EINVAL, of("tmpfs"), NEW), "in another user namespace", "chown"),
        (
            Failed("map", errno.EINVAL, of("tmpfs"), Kernel((6, 1))),
            "tmpfs can since Linux 6.3, and this is 6.1",
            "chown",
        ),
        (
            Failed("map", errno.EINVAL, EXT4, NEW, (of("ext2")._replace(point="/srv/in"),)),
            "mounted in it cannot: /srv/in (ext2)",
            "leave out --cross-mounts",
        ),
        (Failed("map", errno.EIO, EXT4, NEW), "the kernel returns: input/output error", ""),
        (Failed("map", errno.EPERM, EXT4, Kernel((6, 18), is_root=False)), "only root", "as root"),
    ],
)
def test_each_answer_of_the_kernel_has_its_reason(failed: Failed, fact: str, remedy: str) -> None:
    why = why_not(failed)
    assert fact in why.fact
    assert remedy in why.remedy if remedy else why.remedy == ""


def test_the_layers_of_an_overlay_are_those_that_the_kernel_shows_as_paths() -> None:
    # Since 6.8 the kernel may write one option for each lower folder.
    one_by_one = MERGED._replace(fs_options="rw,lowerdir+=/a,lowerdir+=/b,datadir+=/c,upperdir=u")
    assert one_by_one.layers == ["/a", "/b"]
