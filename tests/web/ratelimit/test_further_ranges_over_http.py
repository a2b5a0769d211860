"""Reading one output in ranges counts as one download and has a budget of its own."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Final

import pytest

from tests.clients.raw_http import request
from tests.conftest import MakeJob, MakeToken, Serve
from tests.programs.service_runner import Service

SMALL: Final = b"film" * 10_000
DOWNLOAD: Final = "/api/jobs/job-1/download"


def span(start: int) -> tuple[str, str]:
    return "Range", f"bytes={start}-{start + 99}"


async def request_ranges(
    service: Service, target: str, count: int, *fields: tuple[str, str], token: str | None = ""
) -> set[int]:
    """Request this many ranges, each over a connection of its own, and return the statuses."""
    return {
        (await service.get(target, span(index * 7 % 30_000), *fields, token=token)).status
        for index in range(count)
    }


@pytest.fixture
async def service(serve: Serve, make_job: MakeJob) -> Service:
    make_job(output=SMALL)
    return await serve(limit_download="4/hour")


@pytest.mark.parametrize("size", [40_000, 3_000_000], ids=["in memory", "streamed"])
@pytest.mark.parametrize("by", ["token", "link", "downloadUrl"])
async def test_further_ranges_of_an_output_are_not_charged_as_downloads(
    serve: Serve, make_job: MakeJob, by: str, size: int
) -> None:
    make_job(output=bytes(size))
    service = await serve(limit_download="3/hour")
    token: str | None = ""
    target = DOWNLOAD
    if by == "link":
        token, target = None, await service.link("job-1")
    elif by == "downloadUrl":
        target = (await service.get("/api/jobs/job-1")).json()["downloadUrl"]
    assert await request_ranges(service, target, 50, token=token) == {206}
    assert (await service.download("job-1")).status == 200


async def test_three_players_that_seek_in_turn_stay_within_the_limit(service: Service) -> None:
    target = await service.link("job-1")
    async with service.connect() as one, service.connect() as two, service.connect() as three:
        for index in range(20):
            for player in (one, two, three):
                assert (await player.ask("GET", target, [span(index)])).status == 206


async def test_ranges_after_a_head_request_and_with_if_range_are_one_use(service: Service) -> None:
    head = await service.ask("HEAD", DOWNLOAD)
    assert await request_ranges(service, DOWNLOAD, 20, ("If-Range", head.headers["ETag"])) == {206}
    assert [(await service.download("job-1")).status for _ in range(4)] == [200, 200, 200, 429]


async def test_further_ranges_have_a_budget_of_their_own(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=SMALL)
    service = await serve(limit_download="2/hour")
    async with service.connect() as link:
        statuses = [
            (await link.ask("GET", DOWNLOAD, [span(index)], token=service.token)).status
            for index in range(60)
        ]
    assert statuses == [206] * (2 + 2 * 20) + [429] * 18
    refused = await service.get(DOWNLOAD, span(0))
    assert (refused.code, refused.headers["RateLimit-Policy"]) == ("rate-limited", '"download";q=2;w=3600')


async def test_repeated_range_on_the_same_connection_is_charged(service: Service) -> None:
    async with service.connect() as link:
        answers = [await link.ask("GET", DOWNLOAD, [span(0)], token=service.token) for _ in range(5)]
    assert [answer.status for answer in answers] == [206] * 4 + [429]


async def test_further_range_above_the_limit_is_charged_as_a_download(service: Service) -> None:
    for _ in range(3):
        assert (await service.get(DOWNLOAD, span(0))).status == 206
        assert (await service.get(DOWNLOAD, ("Range", "bytes=999999-"))).status in {416, 429}
    assert (await service.download("job-1")).status == 429


async def test_each_complete_download_is_charged(service: Service) -> None:
    assert await request_ranges(service, DOWNLOAD, 5) == {206}
    assert [(await service.download("job-1")).status for _ in range(4)] == [200, 200, 200, 429]


async def test_range_of_another_output_or_url_is_charged(serve: Serve, make_job: MakeJob) -> None:
    for number in range(3):
        make_job(f"job-{number}", output=SMALL)
    service = await serve(limit_download="4/hour", trusted_proxies=(ip_network("127.0.0.1"),))
    for number in range(2):
        assert await request_ranges(service, f"/api/jobs/job-{number}/download", 5) == {206}
    for address in ("192.0.2.1", "192.0.2.2:4711", "192.0.2.2:4712"):
        assert await request_ranges(service, DOWNLOAD, 5, ("X-Forwarded-For", address)) == {206}
    assert await request_ranges(service, DOWNLOAD, 1, ("X-Forwarded-For", "192.0.2.3")) == {429}


async def test_refused_request_starts_no_use(service: Service) -> None:
    for _ in range(2):
        assert (await service.get(DOWNLOAD, ("Range", "bytes=999999-"))).status == 416
        assert (await service.get(DOWNLOAD, ("If-Match", '"other"'))).status == 412
    assert await request_ranges(service, DOWNLOAD, 1) == {429}
    assert await request_ranges(service, DOWNLOAD, 1) == {429}


async def test_other_token_is_charged_separately(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job(output=SMALL)
    other = make_token()
    service = await serve(limit_download="1/hour")
    assert await request_ranges(service, DOWNLOAD, 10) == {206}
    assert await request_ranges(service, DOWNLOAD, 10, token=other) == {206}
    assert (await service.download("job-1", token=other)).status == 429


async def test_pipelined_ranges_are_one_use(service: Service) -> None:
    async with service.connect() as link:
        link.send(
            b"".join(request("GET", DOWNLOAD, [span(index)], token=service.token) for index in range(10))
        )
        assert [(await link.answer()).status for _ in range(10)] == [206] * 10


async def test_further_range_of_a_replaced_output_is_charged_as_a_download(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job(output=SMALL)
    service = await serve(limit_download="4/hour")
    target = await service.link("job-1")
    assert await request_ranges(service, target, 5, token=None) == {206}
    make_job(output=SMALL[::-1])
    statuses = [(await service.get(target, span(at), token=None)).status for at in range(2)]
    assert statuses == [412, 412]
    assert (await service.download("job-1")).status == 429
