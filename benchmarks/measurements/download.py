"""Whole files and 64 KiB ranges from the page cache, compared with nginx and aiohttp's FileResponse."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median
from typing import Final

from benchmarks.harness import farm, host_info, servers, table
from benchmarks.harness.interleave import Measurement, Plan, interleave
from benchmarks.harness.load_generator import Load, Outcome, get
from benchmarks.harness.servers import Server

STREAM_COUNTS: Final = (1, 8)
RANGE_SIZE: Final = 64 * 1024
CONNECTIONS: Final = 16
GIB: Final = 1 << 30
JOB: Final = "big-0001"
FILES_PER_ROUND: Final = 8
"""Downloads of a round: a single one runs at 3 GB/s or at 9, with any server, depending on how both ends
interleave.
"""

SPEED_GOAL: Final = table.Goal(at_least=0.95)
CPU_GOAL: Final = table.Goal(at_most=1.25)
AIOHTTP_RANGES_GOAL: Final = table.Goal(at_least=2)
NGINX_RANGES_GOAL: Final = table.Goal(at_least=0.3)


def run(plan: Plan) -> None:
    """Measure and print."""
    size = int(plan.pick(GIB, GIB // 8))
    with ExitStack() as stack:
        scratch = stack.enter_context(farm.scratch("download", plan.scratch))
        root = scratch / "jobs"
        path = farm.output(root, JOB, size)
        token = servers.token(scratch)
        ours = stack.enter_context(servers.jobsvc(root, scratch))
        # uvloop has no sendfile, so FileResponse is measured on the loop where it is at its best too.
        files = [stack.enter_context(servers.baseline(scratch, "file", path, loop=loop)) for loop in LOOPS]
        nginx = [stack.enter_context(servers.nginx(root, scratch))] if servers.nginx_installed() else []
        if not nginx:
            table.note("nginx is not on the PATH: no ratios to it")
        for streams in STREAM_COUNTS:
            _measure_whole_files(plan, [ours, *nginx], streams, size, token)
        _measure_ranges(plan, [ours, *nginx, *files], size, token)


LOOPS: Final = ("uvloop", "asyncio")


def _measure_whole_files(
    plan: Plan, servers_under_test: Sequence[Server], streams: int, size: int, token: str
) -> None:
    table.title(
        f"download: {FILES_PER_ROUND} times {size >> 20} MiB from the page cache, {streams} at once, by a "
        f"client that drops the bytes and by one that copies them; "
        f"{host_info.describe_placement()}; {host_info.load_average()}"
    )
    for drop in (True, False):
        client = "dropping" if drop else "copying"

        def one(server: Server, *, drop: bool = drop) -> Outcome:
            request = get(_path(server), token)
            return Load(server.address, [request], streams, drop=drop).run(each=FILES_PER_ROUND // streams)

        results = interleave(plan, servers_under_test, one)
        for name, rounds in results.items():
            rates = [each.outcome.received / each.outcome.seconds / 1e9 for each in rounds]
            table.row(f"{name}, {client} client", rates, " GB/s")
        if len(results) > 1:
            ours, nginx = results.values()
            table.ratio(f"speed, jobsvc / nginx, {client} client", _speed(ours), _speed(nginx), SPEED_GOAL)
            cpu = [[each.cpu for each in rounds] for rounds in (ours, nginx)]
            table.ratio(f"server CPU, jobsvc / nginx, {client} client", cpu[0], cpu[1], CPU_GOAL)


def _speed(rounds: Sequence[Measurement]) -> list[float]:
    return [each.outcome.received / each.outcome.seconds for each in rounds]


def _path(server: Server, folder: str = "") -> str:
    """Return the URL path of the file; nginx serves ranges from a location of their own."""
    return f"{folder}/{JOB}/output/film.mp4" if server.name == "nginx" else f"/api/jobs/{JOB}/download"


def _measure_ranges(plan: Plan, servers_under_test: Sequence[Server], size: int, token: str) -> None:
    seconds = plan.pick(2, 1)
    table.title(
        f"ranges: {RANGE_SIZE >> 10} KiB at random of {size >> 20} MiB, {CONNECTIONS} connections, rounds of "
        f"{seconds:g} s, by a client that drops the bytes; "
        f"{host_info.describe_placement()}; {host_info.load_average()}"
    )
    draw = random.Random(size)  # noqa: S311 - no secret
    starts = [draw.randrange(size - RANGE_SIZE) for _ in range(10_000)]
    fields = [f"bytes={start}-{start + RANGE_SIZE - 1}" for start in starts]
    requests = {
        server.name: [get(_path(server, "/ranges"), token, Range=each) for each in fields]
        for server in servers_under_test
    }

    def one(server: Server) -> Outcome:
        return Load(server.address, requests[server.name], CONNECTIONS, status=b"206").run(seconds=seconds)

    results = interleave(plan, servers_under_test, one)
    for name, rounds in results.items():
        table.row(f"{name}: requests", [each.outcome.rate for each in rounds], "/s")
        table.row(f"{name}: server CPU a request", [each.cpu_micros for each in rounds], " us")
    idlest = min(median(each.cpu_percent for each in rounds) for rounds in results.values())
    micros = [each.cpu_micros for each in results["jobsvc"]]
    ours = [each.outcome.rate for each in results.pop("jobsvc")]
    for name, rounds in results.items():
        goal = NGINX_RANGES_GOAL if name == "nginx" else AIOHTTP_RANGES_GOAL
        table.ratio(f"requests, jobsvc / {name}", ours, [each.outcome.rate for each in rounds], goal)
        table.ratio(f"CPU a request, {name} / jobsvc", [each.cpu_micros for each in rounds], micros)
    table.note(f"every server was at least {idlest:.0f} % busy: the load was not what they waited for")
