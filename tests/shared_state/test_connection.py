from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from jobsvc.shared_state import connection as connection_module
from jobsvc.shared_state.connection import (
    MAX_CONNECTIONS,
    TIMEOUT_S,
    WAIT_S,
    SharedStateConnection,
    SharedStateUnavailable,
)
from jobsvc.shared_state.redis_url import BadOptions
from tests.eventually import until
from tests.programs.certificates import create_certificate
from tests.programs.external_programs import needs
from tests.programs.redis_server import RedisServer, redis_server
from tests.shared_state.connecting import CountingConnection, connected, set_waits

pytestmark = needs("redis-server")

Logged = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _probe_often_and_patiently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "PROBE_INTERVAL_S", 0.05)
    set_waits(monkeypatch)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
def logged() -> Iterator[Logged]:
    with capture_logs() as lines:
        yield lines  # type: ignore[misc]


def events(logged: Logged) -> list[str]:
    return [line["event"] for line in logged if line["event"].startswith("shared-state")]


async def ping(connection: SharedStateConnection) -> bool:
    return await connection.call(ping_of(connection))


def ping_of(connection: SharedStateConnection) -> Callable[[], Awaitable[bool]]:
    return connection.client.ping  # type: ignore[return-value]


async def record(operation: Awaitable[bool], results: list[bool]) -> None:
    """Await an operation and record its result."""
    results.append(await operation)


async def write(connection: SharedStateConnection, value: str = "x" * 100) -> bool:
    return bool(await connection.call(lambda: connection.client.set(connection.key("test"), value)))


async def is_refused(call: Callable[[], Any]) -> bool:
    try:
        await call()
    except SharedStateUnavailable:
        return True
    return False


@pytest.mark.both_loops
async def test_calls_succeed_again_after_redis_was_killed_and_restarted(
    redis: RedisServer, logged: Logged
) -> None:
    async with connected(redis.url) as connection:
        assert await ping(connection)
        for _ in range(3):
            redis.kill()
            assert await is_refused(lambda: ping(connection))
            assert await is_refused(lambda: ping(connection))
            assert not connection.is_up
            redis.start()
            await until(lambda: connection.is_up)
            assert await ping(connection)
        assert connection.errors >= 3
    assert events(logged) == ["shared-state-up", *["shared-state-down", "shared-state-up"] * 3]


