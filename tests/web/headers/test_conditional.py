"""Conditional and range requests (RFC 9110, sections 8.8, 13 and 14), as tables by section."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from jobsvc.web.headers.byte_ranges import ByteRange
from jobsvc.web.headers.conditional import (
    NOT_MODIFIED,
    PRECONDITION_FAILED,
    UNSATISFIABLE,
    WHOLE,
    Evaluation,
    RepresentationInfo,
    etag_of,
    evaluate,
    last_modified_of,
    precondition,
)
from jobsvc.web.headers.http_dates import format_date

TAG = '"a1-2710-17"'
OTHER = '"b2"'
MODIFIED = int(datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC).timestamp())
NOW = MODIFIED + 86_400.25
SIZE = 10_000
FILE = RepresentationInfo(etag=TAG, last_modified=MODIFIED, size=SIZE, content_type="video/mp4")

SAME = format_date(MODIFIED)
BEFORE = format_date(MODIFIED - 1)
AFTER = format_date(MODIFIED + 1)

Fields = list[tuple[str, str]]


def headers(fields: Fields) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(fields))


def answer(
    *fields: tuple[str, str], method: str = "GET", selected: RepresentationInfo = FILE, now: float = NOW
) -> Evaluation:
    return evaluate(method, headers([("Host", "farm"), *fields]), selected, now)


def partial(*spans: tuple[int, int]) -> Evaluation:
    """A 206 of these spans, first and last position both included."""
    return Evaluation(HTTPStatus.PARTIAL_CONTENT, tuple(ByteRange(first, last + 1) for first, last in spans))


def test_evaluations_have_the_statuses_of_their_names() -> None:
    decisions = (WHOLE, NOT_MODIFIED, PRECONDITION_FAILED, UNSATISFIABLE)
    assert [decision.status for decision in decisions] == [200, 304, 412, 416]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_request_without_conditions_gets_the_whole_file(method: str) -> None:
    assert answer(method=method) is WHOLE
    assert answer(("If-Range", TAG), method=method) is WHOLE


# Section 8.8.3.2: the two comparisons; the first tag is the service's, the second the client's.


@pytest.mark.parametrize(
    ("ours", "theirs", "strong", "weak"),
    [
        ('W/"1"', 'W/"1"', False, True),
        ('W/"1"', 'W/"2"', False, False),
        ('W/"1"', '"1"', False, True),
        ('"1"', 'W/"1"', False, True),
        ('"1"', '"1"', True, True),
        ('"1"', '"2"', False, False),
    ],
)
def test_tags_are_compared_as_in_the_table_of_the_rfc(
    ours: str, theirs: str, *, strong: bool, weak: bool
) -> None:
    selected = RepresentationInfo(ours, None, SIZE, "text/plain")
    matched = answer(("If-Match", theirs), selected=selected)
    assert matched is (WHOLE if strong else PRECONDITION_FAILED)
    matched = answer(("If-None-Match", theirs), selected=selected)
    assert matched is (NOT_MODIFIED if weak else WHOLE)
    matched = answer(("Range", "bytes=0-0"), ("If-Range", theirs), selected=selected)
    assert matched == (partial((0, 0)) if strong else WHOLE)


# Sections 13.1.1 and 13.1.2: fields that match the tag, and fields that do not.

NAMES_IT = [
    pytest.param([TAG], id="the tag"),
    pytest.param(["*"], id="the asterisk"),
    pytest.param([" * "], id="the asterisk, white space around the value (5.5)"),
    pytest.param([f"{OTHER}, {TAG}"], id="a list"),
    pytest.param([f"{TAG},{OTHER}"], id="a list without spaces"),
    pytest.param([f'"x", "y", \t{TAG} , "z"'], id="a list with tabs and spaces"),
    pytest.param([f",{TAG}"], id="an empty element before (5.6.1.2)"),
    pytest.param([f"{TAG},"], id="an empty element after"),
    pytest.param([f" ,, ,{OTHER},, , {TAG} ,\t,"], id="empty elements everywhere"),
    pytest.param([OTHER, TAG], id="the second field line (5.3)"),
    pytest.param([TAG, OTHER], id="the first field line"),
    pytest.param(["", TAG], id="an empty field line before"),
    pytest.param([TAG, ""], id="an empty field line after"),
    pytest.param([f'"a,b", {TAG}'], id="after a tag with a comma in it"),
    pytest.param([f'"\x80\xff\u20ac\udc80", {TAG}'], id="after a tag of obs-text"),
    pytest.param([f'"", {TAG}'], id="after the empty tag"),
    pytest.param([f'"W/", {TAG}'], id="after a tag that reads W/"),
    pytest.param([f'"\\", {TAG}'], id="after a tag that ends in a backslash: it escapes nothing"),
    pytest.param([f'"*", {TAG}'], id="after a tag that reads as the asterisk"),
]

NAMES_OTHERS = [
    pytest.param([OTHER], id="another tag"),
    pytest.param(['"*"'], id="the asterisk in quotes, an ordinary tag"),
    pytest.param(['W/"*"'], id="the asterisk in quotes, weak"),
    pytest.param([""], id="an empty list"),
    pytest.param([","], id="a list of empty elements"),
    pytest.param(['""'], id="the empty tag"),
    pytest.param([TAG.upper()], id="another case"),
    pytest.param([f'"x{TAG[1:]}'], id="a longer tag"),
    pytest.param([f'"{TAG[2:]}'], id="a shorter tag"),
    pytest.param([f'"a{TAG[1:-1]},b"'], id="a tag with ours inside"),
    pytest.param([f'"x,{TAG[1:]}'], id="a tag with ours after a comma"),
]

MALFORMED = [
    pytest.param([TAG[1:-1]], id="no quotes"),
    pytest.param([TAG[:-1]], id="no closing quote"),
    pytest.param([TAG[1:]], id="no opening quote"),
    pytest.param([f"'{TAG[1:-1]}'"], id="single quotes"),
    pytest.param([f"w/{TAG}"], id="a small w (8.8.3: case-sensitive)"),
    pytest.param([f"W{TAG}"], id="no slash"),
    pytest.param([f"W/ {TAG}"], id="a space after the slash"),
    pytest.param([f"W/W/{TAG}"], id="weak twice"),
    pytest.param([f"{TAG} {OTHER}"], id="no comma"),
    pytest.param([f"{TAG}{OTHER}"], id="nothing between"),
    pytest.param([f"{TAG}; {OTHER}"], id="a semicolon"),
    pytest.param([f"{TAG}, x"], id="a word after it"),
    pytest.param([f"x, {TAG}"], id="a word before it"),
    pytest.param([f'{TAG}, "open'], id="an open quote after it"),
    pytest.param([f"*, {TAG}"], id="the asterisk in a list"),
    pytest.param([f"{TAG}, *"], id="the asterisk at a list's end"),
    pytest.param(["*", TAG], id="the asterisk on a field line of its own"),
    pytest.param(["*", "*"], id="the asterisk twice"),
    pytest.param(["*, "], id="the asterisk with a comma"),
    pytest.param(["**"], id="two asterisks"),
    pytest.param([f'"a b", {TAG}'], id="a space within a tag"),
    pytest.param([f'"a\tb", {TAG}'], id="a tab within a tag"),
    pytest.param([f'"a\x7fb", {TAG}'], id="a DEL within a tag"),
    pytest.param([f'"a\\"b", {TAG}'], id="an escaped quote"),
    pytest.param([f"\u00a0{TAG}"], id="a space of Unicode only"),
    pytest.param([SAME], id="a date"),
]


def lines(name: str, values: list[str]) -> Fields:
    return [(name, value) for value in values]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("values", NAMES_IT)
def test_field_with_the_tag_matches(values: list[str], method: str) -> None:
    assert answer(*lines("If-Match", values), method=method) is WHOLE
    assert answer(*lines("If-None-Match", values), method=method) is NOT_MODIFIED


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("values", NAMES_OTHERS)
def test_field_with_other_tags_does_not_match(values: list[str], method: str) -> None:
    assert answer(*lines("If-Match", values), method=method) is PRECONDITION_FAILED
    assert answer(*lines("If-None-Match", values), method=method) is WHOLE


@pytest.mark.parametrize("values", MALFORMED)
def test_field_that_is_not_a_list_of_tags_matches_nothing(values: list[str]) -> None:
    """The condition is then false (13.1.1), or true (13.1.2): a 412 is safe, and so is the whole file."""
    assert answer(*lines("If-Match", values)) is PRECONDITION_FAILED
    assert answer(*lines("If-None-Match", values)) is WHOLE


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "{}, {}"])
@pytest.mark.parametrize("suffix", ["-gzip", "-br", "-zstd", "--gzip", ";gzip", ":gzip"])
def test_tag_with_the_suffix_of_a_compressing_proxy_matches_only_weakly(suffix: str, form: str) -> None:
    field = form.format(*[f'{TAG[:-1]}{suffix}"'] * 2)
    assert answer(("If-None-Match", field)) is NOT_MODIFIED
    assert answer(("If-Match", field)) is PRECONDITION_FAILED
    assert answer(("Range", "bytes=0-0"), ("If-Range", field)) is WHOLE


@pytest.mark.parametrize("suffix", ["-gzi", "gzip", "-gzipx", "-identity", "-gzip-gzip", " -gzip", "-GZIP"])
def test_tag_with_any_other_suffix_is_another_tag(suffix: str) -> None:
    assert answer(("If-None-Match", f'{TAG[:-1]}{suffix}"')) is WHOLE
    assert answer(("If-None-Match", f'"{TAG[2:-1]}-gzip"')) is WHOLE


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_weak_tag_matches_only_weakly(method: str) -> None:
    assert answer(("If-None-Match", f"W/{TAG}"), method=method) is NOT_MODIFIED
    assert answer(("If-Match", f"W/{TAG}"), method=method) is PRECONDITION_FAILED
    assert answer(("If-Match", f"W/{TAG}, {TAG}"), method=method) is WHOLE


@pytest.mark.parametrize("hostile", ['"",', ", ", '"', " ", "W/", '"" '])
def test_hostile_list_is_parsed_in_linear_time(hostile: str) -> None:
    """Each of these would keep a backtracking parser busy for longer than the test's timeout."""
    field = f"{TAG}, {hostile * 300_000}x"
    assert answer(("If-Match", field)) is PRECONDITION_FAILED
    assert answer(("If-None-Match", field)) is WHOLE


