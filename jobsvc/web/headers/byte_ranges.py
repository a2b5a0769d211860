"""Byte ranges, RFC 9110 sections 14 and 15.3.7: which of those asked for are sent, and in which wrapping.

Whatever is asked for, the answer is never larger than the file: what overlaps or nearly touches is sent
as one range, and a set that asks for more than there is, or would cost more, is ignored. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

MAX_RANGES: Final = 128
"""A set of more elements, empty ones included, is ignored (sections 14.2, 17.15). Readers of paged
documents, the clients that ask for many, stay well below."""

PART_OVERHEAD: Final = 80
"""A gap of fewer bytes is sent rather than skipped: about what a part costs, says section 15.3.7.2."""

BOUNDARY_LENGTH: Final = 32
"""Characters of a boundary. A longer one breaks the promise that no answer is larger than the file."""

# The most that can matter has 19 digits: 2**63 - 1, the end of the largest file there can be.
_DIGITS: Final = 19
_BEYOND: Final = 10**_DIGITS

_PLAIN: Final = re.compile("bytes=([0-9]{1,18})-([0-9]{1,18})")
"""What nearly every client asks for, and what takes no more than a glance."""
_RANGE_SPEC: Final = re.compile("([0-9]+)-([0-9]*)|-([0-9]+)")


class ByteRange(NamedTuple):
    """The bytes from offset `start` up to, not including, offset `stop`; never empty."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """How many bytes these are."""
        return self.stop - self.start


class Multipart(NamedTuple):
    """The content of an answer of several ranges: send the segments in their order."""

    content_type: str
    """The Content-Type of the answer as a whole."""
    segments: tuple[bytes | ByteRange, ...]
    """Bytes go out as they are, a range stands for those bytes of the file."""
    length: int
    """The Content-Length, in bytes."""


def content_range(found: ByteRange, size: int) -> str:
    """Write the Content-Range of a 206, or of one of its parts (section 14.4)."""
    return f"bytes {found.start}-{found.stop - 1}/{size}"


def unsatisfied(size: int) -> str:
    """Write the Content-Range of a 416 (section 14.4)."""
    return f"bytes */{size}"


def select(field: str, size: int, content_type: str) -> tuple[ByteRange, ...] | None:
    """Say what a Range field asks of a file of `size` bytes: disjoint ranges, in the client's order.

    None: the field is ignored, the whole file is the answer. It is of another unit, invalid or abusive.
    Nothing (the empty tuple): the field is valid, and none of it can be satisfied. That is a 416.

    An empty file satisfies a suffix of any length but 0 (section 14.1.2), yet no Content-Range can say so;
    the field is then ignored, as section 14.2 allows.
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
    ranges = [found for spec in specs if (found := _resolved(spec, size)) is not None]
    if len(ranges) <= 1:
        return tuple(ranges)
    if sum(found.length for found in ranges) > size:
        return None  # the same bytes again and again: a broken client or an attack, says section 14.2
    joined = _coalesced(ranges)
    if len(joined) == 1:
        return joined
    stand_in = multipart("-" * BOUNDARY_LENGTH, content_type, size, joined)
    return joined if stand_in.length <= size else None


def multipart(boundary: str, content_type: str, size: int, ranges: Iterable[ByteRange]) -> Multipart:
    """Lay out `multipart/byteranges` (section 14.6) for a file of that type and size.

    The boundary goes unquoted, for the clients that get quotes wrong: letters and digits only, at most
    BOUNDARY_LENGTH of them, and such as the file does not contain.
    """
    segments: list[bytes | ByteRange] = []
    line_end = ""
    for found in ranges:
        header = (
            f"{line_end}--{boundary}\r\n"
            f"Content-Type: {content_type}\r\n"
            f"Content-Range: {content_range(found, size)}\r\n\r\n"
        )
        segments += (header.encode(), found)
        line_end = "\r\n"
    segments.append(f"{line_end}--{boundary}--\r\n".encode())
    length = sum(part.length if isinstance(part, ByteRange) else len(part) for part in segments)
    return Multipart(f"multipart/byteranges; boundary={boundary}", tuple(segments), length)


def _range_set(field: str) -> list[re.Match[str]] | None:
    """Take a Range field apart into its range-specs; None if unit, form or number makes it one to ignore.

    A single bad element spoils the whole set (section 14.1.1).
    """
    unit, _, elements = field.partition("=")
    if unit.lower() != "bytes" or elements.count(",") >= MAX_RANGES:
        return None
    specs = []
    for element in elements.split(","):
        text = element.strip(" \t")
        if not text:
            continue  # section 5.6.1.2: empty elements are for the recipient to skip
        spec = _RANGE_SPEC.fullmatch(text)
        if spec is None or (spec[2] and _magnitude(spec[2]) < _magnitude(spec[1])):
            return None
        specs.append(spec)
    return specs or None


def _magnitude(digits: str) -> tuple[int, str]:
    """Give what orders decimal numbers of any length; int() refuses, or takes its time over, long ones."""
    digits = digits.lstrip("0")
    return len(digits), digits


def _offset(digits: str) -> int:
    """Read a decimal number; of those beyond the end of any file, all are the same."""
    count, digits = _magnitude(digits)
    if count > _DIGITS:
        return _BEYOND
    return int(digits or "0")


def _resolved(spec: re.Match[str], size: int) -> ByteRange | None:
    """Apply a range-spec to a file of `size` bytes; None if it can't be satisfied (section 14.1.2)."""
    first, last, suffix = spec.groups()
    if suffix is not None:
        start, stop = size - min(_offset(suffix), size), size
    else:
        start, stop = _offset(first), min(_offset(last) + 1, size) if last else size
    return ByteRange(start, stop) if start < stop else None


def _coalesced(ranges: list[ByteRange]) -> tuple[ByteRange, ...]:
    """Join what overlaps or is less than PART_OVERHEAD apart; each in the place of its first member."""
    joined: list[tuple[int, ByteRange]] = []
    for place, found in sorted(enumerate(ranges), key=lambda entry: entry[1]):
        if not joined or found.start - joined[-1][1].stop >= PART_OVERHEAD:
            joined.append((place, found))
            continue
        earlier, before = joined[-1]
        joined[-1] = (min(place, earlier), ByteRange(before.start, max(before.stop, found.stop)))
    return tuple(found for _, found in sorted(joined))
