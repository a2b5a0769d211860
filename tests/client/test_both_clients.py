"""Client and AsyncClient have the same methods, and these do the same with the running service."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from io import BytesIO
from pathlib import Path
from typing import Final, Protocol

import pytest

from jobsvc.client import (
    AsyncClient,
    Client,
    ConnectionFailed,
    FileExists,
    Job,
    JobChanged,
    JobNotFound,
    JobRemoved,
    LogLines,
    NotReady,
    OutputMissing,
    Unauthorized,
    WaitTimeout,
)
from jobsvc.client.models import Progress
from jobsvc.client.protocol import retry
from tests.client.clients import ThreadedClient, wait_until_ready
from tests.clients.cutting_proxy import cutting_proxy
from tests.conftest import MakeJob, MakeToken, Serve, put
from tests.eventually import until
from tests.programs.service_runner import Service

FILM: Final = bytes(range(256)) * 1000

pytestmark = pytest.mark.usefixtures(
    "treat_new_files_as_stable"
)  # so that their digests are computed at once


class Connect(Protocol):
    """Creates a client, which is closed with the test."""

    async def __call__(self, service: Service, *, port: int | None = None, token: str = "") -> AsyncClient:
        """`port`: that of a proxy; `token` replaces that of the service."""


@pytest.fixture(params=[AsyncClient, ThreadedClient], ids=["asyncio", "blocking"])
async def connect(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connect]:
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.01)
    async with AsyncExitStack() as clients:

        async def create(service: Service, *, port: int | None = None, token: str = "") -> AsyncClient:
            await wait_until_ready(service)
            url = f"http://127.0.0.1:{service.port if port is None else port}"
            client: AsyncClient = await clients.enter_async_context(
                request.param(url, token or service.token, timeout=20)
            )
            return client

        yield create


def public_methods(of: type) -> dict[str, inspect.Signature]:
    functions = inspect.getmembers(of, inspect.isfunction)
    return {
        name: inspect.signature(function)
        for name, function in functions
        if not name.startswith("_") or name == "__init__"
    }


def test_clients_have_the_same_methods_with_the_same_parameters() -> None:
    blocking, asynchronous = public_methods(Client), public_methods(AsyncClient)
    assert blocking.keys() == asynchronous.keys()
    for name, signature in blocking.items():
        assert list(asynchronous[name].parameters.values()) == list(signature.parameters.values()), name


def test_methods_are_awaited_unless_they_are_iterated() -> None:
    for name, signature in public_methods(Client).items():
        iterated = "Iterator" in str(signature.return_annotation)
        of_async = getattr(AsyncClient, name)
        assert inspect.iscoroutinefunction(of_async) != (iterated or name == "__init__"), name
        assert ("AsyncGenerator" in str(inspect.signature(of_async).return_annotation)) == iterated, name


async def test_job_has_its_state(serve: Serve, make_job: MakeJob, connect: Connect) -> None:
    make_job(status="rendering", progress=42)
    client = await connect(await serve())
    job = await client.job("job-1")
    assert (job.id, job.status, job.progress, job.done) == ("job-1", "rendering", 42, False)
    assert job.etag is not None


async def test_fresh_job_is_read_from_disk(serve: Serve, make_job: MakeJob, connect: Connect) -> None:
    make_job()
    client = await connect(await serve(max_age=1000, poll_interval=1000))
    assert (await client.job("job-1")).status == "queued"
    make_job(status="failed")
    assert (await client.job("job-1", fresh=True)).status == "failed"


async def test_unknown_job_is_not_found(serve: Serve, connect: Connect) -> None:
    client = await connect(await serve())
    with pytest.raises(JobNotFound) as error:
        await client.job("unknown")
    assert (error.value.code, error.value.status) == ("job-not-found", 404)
    assert error.value.request_id


async def test_wrong_token_is_unauthorized(serve: Serve, connect: Connect) -> None:
    client = await connect(await serve(), token="jsvc_" + "x" * 43)
    with pytest.raises(Unauthorized):
        await client.token_info()


async def test_service_that_is_away_is_a_failed_connection(serve: Serve, connect: Connect) -> None:
    client = await connect(await serve(), port=1)
    with pytest.raises(ConnectionFailed, match="refused the connection"):
        await client.job("job-1")


async def test_jobs_are_listed_page_by_page(serve: Serve, make_job: MakeJob, connect: Connect) -> None:
    for number in range(210):
        make_job(f"job-{number}", status="queued" if number % 2 else "failed")
    client = await connect(await serve())
    assert len([job async for job in client.jobs()]) == 210
    assert {job.status async for job in client.jobs(status=["failed"])} == {"failed"}
    assert len([job async for job in client.jobs(limit=3)]) == 3


async def test_files_are_listed(serve: Serve, make_job: MakeJob, connect: Connect) -> None:
    make_job(output=FILM)
    client = await connect(await serve())
    (film,) = [file async for file in client.files("job-1")]
    assert (film.output, film.path, film.size) == ("main", "film.mp4", len(FILM))


async def test_files_of_an_unfinished_job_are_not_ready(
    serve: Serve, make_job: MakeJob, connect: Connect
) -> None:
    make_job()
    client = await connect(await serve())
    with pytest.raises(NotReady):
        [file async for file in client.files("job-1")]


async def test_wait_returns_the_final_job(serve: Serve, make_job: MakeJob, connect: Connect) -> None:
    make_job()
    client = await connect(await serve(poll_interval=0.05))
    seen: list[Job] = []
    waiting = asyncio.ensure_future(client.wait("job-1", on_change=seen.append, timeout=20))
    await until(lambda: seen)
    make_job(status="failed", error="no licence")
    (job,) = await waiting
    assert (job.status, job.error) == ("failed", "no licence")
    assert [job.status for job in seen] == ["queued", "failed"]


async def test_wait_for_several_jobs_returns_them_in_order(
    serve: Serve, make_job: MakeJob, connect: Connect
) -> None:
    for job_id in ("a", "b", "c"):
        make_job(job_id)
    client = await connect(await serve(poll_interval=0.05))
    seen: list[Job] = []
    waiting = asyncio.ensure_future(client.wait("c", "a", "b", on_change=seen.append, timeout=20))
    await until(lambda: len(seen) == 3)
    for job_id in ("a", "b", "c"):
        make_job(job_id, status="canceled")
    assert [(job.id, job.status) for job in await waiting] == [(name, "canceled") for name in ("c", "a", "b")]


async def test_wait_for_the_first_of_several_jobs(serve: Serve, make_job: MakeJob, connect: Connect) -> None:
    make_job("a")
    make_job("b", status="failed")
    client = await connect(await serve())
    jobs = await client.wait("a", "b", first_only=True, timeout=20)
    assert [job.done for job in jobs] == [False, True]


async def test_wait_ends_after_its_timeout(serve: Serve, make_job: MakeJob, connect: Connect) -> None:
    make_job()
    client = await connect(await serve())
    with pytest.raises(WaitTimeout) as error:
        await client.wait("job-1", timeout=2)
    assert [job.id for job in error.value.jobs] == ["job-1"]


async def test_watch_yields_current_states_and_changes(
    serve: Serve, make_job: MakeJob, connect: Connect
) -> None:
    folder = make_job()
    client = await connect(await serve(poll_interval=0.05))
    async with aclosing(client.watch()) as changes:
        first = await anext(changes)
        make_job(status="rendering")
        second = await anext(changes)
        (folder / "status.json").unlink()
        third = await anext(changes)
    assert isinstance(first, JobChanged)
    assert first.job.status == "queued"
    assert isinstance(second, JobChanged)
    assert second.job.status == "rendering"
    assert third == JobRemoved("job-1")


async def test_log_is_read(serve: Serve, make_job: MakeJob, connect: Connect) -> None:
    make_job(log=b"1\n2\n3\n")
    client = await connect(await serve())
    assert [part async for part in client.log("job-1", tail=2)] == [LogLines("2\n3\n")]


async def test_missing_log_is_an_error(serve: Serve, make_job: MakeJob, connect: Connect) -> None:
    make_job()
    client = await connect(await serve())
    with pytest.raises(OutputMissing):
        [part async for part in client.log("job-1")]


async def test_followed_log_over_cut_connections_equals_the_file(
    serve: Serve, make_job: MakeJob, connect: Connect
) -> None:
    text = "".join(f"line {number}\n" for number in range(2000))
    make_job(log=text.encode(), status="failed")
    service = await serve()
    async with cutting_proxy(service.port, 500, 5000, 9000) as proxy:
        client = await connect(service, port=proxy.port)
        parts = [part async for part in client.log("job-1", follow=True)]
        assert proxy.cut_count == 3
    assert all(isinstance(part, LogLines) for part in parts)
    assert "".join(part.text for part in parts if isinstance(part, LogLines)) == text


async def test_link_needs_no_token(serve: Serve, make_job: MakeJob, connect: Connect) -> None:
    make_job(output=FILM)
    service = await serve()
    link = await (await connect(service)).link("job-1", expires_in=60, file="main")
    base = f"http://127.0.0.1:{service.port}"
    assert link.url.startswith(f"{base}/api/jobs/job-1/")
    assert (await service.get(link.url.removeprefix(base), token=None)).body == FILM


async def test_token_is_described(serve: Serve, make_token: MakeToken, connect: Connect) -> None:
    token = await (await connect(await serve())).token_info()
    assert (token.owner, set(token.scopes)) == ("anna", {"jobs:read", "outputs:read"})


async def test_download_is_verified_and_tells_its_progress(
    serve: Serve, make_job: MakeJob, connect: Connect, tmp_path: Path
) -> None:
    make_job(output=FILM)
    client = await connect(await serve())
    progress: list[Progress] = []
    (film,) = await client.download("job-1", tmp_path / "film.mp4", progress=progress.append)
    assert (film.path.read_bytes(), film.size) == (FILM, len(FILM))
    assert film.sha256 is not None
    assert (progress[-1].received, progress[-1].phase) == (len(FILM), "done")


async def test_download_does_not_replace_a_file(
    serve: Serve, make_job: MakeJob, connect: Connect, tmp_path: Path
) -> None:
    make_job(output=FILM)
    client = await connect(await serve())
    target = tmp_path / "film.mp4"
    target.write_bytes(b"mine")
    with pytest.raises(FileExists):
        await client.download("job-1", target)
    assert target.read_bytes() == b"mine"


async def test_download_of_one_output_as_an_archive(
    serve: Serve, make_job: MakeJob, connect: Connect, tmp_path: Path
) -> None:
    put(make_job(output=FILM, outputs=[{"name": "notes", "path": "notes.txt"}]) / "notes.txt", b"notes")
    client = await connect(await serve())
    (archive,) = await client.download("job-1", tmp_path / "a.tar", output="notes", archive="tar")
    assert b"notes/notes.txt" in archive.path.read_bytes()


async def test_download_to_a_stream(
    serve: Serve, make_job: MakeJob, connect: Connect, tmp_path: Path
) -> None:
    make_job(output=FILM)
    client = await connect(await serve())
    target = BytesIO()
    (film,) = await client.download("job-1", target)
    assert target.getvalue() == FILM
    assert film.sha256 is not None


async def test_sync_yields_the_files_that_are_missing(
    serve: Serve, make_job: MakeJob, connect: Connect, tmp_path: Path
) -> None:
    make_job("a", output=FILM)
    make_job("b", output=b"b")
    client = await connect(await serve())
    target = tmp_path / "copy"
    first = [file async for file in client.sync(target)]
    assert {(file.job_id, file.size) for file in first} == {("a", len(FILM)), ("b", 1)}
    assert (target / "a" / "film.mp4").read_bytes() == FILM
    assert [file async for file in client.sync(target)] == []


async def test_error_of_a_progress_function_ends_the_download(
    serve: Serve, make_job: MakeJob, connect: Connect, tmp_path: Path
) -> None:
    make_job(output=FILM)
    client = await connect(await serve())

    def fail(progress: Progress) -> None:
        raise LookupError(progress.job_id)

    with pytest.raises(LookupError, match="job-1"):
        await client.download("job-1", tmp_path / "film.mp4", progress=fail)


async def test_requests_at_the_same_time_do_not_disturb_each_other(
    serve: Serve, make_job: MakeJob, connect: Connect
) -> None:
    for number in range(20):
        make_job(f"job-{number}", progress=number)
    client = await connect(await serve())
    jobs = await asyncio.gather(*(client.job(f"job-{number}") for number in range(20)))
    assert [job.progress for job in jobs] == list(range(20))
