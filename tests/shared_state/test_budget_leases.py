from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from jobsvc.shared_state import budget_leases
from jobsvc.shared_state import connection as connection_module
from jobsvc.shared_state.budget_leases import AHEAD_OF_BUDGET, BudgetLeases
from jobsvc.shared_state.connection import SharedStateUnavailable
from tests.eventually import pause, until
from tests.programs.external_programs import needs
from tests.programs.redis_server import RedisServer, redis_server
from tests.shared_state.connecting import PATIENCE_S, CountingConnection, connected

pytestmark = needs("redis-server")

names = (f"n{number}" for number in count())


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def patient_probes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection_module, "WAIT_S", PATIENCE_S)
        patch.setattr(connection_module, "TIMEOUT_S", PATIENCE_S)
        yield


@asynccontextmanager
async def instances(redis: RedisServer, number: int) -> AsyncIterator[list[CountingConnection]]:
    """Connect as so many instances, which know how many they are."""
    async with AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(connected(redis.url, f"instance-{index}"))
            for index in range(number)
        ]
        for connection in made:
            connection.instances = number
            connection.wait_s = PATIENCE_S
        yield made


@asynccontextmanager
async def sharing(
    redis: RedisServer, number: int, amount: int, seconds: int = 3600
) -> AsyncIterator[list[BudgetLeases]]:
    """Make the leases of one new budget at so many instances."""
    name = next(names)
    async with instances(redis, number) as connections:
        yield [BudgetLeases(connection, name, amount, seconds) for connection in connections]


async def send(leases: BudgetLeases, number: int) -> int:
    """Send so many requests at once, as the service handles them; return how many are admitted."""
    admitted = sum(leases.spend("key") for _ in range(number))
    return admitted + sum(await asyncio.gather(*(leases.acquire("key") for _ in range(number - admitted))))


async def send_in_turn(leases: BudgetLeases, number: int) -> int:
    return sum([leases.spend("key") or await leases.acquire("key") for _ in range(number)])


async def calls(redis: RedisServer) -> int:
    """Return how many scripts Redis has run."""
    async with Redis.from_url(redis.url) as client:
        stats = await client.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


@settings(max_examples=25)
@given(
    amount=st.integers(1, 500),
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60), st.booleans()), max_size=12),
)
async def test_any_interleaving_admits_the_budget_and_no_more(
    redis: RedisServer, amount: int, steps: list[tuple[int, int, bool]]
) -> None:
    async with sharing(redis, 4, amount) as replicas:
        running = [
            asyncio.ensure_future((send if at_once else send_in_turn)(replicas[index], number))
            for index, number, at_once in steps
        ]
        admitted = sum(await asyncio.gather(*running))
        assert admitted <= amount
        # Demand at every replica is sufficient now.
        admitted += sum(await asyncio.gather(*(send(leases, amount) for leases in replicas)))
        assert amount * 0.95 <= admitted <= amount


@pytest.mark.parametrize("amount", [10, 100, 1000])
@pytest.mark.parametrize("first", [0.1, 0.5, 0.9])
async def test_demand_that_moves_to_another_instance_gets_most_of_the_rest(
    redis: RedisServer, amount: int, first: float
) -> None:
    async with sharing(redis, 4, amount) as replicas:
        admitted = 0
        for leases in replicas[:3]:
            admitted += await send_in_turn(leases, int(amount * first / 3))
        admitted += await send_in_turn(replicas[3], amount)
        assert amount * 0.9 <= admitted <= amount


async def test_thousands_of_requests_at_once_are_admitted_up_to_the_budget(redis: RedisServer) -> None:
    async with sharing(redis, 4, 1000, 60) as replicas:
        before = await calls(redis)
        admitted = sum(await asyncio.gather(*(send(leases, 2500) for leases in replicas)))
        assert 950 <= admitted <= 1000
        assert await calls(redis) - before < 100  # requests that wait share a call


async def test_refused_requests_do_not_ask_redis(redis: RedisServer) -> None:
    async with sharing(redis, 1, 5) as (leases,):
        assert await send(leases, 10) == 5
        before = await calls(redis)
        assert await send(leases, 1000) == 0
        assert await calls(redis) == before


