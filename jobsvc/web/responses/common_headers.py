"""Add the header fields that every response has."""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web
from multidict import istr

from jobsvc.observe import request_id
from jobsvc.web.headers import cors
from jobsvc.web.ratelimit import budgets

REQUEST_ID: Final = istr(request_id.HEADER)

SERVER: Final = "jobsvc"


def add_common_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the fields that every response has; a handler that sends its own response calls this first."""
    headers = response.headers
    headers[REQUEST_ID] = request_id.current() or ""
    headers[hdrs.SERVER] = SERVER
    for field, value in (*budgets.fields(request), *cors.fields(request)):
        headers[field] = value


def common_header_lines(further: str) -> str:
    """Return the same fields as header lines; `further` is the result of `further_lines`."""
    return f"{REQUEST_ID}: {request_id.current()}\r\nServer: {SERVER}\r\n{further}"


def further_lines(request: web.Request) -> str:
    """Return those of the fields that depend on the request's budget and origin, as header lines."""
    return budgets.lines(request) + cors.lines(request)
