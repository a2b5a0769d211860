"""Debian's Chromium, driven by Playwright on all cores; what its pages draw, transfer and keep in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, sync_playwright

from benchmarks.harness import host_info, process
from benchmarks.harness.load_generator import Address
from tests.programs import chromium

# Resolves with the times of all frames (ms) that were drawn while a step was called for each.
_FRAMES: Final = """(milliseconds) => new Promise((resolve) => {
  const step = (elapsed) => { %s };
  const times = [];
  requestAnimationFrame(function frame(now) {
    times.push(now);
    if (now - times[0] >= milliseconds) return resolve(times);
    step(now - times[0]);
    requestAnimationFrame(frame);
  });
})"""
# Resolves in the frame after the one in which a condition was true. Playwright's own waiting needs eval().
_UNTIL: Final = """() => new Promise((resolve, reject) => requestAnimationFrame(function frame(now) {
  if (%s) return requestAnimationFrame(() => resolve(performance.now()));
  if (now > 60_000) return reject(new Error("not shown within a minute of the start"));
  requestAnimationFrame(frame);
}))"""
_TIMING: Final = "performance.getEntriesByType('navigation')[0]"


@contextmanager
def running() -> Iterator[Browser]:
    """Run Chromium during a block."""
    program = chromium.find()
    if program is None:
        raise FileNotFoundError("chromium is not installed")
    with process.on_cores(host_info.all_cores()), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=chromium.FLAGS)
        yield browser
        browser.close()


@contextmanager
def signed_in(browser: Browser, address: Address, token: str) -> Iterator[BrowserContext]:
    """Create a profile with an empty cache and a session."""
    origin = f"http://{address[0]}:{address[1]}"
    size = {"width": 1440, "height": 900}
    with browser.new_context(base_url=f"{origin}/", viewport=size, locale="en-GB") as context:  # type: ignore[arg-type]
        fields = {"Authorization": f"Bearer {token}", "Origin": origin}
        assert context.request.post("ui/session", headers=fields).ok
        yield context


@dataclass(frozen=True, slots=True)
class Shown:
    """When a page showed something, in milliseconds after the document was requested and began to arrive."""

    after_first_byte: float
    after_request: float


def open_until(page: Page, url: str, condition: str) -> Shown:
    """Open a page and wait for the frame after the one in which a JavaScript condition is true."""
    page.add_init_script(f"globalThis.shown = ({_UNTIL % condition})()")
    page.goto(url)
    shown, started, requested = page.evaluate(
        f"shown.then((time) => [time, {_TIMING}.responseStart, {_TIMING}.requestStart])"
    )
    return Shown(shown - started, shown - requested)


def wait_until(page: Page, condition: str) -> None:
    """Wait for the frame after the one in which a JavaScript condition is true."""
    page.evaluate(_UNTIL % condition)


@dataclass(frozen=True, slots=True)
class Frames:
    """How smoothly a page was drawn."""

    count: int
    per_second: float
    longest_ms: float


def draw(page: Page, seconds: float, step: str = "") -> Frames:
    """Draw frames for some seconds. `step` is JavaScript for each of them, with `elapsed` in milliseconds."""
    times: list[float] = page.evaluate(_FRAMES % step, seconds * 1000)
    longest = max(after - before for before, after in pairwise(times))
    count = len(times) - 1
    return Frames(count, count * 1000 / (times[-1] - times[0]), longest)


@dataclass
class Transfer:
    """The bytes that a page received, heads included, by the path of the URL."""

    session: CDPSession
    by_path: dict[str, int] = field(default_factory=dict)
    _paths: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, page: Page) -> Transfer:
        """Count from now on."""
        transfer = cls(page.context.new_cdp_session(page))
        transfer.session.on("Network.requestWillBeSent", transfer._begin)
        transfer.session.on("Network.loadingFinished", transfer._finish)
        transfer.session.send("Network.enable")
        return transfer

    def total(self, *, of_api: bool) -> int:
        """Return the bytes of requests to the API, or of the page itself."""
        return sum(size for path, size in self.by_path.items() if path.startswith("/api/") == of_api)

    def _begin(self, event: dict[str, Any]) -> None:
        self._paths[event["requestId"]] = urlsplit(event["request"]["url"]).path

    def _finish(self, event: dict[str, Any]) -> None:
        path = self._paths.get(event["requestId"], "")
        self.by_path[path] = self.by_path.get(path, 0) + int(event["encodedDataLength"])


def renderers_memory() -> int:
    """Return the private memory of all renderer processes of this run's browser, in bytes."""
    return sum(_private(pid) for pid in _descendants(os.getpid()) if _is_renderer(pid))


def heap(page: Page) -> int:
    """Return the JavaScript heap of a page after a garbage collection, in bytes, without its workers."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    metrics = session.send("Performance.getMetrics")["metrics"]
    return int(next(metric["value"] for metric in metrics if metric["name"] == "JSHeapUsedSize"))


class MainThread:
    """CPU time of a page's main thread: scripts, styles, layout and painting, without other processes."""

    def __init__(self, page: Page) -> None:
        """Count from now on, or from the start of the next document."""
        self._session = page.context.new_cdp_session(page)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})
        self._before = self._total()

    def take_ms(self) -> float:
        """Return the milliseconds since the last call, or since the start of the document."""
        before, self._before = self._before, self._total()
        return (self._before - before) * 1000

    def _total(self) -> float:
        metrics = self._session.send("Performance.getMetrics")["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))


def _descendants(pid: int) -> Iterator[int]:
    for child in process.children(pid):
        yield child
        yield from _descendants(child)


def _is_renderer(pid: int) -> bool:
    return b"--type=renderer" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _private(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))
