"""The commands map and capacity on their own root."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.command import PROGRAM, files_of, ids, json_of, usernsplan

SVG = "{http://www.w3.org/2000/svg}"
ESCAPE = "\x1b"
# A hostile owner: markup, quotes, a bell, a terminal escape, right-to-left text.
HOSTILE = "</script><script>alert(1)</script>\"'&\x07\x1b[31m\u202egnp"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three containers, two users, and one user whose line overlaps a container's."""
    root = tmp_path / "host"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"
    )
    (root / "etc/group").write_text("root:x:0:\nalice:x:1000:\ntty:x:5:\n")
    for name in ("subuid", "subgid"):
        (root / "etc" / name).write_text("alice:100000:65536\nbob:165536:65536\n")
    usernsplan("allocate", "--strategy", "per-container", "web", "db", "cache", "--root", root)
    return root


def clash(root: Path) -> None:
    with open(root / "etc/subuid", "a") as file:
        file.write("mallory:665536:10\n")


def drawn(root: Path, *words: str | Path, env: dict[str, str] | None = None) -> str:
    return usernsplan("map", "--root", root, *words, env=env).stdout


def test_the_picture_of_a_terminal_shows_who_is_where(root: Path) -> None:
    shown = drawn(root, "--width", "80", env={"PYTHONIOENCODING": "utf-8"})
    assert max(map(len, shown.splitlines())) <= 80
    assert ESCAPE not in shown
    [bar] = [line for line in shown.splitlines() if "web" in line and "│" in line]
    # Three of equal size in four slots: the rest of the region is the room after them.
    assert re.fullmatch(r"    │█web█+▓db▓+█cache█+[▁-▇]?[─_]+│", bar)
    assert bar.index("db") - bar.index("web") == pytest.approx(74 / 4, abs=1)
    assert "589824-655359         web  allocation" in shown
    # One of the four slots is free.
    assert "589824-851967  3 allocations, 25 % free, room for 1 more here" in shown
    assert "conflict" not in shown
    assert "room for     9,144 more of 65,536 ids (per-container)" in shown


def test_a_conflict_is_marked_by_a_character_and_told(root: Path) -> None:
    clash(root)
    shown = drawn(root, "--width", "80")
    assert "1 conflict: different owners for the same ids" in shown
    assert "665536-665545 as uids: allocation 'db' and other line 'mallory'" in shown
    bars = {
        line[:4].strip(): line
        for line in shown.splitlines()
        if "web" in line and line[:4].strip() in {"uid", "gid"}
    }
    assert "!" in bars["uid"]
    assert "!" not in bars["gid"]


def test_without_utf_8_the_picture_is_ascii(root: Path) -> None:
    env = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    shown = drawn(root, "--width", "80", env=env)
    assert shown.isascii()
    assert "\\u" not in shown
    assert re.search(r"\|#web#+%db%+#cache#+", shown)


def half_empty(root: Path, containers: int) -> None:
    """Allocate, then release and forget every second one."""
    names = [f"c{n}" for n in range(containers)]
    usernsplan("allocate", "--strategy", "per-container", *names, "--root", root)
    usernsplan("release", *names[::2], "--root", root)
    usernsplan("release", "--forget", *names[::2], "--root", root)


@pytest.mark.parametrize(("encoding", "half"), [("utf-8", "▃▄▅"), ("ascii", ":+")])
def test_what_is_half_free_looks_half_free_in_a_terminal(
    tmp_path: Path, encoding: str, half: str
) -> None:
    half_empty(tmp_path, 600)
    shown = drawn(tmp_path, "--width", "80", env={"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"})
    # From the first remaining one, in the second slot, to the 600th: 300 of 600, then a free slot.
    [head] = [number for number, line in enumerate(shown.splitlines()) if "300 allocations" in line]
    assert (
        shown.splitlines()[head]
        == "655360-39976959  300 allocations, 50 % free, room for 300 more here"
    )
    bar = shown.splitlines()[head + 1].strip()[1:-1]
    assert len(bar) == 74
    assert sum(bar.count(mark) for mark in half) == 74


