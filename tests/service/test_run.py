from __future__ import annotations

import asyncio
import errno
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import orjson
import pytest

from jobsvc.domain.watch_mode import WatchMode
from jobsvc.settings import Settings
from tests.clients.raw_http import Connection, request
from tests.conftest import MakeJob, MakeToken, Serve, StartProcess
from tests.eventually import until, wait_until
from tests.programs.service_runner import (
    EXIT_TIMEOUT_S,
    Process,
    service_in_loop,
    start_command,
    stop_process,
)

LARGE = 64_000_000
"""Bytes; more than the buffers of any connection hold."""


def sparse(folder: Path, size: int = LARGE) -> None:
    with (folder / "output" / "film.mp4").open("r+b") as file:
        file.truncate(size)


async def start_download(service: Process, link: Connection) -> int:
    """Start the download of job-1, read only its head, and return its Content-Length."""
    link.send(request("GET", "/api/jobs/job-1/download", token=service.token))
    _, status, headers = await link.head()
    assert status == 200
    return int(headers["Content-Length"])


async def ended(process: Popen[bytes], within: float = EXIT_TIMEOUT_S) -> int:
    await until(lambda: process.poll() is not None, within)
    return process.returncode


def refused(service: Process) -> bool:
    """Return whether connections are refused; the kernel may still accept some for a moment after the
    listener closes.
    """
    with socket.socket() as new:
        return new.connect_ex(("127.0.0.1", service.port)) == errno.ECONNREFUSED


@pytest.fixture
def failing(tmp_path: Path, jobs_root: Path, state_dir: Path) -> Callable[..., tuple[int, str]]:
    """Start the service where it cannot start; return its exit code and standard error."""

    def run(*words: object) -> tuple[int, str]:
        stderr = tmp_path / "said"
        process = start_command(stderr, "serve", jobs_root, "--state-dir", state_dir, *words)
        try:
            return process.wait(30), stderr.read_text()
        finally:
            stop_process(process)

    return run


def test_port_in_use_is_a_one_line_error(failing: Callable[..., tuple[int, str]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, stderr = failing("--port", taken.getsockname()[1])
    assert code == 1
    line = orjson.loads(stderr.splitlines()[-1])
    assert line["event"] == "not-started"
    assert "address already in use" in line["reason"]
    assert "use another --port" in line["reason"]
    assert "Traceback" not in stderr


def test_foreign_host_address_is_a_one_line_error(failing: Callable[..., tuple[int, str]]) -> None:
    code, stderr = failing("--port", 0, "--host", "192.0.2.1")
    assert code == 1
    assert orjson.loads(stderr.splitlines()[-1])["event"] == "not-started"
    assert "Traceback" not in stderr


def test_host_name_that_does_not_resolve_is_exit_code_1(
    failing: Callable[..., tuple[int, str]],
) -> None:
    code, stderr = failing("--port", 0, "--host", "render-vip.invalid")
    assert code == 1
    reason = orjson.loads(stderr.splitlines()[-1])["reason"]
    assert reason.startswith("host: the name 'render-vip.invalid' cannot be resolved: ")


def test_invalid_host_name_is_a_configuration_error(failing: Callable[..., tuple[int, str]]) -> None:
    code, stderr = failing("--port", 0, "--host", "a..b")
    assert code == 2
    assert "host: 'a..b' is not a host name" in orjson.loads(stderr.splitlines()[-1])["reason"]
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (b"{", 0o600, "not JSON"),
        (b'{"version": 1, "tokens": [{}]}', 0o600, "tokens[0].created: missing"),
        (b'{"version": 1, "tokens": []}', 0o644, "users other than its owner can read or write it"),
    ],
)
def test_unusable_token_file_prevents_the_start(
    content: bytes, mode: int, reason: str, state_dir: Path, failing: Callable[..., tuple[int, str]]
) -> None:
    (state_dir / "tokens.json").write_bytes(content)
    (state_dir / "tokens.json").chmod(mode)
    code, stderr = failing("--port", 0)
    assert code == 2
    lines = [orjson.loads(line) for line in stderr.splitlines()]
    assert [line["event"] for line in lines] == ["not-started"]
    assert f"{state_dir / 'tokens.json'}: {reason}" in lines[0]["reason"]


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_idle_service_ends_immediately(start_process: StartProcess, number: signal.Signals) -> None:
    service = start_process()
    async with service.connect() as idle:
        assert (await idle.ask("GET", "/healthz")).status == 200
        begin = time.monotonic()
        service.send_signal(number)
        assert await ended(service.process) == 0
        assert time.monotonic() - begin < 2
        assert await idle.ended()
    assert [line["event"] for line in service.lines("stopping")] == ["stopping"]


