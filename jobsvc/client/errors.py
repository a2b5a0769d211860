"""Define the exceptions of the client.

JobsvcError
├── Problem: the service refused the request, with the members of its problem document (RFC 9457)
│   └── Unauthorized · JobNotFound · OutputMissing · NotReady · OutputReplaced · RateLimited
│       ServiceUnavailable
├── ConnectionFailed: no complete response, after all retries
│   └── UnexpectedResponse: something else responded
├── WaitTimeout: the jobs were not final in time
├── DownloadError: a file could not be written: no space, in use by another process, an impossible name
│   └── FileExists · Stopped · Corrupt (> NotVerified) · SyncFailed
└── BadConfiguration: no URL or token, or an unreadable profile
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final


class JobsvcError(Exception):
    """Base class of everything that the client raises on purpose; its text is a sentence for people."""


class Problem(JobsvcError):
    """The service refused the request."""

    def __init__(
        self,
        code: str,
        status: int,
        detail: str,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Take the members of the problem document; `retry_after` is in seconds."""
        super().__init__(detail)
        self.code = code
        """The stable error code, such as `job-not-found`; `http-502` if a proxy responded."""
        self.status = status
        self.detail = detail
        self.request_id = request_id
        """Identifies the request in the service's log."""
        self.retry_after = retry_after


class Unauthorized(Problem):
    """The token is missing, unknown, expired or revoked (401), or lacks a scope (403)."""


class JobNotFound(Problem):
    """The job does not exist, or belongs to another owner."""


class OutputMissing(Problem):
    """The job has no such output, file or log."""


class NotReady(Problem):
    """The job is not completed, so that it has no output: queued, rendering, failed or canceled."""


class OutputReplaced(Problem):
    """The requested version of the file is not the current one."""


class RateLimited(Problem):
    """A limit of the token is reached."""


class ServiceUnavailable(Problem):
    """The service, its storage or a proxy cannot respond now (5xx)."""


class ConnectionFailed(JobsvcError):
    """No connection, a connection that was cut, or no data within the timeout."""

    retryable = True
    """Whether the same request may succeed soon; not if a certificate is not trusted, for example."""


class UnexpectedResponse(ConnectionFailed):
    """The response is not one of the service: of another server, a proxy, or a network's sign-in page."""

    retryable = False


class WaitTimeout(JobsvcError):
    """The jobs were not final in time."""

    def __init__(self, message: str, jobs: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.jobs = list(jobs)
        """The last known states, as `jobsvc.client.Job`, of all jobs that were waited for."""


class DownloadError(JobsvcError):
    """A file could not be written; the text names it and the remedy."""


class FileExists(DownloadError):
    """The target exists, and `exists="error"`."""


class Stopped(DownloadError):
    """The caller ended the download; the next call continues it."""


class Corrupt(DownloadError):
    """The received bytes are not those of the service."""


class NotVerified(Corrupt):
    """All bytes were received, but the service sent no digest to verify them."""


class SyncFailed(DownloadError):
    """Some jobs could not be downloaded, all others were; the next sync tries them again."""

    def __init__(self, failures: Sequence[tuple[str, JobsvcError]]) -> None:
        """`failures`: the id of each of these jobs, and why."""
        shown = [f"{job_id}: {error}" for job_id, error in failures[:_MAX_SHOWN]]
        if len(failures) > _MAX_SHOWN:
            shown.append(f"and {len(failures) - _MAX_SHOWN} more")
        jobs = "1 job" if len(failures) == 1 else f"{len(failures)} jobs"
        super().__init__(f"{jobs} could not be downloaded; the next sync tries again. " + "; ".join(shown))
        self.failures = list(failures)


class BadConfiguration(JobsvcError):
    """The URL or the token is missing or invalid, or the profile cannot be read."""


_MAX_SHOWN: Final = 5
"""Jobs that the text of SyncFailed names."""

_BY_CODE: Final[Mapping[str, type[Problem]]] = MappingProxyType(
    {
        "unauthorized": Unauthorized,
        "insufficient-scope": Unauthorized,
        "job-not-found": JobNotFound,
        "output-missing": OutputMissing,
        "file-missing": OutputMissing,
        "log-missing": OutputMissing,
        "job-not-completed": NotReady,
        "job-failed": NotReady,
        "job-canceled": NotReady,
        "output-replaced": OutputReplaced,
        "rate-limited": RateLimited,
        "too-many-downloads": RateLimited,
        "too-many-streams": RateLimited,
    }
)
_BY_STATUS: Final[Mapping[int, type[Problem]]] = MappingProxyType(
    {401: Unauthorized, 403: Unauthorized, 407: Unauthorized, 429: RateLimited}
)
_SERVER_ERROR: Final = 500


def problem_class(code: str, status: int) -> type[Problem]:
    """Return the class of an error code, or else of an HTTP status."""
    default = ServiceUnavailable if status >= _SERVER_ERROR else Problem
    return _BY_CODE.get(code) or _BY_STATUS.get(status, default)
