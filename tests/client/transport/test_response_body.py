from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobsvc.client.errors import ConnectionFailed
from jobsvc.client.protocol.steps import Request
from jobsvc.client.transport import http_transport, response_body
from jobsvc.client.transport.response_body import ResponseStream
from tests.client.transport.conftest import Connect
from tests.clients.scripted_server import ScriptedConnection, Step, head, reset, response, silence, then

GET = Request("/api/jobs")
DATA = bytes(range(256)) * 1000
CHUNKED = head("Transfer-Encoding: chunked")


def trickle(connection: ScriptedConnection) -> None:
    """Send one byte after the other."""
    while not threading.Event().wait(0.01):
        connection.send(b"x")


def read_all(stream: ResponseStream) -> bytes:
    return b"".join(iter(stream.read, b""))


def read_into(stream: ResponseStream, size: int) -> tuple[int, bytes]:
    buffer = bytearray(size)
    count = stream.readinto(memoryview(buffer))
    return count, bytes(buffer[:count])


def chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


def test_body_with_a_length_is_read_exactly(connect: Connect) -> None:
    stream = connect([response(DATA, "Content-Type: text/plain")]).transport.open(GET)
    assert (stream.status, stream.headers["content-type"]) == (200, "text/plain")
    assert read_all(stream) == DATA
    assert stream.read() == b""


def test_readinto_fills_the_buffer_until_the_body_ends(connect: Connect) -> None:
    pieces = [DATA[start : start + 50_000] for start in range(0, len(DATA), 50_000)]
    stream = connect([then(head(f"Content-Length: {len(DATA)}"), *pieces)]).transport.open(GET)
    assert read_into(stream, 200_000) == (200_000, DATA[:200_000])
    assert read_into(stream, 200_000) == (56_000, DATA[200_000:])
    assert read_into(stream, 200_000) == (0, b"")


def test_read_returns_what_has_arrived(connect: Connect) -> None:
    arrived = threading.Event()

    def second_part(connection: object) -> None:
        assert arrived.wait(10)

    script = [then(head("Content-Length: 4"), b"ab", second_part, b"cd")]
    stream = connect(script).transport.open(GET)
    assert stream.read() == b"ab"
    arrived.set()
    assert read_all(stream) == b"cd"


def test_bytes_after_the_body_are_not_returned_and_end_the_connection(connect: Connect) -> None:
    pair = connect([response(DATA[:1000]) + b"more", silence], [response(b"second")])
    assert pair.transport.send(GET).body == DATA[:1000]
    assert pair.transport.send(GET).body == b"second"
    assert pair.server.accepted_count == 2


def test_body_that_is_too_short_is_an_error(connect: Connect) -> None:
    pair = connect([head("Content-Length: 1000") + DATA[:300]])
    stream = pair.transport.open(GET)
    assert stream.read() == DATA[:300]
    with pytest.raises(ConnectionFailed, match=r"closed the connection within a response, after 300 bytes"):
        stream.read()
    with pytest.raises(ConnectionFailed):
        stream.read()
    with pytest.raises(ConnectionFailed, match="after 300 bytes"):
        pair.transport.send(GET)


@pytest.mark.parametrize("ending", [then(), reset])
def test_readinto_returns_what_arrived_before_an_error(connect: Connect, ending: Step) -> None:
    received = threading.Event()
    script = [then(head("Content-Length: 1000"), DATA[:300], lambda _: received.wait(10), ending)]
    stream = connect(script).transport.open(GET)
    assert read_into(stream, 300)[0] == 300  # a reset discards what was not read
    received.set()
    with pytest.raises(ConnectionFailed, match="closed the connection"):
        read_into(stream, 1000)


def test_readinto_keeps_the_bytes_before_a_short_end(connect: Connect) -> None:
    stream = connect([head("Content-Length: 1000") + DATA[:300]]).transport.open(GET)
    assert read_into(stream, 1000) == (300, DATA[:300])
    for _ in range(2):
        with pytest.raises(ConnectionFailed):
            read_into(stream, 1000)


@pytest.mark.parametrize("size", [1, 7, 64, 1_000_000])
def test_chunks_are_joined(connect: Connect, size: int) -> None:
    body = CHUNKED + chunks(b"a", b"bc" * 100, DATA) + b"5;name=value\r\nhello\r\n0;last\r\nX: 1\r\n\r\n"
    pair = connect([then(*(body[start : start + 70_000] for start in range(0, len(body), 70_000)), silence)])
    stream = pair.transport.open(GET)
    expected = b"a" + b"bc" * 100 + DATA + b"hello"
    assert read_into(stream, size)[1] == expected[:size]
    assert read_all(stream) == expected[size:]
    assert read_into(stream, size) == (0, b"")


def test_connection_is_used_again_after_the_last_chunk(connect: Connect) -> None:
    pair = connect([CHUNKED + chunks(b"one") + b"0\r\n\r\n", response(b"two")])
    assert pair.transport.send(GET).body == b"one"
    assert pair.transport.send(GET).body == b"two"
    assert pair.server.accepted_count == 1


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\nabc\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3 \x00\r\nabc\r\n0\r\n\r\n",
        b"1" * 16 + b"\r\nabc\r\n0\r\n\r\n",
        b"3;" + b"x" * 10_000 + b"\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\n" + b"X: 1\r\n" * 101 + b"\r\n",
    ],
)
def test_invalid_chunks_are_an_error(connect: Connect, body: bytes) -> None:
    with pytest.raises(ConnectionFailed, match=r"^127.0.0.1:\d+ sent a response that has "):
        connect([CHUNKED + body]).transport.send(GET)


