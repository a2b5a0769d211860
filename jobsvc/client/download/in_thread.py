"""Run blocking downloads for an event loop, each in a thread of its own.

Not in the loop's default executor: a `sync` that follows occupies its thread for days, and this executor,
which also resolves host names, can have as few as five threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event
from typing import Final, TypeVar, cast

from jobsvc.client.download.options import DownloadOptions
from jobsvc.client.models import OnProgress, Progress

T = TypeVar("T")
_END: Final = object()


async def run_in_thread(
    work: Callable[[DownloadOptions], T], options: DownloadOptions, on_stop: Callable[[], object]
) -> T:
    """Return what `work` returns; `progress` is called on the event loop.

    If the task is cancelled, the download is stopped, and has ended when CancelledError is raised. An
    exception of `progress` stops the download too, and is raised. `on_stop` is called after `options.stop`
    is set: it ends requests that wait for a response.
    """
    thread = _DownloadThread(options.progress, on_stop)
    try:
        return await thread.call(lambda: work(thread.adapt(options)))
    finally:
        thread.close()


async def iterate_in_thread(
    start: Callable[[DownloadOptions], Iterator[T]], options: DownloadOptions, on_stop: Callable[[], object]
) -> AsyncGenerator[T, None]:
    """Yield what the iterator yields; it runs only while the caller waits for its next item.

    As for `run_in_thread`. Closing the generator early stops the download, and waits until it has ended.
    `on_stop` is called at the end in any case.
    """
    thread = _DownloadThread(options.progress, on_stop)
    items = start(thread.adapt(options))
    try:
        while (item := await thread.call(lambda: next(items, _END))) is not _END:
            yield cast(T, item)
    finally:
        thread.stop()
        if isinstance(items, Generator):
            await thread.call(items.close)
        thread.close()


class _DownloadThread:
    """Runs one call after another in the same thread; belongs to the running loop."""

    def __init__(self, progress: OnProgress | None, on_stop: Callable[[], object]) -> None:
        self._stop_event = Event()
        self._on_stop = on_stop
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(1, "jobsvc-client")
        self._progress = progress
        self._progress_error: Exception | None = None

    def adapt(self, options: DownloadOptions) -> DownloadOptions:
        """Return the options for the thread."""
        progress = None if self._progress is None else self._report
        return options._replace(progress=progress, stop=self._stop_event)

    async def call(self, work: Callable[[], T]) -> T:
        """Run in the thread; if cancelled, stop and wait for the end."""
        future = asyncio.wrap_future(self._executor.submit(work))
        try:
            result = await asyncio.shield(future)
        except asyncio.CancelledError:
            self.stop()
            await _wait_done(future)
            raise
        except Exception:
            if self._progress_error is not None:
                raise self._progress_error from None
            raise
        if self._progress_error is not None:
            raise self._progress_error
        return result

    def stop(self) -> None:
        """Tell the work to end."""
        self._stop_event.set()
        self._on_stop()

    def close(self) -> None:
        """Let the thread end."""
        self._executor.shutdown(wait=False)

    def _report(self, progress: Progress) -> None:
        self._loop.call_soon_threadsafe(self._call_progress, progress)

    def _call_progress(self, progress: Progress) -> None:
        if self._progress is None or self._progress_error is not None:
            return
        try:
            self._progress(progress)
        except Exception as exc:  # noqa: BLE001 - raised by `call`
            self._progress_error = exc
            self.stop()


async def _wait_done(future: asyncio.Future[T]) -> None:
    """Wait even if the task is cancelled again: the caller may remove the target's directory next."""
    while not future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({future})
    future.exception()  # retrieved, so that asyncio does not log it