async def test_download_in_progress_is_finished_within_the_grace_period(
    start_process: StartProcess, make_job: MakeJob
) -> None:
    sparse(make_job(output=b"film"))
    service = start_process("--shutdown-grace", 60)
    async with service.connect() as link:
        promised = await start_download(service, link)
        service.send_signal()
        await until(lambda: service.lines("stopping"))
        await until(lambda: refused(service))
        assert len(await link.read(promised)) == promised
        assert await link.ended()
    assert await ended(service.process) == 0
    assert [line["outcome"] for line in service.downloads()] == ["complete"]


@pytest.mark.alone
@pytest.mark.parametrize("grace", [0, 2])
async def test_download_is_cut_off_and_logged_after_the_grace_period(
    start_process: StartProcess, make_job: MakeJob, grace: float
) -> None:
    sparse(make_job(output=b"film"))
    service = start_process("--shutdown-grace", grace)
    async with service.connect() as link:
        promised = await start_download(service, link)
        begin = time.monotonic()
        service.send_signal()
        assert await ended(service.process, grace + 5) == 0
        assert grace <= time.monotonic() - begin < grace + 1.8
        received = len(await link.read(promised))
        assert received < promised
    [line] = service.downloads()
    assert line["outcome"] == "shutdown"
    assert received <= line["bytesSent"] < promised == line["bytesPromised"]
    assert service.lines("request-failed") == []


async def test_second_signal_is_harmless(start_process: StartProcess, make_job: MakeJob) -> None:
    sparse(make_job(output=b"film"))
    service = start_process("--shutdown-grace", 60)
    async with service.connect() as link:
        promised = await start_download(service, link)
        service.send_signal()
        await until(lambda: service.lines("stopping"))
        service.send_signal()
        assert len(await link.read(promised)) == promised
    assert await ended(service.process) == 0
    assert [line["outcome"] for line in service.downloads()] == ["complete"]


async def test_incomplete_request_does_not_delay_shutdown(
    start_process: StartProcess, make_job: MakeJob
) -> None:
    """Half a request, and a body that is announced and does not arrive."""
    service = start_process("--shutdown-grace", 1)
    async with service.connect() as half, service.connect() as waiting:
        half.send(b"GET /healthz HT")
        waiting.send(b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
        assert (await waiting.answer()).status == 405
        service.send_signal()
        assert await ended(service.process) == 0


async def test_components_start_in_order_and_stop_in_reverse_order(
    serve: Serve, make_job: MakeJob, jobs_root: Path, state_dir: Path, make_token: MakeToken
) -> None:
    """A service may start and end repeatedly in one process; nothing of one remains for the next."""
    make_job(output=b"film")
    token = make_token()
    for round_ in range(1, 4):
        settings = Settings(jobs_root, port=0, state_dir=state_dir, watch=WatchMode.POLL, shutdown_grace=0)
        before = len(asyncio.all_tasks())
        async with service_in_loop(settings, token) as service:
            assert (await service.download("job-1")).body == b"film"
        assert len(asyncio.all_tasks()) == before
        assert len(service.downloads()) == round_


def test_watcher_process_ends_with_the_service(start_process: StartProcess) -> None:
    service = start_process("--watch", "events")
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    wait_until(children.read_text)
    watchers = [Path(f"/proc/{pid}") for pid in children.read_text().split()]
    service.process.kill()
    service.process.wait()
    wait_until(lambda: not any(watcher.exists() for watcher in watchers))