def test_error_after_received_bytes_is_raised_by_the_next_call(connect: Connect) -> None:
    """What follows an invalid chunk can look like a valid one."""
    script = [then(CHUNKED + b"3\r\nabcX\r\n\r\n3\r\ndef\r\n0\r\n\r\n", silence)]
    stream = connect(script).transport.open(GET)
    assert read_into(stream, 10) == (3, b"abc")
    with pytest.raises(ConnectionFailed, match="has an invalid chunk"):
        read_into(stream, 10)


@pytest.mark.parametrize("body", [b"", b"3", b"3\r\n", b"3\r\nab", b"3\r\nabc", b"3\r\nabc\r\n0\r\n"])
def test_end_before_the_last_chunk_is_an_error(connect: Connect, body: bytes) -> None:
    with pytest.raises(ConnectionFailed, match="closed the connection within a response"):
        connect([CHUNKED + body]).transport.send(GET)


def test_body_without_a_length_ends_with_the_connection(connect: Connect) -> None:
    pair = connect([head() + DATA], [response(b"next")])
    assert pair.transport.send(GET).body == DATA
    assert not pair.transport._idle._connections
    assert pair.transport.send(GET).body == b"next"
    assert pair.server.accepted_count == 2


def test_reset_of_a_body_without_a_length_is_an_error(connect: Connect) -> None:
    received = threading.Event()
    stream = connect([then(head(), b"abc", lambda _: received.wait(10), reset)]).transport.open(GET)
    assert stream.read() == b"abc"
    received.set()
    with pytest.raises(ConnectionFailed, match="closed the connection"):
        stream.read()


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_responses_that_have_no_body_do_not_wait_for_one(connect: Connect, status: str) -> None:
    pair = connect([head("Content-Length: 5", status=status), response(b"next")])
    assert pair.transport.send(GET).body == b""
    assert pair.transport.send(GET).body == b"next"
    assert pair.server.accepted_count == 1


def test_head_request_does_not_wait_for_a_body(connect: Connect) -> None:
    pair = connect([head("Content-Length: 5"), response(b"next")])
    assert pair.transport.send(Request("/api/jobs", method="HEAD")).headers["content-length"] == "5"
    assert pair.transport.send(GET).body == b"next"


def test_silent_service_ends_a_read_after_the_timeout(connect: Connect) -> None:
    stream = connect([then(head("Content-Length: 5"), b"ab", silence)], timeout=3).transport.open(GET)
    assert stream.read() == b"ab"
    with pytest.raises(ConnectionFailed, match=r"sent no data for 3 s"):
        stream.read()


def test_read_has_a_timeout_of_its_own(connect: Connect) -> None:
    started = threading.Event()
    script = [then(head("Content-Length: 5"), lambda _: started.wait(10), b"ab", silence)]
    stream = connect(script, timeout=60.0).transport.open(GET)
    with pytest.raises(ConnectionFailed, match=r"sent no data for 0\.1 s"):
        stream.read(timeout=0.1)
    started.set()


def test_timeout_of_one_read_is_not_that_of_the_next(connect: Connect) -> None:
    script = [then(head("Content-Length: 5"), b"ab", silence)]
    stream = connect(script, timeout=60.0).transport.open(GET)
    assert stream.read(timeout=10) == b"ab"
    assert stream.readinto(memoryview(bytearray())) == 0
    assert stream._connection._socket.gettimeout() == 60
    stream.close()


@pytest.mark.parametrize("framing", [("Content-Length: 5",), ("Transfer-Encoding: chunked",), ()])
def test_close_from_another_thread_ends_a_read(connect: Connect, framing: tuple[str, ...]) -> None:
    stream = connect([then(head(*framing), silence)], timeout=60.0).transport.open(GET)
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(stream.read)
        while not stream._reading:
            time.sleep(0.001)
        started_at = time.monotonic()
        stream.close()
        with pytest.raises(ConnectionFailed, match="was closed"):
            reading.result(10)
    assert time.monotonic() - started_at < 5
    assert stream._connection._socket.fileno() == -1


def test_closed_stream_cannot_be_read(connect: Connect) -> None:
    stream = connect([response(DATA)]).transport.open(GET)
    stream.close()
    stream.close()
    with pytest.raises(ConnectionFailed, match="was closed"):
        stream.read()


def test_connection_of_an_unread_body_is_not_used_again(connect: Connect) -> None:
    pair = connect([response(DATA), response(b"wrong")], [response(b"right")])
    pair.transport.open(GET).close()
    assert pair.transport.send(GET).body == b"right"


def test_close_after_the_end_does_not_disturb_the_next_request(connect: Connect) -> None:
    pair = connect([response(b"one"), then(head("Content-Length: 3"), b"tw", b"o")])
    first = pair.transport.open(GET)
    assert read_into(first, 3) == (3, b"one")
    second = pair.transport.open(GET)
    first.close()
    assert read_all(second) == b"two"
    assert pair.server.accepted_count == 1


@pytest.mark.parametrize("framing", ["Content-Length: 2000", "X: 1"])
def test_whole_response_has_a_maximum_size(
    connect: Connect, framing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_transport, "MAX_BODY", 1999)
    with pytest.raises(ConnectionFailed, match="larger than"):
        connect([head(framing) + b"x" * 2000]).transport.send(GET)


def test_body_that_is_read_as_a_whole_has_to_end(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_body, "MAX_BODY_S", 0.2)

    pair = connect([then(head("Content-Length: 1000000"), trickle)])
    with pytest.raises(ConnectionFailed, match="not complete"):
        pair.transport.send(GET)


def test_frame_of_a_chunk_has_to_end(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_body, "MAX_TIMEOUTS", 0.02)

    pair = connect([then(head("Transfer-Encoding: chunked"), b"5;", trickle)])
    with pytest.raises(ConnectionFailed, match="no data"):
        pair.transport.send(GET)