@pytest.mark.alone
@pytest.mark.both_loops
async def test_hanging_redis_delays_callers_once(
    redis: RedisServer, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_waits(monkeypatch, WAIT_S, TIMEOUT_S)
    async with connected(redis.url) as connection:
        redis.pause()
        began = time.monotonic()
        together = await asyncio.gather(*(is_refused(lambda: ping(connection)) for _ in range(100)))
        assert all(together)
        assert WAIT_S * 0.9 < time.monotonic() - began < 1.5
        began = time.monotonic()
        for _ in range(100):
            assert await is_refused(lambda: ping(connection))
        assert time.monotonic() - began < WAIT_S
        await until(lambda: not connection.is_up)
        redis.resume()
        await until(lambda: connection.is_up)
        assert await ping(connection)
    assert events(logged) == ["shared-state-up", "shared-state-down", "shared-state-up"]


async def test_redis_that_hangs_and_comes_back_at_once_leaves_no_call(redis: RedisServer) -> None:
    async with connected(redis.url) as connection:
        late: list[bool] = []
        redis.pause()
        with pytest.raises(SharedStateUnavailable):
            await connection.call(lambda: record(ping_of(connection)(), late), wait_s=0.1)
        redis.resume()
        await until(lambda: late == [True])
        await until(lambda: not connection._left_calls)
        await until(lambda: connection.is_up)
        assert await ping(connection)


async def test_operation_of_a_cancelled_caller_is_completed(redis: RedisServer) -> None:
    async with connected(redis.url) as connection:
        late: list[bool] = []
        operation = connection.call(lambda: record(ping_of(connection)(), late))
        caller = asyncio.ensure_future(operation)
        await asyncio.sleep(0)
        caller.cancel()
        assert isinstance((await asyncio.gather(caller, return_exceptions=True))[0], asyncio.CancelledError)
        await until(lambda: late == [True])
        assert connection.is_up


async def test_busy_event_loop_is_no_outage(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    set_waits(monkeypatch, WAIT_S)

    async def work() -> None:
        while True:
            time.sleep(0.04)  # noqa: ASYNC251 - the event loop is to be busy
            await asyncio.sleep(0)

    async with connected(redis.url) as connection:
        busy = asyncio.create_task(work())
        calls = [connection.call(ping_of(connection)) for _ in range(20)]
        assert all(await asyncio.gather(*calls))
        busy.cancel()
        assert connection.errors == 0


async def test_thousands_of_callers_share_few_connections(redis: RedisServer) -> None:
    async with connected(redis.url) as connection:
        calls = [connection.call(ping_of(connection), wait_s=60) for _ in range(3000)]
        assert all(await asyncio.gather(*calls))
        clients = await connection.call(lambda: connection.client.info("clients"))
        assert clients["connected_clients"] <= MAX_CONNECTIONS + 1


async def test_slow_redis_is_not_used_until_it_is_fast(
    redis: RedisServer, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    delay = [0.0]
    async with slow_link(redis.port, delay) as url, connected(url) as connection:
        assert await ping(connection)
        delay[0] = 0.3
        set_waits(monkeypatch, WAIT_S)
        await until(lambda: not connection.is_up)
        await asyncio.sleep(1)  # several probes
        assert not connection.is_up
        delay[0] = 0.0
        set_waits(monkeypatch)
        await until(lambda: connection.is_up)
    assert events(logged) == ["shared-state-up", "shared-state-down", "shared-state-up"]


async def test_flushed_redis_is_used_on(redis: RedisServer, logged: Logged) -> None:
    async with connected(redis.url) as connection:
        await connection.call(connection.client.flushall)
        await connection.call(connection.client.script_flush)
        assert await write(connection)
        await until(lambda: connection.instances == 1)
        assert connection.errors == 0
    assert events(logged) == ["shared-state-up"]


async def test_full_redis_is_not_used_until_it_has_room(redis: RedisServer, logged: Logged) -> None:
    async with connected(redis.url) as connection, connected(redis.url, "b") as other:
        await connection.call(lambda: other.client.config_set("maxmemory", "1"))
        await until(lambda: not connection.is_up)
        assert await is_refused(lambda: write(connection))
        await other.client.config_set("maxmemory", "0")
        await until(lambda: connection.is_up)
        assert await write(connection)
    down = next(line for line in logged if line["event"] == "shared-state-down")
    assert "used memory > 'maxmemory'" in down["reason"]


async def test_new_reason_of_an_outage_is_logged_once(
    redis: RedisServer, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "REFUSED_LOG_INTERVAL_S", 0.2)
    async with connected(redis.url) as connection:
        monkeypatch.setattr(connection, "_write", refusal_of("full"))
        await until(lambda: not connection.is_up)
        failures = connection.errors
        await until(lambda: connection.errors > failures + 5)
        monkeypatch.setattr(connection, "_write", refusal_of("read-only"))
        await until(lambda: len(events(logged)) == 3)
        failures = connection.errors
        await until(lambda: connection.errors > failures + 5)
    down = [line["reason"] for line in logged if line["event"] == "shared-state-down"]
    assert down == ["full", "read-only"]


def refusal_of(reason: str) -> Callable[[], Awaitable[None]]:
    async def refuse() -> None:
        raise ResponseError(reason)

    return refuse


async def test_read_only_replica_is_not_used(redis: RedisServer, tmp_path: Path, logged: Logged) -> None:
    folder = tmp_path / "replica"
    folder.mkdir()
    with redis_server(folder, "--replicaof", f"127.0.0.1 {redis.port}") as replica:
        async with connected(replica.url) as connection:
            assert await is_refused(lambda: write(connection))
            assert not connection.is_up
            await connection.client.replicaof("NO", "ONE")
            await until(lambda: connection.is_up)
            assert await write(connection)
    assert events(logged) == ["shared-state-down", "shared-state-up"]


async def test_wrong_password_is_logged_without_the_password(tmp_path: Path, logged: Logged) -> None:
    with redis_server(tmp_path, "--requirepass", "correct-horse") as server:
        wrong = server.url.replace("://", "://:battery-staple@")
        async with connected(wrong) as connection:
            assert await is_refused(lambda: ping(connection))
        async with connected(server.url) as connection:
            assert not connection.is_up
        async with connected(server.url.replace("://", "://:correct-horse@")) as connection:
            assert await ping(connection)
    assert events(logged) == ["shared-state-down", "shared-state-down", "shared-state-up"]
    assert "battery" not in str(logged)
    assert "horse" not in str(logged)


async def test_user_limited_to_the_prefix_is_enough(tmp_path: Path) -> None:
    user = ("--user", "farm", "on", ">secret", "~jobsvc:*", "+@all", "-@admin", "-@dangerous")
    with redis_server(tmp_path, *user) as server:
        async with connected(server.url.replace("://", "://farm:secret@")) as connection:
            assert await write(connection)
            assert await is_refused(lambda: connection.call(lambda: connection.client.set("elsewhere", b"")))
            assert connection.is_up
            assert connection.errors == 1


async def test_refused_command_is_logged_once_and_is_no_outage(redis: RedisServer, logged: Logged) -> None:
    async with connected(redis.url) as connection:
        await write(connection)
        for _ in range(3):
            assert await is_refused(
                lambda: connection.call(lambda: connection.client.zadd(connection.key("test"), {"a": 1}))
            )
        assert connection.is_up
        assert connection.errors == 3
    assert events(logged) == ["shared-state-up", "shared-state-refused"]


async def test_tls_server_is_verified(tmp_path: Path) -> None:
    certificate = create_certificate(tmp_path)
    options = ("--tls-cert-file", certificate, "--tls-key-file", tmp_path / "key", "--tls-auth-clients", "no")
    with redis_server(tmp_path, *map(str, options), tls=True) as server:
        trusting = f"{server.url}?ssl_ca_certs={certificate}"
        async with connected(trusting) as connection:
            assert await ping(connection)
        async with connected(server.url) as connection:
            assert not connection.is_up


async def test_live_instances_are_counted(redis: RedisServer) -> None:
    async with connected(redis.url, "a") as first:
        async with connected(redis.url, "b") as second, connected(redis.url, "c"):
            await until(lambda: first.instances == second.instances == 3)
        await until(lambda: first.instances == 1)
        async with connected(redis.url, "b", prefix="another") as stranger:
            assert stranger.instances == 1


async def test_callbacks_end_before_calls_begin_after_each_outage(redis: RedisServer) -> None:
    called: list[bool] = []
    async with connected(redis.url) as connection:
        fails = [True]

        async def callback() -> None:
            called.append(connection.is_up)
            if fails:
                fails.clear()
                raise ResponseError("not yet")

        connection.on_up(callback)
        redis.kill()
        assert await is_refused(lambda: ping(connection))
        redis.start()
        await until(lambda: connection.is_up)
    assert len(called) >= 3  # the last time a while later: all instances have then called theirs
    assert not any(called)


async def test_unexpected_exception_is_an_outage_too(redis: RedisServer) -> None:
    async def operation() -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>")

    async with connected(redis.url) as connection:
        assert await is_refused(lambda: connection.call(operation))
        assert not connection.is_up


async def test_nothing_runs_on_after_the_end(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    set_waits(monkeypatch, WAIT_S, TIMEOUT_S)
    before = asyncio.all_tasks()
    async with connected(redis.url) as connection:
        redis.pause()
        await asyncio.gather(*(is_refused(lambda: ping(connection)) for _ in range(30)))
    assert asyncio.all_tasks() == before


async def test_connects_to_redis_that_starts_later(redis: RedisServer, logged: Logged) -> None:
    redis.kill()
    async with connected(redis.url) as connection:
        assert not connection.is_up
        redis.start()
        await until(lambda: connection.is_up)
        assert await ping(connection)
    assert events(logged) == ["shared-state-down", "shared-state-up"]


@pytest.mark.parametrize("query", ["db=first", "retries=3"])
def test_invalid_options_are_refused(query: str) -> None:
    with pytest.raises(BadOptions, match="shared-state"):
        CountingConnection(f"redis://127.0.0.1:1/0?{query}", "a", "farm")


def test_service_without_shared_state_does_not_import_redis() -> None:
    code = "import sys, jobsvc.service, jobsvc.cli; print([name for name in sys.modules if name == 'redis'])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


def test_first_part_of_a_key_is_its_hash_tag() -> None:
    connection = CountingConnection("redis://127.0.0.1:1/0", "a", "farm")
    assert connection.key("downloads", "all") == "farm:{downloads}:all"


@asynccontextmanager
async def slow_link(port: int, delay: list[float]) -> AsyncIterator[str]:
    """Forward connections to Redis; each piece of a response is delayed by delay[0] seconds."""

    writers: list[asyncio.StreamWriter] = []

    async def forward(source: asyncio.StreamReader, target: asyncio.StreamWriter, delay: list[float]) -> None:
        writers.append(target)
        while data := await source.read(65_536):
            await asyncio.sleep(delay[0])
            target.write(data)
        target.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(forward(reader, to_redis, [0.0]), forward(from_redis, writer, delay))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()
        for writer in writers:
            writer.close()
            await writer.wait_closed()
