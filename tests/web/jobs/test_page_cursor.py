from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.index.queries.listing import After
from jobsvc.storage.layout import is_job_id
from jobsvc.web.jobs.page_cursor import format_cursor, parse_cursor

TIMES = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
IDS = st.from_regex("[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True).filter(is_job_id)
PLACES = st.tuples(TIMES, IDS)


@given(after=PLACES)
def test_cursor_is_decoded_as_encoded_and_needs_no_escaping_in_a_url(
    after: After,
) -> None:
    cursor = format_cursor(after)
    assert parse_cursor(cursor) == after
    assert cursor.replace("-", "").replace("_", "").isalnum()
    assert len(cursor) <= 187


@given(after=PLACES, data=st.data())
def test_cursor_with_a_typo_is_invalid(after: After, data: st.DataObject) -> None:
    cursor = format_cursor(after)
    at = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.sampled_from("Az09-_=+/ ").filter(lambda char: char != cursor[at]))
    for wrong in (cursor[:at], cursor[:at] + other + cursor[at + 1 :], cursor + other, other + cursor):
        assert parse_cursor(wrong) is None


@given(text=st.text(max_size=200))
def test_any_other_text_is_invalid(text: str) -> None:
    assert parse_cursor(text) is None


@pytest.mark.parametrize("text", ["", "A", "AAAA", "====", "\udcff", "é" * 20, "A" * 8000])
def test_unusual_text_is_invalid(text: str) -> None:
    assert parse_cursor(text) is None


@given(after=PLACES)
def test_each_position_has_one_cursor(after: After) -> None:
    """Base 64 allows several: spare bits of the last character, and padding."""
    cursor = format_cursor(after)
    raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    spellings = {
        cursor[:-1] + last for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    }
    same = [one for one in spellings if urlsafe_b64decode(one + "=" * (-len(one) % 4)) == raw]
    assert [one for one in same if parse_cursor(one) is not None] == [cursor]
    assert parse_cursor(urlsafe_b64encode(raw).decode()) == (
        after if "=" not in urlsafe_b64encode(raw).decode() else None
    )


def test_valid_checksum_over_an_invalid_position_is_invalid() -> None:
    for place in (b"", b"1234567", b"12345678\xff"):
        raw = crc32(place, 1).to_bytes(4) + place
        assert parse_cursor(urlsafe_b64encode(raw).rstrip(b"=").decode()) is None
