"""Slots of all instances together, as leases in Redis that end with their process.

A lease is a member of a sorted set for each limit that applies to it, scored by when it expires on the
server's clock. A process extends its leases while it runs, and adds them again after Redis was down or has
lost its data.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Final, TypeAlias

from jobsvc.shared_state.connection import TIMEOUT_S, SharedStateConnection, SharedStateUnavailable

LEASE_S: Final = 20.0
"""Seconds after which the leases of a process that was killed expire."""
EXTEND_INTERVAL_S: Final = 5.0
"""Seconds between two extensions of all leases; three may fail before a lease expires."""
RETRY_INTERVAL_S: Final = 1.0
"""Seconds after which leases that could not be extended or removed are tried again."""
MEMBERS_PER_CALL: Final = 500
"""Maximum number of members that one call extends or removes: it blocks Redis for about a millisecond."""

_ACQUIRE: Final = """
-- KEYS: a sorted set for each limit. ARGV: milliseconds of a lease, the member, then the limit of each set.
-- Adds the member to all sets and returns 0, or returns the index of the first set that is full.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i, key in ipairs(KEYS) do
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    if redis.call('ZCARD', key) >= tonumber(ARGV[i + 2]) then
        return i
    end
end
for _, key in ipairs(KEYS) do
    redis.call('ZADD', key, now + ARGV[1], ARGV[2])
    redis.call('PEXPIRE', key, ARGV[1])
end
return 0
"""
_EXTEND: Final = """
-- KEYS: the sorted set of each member. ARGV: milliseconds of a lease, then the members.
local time = redis.call('TIME')
local expires = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
for i, key in ipairs(KEYS) do
    redis.call('ZADD', key, expires, ARGV[i + 1])
    redis.call('PEXPIRE', key, ARGV[1])
end
"""
_REMOVE: Final = """
-- KEYS: the sorted set of each member. ARGV: the members.
for i, key in ipairs(KEYS) do
    redis.call('ZREM', key, ARGV[i])
end
"""

LimitKey: TypeAlias = tuple[str, ...]
"""What a limit is for, the kind of limit first: `("token", ID)`, `("owner", NAME)` or `("all",)`."""


class LimitReached(Exception):
    """No slot is free; `kind` is the kind of the limit that is reached."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind: Final = kind


class Lease:
    """A leased slot: a context manager that releases it, without waiting."""

    __slots__ = ("_release", "is_released", "keys", "member")

    def __init__(self, keys: list[str], member: str, release: Callable[[Lease], None]) -> None:
        """`keys` are those of the sorted sets that have `member`."""
        self.keys = keys
        self.member = member
        self.is_released = False
        self._release = release

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_exc: object) -> None:
        self._release(self)


class SlotLeases:
    """Leases of one kind of slot: `downloads`, `logs` or `streams`. Belongs to the event loop."""

    def __init__(self, connection: SharedStateConnection, kind: str) -> None:
        self._connection = connection
        self._kind = kind
        self._process = secrets.token_hex(8)  # two processes could be given the same instance name
        self._numbers = count()
        client = connection.client
        self._acquire_script = client.register_script(_ACQUIRE)
        self._extend_script = client.register_script(_EXTEND)
        self._remove_script = client.register_script(_REMOVE)
        self._held: set[Lease] = set()
        self._to_remove: dict[Lease, float] = {}
        """Released leases that Redis may still have, and when they were released (the loop's clock)."""
        self._extend_at = 0.0
        """When all leases are extended next (the loop's clock)."""
        self._wake = asyncio.Event()
        """Set if there are leases to remove, or to extend sooner."""
        self._lock = asyncio.Lock()
        """Held while leases are extended or removed: a lease that was released meanwhile is removed later."""
        connection.on_up(self.extend)

    async def acquire(self, limits: Mapping[LimitKey, int]) -> Lease:
        """Lease a slot below each of these limits. Raises LimitReached.

        While Redis cannot be used, the slot is held in this process only, and added when it can.
        """
        keys = [self._connection.key(self._kind, *limit) for limit in limits]
        lease = Lease(keys, f"{self._process}:{next(self._numbers)}", self._release)
        try:
            full = await self._connection.call(lambda: self._request(lease, limits.values()))
        except SharedStateUnavailable:
            full = 0
            self._extend_within(RETRY_INTERVAL_S)
        except BaseException:
            self._release(lease)
            raise
        if full:
            raise LimitReached(list(limits)[full - 1][0])
        self._held.add(lease)
        return lease

    async def extend(self) -> None:
        """Remove released leases from Redis and extend, or add, all others."""
        await self._remove_released()
        async with self._lock:
            self._extend_at = asyncio.get_running_loop().time() + EXTEND_INTERVAL_S
            for keys, members in _batches(list(self._held)):
                await self._extend_script(keys, [_lease_ms(), *members])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Extend the leases, and remove released ones, while the block runs."""
        task = asyncio.create_task(self._run(), name=f"jobsvc-leases-{self._kind}")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _request(self, lease: Lease, limits: Iterable[int]) -> int:
        """Return 0, or the number of the limit that is reached.

        This can end after its caller: a lease that was released meanwhile is removed then.
        """
        full = int(await self._acquire_script(lease.keys, [_lease_ms(), lease.member, *limits]))
        if not full and lease.is_released:
            self._release(lease)
        return full

    def _release(self, lease: Lease) -> None:
        lease.is_released = True
        self._held.discard(lease)
        self._to_remove[lease] = asyncio.get_running_loop().time()
        self._wake.set()

    def _extend_within(self, seconds: float) -> None:
        self._extend_at = min(self._extend_at, asyncio.get_running_loop().time() + seconds)
        self._wake.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._extend_at):
                    await self._wake.wait()
            update = self.extend if loop.time() >= self._extend_at else self._remove_released
            try:
                await self._connection.call(update, wait_s=TIMEOUT_S)
            except SharedStateUnavailable:
                self._forget_expired(loop.time() - LEASE_S)
                self._extend_within(RETRY_INTERVAL_S)
                await asyncio.sleep(RETRY_INTERVAL_S)

    async def _remove_released(self) -> None:
        async with self._lock:
            released, self._to_remove = self._to_remove, {}
            self._wake.clear()
            try:
                for keys, members in _batches(list(released)):
                    await self._remove_script(keys, members)
            except BaseException:
                self._to_remove = released | self._to_remove
                self._wake.set()
                raise

    def _forget_expired(self, released_before: float) -> None:
        """Forget leases that have expired by themselves, because they were not extended since then."""
        self._to_remove = {lease: at for lease, at in self._to_remove.items() if at >= released_before}


def _lease_ms() -> int:
    return round(LEASE_S * 1000)


def _batches(leases: list[Lease]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the keys and members of leases for one call after the other."""
    pairs = [(key, lease.member) for lease in leases for key in lease.keys]
    for start in range(0, len(pairs), MEMBERS_PER_CALL):
        batch = pairs[start : start + MEMBERS_PER_CALL]
        yield [key for key, _ in batch], [member for _, member in batch]
