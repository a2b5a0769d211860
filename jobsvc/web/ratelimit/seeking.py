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
from jobsvc.web.connection.fast_request import FastRequest, PreparedResponse
from jobsvc.web.connection.protocol import Connection, connection_of
from jobsvc.web.ratelimit.budgets import Budget

RANGES_PER_DOWNLOAD: Final = 20
"""Further ranges that a token can request for each download in its budget."""
PLAYING_S: Final = 60.0
"""An output counts as being read for at least this long after a request, and at most twice as long."""
KEYS_MAX: Final = 32_768
"""Keys remembered in each of two generations, at most."""

Key: TypeAlias = tuple[str, str | None, str]
"""Token id, client address and job id."""

# A tuple: hashing a member of an enumeration is slow.
_SENT: Final = (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.OK)
_NOT_MODIFIED: Final = HTTPStatus.NOT_MODIFIED


class RangeContinuations:
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
        self._before: dict[Key, None] = {}
        self._turn = clock() + PLAYING_S

    def key_of(self, request: web.Request, token: Token) -> Key:
        """Return the key of a request."""
        return token.id, self.client_addresses.address_of(request), self._job_id_of(request)

    def is_continuation(self, request: web.Request, key: Key) -> bool:
        """Return whether a request is for a further range of an output that is being read."""
        self._rotate()
        return request.method == hdrs.METH_GET and self._continues(
            key, request.headers.get(hdrs.RANGE), connection_of(request)
        )

    def record(self, request: web.Request, key: Key, status: HTTPStatus) -> None:
        """Remember a request, which was already charged, if its response has a body of the output."""
        self._rotate()
        self._record(key, request.headers.get(hdrs.RANGE), connection_of(request), status)

    def send(
        self, request: FastRequest, token: Token, response: PreparedResponse, budget: Budget
    ) -> HTTPStatus | None:
        """Charge `budget`, or the one for further ranges, and send the response to a plain GET.

        Returns None, without sending, if the budget is used up.
        """
        self._rotate()
        key, connection = (token.id, request.client, request.job_id), request.connection
        wanted = request.headers.get(hdrs.RANGE)
        if self._continues(key, wanted, connection) and self.budget.try_acquire(token):
            lines: str | None = budget.lines(token)
        else:
            lines = budget.consume(token, unchanged=response.status is _NOT_MODIFIED)
        if lines is None:
            return None
        response.send(lines)
        self._record(key, wanted, connection, response.status)
        return response.status

    def _continues(self, key: Key, wanted: str | None, connection: Connection) -> bool:
        if wanted is None or wanted == connection.last_range:
            return False
        return key in self._recent or key in self._before

    def _record(self, key: Key, wanted: str | None, connection: Connection, status: HTTPStatus) -> None:
        if status in _SENT:
            self._recent[key] = None
            connection.last_range = wanted

    def _rotate(self) -> None:
        now = self._clock()
        if now >= self._turn or len(self._recent) >= KEYS_MAX:
            late = now >= self._turn + PLAYING_S
            self._before, self._recent = {} if late else self._recent, {}
            self._turn = now + PLAYING_S
