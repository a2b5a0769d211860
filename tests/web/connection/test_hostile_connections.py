"""Clients of five hostile kinds: unfinished heads, unread responses, streams, pipelined
heads, slow bodies.
"""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from jobsvc.domain.errors import ApiError
from jobsvc.storage.state import token_file
from jobsvc.web.connection import timeouts
from jobsvc.web.outputs import link_request
from tests.clients.raw_http import request
from tests.conftest import MakeJob, MakeToken, Serve
from tests.eventually import until

pytestmark = pytest.mark.both_loops

EACH = 8
"""Connections of each kind."""


async def test_other_owners_and_revocation_work_during_an_attack(
    serve: Serve,
    make_job: MakeJob,
    make_token: MakeToken,
    state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timeouts, "SWEEP_INTERVAL_S", 0.05)
    make_job("victim-1")
    for number in range(20):
        make_job(f"hostile-{number}", owner="hostile", metadata={"x": "y" * 200_000})
    service = await serve(header_timeout=1, send_timeout=1, limit_auth_failures="1000000/minute")
    hostile = make_token("hostile")
    for _ in range(500):
        if (
            (await service.get("/readyz")).status
            == 200
            == (await service.get("/api/me", token=hostile)).status
        ):
            break
        await asyncio.sleep(0.01)
    listing = request("GET", "/api/jobs?limit=200", token=hostile)
    kinds = (
        b"GET /api/jobs/hostile-1 HTTP/1.1\r\nHost: x\r\n",
        listing,
        request("GET", "/api/jobs/hostile-1/events", token=hostile),
        listing + request("GET", "/api/jobs/hostile-1", [("X-Large", "z" * 8000)], token=hostile) * 30,
        request("POST", "/api/jobs/hostile-1/download-links", token=hostile, body=b" " * 60_000)[:-50_000],
    )
    before = await service.metric("jobsvc_connections")
    async with AsyncExitStack() as stack:
        for kind in kinds * EACH:
            link = await stack.enter_async_context(service.connect(receive_buffer=4096))
            link.writer.transport.pause_reading()  # type: ignore[attr-defined]
            link.send(kind)
        for _ in range(20):
            assert (await service.get("/api/jobs/victim-1")).status == 200
        (token,) = (each for each in token_file.load(state_dir / "tokens.json") if each.owner == "hostile")
        token_file.revoke(state_dir / "tokens.json", token.id)
        revoked_at = time.monotonic()
        while (await service.get("/api/jobs/hostile-1", token=hostile)).status != 401:
            assert time.monotonic() - revoked_at < 2
        deadline = time.monotonic() + 30
        while (still := await service.metric("jobsvc_connections")) > before:
            assert time.monotonic() < deadline, f"{still} connections are still open"
            await asyncio.sleep(0.05)
        assert (await service.get("/api/jobs/victim-1")).status == 200


def _api_errors() -> list[ApiError]:
    return [each for each in gc.get_objects() if isinstance(each, ApiError)]


async def test_memory_of_a_refused_request_is_freed_without_garbage_collection(
    serve: Serve, make_job: MakeJob, make_token: MakeToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_request, "BODY_TIMEOUT_S", 0.01)
    make_job("victim-1")
    service = await serve(limit_status="1/hour")
    unfinished = request("POST", "/api/jobs/victim-1/download-links", token=service.token, body=b"  ")[:-1]
    await service.get("/api/jobs/victim-1")
    gc.collect()
    gc.disable()
    of_other_tests = set(map(id, _api_errors()))
    try:
        statuses = [
            (await service.get("/api/jobs/victim-1")).status,
            (await service.get("/api/jobs/victim-1", token=None)).status,
            (await service.get("/api/jobs/victim-1/logs?unknown=1")).status,
        ]
        async with service.connect() as link:
            link.send(unfinished)
            statuses.append((await link.answer("POST")).status)
        await until(lambda: of_other_tests.issuperset(map(id, _api_errors())))
    finally:
        gc.enable()
    assert statuses == [429, 401, 400, 408]
