"""Requests as they are sent, and which connection each one uses."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jobsvc import __version__
from jobsvc.client.errors import ConnectionFailed
from jobsvc.client.protocol.steps import Request
from jobsvc.client.transport import http_transport
from jobsvc.client.transport.http_transport import MAX_IDLE_CONNECTIONS
from tests.client.transport.conftest import SECRET, Connect
from tests.clients.scripted_server import head, reset, response, silence, then
from tests.eventually import wait_until

GET = Request("/api/jobs?limit=1")
POST = Request("/api/jobs/a/download-links", method="POST", body=b"{}")


def test_request_has_the_fields_of_the_client(connect: Connect) -> None:
    pair = connect([response()])
    pair.transport.send(GET._replace(headers={"If-None-Match": '"a"'}))
    lines = pair.server.requests[0].decode().split("\r\n")
    assert lines[0] == "GET /api/jobs?limit=1 HTTP/1.1"
    assert sorted(lines[1:-2]) == [
        "Accept-Encoding: identity",
        f"Authorization: Bearer {SECRET}",
        f"Host: 127.0.0.1:{pair.server.port}",
        'If-None-Match: "a"',
        f"User-Agent: jobsvc/{__version__}",
    ]


def test_body_is_sent_with_its_length(connect: Connect) -> None:
    pair = connect([response(), response()])
    pair.transport.send(POST)
    pair.transport.send(POST._replace(body=b""))
    assert b"\r\nContent-Length: 2\r\n" in pair.server.requests[0]
    assert pair.server.requests[0].endswith(b"\r\n\r\n{}")
    assert b"\r\nContent-Length: 0\r\n" in pair.server.requests[1]


def test_path_prefix_comes_before_the_target(connect: Connect) -> None:
    pair = connect([response()])
    settings = pair.transport._settings
    prefixed = http_transport.HttpTransport(settings._replace(base_url=f"{settings.base_url}/farm"))
    prefixed.send(GET)
    assert pair.server.requests[0].startswith(b"GET /farm/api/jobs?limit=1 HTTP/1.1\r\n")


@pytest.mark.parametrize("target", ["", "api", "/a b", "/a\r\nX: 1", "/\xe4", "/a\x00", "http://other/"])
def test_target_that_is_no_path_is_not_sent(connect: Connect, target: str) -> None:
    pair = connect([response()])
    with pytest.raises(ValueError, match="not a request target"):
        pair.transport.send(Request(target))
    assert not pair.server.accepted_count


@pytest.mark.parametrize("value", ["a\r\nX: 1", "a\nb", "\u20ac", "\x00", "\x7f"])
def test_invalid_header_value_is_not_sent(connect: Connect, value: str) -> None:
    pair = connect([response()])
    with pytest.raises(ValueError, match="not a header value: If-Match"):
        pair.transport.send(GET._replace(headers={"If-Match": value}))
    assert not pair.server.accepted_count


def test_connection_is_used_again(connect: Connect) -> None:
    pair = connect([response(b"1"), response(b"2"), response(b"3", status="404 Not Found")])
    assert [pair.transport.send(GET).body for _ in range(3)] == [b"1", b"2", b"3"]
    assert pair.server.accepted_count == 1


@pytest.mark.parametrize(
    "first",
    [
        response(b"1", "Connection: close"),
        response(b"1", "Connection: Keep-Alive, Close"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n1",
    ],
)
def test_connection_that_the_service_closes_is_not_used_again(connect: Connect, first: bytes) -> None:
    pair = connect([first, response(b"wrong")], [response(b"2")])
    assert [pair.transport.send(GET).body for _ in range(2)] == [b"1", b"2"]


@pytest.mark.parametrize("ending", [lambda connection: connection.socket.close(), reset])
def test_connection_that_was_closed_while_idle_is_replaced(connect: Connect, ending: Any) -> None:
    received, closed = threading.Event(), threading.Event()
    script = [then(response(b"1"), lambda _: received.wait(10), ending, lambda _: closed.set())]
    pair = connect(script, [response(b"2")])
    assert pair.transport.send(POST).body == b"1"
    received.set()
    assert closed.wait(10)
    assert pair.transport.send(POST).body == b"2"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("ending", [then(), reset])
def test_request_on_a_kept_connection_that_fails_is_sent_once_more(
    connect: Connect, method: str, ending: Any
) -> None:
    pair = connect([response(), ending], [response(b"", "X-Number: 2")], [response(b"wrong")])
    pair.transport.send(GET._replace(method=method))
    assert pair.transport.send(GET._replace(method=method)).headers["x-number"] == "2"
    assert (pair.server.accepted_count, len(pair.server.requests)) == (2, 3)


def test_request_is_sent_only_once_more(connect: Connect) -> None:
    pair = connect([response(), reset], [reset], [response(b"wrong")])
    pair.transport.send(GET)
    with pytest.raises(ConnectionFailed):
        pair.transport.send(GET)
    assert pair.server.accepted_count == 2


def test_request_on_a_new_connection_is_not_sent_again(connect: Connect) -> None:
    pair = connect([reset], [response(b"wrong")])
    with pytest.raises(ConnectionFailed):
        pair.transport.send(GET)
    assert pair.server.accepted_count == 1


def test_post_that_the_service_may_have_executed_is_not_sent_again(connect: Connect) -> None:
    pair = connect([response(), reset], [response(b"wrong")])
    pair.transport.send(POST)
    with pytest.raises(ConnectionFailed):
        pair.transport.send(POST)
    assert pair.server.accepted_count == 1


def test_post_of_which_nothing_was_sent_is_sent_again(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = connect([response()], [response(b"2")])
    pair.transport.send(POST)
    (_, kept), *_ = pair.transport._idle._connections
    wait_until(lambda: not kept.is_idle)  # the service has closed it
    with monkeypatch.context() as patch:
        patch.setattr(type(kept), "is_idle", True)  # as if that had not arrived yet
        kept._socket.shutdown(socket.SHUT_WR)
        assert pair.transport.send(POST).body == b"2"


@pytest.mark.parametrize("ending", [then(b"HTTP/1.1 200"), silence])
def test_request_with_a_part_of_a_response_or_a_timeout_is_not_sent_again(
    connect: Connect, ending: Any
) -> None:
    pair = connect([response(), ending], [response(b"wrong")])
    pair.transport.send(GET)
    with pytest.raises(ConnectionFailed):
        pair.transport.send(GET._replace(timeout=0.2))
    assert pair.server.accepted_count == 1


def test_idle_connection_is_closed_after_its_time(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = connect([response(b"1"), response(b"wrong")], [response(b"2")])
    pair.transport.send(GET)
    monkeypatch.setattr(http_transport, "IDLE_TIMEOUT_S", 0.0)
    assert pair.transport.send(GET).body == b"2"
    assert not pair.transport._idle._connections


def test_only_some_idle_connections_are_kept(connect: Connect) -> None:
    pair = connect([response(b"x"), response(b"y")])
    streams = [pair.transport.open(GET) for _ in range(MAX_IDLE_CONNECTIONS + 3)]
    connections = [stream._connection for stream in streams]
    for stream in streams:
        while stream.read():
            pass
    kept = [connection for _, connection in pair.transport._idle._connections]
    assert kept == connections[3:]
    assert all(connection._socket.fileno() == -1 for connection in connections[:3])


def test_forked_process_uses_connections_of_its_own(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = connect([response(b"1"), response(b"wrong")], [response(b"2"), response(b"3")])
    pair.transport.send(GET)
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert [pair.transport.send(GET).body for _ in range(2)] == [b"2", b"3"]


def test_close_closes_idle_connections_and_the_next_request_opens_a_new_one(connect: Connect) -> None:
    pair = connect([response(b"1"), response(b"wrong")], [response(b"2")])
    pair.transport.send(GET)
    pair.transport.close()
    assert pair.transport.send(GET).body == b"2"


def test_unused_transport_closes_its_connections(connect: Connect) -> None:
    pair = connect([then(response(), silence)])
    transport = http_transport.HttpTransport(pair.transport._settings)
    transport.send(GET)
    (_, kept), *_ = transport._idle._connections
    del transport
    assert kept._socket.fileno() == -1


def test_concurrent_requests_use_connections_of_their_own(connect: Connect) -> None:
    barrier = threading.Barrier(4, timeout=10)
    pair = connect([then(lambda _: barrier.wait(), response(b"x"))])
    with ThreadPoolExecutor(4) as threads:
        bodies = list(threads.map(lambda _: pair.transport.send(GET).body, range(4)))
    assert bodies == [b"x"] * 4
    assert pair.server.accepted_count == 4


def test_interrupted_request_closes_its_connection(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def interrupt(connection: Any, _timeout: float) -> None:
        opened.append(connection)
        raise KeyboardInterrupt

    monkeypatch.setattr(http_transport, "read_head", interrupt)
    with pytest.raises(KeyboardInterrupt):
        connect([head()]).transport.send(GET)
    assert opened[0]._socket.fileno() == -1


@pytest.mark.parametrize("step", [silence, then(head("Content-Length: 9") + b"part", silence)])
def test_abort_ends_requests_of_other_threads(connect: Connect, step: Any) -> None:
    pair = connect([step])
    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(pair.transport.send, GET)
        wait_until(lambda: pair.server.requests)
        pair.transport.abort()
        with pytest.raises(ConnectionFailed):
            sending.result(5)


def test_aborted_transport_sends_no_further_request(connect: Connect) -> None:
    pair = connect([response(), response()])
    pair.transport.send(GET)
    pair.transport.abort()
    with pytest.raises(ConnectionFailed, match="ended by this program") as raised:
        pair.transport.send(GET)
    assert not raised.value.retryable
    assert len(pair.server.requests) == 1
