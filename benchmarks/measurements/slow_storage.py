"""Effect of slow and hanging storage on other requests, and shutdown meanwhile."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final, NamedTuple

from benchmarks.harness import farm, host_info, load_generator, servers, table
from benchmarks.harness.interleave import Plan
from benchmarks.harness.latency_probe import Latencies, probe, probe_meanwhile
from benchmarks.harness.load_generator import SINK_SIZE, Load, answer, get
from benchmarks.harness.servers import Server
from tests.slow_storage.fault_modes import METADATA_CALLS
from tests.slow_storage.fuse_mount import FOREVER_S, FaultyStorage, missing_requirement, mounted_storage

OTHER_JOBS: Final = 200
SLOW_JOBS: Final = ("slow-0", "slow-1", "slow-2", "slow-3")
OUTPUT_SIZE: Final = 64 << 20
READ_DELAY_S: Final = 0.3
"""Seconds."""
PROBE_S: Final = 3.0
"""Likewise."""
SHUTDOWN_GRACE_S: Final = 2.0
"""Likewise."""

LATENCY_GOAL_MS: Final = table.Goal(at_most=30)
HEALTHY_GOAL_S: Final = table.Goal(at_most=2)
REFUSAL_GOAL_S: Final = table.Goal(at_most=6)
EXIT_GOAL_S: Final = table.Goal(at_most=5)


class Figures(NamedTuple):
    """The results of one round; in seconds unless stated otherwise."""

    before: Latencies
    during: Latencies
    healthy_before: float
    healthy: float
    refused: float
    end: float
    """From SIGTERM, without the grace period."""
    slow: float
    """MB/s of one slow download."""


def run(plan: Plan) -> None:
    """Measure and print."""
    if missing := missing_requirement():
        table.note(f"slow-storage: there is no {missing} here")
        return
    with ExitStack() as stack:
        scratch = stack.enter_context(farm.scratch("slow-storage", plan.scratch))
        storage = stack.enter_context(mounted_storage(scratch, kernel_cache_s=1))
        jobs = farm.fill(storage.folder, OTHER_JOBS)
        for job_id in ("healthy", "hung", *SLOW_JOBS):
            farm.output(storage.folder, job_id, OUTPUT_SIZE)
        token = servers.token(scratch)
        others = [get(f"/api/jobs/{job_id}", token) for known in jobs.values() for job_id in known]
        table.title(
            f"slow-storage: a FUSE file system of {OTHER_JOBS} jobs; {len(SLOW_JOBS)} downloads whose reads "
            f"take {READ_DELAY_S * 1e3:.0f} ms, and a job whose metadata hangs; "
            f"{host_info.describe_placement()}; "
            f"{host_info.load_average()}"
        )
        rounds = []
        for _ in range(plan.rounds):
            with servers.jobsvc(
                storage.mountpoint, scratch, "--shutdown-grace", f"{SHUTDOWN_GRACE_S:g}"
            ) as server:
                rounds.append(_measure_round(server, storage, token, others))
            storage.clear_faults()
        _print(rounds)


def _measure_round(server: Server, storage: FaultyStorage, token: str, others: list[bytes]) -> Figures:
    load_generator.until(lambda: answer(server.address, get("/readyz"))[0] == 200, 30)
    Load(server.address, others, 4).run(each=100)
    healthy, hung = (get(f"/api/jobs/{job_id}/download", token) for job_id in ("healthy", "hung"))
    _time_request(server, healthy)
    healthy_before = _time_request(server, healthy)
    before = probe(server.address, others, PROBE_S)
    for job_id in SLOW_JOBS:
        storage.add_fault(f"{job_id}/output", "read", seconds=READ_DELAY_S)
    storage.add_fault("hung", *METADATA_CALLS, seconds=FOREVER_S)
    with _slow_downloads(server, token) as received, probe_meanwhile(server.address, others) as during:
        started_at = time.perf_counter()
        with _hung_request(server, hung) as refused:
            while_slow = _time_request(server, healthy)
        slow = min(received) / (time.perf_counter() - started_at) / 1e6
    end = _time_shutdown(server) - SHUTDOWN_GRACE_S
    return Figures(before, during, healthy_before, while_slow, refused[0], end, slow)


def _time_request(server: Server, request: bytes) -> float:
    return Load(server.address, [request], 1, drop=False).run(each=1).seconds


@contextmanager
def _slow_downloads(server: Server, token: str) -> Iterator[list[int]]:
    """Start the slow downloads; yield the number of bytes that each has received."""
    received = [0] * len(SLOW_JOBS)

    def read(number: int, sock: socket.socket) -> None:
        sink = bytearray(SINK_SIZE)
        with suppress(OSError), sock:
            while count := sock.recv_into(sink):
                received[number] += count

    for number, job_id in enumerate(SLOW_JOBS):
        sock = socket.create_connection(server.address)
        sock.sendall(get(f"/api/jobs/{job_id}/download", token))
        threading.Thread(target=read, args=(number, sock), daemon=True).start()
    load_generator.until(lambda: all(received), load_generator.TIMEOUT_S)
    yield received


@contextmanager
def _hung_request(server: Server, request: bytes) -> Iterator[list[float]]:
    """Send the hanging request during the block, and until it is refused; yield the seconds that took."""
    seconds: list[float] = []

    def ask() -> None:
        sent_at = time.perf_counter()
        status, _ = answer(server.address, request)
        if status == 503:
            seconds.append(time.perf_counter() - sent_at)

    thread = threading.Thread(target=ask)
    thread.start()
    yield seconds
    thread.join()


def _time_shutdown(server: Server) -> float:
    started_at = time.perf_counter()
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(load_generator.TIMEOUT_S)
    return time.perf_counter() - started_at


def _print(rounds: list[Figures]) -> None:
    table.row(
        "p99 of the others' status, 200 a second", [one.during.p99 for one in rounds], " ms", LATENCY_GOAL_MS
    )
    table.row("the worst of them", [one.during.worst for one in rounds], " ms")
    table.row("p99 without slow storage", [one.before.p99 for one in rounds], " ms")
    table.row(
        f"a healthy download of {OUTPUT_SIZE >> 20} MiB",
        [one.healthy for one in rounds],
        " s",
        HEALTHY_GOAL_S,
    )
    table.row("the same without slow storage", [one.healthy_before for one in rounds], " s")
    table.row("the hung job's download is 503 after", [one.refused for one in rounds], " s", REFUSAL_GOAL_S)
    table.row("from SIGTERM to the end, less the grace", [one.end for one in rounds], " s", EXIT_GOAL_S)
    table.row("each slow download", [one.slow for one in rounds], " MB/s")
