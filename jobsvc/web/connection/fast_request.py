"""A plain GET of a job's status, output or file, before aiohttp creates a request for it."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

from aiohttp import hdrs, web
from aiohttp.http_parser import RawRequestMessage

from jobsvc.web.connection.head_cache import with_path

if TYPE_CHECKING:
    from jobsvc.web.connection.fast_connection import FastConnection


class FastRequest:
    """A plain GET on the fast path. Creating a web.Request would be a sixth of the cost of the response."""

    __slots__ = ("_message", "_target", "client", "connection", "file", "headers", "job_id", "version")

    method: Final = hdrs.METH_GET

    def __init__(
        self,
        connection: FastConnection,
        message: RawRequestMessage,
        target: str,
        job_id: str,
        version: str | None = None,
        *,
        file: tuple[str, str | None] | None = None,
    ) -> None:
        """Take the header fields from `message`, which may have been parsed for another target."""
        self.connection = connection
        self.headers = message.headers
        self.job_id = job_id
        """As in the URL; it has the form of a job id."""
        self.version = version
        """Version of the output, if the URL names one."""
        self.file = file
        """Output and path of a single file, if the URL names one."""
        self.client: str | None = None
        """The client's address, behind trusted proxies; set for downloads only."""
        self._message = message
        self._target = target

    @property
    def remote(self) -> str | None:
        """The peer's address."""
        return self.connection.peer_address

    def close_connection(self) -> None:
        """Close the connection without a response."""
        self.connection.force_close()

    def to_request(self) -> web.BaseRequest:
        """Create a request from it, for work that outlasts this call."""
        return self.connection.request_of(with_path(self._message, self._target))


ParsedHead: TypeAlias = RawRequestMessage
"""A parsed request head."""


class SendResponse(Protocol):
    """Sends a response; `further` is the lines of its head that depend on the request's budget and origin."""

    def __call__(self, further: str) -> object:
        """Send the response."""


class PreparedResponse(NamedTuple):
    """A response that is ready but not yet sent."""

    status: HTTPStatus
    send: SendResponse
