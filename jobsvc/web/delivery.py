"""Answers with an open file under the request's conditions and in its ranges: the one way for all files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus

from aiohttp import hdrs, web

from jobsvc.observe.audit import Outcome
from jobsvc.web import guard, problems
from jobsvc.web.byteranges import unsatisfied
from jobsvc.web.envelope import seal
from jobsvc.web.selection import Plan, Selection, fields, plan
from jobsvc.web.shipment import Interrupted, Shipment
from jobsvc.web.transfer import Transfer

Ended = Callable[[Shipment, Outcome], None]
"""Is told of each body that was begun how it ended."""


class Delivery:
    """Delivers files of one kind."""

    def __init__(self, transfer: Transfer, what: str) -> None:
        """Call a file `what` where a client is told of it."""
        self._transfer = transfer
        self._what = what

    async def answer(
        self, request: web.Request, key: str, found: Selection, headers: Mapping[str, str], ended: Ended
    ) -> web.StreamResponse:
        """Answer GET and HEAD, and close the file, however that ends.

        `key` is whose share of the threads it takes; `headers` stand beside those of every 200 and 206.
        """
        planned = plan(found)
        if planned is None:
            if found.decision.status is HTTPStatus.NOT_MODIFIED:
                guard.relieve(request)
                return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=fields(found))
            return self._refusal(found)
        planned.headers.update(headers)
        if request.method != hdrs.METH_GET:
            told = planned.headers | {hdrs.CONTENT_LENGTH: str(planned.length)}
            return web.Response(status=found.decision.status, headers=told)
        return await self._send(
            request, found, planned, Shipment(key, planned.segments, planned.promised), ended
        )

    async def _send(
        self, request: web.Request, found: Selection, planned: Plan, shipment: Shipment, ended: Ended
    ) -> web.StreamResponse:
        outcome = Outcome.SHUTDOWN
        try:
            response = await self._sent(request, found, planned, shipment)
            outcome = Outcome.COMPLETE
        except Interrupted as early:
            outcome = early.outcome
            response = web.StreamResponse(status=found.decision.status)
        finally:
            ended(shipment, outcome)
        return response

    async def _sent(
        self, request: web.Request, found: Selection, planned: Plan, shipment: Shipment
    ) -> web.StreamResponse:
        """Send it all; Interrupted."""
        status, transfer = found.decision.status, self._transfer
        if found.body is not None:
            sent = await transfer.send_at_once(request, status, planned.headers, found.body, shipment)
            if sent is not None:
                return sent
        response = web.StreamResponse(status=status, headers=planned.headers)
        response.content_length = planned.length
        seal(request, response)
        if found.file is None:
            await transfer.send_small(request, response, found.body or b"", shipment)
        else:
            await transfer.send(request, response, found.file, shipment)
        return response

    def _refusal(self, found: Selection) -> web.Response:
        """Answer a 412 or a 416; both say which version it is that they speak of."""
        headers = {"ETag": found.selected.etag}
        if found.decision.status is HTTPStatus.PRECONDITION_FAILED:
            detail = f"The {self._what} is not the one you know."
            return problems.problem("precondition-failed", detail, headers=headers)
        size = found.selected.size
        headers["Content-Range"] = unsatisfied(size)
        detail = f"The {self._what} has {size} bytes, and the range lies outside of them."
        return problems.problem("range-not-satisfiable", detail, headers=headers)
