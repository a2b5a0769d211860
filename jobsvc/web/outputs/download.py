"""`GET /api/jobs/{id}/download`: send the finished file, as it is on disk at the time of the request.

The guard has checked the token before, but not whether it can see the job. `handle` responds in a task: it
takes a slot, `_open` opens the output, and `_answer` sends it. `prepare_fast` does the same without a wait if
everything is in memory. Every download writes one line to the download log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any, NamedTuple

from aiohttp import hdrs, web

from jobsvc.domain.access import OUTPUTS_READ, Token
from jobsvc.domain.errors import OutputMissing
from jobsvc.domain.job import Job, Status
from jobsvc.index.digests.digest_service import DigestService
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.nonblocking.cached_read import SMALL_BODY_BYTES, read_cached
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.auth.signed_links import INLINE
from jobsvc.web.connection.fast_request import FastRequest, PreparedResponse
from jobsvc.web.file_transfer.body_writer import BodyWriter
from jobsvc.web.file_transfer.file_response import FileResponder
from jobsvc.web.file_transfer.selection import FileSelection, Read, select_from
from jobsvc.web.file_transfer.transfer_state import TransferState
from jobsvc.web.headers.content_headers import content_disposition, content_type
from jobsvc.web.headers.repr_digest import wants_sha256
from jobsvc.web.jobs.file_access import JobFileAccess
from jobsvc.web.jobs.record_reads import JobFile
from jobsvc.web.outputs.archive import ArchiveEndpoint
from jobsvc.web.outputs.download_recorder import DownloadRecorder
from jobsvc.web.outputs.requested_output import (
    CURRENT_OUTPUT,
    RequestedFile,
    RequestedOutput,
    requested_file_of,
    requested_output_of,
    require_output,
)
from jobsvc.web.paths import job_id_of
from jobsvc.web.ratelimit.download_slots import DownloadSlots, Slot
from jobsvc.web.ratelimit.further_ranges import FurtherRanges
from jobsvc.web.responses import single_write


class _Download(NamedTuple):
    job: Job
    output: FileSelection

    @property
    def has_body(self) -> bool:
        return self.output.has_body


class OutputIsNoFile(Exception):
    """The main output is a directory or a sequence: it is sent as an archive."""


def _why_no_file(snapshot: JobSnapshot) -> Exception:
    """Return the error for a completed job whose main output could not be opened as a file."""
    return OutputIsNoFile() if snapshot.has_output and snapshot.output_version is None else OutputMissing()


class DownloadEndpoint:
    """Handler of `GET /api/jobs/{id}/download` and its dependencies."""

    def __init__(
        self,
        *,
        disk: StorageExecutor,
        files: JobFileAccess,
        archives: ArchiveEndpoint,
        slots: DownloadSlots,
        body_writer: BodyWriter,
        digests: DigestService,
        recorder: DownloadRecorder,
        further_ranges: FurtherRanges,
    ) -> None:
        self._disk = disk
        self._archives = archives
        self._files = files
        self._slots = slots
        self._digests = digests
        self._file_responder = FileResponder(body_writer, "output", OUTPUTS_READ)
        self._read = self._file_responder.read_buffer.read
        self._recorder = recorder
        self._further_ranges = further_ranges
        self._unthrottled = body_writer.unthrottled
        self._background_tasks: set[asyncio.Task[None]] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Handle GET and HEAD of the main output; a directory or sequence is sent as a tar archive."""
        token = request[TOKEN]
        open_output, answer = partial(self._open, request, token), partial(self._answer, request, token)
        try:
            return await self._slots.respond(request, open_output, answer, self._release)
        except OutputIsNoFile:
            return await self._archives.send_main_output(request)

    async def handle_file(self, request: web.Request) -> web.StreamResponse:
        """Handle GET and HEAD of one file of an output."""
        token = request[TOKEN]
        open_file, answer = partial(self._open_file, request, token), partial(self._send, request)
        return await self._slots.respond(request, open_file, answer, self._release)

    async def _open(self, request: web.Request, token: Token) -> _Download:
        """Read the record, open the output and select what the request gets, in one call in a pool thread.

        Raises JobNotFound, also for another owner's job; NotReady; OutputMissing; StorageUnavailable; and the
        errors of `RequestedOutput.check`.
        """
        select_output = partial(self._select, request, requested_output_of(request), read_cached)
        job_file = await self._files.open_output(token, job_id_of(request), select_output)
        return self._opened(request, job_file)

    async def _open_file(self, request: web.Request, token: Token) -> _Download:
        """Like `_open`, for the file that the URL names; raises FileMissing if there is none."""
        requested = requested_file_of(request)
        select_file = partial(self._select, request, requested, read_cached)
        job_file = await self._files.open_file(token, job_id_of(request), requested.path_in, select_file)
        return self._opened(request, job_file, requested)

    def _opened(
        self,
        request: web.Request,
        job_file: JobFile[FileSelection | None],
        requested: RequestedFile | None = None,
    ) -> _Download:
        """Return the open download. Raises JobNotCompleted, JobFailed or JobCanceled."""
        try:
            snapshot = job_file.snapshot
            output = require_output(snapshot.job, job_file.file)
            path = None if requested is None else requested.path_in(snapshot)
            return _Download(snapshot.job, self._with_digest(request, snapshot.job, output, path))
        except BaseException:
            self._disk.close_later(job_file)
            raise

    def _select(
        self,
        request: web.Request | FastRequest,
        requested: RequestedOutput | RequestedFile,
        read: Read,
        snapshot: JobSnapshot,
        file: OpenFile | None,
    ) -> FileSelection | None:
        """Select what the request gets of the open output; None if the job is not completed.

        Runs in the thread that opened the file, or on the event loop if nothing can block. Raises
        OutputMissing, and the errors of `requested.check`; the file is closed then.
        """
        if snapshot.job.status is not Status.COMPLETED:
            return None
        if file is None:
            raise _why_no_file(snapshot)
        if requested is not CURRENT_OUTPUT:
            try:
                requested.check(file)
            except BaseException:
                file.close()
                raise
        return select_from(file, request, content_type(file.name), time.time(), read=read)

    def _with_digest(
        self, request: web.Request, job: Job, output: FileSelection, path: str | None
    ) -> FileSelection:
        """Add the digest if the request wants it and it is known; otherwise request its computation.

        A 412 or 416 has none: its body is a problem document, not part of the output. `path`: the file's path
        in the record; None for the main output.
        """
        if (
            output.version is None
            or output.evaluation.status >= HTTPStatus.BAD_REQUEST
            or not wants_sha256(request.headers)
        ):
            return output
        return output._replace(digest=self._digests.request(job, output.version, path))

    async def _answer(
        self, request: web.Request, token: Token, download: _Download, slot: Slot | None
    ) -> web.StreamResponse:
        """Send the response; `slot` is None if it has no body."""
        further = self._further_ranges
        further.record(request, further.key_of(request, token), download.output.evaluation.status)
        return await self._send(request, download, slot)

    async def _send(self, request: web.Request, download: _Download, slot: Slot | None) -> web.StreamResponse:
        job, output = download
        on_finished = self._recorder.on_finished(request, job, output)
        headers = _headers(output.name, inline=request.get(INLINE, False))
        return await self._file_responder.answer(request, job.id, output, headers, on_finished, slot=slot)

    def _release(self, download: _Download) -> None:
        self._file_responder.release(download.output)

    def prepare_fast(self, request: FastRequest, token: Token) -> PreparedResponse | None:
        """Prepare the response to a plain GET if all of it is in memory; return None otherwise."""
        if not self._may_be_fast(request, token):
            return None
        if (
            hdrs.RANGE not in request.headers
            and self._files.size_of_output(request.job_id) > SMALL_BODY_BYTES
        ):
            return None  # too large to send from here: it would be opened twice
        requested = CURRENT_OUTPUT if request.version is None else RequestedOutput(request.version)
        select_output = partial(self._select, request, requested, self._read)
        job_file = self._files.open_output_nowait(token, request.job_id, select_output)
        return None if job_file is None else self._prepare_fast(request, token, job_file)

    def prepare_fast_file(self, request: FastRequest, token: Token) -> PreparedResponse | None:
        """Prepare the response to a plain GET of a file of an output, like `prepare_fast`."""
        if request.file is None or not self._may_be_fast(request, token):
            return None
        requested = RequestedFile(*request.file, request.version)
        select_file = partial(self._select, request, requested, self._read)
        job_file = self._files.open_file_nowait(token, request.job_id, requested.path_in, select_file)
        return None if job_file is None else self._prepare_fast(request, token, job_file)

    def _may_be_fast(self, request: FastRequest, token: Token) -> bool:
        return self._unthrottled and self._slots.has_slot_for(token) and not wants_sha256(request.headers)

    def _prepare_fast(
        self, request: FastRequest, token: Token, job_file: JobFile[FileSelection | None]
    ) -> PreparedResponse | None:
        job, output = job_file.snapshot.job, require_output(job_file.snapshot.job, job_file.file)
        request.client = self._further_ranges.client_addresses.address_of(request)
        on_finished = partial(
            self._recorder.record, request.client, job, output, link=None, headers=request.headers
        )
        response = self._file_responder.prepare_fast(
            request,
            token,
            output,
            _extra_lines(output.name),
            on_finished,
            run_in_background=self._run_in_background,
        )
        if response is None:
            self._disk.close_later(job_file)
        return response

    def _run_in_background(self, rest: Coroutine[Any, Any, object], state: TransferState) -> None:
        """Continue a download in a task if its client did not accept everything at once."""

        async def finish() -> None:
            with self._slots.hold(state.token) as slot:
                slot.transfer = state
                await rest

        self._background_tasks.add(task := asyncio.create_task(finish()))
        task.add_done_callback(self._background_tasks.discard)


def _headers(name: str, *, inline: bool = False) -> dict[str, str]:
    """Return the fields that all responses with this file have; the sandbox applies if a browser shows it."""
    if not inline:
        return {"Content-Disposition": content_disposition(name)}
    return {
        "Content-Disposition": content_disposition(name, "inline"),
        "Content-Security-Policy": "sandbox",
    }


@lru_cache(maxsize=1024)
def _extra_lines(name: str) -> str:
    return single_write.header_lines(_headers(name))
