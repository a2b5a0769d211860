"""Turn errors of sockets, TLS and HTTP into ConnectionFailed, with a sentence for people.

No message contains received bytes: a server that returns what it receives would put the token into them.
"""

from __future__ import annotations

import errno
import socket
import sys
from typing import Final

from jobsvc.client.errors import ConnectionFailed

# Values of X509_V_ERR_..., see verify(1) of OpenSSL.
_EXPIRED: Final = 10
_NOT_TRUSTED: Final = frozenset({2, 18, 19, 20, 21})
_OTHER_NAME: Final = frozenset({62, 64})
_UNREACHABLE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})


class Disconnected(Exception):
    """The connection ended before the response did."""


class MalformedResponse(Exception):
    """The response violates HTTP; the text completes the sentence `The response of HOST ...`."""


class ProxyRefused(Exception):
    """The proxy does not connect to the service; the text is a sentence."""


TRANSPORT_ERRORS: Final = (OSError, UnicodeError, Disconnected, MalformedResponse, ProxyRefused)
"""What connecting, sending and reading raise. OSError includes TimeoutError and ssl.SSLError."""


def connecting_failed(exc: Exception, address: str, timeout: float) -> ConnectionFailed:
    """Describe an error of connecting to `host:port`."""
    if isinstance(exc, TimeoutError):
        return ConnectionFailed(f"No connection to {address} within {timeout:g} s.")
    if isinstance(exc, Disconnected | ConnectionResetError):
        return ConnectionFailed(f"{address} closed the connection while it was established.")
    return _failure(exc, address)


def response_missing(exc: Exception, address: str, timeout: float) -> ConnectionFailed:
    """Describe an error of sending a request to `host:port` or of reading the head of the response."""
    if isinstance(exc, TimeoutError):
        return ConnectionFailed(f"{address} sent no response within {timeout:g} s.")
    if isinstance(exc, Disconnected):
        return ConnectionFailed(f"{address} closed the connection without a response.")
    return _failure(exc, address)


def body_incomplete(exc: Exception, address: str, timeout: float, received: int) -> ConnectionFailed:
    """Describe an error of reading the body of a response, of which `received` bytes arrived."""
    if isinstance(exc, TimeoutError):
        return ConnectionFailed(f"{address} sent no data for {timeout:g} s.")
    if isinstance(exc, Disconnected):
        return ConnectionFailed(f"{address} closed the connection within a response, after {received} bytes.")
    return _failure(exc, address)


def _failure(exc: Exception, address: str) -> ConnectionFailed:
    """Describe an error that has the same causes at any time."""
    if isinstance(exc, ProxyRefused):
        return ConnectionFailed(str(exc))
    if isinstance(exc, MalformedResponse):
        return ConnectionFailed(f"The response of {address} {exc}.")
    if isinstance(exc, UnicodeError):
        return _final(f"{address} is not a valid host name: check the URL.")
    if "ssl" in sys.modules and (failure := _tls_failure(exc, address)):
        return failure
    return ConnectionFailed(_socket_problem(exc, address))


def _final(message: str) -> ConnectionFailed:
    failure = ConnectionFailed(message)
    failure.retryable = False
    return failure


def _socket_problem(exc: Exception, address: str) -> str:
    if isinstance(exc, socket.gaierror):
        host = address.rpartition(":")[0]
        if exc.errno == socket.EAI_AGAIN:
            return f"The host name {host} cannot be resolved now: check the network."
        return f"The host name {host} is unknown: check the URL."
    if isinstance(exc, ConnectionRefusedError):
        return f"{address} refused the connection: is the service running?"
    if isinstance(exc, ConnectionError):
        return f"{address} closed the connection."
    reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc) or type(exc).__name__
    if isinstance(exc, OSError) and exc.errno in _UNREACHABLE:
        return f"{address} cannot be reached: {reason}."
    return f"The connection to {address} failed: {reason}."


def _tls_failure(exc: Exception, address: str) -> ConnectionFailed | None:
    import ssl  # noqa: PLC0415 - imported already

    if isinstance(exc, ssl.SSLCertVerificationError):
        return _final(_certificate_problem(exc, address))
    if isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return ConnectionFailed(f"{address} closed the connection.")
    if not isinstance(exc, ssl.SSLError):
        return None
    if exc.reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}:
        return _final(f"{address} does not use TLS: does the URL start with http:// instead of https://?")
    reason = (exc.reason or str(exc)).lower().replace("_", " ")
    return ConnectionFailed(f"The TLS connection to {address} failed: {reason}.")


def _certificate_problem(exc: Exception, address: str) -> str:
    code = getattr(exc, "verify_code", 0)
    if code in _OTHER_NAME:
        return f"The certificate of {address} is for another host name: check the URL."
    if code == _EXPIRED:
        return f"The certificate of {address} has expired."
    message = getattr(exc, "verify_message", "") or "verification failed"
    if code in _NOT_TRUSTED:
        return (
            f"The certificate of {address} is not trusted ({message}): name the file of its certificate "
            "authority with --ca-file (in Python: ca_file)."
        )
    return f"The certificate of {address} is not valid: {message}."
