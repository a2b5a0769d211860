"""A connection as RFC 9112 has it, where aiohttp's falls short of that.

Each request has its answer, also where what came behind it in the same packet can't be read, and where the
client has closed its side meanwhile. What a server must not take as it is, is refused before the application.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine, Iterator
from functools import lru_cache
from typing import Any, Final

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

AT_ONCE: Final = 64
"""Requests of one packet that are parsed each by itself; those behind them share their fate."""

_HEAD_END: Final = b"\r\n\r\n"
_LINE_CAP: Final = 8_000
"""Bytes of a request line that are always taken (RFC 9112, section 3)."""
_REQUEST_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-~]+ HTTP/1\.[01]\r\n")

# RFC 3986, section 3.2.2; empty where the target URI has no authority.
_NAME: Final = r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*"
_HOST: Final = re.compile(rf"(?:\[[A-Za-z0-9:._~!$&'()*+,;=-]+\]|{_NAME})(?::[0-9]*)?")


class Unsound(HttpProcessingError):
    """A request that is not to be processed; the message is for its sender."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code=code, message=message)


class Connection(web.RequestHandler):
    """One connection."""

    _answered = 0
    _half_closed = False
    _body: StreamReader = EMPTY_PAYLOAD
    """The last request's."""

    def data_received(self, data: bytes) -> None:
        """Have requests parsed one at a time: aiohttp forgets those before one that it can't parse."""
        end = data.find(_HEAD_END)
        if end < 0 or end == len(data) - len(_HEAD_END):
            self._feed(data)
            return
        for piece in _heads(data):
            if not self._feed(piece):
                break

    def _feed(self, data: bytes) -> bool:
        """Have a piece parsed, look at the requests in it, and say whether there can be others."""
        known = self._request_count
        super().data_received(data)
        sound = True
        for place in range(known - self._request_count, 0):
            message, body = self._messages[place]
            if isinstance(message, _ErrInfo):
                sound, fault = False, _named(message.exc, data)
                if not self._body.is_eof():
                    self._fail_body()
            else:
                fault = _fault(message)
            if fault is not None:
                sound = False
                self._messages[place] = _ErrInfo(fault.code, fault, fault.message), body
            self._body = body
        return sound

    def _fail_body(self) -> None:
        """Let a body that broke off fail; a request whose turn has not come is refused for it."""
        if len(self._messages) > 1:
            del self._messages[-2]
            self._request_count -= 1
        else:
            self._body.set_exception(web.RequestPayloadError("it broke off"))

    def eof_received(self) -> bool:  # type: ignore[override] # asyncio asks for it, aiohttp does not answer
        """Stay open for the answers that are due: who sends no more may still listen (section 9.6)."""
        self._half_closed = self._answers_due()
        if self._half_closed and not self._body.is_eof():
            self._body.set_exception(web.RequestPayloadError("it broke off"))
        return self._half_closed

    @property
    def half_closed(self) -> bool:
        """Whether the client sends no more: it may be gone, or wait for what is due."""
        return self._half_closed

    def _answers_due(self) -> bool:
        """Whether a request that came whole is unanswered; an answer without an end ends with its client."""
        asked = self._current_request
        if asked is not None and asked.writer.output_size > 0 and asked.writer.length is None:
            return False
        return self._request_count - (not self._body.is_eof()) > self._answered

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Finish an answer; the last one of a client that has closed its side ends the connection."""
        self._answered += 1
        finish = self._finish_half_closed if self._half_closed else super().finish_response
        return finish(request, resp, start_time)

    async def _finish_half_closed(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if self._last_of_all() and not resp.prepared:
            resp.force_close()
        finished = await super().finish_response(request, resp, start_time)
        if self._last_of_all():
            self.close()
        return finished

    def _last_of_all(self) -> bool:
        return self._half_closed and self._answered >= self._request_count


def _heads(data: bytes) -> Iterator[bytes]:
    """Part bytes behind each end of a head, or of what looks like one: it is all the same to the parser."""
    start = 0
    for _ in range(AT_ONCE):
        end = data.find(_HEAD_END, start)
        if end < 0:
            break
        end += len(_HEAD_END)
        yield data[start:end]
        start = end
    if start < len(data):
        yield data[start:]


def _fault(message: RawRequestMessage) -> Unsound | None:
    """Say what is wrong with a request that the parser took."""
    if message.version is not HttpVersion11:
        if message.version > HttpVersion11:
            return Unsound(505, "This service speaks HTTP/1.1.")
        if message.version < HttpVersion10:
            return Unsound(400, "The request names no version of HTTP.")
        if message.chunked and message.version < HttpVersion11:  # section 6.1: its framing is faulty
            return Unsound(400, "There is no Transfer-Encoding in HTTP/1.0.")
    if message.chunked and message.headers[hdrs.TRANSFER_ENCODING].strip().lower() != "chunked":
        return Unsound(501, "This service knows no transfer coding but chunked.")
    if not _is_host(message.headers.get(hdrs.HOST, "")):
        return Unsound(400, "The Host field names no host.")
    return None


def _named(error: BaseException, data: bytes) -> Unsound | None:
    """Find the status of what is a bad request to the parser all alike; None where that is what it is."""
    if isinstance(error, BadHttpMethod) and _REQUEST_LINE.match(data):
        return Unsound(501, "This service knows no such method.")
    if isinstance(error, LineTooLong) and not 0 <= data.find(b"\r\n") <= _LINE_CAP:
        return Unsound(414, "The address is longer than any that this service takes.")
    return None


@lru_cache(maxsize=256)
def _is_host(value: str) -> bool:
    return _HOST.fullmatch(value) is not None
