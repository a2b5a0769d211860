"""ThreadPool on both event loops: deadlines, limits per key, full pools, and what closes results that nobody
waits for.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.storage.threads.thread_pool import ThreadPool, expire
from tests.eventually import until, wait_until

pytestmark = pytest.mark.both_loops


class Thing:
    """A resource that records how often it was closed, by which thread, and whether it was in use."""

    def __init__(self) -> None:
        self.closed = 0
        self.in_use = False
        self.closed_in_use = False
        self.closed_by: threading.Thread | None = None

    def close(self) -> None:
        self.closed += 1
        self.closed_in_use |= self.in_use
        self.closed_by = threading.current_thread()


class Work:
    """A call that runs until it is released."""

    def __init__(self, result: object = None, resource: Thing | None = None) -> None:
        self.started = threading.Event()
        self.release = threading.Event()
        self.result = result
        self.resource = resource or Thing()

    def __call__(self) -> object:
        self.resource.in_use = True
        self.started.set()
        self.release.wait(10)
        self.resource.in_use = False
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


class Pools:
    """Creates pools and calls, and releases everything at the end."""

    def __init__(self) -> None:
        self.pools: list[ThreadPool] = []
        self.works: list[Work] = []

    def pool(self, **options: Any) -> ThreadPool:
        self.pools.append(ThreadPool(f"test{id(self)}", **options))
        return self.pools[-1]

    def work(self, result: object = None, resource: Thing | None = None) -> Work:
        self.works.append(Work(result, resource))
        return self.works[-1]

    def threads(self) -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if f"test{id(self)}-" in thread.name]

    def leave(self) -> None:
        for work in self.works:
            work.release.set()
        for pool in self.pools:
            pool.close()
        wait_until(lambda: not self.threads())


@pytest.fixture
def pools() -> Iterator[Pools]:
    pools = Pools()
    yield pools
    pools.leave()


def nothing() -> None:
    """Return immediately."""


async def begin(pool: ThreadPool, key: str, work: Work, **options: Any) -> asyncio.Task[object]:
    """Start a call and wait until a thread runs it."""
    task = asyncio.ensure_future(pool.run(key, work, **options))
    await until(work.started.is_set)
    return task


async def give_up(pool: ThreadPool, work: Work, resource: Thing | None = None) -> None:
    """Start a call, and let its deadline pass while a thread runs it."""
    task = await begin(pool, "a", work, resource=resource)
    (call,) = pool._in_flight
    expire(call.future)
    with pytest.raises(StorageUnavailable):
        await task


async def ended(task: asyncio.Task[Any]) -> None:
    await asyncio.wait([task])


# Results ---------------------------------------------------------------------------------------------


async def test_call_runs_in_a_thread_and_returns_its_result(pools: Pools) -> None:
    pool = pools.pool()
    assert await pool.run("a", threading.current_thread) is not threading.current_thread()
    assert await pool.run("a", lambda: 5) == 5


@pytest.mark.parametrize(
    "error", [OSError(5, "broken"), ValueError("odd"), StorageUnavailable(), SystemExit(3)]
)
async def test_exception_of_a_call_is_raised(pools: Pools, error: BaseException) -> None:
    work, resource = pools.work(error), Thing()
    work.release.set()
    with pytest.raises(type(error)) as raised:
        await pools.pool().run("a", work, resource=resource)
    assert raised.value is error
    await until(lambda: resource.closed == 1)


async def test_result_and_resource_belong_to_the_caller_when_the_call_returns(pools: Pools) -> None:
    result, resource = Thing(), Thing()
    pool = pools.pool()
    assert await pool.run("a", lambda: result, resource=resource) is result
    await pool.run("b", nothing)
    assert (result.closed, resource.closed) == (0, 0)


async def test_result_is_not_kept_alive(pools: Pools) -> None:
    pool = pools.pool(threads=1)

    class Big:
        pass

    kept = weakref.ref(await pool.run("a", Big))
    await asyncio.sleep(0)
    gc.collect()
    await until(lambda: kept() is None)
    assert not pool._running_by_key
    assert not pool._waiting_by_key
    assert not pool._in_flight


# Deadlines -------------------------------------------------------------------------------------------


@pytest.mark.alone
async def test_hanging_call_is_abandoned_at_the_deadline(pools: Pools) -> None:
    pool, work = pools.pool(deadline=0.05), pools.work()
    started_at = time.monotonic()
    with pytest.raises(StorageUnavailable, match="did not respond in time"):
        await pool.run("a", work)
    assert 0.04 < time.monotonic() - started_at < 1


async def test_call_may_have_its_own_deadline(pools: Pools) -> None:
    pool = pools.pool(deadline=30)
    with pytest.raises(StorageUnavailable):
        await pool.run("a", pools.work(), deadline=0.05)
    task = await begin(pools.pool(deadline=0.05), "a", patient := pools.work(7), deadline=30)
    await asyncio.wait([task], timeout=0.1)
    patient.release.set()
    assert await task == 7


async def test_result_at_the_moment_of_the_deadline_counts(pools: Pools) -> None:
    pool = pools.pool()
    finish = pool._deliver

    def finish_and_expire(call: Any, *args: Any) -> None:
        finish(call, *args)
        expire(call.future)

    pool._deliver = finish_and_expire  # type: ignore[assignment, method-assign] # otherwise the race would be hit by chance only
    assert await pool.run("a", lambda: 5) == 5


async def test_time_in_the_queue_counts_against_the_deadline(pools: Pools) -> None:
    pool = pools.pool(max_per_key=1)
    await begin(pool, "a", pools.work())
    waiting = pools.work()
    with pytest.raises(StorageUnavailable):
        await pool.run("a", waiting, deadline=0.05)
    assert not waiting.started.is_set()


async def test_call_abandoned_in_the_queue_is_not_started(pools: Pools) -> None:
    pool, first, second, third = (
        pools.pool(threads=1, max_per_key=1),
        pools.work(),
        pools.work(),
        pools.work(),
    )
    await begin(pool, "a", first)
    with pytest.raises(StorageUnavailable):
        await pool.run("b", second, deadline=0.02)
    first.release.set()
    await begin(pool, "c", third)
    assert not second.started.is_set()


# Limits per key ------------------------------------------------------------------------------------


async def test_fourth_call_of_a_key_waits_and_other_keys_do_not(pools: Pools) -> None:
    pool = pools.pool()
    works = [pools.work(number) for number in range(6)]
    tasks = [await begin(pool, "slow", work) for work in works[:3]]
    tasks += [asyncio.ensure_future(pool.run("slow", work)) for work in works[3:]]
    for key in "abc":
        assert await pool.run(key, lambda: "quick") == "quick"
    assert [work.started.is_set() for work in works] == [True] * 3 + [False] * 3
    works[1].release.set()
    await until(works[3].started.is_set)
    assert not works[4].started.is_set()
    for work in works:
        work.release.set()
    assert await asyncio.gather(*tasks) == [0, 1, 2, 3, 4, 5]
    assert not pool._running_by_key
    assert not pool._waiting_by_key


async def test_queue_skips_abandoned_calls(pools: Pools) -> None:
    pool, holder, last = pools.pool(max_per_key=1), pools.work(), pools.work("last")
    task = await begin(pool, "a", holder)
    leaving = [asyncio.ensure_future(pool.run("a", pools.work())) for _ in range(3)]
    staying = asyncio.ensure_future(pool.run("a", last))
    await asyncio.sleep(0)
    leaving[1].cancel()
    await ended(leaving[1])
    # These are cancelled in the same loop iteration in which the thread finishes.
    finish = pool._deliver

    def leave_and_finish(*args: Any) -> None:
        for other in (leaving[0], leaving[2]):
            other.cancel()
        finish(*args)

    pool._deliver = leave_and_finish  # type: ignore[assignment, method-assign] # otherwise the race would be hit by chance only
    holder.release.set()
    last.release.set()
    await task
    assert await staying == "last"
    assert all(other.cancelled() for other in leaving)
    assert not pool._waiting_by_key


async def test_queue_of_abandoned_calls_holds_nothing(pools: Pools) -> None:
    """A job may hang for days, and its clients retry every few seconds."""
    pool = pools.pool(max_per_key=1)
    await begin(pool, "hung", pools.work())
    resource = [Thing() for _ in range(20)]
    waiting = [
        asyncio.ensure_future(pool.run("hung", nothing, resource=thing, deadline=0.02)) for thing in resource
    ]
    await asyncio.sleep(0)
    waiting[7].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert not pool._waiting_by_key
    await until(lambda: {thing.closed for thing in resource} == {1})


# A full pool ----------------------------------------------------------------------------------------


async def full_house(pools: Pools, **options: Any) -> tuple[ThreadPool, list[Work]]:
    pool = pools.pool(threads=3, stuck_after=30, **options)
    works = [pools.work() for _ in range(3)]
    for number, work in enumerate(works):
        await begin(pool, f"hung {number}", work)
    assert pool.stuck_threads() == 0
    pool._stuck_after = 0.05
    await until(lambda: pool.stuck_threads() == 3)
    return pool, works


@pytest.mark.alone
async def test_pool_full_of_stuck_threads_refuses_immediately_and_recovers(pools: Pools) -> None:
    pool, works = await full_house(pools)
    started_at = time.monotonic()
    for _ in range(100):
        with pytest.raises(StorageUnavailable, match="all storage threads are blocked") as refused:
            await pool.run("other", nothing)
        assert refused.value.retry_after
    assert time.monotonic() - started_at < 0.5
    works[0].release.set()
    await until(lambda: pool.stuck_threads() == 2)
    assert await pool.run("other", lambda: 1) == 1


async def test_new_calls_wait_while_the_pool_is_only_busy(pools: Pools) -> None:
    pool, works = pools.pool(threads=2, stuck_after=30), [pools.work() for _ in range(2)]
    for number, work in enumerate(works):
        await begin(pool, f"busy {number}", work)
    new_call = asyncio.ensure_future(pool.run("other", lambda: 1))
    await asyncio.wait([new_call], timeout=0.02)
    assert not new_call.done()
    works[0].release.set()
    assert await new_call == 1


async def test_resource_of_a_refused_call_is_closed_while_every_thread_hangs(pools: Pools) -> None:
    """Otherwise each refused download would hold its file and connection for as long."""
    pool, _ = await full_house(pools)
    resource = [Thing() for _ in range(10)]
    for thing in resource:
        with pytest.raises(StorageUnavailable):
            await pool.run("other", nothing, resource=thing)
    await until(lambda: [thing.closed for thing in resource] == [1] * 10)
    assert not any(thing.closed_by is threading.main_thread() for thing in resource)


async def test_threads_are_started_only_if_the_others_block(pools: Pools) -> None:
    pool = pools.pool(threads=8)
    for _ in range(200):
        await pool.run("a", nothing)
    assert len(pools.threads()) <= 2
    works = [pools.work() for _ in range(8)]
    blocked = [asyncio.ensure_future(pool.run(str(number), work)) for number, work in enumerate(works)]
    await until(lambda: all(work.started.is_set() for work in works))
    assert len(pools.threads()) == 8
    new_calls = [asyncio.ensure_future(pool.run(f"more {number}", nothing)) for number in range(20)]
    await asyncio.wait(new_calls, timeout=0.05)
    assert len(pools.threads()) == 8
    for work in works:
        work.release.set()
    await asyncio.gather(*new_calls, *blocked)
    assert all(thread.daemon for thread in pools.threads())


async def test_pool_of_one_thread_does_not_grow(pools: Pools) -> None:
    pool, first = pools.pool(threads=1), pools.work()
    task = await begin(pool, "a", first)
    second = asyncio.ensure_future(pool.run("b", lambda: 2))
    await asyncio.wait([second], timeout=0.05)
    assert len(pools.threads()) == 1
    first.release.set()
    assert (await task, await second) == (None, 2)


async def test_thread_that_cannot_start_is_tried_again(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in: no limit on threads binds root."""
    pool = pools.pool()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(StorageUnavailable):
            await pool.run("a", nothing, deadline=0.05)
    assert await pool.run("a", lambda: 1) == 1


