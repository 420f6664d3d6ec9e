"""What a large host costs: how often something is done, and how much is held at once. No clock."""

from __future__ import annotations

import json
import sys
import tracemalloc
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.unit.states import asked, carried_out, per_container, state
from usernsplan import AllocateRequest, Layout, PerContainer, allocate
from usernsplan.audit import Facts, check
from usernsplan.claims import index, of_host
from usernsplan.claims.index import Claim, over_others
from usernsplan.formats import daemon_json, subid
from usernsplan.ids import IdSet
from usernsplan.ledger import access
from usernsplan.model import Finding, ReleaseRequest
from usernsplan.planner.allocate import make_plan
from usernsplan.planner.grants import Grants
from usernsplan.planner.release import make_release
from usernsplan.report import audit as audit_report
from usernsplan.report import json_
from usernsplan.report.colour import Paint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from usernsplan.model import HostState

KEYS = st.text() | st.integers() | st.booleans() | st.none()
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner) | st.tuples(inner, inner),
    max_leaves=20,
)


def lines(count: int) -> bytes:
    return b"".join(b"u%d:%d:1000\n" % (n, 1_000_000 + n * 1000) for n in range(count))


def calls(holder: object, name: str, work: Callable[[], object]) -> int:
    """How often ``work`` calls a function."""
    with mock.patch.object(holder, name, autospec=True, side_effect=getattr(holder, name)) as it:
        work()
    return it.call_count


def python_calls(work: Callable[[], object]) -> int:
    """How many functions written in Python are entered, or go on as generators."""
    entered = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal entered
        entered += event == "call"

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return entered


@given(ANY_JSON)
@settings(max_examples=examples(100))
def test_a_value_is_laid_out_as_the_json_module_does_it(value: object) -> None:
    assert json_.laid_out(value) == json.dumps(value, indent=2)


@given(st.lists(ANY_JSON, max_size=5), ANY_JSON, st.integers(1, 200))
@settings(max_examples=examples(100))
def test_a_streamed_document_is_the_same_document(
    items: list[object], last: object, at_a_time: int
) -> None:
    with mock.patch.object(json_, "_AT_A_TIME", at_a_time):
        pieces = json_.streamed("x", items=iter(items), last=last)
        assert "\n".join(pieces) == json_.document("x", items=items, last=last)


def test_a_long_document_is_never_whole_in_memory() -> None:
    items: Iterator[dict[str, int]] = ({"number": n} for n in range(20_000))
    tracemalloc.start()
    try:
        size = sum(map(len, json_.streamed("x", items=items)))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 500_000
    assert most < size / 2


def test_the_text_of_many_findings_is_never_whole_in_memory() -> None:
    found = [Finding("USN020", "warning", f"number {n}", "a hint", "/etc/x") for n in range(20_000)]
    tracemalloc.start()
    try:
        size = sum(map(len, audit_report.result(found, Layout(), Paint()).text()))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 900_000
    assert most < size / 2


def test_what_is_flat_is_laid_out_with_one_call() -> None:
    finding = {"message": "a", "hint": "b", "place": "c"}
    few, many = (
        python_calls(partial(json_.laid_out, dict(list(finding.items())[:n]))) for n in (1, 3)
    )
    assert few == many


def test_check_reads_the_configuration_of_docker_once_and_not_for_each_owner() -> None:
    hosts = [Facts(state(raw, raw)) for raw in (lines(3), lines(300))]
    few, many = (calls(daemon_json, "parse", partial(check, host)) for host in hosts)
    assert few == many


def test_check_compares_each_allocation_with_its_lines_once() -> None:
    several = [per_container(f"c{n}", 589824 + n * 65536) for n in range(20)]
    raw = b"".join(b"usernsplan-c%d:%d:65536\n" % (n, 589824 + n * 65536) for n in range(20))
    host = Facts(state(raw, raw, allocations=several))
    of_each_file = 2 * len(several)
    assert calls(Grants, "differs", partial(check, host)) == of_each_file


def test_a_line_costs_check_few_calls_of_each_rule_although_each_has_a_finding() -> None:
    def checked(count: int) -> int:
        raw = lines(count)
        return python_calls(lambda: check(Facts(state(raw, raw))))

    checked(1)
    few, many = checked(100), checked(300)
    # A hundred rules look at it, in both files. Reading it and telling the finding are in this, too.
    assert (many - few) / 200 < 26


