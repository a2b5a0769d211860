"""Handle accept(2) failing for lack of descriptors: count it, log once a minute, close an idle connection.

asyncio reports the failure for each place in the backlog, a thousand times a second; uvloop closes the new
connection and reports nothing.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Any, Final

import structlog
from aiohttp import web

RETRY_S: Final = 1.0
"""Seconds after which asyncio accepts again; reports until then are about the same failure."""
LOG_INTERVAL_S: Final = 60.0
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

log = structlog.get_logger("jobsvc.service")


class AcceptErrors:
    """Exception handler of an event loop, for failures of accept(2)."""

    def __init__(self, on_error: Callable[[], object], make_room: Callable[[], object]) -> None:
        """`on_error` is called for each failure, then `make_room` to free a descriptor."""
        self._on_error = on_error
        self._make_room = make_room
        self._handle_at = 0.0
        self._log_at = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle a failed accept; anything else goes to the loop's default handler."""
        exc = context.get("exception")
        if not isinstance(exc, OSError) or exc.errno not in _EXHAUSTED or "accept" not in context["message"]:
            loop.default_exception_handler(context)
            return
        if (now := loop.time()) < self._handle_at:
            return
        self._handle_at = now + RETRY_S / 2
        self._on_error()
        self._make_room()
        if now >= self._log_at:
            self._log_at = now + LOG_INTERVAL_S
            log.error("accept-failed", reason=exc.strerror, effect="new connections wait")


ACCEPT_ERRORS: Final = web.AppKey("jobsvc.accept-errors", AcceptErrors)
"""Application key: the exception handler for its event loop."""
