"""Many requests at once against a budget that all replicas share."""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.clients.raw_http import Answer
from tests.conftest import job_maker
from tests.replicas.group import ReplicaGroup, replica_group
from tests.replicas.proxied_client import ProxiedClient
from tests.replicas.report import Report
from tests.replicas.trouble import check_logs, restart_redis

_FIELDS: Final = {
    "Retry-After": re.compile("[1-9][0-9]?", re.ASCII),
    "RateLimit": re.compile('"status";r=[01];t=[1-9][0-9]?', re.ASCII),
    "RateLimit-Policy": re.compile('"status";q=[1-9][0-9]*;w=60', re.ASCII),
}
"""Of a refusal. A request can have become possible before its head is written: r=1."""
TOLERANCE: Final = 0.05


async def burst(
    proxy: str,
    replicas: int,
    *,
    requests: int = 10_000,
    budget: int = 1000,
    connections: int = 500,
    redis_restarts: int = 0,
) -> Report:
    """Send all requests as fast as possible, and check how many of them are admitted.

    Meanwhile Redis is killed and restarted so many times, one second after the other.
    """
    report = Report()
    with tempfile.TemporaryDirectory(prefix="jobsvc-burst-") as name:
        folder = Path(name)
        (folder / "jobs").mkdir()
        job_maker(folder / "jobs")("job-1", status="rendering", progress=10)
        options = ("--limit-status", f"{budget}/minute")
        async with replica_group(
            folder, folder / "jobs", proxy=proxy, count=replicas, owners=["anna"], options=options
        ) as group:
            sent = iter(range(requests))
            clients = [ProxiedClient(each, report, "requests") for each in group.services(connections)]
            started_at = time.monotonic()
            await asyncio.gather(
                *(_send(client, sent, report) for client in clients),
                _restart_redis(group, redis_restarts, report),
            )
            report.figures["seconds"] = time.monotonic() - started_at
            failed = await group.metric("jobsvc_shared_state_errors_total")
            report.figures["calls to Redis that failed"] = failed
            check_logs(group, report)
    _check_counts(report, requests, budget)
    return report


async def _send(client: ProxiedClient, sent: Iterator[int], report: Report) -> None:
    for _ in sent:
        answer = await client.get("/api/jobs/job-1")
        if answer is not None and answer.status == 429:
            _check_refusal(answer, report)
        elif answer is None or answer.status != 200 or answer.json()["id"] != "job-1":
            report.fault("a response other than 200 and 429", answer)
    client.close()


async def _restart_redis(group: ReplicaGroup, times: int, report: Report) -> None:
    for _ in range(times):
        await asyncio.sleep(1)
        assert group.redis is not None
        await restart_redis(group.redis, 1, report)


def _check_refusal(answer: Answer, report: Report) -> None:
    if answer.code != "rate-limited":
        report.fault("a refusal with another code", answer)
    for name, pattern in _FIELDS.items():
        if pattern.fullmatch(answer.headers.get(name, "")) is None:
            report.fault(f"a refusal without a valid {name}", answer)


def _check_counts(report: Report, requests: int, budget: int) -> None:
    admitted = report.counts["requests: 200"]
    report.figures["admitted"] = admitted
    if not (1 - TOLERANCE) * budget <= admitted <= (1 + TOLERANCE) * budget:
        report.fault(f"admitted requests not within {TOLERANCE:.0%} of {budget}", admitted)
    if (answered := admitted + report.counts["requests: 429"]) != requests:
        report.fault("requests without a response of a replica", requests - answered)