# Sections 13.1.3 and 13.1.4: dates.


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("date", "unchanged"),
    [
        pytest.param(SAME, True, id="the same second"),
        pytest.param(AFTER, True, id="later"),
        pytest.param(BEFORE, False, id="a second earlier"),
        pytest.param(format_date(int(NOW) + 10**9), True, id="in the future"),
        pytest.param("Thu, 01 Jan 1970 00:00:00 GMT", False, id="the epoch"),
        pytest.param("Fri, 31 Dec 9999 23:59:59 GMT", True, id="the last date there is"),
        pytest.param("Wednesday, 04-Mar-26 05:06:07 GMT", True, id="RFC 850, the same"),
        pytest.param("Wednesday, 04-Mar-26 05:06:06 GMT", False, id="RFC 850, earlier"),
        pytest.param("Friday, 04-Mar-77 05:06:07 GMT", False, id="RFC 850, more than 50 years ahead is past"),
        pytest.param("Wed Mar  4 05:06:07 2026", True, id="asctime, the same"),
        pytest.param("Wed Mar  4 05:06:06 2026", False, id="asctime, earlier"),
        pytest.param(f" {SAME}\t", True, id="white space around the value (5.5)"),
    ],
)
def test_date_is_compared_with_last_modified(date: str, method: str, *, unchanged: bool) -> None:
    since = answer(("If-Modified-Since", date), method=method)
    assert since is (NOT_MODIFIED if unchanged else WHOLE)
    until = answer(("If-Unmodified-Since", date), method=method)
    assert until is (WHOLE if unchanged else PRECONDITION_FAILED)


