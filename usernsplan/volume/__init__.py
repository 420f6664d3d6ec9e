"""The volume fixer: carry a tree into a container's range, whole, safely and fast.

The ways in are ``fix_volume`` and ``undo``.

A run looks first, at everything, and writes nothing but its journal: what each folder holds and whose it is. What that
means is decided in one place, ``decide.judge``. Then the journal is carried out, by ``carry``; and because it says what
every inode was, carrying it out once more after a kill finishes the run, and carrying it out backwards undoes it.

Pure: targets, metadata, decide, protected. Per inode: folder, special. Per tree: walk, journal, carry, workers.
"""

from usernsplan.volume.fix import fix_volume, undo

__all__ = ["fix_volume", "undo"]
