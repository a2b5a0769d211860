"""What a client sends is parsed in bounded steps, and each request is checked before it waits for its turn.

aiohttp parses all bytes that came at once. It forgets the requests before one that it can't parse, drops the
bytes behind an offer to upgrade, and keeps up to 32 heads of 1 MB each for a client that reads no answers.
So the parser is given one head, or a part of a body, at a time, and nothing while enough requests wait.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

from jobsvc.web.connection.lingering_close import MAX_DISCARDED_BYTES, LingeringClose
from jobsvc.web.connection.request_validation import (
    MAX_HEAD_BYTES,
    InvalidRequest,
    head_too_large,
    refine_parse_error,
    validate,
)

MAX_WAITING_REQUESTS: Final = 4
"""Requests of a connection that are parsed before their turn."""
MAX_HELD_BYTES: Final = 64 * 1024
"""Bytes behind them that are read before the service stops to read."""
MAX_PIECE_BYTES: Final = 8 * 1024
BODY_BUFFER_BYTES: Final = 16 * 1024
SLICE_S: Final = 0.001
"""For which bytes of one connection are parsed before others have their turn."""

_HEAD_END: Final = b"\r\n\r\n"


class RequestInput(LingeringClose):
    """One connection."""

    head_started_at = 0.0
    """When the first bytes of an unfinished request head arrived (loop time); 0 if there is none."""
    _received = b""
    """Bytes that are still to be parsed."""
    _input_ended = False
    """Whether the client closed its side behind them."""
    _head = b""
    """The beginning of a head that has yet to come whole."""
    _body_left = 0
    """Bytes that the last request's body still has, where its head tells."""
    _refuses_head = False
    """Whether the request that is refused is a HEAD, whose answer has no body."""
    _last_bytes = b""
    """What was parsed last, as far as it can be a part of a head's end."""

    def __init__(self, server: web.Server, **kw: Any) -> None:  # noqa: ANN401 - the parent's signature
        # aiohttp would decompress a body that nobody reads too.
        super().__init__(server, auto_decompress=False, read_bufsize=BODY_BUFFER_BYTES, **kw)
        self._msg_queue_resume_size = MAX_WAITING_REQUESTS - 1

    def _parse_later(self) -> None:
        raise NotImplementedError

    def _feed(self, data: bytes) -> None:
        raise NotImplementedError

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - the parent's signature
        """Go on with a body; aiohttp asks for this with each chunk that is read, paused or not."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def _parse_pieces(self, data: bytes) -> None:
        """Parse what may be parsed now, and hold the rest."""
        start, until = 0, perf_counter() + SLICE_S
        while start < len(data) and not self._done_reading:
            if self._must_wait():
                self._hold(data[start:])
                return
            end = self._piece_end(data, start)
            piece = data[start:end]
            self._feed(piece)
            self._last_bytes = (self._last_bytes + piece[-3:])[-3:]
            start = end
            if start < len(data) and perf_counter() > until:
                self._hold(data[start:])
                self._parse_later()
                return

    def _piece_end(self, data: bytes, start: int) -> int:
        """Find where the piece at `start` ends: at an end of a head or a body at the latest.

        What looks like an end of a head ends a piece within a body too: it is all the same to the parser.
        """
        if self._body_left:
            return min(len(data), start + self._body_left)
        parted = (self._last_bytes + data[start : start + 3]).find(_HEAD_END)
        if parted >= 0:
            return start + parted + len(_HEAD_END) - len(self._last_bytes)
        limit = start + MAX_PIECE_BYTES
        found = data.find(_HEAD_END, start, limit)
        return min(len(data), limit) if found < 0 else found + len(_HEAD_END)

    def _must_wait(self) -> bool:
        return len(self._messages) >= MAX_WAITING_REQUESTS or self._reading_paused

    def _hold(self, data: bytes) -> None:
        self._received = data
        self._buffer_paused = True
        if len(data) >= MAX_HELD_BYTES:
            self._pause_transport_reading()

    def _parsed(self, data: bytes) -> bool:
        """Have a piece parsed, check the requests in it, and say whether they are sound."""
        known, in_head = self._request_count, self._body.is_eof()
        super().data_received(data)
        if self._upgraded:
            self._decline_upgrade()
        if self._body_left:
            self._body_left -= len(data)
        if known == self._request_count:
            if in_head and data:
                self._begin_head(data)
            return not self._last_request
        self.head_started_at = 0.0
        if self._head:
            data, self._head = self._head + data, b""
        return self._checked(known, data, too_large=in_head and len(data) > MAX_HEAD_BYTES)

    def _begin_head(self, data: bytes) -> None:
        self._head += data
        # An empty line behind a body is no beginning of a head (RFC 9112, section 2.2).
        if not self.head_started_at and self._head.strip(b"\r\n"):
            self.head_started_at = self._loop.time()
        if len(self._head) > MAX_HEAD_BYTES:
            self._request_count += 1
            self._refuses_head = self._head.lstrip(b"\r\n").startswith(b"HEAD ")
            self._messages.append((_error(head_too_large(self._head)), EMPTY_PAYLOAD))
            self._last_request, self._head = True, b""

    def _checked(self, known: int, data: bytes, *, too_large: bool) -> bool:
        """Check the requests that are new since there were so many `known`."""
        for place in range(known - self._request_count, 0):
            message, body = self._messages[place]
            if isinstance(message, _ErrInfo):
                self._last_request, fault = True, refine_parse_error(message.exc, data)
                self._refuses_head = data.lstrip(b"\r\n").startswith(b"HEAD ")
                if not self._body.is_eof():
                    self._fail_body()
            else:
                fault = head_too_large(data) if too_large else validate(message)
                if message.should_close:  # nothing behind it is answered
                    self._last_request = True
                if body is not EMPTY_PAYLOAD:
                    self._expect_body(place, message, body)
            if fault is not None:  # the rest of its body is dropped
                self._last_request, body = True, EMPTY_PAYLOAD
                self._messages[place] = _error(fault), body
                self._refuses_head = self._refuses_head or data.lstrip(b"\r\n").startswith(b"HEAD ")
            self._body = body
        return not self._last_request

    def _expect_body(self, place: int, message: RawRequestMessage, body: StreamReader) -> None:
        """Note how long a body is, and whether the connection closes behind it.

        It does where the body is too large to be read for nothing; and where an upgrade is offered, since the
        parser stops at the end of such a request.
        """
        self._body_left = 0 if message.chunked else int(message.headers.get(hdrs.CONTENT_LENGTH, 0))
        if message.upgrade or self._body_left > MAX_DISCARDED_BYTES:
            self._last_request = True
            self._messages[place] = message._replace(should_close=True), body

    def _decline_upgrade(self) -> None:
        """Stay with HTTP/1.1; aiohttp would parse the bytes behind the request later, and unchecked."""
        if self._parser is not None:
            self._parser.set_upgraded(False)
        self._upgraded, self._message_tail = False, b""

    def _fail_body(self) -> None:
        """Let a body that broke off fail; a request whose turn has not come is refused for it."""
        if len(self._messages) > 1:
            failed, _ = self._messages[-2]
            self._refuses_head = not isinstance(failed, _ErrInfo) and failed.method == hdrs.METH_HEAD
            del self._messages[-2]
            self._request_count -= 1
        else:
            self._body.set_exception(web.RequestPayloadError("it broke off"))

    async def _linger(self) -> None:
        self._received, self._buffer_paused = b"", False
        await super()._linger()

    def _last_of_all(self) -> bool:
        return super()._last_of_all() and not self._received


def _error(fault: InvalidRequest) -> _ErrInfo:
    return _ErrInfo(fault.code, fault, fault.message)
