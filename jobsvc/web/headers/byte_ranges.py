"""Select the byte ranges to send and lay out multipart bodies (RFC 9110, sections 14 and 15.3.7). No I/O.

No response is larger than the file, whatever the request: ranges that overlap or nearly touch are joined, and
a set that covers more bytes than the file has, or whose multipart body would be larger, is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

MAX_RANGES: Final = 128
"""A set with more elements, empty ones included, is ignored (sections 14.2, 17.15). Clients that request
many ranges, readers of paged documents, use far fewer."""

PART_OVERHEAD: Final = 80
"""Bytes; a smaller gap is sent rather than skipped. About the overhead of a part (section 15.3.7.2)."""

BOUNDARY_LENGTH: Final = 32
"""Characters of a boundary. With a longer one, a response could be larger than the file."""

# The largest relevant offset, 2**63 - 1, the end of the largest possible file, has 19 digits.
_DIGITS: Final = 19
_BEYOND: Final = 10**_DIGITS

_PLAIN: Final = re.compile("bytes=([0-9]{1,18})-([0-9]{1,18})")
"""The form that nearly all clients send; parsed by this expression alone."""
_RANGE_SPEC: Final = re.compile("([0-9]+)-([0-9]*)|-([0-9]+)")


class ByteRange(NamedTuple):
    """The bytes from offset `start` up to, not including, offset `stop`; never empty."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Number of bytes."""
        return self.stop - self.start


class Multipart(NamedTuple):
    """The content of a response with several ranges; the segments are sent in order."""

    content_type: str
    """The Content-Type of the whole response."""
    segments: tuple[bytes | ByteRange, ...]
    """Bytes are sent as they are; a range stands for those bytes of the file."""
    length: int
    """The Content-Length, in bytes."""


def content_range(byte_range: ByteRange, size: int) -> str:
    """Format the Content-Range of a 206, or of one of its parts (section 14.4)."""
    return f"bytes {byte_range.start}-{byte_range.stop - 1}/{size}"


def unsatisfied(size: int) -> str:
    """Format the Content-Range of a 416 (section 14.4)."""
    return f"bytes */{size}"


def select_ranges(field: str, size: int, content_type: str) -> tuple[ByteRange, ...] | None:
    """Return the ranges of a file of `size` bytes that a Range field requests: disjoint, in its order.

    None: the field is ignored, because it has another unit or is invalid or abusive; send the whole file.
    Empty tuple: the field is valid, but no range can be satisfied; respond with 416.

    An empty file satisfies a suffix of any length except 0 (section 14.1.2), but no Content-Range can express
    that; the field is then ignored, as section 14.2 allows.
    """
    plain = _PLAIN.fullmatch(field)
    if plain is not None and size and (start := int(plain[1])) <= (last := int(plain[2])):
        return (ByteRange(start, min(last + 1, size)),) if start < size else ()
    return _select_of_set(field, size, content_type)


def _select_of_set(field: str, size: int, content_type: str) -> tuple[ByteRange, ...] | None:
    specs = _range_set(field)
    if specs is None:
        return None
    if size == 0 and any(spec[3] is not None and _offset(spec[3]) for spec in specs):
        return None
    ranges = [byte_range for spec in specs if (byte_range := _resolve(spec, size)) is not None]
    if len(ranges) <= 1:
        return tuple(ranges)
    if sum(byte_range.length for byte_range in ranges) > size:
        return None  # repeated bytes: a broken client or an attack (section 14.2)
    joined = _coalesce(ranges)
    if len(joined) == 1:
        return joined
    trial = multipart("-" * BOUNDARY_LENGTH, content_type, size, joined)
    return joined if trial.length <= size else None


def multipart(boundary: str, content_type: str, size: int, ranges: Iterable[ByteRange]) -> Multipart:
    """Lay out `multipart/byteranges` (section 14.6) for a file of this type and size.

    The boundary is sent unquoted, because some clients handle quotes wrongly. It must consist of letters and
    digits, at most BOUNDARY_LENGTH, and must not occur in the file.
    """
    segments: list[bytes | ByteRange] = []
    line_end = ""
    for byte_range in ranges:
        header = (
            f"{line_end}--{boundary}\r\n"
            f"Content-Type: {content_type}\r\n"
            f"Content-Range: {content_range(byte_range, size)}\r\n\r\n"
        )
        segments += (header.encode(), byte_range)
        line_end = "\r\n"
    segments.append(f"{line_end}--{boundary}--\r\n".encode())
    length = sum(part.length if isinstance(part, ByteRange) else len(part) for part in segments)
    return Multipart(f"multipart/byteranges; boundary={boundary}", tuple(segments), length)


def _range_set(field: str) -> list[re.Match[str]] | None:
    """Split a Range field into its range-specs; None if it is to be ignored for its unit, form or number.

    A single invalid element makes the whole set invalid (section 14.1.1).
    """
    unit, _, elements = field.partition("=")
    if unit.lower() != "bytes" or elements.count(",") >= MAX_RANGES:
        return None
    specs = []
    for element in elements.split(","):
        text = element.strip(" \t")
        if not text:
            continue  # section 5.6.1.2: recipients skip empty elements
        spec = _RANGE_SPEC.fullmatch(text)
        if spec is None or (spec[2] and _magnitude(spec[2]) < _magnitude(spec[1])):
            return None
        specs.append(spec)
    return specs or None


def _magnitude(digits: str) -> tuple[int, str]:
    """Return a sort key for decimal numbers of any length; int() rejects long ones, or is slow with them."""
    digits = digits.lstrip("0")
    return len(digits), digits


def _offset(digits: str) -> int:
    """Parse a decimal number; all numbers beyond the end of any file give the same value."""
    count, digits = _magnitude(digits)
    if count > _DIGITS:
        return _BEYOND
    return int(digits or "0")


def _resolve(spec: re.Match[str], size: int) -> ByteRange | None:
    """Apply a range-spec to a file of `size` bytes; None if it cannot be satisfied (section 14.1.2)."""
    first, last, suffix = spec.groups()
    if suffix is not None:
        start, stop = size - min(_offset(suffix), size), size
    else:
        start, stop = _offset(first), min(_offset(last) + 1, size) if last else size
    return ByteRange(start, stop) if start < stop else None


def _coalesce(ranges: list[ByteRange]) -> tuple[ByteRange, ...]:
    """Join ranges that overlap or are less than PART_OVERHEAD apart, in the order of their first members."""
    joined: list[tuple[int, ByteRange]] = []
    for index, byte_range in sorted(enumerate(ranges), key=lambda entry: entry[1]):
        if not joined or byte_range.start - joined[-1][1].stop >= PART_OVERHEAD:
            joined.append((index, byte_range))
            continue
        first_index, previous = joined[-1]
        joined[-1] = (min(index, first_index), ByteRange(previous.start, max(previous.stop, byte_range.stop)))
    return tuple(byte_range for _, byte_range in sorted(joined))
