"""What /proc tells of this machine: the user namespaces that run, and who is asking."""

from __future__ import annotations

import os
from contextlib import suppress

from usernsplan.ids import ID_LIMIT, IdSet
from usernsplan.mapping import IdMap, Mapping
from usernsplan.model import Actor


def namespace_ids() -> IdSet:
    """The host ids, uids and gids, that running user namespaces map to something else.

    Maps like our own are the host itself. An extent that maps ids to themselves hands out no range: it is left out.
    """
    own = {_text(f"/proc/self/{kind}_map") for kind in ("uid", "gid")}
    seen: set[str] = set()
    with suppress(FileNotFoundError), os.scandir("/proc") as processes:
        for process in processes:
            if process.name.isdigit():
                seen.update(_text(f"/proc/{process.name}/{kind}_map") for kind in ("uid", "gid"))
    extents = [[int(word) for word in line.split()] for text in seen - own for line in text.splitlines()]
    return IdSet.clipped((host, host + count) for container, host, count in extents if container != host)


def mapping_of(pid: int) -> Mapping | None:
    """The maps of a running process; None where it is gone, or has no user namespace of its own."""
    uids, gids = (_text(f"/proc/{pid}/{kind}_map") for kind in ("uid", "gid"))
    if not uids or not gids or uids == _text("/proc/self/uid_map"):
        return None
    return Mapping(IdMap.parse(uids), IdMap.parse(gids))


def actor() -> Actor:
    """Who runs this process."""
    login = _text("/proc/self/loginuid").strip()
    login_uid = int(login) if login.isdigit() and int(login) != ID_LIMIT else None
    sudo = os.environ.get("SUDO_UID", "")
    return Actor(os.geteuid(), int(sudo) if sudo.isascii() and sudo.isdigit() else None, login_uid)


def _text(path: str) -> str:
    """A file of /proc, or "" where the process is gone or not ours to see."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def may_chown() -> bool:
    """Tell whether this process has CAP_CHOWN, which is the lowest bit of CapEff: capabilities(7)."""
    effective = next((line for line in _text("/proc/self/status").splitlines() if line.startswith("CapEff:")), "")
    return bool(int(effective.partition(":")[2].strip() or "0", 16) & 1)
