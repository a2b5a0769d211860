"""A long request ends within two seconds once its token, as tokens.json has it, no longer permits it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from jobsvc.domain.access import ADMIN, JOBS_READ, OUTPUTS_READ
from jobsvc.storage.state.token_file import load
from tests.clients.raw_http import Connection, request
from tests.clients.sse_client import EventStream, open_event_stream
from tests.conftest import MakeJob, MakeToken, Serve, put
from tests.eventually import pause
from tests.programs.service_runner import Service

pytestmark = pytest.mark.alone

HEEDED_WITHIN_S: Final = 2.0
LARGE: Final = 16 << 20
"""Bytes: more than the sockets between the service and a client hold."""

Change = Callable[[dict[str, Any]], object]

CHANGES: Final[dict[str, Change]] = {
    "revoked": lambda token: token.update(revoked="2026-01-01T00:00:00Z"),
    "expired": lambda token: token.update(expires="2026-01-01T00:00:00Z"),
    "removed": lambda token: token.clear(),
    "another-owner": lambda token: token.update(owner="bob"),
    "no-scope": lambda token: token.update(scopes=[]),
}
TARGETS: Final = ("/api/jobs/job-1/events", "/api/events", "/api/jobs/job-1/logs?follow=1")


def change_token(state_dir: Path, owner: str, change: Change) -> float:
    """Change the owner's newest token in tokens.json; return the time of the change (monotonic seconds)."""
    path = state_dir / "tokens.json"
    content = orjson.loads(path.read_bytes())
    change([token for token in content["tokens"] if token.get("owner") == owner][-1])
    content["tokens"] = [token for token in content["tokens"] if token]
    put(path, orjson.dumps(content))
    path.chmod(0o600)
    load(path)
    return time.monotonic()


async def read_to_end(stream: EventStream) -> list[str]:
    return [event.name + event.data for event in await stream.read_all()]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("target", TARGETS)
async def test_stream_ends_when_the_token_no_longer_permits_it(
    target: str, change: str, serve: Serve, make_job: MakeJob, state_dir: Path
) -> None:
    make_job(status="rendering", log=b"one\n")
    service = await serve(poll_interval=0.05)
    async with open_event_stream(service, target) as stream:
        await stream.next()
        changed = change_token(state_dir, "anna", CHANGES[change])
        rest = await read_to_end(stream)
        assert time.monotonic() - changed < HEEDED_WITHIN_S
        assert stream.ended_cleanly
        assert not [event for event in rest if not event.startswith("present")]


@pytest.mark.parametrize("target", TARGETS)
async def test_stream_sends_nothing_after_the_owner_of_the_token_changed(
    target: str, serve: Serve, make_job: MakeJob, state_dir: Path
) -> None:
    folder = make_job(status="rendering", log=b"one\n")
    service = await serve(poll_interval=0.05)
    async with open_event_stream(service, target) as stream:
        await stream.next()
        change_token(state_dir, "anna", CHANGES["another-owner"])
        await wait_for_status(service, 404)
        make_job(status="rendering", phase="secret")
        with (folder / "render.log").open("ab") as log:
            log.write(b"secret\n")
        assert "secret" not in "".join(await read_to_end(stream))


async def wait_for_status(service: Service, status: int) -> None:
    """Wait until a status request gets this response."""
    while (await service.get("/api/jobs/job-1")).status != status:
        await pause()


async def test_stream_of_a_former_admin_ends(
    serve: Serve, make_job: MakeJob, make_token: MakeToken, state_dir: Path
) -> None:
    make_job(status="rendering")
    admin = make_token("boss", [ADMIN])
    service = await serve()
    async with open_event_stream(service, "/api/events", token=admin) as stream:
        await stream.next_named("present")
        changed = change_token(state_dir, "boss", lambda token: token.update(scopes=[JOBS_READ]))
        await stream.read_all()
        assert time.monotonic() - changed < HEEDED_WITHIN_S


async def test_stream_continues_when_its_token_permits_more(
    serve: Serve, make_job: MakeJob, state_dir: Path
) -> None:
    make_job(status="rendering", progress=1)
    service = await serve(poll_interval=0.05)
    async with open_event_stream(service, "/api/jobs/job-1/events") as stream:
        await stream.next()
        change_token(state_dir, "anna", lambda token: token.update(scopes=[ADMIN]))
        make_job("job-2", owner="bob")
        await service.get("/api/jobs/job-2")
        while (await service.get("/api/jobs/job-2")).status != 200:
            await pause()
        make_job(status="rendering", progress=2)
        assert (await stream.next_named("job")).json()["progress"] == 2


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("revoked", "unauthorized"),
        ("expired", "unauthorized"),
        ("another-owner", "job-not-found"),
        ("no-scope", "insufficient-scope"),
    ],
)
async def test_long_poll_is_answered_by_the_current_permissions(
    change: str, code: str, serve: Serve, make_job: MakeJob, state_dir: Path
) -> None:
    make_job(status="rendering")
    service = await serve()
    async with service.connect() as link:
        link.send(request("GET", "/api/jobs/job-1?wait=30", token=service.token))
        await waits(service, 1)
        changed = change_token(state_dir, "anna", CHANGES[change])
        assert (await link.answer()).code == code
        assert time.monotonic() - changed < HEEDED_WITHIN_S


