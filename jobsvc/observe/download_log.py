"""The download log: every download as one JSON line in downloads.jsonl of the state folder.

A thread of its own writes. No request waits for it or fails by it: what a full disk or a full queue loses
is counted, and said once. Not logging's QueueListener and RotatingFileHandler: their stop waits for the disk
without end, at exit a second time, and their buffer glues a line to the half one before it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog

from jobsvc.domain.timestamp import format_time
from jobsvc.observe import json_lines
from jobsvc.observe.rotating_file import RotatingFile

FILE: Final = "downloads.jsonl"
MAX_FILE_BYTES: Final = 64_000_000
"""Bytes of one file."""
OLD_FILES: Final = 5
"""Old files beside the one that is written."""
MAX_QUEUED_LINES: Final = 10_000
"""Lines that may wait for the disk."""
CLOSE_TIMEOUT_S: Final = 2.0
"""Seconds."""
GATHER_S: Final = 0.1
"""Seconds for which lines are gathered to go out in one write: many small ranges are as many lines."""
WRITES_PER_FILE: Final = 100
"""The most that go out so is this part of a file: a file that is full stays about as long as was wished."""

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
    client: str | None = None
    """The client's address, as trusted proxies forward it."""
    by_link: bool = False
    """Whether the request came by a download link."""

    def line(self) -> bytes:
        """Write it as the log has it."""
        return json_lines.encode(self._object())

    def _object(self) -> dict[str, Any]:
        return {
            "when": _told(self.when),
            "requestId": self.request_id,
            "tokenId": self.token_id,
            "client": self.client,
            "byLink": self.by_link,
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


def _told(when: float) -> str:
    """Write a time of now; of the lines of one second, the second is written once."""
    second, millis = divmod(round(when * 1000), 1000)
    return f"{_second(second)}.{millis:03}Z"


@lru_cache(maxsize=8)
def _second(second: int) -> str:
    return format_time(second * 1_000_000).partition(".")[0]


class DownloadLog:
    """Takes records from any thread and never raises; `on_error` is called, in any thread, per line lost."""

    def __init__(
        self,
        state_dir: Path,
        on_error: Callable[[], object],
        *,
        cap: int = MAX_FILE_BYTES,
        kept: int = OLD_FILES,
        waiting: int = MAX_QUEUED_LINES,
    ) -> None:
        self._file = RotatingFile(state_dir / FILE, cap, kept)
        self._on_error = on_error
        self._max_write_bytes = cap // WRITES_PER_FILE
        self._max_queued = waiting
        self._waiting: deque[DownloadRecord] = deque()
        """Records that are not written yet; each leaves when it is, or is lost."""
        self._has_lines = threading.Event()
        """Set where something waits."""
        self._is_closing = threading.Event()
        self._is_failing = False
        self._thread = threading.Thread(target=self._write_all, name="jobsvc-download-log", daemon=True)
        self._thread.start()

    def write(self, record: DownloadRecord) -> None:
        """Have a record written soon; returns at once."""
        if self._is_closing.is_set():
            self._report_lost("a download ended after the log did")
        elif len(self._waiting) >= self._max_queued:
            self._report_lost("lines come faster than the disk takes them")
        else:
            self._waiting.append(record)
            if not self._has_lines.is_set():
                self._has_lines.set()

    def close(self, deadline: float = CLOSE_TIMEOUT_S) -> None:
        """Write what waits, for at most `deadline` seconds; what is left then counts as lost. Blocks."""
        self._is_closing.set()
        self._has_lines.set()
        self._thread.join(deadline)
        if self._thread.is_alive():
            for _ in range(len(self._waiting)):
                self._report_lost("the disk did not take them before the end")

    def _write_all(self) -> None:
        while self._waiting or not self._is_closing.is_set():
            self._has_lines.wait()
            self._is_closing.wait(GATHER_S)
            # Before anything is taken: what comes from now on sets it again.
            self._has_lines.clear()
            while self._waiting:
                lines = self._next_lines()
                self._write(lines)
                for _ in lines:
                    self._waiting.popleft()
        self._file.close()

    def _next_lines(self) -> list[bytes]:
        """Write out as many of the records that wait as may go together, one at least."""
        lines, size = [], 0
        for record in tuple(self._waiting):
            lines.append(record.line())
            size += len(lines[-1])
            if size > self._max_write_bytes:
                break
        return lines

    def _write(self, lines: list[bytes]) -> None:
        """Write some lines; where they don't all fit, each that does."""
        try:
            self._file.append(b"\n".join(lines))
        except Exception as wrong:  # noqa: BLE001 - whatever it is, the thread lives on, and it is told and counted
            if len(lines) == 1:
                self._report_lost(str(wrong))
                return
            for line in lines:
                self._write([line])
        else:
            # With more waiting it may fail again at once: a full queue must not be told of line by line.
            if self._is_failing and len(self._waiting) <= len(lines):
                self._is_failing = False
                log.info("the download log is written again")

    def _report_lost(self, reason: str) -> None:
        self._on_error()
        if not self._is_failing:
            self._is_failing = True
            log.error("the download log loses lines", reason=reason)
