"""Send requests over http.client, with idle connections kept for the next request."""

from __future__ import annotations

from jobsvc.client.connection_settings import ConnectionSettings
from jobsvc.client.protocol.steps import Request, Response
from jobsvc.client.transport.driver import BodyStream


class HttpTransport:
    """A Transport for any number of threads."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings

    def send(self, request: Request) -> Response:
        """Send a request and read the response. Raises ConnectionFailed."""
        raise NotImplementedError

    def open(self, request: Request) -> BodyStream:
        """Send a request and read the head of the response. Raises ConnectionFailed."""
        raise NotImplementedError

    def close(self) -> None:
        """Close idle connections."""
        raise NotImplementedError
