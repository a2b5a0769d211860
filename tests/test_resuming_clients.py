"""curl, wget and aria2c fetch a download that breaks, and get the exact file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from tests.clients.cutting_proxy import cutting_proxy
from tests.conftest import MakeJob, Serve
from tests.eventually import until
from tests.programs.external_programs import needs, run
from tests.programs.service_runner import Service

FILM = os.urandom(12_000_000)
ROUTE = "/api/jobs/job-1/download"


@pytest.fixture
async def service(serve: Serve, make_job: MakeJob) -> Service:
    make_job(output=FILM)
    return await serve()


def bearer(service: Service) -> str:
    return f"Authorization: Bearer {service.token}"


def url(port: int, target: str = ROUTE) -> str:
    return f"http://127.0.0.1:{port}{target}"


async def link_to(service: Service) -> str:
    return await service.link("job-1")


def begins(line: dict[str, Any]) -> int:
    """Return at which byte a logged download started."""
    sent: str = line["range"] or "bytes 0-"
    return int(sent.removeprefix("bytes ").partition("-")[0])


def logged_as(service: Service, request_id: str) -> list[dict[str, Any]]:
    return [line for line in service.downloads() if line["requestId"] == request_id]


@needs("curl")
async def test_curl_resumes_where_it_was_cut(service: Service, tmp_path: Path) -> None:
    into = tmp_path / "film.mp4"
    async with cutting_proxy(service.port, 3_000_000, 5_000_000) as proxy:
        words = ("-sS", "-f", "-C", "-", "-H", bearer(service), "-o", into, url(proxy.port))
        assert (await run("curl", *words)).exit_code == 18  # a part of the file
        had = [into.stat().st_size]
        assert 2_990_000 < had[0] < 3_000_000
        assert (await run("curl", *words)).exit_code == 18
        had.append(into.stat().st_size)
        ended = await run("curl", *words)
    assert (ended.exit_code, proxy.cut_count) == (0, 2), ended.stderr
    assert into.read_bytes() == FILM
    lines = await service.wait_for_downloads(3)
    assert [begins(line) for line in lines] == [0, *had]
    assert lines[-1]["bytesSent"] == len(FILM) - had[-1]


@needs("curl")
async def test_curl_with_a_complete_file_gets_416(service: Service, tmp_path: Path) -> None:
    into = tmp_path / "film.mp4"
    into.write_bytes(FILM)
    ended = await run(
        "curl", "-sS", "-C", "-", "-H", bearer(service), "-o", into, "-w", "%{http_code}", url(service.port)
    )
    assert ended.stdout == b"416"
    assert into.read_bytes() == FILM


@needs("curl")
async def test_curl_never_joins_two_versions(service: Service, tmp_path: Path, make_job: MakeJob) -> None:
    """With the tag of its part it is sent the whole new file, and refuses to append it to the old part."""
    into = tmp_path / "film.mp4"
    tag = (await service.ask("HEAD", ROUTE)).headers["ETag"]
    words = ("-sS", "-C", "-", "-H", bearer(service), "-H", f"If-Range: {tag}", "-o", into)
    async with cutting_proxy(service.port, 3_000_000) as proxy:
        assert (await run("curl", *words, url(proxy.port))).exit_code == 18
    part = into.read_bytes()
    make_job(output=FILM[::-1])
    assert (await run("curl", *words, url(service.port))).exit_code == 33  # no range came back
    assert into.read_bytes() == part
    into.unlink()
    assert (await run("curl", *words, url(service.port))).exit_code == 0
    assert into.read_bytes() == FILM[::-1]


@needs("curl")
async def test_curl_requests_several_ranges_and_an_unchanged_file(service: Service, tmp_path: Path) -> None:
    words = ("-sS", "-H", bearer(service), url(service.port))
    parts = (await run("curl", "-r", "0-9,5000000-5000009,-10", *words)).stdout
    pieces = (FILM[:10], FILM[5_000_000:5_000_010], FILM[-10:])
    assert all(b"\r\n\r\n" + piece + b"\r\n--" in parts for piece in pieces)
    kept, into = tmp_path / "etag", tmp_path / "film.mp4"
    again = ("--etag-compare", kept, "--etag-save", kept, "-o", into, "-w", "%{http_code}", *words)
    assert (await run("curl", *again)).stdout == b"200"
    assert (await run("curl", *again)).stdout == b"304"
    assert (await run("curl", "-R", "-o", into, *words)).exit_code == 0
    assert (await run("curl", "-z", into, "-o", into, "-w", "%{http_code}", *words)).stdout == b"304"
    assert into.read_bytes() == FILM


@needs("wget")
async def test_wget_resumes_by_itself_until_it_has_everything(service: Service, tmp_path: Path) -> None:
    into = tmp_path / "film.mp4"
    async with cutting_proxy(service.port, 2_000_000, 2_000_000, 100_000) as proxy:
        words = ("-nv", "-c", "--tries=5", "--waitretry=0", "--header", bearer(service), "-O", into)
        ended = await run("wget", *words, url(proxy.port))
    assert (ended.exit_code, proxy.cut_count) == (0, 3), ended.stderr
    assert into.read_bytes() == FILM
    starts = [begins(line) for line in await service.wait_for_downloads(4)]
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    ended = await run("wget", *words, url(service.port))
    assert ended.exit_code == 0, ended.stderr
    assert into.read_bytes() == FILM


@needs("wget")
async def test_wget_resumes_a_link_and_names_the_file(service: Service, tmp_path: Path) -> None:
    target = await link_to(service)
    words = ("-nv", "-c", "--content-disposition", "--tries=5", "--waitretry=0")
    async with cutting_proxy(service.port, 2_000_000) as proxy:
        ended = await run("wget", *words, url(proxy.port, target), folder=tmp_path)
    assert (ended.exit_code, proxy.cut_count) == (0, 1), ended.stderr
    assert (tmp_path / "film.mp4").read_bytes() == FILM
    assert [begins(line) > 0 for line in await service.wait_for_downloads(2)] == [False, True]


ARIA: tuple[object, ...] = (
    *("--no-conf", "--quiet", "-x8", "-s8", "--min-split-size=1M", "--retry-wait=0", "--max-tries=9"),
    *("--file-allocation=none", f"--checksum=sha-256={hashlib.sha256(FILM).hexdigest()}", "-o", "film.mp4"),
)


@needs("aria2c")
async def test_aria2c_downloads_over_many_connections_some_of_which_break(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    """Slow enough that all of them are needed."""
    make_job(output=FILM)
    service = await serve(download_rate=1_500_000)
    async with cutting_proxy(service.port, *[400_000] * 5) as proxy:
        ended = await run("aria2c", *ARIA, "--header", bearer(service), url(proxy.port), folder=tmp_path)
    assert (ended.exit_code, proxy.cut_count) == (0, 5), ended.stdout
    assert (tmp_path / "film.mp4").read_bytes() == FILM
    assert proxy.accepted_count >= 8
    await until(lambda: len({begins(line) for line in service.downloads()}) >= 8)


@needs("aria2c")
async def test_aria2c_continues_the_file_of_another_run(service: Service, tmp_path: Path) -> None:
    target = await link_to(service)
    words = (*ARIA, "-c", "--header")
    async with cutting_proxy(service.port, *[1_000_000] * 8) as proxy:
        first = (*words, "X-Request-Id: first", "--max-tries=1", url(proxy.port, target))
        assert (await run("aria2c", *first, folder=tmp_path)).exit_code != 0
    assert (tmp_path / "film.mp4.aria2").exists()
    ended = await run("aria2c", *words, "X-Request-Id: second", url(service.port, target), folder=tmp_path)
    assert ended.exit_code == 0, ended.stdout
    assert (tmp_path / "film.mp4").read_bytes() == FILM
    # It requests the length of the file, and then the rest of each piece.
    await until(lambda: any(begins(line) % 2**20 for line in logged_as(service, "second")))
    assert not any(begins(line) == 0 and line["range"] for line in logged_as(service, "second"))