# Results without a waiter -----------------------------------------------------------------------


async def test_late_result_is_closed_once_and_not_on_the_loop(pools: Pools) -> None:
    pool, result, resource = pools.pool(), Thing(), Thing()
    work = pools.work(result, resource)
    await give_up(pool, work, resource)
    assert (result.closed, resource.closed) == (0, 0)
    work.release.set()
    await until(lambda: (result.closed, resource.closed) == (1, 1))
    assert not resource.closed_in_use
    assert threading.main_thread() not in {result.closed_by, resource.closed_by}


async def test_late_result_without_close_is_dropped(pools: Pools) -> None:
    pool, work = pools.pool(), pools.work(5)
    await give_up(pool, work)
    work.release.set()
    assert await pool.run("a", lambda: 1) == 1


async def test_failing_close_is_harmless(pools: Pools) -> None:
    class Stubborn(Thing):
        def close(self) -> None:
            super().close()
            raise OSError(5, "an error that was kept for close")

    pool, stubborn, good = pools.pool(), Stubborn(), Thing()
    for thing in (stubborn, good):
        pool.close_later(thing)
    await until(lambda: (stubborn.closed, good.closed) == (1, 1))


async def test_late_exception_is_dropped_and_the_resource_closed(pools: Pools) -> None:
    pool, resource = pools.pool(), Thing()
    work = pools.work(OSError(5, "late"), resource)
    await give_up(pool, work, resource)
    work.release.set()
    await until(lambda: resource.closed == 1)
    assert not resource.closed_in_use


