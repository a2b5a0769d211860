"""Byte ranges (RFC 9110, sections 14 and 15.3.7)."""

from __future__ import annotations

from email import message_from_bytes, policy
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.web.headers.byte_ranges import (
    BOUNDARY_LENGTH,
    MAX_RANGES,
    PART_OVERHEAD,
    ByteRange,
    Multipart,
    content_range,
    multipart,
    select_ranges,
    unsatisfied,
)
from tests.web.headers.rfc_ranges import RFC_RANGES, RFC_SIZE

TYPE = "video/mp4"
BOUNDARY = "0123456789abcdef" * 2
Spans = list[tuple[int, int]]


def chosen(field: str, size: int) -> Spans | None:
    """Return what select_ranges() selects, as pairs of first and last position, both included."""
    found = select_ranges(field, size, TYPE)
    return None if found is None else [(part.start, part.stop - 1) for part in found]


@pytest.mark.parametrize(("field", "spans"), RFC_RANGES)
def test_examples_of_the_rfc(field: str, spans: Spans) -> None:
    assert chosen(field, RFC_SIZE) == spans


@pytest.mark.parametrize(
    ("field", "spans"),
    [
        pytest.param("bytes=0-", [(0, 9)], id="last-pos absent"),
        pytest.param("bytes=5-", [(5, 9)], id="last-pos absent, from within"),
        pytest.param("bytes=0-9", [(0, 9)], id="everything"),
        pytest.param("bytes=0-20", [(0, 9)], id="last-pos beyond the end is clipped"),
        pytest.param("bytes=9-9", [(9, 9)], id="the last byte"),
        pytest.param("bytes=9-10", [(9, 9)], id="last-pos one beyond"),
        pytest.param("bytes=-1", [(9, 9)], id="a suffix of one"),
        pytest.param("bytes=-10", [(0, 9)], id="a suffix of all"),
        pytest.param("bytes=-15", [(0, 9)], id="a suffix longer than the file"),
        pytest.param("bytes=0007-00008", [(7, 8)], id="leading zeros"),
        pytest.param(f"bytes=0-{'9' * 5000}", [(0, 9)], id="a last-pos that int() refuses"),
        pytest.param(f"bytes=-{'9' * 5000}", [(0, 9)], id="a suffix-length that int() refuses"),
        pytest.param(f"bytes={'0' * 5000}3-4", [(3, 4)], id="5000 leading zeros"),
        pytest.param(f"bytes=0-{2**63 - 1}", [(0, 9)], id="2**63 - 1"),
        pytest.param(f"bytes=0-{2**64}", [(0, 9)], id="2**64 does not wrap around"),
    ],
)
def test_single_range_is_clipped_to_the_file(field: str, spans: Spans) -> None:
    assert chosen(field, 10) == spans


@pytest.mark.parametrize(
    "field",
    [
        pytest.param("bytes=10-", id="first-pos is the size"),
        pytest.param("bytes=10-10", id="first-pos is the size, last-pos too"),
        pytest.param("bytes=15-20", id="first-pos beyond"),
        pytest.param("bytes=-0", id="a suffix of nothing"),
        pytest.param("bytes=-000", id="a suffix of nothing, at length"),
        pytest.param("bytes=10-,20-30,-0", id="none of several"),
        pytest.param(f"bytes={'9' * 5000}-", id="a first-pos that int() refuses"),
        pytest.param(f"bytes={2**64}-", id="2**64 does not wrap around to 0"),
        pytest.param(f"bytes={2**32}-{2**32 + 5}", id="2**32 does not wrap around to 0"),
        pytest.param(f"bytes={'9' * 30}-{'9' * 31}", id="huge and in order"),
    ],
)
def test_range_that_starts_past_the_end_is_unsatisfiable(field: str) -> None:
    assert chosen(field, 10) == []


