"""Calls to Redis that never delay a response for long and never fail a request.

A caller waits at most WAIT_S; a call that takes longer goes on by itself. While Redis is down or slow,
callers get SharedStateUnavailable at once and decide from the state of this process. A probe that writes
finds out when Redis can be used again: a full or read-only server accepts connections and refuses writes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog
from aiohttp import web

from jobsvc.shared_state.redis_url import BadOptions

if TYPE_CHECKING:
    from limits.aio.storage import RedisStorage
    from redis.asyncio import Redis

WAIT_S: Final = 0.1
"""Maximum time that a request waits for Redis."""
TIMEOUT_S: Final = 1.0
"""A call that takes this much longer than its caller waits has failed."""
UP_TIMEOUT_S: Final = 5.0
"""Maximum duration of the callbacks of `on_up` together."""
PROBE_INTERVAL_S: Final = 1.0
"""Time between two probes, whether Redis is up or down."""
PROBES_BEFORE_UP: Final = 2
"""Redis is used again this many intervals after an outage: each instance has then called `on_up`."""
INSTANCE_TIMEOUT_S: Final = 10
"""An instance that has not probed for this long has ended."""
MAX_CONNECTIONS: Final = 8
"""Calls at once; others wait. With more, calls are no faster: it is the event loop that is busy."""
REFUSED_LOG_INTERVAL_S: Final = 60.0
"""Seconds between two log lines about commands that Redis has refused, or about a new reason of an outage."""
_STEP_S: Final = 0.01
_EFFECT: Final = "each instance counts for itself"

GENERATION_TTL_S: Final = 7 * 86_400
"""The generation is kept this long after the last probe of any instance."""

# Sets the time of an instance, on the server's clock, and counts those that have not ended. Sets the
# generation if there is none, and returns it.
_REGISTER: Final = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[3], 'NX')
redis.call('EXPIRE', KEYS[2], ARGV[4])
return {redis.call('ZCARD', KEYS[1]), redis.call('GET', KEYS[2])}
"""

T = TypeVar("T")

log = structlog.get_logger("jobsvc.shared_state")


class SharedStateUnavailable(Exception):
    """Redis cannot be used now: the caller decides from the state of this process."""


