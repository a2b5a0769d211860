"""Status requests per second of two replicas on two cores, compared with one replica on one core."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Final

from benchmarks.harness import farm, host_info, process, servers, table, wrk
from benchmarks.harness.interleave import Measurement, Plan, interleave
from benchmarks.harness.load_generator import Load, Outcome, answer, get, until
from benchmarks.harness.servers import Server

JOBS: Final = 20_000
CONNECTIONS: Final = 32
"""To each replica."""
SLICE_S: Final = 1
RATIO_GOAL: Final = table.Goal(at_least=1.7)
ONE: Final = "one replica"
TWO: Final = "two replicas"


@dataclass(frozen=True, slots=True)
class Replicas:
    """Replicas that are loaded at the same time."""

    name: str
    servers: Sequence[Server]

    def cpu(self) -> float:
        """Return the CPU seconds that all of them have used so far."""
        return sum(server.cpu() for server in self.servers)


def run(plan: Plan) -> None:
    """Measure and print."""
    if not wrk.installed() or len(host_info.all_cores()) < 2:
        table.note("replicas: needs wrk and two cores")
        return
    with ExitStack() as stack:
        scratch = stack.enter_context(farm.scratch("replicas", plan.scratch))
        root = scratch / "jobs"
        ids = [job_id for known in farm.fill(root, JOBS).values() for job_id in known]
        sleep(farm.STABLE_AFTER_S)
        (scratch / "0").mkdir()
        token = servers.token(scratch / "0")
        shutil.copytree(scratch / "0", scratch / "1")
        replicas = [
            stack.enter_context(servers.jobsvc(root, scratch / str(number), cores=frozenset([core])))
            for number, core in enumerate(sorted(host_info.all_cores()))
        ]
        for replica in replicas:
            _wait_until_ready(replica)
            Load(replica.address, [get(f"/api/jobs/{job_id}", token) for job_id in ids], CONNECTIONS).run(
                each=2 * JOBS // CONNECTIONS
            )
        _title()
        script = wrk.write_script(scratch, [f"/api/jobs/{job_id}" for job_id in ids])
        results = interleave(
            plan,
            [Replicas(ONE, replicas[:1]), Replicas(TWO, replicas)],
            lambda each: _load(each, script, token),
            int(plan.pick(4, 1)),
        )
        _print(results)


def _wait_until_ready(replica: Server) -> None:
    until(lambda: answer(replica.address, get("/readyz"))[0] == 200, 60)
    until(lambda: process.watches(replica.process.pid) >= JOBS, 60, pause=0.5)


def _title() -> None:
    table.title(
        f"replicas: {JOBS:,} jobs, random ids on {CONNECTIONS} keep-alive connections to each replica, "
        f"slices of {SLICE_S} s; each replica on a core of its own, wrk on the free core, or on both; "
        f"{host_info.load_average()}"
    )


def _load(each: Replicas, script: Path, token: str) -> Outcome:
    cores = host_info.cores()[1] if each.name == ONE else host_info.all_cores()
    addresses = [server.address for server in each.servers]
    return wrk.run(addresses, script, token, connections=CONNECTIONS, seconds=SLICE_S, cores=cores)


def _print(results: dict[str, list[Measurement]]) -> None:
    for name, rounds in results.items():
        table.row(f"{name}: requests", [one.outcome.rate for one in rounds], "/s")
        table.row(f"{name}: server CPU a request", [one.cpu_micros for one in rounds], " us")
        table.row(f"{name}: CPU of wrk a request", [_load_micros(one) for one in rounds], " us")
    one, two = results[ONE], results[TWO]
    table.ratio("requests a second", [each.outcome.rate for each in two], [each.outcome.rate for each in one])
    # wrk takes its share of the two cores; with clients on other hosts the replicas have both.
    table.ratio(
        "requests that two cores can answer, over those of one core",
        [2 / each.cpu_micros for each in two],
        [1 / each.cpu_micros for each in one],
        RATIO_GOAL,
    )


def _load_micros(one: Measurement) -> float:
    return one.outcome.cpu / one.outcome.requests * 1e6
