"""Many idmapped mounts at once, made past the command and recorded as it would record them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from usernsplan import noting
from usernsplan.host import idmap
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger
from usernsplan.model import VolumeMount
from usernsplan.planner import mounts

if TYPE_CHECKING:
    from pathlib import Path

    from usernsplan.mapping import Mapping


def mount_many(root: Path, name: str, count: int) -> None:
    """Mount this many volumes for a container that is allocated, in shift mode."""
    layout = layout_at(str(root))
    ledger = open_ledger(layout)
    mapping = next(a for a in ledger.state().allocations if a.name == name).mapping
    namespace = idmap.user_namespace(mapping)
    made = []
    try:
        for number in range(count):
            volume, at = f"/srv/many/{number}", f"{mounts.VOLUMES}/{name}/many-{number}"
            for folder in (volume, at):
                (root / folder[1:]).mkdir(parents=True)
            _mount(root / volume[1:], root / at[1:], namespace)
            made.append(VolumeMount(at, volume, name, "shift", mapping, run="20261130-000000"))
    finally:
        os.close(namespace)
    noting.note(layout, ledger, lambda state: mounts.record(state, made), "mount-volume")


def mount_one(source: Path, at: Path, mapping: Mapping) -> None:
    """Mount a folder with this map, as somebody may by hand."""
    namespace = idmap.user_namespace(mapping)
    _mount(source, at, namespace)
    os.close(namespace)


def _mount(source: Path, at: Path, namespace: int) -> None:
    from_, to = (os.open(path, os.O_PATH | os.O_CLOEXEC) for path in (source, at))
    tree = idmap.detached(from_, namespace)
    idmap.attach(tree, to)
    for descriptor in (from_, to, tree):
        os.close(descriptor)
