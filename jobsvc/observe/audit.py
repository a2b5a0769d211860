"""The download log: every download as one JSON line in downloads.jsonl of the state folder.

A thread of its own writes. No request waits for it or fails by it: what a full disk or a full queue loses
is counted, and said once. Not logging's QueueListener and RotatingFileHandler: their stop waits for the disk
without end, at exit a second time, and their buffer glues a line to the half one before it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import structlog

from jobsvc.domain.job import format_time
from jobsvc.observe import lines
from jobsvc.observe.rotated import RotatedFile

FILE: Final = "downloads.jsonl"
FILE_CAP: Final = 64_000_000
"""Bytes of one file."""
FILES_KEPT: Final = 5
"""Old files beside the one that is written."""
QUEUE_CAP: Final = 10_000
"""Lines that may wait for the disk."""
CLOSE_DEADLINE: Final = 2.0
"""Seconds."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Outcome(StrEnum):
    """How a download ended."""

    COMPLETE = "complete"
    CLIENT_GONE = "client-gone"
    TRUNCATED = "truncated"
    STORAGE_ERROR = "storage-error"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class DownloadRecord:
    """One download that ended. Of a token only its id is ever known here."""

    when: float
    """Seconds since the epoch, of its begin."""
    request_id: str
    token_id: str
    owner: str
    """The job's."""
    job: str
    file: str
    etag: str
    range: str | None
    """What was sent of the file, as Content-Range says it; None for all of it."""
    bytes_sent: int
    bytes_promised: int
    seconds: float
    outcome: Outcome

    def line(self) -> bytes:
        """Write it as the log has it."""
        return lines.encode(self._object())

    def _object(self) -> dict[str, Any]:
        return {
            "when": format_time(round(self.when * 1_000_000)),
            "requestId": self.request_id,
            "tokenId": self.token_id,
            "owner": self.owner,
            "job": self.job,
            "file": self.file,
            "etag": self.etag,
            "range": self.range,
            "bytesSent": self.bytes_sent,
            "bytesPromised": self.bytes_promised,
            "seconds": round(self.seconds, 3),
            "outcome": self.outcome,
        }


class DownloadLog:
    """Takes records from any thread and never raises; `on_error` is called, in any thread, per line lost."""

    def __init__(
        self,
        state_dir: Path,
        on_error: Callable[[], object],
        *,
        cap: int = FILE_CAP,
        kept: int = FILES_KEPT,
        waiting: int = QUEUE_CAP,
    ) -> None:
        self._file = RotatedFile(state_dir / FILE, cap, kept)
        self._on_error = on_error
        self._queue: queue.Queue[DownloadRecord | None] = queue.Queue(waiting)
        self._failing = False
        self._closed = False
        self._thread = threading.Thread(target=self._write_all, name="jobsvc-download-log", daemon=True)
        self._thread.start()

    def write(self, record: DownloadRecord) -> None:
        """Have a record written soon; returns at once."""
        if self._closed:
            self._lost("a download ended after the log did")
            return
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._lost("lines come faster than the disk takes them")

    def close(self, deadline: float = CLOSE_DEADLINE) -> None:
        """Write what waits, for at most `deadline` seconds; what is left then counts as lost. Blocks."""
        end = time.monotonic() + deadline
        self._closed = True
        with suppress(queue.Full):
            self._queue.put(None, timeout=deadline)
            self._thread.join(max(end - time.monotonic(), 0))
        with suppress(queue.Empty):
            while self._thread.is_alive():
                if self._queue.get_nowait() is not None:
                    self._lost("the disk did not take them before the end")
        with suppress(queue.Full):  # should the disk come back, the thread may end too
            self._queue.put_nowait(None)

    def _write_all(self) -> None:
        while (record := self._queue.get()) is not None:
            self._write(record)
        self._file.close()

    def _write(self, record: DownloadRecord) -> None:
        try:
            self._file.append(record.line())
        except Exception as wrong:  # noqa: BLE001 - whatever it is, the thread lives on, and it is told and counted
            self._lost(str(wrong))
        else:
            # With more waiting it may fail again at once: a full queue must not be told of line by line.
            if self._failing and self._queue.empty():
                self._failing = False
                log.info("the download log is written again")

    def _lost(self, reason: str) -> None:
        self._on_error()
        if not self._failing:
            self._failing = True
            log.error("the download log loses lines", reason=reason)
