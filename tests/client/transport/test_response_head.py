from __future__ import annotations

from threading import Event

import pytest

from jobsvc.client.errors import ConnectionFailed
from jobsvc.client.protocol.steps import Request
from jobsvc.client.transport import response_head
from jobsvc.client.transport.response_head import MAX_HEAD
from tests.client.transport.conftest import SECRET, Connect
from tests.clients.scripted_server import ScriptedConnection, head, reset, response, silence, then

GET = Request("/api/jobs")


def test_names_of_fields_are_lower_case_and_repeated_fields_are_joined(connect: Connect) -> None:
    fields = ('ETag: "a"', "X-Many: 1", "x-many:2", "X-MANY: \t3 \t", "X-Empty:", "X-Latin: \xe4")
    headers = connect([response(b"", *fields)]).transport.send(GET).headers
    assert headers == {
        "content-length": "0", "etag": '"a"', "x-many": "1, 2, 3", "x-empty": "", "x-latin": "\xe4",
    }  # fmt: skip


def test_folded_field_is_one_line(connect: Connect) -> None:
    """RFC 9112, section 5.2."""
    headers = connect([response(b"", "X-Folded: one\r\n  two")]).transport.send(GET).headers
    assert headers["x-folded"] == "one two"


def test_head_that_arrives_byte_by_byte_is_read(connect: Connect) -> None:
    pieces = [bytes([byte]) for byte in response(b"body", "X-Field: value")]
    received = connect([then(*pieces)]).transport.send(GET)
    assert (received.headers["x-field"], received.body) == ("value", b"body")


def test_lines_can_end_without_a_carriage_return(connect: Connect) -> None:
    received = connect([b"HTTP/1.1 200\nContent-Length: 2\n\nok"]).transport.send(GET)
    assert (received.status, received.body) == (200, b"ok")


def test_informational_responses_are_skipped(connect: Connect) -> None:
    script = [then(head(status="100 Continue"), head("Link: x", status="103 Early Hints"), response(b"ok"))]
    received = connect(script).transport.send(GET)
    assert (received.status, received.body) == (200, b"ok")
    assert "link" not in received.headers


def test_redirect_is_not_followed(connect: Connect) -> None:
    pair = connect([response(b"", "Location: /elsewhere", status="302 Found")])
    received = pair.transport.send(GET)
    assert (received.status, received.headers["location"]) == (302, "/elsewhere")
    assert len(pair.server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"\x00\x01garbage\n\n", "is not HTTP: check the URL"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is not HTTP: check the URL"),
        (b"HTTP/2 200 OK\r\n\r\n", "is not HTTP: check the URL"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "is not HTTP: check the URL"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "has an invalid header field"),
        (b"HTTP/1.1 200 OK\r\nName : 1\r\n\r\n", "has an invalid header field"),
        (head('ETag: "\x01"'), "has an invalid header field"),
        (b"HTTP/1.1 200 OK\r\n folded: 1\r\n\r\n", "has an invalid header field"),
        (head(status="101 Switching Protocols"), "switches to another protocol"),
        (head("Transfer-Encoding: gzip, chunked"), "has an unknown Transfer-Encoding"),
        (head("Transfer-Encoding: chunked, chunked"), "has an unknown Transfer-Encoding"),
        (head("Content-Length: -1"), "has an invalid Content-Length"),
        (head("Content-Length: 1_0"), "has an invalid Content-Length"),
        (head("Content-Length:"), "has an invalid Content-Length"),
        (head("Content-Length: 5", "Content-Length: 6"), "has an invalid Content-Length"),
        (head("Content-Length: " + "9" * 19), "has an invalid Content-Length"),
        (response(b"x", "Content-Encoding: gzip"), "is compressed, although the request does not allow it"),
    ],
)  # fmt: skip
def test_malformed_head_is_an_error(connect: Connect, answer: bytes, problem: str) -> None:
    pair = connect([then(answer, silence)])
    with pytest.raises(ConnectionFailed) as raised:
        pair.transport.send(GET)
    assert str(raised.value) == f"127.0.0.1:{pair.server.port} sent a response that {problem}."


