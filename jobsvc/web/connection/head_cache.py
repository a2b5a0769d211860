"""Reuse the previous parsed request of a connection if only the target differs.

Polling clients repeat the same header block. If it is byte-for-byte the same, and the new target has only
characters that stand for themselves, the parser would produce the same message with the new target.
"""

from __future__ import annotations

import re
from typing import Final

from aiohttp.http_parser import RawRequestMessage
from yarl import URL

# Letters, digits and "-._~" are unreserved (RFC 3986, section 2.3); the parser might refuse a longer target.
# The only query allowed is that of a `downloadUrl`.
_LINE: Final = re.compile(rb"GET (/[A-Za-z0-9._~/-]{0,255}(?:\?version=[A-Za-z0-9_-]{22})?) HTTP/1\.1\r\n")
_END: Final = 16
"""Bytes at the end that are compared first: almost free if each request has different header fields."""


class CachedHead:
    """The previous request: a plain GET that got its response."""

    __slots__ = ("_data", "_rest", "message")

    def __init__(self, message: RawRequestMessage, data: bytes) -> None:
        """Take the parsed request and the last `data` parsed, which can be only the end of the request."""
        self.message = message
        self._data = data
        self._rest: bytes | None = None

    def match_path(self, data: bytes) -> str | None:
        """Return the target if `data` is a complete head that differs in nothing else; None otherwise."""
        if not data.endswith(self._data[-_END:]):
            return None
        line, rest = _LINE.match(data), self._fields()
        if not rest or line is None or len(data) - line.end() != len(rest) or not data.endswith(rest):
            return None
        return line[1].decode("ascii")

    def _fields(self) -> bytes:
        """Return the header block, or b"" if the head did not arrive in one read.

        The last fragment of a split head can look like a complete head. Its CRLFs must therefore equal the
        parsed header lines plus two: the request line and the blank line.
        """
        if self._rest is None:
            line, lines = _LINE.match(self._data), len(self.message.raw_headers) + 2
            is_whole = line and self._data.count(b"\r\n") == lines and self._data.endswith(b"\r\n\r\n")
            self._rest = self._data[line.end() :] if line and is_whole else b""
        return self._rest


def with_path(message: RawRequestMessage, target: str) -> RawRequestMessage:
    """Return the message that the parser would have produced for another such target."""
    path, _, query = target.partition("?")
    return message._replace(path=target, url=URL.build(path=path, query_string=query, encoded=True))
