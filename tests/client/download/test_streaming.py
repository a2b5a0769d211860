"""Files and archives that are written to a stream."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tarfile
from typing import Any

import pytest

from jobsvc.client import Corrupt, Downloaded, DownloadError, OutputReplaced
from jobsvc.client.download.options import DownloadOptions
from jobsvc.client.download.streaming import stream_job
from tests.client.download.job_downloads import client, make_sequence, make_two_outputs
from tests.clients.cutting_proxy import cutting_proxy
from tests.clients.faulty_proxy import FaultyProxy, faulty_proxy
from tests.clients.proxy_faults import cut_body, flip_byte, strip_range
from tests.conftest import MakeJob, Serve, put
from tests.programs.service_runner import Service

FILM = os.urandom(300_000)


async def stream(
    service: Service, sink: io.BytesIO, *, port: int | None = None, verify: bool = True, **query: Any
) -> Downloaded:
    with client(service, port, retries=10) as own:
        transport, settings, options = own._transport, own._settings, DownloadOptions(verify=verify)
        return await asyncio.to_thread(
            stream_job, transport, settings, "job-1", sink, options=options, **query
        )


async def test_file_is_written_and_verified(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=FILM)
    sink = io.BytesIO()
    result = await stream(await serve(), sink)
    assert sink.getvalue() == FILM
    assert result.sha256 == hashlib.sha256(FILM).hexdigest()


async def test_cut_stream_is_continued(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=FILM)
    service, sink = await serve(), io.BytesIO()
    async with cutting_proxy(service.port, 100_000, 70_000, 500, 100_000) as proxy:
        await stream(service, sink, port=proxy.port)
    assert sink.getvalue() == FILM
    assert proxy.cut_count == 4


async def test_file_that_is_sent_from_its_start_again(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=FILM)
    service, sink = await serve(), io.BytesIO()
    proxy = FaultyProxy(service.port, always=[strip_range], faults=[cut_body], budget=4)
    async with faulty_proxy(proxy):
        await stream(service, sink, port=proxy.port)
    assert sink.getvalue() == FILM


async def test_wrong_byte_is_an_error(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=FILM)
    service, sink = await serve(), io.BytesIO()
    async with faulty_proxy(FaultyProxy(service.port, always=[flip_byte])) as proxy:
        with pytest.raises(Corrupt):
            await stream(service, sink, port=proxy.port)


async def test_replaced_file_is_an_error_after_bytes_were_written(serve: Serve, make_job: MakeJob) -> None:
    job = make_job(output=FILM)

    class Sink(io.BytesIO):
        def write(self, data: Any) -> int:
            put(job / "output/film.mp4", bytes(len(FILM)))
            return super().write(data)

    service = await serve()
    async with cutting_proxy(service.port, 100_000) as proxy:
        with pytest.raises(OutputReplaced):
            await stream(service, Sink(), port=proxy.port)


async def test_several_files_are_an_error(serve: Serve, make_job: MakeJob) -> None:
    make_sequence(make_job, 2)
    with pytest.raises(DownloadError, match="2 files"):
        await stream(await serve(), io.BytesIO())


async def test_tar_is_written_and_verified(serve: Serve, make_job: MakeJob) -> None:
    files = make_two_outputs(make_job)
    sink = io.BytesIO()
    await stream(await serve(), sink, archive="tar")
    sink.seek(0)
    with tarfile.open(fileobj=sink) as tar:
        assert tar.getnames() == sorted(files)


async def test_wrong_byte_in_a_tar_is_an_error(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=FILM)
    service = await serve()
    async with faulty_proxy(FaultyProxy(service.port, always=[flip_byte])) as proxy:
        with pytest.raises(Corrupt):
            await stream(service, io.BytesIO(), port=proxy.port, archive="tar")


async def test_reader_of_a_tar_that_goes_away_is_not_a_damaged_archive(
    serve: Serve, make_job: MakeJob
) -> None:
    class Closed(io.BytesIO):
        def write(self, _: object) -> int:
            raise BrokenPipeError

    make_job(output=FILM)
    with pytest.raises(BrokenPipeError):
        await stream(await serve(), Closed(), archive="tar")


async def test_zip_is_written_if_it_is_not_verified(serve: Serve, make_job: MakeJob) -> None:
    make_two_outputs(make_job)
    service, sink = await serve(), io.BytesIO()
    with pytest.raises(DownloadError, match="verified"):
        await stream(service, sink, archive="zip")
    await stream(service, sink, archive="zip", verify=False)
    assert sink.getvalue().startswith(b"PK")
