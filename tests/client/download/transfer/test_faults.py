"""Downloads through proxies that misbehave: the file is whole, or there is an error and no file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from jobsvc.client import ConnectionFailed, Corrupt, OutputReplaced
from tests.client.download.job_downloads import download, names
from tests.clients import proxy_faults
from tests.clients.body_pieces import cut_after
from tests.clients.faulty_proxy import Answer, Exchange, Fault, FaultyProxy, faulty_proxy
from tests.conftest import MakeJob, Serve, put

FILM = os.urandom(400_000)

pytestmark = pytest.mark.usefixtures("small_segments")


def in_files(fault: Fault, *, after: int = 0) -> Fault:
    """Apply a fault to responses with bytes of a file only, and only after the first `after` of them."""
    seen: list[str] = []

    async def apply(exchange: Exchange) -> Answer:
        if not exchange.is_file or exchange.request.first_line.startswith("HEAD "):
            return await exchange.forward()
        seen.append(exchange.target)
        return await (fault(exchange) if len(seen) > after else exchange.forward())

    return apply


@pytest.mark.parametrize(
    "fault",
    [
        proxy_faults.strip_range,
        proxy_faults.shift_range,
        proxy_faults.refuse,
        proxy_faults.show_page,
        proxy_faults.cut_before_request,
        proxy_faults.cut_before_response,
        proxy_faults.cut_body,
        proxy_faults.cut_idle,
        proxy_faults.strip_content_range,
        proxy_faults.wrong_content_range,
        proxy_faults.rename_etag,
        proxy_faults.end_early,
        proxy_faults.close_early,
        proxy_faults.compress,
    ],
)
async def test_file_is_whole_after_some_faults(
    fault: Fault, serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(output=FILM)
    service = await serve()
    proxy = FaultyProxy(service.port, faults=[in_files(fault)], share=0.5, budget=3)
    async with faulty_proxy(proxy):
        # Without verification: the header fields alone have to tell which bytes are right.
        await download(service, tmp_path / "to.mp4", port=proxy.port, retries=10, verify=False)
    assert (tmp_path / "to.mp4").read_bytes() == FILM
    assert names(tmp_path, "to*") == ["to.mp4"]


@pytest.mark.parametrize("seed", range(6))
async def test_bytes_behind_the_file_are_not_kept(
    seed: int, serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(output=FILM)
    service = await serve()
    fault = in_files(proxy_faults.append_bytes)
    proxy = FaultyProxy(service.port, faults=[fault], seed=seed, share=0.5, budget=3)
    async with faulty_proxy(proxy):
        try:
            await download(service, tmp_path / "to.mp4", port=proxy.port, retries=10, verify=False)
        except Corrupt:
            assert names(tmp_path, "to*") == []
        else:
            assert (tmp_path / "to.mp4").read_bytes() == FILM


@pytest.mark.parametrize(
    "fault",
    [
        proxy_faults.strip_range,
        proxy_faults.strip_etag,
        proxy_faults.weaken_etag,
        proxy_faults.strip_digest,
        proxy_faults.strip_length,
        proxy_faults.delay,
    ],
)
async def test_file_is_whole_through_a_proxy_that_always_does_this(
    fault: Fault, serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(output=FILM)
    service = await serve()
    async with faulty_proxy(FaultyProxy(service.port, always=[in_files(fault)])) as proxy:
        await download(service, tmp_path / "to.mp4", port=proxy.port)
    assert (tmp_path / "to.mp4").read_bytes() == FILM


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (proxy_faults.strip_content_range, ConnectionFailed),
        (proxy_faults.compress, ConnectionFailed),
        (proxy_faults.show_page, ConnectionFailed),
        (proxy_faults.rename_etag, OutputReplaced),
        (proxy_faults.flip_byte, Corrupt),
        (proxy_faults.repeat_page_as_range, Corrupt),
    ],
)
async def test_error_through_a_proxy_that_always_does_this(
    fault: Fault, error: type[Exception], serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(output=FILM)
    service = await serve()
    async with faulty_proxy(FaultyProxy(service.port, always=[in_files(fault)])) as proxy:
        with pytest.raises(error):
            await download(service, tmp_path / "to.mp4", port=proxy.port)
    assert "to.mp4" not in names(tmp_path)


@pytest.mark.parametrize("options", [{}, {"verify": False}], ids=["verified", "not verified"])
async def test_replaced_file_is_downloaded_in_its_new_version(
    options: dict[str, Any], serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(output=FILM)
    service = await serve()
    new = os.urandom(300_000)

    async def replace() -> None:
        if (job / "output/film.mp4").stat().st_size != len(new):
            put(job / "output/film.mp4", new)

    always = in_files(proxy_faults.replace_before, after=3)
    proxy = FaultyProxy(service.port, always=[always], replace_output=replace)
    async with faulty_proxy(proxy):
        await download(service, tmp_path / "to.mp4", port=proxy.port, parallel=2, **options)
    assert (tmp_path / "to.mp4").read_bytes() == new


async def test_file_that_is_replaced_again_and_again_is_an_error(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(output=FILM)
    service = await serve()

    async def replace() -> None:
        put(job / "output/film.mp4", os.urandom(200_000))

    always = in_files(proxy_faults.replace_before)
    async with faulty_proxy(FaultyProxy(service.port, always=[always], replace_output=replace)) as proxy:
        with pytest.raises(OutputReplaced):
            await download(service, tmp_path / "to.mp4", port=proxy.port)


async def test_file_without_ranges_is_received_by_one_connection(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    film = os.urandom(20_000_000)
    make_job(output=film)
    service = await serve()
    always = in_files(proxy_faults.strip_range)
    async with faulty_proxy(FaultyProxy(service.port, always=[always])) as proxy:
        await download(service, tmp_path / "to.mp4", port=proxy.port)
    assert (tmp_path / "to.mp4").read_bytes() == film
    assert sum(each.sent for each in proxy.exchanges) < 2.5 * len(film)


async def test_each_range_is_requested_once(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(output=FILM)
    service = await serve()
    async with faulty_proxy(FaultyProxy(service.port)) as proxy:
        await download(service, tmp_path / "to.mp4", port=proxy.port)
    ranges = sorted(
        int(re.split(r"[ -]", each.content_range)[1]) for each in proxy.exchanges if each.content_range
    )
    assert ranges == list(range(0, 400_000, 50_000))


async def test_requests_name_the_version_and_the_etag(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(output=FILM)
    service = await serve()
    async with faulty_proxy(FaultyProxy(service.port)) as proxy:
        (result,) = await download(service, tmp_path / "to.mp4", port=proxy.port)
    requests = [each.request for each in proxy.exchanges if each.content_range]
    assert {request.get("If-Range") for request in requests} == {result.etag}
    assert all(f"?version={result.etag.strip(chr(34))} " in request.first_line for request in requests)


async def test_cut_connection_continues_where_it_ended(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(output=FILM)
    service = await serve()

    async def cut_after_70_kb(exchange: Exchange) -> Answer:
        answer = await exchange.forward()
        answer.body = cut_after(answer.body, 70_000)
        return answer

    proxy = FaultyProxy(service.port, always=[in_files(cut_after_70_kb)])
    async with faulty_proxy(proxy):
        await download(service, tmp_path / "to.mp4", port=proxy.port, parallel=1, retries=1)
    assert (tmp_path / "to.mp4").read_bytes() == FILM
    assert sum(each.is_file for each in proxy.exchanges) == 6
