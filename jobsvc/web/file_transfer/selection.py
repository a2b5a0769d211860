"""What a request gets of an open file: the decision, the header fields, the segments of the body.

`select` runs in the thread that opened the file, and does everything in that one visit; the rest is pure.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from secrets import token_hex
from typing import Final, NamedTuple

from aiohttp import hdrs, web

from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.nonblocking.cached_read import SMALL_BODY_BYTES, Body, read_cached
from jobsvc.web.connection.fast_request import FastRequest
from jobsvc.web.headers import repr_digest
from jobsvc.web.headers.byte_ranges import BOUNDARY_LENGTH, ByteRange, content_range, multipart
from jobsvc.web.headers.conditional import Evaluation, RepresentationInfo, etag_of, evaluate, last_modified_of
from jobsvc.web.headers.http_dates import format_date
from jobsvc.web.responses import single_write

# A member of an enumeration takes long to look up.
_OK: Final = HTTPStatus.OK
_WITH_BODY: Final = (_OK, HTTPStatus.PARTIAL_CONTENT)

_NEVER: Final = 1 << 63
"""Seconds since the epoch; no file's time is later."""

Read = Callable[[OpenFile, int, int], Body | None]
"""Reads from offset to offset what is in memory; None where it is not."""


class FileSelection(NamedTuple):
    """A file of a job, and what the request gets of it."""

    name: str
    version: FileVersion
    """Which version of the file it is of."""
    selected: RepresentationInfo
    evaluation: Evaluation
    body: Body | None
    """The whole body, where it is small and was in memory, or where there is none to send."""
    file: OpenFile | None
    """Open where the body is still to come."""
    base: int = 0
    """Where in the file what is selected begins."""
    digest: bytes | None = None
    """SHA-256 of the whole file, where it is to be told."""

    @property
    def is_sent(self) -> bool:
        """Whether the answer to a GET is the file, or part of it."""
        return self.evaluation.status in _WITH_BODY

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()


class BodyPlan(NamedTuple):
    """A 200 or 206: its header fields, and the segments of its body in order."""

    headers: dict[str, str]
    segments: tuple[ByteRange | bytes, ...]
    length: int
    """Content-Length, in bytes."""
    expected: int
    """How many of these are the file's."""


def select(
    file: OpenFile,
    request: web.Request | FastRequest,
    media_type: str,
    now: float,
    *,
    base: int = 0,
    read: Read = read_cached,
) -> FileSelection:
    """Decide what the request gets of an open file, from `base` on; `now` in seconds since the epoch.

    `read` reads a small body that is in memory. The file is closed where nothing of it is still to be sent,
    and where this raises.
    """
    try:
        selected = _selected(file.version, media_type, now, base)
        decision = evaluate(request.method, request.headers, selected, now)
        wanted = _wanted(decision, selected.size) if request.method == hdrs.METH_GET else ()
        body = _body_at_once(file, read, wanted, base)
    except BaseException:
        file.close()
        raise
    if body is not None:
        file.close()
    left = None if body is not None else file
    return FileSelection(file.name, file.version, selected, decision, body, left, base)


def fields(found: FileSelection) -> dict[str, str]:
    """Give the fields that a 200, 206 or 304 has (RFC 9110, section 15.4.5).

    The digest is of the whole file on a 206 too (RFC 9530, section 3), and goes with a 304 as well: who asks
    for it has the file without it.
    """
    return _fields(found.selected, found.digest)


def _fields(selected: RepresentationInfo, digest: bytes | None) -> dict[str, str]:
    headers = {
        "ETag": selected.etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Referrer-Policy": "no-referrer",  # the address may be a link that lets in
        "X-Content-Type-Options": "nosniff",
    }
    if selected.last_modified is not None:
        headers["Last-Modified"] = format_date(selected.last_modified)
    if digest is not None:
        headers[repr_digest.FIELD] = repr_digest.repr_digest(digest)
    return headers


def plan(found: FileSelection) -> BodyPlan | None:
    """Lay out a 200 or 206; None where the decision is another."""
    if found.evaluation.status not in _WITH_BODY:
        return None
    headers, selected, ranges = fields(found), found.selected, found.evaluation.ranges
    headers["Content-Type"] = selected.content_type
    wanted = _wanted(found.evaluation, selected.size)
    promised = sum([part.stop - part.start for part in wanted])
    if len(ranges) > 1:
        parts = multipart(token_hex(BOUNDARY_LENGTH // 2), selected.content_type, selected.size, ranges)
        headers["Content-Type"] = parts.content_type
        return BodyPlan(headers, _in_file(parts.segments, found.base), parts.length, promised)
    if ranges:
        headers["Content-Range"] = content_range(ranges[0], selected.size)
    return BodyPlan(headers, _in_file(wanted, found.base), promised, promised)


def ranges_sent(found: FileSelection) -> str | None:
    """Say what of the file goes out as Content-Range does; None for all of it."""
    ranges, size = found.evaluation.ranges, found.selected.size
    return ", ".join([content_range(part, size) for part in ranges]) if ranges else None


def lines(found: FileSelection, beside: str) -> str | None:
    """Write the fields of a 200, or of a 206 of one range, as lines of a head; None for any other answer.

    `beside` is what else of such lines every answer with this file has.
    """
    status, ranges = found.evaluation
    if status not in _WITH_BODY or len(ranges) > 1:
        return None
    told = _lines(found.selected, found.digest) + beside
    return f"{told}Content-Range: {content_range(ranges[0], found.selected.size)}\r\n" if ranges else told


@lru_cache(maxsize=1024)
def _lines(selected: RepresentationInfo, digest: bytes | None) -> str:
    return single_write.lines(_fields(selected, digest) | {"Content-Type": selected.content_type})


def _selected(identity: FileVersion, media_type: str, now: float, base: int) -> RepresentationInfo:
    selected = _version(identity, media_type, base)
    if selected.last_modified is not None and selected.last_modified > now:
        return selected._replace(last_modified=last_modified_of(identity.mtime_ns, now))
    return selected


@lru_cache(maxsize=1024)
def _version(identity: FileVersion, media_type: str, base: int) -> RepresentationInfo:
    """Give what is selected of a version of a file from `base` on, once its time has come."""
    inode, size, mtime_ns, ctime_ns = identity.parts()
    etag = etag_of(inode, size, mtime_ns, ctime_ns)
    modified = last_modified_of(mtime_ns, _NEVER)
    return RepresentationInfo(f'{etag[:-1]}-{base:x}"' if base else etag, modified, size - base, media_type)


def _wanted(decision: Evaluation, size: int) -> tuple[ByteRange, ...]:
    if decision.status is _OK and size:
        return (ByteRange(0, size),)
    return decision.ranges


def _in_file(segments: tuple[ByteRange | bytes, ...], base: int) -> tuple[ByteRange | bytes, ...]:
    """Turn ranges of what is selected into ranges of the file."""
    if not base:
        return segments
    return tuple(
        part if isinstance(part, bytes) else ByteRange(base + part.start, base + part.stop)
        for part in segments
    )


def _body_at_once(file: OpenFile, read: Read, wanted: tuple[ByteRange, ...], base: int) -> Body | None:
    """Return the body where no thread need be asked for it; None where it is to be streamed."""
    if not wanted:
        return b""
    if len(wanted) > 1 or wanted[0].length > SMALL_BODY_BYTES:
        return None
    return read(file, base + wanted[0].start, base + wanted[0].stop)
