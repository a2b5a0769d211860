"""Runs `wait` against scripted responses."""

from __future__ import annotations

from typing import Any

from jobsvc.client.models import Job
from jobsvc.client.protocol.waiting import wait
from tests.client.protocol.scripted_service import (
    ScriptedService,
)


def waited_for(service: ScriptedService, *job_ids: str, **options: Any) -> list[Job]:
    jobs = service.run(wait(job_ids, **options))
    assert jobs is not None
    return jobs


def statuses(jobs: list[Job]) -> list[tuple[str, str]]:
    return [(each.id, each.status) for each in jobs]
