"""ThreadPool against a model: whatever is submitted, abandoned and released in any order, everything is
closed once.
"""

from __future__ import annotations

import asyncio
import threading
from itertools import chain

from hypothesis import given, settings
from hypothesis import strategies as st

from jobsvc.storage.threads.thread_pool import ThreadPool, expire
from tests.eventually import until


class Thing:
    """A resource that can be closed."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class ModelCall:
    """One call as the model sees it."""

    def __init__(self, pool: ThreadPool, key: str, counts: dict[str, int]) -> None:
        self.key = key
        self.release = threading.Event()
        self.inside = False
        self.result = Thing()
        self.resource = Thing()
        self.ran = False
        self._counts = counts
        self.task = asyncio.ensure_future(pool.run(key, self._work, resource=self.resource))

    def _work(self) -> Thing:
        self.ran = self.inside = True
        self._counts[self.key] = self._counts.get(self.key, 0) + 1
        assert self._counts[self.key] <= 2
        assert self.release.wait(10)
        assert self.resource.closed == 0, "closed in use"
        self._counts[self.key] -= 1
        self.inside = False
        return self.result

    def all_closed(self) -> bool:
        """Return whether everything that should be closed is closed, and once."""
        got_it = not self.task.cancelled() and self.task.exception() is None
        return (
            (self.result.closed, self.resource.closed) == (0, 0)
            if got_it
            else (self.result.closed == self.ran and self.resource.closed == 1)
        )


STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "ask", "ask", "let go", "cancel", "expire"]), st.integers(0, 11)),
    max_size=40,
)


async def take(step: str, one: ModelCall, pool: ThreadPool) -> None:
    """Do something to a call that has not ended yet."""
    if step == "let go":
        one.release.set()
    elif step == "cancel":
        await asyncio.sleep(0)  # a task that never ran never called the pool
        one.task.cancel()
    elif step == "expire":
        for call in chain(pool._in_flight, *pool._waiting_by_key.values()):
            if call.resource is one.resource:
                expire(call.future)


async def play(steps: list[tuple[str, int]], *, close_early: bool) -> None:
    pool = ThreadPool("books", threads=4, max_per_key=2, deadline=60)
    calls: list[ModelCall] = []
    counts: dict[str, int] = {}
    for step, number in steps:
        if step == "ask":
            calls.append(ModelCall(pool, "abc"[number % 3], counts))
        elif calls and not calls[number % len(calls)].task.done():
            await take(step, calls[number % len(calls)], pool)
    await asyncio.sleep(0)
    if close_early:
        pool.close()
    for one in calls:
        one.release.set()
    await asyncio.gather(*(one.task for one in calls), return_exceptions=True)
    await until(lambda: not pool._in_flight)
    await until(lambda: all(one.all_closed() for one in calls))
    assert not pool._running_by_key
    assert not pool._waiting_by_key
    pool.close()


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, close_early=st.booleans())
def test_everything_is_closed_once_and_never_while_in_use_in_any_order(
    steps: list[tuple[str, int]], *, close_early: bool
) -> None:
    asyncio.run(play(steps, close_early=close_early))
