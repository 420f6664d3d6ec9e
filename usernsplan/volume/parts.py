"""The place of a folder in its volume: the names that lead to it from the top, linked. Pure.

Anybody who may write to a volume can make a folder ten thousand levels deep. Each place is a link
to the one above and a name, so that it takes the same time and room at any depth. Nothing here
calls itself for the place above, because Python's stack has an end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class Parts:
    """The names from the top of a volume to one of its folders; a collection that never changes.

    ``above`` is the place of the folder above, ``name`` the last name, ``depth`` the number of
    names. A part is one name of a path: the path may be longer than PATH_MAX, and a name may have
    any bytes except "/" and NUL.

    What walks a volume makes each place with ``below`` from the one above. Such places share what
    leads to both, and it takes as many steps to compare them as they are away from each other.
    """

    __slots__ = ("above", "depth", "name")

    def __init__(self, above: Parts | None, name: str) -> None:
        self.above = self if above is None else above
        self.name = name
        self.depth: int = above.depth + 1 if above is not None else 0

    @classmethod
    def of(cls, names: Iterable[str]) -> Parts:
        """The place to which these names lead from the top."""
        return TOP.branch(0, names)

    def below(self, name: str) -> Parts:
        """The place of the sub-folder with this name."""
        return Parts(self, name)

    def branch(self, depth: int, names: Iterable[str]) -> Parts:
        """The place to which the first ``depth`` names and then these lead.

        Raises ValueError if there are not so many.
        """
        if not 0 <= depth <= self.depth:
            raise ValueError(f"there are no {depth} names")
        here = self.upto(depth)
        for name in names:
            here = Parts(here, name)
        return here

    def split(self, depth: int) -> tuple[Parts, list[str]]:
        """The place of this depth that leads here, or this one, and the names after it."""
        names = []
        here = self
        while here.depth > depth:
            names.append(here.name)
            here = here.above
        names.reverse()
        return here, names

    def upto(self, depth: int) -> Parts:
        """The place of this depth that leads here, or this one."""
        here = self
        while here.depth > depth:
            here = here.above
        return here

    def since(self, depth: int) -> list[str]:
        """The names after the first ``depth`` ones."""
        return self.split(depth)[1]

    def shared(self, other: Parts) -> int:
        """How many names are the same in both, from the first on."""
        one, two = self.upto(other.depth), other.upto(self.depth)
        shared = one.depth
        while one is not two:
            if one.name != two.name:
                shared = one.depth - 1
            one, two = one.above, two.above
        return shared

    def __len__(self) -> int:
        return self.depth

    def __iter__(self) -> Iterator[str]:
        return iter(self.since(0))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Parts):
            return NotImplemented
        one, two = self, other
        while one is not two:
            if one.name != two.name or one.depth != two.depth:
                return False
            one, two = one.above, two.above
        return True

    def __hash__(self) -> int:
        return hash((self.depth, self.name))

    def __repr__(self) -> str:
        return f"Parts.of({list(self)})"

    def __reduce__(self) -> tuple[Callable[[Iterable[str]], Parts], tuple[list[str]]]:
        # Never link by link, which is as deep as the folder. ``workers.send`` has a shorter form.
        return Parts.of, (self.since(0),)


# The place of the top of any volume. There is no other one.
TOP = Parts(None, "")
