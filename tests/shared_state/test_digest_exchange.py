"""Digests that processes exchange through a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jobsvc.shared_state import connection, digest_exchange
from jobsvc.shared_state.digest_exchange import DigestExchange
from tests.eventually import until, until_equal
from tests.programs.external_programs import needs
from tests.programs.redis_server import RedisServer, redis_server
from tests.shared_state.connecting import CountingConnection, connected, set_waits

pytestmark = needs("redis-server")


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PROBE_INTERVAL_S", 0.05)
    set_waits(monkeypatch)
    monkeypatch.setattr(digest_exchange, "INTERVAL_S", 0.02)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


class Process:
    """The exchange of one process, and what it has received."""

    def __init__(self, state: CountingConnection) -> None:
        self.state = state
        self.exchange = DigestExchange(state)
        self.received: list[tuple[str, bytes]] = []
        self.known: dict[str, bytes] = {}

    async def run(self) -> None:
        await self.exchange.run(lambda key, entry: self.received.append((key, entry)), lambda: self.known)


@asynccontextmanager
async def process(redis: RedisServer) -> AsyncIterator[Process]:
    async with connected(redis.url, "same") as state:
        started = Process(state)
        task = asyncio.create_task(started.run())
        yield started
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled(), task


async def test_digests_are_received_once_and_in_order_by_all_processes(redis: RedisServer) -> None:
    digests = [(f"job-{number}", bytes([number % 256])) for number in range(600)]
    async with process(redis) as one, process(redis) as other:
        for digest in digests[:599]:
            one.exchange.publish(*digest)
        await until(lambda: len(other.received) == 599)
        other.exchange.publish(*digests[599])
        await until(lambda: one.received == other.received == digests)


async def test_new_process_receives_digests_from_before_its_start(redis: RedisServer) -> None:
    async with process(redis) as one:
        one.exchange.publish("job-1", b"digest")
        await until(lambda: one.received)
    async with process(redis) as late:
        await until(lambda: late.received == [("job-1", b"digest")])


@pytest.mark.parametrize("outage", ["killed", "paused"])
async def test_digests_published_in_an_outage_are_sent_afterwards(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, outage: str
) -> None:
    set_waits(monkeypatch, 0.1, 0.3)
    async with process(redis) as one, process(redis) as other:
        one.exchange.publish("job-1", b"first")
        await until(lambda: other.received)
        redis.kill() if outage == "killed" else redis.pause()
        one.exchange.publish("job-2", b"second")
        await until(lambda: not one.state.is_up and not other.state.is_up)
        one.exchange.publish("job-3", b"third")
        redis.start() if outage == "killed" else redis.resume()
        await until(lambda: {"job-2", "job-3"} <= {key for key, _ in other.received})


async def test_digests_are_received_after_a_flush_by_which_the_clock_goes_back(redis: RedisServer) -> None:
    async with process(redis) as one:
        stream = one.state.key("digests")
        await one.state.client.xadd(stream, {"job-1": b"first"}, id="99999999999999-0")
        await until(lambda: one.received)
        await one.state.client.flushall()
        await one.state.client.xadd(stream, {"job-2": b"second"})
        await until(lambda: one.received == [("job-1", b"first"), ("job-2", b"second")])


async def test_one_process_sends_all_that_it_knows_if_redis_has_nothing(redis: RedisServer) -> None:
    known = {f"job-{number}": b"digest" for number in range(250)}
    async with process(redis) as one, process(redis) as other, process(redis) as empty:
        await until(lambda: empty.state.is_up)
        await one.state.client.flushall()
        one.known = other.known = known
        await until(lambda: len(empty.received) >= 250)
        assert empty.received == list(known.items())
        assert await one.state.client.xlen(one.state.key("digests")) == 250


async def test_unsent_digests_are_bounded(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_exchange, "MAX_UNSENT", 3)
    set_waits(monkeypatch, 0.1, 0.3)
    redis.pause()
    async with process(redis) as one:
        for number in range(10):
            one.exchange.publish(f"job-{number}", b"digest")
        set_waits(monkeypatch)
        redis.resume()
        await until(lambda: [key for key, _ in one.received] == ["job-7", "job-8", "job-9"])


async def test_one_process_hashes_a_file_until_its_claim_expires(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_exchange, "CLAIM_S", 3)
    async with process(redis) as one, process(redis) as other:
        assert [await one.exchange.claim("job-1", b"v") for _ in range(2)] == [True, True]
        assert not await other.exchange.claim("job-1", b"v")
        assert await other.exchange.claim("job-1", b"another version")
        await until_equal(lambda: other.exchange.claim("job-1", b"v"), expected=True)
        assert not await one.exchange.claim("job-1", b"v")


async def test_every_process_hashes_while_redis_is_down(redis: RedisServer) -> None:
    async with process(redis) as one, process(redis) as other:
        redis.kill()
        assert await one.exchange.claim("job-1", b"v")
        assert await other.exchange.claim("job-1", b"v")
