"""`POST /api/jobs/{id}/download-links`: create a link to the output for clients that cannot send a header."""

from __future__ import annotations

from typing import Final

import orjson
import structlog
from aiohttp import web

from jobsvc.domain.errors import BadRequest, OutputMissing
from jobsvc.domain.job import Job, Status
from jobsvc.domain.timestamp import format_time
from jobsvc.index.catalogue.freshness import Freshness
from jobsvc.storage.layout import components
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.auth.signed_links import Link, SignedLinks
from jobsvc.web.endpoints.download import without_output
from jobsvc.web.endpoints.request_body import read_body
from jobsvc.web.headers.conditional import version_of
from jobsvc.web.jobs.addresses import PublicUrl, came_by_proxy
from jobsvc.web.jobs.lookup import get_visible_job
from jobsvc.web.paths import JOBS, job_id_of

DEFAULT_AGE_S: Final = 3600
"""Seconds; shorter if the operator allows less."""

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
        reading = (await get_visible_job(self._freshness, token, job_id, force=True)).snapshot
        if reading.job.status is not Status.COMPLETED:
            raise without_output(reading.job)
        if reading.output_version is None:
            raise OutputMissing
        link = self._links.create(
            job_id, _file_name(reading.job), version_of(*reading.output_version.parts()), token, seconds
        )
        log.info("link-made", job=job_id, token_id=token.id, seconds=seconds)
        return web.Response(
            status=201,
            body=orjson.dumps(
                {"url": self._url(request, link), "expiresAt": format_time(link.expires * 1000)}
            ),
            content_type="application/json",
            headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
        )

    def _url(self, request: web.Request, link: Link) -> str:
        public_url = self._public_url.for_request(request)
        if public_url or not came_by_proxy(request):
            return public_url + link.target
        return link.target.removeprefix(f"{JOBS}{job_id_of(request)}/")


def _file_name(job: Job) -> str:
    """Return the file name of a job's output: the last component of its path."""
    return (components(job.output_path or "") or ("",))[-1]


def requested_seconds(body: bytes, most: int) -> int:
    """Parse the requested lifetime of the link, in seconds; an empty body means the default.

    Raises BadRequest if the body is invalid. Unknown members are rejected: with a misspelt name, such as
    `expires`, the link would otherwise live longer than intended.
    """
    try:
        wish = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as wrong:
        raise BadRequest("The body is not JSON.") from wrong
    if not isinstance(wish, dict) or not wish.keys() <= {"expiresIn"}:
        raise BadRequest('The body is not an object with "expiresIn" alone, such as {"expiresIn": 3600}.')
    seconds = wish.get("expiresIn", min(DEFAULT_AGE_S, most))
    # JSON has one number type: 60.0 equals 60. A boolean is not a number.
    if type(seconds) not in {int, float} or not 1 <= seconds <= most or seconds != int(seconds):
        raise BadRequest(f"expiresIn is not a whole number of seconds from 1 to {most}.")
    return int(seconds)
