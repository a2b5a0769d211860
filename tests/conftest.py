"""Shared fixtures: blocking-call detection, writing jobs as a farm does, and running services."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import hypothesis
import orjson
import pytest
from coverage import Coverage

from jobsvc.domain.access import JOBS_READ, OUTPUTS_READ
from jobsvc.settings import Settings
from jobsvc.storage.files import file_version
from jobsvc.storage.nonblocking import descriptor_cache
from jobsvc.storage.processes import record_process
from jobsvc.storage.state import token_file
from tests.checks.blocking_calls import BlockingCallDetector
from tests.checks.coverage_scope import CoverageScope
from tests.programs.service_runner import (
    Process,
    Service,
    service_in_loop,
    start_service_process,
    stop_process,
)

SERVICES: Final = frozenset({"serve", "start_process"})
"""The fixtures that start the service."""
LoopFactory: TypeAlias = Callable[[], asyncio.AbstractEventLoop]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_loops: run an async test on asyncio and on uvloop")
    config.addinivalue_line("markers", "alone: nothing else runs meanwhile, because it would be slowed down")
    config.addinivalue_line("markers", "service: the test starts the service (set for each that does)")
    # Hypothesis fails an example for its time alone, and a machine may be busy with other things.
    hypothesis.settings.register_profile("patient", deadline=None)
    hypothesis.settings.load_profile("patient")
    if (coverage := Coverage.current()) is not None:
        config.pluginmanager.register(CoverageScope(coverage))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell lets programs in the background ignore SIGINT, and so would those that tests interrupt.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()  # until all tests are collected


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not SERVICES.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("service")


def pytest_collection_finish() -> None:
    gc.freeze()  # collected tests stay until the end: searching them for garbage is a tenth of the time
    gc.enable()


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, LoopFactory]:
    factories: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    if item.get_closest_marker("both_loops") and find_spec("uvloop"):
        factories["uvloop"] = import_module("uvloop").new_event_loop
    return factories


@pytest.fixture(autouse=True)
def blocking_call_detector() -> Iterator[BlockingCallDetector]:
    """Fail a test in which the service or aiohttp touches storage on a thread that runs an event loop."""
    with BlockingCallDetector() as detector:
        yield detector
    assert not detector.blocking_calls, "\n".join(detector.blocking_calls)


class MakeJob(Protocol):
    """Writes a job as a farm does."""

    def __call__(
        self, job_id: str = "job-1", *, output: bytes | None = None, log: bytes | None = None, **record: Any
    ) -> Path:
        """Write or replace a job and return its folder; `record` are further fields of status.json.

        With `output` the job is completed, and the bytes are where outputPath says (output/film.mp4).
        """


@pytest.fixture
def treat_new_files_as_stable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat files that were just written as stable."""
    monkeypatch.setattr(file_version, "TIMESTAMP_GRANULARITY_NS", 0)
    monkeypatch.setattr(descriptor_cache, "TIMESTAMP_GRANULARITY_NS", 0)


@pytest.fixture
def jobs_root(tmp_path: Path) -> Path:
    root = tmp_path / "jobs"
    root.mkdir()
    return root


@pytest.fixture
def make_job(jobs_root: Path) -> MakeJob:
    return job_maker(jobs_root)


def job_maker(root: Path) -> MakeJob:
    """Write jobs beneath a root."""

    def make(
        job_id: str = "job-1", *, output: bytes | None = None, log: bytes | None = None, **record: Any
    ) -> Path:
        folder = root / job_id
        folder.mkdir(exist_ok=True)
        if output is not None:
            record = {"status": "completed", "outputPath": "output/film.mp4", **record}
            put(folder / record["outputPath"], output)
        if log is not None:
            put(folder / record.get("logPath", "render.log"), log)
        put(folder / "status.json", orjson.dumps({"status": "queued", "owner": "anna", **record}))
        return folder

    return make


def put(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and rename it, as a farm should."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:200]}.new")
    temporary.write_bytes(data)
    os.replace(temporary, path)  # noqa: PTH105 - os.replace may be watched by the very test that calls this


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    return folder


class MakeToken(Protocol):
    """Makes a token and returns its secret."""

    def __call__(
        self,
        owner: str = "anna",
        scopes: Iterable[str] = (JOBS_READ, OUTPUTS_READ),
        expires: float | None = None,
    ) -> str:
        """`expires` in seconds since the epoch."""


@pytest.fixture
def make_token(state_dir: Path) -> MakeToken:
    def make(
        owner: str = "anna",
        scopes: Iterable[str] = (JOBS_READ, OUTPUTS_READ),
        expires: float | None = None,
    ) -> str:
        return token_file.create(state_dir / "tokens.json", owner, scopes, expires)[0]

    return make


class Serve(Protocol):
    """Starts the service on the test's loop; it ends with the test."""

    async def __call__(self, **settings: Any) -> Service:
        """`settings` are attributes of Settings; a token of anna's is made beforehand."""


@pytest.fixture
async def serve(
    jobs_root: Path, state_dir: Path, make_token: MakeToken, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Serve]:
    # The process that splits large records may start slowly on a busy machine.
    monkeypatch.setattr(record_process, "LOCK_TIMEOUT_S", 20.0)
    async with AsyncExitStack() as services:

        async def start(**settings: Any) -> Service:
            # Polling costs a test nothing, a watcher costs a process; tests that need events request them.
            chosen: dict[str, Any] = {"port": 0, "watch": "poll", "shutdown_grace": 0.5}
            # Tests that repeat requests until a condition holds are not about limits.
            chosen |= dict.fromkeys(
                ("limit_status", "limit_list", "limit_events", "limit_logs", "limit_download"),
                "1000000/minute",
            )
            chosen |= settings
            ready = Settings(jobs_root, state_dir=state_dir, **chosen)
            return await services.enter_async_context(service_in_loop(ready, make_token()))

        yield start


class StartProcess(Protocol):
    """Starts `jobsvc serve` as a process; it ends with the test."""

    def __call__(self, *words: object, module: str = "jobsvc") -> Process:
        """`words` come after the jobs root on the command line; `module` is what Python runs."""


@pytest.fixture
def start_process(
    tmp_path: Path, jobs_root: Path, state_dir: Path, make_token: MakeToken
) -> Iterator[StartProcess]:
    with ExitStack() as processes:

        def start(*words: object, module: str = "jobsvc") -> Process:
            stderr_file = tmp_path / f"said-{len(list(tmp_path.glob('said-*')))}"
            started = start_service_process(
                (jobs_root, *words), state_dir, stderr_file, make_token(), module=module
            )
            processes.callback(stop_process, started.process)
            return started

        yield start
