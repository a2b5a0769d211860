"""Count the reading of one output in ranges as one download.

A player requests a range at each seek, and a client that resumes requests one at each attempt. Such a request
is not charged to the download budget if the same token at the same client address was sent the same job's
output within the last minute. It is charged to a budget of its own instead, so that it is limited too. The
same range again on the same connection is not a seek.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, TypeAlias

from aiohttp import hdrs, web

from jobsvc.domain.access import Token
from jobsvc.web.auth.client_address import ClientAddresses
from jobsvc.web.connection.connection import Connection, connection_of
from jobsvc.web.connection.fast_request import FastRequest
from jobsvc.web.ratelimit.budgets import Budget

RANGES_PER_DOWNLOAD: Final = 20
"""Further ranges that a token can request for each download in its budget."""
READING_TIMEOUT_S: Final = 60.0
"""An output counts as being read for at least this long after a request, and at most twice as long."""
MAX_KEYS: Final = 32_768
"""Keys remembered in each of two generations, at most."""

Key: TypeAlias = tuple[str, str | None, str]
"""Token id, client address and job id."""

# A tuple: hashing a member of an enumeration is slow.
_SENT: Final = (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.OK)
_NOT_MODIFIED: Final = HTTPStatus.NOT_MODIFIED


class FurtherRanges:
    """Remembers which token and client address read which output. Belongs to the event loop."""

    def __init__(
        self,
        budget: Budget,
        client_addresses: ClientAddresses,
        job_id_of: Callable[[web.Request], str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`budget` is charged for further ranges."""
        self.budget = budget
        self.client_addresses = client_addresses
        self._job_id_of = job_id_of
        self._clock = clock
        self._recent: dict[Key, None] = {}
        self._previous: dict[Key, None] = {}
        self._rotates_at = clock() + READING_TIMEOUT_S

    def key_of(self, request: web.Request, token: Token) -> Key:
        """Return the key of a request."""
        return token.id, self.client_addresses.address_of(request), self._job_id_of(request)

    def is_further(self, request: web.Request, key: Key) -> bool:
        """Return whether a request is for a further range of an output that is being read."""
        self._rotate()
        return request.method == hdrs.METH_GET and self._is_further(
            key, request.headers.get(hdrs.RANGE), connection_of(request)
        )

    async def try_charge(self, request: web.Request, token: Token) -> bool:
        """Charge a request for a further range; return False if it is none, or if too many were requested."""
        return self.is_further(request, self.key_of(request, token)) and await self.budget.acquire(token)

    def record(self, request: web.Request, key: Key, status: HTTPStatus) -> None:
        """Remember a request, which was already charged, if its response has a body of the output."""
        self._rotate()
        self._record(key, request.headers.get(hdrs.RANGE), connection_of(request), status)

    def charge(self, request: FastRequest, token: Token, status: HTTPStatus, budget: Budget) -> str | None:
        """Charge `budget`, or the one for further ranges, for the response to a plain GET, and remember it.

        `request.client` must be set. Returns the RateLimit lines of its head; None if no budget is left, or
        if only `try_charge` can find out whether one is.
        """
        # `try_charge` and `record` would read the clock, the range and the connection twice. The general path
        # needs both, because its handler runs between them.
        self._rotate()
        key, connection = (token.id, request.client, request.job_id), request.connection
        field = request.headers.get(hdrs.RANGE)
        lines: str | None
        if self._is_further(key, field, connection):
            lines = budget.lines(token) if self.budget.try_acquire(token) else None
        else:
            lines = budget.consume(token, unchanged=status is _NOT_MODIFIED)
        if lines is not None:
            self._record(key, field, connection, status)
        return lines

    def _is_further(self, key: Key, field: str | None, connection: Connection) -> bool:
        if field is None or field == connection.last_range:
            return False
        return key in self._recent or key in self._previous

    def _record(self, key: Key, field: str | None, connection: Connection, status: HTTPStatus) -> None:
        if status in _SENT:
            self._recent[key] = None
            connection.last_range = field

    def _rotate(self) -> None:
        now = self._clock()
        if now >= self._rotates_at or len(self._recent) >= MAX_KEYS:
            is_idle = now >= self._rotates_at + READING_TIMEOUT_S
            self._previous, self._recent = {} if is_idle else self._recent, {}
            self._rotates_at = now + READING_TIMEOUT_S
