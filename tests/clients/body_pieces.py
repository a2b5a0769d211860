"""Bodies of responses as iterators of pieces, and what faults make of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

PIECE: Final = 1 << 18
"""Maximum bytes that are relayed at once."""
STALL_S: Final = 10.0
"""Seconds without a byte, longer than a client under test waits."""


class Cut(Exception):
    """The connection to the client is to be reset now."""


async def pieces_of(body: bytes) -> AsyncIterator[bytes]:
    """Yield a body that is in memory."""
    for start in range(0, len(body), PIECE):
        yield body[start : start + PIECE]


async def first(body: AsyncIterator[bytes], count: int) -> AsyncIterator[bytes]:
    async for piece in body:
        if count > 0:
            yield piece[:count]
        count -= len(piece)
        if count <= 0:
            return


async def followed_by(body: AsyncIterator[bytes], extra: bytes) -> AsyncIterator[bytes]:
    async for piece in body:
        yield piece
    yield extra


async def flipped(body: AsyncIterator[bytes], position: int) -> AsyncIterator[bytes]:
    async for piece in body:
        changed = bytearray(piece)
        if 0 <= position < len(piece):
            changed[position] ^= 1
        position -= len(piece)
        yield bytes(changed)


async def in_small_pieces(body: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    remaining = 20
    async for piece in body:
        rest = piece
        while remaining > 0 and rest:
            yield rest[:size]
            rest, remaining = rest[size:], remaining - 1
            await asyncio.sleep(0.001)
        if rest:
            yield rest


async def cut_after(body: AsyncIterator[bytes], count: int) -> AsyncIterator[bytes]:
    async for piece in first(body, count):
        yield piece
    await asyncio.sleep(0)  # what was written is sent before the reset
    raise Cut


async def stall_after(body: AsyncIterator[bytes], count: int) -> AsyncIterator[bytes]:
    async for piece in first(body, count):
        yield piece
    await asyncio.sleep(STALL_S)
    raise Cut
