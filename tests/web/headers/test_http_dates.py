"""HTTP-date (RFC 9110, section 5.6.7): three forms are parsed exactly, nothing else is a date."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobsvc.web.headers.http_dates import format_date, parse_date

NOW = datetime(2026, 10, 20, 12, 0, 0, tzinfo=UTC).timestamp()
EXAMPLE = 784_111_777  # Sun, 06 Nov 1994 08:49:37 GMT, the RFC's own example

FIRST = int(datetime(1, 1, 1, tzinfo=UTC).timestamp())
LAST = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())


def seconds(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp())  # type: ignore[misc,arg-type]  # as many as are given


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Sun, 06 Nov 1994 08:49:37 GMT", id="IMF-fixdate"),
        pytest.param("Sunday, 06-Nov-94 08:49:37 GMT", id="rfc850-date"),
        pytest.param("Sun Nov  6 08:49:37 1994", id="asctime-date"),
        pytest.param("Sun Nov 06 08:49:37 1994", id="asctime-date with two digits of day"),
        pytest.param("Mon, 06 Nov 1994 08:49:37 GMT", id="the wrong day of the week"),
    ],
)
def test_each_of_the_three_forms_is_parsed(text: str) -> None:
    assert parse_date(text, NOW) == EXAMPLE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "784111777",
        "Thu",
        "sun, 06 nov 1994 08:49:37 gmt",
        "SUN, 06 NOV 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 gmt",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37 GMT+1",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 06 Nov 19940 08:49:37 GMT",
        "Sun, 06 November 1994 08:49:37 GMT",
        "Sun,  06 Nov 1994 08:49:37 GMT",
        "Sun, 06  Nov 1994 08:49:37 GMT",
        "Sun,06 Nov 1994 08:49:37 GMT",
        "Sun 06 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "Xxx, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Xxx 1994 08:49:37 GMT",
        "06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT; length=100",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        '"Sun, 06 Nov 1994 08:49:37 GMT"',
        "Sun, \u0660\u0666 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sunday, 06 Nov 94 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov  6 08:49:37 1994 GMT",
        "Sun Nov   6 08:49:37 1994",
        "1994-11-06T08:49:37Z",
        "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT,",
    ],
)
def test_any_deviation_from_the_forms_is_invalid(text: str) -> None:
    assert parse_date(text, NOW) is None


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Wed, 29 Feb 2023 08:49:37 GMT",
        "Sun Nov  0 08:49:37 1994",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:60 GMT",
        "Sun, 06 Nov 1994 23:59:61 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sunday, 30-Feb-94 08:49:37 GMT",
    ],
)
def test_impossible_date_or_time_is_invalid(text: str) -> None:
    assert parse_date(text, NOW) is None


def test_leap_second_is_parsed_as_the_second_before() -> None:
    assert parse_date("Sat, 31 Dec 2016 23:59:60 GMT", NOW) == seconds(2016, 12, 31, 23, 59, 59)


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("Sunday, 06-Nov-94 08:49:37 GMT", 1994),
        ("Sunday, 06-Nov-26 08:49:37 GMT", 2026),
        ("Sunday, 06-Nov-27 08:49:37 GMT", 2027),
        ("Sunday, 06-Nov-75 08:49:37 GMT", 2075),
        ("Sunday, 20-Oct-76 12:00:00 GMT", 2076),
        ("Sunday, 20-Oct-76 12:00:01 GMT", 1976),
        ("Sunday, 06-Nov-77 08:49:37 GMT", 1977),
        ("Sunday, 06-Nov-00 08:49:37 GMT", 2000),
    ],
)
def test_two_digit_year_more_than_50_years_ahead_is_in_the_past(text: str, year: int) -> None:
    found = parse_date(text, NOW)
    assert found is not None
    assert datetime.fromtimestamp(found, UTC).year == year


def test_two_digit_year_may_be_in_the_next_century() -> None:
    late = datetime(2090, 1, 1, tzinfo=UTC).timestamp()
    assert parse_date("Saturday, 01-Nov-10 00:00:00 GMT", late) == seconds(2110, 11, 1)


def test_formatted_date_equals_the_example_of_the_rfc() -> None:
    assert format_date(EXAMPLE) == "Sun, 06 Nov 1994 08:49:37 GMT"


@given(st.integers(FIRST, LAST))
@example(FIRST)
@example(LAST)
def test_formatted_date_is_parsed_back(moment: int) -> None:
    assert parse_date(format_date(moment), NOW) == moment


@given(st.integers(FIRST, LAST))
def test_asctime_form_is_equivalent(moment: int) -> None:
    when = datetime.fromtimestamp(moment, UTC)
    assert parse_date(f"{when:%a %b} {when.day:2} {when:%H:%M:%S} {when.year:04}", NOW) == moment


@given(st.integers(int(NOW) - 1_500_000_000, int(NOW) + 1_500_000_000))
def test_rfc_850_form_is_equivalent_within_half_a_century(moment: int) -> None:
    when = datetime.fromtimestamp(moment, UTC)
    assert parse_date(f"{when:%A, %d-%b-%y %H:%M:%S} GMT", NOW) == moment


@given(st.text(), st.integers(0, 4_000_000_000))
def test_no_text_raises(text: str, now: int) -> None:
    assert parse_date(text, now) is None
