"""What /proc tells of one process: its maps, and who is asking."""

from __future__ import annotations

import os

from usernsplan.ids import ID_LIMIT
from usernsplan.mapping import IdMap, Mapping
from usernsplan.model import Actor


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
    """Tell whether this process has CAP_CHOWN."""
    return has_capability(0)


def has_capability(number: int) -> bool:
    """Tell whether this process has a capability, by its number in linux/capability.h: a bit of CapEff."""
    effective = next((line for line in _text("/proc/self/status").splitlines() if line.startswith("CapEff:")), "")
    return bool(int(effective.partition(":")[2].strip() or "0", 16) >> number & 1)
