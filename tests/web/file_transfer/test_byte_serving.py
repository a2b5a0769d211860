"""Byte serving as RFC 9110 defines it (sections 8.6, 8.8, 9.3.2, 13, 14, 15.3.7, 15.4.5, 15.5.17), over
sockets.

Tables of requests and responses, from the sections of the RFC and from the tests of nginx, Apache and Go.
Each response is compared byte for byte, and each is followed by another over the same connection.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Final

import pytest

from tests.clients.raw_http import Answer, Connection, request
from tests.conftest import MakeJob, Serve, put
from tests.programs.service_runner import Service
from tests.programs.shared_service import shared_service
from tests.web.headers.rfc_ranges import RFC_RANGES, RFC_SIZE

SIZE: Final = RFC_SIZE
FILM: Final = "".join(f"{number:04}" for number in range(SIZE // 4)).encode()
MODIFIED: Final = 1_614_834_367
"""Thu, 04 Mar 2021 05:06:07.5 GMT, when the film was written."""
ROUTE: Final = "/api/jobs/film/download"
TYPE: Final = "video/mp4"

SAME: Final = formatdate(MODIFIED, usegmt=True)
BEFORE: Final = formatdate(MODIFIED - 1, usegmt=True)
AFTER: Final = formatdate(MODIFIED + 1, usegmt=True)

Fields = list[tuple[str, str]]
Spans = list[tuple[int, int]]
"""First and last position of each range, both included."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("standing")
    jobs: dict[str, bytes | str] = {"film": FILM, "large": FILM * 300, "empty": b"", "small": b"0123456789\n"}
    jobs |= {"queued": "queued", "failed": "failed", "canceled": "canceled", "bare": "completed"}
    with shared_service(folder, jobs) as process:
        film = folder / "jobs" / "film" / "output" / "film.mp4"
        os.utime(film, ns=(0, MODIFIED * 10**9 + 500_000_000))
        yield process


@pytest.fixture
async def link(service: Service) -> AsyncIterator[Connection]:
    """A connection on which one more request has to be answered at the end: the connection is in the right
    state.
    """
    async with service.connect() as opened:
        yield opened
        after = await opened.ask("GET", ROUTE, [("Range", "bytes=8-11")], token=service.token)
        assert (after.status, after.body) == (206, b"0002")


@pytest.fixture
async def tag(link: Connection, service: Service) -> str:
    return (await link.ask("HEAD", ROUTE, token=service.token)).headers["ETag"]


# Checks of responses.


def is_dated(answer: Answer) -> None:
    """Section 6.6.1: a MUST for every 2xx, 3xx and 4xx."""
    assert re.fullmatch(
        r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} 20\d\d \d\d:\d\d:\d\d GMT", answer.headers["Date"]
    )
    assert len(answer.headers.getall("Date")) == 1


def describes_the_film(answer: Answer) -> None:
    """Check the fields that a 200, a 206 and a 304 have in common (sections 15.3.7 and 15.4.5)."""
    is_dated(answer)
    for name in ("ETag", "Cache-Control", "Accept-Ranges", "Last-Modified"):
        assert len(answer.headers.getall(name)) == 1
    assert re.fullmatch(r'"[!#-~]+"', answer.headers["ETag"])
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Last-Modified"] == SAME
    assert not {"Vary", "Expires", "Content-Location", "Content-Encoding"} & answer.headers.keys()
    assert "Transfer-Encoding" not in answer.headers


def is_whole(answer: Answer, body: bytes = FILM) -> None:
    describes_the_film(answer)
    assert (answer.status, answer.body, answer.content_length) == (200, body, SIZE)
    assert answer.headers["Content-Type"] == TYPE
    assert "Content-Range" not in answer.headers


def is_part(answer: Answer, spans: Spans) -> None:
    """Section 15.3.7.1, or 15.3.7.2 for several parts."""
    describes_the_film(answer)
    assert answer.status == 206
    assert answer.content_length == len(answer.body)
    if len(spans) > 1:
        assert "Content-Range" not in answer.headers
        assert parts_of(answer) == [(TYPE, f"bytes {a}-{b}/{SIZE}", FILM[a : b + 1]) for a, b in spans]
        return
    [(first, last)] = spans
    assert answer.body == FILM[first : last + 1]
    assert answer.headers["Content-Type"] == TYPE
    assert answer.headers.getall("Content-Range") == [f"bytes {first}-{last}/{SIZE}"]


def parts_of(answer: Answer) -> list[tuple[str, str, bytes]]:
    """Parse a multipart body exactly (section 14.6): type, range and content of each part."""
    boundary = re.fullmatch(
        r"multipart/byteranges; boundary=([A-Za-z0-9]{1,70})", answer.headers["Content-Type"]
    )
    assert boundary, answer.headers["Content-Type"]
    delimiter = f"\r\n--{boundary[1]}".encode()
    before, *parts, end = (b"\r\n" + answer.body).split(delimiter)
    assert (before, end) == (b"", b"--\r\n")
    found = []
    for part in parts:
        head, blank, content = part.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        names = [line.partition(": ")[0] for line in lines]
        assert (names, bool(blank)) == (["", "Content-Type", "Content-Range"], True)
        found.append((lines[1].partition(": ")[2], lines[2].partition(": ")[2], content))
    return found


def is_unsatisfiable(answer: Answer, size: int = SIZE) -> None:
    """Section 15.5.17."""
    is_dated(answer)
    assert (answer.status, answer.code) == (416, "range-not-satisfiable")
    assert answer.headers.getall("Content-Range") == [f"bytes */{size}"]
    assert "Last-Modified" not in answer.headers