@pytest.mark.parametrize("containers", [100, 700, 1100, 3000])
def test_what_is_half_free_looks_half_free_in_a_picture(tmp_path: Path, containers: int) -> None:
    half_empty(tmp_path, containers)
    picture = ET.fromstring(drawn(tmp_path, "--svg", "-"))  # noqa: S314 - our own output
    region = [group for group in picture.iter(f"{SVG}g") if group.get("data-region")][-1]
    bars = [rect for rect in region.iter(f"{SVG}rect") if rect.get("fill") == "url(#p-allocation)"]
    painted = sum(float(bar.get("width", 0)) * float(bar.get("height", 0)) for bar in bars)
    # 1160 minus the margins is the width of the region; 32 is the height of a bar.
    assert painted / ((1160 - 34 - 8) * 32) == pytest.approx(0.5, abs=0.03)


def test_what_is_kept_back_is_seen_beside_what_is_given_out(tmp_path: Path) -> None:
    names = [f"c{n}" for n in range(3000)]
    usernsplan("allocate", "--strategy", "per-container", *names, "--root", tmp_path)
    usernsplan("release", *names[::2], "--root", tmp_path)
    picture = ET.fromstring(drawn(tmp_path, "--svg", "-"))  # noqa: S314 - our own output
    assert "1,500 allocations, 1,500 quarantined, under 1 % free, room for 1 more here" in [
        element.text for element in picture.iter(f"{SVG}tspan")
    ]
    region = [group for group in picture.iter(f"{SVG}g") if group.get("data-region")][-1]
    middle = 1160 / 2
    spans = {}
    for bar in region.iter(f"{SVG}rect"):
        left, top, wide, high = (float(bar.get(key, 0)) for key in ("x", "y", "width", "height"))
        if left <= middle < left + wide:
            spans[bar.get("fill")] = (top, top + high)
    kept, given = spans["url(#p-quarantine)"], spans["url(#p-allocation)"]
    assert kept[1] == pytest.approx(given[0], abs=3)
    assert given[1] - kept[0] == 32


def test_what_is_free_says_how_many_more_fit(root: Path, tmp_path: Path) -> None:
    usernsplan("release", "db", "--root", root)
    usernsplan("release", "--forget", "db", "--root", root)
    page = tmp_path / "ids.html"
    picture = ET.fromstring(drawn(root, "--svg", "-", "--html", page))  # noqa: S314 - our own output
    titles = [element.text or "" for element in picture.iter(f"{SVG}title")]
    assert "room for 1 more\n655360-720895 (65,536 ids)" in titles
    # 599510177 ids from 589824 on are 9147 whole slots.
    assert any(title.startswith("room for 9,144 more\n786432-600100000 ") for title in titles)
    assert "room for 1 more" in [element.text for element in picture.iter(f"{SVG}text")]
    assert (
        "<td>655360</td><td>720895</td><td>65536</td><td>uids and gids</td><td>free</td>"
        in page.read_text()
    )


def test_a_name_is_written_behind_what_lies_over_its_beginning(root: Path) -> None:
    with open(root / "etc/subuid", "a") as file:
        file.write("mallory:715536:15360\n")
    picture = ET.fromstring(drawn(root, "--svg", "-"))  # noqa: S314 - our own output
    names = {
        e.text: float(e.get("x", 0)) for e in reversed(list(picture.iter(f"{SVG}text"))) if e.text
    }
    # cache begins with 720896, and mallory's line ends with 730895: of 262144 ids from 589824 on.
    inner = 1160 - 34 - 8
    assert names["cache"] == pytest.approx(34 + 6 + inner * (730896 - 589824) / 262144, abs=1)
    assert names["web"] == pytest.approx(34 + 6, abs=1)


def test_shared_maps_and_areas_are_told_in_words_that_fit(tmp_path: Path) -> None:
    usernsplan("allocate", "--strategy", "shared", "web", "--root", tmp_path)
    titles = [
        e.text or ""
        for e in ET.fromstring(drawn(tmp_path, "--svg", "-")).iter(f"{SVG}title")  # noqa: S314
    ]
    assert any(title.startswith("the pool\n") for title in titles)
    assert not any(
        "conventions" in title or "shared maps" in title.replace("ranges of shared", "")
        for title in titles
    )


