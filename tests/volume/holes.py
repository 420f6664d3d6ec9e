"""Containers whose maps have holes, and what the kernel shows of a tree through such a map."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from usernsplan import IdRange, apply
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger
from usernsplan.mapping import Extent, Pass, joined
from usernsplan.model import HostState, LedgerChange, Plan
from usernsplan.strategies import PerContainer

# (kind, container id, host id, count)
Passed = tuple[str, int, int, int]


def remap(root: Path, name: str, start: int, size: int, passes: Iterable[Passed] = ()) -> None:
    """Give a container another map in the ledger, as a change of its map leaves it before volumes are moved."""
    shown = joined([Pass(kind, Extent(*ids)) for kind, *ids in passes])  # type: ignore[arg-type]
    strategy = PerContainer(size=size, passes=shown)

    def decide(state: HostState) -> Plan:
        was = next(a for a in state.ledger.allocations if a.name == name)
        new = replace(
            was,
            mapping=strategy.mapping(start),
            reserved_range=IdRange(start, size),
            passes=shown,
        )
        held = was.reserved_range
        moved = held is not None and held.start != start
        volumes = [
            replace(v, former=v.former or was.mapping)
            for v in state.ledger.volumes
            if v.name == name
        ]
        return Plan(
            "remap",
            ledger=LedgerChange(
                update=(new,),
                volumes=tuple(volumes),
                quarantine=((name, held),) if held and moved else (),
            ),
        )

    layout = layout_at(str(root))
    apply.carry_out(layout, open_ledger(layout), decide, "a new map")


def seen_through(
    uids: Iterable[tuple[int, int, int]], gids: Iterable[tuple[int, int, int]], top: Path
) -> dict[str, tuple[int, int]]:
    """The owners that the kernel shows to a process in a user namespace with these maps."""
    look = f"echo ready; read _; exec find {top} -printf '%P\\t%U\\t%G\\n'"
    with subprocess.Popen(
        ["unshare", "--user", "sh", "-c", look],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "ready\n"
        for name, ids in (("uid_map", uids), ("gid_map", gids)):
            text = "".join(f"{container} {host} {count}\n" for container, host, count in ids)
            file = os.open(f"/proc/{child.pid}/{name}", os.O_WRONLY)
            os.write(file, text.encode())
            os.close(file)
        child.stdin.write("\n")
        child.stdin.flush()
        found = [line.split("\t") for line in child.stdout.read().splitlines()]
    return {name: (int(uid), int(gid)) for name, uid, gid in found}