def is_not_modified(answer: Answer) -> None:
    """Section 15.4.5: the fields of the 200, and nothing about content, since there is none."""
    describes_the_film(answer)
    assert (answer.status, answer.body) == (304, b"")
    absent = {"Content-Length", "Content-Type", "Content-Range", "Content-Disposition"}
    assert not absent & answer.headers.keys()


def is_refused(answer: Answer) -> None:
    is_dated(answer)
    assert (answer.status, answer.code) == (412, "precondition-failed")
    assert not {"Content-Range", "Accept-Ranges"} & answer.headers.keys()


WHOLE: Final = 200
PARTIAL: Final = 206
NOT_MODIFIED: Final = 304
REFUSED: Final = 412
UNSATISFIABLE: Final = 416

HELD: Final = {
    WHOLE: is_whole,
    PARTIAL: lambda answer: is_part(answer, [(0, 3)]),
    NOT_MODIFIED: is_not_modified,
    REFUSED: is_refused,
    UNSATISFIABLE: is_unsatisfiable,
}
PART: Final = ("Range", "bytes=0-3")
"""Sent with a condition: a 206 shows whether it is true."""


# Sections 14.1 and 14.2: what a Range field selects.

FIFTY: Final = range(1, 51)

RANGES: Final[list[tuple[str, int | Spans]]] = [
    # Section 14.1.2: its examples, and its rules
    *RFC_RANGES,
    ("bytes=0-0", [(0, 0)]),
    ("bytes=0-", [(0, 9999)]),
    ("bytes=0-9999", [(0, 9999)]),
    ("bytes=0-10000", [(0, 9999)]),
    ("bytes=9999-", [(9999, 9999)]),
    ("bytes=9999-9999", [(9999, 9999)]),
    ("bytes=9999-10000", [(9999, 9999)]),
    ("bytes=9990-19990", [(9990, 9999)]),
    ("bytes=-1", [(9999, 9999)]),
    ("bytes=-10000", [(0, 9999)]),
    ("bytes=-10001", [(0, 9999)]),
    ("bytes=-99999999999999999999", [(0, 9999)]),
    ("bytes=1-18446744073709551615", [(1, 9999)]),
    ("bytes=1-18446744073709551616", [(1, 9999)]),
    (f"bytes=1-{'9' * 1_000}", [(1, 9999)]),
    (f"bytes={'0' * 1_000}1-2", [(1, 2)]),
    ("bytes=00-007", [(0, 7)]),
    ("bytes=10000-", UNSATISFIABLE),
    ("bytes=10000-10000", UNSATISFIABLE),
    ("bytes=10000-20000", UNSATISFIABLE),
    ("bytes=18446744073709551616-", UNSATISFIABLE),
    ("bytes=4294967296-4294967299", UNSATISFIABLE),
    (f"bytes={'9' * 1_000}-", UNSATISFIABLE),
    ("bytes=-0", UNSATISFIABLE),
    ("bytes=-00", UNSATISFIABLE),
    ("bytes=10000-,-0,20000-20001", UNSATISFIABLE),
    ("bytes=100000-110000,200000-", UNSATISFIABLE),
    # One satisfiable range is enough
    ("bytes=10000-,0-3", [(0, 3)]),
    ("bytes=0-3,10000-", [(0, 3)]),
    ("bytes=-0,0-3", [(0, 3)]),
    ("bytes=100000-110000,1000-2000", [(1000, 2000)]),
    ("bytes=0-9,-10,100000-,10-19", [(0, 19), (9990, 9999)]),
    # Section 14.1: units are case-insensitive, and unknown units are ignored (14.2: MUST)
    ("Bytes=0-3", [(0, 3)]),
    ("BYTES=0-3", [(0, 3)]),
    ("bYtEs=-1", [(9999, 9999)]),
    ("items=0-3", WHOLE),
    ("seconds=1-2", WHOLE),
    ("none=0-3", WHOLE),
    ("byte=0-3", WHOLE),
    ("bytes2=0-3", WHOLE),
    ("x-bytes=0-3", WHOLE),
    ("items=99999-", WHOLE),
    # Section 5.6.1: lists
    ("bytes=,0-3", [(0, 3)]),
    ("bytes=0-3,", [(0, 3)]),
    ("bytes=,,0-3,,", [(0, 3)]),
    ("bytes= ,\t0-3 , ,", [(0, 3)]),
    ("bytes=0-0 ,,\t500-500", [(0, 0), (500, 500)]),
    ("bytes=\t0-3", [(0, 3)]),
    ("bytes=0-3 \t", [(0, 3)]),
    ("bytes=", WHOLE),
    ("bytes=,", WHOLE),
    ("bytes= , , ", WHOLE),
    # Section 14.1.1: one invalid range invalidates the set
    ("bytes=1-0", WHOLE),
    ("bytes=7-1", WHOLE),
    ("bytes=20000-10000", WHOLE),
    ("bytes=0-3,5-4", WHOLE),
    ("bytes=100000-110000,5-2", WHOLE),
    ("bytes=0-3,x", WHOLE),
    ("bytes=alpha", WHOLE),
    ("bytes=10-alpha", WHOLE),
    ("bytes=A-Z", WHOLE),
    ("bytes=0x0-0x3", WHOLE),
    ("bytes=10", WHOLE),
    ("bytes=-", WHOLE),
    ("bytes=--1", WHOLE),
    ("bytes=0--3", WHOLE),
    ("bytes=-1-3", WHOLE),
    ("bytes=0-1-2", WHOLE),
    ("bytes=+0-3", WHOLE),
    ("bytes=0-3.5", WHOLE),
    ("bytes=0 -3", WHOLE),
    ("bytes=0- 3", WHOLE),
    ("bytes=0-3 10-13", WHOLE),
    ("bytes=0-3;10-13", WHOLE),
    ("bytes =0-3", WHOLE),
    ("bytes 0-3", WHOLE),
    ("bytes:0-3", WHOLE),
    ("bytes 0-3/10000", WHOLE),
    ("bytes=*", WHOLE),
    ("bytes=*/10000", WHOLE),
    ("bytes=0-3/10000", WHOLE),
    ('"bytes=0-3"', WHOLE),
    ("bytes='0-3'", WHOLE),
    ("bytes", WHOLE),
    ("=0-3", WHOLE),
    ("0-3", WHOLE),
    ("", WHOLE),
    ("foo", WHOLE),
    ("bytes=\u0660-\u0663", WHOLE),
    # Section 15.3.7.2: several
    ("bytes=0-1,1000-1001", [(0, 1), (1000, 1001)]),
    ("bytes=1000-1100,100-200", [(1000, 1100), (100, 200)]),
    ("bytes=3000-,100-200,2000-2200", [(3000, 9999), (100, 200), (2000, 2200)]),
    ("bytes=-10,0-9", [(9990, 9999), (0, 9)]),
    ("bytes=0-9,10-19,20-29", [(0, 29)]),
    ("bytes=0-9,12-19", [(0, 19)]),
    ("bytes=0-100,70-100,1000-1001", [(0, 100), (1000, 1001)]),
    ("bytes=1-70,0-100,1000-1001", [(0, 100), (1000, 1001)]),
    ("bytes=0-100,1-101,1000-1001,5-6", [(0, 101), (1000, 1001)]),
    ("bytes=0-4,2-6,4-8,1-1", [(0, 8)]),
    ("bytes=0-3,0-3", [(0, 3)]),
    ("bytes=0-3,500-503,0-3", [(0, 3), (500, 503)]),
    ("bytes=" + ",".join(f"{n}00-{n}01" for n in FIFTY), [(n * 100, n * 100 + 1) for n in FIFTY]),
    # Sections 14.2 and 17.15: no request costs more than the file
    ("bytes=0-,0-", WHOLE),
    ("bytes=0-,1-,2-,3-,4-", WHOLE),
    ("bytes=0-10001,0-0", WHOLE),
    ("bytes=" + ",".join(["0-"] * 200), WHOLE),
    ("bytes=0-," + ",".join(f"5-{n}" for n in range(5, 1_000)), WHOLE),
    ("bytes=" + ",".join(f"{n * 2}-{n * 2}" for n in range(700)), WHOLE),
    ("bytes=" + ",".join(f"{n * 90}-{n * 90}" for n in range(100)), WHOLE),
]  # fmt: skip