@pytest.mark.parametrize(
    ("lenient", "values"),
    [
        pytest.param(True, ["nonsense"], id="no date"),
        pytest.param(True, [""], id="empty"),
        pytest.param(True, [AFTER.lower()], id="lower case"),
        pytest.param(True, [AFTER.replace("GMT", "+0000")], id="a zone that is not GMT"),
        pytest.param(True, [AFTER, AFTER], id="two field lines"),
        pytest.param(True, [AFTER, ""], id="an empty second field line"),
        pytest.param(True, [f"{AFTER}, {AFTER}"], id="a list of dates"),
        pytest.param(True, [f'"{AFTER}"'], id="in quotes"),
        pytest.param(True, [TAG], id="a tag"),
        pytest.param(True, ["*"], id="the asterisk"),
        pytest.param(False, [BEFORE.lower()], id="lower case, earlier"),
        pytest.param(False, [BEFORE, BEFORE], id="two field lines, earlier"),
        pytest.param(False, [f"{BEFORE}, {BEFORE}"], id="a list of dates, earlier"),
        pytest.param(False, [f"{BEFORE}; length=10000"], id="with Netscape's length, earlier"),
    ],
)
def test_anything_but_one_valid_date_is_ignored(values: list[str], *, lenient: bool) -> None:
    """Each would change the response if a lenient parser took it for the date it resembles."""
    name = "If-Modified-Since" if lenient else "If-Unmodified-Since"
    assert answer(*lines(name, values)) is WHOLE


