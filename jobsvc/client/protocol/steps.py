"""Define operations: generators that yield steps, so that Client and AsyncClient share one implementation.

An operation contains no I/O. It yields steps; a driver performs each one and sends its result back, or throws
ConnectionFailed into the generator. `Emit` hands an item to the caller of an operation that is iterated. The
driver closes streams that are still open when an operation ends.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar

T = TypeVar("T")

MAX_BODY: Final = 64 << 20
"""Maximum bytes of a response that is read as a whole."""


class Request(NamedTuple):
    """A request to the service."""

    target: str
    """Path and query below the base URL: `/api/jobs?limit=200`."""
    method: str = "GET"
    headers: Mapping[str, str] = {}
    body: bytes | None = None
    timeout: float | None = None
    """Seconds without a byte until the connection counts as dead; None for the client's `timeout`."""


class Response(NamedTuple):
    """A response with its whole body."""

    status: int
    headers: Mapping[str, str]
    """Names are lower case; repeated fields are joined by a comma."""
    body: bytes


class Stream(Protocol):
    """A response whose body is read in parts; belongs to the driver."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """As of a Response."""


class Send(NamedTuple):
    """Send a request and read the whole response. Result: Response."""

    request: Request


class Open(NamedTuple):
    """Send a request and read the head of the response. Result: Stream."""

    request: Request


class Read(NamedTuple):
    """Read what has arrived, at least one byte. Result: bytes; empty at the end of the body.

    A body that ends before its Content-Length or its last chunk is a ConnectionFailed.
    """

    stream: Stream
    timeout: float | None = None
    """Seconds without a byte until the connection counts as dead; None for that of the request."""


class Close(NamedTuple):
    """Close a stream; its connection is not used again unless the body was read to its end."""

    stream: Stream


class Sleep(NamedTuple):
    """Wait."""

    seconds: float


class Emit(NamedTuple):
    """Hand an item to the caller."""

    item: Any


Step: TypeAlias = Send | Open | Read | Close | Sleep | Emit
Operation: TypeAlias = Generator[Step, Any, T]
"""An operation with a result of type T; one that is iterated has the result None."""


def send(request: Request) -> Operation[Response]:
    """Send a request once. Raises ConnectionFailed."""
    response: Response = yield Send(request)
    return response


def open_stream(request: Request) -> Operation[Stream]:
    """Send a request once and return its response when the head has arrived. Raises ConnectionFailed."""
    stream: Stream = yield Open(request)
    return stream


def read(stream: Stream, timeout: float | None = None) -> Operation[bytes]:
    """Return the next bytes of a body; empty at its end. Raises ConnectionFailed, also after `timeout` s."""
    data: bytes = yield Read(stream, timeout)
    return data
