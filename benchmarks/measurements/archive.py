"""Tar archives: speed compared with `tar c | nc` and with nginx, memory, first byte, others' latency."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.harness import farm, host_info, servers, table
from benchmarks.harness.interleave import Measured, Measurement, Plan, interleave
from benchmarks.harness.latency_probe import Latencies, probe_meanwhile
from benchmarks.harness.load_generator import (
    HEAD_READ_SIZE,
    SINK_SIZE,
    TIMEOUT_S,
    Load,
    Outcome,
    UnexpectedAnswer,
    answer,
    get,
    until,
)
from benchmarks.harness.process import Memory
from benchmarks.harness.servers import Server

FRAMES: Final = 5000
FRAME_SIZE: Final = 20_000
FILMS: Final = 20
FILM_SIZE: Final = 50_000_000
SMALL_FILES: Final = 100_000
SMALL_SIZE: Final = 100
FILES_PER_FOLDER: Final = 1000
ARCHIVES_PER_ROUND: Final = 4
OTHER_JOBS: Final = 200
OWNER: Final = "archives"
"""Owner of the jobs whose archives are sent; the other jobs are farm.OWNER's."""
NETCAT: Final = "nc.openbsd"

PIPE_GOAL: Final = table.Goal(at_least=0.5)
NGINX_GOAL: Final = table.Goal(at_least=0.9)
MEMORY_GOAL_MB: Final = table.Goal(at_most=25)
SENT_MEMORY_GOAL_MB: Final = table.Goal(at_most=2)
FIRST_BYTE_GOAL_S: Final = table.Goal(at_most=2)
LATENCY_GOAL_MS: Final = table.Goal(at_most=30)


