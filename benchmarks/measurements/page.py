"""The web page in Chromium: first screen, scrolling, memory, bytes of a second visit, and a large log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from threading import Event, Thread
from typing import Final, NamedTuple

from playwright.sync_api import Browser, BrowserContext

from benchmarks.harness import browser, farm, host_info, servers, table
from benchmarks.harness.interleave import Plan
from benchmarks.harness.load_generator import answer, get, until
from benchmarks.harness.servers import Server

FIRST_SCREEN_JOBS: Final = 1_000
SCROLLED_JOBS: Final = 10_000
LOG_LINES: Final = 2_000_000
LINES_A_SECOND: Final = 1_000
WRITES_A_SECOND: Final = 50
LOG_JOB: Final = "long-log"

FIRST_SCREEN_GOAL_MS: Final = table.Goal(at_most=500)
SCROLL_GOAL: Final = table.Goal(at_least=55)
"""Frames a second; a screen has 60, and the clock of a busy machine misses some."""
FRAME_GOAL_MS: Final = table.Goal(at_most=16)
MEMORY_GOAL_MB: Final = table.Goal(at_most=150)
SIZE_GOAL_KB: Final = table.Goal(at_most=60)
SECOND_VISIT_GOAL_KB: Final = table.Goal(at_most=5)
LOG_GOAL_MS: Final = table.Goal(at_most=1000)
FOLLOW_GOAL: Final = table.Goal(at_least=30)

_MIX: Final = (("completed", 70.0), ("failed", 8.0), ("canceled", 2.0), ("rendering", 5.0), ("queued", 15.0))
_START: Final = datetime(2026, 11, 20, tzinfo=UTC)
_ROWS_SHOWN: Final = "document.querySelectorAll('[role=row] a, main tr a').length >= 25"
_TEXT_SHOWN: Final = "document.body?.innerText.includes({text!r})"
_SCROLLS: Final = {
    "by the wheel": "scrollBy(0, 70);",
    "by the scroll bar": "scrollTo(0, document.body.scrollHeight * Math.abs(Math.sin(elapsed / 3000)));",
}
"""What a frame of each kind of scrolling does: 70 pixels are 4,200 a second."""
_MB: Final = 1e6


def run(plan: Plan) -> None:
    """Measure and print."""
    table.title(f"page: Chromium on all cores; {host_info.describe_placement()}; {host_info.load_average()}")
    table.row("code and styles, without Preact and htm", [own_size() / 1000], " kB", SIZE_GOAL_KB)
    with browser.running() as chromium:
        _measure_first_screen(plan, chromium)
        _measure_scrolling(plan, chromium)
        _measure_log(plan, chromium)


def own_size() -> int:
    """Return the size of all files that browsers get, in bytes, without the vendored ones."""
    return sum(map(_size, files("jobsvc.web.page").iterdir()))


def _size(entry: Traversable) -> int:
    if entry.is_dir():
        return 0 if entry.name in {"vendor", "__pycache__"} else sum(map(_size, entry.iterdir()))
    return len(entry.read_bytes()) if entry.name.endswith((".js", ".css", ".html", ".svg")) else 0


@contextmanager
def _serving(plan: Plan, name: str, jobs: int) -> Iterator[tuple[Server, str, Path]]:
    """Serve so many jobs; yield the server, a token and the root."""
    with ExitStack() as stack:
        scratch = stack.enter_context(farm.scratch(f"page-{name}", plan.scratch))
        farm.fill(scratch / "jobs", jobs, mix=_MIX, vary=_created)
        token = servers.token(scratch, farm.OWNER)
        server = stack.enter_context(servers.jobsvc(scratch / "jobs", scratch, "--watch", "poll"))
        until(lambda: answer(server.address, get("/readyz"))[0] == 200, 120)
        yield server, token, scratch / "jobs"


def _created(number: int) -> dict[str, object]:
    created = _START + timedelta(seconds=number * 7919 % 700_000)
    return {"createdAt": created.isoformat().replace("+00:00", "Z")}


def _measure_first_screen(plan: Plan, chromium: Browser) -> None:
    first, second = [], []
    with _serving(plan, "first", FIRST_SCREEN_JOBS) as (server, token, _):
        for _ in range(plan.rounds):
            with browser.signed_in(chromium, server.address, token) as context:
                first.append(_visit(context))
                second.append(_visit(context))
    name = f"{FIRST_SCREEN_JOBS:,} jobs, first byte to first screen"
    for visits, which in ((first, ""), (second, ", second visit")):
        table.row(name + which, [visit.shown_ms for visit in visits], " ms", FIRST_SCREEN_GOAL_MS)
        table.row(f"{name}{which}: main thread", [visit.cpu_ms for visit in visits], " ms")
    table.row(
        "bytes of the page on a second visit",
        [visit.kilobytes for visit in second],
        " kB",
        SECOND_VISIT_GOAL_KB,
    )


class _Visit(NamedTuple):
    shown_ms: float
    cpu_ms: float
    kilobytes: float


def _visit(context: BrowserContext) -> _Visit:
    """Open the list in a new tab."""
    page = context.new_page()
    transfer, main_thread = browser.Transfer.of(page), browser.MainThread(page)
    shown = browser.open_until(page, "./", _ROWS_SHOWN)
    cpu = main_thread.take_ms()
    page.wait_for_load_state()
    page.close()
    return _Visit(shown.after_first_byte, cpu, transfer.total(of_api=False) / 1000)


def _measure_scrolling(plan: Plan, chromium: Browser) -> None:
    jobs = int(plan.pick(SCROLLED_JOBS, 2_000))
    frames: dict[str, list[browser.Frames]] = {name: [] for name in _SCROLLS}
    cpu: dict[str, list[float]] = {name: [] for name in _SCROLLS}
    memory, heaps = [], []
    before = browser.renderers_memory()
    with _serving(plan, "scroll", jobs) as (server, token, _):
        for _ in range(plan.rounds):
            with browser.signed_in(chromium, server.address, token) as context:
                page = context.new_page()
                browser.open_until(page, "./", _ROWS_SHOWN)
                page.wait_for_timeout(2000)
                main_thread = browser.MainThread(page)
                for name, step in _SCROLLS.items():
                    frames[name].append(browser.draw(page, plan.pick(5, 2), step))
                    cpu[name].append(main_thread.take_ms() / frames[name][-1].count)
                heaps.append(browser.heap(page) / _MB)
                memory.append((browser.renderers_memory() - before) / _MB)
    for name, drawn in frames.items():
        _frames_rows(f"{jobs:,} jobs, scrolled {name}", drawn, SCROLL_GOAL)
        table.row(f"{jobs:,} jobs, scrolled {name}: main thread a frame", cpu[name], " ms", FRAME_GOAL_MS)
    table.row(f"{jobs:,} jobs: JavaScript heap of the page", heaps, " MB")
    table.row(f"{jobs:,} jobs: memory of the page and its worker", memory, " MB", MEMORY_GOAL_MB)


def _frames_rows(name: str, drawn: list[browser.Frames], goal: table.Goal) -> None:
    table.row(f"{name}: frames a second", [frames.per_second for frames in drawn], "", goal)
    table.row(f"{name}: longest frame", [frames.longest_ms for frames in drawn], " ms")


def _measure_log(plan: Plan, chromium: Browser) -> None:
    lines = int(plan.pick(LOG_LINES, 100_000))
    opened, opened_cpu, frames, frame_cpu, delays = [], [], [], [], []
    with _serving(plan, "log", 0) as (server, token, root):
        log = farm.put(root, LOG_JOB, "rendering") / "render.log"
        _write_log(log, lines)
        until(lambda: answer(server.address, get(f"/api/jobs/{LOG_JOB}", token))[0] == 200, 60)
        for number in range(plan.rounds):
            with browser.signed_in(chromium, server.address, token) as context:
                page = context.new_page()
                main_thread = browser.MainThread(page)
                last = f"mark {number}"
                _append(log, last)
                shown = browser.open_until(page, f"?job={LOG_JOB}&view=log", _TEXT_SHOWN.format(text=last))
                opened.append(shown.after_request)
                opened_cpu.append(main_thread.take_ms())
                with _writing(log):
                    frames.append(browser.draw(page, plan.pick(5, 2)))
                frame_cpu.append(main_thread.take_ms() / frames[-1].count)
                started_at = time.perf_counter()
                _append(log, f"written {number}")
                browser.wait_until(page, _TEXT_SHOWN.format(text=f"written {number}"))
                delays.append((time.perf_counter() - started_at) * 1000)
    name = f"log of {lines:,} lines"
    table.row(f"{name}, request to the end on the screen", opened, " ms", LOG_GOAL_MS)
    table.row(f"{name}, request to the end: main thread", opened_cpu, " ms")
    followed = f"{name}, {LINES_A_SECOND:,} new a second"
    _frames_rows(followed, frames, FOLLOW_GOAL)
    table.row(f"{followed}: main thread a frame", frame_cpu, " ms", FRAME_GOAL_MS)
    table.row(f"{name}: until a new line is on the screen", delays, " ms")


def _line(number: int) -> str:
    return f"Fra:{number % 250} Mem:512.34M | \x1b[32mRendering\x1b[0m {number % 64} / 64, tile {number}\n"


def _write_log(path: Path, lines: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, lines, 10_000):
            file.write("".join(map(_line, range(start, min(start + 10_000, lines)))))


def _append(path: Path, *lines: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Append lines at a constant rate during the block."""
    stopped = Event()
    batch = LINES_A_SECOND // WRITES_A_SECOND

    def write() -> None:
        with path.open("a", encoding="utf-8", buffering=1 << 20) as file:
            number, due = 0, time.perf_counter()
            while not stopped.wait(max(due - time.perf_counter(), 0)):
                file.write("".join(map(_line, range(number, number + batch))))
                file.flush()
                number, due = number + batch, due + 1 / WRITES_A_SECOND

    writer = Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stopped.set()
        writer.join()
