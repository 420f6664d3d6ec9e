"""containers.conf(5): the one key that we have to know of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.patterns import pattern

if TYPE_CHECKING:
    from collections.abc import Iterable

# In the order in which Podman reads them; a later value counts.
PATHS = (
    "/usr/share/containers/containers.conf",
    "/etc/containers/containers.conf",
    "/etc/containers/containers.conf.d/*.conf",
)
# What the Podman of an account reads after these. Older versions do not know those in /etc.
OF_LOGIN = (
    "/etc/containers/containers.rootless.conf",
    "/etc/containers/containers.rootless.conf.d/*.conf",
    "/etc/containers/containers.rootless.conf.d/{uid}/*.conf",
    "{home}/.config/containers/containers.conf",
    "{home}/.config/containers/containers.conf.d/*.conf",
)
_PROFILE = pattern(r"""(?m)^[ \t]*seccomp_profile[ \t]*=[ \t]*(["'])(.*?)\1""")


def seccomp_profile(contents: Iterable[bytes]) -> str:
    """The profile of system calls that these files name; "" if none does."""
    found = ""
    for raw in contents:
        for match in _PROFILE.finditer(raw.decode("utf-8", "surrogateescape")):
            found = match[2]
    return found
