"""What the libseccomp of this machine knows, by which engines make their filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_LIBRARY: Final = "libseccomp.so.2"
# seccomp_syscall_resolve_name(3): it knows no such call. Less is one of another architecture.
_UNKNOWN: Final = -1


def unknown(calls: Iterable[str]) -> frozenset[str]:
    """The system calls that it does not know; none if there is no libseccomp to ask.

    An engine leaves such a name out of a filter, with at most a warning.
    """
    import ctypes  # noqa: PLC0415 - few policies name a call

    try:
        resolve = ctypes.CDLL(_LIBRARY).seccomp_syscall_resolve_name
    except (OSError, AttributeError):
        return frozenset()
    return frozenset(call for call in calls if resolve(call.encode()) == _UNKNOWN)
