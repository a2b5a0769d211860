"""Steps of many connections in one callback."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from jobsvc.web.connection.callback_batch import MAX_STARTED_TASKS, CallbackBatch


async def taken(together: CallbackBatch, steps: int = 1) -> None:
    """Let the loop come round."""
    for _ in range(steps + 1):
        await asyncio.sleep(0)


async def test_steps_are_taken_in_their_order_and_none_while_it_is_asked_for() -> None:
    together, order = CallbackBatch(asyncio.get_running_loop()), list[str]()
    together.call_soon(lambda: order.append("first"))
    together.call_soon(lambda: order.append("second"))
    assert order == []
    await taken(together)
    assert order == ["first", "second"]


async def test_a_step_that_is_asked_for_by_a_step_comes_after_those_that_were_due() -> None:
    together, order = CallbackBatch(asyncio.get_running_loop()), list[str]()
    together.call_soon(lambda: together.call_soon(lambda: order.append("later")))
    together.call_soon(lambda: order.append("due"))
    await taken(together, 2)
    assert order == ["due", "later"]


async def test_a_step_that_fails_is_told_of_and_keeps_no_other_from_being_taken() -> None:
    loop, told, order = asyncio.get_running_loop(), list[Any](), list[str]()
    loop.set_exception_handler(lambda _loop, context: told.append(context["exception"]))
    together = CallbackBatch(loop)

    def fail() -> None:
        raise RuntimeError("the connection is closed")

    together.call_soon(fail)
    together.call_soon(lambda: order.append("next"))
    await taken(together)
    assert order == ["next"]
    assert [str(fault) for fault in told] == ["the connection is closed"]


async def test_a_cheap_step_does_not_wait_for_costly_steps_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobsvc.web.connection.callback_batch.COSTLY_SLICE_S", -1)  # each step takes longer
    together, order = CallbackBatch(asyncio.get_running_loop()), list[str]()
    for _ in range(3):
        together.call_later_in_turn(lambda: order.append("costly"))
    together.call_soon(lambda: order.append("cheap"))
    await asyncio.sleep(0)
    assert order == ["cheap", "costly"]
    await taken(together, 3)
    assert order == ["cheap", "costly", "costly", "costly"]


async def test_the_steps_of_one_callback_start_a_bounded_number_of_tasks() -> None:
    together, started = CallbackBatch(asyncio.get_running_loop()), list[int]()

    def start(number: int) -> None:
        started.append(number)
        together.count_started_task()

    for number in range(2 * MAX_STARTED_TASKS):
        together.call_later_in_turn(partial(start, number))
    await asyncio.sleep(0)
    assert started == list(range(MAX_STARTED_TASKS))
    await taken(together, 2)
    assert started == list(range(2 * MAX_STARTED_TASKS))


async def test_steps_at_the_end_run_in_the_same_callback_behind_the_cheap_steps() -> None:
    together, order = CallbackBatch(asyncio.get_running_loop()), list[str]()
    for name in ("first", "second"):
        together.call_soon(lambda: together.at_end(lambda: order.append("end")))
        together.call_soon(partial(order.append, name))
    together.call_later_in_turn(lambda: order.append("costly"))
    await asyncio.sleep(0)
    assert order == ["first", "second", "end", "end", "costly"]


async def test_a_step_at_the_end_runs_where_no_other_step_is_due() -> None:
    together, order = CallbackBatch(asyncio.get_running_loop()), list[str]()
    together.at_end(lambda: order.append("end"))
    assert order == []
    await taken(together)
    assert order == ["end"]
