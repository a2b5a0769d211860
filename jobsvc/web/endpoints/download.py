"""`GET /api/jobs/{id}/download`: send the finished file, as it is on disk at the time of the request.

One call in a pool thread reads the record again, opens the output, evaluates the request's conditions against
the open descriptor, and reads a small body if it is in the page cache. The fast path uses no thread; it is
taken if everything is in memory. Every download writes one line to the download log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from aiohttp import hdrs, web

from jobsvc.domain.access import OUTPUTS_READ, Token
from jobsvc.domain.errors import (
    JobCanceled,
    JobFailed,
    JobNotCompleted,
    NotFound,
    NotReady,
    OutputMissing,
    OutputReplaced,
)
from jobsvc.domain.job import Job, Status
from jobsvc.index.digests.digest_service import DigestService
from jobsvc.observe import request_id
from jobsvc.observe.download_log import DownloadLog, DownloadRecord, Outcome
from jobsvc.observe.metrics import Metrics
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.nonblocking.cached_read import SMALL_BODY_BYTES, read_cached
from jobsvc.web import query_params
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.auth.signed_links import BY_LINK
from jobsvc.web.connection.fast_request import FastRequest, PreparedResponse
from jobsvc.web.file_transfer.body_writer import BodyWriter
from jobsvc.web.file_transfer.file_response import FileResponder
from jobsvc.web.file_transfer.selection import FileSelection, Read, ranges_sent, select
from jobsvc.web.file_transfer.transfer_state import TransferState
from jobsvc.web.headers.conditional import version_of
from jobsvc.web.headers.content_headers import content_disposition, content_type, saved_name
from jobsvc.web.headers.repr_digest import wants_sha256
from jobsvc.web.jobs.file_access import JobFileAccess
from jobsvc.web.paths import file_name_of, job_id_of
from jobsvc.web.ratelimit.download_slots import DownloadSlots, Slot
from jobsvc.web.ratelimit.seeking import RangeContinuations
from jobsvc.web.responses import single_write

NOT_COMPLETED_RETRY_S: Final = 5
"""Retry-After if the job is not completed yet."""


def require_output(job: Job, output: FileSelection | None) -> FileSelection:
    """Return the output. Raises JobNotCompleted, JobFailed or JobCanceled if the job is in such a state."""
    if output is None:
        raise without_output(job)
    return output


def without_output(job: Job) -> NotReady:
    """Return the error for a job that has no output because it is not completed."""
    if job.status is Status.FAILED:
        error = job.details.error
        return JobFailed(f"The job failed: {error[:500]}" if error else "The job failed.")
    if job.status is Status.CANCELED:
        return JobCanceled("The job was canceled.")
    return JobNotCompleted(
        f"The job is {job.status}, {job.progress:g} % done.", retry_after=NOT_COMPLETED_RETRY_S
    )


class _Found(NamedTuple):
    job: Job
    output: FileSelection

    @property
    def is_sent(self) -> bool:
        return self.output.is_sent


class DownloadAddress(NamedTuple):
    """What the URL of a download states about the output, besides the job id; None if not given."""

    version: str | None = None
    name: str | None = None

    def check(self, file: OpenFile) -> None:
        """Raise OutputReplaced if the file has another version, NotFound if it has another name."""
        if self.version is not None and self.version != (present := version_of(*file.version.parts())):
            raise OutputReplaced(present)
        if self.name is not None and self.name != saved_name(file.name):
            raise NotFound("The output has another name.")


ANY: Final = DownloadAddress()


def address_of(request: web.Request) -> DownloadAddress:
    """Parse the output's version and name from the URL. Raises BadRequest if `version` is repeated."""
    name = file_name_of(request)
    if "?" not in request.raw_path:
        return DownloadAddress(name=name)
    return DownloadAddress(query_params.get_text(request.query, "version"), name)


