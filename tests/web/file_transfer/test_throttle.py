"""`Throttle`: the rate of one transfer, with a clock that the test advances."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.web.file_transfer.throttle import BURST_S, SLICE_S, Throttle

rates = st.one_of(st.integers(1, 100), st.integers(1, 10**9), st.just(2**53))


class Clock:
    """Seconds that advance only when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Stream:
    """A transfer that uses its throttle as the service does; only the clock's time passes."""

    def __init__(self, rate: int) -> None:
        self.clock = Clock()
        self.rate = rate
        self.throttle = Throttle(rate, lambda _seconds: None, self.clock)
        self.sent: list[tuple[float, int]] = []
        """Time and number of bytes of each slice."""

    def step(self, left: int, *, late: float = 0.0, taken: float = 1.0) -> int:
        """Wait as returned, and `late` seconds more; the client reads a part of what may be sent, at least a
        byte.
        """
        self.clock.now += max(self.throttle.wait(left), 0) + late
        earned = self.throttle.available(left)
        assert 0 < earned <= left
        count = max(1, int(earned * taken))
        self.throttle.consume(count)
        self.sent.append((self.clock.now, count))
        return count

    def all(self, size: int) -> None:
        while size:
            size -= self.step(size)


moves = st.lists(st.tuples(st.integers(1, 10**9), st.floats(0, 3), st.floats(0, 1)), min_size=1, max_size=40)


@given(rates, moves)
def test_no_interval_gets_more_than_its_rate_and_a_quarter_second(
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
def test_small_transfers_get_no_more_than_the_rate(rate: int, moves: list[tuple[int, float, float]]) -> None:
    """A client that returns again and again, a byte at a time, does not get more."""
    stream = Stream(rate)
    for left, late, taken in moves:
        stream.step(left, late=late, taken=taken)
        sent = sum(count for _, count in stream.sent)
        assert sent <= rate * (stream.clock.now - 1_000) + 1 + rate * 1e-9


@given(st.integers(1, 10**9), st.integers(1, 200))
def test_fast_client_gets_exactly_the_rate(rate: int, tenths: int) -> None:
    size = max(rate * tenths // 10, 1)
    stream = Stream(rate)
    stream.all(size)
    assert stream.clock.now - 1_000 == pytest.approx(size / rate, rel=1e-6, abs=1e-6)


@given(rates, st.floats(0, 0.1))
def test_late_timers_do_not_slow_the_transfer(rate: int, late: float) -> None:
    stream, steps = Stream(rate), 50
    for _ in range(steps):
        stream.step(10**18, late=late)
    seconds = stream.clock.now - 1_000
    assert sum(count for _, count in stream.sent) >= rate * (seconds - late) * (1 - 1e-6) - 1 - steps


@given(rates)
def test_slices_and_waits_are_small(rate: int) -> None:
    stream = Stream(rate)
    for _ in range(20):
        assert stream.throttle.wait(10**18) <= max(SLICE_S, 1 / rate) + 1e-6
        assert stream.step(10**18) <= max(rate * SLICE_S, 1) + 1 + rate * 1e-6


def test_stall_earns_at_most_a_quarter_second() -> None:
    stream = Stream(1_000)
    stream.step(10_000)
    stream.clock.now += 60
    assert stream.step(10_000) == 250
    assert stream.step(10_000) == 100


def test_last_bytes_wait_only_for_their_own_time() -> None:
    stream = Stream(1_000)
    assert stream.throttle.wait(10) == pytest.approx(0.01)
    assert stream.step(10) == 10


async def test_only_actual_waits_are_reported() -> None:
    waits: list[float] = []
    throttle = Throttle(10_000, waits.append)
    started_at = time.monotonic()
    assert await throttle.acquire(100) == 100
    assert len(waits) == 1
    assert 0.005 < waits[0] <= time.monotonic() - started_at
    throttle._paid_until -= 1
    assert await throttle.acquire(5_000) == 2_500
    assert len(waits) == 1