def test_dates_are_ignored_without_last_modified() -> None:
    undated = RepresentationInfo(TAG, None, SIZE, "text/plain")
    assert answer(("If-Modified-Since", AFTER), selected=undated) is WHOLE
    assert answer(("If-Unmodified-Since", BEFORE), selected=undated) is WHOLE
    assert answer(("Range", "bytes=0-0"), ("If-Range", SAME), selected=undated) is WHOLE


def test_epoch_is_a_valid_date() -> None:
    old = RepresentationInfo(TAG, 0, SIZE, "text/plain")
    assert answer(("If-Modified-Since", format_date(0)), selected=old) is NOT_MODIFIED
    assert answer(("If-Unmodified-Since", format_date(-1)), selected=old) is PRECONDITION_FAILED


# Section 13.2.2: precedence.


@pytest.mark.parametrize(
    ("fields", "decision"),
    [
        pytest.param(
            [("If-Match", TAG), ("If-Unmodified-Since", BEFORE)],
            WHOLE,
            id="If-Match beats If-Unmodified-Since",
        ),
        pytest.param(
            [("If-Match", OTHER), ("If-Unmodified-Since", AFTER)],
            PRECONDITION_FAILED,
            id="If-Match beats If-Unmodified-Since, failing",
        ),
        pytest.param(
            [("If-Match", ""), ("If-Unmodified-Since", AFTER)],
            PRECONDITION_FAILED,
            id="an empty If-Match is present all the same",
        ),
        pytest.param(
            [("If-None-Match", OTHER), ("If-Modified-Since", AFTER)],
            WHOLE,
            id="If-None-Match beats If-Modified-Since",
        ),
        pytest.param(
            [("If-None-Match", TAG), ("If-Modified-Since", BEFORE)],
            NOT_MODIFIED,
            id="If-None-Match beats If-Modified-Since, failing",
        ),
        pytest.param(
            [("If-None-Match", "x"), ("If-Modified-Since", AFTER)],
            WHOLE,
            id="a malformed If-None-Match is present all the same",
        ),
        pytest.param(
            [("If-None-Match", ""), ("If-Modified-Since", AFTER)],
            WHOLE,
            id="an empty If-None-Match is present all the same",
        ),
        pytest.param(
            [("If-None-Match", TAG), ("If-Match", OTHER)], PRECONDITION_FAILED, id="step 1 before step 3"
        ),
        pytest.param(
            [("If-None-Match", TAG), ("If-Match", TAG)], NOT_MODIFIED, id="step 1 holds, step 3 fails"
        ),
        pytest.param(
            [("If-Modified-Since", AFTER), ("If-Unmodified-Since", BEFORE)],
            PRECONDITION_FAILED,
            id="step 2 before step 4",
        ),
        pytest.param(
            [("If-Modified-Since", SAME), ("If-Unmodified-Since", SAME)],
            NOT_MODIFIED,
            id="step 2 holds, step 4 fails",
        ),
        pytest.param(
            [("If-None-Match", TAG), ("If-Unmodified-Since", BEFORE)],
            PRECONDITION_FAILED,
            id="step 2 before step 3",
        ),
        pytest.param(
            [("Range", "bytes=0-0"), ("If-None-Match", TAG)], NOT_MODIFIED, id="a 304 before the range (14.2)"
        ),
        pytest.param(
            [("Range", "bytes=0-0"), ("If-Modified-Since", SAME)],
            NOT_MODIFIED,
            id="a 304 by date before the range",
        ),
        pytest.param(
            [("Range", "bytes=0-0"), ("If-Match", OTHER)], PRECONDITION_FAILED, id="a 412 before the range"
        ),
        pytest.param(
            [("Range", "bytes=99999-"), ("If-Match", OTHER)], PRECONDITION_FAILED, id="a 412 before a 416"
        ),
        pytest.param(
            [("Range", "bytes=99999-"), ("If-None-Match", TAG)], NOT_MODIFIED, id="a 304 before a 416"
        ),
        pytest.param(
            [("Range", "bytes=0-0"), ("If-Range", OTHER), ("If-None-Match", TAG)],
            NOT_MODIFIED,
            id="a 304 before If-Range",
        ),
        pytest.param(
            [("Range", "bytes=0-0"), ("If-Match", TAG)], partial((0, 0)), id="a range once If-Match holds"
        ),
        pytest.param(
            [("Range", "bytes=0-0"), ("If-Unmodified-Since", SAME)],
            partial((0, 0)),
            id="a range once If-Unmodified-Since holds",
        ),
        pytest.param(
            [("Range", "bytes=0-0"), ("If-None-Match", OTHER)],
            partial((0, 0)),
            id="a range once If-None-Match holds",
        ),
        pytest.param(
            [("Range", "bytes=0-0"), ("If-Modified-Since", BEFORE)],
            partial((0, 0)),
            id="a range once If-Modified-Since holds",
        ),
    ],
)
def test_fields_are_evaluated_in_the_order_of_the_rfc(fields: Fields, decision: Evaluation) -> None:
    assert answer(*fields) == decision
    assert answer(*reversed(fields)) == decision


