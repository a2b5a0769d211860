"""Validate requests against RFC 9112: those that the parser accepted, and those that it rejected.

Requests refused here do not reach the application.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from aiohttp import HttpVersion10, HttpVersion11, hdrs
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, LineTooLong
from aiohttp.http_parser import RawRequestMessage

MAX_HEAD_BYTES: Final = 32 * 1024
_MAX_LINE_BYTES: Final = 8_000
"""Length of a request line that is always accepted, in bytes (RFC 9112, section 3)."""
_REQUEST_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-~]+ HTTP/1\.[01]\r\n")

# RFC 3986, section 3.2.2; empty if the target URI has no authority.
_NAME: Final = r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*"
_HOST: Final = re.compile(rf"(?:\[[A-Za-z0-9:._~!$&'()*+,;=-]+\]|{_NAME})(?::[0-9]*)?")


class InvalidRequest(HttpProcessingError):
    """A request that must not be processed; the message is for its sender."""

    def __init__(self, code: int, message: str, *, problem: str = "bad-request") -> None:
        super().__init__(code=code, message=message)
        self.problem = problem
        """The code of the problem document."""


def validate(message: RawRequestMessage) -> InvalidRequest | None:
    """Return what is wrong with a request that the parser accepted; None if it is valid."""
    if message.version is not HttpVersion11 and (error := _version_error(message)):
        return error
    if message.method == hdrs.METH_CONNECT:  # the bytes after it are not another request
        return InvalidRequest(501, "CONNECT is not supported: this service is not a proxy.")
    if message.path[:1] != "/" and not _is_absolute_or_asterisk(message):
        return InvalidRequest(400, "The request target is neither a path nor an http or https URL.")
    # The parser itself refuses any other final coding, except if an upgrade is offered.
    if (message.chunked or message.upgrade) and _has_other_coding(message):
        return InvalidRequest(501, "The only supported transfer coding is chunked.")
    if not _is_host(message.headers.get(hdrs.HOST, "")):
        return InvalidRequest(400, "The Host header is not a valid host.")
    return None


def _is_absolute_or_asterisk(message: RawRequestMessage) -> bool:
    """Return whether the target is in absolute or asterisk form (RFC 9112, section 3.2).

    The parser accepts any scheme.
    """
    if message.path == "*":
        return message.method == hdrs.METH_OPTIONS
    return message.path[:8].lower().startswith(("http://", "https://"))


def _has_other_coding(message: RawRequestMessage) -> bool:
    return message.headers.get(hdrs.TRANSFER_ENCODING, "chunked").strip().lower() != "chunked"


def _version_error(message: RawRequestMessage) -> InvalidRequest | None:
    if message.version > HttpVersion11:
        return InvalidRequest(505, "HTTP versions above 1.1 are not supported.")
    if message.version < HttpVersion10:
        return InvalidRequest(400, "The request line has no HTTP version, or one below 1.0.")
    if message.chunked and message.version < HttpVersion11:  # RFC 9112, section 6.1: its framing is faulty
        return InvalidRequest(400, "Transfer-Encoding is not allowed in an HTTP/1.0 request.")
    return None


def refine_parse_error(error: BaseException, head: bytes) -> InvalidRequest | None:
    """Return a more specific error for what the parser reports as a bad request; None if there is none."""
    if isinstance(error, BadHttpMethod) and _REQUEST_LINE.match(head):
        return InvalidRequest(501, "The request method is not supported.")
    if isinstance(error, LineTooLong) or "Too many headers" in str(error):
        return head_too_large(head)
    return None


def head_too_large(head: bytes) -> InvalidRequest:
    """Return the error for a head that is too large: 414 if its request line is too long, else 431."""
    if not 0 <= head.find(b"\r\n", 2) <= _MAX_LINE_BYTES:  # after an empty line, if the head starts with one
        return InvalidRequest(
            414, "The request line is too long. Up to 8000 bytes are accepted.", problem="uri-too-long"
        )
    return InvalidRequest(
        431,
        "The request head has a header over 8190 bytes, more than 128 headers, or more than 32 KiB in total.",
        problem="request-header-fields-too-large",
    )


@lru_cache(maxsize=256)
def _is_host(value: str) -> bool:
    return _HOST.fullmatch(value) is not None
