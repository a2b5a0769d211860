from __future__ import annotations

from dataclasses import dataclass
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from jobsvc.web.ratelimit.sliding_window import Rate, WindowCounter, WindowState


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock(6000.0)


def passed(counter: WindowCounter, tries: int, key: str = "key") -> int:
    return sum(counter.try_acquire(key) for _ in range(tries))


def test_burst_passes_exactly_the_limit(clock: Clock) -> None:
    assert passed(WindowCounter(Rate(10, 60), clock=clock), 200) == 10


def test_refused_requests_are_not_counted(clock: Clock) -> None:
    counter = WindowCounter(Rate(10, 60), clock=clock)
    passed(counter, 200)
    clock.now += 60 + 30
    assert passed(counter, 200) == 5


def test_previous_window_is_weighted_by_its_overlap(clock: Clock) -> None:
    clock.now = 6400.0
    counter = WindowCounter(Rate(64, 64), clock=clock)
    passed(counter, 64)
    for second in range(1, 64):
        clock.now = 6464.0 + second
        assert passed(counter, 200) == 1


def test_after_two_windows_nothing_is_remembered(clock: Clock) -> None:
    counter = WindowCounter(Rate(10, 60), clock=clock)
    passed(counter, 10)
    clock.now += 120
    assert counter.window_state("key").remaining() == 10
    assert passed(counter, 200) == 10


def test_keys_are_independent(clock: Clock) -> None:
    counter = WindowCounter(Rate(10, 60), clock=clock)
    assert [passed(counter, 20, key) for key in "abc"] == [10, 10, 10]


def test_reading_the_state_counts_nothing_and_stores_no_key(clock: Clock) -> None:
    counter = WindowCounter(Rate(10, 60), clock=clock)
    for _ in range(20):
        assert counter.window_state("key") == WindowState(0, 0, 60, 10, 60)
    assert len(counter) == 0


def test_expired_keys_are_dropped_as_others_arrive(clock: Clock) -> None:
    counter = WindowCounter(Rate(10, 60), clock=clock)
    for minute in range(50):
        clock.now = 6000.0 + 60 * minute
        for number in range(20):
            counter.try_acquire(f"{minute}-{number}")
    assert len(counter) <= 2 * 20


def test_oldest_keys_are_dropped_above_the_maximum(clock: Clock) -> None:
    counter = WindowCounter(Rate(1, 60), clock=clock, keys_cap=100)
    for number in range(1000):
        counter.try_acquire(str(number))
        assert len(counter) <= 100
    assert not counter.try_acquire("999")
    assert counter.try_acquire("0")


def test_key_in_use_is_not_dropped_as_oldest(clock: Clock) -> None:
    counter = WindowCounter(Rate(2, 60), clock=clock, keys_cap=3)
    for key in "abc":
        counter.try_acquire(key)
    clock.now += 60
    counter.try_acquire("a")
    counter.try_acquire("d")
    assert counter.window_state("a").current == 1
    assert counter.window_state("b") == (0, 0, 60, 2, 60)


# Windows of 2**n seconds at whole 64ths of a second, so that both sides' arithmetic is exact.
steps = st.lists(st.tuples(st.integers(0, 64 * 40), st.integers(1, 12)), min_size=1, max_size=40)


@given(steps, st.integers(1, 20), st.sampled_from([1, 4, 16, 32]))
async def test_counter_admits_what_the_limits_library_admits(
    moves: list[tuple[int, int]], limit: int, window: int
) -> None:
    item, clock = RateLimitItemPerSecond(limit, window), Clock(2.0**30)
    counter = WindowCounter(Rate(limit, window), clock=clock)
    theirs = SlidingWindowCounterRateLimiter(MemoryStorage())
    with mock.patch("limits.aio.storage.memory.time.time", clock):
        for pause, tries in moves:
            clock.now += pause / 64
            for _ in range(tries):
                assert counter.try_acquire("key") == await theirs.hit(item, "key")


@st.composite
def exhausted_counter(draw: st.DrawFn) -> tuple[WindowCounter, Clock]:
    """A counter that refuses, in whatever state that is."""
    rate = Rate(draw(st.integers(1, 700)), draw(st.sampled_from([1, 7, 10, 60, 3600])))
    clock = Clock(draw(st.floats(0, 2e9)))
    counter = WindowCounter(rate, clock=clock)
    for pause in draw(st.lists(st.floats(0, 2.5 * rate.seconds), max_size=4)):
        passed(counter, draw(st.integers(0, rate.amount)))
        clock.now += pause
    while counter.try_acquire("key"):
        pass
    return counter, clock


