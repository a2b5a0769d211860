"""Send requests over connections that are kept for the next request."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from threading import Lock
from typing import Final
from weakref import WeakSet

from jobsvc.client.connection_settings import ConnectionSettings
from jobsvc.client.errors import ConnectionFailed
from jobsvc.client.protocol.steps import MAX_BODY, Request, Response
from jobsvc.client.transport.connecting import Connector
from jobsvc.client.transport.connection import Connection
from jobsvc.client.transport.endpoint import parse_base_url
from jobsvc.client.transport.failures import TRANSPORT_ERRORS, MalformedResponse, response_missing
from jobsvc.client.transport.response_body import ResponseStream, read_whole
from jobsvc.client.transport.response_head import body_framing, read_head

MAX_IDLE_CONNECTIONS: Final = 8
IDLE_TIMEOUT_S: Final = 30.0
"""Idle connections are not used after this time; jobsvc itself closes them after 75 s."""

_TARGET: Final = re.compile(r"/[!-~]*")
_FIELD_VALUE: Final = re.compile(r"[\t -~\x80-\xff]*")
_REPEATABLE: Final = frozenset({"GET", "HEAD"})


class HttpTransport:
    """A Transport for any number of threads."""

    def __init__(self, settings: ConnectionSettings, connector: Connector | None = None) -> None:
        """Connect only when a request is sent. Raises BadConfiguration for a proxy that is not usable.

        `connector`: that of another transport, so that its TLS settings are not read again.
        """
        self._settings = settings
        self._endpoint = parse_base_url(settings.base_url)
        self._connector = connector or Connector(self._endpoint, settings.ca_file)
        self._idle = IdleConnections()
        self._lock = Lock()
        self._connections: WeakSet[Connection] = WeakSet()
        self._is_aborted = False

    def send(self, request: Request) -> Response:
        """Send a request and read the response, at most MAX_BODY bytes. Raises ConnectionFailed."""
        stream = self.open(request)
        try:
            return Response(stream.status, stream.headers, read_whole(stream, MAX_BODY))
        finally:
            stream.close()

    def open(self, request: Request) -> ResponseStream:
        """Send a request and read the head of the response. Raises ConnectionFailed.

        A kept connection can turn out to be closed. Then the request is sent once more over a new one, unless
        the service may have executed it already.
        """
        data = self._encode(request)
        timeout = self._settings.timeout if request.timeout is None else request.timeout
        if connection := self._idle.take():
            try:
                return self._exchange(connection, request, data, timeout)
            except ConnectionFailed as exc:
                if not _was_closed_while_idle(connection, request, exc):
                    raise
        connection = self._connector.connect(min(timeout, self._settings.timeout))
        return self._exchange(connection, request, data, timeout)

    def close(self) -> None:
        """Close idle connections."""
        self._idle.clear()

    def abort(self) -> None:
        """End all requests from another thread, and refuse further ones.

        One that is still connecting ends after its timeout at the latest.
        """
        with self._lock:
            self._is_aborted = True
            connections = list(self._connections)
        for connection in connections:
            connection.interrupt()
        self.close()

    def _register(self, connection: Connection) -> None:
        with self._lock:
            self._connections.add(connection)
            is_aborted = self._is_aborted
        if is_aborted:
            connection.close()
            failure = ConnectionFailed(f"The request to {self._endpoint.peer} was ended by this program.")
            failure.retryable = False
            raise failure

    def _exchange(
        self, connection: Connection, request: Request, data: bytes, timeout: float
    ) -> ResponseStream:
        peer = self._endpoint.peer
        self._register(connection)
        try:
            connection.send_request(data, timeout)
            head = read_head(connection, timeout)
            if head.headers.get("content-encoding", "identity").lower() != "identity":
                raise MalformedResponse("is compressed, although the request does not allow it")  # noqa: TRY301
            framing = body_framing(head, request.method)
        except TRANSPORT_ERRORS as exc:
            connection.close()
            raise response_missing(exc, peer, timeout) from exc
        except BaseException:
            connection.close()
            raise
        return ResponseStream(connection, head, framing, peer=peer, timeout=timeout, keep=self._idle.put)

    def _encode(self, request: Request) -> bytes:
        """Build a request. Raises ValueError if a part of it is not allowed in HTTP."""
        if not _TARGET.fullmatch(request.target):
            raise ValueError(f"not a request target: {request.target!r}")
        target = f"{self._endpoint.path_prefix}{request.target}"
        proxy = self._connector.proxy
        through_proxy = proxy is not None and not self._endpoint.tls
        if through_proxy:
            target = f"http://{self._endpoint.host_header}{target}"
        headers = {
            "Host": self._endpoint.host_header,
            **self._settings.headers,
            **request.headers,
        }
        if request.body is not None:
            headers["Content-Length"] = str(len(request.body))
        lines = f"{request.method} {target} HTTP/1.1\r\n{_format(headers)}"
        if proxy is not None and through_proxy:
            lines += proxy.header_lines
        return f"{lines}\r\n".encode("latin-1") + (request.body or b"")


class IdleConnections:
    """Connections that wait for the next request."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._connections: list[tuple[float, Connection]] = []
        """When each became idle (monotonic), oldest first."""
        self._process_id = os.getpid()

    def __del__(self) -> None:
        """Close them with a Client that is not used any more; nobody has to call its close()."""
        self.clear()

    def take(self) -> Connection | None:
        """Return the connection that was used last, if it is still good."""
        if self._process_id != os.getpid():
            self.clear()  # after a fork, they belong to the parent: responses would be mixed up
            self._process_id = os.getpid()
        while True:
            with self._lock:
                if not self._connections:
                    return None
                idle_since, connection = self._connections.pop()
            if time.monotonic() - idle_since < IDLE_TIMEOUT_S and connection.is_idle:
                return connection
            connection.close()

    def put(self, connection: Connection) -> None:
        """Keep a connection, and close those that are too old or too many."""
        now = time.monotonic()
        with self._lock:
            self._connections.append((now, connection))
            fresh = [each for each in self._connections if now - each[0] < IDLE_TIMEOUT_S]
            kept = fresh[-MAX_IDLE_CONNECTIONS:]
            dropped = [each for each in self._connections if each not in kept]
            self._connections = kept
        for _, old in dropped:
            old.close()

    def clear(self) -> None:
        """Close all of them."""
        with self._lock:
            dropped, self._connections = self._connections, []
        for _, connection in dropped:
            connection.close()


def _was_closed_while_idle(connection: Connection, request: Request, exc: ConnectionFailed) -> bool:
    """Return whether a kept connection failed so early that the request can be sent again."""
    if connection.received_bytes or isinstance(exc.__cause__, TimeoutError):
        return False
    return request.method in _REPEATABLE or not connection.sent_bytes


def _format(headers: Mapping[str, str]) -> str:
    for name, value in headers.items():
        if not _FIELD_VALUE.fullmatch(value):
            raise ValueError(f"not a header value: {name}")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())
