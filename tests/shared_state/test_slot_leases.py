"""Slots of several processes together, in a real Redis."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from time import monotonic

import pytest

from tests.eventually import until, until_equal
from tests.programs.external_programs import needs
from tests.programs.redis_server import RedisServer, redis_server
from tests.shared_state.connecting import set_waits
from tests.shared_state.slot_processes import TOKEN, SlotProcess, shorten_times, slot_process

pytestmark = needs("redis-server")


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_times(monkeypatch)
    set_waits(monkeypatch)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
async def two(redis: RedisServer) -> AsyncIterator[tuple[SlotProcess, SlotProcess]]:
    async with slot_process(redis) as one, slot_process(redis) as other:
        yield one, other


async def test_limits_are_those_of_all_processes(two: tuple[SlotProcess, SlotProcess]) -> None:
    one, other = two
    assert [await process.take() for process in (one, other, one, other)] == [None, None, None, "token"]
    owner_limits = {("token", "anna-2"): 3, ("owner", "anna"): 1, ("all",): 100}
    assert [await process.take(owner_limits) for process in (one, other)] == [None, "owner"]
    assert await other.take({("token", "bert-1"): 3, ("owner", "bert"): 1, ("all",): 4}) == "all"


async def test_released_slot_is_free_for_another_process(two: tuple[SlotProcess, SlotProcess]) -> None:
    one, other = two
    assert [await one.take() for _ in range(4)] == [None, None, None, "token"]
    one.give_back()
    await until_equal(other.take, None)
    assert await one.take() == "token"


async def test_slots_of_a_killed_process_are_free_once_their_leases_expire(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_times(monkeypatch, lease_s=3)
    async with slot_process(redis) as other:
        async with slot_process(redis) as killed:
            assert [await killed.take() for _ in range(3)] == [None] * 3
        assert await other.take() == "token"
        for _ in range(3):
            await until_equal(other.take, None)
        assert await other.take() == "token"


async def test_slots_of_a_running_process_do_not_expire(
    two: tuple[SlotProcess, SlotProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_times(monkeypatch, lease_s=3)
    one, other = two
    assert [await one.take() for _ in range(3)] == [None] * 3
    started_at = monotonic()
    while monotonic() - started_at < 4.5:
        assert await other.take() == "token"
        await asyncio.sleep(0.02)


async def test_leases_are_added_again_after_a_flush(two: tuple[SlotProcess, SlotProcess]) -> None:
    one, other = two
    assert [await one.take() for _ in range(3)] == [None] * 3
    await one.state.client.flushall()
    await until_equal(one.in_redis, 3)
    assert await other.take() == "token"
    assert await one.in_redis("all") == 3


async def test_leases_are_added_again_before_a_restarted_redis_is_used(
    redis: RedisServer, two: tuple[SlotProcess, SlotProcess]
) -> None:
    one, other = two
    assert [await one.take() for _ in range(2)] == [None] * 2
    redis.kill()
    assert await one.take() is None
    assert not one.state.is_up
    redis.start()
    await until(lambda: one.state.is_up and other.state.is_up)
    assert await other.take() == "token"
    assert await one.in_redis() == 3


async def test_slots_taken_and_released_while_redis_hangs_are_right_afterwards(
    redis: RedisServer, two: tuple[SlotProcess, SlotProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_waits(monkeypatch, 0.1, 0.3)
    one, other = two
    assert [await one.take(), await other.take()] == [None, None]
    redis.pause()
    assert [await one.take() for _ in range(3)] == [
        None
    ] * 3  # the first one is sent; its response comes late
    one.give_back()
    other.give_back()
    await until(lambda: not one.state.is_up)
    redis.resume()
    await until_equal(one.in_redis, 3)
    for _ in range(3):
        one.give_back()
    await until_equal(one.in_redis, 0)


async def test_response_that_is_late_leases_a_slot_once(
    redis: RedisServer, two: tuple[SlotProcess, SlotProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = two
    monkeypatch.setattr(one.state, "wait_s", 0.1)
    redis.pause()
    assert await one.take() is None
    assert one.state.is_up  # nothing has failed yet
    redis.resume()
    await until_equal(one.in_redis, 1)
    one.give_back()
    await until_equal(one.in_redis, 0)


async def test_slot_of_a_canceled_request_is_removed(
    redis: RedisServer, two: tuple[SlotProcess, SlotProcess]
) -> None:
    one, _ = two
    redis.pause()
    request = asyncio.create_task(one.take())
    await asyncio.sleep(0.01)
    request.cancel()
    with suppress(asyncio.CancelledError):
        await request
    redis.resume()
    assert await one.take() is None
    await until_equal(one.in_redis, 1)


@pytest.mark.parametrize("seed", range(2))
async def test_nothing_is_lost_or_held_twice_after_random_faults(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    set_waits(monkeypatch, 0.1, 0.3)
    choose = random.Random(seed)  # noqa: S311 - it chooses faults
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(slot_process(redis)) for _ in range(3)]
        for _ in range(120):
            process = choose.choice(processes)
            if process.held and choose.random() < 0.45:
                process.give_back()
            else:
                limit = await process.take({TOKEN: 30, ("all",): 30})
                assert limit is None or sum(len(each.held) for each in processes) >= 20
            await fault(redis, processes, choose.random())
        redis.resume()
        await until(lambda: all(process.state.is_up for process in processes))
        held = sum(len(process.held) for process in processes)
        await until_equal(processes[0].in_redis, held)
        await until_equal(partial(processes[0].in_redis, "all"), held)
        while any(process.held for process in processes):
            next(process for process in processes if process.held).give_back()
        await until_equal(processes[0].in_redis, 0)


async def fault(redis: RedisServer, processes: list[SlotProcess], chance: float) -> None:
    if chance < 0.02:
        redis.kill()
        await asyncio.sleep(0.05)
        redis.start()
    elif chance < 0.06:
        redis.pause()
    elif chance < 0.15:
        redis.resume()
    elif chance < 0.18 and any(process.state.is_up for process in processes):
        with suppress(Exception):
            async with asyncio.timeout(0.1):
                await processes[0].state.client.flushall()
    else:
        await asyncio.sleep(chance / 50)
