"""A job of another owner is indistinguishable from one that does not exist: both make the
same storage calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.nonblocking.cached_outputs import CachedOutputs
from tests.clients.raw_http import Answer
from tests.conftest import MakeJob, Serve
from tests.eventually import pause
from tests.programs.service_runner import Service

ROUTES = ("", "?wait=1", "/events", "/logs", "/logs?follow=1", "/download", "/download-links")
UNKNOWN, ANOTHERS = "job-8", "job-9"


class Calls:
    """Counts storage calls, in threads and on the loop; those of the index itself use other names."""

    def __init__(self) -> None:
        self.count = 0

    def counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **kw: Any) -> Any:
            # Names of calls that do not concern one job start with an asterisk, or are "tokens".
            if not (isinstance(args[1], str) and (args[1].startswith("*") or args[1] == "tokens")):
                self.count += 1
            return method(*args, **kw)

        return counting

    @contextmanager
    def during(self) -> Iterator[Callable[[], int]]:
        before = self.count
        yield lambda: self.count - before


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    for of, name in (
        (StorageExecutor, "run_metadata"),
        (StorageExecutor, "run_data"),
        (CachedOutputs, "is_unchanged_nowait"),
        (CachedOutputs, "open_output"),
    ):
        monkeypatch.setattr(of, name, calls.counted(getattr(of, name)))
    return calls


async def get_status(service: Service, job_id: str, route: str, *fields: tuple[str, str]) -> Answer:
    method = "POST" if route == "/download-links" else "GET"
    return await service.ask(method, f"/api/jobs/{job_id}{route}", fields)


@pytest.mark.parametrize("state", ["rendering", "completed", "failed"])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("max_age", [0.0, 60.0])
@pytest.mark.parametrize("fields", [(), (("Cache-Control", "no-cache"),)])
async def test_hidden_and_missing_jobs_make_the_same_calls(
    fields: tuple[tuple[str, str], ...],
    max_age: float,
    route: str,
    state: str,
    serve: Serve,
    make_job: MakeJob,
    calls: Calls,
) -> None:
    make_job(ANOTHERS, owner="bob", status=state, output=b"film", log=b"log\n")
    service = await serve(max_age=max_age, poll_interval=60, limit_auth_failures="1000/second")
    while (await service.get("/api/jobs")).status != 200:
        await pause()
    made: dict[str, list[int]] = {}
    for job_id in (UNKNOWN, ANOTHERS, UNKNOWN, ANOTHERS):
        with calls.during() as count:
            answer = await get_status(service, job_id, route, *fields)
        assert (answer.status, answer.code) == (404, "job-not-found")
        made.setdefault(job_id, []).append(count())
    assert made[UNKNOWN] == made[ANOTHERS] == [2, 2]


async def test_job_that_is_given_to_the_client_is_found_by_the_next_request(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job(ANOTHERS, owner="bob", status="completed")
    service = await serve(max_age=60, poll_interval=60)
    assert (await get_status(service, ANOTHERS, "")).status == 404
    make_job(ANOTHERS, status="completed")
    assert (await get_status(service, ANOTHERS, "")).status == 200
