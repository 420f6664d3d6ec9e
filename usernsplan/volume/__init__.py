"""The volume fixer: move a tree into a container's id range, completely, safely and fast.

The entry points are ``fix.fix_volume``, ``fix.undo`` and ``explain.explain``. They are not imported
here: most commands need only a small part of this package.

``lifecycle`` starts, finishes and undoes a run, whatever the method. ``method`` is the interface
of a method; ``chown`` is the only one today. It first looks at everything and writes only the
journal: what each folder holds and who owns it. ``judge`` decides whether that is safe. Then
``carry`` applies the journal. The journal records the old state of every inode, so applying it
again after a kill finishes the run, and applying it backwards undoes it.

Pure: targets, passes, metadata, decide, judge, protected. Per inode: folder, special. Per
folder: walk, look, carry.
"""
