"""Decide whether and when to send a request again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, Final, NamedTuple

from jobsvc.client.errors import ConnectionFailed, JobsvcError, Problem, UnexpectedResponse
from jobsvc.client.protocol import problems
from jobsvc.client.protocol.documents import parse_object
from jobsvc.client.protocol.steps import Close, Operation, Request, Response, Sleep, Stream, read, send

RETRIED_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
FIRST_DELAY_S = 0.5
"""Maximum delay before the second attempt; it doubles with each further one. Tests set it."""
MAX_DELAY_S: Final = 30.0
MAX_RETRY_AFTER_S: Final = 300.0
"""A longer Retry-After ends the retries."""
MAX_LIMITED_S: Final = 3600.0
"""Seconds without a byte after which a limit of downloads is an error."""
MIN_LIMIT_PAUSE_S: Final = 0.05
RETRY_AFTER_JITTER: Final = 0.1
"""Retry-After is exceeded by up to this fraction: many clients are told the same time."""
MAX_ERROR_BODY: Final = 64 * 1024
"""Bytes of an error's body that are read from a stream."""

_MAX_DOUBLINGS: Final = 16


class Outage(NamedTuple):
    """How long failures may last, instead of a number of attempts."""

    limit_s: float
    """Seconds from the first of several failures in a row."""


class Backoff:
    """Counts the failures in a row of one request or transfer, and says how long to wait after each.

    Belongs to one thread.
    """

    def __init__(
        self,
        limit: int | Outage,
        *,
        clock: Callable[[], float] | None = None,
        random: Callable[[], float] | None = None,
    ) -> None:
        """`limit`: attempts after the first one, or an Outage. `random` returns a number from 0 to 1."""
        self.failures = 0
        """Failures since the last progress."""
        self.limit = limit
        self._clock = clock or monotonic
        self._random = random or _random
        self._failing_since: float | None = None

    def progress(self) -> None:
        """Count anew: something was received since the last failure."""
        self.failures = 0
        self._failing_since = None

    def responded(self) -> None:
        """Record that the outage is over, if not that the next attempt will get further."""
        self._failing_since = None

    def failed(self, error: JobsvcError) -> float:
        """Return the seconds to wait until the next attempt. Raises `error` if there is none."""
        now = self._clock()
        if self._failing_since is None:
            self._failing_since = now
        self.failures += 1
        if not is_retryable(error) or self._is_over(now - self._failing_since):
            raise error
        delay = self._random() * min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** min(self.failures - 1, _MAX_DOUBLINGS))
        asked = getattr(error, "retry_after", None)
        if not asked:  # at once, again and again, would be a loop without a pause
            return float(delay)
        if asked > MAX_RETRY_AFTER_S:
            raise error
        return float(asked * (1 + RETRY_AFTER_JITTER * self._random()))

    def _is_over(self, failing_s: float) -> bool:
        if isinstance(self.limit, Outage):
            return failing_s >= self.limit.limit_s
        return self.failures > self.limit


class LimitPauses:
    """Says how long to wait while a limit of the token is reached: that is no failure, but it has to end.

    Belongs to one thread.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or monotonic
        self._limited_since: float | None = None

    def progress(self) -> None:
        """Record that the limit is no longer reached."""
        self._limited_since = None

    def next(self, retry_after: float, error: JobsvcError) -> float:
        """Return the seconds to wait. Raises `error` after MAX_LIMITED_S."""
        now = self._clock()
        if self._limited_since is None:
            self._limited_since = now
        if now - self._limited_since >= MAX_LIMITED_S:
            raise error
        return max(retry_after, MIN_LIMIT_PAUSE_S)


def is_retryable(error: JobsvcError) -> bool:
    """Return whether the same request may succeed soon."""
    if isinstance(error, ConnectionFailed):
        return error.retryable
    return isinstance(error, Problem) and error.status in RETRIED_STATUSES


def send_with_retries(request: Request, retries: int) -> Operation[Response]:
    """Send a request until its response is final: 2xx, 304, or an error that a retry cannot mend.

    Raises Problem for an error response, or ConnectionFailed, after `retries` further attempts.
    """
    backoff = Backoff(retries)
    while True:
        try:
            return (yield from send_once(request))
        except (ConnectionFailed, Problem) as exc:
            delay = backoff.failed(exc)
        yield Sleep(delay)


def send_once(request: Request) -> Operation[Response]:
    """Send a request once. Raises Problem for an error response, or ConnectionFailed."""
    response = yield from send(request)
    if not problems.is_success(response.status):
        raise problems.problem_of(response.status, response.headers, response.body, request.target)
    return response


def send_for_json(request: Request, retries: int) -> Operation[tuple[dict[str, Any], Mapping[str, str]]]:
    """Send a request as `send_with_retries` does; return the JSON object of its response, and its headers.

    Raises the same; UnexpectedResponse for anything but JSON.
    """
    backoff = Backoff(retries)
    while True:
        try:
            response = yield from send_once(request)
            return parse_json(response), response.headers
        except (ConnectionFailed, Problem) as exc:
            delay = backoff.failed(exc)
        yield Sleep(delay)


def parse_json(response: Response) -> dict[str, Any]:
    """Return the JSON object of a response.

    Raises UnexpectedResponse if another server responded, ConnectionFailed if the JSON is damaged.
    """
    if "json" not in response.headers.get("content-type", "").lower():
        problems.refuse(response.headers, "JSON")
    try:
        return parse_object(response.body)
    except UnexpectedResponse as exc:
        raise ConnectionFailed("The response is damaged JSON: a proxy may have cut or changed it.") from exc


def read_problem(stream: Stream, target: str) -> Operation[Problem]:
    """Return the exception for an error response whose body was not read yet, and close it."""
    body = b""
    try:
        while len(body) < MAX_ERROR_BODY and (data := (yield from read(stream))):
            body += data
    except ConnectionFailed:
        pass  # the head says what has happened
    yield Close(stream)
    return problems.problem_of(stream.status, stream.headers, body, target)


def _random() -> float:
    """Return a number from 0 to 1, without the 10 ms that importing `random` takes."""
    return int.from_bytes(os.urandom(4), "big") / 0xFFFF_FFFF
