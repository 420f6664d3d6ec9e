"""What either method means for a volume: which works, which fits, and what follows. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines.mounts import given
from usernsplan.escape import operand, shell, shown_path
from usernsplan.fixing import Choice, Effect, Explained, Obstacle
from usernsplan.ids import OVERFLOW_ID
from usernsplan.layout import meet
from usernsplan.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.fixing import Census, FixRequest
    from usernsplan.host.mounts import MountPoint
    from usernsplan.mapping import Mapping
    from usernsplan.model import Mode
    from usernsplan.volume.decide import Meant
    from usernsplan.volume.targets import OwnershipRule

# File systems without owners of their own: a mount option gives one to everything.
_ONE_OWNER = frozenset(
    {"vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk", "cifs", "smb3", "hfs"}
)
# A run looks, changes, and looks again: so many times as long as one look.
_LOOKS = 3
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen of one volume.

    ``asked`` is the request as it was typed. ``meant`` has the mode that fits, for which ``why`` is
    the reason. ``mapping`` is what a mount would show, None without a container. ``against`` stands
    in the way of both methods, ``against_idmap`` of a mount, ``against_chown`` of a change of the
    disk. ``stores_owners``: this file system is known to keep every owner that it is given.
    ``users`` are running containers that have it.
    """

    asked: FixRequest
    meant: Meant
    why: str
    rule: OwnershipRule
    mount: MountPoint
    census: Census
    mapping: Mapping | None = None
    against: tuple[Obstacle, ...] = ()
    against_idmap: tuple[Obstacle, ...] = ()
    against_chown: tuple[Obstacle, ...] = ()
    stores_owners: bool = True
    users: tuple[str, ...] = ()


def fitting(asked: FixRequest, meant: Meant, census: Census) -> tuple[Mode | None, str]:
    """The mode for a volume, and why. ``meant`` has the mode and user that are recorded.

    None where the options say which ids move.
    """
    request = meant.request
    if meant.allocation is None or request.reverse or request.source or request.from_map:
        return None, ""
    if asked.mode is not None or asked.user is not None:
        return request.mode or "own", "as you ask"
    if request.mode is not None or request.user is not None:
        return request.mode or "own", "as recorded"
    owners = len(census.owners)
    if owners == 1:
        return "own", "everything has one owner"
    more = "" if census.is_whole else " or more"
    return "shift", f"{owners}{more} owners, which own would make one"


def explained(path: str, facts: Facts) -> Explained:
    """Both methods for one volume, by its real path."""
    meant, census = facts.meant, facts.census
    return Explained(
        path,
        facts.mount.kind,
        meant.container,
        meant.request.mode,
        facts.why,
        census,
        (_by_mount(facts), _by_chown(path, facts)),
        (*_recorded(meant), *facts.users),
        _effects(facts),
    )


def _by_mount(facts: Facts) -> Choice:
    notes = []
    if facts.rule.is_own:
        notes.append("only this user of the container can make files through the mount")
    strange = [(u, g, n) for u, g, n in facts.census.owners if not _is_shown(facts, u, g)]
    if strange and facts.mapping is not None:
        notes.append(f"{_of(strange)} would appear as {OVERFLOW_ID}, nobody's")
    if facts.census.mounts and not facts.asked.cross_mounts:
        notes.append(f"not shown without --cross-mounts: {_few(facts.census.mounts)}")
    return Choice(
        "idmap",
        _command("mount-volume", facts),
        (*facts.against, *facts.against_idmap),
        tuple(notes),
    )


def _is_shown(facts: Facts, uid: int, gid: int) -> bool:
    """Tell whether a mount shows an owner as one of the container's."""
    ids = facts.mapping
    return (
        ids is not None and ids.uids.to_host(uid) is not None and ids.gids.to_host(gid) is not None
    )


def _by_chown(path: str, facts: Facts) -> Choice:
    census, rule = facts.census, facts.rule
    new = {(u, g): rule.owner_of((u, g)) for u, g, _ in census.owners}
    changed = sum(n for u, g, n in census.owners if new[u, g] not in {None, (u, g)})
    more = "" if census.is_whole else "at least "
    notes = [f"{more}{_number(changed, 'entry', 'entries')} to change"]
    owners = len(census.owners)
    if rule.is_own and owners > 1:
        notes.append(f"{owners} owners become one")
    if not census.is_whole:
        notes.append("hard links and ids that the map lacks show only when all of it is read")
    if facts.mount.kind == "overlay" and not facts.asked.copy_up:
        notes.append("files of the lower layers are copied up, which needs --copy-up")
    elif not facts.stores_owners:
        notes.append(f"{facts.mount.kind} may refuse new owners: a run tries a file first")
    if census.mounts and not facts.asked.cross_mounts:
        notes.append(f"left out without --cross-mounts: {_few(census.mounts)}")
    if census.unread:
        notes.append(f"could not be read: {_few(census.unread)}")
    lacking = [(u, g, n) for u, g, n in census.owners if new[u, g] is None]
    return Choice(
        "chown",
        _command("fix-volume", facts),
        (*facts.against, *facts.against_chown, *_against_chown(path, facts, lacking)),
        tuple(notes),
        _seconds(census),
    )


