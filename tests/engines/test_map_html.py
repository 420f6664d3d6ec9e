"""The page of ``map --html`` in a real browser: what is seen, what the script does, and that nothing is fetched."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.command import slow, usernsplan
from tests.engines import browser as chromium
from usernsplan.report.map_svg import CONFLICT, CONFLICT_DARK, FILLS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.engines.browser import Browser

# Real engines and browsers take their time; what they are given is tested without them.
pytestmark = pytest.mark.slow


HOSTILE = "</script><img src=x onerror=alert(1)>\"'&\u202egnp"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = chromium.start(tmp_path_factory.mktemp("browser") / "profile")
    yield found
    found.close()


def host(folder: Path, *, containers: int, clash: bool) -> Path:
    """A page of a host with so many containers, and one whose line lies over the second."""
    root, page = folder / "host", folder / "ids.html"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"
    )
    (root / "etc/group").write_text("root:x:0:\nalice:x:1000:\ntty:x:5:\n")
    (root / "etc/subuid").write_text("alice:100000:65536\n")
    (root / "etc/subgid").write_text("alice:100000:65536\n")
    names = [f"web{n}" for n in range(containers)]
    usernsplan("allocate", "--strategy", "per-container", *names, "--root", root)
    with open(root / "etc/subuid", "a") as file:
        file.write("mallory:665536:20000\n" * clash)
    usernsplan("map", "--html", page, "--root", root)
    return page


def picture(page: Browser, kind: str) -> dict[bytes, int]:
    """The colours of the picture in the page, the wide or the narrow one."""
    script = f"(() => {{ const it = document.querySelector('svg.{kind}').getBoundingClientRect();"
    left, top, width, height = page.value(
        f"{script} return [it.x, it.y + scrollY, it.width, it.height]; }})()"
    )
    return chromium.colours(page.screenshot(left, top, width, height))


def rgb(colour: str) -> bytes:
    return bytes.fromhex(colour[1:])


def shown(page: Browser) -> tuple[int, int]:
    """The first and the last id of the closer look."""
    found = re.match(
        r"(\d+)-(\d+)",
        page.value("document.querySelector('#view text.head').firstChild.textContent"),
    )
    assert found
    return int(found[1]), int(found[2])


def place(page: Browser, selector: str) -> tuple[float, float]:
    """The middle of an element, scrolled into sight."""
    one = f"document.querySelector({json.dumps(selector)})"
    page.value(f"{one}.scrollIntoView({{block: 'center'}})")
    script = f"(() => {{ const box = {one}.getBoundingClientRect();"
    x, y = page.value(f"{script} return [box.x + box.width / 2, box.y + box.height / 2]; }})()")
    page.settle()
    return x, y


def click(page: Browser, selector: str) -> None:
    x, y = place(page, selector)
    for kind in ("mousePressed", "mouseReleased"):
        page.mouse(kind, x, y, button="left", clickCount=1)


@pytest.mark.parametrize(
    ("containers", "width", "scheme"),
    [
        *((3, 1280, "light"), (300, 400, "dark")),
        *slow(
            (3, 1280, "dark"),
            (3, 400, "light"),
            (3, 400, "dark"),
            (300, 1280, "light"),
            (300, 1280, "dark"),
        ),
        *slow((300, 400, "light")),
    ],
)
def test_it_is_drawn_and_conflicts_are_seen_in_red(
    browser: Browser, tmp_path: Path, containers: int, width: int, scheme: str
) -> None:
    red = rgb(CONFLICT if scheme == "light" else CONFLICT_DARK)
    seen = {}
    for clash in (False, True):
        browser.size(width, 900, scheme)
        browser.open(host(tmp_path / str(clash), containers=containers, clash=clash))
        assert browser.complaints() == []
        # Nothing runs over the edge of the window.
        assert browser.value("document.documentElement.scrollWidth") <= width
        seen[clash] = picture(browser, "wide" if width > 760 else "narrow")
    assert len(seen[True]) > 20
    assert seen[True].get(red, 0) > 30
    assert red not in seen[False]
    # The background is the reader's: white, or nearly black.
    ground = max(seen[True], key=lambda colour: seen[True][colour])
    assert (min(ground) > 240) if scheme == "light" else (max(ground) < 50)


def test_labels_do_not_lie_over_each_other(browser: Browser, tmp_path: Path) -> None:
    page = host(tmp_path, containers=12, clash=True)
    script = """(() => {
      const texts = Array.from(document.querySelectorAll("svg.ids text:not(.bang)"));
      const boxes = texts.map((one) => one.getBoundingClientRect()).filter((box) => box.width);
      const bad = [];
      boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b) => {
        const beside = a.left >= b.right - 1 || b.left >= a.right - 1;
        if (!beside && a.top < b.bottom - 3 && b.top < a.bottom - 3) bad.push([a, b]);
      }));
      const edge = document.documentElement.clientWidth;
      return [boxes.length, bad.length, boxes.filter((box) => box.right > edge + 1 || box.left < -1).length];
    })()"""
    for width in (1280, 760, 400):
        browser.size(width, 1000)
        browser.open(page)
        labels, over, cut = browser.value(script)
        assert labels > 20
        assert (over, cut) == (0, 0), width


@pytest.mark.parametrize("width", [1280, *slow(400)])
def test_what_is_half_free_looks_half_free(browser: Browser, tmp_path: Path, width: int) -> None:
    root, page = tmp_path / "host", tmp_path / "ids.html"
    names = [f"web{n}" for n in range(3000)]
    for words in (("allocate", "--strategy", "per-container", *names), ("release", *names[::2])):
        usernsplan(*words, "--root", root)
    usernsplan("release", "--forget", *names[::2], "--root", root)
    usernsplan("map", "--html", page, "--root", root)
    browser.size(width, 900)
    browser.open(page)
    wide = "wide" if width > 760 else "narrow"
    for selector in (f"svg.{wide} [data-region]:last-of-type", "#view svg"):
        script = f"(() => {{ const all = document.querySelectorAll('{selector} rect.frame'); const it = all[all.length - 1]"
        # A busy browser may not have drawn it yet, and may still move it.
        for _ in range(50):
            left, top, wide_, height = browser.value(
                f"{script}.getBoundingClientRect(); return [it.x, it.y + scrollY, it.width, it.height]; }})()"
            )
            # A frame of 42 has a bar of 32, and below it the areas.
            seen = chromium.colours(browser.screenshot(left, top, wide_, height * 32 / 42))
            share = seen.get(rgb(FILLS["allocation"]), 0) / sum(seen.values())
            if share == pytest.approx(0.5, abs=0.07):
                break
            time.sleep(0.2)
        assert share == pytest.approx(0.5, abs=0.07)
    assert "50 % free" in browser.value("document.querySelector('#view text.head').textContent")


def test_a_gap_says_how_many_more_fit(browser: Browser, tmp_path: Path) -> None:
    browser.size(1280, 900)
    browser.open(host(tmp_path, containers=3, clash=False))
    browser.mouse("mouseMoved", *place(browser, "#view g.s [fill='transparent']"))
    told = browser.value("document.getElementById('detail').textContent")
    assert told.startswith("room for 9,144 more\n786432-600100000: ")


def test_the_picture_alone_fits_a_narrow_window(browser: Browser, tmp_path: Path) -> None:
    host(tmp_path, containers=3, clash=True)
    usernsplan("map", "--svg", tmp_path / "ids.svg", "--root", tmp_path / "host")
    browser.size(700, 900)
    browser.open(tmp_path / "ids.svg")
    assert browser.value("document.documentElement.getBoundingClientRect().width") <= 700


def test_nothing_is_fetched_and_nothing_else_could_run(browser: Browser, tmp_path: Path) -> None:
    page = host(tmp_path, containers=3, clash=True)
    with open(tmp_path / "host/etc/subuid", "a") as file:
        file.write(f"{HOSTILE}:765536:65536\n")
    usernsplan("map", "--html", page, "--root", tmp_path / "host")
    browser.open(page)
    assert browser.requests() == [page.as_uri()]
    assert browser.complaints() == []
    assert browser.value("document.querySelectorAll('script').length") == 1
    assert browser.value("document.querySelectorAll('img').length") == 0
    names = browser.value(
        "Array.from(document.querySelectorAll('#all tbody th'), one => one.textContent)"
    )
    assert repr(HOSTILE) in names
    # A script that somebody had brought in would not run, and could not send anything anywhere.
    browser.value(
        "(() => { const one = document.createElement('script'); one.textContent = 'window.bad = 1';"
        "document.body.append(one); fetch('https://example.org/').catch(() => 0); })()"
    )
    browser.settle()
    assert browser.value("window.bad") is None
    assert any("Content Security Policy" in words for words in browser.complaints())
    assert browser.requests() == [page.as_uri()]


def test_details_are_there_for_pointer_and_key(browser: Browser, tmp_path: Path) -> None:
    browser.size(1280, 900)
    browser.open(host(tmp_path, containers=3, clash=True))
    hidden = "document.getElementById('detail').hidden"
    told = "document.getElementById('detail').textContent"
    assert browser.value(hidden) is True
    browser.mouse("mouseMoved", *place(browser, "#view g.s [fill='url(#p-allocation)']"))
    assert browser.value(hidden) is False
    assert browser.value(told).startswith("allocation web0\n589824-655359: 65536 uids and gids\n")
    assert "owner usernsplan-web0" in browser.value(told)
    browser.key("Escape", 27)
    assert browser.value(hidden) is True
    # The picture of the whole says it as well, and by the Tab key alone.
    browser.value("document.querySelector('header a').focus()")
    found = []
    for _ in range(40):
        browser.key("Tab", 9)
        found.append(browser.value("document.hidden ? '' : " + told))
    assert any(
        "665536-685535 as uids: allocation 'web1' and other line 'mallory'" in words
        for words in found
    )
    assert browser.complaints() == []


def test_zooming_and_moving(browser: Browser, tmp_path: Path) -> None:
    browser.size(1280, 900)
    browser.open(host(tmp_path, containers=3000, clash=False))
    low, high = shown(browser)
    # Begins where the containers are; 3000 from 589824 on end at 197132287.
    assert low == 589824
    assert high >= 197132287
    x, y = place(browser, "#view")
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-100)
    nearer = shown(browser)
    assert low < nearer[0] < nearer[1] < high
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=100)
    assert shown(browser) == pytest.approx((low, high), abs=1000)
    for name, moved in (("in", 2), ("out", 1)):
        click(browser, f"#{name}")
        first, last = shown(browser)
        assert (last - first) * moved == pytest.approx(high - low, rel=0.01)
    # Dragging to the left by a part of the width moves on by as much.
    before = shown(browser)
    x, y = place(browser, "#view")
    browser.mouse("mousePressed", x, y, button="left", clickCount=1)
    browser.mouse("mouseMoved", x - 200, y, button="left")
    browser.mouse("mouseReleased", x - 200, y, button="left", clickCount=1)
    after = shown(browser)
    width = browser.value("document.getElementById('view').clientWidth") - 42
    assert after[0] - before[0] == pytest.approx(200 / width * (before[1] - before[0]), rel=0.02)
    assert after[1] - after[0] == before[1] - before[0]
    browser.value("document.getElementById('view').focus()")
    for name, code in (("ArrowLeft", 37), ("ArrowRight", 39), ("+", 187)):
        was = shown(browser)
        browser.key(name, code)
        assert shown(browser) != was
    # From far off many are one bar; close by, each is its own, with its name.
    browser.value(
        "(() => { const all = document.getElementById('where'); all.value = '0-4294967295';"
        "all.dispatchEvent(new Event('change')); })()"
    )
    browser.settle()
    assert shown(browser) == (0, 4294967294)
    bars = "document.querySelectorAll('#view g.s [fill=\"url(#p-allocation)\"]').length"
    assert browser.value(bars) < 100
    # The last of them: over the first lie the host's own ids, which are as narrow.
    browser.value(
        "Array.from(document.querySelectorAll('#view g.s [fill=\"url(#p-allocation)\"]')).pop().id = 'last'"
    )
    click(browser, "#last")
    assert 20 < browser.value(bars) < 400
    for _ in range(12):
        browser.value("document.getElementById('in').click()")
        browser.settle()
    assert browser.value(bars) >= 1
    assert browser.value(
        "document.querySelector('#view text.k-allocation').textContent"
    ).startswith("web")
    assert browser.complaints() == []


def test_without_scripts_the_picture_and_the_table_are_there(
    browser: Browser, tmp_path: Path
) -> None:
    page = host(tmp_path, containers=3, clash=True)
    browser.size(1280, 900)
    browser.scripts(on=False)
    try:
        browser.open(page)
        found = chromium.colours(browser.screenshot(0, 0, 1280, 1000))
    finally:
        browser.scripts(on=True)
    assert found.get(rgb(CONFLICT), 0) > 30
    text = page.read_text()
    assert 'id="zoom" aria-labelledby="h-zoom" hidden' in text
    assert "<title>allocation web0\n589824-655359 (65,536 ids)" in text


def test_it_can_be_read_without_seeing_it(browser: Browser, tmp_path: Path) -> None:
    browser.open(host(tmp_path, containers=3, clash=True))
    assert browser.value("document.documentElement.lang") == "en"
    assert browser.value("document.title").startswith("Ids of ")
    assert browser.value("document.querySelectorAll('h1').length") == 1
    assert browser.value("document.querySelector('table caption').textContent")
    heads = browser.value(
        "Array.from(document.querySelectorAll('thead th'), one => one.scope + ' ' + one.textContent)"
    )
    assert heads == [
        f"col {name}" for name in ("First", "Last", "Ids", "As", "Kind", "Name", "Details")
    ]
    rows = browser.value("document.querySelectorAll('tbody tr').length")
    assert rows == browser.value("document.querySelectorAll('tbody th[scope=row]').length") > 10
    # Every id is there once, and what is pointed to exists; every control and every place of the Tab key has a name.
    assert browser.value(
        "(() => { const ids = Array.from(document.querySelectorAll('[id]'), one => one.id);"
        "return ids.length === new Set(ids).size })()"
    )
    assert browser.value(
        "Array.from(document.querySelectorAll('[aria-labelledby]')).every(one => "
        "document.getElementById(one.getAttribute('aria-labelledby')))"
    )
    tree = browser.send("Accessibility.getFullAXTree")["nodes"]
    told = {
        (n["role"]["value"], n.get("name", {}).get("value", ""))
        for n in tree
        if not n.get("ignored") and "role" in n
    }
    assert ("button", "Zoom in") in told
    assert ("rowheader", "web0") in told
    assert any(role == "image" and name.startswith("allocation web0") for role, name in told)
    nameless = {
        role
        for role, name in told
        if role in {"button", "combobox", "image", "link", "region"} and not name
    }
    assert nameless == set()
