"""Tell errors of one job from those that concern all jobs."""

from __future__ import annotations

import errno
from typing import Final

from jobsvc.client.errors import (
    ConnectionFailed,
    DownloadError,
    JobsvcError,
    RateLimited,
    ServiceUnavailable,
    Stopped,
    Unauthorized,
)

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


class StateNotSaved(DownloadError):
    """The state of the directory cannot be written."""


def is_outage(error: JobsvcError) -> bool:
    """Return whether the service cannot be reached or refuses requests for now."""
    return isinstance(error, (ConnectionFailed, RateLimited, ServiceUnavailable))


def is_fatal(error: JobsvcError) -> bool:
    """Return whether other jobs would fail in the same way: no service, no permission, no disk space."""
    if isinstance(error, (ConnectionFailed, RateLimited, Stopped, Unauthorized, StateNotSaved)):
        return True
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in _NO_SPACE