@pytest.mark.parametrize(
    "field",
    [
        pytest.param("", id="empty"),
        pytest.param("bytes", id="no equals sign"),
        pytest.param("=0-1", id="no unit"),
        pytest.param("0-1", id="ranges without a unit"),
        pytest.param("bytes=", id="an empty set"),
        pytest.param("bytes=   ", id="an empty set of spaces"),
        pytest.param("bytes=,", id="empty elements only"),
        pytest.param("bytes= , , ,   ", id="more empty elements only"),
        pytest.param("items=0-1", id="a unit we don't know (14.2: MUST ignore)"),
        pytest.param("none=0-1", id="the unit that is none"),
        pytest.param("byte=0-1", id="nearly the unit"),
        pytest.param(
            "byte\N{LATIN SMALL LETTER LONG S}=0-1", id="a letter that only Unicode folds into an s"
        ),
        pytest.param("bytes =0-1", id="space before the equals sign"),
        pytest.param(" bytes=0-1", id="a field value has no white space around it (5.5)"),
        pytest.param("bytes:0-1", id="a colon"),
        pytest.param("bytes 0-1/10", id="a Content-Range"),
        pytest.param("bytes=7", id="no hyphen"),
        pytest.param("bytes=-", id="a hyphen alone"),
        pytest.param("bytes=--5", id="two hyphens"),
        pytest.param("bytes=4--3", id="a negative last-pos"),
        pytest.param("bytes=-5-3", id="a negative first-pos"),
        pytest.param("bytes=+1-2", id="a sign"),
        pytest.param("bytes=1-2-3", id="three positions"),
        pytest.param("bytes=1 -2", id="space within"),
        pytest.param("bytes=1- 2", id="space within, after the hyphen"),
        pytest.param("bytes=1_0-2_0", id="underscores, that int() takes"),
        pytest.param("bytes=A-Z", id="letters"),
        pytest.param("bytes=0x01-0x02", id="hexadecimal"),
        pytest.param("bytes=1.0-2.0", id="fractions"),
        pytest.param("bytes=\u0661-\u0662", id="digits of another script, that int() takes"),
        pytest.param("bytes=\u00a01-2", id="a space of Unicode only"),
        pytest.param("bytes=5-4", id="last-pos before first-pos (14.1.1: invalid)"),
        pytest.param("bytes=20-19", id="the same beyond the end"),
        pytest.param("bytes=007-06", id="the same with leading zeros"),
        pytest.param(f"bytes={'9' * 31}-{'9' * 30}", id="the same in numbers beyond any file"),
        pytest.param("bytes=0-2,5-4", id="one bad element spoils the set"),
        pytest.param("bytes=2-5,4-3", id="one bad element spoils the set, overlapping"),
        pytest.param("bytes=0-1,x", id="one element that is no range"),
        pytest.param("bytes=100-110,5-2", id="bad beside unsatisfiable"),
        pytest.param("bytes=0-1 2-3", id="no comma"),
        pytest.param("bytes=0-1;2-3", id="a semicolon"),
        pytest.param("bytes=0-1, bytes=2-3", id="two field lines, combined (5.3)"),
        pytest.param("bytes=Ran-dom, garbage", id="garbage"),
        pytest.param("bytes=0-1\n", id="a line end"),
    ],
)
def test_invalid_range_and_other_unit_are_ignored(field: str) -> None:
    assert chosen(field, 10) is None


@pytest.mark.parametrize("unit", ["bytes", "Bytes", "BYTES", "bYtEs"])
def test_unit_is_case_insensitive(unit: str) -> None:
    assert chosen(f"{unit}=1-2", 10) == [(1, 2)]


@pytest.mark.parametrize(
    "elements", [",1-2", "1-2,", ",,1-2,,", " , 1-2", "1-2 , ", "\t,\t1-2\t", " 1-2", ", ,1-2,,,,"]
)
def test_empty_elements_and_white_space_around_elements_are_skipped(elements: str) -> None:
    assert chosen(f"bytes={elements}", 10) == [(1, 2)]


@pytest.mark.parametrize("field", ["bytes=0-", "bytes=0-0", "bytes=1-", "bytes=-0", "bytes=0-,-0"])
def test_no_position_of_an_empty_file_is_satisfiable(field: str) -> None:
    assert chosen(field, 0) == []


@pytest.mark.parametrize("field", ["bytes=-1", "bytes=-5", "bytes=0-,-5", f"bytes=-{'9' * 5000}"])
def test_suffix_of_an_empty_file_is_the_whole_file(field: str) -> None:
    assert chosen(field, 0) is None


@pytest.mark.parametrize("field", ["bytes=5-4", "items=0-", "bytes="])
def test_invalid_range_of_an_empty_file_is_ignored(field: str) -> None:
    assert chosen(field, 0) is None


# Section 15.3.7.2: several ranges.


