"""URL paths of the API: patterns, and what a path names."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from aiohttp import web

from jobsvc.web.headers.conditional import VERSION_LENGTH
from jobsvc.web.headers.content_headers import saved_name

JOBS: Final = "/api/jobs/"
STATUS: Final = "/api/jobs/{id}"
DOWNLOAD: Final = "/api/jobs/{id}/download"
NAMED_DOWNLOAD: Final = "/api/jobs/{id}/download/{name}"
"""The address of a link: it ends in the name of the file."""
VERSION_QUERY: Final = re.compile(rf"version=([A-Za-z0-9_-]{{{VERSION_LENGTH}}})", re.ASCII)
"""The query of a `downloadUrl`, and nothing else."""
# What proxies leave as it is when they decode a path and encode it again (RFC 3986, section 3.3).
_IN_SEGMENT: Final = "!$&'()*+,;=:@-._~"
JOB_ID: Final = web.RequestKey("jobsvc.job-id", str)


def job_id_of(request: web.Request) -> str:
    """Name the job that a request is about, as its address has it: it may be no job's id at all."""
    try:
        return request[JOB_ID]
    except KeyError:
        return request.match_info["id"]


def file_name_of(request: web.Request) -> str | None:
    """Return the name of the file that the address ends in; None where it has none."""
    return None if JOB_ID in request else request.match_info.get("name")


def link_path(job_id: str, name: str) -> str:
    """Return the path of a link to a job's output; it ends in the name under which clients save the file."""
    return f"{DOWNLOAD.replace('{id}', job_id)}/{quote(saved_name(name), safe=_IN_SEGMENT)}"
