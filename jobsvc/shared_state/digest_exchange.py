"""Exchange of digests between instances through a Redis stream: what one has computed, all know.

See https://redis.io/docs/latest/develop/data-types/streams/. The stream is read once per second, not by a
call that waits for entries: such a call could not be told from one to a server that hangs.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import Final, NamedTuple, TypeAlias

from jobsvc.shared_state.connection import TIMEOUT_S, SharedStateConnection, SharedStateUnavailable

MAX_DIGESTS: Final = 100_000
"""Digests that the stream keeps, about; a new instance starts with these."""
MAX_UNSENT: Final = 10_000
"""Digests computed while Redis is down that are sent afterwards; the oldest is dropped first."""
DIGESTS_PER_CALL: Final = 100
"""Maximum number of digests that one call sends or receives: each keeps the event loop busy."""
INTERVAL_S: Final = 1.0
"""Seconds between two calls that send and receive."""
CLAIM_S: Final = 30.0
"""Seconds for which a process that hashes a file keeps others from hashing it; it claims again meanwhile."""

_CLAIM: Final = """
-- KEYS: a claim. ARGV: the process and milliseconds. Returns whether the process has the claim now.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

Position: TypeAlias = tuple[int, int]
"""The id of an entry of the stream: milliseconds and a sequence number."""
_BEGINNING: Final = (0, 0)


class _Batch(NamedTuple):
    newest: Position
    """The last entry of the stream."""
    entries: list[tuple[Position, dict[bytes, bytes]]]


class DigestExchange:
    """Publishes and receives digests. Belongs to the event loop."""

    def __init__(self, connection: SharedStateConnection) -> None:
        self._connection = connection
        self._stream = connection.key("digests")
        self._process = secrets.token_hex(8)
        self._claim_script = connection.client.register_script(_CLAIM)
        self._unsent: deque[tuple[str, bytes]] = deque(maxlen=MAX_UNSENT)
        self._position = _BEGINNING
        """The last entry that was received."""

    def publish(self, key: str, entry: bytes) -> None:
        """Send a digest to all instances, without waiting; if Redis is down, when it can be used again."""
        self._unsent.append((key, entry))

    async def claim(self, key: str, version: bytes) -> bool:
        """Return whether this process should hash this version of a file: no other one does.

        True while Redis cannot be used. The claim lasts CLAIM_S; then it can be claimed by any.
        """
        claim = self._connection.key("digests", "claims", key, version.hex())
        arguments = (self._process, round(CLAIM_S * 1000))
        try:
            return bool(await self._connection.call(lambda: self._claim_script([claim], arguments)))
        except SharedStateUnavailable:
            return True

    async def run(
        self, on_digest: Callable[[str, bytes], object], known: Callable[[], Mapping[str, bytes]]
    ) -> None:
        """Send what is published, and call `on_digest` for each digest in the stream, until cancelled.

        It gets digests of this process, too, and anything else that is in the stream: it has to check them.
        If the stream is empty, one process sends all that it has: `known` returns them.
        """
        while True:
            try:
                await self._send()
                is_last = await self._receive(on_digest)
                if is_last and self._position == _BEGINNING:
                    await self._fill(list(known().items()))
            except SharedStateUnavailable:
                is_last = True
            if is_last:
                await asyncio.sleep(INTERVAL_S)

    async def _fill(self, digests: list[tuple[str, bytes]]) -> None:
        """Send these digests, unless another process sends its own: the stream is empty."""
        if not digests or not await self.claim("", b""):
            return
        for start in range(0, len(digests), DIGESTS_PER_CALL):
            add = partial(self._add, digests[start : start + DIGESTS_PER_CALL])
            await self._connection.call(add, wait_s=TIMEOUT_S)

    async def _send(self) -> None:
        while batch := list(islice(self._unsent, DIGESTS_PER_CALL)):
            await self._connection.call(partial(self._add, batch), wait_s=TIMEOUT_S)
            for digest in batch:
                if self._unsent and self._unsent[0] is digest:  # it may have been dropped meanwhile
                    self._unsent.popleft()

    async def _add(self, digests: list[tuple[str, bytes]]) -> None:
        pipeline = self._connection.client.pipeline(transaction=False)
        for key, entry in digests:
            pipeline.xadd(self._stream, {key: entry}, maxlen=MAX_DIGESTS)
        await pipeline.execute()

    async def _receive(self, on_digest: Callable[[str, bytes], object]) -> bool:
        """Receive the next digests; return whether these were all."""
        batch = await self._connection.call(self._read, wait_s=TIMEOUT_S)
        if batch.newest < self._position:
            # The stream was deleted, and the clock of the server has been set back or is another one's.
            self._position = _BEGINNING
            return batch.newest == _BEGINNING
        for position, digests in batch.entries:
            self._position = position
            for key, entry in digests.items():
                on_digest(key.decode("utf-8", "replace"), entry)
        return len(batch.entries) < DIGESTS_PER_CALL

    async def _read(self) -> _Batch:
        milliseconds, number = self._position
        after = f"({milliseconds}-{number}"
        pipeline = self._connection.client.pipeline(transaction=True)
        pipeline.xrevrange(self._stream, count=1)
        pipeline.xrange(self._stream, min=after, count=DIGESTS_PER_CALL)
        newest, entries = await pipeline.execute()
        return _Batch(
            _position(newest[0][0]) if newest else _BEGINNING,
            [(_position(entry_id), digests) for entry_id, digests in entries],
        )


def _position(entry_id: bytes) -> Position:
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number)
