"""AiohttpTransport over TLS and through proxies; its errors are those of HttpTransport."""

from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path
from typing import Final

import pytest

from jobsvc.client.connection_settings import ConnectionSettings
from jobsvc.client.errors import BadConfiguration, ConnectionFailed
from jobsvc.client.protocol.steps import Request
from jobsvc.client.transport.aiohttp_transport import AiohttpTransport
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
from tests.programs.external_programs import needs

pytestmark = needs("openssl")

GET: Final = Request("/api/jobs")


def settings_of(url: str, certificates: Path | None = None, timeout_s: float = 10.0) -> ConnectionSettings:
    ca_file = None if certificates is None else str(certificates / "certificate")
    return ConnectionSettings(url, SECRET, timeout_s, ca_file=ca_file)


def get(settings: ConnectionSettings) -> bytes:
    """Send one request over aiohttp, and return the body of the response."""

    async def send() -> bytes:
        transport = AiohttpTransport(settings)
        try:
            return (await transport.send(GET)).body
        finally:
            await transport.close()

    return asyncio.run(send())


def failure(settings: ConnectionSettings) -> str:
    """Return the error of both transports, which is the same."""
    with pytest.raises(ConnectionFailed) as blocking:
        HttpTransport(settings).send(GET)
    with pytest.raises(ConnectionFailed) as asynchronous:
        get(settings)
    assert str(asynchronous.value) == str(blocking.value)
    assert asynchronous.value.retryable == blocking.value.retryable
    return str(asynchronous.value)


def test_https_is_verified_with_the_certificates_of_the_file(certificates: Path, tls: ssl.SSLContext) -> None:
    with ScriptedServer([response(b"ok")], tls=tls) as server:
        assert get(settings_of(f"https://localhost:{server.port}", certificates)) == b"ok"


def test_certificate_that_is_not_trusted_is_refused(tls: ssl.SSLContext) -> None:
    with ScriptedServer([response()], tls=tls) as server:
        assert "--ca-file" in failure(settings_of(f"https://localhost:{server.port}"))
    assert not server.requests


def test_certificate_of_another_host_is_refused(certificates: Path, tls: ssl.SSLContext) -> None:
    with ScriptedServer([response()], tls=tls) as server:
        text = failure(settings_of(f"https://127.0.0.1:{server.port}", certificates))
    assert "is for another host name" in text


def test_https_to_a_port_without_tls_names_the_scheme() -> None:
    with ScriptedServer([], on_accept=response(status="400 Bad Request")) as server:
        assert "does not use TLS" in failure(settings_of(f"https://localhost:{server.port}"))


def test_file_without_certificates_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "certificate").write_text("not PEM")
    with pytest.raises(BadConfiguration, match="contains no certificate"):
        AiohttpTransport(settings_of("https://localhost", tmp_path))


def _receive(connection: ScriptedConnection) -> None:
    connection.socket.recv(1)


@pytest.mark.parametrize(
    ("ending", "timeout_s"), [(_receive, 10.0), (then(_receive, reset), 10.0), (silence, 2.0)]
)
def test_handshake_that_does_not_end_is_an_error(ending: Step, timeout_s: float) -> None:
    with ScriptedServer([], on_accept=ending) as server:
        failure(settings_of(f"https://localhost:{server.port}", timeout_s=timeout_s))


def test_body_that_ends_with_the_tcp_connection_is_an_error(certificates: Path, tls: ssl.SSLContext) -> None:
    with ScriptedServer([head("Content-Length: 9") + b"part"], tls=tls) as server:
        text = failure(settings_of(f"https://localhost:{server.port}", certificates))
    assert "closed the connection within a response, after 4 bytes" in text


def test_https_goes_through_a_tunnel_of_the_proxy(
    certificates: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer([response(b"ok")], tls=tls) as server, ScriptedServer([tunnel(server.port)]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://anna:p%40ss@127.0.0.1:{proxy.port}")
        assert get(settings_of(f"https://{REMOTE}:8443", certificates)) == b"ok"
    assert proxy.requests[0].startswith(f"CONNECT {REMOTE}:8443 HTTP/1.1\r\n".encode())
    credentials = base64.b64encode(b"anna:p@ss")
    assert b"\r\nProxy-Authorization: Basic " + credentials + b"\r\n" in proxy.requests[0]
    assert SECRET.encode() not in proxy.requests[0]
    assert credentials not in server.requests[0]
    assert f"\r\nHost: {REMOTE}:8443\r\n".encode() in server.requests[0]


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "502 Bad Gateway"])
def test_proxy_that_does_not_connect_is_an_error(monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    with ScriptedServer([response(status=status)]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://anna:password@127.0.0.1:{proxy.port}")
        text = failure(settings_of(f"https://{REMOTE}"))
    assert text.startswith(f"The proxy 127.0.0.1:{proxy.port} ")


def test_silence_of_the_proxy_is_an_error_after_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer([silence]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(ConnectionFailed, match=r"^The proxy .* within 0\.2 s\.$"):
            get(settings_of(f"https://{REMOTE}", timeout_s=0.2))


def test_plain_http_is_sent_to_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer([response(b"ok")]) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://anna:x@127.0.0.1:{proxy.port}/")
        assert get(settings_of(f"http://{REMOTE}/farm")) == b"ok"
    assert proxy.requests[0].startswith(f"GET http://{REMOTE}/farm/api/jobs HTTP/1.1\r\n".encode())
    assert b"\r\nProxy-Authorization: Basic " in proxy.requests[0]


def test_unreachable_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert failure(settings_of(f"http://{REMOTE}")).startswith("The proxy 127.0.0.1:1 refused")


def test_unknown_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    assert "proxy.invalid" in failure(settings_of(f"http://{REMOTE}"))


def test_loopback_is_reached_without_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with ScriptedServer([response(b"ok")]) as server:
        assert get(settings_of(f"http://localhost:{server.port}")) == b"ok"
