"""How connections are opened: addresses, TLS and proxies, and what is said if that fails."""

from __future__ import annotations

import base64
import re
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobsvc.client.connection_settings import ConnectionSettings
from jobsvc.client.errors import BadConfiguration, ConnectionFailed
from jobsvc.client.protocol.steps import Request
from jobsvc.client.transport.http_transport import HttpTransport
from tests.client.transport.conftest import REMOTE, SECRET
from tests.clients.scripted_server import (
    ScriptedConnection,
    ScriptedServer,
    Step,
    head,
    reset,
    response,
    silence,
    then,
    tunnel,
)
from tests.eventually import wait_until
from tests.programs.external_programs import needs

GET = Request("/api/jobs")


def get(url: str, **settings: object) -> bytes:
    """Send one request and return the body of the response."""
    transport = HttpTransport(ConnectionSettings(url, SECRET, 10.0)._replace(**settings))  # type: ignore[arg-type]
    try:
        return transport.send(GET).body
    finally:
        transport.close()


def failure(url: str, **settings: object) -> ConnectionFailed:
    with pytest.raises(ConnectionFailed) as raised:
        get(url, **settings)
    assert SECRET not in str(raised.value)
    return raised.value


# Addresses


def test_closed_port_is_a_question_for_the_service() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    problem = failure(f"http://127.0.0.1:{port}")
    assert str(problem) == f"127.0.0.1:{port} refused the connection: is the service running?"
    assert problem.retryable


def test_unknown_host_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise socket.gaierror(code, "of the resolver")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    code = socket.EAI_NONAME
    assert str(failure("http://render.test")) == "The host name render.test is unknown."
    code = socket.EAI_AGAIN
    assert "render.test cannot be resolved now" in str(failure("https://render.test:8443"))


def test_impossible_host_name_is_not_tried_again() -> None:
    problem = failure(f"http://{'x' * 64}.example")
    assert "not a valid host name" in str(problem)
    assert not problem.retryable


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TimeoutError("timed out"), "render.test:80 accepted no connection within 10 s."),
        (OSError(113, "No route to host"), "render.test:80 cannot be reached: No route to host."),
        (OSError(24, "Too many open files"), "The connection to render.test:80 failed: Too many open files."),
        (OSError("odd"), "The connection to render.test:80 failed: odd."),
    ],
)
def test_reason_of_the_system_is_given(monkeypatch: pytest.MonkeyPatch, error: OSError, text: str) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(socket, "create_connection", fail)
    assert str(failure("http://render.test")) == text


