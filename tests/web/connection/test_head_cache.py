"""A head that the cache matches except for its path and range is parsed to the same message by the parser."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.web.connection.head_cache import CachedHead, with_path

PLAIN: Final = [
    "//h/a",
    "/api/jobs/job-1",
    "/api/jobs/job-1/download",
    "/",
    "/a//b/../c",
    "/~._-",
    f"/{'x' * 255}",
]
TARGETS: Final = [*PLAIN, "/a?b=c", "/a%20b", "/a;b", "http://h/a", "/" + "x" * 256]
VALUES: Final = ["", "a", "GET /api/jobs/job-1 HTTP/1.1", "a, b"]
"""Of fields; one looks like the first line of a request."""

fields = st.lists(st.tuples(st.sampled_from(["X", "Authorization"]), st.sampled_from(VALUES)), max_size=3)
Fields = list[tuple[str, str]]

RANGES: Final = ["bytes=0-1", "bytes=5-", "bytes=999999999999999999-0", "bytes=00-007"]
OTHER_RANGES: Final = [
    "bytes=-5",
    "bytes=0-1,3-4",
    "bytes=0- 1",
    "bytes=0-1 ",
    "Bytes=0-1",
    "bytes=x-1",
    "",
    "bytes=-",
    f"bytes={'9' * 19}-",
]
ranges = st.sampled_from(RANGES) | st.sampled_from(OTHER_RANGES)
names = st.sampled_from(["Range", "range"])


@pytest.fixture(scope="module", autouse=True)
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    asyncio.set_event_loop(None)
    loop.close()


def parser() -> HttpRequestParser:
    loop = asyncio.get_event_loop_policy().get_event_loop()
    return HttpRequestParser(BaseProtocol(loop), loop, 2**16, max_line_size=8190, max_field_size=8190)


def head(target: str, given: Fields, method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{name}: {value}" for name, value in [("Host", "h"), *given]]
    return "\r\n".join([f"{method} {target} HTTP/{version}", *lines, "", ""]).encode("latin-1")


def parsed(data: bytes) -> RawRequestMessage:
    [(message, _)] = parser().feed_data(data)[0]
    return message


heads = st.builds(head, st.sampled_from(TARGETS), fields, st.sampled_from(["GET", "GET", "GET", "POST"]))


@given(st.lists(heads, min_size=1, max_size=4), st.data())
def test_only_complete_heads_match(sent: list[bytes], data: st.DataObject) -> None:
    """Wherever the stream is split: a piece of a head can look like a head without the fields before it."""
    stream, reading, done = b"".join(sent), parser(), 0
    looks_like_one = [at for at in range(len(stream)) if stream.startswith(b"GET /", at)]
    cut = st.integers(0, len(stream))
    cuts = data.draw(st.lists(st.sampled_from(looks_like_one) | cut if looks_like_one else cut, max_size=6))
    for start, stop in pairwise(sorted({0, *cuts, len(stream)})):
        piece = stream[start:stop]
        messages = reading.feed_data(piece)[0]
        if len(messages) == 1 and CachedHead(messages[0][0], piece).match(piece) is not None:
            assert piece == sent[done]
        for _ in messages:
            reading.message_consumed()
        done += len(messages)
    assert done == len(sent)


@given(st.sampled_from(TARGETS), st.sampled_from(TARGETS), fields, fields, st.sampled_from(["GET", "POST"]))
def test_matched_head_equals_what_the_parser_returns(
    one: str, other: str, first_fields: Fields, second_fields: Fields, method: str
) -> None:
    first, second = head(one, first_fields), head(other, second_fields, method)
    last = CachedHead(parsed(first), first)
    match = last.match(second)
    plain = method == "GET" and one in PLAIN and other in PLAIN
    assert (match is not None) == (plain and first_fields == second_fields)
    if match is not None:
        assert repr(with_path(*match)) == repr(parsed(second))


@given(fields, fields, names, ranges, ranges, st.sampled_from(PLAIN))
def test_matched_head_with_another_range_equals_what_the_parser_returns(
    before: Fields, after: Fields, name: str, one: str, other: str, path: str
) -> None:
    first = head("/a", [*before, (name, one), *after])
    second = head(path, [*before, (name, other), *after])
    match = CachedHead(parsed(first), first).match(second)
    assert (match is not None) == (one == other or (one in RANGES and other in RANGES))
    if match is not None:
        assert repr(with_path(*match)) == repr(parsed(second))


@given(
    st.permutations([("Range", "bytes=0-1"), ("Range", "bytes=2-3"), ("X-Range", "bytes=4-5"), ("X", "a")])
)
def test_request_with_two_ranges_matches_itself_only(given: Fields) -> None:
    """Which of the two fields would count is for the parser to decide."""
    first = head("/a", given)
    last = CachedHead(parsed(first), first)
    assert last.match(first) is not None
    for number in (b"0-1", b"2-3", b"4-5"):
        assert last.match(first.replace(b"bytes=" + number, b"bytes=6-7")) is None


def test_field_whose_name_ends_in_range_is_not_the_range() -> None:
    first = head("/a", [("X-Range", "bytes=0-1")])
    assert CachedHead(parsed(first), first).match(first.replace(b"0-1", b"2-3")) is None


@pytest.mark.parametrize(
    "other",
    [
        head("/b", [("X", "a")], version="1.0"),
        head("/b", [("X", "a")])[:-1],
        head("/b", [("X", "a")]) + b"G",
        head("/b", [("X", "a")]).replace(b"\r\n", b"\n"),
        head("/b", [("X", "A")]),
        head("/b", [("X", "a"), ("X", "a")]),
        head("/b", [("X", "a")]) * 2,
        b"",
    ],
)
def test_head_that_differs_in_one_byte_does_not_match(other: bytes) -> None:
    first = head("/a", [("X", "a")])
    last = CachedHead(parsed(first), first)
    assert last.match(first.replace(b"/a", b"/b")) == (last.message, "/b")
    assert last.match(other) is None
