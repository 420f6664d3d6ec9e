from collections.abc import Sequence
from typing import Any

def step(
    folder: int, names: Sequence[str], options: tuple[Any, ...], /
) -> tuple[Any, Any, Any, Any]: ...
def care(names: list[str], pinning: int, /) -> tuple[dict[Any, Any], list[Any]]: ...
def carry(
    names: list[str],
    inodes: bytes,
    options: tuple[Any, ...],
    links: int,
    mode: int,
    old: tuple[bytes | None, bytes | None],
    new: tuple[bytes | None, bytes | None],
    preview: bool,
    /,
) -> list[int]: ...
