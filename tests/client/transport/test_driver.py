from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import pytest

from jobsvc.client.errors import ConnectionFailed
from jobsvc.client.protocol.steps import Close, Emit, Request, Sleep, Step, open_stream, read, send
from jobsvc.client.transport.driver import iterate, run
from tests.client.transport.conftest import Connect
from tests.clients.scripted_server import head, response, silence, then

GET = Request("/api/jobs")


def test_operation_is_run_to_its_result(connect: Connect) -> None:
    def operation() -> Generator[Step, Any, bytes]:
        first = yield from send(GET)
        stream = yield from open_stream(GET)
        return first.body + (yield from read(stream)) + (yield from read(stream))

    assert run(operation(), connect([response(b"a"), response(b"b")]).transport) == b"ab"


def test_connection_failed_is_raised_in_the_operation(connect: Connect) -> None:
    def operation() -> Generator[Step, Any, str]:
        try:
            yield from send(GET)
        except ConnectionFailed as exc:
            return str(exc)
        return "no error"

    assert "without a response" in run(operation(), connect([then()]).transport)


def test_other_error_ends_the_operation_and_closes_its_streams(connect: Connect) -> None:
    streams: list[Any] = []

    def operation() -> Generator[Step, Any, None]:
        streams.append((yield from open_stream(GET)))
        raise LookupError

    with pytest.raises(LookupError):
        run(operation(), connect([response(b"unread")]).transport)
    assert streams[0]._closed


def test_pause_is_made(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)

    def operation() -> Generator[Step, Any, int]:
        yield Sleep(2.5)
        return 1

    assert run(operation(), connect([]).transport) == 1
    assert pauses == [2.5]


def test_items_are_yielded_while_the_operation_goes_on(connect: Connect) -> None:
    def operation() -> Generator[Step, Any, None]:
        yield Emit("first")
        stream = yield from open_stream(GET)
        yield Emit((yield from read(stream)))
        yield Close(stream)
        yield Emit((yield from send(GET)).body)

    pair = connect([response(b"a"), response(b"b")])
    assert list(iterate(operation(), pair.transport)) == ["first", b"a", b"b"]


def test_closing_the_iterator_closes_streams_and_ends_the_operation(connect: Connect) -> None:
    ended = []
    streams: list[Any] = []

    def operation() -> Generator[Step, Any, None]:
        streams.append((yield from open_stream(GET)))
        try:
            while True:
                yield Emit((yield from read(streams[0])))
        finally:
            ended.append(True)

    items = iterate(operation(), connect([then(head(), b"a", silence)]).transport)
    assert next(items) == b"a"
    items.close()  # type: ignore[attr-defined]
    assert ended
    assert streams[0]._closed


def test_read_of_an_operation_has_a_timeout_of_its_own(connect: Connect) -> None:
    def operation() -> Generator[Step, Any, None]:
        stream = yield from open_stream(GET)
        yield from read(stream, 0.1)

    with pytest.raises(ConnectionFailed, match=r"no data for 0\.1 s"):
        run(operation(), connect([then(head(), silence)]).transport)
