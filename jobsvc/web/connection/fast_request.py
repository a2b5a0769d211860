"""A plain GET of what a job has, before the framework makes a request of it."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from aiohttp import hdrs, web
from aiohttp.http_parser import RawRequestMessage

from jobsvc.web.connection.head_cache import with_path

if TYPE_CHECKING:
    from jobsvc.web.connection.protocol import Connection


class FastRequest:
    """One such GET, with what an answer without a wait needs; a request would be a sixth of its cost."""

    __slots__ = ("_message", "_target", "connection", "headers", "job_id", "version")

    method: Final = hdrs.METH_GET

    def __init__(
        self,
        connection: Connection,
        message: RawRequestMessage,
        target: str,
        job_id: str,
        version: str | None = None,
    ) -> None:
        """Take a message with its fields, which may have been of another target."""
        self.connection = connection
        self.headers = message.headers
        self.job_id = job_id
        """As the address has it, and of the form that ids have."""
        self.version = version
        """Of the output, where the address names one."""
        self._message = message
        self._target = target

    @property
    def remote(self) -> str | None:
        """The peer's address."""
        return self.connection.peer_address

    def request(self) -> web.BaseRequest:
        """Make a request of it, for what lasts longer than this moment."""
        return self.connection.request_of(with_path(self._message, self._target))


class SendResponse(Protocol):
    """Sends an answer; `budget` are the lines of its head that tell what is left to spend."""

    def __call__(self, budget: str) -> object:
        """Send it."""


class PreparedResponse(NamedTuple):
    """An answer that has been decided on, and is still to be sent."""

    status: HTTPStatus
    send: SendResponse