@pytest.mark.parametrize(("field", "outcome"), RANGES, ids=[field[:60] or "empty" for field, _ in RANGES])
async def test_range_field_selects(
    link: Connection, service: Service, field: str, outcome: int | Spans
) -> None:
    answer = await link.ask("GET", ROUTE, [("Range", field)], token=service.token)
    if isinstance(outcome, int):
        HELD[outcome](answer)
    else:
        is_part(answer, outcome)
    # Ranges are defined for GET only (section 14.2), and HEAD describes the 200 (9.3.2).
    is_whole(await link.ask("HEAD", ROUTE, [("Range", field)], token=service.token), b"")


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        (["bytes=0-3", "500-503"], [(0, 3), (500, 503)]),
        (["bytes=0-3", ""], [(0, 3)]),
        (["bytes=0-3,", "500-503"], [(0, 3), (500, 503)]),
        (["bytes=0-3", "bytes=500-503"], WHOLE),
        (["items=0-3", "bytes=0-3"], WHOLE),
        (["", "bytes=0-3"], WHOLE),
    ],
)
async def test_field_lines_are_combined_into_one_value(
    link: Connection, service: Service, lines: list[str], outcome: int | Spans
) -> None:
    """Section 5.3."""
    answer = await link.ask("GET", ROUTE, [("Range", line) for line in lines], token=service.token)
    if isinstance(outcome, int):
        HELD[outcome](answer)
    else:
        is_part(answer, outcome)


@pytest.mark.parametrize("name", ["range", "RANGE", "rAnGe"])
async def test_field_names_are_case_insensitive(link: Connection, service: Service, name: str) -> None:
    is_part(await link.ask("GET", ROUTE, [(name, "bytes=0-3")], token=service.token), [(0, 3)])


BOUNDARIES: Final = [0, 1, 2, 3, 4_095, 4_096, 4_097, 9_997, 9_998, 9_999]


@pytest.mark.parametrize("first", BOUNDARIES)
async def test_each_pair_of_positions_selects_its_bytes(
    link: Connection, service: Service, first: int
) -> None:
    for last in (last for last in BOUNDARIES if last >= first):
        request_fields = [("Range", f"bytes={first}-{last}")]
        is_part(await link.ask("GET", ROUTE, request_fields, token=service.token), [(first, last)])


async def test_ranges_of_a_large_file_add_up_to_the_file(link: Connection, service: Service) -> None:
    """As in Apache's test: each range is requested one byte longer than necessary."""
    got = b""
    while len(got) < SIZE * 300:
        field = ("Range", f"bytes={len(got)}-{len(got) + 262_144}")
        piece = await link.ask("GET", "/api/jobs/large/download", [field], token=service.token)
        last = len(got) + len(piece.body) - 1
        assert piece.headers["Content-Range"] == f"bytes {len(got)}-{last}/{SIZE * 300}"
        got += piece.body
    assert got == FILM * 300


