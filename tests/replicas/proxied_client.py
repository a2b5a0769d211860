"""A client behind a proxy: keeps its connection, and distinguishes responses from what the proxy loses."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from tests.clients.raw_http import Answer, Connection, Fields, IncompleteAnswer, request
from tests.replicas.group import ProxiedService
from tests.replicas.report import Report

TIMEOUT_S: Final = 30.0
FROM_PROXY: Final = frozenset({502, 503, 504})
"""Sent while the replica that a request was for is dead."""


@dataclass
class ProxiedClient:
    """Sends one request after the other over a connection that it opens again when it has to."""

    service: ProxiedService
    report: Report
    name: str
    """Of what is counted in the report."""
    _connection: Connection | None = field(default=None, init=False)

    async def get(self, target: str, fields: Fields = ()) -> Answer | None:
        """Send a request; None if the connection was lost, or the proxy had no replica for it."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self._exchange(request("GET", target, fields, token=self.service.token))
        except TimeoutError:
            self.report.fault(f"{self.name}: no response within {TIMEOUT_S:g} s", target)
            self.close()
            return None
        except (OSError, IncompleteAnswer):
            self.report.count(f"{self.name}: connections lost")
            self.close()
            return None
        self.report.count(f"{self.name}: {answer.status}")
        if answer.status in FROM_PROXY:
            if answer.headers.get("Content-Type") == "application/problem+json":
                self.report.count(f"{self.name}: {answer.code} of a replica")
            return None
        return answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection.writer.transport.abort()
            self._connection = None

    async def _exchange(self, data: bytes) -> Answer:
        if self._connection is None:
            self._connection = await Connection.open(self.service.port, tls=self.service.tls)
        self._connection.send(data)
        version, status, headers = await self._connection.head()
        length = headers.get("Content-Length")
        if status in {204, 304}:
            body = b""
        elif length is None:  # an error of HAProxy, which ends with the connection
            body = await self._connection.read(1 << 20)
        else:
            body = await self._connection.read(int(length))
            if len(body) < int(length):
                raise IncompleteAnswer(Answer(version, status, headers, body))
        if (length is None and status not in {204, 304}) or headers.get("Connection", "").lower() == "close":
            self.close()
        return Answer(version, status, headers, body)
