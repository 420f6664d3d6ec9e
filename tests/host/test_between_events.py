"""Files and ledger are read without locks: what another command writes and takes back in between is not believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from usernsplan import AllocateRequest, PerContainer, allocate
from usernsplan.host import read
from usernsplan.model import HostState, LedgerState

if TYPE_CHECKING:
    import pytest

    from usernsplan.layout import Layout

LINE = "usernsplan-web:524288:65536\n"


def test_lines_of_a_run_that_was_put_back_meanwhile_are_not_taken_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    files = [tmp_path / "etc" / name for name in ("subuid", "subgid")]
    real, reads = read.state, list[int]()

    def torn(layout: Layout, ledger: Callable[[], LedgerState]) -> HostState:
        reads.append(1)
        if len(reads) > 1:
            return real(layout, ledger)
        # The other command has written its lines; before the ledger is read, it has put them back.
        for file in files:
            file.write_text(LINE)
        seen = real(layout, ledger)
        for file in files:
            file.write_text("")
        allocate(AllocateRequest(("other",), PerContainer()), root=str(tmp_path))
        return HostState(
            **{name: getattr(seen, name) for name in seen.__slots__ if name != "ledger"},
            ledger=ledger(),
        )

    monkeypatch.setattr(read, "state", torn)
    plan = allocate(AllocateRequest(("web",), PerContainer()), root=str(tmp_path))
    assert [str(ids) for ids in plan.allocations[0].mapping.uids.host_ranges()] == ["589824-655359"]
    assert len(reads) > 2
