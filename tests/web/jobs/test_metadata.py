"""A job's metadata reaches clients byte for byte, whatever JSON it is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import pytest

from tests.clients.sse_client import open_event_stream
from tests.conftest import MakeJob, Serve, put
from tests.eventually import pause

JOB: Final = "/api/jobs/job-1"
MAX_LEVELS: Final = 1023
"""Levels of arrays and objects that metadata may have."""
SPELLINGS: Final = (
    b"{}",
    b'{"big": 123456789012345678901234567890, "one": 1.0, "e": 1E+2, "zero": -0}',
    b'{"far": 1e400, "long": 0.1000000000000000055511151231257827}',
    b'{"a": 1, "a": 2}',
    b'{"escapes": "\\u00e9\\/\\u0041", "half": "\\ud800"}',
    b'{"deep": ' + b"[" * 300 + b"]" * 300 + b"}",
    b'{"deepest": ' + b"[" * (MAX_LEVELS - 1) + b"]" * (MAX_LEVELS - 1) + b"}",
    '{"plain": "Träume, 夜明け \u2028"}'.encode(),
)


@pytest.mark.parametrize("metadata", SPELLINGS)
async def test_metadata_is_sent_as_it_was_written_in_status_list_and_events(
    serve: Serve, make_job: MakeJob, metadata: bytes
) -> None:
    folder = make_job()
    put_metadata(folder, metadata)
    service = await serve(poll_interval=0.05)
    async with open_event_stream(service, "/api/events") as stream:
        event = await stream.next_named("job")
    sent = b'"metadata":' + metadata
    assert sent in event.data.encode()
    assert sent in (await service.get(JOB)).body
    assert sent in (await service.get("/api/jobs")).body


@pytest.mark.parametrize("padding", [0, 200_000], ids=["small", "large"])
async def test_record_whose_metadata_has_too_many_levels_leaves_the_others_listed(
    serve: Serve, make_job: MakeJob, padding: int
) -> None:
    make_job("job-2")
    deep = b"[" * MAX_LEVELS + b"]" * MAX_LEVELS
    put_metadata(make_job(), b'{"x": "' + b"x" * padding + b'", "deep": ' + deep + b"}")
    service = await serve()
    assert (await service.get(JOB)).code == "job-not-found"
    async with asyncio.timeout(20):
        while (listed := await service.get("/api/jobs")).status != 200:
            await pause()
    assert [job["id"] for job in listed.json()["jobs"]] == ["job-2"]


@pytest.mark.parametrize("value", [b"1.0", b"123456789012345678901234567890", b"1e400", b'"\\ud800"'])
async def test_large_metadata_is_sent_as_it_was_written(
    serve: Serve, make_job: MakeJob, value: bytes
) -> None:
    metadata = b'{"note": "' + b"x" * 200_000 + b'", "value": ' + value + b"}"
    put_metadata(make_job(), metadata)
    service = await serve(poll_interval=0.05)
    async with asyncio.timeout(20):
        while (listed := await service.get("/api/jobs")).status != 200:
            await pause()
    sent = b'"metadata":' + metadata
    assert sent in listed.body
    assert sent in (await service.get(JOB)).body


async def test_metadata_of_many_lines_is_one_line_of_an_event(serve: Serve, make_job: MakeJob) -> None:
    folder = make_job()
    put_metadata(folder, b'{\r\n  "shot": "a b",\n\t"list": [\r1\r]\n}')
    service = await serve(poll_interval=0.05)
    async with open_event_stream(service, f"{JOB}/events") as stream:
        event = await stream.next_named("job")
        assert event.data.encode() == (await service.get(JOB)).body
    assert event.json()["metadata"] == {"shot": "a b", "list": [1]}


def put_metadata(folder: Path, metadata: bytes) -> None:
    put(folder / "status.json", b'{"status":"queued","metadata": ' + metadata + b' ,"owner":"anna"}')
