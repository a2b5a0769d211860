"""Limits of open streams and long polls per token, per owner and in total."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.domain.access import Token
from jobsvc.domain.errors import TooManyStreams
from jobsvc.web.ratelimit.stream_slots import StreamSlots


def token(owner: str, name: str = "a") -> Token:
    return Token(f"{owner}-{name}", owner, frozenset(), bytes(32), 0.0)


def open_all(slots: StreamSlots, open_streams: ExitStack, holder: Token) -> int:
    """Open as many streams as the token gets; return their number."""
    count = 0
    try:
        while True:
            open_streams.enter_context(slots.hold(holder))
            count += 1
    except TooManyStreams:
        return count


def test_token_gets_up_to_its_limit() -> None:
    refused: list[str] = []
    slots = StreamSlots(100, 3, refused.append)
    with ExitStack() as open_streams:
        assert open_all(slots, open_streams, token("anna", "a")) == 3
        assert open_all(slots, open_streams, token("anna", "b")) == 3
    assert refused == ["token", "token"]


def test_owner_gets_half_of_all_slots_and_the_next_owner_half_of_the_rest() -> None:
    refused: list[str] = []
    slots = StreamSlots(100, 64, refused.append)
    with ExitStack() as open_streams:
        assert sum(open_all(slots, open_streams, token("anna", str(n))) for n in range(17)) == 50
        assert sum(open_all(slots, open_streams, token("bob", str(n))) for n in range(17)) == 25
        assert open_all(slots, open_streams, token("carl")) == 13
    assert set(refused) == {"owner"}


def test_nothing_is_opened_when_all_slots_are_taken() -> None:
    refused: list[str] = []
    slots = StreamSlots(2, 64, refused.append)
    with ExitStack() as open_streams:
        assert [open_all(slots, open_streams, token(owner)) for owner in ("anna", "bob", "carl")] == [1, 1, 0]
    assert refused == ["owner", "all", "all"]


def test_closed_stream_frees_its_slot() -> None:
    slots = StreamSlots(10, 1, lambda _limit: None)
    for _ in range(3):
        with slots.hold(token("anna")), pytest.raises(TooManyStreams), slots.hold(token("anna")):
            pass
    assert not slots._by_token
    assert not slots._by_owner


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=200))
def test_new_owner_gets_a_slot_while_there_are_fewer_owners_than_slots(
    steps: list[tuple[str, bool]],
) -> None:
    slots = StreamSlots(64, 64, lambda _limit: None)
    with ExitStack() as last:
        held: dict[str, list[ExitStack]] = {}
        for owner, opens in steps:
            if not opens and held.get(owner):
                held[owner].pop().close()
                continue
            one = ExitStack()
            try:
                one.enter_context(slots.hold(token(owner)))
            except TooManyStreams:
                continue
            held.setdefault(owner, []).append(one)
            last.push(one)
        with slots.hold(token("newcomer")):
            pass
