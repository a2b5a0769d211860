"""Define every error that a client can receive, each with a code that never changes.

ApiError
├── Unauthorized · InsufficientScope · CrossOriginRequest
├── NotFound
│   └── JobNotFound · OutputMissing · FileMissing · LogMissing
├── NotReady
│   └── JobNotCompleted · JobFailed · JobCanceled
├── OutputReplaced · TooManyFiles
├── BadRequest · RequestTimeout
├── RateLimited · TooManyDownloads · TooManyStreams
├── TooManyConnections
└── StorageUnavailable

No HTTP here: only `web/problems.py` maps codes to HTTP statuses.
"""

from __future__ import annotations

from typing import ClassVar


class ApiError(Exception):
    """A request that is refused; `detail` is a sentence for the client and names nothing of other owners."""

    code: ClassVar[str] = "internal"
    reason: str | None = None
    """The exact cause, in a few words for the log; the client does not receive it."""
    token_id: str | None = None
    """The id of the refused token if known; for the log."""

    def __init__(self, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
        """Seconds after which the same request might succeed, if known."""


class Unauthorized(ApiError):
    """The token is missing, unknown, expired or revoked."""

    code = "unauthorized"

    def __init__(
        self,
        detail: str,
        reason: str | None = None,
        token_id: str | None = None,
        link_id: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.token_id = token_id
        self.link_id = link_id


class InsufficientScope(ApiError):
    """The token is valid but lacks the required scope."""

    code = "insufficient-scope"
    reason = "scope"

    def __init__(self, scope: str) -> None:
        super().__init__(f"The token does not have the scope {scope}.")
        self.scope = scope


class CrossOriginRequest(ApiError):
    """A page of another origin sent the request with the browser's cookie."""

    code = "cross-origin-request"
    reason = "origin"

    def __init__(self) -> None:
        super().__init__(
            "The session of a browser can be used by the service's own page only. Send a token instead."
        )


class NotFound(ApiError):
    """The resource does not exist, or this token may not see it."""

    code = "not-found"


class JobNotFound(NotFound):
    """The job does not exist or has another owner; the response is the same."""

    code = "job-not-found"

    def __init__(self) -> None:
        super().__init__("No job with this id is visible to the token.")


class OutputMissing(NotFound):
    """The job is completed, but there is no regular file at its output path."""

    code = "output-missing"

    def __init__(self, detail: str = "The job is completed, but its output file does not exist.") -> None:
        super().__init__(detail)


class FileMissing(NotFound):
    """The job has no such output, or the output no such file."""

    code = "file-missing"


class LogMissing(NotFound):
    """The job has no log, or none yet."""

    code = "log-missing"

    def __init__(self) -> None:
        super().__init__("The job has no log yet.")


class NotReady(ApiError):
    """The job exists, but its state does not allow the request."""

    code = "job-not-completed"


class JobNotCompleted(NotReady):
    """The job is queued or rendering; the client can try again."""

    code = "job-not-completed"


class JobFailed(NotReady):
    """The job failed; there will be no output of this attempt."""

    code = "job-failed"


class JobCanceled(NotReady):
    """The job was canceled; there will be no output."""

    code = "job-canceled"


class OutputReplaced(ApiError):
    """The URL names a version of the output that is not the current one."""

    code = "output-replaced"

    def __init__(self, present: str) -> None:
        super().__init__(
            "This URL is of an earlier version of the output."
            " Use the job's current downloadUrl, or create a new link."
        )
        self.present = present
        """The current version."""


class TooManyFiles(ApiError):
    """The job's outputs have more files than can be listed or archived."""

    code = "too-many-files"

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(
            f"The outputs of this job have more than {limit} files, which is the maximum."
            " Download single files by their path, or divide the outputs among several jobs."
        )


class BadRequest(ApiError):
    """A parameter, header or body is invalid; `detail` names it."""

    code = "bad-request"


class RequestTimeout(ApiError):
    """The request body did not arrive in time."""

    code = "request-timeout"


class RateLimited(ApiError):
    """There were more requests than the budget allows."""

    code = "rate-limited"


class TooManyDownloads(ApiError):
    """The token, or the service, has its maximum number of downloads in progress."""

    code = "too-many-downloads"


class TooManyStreams(ApiError):
    """The token, its owner or the service has its maximum number of long-lived requests open."""

    code = "too-many-streams"


class TooManyConnections(ApiError):
    """All connections are in use."""

    code = "too-many-connections"


class StorageUnavailable(ApiError):
    """Storage did not respond in time, or reported a fault."""

    code = "storage-unavailable"

    def __init__(
        self,
        detail: str = "The storage does not respond.",
        *,
        retry_after: float = 5,
        reason: str | None = None,
    ) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.reason = reason