@pytest.mark.parametrize("width", ["1", "40", "61", "200", "1000"])
def test_any_width_will_do(root: Path, width: str) -> None:
    clash(root)
    lines = drawn(root, "--width", width, env={"PYTHONIOENCODING": "utf-8"}).splitlines()
    assert {len(line) for line in lines if line.endswith("│")} == {max(int(width), 40)}
    assert max(map(len, lines)) <= max(int(width), 40)
    # The owner of a range is legible at any width.
    assert any(re.match(r"  ! 665536-665545 +mallory", line) for line in lines)
    assert any("165536-231071         bob" in line for line in lines)


def test_columns_of_the_terminal_are_asked_for(root: Path) -> None:
    lines = drawn(root, env={"COLUMNS": "57", "PYTHONIOENCODING": "utf-8"}).splitlines()
    assert {len(line) for line in lines if line.endswith("│")} == {57}


def test_a_picture_is_whole_well_formed_and_the_same_each_time(root: Path, tmp_path: Path) -> None:
    clash(root)
    svg, html = tmp_path / "ids.svg", tmp_path / "ids.html"
    before = files_of(root)
    done = usernsplan("map", "--root", root, "--svg", svg, "--html", html)
    assert done.stdout == ""
    assert done.stderr.splitlines() == [f"note: wrote {svg}", f"note: wrote {html}"]
    assert files_of(root) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host", "ids.html", "ids.svg"]
    assert drawn(root, "--svg", "-") == svg.read_text()
    assert drawn(root, "--html", "-").strip() == html.read_text().strip()
    picture = ET.fromstring(svg.read_text())  # noqa: S314 - our own output
    titles = [element.text or "" for element in picture.iter(f"{SVG}title")]
    assert any(title.startswith("allocation web\n589824-655359 (65,536 ids)") for title in titles)
    assert any(
        "665536-665545 as uids: allocation 'db' and other line 'mallory'" in title
        for title in titles
    )
    assert not list(picture.iter(f"{SVG}script"))
    for text in (svg.read_text(), html.read_text()):
        assert {where[:1] for where in re.findall(r'(?i)(?:src|href)\s*=\s*"?(.)', text)} <= {"#"}
        assert {where[:1] for where in re.findall(r"(?i)url\((.)", text)} == {"#"}
        assert "@import" not in text


def test_hostile_names_are_text_everywhere(root: Path) -> None:
    with open(root / "etc/subuid", "a") as file:
        file.write(f"{HOSTILE}:665536:10\n")
    with open(root / "etc/passwd", "ab") as raw:
        raw.write(b"<b>\xff\x1b:x:655436:1000::/:/bin/sh\n")
    svg = drawn(root, "--svg", "-")
    html = drawn(root, "--html", "-")
    ET.fromstring(svg)  # noqa: S314 - our own output
    for text in (svg, html, drawn(root, "--width", "80")):
        assert not set(text) & {ESCAPE, "\x07", "\u202e", "\udcff"}
    for text in (svg, html):
        assert "alert(1)</script>" not in text
        assert "&lt;script&gt;alert(1)" in text
        assert "<b>" not in text
    assert html.count("<script>") == 1 == html.count("</script>")
    [owner] = [
        s["label"]
        for s in json_of("map", "--root", root)["segments"]
        if s["range"]["start"] == 665536
    ]
    assert owner == HOSTILE


def test_the_document_has_exact_numbers(root: Path) -> None:
    clash(root)
    document = json_of("map", "--root", root)
    assert document["kind"] == "map"
    segments = document["segments"]
    [db] = [s for s in segments if s["label"] == "db"]
    assert (db["range"], db["kind"], db["uid"], db["gid"]) == (
        ids(655360, 65536),
        "allocation",
        True,
        True,
    )
    assert db["owners"] == ["usernsplan-db"]
    assert db["conflict"] is True
    [conflict] = document["conflicts"]
    assert [segments[n]["label"] for n in conflict["segments"]] == ["db", "mallory"]
    assert (conflict["range"], conflict["uid"], conflict["gid"]) == (
        ids(665536, 10),
        True,
        False,
    )
    assert [s["label"] for s in segments if s["conflict"]] == ["db", "mallory"]


