"""Folders that nobody means to give to a container. Pure: paths in, a reason out.

Podman refuses a similar list for ``:U``, since a user's home was chowned that way
(containers/podman issue 24805). Everything below some of these folders is as precious (all of
/etc). A folder that contains one of them is refused too.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# --protected does not permit these: no container can use them, and the system would not survive.
NEVER = ("/", "/etc", "/usr", "/proc", "/sys", "/dev")
# Nothing below these either.
_WHOLE_NEVER = ("/proc", "/sys", "/dev")
_BUT = ("/dev/shm/",)  # noqa: S108 - memory that is shared on purpose
_WHOLE = (
    "/etc",
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/boot",
    "/var/lib/usernsplan",
)
_ITSELF = (
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/root",
    "/run",
    "/srv",
    "/tmp",  # noqa: S108 - a name
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/log",
    "/var/spool",
    "/var/tmp",  # noqa: S108 - a name
    "/var/www",
)
# Engines keep images here, with ids that they rely on. Their named volumes are not protected.
_STORAGE = (
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/kubelet",
    "/run/containers",
    "/var/lib/buildkit",
    "/var/lib/crio",
    "/run/docker",
    "/run/containerd",
)
_STORAGE_ITSELF = (
    "/var/lib/lxc",
    "/var/lib/lxd",
    "/var/lib/incus",
    "/var/lib/machines",
    "/var/lib/portables",
)
# File systems that hold no files of anybody.
NOT_FILES = frozenset(
    {
        "proc",
        "sysfs",
        "devtmpfs",
        "devpts",
        "cgroup",
        "cgroup2",
        "securityfs",
        "debugfs",
        "tracefs",
        "bpf",
        "configfs",
        "pstore",
        "mqueue",
        "efivarfs",
        "fusectl",
        "binfmt_misc",
        "nsfs",
        "rpc_pipefs",
        "selinuxfs",
    }
)
_VOLUMES = "/volumes/"
_IN_HOMES = (".ssh", ".gnupg", ".local/share/containers", ".local/share/docker")
_FIRST_PERSON = 1000
_NOBODY = 65534


class Danger(NamedTuple):
    """Why a path is refused. ``never``: --protected does not permit it either."""

    reason: str
    never: bool


def homes_of(accounts: Iterable[tuple[int, str]]) -> tuple[str, ...]:
    """The homes of root and ordinary users among (uid, home). Service homes can be volumes."""
    people = (home for uid, home in accounts if uid == 0 or _FIRST_PERSON <= uid != _NOBODY)
    return tuple(
        sorted({os.path.normpath(home) for home in people if home.startswith("/")} - {"/"})
    )


def danger(path: str, homes: Iterable[str] = (), real: Callable[[str], str] = str) -> Danger | None:
    """Why the folder at ``path`` (absolute, normal, without symlinks) must not change, or None.

    ``real`` resolves a protected name, for hosts with symlinks there.
    """
    real = cache(real)
    path = {
        real(name): name for name in (*_STORAGE, *_STORAGE_ITSELF, *_ITSELF, *_WHOLE, *NEVER)
    }.get(path, path)
    homes = tuple(dict.fromkeys([*homes, *map(real, homes)]))
    return next((Danger(reason, never) for reason, never in _reasons(path, homes, real)), None)


def _reasons(
    path: str, homes: tuple[str, ...], real: Callable[[str], str]
) -> Iterator[tuple[str, bool]]:
    """Every reason against a path, the most serious first, and whether it is absolute."""
    if path.startswith("/home/"):
        # Users that passwd does not list (LDAP) have homes here too.
        homes = (*homes, "/".join(path.split("/")[:3]))
    private = tuple(f"{home}/{name}" for home in homes for name in _IN_HOMES)
    # Engines made these volumes for users to fill, in their own storage and in users' homes.
    excepted = {*_STORAGE, *private} if _is_named_volume(path) else set()
    for folders, itself, below, reason, never in (
        (NEVER, True, False, "{} belongs to the system", True),
        (_WHOLE_NEVER, False, True, "it is in {}, which is not a place for files", True),
        (_WHOLE, True, True, "{} belongs to the system", False),
        (_STORAGE, True, True, "an engine keeps its images and containers in {}", False),
        (private, True, True, "{} is private", False),
        (_STORAGE_ITSELF, True, False, "{} holds the root file systems of many containers", False),
        (_ITSELF, True, False, "{} is shared by many programs", False),
        (homes, True, False, "{} is a user's home", False),
    ):
        for folder in folders:
            inside = below and folder not in excepted and not path.startswith(_BUT)
            if (itself and path == folder) or (
                inside and (_inside(path, folder) or _inside(path, real(folder)))
            ):
                yield reason.format(folder), never
    for inner in (*NEVER, *_WHOLE, *_STORAGE, *_STORAGE_ITSELF, *_ITSELF, *homes):
        if _inside(inner, path) or _inside(real(inner), path):
            yield f"it contains {inner}", inner in NEVER


def _inside(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/") and path != folder


def _is_named_volume(path: str) -> bool:
    """Whether this is …/volumes/NAME/_data or below, as ``docker volume`` and Podman make it."""
    _, found, rest = path.partition(_VOLUMES)
    name, _, below = rest.partition("/")
    return bool(found and name) and (below == "_data" or below.startswith("_data/"))
