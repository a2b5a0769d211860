"""Evaluate the conditions and ranges of a GET or HEAD of a file (RFC 9110, sections 8.8, 13 and 14).

Where the RFC leaves a choice, the file is sent. A wrong 304, or a range appended to part of another version,
leaves the client with a wrong file; an unnecessary 200 only costs time. Pure: no I/O, no clock; the time is
passed in.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from functools import lru_cache
from hashlib import blake2b
from http import HTTPStatus
from typing import Final, NamedTuple

from aiohttp import hdrs
from multidict import CIMultiDictProxy

from jobsvc.web.headers import byte_ranges
from jobsvc.web.headers.byte_ranges import ByteRange
from jobsvc.web.headers.http_dates import parse_date


class RepresentationInfo(NamedTuple):
    """The selected representation, as known from fstat() of the open file before any byte is read."""

    etag: str
    """With its quotes, as sent."""
    last_modified: int | None
    """Whole seconds since the epoch, as sent; None if no Last-Modified is sent."""
    size: int
    """In bytes."""
    content_type: str


class Evaluation(NamedTuple):
    """The status to respond with, 200, 206, 304, 412 or 416; a 206 has one or more ranges, others none."""

    status: HTTPStatus
    ranges: tuple[ByteRange, ...] = ()
    """A single range is sent as it is with a Content-Range, several as `byte_ranges.multipart`."""


_PARTIAL: Final = HTTPStatus.PARTIAL_CONTENT
WHOLE: Final = Evaluation(HTTPStatus.OK)
NOT_MODIFIED: Final = Evaluation(HTTPStatus.NOT_MODIFIED)
PRECONDITION_FAILED: Final = Evaluation(HTTPStatus.PRECONDITION_FAILED)
UNSATISFIABLE: Final = Evaluation(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)

_PRECONDITIONS: Final = (
    hdrs.IF_NONE_MATCH,
    hdrs.IF_MODIFIED_SINCE,
    hdrs.IF_MATCH,
    hdrs.IF_UNMODIFIED_SINCE,
)

PROXY_SUFFIXES: Final = ("-gzip", "-br", "-zstd", "--gzip", ";gzip", ":gzip")
"""Suffixes that compressing proxies (Apache, Caddy, Jetty) append to an entity tag. The content is the same,
so If-None-Match gives a 304. The bytes are different, so If-Match and If-Range do not match."""

# Section 8.8.3; non-ASCII characters are obs-text. Possessive: no backtracking on a hostile field.
_OPAQUE_TAG: Final = re.compile('"[!#-~\x80-\U0010ffff]*+"')
_ENTITY_TAG: Final = re.compile(f"(?:W/)?{_OPAQUE_TAG.pattern}")
_TAG_LIST: Final = re.compile(rf"[ \t,]*+(?:{_ENTITY_TAG.pattern}[ \t]*+(?:,[ \t,]*+|\Z))*+")

VERSION_LENGTH: Final = 22
"""Characters of a version: 16 bytes in base64url without padding."""

_EARLIEST: Final = -62_135_596_800
"""The first second of year 1, in seconds since the epoch: HTTP cannot express earlier dates."""


def etag_of(inode: int, size: int, mtime_ns: int, ctime_ns: int) -> str:
    """Return the strong entity tag of a file version; no single one of the four values identifies it."""
    return f'"{version_id(inode, size, mtime_ns, ctime_ns)}"'


@lru_cache(maxsize=4096)
def version_id(inode: int, size: int, mtime_ns: int, ctime_ns: int) -> str:
    """Return the id of a file version, its entity tag without quotes: 22 characters of `[A-Za-z0-9_-]`."""
    numbers = f"{inode:x}-{size:x}-{mtime_ns:x}-{ctime_ns:x}".encode()
    return urlsafe_b64encode(blake2b(numbers, digest_size=16).digest())[:VERSION_LENGTH].decode()


def last_modified_of(mtime_ns: int, now: float) -> int:
    """Return the Last-Modified for an mtime: rounded down, never in the future (section 8.8.2.1)."""
    return max(_EARLIEST, min(mtime_ns // 1_000_000_000, int(now)))


def evaluate(
    method: str, headers: CIMultiDictProxy[str], selected: RepresentationInfo, now: float
) -> Evaluation:
    """Decide the response to a GET or HEAD, in the order of section 13.2.2.

    `now` is the response's Date, in seconds since the epoch. Call this only if the response without these
    fields would be a 200 (section 13.2.1). Raises nothing, whatever the fields contain.
    """
    for name in _PRECONDITIONS:
        if name in headers:
            failed = precondition(headers, selected.etag, selected.last_modified, now)
            if failed is not None:
                return failed
            break
    return _ranges(headers, selected, now) if method == hdrs.METH_GET else WHOLE


def precondition(
    headers: CIMultiDictProxy[str], etag: str, last_modified: int | None, now: float
) -> Evaluation | None:
    """Evaluate the preconditions of a GET or HEAD (section 13.2.2, steps 1 to 4).

    Returns NOT_MODIFIED or PRECONDITION_FAILED, or None if the request is to be performed. A date field is
    ignored if the corresponding entity tag field is present, even if that is malformed.
    """
    if hdrs.IF_MATCH in headers:
        if not _contains_tag(_combined(headers, hdrs.IF_MATCH), etag, weak=False):
            return PRECONDITION_FAILED
    elif _is_unmodified(headers, hdrs.IF_UNMODIFIED_SINCE, last_modified, now) is False:
        return PRECONDITION_FAILED
    if hdrs.IF_NONE_MATCH in headers:
        return (
            NOT_MODIFIED if _contains_tag(_combined(headers, hdrs.IF_NONE_MATCH), etag, weak=True) else None
        )
    if _is_unmodified(headers, hdrs.IF_MODIFIED_SINCE, last_modified, now):
        return NOT_MODIFIED
    return None


def _ranges(headers: CIMultiDictProxy[str], selected: RepresentationInfo, now: float) -> Evaluation:
    """Evaluate the Range and If-Range fields (section 13.2.2, steps 5 and 6).

    If If-Range matches, an unsatisfiable range gives a 416 (section 14.2), not a 200: a client that resumes
    at the end of the file learns that it has everything, and does not get it again.
    """
    if hdrs.RANGE not in headers:
        return WHOLE
    if hdrs.IF_RANGE in headers and not _if_range_matches(_combined(headers, hdrs.IF_RANGE), selected, now):
        return WHOLE
    ranges = byte_ranges.select_ranges(_combined(headers, hdrs.RANGE), selected.size, selected.content_type)
    if ranges is None:
        return WHOLE
    return Evaluation(_PARTIAL, ranges) if ranges else UNSATISFIABLE


def _combined(headers: CIMultiDictProxy[str], name: str) -> str:
    """Join a field's lines into its value (section 5.3), without surrounding white space (section 5.5)."""
    return ", ".join(headers.getall(name)).strip(" \t")


