"""Blocking work in a thread for an event loop: progress, errors, cancellation, early ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from jobsvc.client.download.in_thread import iterate_in_thread, run_in_thread
from jobsvc.client.download.options import DownloadOptions
from jobsvc.client.errors import Stopped
from jobsvc.client.models import Progress

PROGRESS = Progress("job-1", "film.mp4", 1, 2, 0, 1)


def wait_for_stop(options: DownloadOptions) -> None:
    """Work until it is stopped, as a download does."""
    assert options.stop is not None
    assert options.stop.wait(20)
    raise Stopped


def report(options: DownloadOptions) -> None:
    assert options.progress is not None
    options.progress(PROGRESS)


def nothing() -> None:
    """Do nothing on a stop."""


class Work:
    """Work that waits until it is stopped; the test knows when it runs."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.is_running = False
        self._loop = asyncio.get_running_loop()

    def __call__(self, options: DownloadOptions) -> None:
        self.is_running = True
        self._loop.call_soon_threadsafe(self.started.set)
        try:
            wait_for_stop(options)
        finally:
            self.is_running = False


async def test_result_and_options_are_passed_on() -> None:
    assert await run_in_thread(lambda options: options.parallel, DownloadOptions(parallel=7), nothing) == 7


async def test_error_of_the_work_is_raised() -> None:
    def fail(options: DownloadOptions) -> None:
        raise LookupError(options.exists)

    with pytest.raises(LookupError, match="error"):
        await run_in_thread(fail, DownloadOptions(), nothing)


async def test_progress_is_called_on_the_event_loop_before_the_end() -> None:
    calls: list[tuple[Progress, threading.Thread]] = []

    def on_progress(progress: Progress) -> None:
        calls.append((progress, threading.current_thread()))

    def work(options: DownloadOptions) -> threading.Thread:
        report(options)
        return threading.current_thread()

    thread = await run_in_thread(work, DownloadOptions(progress=on_progress), nothing)
    assert calls == [(PROGRESS, threading.current_thread())]
    assert thread is not threading.current_thread()


async def test_no_progress_function_stays_none() -> None:
    assert await run_in_thread(lambda options: options.progress, DownloadOptions(), nothing) is None


async def test_error_of_progress_stops_the_work_and_is_raised() -> None:
    def fail(progress: Progress) -> None:
        raise LookupError(progress.name)

    def work(options: DownloadOptions) -> None:
        report(options)
        wait_for_stop(options)

    with pytest.raises(LookupError, match=r"film\.mp4"):
        await run_in_thread(work, DownloadOptions(progress=fail), nothing)


async def test_error_of_the_last_progress_is_raised_too() -> None:
    def fail(progress: Progress) -> None:
        raise LookupError(progress.name)

    with pytest.raises(LookupError):
        await run_in_thread(report, DownloadOptions(progress=fail), nothing)


async def test_cancellation_stops_the_work_and_waits_for_its_end() -> None:
    work = Work()
    task = asyncio.ensure_future(run_in_thread(work, DownloadOptions(), nothing))
    await work.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not work.is_running


async def test_second_cancellation_waits_too() -> None:
    release = threading.Event()
    work = Work()

    def slow(options: DownloadOptions) -> None:
        try:
            work(options)
        finally:
            work.is_running = True
            release.wait(20)
            work.is_running = False

    task = asyncio.ensure_future(run_in_thread(slow, DownloadOptions(), nothing))
    await work.started.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not work.is_running


class Items:
    """A generator that yields numbers, and then waits until it is stopped."""

    def __init__(self, count: int) -> None:
        self.is_closed = False
        """Whether it was closed, after it was told to stop."""
        self.closing_thread: threading.Thread | None = None
        self.waiting = asyncio.Event()
        self._count = count
        self._loop = asyncio.get_running_loop()

    def __call__(self, options: DownloadOptions) -> Iterator[int]:
        try:
            yield from range(self._count)
            self._loop.call_soon_threadsafe(self.waiting.set)
            wait_for_stop(options)
        finally:
            assert options.stop is not None
            self.is_closed = options.stop.is_set()
            self.closing_thread = threading.current_thread()


async def test_items_are_yielded_until_the_end() -> None:
    def count(options: DownloadOptions) -> Iterator[int | None]:
        yield from (1, None, 3)

    assert [item async for item in iterate_in_thread(count, DownloadOptions(), nothing)] == [1, None, 3]


async def test_breaking_off_ends_the_generator() -> None:
    items = Items(3)
    async with aclosing(iterate_in_thread(items, DownloadOptions(), nothing)) as found:
        assert await anext(found) == 0
        assert items.closing_thread is None
    assert items.is_closed
    assert items.closing_thread is not threading.current_thread()


async def test_cancelling_the_wait_for_an_item_ends_the_generator() -> None:
    items = Items(0)
    task = asyncio.ensure_future(anext(iterate_in_thread(items, DownloadOptions(), nothing)))
    await items.waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert items.is_closed


async def test_error_of_the_generator_is_raised() -> None:
    def fail(options: DownloadOptions) -> Iterator[int]:
        yield 1
        raise LookupError(options.exists)

    with pytest.raises(LookupError):
        [item async for item in iterate_in_thread(fail, DownloadOptions(), nothing)]


async def test_generator_that_was_never_started_has_no_thread() -> None:
    before = set(threading.enumerate())
    await iterate_in_thread(Items(1), DownloadOptions(), nothing).aclose()
    assert set(threading.enumerate()) <= before
