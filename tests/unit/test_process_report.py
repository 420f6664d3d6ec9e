"""What inspect prints of a process, on values; tests/engines/test_inspect.py has real ones."""

from __future__ import annotations

from tests.unit.states import state
from usernsplan import IdMap, Mapping
from usernsplan.formats.proc_status import Capabilities, Ids, Status
from usernsplan.model import LedgerState, Namespace
from usernsplan.report import process as report
from usernsplan.whose.ids import IdContext, answers
from usernsplan.whose.privileges import Process


def text(uids: IdMap, subuid: bytes, *, complete: bool = True) -> str:
    host = state(subuid)
    facts = IdContext(
        host.layout, LedgerState(), host.subuid, host.subgid, host.accounts, complete=complete
    )
    namespace = Namespace(1, 0, None, (7,), Mapping(uids, IdMap.of((0, 765536, 1))))
    ids = Ids(100000, 100000, 100000, 100000)
    status = Status("x", "S", ids, ids, (), Capabilities())
    process = Process(7, status, (namespace,), facts, answers([0, 100000], facts))
    return str(report.result(process, ()).text())


def test_a_list_of_free_ids_that_is_cut_says_so() -> None:
    lines = b"a:100010:1\nb:100020:1\nc:100030:1\nd:100040:1\n"
    assert "100000-100009, 100011-100019, 100021-100029 and 2 more: nobody's" in text(
        IdMap.of((0, 100000, 100)), lines
    )
    shown = text(IdMap.of((0, 100000, 31)), lines)
    assert "100000-100009, 100011-100019, 100021-100029: nobody's" in shown


def test_where_the_ledger_could_not_be_read_nothing_is_given_to_nobody_for_sure() -> None:
    assert "nobody's, as far as can be seen" in text(IdMap.of((0, 100000, 5)), b"", complete=False)
    assert "as far as" not in text(IdMap.of((0, 100000, 5)), b"").split("\n\n")[1]
