"""`GET /api/jobs` against the running service, from the farm's files to the bytes on the wire."""

from __future__ import annotations

import shutil
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from jobsvc.domain.access import ADMIN, JOBS_READ, OUTPUTS_READ
from tests.clients.raw_http import Answer, request
from tests.conftest import MakeJob, MakeToken, Serve
from tests.eventually import pause, until_equal
from tests.programs.service_runner import Service

LIST = "/api/jobs"


async def ready(service: Service) -> Service:
    """Wait for the first index."""
    started_at = time.monotonic()
    while (await service.get("/readyz", token=None)).status != 200:
        assert time.monotonic() - started_at < 15
        await pause()
    return service


async def listed(
    service: Service, query: str = "limit=50", token: str | None = "", *, cursor: str | None = None
) -> list[str]:
    """Read all pages from a cursor on and return the ids."""
    found: list[str] = []
    while True:
        onward = "" if cursor is None else f"&cursor={cursor}"
        answer = await service.get(f"{LIST}?{query}{onward}", token=token)
        assert answer.status == 200, answer
        page = answer.json()
        assert list(page) == ["jobs", "nextCursor"]
        found += [job["id"] for job in page["jobs"]]
        cursor = page["nextCursor"]
        if cursor is None:
            return found


async def lists(service: Service, ids: list[str], query: str = "limit=50", deadline: float = 15) -> None:
    started_at = time.monotonic()
    while (found := await listed(service, query)) != ids:
        assert time.monotonic() - started_at < deadline, found
        await pause()


def take_away(root: Path) -> None:
    """Rename the root, as when a share is unmounted."""
    root.rename(root.with_name("away"))


def bring_back(root: Path) -> None:
    root.with_name("away").rename(root)


def at(second: int) -> dict[str, Any]:
    return dict.fromkeys(("createdAt", "updatedAt"), f"2026-01-02T03:04:{second:02}Z")


async def test_jobs_are_sorted_newest_first_then_by_id(serve: Serve, make_job: MakeJob) -> None:
    make_job("b", **at(1))
    make_job("a", **at(1), status="running", progress=3, metadata={"shot": [1]})
    make_job("c", output=b"film", **at(9))
    make_job("d", status="failed", error="why", log=b"a log\n", **at(5))
    service = await ready(await serve())
    jobs = (await service.get(LIST)).json()["jobs"]
    assert [job["id"] for job in jobs] == ["c", "d", "a", "b"]
    for job in jobs:
        alone = (await service.get(f"/api/jobs/{job['id']}")).json()
        assert alone.pop("logs", "a log\n") == "a log\n"
        assert len(alone.pop("outputs", [])) == (job["id"] == "c")
        assert job == alone


async def test_empty_list_is_one_empty_page(serve: Serve) -> None:
    answer = await (await ready(await serve())).get(LIST)
    assert (answer.status, answer.body) == (200, b'{"jobs":[],"nextCursor":null}')


async def test_pages_continue_after_the_previous_one_while_jobs_change(
    serve: Serve, make_job: MakeJob, jobs_root: Path
) -> None:
    for number in range(10, 35):
        make_job(f"job-{number}", **at(number))
    service = await ready(await serve(watch="events"))
    assert await listed(service, "limit=10") == [f"job-{number}" for number in range(34, 9, -1)]
    first = (await service.get(f"{LIST}?limit=10")).json()
    shutil.rmtree(jobs_root / "job-25")  # the one that the cursor names
    shutil.rmtree(jobs_root / "job-20")
    make_job("job-50", **at(50))
    make_job("job-22", status="failed", **at(22))
    await lists(service, ["job-22"], "status=failed")
    left = [f"job-{number}" for number in range(34, 9, -1) if number not in {20, 25}]
    await lists(service, ["job-50", *left])
    rest = await listed(service, "limit=7", cursor=first["nextCursor"])
    assert rest == left[left.index("job-24") :]


async def test_all_filters_apply(serve: Serve, make_job: MakeJob) -> None:
    for second, status in enumerate(("queued", "rendering", "done", "failed", "cancelled", "failed")):
        make_job(f"job-{second}", status=status, **at(second))
    service = await ready(await serve())
    assert await listed(service, "status=failed") == ["job-5", "job-3"]
    assert await listed(service, "status=failed&status=queued&status=failed") == ["job-5", "job-3", "job-0"]
    assert await listed(service, "status=canceled&limit=1") == ["job-4"]
    assert await listed(service, "updatedSince=2026-01-02T03:04:04Z") == ["job-5", "job-4"]
    assert await listed(service, "updatedSince=2026-01-02T05:04:04+02:00") == ["job-5", "job-4"]
    assert await listed(service, f"updatedSince={quote('2026-01-02T05:04:04+02:00')}") == ["job-5", "job-4"]
    assert await listed(service, "updatedSince=2026-01-02T03:04:04.000001Z&status=failed") == ["job-5"]


