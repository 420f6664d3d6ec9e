"""Entries that need care, as values: one entry, and a group of entries with the same form. Pure.

A volume may have a million such entries, and few forms. So what depends on the form alone is worked
out once for a group, and the rest is in packed arrays.
"""

from __future__ import annotations

import stat
from array import array
from itertools import compress, repeat
from typing import TYPE_CHECKING

from usernsplan.values import dataclass, field, replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from usernsplan.volume.passes import Form
    from usernsplan.volume.renew import Proof
    from usernsplan.volume.targets import Owner


@dataclass(frozen=True, slots=True)
class Special:
    """An inode that needs care, as it was before the run.

    ``name`` is looked up in the current folder; '.' is that folder. ``changed_ns`` is its ctime, or
    0 where nobody needs it. ``proof`` proves the content of a file with power.
    """

    name: str
    device: int
    inode: int
    links: int
    changed_ns: int
    form: Form
    proof: Proof | None = None

    @property
    def mode(self) -> int:
        """The st_mode."""
        return self.form.mode

    @property
    def linked(self) -> bool:
        """Tell whether the inode has other names."""
        return self.links > 1 and not stat.S_ISDIR(self.mode)


def _numbers() -> array[int]:
    return array("Q")


def _times() -> array[int]:
    return array("q")


@dataclass(slots=True)
class Group:
    """Entries of one folder with the same form, device and link count, as they were before the run.

    ``names`` and ``inodes`` belong together. ``changed_ns`` are their ctimes; only a look has them.
    ``proofs`` is empty if no entry has a proof.
    """

    form: Form
    device: int
    links: int
    names: list[str] = field(default_factory=list)
    inodes: array[int] = field(default_factory=_numbers)
    proofs: list[Proof | None] = field(default_factory=list)
    changed_ns: array[int] = field(default_factory=_times, compare=False)

    @property
    def linked(self) -> bool:
        """Tell whether the inodes have other names."""
        return self.links > 1 and not stat.S_ISDIR(self.form.mode)

    @property
    def is_folder(self) -> bool:
        """Tell whether this is the current folder itself."""
        return self.names == ["."]

    def entries(self) -> Iterator[Special]:
        """The entries one by one."""
        proofs, times = self.proofs or repeat(None), self.changed_ns or repeat(0)
        for name, inode, proof, changed_ns in zip(
            self.names, self.inodes, proofs, times, strict=False
        ):
            yield Special(name, self.device, inode, self.links, changed_ns, self.form, proof)

    def chosen(self, which: Iterable[bool]) -> Group:
        """The group of those entries for which ``which``, one value for each, is true."""
        which = [*which]
        return replace(
            self,
            names=list(compress(self.names, which)),
            inodes=array("Q", compress(self.inodes, which)),
            proofs=list(compress(self.proofs, which)),
            changed_ns=array("q", compress(self.changed_ns, which)),
        )

    def pieces(self, size: int) -> Sequence[Group]:
        """The same entries in groups of at most this size."""
        count = len(self.names)
        if count <= size:
            return (self,)
        pieces = [slice(start, start + size) for start in range(0, count, size)]
        return [
            replace(
                self,
                names=self.names[piece],
                inodes=self.inodes[piece],
                proofs=self.proofs[piece],
                changed_ns=self.changed_ns[piece],
            )
            for piece in pieces
        ]

    def with_owner(self, owner: Owner) -> Group:
        """The same entries, with this owner before the run."""
        if owner == self.form.owner:
            return self
        return replace(self, form=replace(self.form, owner=owner))
