"""Problem responses to requests that do not reach the application, and to exceptions outside of it."""

from __future__ import annotations

import time
from http import HTTPStatus

import structlog
from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from jobsvc.observe import request_id
from jobsvc.web import problems
from jobsvc.web.connection.request_validation import InvalidRequest
from jobsvc.web.headers.http_dates import format_date

log = structlog.get_logger("jobsvc.web")


def error_response(status: int, exc: BaseException | None, peer: str | None) -> web.Response:
    """Log an error and return the response to it, which closes the connection.

    The status is 400 or a more specific one for invalid HTTP, 500 for an unhandled exception.
    """
    request_id.bind(name := request_id.new())
    if isinstance(exc, HttpProcessingError):
        log.info("refused", status=status, reason=type(exc).__name__, peer=peer)
        response = _invalid_request(exc, status)
    else:
        log.error("request-failed", status=status, exc_info=exc)
        response = problems.internal_error()
    response.headers[request_id.HEADER] = name
    response.headers[hdrs.SERVER] = "jobsvc"
    response.headers[hdrs.CONNECTION] = "close"  # aiohttp responds as HTTP/1.0 here, and omits it
    response.force_close()
    return response


def _invalid_request(exc: HttpProcessingError, status: int) -> web.Response:
    if isinstance(exc, InvalidRequest):
        return problems.problem(exc.problem, exc.message, status=status)
    return problems.problem("bad-request", "The request is not valid HTTP.", status=status)


def render_error(code: str, detail: str) -> bytes:
    """Return head and body of a response that closes the connection, for one without a request."""
    bound = request_id.begin(None)
    try:
        response = problems.problem(code, detail)
        body = response.body if isinstance(response.body, bytes) else b""
        lines = [
            f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
            *(f"{name}: {value}" for name, value in response.headers.items()),
            f"Content-Length: {len(body)}",
            f"{request_id.HEADER}: {request_id.current()}",
            "Server: jobsvc",
            f"Date: {format_date(int(time.time()))}",
            "Connection: close",
        ]
    finally:
        request_id.end(bound)
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
