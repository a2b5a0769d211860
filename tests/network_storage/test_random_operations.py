"""Whatever another host does, status and list equal the share a few seconds later.

The suite runs a few hundred operations; JOBSVC_TEST_OPERATIONS=10000 runs that many on each share.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from jobsvc.index.catalogue.missing_files import ABSENCE_GRACE_S
from tests.index.random_farm_operations import ANCHOR, OWNERS, RandomFarm
from tests.index.service_thread import UNLIMITED, ServiceThread
from tests.network_storage.share import Share

BOUND_S: Final = 4.0
"""For a missing record or output the grace period of two seconds is added."""
JOBS: Final = ("a", "b", "c", "d", "e", "f")
REQUESTED_OPERATIONS: Final = int(os.environ.get("JOBSVC_TEST_OPERATIONS", "0"))
OPERATIONS: Final = REQUESTED_OPERATIONS or 200
MAX_BATCH: Final = 100 if REQUESTED_OPERATIONS else 30
NEEDS_CTIME: Final = frozenset({"set_times_back"})
"""Without a ctime, a file whose mtime was reset cannot be distinguished from its predecessor of the same
size.
"""


@pytest.fixture
def farm(share: Share) -> RandomFarm:
    return RandomFarm(share.writer, JOBS)


@pytest.fixture
def service(share: Share, farm: RandomFarm, state_dir: Any) -> Iterator[ServiceThread]:
    settings = {"watch": "auto", "poll_interval": 0.5, "limit_list": UNLIMITED}
    thread = ServiceThread(share.reader / "jobs", state_dir, OWNERS, **settings)
    yield thread
    thread.close()


def status(service: ServiceThread, job_id: str) -> tuple[Any, ...] | None:
    code, document, _ = service.get(f"/api/jobs/{job_id}")
    return shown(document) if code == 200 else None


def listed(service: ServiceThread) -> dict[str, tuple[Any, ...]]:
    _, page, _ = service.get("/api/jobs")
    return {job["id"]: shown(job) for job in page["jobs"]}


def shown(document: dict[str, Any]) -> tuple[Any, ...]:
    known = (document["status"], document["progress"], document["updatedAt"])
    return *known, "downloadUrl" in document


def find_difference(service: ServiceThread, farm: RandomFarm) -> str | None:
    """Describe the first difference between responses and the share; None if there is none."""
    jobs = listed(service)
    if ANCHOR not in jobs:
        return f"list: no {ANCHOR}"
    for job_id in JOBS:
        for way, answer in (("list", jobs.get(job_id)), ("status", status(service, job_id))):
            allowed = {
                truth.status_fields() if truth is not None else None for truth in farm.allowed_states(job_id)
            }
            if answer not in allowed or farm.is_grace_period_answer(job_id, answer):
                return f"{way} of {job_id}: {answer} and not {allowed}"
    return None


@pytest.mark.timeout(REQUESTED_OPERATIONS + 120)
def test_answers_equal_the_share_within_seconds(
    share: Share, farm: RandomFarm, service: ServiceThread
) -> None:
    seed = time.time_ns() if REQUESTED_OPERATIONS else 15
    draw = random.Random(seed)  # noqa: S311 - no secret
    operations = sorted(farm.operations.keys() - (set() if share.keeps_ctime else NEEDS_CTIME))
    done, longest = 0, 0.0
    while done < OPERATIONS:
        batch = [(draw.choice(operations), draw.choice(JOBS)) for _ in range(draw.randint(1, MAX_BATCH))]
        for operation, job_id in batch:
            farm.perform(operation, job_id)
        done += len(batch)
        ended = time.monotonic()
        end = ended + BOUND_S + (ABSENCE_GRACE_S if farm.has_grace_period else 0)
        asked_at = ended
        while (wrong := find_difference(service, farm)) is not None:
            assert asked_at < end, (seed, done, wrong, batch)
            time.sleep(0.05)
            asked_at = time.monotonic()
        longest = max(longest, time.monotonic() - ended)
    print(f"{share.name}: {done} operations, the longest took {longest:.2f} s to show")  # noqa: T201
