"""Serve a client that has closed its side: it can still read responses (RFC 9112, section 9.6).

Each complete request gets a response, and the last response ends the connection.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader


class HalfClosing(web.RequestHandler):
    """Connection that remains open for responses after the client has closed its side."""

    _answered = 0
    _half_closed = False
    _body: StreamReader = EMPTY_PAYLOAD
    """Body of the last request."""

    def eof_received(self) -> bool:  # type: ignore[override] # asyncio uses the result, aiohttp returns None
        """Keep the connection open for the responses that are due."""
        self._half_closed = self._answers_due()
        if self._half_closed and not self._body.is_eof():
            self._body.set_exception(web.RequestPayloadError("it broke off"))
        return self._half_closed

    @property
    def half_closed(self) -> bool:
        """Whether the client has closed its side: it is gone, or waits for the responses that are due."""
        return self._half_closed

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Finish a response; once the client has closed its side, the last one ends the connection."""
        self._answered += 1
        finish = self._finish_half_closed if self._half_closed else super().finish_response
        return finish(request, resp, start_time)

    def _answers_due(self) -> bool:
        """Return whether a complete request still needs its response.

        False while a response without a length is being sent: it ends when its client closes.
        """
        asked = self._current_request
        if asked is not None and asked.writer.output_size > 0 and asked.writer.length is None:
            return False
        return self._request_count - (not self._body.is_eof()) > self._answered

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
