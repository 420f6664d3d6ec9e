"""Which claims a host has, and how the audit tells of all that lie over each other. By hand."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.states import PASSWD, per_container, same_lines, shared, state
from usernsplan import Allocation, IdRange, IdSet
from usernsplan.audit import Facts, check
from usernsplan.claims.index import Claim
from usernsplan.claims.sources import claims_of
from usernsplan.claims.uses import without_mounts, without_own
from usernsplan.mapping import KINDS
from usernsplan.model import (
    MOUNT,
    HostState,
    LedgerState,
    Quarantined,
    Reservation,
    Unlisted,
    VolumeMount,
)
from usernsplan.report.audit import fields

USUAL = {"account", "group", "reserved"}


def told(host: HostState) -> list[tuple[str, str, str, str]]:
    """The claims, in short, but for accounts and conventions, which every host has."""
    return [(c.source, c.kind, c.holder, c.ids) for c in claims_of(host) if c.source not in USUAL]


def test_an_allocation_claims_its_range_as_uids_and_gids_and_so_do_its_lines() -> None:
    lines = same_lines(b"usernsplan-web:589824:65536\n")
    host = state(allocations=[per_container("web", 589824)], **lines)
    assert told(host) == [
        ("allocation", "uid", "web", "589824-655359"),
        ("allocation", "gid", "web", "589824-655359"),
        ("subid", "uid", "usernsplan-web", "589824-655359"),
        ("subid", "gid", "usernsplan-web", "589824-655359"),
    ]
    assert {c.allocation.name for c in claims_of(host) if c.allocation} == {"web"}


def test_a_shared_map_has_a_root_a_filler_and_what_it_shares() -> None:
    docker = shared(
        "default",
        (0, 2, 1),
        (1, 589824, 2),
        (3, 3, 65533),
        owner="dockremap",
        reserved_range=IdRange(589824, 2),
    )
    assert [one for one in told(state(allocations=[docker])) if one[1] == "uid"] == [
        ("filler", "uid", "default", "589824-589825"),
        ("dockerroot", "uid", "default", "2"),
        ("shared", "uid", "default", "3-65535"),
    ]


def test_a_line_may_name_its_account_by_the_uid_and_be_one_of_ours() -> None:
    passwd = PASSWD + b"usernsplan-web:x:4000:4000::/:/bin/sh\n"
    host = state(
        b"4000:589824:65536\n1000:100000:10\n",
        allocations=[per_container("web", 589824)],
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
        quarantined=[Quarantined("old", IdRange(765536, 10), "")],
        namespaces=IdSet([IdRange(865536, 5)]),
    )
    host = replace(
        host,
        ledger=LedgerState(
            quarantined=host.ledger.quarantined,
            reservations=(Reservation(IdRange(965536, 2), "NFS"),),
        ),
    )
    assert [one for one in told(host) if one[1] == "gid"] == [
        ("namespace", "gid", "a running user namespace", "865536-865540"),
        ("reservation", "gid", "NFS", "965536-965537"),
        ("quarantine", "gid", "old", "765536-765545"),
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
        b"mallory:589824:131072\n",
        allocations=[per_container("web", 589824), per_container("db", 655360)],
    )
    [found] = check(Facts(host), {"USN002"})
    assert found.place == "/etc/subuid:1"
    assert found.message == (
        "mallory's 589824-720895 overlaps with 589824-655359 of 'web', 655360-720895 of 'db'"
    )
    assert [(one.holder, one.start, one.stop) for one in found.overlaps] == [
        ("web", 589824, 655360),
        ("db", 655360, 720896),
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


def of_lxc(start: int, stop: int, grantee: str = "root") -> Unlisted:
    return Unlisted("LXC", "container web", "uid", start, stop, "web", "/web/config", 3, grantee)


def unlisted(*several: Unlisted, lines: bytes = b"") -> list[str]:
    host = replace(state(**same_lines(lines)), unlisted=several)
    return [claim.ids for claim in claims_of(host) if claim.source == "unlisted"]


def test_what_a_program_of_roots_has_is_a_claim_with_its_place() -> None:
    host = replace(state(), unlisted=(of_lxc(100000, 165536),))
    [claim] = [claim for claim in claims_of(host) if claim.source == "unlisted"]
    assert (claim.holder, claim.ids) == ("LXC (container web)", "100000-165535")
    assert (claim.path, claim.number) == ("/web/config", 3)
    # Numbers that a file names without meaning any id.
    assert unlisted(of_lxc(7, 7), of_lxc(100000, 100000)) == []


def test_ids_of_the_host_that_a_container_passes_through_are_no_claim() -> None:
    assert unlisted(of_lxc(1000, 1001), of_lxc(0, 65536)) == []
    assert unlisted(of_lxc(60000, 70000), of_lxc(65536, 65537)) == ["65536-69999", "65536"]


def test_an_account_has_no_more_ids_than_its_lines_grant() -> None:
    wanted = of_lxc(1000, 4000000000, "alice")
    assert unlisted(wanted) == []
    lines = b"bob:300000:10\nalice:200000:65536\n1000:400000:10\nalice:0x7a120:10\nalice:5:10\n"
    assert unlisted(wanted, lines=lines) == ["200000-265535", "400000-400009", "500000-500009"]
    assert unlisted(of_lxc(265530, 400001, "alice"), lines=lines) == ["265530-265535", "400000"]


def test_a_recorded_mount_uses_the_ids_for_its_container_and_for_nobody_else() -> None:
    web, db = per_container("web", 589824), per_container("db", 655360)
    at = "/run/usernsplan/volumes/web/srv-web"
    shown = tuple(Unlisted(MOUNT, at, kind, 589824, 655360, path=at) for kind in KINDS)
    mount = VolumeMount(at, "/srv/web", "web", "shift", web.mapping)
    host = state(allocations=[web, db], unlisted=shown)
    ledger = replace(host.ledger, mounts=(mount,))

    def left(made: Allocation, known: LedgerState) -> list[object]:
        found = without_own(claims_of(replace(host, ledger=known)), known, [made])
        return [claim.value for claim in found if isinstance(claim.value, Unlisted)]

    assert left(web, ledger) == []
    # Who looks at the ids sees the container alone.
    claims = claims_of(replace(host, ledger=ledger))
    assert [c for c in without_mounts(claims, ledger) if isinstance(c.value, Unlisted)] == []
    assert list(without_mounts(claims, host.ledger)) == list(claims)
    other = replace(ledger, mounts=(replace(mount, name="db"),))
    assert list(without_mounts(claims, other)) == list(claims)
    # Whoever has the ids by no record is somebody else.
    assert left(db, ledger) == left(web, host.ledger) == list(shown)
