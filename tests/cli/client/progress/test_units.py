from __future__ import annotations

import pytest

from jobsvc.cli.client.progress.units import (
    format_clock,
    format_duration,
    format_rate,
    format_size,
)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (146_789, "143 KiB"),
        (1023 * 1024, "1023 KiB"),
        (1024 * 1024 - 1, "1.00 MiB"),
        (1_331_439_862, "1.24 GiB"),
        (50 << 40, "50.0 TiB"),
        (5000 << 50, "5000 PiB"),
    ],
)
def test_size_has_three_digits_and_a_unit(size: int, text: str) -> None:
    assert format_size(size) == text


def test_rate_is_a_size_each_second() -> None:
    assert format_rate(2.5 * 1024 * 1024) == "2.50 MiB/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.95, "9.9 s"),
        (42.9, "42 s"),
        (60, "1 min 0 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (100_800, "1 d 4 h"),
    ],
)
def test_duration_has_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.9, "0:04"), (200, "3:20"), (7500, "2:05:00"), (101_410, "1 d 04:10:10")],
)
def test_clock_has_a_fixed_form(seconds: float, text: str) -> None:
    assert format_clock(seconds) == text
