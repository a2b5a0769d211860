"""Two services with one Redis: limits of downloads and streams, and digests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import pytest
from redis.asyncio import Redis

from jobsvc.index.digests import digest_service
from jobsvc.shared_state import connection, digest_exchange
from tests.clients.raw_http import Connection, request
from tests.clients.sse_client import open_event_stream
from tests.conftest import MakeJob, MakeToken, Serve
from tests.eventually import pause, until_equal
from tests.programs.external_programs import needs
from tests.programs.redis_server import RedisServer, redis_server
from tests.programs.service_runner import Service
from tests.shared_state.connecting import set_waits

pytestmark = needs("redis-server")

LARGE: Final = 64_000_000
FILM: Final = b"film" * 1000

Pair: TypeAlias = Callable[..., Awaitable[tuple[Service, Service]]]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
def serve_two(serve: Serve, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """Start two services with one Redis; the settings are those of both."""
    monkeypatch.setattr(connection, "PROBE_INTERVAL_S", 0.1)
    monkeypatch.setattr(digest_exchange, "INTERVAL_S", 0.05)
    set_waits(monkeypatch)

    async def start(**settings: object) -> tuple[Service, Service]:
        one = await serve(shared_state=redis.url, instance="one", **settings)
        return one, await serve(shared_state=redis.url, instance="other", **settings)

    return start


@pytest.fixture
def large(make_job: MakeJob) -> None:
    folder = make_job("large", output=b"", log=b"")
    os.truncate(folder / "output" / "film.mp4", LARGE)
    os.truncate(folder / "render.log", LARGE)


async def opened(service: Service, target: str, token: str) -> int:
    """Return the status of a request whose response is not read."""
    async with stalled(service, target, token) as (status, _):
        return status


@asynccontextmanager
async def stalled(service: Service, target: str, token: str) -> AsyncIterator[tuple[int, Connection]]:
    """Request a large file during a block, and read only the head of the response."""
    async with service.connect(receive_buffer=4096) as link:
        link.send(request("GET", target, token=token))
        yield (await link.head())[1], link


@pytest.mark.parametrize("target", ["/api/jobs/large/download", "/api/jobs/large/logs"])
async def test_downloads_of_a_token_are_limited_at_all_services_together(
    serve_two: Pair, large: None, make_token: MakeToken, target: str
) -> None:
    token, another = make_token(), make_token()
    one, other = await serve_two(max_downloads_per_token=2)
    async with stalled(one, target, token) as (first, _):
        async with stalled(other, target, token) as (second, _):
            assert (first, second) == (200, 200)
            for service in (one, other):
                refused = await service.get(target, token=token)
                assert (refused.status, refused.code) == (429, "too-many-downloads")
                assert refused.json()["detail"] == "This token already has 2 downloads in progress."
                assert await service.metric('jobsvc_downloads_refused_total{limit="token"}') == 1
            assert await opened(one, target, another) == 200
        await until_equal(lambda: opened(one, target, token), 200)


async def test_downloads_of_an_owner_and_in_total_are_limited_at_all_services_together(
    serve_two: Pair, large: None, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job("of-bert", owner="bert", output=FILM * 1000)
    target, tokens, berts = "/api/jobs/large/download", [make_token() for _ in range(4)], make_token("bert")
    one, other = await serve_two(max_downloads=17, max_downloads_per_token=16)
    async with AsyncExitStack() as stack:
        for number in range(16):
            service = (one, other)[number % 2]
            status, _ = await stack.enter_async_context(stalled(service, target, tokens[number % 4]))
            assert status == 200
        refused = await one.get(target, token=tokens[0])
        assert (refused.status, refused.json()["detail"][:10]) == (429, "This owner")
        await stack.enter_async_context(stalled(one, "/api/jobs/of-bert/download", berts))
        refused = await other.get("/api/jobs/of-bert/download", token=berts)
        assert (refused.status, refused.json()["detail"][:11]) == (429, "The service")


async def test_streams_and_long_polls_of_a_token_are_limited_at_all_services_together(
    serve_two: Pair, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job("job-1", status="running")
    token, another = make_token(), make_token()
    one, other = await serve_two(max_streams_per_token=2)
    async with (
        open_event_stream(one, "/api/jobs/job-1/events", token=token) as first,
        open_event_stream(other, "/api/events", token=token) as second,
    ):
        assert (first.status, second.status) == (200, 200)
        for service, target in ((one, "/api/events"), (other, "/api/jobs/job-1?wait=1")):
            refused = await service.get(target, token=token)
            assert (refused.status, refused.code) == (429, "too-many-streams")
            assert await service.metric('jobsvc_streams_refused_total{limit="token"}') == 1
        assert (await other.get("/api/jobs/job-1?wait=0.01", token=another)).status == 200


@pytest.mark.parametrize("outage", ["killed", "paused"])
async def test_downloads_begun_in_an_outage_of_redis_count_everywhere_afterwards(
    serve_two: Pair,
    large: None,
    make_token: MakeToken,
    redis: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    outage: str,
) -> None:
    if outage == "paused":
        set_waits(monkeypatch, 0.1, 1)
    token, target = make_token(), "/api/jobs/large/download"
    one, other = await serve_two(max_downloads_per_token=2)
    async with AsyncExitStack() as stack:
        redis.kill() if outage == "killed" else redis.pause()
        for _ in range(2):
            status, _ = await stack.enter_async_context(stalled(one, target, token))
            assert status == 200
        assert await opened(one, target, token) == 429
        assert await opened(other, target, token) == 200
        redis.start() if outage == "killed" else redis.resume()
        await until_equal(lambda: opened(other, target, token), 429)
    assert [await service.answer_count(500) for service in (one, other)] == [0, 0]
    await until_equal(lambda: opened(other, target, token), 200)


async def test_digest_computed_by_one_service_is_shown_by_the_other(
    serve_two: Pair, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_service, "TIMESTAMP_GRANULARITY_NS", 0)
    make_job(output=FILM)
    one, other = await serve_two()
    await one.ask("HEAD", "/api/jobs/job-1/download", [("Want-Repr-Digest", "sha-256=1")])
    first = (await other.get("/api/jobs/job-1")).headers["ETag"]
    changed = await other.get("/api/jobs/job-1?wait=10", ("If-None-Match", first))
    assert changed.json()["outputSha256"] == hashlib.sha256(FILM).hexdigest()
    assert await other.metric("jobsvc_digest_bytes_total") == 0
    assert await other.metric('jobsvc_digests_total{outcome="received"}') == 1


async def test_file_requested_at_two_services_is_hashed_by_one(
    serve_two: Pair, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_service, "TIMESTAMP_GRANULARITY_NS", 0)
    monkeypatch.setattr(digest_service, "CLAIMED_RETRY_S", 0.05)
    make_job(output=FILM * 2_000)
    services = await serve_two()
    for service in services:
        await service.ask("HEAD", "/api/jobs/job-1/download", [("Want-Repr-Digest", "sha-256=1")])
    for service in services:
        while "outputSha256" not in (await service.get("/api/jobs/job-1")).json():
            await pause()
    hashed = [await service.metric("jobsvc_digest_bytes_total") for service in services]
    assert sorted(hashed) == [0, len(FILM) * 2_000]
    for service in services:
        await until_equal(partial(service.metric, "jobsvc_digests_waiting"), 0)


async def test_invalid_entries_among_the_digests_are_ignored(
    serve_two: Pair, make_job: MakeJob, redis: RedisServer
) -> None:
    make_job(output=FILM)
    one, _ = await serve_two()
    async with Redis.from_url(redis.url) as client:
        for key, entry in ((b"job-1", b"short"), (b"\xff/..", bytes(72)), (b"job-1/x", bytes(72))):
            await client.xadd("jobsvc:{digests}", {key: entry})
    await until_equal(lambda: one.metric('jobsvc_digests_total{outcome="malformed"}'), 3)
    assert (await one.get("/api/jobs/job-1")).status == 200
