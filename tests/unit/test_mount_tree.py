"""To which mount a path leads: lists of mounts as the kernel writes them, and answers worked out by hand."""

from __future__ import annotations

from tests.each import each
from usernsplan.host.mount_tree import MountTree, is_removed, shown_at
from usernsplan.host.mounts import parse

# A file system on /srv with a folder of it on /at, and that covered twice: on itself and above.
LINES = """\
20 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
21 20 8:2 / /srv rw,relatime - ext4 /dev/sdb1 rw
22 20 8:2 /web /at/web rw,idmapped - ext4 /dev/sdb1 rw
23 22 0:40 / /at/web rw - tmpfs none rw
24 20 8:2 /db /at/db rw,idmapped - ext4 /dev/sdb1 rw
25 20 8:2 /old /hidden/folder/old rw,idmapped - ext4 /dev/sdb1 rw
26 20 0:41 / /hidden rw - tmpfs none rw
27 26 8:2 /new /hidden/folder rw - ext4 /dev/sdb1 rw
28 20 8:2 /with\\040blank//deleted /at/b\\040c rw,idmapped - ext4 /dev/sdb1 rw
29 21 8:2 /web /srv/web ro,nosuid - ext4 /dev/sdb1 rw
"""
# The root of a process in a chroot: what the first mounts stand on is not listed.
CHROOT = """\
31 20 0:50 / /proc rw - proc none rw
32 20 8:3 /a /a rw - ext4 /dev/sdc1 rw
33 32 8:3 /b /a/b rw - ext4 /dev/sdc1 rw
"""


def tree(lines: str = LINES) -> MountTree:
    return MountTree(map(parse, lines.splitlines(keepends=True)))


@each(
    ("path", "number"),
    [
        ("/", 20),
        ("/etc", 20),
        ("/srv", 21),
        ("/srv/other/deep", 21),
        ("/srv/web", 29),
        ("/srv/web/file", 29),
        ("/srvother", 20),
        ("/at", 20),
        ("/at/web", 23),
        ("/at/web/inside", 23),
        ("/at/db", 24),
        ("/hidden", 26),
        ("/hidden/other", 26),
        ("/hidden/folder", 27),
        ("/hidden/folder/old", 27),
        ("/at/b c", 28),
    ],
)
def test_a_path_leads_to_the_mount_that_the_kernel_would_take(path: str, number: int) -> None:
    found = tree().leading_to(path)
    assert found
    assert found.mount_id == number


@each(
    ("point", "number"),
    [("/at/web", 23), ("/at/db", 24), ("/at", 0), ("/hidden/folder/old", 0), ("/", 20)],
)
def test_only_what_can_be_seen_is_on_top(point: str, number: int) -> None:
    found = tree().on_top(point)
    assert (found.mount_id if found else 0) == number


@each(
    ("path", "device", "inside"),
    [
        ("/srv/web/a/b", "8:2", "/web/a/b"),
        ("/srv/x", "8:2", "/x"),
        ("/srv", "8:2", "/"),
        ("/at/db", "8:2", "/db"),
        ("/home", "8:1", "/home"),
    ],
)
def test_what_a_path_shows_is_a_path_in_a_file_system(path: str, device: str, inside: str) -> None:
    mount = tree().leading_to(path)
    assert mount
    assert shown_at(mount, path) == (device, inside)


def test_every_mount_at_a_point_is_known_and_a_removed_source_is_seen() -> None:
    assert [one.mount_id for one in tree().all_at("/at/web")] == [22, 23]
    assert [one.mount_id for one in tree().mounts if is_removed(one)] == [28]


@each(("path", "number"), [("/a/b/c", 33), ("/a/c", 32), ("/proc/self", 31), ("/etc", 0)])
def test_in_a_chroot_the_first_mounts_stand_on_nothing(path: str, number: int) -> None:
    found = tree(CHROOT).leading_to(path)
    assert (found.mount_id if found else 0) == number


def test_mounts_that_stand_on_each_other_end_no_search_in_a_loop() -> None:
    circle = "5 6 8:1 / /a rw - ext4 x rw\n6 5 8:1 / /a rw - ext4 x rw\n"
    assert tree(circle).leading_to("/a") is None
