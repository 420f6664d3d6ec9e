"""Values as text, as JSON and as a diff."""

from __future__ import annotations

import json
import re

import pytest

from tests.command import extents, ids
from tests.unit.states import asked, carried_out, per_container, same_lines, shared, state
from usernsplan import (
    IdMap,
    IdRange,
    Layout,
    Mapping,
    PerContainer,
    Plan,
    ReleaseRequest,
    Shared,
    make_plan,
    make_release,
)
from usernsplan.layout import SUBUID
from usernsplan.model import (
    Actor,
    Allocation,
    Change,
    Finding,
    HistoryEntry,
    LedgerChange,
    LedgerState,
    Quarantined,
)
from usernsplan.report import diff, json_, text
from usernsplan.report.recorded import Recorded

BOB = b"bob:100000:65536\n"
ROOT = Layout("/")
WEB = per_container("web", 589824)


# Diffs


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (b"a\n", b"a\nb\n", "--- /f\n+++ /f\n@@ -1 +1,2 @@\n a\n+b"),
        (None, b"a\nb\n", "--- /dev/null\n+++ /f\n@@ -0,0 +1,2 @@\n+a\n+b"),
        (b"", b"a\n", "--- /f\n+++ /f\n@@ -0,0 +1 @@\n+a"),
        (b"a\n", b"", "--- /f\n+++ /f\n@@ -1 +0,0 @@\n-a"),
        (
            b"a",
            b"a\nb\n",
            "--- /f\n+++ /f\n@@ -1 +1,2 @@\n-a\n\\ No newline at end of file\n+a\n+b",
        ),
        (
            b"1\n2\n3\n4\n5\n6\n",
            b"1\n2\n3\n4\n5\n6\n7\n",
            "--- /f\n+++ /f\n@@ -4,3 +4,4 @@\n 4\n 5\n 6\n+7",
        ),
        (
            b"1\n2\n3\n4\n5\n6\n7\n8\n9\n",
            b"1\n2\n3\n4\n6\n7\n8\n9\n",
            "--- /f\n+++ /f\n@@ -2,7 +2,6 @@\n 2\n 3\n 4\n-5\n 6\n 7\n 8",
        ),
        (b"\xff:1:1\n", b"\xff:1:1\nb\n", "--- /f\n+++ /f\n@@ -1 +1,2 @@\n \\xff:1:1\n+b"),
    ],
    ids=[
        "added",
        "a new file",
        "an empty file",
        "emptied",
        "no final newline",
        "at the end",
        "in the middle",
        "not UTF-8",
    ],
)
def test_a_change_is_shown_as_diff_u_shows_it(
    before: bytes | None, after: bytes, shown: str
) -> None:
    assert diff.unified(Change("/f", before, after), "/f") == shown


def test_two_places_of_a_long_file_have_the_line_numbers_of_the_file() -> None:
    before = [b"%d\n" % n for n in range(1, 101)]
    after = [line for line in before if line not in {b"40\n", b"60\n"}]
    shown = diff.unified(Change("/f", b"".join(before), b"".join(after)), "/f")
    assert [line for line in shown.split("\n") if line.startswith("@@")] == [
        "@@ -37,7 +37,6 @@",
        "@@ -57,7 +56,6 @@",
    ]


def test_a_line_at_the_end_of_a_hundred_thousand_is_shown_alone() -> None:
    before = b"".join(b"u%d:%d:1\n" % (n, n) for n in range(100_000))
    shown = diff.unified(Change("/f", before, before + b"web:1:1\n"), "/f").split("\n")
    assert shown[2:] == [
        "@@ -99998,3 +99998,4 @@",
        *(f" u{n}:{n}:1" for n in range(99_997, 100_000)),
        "+web:1:1",
    ]


# Text


def test_a_plan_is_shown_as_table_then_diffs_then_next_steps() -> None:
    plan = make_plan(state(**same_lines(BOB)), asked("web", "db"))
    shown = text.plan(plan, ROOT, done=True).split("\n\n")
    assert shown[0].split("\n") == [
        "name    owner           container ids    host uids      host gids",
        "------  --------------  ---------------  -------------  -------------",
        "web     usernsplan-web  0-65535          589824-655359  589824-655359",
        "db      usernsplan-db   0-65535          655360-720895  655360-720895",
    ]
    added = " bob:100000:65536\n+usernsplan-web:589824:65536\n+usernsplan-db:655360:65536"
    assert shown[1] == f"--- /etc/subuid\n+++ /etc/subuid\n@@ -1 +1,3 @@\n{added}"
    assert shown[2] == f"--- /etc/subgid\n+++ /etc/subgid\n@@ -1 +1,3 @@\n{added}"
    assert shown[3].split("\n") == [
        "+ /etc/userdb/usernsplan-web.user and .group, with the id 589824",
        "+ /etc/userdb/usernsplan-db.user and .group, with the id 655360",
    ]
    assert shown[4].startswith("Next:\n  usernsplan render ")
    assert shown[5:] == []


