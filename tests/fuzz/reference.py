"""The meaning of a byte stream by RFC 9112: a second parser, simple and strict, for comparison."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

MAX_HEAD_BYTES: Final = 32 * 1024
MAX_LINE_BYTES: Final = 8190
MAX_FIELDS: Final = 128
MAX_UNREAD_BYTES: Final = 64 * 1024

_METHODS: Final = frozenset({
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"PROPFIND", b"MKCOL",
})  # fmt: skip
_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)( +)([!-~]+)( +)HTTP/([0-9])\.([0-9])")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
_NAME: Final = rb"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*"
_HOST: Final = re.compile(rb"(?:\[[A-Za-z0-9:._~!$&'()*+,;=-]+\]|" + _NAME + rb")(?::[0-9]*)?")
_SINGLE_IN_TRAILER: Final = re.compile(
    rb"\r\n(?:host|content-[a-z]+|transfer-encoding|user-agent|etag|server|max-forwards):", re.IGNORECASE
)
_TARGET: Final = re.compile(rb"/|https?://", re.IGNORECASE)
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_MARKER: Final = re.compile(rb"m-[0-9]{9}")


class Kind(Enum):
    """How a request is handled."""

    ANSWERED = auto()
    """It gets its own response."""
    REFUSED = auto()
    """It is refused, and the connection closes."""
    EITHER = auto()
    """One of these: a server may be strict."""
    UNFINISHED = auto()
    """It is incomplete: at most one response, and the connection closes."""


@dataclass(frozen=True, slots=True)
class Expected:
    """One request as the reference parser reads it."""

    kind: Kind
    method: bytes = b""
    marker: bytes = b""
    raw: bytes = b""
    """Its bytes."""
    closes: bool = False
    """Whether nothing after it is answered."""
    upgrade: bool = False


def read(data: bytes) -> list[Expected]:
    """Read requests to the end, or to the first after which nothing is answered."""
    found: list[Expected] = []
    position = 0
    while True:
        while data[position : position + 1] in {b"\r", b"\n"} and data[position : position + 1]:
            position += 1
        if position == len(data):
            return found
        expected, position = _one(data, position)
        found.append(expected)
        if expected.closes or expected.kind in {Kind.REFUSED, Kind.UNFINISHED}:
            return found


def _one(data: bytes, start: int) -> tuple[Expected, int]:
    end = data.find(b"\r\n\r\n", start)
    if end < 0:
        return Expected(Kind.UNFINISHED), len(data)
    head, lines = data[start:end], data[start:end].split(b"\r\n")
    line, fields = _LINE.fullmatch(lines[0]), [_FIELD.fullmatch(each) for each in lines[1:]]
    if line is None or None in fields or not _bounded(lines, head):
        return Expected(Kind.REFUSED), len(data)
    named: dict[bytes, list[bytes]] = {}
    for field in fields:
        if field is not None:
            named.setdefault(field[1].lower(), []).append(field[2])
    method, target, version = line[1], line[3], (line[5], line[6])
    kind = _kind(method, target, version, named)
    # A recipient may treat several spaces as one (RFC 9112, section 3). The parser limits the name and the
    # value of a field, not the whole line.
    is_lenient = (line[2], line[4]) != (b" ", b" ") or any(len(each) >= MAX_LINE_BYTES for each in lines)
    if kind is Kind.ANSWERED and is_lenient:
        kind = Kind.EITHER
    if kind is Kind.REFUSED:
        return Expected(kind), len(data)
    body_end, whole = _body(data, end + 4, named)
    # The parser treats Proxy-Connection as Connection, as old clients intend.
    connection = named.get(b"connection", []) + named.get(b"proxy-connection", [])
    options = [each.strip(b" \t") for each in b",".join(connection).lower().split(b",")]
    upgrade = b"upgrade" in named and b"upgrade" in options
    # If both occur in HTTP/1.0, the parser uses the second.
    closes = b"close" in options if version == (b"1", b"1") else b"keep-alive" not in options
    if kind is Kind.ANSWERED and _SINGLE_IN_TRAILER.search(data, end + 4, body_end):
        kind = Kind.EITHER
    has_body = body_end > end + 4 or not whole
    markers = [each for each in named.get(b"x-request-id", []) if _MARKER.fullmatch(each)]
    expected = Expected(
        kind if whole else Kind.UNFINISHED,
        method,
        markers[0] if len(markers) == 1 and len(named[b"x-request-id"]) == 1 else b"",
        data[start:body_end],
        closes or (upgrade and has_body) or body_end - end > MAX_UNREAD_BYTES,
        upgrade,
    )
    return expected, body_end


def _bounded(lines: list[bytes], head: bytes) -> bool:
    parts = [lines[0], *(part for line in lines[1:] for part in line.split(b":", 1))]
    small = all(len(part) < MAX_LINE_BYTES for part in parts)
    return small and len(lines) <= MAX_FIELDS and len(head) + 4 <= MAX_HEAD_BYTES


def _kind(
    method: bytes, target: bytes, version: tuple[bytes, bytes], named: dict[bytes, list[bytes]]
) -> Kind:
    hosts, codings = named.get(b"host", []), named.get(b"transfer-encoding", [])
    lengths = named.get(b"content-length", [])
    faults = (
        method not in _METHODS,
        version not in {(b"1", b"1"), (b"1", b"0")},
        len(hosts) > 1 or (not hosts and version == (b"1", b"1")),
        any(_HOST.fullmatch(host) is None for host in hosts),
        len(lengths) > 1 or not all(map(_is_length, lengths)),
        bool(codings) and (codings[0].lower() != b"chunked" or len(codings) > 1 or version == (b"1", b"0")),
        bool(codings and lengths),
        not _TARGET.match(target) and (method, target) != (b"OPTIONS", b"*"),
    )
    if any(faults):
        return Kind.REFUSED
    doubtful = not target.startswith(b"/") or b"#" in target or any(len(each) > 1 for each in named.values())
    return Kind.EITHER if doubtful else Kind.ANSWERED


def _is_length(value: bytes) -> bool:
    """Return whether a Content-Length is valid (RFC 9110, section 8.6) and fits in the parser's 64 bits."""
    return re.fullmatch(rb"[0-9]+", value) is not None and int(value) < 1 << 64


def _body(data: bytes, start: int, named: dict[bytes, list[bytes]]) -> tuple[int, bool]:
    """Find the end of a body, and whether it is complete and well-formed."""
    if b"transfer-encoding" in named:
        return _chunked(data, start)
    end = start + int(named.get(b"content-length", [b"0"])[0])
    return min(end, len(data)), end <= len(data)


def _chunked(data: bytes, start: int) -> tuple[int, bool]:
    position = start
    while match := _CHUNK.match(data, position):
        size = int(match[1], 16)
        position = match.end() + size
        if size == 0:
            break
        if data[position : position + 2] != b"\r\n":
            return len(data), False
        position += 2
    else:
        return len(data), False
    if data[position : position + 2] == b"\r\n":
        return position + 2, True
    end = data.find(b"\r\n\r\n", position)
    trailers = data[position:end].split(b"\r\n")
    sound = end >= 0 and all(_FIELD.fullmatch(each) for each in trailers) and len(trailers) < 20
    return (end + 4, True) if sound else (len(data), False)
