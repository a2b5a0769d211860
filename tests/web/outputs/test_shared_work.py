"""Work that many requests wait for is done once, but never for a request that came after it started."""

from __future__ import annotations

import asyncio

import pytest

from jobsvc.web.outputs.shared_work import SharedWork


class Work:
    """Counts how often it is done, and how often at once."""

    def __init__(self) -> None:
        self.done = 0
        self.running = 0
        self.most_at_once = 0

    async def __call__(self) -> int:
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        await asyncio.sleep(0.01)
        self.running -= 1
        self.done += 1
        return self.done


async def test_requests_that_wait_share_the_next_result_but_not_the_one_before() -> None:
    shared, work = SharedWork[int](), Work()
    first = asyncio.create_task(shared.run("job-1", "list", work))
    await asyncio.sleep(0)
    others = [asyncio.create_task(shared.run("job-1", "list", work)) for _ in range(50)]
    assert await first == 1
    assert await asyncio.gather(*others) == [2] * 50
    assert (work.done, work.most_at_once) == (2, 1)


async def test_other_work_of_the_job_waits_and_that_of_other_jobs_does_not() -> None:
    shared, work, other_job = SharedWork[int](), Work(), Work()
    kinds = [shared.run("job-1", kind, work) for kind in ("a", "b", "a", "b")]
    await asyncio.gather(*kinds, shared.run("job-2", "a", other_job))
    assert (work.most_at_once, other_job.done) == (1, 1)


async def test_error_and_cancellation_are_those_of_one_request() -> None:
    shared, work = SharedWork[int](), Work()

    async def fail() -> int:
        await asyncio.sleep(0)
        raise OSError("failed")

    failing = asyncio.create_task(shared.run("job-1", "list", fail))
    canceled = asyncio.create_task(shared.run("job-1", "list", work))
    waiting = asyncio.create_task(shared.run("job-1", "list", work))
    with pytest.raises(OSError, match="failed"):
        await failing
    await asyncio.sleep(0)
    canceled.cancel()
    assert await waiting == 1
    assert await shared.run("job-1", "list", work) == 2
