"""Parse a client's input in bounded steps, and validate each request before it is queued.

aiohttp parses all received bytes at once. It drops the requests before one that it cannot parse, drops the
bytes after an offer to upgrade, and keeps up to 32 heads of 1 MB each for a client that reads no responses.
The parser is therefore given one head or a part of a body at a time, and nothing while enough requests wait.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

from jobsvc.web.connection.closing import MAX_DISCARDED_BYTES, ClosingConnection
from jobsvc.web.connection.request_validation import (
    MAX_HEAD_BYTES,
    InvalidRequest,
    head_too_large,
    refine_parse_error,
    validate,
)

MAX_WAITING_REQUESTS: Final = 4
"""Parsed requests of one connection that wait for the one that is handled, at most."""
MAX_HELD_BYTES: Final = 64 * 1024
"""Unparsed bytes after them at which the service stops reading from the socket."""
MAX_PIECE_BYTES: Final = 8 * 1024
BODY_BUFFER_BYTES: Final = 16 * 1024
SLICE_S: Final = 0.001
"""Time for parsing the input of one connection before other connections get their turn."""

_HEAD_END: Final = b"\r\n\r\n"


class RequestInput(ClosingConnection):
    """Connection that parses its input in bounded steps."""

    # Per-connection state
    _jobsvc_received = b""
    """Bytes that are not yet parsed."""
    _jobsvc_input_ended = False
    """Whether the client closed its side after them."""
    _jobsvc_last_bytes = b""
    """The last bytes parsed, at most 3: the end of a head can begin in them."""

    # Per-request state
    head_started_at = 0.0
    """When the first bytes of an unfinished request head arrived (loop time); 0 if there is none."""
    _jobsvc_partial_head = b""
    """The beginning of a head that is not complete yet."""
    _jobsvc_body_remaining = 0
    """Bytes of the last request's body that have not arrived; 0 if its head does not give the length."""
    _jobsvc_omit_error_body = False
    """Whether the rejected request is a HEAD, whose response has no body."""

    def __init__(self, server: web.Server, **kw: Any) -> None:  # noqa: ANN401 - the parent's signature
        # aiohttp would decompress a body even if nothing reads it.
        super().__init__(server, auto_decompress=False, read_bufsize=BODY_BUFFER_BYTES, **kw)
        self._msg_queue_resume_size = MAX_WAITING_REQUESTS - 1

    def _schedule_parse(self) -> None:
        """Have the held bytes parsed later, after the input of other connections."""
        raise NotImplementedError

    def _process_piece(self, data: bytes) -> None:
        """Parse a piece of input, and have its requests handled."""
        raise NotImplementedError

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - the parent's signature
        """Resume reading a body if paused; aiohttp calls this for each chunk read, paused or not."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def _split_and_process(self, data: bytes) -> None:
        """Parse what can be parsed now, and hold the rest."""
        start, until = 0, perf_counter() + SLICE_S
        while start < len(data) and not self._done_reading:
            if self._queue_full():
                self._hold(data[start:])
                return
            end = self._piece_end(data, start)
            piece = data[start:end]
            self._process_piece(piece)
            self._jobsvc_last_bytes = (self._jobsvc_last_bytes + piece[-3:])[-3:]
            start = end
            if start < len(data) and perf_counter() > until:
                self._hold(data[start:])
                self._schedule_parse()
                return

    def _piece_end(self, data: bytes, start: int) -> int:
        """Return the end of the piece at `start`: at the latest the end of its head or body.

        Bytes within a body that look like the end of a head also end a piece: the parser accepts any split.
        """
        if self._jobsvc_body_remaining:
            return min(len(data), start + self._jobsvc_body_remaining)
        split_end = (self._jobsvc_last_bytes + data[start : start + 3]).find(_HEAD_END)
        if split_end >= 0:
            return start + split_end + len(_HEAD_END) - len(self._jobsvc_last_bytes)
        limit = start + MAX_PIECE_BYTES
        head_end = data.find(_HEAD_END, start, limit)
        return min(len(data), limit) if head_end < 0 else head_end + len(_HEAD_END)

    def _queue_full(self) -> bool:
        return len(self._messages) >= MAX_WAITING_REQUESTS or self._reading_paused

    def _hold(self, data: bytes) -> None:
        self._jobsvc_received = data
        self._buffer_paused = True
        if len(data) >= MAX_HELD_BYTES:
            self._pause_transport_reading()

    def _feed_parser(self, data: bytes) -> bool:
        """Parse a piece and validate the requests in it; return False if the connection closes after them."""
        count_before, in_head = self._request_count, self._jobsvc_body.is_eof()
        super().data_received(data)
        if self._upgraded:
            self._decline_upgrade()
        if self._jobsvc_body_remaining:
            self._jobsvc_body_remaining -= len(data)
        if count_before == self._request_count:
            if in_head and data:
                self._hold_partial_head(data)
            return not self._jobsvc_last_request
        self.head_started_at = 0.0
        if self._jobsvc_partial_head:
            data, self._jobsvc_partial_head = self._jobsvc_partial_head + data, b""
        return self._validate_new(count_before, data, too_large=in_head and len(data) > MAX_HEAD_BYTES)

    def _hold_partial_head(self, data: bytes) -> None:
        self._jobsvc_partial_head += data
        # An empty line after a body does not begin a head (RFC 9112, section 2.2).
        if not self.head_started_at and self._jobsvc_partial_head.strip(b"\r\n"):
            self.head_started_at = self._loop.time()
        if len(self._jobsvc_partial_head) > MAX_HEAD_BYTES:
            self._request_count += 1
            self._jobsvc_omit_error_body = _is_head_request(self._jobsvc_partial_head)
            self._messages.append((_queued_error(head_too_large(self._jobsvc_partial_head)), EMPTY_PAYLOAD))
            self._jobsvc_last_request, self._jobsvc_partial_head = True, b""

    def _validate_new(self, count_before: int, data: bytes, *, too_large: bool) -> bool:
        """Validate the requests after the first `count_before`; return the same as `_feed_parser`."""
        for index in range(count_before - self._request_count, 0):
            message, body = self._messages[index]
            if isinstance(message, _ErrInfo):
                self._jobsvc_last_request, error = True, refine_parse_error(message.exc, data)
                self._jobsvc_omit_error_body = _is_head_request(data)
                if not self._jobsvc_body.is_eof():
                    self._fail_body()
            else:
                error = head_too_large(data) if too_large else validate(message)
                if self._jobsvc_next_is_last and not message.should_close:
                    message = message._replace(should_close=True)
                    self._messages[index] = message, body
                if message.should_close:  # nothing after it gets a response
                    self._jobsvc_last_request = True
                if body is not EMPTY_PAYLOAD:
                    self._expect_body(index, message, body)
            if error is not None:  # the rest of its body is discarded
                self._jobsvc_last_request, body = True, EMPTY_PAYLOAD
                self._messages[index] = _queued_error(error), body
                self._jobsvc_omit_error_body = self._jobsvc_omit_error_body or _is_head_request(data)
            self._jobsvc_body = body
        return not self._jobsvc_last_request

    def _expect_body(self, index: int, message: RawRequestMessage, body: StreamReader) -> None:
        """Record the length of a body, and whether the connection closes after it.

        It closes if the body is too large to be read and discarded, or if an upgrade is offered: the parser
        stops at the end of such a request.
        """
        length = 0 if message.chunked else int(message.headers.get(hdrs.CONTENT_LENGTH, 0))
        self._jobsvc_body_remaining = length
        if message.upgrade or length > MAX_DISCARDED_BYTES:
            self._jobsvc_last_request = True
            self._messages[index] = message._replace(should_close=True), body

    def _decline_upgrade(self) -> None:
        """Keep HTTP/1.1; aiohttp would parse the bytes after the request later and without validation."""
        if self._parser is not None:
            self._parser.set_upgraded(False)
        self._upgraded, self._message_tail = False, b""

    def _fail_body(self) -> None:
        """Mark a truncated body as failed. If its request is still queued, drop it: the error replaces it."""
        if len(self._messages) > 1:
            failed, _ = self._messages[-2]
            is_head = not isinstance(failed, _ErrInfo) and failed.method == hdrs.METH_HEAD
            self._jobsvc_omit_error_body = is_head
            del self._messages[-2]
            self._request_count -= 1
        else:
            self._jobsvc_body.set_exception(web.RequestPayloadError("the request body is incomplete"))

    async def _linger(self) -> None:
        self._jobsvc_received, self._buffer_paused = b"", False
        await super()._linger()

    def _is_last_response(self) -> bool:
        return super()._is_last_response() and not self._jobsvc_received


def _queued_error(error: InvalidRequest) -> _ErrInfo:
    return _ErrInfo(error.code, error, error.message)


def _is_head_request(data: bytes) -> bool:
    return data.lstrip(b"\r\n").startswith(b"HEAD ")
