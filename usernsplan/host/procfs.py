"""Facts from /proc: the maps of a process; the ids and capabilities of this one."""

from __future__ import annotations

import os

from usernsplan.errors import of_place
from usernsplan.ids import EVERY_ID, ID_LIMIT, IdSet
from usernsplan.mapping import UNWRITTEN, Extent, IdMap, Mapping
from usernsplan.model import Actor


def mapping_of(pid: int) -> Mapping | None:
    """The maps of a running process; None if it is gone or has no user namespace of its own."""
    texts = map_texts(pid)
    if not all(texts) or texts[0] == map_texts("self")[0]:
        return None
    return read(*texts)


def map_texts(pid: int | str) -> tuple[str, str]:
    """Both maps as the kernel writes them; "" if the process is gone or has none yet."""
    return _text(f"/proc/{pid}/uid_map"), _text(f"/proc/{pid}/gid_map")


def own_ids() -> tuple[IdSet, IdSet]:
    """The uids and the gids that exist in the user namespace of this process.

    A namespace whose map is not written yet has none. Without a /proc nothing is known, so every id
    is assumed to exist.
    """
    if not os.path.exists("/proc/self/uid_map"):
        return EVERY_ID, EVERY_ID
    uids, gids = (
        IdSet.clipped((container, container + count) for container, _, count in extents(text))
        for text in map_texts("self")
    )
    return uids, gids


def read(uid_map: str, gid_map: str) -> Mapping | None:
    """The mapping in these texts; None if neither map is written yet."""
    # The kernel shows a host id that our own namespace does not have as 4294967295.
    uids, gids = (
        [Extent(*e) for e in extents(text) if e[1] != ID_LIMIT] for text in (uid_map, gid_map)
    )
    if not (uids or gids):
        return None
    return Mapping(IdMap(uids) if uids else UNWRITTEN, IdMap(gids) if gids else UNWRITTEN)


def extents(text: str) -> list[tuple[int, int, int]]:
    """(container, host, count) for each line of a map."""
    lines = (line.split() for line in text.splitlines())
    return [(int(container), int(host), int(count)) for container, host, count in lines]


def actor() -> Actor:
    """The user who runs this process: effective uid, SUDO_UID and login uid."""
    login = _text("/proc/self/loginuid").strip()
    login_uid = int(login) if login.isdigit() and int(login) != ID_LIMIT else None
    sudo = os.environ.get("SUDO_UID", "")
    return Actor(os.geteuid(), int(sudo) if sudo.isascii() and sudo.isdigit() else None, login_uid)


def _text(path: str) -> str:
    """A file of /proc; "" if the process is gone or we may not read it."""
    try:
        # Not "ascii": that codec is a module, and loading it is one more thing that can fail.
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def may_chown() -> bool:
    """Tell whether this process has CAP_CHOWN. Raises UsernsplanError if /proc cannot be read."""
    with (
        of_place("/proc/self/status"),
        open("/proc/self/status", encoding="utf-8", errors="replace") as file,
    ):
        return _has_capability(0, file.read())


def has_capability(number: int) -> bool:
    """Tell whether this process has a capability (its number in linux/capability.h) in CapEff."""
    return _has_capability(number, _text("/proc/self/status"))


def _has_capability(number: int, status: str) -> bool:
    effective = next((line for line in status.splitlines() if line.startswith("CapEff:")), "")
    return bool(int(effective.partition(":")[2].strip() or "0", 16) >> number & 1)


def is_initial() -> bool:
    """Tell whether this process is in the first user namespace, as far as /proc tells."""
    text = map_texts("self")[0]
    return not text or extents(text) == [(0, 0, ID_LIMIT)]


def is_filtered() -> bool:
    """Tell whether seccomp filters the system calls of this process: proc_pid_status(5)."""
    lines = _text("/proc/self/status").splitlines()
    return any(line.split() == ["Seccomp:", "2"] for line in lines)
