"""`CallbackBatch`: the steps of many connections run in one callback."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from jobsvc.web.connection.fair_scheduling import MAX_STARTED_TASKS, CallbackBatch


async def run_loop(batch: CallbackBatch, steps: int = 1) -> None:
    """Let the event loop iterate until the steps have run."""
    for _ in range(steps + 1):
        await asyncio.sleep(0)


async def test_steps_run_in_order_and_never_while_they_are_scheduled() -> None:
    batch, order = CallbackBatch(asyncio.get_running_loop()), list[str]()
    batch.call_soon(lambda: order.append("first"))
    batch.call_soon(lambda: order.append("second"))
    assert order == []
    await run_loop(batch)
    assert order == ["first", "second"]


async def test_step_scheduled_by_a_step_runs_after_those_already_due() -> None:
    batch, order = CallbackBatch(asyncio.get_running_loop()), list[str]()
    batch.call_soon(lambda: batch.call_soon(lambda: order.append("later")))
    batch.call_soon(lambda: order.append("due"))
    await run_loop(batch, 2)
    assert order == ["due", "later"]


async def test_failing_step_is_reported_and_does_not_stop_the_others() -> None:
    loop, reported, order = asyncio.get_running_loop(), list[Any](), list[str]()
    loop.set_exception_handler(lambda _loop, context: reported.append(context["exception"]))
    batch = CallbackBatch(loop)

    def fail() -> None:
        raise RuntimeError("the connection is closed")

    batch.call_soon(fail)
    batch.call_soon(lambda: order.append("next"))
    await run_loop(batch)
    assert order == ["next"]
    assert [str(fault) for fault in reported] == ["the connection is closed"]


async def test_cheap_step_does_not_wait_for_earlier_costly_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobsvc.web.connection.fair_scheduling.COSTLY_SLICE_S", -1)  # each step takes longer
    batch, order = CallbackBatch(asyncio.get_running_loop()), list[str]()
    for _ in range(3):
        batch.call_costly(lambda: order.append("costly"))
    batch.call_soon(lambda: order.append("cheap"))
    await asyncio.sleep(0)
    assert order == ["cheap", "costly"]
    await run_loop(batch, 3)
    assert order == ["cheap", "costly", "costly", "costly"]


async def test_steps_of_one_callback_start_a_bounded_number_of_tasks() -> None:
    batch, started = CallbackBatch(asyncio.get_running_loop()), list[int]()

    def start(number: int) -> None:
        started.append(number)
        batch.count_started_task()

    for number in range(2 * MAX_STARTED_TASKS):
        batch.call_costly(partial(start, number))
    await asyncio.sleep(0)
    assert started == list(range(MAX_STARTED_TASKS))
    await run_loop(batch, 2)
    assert started == list(range(2 * MAX_STARTED_TASKS))


async def test_end_steps_run_in_the_same_callback_after_the_cheap_steps() -> None:
    batch, order = CallbackBatch(asyncio.get_running_loop()), list[str]()
    for name in ("first", "second"):
        batch.call_soon(lambda: batch.call_at_end(lambda: order.append("end")))
        batch.call_soon(partial(order.append, name))
    batch.call_costly(lambda: order.append("costly"))
    await asyncio.sleep(0)
    assert order == ["first", "second", "end", "end", "costly"]


async def test_end_step_runs_when_no_other_step_is_due() -> None:
    batch, order = CallbackBatch(asyncio.get_running_loop()), list[str]()
    batch.call_at_end(lambda: order.append("end"))
    assert order == []
    await run_loop(batch)
    assert order == ["end"]
