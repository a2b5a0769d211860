"""Whatever another host does to job directories, a few seconds later status and list equal the share.

A few hundred operations in the suite; JOBSVC_TRUTH_OPERATIONS=10000 asks for as many, on each share.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from jobsvc.index.catalogue.missing_files import ABSENCE_GRACE_S
from tests.index.random_farm_operations import ANCHOR, OWNERS, Chaos
from tests.index.service_thread import PLENTY, Whole
from tests.network_storage.share import Share

BOUND_S: Final = 4.0
"""A missing record or output is bridged for two seconds more."""
JOBS: Final = ("a", "b", "c", "d", "e", "f")
WANTED: Final = int(os.environ.get("JOBSVC_TRUTH_OPERATIONS", "0"))
OPERATIONS: Final = WANTED or 200
MAX_BATCH: Final = 100 if WANTED else 30
NEEDS_CTIME: Final = frozenset({"set_times_back"})
"""Without a ctime nothing tells a file whose mtime was set back from the one before of the same size."""


@pytest.fixture
def chaos(share: Share) -> Chaos:
    return Chaos(share.writer, JOBS)


@pytest.fixture
def whole(share: Share, chaos: Chaos, state_dir: Any) -> Iterator[Whole]:
    settings = {"watch": "auto", "poll_interval": 0.5, "limit_list": PLENTY}
    whole = Whole(share.reader / "jobs", state_dir, OWNERS, **settings)
    yield whole
    whole.close()


def status(whole: Whole, job_id: str) -> tuple[Any, ...] | None:
    code, document, _ = whole.get(f"/api/jobs/{job_id}")
    return shown(document) if code == 200 else None


def listed(whole: Whole) -> dict[str, tuple[Any, ...]]:
    _, page, _ = whole.get("/api/jobs")
    return {job["id"]: shown(job) for job in page["jobs"]}


def shown(document: dict[str, Any]) -> tuple[Any, ...]:
    known = (document["status"], document["progress"], document["updatedAt"])
    return *known, "downloadUrl" in document


def divergence(whole: Whole, chaos: Chaos) -> str | None:
    """Say what is told of the jobs and is not so; None where all of it is."""
    jobs = listed(whole)
    if ANCHOR not in jobs:
        return f"list: no {ANCHOR}"
    for job_id in JOBS:
        for way, answer in (("list", jobs.get(job_id)), ("status", status(whole, job_id))):
            allowed = {truth.shown() if truth is not None else None for truth in chaos.allowed(job_id)}
            if answer not in allowed or chaos.is_bridged(job_id, answer):
                return f"{way} of {job_id}: {answer} and not {allowed}"
    return None


@pytest.mark.timeout(WANTED + 120)
def test_answers_equal_the_share_within_seconds(share: Share, chaos: Chaos, whole: Whole) -> None:
    seed = time.time_ns() if WANTED else 15
    draw = random.Random(seed)  # noqa: S311 - no secret
    operations = sorted(chaos.operations.keys() - (set() if share.keeps_ctime else NEEDS_CTIME))
    done, longest = 0, 0.0
    while done < OPERATIONS:
        batch = [(draw.choice(operations), draw.choice(JOBS)) for _ in range(draw.randint(1, MAX_BATCH))]
        for operation, job_id in batch:
            chaos.do(operation, job_id)
        done += len(batch)
        ended = time.monotonic()
        end = ended + BOUND_S + (ABSENCE_GRACE_S if chaos.bridges_any else 0)
        while (wrong := divergence(whole, chaos)) is not None:
            assert time.monotonic() < end, (seed, done, wrong, batch)
            time.sleep(0.05)
        longest = max(longest, time.monotonic() - ended)
    print(f"{share.name}: {done} operations, the longest took {longest:.2f} s to show")  # noqa: T201
