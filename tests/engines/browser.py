"""Chromium as a test drives it: by the DevTools protocol over a pipe, without a display, a network or a library."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import struct
import subprocess
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.command import missing

if TYPE_CHECKING:
    from pathlib import Path

# Seconds; a page is drawn in a tenth of one.
PATIENCE = 60


@dataclass
class Browser:
    """One page. ``events`` is all that the browser told of it, in order."""

    process: subprocess.Popen[bytes]
    to: int
    back: int
    session: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    number: int = 0
    rest: bytes = b""
    scriptless: bool = False

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol, and wait for what it returns."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.back], [], [], PATIENCE)
            assert ready, "the browser does not answer"
            more = os.read(self.back, 1 << 20)
            assert more, "the browser ended"
            self.rest += more
        raw, _, self.rest = self.rest.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        return message

    def wait_for(self, method: str) -> None:
        """Wait until the browser has told of this since the page was asked for."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._next())

    def open(self, page: Path) -> None:
        """Load a page; what was told of an earlier one is forgotten."""
        self.events.clear()
        self.send("Page.navigate", url=page.resolve().as_uri())
        self.wait_for("Page.loadEventFired")
        if not self.scriptless:
            self.settle()

    def settle(self) -> None:
        """Wait until what the page draws in the next frame is drawn."""
        again = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        self.send("Runtime.evaluate", expression=again, awaitPromise=True)

    def value(self, script: str) -> Any:  # noqa: ANN401 - whatever it is
        """What an expression of JavaScript is in the page."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def scripts(self, *, on: bool) -> None:
        """Let pages run their scripts, or not."""
        self.send("Emulation.setScriptExecutionDisabled", value=not on)
        self.scriptless = not on

    def size(self, width: int, height: int, scheme: str = "light") -> None:
        """Give the window a size, and the reader a taste: light or dark."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self.settle()

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Move, press, release or turn the wheel of the mouse."""
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)
        self.settle()

    def key(self, name: str, code: int) -> None:
        """Press a key and let it go."""
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code
            )
        self.settle()

    def screenshot(self, left: float, top: float, width: float, height: float) -> bytes:
        """What is seen of a part of the page, as a PNG."""
        clip = {"x": left, "y": top, "width": width, "height": height, "scale": 1}
        picture = self.send(
            "Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True
        )
        return base64.b64decode(picture["data"])

    def complaints(self) -> list[str]:
        """Errors of scripts, and whatever the browser logged: a refused request, a breach of the page's own policy."""
        told = {"Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"}
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in told]

    def requests(self) -> list[str]:
        """The addresses that were asked for."""
        asked = (
            event for event in self.events if event.get("method") == "Network.requestWillBeSent"
        )
        return [event["params"]["request"]["url"] for event in asked]

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        os.close(self.to)
        os.close(self.back)


def start(folder: Path) -> Browser:
    """Start Chromium with a profile of its own in ``folder``."""
    program = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if program is None:
        missing("chromium")
    theirs, to = os.pipe()
    back, answers = os.pipe()
    # It reads descriptor 3 and writes descriptor 4.
    pipes = f'exec 3<&{theirs} 4>&{answers}; exec "$@"'
    words = (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--remote-debugging-pipe",
    )
    more = (f"--user-data-dir={folder}", "--host-resolver-rules=MAP * ~NOTFOUND", "about:blank")
    with open(folder.with_suffix(".log"), "wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", pipes, "bash", program, *words, *more],
            pass_fds=(theirs, answers),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    os.close(theirs)
    os.close(answers)
    browser = Browser(process, to, back)
    targets = browser.send("Target.getTargets")["targetInfos"]
    [page] = [target["targetId"] for target in targets if target["type"] == "page"]
    browser.session = browser.send("Target.attachToTarget", targetId=page, flatten=True)[
        "sessionId"
    ]
    for domain in ("Page", "Runtime", "Log", "Network"):
        browser.send(f"{domain}.enable")
    return browser


def pixels(png: bytes) -> tuple[int, list[bytes]]:
    """How many bytes a pixel of an 8-bit PNG has (3 or 4), and its rows: RFC 2083."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed, header = 8, b"", b""
    while at < len(png):
        [length] = struct.unpack(">I", png[at : at + 4])
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        header = data if kind == b"IHDR" else header
        packed += data if kind == b"IDAT" else b""
        at += length + 12
    width, height, depth, colour = struct.unpack(">IIBB", header[:10])
    assert depth == 8
    step = {2: 3, 6: 4}[colour]
    raw, size = zlib.decompress(packed), width * step
    rows, above = [], bytes(size)
    for row in range(height):
        start = row * (size + 1)
        above = _unfiltered(raw[start], raw[start + 1 : start + 1 + size], above, step)
        rows.append(above)
    return step, rows


def colours(png: bytes) -> dict[bytes, int]:
    """How many pixels there are of each colour (red, green, blue)."""
    step, rows = pixels(png)
    found: dict[bytes, int] = {}
    for row in rows:
        for at in range(0, len(row), step):
            found[row[at : at + 3]] = found.get(row[at : at + 3], 0) + 1
    return found


def _unfiltered(kind: int, line: bytes, above: bytes, step: int) -> bytes:
    if kind == 0:
        return line
    out = bytearray(line)
    for at in range(len(out)):
        left = out[at - step] if at >= step else 0
        up, corner = above[at], above[at - step] if at >= step else 0
        if kind == 1:
            more = left
        elif kind == 2:
            more = up
        elif kind == 3:
            more = (left + up) // 2
        else:
            guess = left + up - corner
            more = min(
                (abs(guess - left), 0, left),
                (abs(guess - up), 1, up),
                (abs(guess - corner), 2, corner),
            )[2]
        out[at] = (out[at] + more) & 255
    return bytes(out)
