"""`GET /api/jobs/{id}`: how far a job is, why it failed, and where its output is to be had."""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web
from multidict import CIMultiDict

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.domain.job import Job, Status
from jobsvc.index.digests import Digests
from jobsvc.index.freshness import KNOWN_DEADLINE, Answer, Freshness
from jobsvc.storage.disk import Disk
from jobsvc.storage.reader import JobsRoot
from jobsvc.web import document
from jobsvc.web.gate import TOKEN
from jobsvc.web.representation import Representations
from jobsvc.web.sight import sighted

STALE: Final = "jobsvc; hit; detail=storage-unavailable"
"""Cache-Status of an answer that storage did not confirm (RFC 9211)."""


class StatusRoute:
    """The route's handler and what it needs."""

    def __init__(self, *, disk: Disk, root: JobsRoot, freshness: Freshness, digests: Digests) -> None:
        self._disk = disk
        self._root = root
        self._freshness = freshness
        self._digests = digests
        self._representations = Representations()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer GET and HEAD."""
        job_id, force = request.match_info["id"], _wants_the_disk(request)
        answer = await sighted(self._freshness, request[TOKEN], job_id, force=force)
        job, logs = answer.reading.job, None
        if job.status is Status.FAILED:
            try:
                logs = await self._logs(job)
            except StorageUnavailable:
                answer = answer._replace(stale=True)
        shown = self._representations.of(answer.reading, logs, self._digests.known(answer.reading))
        return document.answer(request, shown.body, _fields(answer, shown.etag))

    async def _logs(self, job: Job) -> str | None:
        """Read the end of a failed job's log; None where there is none. StorageUnavailable."""
        return await self._disk.metadata(job.id, lambda: self._root.log_tail(job), KNOWN_DEADLINE)


def _wants_the_disk(request: web.Request) -> bool:
    """Whether the client asked for an answer that no cache gives (RFC 9111, section 5.2.1.4)."""
    wanted = request.headers.get(hdrs.CACHE_CONTROL)
    return wanted is not None and "no-cache" in wanted.lower()


def _fields(answer: Answer, etag: str) -> CIMultiDict[str]:
    headers = CIMultiDict(
        {
            "ETag": etag,
            "Content-Type": "application/json",
            "Cache-Control": "private, no-cache",
            "Age": str(int(answer.age)),
            "X-Content-Type-Options": "nosniff",
        }
    )
    if answer.stale:
        headers["Cache-Status"] = STALE
    return headers
