"""A real browser for tests: headless Chromium, driven over the pipe of its DevTools protocol.

Needs nothing but Chromium itself: https://chromedevtools.github.io/devtools-protocol/.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
# Chromium reads commands from descriptor 3 and writes to 4.
_LAUNCH = "import os, sys; os.dup2({0}, 3); os.dup2({1}, 4); os.execv(sys.argv[1], sys.argv[1:])"
_PATIENCE_S = 60.0


def find() -> str | None:
    """Return the browser of this machine, None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@dataclass(slots=True, eq=False)
class Browser:
    """One page in a browser of its own.

    Attributes
    ----------
    requests, complaints
        Addresses asked for, and what the page or its console complained of.
    """

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    _process: Any = None
    _profile: Any = None
    _write: int = -1
    _read: int = -1
    _session: str = ""
    _count: int = 0
    _rest: bytes = b""
    _events: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> Self:
        program = find()
        assert program is not None
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        inward, self._write = os.pipe()
        self._read, outward = os.pipe()
        launch = _LAUNCH.format(*_high(inward, outward))
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                launch,
                program,
                *FLAGS,
                f"--user-data-dir={self._profile.name}",
            ],
            pass_fds=_HIGH,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        for each in (inward, outward, *_HIGH):
            os.close(each)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._session = ""
        try:
            self.send("Browser.close")
        except (OSError, EOFError, TimeoutError):
            self._process.kill()
        self._process.wait(30)
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer.get("result", {})
            self._note(answer)

    def open(self, path: Path, *, width: int = 1280, height: int = 900) -> None:
        """Load a file and wait until its script is done."""
        self.size(width, height)
        self.send("Page.navigate", url=path.resolve().as_uri())
        self.until("document.body && document.body.dataset.ready === 'yes'")

    def size(self, width: int, height: int) -> None:
        """Set the size of the window, in pixels."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def run(self, script: str) -> Any:
        """Evaluate JavaScript and return its value."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until JavaScript evaluates to something true."""
        end = time.monotonic() + _PATIENCE_S
        while not self.run(condition):
            assert time.monotonic() < end, f"never true: {condition}; {self.complaints}"
            time.sleep(0.02)

    def middle(self, selector: str) -> tuple[float, float]:
        """Scroll an element into view and return where its middle is."""
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        return x, y

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Send an event of the mouse."""
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def hover(self, selector: str) -> None:
        """Move the mouse onto an element."""
        self.mouse("mouseMoved", *self.middle(selector))

    def click(self, selector: str) -> None:
        """Click an element with the mouse."""
        x, y = self.middle(selector)
        self.mouse("mouseMoved", x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1)

    def key(self, name: str) -> None:
        """Press a key."""
        text = {"Enter": "\r"}.get(name)
        code = {"Enter": 13, "Tab": 9, "ArrowRight": 39, "ArrowDown": 40, "Escape": 27}[name]
        about = {"key": name, "windowsVirtualKeyCode": code} | ({"text": text} if text else {})
        self.send("Input.dispatchKeyEvent", type="keyDown", **about)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=name, windowsVirtualKeyCode=code)

    def write(self, text: str) -> None:
        """Type into what has the focus."""
        self.send("Input.insertText", text=text)

    def choose(self, selector: str, value: str) -> None:
        """Choose an entry of a list, as its own events tell the page."""
        self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            f"e.value = {json.dumps(value)};"
            "for (const n of ['input', 'change'])"
            "e.dispatchEvent(new Event(n, {bubbles: true})); })()"
        )

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Save what the page looks like as a PNG."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, path: Path) -> None:
        """Print the page."""
        printed = self.send("Page.printToPDF", printBackground=True)
        path.write_bytes(base64.b64decode(printed["data"]))

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + _PATIENCE_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], end - time.monotonic())
            if not ready:
                raise TimeoutError("the browser does not answer")
            got = os.read(self._read, 1 << 20)
            if not got:
                raise EOFError("the browser is gone")
            self._rest += got
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        kind, about = event.get("method"), event.get("params", {})
        if kind == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif kind == "Runtime.exceptionThrown":
            self.complaints.append(str(about["exceptionDetails"]))
        elif kind == "Log.entryAdded" or (
            kind == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning")
        ):
            self.complaints.append(str(about))


_HIGH = (200, 201)
"""Descriptors away from 3 and 4, so that neither is overwritten before it is copied."""


def _high(inward: int, outward: int) -> tuple[int, int]:
    for source, target in zip((inward, outward), _HIGH, strict=True):
        os.dup2(source, target)
    return _HIGH
