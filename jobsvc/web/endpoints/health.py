"""Liveness, readiness and metrics, for operators. No token needed; no data about single jobs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from aiohttp import web

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.observe.metrics import Metrics
from jobsvc.shared_state.connection import SharedStateConnection
from jobsvc.storage.executor import StorageExecutor


class HealthEndpoints:
    """Handlers of `/healthz`, `/readyz` and `/metrics`."""

    def __init__(
        self,
        metrics: Metrics,
        disk: StorageExecutor,
        unready: Callable[[], str | None],
        shared_state: SharedStateConnection | None,
    ) -> None:
        """`unready` returns why the service is not ready, or None if it is."""
        self._shared_state = shared_state
        self._disk = disk
        self._metrics = metrics
        self._unready = unready

    async def live(self, _request: web.Request) -> web.Response:
        """`GET /healthz`: return 200 as long as the event loop runs."""
        return web.Response(text="ok\n", headers={"Cache-Control": "no-store"})

    async def ready(self, _request: web.Request) -> web.Response:
        """`GET /readyz`: return 200, or 503 with the reason.

        The body has a line about Redis, without which the service is ready too: it then counts for itself.
        """
        if reason := self._unready():
            raise StorageUnavailable(reason, retry_after=1)
        text = "ready\n"
        if self._shared_state is not None:
            text += f"shared state: {'up' if self._shared_state.is_up else 'down'}\n"
        return web.Response(text=text, headers={"Cache-Control": "no-store"})

    async def metrics(self, _request: web.Request) -> web.Response:
        """`GET /metrics`: return the metrics in the Prometheus text format."""
        with suppress(StorageUnavailable):  # the process figures are then those of the previous request
            await self._disk.run_control("process", self._metrics.process.read)
        body, content_type = self._metrics.exposition()
        return web.Response(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})
