"""Liveness, readiness and metrics, for operators. No token needed; no data about single jobs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from aiohttp import web

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.observe.metrics import Metrics
from jobsvc.storage.executor import StorageExecutor


class HealthEndpoints:
    """Handlers of `/healthz`, `/readyz` and `/metrics`."""

    def __init__(self, metrics: Metrics, disk: StorageExecutor, unready: Callable[[], str | None]) -> None:
        """`unready` returns why the service is not ready, or None if it is."""
        self._disk = disk
        self._metrics = metrics
        self._unready = unready

    async def live(self, _request: web.Request) -> web.Response:
        """`GET /healthz`: return 200 as long as the event loop runs."""
        return web.Response(text="ok\n", headers={"Cache-Control": "no-store"})

    async def ready(self, _request: web.Request) -> web.Response:
        """`GET /readyz`: return 200, or 503 with the reason."""
        if reason := self._unready():
            raise StorageUnavailable(reason, retry_after=1)
        return web.Response(text="ready\n", headers={"Cache-Control": "no-store"})

    async def metrics(self, _request: web.Request) -> web.Response:
        """`GET /metrics`: return the metrics in the Prometheus text format."""
        with suppress(StorageUnavailable):  # the process figures are then those of the previous request
            await self._disk.run_control("process", self._metrics.process.read)
        body, content_type = self._metrics.exposition()
        return web.Response(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})