async def test_ranges_of_a_file_above_four_gigabytes(serve: Serve, make_job: MakeJob) -> None:
    """Section 14.1.2: positions are large numbers, and none wraps around."""
    output, start = make_job(output=FILM) / "output" / "film.mp4", 2**32
    with output.open("r+b") as file:
        file.truncate(start + len(FILM))
        file.seek(start)
        file.write(FILM)
    service, size = await serve(), start + len(FILM)
    assert (await service.ask("HEAD", "/api/jobs/job-1/download")).content_length == size
    for field in (f"bytes={start}-", f"bytes=-{len(FILM)}", f"bytes={start}-{2**64}"):
        answer = await service.download("job-1", ("Range", field))
        assert (answer.body, answer.headers["Content-Range"]) == (FILM, f"bytes {start}-{size - 1}/{size}")
    answer = await service.download("job-1", ("Range", f"bytes=0-3,{start + 4}-{start + 7}"))
    assert [content for _, _, content in parts_of(answer)] == [b"0000", b"0001"]
    is_unsatisfiable(await service.download("job-1", ("Range", f"bytes={size}-")), size)


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ("bytes=0-", 416),
        ("bytes=0-0", 416),
        ("bytes=5-", 416),
        ("bytes=-0", 416),
        ("bytes=-1", 200),
        ("bytes=-99", 200),
        ("bytes=1-0", 200),
        ("items=0-", 200),
        ("bytes=", 200),
    ],
)
async def test_ranges_of_an_empty_file(link: Connection, service: Service, field: str, status: int) -> None:
    """Section 14.1.2: only a suffix is satisfiable. No Content-Range can express it (14.4), so it is ignored
    (14.2).
    """
    target = "/api/jobs/empty/download"
    request_fields = ("Range", field)
    answer = await link.ask("GET", target, [request_fields], token=service.token)
    if status == UNSATISFIABLE:
        is_unsatisfiable(answer, 0)
    whole = [await link.ask("GET", target, [request_fields, ("If-Range", '"x"')], token=service.token)]
    whole += [answer] if status == WHOLE else []
    assert [(answer.status, answer.body, answer.content_length) for answer in whole] == [(200, b"", 0)] * len(
        whole
    )
    head = await link.ask("HEAD", target, [request_fields], token=service.token)
    assert (head.status, head.headers["Content-Length"]) == (200, "0")


# Go's table of a small file: its parts would cost more than the whole file.


@pytest.mark.parametrize(
    ("field", "status", "span"),
    [
        ("bytes=0-4", 206, (0, 4)),
        ("bytes=2-", 206, (2, 10)),
        ("bytes=-5", 206, (6, 10)),
        ("bytes=3-7", 206, (3, 7)),
        ("bytes=0-0,-2", 206, (0, 10)),
        ("bytes=0-1,5-8", 206, (0, 8)),
        ("bytes=0-1,5-", 206, (0, 10)),
        ("bytes=5-1000", 206, (5, 10)),
        ("bytes=0-,1-,2-,3-,4-", 200, (0, 10)),
        ("bytes=0-10", 206, (0, 10)),
        ("bytes=0-11", 206, (0, 10)),
        ("bytes=10-11", 206, (10, 10)),
        ("bytes=10-", 206, (10, 10)),
        ("bytes=11-", 416, None),
        ("bytes=11-12", 416, None),
        ("bytes=12-12", 416, None),
        ("bytes=11-100", 416, None),
        ("bytes=12-100", 416, None),
        ("bytes=100-", 416, None),
        ("bytes=100-1000", 416, None),
    ],
)
async def test_ranges_of_a_small_file(
    link: Connection, service: Service, field: str, status: int, span: tuple[int, int] | None
) -> None:
    data = b"0123456789\n"
    answer = await link.ask("GET", "/api/jobs/small/download", [("Range", field)], token=service.token)
    assert answer.status == status
    if span is None:
        is_unsatisfiable(answer, len(data))
    else:
        assert answer.body == data[span[0] : span[1] + 1]
        expected = f"bytes {span[0]}-{span[1]}/{len(data)}" if status == 206 else None
        assert answer.headers.get("Content-Range") == expected


async def test_no_boundary_is_used_twice(link: Connection, service: Service) -> None:
    request_fields = [("Range", "bytes=0-0,-1")]
    seen = {
        (await link.ask("GET", ROUTE, request_fields, token=service.token)).headers["Content-Type"]
        for _ in "abc"
    }
    assert len(seen) == 3


# Section 13.1: conditions. {tag} is the film's entity tag, {opaque} what is between its quotes.

ITS_TAG: Final = [
    "{tag}",
    "*",
    "\t{tag} ",
    '"x", {tag}',
    '{tag},"x"',
    '"x" ,\t{tag}\t, "y"',
    ",{tag}",
    "{tag},",
    ' ,, "x",,{tag}, ,',
    '"a,b", {tag}',
    '"", {tag}',
    '"*", {tag}',
    '"\\", {tag}',
    '"\xe4\xff", {tag}',
    'W/"x", {tag}',
    ", ".join(f'"{number}"' for number in range(300)) + ", {tag}",
]
ITS_TAG_WEAKLY: Final = ["W/{tag}", 'W/"x", W/{tag}', 'W/{tag},"x"']
ANOTHERS: Final = [
    '"x"',
    '"x", "y"',
    '"*"',
    'W/"*"',
    '""',
    '"{opaque}x"',
    '"x{opaque}"',
    '"x,{opaque}"',
    '" {opaque}"',
    "",
    ",",
    " , ,",
]
NO_TAGS: Final = [
    "{opaque}",
    "'{opaque}'",
    '"{opaque}',
    '{opaque}"',
    "w/{tag}",
    "W {tag}",
    "W/ {tag}",
    "W//{tag}",
    "{tag} {tag}",
    "{tag}; {tag}",
    "{tag}, x",
    "x, {tag}",
    "*, {tag}",
    "{tag}, *",
    "**",
    "*,",
    "*, *",
    SAME,
]