def _contains_tag(field: str, etag: str, *, weak: bool) -> bool:
    """Whether a field of entity tags contains this one, by weak or strong comparison (section 8.8.3.2).

    A field that is neither exactly `*` nor a list of entity tags matches nothing, not even the tags before
    the error: "otherwise, the condition is false" for If-Match (section 13.1.1), a 412, and true for
    If-None-Match (section 13.1.2), no 304. Both are safe if the client's field cannot be parsed.
    """
    if field == "*":
        return True
    opaque = etag.removeprefix("W/")
    if opaque[:-1] not in field or _TAG_LIST.fullmatch(field) is None:
        return False
    if weak:
        tags = _OPAQUE_TAG.findall(field)
        return opaque in tags or any(f'{opaque[:-1]}{suffix}"' in tags for suffix in PROXY_SUFFIXES)
    return _strong(etag) and etag in _ENTITY_TAG.findall(field)


def _strong(etag: str) -> bool:
    return not etag.startswith("W/")


def _is_unmodified(
    headers: CIMultiDictProxy[str], name: str, last_modified: int | None, now: float
) -> bool | None:
    """Whether the file is unmodified since the field's date (sections 13.1.3, 13.1.4).

    Returns None if the field is to be ignored: it is absent, not a date, or a list of dates, or there is no
    Last-Modified to compare with.
    """
    if last_modified is None or name not in headers:
        return None
    date = parse_date(_combined(headers, name), now)
    return None if date is None else last_modified <= date


def _if_range_matches(field: str, selected: RepresentationInfo, now: float) -> bool:
    """Whether an If-Range matches (section 13.1.5): the same entity tag or the same date, each strong.

    A Last-Modified is strong once its second is over (section 8.8.2.2): until then the file can change again
    with the same date.
    """
    if field == selected.etag:
        return _strong(field)
    date = parse_date(field, now)
    return date is not None and date == selected.last_modified and date < int(now)
