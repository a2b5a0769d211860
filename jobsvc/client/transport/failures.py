"""Turn errors of sockets, TLS and HTTP into ConnectionFailed, with a sentence for people.

No message contains received bytes: a server that returns what it receives would put the token into them.
"""

from __future__ import annotations

import errno
import socket
import sys
from typing import Final, NamedTuple

from jobsvc.client.errors import ConnectionFailed

# Values of X509_V_ERR_..., see verify(1) of OpenSSL.
_EXPIRED: Final = 10
_NOT_TRUSTED: Final = frozenset({2, 18, 19, 20, 21})
_OTHER_NAME: Final = frozenset({62, 64})
_UNREACHABLE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})


class Peer(NamedTuple):
    """The other side of a connection, in messages."""

    address: str
    """`host:port`"""
    is_proxy: bool = False

    def __str__(self) -> str:
        return f"The proxy {self.address}" if self.is_proxy else self.address


class Disconnected(Exception):
    """The connection ended before the response did."""


class MalformedResponse(Exception):
    """The response violates HTTP; the text completes the sentence `HOST sent a response that ...`."""


class TunnelRefused(Exception):
    """The proxy does not connect to the service; the text completes the sentence `The proxy HOST ...`."""


TRANSPORT_ERRORS: Final = (OSError, UnicodeError, Disconnected, MalformedResponse, TunnelRefused)
"""What connecting, sending and reading raise. OSError includes TimeoutError and ssl.SSLError."""


def connecting_failed(exc: Exception, peer: Peer, timeout: float) -> ConnectionFailed:
    """Describe an error of connecting."""
    if isinstance(exc, TimeoutError):
        return ConnectionFailed(f"{peer} accepted no connection within {timeout:g} s.")
    if _is_disconnect(exc):
        return ConnectionFailed(f"{peer} closed the connection while it was established.")
    return _failure(exc, peer)


def response_missing(exc: Exception, peer: Peer, timeout: float) -> ConnectionFailed:
    """Describe an error of sending a request or of reading the head of the response."""
    if isinstance(exc, TimeoutError):
        return ConnectionFailed(f"{peer} sent no response within {timeout:g} s.")
    if _is_disconnect(exc):
        return ConnectionFailed(f"{peer} closed the connection without a response.")
    return _failure(exc, peer)


def body_incomplete(exc: Exception, peer: Peer, timeout: float, received: int) -> ConnectionFailed:
    """Describe an error of reading the body of a response, of which `received` bytes arrived."""
    if isinstance(exc, TimeoutError):
        return ConnectionFailed(f"{peer} sent no data for {timeout:g} s.")
    if _is_disconnect(exc):
        return ConnectionFailed(f"{peer} closed the connection within a response, after {received} bytes.")
    return _failure(exc, peer)


def _is_disconnect(exc: Exception) -> bool:
    if isinstance(exc, ConnectionError | Disconnected):
        return not isinstance(exc, ConnectionRefusedError)
    # Without TLS the module is not imported, and there is none of these errors.
    ssl = sys.modules.get("ssl")
    return ssl is not None and isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def _failure(exc: Exception, peer: Peer) -> ConnectionFailed:
    """Describe an error that has the same causes at any time."""
    if isinstance(exc, TunnelRefused):
        return ConnectionFailed(f"{peer} {exc}.")
    if isinstance(exc, MalformedResponse):
        return ConnectionFailed(f"{peer} sent a response that {exc}.")
    if isinstance(exc, UnicodeError):
        return _final(f"{peer} is not a valid host name: check the URL.")
    if "ssl" in sys.modules and (failure := _tls_failure(exc, peer)):
        return failure
    return ConnectionFailed(_socket_problem(exc, peer))


def _final(message: str) -> ConnectionFailed:
    failure = ConnectionFailed(message)
    failure.retryable = False
    return failure


def _socket_problem(exc: Exception, peer: Peer) -> str:
    if isinstance(exc, socket.gaierror):
        host = peer.address.rpartition(":")[0]
        if exc.errno == socket.EAI_AGAIN:
            return f"The host name {host} cannot be resolved now: check the network."
        return f"The host name {host}{' of the proxy' if peer.is_proxy else ''} is unknown."
    if isinstance(exc, ConnectionRefusedError):
        noun = "proxy" if peer.is_proxy else "service"
        return f"{peer} refused the connection: is the {noun} running?"
    reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc) or type(exc).__name__
    if isinstance(exc, OSError) and exc.errno in _UNREACHABLE:
        return f"{peer} cannot be reached: {reason}."
    return f"The connection to {peer.address} failed: {reason}."


def _tls_failure(exc: Exception, peer: Peer) -> ConnectionFailed | None:
    import ssl  # noqa: PLC0415 - imported already

    if isinstance(exc, ssl.SSLCertVerificationError):
        return _final(_certificate_problem(exc, peer))
    if not isinstance(exc, ssl.SSLError):
        return None
    if exc.reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}:
        return _final(f"{peer} does not use TLS: does the URL start with http:// instead of https://?")
    reason = (exc.reason or str(exc)).lower().replace("_", " ")
    return ConnectionFailed(f"The TLS connection to {peer} failed: {reason}.")


def _certificate_problem(exc: Exception, peer: Peer) -> str:
    code = getattr(exc, "verify_code", 0)
    if code in _OTHER_NAME:
        return f"The certificate of {peer} is for another host name: check the URL."
    if code == _EXPIRED:
        return f"The certificate of {peer} has expired."
    message = getattr(exc, "verify_message", "") or "verification failed"
    if code in _NOT_TRUSTED:
        return (
            f"The certificate of {peer} is not trusted ({message}): name the file of its certificate "
            "authority with --ca-file (in Python: ca_file)."
        )
    return f"The certificate of {peer} is not valid: {message}."
