"""Send JSON bodies that are in memory and have an entity tag, under the request's conditions.

The header fields must include an ETag, and none of them may contain data from a client.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import hdrs, web
from multidict import CIMultiDictProxy

from jobsvc.web.connection.fast_request import FastRequest, PreparedResponse
from jobsvc.web.headers.conditional import PRECONDITION_FAILED, precondition
from jobsvc.web.problems import problem
from jobsvc.web.ratelimit import budgets
from jobsvc.web.responses import single_write
from jobsvc.web.responses.single_write import NOT_MODIFIED, OK

STALE: Final = "jobsvc; hit; detail=storage-unavailable"
"""Cache-Status of a response that storage did not confirm (RFC 9211)."""

UNREADABLE: Final = "jobsvc; hit; detail=record-unreadable"
"""Cache-Status of the last good record of a job whose current record cannot be read."""


def respond(
    request: web.Request, body: bytes | tuple[bytes, ...], fields: Mapping[str, str]
) -> web.StreamResponse:
    """Respond to a GET or HEAD with a 200, 304 or 412; the body may be in pieces."""
    status = _status(request.headers, fields)
    if status is PRECONDITION_FAILED.status:
        detail = "The current version does not match If-Match."
        return problem("precondition-failed", detail, headers={"ETag": fields["ETag"]})
    if status is NOT_MODIFIED:
        budgets.refund(request)
        fields, body = _unchanged(fields), b""
    sent = single_write.write_response(request, status, single_write.header_lines(fields), body)
    if sent is not None:
        return sent
    if isinstance(body, tuple):
        body = b"".join(body)
    return web.Response(status=status, body=body if status is OK else None, headers=fields)


def prepare(request: FastRequest, body: bytes, fields: Mapping[str, str]) -> PreparedResponse | None:
    """Prepare the same response to a plain GET as a single write; return None if it is not a 200 or 304."""
    status = _status(request.headers, fields)
    if status is NOT_MODIFIED:
        fields, body = _unchanged(fields), b""
    elif status is not OK:
        return None
    return PreparedResponse(
        status,
        partial(single_write.write_fast, request.connection, status, single_write.header_lines(fields), body),
    )


def uncached(document: Mapping[str, Any], status: int = 200) -> web.Response:
    """Create a response that no cache may store."""
    return web.Response(
        status=status,
        body=orjson.dumps(document),
        content_type="application/json",
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
    )


def index_fields(etag: str, age: float, *, stale: bool, unreadable: bool) -> dict[str, str]:
    """Return the fields of a response from the index that is `age` seconds old."""
    fields = {
        "ETag": etag,
        "Content-Type": "application/json",
        "Cache-Control": "private, no-cache",
        "Age": str(int(age)),
        "X-Content-Type-Options": "nosniff",
    }
    if stale:
        fields["Cache-Status"] = STALE
    elif unreadable:
        fields["Cache-Status"] = UNREADABLE
    return fields


def _status(headers: CIMultiDictProxy[str], fields: Mapping[str, str]) -> HTTPStatus:
    """Evaluate the request's conditions: 200, 304 or 412."""
    if hdrs.IF_NONE_MATCH not in headers and hdrs.IF_MATCH not in headers:
        return OK
    # JSON responses have no Last-Modified, so the date conditions do not apply.
    failed = precondition(headers, fields["ETag"], None, time.time())
    return OK if failed is None else failed.status


def _unchanged(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of a 304: without the type of content that is not sent (RFC 9110, section 15.4.5)."""
    return {name: value for name, value in fields.items() if name != hdrs.CONTENT_TYPE}