@pytest.mark.alone
async def test_refused_key_is_admitted_once_its_window_has_passed(redis: RedisServer) -> None:
    async with sharing(redis, 2, 4, 1) as replicas:
        assert await send(replicas[0], 10) + await send(replicas[1], 10) == 4
        state = replicas[1].state("key")
        assert state is not None
        assert state.remaining == 0
        began = time.monotonic()
        while not await replicas[1].acquire("key"):
            await pause()
        assert abs(time.monotonic() - began - state.reset) < 0.2


async def test_lease_ends_with_its_window(redis: RedisServer) -> None:
    async with sharing(redis, 1, 1000, 3) as (leases,):
        assert await send_in_turn(leases, 10) == 10
        await until(lambda: leases.spend("key"))
        await asyncio.sleep(3)
        assert not leases.spend("key")
        assert await leases.acquire("key")


async def test_regular_requests_are_leased_ahead(redis: RedisServer) -> None:
    async with sharing(redis, 4, 600, 60) as replicas:
        assert await replicas[0].acquire("key")
        for _ in range(50):
            await until(lambda: replicas[0].spend("key"))


async def test_little_is_leased_ahead(redis: RedisServer) -> None:
    async with sharing(redis, 4, 1000) as replicas:
        for leases in replicas:
            await send_in_turn(leases, 200)
        unspent = sum(leases._leases["key"].unspent for leases in replicas)
        assert unspent <= 1000 / AHEAD_OF_BUDGET


async def test_leases_of_many_keys_are_kept(redis: RedisServer) -> None:
    async with sharing(redis, 1, 100) as (leases,):
        keys = list(map(str, range(50)))
        assert all(await asyncio.gather(*map(leases.acquire, keys)))
        assert all(map(leases.spend, keys))


async def test_small_budget_is_not_leased_ahead(redis: RedisServer) -> None:
    async with sharing(redis, 4, 10) as replicas:
        assert [await leases.acquire("key") for leases in replicas] == [True] * 4
        assert not any(leases.spend("key") for leases in replicas)


async def test_refunded_request_can_be_spent_again(redis: RedisServer) -> None:
    async with sharing(redis, 1, 3) as (leases,):
        assert await send(leases, 3) == 3
        leases.refund("key")
        assert await send(leases, 3) == 1
        for _ in range(10):
            leases.refund("key")
        assert await send(leases, 10) == 3


async def test_state_includes_what_other_instances_have_used(redis: RedisServer) -> None:
    async with sharing(redis, 2, 100) as (first, second):
        assert second.state("key") is None
        assert await send_in_turn(first, 40) == 40
        assert await second.acquire("key")
        state = second.state("key")
        assert state is not None
        assert 54 <= state.remaining <= 59  # `first` has leased some ahead
        assert 3590 < state.reset <= 3600


async def test_flush_starts_no_other_budget(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_leases, "MAX_REFUSAL_S", 0.1)
    async with sharing(redis, 2, 50) as replicas, Redis.from_url(redis.url) as client:
        connections = [leases._connection for leases in replicas]
        generations = {connections[0].generation}
        assert [await send_in_turn(leases, 20) for leases in replicas] == [20, 20]
        for lost in range(3):
            await client.flushall()
            await client.script_flush()
            await until(lambda: not generations & {each.generation for each in connections})
            generations.add(connections[0].generation)
            # The first request of each adds what it had admitted.
            assert [await send_in_turn(leases, 1) for leases in replicas] == [1, 1], lost
        assert await send_in_turn(replicas[0], 10) + await send_in_turn(replicas[1], 10) <= 4


async def test_what_is_admitted_without_redis_is_counted_later(redis: RedisServer) -> None:
    async with sharing(redis, 2, 20) as (first, second):
        assert await send(first, 5) == 5
        for _ in range(10):
            first.report_later("key")
        first.refund("key")
        assert await first.acquire("key")
        assert await send(second, 20) + await send(first, 20) == 5


async def test_what_is_admitted_before_redis_can_be_used_is_counted_later(redis: RedisServer) -> None:
    async with sharing(redis, 2, 20) as (first, second):
        for _ in range(10):
            first.report_later("key")
        assert await send(first, 5) == 5
        assert await send(second, 20) + await send(first, 20) == 5


async def test_counts_are_kept_when_the_rate_changes(redis: RedisServer) -> None:
    async with sharing(redis, 2, 20) as (first, second):
        assert await send(first, 15) == 15
        first.set_rate(30, 3600)
        assert await send(first, 30) == 15
        assert await send(second, 30) == 0


