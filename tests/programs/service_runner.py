"""Runs services for a test: the whole application on the test's loop, or `jobsvc serve` as a process.

Both are requested over a real socket. Their log and state directory can be searched afterwards.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin

import orjson

from jobsvc.service import serve
from jobsvc.settings import Settings
from tests.clients.raw_http import Answer, Connection, Fields, connection
from tests.eventually import until, wait_until

PROJECT: Final = Path(__file__).parents[2]
EXIT_TIMEOUT_S: Final = 15.0
"""No test's service should take this long to end."""


@dataclass(frozen=True, slots=True)
class Service:
    """A running service, and the token that requests use by default."""

    port: int
    state_dir: Path
    token: str | None

    def connect(self, *, receive_buffer: int | None = None) -> AbstractAsyncContextManager[Connection]:
        """Open a connection during a block."""
        return connection(self.port, receive_buffer=receive_buffer)

    async def ask(
        self, method: str, target: str, fields: Fields = (), *, token: str | None = "", body: bytes = b""
    ) -> Answer:
        """Send one request over a connection of its own; `token` overrides the default."""
        async with self.connect() as link:
            return await link.ask(
                method, target, fields, token=self.token if token == "" else token, body=body
            )

    async def link(self, job_id: str, *, token: str | None = "", body: bytes = b"") -> str:
        """Create a download link and return its target."""
        route = f"/api/jobs/{job_id}/download-links"
        answer = await self.ask("POST", route, token=token, body=body)
        assert answer.status == 201, answer
        return urljoin(route, str(answer.json()["url"]))

    async def get(self, target: str, *fields: tuple[str, str], token: str | None = "") -> Answer:
        return await self.ask("GET", target, fields, token=token)

    async def download(self, job_id: str, *fields: tuple[str, str], token: str | None = "") -> Answer:
        return await self.get(f"/api/jobs/{job_id}/download", *fields, token=token)

    async def metric(self, name: str) -> float:
        """Read a metric, with labels as they are written: `jobsvc_downloads_total{outcome="complete"}`."""
        lines = (await self.get("/metrics", token=None)).body.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name)

    async def answer_count(self, status: int) -> float:
        """Return the number of responses with a status on all routes: 500 is an internal error."""
        lines = (await self.get("/metrics", token=None)).body.decode().splitlines()
        of_it = (line for line in lines if line.startswith(f'jobsvc_requests_total{{code="{status}",'))
        return sum(float(line.rpartition(" ")[2]) for line in of_it)

    def downloads(self) -> list[dict[str, Any]]:
        """Read the download log."""
        path = self.state_dir / "downloads.jsonl"
        return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    async def wait_for_downloads(self, count: int) -> list[dict[str, Any]]:
        """Wait for this many lines of the download log, and read them."""
        await until(lambda: len(self.downloads()) >= count)
        found = self.downloads()
        assert len(found) == count
        return found


@asynccontextmanager
async def service_in_loop(settings: Settings, token: str | None = None) -> AsyncIterator[Service]:
    """Run the application on this loop until the block ends."""
    stop, address = asyncio.Event(), asyncio.get_running_loop().create_future()
    running = asyncio.ensure_future(serve(settings, ready=address.set_result, stop=stop))
    await asyncio.wait({running, address}, return_when=asyncio.FIRST_COMPLETED)
    if not address.done():
        await running
    try:
        yield Service(_port(address.result()), settings.state_dir, token)
    finally:
        stop.set()
        async with asyncio.timeout(EXIT_TIMEOUT_S + settings.shutdown_grace):
            await running


@dataclass(frozen=True, slots=True)
class Process(Service):
    """`jobsvc serve` as a process; its standard error goes to a file."""

    process: subprocess.Popen[bytes]
    stderr_file: Path

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Read the log lines of one event."""
        return logged(self.stderr_file, event)

    def send_signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = EXIT_TIMEOUT_S) -> int:
        """Wait for its exit and return the exit code; with an event loop, call this in a thread."""
        return self.process.wait(timeout_s)

    def memory(self, field: str) -> int:
        """Read a figure of proc_pid_status(5), in bytes: VmRSS, or VmHWM for the peak."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))

    def descriptor_count(self) -> int:
        """Return the number of open descriptors."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))  # noqa: PTH208 - they go while one looks


def logged(stderr_file: Path, event: str) -> list[dict[str, Any]]:
    """Read the log lines of one event."""
    lines = (orjson.loads(line) for line in stderr_file.read_bytes().splitlines())
    return [line for line in lines if line["event"] == event]


def start_command(
    stderr_file: Path, *arguments: object, module: str = "jobsvc", **variables: str
) -> subprocess.Popen[bytes]:
    """Start the real command; standard error goes to a file. `module` is what Python runs."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("JOBSVC_", "XDG_"))
    }
    with stderr_file.open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=PROJECT,
            env={**environment, "HOME": str(stderr_file.parent), **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )


def start_service_process(
    arguments: tuple[object, ...],
    state_dir: Path,
    stderr_file: Path,
    token: str | None,
    *,
    module: str = "jobsvc",
) -> Process:
    """Start `jobsvc serve` with these arguments, and wait until it accepts connections."""
    process = start_command(
        stderr_file, "serve", *arguments, "--port", "0", "--state-dir", state_dir, module=module
    )
    try:
        wait_until(lambda: b'"serving"' in stderr_file.read_bytes() or process.poll() is not None, 30)
        serving = [line for line in stderr_file.read_bytes().splitlines() if b'"serving"' in line]
        assert serving, f"it ended with {process.returncode}:\n{stderr_file.read_text()}"
    except BaseException:
        stop_process(process)
        raise
    return Process(_port(orjson.loads(serving[0])["address"]), state_dir, token, process, stderr_file)


def stop_process(process: subprocess.Popen[bytes]) -> None:
    """Stop a process, by force if necessary; its coverage is only saved if it ends by itself."""
    process.terminate()
    try:
        process.wait(EXIT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
