"""Header fields with which browsers let pages of other origins read responses (CORS in the Fetch standard).

Access-Control-Allow-Credentials is never sent: a page of another origin needs a token, and its browser's
session does not count for it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, TypeAlias

from aiohttp import hdrs, web
from multidict import CIMultiDictProxy

Fields: TypeAlias = tuple[tuple[str, str], ...]

REQUEST_FIELDS: Final = (
    *("Authorization", "Cache-Control", "Content-Type", "If-Match", "If-Modified-Since", "If-None-Match"),
    *("If-Range", "If-Unmodified-Since", "Last-Event-ID", "Range", "Traceparent", "Tracestate"),
    *("Want-Repr-Digest", "X-Request-Id"),
)
"""The fields that a page may send: all that the service evaluates."""
RESPONSE_FIELDS: Final = (
    *("Accept-Ranges", "Age", "Cache-Status", "Content-Disposition", "Content-Range", "ETag", "Location"),
    *("RateLimit", "RateLimit-Policy", "Repr-Digest", "Retry-After", "X-Request-Id"),
)
"""The fields that a page may read, besides those that it always may, such as Content-Length."""
METHODS: Final = (hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_POST)
PREFLIGHT_MAX_AGE_S: Final = 7200
"""Seconds for which a browser remembers a preflight: the most that Chromium accepts."""
VARY: Final = (hdrs.VARY, hdrs.ORIGIN)
"""In every response, also to a request without an origin: a browser's cache must not use that for others."""

_EXPOSED: Final = (hdrs.ACCESS_CONTROL_EXPOSE_HEADERS, ", ".join(RESPONSE_FIELDS))
_PREFLIGHT: Final = (
    (hdrs.ACCESS_CONTROL_ALLOW_METHODS, ", ".join(METHODS)),
    (hdrs.ACCESS_CONTROL_ALLOW_HEADERS, ", ".join(REQUEST_FIELDS)),
    (hdrs.ACCESS_CONTROL_MAX_AGE, str(PREFLIGHT_MAX_AGE_S)),
)

CORS_FIELDS: Final = web.RequestKey("jobsvc.cors-fields", tuple)
"""On a request: the `Fields` of its response; not set if it needs none."""


def fields(request: web.BaseRequest) -> Fields:
    """Return the CORS fields of the response to a request."""
    found: Fields = request.get(CORS_FIELDS, ())
    return found


def lines(request: web.BaseRequest) -> str:
    """Return the same fields as lines of a head."""
    return "".join([f"{name}: {value}\r\n" for name, value in fields(request)])


def response_fields(headers: CIMultiDictProxy[str], origins: Collection[str]) -> Fields:
    """Return the CORS fields of the response to a request with these header fields."""
    origin = allowed_origin(headers, origins)
    if origin is None:
        return (VARY,)
    return (VARY, (hdrs.ACCESS_CONTROL_ALLOW_ORIGIN, origin), _EXPOSED)


def preflight_fields(headers: CIMultiDictProxy[str], origins: Collection[str]) -> Fields | None:
    """Return what the response to a preflight has besides `response_fields`.

    Returns None if an OPTIONS request is no preflight, or comes from a page of an origin that is not allowed.
    """
    is_preflight = hdrs.ACCESS_CONTROL_REQUEST_METHOD in headers
    return _PREFLIGHT if is_preflight and allowed_origin(headers, origins) is not None else None


def allowed_origin(headers: CIMultiDictProxy[str], origins: Collection[str]) -> str | None:
    """Return the origin of the page that sent a request; None if it has none, or one that is not allowed."""
    values = headers.getall(hdrs.ORIGIN, ())
    return values[0] if len(values) == 1 and values[0] in origins else None