# Section 13.1.5: If-Range.


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(TAG, id="the tag"),
        pytest.param(f" {TAG}\t", id="the tag, white space around the value (5.5)"),
        pytest.param(SAME, id="the date"),
        pytest.param("Wednesday, 04-Mar-26 05:06:07 GMT", id="the date in RFC 850's form"),
        pytest.param("Wed Mar  4 05:06:07 2026", id="the date in asctime's form"),
    ],
)
def test_range_is_sent_if_if_range_is_true(value: str) -> None:
    assert answer(("Range", "bytes=5-9"), ("If-Range", value)) == partial((5, 9))


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([OTHER], id="another tag"),
        pytest.param([f"W/{TAG}"], id="the tag, weak"),
        pytest.param([f"{TAG}, {OTHER}"], id="a list, which If-Range has not"),
        pytest.param([TAG, TAG], id="two field lines"),
        pytest.param(["*"], id="the asterisk, which If-Range has not"),
        pytest.param(['"*"'], id="the asterisk in quotes"),
        pytest.param([TAG[1:-1]], id="no quotes"),
        pytest.param([""], id="empty"),
        pytest.param([BEFORE], id="an earlier date"),
        pytest.param([AFTER], id="a later date: the match is exact"),
        pytest.param([SAME, SAME], id="two dates"),
        pytest.param([SAME.lower()], id="a date in lower case"),
        pytest.param(["nonsense"], id="nonsense"),
    ],
)
def test_whole_file_is_sent_if_if_range_is_false(values: list[str]) -> None:
    """Otherwise a resumed download would be joined from two versions."""
    assert answer(("Range", "bytes=5-9"), *lines("If-Range", values)) is WHOLE
    assert answer(("Range", "bytes=99999-"), *lines("If-Range", values)) is WHOLE