def with_tag(text: str, tag: str) -> str:
    return text.replace("{tag}", tag).replace("{opaque}", tag[1:-1])


@pytest.mark.parametrize("value", [*ITS_TAG, *ITS_TAG_WEAKLY], ids=lambda value: value[:40])
async def test_if_none_match_with_the_tag_is_304(
    link: Connection, service: Service, tag: str, value: str
) -> None:
    """Section 13.1.2, by weak comparison."""
    request_fields = [("If-None-Match", with_tag(value, tag))]
    for fields in (
        request_fields,
        [*request_fields, PART],
        [*request_fields, ("If-Modified-Since", BEFORE)],
        [*request_fields, ("Range", "bytes=99999-")],
    ):
        is_not_modified(await link.ask("GET", ROUTE, fields, token=service.token))
        is_not_modified(await link.ask("HEAD", ROUTE, fields, token=service.token))


@pytest.mark.parametrize("value", [*ANOTHERS, *NO_TAGS], ids=lambda value: value[:40] or "empty")
async def test_if_none_match_with_another_tag_is_200(
    link: Connection, service: Service, tag: str, value: str
) -> None:
    """No date is evaluated then (section 13.2.2, step 4)."""
    request_fields = [("If-None-Match", with_tag(value, tag))]
    for fields in (request_fields, [*request_fields, ("If-Modified-Since", SAME)]):
        is_whole(await link.ask("GET", ROUTE, fields, token=service.token))
        is_whole(await link.ask("HEAD", ROUTE, fields, token=service.token), b"")
        is_part(await link.ask("GET", ROUTE, [*fields, PART], token=service.token), [(0, 3)])


@pytest.mark.parametrize("value", ITS_TAG, ids=lambda value: value[:40])
async def test_if_match_with_the_tag_is_true(
    link: Connection, service: Service, tag: str, value: str
) -> None:
    """Section 13.1.1; no date is evaluated then (section 13.2.2, step 2)."""
    request_fields = [("If-Match", with_tag(value, tag))]
    for fields in (request_fields, [*request_fields, ("If-Unmodified-Since", BEFORE)]):
        is_whole(await link.ask("GET", ROUTE, fields, token=service.token))
        is_whole(await link.ask("HEAD", ROUTE, fields, token=service.token), b"")
        is_part(await link.ask("GET", ROUTE, [*fields, PART], token=service.token), [(0, 3)])


@pytest.mark.parametrize(
    "value", [*ITS_TAG_WEAKLY, *ANOTHERS, *NO_TAGS], ids=lambda value: value[:40] or "empty"
)
async def test_if_match_with_another_tag_is_false(
    link: Connection, service: Service, tag: str, value: str
) -> None:
    """By strong comparison, and before all other conditions."""
    request_fields = [("If-Match", with_tag(value, tag))]
    for more in (
        [],
        [PART],
        [("If-None-Match", tag)],
        [("If-Unmodified-Since", SAME)],
        [("Range", "bytes=99999-")],
    ):
        is_refused(await link.ask("GET", ROUTE, [*request_fields, *more], token=service.token))
    head = await link.ask("HEAD", ROUTE, request_fields, token=service.token)
    assert (head.status, head.body) == (412, b"")


@pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
async def test_tags_on_several_lines_are_one_list(
    link: Connection, service: Service, tag: str, name: str
) -> None:
    """Section 5.3."""
    outcome = WHOLE if name == "If-Match" else NOT_MODIFIED
    for values in (['"x"', tag], [tag, '"x"'], ["", tag], [tag, ""]):
        HELD[outcome](await link.ask("GET", ROUTE, [(name, value) for value in values], token=service.token))


DATES: Final = {
    SAME: 0,
    "Thursday, 04-Mar-21 05:06:07 GMT": 0,
    "Thu Mar  4 05:06:07 2021": 0,
    BEFORE: -1,
    "Thursday, 04-Mar-21 05:06:06 GMT": -1,
    "Thu Mar  4 05:06:06 2021": -1,
    "Thu, 01 Jan 1970 00:00:00 GMT": -1,
    "Sun, 06 Nov 1994 08:49:37 GMT": -1,
    "Sunday, 06-Nov-94 08:49:37 GMT": -1,
    "Sun Nov  6 08:49:37 1994": -1,
    "Fri, 01 Jan 1900 00:00:00 GMT": -1,
    AFTER: 1,
    "Thursday, 04-Mar-21 05:06:08 GMT": 1,
    "Thu Mar  4 05:06:08 2021": 1,
    "Tue, 19 Jan 2038 03:14:08 GMT": 1,
    "Fri, 25 Feb 2174 09:42:23 GMT": 1,
    "Fri, 31 Dec 9999 23:59:59 GMT": 1,
    "Saturday, 01-Jan-50 00:00:00 GMT": 1,
    "Tuesday, 01-Jan-91 00:00:00 GMT": -1,
}
"""The film's date (0), an earlier (-1) or a later one (1)."""