async def test_call_cancelled_while_running_closes_result_and_resource_when_the_thread_is_done(
    pools: Pools,
) -> None:
    pool, result, resource = pools.pool(), Thing(), Thing()
    work = pools.work(result, resource)
    task = await begin(pool, "a", work, resource=resource)
    task.cancel()
    await ended(task)
    assert task.cancelled()
    await pool.run("b", nothing)
    assert (result.closed, resource.closed) == (0, 0)
    work.release.set()
    await until(lambda: (result.closed, resource.closed) == (1, 1))
    assert not resource.closed_in_use


async def test_call_cancelled_in_the_queue_closes_its_resource_immediately(pools: Pools) -> None:
    pool, resource = pools.pool(max_per_key=1), Thing()
    await begin(pool, "a", pools.work())
    task = asyncio.ensure_future(pool.run("a", nothing, resource=resource))
    await asyncio.sleep(0)
    task.cancel()
    await ended(task)
    await until(lambda: resource.closed == 1)


@pytest.mark.parametrize("result", [Thing, lambda: None, lambda: OSError(5, "broken")])
async def test_call_cancelled_at_the_moment_of_its_result_closes_both(
    pools: Pools, result: Callable[[], object]
) -> None:
    """The result is set, the waiting task is to be woken, and is cancelled before it is."""
    pool, resource, answer = pools.pool(), Thing(), result()
    finish = pool._deliver

    def finish_and_cancel(*args: Any) -> None:
        finish(*args)
        task.cancel()

    pool._deliver = finish_and_cancel  # type: ignore[assignment, method-assign] # otherwise the race would be hit by chance only
    work = pools.work(answer, resource)
    task = await begin(pool, "a", work, resource=resource)
    work.release.set()
    await ended(task)
    assert task.cancelled()
    await until(lambda: resource.closed == 1)
    if isinstance(answer, Thing):
        await until(lambda: answer.closed == 1)