@pytest.mark.parametrize(
    ("now", "decision"),
    [
        (MODIFIED - 1.0, WHOLE),
        (MODIFIED + 0.0, WHOLE),
        (MODIFIED + 0.999, WHOLE),
        (MODIFIED + 1.0, partial((5, 9))),
        (MODIFIED + 1.5, partial((5, 9))),
    ],
)
def test_date_is_strong_only_once_its_second_is_over(now: float, decision: Evaluation) -> None:
    """Section 8.8.2.2."""
    assert answer(("Range", "bytes=5-9"), ("If-Range", SAME), now=now) == decision


def test_tag_is_strong_within_the_same_second() -> None:
    assert answer(("Range", "bytes=5-9"), ("If-Range", TAG), now=MODIFIED) == partial((5, 9))


def test_unsatisfiable_range_is_416_even_with_a_true_if_range() -> None:
    """Section 14.2. A client that resumes at the very end has everything; it must not be sent again."""
    assert answer(("Range", f"bytes={SIZE}-"), ("If-Range", TAG)) is UNSATISFIABLE


# Section 14.2: Range.


@pytest.mark.parametrize(
    ("values", "decision"),
    [
        pytest.param(["bytes=0-499"], partial((0, 499)), id="one range"),
        pytest.param([" bytes=0-499\t"], partial((0, 499)), id="white space around the value (5.5)"),
        pytest.param(["BYTES=-1"], partial((9999, 9999)), id="the unit in capitals"),
        pytest.param(["bytes=0-0,-1"], partial((0, 0), (9999, 9999)), id="two ranges"),
        pytest.param(["bytes=0-9,20-29"], partial((0, 29)), id="two that are sent as one"),
        pytest.param(["bytes=0-0,10000-"], partial((0, 0)), id="one of two is satisfiable"),
        pytest.param(["bytes=-10001"], partial((0, 9999)), id="a suffix longer than the file"),
        pytest.param(["bytes=10000-"], UNSATISFIABLE, id="past the end"),
        pytest.param(["bytes=-0"], UNSATISFIABLE, id="a suffix of nothing"),
        pytest.param(["bytes=1-0"], WHOLE, id="invalid"),
        pytest.param(["lines=0-1"], WHOLE, id="another unit"),
        pytest.param([""], WHOLE, id="empty"),
        pytest.param(["bytes=0-1", "bytes=2-3"], WHOLE, id="two field lines do not make one range set"),
        pytest.param(["bytes=0-,0-,0-"], WHOLE, id="abuse"),
    ],
)
def test_range_applies_to_get(values: list[str], decision: Evaluation) -> None:
    assert answer(*lines("Range", values)) == decision


@pytest.mark.parametrize("field", ["bytes=0-499", "bytes=0-0,-1", "bytes=10000-", "bytes=-0", "nonsense"])
def test_range_is_ignored_for_head(field: str) -> None:
    """Section 14.2: GET is the only method for which range handling is defined."""
    assert answer(("Range", field), method="HEAD") is WHOLE
    assert answer(("Range", field), ("If-Range", TAG), method="HEAD") is WHOLE
    assert answer(("Range", field), ("If-None-Match", TAG), method="HEAD") is NOT_MODIFIED


def test_positions_of_an_empty_file_are_unsatisfiable_and_a_suffix_is_the_whole_file() -> None:
    empty = RepresentationInfo(TAG, MODIFIED, 0, "video/mp4")
    assert answer(("Range", "bytes=0-"), selected=empty) is UNSATISFIABLE
    assert answer(("Range", "bytes=-5"), selected=empty) is WHOLE


def test_field_names_are_case_insensitive() -> None:
    assert answer(("iF-nOnE-mAtCh", TAG)) is NOT_MODIFIED
    assert answer(("rAnGe", "bytes=0-0")) == partial((0, 0))


