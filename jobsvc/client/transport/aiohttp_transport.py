"""Send requests over aiohttp, for the event loop that sends the first one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from ssl import SSLContext
from time import monotonic
from typing import Any, Final

from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientError,
    ClientHttpProxyError,
    ClientPayloadError,
    ClientProxyConnectionError,
    ClientResponse,
    ClientResponseError,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    ServerConnectionError,
    TCPConnector,
)
from yarl import URL

from jobsvc.client.connection_settings import ConnectionSettings
from jobsvc.client.errors import ConnectionFailed
from jobsvc.client.protocol.steps import MAX_BODY, Request, Response
from jobsvc.client.transport.async_driver import AsyncBodyStream
from jobsvc.client.transport.connecting import create_tls_context, tunnel_refused
from jobsvc.client.transport.endpoint import find_proxy, parse_base_url
from jobsvc.client.transport.failures import (
    TRANSPORT_ERRORS,
    Disconnected,
    MalformedResponse,
    Peer,
    body_incomplete,
    connecting_failed,
    response_missing,
)
from jobsvc.client.transport.http_transport import IDLE_TIMEOUT_S
from jobsvc.client.transport.response_body import MAX_BODY_S
from jobsvc.client.transport.response_head import MAX_TIMEOUTS

_ERRORS: Final = (ClientError, *TRANSPORT_ERRORS)
_NEXT_HOP_ERRORS: Final = (ClientConnectorDNSError, ClientProxyConnectionError, ConnectionTimeoutError)
"""Those of the proxy, if there is one."""
_CONNECTOR_ERRORS: Final = (*_NEXT_HOP_ERRORS, ClientConnectorError, ClientConnectorCertificateError)
_FIRST_FINAL: Final = 200


class AiohttpTransport:
    """An AsyncTransport; its connections belong to one event loop until it is closed."""

    def __init__(self, settings: ConnectionSettings) -> None:
        """Read `ca_file`, but connect only when a request is sent. Raises BadConfiguration."""
        self._settings = settings
        self._endpoint = parse_base_url(settings.base_url)
        self._base_url = str(URL(settings.base_url))
        # aiohttp's own search for a proxy reads ~/.netrc too, whose passwords exclude a token.
        self._proxy = find_proxy(self._endpoint)
        self._tls: SSLContext | bool = True
        if self._endpoint.tls and settings.ca_file is not None:
            self._tls = create_tls_context(settings.ca_file)
        self._session: ClientSession | None = None

    async def send(self, request: Request) -> Response:
        """Send a request and read the response. Raises ConnectionFailed."""
        stream = await self.open(request)
        try:
            return Response(stream.status, stream.headers, await _read_whole(stream))
        finally:
            stream.close()

    async def open(self, request: Request) -> AsyncBodyStream:
        """Send a request and read the head of the response. Raises ConnectionFailed."""
        peer = self._endpoint.peer
        timeout = self._settings.timeout if request.timeout is None else request.timeout
        try:
            async with asyncio.timeout(MAX_TIMEOUTS * timeout):  # informational responses can be endless
                response = await self._request(request, timeout)
        except _CONNECTOR_ERRORS as exc:
            if self._proxy and isinstance(exc, _NEXT_HOP_ERRORS):
                peer = self._proxy.peer
            raise connecting_failed(_cause(exc), peer, timeout) from exc
        except ClientHttpProxyError as exc:
            assert self._proxy is not None  # noqa: S101 - it responded
            refused = tunnel_refused(self._endpoint.address, exc.status)
            raise response_missing(refused, self._proxy.peer, timeout) from exc
        except _ERRORS as exc:
            raise response_missing(_cause(exc), peer, timeout) from exc
        return _ResponseStream(response, peer, timeout)

    async def close(self) -> None:
        """Close all connections; the next request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _request(self, request: Request, seconds: float) -> ClientResponse:
        headers = {
            **self._settings.headers,
            **request.headers,
        }
        options: dict[str, Any] = {}
        if self._proxy is not None:
            options["proxy"] = URL.build(scheme="http", host=self._proxy.host, port=self._proxy.port)
            if self._endpoint.tls:
                options["proxy_headers"] = self._proxy.headers
            else:
                headers |= self._proxy.headers
        response = await self._open_session().request(
            request.method,
            URL(self._base_url + request.target, encoded=True),
            headers=headers,
            data=request.body,
            ssl=self._tls,
            # Not sock_connect, which leaves out the response of a proxy to CONNECT.
            timeout=ClientTimeout(
                total=None, connect=min(seconds, self._settings.timeout), sock_read=seconds
            ),
            allow_redirects=False,
            **options,
        )
        if problem := _protocol_problem(response):
            response.close()
            raise problem
        return response

    def _open_session(self) -> ClientSession:
        if self._session is None:
            self._session = ClientSession(
                # Without a limit: a request that waited for a connection would exceed its timeout.
                connector=TCPConnector(limit=0, keepalive_timeout=IDLE_TIMEOUT_S),
                cookie_jar=DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=["Content-Type"],
            )
        return self._session


class _ResponseStream:
    """An AsyncBodyStream."""

    def __init__(self, response: ClientResponse, peer: Peer, timeout: float) -> None:
        self._response = response
        self._peer = peer
        self._timeout = timeout
        self._received = 0
        self.status = response.status
        self.headers = _join_fields(response)

    async def read(self, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - part of the interface
        """Return what has arrived, at least one byte; empty at the end. Raises ConnectionFailed."""
        seconds = self._timeout if timeout is None else timeout
        try:
            # Not sock_read alone: after an invalid chunk, aiohttp closes the connection, but not the body.
            async with asyncio.timeout(seconds):
                data = await self._response.content.readany()
        except _ERRORS as exc:
            raise body_incomplete(_cause(exc), self._peer, seconds, self._received) from exc
        self._received += len(data)
        return data

    def close(self) -> None:
        """Release the connection; can be called repeatedly."""
        self._response.close()


async def _read_whole(stream: AsyncBodyStream) -> bytes:
    body, ends = bytearray(), monotonic() + MAX_BODY_S
    while data := await stream.read():
        body += data
        if len(body) > MAX_BODY:
            raise ConnectionFailed(f"A response is larger than {MAX_BODY >> 20} MiB.")
        if monotonic() > ends:
            raise ConnectionFailed(f"A response was not complete after {MAX_BODY_S:g} s.")
    return bytes(body)


def _join_fields(response: ClientResponse) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    for name, value in response.headers.items():
        lower = name.lower()
        headers[lower] = f"{headers[lower]}, {value}" if lower in headers else value
    return headers


def _protocol_problem(response: ClientResponse) -> MalformedResponse | None:
    """Return what makes a response unusable."""
    if response.status < _FIRST_FINAL:
        return MalformedResponse("switches to another protocol")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        return MalformedResponse("is compressed, although the request does not allow it")
    return None


def _cause(exc: Exception) -> Exception:
    """Return the exception that the blocking transport raises in the same situation."""
    if isinstance(exc.__cause__, OSError):
        return exc.__cause__
    if isinstance(exc, TimeoutError):  # also some that are ServerConnectionError
        return exc
    if isinstance(exc, ServerConnectionError | ClientPayloadError):
        return Disconnected()
    if isinstance(exc, ClientResponseError):
        return MalformedResponse("is not HTTP: check the URL")
    return exc
