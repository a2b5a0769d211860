"""Decide what a response to a request for bytes means, before anything of it is written."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Final, NamedTuple

from jobsvc.client.download.source import Source
from jobsvc.client.errors import ConnectionFailed, Problem
from jobsvc.client.protocol.problems import problem_of
from jobsvc.client.protocol.retry import MAX_ERROR_BODY
from jobsvc.client.protocol.steps import Request
from jobsvc.client.transport.driver import BodyStream

OK: Final = 200
PARTIAL: Final = 206
PRECONDITION_FAILED: Final = 412
UNSATISFIABLE: Final = 416
NOT_CURRENT: Final = frozenset({404, 409, PRECONDITION_FAILED})
"""Statuses of a response to HEAD if this version is not there any more, or the job not completed."""

_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", re.ASCII)
_LENGTH: Final = re.compile("[0-9]{1,18}", re.ASCII)
_SHA256: Final = re.compile(r"(?:^|[,\s])sha-256=:([A-Za-z0-9+/]{43}=):")


class Replaced(Exception):
    """The file has another version now."""


class UnusableResponse(ConnectionFailed):
    """The response has other bytes than the requested ones; another attempt may have them."""

    def __init__(self, source: Source, reason: str) -> None:
        super().__init__(f"The response for {source.name} is not usable: {reason}.")


class Body(NamedTuple):
    """What the body of an accepted response is."""

    start: int
    """Offset in the file of its first byte."""
    stop: int
    has_length: bool
    """Whether the transport ends it there; otherwise more bytes than these can follow."""


def range_request(source: Source, start: int, stop: int, *, want_digest: bool) -> Request:
    """Return the request for bytes of a file; for all of them without a Range."""
    headers = {"Accept-Encoding": "identity"}
    if (start, stop) != (0, source.size):
        headers |= {"Range": f"bytes={start}-{stop - 1}", "If-Range": source.etag}
    if want_digest:
        headers["Want-Repr-Digest"] = "sha-256=1"
    return Request(source.target, headers=headers)


def check_body(stream: BodyStream, source: Source, start: int, stop: int) -> Body:
    """Return what the body of a response to `range_request` is: the range, or the whole file for a 200.

    Raises Replaced, UnusableResponse, or the Problem of an error.
    """
    headers = stream.headers
    if stream.status in {PRECONDITION_FAILED, UNSATISFIABLE}:
        raise Replaced
    if stream.status not in {OK, PARTIAL}:
        raise read_problem(stream, source)
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnusableResponse(source, "it is compressed")
    if not etag_matches(headers.get("etag"), source.etag):
        raise Replaced
    is_whole = stream.status == OK
    if not is_whole:
        _check_content_range(headers, source, start, stop)
    first, last = (0, source.size) if is_whole else (start, stop)
    length = headers.get("content-length")
    if length is not None and (not _LENGTH.fullmatch(length) or int(length) != last - first):
        raise UnusableResponse(source, f"it has {length[:20]} bytes instead of {last - first}")
    return Body(first, last, length is not None)


def etag_matches(received: str | None, expected: str) -> bool:
    """Return whether an entity tag is that of the expected version; a proxy may remove or weaken it."""
    return received is None or received.removeprefix("W/") == expected.removeprefix("W/")


def repr_digest(headers: Mapping[str, str]) -> str | None:
    """Return the SHA-256 of Repr-Digest (RFC 9530) in hexadecimal; None if there is none."""
    found = _SHA256.search(headers.get("repr-digest", ""))
    return None if found is None else b64decode(found[1]).hex()


def read_problem(stream: BodyStream, source: Source) -> Problem:
    """Return the exception for an error response."""
    body = b""
    try:
        while len(body) < MAX_ERROR_BODY and (data := stream.read()):
            body += data
    except ConnectionFailed:
        pass  # the head says what has happened
    return problem_of(stream.status, stream.headers, body, source.target)


def _check_content_range(headers: Mapping[str, str], source: Source, start: int, stop: int) -> None:
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if found is None or [int(number) for number in found.groups()] != [start, stop - 1, source.size]:
        raise UnusableResponse(source, "it is not the requested range")