# Section 13.2: preconditions of resources without ranges.


def test_preconditions_can_be_evaluated_alone() -> None:
    assert precondition(headers([]), TAG, None, NOW) is None
    assert precondition(headers([("Range", "bytes=99999-")]), TAG, MODIFIED, NOW) is None
    assert precondition(headers([("If-None-Match", f"W/{TAG}")]), f"W/{TAG}", None, NOW) is NOT_MODIFIED
    assert precondition(headers([("If-Match", OTHER)]), TAG, None, NOW) is PRECONDITION_FAILED


# Section 8.8: validators.


def test_tag_changes_with_each_of_the_four_numbers_and_is_strong() -> None:
    numbers = (7, 600, 1_700_000_000_123_456_789, 1_700_000_001_000_000_000)
    tags = {etag_of(*numbers)}
    for place in range(4):
        changed = list(numbers)
        changed[place] += 1
        tags.add(etag_of(*changed))
    assert len(tags) == 5
    assert all(tag.startswith('"') for tag in tags)


@given(st.lists(st.tuples(*[st.integers(-(2**63), 2**63)] * 4), min_size=2, max_size=2, unique=True))
def test_versions_never_share_a_tag_and_every_tag_is_parsed_back(
    versions: list[tuple[int, int, int, int]],
) -> None:
    one, two = (etag_of(abs(inode), abs(size), *times) for inode, size, *times in versions)
    same = [(abs(inode), abs(size), *times) for inode, size, *times in versions]
    assert (one == two) == (same[0] == same[1])
    assert (
        answer(("If-None-Match", f"{two}, W/{one}"), selected=RepresentationInfo(one, None, 1, "a/b"))
        is NOT_MODIFIED
    )


@pytest.mark.parametrize(
    ("mtime_ns", "seconds"),
    [
        (0, 0),
        (1_999_999_999, 1),
        (-1, -1),
        (MODIFIED * 10**9 + 999_999_999, MODIFIED),
        ((int(NOW) + 1) * 10**9, int(NOW)),
        (10**30, int(NOW)),
        (-(10**30), -62_135_596_800),
    ],
)
def test_last_modified_is_rounded_down_and_never_in_the_future(mtime_ns: int, seconds: int) -> None:
    """Section 8.8.2.1."""
    found = last_modified_of(mtime_ns, NOW)
    assert found == seconds
    assert format_date(found).endswith(" GMT")


# Properties of any request.

names = st.sampled_from(
    ["If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range", "Range", "X-Other"]
)
pieces = st.one_of(
    st.text(),
    st.sampled_from(
        [
            TAG,
            OTHER,
            f"W/{TAG}",
            "*",
            '"',
            ",",
            ", ",
            " ",
            SAME,
            BEFORE,
            AFTER,
            "bytes=",
            "0-",
            "-1",
            "5-9",
            "99999-",
        ]
    ),
)
values = st.lists(pieces, max_size=5).map("".join)
requests = st.lists(st.tuples(names, values), max_size=6)


@given(requests, st.sampled_from(["GET", "HEAD"]), st.integers(0, 20_000))
def test_no_field_value_raises_or_selects_outside_the_file(fields: Fields, method: str, size: int) -> None:
    decision = answer(*fields, method=method, selected=RepresentationInfo(TAG, MODIFIED, size, "video/mp4"))
    assert decision.status in {200, 206, 304, 412, 416}
    assert bool(decision.ranges) == (decision.status == HTTPStatus.PARTIAL_CONTENT)
    assert all(0 <= part.start < part.stop <= size for part in decision.ranges)
    assert sum(part.length for part in decision.ranges) <= size
    if method == "HEAD":
        assert decision.status not in {206, 416}


@given(requests)
def test_combined_field_lines_have_the_same_meaning(fields: Fields) -> None:
    """Section 5.3."""
    combined: dict[str, list[str]] = {}
    for name, value in fields:
        combined.setdefault(name, []).append(value)
    assert answer(*fields) == answer(*((name, ", ".join(lines)) for name, lines in combined.items()))