@pytest.mark.parametrize(
    ("elements", "spans"),
    [
        pytest.param("0-0,1000-1001", [(0, 0), (1000, 1001)], id="apart"),
        pytest.param("1000-1100,100-200", [(1000, 1100), (100, 200)], id="the client's order"),
        pytest.param("3000-,100-200,2000-2200", [(3000, 7999), (100, 200), (2000, 2200)], id="as before"),
        pytest.param("0-9,-10,10-19", [(0, 19), (7990, 7999)], id="adjacent, in the place of the first"),
        pytest.param("-10,10-19,0-9", [(7990, 7999), (0, 19)], id="adjacent, descending"),
        pytest.param("0-9,10-19,20-29,30-39", [(0, 39)], id="adjacent is not overlapping, however many"),
        pytest.param("0-100,70-100,1000-1001", [(0, 100), (1000, 1001)], id="overlapping"),
        pytest.param("70-200,0-100,1000-1001", [(0, 200), (1000, 1001)], id="overlapping, descending"),
        pytest.param("0-100,50-99,1000-1001", [(0, 100), (1000, 1001)], id="one within another"),
        pytest.param("0-100,0-100,1000-1001", [(0, 100), (1000, 1001)], id="twice the same"),
        pytest.param("0-9,89-99", [(0, 99)], id="a gap of 79 costs less than a part"),
        pytest.param("0-9,90-99", [(0, 9), (90, 99)], id="a gap of 80 does not"),
        pytest.param("5-10,1000-1001,1-3", [(1, 10), (1000, 1001)], id="nearly touching, out of order"),
        pytest.param("0-9,100-109,50-59", [(0, 109)], id="the third bridges the first two"),
        pytest.param("0-9,-10,100000-", [(0, 9), (7990, 7999)], id="what is unsatisfiable is left out"),
        pytest.param("9000-9001,5-6", [(5, 6)], id="one left satisfiable"),
        pytest.param("-0,5-6", [(5, 6)], id="one left beside a suffix of nothing"),
        pytest.param("0-0,-7999", [(0, 7999)], id="first and rest are all of it"),
        pytest.param("0-9,5-14,10-19", [(0, 19)], id="three in a chain"),
        pytest.param("0-9,5-14,4000-4009,4005-4014", [(0, 14), (4000, 4014)], id="two pairs"),
        pytest.param(
            "0-100,70-100,1000-1001,5-6", [(0, 100), (1000, 1001)], id="the fourth within the first"
        ),
        pytest.param(",".join(["0-1,3-4"] * 50), [(0, 4)], id="a hundred of few bytes"),
        pytest.param(
            ",".join(f"{5}-{5 + n}" for n in range(100)),
            [(5, 104)],
            id="a hundred that start at one place",
        ),
    ],
)
def test_several_ranges_are_joined_if_that_is_cheaper(elements: str, spans: Spans) -> None:
    assert chosen(f"bytes={elements}", 8000) == spans


@pytest.mark.parametrize(
    "elements",
    [
        pytest.param("0-,0-", id="twice everything"),
        pytest.param("0-,1-,2-,3-,4-", id="everything from here, and from here"),
        pytest.param("0-10001,0-0", id="everything and a byte"),
        pytest.param("0-0,-8000", id="a byte and everything"),
        pytest.param("0-4999,4000-", id="two halves and a bit"),
        pytest.param("-8000,9000-,-1", id="beside one that can't be had"),
        pytest.param(",".join(f"{n}-" for n in range(100)), id="a hundred"),
    ],
)
def test_ranges_that_add_up_to_more_than_the_file_are_abuse(elements: str) -> None:
    """Section 14.2; the limit is that of nginx and Go."""
    assert chosen(f"bytes={elements}", 8000) is None


@pytest.mark.parametrize("elements", ["0-3999,4000-", "0-3999,4000-7998,-1", "-4000,0-3999", "0-7998,7999-"])
def test_ranges_that_add_up_to_exactly_the_file_are_not_abuse(elements: str) -> None:
    assert chosen(f"bytes={elements}", 8000) == [(0, 7999)]


def spread(count: int) -> str:
    return "bytes=" + ",".join(f"{n * 1000}-{n * 1000}" for n in range(count))


def test_as_many_ranges_as_allowed_are_all_sent() -> None:
    assert len(chosen(spread(MAX_RANGES), 10**9) or ()) == MAX_RANGES


def test_one_range_above_the_maximum_is_abuse() -> None:
    assert chosen(spread(MAX_RANGES + 1), 10**9) is None


def test_hundred_small_separate_ranges_cost_less_than_the_file() -> None:
    field = "bytes=" + ",".join(f"{n * 100}-{n * 100 + 1}" for n in range(100))
    assert len(chosen(field, 40_000) or ()) == 100


def test_empty_elements_beyond_a_reasonable_number_are_abuse() -> None:
    """Section 5.6.1.2: "not so much that they could be used as a denial-of-service mechanism"."""
    assert chosen("bytes=" + "," * MAX_RANGES + "0-1", 10) is None


def test_parts_that_cost_more_than_the_file_are_not_sent() -> None:
    """Both ends of a small file: the parts' headers alone are larger than the bytes between them."""
    cost = multipart(BOUNDARY, TYPE, 999, [ByteRange(0, 1), ByteRange(998, 999)]).length
    assert 100 < cost < 999
    assert chosen("bytes=0-0,-1", cost) == [(0, 0), (cost - 1, cost - 1)]
    assert chosen("bytes=0-0,-1", cost - 1) is None


# Sections 14.4 and 14.6: formatting.


def test_content_range_names_positions_inclusively() -> None:
    assert content_range(ByteRange(0, 500), 1234) == "bytes 0-499/1234"
    assert content_range(ByteRange(734, 1234), 1234) == "bytes 734-1233/1234"


