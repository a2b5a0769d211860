"""Status of another owner during 2,000 hostile connections of five kinds, revocation, memory afterwards."""

from __future__ import annotations

import multiprocessing
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Final

from benchmarks.harness import farm, host_info, process, servers, table
from benchmarks.harness.interleave import Plan
from benchmarks.harness.latency_probe import Latencies, probe_meanwhile
from benchmarks.harness.load_generator import Address, answer, get, until
from benchmarks.harness.servers import Server

JOBS: Final = 2000
CONNECTIONS_PER_KIND: Final = 400
"""Hostile connections of each kind."""
OWNER: Final = "hostile"
VICTIM_TOKENS: Final = 24
"""Tokens of the other owner: together they have a larger budget than the probe uses."""
LARGE_JOBS: Final = 40
"""Jobs of the hostile owner."""
MEMORY_TOLERANCE: Final = 0.1
"""Memory has recovered if it is within this fraction of its size after the first round."""
MEMORY_TRIM_S: Final = 35
"""Seconds within which the service returns freed memory to the system."""
P99_GOAL_MS: Final = table.Goal(at_most=50)
REVOCATION_GOAL_S: Final = table.Goal(at_most=2)


def run(plan: Plan) -> None:
    """Measure with the default limits and print."""
    measure(plan, default_limits=True)


