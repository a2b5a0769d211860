"""Limits of open streams and long polls per token, per owner and in total."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.domain.access import Token
from jobsvc.domain.errors import TooManyStreams
from jobsvc.web.ratelimit.stream_slots import StreamSlots


def token(owner: str, name: str = "a") -> Token:
    return Token(f"{owner}-{name}", owner, frozenset(), bytes(32), 0.0)


async def open_all(slots: StreamSlots, open_streams: AsyncExitStack, holder: Token) -> int:
    """Open as many streams as the token gets; return their number."""
    count = 0
    try:
        while True:
            await open_streams.enter_async_context(slots.hold(holder))
            count += 1
    except TooManyStreams:
        return count


async def test_token_gets_up_to_its_limit() -> None:
    refused: list[str] = []
    slots = StreamSlots(100, 3, refused.append)
    async with AsyncExitStack() as open_streams:
        assert await open_all(slots, open_streams, token("anna", "a")) == 3
        assert await open_all(slots, open_streams, token("anna", "b")) == 3
    assert refused == ["token", "token"]


async def test_owner_gets_half_of_all_slots_and_the_next_owner_half_of_the_rest() -> None:
    refused: list[str] = []
    slots = StreamSlots(100, 64, refused.append)
    async with AsyncExitStack() as open_streams:
        assert sum([await open_all(slots, open_streams, token("anna", str(n))) for n in range(17)]) == 50
        assert sum([await open_all(slots, open_streams, token("bob", str(n))) for n in range(17)]) == 25
        assert await open_all(slots, open_streams, token("carl")) == 13
    assert set(refused) == {"owner"}


async def test_nothing_is_opened_when_all_slots_are_taken() -> None:
    refused: list[str] = []
    slots = StreamSlots(2, 64, refused.append)
    async with AsyncExitStack() as open_streams:
        assert [await open_all(slots, open_streams, token(owner)) for owner in ("anna", "bob", "carl")] == [
            1,
            1,
            0,
        ]
    assert refused == ["owner", "all", "all"]


async def test_closed_stream_frees_its_slot() -> None:
    slots = StreamSlots(10, 1, lambda _limit: None)
    for _ in range(3):
        async with slots.hold(token("anna")):
            with pytest.raises(TooManyStreams):
                await slots.hold(token("anna")).__aenter__()
    assert not slots._by_token
    assert not slots._by_owner


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=200))
async def test_new_owner_gets_a_slot_while_there_are_fewer_owners_than_slots(
    steps: list[tuple[str, bool]],
) -> None:
    slots = StreamSlots(64, 64, lambda _limit: None)
    async with AsyncExitStack() as last:
        held: dict[str, list[AsyncExitStack]] = {}
        for owner, opens in steps:
            if not opens and held.get(owner):
                await held[owner].pop().aclose()
                continue
            one = AsyncExitStack()
            try:
                await one.enter_async_context(slots.hold(token(owner)))
            except TooManyStreams:
                continue
            held.setdefault(owner, []).append(one)
            last.push_async_exit(one)
        async with slots.hold(token("newcomer")):
            pass
