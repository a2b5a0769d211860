"""Read the body of a request, for the routes that have one."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import hdrs, web

from jobsvc.domain.errors import BadRequest, RequestTimeout

BODY_TIMEOUT_S: Final = 10.0
"""Seconds for a whole body, of at most 64 KiB."""


async def read_body(request: web.Request) -> bytes:
    """Read the whole body.

    Raises BadRequest if it is incomplete, RequestTimeout after BODY_TIMEOUT_S, HTTPUnsupportedMediaType if it
    has a content coding, HTTPRequestEntityTooLarge if it is too large.
    """
    if request.body_exists and _is_encoded(request):
        raise web.HTTPUnsupportedMediaType(headers={hdrs.ACCEPT_ENCODING: "identity"})
    if request.transport is None:  # the connection is lost, no more data will come
        raise BadRequest("The body did not come whole.")
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError as late:
        raise RequestTimeout("The request body did not arrive in time.") from late
    except (ConnectionError, web.RequestPayloadError) as broken:
        raise BadRequest("The body did not come whole.") from broken


def _is_encoded(request: web.Request) -> bool:
    """Whether the body has a content coding (RFC 9110, section 8.4): it may be huge when decoded."""
    codings = request.headers.getall(hdrs.CONTENT_ENCODING, ())
    return any(coding.strip().lower() not in {"", "identity"} for coding in codings)