def test_repeated_equal_lengths_are_one(connect: Connect) -> None:
    assert connect([head("Content-Length: 2", "Content-Length: 2") + b"ok"]).transport.send(GET).body == b"ok"


@pytest.mark.parametrize("value", ["identity", "Identity"])
def test_identity_is_not_a_compression(connect: Connect, value: str) -> None:
    assert connect([response(b"ok", f"Content-Encoding: {value}")]).transport.send(GET).body == b"ok"


def test_both_lengths_at_once_end_the_connection(connect: Connect) -> None:
    """RFC 9112, section 6.1: the chunks count, and the connection cannot be trusted."""
    both = head("Transfer-Encoding: chunked", "Content-Length: 3") + b"2\r\nok\r\n0\r\n\r\n"
    pair = connect([then(both), response(b"wrong")], [response(b"right")])
    assert pair.transport.send(GET).body == b"ok"
    assert pair.transport.send(GET).body == b"right"


@pytest.mark.parametrize(
    "answer",
    [
        head("X-Long: " + "x" * MAX_HEAD),
        head(*(f"X-{number}: value" for number in range(MAX_HEAD // 10))),
        head(status="103 Early Hints") * 10_000,
        head("X: " + "x" * 30_000, status="103 Early Hints") * 10,
        b"HTTP/1.1 200 " + b"x" * MAX_HEAD,
        b"x" * 1_000_000,
    ],
)
def test_giant_head_is_an_error(connect: Connect, answer: bytes) -> None:
    with pytest.raises(
        ConnectionFailed, match=r"(has a line that is too long|has a head of more than 64 kB)\.$"
    ):
        connect([then(answer, silence)]).transport.send(GET)


def test_large_head_within_the_maximum_is_read(connect: Connect) -> None:
    value = "x" * (MAX_HEAD - 1000)
    assert connect([response(b"ok", f"X-Large: {value}")]).transport.send(GET).headers["x-large"] == value


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"])
def test_end_within_the_head_is_an_error(connect: Connect, part: bytes) -> None:
    with pytest.raises(ConnectionFailed, match="closed the connection without a response"):
        connect([part]).transport.send(GET)


def test_reset_instead_of_a_response_is_an_error(connect: Connect) -> None:
    with pytest.raises(ConnectionFailed, match="closed the connection without a response"):
        connect([reset]).transport.send(GET)


def test_silent_service_is_an_error_after_the_timeout(connect: Connect) -> None:
    pair = connect([silence], timeout=0.2)
    with pytest.raises(ConnectionFailed, match=r"sent no response within 0\.2 s"):
        pair.transport.send(GET)
    with pytest.raises(ConnectionFailed, match=r"sent no response within 0\.1 s"):
        pair.transport.send(GET._replace(timeout=0.1))


def test_returned_request_does_not_put_the_token_into_a_message(connect: Connect) -> None:
    def echo(connection: object) -> None:
        del connection
        pair.server._connections[-1].send(pair.server.requests[-1])

    pair = connect([echo])
    with pytest.raises(ConnectionFailed) as raised:
        pair.transport.send(GET)
    exc: BaseException | None = raised.value
    while exc is not None:
        assert SECRET not in repr(exc)
        exc = exc.__cause__


def test_head_whose_bytes_arrive_one_by_one_has_to_end(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(response_head, "MAX_TIMEOUTS", 0.02)

    def trickle(connection: ScriptedConnection) -> None:
        while not Event().wait(0.01):
            connection.send(b"x")

    pair = connect([then(b"HTTP/1.1 200 OK\r\nX: ", trickle)])
    with pytest.raises(ConnectionFailed, match="no response within"):
        pair.transport.send(GET)
