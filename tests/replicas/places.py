"""Checks that all places of downloads and streams are free again after a run."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from redis.asyncio import Redis

from tests.clients.raw_http import request
from tests.replicas.group import ProxiedService, ReplicaGroup
from tests.replicas.report import Report

_IN_USE = (
    "jobsvc_downloads_in_progress",
    'jobsvc_event_streams{of="job"}',
    'jobsvc_event_streams{of="jobs"}',
    'jobsvc_event_streams{of="log"}',
)
_LEASES = ("downloads", "logs", "streams")


async def check_all_places_are_free(
    group: ReplicaGroup, job_id: str, per_token: int, within_s: float, report: Report
) -> None:
    """Record which places are still taken after a time, and whether a token gets all of its downloads."""
    started_at = time.monotonic()
    while taken := await _taken(group):
        if time.monotonic() - started_at > within_s:
            report.fault("places lost", taken)
            break
        await asyncio.sleep(0.25)
    report.figures["seconds until all places were free"] = time.monotonic() - started_at
    for service in group.services(len(group.tokens)):
        await _open_all_downloads(service, job_id, per_token, report)


async def _taken(group: ReplicaGroup) -> dict[str, float]:
    taken = {name: await group.metric(name) for name in _IN_USE}
    if group.redis is not None:
        async with Redis.from_url(group.redis.url) as redis:
            for kind in _LEASES:
                async for key in redis.scan_iter(match=f"jobsvc:{{{kind}}}*"):
                    taken[key.decode()] = await redis.zcard(key)
    return {name: number for name, number in taken.items() if number}


async def _open_all_downloads(service: ProxiedService, job_id: str, per_token: int, report: Report) -> None:
    """Hold as many downloads open as a token may have, and one more, which must be refused."""
    async with AsyncExitStack() as stack:
        statuses = []
        for _ in range(per_token + 1):
            connection = await stack.enter_async_context(service.connect(receive_buffer=4096))
            connection.send(request("GET", f"/api/jobs/{job_id}/download", token=service.token))
            statuses.append((await connection.head())[1])
        if statuses != [*[200] * per_token, 429]:
            report.fault("a token does not get exactly its number of downloads", statuses)
