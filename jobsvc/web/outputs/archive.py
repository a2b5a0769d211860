"""`GET /api/jobs/{id}/archive.tar` and `.zip`: send all files of a job's outputs, or some, as one archive.

An archive is made while it is sent. Its length, its entity tag and any range of it follow from the list of
the files, so that it can be resumed as a single file can.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Hashable, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeAlias
from weakref import WeakValueDictionary

from aiohttp import hdrs, web
from multidict import MultiMapping

from jobsvc.domain.access import OUTPUTS_READ, Token
from jobsvc.domain.errors import BadRequest, FileMissing, NotFound, OutputReplaced
from jobsvc.domain.job import Job
from jobsvc.domain.output_list import main_output
from jobsvc.domain.outputs import Frames, Output, parse_frames
from jobsvc.observe.download_log import Outcome
from jobsvc.observe.metrics import Metrics
from jobsvc.storage.archive.crc32 import Crc32Table
from jobsvc.storage.archive.file_list import FileList
from jobsvc.storage.archive.layout import ArchiveLayout
from jobsvc.storage.archive.output_source import JobOutputs
from jobsvc.storage.archive.tar import TAR, tar_layout
from jobsvc.storage.archive.zip import ZIP, zip_layout
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.web import query_params
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.file_transfer.body_writer import BodyWriter
from jobsvc.web.file_transfer.file_response import FileResponder
from jobsvc.web.file_transfer.selection import Archive, FileSelection, select_archive
from jobsvc.web.file_transfer.transfer_state import TransferState
from jobsvc.web.headers.conditional import RepresentationInfo
from jobsvc.web.headers.content_headers import content_disposition
from jobsvc.web.outputs.download_recorder import DownloadRecorder
from jobsvc.web.outputs.file_lists import FileLists, outputs_named
from jobsvc.web.outputs.requested_output import requested_output_of
from jobsvc.web.paths import job_id_of
from jobsvc.web.ratelimit.download_slots import DownloadSlots, Slot

PARAMETERS: Final = ("output", "frames")

MakeLayout: TypeAlias = Callable[[FileList], Generator[None, None, ArchiveLayout]]


class Format(NamedTuple):
    """A format of archives."""

    suffix: str
    content_type: str
    make_layout: MakeLayout


class ArchiveQuery(NamedTuple):
    """The query parameters of an archive."""

    outputs: frozenset[str]
    """Names of outputs; empty for all."""
    frames: Frames | None
    version: str | None
    only_main: bool = False
    """Whether the main output alone is selected, whatever its name is."""

    def outputs_of(self, job: Job) -> Sequence[Output]:
        """Return the selected outputs. Raises FileMissing if one does not exist."""
        main = main_output(job.outputs) if self.only_main else None
        return outputs_named(self.outputs, job) if main is None else [main]


class _Archive(NamedTuple):
    job: Job
    selection: FileSelection

    @property
    def has_body(self) -> bool:
        return self.selection.has_body


class ArchiveEndpoint:
    """Handlers of the archives, and their dependencies."""

    def __init__(
        self,
        *,
        file_lists: FileLists,
        root: JobsRoot,
        slots: DownloadSlots,
        body_writer: BodyWriter,
        recorder: DownloadRecorder,
        metrics: Metrics,
        crc32_table: Crc32Table,
    ) -> None:
        self._file_lists = file_lists
        self._root = root
        self._slots = slots
        self._responder = FileResponder(body_writer, "archive", OUTPUTS_READ)
        self._recorder = recorder
        self._bytes = metrics.archive_bytes
        self._aborted = metrics.archives_aborted
        self._layouts: WeakValueDictionary[Hashable, ArchiveLayout] = WeakValueDictionary()
        """Those that are being sent: clients that are sent the same archive share the 10 MB of its list."""
        self._formats = {
            TAR: Format(TAR, "application/x-tar", tar_layout),
            ZIP: Format(ZIP, "application/zip", partial(zip_layout, table=crc32_table)),
        }

    async def handle_tar(self, request: web.Request) -> web.StreamResponse:
        """Handle GET and HEAD of a tar archive."""
        return await self._respond(request, self._formats[TAR], parse_query(request.query))

    async def handle_zip(self, request: web.Request) -> web.StreamResponse:
        """Handle GET and HEAD of a zip archive."""
        return await self._respond(request, self._formats[ZIP], parse_query(request.query))

    async def send_main_output(self, request: web.Request) -> web.StreamResponse:
        """Respond with the tar archive of the main output, as requested by a download's URL."""
        requested = requested_output_of(request)
        if requested.name not in {None, f"{job_id_of(request)}.{TAR}"}:
            raise NotFound("The output has a different name.")
        query = ArchiveQuery(frozenset(), None, requested.version, only_main=True)
        return await self._respond(request, self._formats[TAR], query)

    async def version(self, token: Token, job_id: str, suffix: str, *, only_main: bool = False) -> str:
        """Return the version of the archive with this suffix, of all files or of the main output.

        Raises the same as a request for it.
        """
        query = ArchiveQuery(frozenset(), None, None, only_main=only_main)
        return (await self._layout(token, job_id, self._formats[suffix], query))[1].url_version

    async def _respond(self, request: web.Request, kind: Format, query: ArchiveQuery) -> web.StreamResponse:
        open_archive = partial(self._open, request, kind, query)
        return await self._slots.respond(request, open_archive, partial(self._answer, request), _release)

    async def _open(self, request: web.Request, kind: Format, query: ArchiveQuery) -> _Archive:
        """List the files, and select what the request gets of their archive.

        Raises the same as `FileLists.read`; FileMissing if no file is selected; OutputReplaced if the URL
        names another version.
        """
        job_id = job_id_of(request)
        job, layout = await self._layout(request[TOKEN], job_id, kind, query)
        etag_version = layout.etag.strip('"')
        if query.version not in {None, layout.url_version, etag_version}:
            raise OutputReplaced(layout.url_version)
        selected = RepresentationInfo(layout.etag, None, layout.length, kind.content_type)
        name, source = f"{job_id}.{kind.suffix}", JobOutputs(self._root, job)
        # A URL of several archives does not tell which of them a client has a part of; If-Range does.
        is_exact = query.version in {None, etag_version} or hdrs.IF_RANGE in request.headers
        selection = select_archive(
            name,
            Archive(layout, source),
            request,
            selected,
            time.time(),
            accepts_ranges=layout.has_ranges and is_exact,
        )
        return _Archive(job, selection)

    async def _layout(
        self, token: Token, job_id: str, kind: Format, query: ArchiveQuery
    ) -> tuple[Job, ArchiveLayout]:
        """List the files of a job, and compute where each is in the archive of the selected ones."""
        snapshot, files = await self._file_lists.read(token, job_id, query.outputs_of)
        selected = files.select(frames=query.frames)
        if not selected:
            raise FileMissing("The selected outputs have no files with these frame numbers.")
        layout = await self._file_lists.run(job_id, kind.make_layout(selected))
        return snapshot.job, self._layouts.setdefault(_identity(snapshot.job, kind, layout), layout)

    async def _answer(self, request: web.Request, archive: _Archive, slot: Slot | None) -> web.StreamResponse:
        job, selection = archive
        record = self._recorder.on_finished(request, job, selection)

        def on_finished(state: TransferState, outcome: Outcome) -> None:
            self._bytes.inc(state.sent)
            if outcome is not Outcome.COMPLETE:
                self._aborted.labels(outcome).inc()
            record(state, outcome)

        headers = {"Content-Disposition": content_disposition(selection.name)}
        return await self._responder.answer(request, job.id, selection, headers, on_finished, slot=slot)


def parse_query(parameters: MultiMapping[str]) -> ArchiveQuery:
    """Parse the query parameters. Raises BadRequest, naming the invalid parameter."""
    frames = query_params.get_text(parameters, "frames")
    try:
        selected = None if frames is None else parse_frames(frames)
    except ValueError as exc:
        raise BadRequest(f"frames: {exc}.") from exc
    return ArchiveQuery(
        frozenset(parameters.getall("output", ())), selected, query_params.get_text(parameters, "version")
    )


def _identity(job: Job, kind: Format, layout: ArchiveLayout) -> Hashable:
    """Return what is the same for layouts of the same archive whose files are opened in the same way."""
    outputs = tuple((part.output, part.kind) for part in layout.files.outputs)
    return job.id, job.owner, kind.suffix, outputs, layout.etag, layout.has_ranges


def _release(_archive: _Archive) -> None:
    """Release nothing: no file is open before the archive is sent."""
