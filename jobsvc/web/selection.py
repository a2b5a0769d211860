"""What one look at the disk makes of a download request: the open file, the decision, the header fields.

`look` runs in a thread and does everything in one visit there; the rest is pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from secrets import token_hex
from typing import Final

from aiohttp import web

from jobsvc.domain.access import Token, require_sight
from jobsvc.domain.job import BadRecord, Status
from jobsvc.storage.conduit import read_cached
from jobsvc.storage.reader import Identity, JobsRoot, OpenFile, Reading
from jobsvc.web import digest_fields
from jobsvc.web.byteranges import BOUNDARY_LENGTH, ByteRange, content_range, multipart
from jobsvc.web.conditional import Decision, Selected, etag_of, evaluate, last_modified_of
from jobsvc.web.http_dates import format_date
from jobsvc.web.media import content_disposition, content_type

SMALL: Final = 64 * 1024
"""Bytes; a body up to this size goes out with its head in one write where it is in memory already."""


@dataclass(frozen=True, slots=True)
class Output:
    """A completed job's output and what the request gets of it."""

    name: str
    identity: Identity
    """Which version it is of."""
    selected: Selected
    decision: Decision
    body: bytes | None
    """The whole body, where it is small and was in memory, or where there is none to send."""
    file: OpenFile | None
    """Open where the body is still to come."""


@dataclass(frozen=True, slots=True)
class Look:
    """The job as the disk has it now; `output` is None unless it is completed."""

    reading: Reading
    output: Output | None = None

    def close(self) -> None:
        """Close the file."""
        if self.output is not None and self.output.file is not None:
            self.output.file.close()


@dataclass(frozen=True, slots=True)
class Plan:
    """A 200 or 206: its header fields, and the segments of its body in order."""

    headers: dict[str, str]
    segments: tuple[ByteRange | bytes, ...]
    length: int
    """Content-Length, in bytes."""
    promised: int
    """How many of these are the file's."""


def look(root: JobsRoot, known: Reading, request: web.Request, token: Token, now: float) -> Look:
    """Read the record anew and, if the job is completed, open its output; `now` in seconds since the epoch.

    Raises Absent, JobNotFound where the job is no more the token's, OutputMissing, or OSError for a fault
    of storage. A bad record leaves the known one standing.
    """
    try:
        reading = root.read(known.job.id, known)
    except BadRecord:
        reading = known
    require_sight(token, reading.job.owner)
    if reading.job.status is not Status.COMPLETED:
        return Look(reading)
    file = root.open_output(reading.job)
    try:
        selected = _select(file, now)
        decision = evaluate(request.method, request.headers, selected, now)
        body = _body_at_once(file, request.method, decision)
    except BaseException:
        file.close()
        raise
    if body is not None:
        file.close()
    return Look(
        reading,
        Output(file.name, file.identity, selected, decision, body, None if body is not None else file),
    )


def fields(output: Output, digest: bytes | None) -> dict[str, str]:
    """Give the fields that a 200, 206 or 304 has (RFC 9110, section 15.4.5).

    `digest` is the SHA-256 of the output. It is of the whole of it on a 206 too (RFC 9530, section 3), and
    goes with a 304 as well: who asks for it holds the output without it.
    """
    headers = {
        "ETag": output.selected.etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Referrer-Policy": "no-referrer",  # the address may be a link that lets in
        "X-Content-Type-Options": "nosniff",
    }
    if output.selected.last_modified is not None:
        headers["Last-Modified"] = format_date(output.selected.last_modified)
    if digest is not None:
        headers[digest_fields.FIELD] = digest_fields.repr_digest(digest)
    return headers


def plan(output: Output, digest: bytes | None = None) -> Plan | None:
    """Lay out a 200 or 206; None where the decision is another."""
    if output.decision.status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
        return None
    headers, selected, ranges = fields(output, digest), output.selected, output.decision.ranges
    headers["Content-Disposition"] = content_disposition(output.name)
    headers["Content-Type"] = selected.content_type
    wanted = _wanted(output.decision, selected.size)
    promised = sum(part.length for part in wanted)
    if len(ranges) > 1:
        parts = multipart(token_hex(BOUNDARY_LENGTH // 2), selected.content_type, selected.size, ranges)
        headers["Content-Type"] = parts.content_type
        return Plan(headers, parts.segments, parts.length, promised)
    if ranges:
        headers["Content-Range"] = content_range(ranges[0], selected.size)
    return Plan(headers, wanted, promised, promised)


def ranges_sent(output: Output) -> str | None:
    """Say what of the file goes out as Content-Range does; None for all of it."""
    size = output.selected.size
    return ", ".join(content_range(part, size) for part in output.decision.ranges) or None


def _select(file: OpenFile, now: float) -> Selected:
    identity = file.identity
    return Selected(
        etag_of(identity.inode, identity.size, identity.mtime_ns, identity.ctime_ns),
        last_modified_of(identity.mtime_ns, now),
        identity.size,
        content_type(file.name),
    )


def _wanted(decision: Decision, size: int) -> tuple[ByteRange, ...]:
    if decision.status is HTTPStatus.OK and size:
        return (ByteRange(0, size),)
    return decision.ranges


def _body_at_once(file: OpenFile, method: str, decision: Decision) -> bytes | None:
    """Return the body where no thread need be asked for it; None where it is to be streamed."""
    wanted = _wanted(decision, file.identity.size)
    if method != "GET" or not wanted:
        return b""
    if len(wanted) > 1 or wanted[0].length > SMALL:
        return None
    return read_cached(file, wanted[0].start, wanted[0].stop)
