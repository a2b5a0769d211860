"""Answers with a small body that is in memory and has an entity tag, or with what its conditions come to."""

from __future__ import annotations

import time
from collections.abc import Mapping

from aiohttp import hdrs, web

from jobsvc.web import guard, whole
from jobsvc.web.conditional import precondition
from jobsvc.web.problems import problem
from jobsvc.web.whole import NOT_MODIFIED, OK


def answer(request: web.Request, body: bytes, fields: Mapping[str, str]) -> web.StreamResponse:
    """Answer a GET or HEAD; the fields, an ETag among them, are ours alone: none came from a client."""
    asked = request.headers
    status = OK
    # The date fields are nothing to a document, which has no Last-Modified.
    if hdrs.IF_NONE_MATCH in asked or hdrs.IF_MATCH in asked:
        failed = precondition(asked, fields["ETag"], None, time.time())
        if failed is not None and failed.status is not NOT_MODIFIED:
            detail = "It is not in the state you know."
            return problem("precondition-failed", detail, headers={"ETag": fields["ETag"]})
        if failed is not None:
            # Of the content that a 304 does not bring, the client knows the type (RFC 9110, section 15.4.5).
            fields = {name: value for name, value in fields.items() if name != hdrs.CONTENT_TYPE}
            status, body = NOT_MODIFIED, b""
            guard.relieve(request)
    sent = whole.send(request, status, whole.lines(fields), body)
    if sent is not None:
        return sent
    return web.Response(status=status, body=body if status is OK else None, headers=fields)
