from __future__ import annotations

import pytest

from jobsvc.cli.client.progress.rate import RateMeter


def test_bytes_of_an_earlier_run_do_not_count() -> None:
    meter = RateMeter()
    meter.add(0.0, 1_000_000)
    assert meter.rate(0.0) == 0
    meter.add(2.0, 1_000_500)
    assert meter.rate(2.0) == 250


def test_only_the_last_seconds_count() -> None:
    meter = RateMeter()
    for second in range(60):
        meter.add(second, 1000 * min(second, 30))
    for second in range(60, 90):
        meter.add(second, 30_000 + 10 * (second - 59))
    assert meter.rate(89) == pytest.approx(10)


def test_rate_falls_while_nothing_arrives() -> None:
    meter = RateMeter()
    meter.add(0.0, 0)
    meter.add(1.0, 1000)
    assert meter.rate(10.0) == 100
    assert meter.idle_s(10.0) == 9


def test_repeated_progress_is_no_new_data() -> None:
    meter = RateMeter()
    assert (meter.rate(5.0), meter.idle_s(5.0)) == (0, 0)
    meter.add(0.0, 10)
    meter.add(4.0, 10)
    assert meter.idle_s(4.0) == 4


def test_download_that_starts_over_is_measured_anew() -> None:
    meter = RateMeter()
    meter.add(0.0, 5000)
    meter.add(1.0, 9000)
    meter.add(2.0, 100)
    assert meter.rate(2.0) == 0
    meter.add(3.0, 300)
    assert meter.rate(3.0) == 200
