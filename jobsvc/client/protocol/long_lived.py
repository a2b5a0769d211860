"""Keep long-lived operations going while the service restarts, until it was away for too long."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar

from jobsvc.client.errors import ConnectionFailed, JobsvcError, Problem, UnexpectedResponse
from jobsvc.client.protocol.problems import NOT_MODIFIED
from jobsvc.client.protocol.retry import Backoff, Outage, parse_json, send_once
from jobsvc.client.protocol.steps import Operation, Request, Sleep

T = TypeVar("T")

MAX_OUTAGE_S: Final = 600.0
"""Seconds for which the service can be away."""
FIRST_CONTACT_S: Final = 60.0
"""The same, as long as it has not responded to this operation: the URL may be wrong."""
RESPONSE_TIME_S: Final = 2.0
"""Seconds that the last request may exceed the deadline by, if the service does not respond."""

_MIN_TIMEOUT_S: Final = 0.05
_FINAL_STATUSES: Final = frozenset({401, 403, 407})


class JsonResponse(NamedTuple):
    """A successful response."""

    document: dict[str, Any] | None
    """None of a 304."""
    headers: Mapping[str, str]


class DeadlinePassed(Exception):
    """The time of the operation is up."""


class Persistence:
    """The retries of one long-lived operation, and its deadline."""

    def __init__(self, timeout: float | None = None) -> None:
        """`timeout`: seconds from now until the deadline; None: no deadline."""
        self.last_error: JobsvcError | None = None
        """Why the service is away now; None if it is not."""
        self._deadline = inf if timeout is None else monotonic() + timeout
        self._contacted = False
        self._backoff = Backoff(Outage(FIRST_CONTACT_S))

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, 0 after it."""
        return max(0.0, self._deadline - monotonic())

    def check_deadline(self) -> None:
        """Raise DeadlinePassed after the deadline."""
        if self.remaining <= 0:
            raise DeadlinePassed

    def request_timeout(self, usual: float | None) -> float | None:
        """Return the timeout of a request, so that it ends soon after the deadline."""
        if self._deadline == inf:
            return usual
        return min(inf if usual is None else usual, self.remaining + RESPONSE_TIME_S)

    def idle_timeout(self, usual: float) -> float:
        """Return the timeout of a read, so that it ends at the deadline."""
        return max(_MIN_TIMEOUT_S, min(usual, self.remaining))

    def responded(self) -> None:
        """Record that the service has responded as it should."""
        self._contacted = True
        self._backoff.limit = Outage(MAX_OUTAGE_S)
        self._backoff.responded()
        self.last_error = None

    def progress(self) -> None:
        """Record that the service has sent what was requested: the next delay is short."""
        self._backoff.progress()

    def pause(self, error: JobsvcError) -> Operation[None]:
        """Wait before the next attempt. Raises `error` if there is none, or DeadlinePassed."""
        if self._contacted and _is_of_another_server(error):
            error = ConnectionFailed(str(error))
        delay = self._backoff.failed(error)
        self.check_deadline()  # which may have ended a stream that was only quiet
        self.last_error = error
        yield from self.sleep(delay)

    def sleep(self, seconds: float) -> Operation[None]:
        """Wait. Raises DeadlinePassed if the deadline is earlier."""
        self.check_deadline()
        yield Sleep(min(seconds, self.remaining))
        self.check_deadline()

    def send_for_json(self, request: Request, convert: Callable[[JsonResponse], T]) -> Operation[T]:
        """Send a request until it succeeds, and return what `convert` makes of the response.

        Raises Problem, ConnectionFailed or DeadlinePassed.
        """
        while True:
            try:
                return (yield from self.try_for_json(request, convert))
            except (ConnectionFailed, Problem) as exc:
                yield from self.pause(exc)

    def try_for_json(self, request: Request, convert: Callable[[JsonResponse], T]) -> Operation[T]:
        """Send a request once. Raises Problem or ConnectionFailed, for `pause`, and what `convert` raises."""
        try:
            response = yield from send_once(request._replace(timeout=self.request_timeout(request.timeout)))
            document = None if response.status == NOT_MODIFIED else parse_json(response)
            result = convert(JsonResponse(document, response.headers))
        except (ConnectionFailed, Problem) as exc:
            self.last_error = exc
            raise
        self.responded()
        self.progress()
        return result


def _is_of_another_server(error: JobsvcError) -> bool:
    """Return whether a proxy responded for a service that has responded before: it may be restarting."""
    if isinstance(error, UnexpectedResponse):
        return True
    return (
        isinstance(error, Problem)
        and error.code == f"http-{error.status}"
        and error.status not in _FINAL_STATUSES
        and error.retry_after is None
    )
