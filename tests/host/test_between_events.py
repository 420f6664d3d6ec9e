"""Files and ledger are read without locks: what another command writes and reverts does not count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from usernsplan import AllocateRequest, PerContainer, Plan, allocate, apply, make_plan
from usernsplan.host import read
from usernsplan.host.files import layout_at
from usernsplan.ledger import open_ledger
from usernsplan.model import HostState, LedgerState

if TYPE_CHECKING:
    from usernsplan.layout import Layout

LINE = "usernsplan-web:589824:65536\n"


def preview(root: Path) -> Plan:
    layout = layout_at(str(root))
    request = AllocateRequest(("web",), PerContainer())
    return apply.preview(layout, open_ledger(layout), lambda state: make_plan(state, request))


def carry_out(root: Path) -> Plan:
    return allocate(AllocateRequest(("web",), PerContainer()), root=str(root))


@pytest.mark.parametrize("act", [preview, carry_out])
def test_lines_of_a_run_that_was_put_back_meanwhile_are_not_taken_for_others(
    act: Callable[[Path], Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    files = [tmp_path / "etc" / name for name in ("subuid", "subgid")]
    # All ways to read the host lead here.
    real, reads = read._state, list[int]()

    def torn(
        layout: Layout, ledger: Callable[[], LedgerState], *how: Any, **more: Any
    ) -> HostState:
        reads.append(1)
        if len(reads) > 1:
            return real(layout, ledger, *how, **more)
        # The other command has written its lines; it reverts them before the ledger is read.
        for file in files:
            file.write_text(LINE)
        seen = real(layout, ledger, *how, **more)
        for file in files:
            file.write_text("")
        allocate(AllocateRequest(("other",), PerContainer()), root=str(tmp_path))
        return HostState(
            **{name: getattr(seen, name) for name in seen.__slots__ if name != "ledger"},
            ledger=ledger(),
        )

    monkeypatch.setattr(read, "_state", torn)
    plan = act(tmp_path)
    assert [str(ids) for ids in plan.allocations[0].mapping.uids.host_ranges()] == ["655360-720895"]
    assert len(reads) > 2
