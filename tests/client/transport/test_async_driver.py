"""Operations over a transport without I/O: results, errors, and streams that are always closed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing

import pytest

from jobsvc.client.errors import ConnectionFailed
from jobsvc.client.protocol.steps import (
    Close,
    Emit,
    Operation,
    Request,
    Response,
    Sleep,
    open_stream,
    read,
    send,
)
from jobsvc.client.transport.async_driver import AsyncBodyStream, iterate, run

REQUEST = Request("/x")


class FakeStream:
    """A body of prepared parts; a read after them never ends."""

    def __init__(self, parts: list[bytes | ConnectionFailed]) -> None:
        self.status = 200
        self.headers: Mapping[str, str] = {}
        self.is_closed = False
        self.reading = asyncio.Event()
        self._parts = parts

    async def read(self, timeout: float | None = None) -> bytes:  # noqa: ARG002, ASYNC109 - the interface
        if not self._parts:
            self.reading.set()
            await asyncio.Event().wait()
        part = self._parts.pop(0)
        if isinstance(part, ConnectionFailed):
            raise part
        return part

    def close(self) -> None:
        self.is_closed = True


class FakeTransport:
    """Responds with prepared results."""

    def __init__(
        self,
        responses: list[Response | ConnectionFailed] | None = None,
        parts: list[bytes | ConnectionFailed] | None = None,
    ) -> None:
        self.stream = FakeStream(parts or [])
        self.sent: list[Request] = []
        self._responses = responses or []

    async def send(self, request: Request) -> Response:
        self.sent.append(request)
        response = self._responses.pop(0)
        if isinstance(response, ConnectionFailed):
            raise response
        return response

    async def open(self, request: Request) -> AsyncBodyStream:
        self.sent.append(request)
        return self.stream

    async def close(self) -> None:
        raise AssertionError("operations do not close the transport")


def follow() -> Operation[None]:
    """Emit each part of a stream."""
    stream = yield from open_stream(REQUEST)
    while data := (yield from read(stream)):
        yield Emit(data)
    yield Close(stream)


async def test_result_of_an_operation_is_returned() -> None:
    response = Response(200, {}, b"body")
    transport = FakeTransport([response])
    assert await run(send(REQUEST), transport) == response
    assert transport.sent == [REQUEST]


async def test_failed_connection_is_thrown_into_the_operation() -> None:
    def send_twice() -> Operation[int]:
        try:
            yield from send(REQUEST)
        except ConnectionFailed:
            yield Sleep(0)
        return (yield from send(REQUEST)).status

    transport = FakeTransport([ConnectionFailed("cut"), Response(204, {}, b"")])
    assert await run(send_twice(), transport) == 204


async def test_failed_connection_that_the_operation_does_not_handle_is_raised() -> None:
    with pytest.raises(ConnectionFailed, match="cut"):
        await run(send(REQUEST), FakeTransport([ConnectionFailed("cut")]))


async def test_operation_waits_without_blocking_the_loop() -> None:
    def wait() -> Operation[None]:
        yield Sleep(60)

    task = asyncio.ensure_future(run(wait(), FakeTransport()))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_items_are_yielded_in_order_and_the_stream_is_closed() -> None:
    transport = FakeTransport(parts=[b"1", b"2", b""])
    assert [item async for item in iterate(follow(), transport)] == [b"1", b"2"]
    assert transport.stream.is_closed


async def test_stream_is_closed_if_reading_fails() -> None:
    transport = FakeTransport(parts=[b"1", ConnectionFailed("cut")])
    with pytest.raises(ConnectionFailed):
        [item async for item in iterate(follow(), transport)]
    assert transport.stream.is_closed


async def test_closing_the_iterator_closes_the_stream_and_ends_the_operation() -> None:
    ended: list[bool] = []

    def watched() -> Operation[None]:
        try:
            yield from follow()
        finally:
            ended.append(True)

    transport = FakeTransport(parts=[b"1", b"2"])
    async with aclosing(iterate(watched(), transport)) as items:
        assert await anext(items) == b"1"
        assert not ended
    assert ended == [True]
    assert transport.stream.is_closed


async def test_cancelling_the_task_closes_the_stream() -> None:
    def read_once() -> Operation[bytes]:
        stream = yield from open_stream(REQUEST)
        return (yield from read(stream))

    transport = FakeTransport()
    task = asyncio.ensure_future(run(read_once(), transport))
    await transport.stream.reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert transport.stream.is_closed


async def test_error_of_the_operation_is_raised() -> None:
    def fail() -> Operation[None]:
        yield from send(REQUEST)
        raise LookupError

    with pytest.raises(LookupError):
        await run(fail(), FakeTransport([Response(200, {}, b"")]))
