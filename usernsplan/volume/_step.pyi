from collections.abc import Sequence
from typing import Any

def step(
    folder: int, names: Sequence[str], options: tuple[Any, ...], /
) -> tuple[Any, Any, Any, Any]: ...
