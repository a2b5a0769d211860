"""`GET /api/jobs/{id}/download` against the running service: the exact response to each request."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Mapping
from email import message_from_bytes
from pathlib import Path
from typing import Final

import pytest

from jobsvc.web.headers.http_dates import format_date, parse_date
from tests.clients.raw_http import Answer
from tests.conftest import MakeJob, Serve
from tests.programs.service_runner import Service

MODIFIED: Final = 1_700_000_000
"""When the film was written, in seconds since the epoch."""
TARGET: Final = "/api/jobs/job-1/download"

Span = tuple[int, int]


@pytest.fixture(params=[10_240, 300_000], ids=["small", "streamed"])
def film(request: pytest.FixtureRequest) -> bytes:
    """A film that is sent in one write with its head, and one that is not."""
    return random.Random(1).randbytes(request.param)  # noqa: S311 - only bytes that differ


@pytest.fixture
async def service(serve: Serve, make_job: MakeJob, film: bytes) -> Service:
    written = make_job(output=film) / "output" / "film.mp4"
    os.utime(written, (MODIFIED, MODIFIED))
    return await serve()


def fields(*lines: str) -> list[tuple[str, str]]:
    """Parse lines of the form `Name: value`."""
    return [(name, value.lstrip(" ")) for name, _, value in (line.partition(":") for line in lines)]


def assert_film_response(answer: Answer, film: bytes, *, bare: bool = False) -> None:
    """Check what all responses of this status have in common; `bare` is a response to HEAD."""
    headers = answer.headers
    assert parse_date(headers["Date"], MODIFIED) is not None
    assert re.fullmatch(r'"[!#-~]+"', headers["ETag"]), "a strong tag"
    if answer.status in {412, 416}:
        assert bare or answer.code
        assert headers.get("Content-Range") == (f"bytes */{len(film)}" if answer.status == 416 else None)
        return
    assert headers["Cache-Control"] == "private, no-cache"
    assert headers["Last-Modified"] == format_date(MODIFIED)
    if answer.status == 304:
        assert headers.keys() & {"Content-Type", "Content-Disposition", "Content-Range"} == set()
        assert headers.get("Content-Length") in {None, str(len(film))}
        return
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Disposition"] == 'attachment; filename="film.mp4"'
    assert "Transfer-Encoding" not in headers
    if answer.status == 200:
        assert (headers["Content-Type"], answer.content_length) == ("video/mp4", len(film))
        assert "Content-Range" not in headers
        assert answer.body == (b"" if bare else film)


def parts(answer: Answer) -> list[tuple[str, bytes]]:
    """Parse a multipart response as a mail reader does: Content-Range and bytes of each part."""
    kind = answer.headers["Content-Type"].encode()
    message = message_from_bytes(b"Content-Type: " + kind + b"\r\n\r\n" + answer.body)
    found = []
    for part in message.get_payload():
        assert not isinstance(part, str)
        assert part.get_content_type() == "video/mp4"
        body = part.get_payload(decode=True)
        assert isinstance(body, bytes)
        found.append((str(part["Content-Range"]), body))
    return found


async def test_whole_file_is_described_and_sent_and_head_describes_it_alike(
    service: Service, film: bytes
) -> None:
    async with service.connect() as link:
        whole = await link.ask("GET", TARGET, token=service.token)
        head = await link.ask("HEAD", TARGET, token=service.token)
    assert (whole.version, whole.status, head.status) == ("1.1", 200, 200)
    assert_film_response(whole, film)
    assert_film_response(head, film, bare=True)
    passing = {"date", "x-request-id", "ratelimit"}
    described, again = (
        {name.lower(): value for name, value in answer.headers.items() if name.lower() not in passing}
        for answer in (whole, head)
    )
    assert described == again


def ranges(size: int) -> Mapping[str, Span | None]:
    """What each Range value selects: its span, or None if it is unsatisfiable."""
    last = size - 1
    return {
        "bytes=0-0": (0, 1),
        "bytes=0-1": (0, 2),
        "bytes=0-": (0, size),
        f"bytes=0-{last}": (0, size),
        f"bytes=0-{size}": (0, size),
        f"bytes=0-{2 * size}": (0, size),
        "bytes=0-18446744073709551616": (0, size),
        f"bytes=0-{'9' * 100}": (0, size),
        "bytes=00-007": (0, 8),
        "bytes=1-": (1, size),
        "bytes=5000-9999": (5000, 10_000),
        "bytes=5000-": (5000, size),
        f"bytes={last}-": (last, size),
        f"bytes={last}-{last}": (last, size),
        f"bytes={last}-{size}": (last, size),
        "bytes=-1": (last, size),
        "bytes=-5000": (size - 5000, size),
        f"bytes=-{last}": (1, size),
        f"bytes=-{size}": (0, size),
        f"bytes=-{size + 1}": (0, size),
        f"bytes=-{'9' * 100}": (0, size),
        "BYTES=0-0": (0, 1),
        "Bytes=0-0": (0, 1),
        "bytes=0-0,": (0, 1),
        "bytes=,0-0": (0, 1),
        "bytes= ,\t, 0-0 ,,": (0, 1),
        "bytes=0-0 ": (0, 1),
        "bytes=0-0,0-0": (0, 1),
        "bytes=0-9,0-9,5-14,0-0": (0, 15),
        "bytes=0-9,10-19": (0, 20),
        "bytes=10-19,0-9": (0, 20),
        "bytes=0-9,50-59": (0, 60),
        "bytes=0-99,50-149": (0, 150),
        f"bytes=0-0,{size}-": (0, 1),
        f"bytes={size}-,-1": (last, size),
        "bytes=-0,0-0": (0, 1),
        f"bytes={size}-": None,
        f"bytes={size}-{size}": None,
        f"bytes={2 * size}-": None,
        "bytes=18446744073709551616-": None,
        f"bytes={'9' * 100}-": None,
        "bytes=-0": None,
        "bytes=-000": None,
        f"bytes={size}-,-0,{size}-{2 * size}": None,
    }


async def test_single_range_is_sent_or_is_a_416_with_the_size(service: Service, film: bytes) -> None:
    async with service.connect() as link:
        for field, span in ranges(len(film)).items():
            answer = await link.ask("GET", TARGET, [("Range", field)], token=service.token)
            assert_film_response(answer, film)
            if span is None:
                assert (answer.status, answer.code) == (416, "range-not-satisfiable"), field
                continue
            start, stop = span
            assert (answer.status, answer.body) == (206, film[start:stop]), field
            assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(film)}"
            assert answer.headers["Content-Type"] == "video/mp4"
            assert answer.content_length == stop - start


IGNORED: Final = (
    *("", "bytes", "bytes=", "bytes=,", "bytes=, ,", "bytes=-", "bytes=--1", "bytes=0--1", "bytes=-1-"),
    *("bytes=1-0", "bytes=a-b", "bytes=0-a", "bytes=a-", "bytes=-a", "bytes=0", "bytes=0-0-0", "bytes=*"),
    *("bytes=0-0;1-1", "bytes=0-0 1-1", "bytes:0-0", "bytes 0-0", "bytes =0-0", " =0-0", "=0-0", "0-0"),
    *("bytes=0x0-0x9", "bytes=+0-+9", "bytes=0 -9", "bytes=0- 9", "bytes=0.0-9", "bytes=1e0-9", "bytes=½-9"),
    *(
        "bytes=\u0660-\u0669",
        "bytes=1-0,0-0",
        "bytes=0-0,x",
        "bytes=x,0-0",
        "bytes=0-0,bytes=1-1",
        'bytes="0-0"',
    ),
    *("bytes=0-0, 5-4", "seconds=0-1", "items=0-0", "none", "none=0-0", "byte=0-0", "bytesx=0-0", "b=0-0"),
    *("bytes=" + ",".join(["0-"] * 100), "bytes=" + "," * 200 + "0-0"),
    "bytes=" + ",".join(f"{start}-{start}" for start in range(0, 10_000, 40)),
)
"""Of another unit, invalid or abusive: ignored."""


async def test_invalid_range_is_ignored(service: Service, film: bytes) -> None:
    async with service.connect() as link:
        for field in IGNORED:
            answer = await link.ask("GET", TARGET, [("Range", field)], token=service.token)
            assert answer.status == 200, field[:60]
            assert_film_response(answer, film)


def sets(size: int) -> Mapping[str, tuple[Span, ...]]:
    """What several ranges select, in the requested order."""
    last = size - 1
    return {
        "bytes=0-0,-1": ((0, 1), (last, size)),
        "bytes=-1,0-0": ((last, size), (0, 1)),
        "bytes=0-99,5000-5099": ((0, 100), (5000, 5100)),
        "bytes=5000-5099,0-99": ((5000, 5100), (0, 100)),
        "bytes= 0-0 ,, 5000-5000 ": ((0, 1), (5000, 5001)),
        "bytes=0-9,1000-1009,2000-2009,3000-3009": ((0, 10), (1000, 1010), (2000, 2010), (3000, 3010)),
        "bytes=0-9,5-14,5000-5009": ((0, 15), (5000, 5010)),
        f"bytes=0-9,{size}-,5000-5009": ((0, 10), (5000, 5010)),
        f"bytes=0-{size // 2},{size // 2 + 500}-{size // 2 + 599}": (
            (0, size // 2 + 1),
            (size // 2 + 500, size // 2 + 600),
        ),
    }


async def test_several_ranges_are_parts_of_one_response(service: Service, film: bytes) -> None:
    boundaries = set()
    async with service.connect() as link:
        for field, spans in sets(len(film)).items():
            answer = await link.ask("GET", TARGET, [("Range", field)], token=service.token)
            assert answer.status == 206, field
            assert_film_response(answer, film)
            assert "Content-Range" not in answer.headers
            assert parts(answer) == [
                (f"bytes {start}-{stop - 1}/{len(film)}", film[start:stop]) for start, stop in spans
            ]
            assert answer.content_length < len(film)
            boundaries.add(answer.headers["Content-Type"])
    assert len(boundaries) == len(sets(len(film))), "a predictable boundary could occur in a file"


async def test_repeated_field_lines_are_one_list(service: Service, film: bytes) -> None:
    lines = fields("Range: bytes=0-0", "Range: 5000-5000")
    answer = await service.get(TARGET, *lines)
    assert [body for _, body in parts(answer)] == [film[:1], film[5000:5001]]
    whole = await service.get(TARGET, *fields("Range: bytes=0-0", "Range: bytes=5000-5000"))
    assert (whole.status, whole.body) == (200, film)


NOON: Final = format_date(MODIFIED)
BEFORE: Final = format_date(MODIFIED - 1)
AFTER: Final = format_date(MODIFIED + 1)
OTHER_FORMS: Final = ("Tuesday, 14-Nov-23 22:13:20 GMT", "Tue Nov 14 22:13:20 2023")
PART: Final = "Range: bytes=100-199"
BEYOND: Final = "Range: bytes=9999999-"

CONDITIONS: Final[tuple[tuple[int, tuple[str, ...]], ...]] = (
    (304, ("If-None-Match: {tag}",)),
    (304, ("If-None-Match: W/{tag}",)),
    (304, ("If-None-Match: *",)),
    (304, ('If-None-Match: "other", {tag}',)),
    (304, ('If-None-Match: ,, "a,b" ,{tag},',)),
    (304, ('If-None-Match: "other"', "If-None-Match: {tag}")),
    (200, ('If-None-Match: "other"',)),
    (200, ('If-None-Match: "*"',)),
    (200, ("If-None-Match: {bare}",)),
    (200, ("If-None-Match: {tag}x",)),
    (200, ("If-None-Match: w/{tag}",)),
    (200, ("If-None-Match: *, {tag}",)),
    (200, ("If-None-Match:",)),
    (200, ("If-Match: {tag}",)),
    (200, ("If-Match: *",)),
    (200, ('If-Match: "other", {tag}',)),
    (200, ('If-Match: "other"', "If-Match: {tag}")),
    (412, ("If-Match: W/{tag}",)),
    (412, ('If-Match: "other"',)),
    (412, ('If-Match: "*"',)),
    (412, ("If-Match: {bare}",)),
    (412, ("If-Match:",)),
    (304, (f"If-Modified-Since: {NOON}",)),
    (304, (f"If-Modified-Since: {AFTER}",)),
    (304, (f"If-Modified-Since: {OTHER_FORMS[0]}",)),
    (304, (f"If-Modified-Since: {OTHER_FORMS[1]}",)),
    (200, (f"If-Modified-Since: {BEFORE}",)),
    (200, ("If-Modified-Since: yesterday",)),
    (200, ("If-Modified-Since: 1700000000",)),
    (200, (f"If-Modified-Since: {NOON}, {NOON}",)),
    (200, (f"If-Modified-Since: {NOON}", f"If-Modified-Since: {NOON}")),
    (200, (f"If-Modified-Since: {NOON.replace('GMT', '+0000')}",)),
    (200, (f"If-Unmodified-Since: {NOON}",)),
    (200, (f"If-Unmodified-Since: {AFTER}",)),
    (412, (f"If-Unmodified-Since: {BEFORE}",)),
    (412, ("If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT",)),
    (200, ("If-Unmodified-Since: tomorrow",)),
    (200, (f"If-Unmodified-Since: {BEFORE}, {BEFORE}",)),
    (200, ('If-None-Match: "other"', f"If-Modified-Since: {NOON}")),
    (304, ("If-None-Match: {tag}", f"If-Modified-Since: {BEFORE}")),
    (200, ("If-Match: {tag}", f"If-Unmodified-Since: {BEFORE}")),
    (412, ('If-Match: "other"', f"If-Unmodified-Since: {NOON}")),
    (304, ("If-Match: {tag}", "If-None-Match: {tag}")),
    (412, ('If-Match: "other"', "If-None-Match: {tag}")),
    (412, (f"If-Unmodified-Since: {BEFORE}", "If-None-Match: {tag}")),
    (304, (f"If-Unmodified-Since: {NOON}", f"If-Modified-Since: {NOON}")),
    (206, (PART, "If-Match: {tag}")),
    (206, (PART, 'If-None-Match: "other"')),
    (206, (PART, f"If-Unmodified-Since: {NOON}")),
    (304, (PART, "If-None-Match: {tag}")),
    (304, (PART, f"If-Modified-Since: {NOON}")),
    (412, (PART, 'If-Match: "other"')),
    (412, (PART, f"If-Unmodified-Since: {BEFORE}")),
    (416, (BEYOND, "If-Match: {tag}")),
    (416, (BEYOND, "If-Range: {tag}")),
    (304, (BEYOND, "If-None-Match: {tag}")),
    (412, (BEYOND, 'If-Match: "other"')),
    (206, (PART, "If-Range: {tag}")),
    (206, (PART, f"If-Range: {NOON}")),
    (206, (PART, f"If-Range: {OTHER_FORMS[0]}")),
    (206, (PART, f"If-Range: {OTHER_FORMS[1]}")),
    (200, (PART, "If-Range: W/{tag}")),
    (200, (PART, 'If-Range: "other"')),
    (200, (PART, 'If-Range: "other", {tag}')),
    (200, (PART, "If-Range: {tag}, {tag}")),
    (200, (PART, "If-Range: {tag}", "If-Range: {tag}")),
    (200, (PART, "If-Range: {bare}")),
    (200, (PART, "If-Range: *")),
    (200, (PART, "If-Range:")),
    (200, (PART, f"If-Range: {BEFORE}")),
    (200, (PART, f"If-Range: {AFTER}")),
    (200, (PART, "If-Range: yesterday")),
    (200, (BEYOND, 'If-Range: "other"')),
    (200, ("If-Range: {tag}",)),
    (200, ('If-Range: "other"',)),
    (206, (PART, "If-Range: {tag}", "If-Match: {tag}")),
    (304, (PART, 'If-Range: "other"', "If-None-Match: {tag}")),
    (412, (PART, "If-Range: {tag}", 'If-Match: "other"')),
    (200, ("Range: seconds=0-1", "If-Range: {tag}")),
)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_conditions_follow_the_rfc_and_head_ignores_ranges(
    service: Service, film: bytes, method: str
) -> None:
    tag = (await service.download("job-1")).headers["ETag"]
    wrong = []
    async with service.connect() as link:
        for status, lines in CONDITIONS:
            conditions = fields(*(line.format(tag=tag, bare=tag.strip('"')) for line in lines))
            answer = await link.ask(method, TARGET, conditions, token=service.token)
            assert_film_response(answer, film, bare=method == "HEAD")
            expected = 200 if method == "HEAD" and status in {206, 416} else status
            if answer.status != expected:
                wrong.append((expected, answer.status, lines))
            if answer.status == 206:
                assert answer.body == film[100:200]
    assert wrong == []


async def test_entity_tag_belongs_to_one_version_and_a_range_never_mixes_two(
    service: Service, make_job: MakeJob, film: bytes
) -> None:
    """Each change gives another tag: of the bytes alone, of the size, of the time, and by a rename alone."""
    written, tags = make_job(output=film) / "output" / "film.mp4", []

    async def now() -> str:
        tags.append((await service.ask("HEAD", TARGET)).headers["ETag"])
        resumed = await service.get(TARGET, *fields("Range: bytes=100-", f"If-Range: {tags[-2]}"))
        assert (resumed.status, resumed.body) == (200, written.read_bytes())
        return tags[-1]

    tags.append((await service.ask("HEAD", TARGET)).headers["ETag"])
    make_job(output=film[::-1])
    await now()
    make_job(output=film + b"more")
    await now()
    os.utime(written, (MODIFIED, MODIFIED))
    await now()
    with written.open("r+b") as file:
        file.write(b"other bytes")
    os.utime(written, (MODIFIED, MODIFIED))
    await now()
    assert len(set(tags)) == len(tags) == 5
    unchanged = await service.get(TARGET, *fields(f"If-None-Match: {tags[-1]}"))
    assert unchanged.status == 304


async def test_empty_output_is_served(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=b"")
    service = await serve()
    expected: Mapping[str, int] = {
        "bytes=0-": 416,
        "bytes=0-0": 416,
        "bytes=-0": 416,
        "bytes=-1": 200,
        "bytes=0-0,-1": 200,
        "bytes=1-0": 200,
        "items=0-0": 200,
    }
    async with service.connect() as link:
        for field, status in expected.items():
            answer = await link.ask("GET", TARGET, [("Range", field)], token=service.token)
            assert answer.status == status, field
            assert status == 200 or answer.headers["Content-Range"] == "bytes */0"
        whole = await link.ask("GET", TARGET, token=service.token)
        head = await link.ask("HEAD", TARGET, token=service.token)
        assert {(answer.status, answer.content_length, answer.body) for answer in (whole, head)} == {
            (200, 0, b"")
        }
        tag = whole.headers["ETag"]
        same = await link.ask("GET", TARGET, [("If-None-Match", tag)], token=service.token)
        other = await link.ask("GET", TARGET, [("If-Match", '"other"')], token=service.token)
        assert (same.status, other.status) == (304, 412)


async def test_offsets_above_32_bits_are_correct(serve: Serve, make_job: MakeJob) -> None:
    size, marks = (
        6 << 30,
        {0: b"begin", (2 << 30) - 2: b"2 GiB", (4 << 30) - 2: b"4 GiB", (6 << 30) - 5: b"ended"},
    )
    with (make_job(output=b"") / "output" / "film.mp4").open("r+b") as file:
        file.truncate(size)
        for at, mark in marks.items():
            file.seek(at)
            file.write(mark)
    service = await serve()
    async with service.connect() as link:
        assert (await link.ask("HEAD", TARGET, token=service.token)).content_length == size
        for at, mark in marks.items():
            field = [("Range", f"bytes={at}-{at + 4}")]
            answer = await link.ask("GET", TARGET, field, token=service.token)
            assert (answer.status, answer.body) == (206, mark)
            assert answer.headers["Content-Range"] == f"bytes {at}-{at + 4}/{size}"
        field = [("Range", f"bytes=-5,{(4 << 30) - 2}-{(4 << 30) + 2},0-4")]
        several = await link.ask("GET", TARGET, field, token=service.token)
        assert [body for _, body in parts(several)] == [b"ended", b"4 GiB", b"begin"]


@pytest.mark.parametrize(
    ("name", "disposition", "kind"),
    [
        ("größe.mp4", "filename=\"gr__e.mp4\"; filename*=UTF-8''gr%C3%B6%C3%9Fe.mp4", "video/mp4"),
        ("映画 1.jpg", "filename=\"__ 1.jpg\"; filename*=UTF-8''%E6%98%A0%E7%94%BB%201.jpg", "image/jpeg"),
        ("🎬.mov", "filename=\"_.mov\"; filename*=UTF-8''%F0%9F%8E%AC.mov", "video/quicktime"),
        ('a "b".mp4', 'filename="a \\"b\\".mp4"', "video/mp4"),
        ("back\\slash", 'filename="back\\\\slash"', "application/octet-stream"),
        ("mp4", 'filename="mp4"', "application/octet-stream"),
        ("film.MP4", 'filename="film.MP4"', "video/mp4"),
        ("a;b=c.zip", 'filename="a;b=c.zip"', "application/zip"),
        ("evil\r\nX-Evil: 1\r\n\r\n.mp4", 'filename="evil__X-Evil: 1____.mp4"', "video/mp4"),
        ("a" * 251 + ".mp4", f'filename="{"a" * 251}.mp4"', "video/mp4"),
    ],
    ids=lambda value: value[:12],
)
async def test_file_is_sent_under_its_own_name_whatever_that_is(
    serve: Serve, make_job: MakeJob, name: str, disposition: str, kind: str
) -> None:
    make_job(output=b"film", outputPath=f"output/{name}")
    service = await serve()
    for method in ("GET", "HEAD"):
        answer = await service.ask(method, TARGET)
        assert answer.status == 200
        shown = answer.headers["Content-Disposition"]
        assert shown.startswith(f"attachment; {disposition}"), shown
        assert answer.headers["Content-Type"] == kind
        assert "X-Evil" not in answer.headers


@pytest.mark.parametrize(
    ("status", "code", "again"),
    [
        ("queued", "job-not-completed", True),
        ("rendering", "job-not-completed", True),
        ("failed", "job-failed", False),
        ("canceled", "job-canceled", False),
    ],
)
async def test_unfinished_job_is_409_with_retry_after_if_it_may_complete(
    serve: Serve, make_job: MakeJob, film: bytes, status: str, code: str, *, again: bool
) -> None:
    make_job(output=film, status=status, error="out of memory", progress=12.5)
    service = await serve()
    for lines in ((), (PART,), ("If-None-Match: *",), ('If-Match: "other"',), (BEYOND,)):
        for method in ("GET", "HEAD"):
            answer = await service.ask(method, TARGET, fields(*lines))
            assert (answer.status, "Retry-After" in answer.headers) == (409, again)
            assert not again or int(answer.headers["Retry-After"]) > 0
            assert "ETag" not in answer.headers
            if method == "GET":
                assert answer.code == code
                described = {"failed": "out of memory", "canceled": "canceled"}.get(status, "12.5 %")
                assert described in answer.json()["detail"]
    assert service.downloads() == []


async def test_output_is_available_as_soon_as_the_record_says_completed(
    serve: Serve, make_job: MakeJob
) -> None:
    """As soon as the record no longer says so, it is not: a download reads the disk, not the index."""
    service = await serve(max_age=3600, poll_interval=3600)
    for turn in range(20):
        make_job(status="rendering", progress=turn)
        assert (await service.download("job-1")).code == "job-not-completed"
        make_job(output=b"film %d" % turn)
        assert (await service.download("job-1")).body == b"film %d" % turn


async def test_output_below_an_output_root_is_served_and_one_elsewhere_is_not(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    for place in ("outputs/a", "outputs-not", "outputs/shut"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "film.mp4").write_bytes(place.encode())
    (tmp_path / "outputs" / "linked").symlink_to(tmp_path / "outputs-not")
    (tmp_path / "outputs" / "link.mp4").symlink_to("a/film.mp4")
    service = await serve(output_roots=(tmp_path / "outputs",))
    found: Mapping[str, bytes | None] = {
        "outputs/a/film.mp4": b"outputs/a",
        "outputs//a/./film.mp4": b"outputs/a",
        "outputs-not/film.mp4": None,
        "outputs/linked/film.mp4": None,
        "outputs/link.mp4": None,
        "outputs/../outputs-not/film.mp4": None,
        "outputs/a/../a/film.mp4": None,
        "outputs": None,
        "jobs/job-1/status.json": None,
    }
    for path, body in found.items():
        make_job(status="completed", outputPath=f"{tmp_path}/{path}")
        answer = await service.download("job-1")
        if body is None:
            assert (answer.status, answer.code) == (404, "output-missing"), path
        else:
            assert (answer.status, answer.body) == (200, body), path
