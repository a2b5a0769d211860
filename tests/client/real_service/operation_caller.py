"""Runs operations over HttpTransport against a running service."""

from __future__ import annotations

import asyncio
from typing import Any

from jobsvc.client.connection_settings import ConnectionSettings
from jobsvc.client.protocol.steps import Operation
from jobsvc.client.transport.driver import iterate, run
from jobsvc.client.transport.http_transport import HttpTransport
from tests.eventually import pause
from tests.programs.service_runner import Service


class Caller:
    """Runs operations in threads, as the blocking client does."""

    def __init__(self, service: Service, port: int | None = None, token: str | None = None) -> None:
        settings = ConnectionSettings(
            f"http://127.0.0.1:{port or service.port}", token or service.token or "", timeout=20
        )
        self.transport = HttpTransport(settings)

    async def run(self, operation: Operation[Any]) -> Any:
        return await asyncio.to_thread(run, operation, self.transport)

    async def all(self, operation: Operation[None]) -> list[Any]:
        return await asyncio.to_thread(lambda: list(iterate(operation, self.transport)))

    def start(
        self, operation: Operation[None], items: list[Any], count: int | None = None
    ) -> asyncio.Task[None]:
        """Collect what is emitted, until the end or until there are `count` items."""

        def collect() -> None:
            for item in iterate(operation, self.transport):
                items.append(item)
                if len(items) == count:
                    return

        return asyncio.ensure_future(asyncio.to_thread(collect))


async def read_completely(service: Service) -> None:
    """Wait until the service has read every job: until then it lists none."""
    while (await service.get("/readyz", token=None)).status != 200:
        await pause()