def test_of_many_records_the_first_are_shown_and_the_last() -> None:
    shown = text.plan(
        make_plan(state(), asked("web", strategy=PerContainer(size=65536 * 110))), ROOT, done=True
    )
    lines = [line for line in shown.split("\n") if "with the id" in line]
    assert len(lines) == 11
    assert lines[9] == "+ /etc/userdb/usernsplan-web--9.user and .group, with the id 1179648"
    assert lines[10] == "+ 100 more, up to usernsplan-web--109 with the id 7733248"


def test_a_preview_says_that_nothing_was_written_and_which_commands_would_run() -> None:
    shown = text.plan(make_plan(state(), asked()), ROOT, done=False)
    assert "would run: useradd --system " in shown
    assert "Dry run: nothing was written." in shown
    assert "would run" not in text.plan(make_plan(state(), asked()), ROOT, done=True)


@pytest.mark.parametrize("done", [False, True])
def test_a_plan_without_a_change_says_so(done: bool) -> None:
    host = carried_out(state(), make_plan(state(), asked("web")))
    shown = text.plan(make_plan(host, asked("web")), ROOT, done=done)
    assert "Already up to date." in shown
    assert "Dry run: nothing was written" not in shown
    assert "---  " in shown
    assert "+++" not in shown


def test_paths_are_shown_below_the_root() -> None:
    shown = text.plan(
        make_plan(state(root="/srv/tree"), asked("web")), Layout("/srv/tree"), done=True
    )
    assert "+++ /srv/tree/etc/subuid\n" in shown
    assert "+++ /etc" not in shown


def test_forgetting_names_what_is_forgotten() -> None:
    plan = Plan("forget", ledger=LedgerChange(forget=("web", "db")))
    assert "web, db" in text.plan(plan, ROOT, done=True)
    assert "Forgotten" not in text.plan(plan, ROOT, done=False)


def test_several_extents_stand_in_one_cell_in_the_order_of_the_map() -> None:
    filled = shared(
        "default", (0, 2, 1), (1, 589824, 2), (3, 3, 65533), reserved_range=IdRange(589824, 2)
    )
    shown = text.allocations(LedgerState((filled,)))
    assert re.search(
        r"0, 1-2, 3-65535 +2, 589824-589825, 3-65535 +2, 589824-589825, 3-65535 +shared", shown
    )


def test_the_columns_of_uids_and_gids_are_not_mixed_up() -> None:
    mapping = Mapping(IdMap.of((0, 100000, 5)), IdMap.of((0, 200000, 3)))
    shown = text.allocations(LedgerState((Allocation("web", "bob", "per-container", mapping),)))
    assert re.search(r"0-4 +100000-100004 +200000-200002", shown)
    one = text.allocation(Allocation("web", "bob", "per-container", mapping)).split("\n")
    assert [line.split() for line in one][-2:] == [
        ["uid_map", "0-4", "->", "100000-100004"],
        ["gid_map", "0-2", "->", "200000-200002"],
    ]


def test_list_shows_what_stands_and_what_is_kept_back() -> None:
    assert text.allocations(LedgerState()) == "Nothing is allocated."
    kept = Quarantined("old", IdRange(589824, 65536), "2026-01-01T00:00:00Z")
    shown = text.allocations(LedgerState((), (kept,))).split("\n\n")
    assert shown[0] == "Nothing is allocated."
    assert shown[1].split("\n")[-1].split() == ["old", "589824-655359", "2026-01-01T00:00:00Z"]


def test_one_allocation_is_shown_with_all_that_is_known_of_it() -> None:
    single = Allocation(
        "app",
        "usernsplan-app",
        "single-uid",
        Mapping(*[IdMap.of((0, 1000000000, 1))] * 2),
        IdRange(1000000000, 10000),
        "2026-01-01T00:00:00Z",
    )
    assert [line.split(None, 1) for line in text.allocation(single).split("\n")] == [
        ["name", "app"],
        ["owner", "usernsplan-app"],
        ["strategy", "single-uid"],
        ["since", "2026-01-01T00:00:00Z"],
        ["reserved", "1000000000-1000009999 (10000 ids, uids and gids)"],
        ["uid_map", "0 -> 1000000000"],
        ["gid_map", "0 -> 1000000000"],
    ]


def test_findings_name_severity_code_and_remedy() -> None:
    found = [Finding("USN1", "warning", "a fact", "a remedy"), Finding("USN2", "info", "another")]
    assert text.findings(found) == "warning: a fact [USN1]\n  a remedy\ninfo: another [USN2]"


