"""Decide what a request gets of an open file: the status, the header fields, the segments of the body.

`select_from` does all I/O. It runs in the thread that opened the file, or on the event loop if nothing can
block; the other functions do no I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from secrets import token_hex
from typing import Final, NamedTuple

from aiohttp import hdrs, web

from jobsvc.storage.archive.layout import ArchiveLayout
from jobsvc.storage.archive.output_source import OutputSource
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.nonblocking.cached_read import SMALL_BODY_BYTES, Body, read_cached
from jobsvc.web.connection.fast_request import FastRequest
from jobsvc.web.headers import repr_digest
from jobsvc.web.headers.byte_ranges import BOUNDARY_LENGTH, ByteRange, content_range, multipart
from jobsvc.web.headers.conditional import Evaluation, RepresentationInfo, etag_of, evaluate, last_modified_of
from jobsvc.web.headers.http_dates import format_date
from jobsvc.web.responses import single_write

# Looking up a member of an enumeration is slow.
_OK: Final = HTTPStatus.OK
_WITH_BODY: Final = (_OK, HTTPStatus.PARTIAL_CONTENT)

_NEVER: Final = 1 << 63
"""Seconds since the epoch, later than the mtime of any file."""

Read = Callable[[OpenFile, int, int], Body | None]
"""Reads from one offset up to another what is in memory; returns None if it is not."""


class Archive(NamedTuple):
    """An archive that is made while it is sent."""

    layout: ArchiveLayout
    source: OutputSource

    def close(self) -> None:
        """Do nothing: the files are opened one at a time, while they are sent."""


class FileSelection(NamedTuple):
    """A file of a job, and which part of it the request gets."""

    name: str
    version: FileVersion | None
    """The version of the file; None for an archive."""
    selected: RepresentationInfo
    evaluation: Evaluation
    body: Body | None
    """The whole body, if it is small and was in memory, or empty if none is sent; None if it is still to be
    sent from the file."""
    file: OpenFile | Archive | None
    """Open if the body is still to be sent from it, otherwise None."""
    base: int = 0
    """Offset in the file at which the selected representation begins."""
    digest: bytes | None = None
    """SHA-256 of the whole file, if it is to be sent."""
    accepts_ranges: bool = True

    @property
    def has_body(self) -> bool:
        """Whether the response to a GET has the file, or part of it, as its body."""
        return self.evaluation.status in _WITH_BODY

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()


class BodyPlan(NamedTuple):
    """The header fields of a 200 or 206, and the segments of its body in order."""

    headers: dict[str, str]
    segments: tuple[ByteRange | bytes, ...]
    length: int
    """Content-Length, in bytes."""
    expected: int
    """How many of these bytes are from the file."""


def select_from(
    file: OpenFile,
    request: web.Request | FastRequest,
    media_type: str,
    now: float,
    *,
    base: int = 0,
    read: Read = read_cached,
) -> FileSelection:
    """Decide what the request gets of an open file, from `base` on; `now` is in seconds since the epoch.

    `read` reads a small body that is in memory. The file is closed if nothing of it remains to be sent, or if
    this raises.
    """
    try:
        selected = _representation(file.version, media_type, now, base)
        evaluation = evaluate(request.method, request.headers, selected, now)
        ranges = _ranges_to_send(evaluation, selected.size) if request.method == hdrs.METH_GET else ()
        body = _body_at_once(file, read, ranges, base)
    except BaseException:
        file.close()
        raise
    if body is not None:
        file.close()
    remaining = None if body is not None else file
    return FileSelection(file.name, file.version, selected, evaluation, body, remaining, base)


def select_archive(
    name: str,
    archive: Archive,
    request: web.Request,
    selected: RepresentationInfo,
    now: float,
    *,
    accepts_ranges: bool,
) -> FileSelection:
    """Decide what the request gets of an archive; `now` is in seconds since the epoch. Opens nothing.

    Without `accepts_ranges` the Range field is ignored (RFC 9110, section 14.2), as for HEAD.
    """
    method = request.method if accepts_ranges else hdrs.METH_HEAD
    evaluation = evaluate(method, request.headers, selected, now)
    ranges = _ranges_to_send(evaluation, selected.size) if request.method == hdrs.METH_GET else ()
    body, archive_left = (None, archive) if ranges else (b"", None)
    return FileSelection(name, None, selected, evaluation, body, archive_left, accepts_ranges=accepts_ranges)


def header_fields(selection: FileSelection) -> dict[str, str]:
    """Return the header fields of a 200, 206 or 304 (RFC 9110, section 15.4.5).

    On a 206 the digest also covers the whole file (RFC 9530, section 3). A 304 has it too: a client that asks
    for it has the file without it.
    """
    headers = _fields(selection.selected, selection.digest)
    if not selection.accepts_ranges:
        headers["Accept-Ranges"] = "none"
    return headers


def _fields(selected: RepresentationInfo, digest: bytes | None) -> dict[str, str]:
    headers = {
        "ETag": selected.etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Referrer-Policy": "no-referrer",  # the URL may be a signed link
        "X-Content-Type-Options": "nosniff",
    }
    if selected.last_modified is not None:
        headers["Last-Modified"] = format_date(selected.last_modified)
    if digest is not None:
        headers[repr_digest.FIELD] = repr_digest.repr_digest(digest)
    return headers


def plan(selection: FileSelection) -> BodyPlan | None:
    """Return the fields and segments of a 200 or 206, or None for any other status."""
    if selection.evaluation.status not in _WITH_BODY:
        return None
    headers, selected, requested = header_fields(selection), selection.selected, selection.evaluation.ranges
    headers["Content-Type"] = selected.content_type
    ranges = _ranges_to_send(selection.evaluation, selected.size)
    expected = sum([part.stop - part.start for part in ranges])
    if len(requested) > 1:
        parts = multipart(token_hex(BOUNDARY_LENGTH // 2), selected.content_type, selected.size, requested)
        headers["Content-Type"] = parts.content_type
        return BodyPlan(headers, _in_file(parts.segments, selection.base), parts.length, expected)
    if requested:
        headers["Content-Range"] = content_range(requested[0], selected.size)
    return BodyPlan(headers, _in_file(ranges, selection.base), expected, expected)


def ranges_sent(selection: FileSelection) -> str | None:
    """Return the ranges that are sent, formatted as in Content-Range; None for the whole file."""
    ranges, size = selection.evaluation.ranges, selection.selected.size
    return ", ".join([content_range(part, size) for part in ranges]) if ranges else None


def header_lines(selection: FileSelection, extra_lines: str) -> str | None:
    """Format the fields of a 200, or of a 206 with one range, as header lines; None for any other response.

    `extra_lines` are further header lines that each response with this file has.
    """
    status, ranges = selection.evaluation
    if status not in _WITH_BODY or len(ranges) > 1:
        return None
    head_lines = _lines(selection.selected, selection.digest) + extra_lines
    if not ranges:
        return head_lines
    return f"{head_lines}Content-Range: {content_range(ranges[0], selection.selected.size)}\r\n"


@lru_cache(maxsize=1024)
def _lines(selected: RepresentationInfo, digest: bytes | None) -> str:
    return single_write.header_lines(_fields(selected, digest) | {"Content-Type": selected.content_type})


def _representation(version: FileVersion, media_type: str, now: float, base: int) -> RepresentationInfo:
    selected = _representation_of_version(version, media_type, base)
    if selected.last_modified is not None and selected.last_modified > now:
        return selected._replace(last_modified=last_modified_of(version.mtime_ns, now))
    return selected


@lru_cache(maxsize=1024)
def _representation_of_version(version: FileVersion, media_type: str, base: int) -> RepresentationInfo:
    """Return the representation of a file version from `base` on; its Last-Modified may be in the future."""
    inode, size, mtime_ns, ctime_ns = version.parts()
    etag = etag_of(inode, size, mtime_ns, ctime_ns)
    modified = last_modified_of(mtime_ns, _NEVER)
    return RepresentationInfo(f'{etag[:-1]}-{base:x}"' if base else etag, modified, size - base, media_type)


def _ranges_to_send(evaluation: Evaluation, size: int) -> tuple[ByteRange, ...]:
    if evaluation.status is _OK and size:
        return (ByteRange(0, size),)
    return evaluation.ranges


def _in_file(segments: tuple[ByteRange | bytes, ...], base: int) -> tuple[ByteRange | bytes, ...]:
    """Convert ranges of the selected representation into ranges of the file."""
    if not base:
        return segments
    return tuple(
        part if isinstance(part, bytes) else ByteRange(base + part.start, base + part.stop)
        for part in segments
    )


def _body_at_once(file: OpenFile, read: Read, ranges: tuple[ByteRange, ...], base: int) -> Body | None:
    """Return the body if it is empty, or small and in memory; None if it has to be sent from the file."""
    if not ranges:
        return b""
    if len(ranges) > 1 or ranges[0].length > SMALL_BODY_BYTES:
        return None
    return read(file, base + ranges[0].start, base + ranges[0].stop)
