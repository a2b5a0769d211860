"""One owner cannot take all download slots, and the slowest download ends when others wait for a slot."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import pytest

from jobsvc.web.file_transfer.transfer_state import TransferState
from tests.clients.raw_http import Connection, request
from tests.conftest import MakeJob, MakeToken, Serve
from tests.eventually import until, until_equal
from tests.programs.service_runner import Service

LARGE: Final = 64_000_000
TARGETS: Final = {"download": "/api/jobs/job-1/download", "log": "/api/jobs/job-1/logs"}


@pytest.fixture
def large(make_job: MakeJob) -> None:
    for job_id, owner in (("job-1", "anna"), ("job-2", "bert")):
        folder = make_job(job_id, owner=owner, output=b"", log=b"")
        os.truncate(folder / "output" / "film.mp4", LARGE)
        os.truncate(folder / "render.log", LARGE)


@asynccontextmanager
async def stalled(service: Service, target: str, token: str | None) -> AsyncIterator[Connection]:
    """Start a download whose client reads only the head."""
    async with service.connect(receive_buffer=4096) as link:
        link.send(request("GET", target, token=token))
        assert (await link.head())[1] == 200
        yield link


@pytest.mark.parametrize("kind", TARGETS)
async def test_tokens_of_one_owner_together_take_half_of_all_slots(
    serve: Serve, large: None, make_token: MakeToken, kind: str
) -> None:
    tokens, other = [make_token() for _ in range(9)], make_token("bert")
    service = await serve(max_downloads=40, max_downloads_per_token=4)
    target = TARGETS[kind]
    async with AsyncExitStack() as stack:
        for token in (token for token in tokens[:5] for _ in range(4)):
            await stack.enter_async_context(stalled(service, target, token))
        refused = await service.get(target, token=tokens[5])
        assert (refused.status, refused.code) == (429, "too-many-downloads")
        assert "owner" in refused.json()["detail"]
        async with stalled(service, target.replace("job-1", "job-2"), other):
            assert await service.metric('jobsvc_downloads_refused_total{limit="owner"}') == 1


@pytest.mark.parametrize("kind", TARGETS)
async def test_slowest_download_ends_when_all_slots_are_taken(
    serve: Serve, large: None, make_token: MakeToken, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("jobsvc.web.ratelimit.download_slots.PACE_PERIOD_S", 3.0)
    other = make_token("bert")
    service = await serve(max_downloads=2, max_downloads_per_token=2)
    target = TARGETS[kind]
    async with stalled(service, target, service.token) as one, stalled(service, target, service.token) as two:
        ends = time.monotonic() + 30
        while (answer := await service.ask("HEAD", "/healthz")).status == 200:
            # One of the two is read before each measurement, so only the other is slow.
            await one.read(1_000_000)
            got = await first_status(service, target.replace("job-1", "job-2"), other)
            if got == 200:
                break
            assert (got, time.monotonic() < ends) == (429, True)
            await asyncio.sleep(0.1)
        assert answer.status == 200
        assert len(await two.read(LARGE)) < LARGE
        await one.read(1_000_000)
    if kind == "download":
        await until(lambda: any(line["outcome"] == "too-slow" for line in service.downloads()))
        await until_equal(lambda: service.metric('jobsvc_downloads_total{outcome="too-slow"}'), 1)


@pytest.mark.parametrize("kind", TARGETS)
async def test_request_that_sends_no_file_ends_no_download(
    serve: Serve,
    large: None,
    make_job: MakeJob,
    make_token: MakeToken,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setattr("jobsvc.web.ratelimit.download_slots.PACE_PERIOD_S", 0.2)
    ended, end_early = [], TransferState.end_early

    def note(state: TransferState) -> None:
        ended.append(state.key)
        end_early(state)

    monkeypatch.setattr(TransferState, "end_early", note)
    other, target = make_token("bert"), TARGETS[kind].replace("job-1", "job-2")
    make_job("queued", owner="bert")
    (make_job("gone", owner="bert", output=b"film") / "output" / "film.mp4").unlink()
    service = await serve(max_downloads=1, max_downloads_per_token=1)
    tag = (await service.ask("HEAD", target, token=other)).headers["ETag"]
    async with stalled(service, TARGETS[kind], service.token) as link:
        await asyncio.sleep(0.5)
        no_output = {"download": 409, "log": 404}[kind]
        for status, job_id, fields in (
            (404, "unknown", {}),
            (404, "job-1", {}),
            (no_output, "queued", {}),
            (404, "gone", {}),
            (304, "job-2", {"If-None-Match": tag}),
            (412, "job-2", {"If-Match": '"another"'}),
            (416, "job-2", {"Range": f"bytes={LARGE}-"}),
        ):
            path = target.replace("job-2", job_id)
            assert (await service.get(path, *fields.items(), token=other)).status == status
        assert not ended
        assert await first_status(service, target, other) in {200, 429}
        assert ended == ["job-1"]
        assert len(await link.read(LARGE)) < LARGE


async def first_status(service: Service, target: str, token: str) -> int:
    async with service.connect(receive_buffer=65_536) as link:
        link.send(request("GET", target, token=token))
        return (await link.head())[1]


async def test_download_that_is_read_fast_enough_never_ends_early(
    serve: Serve, large: None, make_token: MakeToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobsvc.web.ratelimit.download_slots.PACE_PERIOD_S", 3.0)
    other = make_token("bert")
    service = await serve(max_downloads=1, max_downloads_per_token=1)
    async with stalled(service, TARGETS["download"], service.token) as link:
        for _ in range(20):
            await link.read(1_000_000)
            assert await first_status(service, "/api/jobs/job-2/download", other) == 429
            await asyncio.sleep(0.2)
        assert len(await link.read(LARGE - 20_000_000)) == LARGE - 20_000_000
