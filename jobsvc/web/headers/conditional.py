"""What a GET or HEAD of a stored file answers: RFC 9110, sections 8.8, 13 and 14, and nothing else.

Where the RFC leaves a choice, bytes are sent rather than withheld: a wrong 304 or a splice costs the client
its file, a 200 too many costs only time. Pure: no I/O, no clock; the present moment is passed in.
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
    """The selected representation, as its descriptor tells of it before a byte is read."""

    etag: str
    """In its quotes, as it is sent."""
    last_modified: int | None
    """Whole seconds since the epoch, as sent; None if no Last-Modified is."""
    size: int
    """In bytes."""
    content_type: str


class Evaluation(NamedTuple):
    """The status to answer with: 200, 206, 304, 412 or 416; ranges with a 206 only, at least one."""

    status: HTTPStatus
    ranges: tuple[ByteRange, ...] = ()
    """One goes out as it is with a Content-Range, several as `byteranges.multipart`."""


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
"""What proxies that compress (Apache, Caddy, Jetty) append to an entity tag: the same content, so a 304 to
If-None-Match. The bytes are others: it is no match for If-Match and If-Range."""

# Section 8.8.3; whatever is not ASCII came as obs-text. Possessive: a hostile field is read once.
_OPAQUE_TAG: Final = re.compile('"[!#-~\x80-\U0010ffff]*+"')
_ENTITY_TAG: Final = re.compile(f"(?:W/)?{_OPAQUE_TAG.pattern}")
_TAG_LIST: Final = re.compile(rf"[ \t,]*+(?:{_ENTITY_TAG.pattern}[ \t]*+(?:,[ \t,]*+|\Z))*+")

VERSION_LENGTH: Final = 22
"""Characters of a version: 16 bytes in base64url without padding."""

_EARLIEST: Final = -62_135_596_800
"""The first second of year 1, in seconds since the epoch: HTTP has no earlier date."""


def etag_of(inode: int, size: int, mtime_ns: int, ctime_ns: int) -> str:
    """Make the strong entity tag of one version of a file: none of the four alone tells versions apart."""
    return f'"{version_of(inode, size, mtime_ns, ctime_ns)}"'


@lru_cache(maxsize=4096)
def version_of(inode: int, size: int, mtime_ns: int, ctime_ns: int) -> str:
    """Name one version of a file in 22 characters of `[A-Za-z0-9_-]`: its entity tag without the quotes."""
    numbers = f"{inode:x}-{size:x}-{mtime_ns:x}-{ctime_ns:x}".encode()
    return urlsafe_b64encode(blake2b(numbers, digest_size=16).digest())[:VERSION_LENGTH].decode()


def last_modified_of(mtime_ns: int, now: float) -> int:
    """Round a file's time down to the Last-Modified to send, never one in the future (section 8.8.2.1)."""
    return max(_EARLIEST, min(mtime_ns // 1_000_000_000, int(now)))


def evaluate(
    method: str, headers: CIMultiDictProxy[str], selected: RepresentationInfo, now: float
) -> Evaluation:
    """Decide what a GET or HEAD answers, in the order of section 13.2.2.

    `now` is the answer's Date, in seconds since the epoch. To be asked only where the answer without these
    fields would be a 200 (section 13.2.1). Raises nothing, whatever the fields hold.
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
    """Evaluate the preconditions of a GET or HEAD (section 13.2.2, steps 1 to 4): None, or which one failed.

    A date that is present beside its tag is ignored even where the tag's field is malformed.
    """
    if hdrs.IF_MATCH in headers:
        if not _lists(_combined(headers, hdrs.IF_MATCH), etag, weak=False):
            return PRECONDITION_FAILED
    elif _unmodified(headers, hdrs.IF_UNMODIFIED_SINCE, last_modified, now) is False:
        return PRECONDITION_FAILED
    if hdrs.IF_NONE_MATCH in headers:
        return NOT_MODIFIED if _lists(_combined(headers, hdrs.IF_NONE_MATCH), etag, weak=True) else None
    if _unmodified(headers, hdrs.IF_MODIFIED_SINCE, last_modified, now):
        return NOT_MODIFIED
    return None


def _ranges(headers: CIMultiDictProxy[str], selected: RepresentationInfo, now: float) -> Evaluation:
    """Decide what the Range field comes to (section 13.2.2, steps 5 and 6).

    A range that is unsatisfiable beside an If-Range that holds is a 416 (section 14.2), not a 200: a client
    that resumes at the very end is to learn that it has everything, not to be sent it again.
    """
    if hdrs.RANGE not in headers:
        return WHOLE
    if hdrs.IF_RANGE in headers and not _unchanged(_combined(headers, hdrs.IF_RANGE), selected, now):
        return WHOLE
    found = byte_ranges.select(_combined(headers, hdrs.RANGE), selected.size, selected.content_type)
    if found is None:
        return WHOLE
    return Evaluation(_PARTIAL, found) if found else UNSATISFIABLE


def _combined(headers: CIMultiDictProxy[str], name: str) -> str:
    """Join a field's lines into its value (section 5.3), without the white space around it (section 5.5)."""
    return ", ".join(headers.getall(name)).strip(" \t")


def _lists(field: str, etag: str, *, weak: bool) -> bool:
    """Whether a field of entity tags names this one, by weak or by strong comparison (section 8.8.3.2).

    A field that is neither exactly `*` nor a list of entity tags names nothing, not even what stands before
    its fault: "otherwise, the condition is false" for If-Match (section 13.1.1), a 412, and true for
    If-None-Match (section 13.1.2), no 304. Both are the safe side of a client that can't be understood.
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


def _unmodified(
    headers: CIMultiDictProxy[str], name: str, last_modified: int | None, now: float
) -> bool | None:
    """Whether nothing changed since the field's date; None if it is to be ignored (sections 13.1.3, 13.1.4).

    To be ignored is what is absent, no date, or a list of dates, and any date where there is none to compare.
    """
    if last_modified is None or name not in headers:
        return None
    date = parse_date(_combined(headers, name), now)
    return None if date is None else last_modified <= date


def _unchanged(field: str, selected: RepresentationInfo, now: float) -> bool:
    """Whether an If-Range holds (section 13.1.5): the very same tag, or the very same date, and both strong.

    A Last-Modified is strong once its second is over (section 8.8.2.2): until then the file may change again
    under the same date.
    """
    if field == selected.etag:
        return _strong(field)
    date = parse_date(field, now)
    return date is not None and date == selected.last_modified and date < int(now)
