"""Run operations over an asynchronous transport, as driver.py does over a blocking one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Protocol, TypeVar

from jobsvc.client.errors import ConnectionFailed
from jobsvc.client.protocol.steps import (
    Close,
    Emit,
    Open,
    Operation,
    Read,
    Request,
    Response,
    Send,
    Sleep,
    Step,
    Stream,
)

T = TypeVar("T")


class AsyncBodyStream(Stream, Protocol):
    """A response whose body is read in parts."""

    async def read(self, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - as in driver.py
        """Return what has arrived, at least one byte; empty at the end.

        Raises ConnectionFailed if no byte arrives within `timeout` seconds (None: those of the request), or
        if the body ends early.
        """

    def close(self) -> None:
        """Release the connection; can be called repeatedly."""


class AsyncTransport(Protocol):
    """Sends requests. Adds the base URL, the token and the User-Agent."""

    async def send(self, request: Request) -> Response:
        """Send a request and read the response. Raises ConnectionFailed."""

    async def open(self, request: Request) -> AsyncBodyStream:
        """Send a request and read the head of the response. Raises ConnectionFailed."""

    async def close(self) -> None:
        """Close all connections."""


async def run(operation: Operation[T], transport: AsyncTransport) -> T:
    """Perform an operation and return its result. Raises what the operation raises."""
    driver = _Driver(transport)
    try:
        step = next(operation)
        while True:
            assert not isinstance(step, Emit)  # noqa: S101 - only iterated operations emit
            step = _resume(operation, await driver.perform(step))
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        driver.close_streams()
        operation.close()


async def iterate(operation: Operation[None], transport: AsyncTransport) -> AsyncGenerator[Any, None]:
    """Perform an operation and yield the items that it emits. Closing the iterator ends the operation."""
    driver = _Driver(transport)
    try:
        step = next(operation)
        while True:
            if isinstance(step, Emit):
                yield step.item
                step = operation.send(None)
            else:
                step = _resume(operation, await driver.perform(step))
    except StopIteration:
        return
    finally:
        driver.close_streams()
        operation.close()


def _resume(operation: Operation[Any], result: object) -> Step:
    # Not in a coroutine: there, the StopIteration of a finished operation would become a RuntimeError.
    if isinstance(result, ConnectionFailed):
        return operation.throw(result)
    return operation.send(result)


class _Driver:
    """Performs the steps of one operation."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport
        self._streams: list[AsyncBodyStream] = []

    async def perform(self, step: Step) -> object:
        """Perform a step; return its result, or the ConnectionFailed that it raised."""
        try:
            return await self._perform(step)
        except ConnectionFailed as exc:
            return exc

    def close_streams(self) -> None:
        """Close what the operation left open."""
        for stream in self._streams:
            stream.close()

    async def _perform(self, step: Step) -> object:
        match step:
            case Send(request):
                return await self._transport.send(request)
            case Open(request):
                stream = await self._transport.open(request)
                self._streams.append(stream)
                return stream
            case Read(stream, timeout):
                return await self._own(stream).read(timeout)
            case Close(stream):
                own = self._own(stream)
                own.close()
                self._streams.remove(own)
            case Sleep(seconds):
                await asyncio.sleep(seconds)
        return None

    def _own(self, stream: Stream) -> AsyncBodyStream:
        return next(each for each in self._streams if each is stream)
