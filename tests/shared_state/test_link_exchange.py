"""Links of two instances and of commands, through a real Redis."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from jobsvc.shared_state import link_exchange
from jobsvc.shared_state.connection import SharedStateConnection, SharedStateUnavailable
from jobsvc.shared_state.link_exchange import LinkExchange, LinkStore, use_links
from jobsvc.storage.state.link_record import IssuedLink
from tests.eventually import pause, until
from tests.programs.external_programs import needs
from tests.programs.redis_server import RedisServer, redis_server
from tests.shared_state.connecting import set_waits

pytestmark = needs("redis-server")

ONE, TWO = "1" * 16, "2" * 16
SOON = 3600


class Instance:
    """What one instance knows of links, and its exchange."""

    def __init__(self, server: RedisServer, name: str) -> None:
        self.revoked: dict[str, float] = {}
        self.connection = SharedStateConnection(
            server.url, prefix="test", instance=name, on_error=lambda: None
        )
        self.exchange = LinkExchange(self.connection, known=lambda: dict(self.revoked), on_revoked=self.add)

    def add(self, links: Mapping[str, float]) -> None:
        self.revoked |= links

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        app = web.Application()
        async with asynccontextmanager(self.connection.cleanup_ctx)(app), self.exchange.running():
            yield


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        yield running


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_exchange, "SYNC_INTERVAL_S", 0.05)
    set_waits(monkeypatch)


async def revoke(server: RedisServer, *links: str) -> None:
    expires = time.time() + SOON
    await use_links(server.url, "test", lambda store: store.revoke(dict.fromkeys(links, expires)))


async def issued(server: RedisServer) -> list[IssuedLink]:
    return await use_links(server.url, "test", LinkStore.issued)


async def revoked(server: RedisServer) -> set[str]:
    return set(await use_links(server.url, "test", LinkStore.revoked))


def link(number: int, lifetime: float = SOON) -> IssuedLink:
    now = float(round(time.time()))
    return IssuedLink(f"{number:016x}", "job", "film.mp4", "token", "anna", now + number, now + lifetime)


async def test_revocation_reaches_all_instances(server: RedisServer) -> None:
    one, other = Instance(server, "one"), Instance(server, "other")
    async with one.running(), other.running():
        await revoke(server, ONE)
        await until(lambda: ONE in one.revoked and ONE in other.revoked)
        assert one.revoked[ONE] == pytest.approx(time.time() + SOON, abs=30)
        one.add({TWO: time.time() + SOON})
        await until(lambda: TWO in other.revoked)


async def test_revocations_are_known_before_an_instance_starts(server: RedisServer) -> None:
    await revoke(server, ONE)
    instance = Instance(server, "one")
    async with instance.running():
        assert ONE in instance.revoked


async def test_links_stay_revoked_while_redis_is_away_and_after_it_has_lost_them(server: RedisServer) -> None:
    one, other = Instance(server, "one"), Instance(server, "other")
    async with one.running():
        await revoke(server, ONE)
        await until(lambda: ONE in one.revoked)
        server.kill()
        await until(lambda: not one.connection.is_up)
        assert ONE in one.revoked
        server.start()
        await until(lambda: one.connection.is_up)
        assert await revoked(server) == {ONE}
        async with other.running():
            assert ONE in other.revoked
        await one.connection.client.flushall()
        while await revoked(server) != {ONE}:
            await pause()


async def test_what_is_not_a_revoked_link_is_left_alone(server: RedisServer) -> None:
    await revoke(server, ONE)
    one = Instance(server, "one")
    async with one.running():
        await until(lambda: ONE in one.revoked)
        client, soon = one.connection.client, (time.time() + SOON) * 1000
        await client.zadd(
            "test:{links}:revoked", {b"\xff": soon, b"x": soon, b"3" * 16: math.inf, TWO.encode(): soon}
        )
        await until(lambda: TWO in one.revoked)
        assert set(one.revoked) == {ONE, TWO}
        await client.flushall()
        while await revoked(server) != {ONE, TWO}:
            await pause()
        assert one.connection.is_up


async def test_expired_links_are_dropped(server: RedisServer) -> None:
    past = time.time() - 1
    await use_links(server.url, "test", lambda store: store.revoke({ONE: past}))
    assert await revoked(server) == set()
    await use_links(server.url, "test", lambda store: store.add_issued([link(1, -1), link(2)]))
    assert [each.id for each in await issued(server)] == [link(2).id]


async def test_created_links_of_all_instances_are_recorded(server: RedisServer) -> None:
    one, other = Instance(server, "one"), Instance(server, "other")
    links = [link(1), link(2), link(3)]
    async with one.running(), other.running():
        one.exchange.record(links[0])
        other.exchange.record(links[1])
        while len(await issued(server)) < 2:
            await pause()
        one.exchange.record(links[2])  # sent at the end
    assert await issued(server) == links


async def test_links_that_were_created_while_redis_was_away_are_recorded(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_exchange, "LINKS_PER_CALL", 2)
    one = Instance(server, "one")
    links = [link(number) for number in range(5)]
    async with one.running():
        server.kill()
        await until(lambda: not one.connection.is_up)
        for each in links:
            one.exchange.record(each)
        await asyncio.sleep(0)
        server.start()
        await until(lambda: one.connection.is_up)
        while len(await issued(server)) < 5:
            await pause()
    assert await issued(server) == links


async def test_number_of_recorded_links_is_bounded(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_exchange, "MAX_ISSUED", 2)
    links = [link(number, SOON + number) for number in range(4)]
    await use_links(server.url, "test", lambda store: store.add_issued(links))
    assert [each.id for each in await issued(server)] == [each.id for each in links[2:]]


async def test_keys_are_in_one_slot_and_expire(server: RedisServer) -> None:
    await revoke(server, ONE)
    await use_links(server.url, "test", lambda store: store.add_issued([link(1)]))
    instance = Instance(server, "one")
    async with instance.running():
        keys = {key.decode() for key in await instance.connection.client.keys("test:{links}:*")}
        assert keys == {"test:{links}:issued", "test:{links}:revoked", "test:{links}:version"}
        for key in keys:
            assert 0 < await instance.connection.client.ttl(key) <= 366 * 86_400


async def test_command_without_redis_fails_with_the_reason(server: RedisServer) -> None:
    server.kill()
    with pytest.raises(SharedStateUnavailable, match="Connect"):
        await revoke(server, ONE)


async def test_command_whose_redis_hangs_fails(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_exchange, "COMMAND_TIMEOUT_S", 0.2)
    server.pause()
    with pytest.raises(SharedStateUnavailable, match="no response within 0"):
        await revoke(server, ONE)


async def test_wrong_password_is_not_in_the_reason(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--requirepass", "right") as protected:
        url = protected.url.replace("//", "//:hunter2@")
        with pytest.raises(SharedStateUnavailable, match=r"(?i)password") as refused:
            await use_links(url, "test", LinkStore.issued)
    assert "hunter2" not in str(refused.value)
