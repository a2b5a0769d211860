"""What a client gets for removed jobs, and for jobs of unavailable storage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import MakeJob, Serve

ANSWERED = "jobsvc_storage_last_answer_age_seconds"


def take_away(root: Path, how: str) -> None:
    """Rename the root, or replace it by an empty one, as when a share is unmounted."""
    root.rename(root.with_name("unmounted"))
    if how == "empty":
        root.mkdir()


@pytest.mark.parametrize("how", ["gone", "empty"])
async def test_download_with_a_missing_or_empty_root_is_not_404(
    serve: Serve, make_job: MakeJob, jobs_root: Path, how: str
) -> None:
    make_job(output=b"film")
    make_job("job-2")
    service = await serve()
    assert (await service.download("job-1")).status == 200
    assert (await service.get("/api/jobs/job-2")).status == 200
    since, before = await service.metric(ANSWERED), 0.0
    while since > before:  # until the root has been checked
        before, since = since, await service.metric(ANSWERED)
    take_away(jobs_root, how)
    answer = await service.download("job-1")
    assert (answer.status, answer.code) == (503, "storage-unavailable")
    status = await service.get("/api/jobs/job-1", ("Cache-Control", "no-cache"))
    assert "detail=storage-unavailable" in status.headers["Cache-Status"]


async def test_job_that_a_download_finds_removed_is_unknown_afterwards(
    serve: Serve, make_job: MakeJob
) -> None:
    folder = make_job(output=b"film")
    make_job("job-2")
    service = await serve(max_age=60, watch="poll", poll_interval=60)
    assert (await service.download("job-1")).status == 200
    shutil.rmtree(folder)
    assert (await service.download("job-1")).status == 404
    assert (await service.get("/api/jobs/job-1")).status == 404
