"""Download links of all instances, through Redis: which were created, and which are revoked.

Both are sorted sets, scored by when the link expires: records of created links, without their signatures, and
ids of revoked links. What an instance knows to be revoked stays revoked there while Redis is away, and it
adds what Redis lacks: a revocation is lost only if Redis loses its data while no instance runs.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from jobsvc.shared_state.connection import TIMEOUT_S, SharedStateConnection, SharedStateUnavailable
from jobsvc.storage.state.link_record import IssuedLink, is_link_id, parse_issued_link

if TYPE_CHECKING:
    from redis.asyncio import Redis

SYNC_INTERVAL_S: Final = 1.0
MAX_ISSUED: Final = 50_000
"""Created links that Redis has; those that expire first are dropped."""
MAX_WAITING: Final = 10_000
"""Created links that wait while Redis is away; of more, the oldest are not recorded."""
LINKS_PER_CALL: Final = 500
COMMAND_TIMEOUT_S: Final = 10.0
_KEY_TTL_S: Final = 366 * 86_400
"""Longer than the longest lifetime of a link."""

T = TypeVar("T")


class LinkStore:
    """The links in Redis. Methods raise what redis-py raises; times are seconds since the epoch."""

    def __init__(self, connection: SharedStateConnection) -> None:
        self._connection = connection
        self._issued, self._revoked, self._version = (
            connection.key("links", name) for name in ("issued", "revoked", "version")
        )

    async def add_issued(self, links: Sequence[IssuedLink]) -> None:
        """Add created links."""
        async with self._client.pipeline(transaction=False) as calls:
            calls.zremrangebyscore(self._issued, "-inf", _now())
            calls.zadd(self._issued, {link.line(): round(link.expires * 1000) for link in links})
            calls.zremrangebyrank(self._issued, 0, -MAX_ISSUED - 1)
            calls.expire(self._issued, _KEY_TTL_S)
            await calls.execute()

    async def issued(self) -> list[IssuedLink]:
        """Return the created links that have not expired, in the order of their creation."""
        lines = await self._client.zrange(self._issued, f"({_now()}", "inf", byscore=True)
        links = [link for link in map(parse_issued_link, lines) if link is not None]
        return sorted(links, key=lambda link: link.created)

    async def revoke(self, links: Mapping[str, float]) -> None:
        """Add revoked links, by id with the time when they expire."""
        async with self._client.pipeline() as calls:
            calls.zremrangebyscore(self._revoked, "-inf", _now())
            calls.zadd(self._revoked, {link_id: round(expires * 1000) for link_id, expires in links.items()})
            calls.expire(self._revoked, _KEY_TTL_S)
            calls.set(self._version, secrets.token_hex(8), ex=_KEY_TTL_S)
            await calls.execute()

    async def revoked(self) -> dict[str, float]:
        """Return when each revoked link expires, by id; members that are not an id are left out."""
        found = await self._client.zrange(self._revoked, f"({_now()}", "(inf", byscore=True, withscores=True)
        revoked = {member.decode("ascii", "replace"): score / 1000 for member, score in found}
        return {link_id: expires for link_id, expires in revoked.items() if is_link_id(link_id)}

    async def version(self) -> tuple[bytes | None, int]:
        """Return what changes whenever the revoked links do."""
        async with self._client.pipeline(transaction=False) as calls:
            calls.get(self._version)
            calls.zcard(self._revoked)
            version, count = await calls.execute()
        return version, count

    @property
    def _client(self) -> Redis:
        return self._connection.client


class LinkExchange:
    """Sends what this instance knows of links, and receives revocations. Belongs to the event loop."""

    def __init__(
        self,
        connection: SharedStateConnection,
        *,
        known: Callable[[], Mapping[str, float]],
        on_revoked: Callable[[Mapping[str, float]], object],
    ) -> None:
        """`known` returns the revoked links of this instance; `on_revoked` is called with those of Redis.

        By id, with the time when they expire. All that Redis knows when it can be used are there before a
        connection counts as up: at the start, before the first request.
        """
        self._connection = connection
        self._store = LinkStore(connection)
        self._known = known
        self._on_revoked = on_revoked
        self._seen: object = None
        self._waiting: deque[IssuedLink] = deque(maxlen=MAX_WAITING)
        connection.on_up(self._synchronize)

    def record(self, link: IssuedLink) -> None:
        """Record a created link; returns at once."""
        self._waiting.append(link)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Exchange links once a second during the block, and send what waits at its end."""
        task = asyncio.create_task(self._run(), name="jobsvc-links")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            with suppress(SharedStateUnavailable):
                await self._send_issued()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(SYNC_INTERVAL_S)
            with suppress(SharedStateUnavailable):
                await self._connection.call(self._synchronize, wait_s=TIMEOUT_S)
                await self._send_issued()

    async def _synchronize(self) -> None:
        known = self._known()
        state = await self._store.version(), known
        if state == self._seen:
            return
        found = await self._store.revoked()
        self._on_revoked(found)
        missing = {link_id: expires for link_id, expires in known.items() if link_id not in found}
        if missing:
            await self._store.revoke(missing)
        self._seen = None if missing else state  # Redis may lose what was just written

    async def _send_issued(self) -> None:
        while self._waiting:
            links = [self._waiting[place] for place in range(min(len(self._waiting), LINKS_PER_CALL))]
            await self._connection.call(partial(self._store.add_issued, links), wait_s=TIMEOUT_S)
            for _ in links:
                self._waiting.popleft()


async def use_links(url: str, prefix: str, work: Callable[[LinkStore], Awaitable[T]]) -> T:
    """Run `work` with the links in Redis, for a command.

    Raises SharedStateUnavailable with the reason; it contains no password.
    """
    from redis.exceptions import RedisError  # noqa: PLC0415 - slow, see redis_client

    connection = SharedStateConnection(url, prefix=prefix, instance="", on_error=lambda: None)
    try:
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            return await work(LinkStore(connection))
    except TimeoutError as exc:
        raise SharedStateUnavailable(f"no response within {COMMAND_TIMEOUT_S:g} s") from exc
    except (RedisError, OSError) as exc:
        raise SharedStateUnavailable(connection.reason_of(exc)) from exc
    finally:
        await connection.client.aclose()


def _now() -> int:
    return round(time.time() * 1000)
