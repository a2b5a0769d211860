"""Laws of the pace of one stream, by a clock that the test turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.web.file_transfer.throttle import BURST_S, SLICE_S, Throttle

rates = st.one_of(st.integers(1, 100), st.integers(1, 10**9), st.just(2**53))


class Clock:
    """Seconds; it stands still until a test turns it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Stream:
    """A transfer that asks its pace as one does, in no time but what passes on the clock."""

    def __init__(self, rate: int) -> None:
        self.clock = Clock()
        self.rate = rate
        self.pace = Throttle(rate, lambda _seconds: None, self.clock)
        self.sent: list[tuple[float, int]] = []
        """When how many bytes went."""

    def step(self, left: int, *, late: float = 0.0, taken: float = 1.0) -> int:
        """Wait as told and `late` seconds more; of what may go the client takes a part, a byte at least."""
        self.clock.now += max(self.pace.wait(left), 0) + late
        earned = self.pace.available(left)
        assert 0 < earned <= left
        count = max(1, int(earned * taken))
        self.pace.consume(count)
        self.sent.append((self.clock.now, count))
        return count

    def all(self, size: int) -> None:
        while size:
            size -= self.step(size)


moves = st.lists(st.tuples(st.integers(1, 10**9), st.floats(0, 3), st.floats(0, 1)), min_size=1, max_size=40)


@given(rates, moves)
def test_no_stretch_of_time_has_more_than_its_rate_and_a_quarter_second(
    rate: int, moves: list[tuple[int, float, float]]
) -> None:
    stream = Stream(rate)
    for left, late, taken in moves:
        stream.step(left, late=late, taken=taken)
    for first in range(len(stream.sent)):
        begin, bytes_in = stream.sent[first][0], 0
        for now, count in stream.sent[first:]:
            bytes_in += count
            assert bytes_in <= rate * (now - begin) + max(rate * BURST_S, 1) + 1 + rate * 1e-9


@given(rates, moves)
def test_nor_does_the_whole_have_more_than_its_rate_however_small_it_is(
    rate: int, moves: list[tuple[int, float, float]]
) -> None:
    """A client that comes again and again, a byte at a time, gets no more by it."""
    stream = Stream(rate)
    for left, late, taken in moves:
        stream.step(left, late=late, taken=taken)
        so_far = sum(count for _, count in stream.sent)
        assert so_far <= rate * (stream.clock.now - 1_000) + 1 + rate * 1e-9


@given(st.integers(1, 10**9), st.integers(1, 200))
def test_a_client_that_keeps_up_has_the_rate_to_the_byte(rate: int, tenths: int) -> None:
    size = max(rate * tenths // 10, 1)
    stream = Stream(rate)
    stream.all(size)
    assert stream.clock.now - 1_000 == pytest.approx(size / rate, rel=1e-6, abs=1e-6)


@given(rates, st.floats(0, 0.1))
def test_timers_that_ring_late_cost_the_stream_nothing(rate: int, late: float) -> None:
    stream, steps = Stream(rate), 50
    for _ in range(steps):
        stream.step(10**18, late=late)
    seconds = stream.clock.now - 1_000
    assert sum(count for _, count in stream.sent) >= rate * (seconds - late) * (1 - 1e-6) - 1 - steps


@given(rates)
def test_slices_are_small_and_so_are_the_waits(rate: int) -> None:
    stream = Stream(rate)
    for _ in range(20):
        assert stream.pace.wait(10**18) <= max(SLICE_S, 1 / rate) + 1e-6
        assert stream.step(10**18) <= max(rate * SLICE_S, 1) + 1 + rate * 1e-6


def test_a_stall_earns_a_quarter_second_and_no_more() -> None:
    stream = Stream(1_000)
    stream.step(10_000)
    stream.clock.now += 60
    assert stream.step(10_000) == 250
    assert stream.step(10_000) == 100


def test_the_last_bytes_wait_for_themselves_alone() -> None:
    stream = Stream(1_000)
    assert stream.pace.wait(10) == pytest.approx(0.01)
    assert stream.step(10) == 10


async def test_what_was_waited_is_told_and_what_was_not_is_not() -> None:
    held: list[float] = []
    pace = Throttle(10_000, held.append)
    assert await pace.acquire(100) == 100
    assert len(held) == 1
    assert 0.005 < held[0] < 1
    pace._paid_until -= 1
    assert await pace.acquire(5_000) == 2_500
    assert len(held) == 1