def measure(plan: Plan, *, default_limits: bool) -> None:
    """Measure and print."""
    each = int(plan.pick(CONNECTIONS_PER_KIND, CONNECTIONS_PER_KIND // 10))
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with ExitStack() as stack:
        scratch = stack.enter_context(farm.scratch("hostile", plan.scratch))
        root = scratch / "jobs"
        ids = farm.fill(root, JOBS)
        for number in range(LARGE_JOBS):
            farm.put(root, f"hostile-{number}", "rendering", owner=OWNER, metadata={"x": "y" * 100_000})
        time.sleep(farm.STABLE_AFTER_S)
        tokens = [servers.token(scratch) for _ in range(VICTIM_TOKENS)]
        requests = [
            get(f"/api/jobs/{job_id}", token)
            for job_id, token in zip(ids["completed"][:480], cycle(tokens), strict=False)
        ]
        ours = stack.enter_context(servers.jobsvc(root, scratch, default_limits=default_limits))
        until(lambda: answer(ours.address, get("/readyz"))[0] == 200, 60)
        table.title(
            f"hostile: {5 * each:,} connections of five kinds; {host_info.describe_placement()}; "
            f"{host_info.load_average()}"
        )
        rounds = [_round(ours, scratch, requests, each, plan.pick(25, 5)) for _ in range(plan.rounds)]
        _print(rounds)


@dataclass
class Round:
    """The results of one round."""

    alone: Latencies
    attacked: Latencies
    revocation_s: float
    """Seconds until the revoked token was rejected."""
    open_connections: float
    """Hostile connections that were open in the middle of the round."""
    memory: list[int] = field(default_factory=list)
    """Resident bytes: before, peak, and after."""


def _round(server: Server, scratch: Path, requests: list[bytes], each: int, seconds: float) -> Round:
    token = servers.token(scratch, OWNER)
    until(lambda: answer(server.address, get("/api/jobs/hostile-0", token))[0] == 200, 10)
    memory = process.Memory(server.process.pid)
    with probe_meanwhile(server.address, requests) as alone:
        time.sleep(seconds / 5)
    with probe_meanwhile(server.address, requests) as attacked, under_attack(server.address, token, each):
        time.sleep(seconds)
        open_connections = server.metric("connections")
        revocation_s = _revoke(server, scratch, token)
    peak = memory.peak_growth() + memory.initial
    until(lambda: server.metric("connections") < each / 10, 60, pause=0.2)
    time.sleep(MEMORY_TRIM_S)
    return Round(alone, attacked, revocation_s, open_connections, [memory.initial, peak, memory.current()])


def _revoke(server: Server, scratch: Path, token: str) -> float:
    """Revoke a token and return the seconds until it is rejected."""
    command = [
        sys.executable,
        "-m",
        "jobsvc",
        "token",
        "revoke",
        token,
        "--state-dir",
        str(scratch / "state"),
    ]
    # Costs no budget of the token, so that only the revocation changes its answer.
    request = get("/api/me", token)
    assert answer(server.address, request)[0] == 200
    subprocess.run(command, check=True, capture_output=True, cwd=process.REPOSITORY)
    # 429 once the hostile connections that are opened again have used up the budget of wrong tokens.
    return until(lambda: answer(server.address, request)[0] in {401, 429}, 30)


@dataclass
class _Kind:
    """How one kind of hostile client behaves."""

    first: bytes
    drip: Callable[[int], bytes] = lambda _: b""
    """What it sends once a second; the argument counts the seconds."""


def _kinds(token: str) -> tuple[_Kind, ...]:
    body = f"Authorization: Bearer {token}\r\nContent-Length: 60000\r\n\r\n"
    head = get("/api/jobs/hostile-1", token)
    large = head[:-2] + b"".join(b"X-%d: %s\r\n" % (n, b"z" * 1000) for n in range(16)) + b"\r\n"
    return (
        _Kind(b"GET /api/jobs/hostile-1 HTTP/1.1\r\nHost: x\r\nX: ", lambda second: b"%d" % (second % 10)),
        _Kind(get("/api/jobs?limit=200", token)),
        _Kind(get("/api/jobs/hostile-1/events", token)),
        _Kind(get("/api/jobs?limit=200", token) + large * 30),
        _Kind(
            f"POST /api/jobs/hostile-1/download-links HTTP/1.1\r\nHost: x\r\n{body}".encode(), lambda _: b" "
        ),
    )


@contextmanager
def under_attack(address: Address, token: str, each: int) -> Iterator[None]:
    """Hold this many connections of each kind; those that the service closes are opened again."""
    fork = multiprocessing.get_context("fork")
    stop, opened = fork.Event(), fork.Event()
    attacker = fork.Process(target=_attack, args=(address, _kinds(token), each, stop, opened))
    attacker.start()
    try:
        opened.wait(60)
        yield
    finally:
        stop.set()
        attacker.join()


def _attack(address: Address, kinds: tuple[_Kind, ...], each: int, stop: Event, opened: Event) -> None:
    missing = [kind for kind in kinds for _ in range(each)]
    open_: list[tuple[_Kind, socket.socket]] = []
    second = 0
    while not stop.is_set():
        for kind in missing:
            with suppress(OSError):
                open_.append((kind, _connect(address, kind)))
        opened.set()
        stop.wait(1)
        second += 1
        alive = [(kind, sock) for kind, sock in open_ if _keep_alive(kind, sock, second)]
        missing, open_ = _missing(kinds, alive, each), alive
    for _, sock in open_:
        sock.close()


def _missing(kinds: tuple[_Kind, ...], alive: list[tuple[_Kind, socket.socket]], each: int) -> list[_Kind]:
    counts = [sum(kind is other for other, _ in alive) for kind in kinds]
    return [kind for kind, count in zip(kinds, counts, strict=True) for _ in range(each - count)]


def _connect(address: Address, kind: _Kind) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(2)
    sock.connect(address)
    sock.settimeout(0)
    with suppress(BlockingIOError):
        sock.send(kind.first)
    return sock


def _keep_alive(kind: _Kind, sock: socket.socket, second: int) -> bool:
    """Send the next bytes, and return whether the connection is still open; received data is not read."""
    try:
        if (data := kind.drip(second)) and not sock.send(data):
            return False
        return sock.recv(1, socket.MSG_PEEK) != b"" or bool(kind.drip(0))
    except BlockingIOError:
        return True
    except OSError:
        sock.close()
        return False


def _print(rounds: list[Round]) -> None:
    table.row("status alone, p99", [one.alone.p99 for one in rounds], " ms")
    table.row("status during the attack, p99", [one.attacked.p99 for one in rounds], " ms", P99_GOAL_MS)
    table.row("status during the attack, worst", [one.attacked.worst for one in rounds], " ms")
    table.row(
        "a revoked token is rejected after", [one.revocation_s for one in rounds], " s", REVOCATION_GOAL_S
    )
    table.row("open connections in the middle", [one.open_connections for one in rounds])
    names = ("before", "at most", "after the attack")
    for number, name in enumerate(names):
        table.row(f"resident memory {name}", [one.memory[number] / 1e6 for one in rounds], " MB")
    first, last = rounds[0].memory[2], rounds[-1].memory[2]
    if len(rounds) > 1:
        table.row(
            "memory after the last round / the first",
            [last / first],
            goal=table.Goal(at_most=1 + MEMORY_TOLERANCE),
        )
