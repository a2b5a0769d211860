"""Status requests per second with budgets in Redis, compared with budgets in the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median
from time import sleep
from typing import Final

from benchmarks.harness import farm, host_info, process, servers, table
from benchmarks.harness.interleave import Measurement, Plan, interleave
from benchmarks.harness.load_generator import Load, Outcome, answer, get, until
from benchmarks.harness.servers import Server

JOBS: Final = 2000
CONNECTIONS: Final = 32
TOKENS: Final = 50
"""Each has its own budget."""
LIMIT: Final = "600000/minute"
SLICE_S: Final = 0.2
"""Seconds that a server is measured before the next has its turn."""
RATE_GOAL: Final = table.Goal(at_least=0.9)


def run(plan: Plan) -> None:
    """Measure and print."""
    seconds = plan.pick(3, 1)
    with ExitStack() as stack:
        scratch = stack.enter_context(farm.scratch("shared-state", plan.scratch))
        root = scratch / "jobs"
        every = [job_id for known in farm.fill(root, JOBS).values() for job_id in known]
        sleep(farm.STABLE_AFTER_S)
        url = stack.enter_context(_redis(scratch))
        table.title(
            f"shared state: {JOBS:,} jobs, random ids on {CONNECTIONS} keep-alive connections, {TOKENS} "
            f"tokens with {LIMIT} each, Redis on the service's core, slices of {SLICE_S} s; "
            f"{host_info.describe_placement()}; {host_info.load_average()}"
        )
        seeds = count()
        services = [
            stack.enter_context(_service(root, scratch / "without", every)),
            stack.enter_context(_service(root, scratch / "with", every, "--shared-state", url)),
        ]
        results = interleave(plan, services, lambda each: each.load(next(seeds)), round(seconds / SLICE_S))
        _print(results)


@dataclass(frozen=True, slots=True)
class _Service:
    """A running service and the requests to send to it."""

    name: str
    server: Server
    requests: list[bytes]

    def cpu(self) -> float:
        """Return the CPU seconds used so far."""
        return self.server.cpu()

    def load(self, seed: int) -> Outcome:
        """Send requests for SLICE_S seconds."""
        return Load(self.server.address, self.requests, CONNECTIONS, seed=seed).run(seconds=SLICE_S)


@contextmanager
def _redis(scratch: Path) -> Iterator[str]:
    """Run Redis, which has to be on the PATH; return its URL."""
    port = servers.free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(scratch)]
    with servers.running_at("redis-server", ("127.0.0.1", port), command, scratch):
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def _service(root: Path, scratch: Path, every: list[str], *flags: str) -> Iterator[_Service]:
    """Run the service and request each job twice."""
    scratch.mkdir()
    tokens = [servers.token(scratch, f"owner-{number}", "admin", "jobs:read") for number in range(TOKENS)]
    requests = [get(f"/api/jobs/{job_id}", tokens[index % TOKENS]) for index, job_id in enumerate(every)]
    with servers.jobsvc(root, scratch, "--limit-status", LIMIT, *flags) as server:
        until(lambda: answer(server.address, get("/readyz"))[0] == 200, 60)
        # Until the watches are active, a snapshot older than a second is checked on disk.
        until(lambda: process.watches(server.process.pid) >= JOBS, 60, pause=0.5)
        Load(server.address, requests, CONNECTIONS).run(each=2 * JOBS // CONNECTIONS)
        yield _Service(scratch.name, server, requests)


def _print(results: dict[str, list[Measurement]]) -> None:
    for name, rounds in results.items():
        table.row(f"{name} --shared-state: requests", [one.outcome.rate for one in rounds], "/s")
        table.row(f"{name} --shared-state: CPU a request", [one.cpu_micros for one in rounds], " us")
    without, shared = ([one.outcome.rate for one in rounds] for rounds in results.values())
    table.ratio("with / without --shared-state", shared, without, RATE_GOAL)
    busiest = max(median(one.load_cpu_percent for one in rounds) for rounds in results.values())
    table.note(f"the load used at most {busiest:.0f} % of its core")