NO_DATES: Final = [
    "",
    "yesterday",
    "0",
    str(MODIFIED),
    f"{SAME}, {SAME}",
    f"{SAME}; length=1",
    f'"{SAME}"',
    SAME.lower(),
    SAME.upper().replace("MAR", "Mar"),
    SAME.replace("GMT", "UTC"),
    SAME.replace("GMT", "+0000"),
    SAME.replace("GMT", "CET"),
    SAME.replace(" GMT", ""),
    SAME.replace(",", ""),
    SAME.replace("04 Mar", "4 Mar"),
    SAME.replace(" ", "  "),
    SAME.replace("05:06:07", "5:6:7"),
    SAME.replace("05:06:07", "25:06:07"),
    SAME.replace("05:06:07", "05:06"),
    SAME.replace("04 Mar", "31 Feb"),
    SAME.replace("Thu", "Don"),
    SAME.replace("2021", "21"),
    "2021-03-04T05:06:07Z",
    "Thursday, 04 Mar 2021 05:06:07 GMT",
    "Thu Mar 4 05:06:07 2021",
    '"{opaque}"',
    "*",
]


@pytest.mark.parametrize(("date", "order"), DATES.items(), ids=DATES)
async def test_date_is_accepted_in_each_form(
    link: Connection, service: Service, date: str, order: int
) -> None:
    """Sections 5.6.7, 13.1.3, 13.1.4 and 13.1.5."""
    since, until = ("If-Modified-Since", date), ("If-Unmodified-Since", date)
    outcomes = [
        ([since], NOT_MODIFIED if order >= 0 else WHOLE),
        ([since, PART], NOT_MODIFIED if order >= 0 else PARTIAL),
        ([until], WHOLE if order >= 0 else REFUSED),
        ([until, PART], PARTIAL if order >= 0 else REFUSED),
        ([("If-Range", date), PART], PARTIAL if order == 0 else WHOLE),
        ([("If-Range", date)], WHOLE),
    ]
    for fields, outcome in outcomes:
        HELD[outcome](await link.ask("GET", ROUTE, fields, token=service.token))
    head = await link.ask("HEAD", ROUTE, [since], token=service.token)
    assert head.status == outcomes[0][1]


@pytest.mark.parametrize("value", NO_DATES, ids=lambda value: value or "empty")
async def test_invalid_date_is_ignored(link: Connection, service: Service, tag: str, value: str) -> None:
    """Sections 13.1.3 and 13.1.4: a MUST; and If-Range is false with it."""
    value = with_tag(value, tag)
    for name in ("If-Modified-Since", "If-Unmodified-Since"):
        is_whole(await link.ask("GET", ROUTE, [(name, value)], token=service.token))
        is_part(await link.ask("GET", ROUTE, [(name, value), PART], token=service.token), [(0, 3)])
        is_whole(await link.ask("HEAD", ROUTE, [(name, value)], token=service.token), b"")
    if value != tag:
        is_whole(await link.ask("GET", ROUTE, [("If-Range", value), PART], token=service.token))


@pytest.mark.parametrize("name", ["If-Modified-Since", "If-Unmodified-Since", "If-Range"])
async def test_dates_on_two_lines_are_invalid(link: Connection, service: Service, name: str) -> None:
    date = SAME if name != "If-Unmodified-Since" else BEFORE
    fields = [(name, date), (name, date)]
    is_whole(await link.ask("GET", ROUTE, fields, token=service.token))
    outcome = WHOLE if name == "If-Range" else PARTIAL
    HELD[outcome](await link.ask("GET", ROUTE, [*fields, PART], token=service.token))


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ("{tag}", PARTIAL),
        (" {tag}\t", PARTIAL),
        ("W/{tag}", WHOLE),
        ('"x"', WHOLE),
        ('"x", {tag}', WHOLE),
        ("{tag}, {tag}", WHOLE),
        ("{tag},", WHOLE),
        ("*", WHOLE),
        ('"*"', WHOLE),
        ("{opaque}", WHOLE),
        ('"{opaque}', WHOLE),
        ("", WHOLE),
        ("wrong", WHOLE),
    ],
)
async def test_if_range_is_true_for_exactly_the_tag(
    link: Connection, service: Service, tag: str, value: str, outcome: int
) -> None:
    """Section 13.1.5, by strong comparison: otherwise a file is joined from two versions."""
    condition = ("If-Range", with_tag(value, tag))
    HELD[outcome](await link.ask("GET", ROUTE, [condition, PART], token=service.token))
    is_whole(await link.ask("GET", ROUTE, [condition], token=service.token))
    is_whole(await link.ask("HEAD", ROUTE, [condition, PART], token=service.token), b"")
    several = await link.ask("GET", ROUTE, [condition, ("Range", "bytes=0-3,500-503")], token=service.token)
    is_part(several, [(0, 3), (500, 503)]) if outcome == PARTIAL else is_whole(several)
    beyond = await link.ask("GET", ROUTE, [condition, ("Range", "bytes=99999-")], token=service.token)
    is_unsatisfiable(beyond) if outcome == PARTIAL else is_whole(beyond)
    for ignored in ("items=0-3", "bytes=3-0", "bytes="):
        is_whole(await link.ask("GET", ROUTE, [condition, ("Range", ignored)], token=service.token))


