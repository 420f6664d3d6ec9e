"""The volume fixer: carry a tree into a container's range, whole, safely and fast.

The ways in are ``fix_volume`` and ``undo``.

``lifecycle`` makes a run, finishes it and takes it back, whatever the method; ``method`` is the seam, and ``chown`` the one
method today. It looks first, at everything, and writes nothing but the journal: what each folder holds and whose it is.
``judge`` weighs that. Then ``carry`` carries the journal out; and because it says what every inode was, carrying it out
once more after a kill finishes the run, and carrying it out backwards undoes it.

Pure: targets, passes, metadata, decide, judge, protected. Per inode: folder, special. Per folder: walk, look, carry.
"""

from usernsplan.volume.fix import fix_volume, undo

__all__ = ["fix_volume", "undo"]
