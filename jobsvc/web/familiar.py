"""A request that differs from the one before it on its connection in its target alone need not be parsed.

Who polls asks so. The fields are those that the parser took before, byte for byte, and the target is of
characters that mean themselves: the parser would say nothing else of either.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from aiohttp.http_parser import RawRequestMessage
from yarl import URL

# Letters, digits and "-._~" are unreserved (RFC 3986, section 2.3); a longer target the parser may refuse.
_LINE: Final = re.compile(rb"GET (/[A-Za-z0-9._~/-]{0,255}) HTTP/1\.1\r\n")


class Familiar(NamedTuple):
    """What is known of the request before: a plain GET, that was answered."""

    message: RawRequestMessage
    rest: bytes
    """Its head without the first line."""

    def target_of(self, data: bytes) -> str | None:
        """Name the target where `data` is a whole head that differs in nothing else; None where it is not."""
        line = _LINE.match(data)
        if line is None or len(data) - line.end() != len(self.rest) or not data.endswith(self.rest):
            return None
        return line[1].decode("ascii")


def familiar(message: RawRequestMessage, data: bytes) -> Familiar | None:
    """Take note of a plain GET that the parser had whole with `data`; None where that was not all of it.

    A head may come in pieces, and the last of them may look like a head, without the fields before it. So
    all lines are counted: the first, each field's, and the empty one.
    """
    line, lines = _LINE.match(data), len(message.raw_headers) + 2
    if line is None or data.count(b"\r\n") != lines or not data.endswith(b"\r\n\r\n"):
        return None
    return Familiar(message, data[line.end() :])


def retargeted(message: RawRequestMessage, target: str) -> RawRequestMessage:
    """Give the message that the parser would have made of another such target."""
    return message._replace(path=target, url=URL.build(path=target, encoded=True))
