"""Status requests per second, compared with a bare aiohttp handler that sends the same bytes."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import count
from pathlib import Path
from statistics import median
from time import sleep
from typing import Final

from benchmarks.harness import farm, host_info, process, servers, table
from benchmarks.harness.interleave import Measurement, Plan, interleave
from benchmarks.harness.load_generator import Load, Outcome, answer, get, until
from benchmarks.harness.servers import Server

JOBS: Final = 20_000
CONNECTIONS: Final = 32
SLICE_S: Final = 0.2
"""Seconds that a server is measured before the next has its turn."""
RATE_GOAL: Final = table.Goal(at_least=0.8)


def run(plan: Plan) -> None:
    """Measure and print."""
    seconds = plan.pick(3, 1)
    with ExitStack() as stack:
        scratch = stack.enter_context(farm.scratch("status", plan.scratch))
        root = scratch / "jobs"
        ids = farm.fill(root, JOBS)
        sleep(farm.STABLE_AFTER_S)
        token = servers.token(scratch)
        ours = stack.enter_context(servers.jobsvc(root, scratch))
        until(lambda: answer(ours.address, get("/readyz"))[0] == 200, 60)
        # Until the watches are active, a snapshot older than a second is checked on disk.
        until(lambda: process.watches(ours.process.pid) >= JOBS, 60, pause=0.5)
        sleep(1)
        every = [job_id for known in ids.values() for job_id in known]
        requests = [get(f"/api/jobs/{job_id}", token) for job_id in every]
        body = scratch / "body"
        body.write_bytes(answer(ours.address, get(f"/api/jobs/{ids['completed'][0]}", token))[1])
        baselines = [
            stack.enter_context(servers.baseline(scratch, what, body)) for what in ("bare", "fields")
        ]
        _title(body)
        # Clients poll the same jobs again and again: most were requested before.
        Load(ours.address, requests, CONNECTIONS).run(each=2 * JOBS // CONNECTIONS)
        seeds = count()
        results = interleave(
            plan,
            [ours, *baselines],
            lambda server: _load(server, requests, next(seeds)),
            round(seconds / SLICE_S),
        )
        _print(results)
        _print_load_ceiling(stack, scratch, seconds)


def _title(body: Path) -> None:
    """Print what is measured."""
    table.title(
        f"status: {JOBS:,} jobs, random ids on {CONNECTIONS} keep-alive connections, bodies of some "
        f"{body.stat().st_size} bytes, slices of {SLICE_S} s; "
        f"{host_info.describe_placement()}; {host_info.load_average()}"
    )


def _load(server: Server, requests: list[bytes], seed: int) -> Outcome:
    return Load(server.address, requests, CONNECTIONS, seed=seed).run(seconds=SLICE_S)


def _print(results: dict[str, list[Measurement]]) -> None:
    for name, rounds in results.items():
        table.row(f"{name}: requests", [one.outcome.rate for one in rounds], "/s")
        table.row(f"{name}: server CPU a request", [one.cpu_micros for one in rounds], " us")
    names = list(results)
    ours, bare, fields = ([one.outcome.rate for one in results[name]] for name in names)
    table.ratio("jobsvc / bare", ours, bare, RATE_GOAL)
    table.ratio("jobsvc / bare with as many header fields", ours, fields)
    micros = [[one.cpu_micros for one in results[name]] for name in names]
    table.ratio("bare / jobsvc in CPU a request", micros[1], micros[0])
    busiest = max(median(one.load_cpu_percent for one in rounds) for rounds in results.values())
    table.note(f"the load used at most {busiest:.0f} % of its core")


def _print_load_ceiling(stack: ExitStack, scratch: Path, seconds: float) -> None:
    """Print the rate that the load generator reaches if the server is not the bottleneck."""
    if not servers.nginx_installed():
        table.note("no nginx here to show what the load could reach")
        return
    quick = stack.enter_context(servers.nginx(scratch, scratch))
    nothing = [get("/nothing")]
    outcome = Load(quick.address, nothing, CONNECTIONS).run(seconds=seconds)
    table.note(f"the load's own ceiling, against nginx returning 400 bytes: {outcome.rate:,.0f}/s")
