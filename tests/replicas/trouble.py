"""What happens to replicas and to Redis during a run."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from itertools import cycle
from typing import Final

from redis.asyncio import Redis

from tests.eventually import pause
from tests.programs.redis_server import RedisServer
from tests.replicas.group import Replica, ReplicaGroup
from tests.replicas.report import Report

AWAY_S: Final = 2.0
"""Seconds for which Redis is away, or hangs."""
_EXPECTED: Final = frozenset({"shared-state-down"})
"""Events of level error that a run causes on purpose."""


async def kill_replicas(group: ReplicaGroup, interval: float, stop: asyncio.Event, report: Report) -> None:
    """Kill a replica every `interval` seconds and start it again, until `stop`; at the end all are ready.

    The others are ready when it is killed: a service that has no replica can answer nothing.
    """
    next_at = time.monotonic() + interval
    for replica in cycle(group.replicas):
        if await _stopped(stop, next_at - time.monotonic()):
            break
        next_at = max(next_at + interval, time.monotonic())
        while not await _is_another_ready(group, replica):
            await pause()
        await asyncio.to_thread(replica.kill)
        report.count("replicas killed")
        replica.start()
    for replica in group.replicas:
        await replica.wait_until_ready()


async def _is_another_ready(group: ReplicaGroup, replica: Replica) -> bool:
    for other in group.replicas:
        if other is not replica and await other.is_ready():
            return True
    return False


async def trouble_redis(group: ReplicaGroup, interval: float, stop: asyncio.Event, report: Report) -> None:
    """Restart Redis every `interval` seconds, and have it hang or lose its data in between."""
    assert group.redis is not None
    between = cycle((_hang, _flush))
    next_at = time.monotonic()
    while not await _stopped(stop, (next_at := next_at + interval / 2) - time.monotonic()):
        await restart_redis(group.redis, AWAY_S, report)
        if await _stopped(stop, (next_at := next_at + interval / 2) - time.monotonic()):
            return
        await next(between)(group.redis, report)


async def restart_redis(redis: RedisServer, away_s: float, report: Report) -> None:
    """Kill Redis, which loses its data, and start it again after a time."""
    report.count("Redis restarted")
    redis.kill()
    await asyncio.sleep(away_s)
    await asyncio.to_thread(redis.start)


async def _hang(redis: RedisServer, report: Report) -> None:
    report.count("Redis hung")
    redis.pause()
    try:
        await asyncio.sleep(AWAY_S)
    finally:
        redis.resume()


async def _flush(redis: RedisServer, report: Report) -> None:
    report.count("Redis lost its data")
    async with Redis.from_url(redis.url) as client:
        await client.flushall()


async def _stopped(stop: asyncio.Event, seconds: float) -> bool:
    """Wait; return whether it is time to stop."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(seconds, 0.1)):
            await stop.wait()
    return stop.is_set()


def check_logs(group: ReplicaGroup, report: Report) -> None:
    """Record each log line of an error that the run does not cause on purpose."""
    for replica in group.replicas:
        for line in replica.log_lines():
            report.count(f"log lines: {line['event']}")
            if line["level"] in {"error", "critical"} and line["event"] not in _EXPECTED:
                report.fault(f"log line {line['event']}", line)