async def test_call_that_expires_at_the_moment_of_its_result_closes_both_once(pools: Pools) -> None:
    pool, resource, answer = pools.pool(), Thing(), Thing()
    finish = pool._deliver

    def expire_and_finish(call: Any, *args: Any) -> None:
        call.future.set_exception(StorageUnavailable("Now."))
        finish(call, *args)

    pool._deliver = expire_and_finish  # type: ignore[assignment, method-assign] # otherwise the race would be hit by chance only
    work = pools.work(answer, resource)
    work.release.set()
    with pytest.raises(StorageUnavailable, match="Now"):
        await pool.run("a", work, resource=resource)
    pool._deliver = finish  # type: ignore[method-assign] # put back
    await until(lambda: (answer.closed, resource.closed) == (1, 1))
    for _ in range(3):
        await pool.run("b", nothing)
    assert (answer.closed, resource.closed) == (1, 1)


def test_loop_closed_during_a_call_leaves_nothing_open(pools: Pools) -> None:
    pool, result, resource = pools.pool(), Thing(), Thing()
    work = pools.work(result, resource)

    async def leave() -> None:
        await begin(pool, "a", work, resource=resource)

    with asyncio.Runner() as runner:
        runner.run(leave())
    assert (result.closed, resource.closed) == (0, 0)
    work.release.set()
    wait_until(lambda: (result.closed, resource.closed) == (1, 1))
    assert not resource.closed_in_use


