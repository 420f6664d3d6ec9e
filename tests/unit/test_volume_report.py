"""What fix-volume and undo say, as text and as JSON."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from usernsplan import Layout
from usernsplan.fixing import FixReport, Place
from usernsplan.report import json_, text

ROOT = Layout("/")
ELSEWHERE = Layout("/srv/my tree")
KINDS = ("setuid", "capability", "acl", "device", "hard_link")


def counts(**said: int) -> dict[str, int]:
    return {**dict.fromkeys(("entries", "changed", "right", *KINDS, "stragglers"), 0), **said}


DONE = FixReport(
    "fix-volume",
    ("/srv/vol",),
    counts(entries=12, changed=9, right=3, setuid=2, acl=1),
    run="20261122-053048",
    container="web",
    mode="own",
    seconds=1.26,
)


def document(report: FixReport, layout: Layout = ROOT) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json_.fixed(report, layout))
    return found


# Text


def test_a_run_is_told_with_counts_kinds_time_and_the_way_back() -> None:
    shown = text.fixed(DONE, ROOT).split("\n")
    assert shown[0] == "/srv/vol for web (own)"
    assert "changed 9 (2 setuid or setgid, 1 with an ACL)" in shown[1]
    assert "already right 3" in shown[1]
    assert "1.3 s" in shown[1]
    assert shown[-1] == "Undo: usernsplan undo 20261122-053048"


def test_the_way_back_is_one_that_can_be_pasted_for_another_root() -> None:
    assert text.fixed(DONE, ELSEWHERE).endswith(
        "Undo: usernsplan undo 20261122-053048 --root '/srv/my tree'"
    )


def test_a_preview_says_what_would_be_and_gives_no_way_back() -> None:
    shown = text.fixed(replace(DONE, dry_run=True, run=None), ROOT)
    assert "would change 9" in shown
    assert "Dry run: nothing was written." in shown
    assert "undo" not in shown.lower()


def test_a_run_without_a_change_has_no_way_back_and_no_kinds() -> None:
    shown = text.fixed(replace(DONE, counts=counts(entries=3, right=3), run=None), ROOT)
    assert "changed 0, already right 3" in shown
    assert "Undo" not in shown


def test_an_undo_gives_no_way_back_of_its_own() -> None:
    shown = text.fixed(replace(DONE, kind="undo", mode=None), ROOT)
    assert shown.split("\n")[0] == "/srv/vol"
    assert "Undo" not in shown


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_told(kind: str) -> None:
    assert "(77 " in text.fixed(replace(DONE, counts=counts(changed=80, **{kind: 77})), ROOT)


def test_flattened_owners_are_told_with_what_would_have_kept_them() -> None:
    [line] = [
        line
        for line in text.fixed(replace(DONE, flattened=4), ROOT).split("\n")
        if "--mode shift" in line
    ]
    assert "4 different owners" in line
    assert "--mode shift" not in text.fixed(DONE, ROOT)


def test_stragglers_and_kept_ids_are_told() -> None:
    more = replace(
        DONE, counts=counts(changed=9, stragglers=5), kept_uids={7: 1, 70000: 2}, kept_gids={8: 3}
    )
    shown = text.fixed(more, ROOT)
    assert "5 of these appeared" in shown
    assert "uid 7 (1), uid 70000 (2)" in shown
    assert "gid 8 (3)" in shown


def test_what_was_skipped_and_what_failed_are_named_one_line_each_whatever_their_bytes() -> None:
    report = replace(
        DONE,
        volumes=("/srv/a", "/srv/\udcff"),
        skipped=(Place("/srv/a/mnt", "it is a mount point"),),
        failed=(
            Place("/srv/a/x\ny", "it is immutable"),
            Place("/srv/a/\x1b[31m", "b"),
            Place("/srv/\udcff", "c"),
        ),
    )
    shown = text.fixed(report, ROOT)
    assert shown.startswith("/srv/a, '/srv/\\udcff' for web (own)\n")
    assert "skipped: /srv/a/mnt: it is a mount point\n" in shown
    assert "failed: '/srv/a/x\\ny': it is immutable\n" in shown
    assert "\x1b" not in shown
    shown.encode()


def test_thousands_of_places_are_cut_and_the_rest_counted() -> None:
    places = tuple(Place(f"/srv/{n:05}", "why") for n in range(5000))
    shown = text.fixed(replace(DONE, failed=places, skipped=places[:1]), ROOT).split("\n")
    failed = [line for line in shown if line.strip().startswith("failed: /")]
    assert 1 < len(failed) < 100
    assert any(f"{5000 - len(failed)} more" in line for line in shown)
    assert len(document(replace(DONE, failed=places))["failed"]) == 5000


def test_typed_maps_are_for_nobody() -> None:
    assert text.fixed(replace(DONE, container=None, mode="shift"), ROOT).startswith("/srv/vol\n")


# JSON


def test_a_run_is_a_document_with_all_that_is_promised() -> None:
    found = document(DONE)
    assert found == {
        "format_version": 2,
        "kind": "fix-volume",
        "run": "20261122-053048",
        "dry_run": False,
        "changed": True,
        "container": "web",
        "mode": "own",
        "volumes": [{"path": "/srv/vol"}],
        "seconds": 1.26,
        "undo": "usernsplan undo 20261122-053048",
        "counts": counts(entries=12, changed=9, right=3, setuid=2, acl=1),
        "flattened": 0,
        "kept": {"uids": {}, "gids": {}},
        "skipped": [],
        "failed": [],
        "dropped": [],
        "mounts": [],
        "notes": [],
    }
    assert (
        document(DONE, ELSEWHERE)["undo"] == "usernsplan undo 20261122-053048 --root '/srv/my tree'"
    )


def test_what_lost_power_is_counted_and_listed() -> None:
    report = replace(
        DONE,
        dropped=(Place("/srv/vol/su", "setuid 33 taken"), Place("/srv/vol/man", "setgid 7 taken")),
    )
    assert document(report)["dropped"] == [
        {"path": "/srv/vol/su", "reason": "setuid 33 taken"},
        {"path": "/srv/vol/man", "reason": "setgid 7 taken"},
    ]
    lines = text.fixed(report, ROOT).splitlines()
    assert "  2 lost setuid, setgid or a capability that would pass to another id" in lines
    assert "  lost: /srv/vol/su: setuid 33 taken" in lines


def test_an_undo_is_a_document_of_the_same_shape() -> None:
    found = document(replace(DONE, kind="undo", mode=None, notes=("a", "b")))
    assert found.keys() == document(DONE).keys()
    assert (found["kind"], found["mode"], found["undo"]) == ("undo", None, None)
    assert found["run"] == "20261122-053048"
    assert found["notes"] == ["a", "b"]


def test_a_preview_has_neither_a_run_nor_a_way_back() -> None:
    found = document(replace(DONE, dry_run=True, run=None))
    assert (found["run"], found["undo"], found["dry_run"], found["changed"]) == (
        None,
        None,
        True,
        True,
    )


def test_nothing_changed_where_no_entry_did() -> None:
    assert document(replace(DONE, counts=counts(entries=5, right=5), run=None))["changed"] is False


def test_kept_ids_are_counted_by_id() -> None:
    kept = document(replace(DONE, kept_uids={1000: 3}, kept_gids={7: 1, 8: 2}))["kept"]
    assert kept == {"uids": {"1000": 3}, "gids": {"7": 1, "8": 2}}


@pytest.mark.parametrize(
    "raw", [b"/srv/\xff\xfe", b"/srv/a\xc3", b"/srv/\xed\xb3\xbf", b"/srv/\n\xff"]
)
def test_a_path_that_is_not_utf_8_is_there_by_its_bytes(raw: bytes) -> None:
    path = raw.decode("utf-8", "surrogateescape")
    report = replace(
        DONE,
        volumes=(path,),
        skipped=(Place(path, "a"),),
        failed=(Place("/ok", "b"), Place(path, "c")),
    )
    found = document(report)
    for place in (found["volumes"][0], found["skipped"][0], found["failed"][1]):
        assert base64.b64decode(place["path_b64"]) == raw
        assert place["path"] == raw.decode("utf-8", "replace")
    assert found["failed"][0] == {"path": "/ok", "reason": "b"}
    assert (found["skipped"][0]["reason"], found["failed"][1]["reason"]) == ("a", "c")


@pytest.mark.parametrize(
    "path", ["/srv/ü", "/srv/a\nb", "/srv/😀", '/srv/"\\', "/srv/\x00-free"[:5] + "\x7f"]
)
def test_a_path_that_is_utf_8_is_itself_and_nothing_else(path: str) -> None:
    assert document(replace(DONE, volumes=(path,)))["volumes"] == [{"path": path}]
