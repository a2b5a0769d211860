"""`POST /api/jobs/{id}/download-links`: create a link to the output for clients that cannot send a header."""

from __future__ import annotations

import asyncio
from typing import Final

import orjson
import structlog
from aiohttp import hdrs, web

from jobsvc.domain.errors import BadRequest, OutputMissing, RequestTimeout
from jobsvc.domain.job import Job, Status
from jobsvc.domain.timestamp import format_time
from jobsvc.index.catalogue.freshness import Freshness
from jobsvc.storage.layout import components
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.auth.signed_links import Link, SignedLinks
from jobsvc.web.headers.conditional import version_id
from jobsvc.web.jobs.lookup import get_visible_job
from jobsvc.web.jobs.urls import PublicUrl, came_by_proxy
from jobsvc.web.outputs.requested_output import without_output
from jobsvc.web.paths import JOBS, job_id_of
from jobsvc.web.responses import json_response

DEFAULT_AGE_S: Final = 3600
"""Seconds; shorter if the operator allows less."""
BODY_TIMEOUT_S: Final = 10.0
"""Seconds for a whole request body, of at most 64 KiB."""

log = structlog.get_logger("jobsvc.web")


class DownloadLinksEndpoint:
    """Handler of `POST /api/jobs/{id}/download-links` and its dependencies."""

    def __init__(
        self, *, freshness: Freshness, links: SignedLinks, public_url: PublicUrl, max_age: int
    ) -> None:
        """`max_age` is the maximum lifetime of a link, in seconds."""
        self._freshness = freshness
        self._links = links
        self._public_url = public_url
        self._max_age = max_age

    async def handle(self, request: web.Request) -> web.Response:
        """Handle POST: return 201 with the link. Raises the error that a download would raise now."""
        token, job_id = request[TOKEN], job_id_of(request)
        seconds = requested_seconds(await read_body(request), self._max_age)
        snapshot = (await get_visible_job(self._freshness, token, job_id, force=True)).snapshot
        if snapshot.job.status is not Status.COMPLETED:
            raise without_output(snapshot.job)
        if snapshot.output_version is None:
            raise OutputMissing
        link = self._links.create(
            job_id, _file_name(snapshot.job), version_id(*snapshot.output_version.parts()), token, seconds
        )
        log.info("link-made", job=job_id, tokenId=token.id, seconds=seconds)
        document = {"url": self._url(request, link), "expiresAt": format_time(link.expires * 1000)}
        return json_response.uncached(document, status=201)

    def _url(self, request: web.Request, link: Link) -> str:
        public_url = self._public_url.for_request(request)
        if public_url or not came_by_proxy(request):
            return public_url + link.target
        return link.target.removeprefix(f"{JOBS}{job_id_of(request)}/")


def _file_name(job: Job) -> str:
    """Return the file name of a job's output: the last component of its path."""
    return (components(job.output_path or "") or ("",))[-1]


async def read_body(request: web.Request) -> bytes:
    """Read the whole body.

    Raises BadRequest if it is incomplete, RequestTimeout after BODY_TIMEOUT_S, HTTPUnsupportedMediaType if it
    has a content coding, HTTPRequestEntityTooLarge if it is too large.
    """
    if request.body_exists and _is_encoded(request):
        raise web.HTTPUnsupportedMediaType(headers={hdrs.ACCEPT_ENCODING: "identity"})
    if request.transport is None:  # the connection is lost, no more data will come
        raise BadRequest("The request body is incomplete.")
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError as exc:
        raise RequestTimeout("The request body did not arrive in time.") from exc
    except (ConnectionError, web.RequestPayloadError) as exc:
        raise BadRequest("The request body is incomplete.") from exc


def _is_encoded(request: web.Request) -> bool:
    """Whether the body has a content coding (RFC 9110, section 8.4): it may be huge when decoded."""
    codings = request.headers.getall(hdrs.CONTENT_ENCODING, ())
    return any(coding.strip().lower() not in {"", "identity"} for coding in codings)


def requested_seconds(body: bytes, max_age: int) -> int:
    """Parse the requested lifetime of the link, in seconds; an empty body means the default.

    Raises BadRequest if the body is invalid. Unknown members are rejected: with a misspelt name, such as
    `expires`, the link would otherwise live longer than intended.
    """
    try:
        document = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as exc:
        raise BadRequest("The request body is not valid JSON.") from exc
    if not isinstance(document, dict) or not document.keys() <= {"expiresIn"}:
        raise BadRequest(
            'The request body is not an object with only expiresIn, such as {"expiresIn": 3600}.'
        )
    seconds = document.get("expiresIn", min(DEFAULT_AGE_S, max_age))
    # JSON has one number type: 60.0 equals 60. A boolean is not a number.
    if type(seconds) not in {int, float} or not 1 <= seconds <= max_age or seconds != int(seconds):
        raise BadRequest(f"expiresIn is not an integer number of seconds from 1 to {max_age}.")
    return int(seconds)
