"""AiohttpTransport against a server that sends prepared bytes; its errors are those of HttpTransport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from jobsvc import __version__
from jobsvc.client.connection_settings import ConnectionSettings
from jobsvc.client.errors import ConnectionFailed
from jobsvc.client.protocol.steps import Request, Response
from jobsvc.client.transport import aiohttp_transport
from jobsvc.client.transport.aiohttp_transport import AiohttpTransport
from jobsvc.client.transport.http_transport import HttpTransport
from tests.clients.loopback_server import LoopbackServer
from tests.eventually import until

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

pytestmark = pytest.mark.both_loops


class PreparedServer(LoopbackServer):
    """Responds to each request with the same bytes."""

    def __init__(self, response: bytes, *, then: str) -> None:
        """`then`: `keep` the connection, `close` it, `reset` it, or `hold` it without a further byte."""
        super().__init__()
        self.requests: list[str] = []
        """The head of each request."""
        self.bodies: list[bytes] = []
        self.ended = asyncio.Event()
        """The client has closed a connection."""
        self._response = response
        self._then = then
        self._writer: asyncio.StreamWriter | None = None

    async def serve_connection(
        self,
        number: int,  # noqa: ARG002 - all connections are alike
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        with suppress(ConnectionError):
            await self._serve_requests(reader, writer)
        self.ended.set()

    async def _serve_requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await self._read_head(reader):
            self.requests.append(head)
            length = next((line for line in head.split("\r\n") if line.startswith("Content-Length: ")), ": 0")
            self.bodies.append(await reader.readexactly(int(length.partition(": ")[2])))
            writer.write(self._response)
            self._writer = writer
            if self._then == "hold":
                await reader.read()
            elif self._then == "reset":
                await writer.drain()
                writer.transport.abort()
            if self._then != "keep":
                break

    def send(self, data: bytes) -> None:
        """Send further bytes on the last connection."""
        assert self._writer is not None
        self._writer.write(data)

    def close_connection(self) -> None:
        """Close the last connection."""
        assert self._writer is not None
        self._writer.close()

    async def _read_head(self, reader: asyncio.StreamReader) -> str | None:
        try:
            return (await reader.readuntil(b"\r\n\r\n")).decode()
        except (asyncio.IncompleteReadError, ConnectionError):
            return None


@asynccontextmanager
async def prepared(response: bytes, *, then: str = "keep") -> AsyncIterator[PreparedServer]:
    server = PreparedServer(response, then=then)
    async with server.serving():
        yield server


@asynccontextmanager
async def transport_to(
    port: int, *, base: str = "http://127.0.0.1:{port}", timeout_s: float = 20, ca_file: str | None = None
) -> AsyncIterator[AiohttpTransport]:
    settings = ConnectionSettings(base.format(port=port), "secret", timeout_s, ca_file=ca_file)
    transport = AiohttpTransport(settings)
    try:
        yield transport
    finally:
        await transport.close()


async def test_request_has_token_user_agent_and_its_own_headers() -> None:
    async with (
        prepared(OK) as server,
        transport_to(server.port, base="http://127.0.0.1:{port}/farm") as sender,
    ):
        await sender.send(Request("/api/jobs?status=a%2Fb", headers={"If-None-Match": '"x"'}))
    first_line, *fields = server.requests[0].rstrip().split("\r\n")
    assert first_line == "GET /farm/api/jobs?status=a%2Fb HTTP/1.1"
    assert {
        "Authorization: Bearer secret",
        f"User-Agent: jobsvc/{__version__}",
        "Accept-Encoding: identity",
        'If-None-Match: "x"',
        f"Host: 127.0.0.1:{server.port}",
    } <= set(fields)


async def test_percent_encoded_path_is_sent_unchanged() -> None:
    async with prepared(OK) as server, transport_to(server.port) as sender:
        await sender.send(Request("/api/jobs/a%2F%7E%2e%25/x%20y"))
    assert server.requests[0].startswith("GET /api/jobs/a%2F%7E%2e%25/x%20y HTTP/1.1")


async def test_body_is_sent_with_its_length() -> None:
    async with prepared(OK) as server, transport_to(server.port) as sender:
        await sender.send(Request("/x", "POST", {"Content-Type": "application/json"}, b"{}"))
        await sender.send(Request("/x", "POST", body=b"text"))
    assert server.bodies == [b"{}", b"text"]
    assert "Content-Type: application/json" in server.requests[0]
    assert "Content-Type" not in server.requests[1]


async def test_response_has_status_body_and_joined_headers() -> None:
    head = b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nVary: a\r\nvary: b\r\nX-Name: Value\r\n\r\nbody"
    async with prepared(head) as server, transport_to(server.port) as sender:
        response = await sender.send(Request("/x"))
    assert response == Response(404, {"content-length": "4", "vary": "a, b", "x-name": "Value"}, b"body")


async def test_chunked_body_is_read_to_its_end() -> None:
    async with (
        prepared(CHUNKED + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n") as server,
        transport_to(server.port) as sender,
    ):
        assert (await sender.send(Request("/x"))).body == b"abc"


async def test_connection_is_kept_for_the_next_request() -> None:
    async with prepared(OK) as server, transport_to(server.port) as sender:
        for _ in range(3):
            await sender.send(Request("/x"))
        assert server.accepted_count == 1


async def test_transport_can_be_used_again_after_it_was_closed() -> None:
    async with prepared(OK) as server, transport_to(server.port) as sender:
        await sender.send(Request("/x"))
        await sender.close()
        await server.ended.wait()
        await sender.send(Request("/x"))
        assert server.accepted_count == 2


def test_transport_can_be_used_on_another_loop_after_it_was_closed() -> None:
    transports: list[AiohttpTransport] = []

    async def send() -> bytes:
        async with prepared(OK) as server, transport_to(server.port) as sender:
            transports[:] = transports or [sender]
            transports[0]._base_url = sender._base_url
            body = (await transports[0].send(Request("/x"))).body
            await transports[0].close()
            return body

    assert [asyncio.run(send()), asyncio.run(send())] == [b"body", b"body"]


async def test_redirect_is_not_followed() -> None:
    response = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    async with prepared(response) as server, transport_to(server.port) as sender:
        assert (await sender.send(Request("/x"))).status == 302
    assert len(server.requests) == 1


async def test_cookies_are_not_kept() -> None:
    response = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
    async with (
        prepared(response) as server,
        transport_to(server.port, base="http://localhost:{port}") as sender,
    ):
        await sender.send(Request("/x"))
        await sender.send(Request("/x"))
    assert "Cookie" not in server.requests[1]


async def test_token_is_sent_although_netrc_has_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with prepared(OK) as server, transport_to(server.port) as sender:
        await sender.send(Request("/x"))
    assert "Authorization: Bearer secret" in server.requests[0]


async def test_stream_is_read_as_it_arrives() -> None:
    async with prepared(CHUNKED + b"2\r\nab\r\n", then="hold") as server, transport_to(server.port) as sender:
        stream = await sender.open(Request("/x"))
        assert (stream.status, stream.headers["transfer-encoding"]) == (200, "chunked")
        assert await stream.read() == b"ab"
        stream.close()
        stream.close()
        async with asyncio.timeout(10):
            await server.ended.wait()


async def test_closing_a_stream_ends_its_read() -> None:
    async with prepared(CHUNKED, then="hold") as server, transport_to(server.port) as sender:
        stream = await sender.open(Request("/x"))
        reading = asyncio.ensure_future(stream.read())
        await asyncio.sleep(0)
        stream.close()
        with pytest.raises(ConnectionFailed):
            await asyncio.wait_for(reading, 10)


async def test_read_ends_after_its_own_timeout() -> None:
    async with prepared(CHUNKED, then="hold") as server, transport_to(server.port) as sender:
        stream = await sender.open(Request("/x"))
        with pytest.raises(ConnectionFailed, match=r"sent no data for 0\.01 s"):
            await stream.read(0.01)
        stream.close()


async def test_timeout_of_the_request_replaces_that_of_the_settings() -> None:
    async with prepared(b"", then="hold") as server, transport_to(server.port) as sender:
        with pytest.raises(ConnectionFailed, match=r"sent no response within 2 s"):
            await sender.send(Request("/x", timeout=2))


async def test_cancelled_request_closes_its_connection() -> None:
    async with prepared(CHUNKED + b"1\r\na\r\n", then="hold") as server, transport_to(server.port) as sender:
        sending = asyncio.ensure_future(sender.send(Request("/x")))
        await until(lambda: server.requests)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        async with asyncio.timeout(10):
            await server.ended.wait()


async def test_response_that_cannot_be_used_ends_its_connection() -> None:
    compressed = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n"
    async with prepared(compressed, then="hold") as server, transport_to(server.port) as sender:
        with pytest.raises(ConnectionFailed, match="is compressed"):
            await sender.open(Request("/x"))
        async with asyncio.timeout(10):
            await server.ended.wait()


async def test_response_that_is_too_large_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiohttp_transport, "MAX_BODY", 3)
    async with prepared(OK) as server, transport_to(server.port) as sender:
        with pytest.raises(ConnectionFailed, match="larger than"):
            await sender.send(Request("/x"))


@pytest.mark.parametrize(
    ("response", "then"),
    [
        pytest.param(b"", "close", id="no response"),
        pytest.param(b"", "hold", id="timeout of the head"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConte", "close", id="part of a head"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2p1\r\n", "close", id="not HTTP"),
        pytest.param(OK[:-2], "close", id="body too short"),
        pytest.param(OK[:-2], "hold", id="timeout of the body"),
        pytest.param(OK[:-2], "reset", id="body reset"),
        pytest.param(CHUNKED + b"2\r\nab\r\n", "close", id="no last chunk"),
        pytest.param(CHUNKED + b"3\r\nab\r\n", "close", id="part of a chunk"),
        pytest.param(OK.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"), "hold", id="compressed"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "hold", id="upgrade"),
    ],
)
async def test_errors_are_those_of_the_blocking_transport(response: bytes, then: str) -> None:
    async with prepared(response, then=then) as server:
        timeout_s = 2.0 if then == "hold" else 20.0
        settings = ConnectionSettings(f"http://127.0.0.1:{server.port}", "secret", timeout=timeout_s)
        blocking = HttpTransport(settings)
        with pytest.raises(ConnectionFailed) as blocking_error:
            await asyncio.to_thread(blocking.send, Request("/x"))
        async with transport_to(server.port, timeout_s=timeout_s) as sender:
            with pytest.raises(ConnectionFailed) as error:
                await sender.send(Request("/x"))
    assert str(error.value) == str(blocking_error.value)
    assert error.value.retryable == blocking_error.value.retryable


async def test_invalid_content_length_is_an_error() -> None:
    async with prepared(OK.replace(b"4", b"-4")) as server, transport_to(server.port) as sender:
        with pytest.raises(ConnectionFailed, match="is not HTTP"):
            await sender.send(Request("/x"))


async def test_invalid_chunk_after_others_ends_the_read() -> None:
    """After the timeout: aiohttp 3.14 does not report it to the reader of the body."""
    async with (
        prepared(CHUNKED + b"1\r\na\r\n", then="hold") as server,
        transport_to(server.port, timeout_s=3) as sender,
    ):
        stream = await sender.open(Request("/x"))
        assert await stream.read() == b"a"
        server.send(b"x\r\n")
        with pytest.raises(ConnectionFailed):
            await stream.read()
        stream.close()


async def test_stream_that_is_cut_is_an_error() -> None:
    async with prepared(CHUNKED + b"1\r\na\r\n", then="hold") as server, transport_to(server.port) as sender:
        stream = await sender.open(Request("/x"))
        assert await stream.read() == b"a"
        server.close_connection()
        with pytest.raises(ConnectionFailed, match="closed the connection within a response, after 1 bytes"):
            await stream.read()
        stream.close()


@pytest.mark.parametrize("base", ["http://127.0.0.1:1", "http://unknown.invalid:80", "https://127.0.0.1:1"])
async def test_errors_of_connecting_are_those_of_the_blocking_transport(base: str) -> None:
    blocking = HttpTransport(ConnectionSettings(base, "secret"))
    with pytest.raises(ConnectionFailed) as blocking_error:
        await asyncio.to_thread(blocking.send, Request("/x"))
    async with transport_to(0, base=base) as sender:
        with pytest.raises(ConnectionFailed) as error:
            await sender.send(Request("/x"))
    assert str(error.value) == str(blocking_error.value)
    assert "secret" not in str(error.value)


async def test_head_after_endless_informational_responses_is_not_waited_for() -> None:
    async def flood(server: PreparedServer) -> None:
        while not server.ended.is_set():
            await asyncio.sleep(0.05)
            if server.requests:
                server.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")

    async with prepared(b"", then="hold") as server, transport_to(server.port, timeout_s=1) as sender:
        flooding = asyncio.create_task(flood(server))
        with pytest.raises(ConnectionFailed, match="no response within"):
            await asyncio.wait_for(sender.send(Request("/x")), 10)
        flooding.cancel()


async def test_body_that_is_read_as_a_whole_has_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiohttp_transport, "MAX_BODY_S", -1.0)
    async with prepared(OK) as server, transport_to(server.port) as sender:
        with pytest.raises(ConnectionFailed, match="not complete"):
            await sender.send(Request("/x"))
