"""Parses responses: which request each belongs to, and its content."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_OWN: Final = frozenset({
    b"date", b"age", b"ratelimit", b"ratelimit-policy", b"x-request-id", b"connection", b"retry-after",
    b"cache-status",
})  # fmt: skip
"""Fields that may differ between two responses to the same request."""
_REQUEST_ID: Final = re.compile(rb'"requestId":"[^"]*"')


@dataclass(frozen=True, slots=True)
class Answer:
    """One response."""

    status: int
    request_id: bytes
    closes: bool
    """Whether it announces that the connection closes."""
    essence: tuple[int, tuple[tuple[bytes, bytes], ...], bytes]
    """What is the same in all responses to the same request."""


class NotAnAnswer(Exception):
    """The received bytes are not HTTP."""


def parse(data: bytes, methods: list[bytes]) -> list[Answer]:
    """Parse responses; `methods` are those of the requests, in order. NotAnAnswer."""
    found: list[Answer] = []
    position = 0
    while position < len(data):
        end = data.find(b"\r\n\r\n", position)
        line, *lines = data[position:end].split(b"\r\n")
        match = re.match(rb"HTTP/1\.[01] (\d{3}) ", line)
        if end < 0 or match is None:
            raise NotAnAnswer(data[position : position + 200])
        status, position = int(match[1]), end + 4
        if status == 100:
            continue
        fields = [
            (name.lower(), value.strip()) for name, _, value in (each.partition(b":") for each in lines)
        ]
        method = methods[len(found)] if len(found) < len(methods) else b"GET"
        named = dict(fields)
        bare = method == b"HEAD" or status in {204, 304}
        length = 0 if bare else int(named.get(b"content-length", b"0"))
        body = data[position : position + length]
        if len(body) < length:
            raise NotAnAnswer(b"cut short: " + body[:100])
        position += length
        kept = tuple(sorted(each for each in fields if each[0] not in _OWN))
        body = _REQUEST_ID.sub(b"", body)
        if b"multipart" in named.get(b"content-type", b""):
            kept, body = (), b""  # the boundary is random
        found.append(
            Answer(
                status,
                named.get(b"x-request-id", b""),
                named.get(b"connection") == b"close",
                (status, kept, body),
            )
        )
    return found
