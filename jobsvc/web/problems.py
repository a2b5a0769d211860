"""Convert errors to `application/problem+json` responses (RFC 9457), and map error codes to statuses.

An unexpected exception becomes a 500 that contains the request id and no details.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, NamedTuple

import orjson
from aiohttp import web

from jobsvc.domain.errors import ApiError, InsufficientScope, OutputReplaced, Unauthorized
from jobsvc.observe import request_id


class ProblemType(NamedTuple):
    """HTTP status and title of an error code."""

    status: HTTPStatus
    title: str


CODES: Final[Mapping[str, ProblemType]] = MappingProxyType(
    {
        "bad-request": ProblemType(HTTPStatus.BAD_REQUEST, "Invalid request"),
        "unauthorized": ProblemType(HTTPStatus.UNAUTHORIZED, "Valid token required"),
        "insufficient-scope": ProblemType(HTTPStatus.FORBIDDEN, "Insufficient scope"),
        "cross-origin-request": ProblemType(HTTPStatus.FORBIDDEN, "Cross-origin request"),
        "not-found": ProblemType(HTTPStatus.NOT_FOUND, "Resource not found"),
        "job-not-found": ProblemType(HTTPStatus.NOT_FOUND, "Job not found"),
        "output-missing": ProblemType(HTTPStatus.NOT_FOUND, "Output file not found"),
        "file-missing": ProblemType(HTTPStatus.NOT_FOUND, "File not found in the outputs"),
        "log-missing": ProblemType(HTTPStatus.NOT_FOUND, "Log not found"),
        "method-not-allowed": ProblemType(HTTPStatus.METHOD_NOT_ALLOWED, "Method not allowed"),
        "job-not-completed": ProblemType(HTTPStatus.CONFLICT, "Job not completed"),
        "job-failed": ProblemType(HTTPStatus.CONFLICT, "Job failed"),
        "job-canceled": ProblemType(HTTPStatus.CONFLICT, "Job canceled"),
        "too-many-files": ProblemType(HTTPStatus.CONFLICT, "Too many files"),
        "request-timeout": ProblemType(HTTPStatus.REQUEST_TIMEOUT, "Request timeout"),
        "precondition-failed": ProblemType(HTTPStatus.PRECONDITION_FAILED, "Precondition failed"),
        "output-replaced": ProblemType(HTTPStatus.PRECONDITION_FAILED, "Output replaced"),
        "content-too-large": ProblemType(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Request body too large"),
        "uri-too-long": ProblemType(HTTPStatus.REQUEST_URI_TOO_LONG, "Request target too long"),
        "unsupported-media-type": ProblemType(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Unsupported content encoding"
        ),
        "range-not-satisfiable": ProblemType(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "Range not satisfiable"
        ),
        "rate-limited": ProblemType(HTTPStatus.TOO_MANY_REQUESTS, "Rate limit exceeded"),
        "too-many-downloads": ProblemType(HTTPStatus.TOO_MANY_REQUESTS, "Too many concurrent downloads"),
        "too-many-streams": ProblemType(HTTPStatus.TOO_MANY_REQUESTS, "Too many concurrent streams"),
        "request-header-fields-too-large": ProblemType(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "Request header too large"
        ),
        "internal": ProblemType(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal error"),
        "storage-unavailable": ProblemType(HTTPStatus.SERVICE_UNAVAILABLE, "Storage unavailable"),
        "too-many-connections": ProblemType(HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections"),
    }
)

CONTENT_TYPE: Final = "application/problem+json"
_REALM: Final = 'Bearer realm="jobsvc"'
_BY_STATUS: Final = {
    404: ("not-found", "No resource exists at this path."),
    415: ("unsupported-media-type", "The request body has a Content-Encoding. Send it unencoded."),
    417: ("bad-request", "The only supported expectation is 100-continue."),
    405: ("method-not-allowed", "The resource does not support this method; see the Allow header."),
    413: ("content-too-large", "The request body is larger than 64 KiB."),
}


def problem(
    code: str,
    detail: str,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Create a problem response; `status` replaces that of the code, for framework errors without a code."""
    kind = CODES[code]
    body = {
        "type": f"urn:jobsvc:problem:{code}",
        "title": kind.title,
        "status": status or kind.status.value,
        "detail": detail,
        "code": code,
        "requestId": request_id.current(),
    }
    return web.Response(
        status=status or kind.status.value,
        body=orjson.dumps(body),
        content_type=CONTENT_TYPE,
        headers={"Cache-Control": "no-store"} | dict(headers or {}),
    )


def from_api_error(refusal: ApiError) -> web.Response:
    """Return the response to an ApiError."""
    headers = {}
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(refusal.retry_after)))
    if isinstance(refusal, Unauthorized):
        headers["WWW-Authenticate"] = _REALM
    if isinstance(refusal, InsufficientScope):
        headers["WWW-Authenticate"] = f'{_REALM}, error="insufficient_scope", scope="{refusal.scope}"'
    if isinstance(refusal, OutputReplaced):
        headers["ETag"] = f'"{refusal.present}"'
    return problem(refusal.code, refusal.detail, headers=headers)


def from_http_exception(refused: web.HTTPException) -> web.Response:
    """Return the response to a request that aiohttp refused before any handler."""
    code, detail = _BY_STATUS.get(refused.status, ("bad-request", refused.reason))
    headers = {
        name: refused.headers[name] for name in ("Allow", "Accept-Encoding") if name in refused.headers
    }
    return problem(code, detail, status=refused.status, headers=headers)


def internal_error() -> web.Response:
    """Return the response to an unexpected exception; the log has details under the same request id."""
    return problem("internal", "The service failed. Its log has details for this requestId.")
