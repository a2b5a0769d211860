from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.domain.timestamp import (
    FIRST_TIME,
    LAST_TIME,
    format_time,
    format_timestamp,
    normalize,
    parse_time,
    parse_timestamp,
    timestamp_at,
    to_microseconds,
)

TEXTS = st.from_regex(
    r"\A[0-9]{4}-[01][0-9]-[0-3][0-9][Tt ][012][0-9]:[0-5][0-9]:[0-6][0-9]"
    r"(\.[0-9]{1,9})?([Zz]|[+-][012][0-9]:[0-9]{2}|[+]00:00)\Z"
)


@given(text=TEXTS)
def test_timestamp_keeps_its_text_except_for_t_and_z(text: str) -> None:
    with suppress(ValueError):
        meant = parse_time(text)
        timestamp = parse_timestamp(text)
        assert format_timestamp(timestamp) == normalize(text) == f"{text[:10]}T{text[11:].upper()}"
        assert to_microseconds(timestamp) == meant


@given(text=TEXTS | st.text(max_size=40))
def test_invalid_text_is_not_a_timestamp(text: str) -> None:
    try:
        parse_time(text)
    except ValueError:
        for read in (parse_timestamp, normalize):
            with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
                read(text)


@pytest.mark.parametrize("fraction", ["", ".5", ".123", ".000", ".123456", ".000001"])
@pytest.mark.parametrize("offset", ["Z", "z", "+00:00"])
@pytest.mark.parametrize("date", ["2026-11-20", "0001-01-01", "9999-12-31", "1969-12-31"])
def test_usual_timestamps_are_stored_as_one_int(fraction: str, offset: str, date: str) -> None:
    timestamp = parse_timestamp(f"{date}t23:59:59{fraction}{offset}")
    assert isinstance(timestamp, str if fraction == ".5" else int)
    assert format_timestamp(timestamp) == f"{date}T23:59:59{fraction}{offset.upper()}"


@given(micros=st.integers(FIRST_TIME, LAST_TIME))
def test_file_time_is_formatted_to_the_millisecond_and_sorted_by_the_microsecond(micros: int) -> None:
    timestamp = timestamp_at(micros)
    assert to_microseconds(timestamp) == micros
    assert format_timestamp(timestamp) == format_time(micros)
    assert 0 <= micros - parse_time(format_timestamp(timestamp)) < 1000
