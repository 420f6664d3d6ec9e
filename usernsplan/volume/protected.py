"""Folders that nobody means to give to a container, whatever he typed. Pure: names in, a reason out.

Podman refuses a list like this one for ``:U``, after somebody had chowned his home (containers/podman issue 24805).
What lies below some of them is as precious (all of /etc), and whatever contains one of them contains it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# --protected does not open these: no container could want them, and no system survives it.
NEVER = ("/", "/etc", "/usr", "/proc", "/sys", "/dev")
# Of these, nothing below either.
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
    *("/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/var"),  # noqa: S108 - names
    *("/var/cache", "/var/lib", "/var/log", "/var/spool", "/var/tmp", "/var/www"),  # noqa: S108
)
# Engines keep images there, with ids that they count on; but their named volumes are what people mount.
_STORAGE = (
    *(
        "/var/lib/docker",
        "/var/lib/containerd",
        "/var/lib/containers",
        "/var/lib/kubelet",
        "/run/containers",
    ),
    *("/var/lib/buildkit", "/var/lib/crio", "/run/docker", "/run/containerd"),
)
_STORAGE_ITSELF = (
    "/var/lib/lxc",
    "/var/lib/lxd",
    "/var/lib/incus",
    "/var/lib/machines",
    "/var/lib/portables",
)
# File systems that hold nothing of anybody's.
NOT_FILES = frozenset(
    {
        *(
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
        ),
        *(
            "configfs",
            "pstore",
            "mqueue",
            "efivarfs",
            "fusectl",
            "binfmt_misc",
            "nsfs",
            "rpc_pipefs",
            "selinuxfs",
        ),
    }
)
_VOLUMES = "/volumes/"
_IN_HOMES = (".ssh", ".gnupg", ".local/share/containers", ".local/share/docker")
_FIRST_PERSON = 1000
_NOBODY = 65534


class Danger(NamedTuple):
    """Why a path is refused; ``never``: also with --protected."""

    reason: str
    never: bool


def homes_of(accounts: Iterable[tuple[int, str]]) -> tuple[str, ...]:
    """Where people live, of (uid, home) pairs: root and ordinary accounts. Services' homes may well be volumes."""
    people = (home for uid, home in accounts if uid == 0 or _FIRST_PERSON <= uid != _NOBODY)
    return tuple(
        sorted({os.path.normpath(home) for home in people if home.startswith("/")} - {"/"})
    )


def danger(path: str, homes: Iterable[str] = (), real: Callable[[str], str] = str) -> Danger | None:
    """Why the folder at ``path`` (absolute, normal, without symlinks) is not to be changed, or None.

    ``real`` tells where a protected name really lies, on a host that has symlinks there.
    """
    path = {
        real(name): name for name in (*_STORAGE, *_STORAGE_ITSELF, *_ITSELF, *_WHOLE, *NEVER)
    }.get(path, path)
    homes = tuple(dict.fromkeys([*homes, *map(real, homes)]))
    return next((Danger(reason, never) for reason, never in _reasons(path, homes, real)), None)


def _reasons(
    path: str, homes: tuple[str, ...], real: Callable[[str], str]
) -> Iterator[tuple[str, bool]]:
    """Everything that speaks against a path, the gravest first; with True where nothing can speak for it."""
    if path.startswith("/home/"):
        # People whom passwd does not list (LDAP) live there too.
        homes = (*homes, "/".join(path.split("/")[:3]))
    private = tuple(f"{home}/{name}" for home in homes for name in _IN_HOMES)
    # Volumes that engines made for people to fill, in their storage and in that of people.
    excepted = {*_STORAGE, *private} if _is_named_volume(path) else set()
    for folders, itself, below, reason, never in (
        (NEVER, True, False, "{} belongs to the system", True),
        (_WHOLE_NEVER, False, True, "it lies in {}, which is not a place for files", True),
        (_WHOLE, True, True, "{} belongs to the system", False),
        (_STORAGE, True, True, "an engine keeps its images and containers in {}", False),
        (private, True, True, "{} is private", False),
        (_STORAGE_ITSELF, True, False, "{} holds the root file systems of many containers", False),
        (_ITSELF, True, False, "{} is shared by many", False),
        (homes, True, False, "{} is somebody's home", False),
    ):
        for folder in folders:
            inside = below and folder not in excepted and not path.startswith(_BUT)
            if (itself and path == folder) or (
                inside and (_inside(path, folder) or _inside(path, real(folder)))
            ):
                yield reason.format(folder), never
    for inner in (*NEVER, *_WHOLE, *_STORAGE, *_STORAGE_ITSELF, *_ITSELF, *homes):
        if _inside(inner, path) or _inside(real(inner), path):
            yield f"{inner} lies in it", inner in NEVER


def _inside(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/") and path != folder


def _is_named_volume(path: str) -> bool:
    """…/volumes/NAME/_data and below: what ``docker volume`` and ``podman volume`` make for people to fill."""
    _, found, rest = path.partition(_VOLUMES)
    name, _, below = rest.partition("/")
    return bool(found and name) and (below == "_data" or below.startswith("_data/"))
