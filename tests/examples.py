"""How many examples hypothesis makes: CI has them all, and a run by default as many as find what is plainly wrong."""

from __future__ import annotations

import os

CI = os.environ.get("CI") == "true"


def examples(count: int) -> int:
    """So many in CI, and a fifth of them, or ten, otherwise."""
    return count if CI else max(count // 5, min(count, 10))
