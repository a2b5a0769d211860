"""`POST /api/jobs/{id}/download-links`: create a link for clients that cannot send a header.

A link is for the main output, for one file of any output, or for an archive of all files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import structlog
from aiohttp import web

from jobsvc.domain.access import Token
from jobsvc.domain.errors import BadRequest, OutputMissing
from jobsvc.domain.job import Job, Status
from jobsvc.domain.timestamp import format_time
from jobsvc.index.catalogue.freshness import Freshness
from jobsvc.storage.archive.tar import TAR
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.layout import components
from jobsvc.storage.state.link_record import IssuedLink
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.auth.signed_links import SignedLinks
from jobsvc.web.headers.conditional import version_id
from jobsvc.web.headers.content_headers import content_type, is_shown_safely
from jobsvc.web.jobs.file_access import JobFileAccess
from jobsvc.web.jobs.lookup import get_visible_job
from jobsvc.web.jobs.urls import PublicUrl, job_base
from jobsvc.web.outputs.archive import ArchiveEndpoint
from jobsvc.web.outputs.link_request import LinkRequest, read_link_request
from jobsvc.web.outputs.requested_output import RequestedFile, require_output, without_output
from jobsvc.web.paths import download_reference, file_reference, job_id_of
from jobsvc.web.responses import json_response

log = structlog.get_logger("jobsvc.web")


class _Target(NamedTuple):
    """What a link leads to."""

    reference: str
    """Path and file name, relative to the job's URL."""
    version: str
    name: str


class DownloadLinksEndpoint:
    """Handler of `POST /api/jobs/{id}/download-links` and its dependencies."""

    def __init__(
        self,
        *,
        freshness: Freshness,
        files: JobFileAccess,
        archives: ArchiveEndpoint,
        links: SignedLinks,
        public_url: PublicUrl,
        max_age: int,
        on_created: Callable[[IssuedLink], None],
    ) -> None:
        """`max_age` is the maximum lifetime of a link, in seconds; `on_created` is called for each link."""
        self._freshness = freshness
        self._files = files
        self._archives = archives
        self._links = links
        self._public_url = public_url
        self._max_age = max_age
        self._on_created = on_created

    async def handle(self, request: web.Request) -> web.Response:
        """Handle POST: return 201 with the link. Raises the error that a download would raise now."""
        token, job_id = request[TOKEN], job_id_of(request)
        wanted = await read_link_request(request, self._max_age)
        target = await self._find(token, job_id, wanted)
        if wanted.inline and not is_shown_safely(content_type(target.name)):
            raise BadRequest(
                f"inline: a browser cannot safely show a file of type {content_type(target.name)}."
            )
        root = job_base("", job_id)
        link = self._links.create(
            root + target.reference, target.version, token, wanted.seconds, inline=wanted.inline
        )
        self._on_created(
            IssuedLink(link.id, job_id, target.name, token.id, token.owner, time.time(), link.expires / 1000)
        )
        log.info("link-created", link=link.id, job=job_id, tokenId=token.id, seconds=wanted.seconds)
        url = self._public_url.job_base_for(request, job_id) + link.target.removeprefix(root)
        document = {"id": link.id, "url": url, "expiresAt": format_time(link.expires * 1000)}
        return json_response.uncached(document, status=201)

    async def _find(self, token: Token, job_id: str, wanted: LinkRequest) -> _Target:
        if wanted.file is not None:
            return await self._find_file(token, job_id, *wanted.file)
        if wanted.archive is not None:
            version = await self._archives.version(token, job_id, wanted.archive)
            return _Target(f"archive.{wanted.archive}", version, f"{job_id}.{wanted.archive}")
        snapshot = (await get_visible_job(self._freshness, token, job_id, force=True)).snapshot
        if snapshot.job.status is not Status.COMPLETED:
            raise without_output(snapshot.job)
        if snapshot.output_version is not None:
            name = _file_name(snapshot.job)
            return _Target(download_reference(name), version_id(*snapshot.output_version.parts()), name)
        if not snapshot.has_output:
            raise OutputMissing
        name = f"{job_id}.{TAR}"
        return _Target(
            download_reference(name), await self._archives.version(token, job_id, TAR, only_main=True), name
        )

    async def _find_file(self, token: Token, job_id: str, output: str, path: str | None) -> _Target:
        requested = RequestedFile(output, path, None)
        job_file = await self._files.open_file(token, job_id, requested.path_in, _version_and_name)
        version, name = require_output(job_file.snapshot.job, job_file.file)
        return _Target(file_reference(output, path or name), version_id(*version.parts()), name)


def _version_and_name(_snapshot: JobSnapshot, file: OpenFile | None) -> tuple[FileVersion, str] | None:
    if file is None:
        return None
    file.close()
    return file.version, file.name


def _file_name(job: Job) -> str:
    """Return the file name of a job's output: the last component of its path."""
    return (components(job.output_path or "") or ("",))[-1]
