"""The whole service on a thread of its own, and a blocking client for it, for step-by-step tests."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson

from jobsvc.domain.access import ADMIN, JOBS_READ, OUTPUTS_READ
from jobsvc.service import serve
from jobsvc.settings import Settings
from jobsvc.storage.state import token_file
from tests.eventually import wait_until

UNLIMITED: Final = "100000000/minute"
NO_CACHE: Final = {"Cache-Control": "no-cache"}
SCOPES: Final = (JOBS_READ, OUTPUTS_READ)


class ServiceThread:
    """A service over some jobs, requested over a socket, with a token for each owner."""

    def __init__(self, jobs_root: Path, state_dir: Path, owners: tuple[str, ...], **settings: Any) -> None:
        file = state_dir / "tokens.json"
        self._tokens: dict[str | None, str] = {None: token_file.create(file, "all", (*SCOPES, ADMIN))[0]}
        self._tokens |= {owner: token_file.create(file, owner, SCOPES)[0] for owner in owners}
        self._loop = asyncio.new_event_loop()
        self._thread = ThreadPoolExecutor(1)
        self._thread.submit(self._loop.run_forever)
        self._stop, address = asyncio.Event(), Future[str]()
        limits: dict[str, Any] = dict.fromkeys(("limit_status", "limit_download"), UNLIMITED)
        ready = Settings(jobs_root, state_dir=state_dir, port=0, shutdown_grace=0.1, **limits, **settings)
        served = serve(ready, ready=address.set_result, stop=self._stop)
        self._serving = asyncio.run_coroutine_threadsafe(served, self._loop)
        host = address.result(20).rpartition("/")[2]
        self.port = int(host.rpartition(":")[2])
        self._client = http.client.HTTPConnection(host, timeout=20)
        wait_until(lambda: self.not_ready_reason() is None, 20)

    def close(self) -> None:
        """Stop the service and close everything."""
        self._client.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._serving.result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.shutdown()
        self._loop.close()

    def token(self, owner: str | None) -> str:
        """Return an owner's token; None for that of an administrator."""
        return self._tokens[owner]

    def get(
        self, path: str, owner: str | None = None, fields: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any], str]:
        """Send a GET; return the status, the JSON document and Cache-Status."""
        self._client.request(
            "GET", path, headers={**(fields or {}), "Authorization": f"Bearer {self._tokens[owner]}"}
        )
        answer = self._client.getresponse()
        body = answer.read()
        json = "json" in (answer.headers["Content-Type"] or "")
        return answer.status, orjson.loads(body) if json else {}, answer.headers.get("Cache-Status", "")

    def not_ready_reason(self) -> str | None:
        """Return why the service is not ready, None if it is."""
        status, problem, _ = self.get("/readyz")
        return None if status == 200 else str(problem["detail"])

    def metric(self, name: str) -> float:
        """Read a metric's value."""
        self._client.request("GET", "/metrics")
        lines = self._client.getresponse().read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name)

    def signal_watcher(self, number: signal.Signals) -> None:
        """Send a signal to the watcher process, if one is running."""
        for child in _children():
            with suppress(OSError):
                if b"jobsvc.index.watch.watcher_process" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(child, number)


def _children() -> list[int]:
    text = ""
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            text += path.read_text()
    return [int(child) for child in text.split()]
