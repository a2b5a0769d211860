"""Requests that need no wait are answered without a task, with the same response as on the general path."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

from jobsvc.index.catalogue.shared_reads import SharedReads
from jobsvc.observe.download_log import DownloadLog
from jobsvc.service import serve as serve_settings
from jobsvc.storage.nonblocking.cached_outputs import CachedOutputs
from jobsvc.web.connection.fast_connection import FastConnection
from jobsvc.web.endpoints.job_status import JobStatusEndpoint
from jobsvc.web.outputs.download import DownloadEndpoint
from tests.checks.fast_path import comparable, reading_paused, send_until_blocked, wait_until_idle, warm_up
from tests.clients.raw_http import Answer, Connection, IncompleteAnswer, request
from tests.conftest import MakeJob, Serve, put
from tests.eventually import until, until_equal, wait_until
from tests.programs import service_runner
from tests.programs.service_runner import Service

FILM: Final = bytes(range(256)) * 4096
STATUS: Final = "/api/jobs/job-1"
DOWNLOAD: Final = f"{STATUS}/download"
PART: Final = 64 * 1024
FILE: Final = f"{STATUS}/files/main/film.mp4"
RANGE: Final = (("Range", f"bytes=1000-{1000 + PART - 1}"),)
WAYS: Final = pytest.mark.parametrize(("path", "fields"), [(STATUS, ()), (DOWNLOAD, RANGE)])


@pytest.fixture
async def service(
    treat_new_files_as_stable: None, serve: Serve, make_job: MakeJob, jobs_root: Any
) -> Service:
    make_job(output=FILM)
    if CachedOutputs.of(jobs_root) is None:
        pytest.skip("opening may block on this file system")
    return await serve(limit_auth_failures="3/minute")


@pytest.fixture
async def impatient(service: Service, serve: Serve) -> Service:
    """A second service, which soon disconnects clients that do not read."""
    return await serve(send_timeout=2)


class Tasks:
    """Counts the requests that got a task."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
        self.made += coroutine.__qualname__.endswith("._handle_request")
        return asyncio.Task(coroutine, loop=loop, **more)


@pytest.fixture
async def tasks(service: Service) -> AsyncIterator[Tasks]:
    loop = asyncio.get_running_loop()
    counter = Tasks()
    loop.set_task_factory(counter)
    yield counter
    loop.set_task_factory(None)


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("path", "fields"), [(STATUS, ()), (DOWNLOAD, RANGE), (FILE, RANGE), (f"{STATUS}/files/main", RANGE)]
)
async def test_fast_path_starts_no_task_and_sends_the_same_response(
    service: Service, tasks: Tasks, path: str, fields: tuple[tuple[str, str], ...]
) -> None:
    async with service.connect() as link:
        before, at_once = 0, await link.ask("GET", path, fields, token=service.token)
        while tasks.made > before:
            before, at_once = tasks.made, await link.ask("GET", path, fields, token=service.token)
    async with service.connect() as link:
        closing = (*fields, ("Connection", "close"))
        other = await link.ask("GET", path, closing, token=service.token)
        assert tasks.made == before + 1
    assert other.headers.pop("Connection") == "close"
    assert comparable(at_once) == comparable(other)


@pytest.mark.parametrize(
    "path",
    [
        *("main", "main/film.mp4", "main/other.mp4", "main//film.mp4", "main/./film.mp4", "nothing"),
        *(
            "main/../film.mp4",
            "main/%66ilm.mp4",
            "main/film.mp4?version=x",
            "main/film.mp4?version=" + "A" * 22,
        ),
        *("main/film.mp4?", "main?wait=1", "frames/frame.0001.exr", "frames/frame.0002.exr", "frames"),
    ],
)
@pytest.mark.parametrize("fields", [(), RANGE, (("Range", "bytes=9999999-"),), (("If-None-Match", "*"),)])
async def test_file_is_answered_alike_with_and_without_the_fast_path(
    serve: Serve, make_job: MakeJob, path: str, fields: tuple[tuple[str, str], ...]
) -> None:
    folder = make_job(output=FILM)
    put(folder / "frame.0001.exr", b"a frame")
    make_job(output=FILM, outputs=[{"name": "frames", "path": "frame.####.exr"}])
    service = await serve()
    async with service.connect() as link:
        answers = [
            await link.ask("GET", f"{STATUS}/files/{path}", (*fields, *more), token=service.token)
            for more in ((), (), (), (("Expect", "100-continue"),))
        ]
    for answer in answers:
        assert without_request_id(answer) == without_request_id(answers[0])


