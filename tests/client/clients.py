"""Client with the interface of AsyncClient, so that the same test runs with both; a service that is ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

from jobsvc.client import Client
from tests.eventually import pause
from tests.programs.service_runner import Service

ITERATED: Final = frozenset({"jobs", "watch", "log", "files", "sync"})
"""Methods that return an iterator."""
_END: Final = object()


class ThreadedClient:
    """Calls the methods of a Client in threads."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._client = Client(*arguments, **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if name in ITERATED:
                return _iterate(method(*arguments, **options))
            return asyncio.to_thread(method, *arguments, **options)

        return call


async def _iterate(items: Iterator[Any]) -> AsyncGenerator[Any, None]:
    try:
        while (item := await asyncio.to_thread(next, items, _END)) is not _END:
            yield item
    finally:
        items.close()  # type: ignore[attr-defined] # they are generators


async def wait_until_ready(service: Service) -> None:
    """Wait until the service lists jobs: before, clients wait for seconds between their attempts."""
    while (await service.get("/readyz", token=None)).status != 200:
        await pause()
