"""`GET /api/jobs/{id}` against the running service, from the farm's files to the bytes on the wire."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from jobsvc.domain.access import ADMIN, JOBS_READ, OUTPUTS_READ
from tests.clients.raw_http import Answer, request
from tests.conftest import MakeJob, MakeToken, Serve
from tests.eventually import pause
from tests.programs.service_runner import Service

NOWHERE = "/api/jobs/no-such-job"
ASKED_OF_A_JOB = [
    ("GET", ""),
    ("HEAD", ""),
    ("GET", "/download"),
    ("HEAD", "/download"),
    ("GET", "/logs"),
    ("HEAD", "/logs"),
    ("GET", "/logs?follow=1"),
    ("GET", "?wait=20"),
    ("GET", "/events"),
    ("HEAD", "/events"),
    ("POST", "/download-links"),
]


def essence(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """Return what identifies a response, without what differs for any two requests."""
    own = answer.headers["X-Request-Id"]
    passing = {"x-request-id", "date", "ratelimit"}
    headers = {name.lower(): value for name, value in answer.headers.items() if name.lower() not in passing}
    return answer.status, headers, answer.body.replace(own.encode(), b"REQUEST")


async def shown(service: Service, job_id: str = "job-1") -> dict[str, Any]:
    answer = await service.get(f"/api/jobs/{job_id}")
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"].partition(";")[0] == "application/json"
    document: dict[str, Any] = answer.json()
    return document


async def shows(service: Service, deadline: float, **fields: object) -> float:
    """Wait until job-1 has these fields, and return the seconds that it took."""
    started_at = time.monotonic()
    while not fields.items() <= (await shown(service)).items():
        assert time.monotonic() - started_at < deadline, f"{fields} not shown within {deadline} s"
        await pause()
    return time.monotonic() - started_at


def take_away(root: Path) -> None:
    """Rename the root, as when a share is unmounted."""
    root.rename(root.with_name("away"))


def bring_back(root: Path) -> None:
    root.with_name("away").rename(root)


async def test_unfinished_job_has_the_documented_fields(serve: Serve, make_job: MakeJob) -> None:
    times: dict[str, Any] = {
        "createdAt": "2026-01-02T03:04:05Z",
        "updatedAt": "2026-01-02T03:05:05.5Z",
        "startedAt": "2026-01-02T03:04:30+01:00",
    }
    paths: dict[str, Any] = {"projectPath": "/p/x.aep", "outputPath": "output/film.mp4"}
    state: dict[str, Any] = {"progress": 41.5, "phase": "render", "framesDone": 83, "framesTotal": 200}
    rest: dict[str, Any] = {"attempt": 2, "metadata": {"shot": ["a", {"b": 1}]}}
    make_job(status="rendering", id="job-1", surprise="ignored", **times, **paths, **state, **rest)
    assert await shown(await serve()) == {
        "id": "job-1",
        "status": "rendering",
        "done": False,
        **times,
        **paths,
        **state,
        **rest,
    }


async def test_minimal_record_is_a_job_with_the_times_of_its_file(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    document = await shown(await serve())
    assert document.pop("createdAt") <= document.pop("updatedAt")
    assert document == {
        "id": "job-1",
        "status": "queued",
        "done": False,
        "progress": 0,
        "projectPath": None,
        "outputPath": None,
    }


async def test_completed_job_has_a_download_url_only_if_its_output_exists(
    serve: Serve, make_job: MakeJob
) -> None:
    folder = make_job(output=b"film", completedAt="2026-01-02T03:04:05Z", progress=3)
    service = await serve(max_age=0)
    document = await shown(service)
    assert (document["done"], document["progress"]) == (True, 100)
    assert document["completedAt"] == "2026-01-02T03:04:05Z"
    assert re.fullmatch(r"/api/jobs/job-1/download\?version=[\w-]{22}", document["downloadUrl"])
    download = await service.get(document["downloadUrl"])
    assert download.body == b"film"
    assert download.headers["ETag"] == f'"{document["downloadUrl"].rpartition("=")[2]}"'
    (folder / "output" / "film.mp4").unlink()
    async with asyncio.timeout(10):  # an output that existed counts as being replaced for 2 s
        while "downloadUrl" in await shown(service):
            await pause()


async def test_unfinished_job_has_no_download_url(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=b"half a film", status="rendering")
    assert "downloadUrl" not in await shown(await serve())


async def test_failed_job_has_its_error_and_the_end_of_its_log(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="failed", error="out of memory", log=b"begin\nframe 3: \xff\nout of memory\n")
    document = await shown(await serve())
    assert (document["done"], document["error"]) == (True, "out of memory")
    assert document["logs"] == "begin\nframe 3: \ufffd\nout of memory\n"


@pytest.mark.parametrize("status", ["queued", "rendering", "completed", "canceled"])
async def test_only_a_failed_job_has_a_log_tail(serve: Serve, make_job: MakeJob, status: str) -> None:
    make_job(status=status, log=b"a line\n")
    assert "logs" not in await shown(await serve())


async def test_log_tail_is_whole_lines_of_the_last_64_kib(serve: Serve, make_job: MakeJob) -> None:
    lines = [f"frame {number:06}: ✓ {'·' * (number % 90)}\n" for number in range(5000)]
    make_job(status="failed", log="".join(lines).encode())
    logs = (await shown(await serve()))["logs"]
    assert 60_000 < len(logs.encode()) <= 65_536
    assert "".join(lines).endswith("\n" + logs)


async def test_failed_job_without_a_readable_log_has_no_log_tail(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = make_job(status="failed")
    service = await serve()
    assert "logs" not in await shown(service)
    (folder / "render.log").symlink_to(tmp_path / "secret.txt")
    assert "logs" not in await shown(service)
    make_job("climbs", status="failed", logPath="../../secret.txt")
    assert "logs" not in await shown(service, "climbs")
    make_job("named", status="failed", logPath="logs/a.txt", log=b"named\n")
    assert (await shown(service, "named"))["logs"] == "named\n"


async def test_source_status_keeps_the_word_of_the_farm(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="In_Progress")
    document = await shown(await serve())
    assert (document["status"], document["sourceStatus"]) == ("rendering", "In_Progress")


@pytest.mark.parametrize("status", ["queued", "rendering", "completed", "failed", "canceled"])
async def test_unfinished_job_has_retry_after_and_a_final_one_has_not(
    serve: Serve, make_job: MakeJob, status: str
) -> None:
    make_job(status=status)
    service = await serve()
    answer = await service.get("/api/jobs/job-1")
    known = ("If-None-Match", answer.headers["ETag"])
    for one in (answer, await service.get("/api/jobs/job-1", known)):
        assert one.headers.get("Retry-After") == ("2" if status in {"queued", "rendering"} else None)


async def test_unchanged_job_is_304_without_a_body(serve: Serve, make_job: MakeJob) -> None:
    make_job(progress=1)
    service = await serve(max_age=0)
    first = await service.get("/api/jobs/job-1")
    tag = first.headers["ETag"]
    async with service.connect() as link:
        for field in (tag, f'"other", {tag}', f"W/{tag}", "*", f'"a",,{tag},'):
            again = await link.ask("GET", "/api/jobs/job-1", [("If-None-Match", field)], token=service.token)
            assert (again.status, again.body) == (304, b""), field
            assert again.headers["ETag"] == tag
            assert again.headers["Cache-Control"] == "private, no-cache"
        lines = [("If-None-Match", '"other"'), ("If-None-Match", tag)]
        assert (await link.ask("GET", "/api/jobs/job-1", lines, token=service.token)).status == 304
        assert (await link.ask("HEAD", "/api/jobs/job-1", lines, token=service.token)).status == 304
        for field in ('"other"', '"*"', tag[:-1], tag[1:-1]):
            again = await link.ask("GET", "/api/jobs/job-1", [("If-None-Match", field)], token=service.token)
            assert (again.status, again.body) == (200, first.body), field
        make_job(progress=2)
        changed = await link.ask("GET", "/api/jobs/job-1", [("If-None-Match", tag)], token=service.token)
    assert (changed.status, changed.json()["progress"]) == (200, 2)
    assert changed.headers["ETag"] != tag


async def test_failed_precondition_is_412(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    service = await serve()
    failed = await service.get("/api/jobs/job-1", ("If-Match", '"another"'))
    assert (failed.status, failed.code) == (412, "precondition-failed")
    tag = (await service.get("/api/jobs/job-1")).headers["ETag"]
    assert (await service.get("/api/jobs/job-1", ("If-Match", tag))).status == 200


async def test_entity_tag_survives_a_restart(serve: Serve, make_job: MakeJob) -> None:
    make_job(progress=12)
    tags = {(await (await serve()).get("/api/jobs/job-1")).headers["ETag"] for _ in range(2)}
    assert len(tags) == 1


async def test_head_has_the_fields_of_get_and_no_body(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    service = await serve()
    async with service.connect() as link:
        for target in ("/api/jobs/job-1", NOWHERE, "/healthz", "/api/openapi.json"):
            got = await link.ask("GET", target, token=service.token)
            head = await link.ask("HEAD", target, token=service.token)
            assert essence(head)[:2] == essence(got)[:2]
            assert (head.body, got.body != b"") == (b"", True)


async def test_every_response_has_a_request_id_and_a_valid_one_of_the_client_is_kept(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job()
    service = await serve()
    ids = [
        (await service.get(target)).headers["X-Request-Id"]
        for target in ("/api/jobs/job-1", NOWHERE, "/nowhere", "/healthz")
    ]
    assert len(set(ids)) == len(ids)
    kept = await service.get("/nowhere", ("X-Request-Id", "proxy-7.a_b"))
    assert kept.json()["requestId"] == kept.headers["X-Request-Id"] == "proxy-7.a_b"
    for odd in ("a b", "é", "x" * 65, "jsvc_abc", ""):
        assert (await service.get("/nowhere", ("X-Request-Id", odd))).headers["X-Request-Id"] not in {odd, ""}


@pytest.mark.parametrize("watch", ["events", "poll"])
async def test_new_job_is_found_immediately(serve: Serve, make_job: MakeJob, watch: str) -> None:
    service = await serve(watch=watch, poll_interval=3600, max_age=3600)
    for number in range(20):
        assert (await service.get(f"/api/jobs/new-{number}")).code == "job-not-found"
        make_job(f"new-{number}", progress=number)
        assert (await shown(service, f"new-{number}"))["progress"] == number


@pytest.mark.alone
@pytest.mark.parametrize("watch", ["events", "poll"])
async def test_replaced_record_is_served_within_a_second(serve: Serve, make_job: MakeJob, watch: str) -> None:
    make_job()
    service = await serve(watch=watch)
    await shown(service)
    for progress in (10, 20, 30):
        make_job(status="rendering", progress=progress)
        await shows(service, 1.2, progress=progress)
    make_job(output=b"film")
    await shows(service, 1.2, status="completed")
    assert "downloadUrl" in await shown(service)


@pytest.mark.alone
async def test_change_is_served_immediately_with_events(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    service = await serve(watch="events", poll_interval=3600, max_age=3600)
    await shown(service)
    make_job(progress=1)
    await shows(service, 10, progress=1)  # the watch may not have been active yet
    for progress in range(2, 7):
        make_job(progress=progress)
        await shows(service, 1, progress=progress)


async def test_no_cache_reads_the_disk_before_the_response(serve: Serve, make_job: MakeJob) -> None:
    make_job(progress=1)
    service = await serve(poll_interval=3600, max_age=3600)
    assert (await shown(service))["progress"] == 1
    make_job(progress=2)
    old = await service.get("/api/jobs/job-1")
    assert (old.json()["progress"], old.headers["Age"].isdecimal()) == (1, True)
    fresh = await service.get("/api/jobs/job-1", ("Cache-Control", "max-age=0, No-Cache"))
    assert (fresh.json()["progress"], fresh.headers["Age"]) == (2, "0")


@pytest.mark.alone
async def test_removed_job_is_unknown_within_a_second(serve: Serve, make_job: MakeJob) -> None:
    folder = make_job()
    make_job("stays")
    service = await serve()
    await shown(service)
    shutil.rmtree(folder)
    started_at = time.monotonic()
    while (answer := await service.get("/api/jobs/job-1")).status == 200:
        assert time.monotonic() - started_at < 1.2
        await pause()
    assert answer.code == "job-not-found"


async def test_job_of_another_owner_gets_the_same_bytes_as_an_unknown_job(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job("of-anna-1", output=b"film", error="x")
    make_job("of-anna-2", status="failed", log=b"a log\n")
    (make_job("of-anna-3") / "status.json").write_bytes(b"{")
    stranger = make_token("bert")
    service = await serve()
    conditions = [(), (("If-None-Match", "*"),), (("If-Match", '"x"'),), (("Range", "bytes=0-0"),)]
    async with service.connect() as link:
        for fields in conditions:
            for method, tail in ASKED_OF_A_JOB:
                unknown = await link.ask(method, NOWHERE + tail, fields, token=stranger)
                assert unknown.status == 404
                for number in (1, 2, 3):
                    target = f"/api/jobs/of-anna-{number}{tail}"
                    foreign = await link.ask(method, target, fields, token=stranger)
                    assert essence(foreign) == essence(unknown), (method, target, fields)
    assert service.downloads() == []


async def test_admin_sees_jobs_of_all_owners(serve: Serve, make_job: MakeJob, make_token: MakeToken) -> None:
    make_job("of-anna", output=b"film")
    admin = make_token("root", [ADMIN])
    service = await serve()
    assert (await service.get("/api/jobs/of-anna", token=admin)).json()["id"] == "of-anna"
    assert (await service.download("of-anna", token=admin)).body == b"film"


async def test_job_that_changes_its_owner_is_visible_only_to_the_new_owner(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job(output=b"film")
    bert = make_token("bert")
    service = await serve(max_age=0)
    assert (await service.get("/api/jobs/job-1", token=bert)).status == 404
    make_job(output=b"film", owner="bert")
    assert (await service.get("/api/jobs/job-1", token=bert)).status == 200
    assert (await service.get("/api/jobs/job-1")).code == "job-not-found"
    assert (await service.download("job-1")).code == "job-not-found"


async def test_job_whose_owner_change_was_not_indexed_is_unknown_in_any_state(
    serve: Serve, make_job: MakeJob
) -> None:
    records: list[dict[str, Any]] = [
        {"output": b"film"},
        {"status": "completed", "outputPath": "output/not-there.mp4"},
        {"status": "failed", "error": "a secret"},
        {"status": "rendering", "progress": 3},
    ]
    service = await serve(max_age=3600, poll_interval=3600)
    unknown = await service.get(f"{NOWHERE}/download")
    for number, record in enumerate(records):
        make_job(f"job-{number}", output=b"film of anna's")
        assert (await service.download(f"job-{number}")).status == 200
        make_job(f"job-{number}", owner="bert", **record)
        assert essence(await service.download(f"job-{number}")) == essence(unknown), record


async def test_missing_scope_is_403_and_named(serve: Serve, make_job: MakeJob, make_token: MakeToken) -> None:
    make_job(output=b"film")
    reader, fetcher = make_token(scopes=[JOBS_READ]), make_token(scopes=[OUTPUTS_READ])
    service = await serve()
    for target, token, scope in (
        ("/api/jobs/job-1", fetcher, "jobs:read"),
        (NOWHERE, fetcher, "jobs:read"),
        ("/api/jobs/job-1/download", reader, "outputs:read"),
        (f"{NOWHERE}/download", reader, "outputs:read"),
    ):
        answer = await service.get(target, token=token)
        assert (answer.status, answer.code) == (403, "insufficient-scope")
        challenge = answer.headers["WWW-Authenticate"]
        assert challenge == f'Bearer realm="jobsvc", error="insufficient_scope", scope="{scope}"'
    assert (await service.get("/api/jobs/job-1", token=reader)).status == 200
    assert (await service.download("job-1", token=fetcher)).status == 200


ODD_IDS = [
    ".",
    "..",
    "...",
    "%2e",
    "%2e%2e",
    "%2E%2E%2Fjob-1",
    "..%2fjob-1",
    "job-1%2f",
    "job-1%2fstatus.json",
    "job-1%5c",
    "job-1%00",
    "%00",
    "job-1%0d%0aX-Evil:%201",
    "%ff%fe",
    "%c0%ae%c0%ae",
    "%",
    "%zz",
    "%25",
    "%252e%252e",
    "%u002e",
    "job-1;a=b",
    "job-1%3fa",
    ".hidden",
    "-job",
    "_job",
    "~job-1",
    "job 1".replace(" ", "%20"),
    "job-1%20",
    "+",
    "*",
    "{id}",
    "%7Bid%7D",
    "jöb".encode().decode("latin-1"),
    "j%C3%B6b",
    "a" * 129,
    "a" * 7000,
    "%41" * 2500,
    "../" * 500,
    "a" * 10_000,
    "con\tjob",
    "job\x7f",
    "'\"<script>",
]


@pytest.mark.parametrize(
    ("method", "tail"), [("GET", ""), ("GET", "/download"), ("GET", "/logs"), ("POST", "/download-links")]
)
async def test_invalid_id_is_a_client_error(serve: Serve, make_job: MakeJob, method: str, tail: str) -> None:
    make_job(output=b"film", log=b"film\n")
    service = await serve()
    for job_id in ODD_IDS:
        async with service.connect() as link:
            answer = await link.ask(method, f"/api/jobs/{job_id}{tail}", token=service.token)
        assert answer.status in ({414} if len(job_id) > 8_000 else {400, 404}), (job_id[:40], answer)
        assert answer.code in {"bad-request", "job-not-found", "not-found", "uri-too-long"}
        assert b"film" not in answer.body
        assert "X-Evil" not in answer.headers
    assert await service.answer_count(404) > 0 == await service.answer_count(500)
    assert (await shown(service))["id"] == "job-1"


async def test_percent_encoded_id_is_the_same_job(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    service = await serve()
    for target in ("/api/jobs/%6Aob-1", "/api/jobs/job%2D1", "/api/jobs/job-1?", "/api/jobs/job-1?wait=0"):
        assert (await service.get(target)).json()["id"] == "job-1"
    absolute = request("GET", "http://jobs.example/api/jobs/job-1", token=service.token)
    async with service.connect() as link:
        link.send(absolute)
        assert (await link.answer()).json()["id"] == "job-1"


@pytest.mark.parametrize(
    "target", ["/api", "/api/jobs/", "/api/jobs/job-1/", "/api/jobs/job-1/x", "//", "/x?y"]
)
async def test_unknown_url_is_404_as_problem_json(serve: Serve, make_job: MakeJob, target: str) -> None:
    make_job()
    answer = await (await serve()).get(target)
    assert (answer.status, answer.code) == (404, "not-found")


@pytest.mark.parametrize("target", ["/api/jobs/job-1", "/api/jobs/job-1/download", "/healthz", "/metrics"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
async def test_other_methods_are_405_with_allow(
    serve: Serve, make_job: MakeJob, target: str, method: str
) -> None:
    make_job(output=b"film")
    answer = await (await serve()).ask(method, target, body=b"a body")
    assert (answer.status, answer.code) == (405, "method-not-allowed")
    assert {name.strip() for name in answer.headers["Allow"].split(",")} == {"GET", "HEAD"}


@pytest.mark.alone
async def test_unavailable_storage_serves_the_last_known_state_and_says_so(
    serve: Serve, make_job: MakeJob, jobs_root: Path
) -> None:
    make_job(progress=7)
    make_job("failed", status="failed", error="why", log=b"a log\n")
    service = await serve(max_age=0.1, poll_interval=0.1)
    await shown(service)
    await shown(service, "failed")
    assert (await service.get("/readyz", token=None)).status == 200
    take_away(jobs_root)

    async def ready() -> int:
        return (await service.get("/readyz", token=None)).status

    started_at = time.monotonic()
    while await ready() == 200:
        assert time.monotonic() - started_at < 3
        await pause()
    readiness = await service.get("/readyz", token=None)
    assert (readiness.status, readiness.code, readiness.headers["Retry-After"]) == (
        503,
        "storage-unavailable",
        "1",
    )
    while int((last := await service.get("/api/jobs/job-1")).headers["Age"]) < 1:
        assert time.monotonic() - started_at < 5
        await pause()
    assert (last.status, last.json()["progress"]) == (200, 7)
    assert last.headers["Cache-Status"] == "jobsvc; hit; detail=storage-unavailable"
    failed = await service.get("/api/jobs/failed")
    assert (failed.status, failed.json()["error"]) == (200, "why")
    assert failed.headers["Cache-Status"] == "jobsvc; hit; detail=storage-unavailable"
    unknown = await service.get(NOWHERE)
    assert (unknown.status, unknown.code) == (503, "storage-unavailable")
    assert int(unknown.headers["Retry-After"]) >= 1
    output = await service.download("job-1")
    assert (output.status, output.code) == (503, "storage-unavailable")
    bring_back(jobs_root)
    while await ready() != 200:
        assert time.monotonic() - started_at < 10
        await pause()
    make_job(progress=8)
    await shows(service, 2, progress=8)
    assert (await service.get(NOWHERE)).status == 404


async def test_job_of_another_owner_is_unknown_while_storage_is_unavailable(
    serve: Serve, make_job: MakeJob, make_token: MakeToken, jobs_root: Path
) -> None:
    make_job(output=b"film")
    stranger = make_token("bert")
    service = await serve(max_age=0.1, poll_interval=0.1)
    await shown(service)
    take_away(jobs_root)
    started_at = time.monotonic()
    while (await service.get("/readyz", token=None)).status == 200:
        assert time.monotonic() - started_at < 15
        await pause()
    while "Cache-Status" not in (await service.get("/api/jobs/job-1")).headers:
        assert time.monotonic() - started_at < 15
        await pause()
    for method, tail in ASKED_OF_A_JOB:
        foreign = await service.ask(method, f"/api/jobs/job-1{tail}", token=stranger)
        unknown = await service.ask(method, NOWHERE + tail, token=stranger)
        assert essence(foreign) == essence(unknown), method


async def test_health_needs_no_token_and_reveals_no_job(serve: Serve, make_job: MakeJob) -> None:
    make_job("very-secret-id", owner="very-secret-owner")
    service = await serve()
    await service.get("/api/jobs/very-secret-id")
    answers = {}

    async def ask() -> None:
        for target in ("/healthz", "/readyz", "/metrics"):
            answers[target] = await service.get(target, token=None)

    await ask()
    started_at = time.monotonic()
    while answers["/readyz"].status != 200:
        await ask()
        assert time.monotonic() - started_at < 15
        await pause()
    assert {answer.status for answer in answers.values()} == {200}
    assert not any(b"very-secret" in answer.body for answer in answers.values())
    assert answers["/metrics"].headers["Content-Type"].startswith("text/plain; version=")
