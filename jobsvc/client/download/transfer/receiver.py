"""Receive a part of a file in a worker thread: over cut connections, limits and replaced files."""

from __future__ import annotations

from time import perf_counter
from typing import BinaryIO, Final

from jobsvc.client.download.transfer.batch import Batch
from jobsvc.client.download.transfer.file_transfer import Superseded, Transfer
from jobsvc.client.download.transfer.responses import (
    Body,
    Replaced,
    UnusableResponse,
    check_body,
    range_request,
    repr_digest,
)
from jobsvc.client.download.transfer.starting_over import claim, discard, replace, restart
from jobsvc.client.errors import ConnectionFailed, Problem, RateLimited
from jobsvc.client.protocol.retry import MAX_RETRY_AFTER_S, Backoff, LimitPauses
from jobsvc.client.transport.driver import BodyStream

MIN_BUFFER: Final = 64 << 10
MAX_BUFFER: Final = 1 << 20
_FAST_S: Final = 0.02
_SLOW_S: Final = 0.2


class SegmentReceiver:
    """Receives one segment of a transfer."""

    def __init__(self, batch: Batch, transfer: Transfer, start: int, stop: int) -> None:
        """Call this with the lock of the batch."""
        self._batch = batch
        self._transfer = transfer
        self.start = start
        self.stop = stop
        self.generation = transfer.generation
        self._stream: BodyStream | None = None
        self._backoff = Backoff(batch.retries)
        self._limit_pauses = LimitPauses()

    def interrupt(self) -> None:
        """End the current request; called by any thread."""
        if (stream := self._stream) is not None:
            stream.close()

    @property
    def is_superseded(self) -> bool:
        """Whether nothing that it receives may be written any more."""
        return self._batch.stopping or self._transfer.generation != self.generation

    def run(self) -> None:
        """Receive what the segment lacks. Raises Problem, ConnectionFailed, DownloadError or OSError."""
        part = self._transfer.opened
        try:
            with part.open("r+b") as file:
                while gap := part.first_gap(self.start, self.stop):
                    self._try(file, *gap)
        except Superseded:
            pass
        finally:
            self._batch.receiver_ended(self._transfer, self)

    def _try(self, file: BinaryIO, start: int, stop: int) -> None:
        self._batch.wait_for_limit(self)
        try:
            self._request(file, start, stop)
        except Replaced:
            claim(self._batch, self._transfer, self)
            replace(self._batch, self._transfer)
            raise Superseded from None
        except RateLimited as exc:
            self._slow_down(exc)
        except (ConnectionFailed, Problem) as exc:
            if self.is_superseded:
                raise Superseded from exc
            self._batch.wait(self._backoff.failed(exc), self)

    def _slow_down(self, exc: RateLimited) -> None:
        """Wait as long as the service says; a limit is no failure, unless it lasts for an hour."""
        if exc.retry_after is None or exc.retry_after > MAX_RETRY_AFTER_S:
            self._batch.wait(self._backoff.failed(exc), self)
            return
        self._batch.limit_reached(self._limit_pauses.next(exc.retry_after, exc))
        if exc.code == "too-many-downloads" and self._batch.give_up_connection(self._transfer, self):
            raise Superseded

    def _request(self, file: BinaryIO, start: int, stop: int) -> None:
        transfer, source = self._transfer, self._transfer.source
        want_digest = self._batch.wants_digest(transfer)
        stream = self._batch.transport.open(range_request(source, start, stop, want_digest=want_digest))
        self._stream = stream
        try:
            if self.is_superseded:
                raise Superseded
            body = check_body(stream, source, start, stop)
            if (body.start, body.stop) != (start, stop):
                self._receive_alone()
            if want_digest and (digest := repr_digest(stream.headers)):
                self._batch.digest_known(transfer, source, digest)
            self._receive(file, stream, body)
        finally:
            self._stream = None
            stream.close()

    def _receive_alone(self) -> None:
        """Discard what was received: ranges are not supported, and the body is the whole file."""
        claim(self._batch, self._transfer, self)
        restart(self._batch, self._transfer, self._transfer.source, self)

    def _receive(self, file: BinaryIO, stream: BodyStream, body: Body) -> None:
        """Write a body to the part file. Raises ConnectionFailed if it is cut."""
        position, size = body.start, MIN_BUFFER
        buffer = memoryview(bytearray(min(MAX_BUFFER, max(body.stop - body.start, 1))))
        while position < body.stop:
            began = perf_counter()
            if size == MIN_BUFFER:  # what has arrived: a slow connection takes long to fill a buffer
                data: bytes | memoryview = stream.read()
            else:
                data = buffer[: stream.readinto(buffer[: min(size, body.stop - position)])]
            if not data:
                raise UnusableResponse(self._transfer.source, "it ends too early")
            if len(data) > body.stop - position:
                self._discard()
            self._write(file, position, data)
            position += len(data)
            size = _next_size(size, perf_counter() - began)
        if not body.has_length and stream.read():
            self._discard()

    def _write(self, file: BinaryIO, position: int, data: bytes | memoryview) -> None:
        if self.is_superseded:
            raise Superseded
        file.seek(position)
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        if self._batch.received(self._transfer, position, position + len(data)):
            self._backoff.progress()
            self._limit_pauses.progress()

    def _discard(self) -> None:
        """Start over after a body with too many bytes: which of them are those of the file is unknown."""
        claim(self._batch, self._transfer, self)
        discard(self._batch, self._transfer, "a response had too many bytes")
        raise Superseded


def _next_size(size: int, seconds: float) -> int:
    """Return the size of the next read: small ones show progress, large ones take less CPU time."""
    if seconds < _FAST_S:
        return min(size * 4, MAX_BUFFER)
    return max(size // 4, MIN_BUFFER) if seconds > _SLOW_S else size