async def test_token_lists_jobs_of_its_owner_and_an_admin_lists_all(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    for number in range(6):
        make_job(f"job-{number}", owner=("anna", "bert")[number % 2], **at(number))
    bert, carl, admin = make_token("bert"), make_token("carl"), make_token("root", [ADMIN])
    service = await ready(await serve())
    for query in ("limit=50", "limit=1"):
        assert await listed(service, query) == ["job-4", "job-2", "job-0"]
        assert await listed(service, query, bert) == ["job-5", "job-3", "job-1"]
        assert await listed(service, query, carl) == []
        assert await listed(service, query, admin) == [f"job-{number}" for number in range(5, -1, -1)]
    cursor = (await service.get(f"{LIST}?limit=1", token=bert)).json()["nextCursor"]
    assert await listed(service, cursor=cursor) == ["job-4", "job-2", "job-0"]
    assert (await service.get(f"{LIST}?owner=bert", token=bert)).status == 403
    assert (await service.get(f"{LIST}?owner=bert", token=admin)).status == 200


async def test_job_that_changes_its_owner_changes_lists(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    bert = make_token("bert")
    make_job()
    service = await ready(await serve(poll_interval=0.1))
    assert (await listed(service), await listed(service, token=bert)) == (["job-1"], [])
    make_job(owner="bert")
    await lists(service, [])
    assert await listed(service, token=bert) == ["job-1"]


async def test_list_has_the_scope_of_a_job_and_a_budget_of_its_own(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job()
    downloader = make_token(scopes=[OUTPUTS_READ])
    service = await ready(await serve(limit_list="3/minute"))
    refused = await service.get(LIST, token=downloader)
    assert (refused.status, refused.code) == (403, "insufficient-scope")
    assert f'scope="{JOBS_READ}"' in refused.headers["WWW-Authenticate"]
    assert (await service.get(LIST, token=None)).status == 401
    answers = [await service.get(f"{LIST}{query}") for query in ("", "?limit=0", "?status=failed", "")]
    assert [answer.status for answer in answers] == [200, 400, 200, 429]
    assert [answer.headers["RateLimit-Policy"] for answer in answers] == ['"list";q=3;w=60'] * 4
    assert answers[3].code == "rate-limited"
    assert int(answers[3].headers["Retry-After"]) >= 1
    assert (await service.get("/api/jobs/job-1")).status == 200


async def test_unchanged_page_is_304_and_head_has_the_fields_of_get(serve: Serve, make_job: MakeJob) -> None:
    make_job(progress=1)
    make_job("job-2", **at(1))
    service = await ready(await serve(poll_interval=0.1))
    first = await service.get(LIST)
    tag = first.headers["ETag"]
    for method in ("GET", "HEAD"):
        same = await service.ask(method, LIST, [("If-None-Match", tag)])
        assert (same.status, same.body, same.headers["ETag"]) == (304, b"", tag)
    head = await service.ask("HEAD", LIST)
    assert (head.status, head.body) == (200, b"")
    own = {"X-Request-Id", "Date", "RateLimit", "Age"}
    assert {name: value for name, value in head.headers.items() if name not in own} == {
        name: value for name, value in first.headers.items() if name not in own
    }
    assert first.headers["Cache-Control"] == "private, no-cache"
    assert first.headers["Content-Type"] == "application/json"
    assert first.headers["X-Content-Type-Options"] == "nosniff"
    failed = await service.get(LIST, ("If-Match", '"another"'))
    assert (failed.status, failed.code) == (412, "precondition-failed")
    make_job(progress=2)
    started_at = time.monotonic()
    while (changed := await service.get(LIST, ("If-None-Match", tag))).status == 304:
        assert time.monotonic() - started_at < 15
        await pause()
    assert changed.json()["jobs"][0]["progress"] == 2


@pytest.mark.parametrize("scopes", [(JOBS_READ,), (JOBS_READ, ADMIN)])
async def test_page_of_large_jobs_is_sent_whole_to_every_kind_of_client(
    serve: Serve, make_job: MakeJob, make_token: MakeToken, scopes: tuple[str, ...]
) -> None:
    for number in range(4):
        make_job(f"job-{number}", **at(number), metadata={"x": "y" * 100_000 * (number % 2)})
    token = make_token("anna", scopes)
    service = await ready(await serve())
    plain = await service.get(LIST, token=token)
    assert [job["id"] for job in plain.json()["jobs"]] == ["job-3", "job-2", "job-1", "job-0"]
    assert [len(job["metadata"]["x"]) for job in plain.json()["jobs"]] == [100_000, 0, 100_000, 0]
    closing = await service.get(LIST, ("Connection", "close"), token=token)
    assert (closing.status, closing.body) == (200, plain.body)
    head = await service.ask("HEAD", LIST, token=token)
    for name in ("ETag", "Content-Length"):
        assert head.headers[name] == closing.headers[name] == plain.headers[name]
    unchanged = await service.get(LIST, ("If-None-Match", plain.headers["ETag"]), token=token)
    assert (unchanged.status, unchanged.body) == (304, b"")
    make_job("job-2", **at(2), metadata={"x": "z"})
    started_at = time.monotonic()
    while (await service.get(LIST, token=token)).headers["ETag"] == plain.headers["ETag"]:
        assert time.monotonic() - started_at < 15
        await pause()


async def test_pages_of_different_jobs_have_different_entity_tags(serve: Serve, make_job: MakeJob) -> None:
    for number in range(2):
        make_job(f"job-{number}", **at(number))
    service = await ready(await serve())
    tags = {(await service.get(f"{LIST}{query}")).headers["ETag"] for query in ("", "?limit=1", "?limit=2")}
    assert len(tags) == 2


async def test_query_that_is_not_utf_8_is_400(serve: Serve) -> None:
    service = await ready(await serve())
    for target in (
        f"{LIST}?status=\udcff",
        f"{LIST}?\udcff",
        f"{LIST}?cursor=%ff",
        f"{LIST}?%ff=1",
        f"{LIST}?status=%00",
    ):
        answer = await service.get(target)
        assert (answer.status, answer.code) == (400, "bad-request"), target


async def test_age_is_that_of_the_list_and_not_of_its_jobs(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polling reads unfinished jobs all the time, but all jobs only in a reconcile. A large root is
    reconciled once a minute.
    """
    monkeypatch.setattr("jobsvc.index.scan.reconciler.UNWATCHED_CPU_SHARE", 1e-9)
    make_job()
    service = await ready(await serve(poll_interval=0.05))
    started_at = time.monotonic()
    while int((await service.get(LIST)).headers["Age"]) < 1:
        assert time.monotonic() - started_at < 15
        await pause()

    async def age_of_the_job() -> str:
        return (await service.get("/api/jobs/job-1")).headers["Age"]

    await until_equal(age_of_the_job, "0")


async def test_few_jobs_are_reconciled_in_each_poll(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    service = await ready(await serve(poll_interval=0.05))
    started_at = time.monotonic()
    while time.monotonic() - started_at < 1.5 or (await service.get(LIST)).headers["Age"] != "0":
        assert time.monotonic() - started_at < 20
        await service.get(LIST)
        await pause()


@pytest.mark.alone
async def test_age_is_zero_while_events_cover_the_list(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    service = await ready(await serve(watch="events"))
    started_at = time.monotonic()
    while time.monotonic() - started_at < 1.5 or (await service.get(LIST)).headers["Age"] != "0":
        assert time.monotonic() - started_at < 8
        await service.get(LIST)
        await pause()
    make_job("job-2", **at(1))
    await lists(service, ["job-1", "job-2"], deadline=2)


async def test_unavailable_storage_serves_the_last_known_list_and_says_so(
    serve: Serve, make_job: MakeJob, jobs_root: Path
) -> None:
    make_job()
    service = await ready(await serve(max_age=0.1, poll_interval=0.1))
    assert "Cache-Status" not in (await service.get(LIST)).headers
    take_away(jobs_root)

    async def stale() -> Answer | None:
        answer = await service.get(LIST)
        is_stale = "Cache-Status" in answer.headers and int(answer.headers["Age"]) >= 1
        return answer if is_stale else None

    started_at = time.monotonic()
    while (answer := await stale()) is None:
        assert time.monotonic() - started_at < 15
        await pause()
    assert [job["id"] for job in answer.json()["jobs"]] == ["job-1"]
    assert answer.headers["Cache-Status"] == "jobsvc; hit; detail=storage-unavailable"
    bring_back(jobs_root)
    while await stale() is not None:
        assert time.monotonic() - started_at < 30
        await pause()


async def test_pipelined_and_http_1_0_clients_are_answered(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    service = await ready(await serve())
    async with service.connect() as link:
        link.send(request("GET", LIST, token=service.token) * 2)
        assert [(await link.answer()).status for _ in range(2)] == [200, 200]
        old = await link.ask("GET", LIST, token=service.token, version="1.0")
        assert [job["id"] for job in old.json()["jobs"]] == ["job-1"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_other_methods_are_405(serve: Serve, method: str) -> None:
    answer = await (await serve()).ask(method, LIST)
    assert (answer.status, answer.code) == (405, "method-not-allowed")


async def test_other_requests_are_answered_between_many_lists(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job("job-1")
    # A thread that reads the job would have to wait for the pages.
    service = await ready(await serve(max_age=3600, poll_interval=3600))
    assert (await service.get(f"{LIST}/job-1")).status == 200
    pages: list[float] = []

    def slow(*_: object) -> str:
        pages.append(time.perf_counter())
        while time.perf_counter() < pages[-1] + 0.02:  # as long as a page of many bytes takes
            pass
        return '"x"'

    monkeypatch.setattr("jobsvc.web.endpoints.job_list.entity_tag", slow)
    async with AsyncExitStack() as stack:
        links = [await stack.enter_async_context(service.connect()) for _ in range(20)]
        other = await stack.enter_async_context(service.connect())
        for link in links:
            link.send(request("GET", LIST, token=service.token))
        assert (await links[0].answer()).status == 200
        assert (await other.ask("GET", f"{LIST}/job-1", token=service.token)).status == 200
        assert len(pages) < 15
        for link in links[1:]:
            assert (await link.answer()).status == 200
