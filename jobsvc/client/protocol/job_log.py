"""Read a job's log, and follow it over reconnects without a line lost or repeated."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from typing import Final
from zlib import crc32

from jobsvc.client.errors import ConnectionFailed, JobNotFound, Problem
from jobsvc.client.models import LogLines, LogReset
from jobsvc.client.protocol import problems
from jobsvc.client.protocol.documents import parse_object, text
from jobsvc.client.protocol.event_source import EventSource
from jobsvc.client.protocol.long_lived import Persistence
from jobsvc.client.protocol.retry import Backoff, read_problem, send_with_retries
from jobsvc.client.protocol.steps import Close, Emit, Operation, Request, Sleep, Stream, open_stream, read
from jobsvc.client.protocol.targets import job_target, with_query

MAX_LINE: Final = 64 * 1024
"""Bytes after which a line is emitted in parts."""

_PARTIAL: Final = 206
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-[0-9]+/[0-9*]+", re.ASCII)
_LENGTH: Final = re.compile("[0-9]{1,18}", re.ASCII)


def read_log(
    retries: int, job_id: str, *, tail: int | None = None, follow: bool = False, errors: str = "replace"
) -> Operation[None]:
    """Emit LogLines and LogReset; `tail`: only the last lines; `follow`: until the job is final.

    `errors`: what becomes of bytes that are not UTF-8, as for bytes.decode.
    Raises OutputMissing if there is no log, and with `follow` none will come; JobNotFound; ConnectionFailed.
    """
    target = job_target(job_id, "logs")
    if follow:
        query = [("follow", 1), ("tail", tail)]
        yield from _follow(job_id, EventSource(with_query(target, query), Persistence()))
    elif tail is not None:
        yield from _read_tail(Request(with_query(target, [("tail", tail)])), retries, errors)
    else:
        yield from _LogReader(target, retries, errors).read()


def _follow(job_id: str, source: EventSource) -> Operation[None]:
    while (event := (yield from source.next())) is not None:
        if event.name == "log":
            yield Emit(LogLines(f"{event.data}\n"))
        elif event.name == "part":
            yield Emit(LogLines(event.data))
        elif event.name == "reset":
            yield Emit(LogReset(text(parse_object(event.data), "reason")))
        elif event.name == "removed":
            raise JobNotFound("job-not-found", 404, f"{job_id}: the job was deleted while its log was read.")
        elif event.name == "end":
            return


def _read_tail(request: Request, retries: int, errors: str) -> Operation[None]:
    """Read the last lines at once: they have at most 1 MiB, and their beginning moves as the log grows."""
    response = yield from send_with_retries(request, retries)
    _check_is_log(response.headers)
    if lines := response.body.decode("utf-8", errors):
        yield Emit(LogLines(lines))


class _LogReader:
    """Reads a log up to the length that it has at the beginning."""

    def __init__(self, target: str, retries: int, errors: str) -> None:
        self._target, self._errors = target, errors
        self._backoff = Backoff(retries)
        self._length: int | None = None
        """Length that the first response announced; None if a proxy left it out."""
        self._etag: str | None = None
        self._start()

    def _start(self) -> None:
        self._received = 0
        self._checksum = 0
        """Of all bytes received: tells whether a new response continues the same log."""
        self._lines = _Lines(self._errors)

    def read(self) -> Operation[None]:
        """Emit the log. A log that was rewritten meanwhile is emitted again, after LogReset."""
        is_complete = False
        while not is_complete:
            try:
                is_complete = yield from self._read_once()
            except (ConnectionFailed, Problem) as exc:
                yield Sleep(self._backoff.failed(exc))
        if rest := self._lines.end():
            yield Emit(LogLines(rest))

    def _read_once(self) -> Operation[bool]:
        """Read one response to its end; return False if the log has to be read again from its beginning."""
        headers = {}
        if self._received and self._etag is not None:
            headers = {"range": f"bytes={self._received}-", "if-range": self._etag}
        stream = yield from open_stream(Request(self._target, headers=headers))
        if not problems.is_success(stream.status):
            raise (yield from read_problem(stream, self._target))
        _check_is_log(stream.headers)
        try:
            reason = yield from self._continue(stream)
        except ConnectionFailed:
            yield Close(stream)
            raise
        yield Close(stream)
        if reason is None:
            return True
        self._length = None
        self._start()
        yield Emit(LogReset(reason))
        return False

    def _continue(self, stream: Stream) -> Operation[str | None]:
        """Read a response on from what was received; return why that is not possible, or None."""
        if stream.status == _PARTIAL:
            match = _CONTENT_RANGE.fullmatch(stream.headers.get("content-range", ""))
            if match is None or int(match[1]) != self._received:
                raise ConnectionFailed("The response is another part of the log than was requested.")
            return (yield from self._read_body(stream, self._received))
        self._etag = stream.headers.get("etag")
        field = stream.headers.get("content-length", "")
        if _LENGTH.fullmatch(field):
            # A log that grows has to be read up to the length that it had at the beginning.
            self._length = int(field) if self._length is None else min(self._length, int(field))
            if self._length < self._received:
                return "truncated"
        return (yield from self._read_body(stream, 0))

    def _read_body(self, stream: Stream, offset: int) -> Operation[str | None]:
        """Emit what follows the bytes that were received; the body starts at `offset` in the log."""
        checksum = 0
        while self._length is None or self._received < self._length:
            data = yield from read(stream)
            if not data and self._length is not None:
                raise ConnectionFailed(f"The response ended after {self._received} of {self._length} bytes.")
            if not data:
                return "truncated" if offset < self._received else None
            known = data[: self._received - offset]
            checksum, offset = crc32(known, checksum), offset + len(known)
            if known and offset == self._received and checksum != self._checksum:
                return "replaced"
            if new := data[len(known) :]:
                yield from self._take(new)
                offset = self._received
        return None

    def _take(self, data: bytes) -> Operation[None]:
        if self._length is not None:
            data = data[: self._length - self._received]
        self._backoff.progress()
        self._received += len(data)
        self._checksum = crc32(data, self._checksum)
        if lines := self._lines.feed(data):
            yield Emit(LogLines(lines))


class _Lines:
    """Converts the bytes of a log to whole lines."""

    def __init__(self, errors: str) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)
        self._rest = ""

    def feed(self, data: bytes) -> str:
        """Return the whole lines so far, and of a long line what has arrived."""
        lines = self._rest + self._decoder.decode(data)
        end = lines.rfind("\n") + 1
        if end == 0 and len(lines) > MAX_LINE:
            end = len(lines)
        self._rest = lines[end:]
        return lines[:end]

    def end(self) -> str:
        """Return what is left at the end of the log."""
        return self._rest + self._decoder.decode(b"", final=True)


def _check_is_log(headers: Mapping[str, str]) -> None:
    if not headers.get("content-type", "").lower().startswith("text/plain"):
        problems.refuse(headers, "log")
