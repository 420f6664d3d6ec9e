"""Host ids that pass through, and slices: what list, show, whois, map, inspect and history say. By hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.each import each
from tests.unit.passing import lines, passing, slice_of
from tests.unit.states import GROUP, in_one, per_container, same_lines, state
from usernsplan import Allocation, HostState, IdMap, IdRange, IdSet, Mapping
from usernsplan.audit import Facts, check
from usernsplan.formats import accounts, passes, subid
from usernsplan.layout import Layout
from usernsplan.mapping import Extent, Pass
from usernsplan.model import (
    Actor,
    HistoryEntry,
    LedgerChange,
    LedgerState,
    Namespace,
    Quarantined,
)
from usernsplan.planner import changes
from usernsplan.report import json_, map_html, map_json, map_svg, map_text, process, text, whose
from usernsplan.report.colour import Paint
from usernsplan.space import Space, capacity, space
from usernsplan.whose.ids import IdContext, Ranges, answers

WEB = passing("web", 589824, "u:1000", "g:104:107", owners=["root"])
DB = slice_of("alice", "db", 200000, 4096)
MEDIA = passing("web", 589824, "b:1000-1005")
ALICES = b"alice:200000:65536\n"
RENDER = GROUP + b"render:x:104:\n"
NAMES = accounts.Accounts(
    (accounts.User("alice", 1000, 1000),),
    (accounts.Group("alice", 1000), accounts.Group("render", 104)),
)


def both(*allocations: Allocation, **words: object) -> HostState:
    """A host with these allocations and their lines."""
    made = lines(*allocations)
    more = {"group": RENDER, **words}
    made = {file: raw + (ALICES if DB in allocations else b"") for file, raw in made.items()}
    return state(**made, allocations=allocations, **more)  # type: ignore[arg-type]


def rows(shown: str) -> list[list[str]]:
    return [line.split("  ") for line in shown.splitlines()]


@each(
    ("extent", "kind", "expected"),
    [
        (Extent(107, 104, 1), "gid", "gid 104 as 107 (group render)"),
        (Extent(104, 104, 1), "uid", "uid 104"),
        (Extent(1000, 1000, 1), "uid", "uid 1000 (account alice)"),
        (Extent(100, 100, 6), "gid", "gids 100-105 (group 104 render)"),
        (Extent(0, 100, 901), "gid", "gids 100-1000 as 0-900 (groups 104 render, 1000 alice)"),
    ],
)
def test_a_pass_in_words(extent: Extent, kind: str, expected: str) -> None:
    assert passes.told(Pass(kind, extent), NAMES) == expected  # type: ignore[arg-type]


def test_many_names_of_one_pass_are_few() -> None:
    many = accounts.Accounts((), tuple(accounts.Group(f"g{n}", n) for n in range(9)))
    one = Pass("gid", Extent(0, 0, 9))
    assert passes.told(one, many) == "gids 0-8 (groups 0 g0, 1 g1, 2 g2 and 6 more)"


def test_list_has_what_passes_in_one_line() -> None:
    shown = text.allocations(LedgerState((DB, WEB)), accounts=NAMES)
    db, web = (
        [cell.strip() for cell in row.split("  ") if cell.strip()] for row in shown.splitlines()[2:]
    )
    assert db == [
        "db",
        "(within alice)",
        "0-4095",
        "200000-204095",
        "200000-204095",
        "per-container",
    ]
    assert web[2:5] == [
        "0-65535",
        "589824-655359, passes 1000 (alice)",
        "589824-655359, passes 104 as 107 (render)",
    ]


def test_a_map_without_one_range_shows_its_own_ids_and_at_most_three_passes() -> None:
    mapping = Mapping(
        IdMap.of((0, 200000, 10), (10, 44, 1), (20, 300000, 5)),
        IdMap.of((0, 200000, 10), (10, 1, 1), (11, 2, 1), (12, 4, 1), (13, 6, 1)),
    )
    shown = [("uid", (10, 44, 1)), *(("gid", (9 + n, n, 1)) for n in (1, 2, 4, 6))]
    shown[3:] = [("gid", (12, 4, 1)), ("gid", (13, 6, 1))]
    found = tuple(Pass(kind, Extent(*numbers)) for kind, numbers in shown)  # type: ignore[arg-type]
    a = replace(WEB, mapping=mapping, reserved_range=None, passes=found)
    told = text.allocations(LedgerState((a,)))
    assert "  0-10, 20-24  " in told
    assert "200000-200009, 300000-300004, passes 44 as 10" in told
    assert "200000-200009, passes 1 as 10, 2 as 11, 4 as 12 and 1 more" in told


def test_show_has_each_extent_and_the_ids_that_stay_unused() -> None:
    shown = [line.strip() for line in text.allocation(WEB, accounts=NAMES).splitlines()]
    assert shown[5:] == [
        "uid_map   0-999 -> 589824-590823",
        "1000 -> 1000, passes through",
        "1001-65535 -> 590825-655359",
        "gid_map   0-106 -> 589824-589930",
        "107 -> 104, passes through",
        "108-65535 -> 589932-655359",
        "passes    uid 1000 (account alice)",
        "gid 104 as 107 (group render)",
        "unused    uids 590824; gids 589931 (reserved, but not mapped)",
    ]
    assert "(within alice)" in text.allocation(DB)


def test_documents_have_the_passes_and_the_owner_of_a_slice() -> None:
    found = json_.allocation_fields(WEB)
    assert found["passes"] == [
        {"kind": "uid", "container": 1000, "host": 1000, "count": 1},
        {"kind": "gid", "container": 107, "host": 104, "count": 1},
    ]
    assert found["within"] is None
    assert json_.allocation_fields(DB)["within"] == "alice"
    assert json_.allocation_fields(DB)["passes"] == []


def context(*allocations: Allocation) -> IdContext:
    host = both(*allocations)
    return IdContext(Layout("/"), host.ledger, host.subuid, host.subgid, host.accounts)


def told(number: int, *allocations: Allocation) -> list[str]:
    answer = answers([number], context(*allocations))[number]
    return whose.paragraph(number, answer, Layout("/"), None).splitlines()


def test_whois_of_an_id_that_passes_has_the_account_and_every_container() -> None:
    other = passing("other", 655360, "g:104")
    found = told(104, WEB, other)
    gids = found[found.index("  as a gid:") :]
    assert "    passes through to container web, container id 107" in gids
    assert "    passes through to container other, container id 104" in gids
    assert "    group render" in gids
    # As a uid, it is nobody's.
    assert not any("passes" in line for line in found[: found.index("  as a gid:")])


def test_whois_of_the_id_of_a_hole_says_that_it_is_kept() -> None:
    found = told(589931, WEB)
    uid, gid = found.index("  as a uid:"), found.index("  as a gid:")
    assert found[uid + 1] == "    container web, container id 107"
    assert found[gid + 1] == "    container web: reserved for it, not mapped"
    assert answers([589931], context(WEB))[589931].is_free is False


def test_whois_on_one_line_and_in_a_document() -> None:
    answer = answers([1000], context(WEB))[1000]
    line = whose.line(1000, answer, None)
    assert "uid: passes through to container web: 1000, account alice; gid: group alice" in line
    first, *rest = (whose.fields(holder) for holder in answer.uid)
    assert {key: first[key] for key in ("kind", "name", "container_id", "range")} == {
        "kind": "pass",
        "name": "web",
        "container_id": 1000,
        "range": {"start": 1000, "count": 1},
    }
    assert [one["kind"] for one in rest] == ["account", "reserved"]


def test_whois_of_an_id_of_a_slice_names_the_slice_and_the_line() -> None:
    found = told(200001, DB)
    assert "    container db, container id 1" in found
    assert any("range 200000-204095 within the lines of alice" in line for line in found)
    assert "    /etc/subuid:1: alice may map 200000-265535" in found


def test_inspect_says_that_the_id_of_an_extent_passes_through() -> None:
    facts = replace(context(WEB), subuid=subid.parse(b""))
    one = Namespace(7, 0, None, (1,), WEB.mapping)
    ranges = Ranges(facts)
    words = list(process._words(one.mapping.gids, ranges, "gid"))  # type: ignore[union-attr]
    assert words == [
        ["container web"],
        ["passes through to container web", "group render"],
        ["container web"],
    ]


WITH_44 = (
    "0-43 -> 589824-589867",
    "44 -> 44",
    "45-106 -> 589869-589930",
    "107 -> 104",
    "108-65535 -> 589932-655359",
)


def pictured(host: HostState) -> Space:
    return space(host)


def segments(found: Space) -> list[tuple[str, str, str, str]]:
    kinds = {("uid", "gid"): "both", ("uid",): "uid", ("gid",): "gid"}
    return [
        (s.origin, s.label, kinds[s.kinds], str(s.ids))
        for s in found.segments
        if s.label in {"web", "db"}
    ]


def test_a_pass_is_a_segment_of_its_own_and_no_conflict() -> None:
    found = pictured(both(WEB, DB))
    assert segments(found) == [
        ("pass", "web", "gid", "104"),
        ("pass", "web", "uid", "1000"),
        ("allocation", "db", "both", "200000-204095"),
        ("allocation", "web", "both", "589824-655359"),
    ]
    assert found.conflicts == ()


def test_every_picture_has_passes_in_its_legend_and_in_its_documents() -> None:
    found = pictured(both(WEB))
    style = map_text.Style(100, True, Paint())
    drawn = map_text.picture(found, style, "x")
    assert "p passes through" in drawn
    assert "  p 104                   web  passes through (gids)" in drawn
    for page in (map_svg.document(found, "x"), map_html.document(found, "x")):
        assert 'id="p-pass"' in page
        assert 'fill="url(#p-pass)"' in page
    assert 'data-k="pass"' in map_html.document(found, "x")
    kinds = [s["kind"] for s in json.loads(map_json.space(found))["segments"]]
    assert kinds.count("pass") == 2


def test_the_ids_of_holes_are_no_room() -> None:
    free, holes = capacity(both(per_container("web", 589824))), capacity(both(WEB))
    assert (free.used, free.more) == (holes.used, holes.more)
    assert not holes.free.holds(IdRange(589931, 1))


@each(
    ("host", "expected"),
    [
        # A pass into the range of another container, and into subordinate ids of somebody.
        (
            both(per_container("db", 655360), passing("web", 589824, "u:655361")),
            [("web", "db")],
        ),
        (state(b"", ALICES, allocations=[passing("web", 589824, "g:200001")]), [("alice", "web")]),
        # Two slices, and a slice beyond its line, which somebody else has.
        (both(DB, slice_of("alice", "dc", 204000, 100)), [("db", "dc")]),
        (
            state(
                **same_lines(b"alice:200000:10\nbob:200010:10\n"),
                allocations=[slice_of("alice", "db", 200005, 10)],
            ),
            [("db", "bob")],
        ),
        # What is meant: two show the same, root's own line, a slice of an adopted line, root's daemons.
        (both(WEB, passing("other", 655360, "u:1000", "g:104")), []),
        (
            state(
                **same_lines(b"root:1000:6\n" + lines(MEDIA)["subuid"]),
                allocations=[MEDIA],
            ),
            [],
        ),
        (
            state(
                **same_lines(ALICES),
                allocations=[per_container("alice", 200000, owner="alice"), DB],
            ),
            [],
        ),
        (
            state(
                **same_lines(b"root:1000000:1000000\n_incus:1000000:1000000\n"),
                allocations=[slice_of("root", "i", 1000000, 65536)],
            ),
            [],
        ),
    ],
)
def test_conflicts_of_passes_and_slices(host: HostState, expected: list[tuple[str, str]]) -> None:
    found = pictured(host)
    clashing = {
        (found.segments[c.first].label, found.segments[c.second].label) for c in found.conflicts
    }
    assert {frozenset(pair) for pair in clashing} == {frozenset(pair) for pair in expected}
    # The audit finds the same.
    errors = [f.code for f in check(Facts(host)) if f.severity == "error"]
    assert bool(errors) is bool(expected), errors


def test_check_is_silent_about_passes_and_slices_that_are_as_they_should_be() -> None:
    host = both(WEB, DB, group=RENDER)
    running = Namespace(7, 0, None, (9,), WEB.mapping)
    found = check(Facts(host, namespaces=(running,)))
    # A slice of 4096 ids has no nobody, and leaves fewer than 65536 in one piece to alice.
    codes = [(f.code, f.severity) for f in found if f.code != "USN077"]
    assert codes == [("USN024", "warning"), ("USN059", "info")]


@each(
    ("allocations", "subid_lines", "code"),
    [
        # A line of somebody over the own ids of a slice, of a map with holes, and of two ranges.
        ([DB], b"alice:200000:65536\nbob:200000:10\n", "USN001"),
        ([WEB], b"bob:589931:1\n", "USN002"),
        (
            [replace(slice_of("alice", "x", 300000, 9, gids=400000), within="")],
            b"bob:400000:9\n",
            "USN002",
        ),
        # Two allocations that share gids alone.
        (
            [
                replace(slice_of("alice", "x", 300000, 9, gids=400000), within=""),
                replace(slice_of("bob", "y", 310000, 9, gids=400008), within=""),
            ],
            b"",
            "USN002",
        ),
        # Two slices of one line.
        ([DB, slice_of("alice", "dc", 204095, 9)], ALICES, "USN002"),
    ],
)
def test_what_is_wrong_is_found(
    allocations: list[Allocation], subid_lines: bytes, code: str
) -> None:
    bob = {"passwd": b"root:x:0:0::/:/\nalice:x:1000:1000::/:/\nbob:x:1001:1001::/:/\n"}
    host = state(**same_lines(subid_lines), allocations=allocations, **bob)  # type: ignore[arg-type]
    assert code in {f.code for f in check(Facts(host))}


def test_a_quarantined_range_is_found_over_ids_without_one_range() -> None:
    a = replace(slice_of("alice", "x", 300000, 9, gids=400000), within="")
    host = state(allocations=[a], quarantined=[Quarantined("old", IdRange(400000, 9), "")])
    assert "USN010" in {f.code for f in check(Facts(host))}


def test_a_single_gid_of_root_needs_no_uid() -> None:
    found = check(Facts(state(**in_one("subgid", b"root:104:1\n"))))
    assert "USN022" not in {f.code for f in found}


def test_the_history_has_new_names_maps_and_passes_in_words() -> None:
    before = LedgerState((WEB, per_container("old", 655360)))
    now = passing("web", 589824, "g:104:107", "g:44")
    change = LedgerChange(
        rename=(("old", "new"),),
        add=(passing("db", 720896, "u:1000"), slice_of("alice", "s", 200000, 9)),
        update=(now, replace(per_container("new", 655360), published="none")),
    )
    assert changes.is_told(change)
    assert list(changes.lines(change, before, NAMES)) == [
        "renamed old to new",
        "+ db passes uid 1000 (account alice)",
        "s is a slice of the lines of alice",
        "- web uids 0-999 -> 589824-590823, 1000 -> 1000, 1001-65535 -> 590825-655359",
        "+ web uids 0-65535 -> 589824-655359",
        "- web gids 0-106 -> 589824-589930, 107 -> 104, 108-65535 -> 589932-655359",
        f"+ web gids {', '.join(WITH_44)}",
        "- web passes uid 1000 (account alice)",
        "+ web passes gid 44",
    ]
    # Most events have nothing of this, and then nobody has to be asked for names.
    assert not changes.is_told(LedgerChange(add=(per_container("web", 589824),)))


def test_what_the_history_told_is_known_again() -> None:
    def entry(*told: str) -> HistoryEntry:
        return HistoryEntry("", Actor(0), "", told)

    found = changes.passed_before(
        [
            entry(
                "+ web passes gid 104 as 107 (group render)", "+ web passes uids 1-9 (account x)"
            ),
            entry("/etc/subuid: + web passes uid 7 (account seven)"),
            entry("renamed web to db", "+ db passes uid 1000 (account alice)"),
            entry("+ db passes gid 104 as 107 (group video)"),
        ]
    )
    assert found == {("db", "gid", 104): "group video", ("db", "uid", 1000): "account alice"}


@pytest.mark.parametrize("number", [104, 1000])
def test_an_id_that_passes_stays_free_for_the_host(number: int) -> None:
    host = both(WEB)
    assert not (IdSet([IdRange(number, 1)]) & capacity(host).free)