def test_a_document_and_a_picture_at_once_but_one_standard_output(
    root: Path, tmp_path: Path
) -> None:
    json_of("map", "--root", root, "--svg", tmp_path / "a.svg")
    assert (tmp_path / "a.svg").exists()
    for words in (
        ("--svg", "-", "--html", "-"),
        ("--svg", "-", "--json"),
        ("--html", "-", "--json"),
    ):
        assert "standard output" in usernsplan("map", "--root", root, *words, status=2).stderr


def test_a_file_is_replaced_whole_and_keeps_its_mode(root: Path, tmp_path: Path) -> None:
    target, link = tmp_path / "ids.svg", tmp_path / "link.svg"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    usernsplan("map", "--root", root, "--svg", link)
    assert link.is_symlink()
    assert target.read_text().startswith("<svg")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    usernsplan("map", "--root", root, "--svg", "/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_file_takes_one_result_and_its_name_is_shown_safely(root: Path, tmp_path: Path) -> None:
    one = tmp_path / "ids"
    done = usernsplan(
        "map", "--root", root, "--svg", one, "--html", tmp_path / "." / "ids", status=2
    )
    assert "name the same file" in done.stderr
    assert not one.exists()
    odd = tmp_path / "x\x1b[31m.svg"
    assert ESCAPE not in usernsplan("map", "--root", root, "--svg", odd).stderr
    assert odd.exists()


def test_a_closed_standard_output_is_no_traceback(root: Path) -> None:
    words = [*PROGRAM, "map", "--root", str(root)]
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *words], stderr=subprocess.PIPE, text=True, check=False
    )
    assert "Traceback" not in done.stderr


def test_what_the_system_refuses_is_said(root: Path, tmp_path: Path) -> None:
    assert "is a directory" in usernsplan("map", "--root", root, "--svg", tmp_path, status=1).stderr
    assert (
        "no such file"
        in usernsplan("map", "--root", root, "--svg", tmp_path / "no/x.svg", status=1).stderr
    )
    assert (
        "no space left" in usernsplan("map", "--root", root, "--html", "/dev/full", status=1).stderr
    )
    assert (
        "/proc/1/x.svg: "
        in usernsplan("map", "--root", root, "--svg", "/proc/1/x.svg", status=1).stderr
    )


def test_an_empty_host_has_a_picture_too(tmp_path: Path) -> None:
    shown = drawn(tmp_path, "--width", "60")
    assert "room for     9,147 more of 65,536 ids (per-container)" in shown
    assert "gives new users no subordinate ids on this host" in shown
    ET.fromstring(drawn(tmp_path, "--svg", "-"))  # noqa: S314 - our own output


def test_thousands_are_counted_not_listed(tmp_path: Path) -> None:
    root = tmp_path / "host"
    usernsplan(
        "allocate", "--strategy", "per-container", *(f"c{n}" for n in range(3000)), "--root", root
    )
    shown = drawn(root, "--width", "80", env={"PYTHONIOENCODING": "utf-8"})
    assert len(shown.splitlines()) < 50
    assert "… 2,988 more, 1376256-…" in shown
    usernsplan("map", "--root", root, "--svg", tmp_path / "a.svg", "--html", tmp_path / "a.html")
    assert (tmp_path / "a.html").stat().st_size < 2_000_000
    assert (tmp_path / "a.svg").stat().st_size < 1_000_000
    assert (tmp_path / "a.html").read_text().count('<tr data-k="allocation"') == 3000


def test_capacity_counts_what_is_left(root: Path) -> None:
    usernsplan("release", "db", "--root", root)
    shown = usernsplan("capacity", "--root", root).stdout
    # 599510177 ids from 589824 to 600100000: 9147 whole slots; three are taken or quarantined.
    assert "used         196,608 ids, under 0.1 %" in shown
    assert "free         599,313,569 ids" in shown
    assert "room for     9,144 more of 65,536 ids (per-container)" in shown
    assert "quarantined  65,536 ids; 'release --forget' makes room for 1 more" in shown
    document = json_of("capacity", "--root", root)
    assert (document["kind"], document["more"], document["more_after_forget"]) == (
        "capacity",
        9144,
        9145,
    )
    assert document["pool"] == ids(589824, 599510177)
    assert document["gaps"] == [ids(786432, 599313569)]
    # useradd sees no quarantine: 5 from 231072 to 589823, 1 at 655360, 9144 from 786432 to 600100000.
    assert document["useradd"]["more_users"] == 5 + 1 + 9144


