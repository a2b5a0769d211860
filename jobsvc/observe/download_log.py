"""Write every download as one JSON line to a file in the state directory, which no other instance writes.

A separate thread writes. Requests neither wait for it nor fail because of it: lines lost to a full disk or a
full queue are counted, and logged once. Not logging's QueueListener and RotatingFileHandler: stopping them
waits for the disk without a limit, and again at exit, and their buffer joins a line to a partly written one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog

from jobsvc.domain.timestamp import format_time
from jobsvc.domain.trace_context import trace_id_of
from jobsvc.observe import json_lines
from jobsvc.observe.rotating_file import RotatingFile

MAX_FILE_BYTES: Final = 64_000_000
"""Maximum size of one file in bytes."""
OLD_FILES: Final = 5
"""Number of rotated files to keep, without the current one."""
MAX_QUEUED_LINES: Final = 10_000
"""Maximum number of lines that wait to be written."""
CLOSE_TIMEOUT_S: Final = 2.0
"""Seconds that `close` waits by default."""
GATHER_S: Final = 0.1
"""Seconds for which lines are collected into one write: many small ranges make as many lines."""
WRITES_PER_FILE: Final = 100
"""One write is limited to about 1/WRITES_PER_FILE of a file, so full files are close to the maximum size."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Outcome(StrEnum):
    """How a download ended."""

    COMPLETE = "complete"
    CLIENT_GONE = "client-gone"
    TRUNCATED = "truncated"
    STORAGE_ERROR = "storage-error"
    REVOKED = "revoked"
    TOO_SLOW = "too-slow"
    SHUTDOWN = "shutdown"


class DownloadRecord(NamedTuple):
    """One download that ended. Contains only the id of the token, never the token."""

    when: float
    """Start of the download, in seconds since the epoch."""
    request_id: str
    token_id: str
    owner: str
    """The job's owner."""
    job: str
    file: str
    etag: str
    range: str | None
    """The range that was sent, in the form of Content-Range; None for the whole file."""
    bytes_sent: int
    bytes_promised: int
    seconds: float
    outcome: Outcome
    client: str | None = None
    """The client's address, as forwarded by trusted proxies."""
    link: str | None = None
    """The id of the download link that the request used, if it used one."""
    traceparent: Sequence[str] = ()
    """The traceparent fields of the request."""

    def line(self, instance: str) -> bytes:
        """Encode the record as a line of the log of an instance, without the line break."""
        return json_lines.encode({**self._object(), "instance": instance})

    def _object(self) -> dict[str, Any]:
        return {
            "when": _format_when(self.when),
            "requestId": self.request_id,
            "traceId": trace_id_of(self.traceparent),
            "tokenId": self.token_id,
            "client": self.client,
            "byLink": self.link is not None,
            "link": self.link,
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


def _format_when(when: float) -> str:
    """Format a time with milliseconds; the text of each second is cached."""
    second, millis = divmod(round(when * 1000), 1000)
    return f"{_second(second)}.{millis:03}Z"


@lru_cache(maxsize=8)
def _second(second: int) -> str:
    return format_time(second * 1_000_000).partition(".")[0]


class DownloadLog:
    """Accepts records from any thread; never raises. Calls `on_error`, in any thread, for each lost line."""

    def __init__(
        self,
        path: Path,
        on_error: Callable[[], object],
        *,
        instance: str,
        max_file_bytes: int = MAX_FILE_BYTES,
        old_files: int = OLD_FILES,
        max_queued: int = MAX_QUEUED_LINES,
    ) -> None:
        """`instance` is the name of this process, and in every line."""
        self._file = RotatingFile(path, max_file_bytes, old_files)
        self._instance = instance
        self._on_error = on_error
        self._max_write_bytes = max_file_bytes // WRITES_PER_FILE
        self._max_queued = max_queued
        self._waiting: deque[DownloadRecord] = deque()
        """Records not written yet; each is removed once it is written or lost."""
        self._has_lines = threading.Event()
        """Set if records are waiting."""
        self._is_closing = threading.Event()
        self._is_failing = False
        self._thread = threading.Thread(target=self._write_all, name="jobsvc-download-log", daemon=True)
        self._thread.start()

    def write(self, record: DownloadRecord) -> None:
        """Queue a record to be written; returns at once."""
        if self._is_closing.is_set():
            self._report_lost("a download ended after the log was closed")
        elif len(self._waiting) >= self._max_queued:
            self._report_lost("lines arrive faster than the disk accepts them")
        else:
            self._waiting.append(record)
            if not self._has_lines.is_set():
                self._has_lines.set()

    def close(self, deadline: float = CLOSE_TIMEOUT_S) -> None:
        """Write the waiting records for at most `deadline` seconds; the rest count as lost. Blocks."""
        self._is_closing.set()
        self._has_lines.set()
        self._thread.join(deadline)
        if self._thread.is_alive():
            for _ in range(len(self._waiting)):
                self._report_lost("the disk did not accept them before shutdown")

    def _write_all(self) -> None:
        while self._waiting or not self._is_closing.is_set():
            self._has_lines.wait()
            self._is_closing.wait(GATHER_S)
            # Cleared before records are taken: a record added from now on sets it again.
            self._has_lines.clear()
            while self._waiting:
                lines = self._next_lines()
                self._write(lines)
                for _ in lines:
                    self._waiting.popleft()
        self._file.close()

    def _next_lines(self) -> list[bytes]:
        """Encode the waiting records that fit into one write, at least one."""
        lines, size = [], 0
        for record in tuple(self._waiting):
            lines.append(record.line(self._instance))
            size += len(lines[-1])
            if size > self._max_write_bytes:
                break
        return lines

    def _write(self, lines: list[bytes]) -> None:
        """Write some lines; if that fails, write each separately, so that only some are lost."""
        try:
            self._file.append(b"\n".join(lines))
        except Exception as error:  # noqa: BLE001 - any error is counted and logged; the thread goes on
            if len(lines) == 1:
                self._report_lost(str(error))
                return
            for line in lines:
                self._write([line])
        else:
            # If more records wait, it might fail again at once: a full queue must not be logged per line.
            if self._is_failing and len(self._waiting) <= len(lines):
                self._is_failing = False
                log.info("download-log-recovered")

    def _report_lost(self, reason: str) -> None:
        self._on_error()
        if not self._is_failing:
            self._is_failing = True
            log.error("download-log-lost-lines", reason=reason)
