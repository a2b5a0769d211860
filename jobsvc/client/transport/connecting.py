"""Open connections to the service: TCP, through a proxy if one is configured, then TLS."""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Final

from jobsvc.client.errors import BadConfiguration
from jobsvc.client.transport.connection import Connection
from jobsvc.client.transport.endpoint import Endpoint, Proxy, find_proxy
from jobsvc.client.transport.failures import (
    TRANSPORT_ERRORS,
    TunnelRefused,
    connecting_failed,
    response_missing,
)
from jobsvc.client.transport.response_head import read_head

if TYPE_CHECKING:
    import ssl

_OK: Final = 200
_PROXY_AUTHENTICATION_REQUIRED: Final = 407


class Connector:
    """Opens connections; can be used by any number of threads."""

    def __init__(self, endpoint: Endpoint, ca_file: str | None) -> None:
        """Trust the certificates of `ca_file`, or the system's. Raises BadConfiguration."""
        self._endpoint = endpoint
        self._ca_file = ca_file
        self.proxy: Final = find_proxy(endpoint)

    def connect(self, timeout: float) -> Connection:
        """Open a connection; `timeout` is for each step, in seconds.

        Raises ConnectionFailed, or BadConfiguration for `ca_file`.
        """
        tls_context = self._tls_context if self._endpoint.tls else None
        next_hop: Endpoint | Proxy = self.proxy or self._endpoint
        try:
            sock = socket.create_connection((next_hop.host, next_hop.port), timeout)
        except TRANSPORT_ERRORS as exc:
            raise connecting_failed(exc, next_hop.peer, timeout) from exc
        try:
            with suppress(OSError):  # on macOS, if the peer has closed the connection already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls_context is not None:
                if self.proxy:
                    self._open_tunnel(sock, self.proxy, timeout)
                sock = self._start_tls(sock, tls_context, timeout)
        except BaseException:
            sock.close()
            raise
        return Connection(sock)

    def _open_tunnel(self, sock: socket.socket, proxy: Proxy, timeout: float) -> None:
        """Let the proxy connect to the service (RFC 9110, section 9.3.6)."""
        target = self._endpoint.address
        lines = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{proxy.header_lines}\r\n"
        tunnel = Connection(sock)
        try:
            tunnel.send_request(lines.encode("ascii"), timeout)
            status = read_head(tunnel, timeout).status
            if status != _OK:
                raise tunnel_refused(target, status)
        except TRANSPORT_ERRORS as exc:
            raise response_missing(exc, proxy.peer, timeout) from exc

    def _start_tls(self, sock: socket.socket, context: ssl.SSLContext, timeout: float) -> ssl.SSLSocket:
        try:
            # An end of the TCP connection alone is an error: anybody can have caused it.
            return context.wrap_socket(sock, server_hostname=self._endpoint.host, suppress_ragged_eofs=False)
        except TRANSPORT_ERRORS as exc:
            raise connecting_failed(exc, self._endpoint.peer, timeout) from exc

    @cached_property
    def _tls_context(self) -> ssl.SSLContext:
        return create_tls_context(self._ca_file)


def create_tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Trust the certificates of a file, or the system's. Raises BadConfiguration."""
    import ssl  # noqa: PLC0415 - 12 ms, and only for https

    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as exc:
        raise BadConfiguration(f"{ca_file} contains no certificate in PEM format.") from exc
    except OSError as exc:
        raise BadConfiguration(f"{ca_file} cannot be read: {exc.strerror}.") from exc
    context.set_alpn_protocols(["http/1.1"])
    return context


def tunnel_refused(target: str, status: int) -> TunnelRefused:
    """Describe a response to CONNECT that is not 200; `target` is the `host:port` of the service."""
    if status == _PROXY_AUTHENTICATION_REQUIRED:
        return TunnelRefused(
            "requires a password: put it into HTTPS_PROXY, as in http://user:password@proxy:3128"
        )
    return TunnelRefused(f"does not connect to {target}: HTTP {status}")