# Section 13.2.2: precedence.


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ([("If-Match", "{tag}"), ("If-None-Match", "{tag}")], NOT_MODIFIED),
        ([("If-Match", "{tag}"), ("If-None-Match", '"x"')], WHOLE),
        ([("If-Match", "{tag}"), ("If-None-Match", '"x"'), PART], PARTIAL),
        ([("If-Match", '"x"'), ("If-None-Match", '"x"'), PART], REFUSED),
        ([("If-Match", "{tag}"), ("If-Modified-Since", SAME)], NOT_MODIFIED),
        ([("If-Unmodified-Since", SAME), ("If-None-Match", "{tag}")], NOT_MODIFIED),
        ([("If-Unmodified-Since", BEFORE), ("If-None-Match", "{tag}")], REFUSED),
        ([("If-Unmodified-Since", SAME), ("If-Modified-Since", SAME)], NOT_MODIFIED),
        ([("If-Unmodified-Since", BEFORE), ("If-Modified-Since", BEFORE)], REFUSED),
        ([("If-Unmodified-Since", SAME), ("If-Modified-Since", BEFORE), PART], PARTIAL),
        ([("If-Match", '"x"'), ("If-Range", '"x"'), PART], REFUSED),
        ([("If-Match", "{tag}"), ("If-Range", '"x"'), PART], WHOLE),
        ([("If-Match", "{tag}"), ("If-Range", "{tag}"), PART], PARTIAL),
        ([("If-None-Match", "{tag}"), ("If-Range", "{tag}"), PART], NOT_MODIFIED),
        ([("If-None-Match", '"x"'), ("If-Range", "{tag}"), PART], PARTIAL),
        ([("If-None-Match", '"x"'), ("If-Range", '"x"'), PART], WHOLE),
        ([("If-Match", "{tag}"), ("Range", "bytes=99999-")], UNSATISFIABLE),
        ([("If-None-Match", '"x"'), ("Range", "bytes=99999-")], UNSATISFIABLE),
        ([("If-Modified-Since", BEFORE), ("Range", "bytes=99999-")], UNSATISFIABLE),
        ([("If-Modified-Since", SAME), ("Range", "bytes=99999-")], NOT_MODIFIED),
        ([("If-Unmodified-Since", BEFORE), ("Range", "bytes=99999-")], REFUSED),
    ],
)
async def test_conditions_are_evaluated_in_the_rfc_s_order(
    link: Connection, service: Service, tag: str, fields: Fields, outcome: int
) -> None:
    filled = [(name, with_tag(value, tag)) for name, value in fields]
    HELD[outcome](await link.ask("GET", ROUTE, filled, token=service.token))
    HELD[outcome](await link.ask("GET", ROUTE, filled[::-1], token=service.token))


# Section 13.2.1: conditions and ranges are ignored if the response would not be a 2xx without them.

CONDITIONS: Final = [
    [("If-None-Match", "*")],
    [("If-Match", '"x"')],
    [("If-Match", "*")],
    [("If-Modified-Since", "Fri, 31 Dec 9999 23:59:59 GMT")],
    [("If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:00 GMT")],
    [("Range", "bytes=0-3")],
    [("Range", "bytes=99999-")],
    [("Range", "bytes=0-3"), ("If-Range", '"x"')],
]


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/api/jobs/unknown/download", 404),
        ("GET", "/api/jobs/bare/download", 404),
        ("GET", "/nothing", 404),
        ("GET", "/api/jobs/queued/download", 409),
        ("GET", "/api/jobs/failed/download", 409),
        ("GET", "/api/jobs/canceled/download", 409),
        ("HEAD", "/api/jobs/queued/download", 409),
        ("HEAD", "/api/jobs/unknown/download", 404),
        ("POST", ROUTE, 405),
        ("PUT", ROUTE, 405),
        ("DELETE", ROUTE, 405),
        ("PATCH", ROUTE, 405),
        ("OPTIONS", ROUTE, 405),
        ("TRACE", ROUTE, 405),
    ],
)
async def test_refusal_does_not_depend_on_conditions(
    link: Connection, service: Service, method: str, target: str, status: int
) -> None:
    for fields in CONDITIONS:
        answer = await link.ask(method, target, fields, token=service.token)
        assert answer.status == status
        is_dated(answer)
        assert not {"Content-Range", "Accept-Ranges", "ETag", "Last-Modified"} & answer.headers.keys()
        assert ("Allow" in answer.headers) == (status == 405)


async def test_without_a_token_no_condition_is_evaluated(link: Connection, service: Service) -> None:
    for fields in CONDITIONS:
        answer = await link.ask("GET", ROUTE, fields)
        assert (answer.status, answer.code) == (401, "unauthorized")
        is_dated(answer)


async def test_json_document_has_conditions_and_no_ranges(link: Connection, service: Service) -> None:
    target = "/api/jobs/film"
    plain = await link.ask("GET", target, token=service.token)
    tag = plain.headers["ETag"]
    assert "Accept-Ranges" not in plain.headers
    for fields in (
        [("Range", "bytes=0-3")],
        [("Range", "bytes=99999-")],
        [("If-Match", tag)],
        [("If-None-Match", '"x"')],
    ):
        answer = await link.ask("GET", target, fields, token=service.token)
        assert (answer.status, answer.body) == (200, plain.body)
        head = await link.ask("HEAD", target, fields, token=service.token)
        assert (head.status, head.content_length) == (200, len(plain.body))
    for value in (tag, f"W/{tag}", "*", f'"x", {tag}'):
        answer = await link.ask("GET", target, [("If-None-Match", value)], token=service.token)
        assert (answer.status, answer.headers["ETag"]) == (304, tag)
        assert not {"Content-Length", "Content-Type"} & answer.headers.keys()
        is_dated(answer)
    for value in (f"W/{tag}", '"x"', '"*"'):
        answer = await link.ask("GET", target, [("If-Match", value)], token=service.token)
        assert answer.code == "precondition-failed"


# Section 9.3.2: HEAD.


