"""SELinux of this machine, as selinux(8) has it."""

from __future__ import annotations

import os
from contextlib import suppress

_ENFORCE = "/sys/fs/selinux/enforce"


def enforces() -> bool:
    """Tell whether the kernel enforces labels: not without SELinux, and not if it is permissive."""
    with suppress(OSError), open(_ENFORCE, "rb") as file:
        return file.read().strip() == b"1"
    return False


def is_on() -> bool:
    """Tell whether the kernel has labels, whether or not it enforces them."""
    return os.path.exists(_ENFORCE)
