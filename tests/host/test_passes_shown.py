"""Ids that pass through and slices below a root: the commands that show them, and what check knows of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.command import here, needs_root
from tests.unit.passing import lines, passing, slice_of
from usernsplan.apply import commit
from usernsplan.host.files import layout_at
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.ledger import open_ledger
from usernsplan.model import Change, LedgerChange, Plan

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

pytestmark = needs_root

WEB = passing("web", 589824, "u:1000", "g:104:107", owners=["root"])
DB = slice_of("alice", "db", 200000, 65536)
ALICES = b"alice:200000:65536\n"


def group(root: Path, *more: str) -> None:
    (root / "etc/group").write_text(
        "".join(f"{line}\n" for line in ("root:x:0:", "alice:x:1000:", *more))
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with a container that shows alice and the group render, and a slice of alice's line."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"
    )
    group(tmp_path, "render:x:104:")
    for name in ("subuid", "subgid"):
        (tmp_path / "etc" / name).write_bytes(ALICES)
    made = lines(WEB)
    carry_out(
        tmp_path,
        LedgerChange(add=(WEB, DB)),
        Change(SUBUID, ALICES, ALICES + made["subuid"]),
        Change(SUBGID, ALICES, ALICES + made["subgid"]),
    )
    return tmp_path


def carry_out(root: Path, change: LedgerChange, *files: Change) -> None:
    layout = layout_at(str(root))
    commit(layout, open_ledger(layout), Plan("allocate", changes=files, ledger=change), "by hand")


def document(root: Path, *words: str, status: int = 0) -> Any:  # noqa: ANN401 - what the JSON says
    return json.loads(here(*words, "--json", "--root", root, status=status)[0])


def codes(root: Path, status: int = 0) -> list[tuple[str, str]]:
    found = document(root, "check", status=status)["findings"]
    # Remarks: nspawn sees no record, and the slice leaves nothing of alice's lines.
    told = {"USN077", "USN059"}
    return [(one["code"], one["message"]) for one in found if one["code"] not in told]


def test_list_and_show_name_what_passes(root: Path) -> None:
    shown, _ = here("list", "--root", root)
    assert "589824-655359, passes 104 as 107 (render)" in shown
    assert "(within alice)" in shown
    shown, _ = here("show", "web", "--root", root)
    assert "uid 1000 (account alice)" in shown
    assert "107 -> 104, passes through" in shown
    found = {one["name"]: one for one in document(root, "list")["allocations"]}
    assert (found["db"]["within"], found["db"]["lines"]) == ("alice", False)
    assert found["web"]["passes"][1] == {"kind": "gid", "container": 107, "host": 104, "count": 1}


def test_whois_of_a_small_id_finds_the_map_far_away(root: Path) -> None:
    shown, _ = here("whois", "104", "--root", root)
    assert "passes through to container web, container id 107" in shown
    [answer] = document(root, "whois", "104")["answers"]
    assert [one["kind"] for one in answer["gid"]] == ["pass", "group", "reserved"]
    [answer] = document(root, "whois", "589931")["answers"]
    assert [one["container_id"] for one in answer["gid"]] == [None]


def test_the_names_that_ids_had_are_remembered(root: Path) -> None:
    shown, _ = here("history", "--root", root)
    assert "+ web passes gid 104 as 107 (group render)" in shown
    assert "db is a slice of the lines of alice" in shown
    assert codes(root) == []

    # render gets another number, and another group has 104: also for a container with a new name.
    group(root, "lpadmin:x:104:", "render:x:105:")
    told = "shows the gid 104 as 107, which was the group render, and is the group lpadmin now"
    assert codes(root) == [("USN036", f"'web' {told}")]
    carry_out(root, LedgerChange(rename=(("web", "site"),)))
    assert ("USN036", f"'site' {told}") in codes(root)
    shown, _ = here("history", "--root", root)
    assert "renamed web to site" in shown

    group(root)
    gone = "'site' shows the gid 104, which was the group render, and no group has it"
    assert ("USN036", gone) in codes(root)


def test_a_line_that_is_lost_takes_a_slice_s_ids(root: Path) -> None:
    for name in ("subuid", "subgid"):
        path = root / "etc" / name
        path.write_bytes(path.read_bytes().replace(ALICES, b""))
    [(code, message)] = codes(root, status=1)
    assert (code, "subuid grants alice no 200000-265535" in message) == ("USN039", True)


def test_map_capacity_and_check_agree_that_nothing_clashes(root: Path) -> None:
    found = document(root, "map")
    assert found["conflicts"] == []
    passed = [one for one in found["segments"] if one["kind"] == "pass"]
    assert [(one["range"]["start"], one["uid"], one["gid"]) for one in passed] == [
        (104, False, True),
        (1000, True, False),
    ]
    # The range with its holes, and nothing of alice's line, which the pool does not have.
    assert document(root, "capacity")["used"] == 65536
    for words in (("--svg", "-"), ("--html", "-")):
        assert "url(#p-pass)" in here("map", *words, "--root", root)[0]
