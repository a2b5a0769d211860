"""Downloads of a token that reaches its limits."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from jobsvc.client import RateLimited
from tests.client.download.job_downloads import client, content, download, make_sequence
from tests.clients.body_pieces import pieces_of
from tests.clients.faulty_proxy import Answer, Exchange, Fault, FaultyProxy, faulty_proxy
from tests.conftest import MakeJob, Serve

FILM = os.urandom(400_000)

pytestmark = pytest.mark.usefixtures("small_segments")


def refuse(times: int, retry_after: str, code: str = "rate-limited") -> Fault:
    """Return a fault that refuses the first requests of files with 429."""
    refused: list[str] = []

    async def apply(exchange: Exchange) -> Answer:
        if not exchange.is_file or len(refused) >= times:
            return await exchange.forward()
        refused.append(exchange.target)
        body = b'{"code": "%b", "detail": "Too many."}' % code.encode()
        fields = [("Content-Type", "application/problem+json"), ("Content-Length", str(len(body)))]
        fields.append(("Retry-After", retry_after))
        return Answer("HTTP/1.1 429 Too Many Requests", fields, pieces_of(body))

    return apply


async def test_limit_is_no_failure(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(output=FILM)
    service = await serve()
    async with faulty_proxy(FaultyProxy(service.port, always=[refuse(40, "0")])) as proxy:
        await download(service, tmp_path / "to.mp4", port=proxy.port, retries=0)
    assert (tmp_path / "to.mp4").read_bytes() == FILM


async def test_limit_that_lasts_for_long_is_an_error(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(output=FILM)
    service = await serve()
    async with faulty_proxy(FaultyProxy(service.port, always=[refuse(1, "301")])) as proxy:
        with pytest.raises(RateLimited):
            await download(service, tmp_path / "to.mp4", port=proxy.port)


async def test_refused_connection_is_not_used_again(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(output=FILM)
    service = await serve()
    always = [refuse(3, "0", "too-many-downloads")]
    async with faulty_proxy(FaultyProxy(service.port, always=always)) as proxy:
        await download(service, tmp_path / "to.mp4", port=proxy.port, retries=0)
    assert (tmp_path / "to.mp4").read_bytes() == FILM


async def test_budget_of_the_service_is_waited_for(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    frames = make_sequence(make_job, 15)
    service = await serve(limit_files="10/second")
    await download(service, tmp_path / "to", verify=False, retries=0)
    assert content(tmp_path / "to") == frames


async def test_token_with_one_place_uses_one_connection(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(output=FILM)
    service = await serve(max_downloads_per_token=1)
    with client(service, retries=0) as own:
        await asyncio.to_thread(own.download, "job-1", tmp_path / "to.mp4")
    assert (tmp_path / "to.mp4").read_bytes() == FILM
