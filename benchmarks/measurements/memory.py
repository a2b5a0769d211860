"""Memory of downloads: a large file, many in parallel, and clients that stop reading."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.harness import farm, host_info, load_generator, servers, table
from benchmarks.harness.interleave import Plan
from benchmarks.harness.latency_probe import probe
from benchmarks.harness.load_generator import Load, get
from benchmarks.harness.process import Memory
from benchmarks.harness.servers import Server

LARGE_SIZE: Final = 600_000_000
PARALLEL_DOWNLOADS: Final = 256
MIDDLE_SIZE: Final = 64 << 20
STALLED_CLIENTS: Final = 500
PROBE_S: Final = 3.0
"""Seconds."""

LARGE_GOAL_MB: Final = table.Goal(at_most=25)
PARALLEL_GOAL_MB: Final = table.Goal(at_most=40)
STALLED_GOAL_KB: Final = table.Goal(at_most=64)
LATENCY_GOAL_MS: Final = table.Goal(at_most=30)

JOBS: Final = ("large", "middle", "small")
_MB: Final = 1e6


class Bench:
    """The farm of this benchmark, and a fresh server for each measurement."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._root = scratch / "jobs"
        for job_id, size in zip(JOBS, (LARGE_SIZE, MIDDLE_SIZE, 1 << 20), strict=True):
            farm.output(self._root, job_id, size)
        self._token = servers.token(scratch)

    def status(self) -> list[bytes]:
        """Return the status requests of all jobs."""
        return [get(f"/api/jobs/{job_id}", self._token) for job_id in JOBS]

    def download(self, job_id: str) -> bytes:
        """Return the request for a job's output."""
        return get(f"/api/jobs/{job_id}/download", self._token)

    @contextmanager
    def server(self) -> Iterator[Server]:
        """Start a server, and warm it up: the imports of a first download are not part of the cost."""
        with servers.jobsvc(self._root, self._scratch) as server:
            load_generator.until(lambda: load_generator.answer(server.address, get("/readyz"))[0] == 200, 30)
            Load(server.address, self.status(), 4).run(each=50)
            Load(server.address, [self.download("small")], 1).run(each=4)
            time.sleep(0.5)
            yield server


def run(plan: Plan) -> None:
    """Measure and print."""
    with ExitStack() as stack:
        bench = Bench(stack.enter_context(farm.scratch("memory", plan.scratch)))
        table.title(
            "memory: growth of the peak of the resident memory of a warm server, a fresh one each round; "
            f"{host_info.describe_placement()}; {host_info.load_average()}"
        )
        growth = [_measure_downloads(bench, "large", 1) for _ in range(plan.rounds)]
        table.row(f"one download of {LARGE_SIZE / _MB:.0f} MB", growth, " MB", LARGE_GOAL_MB)
        growth = [_measure_downloads(bench, "middle", PARALLEL_DOWNLOADS) for _ in range(plan.rounds)]
        table.row(
            f"{PARALLEL_DOWNLOADS} downloads of {MIDDLE_SIZE >> 20} MiB at once",
            growth,
            " MB",
            PARALLEL_GOAL_MB,
        )
        _print_stalled([_measure_stalled_clients(bench) for _ in range(plan.rounds)])


def _measure_downloads(bench: Bench, job_id: str, streams: int) -> float:
    """Return the growth in MB while a file is downloaded by several clients in parallel."""
    with bench.server() as server:
        memory = Memory(server.process.pid)
        Load(server.address, [bench.download(job_id)], streams, drop=False).run(each=1)
        return memory.peak_growth() / _MB


def _measure_stalled_clients(bench: Bench) -> dict[str, float]:
    """Measure memory and latency while clients request a file and read nothing."""
    with bench.server() as server, ExitStack() as clients:
        before = probe(server.address, bench.status(), PROBE_S)
        memory, kernel = Memory(server.process.pid), _socket_memory()
        for _ in range(STALLED_CLIENTS):
            sock = clients.enter_context(
                socket.create_connection(server.address, timeout=load_generator.TIMEOUT_S)
            )
            sock.sendall(bench.download("large"))
        load_generator.until(lambda: server.metric("downloads_in_progress") >= STALLED_CLIENTS, 60, pause=0.1)
        during = probe(server.address, bench.status(), PROBE_S)
        started_at = time.perf_counter()
        Load(server.address, [bench.download("middle")], 1, drop=False).run(each=1)
        return {
            "memory": memory.peak_growth() / STALLED_CLIENTS / 1e3,
            "kernel": (_socket_memory() - kernel) / _MB,
            "before": before.p99,
            "during": during.p99,
            "download": (time.perf_counter() - started_at) * 1e3,
        }


def _print_stalled(rounds: list[dict[str, float]]) -> None:
    def column(name: str) -> list[float]:
        return [each[name] for each in rounds]

    table.row(f"{STALLED_CLIENTS} clients that read nothing: each", column("memory"), " kB", STALLED_GOAL_KB)
    table.row("meanwhile p99 of status, 200 a second", column("during"), " ms", LATENCY_GOAL_MS)
    table.row("without them", column("before"), " ms")
    table.row(f"meanwhile a download of {MIDDLE_SIZE >> 20} MiB", column("download"), " ms")
    table.row("socket buffers of the kernel, all together", column("kernel"), " MB")


def _socket_memory() -> int:
    """Return the bytes in the buffers of all TCP sockets of the host (/proc/net/sockstat)."""
    words = Path("/proc/net/sockstat").read_text("ascii").split("TCP: ")[1].splitlines()[0].split()
    return int(words[words.index("mem") + 1]) * host_info.PAGE