def without_request_id(answer: Answer) -> tuple[int, object, str | None]:
    """Return the status, the body and the entity tag; of a problem document without the request's id."""
    body: object = answer.body
    if answer.headers.get("Content-Type") == "application/problem+json":
        body = {name: value for name, value in answer.json().items() if name != "requestId"}
    return answer.status, body, answer.headers.get("ETag")


@pytest.mark.both_loops
@WAYS
async def test_without_the_fast_path_each_request_takes_a_task_and_has_the_same_response(
    treat_new_files_as_stable: None,
    serve: Serve,
    make_job: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    fields: tuple[tuple[str, str], ...],
) -> None:
    make_job(output=FILM)
    fast = await serve()
    with monkeypatch.context() as switched:
        switched.setattr(service_runner, "serve", partial(serve_settings, fast_path=False))
        plain = await serve()
    async with fast.connect() as link, plain.connect() as other:
        await warm_up(link, fast, path, fields)
        await warm_up(other, plain, path, fields)
        asyncio.get_running_loop().set_task_factory(tasks := Tasks())
        answers = [await other.ask("GET", path, fields, token=plain.token) for _ in range(3)]
        asyncio.get_running_loop().set_task_factory(None)
        assert tasks.made == len(answers)
        one = comparable(await link.ask("GET", path, fields, token=fast.token))
        assert [comparable(answer) for answer in answers] == [one] * 3


def test_the_fast_path_can_be_switched_off_by_a_variable(
    tmp_path: Path, jobs_root: Path, state_dir: Path
) -> None:
    stderr_file = tmp_path / "stderr"
    arguments = ("serve", jobs_root, "--port", "0", "--state-dir", state_dir)
    process = service_runner.start_command(stderr_file, *arguments, JOBSVC_FAST_PATH="off")
    try:
        wait_until(lambda: b'"serving"' in stderr_file.read_bytes(), 20)
    finally:
        service_runner.stop_process(process)
    (line,) = service_runner.logged(stderr_file, "fast-path-off")
    assert line["variable"] == "JOBSVC_FAST_PATH"
    assert service_runner.logged(stderr_file, "unknown-variable") == []


@pytest.mark.both_loops
@WAYS
async def test_client_that_half_closes_still_gets_its_response(
    service: Service, path: str, fields: tuple[tuple[str, str], ...]
) -> None:
    async with service.connect() as link:
        await warm_up(link, service, path)
        link.send(request("GET", path, fields, token=service.token))
        link.writer.write_eof()
        assert (await link.answer()).status in {200, 206}
        assert await link.ended()


@pytest.mark.both_loops
@WAYS
async def test_pipelined_requests_in_one_packet_are_all_answered(
    service: Service, path: str, fields: tuple[tuple[str, str], ...]
) -> None:
    async with service.connect() as link:
        await warm_up(link, service, path)
        link.send(request("GET", path, fields, token=service.token) * 20)
        for _ in range(20):
            assert (await link.answer()).status in {200, 206}


