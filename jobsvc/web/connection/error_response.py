"""Render a problem response as bytes, for a connection without a request to respond to."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp.helpers import rfc822_formatted_time

from jobsvc.observe import request_id
from jobsvc.web import problems


def render_error(code: str, detail: str) -> bytes:
    """Return head and body of a response that closes the connection."""
    named = request_id.begin(None)
    try:
        response = problems.problem(code, detail)
        body = response.body if isinstance(response.body, bytes) else b""
        lines = [
            f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
            *(f"{name}: {value}" for name, value in response.headers.items()),
            f"Content-Length: {len(body)}",
            f"X-Request-Id: {request_id.current()}",
            "Server: jobsvc",
            f"Date: {rfc822_formatted_time()}",
            "Connection: close",
        ]
    finally:
        request_id.end(named)
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
