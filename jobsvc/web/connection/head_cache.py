"""A request that differs from the one before it on its connection in its target alone need not be parsed.

Who polls asks so. The fields are those that the parser took before, byte for byte, and the target is of
characters that mean themselves: the parser would say nothing else of either.
"""

from __future__ import annotations

import re
from typing import Final

from aiohttp.http_parser import RawRequestMessage
from yarl import URL

# Letters, digits and "-._~" are unreserved (RFC 3986, section 2.3); a longer target the parser may refuse.
# Of queries only that of a `downloadUrl` is known.
_LINE: Final = re.compile(rb"GET (/[A-Za-z0-9._~/-]{0,255}(?:\?version=[A-Za-z0-9_-]{22})?) HTTP/1\.1\r\n")
_END: Final = 16
"""Bytes that are compared first: where each request has other fields, that costs next to nothing."""


class CachedHead:
    """The request before: a plain GET, that was answered."""

    __slots__ = ("_data", "_rest", "message")

    def __init__(self, message: RawRequestMessage, data: bytes) -> None:
        """Take what the parser made of it once it had `data`, which may be but the end of it."""
        self.message = message
        self._data = data
        self._rest: bytes | None = None

    def match_path(self, data: bytes) -> str | None:
        """Name the target where `data` is a whole head that differs in nothing else; None where it is not."""
        if not data.endswith(self._data[-_END:]):
            return None
        line, rest = _LINE.match(data), self._fields()
        if not rest or line is None or len(data) - line.end() != len(rest) or not data.endswith(rest):
            return None
        return line[1].decode("ascii")

    def _fields(self) -> bytes:
        """Give its head without the first line; nothing where it did not come whole.

        A head may come in pieces, and the last of them may look like a head, without the fields before it. So
        all lines are counted: the first, each field's, and the empty one.
        """
        if self._rest is None:
            line, lines = _LINE.match(self._data), len(self.message.raw_headers) + 2
            whole = line and self._data.count(b"\r\n") == lines and self._data.endswith(b"\r\n\r\n")
            self._rest = self._data[line.end() :] if line and whole else b""
        return self._rest


def with_path(message: RawRequestMessage, target: str) -> RawRequestMessage:
    """Give the message that the parser would have made of another such target."""
    path, _, query = target.partition("?")
    return message._replace(path=target, url=URL.build(path=path, query_string=query, encoded=True))