def run(plan: Plan) -> None:
    """Measure and print."""
    with ExitStack() as stack:
        scratch = stack.enter_context(farm.scratch("archive", plan.scratch))
        root = scratch / "jobs"
        frames = _make_job(root, "frames", int(plan.pick(FRAMES, FRAMES // 10)), FRAME_SIZE)
        films = _make_job(root, "films", int(plan.pick(FILMS, 4)), FILM_SIZE)
        _make_job(root, "small", int(plan.pick(SMALL_FILES, SMALL_FILES // 10)), SMALL_SIZE)
        plain = _write(scratch / "plain" / "film.mp4", sum(path.stat().st_size for path in films.iterdir()))
        jobs = farm.fill(root, OTHER_JOBS)
        time.sleep(farm.STABLE_AFTER_S)
        token = servers.token(scratch, OWNER)
        other_token = servers.token(scratch)
        others = [get(f"/api/jobs/{job_id}", other_token) for ids in jobs.values() for job_id in ids]
        ours = stack.enter_context(servers.jobsvc(root, scratch))
        until(lambda: answer(ours.address, get("/readyz"))[0] == 200, 60)
        _measure_small_frames(plan, ours, frames, token)
        _measure_large_files(plan, stack, ours, plain, token)
        _measure_first_byte(plan, ours, token, others)


def _measure_small_frames(plan: Plan, ours: Server, folder: Path, token: str) -> None:
    if missing := [name for name in ("tar", NETCAT) if shutil.which(name) is None]:
        table.note(f"there is no {missing[0]} here: no ratio to tar c | nc")
        return
    table.title(
        f"archive: tar of {plan.pick(FRAMES, FRAMES // 10):,.0f} files of {FRAME_SIZE // 1000} kB from the "
        f"page cache, {ARCHIVES_PER_ROUND} a round, by a client that drops the bytes; "
        f"{host_info.describe_placement()}; {host_info.load_average()}"
    )
    memory = Memory(ours.process.pid)
    pipe = TarPipe(folder)

    def one(server: Measured) -> Outcome:
        return pipe.send() if server is pipe else _fetch(ours, "frames", token)

    measured: list[Measured] = [ours, pipe]
    _print(interleave(plan, measured, one, slices=ARCHIVES_PER_ROUND), PIPE_GOAL)
    table.row("memory growth of the service", [memory.peak_growth() / 1e6], " MB", MEMORY_GOAL_MB)


def _measure_large_files(plan: Plan, stack: ExitStack, ours: Server, plain: Path, token: str) -> None:
    if not servers.nginx_installed():
        table.note("nginx is not on the PATH: no ratio to it")
        return
    nginx = stack.enter_context(servers.nginx(plain.parent, plain.parents[1]))
    table.title(
        f"archive: tar of files of {FILM_SIZE // 1_000_000} MB from the page cache, and a file of the same "
        f"{plain.stat().st_size / 1e9:g} GB, {ARCHIVES_PER_ROUND} a round, by a client that drops the bytes; "
        f"{host_info.describe_placement()}; {host_info.load_average()}"
    )
    memory = Memory(ours.process.pid)

    def one(server: Measured) -> Outcome:
        if server is ours:
            return _fetch(ours, "films", token)
        return Load(nginx.address, [get(f"/{plain.name}")], 1).run(each=1)

    _print(interleave(plan, [ours, nginx], one, slices=ARCHIVES_PER_ROUND), NGINX_GOAL)
    table.row("memory growth of the service", [memory.peak_growth() / 1e6], " MB", MEMORY_GOAL_MB)


def _measure_first_byte(plan: Plan, ours: Server, token: str, others: Sequence[bytes]) -> None:
    count = int(plan.pick(SMALL_FILES, SMALL_FILES // 10))
    table.title(
        f"archive: tar of {count:,} files of {SMALL_SIZE} bytes; "
        f"{host_info.describe_placement()}; {host_info.load_average()}"
    )
    with probe_meanwhile(ours.address, others) as alone:
        time.sleep(plan.pick(5, 1))
    latencies, fetched = list[Latencies](), list[Fetched]()
    for _ in range(plan.rounds):
        with probe_meanwhile(ours.address, others) as meanwhile:
            fetched.append(_fetch_in_parts(ours, get("/api/jobs/small/archive.tar", token)))
        latencies.append(meanwhile)
    table.row("first byte", [each.first_byte_s for each in fetched], " s", FIRST_BYTE_GOAL_S)
    table.row("whole archive", [each.seconds for each in fetched], " s")
    table.row(
        "status of another owner meanwhile, p99", [one.p99 for one in latencies], " ms", LATENCY_GOAL_MS
    )
    table.row("the worst of them", [one.worst for one in latencies], " ms")
    table.row("p99 without an archive", [alone.p99], " ms")
    table.row("memory growth until the first byte", [each.listed / 1e6 for each in fetched], " MB")
    table.row("memory growth after it", [each.sent / 1e6 for each in fetched], " MB", SENT_MEMORY_GOAL_MB)
    table.row("resident memory at the end", [each.resident / 1e6 for each in fetched], " MB")


class Fetched(NamedTuple):
    """One archive that was received; memory is resident bytes of the service."""

    first_byte_s: float
    seconds: float
    listed: int
    """Growth of the peak until the first byte of the body."""
    sent: int
    """Growth of the peak from then on."""
    resident: int
    """At the end."""


def _fetch_in_parts(server: Server, request: bytes) -> Fetched:
    """Receive an archive and note its first byte."""
    sink, memory = bytearray(SINK_SIZE), Memory(server.process.pid)
    with socket.create_connection(server.address, timeout=TIMEOUT_S) as sock:
        started_at = time.perf_counter()
        sock.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        data = b""
        while data.find(b"\r\n\r\n") in {-1, len(data) - 4}:
            data += sock.recv(HEAD_READ_SIZE)
        first_byte_s = time.perf_counter() - started_at
        if not data.startswith(b"HTTP/1.1 200"):
            raise UnexpectedAnswer(f"wanted 200: {data[:500]!r}")
        listed, memory = memory.peak_growth(), Memory(server.process.pid)
        while sock.recv_into(sink, SINK_SIZE, socket.MSG_TRUNC):
            pass
    seconds = time.perf_counter() - started_at
    return Fetched(first_byte_s, seconds, listed, memory.peak_growth(), memory.current())


class TarPipe:
    """`tar c | nc`, started for each archive on the server's core."""

    name = "tar c | nc"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def cpu(self) -> float:
        """Return the CPU seconds of all child processes that have ended, tar and nc among them."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def send(self) -> Outcome:
        """Send one archive; it is timed from the connection on."""
        port = servers.free_port()
        command = f"tar c -C '{self._folder.parent}' '{self._folder.name}' | {NETCAT} -N -l 127.0.0.1 {port}"
        core = ",".join(map(str, host_info.cores()[0]))
        with subprocess.Popen(["taskset", "-c", core, "sh", "-c", command]) as running:
            sock = _connect(port)
            try:
                started_at, received, sink = time.perf_counter(), 0, bytearray(SINK_SIZE)
                while count := sock.recv_into(sink, SINK_SIZE, socket.MSG_TRUNC):
                    received += count
                seconds = time.perf_counter() - started_at
            finally:
                sock.close()
                running.wait(TIMEOUT_S)
        return Outcome(requests=1, seconds=seconds, received=received)


def _connect(port: int) -> socket.socket:
    connected: list[socket.socket] = []

    def is_connected() -> bool:
        try:
            connected.append(socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S))
        except ConnectionRefusedError:
            return False
        return True

    until(is_connected, TIMEOUT_S, pause=0.005)
    return connected[0]


def _fetch(server: Server, job_id: str, token: str) -> Outcome:
    return Load(server.address, [get(f"/api/jobs/{job_id}/archive.tar", token)], 1).run(each=1)


def _print(results: dict[str, list[Measurement]], goal: table.Goal) -> None:
    for name, rounds in results.items():
        table.row(f"{name}", [each.outcome.received / each.outcome.seconds / 1e9 for each in rounds], " GB/s")
        table.row(f"{name}: CPU a GB", [each.cpu / each.outcome.received * 1e9 for each in rounds], " s")
    ours, theirs = results.values()
    speeds = [[each.outcome.received / each.outcome.seconds for each in rounds] for rounds in (ours, theirs)]
    table.ratio(f"speed, jobsvc / {list(results)[1]}", speeds[0], speeds[1], goal)


def _make_job(root: Path, job_id: str, count: int, size: int) -> Path:
    """Create a completed job whose output is a directory with this many files; return the directory."""
    folder = farm.put(root, job_id, "completed", owner=OWNER, outputPath="frames/") / "frames"
    content = os.urandom(size)
    for start in range(0, count, FILES_PER_FOLDER):
        below = folder if count <= FRAMES else folder / f"{start // FILES_PER_FOLDER:04d}"
        below.mkdir(exist_ok=True, parents=True)
        for number in range(start, min(start + FILES_PER_FOLDER, count)):
            descriptor = os.open(f"{below}/frame.{number:06d}.exr", os.O_WRONLY | os.O_CREAT, 0o644)
            os.write(descriptor, content)
            os.close(descriptor)
    os.sync()
    return folder


def _write(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True)
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for start in range(0, size, len(block)):
            file.write(block[: size - start])
        file.flush()
        os.fsync(file.fileno())
    return path
