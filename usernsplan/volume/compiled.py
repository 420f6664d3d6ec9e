"""The compiled step, where the package was installed with a compiler; else Python does its work.

USERNSPLAN_PURE=1 chooses Python.
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

if os.environ.get(PURE) != "1":
    try:
        from usernsplan.volume import _step
    except ImportError:
        pass
    else:
        step, care, carry = _step.step, _step.care, _step.carry
