"""Everything a client can be refused for, each with a code that never changes.

ApiError
├── Unauthorized · InsufficientScope
├── NotFound
│   └── JobNotFound · OutputMissing · LogMissing
├── NotReady
│   └── JobNotCompleted · JobFailed · JobCanceled
├── OutputReplaced
├── BadRequest · RequestTimeout
├── LimitExceeded
│   └── RateLimited · TooManyDownloads · TooManyStreams
├── TooManyConnections
└── StorageUnavailable

No HTTP here: `web/problems.py` alone knows which status a code has.
"""

from __future__ import annotations

from typing import ClassVar


class ApiError(Exception):
    """A request that can't be granted; `detail` is a sentence for the client, naming nothing of others."""

    code: ClassVar[str] = "internal"
    reason: str | None = None
    """Why, in a word for the log: what the client is not told apart."""
    token_id: str | None = None
    """The token that was refused, where one is known; for the log."""

    def __init__(self, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
        """Seconds after which the same request may be granted, where that is known."""


class Unauthorized(ApiError):
    """No token, or one that is unknown, expired or revoked."""

    code = "unauthorized"

    def __init__(self, detail: str, reason: str | None = None, token_id: str | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.token_id = token_id


class InsufficientScope(ApiError):
    """The token is good, but not for this."""

    code = "insufficient-scope"
    reason = "scope"

    def __init__(self, scope: str) -> None:
        super().__init__(f"The token lacks the scope {scope}.")
        self.scope = scope


class NotFound(ApiError):
    """What was asked for does not exist, or not for this caller."""

    code = "not-found"


class JobNotFound(NotFound):
    """No such job; another owner's job answers the same."""

    code = "job-not-found"

    def __init__(self) -> None:
        super().__init__("No job of this id is yours.")


class OutputMissing(NotFound):
    """The job is completed, but there is no regular file where its output should be."""

    code = "output-missing"

    def __init__(self) -> None:
        super().__init__("The job is completed, but its output file is not there.")


class LogMissing(NotFound):
    """The job has no log (yet)."""

    code = "log-missing"

    def __init__(self) -> None:
        super().__init__("The job has no log yet.")


class NotReady(ApiError):
    """The job exists, and its state stands against what was asked."""

    code = "job-not-completed"


class JobNotCompleted(NotReady):
    """The job is queued or rendering: try again."""

    code = "job-not-completed"


class JobFailed(NotReady):
    """The job failed; there will be no output of this attempt."""

    code = "job-failed"


class JobCanceled(NotReady):
    """The job was canceled; there will be no output."""

    code = "job-canceled"


class OutputReplaced(ApiError):
    """The address names a version of the output that is not the present one."""

    code = "output-replaced"

    def __init__(self, present: str) -> None:
        super().__init__(
            "The output was replaced after this address was given out."
            " The job's present downloadUrl, or a new link, leads to the new one."
        )
        self.present = present
        """The present version."""


class BadRequest(ApiError):
    """A parameter, header or body that makes no sense; `detail` names it."""

    code = "bad-request"


class RequestTimeout(ApiError):
    """The request body did not arrive in time."""

    code = "request-timeout"


class LimitExceeded(ApiError):
    """A budget is used up for now."""

    code = "rate-limited"


class RateLimited(LimitExceeded):
    """More requests than the budget allows."""

    code = "rate-limited"


class TooManyDownloads(LimitExceeded):
    """As many downloads are under way as the token, or the service, may have."""

    code = "too-many-downloads"


class TooManyStreams(LimitExceeded):
    """As many streams and waits are open as the token, its owner or the service may have."""

    code = "too-many-streams"


class TooManyConnections(ApiError):
    """All connections are in use."""

    code = "too-many-connections"


class StorageUnavailable(ApiError):
    """Storage did not answer in time, or answered with a fault of its own."""

    code = "storage-unavailable"

    def __init__(
        self,
        detail: str = "The storage does not answer.",
        *,
        retry_after: float = 5,
        reason: str | None = None,
    ) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.reason = reason
