"""Build the paths and queries of requests; every component is percent-encoded.

Lone surrogates, of JSON or of an argument that is not UTF-8, become bytes that the service refuses.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, urlencode

from jobsvc.client.errors import JobNotFound, OutputMissing

JOBS: Final = "/api/jobs"
EVENTS: Final = "/api/events"
ME: Final = "/api/me"
_SURROGATES: Final = "surrogatepass"
_PATHS: Final = frozenset({"", ".", ".."})


def job_target(job_id: str, *parts: str) -> str:
    """Return the path of a job, or of something below it; slashes within a part are encoded too.

    Raises JobNotFound or OutputMissing for names that would lead elsewhere.
    """
    if job_id in _PATHS:
        raise JobNotFound("job-not-found", 404, f"{job_id!r} is not an id of a job.")
    if not _PATHS.isdisjoint(parts):
        raise OutputMissing("file-missing", 404, f"{'/'.join(parts)!r} is not the path of a file.")
    return "/".join((JOBS, *(quote(part, safe="", errors=_SURROGATES) for part in (job_id, *parts))))


def with_query(path: str, parameters: Iterable[tuple[str, object]] = ()) -> str:
    """Return a path with query parameters; those that are None are left out."""
    query = urlencode(
        [(name, str(value)) for name, value in parameters if value is not None],
        errors=_SURROGATES,
        quote_via=quote,
    )
    return f"{path}?{query}" if query else path
