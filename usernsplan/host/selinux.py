"""SELinux of this machine, as selinux(8) has it."""

from __future__ import annotations

from contextlib import suppress


def enforces() -> bool:
    """Tell whether the kernel enforces labels: not without SELinux, and not if it is permissive."""
    with suppress(OSError), open("/sys/fs/selinux/enforce", "rb") as file:
        return file.read().strip() == b"1"
    return False