async def waits(service: Service, count: int) -> None:
    while await service.metric("jobsvc_requests_waiting") != count:
        await pause()


async def read_slowly(link: Connection) -> int:
    """Read slowly enough that the transfer lasts; return the received bytes when the connection breaks."""
    count = 0
    while piece := await link.read(1 << 16):
        count += len(piece)
    return count


@pytest.mark.both_loops
@pytest.mark.parametrize("change", CHANGES)
async def test_download_ends_when_the_token_no_longer_permits_it(
    change: str, serve: Serve, make_job: MakeJob, state_dir: Path
) -> None:
    make_job(output=bytes(LARGE))
    service = await serve(download_rate=LARGE // 30)
    async with service.connect() as link:
        link.send(request("GET", "/api/jobs/job-1/download", token=service.token))
        await link.head()
        await link.read(1)
        changed = change_token(state_dir, "anna", CHANGES[change])
        assert await read_slowly(link) < LARGE - 1
        assert time.monotonic() - changed < HEEDED_WITHIN_S
    [line] = await service.wait_for_downloads(1)
    assert line["outcome"] == "revoked"
    await until_released(service)


async def until_released(service: Service) -> None:
    while await service.metric("jobsvc_downloads_in_progress"):
        await pause()


async def test_download_that_is_not_read_ends_when_the_token_is_revoked(
    serve: Serve, make_job: MakeJob, state_dir: Path
) -> None:
    make_job(output=bytes(LARGE))
    service = await serve()
    async with service.connect(receive_buffer=4096) as link:
        link.send(request("GET", "/api/jobs/job-1/download", token=service.token))
        await link.head()
        change_token(state_dir, "anna", CHANGES["revoked"])
        [line] = await service.wait_for_downloads(1)
        assert line["outcome"] == "revoked"


async def test_download_by_link_ends_when_the_token_of_the_link_is_revoked(
    serve: Serve, make_job: MakeJob, state_dir: Path
) -> None:
    make_job(output=bytes(LARGE))
    service = await serve(download_rate=LARGE // 30)
    url = (await service.ask("POST", "/api/jobs/job-1/download-links")).json()["url"]
    async with service.connect() as link:
        link.send(request("GET", url))
        await link.head()
        changed = change_token(state_dir, "anna", CHANGES["revoked"])
        assert await read_slowly(link) < LARGE
        assert time.monotonic() - changed < HEEDED_WITHIN_S


async def test_log_response_ends_when_the_scope_is_lost(
    serve: Serve, make_job: MakeJob, state_dir: Path
) -> None:
    make_job(log=bytes(LARGE))
    service = await serve(download_rate=LARGE // 30)
    async with service.connect() as link:
        link.send(request("GET", "/api/jobs/job-1/logs", token=service.token))
        await link.head()
        changed = change_token(state_dir, "anna", lambda token: token.update(scopes=[OUTPUTS_READ]))
        assert await read_slowly(link) < LARGE
        assert time.monotonic() - changed < HEEDED_WITHIN_S


async def test_small_download_continues_while_its_token_is_valid(
    serve: Serve, make_job: MakeJob, state_dir: Path
) -> None:
    make_job(output=bytes(1 << 20))
    service = await serve(download_rate=1 << 20)
    change_token(state_dir, "anna", lambda token: token.update(scopes=[OUTPUTS_READ]))
    assert len((await service.download("job-1")).body) == 1 << 20


async def test_stream_whose_client_does_not_read_is_dropped_when_the_token_is_revoked(
    serve: Serve, make_job: MakeJob, state_dir: Path
) -> None:
    make_job(log=b"a line of a log that is not read\n" * 400_000)
    service = await serve()
    async with service.connect(receive_buffer=4096) as link:
        link.send(request("GET", "/api/jobs/job-1/logs?follow=1", token=service.token))
        await link.head()
        changed = change_token(state_dir, "anna", CHANGES["revoked"])
        while await service.metric('jobsvc_event_streams{of="log"}'):
            await pause()
        assert time.monotonic() - changed < HEEDED_WITHIN_S
