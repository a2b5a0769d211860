"""A connection whose client has closed its side: who sends no more may still listen (RFC 9112, section 9.6).

Each request that came whole has its answer, and the last of them ends the connection.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader


class HalfClosing(web.RequestHandler):
    """One connection."""

    _answered = 0
    _half_closed = False
    _body: StreamReader = EMPTY_PAYLOAD
    """The last request's."""

    def eof_received(self) -> bool:  # type: ignore[override] # asyncio asks for it, aiohttp does not answer
        """Stay open for the answers that are due."""
        self._half_closed = self._answers_due()
        if self._half_closed and not self._body.is_eof():
            self._body.set_exception(web.RequestPayloadError("it broke off"))
        return self._half_closed

    @property
    def half_closed(self) -> bool:
        """Whether the client sends no more: it may be gone, or wait for what is due."""
        return self._half_closed

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Finish an answer; the last one of a client that has closed its side ends the connection."""
        self._answered += 1
        finish = self._finish_half_closed if self._half_closed else super().finish_response
        return finish(request, resp, start_time)

    def _answers_due(self) -> bool:
        """Whether a request that came whole is unanswered; an answer without an end ends with its client."""
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