@pytest.mark.parametrize(
    ("words", "more"),
    [
        # every second slot from 786432 on; 65537 ids also fit into the last slot and the room after it
        (("--size", "65537"), 4572),
        (("--size", "1", "--pool", "786432-917503"), 2),
        (("--size", "599313570"), 0),
        (("--pool", "589824-786431"), 0),
    ],
)
def test_capacity_of_another_size_or_pool(root: Path, words: tuple[str, ...], more: int) -> None:
    assert json_of("capacity", "--root", root, *words)["more"] == more


def test_capacity_of_a_host_of_blocks_is_in_its_blocks(tmp_path: Path) -> None:
    usernsplan("allocate", "--strategy", "single-uid", "app", "--block", "1000", "--root", tmp_path)
    document = json_of("capacity", "--root", tmp_path)
    assert (document["strategy"], document["size"], document["more"]) == (
        "single-uid",
        1000,
        999_999,
    )
    assert document["pool"] == ids(1_000_000_000, 1_000_000_000)


@pytest.mark.parametrize("words", [(), ("--identity",)])
def test_capacity_of_a_host_that_shares_promises_no_ranges(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    usernsplan("allocate", "--strategy", "shared", "web", *words, "--root", tmp_path)
    refused = usernsplan(
        "allocate", "--strategy", "per-container", "db", "--root", tmp_path, status=9
    )
    assert "a host has only one strategy" in refused.stderr
    shown = usernsplan("capacity", "--root", tmp_path).stdout
    assert (
        "room for     any number of names, because they share the same ids; after their release "
        in shown
    )
    document = json_of("capacity", "--root", tmp_path)
    assert document["shared"] is True
    usernsplan("release", "web", "--root", tmp_path)
    after = json_of("capacity", "--root", tmp_path)
    assert (after["shared"], after["more"]) == (False, 9147)


def test_one_id_is_one_id(root: Path) -> None:
    (root / "etc/subuid").write_text("eve:786436:1\n")
    shown = usernsplan("capacity", "--pool", "786436-786445", "--root", root).stdout
    assert "used         1 id, 10.0 %" in shown


def test_what_useradd_has_left_are_subordinate_ids(root: Path) -> None:
    shown = usernsplan("capacity", "--root", root).stdout
    assert re.search(
        r"useradd +has subordinate ids for [0-9,]+ more users, then subordinate uids and gids run out",
        shown,
    )
    (root / "etc/login.defs").write_text("SUB_UID_MIN 100000\nSUB_UID_MAX 231071\n")
    shown = usernsplan("capacity", "--pool", "589824-786431", "--root", root).stdout
    assert "has no subordinate uids left: it fails for the next user" in shown


@pytest.mark.parametrize(
    "words", [("--size", "0"), ("--size", "-5"), ("--size", "4294967296"), ("--pool", "x")]
)
def test_capacity_of_what_cannot_be_is_wrong_usage(root: Path, words: tuple[str, ...]) -> None:
    usernsplan("capacity", "--root", root, *words, status=2)


def test_a_login_defs_without_a_pool_is_an_error_of_capacity_and_a_note_of_map(root: Path) -> None:
    (root / "etc/login.defs").write_text("SUB_UID_MIN 9\nSUB_UID_MAX 8\n")
    assert "SUB_UID_MIN 9 is above" in usernsplan("capacity", "--root", root, status=1).stderr
    assert "pool         none:" in drawn(root, "--width", "80")
    assert json_of("map", "--root", root)["capacity"] is None
    assert (
        json.loads(
            usernsplan("capacity", "--root", root, "--pool", "589824-786431", "--json").stdout
        )["more"]
        == 0
    )
