from collections.abc import Sequence
from typing import Any

def step(
    folder: int, names: Sequence[str], options: tuple[Any, ...], /
) -> tuple[Any, Any, Any, Any]: ...
def care(names: list[str], pinning: int, /) -> tuple[dict[Any, Any], list[Any]]: ...
def carry(
    names: list[str],
    inodes: bytes,
    orders: list[tuple[Any, ...]],
    pinning: int,
    preview: bool,
    /,
) -> list[int]: ...
