"""Respond with an open file, or the requested ranges of it, under the request's conditions.

Downloads and logs both use this module.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

from aiohttp import hdrs, web

from jobsvc.domain.access import Token
from jobsvc.domain.errors import StorageUnavailable
from jobsvc.observe.download_log import Outcome
from jobsvc.storage.nonblocking.cached_read import ReadBuffer
from jobsvc.web import problems
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.auth.signed_links import LINK
from jobsvc.web.connection.fast_request import FastRequest, PreparedResponse
from jobsvc.web.file_transfer.body_writer import BodyWriter
from jobsvc.web.file_transfer.selection import BodyPlan, FileSelection, header_fields, header_lines, plan
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

    def __init__(self, body_writer: BodyWriter, kind: str, scope: str) -> None:
        """Call a file `kind` in problem documents; the token must keep `scope` until the file is sent."""
        self._body_writer = body_writer
        self._scope = scope
        self._kind = kind
        self.read_buffer = ReadBuffer()
        """Buffer for the bodies of selections that are passed to `prepare_fast`."""

    async def answer(
        self,
        request: web.Request,
        key: str,
        selection: FileSelection,
        extra_headers: Mapping[str, str],
        on_finished: OnFinished,
        *,
        slot: Slot | None = None,
    ) -> web.StreamResponse:
        """Respond to GET or HEAD; the file is closed in any case.

        `key` is the job id whose share of the threads is used; `extra_headers` are added to each 200 and 206.
        `slot.transfer` is set to the state of the transfer.
        """
        planned = plan(selection)
        if planned is None:
            if selection.evaluation.status is HTTPStatus.NOT_MODIFIED:
                budgets.refund(request)
                return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=header_fields(selection))
            return self._error(selection)
        planned.headers.update(extra_headers)
        if request.method != hdrs.METH_GET:
            headers = planned.headers | {hdrs.CONTENT_LENGTH: str(planned.length)}
            return web.Response(status=selection.evaluation.status, headers=headers)
        state = TransferState(key, planned.segments, planned.expected, request[TOKEN], request.get(LINK))
        if slot is not None:
            slot.transfer = state
        return await self._send(request, selection, planned, state, on_finished)

    async def _send(
        self,
        request: web.Request,
        selection: FileSelection,
        planned: BodyPlan,
        state: TransferState,
        on_finished: OnFinished,
    ) -> web.StreamResponse:
        """Send a response with a body; the file is closed in any case."""
        try:
            sending = self._send_response(request, selection, planned, state)
            sent = await self._track(sending, state, on_finished)
        finally:
            if not state.file_taken:
                self.release(selection)
        return web.StreamResponse(status=selection.evaluation.status) if sent is None else sent

    async def _send_response(
        self, request: web.Request, selection: FileSelection, planned: BodyPlan, state: TransferState
    ) -> web.StreamResponse:
        """Send the response. Raises TransferAborted if it ends early."""
        status, body_writer = selection.evaluation.status, self._body_writer
        if selection.body is not None:
            head_lines = single_write.header_lines(planned.headers)
            sent = body_writer.write(request, status, head_lines, selection.body)
            if sent is not None:
                await body_writer.wait_drained(request, state)
                return sent
        response = web.StreamResponse(status=status, headers=planned.headers)
        response.content_length = planned.length
        add_common_headers(request, response)
        if selection.file is None:
            await body_writer.send_small(request, response, selection.body or b"", state)
        else:
            await body_writer.send(request, response, selection.file, state)
        return response

    async def _track(self, sending: Awaitable[T], state: TransferState, on_finished: OnFinished) -> T | None:
        """Wait for the end of a transfer and call `on_finished`; return None if it ended early."""
        outcome = Outcome.SHUTDOWN
        try:
            revoke = partial(state.end_early, Outcome.REVOKED)
            with self._body_writer.permits.hold(state.token, self._scope, revoke, state.link):
                async with state.interruptible():
                    result = await sending
            outcome = Outcome.COMPLETE
        except TransferAborted as exc:
            outcome = exc.outcome
            return None
        except StorageUnavailable:
            outcome = Outcome.STORAGE_ERROR
            raise
        else:
            return result
        finally:
            on_finished(state, outcome)

    def _error(self, selection: FileSelection) -> web.Response:
        """Return a 412 or 416 response; its ETag names the version that it refers to."""
        headers = {"ETag": selection.selected.etag}
        if selection.evaluation.status is HTTPStatus.PRECONDITION_FAILED:
            detail = f"The {self._kind} does not match If-Match, or was modified after If-Unmodified-Since."
            return problems.problem("precondition-failed", detail, headers=headers)
        size = selection.selected.size
        headers["Content-Range"] = unsatisfied(size)
        detail = f"The range is outside the {self._kind}, which has {size} bytes."
        return problems.problem("range-not-satisfiable", detail, headers=headers)

    def release(self, selection: FileSelection) -> None:
        """Close the file of a selection that is not sent."""
        if selection.file is not None:
            self._body_writer.release(selection.file)

    def prepare_fast(
        self,
        request: FastRequest,
        token: Token,
        selection: FileSelection,
        extra_lines: str,
        on_finished: OnFinished,
        *,
        run_in_background: Callable[[Coroutine[Any, Any, object], TransferState], None],
    ) -> PreparedResponse | None:
        """Prepare the response to a plain GET whose body is in memory; return None if not possible here.

        The header lines `extra_lines` are added to each 200 and 206. If the client does not accept
        everything at once, `run_in_background` is called with a coroutine that waits for the rest.
        """
        body = selection.body
        head_lines = None if body is None else header_lines(selection, extra_lines)
        if body is None or head_lines is None:
            return None
        state, status = TransferState(request.job_id, (), len(body), token), selection.evaluation.status

        def send(further: str) -> None:
            single_write.write_fast(connection := request.connection, status, head_lines, body, further)
            if connection.has_unsent_bytes():
                self.read_buffer.detach()
            if connection.write_paused:
                drained = self._body_writer.wait_drained(request.to_request(), state)
                run_in_background(self._track(drained, state, on_finished), state)
            else:
                state.sent = state.expected
                on_finished(state, Outcome.COMPLETE)

        return PreparedResponse(status, send)
