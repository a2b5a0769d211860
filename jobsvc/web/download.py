"""`GET /api/jobs/{id}/download`: the finished file, decided by the disk at the moment of the request.

One hop to a thread reads the record anew, opens the output, evaluates the request's conditions against the
open descriptor, and fetches a small body that lies in memory. Every download ends as one line of the log.
"""

from __future__ import annotations

import time
from dataclasses import replace
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from jobsvc.domain.access import Token, sees
from jobsvc.domain.errors import JobCanceled, JobFailed, JobNotCompleted, JobNotFound, NotReady
from jobsvc.domain.job import Job, Status
from jobsvc.index.catalogue import Catalogue
from jobsvc.index.digests import Digests
from jobsvc.index.freshness import Freshness
from jobsvc.observe import request_id
from jobsvc.observe.audit import DownloadLog, DownloadRecord, Outcome
from jobsvc.observe.metrics import Metrics
from jobsvc.storage.disk import Disk
from jobsvc.storage.reader import Absent, JobsRoot
from jobsvc.web import problems
from jobsvc.web.byteranges import unsatisfied
from jobsvc.web.digest_fields import wants_sha256
from jobsvc.web.envelope import seal
from jobsvc.web.gate import TOKEN
from jobsvc.web.selection import Output, Plan, fields, look, plan, ranges_sent
from jobsvc.web.sight import sighted
from jobsvc.web.slots import Slots
from jobsvc.web.transfer import Interrupted, Shipment, Transfer

RETRY_AFTER: Final = 5
"""Seconds until it may be worth asking again for the output of a job that is under way."""


def require_output(job: Job, output: Output | None) -> Output:
    """Return the output; JobNotCompleted, JobFailed or JobCanceled where the job's state forbids it."""
    if output is None:
        raise without_output(job)
    return output


def without_output(job: Job) -> NotReady:
    """Say why a job that is not completed has no output."""
    if job.status is Status.FAILED:
        return JobFailed(f"The job failed: {job.error[:500]}" if job.error else "The job failed.")
    if job.status is Status.CANCELED:
        return JobCanceled("The job was canceled.")
    return JobNotCompleted(f"The job is {job.status}, {job.progress:g} % done.", retry_after=RETRY_AFTER)


class Download:
    """The route's handler and what it needs."""

    def __init__(  # noqa: PLR0913 - what a download is made of
        self,
        *,
        disk: Disk,
        root: JobsRoot,
        catalogue: Catalogue,
        freshness: Freshness,
        slots: Slots,
        transfer: Transfer,
        digests: Digests,
        log: DownloadLog,
        metrics: Metrics,
    ) -> None:
        self._disk = disk
        self._root = root
        self._catalogue = catalogue
        self._freshness = freshness
        self._slots = slots
        self._transfer = transfer
        self._digests = digests
        self._log = log
        self._metrics = metrics

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer GET and HEAD."""
        token = request[TOKEN]
        if request.method == "HEAD":
            return await self._answer(request, token)
        with self._slots.take(token.id), self._metrics.downloads_in_progress.track_inprogress():
            return await self._answer(request, token)

    async def _answer(self, request: web.Request, token: Token) -> web.StreamResponse:
        job, output = await self._find(request, token)
        digest = self._digest(request, job, output)
        planned = plan(output, digest)
        if planned is not None and request.method == "GET":
            return await self._deliver(request, token, job, output, planned)
        if planned is not None:
            headers = planned.headers | {hdrs.CONTENT_LENGTH: str(planned.length)}
            return web.Response(status=output.decision.status, headers=headers)
        if output.decision.status is HTTPStatus.NOT_MODIFIED:
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=fields(output, digest))
        return _refusal(output)

    def _digest(self, request: web.Request, job: Job, output: Output) -> bytes | None:
        """Return the output's digest where the request would like it and it is known; else it soon will be.

        A 412 or 416 has none: what it carries is a problem, and no part of the output.
        """
        if output.decision.status >= HTTPStatus.BAD_REQUEST or not wants_sha256(request.headers):
            return None
        return self._digests.wished(job, output.identity)

    async def _find(self, request: web.Request, token: Token) -> tuple[Job, Output]:
        """Ask the disk; whose job it is, is asked of what was known and again of what the disk says."""
        job_id = request.match_info["id"]
        entry = self._catalogue.get(job_id)
        if entry is not None and sees(token, entry.reading.job.owner):
            known = entry.reading
        else:
            known = (await sighted(self._freshness, token, job_id)).reading
        now = time.time()
        try:
            seen = await self._disk.metadata(job_id, lambda: look(self._root, known, request, token, now))
        except Absent as absent:
            self._freshness.learn(job_id, None)
            raise JobNotFound from absent
        self._freshness.learn(job_id, seen.reading)
        job, output = seen.reading.job, seen.output
        try:
            return job, require_output(job, output)
        except BaseException:
            self._disk.release(seen)
            raise

    async def _deliver(
        self, request: web.Request, token: Token, job: Job, output: Output, planned: Plan
    ) -> web.StreamResponse:
        """Send the bytes, and write the download down however it ended."""
        response = web.StreamResponse(status=output.decision.status, headers=planned.headers)
        response.content_length = planned.length
        seal(request, response)
        shipment = Shipment(job.id, planned.segments, planned.promised)
        record = DownloadRecord(
            when=time.time(),
            request_id=request_id.current() or "",
            token_id=token.id,
            owner=job.owner,
            job=job.id,
            file=output.name,
            etag=output.selected.etag,
            range=ranges_sent(output),
            bytes_sent=0,
            bytes_promised=planned.promised,
            seconds=0,
            outcome=Outcome.SHUTDOWN,
        )
        try:
            if output.file is None:
                await self._transfer.send_small(request, response, output.body or b"", shipment)
            else:
                await self._transfer.send(request, response, output.file, shipment)
            record = replace(record, outcome=Outcome.COMPLETE)
        except Interrupted as early:
            record = replace(record, outcome=early.outcome)
        finally:
            seconds = time.time() - record.when
            self._account(replace(record, bytes_sent=shipment.sent, seconds=seconds))
        return response

    def _account(self, record: DownloadRecord) -> None:
        self._metrics.downloads.labels(record.outcome).inc()
        self._metrics.download_bytes.inc(record.bytes_sent)
        self._log.write(record)


def _refusal(output: Output) -> web.Response:
    """Answer a 412 or a 416; both say which version it is that they speak of."""
    headers = {"ETag": output.selected.etag}
    if output.decision.status is HTTPStatus.PRECONDITION_FAILED:
        return problems.problem("precondition-failed", "The output is not the one you know.", headers=headers)
    headers["Content-Range"] = unsatisfied(output.selected.size)
    detail = f"The output has {output.selected.size} bytes, and the range lies outside of them."
    return problems.problem("range-not-satisfiable", detail, headers=headers)
