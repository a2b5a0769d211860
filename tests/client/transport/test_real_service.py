"""HttpTransport against the running service."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest

from jobsvc.client.connection_settings import ConnectionSettings
from jobsvc.client.errors import ConnectionFailed
from jobsvc.client.protocol.steps import Request
from jobsvc.client.transport.http_transport import HttpTransport
from tests.conftest import MakeJob, Serve
from tests.programs.service_runner import Service

FILM = bytes(range(256)) * 5000


def transport_to(service: Service, token: str | None = None) -> HttpTransport:
    return HttpTransport(
        ConnectionSettings(f"http://127.0.0.1:{service.port}", token or service.token or "", timeout=20)
    )


async def test_responses_are_those_of_the_service(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=FILM)
    transport = transport_to(await serve())
    job = await asyncio.to_thread(transport.send, Request("/api/jobs/job-1"))
    assert (job.status, orjson.loads(job.body)["status"]) == (200, "completed")
    assert job.headers["content-type"] == "application/json"
    film = await asyncio.to_thread(transport.send, Request("/api/jobs/job-1/download"))
    assert film.body == FILM
    missing = await asyncio.to_thread(transport.send, Request("/api/jobs/unknown"))
    assert (missing.status, orjson.loads(missing.body)["code"]) == (404, "job-not-found")
    transport.close()


async def test_headers_method_and_body_of_the_request_are_sent(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=FILM)
    transport = transport_to(await serve())
    part = Request("/api/jobs/job-1/download", headers={"Range": "bytes=10-19"})
    response = await asyncio.to_thread(transport.send, part)
    assert (response.status, response.body) == (206, FILM[10:20])
    head = await asyncio.to_thread(transport.send, Request("/api/jobs/job-1/download", method="HEAD"))
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(FILM)), b"")
    link = Request("/api/jobs/job-1/download-links", method="POST", body=b'{"expiresIn": 60}')
    assert (await asyncio.to_thread(transport.send, link)).status == 201


async def test_wrong_token_is_a_401(serve: Serve) -> None:
    transport = transport_to(await serve(), token="x" * 43)
    assert (await asyncio.to_thread(transport.send, Request("/api/jobs"))).status == 401


async def test_event_stream_is_read_as_it_arrives_until_it_is_closed(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    transport = transport_to(await serve())
    stream = await asyncio.to_thread(transport.open, Request("/api/jobs/job-1/events"))
    assert stream.headers["content-type"] == "text/event-stream"
    received = b""
    while b"job-1" not in received:
        received += await asyncio.to_thread(stream.read)
    reading = asyncio.ensure_future(asyncio.to_thread(stream.read))
    await asyncio.sleep(0)
    stream.close()
    with pytest.raises(ConnectionFailed, match="closed"):
        await asyncio.wait_for(reading, 5)


async def test_many_threads_share_a_transport(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=FILM)
    transport = transport_to(await serve())

    def download(start: int) -> bool:
        request = Request("/api/jobs/job-1/download", headers={"Range": f"bytes={start}-{start + 999}"})
        return transport.send(request).body == FILM[start : start + 1000]

    def download_many() -> list[bool]:
        with ThreadPoolExecutor(8) as threads:
            return list(threads.map(download, range(0, 200_000, 1000)))

    assert all(await asyncio.to_thread(download_many))
    transport.close()
