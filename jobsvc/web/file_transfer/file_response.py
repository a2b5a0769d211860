"""Respond with an open file, or the requested ranges of it, under the request's conditions.

Downloads and logs both use this module.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

from aiohttp import hdrs, web

from jobsvc.domain.access import Token
from jobsvc.domain.errors import StorageUnavailable
from jobsvc.observe.download_log import Outcome
from jobsvc.storage.nonblocking.cached_read import ReadBuffer
from jobsvc.web import problems
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.auth.permits import PermitLost
from jobsvc.web.connection.fast_request import FastRequest, PreparedResponse
from jobsvc.web.file_transfer.body_writer import BodyWriter
from jobsvc.web.file_transfer.selection import BodyPlan, FileSelection, fields, lines, plan
from jobsvc.web.file_transfer.transfer_state import TransferAborted, TransferState
from jobsvc.web.headers.byte_ranges import unsatisfied
from jobsvc.web.ratelimit import budgets
from jobsvc.web.ratelimit.download_slots import Slot
from jobsvc.web.responses import single_write
from jobsvc.web.responses.common_headers import add_common_headers

T = TypeVar("T")

OnFinished = Callable[[TransferState, Outcome], None]
"""Called once for each body that was started, with its outcome."""


class FileResponder:
    """Send files of one kind: outputs or logs."""

    def __init__(self, transfer: BodyWriter, what: str, scope: str) -> None:
        """Call a file `what` in problem documents; the token must keep `scope` until the file is sent."""
        self._transfer = transfer
        self._scope = scope
        self._what = what
        self.read_buffer = ReadBuffer()
        """Buffer for the bodies of selections that are passed to `try_fast`."""

    async def answer(
        self,
        request: web.Request,
        key: str,
        found: FileSelection,
        headers: Mapping[str, str],
        ended: OnFinished,
        *,
        slot: Slot | None = None,
    ) -> web.StreamResponse:
        """Respond to GET or HEAD; the file is closed in any case.

        `key` is the job id whose share of the threads is used; `headers` are added to each 200 and 206.
        `slot.transfer` is set to the state of the transfer.
        """
        planned = plan(found)
        if planned is None:
            if found.evaluation.status is HTTPStatus.NOT_MODIFIED:
                budgets.refund(request)
                return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=fields(found))
            return self._refusal(found)
        planned.headers.update(headers)
        if request.method != hdrs.METH_GET:
            told = planned.headers | {hdrs.CONTENT_LENGTH: str(planned.length)}
            return web.Response(status=found.evaluation.status, headers=told)
        shipment = TransferState(key, planned.segments, planned.expected, request[TOKEN])
        if slot is not None:
            slot.transfer = shipment
        return await self._send(request, found, planned, shipment, ended)

    def release(self, found: FileSelection) -> None:
        """Close the file of a selection that is not sent."""
        if found.file is not None:
            self._transfer.release(found.file)

    def try_fast(
        self,
        asked: FastRequest,
        token: Token,
        found: FileSelection,
        beside: str,
        ended: OnFinished,
        *,
        linger: Callable[[Coroutine[Any, Any, object], TransferState], None],
    ) -> PreparedResponse | None:
        """Prepare the response to a plain GET whose body is in memory; return None if not possible here.

        The header lines `beside` are added to each 200 and 206. If the client does not accept everything at
        once, `linger` is called with a coroutine that waits for the rest.
        """
        body = found.body
        told = None if body is None else lines(found, beside)
        if body is None or told is None:
            return None
        shipment, status = TransferState(asked.job_id, (), len(body), token), found.evaluation.status

        def send(budget: str) -> None:
            single_write.write_fast(connection := asked.connection, status, told, body, budget)
            if connection.has_unsent_bytes():
                self.read_buffer.detach()
            if connection.write_paused:
                taken = self._transfer.wait_drained(asked.request(), shipment)
                linger(self._track(taken, shipment, ended), shipment)
            else:
                shipment.sent = shipment.expected
                ended(shipment, Outcome.COMPLETE)

        return PreparedResponse(status, send)

    async def _send(
        self,
        request: web.Request,
        found: FileSelection,
        planned: BodyPlan,
        shipment: TransferState,
        ended: OnFinished,
    ) -> web.StreamResponse:
        try:
            sent = await self._track(self._sent(request, found, planned, shipment), shipment, ended)
        finally:
            if not shipment.file_taken:
                self.release(found)
        return web.StreamResponse(status=found.evaluation.status) if sent is None else sent

    async def _track(self, sending: Awaitable[T], shipment: TransferState, ended: OnFinished) -> T | None:
        """Wait for the end of a transfer and call `ended`; return None if it ended early."""
        outcome = Outcome.SHUTDOWN
        try:
            async with self._transfer.permits.limit(shipment.token, self._scope), shipment.interruptible():
                result = await sending
            outcome = Outcome.COMPLETE
        except PermitLost:
            outcome = Outcome.REVOKED
            return None
        except TransferAborted as early:
            outcome = early.outcome
            return None
        except StorageUnavailable:
            outcome = Outcome.STORAGE_ERROR
            raise
        else:
            return result
        finally:
            ended(shipment, outcome)

    async def _sent(
        self, request: web.Request, found: FileSelection, planned: BodyPlan, shipment: TransferState
    ) -> web.StreamResponse:
        """Send the response. Raises TransferAborted if it ends early."""
        status, transfer = found.evaluation.status, self._transfer
        if found.body is not None:
            sent = transfer.write(request, status, single_write.header_lines(planned.headers), found.body)
            if sent is not None:
                await transfer.wait_drained(request, shipment)
                return sent
        response = web.StreamResponse(status=status, headers=planned.headers)
        response.content_length = planned.length
        add_common_headers(request, response)
        if found.file is None:
            await transfer.send_small(request, response, found.body or b"", shipment)
        else:
            await transfer.send(request, response, found.file, shipment)
        return response

    def _refusal(self, found: FileSelection) -> web.Response:
        """Return a 412 or 416 response; its ETag names the version that it refers to."""
        headers = {"ETag": found.selected.etag}
        if found.evaluation.status is HTTPStatus.PRECONDITION_FAILED:
            detail = f"The {self._what} is not the one you know."
            return problems.problem("precondition-failed", detail, headers=headers)
        size = found.selected.size
        headers["Content-Range"] = unsatisfied(size)
        detail = f"The {self._what} has {size} bytes, and the range lies outside of them."
        return problems.problem("range-not-satisfiable", detail, headers=headers)