@given(exhausted_counter())
def test_request_passes_after_the_reported_wait(state: tuple[WindowCounter, Clock]) -> None:
    counter, clock = state
    seconds = counter.window_state("key").wait()
    assert seconds >= 1
    clock.now += seconds
    assert counter.window_state("key").remaining() >= 1
    assert counter.try_acquire("key")


@given(steps, st.integers(1, 20), st.sampled_from([1, 4, 16, 32]))
def test_one_in_ten_refunded_requests_counts_and_none_twice(
    moves: list[tuple[int, int]], limit: int, window: int
) -> None:
    """A key with refunded requests alone gets ten times as many and no more."""
    clock = Clock(2.0**30)
    counter = WindowCounter(Rate(limit, window), clock=clock)
    admitted = 0
    for _ in range(10 * limit + 30):
        if counter.try_acquire("key"):
            admitted += 1
            counter.refund("key", 10)
    assert admitted == 10 * limit
    for pause, tries in moves:
        clock.now += pause / 64
        for _ in range(tries):
            before = counter.window_state("key")
            if counter.try_acquire("key"):
                counter.refund("key", 10)
            assert 0 <= counter.window_state("key").current - before.current <= 1 <= limit


def test_refund_without_a_window_does_nothing(clock: Clock) -> None:
    counter = WindowCounter(Rate(2, 60), clock=clock)
    counter.refund("key", 10)
    assert len(counter) == 0
    counter.try_acquire("key")
    clock.now += 60
    counter.try_acquire("key")
    for _ in range(5):
        counter.refund("key", 10)
    assert counter.window_state("key")[:2] == (1, 0)


@given(exhausted_counter(), st.floats(0, 5000))
def test_request_passes_at_any_later_time(state: tuple[WindowCounter, Clock], later: float) -> None:
    counter, clock = state
    clock.now += counter.window_state("key").wait() + later
    assert counter.try_acquire("key")


@given(exhausted_counter())
def test_wait_is_not_a_second_longer_than_necessary(state: tuple[WindowCounter, Clock]) -> None:
    counter, clock = state
    seconds = counter.window_state("key").wait()
    clock.now += max(seconds - 1.01, 0)
    assert not counter.try_acquire("key")


def used_up_at_zero(limit: int, window: int) -> tuple[WindowCounter, Clock]:
    clock = Clock(0.0)
    counter = WindowCounter(Rate(limit, window), clock=clock)
    passed(counter, limit)
    return counter, clock


@given(exhausted_counter(), st.floats(0, 4000))
# The weight of the previous window is so close below an integer that the sum is rounded up to it.
@example(used_up_at_zero(220, 3600), 6398.181818181818)
@example(used_up_at_zero(316, 60), 76.51898734177216)
def test_as_many_requests_pass_as_were_reported_remaining(
    state: tuple[WindowCounter, Clock], later: float
) -> None:
    counter, clock = state
    clock.now += later
    left = counter.window_state("key").remaining()
    assert (counter.window_state("key").wait() == 0) == (left > 0)
    assert counter.remaining("key") == (left, counter.window_state("key").ends_in)
    assert passed(counter, left + 5) == left


@given(exhausted_counter(), st.floats(0, 4000))
def test_consuming_returns_what_remains(state: tuple[WindowCounter, Clock], later: float) -> None:
    counter, clock = state
    clock.now += later
    left = counter.window_state("key").remaining()
    for _ in range(min(left, 20)):
        assert counter.consume("key") == counter.remaining("key")
    if left <= 20:
        assert counter.consume("key") is None


@pytest.mark.parametrize(
    ("standing", "seconds"),
    [
        (WindowState(0, 10, 30.0, 10, 60), 31),
        (WindowState(0, 10, 0.4, 10, 60), 1),
        (WindowState(0, 9, 30.0, 10, 60), 0),
        (WindowState(10, 5, 30.0, 10, 60), 1),
        (WindowState(10, 5, 45.0, 10, 60), 16),
        (WindowState(600, 0, 60.0, 600, 60), 1),
    ],
)
def test_wait_equals_values_computed_by_hand(standing: WindowState, seconds: int) -> None:
    assert standing.wait() == seconds


def test_counts_remain_when_the_rate_changes(clock: Clock) -> None:
    counter = WindowCounter(Rate(10, 60), clock=clock)
    passed(counter, 10)
    counter.set_rate(Rate(15, 60))
    assert passed(counter, 200) == 5
    counter.set_rate(Rate(3, 60))
    assert passed(counter, 200) == 0
    assert counter.window_state("key").remaining() == 0


def test_counting_begins_anew_when_the_period_changes(clock: Clock) -> None:
    counter = WindowCounter(Rate(10, 60), clock=clock)
    passed(counter, 10)
    counter.set_rate(Rate(2, 3600))
    assert passed(counter, 200) == 2