def _against_chown(
    path: str, facts: Facts, lacking: Sequence[tuple[int, int, int]]
) -> list[Obstacle]:
    census, mount, asked = facts.census, facts.mount, facts.asked
    found = []
    if _is_read_only(mount):
        found.append(
            Obstacle(
                f"{shown_path(mount.point)} is mounted read-only",
                f"make it writable: mount -o remount,bind,rw {shell(mount.point)}",
            )
        )
    if mount.kind in _ONE_OWNER:
        found.append(
            Obstacle(
                f"its file system ({mount.kind}) has one owner for everything",
                "mount it with uid= and gid=",
            )
        )
    if lacking and not asked.keep_unmapped:
        found.append(Obstacle(f"the map lacks {_of(lacking)}", "leave them: --unmapped keep"))
    if census.is_whole and census.outside and not asked.skip_outside_links:
        found.append(
            Obstacle(
                f"{_number(census.outside, 'file')} with hard links elsewhere",
                "leave them: --outside-links skip",
            )
        )
    if census.fixed:
        found.append(
            Obstacle(
                f"{_number(census.fixed, 'entry', 'entries')} immutable or append-only",
                f"chattr -R -ia {operand(path)}",
            )
        )
    return found


def _is_read_only(mount: MountPoint) -> bool:
    return any("ro" in text.split(",") for text in (mount.options, mount.fs_options))


def _seconds(census: Census) -> float | None:
    if census.at_most is None:
        return None
    return _LOOKS * census.seconds * census.at_most / census.entries


def _command(name: str, facts: Facts) -> str:
    """The command for this volume alone, with what was asked for and what fits."""
    asked, meant = facts.asked, facts.meant
    request = meant.request
    mounts = name == "mount-volume"
    values = {
        "--container": meant.container,
        "--mode": None if request.user or not request.mode else request.mode,
        "--user": request.user if request.mode != "shift" else None,
        "--passwd": request.passwd,
        "--from": asked.source,
        "--at": asked.at if mounts else None,
        "--protect": asked.protect if mounts else None,
    }
    flags = {
        "--cross-mounts": asked.cross_mounts,
        "--protected": asked.protected,
        "--take": asked.take,
        "--reverse": asked.reverse,
        "--persist": asked.persist and mounts,
        "--read-only": asked.read_only and mounts,
    }
    words = [
        name,
        meant.names[0],
        *(word for option, value in values.items() if value for word in (option, value)),
        *(
            word
            for option, texts in (
                ("--from-map", asked.from_map),
                ("--uid-map", asked.uid_map),
                ("--gid-map", asked.gid_map),
            )
            for text in texts
            for word in (option, text)
        ),
        *(flag for flag, given_ in flags.items() if given_),
    ]
    return meant.command(shell(*words))


def _recorded(meant: Meant) -> list[str]:
    """Who has this volume, or a part of it, in the ledger."""
    [name] = meant.names
    owned = [
        f"{shown_path(v.path)} has the ids of {v.name} on the disk"
        for v in given(meant.ledger).values()
        if meet(v.path, name)
    ]
    shown = [
        f"{shown_path(m.source)} is mounted for {m.name} at {shown_path(m.at)}"
        for m in meant.ledger.mounts
        if meet(m.source, name)
    ]
    return [*owned, *shown]


def _effects(facts: Facts) -> tuple[Effect, ...]:
    """What either method means for others; short, for a screen."""
    disk = _ids([uid for uid, _, _ in facts.census.owners])
    new = [facts.rule.owner_of((u, g)) for u, g, _ in facts.census.owners]
    host = _ids([owner[0] for owner in new if owner is not None]) or "new ones"
    return (
        Effect("uids on disk", f"stay: {disk}", f"become: {host}"),
        Effect(
            "backups",
            "have the ids on disk; restore, then mount again",
            "have the new ids; restored elsewhere they need the same range",
        ),
        Effect(
            "snapshots, rsync",
            "see no change",
            "see a change of every file: metadata is taken again",
        ),
        Effect(
            "quotas",
            f"count for {disk}, with what these have elsewhere",
            f"count for {host}: set them for these ids",
        ),
        Effect(
            "this host",
            "programs see the owners as before",
            "accounts lose files that they owned",
        ),
        Effect(
            "other containers",
            "can have mounts of their own",
            "lose it: one container has it",
        ),
        Effect(
            "later files",
            "made past the mount: need an id that is shown",
            "made by others: run it again",
        ),
    )


def _ids(numbers: Sequence[int]) -> str:
    """A few ids, and how many more."""
    known = sorted(dict.fromkeys(numbers))
    return ", ".join([*map(str, known[:_SHOWN]), *(["…"] if len(known) > _SHOWN else [])])


def _of(owners: Sequence[tuple[int, int, int]]) -> str:
    """Some owners, with the number of entries of all."""
    some = ", ".join(f"{uid}:{gid}" for uid, gid, _ in owners[:_SHOWN])
    more = f" and {len(owners) - _SHOWN} more" if len(owners) > _SHOWN else ""
    return f"{some}{more} ({_number(sum(n for *_, n in owners), 'entry', 'entries')})"


def _few(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(map(shown_path, paths[:_SHOWN])) + more


def _number(count: int, one: str, several: str = "") -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"