# Close ---------------------------------------------------------------------------------------------


async def test_closed_pool_accepts_no_calls_and_its_threads_end(pools: Pools) -> None:
    pool, resource = pools.pool(), Thing()
    await pool.run("a", nothing)
    pool.close_later(Thing())
    pool.close()
    await until(lambda: not pools.threads())
    with pytest.raises(StorageUnavailable):
        await pool.run("a", nothing, resource=resource)
    await until(lambda: resource.closed == 1)
    await until(lambda: not pools.threads())


async def test_calls_accepted_before_close_are_executed(pools: Pools) -> None:
    pool = pools.pool(threads=1, max_per_key=1)
    blocked, queued, waiting_call = (pools.work(number) for number in range(3))
    tasks = [await begin(pool, "a", blocked)]
    tasks.append(asyncio.ensure_future(pool.run("b", queued)))
    tasks.append(asyncio.ensure_future(pool.run("a", waiting_call)))
    await asyncio.sleep(0)
    pool.close()
    for work in pools.works:
        work.release.set()
    assert await asyncio.gather(*tasks) == [0, 1, 2]


async def test_result_after_close_is_closed(pools: Pools) -> None:
    pool, result, resource = pools.pool(), Thing(), Thing()
    work = pools.work(result, resource)
    await give_up(pool, work, resource)
    pool.close()
    work.release.set()
    await until(lambda: (result.closed, resource.closed) == (1, 1))


HUNG = """
import asyncio, importlib, sys
from jobsvc.domain.errors import StorageUnavailable
from jobsvc.storage.threads.thread_pool import ThreadPool
fifo, loop = sys.argv[1:]
pool = ThreadPool("metadata", deadline=0.1)
async def main():
    try:
        await pool.run("a", lambda: open(fifo))
    except StorageUnavailable:
        print("given up", flush=True)
with asyncio.Runner(loop_factory=importlib.import_module(loop).new_event_loop) as runner:
    runner.run(main())
pool.close()
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_hanging_thread_does_not_delay_process_exit(tmp_path: Path, loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    os.mkfifo(tmp_path / "fifo")
    command = [sys.executable, "-c", HUNG, str(tmp_path / "fifo"), loop]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "given up\n", "")
