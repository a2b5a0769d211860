"""Read and parse the body of a request for a download link."""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

import orjson
from aiohttp import hdrs, web

from jobsvc.domain.errors import BadRequest, RequestTimeout
from jobsvc.storage.archive.tar import TAR
from jobsvc.storage.archive.zip import ZIP

DEFAULT_AGE_S: Final = 3600
"""Seconds; shorter if the operator allows less."""
BODY_TIMEOUT_S: Final = 10.0
"""Seconds for a whole request body, of at most 64 KiB."""
ARCHIVES: Final = (TAR, ZIP)
MEMBERS: Final = ("expiresIn", "file", "archive", "inline")


class LinkRequest(NamedTuple):
    """What a link is to be made for."""

    seconds: int
    """Lifetime of the link."""
    file: tuple[str, str | None] | None
    """Name of the output, and path in it, if there is one; None for the main output."""
    archive: str | None
    """Format of the archive of all files, if the link is for that."""
    inline: bool
    """Whether a browser shows the file instead of saving it."""


async def read_link_request(request: web.Request, max_age: int) -> LinkRequest:
    """Read the body; an empty one is a link to the main output. Raises the same as `read_body`."""
    return parse_link_request(await read_body(request), max_age)


def parse_link_request(body: bytes, max_age: int) -> LinkRequest:
    """Parse the body; `max_age` is the maximum lifetime in seconds, and the default if that is longer.

    Raises BadRequest if the body is invalid. Unknown members are rejected: with a misspelt name, such as
    `expires`, the link would otherwise live longer than intended.
    """
    try:
        document = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as exc:
        raise BadRequest("The request body is not valid JSON.") from exc
    if not isinstance(document, dict) or not document.keys() <= set(MEMBERS):
        known = ", ".join(MEMBERS)
        raise BadRequest(
            f'The request body is not an object with only {known}, such as {{"expiresIn": 3600}}.'
        )
    link = LinkRequest(_seconds(document, max_age), _file(document), _archive(document), _inline(document))
    if link.archive is not None and (link.file is not None or link.inline):
        raise BadRequest("archive: it cannot be combined with file or inline.")
    return link


def _seconds(document: dict[str, Any], max_age: int) -> int:
    seconds = document.get("expiresIn", min(DEFAULT_AGE_S, max_age))
    # JSON has one number type: 60.0 equals 60. A boolean is not a number.
    if type(seconds) not in {int, float} or not 1 <= seconds <= max_age or seconds != int(seconds):
        raise BadRequest(f"expiresIn is not an integer number of seconds from 1 to {max_age}.")
    return int(seconds)


def _file(document: dict[str, Any]) -> tuple[str, str | None] | None:
    file = document.get("file")
    if file is None:
        return None
    if not isinstance(file, str) or not file:
        raise BadRequest(
            'file is not the name of an output, or that and a path, such as "beauty/beauty.1001.exr".'
        )
    output, slash, path = file.partition("/")
    return output, path if slash else None


def _archive(document: dict[str, Any]) -> str | None:
    archive = document.get("archive")
    if archive not in (None, *ARCHIVES):  # no set: what a client sends may not be hashable
        raise BadRequest(f"archive is not one of {', '.join(ARCHIVES)}.")
    return archive


def _inline(document: dict[str, Any]) -> bool:
    inline = document.get("inline", False)
    if not isinstance(inline, bool):
        raise BadRequest("inline is neither true nor false.")
    return inline


async def read_body(request: web.Request) -> bytes:
    """Read the whole body.

    Raises BadRequest if it is incomplete, RequestTimeout after BODY_TIMEOUT_S, HTTPUnsupportedMediaType if it
    has a content coding, HTTPRequestEntityTooLarge if it is too large.
    """
    if request.body_exists and _is_encoded(request):
        raise web.HTTPUnsupportedMediaType(headers={hdrs.ACCEPT_ENCODING: "identity"})
    if request.transport is None:  # the connection is lost, no more data will come
        raise BadRequest("The request body is incomplete.")
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError as exc:
        raise RequestTimeout("The request body did not arrive in time.") from exc
    except (ConnectionError, web.RequestPayloadError) as exc:
        raise BadRequest("The request body is incomplete.") from exc


def _is_encoded(request: web.Request) -> bool:
    """Whether the body has a content coding (RFC 9110, section 8.4): it may be huge when decoded."""
    codings = request.headers.getall(hdrs.CONTENT_ENCODING, ())
    return any(coding.strip().lower() not in {"", "identity"} for coding in codings)