@pytest.mark.parametrize(
    "target", [ROUTE, "/api/jobs/large/download", "/api/jobs/empty/download", "/api/jobs/film"]
)
@pytest.mark.parametrize(
    "fields", [[], [("If-Match", "*")], [("If-None-Match", "*")], [("If-Match", '"x"')]], ids=str
)
async def test_head_has_the_fields_of_get(
    link: Connection, service: Service, target: str, fields: Fields
) -> None:
    got = await link.ask("GET", target, fields, token=service.token)
    head = await link.ask("HEAD", target, fields, token=service.token)
    assert (head.status, head.body) == (got.status, b"")
    changing = {"Date", "X-Request-Id", "RateLimit", "Age"}
    assert {name: value for name, value in got.headers.items() if name not in changing} == {
        name: value for name, value in head.headers.items() if name not in changing
    }


async def test_other_fields_do_not_change_the_bytes(link: Connection, service: Service) -> None:
    """No coding is negotiated, and Content-Range has no meaning in a GET (section 14.4: MUST ignore)."""
    for field in (
        ("Accept-Encoding", "gzip, br"),
        ("Accept-Encoding", "identity;q=0"),
        ("Accept", "text/html"),
        ("TE", "trailers"),
        ("Cache-Control", "no-cache"),
        ("Pragma", "no-cache"),
        ("Content-Range", "bytes 0-3/10000"),
        ("Request-Range", "bytes=0-3"),
        ("X-Range", "bytes=0-3"),
    ):
        is_whole(await link.ask("GET", ROUTE, [field], token=service.token))


# Section 8.8: validators change with the file.


async def test_date_is_not_a_strong_validator_within_its_second(serve: Serve, make_job: MakeJob) -> None:
    """Section 8.8.2.2: the file may change again under the same date. Its tag is strong immediately."""
    output = make_job(output=FILM) / "output" / "film.mp4"
    service = await serve()
    seen: set[int] = set()
    ends = time.monotonic() + 10
    async with service.connect() as link:
        while seen != {200, 206}:
            assert time.monotonic() < ends
            if 206 in seen:
                os.utime(output)
            head = await link.ask("HEAD", "/api/jobs/job-1/download", token=service.token)
            request_fields = [PART, ("If-Range", head.headers["Last-Modified"])]
            answer = await link.ask("GET", "/api/jobs/job-1/download", request_fields, token=service.token)
            if answer.headers["Last-Modified"] == head.headers["Last-Modified"]:
                date, changed = (
                    parsedate_to_datetime(answer.headers[name]).timestamp()
                    for name in ("Date", "Last-Modified")
                )
                # The second may end between the evaluation and the Date field.
                assert answer.status in (
                    {200} if date == changed else {200, 206} if date == changed + 1 else {206}
                )
                seen.add(answer.status)
            by_tag = [PART, ("If-Range", head.headers["ETag"])]
            assert (
                await link.ask("GET", "/api/jobs/job-1/download", by_tag, token=service.token)
            ).status == 206


async def test_last_modified_is_never_in_the_future(serve: Serve, make_job: MakeJob) -> None:
    """Section 8.8.2.1: MUST NOT be later than Date."""
    output = make_job(output=FILM) / "output" / "film.mp4"
    os.utime(output, (time.time() + 86_400,) * 2)
    service = await serve()
    answer = await service.download("job-1")
    with_tag, dated = (parsedate_to_datetime(answer.headers[name]) for name in ("Last-Modified", "Date"))
    assert dated - timedelta(seconds=2) <= with_tag <= dated


def replaced(output: Path) -> bytes:
    put(output, FILM[::-1])
    return FILM[::-1]


def rewritten(output: Path) -> bytes:
    """Change the bytes and keep the size and the time."""
    times = output.stat()
    output.write_bytes(FILM[::-1])
    os.utime(output, ns=(times.st_atime_ns, times.st_mtime_ns))
    return FILM[::-1]


def touched(output: Path) -> bytes:
    os.utime(output, (1, 1))
    return FILM


def longer(output: Path) -> bytes:
    output.write_bytes(FILM + b"more")
    return FILM + b"more"


@pytest.mark.parametrize("change", [replaced, rewritten, touched, longer])
async def test_entity_tag_of_one_version_is_invalid_for_another(
    serve: Serve, make_job: MakeJob, change: Callable[[Path], bytes]
) -> None:
    output = make_job(output=FILM) / "output" / "film.mp4"
    service = await serve()
    old = (await service.download("job-1")).headers["ETag"]
    new = change(output)
    answer = await service.download("job-1", PART, ("If-Range", old))
    assert (answer.status, answer.body) == (200, new)
    assert answer.headers["ETag"] != old
    assert (await service.download("job-1", ("If-None-Match", old))).body == new
    assert (await service.download("job-1", ("If-Match", old))).status == 412
    assert (await service.download("job-1", PART, ("If-Range", answer.headers["ETag"]))).status == 206


async def test_all_kinds_of_responses_in_one_packet(service: Service) -> None:
    """RFC 9112, section 9.3.2: each equals the response to a request by itself."""
    kinds: list[tuple[str, Fields, int]] = [
        ("GET", [], WHOLE),
        ("GET", [PART], PARTIAL),
        ("HEAD", [PART], 0),
        ("GET", [("If-None-Match", "*")], NOT_MODIFIED),
        ("GET", [("If-Match", '"x"')], REFUSED),
        ("GET", [("Range", "bytes=99999-")], UNSATISFIABLE),
        ("HEAD", [("If-None-Match", "*")], NOT_MODIFIED),
        ("GET", [("Range", "bytes=0-3")], PARTIAL),
        ("HEAD", [], 0),
        ("GET", [], WHOLE),
    ]
    async with service.connect() as link:
        link.send(
            b"".join(request(method, ROUTE, fields, token=service.token) for method, fields, _ in kinds)
        )
        for method, _, outcome in kinds:
            answer = await link.answer(method)
            if outcome:
                HELD[outcome](answer)
            else:
                is_whole(answer, b"")
