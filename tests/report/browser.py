"""A headless Chromium, spoken to over pipes: no driver, no package, no port."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)
PATIENCE_S = 30.0


def find() -> str | None:
    """Return the browser on the path, if there is one."""
    found = (shutil.which(name) for name in NAMES)
    return next((one for one in found if one), None)


@dataclass
class Seen:
    """What a page was seen to do.

    Attributes:
        complaints: Errors and warnings of the console, and requests for other resources.
        overflowing: What is wider than the window, as tag and class.
        paper: Background colour of the page.
    """

    complaints: list[str]
    overflowing: list[str]
    paper: str


_OVERFLOW = """
(() => {
  const root = document.documentElement;
  if (root.scrollWidth <= root.clientWidth) return [];
  const isWide = one =>
    one.getBoundingClientRect().right > root.clientWidth + 0.5 && !one.closest('.table');
  const wide = [...document.querySelectorAll('body *')].filter(isWide);
  return ['page ' + root.scrollWidth + ' > ' + root.clientWidth,
    ...wide.slice(0, 5).map(one => one.tagName + '.' + one.getAttribute('class'))];
})()
"""


@dataclass
class Browser:
    """One browser with one window."""

    process: subprocess.Popen[bytes]
    to: int
    back: int
    rest: bytes = b""
    count: int = 0
    session: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol and wait for its answer."""
        self.count += 1
        asked = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            asked["sessionId"] = self.session
        os.write(self.to, json.dumps(asked).encode() + b"\0")
        end = time.monotonic() + PATIENCE_S
        while True:
            told = self.read(end)
            if told.get("id") == self.count:
                assert "error" not in told, told
                return told["result"]
            self.events.append(told)

    def read(self, end: float) -> dict[str, Any]:
        """Return the next thing that the browser says."""
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.back], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            read = os.read(self.back, 1 << 20)
            assert read, "the browser died"
            self.rest += read
        told, _, self.rest = self.rest.partition(b"\0")
        return json.loads(told)

    def until(self, method: str) -> None:
        """Wait for an event."""
        end = time.monotonic() + PATIENCE_S
        while not any(one.get("method") == method for one in self.events):
            self.events.append(self.read(end))

    def run(self, script: str) -> Any:
        """Run a script in the page."""
        return self.ask("Runtime.evaluate", expression=script, returnByValue=True)["result"][
            "value"
        ]

    def show(
        self, page: Path, width: int, height: int, scheme: str = "light", media: str = ""
    ) -> Seen:
        """Open a page at a size, in light or dark, and say what it did."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", media=media, features=features)
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.events.clear()
        self.ask("Page.navigate", url=page.as_uri())
        self.until("Page.loadEventFired")
        wide = self.run(_OVERFLOW)
        paper = self.run("getComputedStyle(document.body).backgroundColor")
        return Seen(self.complaints(page), wide, paper)

    def complaints(self, page: Path) -> list[str]:
        """What the console said, and what was asked for beside the page itself."""
        found = []
        for one in self.events:
            method, told = one.get("method"), one.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(f"exception: {told['exceptionDetails']['text']}")
            if method == "Runtime.consoleAPICalled":
                found.append(f"console: {[a.get('value') for a in told['args']]}")
            if method == "Log.entryAdded":
                found.append(f"log: {told['entry']['text']}")
            if method == "Network.requestWillBeSent":
                found += self.foreign(told["request"]["url"], page)
        return found

    @staticmethod
    def foreign(url: str, page: Path) -> list[str]:
        """A request for anything but the page itself, and what stands in it."""
        return [] if url.startswith("data:") or url == page.as_uri() else [f"asked for {url}"]

    def picture(self, to: Path, *, whole: bool = True) -> None:
        """Write what is seen to a PNG."""
        told = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        to.write_bytes(base64.b64decode(told["data"]))


_ON_3_AND_4 = """
import os, sys, fcntl
high = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3]]
os.dup2(high[0], 3)
os.dup2(high[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads commands on descriptor 3 and answers on 4."""


@contextmanager
def opened(profile: Path) -> Iterator[Browser]:
    """Start a browser with an empty profile, and end it."""
    found = find()
    assert found is not None
    read_end, to = os.pipe()
    back, write_end = os.pipe()

    command = [sys.executable, "-c", _ON_3_AND_4, str(read_end), str(write_end), found, *FLAGS]
    process = subprocess.Popen(
        [*command, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(read_end, write_end),
    )
    os.close(read_end)
    os.close(write_end)
    browser = Browser(process, to, back)
    try:
        window = browser.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.ask("Target.attachToTarget", targetId=window, flatten=True)
        browser.session = attached["sessionId"]
        for part in ("Page", "Runtime", "Log", "Network"):
            browser.ask(f"{part}.enable")
        yield browser
    finally:
        os.close(to)
        os.close(back)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait(10)
