"""Time whole processes: several runs, the median told."""

from __future__ import annotations

import statistics
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def median(
    words: Sequence[str], *, runs: int = 5, before: Callable[[], object] = lambda: None
) -> float:
    """Seconds that a command takes; ``before`` is run, untimed, ahead of each run. A failing command is an error."""
    taken = []
    for _ in range(runs):
        before()
        start = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def row(what: str, seconds: float, peer: str, peer_seconds: float) -> str:
    """One line of a result: both figures and how many times the peer's ours is."""
    return f"{what:<44} {seconds:8.3f} s   {peer:<36} {peer_seconds:8.3f} s   ratio {seconds / peer_seconds:.3f}"
