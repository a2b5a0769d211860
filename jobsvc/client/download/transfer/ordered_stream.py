"""Receive one file in order, over cut connections, in the caller's thread."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from threading import Event
from time import monotonic

from jobsvc.client.download.options import DownloadOptions
from jobsvc.client.download.source import Source
from jobsvc.client.download.stopping import closed_when_stopped
from jobsvc.client.download.transfer.responses import (
    Body,
    Replaced,
    UnusableResponse,
    check_body,
    range_request,
    repr_digest,
)
from jobsvc.client.download.transfer.run import PROGRESS_INTERVAL_S
from jobsvc.client.download.transfer.starting_over import MAX_REPLACED
from jobsvc.client.errors import ConnectionFailed, Corrupt, OutputReplaced, Problem, RateLimited, Stopped
from jobsvc.client.models import Progress
from jobsvc.client.protocol.retry import MAX_RETRY_AFTER_S, Backoff, LimitPauses
from jobsvc.client.transport.driver import BodyStream, Transport


class OrderedStream:
    """One file that is written in order, and that cannot start over once bytes were written."""

    def __init__(
        self,
        transport: Transport,
        retries: int,
        source: Source,
        write: Callable[[memoryview], object],
        *,
        options: DownloadOptions,
        find_current: Callable[[Source], Source],
    ) -> None:
        """`write` gets the bytes. `find_current` returns the current version of the file."""
        self.started_at = monotonic()
        self.digest: str | None = None
        """The service's SHA-256, if a response had it."""
        self._transport = transport
        self._source = source
        self._write = write
        self._options = options
        self._find_current = find_current
        self._backoff = Backoff(retries)
        self._limit_pauses = LimitPauses()
        self._stop = options.stop or Event()
        self._streams: list[BodyStream] = []
        """The stream that is read, to close it if the download is stopped."""
        self._position = 0
        self._written = hashlib.sha256()
        """Of the bytes that were written, to compare them if they are sent once more."""
        self._report_at = 0.0
        self._replaced_count = 0

    def run(self) -> Source:
        """Write the file; return its version. Raises OutputReplaced, Stopped, Problem or ConnectionFailed."""
        with closed_when_stopped(self._options.stop) as self._streams:
            while self._position < self._source.size:
                self._try()
        return self._source

    @property
    def sha256(self) -> str:
        """The SHA-256 of what was written."""
        return self._written.hexdigest()

    def report_done(self) -> None:
        """Report the end, once everything is verified."""
        self._report(done=True)

    def wait(self, seconds: float) -> None:
        """Wait. Raises Stopped."""
        if self._stop.wait(seconds):
            raise Stopped("The download was stopped.")

    def _try(self) -> None:
        self.wait(0)
        try:
            self._request()
        except Replaced:
            self._replace()
        except RateLimited as exc:
            if exc.retry_after is None or exc.retry_after > MAX_RETRY_AFTER_S:
                self.wait(self._backoff.failed(exc))
            else:
                self.wait(self._limit_pauses.next(exc.retry_after, exc))
        except (ConnectionFailed, Problem) as exc:
            self.wait(0)
            self.wait(self._backoff.failed(exc))

    def _replace(self) -> None:
        self._replaced_count += 1
        if self._position or self._replaced_count > MAX_REPLACED:
            raise OutputReplaced(
                "output-replaced",
                412,
                f"{self._source.name} was replaced while it was downloaded: start over.",
            )
        self._source = self._find_current(self._source)

    def _request(self) -> None:
        source = self._source
        want_digest = self._options.verify and source.output is not None and source.sha256 is None
        request = range_request(source, self._position, source.size, want_digest=want_digest)
        stream = self._transport.open(request)
        self._streams.append(stream)
        try:
            self.wait(0)
            body = check_body(stream, source, self._position, source.size)
            self.digest = repr_digest(stream.headers) or self.digest
            self._receive(stream, body)
        finally:
            self._streams.remove(stream)
            stream.close()

    def _receive(self, stream: BodyStream, body: Body) -> None:
        """Write what is new of a body. Raises ConnectionFailed if it is cut."""
        position, to_skip, repeated = body.start, self._position - body.start, hashlib.sha256()
        while position < body.stop:
            data = memoryview(stream.read())
            position += len(data)
            if not data or position > body.stop:
                raise UnusableResponse(self._source, "it has too few bytes, or too many")
            if to_skip:  # ranges are not supported: the file is sent from its start again
                repeated.update(data[:to_skip])
                data, to_skip = data[to_skip:], max(0, to_skip - len(data))
                if not to_skip and repeated.digest() != self._written.digest():
                    raise Corrupt(f"{self._source.name}: the service sent other bytes than before.")
            self._accept(data)
        if not body.has_length and stream.read():
            raise Corrupt(f"{self._source.name}: a response had too many bytes.")

    def _accept(self, data: memoryview) -> None:
        if data:
            self._write(data)
            self._written.update(data)
            self._position += len(data)
            self._backoff.progress()
            self._limit_pauses.progress()
        self.wait(0)
        if monotonic() >= self._report_at:
            self._report_at = monotonic() + PROGRESS_INTERVAL_S
            self._report()

    def _report(self, *, done: bool = False) -> None:
        if self._options.progress is not None:
            source = self._source
            phase = "done" if done else "receiving"
            self._options.progress(
                Progress(source.job_id, source.name, self._position, source.size, int(done), 1, phase)
            )
