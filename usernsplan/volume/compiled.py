"""The compiled step, if a C compiler and Python's headers were there at the installation.

Without it, or with USERNSPLAN_PURE=1, Python does its work.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PURE = "USERNSPLAN_PURE"

# The functions of _step.c; None for Python. See ``folder.step``, ``special.looked`` and ``carried``.
step: Callable[[int, Any, Any], tuple[Any, ...]] | None = None
care: Callable[[list[str], int], tuple[dict[Any, Any], list[Any]]] | None = None
carry: Callable[..., list[int]] | None = None
# What ``usernsplan --version`` says.
WHICH = "compiled step"

if os.environ.get(PURE) == "1":
    WHICH = f"step in Python, because of {PURE}=1"
else:
    try:
        from usernsplan.volume import _step
    except ImportError:
        WHICH = "step in Python, which is slower: its installation lacked a C compiler or Python.h"
    else:
        step, care, carry = _step.step, _step.care, _step.carry
