"""Which claims a host has, and how the audit tells of all that lie over each other. By hand."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.states import PASSWD, per_container, same_lines, shared, state
from usernsplan import IdRange, IdSet
from usernsplan.audit import Facts, check
from usernsplan.claims.index import Claim
from usernsplan.claims.sources import claims_of
from usernsplan.model import HostState, LedgerState, Quarantined, Reservation
from usernsplan.report.audit import fields

USUAL = {"account", "group", "reserved"}


def told(host: HostState) -> list[tuple[str, str, str, str]]:
    """The claims, in short, but for accounts and conventions, which every host has."""
    return [(c.source, c.kind, c.holder, c.ids) for c in claims_of(host) if c.source not in USUAL]


def test_an_allocation_claims_its_range_as_uids_and_gids_and_so_do_its_lines() -> None:
    lines = same_lines(b"usernsplan-web:524288:65536\n")
    host = state(allocations=[per_container("web", 524288)], **lines)
    assert told(host) == [
        ("allocation", "uid", "web", "524288-589823"),
        ("allocation", "gid", "web", "524288-589823"),
        ("subid", "uid", "usernsplan-web", "524288-589823"),
        ("subid", "gid", "usernsplan-web", "524288-589823"),
    ]
    assert {c.allocation.name for c in claims_of(host) if c.allocation} == {"web"}


def test_a_shared_map_has_a_root_a_filler_and_what_it_shares() -> None:
    docker = shared(
        "default",
        (0, 2, 1),
        (1, 524288, 2),
        (3, 3, 65533),
        owner="dockremap",
        reserved_range=IdRange(524288, 2),
    )
    assert [one for one in told(state(allocations=[docker])) if one[1] == "uid"] == [
        ("filler", "uid", "default", "524288-524289"),
        ("dockerroot", "uid", "default", "2"),
        ("shared", "uid", "default", "3-65535"),
    ]


def test_a_line_may_name_its_account_by_the_uid_and_be_one_of_ours() -> None:
    passwd = PASSWD + b"usernsplan-web:x:4000:4000::/:/bin/sh\n"
    host = state(
        b"4000:524288:65536\n1000:100000:10\n",
        allocations=[per_container("web", 524288)],
        passwd=passwd,
    )
    lines = [c for c in claims_of(host) if c.source == "subid"]
    assert [(c.holder, bool(c.allocation)) for c in lines] == [
        ("usernsplan-web", True),
        ("alice", False),
    ]


def test_a_line_that_readers_take_for_several_ranges_claims_all_of_them() -> None:
    # shadow reads the start as 0x64, moby as 0; both ends are one line.
    lines = [c for c in claims_of(state(b"bob:0x64:10\n")) if c.source == "subid"]
    assert [(c.holder, c.ids, c.number) for c in lines] == [
        ("bob", "0-9", 1),
        ("bob", "100-109", 1),
    ]


def test_what_the_ledger_keeps_and_what_runs_are_claims() -> None:
    host = state(
        quarantined=[Quarantined("old", IdRange(700000, 10), "")],
        namespaces=IdSet([IdRange(800000, 5)]),
    )
    host = replace(
        host,
        ledger=LedgerState(
            quarantined=host.ledger.quarantined,
            reservations=(Reservation(IdRange(900000, 2), "NFS"),),
        ),
    )
    assert [one for one in told(host) if one[1] == "gid"] == [
        ("namespace", "gid", "a running user namespace", "800000-800004"),
        ("reservation", "gid", "NFS", "900000-900001"),
        ("quarantine", "gid", "old", "700000-700009"),
    ]


def test_a_gid_that_no_group_has_is_claimed_by_the_account() -> None:
    found = claims_of(state(passwd=PASSWD + b"eve:x:5000:5001::/:/bin/sh\n"))
    theirs = [c for c in found.over(5000, 5002) if c.source != "reserved"]
    assert [(c.kind, c.holder) for c in theirs] == [("uid", "eve"), ("gid", "eve")]


def test_a_claim_past_the_last_id_keeps_its_numbers_and_is_cut_off_as_a_range() -> None:
    claim = Claim(4294967290, 4294967300, "uid", "subid", "bob")
    assert claim.ids == "4294967290-4294967299"
    assert str(claim.id_range) == "4294967290-4294967294"


def test_of_three_owners_of_the_same_ids_all_three_pairs_are_told() -> None:
    facts = Facts(state(b"a:100000:10\nb:100000:10\nc:100005:10\n", b""))
    second, third = check(facts, {"USN001"})
    assert second.message == "b's 100000-100009 overlaps with a's 100000-100009 in line 1"
    assert [(one.place, one.holder) for one in second.overlaps] == [("/etc/subuid:1", "a")]
    assert third.message.startswith("c's 100005-100014 overlaps with ")
    assert {(one.place, one.holder) for one in third.overlaps} == {
        ("/etc/subuid:1", "a"),
        ("/etc/subuid:2", "b"),
    }


def test_a_line_over_two_allocations_is_told_for_both() -> None:
    host = state(
        b"mallory:524288:131072\n",
        allocations=[per_container("web", 524288), per_container("db", 589824)],
    )
    [found] = check(Facts(host), {"USN002"})
    assert found.place == "/etc/subuid:1"
    assert found.message == (
        "mallory's 524288-655359 overlaps with 524288-589823 of 'web', 589824-655359 of 'db'"
    )
    assert [(one.holder, one.start, one.stop) for one in found.overlaps] == [
        ("web", 524288, 589824),
        ("db", 589824, 655360),
    ]


def test_text_names_a_few_and_json_has_all() -> None:
    lines = b"".join(b"o%d:100000:10\n" % n for n in range(16))
    facts = Facts(state(lines, b""))
    found = check(facts, {"USN001"})
    last = found[-1]
    assert last.place == "/etc/subuid:16"
    assert last.message.endswith(" and 12 more")
    told = [fields(one) for one in found]
    pairs = [(one["place"], other["place"]) for one in told for other in one["overlaps"]]
    assert len({frozenset(pair) for pair in pairs}) == len(pairs) == 16 * 15 // 2
    assert told[0]["overlaps"][0]["ids"] == {"start": 100000, "count": 10}


def test_of_thousands_of_lines_over_each_other_the_pairs_that_are_left_out_are_counted() -> None:
    facts = Facts(state(b"".join(b"o%d:100000:10\n" % n for n in range(600)), b""))
    found = check(facts, {"USN001"})
    listed = sum(len(one.overlaps) for one in found)
    assert 100_000 <= listed < 102_000
    assert listed + sum(one.overlaps_left_out for one in found) == 600 * 599 // 2