def test_history_says_when_who_and_what() -> None:
    assert text.history([]) == "The history is empty."
    entry = HistoryEntry(
        "2026-01-01T00:00:00Z", Actor(0, 1000, 1001), "usernsplan allocate", ("a + b",)
    )
    shown = text.history([entry])
    assert "uid 0 (sudo by 1000), login 1001" in shown
    assert "a + b" in shown


def test_a_long_history_entry_is_cut_and_the_rest_counted() -> None:
    entry = HistoryEntry("t", Actor(0), "c", tuple(f"line {n}" for n in range(20)))
    shown = text.history([entry])
    assert "line 7" in shown
    assert "line 8" not in shown
    assert "and 12 more" in shown
    assert len(json.loads(json_.history([entry]))["entries"][0]["lines"]) == 20


# JSON


def test_a_plan_is_a_document_of_version_2() -> None:
    host = state(subuid=b"bob:0x1:1\n", subgid=b"")
    document = json.loads(json_.plan(make_plan(host, asked("web")), Layout("/srv"), done=True))
    assert document["format_version"] == 2
    assert document["kind"] == "allocate"
    assert (document["changed"], document["dry_run"]) == (True, False)
    assert document["allocations"] == [
        {
            "name": "web",
            "owner": "usernsplan-web",
            "extra_owners": [],
            "split_owners": [],
            "strategy": "per-container",
            "uid_map": extents((0, 589824, 65536)),
            "gid_map": extents((0, 589824, 65536)),
            "reserved_range": ids(589824, 65536),
            "lines": True,
            "since": None,
            "published": "userdb",
            "passes": [],
            "within": None,
            "local": False,
            "policy": None,
        }
    ]
    assert document["records"] == [
        {
            "sign": "+",
            "name": "usernsplan-web",
            "id": 589824,
            "path": "/srv/etc/userdb/usernsplan-web.user",
        }
    ]
    assert document["changes"][1] == {
        "path": "/srv/etc/subgid",
        "diff": "--- /srv/etc/subgid\n+++ /srv/etc/subgid\n@@ -0,0 +1 @@\n+usernsplan-web:589824:65536",
    }
    assert [f["code"] for f in document["findings"]] == ["USN108"]
    assert set(document["findings"][0]) == {"code", "severity", "message", "hint"}
    assert len(document["next_steps"]) == 1


def test_a_plan_without_a_change_is_not_changed() -> None:
    host = carried_out(state(), make_plan(state(), asked("web")))
    document = json.loads(json_.plan(make_plan(host, asked("web")), ROOT, done=True))
    assert (document["changed"], document["changes"]) == (False, [])
    assert [a["name"] for a in document["allocations"]] == ["web"]


def test_what_only_the_ledger_keeps_is_a_change_too() -> None:
    plan = make_plan(state(), asked("web", strategy=Shared(max=4294967294)))
    document = json.loads(json_.plan(plan, ROOT, done=True))
    assert (document["changed"], document["changes"]) == (True, [])
    assert document["allocations"][0]["reserved_range"] is None
    assert document["allocations"][0]["uid_map"] == extents((0, 2, 1), (3, 3, 4294967292))


def test_release_and_forget_are_documents_of_the_same_shape() -> None:
    host = carried_out(state(), make_plan(state(), asked("web")))
    release = make_release(host, ReleaseRequest(("web",)))
    host = carried_out(host, release)
    documents = [
        json.loads(json_.plan(plan, ROOT, done=True))
        for plan in (release, make_release(host, ReleaseRequest(("web",), forget=True)))
    ]
    assert [d["kind"] for d in documents] == ["release", "forget"]
    assert [d["changed"] for d in documents] == [True, True]
    assert documents[0].keys() == documents[1].keys()


def test_list_has_the_same_allocations_and_the_quarantine() -> None:
    kept = Quarantined("old", IdRange(655360, 65536), "2026-01-01T00:00:00Z")
    document = json.loads(json_.allocations(LedgerState((WEB,), (kept,)), Recorded(), ROOT))
    assert document["kind"] == "list"
    assert document["allocations"][0]["uid_map"] == extents((0, 589824, 65536))
    assert document["quarantined"] == [
        {"name": "old", "range": ids(655360, 65536), "since": "2026-01-01T00:00:00Z"}
    ]
    assert "quarantined" not in json.loads(json_.allocation(WEB, Recorded(), [], ROOT))


def test_bytes_that_are_not_utf_8_do_not_stop_a_document() -> None:
    host = state(subuid=b"b\xf6b:1:1\n", subgid=b"")
    document = json.loads(json_.plan(make_plan(host, asked("web")), ROOT, done=True))
    assert document["changes"][0]["path"] == SUBUID
    assert " b\\xf6b:1:1\n" in document["changes"][0]["diff"]
