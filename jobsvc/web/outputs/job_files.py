"""`GET /api/jobs/{id}/files`: list the files of a job's outputs."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, NamedTuple

import orjson
from aiohttp import hdrs, web
from multidict import MultiMapping

from jobsvc.domain.errors import BadRequest
from jobsvc.domain.timestamp import format_timestamp, timestamp_at
from jobsvc.index.digests.digest_service import DigestService
from jobsvc.storage.archive.file_list import FileList, ListedFile
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.output_file import path_of_file
from jobsvc.web import query_params
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.headers.conditional import etag_of, version_id
from jobsvc.web.headers.content_headers import content_type
from jobsvc.web.headers.repr_digest import wants_sha256
from jobsvc.web.jobs import page_cursor
from jobsvc.web.jobs.representation import entity_tag
from jobsvc.web.jobs.urls import PublicUrl, file_url
from jobsvc.web.outputs.file_lists import FileLists, JobFiles, outputs_named
from jobsvc.web.paths import job_id_of
from jobsvc.web.responses import json_response

PARAMETERS: Final = ("output", "limit", "cursor")
DEFAULT_LIMIT: Final = 200
MAX_LIMIT: Final = 1000


class FilesQuery(NamedTuple):
    """The query parameters of the list of files."""

    outputs: frozenset[str]
    """Names of outputs; empty for all."""
    limit: int
    after: tuple[str, str] | None
    """Output and path of the last file of the previous page."""


class FilesPage(NamedTuple):
    """One page of the list of files."""

    body: bytes
    """JSON."""
    without_digest: list[tuple[str, FileVersion]]
    """The files whose digest is not known: path in the record, and version."""


class JobFilesEndpoint:
    """Handler of `GET /api/jobs/{id}/files` and its dependencies."""

    def __init__(
        self, *, disk: StorageExecutor, file_lists: FileLists, digests: DigestService, public_url: PublicUrl
    ) -> None:
        self._disk = disk
        self._file_lists = file_lists
        self._digests = digests
        self._public_url = public_url

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Handle GET and HEAD."""
        query, job_id = parse_query(request.query), job_id_of(request)
        job_files = await self._file_lists.read_kept(request[TOKEN], job_id, is_first=query.after is None)
        base = self._public_url.job_base_for(request, job_id)
        # In a thread: a page of 1,000 files takes longer than the event loop may be held up.
        page = await self._disk.run_metadata(
            job_id, partial(render_page, job_files, query, base, self._digests)
        )
        if page.without_digest and request.method == hdrs.METH_GET and wants_sha256(request.headers):
            self._digests.request_files(job_files.snapshot.job, page.without_digest)
        fields = json_response.index_fields(entity_tag(page.body), 0, stale=False, unreadable=False)
        return json_response.respond(request, page.body, fields)


def parse_query(parameters: MultiMapping[str]) -> FilesQuery:
    """Parse the query parameters. Raises BadRequest, naming the invalid parameter."""
    return FilesQuery(
        frozenset(parameters.getall("output", ())),
        query_params.get_int(parameters, "limit", MAX_LIMIT, minimum=1) or DEFAULT_LIMIT,
        _after(query_params.get_text(parameters, "cursor")),
    )


def render_page(job_files: JobFiles, query: FilesQuery, base: str, digests: DigestService) -> FilesPage:
    """Render one page; `base` is the prefix of the job's URLs.

    A cursor of a file that is gone continues with the next one.
    """
    outputs = outputs_named(query.outputs, job_files.snapshot.job)
    files = job_files.files.select([output.name for output in outputs])
    start = 0 if query.after is None else _index_after(files, *query.after)
    page = list(files.slice(start, start + query.limit))
    stop = start + len(page)
    job, kinds = job_files.snapshot.job, {part.output.name: part.kind for part in files.outputs}
    documents, without_digest = [], []
    for file in page:
        path = path_of_file(file.output, kinds[file.output.name], file.path)
        digest = None if path is None else digests.known_file(job, path, file.version)
        if path is not None and digest is None:
            without_digest.append((path, file.version))
        documents.append(render_file(file, base, digest))
    document: dict[str, Any] = {
        "files": documents,
        "totalFiles": len(files),
        "totalSize": files.total_size,
        **_incomplete(files),
        "nextCursor": None if stop >= len(files) else _cursor(page[-1]),
    }
    return FilesPage(orjson.dumps(document), without_digest)


def render_file(file: ListedFile, base: str, digest: bytes | None) -> dict[str, Any]:
    """Return one file as a document with the member names of the API."""
    numbers = file.version.parts()
    document: dict[str, Any] = {"output": file.output.name, "path": file.path}
    if file.frame is not None:
        document["frame"] = file.frame
    document |= {
        "size": file.version.size,
        "modifiedAt": format_timestamp(timestamp_at(file.version.mtime_ns // 1000)),
        "contentType": content_type(file.path),
        "etag": etag_of(*numbers),
    }
    if digest is not None:
        document["sha256"] = digest.hex()
    document["downloadUrl"] = file_url(base, file.output.name, version_id(*numbers), file.path)
    return document


def _incomplete(files: FileList) -> dict[str, Any]:
    """Return what is not listed: frames that are missing, and entries that cannot be served."""
    missing = {part.output.name: count for part in files.outputs if (count := part.missing_frames())}
    left_out = sum(part.skipped + part.unusable for part in files.outputs)
    return ({"missingFrames": missing} if missing else {}) | ({"leftOut": left_out} if left_out else {})


def _cursor(file: ListedFile) -> str:
    return page_cursor.encode(f"{file.output.name}/{file.path}".encode(), page_cursor.FILES)


def _after(cursor: str | None) -> tuple[str, str] | None:
    if cursor is None:
        return None
    position = page_cursor.decode(cursor, page_cursor.FILES) or b""
    output, slash, path = position.decode("utf-8", "replace").partition("/")
    if not slash:
        raise BadRequest(f"cursor: {query_params.quote(cursor)} is not a nextCursor of a list of files.")
    return output, path


def _index_after(files: FileList, output: str, path: str) -> int:
    """Return the index of the file that follows this one."""
    index = files.index_at(output, path)
    if index is None:
        raise BadRequest("cursor: it belongs to an output that is not listed.")
    found = files.find(output, path)
    return index if found is None else found + 1
