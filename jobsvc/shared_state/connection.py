"""Calls to Redis that never delay a response for long and never fail a request.

A caller waits at most WAIT_S; a call that takes longer goes on by itself. While Redis is down or slow,
callers get SharedStateUnavailable at once and decide from the state of this process. A probe that writes
finds out when Redis can be used again: a full or read-only server accepts connections and refuses writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import structlog
from aiohttp import web
from limits.aio.storage import RedisStorage
from redis.asyncio import Redis
from redis.exceptions import RedisError

WAIT_S: Final = 0.1
"""Maximum time that a request waits for Redis."""
TIMEOUT_S: Final = 1.0
"""A call that takes longer has failed."""
RETRY_INTERVAL_S: Final = 1.0
"""Time between two probes, whether Redis is up or down."""
_ITERATIONS: Final = 3
"""Iterations of the event loop in which a response that has arrived reaches its caller."""

T = TypeVar("T")

log = structlog.get_logger("jobsvc.shared_state")


class SharedStateUnavailable(Exception):
    """Redis cannot be used now: the caller decides from the state of this process."""


class SharedStateConnection:
    """The connection to Redis and whether it can be used. Belongs to the event loop."""

    def __init__(self, url: str, *, prefix: str, instance: str, on_error: Callable[[], object]) -> None:
        """Connect to `url` (redis://, rediss://) when first used; every key begins with `prefix`.

        `instance` is the name of this process, different from those of all others. `on_error` is called for
        each call that fails.
        """
        self.instance: Final = instance
        self.prefix: Final = prefix
        self.storage: Final = RedisStorage(
            f"async+{url}",
            implementation="redispy",
            key_prefix=prefix,
            socket_connect_timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            retry_on_timeout=False,
        )
        """For `limits.aio.strategies`."""
        self.is_up = False
        """Whether the last probe and all calls since then have succeeded."""
        self._on_error = on_error
        self._slow_calls: set[asyncio.Task[Any]] = set()
        self._on_up: list[Callable[[], Awaitable[None]]] = []

    @property
    def client(self) -> Redis:
        """The client of redis-py; use it only in `call`."""
        client: Redis = self.storage.bridge.get_connection()  # type: ignore[attr-defined]
        return client

    def key(self, *parts: str) -> str:
        """Return the key of these parts. The first is a hash tag: keys with the same one share a slot.

        See "Hash tags" in the Redis Cluster specification.
        """
        first, *others = parts
        return ":".join([self.prefix, f"{{{first}}}", *others])

    def on_up(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call `callback` each time Redis can be used again, and at the first time, before `is_up` is set.

        If it raises, Redis counts as down.
        """
        self._on_up.append(callback)

    async def call(
        self,
        operation: Callable[[], Awaitable[T]],
        *,
        wait_s: float = WAIT_S,
        on_late: Callable[[T], object] | None = None,
    ) -> T:
        """Return the result of `operation`. Raises SharedStateUnavailable if there is none within `wait_s`.

        `on_late` is called with the result of an operation that succeeds after that.
        """
        if not self.is_up or self._slow_calls:
            raise SharedStateUnavailable
        task = asyncio.ensure_future(self._run(operation))
        await asyncio.wait({task}, timeout=wait_s)
        for _ in range(_ITERATIONS):
            if not task.done():  # a busy event loop can run the timer before it reads the response
                await asyncio.sleep(0)
        if task.done():
            return task.result()
        self._slow_calls.add(task)
        task.add_done_callback(lambda done: self._end_slow_call(done, on_late))
        raise SharedStateUnavailable

    async def cleanup_ctx(self, _app: web.Application) -> AsyncIterator[None]:
        """Probe Redis until the application ends: a cleanup_ctx."""
        with suppress(SharedStateUnavailable):
            await self._probe()
        task = asyncio.create_task(self._probe_regularly(), name="jobsvc-shared-state")
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(TIMEOUT_S):
                await self.client.aclose()

    async def _run(self, operation: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await operation()
        except (RedisError, OSError, TimeoutError) as exc:
            self._fail(exc)
            raise SharedStateUnavailable from exc

    def _fail(self, exc: Exception) -> None:
        self._on_error()
        if self.is_up:
            self.is_up = False
            log.error("shared-state-down", reason=_reason(exc), effect="each instance counts for itself")

    def _end_slow_call(self, task: asyncio.Task[T], on_late: Callable[[T], object] | None) -> None:
        self._slow_calls.discard(task)
        if not task.cancelled() and task.exception() is None and on_late is not None:
            on_late(task.result())

    async def _probe_regularly(self) -> None:
        while True:
            await asyncio.sleep(RETRY_INTERVAL_S)
            with suppress(SharedStateUnavailable):
                await self._probe()

    async def _probe(self) -> None:
        """Write a key; if Redis was down, call the callbacks of `on_up`. Raises SharedStateUnavailable."""

        async def write() -> None:
            await self.client.set(self.key("instances", self.instance), b"", ex=30)
            if not self.is_up:
                for callback in self._on_up:
                    await callback()

        await self._run(write)
        if not self.is_up:
            self.is_up = True
            log.info("shared-state-up", instance=self.instance)


def _reason(exc: Exception) -> str:
    return str(exc) or type(exc).__name__
