"""URL paths of the API: their patterns, and the parts of a request's path."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from aiohttp import web

from jobsvc.domain.outputs import NAME_PATTERN
from jobsvc.storage.layout import JOB_ID_PATTERN
from jobsvc.web.headers.conditional import VERSION_LENGTH
from jobsvc.web.headers.content_headers import saved_name

JOBS: Final = "/api/jobs/"
STATUS: Final = "/api/jobs/{id}"
DOWNLOAD: Final = "/api/jobs/{id}/download"
NAMED_DOWNLOAD: Final = "/api/jobs/{id}/download/{name}"
"""The path of a download link: it ends in the name of the file."""
FILES: Final = "/api/jobs/{id}/files"
OUTPUT_FILE: Final = "/api/jobs/{id}/files/{output}/{path}"
TAR: Final = "/api/jobs/{id}/archive.tar"
ZIP: Final = "/api/jobs/{id}/archive.zip"
PLAIN_FILE: Final = re.compile(
    rf"/api/jobs/({JOB_ID_PATTERN})/files/({NAME_PATTERN})"
    rf"((?:/[A-Za-z0-9._~-]+)*)(?:\?version=([A-Za-z0-9_-]{{{VERSION_LENGTH}}}))?",
    re.ASCII,
)
"""The target of a file of an output, without percent-encoding: job id, output, `/` and path, version."""
VERSION_QUERY: Final = re.compile(rf"version=([A-Za-z0-9_-]{{{VERSION_LENGTH}}})", re.ASCII)
"""The query of a `downloadUrl`, and nothing else."""
IN_SEGMENT: Final = "!$&'()*+,;=:@-._~"
"""Characters that proxies leave unchanged when they decode and re-encode a path (RFC 3986, section 3.3)."""
JOB_ID: Final = web.RequestKey("jobsvc.job-id", str)


def job_id_of(request: web.Request) -> str:
    """Return the job id as it is in a request's path: it might not be a valid job id."""
    try:
        return request[JOB_ID]
    except KeyError:
        return request.match_info["id"]


def file_name_of(request: web.Request) -> str | None:
    """Return the file name that a request's path ends in; None if it has none."""
    return None if JOB_ID in request else request.match_info.get("name")


def download_reference(name: str) -> str:
    """Return the path of a link to the main output, relative to the job's URL.

    It ends in the name that clients save the file under.
    """
    return f"download/{quote(saved_name(name), safe=IN_SEGMENT)}"


def file_reference(output: str, path: str | None = None) -> str:
    """Return the path of the URL of an output's file, relative to the job's URL."""
    return f"files/{output}" if path is None else f"files/{output}/{quote(path, safe=IN_SEGMENT + '/')}"
