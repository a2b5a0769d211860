"""Digests of outputs whose storage hangs delay neither other requests nor shutdown."""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64encode
from functools import partial

import pytest

from jobsvc.index.digests import digest_service, recent_failures
from jobsvc.storage import executor
from tests.checks.open_fds import open_paths
from tests.conftest import MakeJob, Serve, StartProcess
from tests.programs.service_runner import EXIT_TIMEOUT_S, Service
from tests.slow_storage.fuse_mount import FOREVER_S, FaultyStorage
from tests.slow_storage.pending_downloads import FILM, OUTPUT, download_path, wait_for_answer

WANT = ("Want-Repr-Digest", "sha-256=1")
ASK_THE_DISK = ("Cache-Control", "no-cache")
SHUTDOWN_GRACE = 1.0
"""Seconds."""


async def request_digest(service: Service, job_id: str) -> str | None:
    """Request the digest of an output, and no byte of the output itself."""
    answer = await service.ask("HEAD", download_path(job_id), [WANT])
    assert answer.status == 200
    return answer.headers.get("Repr-Digest")


async def assert_others_are_served(service: Service, *hung: str) -> None:
    """Check the states of the hanging jobs too: only their reads hang."""
    for job_id in ("good", *hung):
        assert (await service.get(f"/api/jobs/{job_id}", ASK_THE_DISK)).status == 200
    assert (await service.download("good", WANT)).body == FILM


async def stuck(service: Service) -> float:
    return await service.metric("jobsvc_storage_threads_stuck")


def test_hanging_hash_delays_neither_downloads_nor_states_nor_shutdown(
    make_job: MakeJob, storage: FaultyStorage, start_process: StartProcess
) -> None:
    """In a separate process: at its exit Python waits for every non-daemon thread."""
    for job_id in ("good", "hung"):
        make_job(job_id, output=FILM)
    storage.add_fault(f"hung/{OUTPUT}", "read", seconds=FOREVER_S)
    service = start_process("--shutdown-grace", SHUTDOWN_GRACE)

    async def ask() -> None:
        assert await request_digest(service, "hung") is None
        await wait_for_answer(lambda: stuck(service), 1)
        for _ in range(10):
            await assert_others_are_served(service, "hung")
        assert await stuck(service) == 1
        assert await service.metric("jobsvc_digests_waiting") == 2, (
            "its own digest and that of the served file"
        )

    try:
        asyncio.run(ask())
        service.send_signal()
        assert service.wait(SHUTDOWN_GRACE + EXIT_TIMEOUT_S) == 0
    finally:
        storage.clear_faults()
    assert {line["outcome"] for line in service.downloads()} == {"complete"}


@pytest.mark.both_loops
async def test_hashing_continues_after_all_its_threads_were_stuck(
    make_job: MakeJob, storage: FaultyStorage, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_service, "TIMESTAMP_GRANULARITY_NS", 0)
    monkeypatch.setattr(recent_failures, "RETRY_AFTER_S", 0.0)
    monkeypatch.setattr(
        "jobsvc.service.components.StorageExecutor",
        partial(executor.StorageExecutor, background_deadline=0.2),
    )
    hung = [make_job(f"hung-{number}", output=FILM).name for number in range(executor.BACKGROUND_THREADS)]
    make_job("good", output=FILM)
    service = await serve()
    for job_id in hung:
        storage.add_fault(f"{job_id}/{OUTPUT}", "read", seconds=FOREVER_S)

    async def number_stuck() -> float:
        # On a busy machine a digest can fail before its read hangs; then it has to be requested again.
        for job_id in hung:
            await request_digest(service, job_id)
        return await stuck(service)

    await wait_for_answer(number_stuck, executor.BACKGROUND_THREADS)
    await assert_others_are_served(service, *hung)
    storage.clear_faults()
    digest = f"sha-256=:{b64encode(hashlib.sha256(FILM).digest()).decode()}:"
    for job_id in ("good", *hung):
        await wait_for_answer(partial(request_digest, service, job_id), digest)
    await wait_for_answer(lambda: asyncio.to_thread(open_paths, storage.mountpoint), [])
