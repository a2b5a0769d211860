"""What others feel of storage that is slow here and hangs there, and how the service ends beside it."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final, NamedTuple

from benchmarks import farm, host_info, load_generator, servers, table
from benchmarks.interleave import Plan
from benchmarks.latency_probe import Waits, meanwhile, probe
from benchmarks.load_generator import SINK, Load, answer, get
from benchmarks.servers import Server
from tests.slow_storage.fault_modes import METADATA
from tests.slow_storage.fuse_mount import FOR_EVER, Storage, missing, mounted

OTHERS: Final = 200
SLOW: Final = ("slow-0", "slow-1", "slow-2", "slow-3")
SIZE: Final = 64 << 20
READ: Final = 0.3
"""Seconds."""
PROBED: Final = 3.0
"""Likewise."""
GRACE: Final = 2.0
"""Likewise."""

WAIT: Final = table.Goal(most=30)
HEALTHY: Final = table.Goal(most=2)
REFUSED: Final = table.Goal(most=6)
END: Final = table.Goal(most=5)


class Figures(NamedTuple):
    """What one round found; seconds but where it says otherwise."""

    before: Waits
    during: Waits
    healthy_before: float
    healthy: float
    refused: float
    end: float
    """From SIGTERM on, less the grace."""
    slow: float
    """MB a second of one slow download."""


def run(plan: Plan) -> None:
    """Measure and print."""
    if lacking := missing():
        table.note(f"slow-storage: there is no {lacking} here")
        return
    with ExitStack() as stack:
        scratch = stack.enter_context(farm.scratch("slow-storage", plan.scratch))
        storage = stack.enter_context(mounted(scratch, remembered=1))
        jobs = farm.fill(storage.folder, OTHERS)
        for job_id in ("healthy", "hung", *SLOW):
            farm.output(storage.folder, job_id, SIZE)
        token = servers.token(scratch)
        others = [get(f"/api/jobs/{job_id}", token) for known in jobs.values() for job_id in known]
        table.title(
            f"slow-storage: a FUSE file system of {OTHERS} jobs; {len(SLOW)} downloads whose reads take "
            f"{READ * 1e3:.0f} ms, and a job whose metadata hangs; {host_info.placed()}; "
            f"{host_info.load_average()}"
        )
        rounds = []
        for _ in range(plan.rounds):
            with servers.jobsvc(storage.mount, scratch, "--shutdown-grace", f"{GRACE:g}") as server:
                rounds.append(_one(server, storage, token, others))
            storage.heal()
        _print(rounds)


def _one(server: Server, storage: Storage, token: str, others: list[bytes]) -> Figures:
    load_generator.until(lambda: answer(server.address, get("/readyz"))[0] == 200, 30)
    Load(server.address, others, 4).run(each=100)
    healthy, hung = (get(f"/api/jobs/{job_id}/download", token) for job_id in ("healthy", "hung"))
    _seconds_of(server, healthy)
    healthy_before = _seconds_of(server, healthy)
    before = probe(server.address, others, PROBED)
    for job_id in SLOW:
        storage.trouble(f"{job_id}/output", "read", seconds=READ)
    storage.trouble("hung", *METADATA, seconds=FOR_EVER)
    with _trickling(server, token) as received, meanwhile(server.address, others) as during:
        begun = time.perf_counter()
        with _asked(server, hung) as refused:
            while_slow = _seconds_of(server, healthy)
        slow = min(received) / (time.perf_counter() - begun) / 1e6
    end = _end(server) - GRACE
    return Figures(before, during, healthy_before, while_slow, refused[0], end, slow)


def _seconds_of(server: Server, request: bytes) -> float:
    return Load(server.address, [request], 1, drop=False).run(each=1).seconds


@contextmanager
def _trickling(server: Server, token: str) -> Iterator[list[int]]:
    """Have the slow downloads under way from here on; yields the bytes that each has had."""
    received = [0] * len(SLOW)

    def read(number: int, sock: socket.socket) -> None:
        sink = bytearray(SINK)
        with suppress(OSError), sock:
            while count := sock.recv_into(sink):
                received[number] += count

    for number, job_id in enumerate(SLOW):
        sock = socket.create_connection(server.address)
        sock.sendall(get(f"/api/jobs/{job_id}/download", token))
        threading.Thread(target=read, args=(number, sock), daemon=True).start()
    load_generator.until(lambda: all(received), load_generator.SILENCE)
    yield received


@contextmanager
def _asked(server: Server, request: bytes) -> Iterator[list[float]]:
    """Ask for what hangs while the block runs, and until it is refused; yields the seconds that took."""
    seconds: list[float] = []

    def ask() -> None:
        begun = time.perf_counter()
        status, _ = answer(server.address, request)
        if status == 503:
            seconds.append(time.perf_counter() - begun)

    thread = threading.Thread(target=ask)
    thread.start()
    yield seconds
    thread.join()


def _end(server: Server) -> float:
    begun = time.perf_counter()
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(load_generator.SILENCE)
    return time.perf_counter() - begun


def _print(rounds: list[Figures]) -> None:
    table.row("p99 of the others' status, 200 a second", [one.during.p99 for one in rounds], " ms", WAIT)
    table.row("the worst of them", [one.during.worst for one in rounds], " ms")
    table.row("p99 without slow storage", [one.before.p99 for one in rounds], " ms")
    table.row(f"a healthy download of {SIZE >> 20} MiB", [one.healthy for one in rounds], " s", HEALTHY)
    table.row("the same without slow storage", [one.healthy_before for one in rounds], " s")
    table.row("the hung job's download is 503 after", [one.refused for one in rounds], " s", REFUSED)
    table.row("from SIGTERM to the end, less the grace", [one.end for one in rounds], " s", END)
    table.row("each slow download", [one.slow for one in rounds], " MB/s")
