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
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from aiohttp import hdrs, web

from jobsvc.domain.access import Token
from jobsvc.web.auth.client_address import Peers
from jobsvc.web.connection.fast_request import FastRequest
from jobsvc.web.ratelimit.budgets import Budget

if TYPE_CHECKING:
    from jobsvc.web.connection.protocol import Connection

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


class RangeContinuations:
    """Remembers which token and client address read which output. Belongs to the event loop."""

    def __init__(
        self,
        budget: Budget,
        peers: Peers,
        job_id_of: Callable[[web.Request], str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`budget` is charged for further ranges."""
        self.budget = budget
        self.peers = peers
        self._job_id_of = job_id_of
        self._clock = clock
        self._recent: dict[Key, None] = {}
        self._before: dict[Key, None] = {}
        self._turn = clock() + PLAYING_S

    def key_of(self, request: web.Request | FastRequest, token: Token) -> Key:
        """Return the key of a request."""
        job_id = request.job_id if isinstance(request, FastRequest) else self._job_id_of(request)
        return token.id, self.peers.address_of(request), job_id

    def is_continuation(self, request: web.Request | FastRequest, key: Key) -> bool:
        """Return whether a request is for a further range of an output that is being read."""
        wanted = request.headers.get(hdrs.RANGE)
        if wanted is None or request.method != hdrs.METH_GET or wanted == _connection(request).last_range:
            return False
        self._rotate()
        return key in self._recent or key in self._before

    def record(self, request: web.Request | FastRequest, key: Key, status: HTTPStatus) -> None:
        """Remember a request, which was already charged, if its response has a body of the output."""
        if status in _SENT:
            self._rotate()
            self._recent[key] = None
            _connection(request).last_range = request.headers.get(hdrs.RANGE)

    def _rotate(self) -> None:
        now = self._clock()
        if now >= self._turn or len(self._recent) >= KEYS_MAX:
            late = now >= self._turn + PLAYING_S
            self._before, self._recent = {} if late else self._recent, {}
            self._turn = now + PLAYING_S


def _connection(request: web.Request | FastRequest) -> Connection:
    return request.connection if isinstance(request, FastRequest) else cast("Connection", request.protocol)
