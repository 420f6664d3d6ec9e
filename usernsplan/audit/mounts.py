"""Rules about idmapped mounts of volumes: gone, hidden, other than recorded, unknown to the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, rule
from usernsplan.escape import shell, shown_path
from usernsplan.planner.mount_doubts import CHANGED, FORGOTTEN, GONE, HIDDEN, OPEN, doubts

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule("USN174", "error")
def mount_gone(facts: Facts) -> Iterator[Seen]:
    """An idmapped mount of a volume is gone.

    The ledger has a mount that shows a volume with the ids of a container, and nothing is mounted
    at its mount point. A container that uses the mount point finds an empty folder, and cannot
    write to it.

    The machine was started again and the mount was not asked to return (--persist), somebody
    unmounted it, or a command was killed between the ledger and the mount.

        umount /run/usernsplan/volumes/web/srv-web

    The remedy mounts it again as it was. If nobody needs it any more, 'usernsplan undo' with the
    mount point takes it out of the ledger.
    """
    yield from _doubted(facts, GONE)


@rule("USN175", "error")
def mount_hidden(facts: Facts) -> Iterator[Seen]:
    """An idmapped mount of a volume is hidden, or something else is mounted there.

    A program that opens the mount point does not get the volume. Containers that were started
    before may still have it, and those that start now get what hides it.

    Something was mounted on the mount point or on a folder above it, the source was exchanged for
    another folder or removed, or somebody mounted something else there.

        mount -t tmpfs none /run/usernsplan/volumes/web

    Unmount what hides it. If the source was exchanged on purpose, unmount ours and mount it again.
    """
    yield from _doubted(facts, HIDDEN)


@rule("USN176", "error")
def mount_not_as_recorded(facts: Facts) -> Iterator[Seen]:
    """An idmapped mount of a volume has another map or other options.

    The mount shows the right volume, but with other ids than those of the container, or with other
    options than those that were asked for. With other ids the container sees its files as
    somebody else's, and what it writes belongs to somebody else.

    The container was remapped while the mount stood, or somebody mounted or changed it by hand.

        mount -o remount,bind,ro /run/usernsplan/volumes/web/srv-web

    Unmount it and mount it again with the command of the hint. Before Linux 6.15 the kernel does
    not tell the map of a mount; then only its options are compared.
    """
    yield from _doubted(facts, CHANGED)


@rule("USN177", "warning")
def mount_does_not_return(facts: Facts) -> Iterator[Seen]:
    """An idmapped mount does not return at boot, though that was asked for.

    The mount was made with --persist. What mounts it at boot is gone or says something else, so
    after the next boot the container finds an empty folder.

    Somebody removed or changed the unit, or disabled it.

        systemctl disable srv-web.mount

    The remedy writes it again.
    """
    yield from _doubted(facts, FORGOTTEN)


@rule("USN178", "error")
def source_open(facts: Facts) -> Iterator[Seen]:
    """Others reach the source of an idmapped mount.

    Through its mount, the root of the container can create a file that is root's on the disk and
    has the setuid bit, or a capability. Anybody who reaches the source and runs it becomes the
    host's root. Only root may be able to reach it, or each path to it has to be mounted nosuid.

    Somebody opened a folder above the source, gave it an ACL, or unmounted what protected it.

        chmod 755 /srv/volumes

    Close the folder above the source again (chmod 700), or mount it again with --protect.
    """
    yield from _doubted(facts, OPEN)


@rule("USN179", "warning")
def mount_unrecorded(facts: Facts) -> Iterator[Seen]:
    """An idmapped mount in usernsplan's folder is not in the ledger.

    It shows files with ids that the ledger knows nothing of, and no undo takes it away. If its
    range is given to another container, that one owns what is written through it.

    A command was killed between the mount and the ledger, the ledger was restored from a backup,
    or somebody mounted it by hand.

        usernsplan mount-volume /srv/web      killed

    If a run is unfinished (USN070), finish or undo it. Otherwise unmount it.
    """
    layout = facts.state.layout
    for point in facts.strays:
        remedy = f"umount {shell(layout.place(point))}"
        if any(not run.problem for run in facts.state.runs):
            remedy = f"finish the interrupted run first (USN070); if it stays: {remedy}"
        yield Seen(
            facts.place(point), "an idmapped mount stands here, and the ledger has none", remedy
        )


def _doubted(facts: Facts, code: str) -> Iterator[Seen]:
    layout = facts.state.layout
    for one in doubts(facts.state.ledger, facts.state.mounts, layout):
        if one.code == code:
            source = shown_path(layout.path(one.mount.source))
            message = f"the mount of {source} for '{one.mount.name}' is not right: {one.fact}"
            yield Seen(facts.place(one.mount.at), message, one.remedy)
