"""Run operations over a blocking transport."""

from __future__ import annotations

import time
from collections.abc import Iterator
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


class BodyStream(Stream, Protocol):
    """A response whose body is read in parts, by one thread."""

    def read(self, timeout: float | None = None) -> bytes:
        """Return what has arrived, at least one byte; empty at the end.

        Raises ConnectionFailed if no byte arrives within `timeout` seconds (None: those of the request), or
        if the body ends early.
        """

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer, or what is left of the body; return the number of bytes, 0 at the end.

        Raises ConnectionFailed if no byte arrives within the timeout, or if the body ends early.
        """

    def close(self) -> None:
        """Release the connection; can be called from another thread to end a read, and repeatedly."""


class Transport(Protocol):
    """Sends requests, from any thread. Adds the base URL, the token and the User-Agent."""

    def send(self, request: Request) -> Response:
        """Send a request and read the response. Raises ConnectionFailed."""

    def open(self, request: Request) -> BodyStream:
        """Send a request and read the head of the response. Raises ConnectionFailed."""

    def close(self) -> None:
        """Close idle connections."""


def run(operation: Operation[T], transport: Transport) -> T:
    """Perform an operation and return its result. Raises what the operation raises."""
    driver = _Driver(transport)
    try:
        step = next(operation)
        while True:
            assert not isinstance(step, Emit)  # noqa: S101 - only iterated operations emit
            step = driver.advance(operation, step)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        driver.close_streams()
        operation.close()


def iterate(operation: Operation[None], transport: Transport) -> Iterator[Any]:
    """Perform an operation and yield the items that it emits. Closing the iterator ends the operation."""
    driver = _Driver(transport)
    try:
        step = next(operation)
        while True:
            if isinstance(step, Emit):
                yield step.item
                step = operation.send(None)
            else:
                step = driver.advance(operation, step)
    except StopIteration:
        return
    finally:
        driver.close_streams()
        operation.close()


class _Driver:
    """Performs the steps of one operation."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._streams: list[BodyStream] = []

    def advance(self, operation: Operation[Any], step: Step) -> Step:
        """Perform a step and return the next one."""
        try:
            result = self._perform(step)
        except ConnectionFailed as exc:
            return operation.throw(exc)
        return operation.send(result)

    def close_streams(self) -> None:
        """Close what the operation left open."""
        for stream in self._streams:
            stream.close()

    def _perform(self, step: Step) -> object:
        match step:
            case Send(request):
                return self._transport.send(request)
            case Open(request):
                stream = self._transport.open(request)
                self._streams.append(stream)
                return stream
            case Read(stream, timeout):
                return self._own(stream).read(timeout)
            case Close(stream):
                own = self._own(stream)
                own.close()
                self._streams.remove(own)
            case Sleep(seconds):
                time.sleep(seconds)
        return None

    def _own(self, stream: Stream) -> BodyStream:
        return next(each for each in self._streams if each is stream)