class DownloadEndpoint:
    """Handler of `GET /api/jobs/{id}/download` and its dependencies."""

    def __init__(
        self,
        *,
        disk: StorageExecutor,
        visits: JobFileAccess,
        slots: DownloadSlots,
        transfer: BodyWriter,
        digests: DigestService,
        log: DownloadLog,
        metrics: Metrics,
        seeks: RangeContinuations,
    ) -> None:
        self._disk = disk
        self._files = visits
        self._slots = slots
        self._digests = digests
        self._file_responder = FileResponder(transfer, "output", OUTPUTS_READ)
        self._read = self._file_responder.read_buffer.read
        self._log = log
        self._seeks = seeks
        self._unthrottled = transfer.unthrottled
        self._background_tasks: set[asyncio.Task[None]] = set()
        self._bytes = metrics.download_bytes
        self._ends = {outcome: metrics.downloads.labels(outcome) for outcome in Outcome}
        metrics.downloads_in_progress.set_function(lambda: slots.taken)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Handle GET and HEAD."""
        token = request[TOKEN]
        find, answer = partial(self._find, request, token), partial(self._answer, request, token)
        return await self._slots.respond(request, find, answer, self._release)

    def try_fast(self, request: FastRequest, token: Token) -> PreparedResponse | None:
        """Prepare the response to a plain GET if all of it is in memory; return None otherwise."""
        if not (self._unthrottled and self._slots.free(token)) or wants_sha256(request.headers):
            return None
        size_of = self._files.size_of_output
        if hdrs.RANGE not in request.headers and size_of(request.job_id) > SMALL_BODY_BYTES:
            return None  # too large to send from here: it would be opened twice
        address = ANY if request.version is None else DownloadAddress(request.version)
        look = partial(self._look, request, address, self._read)
        job_file = self._files.open_output_nowait(token, request.job_id, look)
        if job_file is None:
            return None
        job, output = job_file.snapshot.job, require_output(job_file.snapshot.job, job_file.file)
        request.client = self._seeks.client_addresses.address_of(request)
        on_finished = partial(self._ended, request.client, job, output, by_link=False)
        response = self._file_responder.try_fast(
            request,
            token,
            output,
            _extra_headers(output.name),
            on_finished,
            run_in_background=self._run_in_background,
        )
        if response is None:
            self._disk.close_later(job_file)
        return response

    async def _answer(
        self, request: web.Request, token: Token, found: _Found, slot: Slot | None
    ) -> web.StreamResponse:
        job, output = found
        seeks = self._seeks
        seeks.record(request, seeks.key_of(request, token), output.evaluation.status)
        ended = partial(
            self._ended, seeks.client_addresses.address_of(request), job, output, by_link=BY_LINK in request
        )
        return await self._file_responder.answer(
            request, job.id, output, _headers(output.name), ended, slot=slot
        )

    def _release(self, found: _Found) -> None:
        self._file_responder.release(found.output)

    def _run_in_background(self, rest: Coroutine[Any, Any, object], state: TransferState) -> None:
        """Continue a download in a task if its client did not accept everything at once."""

        async def hold_slot() -> None:
            with self._slots.hold(state.token) as slot:
                slot.transfer = state
                await rest

        self._background_tasks.add(task := asyncio.create_task(hold_slot()))
        task.add_done_callback(self._background_tasks.discard)

    def _with_digest(self, request: web.Request, job: Job, output: FileSelection) -> FileSelection:
        """Add the digest if the request wants it and it is known; otherwise request its computation.

        A 412 or 416 has none: its body is a problem document, not part of the output.
        """
        if output.evaluation.status >= HTTPStatus.BAD_REQUEST or not wants_sha256(request.headers):
            return output
        return output._replace(digest=self._digests.request(job, output.version))

    async def _find(self, request: web.Request, token: Token) -> _Found:
        seen = await self._files.open_output(
            token, job_id_of(request), partial(self._look, request, address_of(request), read_cached)
        )
        try:
            job = seen.snapshot.job
            return _Found(job, self._with_digest(request, job, require_output(job, seen.file)))
        except BaseException:
            self._disk.close_later(seen)
            raise

    def _look(
        self,
        request: web.Request | FastRequest,
        address: DownloadAddress,
        read: Read,
        reading: JobSnapshot,
        file: OpenFile | None,
    ) -> FileSelection | None:
        if reading.job.status is not Status.COMPLETED:
            return None
        if file is None:
            raise OutputMissing
        if address is not ANY:
            try:
                address.check(file)
            except BaseException:
                file.close()
                raise
        return select(file, request, content_type(file.name), time.time(), read=read)

    def _ended(
        self,
        client: str | None,
        job: Job,
        output: FileSelection,
        shipment: TransferState,
        outcome: Outcome,
        *,
        by_link: bool,
    ) -> None:
        """Count the download in the metrics and write its line to the download log."""
        self._ends[outcome].inc()
        self._bytes.inc(shipment.sent)
        self._log.write(
            DownloadRecord(  # in order: by keyword it takes twice the time
                shipment.started_at,
                request_id.current() or "",
                shipment.token.id,
                job.owner,
                job.id,
                output.name,
                output.selected.etag,
                ranges_sent(output),
                shipment.sent,
                shipment.expected,
                time.time() - shipment.started_at,
                outcome,
                client,
                by_link,
            )
        )


def _headers(name: str) -> dict[str, str]:
    return {"Content-Disposition": content_disposition(name)}


@lru_cache(maxsize=1024)
def _extra_headers(name: str) -> str:
    return single_write.header_lines(_headers(name))