async def test_what_is_leased_is_kept_if_the_rate_stays_the_same(redis: RedisServer) -> None:
    async with sharing(redis, 1, 1000) as [leases]:
        assert await leases.acquire("key")
        for _ in range(100):
            leases.set_rate(1000, 3600)
            assert leases.spend("key") or await leases.acquire("key")
        state = leases.state("key")
        assert state is not None
        assert state.remaining == 1000 - 101


async def test_keys_begin_with_the_prefix_and_expire(redis: RedisServer) -> None:
    async with Redis.from_url(redis.url, decode_responses=True) as client:
        await client.flushall()
        rights = ["+@all", "-@admin", "-@dangerous"]
        await client.acl_setuser(
            "farm", enabled=True, passwords=["+secret"], keys=["farm:*"], categories=rights
        )
        async with connected(redis.url.replace("://", "://farm:secret@"), prefix="farm") as connection:
            connection.wait_s = PATIENCE_S
            leases = BudgetLeases(connection, "status", 100, 3)
            assert await send(leases, 20) == 20
            await asyncio.sleep(3.1)
            assert await send(leases, 20) == 20
            keys = sorted(await client.keys())
            counts = [key for key in keys if "{budget/status/key" in key]
            assert len(counts) == 2
            assert all(key.startswith("farm:{") for key in keys)
            assert len({key.partition("{")[2].partition("}")[0] for key in counts}) == 1
            assert keys.pop(keys.index("farm:{instances}:generation"))
            lifetimes = [await client.ttl(key) for key in keys]
            # -1: it does not expire; -2: it has expired meanwhile
            assert all(lifetime <= 20 and lifetime != -1 for lifetime in lifetimes), lifetimes


async def test_number_of_remembered_keys_is_bounded(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_leases, "MAX_KEYS", 20)
    async with sharing(redis, 1, 1) as (leases,):
        for index in range(50):
            assert await leases.acquire(str(index))
        assert len(leases._leases) <= 20


async def test_waiting_requests_are_told_that_redis_is_away(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        async with sharing(server, 1, 1000) as (leases,):
            assert await send(leases, 10) == 10
            server.pause()
            leases._connection.wait_s = 0.1  # type: ignore[attr-defined]
            results = await asyncio.gather(
                *(leases.acquire("new") for _ in range(50)), return_exceptions=True
            )
            assert all(isinstance(result, SharedStateUnavailable) for result in results)
            server.resume()


async def test_cancelled_requests_leave_what_they_leased_to_others(redis: RedisServer) -> None:
    async with sharing(redis, 1, 10) as (leases,):
        requests = [asyncio.ensure_future(leases.acquire("key")) for _ in range(10)]
        await asyncio.sleep(0)
        for request in requests[:5]:
            request.cancel()
        await asyncio.wait(requests)
        assert all(request.result() for request in requests[5:])
        assert await send(leases, 10) == 5


@pytest.mark.parametrize("content", [{"": -1_000_000}, {"": 0, "/-1": 10}])
async def test_requests_are_answered_if_redis_refuses_what_its_counts_admit(
    content: dict[str, int], redis: RedisServer
) -> None:
    name = next(names)
    key = f"jobsvc:{{budget/{name}/key/60}}"
    async with instances(redis, 1) as [connection]:
        for suffix, requests in content.items():
            # The previous window has 16 minutes left, of one: it weighs more than it can.
            await connection.client.set(key + suffix, requests, px=1_000_000 if suffix else 100_000)
        leases = BudgetLeases(connection, name, 10, 60)
        async with asyncio.timeout(15):
            results = await asyncio.gather(
                *(leases.acquire("key") for _ in range(15)), return_exceptions=True
            )
        assert {type(result) for result in results} == {SharedStateUnavailable}
        assert connection.is_up


async def test_count_that_is_not_a_number_is_no_outage(redis: RedisServer) -> None:
    name = next(names)
    async with instances(redis, 1) as [connection]:
        await connection.client.set(f"jobsvc:{{budget/{name}/key/60}}", "many", px=100_000)
        leases = BudgetLeases(connection, name, 10, 60)
        with pytest.raises(SharedStateUnavailable):
            await leases.acquire("key")
        assert connection.is_up
        assert connection.errors == 1
        assert await leases.acquire("another")