def test_content_range_of_a_416_has_the_size() -> None:
    assert unsatisfied(1234) == "bytes */1234"
    assert unsatisfied(0) == "bytes */0"


def rendered(plan: Multipart, data: bytes) -> bytes:
    return b"".join(
        data[part.start : part.stop] if isinstance(part, ByteRange) else part for part in plan.segments
    )


def test_multipart_body_equals_the_example_of_the_rfc() -> None:
    data = bytes(8000)
    plan = multipart("SEPARATES", "application/pdf", 8000, [ByteRange(500, 1000), ByteRange(7000, 8000)])
    assert plan.content_type == "multipart/byteranges; boundary=SEPARATES"
    assert rendered(plan, data) == (
        b"--SEPARATES\r\nContent-Type: application/pdf\r\nContent-Range: bytes 500-999/8000\r\n\r\n"
        + bytes(500)
        + b"\r\n--SEPARATES\r\nContent-Type: application/pdf\r\nContent-Range: bytes 7000-7999/8000\r\n\r\n"
        + bytes(1000)
        + b"\r\n--SEPARATES--\r\n"
    )


spans_of = st.tuples(st.integers(0, 2999), st.integers(1, 400)).map(
    lambda pair: ByteRange(pair[0], min(pair[0] + pair[1], 3000))
)


@given(st.lists(spans_of, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_length_of_a_plan_is_correct_and_a_mail_reader_finds_the_parts(
    ranges: list[ByteRange], random: object
) -> None:
    data = bytes((n * 7 + n // 256) % 256 for n in range(3000))
    plan = multipart(BOUNDARY, TYPE, len(data), ranges)
    body = rendered(plan, data)
    assert plan.length == len(body)
    message = message_from_bytes(
        b"Content-Type: "
        + plan.content_type.encode()
        + b"\r\nContent-Transfer-Encoding: binary\r\n\r\n"
        + body,
        policy=policy.HTTP,
    )
    parts = list(message.iter_parts())
    assert [part["Content-Range"] for part in parts] == [content_range(found, 3000) for found in ranges]
    assert {part.get_content_type() for part in parts} == {TYPE}
    assert body.count(b"--" + BOUNDARY.encode()) == len(ranges) + 1


# Properties of any field.

number = st.one_of(st.integers(0, 300), st.integers(0, 10**25)).map(str)
element = st.one_of(
    st.tuples(number, number).map("-".join),
    number.map(lambda text: f"-{text}"),
    number.map(lambda text: f"{text}-"),
    st.sampled_from(["", " ", "x", "-"]),
)
in_order = st.tuples(st.integers(0, 5000), st.integers(0, 200)).map(lambda pair: f"{pair[0]}-{sum(pair)}")
fields = st.one_of(
    st.text(),
    st.text().map(lambda text: f"bytes={text}"),
    st.lists(element, max_size=6).map(lambda parts: "bytes=" + ",".join(parts)),
    st.lists(in_order, max_size=40).map(lambda parts: "bytes=" + ", ".join(parts)),
)
sizes = st.one_of(st.integers(0, 300), st.integers(0, 6000), st.integers(0, 2**63 - 1))


@given(fields, sizes)
def test_selected_ranges_are_within_the_file_separate_and_not_empty(field: str, size: int) -> None:
    found = select_ranges(field, size, TYPE)
    if not found:
        return
    assert all(0 <= part.start < part.stop <= size for part in found)
    assert all(after.start - before.stop >= PART_OVERHEAD for before, after in pairwise(sorted(found)))
    assert sum(part.length for part in found) <= size


@given(fields, sizes)
def test_no_response_is_larger_than_the_file(field: str, size: int) -> None:
    found = select_ranges(field, size, TYPE)
    if found is not None and len(found) > 1:
        assert multipart("b" * BOUNDARY_LENGTH, TYPE, size, found).length <= size


@given(st.lists(in_order, min_size=1, max_size=20), st.integers(1, 6000))
def test_every_requested_byte_that_exists_is_sent(parts: list[str], size: int) -> None:
    found = select_ranges("bytes=" + ",".join(parts), size, TYPE)
    if found is None:
        return
    sent = {at for part in found for at in range(part.start, part.stop)}
    for text in parts:
        first, last = map(int, text.split("-"))
        assert sent.issuperset(range(first, min(last + 1, size)))


@given(st.lists(in_order, min_size=1, max_size=8), st.integers(1, 6000))
def test_range_set_is_unsatisfiable_only_if_each_range_is(parts: list[str], size: int) -> None:
    together = select_ranges("bytes=" + ",".join(parts), size, TYPE)
    alone = [select_ranges(f"bytes={text}", size, TYPE) for text in parts]
    assert (together == ()) == all(found == () for found in alone)
