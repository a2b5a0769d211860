"""Operations end when another thread wants that: between steps, while they wait, while they read."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from jobsvc.client.download.stopping import IDLE, pause, stoppable, stoppable_stream
from jobsvc.client.errors import ConnectionFailed, Stopped
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
from jobsvc.client.transport.driver import iterate, run

REQUEST = Request("/")


class Hanging:
    """A response whose body does not arrive, until it is closed."""

    status = 200
    headers: Mapping[str, str] = {}

    def __init__(self, *parts: bytes) -> None:
        self._parts = list(parts)
        self.reading = threading.Event()
        self.closed = threading.Event()

    def read(self, timeout: float | None = None) -> bytes:  # noqa: ARG002 - of the protocol
        if self._parts:
            return self._parts.pop(0)
        self.reading.set()
        assert self.closed.wait(20)
        raise ConnectionFailed("It was closed.")

    def readinto(self, buffer: memoryview) -> int:
        raise NotImplementedError

    def close(self) -> None:
        self.closed.set()


class FakeTransport:
    """Opens one stream."""

    def __init__(self, stream: Hanging) -> None:
        self.stream = stream
        self.fails = False

    def send(self, request: Request) -> Response:
        if self.fails:
            raise ConnectionFailed("No connection.")
        return Response(200, {}, request.target.encode())

    def open(self, request: Request) -> Any:  # noqa: ARG002 - of the protocol
        return self.stream

    def close(self) -> None: ...


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport(Hanging(b"1", b"2"))


def requests() -> Operation[int]:
    """Send two requests; return how many failed."""
    failed = 0
    for _ in range(2):
        try:
            yield from send(REQUEST)
        except ConnectionFailed:
            failed += 1
    return failed


def reads() -> Operation[None]:
    stream = yield from open_stream(REQUEST)
    while data := (yield from read(stream)):
        yield Emit(data)
        if data == b"2":
            yield Close(stream)
            return


def reads_on() -> Operation[None]:
    stream = yield from open_stream(REQUEST)
    while True:
        yield Emit((yield from read(stream)))


@pytest.mark.parametrize("stop", [None, threading.Event()])
def test_operation_returns_its_result(transport: FakeTransport, stop: threading.Event | None) -> None:
    assert run(stoppable(requests(), stop), transport) == 0


def test_operation_handles_its_failures(transport: FakeTransport) -> None:
    transport.fails = True
    assert run(stoppable(requests(), None), transport) == 2


def test_stopped_operation_sends_nothing_more(transport: FakeTransport) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        run(stoppable(requests(), stop), transport)


def test_idle_is_emitted_before_each_read(transport: FakeTransport) -> None:
    assert list(iterate(stoppable_stream(reads(), threading.Event()), transport)) == [IDLE, b"1", IDLE, b"2"]


def test_read_ends_when_it_is_stopped(transport: FakeTransport) -> None:
    stop = threading.Event()

    def stop_when_reading() -> None:
        transport.stream.reading.wait(20)
        stop.set()

    threading.Thread(target=stop_when_reading).start()
    with pytest.raises(Stopped):
        list(iterate(stoppable_stream(reads_on(), stop), transport))


def test_pause_ends_when_it_is_stopped(transport: FakeTransport) -> None:
    stop = threading.Event()

    def sleeps() -> Operation[None]:
        threading.Thread(target=stop.set).start()
        yield Sleep(60)

    with pytest.raises(Stopped):
        run(stoppable(sleeps(), stop), transport)


def test_pause_lasts_as_long_as_it_should() -> None:
    started = time.monotonic()
    pause(0.02, None)
    assert time.monotonic() - started >= 0.02