@pytest.mark.both_loops
async def test_exactly_as_many_requests_pass_as_the_limit_allows(
    treat_new_files_as_stable: None, serve: Serve, make_job: MakeJob
) -> None:
    make_job(output=FILM)
    service = await serve(limit_status="5/minute", limit_download="5/minute")
    for path in (STATUS, DOWNLOAD):
        async with service.connect() as link:
            answers = [await link.ask("GET", path, RANGE, token=service.token) for _ in range(7)]
        assert [answer.status // 100 for answer in answers] == [2] * 5 + [4] * 2
        assert [answer.headers["RateLimit"].split(";")[1] for answer in answers[:5]] == [
            f"r={left}" for left in (4, 3, 2, 1, 0)
        ]
        assert answers[-1].code == "rate-limited"


async def test_remaining_budget_is_reported_correctly_for_304_responses(
    treat_new_files_as_stable: None, serve: Serve, make_job: MakeJob
) -> None:
    make_job()
    service = await serve(limit_status="9/hour")
    async with service.connect() as link:
        known = ("If-None-Match", (await link.ask("GET", STATUS, token=service.token)).headers["ETag"])
        answers = [await link.ask("GET", STATUS, [known], token=service.token) for _ in range(20)]
    assert {answer.status for answer in answers} == {304}
    left = [int(answer.headers["RateLimit"].split(";")[1].removeprefix("r=")) for answer in answers]
    assert left == [8] * 9 + [7] * 10 + [6]


async def test_wrong_token_counts_once(service: Service) -> None:
    async with service.connect() as link:
        await warm_up(link, service, STATUS)
        answers = [await link.ask("GET", STATUS, token="jsvc_" + "w" * 43) for _ in range(4)]
        assert [answer.code for answer in answers] == ["unauthorized"] * 3 + ["rate-limited"]
        assert (await link.ask("GET", STATUS, token=service.token)).status == 200


async def test_job_replaced_between_two_requests_is_served_in_its_new_version(
    service: Service, make_job: MakeJob
) -> None:
    async with service.connect() as link:
        await warm_up(link, service, DOWNLOAD)
        for fill in (b"a", b"b"):
            make_job(output=fill * 1000)
            assert (await link.ask("GET", DOWNLOAD, token=service.token)).body == fill * 1000


@pytest.mark.both_loops
async def test_unchanged_record_is_verified_without_a_thread(
    treat_new_files_as_stable: None,
    serve: Serve,
    make_job: MakeJob,
    jobs_root: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The record is not watched and older than max_age. Only a changed record is read, in a thread."""
    make_job(output=FILM, attempt=1)
    if CachedOutputs.of(jobs_root) is None:
        pytest.skip("opening may block on this file system")
    service = await serve(watch="poll", max_age=0.001)
    read, reads = SharedReads._start, []

    def counted(self: SharedReads, job_id: str, deadline: float) -> Any:
        reads.append(job_id)
        return read(self, job_id, deadline)

    async with service.connect() as link:
        await warm_up(link, service, STATUS)
        monkeypatch.setattr(SharedReads, "_start", counted)
        for _ in range(3):
            answer = await link.ask("GET", STATUS, token=service.token)
            assert (answer.json()["attempt"], answer.headers["Age"]) == (1, "0")
        assert not reads
        make_job(output=FILM, attempt=2)
        assert (await link.ask("GET", STATUS, token=service.token)).json()["attempt"] == 2
        assert reads == ["job-1"]


async def test_output_too_large_for_the_fast_path_is_opened_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, openings = CachedOutputs.open_output, []

    def counted(self: CachedOutputs, known: Any) -> Any:
        openings.append(known.job.id)
        return opened(self, known)

    async with service.connect() as link:
        await warm_up(link, service, STATUS)
        monkeypatch.setattr(CachedOutputs, "open_output", counted)
        answer = await link.ask("GET", DOWNLOAD, token=service.token)
        assert answer.body == FILM
        assert openings == ["job-1"]


@pytest.mark.both_loops
async def test_client_that_reads_late_holds_a_slot_until_it_has_read(service: Service) -> None:
    async with service.connect(receive_buffer=4096) as link:
        await warm_up(link, service, STATUS)
        count = await _fill_send_buffer(link, service)
        for number in range(count):
            assert (await link.answer()).body == FILM[number : number + PART]
        lines = await service.wait_for_downloads(count)
        assert {(line["outcome"], line["bytesSent"]) for line in lines} == {("complete", PART)}
        await until_equal(lambda: service.metric("jobsvc_downloads_in_progress"), 0)


@pytest.mark.both_loops
async def test_client_that_never_reads_is_disconnected_and_logged(impatient: Service) -> None:
    service = impatient
    async with service.connect(receive_buffer=4096) as link:
        await warm_up(link, service, STATUS)
        await _fill_send_buffer(link, service)
        await until(lambda: any(line["outcome"] == "client-gone" for line in service.downloads()), 20)
        await until_equal(lambda: service.metric("jobsvc_downloads_in_progress"), 0)


@pytest.mark.both_loops
async def test_pipelined_requests_wait_until_the_client_reads(
    treat_new_files_as_stable: None, serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobsvc.web.ratelimit.download_slots.BRIEF_WAIT_S", 10.0)
    make_job(output=FILM)
    service = await serve(max_downloads_per_token=1)
    async with service.connect(receive_buffer=4096) as link:
        await warm_up(link, service, STATUS)
        count = await _fill_send_buffer(link, service) + 3
        link.send(request("GET", DOWNLOAD, RANGE, token=service.token) * 3)
        link.writer.write_eof()
        assert {(await link.answer()).status for _ in range(count)} == {206}
        assert await link.ended()


@pytest.mark.both_loops
async def test_no_further_download_starts_for_a_client_that_never_reads(impatient: Service) -> None:
    service = impatient
    async with service.connect(receive_buffer=4096) as link:
        await warm_up(link, service, STATUS)
        await _fill_send_buffer(link, service, more=3)
        await until(lambda: any(line["outcome"] == "client-gone" for line in service.downloads()), 20)
        outcomes = [line["outcome"] for line in service.downloads()]
        assert outcomes == ["complete"] * (len(outcomes) - 1) + ["client-gone"]


@pytest.mark.both_loops
@pytest.mark.parametrize("path", [STATUS, "/api/openapi.json"])
async def test_request_received_before_the_connection_closes_is_answered(
    service: Service, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive, ending = FastConnection.data_received, False

    def receive_then_close(connection: FastConnection, data: bytes) -> None:
        receive(connection, data)
        if ending:
            connection.close()

    monkeypatch.setattr(FastConnection, "data_received", receive_then_close)
    async with service.connect() as link:
        await warm_up(link, service, path)
        await wait_until_idle(service)
        ending = True
        assert (await link.ask("GET", path, token=service.token)).status == 200


@pytest.mark.both_loops
async def test_nothing_more_is_sent_after_the_client_disconnected(service: Service) -> None:
    async with service.connect() as link:
        await warm_up(link, service, STATUS)
        link.send(request("GET", DOWNLOAD, RANGE, token=service.token) * 20)
        await link.reset()
    await wait_until_idle(service)
    assert await service.metric('jobsvc_downloads_total{outcome="complete"}') <= 1


@pytest.mark.both_loops
@WAYS
async def test_exception_closes_the_connection_and_is_logged(
    serve: Serve, path: str, fields: tuple[tuple[str, str], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JobStatusEndpoint, "prepare_fast", _raise_error)
    monkeypatch.setattr(DownloadEndpoint, "prepare_fast", _raise_error)
    service = await serve()
    async with service.connect() as link:
        assert (await link.ask("GET", "/healthz")).status == 200
        await wait_until_idle(service)
        with capture_logs() as logged:
            link.send(request("GET", path, fields, token=service.token))
            assert await link.ended()
    assert [line["event"] for line in logged if line["log_level"] == "error"] == ["request-failed"]
    assert await service.answer_count(500) == 1


@pytest.mark.both_loops
async def test_exception_after_a_response_closes_the_connection_without_a_second_response(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service.connect() as link:
        await warm_up(link, service, STATUS)
        await wait_until_idle(service)
        with monkeypatch.context() as broken, capture_logs() as logged:
            broken.setattr(DownloadLog, "write", _raise_error)
            link.send(request("GET", DOWNLOAD, RANGE, token=service.token))
            assert (await link.answer()).body == FILM[1000 : 1000 + PART]
            assert await link.ended()
    assert [line["event"] for line in logged if line["log_level"] == "error"] == ["request-failed"]
    assert await service.answer_count(500) == 1


@pytest.mark.both_loops
async def test_exception_in_the_parser_closes_the_connection(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[object] = []
    async with service.connect() as link:
        await warm_up(link, service, STATUS)
        with monkeypatch.context() as broken:
            broken.setattr(FastConnection, "_validate_new", _raise_error)
            broken.setattr(
                FastConnection, "log_exception", lambda *_what, **more: logged.append(more["exc_info"])
            )
            link.send(request("GET", STATUS, [("X-Other", "fields")], token=service.token))
            with pytest.raises(IncompleteAnswer):
                await link.answer()
    assert [type(fault) for fault in logged] == [ZeroDivisionError]


def _raise_error(*_given: object, **_more: object) -> None:
    raise ZeroDivisionError


async def _fill_send_buffer(link: Connection, service: Service, *, more: int = 0) -> int:
    """Request one range after the other and read nothing, until the service has to wait for the client.

    Then send `more` further requests, still reading nothing.
    """

    def part(number: int) -> bytes:
        fields = (("Range", f"bytes={number}-{number + PART - 1}"),)
        return request("GET", DOWNLOAD, fields, token=service.token)

    with reading_paused(link):
        count = await send_until_blocked(link, service, part)
        link.send(request("GET", DOWNLOAD, RANGE, token=service.token) * more)
        for _ in range(more):  # after each of these responses the service has read more
            await service.metric("jobsvc_downloads_in_progress")
    return count
