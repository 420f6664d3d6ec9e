"""The audit and the picture of the id space tell the same: what is in conflict in one is a finding of the other."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.unit.states import GROUP, PASSWD, per_container, shared, state
from usernsplan import HostState, IdRange
from usernsplan.audit import Facts, check
from usernsplan.model import Quarantined, Reservation
from usernsplan.space import space

LOW = 70_000
# Ids that two have, and (USN052) a line that an owner of ours has besides; two lines of one owner, USN003, are no
# conflict between two.
CODES = {"USN001", "USN002", "USN004", "USN005", "USN006", "USN008", "USN009", "USN010", "USN052"}
OWNERS = ("carol", "dave", "root", "lxd", "_incus", "usernsplan-web", "0")
RANGES = st.tuples(st.integers(0, 6), st.integers(1, 3)).map(lambda pair: (LOW + pair[0], pair[1]))
LINES = st.lists(
    st.tuples(st.sampled_from(OWNERS), st.one_of(RANGES, st.just((0, LOW + 3)))).filter(
        # What others than root have from 0 on lies over conventions, of which other rules tell.
        lambda line: line[1][0] >= LOW or line[0] in {"root", "0"}
    ),
    max_size=4,
)


@st.composite
def hosts(draw: st.DrawFn) -> HostState:
    allocations = [
        per_container(name, *ids)
        for name, ids in draw(st.dictionaries(st.sampled_from(("web", "db")), RANGES)).items()
    ]
    ours = [
        (a.owner, (a.reserved_range.start, a.reserved_range.count))
        for a in allocations
        if a.reserved_range
    ]
    everybody = shared("all", (0, 1, 0x10000), (0x10000, 2 * LOW, 1))
    flags: st.SearchStrategy[bool] = st.booleans()
    if draw(flags):
        allocations.append(everybody)
        ours += [
            (everybody.owner, (ids.start, ids.count))
            for ids in everybody.mapping.uids.host_ranges()
        ]
    lines = []
    for _ in range(2):
        said = [line for line in ours if draw(st.integers(0, 3))] + draw(LINES)
        lines.append(b"".join(b"%s:%d:%d\n" % (owner.encode(), *ids) for owner, ids in said))
    numbers = st.integers(LOW, LOW + 8)
    users = draw(st.dictionaries(st.sampled_from(("carol", "eve")), numbers))
    passwd = PASSWD + b"".join(
        b"%s:x:%d:1000::/:/bin/sh\n" % (n.encode(), uid) for n, uid in users.items()
    )
    groups = draw(st.dictionaries(st.sampled_from(("carol", "lab")), numbers))
    group = GROUP + b"".join(b"%s:x:%d:\n" % (n.encode(), gid) for n, gid in groups.items())
    kept = [Quarantined("old", IdRange(*ids), "") for ids in draw(st.lists(RANGES, max_size=1))]
    host = state(*lines, passwd=passwd, group=group, allocations=allocations, quarantined=kept)
    reserved = tuple(
        Reservation(IdRange(*ids), "lab's") for ids in draw(st.lists(RANGES, max_size=1))
    )
    return replace(host, ledger=replace(host.ledger, reservations=reserved))


@settings(max_examples=examples(400), deadline=None)
@given(hosts())
def test_a_host_has_conflicts_where_the_audit_finds_that_ids_are_two_s(host: HostState) -> None:
    codes = {finding.code for finding in check(Facts(host), CODES)}
    conflicts = space(host).conflicts
    if conflicts:
        assert codes
    if codes - {"USN052"}:
        assert conflicts
