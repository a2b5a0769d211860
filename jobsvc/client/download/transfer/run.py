"""Run a download with its threads, and report to the caller's thread."""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from functools import partial
from threading import Thread
from time import monotonic
from typing import Final

from jobsvc.client.download.options import DownloadOptions
from jobsvc.client.download.stopping import check
from jobsvc.client.download.transfer.batch import Batch
from jobsvc.client.download.transfer.file_transfer import Transfer
from jobsvc.client.download.transfer.verification import DigestFinder, find_digests, hash_files
from jobsvc.client.errors import DownloadError
from jobsvc.client.models import Downloaded, OnProgress, Progress

PROGRESS_INTERVAL_S: Final = 0.1
STOP_TIMEOUT_S: Final = 0.8
"""Time that the threads have to end; a thread that waits for a connection is left behind."""
_DISK_FULL: Final = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})


def run_batch(
    batch: Batch, finder: DigestFinder | None, options: DownloadOptions
) -> Generator[tuple[Transfer, Downloaded], None, None]:
    """Download; yield each file when it is done.

    Raises the first error of any file. Whatever ends it, also an exception in the caller's thread, leaves
    part files that the next download continues.
    """
    workers: list[Callable[[], object]] = [partial(_work, batch)] * options.parallel
    if batch.verify and finder is not None:
        workers += [partial(hash_files, batch), partial(find_digests, batch, finder)]
    threads = [Thread(target=_guard, args=(batch, work), daemon=True) for work in workers]
    try:
        for thread in threads:
            thread.start()
        yield from _results(batch, options)
    finally:
        _end(batch, threads)


def _results(batch: Batch, options: DownloadOptions) -> Iterator[tuple[Transfer, Downloaded]]:
    reporter = _Reporter(batch, options.progress)
    finished = False
    while not finished:
        with batch.lock:
            if not (batch.done or batch.error or batch.is_finished):
                batch.changed.wait(PROGRESS_INTERVAL_S)
            ready, batch.done = batch.done, []
            error, finished = batch.error, batch.is_finished
        reporter.report()
        yield from ready
        if error is not None:
            raise error
        if not finished:
            check(options.stop)
    reporter.report(done=True)


def report_skipped(results: Sequence[Downloaded], on_progress: OnProgress | None) -> None:
    """Report the end of a download of which all files were skipped."""
    if on_progress is not None and results:
        job_id, name = results[-1].job_id, results[-1].path.name
        on_progress(Progress(job_id, name, 0, 0, len(results), len(results), "done"))


class _Reporter:
    """Calls the caller's function at most ten times a second, and at the end."""

    def __init__(self, batch: Batch, on_progress: OnProgress | None) -> None:
        self._batch = batch
        self._on_progress = on_progress
        self._next_at = 0.0

    def report(self, *, done: bool = False) -> None:
        if self._on_progress is None or (monotonic() < self._next_at and not done):
            return
        self._next_at = monotonic() + PROGRESS_INTERVAL_S
        with self._batch.lock:
            progress = _progress_of(self._batch, done=done)
        if progress is not None:
            self._on_progress(progress)


def _progress_of(batch: Batch, *, done: bool) -> Progress | None:
    transfer = batch.latest or (batch.transfers[0] if batch.transfers else None)
    if transfer is None:
        return None
    phase = "done" if done else "receiving" if batch.is_receiving else "verifying"
    return Progress(
        transfer.source.job_id,
        transfer.source.name,
        batch.received_bytes,
        batch.total_bytes,
        batch.files_done,
        len(batch.transfers),
        phase,
    )


def _work(batch: Batch) -> None:
    while (work := batch.next_work()) is not None:
        work()


def _guard(batch: Batch, work: Callable[[], object]) -> None:
    """Run the function of a thread; any error ends the download."""
    try:
        work()
    except OSError as exc:
        batch.fail(_file_error(exc))
    except BaseException as exc:  # noqa: BLE001 - raised again in the caller's thread
        batch.fail(exc)


def _file_error(exc: OSError) -> DownloadError:
    what = f"{exc.filename}: " if exc.filename else ""
    if exc.errno in _DISK_FULL:
        error = DownloadError(f"{what}the disk is full. Free some space: the next download continues.")
    else:
        error = DownloadError(f"{what}{exc.strerror or exc}.")
    error.__cause__ = exc
    return error


def _end(batch: Batch, threads: Sequence[Thread]) -> None:
    batch.stop()
    ends = monotonic() + STOP_TIMEOUT_S
    for thread in threads:
        if thread.ident is not None:
            thread.join(max(0.0, ends - monotonic()))
    for transfer in batch.transfers:
        if transfer.part is not None:
            with suppress(OSError):  # the last record that was written is still right
                transfer.part.save()
            transfer.part.close()
