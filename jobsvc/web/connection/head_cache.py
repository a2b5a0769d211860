"""Reuse the previous parsed request of a connection if only the target or the range differs.

Polling clients repeat the same header block; players and parallel downloads change only the range. If the
rest is byte-for-byte the same, and what differs has only characters that stand for themselves, the parser
would produce the same message with the new target and range. Without a parser, a range of 64 KiB takes 10 %
less time.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, TypeAlias

from aiohttp import hdrs
from aiohttp.http_parser import RawRequestMessage
from multidict import CIMultiDictProxy
from yarl import URL

# Letters, digits and "-._~" are unreserved (RFC 3986, section 2.3); the parser might refuse a longer target.
# The only query allowed is that of a `downloadUrl`.
_LINE: Final = re.compile(rb"GET (/[A-Za-z0-9._~/-]{0,255}(?:\?version=[A-Za-z0-9_-]{22})?) HTTP/1\.1\r\n")
_RANGE: Final = re.compile(rb"bytes=[0-9]{1,18}-[0-9]{0,18}")
_RANGE_FIELD: Final = re.compile(rb"(?:\A|\r\n)[Rr]ange: (" + _RANGE.pattern + rb")\r\n")
_END: Final = 16
"""Bytes at the end that are compared first: almost free if each request has different header fields."""


CachedMatch: TypeAlias = tuple[RawRequestMessage, str]
"""The cached message, or a copy of it with the new range, and the new target."""


class _Fields(NamedTuple):
    """A header block, in two parts if a single range is between them."""

    start: bytes
    end: bytes = b""
    range_index: int = -1
    """Index of the Range field between the two in the message's `raw_headers`; -1 if there is none."""


class CachedHead:
    """The previous request: a plain GET that got its response."""

    __slots__ = ("_data", "_fields", "message")

    def __init__(self, message: RawRequestMessage, data: bytes) -> None:
        """Take the parsed request and the last `data` parsed, which can be only the end of the request."""
        self.message = message
        self._data = data
        self._fields: _Fields | None = None

    def match(self, data: bytes) -> CachedMatch | None:
        """Return a match if `data` is a complete head that differs in nothing else; None otherwise."""
        # Only a head with a range can match although its end differs. It is "Range" or "range".
        if not data.endswith(self._data[-_END:]) and b"ange: bytes=" not in data:
            return None
        line = _LINE.match(data)
        start, end, range_index = self._fields = self._fields or self._split_fields()
        if not start or line is None or not data.startswith(start, line.end()):
            return None
        rest = line.end() + len(start)
        if range_index < 0:
            return (self.message, line[1].decode("ascii")) if len(data) == rest else None
        value = data[rest : len(data) - len(end)]
        if not data.endswith(end) or _RANGE.fullmatch(value) is None:
            return None
        return _with_range(self.message, range_index, value), line[1].decode("ascii")

    def _split_fields(self) -> _Fields:
        """Return the header block, or an empty one if the head did not arrive in one read.

        The last fragment of a split head can look like a complete head. Its CRLFs must therefore equal the
        parsed header lines plus two: the request line and the blank line.
        """
        line, lines = _LINE.match(self._data), len(self.message.raw_headers) + 2
        if not line or self._data.count(b"\r\n") != lines or not self._data.endswith(b"\r\n\r\n"):
            return _Fields(b"")
        block = self._data[line.end() :]
        field = _RANGE_FIELD.search(block)
        indexes = [i for i, (name, _) in enumerate(self.message.raw_headers) if name.lower() == b"range"]
        if field is None or len(indexes) > 1:
            return _Fields(block)
        return _Fields(block[: field.start(1)], block[field.end(1) :], indexes[0])


def with_path(message: RawRequestMessage, target: str) -> RawRequestMessage:
    """Return the message that the parser would have produced for another such target."""
    path, _, query = target.partition("?")
    return message._replace(path=target, url=URL.build(path=path, query_string=query, encoded=True))


def _with_range(message: RawRequestMessage, index: int, value: bytes) -> RawRequestMessage:
    """Return the message that the parser would have produced for another range, which is field `index`."""
    fields, name = message.raw_headers, message.raw_headers[index][0]
    headers = message.headers.copy()
    headers[hdrs.RANGE] = value.decode("ascii")
    raw_headers = (*fields[:index], (name, value), *fields[index + 1 :])
    return message._replace(headers=CIMultiDictProxy(headers), raw_headers=raw_headers)
