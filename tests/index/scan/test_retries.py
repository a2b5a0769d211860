from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from jobsvc.index.scan import retries as module
from jobsvc.index.scan.retries import Retries
from tests.eventually import until

JOBS = [f"job-{number}" for number in range(100)]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_DELAY_S", 0.05)


class RetryLog:
    """Records which jobs are retried, and how many seconds after the start."""

    def __init__(self) -> None:
        self._begun = asyncio.get_running_loop().time()
        self.jobs: list[str] = []
        self.after = 0.0

    def __call__(self, job_ids: Iterable[str]) -> None:
        self.jobs += job_ids
        self.after = asyncio.get_running_loop().time() - self._begun


async def test_job_is_retried_once_however_many_errors_occurred_meanwhile() -> None:
    looked = RetryLog()
    retries = Retries(looked)
    for _ in range(10):
        retries.failed(["job-1", "job-2"])
    retries.failed(["job-3"])
    await until(lambda: len(looked.jobs) >= 3)
    assert sorted(looked.jobs) == ["job-1", "job-2", "job-3"]
    retries.failed(["job-1"])
    await until(lambda: looked.jobs[3:] == ["job-1"])


async def test_many_jobs_are_retried_less_often() -> None:
    looked = RetryLog()
    retries = Retries(looked)
    retries.failed(JOBS)
    await until(lambda: len(looked.jobs) == len(JOBS))
    assert looked.after >= len(JOBS) / module.MAX_RETRIES_PER_S
    looked = RetryLog()
    retries = Retries(looked)
    retries.failed(JOBS)
    retries.succeeded(JOBS[1:])
    retries.failed(["another"])
    await until(lambda: len(looked.jobs) > len(JOBS))
    assert looked.jobs[0] == "another"
