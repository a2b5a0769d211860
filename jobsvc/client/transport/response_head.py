"""Read the head of a response, and derive how its body ends (RFC 9112)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from time import monotonic
from typing import Final, NamedTuple

from jobsvc.client.transport.connection import Connection
from jobsvc.client.transport.failures import MalformedResponse

MAX_HEAD: Final = 64 << 10
"""Maximum bytes of a head, with the informational responses before it."""
MAX_TIMEOUTS: Final = 4
"""How long a head, or the frame of a chunk, may take if its bytes arrive one by one; in timeouts."""

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: .*)?", re.DOTALL)
_FIELD_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_SWITCHING_PROTOCOLS: Final = 101
_FIRST_FINAL: Final = 200
_WITHOUT_BODY: Final = frozenset({204, 304})


class ResponseHead(NamedTuple):
    """The status line and the header fields."""

    status: int
    headers: Mapping[str, str]
    """Names are lower case; repeated fields are joined by a comma."""
    keep_alive: bool
    """Whether the connection can be used again after the body."""


class BodyFraming(NamedTuple):
    """How the body ends."""

    length: int | None
    """Bytes; None if it ends with the last chunk or with the connection."""
    chunked: bool


def read_head(connection: Connection, timeout: float) -> ResponseHead:
    """Read the head of the final response. Raises MalformedResponse, Disconnected or OSError.

    `timeout`: seconds without a byte; the whole head may take MAX_TIMEOUTS times as long.
    """
    remaining, ends = MAX_HEAD, monotonic() + MAX_TIMEOUTS * timeout
    while True:
        head, size = _read_one(connection, remaining, ends)
        if head.status >= _FIRST_FINAL:
            return head
        if head.status == _SWITCHING_PROTOCOLS:
            raise MalformedResponse("switches to another protocol")
        remaining -= size


def body_framing(head: ResponseHead, method: str) -> BodyFraming:
    """Return how the body ends (RFC 9112, section 6.3). Raises MalformedResponse if that is ambiguous."""
    if method == "HEAD" or head.status in _WITHOUT_BODY:
        return BodyFraming(0, chunked=False)
    if (coding := head.headers.get("transfer-encoding")) is not None:
        if coding.strip().lower() != "chunked":
            raise MalformedResponse("has an unknown Transfer-Encoding")
        return BodyFraming(None, chunked=True)
    if (length := head.headers.get("content-length")) is None:
        return BodyFraming(None, chunked=False)
    values = {value.strip() for value in length.split(",")}
    value = values.pop()
    if values or not _LENGTH.fullmatch(value):
        raise MalformedResponse("has an invalid Content-Length")
    return BodyFraming(int(value), chunked=False)


def _read_one(connection: Connection, max_size: int, ends: float) -> tuple[ResponseHead, int]:
    """Read one head; return its size too."""
    line = connection.read_line(max_size, ends)
    match = _STATUS_LINE.fullmatch(line)
    if not match:
        raise MalformedResponse("is not HTTP: check the URL")
    size, lines = len(line), list[bytes]()
    while line := connection.read_line(max_size, ends):
        size += len(line) + 2
        if size > max_size:
            raise MalformedResponse(f"has a head of more than {MAX_HEAD >> 10} kB")
        if line[:1] in {b" ", b"\t"} and lines:
            lines[-1] += b" " + line.strip()  # obs-fold, RFC 9112, section 5.2
        else:
            lines.append(line)
    headers = _parse_fields(lines)
    connection_options = headers.get("connection", "").lower()
    # Both lengths at once, as in request smuggling: RFC 9112, section 6.1.
    ambiguous = "transfer-encoding" in headers and "content-length" in headers
    keep_alive = match[1] != b"0" and "close" not in connection_options and not ambiguous
    return ResponseHead(int(match[2]), headers, keep_alive), size


def _parse_fields(lines: list[bytes]) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        match = _FIELD_LINE.fullmatch(line)
        if not match:
            raise MalformedResponse("has an invalid header field")
        name, value = match[1].decode("ascii").lower(), match[2].decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
