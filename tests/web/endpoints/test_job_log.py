"""`GET /api/jobs/{id}/logs` against the running service: the whole log, a part of it, or its end."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from jobsvc.domain.access import JOBS_READ, OUTPUTS_READ
from tests.clients.raw_http import request
from tests.conftest import MakeJob, MakeToken, Serve, put
from tests.eventually import pause, until_equal

LOG = b"".join(b"frame %d of 250\n" % number for number in range(250))
LOGS = "/api/jobs/job-1/logs"


def append(folder: Path, data: bytes) -> None:
    with (folder / "render.log").open("ab") as log:
        log.write(data)


@pytest.mark.parametrize("status", ["queued", "rendering", "completed", "failed", "canceled"])
async def test_log_of_a_job_in_any_state_is_sent_whole_as_text(
    serve: Serve, make_job: MakeJob, status: str
) -> None:
    make_job(status=status, log=LOG)
    answer = await (await serve()).get(LOGS)
    assert (answer.status, answer.body) == (200, LOG)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["RateLimit-Policy"].startswith('"logs"')
    assert "Content-Disposition" not in answer.headers


async def test_bytes_that_are_not_text_are_sent_unchanged(serve: Serve, make_job: MakeJob) -> None:
    data = bytes(range(256)) * 2000
    make_job(log=data)
    assert (await (await serve()).get(LOGS)).body == data


async def test_head_has_the_fields_of_get(serve: Serve, make_job: MakeJob) -> None:
    make_job(log=LOG)
    service = await serve()
    for query in ("", "?tail=3"):
        got, head = await service.get(LOGS + query), await service.ask("HEAD", LOGS + query)
        assert (head.status, head.body, head.content_length) == (200, b"", len(got.body))
        assert head.headers["ETag"] == got.headers["ETag"]


async def test_ranges_and_conditions_apply_as_for_outputs(serve: Serve, make_job: MakeJob) -> None:
    make_job(log=LOG)
    service = await serve()
    part = await service.get(LOGS, ("Range", "bytes=10-19"))
    assert (part.status, part.body) == (206, LOG[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(LOG)}"
    end = await service.get(LOGS, ("Range", "bytes=-7"))
    assert (end.status, end.body) == (206, LOG[-7:])
    beyond = await service.get(LOGS, ("Range", f"bytes={len(LOG)}-"))
    assert (beyond.status, beyond.code) == (416, "range-not-satisfiable")
    assert f"outside the log, which has {len(LOG)} bytes" in beyond.json()["detail"]
    parts = await service.get(LOGS, ("Range", "bytes=0-9,2000-2009"))
    assert parts.status == 206
    assert LOG[0:10] in parts.body
    assert LOG[2000:2010] in parts.body
    known = ("If-None-Match", part.headers["ETag"])
    assert (await service.get(LOGS, known)).status == 304
    assert (await service.get(LOGS, ("If-Match", '"other"'))).code == "precondition-failed"


async def test_entity_tag_changes_as_the_log_grows(serve: Serve, make_job: MakeJob) -> None:
    folder = make_job(log=LOG)
    service = await serve()
    before = await service.get(LOGS)
    append(folder, b"more\n")
    after = await service.get(LOGS, ("If-None-Match", before.headers["ETag"]))
    assert (after.status, after.body) == (200, LOG + b"more\n")
    resumed = await service.get(LOGS, ("Range", f"bytes={len(LOG)}-"))
    assert (resumed.status, resumed.body) == (206, b"more\n")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [(0, b""), (1, b"frame 249 of 250\n"), (3, b"".join(LOG.splitlines(keepends=True)[-3:])), (10_000, LOG)],
)
async def test_tail_is_that_many_lines(serve: Serve, make_job: MakeJob, lines: int, expected: bytes) -> None:
    make_job(log=LOG)
    service = await serve()
    answer = await service.get(f"{LOGS}?tail={lines}")
    assert (answer.status, answer.body) == (200, expected)
    again = await service.get(f"{LOGS}?tail={lines}", ("If-None-Match", answer.headers["ETag"]))
    assert again.status == 304


async def test_range_of_a_tail_is_relative_to_the_tail(serve: Serve, make_job: MakeJob) -> None:
    make_job(log=b"one\ntwo\nthree\n")
    service = await serve()
    part = await service.get(f"{LOGS}?tail=2", ("Range", "bytes=4-"))
    assert (part.status, part.body, part.headers["Content-Range"]) == (206, b"three\n", "bytes 4-9/10")


async def test_two_tails_and_the_whole_log_have_different_tags(serve: Serve, make_job: MakeJob) -> None:
    make_job(log=LOG)
    service = await serve()
    tags = {
        (await service.get(LOGS + query)).headers["ETag"] for query in ("", "?tail=1", "?tail=2", "?tail=0")
    }
    assert len(tags) == 4


async def test_tail_of_a_log_of_gigabytes_is_its_last_lines(serve: Serve, make_job: MakeJob) -> None:
    folder = make_job(log=b"")
    with (folder / "render.log").open("r+b") as log:
        log.truncate(5 << 30)
    append(folder, b"\none\ntwo\n")
    assert (await (await serve()).get(f"{LOGS}?tail=2")).body == b"one\ntwo\n"


async def test_tail_is_bounded_in_bytes_whatever_its_lines(serve: Serve, make_job: MakeJob) -> None:
    make_job(log=b"x" * (3 << 20))
    answer = await (await serve()).get(f"{LOGS}?tail=2")
    assert answer.body == b"x" * (1 << 20)


@pytest.mark.parametrize(
    "query", ["tail=", "tail=-1", "tail=x", "tail=10001", "tail=1&tail=2", "tail=1.5", "tail=%D9%A3"]
)
async def test_invalid_tail_is_named(serve: Serve, make_job: MakeJob, query: str) -> None:
    make_job(log=LOG)
    answer = await (await serve()).get(f"{LOGS}?{query}")
    assert (answer.status, answer.code) == (400, "bad-request")
    assert answer.json()["detail"].startswith("tail")


async def test_missing_log_is_404(serve: Serve, make_job: MakeJob, jobs_root: Path) -> None:
    make_job()
    service = await serve()
    answer = await service.get(LOGS)
    assert (answer.status, answer.code) == (404, "log-missing")
    (jobs_root / "job-1" / "render.log").symlink_to("/etc/passwd")
    assert (await service.get(LOGS)).code == "log-missing"
    (jobs_root / "job-1" / "render.log").unlink()
    os.mkfifo(jobs_root / "job-1" / "render.log")
    assert (await service.get(LOGS)).code == "log-missing"


@pytest.mark.parametrize("path", ["../job-2/render.log", "/etc/passwd", "a/../../job-2/render.log"])
async def test_log_path_cannot_leave_the_job_directory(serve: Serve, make_job: MakeJob, path: str) -> None:
    make_job("job-2", owner="bob", log=b"bob's\n")
    make_job(status="rendering")
    make_job(logPath=path)
    assert (await (await serve()).get(LOGS)).code == "log-missing"


async def test_log_path_of_the_record_is_used(serve: Serve, make_job: MakeJob) -> None:
    folder = make_job(logPath="logs/blender.txt")
    put(folder / "logs" / "blender.txt", LOG)
    assert (await (await serve()).get(LOGS)).body == LOG


async def test_log_needs_the_scope_and_a_token_of_the_owner(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job(log=LOG)
    reader, outputs = make_token(scopes=[JOBS_READ]), make_token(scopes=[OUTPUTS_READ])
    bob = make_token("bob")
    service = await serve()
    assert (await service.get(LOGS, token=reader)).status == 200
    assert (await service.get(LOGS, token=outputs)).code == "insufficient-scope"
    assert (await service.get(LOGS, token=bob)).code == "job-not-found"
    make_job(owner="bob")
    assert (await service.get(LOGS)).code == "job-not-found"
    assert (await service.get(LOGS, token=bob)).body == LOG


LARGE = 64_000_000
"""Bytes; more than the buffers of any connection hold."""


async def test_announced_length_is_sent_while_the_log_grows(serve: Serve, make_job: MakeJob) -> None:
    folder = make_job(log=os.urandom(1 << 20) * (LARGE >> 20))
    whole = (folder / "render.log").read_bytes()
    service = await serve()
    async with service.connect(receive_buffer=4096) as link:
        link.send(request("GET", LOGS, token=service.token))
        _, status, headers = await link.head()
        append(folder, b"grown\n" * 1000)
        assert (status, int(headers["Content-Length"])) == (200, len(whole))
        assert await link.read(len(whole)) == whole
        assert (await link.ask("GET", "/healthz")).status == 200


@pytest.mark.parametrize("regrown", [0, LARGE + 1000])
async def test_log_truncated_during_the_response_breaks_the_connection_even_if_it_grew_again(
    serve: Serve, make_job: MakeJob, regrown: int
) -> None:
    folder = make_job(log=b"1" * LARGE)
    service = await serve()
    async with service.connect(receive_buffer=4096) as link:
        link.send(request("GET", LOGS, token=service.token))
        _, status, headers = await link.head()
        assert status == 200
        os.truncate(folder / "render.log", 0)
        append(folder, b"2" * regrown)
        assert len(await link.read(LARGE)) < int(headers["Content-Length"])
        assert await link.ended()


async def test_log_is_not_a_download_but_its_bytes_are_counted(serve: Serve, make_job: MakeJob) -> None:
    make_job(log=LOG)
    service = await serve(max_downloads=1, max_downloads_per_token=1)
    async with service.connect(receive_buffer=4096) as link:
        make_job("job-2", output=b"x" * LARGE)
        link.send(request("GET", "/api/jobs/job-2/download", token=service.token))
        assert (await link.head())[1] == 200
        assert (await service.get(LOGS)).body == LOG
    await until_equal(lambda: service.metric("jobsvc_log_bytes_total"), len(LOG))
    await service.wait_for_downloads(1)
    assert service.downloads()[0]["job"] == "job-2"


async def test_client_that_stops_reading_a_log_is_disconnected(serve: Serve, make_job: MakeJob) -> None:
    make_job(log=b"x" * LARGE)
    service = await serve(send_timeout=1)
    async with service.connect(receive_buffer=4096) as link:
        link.send(request("GET", LOGS, token=service.token))
        await link.head()
        async with asyncio.timeout(20):
            while not await service.metric("jobsvc_log_bytes_total"):  # counted at its end
                await pause()
        assert len(await link.read(LARGE)) < LARGE
        assert await link.ended()
