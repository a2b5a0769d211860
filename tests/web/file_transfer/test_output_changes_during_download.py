"""Downloads whose file changes during the transfer: wrong bytes never end in a complete response."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from tests.clients.raw_http import RESPONSE_TIMEOUT_S, Connection, IncompleteAnswer, request
from tests.conftest import MakeJob, Serve, put
from tests.programs.service_runner import Service

SIZE: Final = 24_000_000
"""Bytes; more than all the buffers between service and client hold."""
TARGET: Final = "/api/jobs/job-1/download"

pytestmark = pytest.mark.both_loops


@pytest.fixture(scope="module")
def old() -> bytes:
    return random.Random(5).randbytes(SIZE)  # noqa: S311 - only bytes that differ


@pytest.fixture(scope="module")
def new() -> bytes:
    return random.Random(6).randbytes(SIZE)  # noqa: S311


@pytest.fixture
def film(make_job: MakeJob, old: bytes) -> Path:
    return make_job(output=old) / "output" / "film.mp4"


@pytest.fixture
async def service(serve: Serve, film: Path) -> Service:
    return await serve()


async def start_download(
    service: Service, link: Connection, *fields: tuple[str, str], status: int = 200
) -> str:
    """Start the download, read only the head, and return the tag; most of the body is unsent then."""
    link.send(request("GET", TARGET, fields, token=service.token))
    _, answered, headers = await link.head()
    assert answered == status
    return headers["ETag"]


async def read_rest(link: Connection, max_bytes: int = SIZE) -> bytes:
    """Read until this many bytes or the end."""
    async with asyncio.timeout(RESPONSE_TIMEOUT_S):
        return await link.read(max_bytes)


def holds(film: Path, data: bytes) -> bool:
    return film.read_bytes() == data


def replaced_twice(film: Path, new: bytes) -> None:
    put(film, b"between")
    put(film, new)


KEPT_WHOLE: Final[dict[str, Callable[[Path, bytes], object]]] = {
    "replaced": put,
    "replaced twice": replaced_twice,
    "removed": lambda film, _: film.unlink(),
    "its folder moved": lambda film, _: film.parent.rename(film.parents[1] / "elsewhere"),
    "its job moved": lambda film, _: film.parents[1].rename(film.parents[2] / "elsewhere"),
}


@pytest.mark.parametrize("change", KEPT_WHOLE.values(), ids=list(KEPT_WHOLE))
async def test_file_that_is_renamed_or_removed_is_sent_to_its_end(
    service: Service, film: Path, old: bytes, new: bytes, change: Callable[[Path, bytes], object]
) -> None:
    async with service.connect(receive_buffer=65_536) as link:
        await start_download(service, link)
        change(film, new)
        same = await read_rest(link) == old
        assert same
        assert (await link.ask("GET", "/healthz")).status == 200
    [line] = await service.wait_for_downloads(1)
    assert (line["outcome"], line["bytesSent"]) == ("complete", SIZE)


def shortened(film: Path, new: bytes) -> None:
    os.truncate(film, 1_000_000)


def shortened_by_one(film: Path, new: bytes) -> None:
    os.truncate(film, SIZE - 1)


def truncated_and_rewritten(film: Path, new: bytes) -> None:
    film.write_bytes(new)


def overwritten_in_place(film: Path, new: bytes) -> None:
    with film.open("r+b") as file:
        file.seek(SIZE - 1000)
        file.write(new[:1000])


def overwritten_and_dated_back(film: Path, new: bytes) -> None:
    was = film.stat()
    overwritten_in_place(film, new)
    os.utime(film, ns=(was.st_atime_ns, was.st_mtime_ns))


def appended_to(film: Path, new: bytes) -> None:
    with film.open("ab") as file:
        file.write(b"more")


HARMED: Final = (
    shortened,
    shortened_by_one,
    truncated_and_rewritten,
    overwritten_in_place,
    overwritten_and_dated_back,
    appended_to,
)


@pytest.mark.parametrize("change", HARMED, ids=lambda change: change.__name__)
@pytest.mark.parametrize(
    ("field", "promised"),
    [
        (None, SIZE),
        ("bytes=1000-", SIZE - 1000),
        ("bytes=0-9,1000-23999999", SIZE - 1000 + 10),
    ],
    ids=["whole", "range", "ranges"],
)
async def test_file_that_is_written_to_breaks_the_connection(
    service: Service,
    film: Path,
    new: bytes,
    change: Callable[[Path, bytes], object],
    field: str | None,
    promised: int,
) -> None:
    fields = [("Range", field)] if field else []
    async with service.connect(receive_buffer=65_536) as link:
        tag = await start_download(service, link, *fields, status=206 if field else 200)
        link.send(request("GET", "/healthz"))
        change(film, new)
        received = await read_rest(link, 2 * SIZE)
        assert len(received) < promised
        assert b"HTTP/1.1" not in received[-2000:], "nothing follows an incomplete body"
        assert await link.ended()
    [line] = await service.wait_for_downloads(1)
    assert (line["outcome"], line["bytesPromised"]) == ("truncated", promised)
    assert len(received) - 2000 <= line["bytesSent"] < promised
    resumed = await service.get(TARGET, ("Range", "bytes=1000000-"), ("If-Range", tag))
    assert (resumed.status, holds(film, resumed.body)) == (200, True)
    assert await service.metric('jobsvc_downloads_total{outcome="truncated"}') == 1


async def test_resumed_download_of_a_replaced_file_is_the_whole_new_file(
    service: Service, film: Path, old: bytes, new: bytes
) -> None:
    async with service.connect(receive_buffer=65_536) as link:
        tag = await start_download(service, link)
        kept = await read_rest(link, 5_000_000)
        put(film, new)
        await link.reset()
    condition = ("Range", f"bytes={len(kept)}-"), ("If-Range", tag)
    anew = await service.get(TARGET, *condition)
    same = anew.body == new
    assert (anew.status, same) == (200, True)
    put(film, old)
    assert (await service.get(TARGET, *condition)).status == 200, "the same bytes in another file"
    tag = anew.headers["ETag"]
    assert (await service.get(TARGET, ("If-Match", tag))).code == "precondition-failed"


async def test_download_of_a_job_that_renders_again_is_sent_to_its_end(
    service: Service, make_job: MakeJob, old: bytes
) -> None:
    """A download serves the version at the time of its request; a new request gets the current version."""
    async with service.connect(receive_buffer=65_536) as link:
        await start_download(service, link)
        make_job(status="rendering")
        assert (await service.download("job-1")).code == "job-not-completed"
        same = await read_rest(link) == old
        assert same


async def test_downloads_are_whole_and_of_one_version_while_the_file_is_replaced(
    serve: Serve, make_job: MakeJob
) -> None:
    versions = [bytes([number]) * (100_000 + number) for number in range(1, 40)]
    film = make_job(output=versions[0]) / "output" / "film.mp4"
    service = await serve()
    seen = set()
    async with service.connect() as link:
        for version in versions:
            link.send(request("GET", TARGET, token=service.token) * 2)
            for _ in range(2):
                put(film, version)
                answer = await link.answer()
                assert answer.body in versions
                seen.add(answer.headers["ETag"])
    assert len(seen) > len(versions) // 2


async def test_file_that_is_rewritten_in_place_is_whole_or_truncated_and_never_mixed(
    serve: Serve, make_job: MakeJob
) -> None:
    """A farm that writes its output in place, against the rule: a client gets one version or an error."""
    film = make_job(output=b"a" * 300_000) / "output" / "film.mp4"
    service = await serve()
    for turn in range(60):
        letter = b"abcdefgh"[turn % 8 : turn % 8 + 1]
        async with service.connect() as link:
            link.send(request("GET", TARGET, token=service.token))
            film.write_bytes(letter * 300_000)
            with suppress(IncompleteAnswer):
                answer = await link.answer()
                assert answer.body == answer.body[:1] * len(answer.body)
