"""SELinux of this machine, as selinux(8) has it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from usernsplan.model import Selinux


def mode() -> Selinux:
    """Whether the kernel enforces labels, only says what it would refuse, or has none."""
    # The file is there only if SELinux is on.
    with suppress(OSError), open("/sys/fs/selinux/enforce", "rb") as file:
        return "enforcing" if file.read().strip() == b"1" else "permissive"
    return "off"