def test_connecting_has_the_timeout_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a request can be longer, because it waits for an event."""
    timeouts = []

    def fail(_: object, timeout: float) -> None:
        timeouts.append(timeout)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", fail)
    transport = HttpTransport(ConnectionSettings("http://render.test", SECRET, timeout=10))
    for timeout in (75, 1):
        with pytest.raises(ConnectionFailed):
            transport.send(GET._replace(timeout=timeout))
    assert timeouts == [10, 1]


def test_ipv6_address_is_reached(ipv6: None) -> None:
    with ScriptedServer([response(b"ok")], host="::1") as server:
        assert get(f"http://[::1]:{server.port}") == b"ok"
    assert f"\r\nHost: [::1]:{server.port}\r\n".encode() in server.requests[0]


def test_connection_sends_small_packets_at_once() -> None:
    with ScriptedServer([response(), response()]) as server:
        transport = HttpTransport(ConnectionSettings(f"http://127.0.0.1:{server.port}", SECRET))
        transport.send(GET)
        (_, connection), *_ = transport._idle._connections
        assert connection._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.close()


@pytest.fixture
def ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on this host")


# TLS

pytestmark = needs("openssl")


def test_https_is_verified_with_the_certificates_of_the_file(certificates: Path, tls: ssl.SSLContext) -> None:
    body = bytes(100_000)
    with ScriptedServer([response(b"1"), response(body)], tls=tls) as server:
        settings = ConnectionSettings(f"https://localhost:{server.port}", SECRET, ca_file=_file(certificates))
        transport = HttpTransport(settings)
        assert transport.send(GET).body == b"1"
        stream = transport.open(GET)
        buffer = memoryview(bytearray(1 << 20))
        assert stream.readinto(buffer) == len(body)
        assert buffer[: len(body)] == body
        transport.close()
    assert server.accepted_count == 1


def test_certificate_that_is_not_trusted_names_the_option(tls: ssl.SSLContext) -> None:
    with ScriptedServer([response()], tls=tls) as server:
        problem = failure(f"https://localhost:{server.port}")
    assert re.search(
        r"of localhost:\d+ is not trusted \(self.signed.*--ca-file \(in Python: ca_file\)", str(problem)
    )
    assert not problem.retryable
    assert not server.requests


def test_certificate_of_another_host_is_refused(certificates: Path, tls: ssl.SSLContext) -> None:
    with ScriptedServer([response()], tls=tls) as server:
        problem = failure(f"https://127.0.0.1:{server.port}", ca_file=_file(certificates))
    assert "is for another host name" in str(problem)
    assert not server.requests


def test_https_to_a_port_without_tls_names_the_scheme() -> None:
    with ScriptedServer([], on_accept=response(status="400 Bad Request")) as server:
        problem = failure(f"https://localhost:{server.port}")
    assert f"localhost:{server.port} does not use TLS: does the URL start with http://" in str(problem)
    assert not problem.retryable


def test_http_to_a_port_with_tls_is_not_http(tls: ssl.SSLContext) -> None:
    with ScriptedServer([response()], tls=tls) as server:
        problem = failure(f"http://localhost:{server.port}")
    assert re.search(r"is not HTTP|closed the connection", str(problem))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file or directory"),
        ("", "contains no certificate in PEM format"),
        ("not PEM", "contains no certificate in PEM format"),
        (
            "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n",
            "contains no certificate in PEM format",
        ),
    ],
)
def test_invalid_file_of_certificates_is_named(tmp_path: Path, content: str | None, problem: str) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with ScriptedServer([response()]) as server, pytest.raises(BadConfiguration) as raised:
        get(f"https://localhost:{server.port}", ca_file=str(file))
    assert str(raised.value) == f"{file} {problem}."


def test_end_of_the_tcp_connection_is_not_the_end_of_a_body(certificates: Path, tls: ssl.SSLContext) -> None:
    """Without the closing message of TLS, anybody on the way can have shortened the body."""
    with ScriptedServer([then(head() + b"part", _shut_down)], tls=tls) as server:
        problem = failure(f"https://localhost:{server.port}", ca_file=_file(certificates))
    assert "closed the connection" in str(problem)


def test_close_ends_a_read_over_tls(certificates: Path, tls: ssl.SSLContext) -> None:
    script = [then(head("Content-Length: 5"), b"ab", silence)]
    with ScriptedServer(script, tls=tls) as server, ThreadPoolExecutor(1) as threads:
        settings = ConnectionSettings(f"https://localhost:{server.port}", SECRET, ca_file=_file(certificates))
        stream = HttpTransport(settings).open(GET)
        assert stream.read() == b"ab"
        reading = threads.submit(stream.read)
        wait_until(lambda: stream._reading)
        stream.close()
        with pytest.raises(ConnectionFailed, match="was closed"):
            reading.result(10)


def test_closed_tls_connection_is_replaced(certificates: Path, tls: ssl.SSLContext) -> None:
    with ScriptedServer([response(b"1")], [response(b"2")], tls=tls) as server:
        settings = ConnectionSettings(f"https://localhost:{server.port}", SECRET, ca_file=_file(certificates))
        transport = HttpTransport(settings)
        assert [transport.send(GET).body for _ in range(2)] == [b"1", b"2"]
        transport.close()


def _receive(connection: ScriptedConnection) -> None:
    connection.socket.recv(1)


@pytest.mark.parametrize("ending", [_receive, then(_receive, reset)])
def test_connection_that_ends_within_the_handshake_is_an_error(ending: Step) -> None:
    with ScriptedServer([], on_accept=ending) as server:
        problem = failure(f"https://localhost:{server.port}")
    assert str(problem) == f"localhost:{server.port} closed the connection while it was established."
    assert problem.retryable


def test_silence_within_the_handshake_is_an_error_after_the_timeout() -> None:
    with ScriptedServer([], on_accept=silence) as server:
        problem = failure(f"https://localhost:{server.port}", timeout=0.2)
    assert str(problem) == f"localhost:{server.port} accepted no connection within 0.2 s."


# Proxies


def test_https_goes_through_a_tunnel_of_the_proxy(
    certificates: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer([response(b"ok")], tls=tls) as server, ScriptedServer([tunnel(server.port)]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        assert get(f"https://{REMOTE}:8443", ca_file=_file(certificates)) == b"ok"
    assert proxy.requests == [f"CONNECT {REMOTE}:8443 HTTP/1.1\r\nHost: {REMOTE}:8443\r\n\r\n".encode()]
    assert server.requests[0].startswith(b"GET /api/jobs HTTP/1.1\r\n")
    assert f"\r\nHost: {REMOTE}:8443\r\n".encode() in server.requests[0]


def test_password_of_the_proxy_is_sent_to_the_proxy_alone(
    certificates: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer([response(b"ok")], tls=tls) as server, ScriptedServer([tunnel(server.port)]) as proxy:
        monkeypatch.setenv("https_proxy", f"anna:p%40ss@127.0.0.1:{proxy.port}")
        assert get(f"https://{REMOTE}", ca_file=_file(certificates)) == b"ok"
    credentials = base64.b64encode(b"anna:p@ss")
    assert b"\r\nProxy-Authorization: Basic " + credentials + b"\r\n" in proxy.requests[0]
    assert SECRET.encode() not in proxy.requests[0]
    assert credentials not in server.requests[0]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            response(status="407 Proxy Authentication Required"),
            "requires a password: put it into HTTPS_PROXY",
        ),
        (response(status="502 Bad Gateway"), f"does not connect to {REMOTE}:443: HTTP 502."),
        (b"garbage\r\n\r\n", "sent a response that is not HTTP"),
        (reset, "closed the connection without a response"),
        (silence, "sent no response within 0.2 s"),
    ],
)
def test_proxy_that_does_not_connect_is_an_error(
    monkeypatch: pytest.MonkeyPatch, answer: Step, text: str
) -> None:
    with ScriptedServer([answer]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://anna:password@127.0.0.1:{proxy.port}")
        problem = failure(f"https://{REMOTE}", timeout=0.2 if answer is silence else 20)
    assert text in str(problem)
    assert "anna:password" not in str(problem)
    assert str(problem).startswith(f"The proxy 127.0.0.1:{proxy.port} ")


def test_plain_http_is_sent_to_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer([response(b"1"), response(b"2")]) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://anna:x@127.0.0.1:{proxy.port}/")
        assert get(f"http://{REMOTE}/farm") == b"1"
    request = proxy.requests[0]
    assert request.startswith(f"GET http://{REMOTE}/farm/api/jobs HTTP/1.1\r\nHost: {REMOTE}\r\n".encode())
    assert b"\r\nProxy-Authorization: Basic " in request


def test_unreachable_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    problem = failure(f"http://{REMOTE}")
    assert str(problem) == "The proxy 127.0.0.1:1 refused the connection: is the proxy running?"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "LOCALHOST"])
def test_loopback_is_reached_without_the_proxy(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with ScriptedServer([response(b"ok")]) as server:
        assert get(f"http://{host}:{server.port}") == b"ok"


@pytest.mark.parametrize("excluded", ["*", "render.test", ".test", "other.example, render.test"])
def test_excluded_hosts_are_reached_without_the_proxy(monkeypatch: pytest.MonkeyPatch, excluded: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", excluded)
    with ScriptedServer([response(b"ok")]) as server:
        connect = socket.create_connection
        monkeypatch.setattr(socket, "create_connection", lambda *_: connect(("127.0.0.1", server.port)))
        assert get(f"http://{REMOTE}") == b"ok"
    assert server.requests[0].startswith(b"GET /api/jobs HTTP/1.1")


@pytest.mark.parametrize(
    "value",
    [
        "socks5://anna:password@proxy:1080",
        "https://proxy",
        "http://:3128",
        "http://[",
        "http://anna:password@proxy:x",
    ],
)
def test_proxy_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(BadConfiguration, match="HTTPS_PROXY is not the URL of an HTTP proxy") as raised:
        get(f"https://{REMOTE}")
    assert "password" not in str(raised.value)


def _file(certificates: Path) -> str:
    return str(certificates / "certificate")


def _shut_down(connection: ScriptedConnection) -> None:
    """End the TCP connection without the end of TLS."""
    socket.socket.shutdown(connection.socket, socket.SHUT_RDWR)