def test_lines_without_an_overlap_are_not_compared() -> None:
    alone = [Claim(n * 10, n * 10 + 10, "uid", "subid", f"u{n}", number=n) for n in range(50)]
    pair = [Claim(7000 + n, 7100, "uid", "subid", f"v{n}", number=60 + n) for n in range(2)]
    met: list[int] = []

    def noting(items: Iterable[Claim], *rest: Any) -> Any:  # noqa: ANN401 - as sweep has it
        found = list(items)
        met.append(len(found))
        return sweep(found, *rest)

    sweep = index.sweep
    with mock.patch.object(index, "sweep", noting):
        told = [(claim.number, count) for claim, count, _ in over_others(alone + pair)]
    assert told == [(61, 1)]
    assert met == [2]


class Walked(tuple[Any, ...]):
    """A tuple that counts how often somebody walks through it."""

    __slots__ = ()
    times: ClassVar[int] = 0

    def __iter__(self) -> Iterator[Any]:
        Walked.times += 1
        return super().__iter__()


def walks(decide: Callable[[HostState], object], host: HostState) -> int:
    """How often a decision walks through the allocations and the quarantined ranges of a host."""
    ledger = replace(
        host.ledger,
        allocations=Walked(host.ledger.allocations),
        quarantined=Walked(host.ledger.quarantined),
    )
    Walked.times = 0
    decide(replace(host, ledger=ledger))
    return Walked.times


def test_a_plan_walks_through_the_ledger_as_often_for_many_names_as_for_few() -> None:
    every = [f"c{n}" for n in range(40)]
    first = state()
    empty = make_plan(first, asked(*every))
    host = carried_out(first, empty)
    gone = carried_out(host, make_release(host, ReleaseRequest(tuple(every))))
    for what, there, decide in (
        ("new ones", host, lambda names, it: make_plan(it, asked(*(f"n{n}" for n in names)))),
        ("the same", host, lambda names, it: make_plan(it, asked(*names))),
        ("release", host, lambda names, it: make_release(it, ReleaseRequest(names))),
        ("again", gone, lambda names, it: make_plan(it, asked(*names))),
        ("forget", gone, lambda names, it: make_release(it, ReleaseRequest(names, forget=True))),
    ):
        few, many = (walks(partial(decide, tuple(every[:count])), there) for count in (2, 40))
        assert few == many, what


def test_a_name_costs_few_calls_if_it_is_new_and_fewer_if_it_is_there() -> None:
    def named(count: int) -> tuple[str, ...]:
        return tuple(f"c{n:03}" for n in range(count))

    empty = state()
    hosts = [carried_out(empty, make_plan(empty, asked(*named(count)))) for count in (40, 240)]
    few, many = (
        python_calls(partial(make_plan, empty, asked(*named(count)))) for count in (40, 240)
    )
    assert (many - few) / 200 < 185

    few, many = (python_calls(partial(make_plan, host, asked("more"))) for host in hosts)
    assert (many - few) / 200 < 20


def test_a_plan_walks_through_the_accounts_as_often_for_many_names_as_for_few() -> None:
    host = state()
    host = replace(host, accounts=replace(host.accounts, users=Walked(host.accounts.users)))

    def walked(count: int) -> int:
        Walked.times = 0
        make_plan(host, asked(*(f"c{n}" for n in range(count))))
        return Walked.times

    assert walked(2) == walked(40)


def test_what_a_host_has_of_its_own_is_compared_with_its_ledger_once() -> None:
    def compared(count: int) -> int:
        host = state(lines(count), allocations=[per_container("web", 655360)])
        told = {one.start for one in of_host.own(host) if one.source == "subid"}
        assert told == {1_000_000 + n * 1000 for n in range(count)}
        return calls(IdSet, "_complement", partial(of_host.own, host))

    assert compared(2) == compared(40)


def test_what_is_appended_to_a_long_file_is_not_looked_for_in_all_of_it() -> None:
    short, new = lines(300), b"web:9000000:1000\ndb:9001000:1000\n"
    for before, after in ((short, short + new), (short + new, short)):
        assert calls(subid, "ended", partial(subid.added_lines, before, after)) == 2


def test_a_command_below_another_root_loads_the_ledger_once(tmp_path: Path) -> None:
    def web(name: str) -> None:
        allocate(AllocateRequest((name,), PerContainer()), str(tmp_path))

    web("web")
    assert calls(access, "_loaded", partial(web, "db")) == 1