class SharedStateConnection:
    """The connection to Redis and whether it can be used. Belongs to the event loop."""

    def __init__(self, url: str, *, prefix: str, instance: str, on_error: Callable[[], object]) -> None:
        """Connect to `url` (redis://, rediss://) when first used; every key begins with `prefix`.

        `instance` is the name of this process, different from those of all others. `on_error` is called for
        each call that fails. Raises BadOptions.
        """
        from jobsvc.shared_state import redis_client  # noqa: PLC0415 - slow, see there

        self.instance: Final = instance
        self.prefix: Final = prefix
        try:
            storage = redis_client.create_storage(url, prefix)
        except (TypeError, ValueError) as exc:
            raise BadOptions(exc) from exc
        self.storage: Final[RedisStorage] = storage
        """The counts of `limits`."""
        self.client: Final[Redis] = redis_client.client_of(self.storage)
        """The client of redis-py; use it only in `call` and in callbacks of `on_up`."""
        self.is_up = False
        """Whether Redis is used: not after a failed probe or call, until it has responded for a while."""
        self.instances = 1
        """Number of instances that use this Redis; while it is down, at least as many as before."""
        self.generation = b""
        """Random text that Redis has had since it was empty: another one after it has lost its data."""
        self._password = redis_client.password_in(url)
        self._refusal: Final = redis_client.ResponseError
        self._on_error = on_error
        self._on_up: list[Callable[[], Awaitable[None]]] = []
        self._down_reason: str | None = None
        self._down_logged_at = -inf
        self._responds_since = -inf
        """When Redis responded again after an outage (the loop's clock); inf if it does not respond."""
        self._refused_logged_at = -inf
        self._free = asyncio.Semaphore(MAX_CONNECTIONS)
        self._slow_calls: set[asyncio.Task[Any]] = set()
        self._left_calls: set[asyncio.Task[None]] = set()
        """Calls whose caller does not wait any more."""
        self._register = self.client.register_script(_REGISTER)

    def key(self, *parts: str) -> str:
        """Return the key of these parts. The first is a hash tag: keys with the same one share a slot.

        See "Hash tags" in the Redis Cluster specification.
        """
        first, *others = parts
        return ":".join([self.prefix, f"{{{first}}}", *others])

    def on_up(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call `callback` before `is_up` is set, at the first time and after each outage.

        After an outage it is called more than once. If it raises, Redis counts as down.
        """
        self._on_up.append(callback)

    async def call(self, operation: Callable[[], Awaitable[T]], *, wait_s: float = WAIT_S) -> T:
        """Return the result of `operation`. Raises SharedStateUnavailable if there is none within `wait_s`.

        Time in which the event loop is busy does not count, up to TIMEOUT_S. The operation goes on after
        that, and after its caller was cancelled: what it changes must be right then, too.
        """
        if not self.is_up or self._slow_calls:
            raise SharedStateUnavailable
        task = asyncio.ensure_future(self._run_in_turn(operation))
        try:
            if await _wait(task, wait_s):
                return task.result()
        except asyncio.CancelledError:
            self._leave(task)
            raise
        self._slow_calls.add(task)
        self._leave(task)
        raise SharedStateUnavailable

    async def cleanup_ctx(self, _app: web.Application) -> AsyncIterator[None]:
        """Probe Redis until the application ends: a cleanup_ctx."""
        await self._probe()
        task = asyncio.create_task(self._probe_regularly(), name="jobsvc-shared-state")
        yield
        await _cancel(task, *self._left_calls)
        await self._limited(self._unregister if self.is_up else self.client.aclose, TIMEOUT_S)
        self.is_up = False

    async def _run_in_turn(self, operation: Callable[[], Awaitable[T]]) -> T:
        async with self._free:
            try:
                return await operation()
            except (self._refusal, ValueError) as exc:
                # A refused command, or a value that no service has written. It may concern a single key: the
                # next probe shows whether it does.
                self._on_error()
                self._log_refused(exc)
                raise SharedStateUnavailable from exc
            except Exception as exc:  # redis-py raises more than RedisError when a connection ends
                self._fail(exc)
                raise SharedStateUnavailable from exc

    def _fail(self, exc: BaseException) -> None:
        self._on_error()
        self.is_up, self._responds_since = False, inf
        reason, now = self.reason_of(exc), asyncio.get_running_loop().time()
        is_later = reason != self._down_reason and now - self._down_logged_at >= REFUSED_LOG_INTERVAL_S
        if self._down_reason is None or is_later:
            self._down_reason, self._down_logged_at = reason, now
            log.error("shared-state-down", reason=reason, effect=_EFFECT)

    def _log_refused(self, exc: Exception) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._refused_logged_at >= REFUSED_LOG_INTERVAL_S:
            self._refused_logged_at = now
            log.error("shared-state-refused", reason=self.reason_of(exc))

    def reason_of(self, exc: BaseException) -> str:
        """Return the text of an error of redis-py, without the password."""
        text = str(exc) or type(exc).__name__
        return text.replace(self._password, "***") if self._password else text

    def _leave(self, task: asyncio.Task[Any]) -> None:
        """Let a call end without its caller."""
        left = asyncio.create_task(self._end_left_call(task))
        self._left_calls.add(left)
        left.add_done_callback(self._left_calls.discard)

    async def _end_left_call(self, task: asyncio.Task[Any]) -> None:
        try:
            if not await _wait(task, TIMEOUT_S):
                self._fail(TimeoutError(f"no response within {TIMEOUT_S:g} s"))
        finally:
            await _cancel(task)
            self._slow_calls.discard(task)

    async def _probe_regularly(self) -> None:
        while True:
            await asyncio.sleep(PROBE_INTERVAL_S)
            await self._probe()

    async def _probe(self) -> None:
        """Find out whether Redis can be used; while it is not, call the callbacks of `on_up`."""
        if self.is_up:
            await self._limited(self._write, WAIT_S)
            return
        # The first call connects, which takes several round trips; the second one is as fast as later ones.
        connects = await self._limited(self._connect, TIMEOUT_S) and await self._limited(self._write, WAIT_S)
        if not connects or not await self._limited(self._call_on_up, UP_TIMEOUT_S):
            return
        now = asyncio.get_running_loop().time()
        self._responds_since = min(self._responds_since, now)
        if now - self._responds_since >= PROBES_BEFORE_UP * PROBE_INTERVAL_S:
            self._slow_calls.clear()  # they are of the outage
            self.is_up, self._down_reason = True, None
            log.info("shared-state-up", instance=self.instance, instances=self.instances)

    async def _limited(self, operation: Callable[[], Coroutine[Any, Any, None]], seconds: float) -> bool:
        """Run an operation for at most `seconds`; return whether it succeeded."""
        task = asyncio.ensure_future(operation())
        timeout = TimeoutError(f"no response within {seconds:g} s")
        try:
            failure = task.exception() if await _wait(task, seconds) else timeout
        finally:
            await _cancel(task)
        if failure is not None:
            self._fail(failure)
        return failure is None

    async def _connect(self) -> None:
        # Connections that were idle during an outage can be dead without being closed.
        await self.client.connection_pool.disconnect(inuse_connections=False)
        await self._write()

    async def _write(self) -> None:
        keys = [self.key("instances"), self.key("instances", "generation")]
        arguments = (self.instance, INSTANCE_TIMEOUT_S, secrets.token_hex(8), GENERATION_TTL_S)
        count, self.generation = await self._register(keys, arguments)
        self.instances = max(int(count), 1 if self.is_up else self.instances)

    async def _call_on_up(self) -> None:
        for callback in self._on_up:
            await callback()

    async def _unregister(self) -> None:
        try:
            await self.client.zrem(self.key("instances"), self.instance)
        finally:
            await self.client.aclose()


async def _wait(task: asyncio.Task[Any], seconds: float) -> bool:
    """Wait at most `seconds` for a task; return whether it is done.

    Time in which the event loop is busy does not count, up to TIMEOUT_S: a response that has arrived takes
    several iterations of the loop to its caller, and each can take long.
    """
    loop = asyncio.get_running_loop()
    step, remaining, ends_at = max(_STEP_S, seconds / 10), seconds, loop.time() + seconds + TIMEOUT_S
    while not task.done() and remaining > 0 and loop.time() < ends_at:
        expected = loop.time() + step
        await asyncio.wait({task}, timeout=step)
        if loop.time() - expected < _STEP_S:
            remaining -= step
    return task.done()


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
